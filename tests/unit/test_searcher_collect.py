"""What `collect` removes and what it never touches; cut off anywhere, it leaves something sound and goes on."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from layers import CHECKOUT
from pydantic import ValidationError

from vectorindex_searcher.artifact import collect as collect_module
from vectorindex_searcher.artifact.collect import collect, plan
from vectorindex_searcher.artifact.layout import Kind, Layout
from vectorindex_searcher.artifact.manifest import Manifest, encode
from vectorindex_searcher.artifact.users import LEAVING, USING, mark_leaving, mark_used, users
from vectorindex_searcher.build.task import build
from vectorindex_searcher.cli.main import main
from vectorindex_searcher.contract import (
    TASK_ENV,
    BuildTask,
    CollectResult,
    CollectTask,
    Device,
    Embedding,
    ExitCode,
    Identity,
    IndexSpec,
    Location,
    OperatingPoint,
    ValidateTask,
)
from vectorindex_searcher.errors import StoreUnavailable, TaskError
from vectorindex_searcher.proof.task import validate
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import ObjectInfo, Role

OURS, THEIRS = "cluster-a", "cluster-b"
IDENTITY = Identity(namespace="team", name="docs", uid="uid-1")
LAYOUT = Layout("", IDENTITY)
DAY = 86_400.0


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    (tmp_path / "bucket").mkdir()
    return FolderStore(tmp_path / "bucket", Role.ARTIFACTS)


def task(store: FolderStore, *digests: str, **more: Any) -> CollectTask:
    of = {"identity": IDENTITY, "cluster": OURS, "artifacts": Location(folder=str(store.root))} | more
    return CollectTask(digests=digests, **of)


def manifest(digest: str, identity: Identity = IDENTITY) -> Manifest:
    return Manifest(
        digest=digest, attempt="a-1", identity=identity, fingerprint="f", embedding=Embedding(dimension=3),
        dimension=3, count=1, vector_dtype="float32", id_type="int64", factory="Flat", index_type="IndexFlatIP",
        default_point=OperatingPoint(recall=1, recall_low=1, latency_us=1), faiss_version="1", device=Device.CPU,
        duration_seconds=1, peak_memory_bytes=1, files=(),
    )  # fmt: skip


def published(
    store: FolderStore, digest: str, *clusters: str, identity: Identity = IDENTITY, reports: tuple[str, ...] = ("g1",)
) -> None:
    """An artifact as build and validate leave it, and files of an attempt that was killed."""
    layout = Layout("", identity)
    for cluster in clusters:
        mark_used(store, layout, digest, cluster)
    for name in ("index.faiss", "ids.arrow", "vectors.npy"):
        store.put(layout.file(digest, "a-1", name), b"file")
    store.put(layout.file(digest, "killed", "index.faiss"), b"half")
    store.put(layout.manifest(digest), encode(manifest(digest, identity)))
    for gate in reports:
        for name in ("report.json", "canary.arrow", "report.html"):
            store.put(layout.report(digest, gate, name), b"report")
    store.put(layout.checkpoints(digest, "0a", "checkpoint.json"), b"{}")


def keys(store: FolderStore) -> list[str]:
    return sorted(item.key for item in store.list(""))


# ---------------------------------------------------------------- what goes


def test_nothing_is_left_of_a_deleted_index_and_nothing_else_is_touched(store: FolderStore) -> None:
    for digest in ("d1", "d2"):
        published(store, digest, OURS)
    store.put(LAYOUT.listing("f" * 8), b"{}")
    store.put(LAYOUT.ground_truth("0" * 64, "arrow"), b"x")
    store.put(LAYOUT.live_queries("d1"), b"x")
    others = [
        Layout("", Identity(namespace="team", name="docs2")),
        Layout("", Identity(namespace="team", name="doc")),
        Layout("team/docs/d1", Identity(namespace="team", name="inside")),
        Layout("team/docs", Identity(namespace="d1", name="reports")),
    ]
    theirs = [one.manifest("d1") for one in others] + [one.file("d1", "a-1", "index.faiss") for one in others]
    theirs += [f"team/docs/{name}" for name in ("notes.txt", "d1/notes/a.txt", "d1/reports/g1/mine.json", "x/.y/probe")]
    for key in theirs:
        store.put(key, b"x")
    done = collect(task(store, everything=True))
    assert keys(store) == sorted(theirs)
    assert (done.artifacts, done.left, done.stays) == (2, 0, ())
    assert done.unknown > 0


def test_only_what_was_named_goes(store: FolderStore) -> None:
    for digest in ("d1", "d2", "d10"):
        published(store, digest, OURS)
    before = keys(store)
    done = collect(task(store, "d1"))
    assert keys(store) == [key for key in before if not key.startswith("team/docs/d1/")]
    assert (done.artifacts, done.objects, done.left) == (1, len(before) - len(keys(store)), 0)


def test_snapshots_of_fresh_rows_go_with_the_last_artifact_and_never_while_one_lives(store: FolderStore) -> None:
    for digest in ("d1", "d2"):
        published(store, digest, OURS)
    snapshots = [LAYOUT.fresh(number) for number in (1, 2)]
    for key in snapshots:
        store.put(key, b"{}")
    collect(task(store, "d1", listings=()))
    assert set(snapshots) <= set(keys(store)), "searchers of d2 agree by them"
    mark_used(store, LAYOUT, "d2", THEIRS)
    collect(task(store, everything=True))
    assert set(snapshots) <= set(keys(store)), "another cluster's do"
    mark_leaving(store, LAYOUT, "d2", THEIRS)
    collect(task(store, everything=True, cluster=THEIRS))
    assert keys(store) == []


def test_a_dry_run_says_what_would_go_and_removes_nothing(store: FolderStore) -> None:
    published(store, "d1", OURS)
    published(store, "d2", OURS, THEIRS)
    (store.root / "team" / "docs" / "d1" / "a-1" / ".index.faiss.x1").write_bytes(b"half")
    before = keys(store)
    said = collect(task(store, everything=True, dry_run=True))
    assert (keys(store), said.dry_run) == (before, True)
    assert store.read(LAYOUT.users("d1", OURS)) == USING
    done = collect(task(store, everything=True))
    assert (said.artifacts, said.uploads, said.left, said.stays) == (1, done.uploads, done.left, done.stays)
    assert (said.objects, said.bytes) == (done.objects, done.bytes)


def test_reports_that_nobody_names_go_and_the_artifact_stays(store: FolderStore) -> None:
    published(store, "d1", OURS, reports=("g1", "g2"))
    published(store, "d2", OURS, THEIRS, reports=("g1",))
    before = keys(store)
    done = collect(task(store, keep={"d1": ("g2",), "d2": ()}))
    gone = sorted(set(before) - set(keys(store)))
    assert gone == sorted(LAYOUT.report("d1", "g1", name) for name in ("report.json", "canary.arrow", "report.html"))
    assert done.objects == 3


def test_listings_that_nobody_names_go_when_they_are_a_day_old(store: FolderStore) -> None:
    for name, age in (("named", 3 * DAY), ("old", 2 * DAY), ("new", 0.0)):
        store.put(LAYOUT.listing(name), b"{}")
        moment = 1_700_000_000.0 - age
        os.utime(store.root / LAYOUT.listing(name), times=(moment, moment))
    collect(task(store))
    assert len(keys(store)) == 3, "unless somebody says which are named"
    collect(task(store, listings=("named",)))
    assert keys(store) == sorted(LAYOUT.listing(name) for name in ("named", "new"))


def test_uploads_of_a_build_that_may_run_are_spared(store: FolderStore) -> None:
    halves = [store.root / "team" / "docs" / digest / "a-1" / ".index.faiss.x1" for digest in ("d1", "d2", "d3")]
    for path, age in zip(halves, (0.0, 2 * DAY, 2 * DAY), strict=True):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half")
        moment = path.stat().st_mtime - age
        os.utime(path, times=(moment, moment))
    assert collect(task(store, building=("d2",))).uploads == 1
    assert [path.exists() for path in halves] == [True, True, False]
    assert collect(task(store, "d1", building=("d2",))).uploads == 1, "its Job is gone, so its age is no matter"
    assert [path.exists() for path in halves] == [False, True, False]


def half_uploaded(store: FolderStore, *parts: str) -> Path:
    """What a killed upload leaves: in a folder a file, at S3 parts that no listing shows."""
    path = store.root.joinpath(*parts, ".index.faiss.x1")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    return path


def test_uploads_go_before_the_last_object_that_shows_where_they_are(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in between, it would not look there again: the index is deleted, and nobody knows the digest."""
    published(store, "d1", OURS)
    half = half_uploaded(store, "team", "docs", "d1", "killed")
    removed: list[bool] = []

    class Watched(FolderStore):
        def delete_many(self, keys: Sequence[str]) -> dict[str, str]:
            removed.append(half.exists())
            return super().delete_many(keys)

    monkeypatch.setattr(collect_module, "open_store", lambda *_: Watched(store.root, Role.ARTIFACTS))
    assert collect(task(store, everything=True)).uploads == 1
    assert removed
    assert not any(removed)


def test_of_a_deleted_index_no_upload_stays_and_none_of_others_goes(store: FolderStore) -> None:
    ours = half_uploaded(store, "team", "docs", "d1", "a-1")
    others = [half_uploaded(store, "team", "docs", "sub", "d1", "a-1"), half_uploaded(store, "team", "docs", "notes")]
    for path in others:
        os.utime(path, times=(0, 0))  # however old they are
    store.put("team/docs/notes/README", b"somebody's")
    assert collect(task(store, everything=True)).uploads == 1
    assert not ours.exists()
    assert all(path.exists() for path in others)


def test_what_is_in_use_cannot_be_named(store: FolderStore) -> None:
    for use in ({"keep": {"d1": ()}}, {"building": ("d1",)}):
        with pytest.raises(ValidationError, match="d1 is to go, and in use"):
            task(store, "d1", **use)
    published(store, "d1", OURS)
    before = keys(store)
    collect(task(store, everything=True, keep={"d1": ("g1",)}))
    collect(task(store, everything=True, building=("d1",)))
    assert keys(store) == before


# ---------------------------------------------------------------- another cluster


def test_only_the_last_user_removes(store: FolderStore) -> None:
    published(store, "d1", OURS, THEIRS)
    store.put(LAYOUT.listing("f"), b"{}")
    before = keys(store)
    done = collect(task(store, everything=True))
    assert keys(store) == [key for key in before if key != LAYOUT.users("d1", OURS)]
    assert done.stays == (f"d1: used by {THEIRS}",)
    assert done.left == len(before) - 1
    assert collect(task(store, everything=True, cluster=THEIRS)).artifacts == 1
    assert keys(store) == []


def test_what_another_cluster_uses_never_lacks_its_manifest(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for a moment: a pod of theirs that starts just then would fail."""
    published(store, "d1", OURS, THEIRS)
    gone: list[str] = []
    real = FolderStore.delete
    monkeypatch.setattr(FolderStore, "delete", lambda self, key: (gone.append(key), real(self, key))[1])
    collect(task(store, "d1"))
    assert gone == [LAYOUT.users("d1", OURS)]


def test_two_that_leave_at_once_do_not_wait_for_each_other(store: FolderStore) -> None:
    published(store, "d1", OURS, THEIRS)
    mark_leaving(store, LAYOUT, "d1", THEIRS)
    collect(task(store, "d1"))
    assert keys(store) == []


def test_who_comes_while_the_manifest_goes_gets_it_back(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    published(store, "d1", OURS)
    before = {key: store.read(key) for key in keys(store) if "/users/" not in key}
    real = FolderStore.delete

    def meanwhile(self: FolderStore, key: str) -> None:
        if key == LAYOUT.manifest("d1"):
            mark_used(store, LAYOUT, "d1", THEIRS)
        real(self, key)

    monkeypatch.setattr(FolderStore, "delete", meanwhile)
    done = collect(task(store, "d1"))
    assert done.stays == (f"d1: used by {THEIRS}",)
    assert {key: store.read(key) for key in keys(store) if "/users/" not in key} == before
    assert [key for key in keys(store) if "/users/" in key] == [LAYOUT.users("d1", THEIRS)]


@pytest.mark.parametrize("who", [OURS, THEIRS])
def test_who_builds_it_again_meanwhile_keeps_what_it_writes(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """A build of our own, too, where a Job was cut off with its node and goes on later."""
    published(store, "d1", OURS)
    monkeypatch.setattr(collect_module, "DELETE_BATCH", 2)
    real, mine = FolderStore.delete_many, LAYOUT.file("d1", "b-1", "index.faiss")

    def meanwhile(self: FolderStore, keys: list[str]) -> dict[str, str]:
        mark_used(store, LAYOUT, "d1", who)
        store.put(mine, b"new")
        return real(self, keys)

    monkeypatch.setattr(FolderStore, "delete_many", meanwhile)
    assert collect(task(store, "d1")).stays == ("d1: somebody began to build it again",)
    assert (store.read(mine), store.read(LAYOUT.users("d1", who))) == (b"new", USING)


def test_a_job_of_ours_that_began_again_keeps_its_mark(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    published(store, "d1", OURS)
    real = FolderStore.delete

    def meanwhile(self: FolderStore, key: str) -> None:
        real(self, key)
        if key == LAYOUT.manifest("d1"):
            mark_used(store, LAYOUT, "d1", OURS)
            store.put(key, b"another")

    monkeypatch.setattr(FolderStore, "delete", meanwhile)
    assert collect(task(store, "d1")).stays == ("d1: published again",)
    assert store.read(LAYOUT.users("d1", OURS)) == USING
    assert store.read(LAYOUT.manifest("d1")) == b"another"


def test_what_was_built_for_another_index_and_bears_no_mark_of_ours_stays(store: FolderStore) -> None:
    published(store, "d1", identity=IDENTITY.model_copy(update={"uid": "uid-0"}))
    published(store, "d2", OURS, identity=IDENTITY.model_copy(update={"uid": "uid-0"}))
    published(store, "d3")
    store.put(LAYOUT.manifest("d4"), b"{")
    done = collect(task(store, everything=True))
    assert done.artifacts == 2, "one that bears our mark, and one of before marks that was built for us"
    assert [row.split(":")[0] for row in done.stays] == ["d1", "d4"]
    assert {LAYOUT.parse(key).digest for key in keys(store)} == {"d1", "d4"}  # type: ignore[union-attr]


def test_what_nobody_understands_among_the_marks_counts_as_a_user(store: FolderStore) -> None:
    published(store, "d1", OURS)
    store.put("team/docs/d1/users/x/y", b"leaving?")
    assert users(store, LAYOUT, "d1", but=OURS) == ["y"]
    assert collect(task(store, "d1")).artifacts == 0


# ---------------------------------------------------------------- cut off


class KilledError(Exception):
    pass


def writes(monkeypatch: pytest.MonkeyPatch, hook: Callable[[int], None]) -> None:
    """Call `hook` with a growing number before each change of the store."""
    count = itertools.count()
    for name in ("put", "delete"):
        real = getattr(FolderStore, name)

        def changed(self: FolderStore, *given: Any, real: Any = real, **more: Any) -> Any:
            hook(next(count))
            return real(self, *given, **more)

        monkeypatch.setattr(FolderStore, name, changed)


@pytest.mark.parametrize("everything", [True, False])
def test_killed_at_each_write_it_leaves_nothing_broken_and_goes_on(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch, everything: bool
) -> None:
    of = task(store, everything=True) if everything else task(store, "d1", "d2")
    for last in itertools.count():
        published(store, "d1", OURS, identity=IDENTITY.model_copy(update={"uid": "uid-0"}))
        published(store, "d2", OURS)
        whole = {digest: keys_of(store, digest) for digest in ("d1", "d2")}

        def killed(number: int, last: int = last) -> None:
            if number == last:
                raise KilledError

        with monkeypatch.context() as patch:
            writes(patch, killed)
            try:
                collect(of)
                break
            except KilledError:
                pass
        for digest, names in whole.items():
            if store.head(LAYOUT.manifest(digest)) is not None:
                assert keys_of(store, digest) == names, "whoever reads the manifest finds all that it names"
        collect(of)
        assert keys(store) == []
    assert keys(store) == []
    assert last > 20


def keys_of(store: FolderStore, digest: str) -> list[str]:
    return sorted(item.key for item in store.list(LAYOUT.attempts(digest)))


def test_what_the_store_refuses_is_told_by_key_and_the_rest_goes(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(store, "d1", OURS)
    published(store, "d2", OURS)
    held = LAYOUT.file("d1", "a-1", "index.faiss")
    real = FolderStore.delete

    def refusing(self: FolderStore, key: str) -> None:
        if key == held:
            raise TaskError("AccessDenied", "locked")
        real(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "delete", refusing)
        with pytest.raises(TaskError) as caught:
            collect(task(store, "d1", "d2"))
    assert (caught.value.reason, caught.value.exit_code) == ("NotRemoved", ExitCode.STORE_UNAVAILABLE)
    assert "1 of " in str(caught.value)
    assert caught.value.failure.object == held
    assert keys(store) == [held, LAYOUT.users("d1", OURS)], "the mark, so that the next run knows whose it is"
    assert store.read(LAYOUT.users("d1", OURS)) == LEAVING
    collect(task(store, "d1", "d2"))
    assert keys(store) == []


def test_a_store_that_does_not_answer_ends_it(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    published(store, "d1", OURS)

    def silent(self: FolderStore, prefix: str) -> None:
        raise StoreUnavailable("StoreUnavailable", "no answer")

    monkeypatch.setattr(FolderStore, "list", silent)
    with pytest.raises(StoreUnavailable):
        collect(task(store, "d1"))


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize(
    "key",
    [
        "", "team/docs", "team/docs2/d1/manifest.json", "team/doc/d1/manifest.json", "d1/manifest.json",
        "team/docs/manifest.json", "team/docs//manifest.json", "team/docs/../d1/manifest.json",
        "team/docs/listings/a/manifest.json", "team/docs/listings/a-1/index.faiss", "team/docs/live/manifest.json",
        "team/docs/d1/a-1/other.bin", "team/docs/d1/reports/g1/other.json", "team/docs/d1/reports/report.json",
        "team/docs/d1/a-1/b/index.faiss", "team/docs/d1/users/a/b", "team/docs/d1/checkpoints/k/index.faiss",
        "team/docs/d 1/manifest.json", "team/docs/d1/manifest.json/", "team/docs/groundtruth/a.txt",
        "x/team/docs/d1/manifest.json",
    ],
)  # fmt: skip
def test_a_key_that_no_verb_writes_is_not_ours(key: str) -> None:
    assert LAYOUT.parse(key) is None


def test_a_plan_holds_nothing_of_others_however_many_there_are() -> None:
    foreign = (ObjectInfo(f"team/docs/d1/notes/{number}", 1, "e") for number in range(5_000))
    mine = ObjectInfo(LAYOUT.manifest("d1"), 7, "e")
    of = CollectTask(identity=IDENTITY, artifacts=Location(folder="/x"), everything=True)
    found = plan(itertools.chain(foreign, [mine]), LAYOUT, of)
    assert (found.artifacts, found.reports, found.listings, found.last) == ({"d1": [mine]}, {}, [], [])
    assert found.unknown == 5_000


def test_all_that_build_and_gate_write_is_ours_and_they_mark_it(store: FolderStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    np.save(source / "a.npy", np.random.default_rng(0).standard_normal((600, 8), dtype=np.float32))
    places = {"identity": IDENTITY, "artifacts": Location(folder=str(store.root))}
    of = BuildTask(
        digest="d1", source=Location(folder=str(source)), index=IndexSpec(factory="IVF8,Flat"), cluster=OURS, **places
    )
    built = build(of, checkpoint_after_seconds=0)
    assert [key for key in keys(store) if "/users/" in key] == [LAYOUT.users("d1", OURS)]
    assert build(of.model_copy(update={"cluster": THEIRS})).reused
    gate = ValidateTask(
        digest="d1", manifest_sha256=built.manifest_sha256, gate_hash="g1", cluster="cluster-c", **places
    )
    validate(gate)
    assert users(store, LAYOUT, "d1", but=OURS) == [THEIRS, "cluster-c"]
    kinds = {owned.kind for key in keys(store) if (owned := LAYOUT.parse(key)) is not None}
    assert kinds >= {Kind.MANIFEST, Kind.FILE, Kind.REPORT, Kind.USER, Kind.GROUND_TRUTH}
    assert [key for key in keys(store) if LAYOUT.parse(key) is None] == []
    for cluster in (OURS, THEIRS, "cluster-c"):
        assert keys(store)
        collect(task(store, everything=True, cluster=cluster))
    assert keys(store) == []


# ---------------------------------------------------------------- command line


def test_the_job_that_the_page_shows_has_a_task_that_is_read() -> None:
    text = (CHECKOUT / "docs" / "operations.md").read_text(encoding="utf-8")
    (job,) = [
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "[collect]" in block
    ]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (of,) = [one["value"] for one in container["env"] if one["name"] == TASK_ENV]
    shown = CollectTask.model_validate_json(of)
    assert (shown.everything, shown.dry_run) == (True, True), "a paste by mistake removes nothing"


def test_the_command_line(
    store: FolderStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vectorindex_searcher.cli.main.configure_logging", lambda verbose: None)
    published(store, "d1")

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        place = ["--artifact", str(store.root), "--namespace", "team", "--name", "docs"]
        code = main(["collect", *place, *arguments])
        return code, json.loads(capsys.readouterr().out)

    code, said = run()
    assert (code, said["reason"]) == (ExitCode.BAD_SPEC, "MissingFlag")
    assert "uid uid-1" in run("--digests", "d1")[1]["stays"][0]
    assert run("--everything", "--uid", "uid-1", "--dry-run")[1]["artifacts"] == 1
    assert keys(store)
    code, said = run("--digests", "d1", "--uid", "uid-1")
    assert (code, said["kind"], said["artifacts"], said["left"]) == (0, "Collect", 1, 0)
    assert keys(store) == []
    assert CollectResult.read(said).objects == said["objects"]
