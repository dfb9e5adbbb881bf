"""A folder of artifacts that searchers on one node may share: who uses what, and what is removed when space is short.

One sub-folder an artifact, and beside them `.locks/` with two files an artifact: `NAME.use`, locked (flock, shared) by
every process that serves it, with the time of the last use as its modification time; and `NAME.fetch`, locked by the
one that fetches it while others wait for the result. The kernel releases both when a process dies. Only folders that
have a lock file are ever removed: the cache may have been put into a folder that holds other things.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOCKS = ".locks"
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_log = logging.getLogger(__name__)


class Held:
    """An artifact's folder in use: not removed by anybody until `close`, or until this process ends."""

    def __init__(self, folder: Path, fd: int) -> None:
        self.folder = folder
        self._fd = fd

    def close(self) -> None:
        """It may be removed from now on. More than once is allowed."""
        if self._fd >= 0:
            os.utime(self._fd)
            os.close(self._fd)
            self._fd = -1


class NodeCache:
    """The artifacts below `root`. `limit_bytes`: how much may lie there; 0: no limit.

    The limit is about what is kept for later: what is in use, or needed now, is never turned away for it.
    """

    def __init__(self, root: Path, limit_bytes: int = 0) -> None:
        self._root = root
        self._limit = limit_bytes

    def hold(self, name: str, size: int) -> Held:
        """Mark the folder of artifact `name` as in use, and make room for its `size` bytes: artifacts that nobody uses
        go, the one that was used longest ago first. Raises OSError.
        """
        fd = self._open(f"{name}.use")
        held = Held(self._root / name, fd)
        try:
            self._lock(fd, fcntl.LOCK_SH)
            self._make_room(size, name)
            held.folder.mkdir(parents=True, exist_ok=True)
            os.utime(fd)
        except BaseException:
            held.close()
            raise
        return held

    @contextmanager
    def fetching(self, name: str) -> Iterator[None]:
        """Only one process at a time: the second finds what the first has fetched. Leftovers of one that was killed
        are removed. Raises OSError.
        """
        fd = self._open(f"{name}.fetch")
        try:
            if self._lock(fd, fcntl.LOCK_EX):
                for leftover in (self._root / name).glob(".*"):
                    leftover.unlink(missing_ok=True)
            yield
        finally:
            os.close(fd)

    def _open(self, lock: str) -> int:
        locks = self._root / _LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        return os.open(locks / lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _lock(self, fd: int, how: int) -> bool:
        """Waits for the lock unless LOCK_NB is in `how`. False when it is another's, or the file system has none."""
        try:
            fcntl.flock(fd, how)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _log.warning("the cache's file system has no locks", extra={"folder": str(self._root)})
            return False
        return True

    def _make_room(self, size: int, keep: str) -> None:
        if not self._limit:
            return
        known = []
        for lock in (self._root / _LOCKS).glob("*.use"):
            folder = self._root / lock.stem
            if lock.stem != keep and folder.is_dir():
                with suppress(FileNotFoundError):  # another pod removes it at this moment
                    known.append((lock.stat().st_mtime_ns, _bytes_in(folder), folder))
        total = size + sum(held for _, held, _ in known)
        for _, held, folder in sorted(known):
            if total <= self._limit:
                return
            if self._remove(folder):
                total -= held
                _log.info("removed from the cache", extra={"artifact": folder.name, "bytes": held})
        if total > self._limit:
            extra = {"bytes": total, "limitBytes": self._limit, "folder": str(self._root)}
            _log.warning("the cache's limit is less than what is in use", extra=extra)

    def _remove(self, folder: Path) -> bool:
        """Remove an artifact that nobody uses. Who asks for it meanwhile waits, and fetches it anew."""
        fd = self._open(f"{folder.name}.use")
        try:
            if not self._lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB):
                return False
            with suppress(FileNotFoundError):  # another pod's removal was faster: gone is gone
                shutil.rmtree(folder)
            return True
        finally:
            os.close(fd)


def _bytes_in(folder: Path) -> int:
    """What its files take; one that goes while they are listed takes nothing."""
    total = 0
    for path in _files_below(folder):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _files_below(folder: Path) -> Iterator[Path]:
    """As os.walk, which passes over folders that vanish (Path.rglob raises)."""
    for where, _, names in os.walk(folder):
        yield from (Path(where, name) for name in names)
