"""Reference pages of what the code exports: docs/reference/metrics.md and docs/reference/events.md.

`PYTHONPATH=hack python -m reference_pages --write` writes the pages; `--check` tells whether they are what the code
says. Like pod_sizes.py it is part of neither plane, as it asks both.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client.metrics_core import Metric

from vectorindex_operator.api.v1alpha1 import VectorIndexStatus
from vectorindex_operator.core import events
from vectorindex_operator.core.events import Event, EventReason
from vectorindex_operator.core.fresh_looks import FreshAnswer
from vectorindex_operator.core.source_poll import Said
from vectorindex_operator.telemetry import Metrics
from vectorindex_searcher import progress
from vectorindex_searcher.cli.task_metrics import TaskMetrics
from vectorindex_searcher.contract import Found, FreshLook
from vectorindex_searcher.generated import write_or_check
from vectorindex_searcher.serve.evidence.metrics import Gauges, SearcherMetrics
from vectorindex_searcher.serve.evidence.recorder import Outcome
from vectorindex_searcher.serve.evidence.ring import EvidenceRing

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
OURS = "vectorindex_"
"""How names of our own begin: the process's are those of every Prometheus client."""

_METRICS = """<!-- Generated from the code by `make generate`; edit the metrics' texts where they are counted. -->
# Metrics

Names are fixed. What they tell together, and where to look first: [operations.md](../operations.md#metrics) (operator),
[searcher-api.md](../searcher-api.md#admin-port) (searchers), [building.md](../building.md#progress) (Jobs); dashboards
and alerts on them: [operations.md](../operations.md#dashboards-and-alerts). Besides these there are the `process_...`
and `python_...` metrics of every Prometheus client."""
_SEARCHERS = """## Searchers

Port 8081, `/metrics`. Some are there only while what they tell of is: live recall, shadows, tombstones, fresh rows,
tokens."""
_EVENTS = """<!-- Generated from the code by `make generate`; edit operator/vectorindex_operator/core/events.py. -->
# Events

Every reason that the operator sends an Event for, as `kubectl describe vix NAME` shows them and
`vectorindex_events_total{reason}` counts them. What is particular (BucketNotFound, LatencyP95) stands in the message.
Conditions: [operations.md](../operations.md#conditions); what to do when one wakes you:
[operations.md](../operations.md#what-wakes-you-and-what-to-do).

| reason | type | sent when |
|---|---|---|"""


def operator_families() -> Iterator[Metric]:
    """Everything that an operator can export."""
    metrics = Metrics()
    metrics.on_result("ok", 0.1)
    metrics.writes.labels("Pod").inc()
    metrics.on_poll(Said.SAME)
    metrics.on_fresh(FreshAnswer())
    metrics.on_notice(True)
    metrics.on_artifact(Found.PRESENT)
    metrics.on_event("shop", "products", Event(EventReason.ROLLED_BACK, "back"))
    metrics.on_status("shop", "products", VectorIndexStatus())
    metrics.on_loaded("shop", "products", {"products-1a2b3c4d": 1})
    yield from metrics.registry.collect()


def searcher_families() -> Iterator[Metric]:
    """Everything that a searcher can export."""
    ring = EvidenceRing(("keyword",))
    ring.live_before = 0
    ring.record(Outcome("keyword", 1, hits=[1]), 200, 0.001)
    one = {"Some": 1}
    everything = Gauges(
        index_bytes=1, index_vectors=1, load_seconds={"fetch": 1.0}, canary_recall=1.0, live_recall_cpu_seconds=1.0,
        live_queries=1, feedback=one, ignored_params=one, spans=one, mirrored=one, shadowed=one, shadow_answers=one,
        origins={"store": 1, "cache": 0}, tombstones=1,
        tombstones_checked=1.0, tombstone_errors=1, source_checked=1.0, source_errors=1, token_uses=one,
        shard_requests={(0, "Answered"): 1}, shard_pods={0: 1},
        fresh=FreshLook(),
    )  # fmt: skip
    yield from SearcherMetrics("docs-1", ring, everything)._registry.collect()


def job_families() -> Iterator[Metric]:
    """Everything that a Job can export while it counts rows."""
    progress.step("reading rows", 2, 4)
    progress.NOW.done = 1
    progress.TEXTS.encoded = 1
    yield from TaskMetrics("build").collect()


def metrics_page() -> str:
    """The whole page."""
    parts = [
        _METRICS,
        "## Operator\n\nPort 8080, `/metrics`.",
        _table(operator_families()),
        _SEARCHERS,
        _table(searcher_families()),
        "## Jobs\n\nThe port of `--metrics-port`, `/metrics`, while the Job runs.",
        _table(job_families()),
    ]
    return "\n\n".join(parts) + "\n"


def _table(families: Iterable[Metric]) -> str:
    lines = ["| metric | type | labels | tells |", "|---|---|---|---|"]
    for family in sorted(families, key=lambda one: one.name):
        if family.name.startswith(OURS):
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = sorted({name for sample in family.samples for name in sample.labels} - {"le"})
            told = ", ".join(f"`{label}`" for label in labels)
            lines.append(f"| `{name}` | {family.type} | {told} | {family.documentation.rstrip('.')} |")
    return "\n".join(lines)


def events_page() -> str:
    """The whole page: the members of EventReason with their docstrings."""
    classes = (one for one in ast.parse(inspect.getsource(events)).body if isinstance(one, ast.ClassDef))
    (cls,) = (one for one in classes if one.name == EventReason.__name__)
    texts = [
        " ".join(str(one.value.value).split())
        for one in cls.body
        if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)
    ]
    rows = [
        f"| `{reason}` | {'Warning' if reason.warns else 'Normal'} | {text} |"
        for reason, text in zip(EventReason, texts[1:], strict=True)
    ]
    return "\n".join([_EVENTS, *rows]) + "\n"


PAGES = {"metrics.md": metrics_page, "events.md": events_page}


def main(arguments: list[str] | None = None) -> int:
    """Write the pages (--write) or tell whether they are what they should be (--check)."""
    made = [write_or_check("reference_pages", REFERENCE / name, page(), arguments) for name, page in PAGES.items()]
    return max(made)


if __name__ == "__main__":
    raise SystemExit(main())
