"""The life of a searcher: admin port, load, user port, traffic, drain.

The only module here that knows the order of things.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

from .. import contract
from . import load
from .admin import AdminApp
from .app import SearchApp
from .background import on_thread
from .drain import drain, told_to_end
from .evidence.feedback import Feedback
from .evidence.live_queries import LiveQueries
from .evidence.live_recall import LiveRecall
from .evidence.live_sample import LiveSample
from .evidence.metrics import Gauges, SearcherMetrics
from .evidence.nearest import NearestScans
from .evidence.ring import EvidenceRing, LiveTally
from .fresh import comparing, fresh_task
from .fresh_port import FreshPort
from .fresh_watch import FreshWatch
from .http import limits
from .http.auth import Tokens
from .http.listener import Listener
from .http.mounted import Mounted, watch
from .http.tls import Certificate
from .point import PodPoint
from .ports import open_port
from .search.freshness import Freshness
from .search.policies import Policies
from .search.pool import SearchPool
from .settings import Settings
from .shadow.port import Shadowing
from .source import SourceListing
from .tombstones import Deletions, load_without_deleted
from .tracing.spans import Spans
from .traffic import Traffic

_log = logging.getLogger(__name__)


class Server:
    """One searcher process. `run` once."""

    def __init__(self, task: contract.ServeTask, settings: Settings) -> None:
        """Raises BadSpec when token file or certificate cannot be used: before anything is downloaded."""
        told = fresh_task(settings.fresh)
        self._task = task = comparing(task, told)
        self._settings = settings
        self._traffic = Traffic()
        self._ring = EvidenceRing(task.segments)
        self._point = PodPoint(self._ring, self._use_point)
        self._app: SearchApp | None = None
        self._gauges = Gauges()
        key = settings.internal_key
        self._shadowing = Shadowing(task, settings.pod, self._ring.incarnation, key, self._read_deleted_again)
        self._metrics = SearcherMetrics(task.revision, self._ring, self._gauges)
        self._source = SourceListing.told(settings.source, self._gauges)
        self._fresh = watch = FreshWatch(task, told, settings.pod) if told is not None else None
        self._fresh_port = FreshPort(lambda: watch.seen, watch.switch) if watch is not None else None
        self._progress = "starting"
        self._pool: SearchPool | None = None
        self._live: LiveRecall | None = None
        self._scans: NearestScans | None = None
        self._queries: LiveQueries | None = None
        self._deletions: Deletions | None = None
        self._users: Listener | None = None
        self._spans: Spans | None = None
        self._span_counts: Counter[str] = Counter()
        self._user_limits = limits.Limits()
        self._loaded: load.Loaded | None = None
        self._tokens = Tokens(settings.token_file) if settings.token_file else None
        self._policies = Policies.told(settings.policy_file, self._tokens)
        self._certificate: Certificate | None = None
        if settings.tls_cert is not None and settings.tls_key is not None:
            self._certificate = Certificate(settings.tls_cert, settings.tls_key)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain. Raises TaskError when the artifact is refused."""
        # Search threads run Python too: the loop waits for the interpreter's lock a tenth of the usual 5 ms.
        sys.setswitchinterval(0.0005)
        loop = asyncio.get_running_loop()
        ended = told_to_end(self._traffic, self._settings.grace_seconds)
        descriptors = limits.raise_descriptors()
        self._user_limits, admin_limits = limits.share_descriptors(
            descriptors, limits.open_descriptors(), tls=self._certificate is not None
        )
        admin = Listener(self._admin(), self._task.revision, admin_limits)
        port = await open_port(admin, "admin", self._settings.admin_port, self._settings.host)
        _log.info("admin port open", extra={"port": port, "revision": self._task.revision})
        mounted: list[Mounted] = [one for one in (self._tokens, self._policies, self._certificate) if one is not None]
        watching = loop.create_task(watch(mounted)) if mounted else None
        deleting: asyncio.Task[None] | None = None
        forgetting: asyncio.Task[None] | None = None
        refreshing: asyncio.Task[None] | None = None
        try:
            loading = on_thread(self._load, "load")
            await asyncio.wait((loading, ended), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                loading.add_done_callback(lambda future: future.cancelled() or future.exception())
                return
            self._users = await self._serve(loading.result())
            # Whichever port lacks a descriptor, the users' connections give theirs.
            admin.relieve = self._users.make_room
            if self._deletions is not None and self._task.tombstone_poll_seconds:
                deleting = loop.create_task(self._deletions.watch(self._task.tombstone_poll_seconds))
            if self._queries is not None:
                forgetting = loop.create_task(self._queries.watch())
            if self._fresh is not None:
                refreshing = loop.create_task(self._fresh.watch())
            grace = await ended
            self._progress = "draining"
            await drain(self._users, grace, self._settings.drain_seconds)
        finally:
            for task in (watching, deleting, forgetting, refreshing):
                if task is not None:
                    task.cancel()
            await admin.close()
            if self._loaded is not None:
                self._loaded.release()
            for scanning in (self._live, self._scans):
                if scanning is not None:
                    scanning.stop()
            self._shadowing.stop()
            if self._app is not None:
                self._app.close()
            if self._pool is not None:
                self._pool.close()

    def _load(self) -> load.Loaded:
        loaded, self._deletions = load_without_deleted(self._task, self._tell, self._settings, self._gauges)
        if self._fresh is not None:
            self._tell("reading fresh rows")
            self._fresh.open(loaded.engine, loaded.encoder)
        return loaded

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
            shadowing=self._shadowing,
            point=self._point,
            fresh=self._fresh_port,
            canary=lambda: self._loaded.canary if self._loaded is not None else None,
            nearest=self._find_nearest if self._task.live_recall and self._task.shard is not None else None,
        )

    def _find_nearest(self, data: bytes) -> asyncio.Future[bytes] | None:
        loop = asyncio.get_running_loop()
        told: asyncio.Future[bytes] = loop.create_future()

        def tell(found: bytes) -> None:
            if not told.done():
                told.set_result(found)

        def then(found: bytes) -> None:
            with suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(tell, found)

        return told if self._scans is not None and self._scans.ask(data, then) else None

    async def _use_point(self, point: contract.ServingPoint) -> None:
        assert self._app is not None
        self._app.serve_at(point)

    def _tell(self, sentence: str) -> None:
        self._progress = sentence
        _log.info(sentence, extra={"revision": self._task.revision})

    def _read_metrics(self) -> SearcherMetrics:
        gauges = self._gauges
        gauges.ready = self._traffic.ready
        gauges.queue_vectors = self._pool.waiting if self._pool else 0
        gauges.in_flight = self._users.in_flight if self._users else 0
        gauges.live_queries = len(self._queries) if self._queries is not None else None
        gauges.connections = self._users.connections if self._users else 0
        if self._spans is not None:
            self._span_counts.update(self._spans.take_counts())
            gauges.spans = self._span_counts
        if self._tokens is not None:
            gauges.token_uses = {name: self._tokens.uses[name] for name in (*self._tokens.names, *self._tokens.uses)}
        gauges.fresh = self._fresh_port.look() if self._fresh_port is not None else None
        if self._policies is not None:
            gauges.tokens_without_rows = len(self._policies.unusable)
        return self._metrics

    async def _serve(self, loaded: load.Loaded) -> Listener:
        """Open the user port, then say ready: in this order, so that ready never means refused."""
        gauges, engine = self._gauges, loaded.engine
        self._loaded = loaded
        gauges.index_bytes, gauges.index_vectors = engine.resident_bytes, engine.count
        gauges.load_seconds, gauges.canary_recall = loaded.seconds, loaded.canary_recall
        gauges.origins = loaded.origins
        # What was loaded stays to the end: the collector need not look through it while queries wait.
        gc.collect()
        gc.freeze()
        self._pool = SearchPool(self._settings.threads)
        live = self._sample_live(loaded)
        if self._settings.live_queries:
            self._queries = LiveQueries(engine.dimension, self._task.segments, self._settings.internal_key)
        feedback = Feedback(self._task.revision, self._ring)
        app = self._app = SearchApp(
            engine,
            self._task,
            self._pool,
            self._ring,
            feedback,
            loaded.points,
            live,
            self._queries,
            mirror=self._shadowing.send(engine, self._deleted, self._vectors),
            tokens=self._tokens is not None,
            policies=self._policies,
            limited=self._settings.params,
            columns_before=self._settings.columns_before,
            encoder=loaded.encoder,
            reranker=loaded.reranker,
            threads=self._settings.threads,
            shards=loaded.shards,
            fresh=self._freshness,
        )
        await self._point.open(app.points)
        self._shadowing.receive(app, engine, self._pool, self._deleted, self._vectors, self._settings.threads)
        gauges.feedback, gauges.ignored_params = feedback.results, app.ignored_params
        for name, results in self._shadowing.results.items():
            setattr(gauges, name, results)
        if self._settings.collector is not None:
            self._spans = Spans(self._settings.collector, self._task.revision)
        closing = self._traffic.closing
        users = Listener(app, self._task.revision, self._user_limits, closing, self._tokens, self._spans)
        tls = self._certificate.context if self._certificate is not None else None
        port = await open_port(users, "http", self._settings.http_port, self._settings.host, tls)
        self._traffic.open()
        self._progress = "serving"
        facts = {
            "port": port,
            "revision": self._task.revision,
            "count": engine.count,
            "dimension": engine.dimension,
            "threads": self._settings.threads,
            "tls": tls is not None,
            "tokens": self._tokens is not None,
            "loadSeconds": round(sum(loaded.seconds.values()), 3),
            "canaryRecall": loaded.canary_recall,
        }
        _log.info("ready", extra=facts)
        return users

    @property
    def _freshness(self) -> Freshness | None:
        return self._fresh.freshness if self._fresh is not None else None

    def _deleted(self) -> str:
        """Fingerprint of the deleted ids that are hidden now."""
        return self._deletions.fingerprint if self._deletions is not None else ""

    def _read_deleted_again(self) -> None:
        if self._deletions is not None:
            self._deletions.look_again()

    def _vectors(self) -> Path | None:
        """vectors.npy, which only live recall fetches."""
        return self._live.vectors if self._live is not None else None

    def _note_spent(self, cpu_seconds: float) -> None:
        """By exact scans, so far."""
        self._gauges.live_recall_cpu_seconds = cpu_seconds

    def _sample_live(self, loaded: load.Loaded) -> LiveSample | None:
        """Begin to measure live recall, if the task asks for it."""
        if self._task.live_recall and self._task.shard is not None:
            self._scans = NearestScans(self._task, loaded.engine, load.noting(loaded.origins), self._note_spent)
            self._scans.start()
        if not self._task.judges_live:
            return None
        loop, ring, engine = asyncio.get_running_loop(), self._ring, loaded.engine
        fresh = self._freshness
        live = (lambda: engine.live) if fresh is None else (lambda: fresh.live(engine.live))
        sample = LiveSample(self._task.segments, live=live)
        ring.live_before = int(sample.started) // contract.BUCKET_SECONDS

        def record(tallies: list[LiveTally], next_bucket: int, cpu_seconds: float) -> None:
            for tally in tallies:
                ring.record_live(tally)
            ring.live_before = next_bucket
            self._note_spent(cpu_seconds)

        def deliver(tallies: list[LiveTally], next_bucket: int, cpu_seconds: float) -> None:
            with suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(record, tallies, next_bucket, cpu_seconds)

        points = list(loaded.points.params.values()) if loaded.points else []
        self._live = LiveRecall(self._task, loaded.engine, points, sample.take, deliver, load.noting(loaded.origins))
        self._live.start()
        return sample
