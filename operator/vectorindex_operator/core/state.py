"""The working copy of one pass: what was observed, what the steps changed, and the plan that comes of it.

Mutable, but born and gone within one call of `decide`, which stays pure. Steps read and change it in a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import (
    BlockedBy,
    RevisionStatus,
    SourceStatus,
    VectorIndexSpec,
    VerbResult,
)
from vectorindex_operator.core.observation import Decision, JobView, LoadedRevision, Observation, RevisionView, Task
from vectorindex_operator.core.plan import (
    Action,
    CreateRevision,
    DeleteJob,
    DeleteSearchers,
    EnsureSearchers,
    Event,
    ForgetRevision,
    MoveTraffic,
    RenewLeases,
    StartBuild,
    StartResolve,
    StartValidation,
    WriteRevisionStatus,
)

NEXT_PHASES = frozenset({"Pending", "Building", "Validating", "Validated"})
CANDIDATE_PHASES = frozenset({"Surging", "Soaking"})

# Traffic first: nothing may delay a rollback. Then what must not be forgotten, then work, then what takes away.
_ORDER: dict[type[Action], int] = {
    MoveTraffic: 0,
    WriteRevisionStatus: 1,
    CreateRevision: 2,
    EnsureSearchers: 3,
    StartResolve: 4,
    # One build at a time: what takes the place of another Job starts after that one is gone.
    DeleteJob: 5,
    StartBuild: 6,
    StartValidation: 6,
    DeleteSearchers: 7,
    ForgetRevision: 7,
    RenewLeases: 8,
}


@dataclass(frozen=True, slots=True)
class Installation:
    """What the installation fixes. Images are frozen into each revision when it is created."""

    searcher_image: str
    gpu_image: str = ""
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stall:
    """Nothing goes on without a change by a person (permanent), or work that failed is being tried again."""

    reason: str
    message: str
    permanent: bool = True
    everything: bool = False
    """Not even a rollout that has begun goes on."""


@dataclass(slots=True)
class ReconcileState:
    """One pass over one VectorIndex. `stable`, `candidate`, `preparing`: names of revisions or empty."""

    obs: Observation
    spec: VectorIndexSpec
    settings: Installation
    now: float
    statuses: dict[str, RevisionStatus] = field(default_factory=dict)
    stable: str = ""
    candidate: str = ""
    preparing: str = ""
    desired: str = ""
    desired_digest: str = ""
    serving: str = ""
    source: SourceStatus | None = None
    stall: Stall | None = None
    source_stall: Stall | None = None
    """The part of `stall` that is about listing the source."""
    blocked: list[BlockedBy] = field(default_factory=list)
    verbs: dict[str, VerbResult] = field(default_factory=dict)
    resolve_now: str = ""
    """Why the source is to be listed again at once; empty: it is not."""
    keep_loaded: set[str] = field(default_factory=set)
    """Revisions whose searchers stay loaded."""
    actions: list[Action] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    wake: float = 300.0

    @classmethod
    def start(cls, obs: Observation, spec: VectorIndexSpec, settings: Installation, now: float) -> ReconcileState:
        """A pass with every revision's status as it was read."""
        return cls(
            obs=obs,
            spec=spec,
            settings=settings,
            now=now,
            statuses={r.name: r.status for r in obs.revisions.values() if not r.deleting},
            serving=obs.service.revision if obs.service.owned else "",
            source=obs.index.status.source,
            verbs={v.verb: v for v in obs.index.status.verbs},
        )

    def revision(self, name: str) -> RevisionView:
        return self.obs.revisions[name]

    def loaded(self, name: str) -> LoadedRevision:
        return self.obs.loaded.get(name) or LoadedRevision(revision=name, exists=False)

    def update(self, name: str, **changes: Any) -> RevisionStatus:
        """Change fields of a revision's status. A change of phase is stamped; `plan()` turns it into a Record."""
        status = self.statuses[name]
        if changes.get("phase", status.phase) != status.phase:
            changes["phase_times"] = {**status.phase_times, changes["phase"]: to_text(self.now)}
        self.statuses[name] = status.model_copy(update=changes)
        return self.statuses[name]

    def act(self, action: Action) -> None:
        self.actions.append(action)

    def move_traffic(self, decision: Decision) -> None:
        """Plan the one write that moves the traffic, based on the Service as it was read."""
        self.act(MoveTraffic(decision, self.obs.service.resource_version))

    @property
    def has_moved(self) -> bool:
        """Whether this pass moves the traffic already: a second move would not know what the first one led to."""
        return any(isinstance(action, MoveTraffic) for action in self.actions)

    def event(self, reason: str, message: str, *, warning: bool = False, revision: str = "") -> None:
        self.events.append(Event(warning, reason, message, revision))

    def block(self, rule: str, subject: str, message: str = "") -> None:
        self.blocked.append(BlockedBy(rule=rule, subject=subject, message=message))

    def decision_time(self) -> float:
        """The time of a new decision: now, but after every earlier one, also when clocks differ or were set back."""
        decision = self.obs.service.decision
        known = [to_unix(s.settled_at) for s in self.statuses.values() if s.settled_at]
        return max(self.now, *(at + 0.001 for at in known), decision.at + 0.001 if decision is not None else 0.0)

    def requeue_at(self, unix: float) -> None:
        """Look again at `unix` at the latest."""
        self.wake = max(0.5, min(self.wake, unix - self.now))

    def age(self, text: str | None) -> float:
        """Seconds since a time in a status; infinity for none."""
        return self.now - to_unix(text) if text else float("inf")

    def jobs(self, verb: Task, revision: str = "") -> list[JobView]:
        """Jobs of one verb and revision, newest first; those being deleted, and about to be, are gone already."""
        gone = {a.uid for a in self.actions if isinstance(a, DeleteJob)}
        mine = [
            j
            for j in self.obs.jobs
            if j.task is verb and j.revision == revision and not j.deleting and j.uid not in gone
        ]
        return sorted(mine, key=lambda j: (j.created_at, j.name), reverse=True)

    def delete_jobs(self, jobs: Iterable[JobView]) -> None:
        for job in list(jobs):
            self.act(DeleteJob(job.name, job.uid))

    def find_slots(self) -> None:
        """Who is stable and who is the candidate, from the phases. The latest promotion wins over older ones."""
        stable = [n for n, s in self.statuses.items() if s.phase == "Stable"]
        self.stable = max(stable, key=lambda n: self._stable_since(n), default="")
        candidates = [n for n, s in self.statuses.items() if s.phase in CANDIDATE_PHASES]
        # Two are possible only after a crash between two writes: the one with the traffic is being decided.
        self.candidate = max(candidates, key=lambda n: (n == self.serving, n), default="")

    def _stable_since(self, name: str) -> tuple[str, str]:
        status = self.statuses[name]
        return (max(status.promoted_at or "", status.restored_at or ""), name)

    def plan_actions(self) -> tuple[Action, ...]:
        """All actions in the order in which they are safe to run, statuses that changed among them."""
        # A promotion first: after a crash between the two there are two stable revisions, of which the latest counts,
        # and never none.
        for name, status in sorted(self.statuses.items(), key=lambda item: item[1].phase != "Stable"):
            if status != self.obs.revisions[name].status:
                self.act(WriteRevisionStatus(name, status))
        return tuple(sorted(self.actions, key=lambda a: _ORDER[type(a)]))
