"""Publishing an artifact once, and fetching it verified.

An artifact is immutable: files first, manifest last and only if there is none, SHA-256 of every file checked before
anything opens it. This module must not open what it downloads, and knows nothing of FAISS.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

from ..errors import RetryableError, TaskError
from ..storage.download import RANGE_BYTES, Wanted, download
from ..storage.store import Store
from .layout import RANGES_FILE, SERVED_FILES, Layout
from .manifest import Manifest, ManifestFile, encode, load_manifest
from .ranges import Ranges, read_ranges

UPLOAD_THREADS = 4
UNFINISHED_SECONDS = 86_400.0
"""An upload that was begun so long ago and is not done belongs to a builder that was killed."""
ATTEMPT_CHARS = 63
_OWN_BYTES = 4
_OWN = re.compile(r"(.+)-[0-9a-f]{8}")
"""See own_attempt."""
_log = logging.getLogger(__name__)


def own_attempt(attempt: str) -> str:
    """A name of the attempt that no other process has. All pods of a Job have its attempt; one that was given up, since
    its node was cut off, may go on beside the next one, and neither may overwrite what the other has published.
    """
    return f"{attempt[: ATTEMPT_CHARS - 1 - 2 * _OWN_BYTES]}-{secrets.token_hex(_OWN_BYTES)}"


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
    if gone := store.discard_unfinished(layout.base, UNFINISHED_SECONDS, ours=layout.owns):
        _log.info("removed what killed builds had uploaded in part", extra={"uploads": gone})
    data = encode(manifest)
    if store.put(layout.manifest(manifest.digest), data, exclusive=True):
        _discard_killed(store, layout, manifest)
        return manifest, hashlib.sha256(data).hexdigest(), True
    published, sha256 = load_manifest(store, layout, manifest.digest)
    return published, sha256, published == manifest


def _discard_killed(store: Store, layout: Layout, manifest: Manifest) -> None:
    """Remove what other processes of the attempt have uploaded: no manifest will ever name it. What cannot be removed
    stays."""
    mine = _OWN.fullmatch(manifest.attempt)
    if mine is None:
        return
    try:
        for item in list(store.list(layout.attempts(manifest.digest))):
            other = _OWN.fullmatch(layout.attempt_of(manifest.digest, item.key))
            if other is not None and other[1] == mine[1] and other[0] != mine[0]:
                store.delete(item.key)
    except (TaskError, OSError) as error:
        _log.warning("what a killed build had uploaded stays", extra={"error": str(error)[:300]})


def cache_name(manifest: Manifest) -> str:
    """Name of an artifact's folder in a cache: of each shard one of its own."""
    part = "" if manifest.shard is None else f"{manifest.shard:04d}-"
    return f"{manifest.digest}-{part}{manifest.attempt}"


Note = Callable[[int, int], None]
"""Is told how many bytes were fetched, and how many were there already."""


def download_verified(
    store: Store,
    layout: Layout,
    manifest: Manifest,
    cache: Path,
    names: Iterable[str] | None = None,
    note: Note = lambda fetched, found: None,
) -> Path:
    """Fetch files of an artifact below `cache` and return the folder that holds them, each verified.

    `names`: which files (default: those a searcher must have); names the artifact lacks are skipped. Files that are in
    the cache already are verified again before they are used. `note`: for the files that were asked for. Raises
    ChecksumMismatch, Retry/CacheFull, TaskError.
    """
    wanted = [file for name in names or SERVED_FILES if (file := manifest.file(name)) is not None]
    folder = cache / cache_name(manifest)
    keyed = [(layout.file(manifest.digest, manifest.attempt, file.name), file) for file in wanted]
    ranges: Ranges = {}
    known = manifest.file(RANGES_FILE)
    if known is not None and any(file.size > RANGE_BYTES for file in wanted):
        fetch_files(store, [(layout.file(manifest.digest, manifest.attempt, known.name), known)], folder)
        ranges = read_ranges(folder / known.name)
    return fetch_files(store, keyed, folder, ranges, note)


def fetch_files(
    store: Store,
    files: Sequence[tuple[str, ManifestFile]],
    folder: Path,
    ranges: Ranges = MappingProxyType({}),
    note: Note = lambda fetched, found: None,
) -> Path:
    """Fetch (key, description) pairs into `folder` in parallel, verified; see `download_verified`."""
    wanted = [
        Wanted(key, file.name, file.size, file.sha256, folder / file.name, ranges.get(file.name, ()))
        for key, file in files
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fetched = download(store, wanted)
    except OSError as error:
        raise cache_error(error, folder, sum(one.size for one in wanted)) from error
    facts = {
        "fetched": sum(one.size for one in fetched),
        "found": sum(one.size for one in wanted if one not in fetched),
    }
    note(facts["fetched"], facts["found"])
    _log.debug("files verified", extra={"folder": str(folder), **facts})
    return folder


def cache_error(error: OSError, folder: Path, needed: int) -> TaskError:
    """What to tell about a cache folder that cannot take `needed` bytes."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        message = f"no space in {folder} for {needed} bytes"
        more = "in a pod: more ephemeral storage, or a larger searcher.cache"
        remedy = f"Free space there, or name another folder with --cache-dir ({more})."
        return RetryableError("CacheFull", message, remedy=remedy)
    remedy = "Name a folder that this user may write with --cache-dir (in a pod: its volume)."
    return TaskError("CacheUnusable", f"--cache-dir: {folder}: {error.strerror or error}", remedy=remedy)
