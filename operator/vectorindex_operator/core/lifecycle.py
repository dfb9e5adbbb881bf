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
from vectorindex_operator.core.steps import (
    building,
    resolving,
    restoring,
    retiring,
    rolling_back,
    settling,
    soaking,
    surging,
    validating,
    verbs,
    wanting,
)
from vectorindex_operator.core.working import Pass, Settings, Stall

STEPS = (
    settling.step,
    restoring.step,
    verbs.step,
    rolling_back.step,
    soaking.step,
    resolving.step,
    wanting.step,
    building.step,
    validating.step,
    surging.step,
    retiring.step,
)


def decide(obs: Observation, settings: Settings, now: float) -> Plan:
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
    pass_ = Pass.start(obs, obs.index.spec, settings, now)
    if not obs.service.owned or obs.conflict:
        name = obs.conflict or f"Service/{obs.index.name}"
        pass_.stall = Stall(
            "NameConflict",
            f"{name} exists and belongs to somebody else: rename it or this VectorIndex",
            everything=True,
        )
        pass_.find_slots()
        return Plan(actions=(), status=status.next_status(pass_), requeue_after=30.0)
    for step in STEPS:
        step(pass_)
    next_status = status.next_status(pass_)
    return Plan(
        actions=pass_.plan_actions(),
        status=next_status,
        requeue_after=pass_.wake,
        events=(*pass_.events, *status.phase_events(pass_)),
    )
