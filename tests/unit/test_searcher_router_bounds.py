"""What a router holds of requests and answers is bounded, and so is what they become; whose fault a refusal is; which
columns filters may name."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from sharded import DIMENSION, REVISION, Pod, Router, addresses, dealt_parts, pods_of, routing
from waiting import until

from vectorindex_searcher.contract import Metric, RouteTask
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.index.filters import columns_of_names
from vectorindex_searcher.serve.http.messages import Problem, Request, Response
from vectorindex_searcher.serve.route import router as router_module
from vectorindex_searcher.serve.route import sent as sent_module
from vectorindex_searcher.serve.route.app import NOWHERE
from vectorindex_searcher.serve.route.facts import Facts
from vectorindex_searcher.serve.route.link import Head, Reply
from vectorindex_searcher.serve.route.parts import MalformedError, Question, Texts, part_of
from vectorindex_searcher.serve.search.plan import Planner, QuerySchema
from vectorindex_searcher.serve.search.reader import BINARY_TYPE

VECTOR = [1.0] * DIMENSION
LONG = b" " * (100 << 10)
"""More than is read on the event loop."""
LONG_FILTER = {"title": {"in": [f"t{number}" for number in range(3000)]}}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> list[Engine]:
    return dealt_parts(tmp_path_factory.mktemp("parts"), 2)


@pytest.fixture(scope="module")
def pairs(engines: list[Engine]) -> Iterator[tuple[Router, list[list[Pod]]]]:
    """Two shards of two pods each."""
    with pods_of(engines, 2) as pods, routing(addresses(pods)) as router:
        yield router, pods


@pytest.fixture
def lying(pairs: tuple[Router, list[list[Pod]]]) -> Iterator[tuple[Router, list[list[Pod]]]]:
    yield pairs
    for pod in (one for some in pairs[1] for one in some):
        pod.app.lie = None


def reply(body: bytes) -> Reply:
    return Reply(Head(200, len(body), False, BINARY_TYPE.decode(), REVISION), body)


def errors(router: Router) -> float:
    return router.evidence().get("failed_requests", 0)


# ------------------------------------------------------------------ answers

HITS = 5000


def binary_of(ids: list[int] | list[str], rows: list[bytes] | None = None) -> bytes:
    """An answer to one query, as a searcher writes it."""
    text = isinstance(ids[0], str)
    numbers = np.array([len(str(one).encode()) for one in ids], "<u4") if text else np.array(ids, "<i8")
    kind = (1 if text else 0) + (0 if rows is None else 2)
    body = b"VXA1" + np.array([1, len(ids), kind], "<u4").tobytes() + numbers.tobytes()
    body += np.array([len(ids)], "<u4").tobytes() + np.ones(len(ids), "<f4").tobytes()
    body += "".join(map(str, ids)).encode() if text else b""
    return body if rows is None else body + np.array([len(row) for row in rows], "<u4").tobytes() + b"".join(rows)


def rest(router: Router) -> None:
    until(lambda: router.do(lambda: router.server.room.taken) == 0)


@pytest.mark.parametrize("text", [False, True])
def test_an_answer_is_never_more_than_its_bytes_and_a_little(text: bool) -> None:
    rows = [orjson.dumps({"size": number % 10, "title": "a title"}) for number in range(HITS)]
    answer = reply(binary_of([str(n) for n in range(HITS)] if text else list(range(HITS)), rows))
    asked = Question(1, HITS, text, metadata=True)
    part_of(answer, asked)  # whatever is imported
    tracemalloc.start()
    try:
        part = part_of(answer, asked)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert part.metadata is not None
    assert orjson.loads(part.metadata[HITS - 1]) == {"size": 9, "title": "a title"}
    assert peak < 1.3 * len(answer.body)
    assert len(answer.body) < part.nbytes < 1.6 * len(answer.body)


HOSTILE = {
    "no object": binary_of([1, 2], [b"{}", b"[]"]),
    "no JSON": binary_of([1, 2], [b"{}", b"{"]),
    "two objects": binary_of([1, 2], [b"{}", b"{},{}"]),
    "too short": binary_of([1, 2], [b"{}", b"{}"])[:-1],
    "too long": binary_of([1, 2], [b"{}", b"{}"]) + b" ",
    "none": binary_of([1, 2]),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_metadata_that_is_none_is_no_answer(body: bytes) -> None:
    asked = Question(1, 2, text=False, metadata=True)
    assert len(part_of(reply(binary_of([1, 2], [b"{}", b'{"a":1}'])), asked).metadata or "") == 2
    with pytest.raises(MalformedError):
        part_of(reply(body), asked)


def test_ids_begin_with_a_letter() -> None:
    good = binary_of(["é", "b"])
    split = good.replace(np.array([2, 1], "<u4").tobytes(), np.array([1, 2], "<u4").tobytes(), 1)
    part = part_of(reply(good), Question(1, 2, True))
    assert isinstance(part.ids, Texts)
    assert [part.ids[0], part.ids[1]] == ["é".encode(), b"b"]
    for bad in (split, good[:-2] + b"\xff\xff"):
        with pytest.raises(MalformedError):
            part_of(reply(bad), Question(1, 2, True))


def test_what_is_made_of_answers_counts_as_room(lying: tuple[Router, list[list[Pod]]]) -> None:
    router, _ = lying
    room, sizes = router.server.room, list[int]()
    body = {"vectors": [VECTOR] * 64, "k": 20, "include": ["metadata"]}
    take, before = room.take, errors(router)

    def noted(size: int) -> bool:
        sizes.append(size)
        return take(size)

    router.do(lambda: setattr(room, "take", noted))
    assert router.search(body)[0] == 200
    router.do(lambda: setattr(room, "take", take))
    rest(router)
    # One request, two answers, and where the metadata of each hit of these ends.
    asked, more = 64 * DIMENSION * 4, 8 * (64 * 20 + 1)
    assert sizes.count(asked) == 1
    assert sizes.count(more) == 2
    most, limit = sum(sizes), room._limit
    router.do(lambda: setattr(room, "_limit", most - 1))
    status, _, problem = router.search(body)
    assert (status, problem["type"]) == (503, "urn:vectorindex:problem:Overload")
    rest(router)
    router.do(lambda: setattr(room, "_limit", limit))
    assert errors(router) == before


def test_a_long_answer_that_is_none_is_asked_of_another_pod(lying: tuple[Router, list[list[Pod]]]) -> None:
    router, pods = lying
    body = {"vector": VECTOR, "include": ["metadata"]}
    for lie in (b"{" + LONG, b'{"results":[]}' + LONG):
        asked = pods[1][0].app.asked
        pods[1][0].app.lie = lambda request, lie=lie: Response(200, lie)  # type: ignore[misc]
        statuses = []
        while pods[1][0].app.asked == asked:
            statuses.append(router.search(body)[0])
        assert set(statuses) == {200}
    pods[1][1].app.lie = pods[1][0].app.lie
    status, _, problem = router.search(body)
    assert (status, problem["shards"]) == (503, [1])
    rest(router)


# ------------------------------------------------------------------ requests


def plan_of(dimension: int, rule: Any) -> Any:
    schema = QuerySchema(dimension, Metric.INNER_PRODUCT, {}, columns=columns_of_names({"title": "string"}))
    return Planner(schema, lambda *_: NOWHERE).plan({"filter": rule}, binary=False)


def test_a_request_is_never_more_than_a_shard_takes() -> None:
    worst = np.full((256, 1536), -1.17549435e-38, np.float32)
    what = sent_module.sent(plan_of(1536, LONG_FILTER), worst, text=False)
    assert what.line == b"POST /v1/search"
    assert worst.nbytes < len(what.body) <= sent_module.BODY_BYTES
    with pytest.raises(Problem) as told:
        sent_module.sent(plan_of(3072, LONG_FILTER), np.ones((256, 3072), np.float32), text=False)
    assert (told.value.status, told.value.kind, told.value.field) == (400, "TooMuchWork", "filter")
    most = int(str(told.value.remedy).rpartition("at most ")[2].split()[0])
    assert 100 < most < 256
    fits = np.full((most, 3072), -1.17549435e-38, np.float32)
    assert len(sent_module.sent(plan_of(3072, LONG_FILTER), fits, text=False).body) <= sent_module.BODY_BYTES
    with pytest.raises(Problem) as told:
        sent_module.sent(plan_of(16384, {"title": "t"}), np.ones((256, 16384), np.float32), text=False)
    assert (told.value.status, told.value.kind, told.value.field) == (400, "TooMuchWork", "vectors")


def test_a_long_request_is_written_on_a_thread_once(
    pairs: tuple[Router, list[list[Pod]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    router, _ = pairs
    threads: list[threading.Thread] = []

    def sent(*args: Any, **more: Any) -> sent_module.Sent:
        threads.append(threading.current_thread())
        return sent_module.sent(*args, **more)

    monkeypatch.setattr(router_module, "sent", sent)
    for _ in range(2):  # the second time its plan is known
        assert router.search({"vectors": [VECTOR] * 3, "filter": LONG_FILTER})[0] == 200
    assert len(threads) == 2
    assert router.loop.thread not in threads
    assert router.search({"vector": VECTOR})[0] == 200
    assert threads[2:] == [router.loop.thread]


def test_a_client_that_asks_more_than_a_shard_takes_is_told_and_no_shard_is_asked(
    pairs: tuple[Router, list[list[Pod]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    router, pods = pairs
    before = [pod.app.asked for some in pods for pod in some], errors(router)
    monkeypatch.setattr(sent_module, "BODY_BYTES", 48 << 10)
    status, _, problem = router.search({"vectors": [VECTOR] * 256, "filter": LONG_FILTER})
    assert (status, problem["type"], problem["field"]) == (400, "urn:vectorindex:problem:TooMuchWork", "filter")
    assert ([pod.app.asked for some in pods for pod in some], errors(router)) == before


def test_what_shards_have_not_taken_of_requests_counts_as_room(pairs: tuple[Router, list[list[Pod]]]) -> None:
    router, _ = pairs
    room = router.server.room
    limit = room._limit
    router.do(lambda: setattr(room, "_limit", 4 * DIMENSION * 100 - 1))
    status, _, problem = router.search({"vectors": [VECTOR] * 100})
    router.do(lambda: setattr(room, "_limit", limit))
    assert (status, problem["type"]) == (503, "urn:vectorindex:problem:Overload")
    rest(router)


# ------------------------------------------------------------------ refusals of shards


def refusing(status: int, kind: str, field: str | None) -> Any:
    def refuse(request: Request) -> Response:
        return Problem(status, kind, "no", field=field).response(REVISION)

    return refuse


FAULTS = [
    (400, "InvalidFilter", "filter.size"), (400, "InvalidField", "k"), (400, "MalformedJSON", None),
    (401, "Unauthorized", "Authorization"), (403, "PolicyNotUsable", None), (404, "NotFound", None),
    (413, "BodyTooLarge", "Content-Length"), (415, "UnsupportedMediaType", None), (422, "WrongDimension", "vector"),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault[0]} {fault[1]}")
def test_a_refusal_of_what_the_router_has_checked_is_a_fault_of_the_index(
    lying: tuple[Router, list[list[Pod]]], fault: tuple[int, str, str | None]
) -> None:
    router, pods = lying
    shard = router.server.shards[0]
    until(lambda: shard.alive == 2)
    pods[0][0].app.lie = refusing(*fault)
    assert [router.search({"vector": VECTOR})[0] for _ in range(8)] == [200] * 8, "another pod answers"
    before = errors(router)
    pods[0][1].app.lie = refusing(*fault)
    status, _, problem = router.search({"vector": VECTOR})
    assert (status, problem["type"], problem["shards"]) == (503, "urn:vectorindex:problem:ShardsMissing", [0])
    assert errors(router) == before + 1
    assert shard.alive == 2, "whoever may ask could else take pods out"


@pytest.mark.parametrize("fault", [(503, "Stalled", None), (503, "x y", None), (504, "Stalled", None)], ids=str)
def test_only_overload_and_a_deadline_excuse_a_shard(
    lying: tuple[Router, list[list[Pod]]], fault: tuple[int, str, str | None]
) -> None:
    router, pods = lying
    before = errors(router)
    for pod in pods[0]:
        pod.app.lie = refusing(*fault)
    status, _, problem = router.search({"vector": VECTOR})
    assert (status, problem["type"]) == (503, "urn:vectorindex:problem:ShardsMissing")
    assert errors(router) == before + 1


@pytest.mark.parametrize("fault", [(400, "TooMuchWork", "vectors"), (400, "InvalidField", "params.nprobe")])
def test_what_only_a_shard_knows_is_told_to_the_client(
    lying: tuple[Router, list[list[Pod]]], fault: tuple[int, str, str]
) -> None:
    router, pods = lying
    before = errors(router)
    for pod in pods[0]:
        pod.app.lie = refusing(*fault)
    status, _, problem = router.search({"vector": VECTOR})
    assert (status, problem["type"], problem["field"]) == (fault[0], f"urn:vectorindex:problem:{fault[1]}", fault[2])
    assert errors(router) == before


# ------------------------------------------------------------------ columns


def documents(pods: list[list[Pod]], *columns: dict[str, str]) -> list[bytes]:
    """What a pod of each shard says, with these columns for filters."""
    said = [dict(some[0].app.app._index_document) for some in pods]
    return [orjson.dumps({**one, "filterColumns": own}) for one, own in zip(said, columns, strict=True)]


def facts_of(pods: list[list[Pod]]) -> Facts:
    identity = {"name": "products", "uid": "u-1"}
    return Facts(RouteTask.model_validate({"identity": identity, "shards": addresses(pods)}))


def check(facts: Facts, number: int, document: bytes) -> str:
    """Why its pod is not asked; empty: it is."""
    try:
        facts.check(number, reply(document))
    except ValueError as error:
        return str(error)
    return ""


def test_columns_of_two_types_are_no_index_and_said(pairs: tuple[Router, list[list[Pod]]]) -> None:
    facts = facts_of(pairs[1])
    first, drifted = documents(pairs[1], {"title": "string", "size": "integer"}, {"title": "string", "size": "string"})
    assert check(facts, 0, first)
    assert check(facts, 1, drifted)
    assert facts.waiting == "column 'size' is integer in shard 0 and string in shard 1: build again"
    assert facts.waiting in facts.refused
    _, mended = documents(pairs[1], {}, {"title": "string", "size": "integer"})
    assert check(facts, 1, mended) == ""
    assert facts.waiting == ""
    assert check(facts, 1, drifted) == "its column 'size' is string, and integer elsewhere"


def test_filters_name_the_columns_that_all_shards_have(pairs: tuple[Router, list[list[Pod]]]) -> None:
    facts = facts_of(pairs[1])
    more, fewer = documents(pairs[1], {"title": "string", "size": "integer"}, {"size": "integer"})
    check(facts, 0, more)
    assert check(facts, 1, fewer) == check(facts, 0, more) == ""
    whole = facts.whole()
    assert whole.document()["filterColumns"] == {"size": "integer"}
    columns = whole.schema().columns
    assert columns is not None
    assert columns.described == {"size": "integer"}
    none, _ = documents(pairs[1], {"title": "string"}, {})
    assert check(facts, 0, none) == "its column 'size' is none that filters know, and integer elsewhere"


def test_a_router_that_waits_says_what_is_wrong(pairs: tuple[Router, list[list[Pod]]], engines: list[Engine]) -> None:
    _, pods = pairs
    good = addresses(pods)
    with pods_of(engines) as others:
        others[1][0].app.app._index_document["filterColumns"] = {"title": "integer", "size": "integer"}
        with routing([good[0], addresses(others)[1]], wait=False) as router:

            def message() -> str:
                return str(router.request("GET", "/readyz", admin=True)[2]["message"])

            until(lambda: message().startswith("column 'title' is string in shard 0 and integer in shard 1"))
    with routing([good[0], good[0]], wait=False) as router:
        until(lambda: "shard 1: it is shard 0 of 2, and not shard 1 of 2" in message())
