"""Queries, where a node hears late of endpoints: what lost the traffic stays until nobody is sent to it any more."""

from __future__ import annotations

import pytest
from simulator.scenarios import SCENARIOS
from simulator.simulation import Simulation

LATE_SECONDS = 40.0
"""A little less than what the operator waits before it removes searchers (core/safety/keep_loaded.py)."""


@pytest.mark.parametrize("scenario", ["zero_results", "dead_stable"])
def test_no_query_fails_at_a_node_that_hears_late(scenario: str) -> None:
    simulation = Simulation(SCENARIOS[scenario], 0)
    simulation.world.clients.nodes[0].late = LATE_SECONDS
    outcome = simulation.run()
    assert not outcome.problems, simulation.story()
