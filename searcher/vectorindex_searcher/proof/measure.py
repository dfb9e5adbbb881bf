"""Recall@k and reciprocal ranks of an engine's answers against the truth. Ties count by distance, own rows do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..index.choose.recall import nearest, recall_of
from ..index.engine import Engine
from ..index.selection.rowset import RowSet
from ..index.vectors import VectorFile
from .exact import Truth, exact_scores

Params = Mapping[str, Mapping[str, int]]
"""Segment -> search parameters of its own."""
NO_PARAMS: Params = {}


@dataclass(frozen=True, slots=True)
class Measured:
    """Per-query outcome, each [n] float64 in [0, 1]."""

    recall: npt.NDArray[np.float64]
    reciprocal_rank: npt.NDArray[np.float64]
    """1 / rank of the exact nearest neighbour among the answers; 0 when it is not there."""

    def of(self, numbers: npt.NDArray[np.int64]) -> Measured:
        """Of some of the queries."""
        return Measured(self.recall[numbers], self.reciprocal_rank[numbers])

    def with_part(self, numbers: npt.NDArray[np.int64], part: Measured) -> Measured:
        """The same, with what was measured of some of the queries."""
        whole = Measured(self.recall.copy(), self.reciprocal_rank.copy())
        whole.recall[numbers], whole.reciprocal_rank[numbers] = part.recall, part.reciprocal_rank
        return whole


def answers(
    engine: Engine,
    queries: npt.NDArray[np.float32],
    k: int,
    own_rows: npt.NDArray[np.int64],
    params: Mapping[str, int] | None = None,
    *,
    allowed_rows: RowSet | None = None,
) -> npt.NDArray[np.int64]:
    """Rows [n, k] that the engine answers; for queries that are rows themselves (own_rows >= 0), without that row."""
    return scored_answers(engine, queries, k, own_rows, params, allowed_rows=allowed_rows)[1]


def scored_answers(
    engine: Engine,
    queries: npt.NDArray[np.float32],
    k: int,
    own_rows: npt.NDArray[np.int64],
    params: Mapping[str, int] | None = None,
    *,
    allowed_rows: RowSet | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """As `answers`, and before them the engine's own scores [n, k]: what answers of shards are merged by."""
    extra = 1 if (own_rows >= 0).any() else 0
    scores, rows = engine.search(queries, k + extra, params, allowed_rows=allowed_rows)
    order = _own_last(rows, own_rows)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def served_answers(
    engine: Engine,
    queries: npt.NDArray[np.float32],
    k: int,
    own_rows: npt.NDArray[np.int64],
    classes: Sequence[str] | None,
    params: Params,
    *,
    allowed_rows: RowSet | None = None,
) -> npt.NDArray[np.int64]:
    """Rows [n, k], each query answered with its segment's own parameters: what a searcher answers to it.

    allowed_rows: those that its filter keeps (None: all).
    """
    if classes is None or not params:
        return answers(engine, queries, k, own_rows, allowed_rows=allowed_rows)
    names = np.array(classes)
    rows = np.full((len(queries), k), -1, np.int64)
    for name in np.unique(names):
        mine = names == name
        rows[mine] = answers(engine, queries[mine], k, own_rows[mine], params.get(str(name)), allowed_rows=allowed_rows)
    return rows


def without_own(rows: npt.NDArray[np.int64], own_rows: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.int64]:
    """The first k of each line of `rows` [n, k or k+1] after its own row is taken out; order is kept."""
    return np.take_along_axis(rows, _own_last(rows, own_rows), 1)[:, :k]


def _own_last(rows: npt.NDArray[np.int64], own_rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The order of each line of `rows` with its own row at the end."""
    own = (rows == own_rows[:, None]) & (own_rows >= 0)[:, None]
    order: npt.NDArray[np.int64] = np.argsort(own, axis=1, kind="stable")
    return order


def measure(
    truth: Truth, rows: npt.NDArray[np.int64], vectors: VectorFile, queries: npt.NDArray[np.float32]
) -> Measured:
    """Recall and reciprocal rank of answers `rows` [n, k] (-1: none) to `queries` [n, d], as given."""
    scores = exact_scores(vectors, vectors.prepared(queries), rows, vectors.metric)
    hits = nearest(scores, rows, truth.threshold)
    first = nearest(scores, rows, truth.nearest)
    return Measured(recall_of(hits, truth.available), reciprocal_rank(first))


def reciprocal_rank(right: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """1 / (1 + index of the first True) of each line of [n, k]; 0 for a line without True."""
    if not right.shape[1]:
        return np.zeros(len(right))
    return np.where(right.any(axis=1), 1 / (1 + np.argmax(right, axis=1)), 0.0)


def right_answers(
    engine: Engine, rows: npt.NDArray[np.int64], relevant: Sequence[frozenset[int | str]]
) -> npt.NDArray[np.bool_]:
    """Whether each answer of `rows` [n, k] (-1: none) has an id that is labelled right for its query."""
    right = np.zeros(rows.shape, np.bool_)
    for number, wanted in enumerate(relevant):
        there = rows[number][rows[number] >= 0]
        right[number, : len(there)] = [value in wanted for value in engine.ids(there)]
    return right
