"""What a guardrail rule is and what it answers. Data only; core/judging/judge.py judges."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from vectorindex_operator.api.quantities import duration_seconds, share
from vectorindex_operator.api.v1alpha1 import GuardrailRule
from vectorindex_operator.core.judging.blocks import OVERALL
from vectorindex_operator.core.judging.comparison import Bound
from vectorindex_operator.core.judging.evidence import EPOCH_LIMIT
from vectorindex_operator.core.judging.metrics import WINDOW_SECONDS, Metric, metric_of, parse_bound
from vectorindex_searcher.contract import BUCKET_SECONDS

LEAST_BUDGET = 1e-9
"""A budget of zero would mean that nothing can ever be beyond doubt."""
CONSECUTIVE = int(GuardrailRule.model_fields["consecutive"].default)


class Verdict(StrEnum):
    """Ordered by `worst`: Fail, Error, Inconclusive, Pass."""

    PASS = "Pass"  # noqa: S105 - not a password
    FAIL = "Fail"
    ERROR = "Error"
    INCONCLUSIVE = "Inconclusive"


_SEVERITY = {Verdict.PASS: 0, Verdict.INCONCLUSIVE: 1, Verdict.ERROR: 2, Verdict.FAIL: 3}


@dataclass(frozen=True, slots=True)
class Rule:
    """One guardrail. Exactly one of `max`, `min`, `max_drop_vs_stable`, `max_rise_vs_stable`.

    Bounds are in units of the metric: rates as fractions, latency in seconds, scores. Relative ones are fractions of
    stable's value. `segment` '' judges all segments together. ValueError for what the CRD's schema refuses.
    """

    name: str
    metric: str
    max: float | None = None
    min: float | None = None
    max_drop_vs_stable: float | None = None
    max_rise_vs_stable: float | None = None
    segment: str = OVERALL
    window_seconds: float = WINDOW_SECONDS
    warm_up_seconds: float = 0.0
    min_samples: int = 200
    consecutive: int = CONSECUTIVE
    mode: Literal["Enforce", "Observe"] = "Enforce"
    on_no_data: Literal["Hold", "Pass", "Fail"] = "Hold"
    query: str = ""
    """Of PromQL, with its placeholders."""
    sequential: bool = False
    """Judged at any moment, too, where its metric can be: nobody chose its windows."""

    def __post_init__(self) -> None:
        try:
            metric_of(self.metric)
        except ValueError as error:
            raise ValueError(f"guardrail {self.name}: {error}") from None
        bounds = [b for b in (self.max, self.min, self.max_drop_vs_stable, self.max_rise_vs_stable) if b is not None]
        if len(bounds) != 1 or not math.isfinite(bounds[0]):
            raise ValueError(
                f"guardrail {self.name}: exactly one finite bound of max, min, maxDropVsStable, maxRiseVsStable"
            )
        if self.relative and bounds[0] < 0:
            raise ValueError(f"guardrail {self.name}: {bounds[0]} is not a fraction of stable's value")
        if min(self.window_seconds, self.min_samples, self.consecutive) <= 0 or self.warm_up_seconds < 0:
            raise ValueError(f"guardrail {self.name}: window, minSamples, consecutive above 0, warmUp not below 0")

    @property
    def relative(self) -> bool:
        return self.max is None and self.min is None

    @property
    def bound(self) -> Bound:
        upwards = self.max is not None or self.max_rise_vs_stable is not None
        absolute = self.max if self.max is not None else self.min
        change = self.max_rise_vs_stable if self.max_rise_vs_stable is not None else self.max_drop_vs_stable
        return Bound(1 if upwards else -1, absolute, change)

    @property
    def span(self) -> int:
        """Length of a window in buckets."""
        return max(1, math.ceil(self.window_seconds / BUCKET_SECONDS))

    @property
    def too_long(self) -> bool:
        """Whether the searchers' rings cannot hold the windows that a Fail needs."""
        return self.span * self.consecutive > EPOCH_LIMIT


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """What one rule says. Values and limits in units of the metric; None where there is none.

    `window_seconds`: length of the evidence judged: of the last failed window for a Fail, all since warm-up otherwise.
    `windows_failed`: failed windows in a row up to the newest (or up to the trip).
    """

    rule: str
    metric: str
    segment: str
    verdict: Verdict
    reason: str
    message: str
    mode: str = "Enforce"
    value: float | None = None
    limit: float | None = None
    confidence_limit: float | None = None
    samples: int = 0
    window_seconds: float = 0.0
    windows_failed: int = 0
    baseline_value: float | None = None
    baseline_age_seconds: float | None = None


def worst(verdicts: Iterable[RuleVerdict]) -> Verdict:
    """The worst of the enforced rules: Fail > Error > Inconclusive > Pass. Observed rules never act. None: Pass."""
    return max(
        (verdict.verdict for verdict in verdicts if verdict.mode == "Enforce"),
        key=_SEVERITY.__getitem__,
        default=Verdict.PASS,
    )


def rule_of(rule: GuardrailRule) -> Rule:
    """A rule of a spec with its bounds as numbers (shares, seconds, scores) and its durations in seconds."""
    metric = metric_of(rule.metric.value)
    window = metric.window_seconds if isinstance(metric, Metric) else WINDOW_SECONDS
    return Rule(
        name=rule.name,
        metric=rule.metric.value,
        max=parse_bound(rule.max, rule.metric.value) if rule.max is not None else None,
        min=parse_bound(rule.min, rule.metric.value) if rule.min is not None else None,
        max_drop_vs_stable=share(rule.max_drop_vs_stable) if rule.max_drop_vs_stable is not None else None,
        max_rise_vs_stable=share(rule.max_rise_vs_stable) if rule.max_rise_vs_stable is not None else None,
        segment=rule.segment,
        window_seconds=window if rule.window is None else duration_seconds(rule.window),
        warm_up_seconds=duration_seconds(rule.warm_up),
        min_samples=rule.min_samples,
        consecutive=rule.consecutive,
        mode=rule.mode,
        on_no_data=rule.on_no_data,
        query=rule.query or "",
        sequential=rule.window is None and rule.consecutive == CONSECUTIVE,
    )
