"""An API server that refuses a tenth of all requests: how many passes, and how long, a rollout takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from simulator import faults
from simulator.clock import START
from simulator.scenarios import SCENARIOS
from simulator.simulation import Simulation

from vectorindex_operator.adapters.second_tries import SecondTries

REFUSED = 0.1
SEEDS = (1, 2, 3)
FOR_GOOD = 1e6


@dataclass(frozen=True, slots=True)
class Cost:
    passes: int
    seconds: float


def rollout(scenario: str, seed: int, *, refused: float = REFUSED, again: bool = True) -> Cost:
    """What the script of a scenario took. `again`: whether reads are made again, by the operator's own rule."""
    simulation = Simulation(SCENARIOS[scenario], seed, plain=True)
    wrong, world = simulation.faults, simulation.world
    wrong.single, wrong.lasts = None, (FOR_GOOD, FOR_GOOD)
    wrong.hung = wrong.slow = wrong.lost_events = wrong.silent = 0.0
    wrong.writes, wrong.reads = refused, 7 * refused  # see network.py
    for operator in simulation.operators:
        tries = SecondTries(clock=world.clock, sleep=lambda seconds: world.clock.run_until(world.now + seconds))
        if again:
            operator.ports._read = partial(_again, tries, operator.ports._read)  # type: ignore[method-assign]
    world.clock.after(0.0, simulation._resume)
    for operator in simulation.operators:
        operator.relist()
    simulation._run_script()
    assert not simulation.problems, simulation.story()
    return Cost(sum(operator.passes for operator in simulation.operators), world.now - START)


def _again(tries: SecondTries, read: Callable[..., Any], kind: str, look: Callable[[], Any]) -> Any:
    return tries.read(lambda _: read(kind, look), 20.0)


def test_reads_that_are_made_again_bring_a_rollout_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them most passes lose one of their reads, and the waits between passes double up to a minute."""
    monkeypatch.setattr(faults, "ON_WRITE", ("error",))
    undisturbed = rollout("second", 1, refused=0.0)
    once = [rollout("second", seed, again=False) for seed in SEEDS]
    twice = [rollout("second", seed) for seed in SEEDS]
    told = f"undisturbed {undisturbed}, once {once}, twice {twice}"
    assert sum(one.seconds for one in twice) < sum(one.seconds for one in once) * 0.6, told
    assert sum(one.seconds for one in twice) < len(SEEDS) * undisturbed.seconds * 1.5, told
