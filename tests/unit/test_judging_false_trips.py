"""The promise, simulated: a healthy revision exactly at its bounds trips in at most `falseTripBudget` of all soaks.

Each soak is 15 windows of a minute and is judged once at its end, which is the same as at every look
(test_a_restarted_operator_reaches_the_same_verdict). One failed window is enough (consecutive 1): the worst case.
Counts are drawn with numpy; the windows' traffic lies in one bucket each, as no rule looks inside a window.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr as norm_cdf

from vectorindex_operator.core.judging import judge as gr
from vectorindex_operator.core.judging.baseline import Baseline
from vectorindex_operator.core.judging.evidence import Counts, RevisionEvidence, add_up
from vectorindex_operator.core.judging.rules import Rule, Verdict, worst
from vectorindex_searcher.contract import LATER_COUNTERS

B0 = 340_000_000
WINDOWS = 15
BUDGET = 0.01
SOAKS = int(os.environ.get("GUARDRAIL_SOAKS", "500"))
"""The figures of docs/guardrails.md are of GUARDRAIL_SOAKS=4000, which takes minutes."""
BINS = np.arange(150, 300)
EDGES = 1.05**BINS / 1e6
"""Lower edges of the latency bins used, seconds."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a revision is like: queries per window, rates, scores (a share `rare` 0.5 higher), latency (lognormal).

    Without a median latency is not drawn: it takes most of the time.
    """

    queries: int = 200
    errors: float = 0.0
    zero: float = 0.0
    refused: float = 0.0
    median: float = 0.0
    sigma: float = 0.5
    rare: float = 0.5
    live: int = 0
    """Queries a window whose live recall is known."""
    recall: float = 1.0
    tracked: int = 0
    clicks: float = 1.0
    """Share of the tracked queries whose first answer is clicked; on the others nothing is (the worst case)."""
    filters: int = 0
    """Requests with a filter a window."""
    lost: float = 0.0
    """Share of these that is refused although stable took them."""
    empty: float = 0.0
    """Share of the others that finds nothing."""
    reranked: float = 0.0
    """Share of answers that are in the order of the cross-encoder."""
    torn: bool = True
    """Live recall is 0 or 1 (the worst case: lost regions of a graph); otherwise every answer is there or not."""

    def draw(self, rng: np.random.Generator, windows: int = WINDOWS) -> list[Counts]:
        queries = rng.poisson(self.queries, windows) + 200
        errors = rng.binomial(queries, self.errors)
        zero = rng.binomial(queries - errors, self.zero)
        high = rng.binomial(queries - errors, self.rare)
        filtered = self._filtered(rng, windows)
        return [
            Counts(
                requests=int(q - d), failed_requests=int(e), refused=int(d) // 2, mismatched=int(d) - int(d) // 2,
                queries=int(q), errors=int(e), zero_results=int(z), top_count=int(q - e),
                top_sum=0.2 * float(q - e) + 0.5 * float(h),
                top_sum_squares=0.04 * float(q - e - h) + 0.49 * float(h),
                tracked=self.tracked, tracked_depth_sum=11 * self.tracked, clicked=int(c), click_gain_sum=10 * int(c),
                click_depth_top=11, live_queries=self.live, live_recall_sum=float(r), latency=row,
                rerankable_queries=int(q), reranked_queries=int(o), **f,
            )
            for q, e, z, h, d, c, r, row, f, o in zip(
                queries, errors, zero, high, rng.binomial(queries, self.refused),
                rng.binomial(self.tracked, self.clicks, windows),
                self._recall(rng, windows), self._latency(rng, queries), filtered,
                rng.binomial(queries, self.reranked) if self.reranked else [0] * windows, strict=True,
            )
        ]  # fmt: skip

    def _recall(self, rng: np.random.Generator, windows: int) -> np.ndarray:
        """Sums of recall@10."""
        each = 1 if self.torn else 10
        return rng.binomial(self.live * each, self.recall, windows) / each

    def _filtered(self, rng: np.random.Generator, windows: int) -> list[dict[str, int]]:
        if not self.filters:
            return [{}] * windows
        asked = rng.poisson(self.filters, windows) + 200
        lost = rng.binomial(asked, self.lost)
        empty = rng.binomial(asked - lost, self.empty)
        return [
            {"filters_compared": int(a), "filters_lost": int(n), "filtered_queries": int(a - n),
             "filtered_zero_results": int(z)}
            for a, n, z in zip(asked, lost, empty, strict=True)
        ]  # fmt: skip

    def _latency(self, rng: np.random.Generator, queries: np.ndarray) -> list[dict[int, int]]:
        if not self.median:
            return [{}] * len(queries)
        below = norm_cdf(np.log(EDGES[1:] / self.median) / self.sigma)
        shares = np.diff(below, prepend=0.0, append=1.0)  # bin i holds [edge i, edge i+1)
        return [{int(BINS[i]): int(row[i]) for i in np.flatnonzero(row)} for row in rng.multinomial(queries, shares)]

    def quantile(self, slower: float) -> float:
        return self.median * math.exp(self.sigma * float(stats.norm.isf(slower)))

    @property
    def score(self) -> float:
        return 0.2 + 0.5 * self.rare


Segments = dict[str, Traffic]


def soak(rng: np.random.Generator, rules: Sequence[Rule], by_segment: Segments, stable: Segments) -> bool:
    """Whether any rule trips in one soak. `stable`: what its baseline is drawn from, if there is one."""
    rows = {name: traffic.draw(rng) for name, traffic in by_segment.items()}
    segments = {name: {B0 + 12 * i: cell for i, cell in enumerate(row)} for name, row in rows.items()}
    segments[""] = {B0 + 12 * i: add_up(row[i] for row in rows.values()) for i in range(WINDOWS)}
    baseline = None
    if stable:
        cells = {name: add_up(traffic.draw(rng, 5)) for name, traffic in stable.items()}
        baseline = Baseline(0.0, 300.0, {**cells, "": add_up(cells.values())})
    stop = B0 + 12 * WINDOWS
    merged = RevisionEvidence(segments, stop, 1, (), stop * 5.0, tells=frozenset(LATER_COUNTERS))
    verdicts = gr.judge(
        rules, merged, started_at=B0 * 5.0, now=stop * 5.0, baseline=baseline, alpha_budget=BUDGET,
        horizon_seconds=WINDOWS * 60.0, ready_pods=1, steady=False,
    )  # fmt: skip
    return worst(verdicts) is Verdict.FAIL


def rule(name: str, metric: str, **bounds: object) -> Rule:
    return Rule(name, metric, window_seconds=60, consecutive=1, **bounds)  # type: ignore[arg-type]


FAST = Traffic(queries=2000, median=0.010)
SKEWED = Traffic(queries=300, rare=0.085)  # scores of skewness 3
LOST = Traffic(live=300, recall=0.93)
CLICKS = Traffic(tracked=300, clicks=0.8)  # mean depth 3
LEFT = Traffic(queries=300, rare=0.9)

SCENARIOS = {
    "errors": ([rule("r", "ErrorRate", max=0.02)], Traffic(errors=0.02), None),
    "errors, much traffic": ([rule("r", "ErrorRate", max=0.02)], Traffic(2000, errors=0.02), None),
    "refusals": ([rule("r", "RefusalRate", max=0.02)], Traffic(refused=0.02), None),
    "refusals against stable": (
        [rule("r", "RefusalRate", max_rise_vs_stable=0.5)], Traffic(refused=0.03), Traffic(refused=0.02),
    ),
    "filters lost": ([rule("r", "FiltersLost", max=0.02)], Traffic(filters=200, lost=0.02), None),
    "filters lost, seldom, among clients that always were wrong": (
        [rule("r", "FiltersLost", max=0.002)], Traffic(filters=200, lost=0.002, refused=0.4), None,
    ),
    "filtered zero results": ([rule("r", "FilteredZeroResultRate", max=0.05)], Traffic(filters=200, empty=0.05), None),
    "filtered zero results against stable": (
        [rule("r", "FilteredZeroResultRate", max_rise_vs_stable=0.5)], Traffic(filters=200, empty=0.15),
        Traffic(filters=200, empty=0.1),
    ),
    "zero results": ([rule("r", "ZeroResultRate", max=0.02)], Traffic(zero=0.02), None),
    "zero results, frequent": ([rule("r", "ZeroResultRate", max=0.3)], Traffic(zero=0.3), None),
    "P95": ([rule("r", "LatencyP95", max=FAST.quantile(0.05))], FAST, None),
    "P99": ([rule("r", "LatencyP99", max=FAST.quantile(0.01))], FAST, None),
    "top score, skewed to the right": ([rule("r", "TopScore", min=SKEWED.score)], SKEWED, None),
    "top score, skewed to the left": ([rule("r", "TopScore", min=LEFT.score)], LEFT, None),
    "live recall, some queries lose everything": ([rule("r", "LiveRecall", min=0.93)], LOST, None),
    "live recall near 1": ([rule("r", "LiveRecall", min=0.995)], replace(LOST, recall=0.995), None),
    "live recall, every answer alike": ([rule("r", "LiveRecall", min=0.93)], replace(LOST, torn=False), None),
    "live recall against stable": (
        [rule("r", "LiveRecall", max_drop_vs_stable=0.05)], replace(LOST, recall=0.95 * 0.97),
        replace(LOST, recall=0.97),
    ),
    "reranked share": ([rule("r", "RerankedShare", min=0.9)], Traffic(reranked=0.9), None),
    "click depth": ([rule("r", "ClickDepth", max=3.0)], CLICKS, None),
    "click depth against stable": (
        [rule("r", "ClickDepth", max_rise_vs_stable=0.5)], CLICKS, replace(CLICKS, clicks=0.9),
    ),
    "errors against stable": (
        [rule("r", "ErrorRate", max_rise_vs_stable=0.5)], Traffic(errors=0.03), Traffic(errors=0.02),
    ),
    "zero results against stable": (
        [rule("r", "ZeroResultRate", max_rise_vs_stable=0.1)], Traffic(1000, zero=0.22), Traffic(1000, zero=0.2),
    ),
    "P95 against stable": ([rule("r", "LatencyP95", max_rise_vs_stable=0.2)], Traffic(2000, median=0.012), FAST),
    "top score against stable": (
        [rule("r", "TopScore", max_drop_vs_stable=1 - SKEWED.score / 0.27)], SKEWED, Traffic(300, rare=0.14),
    ),
}  # fmt: skip


def trips(rules: list[Rule], traffic: Segments, stable: Segments, soaks: int) -> int:
    rng = np.random.default_rng(20_240_601)
    return sum(soak(rng, rules, traffic, stable) for _ in range(soaks))


def most(soaks: int, probability: float) -> int:
    """A count that an honest rate of `probability` exceeds once in a thousand such simulations."""
    return int(stats.binom.isf(1e-3, soaks, probability))


@pytest.mark.parametrize("name", SCENARIOS)
def test_one_rule_at_its_bound(name: str) -> None:
    rules, traffic, stable = SCENARIOS[name]
    soaks = SOAKS // 3 if traffic.median else SOAKS
    count = trips(rules, {"other": traffic}, {"other": stable} if stable else {}, soaks)
    print(f"{name}: {count} of {soaks} soaks tripped ({count / soaks:.2%}, budget {BUDGET:.0%})")
    assert count <= most(soaks, BUDGET)


def test_all_rules_and_segments_at_their_bounds_together() -> None:
    """Eleven rules, every one exactly at its bound, in every segment at once."""
    stable = Traffic(1000, errors=0.02, zero=0.05, rare=0.5, median=0.010)
    worse = Traffic(1000, errors=0.03, zero=0.055, median=0.012, rare=0.41)
    rules = [
        *(rule(f"errors-{s}", "ErrorRate", max=0.03, segment=s) for s in ("", "keyword", "question")),
        *(rule(f"zero-{s}", "ZeroResultRate", max=0.055, segment=s) for s in ("", "keyword", "question")),
        rule("p95", "LatencyP95", max=worse.quantile(0.05)),
        rule("p99", "LatencyP99", max_rise_vs_stable=0.2),
        rule("errors-relative", "ErrorRate", max_rise_vs_stable=0.5),
        rule("score", "TopScore", min=worse.score, segment="keyword"),
        rule("score-relative", "TopScore", max_drop_vs_stable=1 - worse.score / stable.score),
    ]
    soaks = SOAKS // 2
    count = trips(rules, {"keyword": worse, "question": worse}, {"keyword": stable, "question": stable}, soaks)
    print(f"all rules: {count} of {soaks} soaks tripped ({count / soaks:.2%}, budget {BUDGET:.0%})")
    assert count <= most(soaks, BUDGET)


def test_the_simulation_can_see_a_broken_promise() -> None:
    """The same soaks at the level that people use (5 % at each look) trip half of the time."""
    _, traffic, _ = SCENARIOS["errors"]
    rng = np.random.default_rng(1)
    evidence = [list(traffic.draw(rng)) for _ in range(100)]
    naive = sum(any(stats.binom.sf(c.errors - 1, c.queries, 0.02) <= 0.05 for c in row) for row in evidence)
    assert naive > 25


def sensible() -> Iterator[tuple[Rule, Traffic]]:
    """Rules with revisions that nobody could miss."""
    yield rule("r", "ErrorRate", max=0.02), Traffic(errors=0.1)
    yield rule("r", "ZeroResultRate", max=0.02), Traffic(zero=0.1)
    yield rule("r", "FiltersLost", max=0.02), Traffic(filters=200, lost=0.1)
    yield rule("r", "FilteredZeroResultRate", max=0.05), Traffic(filters=200, empty=0.2)
    yield rule("r", "LatencyP95", max=0.02), Traffic(median=0.02)
    yield rule("r", "LiveRecall", min=0.93), replace(LOST, recall=0.8)
    yield rule("r", "LiveRecall", min=0.93), replace(LOST, recall=0.83, torn=False)
    yield rule("r", "RerankedShare", min=0.9), Traffic(reranked=0.7)
    yield rule("r", "ClickDepth", max=3.0), replace(CLICKS, clicks=0.6)
    yield rule("r", "TopScore", min=0.4), Traffic(1000, rare=0.2)


@pytest.mark.parametrize("case", list(sensible()), ids=lambda case: str(case[0].metric))
def test_a_revision_that_is_far_outside_always_trips(case: tuple[Rule, Traffic]) -> None:
    """The promise would be easy to keep by never tripping."""
    assert trips([case[0]], {"other": case[1]}, {}, 100) == 100


# ---------------------------------------------------------------- a canary's step

STEPS = 100
STEP_WINDOWS = 5
HORIZON = 6 * 3600.0
"""soak.maxDuration: at the level of a whole soak steps are judged (core/safety/judge_steps.py)."""
RELATIVE = [rule("errors", "ErrorRate", max_rise_vs_stable=0.5)]


def step_trips(rng: np.random.Generator, canary: Traffic, stable: Traffic) -> bool:
    """Whether any look at a step, one after each window, says Fail. Stable is what it answered meanwhile, so a window
    that has closed is compared again with more of it each time."""
    mine, theirs = canary.draw(rng, STEP_WINDOWS), stable.draw(rng, STEP_WINDOWS)
    return any(_look(mine[:number], add_up(theirs[:number])) for number in range(1, STEP_WINDOWS + 1))


def _look(mine: list[Counts], stable: Counts) -> bool:
    cells = {B0 + 12 * at: cell for at, cell in enumerate(mine)}
    stop = B0 + 12 * len(mine)
    merged = RevisionEvidence({"": cells, "other": cells}, stop, 1, (), stop * 5.0)
    verdicts = gr.judge(
        RELATIVE, merged, started_at=B0 * 5.0, now=stop * 5.0, baseline=Baseline(B0 * 5.0, stop * 5.0, {"": stable}),
        alpha_budget=BUDGET, horizon_seconds=HORIZON, ready_pods=1, steady=False,
    )  # fmt: skip
    return worst(verdicts) is Verdict.FAIL


def test_a_step_at_its_bound_against_what_stable_answers_meanwhile() -> None:
    rng = np.random.default_rng(7)
    canary, stable = Traffic(queries=300, errors=0.06), Traffic(queries=2700, errors=0.04)
    count = sum(step_trips(rng, canary, stable) for _ in range(STEPS))
    print(f"steps: {count} of {STEPS} tripped (budget {BUDGET:.0%})")
    assert count <= most(STEPS, BUDGET)
    assert all(step_trips(rng, Traffic(queries=300, errors=0.3), stable) for _ in range(20))
