"""What bench/shards.py simulates, and what it makes of what it measured."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import shards


def test_without_a_queue_a_query_takes_as_long_as_its_slowest_shard() -> None:
    latencies, second = shards.simulate(4, 1e-6, np.array([1.0, 3.0]), 400)
    assert (len(latencies), second) == (400, 0.0)
    assert set(latencies.round(6).tolist()) == {1.0, 3.0}
    assert (latencies > 2).mean() == pytest.approx(1 - 0.5**4, abs=0.06)


def test_asking_again_shortens_the_tail_of_stalls_within_its_budget() -> None:
    times = shards.stalling(np.random.default_rng(0).uniform(0.8, 1.2, 500))
    plain, none = shards.simulate(4, 0.1, times, 1500)
    hedged, second = shards.simulate(4, 0.1, times, 1500, 1.5)
    assert (none, len(plain), len(hedged)) == (0.0, 1500, 1500)
    assert 0 < second <= shards.BUDGET
    assert np.quantile(hedged, 0.98) < 0.5 * np.quantile(plain, 0.98)


def test_the_gap_is_that_of_the_worst_number_of_shards() -> None:
    def proven(count: int, recall: float) -> shards.Proven:
        return shards.Proven(count, recall, recall - 0.01, 1000, 0.9, 80.0, np.full(10, 1e-4))

    found = [proven(1, 0.97), proven(3, 0.98), proven(8, 0.965)]
    assert shards.gap(found) == pytest.approx(0.005)
    text = shards.page(1000, found, [shards.tail_row(2, 0.2, np.full(10, 1e-4), 50)], found[-1].times)
    assert "| 8 | 0.965 |" in text
    assert "worst case: 0.0050" in text
