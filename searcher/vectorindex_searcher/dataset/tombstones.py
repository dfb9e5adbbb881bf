"""Deleted ids: files below a prefix of their own, whose ids must not be answered any more.

Small files in a source's formats that have ids (Parquet, JSON lines), or text with an id a line. They may sit below the
source's own prefix, where they are no data. All listed ids are in memory while they are matched, never afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ..contract import Location
from ..errors import BadData, SourceChanged, SourceMissing
from ..storage.store import Role, Store, open_store
from . import jsonl, parquet
from .listing import fingerprint, is_data
from .objects import ListedObject

MAX_IDS = 20_000_000
TEXT_BYTES = 16 << 20
"""Of one text file; larger lists are Parquet."""
_COLUMNAR = {".parquet": parquet, **dict.fromkeys(jsonl.FORMAT.suffixes, jsonl)}
SUFFIXES = (*_COLUMNAR, ".txt")
FIELD = "spec.source.tombstones"


@dataclass(frozen=True, slots=True)
class Tombstones:
    """The ids that were listed at one moment."""

    fingerprint: str
    """Of the listing, as a source's; empty without files."""
    ids: pa.Array
    """int64 or string, like the index's; without repetitions."""


def nested_key(source: Location, tombstones: Location | None) -> str:
    """The key in the source's store below which tombstones are, or an empty string: those objects are no vectors."""
    if tombstones is None:
        return ""
    if source.s3 is not None and tombstones.s3 is not None:
        same = (source.s3.bucket, source.s3.endpoint) == (tombstones.s3.bucket, tombstones.s3.endpoint)
        return tombstones.s3.prefix.strip("/") if same else ""
    if source.folder is not None and tombstones.folder is not None:
        inner, outer = Path(tombstones.folder).resolve(), Path(source.folder).resolve()
        return inner.relative_to(outer).as_posix() if inner.is_relative_to(outer) and inner != outer else ""
    return ""


def list_tombstones(store: Store) -> tuple[ListedObject, ...]:
    """The files of tombstones in key order; none when the place does not exist yet: deleting begins with an upload.

    Raises TaskError when the store refuses or cannot be reached.
    """
    try:
        found = [item for item in store.list(store.prefix) if is_data(item.key, store.prefix, SUFFIXES)]
    except SourceMissing as error:
        if error.reason != "FolderNotFound":
            raise
        return ()
    return tuple(
        ListedObject(key=item.key, size=item.size, etag=item.etag) for item in sorted(found, key=lambda item: item.key)
    )


def read_tombstones(store: Store, listed: Iterable[ListedObject], id_column: str, kind: pa.DataType) -> Tombstones:
    """All ids of the listed files as `kind` (int64 or string).

    Raises BadData naming object and row (an id of another type, too many ids), BadSpec/UnknownColumn, SourceChanged.
    """
    listed, parts, count = tuple(listed), [], 0
    for item in listed:
        for part in _ids(store, item, id_column, kind):
            parts.append(part)
            count += len(part)
            if count > MAX_IDS:
                remedy = "Build the index again without the deleted rows, then remove their tombstones."
                message = f"more than {MAX_IDS} deleted ids are listed"
                raise BadData("TooManyTombstones", message, object=item.key, field=FIELD, remedy=remedy)
    ids = pc.unique(pa.chunked_array(parts, kind))
    return Tombstones(fingerprint(listed) if listed else "", ids)


def current_tombstones(place: Location | None, id_column: str, kind: pa.DataType) -> Tombstones:
    """List and read; no ids without a place."""
    if place is None:
        return Tombstones("", pa.array([], kind))
    store = open_store(place, Role.TOMBSTONES)
    return read_tombstones(store, list_tombstones(store), id_column, kind)


def _ids(store: Store, item: ListedObject, id_column: str, kind: pa.DataType) -> Iterator[pa.Array]:
    if item.key.endswith(".txt"):
        yield _text(store, item, kind)
        return
    reader = next(module for suffix, module in _COLUMNAR.items() if item.key.endswith(suffix))
    for part in reader.read_ids(store, item, id_column):
        if part.type != kind:
            message = f"{item.key} lists ids of type {part.type}, the index has {kind}"
            raise BadData("BadIdType", message, object=item.key, field=FIELD, remedy="List ids as the source has them.")
        yield part


def _text(store: Store, item: ListedObject, kind: pa.DataType) -> pa.Array:
    """An id a line; blank lines count for nothing."""
    if item.size > TEXT_BYTES:
        message = f"{item.key} is {item.size} bytes, text may be {TEXT_BYTES}"
        raise BadData("TooManyTombstones", message, object=item.key, field=FIELD, remedy="Use Parquet.")
    data = store.read(item.key, etag=item.etag)
    if len(data) != item.size:
        raise SourceChanged(item.key)
    try:
        lines = pc.split_pattern(pa.scalar(data.decode().replace("\r\n", "\n")), "\n").values
        lines = lines.filter(pc.not_equal(pc.utf8_trim_whitespace(lines), ""))
        return lines if pa.types.is_string(kind) else pc.utf8_trim_whitespace(lines).cast(kind)
    except (UnicodeDecodeError, pa.ArrowInvalid) as error:
        message = f"{item.key}: not an id a line: {' '.join(str(error).split())[:200]}"
        raise BadData("BadIdType", message, object=item.key, field=FIELD, remedy=f"Write {kind} ids.") from error
