"""Operators of two classes: who looks after an index, and that the other one keeps its hands off."""

from __future__ import annotations

import pytest
from simulator.scenarios import SCENARIOS
from simulator.simulation import Simulation

from vectorindex_operator.reconcile.claims import ANNOTATION, class_of


@pytest.mark.parametrize(
    ("annotation", "claimed", "expected"),
    [
        (None, None, "default"),
        (None, "next", "next"),
        ("next", None, "next"),
        ("next", "default", "next"),
        ("default", "next", "default"),
        ("", "next", "next"),
    ],
)
def test_whose_an_index_is(annotation: str | None, claimed: str | None, expected: str) -> None:
    marks = {} if annotation is None else {ANNOTATION: annotation}
    status = {} if claimed is None else {"operator": claimed}
    assert class_of({"metadata": {"annotations": marks}, "status": status}) == expected


def test_one_at_a_time_writes_and_the_claim_says_who() -> None:
    simulation = Simulation(SCENARIOS["moved_to_another_operator"], 0)
    outcome = simulation.run()
    assert not outcome.problems, simulation.story()
    writers = [actor for _, actor, verb, *_ in simulation.trace if actor.startswith("op") and verb != "event"]
    first = writers.index("op2")
    assert set(writers[:first]) == {"op1"}
    assert set(writers[first:]) == {"op2"}
    claims = [new["status"].get("operator") for *_, kind, _, new in simulation.trace
              if kind == "VectorIndex" and new is not None and "status" in new]  # fmt: skip
    assert list(dict.fromkeys(claims)) == ["default", "next"]
    reads = simulation.operators[0].ports.reads
    passes = simulation.operators[0].passes
    simulation.operators[0].run()
    assert (simulation.operators[0].ports.reads, simulation.operators[0].passes) == (reads, passes + 1)


def test_an_index_of_a_class_that_nobody_has_is_left_as_it_is() -> None:
    simulation = Simulation(SCENARIOS["first"], 0)
    simulation.world.apply()
    simulation.world.annotate(ANNOTATION, "nobody")
    for operator in simulation.operators:
        operator.relist()
    simulation.world.clock.run_until(simulation.world.now + 600.0)
    assert simulation.writes == 0
    assert simulation.world.status() == {}
