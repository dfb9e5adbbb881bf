"""The searchers of one revision as they are: groups of pods by role and shard, which are ready, since when none is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from vectorindex_searcher.contract import Failure

SEARCHER = "searcher"
ROUTER = "router"
SHARD = "shard"


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
    """Pods that do the same: one Deployment. A revision is one group of searchers of all of it, or routers and a group
    of searchers for each shard."""

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

    def beside(self, other: LoadedRevision) -> LoadedRevision:
        """This and other groups of the same revision together. It answers as long as all of them do."""
        since = [at for at in (self.unready_since, other.unready_since) if at is not None]
        refused = min((one for one in (self, other) if one.refused_since is not None), key=_refused_at, default=self)
        return LoadedRevision(
            self.revision,
            exists=True,
            groups={**self.groups, **other.groups},
            unready_since=min(since, default=None),
            replicas=min(self.replicas, other.replicas),
            live=self.live if self.live == other.live else "",
            outdated=self.outdated + other.outdated,
            refused_since=refused.refused_since,
            refused=refused.refused,
        )

    def in_shards(self, shards: int, now: float) -> LoadedRevision:
        """With the groups that it should have and nobody has made, or somebody removed: without pods, as of `now`."""
        wanted = [Group(ROUTER), *(Group(SHARD, number) for number in range(shards))]
        missing: dict[Group, tuple[PodView, ...]] = {one: () for one in wanted if one not in self.groups}
        since = now if missing and self.unready_since is None else self.unready_since
        return replace(self, groups={**self.groups, **missing}, unready_since=since)

    @property
    def pods(self) -> tuple[PodView, ...]:
        """All pods, group by group."""
        return tuple(self._of(SEARCHER, ROUTER, SHARD))

    @property
    def answering(self) -> tuple[PodView, ...]:
        """Those that users reach, and that are asked and told what concerns users."""
        return tuple(self._of(SEARCHER, ROUTER))

    @property
    def holding(self) -> tuple[PodView, ...]:
        """Those that have an artifact, and the keys of its store."""
        return tuple(self._of(SEARCHER, SHARD))

    def _of(self, *roles: str) -> Iterator[PodView]:
        for group in sorted(self.groups):
            if group.role in roles:
                yield from self.groups[group]

    @property
    def ready(self) -> int:
        """Pods that take queries in the group that has the fewest: one shard without any answers nothing."""
        return min((sum(pod.serves for pod in pods) for pods in self.groups.values()), default=0)

    @property
    def load_seconds(self) -> float | None:
        """From a node to ready, of the pod of each group that took the least: with one of each it can be gone back to.
        None: a group has none that is ready."""
        took = [
            [
                pod.ready_at - pod.scheduled_at
                for pod in pods
                if pod.serves and pod.ready_at is not None and pod.scheduled_at is not None
            ]
            for pods in self.groups.values()
        ]
        # Kubernetes keeps these times in whole seconds.
        return max(1.0, *(min(each) for each in took)) if took and all(took) else None

    def complete(self, replicas: int) -> bool:
        """Whether every group has its pods: what a switch waits for."""
        return bool(self.groups) and self.ready >= replicas

    def serving(self) -> bool:
        """Whether queries are answered: every group has a ready pod."""
        return self.ready > 0


def _refused_at(one: LoadedRevision) -> float:
    return one.refused_since if one.refused_since is not None else float("inf")
