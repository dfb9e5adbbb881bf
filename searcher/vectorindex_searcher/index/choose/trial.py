"""One kind of index measured on a sample of the rows: recall and time of a query at the cheapest parameters that do.

A trial is built in memory from a few thousand rows and thrown away. Times are CPU time of the calling thread, so
neighbours on the machine disturb them little. Chooses nothing: `auto` compares trials.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...contract import Metric
from ..binding import faiss
from ..factory import make_index
from ..metric import faiss_metric
from ..parameters import layers, parameter_limits, search_parameters
from ..threads import limit_threads
from .families import lists_in
from .parameter_search import Grid, find_cheapest
from .recall import nearest, recall_of, tie_width
from .sample import Sample, whole
from .tuning import K

HOP_DISTANCES = 4
"""What reading a node's links costs, in distances: fitted to 16 graphs of debian-packages, 15,000 x 384."""
ROUND_SECONDS = 0.03
"""Of timing queries one by one, at most: 1,000 of 30 us."""
CODE_ROUNDS = 10
"""Of k-means for the codes of a trial, where FAISS makes 25 in two thirds of a small sample's build."""
LEAST_LOSS = 0.003
"""Of recall: ratios of less are noise."""
MOST_LOSS_EXPONENT = 0.5


@dataclass(frozen=True, slots=True)
class Measured:
    """A trial at given parameters. recall: mean; spread: standard deviation over queries; latency in microseconds."""

    params: dict[str, int]
    recall: float
    spread: float
    latency_us: float
    work: float = 0.0
    """Of a graph: distances of one query, and HOP_DISTANCES for each hop; exact where the clock is noisy. Else 0."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What came out for a factory string on `rows` rows. `best`: the cheapest point that reaches the goal, if one."""

    factory: str
    rows: int
    best: Measured | None
    ceiling: float
    """The highest recall seen; with an exhaustive Bench the highest there is."""
    raised: bool = False
    """Whether more recall was asked for than the goal, because more rows will take some away."""
    again: Callable[[], float] | None = field(default=None, repr=False)
    """Measures the latency of `best` again, microseconds; keeps the index alive. None: the index is gone."""


def raised(goal: float, fewer: tuple[int, float], more: tuple[int, float], count: int) -> float:
    """The recall to ask for on a sample so that about `goal` is left on `count` rows.

    In more rows neighbours lie nearer to each other: what the same search, or the same codes, lose grows as a power of
    the rows. fewer, more: rows of two samples and the recall of the same there, which give the exponent; from 0
    (debian-packages) to MOST_LOSS_EXPONENT (clusters, where a graph loses its way), since two recalls are noisy.
    """
    losses = [max(1.0 - recall, LEAST_LOSS) for _, recall in (fewer, more)]
    exponent = math.log(losses[1] / losses[0]) / math.log(more[0] / fewer[0])
    share: float = (more[0] / count) ** min(max(exponent, 0.0), MOST_LOSS_EXPONENT)
    return 1.0 - (1.0 - goal) * share


def rows_are_nodes(index: Any) -> bool:
    """Whether the rows themselves are the nodes of a graph."""
    *_, innermost = layers(index)
    return isinstance(innermost, faiss.IndexHNSW)


class Bench:
    """A sample with its exact answers, and the k-means shared by every family with the same number of lists."""

    def __init__(
        self, sample: Sample, threads: int, *, frugal: bool = True, exhaust: bool = False, of_lists: int = 0
    ) -> None:
        """threads: OpenMP threads of training and exact search; queries are timed on one. frugal: centroids are
        shared, and codes trained in fewer rounds, which no recall shows. exhaust:
        every trial measures the recall of the most effort, too. of_lists: so many queries for all but graphs (0: all).
        """
        self.sample = sample
        self._of_lists = of_lists or len(sample.queries)
        self.threads = threads
        self._frugal = frugal
        self._exhaust = exhaust
        self._centroids: dict[int, npt.NDArray[np.float32]] = {}
        limit_threads(threads)
        k = min(K, len(sample.rows))
        _, rows = faiss.knn(sample.queries, sample.rows, k, metric=faiss_metric(sample.metric))
        self.available = np.full(len(sample.queries), k)
        kth = self._scores(rows[:, -1:])[:, 0]
        self._threshold = kth - tie_width(kth, sample.queries, sample.rows[rows[:, -1]], sample.metric)

    def _scores(self, found: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Exact scores [m, k] of rows [m, k] of the sample; of any row where it is -1."""
        queries = self.sample.queries.astype(np.float64)
        vectors = self.sample.rows[np.maximum(found, 0)].astype(np.float64)
        queries = queries[: len(found)]
        if self.sample.metric is Metric.INNER_PRODUCT:
            products: npt.NDArray[np.float64] = np.einsum("mkd,md->mk", vectors, queries)
            return products
        vectors -= queries[:, None]
        distances: npt.NDArray[np.float64] = np.einsum("mkd,mkd->mk", vectors, vectors)
        return -distances

    def recall(self, found: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Recall@10 [m] of answers [m, 10] to the first m queries, ties considered."""
        m = len(found)
        return recall_of(nearest(self._scores(found), found, self._threshold[:m]), self.available[:m])

    def build(self, factory: str, ef_construction: int | None = None) -> Any:
        """A trained and filled index. Raises BadSpec, or RuntimeError from FAISS."""
        limit_threads(self.threads)
        rows = self.sample.rows
        index = make_index(factory, len(rows), rows.shape[1], self.sample.metric, ef_construction)
        *_, innermost = layers(index)
        lists = lists_in(factory)
        if lists and lists in self._centroids:
            innermost.quantizer.add(self._centroids[lists])
        if not index.is_trained:
            if self._frugal and isinstance(innermost, faiss.IndexIVFPQFastScan):
                innermost.pq.cp.niter = CODE_ROUNDS
            index.train(rows)
        if lists and self._frugal and lists not in self._centroids:
            self._centroids[lists] = innermost.quantizer.reconstruct_n(0, lists)
        index.add(rows)
        return index

    def run(
        self,
        factory: str,
        goal: float,
        before: Trial | None = None,
        count: int = 0,
        ef_construction: int | None = None,
        *,
        guess: Mapping[str, int] | None = None,
        margin: float = 0.0,
    ) -> Trial:
        """Build and find the cheapest parameters of recall `goal` at least, and `margin` times their spread more, as
        tuning will ask of each point by its own.

        before: the same kind on fewer rows. A graph's parameters mean the same on both, so there the goal is `raised`
        to what must be reached here for `goal` on `count` rows. guess: parameters that may be near.
        """
        index = self.build(factory, ef_construction)
        grid = Grid.of(parameter_limits(index))
        seen: dict[tuple[tuple[str, int], ...], Measured] = {}

        def look(params: Mapping[str, int], *, timed: bool = False) -> Measured:
            key = tuple(sorted(params.items()))
            if key not in seen or (timed and not seen[key].latency_us):
                seen[key] = self.measure(index, dict(params), timed=timed)
            return seen[key]

        rows, more = len(self.sample.rows), goal
        if (
            before is not None
            and before.best is not None
            and "efSearch" in before.best.params
            and not whole(rows, count)
        ):
            now = look(before.best.params).recall
            more = raised(goal, (before.rows, before.best.recall), (rows, now), count)

        def spare(at: Mapping[str, int]) -> float:
            point = look(at)
            return point.recall - min(1.0, more + margin * point.spread)

        first = before.best.params if before is not None and before.best is not None else guess
        best = find_cheapest(grid, spare, lambda at: look(at, timed=True), first)
        if self._exhaust:
            look(grid.most())
        ceiling = max(point.recall for point in seen.values())
        params = best.params if best else {}
        return Trial(factory, rows, best, ceiling, more > goal, lambda: self.latency(index, params, rounds=1))

    def measure(self, index: Any, params: dict[str, int], *, timed: bool = True) -> Measured:
        """Recall of `index` at `params`, and with `timed` the time of a query (else 0)."""
        limit_threads(self.threads)
        statistics = faiss.cvar.hnsw_stats
        statistics.reset()
        graph = rows_are_nodes(index)
        queries = self.sample.queries if graph else self.sample.queries[: self._of_lists]
        _, found = index.search(queries, K, params=search_parameters(index, params))
        recall = self.recall(found)
        work = (statistics.ndis + HOP_DISTANCES * statistics.nhops) / len(found) if graph else 0.0
        latency = self.latency(index, params) if timed else 0.0
        return Measured(params, float(recall.mean()), float(recall.std()), latency, work)

    def latency(self, index: Any, params: Mapping[str, int], rounds: int = 2) -> float:
        """Mean CPU microseconds of one query alone on one thread: the best of some rounds over the queries. All of
        them, as far as the time goes: a few that come again and again find in the caches what they read."""
        limit_threads(1)
        prepared = search_parameters(index, params)
        singles = [self.sample.queries[number : number + 1] for number in range(len(self.sample.queries))]
        best = float("inf")
        for _ in range(rounds):
            began, done = time.thread_time(), 0
            for query in singles:
                index.search(query, K, params=prepared)
                done += 1
                if done >= 20 and time.thread_time() - began > ROUND_SECONDS:
                    break
            best = min(best, (time.thread_time() - began) / done)
        return best * 1e6
