"""The keyed queue: one pass per key at a time, no mark lost, waits after errors, says when it is late."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from vectorindex_operator.reconcile import queue as queues
from vectorindex_operator.reconcile.errors import ConflictError, UnreachableError
from vectorindex_operator.reconcile.queue import KeyedQueue

SOON = 60.0
"""Bound of what must happen; it fails only when it does not."""


@contextmanager
def started(queue: KeyedQueue) -> Iterator[KeyedQueue]:
    queue.start()
    try:
        yield queue
    finally:
        queue.stop()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


@dataclass
class Work:
    """Passes that last until they are let go, with the greatest number of them at a time per key and in all."""

    running: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    most: int = 0
    most_of_one: int = 0
    go: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, namespace: str, name: str) -> float | None:
        with self.lock:
            self.running.append(name)
            self.most = max(self.most, len(self.running))
            self.most_of_one = max(self.most_of_one, self.running.count(name))
        assert self.go.wait(SOON)
        with self.lock:
            self.running.remove(name)
            self.done.append(name)
        return None


def test_one_pass_per_key_at_a_time_and_different_keys_side_by_side() -> None:
    work = Work()
    with started(KeyedQueue(work, workers=4)) as queue:
        queue.mark("ns", "a")
        wait_until(lambda: work.running == ["a"])
        queue.mark("ns", "a")
        queue.mark("ns", "b")
        wait_until(lambda: sorted(work.running) == ["a", "b"])
        time.sleep(0.02)
        assert work.running.count("a") == 1
        work.go.set()
        wait_until(lambda: sorted(work.done) == ["a", "a", "b"])
    assert (work.most, work.most_of_one) == (2, 1)


def test_marks_before_a_pass_are_one_pass_and_marks_during_it_are_one_more() -> None:
    work = Work()
    queue = KeyedQueue(work, workers=3)
    for _ in range(5):
        queue.mark("ns", "a")
    with started(queue):
        wait_until(lambda: work.running == ["a"])
        for _ in range(5):
            queue.mark("ns", "a")
        work.go.set()
        wait_until(lambda: work.done == ["a", "a"])
        time.sleep(0.03)
        assert work.done == ["a", "a"]
        assert queue.depth() == 0


def test_a_pass_says_when_it_runs_again_and_an_earlier_mark_wins() -> None:
    now = [1000.0]
    queue = KeyedQueue(lambda namespace, name: None, clock=lambda: now[0])
    queue.mark("ns", "a", after=50)
    queue.mark("ns", "a", after=10)
    queue.mark("ns", "a", after=90)
    assert (queue.depth(), queue.overdue()) == (0, 0.0)
    now[0] += 10
    assert queue.depth() == 1
    assert queue._take() == ("ns", "a")
    assert queue.depth() == 0
    queue._running.clear()
    queue.mark("ns", "b", after=0)
    now[0] += 200  # the replaced marks of "a" are gone: "b" is all there is
    assert queue._take() == ("ns", "b")
    assert queue.depth() == 0


def test_the_requeue_time_of_a_pass_is_kept() -> None:
    runs: list[float] = []

    def work(namespace: str, name: str) -> float | None:
        runs.append(time.monotonic())
        return 0.05 if len(runs) == 1 else None

    with started(KeyedQueue(work)) as queue:
        queue.mark("ns", "a")
        wait_until(lambda: len(runs) == 2)
        time.sleep(0.08)
        assert len(runs) == 2
    assert runs[1] - runs[0] >= 0.05


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (ConflictError("409"), "conflict"),
        (UnreachableError("503"), "unreachableerror"),
        (RuntimeError("oh"), "bug"),
        (RecursionError("deep"), "bug"),
    ],
)
def test_whatever_a_pass_raises_it_runs_again(monkeypatch: pytest.MonkeyPatch, error: Exception, result: str) -> None:
    monkeypatch.setattr(queues, "FIRST_BACKOFF_SECONDS", 0.01)
    results: list[str] = []
    failures = iter([error, error])

    def work(namespace: str, name: str) -> None:
        for one in failures:
            raise one

    with started(KeyedQueue(work, workers=1, on_result=lambda said, seconds: results.append(said))) as queue:
        queue.mark("ns", "a")
        wait_until(lambda: len(results) == 3)
    assert results == [result, result, "ok"]


def test_backoff_doubles_up_to_a_minute_with_jitter_and_ends_with_a_success() -> None:
    queue = KeyedQueue(lambda namespace, name: None)
    waits = [queue._backoff(("ns", "a")) for _ in range(1200)]
    longest = [min(60.0, 0.5 * 2.0**number) for number in range(12)]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=False))
    assert 30.0 <= min(waits[10:]) < max(waits[10:]) <= 60.0
    assert queue._backoff(("ns", "b")) <= 0.5
    assert queue._run(("ns", "a")) == ("ok", None)
    assert queue._backoff(("ns", "a")) <= 0.5


def test_overdue_is_the_queues_own_heartbeat() -> None:
    now = [1000.0]
    queue = KeyedQueue(lambda namespace, name: None, clock=lambda: now[0])
    assert queue.overdue() == 0.0
    queue.mark("ns", "a", after=5)
    now[0] += 4
    assert queue.overdue() == 0.0
    now[0] += 11
    queue.mark("ns", "b")
    assert queue.overdue() == 10.0


def test_a_pass_that_hangs_makes_its_next_one_overdue() -> None:
    """With one VectorIndex there is no other key whose lateness would tell."""
    now = [1000.0]
    queue = KeyedQueue(lambda namespace, name: None, clock=lambda: now[0])
    queue.mark("ns", "a")
    assert queue._take() == ("ns", "a")
    now[0] += 60
    queue.mark("ns", "a")  # the relist of each minute
    now[0] += 400
    assert queue.overdue() == 400.0


def test_after_stop_nothing_is_taken() -> None:
    queue = KeyedQueue(lambda namespace, name: None)
    queue.mark("ns", "a")
    queue.stop()
    assert queue._take() is None
