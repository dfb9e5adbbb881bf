"""Indexes in shards: built by three Jobs, served by searchers of each shard and routers in front of them."""

from __future__ import annotations

from simulator.pods import is_ready
from simulator.scenarios.scenario import Script, edited, ends, phase, scenario, stable
from simulator.store import Json, owners
from simulator.world import World

from vectorindex_operator.manifests import labels

SHARDS = 3


def _all_are_loaded(w: World) -> list[str]:
    """Each shard of what serves has its pods and its Service, and nothing is left of another revision."""
    name, want = w.serving(), w.replicas()
    there = dict.fromkeys(range(SHARDS), 0)
    for pod in pods_of_shards(w, name):
        there[int(pod["metadata"]["labels"][labels.SHARD])] += is_ready(pod)
    services = {one["metadata"]["name"] for one in w.store.of_kind("Service") if _is_of_shard(one)}
    wanted = {labels.shard_name(name, number) for number in range(SHARDS)}
    wrong = [f"{count} pods of shard {number}" for number, count in there.items() if count != want]
    return wrong + ([f"the Services are {sorted(services)}"] if services != wanted else [])


def _is_of_shard(one: Json) -> bool:
    return bool(one["metadata"]["labels"].get(labels.COMPONENT) == labels.SHARD_PODS)


def pods_of_shards(w: World, revision: str, number: int | None = None) -> list[Json]:
    """Searchers of the shards of a revision, or of one of these."""
    marks = {labels.COMPONENT: labels.SHARD_PODS, labels.REVISION: revision}
    marks |= {} if number is None else {labels.SHARD: str(number)}
    return [pod for pod in w.store.of_kind("Pod") if marks.items() <= pod["metadata"]["labels"].items()]


@scenario(ends("B", builds=2, extra=_all_are_loaded), seeds=2)
def in_shards(w: World) -> Script:
    """A build pod of the second revision goes with its node."""
    yield from edited(w, index__shards=SHARDS)
    yield from _loses_a_build_pod(w)
    yield stable(w, "B")


def _loses_a_build_pod(w: World) -> Script:
    running: list[Json] = []

    def building() -> bool:
        jobs = {job["metadata"]["uid"] for job in w.jobs("build")}
        running[:] = [pod for pod in w.store.of_kind("Pod") if owners(pod) & jobs and not _has_ended(pod)]
        return bool(running)

    yield building
    w.controllers.lose(running[0])


def _has_ended(pod: Json) -> bool:
    return pod["status"].get("phase") in ("Succeeded", "Failed")


@scenario(ends("B", builds=2, extra=_all_are_loaded), seeds=2)
def as_many_shards_as_fit(w: World) -> Script:
    """The pod that said how many is gone before anybody heard it, and a build pod of the second revision with its
    node."""
    yield from edited(w, index__shards="Auto")
    heard: list[Json] = []

    def said() -> bool:
        jobs = {job["metadata"]["uid"] for job in w.jobs("partition")}
        heard[:] = [pod for pod in w.store.of_kind("Pod") if owners(pod) & jobs and _has_ended(pod)]
        return bool(heard)

    yield said
    w.store.remove("Pod", heard[0]["metadata"]["name"])
    yield from _loses_a_build_pod(w)
    yield stable(w, "B")


@scenario(ends("A", builds=1, extra=_all_are_loaded), seeds=1)
def the_plan_is_lost(w: World) -> Script:
    """While shards are built by it: everything is partitioned and built once more."""
    w.apply(index__shards=SHARDS)
    yield lambda: bool(w.truth.parts)
    w.truth.plans.clear()
    yield stable(w, "A")


ONLY_ZERO = [{"name": "zero", "metric": "ZeroResultRate", "max": "5%", "window": "10s", "warmUp": "5s"}]


@scenario(
    ends("A", phase="RolledBack", rolled_out=False, stalled=True, failed="B", builds=2, extra=_all_are_loaded), seeds=2
)
def a_whole_shard_is_lost(w: World) -> Script:
    """While it soaks: no query has its answer, and the traffic goes back, whatever rules there are."""
    yield from edited(w, index__shards=SHARDS, guardrails__rules=ONLY_ZERO)
    yield phase(w, "B", "Soaking")
    w.truth.room = False
    for pod in pods_of_shards(w, w.name_of("B"), 1):
        w.store.remove("Pod", pod["metadata"]["name"])
    yield phase(w, "B", "RolledBack")
    w.truth.room = True


@scenario(ends("B", builds=2, extra=_all_are_loaded), seeds=1)
def shards_lose_a_pod_each(w: World) -> Script:
    """The other one of each answers, however long the new one takes, and nothing goes back."""
    yield from edited(w, index__shards=SHARDS)
    yield phase(w, "B", "Soaking")
    w.truth.loading = (20.0, 25.0)
    for number in range(SHARDS):
        w.delete("Pod", pods_of_shards(w, w.name_of("B"), number)[0]["metadata"]["name"])
        yield w.rng.uniform(0.0, 10.0)
    yield stable(w, "B")
