"""Exact search over vectors.npy: the truth that recall is measured against. In blocks, whatever the size of the file.

A fast float32 pass finds a few candidates more than needed; their distances are then computed again in float64, so the
order and the k-th distance do not depend on how BLAS rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..contract import Metric
from ..index.choose.recall import tie_width
from ..index.device import Backend, DeviceFallback, on_cpu
from ..index.metric import faiss_metric
from ..index.selection.rowset import RowSet
from ..index.vectors import SCAN_BYTES, VectorFile

SLACK = 16
"""Candidates beyond k that the float32 pass keeps."""
_GATHER_FLOATS = 1 << 20


@dataclass(frozen=True, slots=True)
class Truth:
    """Exact neighbours of n queries. Scores: minus squared L2 (of unit vectors under Cosine), or inner product."""

    k: int
    rows: npt.NDArray[np.int64]
    """[n, c], c >= k where the index has as many; best first; -1 behind the last row."""
    scores: npt.NDArray[np.float64]
    """[n, c]; -inf where the row is -1."""
    available: npt.NDArray[np.int64]
    """[n]: neighbours there are, at most k (few rows, own row excluded)."""
    threshold: npt.NDArray[np.float64]
    """[n]: a row with at least this score is one of the k nearest, ties included."""
    nearest: npt.NDArray[np.float64]
    """[n]: a row with at least this score is the nearest, ties included."""

    def at(
        self, vectors: VectorFile, queries: npt.NDArray[np.float32], k: int, own_rows: npt.NDArray[np.int64]
    ) -> Truth:
        """The truth of fewer neighbours; the other arguments as in `exact_search`, which this came of."""
        return truth_among(vectors, queries, self.rows, k, vectors.metric, own_rows)

    def of(self, chosen: npt.NDArray[np.int64]) -> Truth:
        """The truth of some of the queries, by their numbers."""
        return Truth(
            k=self.k,
            rows=self.rows[chosen],
            scores=self.scores[chosen],
            available=self.available[chosen],
            threshold=self.threshold[chosen],
            nearest=self.nearest[chosen],
        )


def spread(truth: Truth, numbers: npt.NDArray[np.int64], count: int) -> Truth:
    """The truth of `count` queries of which only those with these numbers have neighbours."""
    if len(numbers) == count:
        return truth
    none = np.full((count, truth.rows.shape[1]), -1, np.int64)
    whole = Truth(
        truth.k, none, np.full(none.shape, -np.inf), np.zeros(count, np.int64), np.zeros(count), np.zeros(count)
    )
    for name in ("rows", "scores", "available", "threshold", "nearest"):
        getattr(whole, name)[numbers] = getattr(truth, name)
    return whole


def no_truth(k: int) -> Truth:
    """Of no queries."""
    number = np.empty(0)
    return Truth(k, np.empty((0, k), np.int64), np.empty((0, k)), np.empty(0, np.int64), number, number)


def exact_search(
    vectors: VectorFile,
    queries: npt.NDArray[np.float32],
    k: int,
    metric: Metric,
    own_rows: npt.NDArray[np.int64] | None = None,
    *,
    depths: npt.NDArray[np.int64] | None = None,
    threads: int | None = None,
    among: npt.NDArray[np.int64] | None = None,
    fallback: DeviceFallback | None = None,
    allowed_rows: RowSet | None = None,
) -> Truth:
    """The k nearest rows of each query.

    queries: float32 [n, d], as given. own_rows: int64 [n], the row that a query is a copy of and that does not count
    for it; -1 for none. depths: int64 [n] in 1..k, how many neighbours count for each query (default: k).
    threads: of the scan (default: all cores). among: int64 [m], rising, m >= 1: the only rows there are (default: all).
    fallback: where to search (default: the CPU).
    allowed_rows: see `truth_among`.
    """
    fallback = fallback or on_cpu(threads)
    count = vectors.count if among is None else len(among)
    blocks = _all_blocks(vectors) if among is None else _blocks_of(vectors, among)
    if allowed_rows is not None:
        blocks, count = _allowed(blocks, allowed_rows), min(count, allowed_rows.matching)
    rows = _candidates(blocks, vectors.prepared(queries), max(1, min(k + 1 + SLACK, count)), metric, fallback)
    if among is not None:
        own = 0 if own_rows is None else np.isin(own_rows, among)
        depths = np.minimum(np.full(len(queries), k) if depths is None else depths, count - own)
    return truth_among(vectors, queries, rows, k, metric, own_rows, depths=depths, allowed_rows=allowed_rows)


def truth_among(
    vectors: VectorFile,
    queries: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    k: int,
    metric: Metric,
    own_rows: npt.NDArray[np.int64] | None = None,
    *,
    depths: npt.NDArray[np.int64] | None = None,
    allowed_rows: RowSet | None = None,
) -> Truth:
    """The k nearest among candidates `rows` (int64 [n, c], -1 for none), by their exact distances.

    It is the truth when the candidates hold it. Otherwise its k-th score is too low and recall against it too high,
    never too low. allowed_rows: those that may be answered (None: all); others count for nothing, and are no
    candidates. Other arguments as in `exact_search`.
    """
    queries = vectors.prepared(queries)
    own = np.full(len(queries), -1) if own_rows is None else own_rows
    rows = np.where(rows == own[:, None], -1, rows)
    if allowed_rows is not None:
        rows = np.where(allowed_rows.holds(rows), rows, -1)
    scores = exact_scores(vectors, queries, rows, metric)
    order = np.argsort(-scores, axis=1, kind="stable")
    rows, scores = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
    there = vectors.count - (own >= 0) if allowed_rows is None else allowed_rows.matching - allowed_rows.holds(own)
    available = np.minimum(k if depths is None else depths, there)
    last = np.maximum(available - 1, 0)[:, None]
    threshold = _with_ties(last, queries, scores, rows, vectors, metric)
    nearest = _with_ties(np.zeros_like(last), queries, scores, rows, vectors, metric)
    return Truth(k, rows, scores, available, threshold, nearest)


def exact_scores(
    vectors: VectorFile, prepared: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], metric: Metric
) -> npt.NDArray[np.float64]:
    """float64 [n, m] scores of `rows` (int64 [n, m]) against prepared queries [n, d]; -inf where the row is -1."""
    scores = np.full(rows.shape, -np.inf)
    step = max(1, _GATHER_FLOATS // max(1, rows.shape[1] * vectors.dimension))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        wide = prepared[start : start + step].astype(np.float64)
        found = vectors.gather(np.maximum(some, 0).ravel()).reshape(*some.shape, -1).astype(np.float64)
        if metric is Metric.INNER_PRODUCT:
            values = np.einsum("nmd,nd->nm", found, wide)
        else:
            found -= wide[:, None]
            values = -np.einsum("nmd,nmd->nm", found, found)
        scores[start : start + step] = np.where(some >= 0, values, -np.inf)
    return scores


def _with_ties(
    column: npt.NDArray[np.int64],
    queries: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int64],
    vectors: VectorFile,
    metric: Metric,
) -> npt.NDArray[np.float64]:
    """[n]: the least score that is as good as the one in `column` of each line, by the width of that row's own ties."""
    there, found = np.take_along_axis(rows, column, 1)[:, 0], np.take_along_axis(scores, column, 1)[:, 0]
    lines = np.flatnonzero(there >= 0)
    least = found.copy()
    least[lines] -= tie_width(found[lines], queries[lines], vectors.gather(there[lines]), metric)
    return least


_Blocks = Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]
"""Row numbers int64 [n] and prepared vectors float32 [n, d]."""


def _all_blocks(vectors: VectorFile) -> _Blocks:
    for first, block in vectors.blocks():
        yield np.arange(first, first + len(block)), block


def _blocks_of(vectors: VectorFile, rows: npt.NDArray[np.int64]) -> _Blocks:
    step = max(64, SCAN_BYTES // (4 * vectors.dimension))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        yield some, vectors.gather(some)


def _allowed(blocks: _Blocks, allowed_rows: RowSet) -> _Blocks:
    """The blocks without the rows that may not be answered: left out here, they displace no candidate."""
    for numbers, block in blocks:
        kept = allowed_rows.holds(numbers)
        if kept.all():
            yield numbers, block
        elif kept.any():
            yield numbers[kept], block[kept]


def _candidates(
    blocks: _Blocks, queries: npt.NDArray[np.float32], k: int, metric: Metric, fallback: DeviceFallback
) -> npt.NDArray[np.int64]:
    """Rows [n, k] of the k best by a float32 scan; the row numbers of a block are those that come with it."""
    # BLAS computes |q|^2 + |x|^2 - 2qx, which loses the distance when the data lies far from the origin. Moving the
    # origin changes no L2 distance.
    origin = queries.mean(axis=0, dtype=np.float64).astype(np.float32)
    if metric is Metric.INNER_PRODUCT:
        origin = np.zeros_like(origin)
    moved = np.ascontiguousarray(queries - origin)
    sign = -1 if metric is Metric.INNER_PRODUCT else 1
    best = np.full((len(queries), k), np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    for numbers, block in blocks:
        block -= origin
        values, found = fallback.run(_nearest(moved, block, min(k, len(block)), metric))
        both = np.concatenate([best, sign * values], axis=1)
        numbered = np.concatenate([rows, np.where(found >= 0, numbers[found], -1)], axis=1)
        keep = np.argpartition(both, k - 1, axis=1)[:, :k]
        best, rows = np.take_along_axis(both, keep, 1), np.take_along_axis(numbered, keep, 1)
    return rows


def _nearest(
    queries: npt.NDArray[np.float32], block: npt.NDArray[np.float32], k: int, metric: Metric
) -> Callable[[Backend], tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    return lambda backend: backend.nearest(queries, block, k, faiss_metric(metric))
