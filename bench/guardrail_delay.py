"""How long a bad revision serves before its guardrail trips: the table of docs/guardrails.md.

    python bench/guardrail_delay.py [--soaks 60] [--seed 1]

Simulates soaks of a revision that is bad from the switch on: Poisson traffic, 5-second buckets, a look every 5 s at a
phase of its own, one rule with the default budget (1 %) and maxDuration (6 h), no warm-up (add yours). Prints the
median time from the switch to the look that says Fail, and in brackets the time that nine of ten soaks stay below.
The bucket that is being filled is left out, though the early trip of ErrorRate reads it: it is a little faster yet.
`-`: fewer than half of the soaks tripped within half an hour.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from vectorindex_operator.core.judging.baseline import Baseline
from vectorindex_operator.core.judging.evidence import Counts, RevisionEvidence
from vectorindex_operator.core.judging.judge import judge
from vectorindex_operator.core.judging.rules import Rule, Verdict
from vectorindex_searcher.contract import BUCKET_SECONDS, LATER_COUNTERS

BUCKETS = 360
LOOK_SECONDS = 5.0
RATES = (1, 5, 20, 100, 500)
"""Queries per second."""
SLOW_BIN, FAST_BIN = 240, 180
"""Latency bins on both sides of the bound of 50 ms (bin 222)."""

Draw = Callable[[np.random.Generator, int], Counts]


def errors(rate: float) -> Draw:
    def draw(rng: np.random.Generator, queries: int) -> Counts:
        return Counts(requests=queries, queries=queries, failed_requests=int(rng.binomial(queries, rate)))

    return draw


def zeros(rate: float) -> Draw:
    def draw(rng: np.random.Generator, queries: int) -> Counts:
        return Counts(requests=queries, queries=queries, zero_results=int(rng.binomial(queries, rate)))

    return draw


def slower(share: float) -> Draw:
    def draw(rng: np.random.Generator, queries: int) -> Counts:
        slow = int(rng.binomial(queries, share))
        return Counts(requests=queries, queries=queries, latency={FAST_BIN: queries - slow, SLOW_BIN: slow})

    return draw


def scores(below: float) -> Draw:
    """Scores with a standard deviation of 0.1 whose mean is `below` standard deviations below the bound of 0.5."""

    def draw(rng: np.random.Generator, queries: int) -> Counts:
        values = rng.normal(0.5 - 0.1 * below, 0.1, queries)
        return Counts(
            queries=queries,
            top_count=queries,
            top_sum=float(values.sum()),
            top_sum_squares=float((values * values).sum()),
        )

    return draw


def live(recall: float) -> Draw:
    """Answers of recall@10 whose every hit is there with probability `recall`."""

    def draw(rng: np.random.Generator, queries: int) -> Counts:
        return Counts(live_queries=queries, live_recall_sum=float(rng.binomial(10 * queries, recall)) / 10)

    return draw


def delay(
    rule: Rule, draw: Draw, per_second: float, rng: np.random.Generator, baseline: Baseline | None = None
) -> float:
    """Seconds from the switch to the first look that says Fail; infinite when none does."""
    start, look = rng.random(2) * (BUCKET_SECONDS, LOOK_SECONDS)
    # The first bucket began before the switch and has the rest of its time only.
    seconds = np.full(BUCKETS, float(BUCKET_SECONDS))
    seconds[0] -= start
    cells = {i: draw(rng, int(n)) for i, n in enumerate(rng.poisson(seconds * per_second))}

    def fails(rule: Rule, number: int) -> bool:
        now = start + look + number * LOOK_SECONDS
        complete = int(now // BUCKET_SECONDS)
        seen = {i: cell for i, cell in cells.items() if i < complete}
        merged = RevisionEvidence({"": seen}, complete, 1, (), now, tells=frozenset(LATER_COUNTERS))
        options = {"alpha_budget": 0.01, "horizon_seconds": 21_600.0, "ready_pods": 1, "steady": False}
        (said,) = judge((rule,), merged, started_at=start, now=now, baseline=baseline, **options)  # type: ignore[arg-type]
        return said.verdict is Verdict.FAIL

    # Windows that have tripped stay to be seen for half an hour at least, so the first look can be searched for by
    # halving; what a bet has won may be lost again.
    low, high = -1, BUCKETS - 2
    windows = replace(rule, sequential=False)
    if not fails(windows, high):
        high = BUCKETS - 1
    while high < BUCKETS - 1 and high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fails(windows, middle) else (middle, high)
    if rule.sequential:
        high = next((number for number in range(high) if fails(rule, number)), high)
    return float(look + high * LOOK_SECONDS) if high < BUCKETS - 1 else float("inf")


def show(delays: Sequence[float]) -> str:
    median, late = np.quantile(delays, [0.5, 0.9], method="inverted_cdf")
    return "-" if np.isinf(median) else f"{_text(float(median))} ({_text(float(late))})"


def _text(seconds: float) -> str:
    if np.isinf(seconds):
        return "-"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def table(
    title: str, rule: Rule, rows: Sequence[tuple[str, Draw]], soaks: int, seed: int, rates: Sequence[int] = RATES
) -> None:
    print(f"\n{title}\n")
    print("| real value | " + " | ".join(f"{rate}/s" for rate in rates) + " |")
    print("|---" * (len(rates) + 1) + "|")
    for name, draw in rows:
        shown = []
        for rate in rates:
            rng = np.random.default_rng([seed, rate])
            shown.append(show([delay(rule, draw, rate, rng) for _ in range(soaks)]))
        print(f"| {name} | " + " | ".join(shown) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--soaks", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    zero = Rule("r", "ZeroResultRate", max=0.02, sequential=True)
    zero_rows = [(f"{rate:.0%}", zeros(rate)) for rate in (0.03, 0.04, 0.06, 0.1, 0.2, 0.5)]
    slow_rows = [(f"{share:.0%} slower", slower(share)) for share in (0.07, 0.1, 0.2, 0.5)]
    score_rows = [(f"{below:g} sd below", scores(below)) for below in (0.1, 0.2, 0.5, 1.0)]
    fast = {"window_seconds": 10.0, "consecutive": 1, "sequential": False}
    for rule, rows, what in (
        (zero, zero_rows, "ZeroResultRate, max 2%"),
        (replace(zero, metric="LatencyP95", max=0.05), slow_rows, "LatencyP95, max 50ms (5 % may be slower)"),
        (replace(zero, metric="TopScore", max=None, min=0.5), score_rows, "TopScore, min 0.5, standard deviation 0.1"),
    ):
        for how, change in (("neither window nor consecutive", {}), ("window 10s, consecutive 1", fast)):
            table(f"{what}; {how}; minSamples 200", replace(rule, **change), rows, arguments.soaks, arguments.seed)  # type: ignore[arg-type]
    live_rows = [(f"{recall:.0%}", live(recall)) for recall in (0.9, 0.87, 0.8, 0.5)]
    for how, change in (
        ("neither window nor consecutive", {"window_seconds": 900.0, "sequential": True}),
        ("window 5m, consecutive 1", {"window_seconds": 300.0, "consecutive": 1}),
    ):
        rule = Rule("r", "LiveRecall", min=0.93, **change)  # type: ignore[arg-type]
        title = f"LiveRecall, min 93%; {how}; minSamples 200; sampled queries of all pods"
        table(title, rule, live_rows, arguments.soaks, arguments.seed)
    error_rows = [(f"{rate:.0%}", errors(rate)) for rate in (0.1, 0.4, 0.6, 1.0)]
    title = "ErrorRate, max 2%; neither window nor consecutive; minSamples 200; above 50 % one look is enough"
    table(title, replace(zero, metric="ErrorRate"), error_rows, arguments.soaks, arguments.seed)


if __name__ == "__main__":
    main()
