"""A folder of artifacts that searchers may share, on one node or on a network file system: who uses what, and what is
removed when space is short.

One sub-folder an artifact, and beside them `.locks/` with two files an artifact: `NAME.use`, locked (flock, shared) by
every process that serves it, with the time of the last use as its modification time; and `NAME.fetch`, locked by the
one that fetches it while others wait for the result. The kernel releases both when a process dies. Only folders that
have a lock file are ever removed: the cache may have been put into a folder that holds other things.

Locks of a network file system cannot be relied on alone: some hold on one node only, and a server that does not hear of
a client takes its locks away. So whoever serves an artifact also says so once a minute, by the time of its `.use`, and
what was used within ten minutes is not removed, whatever its lock says. Times are compared with each other as the file
system gives them, never with a clock of a node. If all of that fails, a searcher whose file went away crashes and
fetches it again: a file is never written under the name by which it is read, so none answers from wrong bytes.
(docs/adr/0066-a-cache-that-pods-share.md)
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOCKS = ".locks"
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_WORD_SECONDS = 60.0
"""How often who uses an artifact says so."""
IN_USE_SECONDS = 600.0
"""For so long after it was last said to be in use an artifact is not removed, whoever has its lock."""
STILL_SECONDS = 120.0
"""Who fetches and has written nothing for so long is waited for no more; a network file system may show what was
written a minute later."""
_LOOK_SECONDS = 0.1
_log = logging.getLogger(__name__)


def partial_prefix(name: str) -> str:
    """How the names of a file begin while this pod fetches it: nobody else takes one for its own."""
    return f".{name}.{socket.gethostname()}."


class Held:
    """An artifact's folder in use: not removed by anybody until `close`, or until this process ends."""

    def __init__(self, folder: Path, fd: int) -> None:
        self.folder = folder
        self._fd = fd
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def keep(self) -> None:
        """Say from now on that it is in use, from a thread of its own: a file system may take its time."""
        self._ended.clear()
        self._thread = threading.Thread(target=self._say, name="cache-use", daemon=True)
        self._thread.start()

    def rest(self) -> None:
        """Stop saying so for the moment: before a fork, since no child may find this thread's locks."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(1.0)
            self._thread = None

    def _say(self) -> None:
        while not self._ended.wait(_WORD_SECONDS):
            with suppress(OSError):
                os.utime(self._fd)

    def close(self) -> None:
        """It may be removed, once others see that it was not used for a while. More than once is allowed."""
        self.rest()
        if self._fd >= 0:
            os.utime(self._fd)
            os.close(self._fd)
            self._fd = -1


class NodeCache:
    """The artifacts below `root`. `limit_bytes`: how much may lie there; 0: no limit.

    The limit is about what is kept for later: what is or just was in use, or is needed now, is never turned away.
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
            os.utime(fd)
            self._make_room(size, name, os.fstat(fd).st_mtime)
            held.folder.mkdir(parents=True, exist_ok=True)
            held.keep()
        except BaseException:
            held.close()
            raise
        return held

    def free(self, name: str) -> bool:
        """The disk is full although the limit is kept: remove all that nobody uses, but artifact `name`. Whether
        anything went. Without a limit nothing does. Raises OSError.
        """
        if not self._limit:
            return False
        fd = self._open(f"{name}.use")
        try:
            os.utime(fd)
            now = os.fstat(fd).st_mtime
            return sum(self._remove(folder, now) for _, _, folder in self._others(name)) > 0
        finally:
            os.close(fd)

    @contextmanager
    def fetching(self, name: str) -> Iterator[None]:
        """Only one process at a time: the second finds what the first has fetched. One that fetches, and has written
        nothing for STILL_SECONDS, is not waited for. Leftovers of this pod, and old ones of others, are removed. Raises
        OSError.
        """
        fd = self._open(f"{name}.fetch")
        try:
            if self._turn(fd, self._root / name):
                os.utime(fd)
                self._remove_leftovers(self._root / name, os.fstat(fd).st_mtime)
            yield
        finally:
            os.close(fd)

    def _turn(self, fd: int, folder: Path) -> bool:
        """The lock of who fetches, once nobody else has it; False: without it."""
        seen, since = _newest(folder), time.monotonic()
        while (mine := self._lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)) is False:
            if (now := _newest(folder)) != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > STILL_SECONDS:
                _log.warning("who fetches it does not go on: fetching it, too", extra={"artifact": folder.name})
                return False
            time.sleep(_LOOK_SECONDS)
        return bool(mine)

    @staticmethod
    def _remove_leftovers(folder: Path, now: float) -> None:
        """Of this pod, which fetches nothing else; of others when nobody has written them for a while: their lock may
        hold on their node only."""
        for leftover in folder.glob(".*"):
            with suppress(FileNotFoundError):
                mine = f".{socket.gethostname()}." in leftover.name
                if mine or now - leftover.stat().st_mtime > IN_USE_SECONDS:
                    leftover.unlink()

    def _open(self, lock: str) -> int:
        locks = self._root / _LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        return os.open(locks / lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _lock(self, fd: int, how: int) -> bool | None:
        """Waits for the lock unless LOCK_NB is in `how`. False when it is another's, None: the file system has none."""
        try:
            fcntl.flock(fd, how)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _log.warning("the cache's file system has no locks", extra={"folder": str(self._root)})
            return None
        return True

    def _others(self, keep: str) -> list[tuple[int, int, Path]]:
        """When each artifact but `keep` was last used, its bytes, its folder: the one used longest ago first."""
        known = []
        for lock in (self._root / _LOCKS).glob("*.use"):
            folder = self._root / lock.stem
            if lock.stem != keep and folder.is_dir():
                with suppress(FileNotFoundError):  # another pod removes it at this moment
                    known.append((lock.stat().st_mtime_ns, _bytes_in(folder), folder))
        return sorted(known)

    def _make_room(self, size: int, keep: str, now: float) -> None:
        if not self._limit:
            return
        known = self._others(keep)
        total = size + sum(held for _, held, _ in known)
        for _, held, folder in known:
            if total <= self._limit:
                return
            if self._remove(folder, now):
                total -= held
                _log.info("removed from the cache", extra={"artifact": folder.name, "bytes": held})
        if total > self._limit:
            extra = {"bytes": total, "limitBytes": self._limit, "folder": str(self._root)}
            _log.warning("the cache's limit is less than what is in use", extra=extra)

    def _remove(self, folder: Path, now: float) -> bool:
        """Remove an artifact that nobody uses, nor has used within IN_USE_SECONDS before `now`, a time of the file
        system. Who asks for it meanwhile waits, and fetches it anew."""
        fd = -1
        try:
            fd = self._open(f"{folder.name}.use")
            if not self._lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB) or now - os.fstat(fd).st_mtime < IN_USE_SECONDS:
                return False
            with suppress(FileNotFoundError):  # another pod's removal was faster: gone is gone
                shutil.rmtree(folder)
            return True
        except OSError as error:  # of another user: it stays, and is no reason not to serve
            _log.warning("cannot remove from the cache", extra={"artifact": folder.name, "error": str(error)})
            return False
        finally:
            if fd >= 0:
                os.close(fd)


def _newest(folder: Path) -> int:
    """When something in it was last written, by the file system, in nanoseconds; 0: there is nothing."""
    newest = 0
    for path in _files_below(folder):
        with suppress(FileNotFoundError):
            newest = max(newest, path.stat().st_mtime_ns)
    return newest


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
