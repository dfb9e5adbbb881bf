"""What the front Service says happened becomes the revisions' status.

The decision is written together with the selector, in one write. So whatever dies right after it, this step finds it
again, and no later pass can "repair" the traffic back to a bad revision.
"""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import PointStatus, Rejection, ShadowStatus, StepsStatus
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.phase import BEFORE_SWITCH, GIVEN_UP, Phase
from vectorindex_operator.core.state import ReconcileState
from vectorindex_operator.core.traffic import Decision, DecisionKind, PointDecision
from vectorindex_searcher.contract import ServingPoint

REVERTED = "Reverted"
"""Rule of a decision that gives the traffic back because the user returned to the stable revision: no rejection."""
SWITCHED = "Switched"
"""Outcome of a shadow whose own was lost."""
RESTORED = "Restored"
"""Rule of a decision that puts back a Service that somebody else changed or deleted."""


def step(state: ReconcileState) -> None:
    decision = state.obs.traffic.decision
    if decision is not None:
        record(state, decision)
    state.find_slots()
    for name, status in list(state.statuses.items()):
        if status.phase == Phase.STABLE and name != state.stable:
            # A rollback past it, or a promotion whose second half was lost.
            state.update(name, phase=Phase.SUPERSEDED, message=f"superseded by {state.stable}")
        if status.phase in BEFORE_SWITCH and name != state.candidate:
            # The operator died between the two statuses that gave it up and let what serves soak on.
            at = to_text(state.now) if status.phase == Phase.SHIFTING else status.lost_traffic_at
            state.update(
                name, phase=Phase.SUPERSEDED, lost_traffic_at=at, message=f"{state.candidate} is the candidate"
            )
        moved = decision is not None and decision.to_revision == state.serving != name
        if status.phase == Phase.OUTGOING and moved:
            # Its Service was gone, so the decision that gave the traffic to another does not name it.
            _leave(state, name, f"{state.serving} has the traffic", to_text(state.now))


def record(state: ReconcileState, decision: Decision) -> None:
    """Write `decision` into the statuses of both revisions, once. The source first: its rejection must not be lost."""
    gave = _is_open(state, decision.from_revision, decision)
    took = _is_open(state, decision.to_revision, decision)
    if gave:
        record_loss(state, decision)
    if took:
        _record_gain(state, decision, to_text(decision.at))
        _tell(state, decision)
    if decision.point is not None:
        record_point(state, decision.to_revision, decision.point)


def point_decided(state: ReconcileState, name: str) -> PointDecision | None:
    """The last decision about the operating point of a revision; None: there was none, so it is the default one.

    What stands on the front Service is in the status as soon as a pass has begun, and stays there when somebody else
    rewrites the Service, or a release does that knows nothing of it.
    """
    status = state.statuses.get(name)
    kept = status.point if status is not None else None
    if kept is None or kept.point not in tuple(ServingPoint):
        return None
    return PointDecision(ServingPoint(kept.point), to_unix(kept.at), kept.message, kept.nonce)


def record_point(state: ReconcileState, name: str, point: PointDecision) -> None:
    """Write a decision about an operating point into the revision's status, once."""
    status = state.statuses.get(name)
    if status is None or (status.point is not None and to_unix(status.point.at) > point.at - 1e-5):
        return
    state.update(
        name,
        point=PointStatus(point=point.point.value, at=to_text(point.at), message=point.message, nonce=point.nonce),
    )
    wide = point.point is ServingPoint.CONSERVATIVE
    state.event(EventReason.CONSERVATIVE_POINT if wide else EventReason.DEFAULT_POINT, point.message, revision=name)


def _is_open(state: ReconcileState, name: str, decision: Decision) -> bool:
    """Whether the status of `name` does not reflect the decision yet."""
    status = state.statuses.get(name)
    if status is None:
        return False
    if decision.serial:
        return status.settled_serial < decision.serial
    return status.settled_at is None or to_unix(status.settled_at) < decision.at - 1e-5


def record_loss(state: ReconcileState, decision: Decision) -> None:
    """Write `decision` into the status of the revision that lost by it."""
    name, at = decision.from_revision, to_text(decision.at)
    status = state.update(name, settled_at=at, settled_serial=decision.serial, lost_traffic_at=at)
    if status.rollout is not None and status.rollout.prior_kept_until is not None:
        # What it had replaced was kept for this very moment.
        status = state.update(name, rollout=status.rollout.model_copy(update={"prior_kept_until": None}))
    if decision.kind is DecisionKind.SWITCH:
        if status.phase == Phase.OUTGOING:
            _leave(state, name, decision.message, at)
        # What soaks is surged again (restore_traffic.py): another operator put it back on an older view.
    elif decision.rule == REVERTED:
        state.update(name, phase=Phase.SUPERSEDED, message=decision.message)
    else:
        _reject(state, name, decision.reason, decision.message, at)


def _leave(state: ReconcileState, name: str, message: str, at: str) -> None:
    """What was on its way out has lost the traffic: it was rejected if it tripped, else superseded."""
    status = state.statuses[name]
    trip = status.rollout.trip if status.rollout is not None else None
    if trip is not None:
        _reject(state, name, trip.reason, trip.message, at)
    else:
        state.update(name, phase=Phase.SUPERSEDED, lost_traffic_at=at, message=message)


def _reject(state: ReconcileState, name: str, reason: str, message: str, at: str) -> None:
    rejection = Rejection(stage="Rollout", reason=reason, message=message, at=at)
    state.update(name, phase=Phase.ROLLED_BACK, rejected=rejection, message=message)


def _record_gain(state: ReconcileState, decision: Decision, at: str) -> None:
    name = decision.to_revision
    status = state.update(name, settled_at=at, settled_serial=decision.serial, lost_traffic_at=None, unloaded_at=None)
    if decision.kind is DecisionKind.ROLL_BACK:
        # Going back to what passed its soak; an automatic rollback happens once.
        state.update(name, phase=Phase.STABLE, restored_at=at, message=decision.message)
        return
    rollout = status.rollout
    # What another operator gave up meanwhile stays given up; restore_traffic takes the traffic back from it.
    if rollout is not None and rollout.switched_at is None and status.phase not in GIVEN_UP:
        shadow, steps = _closed(rollout.shadow, decision, at), _over(rollout.steps, at)
        changes: dict[str, object] = {"switched_at": at, "shadow": shadow, "steps": steps}
        # What it was seen to do with a share of the traffic, its soak does not count.
        changes |= {"restarts": None, "verdicts": ()} if steps is not None else {}
        rollout = rollout.model_copy(update=changes)
        # Noted once, while its pods have just come up: one that was unready later looks as if it had loaded until then.
        took = state.loaded(name).load_seconds or status.load_seconds
        state.update(name, phase=Phase.SOAKING, rollout=rollout, load_seconds=took)


def _closed(shadow: ShadowStatus | None, decision: Decision, at: str) -> ShadowStatus | None:
    """Who switched knew how the shadow ended; where only its decision is left, that is said."""
    if shadow is None or shadow.ended_at is not None:
        return shadow
    return shadow.model_copy(update={"ended_at": at, "outcome": SWITCHED, "message": decision.message})


def _over(steps: StepsStatus | None, at: str) -> StepsStatus | None:
    """As `_closed`: what has the traffic has no steps any more."""
    if steps is None or steps.ended_at is not None:
        return steps
    return steps.model_copy(update={"ended_at": at, "outcome": SWITCHED})


def _tell(state: ReconcileState, decision: Decision) -> None:
    """A rollback is told by the phase of the revision that lost the traffic."""
    if decision.kind is DecisionKind.ROLL_BACK and decision.from_revision in state.statuses:
        return
    reason = EventReason.TRAFFIC_RESTORED if decision.rule == RESTORED else EventReason.TRAFFIC_SWITCHED
    source = f"from {decision.from_revision} " if decision.from_revision else ""
    state.event(reason, f"{source}to {decision.to_revision}: {decision.message}", revision=decision.to_revision)
