"""Guardrails as numbers that can be drawn: value, bound, and how sure the value is.

The interval is made of what stands in the status (value and samples) by the operator's own limits of a rate
(core/judging/statistics.py). Other metrics need more than that, so they have none. It judges nothing: a verdict's level
is far stricter, and is told in its message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vectorindex_operator.api.v1alpha1 import GuardrailRule, RolloutStatus, RuleVerdict
from vectorindex_operator.core.judging import statistics
from vectorindex_operator.core.judging.comparison import Rate
from vectorindex_operator.core.judging.metrics import METRICS
from vectorindex_operator.core.observation import RevisionView
from vectorindex_plugin.facts.revision import GuardrailFacts, shown
from vectorindex_plugin.tones import Tone, tone

CONFIDENCE = 0.95
"""Of the interval, both ends together."""
_DOWN = frozenset({"TopScore", "LiveRecall", "RerankedShare", "Unavailable"})
"""Metrics that must not be too low, where no rule is there that says so."""


@dataclass(frozen=True, slots=True)
class ChartFacts:
    """One rule. `low`, `high`: the interval of the value; None where none can be told. `upwards`: it must not be above
    its limit (else: below). `wanted`: samples without which nothing is judged. Numbers are in units of the metric."""

    said: GuardrailFacts
    tone: Tone
    value: float | None
    limit: float | None
    low: float | None
    high: float | None
    low_text: str
    high_text: str
    upwards: bool
    mode: str
    wanted: int
    window: str
    in_shadow: bool

    @classmethod
    def of(cls, row: RuleVerdict, rule: GuardrailRule | None, *, in_shadow: bool) -> ChartFacts:
        said = GuardrailFacts.said(row)
        low, high = interval(row)
        texts = (shown(row.metric, low), shown(row.metric, high))
        down = row.metric in _DOWN or (rule is not None and (rule.min is not None or bool(rule.max_drop_vs_stable)))
        mode, wanted, window = _asked(rule)
        numbers = (row.value, row.limit, low, high)
        return cls(said, tone(row.verdict), *numbers, *texts, not down, mode, wanted, window, in_shadow)

    @classmethod
    def unsaid(cls, rule: GuardrailRule) -> ChartFacts:
        down = rule.min is not None or bool(rule.max_drop_vs_stable)
        said = GuardrailFacts.unsaid(rule)
        mode, wanted, window = _asked(rule)
        return cls(said, Tone.QUIET, None, None, None, None, "", "", not down, mode, wanted, window, False)


def _asked(rule: GuardrailRule | None) -> tuple[str, int, str]:
    """Mode, samples wanted and window of a rule; of one that is always on, nothing is asked."""
    return (rule.mode, rule.min_samples, str(rule.window or "")) if rule is not None else ("Enforce", 0, "")


def interval(row: RuleVerdict) -> tuple[float | None, float | None]:
    """Both ends, where the metric is a rate and its samples are told."""
    metric = METRICS.get(row.metric)
    if metric is None or not isinstance(metric.family, Rate) or row.value is None or row.samples <= 0:
        return None, None
    hits, alpha = round(row.value * row.samples), (1.0 - CONFIDENCE) / 2
    if not 0 <= hits <= row.samples:
        return None, None
    return statistics.rate_lower(hits, row.samples, alpha), statistics.rate_upper(hits, row.samples, alpha)


def charts(view: RevisionView) -> tuple[ChartFacts, ...]:
    """Of one revision: what was said after the switch, what was said in shadow alone, and what was not said yet."""
    rollout = view.status.rollout
    if rollout is None:
        return ()
    rules: Mapping[str, GuardrailRule] = {rule.name: rule for rule in rollout.guardrails.rules}
    found = [ChartFacts.of(row, rules.get(row.rule), in_shadow=False) for row in rollout.verdicts]
    heard = {row.rule for row in rollout.verdicts}
    found += [ChartFacts.of(row, rules.get(row.rule), in_shadow=True) for row in _of_shadow(rollout, heard)]
    heard |= {one.said.rule for one in found}
    return (*found, *(ChartFacts.unsaid(rule) for name, rule in rules.items() if name not in heard))


def _of_shadow(rollout: RolloutStatus, heard: set[str]) -> list[RuleVerdict]:
    shadow = rollout.shadow
    return [row for row in shadow.verdicts if row.rule not in heard] if shadow is not None else []


@dataclass(frozen=True, slots=True)
class ShadowFacts:
    """The time in which a revision answered live queries unseen. `compared`: the most that one of its rules had."""

    revision: str
    reference: str
    started_at: str
    ended_at: str | None
    outcome: str
    message: str
    compared: int
    wanted: int
    duration: str
    most: str
    rows: tuple[ChartFacts, ...]

    @classmethod
    def of(cls, view: RevisionView) -> ShadowFacts | None:
        rollout = view.status.rollout
        shadow = rollout.shadow if rollout is not None else None
        if rollout is None or shadow is None:
            return None
        asked, rules = rollout.settings.shadow, {rule.name: rule for rule in rollout.guardrails.rules}
        told = [row.samples for row in shadow.verdicts if row.metric != "Pairs"]
        rows = tuple(ChartFacts.of(row, rules.get(row.rule), in_shadow=True) for row in shadow.verdicts)
        return cls(
            view.name, shadow.reference, shadow.started_at, shadow.ended_at, shadow.outcome, shadow.message,
            max(told, default=0), asked.min_queries, asked.duration, asked.max_duration, rows,
        )  # fmt: skip
