"""Rules on PromQL: what is asked at which times, and what is made of the numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
from observations import NOW, a_revision, seen, spec

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.core.judging.figures import (
    LAG_SECONDS,
    MOST_WINDOWS,
    FigureAnswer,
    Subject,
    figure_questions,
    judge_figures,
)
from vectorindex_operator.core.judging.questions import figures_subject
from vectorindex_operator.core.judging.rules import Rule, RuleVerdict, Verdict

BEGAN = 1_700_000_000.0
SOAK = Subject("shop", "products", "products-b", BEGAN, "products-a", before=BEGAN)
STEP = Subject("shop", "products", "products-b", BEGAN, "products-a")
STEADY = Subject("shop", "products", "products-b", BEGAN)
QUERY = 'sum(rate(orders{revision="{{revision}}",ns="{{namespace}}",index="{{index}}"}[{{window}}]))'
ORDERS = Rule("orders", "PromQL", min=4.0, query=QUERY, window_seconds=60, warm_up_seconds=30)
DROP = Rule("drop", "PromQL", max_drop_vs_stable=0.2, query=QUERY, window_seconds=60, warm_up_seconds=30)


def said(rule: Rule, *values: float | None, stable: Any = (), subject: Subject = SOAK, **answer: Any) -> RuleVerdict:
    told = {(rule.name, subject.revision): FigureAnswer(values, **answer)}
    if stable:
        told[rule.name, subject.stable] = stable if isinstance(stable, FigureAnswer) else FigureAnswer(stable)
    (verdict,) = judge_figures([rule], told, subject, BEGAN + 3600)
    return verdict


# ---------------------------------------------------------------- questions


def test_each_window_that_is_over_is_asked_for_at_its_end() -> None:
    first = BEGAN + 30 + 60
    for windows in (1, 2, 7):
        over = first + (windows - 1) * 60 + LAG_SECONDS
        assert [one.count for one in figure_questions([ORDERS], SOAK, over - 0.1)] == ([windows - 1] * (windows > 1))
        (one,) = figure_questions([ORDERS], SOAK, over)
        assert (one.first, one.last, one.step, one.count) == (first, first + (windows - 1) * 60, 60, windows)


def test_the_query_is_filled_in() -> None:
    (one,) = figure_questions([ORDERS], SOAK, BEGAN + 600)
    assert one.query == 'sum(rate(orders{revision="products-b",ns="shop",index="products"}[60s]))'
    assert (one.rule, one.revision) == ("orders", "products-b")


def test_the_newest_windows_are_asked_for_where_there_are_very_many() -> None:
    (one,) = figure_questions([ORDERS], STEADY, BEGAN + 86_000)
    assert one.count == MOST_WINDOWS
    assert BEGAN + 86_000 - one.last < 60 + LAG_SECONDS
    assert (one.last - BEGAN - 90) % 60 == 0, "the windows stay where they are"


def test_stable_is_asked_about_before_the_switch_or_at_the_same_times() -> None:
    mine, theirs = figure_questions([DROP], SOAK, BEGAN + 600)
    assert (theirs.revision, theirs.first, theirs.last, theirs.count) == ("products-a", BEGAN, BEGAN, 1)
    mine, theirs = figure_questions([DROP], STEP, BEGAN + 600)
    assert (theirs.first, theirs.last) == (mine.first, mine.last)
    assert 'revision="products-a"' in theirs.query


def test_what_counts_and_what_compares_with_nobody_is_not_asked() -> None:
    counted = Rule("errors", "ErrorRate", max=0.02)
    assert list(figure_questions([counted, DROP], STEADY, BEGAN + 600)) == []
    assert judge_figures([counted, DROP], {}, STEADY, BEGAN + 600) == ()


# ---------------------------------------------------------------- verdicts


def test_windows_in_a_row_that_are_outside_fail() -> None:
    fail = said(ORDERS, 5, 3, 2)
    assert (fail.verdict, fail.reason, fail.value, fail.limit) == (Verdict.FAIL, "BoundExceeded", 2, 4)
    assert fail.message == ("orders: figure 2 in the last of 3 windows of 60 s; min 4; outside in 2 windows in a row")
    assert said(ORDERS, 3, 2, 5, 6).verdict is Verdict.FAIL, "what was proven stands"
    once = said(ORDERS, 5, 5, 3)
    assert (once.verdict, once.reason, once.windows_failed) == (Verdict.INCONCLUSIVE, "NearBound", 1)
    assert said(ORDERS, 3, 5, 3, 5).verdict is Verdict.PASS
    assert said(ORDERS, 5, 4).verdict is Verdict.PASS, "at the bound is inside"


def test_a_window_without_a_number_is_no_link_of_a_row_and_the_newest_must_have_one() -> None:
    assert said(ORDERS, 3, None, 3).verdict is Verdict.INCONCLUSIVE
    missing = said(ORDERS, 5, None)
    assert (missing.verdict, missing.reason) == (Verdict.ERROR, "EvidenceInvalid")
    assert "products-b: the query has no number" in missing.message
    assert said(ORDERS, 3, 3, None).verdict is Verdict.FAIL


def test_a_max_is_the_other_way_round() -> None:
    rule = Rule("cost", "PromQL", max=4.0, query="x", consecutive=1)
    assert (said(rule, 5).verdict, said(rule, 3).verdict) == (Verdict.FAIL, Verdict.PASS)


def test_against_stable_before_the_switch() -> None:
    fail = said(DROP, 7.9, 7.9, stable=(10.0,))
    assert (fail.verdict, fail.limit, fail.baseline_value) == (Verdict.FAIL, 8.0, 10.0)
    assert fail.message.endswith("min 8 from stable's 10; outside in 2 windows in a row")
    assert said(DROP, 8.1, 8.1, stable=(10.0,)).verdict is Verdict.PASS


def test_against_stable_at_the_same_time() -> None:
    """Everybody's orders fall at night: that is no fault of a revision."""
    assert said(DROP, 10, 5, 1, stable=(10, 5, 1), subject=STEP).verdict is Verdict.PASS
    assert said(DROP, 10, 5, 1, stable=(10, 9, 9), subject=STEP).verdict is Verdict.FAIL


@pytest.mark.parametrize("stable", [(), (None,), FigureAnswer(problem="status 400", invalid=True)])
def test_without_stables_number_it_is_an_error(stable: Any) -> None:
    found = said(DROP, 5, 5, stable=stable or FigureAnswer())
    assert (found.verdict, found.reason) == (Verdict.ERROR, "EvidenceInvalid")
    assert "of products-a: " in found.message


def test_what_the_server_did_not_say_is_an_error() -> None:
    down = said(ORDERS, problem="no whole answer within 5 s")
    assert (down.verdict, down.reason) == (Verdict.ERROR, "EvidenceMissing")
    assert down.message == "orders: figure unknown; min 4; of products-b: no whole answer within 5 s"


def test_before_the_first_window_is_over_nothing_is_said() -> None:
    for now, reason in ((BEGAN + 10, "WarmingUp"), (BEGAN + 50, "TooFewSamples")):
        (verdict,) = judge_figures([ORDERS], {}, SOAK, now)
        assert (verdict.verdict, verdict.reason) == (Verdict.INCONCLUSIVE, reason)


def test_mode_and_window_are_those_of_the_rule() -> None:
    rule = Rule("orders", "PromQL", min=4.0, query="x", mode="Observe", consecutive=1)
    fail = said(rule, 1)
    assert (fail.mode, fail.window_seconds, fail.samples, fail.segment) == ("Observe", 60.0, 1, "")


def test_no_verdict_has_a_number_that_json_has_not() -> None:
    for verdict in (said(ORDERS, 5, 3), said(DROP, 5, problem="x"), said(DROP, 0.0, 0.0, stable=(0.0,))):
        values = (verdict.value, verdict.limit, verdict.baseline_value)
        assert all(value is None or math.isfinite(value) for value in values)


def test_a_clock_that_was_set_back_judges_nothing_of_the_revision_before() -> None:
    """The query names no revision, and what was before the promotion is not this one's."""
    stable = a_revision(spec(), "Stable")
    promoted = stable.status.model_copy(update={"promoted_at": to_text(NOW + 600)})
    found = figures_subject(seen(spec(), stable, traffic=stable), stable.name, promoted, NOW)
    assert found is not None
    assert found.began == NOW
    assert list(figure_questions([ORDERS], found, NOW)) == []
