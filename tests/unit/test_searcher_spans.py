"""Spans of traced searches: where a collector is named and the caller records its trace, and at no query's cost."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from http_stub import Exchange, answering
from onnx_files import weights_of, write_reranker
from searcher_process import started
from served import publish_all
from unit.test_searcher_reranking import published, task
from waiting import until
from wire import get, post, serving

from vectorindex_searcher.serve.settings import Settings
from vectorindex_searcher.serve.tracing import spans as told
from vectorindex_searcher.serve.tracing.context import Context, sampled
from vectorindex_searcher.serve.tracing.spans import MOST_WAITING, Collector, Spans

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
Json = dict[str, Any]


def head(value: str, name: str = "traceparent") -> bytes:
    return f"{name}: {value}\r\n".encode()


class Taken:
    """What a collector was sent."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.messages: list[Json] = []
        self.status = 200

    def take(self, exchange: Exchange) -> None:
        self.asked.append((exchange.path, {name.lower(): value for name, value in exchange.headers.items()}))
        self.messages.append(exchange.body())
        exchange.answer(self.status, {})

    @property
    def spans(self) -> list[Json]:
        return [s for m in self.messages for r in m["resourceSpans"] for one in r["scopeSpans"] for s in one["spans"]]


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
def collector(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(told, "SEND_SECONDS", 0.01)
    with answering(taken.take) as url:
        yield url


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (head(f"00-{TRACE}-{PARENT}-01"), True),
        (head(f"00-{TRACE}-{PARENT}-03", "TraceParent"), True),
        (head(f"cc-{TRACE}-{PARENT}-01-what-comes-later"), True),
        (head(f"00-{TRACE}-{PARENT}-00"), False),
        (head(f"ff-{TRACE}-{PARENT}-01"), False),
        (head(f"00-{'0' * 32}-{PARENT}-01"), False),
        (head(f"00-{TRACE}-{'0' * 16}-01"), False),
        (head(f"00-{TRACE.upper()}-{PARENT}-01"), False),
        (head(f"00-{TRACE}-{PARENT}-1"), False),
        (head(f"00-{TRACE}-{PARENT}-01", "x-traceparent"), False),
        (b"", False),
    ],
)
def test_whose_caller_records_its_trace(line: bytes, found: bool) -> None:
    wanted = Context(TRACE, PARENT) if found else None
    assert sampled(b"POST /v1/search HTTP/1.1\r\nHost: a\r\n" + line + b"Content-Length: 0\r\n\r\n") == wanted


def test_who_is_told_is_named_as_opentelemetry_names_it() -> None:
    base = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}
    given = Settings.from_environment(base | {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%20b, x=1"}).collector
    assert given == Collector("http://collector:4318/v1/traces", {"api-key": "a b", "x": "1"})
    assert "a b" not in repr(given)
    own = Collector.told({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://b/c", "OTEL_SERVICE_NAME": "shop"} | base)
    assert own == Collector("https://b/c", {}, "shop")
    for off in ({}, base | {"OTEL_SDK_DISABLED": "true"}, base | {"OTEL_TRACES_EXPORTER": "none"}):
        assert Settings.from_environment(off).collector is None
    assert Collector.told({"OTEL_EXPORTER_OTLP_ENDPOINT": "file:///etc"}) is None


def test_each_traced_search_is_a_span_of_its_own_trace(taken: Taken, collector: str) -> None:
    """Also on one connection, where all but the trace is a head that was seen before."""
    with serving() as server:
        server.listener.spans = Spans(Collector(f"{collector}/v1/traces", {"x-key": "k"}, "shop"), "products-abc")
        client = server.connect()
        traces = [f"{number:032x}" for number in range(1, 8)]
        for trace in traces:
            client.send(post(b"{}", b"/v1/search", head(f"00-{trace}-{PARENT}-01"))).answer()
            client.send(post(b"{}", b"/v1/search", head(f"00-{trace}-{PARENT}-00"))).answer()
            client.send(post(b"{}", b"/v1/search")).answer()
            client.send(get(b"/v1/index", head(f"00-{trace}-{PARENT}-01"))).answer()
        until(lambda: len(taken.spans) == len(traces))
        assert [one["traceId"] for one in taken.spans] == traces
        assert len({one["spanId"] for one in taken.spans}) == len(traces)
        one, asked = taken.spans[0], taken.asked[0]
        assert (one["parentSpanId"], one["name"], one["kind"]) == (PARENT, "POST /v1/search", 2)
        assert int(one["startTimeUnixNano"]) <= int(one["endTimeUnixNano"])
        assert {"key": "http.response.status_code", "value": {"intValue": "200"}} in one["attributes"]
        assert (asked[0], asked[1]["x-key"]) == ("/v1/traces", "k")
        (resource,) = taken.messages[0]["resourceSpans"]
        assert {"key": "service.name", "value": {"stringValue": "shop"}} in resource["resource"]["attributes"]
        counted: Counter[str] = Counter()
        spans = server.listener.spans
        until(lambda: counted.update(spans.take_counts()) or counted["Sent"] == len(traces))
        assert list(counted) == ["Sent"]


def test_nothing_is_read_of_a_trace_where_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectorindex_searcher.serve.http.traced.sampled", lambda raw: 1 / 0)
    with serving() as server:
        asked = post(b"{}", b"/v1/search", head(f"00-{TRACE}-{PARENT}-01"))
        assert server.connect().send(asked).answer()[0] == 200


def test_a_collector_that_does_not_answer_costs_spans_and_nothing_else(
    taken: Taken, collector: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken.status = 503
    spans = Spans(Collector(collector), "r")
    context, counts = Context(TRACE, PARENT), {"Failed": 0, "Sent": 0}

    def counted(result: str, least: int) -> bool:
        for name, number in spans.take_counts().items():
            counts[name] += number
        return counts[result] >= least

    for number in range(1, 6):
        spans.add(context, 0.1, 500)
        until(lambda number=number: counted("Failed", number))  # type: ignore[misc]
    assert caplog.text.count("spans cannot be sent") == 1
    taken.status = 200
    spans.add(context, 0.1, 500)
    until(lambda: counted("Sent", 1))
    assert taken.spans[-1]["status"] == {"code": 2}
    assert caplog.text.count("spans are sent again") == 1


def test_more_than_can_wait_are_dropped_and_nobody_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections, and never answers
        spans = Spans(Collector(f"http://127.0.0.1:{deaf.getsockname()[1]}"), "r")
        spans._thread = threading.current_thread()  # none that sends
        for _ in range(MOST_WAITING + 7):
            spans.add(Context(TRACE, PARENT), 0.1, 200)
        assert spans.take_counts() == {"Dropped": 7}


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_searcher_tells_the_collector_that_its_environment_names(
    tmp_path: Path, taken: Taken, collector: str, processes: str
) -> None:
    published = publish_all(tmp_path, ef_search=8)
    query = orjson.dumps({"vector": np.ones(published.vectors.shape[1]).tolist()})
    known = {"VECTORINDEX_PROCESSES": processes, "OTEL_EXPORTER_OTLP_ENDPOINT": collector}
    with started(published.task, **known) as searcher:
        port, admin = searcher.port(), searcher.port("admin port open")
        for _ in range(3):
            connection = HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", "/v1/search", query, {"traceparent": f"00-{TRACE}-{PARENT}-01"})
            assert connection.getresponse().status == 200
            connection.close()
        until(lambda: len(taken.spans) == 3)

        def told_so() -> bool:
            connection = HTTPConnection("127.0.0.1", admin, timeout=60)
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
            connection.close()
            return (
                'vectorindex_spans_total{result="Sent"' in text and "} 3.0" in text.split("vectorindex_spans_total{")[1]
            )

        until(told_so)


def test_a_query_in_words_tells_what_the_models_took(tmp_path: Path, taken: Taken, collector: str) -> None:
    """Each as a child of the search, within its time; a query that is a vector has no such parts."""
    model = task(tmp_path / "m", write_reranker(tmp_path / "m", weights_of(house=5)), budget_seconds=5.0)
    serve = published(tmp_path).model_copy(update={"rerank": model})
    with started(serve, OTEL_EXPORTER_OTLP_ENDPOINT=collector) as searcher:
        connection = HTTPConnection("127.0.0.1", searcher.port(), timeout=60)
        for body in ({"text": "red car", "k": 5}, {"vector": [1.0] * 8, "k": 5}):
            connection.request("POST", "/v1/search", orjson.dumps(body), {"traceparent": f"00-{TRACE}-{PARENT}-01"})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            answer.read()
        connection.close()
        until(lambda: len(taken.spans) == 4)
    words, encode, rerank, vector = taken.spans
    assert [one["name"] for one in taken.spans] == ["POST /v1/search", "encode", "rerank", "POST /v1/search"]
    assert [one["parentSpanId"] for one in (words, vector)] == [PARENT] * 2
    assert [one["parentSpanId"] for one in (encode, rerank)] == [words["spanId"]] * 2
    assert {one["traceId"] for one in taken.spans} == {TRACE}
    assert len({one["spanId"] for one in taken.spans}) == 4
    parts = [int(one[edge]) for one in (encode, rerank) for edge in ("startTimeUnixNano", "endTimeUnixNano")]
    times = [int(words["startTimeUnixNano"]), *parts, int(words["endTimeUnixNano"])]
    assert times == sorted(times)
