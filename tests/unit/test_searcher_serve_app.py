"""The two ports over a real index: answers, refusals, overload, deadlines, leases, and what of it becomes evidence."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import faiss
import numpy as np
import orjson
import pyarrow as pa
import pytest
import uvloop
from waiting import until

from vectorindex_searcher import contract
from vectorindex_searcher.artifact.layout import SERVED_FILES
from vectorindex_searcher.artifact.manifest import Manifest, describe_file
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.index.parameters import index_type
from vectorindex_searcher.proof.report import Points, SegmentPoint
from vectorindex_searcher.serve.admin import AdminApp
from vectorindex_searcher.serve.app import SearchApp
from vectorindex_searcher.serve.evidence.feedback import Feedback
from vectorindex_searcher.serve.evidence.metrics import Gauges, SearcherMetrics
from vectorindex_searcher.serve.evidence.ring import EvidenceRing
from vectorindex_searcher.serve.http.auth import Tokens
from vectorindex_searcher.serve.http.limits import ANSWER_BYTES, Limits
from vectorindex_searcher.serve.http.listener import Listener
from vectorindex_searcher.serve.search import pool as pool_module
from vectorindex_searcher.serve.search.freshness import Freshness
from vectorindex_searcher.serve.search.plan import Planner
from vectorindex_searcher.serve.search.policies import Policies
from vectorindex_searcher.serve.search.pool import SearchPool
from vectorindex_searcher.serve.search.service import DEADLINE_VECTORS
from vectorindex_searcher.serve.settings import Settings
from vectorindex_searcher.serve.traffic import Traffic

COUNT, DIMENSION = 400, 8


def write_rows(path: Path, name: str, values: list[Any]) -> None:
    table = pa.table({name: values})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def make_engine(folder: Path, ids: list[Any]) -> tuple[Engine, np.ndarray]:
    """An HNSW index over unit vectors; ids as given; metadata `title`."""
    vectors = np.random.default_rng(3).standard_normal((COUNT, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = faiss.IndexHNSWFlat(DIMENSION, 16)
    index.add(vectors)
    folder.mkdir(exist_ok=True)
    faiss.write_index(index, str(folder / "index.faiss"))
    write_rows(folder / "ids.arrow", "id", ids)
    write_rows(folder / "metadata.arrow", "title", [f"title {n}" for n in range(COUNT)])
    point = contract.OperatingPoint(params={"efSearch": 200}, recall=1, recall_low=1, latency_us=1)
    manifest = Manifest(
        digest="d1",
        attempt="local",
        identity=contract.Identity(name="products"),
        fingerprint="f1",
        embedding=contract.Embedding(model="mini", version="1", dimension=DIMENSION),
        dimension=DIMENSION,
        count=COUNT,
        vector_dtype="float32",
        id_type="int64" if isinstance(ids[0], int) else "string",
        metadata_columns=("title",),
        factory="HNSW16",
        index_type=index_type(index),
        default_point=point,
        faiss_version=faiss.__version__,
        device=contract.Device.CPU,
        duration_seconds=1,
        peak_memory_bytes=1,
        files=tuple(describe_file(folder / name) for name in SERVED_FILES),
    )
    return Engine.open(folder, manifest), vectors


@dataclass
class Pod:
    """Both ports, in a thread."""

    users: int
    admin: int
    traffic: Traffic
    pool: SearchPool
    loop: asyncio.AbstractEventLoop

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: dict[str, str] | None = None,
        admin: bool = False,
    ) -> tuple[int, dict[str, str], Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin if admin else self.users, timeout=60)
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        try:
            connection.request(method, path, data, headers or {})
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        found = {name.lower(): value for name, value in response.getheaders()}
        assert found["x-vectorindex-revision"] == "products-d1"
        return response.status, found, orjson.loads(text) if "json" in found["content-type"] and text else text

    def search(self, body: object, **more: Any) -> tuple[int, dict[str, str], Any]:
        return self.request("POST", "/v1/search", body, **more)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The server's loop stands still meanwhile, so that whatever is sent is there at once when it goes on."""
        stands, goes_on = threading.Event(), threading.Event()
        self.loop.call_soon_threadsafe(lambda: (stands.set(), goes_on.wait(60)))
        assert stands.wait(60)
        try:
            yield
        finally:
            goes_on.set()

    def columns(self) -> contract.EvidenceColumns:
        """Everything it counted, as columns."""
        headers = {"Accept": contract.EVIDENCE_COLUMNS_TYPE}
        _, _, document = self.request("GET", "/v1/evidence", headers=headers, admin=True)
        return contract.EvidenceColumns.model_validate(document)

    def evidence(self) -> contract.EvidenceBucket:
        """All buckets of all segments, added up."""
        _, _, document = self.request("GET", "/v1/evidence", admin=True)
        total: dict[str, Any] = {"bucket": 0, "segment": "all"}
        for bucket in contract.Evidence.model_validate(document).buckets:
            for name in (
                "requests", "failed_requests", "queries", "errors", "refused", "zero_results", "top_count", "top_sum",
                "tracked", "tracked_depth_sum", "clicked", "click_gain_sum",
            ):  # fmt: skip
                total[name] = total.get(name, 0) + getattr(bucket, name)
        return contract.EvidenceBucket.model_validate(total)


class Gated:
    """An engine whose searches wait for a gate, so that a test decides how long they take."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.gate = threading.Event()
        self.gate.set()
        self.failing = False
        self.seconds = 0.0
        self.params: list[dict[str, int]] = []
        self.sizes: list[int] = []
        """Vectors of each call."""

    def search(self, *arguments: Any) -> Any:
        self.params.append(dict(arguments[2] or {}))
        self.sizes.append(len(arguments[0]))
        assert self.gate.wait(60)
        time.sleep(self.seconds)
        if self.failing:
            raise RuntimeError("secret detail")
        return self._engine.search(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class Counting:
    """An engine that notes how many vectors each call brings."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.sizes: list[int] = []

    def search(self, vectors: np.ndarray, *arguments: Any) -> Any:
        self.sizes.append(len(vectors))
        time.sleep(0.005)  # so that others come meanwhile
        return self._engine.search(vectors, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


@contextmanager
def running(
    engine: Any,
    *,
    min_score: float | None = None,
    threads: int = 2,
    points: Points | None = None,
    limited: contract.ParamLimits | None = None,
    guard: Tokens | None = None,
    policies: Policies | None = None,
    columns_before: dict[str, str] | None = None,
    fresh: Freshness | None = None,
    **pool_options: Any,
) -> Iterator[Pod]:
    task = contract.ServeTask(
        identity=contract.Identity(name="products"),
        revision="products-d1",
        digest="d1",
        manifest_sha256="",
        artifacts=contract.Location(folder="/nowhere"),
        segments=("keyword",),
        min_score=min_score,
    )
    started: list[Pod] = []
    ready, stop = threading.Event(), threading.Event()
    pool_options.setdefault("queue_seconds", 60)  # a busy machine refuses nothing but what a test wants refused

    async def main() -> None:
        traffic, ring = Traffic(), EvidenceRing(task.segments)
        pool = SearchPool(threads, **pool_options)
        metrics = SearcherMetrics(task.revision, ring, Gauges())
        admin = Listener(
            AdminApp(
                task,
                Settings(pod="pod-1", columns_before=columns_before),
                traffic,
                ring,
                lambda: metrics,
                lambda: "opening",
            ),
            task.revision,
            Limits(),
        )
        users = Listener(
            SearchApp(
                engine,
                task,
                pool,
                ring,
                Feedback(task.revision, ring),
                points,
                limited=limited or contract.ParamLimits(),
                tokens=guard is not None,
                policies=policies,
                columns_before=columns_before,
                fresh=fresh,
            ),
            task.revision,
            Limits(body_bytes=100_000),
            traffic.closing,
            guard,
        )
        ports = await users.open(0, "127.0.0.1"), await admin.open(0, "127.0.0.1")
        started.append(Pod(*ports, traffic, pool, asyncio.get_running_loop()))
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.005)
        await users.close()
        await admin.close()
        pool.close()

    thread = threading.Thread(target=uvloop.run, args=(main(),))
    thread.start()
    assert ready.wait(60)
    try:
        yield started[0]
    finally:
        stop.set()
        thread.join(60)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, np.ndarray]:
    return make_engine(tmp_path_factory.mktemp("artifact"), [10_000 + n for n in range(COUNT)])


@pytest.fixture
def pod(engine: tuple[Engine, np.ndarray]) -> Iterator[Pod]:
    with running(engine[0]) as pod:
        yield pod


# ---------------------------------------------------------------- answers


def test_one_vector_finds_itself_first_with_its_cosine(pod: Pod, engine: tuple[Engine, np.ndarray]) -> None:
    status, _, answer = pod.search({"vector": (3 * engine[1][7]).tolist(), "k": 5})
    assert status == 200
    assert (answer["revision"], answer["k"], answer["zeroResults"]) == ("products-d1", 5, 0)
    (result,) = answer["results"]
    exact = np.argsort(-engine[1] @ engine[1][7])[:5] + 10_000
    assert result["ids"] == exact.tolist()
    assert result["scores"][0] == pytest.approx(1.0, abs=1e-5)
    assert result["scores"] == sorted(result["scores"], reverse=True)
    assert "metadata" not in result
    assert answer["tookMs"] > 0


def test_many_vectors_and_binary_body_give_the_same_answers(pod: Pod, engine: tuple[Engine, np.ndarray]) -> None:
    queries = engine[1][20:23]
    body = {"vectors": queries.tolist(), "k": 3, "include": ["metadata"]}
    _, _, by_json = pod.search(body)
    status, _, by_bytes = pod.request(
        "POST",
        f"/v1/search?k=3&include=metadata&dimension={DIMENSION}",
        queries.tobytes(),
        headers={"Content-Type": "application/octet-stream"},
    )
    assert status == 200
    assert by_json["results"] == by_bytes["results"]
    assert [result["ids"][0] for result in by_json["results"]] == [10_020, 10_021, 10_022]
    assert by_json["results"][1]["metadata"][0] == {"title": "title 21"}


@pytest.mark.parametrize("binary", [False, True])
def test_what_is_asked_again_is_planned_once_and_the_body_judged_each_time(
    engine: tuple[Engine, np.ndarray], binary: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[Any] = []

    def noted(planner: Planner, fields: Any, **how: Any) -> Any:
        planned.append(fields)
        return plan(planner, fields, **how)

    plan = Planner.plan
    monkeypatch.setattr(Planner, "plan", noted)
    path = "/v1/search?k=2" if binary else "/v1/search"
    headers = {"Content-Type": "application/octet-stream"} if binary else {}
    with running(engine[0]) as pod:
        for number in range(6):
            vector = engine[1][number]
            good = vector.tobytes() if binary else orjson.dumps({"vector": vector.tolist(), "k": 2}).ljust(400)
            bad = np.full_like(vector, np.nan).tobytes() if binary else b"[".ljust(400)
            body = bad if number == 4 else good
            status, _, found = pod.request("POST", path, body, headers=headers)
            assert status == (400 if number == 4 else 200), found
            if status == 200:
                assert found["results"][0]["ids"][0] == 10_000 + number
                assert len(found["results"][0]["ids"]) == 2
        assert len(planned) == 1
        # Nothing of it is shared with another head.
        late = headers | {"X-Request-Timeout-Ms": "0"}
        for _ in range(3):
            assert pod.request("POST", path, good, headers=late)[0] == 400
            assert pod.request("GET", path, good, headers=headers)[0] == 405
        assert pod.evidence().queries == 5


@pytest.mark.parametrize("threads", [1, 2])
def test_everyone_gets_their_own_answer_when_many_ask_at_once(
    engine: tuple[Engine, np.ndarray], monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Searched together or not; one wrong request among them is refused alone."""
    # Searches seem quick on this clock, also on a busy machine: the pool puts only quick ones into one call.
    ticks = itertools.count(1000.0, 1e-6)
    monkeypatch.setattr(pool_module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    counting, found = Counting(engine[0]), []
    with running(counting, threads=threads) as pod:
        clients = [http.client.HTTPConnection("127.0.0.1", pod.users, timeout=60) for _ in range(24)]
        for first in range(0, 240, 24):
            with pod.held():
                for number, client in enumerate(clients, first):
                    vector = engine[1][number].tolist() if number % 10 else [1.0]
                    client.request("POST", "/v1/search", orjson.dumps({"vector": vector, "k": 3 if number % 3 else 4}))
            answers = [client.getresponse() for client in clients]
            found += [(answer.status, orjson.loads(answer.read())) for answer in answers]
        for client in clients:
            client.close()
        evidence = pod.evidence()
    for number, (status, document) in enumerate(found):
        assert status == (200 if number % 10 else 422)
        if status == 200:
            assert document["results"][0]["ids"][0] == 10_000 + number
            assert len(document["results"][0]["ids"]) == document["k"] == (3 if number % 3 else 4)
            assert document["results"][0]["scores"][0] == pytest.approx(1, abs=1e-5)
    assert max(counting.sizes) > 1
    assert sum(counting.sizes) == 216
    assert (evidence.queries, evidence.errors, evidence.top_count) == (216, 0, 216)


def test_string_ids_stay_strings(tmp_path: Path) -> None:
    engine, vectors = make_engine(tmp_path / "strings", [f"sku-{n}" for n in range(COUNT)])
    with running(engine) as pod:
        _, _, answer = pod.search({"vector": vectors[4].tolist(), "k": 1})
        assert answer["results"] == [{"ids": ["sku-4"], "scores": [pytest.approx(1.0, abs=1e-5)]}]


def test_k_beyond_the_index_answers_what_there_is(pod: Pod, engine: tuple[Engine, np.ndarray]) -> None:
    _, _, answer = pod.search({"vector": engine[1][0].tolist(), "k": 1000, "params": {"efSearch": 1000}})
    ids = answer["results"][0]["ids"]
    assert len(ids) == len(set(ids)) == COUNT


def test_hits_below_min_score_are_no_hits_but_count_for_top_score(engine: tuple[Engine, np.ndarray]) -> None:
    near, far = engine[1][7].tolist(), (-engine[1].mean(axis=0)).tolist()
    top = float((engine[1] @ (np.array(far) / np.linalg.norm(far))).max())
    with running(engine[0], min_score=0.99) as pod:
        _, _, answer = pod.search({"vectors": [near, far], "segment": "keyword"})
        assert [len(result["ids"]) for result in answer["results"]] == [1, 0]
        assert answer["results"][1] == {"ids": [], "scores": []}
        assert answer["zeroResults"] == 1
        evidence = pod.evidence()
        assert (evidence.queries, evidence.zero_results, evidence.top_count) == (2, 1, 2)
        assert evidence.top_sum == pytest.approx(1 + top, abs=1e-4)
        # A request may name its own bound, also one that lets everything in.
        assert pod.search({"vector": far, "minScore": -1})[2]["zeroResults"] == 0


def test_index_document(pod: Pod) -> None:
    status, _, document = pod.request("GET", "/v1/index")
    assert status == 200
    assert (document["count"], document["dimension"], document["metric"]) == (COUNT, DIMENSION, "Cosine")
    assert document["embedding"]["model"] == "mini"
    assert document["operatingPoints"]["default"]["params"] == {"efSearch": 200}
    assert document["params"] == {"efSearch": {"min": 1, "max": 4096}}
    assert document["segments"] == ["keyword"]
    assert document["segmentPoints"]["keyword"]["params"] == {"efSearch": 200}
    assert pod.request("HEAD", "/v1/index")[2] == b""


def test_a_segment_is_searched_at_its_own_point(engine: tuple[Engine, np.ndarray]) -> None:
    """Parameters that a request names win over the segment's, name by name; other queries get the default point."""
    own = contract.OperatingPoint(params={"efSearch": 48}, recall=0.97, recall_low=0.96, latency_us=9)
    row = SegmentPoint(segment="keyword", tuned=True, queries=300, target=0.96, point=own)
    points = Points(digest="d1", gate_hash="g1", k=10, default=engine[0].manifest.default_point, segments=(row,))
    spied, vector = Gated(engine[0]), engine[1][7].tolist()
    with running(spied, points=points) as pod:
        for more in ({"segment": "keyword"}, {"segment": "keyword", "params": {"efSearch": 99}}, {"segment": "no"}, {}):
            assert pod.search({"vector": vector} | more)[0] == 200
        binary = engine[1][7].astype("<f4").tobytes()
        kind = {"Content-Type": "application/octet-stream"}
        assert pod.request("POST", "/v1/search?segment=keyword", binary, headers=kind)[0] == 200
        document = pod.request("GET", "/v1/index")[2]
    assert [one.get("efSearch") for one in spied.params] == [48, 99, None, None, 48]
    assert document["segmentPoints"] == {"keyword": own.wire()}
    assert document["operatingPoints"]["default"]["params"] == {"efSearch": 200}


# ---------------------------------------------------------------- refusals


def test_paths_and_methods(pod: Pod) -> None:
    status, _, problem = pod.request("GET", "/v1/serach")
    assert (status, problem["type"]) == (404, "urn:vectorindex:problem:NotFound")
    assert "/v1/search" in problem["remedy"]
    status, headers, _ = pod.request("GET", "/v1/search")
    assert (status, headers["allow"]) == (405, "POST")
    status, headers, _ = pod.request("POST", "/readyz", b"", admin=True)
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert pod.request("GET", "/v1/search", admin=True)[0] == 404
    assert pod.request("GET", "/metrics")[0] == 404


@pytest.mark.parametrize(
    ("body", "headers", "path", "status", "kind"),
    [
        (b"{", {}, "/v1/search", 400, "MalformedJSON"),
        ({"vector": [1.0]}, {}, "/v1/search", 422, "WrongDimension"),
        ({"vector": [1.0] * 8, "embedding": {"model": "ada"}}, {}, "/v1/search", 422, "WrongEmbedding"),
        ({"vector": [1.0] * 8}, {}, "/v1/search?k=3", 400, "UnknownField"),
        ({"vector": [1.0] * 8}, {"Content-Type": "application/xml"}, "/v1/search", 415, "UnsupportedMediaType"),
        ({"vector": [1.0] * 8}, {"X-Request-Timeout-Ms": "soon"}, "/v1/search", 400, "InvalidField"),
        ({"vector": [1.0] * 8}, {"X-Request-Timeout-Ms": "0"}, "/v1/search", 400, "InvalidField"),
        ({"vector": [1.0] * 8}, {"X-Request-Timeout-Ms": "9" * 5000}, "/v1/search", 400, "InvalidField"),
        ({"vectors": [[1.0] * 8] * 257}, {}, "/v1/search", 400, "TooManyVectors"),
        (b" " * 100_001, {}, "/v1/search", 413, "BodyTooLarge"),
    ],
)
def test_refused(pod: Pod, body: object, headers: dict[str, str], path: str, status: int, kind: str) -> None:
    found, answered, problem = pod.request("POST", path, body, headers=headers)
    assert (found, problem["type"]) == (status, f"urn:vectorindex:problem:{kind}")
    assert answered["content-type"] == "application/problem+json"
    assert problem["revision"] == "products-d1"
    evidence = pod.columns()
    counted = {name: sum(column) for name, column in evidence.counts.items()}
    assert counted == {"mismatched" if status == 422 else "refused": 1}


def test_who_has_no_token_adds_nothing_to_the_evidence(engine: tuple[Engine, np.ndarray], tmp_path: Path) -> None:
    """Else a stranger could trip RefusalRate. He is seen in the metrics; what a known sender got wrong counts."""
    (tmp_path / "site").write_text("a-token-of-the-site\n")
    known = {"Authorization": "Bearer a-token-of-the-site"}
    with running(engine[0], guard=Tokens(tmp_path)) as pod:
        assert pod.search({"vector": [1.0] * 8})[0] == 401
        assert pod.request("POST", "/v1/search", b"{", headers={"Authorization": "Bearer of-no-token"})[0] == 401
        assert pod.request("BREW", "/v1/search", b"")[0] == 501
        assert pod.columns().counts == {}
        assert pod.request("POST", "/v1/search", b"{", headers=known)[0] == 400
        assert {name: sum(column) for name, column in pod.columns().counts.items()} == {"refused": 1}
        text = pod.request("GET", "/metrics", admin=True)[2].decode()
    for code, count in ((401, 2), (501, 1), (400, 1)):
        assert f'vectorindex_requests_total{{code="{code}",revision="products-d1",segment="other"}} {count}.0' in text


def test_a_server_fault_is_counted_for_its_segment_and_tells_nothing(
    engine: tuple[Engine, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    gated = Gated(engine[0])
    gated.failing = True
    with running(gated) as pod:
        status, _, problem = pod.search({"vectors": [[1.0] * 8] * 3, "segment": "keyword"})
        assert (status, problem["type"]) == (500, "urn:vectorindex:problem:InternalError")
        assert "secret" not in str(problem)
        _, _, document = pod.request("GET", "/v1/evidence?since=0", admin=True)
        (bucket,) = document["buckets"]
        assert (bucket["segment"], bucket["queries"], bucket["errors"]) == ("keyword", 3, 3)
        assert (bucket["requests"], bucket["failedRequests"]) == (1, 1)
    assert "secret detail" in caplog.text


# ---------------------------------------------------------------- load


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


# ---------------------------------------------------------------- admin port


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


def test_limits_on_parameters_are_told_and_kept(engine: tuple[Engine, np.ndarray]) -> None:
    with running(engine[0], limited=contract.ParamLimits(max={"efSearch": 50})) as pod:
        assert pod.request("GET", "/v1/index")[2]["params"] == {"efSearch": {"min": 1, "max": 50}}
        described = pod.request("GET", "/openapi.json")[2]["components"]["schemas"]["Search"]
        assert described["properties"]["params"]["properties"]["efSearch"]["maximum"] == 50
        body = {"vector": engine[1][0].tolist(), "k": 3}
        assert pod.search(body | {"params": {"efSearch": 50}})[0] == 200
        status, _, problem = pod.search(body | {"params": {"efSearch": 51}})
        assert (status, problem["field"], problem["value"]) == (400, "params.efSearch", 51)
        evidence = pod.evidence()
        assert (evidence.failed_requests, evidence.refused) == (0, 1)


@pytest.mark.parametrize("vector", [[[0.5] * DIMENSION], [], [[]], {}, [True] * DIMENSION, [None] * DIMENSION])
def test_what_is_no_vector_counts_as_the_clients_fault(pod: Pod, vector: Any) -> None:
    """A vector within `vector` was "1 dimension", and counted with what an old model sends."""
    for _ in range(3):
        status, _, problem = pod.search({"vector": vector, "segment": "keyword"})
        assert (status, problem["type"].rpartition(":")[2]) == (400, "InvalidField")
        assert problem["field"].startswith("vector")
    evidence = pod.evidence()
    assert (evidence.refused, evidence.failed_requests, evidence.errors, evidence.queries) == (3, 0, 0, 0)


def test_an_answer_is_bounded_before_its_metadata_is_read(tmp_path: Path) -> None:
    """Rows are not of one size: what these rows hold counts, not what rows hold on average."""
    engine, vectors = make_engine(tmp_path / "a", list(range(COUNT)))
    titles = ["x" * (6 << 20) if row < 3 else f"title {row}" for row in range(COUNT)]
    write_rows(tmp_path / "a" / "metadata.arrow", "title", titles)
    engine = Engine.open(tmp_path / "a", engine.manifest)
    read: list[int] = []
    engine.metadata, metadata = lambda rows: read.extend(rows) or metadata(rows), engine.metadata  # type: ignore[method-assign, assignment, func-returns-value, misc]
    with running(engine) as pod:
        one = {"vector": vectors[0].tolist(), "k": 1, "include": ["metadata"]}
        assert len(pod.search(one)[2]["results"][0]["metadata"][0]["title"]) == 6 << 20
        read.clear()
        for body in (one | {"k": COUNT}, {"vectors": vectors[:3].tolist(), "k": 1, "include": ["metadata"]}):
            status, _, problem = pod.search(body)
            assert (status, problem["type"].rpartition(":")[2]) == (400, "TooMuchWork")
            assert problem["expected"] == ANSWER_BYTES
            assert "leave include out" in problem["remedy"]
        assert len(read) <= 2
        assert pod.search(one | {"vector": vectors[200].tolist(), "k": 9})[0] == 200
