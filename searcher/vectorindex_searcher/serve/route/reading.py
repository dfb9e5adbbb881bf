"""From what a shard answered to a Part: what is short at once, what is long on a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from ..http.limits import LOOP_BYTES
from .link import BrokenError, NoRoomError, Reply, Room
from .parts import MalformedError, Part, Question, part_of

Then = Callable[[Part | Exception], None]


class Reading:
    """Reads for all requests of a router. Of a reply that it is given its part is counted in `room` from then on."""

    def __init__(self, room: Room, executor: Executor) -> None:
        self.room, self.executor = room, executor

    def read(self, reply: Reply, asked: Question, then: Then) -> None:
        """Tell `then`, on the event loop, the part, or MalformedError, NoRoomError, or BrokenError when it ends."""
        if len(reply.body) <= LOOP_BYTES:
            then(self._read(reply, asked))
            return

        def told(done: asyncio.Future[Part | Exception]) -> None:
            if done.cancelled():
                self.room.give(len(reply.body))
                then(BrokenError("given up"))
            else:
                then(done.result())

        asyncio.get_running_loop().run_in_executor(self.executor, self._read, reply, asked).add_done_callback(told)

    def _read(self, reply: Reply, asked: Question) -> Part | Exception:
        size = len(reply.body)
        try:
            part = part_of(reply, asked)
        except MalformedError as error:
            self.room.give(size)
            return error
        if self.room.take(part.nbytes - size):
            return part
        self.room.give(size)
        return NoRoomError("other answers take all the room")
