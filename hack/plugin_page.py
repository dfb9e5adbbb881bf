"""The reference page of `kubectl vectorindex`, from its command definitions: docs/reference/plugin.md.

`PYTHONPATH=hack python -m plugin_page --write` writes the page; `--check` tells whether it is what the code says.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from vectorindex_plugin import exits
from vectorindex_plugin.app import app
from vectorindex_searcher.generated import write_or_check

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "plugin.md"
_INTRODUCTION = """<!-- Generated from the commands by `make generate`; edit plugin/vectorindex_plugin/verbs. -->
# kubectl vectorindex: all verbs

How to install it, and what its screens look like: [plugin.md](../plugin.md)."""
_SHARED = {
    "Options of verbs that go to a cluster": ("namespace", "context", "kubeconfig", "output"),
    "Options of verbs that ask for something": ("timeout", "no_wait"),
}


def page() -> str:
    """The whole page."""
    parts = (_INTRODUCTION, _verbs(), *(_shared(title, names) for title, names in _SHARED.items()), _exits())
    return "\n\n".join(parts) + "\n"


def _verbs() -> str:
    shared = set().union(*_SHARED.values())
    lines = ["| verb | does | its own options |", "|---|---|---|"]
    for name, command in app.commands.items():
        arguments = [_argument(one) for one in command.params if isinstance(one, click.Argument)]
        own = [_option(one) for one in _options(command) if one.name not in shared]
        lines.append(f"| `{' '.join([name, *arguments])}` | {_cell(command.help or '')} | {_cell('; '.join(own))} |")
    return "\n".join(lines)


def _options(command: click.Command) -> Iterator[click.Option]:
    return (one for one in command.params if isinstance(one, click.Option))


def _argument(one: click.Argument) -> str:
    name = one.metavar or (one.name or "").upper()
    return (name if one.required else f"[{name}]") + ("..." if one.nargs == -1 else "")


def _option(one: click.Option) -> str:
    flag = ", ".join(f"`{name}`" for name in one.opts)
    default = f" (default {one.default:g})" if isinstance(one.default, float) else ""
    return f"{flag}: {one.help or ''}{default}"


def _shared(title: str, names: tuple[str, ...]) -> str:
    found = {one.name: one for command in app.commands.values() for one in _options(command)}
    return "\n".join([f"## {title}", "", *(f"- {_option(found[name])}" for name in names)])


def _exits() -> str:
    """The members of Exit with their docstrings."""
    classes = (one for one in ast.parse(inspect.getsource(exits)).body if isinstance(one, ast.ClassDef))
    (cls,) = (one for one in classes if one.name == exits.Exit.__name__)
    texts = [
        str(one.value.value) for one in cls.body if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)
    ]
    rows = [f"| {int(status)} | {text} |" for status, text in zip(exits.Exit, texts[1:], strict=True)]
    return "\n".join(["## Exit statuses", "", "| status | means |", "|---|---|", *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main(arguments: list[str] | None = None) -> int:
    """Write the page (--write) or tell whether it is what it should be (--check)."""
    return write_or_check("plugin_page", PAGE, page(), arguments)


if __name__ == "__main__":
    raise SystemExit(main())
