"""What a metric is between two answers to one query: its value, stable's, and the bets against its bound. Pure.

`PAIR_METRICS` has the metrics that shadow judges. Latency is left to the soak (another load, cold pages), as are live
recall and clicks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from vectorindex_operator.core.judging.comparison import Bound
from vectorindex_operator.core.judging.eprocess import Gains, RateBets
from vectorindex_operator.core.judging.pair_bets import RatioBets, ScoreBets, ShareBets, scale_of
from vectorindex_operator.core.judging.pair_sums import PairSums

_ROUNDING = 1e-9
"""Relative error that sums of squares may carry: smaller differences of scores prove nothing."""

Bets = Callable[[PairSums], Gains]
"""What the bets against one hypothesis win by some pairs."""


@dataclass(frozen=True, slots=True)
class PairMetric:
    """One row. `stable`: NaN where there is nothing of stable's to be shown."""

    size: Callable[[PairSums], int]
    value: Callable[[PairSums], float]
    stable: Callable[[PairSums], float]
    bets: Callable[[Bound, PairSums], tuple[Bets, ...]]
    """Against which hypotheses a rule bets, given all pairs so far: each must be won for it to be broken. None of them:
    shadow cannot judge such a bound."""
    limit: Callable[[Bound, PairSums], float]
    """The bound in units of the metric."""
    by_sender: bool = False
    """Counted by who sends the queries, not by who answers them."""


def _over(total: float, count: int) -> float:
    return total / count if count else math.nan


# ---------------------------------------------------------------- rates


def _mirrored(sums: PairSums) -> int:
    return max(sums.mirrored, sums.unanswered)


def _error_bets(bound: Bound, _sums: PairSums) -> tuple[Bets, ...]:
    """Only queries that stable answered are sent: that it is better at them says nothing, hence no relative rule, and
    no comparison for an absolute one."""
    if bound.absolute is None or bound.sign < 0:
        return ()
    rate = RateBets.above(bound.absolute)
    return (lambda sums: rate.gains(sums.unanswered, _mirrored(sums)),)


def _pairs(sums: PairSums) -> int:
    return max(sums.pairs, sums.zero_both + sums.zero_candidate_only + sums.zero_stable_only)


def _zero(sums: PairSums) -> int:
    return sums.zero_both + sums.zero_candidate_only


def _zero_bets(bound: Bound, _sums: PairSums) -> tuple[Bets, ...]:
    if bound.sign < 0:
        return ()
    ratio = RatioBets.above(1.0 + (bound.relative or 0.0))

    def above_stable(sums: PairSums) -> Gains:
        return ratio.gains(sums.zero_candidate_only, sums.zero_stable_only, sums.zero_both)

    if bound.absolute is None:
        return (above_stable,)
    rate = RateBets.above(bound.absolute)
    return (lambda sums: rate.gains(_zero(sums), _pairs(sums)), above_stable)


# ---------------------------------------------------------------- scores


def _drop(sums: PairSums, drop: float) -> tuple[float, float]:
    """Sum and sum of squares of s - drop |s| - c."""
    total = sums.s_sum - drop * sums.abs_s_sum - sums.c_sum
    squares = (1.0 + drop * drop) * sums.s_squares + sums.c_squares
    squares += 2.0 * (drop * (sums.c_abs_s_sum - sums.s_abs_s_sum) - sums.cs_sum)
    return total, max(0.0, squares)


def _below(sums: PairSums, least: float) -> tuple[float, float]:
    """Sum and sum of squares of least - c."""
    total = sums.scored * least - sums.c_sum
    return total, max(0.0, sums.scored * least * least - 2.0 * least * sums.c_sum + sums.c_squares)


def _score_bets(bound: Bound, sums: PairSums) -> tuple[Bets, ...]:
    if bound.sign > 0:
        return ()
    drops = _score_bet(lambda of: _drop(of, bound.relative or 0.0), sums)
    if bound.absolute is None:
        return (drops,)
    least = bound.absolute
    return (_score_bet(lambda of: _below(of, least), sums), drops)


def _score_bet(difference: Callable[[PairSums], tuple[float, float]], sums: PairSums) -> Bets:
    _, squares = difference(sums)
    bets = ScoreBets.of(scale_of(squares + _ROUNDING * (sums.s_squares + sums.c_squares), max(1, sums.scored)))
    return lambda of: bets.gains(*difference(of))


def _score_limit(bound: Bound, sums: PairSums) -> float:
    if bound.absolute is not None:
        return bound.absolute
    return _over(sums.s_sum + bound.sign * (bound.relative or 0.0) * sums.abs_s_sum, sums.scored)


# ---------------------------------------------------------------- what became of stable's answers


def _share(total: str, squares: str) -> PairMetric:
    read = attrgetter(total, squares)

    def bets(bound: Bound, _sums: PairSums) -> tuple[Bets, ...]:
        if bound.absolute is None or bound.sign < 0:
            return ()  # stable's own share is 0 by definition
        above = ShareBets.above(bound.absolute)
        return (lambda sums: above.gains(*read(sums), sums.answers_judged),)

    return PairMetric(
        size=lambda sums: sums.answers_judged,
        value=lambda sums: _over(read(sums)[0], sums.answers_judged),
        stable=lambda _sums: math.nan,
        bets=bets,
        limit=lambda bound, _sums: bound.limit(math.nan),
    )


PAIR_METRICS: dict[str, PairMetric] = {
    "ErrorRate": PairMetric(
        size=_mirrored,
        value=lambda sums: _over(sums.unanswered, _mirrored(sums)),
        stable=lambda _sums: math.nan,
        bets=_error_bets,
        limit=lambda bound, _sums: bound.limit(math.nan),
        by_sender=True,
    ),
    "ZeroResultRate": PairMetric(
        size=_pairs,
        value=lambda sums: _over(_zero(sums), _pairs(sums)),
        stable=lambda sums: _over(sums.zero_both + sums.zero_stable_only, _pairs(sums)),
        bets=_zero_bets,
        limit=lambda bound, sums: bound.limit(_over(sums.zero_both + sums.zero_stable_only, _pairs(sums))),
    ),
    "TopScore": PairMetric(
        size=lambda sums: sums.scored,
        value=lambda sums: _over(sums.c_sum, sums.scored),
        stable=lambda sums: _over(sums.s_sum, sums.scored),
        bets=_score_bets,
        limit=_score_limit,
    ),
    "AnswersMissed": _share("missed_sum", "missed_squares"),
    "AnswersChanged": _share("changed_sum", "changed_squares"),
}
