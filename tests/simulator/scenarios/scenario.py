"""What users do and what befalls their data, each with the end that must come of it.

A script is a generator: it acts, and yields what it waits for (a predicate) or how long (seconds). Faults never change
an end, so no end depends on how fast the operator is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from simulator.truth import Quality
from simulator.world import World

SearchPlan = Callable[[], bool] | float
Script = Iterator[SearchPlan]


@dataclass(frozen=True, slots=True)
class Scenario:
    """`end` says what is wrong with the end. `polls`: Jobs may be started at rest, because somebody is waited for.
    `fights`: somebody undoes writes to the last, so that some are made at rest."""

    name: str
    script: Callable[[World], Script]
    end: Callable[[World], list[str]]
    hours: float = 1.5
    polls: bool = False
    fights: bool = False
    needs_traffic: bool = False
    two_operators: bool = False
    collects: bool = False
    """Whether operators remove the artifacts of what falls out of the history."""
    takes_over: bool = False
    """Whether operators keep what was decided beside the artifacts, and a new index begins with it."""
    notifies: bool = False
    """Whether a webhook is told what is decided."""
    classes: tuple[str, ...] = ()
    """Operators of these classes, also in the run without faults."""
    unanswered: bool = False
    """Whether queries fail also in the run without faults: its pods die with them."""
    seeds: int = 5
    """With so many it runs by default, besides the run without faults."""
    found_again: int = 0
    """Builds that find their artifact published, in the run without faults."""


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    end: Callable[[World], list[str]],
    **about: Any,
) -> Callable[[Callable[[World], Script]], Callable[[World], Script]]:
    """Adds a script to SCENARIOS; `about`: fields of Scenario."""

    def add(script: Callable[[World], Script]) -> Callable[[World], Script]:
        SCENARIOS[script.__name__] = Scenario(script.__name__, script, end, **about)
        return script

    return add


def ends(
    factory: str,
    data: str = "d1",
    *,
    phase: str = "Stable",
    reason: str = "",
    rolled_out: bool = True,
    stalled: bool = False,
    waits: bool = False,
    build: int = 0,
    builds: int = 0,
    failed: str = "",
    extra: Callable[[World], list[str]] = lambda world: [],
) -> Callable[[World], list[str]]:
    """The end where the revision of `factory` and `data` is stable and alone, and the status says `phase`.

    `waits`: nothing goes on until a person says so, who said that it should wait. `build`: of `factory` and `data`, how
    often they were built before; `builds`: artifacts there are."""

    def check(world: World) -> list[str]:
        name = world.name_of(factory, data, build)
        status = world.status()
        facts = {
            "stable": (status.get("stable"), name),
            "traffic": (world.serving(), name),
            "phase": (status.get("phase"), phase),
            "reason": (status.get("reason"), reason or status.get("reason")),
            "candidate": (status.get("candidate"), ""),
            "next": (status.get("next"), ""),
            "Ready": (world.condition("Ready"), "True"),
            "RolledOut": (world.condition("RolledOut"), "True" if rolled_out else "False"),
            "Stalled": (world.condition("Stalled"), "True" if stalled else ""),
            "Reconciling": (world.condition("Reconciling"), "" if rolled_out or stalled or waits else "True"),
            "loaded": (world.loaded(), {name}),
            "ready pods": (len(world.controllers.ready_pods(name)), world.replicas()),
            "published": (len(world.truth.published), builds or len(world.truth.published)),
        }
        if failed:
            facts[f"phase of {failed}"] = (world.phase_of(world.name_of(failed, data)), phase)
        wrong = [f"{what} is {got!r}, not {wanted!r}" for what, (got, wanted) in facts.items() if got != wanted]
        return wrong + extra(world)

    return check


def stable(world: World, factory: str, data: str = "d1") -> Callable[[], bool]:
    name = world.name_of(factory, data)
    return lambda: world.status().get("stable") == name and world.status().get("phase") == "Stable"


def first_is_stable(world: World, **changes: Any) -> Script:
    """How most stories begin: the first revision is stable. `changes`: of the manifest."""
    world.apply(**changes)
    yield stable(world, "A")


def edited(world: World, **changes: Any) -> Script:
    """And how most of them go on: the user asks for B."""
    yield from first_is_stable(world, **changes)
    world.apply(index__factory="B")


WAY = ("Pending", "Building", "Validating", "Validated", "Surging", "Shadowing", "Shifting", "Soaking", "Stable")


def phase(world: World, factory: str, wanted: str, data: str = "d1") -> Callable[[], bool]:
    """A revision's phase is `wanted`, or later on the way: a stored phase may be passed over when writes fail."""
    name = world.name_of(factory, data)
    enough = WAY[WAY.index(wanted) :] if wanted in WAY else (wanted,)
    return lambda: world.phase_of(name) in enough


def set_quality(world: World, factory: str, quality: Quality) -> None:
    world.truth.qualities[factory] = quality
