"""What the order of a cross-encoder gains: labelled queries in words are answered in the order of their vectors and in
its own, and both are compared query by query.

It has all the time that it wants: whether the budget is enough only traffic tells (RerankedShare).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..contract import Gain, RerankProof, RerankTask
from ..errors import BadData
from ..index.engine import Engine
from ..progress import step
from ..text.encoder import EncoderError
from ..text.open import open_reranker
from ..text.reordering import order_of, refuse_column
from ..text.reranker import Reranker
from .bound import lower_bound
from .filtered import drawn
from .filtered_queries import by_filter
from .measure import Params, reciprocal_rank, right_answers, served_answers
from .points import Halves
from .queries import Queries

MOST = 1000
"""Queries that are reordered: each costs as many calls of the model as it has candidates."""
NDCG_DEPTH = 10
_SIDE = 0.975
"""Of each end of an interval of 95 %."""
_log = logging.getLogger(__name__)

Numbers = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reordered:
    """What users get with a cross-encoder."""

    relevance: Values
    """[n]: reciprocal rank of each query's first right answer; of those that it would reorder and that were not drawn
    NaN, and of those that tuned as they were."""
    proof: RerankProof


def measure_reranked(
    task: RerankTask,
    engine: Engine,
    queries: Queries,
    rows: Numbers,
    halves: Halves,
    params: Params,
    work: Path,
) -> Reordered:
    """Reorder the answers of labelled queries in words, of those that judge. rows: [n, k], as the vectors have them;
    params: of each segment. What equals a row is reordered, and not counted in the gain.

    Raises BadSpec/RerankColumn, BadData/RerankerFailed, and what open_reranker raises.
    """
    refuse_column(engine.metadata_columns, task)
    assert queries.relevant is not None  # only labelled queries are reordered
    assert queries.texts is not None
    judging = np.union1d(halves.overall, halves.filtered)
    asked = np.concatenate([judging, halves.apart, *halves.judging.values()])
    labelled = [number for number in np.unique(asked).tolist() if queries.relevant[number] and queries.texts[number]]
    eligible = np.array(labelled, np.int64)
    chosen = eligible[drawn(len(eligible), MOST)]
    model, held = open_reranker(task, work, 0)
    try:
        step("reranking")
        found, seconds = _reordered(model, task, engine, queries.of(chosen), rows.shape[1], params)
    except EncoderError as error:
        remedy = "Name another model."
        raise BadData("RerankerFailed", str(error), field="spec.searcher.rerank.onnx", remedy=remedy) from None
    finally:
        held.close()
    right = [queries.relevant[number] for number in chosen]
    before, after = (right_answers(engine, one, right) for one in (rows[chosen], found))
    relevance = reciprocal_rank(right_answers(engine, rows, queries.relevant))
    relevance[eligible] = np.nan
    relevance[chosen] = reciprocal_rank(after)
    counts = np.isin(chosen, judging)
    labels = np.array([len(one) for one in right], np.int64)[counts]
    proof = RerankProof(
        queries=int(counts.sum()),
        mrr=gain(reciprocal_rank(before[counts]), reciprocal_rank(after[counts])),
        ndcg=gain(ndcg(before[counts], labels), ndcg(after[counts], labels)),
        p95_ms=round(float(np.percentile(seconds, 95)) * 1e3, 3) if len(seconds) else 0.0,
        bytes=model.nbytes,
    )
    _log.info("reranking compared", extra=proof.wire())
    return Reordered(relevance, proof)


def gain(without: Values, reranked: Values) -> Gain:
    """Means of what each query found in one order and in the other, both [n] in [0, 1], and the interval of the mean
    difference: by the bound of recall (bound.py), so it holds for any number of queries and whatever their values."""
    difference = reranked - without
    return Gain(
        without=_mean(without),
        reranked=_mean(reranked),
        low=round(2 * lower_bound((1 + difference) / 2, _SIDE) - 1, 6),
        high=round(1 - 2 * lower_bound((1 - difference) / 2, _SIDE), 6),
    )


def ndcg(right: npt.NDArray[np.bool_], labels: Numbers) -> Values:
    """nDCG [n] of the first NDCG_DEPTH answers. right: [n, k], whether each is right; labels: [n], how many right ones
    there are, at least one."""
    shown = right[:, :NDCG_DEPTH]
    weights = 1 / np.log2(np.arange(NDCG_DEPTH) + 2)
    best = np.cumsum(weights)[np.clip(labels, 1, NDCG_DEPTH) - 1]
    value: Values = shown @ weights[: shown.shape[1]] / best
    return value


def _mean(values: Values) -> float:
    return round(float(values.mean()), 6) if len(values) else 0.0


def _reordered(
    model: Reranker, task: RerankTask, engine: Engine, queries: Queries, k: int, params: Params
) -> tuple[Numbers, Sequence[float]]:
    """Rows [m, k] in the new order, as a pod answers them, and the seconds that each query took."""
    wide = _candidates(engine, queries, max(k, task.candidates), params)
    found, seconds = np.full((len(wide), k), -1, np.int64), []
    assert queries.texts is not None
    for number, text in enumerate(queries.texts):
        there = wide[number][wide[number] >= 0]
        began = time.perf_counter()
        order = order_of(model, task, engine, text, there)
        seconds.append(time.perf_counter() - began)
        assert order is not None  # it has no deadline
        line = there[order][:k]
        found[number, : len(line)] = line
    return found, seconds


def _candidates(engine: Engine, queries: Queries, depth: int, params: Params) -> Numbers:
    """Rows [m, depth] by their vectors, among those that each query's filter keeps."""
    rows = np.full((len(queries.vectors), depth), -1, np.int64)
    plain = np.flatnonzero(~queries.filtered)
    groups = [(None, plain), *((engine.matching(one), at) for one, at in by_filter(queries, np.arange(len(rows))))]
    for allowed, places in groups:
        if len(places):
            some = queries.of(places)
            rows[places] = served_answers(
                engine, some.vectors, depth, some.own_rows, some.segments, params, allowed_rows=allowed
            )
    return rows
