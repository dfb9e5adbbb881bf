"""Many connections, few descriptors, slow clients: who uses the port is answered, who blocks it goes."""

from __future__ import annotations

import os
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from waiting import until
from wire import Client, get, post, serving

from vectorindex_searcher.serve.http import connection as connection_module
from vectorindex_searcher.serve.http.limits import ADMIN, SPARE_DESCRIPTORS, Limits, share_descriptors


def ended(client: Client) -> bool:
    """The server dropped the connection."""
    client.sock.settimeout(60)
    try:
        return client.sock.recv(1 << 16) == b""
    except ConnectionResetError:
        return True


def still_open(client: Client) -> bool:
    client.sock.setblocking(False)
    try:
        return client.sock.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False
    finally:
        client.sock.settimeout(60)


# ---------------------------------------------------------------- connections


@pytest.mark.parametrize("sent", [b"", b"GET / HT", post(b"abc")[:-1]], ids=["nothing", "half a head", "half a body"])
def test_a_full_port_answers_whoever_comes_next(sent: bytes) -> None:
    """257 of them on the admin port were enough for the kubelet to restart the pod."""
    with serving(Limits(connections=8)) as server:
        crowd = [server.connect().send(sent) for _ in range(30)]
        for _ in range(20):
            assert server.connect().send(get()).answer()[0] == 200
        until(lambda: server.listener.connections <= 8)
        assert all(ended(one) for one in crowd[:22])


def test_who_was_answered_stays_before_who_never_asked_and_the_latest_stays_longest() -> None:
    with serving(Limits(connections=4)) as server:
        first, second, third = (server.connect() for _ in range(3))
        for client in (first, second, third, first):
            assert client.send(get()).answer()[0] == 200
        crowd = [server.connect() for _ in range(6)]
        asking = server.connect()  # kept: closed, it would make room for the late one
        assert asking.send(get()).answer()[0] == 200
        assert all(ended(one) for one in crowd)
        assert still_open(first)
        assert still_open(third)
        late = server.connect()
        assert late.send(get()).answer()[0] == 200
        assert ended(second), "of those that were answered, it is idle the longest"
        assert first.send(get()).answer()[0] == 200


def test_what_is_being_answered_is_never_closed_for_others() -> None:
    with serving(Limits(connections=3)) as server:
        busy = [server.connect().send(get(b"/later")) for _ in range(3)]
        until(lambda: server.listener.in_flight == 3)
        told = [server.connect() for _ in range(80)]
        statuses = []
        for one in told:
            try:
                statuses.append(one.answer()[0])
            except (AssertionError, OSError):
                statuses.append(0)  # closed without a word: there is a bound on those that are told so at once
        assert 503 in statuses
        assert set(statuses) <= {0, 503}
        server.app.gate.set()
        assert [one.answer()[0] for one in busy] == [200] * 3


def test_a_handshake_that_never_comes_counts_as_a_connection() -> None:
    """It did not, so that strangers could take all descriptors of the process without a byte."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with serving(Limits(connections=8), tls=context) as server:
        silent = [server.connect() for _ in range(30)]
        until(lambda: bool(server.call(lambda: server.listener.connections >= 8)))
        for _ in range(10):
            raw = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            client = Client(trusting.wrap_socket(raw, server_hostname="localhost"))
            assert client.send(get()).answer()[0] == 200
        assert all(ended(one) for one in silent[:22])
        until(lambda: server.listener.connections <= 8)


def test_a_handshake_that_takes_too_long_ends() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with serving(Limits(handshake_seconds=0.05), tls=context) as server:
        assert ended(server.connect())
        assert ended(server.connect().send(b"\x16\x03\x01"))
        until(lambda: server.listener.connections == 0)


# ---------------------------------------------------------------- descriptors


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """The process can open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    holders: list[int] = []
    try:
        top = max(int(path.name) for path in Path("/dev/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (top + 2, hard))
        with suppress(OSError):
            while True:
                holders.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for holder in holders:
            os.close(holder)


def test_accept_that_fails_goes_on_later_and_does_not_spin() -> None:
    """uvloop's own server closed the listening socket for ever."""
    with serving() as server:
        client = socket.socket()
        client.settimeout(60)
        acceptor = server.listener._acceptor
        assert acceptor is not None
        with no_descriptor_left():
            client.connect(("127.0.0.1", server.port))
            client.sendall(get())
            began, cpu = time.monotonic(), time.process_time()
            until(lambda: acceptor.failures >= 4)
            assert time.process_time() - cpu < 0.9 * (time.monotonic() - began) + 0.05, "it spins"
        assert Client(client).answer()[0] == 200
        assert server.connect().send(get()).answer()[0] == 200


def test_a_port_without_descriptors_takes_those_of_idle_connections() -> None:
    with serving() as server:
        idle = [server.connect() for _ in range(40)]
        for one in idle:
            assert one.send(get()).answer()[0] == 200
        client = socket.socket()
        client.settimeout(60)
        with no_descriptor_left():
            client.connect(("127.0.0.1", server.port))
            client.sendall(get())
            assert Client(client).answer()[0] == 200
        assert ended(idle[0])
        assert still_open(idle[-1])


@pytest.mark.parametrize(
    ("descriptors", "users", "admin"),
    [
        (65_536, 2048, 256),
        (20_000, 2048, 256),
        (2100, 1728, 256),
        (1024, 652, 256),
        (256, 70, 70),
        (64, 8, 8),
        (1, 8, 8),
    ],
)
def test_descriptors_are_shared_so_that_the_admin_port_has_its_own(descriptors: int, users: int, admin: int) -> None:
    of_users, of_admin = share_descriptors(descriptors, used=20)
    assert (of_users.connections, of_admin.connections) == (users, admin)
    assert of_admin.body_bytes == ADMIN.body_bytes
    if descriptors > 200:
        assert users + admin + SPARE_DESCRIPTORS + 20 <= descriptors


def test_with_tls_there_are_fewer_connections_because_each_takes_memory() -> None:
    assert share_descriptors(65_536, used=20, tls=True)[0].connections == 512
    assert share_descriptors(256, used=20, tls=True)[0].connections == 70


def test_the_limit_on_open_files_is_raised_to_the_hard_one() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300));"
        "from vectorindex_searcher.serve.http.limits import raise_descriptors; print(raise_descriptors())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "300\n"


# ---------------------------------------------------------------- what is held


def test_a_request_that_dawdles_gives_way_when_too_much_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few dozen slow uploads could hold all room for bodies, so that everybody else was refused."""
    monkeypatch.setattr(connection_module, "_PROMPT_SECONDS", 0.0)
    with serving(Limits(held_bytes=2000)) as server:
        small, large = server.connect(), server.connect()
        small.send(post(b"s" * 500)[:-1])
        large.send(post(b"l" * 1200)[:-1])
        until(lambda: bool(server.call(lambda: server.listener.held > 1600)))
        assert server.connect().send(post(b"x" * 500)).answer()[0] == 200
        status, headers, _ = large.answer()
        assert (status, headers["connection"]) == (408, "close")
        assert small.send(b"s").answer()[0] == 200
        until(lambda: server.listener.held == 0)


def test_one_connection_cannot_hold_many_bodies() -> None:
    limits = Limits(body_bytes=1 << 20)
    with serving(limits) as server:
        client = server.connect().send(get(b"/later"))
        client.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.send(post(b"x" * (1 << 20)) * 100)
        assert server.listener.held < 4 * limits.body_bytes
        server.app.gate.set()
        client.sock.close()
        until(lambda: server.listener.held == 0)


def test_a_request_that_waits_for_us_is_not_too_slow() -> None:
    """Its bytes are not read while others wait: that it is incomplete is not the client's fault."""
    with serving() as server:
        half, rest = post(b"x" * 300_000)[:-1], b"x"
        client = server.connect().send(get(b"/later") + get(b"/fill") * 16 + half)
        until(lambda: bool(server.call(lambda: all(one._paused for one in server.listener._connections))))
        (connection,) = server.listener._connections
        server.call(lambda: connection.check_clock(time.monotonic() + 1000))
        server.app.gate.set()
        assert [client.answer()[2] for _ in range(17)] == [b"/later"] + [b"/fill"] * 16
        assert client.send(rest).answer()[::2] == (200, b"x" * 300_000)


@dataclass(frozen=True)
class Way:
    """In clear or by TLS."""

    server: ssl.SSLContext | None = None
    client: ssl.SSLContext | None = None

    def slow(self, port: int) -> Client:
        """A client whose kernel takes little for it."""
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(60)
        raw.connect(("127.0.0.1", port))
        return Client(raw if self.client is None else self.client.wrap_socket(raw, server_hostname="localhost"))


@pytest.fixture(params=["clear", "TLS"])
def way(request: pytest.FixtureRequest) -> Way:
    if request.param == "clear":
        return Way()
    authority = trustme.CA()
    served, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(served)
    authority.configure_trust(trusting)
    return Way(served, trusting)


def test_unread_answers_of_all_are_bounded_and_the_longest_unread_goes(way: Way) -> None:
    """Under TLS the event loop did not even tell that they were unread."""
    with serving(Limits(unread_bytes=12 << 20), tls=way.server) as server:
        clients = []
        for number in range(4):
            clients.append(way.slow(server.port).send(get(b"/big")))  # 8 MiB, of which the kernel takes some
            until(lambda count=number: len(server.seen()) == count + 1)
            until(lambda: server.call(lambda: max(one._unread_bytes for one in server.listener._connections) > 1 << 20))
        until(lambda: bool(server.call(lambda: server.listener._unread <= 12 << 20)))
        assert server.listener.connections < 4
        status, _, body = clients[-1].answer()
        assert (status, len(body)) == (200, 8 << 20)
        with pytest.raises((AssertionError, OSError)):
            clients[0].answer()
        for client in clients:
            client.sock.close()
        until(lambda: bool(server.call(lambda: server.listener._unread == 0)))


def test_the_kernel_takes_little_of_what_nobody_reads() -> None:
    """What lies there is counted by nobody: of 300 connections that did not read it held 438 MiB."""
    with serving() as server:
        for size in (8 << 20, 16 << 10):
            client = Way().slow(server.port)
            client.sock.settimeout(0.3)
            with suppress(TimeoutError):  # it is not read from once its answers are not
                client.send(get(b"/big") if size == 8 << 20 else post(b"x" * size) * 400)
            until(lambda: server.listener._unreading)
            (connection,) = server.listener._unreading
            unsent = server.call(lambda one=connection: one._transport.get_write_buffer_size() + one._unsent_bytes)
            assert isinstance(unsent, int)
            taken = size * len(server.seen()) - unsent
            assert taken < 400 << 10, f"{size}: {taken >> 10} KiB"
            server.app.seen.clear()
            client.sock.close()
            until(lambda: server.listener.connections == 0)


def test_an_answer_read_in_drips_has_its_time_as_a_whole(way: Way) -> None:
    with serving(tls=way.server) as server:
        client = way.slow(server.port).send(get(b"/big"))
        until(lambda: server.listener._unread > 1 << 20)
        (connection,) = server.listener._connections
        began = connection._stalled_since
        for _ in range(40):
            client.sock.recv(1 << 16)
        assert connection._stalled_since == began
        server.call(lambda: connection.check_clock(time.monotonic() + 31))
        until(lambda: server.listener.connections == 0)
        client.sock.close()


def test_the_last_answer_reaches_a_client_that_reads_slowly(way: Way) -> None:
    """It was cut off two seconds after it was written, read or not."""
    with serving(tls=way.server) as server:
        client = way.slow(server.port).send(get(b"/big", b"Connection: close\r\n"))
        until(lambda: len(server.seen()) == 1)
        (connection,) = server.listener._connections
        server.call(lambda: connection.check_clock(time.monotonic() + 10))
        status, headers, body = client.answer()
        assert (status, headers["connection"], len(body)) == (200, "close", 8 << 20)


def test_a_last_answer_that_nobody_reads_ends() -> None:
    with serving() as server:
        client = server.connect().send(get(b"/big", b"Connection: close\r\n"))
        until(lambda: len(server.seen()) == 1)
        (connection,) = server.listener._connections
        server.call(lambda: connection.check_clock(time.monotonic() + 100))
        until(lambda: server.listener.connections == 0)
        client.sock.close()


def test_a_flood_of_connections_does_not_keep_others_waiting() -> None:
    with serving(Limits(connections=ADMIN.connections)) as server:
        stop = threading.Event()

        def flood() -> None:
            crowd: list[socket.socket] = []
            while not stop.is_set():
                with suppress(OSError):
                    crowd.append(socket.create_connection(("127.0.0.1", server.port), timeout=1))
                if len(crowd) > 400:
                    crowd.pop(0).close()
            for one in crowd:
                one.close()

        threads = [threading.Thread(target=flood) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(50):
                assert server.connect().send(get()).answer()[0] == 200
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert server.listener.connections <= ADMIN.connections


def test_what_no_bound_counts_is_little_of_each_connection(way: Way) -> None:
    """Under TLS half a megabyte could wait in each direction before anybody was told."""
    with serving(tls=way.server) as server:
        assert way.slow(server.port).send(get()).answer()[0] == 200
        way.slow(server.port).send(get())
        until(lambda: len(server.seen()) == 2)
        for connection in server.listener._connections:
            assert connection._transport is not None
            assert connection._transport.get_write_buffer_limits()[1] <= 16 << 10  # type: ignore[attr-defined]


def test_what_comes_behind_the_last_request_is_not_read_while_it_is_answered() -> None:
    with serving() as server:
        client = server.connect().send(get(b"/later", b"Connection: close\r\n"))
        until(lambda: server.listener.in_flight == 1)
        client.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.send(b"x" * 400_000_000)
        client.sock.settimeout(60)
        server.app.gate.set()
        assert client.answer()[2] == b"/later"


# ---------------------------------------------------------------- turns of the event loop


@pytest.mark.parametrize(
    "dear",
    [
        get(b"/x") * 16,
        b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 3000 + b"0\r\n\r\n",
    ],
    ids=["pipelines", "chunks"],
)
def test_what_many_send_at_once_keeps_no_other_waiting(dear: bytes) -> None:
    """Fifty connections that sent bodies in thousands of chunks at the same moment had the event loop for 1.3 s."""
    with serving(Limits(turn_seconds=0.0)) as server:
        crowd, last = [server.connect() for _ in range(20)], server.connect()
        for client in (*crowd, last):
            assert client.send(get()).answer()[0] == 200
        seen = len(server.seen())
        stands, goes_on = threading.Event(), threading.Event()
        server.loop.call_soon_threadsafe(lambda: (stands.set(), goes_on.wait(60)))
        assert stands.wait(60)
        for client in crowd:
            client.send(dear)
        last.send(get(b"/last"))
        goes_on.set()
        assert last.answer()[2] == b"/last"
        for client in crowd:
            assert [client.answer()[0] for _ in range(dear.count(b"HTTP/1.1"))] == [200] * dear.count(b"HTTP/1.1")
        order = [target for target, _ in server.seen()[seen:]]
        assert order.index(b"/last") <= 2 * len(crowd)


def test_a_turn_for_each_request_changes_no_answer() -> None:
    burst = b"".join(get(b"/%d" % number) + post(b"b%d" % number, b"/later") for number in range(60))
    with serving(Limits(turn_seconds=0.0)) as server:
        server.app.gate.set()
        clients = [server.connect().send(burst) for _ in range(8)]
        for client in clients:
            answers = [client.answer()[2] for _ in range(120)]
            assert answers == [text for number in range(60) for text in (b"/%d" % number, b"b%d" % number)]
            assert client.send(get(b"/more")).answer()[2] == b"/more"
        until(lambda: server.listener.held == 0)
