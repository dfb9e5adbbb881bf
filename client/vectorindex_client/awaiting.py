"""Connections of the asyncio client: aiohttp's, and around them what decides who uses one and how long a call takes.

aiohttp keeps, opens and closes connections. It is never asked for more than may be used at a time, so that its own
queue, which knows no limit, stays empty.
"""

from __future__ import annotations

import asyncio
import io
import ssl
from contextvars import ContextVar

import aiohttp
from aiohttp.connector import Connection
from yarl import URL

from .address import Address
from .answers import MAX_ANSWER_BYTES, Answer
from .attempts import CONNECT_SECONDS, Attempts, Broken, Deadline, NotHttp, Unconnected, give_up_unheard
from .places import Places

KEEP_ALIVE_SECONDS = 60.0
"""As the waiting client's."""
_ONE_PIECE = 1 << 20


_UNDER_WAY: ContextVar[list[asyncio.WriteTransport]] = ContextVar("_UNDER_WAY")


class _Request(aiohttp.ClientRequest):
    """Tells which connection it went to. aiohttp closes a connection once all is sent that was to be sent, so one whose
    other end reads no more would stay for ever, and one whose event loop has ended until the garbage is collected: such
    a one is aborted here when its call ends."""

    DEFAULT_HEADERS = {}
    """A searcher compresses nothing; and Accept is each request's own."""

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        if isinstance(conn.transport, asyncio.WriteTransport):
            _UNDER_WAY.get().append(conn.transport)
            connected = conn.transport.get_extra_info("socket")
            if connected is not None:
                give_up_unheard(connected)
        return await super().send(conn)


class Connections:
    """All connections of one client, within one event loop."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, connections: int, waiting: int) -> None:
        self._base = address.base
        self._tls = tls
        self._places: Places[asyncio.Future[None]] = Places(connections, waiting)
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._targets: dict[str, URL] = {}

    def enter(self) -> None:
        """A call begins. Raises Overloaded when too many wait, RuntimeError after close or in another event loop."""
        loop = asyncio.get_running_loop()
        if self._closed:
            raise RuntimeError("this client is closed: make another one")
        if self._session is None:
            self._loop, self._session = loop, self._open()
        elif self._loop is not loop:
            raise RuntimeError("this client belongs to another event loop: make one in each")
        self._places.enter()

    def leave(self) -> None:
        """The call has ended."""
        self._places.leave()

    async def exchange(self, attempts: Attempts) -> Answer:
        """One attempt. Raises DeadlineExceeded, Unconnected, Broken or NotHttp."""
        deadline = attempts.deadline
        scope = asyncio.timeout(deadline.remaining)
        try:
            async with scope:
                await self._take(deadline)
                try:
                    deadline.waiting_for = "an answer"
                    return await self._ask(attempts)
                finally:
                    self._give()
        except TimeoutError:
            if scope.expired():
                raise deadline.exceeded() from None
            raise Unconnected("the network gave up") from None  # ETIMEDOUT, which is a TimeoutError too

    async def close(self) -> None:
        """Close the connections; a call that is under way ends with Unreachable."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ssl=self._tls if self._tls is not None else True
        )
        return aiohttp.ClientSession(
            connector=connector,
            request_class=_Request,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            trust_env=False,
        )

    # ------------------------------------------------------------ places

    async def _take(self, deadline: Deadline) -> None:
        if self._places.take():
            return
        waiter = asyncio.get_running_loop().create_future()
        self._places.wait(waiter, deadline.half)
        deadline.waiting_for = "a free connection"
        try:
            await waiter
        except BaseException:
            if not self._places.forget(waiter):
                self._give()  # it was given at the very moment
            raise

    def _give(self) -> None:
        waiter = self._places.give(asyncio.get_running_loop().time())
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # ------------------------------------------------------------ one exchange

    async def _ask(self, attempts: Attempts) -> Answer:
        under_way: list[asyncio.WriteTransport] = []
        _UNDER_WAY.set(under_way)
        try:
            answer = await self._asked(attempts)
        except BaseException:
            for transport in under_way:
                transport.abort()
            raise
        for transport in under_way:
            if transport.get_write_buffer_size():  # it was answered before all was sent: nobody waits for the rest
                transport.abort()
        return answer

    async def _asked(self, attempts: Attempts) -> Answer:
        request = attempts.request
        assert self._session is not None
        response = None
        # aiohttp's errors hold the request with its token: none of them is the cause or the context of ours.
        try:
            response = await self._session.request(
                request.method,
                self._target(request.path),
                data=_given(request.content),
                headers=attempts.headers(),
                allow_redirects=False,
            )
            return Answer(response.status, response.headers, await _body(response))
        except aiohttp.ClientConnectorError as error:
            # Certificates and other faults of TLS are the same the next time.
            again = not isinstance(error, aiohttp.ClientConnectorSSLError | aiohttp.ClientConnectorCertificateError)
            failure: Exception = Unconnected(f"{type(error).__name__}: {error}", again=again)
        except aiohttp.ConnectionTimeoutError as error:
            failure = Unconnected(f"{type(error).__name__}: {error}")
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            failure = Broken(f"{type(error).__name__}: {error}", early=response is None)
        except aiohttp.ClientError as error:
            failure = NotHttp(f"the answer is not HTTP: {type(error).__name__}")
        finally:
            if response is not None:
                response.close()  # nothing, unless it came before the request was sent, or was not read to its end
        raise failure

    def _target(self, path: str) -> URL:
        """Parsed once for each path that comes again; those with a filter rarely do."""
        found = self._targets.get(path)
        if found is None:
            found = URL(self._base + path, encoded=True)
            if len(self._targets) >= 64:
                self._targets.clear()
            if len(path) < 256:
                self._targets[path] = found
        return found


def _given(content: bytes | None) -> bytes | io.BytesIO | None:
    """A body as aiohttp wants it: it warns of bytes beyond a megabyte, which it would send in one piece."""
    return content if content is None or len(content) <= _ONE_PIECE else io.BytesIO(content)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    length = response.content_length
    if length is not None and length <= MAX_ANSWER_BYTES:
        return await response.read()
    parts: list[bytes] = []
    size = length or 0
    while size <= MAX_ANSWER_BYTES:
        part = await response.content.readany()
        if not part:
            return b"".join(parts)
        parts.append(part)
        size += len(part)
    raise NotHttp(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
