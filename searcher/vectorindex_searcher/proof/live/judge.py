"""Live queries tune and judge: what stable's users ask, in two halves by the hash of what was asked.

Half of them may ask for a wider search than the gate's own queries did, the other half is a class of its own. Each
sender is one voice in either (senders.py): a search becomes wider, and a revision is held, where senders show that
they are answered worse than they should be. No file that is kept holds a query, and none of them is in the canary; nor
are their exact neighbours kept.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ...contract import (
    FEWEST_LIVE_SENDERS,
    FEWEST_QUERIES,
    LIVE_KEY_ENV,
    LIVE_QUERIES,
    LIVE_SAME_AS_A_ROW,
    OTHER_SEGMENT,
    Metric,
    OperatingPoint,
    SegmentRecall,
    ValidateTask,
)
from ...index.choose.tuning import batch_engine, tune
from ...index.engine import Engine
from ...index.vectors import VectorFile
from ..exact import Truth, exact_search, no_truth
from ..measure import measure, served_answers
from ..points import Numbers, Tuner
from ..queries import Queries
from ..report import Points
from ..same import asking_the_same, rows_that_equal
from .ask import ask_pods
from .kept import KeptQueries
from .report import LiveReport
from .sample import LiveQuery
from .senders import Voices

MOST_AT_OWN_K = 300
"""Queries that are asked for as many answers as they asked for: an exact search for a thousand takes longer."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LiveQueries:
    """Those of one case, before the artifact is opened. Empty where there are too few."""

    told: LiveReport
    queries: tuple[LiveQuery, ...] = ()


def live_queries(task: ValidateTask, kept: KeptQueries, dimension: int, metric: Metric) -> LiveQueries:
    """What stable's users asked: as an earlier try of this Job wrote it, else asked now and written."""
    source = task.live
    assert source is not None
    if not source.revision:
        return LiveQueries(LiveReport(reason="there is no stable revision whose users ask anything"))
    if not source.addresses:
        return LiveQueries(LiveReport(reason=f"no pod of {source.revision} was there to be asked"))
    queries, told = kept.read(), LiveReport()
    if queries is None:
        asked = ask_pods(source, dimension, metric, os.environ.get(LIVE_KEY_ENV, ""))
        # Pods may make segments up, or know some that are no more: what is served is then what other queries are.
        known = set(task.segments)
        queries = [one if one.segment in known else replace(one, segment=OTHER_SEGMENT) for one in asked.sample]
        told = LiveReport(pods=asked.pods, problems=tuple(asked.problems[:8]))
        if asked.asked is not None:
            told = told.model_copy(update=asked.asked.model_dump())
        if len(queries) >= source.min_queries:
            queries = kept.write(queries)
    told = _described(told, queries, task)
    _log.info("live queries", extra={"queries": told.queries, "senders": told.senders, "pods": told.pods})
    if len(queries) < source.min_queries:
        why = f"{len(queries)} live queries, gate.queries.live.minQueries is {source.min_queries}"
        if told.problems and not told.pods:
            why = f"no pod of {source.revision} told its live queries: {told.problems[0]}"[:200]
        return LiveQueries(told.model_copy(update={"reason": why}), tuple(queries))
    return LiveQueries(_with_enough(told, told.senders), tuple(queries))


def _with_enough(told: LiveReport, senders: int) -> LiveReport:
    """Judged, if there are enough senders that none of them decides."""
    if senders >= FEWEST_LIVE_SENDERS:
        return told.model_copy(update={"judged": True})
    why = f"not enough senders: live queries of {senders}, {FEWEST_LIVE_SENDERS} at least judge, so that no one decides"
    return told.model_copy(update={"judged": False, "reason": why})


def _described(told: LiveReport, queries: Sequence[LiveQuery], task: ValidateTask) -> LiveReport:
    senders: dict[bytes, int] = {}
    for query in queries:
        senders[query.sender] = senders.get(query.sender, 0) + 1
    return told.model_copy(
        update={
            "queries": len(queries),
            "senders": len(senders),
            "largest_share": round(max(senders.values(), default=0) / max(1, len(queries)), 4),
            "hours": len({query.hour for query in queries}),
            "deeper": sum(query.k > task.k for query in queries),
        }
    )


def _besides(told: LiveReport, given: int, left: Numbers, task: ValidateTask) -> LiveReport:
    """What is told when those of the senders `left` [n] are left, `given` having been given as well."""
    least = task.live.min_queries if task.live is not None else 0
    if told.judged and len(left) < least:
        why = f"{len(left)} live queries besides those that were given, gate.queries.live.minQueries is {least}"
        told = told.model_copy(update={"judged": False, "reason": why})
    elif told.judged:
        told = _with_enough(told, len(np.unique(left)))
    return told.model_copy(update={"given": given})


@dataclass(frozen=True, slots=True)
class Live:
    """Live queries with what is right for them."""

    told: LiveReport
    queries: Queries
    truth: Truth
    tunes: npt.NDArray[np.bool_]
    """Half of those that equal no row."""
    ks: Numbers
    """How many answers each asked for."""
    senders: Numbers
    """A number of this run for who asked each."""

    @classmethod
    def of(
        cls, found: LiveQueries, vectors: VectorFile, task: ValidateTask, given: npt.NDArray[np.float32] | None = None
    ) -> Live:
        """Find their neighbours, which nobody keeps. given: queries that are judged as such, and not here, too."""
        ordered = sorted(found.queries, key=lambda query: query.name)
        flat = np.frombuffer(b"".join(query.vector for query in ordered), "<f4")
        asked = flat.reshape(len(ordered), vectors.dimension).astype(np.float32)
        before = np.empty((0, vectors.dimension), np.float32) if given is None else given
        # What asks the same is in one half, whoever asks it: the half of the first, by another part of its name than
        # the one that draws.
        first = asking_the_same(np.concatenate([before, asked]), vectors.metric)[len(before) :] - len(before)
        once = {(ordered[number].segment, one): number for number, one in reversed(list(enumerate(first))) if one >= 0}
        chosen = np.sort(np.fromiter(once.values(), np.int64, len(once)))
        known = {sender: number for number, sender in enumerate(sorted({query.sender for query in ordered}))}
        senders = np.array([known[ordered[number].sender] for number in chosen], np.int64)
        told = _besides(found.told, int((first < 0).sum()), senders, task)
        asked, segments = asked[chosen], [ordered[number].segment for number in chosen]
        if not len(chosen):
            queries = Queries(asked, chosen, segments)
            return cls(told, queries, no_truth(task.k), np.empty(0, np.bool_), chosen, senders)
        own = rows_that_equal(vectors, asked)
        truth = exact_search(vectors, asked, task.k, vectors.metric, own)
        half = np.array([ordered[first[number]].name[-1] & 1 for number in chosen], np.bool_)
        ks = np.array([ordered[number].k for number in chosen])
        return cls(told, Queries(asked, own, segments), truth, half & (own < 0), ks, senders)

    def _tuning(self, task: ValidateTask, engine: Engine) -> Numbers:
        if not (self.told.judged and task.objective is not None and engine.param_limits):
            return np.empty(0, np.int64)
        return np.flatnonzero(self.tunes)

    def widened(self, engine: Engine, vectors: VectorFile, points: Points, task: ValidateTask) -> Points:
        """The points, each as wide as live queries ask for, and never narrower than it was."""
        numbers = self._tuning(task, engine)
        if not len(numbers) or task.objective is None:
            return points
        tuner = Tuner(engine, vectors, self.queries, self.truth, task.sure)
        classes = np.array(self.queries.segments)[numbers]
        own = {row.segment for row in points.segments if row.tuned}
        default = self._wider(tuner, points.default, numbers[~np.isin(classes, sorted(own))], task.objective)
        rows = tuple(
            row.model_copy(
                update={
                    "point": self._wider(
                        tuner, row.point, numbers[classes == row.segment], row.target or task.objective
                    )
                    if row.tuned
                    else default
                }
            )
            for row in points.segments
        )
        if default != points.default or rows != points.segments:
            _log.info("live queries ask for a wider search", extra={"queries": len(numbers), "params": default.params})
        return points.model_copy(update={"default": default, "segments": rows})

    def _wider(self, tuner: Tuner, point: OperatingPoint, numbers: Numbers, target: float) -> OperatingPoint:
        """The point, where senders do not show that it misses the target; else one that is wider in some parameter, and
        reaches it in the mean of all senders but the one that is answered worst."""
        senders = self.senders[numbers]
        if len(numbers) < FEWEST_QUERIES or len(np.unique(senders)) < FEWEST_LIVE_SENDERS:
            return point
        measured = tuner.recalls(numbers)

        def voices(params: Mapping[str, int]) -> Voices:
            return Voices.of(measured(params), senders)

        if voices(point.params).high >= target:
            return point
        queries = tuner.queries.vectors[numbers]
        asked = tune(tuner.engine, queries, lambda params: voices(params).means[1:], _mean, target).default
        params = {name: max(value, point.params.get(name, 0)) for name, value in asked.params.items()}
        if params == dict(point.params):
            return point
        return tune(tuner.engine, queries, lambda params: voices(params).means, _low, 0.0, fixed=params).default

    def measured(self, engine: Engine, vectors: VectorFile, points: Points, task: ValidateTask) -> LiveReport:
        """What they are answered, each at the point of its segment."""
        if not len(self.queries.vectors):
            return self.told
        everything = batch_engine(engine.with_default(points.default.params))
        asked, own = self.queries.vectors, self.queries.own_rows
        rows = served_answers(everything, asked, task.k, own, self.queries.segments, points.params)
        recall = measure(self.truth, rows, vectors, asked).recall
        tuned = np.zeros(len(asked), np.bool_)
        tuned[self._tuning(task, engine)] = True
        judging, same = ~tuned & (own < 0), own >= 0
        names = np.array(self.queries.segments)

        def row(name: str, chosen: npt.NDArray[np.bool_]) -> SegmentRecall:
            return _row(name, recall[chosen], self.senders[chosen])

        by_segment = [
            row(name, judging & (names == name)) for name in task.segments if (judging & (names == name)).any()
        ]
        report = self.told.model_copy(
            update={
                "tuning": int(tuned.sum()),
                "recall": row(LIVE_QUERIES, judging),
                "at_own_k": self._at_own_k(everything, vectors, points, task, judging),
                "same_as_a_row": row(LIVE_SAME_AS_A_ROW, same) if same.any() else None,
                "segments": tuple(by_segment),
            }
        )
        return (
            report if report.rows or not report.judged else _with_enough(report, len(np.unique(self.senders[judging])))
        )

    def _at_own_k(
        self,
        engine: Engine,
        vectors: VectorFile,
        points: Points,
        task: ValidateTask,
        judging: npt.NDArray[np.bool_],
    ) -> SegmentRecall | None:
        """Recall of those that ask for more than the gate's k: the first k of more answers are not what k are, and the
        last ones are harder to find."""
        chosen = np.flatnonzero(judging & (self.ks > task.k))[:MOST_AT_OWN_K]
        if not len(chosen):
            return None
        depths, asked = np.minimum(self.ks[chosen], vectors.count), self.queries.vectors[chosen]
        names, none = np.array(self.queries.segments)[chosen], np.full(len(chosen), -1)
        rows = np.full((len(chosen), int(depths.max())), -1, np.int64)
        for k in np.unique(depths).tolist():
            mine = depths == k
            rows[mine, :k] = served_answers(engine, asked[mine], k, none[mine], names[mine].tolist(), points.params)
        truth = exact_search(vectors, asked, int(depths.max()), vectors.metric, depths=depths)
        recall = measure(truth, rows, vectors, asked).recall
        return _row(f"{LIVE_QUERIES}, at their own k", recall, self.senders[chosen])


def _row(name: str, recall: npt.NDArray[np.float64], senders: Numbers) -> SegmentRecall:
    if not len(recall):
        return SegmentRecall(segment=name, queries=0, recall=0.0, recall_low=0.0)
    voices = Voices.of(recall, senders)
    return SegmentRecall(
        segment=name,
        queries=len(recall),
        recall=voices.mean,
        recall_low=voices.low,
        recall_high=voices.high,
        senders=len(voices),
    )


def _mean(means: npt.NDArray[np.float64]) -> float:
    """In the place of a bound: no spare is asked for."""
    return float(means.mean())


def _low(means: npt.NDArray[np.float64]) -> float:
    return Voices(means).low
