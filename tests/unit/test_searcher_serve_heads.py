"""Requests whose head was seen before take a shorter way and are the same requests: in pieces, in bursts, refused."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from wire import Port, running_loop

from vectorindex_searcher.serve.http import head_cache as heads
from vectorindex_searcher.serve.http import request_parser
from vectorindex_searcher.serve.http.auth import credential_of
from vectorindex_searcher.serve.http.head import Credential
from vectorindex_searcher.serve.http.limits import Limits
from vectorindex_searcher.serve.http.messages import Problem


def post(body: bytes, *more: bytes, method: bytes = b"POST") -> bytes:
    lines = [method + b" /v1/search?k=3 HTTP/1.1", b"Host: x", *more, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.fixture(autouse=True)
def loop() -> Iterator[None]:
    """Connections ask for the running loop."""
    with running_loop():
        yield


def test_a_known_head_gives_the_same_request_without_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    port = Port()
    connection, transport = port.connect()
    connection.data_received(post(b"abc", b"X-A: 1"))
    assert port.known == 1
    other, _ = port.connect()
    monkeypatch.setattr(request_parser, "parse_head", lambda *_: pytest.fail("parsed again"))
    connection.data_received(post(b"xyz", b"X-A: 1"))
    other.data_received(post(b"\r\n\r", b"X-A: 1"))
    assert port.bodies() == [b"abc", b"xyz", b"\r\n\r"]
    first, second, third = port.app.requests
    for request in (second, third):
        assert (request.method, request.target, request.headers) == (first.method, first.target, first.headers)
        assert request.keep_alive
        assert request.completed >= first.completed
    assert (transport.written.count(b"HTTP/1.1 200"), connection.idle) == (2, True)


@pytest.mark.parametrize("seed", range(40))
def test_any_mixture_in_any_pieces(seed: int) -> None:
    """Known heads, new ones, chunked bodies and empty ones, cut anywhere: every body arrives, in order."""
    rng = random.Random(seed)
    port = Port()
    connection, transport = port.connect()
    sent, stream = [], b""
    for _ in range(12):
        body = bytes(rng.choice(b"\r\n abc") for _ in range(rng.choice((0, 3, 3, 3, 40))))
        kind = rng.randrange(4)
        if kind == 0:
            chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:2], body[2:]) if part)
            stream += b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked + b"0\r\n\r\n"
        else:
            stream += post(body, b"X-Kind: %d" % kind)
        sent.append(body)
    while stream:
        size = rng.choice((1, 2, 7, 60, 61, 100, 400))
        connection.data_received(stream[:size])
        stream = stream[size:]
    assert port.bodies() == sent
    assert transport.written.count(b"HTTP/1.1 200") == 12
    assert connection.idle
    assert port.listener.held == 0


def test_pieces_of_a_known_request_keep_their_clock_and_budget() -> None:
    request = post(b"abcdefgh")
    port = Port(Limits(held_bytes=len(request) + 2))
    connection, _ = port.connect()
    for _ in range(2):
        connection.data_received(post(b"12345678"))
    connection.data_received(request[:-5])
    assert not connection.idle
    assert port.listener.held == len(request) - 5
    blocked, answer = port.connect()
    blocked.data_received(request)
    assert b"503 Service Unavailable" in answer.written
    connection.data_received(request[-5:])
    assert port.bodies()[-1] == b"abcdefgh"
    assert (port.listener.held, connection.idle) == (0, True)
    late, answer = port.connect()
    late.data_received(request[:-1])
    assert late._message_since is not None
    late.check_clock(late._message_since + port.listener.limits.read_seconds + 1)
    assert b"408 Request Timeout" in answer.written
    late.connection_lost(None)
    assert port.listener.held == 0


def test_the_guard_sees_every_request() -> None:
    allowed = [True]

    class Door:
        def check(self, credential: Credential | None) -> None:
            assert credential == credential_of(b"Bearer t")
            if not allowed[0]:
                raise Problem(401, "Unauthorized", "no")

        count = check

    port = Port(guard=Door())
    connection, transport = port.connect()
    for _ in range(2):
        connection.data_received(post(b"abc", b"Authorization: Bearer t"))
    allowed[0] = False
    connection.data_received(post(b"abc", b"Authorization: Bearer t"))
    assert len(port.app.requests) == 2
    assert b"401 Unauthorized" in transport.written
    assert transport.ended


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(b"abc", b"Connection: close"),
        post(b"abc", b"Expect: 100-continue"),
        post(b"abc").replace(b"HTTP/1.1", b"HTTP/1.0"),
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\nHost: x\nContent-Length: 7\n\nabc\r\n\r\n",
        post(b"abc", b"X-Long: " + b"x" * heads.MAX_HEAD_BYTES),
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        post(b"abc", b"Host: y"),
        b"\r\n\r\n",
    ],
)
def test_unusual_heads_are_not_remembered(request_bytes: bytes) -> None:
    port = Port()
    port.connect()[0].data_received(request_bytes)
    assert port.known == 0


def test_an_empty_line_is_no_part_of_a_head_and_is_learnt_with_none() -> None:
    port = Port()
    connection, transport = port.connect()
    for _ in range(3):
        connection.data_received(b"\r\n")
        connection.data_received(post(b"abc", b"X-A: 1"))
        connection.data_received(b"\r\n" + post(b"def", b"X-A: 1"))
    assert port.bodies() == [b"abc", b"def"] * 3
    assert port.known == 1
    connection.data_received(b"\r\n")
    assert connection.idle
    connection.data_received(b"\r\n")
    assert b"400 Bad Request" in transport.written


def test_each_request_of_a_burst_has_its_own_head() -> None:
    port = Port()
    connection, _ = port.connect()
    connection.data_received(post(b"abc", b"Accept: 1") + post(b"defghi", b"Accept: 2"))
    connection.data_received(post(b"xyz", b"Accept: 1"))
    assert port.bodies() == [b"abc", b"defghi", b"xyz"]
    assert [request.headers[b"accept"] for request in port.app.requests] == [b"1", b"2", b"1"]


def test_a_head_in_use_outlives_heads_that_come_once() -> None:
    port = Port()
    connection, _ = port.connect()
    connection.data_received(post(b"abc"))
    first = port.app.requests[0].head
    for number in range(3 * heads.MAX_HEADS):
        connection.data_received(post(b"", b"X-Request-Id: %d" % number))
        if number % 100 == 0:
            connection.data_received(post(b"abc"))
    assert port.app.requests[-1].head is not first
    connection.data_received(post(b"abc"))
    assert port.app.requests[-1].head is first


def test_a_head_with_another_length_is_another_head() -> None:
    port = Port()
    connection, _ = port.connect()
    for body in (b"abc", b"abcd", b"abc", b"abcd"):
        connection.data_received(post(body))
    assert port.bodies() == [b"abc", b"abcd"] * 2
    assert port.known == 2


def test_what_is_remembered_is_bounded() -> None:
    port = Port()
    connection, _ = port.connect()
    for number in range(heads.MAX_HEADS + 10):
        connection.data_received(post(b"", b"X-Request-Id: %d" % number))
    assert 0 < port.known <= heads.MAX_HEADS
    assert len(port.app.requests) == heads.MAX_HEADS + 10


def test_closing_ends_a_known_connection_after_its_answer() -> None:
    port = Port()
    connection, transport = port.connect()
    connection.data_received(post(b"abc"))
    port.listener.closing = lambda: True
    connection.data_received(post(b"def") + post(b"ghi") + post(b"half")[:-1])
    connection.data_received(b"f" + post(b"never"))
    assert transport.written.count(b"Connection: close") == 1
    assert transport.written.endswith(b"Connection: close\r\n\r\nghi")
    assert transport.ended
    assert port.bodies() == [b"abc", b"def", b"ghi"]
