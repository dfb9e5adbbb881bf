"""What a rule against stable says while what users ask changes: the frozen baseline, or pairs of the same moment.

    python bench/after_switch.py [--soaks 30] [--seed 1] [--write]

Simulates soaks of three quarters of an hour. Users ask easy queries and hard ones, and the share of the hard ones moves
from the quarter of an hour before the switch to the end, as it does with the time of day; no segment tells them apart.
Half of those that find nothing at one revision find nothing at the other for the same reason, whatever they are. A good
revision answers as the prior does; a bad one loses answers, or has lower scores, from the switch or from twenty
minutes after it. The operator's own `judge` looks each half minute, with the defaults (budget 1 %, maxDuration 6h,
minSamples 200, no warm-up). A cell: soaks that tripped, and where most did, after how long (median, and what nine of
ten stay below), counted from the fault. For a good revision: what tripped is wrong. `--windows` adds a column for what
no operator does yet (docs/adr/0062-windows-of-the-same-moment.md), and prints alone.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from results import machine, stamp, table, write_page
from scipy import stats

from vectorindex_operator.core.judging.baseline import Baseline
from vectorindex_operator.core.judging.comparison import Levels, inside
from vectorindex_operator.core.judging.evidence import Counts, RevisionEvidence, closed_windows
from vectorindex_operator.core.judging.judge import judge
from vectorindex_operator.core.judging.metrics import METRICS
from vectorindex_operator.core.judging.pair_sums import Buckets, PairSums
from vectorindex_operator.core.judging.rules import Rule, Verdict
from vectorindex_operator.core.judging.same_moment import SameMoment
from vectorindex_operator.core.judging.shadow import SOAK_BUDGET
from vectorindex_searcher.contract import BUCKET_SECONDS

PER_SECOND = 50.0
"""All of them are mirrored."""
SOAK, BEFORE = 540, 180
"""Buckets of the soak, and of the quarter of an hour before it."""
LOOK = 6
HORIZON = 21_600.0
"""Seconds: maxDuration."""
LATE = 240
"""Buckets until a fault that comes late."""
B0 = 340_000_007
ZERO = (0.01, 0.12)
"""Easy and hard queries that find nothing."""
SCORE, SPREAD, APART = (0.8, 0.6), 0.1, 0.02
"""Mean first score of either kind, its spread, and what two revisions differ by on the same query."""
MORE, LOWER = 1.5, 0.08
"""Of a bad revision: the queries that lose their answer, for each that has none at the prior; the part of each score
that is missing."""
RULES = {
    "ZeroResultRate `maxRiseVsStable: 50%`": Rule("r", "ZeroResultRate", max_rise_vs_stable=0.5, sequential=True),
    "TopScore `maxDropVsStable: 5%`": Rule("r", "TopScore", max_drop_vs_stable=0.05, sequential=True),
}
MIXES = {
    "the same questions": (0.2, 0.2),
    "a few harder ones: 20 to 30 % hard": (0.2, 0.3),
    "harder ones: 20 to 60 % hard": (0.2, 0.6),
    "easier ones: 60 to 20 % hard": (0.6, 0.2),
}
FAULTS: Mapping[str, int | None] = {"good": None, "bad from the switch": 0, "bad after 20 min": LATE}


@dataclass(frozen=True, slots=True)
class Soak:
    """What both revisions counted, bucket by bucket: those before the switch are the prior's alone."""

    before: Counts
    mine: Sequence[Counts]
    pairs: Sequence[PairSums]


def soak(rng: np.random.Generator, hard: tuple[float, float], fault: int | None) -> Soak:
    shares = np.linspace(*hard, BEFORE + SOAK)
    counts, pairs = [], []
    for bucket, share in enumerate(shares):
        bad = fault is not None and bucket - BEFORE >= fault
        mine, pair = _bucket(rng, share, bad=bad)
        counts.append(mine)
        pairs.append(pair)
    prior = [_of_prior(pair) for pair in pairs[:BEFORE]]
    return Soak(_total(prior), counts[BEFORE:], pairs[BEFORE:])


_FIELDS = ("requests", "queries", "zero_results", "top_count", "top_sum", "top_sum_squares")


def _bucket(rng: np.random.Generator, hard: float, *, bad: bool) -> tuple[Counts, PairSums]:
    asked = int(rng.poisson(PER_SECOND * BUCKET_SECONDS))
    kind = (rng.random(asked) < hard).astype(int)
    rate = np.array(ZERO)[kind]
    both = rng.random(asked) < rate / 2
    s_zero, c_zero = (both | (rng.random(asked) < rate / 2) for _ in range(2))
    if bad:
        c_zero |= rng.random(asked) < MORE * rate
    s = rng.normal(np.array(SCORE)[kind], SPREAD)
    c = (s + rng.normal(0.0, APART, asked)) * (1.0 - LOWER * bad)
    mine = Counts(
        requests=asked,
        queries=asked,
        zero_results=int(c_zero.sum()),
        top_count=asked,
        top_sum=float(c.sum()),
        top_sum_squares=float(c @ c),
    )
    size = abs(s)
    pair = PairSums(
        mirrored=asked, pairs=asked, zero_both=int((s_zero & c_zero).sum()),
        zero_candidate_only=int((c_zero & ~s_zero).sum()), zero_stable_only=int((s_zero & ~c_zero).sum()),
        scored=asked, c_sum=float(c.sum()), s_sum=float(s.sum()), abs_s_sum=float(size.sum()),
        c_squares=float(c @ c), s_squares=float(s @ s), cs_sum=float(c @ s), s_abs_s_sum=float(s @ size),
        c_abs_s_sum=float(c @ size),
    )  # fmt: skip
    return mine, pair


def _of_prior(pair: PairSums) -> Counts:
    return Counts(
        requests=pair.pairs,
        queries=pair.pairs,
        zero_results=pair.zero_both + pair.zero_stable_only,
        top_count=pair.scored,
        top_sum=pair.s_sum,
        top_sum_squares=pair.s_squares,
    )


def _total(some: Sequence[Counts]) -> Counts:
    return Counts(**{name: sum(getattr(one, name) for one in some) for name in _FIELDS})


def trips_in_windows(rule: Rule, of: Soak) -> float:
    """As `trips`, by windows each of which is compared with what the prior answered in it. Two of a row that are
    independent fail together with the product of their levels, so each gets the root of what the row may use: half of
    the budget, divided by windows, as of a rule that is judged in two ways."""
    family = METRICS[rule.metric].family
    row = SOAK_BUDGET * 0.01 / 2 / math.ceil(HORIZON / rule.window_seconds)
    levels = Levels(window=row ** (1 / rule.consecutive), once=row)
    merged = RevisionEvidence({"": {B0 + at: one for at, one in enumerate(of.mine)}}, B0 + SOAK, 1, (), 0.0)
    enough = max(rule.min_samples, family.enough(levels))
    windows = closed_windows(
        merged, "", first=B0, span=rule.span, enough=enough, size=family.size, latency=METRICS[rule.metric].latency
    )
    run = 0
    for window in windows:
        prior = _total([_of_prior(pair) for pair in of.pairs[window.first - B0 : window.stop - B0]])
        outside = not inside(family, window.cell, prior, rule.bound)
        run = run + 1 if outside and family.beyond(window.cell, prior, rule.bound, levels) else 0
        if run == rule.consecutive:
            return float(math.ceil((window.stop - B0) / LOOK) * LOOK)
    return math.inf


def trips(rule: Rule, of: Soak, *, paired: bool) -> float:
    """Buckets from the switch to the look that says Fail; infinite: none does."""
    looks = range(LOOK, SOAK + 1, LOOK)
    if paired:
        return next((float(stop) for stop in looks if fails(rule, of, stop, paired=True)), float("inf"))
    # Windows that have tripped stay to be seen for half an hour at least, so the first look is searched for by halving.
    low, high = -1, len(looks) - 1
    if not fails(rule, of, looks[high], paired=False):
        return float("inf")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fails(rule, of, looks[middle], paired=False) else (middle, high)
    return float(looks[high])


def fails(rule: Rule, of: Soak, stop: int, *, paired: bool) -> bool:
    """Whether a look after so many buckets says Fail."""
    start = B0 * float(BUCKET_SECONDS)
    now = start + stop * BUCKET_SECONDS
    merged = RevisionEvidence({"": {B0 + at: of.mine[at] for at in range(stop)}}, B0 + stop, 1, (), now)
    rows: Buckets = tuple((B0 + at, of.pairs[at]) for at in range(stop))
    (said,) = judge(
        (rule,),
        merged,
        started_at=start,
        now=now,
        baseline=Baseline(start - BEFORE * BUCKET_SECONDS, start, {"": of.before}),
        alpha_budget=SOAK_BUDGET * 0.01,
        horizon_seconds=HORIZON,
        ready_pods=1,
        steady=False,
        pairs=SameMoment({"": rows}, {"": rows}) if paired else None,
    )
    return said.verdict is Verdict.FAIL


def cell(found: Sequence[float], fault: int | None) -> str:
    after = np.array(found)
    tripped = int(np.isfinite(after).sum())
    share = f"{tripped / len(after):.0%}"
    if fault is None:
        low, high = stats.binomtest(tripped, len(after)).proportion_ci(0.95, "exact")
        return f"{share} ({low:.1%} to {high:.1%})"
    early = int((after < fault).sum())
    if 2 * (tripped - early) < len(after):
        return f"{share}" + (f", of these {early} before it" if early else "")
    seconds = (after[after >= fault] - fault) * BUCKET_SECONDS
    median, late = np.quantile(seconds, [0.5, 0.9], method="inverted_cdf")
    text = f"{share}: {median / 60:.1f} min ({late / 60:.1f} min)"
    return text + (f", {early} before it" if early else "")


def page(soaks: int, seed: int, *, windows: bool = False) -> str:
    parts = [
        "# Rules against stable while what users ask changes",
        f"{stamp()}. {machine()} (it simulates: nothing here depends on it). "
        f"`python bench/after_switch.py --soaks {soaks} --seed {seed} --write`",
        str(__doc__).split("\n\n", 2)[2].strip(),
    ]
    rows: dict[str, list[list[str]]] = {name: [] for name in RULES}
    for mix, hard in MIXES.items():
        for what, fault in FAULTS.items():
            rng = np.random.default_rng(seed)
            some = [soak(rng, hard, fault) for _ in range(soaks)]
            for name, rule in RULES.items():
                cells = [cell([trips(rule, one, paired=paired) for one in some], fault) for paired in (False, True)]
                if windows:
                    cells.append(cell([trips_in_windows(rule, one) for one in some], fault))
                rows[name].append([mix, what, *cells])
                print(name, *rows[name][-1], sep=" | ", flush=True)
    for name, found in rows.items():
        heads = ["users ask", "the new revision is", "frozen baseline", "pairs", *(["windows"] if windows else [])]
        parts += [f"## {name}", table(heads, found)]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--soaks", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--windows", action="store_true", help="windows of the same moment beside them")
    parser.add_argument("--write", action="store_true", help="the page bench/results/after_switch.md")
    asked = parser.parse_args()
    text = page(asked.soaks, asked.seed, windows=asked.windows)
    if asked.write and not asked.windows:
        write_page("after_switch", text)


if __name__ == "__main__":
    main()
