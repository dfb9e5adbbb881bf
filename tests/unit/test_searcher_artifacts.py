"""A searcher looks whether another artifact of its index is there: one key, seldom, and "gone" is never a guess."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from clocks import Clock
from dataset_files import write_parquet
from unit.test_internal_requests import KEY, ME, ask, published, serving  # noqa: F401 - a fixture
from unit.test_searcher_serve_process import Published
from unit.test_searcher_store_faults import FaultyS3, faulty  # noqa: F401 - a fixture
from waiting import until

from vectorindex_searcher.artifact.layout import Layout
from vectorindex_searcher.contract import (
    S3,
    SOURCE_ENV,
    SOURCE_PATH,
    ArtifactLook,
    Found,
    Identity,
    InternalRequest,
    Location,
    ResolveTask,
    ServeTask,
    SourceLook,
    sign,
)
from vectorindex_searcher.serve import artifacts as looker
from vectorindex_searcher.serve.artifacts import NOT_YET, Artifacts
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import ObjectInfo

IDENTITY = Identity(namespace="team-a", name="docs", uid="uid-docs")
DIGEST, OTHER = "d1" * 32, "e2" * 32
T = TypeVar("T")


class Counted:
    """HEADs that were begun; held back while `gate` is closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.gate = threading.Event()
        self.gate.set()
        real = FolderStore.head

        def counted(store: FolderStore, key: str) -> ObjectInfo | None:
            self.count += 1
            assert self.gate.wait(60)
            return real(store, key)

        monkeypatch.setattr(FolderStore, "head", counted)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer waits until its look is made, however busy the machine is."""
    monkeypatch.setattr(looker, "WAIT_SECONDS", 60.0)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def task(place: Location) -> ServeTask:
    return ServeTask(identity=IDENTITY, revision="docs-1", digest="e" * 64, manifest_sha256="", artifacts=place)


def below(root: Path, clock: Clock | None = None) -> Artifacts:
    return Artifacts(task(Location(folder=str(root))), clock or Clock(1000.0))


def run(work: Callable[[], Awaitable[T]]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(work(), 60)

    return asyncio.run(bounded())


def looked(one: Artifacts, digest: str = DIGEST, max_age: float = 0.0) -> ArtifactLook:
    return run(lambda: one.look(digest, max_age))


def publish(root: Path, digest: str = DIGEST, identity: Identity = IDENTITY) -> Path:
    path = root / Layout("", identity).manifest(digest)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{}")
    return path


# ---------------------------------------------------------------- what is told


def test_an_artifact_is_there_gone_and_there_again(tmp_path: Path) -> None:
    manifest, clock = publish(tmp_path), Clock(1000.0)
    one = below(tmp_path, clock)
    found = []
    for _ in range(3):
        found.append(looked(one).found)
        manifest.unlink() if manifest.exists() else manifest.write_bytes(b"{}")
        clock.now += 5.0
    assert found == [Found.PRESENT, Found.ABSENT, Found.PRESENT]


def test_what_others_have_below_the_same_prefix_is_not_seen(tmp_path: Path) -> None:
    publish(tmp_path, identity=IDENTITY.model_copy(update={"namespace": "team-b"}))
    publish(tmp_path, identity=IDENTITY.model_copy(update={"name": "other"}))
    assert looked(below(tmp_path)).found == Found.ABSENT


def test_what_lies_below_the_key_is_not_the_manifest(tmp_path: Path) -> None:
    publish(tmp_path).unlink()
    key = tmp_path / Layout("", IDENTITY).manifest(DIGEST)
    key.mkdir()
    (key / "x").write_bytes(b"{}")
    assert looked(below(tmp_path)).found == Found.ABSENT


def test_one_key_is_looked_at_below_the_prefix_of_the_index(faulty: tuple[FaultyS3, str]) -> None:  # noqa: F811
    state, endpoint = faulty
    key = f"/bucket/indexes/team-a/docs/{DIGEST}/manifest.json"
    state.objects[key] = b"{}"
    clock = Clock(1000.0)
    one = Artifacts(task(Location(s3=S3(bucket="bucket", prefix="indexes/", endpoint=endpoint))), clock)
    assert looked(one).found == Found.PRESENT
    assert state.seen == [("HEAD", key, True)]
    state.seen.clear()
    clock.now += 1.0
    assert looked(one, OTHER).found == Found.ABSENT
    assert [(method, path) for method, path, _ in state.seen] == [
        ("HEAD", key.replace(DIGEST, OTHER)),
        ("GET", "/bucket"),  # a listing: what has no bucket lists nothing
    ]


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        ((403, "AccessDenied"), "AccessDenied"),
        ((404, "NoSuchBucket"), "BucketNotFound"),
        ((404, "NotFound"), "FileNotFoundError"),  # a proxy's: it knows nothing of objects
        ((400, "Whatever"), "StoreUnavailable"),
    ],
)
def test_a_store_that_refuses_has_not_said_that_it_is_gone(
    faulty: tuple[FaultyS3, str],  # noqa: F811
    refusal: tuple[int, str],
    reason: str,
) -> None:
    state, endpoint = faulty
    state.refuses = refusal
    found = looked(Artifacts(task(Location(s3=S3(bucket="bucket", endpoint=endpoint))), Clock(1000.0)))
    assert (found.found, found.reason) == (Found.UNKNOWN, reason)


@pytest.mark.parametrize("fault", [ZeroDivisionError("x\n" * 5000), PermissionError(13, "no")])
def test_a_failure_of_any_kind_is_a_short_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(FolderStore, "head", fail)
    found = looked(below(tmp_path))
    assert (found.found, found.reason) == (Found.UNKNOWN, type(fault).__name__)
    assert len(found.model_dump_json()) < 1024


# ---------------------------------------------------------------- how often, how long


def test_a_look_that_is_young_enough_is_told_again(tmp_path: Path, counted: Counted) -> None:
    publish(tmp_path)
    clock = Clock(1000.0)
    one = below(tmp_path, clock)
    for _ in range(3):
        assert looked(one, max_age=150.0).found == Found.PRESENT
        clock.now += 49.0
    assert counted.count == 1
    clock.now += 49.0
    assert (looked(one, max_age=150.0).found, counted.count) == (Found.PRESENT, 2)


@pytest.mark.parametrize("digests", [(DIGEST,), (DIGEST, OTHER)])
def test_nobody_makes_it_look_more_than_once_a_second(tmp_path: Path, counted: Counted, digests: Sequence[str]) -> None:
    clock = Clock(1000.0)
    one = below(tmp_path, clock)
    for number in range(200):
        looked(one, digests[number % len(digests)])
        clock.now += 0.05
    assert counted.count == 10


def test_what_was_found_of_one_says_nothing_of_another(tmp_path: Path) -> None:
    clock = Clock(1000.0)
    one = below(tmp_path, clock)
    publish(tmp_path, OTHER)
    assert looked(one).found == Found.ABSENT
    assert (looked(one, OTHER).found, looked(one, OTHER).reason) == (Found.UNKNOWN, NOT_YET)
    clock.now += 1.0
    assert looked(one, OTHER, max_age=150.0).found == Found.PRESENT


def test_what_could_not_be_told_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(1000.0)
    one = below(tmp_path, clock)
    publish(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(FolderStore, "head", lambda *_: 1 / 0)
        assert looked(one, max_age=150.0).reason == "ZeroDivisionError"
    clock.now += 1.0
    assert looked(one, max_age=150.0).found == Found.PRESENT


def test_a_store_that_does_not_answer_holds_up_nobody_and_is_asked_once(
    tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looker, "WAIT_SECONDS", 0.05)
    publish(tmp_path)
    one = below(tmp_path)

    async def work() -> ArtifactLook:
        counted.gate.clear()
        looks = await asyncio.gather(*(one.look(DIGEST, 0.0) for _ in range(50)))
        assert {(look.found, look.reason) for look in looks} == {(Found.UNKNOWN, NOT_YET)}
        counted.gate.set()
        while (found := await one.look(DIGEST, 60.0)).reason == NOT_YET:
            await asyncio.sleep(0.01)
        return found

    assert (run(work).found, counted.count) == (Found.PRESENT, 1)


# ---------------------------------------------------------------- a searcher as it is


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_searcher_looks_for_who_signs_and_takes_nothing_but_a_digest(
    published: Published,  # noqa: F811
    tmp_path: Path,
    processes: str,
) -> None:
    (tmp_path / "in").mkdir()
    write_parquet(tmp_path / "in" / "a.parquet", np.eye(4, dtype=np.float32))
    place = Location(folder=str(tmp_path / "in"))
    text = ResolveTask(identity=IDENTITY, source=place, artifacts=place).task_text(first_release=False)
    store = published.task.artifacts.folder
    assert store is not None
    key = Layout("", published.task.identity).manifest(DIGEST)
    (Path(store) / key).parent.mkdir(parents=True, exist_ok=True)
    (Path(store) / key).write_bytes(b"{}")
    with serving(published, ME, KEY, **{SOURCE_ENV: text, "VECTORINDEX_PROCESSES": processes}) as searcher:
        port = searcher.port("admin port open")

        def answer(query: str, **headers: str) -> tuple[int, dict[str, object]]:
            request = InternalRequest("GET", f"{SOURCE_PATH}?{query}")
            return ask(port, request, headers or sign(KEY, request, ME, time.time()))

        def found(digest: str) -> str:
            status, said = answer(f"maxAge=0.0&artifact={digest}")
            assert status == 200
            look = SourceLook.model_validate(said).artifact
            assert look is not None
            assert look.digest == digest
            return look.found

        assert answer(f"maxAge=0.0&artifact={DIGEST}", Accept="*/*")[0] == 401
        status, said = answer("maxAge=0.0")
        assert (status, said["artifacts"], "artifact" in said) == (200, True, False)
        until(lambda: found(DIGEST) == Found.PRESENT)
        until(lambda: found(OTHER) == Found.ABSENT)
        hostile = ("d1", "D1" * 32, f"{DIGEST}%0a", f"..%2f{DIGEST[:61]}", f"{DIGEST}/..", "%00" * 64, "\u0664" * 64)
        for digest in hostile:
            text = "".join(f"%{byte:02x}" for byte in digest.encode()) if not digest.isascii() else digest
            status, said = answer(f"maxAge=0.0&artifact={text}")
            assert (status, said["field"]) == (400, "artifact"), digest
        assert answer(f"artifact={DIGEST}&key=team-b/docs")[0] == 400
