"""What a webhook is told: all of it, whatever befalls the operator, and nothing at rest."""

from __future__ import annotations

from collections.abc import Callable

from simulator.scenarios.rollouts import ROLLED_BACK
from simulator.scenarios.scenario import Script, ends, first_is_stable, phase, scenario, set_quality, stable
from simulator.truth import Quality
from simulator.world import World

from vectorindex_operator.core.notices import NoticeKind


def _told(*wanted: tuple[str, NoticeKind]) -> Callable[[World], list[str]]:
    """Of revisions by their factory; told at least once each."""

    def check(w: World) -> list[str]:
        heard = {(one.revision, one.kind) for one in w.told}
        missing = [f"{kind} of {factory}" for factory, kind in wanted if (w.name_of(factory), kind) not in heard]
        return [f"nobody was told of {', '.join(missing)}"] if missing else []

    return check


BOTH = _told(("A", NoticeKind.STABLE), ("B", NoticeKind.STABLE), ("B", NoticeKind.SWITCHED))
BACK = _told(("A", NoticeKind.STABLE), ("A", NoticeKind.ROLLED_BACK), ("B", NoticeKind.FAILED))


@scenario(ends("B", builds=2, extra=BOTH), notifies=True, two_operators=True, seeds=2)
def promotions_are_told(w: World) -> Script:
    yield from first_is_stable(w)
    w.apply(index__factory="B")
    yield stable(w, "B")
    yield 200.0


def _and_told(world: World) -> list[str]:
    return ROLLED_BACK(world) + BACK(world)


@scenario(_and_told, notifies=True, seeds=2)
def a_rollback_is_told_once_the_webhook_is_back(w: World) -> Script:
    """It is away for a quarter of an hour, and the operator with it for a part of that."""
    set_quality(w, "B", Quality(zero_results=0.5))
    yield from first_is_stable(w)
    w.truth.no_webhook = True
    w.apply(index__factory="B")
    yield phase(w, "B", "RolledBack")
    yield w.rng.uniform(300.0, 900.0)
    w.truth.no_webhook = False
    yield 700.0
