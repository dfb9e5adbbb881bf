"""From store to disk in parallel ranges, and the cache that searchers on a node share."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from vectorindex_searcher.artifact import publish, ranges
from vectorindex_searcher.artifact.layout import IDS_FILE, INDEX_FILE, RANGES_FILE, Layout
from vectorindex_searcher.artifact.manifest import Manifest, ManifestFile, describe_file
from vectorindex_searcher.artifact.publish import fetch_files
from vectorindex_searcher.contract import Identity
from vectorindex_searcher.errors import BadData, BadSpec, ChecksumMismatch, RetryableError, SourceChanged, TaskError
from vectorindex_searcher.serve.settings import Settings
from vectorindex_searcher.storage.cache import NodeCache, partial_prefix
from vectorindex_searcher.storage.download import RANGE_BYTES, Wanted, download
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

CONTENT = {"index.faiss": os.urandom(100_003), "ids.arrow": os.urandom(1), "empty": b"", "metadata.arrow": b"m" * 4096}
RANGE = 1000


class Remote(FolderStore):
    """A folder that notes what is asked of it, and may be slow, short or changed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, Role.ARTIFACTS)
        self.reads: list[tuple[str, int, int]] = []
        self.etags: list[str | None] = []
        self.now = self.most = 0
        self.before: Callable[[str, int], None] = lambda key, offset: None
        self._lock = threading.Lock()

    def read(self, key: str, *, etag: str | None = None, offset: int = 0, length: int | None = None) -> bytes:
        assert length is not None
        with self._lock:
            self.reads.append((key, offset, length))
            self.etags.append(etag)
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            self.before(key, offset)
            return super().read(key, etag=etag, offset=offset, length=length)
        finally:
            with self._lock:
                self.now -= 1


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    root = tmp_path / "store"
    root.mkdir()
    for name, data in CONTENT.items():
        (root / name).write_bytes(data)
    return Remote(root)


@pytest.fixture(params=["whole", "ranges"])
def wanted(tmp_path: Path, request: pytest.FixtureRequest) -> list[Wanted]:
    """Known by the SHA-256 of each file, or of its ranges: then that of the whole is not looked at."""
    folder = tmp_path / "cache"
    folder.mkdir()
    by_ranges = request.param == "ranges"
    return [
        Wanted(
            name,
            name,
            len(data),
            "0" * 64 if by_ranges and data else hashlib.sha256(data).hexdigest(),
            folder / name,
            hashes(data) if by_ranges else (),
        )
        for name, data in CONTENT.items()
    ]


def hashes(data: bytes) -> tuple[str, ...]:
    return tuple(hashlib.sha256(data[at : at + RANGE]).hexdigest() for at in range(0, len(data), RANGE))


def files_of(wanted: list[Wanted]) -> dict[str, bytes]:
    """What lies in the folder, hidden files too."""
    return {path.name: path.read_bytes() for path in wanted[0].target.parent.iterdir()}


def test_every_file_arrives_whole_in_ranges_of_one_object(remote: Remote, wanted: list[Wanted]) -> None:
    # The first ranges are the slowest, so that later ones are there before them.
    remote.before = lambda key, offset: time.sleep(0.003 if offset < 2 * RANGE else 0)
    assert download(remote, wanted, range_bytes=RANGE, window=4) == tuple(wanted)
    assert files_of(wanted) == CONTENT
    assert None not in remote.etags
    assert max(length for _, _, length in remote.reads) == RANGE
    assert sum(length for _, _, length in remote.reads) == sum(map(len, CONTENT.values())), "no byte twice"


def test_ranges_are_fetched_side_by_side_and_never_more_than_the_window(remote: Remote, wanted: list[Wanted]) -> None:
    ahead: list[int] = []

    def before(key: str, offset: int) -> None:
        if (key, offset) == ("index.faiss", 0):
            # The hash waits for this one: how far do the others run ahead? As far as they may, and there they stop.
            end = time.monotonic() + 60
            while len(remote.reads) < 5 and time.monotonic() < end:
                time.sleep(0.002)
            time.sleep(0.1)
            ahead.append(len(remote.reads))

    remote.before = before
    download(remote, wanted, range_bytes=RANGE, window=5)
    assert ahead == [5]
    assert 2 <= remote.most <= 5


def test_what_is_there_is_verified_and_only_the_rest_fetched(remote: Remote, wanted: list[Wanted]) -> None:
    download(remote, wanted, range_bytes=RANGE)
    remote.reads.clear()
    assert download(remote, wanted, range_bytes=RANGE) == ()
    assert remote.reads == []
    damaged = bytearray(CONTENT["metadata.arrow"])
    damaged[7] ^= 1
    wanted[3].target.write_bytes(bytes(damaged))
    wanted[1].target.unlink()
    assert {one.name for one in download(remote, wanted, range_bytes=RANGE)} == {"ids.arrow", "metadata.arrow"}
    assert files_of(wanted) == CONTENT


def test_ranges_that_do_not_cover_the_file_are_refused(remote: Remote, wanted: list[Wanted]) -> None:
    data = CONTENT["index.faiss"]
    for known in (hashes(data)[:-1], hashes(data + b"x" * RANGE), hashes(b"x")):
        short = replace(wanted[0], ranges=known)
        with pytest.raises(ChecksumMismatch, match=f"of {len(known)} ranges"):
            download(remote, [short], range_bytes=RANGE)
        assert files_of(wanted) == {}


@pytest.mark.parametrize("at", [0, 999, 1000, 50_000, 100_002])
def test_no_byte_of_a_file_that_is_there_may_differ(remote: Remote, wanted: list[Wanted], at: int) -> None:
    download(remote, wanted, range_bytes=RANGE)
    damaged = bytearray(CONTENT["index.faiss"])
    damaged[at] ^= 1
    wanted[0].target.write_bytes(bytes(damaged))
    assert download(remote, wanted, range_bytes=RANGE) == (wanted[0],)
    assert files_of(wanted) == CONTENT


def test_an_artifact_says_the_ranges_of_its_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "RANGE_BYTES", RANGE)
    (tmp_path / "in").mkdir()
    for name, data in CONTENT.items():
        (tmp_path / "in" / name).write_bytes(data)
    hashed = [ranges.hash_file(tmp_path / "in" / name) for name in CONTENT]
    assert [one.file for one in hashed] == [describe_file(tmp_path / "in" / name) for name in CONTENT]
    small = [one for one in hashed if one.file.name in ("empty", "ids.arrow")]
    assert ranges.write_ranges(tmp_path / "in", small) == (), "no file is large"
    assert ranges.write_ranges(tmp_path / "in", hashed) == (describe_file(tmp_path / "in" / RANGES_FILE),)
    known = ranges.read_ranges(tmp_path / "in" / RANGES_FILE)
    assert known == {name: hashes(data) for name, data in CONTENT.items() if len(data) > RANGE}
    monkeypatch.setattr(ranges, "RANGE_BYTES", 2 * RANGE)
    assert ranges.read_ranges(tmp_path / "in" / RANGES_FILE) == {}, "other ranges than are fetched: of no use"
    (tmp_path / "in" / RANGES_FILE).write_bytes(b"{}")
    with pytest.raises(BadData, match=RANGES_FILE):
        ranges.read_ranges(tmp_path / "in" / RANGES_FILE)


def test_large_files_of_an_artifact_are_verified_by_their_ranges(tmp_path: Path) -> None:
    """And those of an artifact from before there were any, as a whole."""
    layout, data = Layout("", Identity(name="n")), os.urandom(RANGE_BYTES + 7)
    folder = tmp_path / "store" / layout.file("d", "a", "")
    folder.mkdir(parents=True)
    (folder / INDEX_FILE).write_bytes(data)
    (folder / IDS_FILE).write_bytes(b"small")
    hashed = [ranges.hash_file(folder / name) for name in (INDEX_FILE, IDS_FILE)]
    files = [*(one.file for one in hashed), *ranges.write_ranges(folder, hashed)]
    before = Manifest.model_construct(digest="d", attempt="a", files=files[:2])
    # Of the whole another SHA-256: it is not looked at where the ranges are known.
    files[0] = files[0].model_copy(update={"sha256": "0" * 64})
    since = Manifest.model_construct(digest="d", attempt="a", files=files)
    store = FolderStore(tmp_path / "store", Role.ARTIFACTS)
    for number, manifest in enumerate((before, since)):
        cached = publish.download_verified(store, layout, manifest, tmp_path / f"cache-{number}")
        assert (cached / INDEX_FILE).read_bytes() == data
        (cached / INDEX_FILE).write_bytes(data[:-1] + b"?")
        publish.download_verified(store, layout, manifest, tmp_path / f"cache-{number}")
        assert (cached / INDEX_FILE).read_bytes() == data
    (folder / INDEX_FILE).write_bytes(data[:-1] + b"?")
    for number, manifest in enumerate((before, since)):
        with pytest.raises(ChecksumMismatch, match=INDEX_FILE):
            publish.download_verified(store, layout, manifest, tmp_path / f"other-{number}")


def test_what_the_document_does_not_hold_is_verified_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "RANGE_BYTES", RANGE)
    monkeypatch.setattr(ranges, "DOCUMENT_LIMIT_BYTES", 90 * 80)
    for name, data in CONTENT.items():
        (tmp_path / name).write_bytes(data)
    hashed = [ranges.hash_file(tmp_path / name) for name in ("metadata.arrow", "index.faiss")]
    assert [one.name for one in ranges.write_ranges(tmp_path, hashed)] == [RANGES_FILE]
    assert list(ranges.read_ranges(tmp_path / RANGES_FILE)) == ["metadata.arrow"]
    assert (tmp_path / RANGES_FILE).stat().st_size < 90 * 80


def _flip(remote: Remote) -> None:
    path = remote.root / "index.faiss"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def _swap_midway(remote: Remote) -> None:
    def before(key: str, offset: int) -> None:
        if (key, offset) == ("index.faiss", 50 * RANGE):
            # In one step, as a store replaces an object: other ranges are read meanwhile.
            (remote.root / "other").write_bytes(CONTENT["index.faiss"][::-1])
            (remote.root / "other").replace(remote.root / "index.faiss")

    remote.before = before


def _shrink_midway(remote: Remote) -> None:
    def read(key: str, **options: object) -> bytes:
        data = FolderStore.read(remote, key, **options)  # type: ignore[arg-type]
        return data[:-1] if options["offset"] == 50 * RANGE else data

    remote.read = read  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (_flip, ChecksumMismatch, "SHA-256 is"),
        (_swap_midway, ChecksumMismatch, "changed while it was fetched"),
        (_shrink_midway, ChecksumMismatch, "only 50999 bytes came"),
        (lambda remote: (remote.root / "index.faiss").write_bytes(b"x" * 9), ChecksumMismatch, "is 9 bytes"),
        (lambda remote: (remote.root / "index.faiss").unlink(), RetryableError, "does not exist"),
    ],
)
def test_a_wrong_file_never_gets_its_name_and_leaves_nothing(
    remote: Remote, wanted: list[Wanted], damage: Callable[[Remote], None], error: type[TaskError], says: str
) -> None:
    damage(remote)
    with pytest.raises(error, match=says) as caught:
        download(remote, wanted, range_bytes=RANGE, window=4)
    assert not isinstance(caught.value, SourceChanged)
    assert caught.value.failure.object == "index.faiss"
    assert "index.faiss" not in files_of(wanted)
    assert not [name for name in files_of(wanted) if name.startswith(".")]


def test_a_full_disk_says_so_and_leaves_nothing(
    remote: Remote, wanted: list[Wanted], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: object, offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    folder = wanted[0].target.parent
    files = [(one.key, ManifestFile(name=one.name, size=one.size, sha256=one.sha256)) for one in wanted]
    with pytest.raises(RetryableError, match="no space in") as caught:
        fetch_files(remote, files, folder)
    assert caught.value.reason == "CacheFull"
    assert list(folder.iterdir()) == []


# ---------------------------------------------------------------- the node's cache


def artifact(cache: NodeCache, name: str, size: int, at: float) -> None:
    """An artifact that was used until `at` (unix seconds)."""
    held = cache.hold(name, size)
    (held.folder / "index.faiss").write_bytes(b"x" * size)
    held.close()
    os.utime(held.folder.parent / ".locks" / f"{name}.use", (at, at))


def kept(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.is_dir() and path.name != ".locks"}


def test_the_longest_unused_artifacts_go_first_and_only_as_many_as_needed(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path, 1000)
    for name, at in (("b", 200), ("a", 300), ("c", 100)):
        artifact(cache, name, 300, at)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_bytes(b"x" * 5000)
    cache.hold("d", 100).close()
    assert kept(tmp_path) == {"a", "b", "c", "d", "photos"}, "it fits exactly"
    cache.hold("d", 101).close()
    assert kept(tmp_path) == {"a", "b", "d", "photos"}
    cache.hold("c", 700).close()
    assert kept(tmp_path) == {"a", "c", "d", "photos"}


def test_using_an_artifact_again_makes_it_the_last_to_go(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path, 700)
    for name, at in (("a", 100), ("b", 200)):
        artifact(cache, name, 300, at)
    cache.hold("a", 300).close()
    cache.hold("c", 300).close()
    assert kept(tmp_path) == {"a", "c"}


def test_what_another_process_serves_is_never_removed_until_it_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = (
        "import pathlib,sys; from vectorindex_searcher.storage.cache import NodeCache;"
        "held = NodeCache(pathlib.Path(sys.argv[1])).hold('served', 300); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        (tmp_path / "served" / "index.faiss").write_bytes(b"x" * 300)
        os.utime(tmp_path / ".locks" / "served.use", (1, 1))
        cache = NodeCache(tmp_path, 400)
        cache.hold("next", 300).close()
        assert kept(tmp_path) == {"served", "next"}
        assert "less than what is in use" in caplog.text
        process.kill()
        process.wait()
        cache.hold("next", 300).close()
        assert kept(tmp_path) == {"next"}


def test_without_a_limit_nothing_goes(tmp_path: Path) -> None:
    for number in range(5):
        artifact(NodeCache(tmp_path), f"a{number}", 1000, number + 1)
    assert len(kept(tmp_path)) == 5


def test_what_another_pod_removes_while_room_is_made_is_no_fault(tmp_path: Path) -> None:
    """Many pods of a node make room at once: each removal can happen under another's look."""
    names = [f"a{number}" for number in range(40)]

    def use(offset: int) -> None:
        cache = NodeCache(tmp_path, 900)
        for turn in range(60):
            name = names[(offset + 7 * turn) % len(names)]
            held = cache.hold(name, 100)
            for number in range(3):
                (held.folder / f"{number}.faiss").write_bytes(b"x" * 100)
            held.close()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(use, 11 * number) for number in range(4)]:
            done.result()


@pytest.fixture
def threads() -> Iterator[list[threading.Thread]]:
    started: list[threading.Thread] = []
    yield started
    for thread in started:
        thread.join(60)


def test_the_second_that_fetches_waits_for_the_first_and_finds_its_files(
    tmp_path: Path, threads: list[threading.Thread]
) -> None:
    cache, order = NodeCache(tmp_path), []
    held = cache.hold("a", 1)
    leftover = held.folder / f"{partial_prefix('index.faiss')}1234"
    leftover.write_bytes(b"from a pod that was killed")

    def second() -> None:
        with cache.fetching("a"):
            order.append((held.folder / "index.faiss").exists())

    with cache.fetching("a"):
        assert not leftover.exists()
        threads.append(threading.Thread(target=second))
        threads[0].start()
        time.sleep(0.1)
        (held.folder / "index.faiss").write_bytes(b"x")
    threads[0].join(60)
    assert order == [True]


def test_a_file_system_without_locks_is_used_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(fd: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    cache = NodeCache(tmp_path, 10)
    artifact(cache, "a", 300, 1)
    with cache.fetching("b"):
        cache.hold("b", 300).close()
    assert kept(tmp_path) == {"a", "b"}, "nobody can tell whether it is in use"
    assert "no locks" in caplog.text


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("123", 123), ("20Gi", 20 << 30), ("1T", 10**12), ("5k", 5000), ("2Ki", 2048), ("3Mi", 3 << 20)],
)
def test_a_limit_may_have_a_unit(text: str, size: int) -> None:
    assert Settings.from_environment({"VECTORINDEX_CACHE_BYTES": text}).cache_bytes == size


@pytest.mark.parametrize("text", ["-1", "1.5Gi", "lots", "1gb", "Gi", "1K"])
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadSpec, match="VECTORINDEX_CACHE_BYTES"):
        Settings.from_environment({"VECTORINDEX_CACHE_BYTES": text})
