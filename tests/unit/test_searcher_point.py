"""At which operating point a pod answers: the latest decision holds, in every process, and evidence is of one point."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
from clocks import Clock
from searcher_process import started
from served import Published, publish_all

from vectorindex_operator.adapters.evidence import HttpSearchers
from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_operator.core.judging.evidence import PodCounts
from vectorindex_operator.core.judging.questions import Purpose, Question
from vectorindex_searcher import contract
from vectorindex_searcher.contract import PointOrder, ServingPoint
from vectorindex_searcher.serve.admin import AdminApp
from vectorindex_searcher.serve.evidence.recorder import Outcome
from vectorindex_searcher.serve.evidence.ring import EvidenceRing, LiveTally
from vectorindex_searcher.serve.http.messages import Problem, Request
from vectorindex_searcher.serve.point import PodPoint, serving_points
from vectorindex_searcher.serve.settings import Settings
from vectorindex_searcher.serve.traffic import Traffic

DEFAULT, CONSERVATIVE = ServingPoint.DEFAULT, ServingPoint.CONSERVATIVE
BOTH = (DEFAULT, CONSERVATIVE)
COLUMNS = contract.EVIDENCE_COLUMNS_TYPE.encode()


# ---------------------------------------------------------------- what the point is


def engine(default: dict[str, int], conservative: dict[str, int] | None) -> Any:
    point = None if conservative is None else contract.OperatingPoint(
        params=conservative, recall=1, recall_low=1, latency_us=1
    )  # fmt: skip
    limits = {"nprobe": (1, 256), "k_factor": (1, 64)}
    return SimpleNamespace(
        manifest=SimpleNamespace(conservative_point=point), default_params=default, param_limits=limits
    )


def test_nothing_is_searched_with_less_than_at_the_default_point() -> None:
    made = engine({"nprobe": 8, "k_factor": 4}, {"nprobe": 32, "k_factor": 2})
    points = serving_points(made, {"keyword": {"nprobe": 64}}, ("keyword", "question"))
    assert points[CONSERVATIVE] == {
        "keyword": {"nprobe": 64, "k_factor": 4},
        "question": {"nprobe": 32, "k_factor": 4},
        "other": {"nprobe": 32, "k_factor": 4},
    }
    assert points[DEFAULT] == {"keyword": {"nprobe": 64}}


@pytest.mark.parametrize("conservative", [None, {"nprobe": 8}, {"nprobe": 4, "k_factor": 1}, {"efSearch": 500}, {}])
def test_a_point_that_is_no_wider_is_none(conservative: dict[str, int] | None) -> None:
    assert tuple(serving_points(engine({"nprobe": 8, "k_factor": 4}, conservative), {}, ("keyword",))) == (DEFAULT,)


# ---------------------------------------------------------------- orders


class Pod:
    """A pod's point, and what its processes were told."""

    def __init__(self, points: tuple[ServingPoint, ...] = BOTH) -> None:
        self.told: list[ServingPoint] = []
        self.hangs = False
        self.ring = EvidenceRing(("keyword",), Clock())
        self.point = PodPoint(self.ring, self.use)
        self.points = points

    async def use(self, point: ServingPoint) -> None:
        self.told.append(point)
        await asyncio.sleep(0)
        if self.hangs:
            raise Problem(503, "Stalled", "search process 1 has not said what it counted")


def run(work: Callable[[Pod], Coroutine[Any, Any, None]], pod: Pod | None = None) -> Pod:
    made = pod or Pod()

    async def main() -> None:
        await made.point.open(made.points)
        await work(made)

    asyncio.run(main())
    return made


def order(point: ServingPoint, at: float) -> PointOrder:
    return PointOrder(point=point, decided_at=at)


def test_the_latest_decision_holds_whatever_comes_after_it() -> None:
    async def work(pod: Pod) -> None:
        await pod.point.take(order(CONSERVATIVE, 20.0))
        for late in (order(DEFAULT, 10.0), order(DEFAULT, 20.0), order(CONSERVATIVE, 19.0)):
            with pytest.raises(Problem) as refused:
                await pod.point.take(late)
            assert (refused.value.status, refused.value.kind) == (409, "OldDecision")
        await pod.point.take(order(CONSERVATIVE, 20.0))
        assert pod.point.point == CONSERVATIVE
        await pod.point.take(order(DEFAULT, 30.0))
        assert pod.point.point == DEFAULT

    assert run(work).told == [CONSERVATIVE, DEFAULT]


def test_an_order_that_comes_while_the_index_is_loaded_is_obeyed_before_there_are_users() -> None:
    pod = Pod()

    async def main() -> None:
        await pod.point.take(order(CONSERVATIVE, 20.0))
        assert (pod.told, pod.point.point) == ([], "")
        await pod.point.open(BOTH)
        assert (pod.told, pod.point.point) == ([CONSERVATIVE], CONSERVATIVE)

    asyncio.run(main())


def test_a_point_that_the_index_has_not_is_not_used() -> None:
    async def work(pod: Pod) -> None:
        await pod.point.take(order(CONSERVATIVE, 20.0))
        assert pod.point.point == DEFAULT

    assert run(work, Pod((DEFAULT,))).told == []


def test_of_two_orders_at_once_the_later_one_stays() -> None:
    async def work(pod: Pod) -> None:
        await asyncio.gather(
            pod.point.take(order(CONSERVATIVE, 20.0)),
            pod.point.take(order(DEFAULT, 21.0)),
            pod.point.take(order(CONSERVATIVE, 22.0)),
        )
        assert pod.point.point == CONSERVATIVE

    assert run(work).told[-1] == CONSERVATIVE


def test_where_a_process_does_not_answer_nobody_says_at_which_point_it_is() -> None:
    async def work(pod: Pod) -> None:
        pod.hangs = True
        with pytest.raises(Problem):
            await pod.point.take(order(CONSERVATIVE, 20.0))
        assert pod.point.point == ""
        pod.hangs = False
        await pod.point.take(order(DEFAULT, 21.0))  # some of them may have heard the other
        assert pod.point.point == DEFAULT

    assert run(work).told == [CONSERVATIVE, DEFAULT]


# ---------------------------------------------------------------- evidence is of one point


def evidence(pod: Pod, cursor: str = "") -> contract.EvidenceColumns:
    class task:  # noqa: N801 - stands for a ServeTask
        class identity:  # noqa: N801
            uid = "u"

        revision = "r"
        shard = None

    given: Any = task
    nothing: Any = None
    app = AdminApp(given, Settings(pod="p"), Traffic(), pod.ring, nothing, str, point=pod.point)
    headers = {b"accept": COLUMNS, contract.EVIDENCE_CURSOR_HEADER.lower().encode(): cursor.encode()}

    async def ask() -> bytes:
        coming: Any = app.handle(Request(b"GET", b"/v1/evidence", headers, b"", True, 0.0))
        body: bytes = (await coming).body
        return body

    return contract.EvidenceColumns.model_validate_json(asyncio.run(ask()))


def test_what_was_counted_at_another_point_is_no_evidence_and_counts_since_the_start() -> None:
    async def nothing(pod: Pod) -> None:
        pod.ring.record(Outcome("keyword", 4), 200, 0.001)

    async def change(pod: Pod) -> None:
        await pod.point.take(order(CONSERVATIVE, 20.0))

    pod = run(nothing)
    before = evidence(pod)
    assert (before.point, before.points, sum(before.counts["queries"])) == (DEFAULT, BOTH, 4)
    run(change, pod)
    bucket = before.bucket[0]
    pod.ring.record(Outcome("keyword", 4), 200, 0.001)  # in the bucket in which it changed: of both
    pod.ring.record_live(LiveTally(bucket, "keyword", 3, 1.0))  # what was answered before is judged later
    after = evidence(pod, before.cursor)
    assert (after.point, after.whole, after.bucket) == (CONSERVATIVE, True, [])
    assert after.incarnation != before.incarnation
    clock: Any = pod.ring._clock
    clock.now += contract.BUCKET_SECONDS
    pod.ring.record(Outcome("keyword", 5), 200, 0.001)
    fresh = evidence(pod, after.cursor)
    assert (fresh.whole, fresh.bucket, sum(fresh.counts["queries"])) == (False, [bucket + 1], 5)
    assert next(row.queries for row in pod.ring.totals() if row.segment == "keyword") == 13
    assert [row["queries"] for row in pod.ring.buckets(0.0)] == [5]  # whoever knows no columns is told no other


# ---------------------------------------------------------------- the whole


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_all(tmp_path_factory.mktemp("points"), ef_search=1, conservative=800)


def ask(port: int, path: str, document: object) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, orjson.dumps(document))
        response = connection.getresponse()
        return response.status, orjson.loads(response.read())
    finally:
        connection.close()


def recall(published: Published, port: int, **more: Any) -> float:
    """Of forty queries, each on a connection of its own: it may be any process that answers."""
    queries = published.vectors[:40] + np.float32(0.1)
    scores = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ published.vectors.T
    found = 0
    for query, mine in zip(queries, scores, strict=True):
        status, answer = ask(port, "/v1/search", {"vector": query.tolist(), "k": 5, **more})
        assert status == 200
        found += len(set(answer["results"][0]["ids"]) & set(np.argsort(-mine)[:5].tolist()))
    return found / 200


@pytest.mark.parametrize("processes", [1, 2])
def test_every_process_answers_at_the_point_that_was_ordered_last(published: Published, processes: int) -> None:
    with started(published.task, VECTORINDEX_PROCESSES=str(processes)) as searcher:
        admin, port = searcher.port("admin port open"), searcher.port()
        assert recall(published, port) < 0.9
        status, answer = ask(admin, contract.POINT_PATH, {"point": "Conservative", "decidedAt": 20.5})
        assert (status, answer["point"]) == (200, "Conservative")
        assert recall(published, port) > 0.99
        assert recall(published, port, segment="keyword") > 0.99
        assert recall(published, port, params={"efSearch": 1}) < 0.9, "what a request says itself"
        assert ask(admin, contract.POINT_PATH, {"point": "Default", "decidedAt": 20.25})[0] == 409
        assert recall(published, port) > 0.99
        assert ask(admin, contract.POINT_PATH, {"point": "Default", "decidedAt": 21})[0] == 200
        assert recall(published, port) < 0.9
        for wrong in ({"point": "Widest", "decidedAt": 1}, {"point": "Default"}, {"point": "Default", "decidedAt": -1}):
            assert ask(admin, contract.POINT_PATH, wrong)[0] == 400
        operator = HttpSearchers(admin_port=admin)
        to = Addressee(contract.Target(published.task.identity.uid, published.task.revision), "uid")
        operator.order(to, ["127.0.0.1"], order(CONSERVATIVE, 30.0)).result()
        question = Question(published.task.revision, 0.0, Purpose.WATCH)
        (told,) = operator.evidence(to, [("pod-1", "127.0.0.1")], question).result()
        assert isinstance(told.evidence, PodCounts), told.problem
        assert (told.evidence.point, told.evidence.points) == (CONSERVATIVE, BOTH)
