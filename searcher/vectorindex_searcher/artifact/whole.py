"""`publish`: the manifest of a sharded artifact, once every part of its plan is there."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from ..contract import OperatingPoint, PublishResult, PublishTask
from ..errors import RetryableError, TaskError
from ..storage.store import Role, Store, open_store
from .document import bad_document
from .layout import INDEX_FILE, VECTORS_FILE, Layout
from .manifest import BAD, Manifest, encode
from .sharded import Plan, ShardedManifest, ShardEntry, find_part, find_rows, find_sharded, load_plan
from .users import mark_used

_log = logging.getLogger(__name__)


def publish_whole(task: PublishTask) -> PublishResult:
    """Check the parts, write the manifest if there is none, and remove the rows that were laid ready.

    A part is checked by its manifest, and by the sizes of its files: their SHA-256 is checked by whoever opens them.
    Raises TaskError: Retry/PlanNotFound, Retry/ShardMissing, BadData/BadManifest, StoreUnavailable.
    """
    store = open_store(task.artifacts, Role.ARTIFACTS)
    layout = Layout(store.prefix, task.identity)
    mark_used(store, layout, task.digest, task.cluster)  # before the plan is read
    plan, plan_sha256 = load_plan(store, layout, task.digest)
    parts = [_part(store, layout.of_shard(number), plan, plan_sha256) for number in range(plan.shards)]
    data = encode(_whole(plan, plan_sha256, parts))
    ours = store.put(layout.manifest(task.digest), data, exclusive=True)
    found = find_sharded(store, layout, task.digest)
    if found is None or found[0].plan_sha256 != plan_sha256:
        raise bad_document(BAD, store.describe(layout.manifest(task.digest)), "is not of this plan")
    whole, sha256 = found
    _discard_rows(store, layout, plan, plan_sha256)
    return _result(plan, whole, sha256, [manifest for manifest, _ in parts], reused=not ours)


def _result(plan: Plan, whole: ShardedManifest, sha256: str, parts: list[Manifest], *, reused: bool) -> PublishResult:
    points = [part.default_point for part in parts]
    return PublishResult(
        digest=whole.digest,
        attempt=plan.attempt,
        manifest_sha256=sha256,
        plan_sha256=whole.plan_sha256,
        fingerprint=whole.fingerprint,
        count=whole.count,
        dimension=whole.dimension,
        factory=whole.factory,
        device=max(part.device for part in parts),  # GPU, if one of them was built on one
        device_reason=max(part.device_reason for part in parts),
        duration_seconds=max(part.duration_seconds for part in parts),
        peak_memory_bytes=max(part.peak_memory_bytes for part in parts),
        index_bytes=sum(part.index_bytes for part in whole.shards),
        resident_bytes=max(part.resident_bytes for part in whole.shards),
        vectors_bytes=max((part.vectors_bytes or 0 for part in whole.shards), default=0) or None,
        faiss_version=parts[0].faiss_version,
        default_point=OperatingPoint(
            recall=min(point.recall for point in points),
            recall_low=min(point.recall_low for point in points),
            latency_us=sum(point.latency_us for point in points),
        ),
        reused=reused,
        shards=len(parts),
    )


def _part(store: Store, layout: Layout, plan: Plan, plan_sha256: str) -> tuple[Manifest, str]:
    """The manifest of a part that is whole, and its SHA-256. Raises Retry/ShardMissing, BadData/BadManifest."""
    key = layout.manifest(plan.digest)
    found = find_part(store, layout, plan.digest, plan_sha256)
    if found is None:
        message = f"shard {layout.shard} of {plan.shards} is not built by the plan {plan_sha256[:16]}"
        remedy = f"Run `build --shard {layout.shard}/{plan.shards}`."
        raise RetryableError("ShardMissing", message, object=key, remedy=remedy)
    manifest, sha256 = found
    assert layout.shard is not None
    told = (manifest.shard, manifest.count, manifest.factory, manifest.dimension, manifest.id_type)
    planned = (layout.shard, plan.counts[layout.shard], plan.factory, plan.dimension, plan.id_type)
    if told != planned:
        raise bad_document(BAD, store.describe(key), f"says {told}, and its plan {planned}")
    for file in manifest.files:
        there = store.head(layout.file(plan.digest, manifest.attempt, file.name))
        if there is None or there.size != file.size:
            size = "is not there" if there is None else f"has {there.size} bytes"
            message = f"{file.name} of shard {layout.shard} {size}, its manifest says {file.size}"
            remedy = "Remove the artifact (`collect --digests`) and build it again."
            raise RetryableError("ShardMissing", message, object=key, remedy=remedy)
    return manifest, sha256


def _whole(plan: Plan, plan_sha256: str, parts: list[tuple[Manifest, str]]) -> ShardedManifest:
    return ShardedManifest(
        digest=plan.digest,
        identity=plan.identity,
        plan_sha256=plan_sha256,
        hash=plan.hash,
        fingerprint=plan.fingerprint,
        tombstones=plan.tombstones,
        deleted=plan.deleted,
        embedding=plan.embedding,
        dimension=plan.dimension,
        count=plan.count,
        vector_dtype=plan.vector_dtype,
        id_type=plan.id_type,
        metadata_columns=plan.metadata_columns,
        factory=plan.factory,
        shards=tuple(_entry(manifest, sha256) for manifest, sha256 in parts),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _entry(manifest: Manifest, sha256: str) -> ShardEntry:
    index, vectors = manifest.file(INDEX_FILE), manifest.file(VECTORS_FILE)
    return ShardEntry(
        manifest_sha256=sha256,
        count=manifest.count,
        index_bytes=index.size if index else 0,
        resident_bytes=manifest.resident_bytes,
        vectors_bytes=vectors.size if vectors else None,
    )


def _discard_rows(store: Store, layout: Layout, plan: Plan, plan_sha256: str) -> None:
    """Remove the rows that `partition` laid ready: rows.json first. What cannot be removed stays."""
    try:
        for number in range(plan.shards):
            part = layout.of_shard(number)
            rows = find_rows(store, part, plan.digest, plan_sha256)
            if rows is not None:
                store.delete(part.rows(plan.digest))
                for file in rows.files:
                    store.delete(part.file(plan.digest, rows.attempt, file.name))
    except (TaskError, OSError) as error:
        _log.warning("rows that are needed no more stay", extra={"error": str(error)[:300]})
