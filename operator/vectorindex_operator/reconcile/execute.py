"""Run the actions of a plan. A conflict, or no answer, ends the pass: the next one goes on from what is really there.

A write that is refused ends less. What keeps the index safe is done all the same, each action by itself; of the way
forward the first refusal stops the rest. Every refusal is said in the status (blockedBy) by the loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from vectorindex_operator.api.v1alpha1 import API_VERSION, BlockedBy, VectorIndexStatus
from vectorindex_operator.core.internal_keys import addressee
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.plan import (
    Action,
    CreateRevision,
    DeleteJob,
    DeleteNetworkPolicy,
    DeleteRoute,
    DeleteSearchers,
    DeleteStepService,
    EnsureNetworkPolicy,
    EnsureRoute,
    EnsureSearchers,
    EnsureStepService,
    ForgetRevision,
    HoldRevision,
    MoveTraffic,
    Plan,
    RenewLeases,
    RenewMirrors,
    StartBuild,
    StartCollect,
    StartOutcomes,
    StartPartition,
    StartPublish,
    StartResolve,
    StartValidation,
    SwitchFreshOff,
    TellPoint,
    WriteRevisionStatus,
)
from vectorindex_operator.core.state import Installation
from vectorindex_operator.manifests import labels, searchers, service
from vectorindex_operator.manifests.render import Rendered, render
from vectorindex_operator.reconcile import raw
from vectorindex_operator.reconcile.errors import ConflictError, InvalidError, NotOursError, RefusedError, UndoneError
from vectorindex_operator.reconcile.leftovers import with_finalizer
from vectorindex_operator.reconcile.objects import Objects, Repair
from vectorindex_operator.reconcile.observe import ROUTE
from vectorindex_operator.reconcile.ports import Cluster, Raw, Searchers
from vectorindex_operator.reconcile.routes import weights
from vectorindex_searcher.contract import MIRROR_ADDRESSES, FreshOrder, MirrorLease, Model, PointOrder, TrafficLease

log = logging.getLogger(__name__)

WRITE_REFUSED = "WriteRefused"
WRITE_UNDONE = "WriteUndone"
NAME_CONFLICT = "NameConflict"
INTERNAL_ERROR = "InternalError"
PODS = "spec.searcher.pod"
"""Of a row about pods that no API server would make."""
FRONT = "spec.searcher.service"
"""Of a row about what the API server does not take of it."""
LONGEST_NOTE = 16 * 1024
MOST_ROWS = 10
LONGEST_WORDS = 512
FRESH_OFF_SECONDS = 120.0
"""For which an order to answer no fresh rows holds: some looks at a stable revision may be late."""
SEARCHER_KINDS = ("PodDisruptionBudget", "Deployment")


@dataclass(slots=True)
class Executor:
    """Turns the actions of one pass into writes through the ports. Keeps what was refused, and what was put back."""

    cluster: Cluster
    searchers: Searchers
    settings: Installation
    obs: Observation
    refusals: list[BlockedBy] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)
    undone: list[Action] = field(default_factory=list)
    """What was refused, and what was not begun for that."""
    said: VectorIndexStatus | None = None
    """The status of the VectorIndex that this pass has written."""
    _versions: dict[tuple[str, str], str] = field(default_factory=dict)

    def move_traffic(self, plan: Plan) -> str:
        """The one write that moves the traffic, before all others. Answers the server's words when it is refused."""
        for action in plan.safe:
            if isinstance(action, MoveTraffic) and not self._run(action):
                return self.refusals[-1].message
        return ""

    def run(self, plan: Plan) -> None:
        """Everything but moving the traffic. Raises errors.ClusterError for a conflict, or when nobody answers."""
        moves = any(isinstance(action, MoveTraffic) for action in plan.safe)
        for action in plan.safe:
            if isinstance(action, MoveTraffic):
                continue
            unproven = self._is_unproven(action)
            if unproven or not self._run(action):
                self.undone.append(action)
        if not moves and not self.obs.traffic.refused:
            self._attempt(f"Service/{self.obs.index.name}", self._repair_front)
            self._attempt(FRONT, self._dress_front)
        # What was decided and could not be recorded is decided again: work must not be built on it.
        for number, action in enumerate(plan.forward):
            if self.unrecorded or not self._run(action):
                self.undone += plan.forward[number:]
                break

    def _is_unproven(self, action: Action) -> bool:
        """Whether it rests on a status that was refused."""
        if isinstance(action, EnsureRoute):
            return bool(action.resource_version) and action.candidate in self.unrecorded
        return isinstance(action, EnsureSearchers) and action.revision in self.unrecorded

    @property
    def unrecorded(self) -> frozenset[str]:
        """Revisions whose status was refused: what was decided about them is decided again."""
        return frozenset(one.revision for one in self.undone if isinstance(one, WriteRevisionStatus))

    # ------------------------------------------------------------ one action

    def _run(self, action: Action) -> bool:
        """Whether nothing of it was refused."""
        obs, namespace = self.obs, self.obs.index.namespace
        match action:
            case (
                StartResolve()
                | StartPartition()
                | StartBuild()
                | StartPublish()
                | StartValidation()
                | StartCollect()
                | StartOutcomes()
                | EnsureNetworkPolicy()
                | EnsureSearchers()
                | EnsureStepService()
            ):
                return self._write(action)
            case CreateRevision():
                return self._pods_are_valid() and self._write(action)
            case EnsureRoute():
                return self._write_route(action)
            case MoveTraffic():
                (front,) = render(action, obs, obs.index.spec, self.settings)
                live = obs.objects.get(("Service", obs.index.name))
                return self._attempt(f"Service/{obs.index.name}", lambda: Objects(self.cluster).point(front, live))
            case WriteRevisionStatus():
                subject = f"VectorIndexRevision/{action.revision}"
                write = lambda: self.write_status("VectorIndexRevision", action.revision, action.status)  # noqa: E731
                return self._attempt(subject, write)
            case DeleteJob():
                return self._delete("Job", action.name, action.uid, namespace)
            case DeleteNetworkPolicy():
                return self._delete("NetworkPolicy", action.name, action.uid, namespace)
            case DeleteStepService():
                return self._delete("Service", action.name, action.uid, namespace)
            case DeleteRoute():
                return self._delete(ROUTE, action.name, action.uid, namespace)
            case DeleteSearchers():
                return self._delete_searchers(action.revision)
            case ForgetRevision():
                # Somebody may have taken it up again since it was looked at.
                version = self._version("VectorIndexRevision", action.name)
                return self._delete("VectorIndexRevision", action.name, action.uid, namespace, version)
            case HoldRevision():
                return self._attempt(f"VectorIndexRevision/{action.revision}", lambda: self._hold(action))
            case RenewLeases():
                to = addressee(obs, action.revision)
                self.searchers.tell(to, action.addresses, TrafficLease(state=action.state))
                return True
            case TellPoint():
                order = PointOrder(point=action.point, decided_at=action.decided_at)
                self.searchers.order(addressee(obs, action.revision), action.addresses, order)
                return True
            case SwitchFreshOff():
                order_off = FreshOrder(off=True, ttl_seconds=FRESH_OFF_SECONDS)
                self.searchers.order(addressee(obs, action.revision), action.addresses, order_off)
                return True
            case RenewMirrors():
                to, receiver = addressee(obs, action.revision), addressee(obs, action.receiver)
                lease = MirrorLease(
                    revision=action.receiver,
                    addresses=action.receivers[:MIRROR_ADDRESSES],
                    max_per_second=action.max_per_second,
                    shadow=action.shadow,
                    sender_judged=action.sender_judged or None,
                )
                self.searchers.mirror(to, action.addresses, receiver, lease)
                return True

    def _pods_are_valid(self) -> bool:
        """Whether the API server has nothing against pods as the spec describes them: they are frozen into a revision
        here, and made when it is built and proven. What else it may have against them now (a quota) may be gone then.
        """
        index = self.obs.index
        if index.spec is None or not index.spec.searcher.pod.is_deep:
            return True
        try:
            self.cluster.judge(searchers.trial(index.spec, index, self.settings))
        except InvalidError as error:
            self.refusals.append(BlockedBy(rule=WRITE_REFUSED, subject=PODS, message=str(error)[:LONGEST_WORDS]))
            return False
        except RefusedError as error:
            log.info("%s could not be judged: %s", PODS, error, extra={"key": f"{index.namespace}/{index.name}"})
        return True

    def _write(self, action: Rendered) -> bool:
        """Each object by itself: a quota on one must not keep the others away."""
        objects, manifests = Objects(self.cluster), self._render(action)
        done = bool(manifests)
        for manifest in manifests:
            key = manifest["kind"], manifest["metadata"]["name"]

            def write(manifest: labels.Manifest = manifest, key: tuple[str, str] = key) -> Repair | None:
                if isinstance(action, (EnsureNetworkPolicy, EnsureSearchers, EnsureStepService)):
                    return objects.ensure(manifest, self.obs.objects.get(key))
                objects.create(manifest)
                return None

            done &= self._attempt("/".join(key), write)
        return done

    def _write_route(self, action: EnsureRoute) -> bool:
        """A larger share only on the route that it was decided on; a smaller one on any. One is made only where there
        is none: what another operator has made by then may name a candidate that this one does not know of."""
        name, done = self.obs.index.name, True
        for manifest in self._render(action):
            live = self.obs.objects.get((ROUTE, name))

            def write(manifest: labels.Manifest = manifest, live: Raw | None = live) -> Repair | None:
                if live is not None:
                    return Objects(self.cluster).ensure(manifest, live, action.resource_version)
                Objects(self.cluster).make(manifest)
                return None

            done &= self._attempt(f"{ROUTE}/{name}", write)
        return done

    def _render(self, action: Rendered) -> tuple[labels.Manifest, ...]:
        """A revision whose frozen parts cannot be rendered must not take the others' rollback along."""
        try:
            return render(action, self.obs, self.obs.index.spec, self.settings)
        except Exception as error:
            what = f"{type(action).__name__} of {getattr(action, 'revision', '') or getattr(action, 'name', '')}"
            log.exception("a bug: %s cannot be rendered", what)
            subject, words = f"VectorIndex/{self.obs.index.name}", f"{what} cannot be rendered: {error!r}"
            self.refusals.append(BlockedBy(rule=INTERNAL_ERROR, subject=subject, message=words[:LONGEST_WORDS]))
            return ()

    def _delete(self, kind: str, name: str, uid: str, namespace: str, version: str = "") -> bool:
        return self._attempt(f"{kind}/{name}", lambda: self.cluster.delete(kind, namespace, name, uid, version))

    def _delete_searchers(self, revision: str) -> bool:
        self._check_unused(revision)
        done = True
        for kind, name in self._made_for(revision):
            meta = self.obs.objects[kind, name]["metadata"]
            # Pods that became ready since may have been given the traffic since that question was asked.
            version = meta["resourceVersion"] if kind == "Deployment" else ""
            done &= self._delete(kind, name, meta["uid"], self.obs.index.namespace, version)
        return done

    def _made_for(self, revision: str) -> list[tuple[str, str]]:
        """Kind and name of what is around the pods of a revision, those of its shards included."""
        found = []
        for (kind, name), live in self.obs.objects.items():
            marks = raw.label(live, labels.REVISION), raw.label(live, labels.COMPONENT)
            mine = name == revision or marks == (revision, labels.SHARD_PODS)
            if mine and kind in SEARCHER_KINDS and raw.is_owned(live, self.obs.index.uid):
                found.append((kind, name))
        return sorted(found, key=lambda one: (SEARCHER_KINDS.index(one[0]), one[1] != revision, one[1]))

    def _check_unused(self, revision: str) -> None:
        """Ask once more, right before its searchers go: who was paused since it looked must not cut off the users."""
        front = self.cluster.get("Service", self.obs.index.namespace, self.obs.index.name)
        if raw.part(front, "spec", "selector").get(labels.REVISION) == revision:
            name = self.obs.index.name
            raise ConflictError(f"Service/{name} points to {revision}, which was about to be retired")
        if not self.obs.route.exists:
            return
        route = self.cluster.get(ROUTE, self.obs.index.namespace, self.obs.index.name)
        if route is not None and weights(route).get(revision):
            raise ConflictError(f"{ROUTE}/{self.obs.index.name} names {revision}, which was about to be retired")

    def _hold(self, action: HoldRevision) -> None:
        live = self.obs.objects["VectorIndexRevision", action.revision]
        if raw.is_deleting(live):
            self._check_index_stays()
        version = self._version("VectorIndexRevision", action.revision)
        written = self.cluster.merge(with_finalizer(live, action.finalizer, version))
        self._versions["VectorIndexRevision", action.revision] = raw.text(
            raw.part(written, "metadata").get("resourceVersion")
        )

    def _check_index_stays(self) -> None:
        """Ask once more, after a revision was seen to be deleted: along with its VectorIndex, it waits for a Job."""
        index = self.cluster.get("VectorIndex", self.obs.index.namespace, self.obs.index.name)
        uid = raw.part(index, "metadata").get("uid")
        if uid != self.obs.index.uid or raw.is_deleting(index):
            raise ConflictError(f"VectorIndex/{self.obs.index.name} was deleted, and with it its revisions")

    def _repair_front(self) -> Repair | None:
        """Selector and ports of the front Service are exactly ours, or users are sent elsewhere or nowhere."""
        traffic, live = self.obs.traffic, self.obs.objects.get(("Service", self.obs.index.name))
        decision = traffic.decision
        if traffic.revision not in self.obs.revisions or traffic.revision in self.obs.foreign:
            return None  # what its Service must look like is not known here
        if live is None or not traffic.owned or decision is None or decision.to_revision != traffic.revision:
            return None  # whom the traffic belongs to is decided elsewhere
        reached = self.obs.index.live
        tls = reached is not None and reached.searcher.tls is not None
        known = MoveTraffic(decision, traffic.resource_version, tls)
        (front,) = render(known, self.obs, self.obs.index.spec, self.settings)
        return Objects(self.cluster).repair_front(front, live)

    def _dress_front(self) -> None:
        index, live = self.obs.index, self.obs.objects.get(("Service", self.obs.index.name))
        if index.live is None or live is None or not self.obs.traffic.owned or raw.is_deleting(live):
            return
        before = raw.annotation(live, labels.ASKED, LONGEST_NOTE)
        wanted = index.live.searcher.service
        if before or wanted is not None:
            Objects(self.cluster).dress_front(service.as_asked(wanted, index, before), live)

    def _attempt(self, subject: str, write: Callable[[], Repair | None]) -> bool:
        try:
            repair = write()
        except (RefusedError, NotOursError) as error:
            self.refusals.append(BlockedBy(rule=_rule(error), subject=subject, message=str(error)[:LONGEST_WORDS]))
            return False
        if repair is not None:
            self.repairs.append(repair)
        return True

    # ------------------------------------------------------------ statuses

    def write_status(self, kind: str, name: str, status: Model) -> None:
        """One write of a whole status, refused when the object changed since it was read."""
        version = self._version(kind, name)
        written = self.cluster.apply_status(
            {
                "apiVersion": API_VERSION,
                "kind": kind,
                "metadata": {"name": name, "namespace": self.obs.index.namespace, "resourceVersion": version},
                "status": status.wire(),
            }
        )
        self._versions[kind, name] = raw.text(raw.part(written, "metadata").get("resourceVersion"))

    def _version(self, kind: str, name: str) -> str:
        """The version of an object that this pass has read, or has written since."""
        return self._versions.get((kind, name)) or str(self.obs.objects[kind, name]["metadata"]["resourceVersion"])


def _rule(error: RefusedError | NotOursError) -> str:
    if isinstance(error, NotOursError):
        return NAME_CONFLICT
    return WRITE_UNDONE if isinstance(error, UndoneError) else WRITE_REFUSED
