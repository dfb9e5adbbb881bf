"""Which point is the cheapest, also when the clock of a busy machine says the opposite."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from vectorindex_searcher.contract import OperatingPoint
from vectorindex_searcher.index.choose import tuning
from vectorindex_searcher.index.choose.effort import cheapest, undercuts


def point(latency: float, recall: float = 1.0, **params: int) -> OperatingPoint:
    return OperatingPoint(params=params, recall=recall, recall_low=recall, latency_us=latency)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"nprobe": 4}, {"nprobe": 8}, True),
        ({"nprobe": 8}, {"nprobe": 4}, False),
        ({"nprobe": 4}, {"nprobe": 4}, False),
        ({"nprobe": 4, "k_factor": 2}, {"nprobe": 4, "k_factor": 8}, True),
        ({"nprobe": 4, "k_factor": 8}, {"nprobe": 8, "k_factor": 2}, False),
        ({"nprobe": 4, "max_codes": 100}, {"nprobe": 4, "max_codes": 0}, True),
        ({"nprobe": 4, "max_codes": 0}, {"nprobe": 8, "max_codes": 100}, False),
        ({}, {}, False),
    ],
)
def test_less_effort_undercuts(one: dict[str, int], other: dict[str, int], expected: bool) -> None:
    assert undercuts(point(1, **one), point(1, **other)) is expected


def test_the_clock_decides_only_where_effort_does_not() -> None:
    wide, narrow = point(80.0, nprobe=8, k_factor=1), point(100.0, nprobe=4, k_factor=4)
    noise = point(50.0, nprobe=8, k_factor=4)
    assert cheapest([noise, narrow, wide]) is wide
    assert cheapest([noise, narrow]) is narrow
    assert cheapest([noise]) is noise
    assert cheapest([point(1.0), first := point(0.5), point(0.5)]) is first


def test_a_point_of_more_effort_and_no_more_recall_is_not_published() -> None:
    noise = point(5.0, 0.90, nprobe=8)
    kept = tuning._frontier([point(10.0, 0.90, nprobe=4), noise, point(20.0, 0.95, nprobe=16)])
    assert [one.params["nprobe"] for one in kept] == [4, 16]
    slow_and_worse = point(30.0, 0.80, nprobe=2, k_factor=64)
    kept = tuning._frontier([point(10.0, 0.90, nprobe=4, k_factor=1), slow_and_worse])
    assert [one.latency_us for one in kept] == [10.0]


class Waiting:
    """Stands for a searcher that is kept waiting by its neighbours for `waits` seconds, and itself works `works`."""

    def __init__(self, waits: float, works: float) -> None:
        self.waits, self.works = waits, works

    def search(self, *_: Any) -> None:
        time.sleep(self.waits)
        end = time.thread_time() + self.works
        while time.thread_time() < end:
            pass


def test_waiting_for_a_core_is_no_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "LATENCY_QUERIES", 3)
    queries = np.zeros((3, 2), np.float32)
    waited = tuning._latency(Waiting(0.02, 0.0), queries, {})  # type: ignore[arg-type]
    worked = tuning._latency(Waiting(0.0, 0.004), queries, {})  # type: ignore[arg-type]
    assert waited < 2_000
    assert worked >= 4_000
