"""The operator is killed at every write of a rollout and of a rollback, right before it and right after: each in turn.

CHAOS_WRITES=N: every Nth write only.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from chaos.ground import Cluster, lane
from chaos.operators import Spawner
from chaos.rollout import WAYS, Way, begun, gone
from chaos.rules import WRITES, Crash, Rule

EVERY = int(os.environ.get("CHAOS_WRITES", "1"))
LANES = 24
SIGKILL = -9


def crashed(cluster: Cluster, spawner: Spawner, way: Way, number: int, *, after: bool) -> tuple[dict[str, Any], int]:
    """What there is in the end, and how often the operator was killed."""
    with lane(cluster, spawner) as one:
        begun(one)
        there = gone(one, way, [Rule(Crash(after), WRITES, first=number, last=number)])
        return there, one.operator.ends.count(SIGKILL)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_killed_at_any_write_it_ends_as_if_nothing_had_been(cluster: Cluster, spawner: Spawner, way: Way) -> None:
    with lane(cluster, spawner) as one:
        undisturbed = gone(begun(one), way, [])
        writes = [seen.asked for seen in one.proxy.seen[one.since :] if seen.asked.is_write]
    points = [(number, after) for number in range(1, len(writes) + 1, EVERY) for after in (False, True)]
    with ThreadPoolExecutor(LANES) as pool:
        runs = {point: pool.submit(crashed, cluster, spawner, way, point[0], after=point[1]) for point in points}
    wrong, killed = [], 0
    for (number, after), run in runs.items():
        where = f"{'after' if after else 'before'} write {number} of {len(writes)} ({writes[number - 1]})"
        if (error := run.exception()) is not None:
            wrong.append(f"killed {where}: {error}")
            continue
        there, count = run.result()
        killed += count
        if there != undisturbed:
            wrong.append(f"killed {where}: {there}, not {undisturbed}")
    print(f"{way.name}: {len(writes)} writes, killed {killed} times in {len(points)} runs")
    assert not wrong, "\n".join(wrong)
    assert killed >= len(points) * 0.9, "most runs have the write at which the operator is to be killed"
