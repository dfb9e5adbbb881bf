"""Wealth of bets against a bound: fair at the bound, dependent on sums alone, and blind to five seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vectorindex_operator.core.judging import eprocess
from vectorindex_operator.core.judging.blocks import BLOCK
from vectorindex_operator.core.judging.eprocess import Gains, MeanBets, RateBets, Stretch

BOUND = 0.02
STARTS = 360
LONG_AGO = -(10**6)
bounds = st.floats(1e-4, 0.99)


def held(
    cells: Mapping[int, tuple[float, float]], first: int, stop: int, oldest: int = LONG_AGO, enough: int = 1
) -> float:
    of = eprocess.of_rate(cells, BOUND, 1)
    return eprocess.wealth(of, first=first, stop=stop, oldest=oldest, starts=STARTS, enough=enough)


def put(parts: Sequence[Stretch]) -> Stretch:
    """All of them, from the left."""
    return reduce(Stretch.then, parts)


# ---------------------------------------------------------------- single bets


@given(bounds)
def test_a_bet_on_a_rate_is_fair_at_the_bound_and_loses_below(bound: float) -> None:
    bets = RateBets.above(bound, 1)
    for hit, miss in zip(bets.hit, bets.miss, strict=True):
        assert bound * math.exp(hit) + (1 - bound) * math.exp(miss) == pytest.approx(1.0)
        assert bound / 2 * math.exp(hit) + (1 - bound / 2) * math.exp(miss) < 1.0


@given(bounds, st.floats(0, 1))
def test_a_value_between_wins_no_more_than_a_coin_of_its_mean(bound: float, value: float) -> None:
    bets = RateBets.above(bound, 1)
    for hit, miss, gain in zip(bets.hit, bets.miss, bets.gains(value, 1), strict=True):
        assert math.exp(gain) <= (value * math.exp(hit) + (1 - value) * math.exp(miss)) * (1 + 1e-9)


@given(st.floats(0.01, 0.99), st.floats(0, 1))
def test_a_bet_on_a_mean_wins_no_more_than_one_that_is_fair(bound: float, value: float) -> None:
    y = (bound - value) / (1 - bound)
    for part, gain in zip(eprocess.FRACTIONS, MeanBets(bound, 1).gains(value, value * value, 1), strict=True):
        assert math.exp(gain) <= (1 + part * y) * (1 + 1e-9) + 1e-9


@given(bounds, st.floats(0, 1), st.floats(0, 1))
def test_three_that_come_together_win_no_more_than_is_fair(bound: float, one: float, two: float) -> None:
    """All three hit, or none; two of them; whatever: the chance of each to hit is the bound."""
    bets = RateBets.above(bound)
    alike, pair = one * bound, (1 - one) * two * bound  # chances that all hit, that a given two of them do
    pair = min(pair / 2, (1 - alike) / 3)
    single = bound - alike - 2 * pair
    none = 1 - alike - 3 * pair - 3 * single
    if min(single, none) < 0:
        return
    for hit, miss in zip(bets.hit, bets.miss, strict=True):
        wins = [alike * math.exp(3 * hit), 3 * pair * math.exp(2 * hit + miss), 3 * single * math.exp(hit + 2 * miss)]
        assert math.fsum([*wins, none * math.exp(3 * miss)]) <= 1 + 1e-9


def test_bounds_at_the_ends_are_bet_against_and_others_are_refused() -> None:
    assert max(RateBets.above(0.0, 1).gains(2, 1000)) > math.log(1000)
    assert max(RateBets.above(1.0).gains(1000, 1000)) < 1e-3
    with pytest.raises(ValueError, match="from 0 to 1"):
        RateBets.above(1.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        MeanBets(1.0)


def test_no_number_is_too_large() -> None:
    assert held({0: (10**9, 10**9), 5: (10**9, 10**9), 10: (10**9, 10**9)}, 0, 12) > 1e9
    assert held({0: (0, 10**9), 5: (0, 10**9)}, 0, 12) < 1e-9


# ---------------------------------------------------------------- five seconds prove nothing


buckets = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 300)), min_size=1, max_size=30)


@given(buckets)
def test_the_strongest_pair_is_left_out_by_brute_force(rows: list[tuple[int, int]]) -> None:
    bets = RateBets.above(BOUND)
    each = [bets.gains(hits, hits + misses) for hits, misses in rows]
    stretch = put([Stretch.of(gains, 1) for gains in each])
    by_bet = []
    for of_bet in zip(*each, strict=True):
        won = [max(0.0, gain) for gain in of_bet]
        by_bet.append(math.exp(min(700.0, sum(of_bet) - max(map(sum, zip(won, [*won[1:], 0.0], strict=True))))))
    assert stretch.wealth() == pytest.approx(sum(by_bet) / len(by_bet), rel=1e-6)


@given(buckets, st.integers(1, 29))
def test_it_does_not_matter_how_buckets_are_put_together(rows: list[tuple[int, int]], cut: int) -> None:
    """So blocks of a minute may be kept."""
    bets = RateBets.above(BOUND)
    one = [Stretch.of(bets.gains(hits, hits + misses), hits + misses) for hits, misses in rows]
    cut = min(cut, len(one) - 1)
    whole = put(one)
    split = put(one[:cut]).then(put(one[cut:])) if cut else whole
    assert split.total == pytest.approx(whole.total)
    assert split.best == pytest.approx(whole.best)
    assert (split.first, split.last, split.trials) == (whole.first, whole.last, whole.trials)


@given(st.integers(1, 100_000), st.floats(0, 1), st.integers(0, 39))
def test_a_burst_of_five_seconds_never_helps_those_who_bet(errors: int, cut: float, at: int) -> None:
    """Wherever it lies, and if it lies in two buckets: not more than without all that came in these."""
    healthy = dict.fromkeys(range(40), (2, 100))
    early = round(errors * cut)
    burst = dict(healthy)
    for bucket, more in ((at, early), (at + 1, errors - early)):
        hits, trials = healthy.get(bucket, (0, 0))
        burst[bucket] = hits + more, trials + more
    spared = {bucket: cell for bucket, cell in healthy.items() if bucket not in (at, at + 1)}
    bets = RateBets.above(BOUND, 1)

    def plain(cells: Mapping[int, tuple[float, float]]) -> float:
        """The most that the stake can have become without the two: every bet and every start as they are."""
        total = 0.0
        for start, share in ((0, 0.5), *((number * BLOCK, 0.5 / STARTS) for number in range(1, 4))):
            sums = [sum(cell[i] for bucket, cell in cells.items() if bucket >= start) for i in (0, 1)]
            total += share * sum(map(math.exp, bets.gains(*sums))) / len(eprocess.ODDS)
        return total

    assert held(burst, 0, 40) <= plain(spared) * (1 + 1e-9)
    assert held(burst, 0, 40) < 1


def test_what_goes_on_is_seen_in_the_third_bucket() -> None:
    """A fifth of 1,250 queries a bucket, as in the demo."""
    bad = dict.fromkeys(range(3), (225, 1250))
    assert held(bad, 0, 2) < 1
    assert held(bad, 0, 3) > 1e6


# ---------------------------------------------------------------- starts


def test_half_of_the_stake_bets_from_the_first_bucket_and_a_part_from_each_minute() -> None:
    """By hand: what is left out of a start is the strongest pair since then."""
    cells = dict.fromkeys(range(5, 40), (4, 100))
    bets = RateBets.above(BOUND, 1)

    def since(start: int) -> float:
        full, gone = [bets.gains(4 * n, 100 * n) for n in (40 - start, 2)]
        each = [math.exp(a - max(0.0, b)) for a, b in zip(full, gone, strict=True)]
        return sum(each) / len(each)

    expected = 0.5 * since(5) + 0.5 / STARTS * (since(12) + since(24) + since(36))
    assert held(cells, 5, 40) == pytest.approx(expected)
    # The rings have forgotten the first bucket, then a minute.
    assert held(cells, 5, 40, oldest=6) == pytest.approx(0.5 / STARTS * (since(12) + since(24) + since(36)))
    assert held(cells, 5, 40, oldest=13) == pytest.approx(0.5 / STARTS * (since(24) + since(36)))
    # A soak that begins with a minute has no second start there.
    assert held({12: (9, 100)}, 12, 13) == pytest.approx(0.5 * _alone((9, 100)))


def _alone(cell: tuple[int, int]) -> float:
    """One bucket: what was won is left out."""
    each = [math.exp(min(0.0, gain)) for gain in RateBets.above(BOUND, 1).gains(*cell)]
    return sum(each) / len(each)


def test_starts_beyond_the_horizon_get_nothing() -> None:
    """What begins in the third minute is best seen by the start of that minute, and the stake was to last for one."""
    cells = {bucket: (0 if bucket < 24 else 10, 100) for bucket in range(36)}
    of = eprocess.of_rate(cells, BOUND)
    few = eprocess.wealth(of, first=0, stop=36, oldest=1, starts=1, enough=1)
    assert few == pytest.approx(0.5 * put([Stretch.of(*of(bucket)) for bucket in range(12, 36)]).wealth())


def test_a_start_counts_once_there_are_enough_samples_since_then() -> None:
    """Four visitors in vain are no proof where there were no others."""
    cells: dict[int, tuple[float, float]] = dict.fromkeys(range(0, 40, 4), (1, 1))
    assert held(cells, 0, 40) > 100
    assert held(cells, 0, 40, enough=11) == 0.0
    assert held(cells, 0, 40, enough=10) == pytest.approx(held(cells, 0, 40), rel=0.01)
    assert held(cells, 0, 40, oldest=1, enough=7) == pytest.approx(held(cells, 0, 40, oldest=1), rel=0.1)
    assert held(cells, 0, 40, oldest=1, enough=8) == 0.0


@given(st.permutations(range(12)))
@settings(max_examples=20)
def test_wealth_depends_on_sums_not_on_the_order_within_a_bucket(order: list[int]) -> None:
    """Nor on which pod counted what: gains add up."""
    bets = RateBets.above(BOUND)
    parts = [(n % 3, 7 * n + 3) for n in order]
    total = bets.gains(sum(hits for hits, _ in parts), sum(trials for _, trials in parts))
    each = [sum(column) for column in zip(*(bets.gains(*part) for part in parts), strict=True)]
    assert total == pytest.approx(each)


# ---------------------------------------------------------------- the promise


Draw = Callable[[np.random.Generator], tuple[Gains, float]]


def soak(gains: Draw, rng: np.random.Generator, level: float) -> bool:
    """Whether some look at a soak of ten minutes finds 1/level."""
    cells = [gains(rng) for _ in range(120)]
    found = (
        eprocess.wealth(cells.__getitem__, first=0, stop=stop, oldest=LONG_AGO, starts=10, enough=1)
        for stop in range(3, 121, 3)
    )
    return any(wealth >= 1 / level for wealth in found)


def most(soaks: int, probability: float) -> int:
    """A count that an honest rate of `probability` exceeds once in a thousand such simulations."""
    return int(stats.binom.isf(1e-3, soaks, probability))


def rates(rate: float) -> Draw:
    bets = RateBets.above(BOUND)

    def draw(rng: np.random.Generator) -> tuple[Gains, float]:
        trials = int(rng.poisson(50))
        return bets.gains(int(rng.binomial(trials, rate)), trials), trials

    return draw


def means(value: float) -> Draw:
    """Recall of ten, that comes or goes as a whole: the worst case."""
    bets = MeanBets(0.93)

    def draw(rng: np.random.Generator) -> tuple[Gains, float]:
        trials = int(rng.poisson(20))
        good = int(rng.binomial(trials, value))
        return bets.gains(good, good, trials), trials

    return draw


@pytest.mark.parametrize(("name", "at_bound", "beyond"), [
    ("rate", rates(BOUND), rates(0.1)), ("mean", means(0.93), means(0.8)),
])  # fmt: skip
def test_who_is_at_the_bound_trips_within_the_budget_and_who_is_beyond_trips(
    name: str,
    at_bound: Draw,
    beyond: Draw,
) -> None:
    """At a budget of a tenth, so that sixty soaks say something; bench/sequential.py has the budget of a hundredth."""
    rng = np.random.default_rng(20_261_127)
    assert sum(soak(at_bound, rng, 0.1) for _ in range(60)) <= most(60, 0.1)
    assert all(soak(beyond, rng, 0.01) for _ in range(5))
