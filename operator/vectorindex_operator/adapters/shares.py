"""What all tenants have together, such as connections or memory, so that nobody's greed is another's wait.

Whoever holds a share of h may take more while h <= f * f, where f is the free part of the whole. One that is alone gets
over a third; after k that took all they could, one after the other, 1 / (k + 1) is free still; and whoever has nothing
may take one. No list of tenants is needed. (Dynamic thresholds, as switches share their buffers, with a square: plain
ones halve what is free with each that comes and holds on.)
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Pool:
    """So much of something. Taken and given back from any thread; waited for on one event loop."""

    def __init__(self, size: int) -> None:
        self.size = self.free = size
        self.lock = threading.RLock()
        """Of the same thread as well: a share may be closed by whatever drops the last reference to what it is for."""
        self.waiting: deque[tuple[Share, asyncio.Future[None]]] = deque()

    def share(self) -> Share:
        """What one look takes of it: nothing yet."""
        return Share(self)

    def wake(self) -> None:
        """One of those that wait and may take now. On the event loop."""
        for place, (share, turn) in enumerate(self.waiting):
            if share.may_take(1) and not turn.done():
                del self.waiting[place]
                turn.set_result(None)
                return


class Share:
    """What one look has of a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._line = asyncio.Lock()
        """At most one of a share stands in the pool's line: it is as long as there are looks."""
        self.held = 0

    def may_take(self, size: int) -> bool:
        left = self._pool.free - size
        return left >= 0 and (not self.held or (self.held + size) * self._pool.size <= left * left)

    def take(self, size: int) -> bool:
        """Whether it was given."""
        with self._pool.lock:
            if not self.may_take(size):
                return False
            self.held += size
            self._pool.free -= size
            return True

    def give_back(self, size: int) -> None:
        with self._pool.lock:
            self.held -= size
            self._pool.free += size

    def close(self) -> None:
        """Give everything back."""
        self.give_back(self.held)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold one, as soon as it may be taken. On the event loop."""
        async with self._line:
            while not self.take(1):
                await self._turn()
        try:
            yield
        finally:
            self.give_back(1)
            self._pool.wake()

    async def _turn(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._pool.waiting.append((self, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pool.wake()  # it was this one's turn, and it has gone
            else:
                self._pool.waiting.remove((self, turn))
            raise
