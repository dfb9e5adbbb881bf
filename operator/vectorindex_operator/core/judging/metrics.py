"""The metrics of guardrails: their name, their unit, their family, and how a bound is written and shown.

`METRICS` is the table a new metric is added to. `SHADOW_METRICS` has those that only pairs tell, of the candidate's
answer and stable's to the same query (pair_metrics.py), and `FIGURE_METRICS` those that are one number a window, told
by somebody else: there is no sample, so nothing is beyond doubt (figures.py).
Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from vectorindex_operator.core.judging import histogram
from vectorindex_operator.core.judging.comparison import Bounded, Family, Mean, Quantile, Rate
from vectorindex_operator.core.judging.evidence import CLICKS_LATE, Counts, RevisionEvidence
from vectorindex_operator.core.judging.sequential import Bet
from vectorindex_searcher.contract import COMPARED, FILTERED, RERANKABLE

_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"
_RATE = re.compile(rf"({_NUMBER})\s*(%?)")
_DURATION = re.compile(rf"({_NUMBER})\s*(us|ms|s)")
WINDOW_SECONDS = 60.0
"""Default of a rule's `window`."""
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class Metric:
    """One row. `label`, `samples`, `show`: for messages. `parse`: a bound's text to its number, or ValueError."""

    label: str
    samples: str
    family: Family
    parse: Callable[[str], float]
    show: Callable[[float], str]
    units: str
    latency: bool = False
    """Whether it looks at the latency histogram."""
    final: Callable[[RevisionEvidence], RevisionEvidence] = lambda merged: merged
    """The evidence as far as it is complete for this metric."""
    window_seconds: float = WINDOW_SECONDS
    """Default of `window`."""
    note: Callable[[Counts], str] = lambda _cell: ""
    """What a message should add about the sample."""
    needs: str = ""
    """Of contract.LATER_COUNTERS: a searcher that does not count it says nothing of this metric."""
    bet: Bet | None = None
    """None: it is judged by windows alone."""


@dataclass(frozen=True, slots=True)
class NamedMetric:
    """A metric that is judged elsewhere: how messages call it, and how its bound is written."""

    label: str
    samples: str
    parse: Callable[[str], float]
    show: Callable[[float], str]
    units: str


def _parse_rate(text: str) -> float:
    match = _RATE.fullmatch(text)
    value = math.nan if match is None else float(match[1]) / (100 if match[2] else 1)
    if not 0.0 <= value <= 1.0:
        raise ValueError(text)
    return value


def _parse_duration(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None or float(match[1]) <= 0:
        raise ValueError(text)
    return float(match[1]) * _SECONDS[match[2]]


def _parse_score(text: str) -> float:
    if not re.fullmatch(_NUMBER, text) or not math.isfinite(float(text)):
        raise ValueError(text)
    return float(text)


def _show_rate(value: float) -> str:
    return f"{100 * value:.3g}%"


def _show_duration(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _show_score(value: float) -> str:
    return f"{value:.4g}"


def _show_figure(value: float) -> str:
    return f"{value:,.6g}"


_RATE_UNITS = "a percentage such as 2%, or a fraction from 0 to 1 such as 0.02"
_DURATION_UNITS = "a duration above 0 such as 40ms, 1.5s or 800us"


def _bet_on(rate: Rate, *, one_by_one: bool = False) -> Bet:
    return Bet(1, lambda bound: (bound, lambda cell: (rate.hits(cell), rate.trials(cell))), one_by_one)


def _bet_on_quantile(family: Quantile) -> Bet:
    return Bet(
        1,
        lambda bound: (
            family.slower,
            lambda cell: (histogram.surely_slower(cell.latency, bound), family.size(cell)),
        ),
        one_by_one=True,
    )


def _bet_on_share(family: Bounded) -> Bet:
    """Of values in [0, 1]: what is missing of each is to be low."""
    return Bet(
        -1, lambda bound: (1.0 - bound, lambda cell: (family.count(cell) - family.total(cell), family.count(cell)))
    )


# Requests, not queries: the queries of a batch fail together, and the tests count on independence.
_ERRORS = Rate(lambda cell: cell.failed_requests, lambda cell: max(cell.requests, cell.failed_requests))
_REFUSALS = Rate(
    lambda cell: cell.refused + cell.mismatched,
    lambda cell: max(cell.requests, cell.failed_requests) + cell.refused + cell.mismatched,
)
# A query that failed has no hits to count: left in, a flood of errors would hide a flood of empty answers.
_ZERO_RESULTS = Rate(lambda cell: cell.zero_results, lambda cell: max(cell.queries - cell.errors, cell.zero_results))
_FILTERED_ZERO_RESULTS = Rate(lambda cell: cell.filtered_zero_results, lambda cell: cell.filtered_queries)
_P95, _P99 = Quantile(0.05), Quantile(0.01)
_RECALL = Bounded(lambda cell: cell.live_queries, lambda cell: cell.live_recall_sum)
_LOST_FILTERS = Rate(lambda cell: cell.filters_lost, lambda cell: cell.filters_compared)

METRICS: dict[str, Metric] = {
    "ErrorRate": Metric("error rate", "requests", _ERRORS, _parse_rate, _show_rate, _RATE_UNITS, bet=_bet_on(_ERRORS)),
    "RefusalRate": Metric(
        "refusal rate", "requests", _REFUSALS, _parse_rate, _show_rate, _RATE_UNITS, bet=_bet_on(_REFUSALS)
    ),
    "LatencyP95": Metric(
        "P95 latency",
        "queries",
        _P95,
        _parse_duration,
        _show_duration,
        _DURATION_UNITS,
        latency=True,
        bet=_bet_on_quantile(_P95),
    ),
    "LatencyP99": Metric(
        "P99 latency",
        "queries",
        _P99,
        _parse_duration,
        _show_duration,
        _DURATION_UNITS,
        latency=True,
        bet=_bet_on_quantile(_P99),
    ),
    "ZeroResultRate": Metric(
        "zero-result rate",
        "answered queries",
        _ZERO_RESULTS,
        _parse_rate,
        _show_rate,
        _RATE_UNITS,
        bet=_bet_on(_ZERO_RESULTS, one_by_one=True),
    ),
    "FilteredZeroResultRate": Metric(
        "zero-result rate of filtered queries",
        "answered queries with a filter",
        _FILTERED_ZERO_RESULTS,
        _parse_rate,
        _show_rate,
        _RATE_UNITS,
        needs=FILTERED,
        bet=_bet_on(_FILTERED_ZERO_RESULTS, one_by_one=True),
    ),
    "FiltersLost": Metric(
        "share of filters lost",
        "requests with a filter that the revision before took",
        _LOST_FILTERS,
        _parse_rate,
        _show_rate,
        _RATE_UNITS,
        needs=COMPARED,
        bet=_bet_on(_LOST_FILTERS),
    ),
    "LiveRecall": Metric(
        "live recall",
        "sampled queries",
        _RECALL,
        _parse_rate,
        _show_rate,
        _RATE_UNITS,
        final=lambda merged: merged.until(merged.live_before),
        window_seconds=900.0,
        note=lambda cell: " against a wider search" if cell.live_wide else "",
        bet=_bet_on_share(_RECALL),
    ),
    # No bet: budgets run out in bursts, when a pod has too much to do.
    "RerankedShare": Metric(
        "share of answers that were reranked",
        "queries in words",
        Bounded(lambda cell: cell.rerankable_queries, lambda cell: cell.reranked_queries),
        _parse_rate,
        _show_rate,
        _RATE_UNITS,
        needs=RERANKABLE,
    ),
    "ClickDepth": Metric(
        "mean click depth",
        "tracked queries",
        Bounded(
            lambda cell: cell.tracked,
            # Pods that died took their tracked queries along, clicks that others took are still there.
            lambda cell: max(float(cell.tracked), cell.tracked_depth_sum - cell.click_gain_sum),
            low=1.0,
            high=lambda cell: float(max(2, cell.click_depth_top)),
        ),
        _parse_score,
        _show_score,
        "a plain number such as 3.5",
        final=lambda merged: merged.until(merged.complete_before - CLICKS_LATE),
        window_seconds=900.0,
    ),
    "TopScore": Metric("mean top score", "scores", Mean(), _parse_score, _show_score, "a plain number such as 0.45"),
}

SHADOW_METRICS: dict[str, NamedMetric] = {
    "AnswersMissed": NamedMetric(
        "share of stable's answers that were missed", "judged queries", _parse_rate, _show_rate, _RATE_UNITS
    ),
    "AnswersChanged": NamedMetric(
        "share of stable's answers whose score changed", "judged queries", _parse_rate, _show_rate, _RATE_UNITS
    ),
}

FIGURE_METRICS: dict[str, NamedMetric] = {
    "PromQL": NamedMetric("figure", "windows", _parse_score, _show_figure, "a plain number such as 12.5"),
}


def metric_of(name: str) -> Metric | NamedMetric:
    """The row of one of the tables. ValueError for a metric that is in none."""
    row = METRICS.get(name) or SHADOW_METRICS.get(name) or FIGURE_METRICS.get(name)
    if row is None:
        raise ValueError(f"unknown metric {name!r}; known: {', '.join((*METRICS, *SHADOW_METRICS, *FIGURE_METRICS))}")
    return row


def parse_bound(text: str, metric: str) -> float:
    """A bound (`max`, `min`) of `metric` as a number: rates as fractions, latency in seconds, scores as they are.

    ValueError names the metric, the text and what is accepted.
    """
    row = metric_of(metric)
    try:
        return row.parse(text.strip())
    except ValueError:
        raise ValueError(f"{metric}: bound {text!r} is not {row.units}") from None
