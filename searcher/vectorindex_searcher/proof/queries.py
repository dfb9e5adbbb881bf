"""Queries to measure recall with: held-out rows of the artifact, or a user's own with segments and right answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

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
from ..index.json_values import json_values
from ..storage.store import Store
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

    def with_own(self, rows: npt.NDArray[np.int64]) -> Queries:
        """The same, with the rows that they equal."""
        return replace(self, own_rows=rows)

    def distinct(self, metric: Metric) -> Queries:
        """What each segment asks once, the first; with the right ids that any copy of it names.

        A bound counts queries as independent, and what judges must not have tuned: copies would break both.
        """
        names = self.segments if self.segments is not None else [""] * len(self.vectors)
        same = asking_the_same(self.vectors, metric).tolist()
        first: dict[tuple[str, int], int] = {}
        of = [first.setdefault(key, at) for at, key in enumerate(zip(names, same, strict=True))]
        kept = list(first.values())
        if len(kept) == len(of):
            return self
        relevant = None
        if self.relevant is not None:
            named: dict[int, frozenset[int | str]] = {}
            for number, right in zip(of, self.relevant, strict=True):
                named[number] = named.get(number, frozenset()) | right
            relevant = [named[number] for number in kept]
        segments = [self.segments[number] for number in kept] if self.segments is not None else None
        return Queries(self.vectors[kept], self.own_rows[kept], segments, relevant)


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


def read_user_queries(store: Store, columns: QueryColumns, manifest: Manifest) -> Queries:
    """All queries of a location, in any format of a source (HDF5: dataset `test`), at most MAX_QUERIES.

    Raises SourceMissing, BadSpec/UnknownColumn, BadData: wrong dimension, NaN, a zero vector under Cosine.
    """
    parts: list[_Part] = []
    count = 0
    for item in list_source(store).objects:
        for part in _read(store, item, columns, manifest):
            parts.append(part)
            count += len(part[0])
            if count > MAX_QUERIES:
                message = f"more than {MAX_QUERIES} queries are at {store.describe(store.prefix)}"
                raise BadData("TooManyQueries", message, field="spec.gate.queries", remedy="Sample them uniformly.")
    if not parts:
        raise BadData("NoQueries", f"{store.describe(store.prefix)} holds no queries", field="spec.gate.queries")
    return Queries(
        vectors=np.concatenate([vectors for vectors, _, _ in parts]),
        own_rows=np.full(count, -1, np.int64),
        segments=[name for _, names, _ in parts for name in names] if columns.segment else None,
        relevant=[ids for _, _, labels in parts for ids in labels] if columns.relevant else None,
    )


_Part = tuple[npt.NDArray[np.float32], list[str], list[frozenset[int | str]]]


def _read(store: Store, item: ListedObject, columns: QueryColumns, manifest: Manifest) -> Iterator[_Part]:
    found = format_of(item.key)
    if found.columns is None:
        if columns.segment or columns.relevant:
            message = f"{item.key} is {found.name}, which has no columns for segments or relevant ids"
            raise BadSpec("UnknownColumn", message, object=item.key, field="spec.gate.queries.columns")
        given = columns.vector != QueryColumns().vector
        source = Columns(vector=columns.vector if given or not found.query_vectors else found.query_vectors)
        header = found.header(store, item, source)
        for block in found.blocks(store, item, source, header) if header else ():
            _check(block, manifest)
            yield block.vectors, [], []
        return
    names = [name for name in (columns.vector, columns.segment, columns.relevant) if name]
    done = 0
    for batch in found.columns(store, item, names, "spec.gate.queries.columns"):
        vectors = vectors_of(batch.column(columns.vector), item.key, done, manifest.dimension)
        _check(Block(item.key, done, vectors, None, pa.table({})), manifest)
        segments = [_segment(one) for one in json_values(batch.column(columns.segment))] if columns.segment else []
        relevant = batch.column(columns.relevant) if columns.relevant else None
        labels = [] if relevant is None else _labels(relevant, columns.relevant, manifest, item.key, done)
        yield vectors, segments, labels
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
