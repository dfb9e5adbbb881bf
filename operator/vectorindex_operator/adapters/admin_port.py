"""Requests to searchers' admin ports, each bounded as a whole: by time, and by what it leaves for those of others.

Whoever runs a searcher may be hostile: it drips bytes, promises gigabytes, never ends its head. A timeout of a socket
is one of each read and holds nobody back, so everything happens on one event loop, where a deadline is one of the whole
exchange and a hundred slow pods cost a hundred small objects, not a hundred threads. One request a connection.
Connections and bytes are shared (shares.py).
"""

from __future__ import annotations

import asyncio
import resource
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from vectorindex_operator.adapters.shares import Pool, Share

Result = TypeVar("Result")

DEADLINE_SECONDS = 2.0
"""Of one answer, from the first byte of the connection to the last of the body."""
PARALLEL = 16
"""Requests that one call has under way, by default; a call is about one index."""
HELD_BYTES = 192 << 20
"""Of all answers and of what was made of them, until the passes that asked are over."""
LONGEST_WORDS = 200
"""Of what a pod says, in words for people."""
_LANE_WIDTH = 1024
_OTHER_FILES = 256
"""What else the process has open."""
_HEAD_BYTES = 16 << 10
_READ_BYTES = 64 << 10


class Lane(StrEnum):
    """Requests of one lane never wait for those of another."""

    SOAK = "Soak"
    WATCH = "Watch"
    LEASE = "Lease"
    POLL = "Poll"


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
    more of it than was to be read. `at`: when, Unix seconds; what is made of it may wait for its turn."""

    status: int = 0
    content_type: str = ""
    body: bytes = b""
    problem: str = ""
    too_large: bool = False
    at: float = field(default_factory=time.time)

    @property
    def refusal(self) -> str:
        """Why a pod does not take the request, in its own words as far as they are short and harmless."""
        return f"it answers with status {self.status}: {self.body[:LONGEST_WORDS].decode(errors='replace')!r}"


class _TooLargeError(Exception):
    """One answer has more bytes than are read."""


class _ShareSpentError(Exception):
    """All answers together have more bytes than are left for them."""


class AdminPort:
    """Asks many pods at once, on an event loop of its own."""

    def __init__(self, parallel: int = PARALLEL, held_bytes: int = HELD_BYTES) -> None:
        """`parallel`: requests that one call has under way. `held_bytes`: what all calls together may hold."""
        self._parallel = parallel
        self._loop = asyncio.new_event_loop()
        self._lanes = {lane: Pool(_lane_width()) for lane in Lane}
        self._bytes = Pool(held_bytes)
        threading.Thread(target=self._run, name="admin-port", daemon=True).start()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    def start(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Run something on the event loop. From any thread.

        The Future is one of our own: that of asyncio refers to itself, and so keeps its result until the garbage is
        collected.
        """
        done: Future[Result] = Future()

        async def run() -> None:
            try:
                done.set_result(await work)
            except BaseException as error:
                done.set_exception(error)

        asyncio.run_coroutine_threadsafe(run(), self._loop)
        return done

    def share(self) -> Share:
        """What the answers of one look may hold; who has it closes it."""
        return self._bytes.share()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def ask(
        self, calls: Sequence[Call], lane: Lane, share: Share, *, largest: int, seconds: float = DEADLINE_SECONDS
    ) -> list[Answer]:
        """The answers in the order of the calls, after `seconds` at the latest; their bytes are taken from `share`.

        `largest`: bytes of one body. On the event loop.
        """
        until = self._loop.time() + seconds
        turn, connections = asyncio.Semaphore(self._parallel), self._lanes[lane].share()

        async def one(call: Call) -> Answer:
            try:
                async with asyncio.timeout_at(until), turn, connections.one():
                    return await _exchange(call, largest, share)
            except TimeoutError:
                return Answer(problem=f"no whole answer within {seconds:g} s")
            except _TooLargeError as error:
                return Answer(problem=str(error), too_large=True)
            except (_ShareSpentError, OSError, EOFError, ValueError) as error:
                return Answer(problem=str(error)[:200] or type(error).__name__)

        return await asyncio.gather(*(one(call) for call in calls))


def _lane_width() -> int:
    """Connections of each lane: a process may have so many files open, and must be left some for the API server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = len(Lane) * _LANE_WIDTH + _OTHER_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(_LANE_WIDTH, (soft - _OTHER_FILES) // len(Lane)))


async def _exchange(call: Call, largest: int, share: Share) -> Answer:
    reader, writer = await asyncio.open_connection(call.address, call.port, limit=_HEAD_BYTES)
    try:
        writer.write(_request(call))
        await writer.drain()
        status, content_type, length = _head(await _until_blank_line(reader))
        if length > largest:
            raise _TooLargeError(f"the answer of {length} bytes is larger than the {largest} that are read")
        return Answer(status, content_type, await _body(reader, length, share))
    finally:
        writer.transport.abort()


async def _body(reader: asyncio.StreamReader, length: int, share: Share) -> bytes:
    pieces: list[bytes] = []
    taken = 0
    try:
        while taken < length:
            piece = await reader.read(min(length - taken, _READ_BYTES))
            if not piece:
                raise ValueError("the connection ended before the answer did")
            if not share.take(len(piece)):
                raise _ShareSpentError("the pods of one index answer with more bytes than are left for it")
            taken += len(piece)
            pieces.append(piece)
    except BaseException:
        share.give_back(taken)
        raise
    return b"".join(pieces)


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
