"""What rules say when filters begin to be refused, and when somebody only makes it look so: docs/guardrails.md.

    python bench/lost_filters.py [--soaks 200] [--seed 1]

Simulates soaks as bench/guardrail_delay.py does, at 50 requests a second of which a fifth has a filter. A revision that
lost a column refuses a share of these; clients that were always wrong, or begin to be with the switch, send filters
that no revision ever took. Compared are rules that see all refusals, absolute or against the quarter of an hour of
stable before the switch, with FiltersLost. A cell: soaks that tripped within half an hour; where most did, when
(median, and what nine of ten stay below). Then how soon FiltersLost trips, by requests with a filter a second.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from guardrail_delay import Draw, delay, show, table

from vectorindex_operator.core.judging.baseline import Baseline
from vectorindex_operator.core.judging.evidence import Counts
from vectorindex_operator.core.judging.rules import Rule

PER_SECOND, FILTERED = 50.0, 0.2
BASELINE_SECONDS = 900.0
RATES = (1, 5, 10, 50, 500)
FAST = {"window_seconds": 10.0, "consecutive": 1}
RULES = {
    "RefusalRate `max: 2%`": Rule("r", "RefusalRate", max=0.02),
    "RefusalRate `maxRiseVsStable: 50%`": Rule("r", "RefusalRate", max_rise_vs_stable=0.5),
    "FiltersLost `max: 0.5%`": Rule("r", "FiltersLost", max=0.005),
}


def requests(wrong: float, lost: float, filtered: float = FILTERED) -> Draw:
    """`wrong`: share of all requests with a filter that no revision took; `lost`: share of the other `filtered` ones
    that this revision refuses."""

    def draw(rng: np.random.Generator, count: int) -> Counts:
        never = int(rng.binomial(count, wrong))
        good = int(rng.binomial(count - never, filtered))
        gone = int(rng.binomial(good, lost))
        answered = count - never - gone
        return Counts(
            requests=answered,
            queries=answered,
            refused=never + gone,
            filtered_queries=good - gone,
            filters_compared=good,
            filters_lost=gone,
        )

    return draw


CLIENTS = {
    "nobody is wrong": (0.0, 0.0, 0.0),
    "one request in a hundred always was": (0.01, 0.01, 0.0),
    "three in ten always were": (0.3, 0.3, 0.0),
    "a hostile client begins with the switch: 1% of the requests": (0.0, 0.01, 0.0),
    "5% of the requests": (0.0, 0.05, 0.0),
    "half of them": (0.0, 0.5, 0.0),
    "three in ten always were; 1% of the filters are lost": (0.3, 0.3, 0.01),
    "nobody is wrong; 1% of the filters are lost": (0.0, 0.0, 0.01),
    "5% of the filters are lost": (0.0, 0.0, 0.05),
    "20% of the filters are lost": (0.0, 0.0, 0.2),
}
"""Share of requests that is wrong before the switch, and after it; share of the good filters that is lost."""


def cell(rule: Rule, before: float, after: float, lost: float, soaks: int, seed: int) -> str:
    rng = np.random.default_rng(seed)
    delays = []
    for _ in range(soaks):
        stable = requests(before, 0.0)(rng, int(rng.poisson(PER_SECOND * BASELINE_SECONDS)))
        baseline = Baseline(-BASELINE_SECONDS, 0.0, {"": stable})
        delays.append(delay(rule, requests(after, lost), PER_SECOND, rng, baseline))
    tripped = sum(np.isfinite(delays))
    share = f"{tripped / soaks:.0%}" if tripped in (0, soaks) else f"{tripped / soaks:.1%}"
    return share if 2 * tripped < soaks else f"{share}: {show(delays)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--soaks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print("| clients | " + " | ".join(RULES) + " |")
    print("|---" * (len(RULES) + 1) + "|")
    for name, (before, after, lost) in CLIENTS.items():
        cells = [cell(rule, before, after, lost, arguments.soaks, arguments.seed) for rule in RULES.values()]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    rule = RULES["FiltersLost `max: 0.5%`"]
    rows = [(f"{lost:.0%} lost", requests(0.0, lost, filtered=1.0)) for lost in (0.01, 0.05, 0.2, 1.0)]
    for how, change in (("window 1m, consecutive 2 (default)", {}), ("window 10s, consecutive 1", FAST)):
        title = f"FiltersLost, max 0.5%; {how}; minSamples 200; requests with a filter a second"
        table(title, replace(rule, **change), rows, arguments.soaks, arguments.seed, RATES)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
