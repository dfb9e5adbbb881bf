"""For shadow.py: what core/judging/pairs.py makes of pairs, for many shadows at once, and the traffic that it judges.

Evidence is arrays [shadows, buckets]; a look comes at the end of each bucket. tests/unit/test_bench_shadow.py compares
the stakes with the operator's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats
from sequential import mean_gains
from sequential_trials import NEVER, OFFSET

from vectorindex_operator.core.judging.blocks import BLOCK
from vectorindex_operator.core.judging.eprocess import FIRST_SHARE, RateBets
from vectorindex_operator.core.judging.pair_bets import RatioBets, ScoreBets, ShareBets, scale_of
from vectorindex_operator.core.judging.pairs import LIKELY, MOST_UNANSWERED, STARTS
from vectorindex_searcher.contract import BUCKET_SECONDS

ENOUGH = 200
ERRORS, ZERO, RISE, DROP, CHANGED, MISSED = 0.02, 0.02, 0.1, 0.05, 0.02, 0.05
"""The bounds of the rules: max, but for RISE (maxRiseVsStable) and DROP (maxDropVsStable)."""
RULES = ("unanswered", "errors", "zero", "rise", "scores", "changed", "missed")
"""All of them are judged together, each with its part of the budget."""
ATONCE = 100
"""Shadows that are judged together: their gains fit into memory."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Sums by shadow and bucket; x = s - DROP |s| - c over scored pairs."""

    sent: np.ndarray
    unanswered: np.ndarray
    pairs: np.ndarray
    zero_both: np.ndarray
    zero_candidate_only: np.ndarray
    zero_stable_only: np.ndarray
    scored: np.ndarray
    x_sum: np.ndarray
    x_squares: np.ndarray
    judged: np.ndarray
    changed_sum: np.ndarray
    changed_squares: np.ndarray
    missed_sum: np.ndarray
    missed_squares: np.ndarray

    def some(self, at: slice) -> Pairs:
        return Pairs(*(getattr(self, name)[at] for name in self.__slots__))


# ---------------------------------------------------------------- stakes


def held(gains: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """What a stake of 1 has become at each look; eprocess.wealth. `gains`: [shadows, buckets, bets]."""
    shadows, buckets, _ = gains.shape
    found = np.zeros((shadows, buckets))
    for begin, share in _starts(buckets):
        mine = gains[:, begin:]
        won = np.maximum(mine, 0)
        pair = won.copy()
        pair[:, 1:] += won[:, :-1]
        left = np.cumsum(mine, axis=1) - np.maximum.accumulate(pair, axis=1)
        rich = np.exp(np.minimum(left, 80)).mean(axis=2)
        found[:, begin:] += share * np.where(np.cumsum(sizes[:, begin:], axis=1) >= ENOUGH, rich, 0)
    return found


def _starts(buckets: int) -> Iterator[tuple[int, float]]:
    yield 0, FIRST_SHARE
    for number in range(1, STARTS + 1):
        if (begin := number * BLOCK - OFFSET) < buckets:
            yield begin, (1 - FIRST_SHARE) / STARTS


def stacked(gains: tuple[np.ndarray, ...]) -> np.ndarray:
    return np.stack([np.asarray(one, np.float32) for one in gains], axis=-1)


def share_gains(bound: float, total: np.ndarray, squares: np.ndarray, count: np.ndarray) -> np.ndarray:
    """ShareBets.gains of arrays."""
    coins = stacked(ShareBets.above(bound).coins.gains(total, count))
    return np.concatenate([coins, mean_gains(1 - bound, count - total, count - 2 * total + squares, count)], axis=-1)


def score_stakes(total: np.ndarray, squares: np.ndarray, count: np.ndarray) -> np.ndarray:
    """With the scale that each look would take from all that it sees."""
    sums, counts = np.cumsum(squares, axis=1), np.maximum(1, np.cumsum(count, axis=1))
    scales = np.frompyfunc(scale_of, 2, 1)(sums, counts).astype(float)
    found = np.zeros(total.shape)
    for scale in np.unique(scales[np.cumsum(count, axis=1) >= ENOUGH]):
        here = scales == scale
        which = np.flatnonzero(here.any(axis=1))
        stakes = held(stacked(ScoreBets.of(float(scale)).gains(total[which], squares[which])), count[which])
        found[which] = np.where(here[which], stakes, found[which])
    return found


def stakes(of: Pairs, changed: float = CHANGED) -> np.ndarray:
    """[rules, shadows, buckets]: what the stake of each rule has become. `changed`: another bound for that rule."""
    sent = of.sent
    above_stable = [RatioBets.above(ratio) for ratio in (1.0, 1.0 + RISE)]
    worse, risen = (
        held(stacked(one.gains(of.zero_candidate_only, of.zero_stable_only, of.zero_both)), of.pairs)
        for one in above_stable
    )
    zero = stacked(RateBets.above(ZERO).gains(of.zero_both + of.zero_candidate_only, of.pairs))
    return np.stack([
        held(stacked(RateBets.above(MOST_UNANSWERED).gains(of.unanswered, sent)), sent),
        held(stacked(RateBets.above(ERRORS).gains(of.unanswered, sent)), sent),
        np.minimum(held(zero, of.pairs), worse),
        risen,
        score_stakes(of.x_sum, of.x_squares, of.scored),
        held(share_gains(changed, of.changed_sum, of.changed_squares, of.judged), of.judged),
        held(share_gains(MISSED, of.missed_sum, of.missed_squares, of.judged), of.judged),
    ])  # fmt: skip


def looks(of: Pairs, budget: float, changed: float = CHANGED) -> np.ndarray:
    """The first look that fails each shadow, or NEVER."""
    found = []
    for at in range(0, len(of.sent), ATONCE):
        rich = stakes(of.some(slice(at, at + ATONCE)), changed).mean(axis=0) >= 1 / budget
        found.append(np.where(rich.any(axis=1), rich.argmax(axis=1), NEVER))
    return np.concatenate(found)


# ---------------------------------------------------------------- evidence


Draw = Callable[[np.random.Generator, int, int, float, float], tuple[np.ndarray, np.ndarray]]
"""Hits and trials of shadows and buckets at so many queries a second and such a rate: sequential_trials.py."""


def at_bounds(rng: np.random.Generator, draw: Draw, shadows: int, buckets: int, per_second: float) -> Pairs:
    """Every rule exactly at its bound (unanswered at its own, so errors are at half of theirs).

    Zero results come of three kinds of visitors: both sides find nothing, or one of them. A tenth of the scores lies
    nine times as far up as the others lie down, which is as skewed as the bets allow. Queries lose all their answers
    or none.
    """

    def hits(rate: float, part: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        x, n = draw(rng, shadows, buckets, per_second * part, rate / part)
        return x[:, :, 0], n[:, :, 0]

    unanswered, sent = hits(MOST_UNANSWERED)
    stable, alike = ZERO / (1 + RISE), 0.75 * ZERO
    (both, n1), (mine, n2), (other, n3) = (hits(rate, 1 / 3) for rate in (alike, ZERO - alike, stable - alike))
    lucky, scored = hits(0.1)
    (changed, n4), (missed, n5) = (hits(rate, 1 / 2) for rate in (CHANGED, MISSED))
    return Pairs(
        sent, unanswered, n1 + n2 + n3, both, mine, other,
        scored, scored - 10.0 * lucky, scored + 80.0 * lucky,
        n4 + n5, changed, changed, missed, missed,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answers:
    """What both sides answer to some queries: first scores, and shares of stable's answers. `least`: minScore."""

    c: np.ndarray
    s: np.ndarray
    changed: np.ndarray
    missed: np.ndarray
    least: float


def asked(
    rng: np.random.Generator,
    answers: Answers,
    shadows: int,
    buckets: int,
    per_second: float,
    *,
    unanswered: float = 0.0,
    repeats: float = 1.0,
) -> Pairs:
    """Queries at random. `repeats`: a visitor asks so many, on average, that meet the same answers, within 30 s."""
    parts = [
        _asked(rng, answers, min(ATONCE, shadows - at), buckets, per_second, unanswered, repeats)
        for at in range(0, shadows, ATONCE)
    ]
    return Pairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in Pairs.__slots__))


def _asked(
    rng: np.random.Generator,
    answers: Answers,
    shadows: int,
    buckets: int,
    per_second: float,
    unanswered: float,
    repeats: float,
) -> Pairs:
    visitors = rng.poisson(per_second * BUCKET_SECONDS / repeats, shadows * buckets)
    where = np.repeat(np.arange(shadows * buckets), visitors)
    which = rng.integers(0, len(answers.c), len(where))
    if repeats > 1:
        times = rng.geometric(1 / repeats, len(where))
        where, which = np.repeat(where, times), np.repeat(which, times)
        bucket = where % buckets + rng.integers(0, 6, len(where))
        inside = bucket < buckets
        where, which = (where - where % buckets + bucket)[inside], which[inside]
    c, s = answers.c[which], answers.s[which]

    def add(values: np.ndarray) -> np.ndarray:
        return np.bincount(where, weights=values, minlength=shadows * buckets).reshape(shadows, buckets)

    zero, stables = c < answers.least, s < answers.least
    scored = ~(zero | stables)
    x = np.where(scored, s - DROP * np.abs(s) - c, 0.0)
    changed, missed = answers.changed[which], answers.missed[which]
    pairs = add(np.ones(len(where)))
    return Pairs(
        pairs, rng.binomial(pairs.astype(int), unanswered), pairs, add(zero & stables), add(zero & ~stables),
        add(stables & ~zero), add(scored), add(x), add(x * x), pairs, add(changed), add(changed**2), add(missed),
        add(missed**2),
    )  # fmt: skip


def with_burst(rng: np.random.Generator, of: Pairs, errors: int) -> Pairs:
    """So many unanswered within five seconds, somewhere."""
    sent, unanswered = of.sent.copy(), of.unanswered.copy()
    for shadow in range(len(sent)):
        when = rng.random() * (sent.shape[1] - 1) + rng.random(errors)
        counted = np.bincount(when.astype(int), minlength=sent.shape[1])
        sent[shadow] += counted
        unanswered[shadow] += counted
    return replace(of, sent=sent, unanswered=unanswered)


def held_up(of: Pairs, least: int) -> np.ndarray:
    """Shadows that end with more than a hundredth unanswered: pairs._judge_unanswered. `least`: `minQueries`."""
    pair = of.unanswered.copy()
    pair[:, :-1] += of.unanswered[:, 1:]
    worst, rows = pair.argmax(axis=1), np.arange(len(pair))
    kept = np.ones(pair.shape, bool)
    kept[rows, worst] = kept[rows, np.minimum(worst + 1, pair.shape[1] - 1)] = False
    hits, trials = ((one * kept).sum(axis=1) for one in (of.unanswered, of.sent))
    chance = stats.binom.sf(hits - 1, trials, MOST_UNANSWERED)
    return np.asarray((hits > MOST_UNANSWERED * trials) & ((trials >= least) | (chance <= LIKELY)))
