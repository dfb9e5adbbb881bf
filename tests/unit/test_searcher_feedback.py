"""Clicks: counted once, for the query's own time, segment and revision, by whichever pod they reach."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest
from clocks import Clock

from vectorindex_searcher.contract import BUCKET_SECONDS, FEEDBACK_SECONDS, EvidenceBucket
from vectorindex_searcher.serve.evidence import feedback as module
from vectorindex_searcher.serve.evidence.feedback import Feedback, QueryId
from vectorindex_searcher.serve.evidence.recorder import Outcome
from vectorindex_searcher.serve.evidence.ring import EvidenceRing
from vectorindex_searcher.serve.http.limits import FEEDBACK_BYTES, MAX_K
from vectorindex_searcher.serve.http.messages import Problem, Request
from vectorindex_searcher.serve.search.fields import fields_of_json


@dataclass
class Pod:
    """One searcher's part of it."""

    clock: Clock
    revision: str = "docs-d1"

    def __post_init__(self) -> None:
        self.ring = EvidenceRing(("keyword",), self.clock)
        self.feedback = Feedback(self.revision, self.ring)

    def search(self, segment: str, k: int, count: int = 1) -> list[str]:
        bucket, ids = self.feedback.ids(segment, k, count)
        self.ring.record(Outcome(segment, count, hits=[k] * count, tracked=(bucket, k)), 200, 0.001)
        return ids

    def click(self, **fields: Any) -> tuple[int, dict[str, Any]]:
        request = Request(b"POST", b"/v1/feedback", {}, orjson.dumps(fields), True, 0.0)
        response = self.feedback.handle(request)
        return response.status, orjson.loads(response.body)

    def buckets(self) -> list[EvidenceBucket]:
        return [EvidenceBucket.model_validate_json(orjson.dumps(bucket)) for bucket in self.ring.buckets(0)]


def depth(*pods: Pod, segment: str) -> tuple[int, float]:
    """Tracked queries and their mean depth, as an operator adds them up."""
    buckets = [bucket for pod in pods for bucket in pod.buckets() if bucket.segment == segment]
    tracked = sum(bucket.tracked for bucket in buckets)
    total = sum(bucket.tracked_depth_sum - bucket.click_gain_sum for bucket in buckets)
    return tracked, total / tracked


def test_any_pod_takes_a_click_and_it_belongs_to_the_time_of_its_query() -> None:
    clock = Clock()
    one, other = Pod(clock), Pod(clock)
    then = int(clock.now) // BUCKET_SECONDS
    first, second, _ = [*one.search("keyword", 10, 2), *one.search("keyword", 4)]
    one.search("other", 10)
    clock.now += 120
    assert other.click(queryId=first, rank=3) == (202, {"counted": True})
    assert one.click(queryId=second, clicks=[1, 7]) == (202, {"counted": True})
    assert depth(one, other, segment="keyword") == (3, (3 + 1 + 5) / 3)
    (taken,) = other.buckets()
    assert (taken.bucket, taken.segment, taken.clicked, taken.queries) == (then, "keyword", 1, 0)
    assert max(bucket.click_depth_top for bucket in one.buckets()) == 11
    assert depth(one, segment="other") == (1, 11.0)


def test_a_click_counts_once_in_time_and_for_its_own_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    pod, stranger = Pod(clock), Pod(clock, "docs-d2")
    (first,), (second,) = pod.search("keyword", 10), pod.search("keyword", 10)
    assert pod.click(queryId=first, rank=2)[1]["counted"]
    assert pod.click(queryId=first, rank=1) == (202, {"counted": False, "reason": "Duplicate"})
    assert stranger.click(queryId=first, rank=1) == (202, {"counted": False, "reason": "OtherRevision"})
    start = clock.now // BUCKET_SECONDS * BUCKET_SECONDS
    clock.now = start + BUCKET_SECONDS + FEEDBACK_SECONDS
    assert pod.click(queryId=second, rank=1) == (202, {"counted": False, "reason": "Late"})
    clock.now -= 0.1
    assert pod.click(queryId=second, rank=1)[1]["counted"]
    assert pod.feedback.results == {"Counted": 2, "Duplicate": 1, "Late": 1}
    assert stranger.buckets() == []
    monkeypatch.setattr(module, "REMEMBERED", 2)
    for query in pod.search("keyword", 10, 5):
        pod.click(queryId=query, rank=1)
    assert len(pod.feedback._seen) <= 3, "memory is bounded"


def test_a_pod_whose_clock_is_a_little_behind_takes_it_into_its_newest_bucket() -> None:
    ahead, behind = Pod(Clock(1_700_000_054.9)), Pod(Clock(1_700_000_049.9))
    (query,) = ahead.search("keyword", 10)
    assert behind.click(queryId=query, rank=1)[1]["counted"]
    (bucket,) = behind.buckets()
    assert (bucket.bucket, bucket.clicked) == (1_700_000_049 // BUCKET_SECONDS, 1)


@pytest.mark.parametrize("ahead", [2, 1000, 2**32 - 1])
def test_a_query_of_the_future_is_not_counted_now(ahead: int) -> None:
    """Forged, its click would count in whatever bucket a guardrail looks at; and it would never be late."""
    pod = Pod(Clock())
    query = QueryId.of(pod.search("keyword", 10)[0])
    forged = replace(query, bucket=min(query.bucket + ahead, 2**32 - 1), nonce=1)
    assert pod.click(queryId=forged.text(), rank=1) == (202, {"counted": False, "reason": "Early"})
    assert sum(bucket.clicked for bucket in pod.buckets()) == 0
    assert pod.feedback.results == {"Early": 1}


@pytest.mark.parametrize("k", [0, MAX_K + 1, 65_535])
def test_an_id_whose_k_no_query_can_have_is_none(k: int) -> None:
    """One click of k = 65,535 weighed as much as those of thousands of queries."""
    pod = Pod(Clock())
    forged = replace(QueryId.of(pod.search("keyword", 10)[0]), k=k, nonce=1)
    with pytest.raises(Problem) as refused:
        pod.click(queryId=forged.text(), rank=1)
    assert (refused.value.status, refused.value.field) == (400, "queryId")
    assert sum(bucket.clicked for bucket in pod.buckets()) == 0


def test_an_id_is_read_as_it_was_written() -> None:
    query = QueryId(b"12345678", 2**32 - 1, 255, 1000, 2**64 - 1)
    assert QueryId.of(query.text()) == query
    assert len(query.text()) == 31
    assert len({*Pod(Clock()).search("keyword", 1, 50)}) == 50


@pytest.mark.parametrize(("fields", "field"), [
    ({"rank": 1}, "queryId"),
    ({"queryId": 7, "rank": 1}, "queryId"),
    ({"queryId": "x" * 30, "rank": 1}, "queryId"),
    ({"queryId": "é" * 31, "rank": 1}, "queryId"),
    ({"queryId": "=" * 31, "rank": 1}, "queryId"),
    ({}, "rank"), ({"rank": 1, "clicks": [1]}, "rank"),
    ({"rank": 0}, "rank"), ({"rank": 11}, "rank"), ({"rank": True}, "rank"), ({"rank": 1.5}, "rank"),
    ({"clicks": []}, "clicks"), ({"clicks": [1, 99]}, "clicks[1]"), ({"clicks": 3}, "clicks"),
    ({"rank": 1, "extra": 2}, "extra"),
])  # fmt: skip
def test_bad_feedback_is_refused_by_name(fields: dict[str, Any], field: str) -> None:
    pod = Pod(Clock())
    given = fields if field == "queryId" else {"queryId": pod.search("keyword", 10)[0], **fields}
    with pytest.raises(Problem) as refused:
        pod.click(**given)
    assert (refused.value.status, refused.value.field) == (400, field)
    assert sum(bucket.clicked for bucket in pod.buckets()) == 0


@pytest.mark.parametrize("body", [b"", b"[", b"[]", b"\xff"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(Problem) as refused:
        Pod(Clock()).feedback.handle(Request(b"POST", b"/v1/feedback", {}, body, True, 0.0))
    assert refused.value.kind == "MalformedJSON"


def test_a_long_body_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight megabytes of it were decoded on the event loop, while everybody else waited for a second."""
    pod = Pod(Clock())
    read: list[int] = []
    monkeypatch.setattr(module, "fields_of_json", lambda body: read.append(len(body)) or fields_of_json(body))
    (query,) = pod.search("keyword", MAX_K)
    assert pod.click(queryId=query, clicks=[MAX_K] * 1000)[1]["counted"], "the longest that means something"
    read.clear()
    for size in (FEEDBACK_BYTES + 1, 8 << 20):
        with pytest.raises(Problem) as refused:
            pod.feedback.handle(Request(b"POST", b"/v1/feedback", {}, b"[" * size, True, 0.0))
        assert (refused.value.status, refused.value.kind) == (413, "BodyTooLarge")
    assert read == []
