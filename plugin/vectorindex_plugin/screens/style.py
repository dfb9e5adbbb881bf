"""How screens look: few colours, one for each kind of state, and plain tables as kubectl has them."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import IO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from vectorindex_plugin.tones import Tone, tone

PIPED_WIDTH = 200
"""Columns where nobody looks: nothing is broken into lines that a script would have to put together."""
GAP = 2
"""Spaces between columns."""
_STYLES = {Tone.BAD: "red", Tone.GOOD: "green", Tone.MOVING: "yellow", Tone.QUIET: ""}


def console(out: IO[str] | None = None) -> Console:
    """Where screens go: as wide as the terminal, and without colour where it is none (or NO_COLOR is set)."""
    stream = out or sys.stdout
    terminal = stream.isatty()
    width = None if terminal or "COLUMNS" in os.environ else PIPED_WIDTH
    return Console(file=stream, width=width, highlight=False, color_system="auto" if terminal else None)


def colour(word: str) -> Text:
    """A state in its colour."""
    return Text(word, style=_STYLES[tone(word)])


@dataclass(slots=True)
class Columns:
    """A table without lines, as kubectl has them. Where there is no room for all columns, those of `spare` are left
    out, the first of them first; what is still too long goes on in the next line."""

    head: tuple[str, ...]
    spare: tuple[str, ...] = ()
    rows: list[tuple[Text, ...]] = dataclass_field(default_factory=list)

    def add(self, *cells: str | Text) -> None:
        """A row; one cell for each name in `head`."""
        self.rows.append(tuple(Text(cell) if isinstance(cell, str) else cell for cell in cells))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.table(options.max_width)

    def table(self, room: int) -> Table:
        """The table in so many characters."""
        widths = [max(len(name), *(row[at].cell_len for row in self.rows), 0) for at, name in enumerate(self.head)]
        shown = list(range(len(self.head)))
        for name in self.spare:
            if sum(widths[at] + GAP for at in shown) - GAP <= room:
                break
            shown.remove(self.head.index(name))
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
        for at in shown:
            table.add_column(self.head[at], overflow="fold")
        for row in self.rows:
            table.add_row(*(row[at] for at in shown))
        return table


def field(name: str, value: str) -> Table:
    """A named value, whose further lines stand below its first."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=9, no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    grid.add_row(name, value)
    return grid
