"""Edits of where data and artifacts are, and of how they are reached."""

from __future__ import annotations

from simulator.scenarios.rollouts import ROLLED_BACK, second
from simulator.scenarios.scenario import Script, ends, phase, scenario, stable
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
    w.apply()
    yield stable(w, "A")
    w.apply(artifacts__s3=ELSEWHERE)
    yield 60.0
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
    w.apply()
    yield stable(w, "A")
    w.truth.places["catalogue/"] = Data("d2", rows=10_050)
    w.apply(source__s3={"bucket": "embeddings", "prefix": "catalogue/", "secretRef": {"name": "s3"}})
    yield stable(w, "A", "d2")


@scenario(ends("A", "d1"))
def source_moves_there_and_back(w: World) -> Script:
    w.truth.places["catalogue/"] = Data("d2", rows=10_050)
    w.apply()
    yield stable(w, "A")
    w.apply(source__s3={"bucket": "embeddings", "prefix": "catalogue/", "secretRef": {"name": "s3"}})
    yield w.rng.uniform(0.0, 90.0)
    w.apply(source__s3={"bucket": "embeddings", "prefix": "products/", "secretRef": {"name": "s3"}})
    yield stable(w, "A")


@scenario(ends("B", builds=2))
def secret_renamed_in_soak(w: World) -> Script:
    """Access is live: the pods of both revisions are replaced one by one, while one of them is judged."""
    w.apply(rollout__soak__duration="2m")
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield phase(w, "B", "Soaking")
    w.apply(artifacts__s3={"bucket": "indexes", "secretRef": {"name": "s3-new"}})
    yield stable(w, "B")


@scenario(ends("B", builds=2))
def secret_renamed(w: World) -> Script:
    yield from second(w)
    w.apply(artifacts__s3={"bucket": "indexes", "secretRef": {"name": "s3-new"}})
    yield 100.0
