"""A cache that pods of several nodes share: one downloads, nothing in use is removed although locks may not hold from
node to node, and a full disk costs what nobody uses before it costs a pod."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from served import publish_all
from waiting import until

from vectorindex_searcher.artifact.publish import cache_error
from vectorindex_searcher.errors import TaskError
from vectorindex_searcher.serve import load
from vectorindex_searcher.storage import cache as caches
from vectorindex_searcher.storage.cache import IN_USE_SECONDS, NodeCache

CONTENT = os.urandom(1 << 20)
FETCHES = """
import sys
from pathlib import Path
from vectorindex_searcher.storage.cache import NodeCache
from vectorindex_searcher.storage.download import Wanted, download
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role
root, store, sha256 = Path(sys.argv[1]), FolderStore(Path(sys.argv[2]), Role.ARTIFACTS), sys.argv[3]
cache = NodeCache(root, 1 << 30)
print("up", flush=True)
sys.stdin.readline()
held = cache.hold("a", 1 << 20)
with cache.fetching("a"):
    wanted = Wanted("index.faiss", "index.faiss", 1 << 20, sha256, held.folder / "index.faiss")
    print(len(download(store, [wanted], range_bytes=1 << 16)), flush=True)
"""


def used(cache: NodeCache, root: Path, name: str, size: int, seconds_ago: float) -> Path:
    """An artifact that was last said to be in use so long ago, by nobody whose lock is seen here."""
    held = cache.hold(name, size)
    (held.folder / "index.faiss").write_bytes(b"x" * size)
    held.close()
    at = time.time() - seconds_ago
    os.utime(root / ".locks" / f"{name}.use", (at, at))
    return held.folder


def test_of_two_pods_that_begin_at_once_one_downloads(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "index.faiss").write_bytes(CONTENT)
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    command = [sys.executable, "-c", FETCHES, str(tmp_path / "cache"), str(tmp_path / "store"), sha256]
    pods = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for pod in pods:
        assert pod.stdout is not None
        assert pod.stdout.readline() == "up\n"
    answers = []
    for pod in pods:
        assert pod.stdin is not None
        pod.stdin.write("\n")
        pod.stdin.flush()
    for pod in pods:
        out, _ = pod.communicate(timeout=60)
        assert pod.returncode == 0
        answers.append(int(out))
    assert sorted(answers) == [0, 1]
    assert (tmp_path / "cache" / "a" / "index.faiss").read_bytes() == CONTENT


def test_what_a_pod_of_another_node_uses_stays_although_its_lock_is_not_seen(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path, 100)
    lately, long_ago = (used(cache, tmp_path, name, 300, IN_USE_SECONDS + by) for name, by in (("a", -60), ("b", 60)))
    cache.hold("c", 50).close()
    assert lately.exists()
    assert not long_ago.exists()


def test_who_holds_an_artifact_says_so_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "_WORD_SECONDS", 0.01)
    before = set(threading.enumerate())
    held = NodeCache(tmp_path, 100).hold("a", 1)
    lock = tmp_path / ".locks" / "a.use"
    for _ in range(2):  # before a fork, and after it
        os.utime(lock, (1, 1))
        until(lambda: lock.stat().st_mtime > 1)
        held.rest()
        os.utime(lock, (1, 1))
        assert set(threading.enumerate()) <= before
        held.keep()
    held.close()
    assert set(threading.enumerate()) <= before


def test_what_a_pod_of_another_node_is_fetching_is_not_removed_under_it(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path)
    folder = cache.hold("a", 1).folder
    lately, long_ago = folder / ".index.faiss.pod-1.12", folder / ".index.faiss.pod-2.34"
    for leftover, ago in ((lately, 10), (long_ago, IN_USE_SECONDS + 60)):
        leftover.write_bytes(b"half")
        os.utime(leftover, (time.time() - ago,) * 2)
    with cache.fetching("a"):
        assert lately.exists()
        assert not long_ago.exists()


def test_who_does_not_go_on_fetching_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(caches, "STILL_SECONDS", 0.3)
    monkeypatch.setattr(caches, "_LOOK_SECONDS", 0.01)
    cache = NodeCache(tmp_path)
    half = cache.hold("a", 1).folder / ".index.faiss.pod-1.12"
    stuck = os.open(tmp_path / ".locks" / "a.fetch", os.O_RDWR | os.O_CREAT)
    fcntl.flock(stuck, fcntl.LOCK_EX)
    began = time.monotonic()
    for size in range(5):  # it still goes on
        threading.Timer(0.1 * size, half.write_bytes, [b"x" * size]).start()
    at_last = threading.Timer(10, fcntl.flock, [stuck, fcntl.LOCK_UN])
    at_last.start()
    with cache.fetching("a"):
        assert 0.5 < time.monotonic() - began < 9
        assert half.exists()
    at_last.cancel()
    os.close(stuck)
    assert "does not go on" in caplog.text


def test_what_cannot_be_removed_stays_and_nothing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = NodeCache(tmp_path, 100)
    folder = used(cache, tmp_path, "theirs", 300, 2 * IN_USE_SECONDS)

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    cache.hold("mine", 50).close()
    assert folder.exists()


def test_a_full_disk_costs_what_nobody_uses_before_it_costs_the_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = publish_all(tmp_path / "index", ef_search=8)
    root = Path(published.task.cache_dir)
    cache, original = NodeCache(root, 1 << 40), load.download_verified
    lately, long_ago = (used(cache, root, name, 9, ago) for name, ago in (("a", 1), ("b", 2 * IN_USE_SECONDS)))

    def fetch(*given: object, **named: object) -> Path:
        if long_ago.exists():
            raise cache_error(OSError(errno.ENOSPC, "No space left on device"), root, 9)
        return original(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(load, "download_verified", fetch)
    loaded = load.load(published.task, print, 1 << 40)
    assert lately.exists()
    assert loaded.origins["store"] > 0 == loaded.origins["cache"]
    loaded.held.close()
    again = load.load(published.task, print, 1 << 40)
    assert again.origins == {"store": 0, "cache": loaded.origins["store"]}
    again.held.close()
    shutil.rmtree(root / again.held.folder.name)
    used(cache, root, "b", 9, 1)
    with pytest.raises(TaskError, match="no space in") as caught:
        load.load(published.task, print, 1 << 40)
    assert "searcher.cache" in caught.value.failure.remedy
