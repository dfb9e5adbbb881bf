"""Do sequential tests see a bad revision sooner than windows do, at the same false-trip budget? (simulated)

    python bench/sequential.py [--quick] [--scale 1] [--seed 1]

Today's windows (core/judging/judge.py) beside wealth (core/judging/eprocess.py) on the same soaks, some minutes on one
core: how long until a fault is seen, from the switch and in the middle of a soak; how often a healthy revision exactly
at its bound trips, in a soak of 6 h and in a day; and what traffic does that is not independent: sessions, batches,
bots, one burst, pods that go and take their sums along. docs/adr/0038-sequential-tests.md says what follows from it.

summary.json: sequential.demo_ratio (how long the demo's fault is there, against its own windows of 5 s;
demo_ratio_one_bucket: with one bucket left out), sequential.default_ratio (against the default windows),
sequential.false_soak and false_day (the largest share of false trips, budget .01), sequential.burst_trips.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import sequential_false
from results import add_to_summary, machine, stamp, write_page
from scipy import stats
from sequential_false import BOUND, BUDGET, CHOSEN, EVERY, SOAK, WEALTH, Size, section, wealth
from sequential_trials import Clock, Windows, rate_gains, wealth_looks, window_looks

from vectorindex_operator.core.judging.eprocess import MeanBets
from vectorindex_searcher.contract import BUCKET_SECONDS

SEEN = 3600
"""Seconds after which a fault counts as not seen."""
RATES = (0.1, 1, 5, 20, 100, 200)
EFFECTS = (0.03, 0.04, 0.06, 0.1, 0.2, 0.5)
DEMO_RATE, DEMO_FAULT, DEMO_RULES, DEMO_HORIZON = 250.0, 0.18, 3, 600
RECALL, SAMPLED = 0.93, 1.0
WAYS = "windows / wealth / wealth by threes / windows beside wealth by threes, each at half of the budget"
INTRODUCTION = """\
Windows: `window: 1m, consecutive: 2, minSamples: 200` unless said otherwise. Wealth: eight bets; half of the stake is
on the start at the switch, the rest on one start a minute; of each the two neighbouring buckets that won the most are
left out; it counts once there are `minSamples` since then; by threes: each query wins the cube root. One rule with
`max: 2%`, budget 1 %, `maxDuration: 6h`, a look every 5 s. In brackets: 95 % intervals (Clopper and Pearson). `-`:
fewer than half are seen within an hour."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="see that it runs; writes no results")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the soaks")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    size = Size.of(0.01 if options.quick else options.scale, options.seed)
    parts = ["# Sequential tests against windows", f"{stamp()}. {machine()}.", INTRODUCTION]
    summary: dict[str, float] = {}
    for part in (demo, delays, late, live_recall, *sequential_false.PARTS):
        text, figures = part(size)
        print(f"{text}\n", flush=True)
        parts.append(text)
        summary |= figures
    if not options.quick:
        write_page("sequential", "\n\n".join(parts))
        add_to_summary(summary)


def faults(
    size: Size, rng: np.random.Generator, per_second: float, rates: np.ndarray
) -> tuple[Clock, np.ndarray, np.ndarray]:
    """Hits and trials of soaks in whose buckets the rates are these, with looks at any time within a bucket."""
    clock = Clock.draw(rng, size.delays)
    trials = rng.poisson(per_second * clock.seconds(len(rates)))
    return clock, rng.binomial(trials, rates[None, :, None]), trials


def demo(size: Size) -> tuple[str, dict[str, float]]:
    """Its third revision: three rules, `maxDuration: 10m`, and windows that the manifest sets to 5 s."""
    many = replace(size, delays=size.delays * 10)
    clock, hits, trials = faults(many, size.rng(1), DEMO_RATE, np.full(60, DEMO_FAULT))
    level = BUDGET / DEMO_RULES
    looks = wealth(hits, trials, BOUND, DEMO_HORIZON, level)
    ways = {}
    for name, (seconds, enough, row) in {
        "its own windows, 5 s x 1": (5, 500, 1),
        "windows, 5 s x 2": (5, 500, 2),
        "default windows, 1m x 2": (60, 200, 2),
    }.items():
        how = Windows.of(level, DEMO_HORIZON, seconds, enough, row)
        ways[name] = clock.since(window_looks(hits, trials, BOUND, how, first=1))
    own, _, default = (float(np.mean(found)) for found in ways.values())
    half = Windows.of(level / 2, DEMO_HORIZON)
    ways["default windows beside wealth by threes"] = beside(clock, hits, trials, half, DEMO_HORIZON, level / 2)
    ways |= {what: clock.since(looks[name]) for what, name in zip(WEALTH, EVERY, strict=True)}
    rows = [
        [name, *(f"{value:.1f} s" for value in (np.mean(found), *np.quantile(found, (0.5, 0.9)))), np.mean(found) / own]
        for name, found in ways.items()
    ]
    text = (
        f"{DEMO_FAULT:.0%} of the answers are empty instead of at most 2 %, at {DEMO_RATE:.0f}/s, three rules. "
        "From the switch to the look that says Fail."
    )
    chosen, single = (float(np.mean(clock.since(looks[name]))) for name in (CHOSEN, "bucket"))
    return section("The demo's fault", text, ["", "mean", "median", "nine of ten below", "of its own"], rows), {
        "sequential.demo_ratio": chosen / own,
        "sequential.demo_ratio_one_bucket": single / own,
        "sequential.default_ratio": chosen / default,
    }


def cell(size: Size, rng: np.random.Generator, per_second: float, rates: np.ndarray, change: int | None = None) -> str:
    """Median delays in all ways; from the switch or from the bucket of a change."""
    clock, hits, trials = faults(size, rng, per_second, rates)
    old = window_looks(hits, trials, BOUND, Windows.of(BUDGET, SOAK), first=1)
    new = wealth(hits, trials, BOUND, SOAK)
    ways = [clock.since(looks, change) for looks in (old, new["enough"], new[CHOSEN])]
    ways.append(beside(clock, hits, trials, Windows.of(BUDGET / 2, SOAK), SOAK, BUDGET / 2, change))
    return " / ".join(map(_delay, ways))


def beside(
    clock: Clock,
    hits: np.ndarray,
    trials: np.ndarray,
    how: Windows,
    seconds: int,
    level: float,
    change: int | None = None,
) -> np.ndarray:
    """Delays where windows and wealth by threes are judged side by side, each at its half of the budget."""
    old = window_looks(hits, trials, BOUND, how, first=1)
    new = wealth_looks(rate_gains(hits, trials, BOUND), trials, starts=seconds // 60, level=level)["enough"]
    return np.minimum(clock.since(old, change), clock.since(new, change))


def _delay(seconds: np.ndarray) -> str:
    median = float(np.quantile(seconds, 0.5, method="inverted_cdf"))
    return "-" if np.isinf(median) else f"{median:.0f} s" if median < 100 else f"{median / 60:.1f} min"


def delays(size: Size) -> tuple[str, dict[str, float]]:
    rows = [
        [
            f"{effect:.0%}",
            *(
                cell(size, size.rng(2, at), rate, np.full(SEEN // BUCKET_SECONDS, effect))
                for at, rate in enumerate(RATES)
            ),
        ]
        for effect in EFFECTS
    ]
    text = f"Median from the switch to the look that says Fail: {WAYS}."
    return section("A fault from the switch on", text, ["real rate", *(f"{rate:g}/s" for rate in RATES)], rows), {}


def late(size: Size) -> tuple[str, dict[str, float]]:
    """A revision at a quarter of its bound for twenty minutes, and bad then."""
    rows = []
    for effect in EFFECTS:
        row = [f"{effect:.0%}"]
        for at, per_second in enumerate(RATES[1:]):
            rng = size.rng(3, at, int(100 * effect))
            change = 240 + int(rng.integers(0, 12))
            rates = np.full(change + SEEN // BUCKET_SECONDS, effect)
            rates[:change] = BOUND / 4
            row.append(cell(size, rng, per_second, rates, change))
        rows.append(row)
    text = f"Before it the rate is 0.5 %. Median from its beginning, at one phase of the windows a cell: {WAYS}."
    head = ["rate from then on", *(f"{rate:g}/s" for rate in RATES[1:])]
    return section("A fault that begins after twenty minutes", text, head, rows), {}


def live_recall(size: Size) -> tuple[str, dict[str, float]]:
    """From sums as they are counted today, and with squares."""
    rows = []
    for real in (0.90, 0.87, 0.80, 0.50):
        for name, each in (("all or nothing", 1), ("each hit by itself", 10)):
            rng = size.rng(4, int(100 * real), each)
            clock = Clock.draw(rng, size.delays)
            trials = rng.poisson(SAMPLED * clock.seconds(SEEN // BUCKET_SECONDS))
            total, squares = _recalls(rng, trials, real, each)
            missing = trials - total
            row = [f"{real:.0%}, {name}"]
            for seconds, consecutive in ((900, 2), (300, 1)):
                how = Windows.of(BUDGET, SOAK, seconds, 200, consecutive)
                row.append(_delay(clock.since(window_looks(missing, trials, 1 - RECALL, how, first=1))))
            for gains in (rate_gains(missing, trials, 1 - RECALL), mean_gains(RECALL, total, squares, trials)):
                row.append(_delay(clock.since(wealth_looks(gains, trials, starts=SOAK // 60, level=BUDGET)["enough"])))
            rows.append(row)
    head = ["real recall", "windows 15m x 2", "windows 5m x 1", "wealth by threes", "the same, with squares"]
    return section("LiveRecall, min 93 %, one sampled query a second", "Median from the switch.", head, rows), {}


def _recalls(rng: np.random.Generator, trials: np.ndarray, real: float, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the recall of the queries, and of its squares, where `each` hits come or do not come by themselves."""
    levels = np.arange(each + 1) / each
    chances = stats.binom.pmf(np.arange(each + 1), each, real)
    counts = rng.multinomial(trials, chances / chances.sum())
    return counts @ levels, counts @ levels**2


def mean_gains(bound: float, total: np.ndarray, squares: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """MeanBets.gains, which is linear in its three arguments, of arrays."""
    bets = MeanBets(bound)
    of_trial = np.asarray(bets.gains(0, 0, 1))
    of_square = np.asarray(bets.gains(0, 1, 1)) - of_trial
    of_total = np.asarray(bets.gains(1, 1, 1)) - of_square - of_trial
    parts = ((trials, of_trial), (total, of_total), (squares, of_square))
    return sum(amount[..., None] * of for amount, of in parts).astype(np.float32)


if __name__ == "__main__":
    main()
