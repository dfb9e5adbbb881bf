"""The manifest of an artifact: what was built, from what, and the SHA-256 of every file. Checked, never trusted."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

import orjson
from pydantic import Field

from ..contract import Device, Embedding, EncodedTexts, Identity, Model, OperatingPoint, ShardNumber
from ..errors import BadSpec, RetryableError
from ..storage.store import Store
from .document import bad_document, parse_document, read_document
from .layout import SERVED_FILES, Layout

BAD = "BadManifest"


class ManifestFile(Model):
    """One file of an artifact or report. `name` holds no slash, so it cannot leave the folder it is fetched to."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Candidate(Model):
    """One kind of index that `Auto` considered. Latency is what it expects on all rows; the rest is of the sample."""

    factory: str
    ef_construction: int | None = None
    """Of its graph; None: FAISS's own, or no graph."""
    memory_bytes: int
    """By the formula: of the index when it serves."""
    sample_rows: int = 0
    """Of the largest sample it was measured on; 0: not measured."""
    params: dict[str, int] = {}
    recall: float | None = None
    """At `params`; without a latency, the highest that it reached."""
    latency_us: float | None = None
    """Expected time of one query on all rows, one thread, microseconds; None: the recall was not reached."""
    verdict: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return self.factory + (f" (efConstruction {self.ef_construction})" if self.ef_construction else "")


class Manifest(Model):
    """manifest.json. Written last; its own SHA-256 is what the operator hands to `validate` and `serve`."""

    format_version: Literal[1] = 1
    digest: str
    attempt: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$")]
    identity: Identity
    fingerprint: str
    embedding: Embedding
    dimension: Annotated[int, Field(ge=1)]
    count: Annotated[int, Field(ge=1)]
    vector_dtype: Literal["float16", "float32"]
    id_type: Literal["int64", "string"]
    metadata_columns: tuple[str, ...] = ()
    factory: str
    ef_construction: int | None = None
    """How many candidates the links of a graph were chosen among, which no factory string says; None: FAISS's own."""
    index_type: str
    """Nesting of FAISS class names, outermost first, for example IndexRefineFlat/IndexIVFPQFastScan."""
    default_point: OperatingPoint
    conservative_point: OperatingPoint | None = None
    frontier: tuple[OperatingPoint, ...] = ()
    candidates: Annotated[tuple[Candidate, ...], Field(max_length=64)] = ()
    """What Auto weighed, the chosen one first; empty for another factory."""
    faiss_version: str
    cpu_features: str = ""
    """FAISS's compile options on the machine where the operating points were measured."""
    builder_version: str = ""
    device: Device
    device_reason: str = ""
    duration_seconds: float
    peak_memory_bytes: int
    created: str = ""
    """RFC 3339, UTC."""
    tombstones: str = ""
    """Fingerprint of the listing of deleted ids that the build left out; empty without any."""
    deleted: Annotated[int, Field(ge=0)] = 0
    """Rows of the source that were left out for it."""
    texts: EncodedTexts | None = None
    """How the texts of the rows became vectors; None: they had vectors."""
    reconstructed: bool | None = None
    """True: the source has no vectors, and vectors.npy is what an imported index gives back of them."""
    computed_bytes: Annotated[int, Field(ge=0)] = 0
    """Memory besides the files: tables that FAISS computes when it reads them, and what filters may keep."""
    shard: ShardNumber | None = None
    """Which part of a sharded artifact this is; None: all of it."""
    plan_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Of the plan that the part was built by."""
    files: tuple[ManifestFile, ...]

    def file(self, name: str) -> ManifestFile | None:
        """The entry of a file, or None when the artifact has none of that name (no metadata columns)."""
        return next((file for file in self.files if file.name == name), None)

    @property
    def resident_bytes(self) -> int:
        """Memory a searcher needs for this artifact: everything it maps or reads, and what it makes of that."""
        return sum(file.size for file in self.files if file.name in SERVED_FILES) + self.computed_bytes


def encode(model: Model) -> bytes:
    """The bytes of a model as stored: what SHA-256 is taken of."""
    return model.model_dump_json(by_alias=True, exclude_none=True, indent=2).encode() + b"\n"


def describe_file(path: Path) -> ManifestFile:
    """Name, size and SHA-256 of a local file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ManifestFile(name=path.name, size=path.stat().st_size, sha256=digest)


def describe_bytes(name: str, data: bytes) -> ManifestFile:
    """Name, size and SHA-256 of a file's content."""
    return ManifestFile(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def is_sharded(data: bytes) -> bool:
    """Whether the bytes of a manifest.json are of a sharded artifact (sharded.py)."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and found.get("kind") == "Sharded"


def find_manifest(store: Store, layout: Layout, digest: str, expected_sha256: str = "") -> tuple[Manifest, str] | None:
    """The published manifest of a digest and its SHA-256, or None when nothing is published.

    Raises ChecksumMismatch when another one was expected, BadData when it cannot be parsed, BadSpec/ArtifactIsSharded,
    TaskError when the store refuses.
    """
    key = layout.manifest(digest)
    found = read_document(store, key, expected_sha256)
    if found is None:
        return None
    if is_sharded(found[0]):
        message = f"{store.describe(key)} is of an artifact in several parts"
        raise BadSpec("ArtifactIsSharded", message, object=key, field="--shard", remedy="Name one part with --shard.")
    manifest = parse_document(Manifest, found[0], store.describe(key), BAD)
    if manifest.digest != digest:
        raise bad_document(BAD, store.describe(key), f"names digest {manifest.digest}, expected {digest}")
    return manifest, found[1]


def load_manifest(store: Store, layout: Layout, digest: str, expected_sha256: str = "") -> tuple[Manifest, str]:
    """As find_manifest; raises Retry/ArtifactNotFound when nothing is published."""
    found = find_manifest(store, layout, digest, expected_sha256)
    if found is None:
        key = layout.manifest(digest)
        raise RetryableError("ArtifactNotFound", f"{store.describe(key)} does not exist", object=key)
    return found
