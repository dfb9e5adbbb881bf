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
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol

from ... import contract
from ..tracing.spans import Spans
from .acceptor import Acceptor
from .connection import Connection
from .crowd import Crowd
from .head import Credential
from .head_cache import HeadCache
from .limits import Limits
from .messages import Deferred, Problem, Request, Response, overload
from .traced import TracedConnection
from .turns import Turns

KEEP_ALIVE_JITTER = 0.2
SEARCH_PATH = b"/v1/search"
TOLD_TO_RETRY = 32
"""Connections beyond the limit that are told so at the same time."""
_log = logging.getLogger(__name__)


class Application(Protocol):
    """What answers the requests of a port. Both methods run on the event loop and must not block."""

    def handle(self, request: Request) -> Response | Deferred | asyncio.Future[Response]:
        """Answer now or later. May raise Problem; anything else raised becomes a 500."""
        ...

    def answered(self, request: Request, response: Response, seconds: float) -> None:
        """An answer was written, `seconds` after its request had arrived."""
        ...


class Guard(Protocol):
    """Who lets requests in, and never learns more of them than their credential."""

    def check(self, credential: Credential | None) -> object:
        """Raises Problem to refuse the request. Called before its body is read."""
        ...

    def count(self, credential: Credential | None) -> None:
        """The same, once its turn has come."""
        ...


class Listener:
    """One port with its application."""

    def __init__(
        self,
        application: Application,
        revision: str,
        limits: Limits,
        closing: Callable[[], bool] = lambda: False,
        guard: Guard | None = None,
        spans: Spans | None = None,
    ) -> None:
        """`closing`: whether connections are to be closed after their answer at this moment. `spans`: takes those of
        traced searches; None: nobody wants them."""
        self.limits = limits
        self.closing = closing
        self.guard = guard
        self.spans = spans
        self.heads = HeadCache(limits.header_lines)
        self.turns = Turns(limits.turn_seconds)
        self.in_flight = 0
        """Requests being answered."""
        self.relieve: Callable[[], None] = self.make_room
        """What to do when the process has no descriptor left."""
        self._application = application
        self._revision = revision
        self._connections: set[Connection] = set()
        self._told = 0
        """Connections that are only told that there is no room."""
        self._crowd = Crowd(self._connections)
        self.held = 0
        """Bytes of requests that arrived, whole or in part, and are not answered."""
        self._unread = 0
        self._unreading: dict[Connection, None] = {}
        """Connections that do not take their answers, the longest first."""
        self._tls: ssl.SSLContext | None = None
        self._acceptor: Acceptor | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._heads: dict[tuple[int, bytes], bytes] = {}
        """First lines of answers by status and media type, made once a second because of Date."""
        self._heads_second = -1

    # ------------------------------------------------------------ life

    async def open(self, port: int, host: str = "", tls: ssl.SSLContext | None = None) -> int:
        """Accept connections on `port` (0: any free one) and return it. Empty `host`: every address, IPv4 and IPv6."""
        self._acceptor = Acceptor(host, port, self.connect, lambda: self.relieve())
        self.begin(tls)
        return self._acceptor.port

    def begin(self, tls: ssl.SSLContext | None = None) -> None:
        """Without a port of its own: somebody else accepts, and calls `connect`."""
        self._tls = tls
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    def connect(self, accepted: socket.socket) -> None:
        """Make a connection of an accepted socket, if there is room or room can be made."""
        connection = Connection(self) if self.spans is None else TracedConnection(self)
        while len(self._connections) - self._told >= self.limits.connections:
            if self._crowd.evict():
                continue
            # All are being answered. To say so takes a descriptor for a moment: for some, not for a flood of them.
            if self._told >= TOLD_TO_RETRY:
                accepted.close()
                return
            connection.refused = overload(f"more than {self.limits.connections} connections")
            self._told += 1
            break
        self._connections.add(connection)
        opening = asyncio.get_running_loop().create_task(self._attach(connection, accepted))
        connection.opening = opening
        opening.add_done_callback(lambda done: self._attached(connection, accepted, done))

    async def _attach(self, connection: Connection, accepted: socket.socket) -> None:
        """Hand the socket to the event loop, with TLS after the handshake."""
        loop, limits = asyncio.get_running_loop(), self.limits
        if self._tls is None:
            await loop.connect_accepted_socket(lambda: connection, accepted)
            return
        await loop.connect_accepted_socket(
            lambda: connection,
            accepted,
            ssl=self._tls,
            ssl_handshake_timeout=limits.handshake_seconds,
            ssl_shutdown_timeout=limits.write_seconds,
        )

    def _attached(self, connection: Connection, accepted: socket.socket, done: asyncio.Task[None]) -> None:
        """The connection stands, or it came to nothing: no TLS, no patience, evicted."""
        connection.opening = None
        if done.cancelled() or done.exception() is not None:
            accepted.close()
            self.forget(connection)
        if not done.cancelled() and not isinstance(done.exception(), (OSError, type(None))):
            _log.error("a connection could not be begun", exc_info=done.exception())

    def stop_accepting(self) -> None:
        """Close the listening socket; open connections stay."""
        if self._acceptor is not None:
            self._acceptor.close()

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

    def make_room(self) -> None:
        """Close some of the connections that are least in use."""
        for _ in range(len(self._connections) // 16 + 1):
            self._crowd.evict()

    def forget(self, connection: Connection) -> None:
        """Count a connection out."""
        if connection in self._connections:
            self._connections.remove(connection)
            self._told -= connection.refused is not None

    def connection_age(self) -> float:
        """Seconds a new connection may live, jittered."""
        return self.limits.age_seconds * random.uniform(1 - KEEP_ALIVE_JITTER, 1 + KEEP_ALIVE_JITTER)  # noqa: S311 - no secret

    def may_hold(self, size: int, connection: object) -> bool:
        """Whether there is room for `size` more bytes of requests, or can be made at the cost of those that dawdle."""
        while self.held + size > self.limits.held_bytes:
            if not self._crowd.refuse_slow_uploads(connection):
                return False
        return True

    def count_unread(self, connection: Connection, change: int) -> None:
        """So many bytes of answers wait for their clients, or no longer. Who leaves his unread the longest loses it."""
        self._unread += change
        if change <= 0:
            self._unreading.pop(connection, None)
            return
        self._unreading[connection] = None
        while self._unread > self.limits.unread_bytes and len(self._unreading) > 1:
            next(iter(self._unreading)).evict()

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
            if self.guard is not None and request.head is not None:
                self.guard.count(request.head.credential)
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
        if self.spans is not None and request.trace is not None and request.path == SEARCH_PATH:
            self.spans.add(request.trace, seconds, response.status, response.stages)

    def failed(self, request: Request, error: BaseException) -> Response:
        """The answer that tells what went wrong."""
        if isinstance(error, Problem):
            return error.response(self._revision)
        _log.error("request failed", exc_info=error, extra={"target": request.target[:200].decode("latin-1")})
        detail = "the searcher failed; its log has the traceback"
        return Problem(500, "InternalError", detail).response(self._revision)


def _deferred(future: asyncio.Future[Response]) -> Deferred:
    """`future` as a Deferred."""
    deferred = Deferred()

    def resolve(done: asyncio.Future[Response]) -> None:
        if done.cancelled():
            deferred.resolve(RuntimeError("the answer was cancelled"))
        else:
            deferred.resolve(done.exception() or done.result())

    future.add_done_callback(resolve)
    return deferred
