"""A whole source: headers of all its objects checked against each other, and its rows as one stream of blocks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..contract import Columns, Embedding
from ..errors import BadData, BadSpec, SourceMissing
from ..storage.prefetch import prefetch
from ..storage.store import Store
from .blocks import BLOCK_BYTES, Block, Header, check_claims, check_vectors
from .column_types import common_type
from .column_values import Keeper
from .formats import format_of
from .listing import Listing
from .names import shown
from .objects import FreshObject, ListedObject

HEADER_THREADS = 8
AHEAD_BYTES = 2 * BLOCK_BYTES
"""No other block is made while a larger one is worked on: its metadata, not its vectors, take more."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """A listed source whose headers agree. `objects`: those that have rows, in key order."""

    store: Store
    columns: Columns
    embedding: Embedding
    objects: tuple[tuple[ListedObject, Header], ...]
    rows: int
    dimension: int
    half: bool
    """float16 holds every vector exactly."""
    id_type: pa.DataType
    metadata: pa.Schema
    """Of all objects, whose own types differ from it only where nothing is lost."""
    encode: Callable[[Block], Block] | None = None
    """Makes vectors of texts; None: rows have vectors, or nobody reads them."""
    gone: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Row numbers of the whole source, rising, that are left out (deleted ids, rows that fresh ones replace); `rows`
    does not count them."""
    fresh_store: Store | None = None
    """That files of fresh rows are read from; None: `store`."""

    def locate(self, row: int) -> tuple[str, int]:
        """Object and row within it of one of the `rows`."""
        row += int(np.searchsorted(self.gone - np.arange(len(self.gone)), row, side="right"))
        for item, header in self.objects:
            if row < header.rows:
                return item.key, row
            row -= header.rows
        raise IndexError(row)

    def blocks(self) -> Iterator[Block]:
        """All rows in order, checked; the next block is fetched and decoded while the caller works on this one.

        Raises BadData naming object and row, SourceChanged, StoreUnavailable.
        """
        return prefetch(self._blocks(), lambda block: block.nbytes, AHEAD_BYTES)

    def _blocks(self) -> Iterator[Block]:
        row, keeper = 0, Keeper(self.metadata)
        for item, header in self.objects:
            for block in format_of(item.key).blocks(self.store_of(item), item, self.columns, header):
                if block.texts is None and not self.columns.bare:
                    check_vectors(block, self.embedding.metric)
                count = len(block.vectors)
                if len(self.metadata):
                    block = replace(block, metadata=keeper.keep(block.metadata, item.key, block.first_row))
                if len(self.gone):
                    block = _without(block, row, self.gone)
                if len(block.vectors):
                    yield block if block.texts is None else self._encoded(block)
                row += count
        for column, values in keeper.lost.items():
            if values:
                _log.warning("NaN, infinity or no time is kept as null", extra={"column": column, "values": values})

    def _encoded(self, block: Block) -> Block:
        """The rows that stay, so that no deleted text is encoded."""
        assert self.encode is not None, "texts are read by whoever has an encoder"
        encoded = self.encode(block)
        check_vectors(encoded, self.embedding.metric)
        return encoded

    def ids(self) -> Iterator[pa.Array]:
        """The ids of every row of the objects, `gone` or not, in order. Reads no vectors."""
        row = 0
        for item, header in self.objects:
            read = format_of(item.key).ids
            if read is None or header.id_type is None:
                yield pa.array(np.arange(row, row + header.rows))
            else:
                yield from read(self.store_of(item), item, self.columns.id)
            row += header.rows

    def store_of(self, item: ListedObject) -> Store:
        """Where an object is read."""
        if self.fresh_store is not None and isinstance(item, FreshObject):
            return self.fresh_store
        return self.store

    def with_fresh(self, files: Sequence[FreshObject]) -> Source:
        """The source with the rows of these files, the oldest first, behind its own. Of rows with one id the last one
        of the latest file stays. Reads all ids when there are any. Raises as `open_source`."""
        whole = self.and_files(files)
        fresh = replace(whole, objects=whole.objects[len(self.objects) :])
        if not fresh.objects:
            return self
        ids = pa.concat_arrays(list(fresh.ids()))
        gone = np.concatenate([deleted_rows(self.ids(), ids), self.rows + _replaced(ids)])
        return replace(whole, gone=gone, rows=whole.rows - len(gone))

    def and_files(self, files: Sequence[FreshObject]) -> Source:
        """The source with all rows of these files behind its own. Reads headers. Raises as `open_source`."""
        found = ((item, self._fresh_header(item)) for item in files)
        objects = (*self.objects, *((item, header) for item, header in found if header is not None))
        return replace(
            self,
            objects=objects,
            rows=sum(header.rows for _, header in objects),
            half=all(header.half for _, header in objects),
            metadata=pa.schema([(name, _agreed(name, objects)) for name in self.columns.metadata]),
        )

    def _fresh_header(self, item: FreshObject) -> Header | None:
        """Raises BadData where it does not agree with the source."""
        header = format_of(item.key).header(self.store_of(item), item, self.columns)
        if header is not None:
            check_claims(item, header.rows, header.dimension)
            first_item, first = self.objects[0]
            _check_agreement(first_item.key, first, item.key, header)
        return header

    def without(self, deleted: pa.Array) -> Source:
        """The source without the rows of these ids (of `id_type`). Reads all ids when there are any.

        Rows of formats without ids keep their numbers. Raises SourceMissing/EmptySource when nothing is left.
        """
        if not len(deleted):
            return self
        gone = np.union1d(self.gone, deleted_rows(self.ids(), deleted))
        rows = self.rows + len(self.gone)
        if len(gone) == rows:
            message = f"all {rows} rows of {self.store.describe(self.store.prefix)} are deleted by tombstones"
            raise SourceMissing("EmptySource", message, field="spec.source.tombstones", remedy="Upload vectors.")
        return replace(self, gone=gone, rows=rows - len(gone))


def deleted_rows(ids: Iterable[pa.Array], deleted: pa.Array) -> npt.NDArray[np.int64]:
    """Row numbers, rising, of those of consecutive `ids` that are in `deleted`: int64 [n]."""
    found, first = [np.empty(0, np.int64)], 0
    for part in ids:
        mask = pc.is_in(part, value_set=deleted).to_numpy(zero_copy_only=False)
        found.append(np.flatnonzero(mask) + first)
        first += len(part)
    return np.concatenate(found)


def _replaced(ids: pa.Array) -> npt.NDArray[np.int64]:
    """Places, rising, of ids that come again later: int64 [n]."""
    codes = ids.dictionary_encode().indices.to_numpy()
    last = np.zeros(int(codes.max()) + 1, np.int64)
    np.maximum.at(last, codes, np.arange(len(codes)))
    return np.setdiff1d(np.arange(len(codes)), last)


def _without(block: Block, first: int, gone: npt.NDArray[np.int64]) -> Block:
    """The block, whose first row is `first` in the whole source, without its rows that are `gone`."""
    count = len(block.vectors)
    low, high = np.searchsorted(gone, (first, first + count))
    keep = np.ones(count, np.bool_)
    keep[gone[low:high] - first] = False
    ids = pa.array(np.arange(first, first + count)) if block.ids is None else block.ids
    mask = pa.array(keep)
    metadata = block.metadata.filter(mask) if block.metadata.num_columns else block.metadata
    texts = None if block.texts is None else block.texts.filter(mask)
    return replace(block, vectors=block.vectors[keep], ids=ids.filter(mask), metadata=metadata, texts=texts)


def open_source(store: Store, listing: Listing, columns: Columns, embedding: Embedding) -> Source:
    """Read every header and check that they agree with each other and with the declared dimension.

    Raises BadSpec/UnknownColumn, BadData/{MixedDimensions, DimensionMismatch, MixedTypes, CorruptFile ...},
    SourceMissing/EmptySource when no object has a row, SourceChanged.
    """

    def header(item: ListedObject) -> Header | None:
        made = format_of(item.key)
        if (columns.text is not None or columns.bare) and not made.texts:
            remedy = "Write Parquet or JSON lines."
            what, field = ("no texts", "text") if columns.text is not None else ("vectors and nothing else", "vector")
            message = f"{item.key} is {made.name}, which has {what}"
            raise BadSpec(
                "UnknownColumn", message, object=item.key, field=f"spec.source.columns.{field}", remedy=remedy
            )
        found = made.header(store, item, columns)
        if found is not None and columns.bare and found.id_type is None:
            message = f"{item.key} has no column of ids, by which its rows are told from each other"
            raise BadSpec(
                "UnknownColumn", message, object=item.key, field="spec.source.columns.id", remedy="Write one."
            )
        if found is not None and (columns.text is not None or columns.bare):
            found = replace(found, dimension=_told(embedding))
        if found is not None:
            check_claims(item, found.rows, found.dimension)
        return found

    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        headers = list(pool.map(header, listing.objects))
    objects = tuple((item, found) for item, found in zip(listing.objects, headers, strict=True) if found is not None)
    if not objects:
        message = f"the {len(headers)} objects at {store.describe(store.prefix)} hold no rows"
        raise SourceMissing("EmptySource", message, field="spec.source", remedy="Upload vectors.")
    first_item, first = objects[0]
    if embedding.dimension is not None and first.dimension != embedding.dimension:
        raise BadData(
            "DimensionMismatch",
            f"{first_item.key} has {first.dimension} dimensions, spec.embedding.dimension says {embedding.dimension}",
            object=first_item.key,
            field="spec.embedding.dimension",
            remedy="Another embedding is another VectorIndex; correct the data or the field.",
        )
    for item, other in objects[1:]:
        _check_agreement(first_item.key, first, item.key, other)
    return Source(
        store=store,
        columns=columns,
        embedding=embedding,
        objects=objects,
        rows=sum(found.rows for _, found in objects),
        dimension=first.dimension,
        half=all(found.half for _, found in objects),
        id_type=first.id_type or pa.int64(),
        metadata=pa.schema([(name, _agreed(name, objects)) for name in columns.metadata]),
    )


def _told(embedding: Embedding) -> int:
    """The dimension of vectors that are still to be made."""
    if embedding.dimension is None:
        remedy = "Write how many numbers a vector of the model has."
        message = "a source without vectors needs embedding.dimension"
        raise BadSpec("NoDimension", message, field="spec.embedding.dimension", remedy=remedy)
    return embedding.dimension


def _check_agreement(first_key: str, first: Header, key: str, other: Header) -> None:
    if other.dimension != first.dimension:
        raise BadData(
            "MixedDimensions",
            f"{key} has {other.dimension} dimensions, {first_key} has {first.dimension}",
            object=key,
            remedy="All vectors of an index come from one model and have one length.",
        )
    if other.id_type != first.id_type:
        mine, theirs = (f"ids of type {kind}" if kind else "no ids" for kind in (other.id_type, first.id_type))
        message = f"{key} has {mine}, {first_key} has {theirs}"
        raise BadData("MixedTypes", message, object=key, remedy="Use one type of id.")


def _agreed(name: str, objects: Sequence[tuple[ListedObject, Header]]) -> pa.DataType:
    """The type of a metadata column that takes the values of all objects. Raises BadData/MixedTypes."""
    key, agreed = "", pa.null()
    for item, header in objects:
        kind = header.metadata.field(name).type
        found = common_type(agreed, kind)
        if found is None:
            message = f"{item.key} has column {shown(name)} of type {kind}, {key} of type {agreed}"
            remedy = "Write the column with one type in all objects."
            raise BadData("MixedTypes", message, object=item.key, remedy=remedy)
        if found != agreed:
            key, agreed = item.key, found
    return agreed
