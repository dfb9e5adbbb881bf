"""Fresh rows: answered without a build, taken in by the next, too many, refused, and bad for users."""

from __future__ import annotations

from collections.abc import Callable

from simulator.scenarios.scenario import Script, ends, scenario, stable
from simulator.truth import Data, FreshFile
from simulator.world import World

FRESH = {"prefix": "fresh/"}


def _told(rows: int) -> Callable[[World], list[str]]:
    """How many rows the status says are answered, and that they are."""

    def check(w: World) -> list[str]:
        status = w.status().get("fresh", {})
        said = status.get("rows"), status.get("revision"), w.condition("FreshRows")
        return [] if said == (rows, w.serving(), "True") else [f"fresh rows: {status}, {said[2]}"]

    return check


def _at(w: World, rows: int) -> Callable[[], bool]:
    return lambda: not _told(rows)(w)


def _refused(w: World) -> Callable[[], bool]:
    """Whether the status says that a file is."""
    return lambda: any(c["reason"] == "FileRefused" for c in w.status().get("conditions", ()))


def _begun(w: World) -> Script:
    w.apply(source__poll="30s", source__fresh=FRESH, source__minInterval="10s")
    yield stable(w, "A")


@scenario(ends("A", "d2+f1+f2", builds=2, extra=_told(0)), seeds=3)
def fresh_rows_wait_for_a_build_that_is_due(w: World) -> Script:
    """However many files come: each would be a rollout."""
    yield from _begun(w)
    for number in (1, 2):
        w.truth.fresh[f"f{number}"] = FreshFile()
        yield _at(w, 10 * number)
        yield w.rng.uniform(0.0, 600.0)
    assert w.serving() == w.name_of("A")
    w.truth.put(Data("d2", rows=10_100))
    yield stable(w, "A", "d2+f1+f2")
    yield _at(w, 0)


@scenario(ends("A", "d1+f1+f2", builds=2, extra=_told(0)), seeds=3)
def fresh_rows_beyond_the_bounds(w: World) -> Script:
    """5 % of 10,000: the next revision is built at once, although the source is as it was."""
    yield from _begun(w)
    w.truth.fresh["f1"] = FreshFile(rows=400)
    yield _at(w, 400)
    w.truth.fresh["f2"] = FreshFile(rows=200)
    yield stable(w, "A", "d1+f1+f2")
    yield _at(w, 0)


@scenario(ends("A", "d2+f1", builds=2, extra=_told(0)), seeds=2)
def a_refused_fresh_file(w: World) -> Script:
    """It is told, holds up no build, and is no part of one."""
    yield from _begun(w)
    w.truth.fresh["f1"] = FreshFile()
    yield _at(w, 10)
    w.truth.fresh["f2"] = FreshFile(bad="DimensionMismatch")
    yield _refused(w)
    w.truth.put(Data("d2", rows=10_100))
    yield stable(w, "A", "d2+f1")
    yield _refused(w)
    del w.truth.fresh["f2"]
    yield _at(w, 0)


@scenario(ends("B", builds=2), needs_traffic=True, seeds=3)
def fresh_rows_that_harm(w: World) -> Script:
    """The revision is not to blame: it keeps the traffic, and answers without them until a person says otherwise."""
    yield from _begun(w)
    w.apply(index__factory="B")
    yield stable(w, "B")
    w.truth.fresh["f1"] = FreshFile(zero_results=0.5)
    yield lambda: not w.searchers.answers_fresh(w.name_of("B"))
    yield w.rng.uniform(60.0, 600.0)
    assert w.serving() == w.name_of("B")
    del w.truth.fresh["f1"]
    w.ask("retry", "n1")
    yield lambda: w.condition("FreshRows") == "True"
    yield lambda: w.searchers.answers_fresh(w.name_of("B"))
    yield w.rng.uniform(60.0, 300.0)
