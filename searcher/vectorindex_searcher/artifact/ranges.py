"""SHA-256 of the ranges of an artifact's large files, as a file of the artifact that its manifest names like any other.

A file's one SHA-256 is the work of one processor; its ranges are hashed by several, as they are fetched or where they
lie. Who knows nothing of this file verifies whole files, as ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ..contract import Model
from ..storage.download import RANGE_BYTES
from .document import DOCUMENT_LIMIT_BYTES, parse_document
from .layout import RANGES_FILE
from .manifest import ManifestFile, describe_bytes

_ENTRY_BYTES = 80
"""Of the document, for a range: 64 digits, quotes, a comma, white space."""

Ranges = Mapping[str, tuple[str, ...]]
"""Name of a file -> SHA-256 of each RANGE_BYTES of it, the last may be shorter."""


class _Document(Model):
    range_bytes: Annotated[int, Field(ge=1)]
    files: dict[str, tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...]]


@dataclass(frozen=True, slots=True)
class Hashed:
    """A local file of an artifact. `ranges`: as in Ranges."""

    file: ManifestFile
    ranges: tuple[str, ...]


def hash_file(path: Path) -> Hashed:
    """Name, size and SHA-256 of a local file and of its ranges. It is read once: another thread hashes a range while
    this one goes on with the whole. Memory: a range.
    """
    whole, ranges, size = hashlib.sha256(), [], 0
    buffer = memoryview(bytearray(RANGE_BYTES))
    with path.open("rb") as file, ThreadPoolExecutor(1) as pool:
        while count := file.readinto(buffer):
            piece = buffer[:count]
            own = pool.submit(_sha256, piece)
            whole.update(piece)
            ranges.append(own.result())
            size += count
    return Hashed(ManifestFile(name=path.name, size=size, sha256=whole.hexdigest()), tuple(ranges))


def _sha256(data: memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def write_ranges(folder: Path, files: Sequence[Hashed]) -> tuple[ManifestFile, ...]:
    """Write the ranges of the large ones of these files, the first as long as the document holds them.

    Returns the file that was written; nothing when there is none to write.
    """
    room = DOCUMENT_LIMIT_BYTES // _ENTRY_BYTES - len(files)
    large: dict[str, tuple[str, ...]] = {}
    for one in files:
        if one.file.size > RANGE_BYTES and (room := room - len(one.ranges)) >= 0:
            large[one.file.name] = one.ranges
    if not large:
        return ()
    data = _Document(range_bytes=RANGE_BYTES, files=large).model_dump_json(by_alias=True).encode()
    (folder / RANGES_FILE).write_bytes(data)
    return (describe_bytes(RANGES_FILE, data),)


def read_ranges(path: Path) -> Ranges:
    """What a verified RANGES_FILE says; nothing when its ranges are not those that are fetched here. Raises BadData."""
    document = parse_document(_Document, path.read_bytes(), path.name, "BadArtifact")
    return document.files if document.range_bytes == RANGE_BYTES else {}
