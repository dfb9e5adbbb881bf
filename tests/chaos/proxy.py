"""A reverse proxy before the API server, on a loopback port, that lets rules (rules.py) befall requests.

It speaks plain HTTP to whoever asks, and TLS to the API server. One event loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from chaos.rules import Asked, Crash, Cut, Effect, Gone, Lost, Refused, Rules, Slow, Stale, read_request

from vectorindex_operator.manifests import labels

LONGEST_BODY = 64 << 20
FORBIDDEN = 403
CUT_SECONDS = 3.0
CLOSED_SECONDS = 0.25
"""As aiohttp advises: until the connections with TLS of a session that was closed are."""
_OF_A_CONNECTION = frozenset(
    {"connection", "host", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "accept-encoding"}
)
_NOT_OURS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""What the client of the proxy did not say, the proxy does not say for it."""
_GONE = {
    "type": "ERROR",
    "object": {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "The resourceVersion for the provided watch is too old.",
        "reason": "Expired",
        "code": 410,
    },
}


@dataclass(frozen=True, slots=True)
class Seen:
    """A request and what became of it. `at`: Unix seconds when it came. `status`: of the API server, 0 where it was not
    asked. `revision`: to which a Service points by its answer."""

    at: float
    asked: Asked
    effect: Effect | None
    status: int
    revision: str = ""

    @property
    def is_done(self) -> bool:
        return 200 <= self.status < 300


@dataclass(slots=True)
class FaultProxy:
    """`upstream`: https://host:port; `tls`: whom to trust there. `crash`: kills whoever asks."""

    upstream: str
    tls: ssl.SSLContext
    crash: Callable[[], None] = lambda: None
    rules: Rules = field(default_factory=Rules)
    seen: list[Seen] = field(default_factory=list)
    """In the order of the answers; a watch when it begins."""
    gone: int = 0
    """Watches that the API server itself told 410."""
    port: int = 0
    _session: aiohttp.ClientSession = field(init=False)
    _first: dict[tuple[int, str], tuple[int, str, bytes]] = field(default_factory=dict)
    """What reads were answered, by the version of the rules."""
    _watching: set[asyncio.Task[object]] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def writes(self, since: float = 0.0) -> list[Seen]:
        """Those that came after `since` (Unix seconds), without the Lease's."""
        return [one for one in list(self.seen) if one.at >= since and one.asked.is_write]

    def forbidden(self) -> list[str]:
        """Verbs and resources that the API server refused for want of rights, and has not allowed since: one that has
        just begun refuses everything until it has read the roles."""
        last = {f"{one.asked.verb} {one.asked.resource}": one.status for one in list(self.seen) if one.status}
        return sorted(asked for asked, status in last.items() if status == FORBIDDEN)

    @contextmanager
    def cutting_watches(self, every: float = CUT_SECONDS) -> Iterator[None]:
        """All that are under way end, again and again, as when API servers are restarted."""
        over = threading.Event()

        def cut() -> None:
            while not over.wait(every):
                self.cut_watches()

        thread = threading.Thread(target=cut, daemon=True)
        self.cut_watches()
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def cut_watches(self) -> None:
        """All that are under way end now."""
        self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in tuple(self._watching)])

    @contextmanager
    def running(self) -> Iterator[FaultProxy]:
        """Until the end of the block."""
        begun, end = threading.Event(), asyncio.Event()
        failed: list[BaseException] = []

        def run() -> None:
            try:
                asyncio.run(self._serve(begun, end))
            except BaseException as error:
                failed.append(error)
                begun.set()

        thread = threading.Thread(target=run, name="fault-proxy", daemon=True)
        thread.start()
        begun.wait()
        if failed:
            raise failed[0]
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(end.set)
            thread.join(10)

    async def _serve(self, begun: threading.Event, end: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        timeout = aiohttp.ClientTimeout(total=None, connect=10)
        connector = aiohttp.TCPConnector(ssl=self.tls, limit=0)
        app = web.Application(client_max_size=LONGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, skip_auto_headers=_NOT_OURS
        ) as self._session:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", self.port)
            await site.start()
            self.port = int(runner.addresses[0][1])
            begun.set()
            await end.wait()
            for task in tuple(self._watching):
                task.cancel()
            await runner.cleanup()
        await asyncio.sleep(CLOSED_SECONDS)

    # ------------------------------------------------------------ one request

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        asked = read_request(request.method, request.path, request.query, body)
        effect, at = self.rules.effect(asked), time.time()
        if asked.verb == "watch":
            return await self._watch(request, asked, effect)
        match effect:
            case Crash(carried_out=False):
                self.crash()
                return self._seen(Seen(at, asked, effect, 0), _hung_up(request))
            case Refused():
                return self._seen(Seen(at, asked, effect, 0), _refusal(effect))
            case Slow(seconds):
                await asyncio.sleep(seconds)
        if isinstance(effect, Stale):
            read = self.rules.version, request.path_qs
            known = self._first.get(read) or await self._forwarded(request, body)
            self._first[read] = known
        else:
            known = await self._forwarded(request, body)
        if isinstance(effect, Crash):
            self.crash()
        hangs_up = isinstance(effect, Crash | Lost)
        seen = Seen(at, asked, effect, known[0], _pointed(known[2]) if asked.is_write_of("services") else "")
        return self._seen(seen, _hung_up(request) if hangs_up else _made(*known))

    def _seen(self, one: Seen, answer: web.Response) -> web.Response:
        self.seen.append(one)
        return answer

    async def _forwarded(self, request: web.Request, body: bytes) -> tuple[int, str, bytes]:
        """Status, type and body of the API server's answer."""
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OF_A_CONNECTION}
        url = self.upstream + request.path_qs
        try:
            async with self._session.request(request.method, url, headers=headers, data=body or None) as answer:
                kind = answer.headers.get("Content-Type", "application/json")
                return answer.status, kind, await answer.read()
        except aiohttp.ClientError as error:
            return 502, "text/plain", str(error).encode()

    # ------------------------------------------------------------ watches

    async def _watch(self, request: web.Request, asked: Asked, effect: Effect | None) -> web.StreamResponse:
        if isinstance(effect, Refused):
            return _refusal(effect)
        if isinstance(effect, Gone):
            return web.Response(body=json.dumps(_GONE).encode() + b"\n", content_type="application/json")
        task = asyncio.current_task()
        assert task is not None
        self._watching.add(task)
        try:
            return await self._followed(request, asked, effect.events if isinstance(effect, Cut) else None)
        except (aiohttp.ClientError, ConnectionError, asyncio.CancelledError):
            return _hung_up(request)
        finally:
            self._watching.discard(task)

    async def _followed(self, request: web.Request, asked: Asked, events: int | None) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OF_A_CONNECTION}
        async with self._session.get(self.upstream + request.path_qs, headers=headers) as answer:
            self.seen.append(Seen(time.time(), asked, None, answer.status))
            told = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
            await told.prepare(request)
            count = 0
            async for line in _lines(answer.content):
                if count == events:
                    await told.write(line[: len(line) // 2])
                    return _hung_up(request)
                self.gone += _is_gone(line)
                await told.write(line)
                count += 1
            await told.write_eof()
            return told


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole events, however long."""
    rest = b""
    async for piece in content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


def _is_gone(line: bytes) -> bool:
    """Whether an event says that what the watch wants to go on from was compacted."""
    return line.startswith(b'{"type":"ERROR"') and json.loads(line)["object"].get("code") == 410


def _pointed(answer: bytes) -> str:
    """The revision that a Service selects, by the API server's answer."""
    found = json.loads(answer).get("spec") or {}
    return str((found.get("selector") or {}).get(labels.REVISION, ""))


def _made(status: int, kind: str, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, headers={"Content-Type": kind})


def _refusal(effect: Refused) -> web.Response:
    said = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": effect.status, "reason": effect.reason}
    headers = {} if effect.retry_after is None else {"Retry-After": str(effect.retry_after)}
    return web.json_response({**said, "message": "said by a fault"}, status=effect.status, headers=headers)


def _hung_up(request: web.Request) -> web.Response:
    """The connection ends here and now."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
