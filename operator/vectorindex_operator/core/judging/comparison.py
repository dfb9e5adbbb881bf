"""Comparing one sample with one bound: the value, whether it is inside, and whether it is outside beyond doubt.

Four families cover every metric: a rate (hits of trials), a quantile (which is a rate of slower queries), a mean, and a
mean of values between fixed ends.
"Beyond doubt" at level alpha: were the revision exactly at its bound, a sample this bad would come up with probability
alpha at most. Knows no time, no window and no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vectorindex_operator.core.judging import histogram, statistics
from vectorindex_operator.core.judging.evidence import Counts

SKEWNESS = 3.0
"""Largest skewness of single scores, either sign, for which a mean keeps its level. An exponential has 2; a tenth of
the queries scoring far above the rest has 2.7."""
_ROUNDING = 1e-9
"""Relative error that sums of scores may carry; differences below it prove nothing."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a rule allows. `sign` +1: the value must not be above; -1: not below. One of the two others is None.

    `absolute`: in units of the metric (rates as fractions, seconds, scores). `relative`: fraction of stable's value.
    """

    sign: int
    absolute: float | None
    relative: float | None

    def limit(self, base_value: float) -> float:
        """The bound in units of the metric. `base_value` is ignored by an absolute bound."""
        if self.absolute is not None:
            return self.absolute
        assert self.relative is not None
        # The magnitude: 5 % below a score of -1 (minus the squared distance) is -1.05.
        return base_value + self.sign * self.relative * abs(base_value)

    def allows(self, value: float, edge: float) -> bool:
        """Whether `value` is within `edge`, as `limit` has it; False when either is not a number."""
        return self.sign * (value - edge) <= _ROUNDING * max(abs(value), abs(edge))


@dataclass(frozen=True, slots=True)
class Levels:
    """One-sided levels. `window`: of one window. `once`: of a statement about the baseline, made once per rollout."""

    window: float
    once: float


class Family(Protocol):
    """How samples of one kind are compared. `base` is the stable revision's sample; None with an absolute bound."""

    def size(self, cell: Counts) -> int:
        """Samples in a cell."""

    def enough(self, levels: Levels) -> int:
        """Samples without which nothing can be beyond doubt, whatever their values."""

    def value(self, cell: Counts) -> float:
        """The point estimate, in units of the metric; NaN when it is not defined."""

    def confidence(self, cell: Counts, base: Counts | None, bound: Bound, levels: Levels) -> float | None:
        """The confidence limit on the side of the bound, in units of the metric; None where there is none."""

    def beyond(self, cell: Counts, base: Counts | None, bound: Bound, levels: Levels) -> bool:
        """Whether the sample is outside the bound beyond doubt."""


def limit(family: Family, base: Counts | None, bound: Bound) -> float:
    """The bound in units of the metric."""
    return bound.limit(family.value(base) if base is not None else math.nan)


def inside(family: Family, cell: Counts, base: Counts | None, bound: Bound) -> bool:
    """Whether the value is within the bound; False when either is not a number."""
    return bound.allows(family.value(cell), limit(family, base, bound))


@dataclass(frozen=True, slots=True)
class Rate:
    """Hits of trials. Exact: the binomial tail, and for ratios the conditional binomial."""

    hits: Callable[[Counts], int]
    trials: Callable[[Counts], int]

    def size(self, cell: Counts) -> int:
        return self.trials(cell)

    def enough(self, levels: Levels) -> int:  # noqa: ARG002 - exact at any size
        return 1

    def value(self, cell: Counts) -> float:
        return self.hits(cell) / self.trials(cell) if self.trials(cell) else math.nan

    def confidence(self, cell: Counts, base: Counts | None, bound: Bound, levels: Levels) -> float | None:
        hits, trials = self.hits(cell), self.trials(cell)
        if not trials:
            return None
        if base is None:
            one = statistics.rate_lower if bound.sign > 0 else statistics.rate_upper
            return one(hits, trials, levels.window)
        # The limit of the ratio, told as a rate. Nothing to tell when stable had no event at all.
        base_value = self.value(base)
        two = statistics.ratio_lower if bound.sign > 0 else statistics.ratio_upper
        ratio = two(hits, trials, self.hits(base), self.trials(base), levels.window)
        return ratio * base_value if base_value > 0 and math.isfinite(ratio) else None

    def beyond(self, cell: Counts, base: Counts | None, bound: Bound, levels: Levels) -> bool:
        hits, trials = self.hits(cell), self.trials(cell)
        if not trials:
            return False
        if base is None:
            assert bound.absolute is not None
            one = statistics.binomial_at_least if bound.sign > 0 else statistics.binomial_at_most
            return one(hits, trials, bound.absolute) <= levels.window
        two = statistics.ratio_at_least if bound.sign > 0 else statistics.ratio_at_most
        ratio = max(0.0, bound.limit(1.0))
        return two(hits, trials, self.hits(base), self.trials(base), ratio) <= levels.window


@dataclass(frozen=True, slots=True)
class Quantile:
    """The latency that a share `slower` of the queries exceeds. Distribution-free: order statistics of the histogram.

    Against stable: stable's quantile has a confidence limit too, at a level that is spent once, because the baseline
    is one sample for the whole rollout; the windows share the other half of the budget.
    """

    slower: float

    def size(self, cell: Counts) -> int:
        return sum(cell.latency.values())

    def enough(self, levels: Levels) -> int:  # noqa: ARG002 - exact at any size
        return 1

    def value(self, cell: Counts) -> float:
        return histogram.quantile(cell.latency, self.slower) if self.size(cell) else math.nan

    def confidence(self, cell: Counts, base: Counts | None, bound: Bound, levels: Levels) -> float | None:
        return self._limit(cell, bound.sign, levels.window if base is None else levels.window / 2)

    def beyond(self, cell: Counts, base: Counts | None, bound: Bound, levels: Levels) -> bool:
        if base is None and bound.sign > 0:
            # The same as comparing the confidence limit, with one tail instead of a search.
            slower = histogram.surely_slower(cell.latency, bound.limit(math.nan))
            return slower > 0 and statistics.binomial_at_least(slower, self.size(cell), self.slower) <= levels.window
        own = self.confidence(cell, base, bound, levels)
        base_value = math.nan if base is None else self._limit(base, -bound.sign, levels.once)
        if own is None or base_value is None:
            return False
        return bound.sign * (own - bound.limit(base_value)) > 0

    def _limit(self, cell: Counts, sign: int, alpha: float) -> float | None:
        """Confidence limit of the quantile, from below (`sign` +1) or above (-1), at the outer edge of its bin."""
        rank = (statistics.rank_below if sign > 0 else statistics.rank_above)(self.size(cell), self.slower, alpha)
        if rank is None:
            return None
        index = histogram.slowest(cell.latency, rank)
        return histogram.bin_floor(index) if sign > 0 else histogram.bin_floor(index + 1)


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean score of the first hit. Student's t (Welch's with a baseline), allowing for a skewness of `SKEWNESS`."""

    def size(self, cell: Counts) -> int:
        return cell.top_count

    def enough(self, levels: Levels) -> int:
        """At 1e-5 some 600 scores: in fewer, skewed scores can miss their rare values altogether."""
        low, high = 1, 4
        while not _judgeable(high, levels.window):
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if _judgeable(middle, levels.window) else (middle, high)
        return high

    def value(self, cell: Counts) -> float:
        return cell.top_sum / cell.top_count if cell.top_count else math.nan

    def confidence(self, cell: Counts, base: Counts | None, bound: Bound, levels: Levels) -> float | None:
        spread = self._spread(cell, base, bound)
        if spread is None:
            return None
        critical = statistics.skewed_quantile(levels.window, spread.freedom, spread.skewness)
        return None if critical is None else self.value(cell) - bound.sign * critical * spread.error

    def beyond(self, cell: Counts, base: Counts | None, bound: Bound, levels: Levels) -> bool:
        spread = self._spread(cell, base, bound)
        if spread is None or inside(self, cell, base, bound):
            return False
        distance = abs(self.value(cell) - limit(self, base, bound))
        statistic = distance / spread.error if spread.error > 0 else math.inf
        return statistics.skewed_beyond(statistic, spread.freedom, spread.skewness) <= levels.window

    def _spread(self, cell: Counts, base: Counts | None, bound: Bound) -> _Spread | None:
        """Of the value minus the limit: stable's mean is multiplied by what the bound allows. None: not defined."""
        parts = [(1.0, cell)]
        if base is not None and self.value(base) != 0:
            parts.append((bound.limit(self.value(base)) / self.value(base), base))
        if any(part.top_count < 2 for _, part in parts):
            return None
        squares = [scale**2 * _variance(part) / part.top_count for scale, part in parts]
        counts = [part.top_count for _, part in parts]
        total = math.fsum(squares)
        if not (math.isfinite(total) and math.isfinite(self.value(cell))):
            return None
        if total == 0:
            return _Spread(0.0, min(counts) - 1, SKEWNESS / math.sqrt(min(counts)))
        thirds = [s**1.5 / math.sqrt(n) for s, n in zip(squares, counts, strict=True)]
        return _Spread(
            error=math.sqrt(total),
            freedom=total**2 / math.fsum(s**2 / (n - 1) for s, n in zip(squares, counts, strict=True)),
            skewness=SKEWNESS * math.fsum(thirds) / total**1.5,
        )


@dataclass(frozen=True, slots=True)
class Bounded:
    """Mean of values in [`low`, `high`(cell)], each of one query. Distribution-free: Chernoff's bound, any sample size.

    Against stable: as `Quantile`, stable's own limit is a statement made once, at half of the rule's budget.
    """

    count: Callable[[Counts], int]
    total: Callable[[Counts], float]
    """Sum of the values."""
    low: float = 0.0
    high: Callable[[Counts], float] = lambda _cell: 1.0

    def size(self, cell: Counts) -> int:
        return self.count(cell)

    def enough(self, levels: Levels) -> int:  # noqa: ARG002 - holds at any size
        return 1

    def value(self, cell: Counts) -> float:
        return self.total(cell) / self.count(cell) if self.count(cell) else math.nan

    def confidence(self, cell: Counts, base: Counts | None, bound: Bound, levels: Levels) -> float | None:
        return self._limit(cell, bound.sign, levels.window if base is None else levels.window / 2)

    def beyond(self, cell: Counts, base: Counts | None, bound: Bound, levels: Levels) -> bool:
        if base is None:
            value, edge = self._scaled(cell, self.value(cell)), self._scaled(cell, bound.limit(math.nan))
            if not (0 <= edge <= 1 and bound.sign * (value - edge) > 0):
                return False
            return statistics.bounded_beyond(value, self.count(cell), edge) <= levels.window
        own = self.confidence(cell, base, bound, levels)
        base_value = self._limit(base, -bound.sign, levels.once)
        return own is not None and base_value is not None and bound.sign * (own - bound.limit(base_value)) > 0

    def _scaled(self, cell: Counts, value: float) -> float:
        """From [low, high] to [0, 1]; rounding of sums may not leave it. A bound outside stays outside."""
        scaled = (value - self.low) / (self.high(cell) - self.low)
        return min(1.0, max(0.0, scaled)) if -_ROUNDING < scaled < 1 + _ROUNDING else scaled

    def _limit(self, cell: Counts, sign: int, alpha: float) -> float | None:
        """Confidence limit of the mean, from below (`sign` +1) or above (-1)."""
        if not self.count(cell) or not math.isfinite(self.value(cell)):
            return None
        one = statistics.bounded_lower if sign > 0 else statistics.bounded_upper
        scaled = min(1.0, max(0.0, self._scaled(cell, self.value(cell))))
        return self.low + (self.high(cell) - self.low) * one(scaled, self.count(cell), alpha)


@dataclass(frozen=True, slots=True)
class _Spread:
    """Standard error, degrees of freedom (Welch and Satterthwaite) and largest skewness of a difference of means."""

    error: float
    freedom: float
    skewness: float


def _judgeable(count: int, alpha: float) -> bool:
    """Whether so many scores can be beyond doubt at all, however far they are from the bound."""
    return statistics.skewed_beyond(math.inf, count - 1, SKEWNESS / math.sqrt(count)) <= alpha


def _variance(cell: Counts) -> float:
    """Unbiased variance of the scores; rounding may not make it negative."""
    mean = cell.top_sum / cell.top_count
    return max(0.0, cell.top_sum_squares - cell.top_count * mean * mean) / (cell.top_count - 1)
