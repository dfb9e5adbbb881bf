"""Carry out what becomes of a deleted VectorIndex's artifacts: one look, on live reads. What to do: core/leftovers.py.

It stands beside the pass over a VectorIndex of that name, because there may be none, or another one, even one of
another operator's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from vectorindex_operator.api.v1alpha1 import API_VERSION
from vectorindex_operator.core.holds import ours
from vectorindex_operator.core.leftovers import LOOK_SECONDS, NextStep, next_steps
from vectorindex_operator.core.state import Installation
from vectorindex_operator.manifests import jobs, labels
from vectorindex_operator.reconcile import held, raw
from vectorindex_operator.reconcile.errors import NamespaceTerminatingError, RefusedError
from vectorindex_operator.reconcile.ports import Cluster, Events, Raw

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Looks at what the VectorIndexes of one name left. Holds nothing between looks."""

    cluster: Cluster
    events: Events
    settings: Installation

    def look(self, namespace: str, name: str, now: float) -> float | None:
        """Seconds until the next look; None: nothing is left. Raises errors.ClusterError; `now`: unix seconds."""
        selector = labels.of_index(name)
        revisions = self.cluster.children(held.REVISION_KIND, namespace, selector)
        if not any(held.is_leaving(one) for one in revisions):
            return None
        # After the revisions: one that was deleted before a VectorIndex that is there was not deleted along with it.
        index = self.cluster.get("VectorIndex", namespace, name)
        children = {kind: self.cluster.children(kind, namespace, selector) for kind in ("Job", "Pod")}
        left = held.left(namespace, name, index, {held.REVISION_KIND: revisions, **children}, self.settings.finalizer)
        steps = [self._begin(namespace, step) for step in next_steps(left, self.settings, now)]
        known = {raw.name(one): one for one in revisions}
        for step in steps:
            if step.over:
                self._let_go(namespace, name, step, known)
        return LOOK_SECONDS if steps else None

    def _begin(self, namespace: str, step: NextStep) -> NextStep:
        """Stop and start what the step says; what becomes of it where that is refused."""
        try:
            for name, uid in step.stop:
                self.cluster.delete("Job", namespace, name, uid)
            if step.start is not None and self.cluster.create(jobs.collect_left(step.start, self.settings)) is None:
                log.info("there is a Job/%s already", step.start.name, extra={"key": namespace})
                return step.given_up(f"Job/{step.start.name} is somebody else's") if step.overdue else step
        except NamespaceTerminatingError as error:
            return step.given_up(str(error))
        except RefusedError as error:
            log.info("what a deleted VectorIndex left is not removed yet: %s", error, extra={"key": namespace})
            return step.given_up(str(error)) if step.overdue else step
        return step

    def _let_go(self, namespace: str, name: str, step: NextStep, known: dict[str, Raw]) -> None:
        """Say what became of it, then take the finalizers off: whoever dies in between says it twice."""
        if step.event is not None:
            about = {"namespace": namespace, "name": name, "uid": step.uid}
            self.events.send({"apiVersion": API_VERSION, "kind": "VectorIndex", "metadata": about}, step.event)
        for hold in step.holds:
            self.cluster.merge(with_finalizer(known[hold.name], ""))


def with_finalizer(revision: Raw, finalizer: str, version: str = "") -> dict[str, object]:
    """The merge patch that leaves a revision this finalizer of ours and no other of ours. Lists are replaced whole, so
    it is based on a version: the one that was read, or `version`."""
    meta = raw.part(revision, "metadata")
    before = [one for one in meta.get("finalizers") or () if isinstance(one, str)]
    others = [one for one in before if one not in ours(before)]
    return {
        "apiVersion": API_VERSION,
        "kind": held.REVISION_KIND,
        "metadata": {
            "name": raw.name(revision),
            "namespace": raw.text(meta.get("namespace")),
            "resourceVersion": version or raw.text(meta.get("resourceVersion")),
            "finalizers": [*others, *([finalizer] if finalizer else [])],
        },
    }
