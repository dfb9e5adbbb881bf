"""Rollouts: the gate, the switch, the soak, what is kept, names that somebody else has."""

from __future__ import annotations

from simulator.scenarios.scenario import Script, ends, phase, scenario, set_quality, stable
from simulator.truth import Quality
from simulator.world import NAME, World

from vectorindex_operator.api.v1alpha1 import GROUP


@scenario(ends("A", builds=1))
def first(w: World) -> Script:
    w.apply()
    yield stable(w, "A")


@scenario(ends("B", builds=2))
def second(w: World) -> Script:
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield stable(w, "B")


@scenario(ends("B", builds=2), two_operators=True)
def two_operators(w: World) -> Script:
    return second(w)


@scenario(ends("B", builds=2), classes=("default", "next"))
def moved_to_another_operator(w: World) -> Script:
    """While a rollout is on: the other one carries it on, and no write is lost or done twice."""
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield phase(w, "B", "Validating")
    w.annotate(f"{GROUP}/operator-class", "next")
    yield stable(w, "B")


@scenario(ends("A", phase="Rejected", reason="RecallBelowMin", rolled_out=False, stalled=True, failed="B", builds=2))
def gate_rejects(w: World) -> Script:
    set_quality(w, "B", Quality(recall=0.90))
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield phase(w, "B", "Rejected")
    w.apply(searcher__replicas=2)
    yield 100.0


@scenario(ends("B", builds=2))
def gate_edited(w: World) -> Script:
    set_quality(w, "B", Quality(recall=0.93))
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield phase(w, "B", "Rejected")
    w.apply(gate={"recall": {"min": 0.90}})
    yield stable(w, "B")


ROLLED_BACK = ends("A", phase="RolledBack", rolled_out=False, stalled=True, failed="B", builds=2)


def bad_revision(w: World, quality: Quality) -> Script:
    set_quality(w, "B", quality)
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B")
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


@scenario(ends("B", builds=2))
def same_manifest_again(w: World) -> Script:
    yield from second(w)
    w.apply(searcher__replicas=2)
    yield 30.0


@scenario(ends("A", builds=1))
def replicas(w: World) -> Script:
    w.apply()
    yield stable(w, "A")
    w.apply(searcher__replicas=3)
    yield 5.0
    w.apply(guardrails__steadyState="Observe")
    yield 5.0


@scenario(ends("B", builds=2))
def replicas_during_surge(w: World) -> Script:
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield phase(w, "B", "Surging")
    yield w.rng.uniform(0.0, 6.0)
    w.apply(searcher__replicas=4)
    yield w.rng.uniform(0.0, 40.0)
    w.apply(searcher__replicas=3)
    yield stable(w, "B")


@scenario(ends("B", builds=2))
def evictions(w: World) -> Script:
    """Pods are evicted one by one, as a drain under the PodDisruptionBudget does it."""
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B")
    for _ in range(12):
        yield w.rng.uniform(2.0, 9.0)
        for name in w.rng.sample(sorted(w.loaded()), len(w.loaded())):
            pods = w.controllers.ready_pods(name)
            if len(pods) >= w.spec["searcher"]["replicas"]:
                w.delete("Pod", w.rng.choice(pods)["metadata"]["name"])
                break
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
    w.apply()
    yield stable(w, "A")
    w.upgrade("searcher:2")
    yield 30.0


def _few_revisions(w: World) -> list[str]:
    kept = {r["metadata"]["name"] for r in w.store.of_kind("VectorIndexRevision")}
    wanted = {w.name_of("C"), w.name_of("D")}
    return [] if kept == wanted else [f"revisions kept: {kept}, not {wanted}"]


@scenario(ends("D", builds=4, extra=_few_revisions))
def history_of_one(w: World) -> Script:
    w.apply(history=1)
    for factory in "ABCD":
        w.apply(index__factory=factory)
        yield stable(w, factory)


@scenario(ends("A"), two_operators=True)
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


@scenario(ends("A", builds=1))
def name_taken(w: World) -> Script:
    """A Service of somebody else has our name: it is left alone until it is gone."""
    w.store.create({"kind": "Service", "metadata": {"name": NAME, "labels": {}}, "spec": {"selector": {"app": "x"}}})
    w.apply()
    yield lambda: w.status().get("reason") == "NameConflict"
    yield 60.0
    assert w.store.kinds["Service"][NAME]["spec"]["selector"] == {"app": "x"}
    w.delete("Service", NAME)
    yield stable(w, "A")


@scenario(ends("A", builds=1))
def deployment_name_taken(w: World) -> Script:
    """A Deployment of somebody else has the name that we need: it is not adopted."""
    theirs = {"replicas": 0, "template": {"metadata": {"labels": {}}}}
    w.store.create({"kind": "Deployment", "metadata": {"name": w.name_of("A"), "labels": {}}, "spec": theirs})
    w.apply()
    yield phase(w, "A", "Surging")
    yield 60.0
    assert w.store.kinds["Deployment"][w.name_of("A")]["spec"]["replicas"] == 0
    w.delete("Deployment", w.name_of("A"))
    yield stable(w, "A")
