"""A bounded queue of spans, and the thread that sends them: OTLP over HTTP, as JSON (docs/adr/0072-spans.md).

Nothing here waits on the event loop, and nothing that goes wrong reaches a query: spans are dropped, and counted.
"""

from __future__ import annotations

import functools
import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

import orjson

from .context import Context, Stage

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

MOST_WAITING = 2048
"""Searches. More are dropped: a collector that does not answer costs half a megabyte."""
AT_ONCE = 512
SEND_SECONDS = 1.0
"""Between two messages."""
ANSWER_SECONDS = 5.0
SERVICE = "vectorindex-searcher"
_INTERNAL, _SERVER, _ERROR = 1, 2, 2
"""SPAN_KIND_INTERNAL, SPAN_KIND_SERVER and STATUS_CODE_ERROR of OTLP."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Collector:
    """Where spans go. `headers` may hold a token, and are shown to nobody."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    service: str = SERVICE

    @classmethod
    def told(cls, environment: Mapping[str, str]) -> Collector | None:
        """By OpenTelemetry's own variables; None: there is none."""
        base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
        url = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "") or (base and f"{base.rstrip('/')}/v1/traces")
        off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
        if off or environment.get("OTEL_TRACES_EXPORTER") == "none" or not url.startswith(("http://", "https://")):
            return None
        pairs = (one.partition("=") for one in environment.get("OTEL_EXPORTER_OTLP_HEADERS", "").split(","))
        headers = {unquote(name.strip()): unquote(value.strip()) for name, _, value in pairs if name.strip()}
        return cls(url, headers, environment.get("OTEL_SERVICE_NAME", "") or SERVICE)


@dataclass(frozen=True, slots=True)
class Span:
    """One answered search. `ended`: unix seconds. `stages`: each is told as a child of it."""

    context: Context
    ended: float
    seconds: float
    status: int
    stages: tuple[Stage, ...] = ()


class Spans:
    """Of one process. `add` on the event loop only."""

    def __init__(self, collector: Collector, revision: str) -> None:
        """The thread begins with the first span: after a fork, and never where nothing is traced."""
        self._collector, self._revision = collector, revision
        self._waiting: deque[Span] = deque()
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        """Guards the counts."""
        self._thread: threading.Thread | None = None
        self._failing = False

    def add(self, context: Context, seconds: float, status: int, stages: tuple[Stage, ...] = ()) -> None:
        """A search was answered just now."""
        if len(self._waiting) >= MOST_WAITING:
            self._count("Dropped", 1)
            return
        self._waiting.append(Span(context, time.time(), seconds, status, stages))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
            self._thread.start()

    def take_counts(self) -> dict[str, int]:
        """Spans by what became of them (Sent, Failed, Dropped), since the last time."""
        with self._lock:
            counts, self._counts = dict(self._counts), Counter()
        return counts

    def _count(self, result: str, number: int) -> None:
        with self._lock:
            self._counts[result] += number

    def _run(self) -> None:
        while True:
            time.sleep(SEND_SECONDS)
            while self._waiting:
                self._send([self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))])

    def _send(self, spans: list[Span]) -> None:
        """One message. It is not sent again: the next spans matter more than the last."""
        import urllib.request  # a megabyte that searchers do without where nothing is traced

        headers = {**self._collector.headers, "Content-Type": "application/json"}
        body = orjson.dumps(message(spans, self._collector.service, self._revision))
        asked = urllib.request.Request(self._collector.url, body, headers)  # noqa: S310 - http or https, see Collector
        problem = ""
        try:
            with _opener().open(asked, timeout=ANSWER_SECONDS) as answer:
                answer.read(1024)
        except (OSError, ValueError) as error:  # urllib's errors are OSErrors
            problem = str(error)[:200]
        self._count("Failed" if problem else "Sent", len(spans))
        if bool(problem) is not self._failing:
            self._failing = bool(problem)
            _log.warning("spans cannot be sent" if problem else "spans are sent again", extra={"error": problem})


@functools.cache
def _opener() -> OpenerDirector:
    """Follows no redirect: what is sent goes to the collector that was named, with its headers, and nowhere else."""
    import urllib.request

    class Stays(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    return urllib.request.build_opener(Stays)


def message(spans: list[Span], service: str, revision: str) -> dict[str, object]:
    """ExportTraceServiceRequest of OTLP, in its JSON form."""
    said: dict[str, str | int] = {"service.name": service, "vectorindex.revision": revision}
    scope = {"scope": {"name": "vectorindex_searcher"}, "spans": [told for one in spans for told in _told(one)]}
    return {"resourceSpans": [{"resource": {"attributes": _attributes(said)}, "scopeSpans": [scope]}]}


def _told(one: Span) -> Iterator[dict[str, object]]:
    """A search, and its stages as children of it."""
    mine, trace, began = secrets.token_hex(8), one.context.trace_id, one.ended - one.seconds
    said: dict[str, str | int] = {
        "http.request.method": "POST",
        "url.path": "/v1/search",
        "http.response.status_code": one.status,
    }
    yield {
        **_span(one.context, mine, "POST /v1/search", began, one.ended),
        "kind": _SERVER,
        "attributes": _attributes(said),
        **({"status": {"code": _ERROR}} if one.status >= 500 else {}),
    }
    for stage in one.stages:
        times = began + stage.began, began + stage.ended
        yield {**_span(Context(trace, mine), secrets.token_hex(8), stage.name, *times), "kind": _INTERNAL}


def _span(context: Context, own_id: str, name: str, began: float, ended: float) -> dict[str, object]:
    """`began` and `ended`: unix seconds."""
    return {
        "traceId": context.trace_id,
        "spanId": own_id,
        "parentSpanId": context.parent_id,
        "name": name,
        "startTimeUnixNano": str(int(began * 1e9)),
        "endTimeUnixNano": str(int(ended * 1e9)),
    }


def _attributes(said: Mapping[str, str | int]) -> list[dict[str, object]]:
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
        for key, value in said.items()
    ]
