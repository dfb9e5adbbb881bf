"""Recall when only some rows may be answered: random row sets of a few selectivities stand for filters of users.

Random sets need no metadata and are the usual case; what a filter's own geometry does (all its rows far from the query)
is what filters of a user's queries tell (query_filters.py). Judges nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..index.choose.tuning import batch_engine
from ..index.engine import Engine
from ..index.selection.rowset import RowSet
from ..index.vectors import VectorFile
from .bound import lower_bound
from .exact import exact_search, truth_among
from .measure import measure, without_own
from .queries import Queries
from .report import FilteredRecall

SELECTIVITIES = (0.5, 0.01, 0.0001)
QUERIES = 200
"""Drawn from all; so the exact scans take at most a tenth of the time of those for all queries."""
LATENCY_CALLS = 100
LATENCY_SECONDS = 1.0
_SLICE_ROWS = 1 << 15
"""A multiple of eight."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FewRows:
    """What queries found when only some rows might be answered."""

    k: int
    selectivity: float
    rows: int
    recall: tuple[float, ...]
    """Of each query."""
    search: str
    """See `Strategy`."""


def ask_few_rows(
    engine: Engine,
    vectors: VectorFile,
    queries: npt.NDArray[np.float32],
    own: Rows,
    ks: Sequence[int],
    kept: Rows | None = None,
) -> Iterator[FewRows]:
    """What the engine answers at its default point, for each selectivity and k; nothing if it cannot be restricted.

    queries: [n, d]; own: [n], the engine's row that a query is, or -1. kept: the number in `vectors` of each of the
    engine's rows, where they differ. Seeded: the same queries are asked of the same rows every time.
    """
    if not engine.supports_filter or not len(queries):
        return
    rng, everything = np.random.default_rng(0), batch_engine(engine)
    extra = 1 if (own >= 0).any() else 0
    for share in SELECTIVITIES:
        allowed_rows = _drawn_rows(rng, engine.count, share)
        if kept is None and vectors.count == engine.count:
            deep = exact_search(vectors, queries, max(ks), engine.metric, own, allowed_rows=allowed_rows)
        else:
            among = allowed_rows.rows() if kept is None else kept[allowed_rows.rows()]
            deep = exact_search(vectors, queries, max(ks), engine.metric, own, among=among)
        for k in ks:
            _, found, how = everything.search_with_strategy(queries, k + extra, allowed_rows=allowed_rows)
            found = without_own(found, own, k)
            if kept is not None:
                found = np.where(found >= 0, kept[np.maximum(found, 0)], -1)
            depths = np.minimum(k, deep.available)
            truth = truth_among(vectors, queries, deep.rows, k, engine.metric, own, depths=depths)
            recall = measure(truth, found, vectors, queries).recall
            yield FewRows(k, share, allowed_rows.matching, tuple(recall.round(6).tolist()), how.value)


def _drawn_rows(rng: np.random.Generator, count: int, share: float) -> RowSet:
    """This share of `count` rows, one at least. Drawn slice by slice, as many of each: memory is a bit for each row."""
    if count * share <= _SLICE_ROWS:
        return RowSet.of_rows(rng.choice(count, max(1, round(share * count)), replace=False), count)
    parts, done = [], 0
    for start in range(0, count, _SLICE_ROWS):
        size = min(_SLICE_ROWS, count - start)
        chosen = np.zeros(size, np.bool_)
        chosen[rng.choice(size, round(share * (start + size)) - done, replace=False)] = True
        done += int(chosen.sum())
        parts.append(np.packbits(chosen, bitorder="little"))
    return RowSet(np.concatenate(parts), count)


def drawn(count: int, most: int = QUERIES) -> Rows:
    """Which of `count` queries are asked: `most` at most, the same every time, rising."""
    return np.sort(np.random.default_rng(0).choice(count, min(most, count), replace=False))


def joined(parts: Sequence[Sequence[FewRows]]) -> tuple[FewRows, ...]:
    """The same questions to several indexes, each of which lacks other rows, as one."""
    together: dict[tuple[int, float], list[FewRows]] = {}
    for one in (one for part in parts for one in part):
        together.setdefault((one.k, one.selectivity), []).append(one)
    return tuple(
        FewRows(k, share, same[0].rows, tuple(value for one in same for value in one.recall), same[0].search)
        for (k, share), same in together.items()
    )


def filtered_recall(
    engine: Engine,
    vectors: VectorFile,
    queries: Queries,
    k: int,
    confidence: float,
    built: Sequence[FewRows] | None = None,
) -> tuple[FilteredRecall, ...]:
    """One row per selectivity, at the default point; none if the engine cannot restrict.

    built: what the build asked of the index before it held the queries. None: the queries are asked now. They are a
    user's, of which those that equal a row are left out, or rows of an artifact that did not leave any out.
    """
    if not engine.supports_filter:
        return ()
    fresh = np.flatnonzero(queries.own_rows < 0)
    asked = (fresh if len(fresh) else np.arange(len(queries.vectors)))[drawn(len(fresh) or len(queries.vectors))]
    vectors_asked, own = queries.vectors[asked], queries.own_rows[asked]
    if built is None:
        built = list(ask_few_rows(engine, vectors, vectors_asked, own, [k]))
    found = []
    for one in built:
        if one.k == k and one.recall:
            recall = np.array(one.recall)
            found.append(
                FilteredRecall(
                    selectivity=one.selectivity,
                    rows=one.rows,
                    queries=len(recall),
                    recall=float(recall.mean()),
                    recall_low=lower_bound(recall, confidence),
                    search=one.search,
                    query_us=_latency(engine, vectors_asked, k, one.selectivity),
                )
            )
    return tuple(found)


def _latency(engine: Engine, queries: npt.NDArray[np.float32], k: int, share: float) -> float:
    """Mean microseconds of one query here; the rows were searched before, as those of a repeated filter were."""
    allowed_rows = _drawn_rows(np.random.default_rng(0), engine.count, share)
    engine.search(queries[:1], k, allowed_rows=allowed_rows)
    began, done = time.perf_counter(), 0
    for number in range(min(LATENCY_CALLS, len(queries))):
        engine.search(queries[number : number + 1], k, allowed_rows=allowed_rows)
        done += 1
        if time.perf_counter() - began > LATENCY_SECONDS:
            break
    return (time.perf_counter() - began) / done * 1e6
