"""Live recall is too low and nothing can be gone back to: the same pods answer at their conservative point."""

from __future__ import annotations

from collections.abc import Callable

from simulator.scenarios.scenario import Script, ends, scenario, set_quality, stable
from simulator.truth import Quality
from simulator.world import World

from vectorindex_searcher.contract import ServingPoint

LIVE = {
    "name": "live", "metric": "LiveRecall", "min": "95%", "window": "30s", "warmUp": "5s", "minSamples": 50,
    "consecutive": 1,
}  # fmt: skip
LOW = Quality(live=(0.80, 0.99))
WELL = Quality(live=(0.99, 0.995))


def _answers(point: ServingPoint) -> Callable[[World], list[str]]:
    """All pods that users reach answer there, and the status says so."""

    def check(w: World) -> list[str]:
        found, degraded = w.searchers.answering(w.serving()), w.condition("Degraded")
        wrong = [f"pods answer at {', '.join(sorted(found))}"] if found != {point} else []
        said = "True" if point is ServingPoint.CONSERVATIVE else ""
        return wrong + ([f"Degraded is {degraded!r}"] if degraded != said else [])

    return check


def _at(w: World, point: ServingPoint) -> Callable[[], bool]:
    return lambda: not _answers(point)(w)


CONSERVATIVE = _answers(ServingPoint.CONSERVATIVE)
DEFAULT = _answers(ServingPoint.DEFAULT)


def _low(w: World) -> Script:
    """The first revision, whose recall with what users ask is too low."""
    set_quality(w, "A", LOW)
    w.apply(guardrails__rules=[LIVE])
    yield stable(w, "A")
    yield _at(w, ServingPoint.CONSERVATIVE)


@scenario(ends("A", extra=CONSERVATIVE), needs_traffic=True, seeds=1)
def recall_too_low_and_no_prior(w: World) -> Script:
    """It does not end by itself, although recall is well from then on."""
    yield from _low(w)
    yield w.rng.uniform(60.0, 600.0)


@scenario(ends("A", extra=CONSERVATIVE), needs_traffic=True, seeds=1)
def recall_too_low_and_new_pods(w: World) -> Script:
    """Pods that come later, and processes that begin anew, answer as the others do."""
    yield from _low(w)
    w.scale(4)
    yield lambda: len(w.controllers.ready_pods(w.name_of("A"))) == 4
    yield w.rng.uniform(0.0, 60.0)
    w.delete("Pod", w.controllers.ready_pods(w.name_of("A"))[0]["metadata"]["name"])
    yield w.rng.uniform(30.0, 120.0)


@scenario(ends("A", extra=DEFAULT), needs_traffic=True, two_operators=True, seeds=2)
def conservative_until_retry(w: World) -> Script:
    """What was decided last holds, whichever operator tells it, and however late."""
    yield from _low(w)
    set_quality(w, "A", WELL)
    yield w.rng.uniform(0.0, 60.0)
    w.ask("retry", "n1")
    yield _at(w, ServingPoint.DEFAULT)
    yield w.rng.uniform(60.0, 300.0)


@scenario(ends("A", extra=CONSERVATIVE), needs_traffic=True, seeds=1)
def conservative_again_after_a_retry(w: World) -> Script:
    """The cause is still there: it is judged again, and decided again."""
    yield from _low(w)
    yield w.rng.uniform(0.0, 60.0)
    w.ask("retry", "n1")
    yield _at(w, ServingPoint.DEFAULT)
    yield _at(w, ServingPoint.CONSERVATIVE)


@scenario(ends("B", builds=2, extra=DEFAULT), needs_traffic=True, seeds=1)
def conservative_until_the_next_stable(w: World) -> Script:
    yield from _low(w)
    set_quality(w, "B", WELL)
    w.apply(index__factory="B")
    yield stable(w, "B")


@scenario(ends("B", builds=2, extra=CONSERVATIVE), needs_traffic=True, seeds=1)
def recall_too_low_and_the_artifact_gone(w: World) -> Script:
    """There is a prior, and what it would be loaded from is not there."""
    set_quality(w, "A", WELL)
    set_quality(w, "B", WELL)
    w.apply(guardrails__rules=[LIVE], source__poll="1m")
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield stable(w, "B")
    yield lambda: w.name_of("A") not in w.loaded()
    w.truth.lost.update(w.truth.published.keys() - {w.made_of[w.name_of("B")][0]})
    yield lambda: w.condition("RollbackPossible") == "False"
    set_quality(w, "B", LOW)
    yield _at(w, ServingPoint.CONSERVATIVE)
