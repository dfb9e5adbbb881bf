"""Lists of metrics and counters that must say the same wherever they stand; docs/guardrails.md, "A new metric"."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
from layers import CHECKOUT

from vectorindex_operator.api.guardrails import JUDGED_IN_SHADOW, GuardrailMetric
from vectorindex_operator.core.judging.evidence import COUNTS, SUMS, TOPS, Counts
from vectorindex_operator.core.judging.metrics import FIGURE_METRICS, METRICS, SHADOW_METRICS
from vectorindex_searcher.contract import COUNTERS, LATER_COUNTERS, EvidenceBucket
from vectorindex_searcher.serve.evidence import recorder, ring

PAGE = (CHECKOUT / "docs" / "guardrails.md").read_text(encoding="utf-8")
ALWAYS_ON = {"Unavailable", "Restarts"}


def test_the_schema_and_the_table_know_the_same_metrics() -> None:
    assert {
        metric.value for metric in GuardrailMetric
    } == METRICS.keys() | SHADOW_METRICS.keys() | FIGURE_METRICS.keys()
    assert {metric.value for metric in JUDGED_IN_SHADOW} == SHADOW_METRICS.keys()


@pytest.mark.parametrize("metric", sorted({*METRICS, *SHADOW_METRICS, *FIGURE_METRICS, *ALWAYS_ON}))
def test_every_metric_has_its_row_and_its_runbook(metric: str) -> None:
    table, runbook = PAGE.partition("## How a verdict is made")[0], PAGE.partition("## Runbook")[2]
    assert re.search(rf"^\| [^|]*\b{metric}\b[^|]* \|", table, re.MULTILINE), "a row of the table of metrics"
    assert re.search(rf"^### {metric}$|^Also .*{metric}", runbook, re.MULTILINE), "a section of the runbook"


def test_counts_are_the_counters_of_the_wire() -> None:
    uniform = {name for name in COUNTERS if name.startswith("live_overall_")}
    assert {field.name for field in fields(Counts)} == {*COUNTERS, "latency"} - uniform
    assert sorted((*COUNTS, *SUMS, *TOPS)) == sorted(set(COUNTERS) - uniform)


def test_the_ring_fills_every_counter_of_the_wire() -> None:
    filled = {*recorder.COUNTERS, *recorder.SUMS, *ring._LATER_COUNTERS}
    assert filled == set(COUNTERS)
    assert len(recorder.COUNTERS) == recorder.FRESH + 1


def test_what_a_metric_needs_to_be_told_is_a_counter_that_comes_later() -> None:
    wire = {field.alias for field in EvidenceBucket.model_fields.values()}
    assert {metric.needs for metric in METRICS.values()} - {""} == set(LATER_COUNTERS) <= wire


def test_searchers_of_before_leave_out_what_they_do_not_know() -> None:
    """So every counter has a default."""
    assert all(not field.is_required() for name, field in EvidenceBucket.model_fields.items() if name in COUNTERS)


@pytest.mark.parametrize(
    "path", re.findall(r"`([\w/.]+\.(?:py|md))`", PAGE.partition("## A new metric")[2].partition("\n## ")[0])
)
def test_the_recipe_names_files_that_are_there(path: str) -> None:
    roots = ("", "operator/vectorindex_operator/", "searcher/vectorindex_searcher/")
    assert any((CHECKOUT / root / path).exists() for root in roots)
