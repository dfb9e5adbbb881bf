"""The Lease against a real socket that answers, hangs, or drips: a Lease that cannot be renewed is lost in time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from http_stub import Exchange, answering
from kubernetes import client

from vectorindex_operator.adapters.kube import api_client
from vectorindex_operator.adapters.lease import LeaseLock, LeaseTimes, lead, take_over

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

    def answer(to: Exchange) -> None:
        body = to.body()
        if state.behaviour == "hang":
            state.over.wait(SOON)
            to.close_connection = True
        elif state.behaviour == "drip":
            drip(to)
        elif to.command == "GET" and state.lease is None:
            to.answer(404, {"kind": "Status", "code": 404, "reason": "NotFound"})
        else:
            if body is not None:
                state.lease = body
                state.renewals += 1
                state.renewed.set()
            to.answer(200, state.lease)

    def drip(to: Exchange) -> None:
        to.begin(200, 1_000_000)
        try:
            while not state.over.wait(0.1):
                to.wfile.write(b" ")
                to.wfile.flush()
        except OSError:
            to.close_connection = True

    with answering(answer) as url:
        yield state, url
        state.over.set()


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
    _, held = lock.get(lock.name, lock.namespace)
    lock.release()
    assert state.lease is not None
    assert not state.lease["spec"].get("holderIdentity")
    # A renewal that comes late must not take it back: nobody would lead until it runs out.
    renewals = state.renewals
    assert not lock.update(lock.name, lock.namespace, held)
    assert state.renewals == renewals


def test_a_write_that_is_sent_now_ends_before_another_may_have_the_lease(server: tuple[ApiServer, str]) -> None:
    _, url = server
    lock = lock_at(url)
    assert lock.seconds_left() == 0.0, "it was never held"
    process = Elected(lock).start()
    assert process.leading.wait(SOON)
    assert TIMES.duration - TIMES.renew_within < lock.seconds_left() <= TIMES.duration
    lock.stop()
    assert lock.seconds_left() == 0.0


def test_a_process_that_was_frozen_writes_nothing_before_it_ends(server: tuple[ApiServer, str]) -> None:
    """It was stopped for longer than its Lease lasts, in the middle of a pass: its clock tells, before any thread."""
    _, url = server
    lock = lock_at(url)
    lock.renewed_at = time.monotonic() - TIMES.renew_within
    assert lock.seconds_left() == 0.0
    lock.renewed_at = time.monotonic()
    assert lock.seconds_left() > TIMES.duration - TIMES.renew_within


def test_who_takes_it_over_ends_the_holder_and_keeps_others_waiting(server: tuple[ApiServer, str]) -> None:
    """Before the operator is removed. Its next process waits as well, while this one renews."""
    state, url = server
    holder = Elected(lock_at(url)).start()
    assert holder.leading.wait(SOON)
    mine = lock_at(url, "uninstall")
    ends = time.monotonic() + SOON
    assert take_over(mine)
    next_one = Elected(lock_at(url, "pod-2")).start()
    while not holder.lost.wait(TIMES.retry / 2):
        assert take_over(mine)
        assert time.monotonic() < ends
    assert state.lease is not None
    assert state.lease["spec"]["holderIdentity"] == "uninstall"
    assert not next_one.leading.is_set()


def test_a_lease_that_nobody_ever_held_is_taken_as_well(server: tuple[ApiServer, str]) -> None:
    state, url = server
    assert take_over(lock_at(url, "uninstall"))
    assert state.lease is not None
    assert state.lease["spec"]["holderIdentity"] == "uninstall"


def test_nobody_at_the_port_is_a_failed_try() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        lock = lock_at(f"http://127.0.0.1:{closed.getsockname()[1]}")
    found, error = lock.get("vectorindex-operator", "default")
    assert not found
    assert error.status == 0
