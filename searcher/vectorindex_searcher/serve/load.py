"""From a task to a proven engine: manifest, files, FAISS, canary queries; every byte checked before it is opened.

Runs on a thread of its own. What it raises is a refusal: such a pod never serves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from dataclasses import field as _field
from pathlib import Path

from .. import contract
from ..artifact.layout import INDEX_FILE, POINTS_FILE, SERVED_FILES, VECTORS_FILE, Layout, shard_canary_file
from ..artifact.manifest import Manifest, load_manifest
from ..artifact.publish import Note, cache_error, cache_name, download_verified, fetch_files
from ..artifact.sharded import own_part
from ..errors import BadData, BadSpec, ChecksumMismatch, RetryableError, TaskError
from ..index.engine import Engine
from ..index.huge_pages import move as move_to_huge_pages
from ..proof.canary import canary_recall, read_canary
from ..proof.encoder import check_encoder
from ..proof.measure import NO_PARAMS
from ..proof.merged_canary import must_reach
from ..proof.merged_report import find_merged
from ..proof.report import Points, fetch_canary, fetch_encoder, fetch_points, load_report
from ..proof.shard_canaries import answer_canary
from ..storage.cache import Held, NodeCache
from ..storage.store import Role, Store, open_store
from ..text.encoder import Encoder
from ..text.endpoint import EndpointEncoder, Rechecked
from ..text.open import open_encoder, open_reranker
from ..text.reordering import refuse_column
from ..text.reranker import Reranker

_log = logging.getLogger(__name__)

EXIT_CODES = {
    "ChecksumMismatch": contract.ExitCode.BAD_DATA,
    "ManifestMissing": contract.ExitCode.SOURCE_MISSING,
    "ArtifactNotFound": contract.ExitCode.SOURCE_MISSING,
    "ReportNotFound": contract.ExitCode.SOURCE_MISSING,
}
"""A build or a gate may try these again; a searcher cannot get better files by starting again."""


Origins = dict[str, int]
"""Bytes of the artifact's files by where this pod got them: store (fetched), cache (found there). It grows when live
recall gets its own."""


def noting(origins: Origins) -> Note:
    """What adds the bytes of files to `origins`."""

    def note(fetched: int, found: int) -> None:
        for name, size in (("store", fetched), ("cache", found)):
            origins[name] = origins.get(name, 0) + size

    return note


@dataclass(frozen=True, slots=True)
class Loaded:
    """A revision that may serve."""

    engine: Engine
    canary_recall: float | None
    """None when the task names no gate (a laptop)."""
    seconds: Mapping[str, float]
    """By phase, in order: manifest, fetch (and verify), open, canary (which warms the index's pages too), encoder,
    reranker."""
    held: Held
    """Keeps the artifact in the node's cache while it is mapped."""
    points: Points | None = None
    """Operating points of the segments, as the gate judged them; None without a gate."""
    encoder: Encoder | None = None
    """Of queries in words."""
    encoder_held: Held | None = None
    """Keeps its files in the node's cache."""
    reranker: Reranker | None = None
    """Of answers to them."""
    reranker_held: Held | None = None
    origins: Origins = _field(default_factory=dict)
    shards: int = 0
    """Of the artifact that this is one of; 0: it is not sharded."""
    canary: bytes | None = None
    """contract.ShardCanary as JSON, for routers; None: the task names no gate of the whole."""

    def rest(self) -> None:
        """Say for the moment no more that the files are in use: before a fork."""
        for held in self._all_held:
            held.rest()

    def keep(self) -> None:
        """Say so again."""
        for held in self._all_held:
            held.keep()

    def release(self) -> None:
        """What was loaded is in use no more: others may remove its files from the cache."""
        if self.encoder is not None:
            self.encoder.close()
        for held in self._all_held:
            held.close()

    @property
    def _all_held(self) -> tuple[Held, ...]:
        return tuple(held for held in (self.held, self.encoder_held, self.reranker_held) if held is not None)


def load(
    task: contract.ServeTask, tell: Callable[[str], None], cache_bytes: int = 0, *, huge_pages: bool = False
) -> Loaded:
    """Fetch, verify, open and prove the task's artifact. `tell`: takes a sentence about the progress; `cache_bytes`:
    how much the cache may keep, 0: no limit; `huge_pages`: as Settings.

    Raises TaskError: ManifestMissing, ChecksumMismatch, BadArtifact, CanaryRecall, StoreUnavailable, CacheFull ...
    """
    phases = _Phases()
    if task.gate_hash and not (task.manifest_sha256 and task.report_sha256):
        raise BadSpec("BadTask", "a task with a gate names the SHA-256 of manifest and report", field="reportSha256")
    if task.gate_of_whole and task.shard is None:
        raise BadSpec("BadTask", "a gate of the whole is for one of its shards", field="shard")
    store = open_store(task.artifacts, Role.ARTIFACTS)
    layout = Layout(store.prefix, task.identity, task.shard)
    tell("reading the manifest")
    task, manifest, shards = _manifest(store, layout, task)
    phases.end("manifest")
    size = sum(file.size for file in manifest.files if file.name in SERVED_FILES)
    tell(f"fetching and verifying {size} bytes")
    # Live recall fetches vectors.npy later, into the same folder: room for it is made now, with the rest.
    later = manifest.file(VECTORS_FILE) if task.live_recall else None
    room = size + (later.size if later else 0)
    origins: Origins = {}
    held = _fetch(store, layout, manifest, NodeCache(Path(task.cache_dir), cache_bytes), room, noting(origins))
    phases.end("fetch")
    encoder: Encoder | None = None
    encoder_held: Held | None = None
    reranker: Reranker | None = None
    reranker_held: Held | None = None
    try:
        tell("opening the index")
        engine = Engine.open(held.folder, manifest)
        if huge_pages:
            move_to_huge_pages(held.folder / INDEX_FILE)
        phases.end("open")
        recall, points, canary = None, None, None
        if task.gate_hash:
            tell("answering the canary queries")
            if task.gate_of_whole:
                recall, told = prove_shard(engine, store, task)
                canary = told.model_dump_json(by_alias=True).encode()
            else:
                engine, recall, points = prove(engine, store, layout, task)
        phases.end("canary")
        if task.encoder is not None:
            tell("opening the encoder")
            encoder, encoder_held = open_encoder(task.encoder, Path(task.cache_dir), cache_bytes, engine.dimension)
            encoder = prove_encoder(encoder, engine.manifest, store, layout, task)
            phases.end("encoder")
        if task.rerank is not None:
            tell("opening the reranker")
            refuse_column(engine.metadata_columns, task.rerank)
            reranker, reranker_held = open_reranker(task.rerank, Path(task.cache_dir), cache_bytes)
            phases.end("reranker")
    except BaseException:
        for one in (held, encoder, encoder_held, reranker_held):
            if one is not None:
                one.close()
        raise
    facts = {"bytes": size, "fetchedBytes": origins["store"]}
    _log.info("loaded", extra={**facts, **{f"{name}Seconds": round(s, 3) for name, s in phases.seconds.items()}})
    models = (encoder, encoder_held, reranker, reranker_held)
    return Loaded(engine, recall, phases.seconds, held, points, *models, origins, shards, canary)


class _Phases:
    """Seconds between the ends of phases."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def end(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = now - self._since
        self._since = now


def _fetch(store: Store, layout: Layout, manifest: Manifest, cache: NodeCache, size: int, note: Note) -> Held:
    """The artifact's verified files in the node's cache. What others have fetched is verified again all the same."""
    name = cache_name(manifest)
    try:
        held = cache.hold(name, size)
        try:
            files = [file for file in manifest.files if file.name in SERVED_FILES]
            paths = [held.folder / file.name for file in files]
            # Only who has something to fetch waits for others that fetch it: verifying goes side by side.
            there = all(p.is_file() and p.stat().st_size == f.size for p, f in zip(paths, files, strict=True))
            with nullcontext() if there else cache.fetching(name):
                try:
                    download_verified(store, layout, manifest, held.folder.parent, note=note)
                except TaskError as error:
                    if error.reason != "CacheFull" or not cache.free(name):
                        raise
                    _log.warning("the cache was full: what nobody uses is gone from it, trying again")
                    download_verified(store, layout, manifest, held.folder.parent, note=note)
        except BaseException:
            held.close()
            raise
    except OSError as error:
        raise cache_error(error, Path(error.filename or name), size) from error
    return held


def _manifest(store: Store, layout: Layout, task: contract.ServeTask) -> tuple[contract.ServeTask, Manifest, int]:
    """The manifest of the artifact, or of the one shard of it; the task with the SHA-256 of that one; how many there
    are."""
    try:
        own, shards = own_part(store, layout, task.digest, task.manifest_sha256)
        manifest, sha256 = load_manifest(store, layout, task.digest, own)
    except TaskError as error:
        if error.reason != "ArtifactNotFound":
            raise
        raise TaskError(
            "ManifestMissing",
            error.failure.message,
            object=error.failure.object,
            remedy="The artifact was deleted: build the revision again (in a cluster: annotation retry).",
        ) from None
    return (task if task.shard is None else task.model_copy(update={"manifest_sha256": sha256})), manifest, shards


def prove(
    engine: Engine, store: Store, layout: Layout, task: contract.ServeTask
) -> tuple[Engine, float, Points | None]:
    """The engine at the gate's default point, its recall on the canary queries (which also brings the index's pages
    into memory), and the operating points that they were answered with and users will be.

    Raises TaskError CanaryRecall when it is below what the gate measured on the same queries, ChecksumMismatch when
    the report or the queries are not those that the gate published.
    """
    report, _ = load_report(store, layout, task.digest, task.gate_hash, task.report_sha256)
    if report.manifest_sha256 != task.manifest_sha256:
        detail = f"is about the manifest {report.manifest_sha256}, this searcher has {task.manifest_sha256}"
        raise ChecksumMismatch("report.json", detail)
    folder = Path(task.cache_dir) / cache_name(engine.manifest) / f"gate-{task.gate_hash}"
    points = _points(engine, fetch_points(store, layout, report, folder))
    if points is not None:
        engine = engine.with_default(points.default.params)
    table = fetch_canary(store, layout, report, folder)
    recall = canary_recall(engine, table, report.k, points.params if points else NO_PARAMS)
    facts = {"queries": table.num_rows, "recall": recall, "gate": report.canary_recall, "k": report.k}
    _log.info("canary queries answered", extra=facts)
    must_reach(recall, report.canary_recall, table.num_rows, report.k)
    return engine, recall, points


def prove_shard(engine: Engine, store: Store, task: contract.ServeTask) -> tuple[float, contract.ShardCanary]:
    """The recall of one shard's engine on the canary queries, of its own nearest rows, and what its routers are told of
    the merged answers. Raises as `prove`, by the report of the whole."""
    assert task.shard is not None
    layout = Layout(store.prefix, task.identity)
    found = find_merged(store, layout, task.digest, task.gate_hash, task.report_sha256)
    if found is None:
        raise RetryableError("ReportNotFound", f"the report of gate {task.gate_hash} does not exist")
    report, name = found[0], shard_canary_file(task.shard)
    figures = report.shards[task.shard]
    if figures.manifest_sha256 != task.manifest_sha256:
        detail = f"is about the manifest {figures.manifest_sha256}, this searcher has {task.manifest_sha256}"
        raise ChecksumMismatch("report.json", detail)
    files = [(layout.report(task.digest, task.gate_hash, one.name), one) for one in report.files if one.name == name]
    if not files:
        raise BadData("BadReport", f"the report of gate {task.gate_hash} names no {name}")
    folder = Path(task.cache_dir) / cache_name(engine.manifest) / f"gate-{task.gate_hash}"
    table = read_canary(fetch_files(store, files, folder) / name)
    recall, told = answer_canary(engine, table, report.k, report.gate_hash, task.shard, report.canary_recall)
    facts = {"queries": table.num_rows, "recall": recall, "gate": figures.canary_recall, "k": report.k}
    _log.info("canary queries answered", extra=facts)
    must_reach(recall, figures.canary_recall, table.num_rows, report.k)
    return recall, told


def prove_encoder(
    encoder: Encoder, manifest: Manifest, store: Store, layout: Layout, task: contract.ServeTask
) -> Encoder:
    """Texts must become the vectors that the gate made of them. The encoder, which goes on comparing itself where it is
    an endpoint. Raises BadData/EncoderCanary, ChecksumMismatch, Retry/EncoderUnavailable."""
    if not task.gate_hash:
        return encoder
    report, _ = load_report(store, layout, task.digest, task.gate_hash, task.report_sha256)
    path = fetch_encoder(store, layout, report, Path(task.cache_dir) / cache_name(manifest) / f"gate-{task.gate_hash}")
    if path is None:
        raise BadData(
            "EncoderNotProven",
            f"the report of gate {task.gate_hash} knows no encoder, so nobody compared it with the index",
            remedy="Measure again with the encoder (in a cluster: the operator does, once it is in the spec).",
        )
    _log.info("encoder answered", extra={"lowestCosine": round(check_encoder(encoder, path), 6)})
    encoder.close()
    return Rechecked(encoder, lambda: check_encoder(encoder, path)) if isinstance(encoder, EndpointEncoder) else encoder


def _points(engine: Engine, points: Points | None) -> Points | None:
    """The points, each parameter one that this index takes. Raises BadData/BadReport."""
    given = {"default": points.default.params, **points.params} if points else NO_PARAMS
    for segment, params in given.items():
        for name, value in params.items():
            least, greatest = engine.param_limits.get(name, (1, 0))
            if not least <= value <= greatest:
                raise BadData("BadReport", f"{POINTS_FILE}: {segment}: {name}={value} is not of this index")
    return points


def exit_code(error: TaskError) -> contract.ExitCode:
    """The exit code of a refused load."""
    return EXIT_CODES.get(error.reason, error.exit_code)
