"""In shadow before the switch: what passes, what is found out there without a single user noticing, what ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simulator.clock import START
from simulator.scenarios.scenario import Script, edited, ends, phase, scenario, set_quality, stable
from simulator.store import Json
from simulator.truth import Quality
from simulator.world import World

from vectorindex_operator.api.timestamps import to_unix

FEW = 2
"""Most of what may go wrong before and after a shadow is in other scenarios."""
SHADOW: dict[str, Any] = {
    "rollout__shadow": {"maxPerSecond": 50, "duration": "20s", "minQueries": 50, "maxDuration": "2m"},
}


def _shadow_of(w: World, factory: str) -> Json:
    live = w.store.get("VectorIndexRevision", w.name_of(factory)) or {"status": {}}
    shadow: Json = (live["status"].get("rollout") or {}).get("shadow") or {}
    return shadow


def ended(outcome: str) -> Callable[[World], list[str]]:
    def check(w: World) -> list[str]:
        found = _shadow_of(w, "B").get("outcome")
        return [] if found in (outcome, "Switched") else [f"the shadow of B ended {found}, not {outcome}"]

    return check


def _unseen(w: World) -> list[str]:
    """No user got a single answer of it."""
    return [f"{one} had the traffic" for one in w.served_since(START) if one == w.name_of("B")]


def _rejected(reason: str) -> Callable[[World], list[str]]:
    return ends(
        "A", phase="Rejected", reason=reason, rolled_out=False, stalled=True, failed="B", builds=2, extra=_unseen
    )


@scenario(ends("B", builds=2, extra=ended("Passed")), seeds=0)
def shadow_passes(w: World) -> Script:
    yield from edited(w, **SHADOW)
    yield stable(w, "B")


@scenario(_rejected("ZeroResultRate"), seeds=FEW)
def shadow_rejects(w: World) -> Script:
    """And remembers it: the same manifest again rolls out nothing."""
    set_quality(w, "B", Quality(zero_results=0.5))
    yield from edited(w, **SHADOW)
    yield phase(w, "B", "Rejected")
    w.apply(searcher__replicas=2)
    yield 60.0


@scenario(_rejected("ErrorRate"), seeds=FEW)
def shadow_hangs(w: World) -> Script:
    set_quality(w, "B", Quality(hangs=True))
    yield from edited(w, **SHADOW)
    yield phase(w, "B", "Rejected")


@scenario(ends("B", builds=2, extra=ended("Inconclusive")), seeds=FEW)
def shadow_near_a_bound(w: World) -> Script:
    """Chance may explain what was seen, to the end of its time."""
    set_quality(w, "B", Quality(zero_results=0.06))
    yield from edited(w, **SHADOW)
    yield phase(w, "B", "Soaking")
    set_quality(w, "B", Quality())
    yield stable(w, "B")


def _took(w: World) -> float:
    shadow = _shadow_of(w, "B")
    return to_unix(shadow["endedAt"]) - to_unix(shadow["startedAt"])


def _gave_up_at_once(w: World) -> list[str]:
    wrong = [] if _took(w) < 60.0 else [f"the shadow of B waited {_took(w):.0f} s for queries that nobody asks"]
    return ended("Inconclusive")(w) + wrong


@scenario(ends("B", builds=2, extra=_gave_up_at_once), seeds=0)
def shadow_without_queries(w: World) -> Script:
    """It does not wait for the end of its time."""
    yield from edited(w, **SHADOW)
    w.truth.queries_per_second = 0.0
    yield phase(w, "B", "Soaking")
    w.truth.queries_per_second = 40.0
    yield stable(w, "B")


@scenario(_rejected("ZeroResultRate"), seeds=FEW)
def shadow_while_no_operator_is_there(w: World) -> Script:
    """For longer than it may last, and then users ask: what nobody could see in that time is still to be seen."""
    set_quality(w, "B", Quality(zero_results=0.5))
    yield from edited(w, **SHADOW)
    w.truth.queries_per_second = 0.0
    yield phase(w, "B", "Shadowing")
    w.nobody_until = w.now + 600.0
    yield 600.0
    w.truth.queries_per_second = 40.0
    yield phase(w, "B", "Rejected")


@scenario(ends("B", builds=2, extra=ended("Passed")), seeds=0)
def shadow_with_a_rule_that_only_a_soak_can_judge(w: World) -> Script:
    """It waits for nothing that pairs cannot tell."""
    rule = {"name": "more-errors", "metric": "ErrorRate", "maxRiseVsStable": "50%"}
    yield from edited(w, **SHADOW, guardrails__rules=[*w.spec["guardrails"]["rules"], rule])
    yield stable(w, "B")


def _gave_up_early(w: World) -> list[str]:
    wrong = [] if _took(w) < 300.0 else [f"the shadow of B waited {_took(w):.0f} s for pairs that never come"]
    return ended("Inconclusive")(w) + wrong


@scenario(ends("B", builds=2, extra=_gave_up_early), seeds=0)
def shadow_of_revisions_with_other_deleted_ids(w: World) -> Script:
    """Nothing is compared, and it does not wait for the end of its time."""
    w.truth.other_deleted = True
    yield from edited(w, rollout__shadow={**SHADOW["rollout__shadow"], "maxDuration": "20m"})
    yield stable(w, "B")


@scenario(ends("B", builds=2, extra=ended("CannotMirror")), seeds=0)
def shadow_of_pods_that_are_kept_apart(w: World) -> Script:
    """By a NetworkPolicy of the user's."""
    w.truth.kept_apart = True
    yield from edited(w, **SHADOW)
    yield stable(w, "B")


@scenario(ends("B", builds=2, extra=ended("CannotMirror")), seeds=0)
def shadow_of_an_image_of_before(w: World) -> Script:
    w.truth.mirrors = False
    yield from edited(w, **SHADOW)
    yield stable(w, "B")


@scenario(_rejected("Manual"), seeds=FEW)
def rollback_in_shadow(w: World) -> Script:
    yield from edited(w, rollout__shadow={**SHADOW["rollout__shadow"], "duration": "10m", "maxDuration": "20m"})
    yield phase(w, "B", "Shadowing")
    w.ask("rollback", "n1")
    yield phase(w, "B", "Rejected")
