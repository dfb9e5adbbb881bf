"""Bets on pairs: what the candidate and stable answered to the same query. Pure; docs/adr/0040-pairs.md.

As in eprocess.py each bet is fair, or worse, as long as the candidate is within its bound, and what it wins depends on
sums alone: over pods, over queries, in whatever order they came. A query wins the cube root of what the bet says.

- `RatioBets`: a rate above so many times stable's. The relation itself, not mere change: with a million pairs a rise of
  a hundredth is beyond doubt, and no harm.
- `ShareBets`: the mean of a share of each query's answers above a bound.
- `ScoreBets`: the mean of a difference without any ends above 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vectorindex_operator.core.judging.comparison import SKEWNESS
from vectorindex_operator.core.judging.eprocess import TOGETHER, Gains, MeanBets, RateBets

RATIO_FRACTIONS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
"""Of the most that a bet on two rates may risk. All are made at once, with equal parts."""
SCORE_FRACTIONS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.13, 0.17)
"""Stakes on a difference of one standard deviation. Beyond .18 `ScoreBets` is no fair bet any more."""
_EDGE = 1e-6
"""A bound on shares of 0 or 1 is bet against as if it were this far from it."""

_LEAST_SQUARE = 1e-200
"""Scores below its root are 0 for all that is computed here."""


@dataclass(frozen=True, slots=True)
class RatioBets:
    """Bets on the candidate's rate being above `ratio` times stable's.

    With C and S what either did at a pair (0 or 1), a bet of l multiplies by 1 + l (C - ratio S), whose expectation is
    1 at most where P(C) <= ratio P(S), whatever the two have to do with each other.
    """

    candidate_only: Gains
    stable_only: Gains
    both: Gains

    @classmethod
    def above(cls, ratio: float, together: int = TOGETHER) -> RatioBets:
        """`ratio`: 1 at least."""
        if not 1.0 <= ratio < math.inf:
            raise ValueError(f"a bet on two rates needs a ratio of 1 at least, got {ratio}")
        bets = [fraction / ratio for fraction in RATIO_FRACTIONS]
        return cls(
            candidate_only=tuple(math.log1p(bet) / together for bet in bets),
            stable_only=tuple(math.log1p(-bet * ratio) / together for bet in bets),
            both=tuple(math.log1p(bet * (1.0 - ratio)) / together for bet in bets),
        )

    def gains(self, candidate_only: float, stable_only: float, both: float) -> Gains:
        """Of so many pairs. Those at which neither did it win and lose nothing."""
        return tuple(
            candidate_only * mine + stable_only * other + both * all_alike
            for mine, other, all_alike in zip(self.candidate_only, self.stable_only, self.both, strict=True)
        )


@dataclass(frozen=True, slots=True)
class ShareBets:
    """Bets on the mean of values in [0, 1] being above a bound, from their sum and the sum of their squares.

    Half of the stake is on coins (sharp where a query loses all of its answers or none), half uses the squares (where
    each loses a few).
    """

    coins: RateBets
    rest: MeanBets
    """Of what is missing to 1, whose mean is then below 1 - bound."""

    @classmethod
    def above(cls, bound: float, together: int = TOGETHER) -> ShareBets:
        bound = min(1.0 - _EDGE, max(_EDGE, bound))
        return cls(RateBets.above(bound, together), MeanBets(1.0 - bound, together))

    def gains(self, total: float, squares: float, count: int) -> Gains:
        rest = self.rest.gains(count - total, max(0.0, count - 2.0 * total + squares), count)
        return (*self.coins.gains(total, count), *rest)


@dataclass(frozen=True, slots=True)
class ScoreBets:
    """Bets on the mean of differences x without any ends being above 0, from their sum and the sum of their squares.

    With y = l x a bet multiplies by exp(y - a y^2). For y >= 0 this is 1 + y at most, and for y = -u < 0 it is at most
    1 - u - (a - 1/2) u^2 + (a - 1/6) u^3 (for 1/2 <= a <= .9; checked in the tests). So its expectation is 1 at most if
    l (a - 1/6) E[u^3] <= (a - 1/2) E[u^2], and with t = l E[u^3] / E[u^2] the least such a is (1/2 - t / 6) / (1 - t).

    What is assumed: E[u^3] <= SKEWNESS sd E[u^2]. The candidate's luck, each weighted by its own square, is three
    standard deviations at most; the other side may be as heavy as it likes. An exponential distribution has exactly 3,
    so has a tenth of the queries that score nine times as far up as the rest does down. And `scale`, from the same
    sums, must be no smaller than the real standard deviation: hence it is rounded up, and `min_samples` come first.
    """

    first: Gains
    """Of a unit of the sum."""
    second: Gains
    """Of a unit of the sum of squares."""

    @classmethod
    def of(cls, scale: float, together: int = TOGETHER) -> ScoreBets:
        """`scale`: of one difference; see `scale_of`."""
        t = [fraction * SKEWNESS for fraction in SCORE_FRACTIONS]
        costs = [(0.5 - one / 6.0) / (1.0 - one) for one in t]
        return cls(
            first=tuple(fraction / scale / together for fraction in SCORE_FRACTIONS),
            second=tuple(
                -cost * (fraction / scale) ** 2 / together
                for cost, fraction in zip(costs, SCORE_FRACTIONS, strict=True)
            ),
        )

    def gains(self, total: float, squares: float) -> Gains:
        return tuple(total * one + squares * two for one, two in zip(self.first, self.second, strict=True))


def scale_of(squares: float, count: int) -> float:
    """The root of the mean square, up to the next power of two: bets do not move from look to look as it does.

    `count`: above 0.
    """
    return float(2.0 ** math.ceil(math.log2(math.sqrt(max(_LEAST_SQUARE, squares / count)))))
