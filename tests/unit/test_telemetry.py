"""What the operator tells about itself: health of its own loop, bounded metrics, one JSON object a log line."""

from __future__ import annotations

import json
import logging
import sys
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from vectorindex_operator.api.v1alpha1 import Condition, VectorIndexStatus
from vectorindex_operator.core.events import Event, EventReason
from vectorindex_operator.telemetry import CONDITIONS, Health, JsonFormatter, Metrics, serve

AT = "2027-01-15T08:00:00Z"


def status(**conditions: str) -> VectorIndexStatus:
    rows = [
        Condition.model_validate({"type": kind, "status": value, "lastTransitionTime": AT, "reason": "Because"})
        for kind, value in conditions.items()
    ]
    return VectorIndexStatus(conditions=tuple(rows))


@pytest.fixture(scope="module")
def told() -> Iterator[tuple[Health, Metrics, str, urllib3.PoolManager]]:
    health, metrics = Health(), Metrics()
    server = serve(0, health, metrics)
    pool = urllib3.PoolManager()
    yield health, metrics, f"http://127.0.0.1:{server.server_port}", pool
    pool.clear()
    server.shutdown()
    server.server_close()


def test_health_is_that_of_the_loop(told: tuple[Health, Metrics, str, urllib3.PoolManager]) -> None:
    health, _, url, pool = told

    def ask(path: str) -> int:
        return pool.request("GET", url + path, retries=False).status

    assert (ask("/livez"), ask("/readyz"), ask("/nothing")) == (200, 503, 404)
    health.ready = True
    assert (ask("/livez"), ask("/readyz?verbose")) == (200, 200)
    health.stuck = lambda: "the pass over team-a/docs has run for 301 s"
    answer = pool.request("GET", url + "/livez", retries=False)
    assert (answer.status, answer.data) == (503, b"the pass over team-a/docs has run for 301 s\n")
    assert ask("/readyz") == 200


def test_metrics_are_served(told: tuple[Health, Metrics, str, urllib3.PoolManager]) -> None:
    _, metrics, url, pool = told
    metrics.on_result("ok", 0.02)
    metrics.on_result("bug", 0.02)
    metrics.writes.labels("Job").inc()
    answer = pool.request("GET", url + "/metrics", retries=False)
    text = answer.data.decode()
    assert answer.headers["Content-Type"].startswith("text/plain")
    for line in (
        'vectorindex_reconcile_total{result="bug"} 1.0',
        'vectorindex_api_writes_total{kind="Job"} 1.0',
        "vectorindex_reconcile_duration_seconds_count 2.0",
        "vectorindex_leader 0.0",
    ):
        assert line in text.splitlines()


def test_every_condition_is_a_series_and_only_true_ones_are_one() -> None:
    metrics = Metrics()
    metrics.on_status("team-a", "docs", status(Ready="True", RolledOut="False", Validated="Unknown"))

    def value(kind: str) -> float | None:
        labels = {"namespace": "team-a", "name": "docs", "type": kind}
        return metrics.registry.get_sample_value("vectorindex_condition", labels)

    assert {kind: value(kind) for kind in CONDITIONS} == {kind: float(kind == "Ready") for kind in CONDITIONS}
    metrics.on_status("team-a", "docs", status(RolledOut="True"))
    assert (value("Ready"), value("RolledOut")) == (0.0, 1.0)


def test_what_is_loaded_is_told_by_revision_while_it_is() -> None:
    metrics = Metrics()

    def told() -> dict[str, float]:
        samples = [s for family in metrics.registry.collect() for s in family.samples]
        return {s.labels["revision"]: s.value for s in samples if s.name == "vectorindex_revision_loaded_bytes"}

    metrics.on_loaded("team-a", "docs", {"docs-1": 20, "docs-2": 30})
    assert told() == {"docs-1": 20.0, "docs-2": 30.0}
    metrics.on_loaded("team-a", "docs", {"docs-2": 30})
    assert told() == {"docs-2": 30.0}
    metrics.forget("team-a", "docs")
    assert told() == {}


def test_a_rollback_is_counted_once() -> None:
    metrics = Metrics()
    for reason in ("GuardrailTripped", "RolledBack", "Stable"):
        metrics.on_event("team-a", "docs", Event(reason, "x"))
    labels = {"namespace": "team-a", "name": "docs"}
    assert metrics.registry.get_sample_value("vectorindex_rollbacks_total", labels) == 1.0
    assert metrics.registry.get_sample_value("vectorindex_events_total", labels | {"reason": "Stable"}) == 1.0


def test_a_reason_from_elsewhere_is_no_series_of_its_own() -> None:
    metrics = Metrics()
    for number in range(1000):
        made: Any = f"Made-{number}"
        metrics.on_event("team-a", "docs", Event(made, "x"))
    labels = {"namespace": "team-a", "name": "docs", "reason": "Other"}
    assert metrics.registry.get_sample_value("vectorindex_events_total", labels) == 1000.0
    series = [sample for family in metrics.registry.collect() for sample in family.samples]
    assert not [sample for sample in series if sample.labels.get("reason", "").startswith("Made-")]


def test_the_series_of_a_deleted_vectorindex_go_and_others_stay() -> None:
    metrics = Metrics()
    for namespace, name in (("team-a", "docs"), ("team-a", "other"), ("team-b", "docs")):
        metrics.on_status(namespace, name, status(Ready="True"))
        metrics.on_event(namespace, name, Event(EventReason.ROLLED_BACK, "x"))
    metrics.forget("team-a", "docs")
    metrics.forget("team-a", "never-seen")
    left = {
        (sample.labels["namespace"], sample.labels["name"])
        for family in metrics.registry.collect()
        for sample in family.samples
        if "namespace" in sample.labels
    }
    assert left == {("team-a", "other"), ("team-b", "docs")}


def test_series_take_little_memory_until_they_are_asked_for() -> None:
    """Before: 14 kB for each VectorIndex, the objects of twenty series."""
    metrics, said = Metrics(), status(Ready="True")
    reasons = list(EventReason)[:10]
    tracemalloc.start()
    try:
        for number in range(200):
            metrics.on_status("team-a", f"docs-{number}", said)
            for reason in reasons:
                metrics.on_event("team-a", f"docs-{number}", Event(reason, "x"))
        each = tracemalloc.get_traced_memory()[0] / 200
    finally:
        tracemalloc.stop()
    print(f"{each:.0f} bytes for each")
    assert each < 2000


def record(**extra: object) -> logging.LogRecord:
    one = logging.LogRecord("vectorindex", logging.WARNING, "x.py", 1, "%s said\n%d", ("it", 7), None)
    one.__dict__.update(extra)
    return one


def test_a_log_line_is_one_json_object_with_its_key() -> None:
    line = JsonFormatter().format(record(key="team-a/docs", revision="docs-1", reason="", foreign="no"))
    assert "\n" not in line
    entry = json.loads(line)
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "level": "WARNING", "logger": "vectorindex", "message": "it said\n7", "key": "team-a/docs",
        "revision": "docs-1",
    }  # fmt: skip


def test_a_traceback_stays_on_the_line() -> None:
    try:
        raise ValueError("oh")
    except ValueError:
        line = JsonFormatter().format(record(exc_info=sys.exc_info()))
    assert "\n" not in line
    assert "ValueError: oh" in json.loads(line)["traceback"]
