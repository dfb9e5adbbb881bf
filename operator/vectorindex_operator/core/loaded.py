"""The searchers of one revision as they are: groups of pods by role and shard, which are ready, since when none is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from vectorindex_searcher.contract import Failure

SEARCHER = "searcher"


@dataclass(frozen=True, slots=True)
class PodView:
    """A searcher pod. `failure` is what its last ended container wrote; times are unix seconds."""

    name: str
    address: str
    ready: bool
    restarts: int = 0
    scheduled_at: float | None = None
    unschedulable: str = ""
    waiting: str = ""
    failure: Failure | None = None
    deleting: bool = False
    unschedulable_since: float | None = None
    ready_at: float | None = None
    """Since when it is ready; None: it is not."""

    @property
    def serves(self) -> bool:
        """Whether it takes queries: ready and not on its way out."""
        return self.ready and not self.deleting


@dataclass(frozen=True, slots=True, order=True)
class Group:
    """Pods that do the same: one Deployment. Today each revision has one group of whole indexes."""

    role: str = SEARCHER
    shard: int = 0


@dataclass(frozen=True, slots=True)
class LoadedRevision:
    """The pods of a revision by group. `unready_since`: since when no pod is ready (None while one is).

    `replicas`: what its Deployments ask for. `live`: hash of the live settings that they were rendered with.
    `outdated`: pods that still run earlier ones. `refused_since`: since when a quota or a webhook lets no more of its
    pods be made (None: nothing does), and `refused`: in whose words.
    """

    revision: str
    exists: bool
    groups: Mapping[Group, tuple[PodView, ...]] = field(default_factory=dict)
    unready_since: float | None = None
    replicas: int = 0
    live: str = ""
    outdated: int = 0
    refused_since: float | None = None
    refused: str = ""

    @classmethod
    def of(
        cls,
        revision: str,
        pods: tuple[PodView, ...],
        unready_since: float | None = None,
        *,
        replicas: int = 0,
        live: str = "",
        outdated: int = 0,
        refused_since: float | None = None,
        refused: str = "",
    ) -> LoadedRevision:
        """A revision with one group of searchers."""
        return cls(revision, True, {Group(): pods}, unready_since, replicas, live, outdated, refused_since, refused)

    @property
    def pods(self) -> tuple[PodView, ...]:
        """All pods, group by group."""
        return tuple(self._all())

    def _all(self) -> Iterator[PodView]:
        for group in sorted(self.groups):
            yield from self.groups[group]

    @property
    def ready(self) -> int:
        """Pods that take queries in the group that has the fewest: one shard without any answers nothing."""
        return min((sum(pod.serves for pod in pods) for pods in self.groups.values()), default=0)

    @property
    def load_seconds(self) -> float | None:
        """From a node to ready, of the pod that took the least: one is enough to go back to. None: none is ready."""
        took = [
            pod.ready_at - pod.scheduled_at
            for pod in self.pods
            if pod.serves and pod.ready_at is not None and pod.scheduled_at is not None
        ]
        return max(1.0, min(took)) if took else None  # Kubernetes keeps these times in whole seconds

    def complete(self, replicas: int) -> bool:
        """Whether every group has its pods: what a switch waits for."""
        return bool(self.groups) and self.ready >= replicas

    def serving(self) -> bool:
        """Whether queries are answered: every group has a ready pod."""
        return self.ready > 0
