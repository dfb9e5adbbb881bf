"""Searches that wait together are one call, and fail alone; what waits is bounded, on the loop and on threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from vectorindex_searcher.serve.http.messages import Deferred, Problem, Response
from vectorindex_searcher.serve.search import pool as pool_module
from vectorindex_searcher.serve.search.pool import Group, SearchPool


class Clock:
    """The pool's clock: stands still but for what a test lets pass, so nothing here depends on a machine's load."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pool_module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


class Calls:
    """A group's function that notes its calls; an item is answered by itself, `bad` raises."""

    def __init__(self, clock: Clock | None = None, seconds: float = 0.0) -> None:
        """seconds: how long one call takes, on `clock`."""
        self.calls: list[list[Any]] = []
        self.clock, self.seconds = clock, seconds
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: Sequence[Any]) -> list[Response]:
        self.calls.append(list(items))
        assert self.gate.wait(60)
        if self.clock is not None:
            self.clock.now += self.seconds
        if "bad" in items:
            raise ValueError("bad")
        return [Response(200, str(item).encode()) for item in items]


def on_loop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(main())


async def outcomes(laters: Sequence[Deferred]) -> list[object]:
    """Bodies, and the kinds of problems or errors."""
    found: list[object] = [None] * len(laters)
    for number, later in enumerate(laters):
        later.then(lambda outcome, number=number: found.__setitem__(number, outcome))
    end = time.monotonic() + 60
    while not all(later.done for later in laters) and time.monotonic() < end:
        await asyncio.sleep(0.001)

    def told(outcome: object) -> object:
        if isinstance(outcome, Response):
            return outcome.body.decode()
        return outcome.kind if isinstance(outcome, Problem) else repr(outcome)

    return [told(outcome) for outcome in found]


def test_what_waits_for_the_loop_is_one_call_and_nothing_waits_for_company(clock: Clock) -> None:
    async def main() -> None:
        pool, calls = SearchPool(1), Calls(clock, seconds=1e-6)
        group = Group(calls, small=True)
        assert await outcomes([pool.submit_one(group, "first", None)]) == ["first"]  # from here on its cost is known
        laters = [pool.submit_one(group, number, None) for number in range(5)]
        assert pool.waiting == 5
        assert not any(later.done for later in laters)
        assert await outcomes(laters) == [*"01234"]
        alone = pool.submit_one(group, "alone", None)
        await asyncio.sleep(0)  # the loop's next turn, and not a moment later
        assert alone.done
        assert await outcomes([alone]) == ["alone"]
        assert calls.calls == [["first"], [0, 1, 2, 3, 4], ["alone"]]
        assert pool.waiting == 0
        pool.close()

    on_loop(main)


def test_a_call_is_bounded_in_searches_and_in_time(clock: Clock) -> None:
    async def main() -> None:
        pool, calls = SearchPool(1), Calls(clock, seconds=0.0002)
        group = Group(calls, small=True)
        await outcomes([pool.submit_one(group, "first", None)])
        group.expected = 1e-6
        await outcomes([pool.submit_one(group, number, None) for number in range(150)])
        assert len(calls.calls[1]) == pool_module.BATCH_SEARCHES
        assert max(len(call) for call in calls.calls) == pool_module.BATCH_SEARCHES
        calls.calls.clear()
        group.expected = pool_module.BATCH_SECONDS / 10
        await outcomes([pool.submit_one(group, number, None) for number in range(12)])
        assert len(calls.calls[0]) in (9, 10)
        pool.close()

    on_loop(main)


def test_only_work_and_waiting_count_and_not_what_other_programs_took() -> None:
    for _ in range(200):
        watch, ends = pool_module._Watch(), time.thread_time() + 0.01
        while time.thread_time() < ends:
            pass
        if (worked := watch.worked(100.0)) < 100:
            break  # else it waited: for the interpreter's lock, say, which what other tests left may hold for a while
    assert 0.009 <= worked < 5
    watch = pool_module._Watch()
    time.sleep(0.01)
    assert watch.worked(100.0) == 100.0


def test_small_searches_stay_on_the_loop_of_a_busy_node(clock: Clock) -> None:
    """The clock moves on while another program has the CPU; the search itself stays quick."""
    found: list[tuple[object, int]] = []

    def run(items: Sequence[Any]) -> list[Response]:
        clock.now += 0.3
        found.append((threading.current_thread(), len(items)))
        return [Response(200, b"")] * len(items)

    async def main() -> None:
        pool, group = SearchPool(1), Group(run, small=True)
        for _ in range(10):
            later = pool.submit_one(group, 1, None)
            await asyncio.sleep(0)
            assert later.done
        assert [pool.submit_one(group, 1, None).done for _ in range(5)] == [False] * 5
        await asyncio.sleep(0)
        pool.close()

    on_loop(main)
    assert {thread for thread, _ in found} == {threading.main_thread()}
    assert found[-1][1] == 5


@pytest.mark.parametrize("threads", [1, 2])
def test_searches_of_different_groups_are_different_calls(threads: int) -> None:
    async def main() -> None:
        pool, one, two = SearchPool(threads), Calls(), Calls()
        groups = Group(one, small=True, expected=1e-6), Group(two, small=True, expected=1e-6)
        order = [0, 0, 1, 0, 1, 1]
        laters = [pool.submit_one(groups[which], f"{which}{place}", None) for place, which in enumerate(order)]
        job = pool.submit(lambda: Response(200, b"job"), 3, None)
        assert await outcomes([*laters, job]) == [f"{which}{place}" for place, which in enumerate(order)] + ["job"]
        assert {item[0] for call in one.calls for item in call} == {"0"}
        assert {item[0] for call in two.calls for item in call} == {"1"}
        pool.close()

    on_loop(main)


@pytest.mark.parametrize("small", [True, False])
def test_one_that_fails_fails_alone(small: bool) -> None:
    """On the loop (small) and on a thread."""

    async def main() -> None:
        pool, calls = SearchPool(1), Calls()
        group = Group(calls, small=small, expected=1e-6)
        calls.gate.clear() if not small else None
        laters = [pool.submit_one(group, item, None) for item in ("a", "b", "bad", "c")]
        calls.gate.set()
        assert await outcomes(laters) == ["a", "b", "ValueError('bad')", "c"]
        assert any(len(call) > 1 for call in calls.calls)
        pool.close()

    on_loop(main)


def test_a_member_past_its_deadline_is_not_searched_and_the_others_are(clock: Clock) -> None:
    async def main() -> None:
        pool, calls = SearchPool(1), Calls(clock)
        group = Group(calls, small=True, expected=1e-6)
        soon = clock.now + 0.01
        laters = [pool.submit_one(group, item, soon if item == "late" else None) for item in ("a", "late", "b")]
        clock.now += 0.02  # the loop is busy with something else
        assert await outcomes(laters) == ["a", "DeadlineExceeded", "b"]
        assert calls.calls == [["a", "b"]]
        calls.seconds = 0.03
        laters = [pool.submit_one(group, "slow", clock.now + 0.01), pool.submit_one(group, "c", None)]
        assert await outcomes(laters) == ["DeadlineExceeded", "c"]
        with pytest.raises(Problem, match="DeadlineExceeded"):
            pool.submit_one(group, "never", clock.now)
        pool.close()

    on_loop(main)


def test_a_deadline_on_a_thread_is_answered_on_time_while_the_batch_goes_on(clock: Clock) -> None:
    async def main() -> None:
        pool, calls = SearchPool(2), Calls()
        group = Group(calls)
        calls.gate.clear()
        began = time.monotonic()
        hurried = pool.submit_one(group, "hurried", clock.now + 0.03)
        patient = pool.submit_one(group, "patient", None)
        assert await outcomes([hurried]) == ["DeadlineExceeded"]
        assert 0.02 < time.monotonic() - began < 30
        assert not patient.done
        calls.gate.set()
        assert await outcomes([patient]) == ["patient"]
        pool.close()

    on_loop(main)


def test_threads_share_what_waits() -> None:
    """While all threads search, what arrives waits; then each takes its share in one call."""

    async def main() -> None:
        pool, calls = SearchPool(2), Calls()
        group = Group(calls, small=True, expected=1e-6)
        calls.gate.clear()
        laters = [pool.submit_one(group, "a", None), pool.submit_one(group, "b", None)]
        while pool.searching < 2:
            await asyncio.sleep(0.001)
        first = list(calls.calls)
        laters += [pool.submit_one(group, number, None) for number in range(20)]
        assert pool.waiting == 20
        calls.gate.set()
        assert await outcomes(laters) == ["a", "b", *map(str, range(20))]
        later = calls.calls[len(first) :]
        assert len(later) < 20
        assert max(map(len, later)) <= 11
        assert (pool.waiting, pool.searching) == (0, 0)
        pool.close()

    on_loop(main)


def test_what_waits_for_the_loop_is_bounded_too(clock: Clock) -> None:
    async def main() -> None:
        pool, calls = SearchPool(1, queue_vectors=4, queue_seconds=0.02), Calls()
        group = Group(calls, small=True)
        laters = [pool.submit_one(group, number, None) for number in range(4)]
        with pytest.raises(Problem, match="Overload"):
            pool.submit_one(group, "too many", None)
        with pytest.raises(Problem, match="Overload"):
            pool.submit(lambda: Response(200, b""), 1, None)
        clock.now += 0.03
        assert await outcomes(laters) == ["Overload"] * 4
        assert not calls.calls
        pool.close()

    on_loop(main)


def test_the_first_outcome_counts() -> None:
    later, seen = Deferred(), []
    later.resolve(Response(200, b"one"))
    later.resolve(ValueError())
    later.then(seen.append)
    assert later.done
    assert [outcome.body for outcome in seen] == [b"one"]
    other = Deferred()
    other.then(seen.append)
    assert not other.done
    other.resolve(Response(200, b"two"))
    other.resolve(Response(200, b"three"))
    assert [outcome.body for outcome in seen] == [b"one", b"two"]
