"""A soak that is compared with what the prior answers at the same moment (rollout.shadow.afterSwitch)."""

from __future__ import annotations

from typing import Any

from simulator.scenarios.rollouts import ROLLED_BACK
from simulator.scenarios.scenario import Script, edited, ends, phase, scenario, set_quality, stable
from simulator.truth import Quality
from simulator.world import World

FEW = 1
"""What else may go wrong in a soak is in other scenarios."""
MIRRORED: dict[str, Any] = {
    "rollout__shadow": {
        "maxPerSecond": 50,
        "duration": "20s",
        "minQueries": 50,
        "maxDuration": "2m",
        "afterSwitch": True,
    },
    "rollout__soak": {"duration": "5m", "minQueries": 100, "maxDuration": "15m"},
    "guardrails__rules": [
        {"name": "rise", "metric": "ZeroResultRate", "maxRiseVsStable": "50%", "warmUp": "5s"},
    ],
}
COMPARED_SECONDS = 80.0
"""Of its two pods together."""


def _sent_for(w: World) -> float:
    """Seconds in which the one with the traffic sent queries to the prior."""
    after = [one for one in w.searchers.mirrors.shadows.values() if one.sender_judged]
    spans = [span for one in after for mine in one.spans.values() for span in mine]
    return sum(min(end, w.now) - begin for begin, end in spans)


def _begun(w: World, before: float) -> Script:
    """B soaks, and has been compared with A. `before`: how many queries of either find nothing."""
    for factory in ("A", "B"):
        set_quality(w, factory, Quality(zero_results=before))
    yield from edited(w, **MIRRORED)
    yield phase(w, "B", "Soaking")
    while _sent_for(w) < COMPARED_SECONDS:
        yield 5.0


@scenario(ends("B", builds=2), seeds=FEW)
def soak_while_what_users_ask_changes(w: World) -> Script:
    """More of them find nothing than before the switch, whoever answers."""
    yield from _begun(w, 0.02)
    for factory in ("A", "B"):
        set_quality(w, factory, Quality(zero_results=0.2))
    yield stable(w, "B")


@scenario(ROLLED_BACK, seeds=FEW, hours=0.6)
def soak_that_is_worse_than_the_prior_at_the_same_moment(w: World) -> Script:
    """And better than the prior was before the switch."""
    yield from _begun(w, 0.2)
    set_quality(w, "A", Quality(zero_results=0.02))
    set_quality(w, "B", Quality(zero_results=0.1))
    yield phase(w, "B", "RolledBack")


@scenario(ROLLED_BACK, seeds=FEW, hours=0.6)
def soak_with_a_prior_that_answers_no_more(w: World) -> Script:
    """What the prior had answered until then proves nothing of what comes after it."""
    yield from _begun(w, 0.02)
    set_quality(w, "A", Quality(zero_results=0.02, hangs=True))
    set_quality(w, "B", Quality(zero_results=0.5))
    yield phase(w, "B", "RolledBack")


@scenario(ends("B", builds=2), seeds=FEW, hours=0.4)
def soak_with_a_prior_that_never_answers(w: World) -> Script:
    """It holds nothing up, and is held against nobody."""
    yield from edited(w, **MIRRORED)
    yield phase(w, "B", "Shadowing")
    set_quality(w, "A", Quality(hangs=True))
    yield stable(w, "B")


@scenario(ends("B", builds=2), seeds=0, hours=0.4)
def soak_of_images_that_know_no_mirror(w: World) -> Script:
    w.truth.mirrors = False
    yield from edited(w, **MIRRORED)
    yield stable(w, "B")
