"""What one pass saw, frozen. Adapters fill it in; `decide` reads it. "Not known" is a value, never an exception."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from vectorindex_operator.api.v1alpha1 import (
    FEATURES,
    Live,
    Reach,
    RevisionSpec,
    RevisionStatus,
    VectorIndexSpec,
    VectorIndexStatus,
)
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.fresh_looks import FreshHeard
from vectorindex_operator.core.judging.evidence import PodEvidence
from vectorindex_operator.core.judging.figures import Told
from vectorindex_operator.core.judging.shadow import PodPairs
from vectorindex_operator.core.judging.sums import Sums
from vectorindex_operator.core.loaded import LoadedRevision
from vectorindex_operator.core.phase import KNOWN, Phase
from vectorindex_operator.core.source_poll import Heard
from vectorindex_operator.core.traffic import NO_ROUTE, NO_TRAFFIC, RouteView, Traffic
from vectorindex_searcher.contract import (
    BuildResult,
    CollectResult,
    Failure,
    OutcomesResult,
    PartitionResult,
    ResolveResult,
    ValidateResult,
)


@dataclass(frozen=True, slots=True)
class IndexView:
    """The VectorIndex. `spec` is None when the stored one cannot be read; `spec_error` says why."""

    namespace: str
    name: str
    uid: str
    generation: int
    created_at: float
    spec: VectorIndexSpec | None
    status: VectorIndexStatus
    deleting: bool = False
    spec_error: str = ""
    commands: tuple[Command, ...] = ()

    @property
    def live(self) -> Live | None:
        """What loaded revisions take from the spec at once, of the last one that could be read."""
        return Live.of(self.spec) if self.spec is not None else self.status.live


EVIDENCE = frozenset({"build", "failure", "report", "gate", "rollout", "rejected"})
"""Fields of a revision's status that decide what is done with it: absent is not the same as unreadable."""


@dataclass(frozen=True, slots=True)
class RevisionView:
    """A VectorIndexRevision of this VectorIndex."""

    name: str
    uid: str
    created_at: float
    spec: RevisionSpec
    status: RevisionStatus
    deleting: bool = False

    @property
    def leaving(self) -> bool:
        """Whether it is nothing any more: its object, or its artifact, is being removed."""
        return self.deleting or self.status.phase == Phase.REMOVING

    @property
    def foreign_features(self) -> tuple[str, ...]:
        """What another release wrote about it that this one must know to do anything with it, and does not."""
        unread = [f"spec.{name}" for name in self.spec.unread]
        unread += [f"spec.serving.{name}" for name in self.spec.serving.unread] if self.spec.serving else []
        unread += [f"status.{name}" for name in self.status.unread & EVIDENCE]
        if self.status.phase not in KNOWN:
            unread.append(f"status.phase {self.status.phase[:63]!r}")  # nobody here knows what is to become of it
        return (*sorted(set(self.spec.requires) - FEATURES), *sorted(unread))


@dataclass(frozen=True, slots=True)
class Hold:
    """The object of a revision, of whichever VectorIndex of this name, that finalizers of ours keep (holds.py)."""

    name: str
    uid: str
    owner: str
    """Uid of the VectorIndex that manages it; empty: none does."""
    finalizers: frozenset[str]
    """Those of ours, of any class of operator."""
    created_at: float
    deleted_at: float | None
    """When somebody deleted it, unix seconds; None: nobody has."""
    spec: RevisionSpec | None
    """None: it cannot be read, or need not be."""
    reach: Reach | None


class Task(StrEnum):
    RESOLVE = "resolve"
    PARTITION = "partition"
    BUILD = "build"
    PUBLISH = "publish"
    VALIDATE = "validate"
    COLLECT = "collect"
    OUTCOMES = "outcomes"


class JobState(StrEnum):
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class JobView:
    """A Job of ours with what its last pod said. `key` is the attempt it was derived from, `failures` those before it.

    A finished Job whose pod is gone has neither result nor failure: it is run again and answers from what is stored.
    """

    name: str
    uid: str
    task: Task
    revision: str
    key: str
    failures: int
    device: str
    state: JobState
    created_at: float
    finished_at: float | None = None
    result: ResolveResult | PartitionResult | BuildResult | ValidateResult | CollectResult | OutcomesResult | None = (
        None
    )
    failure: Failure | None = None
    exit_code: int | None = None
    waiting: str = ""
    """Why its pod does not run: empty, or for example "Secret/s3: secret \"s3\" not found"."""
    unschedulable_since: float | None = None
    unschedulable: str = ""
    deleting: bool = False
    podless_since: float | None = None
    """Since when it has been to run and has had no pod, which a quota or a webhook refuses. None: it has had one."""
    done: int = 0
    """Of an Indexed Job: how many of its parts are."""
    parts: int = 0
    """How many it has; 0: it is no Indexed Job."""
    held: bool = False
    """Whether somebody holds it back, or stopped it (`suspend`): it has no pod, and its time does not run."""
    queue: str = ""
    """The LocalQueue of Kueue that says when it runs; empty: none does."""
    queued: str = ""
    """Of one that is held in a queue: why it waits, in Kueue's words."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything `decide` may know. `objects` are the raw live children, for the executor's comparison only."""

    index: IndexView
    revisions: Mapping[str, RevisionView] = field(default_factory=dict)
    jobs: tuple[JobView, ...] = ()
    loaded: Mapping[str, LoadedRevision] = field(default_factory=dict)
    traffic: Traffic = NO_TRAFFIC
    route: RouteView = NO_ROUTE
    """Read only where `rollout.route` is set, or was."""
    evidence: Mapping[str, tuple[PodEvidence, ...]] = field(default_factory=dict)
    sums: Mapping[str, Sums] = field(default_factory=dict)
    """Of the evidence of the look before, by revision: a saving of time, which changes no verdict."""
    pairs: Mapping[str, tuple[PodPairs, ...]] = field(default_factory=dict)
    """What the pods of both sides of a shadow counted, by revision."""
    figures: Told = field(default_factory=dict)
    """What Prometheus said, by rule and revision."""
    taken: frozenset[str] = frozenset()
    """Ids of the notices that were taken since the status said so last (core/notices.py)."""
    heard: Heard | None = None
    """What a searcher said of the source last; None: nothing yet, or this process has just begun."""
    heard_fresh: FreshHeard | None = None
    """What one said of the fresh rows last; None: as above."""
    network_policies: Mapping[str, str] = field(default_factory=dict)
    """Uid of each NetworkPolicy of ours, by name."""
    objects: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Name of a revision whose spec cannot be read -> why."""
    holds: tuple[Hold, ...] = ()
    """Revisions that finalizers of ours keep."""
    earlier: str = ""
    """What is still there of an earlier VectorIndex of this name whose artifacts are removed; empty: nothing."""
    seen_at: float = math.inf
    """When its first read began, Unix seconds: what stands here was so then or later. Reads may take a minute, so that
    is not the time at which it is decided upon. Infinity: at that very time."""

    @property
    def foreign(self) -> dict[str, str]:
        """Revisions that another release wrote and this one must leave exactly as they are -> why."""
        unknown = {name: one.foreign_features for name, one in self.revisions.items()}
        known = {name: f"does not know {', '.join(what)[:256]}" for name, what in unknown.items() if what}
        return known | {name: f"cannot read {why}" for name, why in self.unreadable.items()}
