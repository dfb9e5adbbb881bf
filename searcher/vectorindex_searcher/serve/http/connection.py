"""HTTP/1.1 on asyncio: one object per connection, which answers the requests that request_parser.py makes of its bytes.

Our own and not a framework, because the framework would cost more than the search (figures in docs/searcher-api.md).
Knows nothing of searches. Requests of one connection are answered in order, one at a time; what the connection may hold
in memory is bounded; and a connection that ends always ends with an answer that said `Connection: close`, sent
completely: the write side is closed first and the rest of the client's bytes are read and dropped (closing a socket
with unread bytes would reset it and could destroy the answer on its way).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from .limits import UNCOUNTED_BYTES
from .messages import Problem, Request, Response
from .request_parser import PIPELINE_LIMIT, RequestReader

if TYPE_CHECKING:
    from .listener import Listener

_SLICE_BYTES = 64 << 10
_PROMPT_SECONDS = 1.0
_LARGE_BYTES = 16 << 10
"""From here on a search is worth a look at what its parsing takes of the turn."""


class Connection(RequestReader, asyncio.Protocol):
    """One client's connection. All methods run on the event loop."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._current: Request | None = None
        """The request being answered."""
        self._client_ended = False
        self._linger_until: float | None = None
        self._flush_until = 0.0
        """Until when a client may take the last answer."""
        self._stalled_since: float | None = None
        self._tls = False
        self._writable = True
        self._unsent: deque[memoryview] = deque()
        """Of the answer that is being sent, if it is a long one or under TLS."""
        self._unsent_bytes = 0
        self._ends_when_sent = False
        self._unread_bytes = 0
        """Of answers, when the client was found not to take them."""
        self._active = time.monotonic()
        """When it was opened, or had its last answer."""
        self._retire_at = self._active + listener.connection_age()
        self._answers = 0
        self._paused = False
        self._queued = False
        """Waits for a later turn of the event loop."""
        self._answered_now = 0
        """Requests answered in this turn of the event loop."""
        self.opening: asyncio.Task[None] | None = None
        self.refused: Problem | None = None
        """Said instead of any answer: there is no room for this connection."""

    # ------------------------------------------------------------ transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or say that there is no room."""
        # uvloop's transports do not inherit from asyncio's: nothing to assert.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(UNCOUNTED_BYTES)
        peer = self._transport.get_extra_info("peername")
        self.peer = str(peer[0]) if peer else ""
        local = self._transport.get_extra_info("sockname")
        self.local = str(local[0]) if local else ""
        self._tls = not self._transport.can_write_eof()
        if self._tls:  # as uvloop does it, it would take half a megabyte in advance
            cast(Any, self._transport).set_read_buffer_limits(UNCOUNTED_BYTES)
        if self.refused is not None:
            self._refuse(self.refused)

    def data_received(self, data: bytes) -> None:
        """See RequestReader.read."""
        if self._discarding_input:
            if self._current is not None:
                self._pause_reading()  # to drop what comes would be work without end
            return
        self._answered_now = 0
        self.read(data)
        if self._waiting or self._input:
            self._wait_for_turn()
            if not self._has_room:
                self._pause_reading()

    def eof_received(self) -> bool:
        """The client stopped sending. What it asked is still answered."""
        self._client_ended = True
        self._end_input()
        # Under TLS no side can stop sending and go on reading: the transport closes whatever is said here.
        halves = self._transport is not None and self._transport.can_write_eof()
        return halves and (self._current is not None or bool(self._waiting))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget everything; a search under way ends unseen."""
        self._transport = None
        self._discarding_input = True
        self._waiting.clear()
        self._input.clear()
        self._unsent.clear()
        self._forget_message()
        self._release(self._held_bytes)
        self._count_unread(0)
        self._listener.forget(self)

    def pause_writing(self) -> None:
        """The client reads slower than we answer: answer nothing more until it catches up."""
        self._writable = False
        if self._stalled_since is None:
            self._stalled_since = time.monotonic()
        if self._transport is not None:
            self._count_unread(self._transport.get_write_buffer_size() + self._unsent_bytes)

    def resume_writing(self) -> None:
        """The client caught up, perhaps."""
        self._writable = True
        self._write_on()
        if self._unsent:
            return
        self._stalled_since = None
        self._count_unread(0)
        if self._ends_when_sent:
            self._linger()
        else:
            self._advance()

    def _write_slices(self, *parts: bytes) -> None:
        """Send an answer as it is taken. Under TLS uvloop would encrypt all of it at once and not say that nobody reads
        it; a long one would hold the event loop."""
        self._unsent.extend(map(memoryview, parts))
        self._unsent_bytes = sum(map(len, self._unsent))
        self._write_on()

    def _write_on(self) -> None:
        while self._unsent and self._writable and self._transport is not None:
            piece = self._unsent.popleft()
            if len(piece) > _SLICE_BYTES:
                self._unsent.appendleft(piece[_SLICE_BYTES:])
                piece = piece[:_SLICE_BYTES]
            self._unsent_bytes -= len(piece)
            self._transport.write(piece)

    def _end_input(self) -> None:
        """Take no more requests than are complete already (of very many only the first)."""
        self._read_on()
        if not self._discarding_input:
            self._release(self._size)
            self._forget_message()
            self._stop_reading()

    def _count_unread(self, size: int) -> None:
        before, self._unread_bytes = self._unread_bytes, size
        self._listener.count_unread(self, size - before)

    def _pay_continue(self) -> None:
        if self._continue_owed and self._transport is not None and self._current is None and not self._waiting:
            self._continue_owed = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # ------------------------------------------------------------ answers

    def _take(self, request: Request) -> None:
        if self._waiting or not self._may_answer:
            self._waiting.append(request)
            self._advance()
            return
        self._answer(request)
        if not self._reading and (self._current is None or request.size > _LARGE_BYTES):
            self._listener.turns.spend(time.monotonic() - request.completed)

    @property
    def _may_answer(self) -> bool:
        """Whether the next request can be answered: not while one takes time, or the client must read first."""
        return (
            self._current is None
            and self._answered_now < PIPELINE_LIMIT
            and self._stalled_since is None
            and self._transport is not None
        )

    def _advance(self) -> None:
        """Answer waiting requests until one takes time, the client must read first, or others must have their turn."""
        turns = self._listener.turns
        while not turns.spent:
            while self._waiting and self._may_answer and not turns.spent:
                since = time.monotonic()
                self._answer(self._waiting.popleft())
                turns.spend(time.monotonic() - since)
            before = len(self._input)
            if self._has_room:
                self._read_on()
            if len(self._input) == before or not self._may_answer:
                break
        self._wait_for_turn()
        if self._has_room and not self._queued:
            self._resume_reading()
        if self._waiting and self._answered_now == PIPELINE_LIMIT:
            self._answered_now += 1
            self._loop.call_soon(self._next_turn)
        self._pay_continue()

    def _answer(self, request: Request) -> None:
        self._answered_now += 1
        self._current = request
        answer = self._listener.answer(request)
        if isinstance(answer, Response):
            self._finish(request, answer)
        else:
            answer.then(self._resolved)

    def _wait_for_turn(self) -> None:
        """Go on later if this turn is spent and there is something to do."""
        turns = self._listener.turns
        if turns.spent and not self._queued and self._transport is not None and (self._waiting or self._input):
            self._queued = True
            self._pause_reading()
            turns.wait(self)

    def go_on(self) -> None:
        """A turn later."""
        self._queued = False
        if self._transport is not None:
            self._next_turn()

    def _next_turn(self) -> None:
        self._answered_now = 0
        self._advance()

    def _resolved(self, outcome: Response | BaseException) -> None:
        request = self._current
        assert request is not None
        self._answered_now = 0
        self._finish(request, outcome if isinstance(outcome, Response) else self._listener.failed(request, outcome))
        if self._waiting or self._continue_owed or self._input or self._paused:
            self._advance()

    def _finish(self, request: Request, response: Response) -> None:
        """Write one answer, report it, and close the connection if it was the last."""
        self._current = None
        if self._held_bytes:  # else the connection is lost, and what it held was given back
            self._release(request.size)
        now = self._active = time.monotonic()
        self._answers += 1
        if not self._discarding_input and (now >= self._retire_at or self._listener.closing()):
            # Answer what has arrived completely, take nothing new; the last of the answers says close.
            self._end_input()
        close = self._discarding_input and not self._waiting
        if self._transport is not None and self._linger_until is None:
            if response.rest or len(response.body) > _SLICE_BYTES:
                self._write_slices(*self._encode_long(request, response, close))
            elif self._tls:
                self._write_slices(self._encode(request, response, close))
            else:
                self._transport.write(self._encode(request, response, close))
        self._listener.finished(request, response, now - request.completed)
        if close:
            self._linger()

    def _encode(self, request: Request, response: Response, close: bool) -> bytes:
        body = response.body
        head = self._listener.head(response.status, response.content_type)
        if request.method != b"HEAD" and not response.headers and not close:
            return b"%b%d\r\n\r\n%b" % (head, len(body), body)
        head = b"%b%d\r\n" % (head, len(body))
        for header in response.headers:
            head += b"%b: %b\r\n" % header
        if close:
            head += b"Connection: close\r\n"
        return head + b"\r\n" if request.method == b"HEAD" else b"%b\r\n%b" % (head, body)

    def _encode_long(self, request: Request, response: Response, close: bool) -> Sequence[bytes]:
        """In parts: nothing long is copied."""
        size = len(response.body) + sum(map(len, response.rest))
        head = b"%b%d\r\n" % (self._listener.head(response.status, response.content_type), size)
        for header in response.headers:
            head += b"%b: %b\r\n" % header
        head += b"Connection: close\r\n\r\n" if close else b"\r\n"
        return (head,) if request.method == b"HEAD" else (head, response.body, *response.rest)

    def _linger(self) -> None:
        """Close our side, then wait (not long) for the client to close its own."""
        if self._transport is None or self._linger_until is not None:
            return
        if self._unsent:
            self._ends_when_sent = True
            return
        if not self._discarding_input:
            self._end_input()
        limits = self._listener.limits
        self._linger_until = time.monotonic() + limits.linger_seconds
        self._flush_until = self._linger_until + limits.write_seconds
        if self._client_ended or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self._resume_reading()

    def _pause_reading(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            if self._message_since is not None:
                self._message_since = time.monotonic()  # that it is late is not the client's fault
            self._transport.resume_reading()

    # ------------------------------------------------------------ time

    @property
    def idle(self) -> bool:
        """Nothing asked, nothing half sent, nothing owed."""
        return self._current is None and not self._waiting and self._message_since is None

    def close_if_idle(self) -> None:
        """Close a connection on which nothing is under way."""
        if self.idle and self._linger_until is None:
            self._linger()

    def abort(self) -> None:
        """Drop the connection now, even before its handshake is done."""
        if self._transport is not None:
            self._transport.abort()
        elif self.opening is not None:
            self.opening.cancel()

    def evict(self) -> None:
        """Drop the connection, and what is held for it, in favour of others."""
        self.abort()
        self.connection_lost(None)

    def slow_upload(self, now: float) -> int:
        """Bytes held of a request that has been coming for more than a second; 0 if there is none."""
        since = self._message_since
        return len(self._input) + self._size if since is not None and now - since > _PROMPT_SECONDS else 0

    def refuse_upload(self) -> None:
        """Forget the request that is coming, in favour of others."""
        self._refuse(Problem(408, "RequestTimeout", "others need the room of this request, which comes slowly"))

    @property
    def usefulness(self) -> tuple[int, float] | None:
        """Which connection goes first when there are too many: the least. None: it is being answered.

        Those that ended, then those that never got an answer, then the others, always the longest without one first:
        who sends or reads slowly gains nothing by it.
        """
        if self._current is not None or self.refused is not None:
            return None
        if self._linger_until is not None:
            return 0, self._linger_until
        return 2 if self._answers else 1, self._active

    def check_clock(self, now: float) -> None:
        """End what takes too long; the listener calls this about once a second."""
        limits = self._listener.limits
        if self._transport is None:
            return
        if self._linger_until is not None:
            if self._transport.get_write_buffer_size() and now < self._flush_until:
                self._linger_until = now + limits.linger_seconds
            elif now > self._linger_until:
                self._transport.abort()
        elif self._stalled_since is not None and now - self._stalled_since > limits.write_seconds:
            self._transport.abort()
        elif self._message_since is not None and not self._paused and now - self._message_since > limits.read_seconds:
            detail = f"the request was not complete after {limits.read_seconds:g} s"
            self._refuse(Problem(408, "RequestTimeout", detail, remedy="send the whole request at once"))
        elif self.idle and now - self._active > limits.idle_seconds:
            self._linger()
