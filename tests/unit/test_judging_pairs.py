"""Judging pairs: proof and doubt, five seconds prove nothing, a sick stable blocks no cure, silence is no Pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import numpy as np
import pytest
from scipy import stats

from vectorindex_operator.core.judging import eprocess, pairs
from vectorindex_operator.core.judging.evidence import Counts, RevisionEvidence
from vectorindex_operator.core.judging.judge import judge
from vectorindex_operator.core.judging.metrics import parse_bound
from vectorindex_operator.core.judging.pair_sums import add_pairs
from vectorindex_operator.core.judging.pairs import PairSums, judge_pairs, merge_pairs
from vectorindex_operator.core.judging.rules import Rule, RuleVerdict, Verdict, worst
from vectorindex_searcher.contract import PAIR_COUNTERS, PairCounts

B0 = 340_000_001
BUDGET = 0.0025
ZERO = Rule("zero", "ZeroResultRate", max=0.02)
RISE = Rule("rise", "ZeroResultRate", max_rise_vs_stable=0.1)
ERRORS = Rule("errors", "ErrorRate", max=0.02)
DROP = Rule("drop", "TopScore", max_drop_vs_stable=0.05)
LEAST = Rule("least", "TopScore", min=0.5)
MISSED = Rule("missed", "AnswersMissed", max=0.05)
CHANGED = Rule("changed", "AnswersChanged", max=0.02)
ALL = (ZERO, RISE, ERRORS, DROP, LEAST, MISSED, CHANGED)
Side = Mapping[str, Sequence[tuple[int, PairSums]]]


def each(cell: PairSums, buckets: int = 24, segment: str = "") -> dict[str, list[tuple[int, PairSums]]]:
    return {segment: [(B0 + at, cell) for at in range(buckets)]}


def scores(count: int, c: float, s: float, spread: float = 0.1) -> PairSums:
    """As many pairs, stable's scores s with this spread, the candidate's in proportion to them."""
    mine = np.linspace(-1, 1, count) * spread * math.sqrt(3) + s
    return of_scores(mine * c / s, mine)


def of_scores(c: np.ndarray, s: np.ndarray) -> PairSums:
    return PairSums(
        pairs=len(c), scored=len(c), c_sum=c.sum(), s_sum=s.sum(), abs_s_sum=abs(s).sum(), c_squares=(c**2).sum(),
        s_squares=(s**2).sum(), cs_sum=(c * s).sum(), s_abs_s_sum=(s * abs(s)).sum(), c_abs_s_sum=(c * abs(s)).sum(),
    )  # fmt: skip


GOOD = replace(
    scores(200, 0.7, 0.7), zero_both=2, zero_stable_only=1, answers_judged=200, missed_sum=2.0, missed_squares=0.5,
)  # fmt: skip
SENT = PairSums(mirrored=200)


def said(
    *rules: Rule, cell: PairSums = GOOD, sent: PairSums = SENT, buckets: int = 24, budget: float = BUDGET
) -> dict[str, RuleVerdict]:
    found = judge_pairs(rules, each(cell, buckets), each(sent, buckets), alpha_budget=budget, min_queries=300)
    return {verdict.rule: verdict for verdict in found}


def verdict(rule: Rule, cell: PairSums = GOOD, sent: PairSums = SENT, buckets: int = 24) -> tuple[Verdict, str]:
    found = said(rule, cell=cell, sent=sent, buckets=buckets)[rule.name]
    return found.verdict, found.reason


FAILED, PASSED = (Verdict.FAIL, "BoundExceeded"), (Verdict.PASS, "WithinBound")


# ---------------------------------------------------------------- sums


def test_sums_are_those_of_the_wire() -> None:
    assert tuple(field.name for field in fields(PairSums)) == PAIR_COUNTERS


def test_pods_are_added_up_by_segment_and_bucket() -> None:
    rows = [
        PairCounts(bucket=7, segment="", pairs=3, c_sum=1.5),
        PairCounts(bucket=6, segment="", pairs=1),
        PairCounts(bucket=7, segment="", pairs=4, c_sum=-0.5, zero_both=2),
        PairCounts(bucket=7, segment="news", mirrored=9),
    ]
    assert merge_pairs(rows) == {
        "": ((6, PairSums(pairs=1)), (7, PairSums(pairs=7, c_sum=1.0, zero_both=2))),
        "news": ((7, PairSums(mirrored=9)),),
    }
    assert merge_pairs(()) == {}
    assert add_pairs(()) == PairSums()


# ---------------------------------------------------------------- each metric


def test_a_good_candidate_passes_every_rule() -> None:
    found = said(*ALL)
    assert list(found) == [pairs.UNANSWERED, *(rule.name for rule in ALL)]
    assert {(one.verdict, one.reason) for one in found.values()} == {PASSED}
    assert worst(found.values()) is Verdict.PASS


BAD = {
    "errors": (ERRORS, GOOD, replace(SENT, unanswered=20)),
    "zero": (ZERO, replace(GOOD, zero_both=2, zero_candidate_only=20), SENT),
    "rise": (RISE, replace(GOOD, zero_both=10, zero_candidate_only=10), SENT),
    "drop": (DROP, scores(200, 0.6, 0.7), SENT),
    "least": (LEAST, scores(200, 0.45, 0.6), SENT),
    "missed": (MISSED, replace(GOOD, missed_sum=20.0, missed_squares=8.0), SENT),
    "changed": (CHANGED, replace(GOOD, changed_sum=20.0, changed_squares=4.0), SENT),
    "negative scores": (DROP, scores(200, -0.8, -0.7), SENT),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_one_fails_beyond_doubt(name: str) -> None:
    rule, cell, sent = BAD[name]
    assert verdict(rule, cell, sent) == FAILED
    assert worst(said(*ALL, cell=cell, sent=sent).values()) is Verdict.FAIL


@pytest.mark.parametrize("name", BAD)
def test_its_strongest_five_seconds_alone_prove_nothing(name: str) -> None:
    """Nor if they lie in two buckets: all that is bad is there, a hundred times."""
    rule, cell, sent = BAD[name]
    burst = [add_pairs([one] * 100) for one in (cell, sent)]
    candidate, sender = (
        {"": [(B0 + at, bad if at in (9, 10) else good) for at in range(24)]}
        for bad, good in zip(burst, (GOOD, SENT), strict=True)
    )
    found = judge_pairs((rule,), candidate, sender, alpha_budget=BUDGET, min_queries=300)
    assert Verdict.FAIL not in {one.verdict for one in found}


@pytest.mark.parametrize("name", BAD)
def test_it_is_seen_although_it_begins_late(name: str) -> None:
    rule, cell, sent = BAD[name]
    candidate, sender = (
        {"": [(B0 + at, good if at < 60 else bad) for at in range(100)]} for bad, good in ((cell, GOOD), (sent, SENT))
    )
    found = judge_pairs((rule,), candidate, sender, alpha_budget=BUDGET, min_queries=300)
    assert worst(found) is Verdict.FAIL


def test_a_few_prove_nothing() -> None:
    """As many as `minSamples`, or it is no evidence at all."""
    few = replace(GOOD, pairs=4, zero_both=0, zero_stable_only=0, zero_candidate_only=4)
    assert verdict(ZERO, few, buckets=40) == (Verdict.INCONCLUSIVE, "TooFewSamples")
    assert verdict(ZERO, few, buckets=50) == FAILED
    rule = replace(ZERO, segment="news")
    candidate = {**each(GOOD), **each(few, 40, "news")}
    (_, found) = judge_pairs((rule,), candidate, each(SENT), alpha_budget=BUDGET, min_queries=300)
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "NotJudged")
    assert "of segment news 100% on 160 answered queries" in found.message


def test_a_segment_is_judged_by_its_own_pairs() -> None:
    bad = replace(GOOD, zero_candidate_only=40)
    rules = (ZERO, replace(ZERO, name="news", segment="news"), replace(ERRORS, name="e", segment="news"))
    candidate = {**each(GOOD), **each(bad, segment="news")}
    sender = {**each(SENT), **each(SENT, segment="news")}
    found = judge_pairs(rules, candidate, sender, alpha_budget=BUDGET, min_queries=300)
    assert [one.verdict for one in found] == [Verdict.PASS, Verdict.PASS, Verdict.FAIL, Verdict.PASS]
    assert "zero-result rate of segment news 21%" in found[2].message


def test_between_pass_and_fail_lies_doubt() -> None:
    assert verdict(ZERO, replace(GOOD, zero_both=3, zero_candidate_only=2)) == (Verdict.INCONCLUSIVE, "NearBound")


# ---------------------------------------------------------------- against stable


def test_a_sick_stable_does_not_block_its_cure() -> None:
    """A tenth of the queries finds nothing on either side; what the candidate loses, stable loses elsewhere."""
    sick = replace(GOOD, zero_both=20, zero_candidate_only=2, zero_stable_only=2)
    assert verdict(ZERO, sick) == (Verdict.INCONCLUSIVE, "StableToo")
    assert verdict(RISE, sick) == PASSED
    assert verdict(LEAST, scores(200, 0.4, 0.4)) == (Verdict.INCONCLUSIVE, "StableToo")
    assert verdict(ZERO, replace(sick, zero_candidate_only=6, zero_stable_only=0)) == FAILED


def test_a_rise_that_is_allowed_is_no_failure_however_many_pairs_show_it() -> None:
    """5 % more than stable where 10 % are allowed: beyond doubt a change, and none that matters."""
    more = PairSums(pairs=2_000_000, zero_both=39_000, zero_candidate_only=3_000, zero_stable_only=1_000)
    assert verdict(RISE, more) == PASSED
    assert verdict(replace(RISE, max_rise_vs_stable=0.02), more) == FAILED


def test_stables_errors_are_no_pairs_so_a_rise_of_errors_is_left_to_the_soak() -> None:
    """No verdict, and no part of the others' budget: a shadow that waited for it would wait for nothing."""
    rule = Rule("more", "ErrorRate", max_rise_vs_stable=0.1)
    alone, beside = said(ZERO), said(ZERO, rule, sent=replace(SENT, unanswered=1))
    assert list(alone) == list(beside) == [pairs.UNANSWERED, "zero"]
    assert worst(beside.values()) is Verdict.PASS


@pytest.mark.parametrize("rule", [
    Rule("a", "ZeroResultRate", min=0.5), Rule("b", "TopScore", max=0.1), Rule("c", "AnswersChanged", min=0.1),
    Rule("d", "AnswersMissed", max_rise_vs_stable=0.1), Rule("e", "ErrorRate", min=0.1),
])  # fmt: skip
def test_bounds_that_no_spec_can_have_get_no_verdict(rule: Rule) -> None:
    assert list(said(rule)) == [pairs.UNANSWERED]


def test_metrics_that_no_pair_tells_get_no_verdict() -> None:
    assert list(said(Rule("slow", "LatencyP95", max=0.04), Rule("r", "LiveRecall", min=0.9))) == [pairs.UNANSWERED]


def test_what_only_shadow_can_judge_is_left_out_of_a_soak() -> None:
    merged = RevisionEvidence({"": {B0: Counts(queries=500)}}, B0 + 1, 1, (), 0.0)
    found = judge(
        (CHANGED, ZERO), merged, started_at=B0 * 5.0, now=B0 * 5.0 + 60, baseline=None, alpha_budget=0.01,
        horizon_seconds=600.0, ready_pods=1, steady=False,
    )  # fmt: skip
    assert [one.rule for one in found] == ["zero"]
    assert parse_bound("2%", "AnswersChanged") == 0.02


# ---------------------------------------------------------------- unanswered


def unanswered(sent: PairSums, cell: PairSums = GOOD, buckets: int = 24) -> tuple[Verdict, str]:
    found = said(cell=cell, sent=sent, buckets=buckets)[pairs.UNANSWERED]
    return found.verdict, found.reason


def test_a_candidate_that_hangs_fails_without_any_rule() -> None:
    assert unanswered(PairSums(mirrored=50, unanswered=50), PairSums()) == (Verdict.FAIL, "Unanswered")
    assert unanswered(replace(SENT, unanswered=8)) == (Verdict.FAIL, "Unanswered")


def test_more_than_a_hundredth_is_not_switched_to_although_chance_may_explain_it() -> None:
    hold = (Verdict.INCONCLUSIVE, "Unanswered")
    assert unanswered(replace(SENT, unanswered=3)) == hold
    assert unanswered(PairSums(mirrored=1, unanswered=1), PairSums(), buckets=10) == hold


def test_two_of_fifty_unanswered_are_held_against_nobody() -> None:
    sender = {"": [(B0 + at, PairSums(mirrored=1, unanswered=int(at in (5, 30, 31)))) for at in range(50)]}
    (found,) = judge_pairs((), {}, sender, alpha_budget=BUDGET, min_queries=300)
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "TooFewSamples")


def test_one_burst_of_unanswered_holds_nothing_up() -> None:
    sender = {"": [(B0 + at, replace(SENT, unanswered=75 * (at in (9, 10)))) for at in range(24)]}
    (found,) = judge_pairs((), each(GOOD), sender, alpha_budget=BUDGET, min_queries=300)
    assert (found.verdict, found.reason) == PASSED
    assert found.message.endswith("max 1%; inside but for one burst")


def test_nothing_mirrored_is_no_pass() -> None:
    assert unanswered(PairSums(dropped=5), PairSums()) == (Verdict.INCONCLUSIVE, "NothingMirrored")
    (found,) = judge_pairs((), {}, {}, alpha_budget=BUDGET, min_queries=300)
    assert found.reason == "NothingMirrored"


def test_a_shadow_ends_with_as_many_pairs_as_were_asked_for() -> None:
    """A bot's query that is sent again and again compares nothing."""
    assert unanswered(SENT, PairSums(pairs=12, repeated=188)) == (Verdict.INCONCLUSIVE, "TooFewSamples")
    assert unanswered(SENT, PairSums(pairs=13, repeated=187)) == PASSED


# ---------------------------------------------------------------- the budget


def test_more_rules_need_more_proof_and_observed_ones_take_nothing() -> None:
    """A stake that is just enough for two rules is not for eight, unless the others bring proof of their own."""
    cell = replace(GOOD, zero_both=0, zero_stable_only=0, zero_candidate_only=7)
    buckets = next(n for n in range(3, 60) if verdict(ZERO, cell, buckets=n) == FAILED)
    many = [Rule(f"r{n}", "TopScore", max_drop_vs_stable=0.5) for n in range(40)]
    observed = [replace(rule, mode="Observe") for rule in many]
    assert said(ZERO, *many, cell=cell, buckets=buckets)["zero"].verdict is not Verdict.FAIL
    assert said(ZERO, *observed, cell=cell, buckets=buckets)["zero"].verdict is Verdict.FAIL
    assert said(replace(ZERO, mode="Observe"), cell=cell, buckets=buckets + 3)["zero"].verdict is Verdict.FAIL


def test_stakes_are_averaged() -> None:
    """One fault that shows in many segments is proven by all of them together; the strongest is named."""

    def cell(more: int) -> PairSums:
        return replace(GOOD, zero_both=0, zero_stable_only=0, zero_candidate_only=7 + more)

    rules = [replace(ZERO, name=f"s{n}", segment=f"s{n}") for n in range(10)]

    def fails(buckets: int, segments: int) -> list[str]:
        candidate = each(GOOD, buckets)
        for n in range(segments):
            candidate |= each(cell(n == 4), buckets, f"s{n}")
        found = judge_pairs(rules, candidate, each(SENT, buckets), alpha_budget=BUDGET, min_queries=300)
        return [one.rule for one in found if one.verdict is Verdict.FAIL]

    alone = next(n for n in range(3, 60) if fails(n, 5))
    together = next(n for n in range(3, 60) if fails(n, 10))
    assert together <= alone
    assert fails(together, 10)[0] == "s4"


def test_messages_have_the_numbers() -> None:
    found = said(*ALL, cell=replace(GOOD, zero_candidate_only=9))
    assert [one.message for one in found.values()] == [
        "unanswered: share without an answer 0% on 4,800 mirrored queries in 120 s of shadow; max 1%; inside",
        "zero: zero-result rate 5.5% on 4,800 answered queries in 120 s of shadow; max 2%, stable's 1.5% on the same "
        "queries; outside and worse than stable beyond doubt",
        "rise: zero-result rate 5.5% on 4,800 answered queries in 120 s of shadow; max 1.65% from stable's 1.5% on the "
        "same queries; outside beyond doubt",
        "errors: share without an answer 0% on 4,800 mirrored queries in 120 s of shadow; max 2%; inside",
        "drop: mean top score 0.7 on 4,800 scores in 120 s of shadow; min 0.665 from stable's 0.7 on the same queries; "
        "inside",
        "least: mean top score 0.7 on 4,800 scores in 120 s of shadow; min 0.5, stable's 0.7 on the same queries; "
        "inside",
        "missed: share of stable's answers that were missed 1% on 4,800 judged queries in 120 s of shadow; max 5%; "
        "inside",
        "changed: share of stable's answers whose score changed 0% on 4,800 judged queries in 120 s of shadow; max 2%; "
        "inside",
    ]
    assert found["rise"].limit == pytest.approx(0.0165)
    assert found["rise"].baseline_value == pytest.approx(0.015)
    assert (found["rise"].samples, found["rise"].window_seconds) == (4800, 120.0)


# ---------------------------------------------------------------- what pods may say


def test_sums_that_are_no_numbers_are_an_error_and_never_pass() -> None:
    assert verdict(DROP, replace(GOOD, c_squares=1e308)) == (Verdict.ERROR, "EvidenceInvalid")
    assert verdict(DROP, replace(GOOD, c_sum=math.nan)) == (Verdict.ERROR, "EvidenceInvalid")


def test_cells_that_do_not_fit_together_are_taken_as_they_are() -> None:
    """More zeros than pairs, more unanswered than sent."""
    assert verdict(ZERO, replace(GOOD, pairs=0, zero_candidate_only=20)) == FAILED
    assert verdict(ERRORS, sent=PairSums(unanswered=20)) == FAILED


def test_a_clock_that_is_wrong_costs_no_time() -> None:
    """A bucket of the year 1970 would make fifty years of empty ones."""
    candidate = {"": [(B0 - 100_000, GOOD), *each(GOOD)[""]]}
    found = judge_pairs((ZERO,), candidate, each(SENT), alpha_budget=BUDGET, min_queries=300)
    assert found[1].samples == 24 * 200
    assert found[1].window_seconds == 3600.0


def test_scores_of_one_value_and_of_none_are_judged() -> None:
    same = of_scores(np.full(200, 0.6), np.full(200, 0.7))
    assert verdict(DROP, same) == FAILED
    equal = of_scores(np.full(200, 0.7), np.full(200, 0.7))
    assert verdict(replace(DROP, max_drop_vs_stable=0.0), equal) == PASSED
    assert verdict(DROP, of_scores(np.zeros(200), np.zeros(200))) == PASSED


# ---------------------------------------------------------------- the promise


def most(shadows: int, probability: float) -> int:
    """A count that an honest rate of `probability` exceeds once in a thousand such simulations."""
    return int(stats.binom.isf(1e-3, shadows, probability))


def shadow(rng: np.random.Generator, rules: Sequence[Rule], worse: float, budget: float) -> bool:
    """Whether some look at five minutes finds a Fail; each metric is `worse` times at its bound."""
    cells, sent = [], []
    for at in range(60):
        n = int(rng.poisson(50))
        stable = rng.random(n) < 0.018
        mine = np.where(stable, rng.random(n) < 0.8, rng.random(n) < 0.0055 + 0.02 * (worse - 1))
        s = 0.7 + 0.1 * rng.standard_normal(n)
        # A tenth of the queries scores much better: skewed to the side on which a bet may be wrong.
        c = 0.95 * s - 0.02 * worse * np.where(rng.random(n) < 0.1, -9.0 / worse, 1.0)
        v = rng.random(n) < 0.02 * worse
        cell = replace(
            of_scores(c, s), zero_both=int((stable & mine).sum()), zero_candidate_only=int((mine & ~stable).sum()),
            zero_stable_only=int((stable & ~mine).sum()), answers_judged=n,
            changed_sum=float(v.sum()), changed_squares=float(v.sum()),
        )  # fmt: skip
        cells.append((B0 + at, cell))
        sent.append((B0 + at, PairSums(mirrored=n, unanswered=int(rng.binomial(n, 0.01 * worse)))))
    return any(
        worst(judge_pairs(rules, {"": cells[:n]}, {"": sent[:n]}, alpha_budget=budget, min_queries=300)) is Verdict.FAIL
        for n in range(12, 61, 16)
    )


def test_who_is_at_all_bounds_is_failed_within_the_budget_and_who_is_beyond_fails() -> None:
    """At a budget of a tenth, so that some thirty shadows say something; bench/shadow.py has the real one."""
    rng = np.random.default_rng(20_261_127)
    rules = (ZERO, RISE, DROP, CHANGED)
    assert sum(shadow(rng, rules, 1.0, 0.1) for _ in range(30)) <= most(30, 0.1)
    assert all(shadow(rng, (rule,), 3.0, BUDGET) for rule in rules)


def test_wealth_is_that_of_the_sequential_test() -> None:
    """With the same bets: what shadow adds is the bets."""
    cell = replace(SENT, unanswered=6)
    of = eprocess.of_rate({B0 + at: (6, 200) for at in range(24)}, 0.01)
    held = eprocess.wealth(of, first=B0, stop=B0 + 24, oldest=B0, starts=pairs.STARTS, enough=200)
    for budget in (1.01 / held, 0.99 / held):
        (found,) = judge_pairs((), each(GOOD), each(cell), alpha_budget=budget, min_queries=300)
        assert (found.verdict is Verdict.FAIL) is (budget > 1 / held)
