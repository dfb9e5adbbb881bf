"""Where searches run: a few threads behind a bounded queue, or the event loop itself when that is cheaper.

FAISS releases the interpreter lock, so threads search in parallel while the event loop parses and writes. What waits
is bounded twice: in vectors, and in the time a search may have waited before it is refused, so that overload costs a
client one 503 and never an unbounded latency. Single searches that wait at the same moment and can be one call of FAISS
become one; there is no batching delay.
"""

from __future__ import annotations

import asyncio
import resource
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import thread_time
from typing import Any

from ..http.messages import Deferred, Problem, Response, overload

QUEUE_SECONDS = 1.0
"""A search that waited longer is refused when its turn comes: its client has likely given up, others are behind it."""
INLINE_SECONDS = 0.0005
"""A small search expected to be faster than this may run on the event loop."""
QUEUE_VECTORS = 1024
"""Vectors that may wait, all searches together; one search is always let in when none waits."""
BATCH_SEARCHES = 64
BATCH_SECONDS = 0.01
"""Most searches in one call, and how long a call may take: the first of them waits for the last."""

Outcome = Response | BaseException


@dataclass(slots=True, eq=False, weakref_slot=True)
class Group:
    """Searches of one vector each that one call can answer: the same k, parameters and rows. Compared by identity."""

    run: Callable[[Sequence[Any]], Sequence[Outcome]]
    """The outcome of each item, in order. What it raises for several is tried again one by one."""
    small: bool = False
    """Quick enough for the event loop, if `expected` does not say otherwise."""
    expected: float = 0.0
    """Seconds of one search, a moving mean."""
    most: int = BATCH_SEARCHES
    """Searches in one call, whatever time they take."""


class _Ticket(Deferred):
    """A search that was let in, and the answer to come. `group` None: `item` is a job of its own, a function that
    returns a Response. `queued`, `deadline`: monotonic times.
    """

    __slots__ = ("deadline", "group", "item", "queued", "timer", "vectors")

    def __init__(self, item: Any, group: Group | None, vectors: int, queued: float, deadline: float | None) -> None:
        # What Deferred's own does, without calling it.
        self._outcome = self._then = None
        self.item, self.group, self.vectors = item, group, vectors
        self.queued, self.deadline = queued, deadline
        self.timer: asyncio.TimerHandle | None = None


class SearchPool:
    """Runs searches. `submit` and `submit_one` belong to the event loop's thread, and there answers arrive."""

    def __init__(
        self, threads: int, *, queue_vectors: int = QUEUE_VECTORS, queue_seconds: float = QUEUE_SECONDS
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Ticket | None] = SimpleQueue()
        self._queue_vectors = queue_vectors
        self._queue_seconds = queue_seconds
        self._lock = threading.Lock()
        self._waiting = 0
        self._searching = 0
        self._done: deque[tuple[Sequence[_Ticket], Sequence[Outcome]]] = deque()
        self._delivery_due = False
        # On one CPU the loop has nothing better to do than to search; the way over a thread costs 70 us more. On
        # several, searching on the loop would leave the others idle, so every search goes to a thread.
        self._inline = threads == 1
        self._ready: deque[_Ticket] = deque()
        """What the loop itself will search once it has read every socket that had something to say."""
        self._turn_due = False
        self._threads = [
            threading.Thread(target=self._work, name=f"search-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Vectors whose search has not begun."""
        return self._waiting + len(self._ready)

    @property
    def searching(self) -> int:
        """Searches that threads are at."""
        return self._searching

    def submit(self, job: Callable[[], Response], vectors: int, deadline: float | None) -> Deferred:
        """Run `job` on a thread. `deadline`: monotonic time after which nobody wants the answer (504).

        Raises Problem 503 when too much waits already.
        """
        return self._to_thread(_Ticket(job, None, vectors, self._admit(vectors, deadline), deadline))

    def submit_one(self, group: Group, item: Any, deadline: float | None) -> Deferred:
        """Search `item`, together with what else of `group` waits when its turn comes; else as `submit`."""
        ticket = _Ticket(item, group, 1, self._admit(1, deadline), deadline)
        if not (group.small and self._inline and group.expected < INLINE_SECONDS and not self._waiting):
            return self._to_thread(ticket)
        self._ready.append(ticket)
        if not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._turn)
        return ticket

    def _admit(self, vectors: int, deadline: float | None) -> float:
        """Now, on the monotonic clock. Raises Problem 503 or 504."""
        now = time.monotonic()
        if deadline is not None and now >= deadline:
            raise deadline_exceeded()
        waiting = self._waiting + len(self._ready)
        if waiting and waiting + vectors > self._queue_vectors:
            raise overload(f"{waiting} vectors are waiting to be searched")
        return now

    def _to_thread(self, ticket: _Ticket) -> Deferred:
        if ticket.deadline is not None:
            ticket.timer = self._loop.call_later(ticket.deadline - ticket.queued, _give_up, ticket)
        with self._lock:
            self._waiting += ticket.vectors
        self._queue.put(ticket)
        return ticket

    def close(self) -> None:
        """End the threads once the queue is empty; does not wait for them."""
        for _ in self._threads:
            self._queue.put(None)

    # ------------------------------------------------------------ on the event loop

    def _turn(self) -> None:
        """Search the first ones that wait for the loop. Between two such turns the sockets are read."""
        self._turn_due = False
        ready = self._ready
        first = ready.popleft()
        tickets, most = [first], _max_batch(first.group)
        while ready and len(tickets) < most and ready[0].group is first.group:
            tickets.append(ready.popleft())
        if ready:
            self._turn_due = True
            self._loop.call_soon(self._turn)
        for ticket, outcome in zip(tickets, self._run(tickets), strict=True):
            ticket.resolve(outcome)

    def _deliver(self) -> None:
        self._delivery_due = False
        while self._done:
            for ticket, outcome in zip(*self._done.popleft(), strict=True):
                if ticket.timer is not None:
                    ticket.timer.cancel()
                ticket.resolve(outcome)

    # ------------------------------------------------------------ on either

    def _run(self, tickets: Sequence[_Ticket]) -> Sequence[Outcome]:
        """What became of each ticket; they are of one group, or one job alone."""
        now = time.monotonic()
        outcomes = [self._too_late(ticket, now) for ticket in tickets]
        wanted = (
            tickets if not any(outcomes) else [t for t, late in zip(tickets, outcomes, strict=True) if late is None]
        )
        if not wanted:
            return [outcome for outcome in outcomes if outcome is not None]
        group, watch = wanted[0].group, _Watch()
        found = iter(self._search(wanted))
        ended = time.monotonic()
        if group is not None:
            # Two threads may write this at once; a lost update does not matter.
            group.expected += 0.05 * (watch.worked(ended - now) / len(wanted) - group.expected)
        results = [next(found) if late is None else late for late in outcomes]
        for number, ticket in enumerate(tickets):
            if ticket.deadline is not None and ended >= ticket.deadline:
                results[number] = deadline_exceeded()
        return results

    def _too_late(self, ticket: _Ticket, now: float) -> Problem | None:
        """Why `ticket` is not searched any more."""
        if ticket.deadline is not None and now >= ticket.deadline:
            return deadline_exceeded()
        if now - ticket.queued > self._queue_seconds:
            return overload(f"the search waited longer than {self._queue_seconds:g} s for its turn")
        return None

    @staticmethod
    def _search(tickets: Sequence[_Ticket]) -> Sequence[Outcome]:
        group = tickets[0].group
        try:
            if group is None:
                return [tickets[0].item()]
            return group.run([ticket.item for ticket in tickets])
        except Exception as error:
            if len(tickets) == 1:
                return [error]
            # One of them is at fault: the others shall not fail with it.
            return [SearchPool._search([ticket])[0] for ticket in tickets]

    # ------------------------------------------------------------ on search threads

    def _work(self) -> None:
        held: _Ticket | None = None
        while True:
            ticket = held if held is not None else self._queue.get()
            held = None
            if ticket is None:
                return
            tickets = [ticket]
            if ticket.group is not None:
                held = self._gather(tickets)
            with self._lock:
                self._waiting -= sum(ticket.vectors for ticket in tickets)
                self._searching += len(tickets)
            outcomes = self._run(tickets)
            with self._lock:
                self._searching -= len(tickets)
            self._done.append((tickets, outcomes))
            # One wake-up for all that finish before the loop looks. The loop clears the flag before it takes.
            if not self._delivery_due:
                self._delivery_due = True
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:
                    return  # the loop is closed: the process ends

    def _gather(self, tickets: list[_Ticket]) -> _Ticket | None:
        """Add this thread's share of what waits behind tickets[0]. Returns one that was taken but does not fit."""
        group = tickets[0].group
        share = 1 + self._queue.qsize() // len(self._threads)
        while len(tickets) < min(share, _max_batch(group)):
            try:
                ticket = self._queue.get_nowait()
            except Empty:
                break
            if ticket is None:
                self._queue.put(None)  # the end; for any thread
                break
            if ticket.group is not group:
                return ticket
            tickets.append(ticket)
        return None


class _Watch:
    """Measures the work of the calling thread from here on."""

    __slots__ = ("_cpu", "_waits")

    def __init__(self) -> None:
        self._waits = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        self._cpu = thread_time()

    def worked(self, elapsed: float) -> float:
        """Seconds of work in the `elapsed` seconds: without those in which only other programs had the CPU.

        On a busy node those are most, and would send every search over a thread. Whoever waited for a disk or a lock
        was not ready to run, and that time counts.
        """
        cpu = thread_time() - self._cpu
        if elapsed > 2 * cpu and resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw != self._waits:
            return elapsed
        return min(elapsed, cpu)


def _max_batch(group: Group | None) -> int:
    """How many searches of `group` one call may hold; one at first, while nothing is known of them."""
    if group is None or not group.expected:
        return 1
    return min(group.most, max(1, int(BATCH_SECONDS / group.expected)))


def _give_up(deferred: Deferred) -> None:
    deferred.resolve(deadline_exceeded())


def deadline_exceeded() -> Problem:
    """504: the client's own deadline passed before the answer was there."""
    return Problem(
        504,
        "DeadlineExceeded",
        "the search was not finished within the request's own deadline",
        field="X-Request-Timeout-Ms",
        remedy="allow more time, or ask for fewer vectors or a smaller k",
    )
