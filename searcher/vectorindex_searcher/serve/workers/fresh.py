"""Fresh rows of a pod of several processes: the first one reads them, and gives each snapshot to those that search.

All of them know the rows that could be answered by a number, which a sampled query names (samples.py): what another
snapshot replaces is another such set, also where it is switched off.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ... import contract
from ...index.engine import Engine
from ...index.fresh import FreshRows, Gathered, gathered_from
from ...index.selection.rowset import RowSet
from ...text.encoder import Encoder
from ..fresh import FreshSource, Seen
from ..fresh_port import FreshPort
from ..fresh_watch import pause
from ..search.freshness import Freshness
from .channel import Channel
from .memory import read, written
from .samples import LiveStates

_log = logging.getLogger(__name__)
Tell = Callable[[dict[str, object], int | None], None]


def seen_of(wire: dict[str, Any]) -> Seen:
    """What `dataclasses.asdict` made of it."""
    return Seen(**{**wire, "refused": tuple(map(tuple, wire["refused"]))})


class PodFresh:
    """In the process that loads. `look` once before the workers are forked, `watch` on a thread afterwards."""

    def __init__(
        self,
        engine: Engine,
        task: contract.ServeTask,
        told: contract.FreshTask,
        pod: str,
        encoder: Encoder | None = None,
    ) -> None:
        """Raises BadSpec."""
        self._engine, self._told = engine, told
        self._source = FreshSource(engine, task, told, pod, encoder)
        self.freshness = Freshness()
        """The workers get theirs by the fork."""
        self.changing = threading.Lock()
        """Held by who makes other rows known and tells of them: all processes learn of both in one order."""

    @property
    def seen(self) -> dict[str, object]:
        """For a message: what the last look came to."""
        return dataclasses.asdict(self._source.seen)

    def live(self) -> RowSet | None:
        """The engine's rows that may be answered."""
        return self.freshness.live(self._engine.live)

    def look(self) -> None:
        """Before there are workers."""
        rows = self._source.look()
        if rows is not None:
            self.freshness.take(FreshRows(self._engine, rows))

    def watch(self, tell: Tell, learn: Callable[[RowSet | None], int]) -> None:
        """Look again, for ever. `learn`: makes known which rows may be answered, for a number."""
        while True:
            time.sleep(pause(self._told))
            self.look_again(tell, learn)

    def look_again(self, tell: Tell, learn: Callable[[RowSet | None], int]) -> None:
        """Once, and tell the workers of a new snapshot."""
        rows = self._source.look()
        if rows is not None:
            self._give(rows, tell, learn)
        tell({"do": "fresh", "what": "seen", "seen": self.seen}, None)

    def _give(self, rows: Gathered, tell: Tell, learn: Callable[[RowSet | None], int]) -> None:
        mine, descriptor = FreshRows(self._engine, rows), written(rows.pieces())
        try:
            with self.changing:
                self.freshness.take(mine)
                tell({"do": "fresh", "what": "rows", "number": learn(self.live())}, descriptor)
        finally:
            os.close(descriptor)

    def switch(self, off: bool, tell: Tell, learn: Callable[[RowSet | None], int]) -> None:
        """As FreshPort says; all workers do it."""
        with self.changing:
            self.freshness.switch(off=off)
            tell({"do": "fresh", "what": "off", "off": off, "number": learn(self.live())}, None)


class FrontFresh:
    """In the front process: tells the admin port, and hands each snapshot on."""

    def __init__(
        self, first: Callable[[Mapping[str, object]], None], workers: Callable[[Mapping[str, object], int | None], None]
    ) -> None:
        """first, workers: say something to the process that reads, and to those that search."""
        self._workers = workers
        self._seen = Seen()
        self.port = FreshPort(lambda: self._seen, lambda off: first({"say": "fresh", "off": off}))
        self._known: Mapping[str, object] = {}
        self._rows = -1
        """Descriptor of the newest snapshot, kept for a worker that had no room for it; -1: that of the start."""

    def hear(self, message: Mapping[str, Any], descriptor: int) -> None:
        """From the process that reads."""
        if message["what"] == "seen":
            self._seen = seen_of(message["seen"])
        elif message["what"] == "off":
            self._workers(message, None)
        elif descriptor >= 0:  # else there was none left here: the next snapshot comes
            if self._rows >= 0:
                os.close(self._rows)
            self._rows, self._known = descriptor, message
            self._workers(message, descriptor)

    def send_again(self, worker: Channel) -> None:
        """The newest snapshot, to one that lost it."""
        if self._rows >= 0:
            worker.send(self._known, self._rows)


class WorkerFresh:
    """In a worker, on its event loop: what is to be searched from now on, in the order in which it came."""

    def __init__(self, engine: Engine, freshness: Freshness | None, lost: Callable[[], None]) -> None:
        """lost: a snapshot came without its rows, and is to be sent again."""
        self._engine, self.freshness, self._lost = engine, freshness, lost
        self.states = LiveStates(self.live())
        self._steps: deque[tuple[int, bytes | bool | None, RowSet | None]] = deque()
        """Number of the set of rows, and what makes it: a snapshot, whether they are off, or deleted ids alone; and the
        rows that these had left when it came, since they are obeyed at once."""
        self._working: asyncio.Task[None] | None = None

    def live(self) -> RowSet | None:
        """The engine's rows that may be answered."""
        return self._engine.live if self.freshness is None else self.freshness.live(self._engine.live)

    def hear(self, message: Mapping[str, Any], descriptor: int) -> None:
        """From the process that reads. A snapshot may be many megabytes, so a thread prepares it."""
        number = message["number"]
        if message["what"] == "off":
            self._add(number, bool(message["off"]))
        elif descriptor < 0:
            _log.error("no descriptor is left for the fresh rows; asking again")
            self._lost()
        else:
            self._add(number, read(descriptor))

    def learn(self, number: int) -> None:
        """Other ids are deleted."""
        self._add(number, None)

    def _add(self, number: int, what: bytes | bool | None) -> None:
        self._steps.append((number, what, self._engine.live))
        if self._working is None:
            if isinstance(what, bytes):
                self._working = asyncio.create_task(self._work())
            else:
                self._do(None)

    async def _work(self) -> None:
        try:
            while self._steps:
                what = self._steps[0][1]
                rows = await asyncio.to_thread(self._prepared, what) if isinstance(what, bytes) else None
                self._do(rows)
        finally:
            self._working = None

    def _prepared(self, data: bytes) -> FreshRows:
        return FreshRows(self._engine, gathered_from(data))

    def _do(self, rows: FreshRows | None) -> None:
        number, what, live = self._steps.popleft()
        if self.freshness is not None:
            if rows is not None:
                self.freshness.take(rows)
            elif isinstance(what, bool):
                self.freshness.switch(off=what)
        self.states.learn(number, live if self.freshness is None else self.freshness.live(live))
