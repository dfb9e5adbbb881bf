"""kopf as trigger: every event of a VectorIndex or of a child goes into the cache and marks its key dirty. No logic, no
finalizers.

`on.event` stores nothing on objects and runs without kopf's consistency waits; its errors would only be logged, so it
does nothing that can fail. Events of one object come in order; kopf tells what there is (type None) when a watch
begins, and again when one had fallen too far behind, but never what vanished meanwhile: the relist finds that.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Protocol

import kopf

from vectorindex_operator.adapters.kube import WHOLE_PAGE
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile.cache import INDEX_KIND, ReadCache, index_of
from vectorindex_operator.reconcile.queue import KeyedQueue
from vectorindex_operator.reconcile.relist import Relist
from vectorindex_operator.reconcile.watches import WATCHED, Watches

REST_SECONDS = 0.01
"""For so long kopf keeps the task, and the last event, of an object that nothing more is told of: by default five
seconds, in which a listing tells of every object that there is."""


def registry(queue: KeyedQueue, cache: ReadCache, began: Callable[[], None]) -> kopf.OperatorRegistry:
    """kopf's handlers, all of them."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    for one in WATCHED:

        @kopf.on.event(one.group, one.version, one.plural, registry=handlers, id=f"{one.plural}-changed")
        async def changed(event: Any, **_: Any) -> None:
            told(queue, cache, event, began)

    return handlers


class Marked(Protocol):
    """Where looks are asked for: the queue."""

    def mark(self, namespace: str, name: str) -> None: ...


def told(queue: Marked, cache: ReadCache, event: Any, began: Callable[[], None] = lambda: None) -> None:
    """A watch told something: what is news gets its VectorIndex a look. `began`: it lists what there is."""
    raw = event["object"]
    if event["type"] is None:
        began()
    if event["type"] == "DELETED":
        cache.remove(raw)
    elif not cache.put(raw):
        return
    namespace, index = raw["metadata"]["namespace"], index_of(raw)
    if raw["kind"] == INDEX_KIND or cache.knows(namespace, index) or cache.leaving.has(namespace, index):
        queue.mark(namespace, index)


def operator_settings() -> kopf.OperatorSettings:
    """kopf's settings: no peering, no scanning, watches that end and are renewed, children filtered by the server."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.chunk_size = WHOLE_PAGE
    settings.queueing.idle_timeout = REST_SECONDS
    settings.process.ultimate_exiting_timeout = 5
    for one in WATCHED[1:]:
        key = f"{one.plural}.{one.version}.{one.group}" if one.group else one.plural
        settings.watching.label_selectors[key] = f"{labels.MANAGED_BY}={labels.OPERATOR}"
    return settings


def run(queue: KeyedQueue, relist: Relist, namespaces: tuple[str, ...], alive: Watches, stop: threading.Event) -> None:
    """Run kopf until `stop` is set. Blocks."""

    async def watched() -> None:
        beat = asyncio.create_task(alive.beat())
        try:
            await kopf.operator(
                registry=registry(queue, relist.cache, relist.soon),
                settings=operator_settings(),
                standalone=True,
                clusterwide=not namespaces,
                namespaces=namespaces,
                stop_flag=stop,
            )
        finally:
            beat.cancel()

    asyncio.run(watched())
