"""From a connection's bytes to requests: HTTP/1.1 by httptools, or by a head that was parsed before.

Judges what arrives (form, size, encoding) and counts what is held of it. Must not know how or when requests are
answered: what becomes of them is the subclass's.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import httptools

from .head_cache import Head
from .messages import Problem, Request, body_too_large, head_too_large, overload

if TYPE_CHECKING:
    from .listener import Listener

PIPELINE_LIMIT = 16
"""Complete requests that may wait behind the one being answered before reading pauses; also how many of a connection
are answered before other connections get a turn."""


class RequestReader(ABC):
    """The reading side of one connection. All methods run on the event loop."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._parser = httptools.HttpRequestParser(self)
        self._discarding_input = False
        """No further request is taken from this connection; what still arrives is dropped."""
        self._held_bytes = 0
        """Of bodies that arrived and whose requests are not answered."""
        self._unparsed_bytes = 0
        """Bytes received since the parser last made sense of any."""
        self._known: Head | None = None
        """The head of a request whose body is still coming, when that head was known."""
        self._new_head = b""
        """A head that was not known, as the parser got it, and since then `_fed_bytes` bytes."""
        self._fed_bytes = 0
        self._forget_message()

    def _forget_message(self) -> None:
        """Make ready for the next request."""
        self._message_since: float | None = None
        self._in_head = False
        self._head_bytes = 0
        """Bytes of target, headers and trailers that were parsed."""
        self._target = self._method = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._continue_owed = False

    # ------------------------------------------------------------ what the answering side does

    @abstractmethod
    def _take(self, request: Request) -> None:
        """A request is complete, and is to be answered after those before it."""

    @abstractmethod
    def _pay_continue(self) -> None:
        """Ask for the body if `_continue_owed`, unless earlier answers are still due: 100 must come in order too."""

    # ------------------------------------------------------------ bytes

    def read(self, data: bytes) -> None:
        """Parse; a request that cannot be parsed is answered after those before it, then the connection closes."""
        if self._discarding_input:
            return
        if self._message_since is None or self._known is not None:
            data = self._take_known(data)
            if not data or self._discarding_input:
                return
        self._unparsed_bytes += len(data)
        self._fed_bytes += len(data)
        try:
            self._feed(data)
            self._learn()
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, Problem):
                self._refuse(cause)
            elif cause is None:
                self._refuse(Problem(400, "MalformedRequest", f"not valid HTTP/1.1: {error}", value=data[:60]))
            else:
                raise
        # A header, trailer or chunk line that never ends reaches no callback, but the parser keeps its bytes.
        if self._unparsed_bytes > self._listener.limits.header_bytes:
            self._refuse(head_too_large(self._listener.limits.header_bytes))

    def _refuse(self, problem: Problem) -> None:
        """Answer `problem` in its turn and take nothing more from this connection."""
        if self._discarding_input:
            return
        self._discarding_input = True
        request = Request(
            method=b"",
            target=self._target,
            headers={},
            body=b"",
            keep_alive=False,
            completed=time.monotonic(),
            problem=problem,
        )
        self._message_since = None
        self._in_head = False
        self._take(request)

    # ------------------------------------------------------------ parser

    def on_message_begin(self) -> None:
        """First byte of a request."""
        self._forget_message()
        self._message_since = time.monotonic()
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        self._count_head(len(url))
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or a trailer, which only counts against the limit: it may not change a header."""
        self._count_head(len(name) + len(value))
        if self._in_head:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Refuse what is known to be unwanted before its body is sent."""
        self._in_head = False
        if self._parser.should_upgrade():
            return
        headers = self._headers
        if b"host" not in headers and self._parser.get_http_version() == "1.1":
            raise Problem(400, "MalformedRequest", "a HTTP/1.1 request needs a Host header", field="Host")
        if self._listener.guard is not None:
            self._listener.guard(headers)
        length = headers.get(b"content-length", b"0")
        if int(length) > self._listener.limits.body_bytes:
            raise body_too_large(int(length), self._listener.limits.body_bytes)
        if b"content-encoding" in headers and headers[b"content-encoding"].lower() != b"identity":
            raise Problem(
                415,
                "UnsupportedEncoding",
                "the body's content encoding is not understood",
                field="Content-Encoding",
                value=headers[b"content-encoding"].decode("latin-1"),
                remedy="send the body uncompressed",
            )
        if b"expect" in headers:
            if headers[b"expect"].lower() != b"100-continue":
                raise Problem(417, "UnknownExpectation", "only 100-continue is understood", field="Expect")
            self._continue_owed = True
            self._pay_continue()

    def on_body(self, body: bytes) -> None:
        """A piece of the body (chunked or not)."""
        if self._discarding_input:
            return
        self._continue_owed = False
        self._unparsed_bytes = 0
        size = len(body)
        self._body_bytes += size
        if self._body_bytes > self._listener.limits.body_bytes:
            raise body_too_large(self._body_bytes, self._listener.limits.body_bytes)
        if not self._listener.hold(size):
            raise overload("too many request bodies are being read")
        self._held_bytes += size
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Last byte of a request: its turn comes when those before it are answered."""
        if self._discarding_input or (self._parser.should_upgrade() and self._parser.get_method() != b"CONNECT"):
            return
        keep_alive = self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1"
        request = Request(
            method=self._parser.get_method(),
            target=self._target,
            headers=self._headers,
            body=self._body[0] if len(self._body) == 1 else b"".join(self._body),
            keep_alive=keep_alive,
            completed=time.monotonic(),
        )
        self._method = request.method
        self._message_since = None
        self._unparsed_bytes = 0
        self._continue_owed = False
        if not keep_alive or request.method == b"CONNECT":
            request.keep_alive = False
            self._discarding_input = True
        self._take(request)

    def _count_head(self, size: int) -> None:
        self._unparsed_bytes = 0
        self._head_bytes += size
        if self._head_bytes > self._listener.limits.header_bytes:
            raise head_too_large(self._listener.limits.header_bytes)

    # ------------------------------------------------------------ requests with a known head

    def _take_known(self, data: bytes) -> bytes:
        """Take the requests at the start of `data` whose heads are known; returns what is left for the parser."""
        while data and not self._discarding_input:
            start, head = 0, self._known
            if head is None:
                head, start = self._listener.heads.find(data)
                if head is None:
                    self._new_head, self._fed_bytes = data[:start], 0
                    return data
                if self._listener.guard is not None:
                    try:
                        self._listener.guard(head.headers)
                    except Problem as problem:
                        self._refuse(problem)
                        return b""
                if self._held_bytes == 0 and len(data) == start + head.length and self._listener.hold(head.length):
                    # By far the most: one request, whole.
                    self._held_bytes = head.length
                    now = time.monotonic()
                    self._take(Request(head.method, head.target, head.headers, data[start:], True, now, head=head))
                    return b""
                self._forget_message()
                self._known, self._target, self._message_since = head, head.target, time.monotonic()
            piece = data[start : start + head.length - self._body_bytes]
            data = data[start + len(piece) :]
            if not self._listener.hold(len(piece)):
                self._refuse(overload("too many request bodies are being read"))
                return b""
            self._held_bytes += len(piece)
            self._body_bytes += len(piece)
            self._body.append(piece)
            if self._body_bytes == head.length:
                self._known, self._message_since = None, None
                body = b"".join(self._body)
                now = time.monotonic()
                self._take(Request(head.method, head.target, head.headers, body, True, now, head=head))
        return data

    def _learn(self) -> None:
        """Remember the head of the request just parsed, if it was one alone, from its first byte to its last."""
        raw = self._new_head
        if raw and self._message_since is None and not self._discarding_input:
            self._new_head = b""
            if self._fed_bytes == len(raw) + self._body_bytes and self._method:
                self._listener.heads.learn(raw, self._method, self._target, self._headers, self._body_bytes)

    def _feed(self, data: bytes) -> None:
        """Give `data` to the parser; raises HttpParserError."""
        for _ in range(PIPELINE_LIMIT):
            try:
                return self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self._discarding_input:
                    return None
                data = self._without_upgrade() + data[upgrade.args[0] :]
        raise httptools.HttpParserError("too many offers of an upgrade at once")

    def _without_upgrade(self) -> bytes:
        """The head of a request that offers an upgrade, without the offer; Java's client makes one (h2c) at first.

        The parser takes what follows such a head for the other protocol and never delivers the body, so the head goes
        to a new parser.
        """
        headers = self._headers
        connection = headers.pop(b"connection", b"").lower()
        headers.pop(b"upgrade", None)
        method = self._parser.get_method()
        lines = [b"%b %b HTTP/1.1" % (method, self._target), *(b"%b: %b" % header for header in headers.items())]
        if b"close" in (token.strip() for token in connection.split(b",")):
            lines.append(b"connection: close")
        self._parser = httptools.HttpRequestParser(self)
        return b"\r\n".join(lines) + b"\r\n\r\n"
