"""The Python client: against a real searcher process with tokens and TLS, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import socket
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme
from ports import held
from scripted import BUSY, OK, aask, answer, ask, scripted
from searcher_process import built_and_served

import vectorindex_client as vic
from vectorindex_client import awaiting, blocking, calls, vectors
from vectorindex_client.attempts import Attempts, Broken, Deadline, Unconnected

COUNT, DIMENSION, TOKEN = 600, 8, "a-token-for-tests-0123"
DATA = np.random.default_rng(11).standard_normal((COUNT, DIMENSION)).astype(np.float32)


# ---------------------------------------------------------------- a real searcher


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """URL and certificate authority of a searcher process: built, served, all by the command line."""
    folder = tmp_path_factory.mktemp("client")
    rows = [
        {"id": f"row-{number}", "vector": row, "title": f"title {number}", "year": 2000 + number % 5}
        for number, row in enumerate(DATA.tolist())
    ]
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    leaf.private_key_pem.write_to_path(folder / "tls.key")
    leaf.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    (folder / "tokens").write_text(TOKEN)
    secured = ["--token-file", str(folder / "tokens")]
    secured += ["--tls-cert", str(folder / "tls.crt"), "--tls-key", str(folder / "tls.key")]
    with built_and_served(folder, rows, metadata=["title", "year"], factory="HNSW16", serve=secured) as port:
        yield f"https://localhost:{port}", folder / "ca.pem"


@pytest.fixture
def client(searcher: tuple[str, Path]) -> Iterator[vic.Client]:
    with vic.Client(searcher[0], token=TOKEN, ca=searcher[1]) as client:
        yield client


def test_the_nearest_of_a_row_is_the_row(client: vic.Client) -> None:
    found = client.search(DATA[7], 3, include_metadata=True)
    assert found.ids[0] == "row-7"
    assert found.scores[0] == pytest.approx(1, abs=1e-5)
    assert found.metadata is not None
    assert found.metadata[0] == {"title": "title 7", "year": 2002}
    assert len(found.ids) == len(found.scores) == len(found.metadata) == 3
    assert found.revision == client.index()["revision"]
    assert found.took_ms is not None
    assert found.took_ms >= 0
    plain = client.search(DATA[7], 3)
    assert (plain.metadata, plain.took_ms, plain.query_id) == (None, None, None)
    assert (plain.ids, plain.revision) == (found.ids, found.revision)
    assert plain.scores == pytest.approx(found.scores, abs=1e-6)


def test_fields_reach_the_searcher(client: vic.Client) -> None:
    assert client.search(DATA[7], 10, min_score=0.999).ids == ["row-7"]
    assert len(client.search(DATA[7], 5, params={"efSearch": 20}, segment="unknown").ids) == 5
    with pytest.raises(vic.InvalidRequest) as caught:
        client.search(DATA[7], 5, params={"efSearch": 0})
    assert (caught.value.kind, caught.value.field, caught.value.status) == ("InvalidField", "params.efSearch", 400)


def test_a_filter_of_numpys_values_reaches_the_searcher(client: vic.Client) -> None:
    for given in (np.int64(2002), {"in": np.array([2002, 1])}, {"in": {2002}}, {"gte": np.float32(2002), "lt": 2003}):
        found = client.search(DATA[7], 1000, filter={"year": given}, include_metadata=True)
        assert len(found.ids) == COUNT // 5
        assert found.metadata is not None
        assert {row["year"] for row in found.metadata} == {2002}
    with pytest.raises(ValueError, match=r"filter\.year\.gt"):
        client.search(DATA[7], filter={"year": {"gt": b"2002"}})


def test_what_a_vector_is_travels_with_its_bytes(client: vic.Client) -> None:
    """Sixteen numbers are no two vectors of eight, nor are two vectors of four one of eight."""
    for wrong in ([np.tile(DATA[7], 2)], DATA[7].reshape(2, 4)):
        with pytest.raises(vic.InvalidRequest) as caught:
            client.search_many(wrong)
        assert (caught.value.kind, caught.value.field) == ("WrongDimension", "dimension")
        assert str(len(wrong[0])) in str(caught.value)
        assert "dimension 8" in str(caught.value)


def test_a_nested_vector_is_refused_before_anything_is_sent(client: vic.Client) -> None:
    for wrong in ([DATA[7].tolist()], DATA[7:8], []):
        with pytest.raises(ValueError, match="vector"):
            client.search(wrong)


def test_many_queries_go_in_as_few_requests_as_the_limit_allows_and_keep_their_order(client: vic.Client) -> None:
    found = client.search_many(DATA, 1)
    assert [one.ids for one in found] == [[f"row-{n}"] for n in range(COUNT)]
    assert client.search_many([], 1) == []
    with pytest.raises(vic.InvalidRequest, match="k must be"):
        client.search_many(DATA[:2], 5000)


def test_a_refusal_is_a_typed_error_that_says_what_to_do(client: vic.Client) -> None:
    with pytest.raises(vic.InvalidRequest) as caught:
        client.search(DATA[0][:3])
    error = caught.value
    assert (error.status, error.kind, error.value) == (422, "WrongDimension", 3)
    assert "dimension 8" in str(error)
    assert error.remedy
    assert error.revision


def test_tokens(searcher: tuple[str, Path]) -> None:
    url, ca = searcher
    given = iter([TOKEN, "another-token"])
    with vic.Client(url, token=lambda: next(given), ca=ca) as client:
        assert client.search(DATA[0], 1).ids == ["row-0"]
        with pytest.raises(vic.Unauthorized) as caught:
            client.search(DATA[0], 1)
    assert caught.value.kind == "Unauthorized"
    assert "another-token" not in str(caught.value)
    with vic.Client(url, ca=ca) as client, pytest.raises(vic.Unauthorized):
        client.index()


def test_a_certificate_of_nobody_we_trust_is_not_talked_to(searcher: tuple[str, Path]) -> None:
    with vic.Client(searcher[0], token=TOKEN, retries=0) as client, pytest.raises(vic.Unreachable, match="CERTIFICATE"):
        client.search(DATA[0])


def test_the_async_client_does_the_same_side_by_side(searcher: tuple[str, Path]) -> None:
    async def main() -> None:
        async with vic.AsyncClient(searcher[0], token=TOKEN, ca=searcher[1]) as client:
            found = await asyncio.gather(*(client.search(row, 1) for row in DATA[:40]))
            assert [one.ids[0] for one in found] == [f"row-{n}" for n in range(40)]
            assert len(await client.search_many(DATA[:300].tolist(), 2)) == 300
            assert (await client.index())["count"] == COUNT
            with pytest.raises(vic.InvalidRequest):
                await client.search(DATA[0], 0)

    asyncio.run(main())


# ---------------------------------------------------------------- vectors


@pytest.mark.parametrize(
    "same",
    [
        [0.5, -1.0, 2.0], (0.5, -1, 2), array("f", [0.5, -1, 2]), array("d", [0.5, -1, 2]),
        np.array([0.5, -1, 2], np.float16), np.array([0.5, -1, 2], ">f8"), np.array([0.5, 9, -1, 9, 2, 9], "f4")[::2],
        memoryview(array("f", [0.5, -1, 2])), [np.float32(0.5), np.float64(-1), 2],
    ],
)  # fmt: skip
def test_any_sequence_of_numbers_is_a_vector(same: Any) -> None:
    assert vectors.one(same) == np.array([0.5, -1, 2], "<f4").tobytes()
    assert vectors.numbers(vectors.one(same)) == [0.5, -1.0, 2.0]


@pytest.mark.parametrize("wrong", ["text", b"abcd", [], np.zeros((1, 3), np.float32), [[1.0]], 7, None, np.zeros(0)])
def test_what_is_no_vector_is_refused_here(wrong: Any) -> None:
    with pytest.raises(ValueError, match="vector"):
        vectors.one(wrong)


def test_several_vectors_of_any_kind_and_one_length() -> None:
    whole = DATA[:3].tobytes()
    for same in (DATA[:3], DATA[:3].astype(np.float64), DATA[:3].tolist(), list(DATA[:3]), np.asfortranarray(DATA[:3])):
        found, dimension = vectors.many(same)
        assert (b"".join(found), dimension) == (whole, DIMENSION)
    assert vectors.many(np.zeros((0, 8), np.float32)) == ([], 0)
    with pytest.raises(ValueError, match=r"queries\[1\] has 1 numbers, the first has 2"):
        vectors.many([[1, 2], [3]])
    with pytest.raises(ValueError, match=r"queries\[1\]: a query is a vector"):
        vectors.many([[1, 2], "ab"])
    with pytest.raises(ValueError, match="one vector a row"):
        vectors.many(DATA[0])


def test_large_vectors_are_split_by_bytes_and_long_filters_travel_in_the_body() -> None:
    def requests(count: int, dimension: int, filter_: Any = None) -> list[calls.Request]:
        found = [bytes(4 * dimension)] * count
        wanted = calls.fields(
            3, segment="s", filter=filter_, min_score=0.5, params={"nprobe": 2}, include_metadata=True, track=True
        )
        return calls.search_requests(found, dimension, wanted)

    assert [one.queries for one in requests(300, 8)] == [256, 44]
    assert [one.queries for one in requests(40, 65536)] == [16, 16, 8]
    (short,) = requests(1, 8, {"title": {"eq": "a b"}})
    assert "filter=%7B%22title%22" in short.path
    assert short.content_type == "application/octet-stream"
    long = {"title": {"in": [f"title {n}" for n in range(2000)]}}
    (request,) = requests(1, 8, long)
    assert request.path == "/v1/search"
    assert json.loads(request.content or b"") == {
        "k": 3, "segment": "s", "minScore": 0.5, "filter": long, "params": {"nprobe": 2}, "include": ["metadata"],
        "track": True, "vectors": [[0.0] * 8],
    }  # fmt: skip


# ---------------------------------------------------------------- servers that misbehave

BOTH = pytest.mark.parametrize("call", [ask, aask])
Ask = Callable[..., vic.Result]


@BOTH
def test_overload_is_retried_after_the_time_it_names(call: Ask) -> None:
    with scripted(answer(503, BUSY, "Retry-After: 0"), answer(503, BUSY, "Retry-After: 1"), OK) as script:
        began = time.monotonic()
        assert call(script).ids == [1]
        assert 1.0 <= time.monotonic() - began < 10
        assert len(script.heads) == 3


@BOTH
def test_overload_that_lasts_is_told_after_the_last_retry(call: Ask) -> None:
    with scripted(*[answer(503, BUSY, "Retry-After: 0")] * 3) as script:
        with pytest.raises(vic.Overloaded, match="1024 vectors wait") as caught:
            call(script, retries=2)
        assert (caught.value.status, caught.value.kind, len(script.heads)) == (503, "Overload", 3)


@BOTH
@pytest.mark.parametrize(
    ("given", "error"),
    [
        (answer(503, BUSY), vic.Overloaded),
        (answer(503, BUSY, "Retry-After: 60"), vic.Overloaded),
        (answer(500, b"{}"), vic.ServerError),
        (answer(504, b"{}"), vic.DeadlineExceeded),
        (answer(400, b"not json"), vic.InvalidRequest),
        (answer(404, b"<html>", kind="text/html"), vic.InvalidRequest),
        (answer(302, b"", "Location: http://elsewhere/"), vic.ServerError),
        (answer(200, b"<html>", kind="text/html"), vic.ServerError),
        (answer(200, b"1.5", kind="application/json"), vic.ServerError),
        (answer(200, b'{"results": []}', kind="application/json"), vic.ServerError),
    ],
)
def test_nothing_else_is_sent_twice(call: Ask, given: bytes, error: type[vic.VectorIndexError]) -> None:
    with scripted(given) as script:
        with pytest.raises(error) as caught:
            call(script, timeout=30)
        assert type(caught.value) is error
        assert len(script.heads) == 1


@BOTH
def test_a_connection_closed_before_any_answer_is_tried_once_more_and_not_twice(call: Ask) -> None:
    with scripted(b"", OK) as script:
        assert call(script).ids == [1]
        assert script.connections == 2
    with scripted(b"", b"", OK) as script:
        with pytest.raises(vic.Unreachable) as caught:
            call(script)
        assert (caught.value.status, len(script.heads)) == (None, 2)


@BOTH
def test_what_connects_to_a_searcher_that_dies_is_not_the_last_attempt(call: Ask) -> None:
    """A killed process closes its connections first and its port a moment later: what connects in between ends too."""
    died: list[float] = []

    def dies(connection: socket.socket) -> None:
        died.append(time.monotonic())

    def is_dying(connection: socket.socket) -> None:
        if time.monotonic() - died[0] > 0.05:
            connection.sendall(OK)

    with scripted(dies, is_dying) as script:
        assert call(script).ids == [1]


def test_the_text_of_a_refusal_names_field_and_value_and_what_to_do(client: vic.Client) -> None:
    with pytest.raises(vic.InvalidRequest) as unknown:
        client.search(DATA[0], 1, params={"efsearch": 3})
    assert "params.efsearch: " in str(unknown.value)
    with pytest.raises(vic.InvalidRequest) as wrong:
        client.search(DATA[0], 1001)
    assert str(wrong.value).count("1001") == 1
    assert str(wrong.value).endswith("; send an integer from 1 to 1000")


def test_the_text_of_an_error_leaves_out_what_is_long_or_said_already() -> None:
    assert str(vic.VectorIndexError("k must be 1", field="k", value=7)) == "k must be 1 (found 7)"
    assert str(vic.VectorIndexError("no column 'x'", field="filter.x", value="x")) == "filter.x: no column 'x'"
    assert str(vic.VectorIndexError("too long", field="segment", value="s" * 81)) == "segment: too long"


def test_the_first_click_on_a_tracked_search_counts_once(client: vic.Client) -> None:
    assert client.search(DATA[7], 5).query_id is None
    tracked = client.search_many(DATA[:2], 5, track=True)
    ids = [one.query_id for one in tracked]
    assert len({one for one in ids if one}) == 2
    assert [client.feedback(str(ids[0]), 2), client.feedback(str(ids[0]), 1)] == [True, False]
    with pytest.raises(vic.InvalidRequest):
        client.feedback(str(ids[1]), 6)


def test_feedback_that_may_have_been_counted_is_not_sent_again() -> None:
    with scripted(b"", OK) as script, vic.Client(script.url) as client:
        with pytest.raises(vic.Unreachable):
            client.feedback("id", 1)
        assert len(script.heads) == 1
    busy = answer(503, BUSY, "Retry-After: 0")
    with scripted(busy, answer(202, b'{"counted": true}', kind="application/json")) as script:
        with vic.Client(script.url) as client:
            assert client.feedback("id", 1)
        assert len(script.heads) == 2


@BOTH
def test_nobody_there_is_tried_again_within_the_timeout(call: Ask) -> None:
    began = time.monotonic()
    with scripted() as script, held() as (port,):
        script.url = f"http://127.0.0.1:{port}"
        with pytest.raises(vic.Unreachable, match="; check the URL and the network"):
            call(script, retries=2, timeout=60)
    assert 0.2 <= time.monotonic() - began < 30


@BOTH
def test_nobody_who_answers_a_connection_is_tried_again_and_not_waited_for_to_the_end(
    call: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a node is lost: packets to it vanish. The next attempt may go to another."""
    for module in (blocking, awaiting):
        monkeypatch.setattr(module, "CONNECT_SECONDS", 0.2)
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    with full, contextlib.ExitStack() as stack, scripted() as script:
        for _ in range(8):  # more than it takes: what is more is not answered
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        script.url = f"http://127.0.0.1:{full.getsockname()[1]}"
        with pytest.raises(vic.Unreachable, match="; check the URL and the network"):
            call(script, retries=1, timeout=60)


def test_a_request_that_nobody_acknowledged_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP_USER_TIMEOUT ends such a connection with ETIMEDOUT, which is no end of the call's time."""
    read, given_up = blocking._Connection._response, []

    def once(self: Any, source: socket.socket, method: str) -> Any:
        if not given_up:
            given_up.append(source.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
            raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")
        return read(self, source, method)

    monkeypatch.setattr(blocking._Connection, "_response", once)
    with scripted(OK, OK) as script:
        assert ask(script).ids == [1]
    assert given_up == [3000]


GONE = Unconnected("refused")


def test_each_wait_for_a_connection_is_longer_than_the_one_before_and_leaves_time_for_the_attempt() -> None:
    """A searcher that was killed stays in the Service until its kubelet and every node's proxy have heard of it."""

    def waits(timeout: float, first: Unconnected | Broken = GONE) -> list[float]:
        attempts = Attempts(calls.Request("GET", "/v1/index"), None, Deadline(timeout), 3)
        made = [attempts.failed(first), *(attempts.failed(GONE) for _ in range(2))]
        with pytest.raises(vic.Unreachable):
            attempts.failed(GONE)
        return made

    for patient in (waits(60.0), waits(60.0, Broken("reset", early=True))):
        assert all(later > 2 * earlier for earlier, later in itertools.pairwise(patient))
        assert sum(patient) > 2
    assert max(waits(1.0)) < 0.75


@BOTH
def test_silence_ends_with_the_timeout_and_is_not_repeated(call: Ask) -> None:
    with scripted(60.0, OK) as script:
        began = time.monotonic()
        with pytest.raises(vic.DeadlineExceeded, match=r"0\.3 s"):
            call(script, timeout=0.3)
        assert 0.3 <= time.monotonic() - began < 30
        assert len(script.heads) == 1


def test_the_searcher_is_told_how_long_the_client_waits() -> None:
    with scripted(answer(503, BUSY, "Retry-After: 1"), OK) as script:
        ask(script, timeout=40)
        told = [int(line.partition(":")[2]) for head in script.heads for line in head.lower().split("\r\n")
                if line.startswith("x-request-timeout-ms:")]  # fmt: skip
    assert 20_000 <= told[0] <= 40_000
    assert told[1] <= told[0] - 1000, "what was waited is gone"


def test_connections_are_kept() -> None:
    with scripted(OK, OK, OK) as script, vic.Client(script.url) as client:
        for _ in range(3):
            client.search([1.0], 1)
        assert script.connections == 1


@pytest.mark.parametrize("make", [vic.Client, vic.AsyncClient])
def test_a_url_without_a_scheme_is_refused_at_once(make: type[vic.Client]) -> None:
    with pytest.raises(ValueError, match="http://localhost:8080"):
        make("localhost:8080")
