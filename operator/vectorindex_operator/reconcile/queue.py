"""A keyed queue: marks keys dirty, runs one pass per key at a time, waits with backoff and jitter after errors.

Any number of marks before a pass starts are one pass; a mark during a pass is another pass afterwards, so nothing is
missed. Threads, because a pass is plain blocking code: what a reader sees is what happens, in order.
"""

from __future__ import annotations

import heapq
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vectorindex_operator.reconcile.errors import ClusterError, ConflictError

log = logging.getLogger(__name__)

Key = tuple[str, str]
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 60.0


@dataclass(slots=True)
class KeyedQueue:
    """Runs `work(namespace, name)`, which returns the seconds until it wants to run again, or None for never."""

    work: Callable[[str, str], float | None]
    workers: int = 4
    on_result: Callable[[str, float], None] = lambda result, seconds: None
    clock: Callable[[], float] = time.monotonic
    _due: dict[Key, float] = field(default_factory=dict)
    _heap: list[tuple[float, Key]] = field(default_factory=list)
    _running: set[Key] = field(default_factory=set)
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
            threading.Thread(target=self._loop, name=f"reconcile-{number}", daemon=True).start()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def overdue(self) -> float:
        """Seconds by which the most overdue key is late: the queue's own heartbeat, for the liveness probe.

        A key marked during its pass counts too: with a single VectorIndex nothing else would tell of a pass that hangs.
        """
        with self._changed:
            return max(0.0, self.clock() - min(self._due.values())) if self._due else 0.0

    def depth(self) -> int:
        """Keys that are due now."""
        with self._changed:
            return sum(due <= self.clock() for due in self._due.values())

    def _take(self) -> Key | None:
        with self._changed:
            while not self._stopping:
                now, wait = self.clock(), None
                held = []
                while self._heap:
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
                        continue
                    for entry in held:
                        heapq.heappush(self._heap, entry)
                    del self._due[key]
                    self._running.add(key)
                    return key
                for entry in held:
                    heapq.heappush(self._heap, entry)
                self._changed.wait(wait if not held else min(wait or 1.0, 1.0))
            return None

    def _loop(self) -> None:
        while (key := self._take()) is not None:
            started = self.clock()
            result, after = self._run(key)
            with self._changed:
                self._running.discard(key)
                self._changed.notify_all()
            self.on_result(result, self.clock() - started)
            if after is not None:
                self.mark(*key, after=after)

    def _run(self, key: Key) -> tuple[str, float | None]:
        try:
            after = self.work(*key)
        except ConflictError as error:
            log.info("somebody wrote in between, looking again", extra={"key": "/".join(key), "error": str(error)})
            return "conflict", self._backoff(key)
        except ClusterError as error:
            log.warning("the cluster refused or did not answer: %s", error, extra={"key": "/".join(key)})
            return type(error).__name__.lower(), self._backoff(key)
        except Exception:
            log.exception("a bug: this pass failed", extra={"key": "/".join(key)})
            return "bug", self._backoff(key)
        self._failures.pop(key, None)
        return "ok", after

    def _backoff(self, key: Key) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        longest = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 10))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, guards nothing
