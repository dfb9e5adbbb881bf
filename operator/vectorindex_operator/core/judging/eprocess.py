"""Sequential tests: what a bet against "within its bound" has won so far. Pure; docs/adr/0038-sequential-tests.md.

Somebody stakes 1 on "outside", at odds that are fair when the revision is exactly at its bound. While it is within, he
does not gain on average, whenever he stops; so the probability that he ever holds 1/alpha is alpha at most (Ville's
inequality), at any number of looks. Nothing waits for the end of a window, and nothing is paid for looking again.

- Bets are fixed beforehand, so what is won depends on sums since a start, in whatever order they came.
- Half of the stake bets from the first bucket on, the rest in equal parts from each minute on: a change that comes late
  is seen. Parts whose beginning the rings have forgotten are lost, those yet to begin count nothing: both is less than
  what the inequality allows.
- Of each bet and start the two neighbouring buckets that won the most are left out. What happens within five seconds,
  however much of it, proves nothing: a batch, a client that repeats one query, a second without network.
- A query wins the cube root of what the bet says: three that come together, whatever they have to do with each other,
  win no more than is fair (Hölder's inequality). One visitor asks several times in vain.
- A start counts once there are `enough` samples since then. The inequality needs none; but where queries are few, one
  visitor who asks four times in vain would be proof.

Pairs are judged by it, before a revision gets the traffic (pairs.py), and so is what users are answered with, beside
windows (sequential.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce

from vectorindex_operator.core.judging.blocks import BLOCK

ODDS = (1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
"""By what the odds of a hit are multiplied, if the bets are right. All of them are made at once, with equal parts."""
FRACTIONS = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.5, 0.8)
"""Of the most that a bet on a mean may risk."""
TOGETHER = 3
"""Queries that may come together and prove no more than one of them."""
FIRST_SHARE = 0.5
"""Part of the stake that bets from the first bucket on."""
_EDGE = 1e-9
_MOST = 700.0
"""Logarithm of wealth beyond which nothing changes any more."""

Gains = tuple[float, ...]
"""By what each bet multiplies its wealth, in logarithms."""


@dataclass(frozen=True, slots=True)
class RateBets:
    """Bets on a rate above a bound. Values in [0, 1] may stand for hits: see `gains`."""

    hit: Gains
    miss: Gains

    @classmethod
    def above(cls, bound: float, together: int = TOGETHER) -> RateBets:
        """ValueError for what is no rate. A bound of 0 or 1 is bet against as if it were next to it."""
        if not 0.0 <= bound <= 1.0:
            raise ValueError(f"a bet on a rate needs a bound from 0 to 1, got {bound}")
        bound = min(1.0 - _EDGE, max(_EDGE, bound))
        spare = 1.0 - bound
        # rate = odds * bound / (spare + odds * bound)
        return cls(
            hit=tuple(math.log(odds / (spare + odds * bound)) / together for odds in ODDS),
            miss=tuple(-math.log(spare + odds * bound) / together for odds in ODDS),
        )

    def gains(self, hits: float, trials: float) -> Gains:
        """Of `hits` in `trials`: the likelihood ratio of each rate and the bound.

        `hits` may be a sum of values in [0, 1] as well: exp is convex, so a value wins no more than a coin that lands
        on it as often (Hoeffding). A lowest mean is a highest mean of what is missing.
        """
        return tuple(hits * hit + (trials - hits) * miss for hit, miss in zip(self.hit, self.miss, strict=True))


@dataclass(frozen=True, slots=True)
class MeanBets:
    """Bets on a mean of values in [0, 1] below a bound, for evidence that carries squares.

    With y = (bound - value) / (1 - bound), which is -1 at least, exp(l y + (ln(1 - l) + l) y^2) <= 1 + l y for
    0 <= l < 1 (Fan, Grama and Liu, Electronic Journal of Probability 20, 2015, no. 1), whose expectation is 1 at most.
    """

    bound: float
    together: int = TOGETHER

    def __post_init__(self) -> None:
        if not 0.0 < self.bound < 1.0:
            raise ValueError(f"a bet on a mean needs a bound between 0 and 1, got {self.bound}")

    def gains(self, total: float, squares: float, count: int) -> Gains:
        """Of `count` values with this sum and this sum of squares."""
        scale = 1.0 - self.bound
        first = (count * self.bound - total) / scale
        second = max(0.0, count * self.bound**2 - 2 * self.bound * total + squares) / scale**2
        return tuple((part * first + (math.log1p(-part) + part) * second) / self.together for part in FRACTIONS)


@dataclass(frozen=True, slots=True)
class Stretch:
    """What adjacent buckets won, by bet. Two stretches make one, so blocks of a minute need be added up only once."""

    total: Gains
    best: Gains
    """The most that two neighbours won, losses not counted."""
    first: Gains
    last: Gains
    trials: float

    @classmethod
    def of(cls, gains: Gains, trials: float) -> Stretch:
        """One bucket."""
        won = tuple(max(0.0, gain) for gain in gains)
        return cls(gains, won, won, won, trials)

    def then(self, after: Stretch) -> Stretch:
        across = _add(self.last, after.first)
        return Stretch(
            total=_add(self.total, after.total),
            best=tuple(map(max, self.best, after.best, across)),
            first=self.first,
            last=after.last,
            trials=self.trials + after.trials,
        )

    def wealth(self) -> float:
        """By what the stake is multiplied, without the two neighbours that won the most, on average over the bets."""
        each = (math.exp(min(_MOST, total - best)) for total, best in zip(self.total, self.best, strict=True))
        return math.fsum(each) / len(self.total)


def _add(one: Gains, other: Gains) -> Gains:
    return tuple(a + b for a, b in zip(one, other, strict=True))


Bucket = Callable[[int], tuple[Gains, float]]
"""What a bucket won, and how many samples it holds."""


def wealth(bucket: Bucket, *, first: int, stop: int, oldest: int, starts: int, enough: int) -> float:
    """What a stake of 1 has become. From 1/alpha on the revision is outside beyond doubt, at level alpha.

    `bucket`: those in [first, stop), of which the newest may be one that is still being filled. `oldest`: the first
    one that every ring still holds. `starts`: minutes for which the stake must last (maxDuration, or 24 h).
    """
    parts = holdings(bucket, first=first, stop=stop, oldest=oldest, starts=starts, enough=enough)
    return math.fsum(held for _, held in parts)


def holdings(
    bucket: Bucket, *, first: int, stop: int, oldest: int, starts: int, enough: int
) -> Iterator[tuple[int, float]]:
    """As `wealth`, in its parts: what each has become, and the bucket from which on it was bet; the newest first."""
    share = (1.0 - FIRST_SHARE) / max(1, starts)
    newer: Stretch | None = None
    for number in range((stop - 1) // BLOCK, max(first, oldest) // BLOCK - 1, -1):
        begin = max(first, number * BLOCK)
        if begin < oldest or begin >= stop:
            break
        each = (Stretch.of(*bucket(one)) for one in range(begin, min(stop, (number + 1) * BLOCK)))
        block = reduce(Stretch.then, each)
        newer = block if newer is None else block.then(newer)
        if newer.trials < enough:
            continue
        if begin == first:
            yield begin, FIRST_SHARE * newer.wealth()
        elif number - first // BLOCK <= starts:
            yield begin, share * newer.wealth()


def of_rate(cells: Mapping[int, tuple[float, float]], bound: float, together: int = TOGETHER) -> Bucket:
    """For `wealth`: hits and trials by bucket, against a highest rate. Buckets without any win nothing."""
    bets = RateBets.above(bound, together)

    def bucket(number: int) -> tuple[Gains, float]:
        hits, trials = cells.get(number, (0, 0))
        return bets.gains(hits, trials), trials

    return bucket
