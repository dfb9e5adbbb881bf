"""A moving picture of a terminal: what a command writes, as a GIF and as an asciicast (version 2).

    python hack/cast.py docs/images/demo.gif -- make demo

The command runs in a terminal of its own, and what it writes is shown here as well. The picture runs at six times the
speed, and whatever keeps still for longer than a moment is cut short; the command's own clock tells how long it took.
The asciicast lies in build/ with every moment as it was, for asciinema's player.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pty
import struct
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyte
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
COLUMNS, ROWS = 108, 30
FONT_PIXELS = 13
MARGIN = 10
SPEED = 6
"""Times as fast as it was."""
STILL_SECONDS = 1.2
"""Of a pause, at most; and of the last picture, five times as long."""
FRAME_SECONDS = 0.2
"""What comes within it is one picture."""
BACKGROUND, TEXT = "#111827", "#d1d5db"
COLOURS = {
    "black": "#4b5563", "red": "#f87171", "green": "#4ade80", "brown": "#fbbf24", "blue": "#60a5fa",
    "magenta": "#c084fc", "cyan": "#22d3ee", "white": "#f9fafb", "default": TEXT,
}  # fmt: skip
"""By pyte's names; `brown` is the terminal's yellow."""


@dataclass(frozen=True, slots=True)
class Written:
    """Some bytes of the command, `at` seconds after its start."""

    at: float
    content: bytes


def record(command: Sequence[str]) -> tuple[list[Written], int]:
    """What the command writes to a terminal of COLUMNS x ROWS, and its exit code."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(command[0], list(command), os.environ | {"TERM": "xterm-256color"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    began, found = time.monotonic(), []
    with contextlib.suppress(OSError):  # Linux says EIO when the last process has closed the other end
        while content := os.read(terminal, 1 << 16):
            found.append(Written(time.monotonic() - began, content))
            os.write(sys.stdout.fileno(), content)
    os.close(terminal)
    return found, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def asciicast(written: Sequence[Written]) -> str:
    """The recording as https://docs.asciinema.org/manual/asciicast/v2/ has it."""
    lines: list[object] = [{"version": 2, "width": COLUMNS, "height": ROWS}]
    lines += [[round(one.at, 3), "o", one.content.decode(errors="replace")] for one in written]
    return "".join(json.dumps(line) + "\n" for line in lines)


def frames(written: Sequence[Written]) -> Iterator[tuple[Image.Image, float]]:
    """Each picture that differs from the one before it, and the seconds that it is shown."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    fonts = Path(get_data_path()) / "fonts" / "ttf"
    font = ImageFont.truetype(str(fonts / "DejaVuSansMono.ttf"), FONT_PIXELS)
    bold = ImageFont.truetype(str(fonts / "DejaVuSansMono-Bold.ttf"), FONT_PIXELS)
    shown, seconds = None, 0.0
    for number, one in enumerate(written):
        stream.feed(one.content)
        last = number + 1 == len(written)
        still = STILL_SECONDS * 5 if last else (written[number + 1].at - one.at) / SPEED
        seconds += still
        if seconds < FRAME_SECONDS and not last:
            continue
        picture = drawn(screen, font, bold)
        if shown is not None and picture.tobytes() == shown.tobytes() and not last:
            continue
        shown = picture
        yield picture, seconds if last else min(seconds, STILL_SECONDS)
        seconds = 0.0


def drawn(screen: pyte.Screen, font: ImageFont.FreeTypeFont, bold: ImageFont.FreeTypeFont) -> Image.Image:
    """The screen as a picture with few colours."""
    width, height = round(font.getlength("M")), round(FONT_PIXELS * 1.35)
    size = COLUMNS * width + 2 * MARGIN, ROWS * height + 2 * MARGIN
    picture = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(picture)
    draw.fontmode = "1"  # no shades between the colours: they make a GIF ten times as large
    for row in range(ROWS):
        line = screen.buffer[row]
        for column in range(COLUMNS):
            cell = line[column]
            if cell.data.strip():
                colour = COLOURS.get(cell.fg, TEXT if cell.fg.startswith("bright") else f"#{cell.fg}")
                place = MARGIN + column * width, MARGIN + row * height
                draw.text(place, cell.data, fill=colour, font=bold if cell.bold else font)
    return picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=16)


def save(path: Path, written: Sequence[Written]) -> int:
    """Write the GIF; its number of pictures."""
    pictures = [*frames(written)]
    (first, _), *others = pictures
    first.save(
        path,
        save_all=True,
        append_images=[picture for picture, _ in others],
        duration=[round(1000 * seconds) for _, seconds in pictures],
        loop=0,
        optimize=True,
    )
    return len(pictures)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gif", type=Path)
    parser.add_argument("command", nargs="+", help="after --")
    options = parser.parse_args()
    written, code = record(options.command)
    if not written:
        print("the command wrote nothing", file=sys.stderr)
        return code or 1
    recording = ROOT / "build" / f"{options.gif.stem}.cast"
    recording.parent.mkdir(exist_ok=True)
    recording.write_text(asciicast(written))
    pictures = save(options.gif, written)
    print(f"{options.gif}: {pictures} pictures, {options.gif.stat().st_size >> 10} KiB; {recording}", file=sys.stderr)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
