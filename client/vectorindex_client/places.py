"""Who may use a connection now, who waits for one, and who is refused: the rules, without locks, sockets or clocks.

Bounded. `connections` calls are under way, `waiting` more may wait (for a connection, or between two attempts); the
next is refused at once, because what waits longer than anyone has patience for is work that nobody wants.

In order, while that is of use: first come, first served. Once whoever came first has waited for half of its time,
newest first. A queue that is as long as everyone's patience serves each call in its last moment, and the answer comes
too late: nothing is answered in time although everything is busy. Newest first answers what it can, and those who
cannot be served run into their deadline.

Every step takes the same time, however many wait.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from .errors import Overloaded

W = TypeVar("W")
"""What wakes a caller that waits: the transport's own."""


class Places(Generic[W]):
    """The places of one client. Not locked: callers see to it that one thread at a time is in here."""

    def __init__(self, connections: int, waiting: int) -> None:
        self._connections = connections
        self._waiting = waiting
        self._calls = 0
        self._in_use = 0
        self._queue: OrderedDict[W, float] = OrderedDict()
        """Who waits -> when half of its time is over, the longest waiting first."""

    def enter(self) -> None:
        """A call begins. Raises Overloaded when as many as may wait do so."""
        if self._calls >= self._connections + self._waiting:
            raise Overloaded(
                f"this client has {self._calls} calls under way or waiting, of {self._connections} connections and "
                f"{self._waiting} that may wait",
                kind="TooManyWaiting",
                field="waiting",
                value=self._waiting,
                remedy="ask less at a time, run more searchers, or raise connections and waiting",
            )
        self._calls += 1

    def leave(self) -> None:
        """A call has ended."""
        self._calls -= 1

    def take(self) -> bool:
        """A place, if one is free; else `wait`."""
        if self._in_use >= self._connections:
            return False
        self._in_use += 1
        return True

    def wait(self, waiter: W, half: float) -> None:
        """Queue up. `half`: when half of the waiter's time will be over."""
        self._queue[waiter] = half

    def forget(self, waiter: W) -> bool:
        """Queue no longer. False when the waiter has a place already, which it has to give back."""
        return self._queue.pop(waiter, None) is not None

    def give(self, now: float) -> W | None:
        """Give a place back: the waiter who has it now and must be woken, or None."""
        if not self._queue:
            self._in_use -= 1
            return None
        first = next(iter(self._queue))
        if self._queue[first] >= now:
            del self._queue[first]
            return first
        return self._queue.popitem(last=True)[0]
