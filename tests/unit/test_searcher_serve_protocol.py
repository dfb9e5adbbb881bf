"""HTTP/1.1 as clients really speak it: in pieces, in bursts, badly, slowly, and while the pod wants them gone."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from waiting import until
from wire import HEAD, Echo, Serving, get, post, serving

from vectorindex_searcher.serve.http.limits import Limits
from vectorindex_searcher.serve.http.listener import Listener
from vectorindex_searcher.serve.http.messages import Request, Response


@pytest.fixture(scope="module")
def shared() -> Iterator[Serving]:
    with serving(Limits(body_bytes=1000, header_bytes=2000)) as server:
        yield server


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
    client = shared.connect().send(head + b"3;ext=1\r\nabc\r\n").send(b"4\r\ndefg\r\n0\r\nX-Digest: other\r\n\r\n")
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
        assert server.call(lambda: max(len(c._waiting) for c in server.listener._connections)) <= 16
        server.app.gate.set()


def test_a_client_that_does_not_read_is_not_answered_without_bound() -> None:
    with serving(Limits(write_seconds=0.3, sweep_seconds=0.02)) as server:
        client = server.connect().send(get(b"/big") * 40)
        until(lambda: len(server.seen()) > 0)
        until(lambda: server.listener.connections == 0)
        assert len(server.seen()) <= 3
        client.sock.close()


# ---------------------------------------------------------------- refusals


REFUSED = {
    "long target": (b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n", 414, "TargetTooLong"),
    "long header": (get(extra=b"X: " + b"a" * 3000 + b"\r\n"), 431, "HeaderTooLarge"),
    "many headers": (get(extra=b"X: a\r\n" * 129), 431, "HeaderTooLarge"),
    "endless header": (b"GET / HTTP/1.1\r\nX: a", 431, "HeaderTooLarge"),
    "endless trailer": (
        b"POST / HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: a",
        431,
        "HeaderTooLarge",
    ),
    "endless extension": (
        b"POST / HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;a",
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
"""Too much, or not understood. What is no HTTP/1.1: test_searcher_serve_framing.py."""


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
        assert server.seen() == [(b"/boom", 500), (b"/later-boom", 500), (b"/problem", 404), (b"/x", 200)]
    assert "boom" in caplog.text


def test_too_many_connections_are_told_so() -> None:
    with serving(Limits(connections=2)) as server:
        first, second = server.connect(), server.connect()
        for busy in (first, second):
            busy.send(get(b"/later"))
        until(lambda: server.listener.in_flight == 2)
        third = server.connect()
        status, headers, _ = third.answer()
        assert (status, headers["retry-after"]) == (503, "1")
        assert third.closed()
        server.app.gate.set()
        assert first.answer()[0] == second.answer()[0] == 200


def test_bodies_of_all_connections_share_a_budget_and_give_it_back() -> None:
    with serving(Limits(held_bytes=1000)) as server:
        held, refused = server.connect(), server.connect()
        held.send(post(b"a" * 900)[:-100])
        until(lambda: bool(server.call(lambda: server.listener.held >= 800)))
        assert refused.send(post(b"b" * 300)).answer()[0] == 503
        assert held.send(b"a" * 100).answer()[0] == 200
        assert server.connect().send(post(b"b" * 300)).answer()[0] == 200
        held.send(post(b"a" * 900)[:-100]).sock.close()
        until(lambda: bool(server.call(lambda: server.listener.held == 0)))


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
