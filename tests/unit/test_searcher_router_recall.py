"""Live recall at a router: shards scan their rows for a sample of what users asked, and what users got of all shards is
judged by the nearest rows of all of them."""

from __future__ import annotations

import asyncio
import http.client
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from sharded import DIMENSION, IDENTITY, REVISION, Pod, Router, addresses, admin_ports, make_part, pods_of, routing
from waiting import until

from vectorindex_searcher import contract
from vectorindex_searcher.contract import NearestQuestion, NearestRows, revision_key, shard_of
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.index.selection.rowset import RowSet
from vectorindex_searcher.serve.evidence import nearest
from vectorindex_searcher.serve.evidence.live_sample import Sampled
from vectorindex_searcher.serve.evidence.nearest import NearestScans, question_of
from vectorindex_searcher.serve.route import live_recall
from vectorindex_searcher.serve.route.live_recall import MergedRecall, judge, questions
from vectorindex_searcher.serve.settings import Settings

KEY = revision_key("k" * 32, "uid-1")
COUNT, SHARDS, K = 400, 3, 10
TASK = contract.ServeTask(
    identity=IDENTITY,
    revision=REVISION,
    digest="d1",
    manifest_sha256="",
    shard=0,
    live_recall=True,
    artifacts=contract.Location(folder="/nowhere"),
)


class Shards:
    """Rows in parts whose indexes hold them coarsely, so that some of the nearest are not found."""

    def __init__(self, folder: Path, kind: type = int, coarse: float = 0.6) -> None:
        self.vectors = np.random.default_rng(3).standard_normal((COUNT, DIMENSION)).astype(np.float32)
        self.ids = [kind(1000 + row) for row in range(COUNT)]
        held = np.round(self.vectors / coarse).astype(np.float32) * np.float32(coarse)
        owners = np.array([shard_of(one, SHARDS) for one in self.ids])
        self.engines: list[Engine] = []
        self.paths: list[Path] = []
        for number in range(SHARDS):
            mine = np.flatnonzero(owners == number)
            self.engines.append(make_part(folder / str(number), [self.ids[row] for row in mine], held[mine], number))
            self.paths.append(folder / str(number) / "vectors.npy")
            np.save(self.paths[-1], self.vectors[mine])

    def recall(self, query: np.ndarray, answer: Sequence[Any], gone: Sequence[int] = ()) -> float:
        there = [row for row in range(COUNT) if row not in gone]
        near = sorted(there, key=lambda row: -float(self.vectors[row] @ query))[:K]
        return len({self.ids[row] for row in near} & set(answer)) / K


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_recall, "ROUND_SECONDS", 0.1)
    monkeypatch.setattr(nearest, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(nearest, "CPU_SHARE", 1.0)


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    return Shards(tmp_path)


@contextmanager
def scanning(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[NearestScans]]:
    made = [NearestScans(TASK, engine) for engine in shards.engines]
    by_engine = dict(zip(map(id, shards.engines), shards.paths, strict=True))
    monkeypatch.setattr(nearest, "fetch_vectors", lambda task, engine, stop, note: by_engine[id(engine)])
    for one in made:
        one._since -= 60.0  # as if it had begun long before the first query
        one.start()
    yield made
    for one in made:
        one.stop()


@contextmanager
def routed(shards: Shards, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Iterator[tuple[Router, list[list[Pod]]]]:
    with scanning(shards, monkeypatch) as scans, pods_of(shards.engines, key=KEY, scans=scans) as pods:
        task: dict[str, Any] = {"live_recall": True, "admin_ports": admin_ports(pods), "revision": REVISION, **more}
        with routing(addresses(pods), settings=Settings(internal_key=KEY), **task) as router:
            yield router, pods


def live(router: Router) -> tuple[int, float]:
    """Queries that were judged, and the sum of their recall."""
    path, target = "/v1/evidence", contract.Target(IDENTITY.uid, REVISION, contract.ROUTER)
    headers = contract.sign(KEY, contract.InternalRequest("GET", path), target, time.time())
    _, _, document = router.request("GET", path, admin=True, headers=headers)
    buckets = contract.Evidence.model_validate(document).buckets
    return sum(one.live_queries for one in buckets), sum(one.live_recall_sum for one in buckets)


def ask(router: Router, count: int, **more: Any) -> tuple[np.ndarray, list[list[Any]]]:
    queries = np.random.default_rng(count).standard_normal((count, DIMENSION)).astype(np.float32)
    answers = []
    for query in queries:
        status, _, body = router.search({"vector": query.tolist(), "k": K, **more})
        assert status == 200
        answers.append(body["results"][0]["ids"])
    return queries, answers


# ------------------------------------------------------------------ as a whole


@pytest.mark.parametrize("kind", [int, str])
def test_what_users_got_is_judged_by_the_nearest_rows_of_all_shards(
    kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = Shards(tmp_path, kind)
    with routed(shards, monkeypatch) as (router, _):
        queries, answers = ask(router, 25)
        until(lambda: live(router)[0] == 25)
        expected = sum(shards.recall(query, answer) for query, answer in zip(queries, answers, strict=True))
        assert live(router)[1] == pytest.approx(expected)
        assert 5 < expected < 24  # coarse indexes miss some


def test_only_plain_answers_of_all_shards_are_judged_and_before_a_bound_cuts_them(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    with routed(shards, monkeypatch, partial=contract.Partial.ALLOW) as (router, pods):
        ask(router, 3, filter={"size": {"lt": 9}})
        query = np.ones(DIMENSION, np.float32)
        found = router.search({"vector": query.tolist(), "k": K})[2]["results"][0]["ids"]
        assert not router.search({"vector": query.tolist(), "k": K, "minScore": 1e6})[2]["results"][0]["ids"]
        until(lambda: live(router)[0] == 2)
        assert live(router)[1] == pytest.approx(2 * shards.recall(query, found))
        pods[1][0].lose()
        ask(router, 4)
        time.sleep(0.5)
        assert live(router)[0] == 2


def test_a_shard_that_does_not_scan_loses_the_round_and_no_more(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    with routed(shards, monkeypatch) as (router, pods):
        pods[2][0].finds = False
        ask(router, 5)
        time.sleep(0.5)
        assert live(router)[0] == 0
        pods[2][0].finds = True
        ask(router, 6)
        until(lambda: live(router)[0] == 6)


def test_ids_that_were_deleted_count_neither_way(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    with routed(shards, monkeypatch) as (router, _):
        gone = list(range(0, COUNT, 3))
        for engine in shards.engines:
            ids = engine.ids(np.arange(engine.count))
            deleted = np.array([row for row, one in enumerate(ids) if int(one) - 1000 in gone])
            engine.hide(RowSet.of_rows(deleted, engine.count))
        time.sleep(contract.BUCKET_SECONDS + 0.5)  # what was asked in the same bucket may be of before
        queries, answers = ask(router, 8)
        until(lambda: live(router)[0] == 8)
        expected = sum(shards.recall(query, answer, gone) for query, answer in zip(queries, answers, strict=True))
        assert live(router)[1] == pytest.approx(expected)


# ------------------------------------------------------------------ who may ask a shard


def post(pod: Pod, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", pod.admin_port, timeout=60)
    connection.request("POST", contract.NEAREST_PATH, body, headers)
    response = connection.getresponse()
    found = response.status, response.read()
    connection.close()
    return found


def test_a_stranger_orders_no_scan(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    body = questions([sampled([1000])], SHARDS)[0]
    target = contract.Target(IDENTITY.uid, REVISION, 0)
    request = contract.InternalRequest("POST", contract.NEAREST_PATH, body)
    with scanning(shards, monkeypatch) as scans:
        with pods_of(shards.engines, key=KEY, scans=scans) as pods:
            pod = pods[0][0]
            assert post(pod, body, {})[0] == 401
            assert post(pod, body, contract.sign("0" * 64, request, target, time.time()))[0] == 403
            assert post(pod, body + b"0", contract.sign(KEY, request, target, time.time()))[0] == 403
            assert post(pod, body, contract.sign(KEY, request, target, time.time()))[0] == 200
            assert post(pod, b"0" * (contract.NEAREST_BYTES + 1), {})[0] == 413
        with pods_of(shards.engines, scans=scans) as pods:  # without a key nobody can prove who he is
            status, answer = post(pods[0][0], body, {})
            assert (status, b"KeyNeeded" in answer) == (403, True)


def test_so_many_requests_wait_and_no_more(shards: Shards) -> None:
    idle = NearestScans(TASK, shards.engines[0])
    assert [idle.ask(b"", lambda found: None) for _ in range(contract.NEAREST_WAITING + 1)] == [True] * 4 + [False]


HEAD, VECTOR = orjson.dumps({"depths": [2], "ids": [[5]]}), bytes(4 * DIMENSION)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}\n",
        HEAD,
        HEAD + b"\n" + b"0" * 7,
        HEAD + b"\n" + np.full(DIMENSION, np.nan, "<f4").tobytes(),
        orjson.dumps({"depths": [0], "ids": [[]]}) + b"\n" + VECTOR,
        orjson.dumps({"depths": [101], "ids": [[]]}) + b"\n" + VECTOR,
        orjson.dumps({"depths": [1], "ids": [["5"]]}) + b"\n" + VECTOR,
        orjson.dumps({"depths": [1], "ids": []}) + b"\n" + VECTOR,
        b'{"depths": [1], "ids": [[99999999999999999999]]}\n' + VECTOR,
    ],
)
def test_a_request_that_is_none_is_refused(data: bytes) -> None:
    asked, queries = question_of(HEAD + b"\n" + VECTOR, DIMENSION, "int64")
    assert (asked, queries.shape) == (NearestQuestion(depths=(2,), ids=((5,),)), (1, DIMENSION))
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        question_of(data, DIMENSION, "int64")


def test_a_request_that_is_none_ends_no_scanning(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[bytes] = []
    with scanning(shards, monkeypatch) as scans:
        for body in (b"nonsense", questions([sampled([1000])], SHARDS)[0]):
            assert scans[0].ask(body, found.append)
        until(lambda: len(found) == 2)
    assert found[0] == b""
    assert len(NearestRows.model_validate_json(found[1]).scores[0]) == 2


def test_a_scan_beyond_its_budget_says_by_how_much(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "LONGEST_SCAN_SECONDS", 1e-9)
    found: list[bytes] = []
    with scanning(shards, monkeypatch) as scans:
        assert scans[0].ask(questions([sampled([1000])], SHARDS)[0], found.append)
        until(lambda: found)
    told = NearestRows.model_validate_json(found[0])
    assert (told.times > 1, told.scores) == (True, ())


# ------------------------------------------------------------------ judging


def sampled(ids: Sequence[Any], k: int = 2) -> Sampled:
    rows = np.full(k, None, object)
    rows[: len(ids)] = ids
    return Sampled(0, "Other", np.zeros(DIMENSION, np.float32), rows, random.random(), overall=True)


def said(
    scores: Sequence[float], hits: Sequence[float | None], steady: float = 100.0, width: float = 0.0
) -> NearestRows:
    return NearestRows(
        steady_seconds=steady, scores=(tuple(scores),), widths=((width,) * len(scores),), hits=(tuple(hits),)
    )


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([said([5, 4], [5.0]), said([3, 2], [3.0])], [0.5]),
        ([said([5, 1], [5.0]), said([3, 2], [3.0])], [1.0]),
        ([said([5, 4], [5.0]), said([3.9, 2], [3.9], width=0.2)], [0.5]),
        ([said([5, 4], [5.0], width=0.2), said([3.9, 2], [3.9])], [1.0]),  # as near as the second is a tie
        ([said([5], [5.0]), said([], [])], [1.0]),  # one row is all there is
        ([said([], []), said([], [])], [1.0]),
        ([said([5, 4], []), said([3, 2], [])], [0.0]),
        ([said([5, 4], [None]), said([3, 2], [3.0])], []),  # deleted since
        ([said([5, 4], [5.0], steady=0.5), said([3, 2], [3.0])], []),  # other rows could be answered then
    ],
)
def test_recall_is_of_the_nearest_of_all(parts: list[NearestRows], expected: list[float]) -> None:
    assert [one.recall for one in judge([sampled([1, 2])], np.array([1.0]), parts)] == expected


def test_a_shard_that_tells_of_other_queries_is_not_believed() -> None:
    with pytest.raises(ValueError, match="another number"):
        judge([sampled([1]), sampled([2])], np.array([1.0, 1.0]), [said([1], [1.0])])


def test_each_shard_is_asked_for_its_own_ids_alone() -> None:
    ids = [7, 8, 9, 10, 11]
    asked = [question_of(one, DIMENSION, "int64")[0] for one in questions([sampled(ids, 6)], SHARDS)]
    assert [one.depths for one in asked] == [(6,)] * SHARDS
    for number, one in enumerate(asked):
        assert set(one.ids[0]) == {mine for mine in ids if shard_of(mine, SHARDS) == number}


class Told(MergedRecall):
    """Whose shards say this."""

    def __init__(self, told: list[NearestRows]) -> None:
        self._share, self._shards, self.told = 1.0, [None] * len(told), told  # type: ignore[list-item]

    async def _nearest(self, shard: Any, body: bytes) -> NearestRows | None:
        return self.told.pop(0)


def test_scans_that_cost_too_much_are_of_fewer_queries_the_next_time() -> None:
    sample = [sampled([1]) for _ in range(1000)]
    judging = Told([NearestRows(), NearestRows(times=4.0)])
    assert len(judging._affordable(sample)) == 1000
    assert asyncio.run(judging._ask([b"", b""])) is None
    assert 200 < len(judging._affordable(sample)) < 400
    judging.told = [NearestRows(times=1e6), NearestRows()]
    assert asyncio.run(judging._ask([b"", b""])) is None
    assert 64 <= len(judging._affordable(sample)) < 100
    judging.told = [NearestRows(), NearestRows()]
    assert asyncio.run(judging._ask([b"", b""])) is not None
    assert len(judging._affordable(sample)) > 100


def test_a_request_of_long_vectors_is_of_fewer_queries() -> None:
    rows = np.full(1, None, object)
    long = [Sampled(0, "Other", np.zeros(65536, np.float32), rows, at / 100, overall=True) for at in range(100)]
    assert len(Told([NearestRows()])._affordable(long)) == 12


def test_many_rows_of_many_shards_are_of_fewer_queries() -> None:
    deep = [sampled([1], 100) for _ in range(1000)]
    assert len(Told([NearestRows()] * 3)._affordable(deep)) == 1000
    assert len(Told([NearestRows()] * 64)._affordable(deep)) == 163
