"""A keyed queue: marks keys dirty, runs one pass per key at a time, waits with backoff and jitter after errors.

Any number of marks before a pass starts are one pass; a mark during a pass is another pass afterwards, so nothing is
missed. Threads, because a pass is plain blocking code: what a reader sees is what happens, in order.

Whether the queue lives is whether its passes end, never how many keys wait: a restart would begin a backlog anew.
"""

from __future__ import annotations

import heapq
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vectorindex_operator.reconcile.errors import ClusterError, ConflictError, ReportedError, UnreachableError

log = logging.getLogger(__name__)

Key = tuple[str, str]
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a pass that raised nothing."""

    again_after: float | None
    """Seconds until it wants to run again; None: never."""
    finished: bool = True
    """False: it could only ask, and whether all goes well is not known yet. It ends no waiting after errors."""


@dataclass(slots=True)
class KeyedQueue:
    """Runs `work(namespace, name)`: one pass over a key."""

    work: Callable[[str, str], Outcome]
    workers: int = 4
    on_result: Callable[[str, float], None] = lambda result, seconds: None
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[float, float], float] = random.uniform
    """Draws from a range: retries are spread over it."""
    _due: dict[Key, float] = field(default_factory=dict)
    _heap: list[tuple[float, Key]] = field(default_factory=list)
    _running: dict[Key, float] = field(default_factory=dict)
    """Since when the pass over a key runs."""
    _threads: list[threading.Thread] = field(default_factory=list)
    _failures: dict[Key, int] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _stopping: bool = False

    def mark(self, namespace: str, name: str, after: float = 0.0) -> None:
        """Run a pass over this key in `after` seconds at the latest."""
        key, due = (namespace, name), self.clock() + after
        with self._changed:
            if due < self._due.get(key, float("inf")):
                self._due[key] = due
                heapq.heappush(self._heap, (due, key))
                self._changed.notify()

    def start(self) -> None:
        """Start the worker threads (daemons: losing the Lease ends the process at once)."""
        for number in range(self.workers):
            thread = threading.Thread(target=self._loop, name=f"reconcile-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self, wait: float = 0.0) -> bool:
        """Begin no more passes, and wait so many seconds for those that run. Whether all have ended."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._running, wait)

    def stuck(self, longest: float) -> str:
        """Why there is no progress: a pass that has run for `longest` seconds, a thread that is gone. Empty: there is.

        A single pass is enough: whatever holds it holds its VectorIndex, and with it a rollback.
        """
        with self._changed:
            if self._stopping:
                return ""
            ended = sum(not thread.is_alive() for thread in self._threads)
            if ended:
                return f"{ended} of {len(self._threads)} reconcile threads {'has' if ended == 1 else 'have'} ended"
            key, since = min(self._running.items(), key=lambda item: item[1], default=(("", ""), float("inf")))
        running = self.clock() - since
        return f"the pass over {'/'.join(key)} has run for {running:.0f} s" if running >= longest else ""

    def longest_running(self) -> float:
        """Seconds that the pass which began first has been running."""
        with self._changed:
            return self.clock() - min(self._running.values()) if self._running else 0.0

    def longest_wait(self) -> float:
        """Seconds by which the most overdue key is late."""
        with self._changed:
            return max(0.0, self.clock() - min(self._due.values())) if self._due else 0.0

    def depth(self) -> int:
        """Keys that are due now."""
        with self._changed:
            return sum(due <= self.clock() for due in self._due.values())

    def take_due(self) -> Key | None:
        """A key that is due and has no pass running; it counts as running from now on. None: there is none now."""
        with self._changed:
            return self._next()[0]

    def run_one(self, key: Key) -> None:
        """The pass over a key that was taken."""
        started = self.clock()
        result, after = self._run(key)
        with self._changed:
            self._running.pop(key, None)
            self._changed.notify_all()
        if after is not None:
            self.mark(*key, after=after)
        try:
            self.on_result(result, self.clock() - started)
        except Exception:
            log.exception("a bug: the result of a pass was not counted", extra={"key": "/".join(key)})

    def _take(self) -> Key | None:
        """The next key, as soon as there is one; None once the queue stops."""
        with self._changed:
            while not self._stopping:
                key, wait = self._next()
                if key is not None:
                    return key
                self._changed.wait(wait)
            return None

    def _next(self) -> tuple[Key | None, float | None]:
        """A key to run now, or the seconds until one may be due (None: until something is marked or a pass ends)."""
        now, wait = self.clock(), None
        held: list[tuple[float, Key]] = []
        found = None
        while self._heap and found is None:
            due, key = self._heap[0]
            if self._due.get(key) != due:
                heapq.heappop(self._heap)  # an earlier mark replaced this one
                continue
            if due > now:
                wait = due - now
                break
            heapq.heappop(self._heap)
            if key in self._running:
                held.append((due, key))
            else:
                found = key
        for entry in held:
            heapq.heappush(self._heap, entry)
        if found is not None:
            del self._due[found]
            self._running[found] = now
        return found, wait

    def _loop(self) -> None:
        while (key := self._take()) is not None:
            self.run_one(key)

    def _run(self, key: Key) -> tuple[str, float | None]:
        try:
            outcome = self.work(*key)
        except ConflictError as error:
            log.info("somebody wrote in between, looking again", extra={"key": "/".join(key), "error": str(error)})
            return "conflict", self._backoff(key)
        except ReportedError as error:
            log.warning("a write was refused: %s", error, extra={"key": "/".join(key)})
            return "refused", min(self._backoff(key), error.look_after)
        except ClusterError as error:
            log.warning("the cluster refused or did not answer: %s", error, extra={"key": "/".join(key)})
            asked = error.retry_after if isinstance(error, UnreachableError) else 0.0
            return type(error).__name__.lower(), max(self._backoff(key), min(asked, LONGEST_BACKOFF_SECONDS))
        except Exception:
            log.exception("a bug: this pass failed", extra={"key": "/".join(key)})
            return "bug", self._backoff(key)
        if outcome.finished:
            self._failures.pop(key, None)
        return "ok", outcome.again_after

    def _backoff(self, key: Key) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        longest = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 10))
        return longest * self.jitter(0.5, 1.0)
