"""What a person sees: one line per thing that happened, and on a terminal a last line that counts."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time

TOPIC_WIDTH = 10
COLOURS = {"good": "32", "bad": "31", "quiet": "2", "strong": "1"}


class Printer:
    """Lines with the time since the start."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self._tty = sys.stdout.isatty()
        self._colour = self._tty and not os.environ.get("NO_COLOR")
        self._live = False

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def say(self, topic: str, text: str, mood: str = "") -> None:
        """One thing that happened."""
        self._clear()
        minutes, seconds = divmod(int(self.seconds), 60)
        head = f"{minutes:2d}:{seconds:02d}  {topic:<{TOPIC_WIDTH}}  "
        lines = textwrap.wrap(text, self._width() - len(head), break_on_hyphens=False) or [""]
        body = ("\n" + " " * len(head)).join(lines)
        print(head + self.paint(body, mood), flush=True)

    def title(self, text: str) -> None:
        """The beginning of a part."""
        self._clear()
        print(f"\n{self.paint(text, 'strong')}", flush=True)

    def plain(self, text: str = "") -> None:
        self._clear()
        print(text, flush=True)

    def live(self, text: str) -> None:
        """Replaces the last line; nothing where the output is not a terminal."""
        if self._tty:
            print(f"\r\x1b[K{self.paint(text[: self._width()], 'quiet')}", end="", flush=True)
            self._live = True

    def paint(self, text: str, mood: str) -> str:
        return f"\x1b[{COLOURS[mood]}m{text}\x1b[0m" if self._colour and mood else text

    def _clear(self) -> None:
        if self._live:
            print("\r\x1b[K", end="")
            self._live = False

    def _width(self) -> int:
        return max(60, min(118, shutil.get_terminal_size((118, 40)).columns))
