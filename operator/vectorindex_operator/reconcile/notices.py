"""Tells people outside of the cluster, off the workers: oldest first, one index's notices one after the other.

What was taken is kept in memory until the status says it, and what is lost with the process is told again. A receiver
that refuses is asked again and again, with longer and longer waits; it holds up nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from vectorindex_operator.core.backoff import notice_wait
from vectorindex_operator.core.notices import Notice
from vectorindex_operator.reconcile.ports import Courier

log = logging.getLogger(__name__)

Key = tuple[str, str]


@dataclass(slots=True)
class _Index:
    taken: set[str] = field(default_factory=set)
    under_way: bool = False
    failures: int = 0
    not_before: float = 0.0


@dataclass(slots=True)
class Notices:
    """Of all indexes. A pass offers what is to be told, and looks at `taken` when it is marked."""

    courier: Courier | None = None
    """None: nobody is told of anything."""
    on_taken: Callable[[str, str], None] = lambda namespace, name: None
    on_result: Callable[[bool], None] = lambda taken: None
    clock: Callable[[], float] = time.time
    _indexes: dict[Key, _Index] = field(default_factory=dict)

    def taken(self, key: Key) -> frozenset[str]:
        """Ids that were taken; the status may not say so yet."""
        index = self._indexes.get(key)
        return frozenset(index.taken) if index is not None else frozenset()

    def offer(self, key: Key, there_are: Iterable[Notice], notified: Iterable[str]) -> float | None:
        """Send the oldest that nobody took. Returns in how many seconds to come again; None: when something happens.

        `notified`: what the status says was taken.
        """
        if self.courier is None:
            return None
        index, known, offered = self._indexes.setdefault(key, _Index()), set(notified), list(there_are)
        index.taken &= {one.id for one in offered} - known
        notice = next((one for one in offered if one.id not in known | index.taken), None)
        if notice is None or index.under_way:
            return None
        if (wait := index.not_before - self.clock()) > 0:
            return wait
        index.under_way = True
        self.courier.send(notice).add_done_callback(lambda done: self._answered(key, index, notice, done))
        return None

    def _answered(self, key: Key, index: _Index, notice: Notice, done: Future[str]) -> None:
        error = done.exception()
        problem = repr(error)[:200] if error is not None else done.result()
        if self._indexes.get(key) is not index:
            return  # the index is gone
        if problem:
            index.failures += 1
            index.not_before = self.clock() + notice_wait(index.failures)
            log.warning("%s of %s was not taken: %s", notice.kind, "/".join(key), problem)
        else:
            index.taken.add(notice.id)
            index.failures = 0
        index.under_way = False
        self.on_result(not problem)
        self.on_taken(*key)

    def forget(self, key: Key) -> None:
        """The index is gone, or another operator's."""
        self._indexes.pop(key, None)
