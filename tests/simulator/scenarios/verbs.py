"""A person gives up what is on its way, takes it before its soak is over, has it built anew, or says what serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simulator.scenarios.edits import LONG_SOAK, SHORT_SOAK
from simulator.scenarios.rollouts import ROLLED_BACK, second
from simulator.scenarios.scenario import Script, edited, ends, first_is_stable, phase, scenario, set_quality, stable
from simulator.scenarios.shadows import SHADOW
from simulator.truth import Data, Quality
from simulator.world import World

FEW = 2
"""What goes wrong before and after is in other scenarios."""
HELD_BY_A_GPU = {"build__device": "GPU"}
"""Its build waits for a node, as long as there is none (truth.gpu)."""


def _aborted(failed: str, builds: int, phase: str = "Rejected") -> Callable[[World], list[str]]:
    return ends(
        "A", phase=phase, reason="Aborted", rolled_out=False, stalled=True, failed=failed, builds=builds, extra=_done
    )


def _done(w: World) -> list[str]:
    results = {v["verb"]: v["result"] for v in w.status().get("verbs", ())}
    return [] if set(results.values()) == {"Done"} else [f"verbs: {results}"]


def _refused(w: World) -> list[str]:
    results = {v["verb"]: v["result"] for v in w.status().get("verbs", ())}
    return [] if set(results.values()) == {"Refused"} else [f"verbs: {results}"]


def _answered(w: World, nonce: str) -> Callable[[], bool]:
    return lambda: any(v["nonce"] == nonce for v in w.status().get("verbs", ()))


# ---------------------------------------------------------------- abort


@scenario(_aborted("B", builds=1), seeds=FEW)
def abort_in_build(w: World) -> Script:
    w.truth.gpu = False
    yield from first_is_stable(w)
    w.apply(index__factory="B", **HELD_BY_A_GPU)
    yield phase(w, "B", "Building")
    yield w.rng.uniform(0.0, 100.0)
    w.ask("abort", "n1")
    yield phase(w, "B", "Rejected")
    w.apply(searcher__replicas=2)
    yield 60.0


@scenario(_aborted("B", builds=2), seeds=FEW)
def abort_in_shadow(w: World) -> Script:
    yield from edited(w, rollout__shadow={**SHADOW["rollout__shadow"], "duration": "10m", "maxDuration": "20m"})
    yield phase(w, "B", "Shadowing")
    yield w.rng.uniform(0.0, 100.0)
    w.ask("abort", "n1")
    yield phase(w, "B", "Rejected")


@scenario(_aborted("B", builds=2, phase="RolledBack"))
def abort_in_soak(w: World) -> Script:
    yield from edited(w, **LONG_SOAK)
    yield phase(w, "B", "Soaking")
    yield w.rng.uniform(0.0, 100.0)
    w.ask("abort", "n1")
    yield phase(w, "B", "RolledBack")


@scenario(ends("C", builds=3), seeds=FEW)
def abort_everything_and_retry(w: World) -> Script:
    """B soaks, C is being built: both are given up; then the user wants C all the same."""
    yield from edited(w, **LONG_SOAK)
    yield phase(w, "B", "Soaking")
    w.truth.gpu = False
    w.apply(index__factory="C", **HELD_BY_A_GPU, **SHORT_SOAK)
    yield phase(w, "C", "Building")
    w.ask("abort", "n1")
    yield phase(w, "C", "Rejected")
    yield lambda: w.serving() == w.name_of("A")
    w.truth.gpu = True
    yield w.rng.uniform(0.0, 60.0)
    w.ask("retry", "n2")
    yield stable(w, "C")


@scenario(ends("B", builds=2, extra=_refused), seeds=FEW)
def nothing_to_abort_or_promote(w: World) -> Script:
    yield from second(w)
    w.ask("abort", "n1")
    w.ask("promote", "n2")
    yield 30.0


# ---------------------------------------------------------------- promote


@scenario(ends("B", builds=2, extra=_done), seeds=FEW)
def promote_without_queries(w: World) -> Script:
    """Nobody queries, so nothing is ever shown; a person takes it all the same."""
    w.truth.queries_per_second = 0.0
    yield from edited(w)
    yield phase(w, "B", "Soaking")
    yield w.rng.uniform(0.0, 400.0)
    for number in range(20):  # pods that do not tell may hide a Fail: the person asks again
        w.ask("promote", f"n{number}")
        yield _answered(w, f"n{number}")
        if not _done(w):
            break
    yield stable(w, "B")


@scenario(ROLLED_BACK, seeds=FEW)
def promote_what_failed(w: World) -> Script:
    """A guardrail has said Fail, and the traffic cannot be moved yet: no word keeps it where it is."""
    set_quality(w, "B", Quality(zero_results=0.5))
    yield from edited(w)
    yield lambda: w.serving() == w.name_of("B")
    w.truth.refused = frozenset({"Service"})
    yield lambda: bool(w.trip_of(w.name_of("B")))
    w.ask("promote", "n1")
    yield lambda: bool(w.status().get("verbs"))
    w.truth.refused = frozenset()
    yield phase(w, "B", "RolledBack")


# ---------------------------------------------------------------- pause


def _held(w: World) -> bool:
    return any(row["rule"] == "Paused" for row in w.status().get("blockedBy", ()))


@scenario(ends("B", builds=2, extra=_done), seeds=FEW)
def pause_before_the_switch(w: World) -> Script:
    yield from edited(w)
    yield phase(w, "B", "Building")
    w.ask("pause", "n1")
    yield lambda: _held(w)
    yield w.rng.uniform(0.0, 300.0)
    assert w.serving() == w.name_of("A"), "what is paused was switched to"
    w.ask("resume", "n2")
    yield stable(w, "B")


@scenario(ends("B", builds=2, extra=_done), seeds=FEW)
def pause_in_soak(w: World) -> Script:
    yield from edited(w, rollout__soak__duration="2m")
    yield phase(w, "B", "Soaking")
    w.ask("pause", "n1")
    yield w.rng.uniform(200.0, 400.0)
    assert w.status().get("stable") == w.name_of("A"), "what is paused was promoted"
    w.ask("resume", "n2")
    yield stable(w, "B")


def held_by_a_word(w: World, factory: str, **changes: Any) -> Script:
    """The user asks for `factory`; its build waits until a person has said `pause`, and then goes on to its proof."""
    w.truth.gpu = False
    w.apply(index__factory=factory, **HELD_BY_A_GPU, **changes)
    yield phase(w, factory, "Building")
    w.ask("pause", "held")
    yield _answered(w, "held")
    w.truth.gpu = True


@scenario(ends("B", builds=2, extra=_done), seeds=FEW)
def paused_and_pinned_later(w: World) -> Script:
    """The user changes his mind while B is held, and pins it in the end: what held it then is over."""
    yield from first_is_stable(w)
    yield from held_by_a_word(w, "B")
    yield lambda: _held(w)
    w.apply(index__factory="A")
    yield phase(w, "B", "Superseded")
    yield w.rng.uniform(0.0, 100.0)
    w.apply(pinRevision=w.name_of("B"))
    yield stable(w, "B")


@scenario(ends("B", builds=2, extra=_done), seeds=FEW)
def paused_and_retried_later(w: World) -> Script:
    """The gate turns down what is held; who says `retry` wants it."""
    set_quality(w, "B", Quality(recall=0.90))
    yield from first_is_stable(w)
    yield from held_by_a_word(w, "B")
    yield phase(w, "B", "Rejected")
    set_quality(w, "B", Quality())
    yield w.rng.uniform(0.0, 100.0)
    w.ask("retry", "n1")
    yield stable(w, "B")


@scenario(ends("B", builds=2, extra=_done), seeds=FEW)
def paused_while_suspended(w: World) -> Script:
    """Either holds it without the other."""
    yield from first_is_stable(w)
    yield from held_by_a_word(w, "B", suspend=False)
    w.apply(suspend=True)
    yield w.rng.uniform(0.0, 200.0)
    w.apply(suspend=False)
    yield lambda: _held(w)
    yield w.rng.uniform(0.0, 100.0)
    assert w.serving() == w.name_of("A"), "what is paused was switched to"
    w.apply(suspend=True)
    w.ask("resume", "n1")
    yield w.rng.uniform(60.0, 200.0)
    assert w.serving() == w.name_of("A"), "what is suspended was switched to"
    w.apply(suspend=False)
    yield stable(w, "B")


@scenario(ends("A", builds=2, extra=_done), seeds=FEW)
def pinned_and_paused_in_soak(w: World) -> Script:
    """In a suspended index, too: a pin stands above that, and a pause above a pin."""
    yield from second(w)
    w.apply(suspend=True, pinRevision=w.name_of("A"), rollout__soak__duration="2m")
    yield phase(w, "A", "Soaking")
    w.ask("pause", "n1")
    yield w.rng.uniform(200.0, 400.0)
    assert w.status().get("stable") == w.name_of("B"), "what is paused was promoted"
    w.ask("resume", "n2")
    yield stable(w, "A")


# ---------------------------------------------------------------- rebuild


@scenario(ends("A", build=1, builds=2, extra=_done), seeds=FEW)
def rebuild_what_serves(w: World) -> Script:
    yield from first_is_stable(w)
    yield w.rng.uniform(0.0, 100.0)
    w.ask("rebuild", "n1")
    yield lambda: w.status().get("stable") == w.name_of("A", build=1)
    w.apply(searcher__replicas=2)
    yield 60.0


# ---------------------------------------------------------------- pin


@scenario(ends("A", builds=2), seeds=FEW)
def pin_back(w: World) -> Script:
    """Through Git: the spec asks for B all the same."""
    yield from second(w)
    yield w.rng.uniform(0.0, 60.0)
    w.apply(pinRevision=w.name_of("A"))
    yield stable(w, "A")
    w.truth.put(Data("d2", rows=10_100))
    yield 60.0


@scenario(ends("B", builds=2), seeds=FEW)
def pin_and_take_out(w: World) -> Script:
    yield from second(w)
    w.apply(pinRevision=w.name_of("A"))
    yield stable(w, "A")
    yield w.rng.uniform(0.0, 100.0)
    w.apply(pinRevision="")
    yield stable(w, "B")


@scenario(ends("A", builds=2), seeds=FEW)
def pin_during_soak(w: World) -> Script:
    yield from edited(w, **LONG_SOAK)
    yield phase(w, "B", "Soaking")
    yield w.rng.uniform(0.0, 60.0)
    w.apply(pinRevision=w.name_of("A"))
    yield stable(w, "A")


@scenario(ends("B", build=1, builds=3), seeds=1)
def pinned_in_a_soak_then_to_another_then_rebuilt(w: World) -> Script:
    """What gave way to one pin is what the next one names, and what the spec asks for in the end."""
    yield from edited(w, **LONG_SOAK)
    yield phase(w, "B", "Soaking")
    w.apply(pinRevision=w.name_of("A"))
    yield phase(w, "B", "Superseded")
    w.apply(pinRevision="products-00000000")
    yield w.rng.uniform(0.0, 60.0)
    w.apply(index__factory="A", pinRevision=w.name_of("B"), **SHORT_SOAK)
    yield stable(w, "B")
    w.apply(index__factory="B", pinRevision="")
    yield lambda: w.condition("RolledOut") == "True" and w.condition("UpToDate") == "True"
    w.ask("rebuild", "n1")
    yield lambda: w.status().get("stable") == w.name_of("B", build=1)


@scenario(ends("B", phase="RolledBack", rolled_out=False, stalled=True, failed="A", builds=2), seeds=FEW)
def pin_what_fails(w: World) -> Script:
    """A was good once; now it trips, and is not taken again although it is pinned."""
    yield from second(w)
    set_quality(w, "A", Quality(zero_results=0.5))
    w.apply(pinRevision=w.name_of("A"))
    yield phase(w, "A", "RolledBack")
    w.apply(searcher__replicas=2)
    yield 100.0


@scenario(
    ends("B", phase="Stalled", reason="PinnedRevisionNotFound", rolled_out=False, stalled=True, builds=2), seeds=FEW
)
def pin_of_nothing(w: World) -> Script:
    yield from second(w)
    w.apply(pinRevision="products-00000000", index__factory="C")
    yield 100.0
