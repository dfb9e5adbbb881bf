"""Edits while something is on its way."""

from __future__ import annotations

from simulator.scenarios.scenario import Script, edited, ends, first_is_stable, phase, scenario, stable
from simulator.world import World

LONG_SOAK = {"rollout__soak__duration": "30m", "rollout__soak__maxDuration": "1h"}
SHORT_SOAK = {"rollout__soak__duration": "20s", "rollout__soak__maxDuration": "5m"}


def _never_promoted(w: World, factory: str) -> None:
    """Of a revision whose soak is so long that it has not passed when the operator comes to hear of an edit."""
    live = w.store.get("VectorIndexRevision", w.name_of(factory))
    assert not (live or {"status": {}})["status"].get("promotedAt"), f"{factory} was promoted, and nobody wanted it"


@scenario(ends("C"))
def edit_during_build(w: World) -> Script:
    yield from edited(w)
    yield phase(w, "B", "Building")
    yield w.rng.uniform(0.0, 3.0)
    w.apply(index__factory="C")
    yield stable(w, "C")


@scenario(ends("B"))
def edit_away_and_back(w: World) -> Script:
    """A, B, C, B in quick succession: only the last counts."""
    yield from first_is_stable(w)
    for factory in "BCB":
        w.apply(index__factory=factory)
        yield w.rng.uniform(3.0, 6.0)
    yield stable(w, "B")


@scenario(ends("C", builds=3))
def edit_during_soak(w: World) -> Script:
    yield from edited(w, **LONG_SOAK)
    yield phase(w, "B", "Soaking")
    yield w.rng.uniform(0.0, 10.0)
    w.apply(index__factory="C", **SHORT_SOAK)
    yield stable(w, "C")
    _never_promoted(w, "B")


@scenario(ends("C", builds=3))
def edit_during_undecided_soak(w: World) -> Script:
    """Nobody queries, so B is never decided: the user's C need not wait for it."""
    w.apply(rollout__soak__maxDuration="6h")
    yield stable(w, "A")
    w.truth.queries_per_second = 0.0
    w.apply(index__factory="B")
    yield phase(w, "B", "Soaking")
    w.apply(index__factory="C")
    yield phase(w, "C", "Soaking")
    w.truth.queries_per_second = 40.0
    yield stable(w, "C")


def _both_loaded(w: World) -> list[str]:
    a, b, status = w.name_of("A"), w.name_of("B"), w.status()
    facts = {
        "stable": (status.get("stable"), a),
        "candidate": (status.get("candidate"), b),
        "traffic": (w.serving(), b),
        "loaded": (w.loaded(), {a, b}),
        "Ready": (w.condition("Ready"), "True"),
        "RolledOut": (w.condition("RolledOut"), "False"),
    }
    return [f"{what} is {got!r}, not {wanted!r}" for what, (got, wanted) in facts.items() if got != wanted]


@scenario(_both_loaded, needs_traffic=True)
def no_evidence(w: World) -> Script:
    """Nobody queries: never promoted, never tripped, the prior stays loaded."""
    w.truth.queries_per_second = 0.0
    yield from edited(w)
    yield phase(w, "B", "Soaking")
    yield 300.0


@scenario(ends("A", builds=2))
def revert_during_soak(w: World) -> Script:
    yield from edited(w, **LONG_SOAK)
    yield phase(w, "B", "Soaking")
    w.apply(index__factory="A")
    yield stable(w, "A")
    _never_promoted(w, "B")


@scenario(ends("B", builds=2))
def revert_and_again(w: World) -> Script:
    yield from revert_during_soak(w)
    yield w.rng.uniform(0.0, 60.0)
    w.apply(index__factory="B", **SHORT_SOAK)
    yield stable(w, "B")


@scenario(ends("A"))
def revert_during_surge(w: World) -> Script:
    yield from edited(w, **LONG_SOAK)
    yield phase(w, "B", "Surging")
    w.apply(index__factory="A")
    yield stable(w, "A")
    _never_promoted(w, "B")
