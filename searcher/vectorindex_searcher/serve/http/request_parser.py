"""From a connection's bytes to requests.

Judges what arrives (form, size, encoding), one request after the other, and counts what is held of it. Must not know
how or when requests are answered: what becomes of them is the subclass's.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from .chunks import ChunkedBody
from .head import Head
from .head_cache import MAX_HEAD_BYTES
from .head_parser import END, check_beginning, parse_head, too_long
from .messages import Problem, Request, overload

if TYPE_CHECKING:
    from .listener import Listener

_EMPTY_LINE = b"\r\n"


class RequestReader(ABC):
    """The reading side of one connection. All methods run on the event loop."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._discarding_input = False
        """No further request is taken from this connection; what still arrives is dropped."""
        self._input = bytearray()
        """What arrived and is part of no complete request."""
        self._held_bytes = 0
        """Of input, and of requests that are not answered."""
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

    @property
    @abstractmethod
    def _has_room(self) -> bool:
        """Whether a further request may be taken now."""

    @abstractmethod
    def _take(self, request: Request) -> None:
        """A request is complete, and is to be answered after those before it."""

    @abstractmethod
    def _pay_continue(self) -> None:
        """Ask for the body if `_continue_owed`, unless earlier answers are still due: 100 must come in order too."""

    # ------------------------------------------------------------ bytes

    def read(self, data: bytes) -> None:
        """Take the requests in `data`; one that is not right is answered after those before it, then the connection
        closes.
        """
        if not self._input and self._head is None and self._has_room and self._take_whole(data):
            return
        if not self._listener.hold(len(data), self):
            self._refuse(overload("too many unanswered requests are held"))
            return
        self._held_bytes += len(data)
        self._input += data
        self._read_on()

    def _take_whole(self, data: bytes) -> bool:
        """By far the most: one request, whole, with a head that is known. Whether `data` was that."""
        end = data.find(END, 0, MAX_HEAD_BYTES) + len(END)
        if end < len(END):
            return False
        head = self._listener.heads.find(data[:end])
        if head is None or head.length is None or len(data) != end + head.length:
            return False
        try:
            if self._listener.guard is not None:
                self._listener.guard.check(head.credential)
        except Problem as problem:
            self._head = head
            self._refuse(problem)
            return True
        size = len(data)
        if not self._listener.hold(size, self):
            return False
        self._held_bytes += size
        self._empty_line = False
        now = time.monotonic()
        self._take(Request(head.method, head.target, head.headers, data[end:], True, now, head=head, size=size))
        return True

    def _read_on(self) -> None:
        """Take what the input holds of complete requests, as long as there is room for them."""
        if self._reading:
            return
        self._reading = True
        try:
            while self._input and not self._discarding_input and self._has_room and self._read_message():
                pass
        except Problem as problem:
            self._refuse(problem)
        finally:
            self._reading = False

    def _read_message(self) -> bool:
        """Take one request from the input; False if it is not complete. Raises Problem."""
        if self._head is None and not self._read_head():
            return False
        head = self._head
        assert head is not None
        body = self._read_body(head)
        if body is None:
            return False
        size = self._size
        self._forget_message()
        if not head.keep_alive:
            self._stop_reading()
        request = Request(
            method=head.method,
            target=head.target,
            headers=head.headers,
            body=body,
            keep_alive=head.keep_alive,
            completed=time.monotonic(),
            head=head,
            size=size,
        )
        self._take(request)
        return True

    def _read_head(self) -> bool:
        """Take the head at the front of the input; False if it is not complete. Raises Problem."""
        given, limits = self._input, self._listener.limits
        if given.startswith(_EMPTY_LINE) and not self._empty_line:
            self._empty_line = True
            self._drop(len(_EMPTY_LINE))
        if not given:
            return False
        if self._message_since is None:
            self._message_since = time.monotonic()
        end = given.find(END, max(0, self._checked - len(END) + 1), limits.header_bytes) + len(END)
        if end < len(END):
            if given != b"\r" or self._empty_line:
                check_beginning(given, self._checked)
            if len(given) >= limits.header_bytes:
                raise too_long(given, limits)
            self._checked = len(given)
            return False
        with memoryview(given) as view:
            raw = bytes(view[:end])
        known = self._listener.heads.find(raw)
        self._head = head = known or parse_head(raw, limits)
        del given[:end]
        self._size, self._checked, self._empty_line = end, 0, False
        if self._listener.guard is not None:
            self._listener.guard.check(head.credential)
        if known is None:
            self._listener.heads.learn(raw, head)
        if head.length is None:
            self._chunked = ChunkedBody(limits)
        if head.expects_continue and not given:
            self._continue_owed = True
            self._pay_continue()
        return True

    def _read_body(self, head: Head) -> bytes | None:
        """The body, if it is complete."""
        given = self._input
        if given:
            self._continue_owed = False
        if self._chunked is not None:
            before = len(given)
            complete = self._chunked.take(given)
            self._size += before - len(given)
            return bytes(self._chunked.data) if complete else None
        assert head.length is not None
        if len(given) < head.length:
            return None
        with memoryview(given) as view:
            body = bytes(view[: head.length])
        del given[: head.length]
        self._size += head.length
        return body

    # ------------------------------------------------------------ ends

    def _forget_message(self) -> None:
        """Make ready for the next request."""
        self._head = self._chunked = self._message_since = None
        self._size = 0
        self._continue_owed = False

    def _refuse(self, problem: Problem) -> None:
        """Answer `problem` in its turn and take nothing more from this connection."""
        if self._discarding_input:
            return
        head, method = self._head, b"HEAD" if self._input.startswith(b"HEAD ") else b""
        if head is not None:
            method = head.method
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
        self._listener.release(size)
