"""What trials of `Auto` are measured on: some rows to index, and some to ask for that are in no index.

A query that is a row of the index measures too much: a graph finds it from its own node. So queries are rows left out,
and with each go the rows that are as good as equal to it, which would lead to its neighbours as well. A crowd (more of
these than may be left out) stays, as it does when `build` leaves rows out: a new row of its kind finds it there too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...contract import Metric
from ..binding import faiss
from ..vectors import VectorFile

NEAR = 0.1
"""Of the median distance to the NEIGHBOUR-th neighbour: rows nearer to a query than this go with it."""
NEIGHBOUR = 100
"""Deep enough to be another document where most rows have dozens of copies; of the tenth, half may be copies."""
MOST_LEFT_OUT = 20
"""At most one row in so many is left out: fewer rows are another index."""
LEAST_QUERIES = 50
"""Also where these are more than that; at most every fourth row."""
_BLOCK_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows drawn uniformly, and others as queries."""

    rows: npt.NDArray[np.float32]
    """[n, d], prepared; in random order, so the first m are a sample too. No query is among them, nor near one."""
    queries: npt.NDArray[np.float32]
    """[m, d], prepared: other rows of the same file."""
    metric: Metric

    def part(self, rows: int, queries: int | None = None) -> Sample:
        """The first `rows` of the rows, and of the queries (default: all of them)."""
        return Sample(self.rows[:rows], self.queries[:queries], self.metric)


def draw_sample(vectors: VectorFile, rows: int, queries: int, seed: int = 0) -> Sample:
    """`rows` of the file at random, at most all, and up to `queries` others; the least of these where rows are few.

    Fewer rows come where they, or their near-duplicates, are queries, and fewer queries where these have many.
    """
    wanted = min(queries, max(vectors.count // MOST_LEFT_OUT, LEAST_QUERIES), vectors.count // 4)
    drawn = np.random.default_rng(seed).choice(vectors.count, min(rows + wanted, vectors.count), replace=False)
    gathered = vectors.gather(drawn)
    if not wanted:  # three rows or fewer: any index finds them
        return Sample(gathered, gathered, vectors.metric)
    asked, rest = gathered[:wanted].copy(), gathered[wanted:]
    radius = NEAR**2 * _neighbour(rest, asked)
    costs = np.maximum(sum(near.sum(axis=0) for near in _near(gathered, asked, radius)), 1)  # a query is near itself
    most = max(wanted, len(drawn) // MOST_LEFT_OUT)
    costs[costs > most] = 1
    chosen = _affordable(costs, most)
    alone = asked[chosen[costs[chosen] > 1]]
    if not len(alone) and len(chosen) == wanted:
        return Sample(rest, asked, vectors.metric)
    kept = np.ones(len(gathered), np.bool_)
    kept[chosen] = False
    if len(alone):
        kept &= ~np.concatenate([near.any(axis=1) for near in _near(gathered, alone, radius)])
    return Sample(gathered[kept], asked[chosen], vectors.metric)


def whole(rows: int, count: int) -> bool:
    """Whether a sample of `rows` has all rows there are, but for those that are queries."""
    return rows >= 0.9 * count


def _neighbour(rows: npt.NDArray[np.float32], queries: npt.NDArray[np.float32]) -> float:
    """Median squared distance of the queries to their NEIGHBOUR-th row; under each metric, since it is about copies."""
    distances, _ = faiss.knn(queries, rows, min(NEIGHBOUR, len(rows)))
    return float(np.median(distances[:, -1]))


def _near(
    rows: npt.NDArray[np.float32], queries: npt.NDArray[np.float32], radius: float
) -> Iterator[npt.NDArray[np.bool_]]:
    """Which rows are within the squared `radius` of which queries: [some rows, m], block after block."""
    # Far from the origin BLAS's |x|^2 + |q|^2 - 2xq loses what is as small as this.
    origin = queries.mean(axis=0, dtype=np.float64).astype(np.float32)
    for start in range(0, len(rows), _BLOCK_ROWS):
        yield faiss.pairwise_distances(rows[start : start + _BLOCK_ROWS] - origin, queries - origin) < radius


def _affordable(costs: npt.NDArray[np.int64], limit: int) -> npt.NDArray[np.int64]:
    """Numbers of queries that leave out `limit` rows at most, `costs` of them each, in the order in which they came."""
    left, chosen = limit, []
    for number, cost in enumerate(costs.tolist()):
        if cost <= left:
            left -= cost
            chosen.append(number)
    return np.array(chosen, np.int64)
