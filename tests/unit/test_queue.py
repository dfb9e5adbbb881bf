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
from vectorindex_operator.reconcile.queue import KeyedQueue, Outcome

SOON = 60.0
"""Bound of what must happen; it fails only when it does not."""
NEVER_AGAIN = Outcome(None)


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

    def __call__(self, namespace: str, name: str) -> Outcome:
        with self.lock:
            self.running.append(name)
            self.most = max(self.most, len(self.running))
            self.most_of_one = max(self.most_of_one, self.running.count(name))
        assert self.go.wait(SOON)
        with self.lock:
            self.running.remove(name)
            self.done.append(name)
        return NEVER_AGAIN


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
    queue = KeyedQueue(lambda namespace, name: NEVER_AGAIN, clock=lambda: now[0])
    queue.mark("ns", "a", after=50)
    queue.mark("ns", "a", after=10)
    queue.mark("ns", "a", after=90)
    assert (queue.depth(), queue.longest_wait()) == (0, 0.0)
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

    def work(namespace: str, name: str) -> Outcome:
        runs.append(time.monotonic())
        return Outcome(0.05) if len(runs) == 1 else NEVER_AGAIN

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

    def work(namespace: str, name: str) -> Outcome:
        for one in failures:
            raise one
        return NEVER_AGAIN

    with started(KeyedQueue(work, workers=1, on_result=lambda said, seconds: results.append(said))) as queue:
        queue.mark("ns", "a")
        wait_until(lambda: len(results) == 3)
    assert results == [result, result, "ok"]


def test_backoff_doubles_up_to_a_minute_with_jitter_and_ends_with_a_success() -> None:
    queue = KeyedQueue(lambda namespace, name: NEVER_AGAIN)
    waits = [queue._backoff(("ns", "a")) for _ in range(1200)]
    longest = [min(60.0, 0.5 * 2.0**number) for number in range(12)]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=False))
    assert 30.0 <= min(waits[10:]) < max(waits[10:]) <= 60.0
    assert queue._backoff(("ns", "b")) <= 0.5
    assert queue._run(("ns", "a")) == ("ok", None)
    assert queue._backoff(("ns", "a")) <= 0.5


def test_a_pass_that_could_only_ask_is_no_success_that_ends_the_waiting() -> None:
    """While the API server refuses, each pass over a watched index asks its pods first, and then fails."""
    answers = iter([UnreachableError("429"), Outcome(10.0, finished=False)] * 8)

    def work(namespace: str, name: str) -> Outcome:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    queue, waits = KeyedQueue(work), []
    for _ in range(8):
        result, wait = queue._run(("ns", "a"))
        assert result == "unreachableerror"
        waits.append(wait or 0.0)
        assert queue._run(("ns", "a")) == ("ok", 10.0)
    assert waits[-1] > 30.0


def test_a_thousand_keys_that_wait_for_slow_passes_are_no_reason_to_restart() -> None:
    """A backlog is work, not a fault: a restart would begin it anew. What counts is that passes end."""
    now = [1000.0]
    ended: list[str] = []

    def work(namespace: str, name: str) -> Outcome:
        now[0] += 5.0
        ended.append(name)
        return NEVER_AGAIN

    queue = KeyedQueue(work, clock=lambda: now[0])
    for number in range(1000):
        queue.mark("ns", f"index-{number}")
    while (key := queue.take_due()) is not None:
        queue.run_one(key)
        assert queue.stuck(300.0) == ""
    assert len(ended) == 1000
    assert now[0] == 6000.0, "the last key was late by more than an hour and a half"


def test_a_pass_that_hangs_is_stuck_and_said_by_name_though_others_go_on() -> None:
    hangs = threading.Event()
    now = [1000.0]

    def work(namespace: str, name: str) -> Outcome:
        if name == "hung":
            assert hangs.wait(SOON)
        return NEVER_AGAIN

    with started(KeyedQueue(work, workers=2, clock=lambda: now[0])) as queue:
        queue.mark("ns", "hung")
        wait_until(lambda: queue.depth() == 0)
        now[0] += 299.0
        assert queue.stuck(300.0) == ""
        assert queue.longest_running() == 299.0
        queue.mark("ns", "other")
        wait_until(lambda: queue.depth() == 0)
        now[0] += 1.0
        assert queue.stuck(300.0) == "the pass over ns/hung has run for 300 s"
        hangs.set()
        wait_until(lambda: queue.stuck(300.0) == "")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_died_is_said() -> None:
    """Nothing that a pass raises ends its worker; something that may not be caught can."""

    def work(namespace: str, name: str) -> Outcome:
        raise SystemExit

    with started(KeyedQueue(work, workers=1)) as queue:
        assert queue.stuck(300.0) == ""
        queue.mark("ns", "a")
        wait_until(lambda: queue.stuck(300.0) == "1 of 1 reconcile threads has ended")


def test_what_counts_results_may_fail_without_ending_a_worker() -> None:
    done: list[str] = []

    def work(namespace: str, name: str) -> Outcome:
        done.append(name)
        return NEVER_AGAIN

    def count(result: str, seconds: float) -> None:
        raise RuntimeError("oh")

    with started(KeyedQueue(work, workers=1, on_result=count)) as queue:
        queue.mark("ns", "a")
        wait_until(lambda: done == ["a"])
        queue.mark("ns", "b")
        wait_until(lambda: done == ["a", "b"])


def test_how_late_the_latest_key_is_is_a_figure() -> None:
    now = [1000.0]
    queue = KeyedQueue(lambda namespace, name: NEVER_AGAIN, clock=lambda: now[0])
    assert queue.longest_wait() == 0.0
    queue.mark("ns", "a", after=5)
    now[0] += 4
    assert queue.longest_wait() == 0.0
    now[0] += 11
    queue.mark("ns", "b")
    assert queue.longest_wait() == 10.0


def test_stop_waits_for_the_passes_that_run() -> None:
    runs, go_on = threading.Event(), threading.Event()

    def work(namespace: str, name: str) -> Outcome:
        runs.set()
        assert go_on.wait(SOON)
        return NEVER_AGAIN

    with started(KeyedQueue(work, workers=1)) as queue:
        queue.mark("ns", "a")
        assert runs.wait(SOON)
        assert not queue.stop(wait=0.01)
        go_on.set()
        assert queue.stop(wait=SOON)


def test_after_stop_nothing_is_taken() -> None:
    queue = KeyedQueue(lambda namespace, name: NEVER_AGAIN)
    queue.mark("ns", "a")
    queue.stop()
    assert queue._take() is None
