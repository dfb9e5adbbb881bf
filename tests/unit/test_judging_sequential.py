"""Rules whose windows nobody chose are judged at any moment, too: how soon, how seldom in vain, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectorindex_operator.api.v1alpha1 import GuardrailRule
from vectorindex_operator.core.judging import eprocess
from vectorindex_operator.core.judging import judge as gr
from vectorindex_operator.core.judging.blocks import BLOCK
from vectorindex_operator.core.judging.evidence import Counts, RevisionEvidence
from vectorindex_operator.core.judging.metrics import METRICS
from vectorindex_operator.core.judging.rules import Rule, RuleVerdict, Verdict, rule_of
from vectorindex_operator.core.judging.sequential import Stake, stake_on
from vectorindex_searcher.contract import LATER_COUNTERS

B0 = 340_000_008
"""Begins a block."""
T0 = float(B0 * 5)
ERRORS = Rule("errors", "ErrorRate", max=0.02, sequential=True)
RECALL = Rule("recall", "LiveRecall", min=0.93, window_seconds=900, sequential=True)
Cells = Sequence[Counts]


def evidence(cells: Cells, *, complete: int | None = None, segment: str = "a") -> RevisionEvidence:
    """One cell for each bucket since B0."""
    rows = {B0 + number: cell for number, cell in enumerate(cells)}
    stop = B0 + (len(cells) if complete is None else complete)
    tells = frozenset(LATER_COUNTERS)
    return RevisionEvidence({segment: rows, "": rows}, stop, 1, (), stop * 5.0, tells=tells)


def judge(rule: Rule, merged: RevisionEvidence, *others: Rule, **more: Any) -> RuleVerdict:
    options: dict[str, Any] = {
        "started_at": T0, "now": merged.complete_before * 5.0, "baseline": None, "alpha_budget": 0.01,
        "horizon_seconds": 21_600, "ready_pods": 1, "steady": False, **more,
    }  # fmt: skip
    return gr.judge((rule, *others), merged, **options)[0]


def failing(share: float, requests: int = 1250) -> Counts:
    return Counts(requests=requests, failed_requests=round(share * requests), queries=requests)


def recalling(recall: float, queries: int = 5) -> Counts:
    return Counts(queries=1000, live_queries=queries, live_recall_sum=queries * recall)


def seen_after(rule: Rule, cell: Counts, most: int = 720) -> float:
    """Seconds from the switch to the look that says Fail; a look every 5 s."""
    for stop in range(1, most + 1):
        if judge(rule, evidence([cell] * stop)).verdict is Verdict.FAIL:
            return 5.0 * stop
    return float("inf")


# ---------------------------------------------------------------- how soon


def test_a_clear_fault_is_seen_in_a_tenth_of_the_time_that_windows_take() -> None:
    windows = replace(ERRORS, sequential=False)
    assert seen_after(windows, failing(0.18)) == 120
    assert seen_after(ERRORS, failing(0.18)) <= 15


def test_a_recall_that_is_clearly_too_low_is_seen_in_minutes() -> None:
    assert seen_after(replace(RECALL, sequential=False), recalling(0.8)) == 1800
    assert seen_after(RECALL, recalling(0.8)) <= 600


def test_a_change_in_the_middle_of_a_soak_is_seen_too() -> None:
    well = [failing(0.001)] * 360
    late = next(
        n for n in range(1, 60) if judge(ERRORS, evidence([*well, *[failing(0.18)] * n])).verdict is Verdict.FAIL
    )
    assert late * 5 <= 90


def test_it_says_since_when_and_on_what() -> None:
    said = judge(ERRORS, evidence([*[failing(0.0)] * 24, *[failing(0.5)] * 6]))
    assert (said.verdict, said.reason, said.windows_failed) == (Verdict.FAIL, "BoundExceeded", 0)
    assert (said.samples, said.value, said.window_seconds) == (7500, 0.5, 30.0), "since the minute that proves the most"
    assert said.confidence_limit is None
    assert said.message == (
        "errors: error rate 50% on 7,500 requests in 30 s; max 2%; outside beyond doubt, whenever it is looked at"
    )


def test_the_bucket_that_is_open_counts_as_far_as_it_goes() -> None:
    cells = [failing(0.18)] * 3
    assert judge(ERRORS, evidence(cells, complete=2)).verdict is Verdict.FAIL
    assert judge(ERRORS, evidence(cells[:2], complete=2)).verdict is not Verdict.FAIL


def test_recall_that_is_not_measured_to_the_end_does_not_count() -> None:
    merged = evidence([*[recalling(1.0, 50)] * 12, *[recalling(0.0, 50)] * 12])
    assert judge(RECALL, merged).verdict is Verdict.FAIL
    assert judge(RECALL, replace(merged, live_before=B0 + 12)).verdict is not Verdict.FAIL


def test_nothing_before_the_end_of_the_warm_up_counts() -> None:
    rule = replace(ERRORS, warm_up_seconds=60)
    assert judge(rule, evidence([failing(0.4)] * 11)).reason == "WarmingUp"
    assert judge(rule, evidence([*[failing(0.4)] * 12, *[failing(0.0)] * 12])).verdict is Verdict.PASS


# ---------------------------------------------------------------- how seldom in vain


@pytest.mark.parametrize("errors", [150, 1250])
def test_what_happens_within_five_seconds_proves_nothing(errors: int) -> None:
    """A batch, a second without network; it mostly lies across two buckets."""
    burst = [failing(0.0)] * 20 + [failing(errors / 2500)] * 2 + [failing(0.0)] * 2
    for stop in range(1, len(burst) + 1):
        stake = stake_of(ERRORS, burst[:stop])
        assert stake.proven_since(0.005) is None


def test_few_samples_prove_nothing_however_bad_they_are() -> None:
    cells = [failing(1.0, 3)] * 60
    assert stake_of(ERRORS, cells).proven_since(0.005) is None, "180 of 200"
    assert stake_of(ERRORS, [*cells, *[failing(1.0, 3)] * 60]).proven_since(0.005) is not None


def stake_of(rule: Rule, cells: Cells, *, horizon: float = 21_600) -> Stake:
    stake = stake_on(METRICS[rule.metric].bet, rule, evidence(cells), B0, horizon)
    assert stake is not None
    return stake


def test_at_its_bound_a_revision_trips_in_no_more_soaks_than_the_level_says() -> None:
    """Of 200 soaks of ten minutes at a level of 10 %, looked at every minute: 20 are allowed, and by threes hardly any
    trip."""
    rng, tripped = np.random.default_rng(7), 0
    for _ in range(200):
        cells = [Counts(requests=100, failed_requests=int(n), queries=100) for n in rng.binomial(100, 0.02, 120)]
        tripped += any(
            stake_of(ERRORS, cells[:stop], horizon=600).proven_since(0.1) is not None for stop in range(12, 121, 12)
        )
    assert tripped <= 20


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.floats(0, 0.3)), min_size=1, max_size=40),
    st.integers(0, 11),
    st.booleans(),
)
def test_what_the_sums_of_minutes_rule_out_no_bet_has_won(
    rows: list[tuple[int, float]], begin: int, batches: bool
) -> None:
    """The look at sums alone spares the bets; it must never hide that they have won."""
    cells = [failing(share, requests) for requests, share in rows]
    if batches:  # of which some are not bet on at all
        cells = [replace(cell, queries=cell.requests + (number % 3 == 0)) for number, cell in enumerate(cells)]
    stake = replace(stake_of(ERRORS, cells), first=B0 + begin, enough=50, one_by_one=batches)
    counts = {
        B0 + number: (cell.failed_requests, cell.requests)
        for number, cell in enumerate(cells)
        if cell.queries == cell.requests
    }
    held = eprocess.wealth(
        eprocess.of_rate(counts, 0.02), first=B0 + begin, stop=B0 + len(cells) + 1, oldest=stake.merged.oldest,
        starts=360, enough=50,
    )  # fmt: skip
    for level in (0.5, 0.01):
        assert (stake.proven_since(level) is not None) == (held >= 1 / level)


def test_windows_and_bets_have_half_of_the_level_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they use what windows alone would: the budget is for all of it."""
    levels: list[tuple[float, float]] = []
    real: Callable[..., Any] = gr._judge_rule

    def noted(case: Any, ready: int) -> RuleVerdict:
        levels.append((case.levels.window, case.stake_level if case.stake is not None else 0.0))
        verdict: RuleVerdict = real(case, ready)
        return verdict

    monkeypatch.setattr(gr, "_judge_rule", noted)
    alone = replace(ERRORS, name="alone", sequential=False)
    judge(ERRORS, evidence([failing(0.0)]), alone)
    (half, bet), (whole, none) = levels
    assert none == 0.0
    assert half == pytest.approx(whole / 2)
    assert 360 * half + bet + 360 * whole == pytest.approx(0.01)


# ---------------------------------------------------------------- for whom


def given_rule(**more: Any) -> Rule:
    return rule_of(GuardrailRule(name="r", **{"metric": "ErrorRate", "max": "2%", **more}))


def test_who_chose_windows_keeps_them() -> None:
    assert given_rule().sequential
    assert given_rule(metric="LiveRecall", max=None, min="93%").sequential
    assert not given_rule(window="1m").sequential
    assert not given_rule(consecutive=3).sequential
    assert not given_rule(consecutive=1).sequential


@pytest.mark.parametrize(
    ("metric", "bound"),
    [
        ("ErrorRate", {"max_rise_vs_stable": 0.5}),  # a frozen baseline is one sample
        ("ErrorRate", {"min": 0.1}),
        ("TopScore", {"min": 0.4}),  # no bounds
        ("ClickDepth", {"max": 3.0}),  # its bounds change with the queries
    ],
)
def test_what_cannot_be_bet_on_has_windows_alone(metric: str, bound: dict[str, float]) -> None:
    rule = Rule("r", metric, sequential=True, **bound)  # type: ignore[arg-type]
    assert stake_on(METRICS[rule.metric].bet, rule, evidence([failing(0.5)]), B0, 600.0) is None


def empty(share: float, requests: int = 1250, each: int = 1) -> Counts:
    queries = requests * each
    return Counts(requests=requests, queries=queries, zero_results=round(share * queries))


def slow(share: float, queries: int = 1250) -> Counts:
    late = round(share * queries)
    return Counts(requests=queries, queries=queries, latency={180: queries - late, 240: late})


@pytest.mark.parametrize(
    ("rule", "cell"),
    [
        (Rule("r", "RefusalRate", max=0.05), Counts(requests=1000, queries=1000, refused=250)),
        (
            Rule("r", "FiltersLost", max=0.005),
            Counts(requests=1000, queries=1000, filters_compared=500, filters_lost=50),
        ),
        (Rule("r", "ZeroResultRate", max=0.02), empty(0.18)),
        (
            Rule("r", "FilteredZeroResultRate", max=0.02),
            Counts(requests=1000, queries=1000, filtered_queries=500, filtered_zero_results=90),
        ),
        (Rule("r", "LatencyP95", max=0.05), slow(0.3)),
        (Rule("r", "LatencyP99", max=0.05), slow(0.3)),
    ],
)
def test_every_rate_is_bet_on(rule: Rule, cell: Counts) -> None:
    assert seen_after(replace(rule, sequential=True), cell) <= 15
    assert seen_after(rule, cell) == 120
    assert seen_after(replace(rule, sequential=True), replace(cell, **WELL), 40) == float("inf")


WELL: dict[str, Any] = {
    "refused": 0, "filters_lost": 0, "zero_results": 0, "filtered_zero_results": 0, "latency": {180: 1250},
}  # fmt: skip


def test_queries_of_batches_are_not_bet_on() -> None:
    """A batch that finds nothing is a hundred queries that find nothing together; windows judge it, as before."""
    rule = Rule("r", "ZeroResultRate", max=0.02, sequential=True)
    batches = empty(0.18, 10, 128)
    assert seen_after(rule, batches) == 120
    mixed = [batches, *[empty(0.18)] * 3] * 3
    assert judge(rule, evidence(mixed)).verdict is Verdict.FAIL, "the others are"
    assert judge(rule, evidence([batches] * 12)).verdict is not Verdict.FAIL


def test_segments_are_bet_on_by_themselves() -> None:
    rule = replace(ERRORS, segment="a")
    bad, well = evidence([failing(0.18)] * 6), evidence([failing(0.18)] * 6, segment="b")
    assert judge(rule, bad).verdict is Verdict.FAIL
    assert judge(rule, well).verdict is not Verdict.FAIL


def test_what_is_well_is_told_by_the_sums_of_minutes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look must not cost more than before: a thousand indexes are looked at."""
    merged = evidence([failing(0.001)] * (20 * BLOCK))
    monkeypatch.setattr(eprocess, "holdings", lambda *_, **__: pytest.fail("the bets were added up"))
    assert judge(ERRORS, merged).verdict is Verdict.PASS
