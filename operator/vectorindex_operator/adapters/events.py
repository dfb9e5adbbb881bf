"""Kubernetes Events (events.k8s.io/v1) about a VectorIndex. Best effort: a lost Event loses no decision."""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass, field

from vectorindex_operator.adapters.event_budget import EventBudget
from vectorindex_operator.adapters.kube import KubeCluster
from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.core.events import Event
from vectorindex_operator.reconcile.errors import ClusterError
from vectorindex_operator.reconcile.ports import Raw

log = logging.getLogger(__name__)
NOTE_LIMIT = 1024


@dataclass(slots=True)
class KubeEvents:
    """Implements reconcile.ports.Events."""

    cluster: KubeCluster
    instance: str
    budget: EventBudget = field(default_factory=EventBudget)

    def send(self, regarding: Raw, event: Event) -> None:
        meta = regarding["metadata"]
        if not self.budget.allows(meta["uid"], event.reason, event.message):
            return
        log.info(
            "%s: %s",
            event.reason,
            event.message,
            extra={"key": f"{meta['namespace']}/{meta['name']}", "revision": event.revision, "reason": event.reason},
        )
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": meta["namespace"], "name": f"{meta['name']}.{uuid.uuid4().hex[:16]}"},
            "eventTime": to_text(time.time()),
            "type": "Warning" if event.warning else "Normal",
            "reason": event.reason,
            "action": event.reason,
            "note": event.message[:NOTE_LIMIT],
            "regarding": {
                "apiVersion": regarding["apiVersion"],
                "kind": regarding["kind"],
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
            "reportingController": "vectorindex.dev/operator",
            "reportingInstance": self.instance[:128],
        }
        try:
            self.cluster.create(body)
        except ClusterError as error:
            log.warning("event %s not sent: %s", event.reason, error)
