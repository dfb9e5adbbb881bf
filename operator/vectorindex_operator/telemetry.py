"""What the operator tells about itself: JSON logs, Prometheus metrics, health endpoints.

Health measures the operator's own loop, not the web server: a stuck queue makes /livez fail.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from vectorindex_operator.api.v1alpha1 import VectorIndexStatus
from vectorindex_operator.core.events import Event

STUCK_SECONDS = 300.0
CONDITIONS = (
    "Ready",
    "RolledOut",
    "Reconciling",
    "Stalled",
    "DatasetResolved",
    "Built",
    "Validated",
    "GuardrailsHealthy",
    "RollbackPossible",
)
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
        self.events = Counter(
            "vectorindex_events",
            "Decisions and transitions by reason",
            ["namespace", "name", "reason"],
            registry=self.registry,
        )
        self.rollbacks = Counter(
            "vectorindex_rollbacks",
            "Revisions that lost the traffic to an earlier one",
            ["namespace", "name"],
            registry=self.registry,
        )
        self.condition = Gauge(
            "vectorindex_condition",
            "1 where the condition is True",
            ["namespace", "name", "type"],
            registry=self.registry,
        )
        self.writes = Counter(
            "vectorindex_api_writes", "Writes to the API server besides the Lease", ["kind"], registry=self.registry
        )
        self.depth = Gauge("vectorindex_workqueue_depth", "VectorIndexes that are due now", registry=self.registry)
        self.leader = Gauge("vectorindex_leader", "1 while this process holds the Lease", registry=self.registry)

    def on_result(self, result: str, seconds: float) -> None:
        self.passes.labels(result).inc()
        self.seconds.observe(seconds)

    def on_event(self, namespace: str, name: str, event: Event) -> None:
        self.events.labels(namespace, name, event.reason).inc()
        if event.reason == "RolledBack":
            self.rollbacks.labels(namespace, name).inc()

    def on_status(self, namespace: str, name: str, status: VectorIndexStatus) -> None:
        true = {condition.type for condition in status.conditions if condition.status == "True"}
        for kind in CONDITIONS:
            self.condition.labels(namespace, name, kind).set(kind in true)

    def forget(self, namespace: str, name: str) -> None:
        """A VectorIndex is gone: its series go too."""
        for metric in (self.events, self.rollbacks, self.condition):
            metric.remove_by_labels({"namespace": namespace, "name": name})


@dataclass(slots=True)
class Health:
    """`live`: the loop makes progress. `ready`: the process is set up (a standby without the Lease is ready)."""

    overdue: Callable[[], float] = lambda: 0.0
    ready: bool = False

    def live(self) -> bool:
        return self.overdue() < STUCK_SECONDS


def serve(port: int, health: Health, metrics: Metrics) -> ThreadingHTTPServer:
    """Serve /livez, /readyz and /metrics on all addresses from a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path == "/metrics":
                self._answer(200, generate_latest(metrics.registry), CONTENT_TYPE_LATEST)
            elif path == "/livez":
                live = health.live()
                self._answer(200 if live else 503, b"ok\n" if live else b"a pass is overdue by minutes\n")
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
