"""Operating points of segments: tuned on one half of a segment's queries, judged on the other, served as published.

A point is the cheapest whose recall on the tuning half is at least the segment's target plus two half-widths, by the
rule that `build` has for the default point. A segment with too few queries for two halves keeps the default point, and
all its queries are judged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..contract import SEGMENT_QUERIES, OperatingPoint
from ..index.choose.tuning import batch_engine, tune
from ..index.engine import Engine
from ..index.vectors import VectorFile
from .bound import lower_bound
from .exact import Truth
from .measure import answers, measure
from .queries import Queries
from .report import SegmentPoint


@dataclass(frozen=True, slots=True)
class Halves:
    """Which queries tune and which judge."""

    tuning: Mapping[str, npt.NDArray[np.int64]]
    """Tuned segment -> numbers of its tuning queries, sorted."""
    judging: Mapping[str, npt.NDArray[np.int64]]
    """Segment with queries -> numbers of those that judge it: the other half when it is tuned, else all."""
    overall: npt.NDArray[np.int64]
    """Numbers of the queries that judge all segments together. Once a segment is tuned, half of every class, so that
    the classes keep the shares that the user gave them."""


def split(classes: Sequence[str] | None, count: int, targets: Mapping[str, float]) -> Halves:
    """Draw the halves. classes: class of each of `count` queries. The same queries give the same halves every time.

    A segment of `targets` is tuned when both halves have SEGMENT_QUERIES at least.
    """
    if classes is None:
        return Halves({}, {}, np.arange(count))
    names = np.array(classes)
    members = {str(name): np.flatnonzero(names == name) for name in np.unique(names)}
    halves = {name: _halve(name, numbers) for name, numbers in members.items()}
    tuned = {name for name in targets if len(members.get(name, ())) >= 2 * SEGMENT_QUERIES}
    judging = {name: halves[name][1] if name in tuned else numbers for name, numbers in members.items()}
    parts = [second for _, second in halves.values()] if tuned else list(members.values())
    return Halves({name: halves[name][0] for name in sorted(tuned)}, judging, np.sort(np.concatenate(parts)))


def _halve(name: str, numbers: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Two random halves; the second, which judges, has the odd one."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    drawn = np.random.default_rng(seed).permutation(numbers)
    return np.sort(drawn[: len(drawn) // 2]), np.sort(drawn[len(drawn) // 2 :])


def tune_segment(
    engine: Engine,
    vectors: VectorFile,
    queries: Queries,
    truth: Truth,
    chosen: npt.NDArray[np.int64],
    target: float,
    confidence: float,
) -> OperatingPoint:
    """The cheapest point whose recall@k on the `chosen` queries is `target` plus two half-widths, else the best one."""
    everything = batch_engine(engine)
    mine, own, part = queries.vectors[chosen], queries.own_rows[chosen], truth.of(chosen)

    def recalls(params: Mapping[str, int]) -> npt.NDArray[np.float64]:
        return measure(part, answers(everything, mine, truth.k, own, params), vectors, mine).recall

    tuned = tune(engine, mine, recalls, lambda values: lower_bound(values, confidence), target)
    return tuned.default


def segment_points(
    engine: Engine,
    vectors: VectorFile,
    queries: Queries,
    truth: Truth,
    halves: Halves,
    segments: Sequence[str],
    targets: Mapping[str, float],
    confidence: float,
) -> tuple[SegmentPoint, ...]:
    """The point of every declared segment, in their order."""

    def of(name: str) -> SegmentPoint:
        target, chosen = targets.get(name), halves.tuning.get(name)
        if target is None or chosen is None:
            reason = _why_not(engine, target, len(halves.judging.get(name, ())))
            default = engine.manifest.default_point
            return SegmentPoint(segment=name, tuned=False, reason=reason, target=target, point=default)
        point = tune_segment(engine, vectors, queries, truth, chosen, target, confidence)
        return SegmentPoint(segment=name, tuned=True, target=target, queries=len(chosen), point=point)

    return tuple(of(name) for name in segments)


def _why_not(engine: Engine, target: float | None, found: int) -> str:
    if not engine.param_limits:
        return "this kind of index has no search parameters"
    if target is None:
        return "no target, or no queries that name segments"
    return f"{found} queries; {2 * SEGMENT_QUERIES} are needed to tune on one half and judge the other"
