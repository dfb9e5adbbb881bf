"""Volumes: what every store promises, what links must not do, and faults of a network file system."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_promises import Opened, StorePromises, below

from vectorindex_searcher.artifact.collect import collect
from vectorindex_searcher.artifact.inspection import inspect
from vectorindex_searcher.build.task import build
from vectorindex_searcher.contract import (
    BuildTask,
    CollectTask,
    ExitCode,
    Identity,
    IndexSpec,
    Location,
    ResolveTask,
    Volume,
    mount_dir,
)
from vectorindex_searcher.dataset.resolve import resolve
from vectorindex_searcher.errors import BadSpec, SourceChanged, TaskError
from vectorindex_searcher.storage import store as store_module
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role, open_store, parse_location
from vectorindex_searcher.storage.volume import VolumeStore

PLACE = Volume(claim_name="vectors", path="a/b/")


class TestFolder(StorePromises):
    many = 30

    @pytest.fixture
    def opened(self, tmp_path: Path) -> Opened:
        return lambda role: FolderStore(tmp_path / "folder", role)


class TestVolume(StorePromises):
    many = 30

    @pytest.fixture
    def opened(self, tmp_path: Path) -> Opened:
        (tmp_path / "mount").mkdir()
        return lambda role: VolumeStore(PLACE, role, tmp_path / "mount")


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    """A mounted volume, beside a file of the pod's that is none of it."""
    (tmp_path / "mount" / "a" / "b").mkdir(parents=True)
    (tmp_path / "environ").write_text("SOURCE_AWS_SECRET_ACCESS_KEY=hidden")
    return tmp_path / "mount"


def opened(mount: Path, role: Role = Role.SOURCE, path: str = "a/b/") -> VolumeStore:
    return VolumeStore(Volume(claim_name="vectors", path=path), role, mount)


def refusal(call: Any) -> TaskError:
    with pytest.raises(TaskError) as caught:
        call()
    return caught.value


# ---------------------------------------------------------------- links


@pytest.mark.parametrize("target", ["../../../environ", "{tmp}/environ", "../../..", "{tmp}"])
def test_a_link_out_of_the_volume_shows_nothing_of_the_pod(mount: Path, tmp_path: Path, target: str) -> None:
    store = opened(mount)
    (mount / "a/b/rows.jsonl").symlink_to(target.format(tmp=tmp_path))
    for call in (
        lambda: list(store.list("a/b")),
        lambda: store.head("a/b/rows.jsonl"),
        lambda: store.read("a/b/rows.jsonl"),
        lambda: list(store.stream("a/b/rows.jsonl")),
        lambda: store.read("a/b/rows.jsonl/environ"),
        lambda: opened(mount, Role.ARTIFACTS).put("a/b/rows.jsonl/new", b"x"),
    ):
        said = refusal(call)
        assert (said.reason, said.exit_code) == ("LinkLeavesVolume", ExitCode.BAD_DATA)
        assert said.failure.field in ("spec.source.volume", "spec.artifacts.volume")
        assert "hidden" not in str(said)
    assert (tmp_path / "environ").read_text().endswith("hidden")
    assert not (tmp_path / "new").exists()


def test_a_path_that_is_a_link_out_of_the_volume_is_refused(mount: Path, tmp_path: Path) -> None:
    (mount / "out").symlink_to(tmp_path)
    assert refusal(lambda: list(opened(mount, path="out").list("out"))).reason == "LinkLeavesVolume"


def test_links_within_the_volume_are_followed(mount: Path) -> None:
    """How many people say which delivery is today's."""
    (mount / "2026-11-28").mkdir()
    (mount / "2026-11-28/rows.jsonl").write_text("{}")
    (mount / "today").symlink_to("2026-11-28")
    store = opened(mount, path="today")
    (item,) = store.list(store.prefix)
    assert (item.key, store.read(item.key, etag=item.etag)) == ("today/rows.jsonl", b"{}")


def test_a_link_that_is_put_there_after_the_look_is_seen_by_what_was_opened(
    mount: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, key = opened(mount), "a/b/rows.jsonl"
    (mount / key).write_text("{}")
    really = os.open

    def swapped(path: Any, *more: Any, **named: Any) -> int:
        if str(path).endswith("rows.jsonl"):
            Path(path).unlink()
            Path(path).symlink_to(tmp_path / "environ")
        return really(path, *more, **named)

    monkeypatch.setattr("vectorindex_searcher.storage.folder.os.open", swapped)
    assert refusal(lambda: store.read(key)).reason == "LinkLeavesVolume"


def test_keys_cannot_leave_the_volume(mount: Path) -> None:
    for key in ("../environ", "/etc/hostname", "a/../../environ"):
        with pytest.raises(BadSpec):
            opened(mount).read(key)


@pytest.mark.parametrize("path", ["/a", "..", "a/..", "a/../b", ".", "a/./b", "a//b", "../a"])
def test_a_path_of_a_spec_stays_in_the_volume(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        Volume(claim_name="vectors", path=path)


@pytest.mark.parametrize("path", ["", "a", "a/", ".hidden", "..a", "...", "a b/c.d/", "ü"])
def test_a_path_of_a_spec_may_be_any_other(path: str) -> None:
    assert Volume(claim_name="vectors", path=path).root == path


# ---------------------------------------------------------------- faults


def failing(monkeypatch: pytest.MonkeyPatch, number: int, times: int) -> None:
    """The next reads fail so often."""
    really, left = os.pread, [times]

    def pread(*asked: Any) -> bytes:
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return really(*asked)

    monkeypatch.setattr("vectorindex_searcher.storage.folder.os.pread", pread)
    monkeypatch.setattr("vectorindex_searcher.storage.volume.time.sleep", lambda seconds: None)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_network_file_system_that_fails_for_a_moment_is_asked_again(
    mount: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (mount / "a/b/x").write_bytes(b"whole")
    failing(monkeypatch, number, 4)
    assert opened(mount).read("a/b/x") == b"whole"
    failing(monkeypatch, number, 1)
    assert b"".join(opened(mount).stream("a/b/x")) == b"whole"


def test_one_that_goes_on_failing_is_not_asked_for_ever(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mount / "a/b/x").write_bytes(b"whole")
    failing(monkeypatch, errno.EIO, 5)
    said = refusal(lambda: opened(mount).read("a/b/x"))
    assert (said.reason, said.exit_code, said.failure.field) == (
        "StoreUnavailable", ExitCode.STORE_UNAVAILABLE, "spec.source.volume",
    )  # fmt: skip
    assert str(said).startswith("volume://vectors/a/b/x: ")


def test_a_file_that_changes_while_it_is_streamed_is_seen(mount: Path) -> None:
    path = mount / "a/b/x"
    path.write_bytes(b"1" * (3 << 20))
    parts = opened(mount).stream("a/b/x")
    next(parts)
    path.write_bytes(b"2" * (2 << 20))
    with pytest.raises(SourceChanged):
        list(parts)


@pytest.mark.parametrize(
    ("number", "role", "reason", "code"),
    [
        (errno.EACCES, Role.SOURCE, "AccessDenied", ExitCode.SOURCE_MISSING),
        (errno.EROFS, Role.ARTIFACTS, "AccessDenied", ExitCode.STORE_UNAVAILABLE),
        (errno.ENOSPC, Role.ARTIFACTS, "StoreUnavailable", ExitCode.STORE_UNAVAILABLE),
    ],
)
def test_refusals_name_field_and_remedy(
    mount: Path, monkeypatch: pytest.MonkeyPatch, number: int, role: Role, reason: str, code: ExitCode
) -> None:
    def refuse(*asked: Any, **named: Any) -> Any:
        raise OSError(number, os.strerror(number))

    (mount / "a/b/x").write_bytes(b"x")
    store = opened(mount, role)
    monkeypatch.setattr("vectorindex_searcher.storage.folder.tempfile.mkstemp", refuse)
    monkeypatch.setattr("vectorindex_searcher.storage.folder.os.pread", refuse)
    said = refusal(lambda: store.put("a/b/y", b"y") if role is Role.ARTIFACTS else store.read("a/b/x"))
    assert (said.reason, said.exit_code, said.failure.field) == (reason, code, f"{role.field}.volume")
    assert said.failure.remedy


def test_what_is_published_is_on_disk_with_its_name(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    really = os.fsync

    def fsync(fd: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        really(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    opened(mount, Role.ARTIFACTS).put("a/b/manifest.json", b"{}", exclusive=True)
    name, folder = synced
    assert Path(name).name.startswith(".manifest.json."), "its content first"
    assert folder == str(mount / "a/b")


def test_a_server_that_makes_the_link_twice_did_make_it(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that was lost: the client asks again, and is told that the name exists."""
    really = os.link

    def twice(*names: Any) -> None:
        really(*names)
        really(*names)

    monkeypatch.setattr("vectorindex_searcher.storage.folder.os.link", twice)
    store = opened(mount, Role.ARTIFACTS)
    assert store.put("a/b/m", b"1", exclusive=True)
    monkeypatch.undo()
    assert not store.put("a/b/m", b"2", exclusive=True)


def test_what_a_job_writes_searchers_of_another_user_may_read(mount: Path) -> None:
    opened(mount, Role.ARTIFACTS).put("a/b/m", b"1")
    assert (mount / "a/b/m").stat().st_mode & 0o777 == 0o644


# ---------------------------------------------------------------- places and verbs


def test_a_pod_without_the_volume_says_so() -> None:
    for role in Role:
        store = open_store(Location(volume=PLACE), role)
        if role is not Role.ARTIFACTS:
            said = refusal(lambda: list(store.list(store.prefix)))  # noqa: B023
            assert (said.reason, said.failure.field) == ("VolumeNotMounted", f"{role.field}.volume")


def test_two_places_at_once_are_none() -> None:
    with pytest.raises(BadSpec):
        open_store(Location(volume=PLACE, folder="/x"), Role.SOURCE)
    with pytest.raises(BadSpec):
        open_store(Location(), Role.SOURCE)


def test_a_volume_as_it_is_typed_in_a_pod() -> None:
    assert parse_location("volume://vectors/a/b/") == Location(volume=PLACE)
    for bad in ("volume://", "volume://vectors/../x", "volume://Vectors/x"):
        with pytest.raises(BadSpec):
            parse_location(bad)


def test_places_below_one_another() -> None:
    outer = Volume(claim_name="vectors", path="a")
    assert PLACE.below(outer) == "a/b"
    assert PLACE.below(PLACE) == ""
    assert PLACE.below(Volume(claim_name="other", path="a")) == ""
    assert outer.below(PLACE) == ""


@pytest.fixture
def mounted(mount: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One claim for sources and artifacts, as in a pod."""
    monkeypatch.setattr(store_module, "mount_dir", lambda prefix: str(mount))
    return mount


def test_an_index_is_built_from_a_volume_onto_it_and_removed_again(mounted: Path) -> None:
    generator = np.random.default_rng(7)
    np.save(mounted / "a/b/rows.npy", generator.standard_normal((600, 8), dtype=np.float32))
    places = {
        "identity": Identity(namespace="n", name="docs", uid="u"),
        "artifacts": Location(volume=Volume(claim_name="vectors", path="a")),
    }
    source = Location(volume=PLACE)
    listed = resolve(ResolveTask(source=source, **places))
    assert listed.objects == 1
    built = build(
        BuildTask(digest="d1", fingerprint=listed.fingerprint, source=source, index=IndexSpec(factory="Flat"), **places)
    )
    assert built.count == 600
    assert resolve(ResolveTask(source=source, **places)).fingerprint == listed.fingerprint, "what it wrote is no data"
    assert any("docs" in line for line in inspect("volume://vectors/a/n/docs/d1/manifest.json"))
    collect(CollectTask(everything=True, **places))
    assert set(below(opened(mounted, Role.ARTIFACTS, "a"))) == {"b/rows.npy"}


def test_builders_on_one_volume_publish_once(mounted: Path) -> None:
    generator = np.random.default_rng(7)
    np.save(mounted / "a/b/rows.npy", generator.standard_normal((400, 8), dtype=np.float32))
    results: list[Any] = []

    def one(attempt: str) -> None:
        task = BuildTask(
            identity=Identity(namespace="n", name="docs", uid="u"),
            digest="d1",
            attempt=attempt,
            source=Location(volume=PLACE),
            artifacts=Location(volume=Volume(claim_name="indexes")),
            index=IndexSpec(factory="Flat"),
        )
        results.append(build(task))

    threads = [threading.Thread(target=one, args=(f"a{number}",)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({result.manifest_sha256 for result in results}) == 1, "both tell of the same artifact"


def test_where_pods_have_their_volumes() -> None:
    assert {mount_dir(role.env_prefix) for role in Role} == {
        "/var/lib/vectorindex/source", "/var/lib/vectorindex/artifacts", "/var/lib/vectorindex/queries",
        "/var/lib/vectorindex/encoder", "/var/lib/vectorindex/reranker",
    }  # fmt: skip
