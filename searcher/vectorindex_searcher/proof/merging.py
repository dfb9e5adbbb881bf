"""Answers and truths of shards, merged as they come: what is held is of one answer, whatever the number of shards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..contract import Metric
from ..index.choose.recall import recall_of, tie_width
from ..index.vectors import VectorFile
from .exact import Truth, exact_scores

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_GATHER_FLOATS = 1 << 20


@dataclass(frozen=True, slots=True)
class ShardAnswers:
    """What one shard answers to n queries, best first, and what is right in it."""

    scores: npt.NDArray[np.float32]
    """[n, k], the engine's own: what a router merges by."""
    rows: Rows
    """[n, k], -1 where there is none."""
    truth: Truth

    def of(self, numbers: Rows) -> ShardAnswers:
        """To some of the queries, by their numbers."""
        return ShardAnswers(self.scores[numbers], self.rows[numbers], self.truth.of(numbers))


class Merger:
    """The k best of all shards so far, and the k nearest rows so far."""

    def __init__(self, queries: npt.NDArray[np.float32], k: int, metric: Metric) -> None:
        """queries: float32 [n, d], as given."""
        shape = (len(queries), k)
        self._queries, self._k, self._metric = queries, k, metric
        self._scores = np.full(shape, -np.inf)
        """By which answers are merged."""
        self._exact = np.full(shape, -np.inf)
        """Of the same answers: how near they are."""
        self._truth, self._widths = np.full(shape, -np.inf), np.zeros(shape)
        self._available = np.zeros(len(queries), np.int64)

    def add(self, found: ShardAnswers, vectors: VectorFile) -> None:
        """Merge one shard in; vectors: its own."""
        prepared = vectors.prepared(self._queries)
        exact = exact_scores(vectors, prepared, found.rows, self._metric)
        scores = np.where(found.rows >= 0, found.scores.astype(np.float64), -np.inf)
        self._scores, self._exact = _best((self._scores, self._exact), (scores, exact), self._k)
        rows, near = found.truth.rows[:, : self._k], found.truth.scores[:, : self._k]
        beyond = np.arange(near.shape[1]) >= found.truth.available[:, None]
        near = np.where(beyond, -np.inf, near)
        widths = tie_widths(vectors, prepared, rows, near)
        self._truth, self._widths = _best((self._truth, self._widths), (near, widths), self._k)
        self._available += found.truth.available

    @property
    def available(self) -> Rows:
        """[n]: neighbours there are, at most k."""
        return np.minimum(self._available, self._k)

    def threshold(self) -> Floats:
        """[n]: a row with at least this score is one of the k nearest, ties included."""
        last = np.maximum(self.available - 1, 0)[:, None]
        return np.take_along_axis(self._truth - self._widths, last, 1)[:, 0]

    def recall(self) -> Floats:
        """Recall@k [n] of the merged answers. A row as near as the k-th neighbour is as good as it, as everywhere."""
        right = (self._exact >= self.threshold()[:, None]) & (self._exact > -np.inf)
        return recall_of(right, self.available)


def _best(ours: tuple[Floats, Floats], theirs: tuple[Floats, Floats], k: int) -> tuple[Floats, Floats]:
    """The k best by the first of each pair, with the second; ours before theirs where they are equal."""
    first, second = (np.concatenate(both, axis=1) for both in zip(ours, theirs, strict=True))
    order = np.argsort(-first, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(first, order, 1), np.take_along_axis(second, order, 1)


def tie_widths(vectors: VectorFile, prepared: npt.NDArray[np.float32], rows: Rows, scores: Floats) -> Floats:
    """[n, m]: how much lower than `scores` is still a tie; 0 where there is no row."""
    widths = np.zeros(rows.shape)
    step = max(1, _GATHER_FLOATS // max(1, rows.shape[1] * vectors.dimension))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        line, column = np.nonzero((some >= 0) & (scores[start : start + step] > -np.inf))
        found = vectors.gather(some[line, column])
        width = tie_width(scores[start : start + step][line, column], prepared[start + line], found, vectors.metric)
        widths[start + line, column] = width
    return widths
