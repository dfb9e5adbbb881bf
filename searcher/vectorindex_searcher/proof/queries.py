"""Queries to measure recall with: held-out rows of the artifact, or a user's own with segments and right answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from ..artifact.manifest import Manifest
from ..contract import Columns, Metric, QueryColumns
from ..dataset.blocks import Block, check_vectors, vectors_of
from ..dataset.column_types import Refused, id_type, is_list
from ..dataset.column_values import ids_of
from ..dataset.formats import format_of
from ..dataset.listing import list_source
from ..dataset.objects import ListedObject
from ..errors import BadData, BadSpec
from ..index.arrow_files import read_table
from ..index.filters import FilterColumns, Predicate
from ..index.json_values import json_values
from ..storage.store import Store
from .query_filters import FilterReader, Filters
from .same import asking_the_same

MAX_QUERIES = 50_000


@dataclass(frozen=True, slots=True)
class Queries:
    """n queries, as given."""

    vectors: npt.NDArray[np.float32]
    """[n, d]"""
    own_rows: npt.NDArray[np.int64]
    """[n]: the row that the query is a copy of, or -1."""
    segments: list[str] | None = None
    relevant: list[frozenset[int | str]] | None = None
    """Labelled right ids of each query; empty for a query without a label."""
    filters: Filters | None = None
    """What each query may be answered with; None: all rows."""
    texts: list[str] | None = None
    """Each query in words, empty where it has none; None: nobody asked for them."""

    @property
    def filtered(self) -> npt.NDArray[np.bool_]:
        """[n]: whether the query has a filter."""
        if self.filters is None:
            return np.zeros(len(self.vectors), np.bool_)
        return np.array([one is not None for one in self.filters], np.bool_)

    def of(self, numbers: npt.NDArray[np.int64]) -> Queries:
        """Some of them, by their numbers."""
        return Queries(
            self.vectors[numbers],
            self.own_rows[numbers],
            None if self.segments is None else [self.segments[number] for number in numbers],
            None if self.relevant is None else [self.relevant[number] for number in numbers],
            None if self.filters is None else [self.filters[number] for number in numbers],
            None if self.texts is None else [self.texts[number] for number in numbers],
        )

    def with_own(self, rows: npt.NDArray[np.int64]) -> Queries:
        """The same, with the rows that they equal."""
        return replace(self, own_rows=rows)

    def distinct(self, metric: Metric) -> Queries:
        """What each segment asks with each filter once, the first; with the right ids that any copy of it names.

        A bound counts queries as independent, and what judges must not have tuned: copies would break both.
        """
        names = self.segments if self.segments is not None else [""] * len(self.vectors)
        same = asking_the_same(self.vectors, metric).tolist()
        filters: Filters = self.filters if self.filters is not None else [None] * len(self.vectors)
        first: dict[tuple[str, Predicate | None, int], int] = {}
        of = [first.setdefault(key, at) for at, key in enumerate(zip(names, filters, same, strict=True))]
        kept = list(first.values())
        if len(kept) == len(of):
            return self
        distinct = self.of(np.array(kept))
        if self.relevant is not None:
            named: dict[int, frozenset[int | str]] = {}
            for number, right in zip(of, self.relevant, strict=True):
                named[number] = named.get(number, frozenset()) | right
            return replace(distinct, relevant=[named[number] for number in kept])
        return distinct


def write_held_out(path: Path, rows: npt.NDArray[np.int64], vectors: npt.NDArray[np.float32]) -> None:
    """Write heldout.arrow: row numbers int64 [n] and their vectors float32 [n, d], as given."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    table = pa.table({"row": rows, "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read_held_out(path: Path) -> Queries:
    """The queries of heldout.arrow. Raises BadData/BadArtifact."""
    try:
        table = read_table(path).combine_chunks()
    except (pa.ArrowInvalid, OSError) as error:
        raise BadData("BadArtifact", f"{path.name}: {error}", object=path.name) from error
    rows = table.column("row").to_numpy()
    flat = table.column("vector").combine_chunks().flatten().to_numpy()
    return Queries(flat.reshape(len(rows), -1), rows)


def read_user_queries(
    store: Store, columns: QueryColumns, manifest: Manifest, known: FilterColumns | None = None
) -> Queries:
    """All queries of a location, in any format of a source (HDF5: dataset `test`), at most MAX_QUERIES.

    known: the columns that filters may name (default: none). Raises SourceMissing, BadSpec/UnknownColumn, BadData:
    wrong dimension, NaN, a zero vector under Cosine, a filter that a search would refuse.
    """
    filters = FilterReader(known if known is not None else FilterColumns(pa.schema([])))
    parts: list[_Part] = []
    count = 0
    for item in list_source(store).objects:
        for part in _read(store, item, columns, manifest, filters):
            parts.append(part)
            count += len(part.vectors)
            if count > MAX_QUERIES:
                message = f"more than {MAX_QUERIES} queries are at {store.describe(store.prefix)}"
                raise BadData("TooManyQueries", message, field="spec.gate.queries", remedy="Sample them uniformly.")
    if not parts:
        raise BadData("NoQueries", f"{store.describe(store.prefix)} holds no queries", field="spec.gate.queries")
    return Queries(
        vectors=np.concatenate([part.vectors for part in parts]),
        own_rows=np.full(count, -1, np.int64),
        segments=[name for part in parts for name in part.segments] if columns.segment else None,
        relevant=[ids for part in parts for ids in part.relevant] if columns.relevant else None,
        filters=[one for part in parts for one in part.filters] if columns.filter else None,
        texts=[text for part in parts for text in part.texts] if columns.text else None,
    )


class _Part(NamedTuple):
    """Some rows of one file; a list is empty where no column was asked for."""

    vectors: npt.NDArray[np.float32]
    segments: list[str]
    relevant: list[frozenset[int | str]]
    filters: Filters
    texts: list[str]


def _read(
    store: Store, item: ListedObject, columns: QueryColumns, manifest: Manifest, filters: FilterReader
) -> Iterator[_Part]:
    found = format_of(item.key)
    if found.columns is None:
        if columns.segment or columns.relevant or columns.filter or columns.text:
            message = f"{item.key} is {found.name}, which has no columns for segments, relevant ids, filters or texts"
            raise BadSpec("UnknownColumn", message, object=item.key, field="spec.gate.queries.columns")
        given = columns.vector != QueryColumns().vector
        source = Columns(vector=columns.vector if given or not found.query_vectors else found.query_vectors)
        header = found.header(store, item, source)
        for block in found.blocks(store, item, source, header) if header else ():
            _check(block, manifest)
            yield _Part(block.vectors, [], [], [], [])
        return
    named = (columns.vector, columns.segment, columns.relevant, columns.filter, columns.text)
    names = [name for name in named if name]
    done = 0
    for batch in found.columns(store, item, names, "spec.gate.queries.columns"):
        vectors = vectors_of(batch.column(columns.vector), item.key, done, manifest.dimension)
        _check(Block(item.key, done, vectors, None, pa.table({})), manifest)
        segments = [_segment(one) for one in json_values(batch.column(columns.segment))] if columns.segment else []
        relevant = batch.column(columns.relevant) if columns.relevant else None
        labels = [] if relevant is None else _labels(relevant, columns.relevant, manifest, item.key, done)
        kept = filters.read(batch.column(columns.filter), columns.filter, item.key, done) if columns.filter else []
        texts = _texts(batch.column(columns.text), columns.text, item.key, done) if columns.text else []
        yield _Part(vectors, segments, labels, kept, texts)
        done += batch.num_rows


def _check(block: Block, manifest: Manifest) -> None:
    dimension = block.vectors.shape[1]
    if dimension != manifest.dimension:
        message = f"{block.object} has {dimension} dimensions, the index has {manifest.dimension}"
        remedy = "Embed the queries with the model of the index."
        raise BadData("DimensionMismatch", message, object=block.object, field="spec.gate.queries", remedy=remedy)
    check_vectors(block, manifest.embedding.metric)


def _segment(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else orjson.dumps(value).decode()


def _texts(column: pa.Array, name: str, key: str, first_row: int) -> list[str]:
    """Each query in words, empty for a null. Raises BadData for what is no text."""
    texts: list[str] = []
    for value in json_values(column):
        if value is not None and not isinstance(value, str):
            row = first_row + len(texts)
            message = f"{key} row {row}: column {name!r} holds {type(value).__name__}, and no query in words"
            field, remedy = "spec.gate.queries.textColumn", "Name a column of strings."
            raise BadData("BadQueryText", message, object=key, row=row, field=field, remedy=remedy)
        texts.append(value or "")
    return texts


def _labels(column: pa.Array, name: str, manifest: Manifest, key: str, first_row: int) -> list[frozenset[int | str]]:
    """The labelled ids of each query, as the index has them: a label of another type would never be found.

    A column of ids or of lists of ids, of any type that a source may have. Raises BadData naming the row.
    """
    counts, values = _listed(column)
    ends = np.cumsum(counts)
    if not len(values):
        return [frozenset()] * len(counts)
    wanted = pa.string() if manifest.id_type == "string" else pa.int64()

    def refused(why: str, row: int | None) -> BadData:
        where = key if row is None else f"{key} row {row}"
        message = f"{where}: relevant ids in column {name!r} {why}; the ids of the index are of type {wanted}"
        field, remedy = "spec.gate.queries.columns.relevant", "Write them as the source has its ids, or lists of these."
        return BadData("BadIdType", message, object=key, row=row, field=field, remedy=remedy)

    try:
        kind = id_type(values.type, name)
        if kind != wanted:
            raise refused(f"are of type {kind}", None)
        ids = ids_of(values, kind, name, key, 0).to_pylist()
    except Refused:
        raise refused(f"are {values.type}", None) from None
    except BadData as error:
        if error.failure.row is None:
            raise
        row = first_row + int(np.searchsorted(ends, error.failure.row, side="right"))
        raise refused("hold a value that is no id", row) from error
    return [frozenset(ids[end - count : end]) for count, end in zip(counts.tolist(), ends.tolist(), strict=True)]


def _listed(column: pa.Array) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """How many values each row has, and all of them."""
    if not is_list(column.type):
        return column.is_valid().to_numpy(zero_copy_only=False).astype(np.int64), column.drop_null()
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    return lengths.astype(np.int64), column.flatten()
