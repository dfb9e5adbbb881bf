"""Tail probabilities and one-sided confidence limits for guardrails. Pure mathematics; knows no rule and no revision.

A guardrail judges many windows and shares one small false-trip budget among them, so the level of one window is about
1e-5. That far out the normal approximation is wrong by factors (docs/adr/0003-exact-limits-for-rates.md), hence:

- a rate: exact binomial tail and its inversion (Clopper and Pearson, Biometrika 26, 1934);
- two rates: exact conditional test of a ratio (Przyborowski and Wilenski, Biometrika 31, 1940);
- a mean: Student's t with an allowance for skewness (Wang, Electronic Journal of Probability 10, 2005, no. 38:
  P(T > t) / P(N > t) = exp(-t^3 E[X^3] / (3 sqrt(n) sd^3)) (1 + O((1 + t) / sqrt(n))) for n centred draws X);
- a quantile: order statistics (Conover, Practical Nonparametric Statistics, 1999, section 3.2).

Levels (`alpha`) are one-sided. Standard library only: the control plane carries no numpy or scipy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

_TINY = 1e-300
RARE = 8
"""Expected counts below this are too small for Pearson's test far out in its tail (simulated in the tests)."""
_EPSILON = 1e-15


def regularised_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b) for a, b > 0: the continued fraction DLMF 8.17.22, evaluated with the modified Lentz method.

    Relative error below 1e-7 up to a + b = 1e7; the number of terms grows with the square root of a + b.
    """
    if not (a > 0 and b > 0):
        raise ValueError(f"the incomplete beta function needs a, b > 0, got a={a}, b={b}")
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    # The fraction converges quickly only below the mean; above it the complement is computed.
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - regularised_beta(b, a, 1.0 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    return min(1.0, front * _beta_fraction(a, b, x) / a)


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of DLMF 8.17.22; the caller multiplies by x**a (1-x)**b / (a B(a, b))."""
    c = 1.0
    d = 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, 100 + 20 * math.isqrt(int(a + b) + 1)):
        pair = a + 2 * m
        even = m * (b - m) * x / ((pair - 1) * pair)
        d = 1.0 / _away_from_zero(1.0 + even * d)
        c = _away_from_zero(1.0 + even / c)
        value *= c * d
        odd = -(a + m) * (a + b + m) * x / (pair * (pair + 1))
        d = 1.0 / _away_from_zero(1.0 + odd * d)
        c = _away_from_zero(1.0 + odd / c)
        step = c * d
        value *= step
        if abs(step - 1.0) < _EPSILON:
            break
    return value


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def _bisect(low: float, high: float, too_low: Callable[[float], bool]) -> float:
    """The point between `low` and `high` where `too_low` turns from True to False; relative precision 1e-8."""
    for _ in range(200):
        middle = (low + high) / 2
        if high - low <= 1e-8 * max(abs(high), _TINY) or middle in (low, high):
            break
        if too_low(middle):
            low = middle
        else:
            high = middle
    return (low + high) / 2


# ---------------------------------------------------------------- one rate


def binomial_at_least(hits: int, trials: int, rate: float) -> float:
    """P(X >= hits) for X ~ Binomial(trials, rate)."""
    _check_counts(hits, trials)
    if hits == 0:
        return 1.0
    return regularised_beta(hits, trials - hits + 1, rate)


def binomial_at_most(hits: int, trials: int, rate: float) -> float:
    """P(X <= hits) for X ~ Binomial(trials, rate)."""
    _check_counts(hits, trials)
    if hits == trials:
        return 1.0
    return regularised_beta(trials - hits, hits + 1, 1.0 - rate)


def rate_lower(hits: int, trials: int, alpha: float) -> float:
    """The largest rate that `hits` or more of `trials` contradict at level `alpha` (Clopper-Pearson)."""
    _check_counts(hits, trials)
    if hits == 0:
        return 0.0
    return _bisect(0.0, hits / trials, lambda rate: binomial_at_least(hits, trials, rate) < alpha)


def rate_upper(hits: int, trials: int, alpha: float) -> float:
    """The smallest rate that `hits` or fewer of `trials` contradict at level `alpha` (Clopper-Pearson)."""
    _check_counts(hits, trials)
    if hits == trials:
        return 1.0
    return _bisect(hits / trials, 1.0, lambda rate: binomial_at_most(hits, trials, rate) > alpha)


def _check_counts(hits: int, trials: int) -> None:
    if not 0 <= hits <= trials or trials == 0:
        raise ValueError(f"a rate needs 0 <= hits <= trials and a trial, got {hits} of {trials}")


# ---------------------------------------------------------------- two rates
#
# With few events both counts are nearly Poisson, and given their sum the first is binomial: no nuisance rate is left,
# and a baseline without a single event is no special case. Where events are frequent a binomial count varies less than
# a Poisson one, so the test errs on the side of not tripping (enumerated in the tests).


def ratio_at_least(hits: int, trials: int, base_hits: int, base_trials: int, ratio: float) -> float:
    """P(so many `hits` or more) when the rate is exactly `ratio` times the base's, given the sum of both counts."""
    total = hits + base_hits
    if total == 0:
        return 1.0
    return binomial_at_least(hits, total, _share_of_events(trials, base_trials, ratio))


def ratio_at_most(hits: int, trials: int, base_hits: int, base_trials: int, ratio: float) -> float:
    """P(so few `hits` or fewer) when the rate is exactly `ratio` times the base's, given the sum of both counts."""
    total = hits + base_hits
    if total == 0:
        return 1.0
    return binomial_at_most(hits, total, _share_of_events(trials, base_trials, ratio))


def ratio_lower(hits: int, trials: int, base_hits: int, base_trials: int, alpha: float) -> float:
    """Lower confidence limit of rate / base rate."""
    total = hits + base_hits
    share = rate_lower(hits, total, alpha) if total else 0.0
    return math.inf if share >= 1.0 else share / (1.0 - share) * base_trials / trials


def ratio_upper(hits: int, trials: int, base_hits: int, base_trials: int, alpha: float) -> float:
    """Upper confidence limit of rate / base rate."""
    total = hits + base_hits
    share = rate_upper(hits, total, alpha) if total else 1.0
    return math.inf if share >= 1.0 else share / (1.0 - share) * base_trials / trials


def _share_of_events(trials: int, base_trials: int, ratio: float) -> float:
    if trials <= 0 or base_trials <= 0 or ratio < 0:
        raise ValueError(f"a ratio of rates needs trials on both sides, got {trials} and {base_trials}, ratio {ratio}")
    return ratio * trials / (ratio * trials + base_trials)


# ---------------------------------------------------------------- means of bounded values
#
# Recall of a query and depth of a click lie between fixed ends, and may crowd at both: a hundredth of the queries that
# find nothing skews them more than Student's t allows for. Chernoff's bound holds for every distribution on [0, 1] and
# every n: a sum of such values has a moment generating function no larger than that of coin flips with the same mean
# (Hoeffding, JASA 58, 1963, theorem 1).


def divergence(mean: float, bound: float) -> float:
    """Kullback-Leibler divergence of a coin with probability `mean` from one with `bound`, both in [0, 1]."""
    if mean == bound:
        return 0.0
    if not 0.0 < bound < 1.0:
        return math.inf
    first = mean * math.log(mean / bound) if mean > 0 else 0.0
    second = (1 - mean) * math.log((1 - mean) / (1 - bound)) if mean < 1 else 0.0
    return max(0.0, first + second)


def bounded_beyond(mean: float, trials: int, bound: float) -> float:
    """Bound on the probability that `trials` values in [0, 1] average so far to the side of `mean`, if their
    expectation is `bound` (or on its other side).
    """
    return math.exp(-trials * divergence(mean, bound))


def bounded_lower(mean: float, trials: int, alpha: float) -> float:
    """The largest expectation that a `mean` of values in [0, 1] contradicts at level `alpha` from above."""
    return _bisect(0.0, mean, lambda bound: bounded_beyond(mean, trials, bound) < alpha)


def bounded_upper(mean: float, trials: int, alpha: float) -> float:
    """The smallest expectation that a `mean` of values in [0, 1] contradicts at level `alpha` from below."""
    return _bisect(mean, 1.0, lambda bound: bounded_beyond(mean, trials, bound) > alpha)


# ---------------------------------------------------------------- means


def student_beyond(t: float, freedom: float) -> float:
    """P(T > t) for Student's distribution, t >= 0 (DLMF 8.17; Abramowitz and Stegun 26.7.1)."""
    if freedom <= 0 or t < 0:
        raise ValueError(f"Student's tail needs t >= 0 and degrees of freedom > 0, got {t} and {freedom}")
    return 0.5 * regularised_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def student_quantile(alpha: float, freedom: float) -> float:
    """t with P(T > t) = alpha, for 0 < alpha <= 0.5, by bisection of `student_beyond`."""
    _check_level(alpha)
    high = 1.0
    while student_beyond(high, freedom) > alpha:
        high *= 2
    return _bisect(0.0, high, lambda t: student_beyond(t, freedom) > alpha)


def skewed_beyond(t: float, freedom: float, skewness: float) -> float:
    """Bound on P(T > t) for the Student statistic of a mean whose own skewness is at most `skewness`, either sign.

    The skewness of a mean of n draws is that of one draw over sqrt(n). It is
    P(T > t) exp(skewness t^3 / 3) (1 + 2 skewness (1 + t) / 3): the large-deviation correction of self-normalised sums
    (see above), which outweighs Edgeworth's first term at these levels; its error term is taken as 2 (1 + t) / sqrt(n)
    for draws of skewness 3, which covers lattices (enumerated in the tests). Beyond t = 1 / skewness the correction
    would grow faster than the tail falls and means nothing: the bound stays what it is there.
    """
    if skewness <= 0.0:
        return student_beyond(t, freedom)
    t = min(t, 1.0 / skewness)
    tail = student_beyond(t, freedom)
    if tail == 0.0:
        return 0.0  # the bound is exp(-t^2 / 6) at most, with t > 37 where the tail underflows
    exponent = math.log(tail) + skewness * t**3 / 3 + math.log1p(2 * skewness * (1 + t) / 3)
    return math.exp(min(0.0, exponent))


def skewed_quantile(alpha: float, freedom: float, skewness: float) -> float | None:
    """t at which `skewed_beyond` is alpha; None when none is: the sample is too small to prove anything."""
    _check_level(alpha)
    if skewness <= 0.0:
        return student_quantile(alpha, freedom)
    turn = 1.0 / skewness
    if skewed_beyond(turn, freedom, skewness) > alpha:
        return None
    return _bisect(0.0, turn, lambda t: skewed_beyond(t, freedom, skewness) > alpha)


def _check_level(alpha: float) -> None:
    if not 0.0 < alpha <= 0.5:
        raise ValueError(f"a critical value needs 0 < alpha <= 0.5, got {alpha}")


# ---------------------------------------------------------------- two mixes


def chi_square_beyond(value: float, freedom: int) -> float:
    """P(X > value) for a chi-square distribution with a whole number of degrees of freedom (its closed form)."""
    if freedom < 1 or value < 0:
        raise ValueError(f"a chi-square tail needs a value >= 0 and degrees of freedom >= 1, got {value} and {freedom}")
    half = value / 2
    odd = freedom % 2
    total = math.erfc(math.sqrt(half)) if odd else 0.0
    for step in range((freedom - odd) // 2):
        # half**a / gamma(a + 1) exp(-half), a = step or step + 1/2; in logarithms, as none of the three fits alone.
        a = step + odd / 2
        if half > 0:
            total += math.exp(a * math.log(half) - half - math.lgamma(a + 1))
        elif a == 0:
            total += 1.0
    return min(1.0, total)


def same_mix(one: Sequence[int], other: Sequence[int]) -> float:
    """Probability that two samples of one mix are at least as unlike as these: Pearson's test of homogeneity.

    `one`, `other`: counts by class. Classes of which fewer than `RARE` are expected in either sample are taken
    together, since the distribution does not hold for those.
    """
    total_one, total_other = sum(one), sum(other)
    if not total_one or not total_other:
        return 1.0
    share = min(total_one, total_other) / (total_one + total_other)
    kept = [(a, b) for a, b in zip(one, other, strict=True) if (a + b) * share >= RARE]
    rest_one, rest_other = total_one - sum(a for a, _ in kept), total_other - sum(b for _, b in kept)
    if rest_one + rest_other:
        kept.append((rest_one, rest_other))
    if len(kept) < 2:
        return 1.0
    scale = math.sqrt(total_other / total_one)
    statistic = math.fsum((a * scale - b / scale) ** 2 / (a + b) for a, b in kept)
    return chi_square_beyond(statistic, len(kept) - 1)


# ---------------------------------------------------------------- order statistics


def rank_below(trials: int, share: float, alpha: float) -> int | None:
    """Rank m, counted from the largest, of an observation that is at most the (1 - share) quantile, but for `alpha`.

    The smallest m with P(Binomial(trials, share) >= m) <= alpha; None when even the smallest observation may be above.
    """
    if trials == 0 or binomial_at_least(trials, trials, share) > alpha:
        return None
    low, high = 0, trials
    while high - low > 1:
        middle = (low + high) // 2
        if binomial_at_least(middle, trials, share) <= alpha:
            high = middle
        else:
            low = middle
    return high


def rank_above(trials: int, share: float, alpha: float) -> int | None:
    """Rank m, counted from the largest, of an observation that is at least the (1 - share) quantile, but for `alpha`.

    The largest m with P(Binomial(trials, share) <= m - 1) <= alpha; None when even the largest may be below it.
    """
    if trials == 0 or binomial_at_most(0, trials, share) > alpha:
        return None
    low, high = 1, trials + 1
    while high - low > 1:
        middle = (low + high) // 2
        if binomial_at_most(middle - 1, trials, share) <= alpha:
            low = middle
        else:
            high = middle
    return low
