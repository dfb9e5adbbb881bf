"""What the front Service says happened becomes the revisions' status.

The decision is written together with the selector, in one write. So whatever dies right after it, this step finds it
again, and no later pass can "repair" the traffic back to a bad revision.
"""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import Rejection
from vectorindex_operator.core.observation import Decision, DecisionKind
from vectorindex_operator.core.state import ReconcileState

REVERTED = "Reverted"
"""Rule of a decision that gives the traffic back because the user returned to the stable revision: no rejection."""


def step(state: ReconcileState) -> None:
    decision = state.obs.service.decision
    if decision is not None:
        settle(state, decision)
    state.find_slots()
    for name, status in list(state.statuses.items()):
        if status.phase == "Stable" and name != state.stable:
            # A rollback past it, or a promotion whose second half was lost.
            state.update(name, phase="Superseded", message=f"superseded by {state.stable}")


def settle(state: ReconcileState, decision: Decision) -> None:
    """Write `decision` into the statuses of both revisions, once. The source first: its rejection must not be lost."""
    at = to_text(decision.at)
    if decision.from_revision in state.statuses and not _is_settled(state, decision.from_revision, decision):
        _settle_source(state, decision, at)
    if decision.to_revision in state.statuses and not _is_settled(state, decision.to_revision, decision):
        _settle_target(state, decision, at)


def _is_settled(state: ReconcileState, name: str, decision: Decision) -> bool:
    settled = state.statuses[name].settled_at
    return settled is not None and to_unix(settled) >= decision.at - 1e-5


def _settle_source(state: ReconcileState, decision: Decision, at: str) -> None:
    state.update(decision.from_revision, settled_at=at, lost_traffic_at=at)
    if decision.kind is DecisionKind.SWITCH:
        return
    if decision.rule == REVERTED:
        state.update(decision.from_revision, phase="Superseded", message=decision.message)
        return
    rejection = Rejection(stage="Rollout", reason=decision.reason, message=decision.message, at=at)
    state.update(decision.from_revision, phase="RolledBack", rejected=rejection, message=decision.message)


def _settle_target(state: ReconcileState, decision: Decision, at: str) -> None:
    status = state.update(decision.to_revision, settled_at=at, lost_traffic_at=None)
    if decision.kind is DecisionKind.ROLL_BACK:
        # Going back to what passed its soak; an automatic rollback happens once.
        state.update(decision.to_revision, phase="Stable", restored_at=at, message=decision.message)
        return
    rollout = status.rollout
    if rollout is not None and rollout.switched_at is None:
        state.update(decision.to_revision, phase="Soaking", rollout=rollout.model_copy(update={"switched_at": at}))
