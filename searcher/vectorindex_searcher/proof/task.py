"""`validate`: measure an artifact against exact search, through the engine and the parameters that will serve.

Judges nothing: the operator compares the figures with the gate. Idempotent: a report that is there is answered.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..artifact.layout import CANARY_FILE, HELDOUT_FILE, MEASURED_FILE, SERVED_FILES, VECTORS_FILE, Layout
from ..artifact.live_queries import forget
from ..artifact.manifest import Manifest, ManifestFile, load_manifest
from ..artifact.publish import download_verified
from ..artifact.sharded import own_sha256
from ..artifact.users import mark_used
from ..contract import SAME_AS_A_ROW, WITH_A_FILTER, SegmentRecall, ValidateResult, ValidateTask
from ..errors import RetryableError
from ..index.binding import faiss
from ..index.choose.tuning import batch_engine
from ..index.engine import Engine
from ..index.parameters import EXACT_TYPES
from ..index.vectors import VectorFile
from ..storage.store import Role, open_store
from .as_built import as_built
from .bound import lower_bound
from .canary import canary_numbers, canary_recall, make_canary, publish_canary
from .case import Case, MeasuredCase, Published
from .columns import column_types
from .deleted import search_deleted
from .encoder import ProvenEncoder, prove_encoder
from .exact import Truth, no_truth, spread
from .filtered import filtered_recall
from .filtered_queries import JUDGED_SHARE, ask_filtered, check_filterable
from .live.judge import Live, LiveQueries, live_queries
from .live.kept import KeptQueries
from .measure import NO_PARAMS, Measured, measure, reciprocal_rank, right_answers, served_answers
from .page import page
from .points import split
from .queries import Queries, read_held_out, read_user_queries
from .query_filters import columns_of
from .report import BatchLatency, FilteredRecall, Report, load_report, publish_report
from .reranking import measure_reranked
from .same import marks, rows_that_equal
from .timing import latencies, open_measured

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cost:
    """What searching costs here."""

    latency: tuple[BatchLatency, ...]
    resident: int | None


def validate(task: ValidateTask, work: Path | None = None) -> ValidateResult:
    """Tune segments, measure, publish report and what it names, answer. See `prove`."""
    report, sha256 = prove(task, work)
    return answer(task, report, sha256)


def answer(task: ValidateTask, report: Report, sha256: str) -> ValidateResult:
    """What the operator is told of a published report."""
    artifacts = open_store(task.artifacts, Role.ARTIFACTS)
    layout = Layout(artifacts.prefix, task.identity, task.shard)
    own = own_sha256(artifacts, layout, task.digest, task.manifest_sha256)
    manifest, _ = load_manifest(artifacts, layout, task.digest, own)
    return report.result(sha256, column_types(artifacts, layout, manifest))


def prove(task: ValidateTask, work: Path | None = None) -> tuple[Report, str]:
    """The published report of the task and its SHA-256; measured now unless it is there already.

    `work`: folder for the downloaded artifact (default: the system's). Raises TaskError: ChecksumMismatch, BadArtifact,
    SourceMissing (queries), BadData (queries), StoreUnavailable.
    """
    artifacts = open_store(task.artifacts, Role.ARTIFACTS)
    layout = Layout(artifacts.prefix, task.identity, task.shard)
    mark_used(artifacts, layout, task.digest, task.cluster)  # before the manifest is read
    own = own_sha256(artifacts, layout, task.digest, task.manifest_sha256)
    case = Case(task, artifacts, layout, *load_manifest(artifacts, layout, task.digest, own))
    manifest = case.manifest
    if (known := _known(case)) is not None:
        forget(artifacts, layout)
        return known
    found = _live_queries(case)
    with tempfile.TemporaryDirectory(prefix="validate-", dir=work) as name:
        names = (*SERVED_FILES, VECTORS_FILE, *(() if task.queries else (HELDOUT_FILE, MEASURED_FILE)))
        folder = download_verified(artifacts, layout, manifest, Path(name), names)
        queries = _queries(task, manifest, folder)
        engine, resident = open_measured(folder, manifest, queries.vectors, task.k)
        with VectorFile(folder / VECTORS_FILE, manifest.embedding.metric) as vectors:
            given = queries.vectors[~queries.filtered] if task.queries else None
            case = replace(case, live=None if found is None else Live.of(found, vectors, task, given))
            if not task.queries and manifest.file(MEASURED_FILE) is not None:
                outcome = as_built(case, engine, vectors, queries, folder)
            else:
                if queries.filtered.any():
                    check_filterable(engine)
                if task.queries:
                    queries = queries.with_own(rows_that_equal(vectors, queries.vectors))
                outcome = _measure(case, engine, vectors, queries, Path(name))
            engine = engine.with_default(outcome.points.default.params)
            few_rows = filtered_recall(engine, vectors, queries, task.k, task.sure, outcome.few_rows)
            live = None if case.live is None else case.live.measured(engine, vectors, outcome.points, task)
            encoder = None if task.encoder is None else prove_encoder(task.encoder, engine, vectors, Path(name))
        canary = _canary(case, engine, outcome, folder)
        cost = Cost(latencies(engine, queries.vectors, task.k), resident)
        deleted = search_deleted(engine, folder / VECTORS_FILE, task)
    report = _report(case, engine, outcome, cost, canary, few_rows).model_copy(
        update={
            "tombstones": deleted.listed,
            "tombstoned_in_index": deleted.in_index,
            "tombstoned_found": deleted.found,
            "live": live,
        }
    )
    if encoder is not None:
        report = _with_encoder(case, report, encoder)
    published = publish_report(artifacts, layout, report, page)
    forget(artifacts, layout)
    return published


def _with_encoder(case: Case, report: Report, encoder: ProvenEncoder) -> Report:
    """Publish what pods compare their encoder with; one of an earlier try says the same, and gives way."""
    case.store.put(case.layout.report(case.task.digest, case.task.gate_hash, encoder.file.name), encoder.data)
    return report.model_copy(update={"encoder": encoder.proof, "files": (*report.files, encoder.file)})


def _live_queries(case: Case) -> LiveQueries | None:
    """What stable's users ask, if the task wants to know; and what other Jobs left of theirs is removed."""
    task, manifest = case.task, case.manifest
    forget(case.store, case.layout, task.digest if task.live is not None else "")
    if task.live is None:
        return None
    metric = manifest.embedding.metric
    kept = KeptQueries(case.store, case.layout, task.digest, manifest.dimension, metric)
    return live_queries(task, kept, manifest.dimension, metric)


def _known(case: Case) -> tuple[Report, str] | None:
    """The report that is there, if it is about this manifest: an artifact that was built again has other rows."""
    try:
        report, sha256 = load_report(case.store, case.layout, case.task.digest, case.task.gate_hash)
    except RetryableError as error:
        if error.reason != "ReportNotFound":
            raise
        return None
    if report.manifest_sha256 != case.manifest_sha256:
        _log.warning("measured anew: the report there is of another manifest", extra={"gate": case.task.gate_hash})
        return None
    _log.info("already measured", extra={"gate": case.task.gate_hash})
    return report, sha256


def _queries(task: ValidateTask, manifest: Manifest, folder: Path) -> Queries:
    if task.queries is None:
        return read_held_out(folder / HELDOUT_FILE)
    known = columns_of(folder, manifest) if task.query_columns.filter else None
    given = read_user_queries(open_store(task.queries, Role.QUERIES), task.query_columns, manifest, known)
    queries = given.distinct(manifest.embedding.metric)
    if copies := len(given.vectors) - len(queries.vectors):
        _log.warning(
            "queries that were given more than once count once", extra={"queries": len(given.vectors), "copies": copies}
        )
    return queries


def _measure(case: Case, engine: Engine, vectors: VectorFile, queries: Queries, work: Path) -> MeasuredCase:
    """Tune and ask. Queries with a filter do neither tune nor mix with the others. work: a folder for models."""
    task, filtered = case.task, queries.filtered
    count, plain = len(queries.vectors), np.flatnonzero(~filtered)
    asked = queries.of(plain)
    truth, source = case.truth(vectors, asked, task.k) if len(plain) else (no_truth(task.k), "computed")
    targets = task.segment_targets if engine.param_limits else {}
    tunes = task.objective is not None and bool(engine.param_limits) and task.queries is not None
    apart = (queries.own_rows >= 0) | filtered if task.queries is not None else None
    halves = split(queries.segments, marks(queries.vectors, vectors.metric), targets, apart, everything=tunes)
    whole = spread(truth, plain, count)
    points, points_file = case.publish_points(case.tuned(engine, vectors, queries, whole, halves))
    everything = batch_engine(engine.with_default(points.default.params))
    rows = np.full((count, task.k), -1, np.int64)
    rows[plain] = served_answers(everything, asked.vectors, task.k, asked.own_rows, asked.segments, points.params)
    measured = measure(whole, rows, vectors, queries.vectors)
    published = _published(case, everything, vectors, asked, truth, measured.of(plain), queries)
    if filtered.any():
        found = ask_filtered(everything, vectors, queries, task.k, points.params)
        rows[found.numbers] = found.rows
        measured = measured.with_part(found.numbers, found.measured)
        halves = halves.with_filtered(np.flatnonzero(queries.own_rows >= 0), np.flatnonzero(filtered), found.numbers)
    relevance, reranked = None, None
    if queries.relevant is not None:
        relevance = reciprocal_rank(right_answers(engine, rows, queries.relevant))
        if task.rerank is not None and queries.texts is not None:
            reranked = measure_reranked(task.rerank, everything, queries, rows, halves, points.params, work)
            relevance = reranked.relevance  # what users get
    exact = engine.manifest.index_type in EXACT_TYPES
    return MeasuredCase(
        queries, truth, source, halves, points, points_file, measured, relevance, published, exact, reranked=reranked
    )


def _published(
    case: Case, engine: Engine, vectors: VectorFile, asked: Queries, truth: Truth, measured: Measured, queries: Queries
) -> Published:
    """What the canary is made of: the queries without a filter, since pods ask it without one. Where all have one, some
    of them are asked without."""
    if len(asked.vectors):
        return Published(asked, truth, measured)
    some = replace(queries.of(canary_numbers(len(queries.vectors))), filters=None, segments=None)
    truth, _ = case.truth(vectors, some, case.task.k)
    rows = served_answers(engine, some.vectors, case.task.k, some.own_rows, None, NO_PARAMS)
    return Published(some, truth, measure(truth, rows, vectors, some.vectors))


def _segment(task: ValidateTask, outcome: MeasuredCase, name: str, chosen: npt.NDArray[np.int64]) -> SegmentRecall:
    """Figures of the chosen queries."""
    recall = outcome.measured.recall[chosen]
    if not len(recall):
        return SegmentRecall(segment=name, queries=0, recall=0.0, recall_low=0.0)
    certain = outcome.exact and bool((recall == 1).all())
    relevance_mrr = None
    if outcome.relevance is not None and outcome.queries.relevant is not None:
        labelled = [number for number in chosen if outcome.queries.relevant[number]]
        known = outcome.relevance[labelled]
        known = known[~np.isnan(known)]
        relevance_mrr = float(known.mean()) if len(known) else None
    return SegmentRecall(
        segment=name,
        queries=len(recall),
        recall=float(recall.mean()),
        recall_low=1.0 if certain else lower_bound(recall, task.sure),
        mrr=float(outcome.measured.reciprocal_rank[chosen].mean()),
        relevance_mrr=relevance_mrr,
    )


def _segments(task: ValidateTask, outcome: MeasuredCase) -> tuple[SegmentRecall, ...]:
    """One row per declared segment that has queries, since figures of none would be a lie; one of the queries that
    equal a row, and one of the others that have a filter."""
    judging, apart, filtered = outcome.halves.judging, outcome.halves.apart, outcome.halves.filtered
    found = [_segment(task, outcome, name, judging[name]) for name in task.segments if name in judging]
    if len(apart):
        found.append(_segment(task, outcome, SAME_AS_A_ROW, apart))
    if len(filtered):
        row = _segment(task, outcome, WITH_A_FILTER, filtered)
        few = outcome.queries.filtered.mean() <= JUDGED_SHARE
        found.append(row.model_copy(update={"judged": False}) if few else row)
    return tuple(found)


def _canary(case: Case, engine: Engine, outcome: MeasuredCase, folder: Path) -> tuple[ManifestFile, float, int]:
    """Publish canary.arrow; its description, the recall on exactly its queries, and their number.

    Measured on the published files, which hold the rows that the gate's figures were measured without. A canary of
    this manifest that is there already (an earlier try died before its report) is kept, and measured as it is.
    """
    task, asked = case.task, outcome.canary
    hits = np.rint(asked.measured.recall * asked.truth.available).astype(np.int64)
    table = make_canary(asked.queries.vectors, asked.queries.own_rows, asked.truth, hits, asked.queries.segments)
    key = case.layout.report(task.digest, task.gate_hash, CANARY_FILE)
    file, table = publish_canary(case.store, key, table, case.manifest_sha256, folder / CANARY_FILE)
    return file, canary_recall(engine, table, task.k, outcome.points.params), table.num_rows


def _report(
    case: Case,
    engine: Engine,
    outcome: MeasuredCase,
    cost: Cost,
    canary: tuple[ManifestFile, float, int],
    filtered: tuple[FilteredRecall, ...],
) -> Report:
    task, manifest = case.task, case.manifest
    judged = outcome.halves.overall
    hits = np.bincount(np.rint(outcome.measured.recall[judged] * task.k).astype(np.int64), minlength=task.k + 1)
    single, *_, largest = cost.latency
    return Report(
        gate_hash=task.gate_hash,
        digest=task.digest,
        manifest_sha256=case.manifest_sha256,
        k=task.k,
        confidence=task.sure,
        queries="held-out rows" if task.queries is None else _where(task),
        held_out=outcome.held_out,
        other_k=outcome.other_k,
        floor=task.floor,
        overall=_segment(task, outcome, "", judged),
        segments=_segments(task, outcome),
        truth="Reconstructions" if manifest.reconstructed else None,
        ground_truth=outcome.truth_source,
        queries_by_hits=tuple(hits.tolist()),
        params=outcome.points.default.params,
        default_point=outcome.points.default,
        conservative_point=manifest.conservative_point,
        points=outcome.points.segments,
        p50_ms=single.p50_ms,
        p95_ms=single.p95_ms,
        batch_query_us=largest.query_us,
        cost_us=_cost(outcome),
        latency=cost.latency,
        filtered=filtered,
        count=engine.count,
        dimension=engine.dimension,
        embedding=manifest.embedding,
        factory=manifest.factory,
        index_type=manifest.index_type,
        frontier=manifest.frontier,
        candidates=manifest.candidates,
        resident_bytes=engine.resident_bytes,
        resident_measured_bytes=cost.resident,
        canary_queries=canary[2],
        canary_recall=canary[1],
        rerank=None if outcome.reranked is None else outcome.reranked.proof,
        faiss_version=faiss.__version__,
        cpu_features=faiss.get_compile_options().strip(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files=(canary[0], outcome.points_file),
    )


def _cost(outcome: MeasuredCase) -> float:
    """Mean CPU time of a query, microseconds, by what tuning measured of the point that answers it."""
    own = {row.segment: row.point for row in outcome.points.segments}
    counts = {name: len(numbers) for name, numbers in outcome.halves.judging.items()} or {"": 1}
    spent = sum(count * own.get(name, outcome.points.default).latency_us for name, count in counts.items())
    return spent / sum(counts.values())


def _where(task: ValidateTask) -> str:
    assert task.queries is not None
    store = open_store(task.queries, Role.QUERIES)
    return store.describe(store.prefix)
