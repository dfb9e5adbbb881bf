"""Killed between any two writes: what is there then is whole or does not count, and the next try ends it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vectorindex_searcher.artifact.layout import Layout
from vectorindex_searcher.artifact.manifest import Manifest, describe_bytes, find_manifest
from vectorindex_searcher.build import task as build_module
from vectorindex_searcher.build.task import build
from vectorindex_searcher.contract import (
    BuildResult,
    BuildTask,
    Identity,
    IndexSpec,
    Location,
    ServeTask,
    ValidateResult,
    ValidateTask,
)
from vectorindex_searcher.errors import StoreUnavailable, TaskError
from vectorindex_searcher.proof import task as proof_module
from vectorindex_searcher.proof.report import load_report
from vectorindex_searcher.proof.task import validate
from vectorindex_searcher.serve.load import load
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

IDENTITY = Identity(namespace="shop", name="products", uid="u-1")
DIMENSION = 8
BESIDE = ["canary.arrow", "points.json", "report.html"]


class Killed(BaseException):
    """The process is gone: nothing catches this, and nothing is written after it."""


class Writes:
    """Counts the writes of all stores, and ends the process at one of them, before or after it is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: list[str] = []
        self._last, self._done = 0, False
        self._lock = threading.Lock()
        for name in ("put", "upload"):
            monkeypatch.setattr(FolderStore, name, self._counted(getattr(FolderStore, name)))
        monkeypatch.setattr(FolderStore, "delete", self._counted(FolderStore.delete, writes=False))

    def kill_at(self, number: int, *, done: bool) -> None:
        """At the write of this number from now on; `done`: it was made, and the process did not live to know it."""
        self.keys, self._last, self._done = [], number, done

    def live(self) -> None:
        self.kill_at(0, done=False)

    def _counted(self, real: Callable[..., Any], *, writes: bool = True) -> Callable[..., Any]:
        def counted(store: FolderStore, key: str, *given: Any, **asked: Any) -> Any:
            with self._lock:  # of several threads one write is the last
                if self._last and len(self.keys) >= self._last:
                    raise Killed
                if writes:
                    self.keys.append(key)
                last = writes and self._last == len(self.keys)
                if last and not self._done:
                    raise Killed
                answer = real(store, key, *given, **asked)
                if last:
                    raise Killed
                return answer

        return counted


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "HELD_OUT", 10)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr("vectorindex_searcher.index.choose.tuning.LATENCY_QUERIES", 1)
    monkeypatch.setattr("vectorindex_searcher.proof.timing.LATENCY_CALLS", 1)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Writes:
    return Writes(monkeypatch)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    np.save(folder / "a.npy", np.random.default_rng(0).standard_normal((300, DIMENSION), dtype=np.float32))
    return folder


def stored(out: Path) -> tuple[FolderStore, Layout]:
    store = FolderStore(out, Role.ARTIFACTS)
    return store, Layout(store.prefix, IDENTITY)


def built(source: Path, out: Path) -> BuildResult:
    """As the pods of one Job do: all of one attempt."""
    places = {"source": Location(folder=str(source)), "artifacts": Location(folder=str(out))}
    task = BuildTask(identity=IDENTITY, digest="d", index=IndexSpec(factory="IVF4,Flat"), attempt="build-1", **places)
    return build(task, checkpoint_after_seconds=0)


def measured(out: Path, manifest_sha256: str) -> ValidateResult:
    place = Location(folder=str(out))
    task = ValidateTask(identity=IDENTITY, digest="d", manifest_sha256=manifest_sha256, gate_hash="g", artifacts=place)
    return validate(task)


def named(out: Path) -> list[str]:
    """The files that the report names, each found as it says."""
    store, layout = stored(out)
    report, _ = load_report(store, layout, "d", "g")
    for file in report.files:
        assert describe_bytes(file.name, store.read(layout.report("d", "g", file.name))) == file
    return sorted(file.name for file in report.files)


def served(out: Path, manifest_sha256: str, report_sha256: str, cache: Path) -> None:
    """As a searcher takes it: every file by its checksum, and the canary answered."""
    task = ServeTask(
        identity=IDENTITY, revision="r", digest="d", manifest_sha256=manifest_sha256, gate_hash="g",
        report_sha256=report_sha256, artifacts=Location(folder=str(out)), cache_dir=str(cache),
    )  # fmt: skip
    load(task, lambda said: None).held.close()


def deaths(count: int) -> Iterator[tuple[int, bool]]:
    return ((number, done) for number in range(1, count + 1) for done in (False, True))


def test_a_build_that_was_killed_at_any_write_has_published_nothing_or_all(
    source: Path, tmp_path: Path, writes: Writes
) -> None:
    built(source, tmp_path / "whole")
    keys = list(writes.keys)
    assert keys[-1].endswith("/manifest.json")
    assert sum(key.endswith(("index.faiss", "vectors.npy", "ids.arrow")) for key in keys) == 3
    for number, done in deaths(len(keys)):
        out = tmp_path / f"{number}-{done}"
        writes.kill_at(number, done=done)
        with pytest.raises(Killed):
            built(source, out)
        writes.live()
        found = find_manifest(*stored(out), "d")
        assert (found is not None) == (number == len(keys) and done), (writes.keys, number)
        assert built(source, out).reused == (found is not None)
        _, sha256 = find_manifest(*stored(out), "d") or pytest.fail("nothing is published")
        assert len([*out.rglob("index.faiss")]) == 1, "what the killed one had uploaded goes"
        assert not [*out.rglob("probe")]
        served(out, sha256, measured(out, sha256).report_sha256, tmp_path / f"cache-{number}-{done}")


def test_only_what_pods_of_the_same_job_left_goes(source: Path, tmp_path: Path) -> None:
    store, layout = stored(tmp_path)
    mine = layout.file("d", "build-1-00c0ffee", "index.faiss")
    others = {
        layout.file("d", attempt, "index.faiss")
        for attempt in ("build-2-00c0ffee", "build-1", "build-10-00c0ffee", "build", "build-1-later-00c0ffee")
    }
    others |= {layout.report("d", "g2"), layout.checkpoints("d2", "k", "x"), layout.file("e", "build-1-00c0ffee", "x")}
    for key in (mine, *others):
        store.put(key, b"x")
    built(source, tmp_path)
    left = {item.key for item in store.list("")}
    assert mine not in left
    assert others <= left


def test_who_was_given_up_and_goes_on_cannot_spoil_what_the_next_one_published(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that is cut off: its pod is replaced, and still uploads when the other one has published."""
    publish, winners = build_module.publish, list[BuildResult]()

    def late(store: FolderStore, layout: Layout, manifest: Manifest, folder: Path) -> Any:
        monkeypatch.setattr(build_module, "publish", publish)
        winners.append(built(source, tmp_path / "out"))
        (folder / "index.faiss").write_bytes(b"a graph that its threads linked in another order")
        return publish(store, layout, manifest, folder)

    monkeypatch.setattr(build_module, "publish", late)
    loser = built(source, tmp_path / "out")
    (winner,) = winners
    assert loser == winner.model_copy(update={"reused": True})
    told = measured(tmp_path / "out", winner.manifest_sha256)
    served(tmp_path / "out", winner.manifest_sha256, told.report_sha256, tmp_path / "cache")


@pytest.mark.parametrize("name", ["index.faiss", "measured.arrow"])
def test_an_upload_that_failed_publishes_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    real = FolderStore.upload

    def refused(store: FolderStore, key: str, path: Path) -> None:
        if key.endswith(name):
            raise StoreUnavailable("SlowDown", "later")
        real(store, key, path)

    monkeypatch.setattr(FolderStore, "upload", refused)
    with pytest.raises(StoreUnavailable):
        built(source, tmp_path)
    assert find_manifest(*stored(tmp_path), "d") is None


def test_a_gate_that_comes_late_and_is_killed_leaves_the_page_of_the_other(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: Writes
) -> None:
    sha256 = built(source, tmp_path).manifest_sha256
    publish = proof_module.publish_report

    def late(*given: Any) -> Any:
        monkeypatch.setattr(proof_module, "publish_report", publish)
        measured(tmp_path, sha256)
        writes.kill_at(1, done=True)
        return publish(*given)

    monkeypatch.setattr(proof_module, "publish_report", late)
    with contextlib.suppress(Killed):
        measured(tmp_path, sha256)
    writes.live()
    assert named(tmp_path) == BESIDE


@pytest.mark.parametrize("held", ["make_canary", "publish_report"])
def test_of_two_gates_at_once_one_tells_and_the_other_repeats_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    """One stands still before what it writes there, until the other is done; what each measured differs."""
    sha256 = built(source, tmp_path).manifest_sha256
    real, first = getattr(proof_module, held), list[ValidateResult]()

    def late(*given: Any) -> Any:
        monkeypatch.setattr(proof_module, held, real)
        first.append(measured(tmp_path, sha256))
        return real(*given).slice(0, 5) if held == "make_canary" else real(*given)

    monkeypatch.setattr(proof_module, held, late)
    second = measured(tmp_path, sha256)
    assert [second] == first
    assert named(tmp_path) == BESIDE
    served(tmp_path, sha256, second.report_sha256, tmp_path / "cache")


def test_a_gate_that_was_killed_at_any_write_has_told_nothing_or_all(
    source: Path, tmp_path: Path, writes: Writes
) -> None:
    sha256 = built(source, tmp_path / "whole").manifest_sha256
    writes.live()
    measured(tmp_path / "whole", sha256)
    keys = list(writes.keys)
    names = [key.rpartition("/")[2] for key in keys]
    assert names[-1] == "report.json"
    assert {"points.json", "canary.arrow", "report.html"} < set(names)
    for number, done in deaths(len(keys)):
        out = tmp_path / f"{number}-{done}"
        sha256 = built(source, out).manifest_sha256
        writes.kill_at(number, done=done)
        with pytest.raises(Killed):
            measured(out, sha256)
        writes.live()
        if told := number == len(keys) and done:
            report, report_sha256 = load_report(*stored(out), "d", "g")
        else:
            with pytest.raises(TaskError, match="does not exist"):
                load_report(*stored(out), "d", "g")
        if told:
            assert named(out) == BESIDE
        again = measured(out, sha256)
        if told:
            assert (again.report_sha256, again.canary_recall) == (report_sha256, report.canary_recall)
        assert named(out) == BESIDE
        served(out, sha256, again.report_sha256, tmp_path / f"cache-{number}-{done}")
