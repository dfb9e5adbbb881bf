"""The vocabulary around `judge`: worst, Unavailable, what a rule may be, how bounds are written."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from vectorindex_operator.core.judging.always import unavailable
from vectorindex_operator.core.judging.metrics import parse_bound
from vectorindex_operator.core.judging.rules import Rule, RuleVerdict, Verdict, worst

ZERO = Rule("zero", "ZeroResultRate", max=0.02, window_seconds=10, consecutive=1)


def test_worst_is_of_enforced_rules_only() -> None:
    def said(verdict: Verdict, mode: str = "Enforce") -> RuleVerdict:
        return RuleVerdict("r", "ErrorRate", "", verdict, "x", "x", mode=mode)

    order = [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.ERROR, Verdict.FAIL]
    for i, verdict in enumerate(order):
        assert worst([said(v) for v in order[: i + 1]]) is verdict
    assert worst([said(Verdict.FAIL, "Observe"), said(Verdict.PASS)]) is Verdict.PASS
    assert worst([]) is Verdict.PASS


@pytest.mark.parametrize(("candidate", "stable", "since", "verdict"), [
    (1, 1, None, Verdict.PASS),
    (1, 0, 5.0, Verdict.PASS),
    (0, 1, 90.0, Verdict.FAIL),
    (0, 1, 90.1, Verdict.INCONCLUSIVE),
    (0, 1, None, Verdict.INCONCLUSIVE),
    (0, 0, 0.0, Verdict.ERROR),
])  # fmt: skip
def test_unavailable(candidate: int, stable: int, since: float | None, verdict: Verdict) -> None:
    said = unavailable(candidate, stable, since, now=100.0)
    assert said.verdict is verdict
    assert said.mode == "Enforce"
    assert str(stable) in said.message


@pytest.mark.parametrize("change", [
    {"metric": "Nonsense"}, {"max": None}, {"min": 0.1}, {"max": math.nan}, {"max": None, "max_rise_vs_stable": -0.1},
    {"window_seconds": 0}, {"consecutive": 0}, {"min_samples": 0}, {"warm_up_seconds": -1},
])  # fmt: skip
def test_what_the_schema_refuses_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="guardrail zero"):
        replace(ZERO, **change)


@pytest.mark.parametrize(("metric", "text", "value"), [
    ("ErrorRate", "2%", 0.02), ("ErrorRate", "0.02", 0.02), ("ErrorRate", "100%", 1.0),
    ("ZeroResultRate", "0.5 %", 0.005), ("LatencyP99", "1.5s", 1.5),
    ("LatencyP95", "40ms", 0.04), ("LatencyP95", "800us", 0.0008), ("LatencyP95", " 2 s ", 2.0),
    ("TopScore", "0.45", 0.45), ("TopScore", "-1.2", -1.2), ("TopScore", ".5", 0.5),
])  # fmt: skip
def test_bounds(metric: str, text: str, value: float) -> None:
    assert parse_bound(text, metric) == pytest.approx(value)


@pytest.mark.parametrize(("metric", "accepted", "texts"), [
    ("ErrorRate", "2%", ["2", "120%", "-1%", "nan", "", "40ms"]),
    ("LatencyP95", "40ms", ["40", "0ms", "-4s", "2%"]),
    ("TopScore", "0.45", ["45%", "inf", "1e400", "40ms"]),
    ("Nonsense", "ErrorRate", ["2%"]),
])  # fmt: skip
def test_a_wrong_bound_names_metric_value_and_units(metric: str, accepted: str, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(ValueError, match=metric) as caught:
            parse_bound(text, metric)
        assert accepted in str(caught.value)
        assert metric == "Nonsense" or repr(text) in str(caught.value)
