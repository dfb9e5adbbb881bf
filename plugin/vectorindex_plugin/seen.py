"""One look at a VectorIndex, read and understood by the operator's own code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from vectorindex_operator.api.v1alpha1 import VectorIndexStatus
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile.observe import observe
from vectorindex_operator.reconcile.ports import Cluster
from vectorindex_operator.reconcile.views import revision_views
from vectorindex_plugin.cluster import AsFarAsAllowed, Hands
from vectorindex_plugin.exits import EndedError, Exit


@dataclass(frozen=True, slots=True)
class Seen:
    """What there was of one VectorIndex at unix time `now`. `hidden`: kinds that this person may not read."""

    obs: Observation
    now: float
    hidden: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> VectorIndexStatus:
        return self.obs.index.status

    @property
    def serving(self) -> str:
        """The revision that has the traffic; empty: none, or the Service may not be read."""
        return self.obs.traffic.revision if self.obs.traffic.owned else ""

    @property
    def newest_first(self) -> list[RevisionView]:
        """Its revisions."""
        return sorted(self.obs.revisions.values(), key=lambda one: one.created_at, reverse=True)

    def revision(self, name: str) -> RevisionView:
        """One of its revisions, also by the last part of its name. Raises EndedError."""
        found = [one for key, one in self.obs.revisions.items() if name in (key, key.rpartition("-")[2])]
        if not found:
            known = ", ".join(sorted(self.obs.revisions)) or "none"
            raise EndedError(Exit.NOT_FOUND, f"{self.obs.index.name} has no revision {name!r}; there are: {known}")
        return found[0]


def look(hands: Hands, namespace: str, name: str, now: float) -> Seen:
    """Raises EndedError where there is no such VectorIndex, errors.ClusterError where the cluster does not answer."""
    reader = AsFarAsAllowed(hands)
    obs = observe(cast("Cluster", reader), namespace, name, now)  # a look writes nothing
    if obs is None:
        raise EndedError(Exit.NOT_FOUND, f"there is no VectorIndex {name!r} in namespace {namespace!r}")
    return Seen(obs, now, reader.hidden)


def two_revisions(hands: Hands, namespace: str, names: tuple[str, str]) -> tuple[RevisionView, RevisionView]:
    """Two revisions by their full names, of one VectorIndex or of two. Raises as `look` does."""
    first, second = (_revision(hands, namespace, name) for name in names)
    return first, second


def _revision(hands: Hands, namespace: str, name: str) -> RevisionView:
    raw = hands.get("VectorIndexRevision", namespace, name)
    if raw is None:
        raise EndedError(Exit.NOT_FOUND, f"there is no revision {name!r} in namespace {namespace!r}")
    owner = next((one["uid"] for one in raw["metadata"].get("ownerReferences") or () if one.get("controller")), "")
    views, unreadable = revision_views([raw], owner)
    if name not in views:
        why = unreadable.get(name, f"it has no owner; its label {labels.INDEX} says whose it was")
        raise EndedError(Exit.NOT_FOUND, f"revision {name!r} cannot be read: {why}")
    return views[name]
