"""Connections of the waiting client: answers are read by http.client; around it are a pool, and one deadline.

Safe for several threads. A connection belongs to one thread at a time; the lock guards who has which, and is never held
while anything is waited for. After a fork the child begins with no connection: it must not read its parent's answers.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import os
import socket
import ssl
import threading
import time
from concurrent.futures import Future
from typing import Any

from .address import Address
from .answers import MAX_ANSWER_BYTES, Answer
from .attempts import CONNECT_SECONDS, Attempts, Broken, Deadline, NotHttp, Unconnected, give_up_unheard
from .places import Places

KEEP_ALIVE_SECONDS = 60.0
"""Idle connections are kept as long; searchers close theirs after 120 s, so a client rarely meets a closed one."""


class Connections:
    """All connections of one client."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, connections: int, waiting: int) -> None:
        self._address = address
        self._tls = tls
        self._limits = (connections, waiting)
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._names = Names(self._address)
        self._lock = threading.Lock()
        self._places: Places[_Waiter] = Places(*self._limits)
        self._idle: list[_Connection] = []
        """The one used last at the end."""

    def enter(self) -> None:
        """A call begins. Raises Overloaded when too many wait, RuntimeError after close."""
        if self._process != os.getpid():
            for connection in self._idle:
                connection.close()  # the child's copy only: nothing is sent
            self._begin()
        if self._closed:
            raise RuntimeError("this client is closed: make another one")
        with self._lock:
            self._places.enter()

    def leave(self) -> None:
        """The call has ended."""
        with self._lock:
            self._places.leave()

    def exchange(self, attempts: Attempts) -> Answer:
        """One attempt. Raises DeadlineExceeded, Unconnected, Broken or NotHttp."""
        deadline = attempts.deadline
        self._take(deadline)
        try:
            connection = self._idle_one()
            if connection is None:
                connection = _Connection(self._address, self._tls, self._names)
            try:
                answer = connection.exchange(attempts)
            except BaseException:
                connection.close()
                raise
            self._put(connection)
            return answer
        finally:
            self._give()

    def close(self) -> None:
        """Close what is idle; what is under way ends, and then its connection."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # ------------------------------------------------------------ places

    def _take(self, deadline: Deadline) -> None:
        with self._lock:
            if self._places.take():
                return
            waiter = _Waiter()
            self._places.wait(waiter, deadline.half)
        deadline.waiting_for = "a free connection"
        woken = False
        try:
            woken = waiter.wait(deadline.remaining)
        finally:
            if not woken:
                with self._lock:
                    mine = not self._places.forget(waiter)
                if mine:
                    self._give()
        if not woken:
            raise deadline.exceeded()

    def _give(self) -> None:
        with self._lock:
            waiter = self._places.give(time.monotonic())
        if waiter is not None:
            waiter.wake()

    # ------------------------------------------------------------ idle connections

    def _idle_one(self) -> _Connection | None:
        """A connection that can be used, so far as anyone can know."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.usable():
                return connection
            connection.close()

    def _put(self, connection: _Connection) -> None:
        old = None
        with self._lock:
            if not self._closed and connection.keeps:
                self._idle.append(connection)
                connection.idle_since = time.monotonic()
                if self._idle[0].expired():
                    old = self._idle.pop(0)  # one in each turn: there are never many
            else:
                old = connection
        if old is not None:
            old.close()


class _Waiter:
    """One thread that waits for a place."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, seconds: float) -> bool:
        return self._lock.acquire(timeout=seconds)

    def wake(self) -> None:
        self._lock.release()


# ---------------------------------------------------------------- one connection


class _Connection:
    """One socket, and one deadline for everything: names, connecting, TLS, sending, and each read.

    Requests are written here: one form, a few lines, in one packet with the body. To read any answer that a server or a
    proxy may give is http.client's.
    """

    def __init__(self, address: Address, tls: ssl.SSLContext | None, names: Names) -> None:
        self._address = address
        self._tls = tls
        self._names = names
        self._deadline = Deadline(0)
        self._socket: socket.socket | None = None
        self.keeps = False
        """Whether it can be used for another request."""
        self.idle_since = 0.0

    def close(self) -> None:
        """At once, whatever is under way."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self.keeps = False

    def expired(self) -> bool:
        """Whether it was idle for so long that its other end may close it any moment."""
        return time.monotonic() - self.idle_since > KEEP_ALIVE_SECONDS

    def usable(self) -> bool:
        """Whether it is still open and silent: what can be read between two requests is its end, or wrong."""
        if self._socket is None or self.expired():
            return False
        self._socket.settimeout(0)
        try:
            socket.socket.recv(self._socket, 1, socket.MSG_PEEK)  # beneath TLS: nothing is taken away
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def exchange(self, attempts: Attempts) -> Answer:
        """Send the request and read its answer. Raises DeadlineExceeded, Unconnected, Broken or NotHttp."""
        self._deadline, self.keeps = attempts.deadline, False
        response = None
        try:
            if self._socket is None:
                self._deadline.waiting_for = "a connection"
                self._socket = self._connect()
            self._deadline.waiting_for = "an answer"
            # A connection that broke while sending may hold a refusal to be read: of the token, or the size.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._send(self._socket, self._head(attempts) + (attempts.request.content or b""))
            response = self._response(self._socket, attempts.request.method)
            body = _body(response)
            self.keeps = not response.will_close
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)
        except (http.client.IncompleteRead, OSError) as error:
            if isinstance(error, TimeoutError) and error.errno != errno.ETIMEDOUT:
                raise self._deadline.exceeded() from None
            raise Broken(f"{type(error).__name__}: {error}", early=response is None) from error
        except http.client.HTTPException as error:
            raise NotHttp(f"the answer is not HTTP: {type(error).__name__}: {error}") from error
        finally:
            if response is not None:
                response.close()

    def _head(self, attempts: Attempts) -> bytes:
        """Every part was checked where it came from: no space, no line's end."""
        request = attempts.request
        lines = [f"{request.method} {self._address.prefix}{request.path} HTTP/1.1", f"Host: {self._address.authority}"]
        lines += [f"{name}: {value}" for name, value in attempts.headers().items()]
        if request.content is not None:
            lines.append(f"Content-Length: {len(request.content)}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    def _send(self, to: socket.socket, data: bytes) -> None:
        left = memoryview(data)
        while left:
            to.settimeout(self._deadline.remaining)
            left = left[to.send(left) :]

    def _response(self, source: socket.socket, method: str) -> http.client.HTTPResponse:
        """The head of the answer; its body is still to be read."""
        response = http.client.HTTPResponse(source, method=method)
        response.fp = io.BufferedReader(_Reads(response.fp.detach(), source, self._deadline), 1 << 14)
        try:
            response.begin()
        except BaseException:
            response.close()
            raise
        return response

    # ------------------------------------------------------------ connecting

    def _connect(self) -> socket.socket:
        """Every address of the host in turn, each with its share of the time that is left."""
        found = self._names.find(self._deadline)
        failure: OSError = OSError("the name has no address")
        for number, (family, kind, protocol, _, where) in enumerate(found):
            try:
                return self._open(socket.socket(family, kind, protocol), where, len(found) - number)
            except OSError as error:
                failure = error
        _ = self._deadline.remaining  # over: that is what is told
        final = isinstance(failure, ssl.SSLError) and not isinstance(failure, ssl.SSLEOFError)
        raise Unconnected(f"{type(failure).__name__}: {failure}", again=not final) from failure

    def _open(self, made: socket.socket, where: Any, shares: int) -> socket.socket:
        try:
            made.settimeout(min(self._deadline.remaining / shares, CONNECT_SECONDS))
            made.connect(where)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            give_up_unheard(made)
            if self._tls is None:
                return made
            made.settimeout(self._deadline.remaining / shares)
            return self._tls.wrap_socket(made, server_hostname=self._address.host)
        except BaseException:
            made.close()
            raise


class _Reads(io.RawIOBase):
    """A socket's file whose every read has what is left of one deadline: a server that drips bytes gains no time."""

    def __init__(self, raw: Any, sock: socket.socket, deadline: Deadline) -> None:
        self._raw, self._sock, self._deadline = raw, sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._deadline.remaining)
        found: int | None = self._raw.readinto(buffer)
        return found

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def _body(response: http.client.HTTPResponse) -> bytes:
    if response.length is not None and response.length <= MAX_ANSWER_BYTES:
        return response.read()
    body = b"" if response.length else response.read(MAX_ANSWER_BYTES + 1)
    if response.length or len(body) > MAX_ANSWER_BYTES:
        raise NotHttp(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
    return body


# ---------------------------------------------------------------- names


class Names:
    """Addresses of one host. Looked up in a thread, because nothing bounds how long a resolver takes; one at a time."""

    def __init__(self, address: Address) -> None:
        self._where = (address.host, address.port)
        self._lock = threading.Lock()
        self._pending: Future[list[Any]] | None = None

    def find(self, deadline: Deadline) -> list[Any]:
        """As socket.getaddrinfo. Raises DeadlineExceeded, or Unconnected for a name that is unknown."""
        with contextlib.suppress(OSError):
            return socket.getaddrinfo(*self._where, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        with self._lock:
            pending = self._pending
            if pending is None:
                pending = self._pending = Future()
                threading.Thread(target=self._look_up, args=(pending,), daemon=True).start()
        try:
            return pending.result(deadline.remaining)
        except TimeoutError:
            raise deadline.exceeded() from None
        except (OSError, UnicodeError) as error:
            raise Unconnected(f"{self._where[0]}: {error}") from error

    def _look_up(self, pending: Future[list[Any]]) -> None:
        try:
            found = socket.getaddrinfo(*self._where, type=socket.SOCK_STREAM)
        except BaseException as error:  # whoever waits must be told
            self._pending = None
            pending.set_exception(error)
        else:
            self._pending = None
            pending.set_result(found)
