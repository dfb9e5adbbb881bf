"""Requests whose head was seen before take a shorter way and are the same requests: in pieces, in bursts, refused.

So are those whose head differs from one that was seen before only in what nobody here reads.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator

import pytest
from wire import Port, running_loop

from vectorindex_searcher.serve.http import head_cache as heads
from vectorindex_searcher.serve.http import request_parser
from vectorindex_searcher.serve.http.auth import credential_of
from vectorindex_searcher.serve.http.head import Credential, Head
from vectorindex_searcher.serve.http.head_parser import JUDGED, parse_head, without_unread
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
    assert port.known == 2, "with the line that nobody reads, and without"
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
    assert port.known == 2
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


# ---------------------------------------------------------------- what nobody here reads


@pytest.mark.parametrize(
    "line",
    [b"traceparent: 00-%032x-%016x-01", b"X-Request-Id: %d%d", b"Date: Fri, %d Nov 2026 08:%d:31 GMT", b"a:%d%d"],
)
def test_a_head_that_differs_in_what_nobody_reads_is_not_parsed_again(
    line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = Port(guard=Door())
    connection, transport = port.connect()
    connection.data_received(post(b"abc", b"Authorization: Bearer t", line % (1, 2), b"Accept: a/b"))
    monkeypatch.setattr(request_parser, "parse_head", lambda *_: pytest.fail("parsed again"))
    for number in range(3, 6):
        connection.data_received(post(b"xyz", b"Authorization: Bearer t", line % (number, number), b"Accept: a/b"))
    connection.data_received(post(b"def", b"More: 1", b"Authorization: Bearer t", b"Accept: a/b", line % (7, 8)))
    assert port.bodies() == [b"abc", *[b"xyz"] * 3, b"def"]
    assert {(one.method, one.target, one.headers[b"accept"]) for one in port.app.requests} == {
        (b"POST", b"/v1/search?k=3", b"a/b")
    }
    assert transport.written.count(b"HTTP/1.1 200") == 5


@dataclasses.dataclass
class Door:
    """Lets in who shows the token t."""

    refused: int = 0

    def check(self, credential: Credential | None) -> None:
        if credential != credential_of(b"Bearer t"):
            self.refused += 1
            raise Problem(401, "Unauthorized", "no")

    count = check


@pytest.mark.parametrize(
    "shown", [(), (b"Authorization: Bearer s",), (b"Authorization: Basic t",), (b"X-Authorization: Bearer t",)]
)
def test_no_token_is_taken_from_a_head_that_was_seen_before(shown: tuple[bytes, ...]) -> None:
    port = Port(guard=Door())
    for number in range(3):
        port.connect()[0].data_received(post(b"abc", b"Authorization: Bearer t", b"X-A: %d" % number))
        connection, transport = port.connect()
        connection.data_received(post(b"abc", *shown, b"X-A: %d" % number))
        assert b"401 Unauthorized" in transport.written
        assert transport.ended
    assert (len(port.app.requests), port.listener.guard.refused) == (3, 3)  # type: ignore[union-attr]


def test_lines_that_nobody_reads_are_counted_all_the_same() -> None:
    limits = Limits(header_lines=8)
    port = Port(limits)
    more = [b"X-%d: 1" % number for number in range(6)]
    port.connect()[0].data_received(post(b"abc", *more))
    connection, transport = port.connect()
    connection.data_received(post(b"abc", *more, b"X-6: 1"))
    assert b"431 Request Header Fields Too Large" in transport.written
    assert port.bodies() == [b"abc"]


# ---------------------------------------------------------------- any head, with the cache and without

LIMITS = Limits(header_lines=14)
LINES = [
    b"Host: x",
    b"Host: y:80",
    b"Accept: a/b",
    b"accept: c",
    b"Content-Type: application/json",
    b"Content-Length: 3",
    b"content-length: 4",
    b"Content-Length: 03",
    b"Transfer-Encoding: chunked",
    b"TRANSFER-ENCODING: gzip, chunked",
    b"Connection: keep-alive",
    b"Connection: close",
    b"Expect: 100-continue",
    b"Content-Encoding: gzip",
    b"Authorization: Bearer t",
    b"authorization: Bearer s",
    b"X-Request-Timeout-Ms: 50",
    b"X-VectorIndex-Target: a/b",
    b"X-VectorIndex-Signature: 1 a",
    b"X-VectorIndex-Evidence-Cursor: 7",
    b"Content_Length: 3",
    b"X-Content-Length: 3",
    b"Content-Length-X: 3",
    b"te: trailers",
    b":",
    b"a:",
]
UNREAD = [b"traceparent: 00-%d-01", b"X-Request-Id:%d", b"date: %d", b"User-Agent: \xe9\x80 %d\t", b"Host-: %d"]
PIECES = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b"-", b"\x7f", b"\xff", b"\r\n ", b"\r\r\n", b"\n\r\n"),
    *(b"\r\nContent-Length: 9", b"\r\nX-A: 1", b"\r\nX-A: 1\r\n folded", b"\nTransfer-Encoding: chunked", b"a: 1\r"),
    *(b"\r\nGET / HTTP/1.1", b"\r\nContent-Length : 9", b"\r\n\tContent-Length: 9"),
]


def any_head(rng: random.Random) -> bytes:
    """One of some hundreds, with a few lines that nobody reads; most are right, or nearly."""
    kind = random.Random(rng.randrange(300))
    first = kind.choice([b"POST /v1/search HTTP/1.1"] * 6 + [b"GET /?a:b HTTP/1.1", b"POST / HTTP/1.0", b"X-A: 1", b""])
    lines = [*kind.sample(LINES, kind.randrange(7)), *[b"Host: x", b"Content-Length: 3"][: kind.choice([1, 2, 2, 2])]]
    for _ in range(rng.choice([0, 1, 1, 2, 2, 9])):
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(UNREAD) % rng.randrange(50))
    raw = b"\r\n".join([first, *lines])
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        at = rng.randrange(len(raw) + 1)
        ends = [at for at in range(len(raw)) if raw[at : at + 2] == b"\r\n"]
        at = rng.choice(ends) + rng.choice([0, 0, 1, 2]) if ends and rng.random() < 0.7 else at
        raw = raw[:at] + rng.choice(PIECES) + raw[at + rng.choice([0, 0, 1]) :]
    return raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def said(head: Head) -> tuple[object, ...]:
    """All of a head."""
    return tuple(getattr(head, one.name) for one in dataclasses.fields(head))


def judged(raw: bytes) -> object:
    """What the parser says of a head that it sees for the first time."""
    try:
        return said(parse_head(raw, LIMITS))
    except Problem as problem:
        return problem.status, problem.kind, problem.detail, problem.field


def test_any_head_is_what_it_is_without_the_cache() -> None:
    """Thousands of heads that resemble one another, right and damaged, all by way of one cache."""
    rng, cache = random.Random(1), heads.HeadCache(LIMITS.header_lines)
    found = refused = 0
    for _ in range(20_000):
        raw = any_head(rng)
        meant, known = judged(raw), cache.find(raw)
        if known is not None:
            found += 1
            assert said(known) == meant, raw
            continue
        try:
            cache.learn(raw, parse_head(raw, LIMITS))
        except Problem:
            refused += 1
    assert found > 1000
    assert refused > 1000


def test_what_is_left_of_a_head_means_the_same() -> None:
    """Also what is refused, and why, but for the number of lines."""
    rng = random.Random(2)
    shorter = 0
    for _ in range(6_000):
        raw = any_head(rng)
        short, left_out = without_unread(raw)
        shorter += left_out > 0
        assert raw.count(b"\r\n") == short.count(b"\r\n") + left_out
        if raw.count(b"\r\n") - 2 <= LIMITS.header_lines:
            assert judged(short) == judged(raw), raw
        for line in set(raw.split(b"\r\n")) - set(short.split(b"\r\n")):
            assert line.partition(b":")[0].lower() not in JUDGED, raw
    assert shorter > 1000
