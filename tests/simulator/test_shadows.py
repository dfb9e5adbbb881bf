"""Operators that die in a rollout with a shadow, at each of their writes in turn: before it, or right after it.

By default every eleventh write; SIMULATOR_WRITES=N: every Nth.
"""

from __future__ import annotations

import os

import pytest
from simulator.scenarios import SCENARIOS
from simulator.simulation import Simulation

EVERY = int(os.environ.get("SIMULATOR_WRITES", "11"))
FOR_GOOD = 1e6
MOST_WRITES = 400


@pytest.mark.parametrize("scenario", ["shadow_rejects"])
def test_an_operator_that_dies_at_a_write_changes_no_end(scenario: str) -> None:
    undisturbed, died = Simulation(SCENARIOS[scenario], 0).run().end, 0
    for number in range(2, MOST_WRITES, EVERY):
        simulation = Simulation(SCENARIOS[scenario], 1, plain=True)
        faults = simulation.faults
        faults.single, faults.lasts = (number, ("crash before", "crash after")[number % 2]), (FOR_GOOD, FOR_GOOD)
        faults.writes = faults.reads = faults.hung = faults.slow = faults.lost_events = faults.silent = 0.0
        outcome = simulation.run()
        if outcome.problems:
            pytest.fail(f"it died at write {number}\n{simulation.story()}", pytrace=False)
        if simulation.faults.count < number:
            break  # it had fewer writes
        assert outcome.end == undisturbed, number
        died += 1
    assert died > 2
