"""Operating points: search parameters with their measured recall and latency, and which of them to publish.

Measured on held-out rows through the engine that will serve, found by `parameter_search`. Times are CPU time of the
calling thread, so neighbours on the machine disturb them little; between parameters of which one set undercuts the
other no clock is asked at all (`effort`). Never changes the index.
"""

from __future__ import annotations

import bisect
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...contract import OperatingPoint
from ..engine import Engine
from ..threads import available_cores
from .effort import undercuts
from .parameter_search import Grid, find_cheapest

CONSERVATIVE_RECALL = 0.99
K = 10
FRONTIER_POINTS = 12
MIN_GAIN = 0.0003
"""Recall that is nearer to the best one than this is as good."""
LATENCY_ROUNDS = 4
LATENCY_QUERIES = 60
"""Queries of one round; fewer when they take longer than LATENCY_SECONDS of CPU time."""
LATENCY_SECONDS = 0.1

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
    """Search the parameters and choose; with `fixed` ones (within engine.param_limits) measure those alone.

    queries: float32 [n, d] for latency. recalls: per-query recall@10 at given parameters. bound: lower bound of a mean.
    The default point is the cheapest whose recall is at least `objective` plus two half-widths (mean minus bound), so a
    re-test on fresh queries passes too; if none reaches that, the one with the best recall, for the gate to judge.
    """
    looks = _Looks(engine.with_threads(1), queries, recalls, bound)
    if fixed:
        only = looks.timed(fixed)
        return Tuning(only, only if only.recall >= CONSERVATIVE_RECALL else None, (only,))
    grid = Grid.of(engine.param_limits, engine.parameter_grid())
    default = find_cheapest(grid, lambda params: _spare(looks.at(params), objective), looks.timed)
    if default is None:
        default = _best(grid, looks)
    conservative = _conservative(grid, looks)
    for params in _up_to((default, conservative or _best(grid, looks)), grid):
        looks.timed(params)
    return Tuning(default, conservative, _frontier(looks.times))


class _Looks:
    """What was measured so far: recall where the search looked, time only where it matters."""

    def __init__(self, single: Engine, queries: npt.NDArray[np.float32], recalls: Recalls, bound: Bound) -> None:
        self._single, self._queries, self._recalls, self._bound = single, queries, recalls, bound
        self._seen: dict[_Key, OperatingPoint] = {}
        self._timed: dict[_Key, OperatingPoint] = {}

    def at(self, params: Mapping[str, int]) -> OperatingPoint:
        """Recall at these parameters; the time is 0."""
        key = tuple(sorted(params.items()))
        if key not in self._seen:
            values = self._recalls(params)
            mean = float(values.mean()) if len(values) else 1.0
            low = self._bound(values)
            self._seen[key] = OperatingPoint(params=dict(params), recall=mean, recall_low=low, latency_us=0.0)
        return self._seen[key]

    def timed(self, params: Mapping[str, int]) -> OperatingPoint:
        """As `at`, with the time of a query."""
        key = tuple(sorted(params.items()))
        if key not in self._timed:
            latency = _latency(self._single, self._queries, params)
            self._timed[key] = self.at(params).model_copy(update={"latency_us": latency})
        return self._timed[key]

    @property
    def times(self) -> list[OperatingPoint]:
        """The points that have a time."""
        return list(self._timed.values())

    @property
    def best(self) -> OperatingPoint:
        """The point of the highest recall so far."""
        return max(self._seen.values(), key=lambda point: point.recall)


_Key = tuple[tuple[str, int], ...]


def _spare(point: OperatingPoint, objective: float) -> float:
    return point.recall - min(1.0, objective + 2 * (point.recall - point.recall_low))


def _best(grid: Grid, looks: _Looks) -> OperatingPoint:
    """The cheapest point of the highest recall that the search saw, or as good as it."""
    best = looks.best
    found = find_cheapest(grid, lambda params: looks.at(params).recall - best.recall + MIN_GAIN, looks.timed)
    return found or looks.timed(best.params)


def _conservative(grid: Grid, looks: _Looks) -> OperatingPoint | None:
    """The cheapest point proven to reach CONSERVATIVE_RECALL, else the best that reaches it on average, else None."""
    proven = find_cheapest(grid, lambda params: looks.at(params).recall_low - CONSERVATIVE_RECALL, looks.timed)
    if proven is not None:
        return proven
    return _best(grid, looks) if looks.best.recall >= CONSERVATIVE_RECALL else None


def _up_to(ends: Iterable[OperatingPoint], grid: Grid) -> Iterator[dict[str, int]]:
    """Parameters for the frontier: from the least effort up to each end, with the end's refine factor."""
    if grid.main is None:
        yield from (grid.params(0, factor) for factor in grid.factors)
        return
    for end in ends:
        inside = [effort for effort in grid.efforts if effort <= end.params[grid.main]]
        wanted = np.geomspace(inside[0], inside[-1], FRONTIER_POINTS)
        for effort in dict.fromkeys(inside[bisect.bisect_right(inside, value + 0.5) - 1] for value in wanted):
            yield grid.params(effort, end.params.get("k_factor", 0))


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
