"""The way back. One write moves the traffic to the target; it depends only on the target having a ready pod.

The health of the revision that failed is never asked. A target whose pods are gone is loaded again from its artifact
first (cold rollback), while the bad revision keeps answering: never a Service without endpoints.
"""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Trip
from vectorindex_operator.core.observation import Decision, DecisionKind
from vectorindex_operator.core.safety.record_decision import REVERTED, settle
from vectorindex_operator.core.state import ReconcileState

MANUAL = "Manual"
"""Rule of a trip that a person asked for."""


def step(state: ReconcileState) -> None:
    status = state.statuses.get(state.serving)
    if status is not None and status.rollout is not None and status.rollout.trip is not None:
        execute_rollback(state, status.rollout.trip)


def rollback_target(state: ReconcileState, source: str, wish: str = "") -> str:
    """The latest other revision that passed its soak and is not rejected; `wish` must be such a one. Empty: none."""
    good = [
        n
        for n, s in state.statuses.items()
        if n != source and s.promoted_at and s.rejected is None and s.build is not None
    ]
    if wish:
        return wish if wish in good else ""
    return max(good, key=lambda n: (n == state.stable, state.statuses[n].promoted_at or "", n), default="")


def trip(state: ReconcileState, name: str, rule: str, reason: str, message: str) -> None:
    """A guardrail said Fail about `name`: remember it and go back in this very pass where that is possible."""
    rollout = state.statuses[name].rollout
    if rollout is None:
        return
    tripped = Trip(rule=rule, reason=reason, message=message, at=to_text(state.now))
    state.update(name, rollout=rollout.model_copy(update={"trip": tripped}))
    state.event("GuardrailTripped", f"{rule}: {message}", warning=True, revision=name)
    execute_rollback(state, tripped)


def execute_rollback(state: ReconcileState, tripped: Trip) -> None:
    """Move the traffic away from the revision that has it, or say what this waits for."""
    if state.has_moved:
        state.requeue_at(state.now + 1)
        return
    source = state.serving
    rollout = state.statuses[source].rollout
    wish = rollout.prior if rollout is not None else ""
    target = rollback_target(state, source, wish) or rollback_target(state, source)
    if not target:
        state.block("RollbackImpossible", source, "there is no earlier proven revision to go back to")
        return
    state.keep_loaded.add(target)
    if state.loaded(target).ready == 0:
        state.block("RollbackTargetNotReady", target, "its searchers are being loaded from its artifact")
        state.requeue_at(state.now + 5)
        return
    decision = Decision(
        kind=DecisionKind.ROLL_BACK,
        from_revision=source,
        to_revision=target,
        rule=tripped.rule,
        reason=tripped.reason,
        message=tripped.message,
        at=state.decision_time(),
        nonce=next((v.nonce for v in state.obs.index.verbs if v.name == "rollback"), "")
        if tripped.rule == MANUAL
        else "",
    )
    move(state, decision)


def revert(state: ReconcileState, message: str) -> None:
    """The user went back to the stable revision while the candidate soaks: no fault of the candidate's."""
    if state.has_moved:
        state.requeue_at(state.now + 1)
        return
    if state.loaded(state.stable).ready == 0:
        state.block("RollbackTargetNotReady", state.stable)
        return
    decision = Decision(
        DecisionKind.ROLL_BACK, state.candidate, state.stable, REVERTED, REVERTED, message, state.decision_time()
    )
    move(state, decision)


def move(state: ReconcileState, decision: Decision) -> None:
    """Plan the write, and go on as if it had been made."""
    state.move_traffic(decision)
    state.serving = decision.to_revision
    settle(state, decision)
    state.find_slots()
