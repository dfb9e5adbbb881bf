"""A listening socket: takes connections off it as the event loop has time, and rests when descriptors run out.

Our own, since uvloop's server closes its listening socket for ever when accept fails, and counts nothing before a TLS
handshake is done.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable

from .limits import RECEIVE_BYTES, SEND_BYTES, SHORTAGE

ACCEPTED_A_TURN = 32
"""Then what is connected already has its turn."""
REST_SECONDS = 0.05
_BACKLOG = 1024
_SAID_EVERY_SECONDS = 10.0
_log = logging.getLogger(__name__)


class Acceptor:
    """`take` gets each accepted socket, which it owns. `relieve` is called when there is no descriptor for one."""

    def __init__(
        self, host: str, port: int, take: Callable[[socket.socket], None], relieve: Callable[[], None]
    ) -> None:
        """Listen. Empty `host`: every address, IPv4 and IPv6. Raises OSError."""
        if not host and socket.has_dualstack_ipv6():
            family = socket.AF_INET6
            self._socket = socket.create_server(("", port), family=family, backlog=_BACKLOG, dualstack_ipv6=True)
        else:
            self._socket = socket.create_server((host, port), backlog=_BACKLOG)
        # Accepted sockets inherit it.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self._socket.setblocking(False)
        self.port = int(self._socket.getsockname()[1])
        self.failures = 0
        """How often accept failed."""
        self._take = take
        self._relieve = relieve
        self._loop = asyncio.get_running_loop()
        self._rest: asyncio.TimerHandle | None = None
        self._said = float("-inf")
        self._listen()

    def close(self) -> None:
        """Accept no more. Closes the socket."""
        if self._socket.fileno() < 0:
            return
        if self._rest is not None:
            self._rest.cancel()
        else:
            self._loop.remove_reader(self._socket)
        self._socket.close()

    def _listen(self) -> None:
        self._rest = None
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_A_TURN):
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._failed(error)
                return
            self._take(accepted)

    def _failed(self, error: OSError) -> None:
        """A client that went already, or no descriptors: later ones are accepted all the same, and nothing spins."""
        self.failures += 1
        if error.errno in SHORTAGE:
            self._relieve()
        now = time.monotonic()
        if now - self._said > _SAID_EVERY_SECONDS:
            self._said = now
            _log.warning("a connection could not be accepted", extra={"port": self.port, "problem": str(error)})
        self._loop.remove_reader(self._socket)
        self._rest = self._loop.call_later(REST_SECONDS, self._listen)
