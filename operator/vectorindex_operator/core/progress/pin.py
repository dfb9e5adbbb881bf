"""`spec.pinRevision`: the revision of that name serves, whatever else spec and data ask for. The way back through Git.

It takes the place of what resolves, decides, builds and proves: nothing is listed and nothing is built. Only what has
passed the gate can be pinned, as the rollout of a revision that was built long ago; from there on it is one like any
other. What a guardrail, or a person, took the traffic from stays rejected, pinned or not.
"""

from __future__ import annotations

from vectorindex_operator.core.phase import IN_PREPARATION, REPLACED, Phase
from vectorindex_operator.core.progress import desired, resolve, suspend
from vectorindex_operator.core.safety import pause
from vectorindex_operator.core.state import ReconcileState, Stall

NOT_THERE = "PinnedRevisionNotFound"
NOT_PROVEN = "PinnedRevisionNotProven"
_MOST_NAMED = 5


def step(state: ReconcileState) -> None:
    name = state.desired = state.spec.pin_revision
    resolve.say_that_it_failed(state)
    obstacle = _obstacle(state, name)
    if obstacle is not None:
        # What is on its way is not what was asked for, whatever that was meant to be.
        suspend.step_back(state, state.candidate)
        state.stall = obstacle
        return
    for other in [n for n, s in state.statuses.items() if s.phase in IN_PREPARATION and n != name]:
        desired.abandon(state, other, f"spec.pinRevision names {name}")
    known = state.statuses[name]
    if known.phase in (IN_PREPARATION | REPLACED) - {Phase.VALIDATED} and known.rejected is None:
        # By the proof that it has: how it is served is frozen in it, and the spec may ask for another way by now.
        changes = {"rollout": None, "pause": pause.left(state, name)}
        state.update(name, phase=Phase.VALIDATED, message="spec.pinRevision names it", **changes)
    desired.take(state, f"spec.pinRevision names {name}")


def is_proven(state: ReconcileState, name: str) -> bool:
    """Whether a revision is built, was measured, and passed the gate."""
    status = state.statuses[name]
    passed = status.gate is not None and status.gate.verdict == "Pass"
    return status.build is not None and status.report is not None and (passed or bool(status.promoted_at))


def _obstacle(state: ReconcileState, name: str) -> Stall | None:
    """Why it cannot serve, and what to do; None: it can."""
    if name in state.foreign:
        return Stall(NOT_PROVEN, f"spec.pinRevision: this operator {state.foreign[name]} of {name}: upgrade it")
    if name not in state.statuses:
        others = sorted((n for n in state.statuses if is_proven(state, n)), key=state.good_since, reverse=True)
        there = ", ".join(others[:_MOST_NAMED]) or "none yet"
        message = f"spec.pinRevision: there is no revision {name} (those that passed the gate: {there})"
        return Stall(NOT_THERE, f"{message}; name one of them, or take the field out")
    if state.statuses[name].rejected is None and not is_proven(state, name):
        message = f"spec.pinRevision: {name} is {state.statuses[name].phase} and did not pass the gate"
        return Stall(NOT_PROVEN, f"{message}; nothing is built or proven until the field is taken out")
    return None
