"""Counting answered requests: by the rules of contract.EvidenceBucket, per segment, in the bucket that it is now.

What becomes of a bucket that has passed is the business of who keeps it: the ring (ring.py), or a search process that
hands its counts on (increments.py). Confined to one event loop: no method may be called from another thread.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ... import contract
from ..http.head import Credential

BINS = contract.LATENCY_BINS
RESULT_EDGES = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Upper edges (inclusive) of the results-per-query histogram."""
_BIN_EDGES = [contract.LATENCY_BIN_RATIO**b for b in range(BINS)]
_RESULT_BINS = [bisect_left(RESULT_EDGES, hits) for hits in range(RESULT_EDGES[-1] + 1)]
"""By number of hits; looked up for every query."""
(
    QUERIES, ERRORS, REFUSED, ZERO, TOP, REQUESTS, FAILED, MISMATCHED, FILTERED, FILTERED_ZERO, COMPARED, LOST,
    RERANKABLE, RERANKED, FRESH,
) = range(15)  # fmt: skip
"""Places of a segment's counts. From MISMATCHED on: in columns only."""
COUNTERS = (
    "queries", "errors", "refused", "zero_results", "top_count", "requests", "failed_requests", "mismatched",
    "filtered_queries", "filtered_zero_results", "filters_compared", "filters_lost", "rerankable_queries",
    "reranked_queries", "fresh_queries",
)  # fmt: skip
"""Their names in contract.EvidenceBucket."""
SUM, SQUARES = range(2)
SUMS = ("top_sum", "top_sum_squares")
_REFUSALS = frozenset((501, 503, 505))
"""Beside 4xx: what says nothing about the revision."""


def latency_bin(seconds: float) -> int:
    """The bin of a duration, by contract.LATENCY_BIN_RATIO."""
    return max(bisect_right(_BIN_EDGES, seconds * 1e6) - 1, 0)


def latency_edge(number: int) -> float:
    """Lower edge of latency bin `number`, seconds."""
    return contract.LATENCY_BIN_RATIO**number / 1e6


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
    filtered: bool = False
    """It has a filter, which was taken."""
    lost: bool = False
    """It has a filter, which was refused although the revision before took it."""
    compared: bool = False
    """Whether it is known what that one took."""
    reranked: bool | None = None
    """Whether its answer is in the order of the cross-encoder; None: nobody was to reorder it."""
    fresh: int = 0
    """Of its queries, those with a fresh row among their hits."""
    incomplete: bool = False
    """Shards are missing by a fault: an error of the index, whether it was answered without them or refused."""
    excused: bool = False
    """It was answered without shards that had too much to do, or that its client gave no time: a refusal of theirs,
    which is none of the revision."""


class Counts:
    """One segment in the current bucket. Python numbers: adding to a numpy element costs ten times as much."""

    __slots__ = ("counts", "latency", "sums")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.counts = [0] * len(COUNTERS)
        self.sums = [0.0, 0.0]
        self.latency: dict[int, int] = {}

    def add(self, counts: Sequence[int], sums: Sequence[float], latency: Sequence[int]) -> None:
        """`latency`: bin and queries, alternating."""
        self.counts = [mine + more for mine, more in zip(self.counts, counts, strict=True)]
        self.sums = [mine + more for mine, more in zip(self.sums, sums, strict=True)]
        for number, queries in zip(latency[::2], latency[1::2], strict=True):
            self.latency[number] = self.latency.get(number, 0) + queries


class Recorder(ABC):
    """Counts of every declared segment and `other` in the current bucket, and what is only added up."""

    def __init__(self, segments: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        """`clock`: unix seconds."""
        self.segments = tuple(dict.fromkeys((*segments, contract.OTHER_SEGMENT)))
        self.codes: Counter[tuple[str, int]] = Counter()
        """Answers by (segment, HTTP status)."""
        self._index = {name: number for number, name in enumerate(self.segments)}
        self._other = self._index[contract.OTHER_SEGMENT]
        self._clock = clock
        self._current = [Counts() for _ in self.segments]
        self._bucket = -1
        """The bucket of `_current`."""
        self._ends = -math.inf
        """When it ends, unix seconds."""
        self._touched = False
        """Whether the current bucket changed since somebody looked at it."""
        # Not part of the evidence, so not in buckets.
        self._latency_sums = [0.0 for _ in self.segments]
        self._results = [[0] * len(RESULT_EDGES) for _ in self.segments]
        self._result_sums = [0 for _ in self.segments]

    @abstractmethod
    def _advance(self) -> None:
        """Move to the current bucket. A clock that steps back stays in the newest bucket until it has caught up."""

    @abstractmethod
    def record_tracked(self, bucket: int, segment: str, k: int, count: int) -> None:
        """`count` queries with `k` answers each got an id; see contract.EvidenceBucket."""

    def now(self) -> float:
        """The pod's clock, unix seconds."""
        return self._clock()

    def number(self, segment: str) -> int:
        """A segment's place in `segments`; undeclared ones are `other`."""
        return self._index.get(segment, self._other)

    def record(self, outcome: Outcome, status: int, seconds: float) -> None:
        """Count one answered request: each of its queries was answered after `seconds`.

        A refused request is one refusal whatever it carried: its vectors were never looked at. A wrong dimension or
        another embedding (422) is one too, counted apart: an index keeps its embedding, so the client's is wrong.
        So is a method or a version of HTTP that nobody speaks here (501, 505): strangers can send these.
        A deadline (504) that was too short for any revision is a refusal, but its time counts as latency: the answer
        took at least that long. Latency can so be told too short for such queries and never too long.
        """
        segment = self.record_code(outcome.segment, status)
        current = self._current[segment]
        if not outcome.incomplete and (outcome.excused or 400 <= status < 500 or status in _REFUSALS):
            current.counts[MISMATCHED if status == 422 else REFUSED] += 1
            if outcome.lost:
                current.counts[COMPARED] += 1
                current.counts[LOST] += 1
            return
        queries = outcome.queries
        number = latency_bin(seconds)
        current.latency[number] = current.latency.get(number, 0) + queries
        self._latency_sums[segment] += seconds * queries
        if status == 504 and outcome.deadline < contract.DEADLINE_FLOOR_SECONDS:
            current.counts[REFUSED] += 1
            return
        current.counts[REQUESTS] += 1
        current.counts[QUERIES] += queries
        if outcome.filtered and outcome.compared:
            current.counts[COMPARED] += 1
        if status >= 400 or outcome.incomplete:
            current.counts[FAILED] += 1
            current.counts[ERRORS] += queries
            return
        self._record_hits(segment, current, outcome)
        if outcome.tracked is not None:
            bucket, k = outcome.tracked
            self.record_tracked(bucket, outcome.segment, k, queries)

    def record_code(self, segment: str, status: int) -> int:
        """Count an answer by its status alone, which is no evidence; the place of its segment."""
        if self._clock() >= self._ends:
            self._advance()
        self._touched = True
        number = self.number(segment)
        self.codes[self.segments[number], status] += 1
        return number

    def _record_hits(self, segment: int, current: Counts, outcome: Outcome) -> None:
        results = self._results[segment]
        for hits in outcome.hits:
            if hits == 0:
                current.counts[ZERO] += 1
            results[_RESULT_BINS[hits] if hits < len(_RESULT_BINS) else -1] += 1
            self._result_sums[segment] += hits
        if outcome.filtered:
            current.counts[FILTERED] += len(outcome.hits)
            current.counts[FILTERED_ZERO] += outcome.hits.count(0)
        if outcome.reranked is not None:
            current.counts[RERANKABLE] += outcome.queries
            current.counts[RERANKED] += outcome.queries * outcome.reranked
        current.counts[FRESH] += outcome.fresh
        current.counts[TOP] += len(outcome.top_scores)
        for score in outcome.top_scores:
            current.sums[SUM] += score
            current.sums[SQUARES] += score * score
