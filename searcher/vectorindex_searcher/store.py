"""Object storage as the verbs see it: list, read with If-Match, create exclusively, upload. Plus the local folder.

Knows nothing of artifacts or datasets. Keys are full keys inside a bucket (or paths below a folder), with `/`.
The S3 adapter is in store_s3.py, so a laptop run against folders never imports boto3.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from .contract import S3, ExitCode, Location
from .errors import BadSpec, SourceChanged, SourceMissing, StoreUnavailable, TaskError

CHUNK_BYTES = 1 << 20


class Role(Enum):
    """What a location is for: the prefix of its credentials in the environment, and the spec field to blame."""

    SOURCE = ("SOURCE_", "spec.source")
    ARTIFACTS = ("ARTIFACTS_", "spec.artifacts")
    QUERIES = ("QUERIES_", "spec.gate.queries")
    TOMBSTONES = ("SOURCE_", "spec.source.tombstones")

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
    store's clock; 0 where it does not tell."""

    key: str
    size: int
    etag: str
    modified: float = 0.0


class Store(Protocol):
    """What the verbs need of a store. Every method may raise TaskError (StoreUnavailable, SourceMissing ...)."""

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


def join_key(*parts: str) -> str:
    """Join key parts with one slash between them; empty parts vanish."""
    return "/".join(stripped for part in parts if (stripped := part.strip("/")))


def open_store(location: Location, role: Role) -> Store:
    """The store of a location. No request is made yet. Raises BadSpec when the location names no place or two."""
    if location.s3 is not None and location.folder is None:
        from .store_s3 import S3Store  # boto3 takes 0.3 s to import and folders do not need it

        return S3Store(location.s3, role)
    if location.folder is not None and location.s3 is None:
        return FolderStore(Path(location.folder), role)
    raise BadSpec("BadLocation", f"{role.field} must name either s3 or folder", field=role.field)


def parse_location(text: str, *, endpoint: str = "", region: str = "") -> Location:
    """`s3://bucket/prefix` or a local path, as typed by a person. Raises BadSpec for any other URL."""
    if not text.startswith("s3://"):
        if "://" in text:
            remedy = "Places are folders, files or s3://bucket/prefix."
            raise BadSpec("BadLocation", f"{text} is no place that can be read", remedy=remedy)
        return Location(folder=text)
    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    try:
        return Location(s3=S3(bucket=bucket, prefix=prefix, endpoint=endpoint, region=region))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = f"{text}: not a usable S3 location ({'.'.join(map(str, first['loc']))}: {first['msg']})"
        raise BadSpec("BadLocation", message, remedy="Write s3://bucket/prefix.") from None


class FolderStore:
    """A local folder, or one file of it, as a store: laptops and tests.

    etag = size and mtime in nanoseconds: cheap, and a rewritten file differs. Publishing is link(2) or rename(2) of a
    complete temporary file, so a reader never sees half an object.
    """

    def __init__(self, root: Path, role: Role) -> None:
        self.role = role
        if root.is_file():
            self.root, self.prefix = root.parent, root.name
        else:
            self.root, self.prefix = root, ""

    def describe(self, key: str) -> str:
        return str(self.root / key)

    def _path(self, key: str) -> Path:
        if key.startswith("/") or ".." in key.split("/"):
            raise BadSpec("BadKey", f"{key!r} is not a key inside {self.root}")
        return self.root / key

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        start = self._path(prefix)
        if not self.root.is_dir():
            if self.role is Role.ARTIFACTS:
                return
            raise SourceMissing(
                "FolderNotFound",
                f"{self.root} is not a folder",
                field=f"{self.role.field}.folder",
                remedy="Name an existing folder or file.",
            )
        paths = [start] if start.is_file() else sorted(start.rglob("*"))
        for path in paths:
            # Names with a leading dot are our own unfinished files and editors' leftovers.
            if path.is_file() and not path.name.startswith("."):
                yield _info(path.relative_to(self.root).as_posix(), path.stat())

    def head(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        return _info(key, path.stat()) if path.is_file() else None

    def read(self, key: str, *, etag: str | None = None, offset: int = 0, length: int | None = None) -> bytes:
        with self._opened(key, etag) as fd:
            size = os.fstat(fd).st_size
            return os.pread(fd, size - offset if length is None else length, offset)

    def stream(self, key: str, *, etag: str | None = None) -> Iterator[bytes]:
        with self._opened(key, etag) as fd:
            while chunk := os.read(fd, CHUNK_BYTES):
                yield chunk

    @contextlib.contextmanager
    def _opened(self, key: str, etag: str | None) -> Iterator[int]:
        try:
            fd = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if etag is not None:
                raise SourceChanged(key) from None
            raise
        except OSError as error:
            raise self._failed(key, error) from error
        try:
            if etag is not None and _info(key, os.fstat(fd)).etag != etag:
                raise SourceChanged(key)
            yield fd
        except OSError as error:
            raise self._failed(key, error) from error
        finally:
            os.close(fd)

    def put(self, key: str, data: bytes, *, exclusive: bool = False) -> bool:
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._temporary(path)
            try:
                temporary.write_bytes(data)
                _sync(temporary)
                if exclusive:
                    # link(2) fails when the name exists, and the content is complete when it appears.
                    os.link(temporary, path)
                else:
                    temporary.replace(path)
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(key, error) from error
        return True

    def upload(self, key: str, path: Path) -> None:
        target = self._path(key)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._temporary(target)
            shutil.copyfile(path, temporary)
            _sync(temporary)
            temporary.replace(target)
        except OSError as error:
            raise self._failed(key, error) from error

    def delete(self, key: str) -> None:
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(key, error) from error

    @staticmethod
    def _temporary(path: Path) -> Path:
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(fd)
        return Path(name)

    def _failed(self, key: str, error: OSError) -> TaskError:
        if isinstance(error, PermissionError):
            return TaskError(
                "AccessDenied",
                f"{self.describe(key)}: {error.strerror}",
                object=key,
                field=f"{self.role.field}.folder",
                remedy="Give this user the right to it, or name another folder.",
                exit_code=self.role.refusal_code,
            )
        remedy = f"Make room there, or name another folder in {self.role.field}."
        return StoreUnavailable(
            "StoreUnavailable", f"{self.describe(key)}: {error.strerror or error}", object=key, remedy=remedy
        )


def _info(key: str, stat: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, stat.st_size, f"{stat.st_size:x}-{stat.st_mtime_ns:x}", stat.st_mtime)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
