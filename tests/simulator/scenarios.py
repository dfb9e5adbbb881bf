"""What users do and what befalls their data, each with the end that must come of it.

A script is a generator: it acts, and yields what it waits for (a predicate) or how long (seconds). Faults never change
an end, so no end depends on how fast the operator is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from simulator.truth import Data, Quality
from simulator.world import NAME, World

from vectorindex_operator.api.v1alpha1 import GROUP
from vectorindex_operator.manifests import labels
from vectorindex_searcher.contract import Failure

SearchPlan = Callable[[], bool] | float
Script = Iterator[SearchPlan]

BAD_ROW = Failure(reason="NonFiniteVector", message="a vector is not finite", object="part-1.parquet", row=17)


@dataclass(frozen=True, slots=True)
class Scenario:
    """`end` says what is wrong with the end. `polls`: Jobs may be started at rest, because somebody is waited for."""

    name: str
    script: Callable[[World], Script]
    end: Callable[[World], list[str]]
    hours: float = 6.0
    polls: bool = False
    needs_traffic: bool = False
    two_operators: bool = False
    classes: tuple[str, ...] = ()
    """Operators of these classes, also in the run without faults."""


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    end: Callable[[World], list[str]],
    *,
    hours: float = 6.0,
    polls: bool = False,
    needs_traffic: bool = False,
    two_operators: bool = False,
    classes: tuple[str, ...] = (),
) -> Callable[[Callable[[World], Script]], Callable[[World], Script]]:
    def add(script: Callable[[World], Script]) -> Callable[[World], Script]:
        name = script.__name__
        SCENARIOS[name] = Scenario(name, script, end, hours, polls, needs_traffic, two_operators, classes)
        return script

    return add


def ends(
    factory: str,
    data: str = "d1",
    *,
    phase: str = "Stable",
    reason: str = "",
    rolled_out: bool = True,
    stalled: bool = False,
    builds: int = 0,
    failed: str = "",
    extra: Callable[[World], list[str]] = lambda world: [],
) -> Callable[[World], list[str]]:
    """The end where the revision of `factory` and `data` is stable and alone, and the status says `phase`."""

    def check(world: World) -> list[str]:
        name = world.name_of(factory, data)
        status = world.status()
        facts = {
            "stable": (status.get("stable"), name),
            "traffic": (world.serving(), name),
            "phase": (status.get("phase"), phase),
            "reason": (status.get("reason"), reason or status.get("reason")),
            "candidate": (status.get("candidate"), ""),
            "next": (status.get("next"), ""),
            "Ready": (world.condition("Ready"), "True"),
            "RolledOut": (world.condition("RolledOut"), "True" if rolled_out else "False"),
            "Stalled": (world.condition("Stalled"), "True" if stalled else ""),
            "Reconciling": (world.condition("Reconciling"), "" if rolled_out or stalled else "True"),
            "loaded": (world.loaded(), {name}),
            "ready pods": (len(world.controllers.ready_pods(name)), world.spec["searcher"]["replicas"]),
            "published": (len(world.truth.published), builds or len(world.truth.published)),
        }
        if failed:
            facts[f"phase of {failed}"] = (world.phase_of(world.name_of(failed, data)), phase)
        wrong = [f"{what} is {got!r}, not {wanted!r}" for what, (got, wanted) in facts.items() if got != wanted]
        return wrong + extra(world)

    return check


def stable(world: World, factory: str, data: str = "d1") -> Callable[[], bool]:
    name = world.name_of(factory, data)
    return lambda: world.status().get("stable") == name and world.status().get("phase") == "Stable"


WAY = ("Pending", "Building", "Validating", "Validated", "Surging", "Soaking", "Stable")


def phase(world: World, factory: str, wanted: str, data: str = "d1") -> Callable[[], bool]:
    """A revision's phase is `wanted`, or later on the way: a stored phase may be passed over when writes fail."""
    name = world.name_of(factory, data)
    enough = WAY[WAY.index(wanted) :] if wanted in WAY else (wanted,)
    return lambda: world.phase_of(name) in enough


def set_quality(world: World, factory: str, quality: Quality) -> None:
    world.truth.qualities[factory] = quality


# ---------------------------------------------------------------- rollouts


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


def _bad_revision(w: World, quality: Quality) -> Script:
    set_quality(w, "B", quality)
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield phase(w, "B", "RolledBack")


@scenario(ROLLED_BACK)
def zero_results(w: World) -> Script:
    return _bad_revision(w, Quality(zero_results=0.5))


@scenario(ROLLED_BACK)
def errors(w: World) -> Script:
    return _bad_revision(w, Quality(errors=0.7))


@scenario(ROLLED_BACK)
def crashes(w: World) -> Script:
    return _bad_revision(w, Quality(crashes=True))


@scenario(ROLLED_BACK)
def bad_revision_applied_again(w: World) -> Script:
    yield from _bad_revision(w, Quality(zero_results=0.5))
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
    assert w.store.kinds["Deployment"][w.name_of("A")]["spec"] is theirs
    w.delete("Deployment", w.name_of("A"))
    yield stable(w, "A")


# ---------------------------------------------------------------- edits on the way


@scenario(ends("C"))
def edit_during_build(w: World) -> Script:
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield phase(w, "B", "Building")
    yield w.rng.uniform(0.0, 20.0)
    w.apply(index__factory="C")
    yield stable(w, "C")


@scenario(ends("B"))
def edit_away_and_back(w: World) -> Script:
    """A, B, C, B in quick succession: only the last counts."""
    w.apply()
    yield stable(w, "A")
    for factory in "BCB":
        w.apply(index__factory=factory)
        yield w.rng.uniform(0.0, 15.0)
    yield stable(w, "B")


@scenario(ends("C", builds=3))
def edit_during_soak(w: World) -> Script:
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield phase(w, "B", "Soaking")
    yield w.rng.uniform(0.0, 10.0)
    w.apply(index__factory="C")
    yield stable(w, "C")


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
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield phase(w, "B", "Soaking")
    yield 300.0


@scenario(ends("A", builds=2))
def revert_during_soak(w: World) -> Script:
    """The soak is so long that it has not passed when the operator comes to hear of the edit."""
    w.apply(rollout__soak__duration="30m", rollout__soak__maxDuration="1h")
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield phase(w, "B", "Soaking")
    w.apply(index__factory="A")
    yield stable(w, "A")


@scenario(ends("B", builds=2))
def revert_and_again(w: World) -> Script:
    yield from revert_during_soak(w)
    yield w.rng.uniform(0.0, 60.0)
    w.apply(index__factory="B", rollout__soak__duration="20s", rollout__soak__maxDuration="5m")
    yield stable(w, "B")


@scenario(ends("A"))
def revert_during_surge(w: World) -> Script:
    w.apply(rollout__soak__duration="30m", rollout__soak__maxDuration="1h")
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield phase(w, "B", "Surging")
    w.apply(index__factory="A")
    yield stable(w, "A")


# ---------------------------------------------------------------- data


@scenario(ends("A", "d2"))
def data_during_build(w: World) -> Script:
    w.apply(source__poll="30s")
    yield phase(w, "A", "Building")
    w.truth.put(Data("d2", rows=10_100))
    yield stable(w, "A", "d2")
    w.apply(source__poll="0")
    yield 5.0


@scenario(ends("B", "d2"))
def data_during_soak(w: World) -> Script:
    w.apply(source__poll="30s")
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield phase(w, "B", "Soaking")
    w.truth.put(Data("d2", rows=10_100))
    yield stable(w, "B", "d2")
    w.apply(source__poll="0")
    yield 5.0


@scenario(ends("A", "d9"))
def data_never_rests(w: World) -> Script:
    """New data every few seconds: revisions are promoted nevertheless."""
    w.apply(source__poll="30s", source__minInterval="1s")
    yield stable(w, "A")
    for number in range(2, 9):
        w.truth.put(Data(f"d{number}", rows=10_000 + number))
        yield w.rng.uniform(5.0, 40.0)
    w.truth.put(Data("d9", rows=10_009))
    yield stable(w, "A", "d9")
    w.apply(source__poll="0")
    yield 5.0


@scenario(ends("A", "d3"))
def bad_data_then_fix(w: World) -> Script:
    w.apply(source__poll="1m")
    yield stable(w, "A")
    w.truth.put(Data("d2", bad=BAD_ROW))
    yield phase(w, "A", "BuildFailed", "d2")
    yield w.rng.uniform(0.0, 300.0)
    w.truth.put(Data("d3"))
    yield stable(w, "A", "d3")
    w.apply(source__poll="0")
    yield 5.0


@scenario(ends("A", "d2"))
def bad_data_at_first(w: World) -> Script:
    """Polling is off, and the fix is picked up by itself nevertheless."""
    w.truth.data = Data("d1", bad=BAD_ROW)
    w.apply()
    yield phase(w, "A", "BuildFailed")
    yield w.rng.uniform(0.0, 300.0)
    w.truth.put(Data("d2"))
    yield stable(w, "A", "d2")


@scenario(ends("A", "d2"))
def unreadable_then_fix(w: World) -> Script:
    w.truth.data = Data("d1", unreadable=Failure(reason="EmptySource", message="no object below products/"))
    w.apply()
    yield lambda: w.condition("Stalled") == "True" and w.status()["reason"] == "EmptySource"
    yield w.rng.uniform(0.0, 300.0)
    w.truth.put(Data("d2"))
    yield stable(w, "A", "d2")


@scenario(ends("A", "d2"))
def listed_objects_gone(w: World) -> Script:
    """What was listed is replaced before it is built: listed again, though polling is off."""
    w.apply()
    yield phase(w, "A", "Building")
    w.truth.put(Data("d2", replaced=True))
    yield stable(w, "A", "d2")


@scenario(ends("B", builds=2))
def held_by_live_queries(w: World) -> Script:
    """What A's users ask holds B, which is never rejected for it, until a person no longer asks for it."""
    w.truth.live_recall = 0.90
    w.apply(gate={"queries": {"live": {}}})
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield lambda: w.status().get("reason") in ("LiveRecallBelowMin", "GateInconclusive")
    yield w.rng.uniform(0.0, 100.0)
    assert w.phase_of(w.name_of("B")) == "Validating"
    w.apply(gate={"recall": {"min": 0.95}})
    yield stable(w, "B")


@scenario(ends("A", "d3"))
def undecided_gate_then_data(w: World) -> Script:
    """d2 can neither be proven nor refuted, and is held; it must not hold up d3."""
    set_quality(w, "A@d2", Quality(recall=0.952))
    w.apply(source__poll="30s")
    yield stable(w, "A")
    w.truth.put(Data("d2", rows=10_100))
    yield lambda: w.status().get("reason") in ("RecallUncertain", "GateInconclusive")
    yield w.rng.uniform(0.0, 60.0)
    w.truth.put(Data("d3", rows=10_200))
    yield stable(w, "A", "d3")
    w.apply(source__poll="0")
    yield 5.0


@scenario(ends("A", "d1", builds=1))
def queries_come_late(w: World) -> Script:
    w.truth.queries_missing = True
    w.apply()
    yield phase(w, "A", "Validating")
    yield w.rng.uniform(60.0, 400.0)
    w.truth.queries_missing = False
    yield stable(w, "A")


@scenario(ends("A", "d2"))
def no_queries_then_data(w: World) -> Script:
    """A revision that cannot be measured does not hold up new data."""
    w.apply(source__poll="30s")
    w.truth.queries_missing = True
    yield phase(w, "A", "Validating")
    yield w.rng.uniform(60.0, 400.0)
    w.truth.put(Data("d2", rows=10_200))
    yield lambda: w.phase_of(w.name_of("A", "d2")) != ""
    w.truth.queries_missing = False
    yield stable(w, "A", "d2")
    w.apply(source__poll="0")
    yield 5.0


@scenario(ends("A"), polls=True)
def polling(w: World) -> Script:
    """A source that does not change costs Jobs and nothing else."""
    w.apply(source__poll="30s")
    yield stable(w, "A")
    yield 100.0


def _dimension_refused(w: World) -> list[str]:
    reasons = {c["reason"] for c in w.status().get("conditions", ()) if c["type"] == "Stalled"}
    return [] if reasons == {"DimensionChanged"} else [f"Stalled is {reasons}"]


@scenario(ends("A", phase="Stalled", stalled=True, extra=_dimension_refused), polls=True)
def dimension_changed(w: World) -> Script:
    w.apply(source__poll="1m")
    yield stable(w, "A")
    w.truth.put(Data("d2", dimension=16))
    yield lambda: w.condition("Stalled") == "True"
    yield 60.0
    w.apply(source__poll="1h")
    yield 5.0


# ---------------------------------------------------------------- builds that fail, places that lack


@scenario(ends("A", builds=1))
def out_of_memory_once(w: World) -> Script:
    set_quality(w, "A", Quality(build_exits=(137, 69, 137)))
    w.apply()
    yield stable(w, "A")


@scenario(ends("A", builds=1))
def out_of_memory_backs_off(w: World) -> Script:
    set_quality(w, "A", Quality(build_exits=(137,) * 7))
    w.apply()
    yield stable(w, "A")


@scenario(ends("A", builds=1))
def more_memory(w: World) -> Script:
    set_quality(w, "A", Quality(build_exits=(137,) * 6))
    w.apply()
    yield phase(w, "A", "BuildFailed")
    yield 60.0
    w.apply(build__resources={"requests": {"cpu": "1", "memory": "8Gi"}})
    yield stable(w, "A")


@scenario(ends("A", builds=1))
def retry_of_a_failed_build(w: World) -> Script:
    """A build that failed for good is tried again when a person says so, at once and only then."""
    set_quality(w, "A", Quality(build_exits=(64,)))
    w.apply()
    yield phase(w, "A", "BuildFailed")
    yield w.rng.uniform(5.0, 200.0)
    w.ask("retry", "n1")
    asked = w.now
    yield stable(w, "A")
    assert w.now - asked < 1500, f"retry took {w.now - asked:.0f} s"


def _built_on(device: str) -> Callable[[World], list[str]]:
    def check(w: World) -> list[str]:
        found = {(str(b.device), bool(b.device_reason)) for b in w.truth.published.values()}
        return [] if found == {(device, device == "CPU")} else [f"built on {found}"]

    return check


@scenario(ends("A", builds=1, extra=_built_on("CPU")))
def gpu_falls_back(w: World) -> Script:
    w.truth.gpu = False
    w.apply(build__device="PreferGPU")
    yield stable(w, "A")


@scenario(ends("A", builds=1, extra=_built_on("GPU")))
def gpu_comes_late(w: World) -> Script:
    w.truth.gpu = False
    w.apply(build__device="GPU")
    yield phase(w, "A", "Building")
    yield 400.0
    w.truth.gpu = True
    yield stable(w, "A")


@scenario(ends("A", builds=1))
def secret_comes_late(w: World) -> Script:
    w.truth.secret = False
    w.apply()
    yield 60.0
    w.truth.secret = True
    yield phase(w, "A", "Surging")
    w.truth.secret = False
    yield 200.0
    w.truth.secret = True
    yield stable(w, "A")


@scenario(ends("B"))
def no_room_for_searchers(w: World) -> Script:
    """Longer than progressDeadline, which does not run meanwhile."""
    w.apply()
    yield stable(w, "A")
    w.truth.room = False
    w.apply(index__factory="B")
    yield phase(w, "B", "Surging")
    yield 300.0
    w.truth.room = True
    yield stable(w, "B")


# ---------------------------------------------------------------- searchers that refuse


def _refused(w: World, reason: str, ends_as: str) -> Script:
    set_quality(w, "B", Quality(refuses=reason))
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield phase(w, "B", ends_as)


@scenario(
    ends("A", phase="SurgeFailed", reason="ChecksumMismatch", rolled_out=False, stalled=True, failed="B", builds=2)
)
def corrupt_artifact(w: World) -> Script:
    return _refused(w, "ChecksumMismatch", "SurgeFailed")


@scenario(ends("A", phase="Rejected", reason="CanaryRecall", rolled_out=False, stalled=True, failed="B", builds=2))
def canary_refuses(w: World) -> Script:
    return _refused(w, "CanaryRecall", "Rejected")


@scenario(ends("B", builds=2))
def retry_after_refusal(w: World) -> Script:
    yield from _refused(w, "ChecksumMismatch", "SurgeFailed")
    set_quality(w, "B", Quality())
    yield w.rng.uniform(0.0, 30.0)
    w.ask("retry", "n1")
    yield stable(w, "B")


# ---------------------------------------------------------------- rollbacks by hand and in steady state


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
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B")
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
    w.apply()
    yield stable(w, "A")
    w.ask("rollback", "n1")
    w.ask("retry", "n2")
    yield 30.0


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
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield lambda: w.serving() == w.name_of("B")
    for factory in "AB":
        set_quality(w, factory, Quality(zero_results=0.5))
    yield phase(w, "B", "RolledBack")
    yield 120.0


# ---------------------------------------------------------------- deletions


@scenario(lambda w: ["the VectorIndex is still there"] if w.index() else [])
def deleted_during_build(w: World) -> Script:
    w.apply()
    yield phase(w, "A", "Building")
    yield w.rng.uniform(0.0, 10.0)
    w.delete_index(foreground=w.rng.random() < 0.5)
    yield 60.0


@scenario(lambda w: ["the VectorIndex is still there"] if w.index() else [])
def deleted_during_soak(w: World) -> Script:
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield phase(w, "B", "Soaking")
    w.delete_index(foreground=w.rng.random() < 0.5)
    yield 60.0


@scenario(ends("A", builds=1))
def deleted_and_made_again(w: World) -> Script:
    """Under the same name at once: nothing of the first one is adopted, and its artifact is found again."""
    w.apply()
    yield stable(w, "A")
    w.delete_index(foreground=False)
    yield w.rng.uniform(0.0, 5.0)
    w.apply()
    yield stable(w, "A")


@scenario(ends("A", builds=1))
def job_deleted(w: World) -> Script:
    w.apply()
    yield phase(w, "A", "Building")
    for job in w.jobs("build"):
        w.delete("Job", job["metadata"]["name"])
    yield stable(w, "A")


@scenario(ends("A", builds=1))
def deployment_deleted(w: World) -> Script:
    w.apply()
    yield stable(w, "A")
    w.delete("Deployment", w.name_of("A"))
    yield 30.0


@scenario(ends("B", builds=2))
def revision_deleted(w: World) -> Script:
    """The object of the revision that serves: it goes on serving, is built again (found published) and proven."""
    yield from second(w)
    w.delete("VectorIndexRevision", w.name_of("B"))
    yield stable(w, "B")


@scenario(ends("C", builds=3))
def revision_deleted_and_edit(w: World) -> Script:
    yield from second(w)
    w.delete("VectorIndexRevision", w.name_of("B"))
    w.apply(index__factory="C")
    yield stable(w, "C")


@scenario(ends("B", builds=2))
def prior_deleted_in_soak(w: World) -> Script:
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield lambda: w.serving() == w.name_of("B")
    w.delete("VectorIndexRevision", w.name_of("A"))
    yield stable(w, "B")


@scenario(ends("A", phase="Rejected", reason="RecallBelowMin", rolled_out=False, stalled=True, failed="B", builds=2))
def rejected_one_deleted(w: World) -> Script:
    """Its rejection is gone with it; it is measured again, and not built again."""
    yield from gate_rejects(w)
    w.delete("VectorIndexRevision", w.name_of("B"))
    yield 1.0
    yield phase(w, "B", "Rejected")


def _stable_dies(w: World, quality: Quality) -> Script:
    """The artifact of stable is gone while B has the traffic: its pods never become ready again."""
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B", rollout__soak__minQueries=10**9)
    yield phase(w, "B", "Soaking")
    set_quality(w, "A", Quality(refuses="ArtifactGone"))
    set_quality(w, "B", quality)
    for pod in w.controllers.searchers(w.name_of("A")):
        w.delete("Pod", pod["metadata"]["name"])
    yield 20.0
    w.apply(index__factory="C", rollout__soak__minQueries=100)
    yield stable(w, "C")


@scenario(ends("C", builds=3), needs_traffic=True)
def dead_stable(w: World) -> Script:
    return _stable_dies(w, Quality())


@scenario(ends("C", builds=3), needs_traffic=True)
def dead_stable_and_trip(w: World) -> Script:
    """The fix surges while what tripped keeps the traffic: there is nothing to go back to."""
    return _stable_dies(w, Quality(errors=0.7))


def _is_refreshed(w: World) -> list[str]:
    serving = w.store.get("VectorIndexRevision", w.serving()) or {"spec": {}, "status": {}}
    facts = {
        "image": (serving["spec"].get("image"), "example/searcher:v2"),
        "phase": (serving["status"].get("phase"), "Stable"),
        "published": (len(w.truth.published), 1),
        "RolledOut": (w.condition("RolledOut"), "True"),
        "loaded": (w.loaded(), {w.serving()}),
        "answer": (w.status()["verbs"][0]["result"], "Done"),
    }
    return [f"{what} is {got!r}, not {wanted!r}" for what, (got, wanted) in facts.items() if got != wanted]


@scenario(_is_refreshed)
def refreshed(w: World) -> Script:
    """The same artifact with another image: a revision of its own, proven, rolled out, and built no second time."""
    w.apply()
    yield stable(w, "A")
    w.upgrade("example/searcher:v2")
    w.ask("refresh", "r1")
    yield lambda: w.status().get("phase") == "Stable" and w.status()["stable"] != w.name_of("A")


@scenario(ends("B", builds=2))
def service_deleted(w: World) -> Script:
    yield from second(w)
    w.delete("Service", NAME)
    yield lambda: w.serving() == w.name_of("B")


@scenario(ends("B", builds=2))
def service_deleted_in_soak(w: World) -> Script:
    w.apply()
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield phase(w, "B", "Soaking")
    w.delete("Service", NAME)
    yield stable(w, "B")


@scenario(ends("B", builds=2))
def selector_changed_by_hand(w: World) -> Script:
    """Somebody points the Service at nothing: it is put back."""
    yield from second(w)
    front = w.store.kinds["Service"][NAME]
    w.store.change("Service", NAME, spec={**front["spec"], "selector": {labels.REVISION: "nobody"}})
    yield lambda: w.serving() == w.name_of("B")
