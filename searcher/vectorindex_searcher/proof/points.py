"""Operating points by a user's queries: tuned on one half of each class, judged on the other, served as published.

A segment's point is the cheapest whose recall on the tuning half is at least the segment's target plus two half-widths,
by the rule that `build` has; the default point serves everything else, and is found the same way from the rest. A class
with too few queries for a point of its own asks for a wider default point where its mean misses its target; one with
fewer still asks for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..contract import FEWEST_QUERIES, SEGMENT_QUERIES, OperatingPoint
from ..index.choose.tuning import batch_engine, tune
from ..index.engine import Engine
from ..index.vectors import VectorFile
from .bound import lower_bound
from .exact import Truth
from .measure import answers, measure
from .queries import Queries
from .report import SegmentPoint

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Halves:
    """Which queries tune and which judge."""

    tuning: Mapping[str, Numbers]
    """Class -> numbers of its tuning queries, sorted: of every class, or of the segments with a point of their own."""
    judging: Mapping[str, Numbers]
    """Class with queries -> numbers of those that judge it: the other half when it tunes something, else all."""
    overall: Numbers
    """Numbers of the queries that judge all classes together. Once one is tuned, half of every class, so that the
    classes keep the shares that the user gave them."""
    apart: Numbers = field(default_factory=lambda: np.empty(0, np.int64))
    """Numbers of the queries that equal a row: a class of their own, in none of the others."""
    filtered: Numbers = field(default_factory=lambda: np.empty(0, np.int64))
    """Numbers of the others that have a filter: likewise."""

    def with_filtered(self, same: Numbers, filtered: Numbers, asked: Numbers) -> Halves:
        """The same, with those of the queries with a filter that were asked. same: queries that equal a row.
        What equals a row stays apart. Where nothing else judges, these judge all."""
        unasked = np.setdiff1d(filtered, asked)
        apart, others = np.setdiff1d(same, unasked), np.setdiff1d(asked, same)
        overall = self.overall if self.judging else np.union1d(apart, others)
        return replace(self, overall=overall, apart=apart, filtered=others)


def split(
    classes: Sequence[str] | None,
    marks: npt.NDArray[np.uint64],
    targets: Mapping[str, float],
    apart: npt.NDArray[np.bool_] | None = None,
    *,
    everything: bool = False,
) -> Halves:
    """Draw the halves. classes: class of each query; marks [n]: what is drawn for each by its content (same.py), so the
    same queries give the same halves every time, and one that two classes ask never tunes in one and judges in the
    other.

    A segment of `targets` is tuned when both halves have SEGMENT_QUERIES at least. apart: queries that equal a row.
    everything: the default point is tuned too, so half of every class tunes, unless there are too few of all.
    """
    aside = np.flatnonzero(apart) if apart is not None else np.empty(0, np.int64)
    names = np.array(classes if classes is not None else [""] * len(marks))
    rest = np.setdiff1d(np.arange(len(marks)), aside)
    members = {str(name): rest[names[rest] == name] for name in np.unique(names[rest])}
    tunes = _first_half(members, marks)
    halves = {name: (numbers[tunes[numbers]], numbers[~tunes[numbers]]) for name, numbers in members.items()}
    tuned = {name for name in targets if name in halves and min(map(len, halves[name])) >= SEGMENT_QUERIES}
    if everything and len(rest) >= 2 * FEWEST_QUERIES:
        tuned = set(members)
    judging = {name: halves[name][1] if name in tuned else numbers for name, numbers in members.items()}
    parts = [second for _, second in halves.values()] if tuned else list(members.values())
    overall = np.sort(np.concatenate(parts)) if parts else aside
    return Halves({name: halves[name][0] for name in sorted(tuned)}, judging, overall, aside)


def has_own(halves: Halves, targets: Mapping[str, float], name: str) -> bool:
    """Whether a segment has enough tuning queries for a point of its own."""
    return name in targets and len(halves.tuning.get(name, ())) >= SEGMENT_QUERIES


def _first_half(members: Mapping[str, Numbers], marks: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Whether each query tunes: of those that the same classes ask, the half with the lower marks.

    The odd one judges, that of the next such classes tunes: a class that shares no query with another is halved
    exactly, any other within as many as it has odd ones.
    """
    asking: dict[int, list[str]] = {}
    for name, numbers in members.items():
        for mark in np.unique(marks[numbers]).tolist():
            asking.setdefault(mark, []).append(name)
    shared: dict[tuple[str, ...], list[int]] = {}
    for mark, names in asking.items():
        shared.setdefault(tuple(names), []).append(mark)
    tuning, judged = set[int](), 0
    for _, drawn in sorted(shared.items()):
        drawn.sort()
        half = (len(drawn) + judged % 2) // 2
        judged += len(drawn) - 2 * half
        tuning.update(drawn[:half])
    return np.isin(marks, np.fromiter(tuning, np.uint64, len(tuning)))


@dataclass(frozen=True, slots=True)
class Tuner:
    """Tunes one engine by the queries of a user, whose exact neighbours are known."""

    engine: Engine
    vectors: VectorFile
    queries: Queries
    truth: Truth
    confidence: float

    def recalls(self, chosen: Numbers) -> Callable[[Mapping[str, int]], npt.NDArray[np.float64]]:
        """Recall@k of each of the chosen queries, at given parameters."""
        everything = batch_engine(self.engine)
        mine, own, part = self.queries.vectors[chosen], self.queries.own_rows[chosen], self.truth.of(chosen)

        def recalls(params: Mapping[str, int]) -> npt.NDArray[np.float64]:
            return measure(part, answers(everything, mine, part.k, own, params), self.vectors, mine).recall

        return recalls

    def point(self, chosen: Numbers, target: float, *, by_mean: bool = False) -> OperatingPoint:
        """The cheapest point whose recall on the chosen queries is `target` plus two half-widths (by_mean: the target
        itself), else the best one."""

        def bound(values: npt.NDArray[np.float64]) -> float:
            return float(values.mean()) if by_mean else lower_bound(values, self.confidence)

        return tune(self.engine, self.queries.vectors[chosen], self.recalls(chosen), bound, target).default

    def default(
        self, halves: Halves, segments: Sequence[str], targets: Mapping[str, float], objective: float
    ) -> OperatingPoint:
        """The point of all queries without one of their own: by the rule where they are many; where they are few it is
        that of the build, unless their mean asks for more. Each small segment's mean asks too, for its own target."""
        rest = [numbers for name, numbers in halves.tuning.items() if not has_own(halves, targets, name)]
        main = np.sort(np.concatenate(rest)) if rest else np.empty(0, np.int64)
        if len(main) < SEGMENT_QUERIES and halves.tuning:
            main = np.sort(np.concatenate(list(halves.tuning.values())))
        many = len(main) >= SEGMENT_QUERIES
        first = self.point(main, objective) if many else self.engine.manifest.default_point
        wishes = [
            (halves.tuning[name], targets.get(name, objective))
            for name in segments
            if not has_own(halves, targets, name) and len(halves.tuning.get(name, ())) >= FEWEST_QUERIES
        ]
        if not many and len(main) >= FEWEST_QUERIES:
            wishes.append((main, objective))
        measured = self.recalls(main)
        chosen = self._widened(first, wishes, measured)
        values = measured(chosen.params)
        low = lower_bound(values, self.confidence)
        return chosen.model_copy(update={"recall": float(values.mean()), "recall_low": low}) if len(values) else chosen

    def _widened(
        self,
        first: OperatingPoint,
        wishes: Sequence[tuple[Numbers, float]],
        measured: Callable[[Mapping[str, int]], npt.NDArray[np.float64]],
    ) -> OperatingPoint:
        """The cheapest point found that gives every wish its mean and loses nothing of the first; else the dearest."""
        means = [(self.recalls(numbers), target) for numbers, target in wishes]

        def fulfils(point: OperatingPoint) -> bool:
            return all(recalls(point.params).mean() >= target for recalls, target in means)

        if fulfils(first):
            return first
        points = [self.point(numbers, target, by_mean=True) for numbers, target in wishes]
        points = sorted((point for point in points if point.params != first.params), key=lambda one: one.latency_us)
        least = float(measured(first.params).mean())
        good = [point for point in points if fulfils(point) and float(measured(point.params).mean()) >= least]
        return (good or points[-1:] or [first])[0]

    def segment(self, name: str, halves: Halves, targets: Mapping[str, float], default: OperatingPoint) -> SegmentPoint:
        """What the segment is served with."""
        target = targets.get(name)
        if target is None or not has_own(halves, targets, name):
            reason = _why_not(self.engine, target, halves, name)
            return SegmentPoint(segment=name, tuned=False, reason=reason, target=target, point=default)
        chosen = halves.tuning[name]
        point = self.point(chosen, target)
        return SegmentPoint(segment=name, tuned=True, target=target, queries=len(chosen), point=point)


def _why_not(engine: Engine, target: float | None, halves: Halves, name: str) -> str:
    if not engine.param_limits:
        return "this kind of index has no search parameters"
    if target is None:
        return "no target, or no queries that name segments"
    tuning, judging = halves.tuning.get(name, np.empty(0)), halves.judging.get(name, np.empty(0))
    found = len(tuning) + len(judging)
    asks = ", its mean was asked for" if len(tuning) >= FEWEST_QUERIES else ""
    return f"{found} queries{asks}; {2 * SEGMENT_QUERIES} are needed to tune on one half and judge the other"
