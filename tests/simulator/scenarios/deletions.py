"""Objects that somebody deletes, and what is lost with them."""

from __future__ import annotations

from simulator.scenarios.rollouts import gate_rejects, second
from simulator.scenarios.scenario import Script, edited, ends, first_is_stable, phase, scenario, set_quality, stable
from simulator.truth import Quality
from simulator.world import NAME, World

from vectorindex_operator.manifests import labels


@scenario(lambda w: ["the VectorIndex is still there"] if w.index() else [])
def deleted_during_build(w: World) -> Script:
    w.apply()
    yield phase(w, "A", "Building")
    yield w.rng.uniform(0.0, 10.0)
    w.delete_index(foreground=True)
    yield 60.0


@scenario(lambda w: ["the VectorIndex is still there"] if w.index() else [])
def deleted_during_soak(w: World) -> Script:
    yield from edited(w)
    yield phase(w, "B", "Soaking")
    w.delete_index(foreground=True)
    yield 60.0


@scenario(ends("A", builds=1))
def job_deleted(w: World) -> Script:
    w.apply()
    yield phase(w, "A", "Building")
    for job in w.jobs("build"):
        w.delete("Job", job["metadata"]["name"])
    yield stable(w, "A")


@scenario(ends("A", builds=1))
def deployment_deleted(w: World) -> Script:
    yield from first_is_stable(w)
    w.delete("Deployment", w.name_of("A"))
    yield 30.0


@scenario(ends("B", builds=2), found_again=1)
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
    yield from edited(w)
    yield lambda: w.serving() == w.name_of("B")
    w.delete("VectorIndexRevision", w.name_of("A"))
    yield stable(w, "B")


@scenario(
    ends("A", phase="Rejected", reason="RecallBelowMin", rolled_out=False, stalled=True, failed="B", builds=2),
    found_again=1,
)
def rejected_one_deleted(w: World) -> Script:
    """Its rejection is gone with it; it is measured again, and not built again."""
    yield from gate_rejects(w)
    w.delete("VectorIndexRevision", w.name_of("B"))
    yield 1.0
    yield phase(w, "B", "Rejected")


def _stable_dies(w: World, quality: Quality) -> Script:
    """The artifact of stable is gone while B has the traffic: its pods never become ready again."""
    yield from first_is_stable(w)
    w.apply(index__factory="B", rollout__soak__minQueries=10**9, rollout__soak__maxDuration="6h")
    yield phase(w, "B", "Soaking")
    set_quality(w, "A", Quality(refuses="ArtifactGone"))
    set_quality(w, "B", quality)
    for pod in w.controllers.searchers(w.name_of("A")):
        w.delete("Pod", pod["metadata"]["name"])
    yield 20.0
    w.apply(index__factory="C", rollout__soak__minQueries=100, rollout__soak__maxDuration="5m")
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
    yield from first_is_stable(w)
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
    yield from edited(w)
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
