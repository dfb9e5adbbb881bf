"""Evidence and leases on a searcher's admin port."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from .model import Model

BUCKET_SECONDS = 5
RING_SECONDS = 3600
LATENCY_BIN_RATIO = 1.05
"""Latency histogram bin b holds durations in [1.05**b, 1.05**(b+1)) microseconds; durations under 1 us are bin 0."""
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
    """Of these: server's faults (5xx but overload, 504 above the floor of DEADLINE_FLOOR_SECONDS), and refusals for a
    wrong dimension or another embedding. The unit of the error rate: a batch fails as a whole, so it fails once."""
    queries: int = 0
    """Queries of these requests; a request may carry several."""
    errors: int = 0
    """Queries of the failed requests."""
    refused: int = 0
    """Requests refused with another 4xx, overload 503, or 504 below the floor: shown, never judged."""
    zero_results: int = 0
    """Queries with no hit at or above minScore."""
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
    latency: dict[int, int] = {}
    """Latency histogram, bin -> queries (see LATENCY_BIN_RATIO). Also of queries whose own deadline below the floor ran
    out: they took at least that long."""


class Evidence(Model):
    """Answer of GET /v1/evidence?since=UNIX_SECONDS."""

    pod: str
    revision: str
    now: float
    live_before: int | None = None
    """Live recall is final in buckets before this one; None: it is not measured."""
    buckets: tuple[EvidenceBucket, ...]


class LeaseState(StrEnum):
    SERVING = "Serving"
    DRAINING = "Draining"


class TrafficLease(Model):
    """Body of POST /v1/lease. Draining: close each connection after its answer. Runs out by itself."""

    state: LeaseState
    ttl_seconds: Annotated[float, Field(gt=0, le=300)] = 30.0
