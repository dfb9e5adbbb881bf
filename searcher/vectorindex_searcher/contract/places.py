"""Places: where vectors, queries and artifacts are. One class a kind of store, and `Location`, the union of them all.

Credentials never travel here: they come as environment variables of the pod. A key is what a store calls an object: a
path with `/`, from the top of the bucket or of the volume.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field

from .model import Model

VOLUMES_DIR = "/var/lib/vectorindex"
"""Where pods have the volumes of places: `source`, `artifacts`, `queries`, `encoder` and `reranker` below it."""
VOLUME_SCHEME = "volume://"
AZURE_SCHEME = "az://"
GCS_SCHEME = "gs://"
_SEGMENT = r"([^/.]|\.[^/.]|\.\.[^/])[^/]*"
"""Of a path below a volume: anything but `.` and `..`."""


def mount_dir(env_prefix: str) -> str:
    """Where pods have the volume of the place whose credentials would begin so (SOURCE_, ARTIFACTS_, QUERIES_,
    VECTORINDEX_ENCODER_, VECTORINDEX_RERANKER_)."""
    return f"{VOLUMES_DIR}/{env_prefix.removeprefix('VECTORINDEX_').strip('_').lower()}"


class Place(Model):
    """A part of a store: everything whose key begins with a prefix."""

    kind: ClassVar[str]
    """What specs and `Location` call this kind of store."""
    root_field: ClassVar[str] = "prefix"
    """The field that holds `root`."""

    @property
    def store(self) -> tuple[str, ...]:
        """Tells this store from every other: in one store the same key is the same object."""
        raise NotImplementedError

    @property
    def held_in(self) -> tuple[str, ...]:
        """As `store`, without how it is reached: another endpoint is no other place."""
        return self.store

    @property
    def root(self) -> str:
        """The prefix of all its keys, as it was written."""
        return str(getattr(self, self.root_field))

    def at(self, prefix: str) -> Self:
        """Another place in the same store, reached alike."""
        return self.model_copy(update={self.root_field: prefix})

    def url(self, key: str) -> str:
        """An object of the store, for people."""
        raise NotImplementedError

    def words(self) -> str:
        """The place, for people."""
        raise NotImplementedError

    def below(self, outer: Place) -> str:
        """The prefix, without slashes around it, if it lies below the other place; else an empty string."""
        prefix, outside = self.root.strip("/"), outer.root.strip("/")
        same = self.store == outer.store
        return prefix if same and prefix != outside and (not outside or prefix.startswith(f"{outside}/")) else ""


class S3(Place):
    """A bucket and a key prefix. Credentials never travel here: they come as environment variables of the pod."""

    kind: ClassVar[str] = "s3"
    bucket: Annotated[str, Field(min_length=3, max_length=63, pattern=r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$")]
    """Name of the bucket."""
    prefix: Annotated[str, Field(max_length=512)] = ""
    """Keys begin with this; a folder ends in a slash."""
    endpoint: Annotated[str, Field(max_length=256, pattern=r"^(https?://[^@/?#\s]+(/[^@?#\s]*)?)?$")] = ""
    """Of another server than AWS, with http:// or https://; buckets are then addressed by path."""
    region: Annotated[str, Field(max_length=64)] = ""
    """Empty: the client's default."""
    anonymous: bool | None = None
    """True: a public bucket, read without any credentials."""
    later: ClassVar[frozenset[str]] = frozenset({"anonymous"})

    @property
    def store(self) -> tuple[str, ...]:
        return (self.kind, self.bucket, self.endpoint)

    @property
    def held_in(self) -> tuple[str, ...]:
        return (self.bucket,)  # enters names of Jobs: as it was before there were other stores

    def url(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def words(self) -> str:
        return f"bucket {self.bucket}, prefix {self.prefix!r}"


class Azure(Place):
    """A container of Azure Blob Storage and a prefix of the names of its blobs."""

    kind: ClassVar[str] = "azure"
    account: Annotated[str, Field(min_length=3, max_length=24, pattern=r"^[a-z0-9]+$")]
    """Name of the storage account."""
    container: Annotated[str, Field(min_length=3, max_length=63, pattern=r"^([a-z0-9]([a-z0-9-]*[a-z0-9])|\$web)$")]
    """Name of the container."""
    prefix: Annotated[str, Field(max_length=512)] = ""
    """Names of blobs begin with this; a folder ends in a slash."""
    endpoint: Annotated[str, Field(max_length=256, pattern=r"^(https?://[^@/?#\s]+(/[^@?#\s]*)?)?$")] = ""
    """Of the account, where it is not https://ACCOUNT.blob.core.windows.net: of another cloud, or of Azurite."""
    anonymous: bool | None = None
    """True: a public container, read without any credentials."""

    @property
    def store(self) -> tuple[str, ...]:
        return (self.kind, self.account, self.container, self.endpoint)

    @property
    def held_in(self) -> tuple[str, ...]:
        return (self.kind, self.account, self.container)

    def url(self, key: str) -> str:
        return f"{AZURE_SCHEME}{self.account}/{self.container}/{key}"

    def words(self) -> str:
        return f"container {self.container} of account {self.account}, prefix {self.prefix!r}"


class GCS(Place):
    """A bucket of Google Cloud Storage and a prefix of the names of its objects."""

    kind: ClassVar[str] = "gcs"
    bucket: Annotated[str, Field(min_length=3, max_length=222, pattern=r"^[a-z0-9][a-z0-9._-]*[a-z0-9]$")]
    """Name of the bucket."""
    prefix: Annotated[str, Field(max_length=512)] = ""
    """Names of objects begin with this; a folder ends in a slash."""
    endpoint: Annotated[str, Field(max_length=256, pattern=r"^(https?://[^@/?#\s]+(/[^@?#\s]*)?)?$")] = ""
    """Where it is not https://storage.googleapis.com: a private name of it, or another server."""
    anonymous: bool | None = None
    """True: a public bucket, read without any credentials."""

    @property
    def store(self) -> tuple[str, ...]:
        return (self.kind, self.bucket, self.endpoint)

    @property
    def held_in(self) -> tuple[str, ...]:
        return (self.kind, self.bucket)

    def url(self, key: str) -> str:
        return f"{GCS_SCHEME}{self.bucket}/{key}"

    def words(self) -> str:
        return f"bucket {self.bucket} of Google Cloud Storage, prefix {self.prefix!r}"


class Volume(Place):
    """A folder of a PersistentVolumeClaim in the namespace of the index."""

    kind: ClassVar[str] = "volume"
    root_field: ClassVar[str] = "path"
    claim_name: Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
    """Name of the claim."""
    path: Annotated[str, Field(max_length=512, pattern=rf"^({_SEGMENT}(/{_SEGMENT})*/?)?$")] = ""
    """Folder below the top of the volume, without a slash in front; empty: all of it. No link may lead out of the
    volume."""

    @property
    def store(self) -> tuple[str, ...]:
        return (self.kind, self.claim_name)

    def url(self, key: str) -> str:
        return f"{VOLUME_SCHEME}{self.claim_name}/{key}"

    def words(self) -> str:
        return f"volume {self.claim_name}, path {self.path!r}"


class Location(Model):
    """One place: of a store, or a local folder (a laptop, the tests). No field of `later`: an image that does not know
    a kind of store must refuse it, not look elsewhere."""

    s3: S3 | None = None
    azure: Azure | None = None
    gcs: GCS | None = None
    volume: Volume | None = None
    folder: str | None = None

    @classmethod
    def of(cls, place: Place) -> Self:
        """A place in a store, as it travels."""
        return cls(**{place.kind: place})

    @property
    def place(self) -> Place | None:
        """The place in a store; None: a folder, nothing, or more than one."""
        given = [one for one in (self.s3, self.azure, self.gcs, self.volume) if one is not None]
        return given[0] if len(given) == 1 and self.folder is None else None
