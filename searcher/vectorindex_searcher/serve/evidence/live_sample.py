"""A bounded uniform sample of the live queries and their answers: what live recall is measured on.

Every query draws a number; the smallest ones stay. One list holds the smallest of all queries, so it is a uniform
sample of the traffic, and one per segment holds that segment's, so a segment of a hundredth of the traffic is judged
too. Knows no index and no truth. Thread-safe: searches offer from their threads.
"""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ... import contract

if TYPE_CHECKING:  # it opens FAISS, which a router has not
    from ...index.selection.rowset import RowSet

ROUND_SECONDS = 30.0
"""A round lasts at least this long; longer while the scan before it goes on."""
FEWEST_QUERIES = 64
"""Reading the vectors for fewer queries is not worth it."""
CAPACITY = 1000
"""Queries in a sample, all segments together."""
DEPTH = 100
"""Recall looks at the first answers up to this many: a larger k would cost more than it tells."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """One query as it was answered. `overall`: part of the uniform sample of all queries, not only of its segment."""

    bucket: int
    """Of the time when it was answered."""
    segment: str
    vector: npt.NDArray[np.float32]
    """[dimension], as the user gave it."""
    rows: npt.NDArray[Any]
    """Its answers, best first, at most DEPTH: rows, -1 where the index found none; of a router ids, None where there
    is none. Its length is the k that is judged."""
    draw: float
    """Uniform in [0, 1): the smaller ones of a sample are a smaller uniform sample."""
    overall: bool = False
    live: RowSet | None = None
    """Rows that could be answered then (None: all): ids deleted since were right, and new ones could not be found."""


_Heap = list[tuple[float, int, Sampled]]


class LiveSample:
    """Collects one round. `clock`: unix seconds, the same as the evidence ring's."""

    def __init__(
        self,
        segments: Sequence[str],
        capacity: int = CAPACITY,
        clock: Callable[[], float] = time.time,
        live: Callable[[], RowSet | None] = lambda: None,
    ) -> None:
        """live: the rows that may be answered now."""
        self._clock, self._live = clock, live
        names = tuple(dict.fromkeys((*segments, contract.OTHER_SEGMENT)))
        # With one segment all and segment are the same queries; otherwise half is for all, half is shared out.
        self._room = capacity if len(names) == 1 else capacity // 2
        self._room_each = 0 if len(names) == 1 else max(1, capacity // 2 // len(names))
        self._names = names
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._start()

    def _start(self) -> None:
        self.started = self._clock()
        self._all: _Heap = []
        self._of: dict[str, _Heap] = {name: [] for name in self._names}
        self._limits = dict.fromkeys(self._names, 1.0)
        """Draws at or above this need not be offered."""

    def offer(self, segment: str, vectors: npt.NDArray[np.float32], k: int, rows: npt.NDArray[np.int64]) -> None:
        """Consider the queries of one request: vectors float32 [n, dimension], answers rows int64 [n, k]."""
        self.offer_each(segment, vectors, lambda number: rows[number, : min(k, DEPTH)])

    def offer_each(
        self, segment: str, vectors: npt.NDArray[np.float32], answers: Callable[[int], npt.NDArray[Any]]
    ) -> None:
        """As `offer`; the answers to a query are asked for where it is drawn."""
        limit = self._limits.get(segment, 0.0)
        draws = [random.random()] if len(vectors) == 1 else np.random.random(len(vectors)).tolist()  # noqa: S311
        for number, draw in enumerate(draws):
            if draw < limit:
                self._take(segment, vectors[number], answers(number), draw)

    def _take(self, segment: str, vector: npt.NDArray[np.float32], rows: npt.NDArray[Any], draw: float) -> None:
        live = self._live()
        if live is not None and not live.holds(rows[rows >= 0]).all():
            return  # answered before these ids were deleted
        with self._lock:
            bucket = int(self._clock()) // contract.BUCKET_SECONDS
            item = Sampled(bucket, segment, vector.copy(), rows.copy(), draw, live=live)
            entry = (-draw, next(self._numbers), item)
            limit = max(_keep(self._all, entry, self._room), _keep(self._of[segment], entry, self._room_each))
            self._limits[segment] = limit

    def put(self, item: Sampled) -> None:
        """One of another process's sample of the same round."""
        with self._lock:
            entry = (-item.draw, next(self._numbers), item)
            if item.overall:
                _keep(self._all, entry, self._room)
            _keep(self._of[item.segment], entry, self._room_each)

    def take(self) -> tuple[list[Sampled], int]:
        """The sample of this round, which ends, and the bucket in which the next one begins: now."""
        with self._lock:
            overall = {number for _, number, _ in self._all}
            items = {number: item for heap in (self._all, *self._of.values()) for _, number, item in heap}
            self._start()
            bucket = int(self.started) // contract.BUCKET_SECONDS
        return [replace(item, overall=number in overall) for number, item in items.items()], bucket


def _keep(heap: _Heap, entry: tuple[float, int, Sampled], room: int) -> float:
    """Put the entry into the heap of the `room` smallest draws; returns the draw that no longer gets in."""
    if room == 0:
        return 0.0
    if len(heap) < room:
        heapq.heappush(heap, entry)
        return 1.0 if len(heap) < room else -heap[0][0]
    heapq.heappushpop(heap, entry)
    return -heap[0][0]


def smaller(sample: Sequence[Sampled], share: float) -> list[Sampled]:
    """A uniform part of a sample: of all queries and of each segment the `share` with the smallest draws."""
    groups: dict[str, list[Sampled]] = {}
    for item in sample:
        groups.setdefault(item.segment, []).append(item)
    overall = sorted(item.draw for item in sample if item.overall)
    cut = overall[int(len(overall) * share) - 1] if int(len(overall) * share) else -1.0
    kept: list[Sampled] = []
    for items in groups.values():
        items.sort(key=lambda item: item.draw)
        enough = max(1, int(len(items) * share))
        kept += [
            replace(item, overall=item.overall and item.draw <= cut)
            for at, item in enumerate(items)
            if at < enough or (item.overall and item.draw <= cut)
        ]
    return kept
