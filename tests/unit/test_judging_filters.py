"""Queries with a filter: FiltersLost and FilteredZeroResultRate, and searchers that do not tell of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from unit.test_judging import T0, baseline, judge, merged

from vectorindex_operator.core.judging.evidence import Counts, PodCounts, PodEvidence, RevisionEvidence, add_up, merge
from vectorindex_operator.core.judging.rules import Rule, Verdict
from vectorindex_searcher.contract import COMPARED, FILTERED, LATER_COUNTERS

LOST = Rule("lost", "FiltersLost", max=0.05, window_seconds=10, consecutive=1, min_samples=50)
EMPTY = Rule("empty", "FilteredZeroResultRate", max=0.1, window_seconds=10, consecutive=1, min_samples=50)
ZERO = Rule("zero", "ZeroResultRate", max=0.1, window_seconds=10, consecutive=1)
REFUSALS = Rule("refusals", "RefusalRate", max=0.1, window_seconds=10, consecutive=1)


def bucket(filtered: int = 50, *, lost: int = 0, empty: int = 0, plain: int = 950) -> Counts:
    """`filtered` requests with a filter for one query each, `plain` ones without; some of the first lost, or empty."""
    answered = filtered - lost
    return Counts(
        requests=plain + answered, queries=plain + answered, refused=lost, zero_results=empty,
        filtered_queries=answered, filtered_zero_results=empty, filters_compared=filtered, filters_lost=lost,
    )  # fmt: skip


def told(cells: list[Counts], tells: tuple[str, ...] = LATER_COUNTERS) -> RevisionEvidence:
    return replace(merged(cells), tells=frozenset(tells))


def test_filters_that_are_lost_are_seen_although_they_are_few() -> None:
    """Of twenty queries one has a filter, and every second of these names a column that is gone."""
    evidence = told([bucket(lost=25)] * 12)
    said = judge(LOST, evidence)
    assert (said.verdict, said.reason, said.samples, said.value) == (Verdict.FAIL, "BoundExceeded", 100, 0.5)
    assert "share of filters lost 50% (at least " in said.message
    assert "on 100 requests with a filter that the revision before took in 10 s; max 5%" in said.message
    assert judge(REFUSALS, evidence).verdict is Verdict.PASS
    assert judge(LOST, told([bucket(lost=1)] * 12)).verdict is Verdict.PASS
    assert judge(replace(LOST, min_samples=1000), evidence).reason == "TooFewSamples"


def test_a_lost_filter_is_judged_after_promotion_too() -> None:
    """What is lost is known without stable's counts: the rule is absolute."""
    assert judge(LOST, told([bucket(lost=25)] * 12), steady=True).verdict is Verdict.FAIL


def test_filtered_queries_that_find_nothing_are_not_thinned_by_the_others() -> None:
    evidence = told([bucket(empty=45)] * 12)
    said = judge(EMPTY, evidence)
    assert (said.verdict, said.samples, said.value) == (Verdict.FAIL, 100, 0.9)
    assert "zero-result rate of filtered queries 90% " in said.message
    assert judge(ZERO, evidence).verdict is Verdict.PASS
    assert judge(EMPTY, told([bucket(empty=3)] * 12)).verdict is Verdict.PASS


def test_filtered_queries_are_compared_with_those_of_stable() -> None:
    rule = replace(EMPTY, max=None, max_rise_vs_stable=0.5)
    frozen = baseline(add_up([bucket(empty=10)] * 180))
    assert judge(rule, told([bucket(empty=10)] * 24), baseline=frozen).verdict is Verdict.PASS
    assert judge(rule, told([bucket(empty=40)] * 24), baseline=frozen).verdict is Verdict.FAIL
    before = baseline(add_up([Counts(requests=1000, queries=1000, zero_results=9)] * 180))
    assert judge(rule, told([bucket(empty=40)] * 24), baseline=before).reason == "NoBaseline", "it did not tell"


@pytest.mark.parametrize("on_no_data", ["Hold", "Pass", "Fail"])
@pytest.mark.parametrize(("rule", "tells"), [(LOST, (FILTERED,)), (LOST, ()), (EMPTY, (COMPARED,)), (EMPTY, ())])
def test_what_is_not_told_is_neither_none_nor_no_data(rule: Rule, tells: tuple[str, ...], on_no_data: Any) -> None:
    """A searcher of before: its counters are 0 whatever happens."""
    silent = [Counts(requests=1000, queries=1000, refused=100)] * 60
    said = judge(replace(rule, on_no_data=on_no_data), told(silent, tells))
    assert (said.verdict, said.reason) == (Verdict.INCONCLUSIVE, "NotJudged")
    assert "do not tell" in said.message


def test_no_filter_at_all_is_no_data() -> None:
    assert judge(LOST, told([bucket(0)] * 60)).reason == "NoData"
    assert judge(replace(EMPTY, on_no_data="Pass"), told([bucket(0)] * 60)).verdict is Verdict.PASS


def test_a_counter_is_told_when_every_pod_tells_it() -> None:
    def pod(name: str, tells: tuple[str, ...]) -> PodEvidence:
        return PodEvidence(name, PodCounts("r", T0, None, (), frozenset(tells)), T0)

    assert merge([pod("a", LATER_COUNTERS), pod("b", LATER_COUNTERS)], T0).tells == set(LATER_COUNTERS)
    assert merge([pod("a", LATER_COUNTERS), pod("b", (FILTERED,))], T0).tells == {FILTERED}
    assert merge([pod("a", LATER_COUNTERS), pod("b", ())], T0).tells == set()
    assert merge([pod("a", LATER_COUNTERS), PodEvidence("b", None, T0)], T0).tells == set(LATER_COUNTERS)
    assert merge([], T0).tells == set()
