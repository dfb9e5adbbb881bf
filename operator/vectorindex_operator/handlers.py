"""kopf as trigger: every event of a VectorIndex or of a child marks its key dirty. No logic, no state, no finalizers.

`on.event` stores nothing on objects and runs without kopf's consistency waits; its errors would only be logged, so it
does nothing that can fail. A silent watch costs one slow relist, not days.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import kopf

from vectorindex_operator.api.v1alpha1 import GROUP, VERSION
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile.queue import KeyedQueue
from vectorindex_operator.reconcile.watches import WATCHED, Watches

log = logging.getLogger(__name__)

CHILDREN = tuple(kind for kind in WATCHED if kind != (GROUP, VERSION, "vectorindexes"))


def registry(queue: KeyedQueue) -> kopf.OperatorRegistry:
    """kopf's handlers, all of them."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(GROUP, VERSION, "vectorindexes", registry=handlers)
    def index_changed(namespace: str | None, name: str | None, **_: Any) -> None:
        queue.mark(namespace or "", name or "")

    for group, version, plural in CHILDREN:

        @kopf.on.event(
            group, version, plural, registry=handlers, id=f"{plural}-changed", labels={labels.INDEX: kopf.PRESENT}
        )
        def child_changed(namespace: str | None, labels: Any, **_: Any) -> None:
            queue.mark(namespace or "", labels[f"{GROUP}/index"])

    return handlers


def operator_settings() -> kopf.OperatorSettings:
    """kopf's settings: no peering, no scanning, watches that end and are renewed, children filtered by the server."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.chunk_size = 500
    settings.process.ultimate_exiting_timeout = 5
    for group, version, plural in CHILDREN:
        key = f"{plural}.{version}.{group}" if group else plural
        settings.watching.label_selectors[key] = f"{labels.MANAGED_BY}={labels.OPERATOR}"
    return settings


def relist(
    queue: KeyedQueue, names: Callable[[], list[tuple[str, str]]], seconds: float, stop: threading.Event
) -> None:
    """Mark every VectorIndex every so often: what a watch missed is found. Reads only."""
    while not stop.is_set():
        try:
            for namespace, name in names():
                queue.mark(namespace, name)
        except Exception as error:
            log.warning("could not list VectorIndexes: %s", error)
        stop.wait(seconds)


def run(queue: KeyedQueue, namespaces: tuple[str, ...], alive: Watches, stop: threading.Event) -> None:
    """Run kopf until `stop` is set. Blocks."""

    async def watched() -> None:
        beat = asyncio.create_task(alive.beat())
        try:
            await kopf.operator(
                registry=registry(queue),
                settings=operator_settings(),
                standalone=True,
                clusterwide=not namespaces,
                namespaces=namespaces,
                stop_flag=stop,
            )
        finally:
            beat.cancel()

    asyncio.run(watched())
