"""Metrics of a verb that runs to its end (build), on a port of their own while it runs.

A pod of a Job has no API token, so its progress reaches people as log lines and here. Names are fixed, as those of
serve/evidence/metrics.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..errors import BadSpec
from ..progress import NOW, TEXTS

STEP = "vectorindex_task_step"
ROWS = "vectorindex_task_rows"
ROWS_EXPECTED = "vectorindex_task_rows_expected"
BYTES = "vectorindex_task_bytes"
RATE = "vectorindex_task_rows_per_second"
ETA = "vectorindex_task_eta_seconds"
TEXTS_DONE = "vectorindex_task_texts_total"
TEXTS_CUT = "vectorindex_task_texts_cut_total"
ENCODE_SECONDS = "vectorindex_task_encode_seconds_total"
ENCODER_WAITS = "vectorindex_task_encoder_waits_total"


class TaskMetrics(Collector):
    """Reads progress.NOW at each scrape."""

    def __init__(self, verb: str) -> None:
        self._verb = verb

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        """The step, and the rows of it where they are counted."""
        now = NOW
        step = GaugeMetricFamily(STEP, "1 for the step that runs.", labels=("verb", "step"))
        step.add_metric((self._verb, now.step), 1)
        yield step
        named: tuple[tuple[str, str, float | None], ...] = (
            (ROWS, "Rows done of the step that runs.", now.done),
            (ROWS_EXPECTED, "Rows of the step that runs.", now.total),
            (BYTES, "Bytes of the vectors done, as float32.", now.done * now.row_bytes),
            (RATE, "Rows per second of the step so far.", now.rate),
            (ETA, "Seconds the step still takes at this rate.", now.eta),
        )
        for name, text, value in named:
            if now.total and value is not None:
                family = GaugeMetricFamily(name, text, labels=("verb", "step"))
                family.add_metric((self._verb, now.step), value)
                yield family
        yield from self._texts()

    def _texts(self) -> Iterator[Metric]:
        """Only where rows have texts."""
        if not TEXTS.encoded + TEXTS.known:
            return
        texts = CounterMetricFamily(
            TEXTS_DONE, "Texts of rows, by where their vectors came from.", labels=("verb", "by")
        )
        texts.add_metric((self._verb, "encoder"), TEXTS.encoded)
        texts.add_metric((self._verb, "cache"), TEXTS.known)
        yield texts
        named = (
            (TEXTS_CUT, "Texts of rows of which only the beginning was encoded.", TEXTS.cut),
            (ENCODE_SECONDS, "Seconds that rows waited for the encoder.", TEXTS.seconds),
            (ENCODER_WAITS, "Calls of an embeddings endpoint that had to be made again.", TEXTS.waits),
        )
        for name, text, value in named:
            family = CounterMetricFamily(name, text, labels=("verb",))
            family.add_metric((self._verb,), value)
            yield family


@contextlib.contextmanager
def serving(verb: str, port: int) -> Iterator[None]:
    """Within this, GET /metrics on `port`; 0: nothing is served. Raises BadSpec/PortInUse."""
    if not port:
        yield
        return
    registry = CollectorRegistry(auto_describe=False)
    registry.register(TaskMetrics(verb))
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(port, registry=registry)
    except (OSError, OverflowError) as error:
        message = f"--metrics-port {port}: {getattr(error, 'strerror', None) or error}"
        remedy = "Use another port from 1 to 65535, or none."
        raise BadSpec("PortInUse", message, field="--metrics-port", remedy=remedy) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
