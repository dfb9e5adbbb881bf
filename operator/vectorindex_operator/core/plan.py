"""What a pass decided: actions as data, statuses to write, Events to send, when to look again.

Actions are idempotent and name their revision; running a prefix of a plan and dying is safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vectorindex_operator.api.v1alpha1 import (
    Live,
    NetworkPolicy,
    Rebuild,
    Restored,
    RevisionStatus,
    Route,
    Serving,
    VectorIndexStatus,
)
from vectorindex_operator.core.events import Event
from vectorindex_operator.core.fresh_looks import FreshQuestion
from vectorindex_operator.core.notices import Notice
from vectorindex_operator.core.source_poll import SourceQuestion
from vectorindex_operator.core.traffic import Decision
from vectorindex_searcher.contract import (
    BuildTask,
    CollectTask,
    LeaseState,
    OutcomesTask,
    PartitionTask,
    PublishTask,
    ResolveTask,
    ServingPoint,
    ValidateTask,
)


@dataclass(frozen=True, slots=True)
class StartResolve:
    """List the source with a Job. `key` names the attempt."""

    name: str
    key: str
    failures: int
    task: ResolveTask


@dataclass(frozen=True, slots=True)
class CreateRevision:
    """Write the revision object. Spec, image and pod template are frozen into it from what they are now. `restored`:
    what it was in an earlier VectorIndex of this name, which says what it was built of."""

    name: str
    digest: str
    fingerprint: str
    serving: Serving
    proof_salt: str = ""
    rebuild: Rebuild | None = None
    restored: Restored | None = None


@dataclass(frozen=True, slots=True)
class StartBuild:
    """Build the revision's artifact with a Job. `gpu`: ask for the GPU resource of spec.build.gpu. In shards, where its
    task's index has any: a pod for each."""

    name: str
    revision: str
    key: str
    failures: int
    gpu: bool
    task: BuildTask


@dataclass(frozen=True, slots=True)
class StartPartition:
    """Lay the rows of each shard ready with a Job, before `StartBuild` of them."""

    name: str
    revision: str
    key: str
    failures: int
    task: PartitionTask


@dataclass(frozen=True, slots=True)
class StartPublish:
    """Publish the whole of the shards that are built, with a Job."""

    name: str
    revision: str
    key: str
    failures: int
    task: PublishTask


@dataclass(frozen=True, slots=True)
class StartValidation:
    """Measure the revision's artifact with a Job."""

    name: str
    revision: str
    key: str
    failures: int
    task: ValidateTask
    disk_bytes: int | None = None
    """What the pod fetches to its disk; None: the build did not tell."""


@dataclass(frozen=True, slots=True)
class StartCollect:
    """Remove the artifact of a revision that fell out of the history, with a Job."""

    name: str
    revision: str
    key: str
    task: CollectTask


@dataclass(frozen=True, slots=True)
class StartOutcomes:
    """Write what was decided about revisions beside their artifacts, or read what stands there, with a Job."""

    name: str
    key: str
    failures: int
    task: OutcomesTask


@dataclass(frozen=True, slots=True)
class DeleteJob:
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class EnsureSearchers:
    """Keep the revision's searchers there: Deployment and PodDisruptionBudget."""

    revision: str
    live: Live
    """Replicas, resources, and how to reach its data, as the spec has them now."""
    manifest_sha256: str
    gate_hash: str
    report_sha256: str
    resident_bytes: int
    live_recall: bool = False
    """Whether a guardrail of its rollout judges live recall: only then do the pods measure it."""
    columns_before: Mapping[str, str] | None = None
    """What its pods compare refused filters with; None: nothing."""
    disk_bytes: int | None = None
    """What a pod fetches to its disk. None: the build did not tell, so pods that run are left as they are."""
    encoder_bytes: int = 0
    """Of the files of its encoder; 0: it has none."""
    reranker_bytes: int = 0
    """Of the files of its cross-encoder, as far as somebody told; 0: it has none."""
    fresh_bytes: int = 0
    """Of the fresh rows in its memory, at most; 0: it answers none."""
    shards: int = 0
    """Searchers of each of so many shards, and routers; 0: it is in one part. Sizes are of one shard."""
    merged_canary: bool = False
    """Whether the report of the shards has a canary: then searchers prove their parts, and routers the whole."""


@dataclass(frozen=True, slots=True)
class EnsureNetworkPolicy:
    """Keep the NetworkPolicies of the index's pods there."""

    policy: NetworkPolicy
    shards: bool = False
    """Whether there are pods of shards, which have one of their own."""


@dataclass(frozen=True, slots=True)
class DeleteNetworkPolicy:
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class MoveTraffic:
    """The one write of a switch or a rollback: selector and decision of the front Service, with a precondition.

    `resource_version` is what the decision was based on; empty: the Service must not exist yet.
    """

    decision: Decision
    resource_version: str
    tls: bool = False
    """Whether searchers speak TLS to users."""


@dataclass(frozen=True, slots=True)
class EnsureRoute:
    """Keep the HTTPRoute there, with a share for the candidate that is no larger than it was, or larger.

    `resource_version`: what it was decided on; empty: it only takes away, or there is no route yet.
    """

    route: Route
    candidate: str
    """Empty: none has a share."""
    weight: int
    """Of a hundred queries that come through the gateway."""
    decision: Decision | None
    resource_version: str
    over: tuple[str, ...] = ()
    """Candidates whose share is over: named with weight 0, so that no gateway forgets one that it still sends queries
    to."""


@dataclass(frozen=True, slots=True)
class LowerRoute(EnsureRoute):
    """The same, where a revision has a larger share of the gateway's traffic than it is to have: a way back."""


@dataclass(frozen=True, slots=True)
class EnsureStepService:
    """Keep the Service there that a gateway sends a candidate's share to."""

    revision: str


@dataclass(frozen=True, slots=True)
class DeleteStepService:
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class DeleteRoute:
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class RenewLeases:
    """Renew the leases of a revision's pods: you have the traffic, or you lost it. Best effort."""

    revision: str
    addresses: tuple[str, ...]
    state: LeaseState


@dataclass(frozen=True, slots=True)
class RenewMirrors:
    """Have the pods of a revision send queries that they have answered to the pods of another one, for a while. Best
    effort.
    """

    revision: str
    """Who sends, and its pods."""
    addresses: tuple[str, ...]
    receiver: str
    """Who answers again."""
    receivers: tuple[str, ...]
    """Addresses of its pods."""
    shadow: str
    """What the pairs are counted under."""
    max_per_second: float
    """Of each sending pod; 0: no more."""
    sender_judged: bool = False
    """Whether who sends is judged, by who answers again: after the switch. Else it is the other way round."""


@dataclass(frozen=True, slots=True)
class TellPoint:
    """Tell pods of a revision at which operating point they answer from now on. Best effort: whoever says something
    else is told again."""

    revision: str
    addresses: tuple[str, ...]
    point: ServingPoint
    decided_at: float
    """Unix seconds: pods refuse what was decided earlier than what they keep to."""


@dataclass(frozen=True, slots=True)
class SwitchFreshOff:
    """Have pods of a revision answer its artifact alone, without fresh rows, for a while. Best effort."""

    revision: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeleteSearchers:
    """Remove the revision's searchers; its artifact and its revision object stay."""

    revision: str


@dataclass(frozen=True, slots=True)
class WriteRevisionStatus:
    """Write the revision's status."""

    revision: str
    status: RevisionStatus


@dataclass(frozen=True, slots=True)
class HoldRevision:
    """Have this finalizer of ours on a revision and no other of ours; empty: none."""

    revision: str
    finalizer: str


@dataclass(frozen=True, slots=True)
class ForgetRevision:
    """Delete a revision object that fell out of the history."""

    name: str
    uid: str


Action = (
    StartResolve
    | CreateRevision
    | StartPartition
    | StartBuild
    | StartPublish
    | StartValidation
    | StartCollect
    | StartOutcomes
    | DeleteJob
    | EnsureSearchers
    | EnsureNetworkPolicy
    | DeleteNetworkPolicy
    | MoveTraffic
    | LowerRoute
    | EnsureStepService
    | EnsureRoute
    | DeleteStepService
    | DeleteRoute
    | RenewLeases
    | RenewMirrors
    | TellPoint
    | SwitchFreshOff
    | DeleteSearchers
    | WriteRevisionStatus
    | HoldRevision
    | ForgetRevision
)


SAFE: tuple[type[Action], ...] = (
    MoveTraffic,
    LowerRoute,
    WriteRevisionStatus,
    # Before the pods that it is for, so that none is open until it comes.
    EnsureNetworkPolicy,
    EnsureSearchers,
    DeleteNetworkPolicy,
    RenewLeases,
    TellPoint,
    SwitchFreshOff,
    RenewMirrors,
    # A refusal of it holds nothing up: it is asked for again.
    HoldRevision,
    # Last: a gateway writes to the route as often as we do, and a conflict ends the pass.
    EnsureStepService,
    EnsureRoute,
    DeleteStepService,
    DeleteRoute,
)
"""What keeps an index safe, in the order in which it is done: nothing may delay a rollback, then what must not be
forgotten. It runs whatever else is refused or fails."""

FORWARD: tuple[type[Action], ...] = (
    CreateRevision,
    StartResolve,
    # One build at a time: what takes the place of another Job starts after that one is gone.
    DeleteJob,
    StartPartition,
    StartBuild,
    StartPublish,
    StartValidation,
    DeleteSearchers,
    ForgetRevision,
    StartCollect,
    # Last: nothing waits for it.
    StartOutcomes,
)
"""The way forward, in its order: new work, then what takes away. The first that is refused stops the rest."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of one pass. `errors`: the operator's own faults, which the loop logs with their tracebacks."""

    safe: tuple[Action, ...]
    forward: tuple[Action, ...]
    status: VectorIndexStatus
    requeue_after: float
    events: tuple[Event, ...] = ()
    errors: tuple[Exception, ...] = ()
    ask: SourceQuestion | None = None
    """A question to a searcher, best effort. No action: nothing is written for it, and nobody waits."""

    ask_fresh: FreshQuestion | None = None
    """Likewise, about the fresh rows."""

    notices: tuple[Notice, ...] = ()
    """All that there is to tell outside of the cluster, told or not; best effort, as above."""

    @property
    def actions(self) -> tuple[Action, ...]:
        """All of them, in their order."""
        return self.safe + self.forward

    @property
    def loaded_bytes(self) -> dict[str, int]:
        """Memory that the index of each revision that is kept loaded takes, in all the searchers that it is to have."""
        kept = (one for one in self.actions if isinstance(one, EnsureSearchers))
        return {one.revision: one.resident_bytes * max(1, one.shards) * one.live.searcher.replicas for one in kept}


def in_order(actions: Iterable[Action], kinds: tuple[type[Action], ...]) -> tuple[Action, ...]:
    """Those of `actions` that are of `kinds`, in the order of `kinds`; of one kind as they were planned."""
    rank = {kind: number for number, kind in enumerate(kinds)}
    return tuple(sorted((one for one in actions if type(one) in rank), key=lambda one: rank[type(one)]))
