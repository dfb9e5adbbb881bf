"""`build`: from a listed source to a published artifact, in a single pass over the source.

    read    stream the source once: check rows, write ids, metadata and vectors.npy
    choose  the kind of index, under Auto, on a sample of vectors.npy
    train   on a uniform sample of vectors.npy, or go on from a checkpoint
    add     the rows from vectors.npy, in blocks
    tune    operating points on held-out rows, through the engine that will serve
    publish files, then the manifest if there is none

Memory: building/budget.py. Disk: the artifact. Idempotent: a published digest is answered, not rebuilt.
"""

from __future__ import annotations

import logging
import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata as package_metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..artifact.layout import HELDOUT_FILE, IDS_FILE, INDEX_FILE, METADATA_FILE, VECTORS_FILE, Layout
from ..artifact.manifest import Manifest, describe_file, find_manifest
from ..artifact.publish import publish
from ..contract import BuildResult, BuildTask, IndexSpec, OperatingPoint
from ..dataset.listing import Listing, list_source, load_listing
from ..dataset.places import no_data
from ..dataset.source import Source, open_source
from ..dataset.stage import stage
from ..dataset.tombstones import current_tombstones
from ..errors import SourceChanged
from ..index.binding import faiss
from ..index.choose.auto import AUTO
from ..index.choose.tuning import K, Tuning, batch_engine, tune
from ..index.device import DeviceFallback, pick_device
from ..index.engine import Engine, read_index
from ..index.factory import make_index, training_rows
from ..index.memory import footprint
from ..index.parameters import index_type
from ..index.selection.subset import restricted_bytes
from ..index.vectors import VectorFile
from ..progress import step
from ..proof.bound import lower_bound
from ..proof.groundtruth import ground_truth
from ..proof.measure import answers, measure
from ..proof.queries import write_held_out
from ..storage.store import Role, Store, open_store, require_exclusive_put
from . import CHECKPOINT_AFTER_SECONDS, budget, recipe
from .checkpoint import Checkpoints
from .fill import Order, write_index

HELD_OUT = 1000
"""Queries of the gate, and as many others for tuning."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RowSamples:
    """Row numbers drawn uniformly from the whole source, each sorted. The count is known from the headers, so they are
    drawn before a row is read, which is what a reservoir over the stream would give."""

    training: npt.NDArray[np.int64]
    tuning: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.int64]


def draw_sets(count: int, training: int, seed: int = 0) -> RowSamples:
    """Draw the sets. Tuning and held-out rows are disjoint when there are enough rows for both."""
    rng = np.random.default_rng(seed)

    def draw(size: int) -> npt.NDArray[np.int64]:
        return rng.choice(count, size=min(size, count), replace=False)

    queries = draw(2 * HELD_OUT)
    tuning, held_out = (queries[:HELD_OUT], queries[HELD_OUT:]) if count >= 2 * HELD_OUT else (queries, queries)
    return RowSamples(np.sort(draw(training)), np.sort(tuning[:HELD_OUT]), np.sort(held_out[:HELD_OUT]))


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
    checkpoints = Checkpoints(artifacts, layout, task.digest, checkpoint_after_seconds)
    if published := find_manifest(artifacts, layout, task.digest):
        _log.info("already published", extra={"digest": task.digest})
        checkpoints.discard()
        return _result(*published, reused=True)
    require_exclusive_put(artifacts, layout.probe(task.digest, task.attempt))
    fallback = pick_device(task.device, task.device_reason)
    source_store = open_store(task.source, Role.SOURCE)
    listing = _listing(task, source_store, artifacts, layout)
    source = open_source(source_store, listing, task.columns, task.embedding)
    tombstones = current_tombstones(task.tombstones, task.columns.id, source.id_type)
    source = source.without(tombstones.ids)
    metric = task.embedding.metric
    recipe.check(task.index, source.rows, source.dimension, metric, hides=task.tombstones is not None)
    if task.index.factory != AUTO:
        _training_rows(task, source, task.index.factory)  # refused before the source is read
    with tempfile.TemporaryDirectory(prefix="build-", dir=work) as name:
        folder = Path(name)
        stage(source, folder)
        step("choosing")
        choice = recipe.decide(task.index, folder, metric, task.memory_limit_bytes)
        factory = choice.factory
        sets = draw_sets(source.rows, _training_rows(task, source, factory))
        shape = {"rows": source.rows, "dimension": source.dimension}
        _log.info("building", extra={**shape, "factory": factory, "trainingRows": len(sets.training)})
        write_index(
            _order(task, (listing.fingerprint, tombstones.fingerprint), source, factory, sets),
            folder,
            fallback,
            checkpoints,
        )
        manifest = _manifest(task, listing, source, factory, folder, sets, fallback)
        step("tuning")
        tuned = _tune(manifest, folder, sets, task.index, fallback, (artifacts, layout))
        manifest = manifest.model_copy(
            update={
                "default_point": tuned.default,
                "conservative_point": tuned.conservative,
                "frontier": tuned.frontier,
                "candidates": choice.candidates,
                "tombstones": tombstones.fingerprint,
                "deleted": len(source.gone),
                "duration_seconds": round(time.monotonic() - began, 3),
                "peak_memory_bytes": peak_memory(),
            }
        )
        step("publishing")
        published_manifest, sha256, ours = publish(artifacts, layout, manifest, folder)
    checkpoints.discard()
    return _result(published_manifest, sha256, reused=not ours)


def _listing(task: BuildTask, source: Store, artifacts: Store, layout: Layout) -> Listing:
    """The listing that `resolve` stored; without one (a laptop) a new one. Raises SourceChanged when it is another."""
    if task.fingerprint and (stored := load_listing(artifacts, layout, task.fingerprint)) is not None:
        return stored
    listing = list_source(source, no_data(task.source, task.tombstones, task.artifacts, task.identity))
    if task.fingerprint and listing.fingerprint != task.fingerprint:
        raise SourceChanged(source.describe(source.prefix))
    return listing


def _training_rows(task: BuildTask, source: Source, factory: str) -> int:
    """Rows of the training sample. Raises BadSpec/NotEnoughMemory when the pod cannot hold the build."""
    empty = make_index(factory, source.rows, source.dimension, task.embedding.metric)
    rows = training_rows(empty, source.rows, task.memory_limit_bytes)
    if size := footprint(empty, source.rows):
        budget.require(task.memory_limit_bytes, size.resident, budget.sample_bytes(rows, source.dimension))
    return rows


def _order(task: BuildTask, fingerprints: tuple[str, str], source: Source, factory: str, sets: RowSamples) -> Order:
    return Order(
        factory=factory,
        metric=task.embedding.metric,
        rows=source.rows,
        dimension=source.dimension,
        sample=sets.training,
        fingerprints=fingerprints,
        vector_column=task.columns.vector,
    )


def _manifest(
    task: BuildTask,
    listing: Listing,
    source: Source,
    factory: str,
    folder: Path,
    sets: RowSamples,
    fallback: DeviceFallback,
) -> Manifest:
    """The manifest of the files in `folder`, without operating points yet."""
    with VectorFile(folder / VECTORS_FILE, task.embedding.metric) as vectors:
        write_held_out(folder / HELDOUT_FILE, sets.held_out, vectors.gather(sets.held_out, prepared=False))
    # As it is after a round trip: FAISS reads IndexFlat back as IndexFlatL2.
    index = read_index(folder / INDEX_FILE)
    size = footprint(index, index.ntotal)
    names = [INDEX_FILE, IDS_FILE, VECTORS_FILE, HELDOUT_FILE, *([METADATA_FILE] if task.columns.metadata else [])]
    return Manifest(
        digest=task.digest,
        attempt=task.attempt,
        identity=task.identity,
        fingerprint=listing.fingerprint,
        embedding=task.embedding.model_copy(update={"dimension": source.dimension}),
        dimension=source.dimension,
        count=source.rows,
        vector_dtype="float16" if source.half else "float32",
        id_type="string" if str(source.id_type) == "string" else "int64",
        metadata_columns=task.columns.metadata,
        factory=factory,
        index_type=index_type(index),
        computed_bytes=(size.tables if size else 0) + restricted_bytes(index),
        default_point=OperatingPoint(recall=0.0, recall_low=0.0, latency_us=0.0),
        faiss_version=faiss.__version__,
        cpu_features=faiss.get_compile_options().strip(),
        builder_version=package_metadata.version("vectorindex-operator"),
        device=fallback.device,
        device_reason=fallback.reason,
        duration_seconds=0.0,
        peak_memory_bytes=0,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files=tuple(describe_file(folder / name) for name in names),
    )


def _tune(
    manifest: Manifest,
    folder: Path,
    sets: RowSamples,
    spec: IndexSpec,
    fallback: DeviceFallback,
    place: tuple[Store, Layout],
) -> Tuning:
    """Operating points, measured on the tuning rows through the engine that will serve.

    Another factory on the same data has the same tuning rows: their exact neighbours are kept at `place`.
    """
    engine = Engine.open(folder, manifest)
    everything = batch_engine(engine)
    metric = manifest.embedding.metric
    with VectorFile(folder / VECTORS_FILE, metric) as vectors:
        queries = vectors.gather(sets.tuning, prepared=False)
        file = manifest.file(VECTORS_FILE)
        assert file is not None
        truth, source = ground_truth(*place, vectors, file.sha256, queries, K, sets.tuning, fallback=fallback)
        _log.info("ground truth", extra={"source": source, "queries": len(queries), "k": K})

        def recalls(params: Mapping[str, int]) -> npt.NDArray[np.float64]:
            rows = answers(everything, queries, K, sets.tuning, params)
            return measure(truth, rows, vectors, queries).recall

        tuned = tune(engine, queries, recalls, lower_bound, spec.objective.recall, spec.search_params)
    point: dict[str, Any] = tuned.default.wire()
    _log.info("default operating point", extra=point)
    return tuned


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes (ru_maxrss counts KiB on Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _result(manifest: Manifest, sha256: str, *, reused: bool) -> BuildResult:
    index, vectors = manifest.file(INDEX_FILE), manifest.file(VECTORS_FILE)
    assert index is not None
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
        reused=reused,
    )
