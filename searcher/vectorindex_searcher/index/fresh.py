"""Rows that came after an artifact was built: a numbered snapshot of them, searched exactly beside its engine.

A row of the snapshot takes the place of the engine's row with the same id, and stands behind all of the engine's rows:
its row number is the engine's count and its own. Immutable, so that one search sees one snapshot from its beginning to
its answer. Knows no stores and no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..contract import MAX_FRESH_ROWS, Metric
from ..errors import BadData, BadSpec
from .binding import faiss
from .engine import Engine
from .faults import fault
from .filters import Predicate
from .json_values import json_values
from .metric import faiss_metric, normalise, to_scores
from .predicates import MatchCache
from .rows import RawIds
from .selection.rowset import RowSet
from .selection.subset import QUERY_BLOCK

FIELD = "spec.source.fresh"
LENGTHS_ROWS = 1000
"""Of the index's rows, whose lengths are looked at."""
LENGTHS_FACTOR = 2.0
"""The middle length of a file's vectors may be so many times beyond what those of the index are."""
_SETS_BYTES = 1 << 20
_NAME_BYTES = 6
"""Around a name in JSON."""

Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FreshFile:
    """New and changed rows as one object of the store holds them."""

    key: str
    stored_at: float
    """By the store's own clock, in seconds: of two rows with one id the later one counts."""
    ids: pa.Array
    """int64 or string [n], like the index's. Of equal ones in a file the last counts."""
    vectors: npt.NDArray[np.float32]
    """[n, d], as given."""
    metadata: pa.Table
    """n rows of the index's metadata columns."""


@dataclass(frozen=True, slots=True)
class DeletedIds:
    """Ids that one object of the store names as deleted."""

    stored_at: float
    ids: pa.Array


@dataclass(frozen=True, slots=True)
class _Batches:
    """What a filter is evaluated on."""

    schema: pa.Schema
    count: int
    batches: list[Any]


@dataclass(frozen=True, slots=True)
class Gathered:
    """The rows of one snapshot that count, as they go from one process to another. `number`: the higher, the newer."""

    number: int
    ids: pa.Array
    """[n], each once."""
    vectors: npt.NDArray[np.float32]
    """[n, d], as given."""
    metadata: pa.RecordBatch
    """n rows of the index's schema."""
    named: pa.Array
    """All ids that the files name, deleted ones too: whose rows of the index are not answered."""

    def pieces(self) -> Iterator[bytes | memoryview]:
        """For `gathered_from`, piece by piece: they may be many megabytes."""
        columns = pa.RecordBatch.from_arrays([self.ids], ["id"]), self.metadata
        named = pa.RecordBatch.from_arrays([self.named], ["id"])
        parts = [_ipc(batch) for batch in (*columns, named)]
        head = np.array([self.number, *self.vectors.shape, *map(len, parts)], "<i8")
        yield head.tobytes()
        yield from parts
        yield np.ascontiguousarray(self.vectors, "<f4").ravel().view(np.uint8).data


_HEAD = 6


def gathered_from(data: bytes) -> Gathered:
    """The inverse of `Gathered.pieces`."""
    number, count, dimension, *sizes = np.frombuffer(data, "<i8", _HEAD).tolist()
    at, found = 8 * _HEAD, []
    for size in sizes:
        with pa.ipc.open_stream(data[at : at + size]) as stream:  # a copy: it must not keep the vectors
            found.append(stream.read_next_batch())
        at += size
    ids, metadata, named = found
    vectors = np.frombuffer(data, "<f4", count * dimension, at).reshape(count, dimension)
    return Gathered(number, ids.column(0), vectors, metadata, named.column(0))


def _ipc(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return bytes(sink.getvalue())


def gather(engine: Engine, number: int, files: Iterable[FreshFile], deleted: Sequence[DeletedIds] = ()) -> Gathered:
    """Raises BadData naming the object (another dimension, another type of ids, columns that are not the index's, a
    vector that no index takes, more than MAX_FRESH_ROWS rows), BadSpec/CannotHide."""
    ordered = _checked(engine, sorted(files, key=lambda one: (one.stored_at, one.key)))
    ids = pa.concat_arrays([one.ids for one in ordered]) if ordered else pa.array([], _id_type(engine))
    times = np.repeat([one.stored_at for one in ordered], [len(one.ids) for one in ordered])
    if not engine.supports_filter:
        _kept(engine, ids)
    newest = _newest(ids, times, deleted)
    vectors = np.empty((0, engine.dimension), np.float32)
    if len(newest):
        vectors = np.concatenate([one.vectors for one in ordered])[newest]
    return Gathered(
        number,
        ids.take(pa.array(newest)),
        vectors,
        _batch(engine.metadata_schema, ordered, newest),
        ids.unique(),
    )


def fresh_rows(
    engine: Engine, number: int, files: Iterable[FreshFile], deleted: Sequence[DeletedIds] = ()
) -> FreshRows:
    """Raises as `gather` and FreshRows."""
    return FreshRows(engine, gather(engine, number, files, deleted))


class FreshRows:
    """One snapshot beside one engine. Thread-safe. `count`: its rows; `number`: the higher, the newer."""

    def __init__(self, engine: Engine, rows: Gathered) -> None:
        """Raises BadSpec/CannotHide."""
        self._engine = engine
        self.number = rows.number
        self._ids = rows.ids
        self.count = len(rows.ids)
        self.kept = _kept(engine, rows.named)
        """The engine's rows that no file names; None: all. Those whose fresh row was deleted are not among them: the
        list of deleted ids may come to this pod later than the snapshot."""
        self._index = faiss.IndexFlat(engine.dimension, faiss_metric(engine.metric))
        if self.count:
            self._index.add(np.ascontiguousarray(_prepared(rows.vectors, engine.metric)))
        self._metadata = rows.metadata
        self._matching = MatchCache(
            _Batches(engine.metadata_schema, self.count, [self._metadata] if self.count else []), _SETS_BYTES
        )

    def only(self, allowed: RowSet | None) -> RowSet | None:
        """Those of the engine's rows that may be answered beside the snapshot; None: all."""
        if self.kept is None or allowed is None:
            return self.kept if allowed is None else allowed
        return allowed & self.kept

    def matching(self, predicate: Predicate) -> RowSet:
        """The snapshot's rows that a filter matches."""
        return self._matching(predicate)

    def merged(
        self, queries: npt.NDArray[np.float32], k: int, scores: Scores, rows: Rows, predicate: Predicate | None
    ) -> tuple[Scores, Rows]:
        """The k best of what the engine found, [n, k], and of the snapshot's rows that `predicate` matches (None: all).

        queries: float32 [n, d], as the user gave them. Of equal scores the engine's rows come first.
        """
        if not self.count:
            return scores, rows
        params = None
        if predicate is not None:
            params = faiss.SearchParameters(sel=self.matching(predicate).selector)
        queries = np.ascontiguousarray(_prepared(queries, self._engine.metric))
        # Few at a time, each row compared by itself, as everywhere that claims to be exact (selection/subset.py).
        parts = [
            self._index.search(queries[at : at + QUERY_BLOCK], min(k, self.count), params=params)
            for at in range(0, len(queries), QUERY_BLOCK)
        ]
        raw, own = (np.concatenate(each) for each in zip(*parts, strict=True))
        mine = to_scores(raw, own, self._engine.metric)
        if rows[:, -1:].min(initial=0) >= 0 and (mine[:, 0] <= scores[:, -1]).all():
            return scores, rows  # the usual case: few rows are fresh
        scores = np.concatenate([scores, mine], axis=1)
        rows = np.concatenate([rows, np.where(own < 0, own, own + self._engine.count)], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)

    def among(self, rows: Rows, hits: Sequence[int]) -> int:
        """In how many lines of `rows` [n, k] one of the snapshot's is among the first `hits`."""
        told = np.arange(rows.shape[1]) < np.asarray(hits)[:, None]
        return int(np.count_nonzero((told & (rows >= self._engine.count)).any(axis=1)))

    # ------------------------------------------------------------ as the engine's, for rows of both

    def ids(self, rows: Rows) -> list[int] | list[str]:
        """As Engine.ids."""
        mine = rows >= self._engine.count
        if not mine.any():
            return self._engine.ids(rows)
        return _interleaved(mine, self._ids.take(self._own(rows[mine])).to_pylist(), self._engine.ids(rows[~mine]))

    def raw_ids(self, rows: Rows) -> RawIds:
        """As Engine.raw_ids."""
        if not (rows >= self._engine.count).any():
            return self._engine.raw_ids(rows)
        found = self.ids(rows)
        if self._engine.manifest.id_type != "string":
            return RawIds(np.array(found, np.int64), b"", None)
        texts = [str(one).encode() for one in found]
        lengths = np.array([len(one) for one in texts], np.uint32)
        return RawIds(lengths, b"".join(texts), [0, *np.cumsum(lengths, dtype=np.int64).tolist()])

    def metadata(self, rows: Rows, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """As Engine.metadata."""
        mine = rows >= self._engine.count
        if not mine.any() or not self._metadata.num_columns:
            return self._engine.metadata(rows, columns)
        chosen = self._metadata if columns is None else self._metadata.select(list(columns))
        taken = chosen.take(self._own(rows[mine]))
        names = taken.schema.names
        values = zip(*(json_values(column) for column in taken.columns), strict=True)
        own = [dict(zip(names, row, strict=True)) for row in values]
        return _interleaved(mine, own, self._engine.metadata(rows[~mine], columns))

    def metadata_bytes(self, rows: Rows) -> int:
        """As Engine.metadata_bytes."""
        mine = rows >= self._engine.count
        own = rows[mine]
        size = self._engine.metadata_bytes(rows[~mine])
        if not len(own) or not self._metadata.num_columns:
            return size
        names = sum(len(name) + _NAME_BYTES for name in self._metadata.schema.names)
        return size + len(own) * names + int(self._metadata.take(self._own(own)).nbytes)

    def _own(self, rows: Rows) -> pa.Array:
        return pa.array(rows - self._engine.count)


def _interleaved(mine: npt.NDArray[np.bool_], own: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    """One list, in which `own` stand where `mine` is true."""
    left, right = iter(own), iter(others)
    return [next(left) if one else next(right) for one in mine.tolist()]


def _id_type(engine: Engine) -> pa.DataType:
    return pa.string() if engine.manifest.id_type == "string" else pa.int64()


def _prepared(vectors: npt.NDArray[np.float32], metric: Metric) -> npt.NDArray[np.float32]:
    return normalise(vectors) if metric is Metric.COSINE else vectors


def _checked(engine: Engine, files: Sequence[FreshFile]) -> list[FreshFile]:
    """Raises BadData for the first file that cannot stand beside the engine."""
    count = 0
    for one in files:
        count += len(one.ids)
        if count > MAX_FRESH_ROWS:
            message = f"more than {MAX_FRESH_ROWS} fresh rows are listed"
            raise _bad(one, "TooManyFreshRows", message, "Build the index again.")
    return [checked_file(engine, one) for one in files]


def checked_file(engine: Engine, one: FreshFile) -> FreshFile:
    """With metadata of the engine's types. Raises BadData for a file that cannot stand beside the engine."""
    if one.vectors.ndim != 2 or one.vectors.shape != (len(one.ids), engine.dimension):
        message = f"{one.key} holds vectors of shape {one.vectors.shape}, expected dimension {engine.dimension}"
        raise _bad(one, "DimensionMismatch", message, "Embed the rows with the model of the index.")
    if one.ids.type != _id_type(engine) or one.ids.null_count:
        message = f"{one.key} has ids of type {one.ids.type}, the index has {_id_type(engine)}, without nulls"
        raise _bad(one, "BadIdType", message, "Write ids as the source has them.")
    if one.metadata.schema.names != engine.metadata_schema.names:
        message = f"{one.key} has columns {one.metadata.schema.names}, expected {engine.metadata_schema.names}"
        raise _bad(one, "UnknownColumn", message, "Write the metadata columns that the source has.")
    found = fault(one.vectors, engine.metric) if len(one.ids) else None
    if found is not None:
        message = f"{one.key} row {int(np.argmax(found[1]))} has a vector that cannot be searched: {found[0]}"
        raise _bad(one, found[0].value, message, "Remove or repair the row.")
    try:
        return replace(one, metadata=one.metadata.cast(engine.metadata_schema))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        message = f"{one.key}: its metadata is not of the index's types: {str(error)[:200]}"
        raise _bad(one, "MixedTypes", message, "Write each column as the source has it.") from error


def check_hides(engine: Engine, one: FreshFile) -> None:
    """Raises BadSpec/CannotHide for a file of changed rows beside an engine that cannot leave the old ones out."""
    if not engine.supports_filter:
        _kept(engine, one.ids)


def without_held(engine: Engine, one: FreshFile) -> FreshFile:
    """Its rows with ids that the engine has not."""
    keep = np.ones(len(one.ids), np.bool_)
    for part in engine.id_chunks():
        keep &= ~pc.is_in(one.ids, value_set=part).to_numpy(zero_copy_only=False)
    rows = pa.array(np.flatnonzero(keep))
    metadata = one.metadata.take(rows) if one.metadata.num_columns else one.metadata
    return replace(one, ids=one.ids.take(rows), vectors=one.vectors[keep], metadata=metadata)


def usual_lengths(engine: Engine) -> tuple[float, float] | None:
    """The shortest and the longest of some of the index's vectors, as they are stored; None where lengths say nothing
    (Cosine), or cannot be read."""
    if engine.metric is Metric.COSINE:
        return None
    drawn = np.random.default_rng(0).permutation(engine.count)[:LENGTHS_ROWS]
    lengths = engine.lengths(np.sort(drawn).astype(np.int64))
    return None if lengths is None else (float(lengths.min()), float(lengths.max()))


def check_lengths(one: FreshFile, usual: tuple[float, float] | None) -> None:
    """Raises BadData/UnusualLengths for a file whose vectors are far shorter or longer than the index's: who forgets to
    normalise them is found by no dimension, and is the first hit of everybody."""
    if usual is None or not len(one.ids):
        return
    middle = float(np.median(np.linalg.norm(one.vectors, axis=1)))
    if not usual[0] / LENGTHS_FACTOR <= middle <= usual[1] * LENGTHS_FACTOR:
        message = (
            f"{one.key} has vectors of length {middle:.4g}, those of the index are {usual[0]:.4g} to {usual[1]:.4g}"
        )
        raise _bad(one, "UnusualLengths", message, "Embed and normalise the rows as those of the index.")


def _bad(file: FreshFile, reason: str, message: str, remedy: str) -> BadData:
    return BadData(reason, message, object=file.key, field=FIELD, remedy=remedy)


def _newest(ids: pa.Array, times: npt.NDArray[np.float64], deleted: Sequence[DeletedIds]) -> Rows:
    """Which of the rows count, rising: of each id the last one, unless it was deleted then or later."""
    if not len(ids):
        return np.empty(0, np.int64)
    codes = ids.dictionary_encode().indices.to_numpy()
    last = np.zeros(int(codes.max()) + 1, np.int64)
    np.maximum.at(last, codes, np.arange(len(codes)))
    live = np.ones(len(ids), np.bool_)
    for one in deleted:
        named = pc.is_in(ids, value_set=one.ids).to_numpy(zero_copy_only=False)
        live &= ~(named & (times <= one.stored_at))
    rows = np.sort(last)
    found: Rows = rows[live[rows]]
    return found


def _kept(engine: Engine, ids: pa.Array) -> RowSet | None:
    """The engine's rows with another id than these; None: all."""
    if not len(ids):
        return None
    masks = [pc.is_in(part, value_set=ids).to_numpy(zero_copy_only=False) for part in engine.id_chunks()]
    replaced = np.concatenate(masks) if masks else np.empty(0, np.bool_)
    if not replaced.any():
        return None
    if not engine.supports_filter:
        message = f"changed rows cannot take the place of those in an index of type {engine.manifest.index_type}"
        remedy = "Use another factory (Flat, IVF, HNSW and their quantised forms can)."
        raise BadSpec("CannotHide", message, field="spec.index.factory", remedy=remedy)
    return RowSet.of_mask(~replaced)


def _batch(schema: pa.Schema, files: Sequence[FreshFile], newest: Rows) -> pa.RecordBatch:
    """The metadata of these rows as one batch of the index's schema."""
    if not files or not len(schema):
        return pa.RecordBatch.from_pylist([], schema=schema)
    taken = pa.concat_tables([one.metadata for one in files]).combine_chunks().take(pa.array(newest)).combine_chunks()
    batches = taken.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=schema)
