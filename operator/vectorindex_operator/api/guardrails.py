"""VectorIndex.spec.guardrails as pydantic models: the online checks that users write. See spec.py for the rules."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic.alias_generators import to_camel

from vectorindex_operator.api.fields import Bound, CelRule, Duration, Percent, PercentIncrease, PositiveDuration
from vectorindex_searcher.contract import Model


class GuardrailMetric(StrEnum):
    """What a guardrail rule can watch. Unavailable is always watched and needs no rule."""

    ERROR_RATE = "ErrorRate"
    LATENCY_P95 = "LatencyP95"
    LATENCY_P99 = "LatencyP99"
    ZERO_RESULT_RATE = "ZeroResultRate"
    TOP_SCORE = "TopScore"
    LIVE_RECALL = "LiveRecall"
    RERANKED_SHARE = "RerankedShare"
    CLICK_DEPTH = "ClickDepth"
    REFUSAL_RATE = "RefusalRate"
    FILTERS_LOST = "FiltersLost"
    FILTERED_ZERO_RESULT_RATE = "FilteredZeroResultRate"
    ANSWERS_MISSED = "AnswersMissed"
    ANSWERS_CHANGED = "AnswersChanged"
    PROMQL = "PromQL"


JUDGED_IN_SHADOW = frozenset({GuardrailMetric.ANSWERS_MISSED, GuardrailMetric.ANSWERS_CHANGED})
"""What became of stable's answers to the same queries: nobody can tell afterwards."""
COMPARED_WITH_STABLE = JUDGED_IN_SHADOW | {GuardrailMetric.FILTERS_LOST}
"""Already measured against stable, whose own value is 0: nothing could be in percent of it."""

_PERCENT, _TIME, _NUMBER = r"(100|[0-9]{1,2}([.][0-9]+)?)%", r"[0-9]+([.][0-9]+)?m?s", r"[0-9]+([.][0-9]+)?"
_EVERY_BOUND = ("max", "min", "max_drop_vs_stable", "max_rise_vs_stable")
_RELATIVE = {"max": "max_rise_vs_stable", "min": "max_drop_vs_stable"}
PLACEHOLDERS = ("revision", "index", "namespace", "window")
"""What stands in two braces in a query, and is filled in. No schema may hold two braces: Helm reads them as its own."""
MOST_QUERIES = 8
"""Rules on PromQL of an index: somebody else's server answers them."""
_SCORE = f"-?{_NUMBER}"
_BOUNDS: dict[GuardrailMetric, dict[str, str]] = {
    GuardrailMetric.ERROR_RATE: {"max": _PERCENT},
    GuardrailMetric.LATENCY_P95: {"max": _TIME},
    GuardrailMetric.LATENCY_P99: {"max": _TIME},
    GuardrailMetric.ZERO_RESULT_RATE: {"max": _PERCENT},
    GuardrailMetric.TOP_SCORE: {"min": _SCORE},
    GuardrailMetric.LIVE_RECALL: {"min": _PERCENT},
    GuardrailMetric.RERANKED_SHARE: {"min": _PERCENT},
    GuardrailMetric.CLICK_DEPTH: {"max": _NUMBER},
    GuardrailMetric.REFUSAL_RATE: {"max": _PERCENT},
    GuardrailMetric.FILTERS_LOST: {"max": _PERCENT},
    GuardrailMetric.FILTERED_ZERO_RESULT_RATE: {"max": _PERCENT},
    GuardrailMetric.ANSWERS_MISSED: {"max": _PERCENT},
    GuardrailMetric.ANSWERS_CHANGED: {"max": _PERCENT},
    GuardrailMetric.PROMQL: {"max": _SCORE, "min": _SCORE},
}
"""Metric -> its absolute bounds and how each is written. The relative one of a side goes with it."""
_WORDS = {
    _PERCENT: "a percentage, such as 2%",
    _TIME: "a duration, such as 40ms",
    _NUMBER: "a number, such as 3.5",
    _SCORE: "a number, such as 0.45",
}


def _forms() -> tuple[dict[str, Any], ...]:
    """For each form of bound: the bound has it, or the metric is another.

    As values, not as CEL rules: CEL sees whether a field that may be a number with a point is there, not what is in it.
    The first branch is never true of a bound: the API server's message is that of the first branch.
    """
    forms = []
    for side, pattern in dict.fromkeys(form for bounds in _BOUNDS.values() for form in bounds.items()):
        form: dict[str, Any] = {"pattern": f"^{pattern}$"}
        if pattern in (_PERCENT, _TIME):
            form["not"] = {"maxLength": 0}  # no number: length says nothing of them
        elif pattern == _NUMBER:
            form["minimum"] = 0
        others = [metric.value for metric in GuardrailMetric if _BOUNDS[metric].get(side) != pattern]
        branches = ({side: {"enum": [_WORDS[pattern]]}}, {side: form}, {"metric": {"enum": others}})
        forms.append({"anyOf": [{"properties": branch} for branch in branches]})
    return tuple(forms)


class GuardrailRule(Model):
    """One online check. Exactly one bound; relative bounds are percent of the stable revision's value."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    """Shown in verdicts, Events and history."""
    metric: GuardrailMetric
    """What is watched."""
    query: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    """Of PromQL, and of no other metric: what the installation's Prometheus is asked for, one number. `revision`,
    `index`, `namespace` and `window`, each in two braces, are filled in; a relative bound needs the revision."""
    segment: Annotated[str, Field(max_length=40)] = ""
    """Empty: all queries. Else one of spec.segments, or `other`."""
    max: Bound | None = None
    """Highest value: a percentage for rates (2%), a duration for latencies (40ms), a number for ClickDepth (3.5) and
    PromQL."""
    min: Bound | None = None
    """Lowest TopScore (0.45), LiveRecall (93%), RerankedShare (90%) or PromQL (12.5)."""
    max_drop_vs_stable: Percent | None = None
    """Highest drop, in percent of stable's value."""
    max_rise_vs_stable: PercentIncrease | None = None
    """Highest rise, in percent of stable's value."""
    window: PositiveDuration | None = None
    """Length of one look. Default 1m; 15m for LiveRecall and ClickDepth. Times `consecutive` at most 30m. With it, or
    another `consecutive`, windows alone judge the rule; without, what is plain is seen in seconds."""
    warm_up: Duration = "1m"
    """Queries in this time after the switch are not judged."""
    min_samples: Annotated[int, Field(ge=1, le=1_000_000_000)] = 200
    """Fewer than this in a window are no evidence: queries, or requests for ErrorRate, RefusalRate and FiltersLost."""
    consecutive: Annotated[int, Field(ge=1, le=100)] = 2
    """Failed windows in a row that make a Fail."""
    mode: Literal["Enforce", "Observe"] = "Enforce"
    """Enforce rolls back; Observe says it only."""
    on_no_data: Literal["Hold", "Pass", "Fail"] = "Hold"
    """What the rule says when no query came."""
    forms: ClassVar[tuple[dict[str, Any], ...]] = _forms()
    cel: ClassVar[tuple[CelRule, ...]] = (
        # `dyn`: CEL declares no field without a type, yet finds it when it runs.
        CelRule(
            "[has(dyn(self).max), has(dyn(self).min), has(self.maxDropVsStable), has(self.maxRiseVsStable)]"
            ".filter(present, present).size() == 1",
            "exactly one of max, min, maxDropVsStable, maxRiseVsStable is needed",
        ),
        CelRule(
            "self.metric == 'PromQL' || (self.metric in ['TopScore', 'LiveRecall', 'RerankedShare']"
            " ? !has(dyn(self).max) && !has(self.maxRiseVsStable) : !has(dyn(self).min) && !has(self.maxDropVsStable))",
            "TopScore, LiveRecall and RerankedShare take min or maxDropVsStable; the other metrics take max or"
            " maxRiseVsStable, and PromQL any",
        ),
        CelRule(
            "has(self.query) == (self.metric == 'PromQL')",
            "PromQL needs query, and no other metric takes one",
        ),
        CelRule(
            "!has(self.query) || !(has(self.maxDropVsStable) || has(self.maxRiseVsStable))"
            " || self.query.contains('{' + '{revision}}')",
            "a query that is compared with stable's has to name the revision (in two braces): it would be one number",
            ".query",
        ),
        CelRule(
            "!has(self.query) || !self.query"
            + "".join(f".replace('{{' + '{{{name}}}}}', '')" for name in PLACEHOLDERS)
            + ".contains('{' + '{')",
            "revision, index, namespace and window are filled in, nothing else that stands in two braces",
            ".query",
        ),
        CelRule(
            "self.metric != 'PromQL' || !has(self.segment) || self.segment == ''",
            "segments are classes of this index's queries: a rule on PromQL has none, its query may select instead",
            ".segment",
        ),
        CelRule(
            "!(self.metric in ['AnswersMissed', 'AnswersChanged', 'FiltersLost']) || has(dyn(self).max)",
            "AnswersMissed, AnswersChanged and FiltersLost take max: stable misses and changes none of its own answers,"
            " and takes its own filters",
        ),
        CelRule(
            # In the searchers' buckets of 5 s, as core/judging/rules.py counts them. CEL's durations know no days, and
            # a day is too long anyway. `has`: the API server checks the rule on defaults before it fills them.
            "[has(self.window) ? self.window : self.metric in ['LiveRecall', 'ClickDepth'] ? '15m' : '1m'].all(w,"
            " !w.contains('d') && (duration(w).getSeconds() + 4) / 5"
            " * (has(self.consecutive) ? self.consecutive : 2) <= 360)",
            "window times consecutive may be 30m at most: the searchers keep an hour of evidence",
            ".window",
        ),
    )

    @model_validator(mode="after")
    def _has_one_bound_that_fits(self) -> Self:
        """As the CEL rules say: a rule may also be read from a status, of which the API server checks no rules."""
        forms = _BOUNDS[self.metric]
        relative = () if self.metric in COMPARED_WITH_STABLE else tuple(_RELATIVE[side] for side in forms)
        takes = (*forms, *relative)
        given = [name for name in _EVERY_BOUND if getattr(self, name) is not None]
        if len(given) != 1 or given[0] not in takes:
            raise ValueError(f"{self.metric} takes {' or '.join(map(to_camel, takes))}, not {given or 'none'}")
        side, value = given[0], getattr(self, given[0])
        if side in forms and not re.fullmatch(forms[side], value):
            raise ValueError(f"{side} of {self.metric} is {value!r}: see docs/guardrails.md for how it is written")
        if (self.query is not None) != (self.metric is GuardrailMetric.PROMQL):
            raise ValueError("PromQL needs query, and no other metric takes one")
        return self


DEFAULT_RULES = (GuardrailRule(name="errors", metric=GuardrailMetric.ERROR_RATE, max="2%"),)


class Guardrails(Model):
    """The online checks during and after a rollout. Frozen into a revision when its rollout starts."""

    steady_state: Literal["Rollback", "Observe"] = "Rollback"
    """Rollback: once, within 24 h of promotion. Observe: verdicts and Events only."""
    false_trip_budget: Percent = "1%"
    """Highest probability that a healthy revision at its bounds trips in a whole rollout, all rules together."""
    rules: Annotated[tuple[GuardrailRule, ...], Field(max_length=32)] = DEFAULT_RULES
    """Judged side by side; one that fails is enough."""
    cel: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            f"!has(self.rules) || self.rules.filter(r, r.metric == 'PromQL').size() <= {MOST_QUERIES}",
            f"at most {MOST_QUERIES} rules on PromQL: each is a query to a server that others need, too",
            ".rules",
        ),
    )
