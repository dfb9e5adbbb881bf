"""Files from a store to a local folder: in parallel ranges, through SHA-256, under their names only when right.

Ranges of all files form one queue. A bounded window of it is fetched at a time; each range is written where it belongs
as soon as it is there, so one connection's speed is no limit and memory is window times range. The thread that fetched
it hashes it, where its own SHA-256 is known; else it is hashed in its turn. Knows neither manifests nor FAISS.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..errors import ChecksumMismatch, RetryableError, SourceChanged
from .cache import partial_prefix
from .store import Store

RANGE_BYTES = 8 << 20
_PIECE_BYTES = 1 << 20
WINDOW = 8
"""Ranges that are fetched or wait for their hash: 64 MiB, twice that while a store puts its pieces together."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file: where it is, what it must be, where it goes. `name`: what messages call it; `sha256`: hex."""

    key: str
    name: str
    size: int
    sha256: str
    target: Path
    ranges: tuple[str, ...] = ()
    """SHA-256 of each range that is fetched of it, hex: verified in place of that of the whole. Empty: not known."""


@dataclass(slots=True)
class _Partial:
    """A file under way, next to its target under a name of its own."""

    wanted: Wanted
    etag: str
    path: Path
    fd: int
    hasher: hashlib._Hash
    received: int = 0


@dataclass(frozen=True, slots=True)
class _Range:
    file: _Partial
    number: int
    offset: int
    length: int


def download(
    store: Store, wanted: Sequence[Wanted], *, range_bytes: int = RANGE_BYTES, window: int = WINDOW
) -> tuple[Wanted, ...]:
    """Bring every file to its target, whose folder exists; returns those that were fetched.

    A file that is there already is hashed, and fetched again when it is not the right one. Raises ChecksumMismatch when
    the store has another file than wanted, Retry/ArtifactNotFound when it has none, OSError for a full or broken disk.
    """
    for one in wanted:
        if one.ranges and len(one.ranges) != -(-one.size // range_bytes):
            raise ChecksumMismatch(one.name, f"has {one.size} bytes and the SHA-256 of {len(one.ranges)} ranges")
    pool = ThreadPoolExecutor(window, thread_name_prefix="fetch")
    with ExitStack() as cleanup:
        # Entered first, so it runs last: no thread may still write to a file that is closed.
        partials: list[_Partial] = []
        cleanup.callback(_discard, partials)
        cleanup.callback(pool.shutdown, cancel_futures=True)
        checks = [_checks(one, pool, range_bytes) for one in wanted]
        missing = [one for one, some in zip(wanted, checks, strict=True) if not _all_right(some)]
        etags = list(pool.map(lambda one: _etag(store, one), missing))
        waiting: deque[tuple[_Range, Future[bytes]]] = deque()
        for piece in _ranges(missing, etags, partials, range_bytes):
            if len(waiting) == window:
                _take(*waiting.popleft(), partials)
            waiting.append((piece, pool.submit(_fetch, store, piece)))
        while waiting:
            _take(*waiting.popleft(), partials)
    return tuple(missing)


def hash_range(path: Path, offset: int, length: int) -> str:
    """SHA-256 of so many bytes of a file from `offset` on, or of all up to its end. Memory: a piece."""
    hasher = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while length and (piece := file.read(min(length, _PIECE_BYTES))):
            hasher.update(piece)
            length -= len(piece)
    return hasher.hexdigest()


def _checks(one: Wanted, pool: ThreadPoolExecutor, size: int) -> list[Future[bool]]:
    """All that must be true for a file to be there already."""
    if not one.ranges or not _has_size(one):
        return [pool.submit(_is_there, one)]
    return [pool.submit(_is_range, one, number, size) for number in range(len(one.ranges))]


def _all_right(checks: Sequence[Future[bool]]) -> bool:
    if all(check.result() for check in checks):
        return True
    for check in checks:
        check.cancel()
    return False


def _has_size(one: Wanted) -> bool:
    return one.target.is_file() and one.target.stat().st_size == one.size


def _is_range(one: Wanted, number: int, size: int) -> bool:
    return hash_range(one.target, number * size, size) == one.ranges[number]


def _is_there(one: Wanted) -> bool:
    if not _has_size(one):
        return False
    with one.target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == one.sha256


def _etag(store: Store, one: Wanted) -> str:
    """What pins every range to one object. Looks at the size first: a swapped object cannot fill the disk."""
    info = store.head(one.key)
    if info is None:
        remedy = "A file of the artifact was deleted: delete what is left of the revision, then build it again."
        raise RetryableError(
            "ArtifactNotFound", f"{store.describe(one.key)} does not exist", object=one.key, remedy=remedy
        )
    if info.size != one.size:
        raise ChecksumMismatch(one.name, f"is {info.size} bytes, the manifest says {one.size}")
    return info.etag


def _ranges(missing: Sequence[Wanted], etags: Sequence[str], partials: list[_Partial], size: int) -> Iterator[_Range]:
    """The ranges of all files in order; a file is begun when its first range is asked for."""
    for one, etag in zip(missing, etags, strict=True):
        path = one.target.with_name(f"{partial_prefix(one.target.name)}{secrets.token_hex(4)}")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        file = _Partial(one, etag, path, fd, hashlib.sha256())
        partials.append(file)
        for number, offset in enumerate(range(0, max(one.size, 1), size)):
            yield _Range(file, number, offset, min(size, one.size - offset))


def _fetch(store: Store, piece: _Range) -> bytes:
    """On a thread: fetch a range and write it at its place. Verified, where its own SHA-256 is known."""
    file = piece.file
    try:
        data = store.read(file.wanted.key, etag=file.etag, offset=piece.offset, length=piece.length)
    except SourceChanged:
        # An artifact never changes: whoever replaced it, this is not what the manifest names.
        raise ChecksumMismatch(file.wanted.name, "changed while it was fetched") from None
    if len(data) != piece.length:
        detail = f"only {piece.offset + len(data)} bytes came, the manifest says {file.wanted.size}"
        raise ChecksumMismatch(file.wanted.name, detail)
    if file.wanted.ranges:
        found, said = hashlib.sha256(data).hexdigest(), file.wanted.ranges[piece.number]
        if found != said:
            raise ChecksumMismatch(file.wanted.name, f"SHA-256 is {found} from byte {piece.offset} on, not {said}")
    rest = memoryview(data)
    while rest:
        rest = rest[os.pwrite(file.fd, rest, piece.offset + piece.length - len(rest)) :]
    return data


def _take(piece: _Range, fetched: Future[bytes], partials: list[_Partial]) -> None:
    """Take the next range; with the last one of a file, judge the file and give it its name."""
    file = piece.file
    data = fetched.result()
    if not file.wanted.ranges:
        file.hasher.update(data)
    file.received += piece.length
    if file.received < file.wanted.size:
        return
    if not file.wanted.ranges and (found := file.hasher.hexdigest()) != file.wanted.sha256:
        raise ChecksumMismatch(file.wanted.name, f"SHA-256 is {found}, the manifest says {file.wanted.sha256}")
    partials.remove(file)
    try:
        os.close(file.fd)  # network file systems say here what they could not write
        # Atomic, and the same content whoever wins. Not synced: after a crash of the node the hash decides again.
        file.path.replace(file.wanted.target)
    except OSError:
        file.path.unlink(missing_ok=True)
        raise


def _discard(partials: list[_Partial]) -> None:
    for file in partials:
        os.close(file.fd)
        file.path.unlink(missing_ok=True)
