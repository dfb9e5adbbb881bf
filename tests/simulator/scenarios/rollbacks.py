"""Rollbacks, by hand and in steady state."""

from __future__ import annotations

from simulator.scenarios.rollouts import ROLLED_BACK, second
from simulator.scenarios.scenario import Script, edited, ends, first_is_stable, phase, scenario, set_quality, stable
from simulator.truth import Quality
from simulator.world import World


@scenario(ROLLED_BACK)
def steady_state(w: World) -> Script:
    """B turns bad after its promotion; A's pods are gone, so it is loaded again first."""
    yield from second(w)
    yield w.rng.uniform(0.0, 120.0)
    set_quality(w, "B", Quality(zero_results=0.5))
    yield phase(w, "B", "RolledBack")


@scenario(ends("C", builds=3))
def steady_state_beside_a_surge(w: World) -> Script:
    """B turns bad while C waits for a place: A gets that place, and C comes after it."""
    yield from second(w)
    w.truth.room = False
    w.apply(index__factory="C")
    yield phase(w, "C", "Surging")
    set_quality(w, "B", Quality(zero_results=0.5))
    yield lambda: bool(w.trip_of(w.name_of("B")))
    yield w.rng.uniform(0.0, 60.0)
    w.truth.room = True
    yield stable(w, "C")


@scenario(ROLLED_BACK)
def rollback_by_hand(w: World) -> Script:
    yield from second(w)
    yield w.rng.uniform(0.0, 120.0)
    w.ask("rollback", "n1")
    yield phase(w, "B", "RolledBack")


@scenario(ends("B", phase="RolledBack", rolled_out=False, stalled=True, failed="C", builds=3))
def rollback_goes_one_step(w: World) -> Script:
    """One request, one step: from C to B, never on to A."""
    yield from second(w)
    w.apply(index__factory="C")
    yield stable(w, "C")
    yield w.rng.uniform(0.0, 40.0)
    w.ask("rollback", "n1")
    yield phase(w, "C", "RolledBack")


@scenario(ends("A", phase="RolledBack", rolled_out=False, stalled=True, failed="C", builds=3))
def rollback_to_a_named_one(w: World) -> Script:
    yield from second(w)
    w.apply(index__factory="C")
    yield phase(w, "C", "Soaking")
    w.ask("rollback", "n1", argument=w.name_of("A"))
    yield phase(w, "C", "RolledBack")


@scenario(ROLLED_BACK)
def rollback_in_soak(w: World) -> Script:
    yield from edited(w)
    yield phase(w, "B", "Soaking")
    w.ask("rollback", "n1")
    yield phase(w, "B", "RolledBack")


@scenario(ends("B", builds=2))
def rollback_and_retry(w: World) -> Script:
    yield from rollback_by_hand(w)
    yield w.rng.uniform(0.0, 90.0)
    w.ask("retry", "n2")
    yield stable(w, "B")


def _refusal(w: World) -> list[str]:
    results = {v["verb"]: v["result"] for v in w.status().get("verbs", ())}
    return [] if results == {"retry": "Refused", "rollback": "Refused"} else [f"verbs: {results}"]


@scenario(ends("A", builds=1, extra=_refusal))
def verbs_refused(w: World) -> Script:
    yield from first_is_stable(w)
    w.ask("rollback", "n1")
    w.ask("retry", "n2")
    yield 30.0


def _reason(w: World) -> str:
    """Of the condition RollbackPossible."""
    return next((c["reason"] for c in w.status().get("conditions", ()) if c["type"] == "RollbackPossible"), "")


def _gone(w: World) -> list[str]:
    said = w.condition("RollbackPossible"), _reason(w)
    return [] if said == ("False", "ArtifactGone") else [f"RollbackPossible is {said}"]


@scenario(ends("B", builds=2, extra=_gone))
def way_back_artifact_gone(w: World) -> Script:
    """A's artifact is removed, put back and removed again: it is said each time, and never where nobody can tell."""
    w.apply(source__poll="30s")
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield stable(w, "B")
    w.truth.artifacts_denied = True
    yield w.rng.uniform(60.0, 200.0)
    assert _reason(w) in ("Warm", "Cold")
    w.truth.artifacts_denied = False
    digest = w.made_of[w.name_of("A")][0]
    w.truth.lost.add(digest)
    yield lambda: _gone(w) == []
    w.truth.artifacts_denied = True
    yield w.rng.uniform(60.0, 200.0)
    assert _gone(w) == []
    w.truth.artifacts_denied = False
    w.truth.lost.clear()
    yield lambda: _reason(w) == "Cold"
    w.truth.lost.add(digest)
    yield lambda: _gone(w) == []


def _outside(w: World) -> list[str]:
    live = w.store.get("VectorIndexRevision", w.name_of("B"))
    stage = (live or {"status": {}})["status"].get("rejected", {}).get("stage")
    return [] if stage == "External" else [f"rejected at stage {stage}"]


@scenario(
    ends("A", phase="RolledBack", rolled_out=False, stalled=True, failed="B", builds=2, extra=_outside),
    needs_traffic=True,
)
def cause_outside(w: World) -> Script:
    """Both revisions breach the same rule: one rollback, then no more moves."""
    yield from edited(w)
    yield lambda: w.serving() == w.name_of("B")
    for factory in "AB":
        set_quality(w, factory, Quality(zero_results=0.5))
    yield phase(w, "B", "RolledBack")
    yield 120.0
