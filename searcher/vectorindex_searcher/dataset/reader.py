"""What a format offers: its header without rows, its rows as blocks, and chosen columns where it has columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from ..contract import Columns
from ..errors import BadSpec
from ..storage.store import Store
from .blocks import Block, Header
from .names import listed, partition_values
from .objects import ListedObject


@dataclass(frozen=True, slots=True)
class Format:
    """One format. Every function reads by ranges pinned to the listed etag and raises TaskError for bad content."""

    name: str
    """As messages say it."""
    suffixes: tuple[str, ...]
    header: Callable[[Store, ListedObject, Columns], Header | None]
    """Rows, dimension and types; None for an object without rows. Nothing is sized by a claim it has not checked."""
    blocks: Callable[[Store, ListedObject, Columns, Header], Iterator[Block]]
    """All rows in order, with the header that `header` gave."""
    columns: Callable[[Store, ListedObject, Sequence[str], str], Iterator[pa.RecordBatch]] | None = None
    """Batches of named columns (gate queries), with the spec field to blame; None for a format without columns."""
    ids: Callable[[Store, ListedObject, str], Iterator[pa.Array]] | None = None
    """The ids alone, of the column named, int64 or string; None: they are the row numbers of the whole source."""
    query_vectors: str | None = None
    """Where queries are in a file that holds both (HDF5's `test`)."""
    texts: bool = False
    """Whether rows may have a text, or nothing, in the place of a vector (Columns)."""
    counted: bool = False
    """The header does not say the rows: finding them reads the object once, so `resolve` stores them in the listing."""


def refuse_columns(item: ListedObject, name: str, columns: Columns) -> None:
    """Raises BadSpec when metadata columns are asked of a format that has none, and that no folder names."""
    folders = partition_values(item.key)
    if missing := [column for column in columns.metadata if column not in folders]:
        there = f"; its folders name {listed(folders)}" if folders else ""
        raise BadSpec(
            "UnknownColumn",
            f"{item.key} is {name}, which has no columns; {', '.join(missing)} cannot be read from it{there}",
            object=item.key,
            field="spec.source.columns.metadata",
            remedy="Use Parquet or JSON lines for metadata, or remove the columns.",
        )
