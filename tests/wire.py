"""A searcher's port on a real socket, an application that echoes and a client that reads an answer at a time; and a
port without a socket."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import uvloop

from vectorindex_searcher.serve.http.connection import Connection
from vectorindex_searcher.serve.http.limits import Limits
from vectorindex_searcher.serve.http.listener import Guard, Listener
from vectorindex_searcher.serve.http.messages import Problem, Request, Response

HEAD = b"Host: test\r\n"


@dataclass
class Echo:
    """Answers with the body, or the target when there is none. /later waits for the gate, /boom fails."""

    gate: threading.Event = field(default_factory=threading.Event)
    seen: list[tuple[bytes, int]] = field(default_factory=list)

    def handle(self, request: Request) -> Response | asyncio.Future[Response]:
        if request.path == b"/boom":
            raise RuntimeError("boom")
        if request.path == b"/problem":
            raise Problem(404, "NotFound", "nothing here", headers=((b"X-Extra", b"yes"),))
        response = Response(200, request.body or request.target)
        if request.path == b"/big":
            return Response(200, b"x" * (8 << 20))
        if request.path in (b"/later", b"/later-boom"):
            return asyncio.get_running_loop().create_task(self._later(request, response))
        return response

    async def _later(self, request: Request, response: Response) -> Response:
        while not self.gate.is_set():
            await asyncio.sleep(0.002)
        if request.path == b"/later-boom":
            raise RuntimeError("boom")
        return response

    def answered(self, request: Request, response: Response, seconds: float) -> None:
        assert seconds >= 0
        self.seen.append((request.target, response.status))


@dataclass
class Serving:
    app: Echo
    listener: Listener
    loop: asyncio.AbstractEventLoop
    port: int

    def call(self, function: Callable[[], object]) -> object:
        """Run `function` on the server's loop."""

        async def run() -> object:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(60)

    def seen(self) -> list[tuple[bytes, int]]:
        """What was answered so far. An answer can be read before the turn of the loop that sent it has noted it."""
        return asyncio.run_coroutine_threadsafe(self._seen(), self.loop).result(60)

    async def _seen(self) -> list[tuple[bytes, int]]:
        return list(self.app.seen)

    def connect(self) -> Client:
        return Client(socket.create_connection(("127.0.0.1", self.port), timeout=60))


class Client:
    """A socket that can read one HTTP answer at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""

    def __del__(self) -> None:
        self.sock.close()

    def send(self, data: bytes) -> Client:
        self.sock.sendall(data)
        return self

    def _fill(self) -> bool:
        data = self.sock.recv(1 << 16)
        self.buffer += data
        return bool(data)

    def answer(self, head_only: bool = False) -> tuple[int, dict[str, str], bytes]:
        while b"\r\n\r\n" not in self.buffer:
            assert self._fill(), f"closed in the head of an answer: {self.buffer!r}"
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
        length = 0 if head_only else int(headers.get("content-length", "0"))
        while len(self.buffer) < length:
            assert self._fill(), "closed in the body of an answer"
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return int(lines[0].split()[1]), headers, body

    def closed(self) -> bool:
        """The server ended the connection in order (not by a reset), with nothing more said."""
        return not self._fill() and not self.buffer


@contextlib.contextmanager
def serving(
    limits: Limits = Limits(),  # noqa: B008
    closing: Callable[[], bool] = lambda: False,
    guard: Guard | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Serving]:
    started: list[Serving] = []
    ready, stop = threading.Event(), threading.Event()

    async def main() -> None:
        app = Echo()
        listener = Listener(app, "products-abc", limits, closing, guard)
        port = await listener.open(0, "127.0.0.1", tls)
        started.append(Serving(app, listener, asyncio.get_running_loop(), port))
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.005)
        await listener.close()

    thread = threading.Thread(target=uvloop.run, args=(main(),))
    thread.start()
    assert ready.wait(60)
    try:
        yield started[0]
    finally:
        started[0].app.gate.set()
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def post(body: bytes, target: bytes = b"/x", extra: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\n%bContent-Length: %d\r\n%b\r\n%b" % (target, HEAD, len(body), extra, body)


def get(target: bytes = b"/x", extra: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\n%b%b\r\n" % (target, HEAD, extra)


# ---------------------------------------------------------------- without a socket


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.ended = False

    def write(self, data: bytes) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class Recorder:
    """Keeps the requests, and answers with their bodies."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.statuses: list[int] = []

    def handle(self, request: Request) -> Response:
        self.requests.append(request)
        return Response(200, request.body)

    def answered(self, request: Request, response: Response, seconds: float) -> None:
        self.statuses.append(response.status)


class Port:
    """A listener without a socket."""

    def __init__(self, limits: Limits = Limits(), guard: Any = None) -> None:  # noqa: B008
        self.app = Recorder()
        # Without a loop there is no later turn.
        self.listener = Listener(self.app, "r1", replace(limits, turn_seconds=math.inf), guard=guard)

    def connect(self) -> tuple[Connection, Transport]:
        connection, transport = Connection(self.listener), Transport()
        connection.connection_made(transport)  # type: ignore[arg-type]
        return connection, transport

    @property
    def known(self) -> int:
        return len(self.listener.heads)

    def bodies(self) -> list[bytes]:
        return [request.body for request in self.app.requests]


@contextlib.contextmanager
def running_loop() -> Iterator[None]:
    """Connections ask for the running loop; nothing runs on it."""
    made = uvloop.new_event_loop()
    asyncio._set_running_loop(made)
    try:
        yield
    finally:
        asyncio._set_running_loop(None)
        made.close()
