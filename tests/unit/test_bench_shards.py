"""What bench/shards.py makes of what it measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import shards


def test_the_gap_is_that_of_the_worst_number_of_shards() -> None:
    def proven(count: int, recall: float) -> shards.Proven:
        return shards.Proven(count, recall, recall - 0.01, 1000, 0.9, 80.0)

    found = [proven(1, 0.97), proven(3, 0.98), proven(8, 0.965)]
    assert shards.gap(found) == pytest.approx(0.005)
    text = shards.page(1000, found)
    assert "| 8 | 0.965 |" in text
    assert "worst case: 0.0050" in text
