"""The search port over a real index: answers, and refusals."""

from __future__ import annotations

import http.client
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
import serving_pod
from serving_pod import COUNT, DIMENSION, Counting, Gated, Pod, make_engine, running, write_rows

from vectorindex_searcher import contract
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.proof.report import Points, SegmentPoint
from vectorindex_searcher.serve.http.auth import Tokens
from vectorindex_searcher.serve.http.limits import ANSWER_BYTES
from vectorindex_searcher.serve.search import pool as pool_module
from vectorindex_searcher.serve.search.plan import Planner

engine, pod = serving_pod.engine, serving_pod.pod

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
