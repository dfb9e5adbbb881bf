"""What one search process counted since it last said so, and how the ring of its pod takes it.

A search process keeps no ring: it counts as the ring does, and hands on what is new a few times a second. The ring adds
it to the bucket in which it was counted. Sums do not depend on who was first, so the pod's evidence is what one process
would have counted. Everything here is plain numbers, lists and names, fit for JSON.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ... import contract
from .recorder import RESULT_EDGES, Recorder

SEGMENTS_AT_ONCE = 4
"""In one increment, so that a message that carries it has a bound: 384 bins each at most."""
_ENTRIES_AT_ONCE = 128
"""Of codes and of tracked queries."""


@dataclass(frozen=True, slots=True)
class SegmentCounts:
    """What was added to one segment of a bucket. `latency`: bin and queries, alternating."""

    segment: int
    counts: list[int]
    sums: list[float]
    latency: list[int]
    latency_sum: float
    results: list[int]
    result_sum: int


@dataclass(frozen=True, slots=True)
class Increment:
    """What was added to one bucket. `codes`: segment, status and answers; `tracked`: bucket, segment, k and queries.
    Segments are numbers: their names may be long."""

    bucket: int
    rows: list[SegmentCounts] = field(default_factory=list)
    codes: list[tuple[int, int, int]] = field(default_factory=list)
    tracked: list[tuple[int, int, int, int]] = field(default_factory=list)

    def wire(self) -> list[object]:
        """As JSON has it."""
        rows = [[r.segment, r.counts, r.sums, r.latency, r.latency_sum, r.results, r.result_sum] for r in self.rows]
        return [self.bucket, rows, self.codes, self.tracked]

    @classmethod
    def of(cls, wire: Sequence[object]) -> Increment:
        """The inverse of `wire`, of what another process of this pod said."""
        bucket, rows, codes, tracked = wire
        assert isinstance(bucket, int)
        assert isinstance(rows, list)
        assert isinstance(codes, list)
        assert isinstance(tracked, list)
        made = [SegmentCounts(*row) for row in rows]
        return cls(bucket, made, [tuple(code) for code in codes], [tuple(one) for one in tracked])


class IncrementRecorder(Recorder):
    """Counts as the ring does, and keeps what is not yet handed on."""

    def __init__(self, segments: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        super().__init__(segments, clock)
        self._tracked: dict[tuple[int, int, int], int] = {}
        self._passed: list[Increment] = []
        """Of buckets that have passed since."""

    def record_tracked(self, bucket: int, segment: str, k: int, count: int) -> None:
        """As Recorder."""
        self._touched = True
        key = (bucket, self.number(segment), k)
        self._tracked[key] = self._tracked.get(key, 0) + count

    def take(self) -> list[Increment]:
        """What was counted since the last call, oldest bucket first."""
        self._advance()
        self._cut()
        taken, self._passed = self._passed, []
        return taken

    def _advance(self) -> None:
        bucket = int(self._clock()) // contract.BUCKET_SECONDS
        if bucket <= self._bucket:
            return
        self._cut()
        self._bucket = bucket
        self._ends = (bucket + 1) * contract.BUCKET_SECONDS

    def _cut(self) -> None:
        """Put what was counted in the current bucket aside, and begin from nothing."""
        if not self._touched:
            return
        self._touched = False
        rows = [self._row(number) for number, one in enumerate(self._current) if one.latency or any(one.counts)]
        codes = [(self.number(segment), status, count) for (segment, status), count in self.codes.items()]
        tracked = [(*key, count) for key, count in self._tracked.items()]
        self.codes.clear()
        self._tracked.clear()
        some, few = SEGMENTS_AT_ONCE, _ENTRIES_AT_ONCE
        pieces = max(-(-len(rows) // some), -(-max(len(codes), len(tracked)) // few))
        for at in range(pieces):
            lines = slice(at * few, at * few + few)
            piece = rows[at * some : at * some + some]
            self._passed.append(Increment(self._bucket, piece, codes[lines], tracked[lines]))

    def _row(self, number: int) -> SegmentCounts:
        """What a segment counted, which begins from nothing."""
        current = self._current[number]
        row = SegmentCounts(
            segment=number,
            counts=current.counts,
            sums=current.sums,
            latency=[value for pair in current.latency.items() for value in pair],
            latency_sum=self._latency_sums[number],
            results=self._results[number],
            result_sum=self._result_sums[number],
        )
        current.clear()
        self._latency_sums[number] = 0.0
        self._results[number] = [0] * len(RESULT_EDGES)
        self._result_sums[number] = 0
        return row
