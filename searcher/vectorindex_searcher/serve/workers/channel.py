"""Messages between the processes of a pod: whole, in order, as JSON, a descriptor with some of them.

The other end is a process of this pod, made by the same program, so what it says is believed. What does not fit into
the kernel's buffer waits here; connections do not, since another worker can take them.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import orjson

MESSAGE_BYTES = 64 << 10
TAKE = b'{"do":"take"}'
"""What goes with a connection."""
_AT_ONCE = 64
"""Messages taken in one turn of the event loop."""
Take = Callable[[dict[str, Any], int], None]


class Channel:
    """One end. Belongs to one thread; `listen` needs an event loop, `send` does not."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._unsent: deque[tuple[bytes, int]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._take: Take = lambda _message, _descriptor: None
        self._gone: Callable[[], None] = lambda: None

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Both ends."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Mapping[str, object], descriptor: int | None = None) -> None:
        """Say something, now or as soon as there is room. A `descriptor` that goes with it stays open here. To an end
        that is gone nothing is said."""
        data = orjson.dumps(message)
        if len(data) > MESSAGE_BYTES:
            raise ValueError(f"a message of {len(data)} bytes: {data[:80]!r}")
        self._unsent.append((data, -1 if descriptor is None else os.dup(descriptor)))
        self._send_on()

    def hand(self, accepted: socket.socket) -> bool:
        """Give the connection to the other end, which owns it from then on; False when there is no room for it."""
        if self._unsent:
            return False
        try:
            socket.send_fds(self._socket, [TAKE], [accepted.fileno()])
        except OSError:
            return False
        accepted.close()
        return True

    def listen(self, take: Take, gone: Callable[[], None]) -> None:
        """From now on `take` gets each message, with its descriptor or -1; `gone` is called once, when the other end is
        closed."""
        self._take, self._gone = take, gone
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)
        self._send_on()

    def receive(self) -> tuple[dict[str, Any], int] | None:
        """The next message and its descriptor or -1; None when there is none now. Raises EOFError."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES, 1)
        except (BlockingIOError, InterruptedError):
            return None
        except ConnectionError:
            data, descriptors = b"", []
        if not data:
            raise EOFError
        return orjson.loads(data), descriptors[0] if descriptors else -1

    def close(self) -> None:
        if self._loop is not None and self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        self._drop_unsent()
        self._socket.close()

    def _drop_unsent(self) -> None:
        while self._unsent:
            _, descriptor = self._unsent.popleft()
            if descriptor >= 0:
                os.close(descriptor)

    def _read(self) -> None:
        for _ in range(_AT_ONCE):
            if self._socket.fileno() < 0:
                return
            try:
                found = self.receive()
            except EOFError:
                self.close()
                self._gone()
                return
            if found is None:
                return
            self._take(*found)

    def _send_on(self) -> None:
        while self._unsent:
            data, descriptor = self._unsent[0]
            try:
                socket.send_fds(self._socket, [data], [] if descriptor < 0 else [descriptor])
            except (BlockingIOError, InterruptedError):
                if self._loop is not None:
                    self._loop.add_writer(self._socket, self._send_on)
                return
            except OSError:  # the other end is gone; whoever reads learns of it
                self._drop_unsent()
                break
            self._unsent.popleft()
            if descriptor >= 0:
                os.close(descriptor)
        if self._loop is not None and self._socket.fileno() >= 0:
            self._loop.remove_writer(self._socket)
