"""Shell completion: kubectl runs `kubectl_complete-vectorindex` with the words so far, and reads candidates, a line
each, then a directive (as Cobra's programs write them)."""

from __future__ import annotations

import sys

from click.shell_completion import ShellComplete

from vectorindex_plugin.app import PROGRAM, app

NO_FILES = 4
FILES = 0


def candidates(words: list[str]) -> tuple[list[str], int]:
    """What may stand in the place of the last word, with its help after a tab, and the directive."""
    *before, last = words or [""]
    found = ShellComplete(app, {}, PROGRAM, "_UNUSED").get_completions(before, last)
    lines = [f"{one.value}\t{one.help}" if one.help else str(one.value) for one in found if one.type == "plain"]
    return lines, FILES if any(one.type == "file" for one in found) else NO_FILES


def main() -> None:
    """Entry point of `kubectl_complete-vectorindex`."""
    lines, directive = candidates(sys.argv[1:])
    sys.stdout.writelines(f"{line}\n" for line in (*lines, f":{directive}"))
