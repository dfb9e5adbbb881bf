"""An HTTP server that says what a test tells it to, byte for byte; and one search of it by either client."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import vectorindex_client as vic

GOOD = json.dumps({"revision": "r", "tookMs": 1, "results": [{"ids": [1], "scores": [1.0]}]}).encode()
BUSY = b'{"type": "urn:vectorindex:problem:Overload", "detail": "1024 vectors wait", "status": 503}'


def answer(status: int, body: bytes, *headers: str, kind: str = "application/problem+json") -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


OK = answer(200, GOOD, kind="application/json")


Step = bytes | float | Callable[[socket.socket], None]


class Script:
    """Each request gets the next answer, whichever connection it comes on. b'': the connection ends without a byte; a
    float: seconds of silence, then the end; a function: what it does, then the end."""

    def __init__(self, answers: list[Step]) -> None:
        self.answers = answers
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.closing = threading.Event()
        """Set when the test is over."""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._run)]
        self._threads[0].start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(60)
        with connection, suppress(OSError):
            while (following := self._following(connection)) is not None:
                if isinstance(following, float):
                    self.closing.wait(following)
                    return
                if not following:
                    return
                if not isinstance(following, bytes):
                    following(connection)
                    return
                connection.sendall(following)

    def _following(self, connection: socket.socket) -> Step | None:
        """Reads a request; what to do about it, None when none came."""
        buffer = b""
        while b"\r\n\r\n" not in buffer:
            data = connection.recv(65536)
            if not data:
                return None
            buffer += data
        head, _, buffer = buffer.partition(b"\r\n\r\n")
        size = next((int(x[15:]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")), 0)
        while len(buffer) < size:
            data = connection.recv(65536)
            if not data:
                return None
            buffer += data
        self.bodies.append(buffer)
        self.heads.append(head.decode())
        return self.answers.pop(0)

    def close(self) -> None:
        self.closing.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(60)


@contextmanager
def scripted(*answers: Step) -> Iterator[Script]:
    script = Script(list(answers))
    try:
        yield script
    finally:
        script.close()


def ask(script: Script, query: Sequence[float] = (1.0,), **options: Any) -> vic.Result:
    """One search by a Client with these options."""
    with vic.Client(script.url, **options) as client:
        return client.search(query, 1)


def aask(script: Script, query: Sequence[float] = (1.0,), **options: Any) -> vic.Result:
    """One search by an AsyncClient with these options."""

    async def main() -> vic.Result:
        async with vic.AsyncClient(script.url, **options) as client:
            return await client.search(query, 1)

    return asyncio.run(main())
