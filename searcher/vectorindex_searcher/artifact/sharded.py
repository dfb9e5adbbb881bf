"""A sharded artifact: the plan that its parts are built by, the rows laid ready for them, the manifest of the whole.

    <digest>/plan.json                 first, only if there is none; its SHA-256 is in everything below
    <digest>/shards/0003/rows.json     names the files of rows that `partition` has uploaded; goes with `publish`
    <digest>/shards/0003/manifest.json of the part, as of any artifact
    <digest>/manifest.json             last: names the SHA-256 of every part's manifest

A plan is written anew, with a name of its own, by whoever partitions after everything was removed; so what is left of
an earlier one, be it in part, never completes a later one.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..contract import MAX_SHARDS, Embedding, Identity, Model, ShardNumber
from ..errors import BadSpec, RetryableError
from ..storage.store import Store
from .document import bad_document, parse_document, read_document
from .layout import Layout
from .manifest import BAD, Candidate, Manifest, ManifestFile, find_manifest, is_sharded

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Counts = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=2, max_length=MAX_SHARDS)]
BAD_PLAN = "BadPlan"


class Plan(Model):
    """plan.json: what every shard is built as, and of which rows."""

    format_version: Literal[1] = 1
    digest: str
    attempt: str
    """Makes the plan, and so its SHA-256, another one than any that was there before."""
    identity: Identity
    hash: Literal["splitmix64-1"]
    """contract.SHARD_HASH: which shard a row belongs to."""
    counts: _Counts
    """Rows of each shard."""
    fingerprint: str
    tombstones: str = ""
    deleted: Annotated[int, Field(ge=0)] = 0
    embedding: Embedding
    dimension: Annotated[int, Field(ge=1)]
    vector_dtype: Literal["float16", "float32"]
    id_type: Literal["int64", "string"]
    metadata_columns: tuple[str, ...] = ()
    factory: str
    ef_construction: int | None = None
    candidates: Annotated[tuple[Candidate, ...], Field(max_length=64)] = ()
    """What Auto weighed, on the rows of the largest shard."""
    created: str = ""
    """RFC 3339, UTC."""

    @property
    def shards(self) -> int:
        return len(self.counts)

    @property
    def count(self) -> int:
        return sum(self.counts)


class ShardRows(Model):
    """rows.json of a shard. Written when its files are there."""

    format_version: Literal[1] = 1
    plan_sha256: _Sha256
    shard: ShardNumber
    attempt: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$")]
    """Below whose name the files lie."""
    files: tuple[ManifestFile, ...]

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


class ShardEntry(Model):
    """One part, as the manifest of the whole names it."""

    manifest_sha256: _Sha256
    count: Annotated[int, Field(ge=1)]
    index_bytes: Annotated[int, Field(ge=0)]
    resident_bytes: Annotated[int, Field(ge=0)]
    """Memory of a searcher of this part."""
    vectors_bytes: Annotated[int, Field(ge=0)] | None = None


class ShardedManifest(Model):
    """manifest.json of a sharded artifact. Its own SHA-256 is what the operator hands on."""

    format_version: Literal[1] = 1
    kind: Literal["Sharded"] = "Sharded"
    digest: str
    identity: Identity
    plan_sha256: _Sha256
    hash: str
    fingerprint: str
    tombstones: str = ""
    deleted: Annotated[int, Field(ge=0)] = 0
    embedding: Embedding
    dimension: Annotated[int, Field(ge=1)]
    count: Annotated[int, Field(ge=1)]
    vector_dtype: Literal["float16", "float32"]
    id_type: Literal["int64", "string"]
    metadata_columns: tuple[str, ...] = ()
    factory: str
    shards: Annotated[tuple[ShardEntry, ...], Field(min_length=2, max_length=MAX_SHARDS)]
    created: str = ""
    """RFC 3339, UTC."""


def find_plan(store: Store, layout: Layout, digest: str) -> tuple[Plan, str] | None:
    """The plan of a digest and its SHA-256, or None. Raises BadData/BadPlan."""
    key = layout.plan(digest)
    found = read_document(store, key)
    if found is None:
        return None
    plan = parse_document(Plan, found[0], store.describe(key), BAD_PLAN)
    if plan.digest != digest:
        raise bad_document(BAD_PLAN, store.describe(key), f"is of digest {plan.digest}, expected {digest}")
    return plan, found[1]


def load_plan(store: Store, layout: Layout, digest: str) -> tuple[Plan, str]:
    """As find_plan. Raises Retry/PlanNotFound when there is none."""
    found = find_plan(store, layout, digest)
    if found is None:
        key, remedy = layout.plan(digest), "Run `partition` first, with the same flags."
        raise RetryableError("PlanNotFound", f"{store.describe(key)} does not exist", object=key, remedy=remedy)
    return found


def find_rows(store: Store, layout: Layout, digest: str, plan_sha256: str) -> ShardRows | None:
    """The rows that are laid ready for the shard of `layout` by this plan; None where there are none, or another's.

    Raises BadData/BadPlan when rows.json cannot be read.
    """
    key = layout.rows(digest)
    found = read_document(store, key)
    if found is None:
        return None
    rows = parse_document(ShardRows, found[0], store.describe(key), BAD_PLAN)
    return rows if (rows.plan_sha256, rows.shard) == (plan_sha256, layout.shard) else None


def find_part(store: Store, layout: Layout, digest: str, plan_sha256: str) -> tuple[Manifest, str] | None:
    """The manifest of the shard of `layout` that was built by this plan, and its SHA-256; None where there is none, or
    one of another plan: that is a leftover, and completes nothing."""
    found = find_manifest(store, layout, digest)
    return found if found is not None and found[0].plan_sha256 == plan_sha256 else None


def find_sharded(
    store: Store, layout: Layout, digest: str, expected_sha256: str = ""
) -> tuple[ShardedManifest, str] | None:
    """The manifest of a sharded artifact and its SHA-256; None when nothing is published, or what is not sharded.

    Raises ChecksumMismatch when another one was expected, BadData when it cannot be parsed.
    """
    key = layout.of_shard(None).manifest(digest)
    found = read_document(store, key, expected_sha256)
    if found is None or not is_sharded(found[0]):
        return None
    manifest = parse_document(ShardedManifest, found[0], store.describe(key), BAD)
    if manifest.digest != digest:
        raise bad_document(BAD, store.describe(key), f"names digest {manifest.digest}, expected {digest}")
    return manifest, found[1]


def own_part(store: Store, layout: Layout, digest: str, expected_sha256: str) -> tuple[str, int]:
    """What the SHA-256 of the manifest of `layout` must be, where that of the whole must be `expected_sha256` (empty:
    any), and how many shards the whole has; 0: `layout` is not of a shard.

    Raises BadSpec/NoSuchShard, Retry/ArtifactNotFound where no whole is published, ChecksumMismatch, BadData.
    """
    number = layout.shard
    if number is None:
        return expected_sha256, 0
    found = find_sharded(store, layout, digest, expected_sha256)
    if found is None:
        key = layout.of_shard(None).manifest(digest)
        message = f"{store.describe(key)} is no sharded artifact that is published"
        raise RetryableError("ArtifactNotFound", message, object=key, remedy="Run `publish`, or leave --shard out.")
    parts = found[0].shards
    if number >= len(parts):
        message = f"the artifact has the shards 0 to {len(parts) - 1}, and no {number}"
        raise BadSpec("NoSuchShard", message, field="--shard")
    return parts[number].manifest_sha256, len(parts)


def own_sha256(store: Store, layout: Layout, digest: str, expected_sha256: str) -> str:
    """The first of `own_part`."""
    return own_part(store, layout, digest, expected_sha256)[0]
