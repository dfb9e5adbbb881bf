"""Deleted ids: files below a prefix of their own, whose ids must not be answered any more.

Small files in a source's formats that have ids (Parquet, JSON lines), CSV, or text with an id a line. They may sit
below the source's own prefix, where they are no data. All listed ids are in memory while they are matched, never
afterwards.

A list that is not understood is refused: an id that somebody deleted and that is answered nevertheless is the worst
that can happen here. So what programs put around an id in text (a byte order mark, blanks, quotes) does not save it.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv

from ..contract import Location
from ..errors import BadData, BadSpec, SourceChanged
from ..storage.store import Role, Store, list_all, open_store
from . import jsonl, parquet
from .listing import fingerprint, is_data
from .names import listed as names_listed
from .names import shown
from .objects import FreshObject, ListedObject
from .places import refuse_broken_links, refuse_tables

MAX_IDS = 20_000_000
TEXT_BYTES = 16 << 20
"""Of one text file; larger lists are Parquet."""
_COLUMNAR = {".parquet": parquet, **dict.fromkeys(jsonl.FORMAT.suffixes, jsonl)}
_TABLES = (".csv", ".tsv")
SUFFIXES = (*_COLUMNAR, ".txt", *_TABLES)
FIELD = "spec.source.tombstones"


@dataclass(frozen=True, slots=True)
class Tombstones:
    """The ids that were listed at one moment."""

    fingerprint: str
    """Of the listing, as a source's; empty without files."""
    ids: pa.Array
    """int64 or string, like the index's; without repetitions."""


def list_tombstones(store: Store) -> tuple[FreshObject, ...]:
    """The files of tombstones in key order; none below a prefix that does not exist yet: deleting begins with one.

    Raises TaskError when the store refuses or cannot be reached (a folder that is not there is a misspelt one), and
    for a file that is no list of ids.
    """
    found = list_all(store)
    refuse_tables(store, (item.key for item in found), above=False)  # every searcher lists them every few minutes
    found = [item for item in found if is_data(item.key, store.prefix, ("",))]
    refuse_broken_links(store, found)
    for item in found:
        if not item.key.lower().endswith(SUFFIXES):
            message = f"{store.describe(item.key)} is no list of ids, by its name"
            remedy = f"Write ids as {', '.join(SUFFIXES)}; remove what is no list, or begin its name with _."
            raise BadData("UnknownFormat", message, object=item.key, field=FIELD, remedy=remedy)
    return tuple(FreshObject(key=item.key, size=item.size, etag=item.etag, stored_at=item.modified) for item in found)


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
    key = item.key.lower()
    if key.endswith((".txt", *_TABLES)):
        text = _text(store, item)
        if not key.endswith(".txt"):
            yield _meant(_cells(text, item, id_column), item, kind)
        elif text:
            yield _meant(pc.split_pattern(pa.scalar(text), "\n").values, item, kind)
        return
    reader = next(module for suffix, module in _COLUMNAR.items() if key.endswith(suffix))
    for part in reader.read_ids(store, item, id_column):
        if part.type != kind:
            message = f"{item.key} lists ids of type {part.type}, the index has {kind}"
            raise BadData("BadIdType", message, object=item.key, field=FIELD, remedy="List ids as the source has them.")
        yield part


def _text(store: Store, item: ListedObject) -> str:
    """The content with one kind of line end, without a byte order mark (Windows writes one, and UTF-16)."""
    if item.size > TEXT_BYTES:
        message = f"{item.key} is {item.size} bytes, text may be {TEXT_BYTES}"
        raise BadData("TooManyTombstones", message, object=item.key, field=FIELD, remedy="Use Parquet.")
    data = store.read(item.key, etag=item.etag)
    if len(data) != item.size:
        raise SourceChanged(item.key)
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise _no_ids(item, error, "Write it as UTF-8.") from error


def _cells(text: str, item: ListedObject, id_column: str) -> pa.Array:
    """The column of ids of a CSV file, whose first line names its columns."""
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    options = pv.ConvertOptions(column_types={id_column: pa.string()}, include_columns=[id_column])
    try:
        table = pv.read_csv(
            pa.BufferReader(text.encode()),
            read_options=pv.ReadOptions(use_threads=False, block_size=len(text.encode()) + 1),
            parse_options=pv.ParseOptions(delimiter=separator),
            convert_options=options,
        )
    except pa.ArrowKeyError as error:
        there = names_listed(name.strip('"') for name in head[:1000].split(separator))
        message = f"{item.key}: its first line has no column {shown(id_column)}; it says {there}"
        remedy = "Begin the file with a line of column names, that of the ids being the source's; or use .txt."
        raise BadSpec("UnknownColumn", message, object=item.key, field=FIELD, remedy=remedy) from error
    except pa.ArrowInvalid as error:
        raise _no_ids(item, error, "Write one row a line.") from error
    return table.column(id_column).combine_chunks()


def _meant(lines: pa.Array, item: ListedObject, kind: pa.DataType) -> pa.Array:
    """The ids that lines of text stand for: as they are, without blanks around them, and without quotes around that."""
    lines = lines.filter(pc.not_equal(pc.utf8_trim_whitespace(lines), ""))
    trimmed = pc.utf8_trim_whitespace(lines)
    bare = pc.replace_substring_regex(trimmed, r'^"(.*)"$', r"\1")
    bare = pc.replace_substring(bare, '""', '"')
    if pa.types.is_string(kind):
        return pa.concat_arrays([lines, trimmed, bare])
    try:
        return pc.utf8_trim_whitespace(bare).cast(kind)
    except pa.ArrowInvalid as error:
        raise _no_ids(item, error, f"Write {kind} ids.") from error


def _no_ids(item: ListedObject, error: Exception, remedy: str) -> BadData:
    message = f"{item.key}: not an id a line: {shown(str(error), 200, quoted=False)}"
    return BadData("BadIdType", message, object=item.key, field=FIELD, remedy=remedy)
