"""The evidence ring: what happened to queries, per segment, in 5-second buckets of the last hour, and since the start.

The counting rules are those of contract.EvidenceBucket. /v1/evidence and /metrics both read from here, so they cannot
disagree. Everything is preallocated; a query costs a few additions, whatever happened before. Confined to the event
loop: no method may be called from another thread.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import contract
from .increments import Increment, SegmentCounts
from .recorder import (
    BINS,
    COMPARED,
    COUNTERS,
    ERRORS,
    FAILED,
    FILTERED,
    FILTERED_ZERO,
    FRESH,
    LOST,
    MISMATCHED,
    QUERIES,
    REFUSED,
    REQUESTS,
    RERANKABLE,
    RERANKED,
    SUMS,
    TOP,
    ZERO,
    Recorder,
)

SLOTS = contract.RING_SECONDS // contract.BUCKET_SECONDS
LATER = (
    "liveQueries",
    "liveRecallSum",
    "liveWide",
    "liveOverallQueries",
    "liveOverallRecallSum",
    "tracked",
    "trackedDepthSum",
    "clicked",
    "clickGainSum",
    "clickDepthTop",
)
"""What is learnt of a bucket after it has passed; the wire's names."""
_FIELDS = {field.alias: name for name, field in contract.EvidenceBucket.model_fields.items()}
_LATER_COUNTERS = tuple(_FIELDS[name] for name in LATER)
_LIVE, _LIVE_SUM, _WIDE = range(3)
_TRACKED, _DEPTHS, _CLICKED, _GAINS, _DEPTH_TOP = range(5, 10)

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(slots=True)
class LiveTally:
    """Live recall of one segment in one bucket; see contract.EvidenceBucket."""

    bucket: int
    segment: str
    queries: int = 0
    recall_sum: float = 0.0
    wide: int = 0
    overall_queries: int = 0
    overall_recall_sum: float = 0.0


@dataclass(frozen=True, slots=True)
class Totals:
    """One segment's counts since the pod started."""

    segment: str
    requests: int
    failed_requests: int
    queries: int
    errors: int
    refused: int
    mismatched: int
    zero_results: int
    filtered_queries: int
    filtered_zero_results: int
    filters_compared: int
    filters_lost: int
    rerankable_queries: int
    reranked_queries: int
    fresh_queries: int
    top_count: int
    top_sum: float
    top_sum_squares: float
    live_queries: int
    live_recall_sum: float
    live_wide: int
    tracked: int
    latency: Ints
    """Queries per bin [BINS]."""
    latency_sum: float
    """Seconds."""
    results: tuple[int, ...]
    """Answered queries per RESULT_EDGES."""
    results_sum: int


class EvidenceRing(Recorder):
    """Counts of every declared segment and `other`, of the last hour and since the start."""

    def __init__(self, segments: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        """`clock`: unix seconds."""
        super().__init__(segments, clock)
        width = len(self.segments)
        self._bucket_of = np.full(SLOTS, -1, dtype=np.int64)
        self._counts = np.zeros((SLOTS, width, len(COUNTERS)), dtype=np.int64)
        self._sums = np.zeros((SLOTS, width, 2), dtype=np.float64)
        self._latency = np.zeros((SLOTS, width, BINS), dtype=np.uint32)
        self._later = np.zeros((SLOTS, width, len(LATER)), dtype=np.float64)
        self._all_later = np.zeros((width, len(LATER)), dtype=np.float64)
        self.live_before: int | None = None
        """See contract.Evidence."""
        self.incarnation = secrets.token_hex(8)
        self._evidence_from = 0
        """The first bucket that is evidence."""
        self._version = 0
        """Counts changes of slots; each slot remembers the last of its own."""
        self._changed = np.zeros(SLOTS, dtype=np.int64)
        # Since the start, without the current bucket.
        self._past_counts = np.zeros((width, len(COUNTERS)), dtype=np.int64)
        self._past_sums = np.zeros((width, 2), dtype=np.float64)
        self._past_latency = np.zeros((width, BINS), dtype=np.int64)

    def add(self, increment: Increment) -> None:
        """Count what another process of this pod has counted, as if it had happened here."""
        self._advance()
        for segment, status, count in increment.codes:
            self.codes[self.segments[segment], status] += count
        for row in increment.rows:
            self._latency_sums[row.segment] += row.latency_sum
            self._result_sums[row.segment] += row.result_sum
            self._results[row.segment] = [a + b for a, b in zip(self._results[row.segment], row.results, strict=True)]
        if increment.bucket >= self._bucket:
            self._touched = True
            for row in increment.rows:
                self._current[row.segment].add(row.counts, row.sums, row.latency)
        elif increment.rows:
            self._add_to_passed(increment.bucket, increment.rows)
        for bucket, segment, k, count in increment.tracked:
            self.record_tracked(bucket, self.segments[segment], k, count)

    def _add_to_passed(self, bucket: int, rows: Sequence[SegmentCounts]) -> None:
        """Since the start in any case; and to the bucket, if it is not older than an hour."""
        slot = self._slot(bucket)
        if slot is not None:
            self._mark(slot)
        for row in rows:
            number, bins, queries = row.segment, row.latency[::2], row.latency[1::2]
            self._past_counts[number] += row.counts
            self._past_sums[number] += row.sums
            self._past_latency[number, bins] += np.asarray(queries, np.int64)
            if slot is not None:
                self._counts[slot, number] += row.counts
                self._sums[slot, number] += row.sums
                self._latency[slot, number, bins] += np.asarray(queries, np.uint32)

    def begin_anew(self) -> None:
        """What was counted until now, and what is yet to be learnt of it, is no evidence any more: it is of another
        operating point. What counts since the start goes on."""
        self._advance()
        self._evidence_from = self._bucket + 1
        self.incarnation = secrets.token_hex(8)

    def record_live(self, tally: LiveTally) -> None:
        """Sampled queries of a passed bucket were answered exactly. What is older than an hour is not evidence."""
        segment = self._index.get(tally.segment, self._index[contract.OTHER_SEGMENT])
        added = (tally.queries, tally.recall_sum, tally.wide, tally.overall_queries, tally.overall_recall_sum)
        self._all_later[segment, : len(added)] += added
        slot = self._slot(tally.bucket)
        if slot is not None:
            self._later[slot, segment, : len(added)] += added
            self._mark(slot)

    def record_tracked(self, bucket: int, segment: str, k: int, count: int) -> None:
        """`count` queries with `k` answers each got an id; see contract.EvidenceBucket."""
        self._record_clicks(bucket, segment, k, (count, count * (k + 1), 0, 0))

    def record_click(self, bucket: int, segment: str, k: int, rank: int) -> None:
        """The first click on an answer of a tracked query, which any pod may have answered."""
        self._record_clicks(bucket, segment, k, (0, 0, 1, k + 1 - rank))

    def _record_clicks(self, bucket: int, segment: str, k: int, added: tuple[int, int, int, int]) -> None:
        number = self.number(segment)
        rows = [self._all_later[number]]
        slot = self._slot(bucket)
        if slot is not None:
            rows.append(self._later[slot, number])
            self._mark(slot)
        for row in rows:
            row[_TRACKED:_DEPTH_TOP] += added
            row[_DEPTH_TOP] = max(row[_DEPTH_TOP], k + 1)

    def _slot(self, bucket: int) -> int | None:
        """The slot of a passed bucket, also one in which nothing happened here; None when it is older than an hour.

        One that lies ahead (another pod's clock) is the current one.
        """
        self._advance()
        bucket = min(bucket, self._bucket)
        if bucket <= self._bucket - SLOTS:
            return None
        slot = bucket % SLOTS
        if self._bucket_of[slot] != bucket:
            self._bucket_of[slot] = bucket
            for cleared in (self._counts, self._sums, self._latency, self._later):
                cleared[slot] = 0
        return slot

    def _advance(self) -> None:
        bucket = int(self._clock()) // contract.BUCKET_SECONDS
        if bucket <= self._bucket:
            return
        if self._bucket >= 0:
            slot = self._store()
            self._past_counts += self._counts[slot]
            self._past_sums += self._sums[slot]
            self._past_latency += self._latency[slot]
        self._bucket = bucket
        self._ends = (bucket + 1) * contract.BUCKET_SECONDS
        for current in self._current:
            current.clear()
        self._store()

    def _store(self) -> int:
        """Write the current bucket to its slot, over what was there an hour ago; returns the slot."""
        slot = self._bucket % SLOTS
        if self._bucket_of[slot] != self._bucket:
            self._later[slot] = 0.0
        self._bucket_of[slot] = self._bucket
        self._latency[slot] = 0
        if self._touched:
            self._mark(slot)
            self._touched = False
        for segment, current in enumerate(self._current):
            self._counts[slot, segment] = current.counts
            self._sums[slot, segment] = current.sums
            for number, queries in current.latency.items():
                self._latency[slot, segment, number] = queries
        return slot

    def _mark(self, slot: int) -> None:
        self._version += 1
        self._changed[slot] = self._version

    def version_of(self, cursor: str) -> int | None:
        """What an earlier answer told already; None: nothing of this process, so all is to be told."""
        incarnation, _, number = cursor.partition(".")
        known = incarnation == self.incarnation and number.isdecimal() and int(number[:18]) <= self._version
        return int(number[:18]) if known else None

    def cursor(self, version: int, incarnation: str) -> str:
        """The inverse of `version_of`. `incarnation`: of what was told, which may have ended since."""
        return f"{incarnation}.{version}"

    def changes(self, after: int, since: float) -> tuple[int, list[tuple[int, int]]]:
        """The version now, and what changed after `after` in buckets from `since` on: (version, slot), in order."""
        self._advance()
        self._store()
        first = self._first(since)
        slots = np.flatnonzero((self._changed > after) & (self._bucket_of >= first))
        ordered = slots[np.argsort(self._changed[slots])]
        return self._version, list(zip(self._changed[ordered].tolist(), ordered.tolist(), strict=True))

    def _first(self, since: float) -> int:
        """The first bucket that is told to who asks for those from the one on that holds unix time `since`."""
        return max(int(since // contract.BUCKET_SECONDS), self._bucket - SLOTS + 1, self._evidence_from)

    def rows(self, slot: int) -> Iterator[tuple[int, int, dict[str, float], Ints, Ints]]:
        """What each segment of a slot holds: bucket, segment, counters by name, bins and counts of the histogram."""
        held = self._counts[slot].any(axis=1) | self._later[slot].any(axis=1)
        for segment in np.flatnonzero(held).tolist():
            counters = dict(zip(COUNTERS, self._counts[slot, segment].tolist(), strict=True))
            counters |= zip(SUMS, self._sums[slot, segment].tolist(), strict=True)
            counters |= zip(_LATER_COUNTERS, self._later[slot, segment].tolist(), strict=True)
            bins = np.flatnonzero(self._latency[slot, segment])
            yield int(self._bucket_of[slot]), segment, counters, bins, self._latency[slot, segment, bins]

    def buckets(self, since: float) -> Iterator[dict[str, object]]:
        """The wire form of each contract.EvidenceBucket from the bucket that holds unix time `since` on, oldest first.

        At most an hour; the current, unfinished bucket included; buckets without any count left out. The caller may
        pause between two of them.
        """
        self._advance()
        self._store()
        first = self._first(since)
        wanted = [int(b) for b in np.sort(self._bucket_of) if b >= first]
        for bucket in wanted:
            slot = bucket % SLOTS
            if self._bucket_of[slot] != bucket:
                continue  # overwritten while the caller paused
            for segment, name in enumerate(self.segments):
                if self._counts[slot, segment, :MISMATCHED].any() or self._later[slot, segment].any():
                    yield self._wire(bucket, slot, segment, name)

    def _wire(self, bucket: int, slot: int, segment: int, name: str) -> dict[str, object]:
        counts = self._counts[slot, segment].tolist()
        sums = self._sums[slot, segment].tolist()
        latency = self._latency[slot, segment]
        bins = np.flatnonzero(latency)
        later = self._later[slot, segment]
        # Whole numbers are written as such: sums of recalls are the only ones that are not.
        known = {
            name: value if name.startswith("live") and name.endswith("Sum") else int(value)
            for name, value in zip(LATER, later.tolist(), strict=True)
            if value
        }
        return known | {
            "bucket": bucket,
            "segment": name,
            "requests": counts[REQUESTS],
            "failedRequests": counts[FAILED],
            "queries": counts[QUERIES],
            "errors": counts[ERRORS],
            "refused": counts[REFUSED],
            "zeroResults": counts[ZERO],
            "topCount": counts[TOP],
            "topSum": sums[0],
            "topSumSquares": sums[1],
            "latency": dict(zip(map(str, bins.tolist()), latency[bins].tolist(), strict=True)),
        }

    def totals(self) -> Iterator[Totals]:
        """Each segment's counts since the pod started."""
        self._advance()
        slot = self._store()
        counts = self._past_counts + self._counts[slot]
        sums = self._past_sums + self._sums[slot]
        latency = self._past_latency + self._latency[slot]
        for segment, name in enumerate(self.segments):
            row = counts[segment].tolist()
            yield Totals(
                segment=name,
                requests=row[REQUESTS],
                failed_requests=row[FAILED],
                queries=row[QUERIES],
                errors=row[ERRORS],
                refused=row[REFUSED],
                mismatched=row[MISMATCHED],
                zero_results=row[ZERO],
                filtered_queries=row[FILTERED],
                filtered_zero_results=row[FILTERED_ZERO],
                filters_compared=row[COMPARED],
                filters_lost=row[LOST],
                rerankable_queries=row[RERANKABLE],
                reranked_queries=row[RERANKED],
                fresh_queries=row[FRESH],
                top_count=row[TOP],
                top_sum=float(sums[segment, 0]),
                top_sum_squares=float(sums[segment, 1]),
                live_queries=int(self._all_later[segment, _LIVE]),
                live_recall_sum=float(self._all_later[segment, _LIVE_SUM]),
                live_wide=int(self._all_later[segment, _WIDE]),
                tracked=int(self._all_later[segment, _TRACKED]),
                latency=latency[segment],
                latency_sum=self._latency_sums[segment],
                results=tuple(self._results[segment]),
                results_sum=self._result_sums[segment],
            )
