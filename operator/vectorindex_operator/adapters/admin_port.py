"""Requests to searchers' admin ports, each bounded as a whole: by time, bytes, and what one index may have under way.

Whoever runs a searcher may be hostile: it drips bytes, promises gigabytes, never ends its head. A timeout of a socket
is one of each read and holds nobody back, so everything happens on one event loop, where a deadline is one of the whole
exchange and a hundred slow pods cost a hundred small objects, not a hundred threads. One request a connection.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

DEADLINE_SECONDS = 2.0
"""Of one answer, from the first byte of the connection to the last of the body."""
PARALLEL = 16
"""Requests that one call has under way, by default; a call is about one index."""
ROUND_BYTES = 32 << 20
"""What all answers of one call may have together: they are held until the call is over."""
_LANE_WIDTH = 256
_HEAD_BYTES = 16 << 10
_READ_BYTES = 64 << 10


class Lane(StrEnum):
    """Requests of one lane never wait for those of another."""

    SOAK = "Soak"
    WATCH = "Watch"
    LEASE = "Lease"


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `path` with its query."""

    address: str
    port: int
    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came. `problem`: why nothing did, in words for people; then the rest is empty. `too_large`: because there is
    more of it than was to be read."""

    status: int = 0
    content_type: str = ""
    body: bytes = b""
    problem: str = ""
    too_large: bool = False


class _TooLargeError(Exception):
    """One answer has more bytes than are read."""


class _BudgetSpentError(Exception):
    """All answers together have more bytes than are read."""


class AdminPort:
    """Asks many pods at once. Usable from any thread."""

    def __init__(self, parallel: int = PARALLEL) -> None:
        """`parallel`: requests that one call has under way."""
        self._parallel = parallel
        self._loop = asyncio.new_event_loop()
        self._lanes = {lane: asyncio.Semaphore(_LANE_WIDTH) for lane in Lane}
        threading.Thread(target=self._loop.run_forever, name="admin-port", daemon=True).start()

    def ask(
        self, calls: Sequence[Call], lane: Lane, *, largest: int, seconds: float = DEADLINE_SECONDS
    ) -> list[Answer]:
        """The answers in the order of the calls, after `seconds` at the latest. `largest`: bytes of one body."""
        if not calls:
            return []
        return asyncio.run_coroutine_threadsafe(self._ask(calls, lane, largest, seconds), self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _ask(self, calls: Iterable[Call], lane: Lane, largest: int, seconds: float) -> list[Answer]:
        until = self._loop.time() + seconds
        turn, budget = asyncio.Semaphore(self._parallel), _Budget(ROUND_BYTES)

        async def one(call: Call) -> Answer:
            try:
                async with asyncio.timeout_at(until), turn, self._lanes[lane]:
                    return await _exchange(call, largest, budget)
            except TimeoutError:
                return Answer(problem=f"no whole answer within {seconds:g} s")
            except _TooLargeError as error:
                return Answer(problem=str(error), too_large=True)
            except (_BudgetSpentError, OSError, EOFError, ValueError) as error:
                return Answer(problem=str(error)[:200] or type(error).__name__)

        return await asyncio.gather(*(one(call) for call in calls))


@dataclass(slots=True)
class _Budget:
    left: int

    def take(self, size: int) -> None:
        if size > self.left:
            raise _BudgetSpentError(f"the pods of one index answer with more than {ROUND_BYTES} bytes together")
        self.left -= size


async def _exchange(call: Call, largest: int, budget: _Budget) -> Answer:
    reader, writer = await asyncio.open_connection(call.address, call.port, limit=_HEAD_BYTES)
    try:
        writer.write(_request(call))
        await writer.drain()
        status, content_type, length = _head(await _until_blank_line(reader))
        if length > largest:
            raise _TooLargeError(f"the answer of {length} bytes is larger than the {largest} that are read")
        pieces = []
        while length:
            piece = await reader.read(min(length, _READ_BYTES))
            if not piece:
                raise ValueError("the connection ended before the answer did")
            budget.take(len(piece))
            length -= len(piece)
            pieces.append(piece)
        return Answer(status, content_type, b"".join(pieces))
    finally:
        writer.transport.abort()


async def _until_blank_line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise ValueError(f"the head of the answer is longer than {_HEAD_BYTES} bytes") from None
    except asyncio.IncompleteReadError:
        raise ValueError("the connection ended before the answer did") from None


def _request(call: Call) -> bytes:
    host = f"[{call.address}]" if ":" in call.address else call.address
    headers = {"Host": f"{host}:{call.port}", "Connection": "close", **call.headers}
    if call.body:
        headers["Content-Length"] = str(len(call.body))
    lines = [f"{call.method} {call.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + call.body


def _head(text: bytes) -> tuple[int, str, int]:
    """Status, media type and length of the body. Searchers always say how long it is. ValueError for anything else."""
    first, *lines = text.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdecimal():
        raise ValueError(f"what answers speaks no HTTP: {first[:60]!r}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length", "")
    if not length.isdecimal() or len(length) > 18:
        raise ValueError("the answer does not say how long it is")
    return int(rest[:3]), headers.get("content-type", "").partition(";")[0].lower(), int(length)
