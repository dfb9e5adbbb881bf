"""Dashboards and alerts of the chart: every expression parses and asks for what the code exports, every alert has its
section in the docs, and fires when it must (the last with promtool, where that is installed)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from chart import CHART
from layers import CHECKOUT
from prometheus_client.core import Metric

import reference_pages
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.source_poll import Said
from vectorindex_operator.telemetry import CONDITIONS
from vectorindex_searcher.contract import Found

DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
RULES = [rule for group in yaml.safe_load((CHART / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("_count", "_sum"),
}
TARGET = frozenset({"job", "namespace", "pod", "instance"})
"""Labels that Prometheus gives to all series of a target."""
SEARCHER = TARGET | {"index"}
"""And the chart's PodMonitor to those of a searcher."""
VALUES: Mapping[tuple[str, str], frozenset[str]] = {
    ("vectorindex_condition", "type"): frozenset(CONDITIONS),
    ("vectorindex_events_total", "reason"): frozenset(EventReason),
    ("vectorindex_source_polls_total", "result"): frozenset(Said),
    ("vectorindex_notices_total", "result"): frozenset({"taken", "failed"}),
    ("vectorindex_rollback_artifact_looks_total", "result"): frozenset(Found),
    ("vectorindex_reconcile_total", "result"): frozenset({"ok", "conflict", "refused", "unreachableerror", "bug"}),
}
"""What a label may be, where that is a closed set."""


def families() -> Iterator[tuple[Metric, frozenset[str]]]:
    """Everything that operator and searchers can export, and the labels that their targets add."""
    yield from ((family, TARGET) for family in reference_pages.operator_families())
    yield from ((family, SEARCHER) for family in reference_pages.searcher_families())


def exported() -> dict[str, frozenset[str]]:
    """Name of each series -> the labels that it may have."""
    return {
        family.name + suffix: labels | {name for sample in family.samples for name in sample.labels}
        for family, labels in families()
        for suffix in SUFFIXES[family.type]
    }


EXPORTED = exported()


def expressions(path: Path) -> Iterator[tuple[str, str]]:
    """Where, and what Prometheus gets: Grafana's variables have a value then."""
    board = json.loads(path.read_text())
    asked = [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel["targets"]]
    asked += [(one["name"], one["expr"]) for one in board["annotations"]["list"]]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert found, variable
            asked.append((variable["name"], f"max by ({found.group(2)}) ({found.group(1)})"))
    for where, text in asked:
        yield f"{path.name}: {where}", text.replace("$__rate_interval", "5m").replace("$", "")


ASKED = [
    *(one for path in DASHBOARDS for one in expressions(path)),
    *((f"alerts.yaml: {rule['alert']}", rule["expr"]) for rule in RULES),
]


def nodes(expression: str) -> list[Any]:
    """All parts of an expression. Raises ValueError where it does not parse."""
    found: list[Any] = []
    promql_parser.walk(promql_parser.parse(expression), pre_visit=lambda node: found.append(node))
    return found


def selectors(expression: str) -> list[Any]:
    return [node for node in nodes(expression) if isinstance(node, promql_parser.VectorSelector)]


def grouped_by(expression: str) -> set[str]:
    sums = [node for node in nodes(expression) if isinstance(node, promql_parser.AggregateExpr) and node.modifier]
    return {label for one in sums for label in one.modifier.labels}


def problems(expression: str) -> list[str]:
    """What of an expression the code does not export."""
    said, known = [], set(TARGET)
    for one in selectors(expression):
        if one.name not in EXPORTED:
            said.append(f"nothing exports {one.name}")
            continue
        labels = EXPORTED[one.name]
        known |= labels
        for matcher in one.matchers.matchers:
            if matcher.name not in labels:
                said.append(f"{one.name} has no label {matcher.name}")
            values = VALUES.get((one.name, matcher.name))
            if values is not None and not set(matcher.value.split("|")) <= values:
                said.append(f"{one.name} never has {matcher.name}={matcher.value}")
    return said + [f"no series has the label {name}" for name in sorted(grouped_by(expression) - known - {"le"})]


@pytest.mark.parametrize(("where", "expression"), ASKED, ids=[where for where, _ in ASKED])
def test_what_is_asked_for_is_exported(where: str, expression: str) -> None:
    assert selectors(expression), "it asks for nothing"
    assert problems(expression) == []


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("vectorindex_gone", "nothing exports vectorindex_gone"),
        ("rate(vectorindex_queries[5m])", "nothing exports vectorindex_queries"),
        ('vectorindex_leader{colour="red"}', "vectorindex_leader has no label colour"),
        ('vectorindex_condition{type="Redy"}', "vectorindex_condition never has type=Redy"),
        ("sum by (colour) (vectorindex_leader)", "no series has the label colour"),
    ],
)
def test_the_check_sees_what_is_wrong(expression: str, says: str) -> None:
    assert problems(expression) == [says]


def test_what_does_not_parse_is_refused() -> None:
    with pytest.raises(ValueError, match=r"."):
        nodes("sum(rate(vectorindex_queries_total[5m])")


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path: Path) -> None:
    board = json.loads(path.read_text())
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(numbers) == len(set(numbers))
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {"${datasource}"}
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells)), "two panels lie over each other"
    assert all(target["refId"] for panel in board["panels"] for target in panel["targets"])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_section_and_names_what_it_is_about(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (CHECKOUT / page).read_text(), re.MULTILINE)
    assert rule["alert"] in headings
    assert anchor == rule["alert"].lower()
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert used <= grouped_by(rule["expr"])


def test_every_alert_is_tried_both_ways() -> None:
    """That it fires, and that something does not let it fire."""
    cases = yaml.safe_load((Path(__file__).parent / "alerts_test.yaml").read_text())["tests"]
    tried = [(one["alertname"], bool(one.get("exp_alerts"))) for case in cases for one in case["alert_rule_test"]]
    assert set(tried) == {(rule["alert"], fires) for rule in RULES for fires in (True, False)}


def test_alerts_fire_when_they_must(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    shutil.copy(CHART / "alerts.yaml", tmp_path)
    shutil.copy(Path(__file__).parent / "alerts_test.yaml", tmp_path)
    done = subprocess.run(
        [promtool, "test", "rules", "alerts_test.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
