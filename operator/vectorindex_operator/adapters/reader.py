"""Reading what pods answered is work, and the only work in a look: one thread does it, beside the event loop.

Of all answers that wait, one of the look that has been read least is next. So who has little to tell never waits for
those who have much, but for the one answer that is being read.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


class Reader:
    """Runs one piece of work at a time."""

    def __init__(self) -> None:
        self._waiting: queue.PriorityQueue[tuple[int, int, Callable[[], None]]] = queue.PriorityQueue()
        self._turns = itertools.count()
        threading.Thread(target=self._run, name="evidence", daemon=True).start()

    async def read(self, size: int, work: Callable[[], Result]) -> Result:
        """The result of `work`. `size`: of all that its look has been read, with this."""
        done: Future[Result] = Future()

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        self._waiting.put((size, next(self._turns), run))
        return await asyncio.wrap_future(done)

    def _run(self) -> None:
        while True:
            self._waiting.get()[-1]()
