"""Edits of where data and artifacts are, and of how they are reached."""

from __future__ import annotations

from simulator.pods import task_of
from simulator.scenarios.rollouts import ROLLED_BACK, second
from simulator.scenarios.scenario import Script, edited, ends, first_is_stable, phase, scenario, stable
from simulator.truth import Data
from simulator.world import World

ELSEWHERE = {"bucket": "elsewhere", "secretRef": {"name": "s3"}}


def _lie_in(*wanted: str) -> object:
    def check(w: World) -> list[str]:
        found = tuple(sorted(bucket for bucket, _ in w.truth.stored))
        return [] if found == wanted else [f"artifacts lie in {found}, not {wanted}"]

    return check


@scenario(ends("B", builds=2, extra=_lie_in("elsewhere", "indexes")))
def artifacts_move(w: World) -> Script:
    """Another bucket: what is built from now on goes there, and what serves is read where it was written."""
    yield from first_is_stable(w)
    w.apply(artifacts__s3=ELSEWHERE)
    yield 60.0
    read = {task_of(pod)["artifacts"]["s3"]["bucket"] for pod in w.controllers.searchers(w.name_of("A"))}
    assert read == {"indexes"}, f"searchers of A read from {read}"
    w.apply(index__factory="B")
    yield stable(w, "B")


@scenario(ROLLED_BACK)
def artifacts_move_and_back_by_hand(w: World) -> Script:
    """The way back leads to the bucket of before."""
    yield from artifacts_move(w)
    yield w.rng.uniform(60.0, 200.0)
    w.ask("rollback", "n1")
    yield phase(w, "B", "RolledBack")


@scenario(ends("A", "d2"))
def source_moves(w: World) -> Script:
    """Another prefix holds other data."""
    yield from first_is_stable(w)
    w.truth.places["catalogue/"] = Data("d2", rows=10_050)
    w.apply(source__s3={"bucket": "embeddings", "prefix": "catalogue/", "secretRef": {"name": "s3"}})
    yield stable(w, "A", "d2")


def _read_with_the_new_secret(w: World) -> list[str]:
    for pod in w.controllers.searchers(w.serving()):
        sources = next(c for c in pod["spec"]["containers"] if c["name"] == "searcher")["envFrom"]
        named = {source["secretRef"]["name"] for source in sources if source["prefix"] == "ARTIFACTS_"}
        if named != {"s3-new"}:
            return [f"{pod['metadata']['name']} reads its artifact with {named}"]
    return []


@scenario(ends("B", builds=2, extra=_read_with_the_new_secret))
def secret_renamed_in_soak(w: World) -> Script:
    """Access is live: the pods of both revisions are replaced one by one, while one of them is judged."""
    yield from edited(w, rollout__soak__duration="2m")
    yield phase(w, "B", "Soaking")
    w.apply(artifacts__s3={"bucket": "indexes", "secretRef": {"name": "s3-new"}})
    yield stable(w, "B")


@scenario(ends("B", builds=2, extra=_read_with_the_new_secret))
def secret_renamed(w: World) -> Script:
    yield from second(w)
    w.apply(artifacts__s3={"bucket": "indexes", "secretRef": {"name": "s3-new"}})
    yield 100.0
