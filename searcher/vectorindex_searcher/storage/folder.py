"""A local folder, or one file of it, as a store: laptops, tests, and what volume.py is made of."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..errors import BadData, BadSpec, SourceChanged, SourceMissing, StoreUnavailable, TaskError
from .store import CHUNK_BYTES, ObjectInfo, Role, UnsupportedByStore

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class FolderStore:
    """A local folder, or one file of it, as a store: laptops and tests.

    etag = size and mtime in nanoseconds: cheap, and a rewritten file differs. Publishing is link(2) or rename(2) of a
    complete temporary file, so a reader never sees half an object.
    """

    def __init__(self, root: Path, role: Role, field: str = "") -> None:
        self.role = role
        self._field = field or f"{role.field}.folder"
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
            raise self._missing_root()
        for path in [start] if start.is_file() else self._walk(start):
            if path.is_symlink():
                self._inside(path)
            key = path.relative_to(self.root).as_posix()
            if not _is_text(key):
                raise self._bad_name(key)
            # Names with a leading dot are our own unfinished files and editors' leftovers.
            if path.name.startswith("."):
                continue
            if path.is_file():
                yield _info(key, path.stat())
            elif path.is_symlink() and self.role is not Role.ARTIFACTS and not path.exists():
                yield ObjectInfo(key, -1, "")

    def _bad_name(self, key: str) -> BadData:
        shown = key.encode(errors="surrogateescape").decode(errors="backslashreplace")
        message = f"{shown} below {self.root} is a name that is not UTF-8"
        return BadData("BadName", message, field=self._field, remedy="Rename the file.")

    def _missing_root(self) -> TaskError:
        remedy = "Name an existing folder or file."
        return SourceMissing("FolderNotFound", f"{self.root} is not a folder", field=self._field, remedy=remedy)

    def _inside(self, path: Path) -> Path:
        """The path, where it may be followed: on a laptop wherever a link leads."""
        return path

    def _opened_inside(self, fd: int, key: str) -> None:
        """As `_inside`, of what is open."""

    def _is_ours(self, temporary: Path, path: Path) -> bool:  # noqa: ARG002 - see volume.py
        """Whether a name that is there already is that of our own new file."""
        return False

    def _published(self, folder: Path) -> None:
        """Called when `folder` has a new name: where it has to outlive a crash of the machine, it is put on disk."""

    def _walk(self, start: Path) -> Iterator[Path]:
        """Everything below a folder but folders, in order of their paths. Raises TaskError for one that cannot be read.

        Links are followed, but for those that lead to a folder above themselves, whose files are listed anyway.
        """
        waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(start, frozenset())]
        while waiting:
            path, above = waiting.pop()
            if not path.is_dir():
                yield path
                continue
            if path.is_symlink():
                self._inside(path)
            try:
                stat = path.stat()
                entries = sorted(path.iterdir(), reverse=True)
            except FileNotFoundError:
                continue  # removed since
            except OSError as error:
                raise self._failed(path.relative_to(self.root).as_posix(), error) from error
            if (identity := (stat.st_dev, stat.st_ino)) not in above:
                waiting += [(entry, above | {identity}) for entry in entries]

    def head(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        try:
            return _info(key, path.stat()) if path.is_file() else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(key, error) from error

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
            self._opened_inside(fd, key)
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
                self._published(path.parent)
            except FileExistsError:
                return self._is_ours(temporary, path)
            except OSError as error:
                if exclusive and error.errno in _NO_LINKS:
                    raise UnsupportedByStore(f"no hard links: {error.strerror}") from error
                raise
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
            try:
                shutil.copyfile(path, temporary)
                _sync(temporary)
                temporary.replace(target)
                self._published(target.parent)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(key, error) from error

    def delete(self, key: str) -> None:
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(key, error) from error

    def delete_many(self, keys: Sequence[str]) -> dict[str, str]:
        refused = {}
        for key in keys:
            try:
                self.delete(key)
            except TaskError as error:
                refused[key] = f"{error.reason}: {error}"
        return refused

    def discard_unfinished(
        self, prefix: str, older_than: float, *, ours: Callable[[str], bool], dry_run: bool = False
    ) -> int:
        start, oldest, found = self._path(prefix), time.time() - older_than, 0
        for path in start.rglob(".*.*"):
            if not ours(path.with_name(_named(path)).relative_to(self.root).as_posix()):
                continue
            with contextlib.suppress(OSError):  # another builder tidies up, too
                if path.is_file() and path.stat().st_mtime <= oldest:
                    if not dry_run:
                        path.unlink()
                    found += 1
        return found

    @staticmethod
    def _temporary(path: Path) -> Path:
        """A new file beside `path`, which others may read; see `_named`."""
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.fchmod(fd, 0o644)
        os.close(fd)
        return Path(name)

    def _failed(self, key: str, error: OSError) -> TaskError:
        if isinstance(error, PermissionError):
            return TaskError(
                "AccessDenied",
                f"{self.describe(key)}: {error.strerror}",
                object=key,
                field=self._field,
                remedy="Give this user the right to it, or name another folder.",
                exit_code=self.role.refusal_code,
            )
        remedy = f"Make room there, or name another folder in {self.role.field}."
        return StoreUnavailable(
            "StoreUnavailable", f"{self.describe(key)}: {error.strerror or error}", object=key, remedy=remedy
        )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _info(key: str, stat: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, stat.st_size, f"{stat.st_size:x}-{stat.st_mtime_ns:x}", stat.st_mtime)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _named(temporary: Path) -> str:
    """What a temporary file was to become."""
    return temporary.name[1:].rpartition(".")[0]
