"""Columns that come and go, and who filters by them: what a revision lost is taken back, and nobody can feign it."""

from __future__ import annotations

from typing import Any

from simulator.scenarios.rollouts import ROLLED_BACK
from simulator.scenarios.scenario import Script, ends, first_is_stable, phase, scenario, set_quality, stable
from simulator.truth import Quality
from simulator.world import World

LOST = {"name": "lost", "metric": "FiltersLost", "max": "5%", "window": "10s", "warmUp": "5s", "minSamples": 20}
EMPTY = {**LOST, "name": "empty", "metric": "FilteredZeroResultRate", "max": "20%"}
Filters = tuple[tuple[str, float], ...]


def _from(w: World, before: list[str], after: list[str], filters: Filters, **rule: Any) -> Script:
    """A, which has the columns `before`, is stable; the user asks for B with those of `after`."""
    w.columns_of = {"A": tuple(before), "B": tuple(after)}
    w.truth.filters = filters
    yield from first_is_stable(w, source__columns={"metadata": before}, guardrails__rules=[{**LOST, **rule}])
    w.apply(index__factory="B", source__columns={"metadata": after})


@scenario(ROLLED_BACK)
def a_column_that_users_filter_by_is_gone(w: World) -> Script:
    yield from _from(w, ["lang", "price"], ["lang"], (("lang", 0.3), ("price", 0.1)))
    yield phase(w, "B", "RolledBack")


@scenario(ends("B", builds=2), seeds=2)
def a_column_that_nobody_filters_by_is_gone(w: World) -> Script:
    yield from _from(w, ["lang", "price"], ["lang"], (("lang", 0.3),))
    yield stable(w, "B")


@scenario(ends("B", builds=2), seeds=2)
def a_client_that_was_always_wrong(w: World) -> Script:
    """Most of what it asks names a column that never was: that is no fault of B."""
    yield from _from(w, ["lang"], ["lang"], (("lang", 0.1), ("colour", 0.6)))
    yield stable(w, "B")


@scenario(ends("B", builds=2), seeds=2)
def a_hostile_client_waits_for_the_switch(w: World) -> Script:
    """It sees the new revision in its answers, and wants it gone."""
    yield from _from(w, ["lang"], ["lang"], (("lang", 0.1),))
    yield phase(w, "B", "Soaking")
    w.truth.filters = (("lang", 0.1), ("colour", 0.8))
    yield stable(w, "B")


@scenario(ROLLED_BACK, seeds=2)
def values_that_users_filter_by_are_gone(w: World) -> Script:
    """The column is there, and nothing in it is what they ask for; of all queries that is too little to see."""
    set_quality(w, "B", Quality(filtered_zero=0.9))
    yield from _from(w, ["lang"], ["lang"], (("lang", 0.1),), **EMPTY)
    yield phase(w, "B", "RolledBack")
