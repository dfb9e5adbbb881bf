"""A listening port: its connections, what they may hold together, and how they end.

Must not know what the application behind it does.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol

from ... import contract
from .connection import Connection
from .head_cache import HeadCache
from .messages import Deferred, Problem, Request, Response, overload

KEEP_ALIVE_JITTER = 0.2
_BACKLOG = 1024
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may take. Bytes and seconds."""

    body_bytes: int = 8 << 20
    header_bytes: int = 16 << 10
    connections: int = 4096
    held_bytes: int = 256 << 20
    """Request bodies of all connections together."""
    read_seconds: float = 15.0
    """From the first byte of a request to its last."""
    write_seconds: float = 30.0
    """How long a client may leave its answer unread."""
    age_seconds: float = contract.KEEP_ALIVE_SECONDS
    """Age at which a connection closes after its answer, with jitter so that they do not all return at once."""
    idle_seconds: float = 120.0
    """Longer than clients keep idle connections (Go 90 s): the server closing first can cross with a new query."""
    sweep_seconds: float = 1.0
    """How often the limits on time are looked at."""
    handshake_seconds: float = 10.0
    """TLS: a connection counts, and its own limits hold, only after its handshake."""


class Application(Protocol):
    """What answers the requests of a port. Both methods run on the event loop and must not block."""

    def handle(self, request: Request) -> Response | Deferred | asyncio.Future[Response]:
        """Answer now or later. May raise Problem; anything else raised becomes a 500."""
        ...

    def answered(self, request: Request, response: Response, seconds: float) -> None:
        """An answer was written, `seconds` after its request had arrived."""
        ...


class Listener:
    """One port with its application."""

    def __init__(
        self,
        application: Application,
        revision: str,
        limits: Limits,
        closing: Callable[[], bool] = lambda: False,
        guard: Callable[[Mapping[bytes, bytes]], None] | None = None,
    ) -> None:
        """`closing`: whether connections are to be closed after their answer at this moment. `guard`: sees the headers
        of each request before its body is read, and raises Problem to refuse it.
        """
        self.limits = limits
        self.closing = closing
        self.guard = guard
        self.heads = HeadCache()
        self.in_flight = 0
        """Requests being answered."""
        self._application = application
        self._revision = revision
        self._connections: set[Connection] = set()
        self._held = 0
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._heads: dict[tuple[int, bytes], bytes] = {}
        """First lines of answers by status and media type, made once a second because of Date."""
        self._heads_second = -1

    # ------------------------------------------------------------ life

    async def open(self, port: int, host: str = "", tls: ssl.SSLContext | None = None) -> int:
        """Accept connections on `port` (0: any free one) and return it. Empty `host`: every address, IPv4 and IPv6."""
        if not host and socket.has_dualstack_ipv6():
            listening = socket.create_server(("", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)
        else:
            listening = socket.create_server((host, port), backlog=_BACKLOG)
        listening.setblocking(False)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self),
            sock=listening,
            backlog=_BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=self.limits.handshake_seconds if tls is not None else None,
        )
        self._sweeper = loop.create_task(self._sweep())
        return int(listening.getsockname()[1])

    def stop_accepting(self) -> None:
        """Close the listening socket; open connections stay."""
        if self._server is not None:
            self._server.close()

    def close_idle(self) -> None:
        """Close the connections on which nothing is under way."""
        for connection in tuple(self._connections):
            connection.close_if_idle()

    async def close(self) -> None:
        """Stop accepting, drop every connection, and wait for their ends."""
        self.stop_accepting()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in tuple(self._connections):
            connection.abort()
        while self._connections:
            await asyncio.sleep(0)

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._connections)

    @property
    def quiet(self) -> bool:
        """No connection has a request under way."""
        return all(connection.idle for connection in self._connections)

    async def _sweep(self) -> None:
        """One timer for all connections: a timer each would cost more than the parsing."""
        while True:
            await asyncio.sleep(self.limits.sweep_seconds)
            now = time.monotonic()
            for connection in tuple(self._connections):
                connection.check_clock(now)

    # ------------------------------------------------------------ called by connections

    def admit(self, connection: Connection) -> Problem | None:
        """Count a new connection in; a problem when there are too many."""
        self._connections.add(connection)
        if len(self._connections) > self.limits.connections:
            return overload(f"more than {self.limits.connections} connections")
        return None

    def forget(self, connection: Connection) -> None:
        """Count a connection out."""
        self._connections.discard(connection)

    def connection_age(self) -> float:
        """Seconds a new connection may live, jittered."""
        return self.limits.age_seconds * random.uniform(1 - KEEP_ALIVE_JITTER, 1 + KEEP_ALIVE_JITTER)  # noqa: S311 - no secret

    def hold(self, size: int) -> bool:
        """Take `size` bytes of the budget for request bodies; False when it is spent."""
        if self._held + size > self.limits.held_bytes:
            return False
        self._held += size
        return True

    def release(self, size: int) -> None:
        """Give back what `hold` took."""
        self._held -= size

    def head(self, status: int, content_type: bytes) -> bytes:
        """The status line and the headers that every answer has; the last one is Content-Length, without its value."""
        second = int(time.time())
        if second != self._heads_second:
            self._heads_second = second
            self._heads.clear()
        head = self._heads.get((status, content_type))
        if head is None:
            date, kind = formatdate(second, usegmt=True), content_type.decode("latin-1")
            text = (
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nDate: {date}\r\n"
                f"{contract.REVISION_HEADER}: {self._revision}\r\nContent-Type: {kind}\r\nContent-Length: "
            )
            head = self._heads[status, content_type] = text.encode("latin-1", "replace")
        return head

    def answer(self, request: Request) -> Response | Deferred:
        """The application's answer; whatever it raises is an answer too."""
        self.in_flight += 1
        if request.problem is not None:
            return request.problem.response(self._revision)
        try:
            answer = self._application.handle(request)
        except Exception as error:
            return self.failed(request, error)
        return answer if isinstance(answer, (Deferred, Response)) else _deferred(answer)

    def finished(self, request: Request, response: Response, seconds: float) -> None:
        """One answer was written."""
        self.in_flight -= 1
        try:
            self._application.answered(request, response, seconds)
        except Exception:
            _log.exception("counting an answer failed")

    def failed(self, request: Request, error: BaseException) -> Response:
        """The answer that tells what went wrong."""
        if isinstance(error, Problem):
            return error.response(self._revision)
        _log.error("request failed", exc_info=error, extra={"target": request.target[:200].decode("latin-1")})
        detail = "the searcher failed; its log has the traceback"
        return Problem(500, "InternalError", detail).response(self._revision)


def _deferred(future: asyncio.Future[Response]) -> Deferred:
    """`future` as a Later."""
    deferred = Deferred()

    def resolve(done: asyncio.Future[Response]) -> None:
        if done.cancelled():
            deferred.resolve(RuntimeError("the answer was cancelled"))
        else:
            deferred.resolve(done.exception() or done.result())

    future.add_done_callback(resolve)
    return deferred
