"""The prior that stays loaded after a promotion (rollout.keepPrior): a rollback with it, and what it gives way to."""

from __future__ import annotations

from collections.abc import Callable

from simulator.scenarios.rollouts import ROLLED_BACK
from simulator.scenarios.scenario import Script, ends, phase, scenario, set_quality, stable
from simulator.scenarios.verbs import held_by_a_word
from simulator.truth import Quality
from simulator.world import World


def promoted(w: World, keep_prior: str = "15m") -> Script:
    """B is stable, and A is kept loaded."""
    w.apply(rollout__keepPrior=keep_prior)
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield stable(w, "B")


def _uid(w: World, factory: str) -> str:
    """Of the searchers of a revision: others have another one."""
    live = w.store.get("Deployment", w.name_of(factory))
    return str(live["metadata"]["uid"]) if live is not None else ""


def _has(w: World, factory: str, count: int) -> Callable[[], bool]:
    return lambda: len(w.controllers.ready_pods(w.name_of(factory))) == count


@scenario(ROLLED_BACK, seeds=2)
def kept_and_steady_state(w: World) -> Script:
    """B turns bad after its promotion: the way back is one write to pods that have been there all the time."""
    yield from promoted(w)
    before = _uid(w, "A")
    assert before, "A is kept"
    yield w.rng.uniform(0.0, 120.0)
    set_quality(w, "B", Quality(zero_results=0.5))
    yield lambda: w.serving() == w.name_of("A")
    assert _uid(w, "A") == before, "A was loaded again"
    yield phase(w, "B", "RolledBack")


@scenario(ROLLED_BACK, seeds=1)
def kept_and_rollback_by_hand(w: World) -> Script:
    yield from promoted(w)
    before = _uid(w, "A")
    yield w.rng.uniform(60.0, 120.0)
    w.ask("rollback", "n1")
    yield lambda: w.serving() == w.name_of("A")
    assert _uid(w, "A") == before, "A was loaded again"
    yield phase(w, "B", "RolledBack")


@scenario(ROLLED_BACK, unanswered=True, seeds=1)
def kept_and_stable_dies(w: World) -> Script:
    """No pod of B comes back: A takes the traffic as in a soak, whatever the rules say."""
    yield from promoted(w)
    set_quality(w, "B", Quality(crashes=True))
    w.controllers.crash(w.name_of("B"))
    yield lambda: w.serving() == w.name_of("A")
    yield phase(w, "B", "RolledBack")


@scenario(ends("B", builds=2), seeds=1)
def kept_for_its_time(w: World) -> Script:
    """It has as many pods as stable while it lasts, whoever scales that, and then it goes by itself."""
    yield from promoted(w)
    yield w.rng.uniform(0.0, 60.0)
    w.scale(4)
    yield _has(w, "A", 4)
    w.scale(3)
    yield _has(w, "A", 3)


@scenario(ends("C", builds=3), seeds=1)
def kept_and_next_rollout(w: World) -> Script:
    """A goes before C comes; then B is kept, until the user wants none."""
    yield from promoted(w)
    yield w.rng.uniform(0.0, 60.0)
    w.apply(index__factory="C")
    yield stable(w, "C")
    assert _uid(w, "B"), "B is kept"
    yield w.rng.uniform(0.0, 60.0)
    w.apply(rollout__keepPrior="0s")


@scenario(ends("A", builds=2), seeds=1)
def kept_and_wanted_again(w: World) -> Script:
    """The user goes back by an edit: A's pods are there."""
    yield from promoted(w)
    before = _uid(w, "A")
    yield w.rng.uniform(60.0, 120.0)
    w.apply(index__factory="A")
    yield stable(w, "A")
    assert _uid(w, "A") == before, "A was loaded again"


@scenario(ends("A", phase="RolledBack", rolled_out=False, stalled=True, failed="C", builds=3), seeds=1)
def kept_and_rollback_to_a_third(w: World) -> Script:
    """B is kept, and a person names A: it gets B's place."""
    yield from promoted(w)
    w.apply(index__factory="C")
    yield stable(w, "C")
    yield w.rng.uniform(0.0, 60.0)
    w.ask("rollback", "n1", argument=w.name_of("A"))
    yield phase(w, "C", "RolledBack")


@scenario(ends("B", builds=2), seeds=1)
def kept_and_no_room(w: World) -> Script:
    """There is no node for more pods of B: A's make room, long before their time."""
    yield from promoted(w, "20h")
    w.truth.room = False
    w.scale(3)
    yield lambda: not _uid(w, "A")
    w.truth.room = True
    yield _has(w, "B", 3)


# ---------------------------------------------------------------- with a person's word


@scenario(ROLLED_BACK, seeds=1)
def kept_and_steady_state_while_suspended(w: World) -> Script:
    """Whoever suspends the index does not give up the way back."""
    yield from promoted(w)
    before = _uid(w, "A")
    w.apply(suspend=True)
    yield w.rng.uniform(0.0, 120.0)
    set_quality(w, "B", Quality(zero_results=0.5))
    yield lambda: w.serving() == w.name_of("A")
    assert _uid(w, "A") == before, "A was loaded again"
    yield phase(w, "B", "RolledBack")


@scenario(ends("C", builds=3), seeds=1)
def kept_while_suspended(w: World) -> Script:
    """C waits, and does not take A's place before it may begin."""
    yield from promoted(w)
    w.apply(suspend=True)
    w.apply(index__factory="C")
    yield w.rng.uniform(60.0, 120.0)
    assert _uid(w, "A"), "A makes room for what does not begin"
    w.apply(suspend=False)
    yield stable(w, "C")


@scenario(ends("C", builds=3), seeds=1)
def kept_while_the_next_is_paused(w: World) -> Script:
    """C is proven and held: A stays for as long as that."""
    yield from promoted(w)
    yield from held_by_a_word(w, "C")
    yield w.rng.uniform(100.0, 200.0)
    assert _uid(w, "A"), "A makes room for what is not loaded"
    w.ask("resume", "n1")
    yield stable(w, "C")


@scenario(ends("A", builds=2), seeds=1)
def kept_and_pinned(w: World) -> Script:
    """Back through Git: A's pods are there. Then B is kept for its time."""
    yield from promoted(w)
    before = _uid(w, "A")
    yield w.rng.uniform(60.0, 120.0)
    w.apply(pinRevision=w.name_of("A"))
    yield stable(w, "A")
    assert _uid(w, "A") == before, "A was loaded again"


@scenario(ends("B", build=1, builds=3), seeds=1)
def kept_and_rebuilt(w: World) -> Script:
    yield from promoted(w)
    yield w.rng.uniform(0.0, 60.0)
    w.ask("rebuild", "n1")
    yield lambda: w.status().get("stable") == w.name_of("B", build=1)
    assert _uid(w, "B"), "what was built first is kept"
