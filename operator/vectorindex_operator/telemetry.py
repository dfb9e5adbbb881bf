"""What the operator tells about itself: JSON logs, Prometheus metrics, health endpoints.

Health measures the operator's own work, not the web server: a pass that hangs or a watch that is gone makes /livez
fail. A long backlog does not: a restart would only begin it anew.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from vectorindex_operator.api.v1alpha1 import VectorIndexStatus
from vectorindex_operator.core.events import Event, EventReason
from vectorindex_operator.core.fresh_looks import FreshAnswer
from vectorindex_operator.core.source_poll import Said
from vectorindex_searcher.contract import Found

CONDITIONS = (
    "Ready",
    "RolledOut",
    "UpToDate",
    "Reconciling",
    "Stalled",
    "Suspended",
    "Degraded",
    "DatasetResolved",
    "Built",
    "Validated",
    "GuardrailsHealthy",
    "RollbackPossible",
    "FreshRows",
)
REASONS = frozenset(EventReason)
"""What an Event may be counted as: a label takes no value that somebody else chooses."""
OTHER = "Other"
_EXTRA_FIELDS = ("key", "revision", "reason", "error")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and what the record carries of key, revision, reason."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {name: getattr(record, name) for name in _EXTRA_FIELDS if getattr(record, name, "")}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def set_up_logging(level: str) -> None:
    """JSON lines on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("kopf").setLevel("WARNING")
    logging.getLogger("urllib3").setLevel("ERROR")


class Metrics:
    """The operator's metrics. Names imitate controller-runtime's; labels are bounded."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.passes = Counter("vectorindex_reconcile", "Passes by result", ["result"], registry=self.registry)
        self.seconds = Histogram("vectorindex_reconcile_duration_seconds", "Duration of a pass", registry=self.registry)
        self._indexes = IndexSeries()
        self.registry.register(self._indexes)
        self.writes = Counter(
            "vectorindex_api_writes", "Writes to the API server besides the Lease", ["kind"], registry=self.registry
        )
        self.second_reads = Counter(
            "vectorindex_api_second_reads",
            "Reads of the API server that were made again because the first try failed",
            registry=self.registry,
        )
        self.polls = Counter(
            "vectorindex_source_polls", "Answers of searchers about the source", ["result"], registry=self.registry
        )
        self.artifacts = Counter(
            "vectorindex_rollback_artifact_looks",
            "Answers of searchers about the artifact that a rollback needs",
            ["result"],
            registry=self.registry,
        )
        self.fresh = Counter(
            "vectorindex_fresh_looks", "Answers of searchers about fresh rows", ["result"], registry=self.registry
        )
        self.notices = Counter(
            "vectorindex_notices",
            "Notices that were sent to the webhook, by what became of them",
            ["result"],
            registry=self.registry,
        )
        self.depth = Gauge("vectorindex_workqueue_depth", "VectorIndexes that are due now", registry=self.registry)
        self.longest_wait = Gauge(
            "vectorindex_workqueue_longest_wait_seconds",
            "How late the most overdue VectorIndex is",
            registry=self.registry,
        )
        self.longest_running = Gauge(
            "vectorindex_workqueue_longest_running_seconds",
            "How long the pass that began first has been running",
            registry=self.registry,
        )
        self.watches = Gauge("vectorindex_watches", "Watches of the API server that run", registry=self.registry)
        self.cached = Gauge("vectorindex_cached_objects", "Objects in the read cache", registry=self.registry)
        self.cached_bytes = Gauge("vectorindex_cached_bytes", "Their size in the read cache", registry=self.registry)
        self.missed = Counter(
            "vectorindex_relist_differences",
            "VectorIndexes of which the relist found something that no watch had told",
            registry=self.registry,
        )
        self.evidence_bytes = Gauge(
            "vectorindex_evidence_bytes", "What searchers told and is kept until the next look", registry=self.registry
        )
        self.evidence_displaced = Counter(
            "vectorindex_evidence_displaced",
            "Searchers whose evidence had to go for want of room, and that were asked for all of it again",
            registry=self.registry,
        )
        self.leader = Gauge("vectorindex_leader", "1 while this process holds the Lease", registry=self.registry)

    def on_result(self, result: str, seconds: float) -> None:
        self.passes.labels(result).inc()
        self.seconds.observe(seconds)

    def on_poll(self, said: Said) -> None:
        self.polls.labels(said).inc()

    def on_fresh(self, answer: FreshAnswer) -> None:
        self.fresh.labels(answer.result).inc()

    def on_artifact(self, found: Found) -> None:
        self.artifacts.labels(found).inc()

    def on_event(self, namespace: str, name: str, event: Event) -> None:
        reason = event.reason if event.reason in REASONS else OTHER
        self._indexes.count(namespace, name, reason)

    def on_notice(self, taken: bool) -> None:
        """A notice was sent to the webhook."""
        self.notices.labels("taken" if taken else "failed").inc()

    def on_status(self, namespace: str, name: str, status: VectorIndexStatus) -> None:
        true = {condition.type for condition in status.conditions if condition.status == "True"}
        self._indexes.note(namespace, name, true)

    def on_loaded(self, namespace: str, name: str, loaded: Mapping[str, int]) -> None:
        """Bytes of memory by revision, of those that are kept loaded."""
        self._indexes.load(namespace, name, loaded)

    def forget(self, namespace: str, name: str) -> None:
        """A VectorIndex is gone: its series go too."""
        self._indexes.forget(namespace, name)


class IndexSeries(Collector):
    """The series of every VectorIndex, made when somebody asks for them: as objects, a thousand indexes' take 14 MB."""

    def __init__(self) -> None:
        self._true: dict[tuple[str, str], int] = {}
        """A bit for each of CONDITIONS."""
        self._events: dict[tuple[str, str], dict[str, int]] = {}
        self._loaded: dict[tuple[str, str], Mapping[str, int]] = {}
        self._lock = Lock()

    def load(self, namespace: str, name: str, loaded: Mapping[str, int]) -> None:
        with self._lock:
            self._loaded[namespace, name] = loaded

    def note(self, namespace: str, name: str, true: Container[str]) -> None:
        bits = sum((kind in true) << place for place, kind in enumerate(CONDITIONS))
        with self._lock:
            self._true[namespace, name] = bits

    def count(self, namespace: str, name: str, reason: str) -> None:
        with self._lock:
            counts = self._events.setdefault((namespace, name), {})
            counts[reason] = counts.get(reason, 0) + 1

    def forget(self, namespace: str, name: str) -> None:
        with self._lock:
            self._true.pop((namespace, name), None)
            self._events.pop((namespace, name), None)
            self._loaded.pop((namespace, name), None)

    def collect(self) -> Iterator[Metric]:
        labels = ("namespace", "name")
        events = CounterMetricFamily(
            "vectorindex_events", "Decisions and transitions by reason", labels=[*labels, "reason"]
        )
        rollbacks = CounterMetricFamily(
            "vectorindex_rollbacks", "Revisions that lost the traffic to an earlier one", labels=labels
        )
        condition = GaugeMetricFamily(
            "vectorindex_condition", "1 where the condition is True", labels=[*labels, "type"]
        )
        memory = GaugeMetricFamily(
            "vectorindex_revision_loaded_bytes",
            "Memory that the index of a loaded revision takes in all the searchers that it is to have",
            labels=[*labels, "revision"],
        )
        with self._lock:
            loaded = [(key, revision, size) for key, row in self._loaded.items() for revision, size in row.items()]
            counted = [(key, reason, count) for key, counts in self._events.items() for reason, count in counts.items()]
            noted = list(self._true.items())
        for key, reason, count in counted:
            events.add_metric([*key, reason], count)
            if reason == EventReason.ROLLED_BACK:
                rollbacks.add_metric(key, count)
        for key, bits in noted:
            for place, kind in enumerate(CONDITIONS):
                condition.add_metric([*key, kind], bits >> place & 1)
        for key, revision, size in loaded:
            memory.add_metric([*key, revision], size)
        return iter((events, rollbacks, condition, memory))


@dataclass(slots=True)
class Health:
    """`stuck`: why the work makes no progress, empty while it does. `ready`: the process is set up (a standby is)."""

    stuck: Callable[[], str] = lambda: ""
    ready: bool = False


def serve(port: int, health: Health, metrics: Metrics) -> ThreadingHTTPServer:
    """Serve /livez, /readyz and /metrics on all addresses from a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path == "/metrics":
                self._answer(200, generate_latest(metrics.registry), CONTENT_TYPE_LATEST)
            elif path == "/livez":
                stuck = health.stuck()
                self._answer(503 if stuck else 200, f"{stuck or 'ok'}\n".encode())
            elif path == "/readyz":
                self._answer(200 if health.ready else 503, b"ok\n" if health.ready else b"starting\n")
            else:
                self._answer(404, b"try /livez, /readyz or /metrics\n")

        def _answer(self, code: int, body: bytes, kind: str = "text/plain") -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Probes are not worth a line each."""

    server = ThreadingHTTPServer(("", port), Handler)
    Thread(target=server.serve_forever, name="http", daemon=True).start()
    return server
