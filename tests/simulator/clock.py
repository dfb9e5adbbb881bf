"""Simulated time: a heap of things to do, run in order. Nothing here sleeps."""

from __future__ import annotations

import heapq
from collections.abc import Callable

START = 1_800_000_000.0


class Clock:
    """`now` moves only when the next thing is run."""

    def __init__(self) -> None:
        self.now = START
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def __call__(self) -> float:
        return self.now

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self.now + seconds, self._count, act))

    def next_at(self) -> float:
        return self._heap[0][0] if self._heap else float("inf")

    def step(self) -> None:
        """Run the next thing."""
        at, _, act = heapq.heappop(self._heap)
        self.now = max(self.now, at)
        act()

    def run_until(self, time: float) -> None:
        """Run everything that is due by `time`, and be there."""
        while self.next_at() <= time:
            self.step()
        self.now = max(self.now, time)
