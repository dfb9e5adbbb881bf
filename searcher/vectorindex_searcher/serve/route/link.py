"""A connection to a pod of a shard: one request at a time, whose answer a callback is told.

Whoever is at the other end may be broken or hostile: what of an answer is held is bounded before it is held, and a
connection on which anything was not as it should be is not used again. No Future and no task for a request: with eight
shards these would be most of what it costs.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from ... import contract
from ..shadow.link import fields_of

HEAD_BYTES = 16 << 10
COPIED_BYTES = 16 << 10
ROOM_BYTES = 256 << 20
"""What all answers that are on their way may take, all shards together, and what shards have not taken of requests."""
_BLANK_LINE = b"\r\n\r\n"
_REVISION, _FILTERED = contract.REVISION_HEADER.lower(), contract.FILTERED_HEADER.lower()


class BrokenError(Exception):
    """What came is no answer of a searcher, or none came."""


class NoRoomError(Exception):
    """Other answers take what there is for them."""


@dataclass(frozen=True, slots=True)
class Head:
    """Of an answer. `last`: the other side closes after it."""

    status: int
    length: int
    last: bool
    content_type: str
    revision: str
    filtered: str = ""
    """How its filter was searched."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. Its body is counted in the Room that the link has: whoever is told gives that back."""

    head: Head
    body: bytes


Then = Callable[[Reply | Exception], None]


class Room:
    """Bytes that answers take at the moment, and bodies of requests. Thread-safe."""

    def __init__(self, limit: int = ROOM_BYTES) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self.taken = 0

    def take(self, size: int) -> bool:
        """Whether there is room; if so it is taken."""
        with self._lock:
            if self.taken + size > self._limit:
                return False
            self.taken += size
            return True

    def give(self, size: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self.taken -= size


class Link(asyncio.Protocol):
    """One connection. For one event loop."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._transport: asyncio.Transport | None = None
        self._then: Then | None = None
        self._most = 0
        self._begun = b""
        """Of a head that is not whole."""
        self._head: Head | None = None
        self._parts: list[bytes] = []
        self._missing = 0
        self._last = False
        self.since = 0.0
        """Monotonic: of its last request, or of its last answer."""

    def ask(self, head: bytes, body: bytes, most: int, then: Then) -> None:
        """Send; `then` is told once. `most`: bytes of the answer's body.

        A long body is not copied: all shards get the same one, and some may take it slowly."""
        self._then, self._most, self.since = then, most, time.monotonic()
        if self._transport is None or self._transport.is_closing():
            self._end(BrokenError("the connection is closed"))
            return
        if len(body) <= COPIED_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    @property
    def usable(self) -> bool:
        """Whether another request may be asked."""
        return not self._last and self._transport is not None and not self._transport.is_closing()

    @property
    def unsent(self) -> bool:
        """Whether the other side has not taken all of the request."""
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    def close(self) -> None:
        """At once, whatever is on its way: who waits is told."""
        if self._transport is not None:
            self._transport.abort()
        self._end(BrokenError("given up"))

    # ------------------------------------------------------------ as asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # of a connection it is a whole one

    def data_received(self, data: bytes) -> None:
        if self._then is None:
            self.close()  # nobody asked
            return
        try:
            self._take(data)
        except (BrokenError, NoRoomError, ValueError) as error:
            if self._transport is not None:
                self._transport.abort()
            self._end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or BrokenError("the connection ended before the answer did"))

    # ------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        if self._head is None:
            data = self._begun + data if self._begun else data
            end = data.find(_BLANK_LINE, 0, HEAD_BYTES)
            if end < 0:
                if len(data) >= HEAD_BYTES:
                    raise BrokenError(f"the head of an answer is longer than {HEAD_BYTES} bytes")
                self._begun = data
                return
            head = head_of(data[:end])
            if head.length > self._most:
                raise BrokenError(f"an answer of {head.length} bytes")
            if not self._room.take(head.length):
                raise NoRoomError("answers on their way take all the room that there is for them")
            self._head, self._missing, self._last, self._begun = head, head.length, head.last, b""
            data = data[end + len(_BLANK_LINE) :]
        self._missing -= len(data)
        if self._missing < 0:
            raise BrokenError("more than an answer")
        self._parts.append(data)
        if not self._missing:
            body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            reply, self._head = Reply(self._head, body), None
            self.since = time.monotonic()
            self._end(reply)

    def _end(self, outcome: Reply | Exception) -> None:
        """Only the first outcome of a request counts."""
        if self._head is not None:
            self._room.give(self._head.length)
            self._head = None
        self._parts, self._begun, self._missing = [], b"", 0
        then, self._then = self._then, None
        if then is not None:
            then(outcome)


async def asked(link: Link, room: Room, head: bytes, body: bytes, most: int) -> Reply:
    """The answer to one request, which counts in the Room no more; arguments as Link.ask. Raises OSError, BrokenError,
    NoRoomError. Who gives up closes the link."""
    told: asyncio.Future[Reply | Exception] = asyncio.get_running_loop().create_future()

    def then(outcome: Reply | Exception) -> None:
        if isinstance(outcome, Reply):
            room.give(len(outcome.body))
        if not told.done():
            told.set_result(outcome)

    link.ask(head, body, most, then)
    outcome = await told
    if isinstance(outcome, Exception):
        raise outcome if isinstance(outcome, (NoRoomError, OSError)) else BrokenError(str(outcome))
    return outcome


@lru_cache(256)
def head_of(text: bytes) -> Head:
    """Of the bytes before the blank line: most answers of a second have the same. Raises ValueError for anything that
    no searcher answers."""
    status, length, last, told = fields_of(text)
    return Head(status, length, last, told.get("content-type", ""), told.get(_REVISION, ""), told.get(_FILTERED, ""))
