"""The working copy of one pass: what was observed, what the steps changed, and the plan that comes of it.

Mutable, but born and gone within one call of `decide`, which stays pure. Steps read and change it in a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import (
    BlockedBy,
    FreshStatus,
    Live,
    RevisionStatus,
    RolloutStatus,
    SourceStatus,
    VectorIndexSpec,
    VerbResult,
)
from vectorindex_operator.core import live_settings
from vectorindex_operator.core.events import Event, EventReason
from vectorindex_operator.core.fresh_looks import FreshQuestion
from vectorindex_operator.core.holds import FINALIZER
from vectorindex_operator.core.internal_keys import InternalKeys
from vectorindex_operator.core.loaded import LoadedRevision
from vectorindex_operator.core.notices import Notice, notices
from vectorindex_operator.core.observation import JobView, Observation, RevisionView, Task
from vectorindex_operator.core.phase import CANDIDATE, IN_PREPARATION, Phase
from vectorindex_operator.core.plan import Action, DeleteJob, MoveTraffic, WriteRevisionStatus
from vectorindex_operator.core.source_poll import SourceQuestion
from vectorindex_operator.core.traffic import Decision


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """A ConfigMap, of this name in each namespace with a VectorIndex, that holds certificates of CAs (PEM) in `key`."""

    config_map: str
    key: str


@dataclass(frozen=True, slots=True)
class Installation:
    """What the installation fixes. Images are frozen into each revision when it is created."""

    searcher_image: str
    gpu_image: str = ""
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    fixed_user: bool = True
    """Whether pods name the user that they run as. Without it the cluster chooses one (OpenShift), else the image's."""
    proxies: Mapping[str, str] = field(default_factory=dict)
    """HTTP_PROXY, HTTPS_PROXY and NO_PROXY of pods, as far as they have any."""
    trust_bundle: TrustBundle | None = None
    """What pods trust besides what is in the image; None: nothing."""
    internal_keys: InternalKeys = field(default_factory=InternalKeys)
    """What the requests to searchers are signed with."""
    namespace: str = "default"
    """Where the operator's own pod is."""
    cluster_uid: str = ""
    """By which Jobs mark the artifacts that this cluster uses; empty: they do not."""
    collect_history: bool = False
    """Whether the artifact of a revision that falls out of the history is removed."""
    outcomes: bool = False
    """Whether what was decided about revisions is kept beside their artifacts, and a new index begins with it."""
    finalizer: str = FINALIZER
    """What keeps a revision until its artifact is removed: that of this operator's class."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the operator's own pod; none: every pod of its namespace is taken for it."""
    metrics_from: tuple[Mapping[str, Any], ...] = ()
    """Who may scrape searchers, as a NetworkPolicy's `from`; empty: nobody but the operator and the index's pods."""
    notifies: bool = False
    """Whether somebody outside of the cluster is told what is decided."""
    soak_look_seconds: float = 5.0
    """How often the pods of a revision that soaks are asked."""
    watch_look_seconds: float = 30.0
    """How often those of a stable revision are, while it is watched."""


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
    settings: Installation
    now: float
    known_spec: VectorIndexSpec | None = None
    """What the user asks for; None when the stored spec cannot be read. Safety must not need it."""
    live: Live | None = None
    """What loaded revisions take from the spec at once; of the last one that could be read."""
    statuses: dict[str, RevisionStatus] = field(default_factory=dict)
    foreign: Mapping[str, str] = field(default_factory=dict)
    """Revisions that are left exactly as they are -> why. None of them is in `statuses`."""
    stable: str = ""
    candidate: str = ""
    preparing: str = ""
    desired: str = ""
    serving: str = ""
    source: SourceStatus | None = None
    stall: Stall | None = None
    source_stall: Stall | None = None
    """The part of `stall` that is about listing the source."""
    blocked: list[BlockedBy] = field(default_factory=list)
    verbs: dict[str, VerbResult] = field(default_factory=dict)
    resolve_now: str = ""
    """Why the source is to be listed again at once; empty: it is not."""
    ask: SourceQuestion | None = None
    """What a searcher is asked about the source, once this pass is over."""
    fresh: FreshStatus | None = None
    """What is known of the fresh rows."""
    ask_fresh: FreshQuestion | None = None
    """What a searcher is asked about them, likewise."""
    keep_loaded: set[str] = field(default_factory=set)
    """Revisions whose searchers stay loaded."""
    withdrawal: Decision | None = None
    """That the candidate loses its share of the gateway's traffic, decided in this pass."""
    step_passed: bool = False
    """Whether the candidate's step has taken as long as it must, and its guardrails pass."""
    make_room: bool = False
    """A proven revision waits for the place of a dead one."""
    planned: list[Action] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    """Faults of the operator's own: the step that raised was undone, the others ran."""
    wake: float = 300.0

    @classmethod
    def start(cls, obs: Observation, settings: Installation, now: float) -> ReconcileState:
        """A pass with the status, as it was read, of every revision that this release may touch."""
        foreign = obs.foreign
        return cls(
            obs=obs,
            settings=settings,
            now=now,
            known_spec=obs.index.spec,
            live=live_settings.in_effect(obs),
            statuses={r.name: r.status for r in obs.revisions.values() if not r.leaving and r.name not in foreign},
            foreign=foreign,
            serving=obs.traffic.revision if obs.traffic.owned else "",
            source=obs.index.status.source,
            fresh=obs.index.status.fresh,
            verbs={v.verb: v for v in obs.index.status.verbs},
        )

    @property
    def spec(self) -> VectorIndexSpec:
        """What the user asks for. Only the way forward may ask: it is not taken while the spec cannot be read."""
        assert self.known_spec is not None, "a safe step asked for the spec"
        return self.known_spec

    @property
    def pinned(self) -> bool:
        """Whether the spec names the revision that is to serve. It does so in a suspended index, too."""
        return self.known_spec is not None and bool(self.known_spec.pin_revision)

    @property
    def suspended(self) -> bool:
        """Whether nothing new may begin. While the spec cannot be read nothing does, and that is said instead."""
        return self.known_spec is not None and self.known_spec.suspend and not self.pinned

    @property
    def seen_at(self) -> float:
        """What was observed was so then, or later. What has lasted is counted up to this: reads that took a minute must
        not make an unready pod unready for a minute."""
        return min(self.now, self.obs.seen_at)

    def copy(self) -> ReconcileState:
        """A copy whose lists, sets and dicts are its own; what they hold is frozen."""
        values: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        for name, value in values.items():
            if isinstance(value, (dict, list, set)):
                values[name] = value.copy()
        return ReconcileState(**values)

    def restore(self, before: ReconcileState) -> None:
        """Everything as it was in `before`, except for the errors that were met since."""
        errors = self.errors
        for one in fields(self):
            setattr(self, one.name, getattr(before, one.name))
        self.errors = errors

    # ------------------------------------------------------------ looking

    def revision(self, name: str) -> RevisionView:
        return self.obs.revisions[name]

    def loaded(self, name: str) -> LoadedRevision:
        return self.obs.loaded.get(name) or LoadedRevision(revision=name, exists=False)

    def age(self, text: str | None) -> float:
        """Seconds since a time in a status; infinity for none."""
        return self.now - to_unix(text) if text else float("inf")

    def jobs(self, task: Task, revision: str = "") -> list[JobView]:
        """Jobs of one task and revision, newest first; those being deleted, and about to be, are gone already."""
        gone = {a.uid for a in self.planned if isinstance(a, DeleteJob)}
        mine = [
            j
            for j in self.obs.jobs
            if j.task is task and j.revision == revision and not j.deleting and j.uid not in gone
        ]
        return sorted(mine, key=lambda j: (j.created_at, j.name), reverse=True)

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What people outside of the cluster are told."""
        return notices(self.obs.index, self.statuses, self.obs.traffic.decision)

    # ------------------------------------------------------------ changing

    def update(self, name: str, **changes: Any) -> RevisionStatus:
        """Change fields of a revision's status. A change of phase is stamped; the plan writes what differs."""
        status = self.statuses[name]
        if changes.get("phase", status.phase) != status.phase:
            changes["phase_times"] = {**status.phase_times, changes["phase"]: to_text(self.now)}
        self.statuses[name] = status.model_copy(update=changes)
        return self.statuses[name]

    def act(self, action: Action) -> None:
        self.planned.append(action)

    def delete_jobs(self, jobs: Iterable[JobView]) -> None:
        for job in list(jobs):
            self.act(DeleteJob(job.name, job.uid))

    def event(self, reason: EventReason, message: str, *, revision: str = "", command: str = "") -> None:
        self.events.append(Event(reason, message, revision, command))

    def block(self, rule: str, subject: str, message: str = "") -> None:
        self.blocked.append(BlockedBy(rule=rule, subject=subject, message=message))

    def block_as_told(self, rule: str, subject: str, words: str) -> None:
        """As `block`, for words of others whose numbers differ at each look: those that were told first stay while
        they begin alike ("exceeded quota: compute"). Every change would be a write."""
        for row in self.obs.index.status.blocked_by:
            alike = row.message.partition(",")[0] == words.partition(",")[0]
            if (row.rule, row.subject) == (rule, subject) and alike:
                words = row.message
        self.block(rule, subject, words)

    def requeue_at(self, unix: float) -> None:
        """Look again at `unix` at the latest."""
        self.wake = max(0.5, min(self.wake, unix - self.now))

    # ------------------------------------------------------------ traffic and slots

    @property
    def has_moved(self) -> bool:
        """Whether this pass moves the traffic already: a second move would not know what the first one led to."""
        return any(isinstance(action, MoveTraffic) for action in self.planned)

    def plan_move(self, decision: Decision) -> None:
        """The write of `decision`, based on the traffic as it was read; safety/give_traffic.py is the way to it."""
        tls = self.live is not None and self.live.searcher.tls is not None
        self.act(MoveTraffic(decision, self.obs.traffic.resource_version, tls))
        self.serving = decision.to_revision

    def next_serial(self) -> int:
        """Number of a new decision: above every one that the front Service, the route or a revision's status knows."""
        known = [status.settled_serial for status in self.statuses.values()]
        decisions = (self.obs.traffic.decision, self.obs.route.decision)
        return max([*known, *(one.serial for one in decisions if one is not None), 0]) + 1

    def find_slots(self) -> None:
        """Who is stable and who is the candidate, from the phases. The latest promotion wins over older ones."""
        stable = [n for n, s in self.statuses.items() if s.phase == Phase.STABLE]
        self.stable = max(stable, key=lambda n: (self.good_since(n), n), default="")
        candidates = [n for n, s in self.statuses.items() if s.phase in CANDIDATE]
        # Two are possible only after a crash between two writes: the one with the traffic is being decided.
        self.candidate = max(candidates, key=lambda n: (n == self.serving, n), default="")

    @property
    def stable_rollout(self) -> RolloutStatus | None:
        """How stable came to be stable; None: there is no stable revision, or nothing tells."""
        status = self.statuses.get(self.stable)
        return status.rollout if status is not None else None

    @property
    def kept(self) -> str:
        """What was stable before the last promotion, while it stays loaded (safety/keep_prior.py); empty: nothing does.
        Wanted again, it keeps its pods while it is proven."""
        rollout = self.stable_rollout
        if rollout is None or rollout.prior_kept_until is None:
            return ""
        prior = self.statuses.get(rollout.prior)
        there = prior is not None and prior.phase in IN_PREPARATION | {Phase.SUPERSEDED}
        return rollout.prior if there else ""

    def good_since(self, name: str) -> str:
        """When a revision was last found good: promoted, or restored by a rollback. Empty: never."""
        status = self.statuses[name]
        return max(status.promoted_at or "", status.restored_at or "")

    def changed_statuses(self) -> tuple[WriteRevisionStatus, ...]:
        """The statuses to write. A promotion first: a crash after it leaves two stable revisions, never none."""
        by_phase = sorted(self.statuses.items(), key=lambda item: item[1].phase != Phase.STABLE)
        return tuple(
            WriteRevisionStatus(name, status) for name, status in by_phase if status != self.obs.revisions[name].status
        )
