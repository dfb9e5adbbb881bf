"""Spans in OpenTelemetry's own collector, and queries where it is down or hangs."""

from __future__ import annotations

import http.client
import re
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from onnx_files import weights_of, write_reranker
from ports import held
from searcher_process import started
from served import DIMENSION, publish_all
from traces.collector import Collector
from unit.test_searcher_reranking import published, task
from unit.test_searcher_shards import COUNT, IDENTITY, Place, vectors_of, write
from waiting import until

from vectorindex_searcher.contract import RouteTask, ServeTask
from vectorindex_searcher.serve.tracing.spans import ANSWER_SECONDS, MOST_WAITING

PARENT = "00f067aa0ba902b7"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
SERVER, INTERNAL = 2, 1


def trace(number: int) -> str:
    return f"{number + 1:032x}"


class Asker:
    """One connection to a user port; its queries are traced, each in a trace of its own."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.asked = 0

    def close(self) -> None:
        self._connection.close()

    def ask(self, body: Any) -> float:
        """Seconds until the answer."""
        began = time.monotonic()
        head = {"traceparent": f"00-{trace(self.asked)}-{PARENT}-01"}
        self._connection.request("POST", "/v1/search", orjson.dumps(body), head)
        answer = self._connection.getresponse()
        said = answer.read()
        assert answer.status == 200, said
        self.asked += 1
        return time.monotonic() - began


def counted(admin: int) -> dict[str, int]:
    """What became of spans, by the searcher's metrics."""
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=60)
    connection.request("GET", "/metrics")
    said = connection.getresponse().read().decode()
    connection.close()
    found = re.findall(r'^vectorindex_spans_total\{.*?result="(\w+)".*?\} (\S+)$', said, re.MULTILINE)
    return {result: int(float(number)) for result, number in found}


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    with held() as (port,):
        folder = tmp_path / "collector"
        folder.mkdir()
        yield Collector(folder, port)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_search_encode_and_rerank_arrive_in_the_clients_trace(
    tmp_path: Path, collector: Collector, processes: str
) -> None:
    model = task(tmp_path / "m", write_reranker(tmp_path / "m", weights_of(house=5)), budget_seconds=5.0)
    serve = published(tmp_path).model_copy(update={"rerank": model})
    with (
        collector.running(),
        started(serve, **{ENDPOINT: collector.url, "VECTORINDEX_PROCESSES": processes}) as searcher,
        closing(Asker(searcher.port())) as asker,
    ):
        for _ in range(3):
            asker.ask({"text": "red car", "k": 5})
        until(lambda: len(collector.spans) == 9)
    for number in range(3):
        mine = {one["name"]: one for one in collector.spans if one["traceId"] == trace(number)}
        assert mine.keys() == {"POST /v1/search", "encode", "rerank"}
        search = mine.pop("POST /v1/search")
        assert (search["parentSpanId"], search["kind"]) == (PARENT, SERVER)
        assert search["attributes"]["http.response.status_code"] == "200"
        assert search["service"]["service.name"] == "vectorindex-searcher"
        assert search["service"]["vectorindex.revision"] == serve.revision
        for part in mine.values():
            assert (part["parentSpanId"], part["kind"]) == (search["spanId"], INTERNAL)
            times = [int(search["startTimeUnixNano"]), int(part["startTimeUnixNano"])]
            times += [int(part["endTimeUnixNano"]), int(search["endTimeUnixNano"])]
            assert times == sorted(times)


def test_a_routers_span_arrives_in_the_clients_trace(tmp_path: Path, collector: Collector) -> None:
    """Its pods are told nothing of the trace: docs/shards.md."""
    vectors = vectors_of(COUNT)
    place = Place(tmp_path, write(tmp_path / "source", list(range(COUNT)), vectors), factory="Flat")
    sha256 = place.all(2).manifest_sha256
    told = {ENDPOINT: collector.url}
    with collector.running(), ExitStack() as stack:
        addresses = []
        for number in range(2):
            serve = ServeTask(
                **place.common, revision="r", manifest_sha256=sha256, cache_dir=str(tmp_path / "cache"), shard=number
            )
            addresses.append((f"http://127.0.0.1:{stack.enter_context(started(serve, **told)).port()}",))
        route = RouteTask(identity=IDENTITY, revision="r", shards=tuple(addresses))
        router = stack.enter_context(started(route, **told, OTEL_SERVICE_NAME="router"))
        asker = stack.enter_context(closing(Asker(router.port())))
        for _ in range(3):
            asker.ask({"vector": vectors[0].tolist(), "k": 5})
        until(lambda: len(collector.spans) >= 3)
        until(lambda: counted(router.port("admin port open")) == {"Sent": 3})
    assert [(one["traceId"], one["parentSpanId"]) for one in collector.spans] == [(trace(n), PARENT) for n in range(3)]
    assert {one["service"]["service.name"] for one in collector.spans} == {"router"}


def test_no_query_waits_for_a_collector_that_is_down_or_hangs(tmp_path: Path, collector: Collector) -> None:
    """A query that waited for a message would take as long as one may: seconds, where queries take a millisecond."""
    query = {"vector": np.ones(DIMENSION).tolist()}
    rounds = MOST_WAITING + 500
    with (
        started(publish_all(tmp_path, ef_search=8).task, **{ENDPOINT: collector.url}) as searcher,
        closing(Asker(searcher.port())) as asker,
    ):
        admin = searcher.port("admin port open")
        took = {"down": [asker.ask(query) for _ in range(rounds)]}
        until(lambda: sum(counted(admin).values()) == asker.asked)
        assert counted(admin)["Failed"] > 0
        with collector.running():
            before, first = counted(admin), asker.asked
            took["up"] = [asker.ask(query) for _ in range(500)]
            until(lambda: counted(admin).get("Sent", 0) == 500)
            assert counted(admin) == {**before, "Sent": 500}
            until(lambda: len(collector.spans) == 500)
            assert {one["traceId"] for one in collector.spans} == {trace(first + n) for n in range(500)}
            with collector.hanging():
                took["hangs"] = [asker.ask(query) for _ in range(rounds)]
                until(lambda: sum(counted(admin).values()) == asker.asked)
            assert counted(admin)["Sent"] == 500
    for state, seconds in took.items():
        p50, p99 = statistics.median(seconds) * 1e3, statistics.quantiles(seconds, n=100)[98] * 1e3
        print(f"{state}: {len(seconds)} queries, p50 {p50:.2f} ms, p99 {p99:.2f} ms, most {max(seconds) * 1e3:.1f} ms")
        assert max(seconds) < ANSWER_SECONDS / 2, state
