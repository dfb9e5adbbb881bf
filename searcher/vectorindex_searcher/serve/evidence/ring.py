"""The evidence ring: what happened to queries, per segment, in 5-second buckets of the last hour, and since the start.

The counting rules are those of contract.EvidenceBucket. /v1/evidence and /metrics both read from here, so they cannot
disagree. Everything is preallocated; a query costs a few additions, whatever happened before. Confined to the event
loop: no method may be called from another thread.
"""

from __future__ import annotations

import math
import secrets
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import contract
from ..http.head import Credential

SLOTS = contract.RING_SECONDS // contract.BUCKET_SECONDS
BINS = contract.LATENCY_BINS
RESULT_EDGES = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Upper edges (inclusive) of the results-per-query histogram."""
_BIN_EDGES = [contract.LATENCY_BIN_RATIO**b for b in range(BINS)]
_RESULT_BINS = [bisect_left(RESULT_EDGES, hits) for hits in range(RESULT_EDGES[-1] + 1)]
"""By number of hits; looked up for every query."""
_QUERIES, _ERRORS, _REFUSED, _ZERO, _TOP, _REQUESTS, _FAILED, _MISMATCHED = range(8)
_COUNTS = 8
_COUNTERS = ("queries", "errors", "refused", "zero_results", "top_count", "requests", "failed_requests", "mismatched")
"""Their names in contract.EvidenceBucket."""
_SUM, _SQUARES = range(2)
_SUMS = ("top_sum", "top_sum_squares")
_LATER = (
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
_LATER_COUNTERS = tuple(_FIELDS[name] for name in _LATER)
_LIVE, _LIVE_SUM, _WIDE = range(3)
_TRACKED, _DEPTHS, _CLICKED, _GAINS, _DEPTH_TOP = range(5, 10)

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


def latency_bin(seconds: float) -> int:
    """The bin of a duration, by contract.LATENCY_BIN_RATIO."""
    return max(bisect_right(_BIN_EDGES, seconds * 1e6) - 1, 0)


_REFUSALS = frozenset((501, 503, 505))
"""Beside 4xx: what says nothing about the revision."""


@dataclass(slots=True)
class Outcome:
    """What became of one request. `top_scores`: first hits' scores, also those below minScore."""

    segment: str
    queries: int = 1
    deadline: float = math.inf
    """Seconds that the client allowed; looked at only when they ran out (504)."""
    hits: Sequence[int] = ()
    """Hits at or above minScore, for each query that was answered."""
    top_scores: Sequence[float] = ()
    tracked: tuple[int, int] | None = None
    """Bucket and k, when its queries got ids."""
    sender: Credential | str = ""
    """Token or address that asked, where live queries are kept."""
    ignored: tuple[str, ...] = ()
    """Search parameters that it named and this index has not."""


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


class _Counts:
    """One segment in the current bucket. Python numbers: adding to a numpy element costs ten times as much."""

    __slots__ = ("counts", "latency", "sums")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.counts = [0] * _COUNTS
        self.sums = [0.0, 0.0]
        self.latency: dict[int, int] = {}


class EvidenceRing:
    """Counts of every declared segment and `other`."""

    def __init__(self, segments: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        """`clock`: unix seconds."""
        self.segments = tuple(dict.fromkeys((*segments, contract.OTHER_SEGMENT)))
        self.codes: Counter[tuple[str, int]] = Counter()
        """Answers by (segment, HTTP status) since the start."""
        self._index = {name: number for number, name in enumerate(self.segments)}
        self._other = self._index[contract.OTHER_SEGMENT]
        self._clock = clock
        width = len(self.segments)
        self._current = [_Counts() for _ in self.segments]
        self._bucket = -1
        """The bucket of `_current`."""
        self._ends = -math.inf
        """When it ends, unix seconds."""
        self._bucket_of = np.full(SLOTS, -1, dtype=np.int64)
        self._counts = np.zeros((SLOTS, width, _COUNTS), dtype=np.int64)
        self._sums = np.zeros((SLOTS, width, 2), dtype=np.float64)
        self._latency = np.zeros((SLOTS, width, BINS), dtype=np.uint32)
        self._later = np.zeros((SLOTS, width, len(_LATER)), dtype=np.float64)
        self._all_later = np.zeros((width, len(_LATER)), dtype=np.float64)
        self.live_before: int | None = None
        """See contract.Evidence."""
        self.incarnation = secrets.token_hex(8)
        self._version = 0
        """Counts changes of slots; each slot remembers the last of its own."""
        self._changed = np.zeros(SLOTS, dtype=np.int64)
        self._touched = False
        """Whether the current bucket changed since it was written to its slot."""
        # Since the start, without the current bucket.
        self._past_counts = np.zeros((width, _COUNTS), dtype=np.int64)
        self._past_sums = np.zeros((width, 2), dtype=np.float64)
        self._past_latency = np.zeros((width, BINS), dtype=np.int64)
        # Since the start; not part of the evidence, so not in buckets.
        self._latency_sums = [0.0] * width
        self._results = [[0] * len(RESULT_EDGES) for _ in self.segments]
        self._result_sums = [0] * width

    def now(self) -> float:
        """The pod's clock, unix seconds."""
        return self._clock()

    def record(self, outcome: Outcome, status: int, seconds: float) -> None:
        """Count one answered request: each of its queries was answered after `seconds`.

        A refused request is one refusal whatever it carried: its vectors were never looked at. A wrong dimension or
        another embedding (422) is one too, counted apart: an index keeps its embedding, so the client's is wrong.
        So is a method or a version of HTTP that nobody speaks here (501, 505): strangers can send these.
        A deadline (504) that was too short for any revision is a refusal, but its time counts as latency: the answer
        took at least that long. Latency can so be told too short for such queries and never too long.
        """
        if self._clock() >= self._ends:
            self._advance()
        self._touched = True
        segment = self.number(outcome.segment)
        self.codes[self.segments[segment], status] += 1
        current = self._current[segment]
        if 400 <= status < 500 or status in _REFUSALS:
            current.counts[_MISMATCHED if status == 422 else _REFUSED] += 1
            return
        queries = outcome.queries
        number = latency_bin(seconds)
        current.latency[number] = current.latency.get(number, 0) + queries
        self._latency_sums[segment] += seconds * queries
        if status == 504 and outcome.deadline < contract.DEADLINE_FLOOR_SECONDS:
            current.counts[_REFUSED] += 1
            return
        current.counts[_REQUESTS] += 1
        current.counts[_QUERIES] += queries
        if status >= 400:
            current.counts[_FAILED] += 1
            current.counts[_ERRORS] += queries
            return
        self._record_hits(segment, current, outcome)
        if outcome.tracked is not None:
            bucket, k = outcome.tracked
            self.record_tracked(bucket, outcome.segment, k, queries)

    def _record_hits(self, segment: int, current: _Counts, outcome: Outcome) -> None:
        results = self._results[segment]
        for hits in outcome.hits:
            if hits == 0:
                current.counts[_ZERO] += 1
            results[_RESULT_BINS[hits] if hits < len(_RESULT_BINS) else -1] += 1
            self._result_sums[segment] += hits
        current.counts[_TOP] += len(outcome.top_scores)
        for score in outcome.top_scores:
            current.sums[_SUM] += score
            current.sums[_SQUARES] += score * score

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

    def number(self, segment: str) -> int:
        """A segment's place in `segments`; undeclared ones are `other`."""
        return self._index.get(segment, self._other)

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
        """Move to the current bucket. A clock that steps back stays in the newest bucket until it has caught up."""
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

    def cursor(self, version: int) -> str:
        """The inverse of `version_of`."""
        return f"{self.incarnation}.{version}"

    def changes(self, after: int, since: float) -> tuple[int, list[tuple[int, int]]]:
        """The version now, and what changed after `after` in buckets from `since` on: (version, slot), in order."""
        self._advance()
        self._store()
        first = max(int(since // contract.BUCKET_SECONDS), self._bucket - SLOTS + 1)
        slots = np.flatnonzero((self._changed > after) & (self._bucket_of >= first))
        ordered = slots[np.argsort(self._changed[slots])]
        return self._version, list(zip(self._changed[ordered].tolist(), ordered.tolist(), strict=True))

    def rows(self, slot: int) -> Iterator[tuple[int, int, dict[str, float], Ints, Ints]]:
        """What each segment of a slot holds: bucket, segment, counters by name, bins and counts of the histogram."""
        held = self._counts[slot].any(axis=1) | self._later[slot].any(axis=1)
        for segment in np.flatnonzero(held).tolist():
            counters = dict(zip(_COUNTERS, self._counts[slot, segment].tolist(), strict=True))
            counters |= zip(_SUMS, self._sums[slot, segment].tolist(), strict=True)
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
        first = max(int(since // contract.BUCKET_SECONDS), self._bucket - SLOTS + 1)
        wanted = [int(b) for b in np.sort(self._bucket_of) if b >= first]
        for bucket in wanted:
            slot = bucket % SLOTS
            if self._bucket_of[slot] != bucket:
                continue  # overwritten while the caller paused
            for segment, name in enumerate(self.segments):
                if self._counts[slot, segment, :_MISMATCHED].any() or self._later[slot, segment].any():
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
            for name, value in zip(_LATER, later.tolist(), strict=True)
            if value
        }
        return known | {
            "bucket": bucket,
            "segment": name,
            "requests": counts[_REQUESTS],
            "failedRequests": counts[_FAILED],
            "queries": counts[_QUERIES],
            "errors": counts[_ERRORS],
            "refused": counts[_REFUSED],
            "zeroResults": counts[_ZERO],
            "topCount": counts[_TOP],
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
                requests=row[_REQUESTS],
                failed_requests=row[_FAILED],
                queries=row[_QUERIES],
                errors=row[_ERRORS],
                refused=row[_REFUSED],
                mismatched=row[_MISMATCHED],
                zero_results=row[_ZERO],
                top_count=row[_TOP],
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


def latency_edge(number: int) -> float:
    """Lower edge of latency bin `number`, seconds."""
    return contract.LATENCY_BIN_RATIO**number / 1e6
