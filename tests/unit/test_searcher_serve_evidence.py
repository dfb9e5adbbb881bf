"""The ring counts what contract.EvidenceBucket says, forgets nothing within the hour, and agrees with /metrics."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, field

import orjson
import pytest
from clocks import Clock
from prometheus_client.parser import text_string_to_metric_families

from vectorindex_searcher.contract import (
    BUCKET_SECONDS,
    LATENCY_BIN_RATIO,
    RING_SECONDS,
    Evidence,
    EvidenceBucket,
    Identity,
    Location,
    ServeTask,
)
from vectorindex_searcher.serve.admin import METRICS_SECONDS, AdminApp
from vectorindex_searcher.serve.evidence import metrics
from vectorindex_searcher.serve.evidence.recorder import BINS, Outcome, latency_bin
from vectorindex_searcher.serve.evidence.ring import EvidenceRing
from vectorindex_searcher.serve.http.messages import Request, Response
from vectorindex_searcher.serve.settings import Settings
from vectorindex_searcher.serve.traffic import Traffic

TASK = ServeTask(
    identity=Identity(name="products"),
    revision="r",
    digest="d1",
    manifest_sha256="",
    artifacts=Location(folder="/nowhere"),
    segments=("keyword",),
)


@dataclass
class Expected:
    """The same counts, kept the slow and obvious way."""

    requests: int = 0
    failed_requests: int = 0
    queries: int = 0
    errors: int = 0
    refused: int = 0
    expired: int = 0
    zero_results: int = 0
    tops: list[float] = field(default_factory=list)
    latency: Counter[int] = field(default_factory=Counter)


def bin_by_definition(seconds: float) -> int:
    micros, number = seconds * 1e6, 0
    while number < BINS - 1 and micros >= LATENCY_BIN_RATIO ** (number + 1):
        number += 1
    return number


def buckets_of(ring: EvidenceRing, since: float = 0) -> list[EvidenceBucket]:
    body = orjson.dumps({"pod": "p", "revision": "r", "now": ring.now(), "buckets": list(ring.buckets(since))})
    return list(Evidence.model_validate_json(body).buckets)


def test_latency_bins_follow_the_contract() -> None:
    for number in (0, 1, 7, 94, 95, 200, BINS - 1):
        edge = LATENCY_BIN_RATIO**number / 1e6
        assert latency_bin(edge * (1 + 1e-9)) == number
        if number:
            assert latency_bin(edge * (1 - 1e-9)) == number - 1
    assert latency_bin(0.0) == latency_bin(5e-7) == 0
    assert latency_bin(1e9) == BINS - 1


def test_counts_match_brute_force_over_random_traffic() -> None:
    clock, rng = Clock(), random.Random(7)
    ring = EvidenceRing(("keyword", "question"), clock)
    expected: dict[tuple[int, str], Expected] = {}
    mismatched = 0
    for _ in range(3000):
        clock.now += rng.expovariate(0.5)
        segment = rng.choice(("keyword", "question", "other", "undeclared"))
        status = rng.choice((200, 200, 200, 400, 413, 422, 500, 503, 504))
        count = rng.choice((1, 1, 4))
        seconds = rng.lognormvariate(-7, 1.5)
        hits = [rng.choice((0, 0, 3, 10)) for _ in range(count)]
        tops = [rng.uniform(-1, 1) for hit in hits if hit or rng.random() < 0.5]
        deadline = rng.choice((0.01, 0.0999, 0.1, math.inf))
        ring.record(Outcome(segment, count, deadline, hits, tops), status, seconds)
        if status == 422:
            mismatched += 1
            continue
        label = segment if segment in ring.segments else "other"
        row = expected.setdefault((int(clock.now // BUCKET_SECONDS), label), Expected())
        judge(row, status, count, deadline, hits, tops, seconds)
    first = int(clock.now // BUCKET_SECONDS) - RING_SECONDS // BUCKET_SECONDS + 1
    wanted = {key: row for key, row in expected.items() if key[0] >= first}
    found = {(bucket.bucket, bucket.segment): bucket for bucket in buckets_of(ring)}
    assert found.keys() == wanted.keys()
    for key, row in wanted.items():
        compare(found[key], row)
    assert len(wanted) < len(expected), "the ring went round"
    assert sum(total.mismatched for total in ring.totals()) == mismatched > 100
    for total in ring.totals():
        rows = [row for (_, label), row in expected.items() if label == total.segment]
        assert total.queries == sum(row.queries for row in rows)
        assert int(total.latency.sum()) == sum(row.queries + row.expired for row in rows)
        assert total.failed_requests == sum(row.failed_requests for row in rows)
        assert total.top_sum == pytest.approx(sum(sum(row.tops) for row in rows))


def judge(
    row: Expected, status: int, count: int, deadline: float, hits: list[int], tops: list[float], seconds: float
) -> None:
    if status in (400, 413, 503):
        row.refused += 1
        return
    queries = count
    row.latency[bin_by_definition(seconds)] += queries
    if status == 504 and deadline < 0.1:
        row.refused += 1
        row.expired += queries
        return
    row.requests += 1
    row.queries += queries
    if status != 200:
        row.failed_requests += 1
        row.errors += queries
        return
    row.zero_results += sum(1 for hit in hits if hit == 0)
    row.tops += tops


def compare(bucket: EvidenceBucket, row: Expected) -> None:
    assert (bucket.requests, bucket.failed_requests) == (row.requests, row.failed_requests)
    assert (bucket.queries, bucket.errors, bucket.refused) == (row.queries, row.errors, row.refused)
    assert (bucket.zero_results, bucket.top_count) == (row.zero_results, len(row.tops))
    assert bucket.top_sum == pytest.approx(sum(row.tops))
    assert bucket.top_sum_squares == pytest.approx(sum(top * top for top in row.tops))
    assert bucket.latency == dict(row.latency)
    assert sum(bucket.latency.values()) == bucket.queries + row.expired


def test_since_starts_with_the_bucket_that_holds_it() -> None:
    clock = Clock(1_700_000_000.0)
    ring = EvidenceRing((), clock)
    for _ in range(4):
        ring.record(Outcome("other", hits=[1]), 200, 0.001)
        clock.now += BUCKET_SECONDS
    assert len(buckets_of(ring)) == 4
    assert [b.bucket * BUCKET_SECONDS for b in buckets_of(ring, 1_700_000_009.9)] == [
        1_700_000_005,
        1_700_000_010,
        1_700_000_015,
    ]
    assert buckets_of(ring, clock.now) == []


def test_an_hour_is_kept_and_then_forgotten() -> None:
    clock = Clock(1_700_000_000.0)
    ring = EvidenceRing((), clock)
    ring.record(Outcome("other", hits=[1]), 200, 0.001)
    clock.now += RING_SECONDS - BUCKET_SECONDS
    assert len(buckets_of(ring)) == 1
    clock.now += BUCKET_SECONDS
    assert buckets_of(ring) == []
    ring.record(Outcome("other", hits=[1]), 200, 0.001)
    assert [b.queries for b in buckets_of(ring)] == [1]
    assert next(iter(ring.totals())).queries == 2


def test_a_clock_that_steps_back_loses_and_doubles_nothing() -> None:
    clock = Clock()
    ring = EvidenceRing((), clock)
    for step in (0, 7, -7, -600, 3, 650):
        clock.now += step
        ring.record(Outcome("other", hits=[1]), 200, 0.001)
    assert sum(b.queries for b in buckets_of(ring)) == 6
    assert next(iter(ring.totals())).queries == 6


def test_a_bucket_overwritten_while_it_is_read_is_left_out() -> None:
    clock = Clock()
    ring = EvidenceRing((), clock)
    for _ in range(3):
        ring.record(Outcome("other", hits=[1]), 200, 0.001)
        clock.now += BUCKET_SECONDS
    reading = ring.buckets(0)
    first = next(reading)
    clock.now += RING_SECONDS - 2 * BUCKET_SECONDS
    ring.record(Outcome("other", hits=[1]), 200, 0.001)
    rest = list(reading)
    assert len(rest) == 1
    assert rest[0]["bucket"] == int(str(first["bucket"])) + 2


def test_a_filter_is_counted_by_what_became_of_it() -> None:
    """Each row: what is known of a request, its status, and what it adds."""
    ask, lost = Outcome("keyword", 2, hits=[0, 4], filtered=True, compared=True), Outcome("keyword", lost=True)
    unaware = Outcome("keyword", 2, hits=[0, 4], filtered=True)
    names = ("filtered_queries", "filtered_zero_results", "filters_compared", "filters_lost")
    for outcome, status, added in (
        (ask, 200, (2, 1, 1, 0)),
        (ask, 500, (0, 0, 1, 0)),  # it was taken; the fault is another
        (ask, 503, (0, 0, 0, 0)),
        (unaware, 200, (2, 1, 0, 0)),
        (Outcome("keyword", hits=[0], compared=True), 200, (0, 0, 0, 0)),
        (lost, 400, (0, 0, 1, 1)),
        (Outcome("keyword", compared=True), 400, (0, 0, 0, 0)),
    ):
        ring = EvidenceRing(("keyword",), Clock())
        ring.record(outcome, status, 0.001)
        (total,) = (total for total in ring.totals() if total.segment == "keyword")
        assert tuple(getattr(total, name) for name in names) == added, (outcome, status)
        assert not any(name in str(list(ring.buckets(0))) for name in ("filtered", "filters")), "rows of before"


def test_an_answer_that_was_to_be_reranked_is_counted_by_its_queries() -> None:
    """Whether it was; a search that nobody was to reorder, or that failed, is not among them."""
    for reranked, status, added in (
        (True, 200, (3, 3)),
        (False, 200, (3, 0)),
        (None, 200, (0, 0)),
        (True, 500, (0, 0)),
    ):
        ring = EvidenceRing(("keyword",), Clock())
        ring.record(Outcome("keyword", 3, hits=[1, 2, 3], reranked=reranked), status, 0.001)
        (total,) = (total for total in ring.totals() if total.segment == "keyword")
        assert (total.rerankable_queries, total.reranked_queries) == added
        assert "rerank" not in str(list(ring.buckets(0))), "rows of before"


def test_a_query_that_found_a_fresh_row_is_counted_once() -> None:
    ring = EvidenceRing(("keyword",), Clock())
    ring.record(Outcome("keyword", 3, hits=[1, 2, 3], fresh=2), 200, 0.001)
    ring.record(Outcome("keyword", 3, fresh=2), 500, 0.001)
    (total,) = (total for total in ring.totals() if total.segment == "keyword")
    assert total.fresh_queries == 2
    assert "fresh" not in str(list(ring.buckets(0))), "rows of before"


def test_metrics_carry_the_same_numbers_under_fixed_names() -> None:
    clock = Clock()
    ring = EvidenceRing(("keyword",), clock)
    ring.record(Outcome("keyword", 2, hits=[0, 10], top_scores=[0.1, 0.9]), 200, 0.0005)
    clock.now += 3 * BUCKET_SECONDS
    ring.record(Outcome("keyword", 1, hits=[3], top_scores=[0.5]), 200, 0.002)
    ring.record(Outcome("keyword", 5), 500, 1.0)
    ring.record(Outcome("other"), 503, 0.1)
    ring.record(Outcome("other"), 422, 0.1)
    ring.record(Outcome("keyword", 3, hits=[0, 2, 0], filtered=True, compared=True), 200, 0.0005)
    ring.record(Outcome("keyword", lost=True, compared=True), 400, 0.0001)
    ring.record(Outcome("other", 2, hits=[1, 1], reranked=True), 200, 0.0005)
    ring.record(Outcome("other", 1, hits=[1], reranked=False), 200, 0.0005)
    gauges = metrics.Gauges(ready=True, index_bytes=7, canary_recall=0.97)
    text = metrics.SearcherMetrics("rev-1", ring, gauges).exposition().decode()
    samples = {
        (s.name, s.labels.get("segment"), s.labels.get("code") or s.labels.get("le")): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
        if s.labels.get("revision") == "rev-1"
    }
    buckets = [b for b in buckets_of(ring) if b.segment == "keyword"]
    assert samples["vectorindex_queries_total", "keyword", None] == sum(b.queries for b in buckets) == 11
    assert samples["vectorindex_query_errors_total", "keyword", None] == sum(b.errors for b in buckets) == 5
    assert samples["vectorindex_query_errors_total", "other", None] == 0
    assert samples["vectorindex_mismatched_total", "other", None] == 1
    assert samples["vectorindex_failed_requests_total", "keyword", None] == 1
    assert samples["vectorindex_refused_total", "other", None] == 1
    assert samples["vectorindex_refused_total", "keyword", None] == 1
    assert samples["vectorindex_filtered_queries_total", "keyword", None] == 3
    assert samples["vectorindex_filtered_zero_result_queries_total", "keyword", None] == 2
    assert samples["vectorindex_filters_compared_total", "keyword", None] == 2
    assert samples["vectorindex_filters_lost_total", "keyword", None] == 1
    assert samples["vectorindex_rerankable_queries_total", "other", None] == 3
    assert samples["vectorindex_reranked_queries_total", "other", None] == 2
    assert samples["vectorindex_zero_result_queries_total", "keyword", None] == 3
    assert samples["vectorindex_requests_total", "keyword", "200"] == 3
    assert samples["vectorindex_requests_total", "keyword", "500"] == 1
    assert samples["vectorindex_top_score_count", "keyword", None] == 3
    assert samples["vectorindex_top_score_sum", "keyword", None] == pytest.approx(1.5)
    assert samples["vectorindex_top_score_squares_total", "keyword", None] == pytest.approx(0.01 + 0.81 + 0.25)
    assert samples["vectorindex_query_duration_seconds_count", "keyword", None] == 11
    assert samples["vectorindex_query_duration_seconds_sum", "keyword", None] == pytest.approx(5.0045)
    below = [
        (float(le), v)
        for (name, segment, le), v in samples.items()
        if name == "vectorindex_query_duration_seconds_bucket" and segment == "keyword" and le
    ]
    for edge, count in below:
        assert count == sum(n for s, n in ((0.0005, 5), (0.002, 1), (1.0, 5)) if s < edge)
    assert samples["vectorindex_results_per_query_bucket", "keyword", "0"] == 3
    assert samples["vectorindex_results_per_query_bucket", "keyword", "5"] == 5
    assert samples["vectorindex_results_per_query_sum", "keyword", None] == 15
    assert samples["vectorindex_ready", None, None] == 1
    assert samples["vectorindex_index_bytes", None, None] == 7
    assert samples["vectorindex_canary_recall", None, None] == 0.97
    assert ("vectorindex_load_seconds", None, None) not in samples


def test_metrics_are_made_once_a_second_however_many_ask() -> None:
    """Anybody may ask: made anew for each, they left searches no turn of the event loop."""
    ring, now, made = EvidenceRing(("keyword",)), Clock(), 0
    collector = metrics.SearcherMetrics("r", ring, metrics.Gauges())

    def read() -> metrics.SearcherMetrics:
        nonlocal made
        made += 1
        return collector

    app = AdminApp(TASK, Settings(), Traffic(), ring, read, lambda: "", clock=now)

    def scrape(method: bytes) -> bytes:
        answer = app.handle(Request(method, b"/metrics", {}, b"", True, 0.0))
        assert isinstance(answer, Response)
        return answer.body

    first = scrape(b"GET")
    ring.record(Outcome("keyword", 1, hits=[1]), 200, 0.001)
    now.now += METRICS_SECONDS / 2
    assert [scrape(method) for method in (b"GET", b"HEAD") * 500] == [first] * 1000
    assert made == 1
    now.now += METRICS_SECONDS
    assert b'vectorindex_queries_total{revision="r",segment="keyword"} 1.0' in scrape(b"GET")
    assert made == 2
