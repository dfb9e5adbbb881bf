"""Rollouts: the gate, the switch, the soak, what is kept, names that somebody else has."""

from __future__ import annotations

from collections.abc import Callable

from simulator.scenarios.scenario import Script, edited, ends, first_is_stable, phase, scenario, set_quality, stable
from simulator.truth import Quality
from simulator.world import World

from vectorindex_operator.api.v1alpha1 import GROUP


@scenario(ends("A", builds=1))
def first(w: World) -> Script:
    """Nobody queries yet, and there is nothing to go back to: no soak."""
    w.truth.queries_per_second = 0.0
    yield from first_is_stable(w)


@scenario(ends("B", builds=2))
def second(w: World) -> Script:
    yield from edited(w)
    yield stable(w, "B")


def _claimed(w: World) -> list[str]:
    whose = w.status().get("operator")
    return [] if whose == "next" else [f"claimed by {whose}"]


@scenario(ends("B", builds=2, extra=_claimed), classes=("default", "next"))
def moved_to_another_operator(w: World) -> Script:
    """While a rollout is on: the other one carries it on, and no write is lost or done twice."""
    yield from edited(w)
    yield phase(w, "B", "Validating")
    w.annotate(f"{GROUP}/operator-class", "next")
    yield stable(w, "B")


@scenario(ends("A", phase="Rejected", reason="RecallBelowMin", rolled_out=False, stalled=True, failed="B", builds=2))
def gate_rejects(w: World) -> Script:
    set_quality(w, "B", Quality(recall=0.90))
    yield from edited(w)
    yield phase(w, "B", "Rejected")
    w.apply(searcher__replicas=2)
    yield 100.0


@scenario(ends("B", builds=2))
def gate_edited(w: World) -> Script:
    set_quality(w, "B", Quality(recall=0.93))
    yield from edited(w)
    yield phase(w, "B", "Rejected")
    w.apply(gate={"recall": {"min": 0.90}})
    yield stable(w, "B")


ROLLED_BACK = ends("A", phase="RolledBack", rolled_out=False, stalled=True, failed="B", builds=2)


def bad_revision(w: World, quality: Quality) -> Script:
    set_quality(w, "B", quality)
    yield from edited(w)
    yield phase(w, "B", "RolledBack")


@scenario(ROLLED_BACK)
def zero_results(w: World) -> Script:
    return bad_revision(w, Quality(zero_results=0.5))


@scenario(ROLLED_BACK)
def errors(w: World) -> Script:
    return bad_revision(w, Quality(errors=0.7))


@scenario(ROLLED_BACK, unanswered=True)
def crashes(w: World) -> Script:
    return bad_revision(w, Quality(crashes=True))


@scenario(ROLLED_BACK)
def bad_revision_applied_again(w: World) -> Script:
    yield from bad_revision(w, Quality(zero_results=0.5))
    w.apply(index__factory="A")
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield 200.0


@scenario(ends("B", builds=2))
def back_and_forth(w: World) -> Script:
    """A, B, A, B: the last two build nothing."""
    for factory in "ABAB":
        w.apply(index__factory=factory)
        yield stable(w, factory)


@scenario(ends("A", builds=1))
def replicas(w: World) -> Script:
    yield from first_is_stable(w)
    w.apply(searcher__replicas=3)
    yield 5.0
    w.apply(guardrails__steadyState="Observe")
    yield 5.0


@scenario(ends("B", builds=2))
def replicas_during_surge(w: World) -> Script:
    yield from edited(w)
    yield phase(w, "B", "Surging")
    yield w.rng.uniform(0.0, 6.0)
    w.apply(searcher__replicas=4)
    yield w.rng.uniform(0.0, 40.0)
    w.apply(searcher__replicas=3)
    yield stable(w, "B")


@scenario(ends("B", builds=2), unanswered=True)
def evictions(w: World) -> Script:
    """The one pod of what soaks is evicted, as a drain does it: another one is ready within seconds, and B is good."""
    yield from edited(w, searcher__replicas=1)
    yield phase(w, "B", "Soaking")
    yield w.rng.uniform(6.0, 12.0)
    for pod in w.controllers.ready_pods(w.name_of("B")):
        w.delete("Pod", pod["metadata"]["name"])
    yield stable(w, "B")


def _images(w: World) -> list[str]:
    found = {
        d["metadata"]["name"]: d["spec"]["template"]["spec"]["containers"][0]["image"]
        for d in w.store.of_kind("Deployment")
    }
    return [] if found == {w.name_of("A"): "searcher:1"} else [f"images: {found}"]


@scenario(ends("A", builds=1, extra=_images))
def operator_upgraded(w: World) -> Script:
    """Another version of the operator renders no searcher anew."""
    yield from first_is_stable(w)
    w.upgrade("searcher:2")
    yield 30.0


def _kept(*factories: str) -> Callable[[World], list[str]]:
    def check(w: World) -> list[str]:
        kept = {r["metadata"]["name"] for r in w.store.of_kind("VectorIndexRevision")}
        wanted = {w.name_of(factory) for factory in factories}
        return [] if kept == wanted else [f"revisions kept: {kept}, not {wanted}"]

    return check


@scenario(ends("D", builds=4, extra=_kept("C", "D")))
def history_of_one(w: World) -> Script:
    w.apply(history=1)
    for factory in "ABCD":
        w.apply(index__factory=factory)
        yield stable(w, factory)


def _kept_with_artifacts(*factories: str) -> Callable[[World], list[str]]:
    def check(w: World) -> list[str]:
        kept = {digest for _, digest in w.truth.stored}
        wanted = {w.made_of[w.name_of(factory)][0] for factory in factories}
        return _kept(*factories)(w) + ([] if kept == wanted else [f"artifacts kept: {kept}, not {wanted}"])

    return check


@scenario(ends("D", builds=4, extra=_kept_with_artifacts("C", "D")), collects=True)
def history_is_collected(w: World) -> Script:
    """No more artifacts than revisions."""
    return history_of_one(w)


@scenario(ends("A", extra=_kept_with_artifacts("A", "C")), two_operators=True, collects=True)
def wanted_again_while_it_is_collected(w: World) -> Script:
    """The user goes back to the oldest just as its artifact is being removed: it is built anew."""
    return wanted_again_while_it_is_forgotten(w)


@scenario(ends("A", extra=_kept("A", "C")), two_operators=True)
def wanted_again_while_it_is_forgotten(w: World) -> Script:
    """The user goes back to the oldest just as it falls out of the history."""
    w.apply(history=1)
    for factory in "AB":
        w.apply(index__factory=factory)
        yield stable(w, factory)
    w.apply(index__factory="C")
    yield phase(w, "C", "Stable")
    w.apply(index__factory="A")
    yield stable(w, "A")
