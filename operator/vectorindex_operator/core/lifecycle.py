"""The decision of one pass: observation in, plan out. Pure; the order of the steps is the precedence of lifecycle.md.

settle   what the Service says happened is written into the revisions (so a crash after the one write loses nothing)
restore  a Service that is gone or was changed by hand
verbs    explicit rollback and retry
guard    guardrails of the revision that has the traffic; promotion
resolve  which dataset, hence which revision is wanted
prepare  the next revision: build, prove
surge    the candidate: load, prove each pod, switch
settle the rest: what stays loaded, what is retired, what is forgotten
"""

from __future__ import annotations

from vectorindex_operator.core import status
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.plan import Plan
from vectorindex_operator.core.progress import build, desired, resolve, surge, validate
from vectorindex_operator.core.safety import (
    judge_serving,
    keep_loaded,
    obey_commands,
    record_decision,
    restore_traffic,
    roll_back,
)
from vectorindex_operator.core.state import Installation, ReconcileState, Stall

STEPS = (
    record_decision.step,
    restore_traffic.step,
    obey_commands.step,
    roll_back.step,
    judge_serving.step,
    resolve.step,
    desired.step,
    build.step,
    validate.step,
    surge.step,
    keep_loaded.step,
)


def decide(obs: Observation, settings: Installation, now: float) -> Plan:
    """What to do about one VectorIndex at unix time `now`. Never raises for a state of the world."""
    if obs.index.deleting:
        # Everything is owned: the garbage collector takes it. Artifacts are retained.
        return Plan(actions=(), status=obs.index.status, requeue_after=300.0)
    if obs.index.spec is None:
        return Plan(
            actions=(),
            status=status.unreadable_spec(obs, now),
            requeue_after=300.0,
        )
    state = ReconcileState.start(obs, obs.index.spec, settings, now)
    if not obs.service.owned or obs.conflict:
        name = obs.conflict or f"Service/{obs.index.name}"
        state.stall = Stall(
            "NameConflict",
            f"{name} exists and belongs to somebody else: rename it or this VectorIndex",
            everything=True,
        )
        state.find_slots()
        return Plan(actions=(), status=status.next_status(state), requeue_after=30.0)
    for step in STEPS:
        step(state)
    next_status = status.next_status(state)
    return Plan(
        actions=state.plan_actions(),
        status=next_status,
        requeue_after=state.wake,
        events=(*state.events, *status.phase_events(state)),
    )
