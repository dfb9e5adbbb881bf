"""Names of the searcher's Prometheus metrics, and the collector that reads them from the evidence and the gauges.

Dashboards and PromQL guardrails refer to these names: they are fixed, and changing one breaks users. Counts come from
the evidence ring, so /metrics and /v1/evidence carry the same numbers; here they run since the pod's start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as _field
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from ...contract import FreshLook
    from .ring import EvidenceRing, Totals

REQUESTS = "vectorindex_requests"
QUERIES = "vectorindex_queries"
QUERY_ERRORS = "vectorindex_query_errors"
FAILED_REQUESTS = "vectorindex_failed_requests"
REFUSED = "vectorindex_refused"
MISMATCHED = "vectorindex_mismatched"
ZERO_RESULTS = "vectorindex_zero_result_queries"
FILTERED_QUERIES = "vectorindex_filtered_queries"
FILTERED_ZERO_RESULTS = "vectorindex_filtered_zero_result_queries"
FILTERS_COMPARED = "vectorindex_filters_compared"
FILTERS_LOST = "vectorindex_filters_lost"
RERANKABLE_QUERIES = "vectorindex_rerankable_queries"
RERANKED_QUERIES = "vectorindex_reranked_queries"
FRESH_QUERIES = "vectorindex_fresh_queries"
TOP_SCORE = "vectorindex_top_score"
TOP_SCORE_SQUARES = "vectorindex_top_score_squares"
DURATION = "vectorindex_query_duration_seconds"
RESULTS = "vectorindex_results_per_query"
QUEUE = "vectorindex_queue_vectors"
IN_FLIGHT = "vectorindex_requests_in_flight"
CONNECTIONS = "vectorindex_connections"
READY = "vectorindex_ready"
INDEX_BYTES = "vectorindex_index_bytes"
INDEX_VECTORS = "vectorindex_index_vectors"
LOAD_SECONDS = "vectorindex_load_seconds"
ARTIFACT_BYTES = "vectorindex_artifact_bytes"
LIVE_RECALL = "vectorindex_live_recall"
LIVE_RECALL_WIDE = "vectorindex_live_recall_wide_queries"
LIVE_RECALL_CPU = "vectorindex_live_recall_cpu_seconds"
LIVE_QUERIES = "vectorindex_live_queries"
TRACKED = "vectorindex_tracked_queries"
FEEDBACK = "vectorindex_feedback"
IGNORED_PARAMS = "vectorindex_ignored_params"
SPANS = "vectorindex_spans"
CANARY_RECALL = "vectorindex_canary_recall"
MIRRORED = "vectorindex_mirrored_queries"
SHADOWED = "vectorindex_shadow_queries"
SHADOW_ANSWERS = "vectorindex_shadow_answers"
TOMBSTONES = "vectorindex_tombstones"
TOMBSTONES_CHECKED = "vectorindex_tombstones_checked_timestamp_seconds"
TOMBSTONE_ERRORS = "vectorindex_tombstone_errors"
SOURCE_CHECKED = "vectorindex_source_checked_timestamp_seconds"
SOURCE_ERRORS = "vectorindex_source_errors"
FRESH_NUMBER = "vectorindex_fresh_snapshot"
FRESH_ROWS = "vectorindex_fresh_rows"
FRESH_REFUSED = "vectorindex_fresh_refused_files"
FRESH_FULL = "vectorindex_fresh_full"
FRESH_OFF = "vectorindex_fresh_off"
FRESH_AGE = "vectorindex_fresh_age_seconds"
FRESH_FAILING = "vectorindex_fresh_failing"
TOKENS_WITHOUT_ROWS = "vectorindex_tokens_without_rows"
SHARD_REQUESTS = "vectorindex_shard_requests"
SHARD_PODS = "vectorindex_shard_pods"
TOKEN_REQUESTS = "vectorindex_token_requests"  # noqa: S105 - a metric's name

_DURATION_STEP = 14
"""Every 14th latency bin is an edge of the histogram: 1.05**14 is a factor of about 2. A scrape holds up the event loop
(about 0.7 ms a segment), so there are no more edges than a dashboard needs."""
_DURATION_FIRST = 80
"""Bin of the lowest edge, about 50 microseconds."""


@dataclass(slots=True)
class Gauges:
    """What is true of the pod now. None: not known yet, not exported."""

    ready: bool = False
    queue_vectors: int = 0
    in_flight: int = 0
    connections: int = 0
    index_bytes: int | None = None
    index_vectors: int | None = None
    load_seconds: Mapping[str, float] | None = None
    """By phase of the start."""
    origins: Mapping[str, int] = _field(default_factory=dict)
    """Bytes of the artifact's files by where they came from."""
    canary_recall: float | None = None
    live_recall_cpu_seconds: float | None = None
    live_queries: int | None = None
    """Kept for the gate of the next revision; None: none are."""
    feedback: Mapping[str, int] = _field(default_factory=dict)
    """Feedback by what became of it."""
    ignored_params: Mapping[str, int] = _field(default_factory=dict)
    """Searches by the parameter of another kind of index that they named."""
    spans: Mapping[str, int] = _field(default_factory=dict)
    """Spans of traced searches, by what became of them."""
    mirrored: Mapping[str, int] = _field(default_factory=dict)
    """Live queries for another revision to answer again, by what became of them."""
    shadowed: Mapping[str, int] = _field(default_factory=dict)
    """Queries that another revision had answered, by what became of them here."""
    shadow_answers: Mapping[str, int] = _field(default_factory=dict)
    """Its answers to them, by what became of them here."""
    tombstones: int | None = None
    """Rows hidden because their ids were deleted; None: none are asked for."""
    tombstones_checked: float | None = None
    """Unix time of the last successful listing."""
    tombstone_errors: int | None = None
    source_checked: float | None = None
    """Unix time of the last successful listing of the source."""
    source_errors: int | None = None
    """None: it is not listed here."""
    fresh: FreshLook | None = None
    """None: there are no rows besides the artifact's."""
    token_uses: Mapping[str, int] | None = None
    """Accepted requests by name of token; None: no token is asked for."""
    tokens_without_rows: int | None = None
    """Whose policy is missing or cannot be enforced; None: there are no policies."""
    shard_requests: Mapping[tuple[int, str], int] = _field(default_factory=dict)
    """Of a router: requests to shards, by the shard's number and what became of them."""
    shard_pods: Mapping[int, int] = _field(default_factory=dict)
    """Of a router: pods that answer, by the shard's number."""


class SearcherMetrics(Collector):
    """Collector of one searcher. Must be called on the thread that the ring is confined to."""

    def __init__(self, revision: str, ring: EvidenceRing, gauges: Gauges, processes: Collector | None = None) -> None:
        """`processes`: tells CPU and memory where this process is not all of the searcher."""
        self._revision = revision
        self._ring = ring
        self._gauges = gauges
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        if processes is None:
            ProcessCollector(registry=self._registry)
        else:
            self._registry.register(processes)

    def exposition(self) -> bytes:
        """The text format."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are checked by test, not by registering twice."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric, at this moment."""
        totals = tuple(self._ring.totals())
        yield self._requests()
        yield from self._counters(totals)
        yield from self._distributions(totals)
        yield from self._state()
        if self._gauges.load_seconds is not None:
            seconds = GaugeMetricFamily(
                LOAD_SECONDS, "Seconds of each phase from start to ready.", labels=("revision", "phase")
            )
            for phase, took in self._gauges.load_seconds.items():
                seconds.add_metric((self._revision, phase), took)
            yield seconds
        yield from self._shards()
        yield from self._listings()
        if (fresh := self._gauges.fresh) is not None:
            yield from self._of_fresh(fresh)
        if self._gauges.token_uses is not None:
            uses = CounterMetricFamily(
                TOKEN_REQUESTS, "Requests accepted, by name of their token.", labels=("revision", "token")
            )
            for name, count in sorted(self._gauges.token_uses.items()):
                uses.add_metric((self._revision, name), count)
            yield uses
        if self._gauges.tokens_without_rows is not None:
            text = "Tokens that may see no row: without a policy, or with one that cannot be enforced here."
            without = GaugeMetricFamily(TOKENS_WITHOUT_ROWS, text, labels=("revision",))
            without.add_metric((self._revision,), self._gauges.tokens_without_rows)
            yield without

    def _shards(self) -> Iterator[Metric]:
        """What a router asks; nothing of a searcher."""
        gauges = self._gauges
        if gauges.shard_requests:
            text = "Requests of a router to shards, by what became of them; Hedged are second ones besides."
            asked = CounterMetricFamily(SHARD_REQUESTS, text, labels=("revision", "shard", "result"))
            for (shard, result), count in sorted(gauges.shard_requests.items()):
                asked.add_metric((self._revision, str(shard), result), count)
            yield asked
        if gauges.shard_pods:
            pods = GaugeMetricFamily(
                SHARD_PODS, "Pods of a shard that answer the router.", labels=("revision", "shard")
            )
            for shard, count in sorted(gauges.shard_pods.items()):
                pods.add_metric((self._revision, str(shard)), count)
            yield pods

    def _listings(self) -> Iterator[Metric]:
        """Of deleted ids, and of the source."""
        gauges = self._gauges
        for name, text, value in (
            (TOMBSTONES, "Rows hidden because their ids were deleted.", gauges.tombstones),
            (TOMBSTONES_CHECKED, "Unix time at which tombstones were last listed.", gauges.tombstones_checked),
            (SOURCE_CHECKED, "Unix time at which the source was last listed.", gauges.source_checked),
        ):
            if value is not None:
                family = GaugeMetricFamily(name, text, labels=("revision",))
                family.add_metric((self._revision,), value)
                yield family
        for name, text, count in (
            (TOMBSTONE_ERRORS, "Times that tombstones could not be listed or read.", gauges.tombstone_errors),
            (SOURCE_ERRORS, "Times that the source could not be listed.", gauges.source_errors),
        ):
            if count is not None:
                errors = CounterMetricFamily(name, text, labels=("revision",))
                errors.add_metric((self._revision,), count)
                yield errors

    def _of_fresh(self, fresh: FreshLook) -> Iterator[Metric]:
        for name, text, value in (
            (FRESH_NUMBER, "Number of the snapshot of fresh rows.", fresh.number),
            (FRESH_ROWS, "Rows in it.", fresh.rows),
            (FRESH_REFUSED, "Files whose rows are not answered; 5 at most are told.", len(fresh.refused)),
            (FRESH_FULL, "1 while there are more fresh rows than may be searched: a build is due.", int(fresh.full)),
            (FRESH_OFF, "1 while fresh rows are switched off.", int(fresh.off)),
            (FRESH_FAILING, "1 when the last look at them failed, or something is left out.", int(bool(fresh.reason))),
            (
                FRESH_AGE,
                "Seconds since the last look began that did not fail and found not too many.",
                fresh.age_seconds,
            ),
        ):
            family = GaugeMetricFamily(name, text, labels=("revision",))
            family.add_metric((self._revision,), value)
            yield family

    def _requests(self) -> Metric:
        family = CounterMetricFamily(
            REQUESTS, "Answered search requests by HTTP status.", labels=("revision", "segment", "code")
        )
        for (segment, code), count in sorted(self._ring.codes.items()):
            family.add_metric((self._revision, segment, str(code)), count)
        return family

    def _counters(self, totals: Sequence[Totals]) -> Iterator[Metric]:
        named = (
            (QUERIES, "Answered queries, server faults included; one request may carry several.", "queries"),
            (QUERY_ERRORS, "Queries of failed requests.", "errors"),
            (
                FAILED_REQUESTS,
                "Server faults; a batch counts once.",
                "failed_requests",
            ),
            (REFUSED, "Requests refused for a client's fault, a deadline too short, or overload.", "refused"),
            (MISMATCHED, "Requests refused for a wrong dimension or another embedding.", "mismatched"),
            (ZERO_RESULTS, "Queries without a hit at or above minScore.", "zero_results"),
            (FILTERED_QUERIES, "Answered queries with a filter.", "filtered_queries"),
            (FILTERED_ZERO_RESULTS, "Of these, without a hit at or above minScore.", "filtered_zero_results"),
            (
                FILTERS_COMPARED,
                "Requests with a filter that were answered, or refused although the revision before took it.",
                "filters_compared",
            ),
            (FILTERS_LOST, "Of these, the refused ones.", "filters_lost"),
            (RERANKABLE_QUERIES, "Answered queries that a cross-encoder was to reorder.", "rerankable_queries"),
            (RERANKED_QUERIES, "Of these, the ones that are in its order.", "reranked_queries"),
            (FRESH_QUERIES, "Answered queries with a fresh row among their hits.", "fresh_queries"),
            (TRACKED, "Queries that got a query id.", "tracked"),
            (TOP_SCORE_SQUARES, "Sum of the squares of first hits' scores.", "top_sum_squares"),
        )
        for name, text, field in named:
            family = CounterMetricFamily(name, text, labels=("revision", "segment"))
            for total in totals:
                family.add_metric((self._revision, total.segment), getattr(total, field))
            yield family
        top = SummaryMetricFamily(TOP_SCORE, "Score of the first hit, whatever it is.", labels=("revision", "segment"))
        for total in totals:
            top.add_metric((self._revision, total.segment), count_value=total.top_count, sum_value=total.top_sum)
        yield top
        if self._ring.live_before is not None:
            yield from self._live_recall(totals)

    def _live_recall(self, totals: Sequence[Totals]) -> Iterator[Metric]:
        recall = SummaryMetricFamily(
            LIVE_RECALL, "Recall of sampled live queries, answered again exactly.", labels=("revision", "segment")
        )
        wide = CounterMetricFamily(
            LIVE_RECALL_WIDE,
            "Sampled live queries judged against a wider search, not an exact one.",
            labels=("revision", "segment"),
        )
        for total in totals:
            labels = (self._revision, total.segment)
            recall.add_metric(labels, count_value=total.live_queries, sum_value=total.live_recall_sum)
            wide.add_metric(labels, total.live_wide)
        yield recall
        yield wide

    def _distributions(self, totals: Sequence[Totals]) -> Iterator[Metric]:
        from .recorder import BINS, RESULT_EDGES, latency_edge

        duration = HistogramMetricFamily(
            DURATION, "Seconds from a request's last byte to its answer, per query.", labels=("revision", "segment")
        )
        results = HistogramMetricFamily(
            RESULTS, "Hits at or above minScore, per answered query.", labels=("revision", "segment")
        )
        edges = range(_DURATION_FIRST, BINS, _DURATION_STEP)
        for total in totals:
            labels = (self._revision, total.segment)
            # Edges are edges of the evidence's bins, so no count is interpolated.
            below = total.latency.cumsum()
            buckets = [(f"{latency_edge(edge):.6g}", float(below[edge - 1])) for edge in edges]
            duration.add_metric(labels, [*buckets, ("+Inf", float(below[-1]))], total.latency_sum)
            counts = tuple(accumulate(total.results))
            buckets = [(str(edge), float(count)) for edge, count in zip(RESULT_EDGES, counts, strict=True)]
            results.add_metric(labels, [*buckets, ("+Inf", float(counts[-1]))], total.results_sum)
        yield duration
        yield results

    def _by_name(self, name: str, text: str, label: str, counts: Mapping[str, int]) -> Iterator[Metric]:
        """A counter with a label besides the revision; nothing before there is something to count."""
        if not counts:
            return
        family = CounterMetricFamily(name, text, labels=("revision", label))
        for value, count in sorted(counts.items()):
            family.add_metric((self._revision, value), count)
        yield family

    def _state(self) -> Iterator[Metric]:
        gauges = self._gauges
        named: tuple[tuple[str, str, float | None], ...] = (
            (READY, "1 when the pod takes traffic.", float(gauges.ready)),
            (QUEUE, "Vectors whose search has not begun.", gauges.queue_vectors),
            (IN_FLIGHT, "Requests being answered.", gauges.in_flight),
            (CONNECTIONS, "Open user connections.", gauges.connections),
            (INDEX_BYTES, "Bytes of the loaded artifact.", gauges.index_bytes),
            (INDEX_VECTORS, "Vectors in the index.", gauges.index_vectors),
            (CANARY_RECALL, "Recall of this pod on the canary queries.", gauges.canary_recall),
            (LIVE_QUERIES, "Live queries kept for the gate of the next revision.", gauges.live_queries),
        )
        text = "Bytes of the artifact's files that this pod got: from the store, or found in its cache and verified."
        yield from self._by_name(ARTIFACT_BYTES, text, "origin", gauges.origins)
        yield from self._by_name(FEEDBACK, "Clicks by what became of them.", "result", gauges.feedback)
        text = "Searches that named a parameter of another kind of index, which was ignored."
        yield from self._by_name(IGNORED_PARAMS, text, "param", gauges.ignored_params)
        text = "Spans of traced searches for a collector, by what became of them."
        yield from self._by_name(SPANS, text, "result", gauges.spans)
        text = "Live queries for another revision to answer again, by what became of them."
        yield from self._by_name(MIRRORED, text, "result", gauges.mirrored)
        text = "Queries that the revision with the traffic had answered, by what became of them here."
        yield from self._by_name(SHADOWED, text, "result", gauges.shadowed)
        text = "Answers of the revision with the traffic, by what became of them here."
        yield from self._by_name(SHADOW_ANSWERS, text, "result", gauges.shadow_answers)
        if gauges.live_recall_cpu_seconds is not None:
            spent = CounterMetricFamily(LIVE_RECALL_CPU, "CPU seconds that live recall took.", labels=("revision",))
            spent.add_metric((self._revision,), gauges.live_recall_cpu_seconds)
            yield spent
        for name, text, value in named:
            if value is not None:
                family = GaugeMetricFamily(name, text, labels=("revision",))
                family.add_metric((self._revision,), value)
                yield family
