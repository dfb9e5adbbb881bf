"""What an engine costs on this machine: latency of one query and of batches, and resident memory. One thread.

Wall time of a busy machine is noise on top: the figures are for people, and nothing is judged by them.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..artifact.manifest import Manifest
from ..index.engine import Engine
from .report import BatchLatency

BATCHES = (1, 8, 64)
LATENCY_CALLS = 500
"""Calls of each batch size; fewer when they take longer than LATENCY_SECONDS."""
LATENCY_SECONDS = 3.0
WARM_QUERIES = 300
"""Queries after which an index's pages count as touched: as many as a searcher's canary."""
_STATM = Path("/proc/self/statm")


def latencies(engine: Engine, queries: npt.NDArray[np.float32], k: int) -> tuple[BatchLatency, ...]:
    """Latency at the default point for each of BATCHES. queries: float32 [n, d], n >= 1; repeated when they are few."""
    engine.search(queries[:1], k)
    return tuple(latency(engine, queries, k, batch) for batch in BATCHES)


def latency(engine: Engine, queries: npt.NDArray[np.float32], k: int, batch: int) -> BatchLatency:
    """Of calls of `batch` queries each, at the default point."""
    seconds: list[float] = []
    deadline = time.perf_counter() + LATENCY_SECONDS
    for some in itertools.islice(_batches(queries, batch), LATENCY_CALLS):
        began = time.perf_counter()
        engine.search(some, k)
        ended = time.perf_counter()
        seconds.append(ended - began)
        if ended > deadline:
            break
    p50, p95 = np.percentile(seconds, (50, 95)) * 1e3
    return BatchLatency(batch=batch, p50_ms=float(p50), p95_ms=float(p95), query_us=float(p50) / batch * 1e3)


def _batches(queries: npt.NDArray[np.float32], batch: int) -> Iterator[npt.NDArray[np.float32]]:
    """Batches of exactly this size, round and round over the queries."""
    for first in itertools.count(step=batch):
        yield queries[np.arange(first, first + batch) % len(queries)]


def open_measured(
    folder: Path, manifest: Manifest, queries: npt.NDArray[np.float32], k: int
) -> tuple[Engine, int | None]:
    """`Engine.open`, and by how much this process's resident memory grew when it had answered some queries.

    Bytes, mapped pages that were touched included; None where the system does not say. Raises as `Engine.open`.
    """
    before = resident_bytes()
    engine = Engine.open(folder, manifest)
    for some in itertools.islice(_batches(queries, 1), min(len(queries), WARM_QUERIES)):
        engine.search(some, k)
    after = resident_bytes()
    return engine, None if before is None or after is None else max(0, after - before)


def resident_bytes() -> int | None:
    """Resident memory of this process; None where /proc does not say (macOS)."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
