"""A small HTTP server whose every request a test answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Exchange(BaseHTTPRequestHandler):
    """One request, and the way to answer it."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece: two small ones wait for each other

    def body(self) -> Any:
        """What was sent, as JSON; None: nothing."""
        size = int(self.headers.get("Content-Length", 0))
        return json.loads(self.rfile.read(size)) if size else None

    def answer(self, status: int, body: Any, **headers: str) -> None:
        """`body`: text as it is, anything else as JSON. `headers`: with _ in the place of -."""
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.begin(status, len(data), **headers)
        self.wfile.write(data)

    def begin(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *args: object) -> None: ...


@contextmanager
def answering(answer: Callable[[Exchange], None]) -> Iterator[str]:
    """The URL of a server that does so."""

    class Handler(Exchange):
        def do(self) -> None:
            answer(self)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do  # noqa: N815

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
