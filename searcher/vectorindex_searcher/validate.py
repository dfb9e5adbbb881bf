"""`validate`: measure an artifact against exact search, through the engine and the parameters that will serve.

Judges nothing: the operator compares the figures with the gate. Idempotent: a report that is there is answered.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .artifact import (
    CANARY_FILE,
    HELDOUT_FILE,
    SERVED_FILES,
    VECTORS_FILE,
    Layout,
    Manifest,
    ManifestFile,
    download_verified,
    load_manifest,
)
from .contract import SegmentRecall, ValidateResult, ValidateTask
from .errors import Retry
from .index.binding import faiss
from .index.engine import Engine
from .index.tuning import batch_engine
from .index.vectors import VectorFile
from .recall.bound import lower_bound
from .recall.canary import canary_recall, make_canary, read_canary, write_canary
from .recall.exact import Truth
from .recall.groundtruth import Source, ground_truth
from .recall.measure import Measured, answers, measure, relevance_rank
from .recall.queries import Queries, read_held_out, read_user_queries
from .recall.report import Report, load_report, publish_report
from .store import Role, Store, open_store

LATENCY_QUERIES = 500
LATENCY_SECONDS = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was measured on all queries."""

    queries: Queries
    truth: Truth
    truth_source: Source
    measured: Measured
    relevance: npt.NDArray[np.float64] | None


def validate(task: ValidateTask, work: Path | None = None) -> ValidateResult:
    """Measure, publish report and canary, answer. `work`: folder for the downloaded artifact (default: the system's).

    Raises TaskError: ChecksumMismatch, BadArtifact, SourceMissing (queries), BadData (queries), StoreUnavailable.
    """
    artifacts = open_store(task.artifacts, Role.ARTIFACTS)
    layout = Layout(artifacts.prefix, task.identity)
    try:
        report, sha256 = load_report(artifacts, layout, task.digest, task.gate_hash)
    except Retry as error:
        if error.reason != "ReportNotFound":
            raise
    else:
        _log.info("already measured", extra={"gate": task.gate_hash})
        return report.result(sha256)
    manifest, manifest_sha256 = load_manifest(artifacts, layout, task.digest, task.manifest_sha256)
    with tempfile.TemporaryDirectory(prefix="validate-", dir=work) as name:
        names = (*SERVED_FILES, VECTORS_FILE, *(() if task.queries else (HELDOUT_FILE,)))
        folder = download_verified(artifacts, layout, manifest, Path(name), names)
        engine = Engine.open(folder, manifest)
        with VectorFile(folder / VECTORS_FILE, manifest.embedding.metric) as vectors:
            queries = _queries(task, manifest, folder)
            truth = _truth(task, artifacts, layout, manifest, vectors, queries)
            outcome = _measure(task, engine, vectors, queries, truth)
        canary, canary_figure, canary_queries = _canary(task, artifacts, layout, engine, outcome, folder)
        p50, p95, batch = _latency(engine, outcome.queries.vectors, task.k)
    described = (manifest, manifest_sha256)
    report = _report(task, described, engine, outcome, (p50, p95, batch), (canary, canary_figure, canary_queries))
    report, sha256 = publish_report(artifacts, layout, report)
    return report.result(sha256)


def _queries(task: ValidateTask, manifest: Manifest, folder: Path) -> Queries:
    if task.queries is None:
        return read_held_out(folder / HELDOUT_FILE)
    return read_user_queries(open_store(task.queries, Role.QUERIES), task.query_columns, manifest)


def _truth(
    task: ValidateTask, artifacts: Store, layout: Layout, manifest: Manifest, vectors: VectorFile, queries: Queries
) -> tuple[Truth, Source]:
    file = manifest.file(VECTORS_FILE)
    assert file is not None  # it was downloaded
    found = ground_truth(artifacts, layout, vectors, file.sha256, queries.vectors, task.k, queries.own_rows)
    _log.info("ground truth", extra={"source": found[1], "queries": len(queries.vectors), "k": task.k})
    return found


def _measure(
    task: ValidateTask, engine: Engine, vectors: VectorFile, queries: Queries, found: tuple[Truth, Source]
) -> Outcome:
    truth, source = found
    rows = answers(batch_engine(engine), queries.vectors, task.k, queries.own_rows)
    relevance = None
    if queries.relevant is not None:
        relevance = relevance_rank(engine, rows, queries.relevant)
    return Outcome(queries, truth, source, measure(truth, rows, vectors, queries.vectors), relevance)


def _segment(task: ValidateTask, outcome: Outcome, name: str, chosen: npt.NDArray[np.bool_]) -> SegmentRecall:
    """Figures of the chosen queries, at least one."""
    recall = outcome.measured.recall[chosen]
    relevance_mrr = None
    if outcome.relevance is not None and outcome.queries.relevant is not None:
        labelled = chosen & np.array([bool(ids) for ids in outcome.queries.relevant])
        relevance_mrr = float(outcome.relevance[labelled].mean()) if labelled.any() else None
    return SegmentRecall(
        segment=name,
        queries=len(recall),
        recall=float(recall.mean()),
        recall_low=lower_bound(recall, task.confidence),
        mrr=float(outcome.measured.reciprocal_rank[chosen].mean()),
        relevance_mrr=relevance_mrr,
    )


def _segments(task: ValidateTask, outcome: Outcome) -> tuple[SegmentRecall, ...]:
    """One row per declared segment that has queries; figures of none would be a lie."""
    names = np.array(outcome.queries.segments or [""] * len(outcome.queries.vectors))
    asked = [name for name in task.segments if np.any(names == name)]
    return tuple(_segment(task, outcome, name, names == name) for name in asked)


def _canary(
    task: ValidateTask, artifacts: Store, layout: Layout, engine: Engine, outcome: Outcome, folder: Path
) -> tuple[ManifestFile, float, int]:
    """Publish canary.arrow; its description, the recall on exactly its queries, and their number.

    A canary that is there already (an earlier try died before its report) is kept, and measured as it is.
    """
    hits = np.rint(outcome.measured.recall * outcome.truth.available).astype(np.int64)
    table = make_canary(outcome.queries.vectors, outcome.queries.own_rows, outcome.truth, hits)
    path = folder / CANARY_FILE
    write_canary(table, path)
    key = layout.report(task.digest, task.gate_hash, CANARY_FILE)
    data = path.read_bytes()
    if not artifacts.put(key, data, exclusive=True):
        data = artifacts.read(key)
        path.write_bytes(data)
        table = read_canary(path)
    described = ManifestFile(name=CANARY_FILE, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    return described, canary_recall(engine, table, task.k), table.num_rows


def _latency(engine: Engine, queries: npt.NDArray[np.float32], k: int) -> tuple[float, float, float]:
    """p50 and p95 of one query in milliseconds, and microseconds per query of a batch; one thread."""
    engine.search(queries[:1], k)
    seconds: list[float] = []
    deadline = time.perf_counter() + LATENCY_SECONDS
    for number in range(min(LATENCY_QUERIES, len(queries))):
        began = time.perf_counter()
        engine.search(queries[number : number + 1], k)
        seconds.append(time.perf_counter() - began)
        if time.perf_counter() > deadline:
            break
    p50, p95 = np.percentile(seconds, (50, 95))
    some = queries[:64]
    began = time.perf_counter()
    engine.search(some, k)
    return float(p50) * 1e3, float(p95) * 1e3, (time.perf_counter() - began) / len(some) * 1e6


def _report(
    task: ValidateTask,
    described: tuple[Manifest, str],
    engine: Engine,
    outcome: Outcome,
    latency: tuple[float, float, float],
    canary: tuple[ManifestFile, float, int],
) -> Report:
    manifest, manifest_sha256 = described
    everything = np.ones(len(outcome.queries.vectors), np.bool_)
    hits: Sequence[int] = np.bincount(
        np.rint(outcome.measured.recall * task.k).astype(np.int64), minlength=task.k + 1
    ).tolist()
    return Report(
        gate_hash=task.gate_hash,
        digest=task.digest,
        manifest_sha256=manifest_sha256,
        k=task.k,
        confidence=task.confidence,
        queries="held-out rows" if task.queries is None else _where(task),
        overall=_segment(task, outcome, "", everything),
        segments=_segments(task, outcome),
        ground_truth=outcome.truth_source,
        queries_by_hits=tuple(hits),
        params=manifest.default_point.params,
        p50_ms=latency[0],
        p95_ms=latency[1],
        batch_query_us=latency[2],
        count=engine.count,
        dimension=engine.dimension,
        embedding=manifest.embedding,
        factory=manifest.factory,
        index_type=manifest.index_type,
        frontier=manifest.frontier,
        resident_bytes=engine.resident_bytes,
        canary_queries=canary[2],
        canary_recall=canary[1],
        faiss_version=faiss.__version__,
        cpu_features=faiss.get_compile_options().strip(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files=(canary[0],),
    )


def _where(task: ValidateTask) -> str:
    assert task.queries is not None
    store = open_store(task.queries, Role.QUERIES)
    return store.describe(store.prefix)
