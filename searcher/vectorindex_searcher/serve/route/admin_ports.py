"""What a router asks at the admin ports of shards: signed with the key of its revision, of a pod that proved on its
user port who it is, over a connection of its own. What one request may take is bounded in bytes and in time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ... import contract
from .link import BrokenError, Link, Room, asked
from .pods import Shard


class AdminPorts:
    """Of all shards of one revision. For one event loop."""

    def __init__(
        self,
        task: contract.RouteTask,
        revision: str,
        key: str,
        room: Room,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`key`: the revision's, empty: nothing is signed; `clock`: unix seconds."""
        self._uid, self._ports, self._revision = task.identity.uid, task.admin_ports, revision
        self._key, self._room, self._clock = key, room, clock

    async def ask(self, shard: Shard, request: contract.InternalRequest, most: int, seconds: float) -> bytes:
        """What one pod of the shard answers, at most `most` bytes, in so many seconds. Raises OSError, BrokenError,
        NoRoomError, ValueError."""
        pod = shard.pick()
        if pod is None:
            raise BrokenError("no pod of the shard answers")
        target = contract.Target(self._uid, self._revision, shard.number)
        told = {"Host": pod.name, **contract.sign(self._key, request, target, self._clock())}
        lines = [f"{request.method} {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items())]
        head = "\r\n".join((*lines, f"Content-Length: {len(request.body)}", "", "")).encode("latin-1")
        async with asyncio.timeout(seconds):
            _, link = await asyncio.get_running_loop().create_connection(
                lambda: Link(self._room), pod.host, self._ports[shard.number]
            )
            try:
                reply = await asked(link, self._room, head, request.body, most)
            finally:
                link.close()
        if reply.head.status != 200 or reply.head.revision != self._revision:
            raise BrokenError(f"revision {reply.head.revision[:100]!r} answered {reply.head.status}")
        return reply.body
