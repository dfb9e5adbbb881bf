"""Tail probabilities and limits against scipy, and exact sizes of the tests by enumeration."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from vectorindex_operator.core.judging import statistics as own
from vectorindex_operator.core.judging.comparison import Bound, Levels, Quantile
from vectorindex_operator.core.judging.evidence import Counts

LEVELS = (0.05, 1e-3, 1e-5, 1e-9)


@given(st.integers(1, 3000), st.floats(0.01, 0.99), st.floats(0, 1))
def test_the_bounded_tail_is_never_below_the_coins(trials: int, bound: float, share: float) -> None:
    """Coins are the worst values in [0, 1], and their tail is known."""
    hits = round(trials * share)
    tail = stats.binom.sf(hits - 1, trials, bound) if hits / trials > bound else stats.binom.cdf(hits, trials, bound)
    assert own.bounded_beyond(hits / trials, trials, bound) >= float(tail) * (1 - 1e-9) - 1e-12


@pytest.mark.parametrize("alpha", [0.01, 1e-5])
@pytest.mark.parametrize(("mean", "trials"), [(0.0, 5), (0.9, 300), (0.97, 1000), (1.0, 200)])
def test_bounded_limits_are_where_the_tail_is_the_level(mean: float, trials: int, alpha: float) -> None:
    low, high = own.bounded_lower(mean, trials, alpha), own.bounded_upper(mean, trials, alpha)
    assert 0 <= low <= mean <= high <= 1
    for edge in (low, high):
        if 0 < edge < 1:
            assert own.bounded_beyond(mean, trials, edge) == pytest.approx(alpha, rel=1e-3)
    # 1,000 queries with a recall of .97 prove .93 at 1e-5; 300 with .9 do not contradict it.
    assert own.bounded_lower(0.97, 1000, 1e-5) > 0.93
    assert own.bounded_upper(0.9, 300, 1e-5) > 0.93


@given(st.floats(0.5, 1e6), st.floats(0.5, 1e6), st.floats(0, 1))
def test_incomplete_beta_is_scipys(a: float, b: float, x: float) -> None:
    expected = float(special.betainc(a, b, x))
    assert own.regularised_beta(a, b, x) == pytest.approx(expected, rel=1e-6, abs=1e-14)


@given(st.integers(1, 1_000_000), st.floats(1e-4, 0.9999), st.floats(-9, 9))
def test_binomial_tails_are_scipys(trials: int, rate: float, sigmas: float) -> None:
    hits = round(trials * rate + sigmas * math.sqrt(trials * rate * (1 - rate)))
    hits = min(trials, max(0, hits))
    over, under = float(stats.binom.sf(hits - 1, trials, rate)), float(stats.binom.cdf(hits, trials, rate))
    assert own.binomial_at_least(hits, trials, rate) == pytest.approx(over, rel=1e-6, abs=1e-14)
    assert own.binomial_at_most(hits, trials, rate) == pytest.approx(under, rel=1e-6, abs=1e-14)


@pytest.mark.parametrize("alpha", LEVELS)
@pytest.mark.parametrize(("hits", "trials"), [(0, 5), (1, 200), (13, 200), (100, 200), (200, 200), (5000, 100_000)])
def test_rate_limits_are_clopper_and_pearsons(hits: int, trials: int, alpha: float) -> None:
    exact = stats.binomtest(hits, trials).proportion_ci(confidence_level=1 - 2 * alpha, method="exact")
    assert own.rate_lower(hits, trials, alpha) == pytest.approx(exact.low, rel=1e-6, abs=1e-12)
    assert own.rate_upper(hits, trials, alpha) == pytest.approx(exact.high, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("alpha", LEVELS)
@pytest.mark.parametrize("freedom", [1, 2.5, 10, 199, 1e5])
def test_student_is_scipys(freedom: float, alpha: float) -> None:
    assert own.student_quantile(alpha, freedom) == pytest.approx(float(stats.t.isf(alpha, freedom)), rel=1e-8)
    assert own.student_beyond(3.0, freedom) == pytest.approx(float(stats.t.sf(3.0, freedom)), rel=1e-8)
    assert own.skewed_quantile(alpha, freedom, 0.0) == own.student_quantile(alpha, freedom)


@pytest.mark.parametrize("call", [
    lambda: own.rate_lower(5, 4, 0.1),
    lambda: own.rate_upper(-1, 4, 0.1),
    lambda: own.binomial_at_least(0, 0, 0.1),
    lambda: own.ratio_at_least(1, 0, 1, 5, 1.0),
    lambda: own.student_quantile(0.7, 5),
    lambda: own.student_beyond(-1.0, 5),
    lambda: own.regularised_beta(0, 1, 0.5),
])  # fmt: skip
def test_nonsense_is_refused(call: object) -> None:
    with pytest.raises(ValueError, match="need"):
        call()  # type: ignore[operator]


def _ratio_size(trials: int, base_trials: int, base_rate: float, ratio: float, alpha: float, rise: bool) -> float:
    """Exact probability that the ratio test rejects when the ratio is true, by enumeration of both counts."""
    hits, base_hits = np.arange(trials + 1), np.arange(base_trials + 1)
    weights = stats.binom.pmf(base_hits, base_trials, base_rate)
    outcomes = stats.binom.pmf(hits, trials, min(1.0, ratio * base_rate))
    share = ratio * trials / (ratio * trials + base_trials)
    size = 0.0
    for base_hit, weight in zip(base_hits, weights, strict=True):
        if weight > 1e-15:
            total = hits + base_hit
            tail = stats.binom.sf(hits - 1, total, share) if rise else stats.binom.cdf(hits, total, share)
            size += weight * float(outcomes[(tail <= alpha) & (total > 0)].sum())
    return size


@pytest.mark.parametrize("alpha", [1e-2, 1e-5])
@pytest.mark.parametrize("base_rate", [0.002, 0.02, 0.2, 0.45])
@pytest.mark.parametrize(("trials", "base_trials"), [(200, 200), (200, 800), (1000, 200)])
def test_ratio_test_keeps_its_level(trials: int, base_trials: int, base_rate: float, alpha: float) -> None:
    for ratio in (1.05, 1.5, 2.0):
        assert _ratio_size(trials, base_trials, base_rate, ratio, alpha, rise=True) <= alpha
        assert _ratio_size(trials, base_trials, base_rate, 1 / ratio, alpha, rise=False) <= alpha


@given(st.integers(0, 400), st.integers(400, 5000), st.integers(0, 400), st.integers(400, 5000), st.floats(0.2, 3))
@settings(max_examples=200)
def test_ratio_limit_and_ratio_test_agree(x1: int, n1: int, x0: int, n0: int, ratio: float) -> None:
    alpha = 1e-4
    rises = own.ratio_at_least(x1, n1, x0, n0, ratio)
    if abs(math.log(max(rises, 1e-300) / alpha)) > 1e-6:  # not on the very edge
        assert (rises <= alpha) == (own.ratio_lower(x1, n1, x0, n0, alpha) > ratio)
    falls = own.ratio_at_most(x1, n1, x0, n0, ratio)
    if abs(math.log(max(falls, 1e-300) / alpha)) > 1e-6:
        assert (falls <= alpha) == (own.ratio_upper(x1, n1, x0, n0, alpha) < ratio)


@pytest.mark.parametrize("alpha", [0.011, 1e-5])
@pytest.mark.parametrize("share", [0.05, 0.01])
@pytest.mark.parametrize("trials", [0, 1, 50, 200, 2000, 100_000])
def test_ranks_by_brute_force(trials: int, share: float, alpha: float) -> None:
    ranks = np.arange(1, trials + 1)
    low = [int(m) for m in ranks[stats.binom.sf(ranks - 1, trials, share) <= alpha]]
    high = [int(m) for m in ranks[stats.binom.cdf(ranks - 1, trials, share) <= alpha]]
    assert own.rank_below(trials, share, alpha) == (min(low) if low else None)
    assert own.rank_above(trials, share, alpha) == (max(high) if high else None)


def test_wilson_would_break_the_budget() -> None:
    """Why rates are exact (docs/adr/0003): at 1e-5 Wilson's limit trips twenty times too often on 200 queries."""
    alpha, bound, trials = 1e-5, 0.02, 200
    hits = np.arange(trials + 1)
    score = (hits / trials - bound) / math.sqrt(bound * (1 - bound) / trials)
    wilson = float(stats.binom.pmf(hits, trials, bound)[score > stats.norm.isf(alpha)].sum())
    tails = np.array([own.binomial_at_least(int(x), trials, bound) for x in hits])
    exact = float(stats.binom.pmf(hits, trials, bound)[tails <= alpha].sum())
    assert wilson > 20 * alpha
    assert exact <= alpha


@pytest.mark.parametrize("rare", [0.085, 0.9])
def test_skewed_means_keep_their_level(rare: float) -> None:
    """Two-point scores of skewness 3 and -2.7: exact, by enumeration, on the side where Student's t is worst."""
    for alpha in (1e-3, 1e-5):
        for count in (700, 1500, 20_000):
            k = np.arange(1, count)
            mean = 0.2 + 0.5 * k / count
            error = 0.5 * np.sqrt(k / count * (1 - k / count) / (count - 1))
            critical = own.skewed_quantile(alpha, count - 1, 3 / math.sqrt(count))
            assert critical is not None
            weight = stats.binom.pmf(k, count, rare)
            truth = 0.2 + 0.5 * rare
            low = float(weight[mean + critical * error < truth].sum())
            high = float(weight[mean - critical * error > truth].sum())
            assert max(low, high) <= alpha, (alpha, count, low, high)
            plain = own.student_quantile(alpha, count - 1)
            worse = max(weight[mean + plain * error < truth].sum(), weight[mean - plain * error > truth].sum())
            assert worse > alpha  # Student's own limit is not enough


def test_too_few_scores_prove_nothing() -> None:
    assert own.skewed_quantile(1e-5, 199, 3 / math.sqrt(200)) is None
    assert own.skewed_quantile(1e-5, 1e6, 3 / math.sqrt(1e6)) == pytest.approx(4.265, abs=0.1)


def test_a_relative_quantile_spends_half_of_its_level_on_the_baseline() -> None:
    """Half of a window's level on the window, and half of all windows' together, once, on the one baseline."""
    cell = Counts(queries=250, latency={100 + i: 1 for i in range(250)})
    family, rise = Quantile(0.05), Bound(1, None, 0.2)
    relative = family.confidence(cell, cell, rise, Levels(window=0.2, once=0.3))
    assert relative == family.confidence(cell, None, rise, Levels(window=0.1, once=0.3))
    assert relative != family.confidence(cell, None, rise, Levels(window=0.2, once=0.3))
