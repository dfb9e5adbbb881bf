"""`partition`: read the source once, plan the shards, lay their rows ready.

    share out   each row into the files of its shard, in one pass
    choose      the factory, on the rows of the largest shard: a shard is a random sample of the whole, of the very size
                that will be built. Where the number of shards is left to us, it is the fewest that fit; a second pass
                where the first one was for another number
    plan        plan.json, if there is none
    upload      each shard's rows, then its rows.json

Disk: the rows once. Memory: budget.py's of a build that reads, and that of `Auto`. Idempotent: rows that are laid ready
by the plan are not made again.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ..artifact.collect import collect
from ..artifact.layout import IDS_FILE, METADATA_FILE, VECTORS_FILE, Layout
from ..artifact.manifest import ManifestFile, describe_file, encode
from ..artifact.publish import UPLOAD_THREADS, own_attempt
from ..artifact.sharded import Plan, ShardRows, find_part, find_plan, find_rows, load_plan
from ..artifact.users import mark_used
from ..contract import AUTO_SHARDS, SHARD_HASH, CollectTask, PartitionResult, PartitionTask
from ..dataset.source import Source
from ..dataset.stage import stage_shards
from ..errors import BadSpec, RetryableError
from ..index.choose.auto import AUTO
from ..index.choose.choice import Choice
from ..progress import step
from ..storage.store import Role, Store, open_store, require_exclusive_put
from . import imported, recipe, sharing
from .given import read_source

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Shared:
    """The rows of each shard, in a folder of its own."""

    folders: tuple[Path, ...]
    counts: tuple[int, ...]

    @property
    def largest(self) -> Path:
        return self.folders[max(range(len(self.counts)), key=self.counts.__getitem__)]

    @property
    def beside(self) -> float:
        """Bytes of id and metadata of a row."""
        files = (folder / name for folder in self.folders for name in (IDS_FILE, METADATA_FILE))
        return sum(path.stat().st_size for path in files if path.exists()) / sum(self.counts)


def partition(task: PartitionTask, work: Path | None = None) -> PartitionResult:
    """Plan and lay ready, or answer from what is there.

    work: folder for temporary files (default: the system's). Raises TaskError: BadSpec (TooManyShards, AnotherPlan),
    BadData, SourceMissing, SourceChanged, StoreUnavailable, Retry; MemoryError.
    """
    began = time.monotonic()
    if task.index.imported is not None:
        remedy = "Leave it out: each part is built from its rows."
        raise BadSpec(
            "NotOfShards", "an index that was built elsewhere is one part", field=imported.FIELD, remedy=remedy
        )
    artifacts = open_store(task.artifacts, Role.ARTIFACTS)
    layout = Layout(artifacts.prefix, task.identity)
    mark_used(artifacts, layout, task.digest, task.cluster)  # before the plan is read
    known = find_plan(artifacts, layout, task.digest)
    if known is not None and (laid := _laid(artifacts, layout, *known)) is not None:
        _must_be_asked_for(task, known[0])
        return _result(*known, laid, began, reused=True)
    task = task.model_copy(update={"attempt": own_attempt(task.attempt)})
    require_exclusive_put(artifacts, layout.probe(task.digest, task.attempt))
    source, fingerprint, tombstones = read_source(task, artifacts, layout)
    shards = known[0].shards if known is not None else _asked_for(task, source)
    with tempfile.TemporaryDirectory(prefix="partition-", dir=work) as name:
        shared = _share_out(task, source, shards, Path(name))
        if known is not None and task.replaces and not _is_of(known[0], (fingerprint, tombstones), shared.counts):
            _remove(task, artifacts, layout)
            known = None
        if known is None:
            choice, shared = _chosen(task, source, shared, Path(name))
            planned = _plan(task, source, (fingerprint, tombstones), shared.counts, choice)
            known = _write(planned, artifacts, layout)
        plan, sha256 = known
        _must_be_of(plan, task, (fingerprint, tombstones), shared.counts)
        step("publishing")
        size = 0
        for number, folder in enumerate(shared.folders):
            size += _lay_ready(artifacts, layout.of_shard(number), (plan, sha256), task.attempt, folder)
    return _result(plan, sha256, size, began, reused=False)


def _laid(artifacts: Store, layout: Layout, plan: Plan, sha256: str) -> int | None:
    """Bytes of the rows that are laid ready; None while a shard has neither rows nor a built part."""
    size = 0
    for number in range(plan.shards):
        part = layout.of_shard(number)
        rows = find_rows(artifacts, part, plan.digest, sha256)
        if rows is None and find_part(artifacts, part, plan.digest, sha256) is None:
            return None
        size += rows.bytes if rows is not None else 0
    return size


def _asked_for(task: PartitionTask, source: Source) -> int:
    """How many shards rows are shared out for at first. Raises BadSpec where no number is enough."""
    return sharing.guessed(task, source.rows, source.dimension) if task.shards == AUTO_SHARDS else task.shards


def _share_out(task: PartitionTask, source: Source, shards: int, folder: Path) -> _Shared:
    """Each row into a folder of its shard, below `folder`, which is emptied first. Raises BadSpec, BadData."""
    recipe.check(
        task.index,
        max(1, source.rows // shards),
        source.dimension,
        task.embedding.metric,
        hides=task.tombstones is not None,
    )
    for left in folder.iterdir():
        shutil.rmtree(left)
    folders = tuple(folder / f"{number:04d}" for number in range(shards))
    for one in folders:
        one.mkdir()
    counts = stage_shards(source, folders)
    _refuse_empty(counts)
    return _Shared(folders, counts)


def _chosen(task: PartitionTask, source: Source, shared: _Shared, folder: Path) -> tuple[Choice, _Shared]:
    """What every shard is built as, and the rows shared out for as many shards as there are to be."""
    step("choosing")
    choice = recipe.decide(task.index, shared.largest, task.embedding.metric, task.memory_limit_bytes)
    if task.shards != AUTO_SHARDS:
        return choice, shared
    before = max(shared.counts)
    chosen = task.index.factory == AUTO

    def factory(share: int) -> str:
        return sharing.for_rows(choice.factory, before, share) if chosen else choice.factory

    shards = sharing.needed(task, source.rows, source.dimension, factory, shared.beside)
    _log.info("Auto shards", extra={"shards": shards, "guess": len(shared.counts), "factory": choice.factory})
    if shards == len(shared.counts):
        return choice, shared
    shared = _share_out(task, source, shards, folder)
    return replace(choice, factory=factory(max(shared.counts))), shared


def _refuse_empty(counts: Sequence[int]) -> None:
    if not all(counts):
        message = f"shard {counts.index(0)} of {len(counts)} would have none of the {sum(counts)} rows"
        raise BadSpec("TooManyShards", message, field="--shards", remedy="Take fewer shards, or none.")


def _plan(
    task: PartitionTask, source: Source, fingerprints: tuple[str, str], counts: tuple[int, ...], choice: Choice
) -> Plan:
    return Plan(
        digest=task.digest,
        attempt=task.attempt,
        identity=task.identity,
        hash=SHARD_HASH,
        counts=counts,
        fingerprint=fingerprints[0],
        tombstones=fingerprints[1],
        deleted=len(source.gone),
        embedding=task.embedding.model_copy(update={"dimension": source.dimension}),
        dimension=source.dimension,
        vector_dtype="float16" if source.half else "float32",
        id_type="string" if str(source.id_type) == "string" else "int64",
        metadata_columns=task.columns.metadata,
        factory=choice.factory,
        ef_construction=choice.ef_construction,
        candidates=choice.candidates,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _write(plan: Plan, artifacts: Store, layout: Layout) -> tuple[Plan, str]:
    """The plan that is there now: another process of the same task may have been faster."""
    artifacts.put(layout.plan(plan.digest), encode(plan), exclusive=True)
    return load_plan(artifacts, layout, plan.digest)


def _must_be_asked_for(task: PartitionTask, plan: Plan) -> None:
    """Raises BadSpec/AnotherPlan when the plan that is there has another number of shards; of Auto it says how many."""
    if task.shards not in (plan.shards, AUTO_SHARDS):
        raise _another(task, f"has {plan.shards} shards, {task.shards} are asked for")


def _must_be_of(plan: Plan, task: PartitionTask, fingerprints: tuple[str, str], counts: tuple[int, ...]) -> None:
    """Raises BadSpec/AnotherPlan when the plan that is there is of other rows: of another listing, of other deleted
    ids. A shard is of its plan or of none, so nothing is laid beside it. Retry/LeftoverPart where another process
    came to another number of Auto meanwhile: the next try goes on by that."""
    _must_be_asked_for(task, plan)
    if plan.shards != len(counts):
        message = f"{plan.shards} shards were planned meanwhile, and rows are shared out for {len(counts)}"
        raise RetryableError("LeftoverPart", message, object=plan.digest)
    if not _is_of(plan, fingerprints, counts):
        raise _another(task, "is of other rows: the source or its deleted ids changed since")


def _is_of(plan: Plan, fingerprints: tuple[str, str], counts: tuple[int, ...]) -> bool:
    """Whether a plan is of these rows."""
    return ((plan.fingerprint, plan.tombstones), plan.counts) == (fingerprints, counts)


def _remove(task: PartitionTask, artifacts: Store, layout: Layout) -> None:
    """Remove what was begun by a plan of other rows: parts of it would be of none."""
    collect(CollectTask(identity=task.identity, artifacts=task.artifacts, cluster=task.cluster, digests=(task.digest,)))
    mark_used(artifacts, layout, task.digest, task.cluster)


def _another(task: PartitionTask, why: str) -> BadSpec:
    remedy = "Remove what is there (`collect --digests`), or take another --digest."
    return BadSpec("AnotherPlan", f"the plan of {task.digest} {why}", field="--digest", remedy=remedy)


def _lay_ready(artifacts: Store, layout: Layout, by: tuple[Plan, str], attempt: str, folder: Path) -> int:
    """Upload the rows of the shard of `layout`, unless they are there; their bytes."""
    assert layout.shard is not None
    plan, sha256 = by
    there = find_rows(artifacts, layout, plan.digest, sha256)
    if there is None:
        files = _described(folder)
        with ThreadPoolExecutor(UPLOAD_THREADS) as pool:
            keyed = [(layout.file(plan.digest, attempt, file.name), folder / file.name) for file in files]
            for upload in [pool.submit(artifacts.upload, key, path) for key, path in keyed]:
                upload.result()
        there = ShardRows(plan_sha256=sha256, shard=layout.shard, attempt=attempt, files=files)
        artifacts.put(layout.rows(plan.digest), encode(there))
    return there.bytes


def _described(folder: Path) -> tuple[ManifestFile, ...]:
    names = (IDS_FILE, METADATA_FILE, VECTORS_FILE)
    return tuple(describe_file(folder / name) for name in names if (folder / name).exists())


def _result(plan: Plan, sha256: str, size: int, began: float, *, reused: bool) -> PartitionResult:
    return PartitionResult(
        digest=plan.digest,
        plan_sha256=sha256,
        fingerprint=plan.fingerprint,
        shards=plan.shards,
        count=plan.count,
        counts=plan.counts,
        dimension=plan.dimension,
        factory=plan.factory,
        bytes=size,
        duration_seconds=round(time.monotonic() - began, 3),
        reused=reused,
    )
