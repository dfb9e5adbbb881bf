"""Turns of the event loop: what the connections of a port may take of one together, before everything else has its own.

One request is cheap, a thousand connections that send the dearest at the same moment are not: without a bound the loop
would see nothing else for seconds, no probe either.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connection import Connection


class Turns:
    """The turns of one port."""

    def __init__(self, seconds: float) -> None:
        self.spent = False
        """Nothing more is read or answered in this turn."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = 0.0
        self._seconds = self._left = seconds
        self._waiting: deque[Connection] = deque()

    def spend(self, seconds: float) -> None:
        """So much of this turn was taken. Not called for what is cheap and comes once a turn from each connection."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        turn = self._loop.time()  # stands still within a turn
        if turn != self._turn:
            self._turn, self._left = turn, self._seconds
        self._left -= seconds
        if self._left <= 0.0 and not self.spent:
            self.spent = True
            self._loop.call_soon(self._next)

    def wait(self, connection: Connection) -> None:
        """Let the connection go on in a later turn, after those that wait already."""
        self._waiting.append(connection)

    def _next(self) -> None:
        self._left, self.spent = self._seconds, False
        while self._waiting and not self.spent:
            self._waiting.popleft().go_on()
