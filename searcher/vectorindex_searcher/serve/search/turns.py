"""What waits for a thread, of whom: whoever's turn it is comes next, and whoever has most gives way when it is full.

One line for all would let one tenant's queries, sent faster than they are done, stand before everybody else's, and fill
it so that nobody else is let in. A holder is a policy's key (reader.py): tokens that see the same rows are one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """A bounded queue with a line for each holder, of which each in turn gives one. Any thread may call anything."""

    def __init__(self, most: int) -> None:
        """most: of all weights together; one item is always let in when none waits."""
        self._most = most
        self._lines: OrderedDict[bytes, deque[tuple[T, int]]] = OrderedDict()
        self._weights: dict[bytes, int] = {}
        self._count = 0
        self._closed = False
        self._changed = threading.Condition()
        self.weight = 0
        """Of all that waits."""

    def __len__(self) -> int:
        return self._count

    def put(self, item: T, holder: bytes = b"", weight: int = 1) -> list[T] | None:
        """Let it in: what had to go for it, the newest of whoever had most. None: it is not let in, since its own
        holder would have more than a share that all holders can have."""
        with self._changed:
            mine = self._weights.get(holder, 0)
            holders = len(self._lines) + (holder not in self._lines)
            full = self._count > 0 and self.weight + weight > self._most
            if full and (mine + weight) * holders > self._most:
                return None
            gone: list[T] = []
            # While it does not fit, somebody else has more than that share.
            while self._count and self.weight + weight > self._most:
                gone.append(self._take(max(self._weights, key=self._weights.__getitem__), newest=True))
            self._lines.setdefault(holder, deque()).append((item, weight))
            self._weights[holder] = self._weights.get(holder, 0) + weight
            self.weight += weight
            self._count += 1
            self._changed.notify()
            return gone

    def get(self) -> T | None:
        """The next one, when there is one; None once it is closed and empty."""
        with self._changed:
            while not self._count and not self._closed:
                self._changed.wait()
            return self._next()

    def get_now(self) -> T | None:
        """The next one, if there is one."""
        with self._changed:
            return self._next()

    def close(self) -> None:
        """Nothing comes any more: whoever waits for it goes on without."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _next(self) -> T | None:
        if not self._count:
            return None
        holder = next(iter(self._lines))
        self._lines.move_to_end(holder)
        return self._take(holder, newest=False)

    def _take(self, holder: bytes, *, newest: bool) -> T:
        line = self._lines[holder]
        item, weight = line.pop() if newest else line.popleft()
        self._count -= 1
        self.weight -= weight
        self._weights[holder] -= weight
        if not line:
            del self._lines[holder], self._weights[holder]
        return item
