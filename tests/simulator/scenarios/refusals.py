"""Writes that an API server will not have for a while: quotas, admission; and objects of somebody else."""

from __future__ import annotations

from typing import Any

from simulator.scenarios.rollouts import ROLLED_BACK
from simulator.scenarios.scenario import Script, ends, phase, scenario, set_quality, stable
from simulator.truth import Quality
from simulator.world import World


def _refused(w: World, *kinds: str) -> None:
    w.truth.refused = frozenset(kinds)


@scenario(ends("B", builds=2))
def no_quota_for_searchers(w: World) -> Script:
    w.apply()
    yield stable(w, "A")
    _refused(w, "Deployment")
    w.apply(index__factory="B")
    yield phase(w, "B", "Surging")
    yield w.rng.uniform(60.0, 400.0)
    _refused(w)
    yield stable(w, "B")


@scenario(ends("B", builds=2))
def no_quota_for_jobs(w: World) -> Script:
    w.apply()
    yield stable(w, "A")
    _refused(w, "Job")
    w.apply(index__factory="B")
    yield w.rng.uniform(60.0, 400.0)
    _refused(w)
    yield stable(w, "B")


@scenario(ROLLED_BACK)
def the_service_is_frozen_while_it_trips(w: World) -> Script:
    """Nobody may write the Service: what tripped keeps the traffic until somebody may."""
    set_quality(w, "B", Quality(zero_results=0.5))
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B")
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
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield phase(w, "B", "Soaking")
    _refused(w, "VectorIndex", "VectorIndexRevision", "Deployment", "PodDisruptionBudget", "NetworkPolicy", "Job")
    yield lambda: w.serving() == w.name_of("A")
    yield w.rng.uniform(0.0, 100.0)
    _refused(w)
    yield phase(w, "B", "RolledBack")


# ---------------------------------------------------------------- objects of somebody else


def _taken(w: World, kind: str, name: str, spec: Any) -> None:
    w.store.create({"kind": kind, "metadata": {"name": name, "labels": {}}, "spec": spec})


@scenario(ends("A", builds=1))
def budget_name_taken(w: World) -> Script:
    """A PodDisruptionBudget of somebody else: it is left alone, said, and holds up nothing."""
    _taken(w, "PodDisruptionBudget", w.name_of("A"), {"minAvailable": 1})
    w.apply()
    yield lambda: w.serving() == w.name_of("A")
    yield w.rng.uniform(10.0, 100.0)
    assert w.store.kinds["PodDisruptionBudget"][w.name_of("A")]["spec"] == {"minAvailable": 1}
    w.delete("PodDisruptionBudget", w.name_of("A"))
    yield stable(w, "A")


@scenario(ends("A", builds=1))
def policy_name_taken(w: World) -> Script:
    _taken(w, "NetworkPolicy", "products", {"podSelector": {}})
    w.apply()
    yield w.rng.uniform(60.0, 200.0)
    assert w.store.kinds["NetworkPolicy"]["products"]["spec"] == {"podSelector": {}}
    w.delete("NetworkPolicy", "products")
    yield stable(w, "A")


@scenario(ends("A", builds=1))
def revision_name_taken(w: World) -> Script:
    """The object of a revision that another index owns, by the name that ours needs."""
    _taken(w, "VectorIndexRevision", w.name_of("A"), {"digest": "theirs", "image": ""})
    w.apply()
    yield w.rng.uniform(60.0, 200.0)
    assert w.store.kinds["VectorIndexRevision"][w.name_of("A")]["spec"]["digest"] == "theirs"
    w.delete("VectorIndexRevision", w.name_of("A"))
    yield stable(w, "A")
