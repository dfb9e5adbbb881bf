"""`validate` of a sharded artifact: the recall of what a router would answer, with one shard in memory at a time.

    queries  a user's own; else held-out rows, of each shard some
    shard    its files are fetched, its engine is asked at the point that it is served with, its rows are scanned
    merge    the k best by the engines' scores, and the k nearest of all (merging.py)
    canary   some of the queries, asked of every shard as it is served (shard_canaries.py)

A held-out row is asked of its own shard's index as that was measured without it (measured.arrow), and of the others as
they are: it is in none of them. The sample of queries is independent, so the bound is that of any gate.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..artifact.layout import HELDOUT_FILE, MEASURED_FILE, SERVED_FILES, VECTORS_FILE, Layout, shard_canary_file
from ..artifact.manifest import Manifest, ManifestFile, load_manifest
from ..artifact.publish import download_verified
from ..artifact.sharded import ShardedManifest, find_sharded
from ..artifact.users import mark_used
from ..contract import SegmentRecall, ValidateResult, ValidateTask
from ..errors import BadData, BadSpec
from ..index.binding import faiss
from ..index.choose.tuning import batch_engine
from ..index.engine import Engine
from ..index.parameters import EXACT_TYPES
from ..index.vectors import VectorFile
from ..progress import step
from ..storage.store import Role, Store, open_store
from .bound import lower_bound
from .canary import publish_canary
from .columns import column_types, types_of_all
from .deleted import search_deleted
from .exact import Truth
from .groundtruth import ground_truth
from .measure import measure, scored_answers
from .measured import MeasuredFile, read_measured
from .merged_report import MergedReport, ShardFigures, find_merged, publish_merged
from .merging import Merger, ShardAnswers
from .queries import read_held_out, read_user_queries
from .same import rows_that_equal
from .shard_canaries import ShardCanaries
from .timing import latency

HELD_OUT = 2000
"""Held-out rows that are asked, of all shards together."""
_log = logging.getLogger(__name__)

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Whole:
    """What is measured. layout: of the whole."""

    task: ValidateTask
    store: Store
    layout: Layout
    manifest: ShardedManifest
    sha256: str

    def part(self, number: int) -> tuple[Layout, Manifest]:
        """Raises ChecksumMismatch where the part is not the one that the whole names."""
        layout = self.layout.of_shard(number)
        expected = self.manifest.shards[number].manifest_sha256
        return layout, load_manifest(self.store, layout, self.task.digest, expected)[0]


@dataclass(frozen=True, slots=True)
class _Questions:
    """n queries, as given."""

    vectors: npt.NDArray[np.float32]
    where: str
    owners: Rows
    """[n]: the shard whose row a held-out query is; -1 for a user's."""
    numbers: Rows
    """[n]: its number among the queries that judge there."""


def whole_of(task: ValidateTask) -> bool:
    """Whether the task is about a sharded artifact as a whole."""
    store = open_store(task.artifacts, Role.ARTIFACTS)
    if task.shard is not None:
        return False
    return find_sharded(store, Layout(store.prefix, task.identity), task.digest, task.manifest_sha256) is not None


def prove_merged(task: ValidateTask, work: Path | None = None) -> tuple[MergedReport, str]:
    """The published report of the task and its SHA-256; measured now unless it is there already.

    `work`: folder for one shard's files (default: the system's). Raises TaskError as `prove` does; BadSpec/NotOfShards.
    """
    _refuse_what_is_not_merged(task)
    store = open_store(task.artifacts, Role.ARTIFACTS)
    layout = Layout(store.prefix, task.identity)
    mark_used(store, layout, task.digest, task.cluster)  # before the manifest is read
    found = find_sharded(store, layout, task.digest, task.manifest_sha256)
    if found is None:
        raise BadSpec("NotSharded", f"the artifact {task.digest} is not sharded")
    whole = _Whole(task, store, layout, *found)
    known = find_merged(store, layout, task.digest, task.gate_hash)
    if known is not None and known[0].manifest_sha256 == whole.sha256:
        _log.info("already measured", extra={"gate": task.gate_hash})
        return known
    with tempfile.TemporaryDirectory(prefix="validate-", dir=work) as name:
        asked = _questions(whole, Path(name))
        metric, count = whole.manifest.embedding.metric, len(whole.manifest.shards)
        merger = Merger(asked.vectors, task.k, metric)
        canaries = ShardCanaries(asked.vectors, task.k, count, metric)
        shards, exact, deleted = [], True, 0
        for number in range(count):
            step(f"shard {number}")
            with tempfile.TemporaryDirectory(dir=name) as folder:  # disk of one shard
                figures, certain, listed, answered = _shard(whole, number, asked, merger, canaries, Path(folder))
            shards.append(figures)
            exact, deleted, tombstones = exact and certain, deleted + answered, listed
        files, tables = _publish_canaries(whole, canaries, Path(name))
    report = _report(whole, asked, merger.recall(), shards, exact=exact)
    proof = {"files": files, "canary_queries": len(canaries.numbers), "canary_recall": canaries.recall(tables)}
    report = report.model_copy(update={"tombstones": tombstones, "tombstoned_found": deleted, **proof})
    return publish_merged(store, layout, report)


def answer_merged(task: ValidateTask, report: MergedReport, sha256: str) -> ValidateResult:
    """What the operator is told of a published report; as task.answer."""
    store = open_store(task.artifacts, Role.ARTIFACTS)
    layout, types = Layout(store.prefix, task.identity), []
    for one in report.shards:
        there = layout.of_shard(one.shard)
        types.append(column_types(store, there, load_manifest(store, there, task.digest, one.manifest_sha256)[0]))
    return report.result(sha256, types_of_all(types))


def _publish_canaries(
    whole: _Whole, canaries: ShardCanaries, folder: Path
) -> tuple[tuple[ManifestFile, ...], list[pa.Table]]:
    """One for each shard: their files, and what is in them."""
    task, files, tables = whole.task, [], []
    for number, table in enumerate(canaries.tables()):
        path = folder / shard_canary_file(number)
        key = whole.layout.report(task.digest, task.gate_hash, path.name)
        file, stored = publish_canary(whole.store, key, table, whole.sha256, path)
        files.append(file)
        tables.append(stored)
    return tuple(files), tables


def _refuse_what_is_not_merged(task: ValidateTask) -> None:
    asked = {
        "segments": task.segments,
        "filters of queries": task.query_columns.filter,
        "labels of queries": task.query_columns.relevant,
        "live queries": task.live,
        "an encoder": task.encoder,
        "a cross-encoder": task.rerank,
    }
    if names := [name for name, value in asked.items() if value]:
        message = f"{', '.join(names)}: not measured of merged answers yet"
        raise BadSpec("NotOfShards", message, remedy="Leave them out, or measure one shard with --shard.")


def _questions(whole: _Whole, folder: Path) -> _Questions:
    task, manifest = whole.task, whole.manifest
    if task.queries is not None:
        place = open_store(task.queries, Role.QUERIES)
        given = read_user_queries(place, task.query_columns, whole.part(0)[1]).distinct(manifest.embedding.metric)
        none = np.full(len(given.vectors), -1)
        return _Questions(given.vectors, place.describe(place.prefix), none, none)
    most = -(-HELD_OUT // len(manifest.shards))
    vectors, owners, numbers = [np.empty((0, manifest.dimension), np.float32)], [], []
    for number in range(len(manifest.shards)):
        layout, part = whole.part(number)
        names = (HELDOUT_FILE, MEASURED_FILE)
        there = download_verified(whole.store, layout, part, folder, names)
        rows = read_measured(there / MEASURED_FILE).asked.rows
        shown = read_held_out(there / HELDOUT_FILE)
        if not len(rows):
            continue  # too few rows to leave some out: its index is asked the others' all the same
        order = np.argsort(shown.own_rows, kind="stable")  # measured.arrow has them by row
        if not np.array_equal(shown.own_rows[order], rows):
            raise BadData("BadArtifact", f"{HELDOUT_FILE} and {MEASURED_FILE} of shard {number} name other rows")
        some = np.sort(np.random.default_rng(number).permutation(len(rows))[:most])
        vectors.append(shown.vectors[order[some]])
        owners.append(np.full(len(some), number))
        numbers.append(some)
    none = np.empty(0, np.int64)
    return _Questions(
        np.concatenate(vectors), "held-out rows", np.concatenate([none, *owners]), np.concatenate([none, *numbers])
    )


def _shard(
    whole: _Whole, number: int, asked: _Questions, merger: Merger, canaries: ShardCanaries, folder: Path
) -> tuple[ShardFigures, bool, int, int]:
    """Ask one shard and merge it in: its figures, whether its index is exact by its kind, how many deleted ids are
    listed, and how many it answered."""
    task = whole.task
    layout, manifest = whole.part(number)
    names = (*SERVED_FILES, VECTORS_FILE, *(() if task.queries else (MEASURED_FILE,)))
    there = download_verified(whole.store, layout, manifest, folder, names)
    engine = Engine.open(there, manifest)
    with VectorFile(there / VECTORS_FILE, manifest.embedding.metric) as vectors:
        found, served, own = _answers(whole, number, engine, vectors, asked, canaries.numbers, there)
        merger.add(found, vectors)
        canary_recall = canaries.add(served, own, vectors)
        recall = measure(found.truth, found.rows, vectors, asked.vectors).recall
    deleted = search_deleted(engine, there / VECTORS_FILE, task)
    times = latency(engine, asked.vectors, task.k, 1) if len(asked.vectors) else None
    figures = ShardFigures(
        shard=number,
        manifest_sha256=whole.manifest.shards[number].manifest_sha256,
        count=manifest.count,
        recall=float(recall.mean()) if len(recall) else 0.0,
        canary_recall=canary_recall,
        params=dict(engine.default_params),
        p50_ms=times.p50_ms if times else 0.0,
        p95_ms=times.p95_ms if times else 0.0,
        latency_us=manifest.default_point.latency_us,
        resident_bytes=manifest.resident_bytes,
    )
    return figures, manifest.index_type in EXACT_TYPES, deleted.listed, deleted.found


def _answers(
    whole: _Whole, number: int, engine: Engine, vectors: VectorFile, asked: _Questions, canary: Rows, folder: Path
) -> tuple[ShardAnswers, ShardAnswers, Rows]:
    """What the shard answers: to its own held-out rows as the index without them did. And what it answers to the
    queries `canary` as it is served, where a row is no answer to itself: with the row that each of them is, or -1."""
    task, k = whole.task, whole.task.k
    own = np.full(len(asked.vectors), -1)
    if task.queries is not None:
        own = rows_that_equal(vectors, asked.vectors)
    file = engine.manifest.file(VECTORS_FILE)
    assert file is not None  # it was downloaded

    def ask(queries: Rows) -> ShardAnswers:
        given = asked.vectors[queries]
        truth, _ = ground_truth(whole.store, whole.layout, vectors, file.sha256, given, k, own[queries])
        return ShardAnswers(*scored_answers(batch_engine(engine), given, k, own[queries]), truth)

    theirs = np.flatnonzero(asked.owners != number)
    mine = np.flatnonzero(asked.owners == number)
    found = ask(theirs)
    if not len(mine):
        return found, found.of(canary), own[canary]
    measured = read_measured(folder / MEASURED_FILE)
    own[mine] = measured.asked.rows[asked.numbers[mine]]
    held_out = _of_own(measured, vectors, k, asked.numbers[mine])
    at, there = (np.flatnonzero(np.isin(canary, some)) for some in (theirs, mine))
    served = found.of(np.searchsorted(theirs, canary[at]))
    if len(there):
        served = _together(served, at, ask(canary[there]), there)
    return _together(found, theirs, held_out, mine), served, own[canary]


def _of_own(measured: MeasuredFile, vectors: VectorFile, k: int, numbers: Rows) -> ShardAnswers:
    """Raises BadSpec/NotAsked where the build did not ask for k answers."""
    asked = measured.asked
    if k not in asked.scores:
        known = ", ".join(map(str, sorted(asked.scores)))
        message = f"held-out rows were asked for {known} answers when the shards were built, and not for {k}"
        raise BadSpec("NotAsked", message, field="-k", remedy="Take one of these, or give --queries.")
    return ShardAnswers(asked.scores[k][numbers], asked.answers[k][numbers], measured.truth(vectors, k).of(numbers))


def _together(one: ShardAnswers, at: Rows, other: ShardAnswers, there: Rows) -> ShardAnswers:
    """The answers to the queries `at` and `there`, which are all."""
    count, k = len(at) + len(there), one.truth.k
    width = max(one.truth.rows.shape[1], other.truth.rows.shape[1])
    scores, rows = np.full((count, k), -np.inf, np.float32), np.full((count, k), -1, np.int64)
    near, nears = np.full((count, width), -1, np.int64), np.full((count, width), -np.inf)
    flat = {name: np.zeros(count, getattr(one.truth, name).dtype) for name in ("available", "threshold", "nearest")}
    for part, numbers in ((one, at), (other, there)):
        scores[numbers], rows[numbers] = part.scores, part.rows
        near[numbers, : part.truth.rows.shape[1]] = part.truth.rows
        nears[numbers, : part.truth.rows.shape[1]] = part.truth.scores
        for name, values in flat.items():
            values[numbers] = getattr(part.truth, name)
    return ShardAnswers(scores, rows, Truth(k, near, nears, **flat))


def _report(
    whole: _Whole, asked: _Questions, recall: npt.NDArray[np.float64], shards: list[ShardFigures], *, exact: bool
) -> MergedReport:
    task, manifest = whole.task, whole.manifest
    certain = exact and bool(len(recall)) and bool((recall == 1).all())
    hits = np.bincount(np.rint(recall * task.k).astype(np.int64), minlength=task.k + 1)
    overall = SegmentRecall(
        queries=len(recall),
        recall=float(recall.mean()) if len(recall) else 0.0,
        recall_low=1.0 if certain else lower_bound(recall, task.sure),
    )
    return MergedReport(
        gate_hash=task.gate_hash,
        digest=task.digest,
        manifest_sha256=whole.sha256,
        k=task.k,
        confidence=task.sure,
        queries=asked.where,
        floor=task.floor,
        overall=overall,
        queries_by_hits=tuple(hits.tolist()),
        shards=tuple(shards),
        count=manifest.count,
        dimension=manifest.dimension,
        embedding=manifest.embedding,
        factory=manifest.factory,
        faiss_version=faiss.__version__,
        cpu_features=faiss.get_compile_options().strip(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
