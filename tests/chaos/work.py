"""Who takes which turn: several indexes work off one list, and one with which something went wrong is made anew."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from chaos.campaign import Turn
from chaos.ledger import Ledger

Index = TypeVar("Index")


class Work(Generic[Index]):
    """Turns that are taken one after the other. `opened`: an index for the length of a block, and its first turn;
    `until`: when no turn begins any more, by `clock`."""

    def __init__(
        self,
        ledger: Ledger,
        todo: Iterable[Turn],
        scenes: Mapping[str, Callable[[Index, Turn], None]],
        opened: Callable[[Turn], AbstractContextManager[Index]],
        until: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ledger, self.scenes, self.opened, self.until, self.clock = ledger, scenes, opened, until, clock
        self._todo: queue.SimpleQueue[Turn] = queue.SimpleQueue()
        for turn in todo:
            if not ledger.is_done(turn):
                self._todo.put(turn)

    def done_by(self, indexes: int) -> None:
        """Returns when there is no turn left, or no time."""
        with ThreadPoolExecutor(indexes) as pool:
            for done in [pool.submit(self._work) for _ in range(indexes)]:
                done.result()

    def _next(self) -> Turn | None:
        try:
            return self._todo.get_nowait() if self.clock() < self.until else None
        except queue.Empty:
            return None

    def _work(self) -> None:
        while (turn := self._next()) is not None:
            first, begun = turn, False
            try:
                with self.opened(first) as index:
                    begun = True
                    while turn is not None and self._went_right(index, turn):
                        turn = self._next()
            except Exception as error:
                if begun:
                    self.ledger.leaves([f"an index that was not removed: {error!r}"[:800]])
                else:
                    self.ledger.ended(first, f"no index for it: {error!r}"[:800])

    def _went_right(self, index: Index, turn: Turn) -> bool:
        said = ""
        try:
            self.scenes[turn.fault](index, turn)
        except Exception as error:
            said = repr(error)[:800]
        self.ledger.ended(turn, said)
        return self.ledger.went_right(turn)
