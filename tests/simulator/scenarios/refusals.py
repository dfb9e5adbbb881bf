"""Writes that an API server will not have for a while: quotas, admission."""

from __future__ import annotations

from simulator.scenarios.rollouts import ROLLED_BACK
from simulator.scenarios.scenario import Script, edited, ends, first_is_stable, phase, scenario, set_quality, stable
from simulator.truth import Quality
from simulator.world import World


def _refused(w: World, *kinds: str) -> None:
    w.truth.refused = frozenset(kinds)


@scenario(ends("B", builds=2))
def no_quota_for_searchers(w: World) -> Script:
    """Longer than progressDeadline, which does not run without pods."""
    yield from first_is_stable(w)
    _refused(w, "Deployment")
    w.apply(index__factory="B")
    yield phase(w, "B", "Surging")
    yield w.rng.uniform(150.0, 400.0)
    _refused(w)
    yield stable(w, "B")


@scenario(ends("B", builds=2))
def no_quota_for_jobs(w: World) -> Script:
    yield from first_is_stable(w)
    _refused(w, "Job")
    w.apply(index__factory="B")
    yield w.rng.uniform(60.0, 400.0)
    _refused(w)
    yield stable(w, "B")


@scenario(ROLLED_BACK)
def the_service_is_frozen_while_it_trips(w: World) -> Script:
    """Nobody may write the Service: what tripped keeps the traffic until somebody may."""
    set_quality(w, "B", Quality(zero_results=0.5))
    yield from edited(w)
    yield lambda: w.serving() == w.name_of("B")
    _refused(w, "Service")
    yield lambda: any(row["rule"] == "WriteRefused" for row in w.status().get("blockedBy", ()))
    yield w.rng.uniform(0.0, 200.0)
    assert w.serving() == w.name_of("B")
    _refused(w)
    yield phase(w, "B", "RolledBack")


@scenario(ROLLED_BACK)
def all_but_the_service_is_frozen_while_it_trips(w: World) -> Script:
    """Nothing but the Service can be written: that is all that a rollback needs."""
    set_quality(w, "B", Quality(zero_results=0.5))
    yield from edited(w)
    yield phase(w, "B", "Soaking")
    _refused(w, "VectorIndex", "VectorIndexRevision", "Deployment", "PodDisruptionBudget", "NetworkPolicy", "Job")
    yield lambda: w.serving() == w.name_of("A")
    yield w.rng.uniform(0.0, 100.0)
    _refused(w)
    yield phase(w, "B", "RolledBack")
