"""How long a revision that turns bad after its promotion goes on answering once its guardrail has tripped, with the
prior kept loaded (`rollout.keepPrior`) and without: the table of docs/operations.md.

    python bench/way_back.py [--rollbacks 10]

Runs the real operator in the simulator of tests/simulator, without faults: six clients with connections that nodes hand
out, two searchers a revision. The revision turns bad two minutes after its promotion. Without `keepPrior` the prior is
loaded again first. That takes the time until searchers are ready, which is what is varied: pods find a node within a
second, and no image is pulled. Prints seconds from the trip to the last answer of the bad revision, the median and in
brackets the longest, and how much of all traffic it answered meanwhile, in seconds of it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests")]

from simulator.clock import START  # noqa: E402
from simulator.scenarios.scenario import Scenario, Script, phase, set_quality, stable  # noqa: E402
from simulator.simulation import Simulation  # noqa: E402
from simulator.truth import Quality  # noqa: E402
from simulator.world import World  # noqa: E402

from vectorindex_operator.api.timestamps import to_unix  # noqa: E402

LOADING = (5.0, 30.0, 120.0, 600.0)
"""Seconds in which a searcher is ready."""
KEPT = {"rollout__keepPrior": "1h"}


@dataclass(frozen=True, slots=True)
class Rollback:
    """Seconds from the trip to the last bad answer, and seconds of all traffic that had bad answers meanwhile."""

    last: float
    bad: float


def turns_bad(seconds: float, changes: dict[str, Any]) -> Scenario:
    """B is promoted and turns bad; searchers are ready after so many seconds, give or take a tenth."""

    def script(w: World) -> Script:
        w.truth.loading = (0.9 * seconds, 1.1 * seconds)
        w.apply(rollout__progressDeadline="1h", **changes)
        yield stable(w, "A")
        w.apply(index__factory="B")
        yield stable(w, "B")
        yield w.rng.uniform(120.0, 150.0)
        set_quality(w, "B", Quality(zero_results=0.5))
        yield phase(w, "B", "RolledBack")
        yield 60.0

    return Scenario(f"way_back_{seconds:.0f}", script, lambda world: [], hours=3.0)


def measured(scenario: Scenario, seed: int) -> Rollback:
    """One rollback. Another seed is another phase of looks, clients and loads, with nothing that goes wrong."""
    simulation = Simulation(scenario, seed, plain=True)
    simulation.faults.active = False
    outcome = simulation.run()
    if outcome.problems:
        raise SystemExit(simulation.story())
    world = simulation.world
    bad = world.name_of("B")
    tripped = to_unix(world.trip_of(bad)["at"])
    ends = [at for one in world.clients.connections for at, before in _ends(one.spans) if before == bad]
    last = max(at for at in ends if at > START)
    return Rollback(max(0.0, last - tripped), world.clients.share(bad, tripped, last))


def _ends(spans: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """When each owner of a connection lost it."""
    return [(at, before) for (_, before), (at, _) in pairwise(spans)]


def row(seconds: float, rollbacks: int) -> str:
    cells = [f"{seconds:.0f} s"]
    for changes in ({}, KEPT):
        found = [measured(turns_bad(seconds, changes), seed) for seed in range(1, rollbacks + 1)]
        last, bad = [one.last for one in found], [one.bad for one in found]
        cells += [f"{statistics.median(last):.1f} s ({max(last):.1f} s)", f"{statistics.median(bad):.1f} s"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollbacks", type=int, default=10, help="of each kind")
    options = parser.parse_args()
    print("| searchers are ready after | keepPrior 0s: trip to last bad answer | bad traffic | kept | bad traffic |")
    print("|---|---|---|---|---|")
    for seconds in LOADING:
        print(row(seconds, options.rollbacks), flush=True)


if __name__ == "__main__":
    main()
