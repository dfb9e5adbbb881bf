"""A candidate loses its share of the gateway's traffic: one write, with the reason beside the weights.

The front Service does not move: it is with what serves. Like a rollback's, the decision is found again by whoever
comes after an operator that died right after that write.
"""

from __future__ import annotations

from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.safety.record_decision import record_loss
from vectorindex_operator.core.state import ReconcileState
from vectorindex_operator.core.traffic import Decision, DecisionKind


def step(state: ReconcileState) -> None:
    """Write down what the route says happened."""
    decision = state.obs.route.decision
    if decision is not None:
        _record(state, decision)


def withdraw(state: ReconcileState, name: str, *, rule: str, reason: str, message: str) -> None:
    """Plan the write (safety/route.py makes it), and go on as if it had been made."""
    decision = Decision(
        DecisionKind.ROLL_BACK, name, state.serving, rule, reason, message[:1024], state.now, serial=state.next_serial()
    )
    state.withdrawal = decision
    _record(state, decision)


def _record(state: ReconcileState, decision: Decision) -> None:
    status = state.statuses.get(decision.from_revision)
    if status is None or status.phase != Phase.SHIFTING or status.settled_serial >= decision.serial:
        return
    record_loss(state, decision)
    state.keep_loaded.discard(decision.from_revision)
    state.find_slots()
