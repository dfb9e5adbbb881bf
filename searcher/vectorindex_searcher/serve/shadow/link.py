"""Connections to pods that are judged, kept from request to request: to make one costs as much as a request.

Whoever is at the other end may be broken or hostile. Little of what it sends is held, and a connection on which
anything was not as it should be is not used again.
"""

from __future__ import annotations

import asyncio
import time

KEPT = 8
"""Connections without a request at most."""
IDLE_SECONDS = 10.0
"""Then one is closed here: the other side closes what is idle for long, and that must not cross with a request."""
HEAD_BYTES = 16 << 10
ANSWER_BYTES = 4096
"""Of an answer, its head and its body, at most."""
_BLANK_LINE = b"\r\n\r\n"


class Link(asyncio.Protocol):
    """One connection: a request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._given = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._last = False
        """Whether the other side closes after its answer."""
        self.free_since = 0.0
        """Monotonic: when it was put back."""

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer; of any but a 200 no body. Raises OSError, EOFError, and ValueError for what no
        searcher answers."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._answer = None
            self._given.clear()

    @property
    def usable(self) -> bool:
        """Whether another request may be asked."""
        return not self._last and self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """At once, whatever is on its way."""
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------ as asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # of a connection it is a whole one

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.close()  # nobody asked
            return
        self._given += data
        try:
            found = self._found()
        except ValueError as error:
            self._answer.set_exception(error)
            return
        if found is not None:
            self._answer.set_result(found)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or EOFError("the connection ended before the answer did"))

    def _found(self) -> tuple[int, bytes] | None:
        end = self._given.find(_BLANK_LINE, 0, HEAD_BYTES)
        if end < 0:
            if len(self._given) >= HEAD_BYTES:
                raise ValueError(f"the head of the answer is longer than {HEAD_BYTES} bytes")
            return None
        status, length, self._last = head_of(bytes(self._given[:end]))
        if status != 200:
            return status, b""
        if length > ANSWER_BYTES:
            raise ValueError(f"an answer of {length} bytes")
        start = end + len(_BLANK_LINE)
        if len(self._given) < start + length:
            return None
        if len(self._given) > start + length:
            raise ValueError("more than an answer")
        return status, bytes(self._given[start:])


class Links:
    """Those to all pods; one event loop's."""

    def __init__(self) -> None:
        self._free: dict[tuple[str, int], Link] = {}

    async def to(self, address: str, port: int) -> Link:
        """The caller's own until it is closed or put back. Raises OSError where there is no connection."""
        link = self._free.pop((address, port), None)
        if link is not None and link.usable:
            return link
        _, made = await asyncio.get_running_loop().create_connection(Link, address, port)
        return made

    def put_back(self, address: str, port: int, link: Link) -> None:
        """Its request was answered as it should be."""
        if len(self._free) >= KEPT or not link.usable or (address, port) in self._free:
            link.close()
            return
        link.free_since = time.monotonic()
        self._free[address, port] = link

    def close_idle(self, addresses: tuple[str, ...]) -> None:
        """Close those without a request that go to no address of these, or had none for long."""
        until = time.monotonic() - IDLE_SECONDS
        for (address, port), link in tuple(self._free.items()):
            if address not in addresses or link.free_since < until:
                del self._free[address, port]
                link.close()


def head_of(text: bytes) -> tuple[int, int, bool]:
    """The first three of `fields_of`."""
    return fields_of(text)[:3]


def fields_of(text: bytes) -> tuple[int, int, bool, dict[str, str]]:
    """Of an answer's head: status, length of the body, whether the connection ends with it, and all headers by their
    lower-case names. Raises ValueError for anything that no searcher answers."""
    first, *lines = text.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    told = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = told.get("content-length", "")
    if not version.startswith("HTTP/1.") or not rest[:3].isdecimal() or not length.isdecimal() or len(length) > 18:
        raise ValueError("what answers is no searcher")
    last = version == "HTTP/1.0" or told.get("connection", "").lower() == "close"
    return int(rest[:3]), int(length), last, told
