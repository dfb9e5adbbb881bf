"""The admin port: probes, leases, and what of answers becomes evidence."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
import serving_pod
from serving_pod import Gated, Pod, running
from waiting import until

from vectorindex_searcher import contract
from vectorindex_searcher.index.engine import Engine

engine, pod = serving_pod.engine, serving_pod.pod


def test_probes_follow_the_pod(pod: Pod) -> None:
    assert pod.request("GET", "/livez", admin=True)[0] == 200
    status, _, document = pod.request("GET", "/readyz", admin=True)
    assert (status, document["reason"], document["message"]) == (503, "Loading", "opening")
    pod.traffic.open()
    assert pod.request("GET", "/readyz", admin=True)[0] == 200
    pod.traffic.end()
    status, _, document = pod.request("GET", "/readyz", admin=True)
    assert (status, document["reason"]) == (503, "Terminating")
    assert pod.request("GET", "/livez", admin=True)[0] == 200


def test_draining_lease_closes_connections_after_their_answer_and_runs_out(
    pod: Pod, engine: tuple[Engine, np.ndarray]
) -> None:
    pod.traffic.open()
    body = {"vector": engine[1][0].tolist()}
    lease = {"state": "Draining", "ttlSeconds": 200}
    assert "connection" not in pod.search(body)[1]
    status, _, answer = pod.request("POST", "/v1/lease", lease, admin=True)
    assert (status, answer["state"]) == (200, "Draining")
    status, headers, _ = pod.search(body)
    assert (status, headers["connection"]) == (200, "close")
    assert pod.request("GET", "/readyz", admin=True)[2]["lease"] == "Draining"
    pod.request("POST", "/v1/lease", lease | {"ttlSeconds": 0.1}, admin=True)
    until(lambda: "connection" not in pod.search(body)[1])
    assert pod.request("GET", "/readyz", admin=True)[2]["lease"] == "Serving"
    pod.request("POST", "/v1/lease", {"state": "Draining", "ttlSeconds": 100}, admin=True)
    assert pod.search(body)[1]["connection"] == "close"
    pod.request("POST", "/v1/lease", {"state": "Serving"}, admin=True)
    assert "connection" not in pod.search(body)[1]


@pytest.mark.parametrize("body", [
    b"", {"state": "Paused"}, {"state": "Draining", "ttlSeconds": 301}, {"a": 1},
    {"state": "Draining", "ttlSeconds": "30"}, {"state": "Draining", "ttlSeconds": True},
])  # fmt: skip
def test_bad_leases_are_refused(pod: Pod, body: object) -> None:
    status, _, problem = pod.request("POST", "/v1/lease", body, admin=True)
    assert (status, problem["type"]) == (400, "urn:vectorindex:problem:InvalidField")


def test_evidence_is_the_contract_and_metrics_agree(pod: Pod, engine: tuple[Engine, np.ndarray]) -> None:
    for number in range(40):
        pod.search({"vector": engine[1][number].tolist(), "segment": "keyword" if number % 2 else "typo"})
    _, _, document = pod.request("GET", f"/v1/evidence?since={time.time() - 60:.3f}", admin=True)
    evidence = contract.Evidence.model_validate(document)
    assert (evidence.pod, evidence.revision) == ("pod-1", "products-d1")
    assert abs(evidence.now - time.time()) < 60
    assert {bucket.segment for bucket in evidence.buckets} == {"keyword", "other"}
    assert sum(bucket.queries for bucket in evidence.buckets) == 40
    status, headers, text = pod.request("GET", "/metrics", admin=True)
    assert (status, headers["content-type"].split(";")[0]) == (200, "text/plain")
    assert b'vectorindex_queries_total{revision="products-d1",segment="keyword"} 20.0' in text
    assert b'vectorindex_queries_total{revision="products-d1",segment="other"} 20.0' in text


def test_latency_is_measured_in_microseconds(engine: tuple[Engine, np.ndarray]) -> None:
    """uvloop's own clock has whole milliseconds: measured with it, most searches would have taken no time at all."""
    gated, body = Gated(engine[0]), {"vector": engine[1][0].tolist()}
    with running(gated, threads=1) as pod:
        began = time.monotonic()
        for _ in range(30):
            sent = time.monotonic()
            took = pod.search(body)[2]["tookMs"]
            assert 0 < took / 1e3 < time.monotonic() - sent
        limit = (time.monotonic() - began) / 30
        gated.seconds = 0.0123
        pod.search(body)
        _, _, document = pod.request("GET", "/v1/evidence", admin=True)
        bins = Counter[int]()
        for bucket in contract.Evidence.model_validate(document).buckets:
            bins.update(bucket.latency)
    times = sorted(contract.LATENCY_BIN_RATIO ** float(b) / 1e6 for b in bins.elements())
    assert times[0] > 5e-6
    assert times[15] < limit * 2
    assert len(bins) > 2
    assert times[-1] > 0.0117


@pytest.mark.parametrize("query", ["since=yesterday", "since=nan", "from=3"])
def test_bad_since_is_refused(pod: Pod, query: str) -> None:
    assert pod.request("GET", f"/v1/evidence?{query}", admin=True)[0] == 400


def test_a_tracked_query_gets_an_id_and_its_click_counts(pod: Pod) -> None:
    before = pod.evidence()
    body = {"vectors": [[1.0] * 8, [0.5] * 8], "k": 3, "segment": "keyword"}
    assert "queryId" not in pod.search(body)[2]["results"][0]
    status, _, answer = pod.search(body | {"track": True})
    ids = [result["queryId"] for result in answer["results"]]
    assert (status, len(set(ids))) == (200, 2)
    one = pod.request("POST", "/v1/search?k=3&track=true", np.ones(8, np.float32).tobytes(),
                      headers={"Content-Type": "application/octet-stream"})[2]  # fmt: skip
    assert one["results"][0]["queryId"]
    assert pod.request("POST", "/v1/feedback", {"queryId": ids[0], "rank": 2})[0] == 202
    assert pod.request("POST", "/v1/feedback", {"queryId": ids[0], "rank": 4})[0] == 400
    assert pod.search(body | {"track": "yes"})[0] == 400
    assert pod.search(body | {"track": True}, headers={"Accept": "application/octet-stream"})[2]["field"] == "track"
    after = pod.evidence()
    assert (after.tracked - before.tracked, after.clicked - before.clicked) == (3, 1)
    assert after.tracked_depth_sum - before.tracked_depth_sum == 3 * 4
    assert after.click_gain_sum - before.click_gain_sum == 2
    assert after.queries - before.queries == 5, "feedback is no query"
