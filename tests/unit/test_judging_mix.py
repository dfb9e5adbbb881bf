"""MixChanged: rare where nothing changed, however many segments and few queries; there where the mix did change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vectorindex_operator.core.judging import judge as gr
from vectorindex_operator.core.judging.baseline import Baseline
from vectorindex_operator.core.judging.evidence import Counts, RevisionEvidence, add_up
from vectorindex_operator.core.judging.rules import Rule, RuleVerdict
from vectorindex_operator.core.judging.statistics import chi_square_beyond, same_mix

B0 = 340_000_000
T0 = B0 * 5.0
RULE = Rule("zero", "ZeroResultRate", max_rise_vs_stable=0.5, window_seconds=60, consecutive=1)
SOAKS = 400


@given(st.floats(0, 400), st.integers(1, 60))
def test_the_tail_is_scipys(value: float, freedom: int) -> None:
    assert chi_square_beyond(value, freedom) == pytest.approx(float(stats.chi2.sf(value, freedom)), rel=1e-6, abs=1e-15)


@given(st.lists(st.tuples(st.integers(20, 500), st.integers(20, 500)), min_size=2, max_size=30))
def test_the_test_is_scipys_where_no_class_is_rare(pairs: list[tuple[int, int]]) -> None:
    one, other = [a for a, _ in pairs], [b for _, b in pairs]
    expected = stats.contingency.chi2_contingency([one, other], correction=False).pvalue
    if min(sum(one), sum(other)) / (sum(one) + sum(other)) * min(a + b for a, b in pairs) >= 8:
        assert same_mix(one, other) == pytest.approx(float(expected), rel=1e-6, abs=1e-15)


def judged(now: np.ndarray, before: np.ndarray) -> RuleVerdict:
    """One window of queries by segment against a baseline; nothing finds nothing, in both."""

    def cells(counts: np.ndarray) -> dict[str, Counts]:
        return {f"s{n}": Counts(requests=int(c), queries=int(c)) for n, c in enumerate(counts) if c}

    frozen = cells(before)
    baseline = Baseline(T0 - 900, T0, {**frozen, "": add_up(frozen.values())})
    window = cells(now)
    segments = {name: {B0: cell} for name, cell in {**window, "": add_up(window.values())}.items()}
    merged = RevisionEvidence(segments, B0 + 12, 1, (), T0 + 60)
    options = {"alpha_budget": 0.01, "horizon_seconds": 21_600.0, "ready_pods": 1, "steady": False}
    (said,) = gr.judge((RULE,), merged, started_at=T0, now=T0 + 60, baseline=baseline, **options)  # type: ignore[arg-type]
    return said


@pytest.mark.parametrize("shape", ["even", "steep"])
@pytest.mark.parametrize("queries", [200, 1000])
def test_the_same_mix_is_not_called_another_one(queries: int, shape: str) -> None:
    """Before: 71 % of looks at 32 segments and 200 queries. Now fewer than the budget of a whole soak."""
    rng = np.random.default_rng(1)
    shares = np.ones(32) / 32 if shape == "even" else (weights := 1 / np.arange(1, 33)) / weights.sum()
    wrong = sum(
        judged(rng.multinomial(queries, shares), rng.multinomial(queries, shares)).reason == "MixChanged"
        for _ in range(SOAKS)
    )
    assert wrong <= 0.01 * SOAKS


@pytest.mark.parametrize(("moved", "queries"), [(0.3, 1000), (0.5, 200), (0.8, 60)])
def test_another_mix_is_seen(moved: float, queries: int) -> None:
    """A part of the traffic that was spread over all segments is now one of them."""
    rng = np.random.default_rng(2)
    before = np.ones(32) / 32
    after = before * (1 - moved)
    after[0] += moved
    seen = sum(
        judged(rng.multinomial(max(queries, 200), after), rng.multinomial(5000, before)).reason == "MixChanged"
        for _ in range(100)
    )
    assert seen >= 95


def test_a_small_change_that_is_certain_is_no_other_mix() -> None:
    """Ten points of a million queries: beyond doubt, and not enough to compare other questions."""
    before, after = np.array([500_000, 500_000]), np.array([600_000, 400_000])
    assert judged(after, before).reason != "MixChanged"
    assert judged(np.array([800_000, 200_000]), before).reason == "MixChanged"


def test_rare_classes_are_taken_together() -> None:
    assert same_mix([1000, 1, 0, 0], [1000, 0, 1, 1]) > 0.1
    assert same_mix([1000, *[1] * 100], [1000, *[0] * 100]) < 1e-9
    assert same_mix([5], [700]) == 1.0
    assert same_mix([0, 0], [5, 5]) == 1.0
