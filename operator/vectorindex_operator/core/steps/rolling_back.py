"""The way back. One write moves the traffic to the target; it depends only on the target having a ready pod.

The health of the revision that failed is never asked. A target whose pods are gone is loaded again from its artifact
first (cold rollback), while the bad revision keeps answering: never a Service without endpoints.
"""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Trip
from vectorindex_operator.core.observation import Decision, DecisionKind
from vectorindex_operator.core.steps.settling import REVERTED, settle
from vectorindex_operator.core.working import Pass

MANUAL = "Manual"
"""Rule of a trip that a person asked for."""


def step(p: Pass) -> None:
    status = p.statuses.get(p.traffic)
    if status is not None and status.rollout is not None and status.rollout.trip is not None:
        carry_out(p, status.rollout.trip)


def rollback_target(p: Pass, source: str, wish: str = "") -> str:
    """The latest other revision that passed its soak and is not rejected; `wish` must be such a one. Empty: none."""
    good = [
        n for n, s in p.statuses.items() if n != source and s.promoted_at and s.rejected is None and s.build is not None
    ]
    if wish:
        return wish if wish in good else ""
    return max(good, key=lambda n: (n == p.stable, p.statuses[n].promoted_at or "", n), default="")


def trip(p: Pass, name: str, rule: str, reason: str, message: str) -> None:
    """A guardrail said Fail about `name`: remember it and go back in this very pass where that is possible."""
    rollout = p.statuses[name].rollout
    if rollout is None:
        return
    tripped = Trip(rule=rule, reason=reason, message=message, at=to_text(p.now))
    p.update(name, rollout=rollout.model_copy(update={"trip": tripped}))
    p.event("GuardrailTripped", f"{rule}: {message}", warning=True, revision=name)
    carry_out(p, tripped)


def carry_out(p: Pass, tripped: Trip) -> None:
    """Move the traffic away from the revision that has it, or say what this waits for."""
    if p.has_moved:
        p.wake_at(p.now + 1)
        return
    source = p.traffic
    rollout = p.statuses[source].rollout
    wish = rollout.prior if rollout is not None else ""
    target = rollback_target(p, source, wish) or rollback_target(p, source)
    if not target:
        p.block("RollbackImpossible", source, "there is no earlier proven revision to go back to")
        return
    p.keep.add(target)
    if p.loaded(target).ready == 0:
        p.block("RollbackTargetNotReady", target, "its searchers are being loaded from its artifact")
        p.wake_at(p.now + 5)
        return
    decision = Decision(
        kind=DecisionKind.ROLL_BACK,
        source=source,
        target=target,
        rule=tripped.rule,
        reason=tripped.reason,
        message=tripped.message,
        at=p.decision_time(),
        nonce=next((v.nonce for v in p.obs.index.verbs if v.name == "rollback"), "") if tripped.rule == MANUAL else "",
    )
    move(p, decision)


def revert(p: Pass, message: str) -> None:
    """The user went back to the stable revision while the candidate soaks: no fault of the candidate's."""
    if p.has_moved:
        p.wake_at(p.now + 1)
        return
    if p.loaded(p.stable).ready == 0:
        p.block("RollbackTargetNotReady", p.stable)
        return
    decision = Decision(DecisionKind.ROLL_BACK, p.candidate, p.stable, REVERTED, REVERTED, message, p.decision_time())
    move(p, decision)


def move(p: Pass, decision: Decision) -> None:
    """Plan the write, and go on as if it had been made."""
    p.move_traffic(decision)
    p.traffic = decision.target
    settle(p, decision)
    p.find_slots()
