"""Ports for servers that must be told theirs."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def held(count: int = 1) -> Iterator[list[int]]:
    """Loopback ports that nobody else is given until the end of the block.

    Each stays bound, without listening: a server that sets SO_REUSEADDR (all of ours, and Go's) may bind it once more,
    and the kernel gives it to nobody who asks for any port. One that was free a moment ago may be taken.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", 0))
        yield [int(one.getsockname()[1]) for one in sockets]
