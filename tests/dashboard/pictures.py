"""Pictures of the dashboard for the documentation: docs/images. `make screenshots` runs it.

    PYTHONPATH=tests python tests/dashboard/pictures.py [--to FOLDER]

On what the simulator's loop wrote, with numbers of their own (tests/stories.py).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path

from browsers import Tab, running, tabs
from layers import CHECKOUT
from PIL import Image
from record_objects import MOMENTS
from recorded import Recorded
from stories import crowd, life, livelier

FOLDER = CHECKOUT / "docs" / "images"
MOST_BYTES = 200_000
WHOLE = {"x": 0, "y": 0, "width": 1360, "height": 1640}
"""What is shown of a page that is longer than the screen, pixels."""
_INDEX = "search/products"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=FOLDER)
    folder: Path = parser.parse_args().to
    folder.mkdir(parents=True, exist_ok=True)
    with running() as browser, tabs(browser) as show:
        all_of_them(show, folder)
        a_rollback(show, folder)


def all_of_them(show: Callable[..., Tab], folder: Path) -> None:
    *_, last = life()
    kinds = [*(Recorded.at(name) for name in ("promoted", *(moment.__name__ for moment in MOMENTS))), last]
    for dark in (False, True):
        tab = show(crowd(kinds, 200), dark=dark)
        tab.go()
        _take(tab, folder / f"dashboard-indexes{'-dark' if dark else ''}.png")


def a_rollback(show: Callable[..., Tab], folder: Path) -> None:
    *_, last = life()
    livelier(last.objects, random.Random(4))
    for dark, narrow in ((False, False), (True, False), (False, True)):
        tab = show(last, dark=dark, narrow=narrow)
        tab.go(_INDEX)
        name = f"dashboard-rollback{'-dark' if dark else ''}{'-narrow' if narrow else ''}"
        _take(tab, folder / f"{name}.png", whole=not narrow)


def _take(tab: Tab, path: Path, *, whole: bool = False) -> None:
    tab.page.wait_for_timeout(300)
    tab.page.evaluate("document.activeElement.blur()")
    tab.page.screenshot(path=str(path), animations="disabled", **({"full_page": True, "clip": WHOLE} if whole else {}))
    tab.is_quiet()
    _shrink(path)
    size = path.stat().st_size
    print(f"{path.name}: {size:,} bytes")
    assert size < MOST_BYTES, f"{path} is larger than {MOST_BYTES:,} bytes"


def _shrink(path: Path) -> None:
    """To the 256 colours that it has most of: grounds and lines stay as they are, edges of letters nearly so."""
    picture = Image.open(path).convert("RGB")
    colours = sorted(picture.getcolors(picture.width * picture.height), reverse=True)[:256]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, colour in colours for part in colour])
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
