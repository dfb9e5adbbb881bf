"""Where searches run: a few threads behind a bounded queue, or the event loop itself when that is cheaper.

FAISS releases the interpreter lock, so threads search in parallel while the event loop parses and writes. What waits
is bounded twice: in vectors, and in the time a search may have waited before it is refused, so that overload costs a
client one 503 and never an unbounded latency.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from .messages import Problem, Response, overload

QUEUE_SECONDS = 1.0
"""A search that waited longer is refused when its turn comes: its client has likely given up, others are behind it."""
INLINE_SECONDS = 0.0005
"""A small search expected to be faster than this may run on the event loop."""
QUEUE_VECTORS = 1024
"""Vectors that may wait, all searches together; one search is always let in when none waits."""


@dataclass(slots=True)
class _Ticket:
    job: Callable[[], Response]
    future: asyncio.Future[Response]
    vectors: int
    queued: float
    deadline: float | None
    small: bool


class SearchPool:
    """Runs jobs that return a Response or raise. `submit` belongs to the event loop's thread."""

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
        self._done: deque[tuple[_Ticket, Response | Exception]] = deque()
        self._delivery_due = False
        # Measured (HNSW32, 20,000 x 384, 165 us a search): with one search at a time the way over a thread costs 70 us
        # more CPU and latency a query than searching on the loop; from 8 clients on both cost the same, since wake-ups
        # are shared. On one CPU the loop has nothing better to do than to search. On several, searching on the loop
        # would leave the others idle, so every search goes to a thread. (An adaptive choice would be made here.)
        self._inline = threads == 1
        self._expected = 0.0
        """Seconds of a small search, a moving mean."""
        self._threads = [
            threading.Thread(target=self._work, name=f"search-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Vectors whose search has not begun."""
        return self._waiting

    @property
    def searching(self) -> int:
        """Searches that threads are at."""
        return self._searching

    def submit(
        self, job: Callable[[], Response], vectors: int, deadline: float | None, small: bool = False
    ) -> Response | asyncio.Future[Response]:
        """Run `job`, on a thread or at once. `deadline`: monotonic time after which nobody wants the answer (504).

        `small`: one vector at the revision's own parameters, so all such jobs take about the same time.
        Raises Problem 503 when too much waits already, and what the job raises when it ran at once.
        """
        now = time.monotonic()
        if deadline is not None and now >= deadline:
            raise deadline_exceeded()
        if small and self._inline and self._expected < INLINE_SECONDS and not self._waiting:
            return self._timed(job)
        with self._lock:
            if self._waiting and self._waiting + vectors > self._queue_vectors:
                raise overload(f"{self._waiting} vectors are waiting to be searched")
            self._waiting += vectors
        future: asyncio.Future[Response] = self._loop.create_future()
        if deadline is not None:
            timer = self._loop.call_later(deadline - now, _give_up, future)
            future.add_done_callback(lambda _: timer.cancel())
        self._queue.put(_Ticket(job, future, vectors, now, deadline, small))
        return future

    def _timed(self, job: Callable[[], Response]) -> Response:
        began = time.monotonic()
        response = job()
        # Two threads may write this at once; a lost update does not matter.
        self._expected += 0.05 * (time.monotonic() - began - self._expected)
        return response

    def close(self) -> None:
        """End the threads once the queue is empty; does not wait for them."""
        for _ in self._threads:
            self._queue.put(None)

    def _work(self) -> None:
        while (ticket := self._queue.get()) is not None:
            with self._lock:
                self._waiting -= ticket.vectors
                self._searching += 1
            outcome = self._run(ticket)
            with self._lock:
                self._searching -= 1
            self._done.append((ticket, outcome))
            # One wake-up for all that finish before the loop looks. The loop clears the flag before it takes.
            if not self._delivery_due:
                self._delivery_due = True
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:
                    return  # the loop is closed: the process ends

    def _run(self, ticket: _Ticket) -> Response | Exception:
        now = time.monotonic()
        if ticket.deadline is not None and now >= ticket.deadline:
            return deadline_exceeded()
        if now - ticket.queued > self._queue_seconds:
            return overload(f"the search waited longer than {self._queue_seconds:g} s for its turn")
        try:
            return self._timed(ticket.job) if ticket.small else ticket.job()
        except Exception as error:
            return error

    def _deliver(self) -> None:
        self._delivery_due = False
        while self._done:
            ticket, outcome = self._done.popleft()
            if ticket.future.done():
                continue  # past its deadline, answered already
            if isinstance(outcome, Response):
                ticket.future.set_result(outcome)
            else:
                ticket.future.set_exception(outcome)


def _give_up(future: asyncio.Future[Response]) -> None:
    if not future.done():
        future.set_exception(deadline_exceeded())


def deadline_exceeded() -> Problem:
    """504: the client's own deadline passed before the answer was there."""
    return Problem(
        504,
        "DeadlineExceeded",
        "the search was not finished within the request's own deadline",
        field="X-Request-Timeout-Ms",
        remedy="allow more time, or ask for fewer vectors or a smaller k",
    )
