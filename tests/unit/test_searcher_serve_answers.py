"""Binary answers can be read with nothing but the documented layout."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from serving_pod import COUNT, DIMENSION, make_engine, running

from vectorindex_searcher.index.rows import Ids, RowWriter
from vectorindex_searcher.serve.http.connection import Connection
from vectorindex_searcher.serve.http.messages import Problem
from vectorindex_searcher.serve.search import answers, service, written
from vectorindex_searcher.serve.search.answers import SingleAnswers, binary_answer
from vectorindex_searcher.serve.search.reader import wants_binary
from vectorindex_searcher.serve.search.work import Work, WorkBudget

BINARY = {"Content-Type": "application/octet-stream", "Accept": "application/octet-stream"}


def read(body: bytes) -> list[tuple[list[Any], list[float]]]:
    """As docs/searcher-api.md tells clients to."""
    magic, queries, hits, kind = struct.unpack_from("<4sIII", body)
    assert magic == b"VXA1"
    at = 16
    first = np.frombuffer(body, "<u4" if kind else "<i8", hits, at)
    at += first.nbytes
    counts = np.frombuffer(body, "<u4", queries, at)
    at += counts.nbytes
    scores = np.frombuffer(body, "<f4", hits, at)
    at += scores.nbytes
    if kind:
        ends = at + np.cumsum(first)
        ids = [body[end - length : end].decode() for end, length in zip(ends, first, strict=True)]
        assert len(body) == at + first.sum()
    else:
        ids = first.tolist()
        assert len(body) == at
    cuts = np.cumsum(counts)[:-1]
    return [
        (list(part), values.tolist())
        for part, values in zip(np.split(np.array(ids, object), cuts), np.split(scores, cuts), strict=True)
    ]


@pytest.mark.parametrize("batch_rows", [7, 1000])
@pytest.mark.parametrize("strings", [False, True])
@pytest.mark.parametrize("hits", [(3,), (1, 0, 2), (0, 40), (0,), (0, 0)])
def test_layout(tmp_path: Path, hits: tuple[int, ...], strings: bool, batch_rows: int) -> None:
    kind = pa.string() if strings else pa.int64()
    given = ["ä" * (n % 3) + "x" * (n % 5) if strings else (n - 50) * 2**40 for n in range(100)]
    with RowWriter(tmp_path / "ids.arrow", pa.schema([("id", kind)]), batch_rows) as writer:
        writer.write(pa.table({"id": pa.array(given, kind)}))
    rows = np.random.default_rng(1).integers(0, 100, sum(hits))
    scores = [np.arange(count, dtype=np.float32) / 3 for count in hits]
    ends = np.cumsum(hits).tolist()
    spans = list(zip((0, *ends[:-1]), ends, strict=True))
    ids = Ids(tmp_path / "ids.arrow")
    response = binary_answer([(ids.raw(rows[a:b]), one) for (a, b), one in zip(spans, scores, strict=True)])
    assert response.content_type == b"application/octet-stream"
    assert response.body[12] == strings
    assert read(response.body) == [
        ([given[row] for row in rows[start:stop]], values.tolist())
        for (start, stop), values in zip(spans, scores, strict=True)
    ]


@pytest.mark.parametrize("strings", [False, True])
def test_answers_made_together_have_the_bytes_of_answers_made_alone(tmp_path: Path, strings: bool) -> None:
    kind = pa.string() if strings else pa.int64()
    given = ["ä" * (n % 3) + "x" * (n % 5) if strings else (n - 50) * 2**40 for n in range(100)]
    with RowWriter(tmp_path / "ids.arrow", pa.schema([("id", kind)]), 1000) as writer:
        writer.write(pa.table({"id": pa.array(given, kind)}))
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 100, 4 * 7)
    ids = Ids(tmp_path / "ids.arrow").raw(rows)
    scores = rng.random((4, 7), dtype=np.float32)
    together = SingleAnswers(ids, scores)
    for line, count in ((0, 7), (1, 0), (2, 3), (3, 7), (3, 1)):
        some = Ids(tmp_path / "ids.arrow").raw(rows[7 * line : 7 * line + count])
        alone = binary_answer([(some, scores[line, :count])])
        assert together.of(line, count) == alone


@pytest.mark.parametrize("strings", [False, True])
def test_a_binary_answer_says_what_the_json_answer_says(tmp_path: Path, strings: bool) -> None:
    given = [f"dökument-{n}" if strings else n * 2**40 for n in range(COUNT)]
    engine, vectors = make_engine(tmp_path / "a", given)
    with running(engine, min_score=0.8) as pod:
        for count in (1, 1, 5):
            raw = vectors[:count].tobytes()
            path = f"/v1/search?k=7&segment=keyword&dimension={DIMENSION}"
            status, headers, body = pod.request("POST", path, raw, headers=BINARY)
            assert (status, headers["content-type"]) == (200, "application/octet-stream")
            as_json = pod.request("POST", path, raw, headers=BINARY | {"Accept": "*/*"})[2]["results"]
            assert read(body) == [
                (one["ids"], [float(np.float32(score)) for score in one["scores"]]) for one in as_json
            ]
            assert any(len(one["ids"]) < 7 for one in as_json) or count == 1
        status, _, body = pod.search({"vector": vectors[3].tolist(), "k": 2}, headers={"Accept": BINARY["Accept"]})
        assert (status, read(body)[0][0][0]) == (200, given[3])
        evidence = pod.evidence()
    assert (evidence.queries, evidence.top_count) == (15, 15)


@pytest.mark.parametrize("strings", [False, True])
def test_a_binary_answer_holds_metadata_and_says_how_its_filter_was_searched(tmp_path: Path, strings: bool) -> None:
    engine, vectors = make_engine(tmp_path / "a", [f"dökument-{n}" if strings else n for n in range(COUNT)])
    with running(engine) as pod:
        body = {"vectors": vectors[:3].tolist(), "k": 7, "include": ["metadata"], "filter": {"title": {"ne": "none"}}}
        as_json = pod.search(body)[2]
        status, headers, found = pod.search(body, headers={"Accept": BINARY["Accept"]})
        assert status == 200
        how = as_json["filter"]
        assert headers["x-vectorindex-filtered"] == f"rows={how['rows']}; search={how['search']}"
        hits = sum(len(one["ids"]) for one in as_json["results"])
        assert found[12] == (1 if strings else 0) + 2
        told = [orjson.dumps(row) for one in as_json["results"] for row in one["metadata"]]
        assert found.endswith(np.array([len(row) for row in told], "<u4").tobytes() + b"".join(told))
        plain = pod.search({**body, "include": []}, headers={"Accept": BINARY["Accept"]})[2]
        assert len(found) == len(plain) + 4 * hits + sum(map(len, told))


@pytest.mark.parametrize("binary", [False, True])
def test_a_long_answer_is_never_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, binary: bool) -> None:
    """Put together, ten megabytes hold the interpreter's lock, and sent at once the event loop."""
    engine, vectors = make_engine(tmp_path / "a", [f"document-{n}" for n in range(COUNT)])
    body = {"vectors": vectors[:30].tolist(), "k": 7, "include": ["metadata"]}
    headers = {"Accept": BINARY["Accept"]} if binary else {}
    sent: list[int] = []
    real = Connection._encode_long

    def spied(connection: Connection, *arguments: Any) -> Any:
        parts = real(connection, *arguments)
        sent.extend(map(len, parts))
        return parts

    monkeypatch.setattr(Connection, "_encode_long", spied)
    with running(engine) as pod:
        usual = pod.search(body, headers=headers)
        for module in (answers, written):
            monkeypatch.setattr(module, "PIECE_BYTES", 500)
        status, _, found = pod.search(body, headers=headers)
    assert status == usual[0] == 200
    assert found == usual[2] if binary else found["results"] == usual[2]["results"]
    assert len(sent) > 5
    assert max(sent) < 3 * 500


def test_what_a_binary_answer_cannot_hold_is_refused_and_problems_stay_json(tmp_path: Path) -> None:
    engine, vectors = make_engine(tmp_path / "a", list(range(COUNT)))
    with running(engine) as pod:
        body = {"vector": vectors[0].tolist(), "track": True}
        status, headers, problem = pod.search(body, headers={"Accept": BINARY["Accept"]})
        assert (status, problem["field"], headers["content-type"]) == (400, "track", "application/problem+json")
        assert "application/json" in problem["remedy"]
        for _ in range(2):  # the second time the form of the request is known
            assert pod.request("POST", "/v1/search?k=3", vectors[0].tobytes(), headers=BINARY)[0] == 200
            status, headers, problem = pod.request("POST", "/v1/search?k=3", b"1234", headers=BINARY)
            assert (status, headers["content-type"]) == (422, "application/problem+json")
            assert (problem["value"], problem["expected"]) == (1, DIMENSION)
        evidence = pod.evidence()
    assert (evidence.queries, evidence.errors, evidence.refused) == (2, 0, 1)


@pytest.mark.parametrize(
    ("accept", "binary"),
    [
        (b"application/octet-stream", True),
        (b"Application/Octet-Stream;q=1, application/json;q=0.5", True),
        (b"application/json, application/octet-stream", False),
        (b"*/*", False),
        (b"", False),
    ],
)
def test_accept(accept: bytes, binary: bool) -> None:
    assert wants_binary(accept) is binary


# ---------------------------------------------------------------- what searches hold together


def test_what_searches_hold_together_is_bounded_and_given_back_whatever_happens() -> None:
    budget = WorkBudget(limit=1000)
    with Work(budget, limit=1000) as first:
        first.answer(500)  # four times that in memory: more than all may hold, and let in alone
        assert budget.taken == 2000
        with pytest.raises(Problem) as caught, Work(budget, limit=1000) as second:
            second.answer(1)
        assert (caught.value.status, caught.value.kind) == (503, "Overload")
        assert dict(caught.value.headers)[b"Retry-After"] == b"1"
        with pytest.raises(Problem) as caught:
            first.answer(501)
        assert (caught.value.status, caught.value.kind) == (400, "TooMuchWork")
    assert budget.taken == 0
    with Work(budget, limit=1000) as again:
        again.answer(200)
    assert budget.taken == 0


@pytest.mark.parametrize("slice_candidates", [1, 7, 40, 10**9])
def test_a_search_in_slices_answers_what_one_search_does(
    tmp_path: Path, slice_candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SLICE_CANDIDATES", slice_candidates)
    engine, vectors = make_engine(tmp_path / "a", list(range(COUNT)))
    body = {"vectors": vectors[:9].tolist(), "k": 5, "include": ["metadata"]}
    condition = {"title": {"in": [f"title {number}" for number in range(0, COUNT, 3)]}}
    with running(engine) as pod:
        for more in ({}, {"filter": condition}):
            found = pod.search(body | more)[2]["results"]
            alone = [pod.search({**body, "vectors": [one], **more})[2]["results"][0] for one in body["vectors"]]
            assert [one["ids"] for one in found] == [one["ids"] for one in alone]
            assert [one["metadata"] for one in found] == [one["metadata"] for one in alone]
        assert pod.evidence().queries == 2 * 18


def test_rows_of_a_new_filter_are_work_and_of_a_known_one_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are kept are counted with what filters may keep."""
    counted: list[int] = []
    monkeypatch.setattr(Work, "filter", lambda _, rows: counted.append(rows))
    engine, vectors = make_engine(tmp_path / "a", list(range(COUNT)))
    with running(engine) as pod:
        for title in ("title 1", "title 1", "title 2", "title 1"):
            status, _, found = pod.search({"vector": vectors[0].tolist(), "filter": {"title": title}})
            assert (status, found["filter"]["rows"] > 0) == (200, True)
    assert counted == [COUNT, COUNT]
