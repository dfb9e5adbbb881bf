"""Run the actions of a plan, one after the other. The first that fails stops the rest; the next pass goes on from what
is really there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vectorindex_operator.api.v1alpha1 import API_VERSION, VectorIndexSpec
from vectorindex_operator.core.internal_keys import addressee
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.plan import (
    Action,
    CreateRevision,
    DeleteJob,
    DeleteNetworkPolicy,
    DeleteSearchers,
    EnsureNetworkPolicy,
    EnsureSearchers,
    ForgetRevision,
    MoveTraffic,
    RenewLeases,
    StartBuild,
    StartResolve,
    StartValidation,
    WriteRevisionStatus,
)
from vectorindex_operator.core.state import Installation
from vectorindex_operator.manifests import labels
from vectorindex_operator.manifests.render import render
from vectorindex_operator.reconcile.drift import matches, same_rules
from vectorindex_operator.reconcile.errors import ConflictError, NotOursError
from vectorindex_operator.reconcile.ports import Cluster, Searchers
from vectorindex_searcher.contract import Model, TrafficLease


@dataclass(slots=True)
class Executor:
    """Turns actions into writes through the ports."""

    cluster: Cluster
    searchers: Searchers
    settings: Installation

    def run(self, actions: tuple[Action, ...], obs: Observation, spec: VectorIndexSpec | None) -> None:
        """Run `actions` in order. Raises errors.ClusterError at the first that fails."""
        for action in actions:
            self._run(action, obs, spec)

    def _run(self, action: Action, obs: Observation, spec: VectorIndexSpec | None) -> None:
        namespace = obs.index.namespace
        match action:
            case StartResolve() | StartBuild() | StartValidation() | CreateRevision():
                for manifest in render(action, obs, spec, self.settings):
                    self.cluster.create(manifest)
            case EnsureNetworkPolicy() | EnsureSearchers():
                for manifest in render(action, obs, spec, self.settings):
                    self._keep(manifest, obs)
            case MoveTraffic():
                for manifest in render(action, obs, spec, self.settings):
                    if action.resource_version:
                        self.cluster.apply(manifest)
                    else:
                        self.cluster.create(manifest)
            case WriteRevisionStatus():
                self.write_status("VectorIndexRevision", action.revision, action.status, obs)
            case DeleteJob():
                self.cluster.delete("Job", namespace, action.name, action.uid)
            case DeleteNetworkPolicy():
                self.cluster.delete("NetworkPolicy", namespace, action.name, action.uid)
            case DeleteSearchers():
                self._check_unused(action.revision, obs)
                for kind in ("PodDisruptionBudget", "Deployment"):
                    live = obs.objects.get((kind, action.revision))
                    if live is not None:
                        self.cluster.delete(kind, namespace, action.revision, live["metadata"]["uid"])
            case ForgetRevision():
                self.cluster.delete("VectorIndexRevision", namespace, action.name, action.uid)
            case RenewLeases():
                to = addressee(obs, action.revision)
                self.searchers.tell(to, action.addresses, TrafficLease(state=action.state))

    def _check_unused(self, revision: str, obs: Observation) -> None:
        """Ask once more, right before its searchers go: who was paused since it looked must not cut off the users."""
        front = self.cluster.get("Service", obs.index.namespace, obs.index.name)
        if front is not None and (front["spec"].get("selector") or {}).get(labels.REVISION) == revision:
            raise ConflictError(f"Service/{obs.index.name} points to {revision}, which was about to be retired")

    def _keep(self, manifest: Mapping[str, Any], obs: Observation) -> None:
        """Apply `manifest` unless the live object says the same already."""
        meta = manifest["metadata"]
        live = obs.objects.get((manifest["kind"], meta["name"]))
        uid = meta["ownerReferences"][0]["uid"]
        if live is None:
            # Created, not applied: an object of this name that we did not see carries none of our labels.
            self.cluster.create(manifest)
            live = self.cluster.get(manifest["kind"], meta["namespace"], meta["name"])
            if live is None:
                return
        if not any(owner.get("uid") == uid for owner in live["metadata"].get("ownerReferences", ())):
            raise NotOursError(f"{manifest['kind']}/{meta['name']}")
        same = matches(manifest, live) and (manifest["kind"] != "NetworkPolicy" or same_rules(manifest, live))
        if not same:
            self.cluster.apply(manifest)

    def write_status(self, kind: str, name: str, status: Model, obs: Observation) -> None:
        """One write of a whole status, refused when the object changed since it was read."""
        live = obs.objects[(kind, name)]
        self.cluster.apply_status(
            {
                "apiVersion": API_VERSION,
                "kind": kind,
                "metadata": {
                    "name": name,
                    "namespace": obs.index.namespace,
                    "resourceVersion": live["metadata"]["resourceVersion"],
                },
                "status": status.wire(),
            }
        )
