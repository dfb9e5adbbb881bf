"""A rollout and a rollback of one lane: how each goes, and what must be so at its end whatever befell it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chaos.ground import BAD, FIRST, GOOD, Lane
from chaos.rules import Rule


@dataclass(frozen=True, slots=True)
class Way:
    """An edit of the factory, and what must come of it."""

    name: str
    factory: str
    phases: dict[str, str]
    """Of the revisions, at the end."""
    traffic: tuple[str, ...]
    """Where the front Service points, one after the other; the way it was before is left out."""

    @property
    def stays(self) -> str:
        """The factory that serves at the end."""
        return self.traffic[-1]


ROLLOUT = Way("rollout", GOOD, {FIRST: "Retired", GOOD: "Stable"}, (GOOD,))
ROLLBACK = Way("rollback", BAD, {FIRST: "Stable", BAD: "RolledBack"}, (BAD, FIRST))
WAYS = (ROLLOUT, ROLLBACK)


def begun(lane: Lane) -> Lane:
    """The first revision has the traffic, and nothing is left to do."""
    lane.apply(FIRST)
    lane.wait(lambda: lane.phase() == "Stable" and lane.there()["Deployment"] == [FIRST], "the first revision")
    return lane


def gone(lane: Lane, way: Way, rules: Sequence[Rule]) -> dict[str, Any]:
    """The way under these rules, to its end; what there is then. Asserts what must be so."""
    lane.proxy.rules.set(rules)
    lane.apply(way.factory)
    if way is ROLLBACK:
        lane.spoil(way.factory)

    def ended() -> bool:
        if lane.phases() != way.phases:
            return False
        there = lane.there()
        return there["Deployment"] == [way.stays] and there["VectorIndexRevision"] == way.phases

    lane.wait(ended, f"the end of a {way.name}")
    there = lane.there()  # anew: the lists of one look are of different moments
    lane.proxy.rules.set()
    pointed = lane.way()
    assert pointed == list(way.traffic), f"the traffic went {pointed}"
    assert not lane.unproven(), f"{lane.unproven()} got the traffic unproven"
    assert not lane.repeated(), f"done more than once: {lane.repeated()}"
    assert not lane.proxy.forbidden(), f"the chart's rights do not suffice: {lane.proxy.forbidden()}"
    assert not lane.orphans(), f"left behind after deletion: {lane.orphans()}"
    return dict(there)
