"""A router over shards: its answers are those of one index; pods may be lost, slow or hostile; a query counts once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson
import pytest
from sharded import DIMENSION, REVISION, Pod, Router, addresses, make_part, pods_of, routing
from waiting import until

from vectorindex_searcher.contract import ROUTER, InternalRequest, Partial, Target, shard_of, sign
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.serve.http.messages import Problem, Request, Response
from vectorindex_searcher.serve.route import pods as pods_module
from vectorindex_searcher.serve.route import router as router_module
from vectorindex_searcher.serve.route.link import Link, Room
from vectorindex_searcher.serve.route.token import ShardToken
from vectorindex_searcher.serve.search.pool import deadline_exceeded

COUNT, SHARDS = 240, 3
BINARY = {"Accept": "application/octet-stream"}


def rows(kind: type = int) -> tuple[list[Any], np.ndarray]:
    """Of whole numbers, so that many scores are equal to the last bit."""
    vectors = np.random.default_rng(7).integers(-2, 3, (COUNT, DIMENSION)).astype(np.float32)
    vectors[:, 0] = 1
    return [kind(1000 + number) for number in range(COUNT)], vectors


def parts(folder: Path, kind: type = int, shards: int = SHARDS) -> list[Engine]:
    ids, vectors = rows(kind)
    owners = np.array([shard_of(one, shards) for one in ids])
    found = []
    for number in range(shards):
        mine = np.flatnonzero(owners == number)
        found.append(make_part(folder / str(number), [ids[row] for row in mine], vectors[mine], number))
    return found


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> list[Engine]:
    return parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return make_part(tmp_path_factory.mktemp("whole") / "0", *rows(), None)


@pytest.fixture(scope="module")
def index(whole: Engine) -> Iterator[Pod]:
    """The same rows as one index, of one searcher."""
    with pods_of([whole]) as pods:
        yield pods[0][0]


@pytest.fixture(scope="module")
def steady(engines: list[Engine]) -> Iterator[Router]:
    """A router that nobody disturbs."""
    with pods_of(engines) as pods, routing(addresses(pods)) as router:
        yield router


def queries(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-2, 3, (count, DIMENSION)).astype(np.float32) + np.float32(0.5)


def asked_of(index: Pod, body: dict[str, Any]) -> dict[str, Any]:
    answer = Router(None, None, 0, index.port).search(body)  # type: ignore[arg-type]  # only asks
    assert answer[0] == 200
    return dict(answer[2])


def same(merged: dict[str, Any], exact: dict[str, Any]) -> None:
    """Scores are equal, in order; and so are ids, but for the order of ties, and which of the last ties there are."""
    assert len(merged["results"]) == len(exact["results"])
    assert merged["zeroResults"] == exact["zeroResults"]
    for mine, theirs in zip(merged["results"], exact["results"], strict=True):
        assert mine["scores"] == theirs["scores"]
        last = mine["scores"][-1] if mine["scores"] else None
        above = [
            {one for one, score in zip(r["ids"], r["scores"], strict=True) if score != last} for r in (mine, theirs)
        ]
        assert above[0] == above[1]
        assert len(set(mine["ids"])) == len(mine["ids"])


# ------------------------------------------------------------------ answers


FILTERS: list[Any] = [None, {"size": {"lt": 4}}, {"title": {"in": ["t1003", "t1100", "t1171"]}}, {"size": 77}]


@pytest.mark.parametrize("seed", range(12))
def test_a_merged_answer_is_that_of_the_whole_index(steady: Router, index: Pod, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = queries(int(rng.integers(1, 5)), seed)
    body: dict[str, Any] = {"k": int(rng.choice([1, 3, 10, 100, 1000])), "filter": FILTERS[seed % len(FILTERS)]}
    body |= {"vector": vectors[0].tolist()} if seed % 2 else {"vectors": vectors.tolist()}
    if seed % 3:
        body["minScore"] = float(rng.choice([-1.0, 4.0, 9.0, 1e6]))
    merged, exact = steady.search(body), asked_of(index, body)
    assert merged[0] == 200
    same(merged[2], exact)
    assert (merged[2]["revision"], merged[2]["k"]) == (REVISION, body["k"])
    assert merged[1]["x-vectorindex-revision"] == REVISION
    assert merged[2].get("filter", {}).get("rows") == exact.get("filter", {}).get("rows")


def test_metadata_comes_with_its_own_hit(steady: Router, index: Pod) -> None:
    body = {"vectors": queries(3).tolist(), "k": 30, "include": ["metadata"], "filter": {"size": {"gt": 2}}}
    merged = steady.search(body)[2]
    same(merged, asked_of(index, body))
    for result in merged["results"]:
        assert result["metadata"] == [{"title": f"t{one}", "size": one % 10} for one in result["ids"]]


def test_a_binary_body_and_a_binary_answer_are_those_of_json(
    steady: Router, engines: list[Engine], tmp_path: Path
) -> None:
    asked = queries(3)
    line = f"/v1/search?k=7&dimension={DIMENSION}&segment=keyword&filter={quote(orjson.dumps({'size': {'lt': 8}}))}"
    kind = {"Content-Type": "application/octet-stream"}
    by_json = steady.search({"vectors": asked.tolist(), "k": 7, "filter": {"size": {"lt": 8}}})[2]["results"]
    assert steady.request("POST", line, asked.tobytes(), headers=kind)[2]["results"] == by_json
    text = steady.request("POST", line, asked.tobytes(), headers=kind | BINARY)[2]
    ids = np.frombuffer(text, "<i8", 21, 16).reshape(3, 7)
    assert ids.tolist() == [result["ids"] for result in by_json]
    with pods_of(parts(tmp_path, str)) as pods, routing(addresses(pods)) as router:
        text = router.search({"vector": asked[0].tolist(), "k": 2}, headers=BINARY)[2]
        told = router.search({"vector": asked[0].tolist(), "k": 2})[2]["results"][0]
        assert text[-8:].decode() == "".join(told["ids"])
        assert text[:4] == b"VXA1"


def test_a_long_filter_and_a_long_body_are_passed_on(steady: Router, index: Pod) -> None:
    body = {
        "vectors": np.tile(queries(4), (60, 1)).tolist(),
        "k": 40,
        "filter": {"title": {"in": [f"t{number}" for number in range(900, 2400)]}},
    }
    same(steady.search(body)[2], asked_of(index, body))


def test_the_order_of_ties_is_always_the_same(steady: Router) -> None:
    body = {"vector": queries(1)[0].tolist(), "k": 50}
    first = steady.search(body)[2]["results"]
    assert all(steady.search(body)[2]["results"] == first for _ in range(3))


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"vector": [1.0, 2.0]}, 422, "WrongDimension"),
        ({"vector": [1.0] * DIMENSION, "k": 0}, 400, "InvalidField"),
        ({"vector": [1.0] * DIMENSION, "filter": {"nosuch": 1}}, 400, "InvalidFilter"),
        ({"vector": [1.0] * DIMENSION, "embedding": {"model": "other"}}, 422, "WrongEmbedding"),
        ({"text": "words"}, 422, "NoEncoder"),
        ({"vectors": [[1.0] * DIMENSION] * 256, "k": 1000, "params": {"nprobe": -1}}, 400, "InvalidField"),
    ],
)
def test_a_client_at_fault_is_told_so_and_no_shard_is_asked(steady: Router, body: Any, status: int, kind: str) -> None:
    before = steady.do(lambda: [shard.results.total() for shard in steady.server.shards])
    answer = steady.search(body)
    assert (answer[0], answer[2]["type"]) == (status, f"urn:vectorindex:problem:{kind}")
    assert steady.do(lambda: [shard.results.total() for shard in steady.server.shards]) == before


def test_what_shards_hold_together_is_what_the_router_says_it_serves(steady: Router, index: Pod) -> None:
    told = steady.request("GET", "/v1/index")[2]
    assert (told["count"], told["shards"], told["revision"], told["dimension"]) == (COUNT, SHARDS, REVISION, DIMENSION)
    assert told["filterColumns"] == {"title": "string", "size": "integer"}
    assert "shard" not in told
    assert steady.request("GET", "/openapi.json")[2]["openapi"] == "3.1.0"


# ------------------------------------------------------------------ evidence


def test_a_query_is_counted_once_with_the_score_of_its_first_hit(engines: list[Engine], index: Pod) -> None:
    with pods_of(engines) as pods, routing(addresses(pods)) as router:
        vector = queries(1)[0].tolist()
        best = asked_of(index, {"vector": vector, "k": 1})["results"][0]["scores"][0]
        router.search({"vector": vector})
        router.search({"vector": vector, "minScore": best + 1})
        name = router.search({"vector": vector, "track": True})[2]["results"][0]["queryId"]
        assert router.request("POST", "/v1/feedback", {"queryId": name, "rank": 2})[2] == {"counted": True}
        router.search({"vector": [1.0]})
        found = router.evidence()
        assert (found["queries"], found["requests"], found["errors"], found["zero_results"]) == (3, 3, 0, 1)
        assert (found["top_count"], found["tracked"], found["clicked"]) == (3, 1, 1)
        assert found["top_sum"] == pytest.approx(3 * best)
        text = router.request("GET", "/metrics", admin=True)[2].decode()
        assert f'vectorindex_shard_pods{{revision="{REVISION}",shard="2"}} 1.0' in text
        assert 'result="Answered"' in text
        assert f'vectorindex_queries_total{{revision="{REVISION}",segment="other"}} 3.0' in text


# ------------------------------------------------------------------ lost, slow


def ask_often(router: Router, times: int = 20) -> list[int]:
    return [router.search({"vector": one.tolist()})[0] for one in queries(times)]


def test_a_lost_pod_costs_no_query_while_another_of_its_shard_is_there(engines: list[Engine]) -> None:
    with pods_of(engines, replicas=2) as pods, routing(addresses(pods)) as router:
        assert ask_often(router) == [200] * 20
        for some in pods:
            some[0].lose()
        assert ask_often(router) == [200] * 20
        assert router.evidence()["errors"] == 0


def test_a_pod_that_fails_is_left_alone_until_it_answers_again(
    engines: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pods_of(engines, replicas=2) as pods, routing(addresses(pods)) as router:
        monkeypatch.setattr("vectorindex_searcher.serve.route.server.LOOK_SECONDS", 600)
        time.sleep(0.3)  # the look before the new number
        pods[0][0].app.lie = lambda request: Response(500, b"{}")
        assert ask_often(router, 30) == [200] * 30
        assert pods[0][0].app.asked <= 2


def test_a_lost_shard_is_503_that_names_it_and_counts_as_an_error(engines: list[Engine]) -> None:
    with pods_of(engines) as pods, routing(addresses(pods)) as router:
        pods[1][0].lose()
        status, headers, problem = router.search({"vectors": queries(2).tolist()})
        assert (status, problem["type"], problem["shards"]) == (503, "urn:vectorindex:problem:ShardsMissing", [1])
        assert "shard 1 of 3" in problem["detail"]
        assert headers["retry-after"] == "1"
        found = router.evidence()
        assert (found["queries"], found["errors"], found["failed_requests"], found["refused"]) == (2, 2, 1, 0)
        assert router.ready()  # a Service without pods would say nothing


def test_an_answer_without_a_shard_says_so_where_it_is_allowed_and_counts_as_an_error(
    engines: list[Engine], index: Pod
) -> None:
    with pods_of(engines) as pods, routing(addresses(pods), partial=Partial.ALLOW) as router:
        body = {"vector": queries(1)[0].tolist(), "k": 1000}
        assert "partial" not in router.search(body)[2]
        pods[1][0].lose()
        status, headers, answer = router.search(body)
        assert (status, answer["partial"], answer["shardsMissing"]) == (200, True, [1])
        assert headers["x-vectorindex-shards-missing"] == "1"
        exact = asked_of(index, body)["results"][0]["ids"]
        assert set(answer["results"][0]["ids"]) == {one for one in exact if shard_of(one, SHARDS) != 1}
        assert router.search(body, headers=BINARY)[1]["x-vectorindex-shards-missing"] == "1"
        found = router.evidence()
        assert (found["queries"], found["errors"], found["failed_requests"]) == (3, 2, 2)
        for some in pods[::2]:
            some[0].lose()
        assert router.search(body)[0] == 503  # without any there is no answer


def test_a_deadline_travels_along_and_a_slow_shard_keeps_nobody_longer(engines: list[Engine]) -> None:
    with pods_of(engines) as pods, routing(addresses(pods)) as router:
        seen: list[int] = []
        pods[0][0].app.lie = lambda request: (
            seen.append(int(request.headers[b"x-request-timeout-ms"])) or deadline_exceeded().response(REVISION)
        )
        headers = {"X-Request-Timeout-Ms": "400"}
        assert router.search({"vector": queries(1)[0].tolist()}, headers=headers)[0] == 504
        assert len(seen) == 1
        assert 0 < seen[0] <= 400
        pods[0][0].app.lie = None
        pods[0][0].hold()
        began = time.monotonic()
        status, _, problem = router.search({"vector": queries(1)[0].tolist()}, headers=headers)
        assert (status, problem["type"]) == (504, "urn:vectorindex:problem:DeadlineExceeded")
        assert 0.35 < time.monotonic() - began < 30
        pods[0][0].release()
        assert ask_often(router, 3) == [200] * 3


def test_an_answer_without_the_slow_shard_is_there_before_the_deadline(engines: list[Engine]) -> None:
    with pods_of(engines) as pods, routing(addresses(pods), partial=Partial.ALLOW) as router:
        pods[2][0].hold()
        answer = router.search({"vector": queries(1)[0].tolist()}, headers={"X-Request-Timeout-Ms": "500"})
        assert (answer[0], answer[2]["shardsMissing"]) == (200, [2])
        pods[2][0].release()


def test_a_pod_that_never_answers_is_given_up_and_named(engines: list[Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_module, "SHARD_SECONDS", 0.4)
    with pods_of(engines) as pods, routing(addresses(pods)) as router:
        pods[2][0].hold()
        status, _, problem = router.search({"vector": queries(1)[0].tolist()})
        assert (status, problem["shards"]) == (503, [2])
        pods[2][0].release()


def test_a_second_request_goes_to_another_pod_when_the_first_is_slow(engines: list[Engine]) -> None:
    with pods_of(engines, replicas=2) as pods, routing(addresses(pods)) as router:
        assert ask_often(router, 140) == [200] * 140
        assert router.do(lambda: router.server.shards[0].hedge_after) is not None
        shard = router.server.shards[0]
        router.do(lambda: setattr(shard, "_hedges", 5.0))  # a busy machine may have spent what was earned
        before = router.do(lambda: shard.results["Hedged"])
        pods[0][0].hold()
        until(lambda: ask_often(router, 1) == [200] and pods[0][0].app.waiting)
        assert router.do(lambda: shard.results["Hedged"]) > before
        pods[0][0].release()


def test_late_is_what_is_late_for_the_quickest_pod_and_never_one_in_twenty_of_smooth_answers() -> None:
    addresses = [f"http://127.0.0.1:{port}" for port in (1, 2)]
    shard = pods_module.Shard(0, addresses, None, lambda: b"", lambda reply: None)  # type: ignore[arg-type]
    shard._keep([("127.0.0.1", 1), ("127.0.0.1", 2)])
    quick, slow = shard.pods.values()
    smooth = np.linspace(0.010, 0.012, 256)
    for seconds in smooth:
        shard.took(slow, 5 * seconds)
    assert shard.hedge_after == pytest.approx(5 * 0.033, rel=0.02), "nobody else is known yet"
    for seconds in smooth:
        shard.took(quick, seconds)
    assert shard.hedge_after == pytest.approx(0.033, rel=0.02)
    for seconds in np.where(np.arange(512) % 10, 0.010, 0.080):  # one in ten is eight times as slow: no surprise there
        shard.took(quick, seconds)
    assert shard.hedge_after == pytest.approx(0.080)


def test_second_requests_are_paid_for_by_first_ones(engines: list[Engine]) -> None:
    shard = pods_module.Shard(0, ["http://127.0.0.1:1"], None, lambda: b"", lambda reply: None)  # type: ignore[arg-type]
    for _ in range(1000):
        shard.began()
    assert sum(shard.may_hedge() for _ in range(1000)) == int(pods_module.HEDGE_BURST)
    granted = 0
    for _ in range(1000):
        shard.began()
        granted += shard.may_hedge()
    assert granted == pytest.approx(50, abs=1)


def test_the_less_busy_of_two_pods_is_asked(engines: list[Engine]) -> None:
    with pods_of(engines, replicas=2) as pods, routing(addresses(pods)) as router:

        def picked() -> int:
            shard = router.server.shards[0]
            one, other = shard.pods.values()
            one._busy[object()] = None  # type: ignore[index]  # counted, and no more
            found = {id(shard.pick()) for _ in range(20)}
            one._busy.clear()
            return found == {id(other)}

        until(lambda: router.do(lambda: router.server.shards[0].alive == 2))
        assert router.do(picked)


def test_requests_to_a_shard_are_bounded(engines: list[Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pods_module, "OUTSTANDING", 0)
    with pods_of(engines) as pods:
        shards = addresses(pods)
        with routing(shards, wait=False) as router:
            until(lambda: "asking every shard" in router.request("GET", "/readyz", admin=True)[2]["message"])
            monkeypatch.setattr(pods_module, "OUTSTANDING", 256)
            until(lambda: router.server.users)
            router.users = router.server.users or 0
            monkeypatch.setattr(pods_module, "OUTSTANDING", 0)
            status, _, problem = router.search({"vector": queries(1)[0].tolist()})
            assert (status, problem["type"]) == (503, "urn:vectorindex:problem:Overload")
            assert router.evidence()["errors"] == 0


# ------------------------------------------------------------------ hostile, mistaken


def binary_of(
    ids: Sequence[int], scores: Sequence[float], queries: int = 1, hits: int | None = None, kind: int = 0
) -> bytes:
    head = b"VXA1" + np.array([queries, len(ids) if hits is None else hits, kind], "<u4").tobytes()
    return (
        head
        + np.array(ids, "<i8").tobytes()
        + np.array([len(ids)], "<u4").tobytes()
        + np.array(scores, "<f4").tobytes()
    )


OCTETS = b"application/octet-stream"
LIES = {
    "more hits than asked for": Response(200, binary_of(range(11), [1.0] * 11), OCTETS),
    "a score that is no number": Response(200, binary_of([5], [float("nan")]), OCTETS),
    "an infinite score": Response(200, binary_of([5], [float("inf")]), OCTETS),
    "another number of queries": Response(200, binary_of([5], [1.0], queries=2), OCTETS),
    "fewer bytes than it says": Response(200, binary_of([5], [1.0])[:-1], OCTETS),
    "more bytes than it says": Response(200, binary_of([5], [1.0]) + b"x", OCTETS),
    "hits that are not there": Response(200, binary_of([5], [1.0], hits=4_000_000_000), OCTETS),
    "nothing": Response(200, b"", OCTETS),
    "ids of another kind": Response(200, binary_of([5], [1.0], kind=1), OCTETS),
    "metadata that nobody asked for": Response(200, binary_of([5], [1.0], kind=2), OCTETS),
    "JSON": Response(200, orjson.dumps({"results": [{"ids": [5], "scores": [1.0]}]})),
    "a status of nobody": Response(418, b"{}"),
    "a refusal that is none": Response(400, b"[]"),
    "a long refusal": Response(422, b" " * 100_000),
}


@pytest.mark.parametrize("name", LIES)
def test_a_shard_that_answers_nonsense_is_a_missing_one(engines: list[Engine], name: str, lying: Any) -> None:
    router, pods = lying
    pods[1][0].app.lie = lambda request: LIES[name]
    status, _, problem = router.search({"vector": queries(1)[0].tolist()})
    assert (status, problem.get("shards")) == (503, [1])


@pytest.fixture(scope="module")
def lying(engines: list[Engine]) -> Iterator[tuple[Router, list[list[Pod]]]]:
    with pods_of(engines) as pods, routing(addresses(pods)) as router:
        yield router, pods


def test_what_a_shard_refuses_is_told_as_it_says_it(lying: Any) -> None:
    router, pods = lying

    def refuse(request: Request) -> Response:
        return Problem(400, "TooMuchWork", "no room", field="k", remedy="less").response(REVISION)

    pods[1][0].app.lie = refuse
    status, _, problem = router.search({"vector": queries(1)[0].tolist()})
    assert (status, problem["type"], problem["field"]) == (400, "urn:vectorindex:problem:TooMuchWork", "k")


def test_all_room_is_given_back(lying: Any, steady: Router) -> None:
    def rest(router: Router) -> bool:
        assert router.server.router is not None
        return (router.server.room.taken, router.server.router.under_way) == (0, 0)

    until(lambda: lying[0].do(lambda: rest(lying[0])))
    until(lambda: steady.do(lambda: rest(steady)))


def test_pods_of_another_revision_shard_or_plan_are_never_asked(engines: list[Engine], tmp_path: Path) -> None:
    """Addresses are used again; a list may be in the wrong order; another build may have the same digest."""
    other = make_part(tmp_path / "other", *rows(), 1, plan="b" * 64)
    mixed = [engines[0], other, engines[2]]
    with pods_of(engines) as pods, pods_of(engines, revision="products-old") as old, pods_of(mixed) as replanned:
        good = addresses(pods)
        wrong = [
            [good[1], good[0], good[2]],
            [good[0], addresses(old)[1], good[2]],
            [good[0], addresses(replanned)[1], good[2]],
            good[:2],
        ]
        for shards in wrong:
            with routing(shards, wait=False, revision=REVISION) as router:
                facts = router.server.facts
                until(lambda facts=facts: facts.refused or len(facts._found) > 1)  # type: ignore[misc]
                assert not router.ready()
        # Beside a good one a wrong one does no harm.
        with routing([good[0], (*addresses(replanned)[1], *addresses(old)[1], *good[1]), good[2]]) as router:
            assert ask_often(router, 10) == [200] * 10
            assert old[1][0].app.asked == replanned[1][0].app.asked == 0


def test_a_router_is_ready_once_every_shard_has_answered(engines: list[Engine]) -> None:
    with pods_of(engines) as pods:
        pods[2][0].app.lie = lambda request: Response(500, b"")
        with routing(addresses(pods), wait=False, partial=Partial.ALLOW) as router:
            until(lambda: pods[2][0].app.asked > 1)
            status, _, told = router.request("GET", "/readyz", admin=True)
            assert (status, told["ready"], told["message"]) == (503, False, "asking every shard")
            pods[2][0].app.lie = None
            until(router.ready)
    with routing([("http://127.0.0.1:1",), ("http://127.0.0.1:1",)], wait=False) as router:
        assert router.request("GET", "/readyz", admin=True)[2]["message"] == "waiting for shards 0, 1 of 2"


def test_a_name_stands_for_every_address_that_it_resolves_to(engines: list[Engine]) -> None:
    with pods_of(engines) as pods:
        named = [[one.replace("127.0.0.1", "localhost") for one in some] for some in addresses(pods)]
        with routing(named) as router:
            assert ask_often(router, 3) == [200] * 3


def test_a_router_opens_no_faiss() -> None:
    code = "import vectorindex_searcher.serve.route.server, sys; sys.exit('faiss' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_token_for_shards_is_shown_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("# whose\nfirst-token-for-shards\n")
    token = ShardToken(file)
    assert token.header == b"Authorization: Bearer first-token-for-shards\r\n"
    file.write_text("second-token-for-all-shards\n")
    token.refresh()
    assert token.header == b"Authorization: Bearer second-token-for-all-shards\r\n"
    file.write_text("two words\n")
    token.refresh()
    assert token.header == b""
    assert ShardToken(None).header == b""


def test_signed_requests_name_the_router_and_no_shard(engines: list[Engine]) -> None:
    """An address that was a shard's must not pass for a router's, or its part of the evidence would be all."""
    with pods_of(engines) as pods, routing(addresses(pods), revision=REVISION) as router:
        for shard, status in ((ROUTER, 200), (0, 421)):
            headers = sign("", InternalRequest("GET", "/v1/evidence"), Target("u-1", REVISION, shard), time.time())
            assert router.request("GET", "/v1/evidence", admin=True, headers=headers)[0] == status


def test_a_pod_that_said_to_be_another_is_not_even_asked_where_no_other_answers(engines: list[Engine]) -> None:
    with pods_of(engines) as pods, pods_of(engines, revision="products-old") as old:
        both = [(*one, *other) for one, other in zip(addresses(pods), addresses(old), strict=True)]
        with routing(both, revision=REVISION) as router:

            def told_apart() -> bool:
                return all(pod.wrong is not pod.alive for shard in router.server.shards for pod in shard.pods.values())

            until(lambda: router.do(told_apart))

            def asked() -> bool:
                shard = router.server.shards[0]
                for pod in shard.pods.values():
                    pod.alive = False
                picked = shard.pick()
                return picked is not None and not picked.wrong and shard.pick([picked]) is None

            assert router.do(asked)


def test_a_long_body_is_one_object_whatever_the_number_of_shards() -> None:
    """Eight megabytes times 64 shards, of a client whose shards take it slowly, would be the router's end."""

    class Transport:
        def __init__(self) -> None:
            self.sent: list[bytes] = []

        def is_closing(self) -> bool:
            return False

        def write(self, data: bytes) -> None:
            self.sent.append(data)

        def writelines(self, parts: Sequence[bytes]) -> None:
            self.sent += parts

    body = bytes(1 << 20)
    for _ in range(3):
        transport, link = Transport(), Link(Room())
        link.connection_made(transport)  # type: ignore[arg-type]
        link.ask(b"POST / HTTP/1.1\r\n\r\n", body, 10, lambda outcome: None)
        assert transport.sent[1] is body


def test_answers_on_their_way_have_a_bounded_room(engines: list[Engine]) -> None:
    with pods_of(engines) as pods, routing(addresses(pods)) as router:
        router.do(lambda: setattr(router.server.room, "_limit", 0))
        status, _, problem = router.search({"vector": queries(1)[0].tolist()})
        assert (status, problem["type"]) == (503, "urn:vectorindex:problem:Overload")
        assert router.evidence()["errors"] == 0
        router.do(lambda: setattr(router.server.room, "_limit", 1 << 20))
        assert ask_often(router, 3) == [200] * 3
