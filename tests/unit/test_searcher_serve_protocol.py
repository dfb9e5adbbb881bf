"""HTTP/1.1 as clients really speak it: in pieces, in bursts, badly, slowly, and while the pod wants them gone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
import uvloop

from vectorindex_searcher.serve.http.listener import Limits, Listener
from vectorindex_searcher.serve.http.messages import Problem, Request, Response

HEAD = b"Host: test\r\n"


@dataclass
class Echo:
    """Answers with the body, or the target when there is none. /later waits for the gate, /boom fails."""

    gate: threading.Event = field(default_factory=threading.Event)
    seen: list[tuple[bytes, int]] = field(default_factory=list)

    def handle(self, request: Request) -> Response | asyncio.Future[Response]:
        if request.path == b"/boom":
            raise RuntimeError("boom")
        if request.path == b"/problem":
            raise Problem(404, "NotFound", "nothing here", headers=((b"X-Extra", b"yes"),))
        response = Response(200, request.body or request.target)
        if request.path == b"/big":
            return Response(200, b"x" * (8 << 20))
        if request.path in (b"/later", b"/later-boom"):
            return asyncio.get_running_loop().create_task(self._later(request, response))
        return response

    async def _later(self, request: Request, response: Response) -> Response:
        while not self.gate.is_set():
            await asyncio.sleep(0.002)
        if request.path == b"/later-boom":
            raise RuntimeError("boom")
        return response

    def answered(self, request: Request, response: Response, seconds: float) -> None:
        assert seconds >= 0
        self.seen.append((request.target, response.status))


@dataclass
class Serving:
    app: Echo
    listener: Listener
    loop: asyncio.AbstractEventLoop
    port: int

    def call(self, function: Callable[[], object]) -> object:
        """Run `function` on the server's loop."""

        async def run() -> object:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(60)

    def connect(self) -> Client:
        return Client(socket.create_connection(("127.0.0.1", self.port), timeout=60))


class Client:
    """A socket that can read one HTTP answer at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""

    def __del__(self) -> None:
        self.sock.close()

    def send(self, data: bytes) -> Client:
        self.sock.sendall(data)
        return self

    def _fill(self) -> bool:
        data = self.sock.recv(1 << 16)
        self.buffer += data
        return bool(data)

    def answer(self, head_only: bool = False) -> tuple[int, dict[str, str], bytes]:
        while b"\r\n\r\n" not in self.buffer:
            assert self._fill(), f"closed in the head of an answer: {self.buffer!r}"
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
        length = 0 if head_only else int(headers.get("content-length", "0"))
        while len(self.buffer) < length:
            assert self._fill(), "closed in the body of an answer"
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return int(lines[0].split()[1]), headers, body

    def closed(self) -> bool:
        """The server ended the connection in order (not by a reset), with nothing more said."""
        return not self._fill() and not self.buffer


@contextlib.contextmanager
def serving(limits: Limits = Limits(), closing: Callable[[], bool] = lambda: False) -> Iterator[Serving]:  # noqa: B008
    started: list[Serving] = []
    ready, stop = threading.Event(), threading.Event()

    async def main() -> None:
        app = Echo()
        listener = Listener(app, "products-abc", limits, closing)
        port = await listener.open(0, "127.0.0.1")
        started.append(Serving(app, listener, asyncio.get_running_loop(), port))
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.005)
        await listener.close()

    thread = threading.Thread(target=uvloop.run, args=(main(),))
    thread.start()
    assert ready.wait(60)
    try:
        yield started[0]
    finally:
        started[0].app.gate.set()
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def shared() -> Iterator[Serving]:
    with serving(Limits(body_bytes=1000, header_bytes=2000)) as server:
        yield server


def post(body: bytes, target: bytes = b"/x", extra: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\n%bContent-Length: %d\r\n%b\r\n%b" % (target, HEAD, len(body), extra, body)


def get(target: bytes = b"/x", extra: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\n%b%b\r\n" % (target, HEAD, extra)


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "condition never held"
        time.sleep(0.002)


# ---------------------------------------------------------------- the ordinary


def test_keep_alive_answers_many_requests_with_revision_and_date(shared: Serving) -> None:
    client = shared.connect()
    for number in range(3):
        status, headers, body = client.send(post(b"body%d" % number)).answer()
        assert (status, body) == (200, b"body%d" % number)
        assert headers["x-vectorindex-revision"] == "products-abc"
        assert headers["content-type"] == "application/json"
        assert headers["date"].endswith("GMT")
        assert "connection" not in headers


def test_pieces_of_any_size_make_the_same_request(shared: Serving) -> None:
    data = post(b"hello", extra=b"X-Long: " + b"v" * 50 + b"\r\n")
    for size in (1, 2, 7, 40):
        client = shared.connect()
        for start in range(0, len(data), size):
            client.send(data[start : start + size])
        assert client.answer()[2] == b"hello"


def test_chunked_body_with_extension_and_trailer(shared: Serving) -> None:
    head = b"POST /x HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    client = shared.connect().send(head + b"3;ext=1\r\nabc\r\n").send(b"4\r\ndefg\r\n0\r\nHost: other\r\n\r\n")
    assert client.answer()[2] == b"abcdefg"
    assert client.send(get(b"/next")).answer()[2] == b"/next"


def test_head_answers_length_without_body(shared: Serving) -> None:
    client = shared.connect().send(b"HEAD /abc HTTP/1.1\r\n" + HEAD + b"\r\n")
    status, headers, _ = client.answer(head_only=True)
    assert (status, headers["content-length"]) == (200, "4")
    assert client.send(get(b"/next")).answer()[2] == b"/next"


def test_http_1_0_and_connection_close_end_after_the_answer(shared: Serving) -> None:
    for request in (b"GET /x HTTP/1.0\r\n\r\n", get(extra=b"Connection: close\r\n")):
        client = shared.connect().send(request)
        status, headers, _ = client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert client.closed()


def test_client_that_half_closes_still_gets_its_answer() -> None:
    with serving() as server:
        client = server.connect().send(get(b"/later"))
        client.sock.shutdown(socket.SHUT_WR)
        time.sleep(0.02)
        server.app.gate.set()
        assert client.answer()[0] == 200
        assert client.closed()


def test_expect_100_continue(shared: Serving) -> None:
    body = b"z" * 100
    data = post(body, extra=b"Expect: 100-continue\r\n")
    client = shared.connect().send(data[: -len(body)])
    assert client.answer(head_only=True)[0] == 100
    assert client.send(body).answer()[2] == body


def test_expect_waits_behind_an_earlier_answer() -> None:
    with serving() as server:
        data = post(b"zz", extra=b"Expect: 100-continue\r\n")
        client = server.connect().send(get(b"/later") + data[:-2])
        server.app.gate.set()
        assert client.answer()[2] == b"/later"
        assert client.answer(head_only=True)[0] == 100
        assert client.send(b"zz").answer()[2] == b"zz"


def test_upgrade_offer_is_answered_as_http_1_1(shared: Serving) -> None:
    """Java's HttpClient offers h2c on its first request, also with a body."""
    extra = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    client = shared.connect()
    assert client.send(post(b"abc", extra=extra)).answer()[2] == b"abc"
    assert client.send(get(b"/u", extra=extra) + get(b"/next")).answer()[2] == b"/u"
    assert client.answer()[2] == b"/next"


# ---------------------------------------------------------------- pipelining


def test_pipelined_requests_are_answered_in_order_also_behind_a_slow_one() -> None:
    with serving() as server:
        burst = get(b"/later") + b"".join(get(b"/%d" % number) for number in range(500))
        client = server.connect().send(burst)
        time.sleep(0.02)
        server.app.gate.set()
        answers = [client.answer()[2] for _ in range(501)]
        assert answers == [b"/later", *(b"/%d" % number for number in range(500))]
        assert client.send(get(b"/more")).answer()[2] == b"/more"


def test_a_burst_on_one_connection_does_not_starve_another() -> None:
    with serving() as server:
        busy, other = server.connect(), server.connect()
        order: list[bytes] = []
        original = server.app.answered

        def answered(request: Request, response: Response, seconds: float) -> None:
            order.append(request.target)
            original(request, response, seconds)

        server.app.answered = answered  # type: ignore[method-assign]
        stands, goes_on = threading.Event(), threading.Event()
        server.loop.call_soon_threadsafe(lambda: (stands.set(), goes_on.wait(60)))
        assert stands.wait(60)
        busy.send(get(b"/busy") * 1000)
        other.send(get(b"/other"))
        goes_on.set()
        assert other.answer()[0] == 200
        until(lambda: len(order) == 1001)
        assert order.index(b"/other") < 500


def test_reading_pauses_while_many_requests_wait() -> None:
    with serving() as server:
        client = server.connect().send(get(b"/later"))
        client.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.send(get(b"/fill") * 800_000)
        # What one read brought may wait, however small the requests in it were.
        assert server.call(lambda: max(len(c._waiting) for c in server.listener._connections)) < 15_000
        server.app.gate.set()


def test_a_client_that_does_not_read_is_not_answered_without_bound() -> None:
    with serving(Limits(write_seconds=0.3, sweep_seconds=0.02)) as server:
        client = server.connect().send(get(b"/big") * 40)
        until(lambda: len(server.app.seen) > 0)
        until(lambda: server.listener.connections == 0)
        assert len(server.app.seen) <= 3
        client.sock.close()


# ---------------------------------------------------------------- refusals


REFUSED = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01", 400, "MalformedRequest"),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "MalformedRequest"),
    "unknown method": (b"FOO / HTTP/1.1\r\n" + HEAD + b"\r\n", 400, "MalformedRequest"),
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400, "MalformedRequest"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400, "MalformedRequest"),
    "length and chunked": (
        b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "MalformedRequest",
    ),
    "two lengths": (
        b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        400,
        "MalformedRequest",
    ),
    "negative length": (b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: -1\r\n\r\n", 400, "MalformedRequest"),
    "bad chunk": (
        b"POST / HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        400,
        "MalformedRequest",
    ),
    "long target": (b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n", 431, "HeaderTooLarge"),
    "long header": (get(extra=b"X: " + b"a" * 3000 + b"\r\n"), 431, "HeaderTooLarge"),
    "many headers": (get(extra=b"X: aaaaaaaa\r\n" * 300), 431, "HeaderTooLarge"),
    "endless header": (b"GET / HTTP/1.1\r\nX: a", 431, "HeaderTooLarge"),
    "endless trailer": (
        b"POST / HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: a",
        431,
        "HeaderTooLarge",
    ),
    "long body": (post(b"a" * 1001), 413, "BodyTooLarge"),
    "long body announced": (
        b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 99999999999\r\n\r\n",
        413,
        "BodyTooLarge",
    ),
    "long chunked body": (
        b"POST / HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + (b"64\r\n" + b"a" * 100 + b"\r\n") * 11,
        413,
        "BodyTooLarge",
    ),
    "compressed": (post(b"abc", extra=b"Content-Encoding: gzip\r\n"), 415, "UnsupportedEncoding"),
    "expectation": (post(b"abc", extra=b"Expect: 200-ok\r\n"), 417, "UnknownExpectation"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_problem_after_the_answers_before_it(shared: Serving, case: str) -> None:
    data, status, kind = REFUSED[case]
    client = shared.connect().send(get(b"/before") + data)
    assert client.answer()[2] == b"/before"
    if case.startswith("endless"):
        client.send(b"a" * 5000)
    found, headers, body = client.answer()
    assert (found, headers["connection"]) == (status, "close")
    assert headers["content-type"] == "application/problem+json"
    assert headers["x-vectorindex-revision"] == "products-abc"
    assert f"urn:vectorindex:problem:{kind}".encode() in body
    assert client.closed()


def test_a_refusal_reaches_a_client_that_goes_on_sending(shared: Serving) -> None:
    """Closing a socket with unread bytes would reset the connection and destroy the 413 on its way."""
    client = shared.connect().send(b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 4000000\r\n\r\n")
    for _ in range(40):
        client.send(b"a" * 100_000)
    assert client.answer()[0] == 413


def test_failures_of_the_application_are_500_and_do_not_end_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as server:
        server.app.gate.set()
        client = server.connect()
        for target in (b"/boom", b"/later-boom"):
            status, headers, body = client.send(get(target)).answer()
            assert (status, headers["x-vectorindex-revision"]) == (500, "products-abc")
            assert b"boom" not in body.replace(b"/boom", b"")
        status, headers, _ = client.send(get(b"/problem")).answer()
        assert (status, headers["x-extra"]) == (404, "yes")
        assert client.send(get()).answer()[0] == 200
        assert server.app.seen == [(b"/boom", 500), (b"/later-boom", 500), (b"/problem", 404), (b"/x", 200)]
    assert "boom" in caplog.text


def test_too_many_connections_are_told_so() -> None:
    with serving(Limits(connections=2)) as server:
        first, second = server.connect(), server.connect()
        assert first.send(get()).answer()[0] == second.send(get()).answer()[0] == 200
        third = server.connect()
        status, headers, _ = third.answer()
        assert (status, headers["retry-after"]) == (503, "1")
        assert third.closed()
        assert first.send(get()).answer()[0] == 200


def test_bodies_of_all_connections_share_a_budget_and_give_it_back() -> None:
    with serving(Limits(held_bytes=1000)) as server:
        held, refused = server.connect(), server.connect()
        held.send(post(b"a" * 900)[:-100])
        until(lambda: bool(server.call(lambda: server.listener._held == 800)))
        assert refused.send(post(b"b" * 300)).answer()[0] == 503
        assert held.send(b"a" * 100).answer()[0] == 200
        assert server.connect().send(post(b"b" * 300)).answer()[0] == 200
        held.send(post(b"a" * 900)[:-100]).sock.close()
        until(lambda: bool(server.call(lambda: server.listener._held == 0)))


# ---------------------------------------------------------------- time


def test_slow_request_times_out_with_408() -> None:
    with serving(Limits(read_seconds=0.1, sweep_seconds=0.02)) as server:
        client = server.connect().send(post(b"abc")[:-1])
        status, _, body = client.answer()
        assert (status, b"RequestTimeout" in body) == (408, True)
        assert client.closed()


def test_idle_connection_ends_and_a_waiting_one_does_not() -> None:
    limits = Limits(sweep_seconds=0.02)
    with serving(limits) as server:
        idle, waiting = server.connect(), server.connect().send(get(b"/later"))
        until(lambda: server.listener.in_flight == 1 and server.listener.connections == 2)
        server.listener.limits = replace(limits, idle_seconds=0.05)
        assert idle.closed()
        server.app.gate.set()
        assert waiting.answer()[0] == 200


def test_old_connection_closes_after_its_answer_never_before() -> None:
    with serving(Limits(age_seconds=0.05)) as server:
        client = server.connect()
        time.sleep(0.15)
        status, headers, _ = client.send(get()).answer()
        assert (status, headers["connection"]) == (200, "close")
        assert client.closed()


def test_age_is_jittered_by_a_fifth() -> None:
    listener = Listener(Echo(), "r", Limits(age_seconds=30))
    ages = [listener.connection_age() for _ in range(500)]
    assert 24 <= min(ages) < 25
    assert 35 < max(ages) <= 36


def test_closing_answers_everything_received_then_closes() -> None:
    closing = threading.Event()
    with serving(closing=closing.is_set) as server:
        client = server.connect().send(get(b"/later") + get(b"/second"))
        until(lambda: bool(server.call(lambda: server.listener.in_flight == 1)))
        closing.set()
        server.app.gate.set()
        first, second = client.answer(), client.answer()
        assert (first[2], second[2]) == (b"/later", b"/second")
        assert "connection" not in first[1]
        assert second[1]["connection"] == "close"
        assert client.closed()


def test_close_idle_spares_what_is_under_way() -> None:
    with serving() as server:
        idle, half, busy = server.connect(), server.connect(), server.connect()
        half.send(post(b"abc")[:-1])
        busy.send(get(b"/later"))
        until(lambda: bool(server.call(lambda: server.listener.in_flight == 1)))
        until(lambda: bool(server.call(lambda: sum(not c.idle for c in server.listener._connections) == 2)))
        server.call(server.listener.close_idle)
        assert idle.closed()
        assert not server.call(lambda: server.listener.quiet)
        server.app.gate.set()
        assert busy.answer()[0] == half.send(b"c").answer()[0] == 200
        until(lambda: bool(server.call(lambda: server.listener.quiet)))


def test_limits_are_sane() -> None:
    assert replace(Limits()).idle_seconds > Limits().age_seconds
