"""For sequential.py: how often a revision trips that should not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from results import table
from scipy import stats
from sequential_trials import (
    ATONCE,
    NEVER,
    VARIANTS,
    Windows,
    batches,
    bots,
    independent,
    most_wealth,
    rate_gains,
    scaled,
    sessions,
    wealth_looks,
    window_looks,
    with_burst,
)

from vectorindex_operator.core.judging.eprocess import TOGETHER
from vectorindex_searcher.contract import BUCKET_SECONDS

BUDGET = 0.01
SOAK, DAY = 6 * 3600, 24 * 3600
SCALED = 1080
"""Buckets in which pods come and go."""
BOUND = 0.02
NAMES = {
    "plain": "nothing left out",
    "bucket": "without 1 bucket",
    "pair": "without 2 neighbours",
    "enough": "and minSamples",
}
CHOSEN = "chosen"
WEALTH = (*(f"wealth, {NAMES[one]}" for one in VARIANTS), "**and by threes**")
EVERY = (*VARIANTS, CHOSEN)

Said = tuple[str, dict[str, float]]
Looks = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Size:
    """How many soaks and days are simulated."""

    delays: int
    soaks: int
    days: int
    seed: int

    @classmethod
    def of(cls, scale: float, seed: int) -> Size:
        return cls(*(max(4, round(many * scale)) for many in (100, 2000, 1000)), seed)

    def rng(self, *what: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *what])


def section(title: str, text: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return f"## {title}\n\n{text}\n\n{table(head, rows)}"


def share(looks: np.ndarray) -> str:
    """Of soaks that tripped, with its interval."""
    hits, soaks = int(np.count_nonzero(looks != NEVER)), len(looks)
    interval = stats.binomtest(hits, soaks).proportion_ci(confidence_level=0.95, method="exact")
    shown = ("100" if one >= 0.995 else f"{100 * one:.2g}" for one in (hits / soaks, interval.low, interval.high))
    return "{} % ({} to {})".format(*shown)


def tripped(looks: np.ndarray) -> float:
    return float(np.mean(looks != NEVER))


def wealth(
    hits: np.ndarray, trials: np.ndarray, bound: float, seconds: int, level: float = BUDGET, since: int = 0
) -> Looks:
    """What is chosen allows for queries that come by threes, and the others show what that costs and is good for.

    In pieces, since the gains of all soaks do not fit into memory.
    """
    pieces = []
    for at in range(0, len(hits), ATONCE):
        x, n = hits[at : at + ATONCE], trials[at : at + ATONCE]
        how = {"starts": seconds // 60, "level": level, "since": since}
        piece = wealth_looks(rate_gains(x, n, bound, 1), n, **how)
        pieces.append(piece | {CHOSEN: wealth_looks(rate_gains(x, n, bound), n, **how)["enough"]})
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in EVERY}


# ---------------------------------------------------------------- what is promised


UPPER = ("wealth, nothing left out", "**wealth by threes, nothing left out**")


def _most(hits: np.ndarray, trials: np.ndarray, bound: float, seconds: int, level: float = BUDGET) -> list[np.ndarray]:
    """Single queries, and by threes."""
    found = []
    for together in (1, TOGETHER):
        pieces = [
            most_wealth(
                rate_gains(hits[at : at + ATONCE], trials[at : at + ATONCE], bound, together),
                starts=seconds // 60,
                level=level,
            )
            for at in range(0, len(hits), ATONCE)
        ]
        found.append(np.concatenate(pieces))
    return found


def false_trips(size: Size) -> Said:
    cases = [(f"{rate:g}/s", SOAK, BOUND, rate, size.soaks) for rate in (0.1, 1, 20, 200)]
    cases += [(f"20/s, bound {bound:.1%}", SOAK, bound, 20, size.soaks) for bound in (0.3, 0.001)]
    cases += [(f"{rate:g}/s", DAY, BOUND, rate, size.days) for rate in (0.2, 20)]
    rows, most = [], {SOAK: 0.0, DAY: 0.0}
    for number, (name, seconds, bound, rate, soaks) in enumerate(cases):
        hits, trials = independent(size.rng(5, number), soaks, seconds // BUCKET_SECONDS, rate, bound)
        new = _most(hits, trials, bound, seconds)
        old = window_looks(hits, trials, bound, Windows.of(BUDGET, seconds))
        rows.append([f"{seconds // 3600} h, {name}", share(old), *map(share, new)])
        most[seconds] = max(most[seconds], *map(tripped, new))
    rows.append(_all_rules(size))
    hits, trials = independent(size.rng(6), size.soaks // 4, SOAK // BUCKET_SECONDS, 20, BOUND)
    gains = rate_gains(hits, trials, BOUND, 1)
    wrong = most_wealth(gains, starts=SOAK // 60, level=BUDGET, largest=True)
    rows.append(["6 h, 20/s, **the best start, not the average**", "", share(wrong), ""])
    text = (
        "A revision exactly at its bound, queries independent of each other: soaks that tripped, of a budget of 1 %. "
        "Nothing is left out here, nor forgotten after an hour, which is more than what is proposed ever wins. In the "
        "last row each bet counts from its best start, as must not be done: the simulation would see it."
    )
    return section("False trips", text, ["", "windows, consecutive 2", *UPPER], rows), {
        "sequential.false_soak": most[SOAK],
        "sequential.false_day": most[DAY],
    }


def _all_rules(size: Size) -> list[str]:
    """Two metrics, each of three segments and of all together, at their bounds: eight rules share the budget."""
    rng, rules, soaks, buckets = size.rng(7), 8, max(4, size.soaks // 2), SOAK // BUCKET_SECONDS
    old, new = np.full(soaks, NEVER), [np.full(soaks, NEVER)] * 2
    trials = rng.poisson(7 * BUCKET_SECONDS, (3, soaks, buckets, 1))
    for _ in range(2):
        hits = rng.binomial(trials, BOUND)
        for x, n in zip((*hits, hits.sum(axis=0)), (*trials, trials.sum(axis=0)), strict=True):
            old = np.maximum(old, window_looks(x, n, BOUND, Windows.of(BUDGET / rules, SOAK)))
            new = [
                np.maximum(one, other) for one, other in zip(new, _most(x, n, BOUND, SOAK, BUDGET / rules), strict=True)
            ]
    return ["6 h, 7/s in each of 3 segments, 8 rules", share(old), *map(share, new)]


# ---------------------------------------------------------------- what is not


def not_independent(size: Size) -> Said:
    buckets, soaks, rows = SOAK // BUCKET_SECONDS, max(4, size.soaks // 16), []
    kinds = {
        "20/s, sessions of 3, half of whose queries hit, or none": partial(sessions, size=3, inside=0.5),
        "20/s, sessions of 10, half of whose queries hit, or none": partial(sessions, size=10, inside=0.5),
        "1/s, sessions of 3, the same": partial(sessions, size=3, inside=0.5),
        "0.2/s, sessions of 3, the same": partial(sessions, size=3, inside=0.5),
        "20/s, a fifth in batches of 16, all or nothing": partial(batches, size=16, share=0.2),
        "20/s, a fifth in batches of 128, all or nothing": partial(batches, size=128, share=0.2),
        "20/s, a bot of 2/s every 20 min, one query": partial(bots, every=1200, own=2),
    }
    for rate, where in ((BOUND, "at the bound"), (BOUND / 2, "at half of it")):
        for number, (name, draw) in enumerate(kinds.items()):
            per_second = float(name.partition("/s")[0])
            hits, trials = draw(size.rng(8, number, int(1000 * rate)), soaks, buckets, per_second, rate)
            row = [f"{where}: {name}"]
            row += [share(window_looks(hits, trials, BOUND, Windows.of(BUDGET, SOAK, 60, 200, n))) for n in (2, 1)]
            looks = wealth(hits, trials, BOUND, SOAK)
            rows.append([*row, share(looks["enough"]), share(looks[CHOSEN])])
    text = (
        "Neither test promises anything here, but for the last column: the cube root of what each query wins is a bet "
        "that holds for queries that come by threes, whatever these have to do with each other (Hölder's inequality)."
    )
    head = ["6 h", "windows, consecutive 2", "windows, consecutive 1", "wealth", WEALTH[-1]]
    return section("Queries that are not independent", text, head, rows), {}


def bursts(size: Size) -> Said:
    """150 errors at once, once in half an hour."""
    rows, most, soaks = [], 0.0, max(4, size.soaks // 4)
    ways = {"windows, consecutive 2": (60, 2), "windows, consecutive 1": (60, 1), "windows, 10 s x 1": (10, 1)}
    for per_second in (1, 20, 200):
        for seconds in (1.0, 5.0):
            rng = size.rng(9, per_second, int(seconds))
            hits, trials = with_burst(rng, independent(rng, soaks, 360, per_second, BOUND / 2), 150, seconds)
            row = [f"{per_second}/s, within {seconds:g} s"]
            for length, consecutive in ways.values():
                how = Windows.of(BUDGET, SOAK, length, 200, consecutive)
                row.append(share(window_looks(hits, trials, BOUND, how)))
            looks = wealth(hits, trials, BOUND, SOAK)
            rows.append([*row, *(share(looks[one]) for one in EVERY)])
            most = max(most, tripped(looks[CHOSEN]))
    text = "In half an hour of a revision at half of its bound, at any time."
    return section("One burst of 150 errors", text, ["", *ways, *WEALTH], rows), {"sequential.burst_trips": most}


def scale_down(size: Size) -> Said:
    rows, soaks = [], max(4, size.soaks // 4)
    for minutes in (30, 5):
        for unlucky in (False, True):
            rng = size.rng(10, minutes, int(unlucky))
            old, new = np.full(soaks, NEVER), {name: np.full(soaks, NEVER) for name in EVERY}
            for begin, hits, trials in scaled(rng, soaks, SCALED, 20, BOUND, minutes * 12, unlucky=unlucky):
                old = np.maximum(old, window_looks(hits, trials, BOUND, Windows.of(BUDGET, SOAK)))
                looks = wealth(hits, trials, BOUND, SOAK, since=begin)
                new = {name: np.maximum(new[name], looks[name]) for name in EVERY}
            who = "that with the fewest hits" if unlucky else "any"
            rows.append([f"every {minutes} min, {who}", share(old), *(share(new[name]) for name in EVERY)])
    text = (
        "Four pods, 20/s together, 90 minutes, a revision exactly at its bound; another one comes for each that goes."
    )
    head = ["a pod goes", "windows, consecutive 2", *WEALTH]
    return section("Pods that take their sums along", text, head, rows), {}


PARTS = (false_trips, bursts, not_independent, scale_down)
