"""The operator is killed at every write of a rollout and of a rollback, right before it and right after: each in turn.

CHAOS_WRITES=N: every Nth write only; `make test-chaos` takes every one, `make test` a few.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from chaos import report
from chaos.ground import Cluster, lane
from chaos.operators import KILLED, Spawner
from chaos.rollout import WAYS, Way, begun, gone
from chaos.rules import WRITES, Asked, Crash, Rule

pytestmark = [
    pytest.mark.skipif(bool(os.environ.get("CHAOS_SCENES")), reason="a part that is chosen is one of the cluster"),
    pytest.mark.timeout(3600),
]
EVERY = int(os.environ.get("CHAOS_WRITES", "23"))
VARYING = 4
"""Of the writes of a way: what several looks write, one may write as well. So the last few may not come."""
LANES = int(os.environ.get("CHAOS_LANES", "12"))


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """A way that nothing befell: what there was in the end, and what the operator had written."""

    there: dict[str, Any]
    writes: list[Asked]


def undisturbed(cluster: Cluster, spawner: Spawner, way: Way) -> Undisturbed:
    with lane(cluster, spawner) as one:
        there = gone(begun(one), way, [])
        return Undisturbed(there, [seen.asked for seen in one.proxy.seen[one.since :] if seen.asked.is_write])


def killed(cluster: Cluster, spawner: Spawner, way: Way, number: int, *, after: bool) -> tuple[dict[str, Any], int]:
    """What there is in the end, and how often the operator was killed."""
    with lane(cluster, spawner) as one:
        begun(one)
        there = gone(one, way, [Rule(Crash(after), WRITES, first=number, last=number)])
        return there, one.operator.ends.count(KILLED)


@pytest.mark.skipif(report.is_known("writes"), reason="known from before the run was cut off")
def test_killed_at_any_write_it_ends_as_if_nothing_had_been(cluster: Cluster, spawner: Spawner) -> None:
    with ThreadPoolExecutor(LANES) as pool:
        whole = list(pool.map(lambda way: undisturbed(cluster, spawner, way), WAYS))
        points = [
            (way, one, number, after)
            for way, one in zip(WAYS, whole, strict=True)
            for number in range(1, len(one.writes) + 1, EVERY)
            for after in (False, True)
        ]
        runs = [pool.submit(killed, cluster, spawner, way, number, after=after) for way, _, number, after in points]
        wrong, count, missed = [], 0, list[str]()
        for (way, one, number, after), run in zip(points, runs, strict=True):
            where = f"{way.name}, killed {'after' if after else 'before'} write {number} ({one.writes[number - 1]})"
            error = run.exception()
            there, times = (None, 0) if error is not None else run.result()
            count += times
            missed += [where] if not times and number <= len(one.writes) - VARYING else []
            print(
                f"{time.strftime('%H:%M:%S')}  {where}: {'killed' if times else 'not reached'} {error or ''}",
                flush=True,
            )
            if error is not None or there != one.there:
                wrong.append(f"{where}: {error or f'{there}, not {one.there}'}")
    print(f"killed {count} times in {len(points)} runs")
    counts = {way.name: len(one.writes) for way, one in zip(WAYS, whole, strict=True)}
    if os.environ.get("CHAOS") == "full":
        report.remember("writes", counts | {"every": EVERY, "killed": count, "runs": len(points), "wrong": wrong})
    assert not wrong, "\n".join(wrong)
    assert len(missed) <= len(points) * 0.1, f"most runs have the write at which the operator is to be killed: {missed}"
