"""Policies at a router, over real searchers: no row of others is answered, whatever a request says."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from onnx_files import write_encoder
from sharded import DIMENSION, Pod, Router, addresses, make_part, pods_of, routing
from tenants import COUNT, POLICIES, SIZES, TAGS, TENANTS, TOKEN, a_request, ids_of
from waiting import until

from vectorindex_searcher.contract import EncoderTask, Location, OnnxFolder, Partial, shard_of
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.serve.http.messages import Problem, Request, Response
from vectorindex_searcher.serve.route import router as router_module
from vectorindex_searcher.serve.route.server import Told
from vectorindex_searcher.serve.route.token import ShardToken
from vectorindex_searcher.serve.settings import Settings

SHARDS = 3
router_module.SHARD_SECONDS = 60.0  # a busy machine misses no shard but those that a test wants missed
OWNERS = np.array([shard_of(one, SHARDS) for one in range(COUNT)])
QUERY = [1.0, *[0.0] * (DIMENSION - 1)]


def a_part(folder: Path, number: int, without: str = "") -> Engine:
    """The rows of one shard, whose metadata may lack a column."""
    vectors = np.random.default_rng(3).standard_normal((COUNT, DIMENSION)).astype(np.float32)
    mine = np.flatnonzero(number == OWNERS)
    tags = pa.array([TAGS[row] for row in mine], pa.list_(pa.string()))
    columns = {"tenant": TENANTS[mine], "size": SIZES[mine], "tags": tags}
    kept = {name: one for name, one in columns.items() if name != without}
    return make_part(folder / f"{number}{without}", mine.tolist(), vectors[mine], number, columns=kept)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> list[Engine]:
    folder = tmp_path_factory.mktemp("parts")
    return [a_part(folder, number) for number in range(SHARDS)]


@dataclass
class Shop:
    """A router before shards, all of whose tokens have policies, and their files."""

    router: Router
    pods: list[list[Pod]]
    folder: Path

    def ask(self, token: str, body: object, path: str = "/v1/search", **more: Any) -> tuple[int, dict[str, str], Any]:
        headers = {"Authorization": f"Bearer {TOKEN[token]}", **more.pop("headers", {})}
        return self.router.request(more.pop("method", "POST"), path, body, headers=headers, **more)

    def ask_shard(self, number: int, token: str, body: object) -> tuple[int, dict[str, str], Any]:
        """Past the router."""
        shard = Router(None, None, 0, self.pods[number][0].port)  # type: ignore[arg-type]  # only asks
        return shard.search(body, headers={"Authorization": f"Bearer {TOKEN[token]}"})

    def write(self, policies: object) -> None:
        """The policies, taken up at once by whoever reads them."""
        text = policies if isinstance(policies, str) else json.dumps(policies)
        (self.folder / "policies.json").write_text(text)
        server = self.router.server
        for one in (server._token, server._tokens, server._policies):
            assert one is not None
            one.refresh()
        for mounted in (pod.app.mounted for pods in self.pods for pod in pods):
            for each in mounted:
                each.refresh()


def secret_in(folder: Path) -> Path:
    secret = folder / "secret"
    secret.mkdir()
    for name, token in TOKEN.items():
        (secret / name).write_text(token)
    (secret / "policies.json").write_text(json.dumps(POLICIES))
    return secret


@contextmanager
def a_shop(folder: Path, engines: list[Engine], *, wait: bool = True, **more: Any) -> Iterator[Shop]:
    secret = secret_in(folder)
    before = {"shop": "s", "tenant": "s", "size": "i"}
    settings = Settings(token_file=secret, policy_file=secret / "policies.json", columns_before=before)
    with (
        pods_of(engines, secret=secret) as pods,
        routing(addresses(pods), wait=wait, settings=settings, told=Told(secret), **more) as router,
    ):
        yield Shop(router, pods, secret)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, engines: list[Engine]) -> Iterator[Shop]:
    with a_shop(tmp_path_factory.mktemp("shop"), engines) as one:
        yield one


# ---------------------------------------------------------------- no foreign row


@pytest.mark.parametrize("seed", range(2))
def test_no_request_to_a_router_finds_a_row_of_others(shop: Shop, seed: int) -> None:
    """The same requests by every token, in any order: what is kept of one token's is nobody else's."""
    draw = random.Random(seed)
    seen = dict.fromkeys("abc", 0)
    for _ in range(60):
        path, body, headers, queries = a_request(draw)
        for name in draw.sample("abc", 3):
            status, _, answer = shop.ask(name, body, path, headers=headers)
            assert status == 200, answer
            found = ids_of(answer, queries)
            assert {*TENANTS[found]} <= {name}, (name, path, body)
            seen[name] += len(found)
    assert min(seen.values()) > 100, seen


def test_all_rows_that_match_are_found_and_counted(shop: Shop) -> None:
    for name in "abc":
        mine = name == TENANTS
        _, _, answer = shop.ask(name, {"vector": QUERY, "k": COUNT})
        assert sorted(answer["results"][0]["ids"]) == [*np.flatnonzero(mine)]
        assert "filter" not in answer, "the request has none"
        _, _, answer = shop.ask(name, {"vector": QUERY, "k": COUNT, "filter": {"size": {"lt": 40}}})
        assert sorted(answer["results"][0]["ids"]) == [*np.flatnonzero(mine & (SIZES < 40))]
        assert answer["filter"]["rows"] == np.count_nonzero(mine & (SIZES < 40))
        _, _, index = shop.ask(name, None, "/v1/index", method="GET")
        assert (index["count"], index["shards"]) == (np.count_nonzero(mine), SHARDS)
        assert "indexBytes" not in index, "from which the rows of all could be worked out"
    _, _, everything = shop.ask("support", {"vector": QUERY, "k": COUNT})
    assert len(everything["results"][0]["ids"]) == COUNT
    _, _, index = shop.ask("support", None, "/v1/index", method="GET")
    assert index["count"] == COUNT
    assert index["indexBytes"] > 0


def test_words_find_no_row_of_others_either(tmp_path: Path, engines: list[Engine]) -> None:
    sha256 = write_encoder(tmp_path / "model")
    encoder = EncoderTask(onnx=OnnxFolder(location=Location(folder=str(tmp_path / "model")), sha256=sha256))
    with a_shop(tmp_path, engines, encoder=encoder, cache_dir=str(tmp_path / "cache")) as one:
        for body in ({"text": "red car"}, {"texts": ["red", "sea"], "filter": {"tenant": {"exists": True}}}):
            for name in "abca":  # what is kept of a text is nobody's way to the rows of others
                status, _, answer = one.ask(name, body | {"k": COUNT})
                assert status == 200
                for result in answer["results"]:
                    assert sorted(result["ids"]) == [*np.flatnonzero(name == TENANTS)]


def test_a_token_that_reaches_a_shard_sees_there_what_it_sees_of_all(shop: Shop) -> None:
    """Networks may be open, and addresses are guessed."""
    body = {"vector": QUERY, "k": COUNT, "filter": {"tenant": {"exists": True}}}
    for number in range(SHARDS):
        _, _, answer = shop.ask_shard(number, "b", body)
        assert sorted(answer["results"][0]["ids"]) == [*np.flatnonzero((TENANTS == "b") & (number == OWNERS))]
        assert shop.ask_shard(number, "nobody", {"vector": QUERY})[0] == 403


# ---------------------------------------------------------------- failing closed


@pytest.mark.parametrize(
    ("path", "method", "body"),
    [
        ("/v1/search", "POST", {"vector": QUERY}),
        ("/v1/search?k=3", "POST", b"\0" * 4 * DIMENSION),
        ("/v1/index", "GET", None),
        ("/v1/feedback", "POST", {"queryId": "x", "rank": 1}),
        ("/openapi.json", "GET", None),
        ("/nowhere", "GET", None),
    ],
    ids=["search", "binary", "index", "feedback", "openapi", "nowhere"],
)
def test_a_token_without_a_policy_gets_nothing_of_a_router(shop: Shop, path: str, method: str, body: object) -> None:
    status, _, problem = shop.ask("nobody", body, path, method=method)
    assert (status, problem["type"]) == (403, "urn:vectorindex:problem:NoPolicy")


@pytest.mark.parametrize("token", ["broken", "twice"])
def test_a_router_refuses_a_policy_that_it_cannot_enforce(shop: Shop, token: str) -> None:
    asked = sum(pod.app.asked for pods in shop.pods for pod in pods)
    for path, method, body in (("/v1/search", "POST", {"vector": QUERY}), ("/v1/index", "GET", None)):
        status, _, problem = shop.ask(token, body, path, method=method)
        assert (status, problem["type"]) == (403, "urn:vectorindex:problem:PolicyNotUsable")
        assert "shop" not in json.dumps(problem), "the policy is not the client's to read"
    assert asked == sum(pod.app.asked for pods in shop.pods for pod in pods)


def test_a_column_that_is_gone_from_a_sharded_index_is_a_filter_lost(shop: Shop) -> None:
    def lost() -> float:
        return shop.router.columns("filtersLost")

    before = lost()
    shop.ask("broken", {"vector": QUERY})
    shop.ask("a", {"vector": QUERY, "filter": {"shop": "a"}})
    assert lost() == before + 2
    shop.ask("twice", {"vector": QUERY})
    shop.ask("nobody", {"vector": QUERY})
    assert lost() == before + 2


@pytest.mark.parametrize("text", ["", "[]", '[{"token": "a"}]', '[{"token": "a", "filter": {"tenant": "a"}, "x": 1}]'])
def test_a_file_that_is_wrong_allows_nothing_of_a_router_until_it_is_right(
    tmp_path: Path, engines: list[Engine], text: str
) -> None:
    with a_shop(tmp_path, engines) as one:
        assert one.ask("a", {"vector": QUERY})[0] == 200
        one.write(text)
        assert one.ask("a", {"vector": QUERY})[0] == 403
        one.write(POLICIES)
        until(lambda: one.ask("a", {"vector": QUERY})[0] == 200)


def test_policies_hold_at_once(shop: Shop) -> None:
    """They are read again while the router runs, and nothing of them is frozen anywhere."""
    body = {"vector": QUERY, "k": COUNT}
    try:
        shop.write([{"token": "a", "filter": {"size": 5}}, {"token": "support", "allRows": True}])
        assert sorted(shop.ask("a", body)[2]["results"][0]["ids"]) == [*np.flatnonzero(SIZES == 5)]
        assert shop.ask("b", body)[0] == 403
    finally:
        shop.write(POLICIES)
    assert sorted(shop.ask("a", body)[2]["results"][0]["ids"]) == [*np.flatnonzero(TENANTS == "a")]


def test_a_column_that_one_shard_lacks_is_no_column_of_a_policy(tmp_path: Path, engines: list[Engine]) -> None:
    """That shard would refuse the filter, or know nothing of whose its rows are."""
    without = [a_part(tmp_path, number, "tenant" if number == 2 else "") for number in range(SHARDS)]
    for engine in without:  # as its manifest may say all the same
        assert engine.manifest.metadata_columns
        object.__setattr__(engine.manifest, "metadata_columns", ("tenant", "size", "tags"))
        engine.metadata_columns = ("tenant", "size", "tags")
    with a_shop(tmp_path, without) as one:
        status, _, problem = one.ask("a", {"vector": QUERY})
        assert (status, problem["type"]) == (403, "urn:vectorindex:problem:PolicyNotUsable")
        assert one.ask("support", {"vector": QUERY})[0] == 200
        assert "tenant" not in one.ask("support", None, "/v1/index", method="GET")[2]["filterColumns"]


@pytest.mark.parametrize("kind", ["InvalidFilter", "UnknownField", "MalformedQueryString"])
def test_what_a_shard_says_against_a_policy_is_nobodys_to_read(shop: Shop, kind: str) -> None:
    """As one that knows no filters would: then it is missing, and what it says is for the log."""

    def refuse(request: Request) -> Response:
        raise Problem(400, kind, f"there is no column in {request.target!r}", field="filter.tenant", value="a")

    pod = shop.pods[1][0].app
    pod.lie = refuse
    try:
        for path, method in (("/v1/search", "POST"), ("/v1/index", "GET")):
            status, _, problem = shop.ask("a", {"vector": QUERY} if method == "POST" else None, path, method=method)
            assert (status, problem["type"]) == (503, "urn:vectorindex:problem:ShardsMissing")
            assert "tenant" not in json.dumps(problem)
    finally:
        pod.lie = None


def test_rows_of_a_token_are_counted_in_all_shards_or_not_at_all(tmp_path: Path, engines: list[Engine]) -> None:
    with a_shop(tmp_path, engines, partial=Partial.ALLOW) as one:
        one.pods[0][0].lose()
        assert one.ask("a", {"vector": QUERY})[2]["partial"]
        status, _, problem = one.ask("a", None, "/v1/index", method="GET")
        assert (status, problem["type"]) == (503, "urn:vectorindex:problem:ShardsMissing")


# ---------------------------------------------------------------- the token for shards


def test_shards_are_shown_a_token_that_sees_all_rows(tmp_path: Path) -> None:
    secret = secret_in(tmp_path)
    token = ShardToken(secret, secret / "policies.json")
    assert token.header == f"Authorization: Bearer {TOKEN['support']}\r\n".encode()
    (secret / "all-of-it").write_text("another-one-that-sees-all-rows\n")
    rows = [{"token": "all-of-it", "allRows": True}]
    (secret / "policies.json").write_text(json.dumps([*POLICIES, *rows]))
    token.refresh()
    assert TOKEN["support"].encode() in token.header, "shards may not have read the new one"
    (secret / "policies.json").write_text(json.dumps(rows))
    token.refresh()
    assert b"another-one-that-sees-all-rows" in token.header
    (secret / "policies.json").write_text(json.dumps(POLICIES[:3]))
    token.refresh()
    assert (token.header, "allRows" in token.problem) == (b"", True)


def test_a_token_that_shards_narrow_is_no_token_for_them(tmp_path: Path, engines: list[Engine]) -> None:
    """Every tenant would get what that one may see, and nobody would know why so little."""
    narrow = tmp_path / "narrow"
    narrow.write_text(TOKEN["b"])
    secret = secret_in(tmp_path)
    settings = Settings(token_file=secret, policy_file=secret / "policies.json")
    with (
        pods_of(engines, secret=secret) as pods,
        routing(addresses(pods), wait=False, settings=settings, told=Told(narrow)) as router,
    ):
        until(lambda: len(router.server.facts.refused) == 1)
        assert "shows some of its rows only" in str(router.server.facts.refused)
        assert not router.ready()


def test_a_router_without_a_token_for_shards_says_so_and_is_not_ready(tmp_path: Path, engines: list[Engine]) -> None:
    secret = secret_in(tmp_path)
    (secret / "policies.json").write_text(json.dumps(POLICIES[:3]))
    settings = Settings(token_file=secret, policy_file=secret / "policies.json")
    with (
        pods_of(engines, secret=secret) as pods,
        routing(addresses(pods), wait=False, settings=settings, told=Told(secret)) as router,
    ):
        until(lambda: "may see all rows" in str(router.request("GET", "/readyz", admin=True)))
