"""Time, waiting and endings of the Python client: one deadline for everything, a bounded queue, nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import struct
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from scripted import BUSY, OK, Script, aask, answer, ask, scripted

import vectorindex_client as vic
from vectorindex_client import attempts, blocking
from vectorindex_client.address import address_of
from vectorindex_client.attempts import Deadline
from vectorindex_client.places import Places

BOTH = pytest.mark.parametrize("call", [ask, aask])
Ask = Callable[..., vic.Result]


# ---------------------------------------------------------------- one deadline for everything


class Dripping:
    """Sends an answer byte by byte, each well within a timeout, all of them far beyond it."""

    def __init__(self, quick: bytes, slow: bytes) -> None:
        self._quick, self._slow = quick, slow
        self.finished = False

    def __call__(self, connection: socket.socket) -> None:
        connection.sendall(self._quick)
        for number in range(len(self._slow)):
            time.sleep(0.1)
            connection.sendall(self._slow[number : number + 1])
        self.finished = True


HEAD_END = OK.index(b"\r\n\r\n") + 4
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@BOTH
@pytest.mark.parametrize(
    ("quick", "slow"),
    [
        (b"", OK),
        (b"HTTP/1.1 100 Continue\r\n\r\n", OK),
        (OK[:HEAD_END], OK[HEAD_END:]),
        (CHUNKED, b"1\r\n{\r\n" * 20),
        (CHUNKED, b"5;" + b"x" * 100),
    ],
    ids=["head", "head after 100", "body", "chunks", "one chunk's head"],
)
def test_a_server_that_drips_gains_no_time(call: Ask, quick: bytes, slow: bytes) -> None:
    """A timeout that begins anew with each byte would let each of these take several seconds."""
    dripping = Dripping(quick, slow)
    with scripted(dripping) as script:
        with pytest.raises(vic.DeadlineExceeded, match=r"no answer within 0\.5 s.*waiting for an answer"):
            call(script, timeout=0.5)
        assert not dripping.finished
        assert len(script.heads) == 1


@BOTH
def test_retries_end_with_the_deadline_too(call: Ask) -> None:
    """After one wait there is time for a second try, however late it comes on a busy machine, and none for a third."""
    with scripted(*[answer(503, BUSY, "Retry-After: 2")] * 9) as script:
        with pytest.raises(vic.Overloaded):
            call(script, timeout=3.9, retries=9)
        assert len(script.heads) <= 2


def test_several_requests_share_the_deadline_of_their_call() -> None:
    """Each answer comes in time, all of them do not."""
    one = b'{"ids": [1], "scores": [1.0]}'
    good = b'{"revision": "r", "tookMs": 1, "results": [' + b",".join([one] * 256) + b"]}"
    slow = Dripping(b"", answer(200, good, kind="application/json")[:4])

    def later(connection: socket.socket) -> None:
        slow(connection)
        connection.sendall(answer(200, good, kind="application/json")[4:])

    with scripted(*[later] * 9) as script, vic.Client(script.url, timeout=1.0) as client:
        with pytest.raises(vic.DeadlineExceeded):
            client.search_many([[1.0]] * 2304)
        assert len(script.heads) < 9


@BOTH
def test_a_body_that_nobody_reads_ends_with_the_deadline(call: Ask) -> None:
    """Megabytes that fit no buffer: sending blocks, and is part of the call."""
    listening = socket.create_server(("127.0.0.1", 0))
    with listening, scripted() as script:
        script.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(vic.DeadlineExceeded):
            call(script, timeout=0.5, query=[1.0] * 1_000_000)


def test_a_name_that_is_not_found_out_in_time_ends_with_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver may take half a minute, and nothing in Python bounds it. One look-up at a time, however many wait."""
    asked, over = [], threading.Event()
    original = socket.getaddrinfo

    def hanging(*given: Any, flags: int = 0, **named: Any) -> Any:
        if flags & socket.AI_NUMERICHOST:
            return original(*given, flags=flags, **named)
        asked.append(given)
        over.wait(60)
        raise socket.gaierror("unknown")

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    with vic.Client("http://products.shop.svc", timeout=0.2) as client:
        for _ in range(3):
            with pytest.raises(vic.DeadlineExceeded, match="waiting for a connection"):
                client.search([1.0])
    assert len(asked) == 1
    over.set()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_that_is_none_is_refused(timeout: float) -> None:
    for make in (vic.Client, vic.AsyncClient):
        with pytest.raises(ValueError, match="timeout must be positive seconds"):
            make("http://localhost", timeout=timeout)
    with vic.Client("http://localhost") as client, pytest.raises(ValueError, match="timeout must be"):
        client.search([1.0], timeout=timeout)


def test_the_deadline_is_told_in_few_different_heads() -> None:
    told = [attempts._told(seconds) for seconds in (9.9999, 9.97, 9.91, 0.2999, 0.001, 0.0004, 3600.0)]
    assert told == [10000, 10000, 10000, 300, 2, 1, attempts.MAX_DEADLINE_MS]
    for _ in range(1000):
        seconds = random.uniform(0.001, 600)
        assert seconds * 1e3 <= attempts._told(seconds) <= seconds * 1e3 * 1.1 + 1


# ---------------------------------------------------------------- who waits, who is refused


def test_places_are_given_in_order_until_the_first_has_waited_for_half_of_its_time() -> None:
    places: Places[str] = Places(1, 9)
    assert places.take()
    assert not places.take()
    for name, half in (("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 9.0)):
        places.wait(name, half)
    assert [places.give(0.5), places.give(1.5)] == ["a", "b"]
    assert places.give(3.5) == "d", "the first is late: whoever comes last still has time"
    assert not places.forget("a")
    assert places.forget("c")
    assert places.give(4.0) is None
    assert places.take()


def test_places_are_bounded_and_none_is_lost_whatever_happens() -> None:
    rng = random.Random(3)
    for _ in range(200):
        connections, waiting = rng.randint(1, 3), rng.randint(0, 4)
        places: Places[int] = Places(connections, waiting)
        using, queue, calls = 0, set[int](), 0
        for step in range(60):
            if rng.random() < 0.5:
                if calls == connections + waiting:
                    with pytest.raises(vic.Overloaded) as caught:
                        places.enter()
                    assert caught.value.kind == "TooManyWaiting"
                    continue
                places.enter()
                calls += 1
                if places.take():
                    using += 1
                else:
                    places.wait(step, rng.uniform(0, 60))
                    queue.add(step)
            elif queue and rng.random() < 0.3:
                gone = rng.choice(sorted(queue))
                assert places.forget(gone)
                queue.remove(gone)
                places.leave()
                calls -= 1
            elif using:
                woken = places.give(rng.uniform(0, 60))
                assert (woken is not None) == bool(queue)
                if woken is None:
                    using -= 1
                else:
                    queue.remove(woken)
                places.leave()
                calls -= 1
            assert using <= connections
            assert not queue or using == connections


@contextmanager
def holding(script: Script, connections: int, waiting: int) -> Iterator[tuple[vic.Client, threading.Thread]]:
    """A client whose only connection is in use by another thread, whose answer does not come before the end."""
    with vic.Client(script.url, connections=connections, waiting=waiting, timeout=60) as client:
        thread = threading.Thread(target=lambda: client.search([1.0]))
        thread.start()
        while not script.heads:
            time.sleep(0.01)
        yield client, thread
        script.closing.set()
        thread.join(60)


def held_answer(script_of: list[Script]) -> Callable[[socket.socket], None]:
    def hold(connection: socket.socket) -> None:
        script_of[0].closing.wait(60)
        connection.sendall(OK)

    return hold


def test_waiting_threads_are_bounded_in_number_and_in_time() -> None:
    scripts: list[Script] = []
    with scripted(held_answer(scripts), OK) as script:
        scripts.append(script)
        with holding(script, connections=1, waiting=1) as (client, _):
            with pytest.raises(vic.DeadlineExceeded, match=r"within 0\.2 s.*waiting for a free connection.*searchers"):
                client.search([1.0], timeout=0.2)
            waits = threading.Thread(target=lambda: client.search([1.0]))
            waits.start()
            while client._http._places._calls < 2:
                time.sleep(0.01)
            with pytest.raises(vic.Overloaded, match="1 connections and 1 that may wait") as caught:
                client.search([1.0])
            assert (caught.value.kind, caught.value.status, len(script.heads)) == ("TooManyWaiting", None, 1)
        waits.join(60)
        assert len(script.heads) == 2, "who waited was served"
        assert (client._http._places._calls, client._http._places._in_use) == (0, 0)


def test_waiting_tasks_are_bounded_in_number_and_in_time() -> None:
    scripts: list[Script] = []

    async def main(script: Script) -> None:
        async with vic.AsyncClient(script.url, connections=1, waiting=1, timeout=60) as client:
            first = asyncio.create_task(client.search([1.0]))
            while not script.heads:
                await asyncio.sleep(0.01)
            with pytest.raises(vic.DeadlineExceeded, match="waiting for a free connection"):
                await client.search([1.0], timeout=0.2)
            cancelled = asyncio.create_task(client.search([1.0]))
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            second = asyncio.create_task(client.search([1.0]))
            await asyncio.sleep(0)
            with pytest.raises(vic.Overloaded) as caught:
                await client.search([1.0])
            assert caught.value.kind == "TooManyWaiting"
            script.closing.set()
            assert [one.ids for one in await asyncio.gather(first, second)] == [[1], [1]]
            places = client._http._places
            assert (places._calls, places._in_use, len(places._queue)) == (0, 0, 0)

    with scripted(held_answer(scripts), OK) as script:
        scripts.append(script)
        asyncio.run(main(script))
        assert len(script.heads) == 2


def test_a_task_that_is_cancelled_when_its_turn_comes_passes_it_on() -> None:
    async def main() -> None:
        from vectorindex_client import awaiting

        connections = awaiting.Connections(address_of("http://localhost"), None, 1, 9)
        deadline = Deadline(60)
        await connections._take(deadline)
        waiting = [asyncio.create_task(connections._take(deadline)) for _ in range(2)]
        await asyncio.sleep(0)
        connections._give()  # the first one's turn, which it does not know yet
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        await asyncio.wait_for(waiting[1], 60)

    asyncio.run(main())


# ---------------------------------------------------------------- what is left behind


@BOTH
@pytest.mark.parametrize(
    ("given", "error"),
    [
        (b"SSH-2.0-server\r\n", vic.ServerError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", vic.ServerError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf", vic.Unreachable),
        (CHUNKED + b"5\r\nhal", vic.Unreachable),
        (b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 100_000 + b"\r\n\r\n", vic.ServerError),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000 + b"\r\n", vic.ServerError),
    ],
    ids=["another protocol", "too large", "cut", "cut chunk", "long header", "many headers"],
)
def test_answers_that_are_none_end_the_call_and_the_connection(
    call: Ask, given: bytes, error: type[vic.VectorIndexError]
) -> None:
    def say(connection: socket.socket) -> None:
        connection.sendall(given)

    with scripted(say) as script:
        with pytest.raises(error) as caught:
            call(script, timeout=30)
        assert type(caught.value) is error
        assert len(script.heads) == 1, "what was answered in part is not asked again"


def binary(queries: int, ids: list[int], counts: list[int], kind: int = 0, rest: bytes = b"") -> bytes:
    body = struct.pack("<4sIII", b"VXA1", queries, len(ids), kind)
    body += struct.pack(f"<{len(ids)}{'I' if kind else 'q'}", *ids) + struct.pack(f"<{len(counts)}I", *counts)
    return body + struct.pack(f"<{len(ids)}f", *range(len(ids))) + rest


REVISION = "X-VectorIndex-Revision: r"


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        (binary(1, [7, -8], [2]), [7, -8]),
        (binary(1, [], [0]), []),
        (binary(1, [1, 3], [2], 1, "aäb".encode()), ["a", "äb"]),
    ],
)
def test_binary_answers(body: bytes, ids: list[vic.Id]) -> None:
    with scripted(answer(200, body, REVISION, kind="application/octet-stream")) as script:
        found = ask(script)
        assert (found.ids, found.revision, len(found.scores), found.took_ms) == (ids, "r", len(ids), None)
        assert "Accept: application/octet-stream" in script.heads[0]
        assert "dimension=1&" in script.heads[0].replace(" ", "&")
        assert script.bodies == [struct.pack("<f", 1.0)]


@pytest.mark.parametrize(
    "body",
    [
        b"VXA1", binary(2, [1], [1, 0]), binary(1, [1, 2], [1]), binary(1, [1], [1]) + b"x", binary(1, [1], [1])[:-1],
        binary(1, [5], [1], 1, b"abc"), binary(1, [1], [1], 1, b"\xff"), binary(1, [1], [1], 2, b"a"),
        struct.pack("<4sIII", b"VXA1", 1, 2**32 - 1, 0), struct.pack("<4sIII", b"VXA1", 2**32 - 1, 0, 0),
    ],
)  # fmt: skip
def test_binary_answers_that_are_not_whole(body: bytes) -> None:
    whole = answer(200, body, REVISION, kind="application/octet-stream")
    with scripted(whole) as script, pytest.raises(vic.ServerError, match="not one of a searcher"):
        ask(script)


def test_a_binary_answer_of_nobody_knows_which_revision() -> None:
    nameless = answer(200, binary(1, [1], [1]), kind="application/octet-stream")
    with scripted(nameless) as script, pytest.raises(vic.ServerError, match="not one of a searcher"):
        ask(script)


@pytest.mark.parametrize(("call", "reads"), [(ask, True), (ask, False), (aask, True)])  # asyncio drops it after a reset
def test_a_refusal_is_read_although_the_server_stopped_reading(call: Ask, reads: bool) -> None:
    """A server that refuses a large body early answers and closes: the answer counts, not the broken pipe."""

    def refuse(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(answer(401, b'{"detail": "a token is needed"}', "Connection: close"))
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(60)
            with suppress(ConnectionResetError):
                while reads and connection.recv(1 << 20):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listening, scripted() as script:
        thread = threading.Thread(target=refuse, args=(listening,))
        thread.start()
        script.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(vic.Unauthorized, match="a token is needed"):
            call(script, query=[1.0] * 1_000_000, timeout=30)
        thread.join(60)


def test_a_refusal_before_all_was_sent_ends_the_connection() -> None:
    """aiohttp went on to send to whoever had refused; with its event loop gone the connection stayed for ever."""
    over = threading.Event()
    left: list[bytes] = []

    def refuse(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(answer(401, b'{"detail": "a token is needed"}', "Connection: close"))
            over.wait(60)
            connection.settimeout(60)
            with suppress(ConnectionResetError):
                left.extend(iter(lambda: connection.recv(1 << 20), b""))
            left.append(b"ended")

    with socket.socket() as listening, scripted() as script:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that not all can be sent
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=refuse, args=(listening,))
        thread.start()
        script.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        gc.disable()  # it would close what was forgotten
        try:
            with pytest.raises(vic.Unauthorized, match="a token is needed"):
                aask(script, query=[1.0] * 3_000_000, timeout=60)
            over.set()
            thread.join(120)
        finally:
            gc.enable()
    assert left[-1] == b"ended"


def test_a_connection_that_was_closed_while_idle_is_not_used_even_for_feedback() -> None:
    """Feedback is never sent twice, so it must not be the one that finds out."""
    counted = answer(202, b'{"counted": true}', kind="application/json")

    def once(connection: socket.socket) -> None:
        connection.sendall(OK)

    with scripted(once, counted) as script, vic.Client(script.url) as client:
        client.search([1.0])
        (idle,) = client._http._idle
        while idle.usable():
            time.sleep(0.01)
        assert client.feedback("id", 1)
        assert script.connections == 2


def test_idle_connections_end_with_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "KEEP_ALIVE_SECONDS", 0.0)
    with scripted(OK, OK) as script, vic.Client(script.url) as client:
        client.search([1.0])
        client.search([1.0])
        assert script.connections == 2


def test_a_child_process_opens_its_own_connections() -> None:
    """Parent and child on one connection would read each other's answers."""
    with scripted(OK, OK, OK) as script, vic.Client(script.url) as client:
        client.search([1.0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python tells of fork beside threads, rightly
            child = os.fork()
        if child == 0:
            try:
                os._exit(0 if client.search([1.0], timeout=30).ids == [1] else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert script.connections == 2
        client.search([1.0])
        assert script.connections == 2, "the parent's was left alone"


def test_a_closed_client_says_so_and_leaves_nothing_open() -> None:
    gc.collect()
    with scripted(OK, OK) as script:
        client = vic.Client(script.url)
        client.search([1.0])
        client.close()
        client.close()
        assert client._http._idle == []
        with pytest.raises(RuntimeError, match="closed"):
            client.search([1.0])

        async def main() -> None:
            other = vic.AsyncClient(script.url)
            await other.search([1.0])
            await other.aclose()
            await other.aclose()
            with pytest.raises(RuntimeError, match="closed"):
                await other.search([1.0])

        asyncio.run(main())
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        del client
        gc.collect()


def test_an_async_client_belongs_to_one_event_loop() -> None:
    async def main(script: Script) -> None:
        async with vic.AsyncClient(script.url) as client:
            await client.search([1.0])
            with pytest.raises(RuntimeError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, client.search([1.0]))

    with scripted(OK) as script:
        asyncio.run(main(script))


SECRET = "a-secret-token"


@BOTH
@pytest.mark.parametrize("token", [f"{SECRET}\n", f"{SECRET} x", f"{SECRET}\r\nX: y", f"{SECRET}ä"])
def test_a_token_that_no_header_can_hold_is_refused_and_never_shown(call: Ask, token: str) -> None:
    with scripted() as script:
        with pytest.raises(ValueError, match="the token has a character that no header may hold") as caught:
            call(script, token=token)
        assert SECRET not in str(caught.value)
        assert script.heads == []


@BOTH
@pytest.mark.parametrize(
    "given", [b"", answer(401, b"{}"), answer(302, b"", "Location: http://elsewhere/"), b"nothing"]
)
def test_no_error_and_no_text_shows_the_token(call: Ask, given: bytes) -> None:
    with scripted(given, given) as script, pytest.raises(vic.VectorIndexError) as caught:
        call(script, token=SECRET, retries=0)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error) + repr(error) + repr(getattr(error, "__dict__", ""))
        error = error.__cause__ or error.__context__
    client = vic.Client("http://localhost", token=SECRET)
    assert SECRET not in repr(client) + repr(client._settings)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:8080", "write http://localhost:8080"),
        ("ftp://me:pw@host", "must begin with http"),
        ("http://me:pw@host", "token="),
        ("http://host/?token=pw", "leave that out"),
        ("http://", "names no host"),
        ("http://host:99999", "port"),
        ("http://a b", "host that is none"),
        ("http://" + "ä" * 300, "host that is none"),
        ("http://host/a b", "percent-encoded"),
        ("http://host/a\r\nX: y", "percent-encoded|no host"),
    ],
)
def test_urls_that_are_none(url: str, said: str) -> None:
    for make in (vic.Client, vic.AsyncClient):
        with pytest.raises(ValueError, match=said) as caught:
            make(url)
        assert "me:pw" not in str(caught.value)


def test_addresses() -> None:
    found = address_of("https://[::1]/prefix/")
    assert (found.tls, found.host, found.port, found.base) == (True, "::1", 443, "https://[::1]/prefix")
    assert address_of("http://host:8080").authority == "host:8080"
    assert address_of("http://bücher.example").authority == "xn--bcher-kva.example"
    with scripted(OK, OK) as script:
        script.url += "/below/"
        ask(script)
        aask(script)
        assert [head.partition("?")[0] for head in script.heads] == ["POST /below/v1/search"] * 2


@BOTH
def test_proxies_of_the_environment_are_not_used(call: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with scripted(OK) as script:
        assert call(script).ids == [1]
