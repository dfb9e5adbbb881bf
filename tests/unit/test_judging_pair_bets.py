"""Bets on pairs: fair at the bound for every kind of pair, whatever the two answers have to do with each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectorindex_operator.core.judging import pair_bets
from vectorindex_operator.core.judging.comparison import SKEWNESS
from vectorindex_operator.core.judging.pair_bets import SCORE_FRACTIONS, RatioBets, ScoreBets, ShareBets

shares = st.floats(0.001, 0.999)


# ---------------------------------------------------------------- two rates


@given(st.floats(1.0, 5.0), shares, shares)
def test_a_bet_on_two_rates_is_fair_where_one_is_so_many_times_the_other(
    ratio: float, stable: float, alike: float
) -> None:
    """And loses where it is less; however often the two do it together."""
    stable = min(stable, 0.99 / ratio)
    candidate = ratio * stable
    both = alike * stable
    bets = RatioBets.above(ratio, 1)
    for mine, other, together in zip(*(bets.gains(*one) for one in ((1, 0, 0), (0, 1, 0), (0, 0, 1))), strict=True):
        parts = [(candidate - both, mine), (stable - both, other), (both, together)]
        neither = 1.0 - candidate - stable + both
        expected = neither + math.fsum(chance * math.exp(gain) for chance, gain in parts)
        assert expected == pytest.approx(1.0)
        less = expected + 0.1 * (candidate - both) * (1.0 - math.exp(mine))
        assert less < 1.0


def test_the_relation_is_tested_not_mere_change() -> None:
    """A rise of 1.6 % in a hundred thousand pairs is real, and within `maxRise: 10%`."""
    change, relation = RatioBets.above(1.0), RatioBets.above(1.1)
    cells = (400, 80, 19_600)
    assert max(change.gains(*cells)) > math.log(1e6)
    assert max(relation.gains(*cells)) < 0
    assert max(relation.gains(4000, 80, 19_600)) > math.log(1e6)


@pytest.mark.parametrize("ratio", [0.9, math.inf, math.nan])
def test_a_ratio_below_one_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="1 at least"):
        RatioBets.above(ratio)


# ---------------------------------------------------------------- shares


@given(shares, st.floats(0, 1))
def test_a_value_wins_no_more_than_a_bet_that_is_fair(bound: float, value: float) -> None:
    """Both halves: below a line in the value that is 1 at the bound."""
    bets = ShareBets.above(bound, 1)
    gains = bets.gains(value, value * value, 1)
    none, whole = bets.gains(0, 0, 1), bets.gains(1, 1, 1)
    assert len(gains) == len(none) == 16
    for gain, low, high in zip(gains[:8], none, whole, strict=False):
        assert math.exp(gain) <= (1 - value) * math.exp(low) + value * math.exp(high) + 1e-9
        assert (1 - bound) * math.exp(low) + bound * math.exp(high) == pytest.approx(1.0)
    y = (value - bound) / bound
    for part, gain in zip((0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.5, 0.8), gains[8:], strict=True):
        assert math.exp(gain) <= (1 + part * y) * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize(("bound", "value", "wins"), [(0.0, 0.1, True), (0.0, 0.0, False), (1.0, 1.0, False)])
def test_bounds_at_the_ends_are_bet_against(bound: float, value: float, wins: bool) -> None:
    found = ShareBets.above(bound).gains(1000 * value, 1000 * value**2, 1000)
    assert (max(found) > math.log(1000)) is wins


# ---------------------------------------------------------------- scores


def cost(fraction: float) -> float:
    """a of the docstring, as the class has it."""
    bets = ScoreBets.of(1.0, 1)
    return -bets.second[SCORE_FRACTIONS.index(fraction)] / fraction**2


@pytest.mark.parametrize("fraction", SCORE_FRACTIONS)
def test_the_inequality_that_the_bet_on_scores_stands_on(fraction: float) -> None:
    a = cost(fraction)
    assert 0.5 < a <= 0.9
    up = np.concatenate([np.geomspace(1e-4, 1, 4000), np.linspace(1, 200, 4000)])
    assert (np.exp(up - a * up**2) <= 1 + up).all()
    # Near 0 both sides differ by a fourth power, which 1 - 1e-4 would swallow.
    down = np.concatenate([np.geomspace(1e-2, 1, 4000), np.linspace(1, 200, 4000)])
    assert (np.exp(-down - a * down**2) <= 1 - down - (a - 0.5) * down**2 + (a - 1 / 6) * down**3).all()
    assert a * a / 2 - a / 2 + 1 / 24 < 0


@given(st.floats(0.01, 0.5), st.floats(0.0, 1.0))
def test_a_bet_on_scores_is_fair_for_two_values_as_skewed_as_is_assumed(share: float, at: float) -> None:
    """A share of the queries scores far up, the rest a little down; the mean difference is 0."""
    share = max(share, 1 / (1 + SKEWNESS**2))
    luck, rest = -(1 - share), share  # of x = s - c
    deviation = math.sqrt(share * (1 - share))
    assert (1 - share) / deviation <= SKEWNESS + 1e-9
    scale = deviation * (1 + at)  # rounded up
    bets = ScoreBets.of(scale, 1)
    wins = [bets.gains(one, one * one) for one in (luck, rest)]
    for fortunate, other in zip(*wins, strict=True):
        assert share * math.exp(fortunate) + (1 - share) * math.exp(other) <= 1.0 + 1e-12


@pytest.mark.parametrize("name", ["exponential", "normal", "heavy on the other side"])
def test_a_bet_on_scores_is_fair_for_others(name: str) -> None:
    """By quadrature; the last one has no variance to speak of on the side that proves nothing."""
    q = (np.arange(400_000) + 0.5) / 400_000
    from scipy import stats

    x = {
        "exponential": 1 + np.log(q),
        "normal": stats.norm.ppf(q),
        "heavy on the other side": stats.pareto.ppf(q, 2.5),
    }[name]
    x = x - x.mean()
    bets = ScoreBets.of(float(np.sqrt(np.mean(x**2))), 1)
    for one, two in zip(bets.first, bets.second, strict=True):
        assert np.exp(one * x + two * x**2).mean() <= 1.0 + 1e-7


@given(st.floats(1e-6, 1e6), st.integers(1, 10**6))
def test_a_scale_is_rounded_up_to_a_power_of_two(deviation: float, count: int) -> None:
    scale = pair_bets.scale_of(deviation**2 * count, count)
    assert deviation * (1 - 1e-9) <= scale <= 2 * deviation * (1 + 1e-9)
    assert math.frexp(scale)[0] == 0.5


def test_no_score_is_too_small_or_too_large() -> None:
    for squares in (0.0, 5e-324, 1e300):
        bets = ScoreBets.of(pair_bets.scale_of(squares, 1))
        assert all(map(math.isfinite, (*bets.first, *bets.second)))


def test_three_queries_that_come_together_win_what_one_does() -> None:
    assert RatioBets.above(1.1).gains(3, 0, 0) == pytest.approx(RatioBets.above(1.1, 1).gains(1, 0, 0))
    assert ShareBets.above(0.1).gains(3, 3, 3) == pytest.approx(ShareBets.above(0.1, 1).gains(1, 1, 1))
    assert ScoreBets.of(1.0).gains(3, 3) == pytest.approx(ScoreBets.of(1.0, 1).gains(1, 1))
