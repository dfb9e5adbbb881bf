"""What rules look at and what is done about it: Observe, rules relative to stable, classes of queries, silent pods."""

from __future__ import annotations

from typing import Any

from simulator.scenarios.rollouts import ROLLED_BACK, bad_revision, second
from simulator.scenarios.scenario import Script, edited, ends, first_is_stable, phase, scenario, set_quality, stable
from simulator.truth import Quality
from simulator.world import World

ZERO = {"name": "zero", "metric": "ZeroResultRate", "window": "10s", "warmUp": "5s", "minSamples": 50}


def _rules(w: World, **rule: Any) -> None:
    """One rule of zero results, in place of those that all scenarios have."""
    w.apply(guardrails__rules=[{**ZERO, **rule}])


@scenario(ends("B", builds=2))
def observed_only(w: World) -> Script:
    """A rule that only observes rolls nothing back, however much it finds."""
    set_quality(w, "B", Quality(zero_results=0.5))
    _rules(w, max="5%", mode="Observe")
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield stable(w, "B")


@scenario(ends("B", builds=2), needs_traffic=True)
def steady_state_observed(w: World) -> Script:
    """B turns bad after its promotion; the user wants to be told, no more."""
    w.apply(guardrails__steadyState="Observe")
    yield from second(w)
    set_quality(w, "B", Quality(zero_results=0.5))
    yield 200.0


@scenario(ROLLED_BACK)
def seen_before_a_window_ends(w: World) -> Script:
    """A rule whose windows nobody chose, of which two would have to end first."""
    set_quality(w, "B", Quality(zero_results=0.5))
    w.apply(guardrails__rules=[{"name": "zero", "metric": "ZeroResultRate", "warmUp": "5s", "max": "5%"}])
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield phase(w, "B", "RolledBack")


@scenario(ROLLED_BACK)
def worse_than_stable(w: World) -> Script:
    set_quality(w, "A", Quality(zero_results=0.1))
    set_quality(w, "B", Quality(zero_results=0.5))
    _rules(w, maxRiseVsStable="50%")
    yield stable(w, "A")
    yield 60.0
    w.apply(index__factory="B")
    yield phase(w, "B", "RolledBack")


@scenario(ends("B", builds=2))
def no_worse_than_stable(w: World) -> Script:
    """Bad by any absolute measure, and no worse than what it replaces."""
    set_quality(w, "A", Quality(zero_results=0.5))
    set_quality(w, "B", Quality(zero_results=0.5))
    _rules(w, maxRiseVsStable="50%")
    yield stable(w, "A")
    yield 60.0
    w.apply(index__factory="B")
    yield stable(w, "B")


def _premium(w: World, worse: str) -> Script:
    """B is bad for one class of queries, and premium ones alone have a rule."""
    w.truth.segments = (("premium", 0.25), ("other", 0.75))
    w.apply(segments=[{"name": "premium"}])
    _rules(w, max="5%", segment="premium")
    yield stable(w, "A")
    set_quality(w, "B", Quality(zero_in=((worse, 0.5),)))
    w.apply(index__factory="B")


@scenario(ROLLED_BACK)
def bad_for_a_class_of_queries(w: World) -> Script:
    yield from _premium(w, "premium")
    yield phase(w, "B", "RolledBack")


@scenario(ends("B", builds=2))
def bad_for_another_class_of_queries(w: World) -> Script:
    yield from _premium(w, "other")
    yield stable(w, "B")


@scenario(ends("B", builds=2))
def one_silent_pod_of_four(w: World) -> Script:
    """What the others tell is enough to promote."""
    w.truth.silent_pods = 1
    yield from edited(w, searcher__replicas=4)
    yield stable(w, "B")


@scenario(ROLLED_BACK)
def one_silent_pod_of_four_and_bad(w: World) -> Script:
    w.truth.silent_pods = 1
    w.apply(searcher__replicas=4)
    yield from bad_revision(w, Quality(zero_results=0.5))


@scenario(ends("B", builds=2))
def half_of_the_pods_silent(w: World) -> Script:
    """It is not known what their users get: nothing is promoted until they tell."""
    yield from first_is_stable(w)
    w.truth.silent_pods = 1
    w.apply(index__factory="B")
    yield phase(w, "B", "Soaking")
    yield w.rng.uniform(300.0, 900.0)
    assert w.phase_of(w.name_of("B")) == "Soaking", "promoted on the word of half of its pods"
    w.truth.silent_pods = 0
    yield stable(w, "B")
