"""`build`: from a listed source to a published artifact, in a single pass over the source.

    read    stream the source once: check rows, write ids, metadata and vectors.npy (of texts: texts.py)
    choose  the kind of index, under Auto, on a sample of vectors.npy
    draw    rows that are left out while the index is measured (left_out.py); they become the last of every file
    train   on a uniform sample of the other rows, or go on from a checkpoint
    add     the other rows from vectors.npy, in blocks
    tune    operating points on some left-out rows, through the engine that will serve; ask the others
    add     the left-out rows
    publish files, then the manifest if there is none

An index that was built elsewhere (index.import) is put in the place of choose, draw, train and add (imported.py).

Memory: build/budget.py. Disk: the artifact, and ids or metadata once more while rows are moved. Idempotent: a published
digest is answered, not rebuilt.
"""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata as package_metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..artifact.layout import (
    HELDOUT_FILE,
    IDS_FILE,
    INDEX_FILE,
    MEASURED_FILE,
    METADATA_FILE,
    SERVED_FILES,
    VECTORS_FILE,
    Layout,
)
from ..artifact.manifest import Manifest, find_manifest
from ..artifact.publish import own_attempt, publish
from ..artifact.ranges import Hashed, hash_file, write_ranges
from ..artifact.users import mark_used
from ..contract import ASKED_KS, BuildResult, BuildTask, OperatingPoint
from ..errors import BadSpec
from ..index import heap
from ..index.binding import faiss
from ..index.choose.auto import AUTO
from ..index.choose.choice import Choice
from ..index.choose.tuning import K, Tuning
from ..index.device import DeviceFallback, pick_device
from ..index.engine import read_index
from ..index.factory import make_index, training_rows
from ..index.memory import footprint
from ..index.parameters import index_type, is_exact
from ..index.selection.subset import restricted_bytes
from ..index.vectors import VectorFile
from ..progress import step
from ..proof.canary import canary_numbers
from ..proof.exact import Truth
from ..proof.groundtruth import ground_truth
from ..proof.measured import write_measured
from ..proof.queries import write_held_out
from ..storage.store import Role, Store, open_store, require_exclusive_put
from . import CHECKPOINT_AFTER_SECONDS, budget, imported, recipe
from .by_plan import planned
from .checkpoint import Checkpoints
from .fill import Order, hash_rows, write_index
from .given import Given, of_source, vectors_of
from .held_out import SEED, Builder, Built, Questions, build_measured, questions, shown_rows, with_published
from .left_out import MAX_FOLDS, LeftOut, draw_left_out
from .reorder import move_last

HELD_OUT = 1000
"""Queries of the gate, and as many others for tuning; half of that where it would be more than 5 % of the rows."""
_log = logging.getLogger(__name__)


def build(
    task: BuildTask, work: Path | None = None, *, checkpoint_after_seconds: float = CHECKPOINT_AFTER_SECONDS
) -> BuildResult:
    """Build and publish, or answer from the manifest that is there.

    work: folder for temporary files (default: the system's). checkpoint_after_seconds: training that took this long is
    kept until the artifact is published, for the build that comes after a preempted one. Raises TaskError: BadSpec,
    BadData, SourceMissing, SourceChanged, StoreUnavailable, Retry; MemoryError.
    """
    began = time.monotonic()
    artifacts = open_store(task.artifacts, Role.ARTIFACTS)
    layout = Layout(artifacts.prefix, task.identity)
    mark_used(artifacts, layout, task.digest, task.cluster)  # before the manifest is read
    part = None if task.shard is None else planned(artifacts, layout, task.digest, task.shard)
    if part is not None:
        task, layout = part.of_it(task), part.layout
    checkpoints = Checkpoints(artifacts, layout, task.digest, checkpoint_after_seconds)
    if published := find_manifest(artifacts, layout, task.digest):
        _log.info("already published", extra={"digest": task.digest})
        checkpoints.discard()
        return _result(*published, task, reused=True)
    task = task.model_copy(update={"attempt": own_attempt(task.attempt)})
    require_exclusive_put(artifacts, layout.probe(task.digest, task.attempt))
    fallback = pick_device(task.device, task.device_reason)
    source = of_source(task, artifacts, layout) if part is None else part.given()
    metric = task.embedding.metric
    recipe.check(task.index, source.rows, source.dimension, metric, hides=task.tombstones is not None)
    if task.index.factory != AUTO:
        _training_rows(task, source, task.index.factory)  # refused before the source is read
    with tempfile.TemporaryDirectory(prefix="build-", dir=work) as name:
        folder = Path(name)
        texts = source.stage(folder)
        found = source.imported(folder)
        if found is None:
            step("choosing")
            choice = recipe.decide(task.index, folder, metric, task.memory_limit_bytes)
        else:
            choice = Choice(imported.FACTORY, (), "")
        ef_construction = choice.ef_construction if part is None else part.plan.ef_construction
        order = Order(
            factory=choice.factory,
            metric=metric,
            rows=source.rows,
            dimension=source.dimension,
            sample=np.empty(0, np.int64),
            fingerprints=(source.fingerprint, source.tombstones),
            vector_column=vectors_of(task, source.dimension),
            ef_construction=ef_construction,
        )
        if found is None:
            training = _training_rows(task, source, choice.factory)
            plan = _left_out(order, folder, source.fingerprint, fallback, _most_folds(task, order, training))
            order = replace(order, moved=hash_rows(plan.moved) if len(plan.moved) else "")
        else:
            training, plan = 0, LeftOut()
        shape = {"rows": source.rows, "dimension": source.dimension}
        _log.info("building", extra={**shape, "factory": choice.factory, "trainingRows": training})
        builder = Builder(folder, order, training, fallback, checkpoints, found)
        bare = _bare(task, source, choice.factory)
        bare = bare if part is None else part.marked(bare)
        vectors = hash_file(folder / VECTORS_FILE)  # from here on it stays as it is
        tuned = _built(builder, plan, bare, task, (artifacts, layout), vectors.file.sha256)
        manifest = _with_files(bare, task, folder, fallback, vectors).model_copy(
            update={
                "default_point": tuned.default,
                "conservative_point": tuned.conservative,
                "frontier": tuned.frontier,
                "ef_construction": ef_construction,
                "candidates": choice.candidates,
                "tombstones": source.tombstones,
                "deleted": source.deleted,
                "texts": texts,
                "duration_seconds": round(time.monotonic() - began, 3),
                "peak_memory_bytes": peak_memory(),
            }
        )
        step("publishing")
        published_manifest, sha256, ours = publish(artifacts, layout, manifest, folder)
        if part is not None:
            part.must_be_ours(published_manifest)
    checkpoints.discard()
    return _result(published_manifest, sha256, task, reused=not ours)


def _training_rows(task: BuildTask, source: Given, factory: str) -> int:
    """Rows of the training sample. Raises BadSpec/NotEnoughMemory when the pod cannot hold the build."""
    empty = make_index(factory, source.rows, source.dimension, task.embedding.metric)
    rows = training_rows(empty, source.rows, task.memory_limit_bytes)
    if size := footprint(empty, source.rows):
        budget.require(task.memory_limit_bytes, size.resident, budget.sample_bytes(rows, source.dimension))
    return rows


def _most_folds(task: BuildTask, order: Order, training: int) -> int:
    """How many indexes the pod's memory holds at once, when they are measured."""
    size = footprint(order.empty(), order.rows)
    if not task.memory_limit_bytes or size is None:
        return MAX_FOLDS
    one = budget.INTERPRETER_BYTES + budget.peak_bytes(size.resident, budget.sample_bytes(training, order.dimension))
    return 1 + max(0, task.memory_limit_bytes - one) // max(1, size.resident)


def _left_out(order: Order, folder: Path, fingerprint: str, fallback: DeviceFallback, folds: int) -> LeftOut:
    """The rows to measure with, the last of the staged files where there is one fold; none for an exact index."""
    if is_exact(order.empty()):
        return LeftOut()
    step("drawing")
    with VectorFile(folder / VECTORS_FILE, order.metric) as vectors:
        plan = draw_left_out(vectors, HELD_OUT, fingerprint, fallback)
    return move_last(folder, order.rows, plan.fewer(folds))


def _built(
    builder: Builder,
    plan: LeftOut,
    bare: Manifest,
    task: BuildTask,
    place: tuple[Store, Layout],
    vectors_sha256: str,
) -> Tuning:
    """Write index.faiss, measured.arrow and heldout.arrow; the operating points. The index is out of memory then."""
    folder, order = builder.folder, builder.order

    def find(vectors: VectorFile, queries: npt.NDArray[np.float32], k: int, own: npt.NDArray[np.int64]) -> Truth:
        truth, source = ground_truth(*place, vectors, vectors_sha256, queries, k, own, fallback=builder.fallback)
        _log.info("ground truth", extra={"source": source, "queries": len(queries), "k": k})
        return truth

    ks = sorted({*ASKED_KS, task.gate_k or K})

    def measured(plan: LeftOut) -> Built:
        step("scanning")
        exact = is_exact(order.empty() if builder.imported is None else builder.imported)
        parts = questions(folder, order, plan, find, _inside(order.rows, exact=exact), max(ks))
        with VectorFile(folder / VECTORS_FILE, order.metric) as vectors:
            rows = shown_rows(parts)
            rows = rows[canary_numbers(len(rows))]
            queries = vectors.gather(rows, prepared=False)
            canary = Questions(rows, queries, find(vectors, queries, max(ks), rows))
        built = build_measured(builder, plan, parts, bare, task.index, ks)
        return with_published(folder, built, bare, canary, ks)

    try:
        built = measured(plan)
    except BadSpec as error:
        if error.reason != "CannotTrain" or not plan.folds:
            raise
        _log.warning("nothing can be left out: all rows are needed for training", extra={"failure": str(error)})
        built = measured(LeftOut())
    write_index(built.index, folder)
    tuned, found = built.tuned, built.measured
    del built
    heap.release()
    write_measured(folder / MEASURED_FILE, found)
    shown = found.asked.rows if len(found.asked.rows) else found.tuning
    with VectorFile(folder / VECTORS_FILE, order.metric) as vectors:
        write_held_out(folder / HELDOUT_FILE, shown, vectors.gather(shown, prepared=False))
    return tuned


def _inside(rows: int, *, exact: bool) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows to tune and to judge with where none is left out: an exact index is judged by them, another one by none."""
    drawn = np.random.default_rng(SEED).choice(rows, min(2 * HELD_OUT, rows), replace=False)
    judging = drawn[-HELD_OUT:] if exact else drawn[:0]
    return np.sort(drawn[:HELD_OUT]), np.sort(judging)


def _bare(task: BuildTask, source: Given, factory: str) -> Manifest:
    """The manifest without what is known only once the index is there."""
    return Manifest(
        digest=task.digest,
        attempt=task.attempt,
        identity=task.identity,
        fingerprint=source.fingerprint,
        embedding=task.embedding.model_copy(update={"dimension": source.dimension}),
        dimension=source.dimension,
        count=source.rows,
        vector_dtype="float16" if source.half else "float32",
        id_type="string" if source.text_ids else "int64",
        metadata_columns=task.columns.metadata,
        reconstructed=task.columns.bare or None,
        factory=factory,
        index_type="",
        default_point=OperatingPoint(recall=0.0, recall_low=0.0, latency_us=0.0),
        faiss_version=faiss.__version__,
        cpu_features=faiss.get_compile_options().strip(),
        builder_version=package_metadata.version("vectorindex-operator"),
        device=task.device,
        duration_seconds=0.0,
        peak_memory_bytes=0,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files=(),
    )


def _with_files(bare: Manifest, task: BuildTask, folder: Path, fallback: DeviceFallback, vectors: Hashed) -> Manifest:
    names = [INDEX_FILE, IDS_FILE, HELDOUT_FILE, MEASURED_FILE, *([METADATA_FILE] if task.columns.metadata else [])]
    hashed = [vectors, *(hash_file(folder / name) for name in names)]
    ranges = write_ranges(folder, sorted(hashed, key=lambda one: one.file.name not in SERVED_FILES))
    # As it is after a round trip: FAISS reads IndexFlat back as IndexFlatL2.
    index = read_index(folder / INDEX_FILE)
    size = footprint(index, index.ntotal)
    return bare.model_copy(
        update={
            "index_type": index_type(index),
            "computed_bytes": (size.tables if size else 0) + restricted_bytes(index),
            "device": fallback.device,
            "device_reason": fallback.reason,
            "files": (*(one.file for one in hashed), *ranges),
        }
    )


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes. Not ru_maxrss, which begins with the peak of the parent."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM:"))


def _result(manifest: Manifest, sha256: str, task: BuildTask, *, reused: bool) -> BuildResult:
    index, vectors = manifest.file(INDEX_FILE), manifest.file(VECTORS_FILE)
    assert index is not None
    reached = manifest.default_point.recall >= task.index.objective.recall
    if not reached and not task.index.search_params:
        facts = {"recall": manifest.default_point.recall, "objective": task.index.objective.recall}
        _log.warning("the objective is not reached by any search parameters", extra=facts)
    return BuildResult(
        digest=manifest.digest,
        attempt=manifest.attempt,
        manifest_sha256=sha256,
        fingerprint=manifest.fingerprint,
        count=manifest.count,
        dimension=manifest.dimension,
        factory=manifest.factory,
        device=manifest.device,
        device_reason=manifest.device_reason,
        duration_seconds=manifest.duration_seconds,
        peak_memory_bytes=manifest.peak_memory_bytes,
        index_bytes=index.size,
        resident_bytes=manifest.resident_bytes,
        vectors_bytes=vectors.size if vectors else None,
        faiss_version=manifest.faiss_version,
        default_point=manifest.default_point,
        conservative_point=manifest.conservative_point,
        texts=manifest.texts,
        objective_reached=None if task.index.search_params else reached,
        reused=reused,
    )
