"""Two operators at once: one stands still in the middle of a write, in each of its writes in turn, for longer than
another needs to take over and to act; then its write is carried out all the same (docs/adr/0031-two-operators-meet.md).

By default every ninth write; SIMULATOR_WRITES=N: every Nth.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from simulator.clock import START
from simulator.scenarios import SCENARIOS
from simulator.simulation import Simulation
from simulator.store import Json
from simulator.world import NAME

from vectorindex_operator.reconcile.errors import ConflictError
from vectorindex_operator.reconcile.routes import weights

EVERY = int(os.environ.get("SIMULATOR_WRITES", "9"))
STANDS_STILL = 60.0
FOR_GOOD = 1e6
MOST_WRITES = 400
TRIED = (
    "second",
    "canary_trips",
    "errors",
    "edit_during_build",
    "edit_during_soak",
    "gate_rejects",
    "gpu_falls_back",
    "kept_and_next_rollout",
    "more_memory",
    "operator_upgraded",
    "rollback_and_retry",
    "removed_and_made_again",
    "rollback_to_a_named_one",
    "shadow_passes",
    "unreadable_then_fix",
    "wanted_again_while_it_is_collected",
)
"""Together they do everything that an operator does."""


def with_a_late_write(scenario: str, number: int, seed: int = 1) -> Simulation:
    """Two operators without another fault; the write of that number stands still."""
    simulation = Simulation(replace(SCENARIOS[scenario], two_operators=True), seed, plain=True)
    faults = simulation.faults
    faults.single, faults.pauses, faults.lasts = (number, "pause"), (STANDS_STILL,), (FOR_GOOD, FOR_GOOD)
    faults.writes = faults.reads = faults.hung = faults.slow = faults.lost_events = faults.silent = 0.0
    return simulation


@pytest.mark.parametrize("scenario", TRIED)
def test_a_write_that_comes_late_breaks_nothing_and_changes_no_end(scenario: str) -> None:
    undisturbed, late = Simulation(SCENARIOS[scenario], 0).run().end, 0
    for number in range(1, MOST_WRITES, EVERY):
        simulation = with_a_late_write(scenario, number)
        outcome = simulation.run()
        if outcome.problems:
            pytest.fail(f"write {number} stands still\n{simulation.story()}", pytrace=False)
        if simulation.faults.count < number:
            break  # it had fewer writes
        late += 1
        assert outcome.end == undisturbed, simulation.story()
    assert late > 2, "hardly anything was late"


def test_what_was_taken_up_again_meanwhile_is_not_forgotten() -> None:
    """The one deletion that only a version guards: the user wants the oldest back as it falls out of the history."""
    simulation = with_a_late_write("wanted_again_while_it_is_forgotten", 0, seed=4)
    faults, late = simulation.faults, list[str]()
    for operator in simulation.operators:
        delete = operator.ports.delete

        def standing_still(kind: str, *which: str, delete: Any = delete) -> None:
            if kind == "VectorIndexRevision" and not late:
                late.append(which[1])
                faults.single = (faults.count + 1, "pause")
            delete(kind, *which)

        operator.ports.delete = standing_still  # type: ignore[method-assign]
    outcome = simulation.run()
    assert late == [simulation.world.name_of("A")]
    assert not outcome.problems, simulation.story()


def test_a_route_that_is_made_late_forgets_no_candidate() -> None:
    """It stands still until another operator has made it, has named the candidate, and has given it a share."""
    simulation = with_a_late_write("canary_passes", 0)
    faults, late = simulation.faults, list[dict[str, int]]()
    world, name = simulation.world, simulation.world.name_of("B")

    def shares() -> dict[str, int]:
        return weights(world.store.get("HTTPRoute", NAME) or {})

    for operator in simulation.operators:
        write = operator.ports._write

        def standing_still(kind: str, which: str, act: Callable[[], Any], write: Any = write) -> Any:
            if kind != "HTTPRoute" or faults.single is None:
                return write(kind, which, act)
            faults.single = None
            while not shares().get(name) and world.now < START + 3600:
                world.clock.step()
            late.append(shares())
            try:
                return write(kind, which, act)
            finally:
                late.append(shares())

        operator.ports._write = standing_still  # type: ignore[method-assign]
    outcome = simulation.run()
    before, after = late
    assert before == after
    assert before[name]
    assert not outcome.problems, simulation.story()
    assert outcome.end == Simulation(SCENARIOS["canary_passes"], 0).run().end


def test_a_switch_that_comes_late_undoes_no_rollback() -> None:
    """It stands still until another operator has made it, has seen the revision fail, and has gone back."""
    simulation = with_a_late_write("errors", 0)
    faults, refused = simulation.faults, list[str]()
    for operator in simulation.operators:
        merge = operator.ports.merge

        def standing_still(manifest: Json, merge: Any = merge) -> Json:
            if faults.single == (0, "pause"):
                faults.single = (faults.count + 1, "pause")
                try:
                    return merge(manifest)  # type: ignore[no-any-return]
                except ConflictError:
                    refused.append(simulation.world.serving())
                    raise
            return merge(manifest)  # type: ignore[no-any-return]

        operator.ports.merge = standing_still  # type: ignore[method-assign]
    outcome = simulation.run()
    assert refused == [simulation.world.name_of("A")], "the traffic was back by then"
    assert not outcome.problems, simulation.story()
    assert outcome.end == Simulation(SCENARIOS["errors"], 0).run().end
