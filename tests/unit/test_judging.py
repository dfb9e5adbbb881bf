"""What `judge` says in each situation, the reasons and the sentences; restart-invariance and monotonicity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectorindex_operator.core.judging import judge as gr
from vectorindex_operator.core.judging.baseline import Baseline
from vectorindex_operator.core.judging.evidence import Counts, PodEvidence, RevisionEvidence, add_up, merge
from vectorindex_operator.core.judging.rules import Rule, RuleVerdict, Verdict
from vectorindex_searcher.contract import Evidence, EvidenceBucket

B0 = 340_000_000
T0 = float(B0 * 5)
ZERO = Rule("zero", "ZeroResultRate", max=0.02, window_seconds=10, consecutive=1)
ERRORS = Rule("errors", "ErrorRate", max=0.02, warm_up_seconds=60)


def merged(
    cells: Sequence[Counts], segment: str = "a", *, complete: int | None = None, **others: Sequence[Counts]
) -> RevisionEvidence:
    """One cell per bucket since B0; `others`: further segments."""
    segments = {name: {B0 + i: cell for i, cell in enumerate(row)} for name, row in {segment: cells, **others}.items()}
    length = max((len(row) for row in (cells, *others.values())), default=0)
    rows = list(segments.values())
    overall = {B0 + i: add_up(row[B0 + i] for row in rows if B0 + i in row) for i in range(length)}
    stop = B0 + (length if complete is None else complete)
    return RevisionEvidence({**segments, "": overall}, stop, 1, (), stop * 5.0)


def judge(rule: Rule, evidence: RevisionEvidence, *, rules: Sequence[Rule] = (), **given_options: Any) -> RuleVerdict:
    options: dict[str, Any] = {
        "started_at": T0, "now": evidence.complete_before * 5.0, "baseline": None, "alpha_budget": 0.01,
        "horizon_seconds": 21_600, "ready_pods": 1, "steady": False, **given_options,
    }  # fmt: skip
    return gr.judge((rule, *rules), evidence, **options)[0]


def cell(
    queries: int = 1000, *, errors: int = 0, zero: int = 0, score: float = 0.5, slow: int = 0, spread: float = 0.1
) -> Counts:
    """Latency 10 ms (bin 188), `slow` of them 100 ms (bin 235)."""
    top = queries - errors
    return Counts(
        requests=queries, failed_requests=errors, queries=queries, errors=errors, zero_results=zero,
        top_count=top, top_sum=top * score,
        top_sum_squares=top * (score**2 + 0.1**2), latency={188: queries - slow, 235: slow},
    )  # fmt: skip


LIVE = Rule("live", "LiveRecall", min=0.93, window_seconds=60, consecutive=1)


def live(recall: float, queries: int = 100, **more: int) -> Counts:
    return Counts(queries=1000, live_queries=queries, live_recall_sum=queries * recall, **more)


def test_live_recall_is_judged_on_final_buckets_only() -> None:
    """Answers of the last minutes are still being judged by the searchers: no window may close on them."""
    evidence = merged([live(0.97)] * 60 + [live(0.0)] * 60)
    late = replace(evidence, live_before=B0 + 60)
    assert judge(LIVE, evidence).verdict is Verdict.FAIL
    said = judge(LIVE, late)
    assert (said.verdict, said.samples) == (Verdict.PASS, 6000)
    assert said.value == pytest.approx(0.97)
    assert judge(LIVE, replace(evidence, live_before=B0 + 84)).verdict is Verdict.FAIL


def test_live_recall_says_what_it_was_compared_with_and_needs_samples() -> None:
    said = judge(LIVE, merged([live(0.85)] * 24))
    assert (said.verdict, said.reason, said.samples) == (Verdict.FAIL, "BoundExceeded", 1200)
    assert "live recall 85% (at most 8" in said.message
    assert "on 1,200 sampled queries in 60 s; min 93%" in said.message
    wide = judge(LIVE, merged([live(0.85, live_wide=100)] * 24))
    assert "sampled queries against a wider search in" in wide.message
    assert judge(LIVE, merged([live(1.0, queries=1)] * 24)).reason == "TooFewSamples"
    assert judge(LIVE, merged([Counts(queries=1000)] * 60)).reason == "NoData"


CLICKS = Rule("clicks", "ClickDepth", max=3.0, window_seconds=60, consecutive=1)


def clicks(share: float, tracked: int = 100) -> Counts:
    """Queries with k = 10, a share of them clicked on the first answer, the others not at all."""
    clicked = round(share * tracked)
    return Counts(
        queries=1000, tracked=tracked, tracked_depth_sum=11 * tracked, clicked=clicked, click_gain_sum=10 * clicked,
        click_depth_top=11,
    )  # fmt: skip


def test_click_depth_waits_for_the_clicks() -> None:
    """Queries of the last five minutes have no clicks yet: that is not a bad revision."""
    evidence = [clicks(0.9)] * 60
    said = judge(CLICKS, merged([*evidence, *[clicks(0.0)] * 62]))
    assert (said.verdict, said.samples, said.value) == (Verdict.PASS, 6000, 2.0)
    assert "mean click depth 2 (at least 1." in said.message
    assert judge(CLICKS, merged([*[clicks(0.5)] * 60, *[clicks(0.0)] * 62])).verdict is Verdict.FAIL


def test_click_depth_of_pods_that_died_is_never_below_the_first_answer() -> None:
    lost = replace(clicks(1.0, 10), clicked=500, click_gain_sum=5000)
    said = judge(CLICKS, merged([lost] * 122))
    assert (said.verdict, said.value) == (Verdict.PASS, 1.0)


def test_a_batch_that_fails_is_one_failure_however_many_queries_it_carried() -> None:
    """Ten batches of ten among a thousand requests: 1 %, where a count of queries would say 9.2 % beyond doubt."""
    batches = Counts(requests=1000, failed_requests=10, queries=1090, errors=100)
    said = judge(ERRORS, merged([batches] * 36))
    assert (said.verdict, said.value, said.samples) == (Verdict.PASS, 0.01, 24_000)


def baseline(one: Counts, **mix: Counts) -> Baseline:
    return Baseline(T0 - 900, T0, {"": one, **(mix or {"a": one})})


def moved_mix(frozen: Baseline) -> Baseline:
    """The same with another segment that had as many queries again."""
    return replace(frozen, cells={**frozen.cells, "b": cell(180_000)})


# ---------------------------------------------------------------- verdicts and reasons


def test_the_demo_trips_after_its_first_window() -> None:
    """200 queries/s, a fifth without results, max 2 %: Fail as soon as ten seconds are complete, and not before."""
    bad = [cell(1000, zero=200)] * 2
    assert judge(ZERO, merged(bad[:1])).verdict is Verdict.INCONCLUSIVE
    verdict = judge(ZERO, merged(bad))
    assert (verdict.verdict, verdict.reason) == (Verdict.FAIL, "BoundExceeded")
    assert (verdict.value, verdict.limit, verdict.samples, verdict.window_seconds) == (0.2, 0.02, 2000, 10.0)
    assert verdict.confidence_limit is not None
    assert 0.15 < verdict.confidence_limit < 0.2
    assert verdict.message == (
        f"zero: zero-result rate 20% (at least {100 * verdict.confidence_limit:.3g}% beyond doubt) "
        "on 2,000 answered queries in 10 s; max 2%; outside beyond doubt"
    )


def test_good_evidence_passes() -> None:
    verdict = judge(ZERO, merged([cell(zero=10)] * 3))
    assert (verdict.verdict, verdict.reason, verdict.value) == (Verdict.PASS, "WithinBound", 0.01)
    assert verdict.samples == 3000


@pytest.mark.parametrize(("zero", "verdict", "reason"), [
    (20, Verdict.PASS, "WithinBound"),  # exactly at the bound is inside
    (21, Verdict.INCONCLUSIVE, "NearBound"),
    (30, Verdict.INCONCLUSIVE, "NearBound"),
    (60, Verdict.FAIL, "BoundExceeded"),
])  # fmt: skip
def test_between_pass_and_fail_lies_doubt(zero: int, verdict: Verdict, reason: str) -> None:
    said = judge(ZERO, merged([cell(1000, zero=zero)] * 2))
    assert (said.verdict, said.reason) == (verdict, reason)


def test_consecutive_windows_must_be_in_a_row() -> None:
    rule = replace(ZERO, consecutive=2)
    good, bad = [cell()] * 2, [cell(zero=200)] * 2
    assert judge(rule, merged(good + bad)).reason == "NearBound"
    assert judge(rule, merged(good + bad + good + bad)).verdict is Verdict.INCONCLUSIVE
    fail = judge(rule, merged(good + bad + bad))
    assert (fail.verdict, fail.windows_failed) == (Verdict.FAIL, 2)
    assert judge(rule, merged(good + bad + bad + good * 20)).verdict is Verdict.FAIL  # what tripped stays tripped


def test_inside_on_the_whole_but_failing_now_does_not_pass() -> None:
    rule = replace(ZERO, consecutive=2)
    said = judge(rule, merged([cell()] * 200 + [cell(zero=200)] * 2))
    assert (said.verdict, said.reason, said.windows_failed) == (Verdict.INCONCLUSIVE, "WindowFailed", 1)
    assert "1 of 2 windows of 10 s beyond doubt" in said.message


def test_too_few_and_none() -> None:
    assert judge(ZERO, merged([cell(50)] * 3)).reason == "TooFewSamples"
    empty = merged([], complete=1)
    assert judge(ZERO, empty).reason == "TooFewSamples"  # a window's time must pass before silence means something
    empty = merged([], complete=2)
    for policy, verdict in (("Hold", Verdict.INCONCLUSIVE), ("Pass", Verdict.PASS), ("Fail", Verdict.FAIL)):
        said = judge(replace(ZERO, on_no_data=policy), empty)  # type: ignore[arg-type]
        assert (said.verdict, said.reason, said.value, said.confidence_limit) == (verdict, "NoData", None, None)


def test_a_segment_is_judged_by_its_own_queries() -> None:
    evidence = merged([cell(zero=200)] * 2, "keyword", question=[cell(100_000)] * 2)
    assert judge(ZERO, evidence).verdict is Verdict.PASS
    said = judge(replace(ZERO, segment="keyword"), evidence)
    assert said.verdict is Verdict.FAIL
    assert "of segment keyword 20%" in said.message
    assert judge(replace(ZERO, segment="nobody"), evidence).reason == "NoData"


def test_warm_up_is_not_judged() -> None:
    rule = replace(ZERO, warm_up_seconds=30)
    cold = [cell(zero=200)] * 6
    assert judge(rule, merged(cold), now=T0 + 29).reason == "WarmingUp"
    assert judge(rule, merged(cold + [cell()] * 4)).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("ready", "silent", "error"), [(3, 1, False), (3, 2, True), (2, 1, True), (1, 0, False), (0, 0, True)]
)
def test_more_than_a_third_silent_is_an_error(ready: int, silent: int, error: bool) -> None:
    def of(one: Counts) -> RevisionEvidence:
        return replace(merged([one] * 3), pods=ready, silent=tuple(f"p{number}" for number in range(silent)))

    said = judge(ZERO, of(cell()), ready_pods=ready)
    assert (said.reason == "EvidenceMissing") == error
    assert (said.verdict is Verdict.ERROR) == error
    assert judge(ZERO, of(cell(zero=200)), ready_pods=ready).verdict is Verdict.FAIL


def test_ready_pods_that_were_never_asked_are_silent_too() -> None:
    assert judge(ZERO, merged([cell()] * 3), ready_pods=1).reason == "WithinBound"
    said = judge(ZERO, merged([cell()] * 3), ready_pods=3)
    assert (said.verdict, said.reason) == (Verdict.ERROR, "EvidenceMissing")


def test_evidence_of_another_revision_is_an_error_and_never_no_data() -> None:
    """An address was reused, or a selector reaches too far: with onNoData Pass that would promote unseen."""
    rule = replace(ZERO, on_no_data="Pass")
    now = T0 + 60
    rows = (EvidenceBucket(bucket=B0 + 1, segment="a", queries=1000),)
    answers = [
        PodEvidence(name, Evidence(pod=name, revision=of, now=now, buckets=rows), now)
        for name, of in (("p", "other"), ("q", "other"), ("r", "mine"))
    ]
    said = judge(rule, merge(answers, now, revision="mine"), ready_pods=3)
    assert (said.verdict, said.reason) == (Verdict.ERROR, "WrongRevision")
    assert "2 of 3 serving pods answer in the name of another revision" in said.message
    assert judge(rule, merge(answers, now, revision="other"), ready_pods=3).reason == "WithinBound"


def test_scores_that_are_no_numbers_are_an_error_and_never_pass() -> None:
    broken = replace(cell(), top_sum=math.nan)
    rule = Rule("top", "TopScore", min=0.4)
    assert judge(rule, merged([broken] * 30)).reason == "EvidenceInvalid"
    assert judge(ZERO, merged([broken] * 30)).verdict is Verdict.PASS


def test_a_rule_whose_windows_no_ring_can_hold_says_so() -> None:
    said = judge(replace(ZERO, window_seconds=1200, consecutive=2), merged([cell()] * 3))
    assert (said.verdict, said.reason) == (Verdict.ERROR, "WindowTooLong")
    assert judge(replace(ZERO, window_seconds=900, consecutive=2), merged([cell()] * 3)).verdict is Verdict.PASS


REFUSED = Rule("refused", "RefusalRate", max=0.05, window_seconds=10, consecutive=1)


def test_a_client_with_another_model_trips_nothing_by_itself_and_is_seen() -> None:
    """Its requests are no errors of the revision, not even for the look that needs neither window nor warm-up."""
    wrong = Counts(requests=1000, queries=1000, mismatched=2000)
    assert judge(ERRORS, merged([wrong] * 36)).verdict is Verdict.PASS
    said = judge(REFUSED, merged([wrong] * 2))
    assert (said.verdict, said.samples, said.value) == (Verdict.FAIL, 6000, pytest.approx(2 / 3))
    assert "refusal rate 66.7%" in said.message


def test_refusals_that_began_with_the_switch_are_seen_against_stable() -> None:
    """A column that became a number makes every filtered query a 400."""
    before, after = Counts(requests=1000, queries=1000, refused=10), Counts(requests=900, queries=900, refused=110)
    rule = replace(REFUSED, max=None, max_rise_vs_stable=0.5)
    frozen = baseline(add_up([before] * 180))
    assert judge(rule, merged([after] * 24), baseline=frozen).verdict is Verdict.FAIL
    assert judge(rule, merged([before] * 24), baseline=frozen).verdict is Verdict.PASS
    assert judge(ERRORS, merged([after] * 24), baseline=frozen).verdict is Verdict.PASS


# ---------------------------------------------------------------- early trip


def test_overwhelming_errors_need_one_look() -> None:
    """In the open bucket, during warm-up, before any window."""
    said = judge(ERRORS, merged([cell(20, errors=11)], complete=0), now=T0 + 3)
    assert (said.verdict, said.reason, said.samples) == (Verdict.FAIL, "BoundExceeded", 20)
    assert judge(ERRORS, merged([cell(20, errors=10)], complete=0), now=T0 + 3).verdict is Verdict.INCONCLUSIVE
    assert judge(ERRORS, merged([cell(19, errors=19)], complete=0), now=T0 + 3).verdict is Verdict.INCONCLUSIVE


def test_errors_that_begin_late_are_not_diluted() -> None:
    healthy = [cell(1000)] * 100
    assert judge(ERRORS, merged([*healthy, cell(15, errors=15), cell(15, errors=15)])).verdict is Verdict.FAIL


def test_errors_before_the_switch_do_not_count() -> None:
    assert judge(ERRORS, merged([cell(50, errors=50)]), started_at=T0 + 5, now=T0 + 8).verdict is Verdict.INCONCLUSIVE


def test_early_looks_respect_a_high_bound() -> None:
    """Eleven of twenty are no proof against a bound of 45 %; and above the bound they must be."""
    lax = replace(ERRORS, max=0.45)
    assert judge(lax, merged([cell(20, errors=11)]), now=T0 + 5).verdict is Verdict.INCONCLUSIVE
    assert judge(lax, merged([cell(2000, errors=1100)]), now=T0 + 5).verdict is Verdict.FAIL
    assert (
        judge(replace(ERRORS, max=0.9), merged([cell(2000, errors=1100)]), now=T0 + 5).verdict is Verdict.INCONCLUSIVE
    )


# ---------------------------------------------------------------- every metric, absolute and relative

LATENCY = Rule("slow", "LatencyP95", max=0.05, window_seconds=10, consecutive=1)
TOP = Rule("top", "TopScore", min=0.45, window_seconds=10, consecutive=1)


@pytest.mark.parametrize(("rule", "good", "bad"), [
    (replace(ERRORS, warm_up_seconds=0, consecutive=1), cell(errors=20), cell(errors=80)),
    (ZERO, cell(zero=20), cell(zero=80)),
    (LATENCY, cell(slow=50), cell(slow=120)),
    (replace(LATENCY, metric="LatencyP99"), cell(slow=10), cell(slow=50)),
    (TOP, cell(score=0.45), cell(score=0.40)),
])  # fmt: skip
def test_absolute_rules(rule: Rule, good: Counts, bad: Counts) -> None:
    assert judge(rule, merged([good] * 24)).verdict is Verdict.PASS
    assert judge(rule, merged([bad] * 24)).verdict is Verdict.FAIL


@pytest.mark.parametrize(("rule", "stable", "good", "bad"), [
    (Rule("r", "ErrorRate", max_rise_vs_stable=0.5), cell(errors=20), cell(errors=30), cell(errors=50)),
    (Rule("r", "ZeroResultRate", max_rise_vs_stable=0.1), cell(zero=100), cell(zero=110), cell(zero=200)),
    (Rule("r", "ZeroResultRate", max_drop_vs_stable=0.5), cell(zero=100), cell(zero=50), cell(zero=10)),
    (Rule("r", "LatencyP95", max_rise_vs_stable=0.2), cell(), cell(slow=50), cell(slow=120)),
    (Rule("r", "TopScore", max_drop_vs_stable=0.05), cell(score=0.5), cell(score=0.475), cell(score=0.44)),
    (Rule("r", "TopScore", max_drop_vs_stable=0.05), cell(score=-1.0), cell(score=-1.05), cell(score=-1.2)),
])  # fmt: skip
def test_relative_rules(rule: Rule, stable: Counts, good: Counts, bad: Counts) -> None:
    frozen = baseline(add_up([stable] * 180))
    assert judge(rule, merged([good] * 24), baseline=frozen).verdict is Verdict.PASS
    said = judge(rule, merged([bad] * 24), baseline=frozen)
    assert said.verdict is Verdict.FAIL
    assert said.baseline_age_seconds == 120.0
    assert "from stable's" in said.message
    # Three times as bad as any, but the mix of questions is another one.
    assert judge(rule, merged([bad] * 24), baseline=moved_mix(frozen)).reason == "MixChanged"
    assert (
        judge(
            replace(rule, segment="a"),
            merged([bad] * 24),
            baseline=replace(frozen, cells={**frozen.cells, "b": cell(10**6)}),
        ).verdict
        is Verdict.FAIL
    )
    # Nothing to compare with.
    assert judge(rule, merged([bad] * 24)).reason == "NoBaseline"
    assert judge(rule, merged([bad] * 24), baseline=baseline(cell(199))).reason == "NoBaseline"
    # In steady state the baseline is of another day.
    assert gr.judge(
        (rule,), merged([bad] * 24), started_at=T0, now=T0 + 120, baseline=frozen, alpha_budget=0.01,
        horizon_seconds=86_400, ready_pods=1, steady=True,
    ) == ()  # fmt: skip


def test_a_stable_revision_without_an_event_is_a_baseline_too() -> None:
    rule = Rule("r", "ErrorRate", max_rise_vs_stable=0.5)
    frozen = baseline(add_up([cell()] * 180))
    said = judge(rule, merged([cell(errors=20)] * 24), baseline=frozen)
    assert (said.verdict, said.limit, said.confidence_limit) == (Verdict.FAIL, 0.0, None)
    assert judge(rule, merged([cell()] * 24), baseline=frozen).verdict is Verdict.PASS


def test_failed_queries_do_not_hide_empty_answers() -> None:
    """80 % errors, and half of what was answered is empty: a zero-result rate of 50 %, not of 10 %."""
    assert judge(ZERO, merged([cell(1000, errors=800, zero=100)] * 2)).value == 0.5


@pytest.mark.parametrize("slow_bin", [218, 219, 220, 221, 222])
def test_the_bin_that_holds_the_bound_never_trips(slow_bin: int) -> None:
    """Everything in one bin: beyond doubt only when the whole bin is slower than the bound of 45 ms (bin 219)."""
    slow = Counts(queries=1000, latency={slow_bin: 1000})
    assert 1.05**219 / 1e6 < 0.045 < 1.05**220 / 1e6
    said = judge(replace(LATENCY, max=0.045), merged([slow] * 4))
    assert (said.verdict is Verdict.FAIL) == (slow_bin > 219)


def test_few_scores_never_trip_a_mean() -> None:
    """At the level of a six-hour soak 400 scores prove nothing about a skewed mean, so the window waits for more."""
    assert judge(TOP, merged([cell(200, score=0.3)] * 2)).reason == "NearBound"
    assert judge(TOP, merged([cell(200, score=0.3)] * 5)).verdict is Verdict.FAIL


def test_equal_scores_at_the_bound_do_not_trip_by_rounding() -> None:
    same = Counts(
        queries=3000, top_count=3000, top_sum=math.fsum([0.45] * 3000) - 1e-10, top_sum_squares=3000 * 0.45**2
    )
    assert judge(TOP, merged([same] * 24)).verdict is Verdict.PASS


# ---------------------------------------------------------------- the budget


def test_observing_costs_the_others_nothing() -> None:
    """An observed rule must not weaken an enforced one; another enforced one must."""
    edge = merged([cell(1000, zero=46)] * 2)
    alone = judge(ZERO, edge)
    watched = judge(ZERO, edge, rules=[replace(ZERO, name=f"o{i}", mode="Observe") for i in range(30)])
    crowded = judge(ZERO, edge, rules=[replace(ZERO, name=f"e{i}") for i in range(30)])
    assert alone.confidence_limit == watched.confidence_limit
    assert crowded.confidence_limit is not None
    assert alone.confidence_limit is not None
    assert crowded.confidence_limit < alone.confidence_limit


@given(st.sampled_from([0.001, 0.01, 0.1]), st.integers(60, 90_000))
def test_a_larger_budget_and_a_shorter_soak_trip_sooner(budget: float, horizon: int) -> None:
    evidence = merged([cell(1000, zero=45)] * 2)
    strict = judge(ZERO, evidence, alpha_budget=budget, horizon_seconds=horizon).confidence_limit
    lax = judge(ZERO, evidence, alpha_budget=budget * 2, horizon_seconds=horizon / 2).confidence_limit
    assert strict is not None
    assert lax is not None
    assert lax > strict


def test_a_budget_of_zero_still_trips_on_the_obvious() -> None:
    assert judge(ZERO, merged([cell(1000, zero=500)] * 2), alpha_budget=0.0).verdict is Verdict.FAIL


# ---------------------------------------------------------------- properties

SEVERITY = {Verdict.PASS: 0, Verdict.INCONCLUSIVE: 1, Verdict.ERROR: 2, Verdict.FAIL: 3}


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), min_size=1, max_size=30),
    st.integers(0, 29),
    st.integers(1, 3),
)
@settings(max_examples=150)
def test_more_empty_answers_are_never_better(counts: list[tuple[int, int]], at: int, consecutive: int) -> None:
    rule = replace(ZERO, consecutive=consecutive, min_samples=100)
    cells = [cell(max(pair), zero=min(pair)) for pair in counts]
    at %= len(cells)
    worse = list(cells)
    worse[at] = replace(cells[at], zero_results=cells[at].queries)
    assert SEVERITY[judge(rule, merged(worse)).verdict] >= SEVERITY[judge(rule, merged(cells)).verdict]


@given(
    st.integers(0, 10**6),
    st.sampled_from([5.0, 10.0, 35.0, 60.0]),
    st.integers(1, 3),
    st.integers(1, 400),
    st.integers(0, 60),
)
@settings(max_examples=60)
def test_a_restarted_operator_reaches_the_same_verdict(
    seed: int, window: float, consecutive: int, enough: int, warm_up: int
) -> None:
    """Looking every 5 s and remembering a trip = looking once at the end, from the rings alone."""
    rng = np.random.default_rng(seed)
    queries = rng.poisson(rng.choice([2, 30, 300]), 120)
    rates = np.where(rng.random(120) < 0.1, 0.3, 0.01)
    bad = rng.binomial(queries, rates)
    one = Rule(
        "z", "ZeroResultRate", max=0.02, window_seconds=window, consecutive=consecutive, min_samples=enough + 1,
        warm_up_seconds=warm_up,
    )  # fmt: skip
    rules = (one, replace(one, name="s", metric="LatencyP95", max=0.05))
    started = T0 + 5 * float(rng.random())

    def look(stop: int) -> tuple[RuleVerdict, ...]:
        rows = [
            EvidenceBucket(bucket=B0 + i, segment="a", queries=q, zero_results=z, latency={188: q - z, 235: z})
            for i, (q, z) in enumerate(zip(queries[: stop + 1].tolist(), bad[: stop + 1].tolist(), strict=True))
        ]
        now = T0 + 5 * stop + 1
        pod = PodEvidence("p", Evidence(pod="p", revision="r", now=now, buckets=tuple(rows)), now)
        return gr.judge(
            rules, merge([pod], now), started_at=started, now=now, baseline=None, alpha_budget=0.01,
            horizon_seconds=3600, ready_pods=1, steady=False,
        )  # fmt: skip

    remembered: dict[str, RuleVerdict] = {}
    for stop in range(0, 120, 7):
        for said in look(stop):
            if said.verdict is Verdict.FAIL:
                first = remembered.setdefault(said.rule, said)
                assert (first.value, first.samples, first.message) == (said.value, said.samples, said.message)
            else:
                assert said.rule not in remembered


def test_a_trip_of_hours_ago_is_forgotten_and_a_new_one_is_seen() -> None:
    """In steady state the windows are cut anew every half hour; a trip stays to be seen for as long, at least."""
    hours = [cell(zero=200)] * 4 + [cell()] * (3 * 720)
    ring = {B0 + i: c for i, c in enumerate(hours) if i > len(hours) - 720}
    evidence = RevisionEvidence({"": ring}, B0 + len(hours), 1, (), 0.0)
    assert judge(ZERO, evidence, steady=True).verdict is Verdict.PASS
    for late in (4, 100, 340):
        worse = {**ring, **{B0 + len(hours) - late - i: cell(zero=300) for i in range(4)}}
        assert judge(ZERO, replace(evidence, segments={"": worse}), steady=True).verdict is Verdict.FAIL
