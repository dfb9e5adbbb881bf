"""A router that asks one pod of every shard, simulated: how long a query waits, by the rule of second requests.

Shards have two pods each, a pod works on one request at a time, first come first served. A first request goes to the
pod that has fewer of them; what is asked again goes to the other one, and what lost is worked on to its end, as nobody
tells a pod that an answer is no longer wanted. Queries come at random moments. Network and the router's own work are
not in it. Times are in any unit, as the service times that are drawn from.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SHARE, BURST = 0.05, 10.0
"""Second requests for each first one, and how many may be saved up, of a shard or for each shard of a common budget."""
SAMPLE, LEAST_SAMPLE, RECKON_EVERY = 512, 64, 64
"""Latencies that a moment is reckoned from, as serve/route/pods.py does: the last ones, again after so many more."""


class Of(StrEnum):
    """Whose latencies say what is slow."""

    SHARD = "the shard"
    ALL = "all shards"
    QUICKEST = "the shard's quickest pod"


@dataclass(frozen=True, slots=True)
class Rule:
    """When a second pod is asked."""

    name: str
    quantile: float | None = 0.95
    """Of latencies: what takes longer is asked again. None: nothing is."""
    of: Of = Of.SHARD
    """Whose latencies the quantile is of."""
    least: float = 0.0
    """In medians: what takes less is never asked again."""
    common_budget: bool = False
    """Shards spend from one purse, not each from its own."""
    soonest: bool = False
    """A first request goes to the pod that will answer it the soonest, by its requests and the median of its last
    latencies (`of` must be QUICKEST); else to the one with fewer requests."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What pods do beside their work. All pods pause: `pause_share` of the time, `pause` long each. `slow`: the times
    of these pods, by shard and number, are multiplied."""

    name: str
    pause: float = 0.0
    pause_share: float = 0.0
    stalled: float = 0.0
    """Share of single searches that take `stall` times as long."""
    stall: float = 10.0
    slow: tuple[tuple[int, int, float], ...] = ()
    skew: float = 0.0
    """Times are multiplied by exp(skew x a normal deviate)."""


@dataclass(frozen=True, slots=True)
class Found:
    """latencies: of each query, [n]. again: second requests for each first one; worst: of the shard with most."""

    latencies: Floats
    again: float
    worst: float

    def quantile(self, at: float) -> float:
        return float(np.quantile(self.latencies, at))


@dataclass(slots=True)
class Pod:
    """One searcher."""

    factor: float
    pauses: Iterator[tuple[float, float]]
    paused: tuple[float, float] = (float("inf"), float("inf"))
    free_at: float = 0.0
    waiting: int = 0

    def end_of(self, now: float, takes: float) -> float:
        """When a request is answered that comes now and takes so long."""
        begin = max(self.free_at, now)
        while self.paused[1] <= begin:
            self.paused = next(self.pauses)
        begin = max(begin, self.paused[1]) if self.paused[0] <= begin else begin
        end = begin + takes * self.factor
        while self.paused[1] <= begin:
            self.paused = next(self.pauses)
        while self.paused[0] < end:
            end += self.paused[1] - self.paused[0]
            self.paused = next(self.pauses)
        self.free_at = end
        return end


@dataclass(slots=True)
class Moment:
    """Of the last latencies: after which one asks again, and their median."""

    quantile: float
    least: float = 0.0
    size: int = SAMPLE
    every: int = RECKON_EVERY
    after: float | None = None
    median: float = 0.0
    took: deque[float] = field(init=False)
    since: int = 0

    def __post_init__(self) -> None:
        self.took = deque(maxlen=self.size)

    def tell(self, seconds: float) -> None:
        self.took.append(seconds)
        self.since += 1
        if self.since >= self.every and len(self.took) >= LEAST_SAMPLE:
            self.since = 0
            known, last = sorted(self.took), len(self.took) - 1
            self.median = known[last // 2]
            self.after = max(known[int(self.quantile * last)], self.least * self.median)


@dataclass(slots=True)
class Purse:
    """Second requests that first ones have earned."""

    share: float
    burst: float
    held: float = 1.0

    def earn(self) -> None:
        self.held = min(self.burst, self.held + self.share)


@dataclass(slots=True)
class Query:
    """One that is not answered."""

    since: float
    missing: set[int]
    others: dict[int, int] = field(default_factory=dict)
    """The pod of a shard that was not asked."""


_BEGIN, _REPLY, _MOMENT = range(3)


class FanOut:
    """One run. `busy`: share of its time that a pod works on first requests, without troubles."""

    def __init__(self, shards: int, rule: Rule, trouble: Trouble, times: Floats, busy: float, seed: int = 1) -> None:
        self._rng = np.random.default_rng(seed)
        self._shards, self._rule, self._trouble = shards, rule, trouble
        self._times, self._between = times, float(times.mean()) * np.exp(trouble.skew**2 / 2) / (2 * busy)
        factors = {(shard, number): factor for shard, number, factor in trouble.slow}
        self._pods = [[Pod(factors.get((s, n), 1.0), self._pauses()) for n in range(2)] for s in range(shards)]
        for pods in self._pods:
            for pod in pods:
                pod.paused = next(pod.pauses)
        kept = {Of.ALL: 1, Of.SHARD: shards, Of.QUICKEST: 2 * shards}[rule.of]
        more = 1 + (rule.of is Of.ALL) * (shards - 1)
        made = [Moment(rule.quantile or 1.0, rule.least, SAMPLE * more, RECKON_EVERY * more) for _ in range(kept)]
        self._moments = [[made[(2 * s + n) * kept // (2 * shards)] for n in range(2)] for s in range(shards)]
        purse = Purse(SHARE, BURST * shards)
        self._purses = [purse if rule.common_budget else Purse(SHARE, BURST) for _ in range(shards)]
        self._again = [0] * shards
        self._events: list[tuple[float, int, int, int, int, int, float]] = []
        self._queries: dict[int, Query] = {}
        self._number = 0
        self._drawn: Iterator[float] = iter(())

    def run(self, queries: int) -> Found:
        """So many queries, the first tenth of which is not counted: moments are not known yet."""
        begins = np.cumsum(self._rng.exponential(self._between, queries)).tolist()
        latencies = []
        for number, when in enumerate(begins):
            self._at(when, _BEGIN, number)
        while self._events:
            now, _, kind, number, shard, chosen, since = heapq.heappop(self._events)
            if kind == _BEGIN:
                self._begin(number, now)
            elif kind == _MOMENT:
                self._moment(number, shard, now)
            else:
                self._pods[shard][chosen].waiting -= 1
                self._moments[shard][chosen].tell(now - since)
                if self._replied(number, shard) and number >= queries // 10:
                    latencies.append(now - begins[number])
        return Found(np.array(latencies), sum(self._again) / (queries * self._shards), max(self._again) / queries)

    def _begin(self, number: int, now: float) -> None:
        query = self._queries[number] = Query(now, set(range(self._shards)))
        hedges = self._rule.quantile is not None
        for shard, pods in enumerate(self._pods):
            loads = [float(pod.waiting) for pod in pods]
            if self._rule.soonest:
                loads = [(load + 1) * moment.median for load, moment in zip(loads, self._moments[shard], strict=True)]
            chosen = number % 2 if loads[0] == loads[1] else int(loads[1] < loads[0])
            query.others[shard] = 1 - chosen
            self._purses[shard].earn()
            self._send(number, shard, chosen, now)
            after = [moment.after for moment in self._moments[shard] if moment.after is not None]
            if hedges and after:
                self._at(now + min(after), _MOMENT, number, shard)

    def _moment(self, number: int, shard: int, now: float) -> None:
        query = self._queries.get(number)
        if query is None or shard not in query.missing:
            return
        purse = self._purses[shard]
        if purse.held < 1.0:
            return
        purse.held -= 1.0
        self._again[shard] += 1
        self._send(number, shard, query.others[shard], now)

    def _replied(self, number: int, shard: int) -> bool:
        """Whether that was the last."""
        query = self._queries.get(number)
        if query is None or shard not in query.missing:
            return False
        query.missing.discard(shard)
        if not query.missing:
            del self._queries[number]
            return True
        return False

    def _send(self, number: int, shard: int, chosen: int, now: float) -> None:
        pod = self._pods[shard][chosen]
        pod.waiting += 1
        end = pod.end_of(now, self._draw())
        self._at(end, _REPLY, number, shard, chosen, now)

    def _at(self, when: float, kind: int, number: int, shard: int = 0, chosen: int = 0, since: float = 0.0) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, kind, number, shard, chosen, since))

    def _draw(self) -> float:
        drawn = next(self._drawn, None)
        if drawn is None:
            some = self._rng.choice(self._times, 50_000) * np.exp(
                self._trouble.skew * self._rng.standard_normal(50_000)
            )
            some[self._rng.random(len(some)) < self._trouble.stalled] *= self._trouble.stall
            self._drawn = iter(some.tolist())
            drawn = next(self._drawn)
        return drawn

    def _pauses(self) -> Iterator[tuple[float, float]]:
        trouble, at = self._trouble, 0.0
        rng = np.random.default_rng(self._rng.integers(1 << 32))
        while trouble.pause_share:
            at += float(rng.exponential(trouble.pause / trouble.pause_share))
            yield at, at + trouble.pause
            at += trouble.pause
        while True:
            yield float("inf"), float("inf")
