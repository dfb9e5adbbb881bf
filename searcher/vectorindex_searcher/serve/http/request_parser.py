"""From a connection's bytes to requests.

Judges what arrives (form, size, encoding), one request after the other, and counts what is held of it. Must not know
how or when requests are answered: what becomes of them is the subclass's.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, cast

from .chunks import ChunkedBody
from .head import Head
from .head_cache import MAX_HEAD_BYTES
from .head_parser import END, check_beginning, parse_head, too_long
from .messages import Problem, Request, overload

if TYPE_CHECKING:
    from .listener import Listener

PIPELINE_LIMIT = 16
"""Complete requests that may wait behind the one being answered before reading pauses; also how many of a connection
are answered before other connections get a turn."""
_PARSING_SECONDS = 2e-5
"""A head that was not known, about."""
_EMPTY_LINE = b"\r\n"


class RequestReader(ABC):
    """The reading side of one connection. All methods run on the event loop."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.peer = ""
        """Address of the client."""
        self.local = ""
        """Ours, that it speaks to."""
        self._discarding_input = False
        """No further request is taken from this connection; what still arrives is dropped."""
        self._input = bytearray()
        """What arrived and is part of no complete request."""
        self._held_bytes = 0
        """Of input, and of requests that are not answered."""
        self._waiting: deque[Request] = deque()
        """Complete requests whose turn has not come."""
        self._head: Head | None = None
        """Of the request whose body is coming."""
        self._chunked: ChunkedBody | None = None
        self._message_since: float | None = None
        """When the request that is coming began."""
        self._checked = 0
        """Bytes of input that cannot hold the end of a head."""
        self._empty_line = False
        """One empty line was skipped, as old clients send it after a body. There may be no second."""
        self._size = 0
        """Bytes of the request that is coming which are not in the input any more."""
        self._continue_owed = False
        self._reading = False

    # ------------------------------------------------------------ what the answering side does

    @abstractmethod
    def _take(self, request: Request) -> None:
        """A request is complete, and is to be answered after those before it."""

    @abstractmethod
    def _pay_continue(self) -> None:
        """Ask for the body if `_continue_owed`, unless earlier answers are still due: 100 must come in order too."""

    @property
    def _has_room(self) -> bool:
        """Whether a further request may be taken: not while many wait, or few large ones."""
        waiting = len(self._waiting)
        return waiting == 0 or (waiting < PIPELINE_LIMIT and self._held_bytes <= self._listener.limits.body_bytes)

    # ------------------------------------------------------------ bytes

    def read(self, data: bytes) -> None:
        """Take the requests in `data`; one that is not right is answered after those before it, then the connection
        closes.
        """
        listener, size = self._listener, len(data)
        if listener.held + size > listener.limits.held_bytes and not listener.may_hold(size, self):
            self._refuse(overload("too many unanswered requests are held"))
            return
        listener.held += size
        self._held_bytes += size
        if not (self._input or self._waiting or listener.turns.spent) and self._head is None:
            end = data.find(END, 0, MAX_HEAD_BYTES) + len(END)
            if end >= len(END) and not data.startswith(_EMPTY_LINE):
                self._take_whole(data, end)
                return
        self._input += data
        self._read_on()

    def _take_whole(self, data: bytes, end: int) -> None:
        """Take `data`, which begins with a head. By far the most times it is one request to its last byte."""
        try:
            head = self._judge(data[:end])
        except Problem as problem:
            self._release(len(data))
            self._refuse(problem, data)
            return
        length, size = head.length, len(data)
        if length is None or length > size - end:
            self._input += data[end:]
            self._begin_message(head, end)
            self._read_on()
            return
        if length < size - end:
            size = end + length
            self._input += data[size:]
        if not head.keep_alive:
            self._stop_reading()
        now, keep_alive = time.monotonic(), head.keep_alive
        body, peer = data[end:size], self.peer
        known = (head.method, head.target, head.headers)
        self._take(Request(*known, body, keep_alive, now, None, None, head, size, peer, self.local))
        if self._input:
            self._read_on()

    def _read_on(self) -> None:
        """Take what the input holds of complete requests, as long as there is room for them."""
        if self._reading:
            return
        self._reading = True
        turns, since = self._listener.turns, time.monotonic()
        try:
            while self._input and not (self._discarding_input or turns.spent) and self._has_room:
                went_on = self._read_message()
                now = time.monotonic()
                turns.spend(now - since)
                since = now
                if not went_on:
                    break
        except Problem as problem:
            self._refuse(problem, self._input)
        finally:
            self._reading = False

    def _read_message(self) -> bool:
        """Take one request from the input, or some of it; whether there may be more to take. Raises Problem."""
        head = self._head or self._read_head()
        if head is None:
            return False
        before = len(self._input)
        body = self._read_body(head)
        if body is None:
            return len(self._input) < before
        self._complete(head, body)
        return True

    def _read_head(self) -> Head | None:
        """Take the head at the front of the input, if it is complete. Raises Problem."""
        given, limits = self._input, self._listener.limits
        if given.startswith(_EMPTY_LINE) and not self._empty_line:
            self._empty_line = True
            self._drop(len(_EMPTY_LINE))
        if not given:
            return None
        if self._message_since is None:
            self._message_since = time.monotonic()
        end = given.find(END, max(0, self._checked - len(END) + 1), limits.header_bytes) + len(END)
        if end < len(END):
            if given != b"\r" or self._empty_line:
                check_beginning(given, self._checked)
            if len(given) >= limits.header_bytes:
                raise too_long(given, limits)
            self._checked = len(given)
            return None
        with memoryview(given) as view:
            raw = bytes(view[:end])
        head = self._judge(raw)
        del given[:end]
        self._begin_message(head, end)
        return head

    def _judge(self, raw: bytes) -> Head:
        """What a head says. Raises Problem to refuse its request."""
        self._checked, self._empty_line = 0, False
        heads, guard = self._listener.heads, self._listener.guard
        known = heads.find(raw)
        head = known or parse_head(raw, self._listener.limits)
        if guard is not None:
            guard.check(head.credential)
        if known is None:
            heads.learn(raw, head)
            if not self._reading:
                self._listener.turns.spend(_PARSING_SECONDS)
        return head

    def _begin_message(self, head: Head, size: int) -> None:
        """A head of `size` bytes has come, and its body not in one piece with it."""
        self._head, self._size = head, size
        if self._message_since is None:
            self._message_since = time.monotonic()
        if head.length is None:
            self._chunked = ChunkedBody(self._listener.limits)
        if head.expects_continue and not self._input:
            self._continue_owed = True
            self._pay_continue()

    def _read_body(self, head: Head) -> bytes | None:
        """The body, if it is complete."""
        given = self._input
        if given:
            self._continue_owed = False
        if self._chunked is not None:
            before = len(given)
            complete = self._chunked.take(given)
            self._size += before - len(given)
            return cast(bytes, self._chunked.data) if complete else None
        assert head.length is not None
        if len(given) < head.length:
            return None
        self._size += head.length
        if len(given) == head.length:
            self._input = bytearray()  # a copy of megabytes would hold the event loop
            return cast(bytes, given)
        with memoryview(given) as view:
            body = bytes(view[: head.length])
        del given[: head.length]
        return body

    # ------------------------------------------------------------ ends

    def _forget_message(self) -> None:
        """Make ready for the next request."""
        self._head = self._chunked = self._message_since = None
        self._size = 0
        self._continue_owed = False

    def _complete(self, head: Head, body: bytes) -> None:
        """A request is complete."""
        size = self._size
        self._forget_message()
        if not head.keep_alive:
            self._stop_reading()
        now = time.monotonic()
        keep_alive, peer = head.keep_alive, self.peer
        known = (head.method, head.target, head.headers)
        self._take(Request(*known, body, keep_alive, now, None, None, head, size, peer, self.local))

    def _refuse(self, problem: Problem, given: bytes | bytearray = b"") -> None:
        """Answer `problem` in its turn and take nothing more from this connection. `given`: begins with its head."""
        if self._discarding_input:
            return
        head = self._head
        # Who asks with HEAD takes a body for the next answer.
        method = head.method if head is not None else b"HEAD" if given.startswith(b"HEAD ") else b""
        self._release(self._size)
        self._forget_message()
        self._stop_reading()
        target = b"" if head is None else head.target
        self._take(Request(method, target, {}, b"", False, time.monotonic(), problem=problem))

    def _stop_reading(self) -> None:
        """Take nothing more, and forget what came of it."""
        self._discarding_input = True
        self._drop(len(self._input))

    def _drop(self, size: int) -> None:
        """Forget `size` bytes at the front of the input."""
        del self._input[:size]
        self._release(size)

    def _release(self, size: int) -> None:
        self._held_bytes -= size
        self._listener.held -= size
