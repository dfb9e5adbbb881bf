"""One pass over one VectorIndex: observe, decide, act, report. Everything else in the operator exists to call this.

1 observe   read the cluster, Job results, evidence     -> Observation
2 decide    core.lifecycle.decide(observation, now)     -> Plan (pure)
3 act       execute the plan's actions in order
4 report    one status write if anything changed, then Events
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from vectorindex_operator.api.v1alpha1 import VectorIndexStatus
from vectorindex_operator.core.lifecycle import decide
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.plan import Plan
from vectorindex_operator.core.state import Installation
from vectorindex_operator.reconcile.cache import CachedCluster, NotCachedError, ReadCache
from vectorindex_operator.reconcile.claims import DEFAULT_CLASS, class_of
from vectorindex_operator.reconcile.errors import ClusterError
from vectorindex_operator.reconcile.execute import Executor
from vectorindex_operator.reconcile.observe import observe
from vectorindex_operator.reconcile.ports import Cluster, Events, Searchers

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reconciler:
    """Runs passes. Holds no state between them: whatever matters is on Kubernetes objects."""

    cluster: Cluster
    searchers: Searchers
    events: Events
    settings: Installation
    cache: ReadCache | None = None
    """What the watches told; `cluster` must feed it (cache.LiveCluster). None: every pass is made on live reads."""
    operator_class: str = DEFAULT_CLASS
    """Which VectorIndexes are ours (claims.py)."""
    on_status: Callable[[str, str, VectorIndexStatus], None] = lambda namespace, name, status: None
    on_gone: Callable[[str, str], None] = lambda namespace, name: None
    clock: Callable[[], float] = time.time

    def run(self, namespace: str, name: str) -> float | None:
        """One pass. Returns the seconds until the next look, None when the VectorIndex is gone.

        Raises errors.ClusterError; the queue decides when to try again.
        """
        if self.cache is not None:
            raw = self.cache.get("VectorIndex", namespace, name)
            if raw is not None and class_of(raw) != self.operator_class:
                return self._leave(namespace, name)
            try:
                return self._pass(CachedCluster(self.cache), namespace, name, live=False)
            except (NotCachedError, ClusterError) as reason:
                # Something is to be written, or cannot be told from the cache: decided anew on live reads.
                log.debug("looking again, live: %s", reason, extra={"key": f"{namespace}/{name}"})
        return self._pass(self.cluster, namespace, name, live=True)

    def _pass(self, cluster: Cluster, namespace: str, name: str, *, live: bool) -> float | None:
        """One pass. One that is not `live` ends with NotCachedError before it would write anything."""
        obs = observe(cluster, self.searchers, namespace, name, self.clock())
        if obs is None:
            if not live:
                raise NotCachedError("the VectorIndex is not there")
            return self._leave(namespace, name)
        if class_of(obs.objects["VectorIndex", name]) != self.operator_class:
            return self._leave(namespace, name)
        plan = self._claimed(obs, decide(obs, self.settings, self.clock()))
        if not live and (plan.events or plan.errors):
            raise NotCachedError("there is something to tell")
        for error in plan.errors:
            log.error("a bug: a step of this pass failed", exc_info=error, extra={"key": f"{namespace}/{name}"})
        self._act_and_report(cluster, obs, plan)
        self.on_status(namespace, name, plan.status)
        return plan.requeue_after

    def _leave(self, namespace: str, name: str) -> float | None:
        """There is nothing to do here any more: it is gone, or another operator's."""
        self.on_gone(namespace, name)
        return None

    def _claimed(self, obs: Observation, plan: Plan) -> Plan:
        """The plan, whose status says whose the VectorIndex is."""
        if obs.index.deleting or plan.status.operator == self.operator_class:
            return plan
        return replace(plan, status=plan.status.model_copy(update={"operator": self.operator_class}))

    def _act_and_report(self, cluster: Cluster, obs: Observation, plan: Plan) -> None:
        executor = Executor(cluster, self.searchers, self.settings)
        live = obs.objects[("VectorIndex", obs.index.name)]
        seen_first = not obs.index.status.conditions and not obs.index.deleting
        if seen_first:
            # kstatus takes an object without conditions for finished, so the first word comes before any work.
            executor.write_status("VectorIndex", obs.index.name, plan.status, obs)
        executor.run(plan.actions, obs, obs.index.spec)
        if not seen_first and plan.status != obs.index.status:
            executor.write_status("VectorIndex", obs.index.name, plan.status, obs)
        for event in plan.events:
            self.events.send(live, event)
