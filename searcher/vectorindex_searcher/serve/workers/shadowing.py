"""A shadow in a pod of several search processes, as its front process has it: leases go to all of them, queries that
come are parted by their hash, and what all of them count adds up to what one process would have counted."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ... import contract
from ..http.messages import Problem, Request, Response, json_response, overload
from ..settings import Settings
from ..shadow.counts import PairRows
from ..shadow.port import ShadowPaths, loading
from ..shadow.receiver import ENDED, PATIENCE_SECONDS, REQUESTS, Told, too_many
from .memory import written
from .pairs import Send

REPORT_SECONDS = 2.0
"""How long the sending process may take to say what it counted."""


@dataclass(slots=True)
class _Asked:
    """A request with queries, of which each search process answers its part."""

    missing: int
    whole: asyncio.Future[None]
    told: Told = field(default_factory=Told)
    problem: Problem | None = None


class PodShadows(ShadowPaths):
    """`first`: tells the process that sends; `workers`: tells all search processes; `ready`: how many there are, once
    there are all; `settled`: waits until they have said what they counted."""

    def __init__(
        self,
        task: contract.ServeTask,
        settings: Settings,
        incarnation: str,
        *,
        first: Send,
        workers: Send,
        ready: Callable[[], int],
        settled: Callable[[], Awaitable[float]],
    ) -> None:
        super().__init__(task, settings.pod, incarnation, settings.internal_key)
        self._first, self._workers, self._ready, self._settled = first, workers, ready, settled
        self._numbers = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        self._reports: dict[int, asyncio.Future[None]] = {}
        self._counts: dict[str, PairRows] = {}
        """Of the newest shadow of each side: mirrored, shadowed."""
        self._ended: deque[str] = deque(maxlen=ENDED)
        """Shadows that were judged here: what a process says late does not bring them back."""
        self._told: dict[int, Mapping[str, Mapping[str, int]]] = {}
        self.results: Mapping[str, Counter[str]] = {
            name: Counter() for name in ("mirrored", "shadowed", "shadow_answers")
        }
        """As Shadowing.results."""

    # ------------------------------------------------------------ the paths

    def check_loaded(self) -> None:
        """As ShadowPaths."""
        if not self._ready():
            raise loading()

    def take(self, lease: contract.MirrorLease, key: str) -> None:
        """As ShadowPaths. Only the process that sends needs the key."""
        counts = self._counts.get("mirrored")
        if counts is None or counts.shadow != lease.shadow:
            reference = lease.revision if lease.sender_judged else self._task.revision
            self._counts["mirrored"] = PairRows(lease.shadow, reference)
        self._first({"say": "mirror", "lease": lease.wire(), "key": key}, None)
        self._workers({"do": "mirror", "lease": lease.wire()}, None)

    async def answer(self, request: Request) -> Response:
        """As ShadowPaths: each process takes from the whole what is its part."""
        if len(self._asked) >= REQUESTS:
            raise too_many()
        number, until = next(self._numbers), request.completed + PATIENCE_SECONDS
        asked = self._asked[number] = _Asked(self._ready(), asyncio.get_running_loop().create_future())
        try:
            descriptor = written((request.body,))
            self._workers({"do": "shadow", "number": number, "until": until}, descriptor)
            os.close(descriptor)
            async with asyncio.timeout(max(0.0, request.completed + contract.SHADOW_SECONDS - time.monotonic())):
                await asked.whole
        except TimeoutError:
            raise overload("a search process has not answered its part in time") from None
        finally:
            del self._asked[number]
        if asked.problem is not None:
            raise asked.problem
        return json_response(asked.told.wire())

    async def counts_of(self, shadow: str) -> tuple[str, PairRows | None]:
        """As ShadowPaths."""
        if self._ready():
            await self._settled()
            await self._first_settled()
        for side in ("shadowed", "mirrored"):
            counts = self._counts.get(side)
            if counts is not None and counts.shadow == shadow:
                return counts.judged, counts
        return "", None

    async def _first_settled(self) -> None:
        number = next(self._numbers)
        told = self._reports[number] = asyncio.get_running_loop().create_future()
        self._first({"say": "report", "number": number}, None)
        try:
            async with asyncio.timeout(REPORT_SECONDS):
                await told
        except TimeoutError:
            detail = f"the first process has not said what it counted within {REPORT_SECONDS:g} s"
            raise Problem(503, "Stalled", detail, remedy="ask again; probes tell whether it goes on") from None
        finally:
            del self._reports[number]

    # ------------------------------------------------------------ what the processes say

    def hear_first(self, message: Mapping[str, Any]) -> bool:
        """What the process that sends says; whether it was about a shadow."""
        match message["do"]:
            case "pairs":
                self._add(message)
            case "vectors":
                self._workers(message, None)
            case "told":
                self._learn(-1, message["results"])
                told = self._reports.get(message["number"])
                if told is not None and not told.done():
                    told.set_result(None)
            case _:
                return False
        return True

    def hear(self, worker: int, message: Mapping[str, Any], descriptor: int) -> None:
        """What a search process says of a shadow."""
        match message["say"]:
            case "mirrored" if descriptor >= 0:
                self._first({"say": "mirrored"}, descriptor)
                os.close(descriptor)
            case "pairs":
                self._add(message)
            case "results":
                self._learn(worker, message["results"])
            case "other deleted":
                self._first({"say": "other deleted"}, None)
            case "shadowed":
                self._part(message)
            case _:
                pass

    def _part(self, message: Mapping[str, Any]) -> None:
        asked = self._asked.get(message["number"])
        if asked is None or asked.whole.done():
            return  # it came too late
        if "problem" in message:
            status, kind, detail = message["problem"]
            asked.problem = Problem(status, kind, detail)
        else:
            asked.told.add(message)
        asked.missing -= 1
        if not asked.missing:
            asked.whole.set_result(None)

    def _add(self, message: Mapping[str, Any]) -> None:
        """Counts of a process, to those of the shadow that they are of, unless that is over."""
        side, shadow = message["side"], message["shadow"]
        counts = self._counts.get(side)
        if counts is None or counts.shadow != shadow:
            if side == "mirrored" or shadow in self._ended:
                return
            if counts is not None:
                self._ended.append(counts.shadow)
            counts = self._counts[side] = PairRows(shadow, message["reference"], message["judged"])
        counts.merge(message["rows"])

    def _learn(self, process: int, results: Mapping[str, Mapping[str, int]]) -> None:
        """How much of everything a process has had since its start; -1: the one that sends."""
        self._told[process] = results
        for name, known in self.results.items():
            known.clear()
            for told in self._told.values():
                known.update(told.get(name, {}))
