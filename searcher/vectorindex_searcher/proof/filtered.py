"""Recall when only some rows may be answered: random row sets of a few selectivities stand for filters of users.

Random sets need no metadata and are the usual case; what a filter's own geometry does (all its rows far from the query)
is left to the searcher's exact fall-back. Judges nothing.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from ..index.choose.tuning import batch_engine
from ..index.engine import Engine
from ..index.selection.rowset import RowSet
from ..index.vectors import VectorFile
from .bound import lower_bound
from .exact import exact_search
from .measure import measure, without_own
from .queries import Queries
from .report import FilteredRecall

SELECTIVITIES = (0.5, 0.01, 0.0001)
QUERIES = 200
"""Drawn from all; so the exact scans take at most a tenth of the time of those for all queries."""
LATENCY_CALLS = 100
LATENCY_SECONDS = 1.0


def filtered_recall(
    engine: Engine, vectors: VectorFile, queries: Queries, k: int, confidence: float
) -> tuple[FilteredRecall, ...]:
    """One row per selectivity, through `Engine.search(only=...)` at the default point; none if it cannot restrict.

    A random sample of QUERIES of the queries, the same for every selectivity; seeded, so a repeated gate says the same.
    """
    if not engine.supports_filter:
        return ()
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.choice(len(queries.vectors), min(QUERIES, len(queries.vectors)), replace=False))
    asked, own = queries.vectors[chosen], queries.own_rows[chosen]
    return tuple(_measure(engine, vectors, asked, own, k, confidence, share, rng) for share in SELECTIVITIES)


def _measure(
    engine: Engine,
    vectors: VectorFile,
    queries: npt.NDArray[np.float32],
    own: npt.NDArray[np.int64],
    k: int,
    confidence: float,
    share: float,
    rng: np.random.Generator,
) -> FilteredRecall:
    rows = np.sort(rng.choice(engine.count, max(1, round(share * engine.count)), replace=False))
    allowed_rows = RowSet.of_rows(rows, engine.count)
    extra = 1 if (own >= 0).any() else 0
    _, found, how = batch_engine(engine).search_with_strategy(queries, k + extra, allowed_rows=allowed_rows)
    truth = exact_search(vectors, queries, k, engine.metric, own, among=rows)
    recall = measure(truth, without_own(found, own, k), vectors, queries).recall
    return FilteredRecall(
        selectivity=share,
        rows=len(rows),
        queries=len(queries),
        recall=float(recall.mean()),
        recall_low=lower_bound(recall, confidence),
        search=how.value,
        query_us=_latency(engine, queries, k, allowed_rows),
    )


def _latency(engine: Engine, queries: npt.NDArray[np.float32], k: int, allowed_rows: RowSet) -> float:
    """Mean microseconds of one query; the rows were searched before, as those of a repeated filter were."""
    began, done = time.perf_counter(), 0
    for number in range(min(LATENCY_CALLS, len(queries))):
        engine.search(queries[number : number + 1], k, allowed_rows=allowed_rows)
        done += 1
        if time.perf_counter() - began > LATENCY_SECONDS:
            break
    return (time.perf_counter() - began) / done * 1e6
