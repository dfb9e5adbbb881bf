"""Files that somebody may replace while the searcher runs: mounted Secrets, renewed certificates.

Looked at every few seconds rather than watched: the kubelet swaps a symlink above the files, editors rename, and a
laptop's file system may have no events. Reads nothing but names and stat.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

POLL_SECONDS = 2.0
_log = logging.getLogger(__name__)
Signature = tuple[tuple[str, int, int, int], ...]


class Mounted(Protocol):
    """What is read from such files."""

    def refresh(self) -> None:
        """Read again if anything changed. Must not raise for what it finds; runs on a thread."""
        ...


def visible_files(folder: Path) -> list[Path]:
    """The files of a mounted folder, sorted; names with a leading dot are the kubelet's own (`..data`) or leftovers."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())


def signature(paths: Iterable[Path]) -> Signature:
    """Changes whenever one of the files is replaced or rewritten: name, inode, size and modification time of each.

    Links are followed, so the kubelet's swap of `..data` shows as other inodes. Raises OSError.
    """
    found = []
    for path in paths:
        stat = path.stat()
        found.append((str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(found)


async def watch(mounted: Sequence[Mounted], seconds: float = POLL_SECONDS) -> None:
    """Refresh them every `seconds`, for ever."""
    while True:
        await asyncio.sleep(seconds)
        for one in mounted:
            try:
                await asyncio.to_thread(one.refresh)
            except Exception:
                # A withdrawn token must not stay valid because something odd ended the watch an hour before.
                _log.exception("looking at a mounted file failed")
