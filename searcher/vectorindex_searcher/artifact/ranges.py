"""SHA-256 of the ranges of an artifact's large files, as a file of the artifact that its manifest names like any other.

A file's one SHA-256 is the work of one processor; its ranges are hashed by several, as they are fetched or where they
lie. Who knows nothing of this file verifies whole files, as ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ..contract import Model
from ..storage.download import RANGE_BYTES, hash_range
from .document import DOCUMENT_LIMIT_BYTES, parse_document
from .layout import RANGES_FILE

_THREADS = 4
_ENTRY_BYTES = 80
"""Of the document, for a range: 64 digits, quotes, a comma, white space."""

Ranges = Mapping[str, tuple[str, ...]]
"""Name of a file -> SHA-256 of each RANGE_BYTES of it, the last may be shorter."""


class _Document(Model):
    range_bytes: Annotated[int, Field(ge=1)]
    files: dict[str, tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...]]


def write_ranges(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Hash the ranges of the large ones of these files of `folder`, the first as long as the document holds them.

    Returns the name of the file that was written; nothing when there is none to write.
    """
    room = DOCUMENT_LIMIT_BYTES // _ENTRY_BYTES - len(names)
    large: list[tuple[str, int]] = []
    for name in names:
        size = (folder / name).stat().st_size
        if size > RANGE_BYTES and (room := room - -(-size // RANGE_BYTES)) >= 0:
            large.append((name, size))
    if not large:
        return ()
    with ThreadPoolExecutor(_THREADS) as pool:
        hashed = {
            name: tuple(pool.map(lambda at, path=folder / name: hash_range(path, at), range(0, size, RANGE_BYTES)))
            for name, size in large
        }
    document = _Document(range_bytes=RANGE_BYTES, files=hashed)
    (folder / RANGES_FILE).write_bytes(document.model_dump_json(by_alias=True).encode())
    return (RANGES_FILE,)


def read_ranges(path: Path) -> Ranges:
    """What a verified RANGES_FILE says; nothing when its ranges are not those that are fetched here. Raises BadData."""
    document = parse_document(_Document, path.read_bytes(), path.name, "BadArtifact")
    return document.files if document.range_bytes == RANGE_BYTES else {}
