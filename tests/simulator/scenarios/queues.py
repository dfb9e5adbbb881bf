"""Jobs in a queue of Kueue: they wait for long, and are stopped in the middle. Nothing fails by that, nor is lost."""

from __future__ import annotations

from simulator.jobs import Queue
from simulator.scenarios.scenario import Script, edited, ends, scenario, stable
from simulator.world import World

QUEUED = {"build__queueName": "ml"}
FEW = 3


@scenario(ends("B", builds=2), seeds=FEW, hours=3.0, found_again=1)
def builds_in_a_queue(w: World) -> Script:
    """Each Job waits longer than a build may take."""
    w.controllers.queue = Queue(waits=(1.0, 900.0), preempts=0.5)
    yield from edited(w, **QUEUED, build__timeout="5m")
    yield stable(w, "B")


@scenario(ends("A", builds=1), seeds=FEW, hours=3.0)
def shards_in_a_queue(w: World) -> Script:
    """What is built of them when they are stopped stays built."""
    w.controllers.queue = Queue(waits=(1.0, 300.0), preempts=1.0)
    w.apply(**QUEUED, index__shards=3, build__parallelism=2)
    yield stable(w, "A")


@scenario(ends("A", builds=1), seeds=FEW)
def taken_out_of_a_queue(w: World) -> Script:
    """Nobody looks after that queue; whoever takes the name out begins at once."""
    w.apply(**QUEUED)
    yield lambda: w.status().get("reason") == "Queue"
    yield w.rng.uniform(0.0, 300.0)
    w.take_away("build", "queueName")
    yield stable(w, "A")
