"""A fault that repeats itself is told a few times, and keeps nothing else from being told."""

from __future__ import annotations

from vectorindex_operator.adapters.event_budget import BURST, REMEMBERED, EventBudget


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_six_hours_of_a_flapping_fault_are_a_few_dozen_events_and_the_rollback_is_told() -> None:
    clock = Clock()
    budget = EventBudget(clock)
    told = 0
    for look in range(6 * 3600 // 5):
        clock.now = look * 5.0
        told += budget.allows("u1", "Stalled", f"BucketNotFound: try {look}")
    assert told <= BURST + 6 * 3600 / 300 + 1
    assert budget.allows("u1", "RolledBack", "errors")
    assert budget.allows("u2", "Stalled", "BucketNotFound")


def test_the_same_sentence_is_told_once_in_ten_minutes() -> None:
    clock = Clock()
    budget = EventBudget(clock)
    assert budget.allows("u1", "Stalled", "x")
    clock.now = 599.0
    assert not budget.allows("u1", "Stalled", "x")
    assert budget.allows("u1", "Stalled", "y")
    clock.now = 1300.0
    assert budget.allows("u1", "Stalled", "x")


def test_memory_is_bounded() -> None:
    budget = EventBudget(Clock())
    for number in range(REMEMBERED + 100):
        budget.allows(f"u{number}", "Stable", "x")
    assert len(budget._accounts) == REMEMBERED
