"""The files that the documentation's site is made of: `make docs`.

The site is the repository's own pages, under their own paths, so every relative link is right in both. What mkdocs
cannot read is made so in a copy: links to folders (they get a page that lists them), and lists and tables right below a
paragraph. Everything that a page links to comes along.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[1]
FIRST = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "hack/site.css", "docs")
"""From here on, and wherever their links lead."""
TITLES = {"docs/adr": "Decisions", "docs/reference": "Reference", "bench/results": "What was measured"}
INDEX = "README.md"
NOT_SEARCHED = ("CHANGELOG.md", "bench/results/")
"""Tell what was; a search shows the pages that explain."""

_LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\()([^()\s]+)(\))")
_FENCE = re.compile(r"^( *)(```|~~~)")
_CODE = re.compile(r"(`+)(?:(?!\1|\n\n).)+?\1(?!`)", re.DOTALL)
_BEGINS_BLOCK = re.compile(r"[-*] |1\. |\|")
_GOES_ON = re.compile(r"\s|[-*] |\d+\. |\||#|<!--|$")


def prose(text: str) -> Iterator[tuple[bool, str]]:
    """The lines of a page, and whether they are text (True) or a fenced block of code."""
    fence = ""
    for line in text.splitlines(keepends=True):
        found = _FENCE.match(line)
        if fence:
            yield False, line
            fence = "" if found and found[2] == fence else fence
        elif found:
            fence = found[2]
            yield False, line
        else:
            yield True, line


def links(text: str) -> Iterator[str]:
    """The targets of a page's links and pictures, in order; what stands in code is none."""
    plain = _CODE.sub("", "".join(line for is_text, line in prose(text) if is_text))
    yield from (found[2] for found in _LINK.finditer(plain))


def target(page: Path, link: str) -> Path | None:
    """The file or folder of the repository that a page's link leads to; None for other places, and within the page."""
    path = unquote(link.partition("#")[0])
    if not path or re.match(r"[a-z]+:", link):
        return None
    return Path(os.path.normpath(page.parent / path))


def site_files(root: Path) -> dict[str, str | None]:
    """Path in the site -> its text where it is a page, None where the file is taken as it is. Raises FileNotFoundError
    for a link that leads nowhere."""
    found: dict[str, str | None] = {}
    waiting = [file for name in FIRST for file in _files(root / name)]
    while waiting:
        file = waiting.pop()
        name = file.relative_to(root).as_posix()
        if name in found:
            continue
        if file.suffix != ".md":
            found[name] = None
            continue
        text = file.read_text(encoding="utf-8")
        found[name] = readable(text, file)
        for link in links(text):
            linked = target(file, link)
            if linked is None:
                continue
            if not linked.exists():
                raise FileNotFoundError(f"{name}: {link} leads nowhere")
            if linked.is_dir():
                waiting += [one for one in linked.iterdir() if one.suffix in (".md", ".svg", ".json", ".yaml")]
                if not (linked / INDEX).exists():
                    found[f"{linked.relative_to(root).as_posix()}/{INDEX}"] = listing(root, linked)
            else:
                waiting.append(linked)
    return found


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]


def listing(root: Path, folder: Path) -> str:
    """A page that lists a folder's files by their titles."""
    name = folder.relative_to(root).as_posix()
    rows = [f"- [{_title(one)}]({one.name})" for one in sorted(folder.iterdir()) if one.is_file()]
    return "\n".join([f"# {TITLES.get(name, name)}", "", *rows]) + "\n"


def _title(file: Path) -> str:
    if file.suffix != ".md":
        return file.name
    heading = re.search(r"^# (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return heading[1].replace("[", "(").replace("]", ")") if heading else file.name


def readable(text: str, page: Path) -> str:
    """A page as mkdocs reads it: a folder is linked by its first page, and a blank line stands before a list or a
    table, which other readers of Markdown do without."""
    lines: list[str] = []
    before = ""
    for is_text, line in prose(text):
        if is_text and _BEGINS_BLOCK.match(line) and before.strip() and not _GOES_ON.match(before):
            lines.append("\n")
        lines.append(_LINK.sub(lambda found: _link(found, page), line) if is_text else line)
        before = line if is_text else "```"
    return "".join(lines)


def _link(found: re.Match[str], page: Path) -> str:
    linked = target(page, found[2])
    if linked is None or not linked.is_dir():
        return found[0]
    path, hash_, anchor = found[2].partition("#")
    return f"{found[1]}{path.rstrip('/')}/{INDEX}{hash_}{anchor}{found[3]}"


def main(to: Path) -> int:
    """Write the site's files below `to`, anew."""
    shutil.rmtree(to, ignore_errors=True)
    for name, text in site_files(ROOT).items():
        place = to / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            shutil.copyfile(ROOT / name, place)
        else:
            unsearched = "---\nsearch: {exclude: true}\n---\n" if name.startswith(NOT_SEARCHED) else ""
            place.write_text(unsearched + text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
