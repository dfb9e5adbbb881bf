"""A person suspends an index: nothing new begins, and what protects goes on."""

from __future__ import annotations

from simulator.scenarios.rollouts import ROLLED_BACK, second
from simulator.scenarios.scenario import Script, edited, ends, first_is_stable, phase, scenario, set_quality, stable
from simulator.scenarios.shadows import SHADOW, ended
from simulator.truth import Quality
from simulator.world import World

FEW = 2
"""What goes wrong meanwhile is in other scenarios."""


@scenario(ends("A", phase="Suspended", rolled_out=False, waits=True, builds=1), seeds=FEW)
def suspended_before_an_edit(w: World) -> Script:
    yield from first_is_stable(w)
    w.apply(suspend=True)
    yield w.rng.uniform(0.0, 60.0)
    w.apply(index__factory="B")
    yield 200.0


@scenario(ends("B", builds=2))
def suspended_at_any_moment(w: World) -> Script:
    """And later no more: nothing is lost, and nothing is built twice."""
    yield from edited(w)
    yield w.rng.uniform(0.0, 60.0)
    w.apply(suspend=True)
    yield w.rng.uniform(60.0, 400.0)
    w.apply(suspend=False)
    yield stable(w, "B")


@scenario(ends("B", builds=2, extra=ended("Passed")), seeds=FEW)
def suspended_in_shadow(w: World) -> Script:
    """For longer than a shadow may last: its searchers make room meanwhile, and it has another shadow."""
    yield from edited(w, rollout__shadow={**SHADOW["rollout__shadow"], "duration": "1m", "minQueries": 1000})
    yield phase(w, "B", "Shadowing")
    w.apply(suspend=True)
    yield lambda: w.loaded() == {w.name_of("A")}
    yield w.rng.uniform(200.0, 400.0)
    w.apply(suspend=False)
    yield stable(w, "B")


@scenario(ROLLED_BACK, seeds=FEW)
def suspended_while_it_trips(w: World) -> Script:
    set_quality(w, "B", Quality(zero_results=0.5))
    yield from edited(w)
    yield lambda: w.serving() == w.name_of("B")
    w.apply(suspend=True)
    yield phase(w, "B", "RolledBack")


@scenario(ROLLED_BACK, seeds=FEW)
def rollback_while_suspended(w: World) -> Script:
    yield from second(w)
    w.apply(suspend=True)
    yield w.rng.uniform(0.0, 120.0)
    w.ask("rollback", "n1")
    yield phase(w, "B", "RolledBack")


@scenario(ends("C", builds=3), needs_traffic=True, seeds=FEW)
def suspended_while_the_way_back_is_dead(w: World) -> Script:
    """B keeps the traffic until C takes it, which does not come now. It turns bad, and A is loaded again in time."""
    yield from edited(w, rollout__soak__minQueries=10**9, rollout__soak__maxDuration="6h")
    yield phase(w, "B", "Soaking")
    set_quality(w, "A", Quality(refuses="ArtifactGone"))
    for pod in w.controllers.searchers(w.name_of("A")):
        w.delete("Pod", pod["metadata"]["name"])
    w.truth.room = False
    w.apply(index__factory="C", rollout__soak__minQueries=100, rollout__soak__maxDuration="5m")
    yield lambda: w.phase_of(w.name_of("B")) == "Outgoing"
    w.apply(suspend=True)
    set_quality(w, "B", Quality(errors=0.7))
    yield lambda: bool(w.trip_of(w.name_of("B")))
    set_quality(w, "A", Quality())
    w.truth.room = True
    yield phase(w, "B", "RolledBack")
    assert w.serving() == w.name_of("A"), "a bad revision serves"
    w.apply(suspend=False)
    yield stable(w, "C")
