"""Puts the parts together: adapters into the reconciler, the reconciler into the queue, metrics around both."""

from __future__ import annotations

from dataclasses import dataclass

from vectorindex_operator import memory
from vectorindex_operator.adapters.admin_port import AdminPort
from vectorindex_operator.adapters.events import KubeEvents
from vectorindex_operator.adapters.evidence import HttpSearchers
from vectorindex_operator.adapters.evidence_cache import EvidenceCache
from vectorindex_operator.adapters.kube import KubeCluster, connect
from vectorindex_operator.adapters.prometheus import Prometheus
from vectorindex_operator.adapters.second_tries import SecondTries
from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.adapters.webhook import Webhook
from vectorindex_operator.core.events import Event
from vectorindex_operator.reconcile.cache import LiveCluster, ReadCache
from vectorindex_operator.reconcile.looks import NoFigures
from vectorindex_operator.reconcile.loop import Reconciler
from vectorindex_operator.reconcile.ports import Raw
from vectorindex_operator.reconcile.queue import KeyedQueue
from vectorindex_operator.reconcile.relist import Relist
from vectorindex_operator.reconcile.watches import Watches, watches
from vectorindex_operator.settings import OperatorSettings
from vectorindex_operator.telemetry import Health, Metrics


@dataclass(slots=True)
class CountedEvents:
    """Sends Events and counts them."""

    inner: KubeEvents
    metrics: Metrics

    def send(self, regarding: Raw, event: Event) -> None:
        self.metrics.on_event(regarding["metadata"]["namespace"], regarding["metadata"]["name"], event)
        self.inner.send(regarding, event)


@dataclass(slots=True)
class App:
    """One operator process."""

    settings: OperatorSettings
    cluster: KubeCluster
    cache: ReadCache
    queue: KeyedQueue
    relist: Relist
    metrics: Metrics
    watches: Watches
    health: Health


def build(settings: OperatorSettings) -> App:
    """Connect to the cluster and wire everything; nothing runs yet."""
    metrics, tuning = Metrics(), settings.tuning
    cluster = KubeCluster(
        connect(),
        on_write=lambda kind: metrics.writes.labels(kind).inc(),
        seconds=tuning.request_seconds,
        second_tries=SecondTries(on_second=metrics.second_reads.inc),
    )
    cache = ReadCache()
    evidence = EvidenceCache(on_displaced=metrics.evidence_displaced.inc)
    metrics.evidence_bytes.set_function(lambda: evidence.held)
    port = AdminPort(tuning.searcher_connections, tuning.evidence_mebibytes << 20)
    server = settings.prometheus
    events = CountedEvents(KubeEvents(cluster, settings.identity), metrics)
    reconciler = Reconciler(
        cluster=LiveCluster(cluster, cache),
        searchers=HttpSearchers(
            Signer(settings.installation.internal_keys),
            port,
            evidence,
        ),
        events=events,
        settings=settings.installation,
        cache=cache,
        operator_class=settings.operator_class,
        courier=None if settings.receiver is None else Webhook(settings.receiver, port.start),
        on_notice=metrics.on_notice,
        figures=NoFigures() if server is None else Prometheus(server, port.start),
        on_status=metrics.on_status,
        on_loaded=metrics.on_loaded,
        on_gone=metrics.forget,
        on_poll=metrics.on_poll,
        on_artifact=metrics.on_artifact,
        on_fresh=metrics.on_fresh,
        on_answer=lambda namespace, name: queue.mark(namespace, name),
    )
    queue = KeyedQueue(reconciler.run, workers=tuning.workers, on_result=metrics.on_result)
    metrics.depth.set_function(queue.depth)
    metrics.longest_wait.set_function(queue.longest_wait)
    metrics.longest_running.set_function(queue.longest_running)
    alive = watches(settings.watch_namespaces)
    metrics.watches.set_function(alive.running)
    metrics.cached.set_function(lambda: cache.size()[0])
    metrics.cached_bytes.set_function(lambda: cache.size()[1])
    longest = tuning.stuck_seconds
    health = Health(stuck=lambda: queue.stuck(longest) or alive.stuck(longest) or reconciler.looks.stuck(longest))
    relist = Relist(
        cache, cluster, queue.mark, settings.watch_namespaces, on_missed=metrics.missed.inc, on_done=memory.give_back
    )
    return App(settings, cluster, cache, queue, relist, metrics, alive, health)
