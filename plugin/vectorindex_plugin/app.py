"""The program: all verbs, and how it ends."""

from __future__ import annotations

import sys

import click

from vectorindex_plugin.exits import EndedError, Exit
from vectorindex_plugin.verbs import ask, begin, browse, files, see, talk

PROGRAM = "kubectl vectorindex"


@click.group(name=PROGRAM, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="vectorindex-operator", message="%(version)s")
def app() -> None:
    """What people see of their vector indexes, and what they say to them."""


for _verb in (*see.VERBS, *browse.VERBS, *ask.VERBS, *talk.VERBS, *files.VERBS, begin.init):
    app.add_command(_verb)


def main() -> None:
    """Entry point of `kubectl-vectorindex`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str], session: object = None) -> int:
    """Run a command line; answers the exit status. `session`: what a test gives in the place of a cluster."""
    try:
        answer = app.main(arguments, prog_name=PROGRAM, standalone_mode=False, obj=session)
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return int(Exit.USAGE)
    except EndedError as error:
        click.echo(f"error: {error}", err=True)
        return int(error.exit)
    except KeyboardInterrupt:
        return 130
    return answer if isinstance(answer, int) else 0


if __name__ == "__main__":
    main()
