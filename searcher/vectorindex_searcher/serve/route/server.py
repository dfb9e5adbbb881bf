"""The life of a router: admin port, shards that answer, a proof, user port, traffic, drain."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ... import contract
from ...errors import BadSpec
from ...storage.cache import Held
from ...text.encoder import Encoder
from ...text.open import open_encoder
from ..admin import AdminApp
from ..background import on_thread
from ..drain import drain, told_to_end
from ..evidence.feedback import Feedback
from ..evidence.live_sample import LiveSample
from ..evidence.metrics import Gauges, SearcherMetrics
from ..evidence.recorder import Outcome
from ..evidence.ring import EvidenceRing
from ..http import limits
from ..http.auth import Tokens
from ..http.listener import Listener
from ..http.messages import Response
from ..http.mounted import Mounted, watch
from ..http.tls import Certificate
from ..ports import open_port
from ..search.plan import Planner, SearchPlan
from ..search.policies import Policies
from ..settings import Settings
from ..tracing.spans import Spans
from ..traffic import Traffic
from .admin_ports import AdminPorts
from .app import NOWHERE, RouterApp, any_vector
from .canary import prove
from .facts import Facts
from .link import Room
from .live_recall import MergedRecall, offer
from .pods import LOOK_SECONDS, Shard
from .reading import Reading
from .router import SHARD_SECONDS, Router
from .token import ShardToken

FIRST_LOOK_SECONDS = 0.1
"""Between two looks while shards are missing."""
_THREADS = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Told:
    """What only a router is told, besides its task."""

    shard_token_file: Path | None = None

    @classmethod
    def from_process(cls, flags: Mapping[str, object]) -> Told:
        """Of the command line's flags, else of the environment."""
        given = flags.get("shard_token_file") or os.environ.get(contract.SHARD_TOKEN_ENV)
        return cls(Path(str(given)) if given else None)


class Server:
    """One router process. `run` once."""

    def __init__(self, task: contract.RouteTask, settings: Settings, told: Told = Told()) -> None:
        """Raises BadSpec when a token file or the certificate cannot be used, and where everybody would see what
        shards show to the holders of tokens alone."""
        self._task, self._settings = task, settings
        self._traffic = Traffic()
        self._ring = EvidenceRing(task.segments)
        self._gauges = Gauges()
        self._progress = "starting"
        self._token = ShardToken(told.shard_token_file, settings.policy_file)
        if told.shard_token_file is not None and settings.token_file is None:
            remedy = "Give --token-file or VECTORINDEX_TOKEN_FILE as well, or no token for shards."
            message = "shards ask for a token and users would not be asked for one"
            raise BadSpec("BadSetting", message, field="--token-file", remedy=remedy)
        self._tokens = Tokens(settings.token_file) if settings.token_file else None
        self._policies = Policies.told(settings.policy_file, self._tokens)
        self._certificate: Certificate | None = None
        if settings.tls_cert is not None and settings.tls_key is not None:
            self._certificate = Certificate(settings.tls_cert, settings.tls_key)
        self.facts, self.room = Facts(task), Room()
        self.shards = [
            Shard(number, places, self.room, lambda: self._token.header, partial(self.facts.check, number))
            for number, places in enumerate(task.shards)
        ]
        self._app: RouterApp | None = None
        self._encoder: Encoder | None = None
        self._encoder_held: Held | None = None
        self.router: Router | None = None
        """Once every shard has said what it is."""
        self._executor = ThreadPoolExecutor(_THREADS, "route")
        self._reading = Reading(self.room, self._executor)
        self._users: Listener | None = None
        self.admin: int | None = None
        """The ports, once they are open."""
        self.users: int | None = None
        self._spans: Spans | None = None
        self._span_counts: Counter[str] = Counter()
        self._begun: list[asyncio.Task[None]] = []
        """What goes on to the end."""
        self._user_limits = limits.Limits()
        self._metrics = SearcherMetrics(task.revision, self._ring, self._gauges)

    async def run(self) -> None:
        """Route until SIGTERM or SIGINT, then drain."""
        sys.setswitchinterval(0.0005)  # threads merge long answers; the loop waits for the interpreter's lock
        loop = asyncio.get_running_loop()
        ended = told_to_end(self._traffic, self._settings.grace_seconds)
        self._user_limits, admin_limits = limits.share_descriptors(
            limits.raise_descriptors(), limits.open_descriptors(), tls=self._certificate is not None
        )
        probes = AdminApp(
            self._task, self._settings, self._traffic, self._ring, self._read_metrics, lambda: self._progress
        )
        admin = Listener(probes, self._task.revision, admin_limits)
        self.admin = await open_port(admin, "admin", self._settings.admin_port, self._settings.host)
        _log.info("admin port open", extra={"port": self.admin, "revision": self._task.revision})
        mounted: list[Mounted] = [self._token]
        mounted += [one for one in (self._tokens, self._policies, self._certificate) if one is not None]
        self._begun += [loop.create_task(watch(mounted)), loop.create_task(self._look())]
        starting = loop.create_task(self._start(admin, probes))
        try:
            await asyncio.wait((starting, ended), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                starting.result()
            grace = await ended
            self._progress = "draining"
            if self._users is not None:
                await drain(self._users, grace, self._settings.drain_seconds)
        finally:
            for task in (starting, *self._begun):
                task.cancel()
            await asyncio.gather(starting, *self._begun, return_exceptions=True)
            await admin.close()
            for shard in self.shards:
                shard.close()
            for one in (self._app, self._encoder, self._encoder_held):
                if one is not None:
                    one.close()
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def _look(self) -> None:
        """At all shards, for ever."""
        while True:
            try:
                await asyncio.gather(*(shard.look(SHARD_SECONDS) for shard in self.shards))
            except Exception:
                _log.exception("looking at shards failed")
            await asyncio.sleep(LOOK_SECONDS if self._traffic.ready else FIRST_LOOK_SECONDS)

    async def _start(self, admin: Listener, probes: AdminApp) -> None:
        """Wait for every shard, prove that all answer a search and that merged answers are as good as the gate
        measured, then open the user port and say ready: for good. A shard that is missing later is an answer, which
        guardrails count; a Service without pods would say nothing. Raises BadData/CanaryRecall."""
        while waiting := self.facts.waiting:
            self._progress = f"{waiting}; {self._token.problem}" if self._token.problem else waiting
            await asyncio.sleep(FIRST_LOOK_SECONDS)
        whole = self.facts.whole()
        revision = probes.revision = whole.revision
        feedback = Feedback(revision, self._ring)
        text = whole.parts[0].id_type == "string"
        router = Router(self.shards, revision, feedback, self._reading, text=text, partial=self._task.partial)
        self.router = router
        self._progress = "asking every shard"
        schema = whole.schema()
        plan = Planner(schema, lambda *_: NOWHERE).plan({"k": 1}, binary=True)
        while not await self._answer(router, plan, schema.dimension):
            await asyncio.sleep(FIRST_LOOK_SECONDS)
        ports = AdminPorts(self._task, revision, self._settings.internal_key, self.room)
        if self._task.gate_hash:
            self._gauges.canary_recall = await prove(self.shards, ports, self._task.gate_hash, self._tell)
        encoder = await self._open_encoder(schema.dimension)
        if self._task.live_recall:
            sample = LiveSample(self._task.segments)
            router.offer = partial(offer, sample)
            judging = MergedRecall(self.shards, ports, sample, self._ring, self._executor)
            self._begun.append(asyncio.get_running_loop().create_task(judging.run()))
        app = self._app = RouterApp(
            whole,
            router,
            self._ring,
            feedback,
            tokens=self._tokens is not None,
            policies=self._policies,
            columns_before=self._settings.columns_before,
            encoder=encoder,
            threads=self._settings.threads,
        )
        self._metrics = SearcherMetrics(revision, self._ring, self._gauges)
        self._gauges.index_vectors = sum(part.count for part in whole.parts)
        self._gauges.feedback, self._gauges.ignored_params = feedback.results, app.ignored_params
        if self._settings.collector is not None:
            self._spans = Spans(self._settings.collector, revision)
        closing = self._traffic.closing
        users = Listener(app, revision, self._user_limits, closing, self._tokens, self._spans)
        tls = self._certificate.context if self._certificate is not None else None
        port = await open_port(users, "http", self._settings.http_port, self._settings.host, tls)
        self._users, admin.relieve = users, users.make_room
        self._traffic.open()
        self._progress = "serving"
        self.users = port
        facts = {"port": port, "revision": revision, "shards": len(self.shards), "count": self._gauges.index_vectors}
        _log.info("ready", extra={**facts, "tls": tls is not None, "tokens": self._tokens is not None})

    def _tell(self, sentence: str) -> None:
        self._progress = sentence

    async def _open_encoder(self, dimension: int) -> Encoder | None:
        """Raises TaskError, as open_encoder."""
        wanted = self._task.encoder
        if wanted is None:
            return None
        self._tell("opening the encoder")
        folder, most = Path(self._task.cache_dir), self._settings.cache_bytes
        opening = on_thread(partial(open_encoder, wanted, folder, most, dimension), "encoder")
        self._encoder, self._encoder_held = await opening
        return self._encoder

    async def _answer(self, router: Router, plan: SearchPlan, dimension: int) -> bool:
        """Whether every shard has answered a search, whatever becomes of answers without one."""
        told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        outcome = Outcome(contract.OTHER_SEGMENT)
        with suppress(Exception):
            router.ask(plan, any_vector(dimension), outcome, time.monotonic(), None).then(told.set_result)
            answer = await told
            return isinstance(answer, Response) and not (outcome.incomplete or outcome.excused)
        return False

    def _read_metrics(self) -> SearcherMetrics:
        gauges, users = self._gauges, self._users
        gauges.ready = self._traffic.ready
        gauges.in_flight = users.in_flight if users else 0
        gauges.connections = users.connections if users else 0
        gauges.shard_pods = {shard.number: shard.alive for shard in self.shards}
        gauges.shard_requests = {
            (shard.number, result): count for shard in self.shards for result, count in shard.results.items()
        }
        if self._spans is not None:
            self._span_counts.update(self._spans.take_counts())
            gauges.spans = self._span_counts
        if self._policies is not None:
            gauges.tokens_without_rows = len(self._policies.unusable)
        if self._tokens is not None:
            gauges.token_uses = {name: self._tokens.uses[name] for name in (*self._tokens.names, *self._tokens.uses)}
        return self._metrics
