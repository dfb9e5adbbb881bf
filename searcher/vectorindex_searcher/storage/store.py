"""Object storage as the verbs see it: list, read with If-Match, create exclusively, upload.

Knows nothing of artifacts or datasets. Keys are full keys inside a bucket (or paths below a folder), with `/`.
One module a kind of store beside this one, so a laptop run against folders never imports boto3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from ..contract import (
    AZURE_SCHEME,
    ENCODER_ENV_PREFIX,
    GCS,
    GCS_SCHEME,
    RERANKER_ENV_PREFIX,
    S3,
    VOLUME_SCHEME,
    Azure,
    ExitCode,
    Location,
    Place,
    Volume,
    mount_dir,
)
from ..errors import BadData, BadSpec

CHUNK_BYTES = 1 << 20
CLOUD_URLS: dict[str, tuple[type[Place], tuple[str, ...]]] = {
    AZURE_SCHEME: (Azure, ("account", "container")),
    GCS_SCHEME: (GCS, ("bucket",)),
}
"""How places of other clouds than S3 are typed: what stands before the prefix."""
MAX_OBJECTS = 100_000
"""Below a place that is read: whoever lists them holds them all, some 2 KiB each."""


DELETE_BATCH = 1000
"""Objects that S3 removes in one request."""


class UnsupportedByStore(Exception):  # noqa: N818 - says what happened
    """The store has no exclusive writes."""


class Role(Enum):
    """What a location is for: the prefix of its credentials in the environment, and the spec field to blame."""

    SOURCE = ("SOURCE_", "spec.source")
    ARTIFACTS = ("ARTIFACTS_", "spec.artifacts")
    QUERIES = ("QUERIES_", "spec.gate.queries")
    TOMBSTONES = ("SOURCE_", "spec.source.tombstones")
    FRESH = ("SOURCE_", "spec.source.fresh")
    ENCODER = (ENCODER_ENV_PREFIX, "spec.embedding.encoder.onnx")
    RERANKER = (RERANKER_ENV_PREFIX, "spec.searcher.rerank.onnx")

    def __init__(self, env_prefix: str, field: str) -> None:
        self.env_prefix = env_prefix
        self.field = field

    @property
    def refusal_code(self) -> ExitCode:
        """Exit code when the location itself is wrong: what we read is a missing source, what we write a bad store."""
        return ExitCode.STORE_UNAVAILABLE if self is Role.ARTIFACTS else ExitCode.SOURCE_MISSING


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One listed object. `etag` identifies its content as far as the store can tell; `modified`: Unix seconds, by the
    store's clock; 0 where it does not tell. A size of -1: a link that leads nowhere (folders that are read)."""

    key: str
    size: int
    etag: str
    modified: float = 0.0


class Store(Protocol):
    """What the verbs need of a store. Every method may raise TaskError (StoreUnavailable, SourceMissing ...)."""

    role: Role
    prefix: str
    """Key prefix of the location, without a trailing slash; empty for the whole bucket or folder."""

    def describe(self, key: str) -> str:
        """The URL or path of a key, for messages."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose key is `prefix` or lies below `prefix/`, in no promised order."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """Size and etag, or None when there is no such object."""
        ...

    def read(self, key: str, *, etag: str | None = None, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes [offset, offset+length) (to the end without length). Raises SourceChanged when `etag` does not match
        or, with `etag` given, the object is gone; FileNotFoundError when it is not there and no etag was given.
        """
        ...

    def stream(self, key: str, *, etag: str | None = None) -> Iterator[bytes]:
        """The whole object in chunks of about 1 MiB; resumes by itself after a broken connection. Raises as `read`."""
        ...

    def put(self, key: str, data: bytes, *, exclusive: bool = False) -> bool:
        """Write a small object at once. `exclusive`: only if it does not exist (If-None-Match: *); False if it did."""
        ...

    def upload(self, key: str, path: Path) -> None:
        """Write a file of any size (multipart where the store has it)."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens when there is none."""
        ...

    def delete_many(self, keys: Sequence[str]) -> dict[str, str]:
        """As `delete`, in as few requests as the store can. Returns what could not be removed, with the store's words;
        the others are gone.
        """
        ...

    def discard_unfinished(
        self, prefix: str, older_than: float, *, ours: Callable[[str], bool], dry_run: bool = False
    ) -> int:
        """Remove what killed uploads below `prefix` left behind `older_than` seconds ago or earlier: it takes space and
        no listing shows it. `ours`: says of the key that an upload would have had whether it may go. Returns how many
        there were. Never raises: a store may not allow it.
        """
        ...


def join_key(*parts: str) -> str:
    """Join key parts with one slash between them; empty parts vanish."""
    return "/".join(stripped for part in parts if (stripped := part.strip("/")))


def require_exclusive_put(store: Store, key: str) -> None:
    """Prove that the store creates an object only once, by doing it at `key`, where nothing else is.

    Before the long work rather than after it: publishing depends on it. Raises BadSpec/NoConditionalWrites, or what any
    write there raises.
    """
    try:
        once, twice = store.put(key, b"1", exclusive=True), store.put(key, b"2", exclusive=True)
    except UnsupportedByStore as error:
        once, twice = True, True
        detail = f" ({error})"
    else:
        detail = ""
    store.delete(key)
    if once and not twice:
        return
    raise BadSpec(
        "NoConditionalWrites",
        f"{store.describe(store.prefix)}: the store does not honour If-None-Match: * on writes{detail}; "
        "without it two builders could overwrite each other's artifact",
        field=Role.ARTIFACTS.field,
        remedy="Keep artifacts in a store that has conditional writes: AWS, MinIO, Ceph, versitygw, Azure, GCS, or a "
        "volume with hard links.",
    )


def open_store(location: Location, role: Role) -> Store:
    """The store of a location. No request is made yet. Raises BadSpec when the location names no place or two."""
    place = location.place
    if isinstance(place, S3):
        from .s3 import S3Store  # boto3 takes 0.3 s to import and folders do not need it

        return S3Store(place, role)
    if isinstance(place, Azure | GCS):
        from .cloud import CloudStore

        return CloudStore(place, role)
    if isinstance(place, Volume):
        from .volume import VolumeStore

        return VolumeStore(place, role, Path(mount_dir(role.env_prefix)))
    if location.folder is not None and location == Location(folder=location.folder):
        from .folder import FolderStore

        return FolderStore(Path(location.folder), role)
    raise BadSpec("BadLocation", f"{role.field} must name exactly one place", field=role.field)


def parse_location(text: str, *, endpoint: str = "", region: str = "", anonymous: bool | None = None) -> Location:
    """`s3://bucket/prefix`, `az://account/container/prefix`, `gs://bucket/prefix`, a local path, or in a pod that has
    it `volume://claim/path`. Raises BadSpec for any other URL."""
    if text.startswith(VOLUME_SCHEME):
        return _typed_volume(text)
    for scheme in CLOUD_URLS:
        if text.startswith(scheme):
            return _typed_cloud(text, scheme, {"endpoint": endpoint, "anonymous": anonymous})
    if not text.startswith("s3://"):
        if "://" in text:
            remedy = (
                "Places are folders, files, s3://bucket/prefix, az://account/container/prefix or gs://bucket/prefix."
            )
            raise BadSpec("BadLocation", f"{text} is no place that can be read", remedy=remedy)
        return Location(folder=text)
    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    try:
        return Location(s3=S3(bucket=bucket, prefix=prefix, endpoint=endpoint, region=region, anonymous=anonymous))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["loc"] == ("endpoint",):
            message = f"--endpoint {endpoint[:100]!r} is no URL of an S3 server"
            remedy = "Write it with its scheme and without a query, for example http://minio:9000."
            raise BadSpec("BadEndpoint", message, field="--endpoint", remedy=remedy) from None
        message = f"{text}: not a usable S3 location ({'.'.join(map(str, first['loc']))}: {first['msg']})"
        raise BadSpec("BadLocation", message, remedy="Write s3://bucket/prefix.") from None


def _typed_cloud(text: str, scheme: str, told: dict[str, object]) -> Location:
    kind, names = CLOUD_URLS[scheme]
    rest = text.removeprefix(scheme)
    for name in names:
        told[name], _, rest = rest.partition("/")
    try:
        return Location.of(kind.model_validate(told | {"prefix": rest}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = f"{text}: not a usable place ({'.'.join(map(str, first['loc']))}: {first['msg']})"
        raise BadSpec("BadLocation", message, remedy=f"Write {scheme}{'/'.join(names)}/prefix.") from None


def _typed_volume(text: str) -> Location:
    claim, _, path = text.removeprefix(VOLUME_SCHEME).partition("/")
    try:
        return Location(volume=Volume(claim_name=claim, path=path))
    except ValidationError:
        raise BadSpec("BadLocation", f"{text}: not a folder of a volume", remedy="Write volume://claim/path.") from None


def list_all(store: Store) -> list[ObjectInfo]:
    """All objects of the store's place in key order, MAX_OBJECTS at most. Raises BadData/TooManyObjects."""
    found = list(islice(store.list(store.prefix), MAX_OBJECTS + 1))
    if len(found) > MAX_OBJECTS:
        raise BadData(
            "TooManyObjects",
            f"{store.describe(store.prefix)} holds more than {MAX_OBJECTS} objects",
            object=found[0].key,
            field=store.role.field,
            remedy="Write fewer and larger files (128 MiB is a good size), or name a prefix that holds these alone.",
        )
    return sorted(found, key=lambda item: item.key)
