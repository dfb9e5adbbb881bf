"""A search process of a pod: answers the users' connections that it is given, and hands on what it counts.

Forked from the process that loaded the index, so it shares every page of it. Has an event loop and no port of its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import contract
from ...proof.live.sample import LiveQuery
from .. import load
from ..app import SearchApp
from ..evidence.increments import IncrementRecorder
from ..evidence.live_queries import LiveQueries
from ..evidence.live_sample import LiveSample
from ..http.auth import Tokens
from ..http.limits import Limits
from ..http.listener import Listener
from ..http.mounted import Mounted, watch
from ..http.tls import Certificate
from ..search.freshness import Freshness
from ..search.policies import Policies
from ..search.pool import SearchPool
from ..settings import Settings
from ..shadow.receiver import Part
from ..tracing.spans import Spans
from ..traffic import Traffic
from .board import Line
from .channel import Channel
from .clicks import SentFeedback
from .fresh import WorkerFresh
from .memory import rows_of, written
from .pairs import WorkerShadows
from .rates import SharedRates
from .samples import packed

TELL_SECONDS = 0.1
"""How often a worker says what it counted, and that its event loop turns."""
_POLL_SECONDS = 0.02
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What a worker is made of, before it is forked."""

    task: contract.ServeTask
    settings: Settings
    loaded: load.Loaded
    tokens: Tokens | None
    policies: Policies | None
    certificate: Certificate | None
    limits: Limits
    threads: int
    count: int
    """How many of them there are."""
    rates: SharedRates
    deleted: str
    """Fingerprint of the deleted ids that are hidden at the start."""
    fresh: Freshness | None
    """With the snapshot of the start; None where there are no rows besides the artifact's."""


class Worker:
    """One search process. `run` once, in it."""

    def __init__(self, parts: WorkerParts, number: int, channel: Channel, line: Line) -> None:
        self._parts, self._number, self._channel, self._line = parts, number, channel, line
        self._deleted = parts.deleted
        self._traffic = Traffic()
        self._received = 0
        self._unanswered = 0
        self._without_rows = -1
        """What was told of Policies.unusable."""
        self._kept: deque[LiveQuery] = deque()
        """Live queries with a place in the sample that are not yet handed on. Search threads add to it."""

    async def run(self) -> None:
        """Answer until the front process says that it is enough, or is gone."""
        parts, loop = self._parts, asyncio.get_running_loop()
        # What random numbers the parent would have drawn, all of its children would.
        np.random.seed()
        sys.setswitchinterval(0.0005)
        self._ended: asyncio.Future[float] = loop.create_future()
        self._recorder = IncrementRecorder(parts.task.segments)
        self._feedback = SentFeedback(parts.task.revision, self._recorder, self._send_click)
        self._pool = SearchPool(parts.threads)
        self._queries = self._keep_queries()
        engine = parts.loaded.engine
        self._fresh = fresh = WorkerFresh(engine, parts.fresh, lambda: self._channel.send({"say": "lost fresh"}))
        self._live = LiveSample(parts.task.segments, live=fresh.live) if parts.task.judges_live else None
        part = Part(self._number, parts.count)
        self._shadows = WorkerShadows(
            parts.task, engine, part, parts.rates.rates, lambda: self._deleted, self._channel.send
        )
        self._app = SearchApp(
            engine,
            parts.task,
            self._pool,
            self._recorder,
            self._feedback,
            parts.loaded.points,
            self._live,
            queries=self._queries,
            mirror=self._shadows.mirror,
            tokens=parts.tokens is not None,
            policies=parts.policies,
            limited=parts.settings.params,
            columns_before=parts.settings.columns_before,
            encoder=parts.loaded.encoder,
            reranker=parts.loaded.reranker,
            threads=parts.threads,
            shards=parts.loaded.shards,
            fresh=parts.fresh,
        )
        self._shadows.receive(self._app, self._pool, parts.threads)
        collector, revision = parts.settings.collector, parts.task.revision
        self._spans = Spans(collector, revision) if collector is not None else None
        closing = self._traffic.closing
        self._users = Listener(self._app, revision, parts.limits, closing, parts.tokens, self._spans)
        self._users.begin(parts.certificate.context if parts.certificate is not None else None)
        mounted: list[Mounted] = [one for one in (parts.tokens, parts.policies, parts.certificate) if one is not None]
        background = [loop.create_task(self._tell_on())]
        if self._queries is not None:
            background.append(loop.create_task(self._queries.watch()))
        if mounted:
            background.append(loop.create_task(watch(mounted)))
        self._traffic.open()
        self._channel.listen(self._hear, self._alone)
        self._tell()
        self._channel.send({"say": "ready"})
        try:
            await self._finish(await self._ended)
        finally:
            for task in background:
                task.cancel()
            self._app.close()
            self._pool.close()
        self._tell()
        self._channel.send({"say": "drained", "unanswered": self._unanswered})

    def _keep_queries(self) -> LiveQueries | None:
        parts = self._parts
        if not parts.settings.live_queries:
            return None
        key, engine = parts.settings.internal_key, parts.loaded.engine
        return LiveQueries(engine.dimension, parts.task.segments, key, hand_on=self._kept.append)

    # ------------------------------------------------------------ what is heard

    def _hear(self, message: Mapping[str, Any], descriptor: int) -> None:
        match message["do"]:
            case "take":
                self._connect(descriptor)
            case "lease":
                self._traffic.take_lease(contract.TrafficLease.model_validate(message["lease"]))
            case "point":
                self._app.serve_at(contract.ServingPoint(message["point"]))
            case "report":
                self._tell()
                self._channel.send({"say": "told", "number": message["number"]})
            case "click":
                self._feedback.answered(message["number"], message["result"])
            case "rows":
                self._take_rows(descriptor, message)
            case "fresh":
                self._fresh.hear(message, descriptor)
            case "sample" if self._live is not None:
                self._send_sample(self._live)
            case "end":
                self._traffic.end()
            case "finish" if not self._ended.done():
                self._traffic.end()
                self._ended.set_result(float(message["seconds"]))
            case _:
                self._shadows.hear(message, descriptor)

    def _connect(self, descriptor: int) -> None:
        self._received += 1
        if descriptor < 0:  # this process has none left, and the kernel closed it
            self._users.make_room()
        else:
            accepted = socket.socket(fileno=descriptor)
            accepted.setblocking(False)
            self._users.connect(accepted)
        self._show()

    def _send_sample(self, live: LiveSample) -> None:
        """What was asked in this round of live recall, which ends."""
        sample, since = live.take()
        descriptor = written(packed(sample, self._fresh.states))
        self._channel.send({"say": "sample", "since": since}, descriptor)
        os.close(descriptor)

    def _take_rows(self, descriptor: int, message: Mapping[str, Any]) -> None:
        """Answer no others from now on; without a descriptor left for them, those of before until there is one."""
        engine, some = self._parts.loaded.engine, message["some"]
        if some and descriptor < 0:
            _log.error("no descriptor is left for the rows that may be answered; asking again")
            self._users.make_room()
            asyncio.get_running_loop().call_later(TELL_SECONDS, self._channel.send, {"say": "lost rows"})
            return
        rows = rows_of(descriptor, engine.count) if some else None
        engine.show_only(rows)
        self._fresh.learn(message["number"])
        self._deleted = message["fingerprint"]

    def _alone(self) -> None:
        """The front process is gone: answer what is owed, and end."""
        self._traffic.end()
        if not self._ended.done():
            _log.error("the front process is gone")
            self._ended.set_result(self._parts.limits.linger_seconds)

    # ------------------------------------------------------------ what is told

    def _send_click(self, number: int, query: str, rank: int) -> None:
        self._channel.send({"say": "click", "number": number, "query": query, "rank": rank})

    async def _tell_on(self) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            self._tell()

    def _tell(self) -> None:
        """What is new since the last time."""
        self._show()
        self._line.beat(time.monotonic())
        for increment in self._recorder.take():
            self._channel.send({"say": "counted", "increment": increment.wire()})
        if self._queries is not None:
            self._tell_queries(self._queries)
        self._shadows.tell()
        tokens, ignored = self._parts.tokens, self._app.ignored_params
        uses = tokens.uses if tokens is not None else Counter[str]()
        spans = self._spans.take_counts() if self._spans is not None else {}
        if uses or ignored or spans:
            self._channel.send({"say": "used", "tokens": dict(uses), "ignored": dict(ignored), "spans": spans})
            uses.clear()
            ignored.clear()
        policies = self._parts.policies
        if policies is not None and len(policies.unusable) != self._without_rows:
            self._without_rows = len(policies.unusable)
            self._channel.send({"say": "policies", "withoutRows": self._without_rows})

    def _tell_queries(self, queries: LiveQueries) -> None:
        while self._kept:
            one = self._kept.popleft()
            known = {"name": one.name.hex(), "sender": one.sender.hex(), "hour": one.hour, "k": one.k}
            descriptor = written((one.vector,))
            self._channel.send({"say": "query", "query": known | {"segment": one.segment}}, descriptor)
            os.close(descriptor)
        for hour, counts in queries.take_counts():
            self._channel.send({"say": "asked", "hour": hour, "counts": counts})

    def _show(self) -> None:
        users = self._users
        self._line.tell(self._received, users.connections, users.in_flight, self._pool.waiting)

    # ------------------------------------------------------------ the end

    async def _finish(self, seconds: float) -> None:
        """Close what is idle, answer what is owed within `seconds`, wait for the clients to take it."""
        users, deadline = self._users, time.monotonic() + seconds
        users.close_idle()
        while not users.quiet and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        self._unanswered = users.in_flight
        users.close_idle()
        deadline = min(deadline, time.monotonic() + users.limits.linger_seconds + 1)
        while users.connections and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        await users.close()
