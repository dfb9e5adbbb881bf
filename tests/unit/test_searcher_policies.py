"""Policies: which rows a token may see. Whatever a request says, and however it is sent, no other row is answered."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest
from serving_pod import Pod, running
from tenants import COUNT, DIMENSION, POLICIES, SIZES, TAGS, TENANTS, TOKEN, a_request, ids_of

import vectorindex_client as vic
from vectorindex_searcher import contract
from vectorindex_searcher.artifact.layout import SERVED_FILES
from vectorindex_searcher.artifact.manifest import Manifest, describe_file
from vectorindex_searcher.errors import BadSpec
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.index.parameters import index_type
from vectorindex_searcher.serve.http.auth import MAX_TOKENS, Tokens, credential_of
from vectorindex_searcher.serve.http.messages import Problem
from vectorindex_searcher.serve.search.policies import ALL_ROWS, Policies
from vectorindex_searcher.serve.settings import Settings


def an_engine(folder: Path, factory: str) -> Engine:
    vectors = np.random.default_rng(3).standard_normal((COUNT, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = faiss.index_factory(DIMENSION, factory)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(folder / "index.faiss"))
    index = faiss.read_index(str(folder / "index.faiss"))  # IndexFlat comes back as IndexFlatL2
    tables = {
        "ids.arrow": pa.table({"id": np.arange(COUNT)}),
        "metadata.arrow": pa.table({"tenant": TENANTS, "size": SIZES, "tags": pa.array(TAGS, pa.list_(pa.string()))}),
    }
    for name, table in tables.items():
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=256)
    return Engine.open(
        folder,
        Manifest(
            digest="d1",
            attempt="local",
            identity=contract.Identity(name="products"),
            fingerprint="f1",
            embedding=contract.Embedding(dimension=DIMENSION),
            dimension=DIMENSION,
            count=COUNT,
            vector_dtype="float32",
            id_type="int64",
            metadata_columns=("tenant", "size", "tags"),
            factory=factory,
            index_type=index_type(index),
            default_point=contract.OperatingPoint(params={}, recall=1, recall_low=1, latency_us=1),
            faiss_version=faiss.__version__,
            device=contract.Device.CPU,
            duration_seconds=1,
            peak_memory_bytes=1,
            files=tuple(describe_file(folder / name) for name in SERVED_FILES),
        ),
    )


@dataclass
class Shop:
    """A pod whose tokens have policies, and their files."""

    pod: Pod
    folder: Path
    tokens: Tokens
    policies: Policies

    def ask(self, token: str, body: object, path: str = "/v1/search", **more: Any) -> tuple[int, dict[str, str], Any]:
        headers = {"Authorization": f"Bearer {TOKEN[token]}", **more.pop("headers", {})}
        return self.pod.request(more.pop("method", "POST"), path, body, headers=headers, **more)

    def write(self, text: str) -> None:
        """The policies, taken up at once."""
        (self.folder / "policies.json").write_text(text)
        self.tokens.refresh()
        self.policies.refresh()


@contextmanager
def a_shop(folder: Path, factory: str = "Flat", **more: Any) -> Iterator[Shop]:
    secret, files = folder / "secret", folder / "files"
    secret.mkdir(parents=True)
    files.mkdir()
    for name, token in TOKEN.items():
        (secret / name).write_text(token)
    (secret / "policies.json").write_text(json.dumps(POLICIES, indent=1))
    tokens = Tokens(secret)
    policies = Policies(secret / "policies.json", tokens)
    with running(an_engine(files, factory), guard=tokens, policies=policies, **more) as pod:
        yield Shop(pod, secret, tokens, policies)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with a_shop(tmp_path_factory.mktemp("shop"), columns_before={"shop": "s", "tenant": "s", "size": "i"}) as one:
        yield one


QUERY = [1.0, *[0.0] * (DIMENSION - 1)]


# ---------------------------------------------------------------- no foreign row


@pytest.mark.parametrize("factory", ["Flat", "HNSW8", "IVF16,Flat", "HNSW8,SQ8", "IVF16,PQ4x4,RFlat"])
@pytest.mark.parametrize("threads", [1, 2])
def test_no_request_finds_a_row_of_others(tmp_path: Path, factory: str, threads: int) -> None:
    """The same requests by every token, in any order: what is kept of one token's is nobody else's."""
    draw = random.Random(f"{factory} {threads}")
    seen = dict.fromkeys("abc", 0)
    with a_shop(tmp_path, factory, threads=threads) as one:
        for _ in range(60):
            path, body, headers, queries = a_request(draw)
            for name in draw.sample("abc", 3):
                status, _, answer = one.ask(name, body, path, headers=headers)
                assert status == 200, answer
                found = ids_of(answer, queries)
                assert {*TENANTS[found]} <= {name}, (name, path, body)
                seen[name] += len(found)
    assert min(seen.values()) > 100, seen


def test_all_rows_that_match_are_found_and_counted(shop: Shop) -> None:
    """Narrowed, and by nothing else than the policy and the filter."""
    for name in "abc":
        mine = name == TENANTS
        _, _, answer = shop.ask(name, {"vector": QUERY, "k": COUNT})
        assert sorted(answer["results"][0]["ids"]) == [*np.flatnonzero(mine)]
        assert "filter" not in answer, "the request has none"
        _, _, answer = shop.ask(name, {"vector": QUERY, "k": COUNT, "filter": {"size": {"lt": 40}}})
        assert sorted(answer["results"][0]["ids"]) == [*np.flatnonzero(mine & (SIZES < 40))]
        assert answer["filter"]["rows"] == np.count_nonzero(mine & (SIZES < 40))
        _, _, index = shop.ask(name, None, "/v1/index", method="GET")
        assert index["count"] == np.count_nonzero(mine)
        assert "indexBytes" not in index, "from which the rows of all could be worked out"
    _, _, everything = shop.ask("support", {"vector": QUERY, "k": COUNT})
    assert len(everything["results"][0]["ids"]) == COUNT
    _, _, index = shop.ask("support", None, "/v1/index", method="GET")
    assert index["count"] == COUNT


def test_many_at_once_keep_apart(shop: Shop) -> None:
    """What waits together is one call of the engine only for those that may see the same."""
    bodies = [{"vector": QUERY, "k": 20}] * 12
    with shop.pod.held():
        import concurrent.futures as futures

        pool = futures.ThreadPoolExecutor(12)
        names = ["a", "b", "support"] * 4
        waiting = [pool.submit(shop.ask, name, body) for name, body in zip(names, bodies, strict=True)]
    for name, one in zip(names, waiting, strict=True):
        status, _, answer = one.result()
        assert status == 200
        assert name == "support" or {*TENANTS[answer["results"][0]["ids"]]} == {name}
    pool.shutdown()


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
def test_a_token_without_a_policy_gets_nothing_at_all(shop: Shop, path: str, method: str, body: object) -> None:
    status, _, problem = shop.ask("nobody", body, path, method=method)
    assert (status, problem["type"]) == (403, "urn:vectorindex:problem:NoPolicy")
    assert "policies.json" in problem["remedy"]
    assert problem["field"] == "Authorization"


@pytest.mark.parametrize("token", ["broken", "twice"])
def test_a_policy_that_cannot_be_enforced_allows_nothing(shop: Shop, token: str) -> None:
    for path, method, body in (("/v1/search", "POST", {"vector": QUERY}), ("/v1/index", "GET", None)):
        status, _, problem = shop.ask(token, body, path, method=method)
        assert (status, problem["type"]) == (403, "urn:vectorindex:problem:PolicyNotUsable")
        assert "shop" not in json.dumps(problem), "the policy is not the client's to read"


def test_a_column_of_a_policy_that_is_gone_is_a_filter_lost(shop: Shop) -> None:
    """So that a guardrail takes back the revision that lost it; nothing else that is refused is a loss."""

    def lost() -> int:
        return int(sum(filter(None, shop.pod.columns().counts.get("filtersLost", [0]))))

    before = lost()
    shop.ask("broken", {"vector": QUERY})
    assert lost() == before + 1
    shop.ask("twice", {"vector": QUERY})
    shop.ask("nobody", {"vector": QUERY})
    # As large as a filter may be, and so too large beside a policy: it was for the revision before, too.
    most = {"and": [{"size": number} for number in range(64)]}
    assert shop.ask("a", {"vector": QUERY, "filter": most})[0] == 400
    assert lost() == before + 1


def test_a_filter_too_large_beside_the_policy_is_refused_in_the_clients_words(shop: Shop) -> None:
    most = {"and": [{"size": number} for number in range(64)]}
    assert shop.ask("support", {"vector": QUERY, "filter": most})[0] == 200
    status, _, problem = shop.ask("a", {"vector": QUERY, "filter": most})
    assert (status, problem["type"], problem["field"]) == (400, "urn:vectorindex:problem:InvalidFilter", "filter")
    assert "tenant" not in json.dumps(problem)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "{}", '[{"token": "a"}]', '[{"token": "a", "filter": null}]', '[{"token": "a", "filter": {}}]',
        '[{"token": "a", "filter": {"tenant": "a"}, "allRows": true}]', '[{"token": "a", "allRows": "true"}]',
        '[{"token": "a", "filter": {"tenant": "a"}, "rows": 1}]', '[{"token": "a", "allRows": 1}]',
        '[{"token": "A", "allRows": true}]', '[{"token": "a", "filter": "all"}]', "[" * 100_000,
        json.dumps([{"token": name, "allRows": True} for name in ("a", *map(str, range(MAX_TOKENS)))]),
        " " * (1 << 20) + '[{"token": "a", "allRows": true}]',
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_allows_nothing_until_it_is_right(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with a_shop(tmp_path) as one:
        assert one.ask("a", {"vector": QUERY})[0] == 200
        one.write(text)
        assert one.ask("a", {"vector": QUERY})[0] == 403
        assert any(record.levelname == "ERROR" for record in caplog.records)
        one.write(json.dumps(POLICIES))
        assert one.ask("a", {"vector": QUERY})[0] == 200
        (one.folder / "policies.json").unlink()
        one.policies.refresh()
        assert one.ask("a", {"vector": QUERY})[0] == 403


def test_a_change_holds_for_the_next_request_and_for_new_tokens(tmp_path: Path) -> None:
    with a_shop(tmp_path) as one:
        body = {"vector": QUERY, "k": 50}

        def tenants() -> set[str]:
            return {*TENANTS[one.ask("a", body)[2]["results"][0]["ids"]]}

        assert tenants() == {"a"}
        one.write('[{"token": "a", "filter": {"tenant": "b"}}]')
        assert tenants() == {"b"}
        one.write(json.dumps(POLICIES))
        # A second line of the file: the same holder, while clients move.
        (one.folder / "a").write_text(f"{TOKEN['a']}\nanother-token-0123456789\n")
        one.tokens.refresh()
        one.policies.refresh()
        headers = {"Authorization": "Bearer another-token-0123456789"}
        _, _, answer = one.pod.search(body, headers=headers)
        assert {*TENANTS[answer["results"][0]["ids"]]} == {"a"}


def test_the_file_of_policies_is_no_token(tmp_path: Path) -> None:
    """Pretty-printed, its lines would be words: whoever sends `Bearer ]` would be let in."""
    (tmp_path / "policies.json").write_text('[\n{\n"token":"a"\n}\n]\n')
    (tmp_path / "site").write_text("the-token-of-the-site")
    assert Tokens(tmp_path).names == ("site",)


def test_policies_without_tokens_end_the_start() -> None:
    with pytest.raises(BadSpec) as caught:
        Settings.from_environment({"VECTORINDEX_POLICIES": "/policies.json"})
    assert caught.value.failure.field == "--policies"


def test_an_index_without_filters_allows_only_those_who_may_see_all(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(TOKEN["a"])
    (tmp_path / "support").write_text(TOKEN["support"])
    (tmp_path / "policies.json").write_text(json.dumps(POLICIES))
    tokens = Tokens(tmp_path)
    policies = Policies(tmp_path / "policies.json", tokens)
    policies.refresh()
    with pytest.raises(Problem, match="no policy"):
        policies.of(credential_of(f"Bearer {TOKEN['support']}".encode()))  # the index is not there yet
    policies.bind(None)
    assert policies.unusable == ("a",)
    assert policies.of(credential_of(f"Bearer {TOKEN['support']}".encode())) is ALL_ROWS


def test_the_client_says_that_no_row_is_allowed(shop: Shop) -> None:
    for name, kind in (("nobody", "NoPolicy"), ("broken", "PolicyNotUsable")):
        with vic.Client(f"http://127.0.0.1:{shop.pod.users}", token=TOKEN[name]) as client:
            with pytest.raises(vic.Forbidden, match="no rows are allowed for this token") as caught:
                client.search(QUERY, 1)
            assert caught.value.kind == kind


# ---------------------------------------------------------------- evidence and shadow


def test_policies_are_no_filters_in_the_evidence(shop: Shop) -> None:
    """ZeroResultRate is of all that users ask: were they filtered queries, no rule would have numbers."""

    def counted(name: str) -> int:
        return int(sum(filter(None, shop.pod.columns().counts.get(name, [0]))))

    before = counted("requests"), counted("filteredQueries")
    shop.ask("c", {"vector": QUERY})
    shop.ask("c", {"vector": QUERY, "filter": {"size": 5}})
    assert counted("requests") - before[0] == 2
    assert counted("filteredQueries") - before[1] == 1
