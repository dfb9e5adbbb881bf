"""The server of the dashboard: GET on loopback, for who has the token.

Whatever else runs on this machine, and each page that is open in the same browser, can send requests here. So each
request must have the token in its path, and the Host by which we are reached: a name that somebody points to 127.0.0.1
(DNS rebinding) is refused. No answer may be read, framed or run by another origin. Nothing is logged.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from socketserver import TCPServer
from typing import Any

from vectorindex_plugin.dashboard.looks import Looks
from vectorindex_plugin.exits import EndedError, Exit

LOOPBACK = "127.0.0.1"
TOKEN_BYTES = 24
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of each answer. No header of CORS: what another origin asks for it cannot read."""
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_JSON = "application/json; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"
_INDEX = re.compile(r"api/index/([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)/([a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?)")
_STATUSES = {Exit.NOT_FOUND: 404}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    type_: str
    body: bytes


def page() -> dict[str, Answer]:
    """What the page is made of, by its path below the token. Read once: no request ever names a file."""
    folder = files("vectorindex_plugin.dashboard") / "page"
    found = {
        one.name: Answer(200, _TYPES[kind], one.read_bytes())
        for one in folder.iterdir()
        if (kind := one.name.rpartition(".")[2]) in _TYPES
    }
    return {**found, "": found["index.html"]}


@dataclass(frozen=True, slots=True)
class Site:
    """What is answered to a path, for who may ask."""

    looks: Looks
    token: str
    page: dict[str, Answer]

    def answer(self, path: str) -> Answer:
        """`path`: as it was asked for, with its first slash and without a query."""
        given, slash, rest = path.removeprefix("/").partition("/")
        if not hmac.compare_digest(given.encode(), self.token.encode()) or not slash:
            return _text(404, "nothing is here: open the address that was printed, with its token")
        if rest in self.page:
            return self.page[rest]
        if rest == "api/indexes":
            return _said(self.looks.board)
        found = _INDEX.fullmatch(rest)
        if found is None:
            return _text(404, "nothing is here")
        namespace, name = found.groups()
        return _said(lambda: self.looks.index(namespace, name))


def _said(ask: Callable[[], Any]) -> Answer:
    try:
        return Answer(200, _JSON, json.dumps(ask(), ensure_ascii=False, separators=(",", ":")).encode())
    except EndedError as error:
        return Answer(_STATUSES.get(error.exit, 502), _JSON, json.dumps({"error": str(error)}).encode())


def _text(status: int, words: str) -> Answer:
    return Answer(status, _TEXT, f"{words}\n".encode())


class _Handler(BaseHTTPRequestHandler):
    """One request a connection."""

    server: Server
    timeout = 10.0
    """Seconds in which somebody who connected must have asked."""

    def do_GET(self) -> None:
        if self.headers.get_all("Host", []) != [self.server.host]:
            return self._send(_text(421, "this is not the address that was printed"))
        return self._send(self.server.site.answer(self.path.partition("?")[0]))

    def parse_request(self) -> bool:
        """As the class above; what is no GET ends here, whatever its name."""
        if not super().parse_request():
            return False
        if self.command != "GET":
            self._send(_text(405, "only GET"))
        return self.command == "GET"

    def _send(self, answer: Answer) -> None:
        self.request_version = self.protocol_version  # also of what is no HTTP: an answer never goes without headers
        self.send_response(answer.status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if answer.status == 405:
            self.send_header("Allow", "GET")
        self.send_header("Content-Type", answer.type_)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """What was no request of HTTP, or too long for one: without a word of it in the answer."""
        self._send(_text(code, "this is not understood"))

    def version_string(self) -> str:
        return "vectorindex"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: paths have the token in them."""


class Server(ThreadingHTTPServer):
    """Answers until it is shut down. `url`: with the token; whoever has it sees what this kubeconfig may see."""

    daemon_threads = True

    def __init__(self, looks: Looks, port: int = 0) -> None:
        """Raises OSError where the port is taken."""
        self.site = Site(looks, secrets.token_urlsafe(TOKEN_BYTES), page())
        super().__init__((LOOPBACK, port), _Handler)
        self.host = f"{LOOPBACK}:{self.server_port}"
        self.url = f"http://{self.host}/{self.site.token}/"

    def server_bind(self) -> None:
        """As the class above, without its question to DNS for a name of this machine."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that went away is no error of ours; what is, the page shows as no answer."""
