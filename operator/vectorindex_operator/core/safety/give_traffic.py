"""The one way to give the traffic to a revision: one write, once in a pass, with its reason beside it."""

from __future__ import annotations

from vectorindex_operator.core.safety.record_decision import point_decided, record
from vectorindex_operator.core.state import ReconcileState
from vectorindex_operator.core.traffic import Decision, DecisionKind


def give_traffic(
    state: ReconcileState,
    kind: DecisionKind,
    to_revision: str,
    *,
    from_revision: str,
    rule: str,
    reason: str,
    message: str,
    nonce: str = "",
) -> bool:
    """Plan the write, and go on as if it had been made; the Event is sent with what follows from the decision.

    False when this pass moves the traffic already, or when the API server would not have it: the next pass decides
    again, on what that led to.
    """
    if state.has_moved or state.obs.traffic.refused:
        state.requeue_at(state.now + 1)
        return False
    # A revision that answers at another point than the default one goes on with that.
    point = point_decided(state, to_revision)
    serial = state.next_serial()
    decision = Decision(kind, from_revision, to_revision, rule, reason, message, state.now, nonce, serial, point)
    state.plan_move(decision)
    record(state, decision)
    state.find_slots()
    return True
