"""The Lease against a real socket that answers, hangs, or drips: a Lease that cannot be renewed is lost in time."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from kubernetes import client

from vectorindex_operator.adapters.kube import api_client
from vectorindex_operator.adapters.lease import LeaseLock, LeaseTimes, lead

TIMES = LeaseTimes(duration=5, renew_within=3.0, retry=1.0, request=0.5)
SOON = 20.0


@dataclass
class ApiServer:
    """Keeps one Lease. `behaviour`: answer, hang (accepts, never answers) or drip (an answer that never ends)."""

    behaviour: str = "answer"
    lease: dict[str, Any] | None = None
    renewals: int = 0
    renewed: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def server() -> Iterator[tuple[ApiServer, str]]:
    state = ApiServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def handle_any(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(size)) if size else None
            if state.behaviour == "hang":
                state.over.wait(SOON)
                self.close_connection = True
                return
            if state.behaviour == "drip":
                self._drip()
                return
            if self.command == "GET" and state.lease is None:
                self._answer(404, {"kind": "Status", "code": 404, "reason": "NotFound"})
                return
            if body is not None:
                state.lease = body
                state.renewals += 1
                state.renewed.set()
            self._answer(200, state.lease)

        def _answer(self, status: int, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _drip(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            try:
                while not state.over.wait(0.1):
                    self.wfile.write(b" ")
                    self.wfile.flush()
            except OSError:
                self.close_connection = True

        do_GET = do_POST = do_PUT = handle_any  # noqa: N815

        def log_message(self, *args: object) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield state, f"http://127.0.0.1:{http.server_port}"
    state.over.set()
    http.shutdown()
    http.server_close()
    thread.join()


def lock_at(url: str, identity: str = "pod-1") -> LeaseLock:
    return LeaseLock("default", identity, api_client(client.Configuration(host=url)), TIMES)


@dataclass
class Elected:
    """One process: its election runs in a thread."""

    lock: LeaseLock
    leading: threading.Event = field(default_factory=threading.Event)
    lost: threading.Event = field(default_factory=threading.Event)

    def start(self) -> Elected:
        forever = threading.Event()

        def work() -> None:
            self.leading.set()
            forever.wait(SOON)

        def run() -> None:
            lead(self.lock, work, self.lost.set)

        threading.Thread(target=run, daemon=True).start()
        return self


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_lease_whose_renewal_does_not_end_is_lost_before_it_runs_out(
    server: tuple[ApiServer, str], fault: str
) -> None:
    state, url = server
    process = Elected(lock_at(url)).start()
    assert process.leading.wait(SOON)
    state.renewed.clear()
    assert state.renewed.wait(SOON)
    state.behaviour = fault
    since = time.monotonic()
    assert process.lost.wait(SOON), "it went on for ever without the Lease"
    assert time.monotonic() - since < TIMES.duration, "another process may have had the Lease by then"


def test_a_server_that_answers_again_in_time_costs_nothing(server: tuple[ApiServer, str]) -> None:
    state, url = server
    process = Elected(lock_at(url)).start()
    assert process.leading.wait(SOON)
    state.behaviour = "hang"
    assert not process.lost.wait(TIMES.retry + TIMES.request), "one renewal that hung ended the process"
    state.behaviour = "answer"
    state.renewed.clear()
    assert state.renewed.wait(SOON)
    assert not process.lost.wait(TIMES.renew_within * 1.2)


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_standby_whose_connection_hangs_tries_again(server: tuple[ApiServer, str], fault: str) -> None:
    state, url = server
    state.behaviour = fault
    process = Elected(lock_at(url)).start()
    assert not process.leading.wait(TIMES.request * 2)
    state.behaviour = "answer"
    assert process.leading.wait(SOON), "the standby never looked again"


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_clean_stop_does_not_wait_for_a_server_that_hangs(server: tuple[ApiServer, str], fault: str) -> None:
    state, url = server
    lock = lock_at(url)
    state.behaviour = fault
    since = time.monotonic()
    lock.release()
    assert time.monotonic() - since < TIMES.request * 4


def test_a_clean_stop_gives_the_lease_up(server: tuple[ApiServer, str]) -> None:
    state, url = server
    lock = lock_at(url)
    process = Elected(lock).start()
    assert process.leading.wait(SOON)
    lock.release()
    assert state.lease is not None
    assert not state.lease["spec"].get("holderIdentity")


def test_nobody_at_the_port_is_a_failed_try() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        lock = lock_at(f"http://127.0.0.1:{closed.getsockname()[1]}")
    found, error = lock.get("vectorindex-operator", "default")
    assert not found
    assert error.status == 0
