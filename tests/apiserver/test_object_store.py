"""The S3 store and what verbs remove, against a real S3 server: versitygw on loopback over a folder of the test."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest
from layers import program
from ports import held
from store_promises import Opened, StorePromises

from vectorindex_searcher.artifact.collect import collect
from vectorindex_searcher.artifact.layout import Layout
from vectorindex_searcher.artifact.users import USING
from vectorindex_searcher.build.task import build
from vectorindex_searcher.contract import (
    S3,
    BuildTask,
    CollectTask,
    ExitCode,
    Identity,
    IndexSpec,
    Location,
    ValidateTask,
)
from vectorindex_searcher.errors import SourceChanged, TaskError
from vectorindex_searcher.proof import groundtruth
from vectorindex_searcher.proof.task import validate
from vectorindex_searcher.storage.s3 import PART_BYTES, S3Store
from vectorindex_searcher.storage.store import Role, Store, open_store

KEYS = ("object-store-test", "object-store-test-secret")
BUCKET = "indexes"
DAY = 86_400


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Endpoint, and the folder whose files are the objects."""
    root = tmp_path_factory.mktemp("s3")
    with held() as (port,):
        yield from _serving(root, port)


def _serving(root: Path, port: int) -> Iterator[tuple[str, Path]]:
    listen = ["--port", f"127.0.0.1:{port}", "--region", "us-east-1", "--quiet"]
    command = [program("apiserver", "versitygw"), *listen, "posix", str(root)]
    environment = os.environ | {"ROOT_ACCESS_KEY": KEYS[0], "ROOT_SECRET_KEY": KEYS[1]}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, "versitygw ended"
            assert time.monotonic() < deadline, "versitygw never listened"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}", root
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def place(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> tuple[S3, Path]:
    """A prefix of a bucket for one test, with credentials in the environment; and the folder behind it."""
    endpoint, root = server
    for role in Role:
        monkeypatch.setenv(f"{role.env_prefix}AWS_ACCESS_KEY_ID", KEYS[0])
        monkeypatch.setenv(f"{role.env_prefix}AWS_SECRET_ACCESS_KEY", KEYS[1])
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=KEYS[0], aws_secret_access_key=KEYS[1]
    )
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        client.create_bucket(Bucket=BUCKET)
    return S3(bucket=BUCKET, prefix=request.node.name, endpoint=endpoint), root / BUCKET / request.node.name


def keys(store: S3Store) -> list[str]:
    return sorted(item.key.removeprefix(f"{store.prefix}/") for item in store.list(store.prefix))


def age(path: Path, seconds: float) -> None:
    """As if it had been written so long before: the server's dates are those of its files."""
    os.utime(path, times=(time.time() - seconds,) * 2)


class TestS3(StorePromises):
    @pytest.fixture
    def opened(self, place: tuple[S3, Path]) -> Opened:
        def store(role: Role) -> Store:
            return open_store(Location(s3=place[0]), role)

        return store


def test_objects_are_listed_read_pinned_and_removed(place: tuple[S3, Path]) -> None:
    store = S3Store(place[0], Role.ARTIFACTS)
    key = f"{store.prefix}/a/one"
    began = time.time()
    assert store.put(key, b"first", exclusive=True)
    assert not store.put(key, b"second", exclusive=True)
    store.put(f"{store.prefix}2/neighbour", b"x")
    (item,) = store.list(store.prefix)
    assert (item.key, item.size) == (key, 5)
    assert began - 2 < item.modified < time.time() + 2
    head = store.head(key)
    assert head is not None
    assert (head.etag, int(head.modified)) == (item.etag, int(item.modified))
    assert store.read(key, etag=item.etag, offset=1, length=3) == b"irs"
    store.put(key, b"other")
    with pytest.raises(SourceChanged):
        store.read(key, etag=item.etag)
    store.delete(key)
    store.delete(key)  # nothing there: fine
    assert store.head(key) is None
    assert keys(store) == []
    with pytest.raises(FileNotFoundError):
        store.read(key)
    with pytest.raises(SourceChanged):
        store.read(key, etag=item.etag)


def test_a_file_of_several_parts_arrives_whole(place: tuple[S3, Path], tmp_path: Path) -> None:
    store = S3Store(place[0], Role.ARTIFACTS)
    data = np.random.default_rng(0).bytes(PART_BYTES + 12_345)
    (tmp_path / "file").write_bytes(data)
    store.upload(f"{store.prefix}/file", tmp_path / "file")
    assert b"".join(store.stream(f"{store.prefix}/file")) == data
    assert store.read(f"{store.prefix}/file", offset=PART_BYTES - 3, length=6) == data[PART_BYTES - 3 : PART_BYTES + 3]


def test_refusals_name_field_and_remedy(place: tuple[S3, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    absent = S3Store(place[0].model_copy(update={"bucket": "no-such-bucket"}), Role.ARTIFACTS)
    with pytest.raises(TaskError) as caught:
        absent.delete("k")
    assert (caught.value.reason, caught.value.failure.field) == ("BucketNotFound", "spec.artifacts.s3.bucket")
    monkeypatch.setenv("ARTIFACTS_AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(TaskError) as caught:
        S3Store(place[0], Role.ARTIFACTS).delete("k")
    assert (caught.value.reason, caught.value.exit_code) == ("InvalidCredentials", ExitCode.STORE_UNAVAILABLE)
    assert "wrong" not in str(caught.value.failure)


def test_a_build_and_its_gate_remove_what_is_no_longer_needed(place: tuple[S3, Path], tmp_path: Path) -> None:
    """Checkpoints of the published build and of one given up a week ago, old ground truth; nothing else."""
    s3, folder = place
    source = tmp_path / "source"
    source.mkdir()
    np.save(source / "a.npy", np.random.default_rng(0).standard_normal((3000, 16), dtype=np.float32))
    store, identity = S3Store(s3, Role.ARTIFACTS), Identity(name="docs")
    layout = Layout(store.prefix, identity)
    given_up, others = (layout.checkpoints(digest, "0a", "trained.faiss") for digest in ("old", "new"))
    truths = [layout.ground_truth(f"{number:064x}", "arrow") for number in range(groundtruth.KEPT)]
    for key in (given_up, others, *truths):
        store.put(key, b"x")
        age(folder.parent / key, 8 * DAY if key == given_up else 2 * DAY)

    index, vectors, artifacts = IndexSpec(factory="IVF32,Flat"), Location(folder=str(source)), Location(s3=s3)
    task = BuildTask(identity=identity, digest="d1", source=vectors, index=index, artifacts=artifacts)
    discarded: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        real = S3Store.delete
        patch.setattr(S3Store, "delete", lambda self, key: (discarded.append(key), real(self, key))[1])
        built = build(task, checkpoint_after_seconds=0)
    assert sum("/d1/checkpoints/" in key for key in discarded) == 2  # it had kept one
    gate = ValidateTask(
        identity=identity, digest="d1", manifest_sha256=built.manifest_sha256, gate_hash="g", artifacts=artifacts
    )
    assert validate(gate).overall.recall > 0.5

    left = keys(store)
    assert [key for key in left if "/checkpoints/" in key] == [others.removeprefix(f"{store.prefix}/")]
    kept = {key.rpartition("/")[2].partition(".")[0] for key in left if "/groundtruth/" in key}
    assert len(kept) == groundtruth.KEPT
    # Of the canary, found by the build; what the gate judges by lies in the artifact.
    assert len(kept - {f"{number:064x}" for number in range(groundtruth.KEPT)}) == 1
    assert validate(gate.model_copy(update={"gate_hash": "g2"})).canary_queries > 0  # all it needs is there


def test_nothing_is_left_of_an_index_that_is_gone_and_thousands_of_others_are_as_they_were(
    place: tuple[S3, Path], tmp_path: Path
) -> None:
    s3, folder = place
    source = tmp_path / "source"
    source.mkdir()
    np.save(source / "a.npy", np.random.default_rng(0).standard_normal((600, 8), dtype=np.float32))
    store, identity = S3Store(s3, Role.ARTIFACTS), Identity(namespace="team", name="docs", uid="uid-1")
    layout, artifacts = Layout(store.prefix, identity), Location(s3=s3)
    spec = {"identity": identity, "artifacts": artifacts, "cluster": "a"}
    for digest in ("d1", "d2"):
        build(BuildTask(digest=digest, source=Location(folder=str(source)), index=IndexSpec(factory="Flat"), **spec))
    # As files: the server shows them as objects, and 5,000 requests would take a minute.
    others = [folder / "team" / f"docs{number}" / "d1" for number in range(50)] + [folder / "team" / "docs" / "notes"]
    for parent in others:
        parent.mkdir(parents=True)
        for number in range(100):
            (parent / f"{number}.bin").write_bytes(b"x")
    for begun in (layout.file("d1", "killed", "index.faiss"), f"{store.prefix}/team/docs2/d1/k/index.faiss"):
        store._client.create_multipart_upload(Bucket=s3.bucket, Key=begun)
    before = keys(store)
    assert len(before) > 5_100

    said = collect(CollectTask(everything=True, dry_run=True, **spec))
    assert keys(store) == before
    done = collect(CollectTask(everything=True, **spec))
    assert (said.artifacts, said.objects, said.bytes, said.uploads) == (2, done.objects, done.bytes, 1)
    assert (done.artifacts, done.left, done.uploads, done.unknown) == (2, 0, 1, 100)
    assert set(before) - set(keys(store)) == {
        key for key in before if key.startswith("team/docs/") and not key.startswith("team/docs/notes/")
    }
    (left,) = store._client.list_multipart_uploads(Bucket=s3.bucket, Prefix=store.prefix)["Uploads"]
    assert left["Key"].endswith("/team/docs2/d1/k/index.faiss")


def test_an_artifact_that_another_cluster_uses_stays_on_a_real_server(place: tuple[S3, Path]) -> None:
    store, identity = S3Store(place[0], Role.ARTIFACTS), Identity(name="docs")
    layout = Layout(store.prefix, identity)
    mine, theirs = layout.users("d1", "a"), layout.users("d1", "b")
    for key in (mine, theirs):
        store.put(key, USING)
    store.put(layout.file("d1", "a-1", "index.faiss"), b"x")
    task = CollectTask(identity=identity, artifacts=Location(s3=place[0]), cluster="a", digests=("d1",))
    assert collect(task).stays == ("d1: used by b",)
    assert [store.head(key) is None for key in (mine, theirs)] == [True, False]
    assert collect(task.model_copy(update={"cluster": "b"})).left == 0
    assert keys(store) == []
