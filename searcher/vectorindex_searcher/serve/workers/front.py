"""The front process of a pod with several search processes: the admin port, the evidence of all of them, and the user
port, whose connections it gives to whichever holds the fewest.

Up from the first moment, and knows no index: the process that made it loads, and says what there is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ... import contract
from ...errors import TaskError
from ...proof.live.sample import LiveQuery
from ..admin import AdminApp
from ..evidence.feedback import Feedback, QueryId
from ..evidence.increments import Increment
from ..evidence.live_queries import LiveQueries
from ..evidence.metrics import Gauges, SearcherMetrics
from ..evidence.ring import EvidenceRing, LiveTally
from ..fresh import fresh_task
from ..http import limits
from ..http.acceptor import Acceptor
from ..http.auth import Tokens
from ..http.listener import Listener
from ..http.messages import Problem
from ..http.mounted import watch
from ..point import PodPoint
from ..ports import open_port, port_unavailable
from ..settings import Settings
from ..source import SourceListing
from .board import Board, Line
from .channel import Channel
from .family import Family
from .fresh import FrontFresh
from .memory import read
from .scans import FrontScans
from .shadowing import PodShadows
from .traffic import SharedTraffic

STALLED_SECONDS = 2.0
"""A worker that says nothing for so long does not answer its users either: a probe would have waited as long, and so
does evidence."""
_log = logging.getLogger(__name__)


class _Worker:
    """A search process, as the front sees it."""

    def __init__(self, number: int, pid: int, channel: Channel, line: Line) -> None:
        self.number, self.pid, self.channel, self.line = number, pid, channel, line
        self.ready = False
        self.drained: int | None = None
        self.gone = False
        self.told = -1
        """Number of the last report."""
        self.given = 0
        """Connections since the start."""

    @property
    def load(self) -> int:
        """Connections that it holds, and those on their way to it."""
        return self.line.connections + self.given - self.line.received

    @property
    def stalled(self) -> bool:
        return time.monotonic() - self.line.beaten > STALLED_SECONDS


class Front:
    """`run` once, in its own process."""

    def __init__(
        self,
        task: contract.ServeTask,
        settings: Settings,
        control: Channel,
        board: Board,
        admin_limits: limits.Limits,
        tokens: Tokens | None,
    ) -> None:
        """`tokens`: for their names; it checks none."""
        self._task, self._settings, self._control, self._board = task, settings, control, board
        self._admin_limits, self._tokens = admin_limits, tokens
        self._traffic = SharedTraffic(self._tell_all)
        self._ring = EvidenceRing(task.segments)
        self._point = PodPoint(self._ring, self._use_point)
        self._gauges = Gauges()
        first = os.getppid()
        family = Family(first, lambda: [os.getpid(), *(worker.pid for worker in self._workers)])
        self._metrics = SearcherMetrics(task.revision, self._ring, self._gauges, family)
        self._feedback = Feedback(task.revision, self._ring)
        self._ignored: Counter[str] = Counter()
        self._spans: Counter[str] = Counter()
        self._uses: Counter[str] = Counter()
        self._gauges.feedback, self._gauges.ignored_params = self._feedback.results, self._ignored
        self._gauges.spans = self._spans
        self._source = SourceListing.told(settings.source, self._gauges)
        self._progress = "starting"
        self._workers: list[_Worker] = []
        self._expected = 0
        self._facts: dict[str, object] = {}
        self._points: tuple[contract.ServingPoint, ...] = ()
        self._acceptor: Acceptor | None = None
        self._reports = 0
        self._queries: LiveQueries | None = None
        self._canary: bytes | None = None
        self._scans = FrontScans(control.send)
        self._background: list[asyncio.Task[None]] = []
        self._rows_known: Mapping[str, object] = {}
        """Their number, and the fingerprint of what is deleted."""
        self._rows = -1
        """Descriptor of the rows that may be answered, kept for a worker that had no room for it; -1: all."""
        told = fresh_task(settings.fresh)
        self._fresh = FrontFresh(control.send, self._tell_all) if told is not None else None
        self._next = 0
        self._shadows = PodShadows(
            task,
            settings,
            self._ring.incarnation,
            first=control.send,
            workers=self._tell_all,
            ready=lambda: self._expected if self._acceptor is not None else 0,
            settled=self._settled,
        )
        for name, results in self._shadows.results.items():
            setattr(self._gauges, name, results)

    async def run(self) -> None:
        """Until the loading process says that it ends, or is gone. What cannot be done is told to it."""
        sys.setswitchinterval(0.0005)
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[float] = loop.create_future()
        self._changed = asyncio.Event()
        admin = self._relief = Listener(self._admin(), self._task.revision, self._admin_limits)
        if self._tokens is not None:
            self._background.append(loop.create_task(watch([self._tokens])))
        try:
            await self._open_admin(admin)
            self._control.listen(self._hear, self._orphaned)
            await self._drain(await self._ended)
        except TaskError as error:
            code = int(error.exit_code)
            self._control.send({"say": "failed", "failure": error.failure.wire(), "code": code})
        finally:
            for task in self._background:
                task.cancel()
            if self._acceptor is not None:
                self._acceptor.close()
            for worker in self._workers:
                worker.channel.close()
            await admin.close()

    async def _open_admin(self, admin: Listener) -> None:
        host, port = self._settings.host, self._settings.admin_port
        got = await open_port(admin, "admin", port, host)
        _log.info("admin port open", extra={"port": got, "revision": self._task.revision})

    def _admin(self) -> AdminApp:
        return AdminApp(
            self._task,
            self._settings,
            self._traffic,
            self._ring,
            self._read_metrics,
            lambda: self._progress,
            queries=lambda: self._queries,
            source=self._source,
            settled=self._settled,
            stalled=self._stalled,
            shadowing=self._shadows,
            point=self._point,
            fresh=self._fresh.port if self._fresh is not None else None,
            canary=lambda: self._canary,
            nearest=self._scans.ask if self._task.live_recall and self._task.shard is not None else None,
        )

    async def _use_point(self, point: contract.ServingPoint) -> None:
        """Messages are heard in their order: who has said what it counted answers at this point already."""
        self._tell_all({"do": "point", "point": point.value})
        await self._settled()

    # ------------------------------------------------------------ from the loading process

    def _hear(self, message: Mapping[str, Any], descriptor: int) -> None:
        match message["do"]:
            case "progress":
                self._progress = message["sentence"]
            case "loaded":
                self._facts, self._expected = message["facts"], message["workers"]
                self._points = tuple(map(contract.ServingPoint, message["points"]))
                if self._task.judges_live:
                    self._ring.live_before = int(time.time()) // contract.BUCKET_SECONDS
                if self._settings.live_queries:
                    key, dimension = self._settings.internal_key, message["facts"]["dimension"]
                    self._queries = LiveQueries(dimension, self._task.segments, key)
                    self._background.append(asyncio.create_task(self._queries.watch()))
            case "gauges":
                for name, value in message["gauges"].items():
                    setattr(self._gauges, name, value)
            case "nearest":
                self._scans.hear(message["number"], descriptor)
            case "canary":
                self._canary = read(descriptor)
            case "rows":
                self._take_rows(message, descriptor)
            case "fresh" if self._fresh is not None:
                self._fresh.hear(message, descriptor)
            case "policies":
                self._gauges.tokens_without_rows = message["withoutRows"]
            case "sample":
                self._tell_all(message)
            case "live":
                self._record_live(message)
            case "worker":
                self._add_worker(message["pid"], descriptor)
            case "died":
                _log.error("a search process died; the pod ends", extra={"problem": message["how"]})
                self._end(0.0)
            case "end":
                self._end(message["grace"])
            case _:
                if not self._shadows.hear_first(message):
                    raise ValueError(message)

    def _orphaned(self) -> None:
        self._end(0.0)

    def _end(self, grace: float) -> None:
        self._traffic.end()
        self._tell_all({"do": "end"})
        if not self._ended.done():
            self._ended.set_result(grace)

    def _record_live(self, message: Mapping[str, Any]) -> None:
        for tally in message["tallies"]:
            self._ring.record_live(LiveTally(**tally))
        if message["next"] is not None:
            self._ring.live_before = message["next"]
            self._gauges.live_recall_cpu_seconds = message["cpu"]

    def _take_rows(self, message: Mapping[str, Any], descriptor: int) -> None:
        """The rows that may be answered from now on; -1: all."""
        self._rows, before = descriptor, self._rows
        self._rows_known = {"number": message["number"], "fingerprint": message["fingerprint"]}
        if before >= 0:
            os.close(before)
        for worker in self._workers:
            self._show_rows(worker)

    def _show_rows(self, worker: _Worker) -> None:
        if not worker.gone:
            some = self._rows >= 0
            message = {"do": "rows", "some": some, **self._rows_known}
            worker.channel.send(message, self._rows if some else None)

    def _tell_all(self, message: Mapping[str, object], descriptor: int | None = None) -> None:
        for worker in self._workers:
            if not worker.gone:
                worker.channel.send(message, descriptor)

    # ------------------------------------------------------------ from the workers

    def _add_worker(self, pid: int, descriptor: int) -> None:
        number = len(self._workers)
        worker = _Worker(number, pid, Channel(socket.socket(fileno=descriptor)), self._board.line(number))
        self._workers.append(worker)

        def gone() -> None:
            worker.gone = True
            self._changed.set()

        worker.channel.listen(lambda message, more: self._hear_worker(worker, message, more), gone)

    def _hear_worker(self, worker: _Worker, message: Mapping[str, Any], descriptor: int) -> None:
        match message["say"]:
            case "counted":
                self._ring.add(Increment.of(message["increment"]))
            case "used":
                self._uses.update(message["tokens"])
                self._ignored.update(message["ignored"])
                self._spans.update(message["spans"])
            case "sample":
                self._control.send({"say": "sample", "worker": worker.number, "since": message["since"]}, descriptor)
                os.close(descriptor)
            case "lost rows":
                self._show_rows(worker)
            case "lost fresh" if self._fresh is not None:
                self._fresh.send_again(worker.channel)
            case "query":
                self._keep(message["query"], descriptor)
            case "asked" if self._queries is not None:
                self._queries.add_counts(message["hour"], message["counts"])
            case "told":
                worker.told = message["number"]
                self._changed.set()
            case "click":
                result = self._feedback.take(QueryId.of(message["query"]), message["rank"])
                worker.channel.send({"do": "click", "number": message["number"], "result": result})
            case "ready":
                worker.ready = True
                if (lease := self._traffic.lease_left()) is not None:
                    worker.channel.send(lease)
                if sum(one.ready for one in self._workers) == self._expected:
                    self._background.append(asyncio.create_task(self._begin()))
            case "drained":
                worker.drained = message["unanswered"]
                self._changed.set()
            case _:
                self._shadows.hear(worker.number, message, descriptor)

    def _keep(self, query: Mapping[str, Any], descriptor: int) -> None:
        """A live query that has a place in its worker's sample. One that came without its vector is left out."""
        if descriptor < 0 or self._queries is None:
            return
        names = {"name": bytes.fromhex(query["name"]), "sender": bytes.fromhex(query["sender"])}
        self._queries.add(LiveQuery(**{**query, **names, "vector": read(descriptor)}))

    # ------------------------------------------------------------ users

    async def _begin(self) -> None:
        """What was ordered while the index was being loaded is done first: a process that is slow to say so holds up
        nobody, and is told again."""
        with suppress(Problem):
            await self._point.open(self._points)
        if not self._ended.done():
            self._open()

    def _open(self) -> None:
        """Open the user port, then say ready: in this order, so that ready never means refused."""
        host, port = self._settings.host, self._settings.http_port
        try:
            self._acceptor = Acceptor(host, port, self._accepted, self._relief.make_room)
        except OSError as error:
            self._tell_all({"do": "finish", "seconds": 0.0})
            self._ended.set_exception(port_unavailable(error, "http", port, host))
            return
        self._traffic.open()
        self._progress = "serving"
        _log.info("ready", extra={"port": self._acceptor.port} | self._facts)

    def _accepted(self, accepted: socket.socket) -> None:
        """Give it to the worker that holds the fewest, one after the other where several do."""
        count = len(self._workers)
        self._next = (self._next + 1) % count
        order = [self._workers[(self._next + step) % count] for step in range(count)]
        for worker in sorted(order, key=lambda one: (one.stalled, one.load)):
            if not worker.gone and worker.channel.hand(accepted):
                worker.given += 1
                return
        accepted.close()

    # ------------------------------------------------------------ what the admin port tells

    def _stalled(self) -> str:
        if not self._traffic.ready:
            return ""
        late = [str(worker.number) for worker in self._workers if worker.stalled]
        return f"search process {', '.join(late)} does not answer" if late else ""

    async def _settled(self) -> float:
        """Have all workers say what they counted; when they were asked, unix seconds.

        Raises Problem 503 when one does not: counts without its own would look whole, and to put `now` back would look
        like a clock that is late. A single process that hangs does not answer either.
        """
        asked = time.time()
        self._reports += 1
        number = self._reports
        self._tell_all({"do": "report", "number": number})
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                while any(worker.told < number for worker in self._workers if not worker.gone):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            late = [str(worker.number) for worker in self._workers if worker.told < number and not worker.gone]
            detail = f"search process {', '.join(late)} has not said what it counted within {STALLED_SECONDS:g} s"
            remedy = "ask again; probes tell whether it goes on"
            raise Problem(503, "Stalled", detail, remedy=remedy) from None
        return asked

    def _read_metrics(self) -> SearcherMetrics:
        gauges, lines = self._gauges, [worker.line for worker in self._workers if not worker.gone]
        gauges.ready = self._traffic.ready
        gauges.queue_vectors = sum(line.waiting for line in lines)
        gauges.in_flight = sum(line.in_flight for line in lines)
        gauges.live_queries = len(self._queries) if self._queries is not None else None
        gauges.connections = sum(line.connections for line in lines)
        gauges.fresh = self._fresh.port.look() if self._fresh is not None else None
        if self._tokens is not None:
            gauges.token_uses = {name: self._uses[name] for name in (*self._tokens.names, *self._uses)}
        return self._metrics

    # ------------------------------------------------------------ the end

    async def _drain(self, grace: float) -> None:
        """As a single process does it: take what still comes, then let the workers answer what is owed."""
        self._progress = "draining"
        deadline = time.monotonic() + self._settings.drain_seconds
        if self._acceptor is not None:
            await asyncio.sleep(min(grace, self._settings.drain_seconds))
            self._acceptor.close()
        left = max(0.0, deadline - time.monotonic())
        self._tell_all({"do": "finish", "seconds": left})
        linger = limits.Limits().linger_seconds + 2
        try:
            async with asyncio.timeout(left + linger):
                while any(worker.drained is None and not worker.gone for worker in self._workers):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            _log.error("a search process did not end in time")
        if self._acceptor is not None:
            _log.info("drained", extra={"unanswered": sum(worker.drained or 0 for worker in self._workers)})
