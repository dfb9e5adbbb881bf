"""The artifact of a revision in object storage: its manifest, its keys, publishing it once, fetching it verified.

An artifact is immutable: files first, manifest last and only if there is none, SHA-256 of every file checked before
anything opens it. This module must not open what it downloads, and knows nothing of FAISS.
"""

from __future__ import annotations

import errno
import hashlib
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from .contract import Device, Embedding, Identity, Model, OperatingPoint
from .download import Wanted, download
from .errors import BadData, ChecksumMismatch, Retry, TaskError
from .store import Store, join_key

INDEX_FILE = "index.faiss"
IDS_FILE = "ids.arrow"
METADATA_FILE = "metadata.arrow"
VECTORS_FILE = "vectors.npy"
HELDOUT_FILE = "heldout.arrow"
REPORT_FILE = "report.json"
CANARY_FILE = "canary.arrow"
POINTS_FILE = "points.json"
PAGE_FILE = "report.html"
SERVED_FILES = (INDEX_FILE, IDS_FILE, METADATA_FILE)
"""What a searcher must have. vectors.npy (live recall) and heldout.arrow (the gate) are fetched by who needs them."""

MANIFEST_LIMIT_BYTES = 1 << 20
UPLOAD_THREADS = 4
_log = logging.getLogger(__name__)


class ManifestFile(Model):
    """One file of an artifact or report. `name` holds no slash, so it cannot leave the folder it is fetched to."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Candidate(Model):
    """One kind of index that `Auto` considered. Latency is what it expects on all rows; the rest is of the sample."""

    factory: str
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
    files: tuple[ManifestFile, ...]

    def file(self, name: str) -> ManifestFile | None:
        """The entry of a file, or None when the artifact has none of that name (no metadata columns)."""
        return next((file for file in self.files if file.name == name), None)

    @property
    def resident_bytes(self) -> int:
        """Memory a searcher needs for this artifact: everything it maps or reads."""
        return sum(file.size for file in self.files if file.name in SERVED_FILES)


@dataclass(frozen=True, slots=True)
class Layout:
    """Keys of one VectorIndex's artifacts below the prefix of the artifact location."""

    prefix: str
    identity: Identity

    @property
    def base(self) -> str:
        return join_key(self.prefix, self.identity.namespace, self.identity.name)

    def listing(self, fingerprint: str) -> str:
        return join_key(self.base, "listings", f"{fingerprint}.json")

    def manifest(self, digest: str) -> str:
        return join_key(self.base, digest, "manifest.json")

    def file(self, digest: str, attempt: str, name: str) -> str:
        return join_key(self.base, digest, attempt, name)

    def checkpoints(self, digest: str, key: str = "", name: str = "") -> str:
        return join_key(self.base, digest, "checkpoints", key, name)

    def digest_of_checkpoint(self, key: str) -> str:
        """The digest whose checkpoint has this key; empty for any other key."""
        parts = key.removeprefix(f"{self.base}/").split("/")
        return parts[0] if len(parts) == 4 and parts[1] == "checkpoints" else ""

    def report(self, digest: str, gate_hash: str, name: str = REPORT_FILE) -> str:
        return join_key(self.base, digest, "reports", gate_hash, name)

    def ground_truth(self, key: str, suffix: str) -> str:
        return join_key(self.ground_truths, f"{key}.{suffix}")

    @property
    def ground_truths(self) -> str:
        return join_key(self.base, "groundtruth")


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


def find_manifest(store: Store, layout: Layout, digest: str) -> tuple[Manifest, str] | None:
    """The published manifest of a digest and its SHA-256, or None when nothing is published.

    Raises BadData when it cannot be parsed, TaskError when the store refuses.
    """
    key = layout.manifest(digest)
    try:
        data = store.read(key, length=MANIFEST_LIMIT_BYTES + 1)
    except FileNotFoundError:
        return None
    return _parse(data, store.describe(key), digest), hashlib.sha256(data).hexdigest()


def load_manifest(store: Store, layout: Layout, digest: str, expected_sha256: str = "") -> tuple[Manifest, str]:
    """The manifest of a digest; with `expected_sha256`, refuses any other one.

    Raises Retry/ArtifactNotFound when there is none, ChecksumMismatch when it is another one, BadData when unreadable.
    """
    key = layout.manifest(digest)
    try:
        data = store.read(key, length=MANIFEST_LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise Retry("ArtifactNotFound", f"{store.describe(key)} does not exist", object=key) from None
    sha256 = hashlib.sha256(data).hexdigest()
    if expected_sha256 and sha256 != expected_sha256:
        raise ChecksumMismatch("manifest.json", f"SHA-256 is {sha256}, expected {expected_sha256}")
    return _parse(data, store.describe(key), digest), sha256


def _parse(data: bytes, where: str, digest: str) -> Manifest:
    if len(data) > MANIFEST_LIMIT_BYTES:
        raise _bad_manifest(where, f"is larger than {MANIFEST_LIMIT_BYTES} bytes")
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise _bad_manifest(where, f"is not a manifest this version reads: {problem}") from None
    if manifest.digest != digest:
        raise _bad_manifest(where, f"names digest {manifest.digest}, expected {digest}")
    return manifest


def _bad_manifest(where: str, problem: str) -> BadData:
    remedy = "Use the version that built it, or delete the revision's artifacts and build it again."
    return BadData("BadManifest", f"{where} {problem}", object=where, remedy=remedy)


def publish(store: Store, layout: Layout, manifest: Manifest, folder: Path) -> tuple[Manifest, str, bool]:
    """Upload the manifest's files from `folder`, then the manifest if there is none yet.

    Returns the manifest that is published now, its SHA-256, and whether it is ours. Another builder that was faster
    wins; our files stay in our attempt's prefix, where nothing refers to them.
    """
    with ThreadPoolExecutor(UPLOAD_THREADS) as pool:
        uploads = [
            pool.submit(store.upload, layout.file(manifest.digest, manifest.attempt, file.name), folder / file.name)
            for file in manifest.files
        ]
        for upload in uploads:
            upload.result()
    data = encode(manifest)
    if store.put(layout.manifest(manifest.digest), data, exclusive=True):
        return manifest, hashlib.sha256(data).hexdigest(), True
    published, sha256 = load_manifest(store, layout, manifest.digest)
    return published, sha256, published == manifest


def cache_name(manifest: Manifest) -> str:
    """Name of an artifact's folder in a cache."""
    return f"{manifest.digest}-{manifest.attempt}"


def download_verified(
    store: Store, layout: Layout, manifest: Manifest, cache: Path, names: Iterable[str] | None = None
) -> Path:
    """Fetch files of an artifact below `cache` and return the folder that holds them, each verified.

    `names`: which files (default: those a searcher must have); names the artifact lacks are skipped. Files that are in
    the cache already are verified again before they are used. Raises ChecksumMismatch, Retry/CacheFull, TaskError.
    """
    wanted = [file for name in names or SERVED_FILES if (file := manifest.file(name)) is not None]
    folder = cache / cache_name(manifest)
    keyed = [(layout.file(manifest.digest, manifest.attempt, file.name), file) for file in wanted]
    return fetch_files(store, keyed, folder)


def fetch_files(store: Store, files: Sequence[tuple[str, ManifestFile]], folder: Path) -> Path:
    """Fetch (key, description) pairs into `folder` in parallel, verified; see `download_verified`."""
    wanted = [Wanted(key, file.name, file.size, file.sha256, folder / file.name) for key, file in files]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fetched = download(store, wanted)
    except OSError as error:
        raise cache_error(error, folder, sum(one.size for one in wanted)) from error
    facts = {
        "fetched": sum(one.size for one in fetched),
        "found": sum(one.size for one in wanted if one not in fetched),
    }
    _log.debug("files verified", extra={"folder": str(folder), **facts})
    return folder


def cache_error(error: OSError, folder: Path, needed: int) -> TaskError:
    """What to tell about a cache folder that cannot take `needed` bytes."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        message = f"no space in {folder} for {needed} bytes"
        remedy = "Free space there, or name another folder with --cache-dir (in a pod: more ephemeral storage)."
        return Retry("CacheFull", message, remedy=remedy)
    remedy = "Name a folder that this user may write with --cache-dir (in a pod: its volume)."
    return TaskError("CacheUnusable", f"--cache-dir: {folder}: {error.strerror or error}", remedy=remedy)
