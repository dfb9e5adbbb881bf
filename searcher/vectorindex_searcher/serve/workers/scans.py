"""Requests of routers' live recall in a pod of several processes: the front process takes them, and the first process,
which has the index and no users, scans. What is asked and found goes as bytes in memory beside a message."""

from __future__ import annotations

import asyncio
import os
from typing import Protocol

from ...contract import NEAREST_WAITING
from .memory import read, written


class Send(Protocol):
    """As Channel.send."""

    def __call__(self, message: dict[str, object], descriptor: int | None = None) -> None: ...


class FrontScans:
    """In the front process."""

    def __init__(self, send: Send) -> None:
        """`send`: to the first process."""
        self._send = send
        self._told: dict[int, asyncio.Future[bytes]] = {}
        self._asked = 0

    def ask(self, data: bytes) -> asyncio.Future[bytes] | None:
        """What will be found; None where too many wait."""
        if len(self._told) > NEAREST_WAITING:
            return None
        self._asked += 1
        told = self._told[self._asked] = asyncio.get_running_loop().create_future()
        give(self._send, {"say": "nearest", "number": self._asked}, data)
        return told

    def hear(self, number: int, descriptor: int) -> None:
        """What was found for one."""
        told, found = self._told.pop(number), read(descriptor)
        if not told.done():
            told.set_result(found)


def give(send: Send, message: dict[str, object], data: bytes) -> None:
    """Send a message with these bytes."""
    descriptor = written((data,))
    try:
        send(message, descriptor)
    finally:
        os.close(descriptor)
