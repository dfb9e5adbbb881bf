"""Which connections of a port go first when there are too many, or when they hold too much."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Set
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connection import Connection


class Crowd:
    """The connections of a port, all of them together."""

    def __init__(self, connections: Set[Connection]) -> None:
        self._connections = connections
        self._next: deque[tuple[tuple[int, float], Connection]] = deque()
        """The least useful ones, as they were looked for: to look through thousands for each would be work that
        strangers can make."""

    def evict(self) -> bool:
        """Drop the least useful connection; False when all are being answered."""
        for looked in (False, True):
            while self._next:
                then, connection = self._next.popleft()
                if connection in self._connections and connection.usefulness == then:
                    connection.evict()
                    return True
            if not looked:
                self._look()
        return False

    def _look(self) -> None:
        found = [(rank, id(one), one) for one in self._connections if (rank := one.usefulness) is not None]
        least = heapq.nsmallest(len(self._connections) // 16 + 1, found)
        self._next.extend((rank, connection) for rank, _, connection in least)

    def refuse_slow_uploads(self, spared: object) -> bool:
        """Refuse the largest of the requests that have been coming for a while; False if there is none."""
        now = time.monotonic()
        slow = [
            (size, id(one), one) for one in self._connections if one is not spared and (size := one.slow_upload(now))
        ]
        if not slow:
            return False
        # A sixteenth at once: each look goes through thousands.
        for _, _, one in heapq.nlargest(len(slow) // 16 + 1, slow):
            one.refuse_upload()
        return True
