"""All objects are lost, and the VectorIndex is made again: only what lies in the bucket tells what was decided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simulator.scenarios.rollouts import second
from simulator.scenarios.scenario import Script, edited, ends, first_is_stable, phase, scenario, set_quality, stable
from simulator.truth import Data, Quality
from simulator.world import World

BAD = Quality(errors=0.5)


def _written(w: World, *outcomes: tuple[str, str, str]) -> Callable[[], bool]:
    """Whether these stand in the bucket: factory, data, outcome."""
    wanted = {(w.name_of(factory, data), outcome) for factory, data, outcome in outcomes}
    return lambda: wanted <= {(one.revision, one.outcome) for one in w.truth.decided.get("indexes", ())}


def _lost(w: World) -> Script:
    """The namespace is gone, or the cluster; artifacts stay."""
    w.delete_index(foreground=False)
    yield lambda: not list(w.store.everything())


def _rolled_back(w: World, **changes: Any) -> Script:
    """A, then B stable; C is taken back by a guardrail."""
    yield from second(w)
    set_quality(w, "C", BAD)
    w.apply(index__factory="C", **changes)
    yield phase(w, "C", "RolledBack")
    yield _written(w, ("A", "d1", "Promoted"), ("B", "d1", "Promoted"), ("C", "d1", "Rejected"))


def _says(w: World) -> list[str]:
    """C's rejection is that of then, and A can be gone back to."""
    bad = w.store.get("VectorIndexRevision", w.name_of("C")) or {}
    said = bad.get("status", {}).get("rejected", {})
    facts = {
        "reason": (said.get("reason"), "ErrorRate"),
        "decided before": ("before this VectorIndex was made" in said.get("message", ""), True),
        "A": (w.phase_of(w.name_of("A")), "Retired"),
        "RollbackPossible": (w.condition("RollbackPossible"), "True"),
        "C served again": (w.name_of("C") in w.served_since(w.made_again_at), False),
    }
    return [f"{what} is {got!r}, not {wanted!r}" for what, (got, wanted) in facts.items() if got != wanted]


@scenario(
    ends("B", phase="RolledBack", rolled_out=False, stalled=True, failed="C", builds=3, extra=_says),
    takes_over=True, seeds=2,
)  # fmt: skip
def taken_over_after_a_rollback(w: World) -> Script:
    """The same manifest again: B serves, nothing is built, and C is not tried again."""
    yield from _rolled_back(w)
    yield from _lost(w)
    w.make_again()
    yield phase(w, "B", "Stable")
    yield lambda: w.serving() == w.name_of("B")


@scenario(ends("A", phase="RolledBack", rolled_out=False, stalled=True, builds=3), takes_over=True, seeds=2)
def taken_over_and_rolled_back(w: World) -> Script:
    """And then B is found bad: there is A to go back to, which this VectorIndex never rolled out."""
    yield from _rolled_back(w)
    yield from _lost(w)
    w.make_again()
    yield lambda: w.serving() == w.name_of("B")
    w.ask("rollback", "n1")
    yield phase(w, "B", "RolledBack")


def _is_proven_again(w: World) -> list[str]:
    live = w.store.get("VectorIndexRevision", w.name_of("B")) or {"spec": {}}
    measured = w.truth.measured.get((live["spec"].get("digest", ""), "example/searcher:v2"), ())
    return [] if len(measured) == 1 else [f"B was measured {len(measured)} times with the image of today"]


@scenario(
    ends("B", phase="RolledBack", rolled_out=False, stalled=True, failed="C", builds=3, extra=_is_proven_again),
    takes_over=True, seeds=2,
)  # fmt: skip
def taken_over_by_another_image(w: World) -> Script:
    """What was proven with another image is proven again, before it serves."""
    yield from _rolled_back(w)
    yield from _lost(w)
    w.upgrade("example/searcher:v2")
    w.make_again()
    yield lambda: w.serving() == w.name_of("B")


@scenario(ends("A", "d2", builds=2), takes_over=True, seeds=2)
def taken_over_with_new_data(w: World) -> Script:
    """What served then serves at once; what the data is now is built beside it and goes the whole way."""
    yield from first_is_stable(w)
    yield _written(w, ("A", "d1", "Promoted"))
    yield from _lost(w)
    w.truth.put(Data("d2"))
    w.make_again()
    yield lambda: w.serving() == w.name_of("A")
    yield stable(w, "A", "d2")


@scenario(ends("B", builds=2), takes_over=True, two_operators=True, found_again=1, seeds=2)
def taken_over_in_the_middle(w: World) -> Script:
    """Lost while B soaks: nothing was decided about it, so it is proven (its report is there) and soaks again."""
    yield from edited(w)
    yield _written(w, ("A", "d1", "Promoted"))
    yield phase(w, "B", "Soaking")
    yield from _lost(w)
    w.make_again()
    yield stable(w, "B")


def _is_written(w: World) -> list[str]:
    return [] if _written(w, ("A", "d1", "Promoted"), ("B", "d1", "Promoted"))() else ["B's promotion is not written"]


@scenario(ends("B", builds=2, extra=_is_written), takes_over=True, seeds=2)
def outcomes_cannot_be_written(w: World) -> Script:
    """Nothing waits for it, and it is tried again."""
    yield from first_is_stable(w)
    yield _written(w, ("A", "d1", "Promoted"))
    w.truth.outcome_exits = (69, 69)  # all pods of one Job
    w.apply(index__factory="B")
    yield stable(w, "B")
