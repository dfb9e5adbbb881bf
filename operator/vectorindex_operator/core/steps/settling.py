"""What the front Service says happened becomes the revisions' status.

The decision is written together with the selector, in one write. So whatever dies right after it, this step finds it
again, and no later pass can "repair" the traffic back to a bad revision.
"""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import Rejection
from vectorindex_operator.core.observation import Decision, DecisionKind
from vectorindex_operator.core.working import Pass

REVERTED = "Reverted"
"""Rule of a decision that gives the traffic back because the user returned to the stable revision: no rejection."""


def step(p: Pass) -> None:
    decision = p.obs.service.decision
    if decision is not None:
        settle(p, decision)
    p.find_slots()
    for name, status in list(p.statuses.items()):
        if status.phase == "Stable" and name != p.stable:
            # A rollback past it, or a promotion whose second half was lost.
            p.update(name, phase="Superseded", message=f"superseded by {p.stable}")


def settle(p: Pass, decision: Decision) -> None:
    """Write `decision` into the statuses of both revisions, once. The source first: its rejection must not be lost."""
    at = to_text(decision.at)
    if decision.source in p.statuses and not _is_settled(p, decision.source, decision):
        _settle_source(p, decision, at)
    if decision.target in p.statuses and not _is_settled(p, decision.target, decision):
        _settle_target(p, decision, at)


def _is_settled(p: Pass, name: str, decision: Decision) -> bool:
    settled = p.statuses[name].settled_at
    return settled is not None and to_unix(settled) >= decision.at - 1e-5


def _settle_source(p: Pass, decision: Decision, at: str) -> None:
    p.update(decision.source, settled_at=at, lost_traffic_at=at)
    if decision.kind is DecisionKind.SWITCH:
        return
    if decision.rule == REVERTED:
        p.update(decision.source, phase="Superseded", message=decision.message)
        return
    rejection = Rejection(stage="Rollout", reason=decision.reason, message=decision.message, at=at)
    p.update(decision.source, phase="RolledBack", rejected=rejection, message=decision.message)


def _settle_target(p: Pass, decision: Decision, at: str) -> None:
    status = p.update(decision.target, settled_at=at, lost_traffic_at=None)
    if decision.kind is DecisionKind.ROLL_BACK:
        # Going back to what passed its soak; an automatic rollback happens once.
        p.update(decision.target, phase="Stable", restored_at=at, message=decision.message)
        return
    rollout = status.rollout
    if rollout is not None and rollout.switched_at is None:
        p.update(decision.target, phase="Soaking", rollout=rollout.model_copy(update={"switched_at": at}))
