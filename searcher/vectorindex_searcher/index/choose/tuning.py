"""Operating points: search parameters with their measured recall and latency, and which of them to publish.

Measured on held-out rows through the engine that will serve. Times are CPU time of the calling thread, so neighbours on
the machine disturb them little; between parameters of which one set undercuts the other no clock is asked at all
(`effort`). Never changes the index.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...contract import OperatingPoint
from ..engine import Engine
from ..parameters import effort_parameter
from ..threads import available_cores
from .effort import cheapest, undercuts

CONSERVATIVE_RECALL = 0.99
K = 10
FRONTIER_POINTS = 12
MIN_GAIN = 0.0003
"""A step that gains less recall than this, twice in a row, ends a sweep."""
LATENCY_ROUNDS = 4
LATENCY_QUERIES = 60
"""Queries of one round; fewer when they take longer than LATENCY_SECONDS of CPU time."""
LATENCY_SECONDS = 0.1

_LADDERS: dict[str, tuple[int, ...]] = {
    "nprobe": (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096),
    "efSearch": (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024),
    "k_factor": (1, 2, 4, 8, 16, 32, 64),
}

_KNOWN = frozenset(("nprobe", "efSearch", "k_factor", "quantizer_efSearch"))
"""Parameters with a ladder here; those of any other index come from FAISS's own parameter space."""

Recalls = Callable[[Mapping[str, int]], npt.NDArray[np.float64]]
Bound = Callable[[npt.NDArray[np.float64]], float]


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a manifest keeps: the default point, the conservative one if any, and the points no other one beats."""

    default: OperatingPoint
    conservative: OperatingPoint | None
    frontier: tuple[OperatingPoint, ...]


def tune(
    engine: Engine,
    queries: npt.NDArray[np.float32],
    recalls: Recalls,
    bound: Bound,
    objective: float,
    fixed: Mapping[str, int] | None = None,
) -> Tuning:
    """Measure a ladder of parameters and choose; with `fixed` ones (within engine.param_limits) measure those alone.

    queries: float32 [n, d] for latency. recalls: per-query recall@10 at given parameters. bound: lower bound of a mean.
    The default point is the cheapest whose recall is at least `objective` plus two half-widths (mean minus bound), so a
    re-test on fresh queries passes too; if none reaches that, the one with the best recall, for the gate to judge.
    """
    single = engine.with_threads(1)
    points: list[OperatingPoint] = []

    def try_point(params: dict[str, int]) -> OperatingPoint:
        values = recalls(params)
        point = OperatingPoint(
            params=params,
            recall=float(values.mean()) if len(values) else 1.0,
            recall_low=bound(values),
            latency_us=_latency(single, queries, params),
        )
        points.append(point)
        return point

    if fixed:
        only = try_point(dict(fixed))
        return Tuning(only, _conservative(points), (only,))
    others = {
        name: values for name, values in engine.parameter_grid().items() if name not in _KNOWN and len(values) > 1
    }
    most = {name: values[-1] for name, values in others.items()}
    for sweep in _sweeps(engine.param_limits, most):
        best_before = max((point.recall for point in points), default=-1.0)
        _sweep(sweep, try_point, objective)
        if max(point.recall for point in points) < best_before + MIN_GAIN:
            break  # a larger refine factor changed nothing any more
    for name, values in others.items():
        # One after the other: the least effort that keeps the recall. What no ladder of ours knows was at its most.
        best = _default(points, objective)
        for value in values[:-1]:
            if reaches(try_point({**best.params, name: value}), objective):
                break
    return Tuning(_default(points, objective), _conservative(points), _frontier(points))


def _default(points: list[OperatingPoint], objective: float) -> OperatingPoint:
    """The cheapest point that reaches the objective, else the one of the highest recall."""
    good = [point for point in points if reaches(point, objective)]
    return cheapest(good or _best(points))


def _best(points: list[OperatingPoint]) -> list[OperatingPoint]:
    """The points of the highest recall."""
    most = max(point.recall for point in points)
    return [point for point in points if point.recall == most]


def reaches(point: OperatingPoint, objective: float) -> bool:
    """Whether the point's recall is the objective plus two half-widths at least, or cannot be any higher."""
    return point.recall >= min(1.0, objective + 2 * (point.recall - point.recall_low))


def _conservative(points: list[OperatingPoint]) -> OperatingPoint | None:
    """The cheapest point proven to reach CONSERVATIVE_RECALL, else the best that reaches it on average, else None."""
    proven = [point for point in points if point.recall_low >= CONSERVATIVE_RECALL]
    measured = [point for point in points if point.recall >= CONSERVATIVE_RECALL]
    return cheapest(proven or _best(measured)) if measured else None


def _sweeps(limits: Mapping[str, tuple[int, int]], most: Mapping[str, int]) -> Iterator[Iterator[dict[str, int]]]:
    """Sweeps of rising recall: over nprobe or efSearch, once for each refine factor. `most` goes into every point."""
    main = effort_parameter(limits)
    factors = _ladder("k_factor", limits["k_factor"]) if "k_factor" in limits else ()
    if main is None:
        yield iter([{"k_factor": factor, **most} for factor in factors] or [dict(most)])
        return
    values = _ladder(main, limits[main])
    for factor in factors or (0,):
        yield ({**_params(main, value, factor, limits), **most} for value in values)


def _params(main: str, value: int, factor: int, limits: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    params = {main: value}
    if factor:
        params["k_factor"] = factor
    if "quantizer_efSearch" in limits:
        # The graph over the centroids must find nprobe of them; twice as many makes its own loss negligible.
        params["quantizer_efSearch"] = min(max(64, 2 * value), limits["quantizer_efSearch"][1])
    return params


def _ladder(name: str, limit: tuple[int, int]) -> tuple[int, ...]:
    least, greatest = limit
    inside = tuple(value for value in _LADDERS[name] if least <= value <= greatest)
    # All lists is exact: a small index always has a point of full recall.
    return (
        (*inside, greatest)
        if name == "nprobe" and greatest <= _LADDERS[name][-1] and greatest not in inside
        else inside
    )


def _sweep(sweep: Iterator[dict[str, int]], measure: Callable[[dict[str, int]], OperatingPoint], goal: float) -> None:
    """Measure points of rising recall until both goals are reached or recall stands still."""
    last, stalls = -1.0, 0
    for params in sweep:
        point = measure(params)
        stalls = stalls + 1 if point.recall < last + MIN_GAIN else 0
        if (reaches(point, goal) and point.recall_low >= CONSERVATIVE_RECALL) or stalls == 2 or point.recall == 1.0:
            return
        last = max(last, point.recall)


def _latency(engine: Engine, queries: npt.NDArray[np.float32], params: Mapping[str, int]) -> float:
    """Mean CPU microseconds of one query, which runs on this thread alone: that of the best round, since neighbours
    still take away caches and clock rate."""
    if not len(queries):
        return 0.0
    engine.search(queries[:1], K, params)
    numbers = itertools.cycle(range(len(queries)))
    best = float("inf")
    for _ in range(LATENCY_ROUNDS):
        began, done = time.thread_time(), 0
        for number in itertools.islice(numbers, LATENCY_QUERIES):
            engine.search(queries[number : number + 1], K, params)
            done += 1
            if time.thread_time() - began > LATENCY_SECONDS:
                break
        best = min(best, (time.thread_time() - began) / done)
    return best * 1e6


def _frontier(points: list[OperatingPoint]) -> tuple[OperatingPoint, ...]:
    """Points that no other one beats in both recall and latency, cheapest first, thinned to FRONTIER_POINTS.

    Nor one of less effort in recall alone: had it measured slower, that was noise.
    """
    best, kept = -1.0, []
    useful = [p for p in points if not any(other.recall >= p.recall and undercuts(other, p) for other in points)]
    for point in sorted(useful, key=lambda p: (p.latency_us, -p.recall)):
        if point.recall > best:
            kept.append(point)
            best = point.recall
    if len(kept) > FRONTIER_POINTS:
        kept = [kept[round(i * (len(kept) - 1) / (FRONTIER_POINTS - 1))] for i in range(FRONTIER_POINTS)]
    return tuple(kept)


def batch_engine(engine: Engine) -> Engine:
    """The engine with every core for one call."""
    return engine.with_threads(available_cores())
