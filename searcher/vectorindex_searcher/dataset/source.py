"""A whole source: headers of all its objects checked against each other, and its rows as one stream of blocks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from ..contract import Columns, Embedding
from ..errors import BadData, SourceMissing
from ..prefetch import prefetch
from ..store import Store
from .blocks import Block, Header, check_claims, check_vectors
from .formats import format_of
from .listing import Listing
from .objects import ListedObject

HEADER_THREADS = 8


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

    def locate(self, row: int) -> tuple[str, int]:
        """Object and row within it of a row number of the whole source."""
        for item, header in self.objects:
            if row < header.rows:
                return item.key, row
            row -= header.rows
        raise IndexError(row)

    def blocks(self) -> Iterator[Block]:
        """All rows in order, checked; the next block is fetched and decoded while the caller works on this one.

        Raises BadData naming object and row, SourceChanged, StoreUnavailable.
        """
        return prefetch(self._blocks())

    def _blocks(self) -> Iterator[Block]:
        for item, header in self.objects:
            for block in format_of(item.key).blocks(self.store, item, self.columns, header):
                check_vectors(block, self.embedding.metric)
                yield block


def open_source(store: Store, listing: Listing, columns: Columns, embedding: Embedding) -> Source:
    """Read every header and check that they agree with each other and with the declared dimension.

    Raises BadSpec/UnknownColumn, BadData/{MixedDimensions, DimensionMismatch, MixedTypes, CorruptFile ...},
    SourceMissing/EmptySource when no object has a row, SourceChanged.
    """

    def header(item: ListedObject) -> Header | None:
        found = format_of(item.key).header(store, item, columns)
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
        metadata=first.metadata,
    )


def _check_agreement(first_key: str, first: Header, key: str, other: Header) -> None:
    if other.dimension != first.dimension:
        raise BadData(
            "MixedDimensions",
            f"{key} has {other.dimension} dimensions, {first_key} has {first.dimension}",
            object=key,
            remedy="All vectors of an index come from one model and have one length.",
        )
    if other.id_type != first.id_type:
        message = f"{key} has ids of type {other.id_type}, {first_key} of type {first.id_type}"
        raise BadData("MixedTypes", message, object=key, remedy="Use one type of id.")
    if not other.metadata.equals(first.metadata):
        pairs = zip(other.metadata, first.metadata, strict=True)
        name, mine, theirs = next((a.name, a.type, b.type) for a, b in pairs if a.type != b.type)
        message = f"{key} has column {name!r} of type {mine}, {first_key} of type {theirs}"
        raise BadData("MixedTypes", message, object=key, remedy="Write the column with one type in all objects.")
