"""Evidence and leases on a searcher's admin port."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, FailFast, Field

from .model import Model

BUCKET_SECONDS = 5
RING_SECONDS = 3600
LATENCY_BIN_RATIO = 1.05
"""Latency histogram bin b holds durations in [1.05**b, 1.05**(b+1)) microseconds; durations under 1 us are bin 0."""
LATENCY_BINS = 384
"""Bins of the histogram; the last one also holds what is longer than its upper edge (about two minutes)."""
EVIDENCE_COLUMNS_TYPE = "application/vnd.vectorindex.evidence-columns+json"
"""Media type of EvidenceColumns: who names it in Accept gets it; who does not gets the rows of Evidence."""
EVIDENCE_CURSOR_HEADER = "X-VectorIndex-Evidence-Cursor"
"""Request header: the cursor of the last answer. A header, as older searchers refuse parameters they do not know."""
EVIDENCE_ANSWER_BYTES = 2 << 20
"""An answer with evidence is never longer: the operator reads no more and takes none of what is."""
EVIDENCE_PAGE_BYTES = 1 << 20
"""About where a searcher ends a page of EvidenceColumns; the rest is asked for with its cursor."""
EVIDENCE_SEGMENTS = 33
"""Declared segments and `other`, at most."""
EVIDENCE_ROWS = RING_SECONDS // BUCKET_SECONDS * EVIDENCE_SEGMENTS
"""Rows of an answer, at most: an hour of buckets of every segment."""
DEADLINE_FLOOR_SECONDS = 0.1
"""A request that allowed less than this and was not answered in time (504) is the client's doing, not a fault of the
revision: it counts as refused. Its time still counts as latency, so a revision that is too slow shows there."""
FEEDBACK_SECONDS = 300
"""Clicks count when they come within so long after the query's bucket; click depth of later buckets is not final."""


class EvidenceBucket(Model):
    """Counts of one segment in one 5-second bucket. Additive: the sum over pods is the revision's evidence."""

    bucket: int
    """floor(unix seconds / BUCKET_SECONDS) on the pod's clock."""
    segment: str
    requests: int = 0
    """Answered requests: server's faults included; overload 503 and the client's other faults are not."""
    failed_requests: int = 0
    """Of these: server's faults (5xx but overload, 504 above the floor of DEADLINE_FLOOR_SECONDS). The unit of the
    error rate: a batch fails as a whole, so it fails once."""
    queries: int = 0
    """Queries of these requests; a request may carry several."""
    errors: int = 0
    """Queries of the failed requests."""
    refused: int = 0
    """Requests refused with a 4xx but those that are mismatched, overload 503, or 504 below the floor: no fault of the
    revision's, but what RefusalRate is made of."""
    mismatched: int = 0
    """Requests refused for a wrong dimension or another embedding (422): the client's model is another one. In
    EvidenceColumns only: operators of before would not read rows that have it."""
    zero_results: int = 0
    """Queries with no hit at or above minScore."""
    filtered_queries: int = 0
    """Queries with a filter that were answered. This and the next three are in EvidenceColumns only."""
    filtered_zero_results: int = 0
    """Of these, with no hit at or above minScore."""
    filters_compared: int = 0
    """Requests with a filter that were answered, or refused although the revision before took it (`filters_lost`).
    Nothing is compared where it is not known what that one took: see COLUMNS_BEFORE_ENV."""
    filters_lost: int = 0
    """Of these, the refused ones: a column is gone, or of another type. They are among `refused` too."""
    rerankable_queries: int = 0
    """Answered queries in words that a cross-encoder was to reorder. This and the next are in EvidenceColumns only."""
    reranked_queries: int = 0
    """Of these, the ones whose answer is in its order."""
    fresh_queries: int = 0
    """Answered queries with a fresh row among their hits. In EvidenceColumns only."""
    top_count: int = 0
    """Queries that had a first hit (whatever its score)."""
    top_sum: float = 0.0
    top_sum_squares: float = 0.0
    live_queries: int = 0
    """Sampled queries of this bucket that were answered again exactly, later: see Evidence.live_before."""
    live_recall_sum: float = 0.0
    """Sum of their recalls, each in [0, 1]; the query is the unit, since hits of one query correlate."""
    live_wide: int = 0
    """Of these, judged against a much wider search instead: too many vectors to scan. Never too low by that."""
    live_overall_queries: int = 0
    """Of these, the ones that are a uniform sample of all segments together; the others are of this segment only."""
    live_overall_recall_sum: float = 0.0
    tracked: int = 0
    """Queries of this bucket that asked for a query id."""
    tracked_depth_sum: int = 0
    """Their depths as if none were clicked: k + 1 each."""
    clicked: int = 0
    """Of the revision's tracked queries of this bucket, those whose first click came to this pod."""
    click_gain_sum: int = 0
    """What these clicks take from the depths: k + 1 - rank each. Mean depth: (trackedDepthSum - clickGainSum) / tracked
    over all pods of the revision."""
    click_depth_top: int = 0
    """The largest depth there could be: k + 1 of the largest k. The largest over buckets and pods, not the sum."""
    latency: Annotated[dict[int, int], Field(max_length=LATENCY_BINS)] = {}
    """Latency histogram, bin -> queries (see LATENCY_BIN_RATIO). Also of queries whose own deadline below the floor ran
    out: they took at least that long."""


class Evidence(Model):
    """Answer of GET /v1/evidence?since=UNIX_SECONDS."""

    pod: str
    revision: str
    now: float
    live_before: int | None = None
    """Live recall is final in buckets before this one; None: it is not measured."""
    buckets: Annotated[tuple[EvidenceBucket, ...], FailFast()]


COUNTERS = tuple(name for name in EvidenceBucket.model_fields if name not in ("bucket", "segment", "latency"))
"""Every counter of a bucket: the columns of EvidenceColumns, whose names on the wire are these in camelCase."""

FILTERED, COMPARED, RERANKABLE = LATER_COUNTERS = ("filteredQueries", "filtersCompared", "rerankableQueries")
"""Counters, by their names on the wire, that not every searcher counts: who does says so in EvidenceColumns.tells."""

_Whole = Annotated[int, Field(ge=0, le=2**53)]
_Bin = Annotated[int, Field(ge=0, lt=LATENCY_BINS)]
_Name = Annotated[str, Field(max_length=253)]
_LATENCIES = EVIDENCE_ANSWER_BYTES // 4
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Column = Annotated[list[_Number | None], Field(max_length=EVIDENCE_ROWS), FailFast()]


class EvidenceColumns(Model):
    """Answer of GET /v1/evidence to `Accept: EVIDENCE_COLUMNS_TYPE`: the same buckets as columns, what changed only.

    Row i is (bucket[i], segments[segment[i]]). A row says what the bucket holds now: it takes the place of the one that
    was told before. With the cursor of the last answer of the same process come the buckets that changed since (clicks
    and live recall change old ones); with none, or that of another process, all of them, and `whole` is true. `more`:
    the page is full, ask again with its cursor.
    """

    model_config = ConfigDict(extra="ignore")

    pod: _Name
    revision: _Name
    incarnation: Annotated[str, Field(max_length=64)]
    """Another one with each start of the process, and with each operating point: what was counted before is gone with
    it."""
    now: float
    live_before: int | None = None
    """As in Evidence."""
    cursor: Annotated[str, Field(max_length=128)]
    whole: bool
    more: bool
    tells: Annotated[tuple[_Name, ...], Field(max_length=64)] = ()
    """Which of LATER_COUNTERS this searcher counts; that the others are 0 says nothing."""
    point: Annotated[str, Field(max_length=63)] = ""
    """ServingPoint that the queries of all these buckets were answered at; empty: it changes just now, or the image has
    one point only."""
    points: Annotated[tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=8)] = ()
    """Those that it can answer at."""
    segments: Annotated[tuple[_Name, ...], Field(max_length=EVIDENCE_SEGMENTS), FailFast()]
    bucket: Annotated[list[_Whole], Field(max_length=EVIDENCE_ROWS), FailFast()]
    segment: Annotated[list[_Whole], Field(max_length=EVIDENCE_ROWS), FailFast()]
    counts: Annotated[dict[_Name, _Column], Field(max_length=64)]
    """By counter: a value for each row. One that is not there is 0 in all; null is not a number."""
    latency_sizes: Annotated[list[_Whole], Field(max_length=EVIDENCE_ROWS), FailFast()]
    """How many bins of the histogram each row has."""
    latency_bins: Annotated[list[_Bin], Field(max_length=_LATENCIES), FailFast()]
    """The bins of all rows one after the other: of a row the first, then the distance of each to the one before."""
    latency_counts: Annotated[list[_Whole], Field(max_length=_LATENCIES), FailFast()]


class LeaseState(StrEnum):
    SERVING = "Serving"
    DRAINING = "Draining"


class TrafficLease(Model):
    """Body of POST /v1/lease. Draining: close each connection after its answer. Runs out by itself."""

    state: LeaseState
    ttl_seconds: Annotated[float, Field(strict=True, gt=0, le=300)] = 30.0
