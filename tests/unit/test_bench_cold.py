"""What the benchmark of cold rollbacks says of what it saw; the run itself needs a cluster and a quarter of an hour."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import cold
import cold_page

LOAD = {"manifest": 0.1, "fetch": 8.0, "open": 0.2, "canary": 3.0}


def pod(*so: str, runs: bool = False, **meta: str) -> dict[str, Any]:
    conditions = [{"type": kind, "status": "True" if kind in so else "False"} for kind in ("PodScheduled", "Ready")]
    containers = [{"state": {"running": {}} if runs else {"waiting": {}}}]
    return {"metadata": {"name": "a", **meta}, "status": {"conditions": conditions, "containerStatuses": containers}}


def way_back(gigabytes: float, total: float, **more: Any) -> cold_page.WayBack:
    times = cold.PodTimes(scheduled=100.5, running=102.0, ready=85.0 + total, name="a")
    steps = cold.steps_of(100.0, times, LOAD, 95.0 + total, 100.0 + total)
    facts = {"decided": 0.3, "last_bad": total, "expected": 15.0, "there": 2.0, "queries": 1000, "failed": 0}
    return cold_page.WayBack(gigabytes, steps=steps, total=total, **(facts | {"answered_again": 0} | more))


def test_the_steps_are_the_whole_one_after_the_other() -> None:
    one = way_back(1, 40.0)
    assert tuple(one.steps) == cold_page.STEPS
    assert sum(one.steps.values()) == pytest.approx(40.0)
    assert one.steps["fetch"] == pytest.approx(8.1)
    assert one.with_files == pytest.approx(40.0 - 8.1 + 2.0)


def test_a_switch_is_not_before_the_pod_was_ready() -> None:
    """The operator saw it first: pods are looked at five times a second only."""
    times = cold.PodTimes(scheduled=100.5, running=102.0, ready=120.0, name="a")
    steps = cold.steps_of(100.0, times, LOAD, 119.9, 120.1)
    assert steps["switch"] == 0.0
    assert sum(steps.values()) == pytest.approx(20.1)


def test_a_pod_is_noted_once_and_one_on_its_way_out_not_at_all() -> None:
    times = cold.PodTimes()
    cold.note(times, pod("PodScheduled", "Ready", runs=True, deletionTimestamp="now"), 1.0)
    assert times == cold.PodTimes()
    for now, seen in enumerate((pod(), pod("PodScheduled"), pod("PodScheduled", runs=True)), start=2):
        cold.note(times, seen, float(now))
    cold.note(times, pod("PodScheduled", "Ready", runs=True), 9.0)
    cold.note(times, pod("PodScheduled", "Ready", runs=True), 10.0)
    assert times == cold.PodTimes(scheduled=3.0, running=4.0, ready=9.0, name="a")


def test_the_page_has_a_row_a_size_and_the_figures_are_medians() -> None:
    found = [way_back(0.1, 20.0), way_back(0.1, 30.0), way_back(4, 90.0, failed=2, expected=None)]
    said = cold_page.page(found, "python bench/cold.py", 20.0)
    assert "| 0.1 | 0.5 | 1.5 | 8.1 |" in said
    assert "| **25.0** | 15 | 18.9 | 25.0 | 0 of 2,000 |" in said
    assert "| **90.0** | - |" in said
    assert "| 2 of 1,000 |" in said
    assert cold_page.figures(found) == {"cold.0.1gb_s": 25.0, "cold.4gb_s": 90.0, "cold.failed": 2.0}


def test_what_was_expected_is_read_from_the_condition() -> None:
    assert cold_page.expected_of("to a: it would be loaded first, which takes about 34 s (by its size)") == 34.0
    assert cold_page.expected_of("to a: it would be loaded first") is None


@pytest.mark.parametrize(("gigabytes", "lists"), [(0.02, 64), (0.1, 128), (1, 512), (4, 1024)])
def test_lists_grow_with_the_rows(gigabytes: float, lists: int) -> None:
    assert cold.factory(gigabytes) == f"IVF{lists},Flat"
