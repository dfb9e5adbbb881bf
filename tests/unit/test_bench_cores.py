"""What bench/cores.py computes for more cores than the machine has, and what it calls the memory of a pod."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from mapping import reader_of

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import cores

COSTLY = cores.Costs(query=100e-6, telling=1e-3, handing=20e-6, looking=1e-6)
MEASURED = cores.Costs(query=(139 - 0.277) * 1e-6, telling=0.277e-6 * 12653 / 2)
"""Of bench/results/cores.md: the data whose queries cost less, so that the front process is met sooner."""


def test_a_front_that_costs_nothing_is_never_the_limit() -> None:
    speed, share = cores.most(cores.Costs(100e-6, 0.0, handing=1e-12, looking=0.0), 16, 1)
    assert speed == pytest.approx(160_000)
    assert share < 1e-6


@pytest.mark.parametrize("count", [1, 4, 16, 32])
@pytest.mark.parametrize("queries", [1, 10, 100, 1e6])
def test_no_core_is_used_twice_and_the_front_has_one(count: int, queries: float) -> None:
    speed, share = cores.most(COSTLY, count, queries)
    connections = speed / queries
    spent = speed * 100e-6 + connections * (20e-6 + count * 1e-6) + count * 1e-3
    assert spent <= count * (1 + 1e-9)
    assert 0 < share <= 1 + 1e-9
    assert share == pytest.approx(1) or spent == pytest.approx(count), "one of both is used up"


def test_short_connections_meet_the_front_and_long_ones_the_cores() -> None:
    speeds = [cores.most(COSTLY, 32, queries)[0] for queries in (1, 10, 100)]
    assert speeds[0] == pytest.approx((1 - 0.032) / 52e-6)
    assert speeds == sorted(speeds)
    assert speeds[2] > 0.95 * 32 / 100e-6
    assert cores.most(COSTLY, 4, 1)[1] < 1, "four cores are not enough to use the front up"


def test_the_page_tells_where_more_cores_stop_to_help() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()
    assert cores.front_table(MEASURED) in text


def test_memory_of_a_pod_is_the_same_whoever_else_has_its_files_mapped(tmp_path: Path) -> None:
    file = tmp_path / "index"
    file.write_bytes(bytes(64 << 20))
    pids, found = [], []
    with ExitStack() as stack:
        for _ in range(3):
            pids.append(stack.enter_context(reader_of(file)))
            found.append(cores.memory_of(pids[:1]))
        assert found == pytest.approx([found[0]] * 3, abs=4)
        assert found[0] > 64
        assert cores.memory_of(pids) < found[0] + 3 * (found[0] - 64), "the file once"
