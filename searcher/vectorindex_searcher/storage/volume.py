"""The adapter of store.Store for a mounted volume: a folder (folder.py) with the promises that a pod needs of one.

Whoever may write to the volume may put links there. One that leads out of it would show the pod's other volumes, or its
environment with the keys of other stores, as rows of a source: nothing is listed, read or written through such a link.
What is read is judged by where the open file is, so that no link can be put in between.

A network file system fails now and then: what is read is tried again, as in S3. What is published is on disk with its
name before anybody is told.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ..contract import Volume
from ..errors import BadData, StoreUnavailable, TaskError
from .folder import FolderStore
from .store import CHUNK_BYTES, Role

ATTEMPTS = 5
_PASSES = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ECONNRESET, errno.EHOSTDOWN})
"""What a network file system answers that works again a moment later."""
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_SYNC = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF})
"""Of file systems that have nothing to sync of a folder."""
_T = TypeVar("_T")


class VolumeStore(FolderStore):
    """A volume mounted at `mount`. `prefix` is the location's; keys are paths below the top of the volume.

    etag: as of a folder, size and time of change in nanoseconds. No inode: some network file systems number files anew
    with each mount, so that every pod would see other data.
    """

    def __init__(self, volume: Volume, role: Role, mount: Path) -> None:
        super().__init__(mount, role, field=f"{role.field}.{volume.kind}")
        self.prefix = volume.path.strip("/")
        self._volume = volume
        self._real = Path(os.path.realpath(mount))

    def describe(self, key: str) -> str:
        return self._volume.url(key)

    def _path(self, key: str) -> Path:
        return self._inside(super()._path(key))

    def _inside(self, path: Path) -> Path:
        if not Path(os.path.realpath(path)).is_relative_to(self._real):
            raise self._leads_out(path.relative_to(self.root).as_posix())
        return path

    def _opened_inside(self, fd: int, key: str) -> None:
        if not Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(self._real):
            raise self._leads_out(key)

    def _missing_root(self) -> TaskError:
        remedy = f"Run it in a pod that has the claim of {self._field} mounted there."
        message = f"{self.describe('')}: no volume is mounted at {self.root}"
        return StoreUnavailable("VolumeNotMounted", message, field=self._field, remedy=remedy)

    def _leads_out(self, key: str) -> BadData:
        message = f"{self.describe(key)} is, or lies behind, a link that leads out of the volume"
        return BadData(
            "LinkLeavesVolume", message, object=key, field=self._field, remedy="Put the files there instead."
        )

    def read(self, key: str, *, etag: str | None = None, offset: int = 0, length: int | None = None) -> bytes:
        return self._again(lambda: super(VolumeStore, self).read(key, etag=etag, offset=offset, length=length))

    def stream(self, key: str, *, etag: str | None = None) -> Iterator[bytes]:
        position = 0
        info = self._again(lambda: self.head(key)) if etag is None else None
        etag = etag or (info.etag if info is not None else None)  # what is opened again must be the same file
        while chunk := self.read(key, etag=etag, offset=position, length=CHUNK_BYTES):
            position += len(chunk)
            yield chunk

    def _again(self, read: Callable[[], _T]) -> _T:
        """What `read` answers, tried a few times where that may help."""
        for failures in range(1, ATTEMPTS):
            try:
                return read()
            except StoreUnavailable as error:
                cause = error.__cause__
                if not isinstance(cause, OSError) or cause.errno not in _PASSES:
                    raise
                time.sleep(0.2 * 2**failures)
        return read()

    def _is_ours(self, temporary: Path, path: Path) -> bool:
        """A server that was asked twice to make the link says the second time that it exists: it is ours then."""
        return path.exists() and path.stat().st_ino == temporary.stat().st_ino

    def _published(self, folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise
        finally:
            os.close(fd)

    def _failed(self, key: str, error: OSError) -> TaskError:
        where = f"{self.describe(key)}: {error.strerror or error}"
        if error.errno in _REFUSED:
            remedy = "Give the pod's user (or its group) the right to it" + (
                ", and let it write there." if self.role is Role.ARTIFACTS else " to read it."
            )
            return TaskError(
                "AccessDenied", where, object=key, field=self._field, remedy=remedy, exit_code=self.role.refusal_code
            )
        remedy = "Make room on the volume." if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Check the volume."
        return StoreUnavailable("StoreUnavailable", where, object=key, field=self._field, remedy=remedy)
