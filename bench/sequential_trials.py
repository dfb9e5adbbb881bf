"""For sequential.py: the two tests, for many soaks at once, and the traffic that they judge.

Evidence is an array [soaks, buckets, parts]: what was counted before a look at a bucket, and after it; one part where
the look comes when the bucket is over. `looks` are numbers of buckets. The tests do what the operator's own functions
do (core/judging/judge.py, core/judging/eprocess.py): tests/unit/test_bench_sequential.py compares them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc

from vectorindex_operator.core.judging.blocks import BLOCK
from vectorindex_operator.core.judging.eprocess import FIRST_SHARE, TOGETHER, RateBets
from vectorindex_operator.core.judging.evidence import EPOCH_LIMIT, VISIBLE
from vectorindex_searcher.contract import BUCKET_SECONDS

VARIANTS = ("plain", "bucket", "pair", "enough")
"""What is left out of the evidence: nothing, the strongest bucket, the two neighbours that are strongest; these, and
starts since which there are fewer than ENOUGH samples."""
ENOUGH = 200
NEVER = -1
OFFSET = 7
"""The switch lies somewhere within a minute."""
SLOTS = 60
_CLIP = 60.0
ATONCE = 128
"""Soaks that are judged together: their state fits into a cache."""


# ---------------------------------------------------------------- today's windows


@dataclass(frozen=True, slots=True)
class Windows:
    """A rule's `window` in buckets, `minSamples` and `consecutive`; `level` of one window."""

    span: int
    enough: int
    consecutive: int
    level: float

    @classmethod
    def of(
        cls, budget: float, horizon: float, seconds: float = 60, enough: int = ENOUGH, consecutive: int = 2
    ) -> Windows:
        return cls(int(seconds // BUCKET_SECONDS), enough, consecutive, budget / np.ceil(horizon / seconds))


def window_looks(hits: np.ndarray, trials: np.ndarray, bound: float, how: Windows, first: int = 0) -> np.ndarray:
    """The look at which windows first say Fail. Hits may be sums of values in [0, 1]: then it is Chernoff's bound."""
    hits, trials = hits.sum(axis=2), trials.sum(axis=2)
    rates = np.issubdtype(hits.dtype, np.integer)
    soaks, buckets = hits.shape
    found = np.full(soaks, NEVER)
    epoch = max(1, EPOCH_LIMIT // how.span) * how.span
    n, x, length, run = (np.zeros(soaks) for _ in range(4))
    for bucket in range(first, buckets):
        if (bucket - first) % epoch == 0:
            n[:], x[:], length[:] = 0, 0, 0
        n += trials[:, bucket]
        x += hits[:, bucket]
        length += 1
        closed = (length >= how.span) & (n >= how.enough)
        suspect = np.flatnonzero(closed & (x > n * bound))
        failed = np.zeros(soaks, bool)
        if suspect.size:
            tail = betainc(x[suspect], n[suspect] - x[suspect] + 1, bound) if rates else _chernoff(x, n, bound, suspect)
            failed[suspect] = tail <= how.level
        run = np.where(closed, np.where(failed, run + 1, 0), run)
        found[(run >= how.consecutive) & (found == NEVER)] = bucket + 1
        n[closed], x[closed], length[closed] = 0, 0, 0
    return found


def _chernoff(x: np.ndarray, n: np.ndarray, bound: float, which: np.ndarray) -> np.ndarray:
    mean = np.clip(x[which] / n[which], 1e-12, 1 - 1e-12)
    divergence = mean * np.log(mean / bound) + (1 - mean) * np.log((1 - mean) / (1 - bound))
    return np.exp(-n[which] * divergence)


# ---------------------------------------------------------------- wealth


def rate_gains(hits: np.ndarray, trials: np.ndarray, bound: float, together: int = TOGETHER) -> np.ndarray:
    """Logarithms [soaks, buckets, parts, bets]."""
    bets = RateBets.above(bound, together)
    hit, miss = (np.asarray(one, np.float32) for one in (bets.hit, bets.miss))
    x = hits[..., None].astype(np.float32)
    return x * hit + (trials[..., None].astype(np.float32) - x) * miss


def wealth_looks(
    gains: np.ndarray, trials: np.ndarray, *, starts: int, level: float, since: int = 0
) -> dict[str, np.ndarray]:
    """For each variant the first look, from `since` on, at which its wealth is 1/`level`."""
    chunks = [
        _wealth_looks(gains[at : at + ATONCE], trials[at : at + ATONCE], starts, level, since)
        for at in range(0, len(gains), ATONCE)
    ]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in VARIANTS}


def most_wealth(gains: np.ndarray, *, starts: int, level: float, largest: bool = False) -> np.ndarray:
    """The first look at which wealth would be 1/`level` if nothing were left out and the rings forgot nothing.

    So it is never less than wealth, and sixty times as quick to compute: what all starts of a minute have won
    together goes on like one. `largest`: the best of them counts, not the average.
    """
    soaks, buckets, _, bets = gains.shape
    first, rest = np.full((soaks, bets), FIRST_SHARE / bets), np.zeros((soaks, bets))
    found = np.full(soaks, NEVER)
    for bucket in range(buckets):
        number, place = divmod(bucket + OFFSET, BLOCK)
        if bucket and place == 0 and number <= starts:
            rest = np.maximum(rest, FIRST_SHARE / bets) if largest else rest + (1 - FIRST_SHARE) / starts / bets
        won = np.exp(np.minimum(gains[:, bucket].sum(axis=1, dtype=float), _CLIP))
        first, rest = np.minimum(first * won, 1e200), np.minimum(rest * won, 1e200)
        rich = (first + rest).sum(axis=1) >= 1 / level
        found[rich & (found == NEVER)] = bucket
    return found


class _State:
    """Wealth of each soak, start and bet, and the most that one bucket and two neighbours have won of it."""

    def __init__(self, soaks: int, bets: int) -> None:
        shape = (soaks, SLOTS + 1, bets)
        self.held = np.full(shape, -np.inf, np.float32)
        self.single, self.pair = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.before = np.zeros((soaks, bets), np.float32)
        self.trials = np.zeros((soaks, SLOTS + 1))
        self.began = np.full(SLOTS + 1, -(10**9))
        """Bucket in which each slot began; the last one is the first start."""

    def begin(self, bucket: int, slot: int) -> None:
        self.held[:, slot], self.single[:, slot], self.pair[:, slot], self.trials[:, slot] = 0, 0, 0, 0
        self.began[slot] = bucket

    def forget(self, oldest: int) -> None:
        gone = np.flatnonzero((self.began < oldest) & (self.began >= 0))
        self.held[:, gone] = -np.inf
        self.began[gone] = -(10**9)

    def close(self, bucket: int, gains: np.ndarray, trials: np.ndarray, held: np.ndarray | None) -> None:
        self.held = self.held + gains[:, None] if held is None else held
        self.trials += trials[:, None]
        won = np.maximum(gains, 0)
        np.maximum(self.single, won[:, None], out=self.single)
        np.maximum(self.pair, (self.before + won)[:, None], out=self.pair)
        new = np.flatnonzero(self.began == bucket)
        self.pair[:, new] = won[:, None]
        self.before = won


def _wealth_looks(
    gains: np.ndarray, trials: np.ndarray, starts: int, level: float, since: int
) -> dict[str, np.ndarray]:
    soaks, buckets, parts, bets = gains.shape
    state, edge = _State(soaks, bets), np.log(1 / level)
    found = {name: np.full(soaks, NEVER) for name in VARIANTS}
    shares = np.full(SLOTS + 1, (1 - FIRST_SHARE) / starts / bets)
    shares[SLOTS] = FIRST_SHARE / bets
    for bucket in range(buckets):
        number, place = divmod(bucket + OFFSET, BLOCK)
        if bucket == 0:
            state.begin(0, SLOTS)
        elif place == 0 and number <= starts:
            state.begin(bucket, number % SLOTS)
        # A bucket that is still open counts while the last complete one is the one before it.
        state.forget(bucket + (parts == 1) - VISIBLE)
        now = gains[:, bucket, 0]
        held = state.held + now[:, None]
        hot = held.max(axis=(1, 2)) >= edge
        hot &= np.any([found[name] == NEVER for name in VARIANTS], axis=0)
        if bucket >= since and hot.any():
            counts = state.trials + trials[:, bucket, :1]
            _look(state, bucket, np.flatnonzero(hot), (held, now, counts), (shares, 1 / level), found)
        if all((found[name] != NEVER).all() for name in VARIANTS):
            break
        whole = gains[:, bucket].sum(axis=1), trials[:, bucket].sum(axis=1)
        state.close(bucket, *whole, held if parts == 1 else None)
    return found


def _look(
    state: _State,
    bucket: int,
    hot: np.ndarray,
    seen: tuple[np.ndarray, np.ndarray, np.ndarray],
    needed: tuple[np.ndarray, float],
    found: dict[str, np.ndarray],
) -> None:
    """`seen`: wealth, what the bucket won of it so far, and samples since each start."""
    held, now, counts = (one[hot] for one in seen)
    shares, most = needed
    won = np.maximum(now, 0)
    single = np.maximum(state.single[hot], won[:, None])
    pair = np.maximum(state.pair[hot], (state.before[hot] + won)[:, None])
    pair[:, np.flatnonzero(state.began == bucket)] = won[:, None]
    for name, removed in zip(VARIANTS, (np.float32(0), single, pair, pair), strict=True):
        each = (np.exp(np.minimum(held - removed, _CLIP)) * shares[None, :, None]).sum(axis=2)
        if name == "enough":
            each = np.where(counts >= ENOUGH, each, 0)
        rich = hot[each.sum(axis=1) >= most]
        found[name][rich[found[name][rich] == NEVER]] = bucket


# ---------------------------------------------------------------- traffic


@dataclass(frozen=True, slots=True)
class Clock:
    """When the switch and the looks are within a bucket, seconds, by soak."""

    switched: np.ndarray
    look: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, soaks: int) -> Clock:
        return cls(*(rng.random((2, soaks)) * BUCKET_SECONDS))

    def seconds(self, buckets: int) -> np.ndarray:
        """[soaks, buckets, 2]: of traffic before and after the look at each bucket."""
        found = np.empty((len(self.look), buckets, 2))
        found[:, :, 0], found[:, :, 1] = self.look[:, None], BUCKET_SECONDS - self.look[:, None]
        found[:, 0, 0] = np.maximum(0, self.look - self.switched)
        found[:, 0, 1] = BUCKET_SECONDS - self.switched - found[:, 0, 0]
        return found

    def since(self, looks: np.ndarray, bucket: int | None = None) -> np.ndarray:
        """Seconds from the switch, or from the beginning of a bucket, to these looks."""
        began = self.switched if bucket is None else bucket * BUCKET_SECONDS
        return np.where(looks == NEVER, np.inf, looks * BUCKET_SECONDS + self.look - began)


def independent(
    rng: np.random.Generator, soaks: int, buckets: int, per_second: float, rate: float
) -> tuple[np.ndarray, np.ndarray]:
    """Hits and trials; looks at the end of buckets."""
    trials = rng.poisson(per_second * BUCKET_SECONDS, (soaks, buckets, 1))
    return rng.binomial(trials, rate), trials


def sessions(
    rng: np.random.Generator, soaks: int, buckets: int, per_second: float, rate: float, size: float, inside: float
) -> tuple[np.ndarray, np.ndarray]:
    """Visitors who ask `size` times on average within half a minute: some have `inside` hits a query, others none."""
    spread = 6
    hits, trials = np.zeros((2, soaks, buckets + spread), np.int64)
    begun = per_second * BUCKET_SECONDS / size
    for share, chance in ((rate / inside, inside), (1 - rate / inside, 0.0)):
        visitors = rng.poisson(begun * share, (soaks, buckets))
        left = visitors + rng.negative_binomial(np.maximum(visitors, 1), 1 / size) * (visitors > 0)
        for later in range(spread):
            mine = rng.binomial(left, 1 / (spread - later))
            left = left - mine
            trials[:, later : later + buckets] += mine
            hits[:, later : later + buckets] += rng.binomial(mine, chance)
    return hits[:, :buckets, None], trials[:, :buckets, None]


def batches(
    rng: np.random.Generator, soaks: int, buckets: int, per_second: float, rate: float, size: int, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """A `share` of the queries comes in requests of `size`, all of whose queries hit, or none."""
    hits, trials = independent(rng, soaks, buckets, per_second * (1 - share), rate)
    requests = rng.poisson(per_second * share * BUCKET_SECONDS / size, trials.shape)
    return hits + size * rng.binomial(requests, rate), trials + size * requests


def bots(
    rng: np.random.Generator, soaks: int, buckets: int, per_second: float, rate: float, every: float, own: float
) -> tuple[np.ndarray, np.ndarray]:
    """Once in `every` seconds somebody repeats one query `own` times a second, for one to five minutes."""
    hits, trials = independent(rng, soaks, buckets, per_second, rate)
    for soak in range(soaks):
        for begin in rng.integers(0, buckets, rng.poisson(buckets * BUCKET_SECONDS / every)):
            stop = begin + rng.integers(BLOCK, 5 * BLOCK)
            asked = rng.poisson(own * BUCKET_SECONDS, trials[soak, begin:stop].shape)
            trials[soak, begin:stop] += asked
            hits[soak, begin:stop] += asked if rng.random() < rate else 0
    return hits, trials


def with_burst(
    rng: np.random.Generator, evidence: tuple[np.ndarray, np.ndarray], errors: int, seconds: float
) -> tuple[np.ndarray, np.ndarray]:
    """One burst of `errors` within so many seconds, at any time."""
    hits, trials = (one.copy() for one in evidence)
    buckets = hits.shape[1]
    for soak in range(len(hits)):
        when = rng.random() * (buckets * BUCKET_SECONDS - seconds) + rng.random(errors) * seconds
        counted = np.bincount((when // BUCKET_SECONDS).astype(int), minlength=buckets)[:, None]
        hits[soak] += counted
        trials[soak] += counted
    return hits, trials


def scaled(
    rng: np.random.Generator, soaks: int, buckets: int, per_second: float, rate: float, every: int, *, unlucky: bool
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Four pods share the traffic; every so many buckets one goes, and takes its sums along; another one comes.

    Yields from which look on, and what is left to be counted. `unlucky`: the pod with the lowest rate goes each time.
    """
    pods = 4
    hits = np.zeros((pods, soaks, buckets), np.int64)
    trials = np.zeros_like(hits)
    for begin in range(0, buckets, every):
        stop = min(buckets, begin + every)
        if begin:
            seen = hits.sum(axis=2) / np.maximum(1, trials.sum(axis=2))
            gone = seen.argmin(axis=0) if unlucky else rng.integers(0, pods, soaks)
            hits[gone, np.arange(soaks), :begin] = 0
            trials[gone, np.arange(soaks), :begin] = 0
        trials[:, :, begin:stop] = rng.poisson(per_second * BUCKET_SECONDS / pods, (pods, soaks, stop - begin))
        hits[:, :, begin:stop] = rng.binomial(trials[:, :, begin:stop], rate)
        yield begin, hits.sum(axis=0)[:, :stop, None], trials.sum(axis=0)[:, :stop, None]
