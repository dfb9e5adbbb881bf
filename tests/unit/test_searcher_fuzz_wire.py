"""Bytes of every kind on the wire: what is taken for a request is one for h11 too, byte for byte, however it is cut.

h11 is the judge, a strict and well-kept reader of HTTP/1.1: it may take more than the searcher does (bare line feeds,
folded headers), never less, and both must agree on where each request begins and ends. What is right must be taken.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import h11
import pytest
from wire import Port, running_loop

from vectorindex_searcher.serve.http.limits import Limits
from vectorindex_searcher.serve.http.messages import READ_HEADERS

SECONDS = float(os.environ.get("FUZZ_SECONDS", "3"))
"""For each of the tests. More by hand: FUZZ_SECONDS=600."""
LIMITS = Limits(body_bytes=4000, header_bytes=3000)
SPECIAL = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b"\0",
        b":",
        b",",
        b";",
        b"=",
        b"0",
        b"1",
        b"f",
        b"\xff",
        b"\x0b",
        b"\x7f",
        b"#",
    ),
    *(b"-", b"+", b"_", b"'", b'"', b"\\", b"\r\n\r\n", b"0\r\n\r\n", b"chunked", b"close", b"HTTP/1.1"),
    *(b"Host: y\r\n", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n"),
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
]


@pytest.fixture(autouse=True)
def loop() -> Iterator[None]:
    with running_loop():
        yield


@dataclass(frozen=True)
class Message:
    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    """Of those that applications see."""
    body: bytes


@dataclass(frozen=True)
class Found:
    taken: tuple[Message, ...]
    statuses: tuple[int, ...]
    """Of all answers."""
    ended: bool


def found(stream: bytes, cuts: list[int]) -> Found:
    """What the searcher makes of `stream`, cut at these places. Also: nothing is left behind."""
    port = Port(LIMITS)
    connection, transport = port.connect()
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        connection.data_received(stream[start:end])
    taken = tuple(Message(one.method, one.target, one.headers, one.body) for one in port.app.requests)
    connection.connection_lost(None)
    assert port.listener.held == 0
    assert len(port.listener._connections) == 0
    return Found(taken, tuple(port.app.statuses), transport.ended)


def judged(stream: bytes) -> tuple[list[Message], bool]:
    """The requests that h11 reads, and whether it refused what came behind them."""
    messages: list[Message] = []
    while stream:
        stream = stream.removeprefix(b"\r\n")  # one empty line in front may be skipped (RFC 9112, 2.2)
        reader = h11.Connection(h11.SERVER, max_incomplete_event_size=100_000)
        reader.receive_data(stream)
        head, body = None, b""
        while True:
            try:
                event = reader.next_event()
            except h11.RemoteProtocolError:
                return messages, True
            if event is h11.NEED_DATA:
                return messages, False
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return messages, True
        assert head is not None
        messages.append(Message(head.method, head.target, _kept(head.headers), body))
        if reader.their_state is h11.MUST_CLOSE:
            return messages, False
        stream = reader.trailing_data[0]
    return messages, False


# ---------------------------------------------------------------- what is sent


def valid(rng: random.Random) -> tuple[bytes, Message]:
    """A request that is right, and what it is."""
    method = rng.choice([b"GET", b"POST", b"POST", b"POST", b"PUT", b"OPTIONS", b"DELETE"])
    target = b"/" + bytes(rng.choice(b"abc/?&=%20~:@!$'()*+,;[]{}|^`\"<>\\") for _ in range(rng.choice([0, 1, 5, 60])))
    shown = target if rng.random() < 0.9 else rng.choice([b"http://x:80", b"HTTPS://[::1]"]) + target
    host = rng.choice([b"x", b"localhost:8080", b"[::1]:8080", b"", b"10.0.0.1", b"a-b.c_d"])
    body = bytes(rng.choice(b"\r\n 0:aG\0\xff") for _ in range(rng.choice([0, 0, 1, 3, 17, 200])))
    lines = [(b"Host", host)]
    for name in rng.sample(
        [b"Content-Type", b"X-Request-Timeout-Ms", b"X-VectorIndex-Target", b"X-Else"], rng.choice([0, 1, 3])
    ):
        value = bytes(rng.choice(b"ab /;=\xe9") for _ in range(rng.choice([0, 3, 30])))
        lines.append((name, value))
    for _ in range(rng.choice([0, 0, 1, 2])):
        lines.append((b"Accept", rng.choice([b"*/*", b"a/b", b"c;q=0.1"])))
    chunked = rng.random() < 0.4
    if chunked:
        lines.append((b"Transfer-Encoding", rng.choice([b"chunked", b"Chunked"])))
    elif body or rng.random() < 0.5:
        lines.append((b"Content-Length", rng.choice([b"", b"0", b"00"]) + b"%d" % len(body)))
    rng.shuffle(lines)
    head = b"%b %b HTTP/1.1\r\n" % (method, shown)
    for name, value in lines:
        name = rng.choice([name, name.lower(), name.upper()])
        head += name + b":" + rng.choice([b"", b" ", b"\t", b"  "]) + value + rng.choice([b"", b" ", b"\t"]) + b"\r\n"
    data = head + b"\r\n" + (_chunked(rng, body) if chunked else body)
    return rng.choice([b"", b"", b"", b"\r\n"]) + data, Message(method, target, _kept(lines), body)


def _kept(lines: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """What applications see of these headers."""
    headers: dict[bytes, bytes] = {}
    for name, value in lines:
        if (name := name.lower()) in READ_HEADERS:
            value = value.strip(b" \t")
            headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def _chunked(rng: random.Random, body: bytes) -> bytes:
    data = b""
    while body:
        size = rng.choice([1, 3, 16, 100])
        part, body = body[:size], body[size:]
        number = b"%x" % len(part) if rng.random() < 0.5 else b"%X" % len(part)
        extension = rng.choice([b"", b"", b";a", b";a=b", b';a="b "', b";"])
        data += rng.choice([b"", b"0"]) + number + extension + b"\r\n" + part + b"\r\n"
    trailer = rng.choice([b"", b"", b"X-T: 1\r\n", b"X-Length: 7\r\nX: \r\n"])
    return data + rng.choice([b"0", b"000", b"0;last"]) + b"\r\n" + trailer + b"\r\n"


def damaged(rng: random.Random, stream: bytes) -> bytes:
    """A few edits, most of them where heads are."""
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(stream) + 1)
        if rng.random() < 0.5:  # near a line end
            ends = [n for n in range(len(stream)) if stream[n : n + 2] == b"\r\n"] or [0]
            at = min(len(stream), max(0, rng.choice(ends) + rng.randrange(-2, 4)))
        kind, piece = rng.randrange(4), rng.choice(SPECIAL)
        if kind == 0:
            stream = stream[:at] + piece + stream[at:]
        elif kind == 1:
            stream = stream[:at] + stream[at + rng.choice([1, 1, 2, 5]) :]
        elif kind == 2:
            stream = stream[:at] + piece + stream[at + len(piece) :]
        else:  # a piece of itself again
            start = rng.randrange(len(stream) + 1)
            stream = stream[:at] + stream[start : start + rng.choice([1, 4, 30])] + stream[at:]
    return stream


def cut(rng: random.Random, size: int) -> list[int]:
    if rng.random() < 0.2:
        return list(range(1, size))
    return sorted(rng.sample(range(1, size), min(size - 1, rng.choice([0, 1, 2, 8])))) if size > 1 else []


def seeds(first: int) -> Iterator[random.Random]:
    """As many as the time allows, and some in any case."""
    end, number = time.monotonic() + SECONDS, first
    while number < first + 200 or time.monotonic() < end:
        yield random.Random(number)
        number += 1


# ---------------------------------------------------------------- what must hold


def test_what_is_right_is_taken_as_it_was_meant() -> None:
    for rng in seeds(0):
        sent = [valid(rng) for _ in range(rng.choice([1, 2, 5]))]
        stream, meant = b"".join(data for data, _ in sent), tuple(message for _, message in sent)
        got = found(stream, cut(rng, len(stream)))
        assert got.taken == meant, stream
        assert got.statuses == (200,) * len(meant), stream
        assert not got.ended, stream
        bodies = [(one.method, one.body) for one in judged(stream)[0]]
        assert bodies == [(one.method, one.body) for one in meant], stream


def check(stream: bytes, cuts: list[int]) -> Found:
    """What is taken is what h11 reads; cutting changes nothing; after a refusal nothing more is taken."""
    got = found(stream, [])
    read, _ = judged(stream)
    for mine, theirs in zip(got.taken, read, strict=False):
        assert (mine.method, mine.headers, mine.body) == (theirs.method, theirs.headers, theirs.body), stream
        assert theirs.target.endswith(mine.target) or mine.target.startswith(b"/"), stream
    assert len(got.taken) <= len(read), stream
    refused = [status for status in got.statuses if status != 200]
    assert len(refused) <= 1, stream
    assert got.statuses[len(got.taken) :] == tuple(refused), stream
    assert got.ended or not refused, stream
    assert set(refused) <= {400, 413, 414, 415, 417, 431, 501, 505}, stream
    assert found(stream, cuts) == got, (stream, cuts)
    return got


def test_what_is_damaged_is_read_as_h11_reads_it_or_refused() -> None:
    taken = refused = 0
    for rng in seeds(1_000_000):
        stream = b"".join(valid(rng)[0] for _ in range(rng.choice([1, 2, 3])))
        stream = damaged(rng, stream)
        got = check(stream, cut(rng, len(stream)))
        taken += len(got.taken)
        refused += got.ended
    assert taken > 20
    assert refused > 20


def test_any_bytes_at_all_are_read_as_h11_reads_them_or_refused() -> None:
    for rng in seeds(2_000_000):
        stream = b"".join(rng.choice(SPECIAL) for _ in range(rng.choice([1, 4, 30])))
        check(stream, cut(rng, len(stream)))


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
KEPT = [
    CHUNKED + b"1 ;a\r\nb\r\n0\r\n\r\n",
    CHUNKED + b"0\r\nContent-Length: 1\r\nContent-Length: 7\r\n\r\n",
    CHUNKED + b"0\r\nContent-Length: ,7\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
]
"""What failed once."""


@pytest.mark.parametrize("stream", KEPT)
def test_what_failed_once(stream: bytes) -> None:
    check(stream, list(range(1, len(stream))))
