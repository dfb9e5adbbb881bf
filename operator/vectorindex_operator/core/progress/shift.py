"""A canary's steps: with each the gateways send the candidate a larger share, until the front Service switches.

What is asked for is written into `status.rollout.steps` before any gateway is told (safety/route.py), so that an
operator that dies goes on where it was, and nothing has a share that nobody judges. A step counts from when every
gateway has said that it routes so. Without anything to share the traffic with there are no steps: what serves badly, or
not at all, must not hold up its own cure.
"""

from __future__ import annotations

from vectorindex_operator.api import v1alpha1 as api
from vectorindex_operator.api.quantities import duration_seconds
from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import Pause, RolloutStatus, StepsStatus
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.progress import shadow
from vectorindex_operator.core.safety import pause, route
from vectorindex_operator.core.safety.roll_back import pending_trip
from vectorindex_operator.core.state import ReconcileState, Stall

PASSED = "Passed"
NO_REFERENCE = "NoReference"
"""Outcomes."""
UNDECIDED = "StepUndecided"
"""Rule of a row in status.blockedBy."""


def step(state: ReconcileState, name: str, *, complete: bool) -> bool:
    """Whether the front Service may switch to the candidate. Begins its steps, and goes from one to the next.

    `complete`: all its pods are ready. While one is away nobody is sent to the others who was not before.
    """
    rollout = state.statuses[name].rollout
    if rollout is None or not rollout.settings.canary_steps:
        return True
    steps = rollout.steps
    if steps is not None and steps.ended_at is not None:
        return True
    if shadow.rollback_waits(state, name):
        return False  # a person, or a guardrail, wants the traffic elsewhere
    if steps is None and state.spec.rollout.strategy != "Canary":
        return True  # where no gateway is found, this is the way out
    missing = _no_reference(state, name)
    if missing:
        _end(state, name, rollout, NO_REFERENCE, missing)
        state.event(EventReason.STEPS_SKIPPED, missing, revision=name)
        return True
    if not complete or not _reaches_users(state, name):
        return False
    if steps is None:
        _begin(state, name, rollout)
        return False
    at = route.step_of(rollout)
    return at is not None and _look(state, name, rollout, steps, at)


def holds_on(state: ReconcileState, name: str) -> bool:
    """Whether a candidate has been undecided in a step for as long as a soak may be."""
    rollout = state.statuses[name].rollout
    steps = rollout.steps if rollout is not None else None
    if rollout is None or steps is None or state.statuses[name].phase != Phase.SHIFTING or state.step_passed:
        return False
    return state.now - to_unix(steps.asked_at) >= duration_seconds(rollout.settings.soak.max_duration)


def _no_reference(state: ReconcileState, name: str) -> str:
    """Why there is nobody to share the traffic with; empty: there is."""
    serving, loaded = state.statuses.get(state.serving), state.loaded(state.serving)
    if serving is None or serving.phase != Phase.STABLE or state.serving == name:
        return "nothing serves that is stable: there is nothing to share the traffic with"
    if pending_trip(state, state.serving) is not None:
        return f"{state.serving} tripped: it must not hold up its own cure"
    since = loaded.unready_since if loaded.exists else 0.0
    if not loaded.serving() and since is not None and state.seen_at - since >= shadow.UNREADY_SECONDS:
        return f"{state.serving} has no ready pod: it must not hold up its own cure"
    return ""


def _begin(state: ReconcileState, name: str, rollout: RolloutStatus) -> None:
    if not route.is_as_asked(state, "", 0):
        why = state.obs.route.unresolved or "not every gateway has taken it yet"
        state.block(route.NOT_OBSERVED, f"HTTPRoute/{state.obs.index.name}", why)
        state.requeue_at(state.now + 2)
        return
    steps = StepsStatus(number=0, asked_at=to_text(state.now))
    # Decisions of before are no matter of this candidate's, also if it had this name once.
    settled = state.next_serial() - 1
    rollout = rollout.model_copy(update={"steps": steps, "verdicts": (), "restarts": None})
    state.update(name, phase=Phase.SHIFTING, rollout=rollout, settled_serial=settled)
    state.requeue_at(state.now + 1)


def _end(state: ReconcileState, name: str, rollout: RolloutStatus, outcome: str, message: str = "") -> None:
    at = to_text(state.now)
    steps = rollout.steps or StepsStatus(number=0, asked_at=at)
    over = steps.model_copy(update={"ended_at": at, "outcome": outcome, "message": message})
    state.update(name, rollout=rollout.model_copy(update={"steps": over}))


def _reaches_users(state: ReconcileState, name: str) -> bool:
    """Whether there is a gateway; else nothing goes on without a person, and that is said."""
    why = route.obstacle(state)
    if why:
        state.stall = Stall(route.GATEWAY_NOT_FOUND, f"{name} waits for a gateway: {why}", everything=True)
        state.requeue_at(state.now + 30)
    return not why


def _look(state: ReconcileState, name: str, rollout: RolloutStatus, steps: StepsStatus, at: api.Step) -> bool:
    state.requeue_at(state.now + 2)
    if not route.is_as_asked(state, name, at.weight):
        why = state.obs.route.unresolved or f"not every gateway sends {name} its share yet"
        state.block(route.NOT_OBSERVED, f"HTTPRoute/{state.obs.index.name}", why)
        return False
    known = rollout.settings.canary_steps
    if steps.started_at is None:
        _start(state, name, rollout, steps, at)
        return False
    if not state.step_passed:
        if holds_on(state, name):
            state.block(
                UNDECIDED, name, f"step {steps.number + 1} of {len(known)} is undecided for as long as a soak is"
            )
        return False
    if pause.holds(state, name):
        return False
    if steps.number + 1 < len(known):
        further = StepsStatus(number=steps.number + 1, asked_at=to_text(state.now))
        state.update(name, rollout=rollout.model_copy(update={"steps": further}))
        return False
    _end(state, name, rollout, PASSED)
    return True


def _start(state: ReconcileState, name: str, rollout: RolloutStatus, steps: StepsStatus, at: api.Step) -> None:
    """Every gateway routes so: the step's time begins, and where it is to wait for a person, so it is held."""
    began = steps.model_copy(update={"started_at": to_text(state.now)})
    state.update(name, rollout=rollout.model_copy(update={"steps": began}))
    held = state.statuses[name].pause
    if at.pause and (held is None or held.resumed):
        asked = Pause(nonce=f"{pause.BY_STEP}{steps.number}]", at=to_text(state.now))
        state.update(name, pause=asked)
    many = f"step {steps.number + 1} of {len(rollout.settings.canary_steps)}"
    state.event(EventReason.STEP_STARTED, f"{many}: {at.weight} % of what comes through the gateway", revision=name)
