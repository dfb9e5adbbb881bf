"""Fresh rows of a searcher that is one process: looks on a thread, shows its searches what it found."""

from __future__ import annotations

import asyncio
import random

from .. import contract
from ..index.engine import Engine
from ..index.fresh import FreshRows
from ..text.encoder import Encoder
from .fresh import FreshSource, Seen
from .search.freshness import Freshness

_EARLIEST = 0.8
"""Of a poll, at which the next look may begin: pods that were started together do not look together for ever."""


def pause(task: contract.FreshTask) -> float:
    """Seconds to the next look."""
    return task.poll_seconds * random.uniform(_EARLIEST, 1.0)  # noqa: S311 - no secret


class FreshWatch:
    """`look` on one thread at a time."""

    def __init__(self, task: contract.ServeTask, told: contract.FreshTask, pod: str) -> None:
        self._task, self._told, self._pod = task, told, pod
        self.freshness = Freshness()
        self._engine: Engine | None = None
        self._source: FreshSource | None = None

    @property
    def seen(self) -> Seen:
        """What the last look came to."""
        return self._source.seen if self._source is not None else Seen()

    def open(self, engine: Engine, encoder: Encoder | None) -> None:
        """The first look, whose failure keeps nobody from serving. Raises BadSpec."""
        self._source, self._engine = FreshSource(engine, self._task, self._told, self._pod, encoder), engine
        self.look()

    def look(self) -> None:
        """See what there is, and search it from now on."""
        assert self._source is not None
        assert self._engine is not None
        rows = self._source.look()
        if rows is not None:
            self.freshness.take(FreshRows(self._engine, rows))

    def switch(self, off: bool) -> None:
        """As FreshPort says."""
        self.freshness.switch(off=off)

    async def watch(self) -> None:
        """Look again, for ever."""
        while True:
            await asyncio.sleep(pause(self._told))
            await asyncio.to_thread(self.look)
