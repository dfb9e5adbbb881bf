"""Both sides of a shadow in one of a pod's search processes: it puts aside what it answered, and answers its part of
what another revision has answered. What it counts it hands on, as it does with evidence."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ... import contract
from ...index.engine import Engine
from ..http.messages import Problem, overload
from ..search.pool import SearchPool
from ..shadow.answers import ExactScores
from ..shadow.counts import PairRows
from ..shadow.judge import AnswersJudge
from ..shadow.mirror import MakeRates, Mirror
from ..shadow.receiver import Part, Searches, ShadowReceiver
from .memory import read, written
from .mirrored import packed

ROWS_AT_ONCE = 32
"""In one message: a row is a kilobyte at most."""
Send = Callable[[Mapping[str, object], int | None], None]
"""Takes a message, and a descriptor that stays open here."""


def pairs_messages(side: str, counts: PairRows) -> Iterator[dict[str, object]]:
    """What was counted since the last time, for the process that adds up. side: mirrored, or shadowed."""
    rows = [[bucket, segment, row.tolist()] for bucket, segment, row in counts.take()]
    for at in range(0, len(rows), ROWS_AT_ONCE):
        known = {"side": side, "shadow": counts.shadow, "reference": counts.reference, "judged": counts.judged}
        yield known | {"rows": rows[at : at + ROWS_AT_ONCE]}


class WorkerShadows:
    """Belongs to the event loop of its process, but for `mirror`. `deleted`: the fingerprint of the ids that are hidden
    now; `send`: to the front process."""

    def __init__(
        self,
        task: contract.ServeTask,
        engine: Engine,
        part: Part,
        rates: MakeRates,
        deleted: Callable[[], str],
        send: Send,
    ) -> None:
        self._task, self._engine, self._part = task, engine, part
        self._deleted, self._send = deleted, send
        self.mirror = Mirror(task.segments, engine.dimension, deleted, rates=rates, processes=part.processes)
        """What is to be offered each answered query."""
        self._vectors: Path | None = None
        self._judge = AnswersJudge(engine, ExactScores(engine, lambda: self._vectors), part.processes)
        self._receiver: ShadowReceiver | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._told: dict[str, dict[str, int]] = {}

    def receive(self, searches: Searches, pool: SearchPool, threads: int) -> None:
        """Begin to take queries. `threads`: of the pool."""
        segments, deleted = self._task.segments, self._deleted
        self._receiver = ShadowReceiver(
            searches,
            self._engine,
            pool,
            self._judge,
            segments,
            revision=self._task.revision,
            deleted=deleted,
            threads=threads,
            part=self._part,
            differ=lambda: self._send({"say": "other deleted"}, None),
        )

    def hear(self, message: Mapping[str, Any], descriptor: int) -> None:
        """What the front process says of shadows."""
        match message["do"]:
            case "mirror":
                lease = contract.MirrorLease.model_validate(message["lease"])
                self.mirror.take(lease, "", self._task.revision)
            case "vectors":
                self._vectors = Path(message["path"])
            case "shadow":
                task = asyncio.get_running_loop().create_task(
                    self._answer(message["number"], descriptor, message["until"])
                )
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
            case _:
                pass

    async def _answer(self, number: int, descriptor: int, until: float) -> None:
        assert self._receiver is not None
        self._judge.start()
        told: dict[str, object] = {"say": "shadowed", "number": number}
        try:
            if descriptor < 0:
                raise overload("a search process has no descriptor left")
            told |= (await self._receiver.answer(read(descriptor), until)).wire()
        except Problem as problem:
            told["problem"] = [problem.status, problem.kind, problem.detail]
        self._send(told, None)

    def tell(self) -> None:
        """What is new since the last time: queries, counts, and what became of queries and answers."""
        self._hand_on()
        self.mirror.count_left_out()
        receiver = self._receiver
        for side, counts in (
            ("mirrored", self.mirror.counts),
            ("shadowed", receiver.counts if receiver is not None else None),
        ):
            for message in pairs_messages(side, counts) if counts is not None else ():
                self._send({"say": "pairs", **message}, None)
        results = {
            "mirrored": dict(self.mirror.results),
            "shadowed": dict(receiver.results) if receiver is not None else {},
            "shadow_answers": dict(self._judge.results),
        }
        if results != self._told and any(results.values()):
            self._told = results
            self._send({"say": "results", "results": results}, None)

    def _hand_on(self) -> None:
        """Queries that were put aside, to the process that sends them."""
        queue = self.mirror.queue
        some = [queue.popleft() for _ in range(len(queue))]
        if some:
            descriptor = written(packed(some))
            self._send({"say": "mirrored"}, descriptor)
            os.close(descriptor)
