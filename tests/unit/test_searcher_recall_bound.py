"""The lower bound of recall by simulation: how often a gate lets an index through that is worse than its floor.

Whole grids of gates at once; every check that the bound passes convicts a textbook interval or a shortcut too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from vectorindex_searcher.proof.bound import SHUFFLES, _bets, lower_bound, rejects

K = 10
Recalls = npt.NDArray[np.float64]


def recalls(rng: np.random.Generator, size: tuple[int, ...], mean: float, correlation: float) -> Recalls:
    """Per-query recall@10 with a true mean. Hits of one query correlate: 0 independent hits, 1 all ten or none.

    Beta-binomial; the intra-query correlation of two hits is 1 / (a + b + 1).
    """
    if correlation == 1:
        return (rng.random(size) < mean).astype(np.float64)
    if correlation == 0:
        return rng.binomial(K, mean, size) / K
    weight = 1 / correlation - 1
    return rng.binomial(K, rng.beta(mean * weight, (1 - mean) * weight, size)) / K


def rare_disaster(rng: np.random.Generator, size: tuple[int, ...], mean: float) -> Recalls:
    """Four of five queries perfect, the rest so bad that the mean is `mean`: a graph with a disconnected part."""
    return np.where(rng.random(size) < 0.2, rng.binomial(K, 1 - 5 * (1 - mean), size) / K, 1.0)


def slack(share: float, trials: int) -> float:
    """Four standard errors of a simulated share."""
    return 4 * float(np.sqrt(share * (1 - share) / trials))


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("floor", [0.9, 0.95, 0.99, 0.999])
def test_an_index_below_the_floor_passes_no_more_often_than_stated(floor: float, confidence: float) -> None:
    """Also near 1, also on few queries, whatever the correlation of hits within a query."""
    rng = np.random.default_rng(int(1000 * floor))
    for count, trials in ((5, 1000), (20, 1000), (66, 600), (300, 150)):
        below = floor - 1e-6  # the worst case: an index much worse than the floor fails more often
        kinds = {c: recalls(rng, (trials, count), below, c) for c in (0.0, 0.3, 1.0)}
        kinds[-1.0] = rare_disaster(rng, (trials, count), below)
        for kind, samples in kinds.items():
            passed = rejects(samples, floor, confidence).mean()
            assert passed <= 1 - confidence + slack(1 - confidence, trials), (count, kind, passed)


def test_a_thousand_queries_near_one() -> None:
    """The size of the built-in query set, where indexes live."""
    rng = np.random.default_rng(1)
    for mean in (0.95, 0.995):
        assert rejects(recalls(rng, (200, 1000), mean, 0.3), mean, 0.95).mean() <= 0.05 + slack(0.05, 200)


@pytest.mark.parametrize("count", [1, 10, 66, 300, 1000])
def test_no_lost_query_proves_no_more_than_the_exact_limit(count: int) -> None:
    """An index that loses whole queries with probability 1 - m shows none lost in n with probability m**n: a bound
    above alpha**(1/n), Clopper and Pearson's, would be wrong more often than alpha. Ours is at most a tenth wider."""
    for confidence in (0.8, 0.95, 0.99):
        exact = (1 - confidence) ** (1 / count)
        bound = lower_bound(np.ones(count), confidence)
        assert bound <= exact
        if count >= 66:  # with few queries the bets are cautious
            assert 1 - bound <= 1.25 * (1 - exact)


def test_the_simulation_convicts_the_textbook_intervals() -> None:
    """Mean minus 1.645 standard errors, and Wilson's interval over all hits, both break their promise here."""
    rng = np.random.default_rng(5)
    samples = recalls(rng, (2000, 60), 0.97, 1.0)
    normal = samples.mean(axis=1) - 1.645 * samples.std(axis=1, ddof=1) / np.sqrt(60)
    assert np.mean(normal > 0.97) > 0.12
    samples = recalls(rng, (2000, 300), 0.95, 0.3)
    share, hits, z = samples.mean(axis=1), 300 * K, 1.645
    centre = share + z**2 / (2 * hits)
    radius = z * np.sqrt(share * (1 - share) / hits + (z / (2 * hits)) ** 2)
    wilson = (centre - radius) / (1 + z**2 / hits)
    assert np.mean(wilson > 0.95) > 0.12


def test_points_are_tuned_and_judged_on_different_queries() -> None:
    """Twenty points, each a little worse than the floor. Judging the best of them on the queries that chose it lets
    one through more often than stated; on the other half of the queries it does not."""
    rng = np.random.default_rng(7)
    floor, trials, points, half = 0.95, 400, 20, 300
    tuning = recalls(rng, (trials, points, half), floor - 1e-6, 0.3)
    judging = recalls(rng, (trials, points, half), floor - 1e-6, 0.3)
    chosen = tuning.mean(axis=2).argmax(axis=1)
    lines = np.arange(trials)
    honest = rejects(judging[lines, chosen], floor, 0.8).mean()
    assert honest <= 0.2 + slack(0.2, trials)
    assert rejects(tuning[lines, chosen], floor, 0.8).mean() > 0.2 + slack(0.2, trials)


def test_two_half_widths_to_spare_pass_a_second_look() -> None:
    """Parameters whose recall is the floor and two half-widths pass on fresh queries; the floor alone is a coin toss.

    Points a third of a half-width apart: what `tune` chooses is the first that clears the line."""
    rng = np.random.default_rng(8)
    floor, count, trials = 0.95, 1000, 60
    spread = recalls(rng, (count,), 0.965, 0.3)
    half_width = float(spread.mean()) - lower_bound(spread)
    truths = floor + half_width * np.arange(-1, 6) / 3 * 1.5

    def passes(half_widths: float) -> float:
        done = 0
        for _ in range(trials):
            fallback = [recalls(rng, (count,), mean, 0.3) for mean in truths]
            seen = next((i for i, s in enumerate(fallback) if s.mean() >= floor + half_widths * half_width), -1)
            done += bool(rejects(recalls(rng, (count,), truths[seen], 0.3), floor))
        return done / trials

    assert passes(2) >= 0.9
    assert passes(1) < 0.75


def test_bound_is_useful_consistent_and_monotone() -> None:
    rng = np.random.default_rng(0)
    sample = recalls(rng, (1000,), 0.96, 0.2)
    low = lower_bound(sample, 0.95)
    assert sample.mean() - 3.2 * sample.std() / np.sqrt(1000) < low < sample.mean()
    assert rejects(sample, low - 1e-6, 0.95)
    assert not rejects(sample, low + 1e-6, 0.95)
    assert lower_bound(sample, 0.99) < low < lower_bound(sample, 0.8)
    assert lower_bound(rng.permutation(sample), 0.95) == pytest.approx(low, abs=8e-4)
    assert lower_bound(np.empty(0)) == 0
    assert lower_bound(np.zeros(50)) == 0
    assert 0 <= lower_bound(np.array([1.0])) < 0.1


def test_many_gates_at_once_are_many_single_gates() -> None:
    samples = recalls(np.random.default_rng(2), (6, 40), 0.93, 0.3)
    together = rejects(samples, 0.88, 0.9)
    assert together.tolist() == [lower_bound(sample, 0.9) > 0.88 for sample in samples]
    assert together.any()
    assert not together.all()


def test_a_bet_knows_only_the_values_before_it() -> None:
    """What makes the bound valid: a bet that has seen its own value wins what it likes."""
    one = recalls(np.random.default_rng(3), (50,), 0.9, 0.3)
    other = one.copy()
    other[17] = 1 - one[17] / 2
    shuffled, bets = _bets(one, 0.95)
    changed, others = _bets(other, 0.95)
    for line in range(SHUFFLES):
        place = int(np.flatnonzero(shuffled[line] != changed[line])[0])
        assert (bets[line, : place + 1] == others[line, : place + 1]).all()
        assert place == 49 or (bets[line, place + 1 :] != others[line, place + 1 :]).all()
