"""Files of fresh rows: small ones in formats with ids, below a prefix of their own, each read whole."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..contract import FRESH_FILE_BYTES, Columns, Embedding
from ..errors import BadData, TaskError
from ..storage.store import Store, list_all
from .blocks import Block
from .formats import FORMATS
from .listing import Listing, is_data
from .objects import FreshObject
from .places import refuse_broken_links, tables_within
from .source import open_source

FIELD = "spec.source.fresh"
MAX_FILES = 10_000
"""Below the prefix, those that are built in by now included: every snapshot names them all."""
TOO_MANY = "TooManyFreshRows"
SUFFIXES = tuple(suffix for found in FORMATS if found.ids is not None for suffix in found.suffixes)


class TooManyFresh(BadData):
    """More than may be searched beside an artifact: a build is due."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(TOO_MANY, message, object=key, field=FIELD, remedy="Build the index again.")


class TooManyFiles(BadData):
    """More than are listed."""

    def __init__(self, key: str, message: str) -> None:
        remedy = "Remove those that are built into the index, or write several rows into one."
        super().__init__("TooManyFreshFiles", message, object=key, field=FIELD, remedy=remedy)


@dataclass(frozen=True, slots=True)
class FreshTable:
    """The rows of one file."""

    ids: pa.Array
    """int64 or string [n]."""
    vectors: npt.NDArray[np.float32]
    """[n, d], as given, each one that an index takes."""
    metadata: pa.Table
    """n rows."""


def list_fresh(store: Store) -> tuple[FreshObject, ...]:
    """The files in key order; none below a prefix that does not exist yet. Names that begin with `_` or `.` are not
    listed: a writer that cannot write at once writes to such a one, and renames. But of each table below the prefix one
    that makes it a table is: whoever has the list knows by it whose files are not read (places.of_table).

    Raises TaskError when the store refuses or cannot be reached, and where the prefix itself is a table; TooManyFiles.
    """
    found = list_all(store)
    markers = {*tables_within(store, (item.key for item in found)).values()}
    found = [item for item in found if item.key in markers or is_data(item.key, store.prefix, ("",))]
    if len(found) > MAX_FILES:
        message = f"{store.describe(store.prefix)} holds {len(found)} files, at most {MAX_FILES} are listed"
        raise TooManyFiles(found[0].key, message)
    return tuple(FreshObject(key=one.key, size=one.size, etag=one.etag, stored_at=one.modified) for one in found)


def check_name(key: str) -> None:
    """Raises BadData for a file that is no rows with ids by its name."""
    if not key.lower().endswith(SUFFIXES):
        message = f"{key} holds no rows with ids, by its name"
        remedy = f"Write fresh rows as {', '.join(SUFFIXES)}; remove what is none, or begin its name with _."
        raise BadData("UnknownFormat", message, object=key, field=FIELD, remedy=remedy)


def read_fresh(
    store: Store,
    item: FreshObject,
    columns: Columns,
    embedding: Embedding,
    most: tuple[int, int],
    schema: pa.Schema | None = None,
) -> FreshTable | None:
    """The rows of one file as it was listed; None when it has none. `embedding`: with the dimension that they must
    have. `most`: rows, and bytes of ids and metadata in memory. `schema`: types of the metadata; None: the file's own.

    Raises BadData or BadSpec naming the file (TooManyFresh for one of too many rows), SourceChanged, StoreUnavailable.
    """
    check_name(item.key)
    refuse_broken_links(store, [item])
    if item.size > FRESH_FILE_BYTES:
        raise TooManyFresh(item.key, f"{item.key} is {item.size} bytes, a file may be {FRESH_FILE_BYTES}")
    try:
        source = open_source(store, Listing(fingerprint="", objects=(item,)), columns, embedding)
    except TaskError as error:
        if error.reason == "EmptySource":
            return None
        raise
    if source.rows > most[0]:
        raise TooManyFresh(item.key, f"{item.key} has {source.rows} rows, at most {most[0]} may be fresh")
    if schema is not None:
        source = replace(source, metadata=schema)
    blocks: list[Block] = []
    held = 0
    for block in source.blocks():
        blocks.append(block)
        held += block.metadata.nbytes + (0 if block.ids is None else block.ids.nbytes)
        if held > most[1]:
            message = f"ids and metadata of {item.key} take more than {most[1]} bytes in memory"
            remedy = "Write its rows as several files, or with shorter metadata."
            raise BadData("FileTooLarge", message, object=item.key, field=FIELD, remedy=remedy)
    metadata = pa.concat_tables([block.metadata for block in blocks])
    return FreshTable(_whole([block.ids for block in blocks]), np.concatenate([b.vectors for b in blocks]), metadata)


def _whole(parts: list[pa.Array | None]) -> pa.Array:
    return pa.concat_arrays([part for part in parts if part is not None])
