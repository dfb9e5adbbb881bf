"""The search port under load: overload, deadlines, and who is not searched for any more."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson
import pytest
import serving_pod
from serving_pod import COUNT, Gated, Pod, running
from waiting import until

from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.serve.search.service import DEADLINE_VECTORS

engine, pod = serving_pod.engine, serving_pod.pod


def test_a_filter_limits_the_hits(engine: tuple[Engine, np.ndarray]) -> None:
    """JSON and binary bodies; few rows, many rows, none; and a query without a hit in its filter is a zero result."""
    vectors = engine[1]
    with running(engine[0]) as pod:
        some = [f"title {number}" for number in range(20, 26)]
        status, _, found = pod.search({"vector": vectors[0].tolist(), "k": 10, "filter": {"title": {"in": some}}})
        assert status == 200
        by_hand = np.argsort(-(vectors[20:26] @ vectors[0])) + 20
        assert found["results"][0]["ids"] == [engine[0].ids(np.array([row]))[0] for row in by_hand]
        assert found["filter"] == {"rows": 6, "search": "exact"}
        many = quote(orjson.dumps({"not": {"title": "title 0"}}))
        binary = {"Content-Type": "application/octet-stream"}
        status, _, found = pod.request("POST", f"/v1/search?k=3&filter={many}", vectors[0].tobytes(), headers=binary)
        assert (status, found["filter"]["rows"]) == (200, COUNT - 1)
        assert engine[0].ids(np.array([0]))[0] not in found["results"][0]["ids"]
        assert len(found["results"][0]["ids"]) == 3
        status, _, found = pod.search({"vector": vectors[0].tolist(), "filter": {"title": "none"}})
        assert (status, found["zeroResults"], found["results"][0]["ids"]) == (200, 1, [])
        status, _, problem = pod.search({"vector": vectors[0].tolist(), "filter": {"or": [{"titel": "x"}]}})
        assert (status, problem["field"], problem["remedy"]) == (400, "filter.or[0].titel", "columns are: title")
        status, _, problem = pod.request("POST", "/v1/search?filter={", vectors[0].tobytes(), headers=binary)
        assert (status, problem["type"], problem["field"]) == (400, "urn:vectorindex:problem:MalformedJSON", "filter")
        assert pod.request("GET", "/v1/index")[2]["filterColumns"] == {"title": "string"}
        evidence = pod.evidence()
    assert (evidence.queries, evidence.zero_results, evidence.refused) == (3, 1, 2)


def test_overload_refuses_what_would_wait_too_long(engine: tuple[Engine, np.ndarray]) -> None:
    gated = Gated(engine[0])
    body = {"vector": engine[1][0].tolist(), "params": {"efSearch": 10}}
    with running(gated, threads=1, queue_vectors=2) as pod, ThreadPoolExecutor(8) as clients:
        gated.gate.clear()
        running_now = clients.submit(pod.search, body)
        until(lambda: busy(pod))
        waiting = [clients.submit(pod.search, body) for _ in range(2)]
        until(lambda: pod.pool.waiting == 2)
        status, headers, problem = pod.search(body)
        assert (status, headers["retry-after"]) == (503, "1")
        assert problem["type"] == "urn:vectorindex:problem:Overload"
        gated.gate.set()
        assert [future.result()[0] for future in (running_now, *waiting)] == [200] * 3
        evidence = pod.evidence()
        assert (evidence.queries, evidence.refused, evidence.errors) == (3, 1, 0)


def busy(pod: Pod) -> bool:
    return pod.pool.waiting == 0 and pod.pool.searching == 1


def test_a_search_that_waited_too_long_is_refused_when_its_turn_comes(engine: tuple[Engine, np.ndarray]) -> None:
    gated = Gated(engine[0])
    body = {"vector": engine[1][0].tolist(), "params": {"efSearch": 10}}
    with running(gated, threads=1) as pod, ThreadPoolExecutor(2) as clients:
        gated.gate.clear()
        first = clients.submit(pod.search, body)
        until(lambda: busy(pod))
        second = clients.submit(pod.search, body)
        until(lambda: pod.pool.waiting == 1)
        pod.pool._queue_seconds = 0.0  # however short the wait was
        gated.gate.set()
        assert (first.result()[0], second.result()[0]) == (200, 503)


@pytest.mark.parametrize(("allowed", "counted"), [("50", (0, 0, 1)), ("150", (1, 1, 0))])
def test_a_deadline_is_answered_on_time_and_is_a_fault_unless_it_was_too_short_for_anyone(
    engine: tuple[Engine, np.ndarray], allowed: str, counted: tuple[int, int, int]
) -> None:
    gated = Gated(engine[0])
    with running(gated, threads=1) as pod:
        gated.gate.clear()
        began = time.monotonic()
        body = {"vector": engine[1][0].tolist(), "params": {"efSearch": 10}}
        status, _, problem = pod.search(body, headers={"X-Request-Timeout-Ms": allowed})
        assert (status, problem["type"]) == (504, "urn:vectorindex:problem:DeadlineExceeded")
        assert 0.04 <= time.monotonic() - began < 30, "the search itself takes a minute"
        evidence = pod.evidence()
        assert (evidence.requests, evidence.failed_requests, evidence.refused) == counted
        _, _, document = pod.request("GET", "/v1/evidence", admin=True)
        (bucket,) = document["buckets"]
        assert sum(bucket["latency"].values()) == 1
        gated.gate.set()
        assert pod.search(body, headers={"X-Request-Timeout-Ms": "60000"})[0] == 200


def test_a_search_of_many_vectors_ends_once_nobody_waits_for_it(engine: tuple[Engine, np.ndarray]) -> None:
    gated = Gated(engine[0])
    body = {"vectors": engine[1][:100].tolist(), "k": 3}
    with running(gated) as pod:
        gated.gate.clear()
        assert pod.search(body, headers={"X-Request-Timeout-Ms": "50"})[0] == 504
        gated.gate.set()
        until(lambda: not pod.pool.searching)
        assert gated.sizes == [DEADLINE_VECTORS]
        _, _, bounded = pod.search(body, headers={"X-Request-Timeout-Ms": "60000"})
        _, _, whole = pod.search(body)
        assert gated.sizes[1:] == [32, 32, 32, 4, 100]
        assert bounded["results"] == whole["results"]


class Impatient:
    """An engine that finds the rows of no filter within any deadline, and notes those."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.deadlines: list[float] = []

    def matching(self, predicate: Any, deadline: float) -> Any:
        self.deadlines.append(deadline)
        if deadline < math.inf:
            raise TimeoutError
        return self._engine.matching(predicate)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def test_a_filter_is_evaluated_until_the_deadline_of_its_request(engine: tuple[Engine, np.ndarray]) -> None:
    impatient = Impatient(engine[0])
    with running(impatient) as pod:
        body = {"vector": engine[1][0].tolist(), "filter": {"title": "title 7"}}
        for _ in range(2):  # a body with a filter that is new is read elsewhere than one whose filter is known
            before = time.monotonic()
            status, _, problem = pod.search(body, headers={"X-Request-Timeout-Ms": "60000"})
            assert (status, problem["type"]) == (504, "urn:vectorindex:problem:DeadlineExceeded")
            assert before < impatient.deadlines[-1] - 60 < time.monotonic()
        assert pod.search(body)[0] == 200
        assert impatient.deadlines[2:] == [math.inf]


class Distant(Impatient):
    """An engine that would have to look farther for the rows of any filter."""

    def matching(self, predicate: Any, deadline: float) -> Any:
        return self._engine.matching(predicate)

    def search_with_strategy(self, *arguments: Any) -> Any:
        self.deadlines.append(arguments[4])
        if arguments[4] < math.inf:
            raise TimeoutError
        return self._engine.search_with_strategy(*arguments)


def test_a_filtered_search_looks_no_farther_after_its_deadline(engine: tuple[Engine, np.ndarray]) -> None:
    distant = Distant(engine[0])
    with running(distant) as pod:
        body = {"vector": engine[1][0].tolist(), "filter": {"title": "title 7"}}
        before = time.monotonic()
        status, _, problem = pod.search(body, headers={"X-Request-Timeout-Ms": "60000"})
        assert (status, problem["type"]) == (504, "urn:vectorindex:problem:DeadlineExceeded")
        assert before < distant.deadlines[0] - 60 < time.monotonic()
        assert (pod.search(body)[0], distant.deadlines[1]) == (200, math.inf)


def test_one_thread_answers_small_searches_at_once_and_slow_ones_beside_the_loop(
    engine: tuple[Engine, np.ndarray],
) -> None:
    gated = Gated(engine[0])
    body = {"vector": engine[1][0].tolist()}
    with running(gated, threads=1) as pod, ThreadPoolExecutor(2) as clients:
        gated.seconds = 0.02
        assert pod.search(body)[0] == 200
        gated.seconds = 0.0
        gated.gate.clear()
        slow = clients.submit(pod.search, body)
        until(lambda: busy(pod))
        assert pod.request("GET", "/livez", admin=True)[0] == 200
        gated.gate.set()
        assert slow.result()[0] == 200
