"""Deleted ids: read, left out of a build, hidden by a searcher within a poll, and searched for by the gate."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import numbers, write_jsonl, write_parquet

from vectorindex_searcher import contract
from vectorindex_searcher.artifact.layout import Layout
from vectorindex_searcher.artifact.manifest import load_manifest
from vectorindex_searcher.build.task import build
from vectorindex_searcher.cli import main as command_line
from vectorindex_searcher.contract import (
    BuildTask,
    Columns,
    Embedding,
    ExitCode,
    Identity,
    IndexSpec,
    Location,
    Metric,
    ServeTask,
    ValidateTask,
)
from vectorindex_searcher.dataset.listing import list_source
from vectorindex_searcher.dataset.places import nested_key
from vectorindex_searcher.dataset.source import Source, open_source
from vectorindex_searcher.dataset.tombstones import current_tombstones, list_tombstones
from vectorindex_searcher.errors import BadData, BadSpec, TaskError
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.proof.task import validate
from vectorindex_searcher.serve.evidence.metrics import Gauges, SearcherMetrics
from vectorindex_searcher.serve.evidence.ring import EvidenceRing
from vectorindex_searcher.serve.server import Server
from vectorindex_searcher.serve.settings import Settings
from vectorindex_searcher.serve.tombstones import Deletions
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role, open_store

COUNT = 400
IDENTITY = Identity(name="n")


def place(folder: Path) -> Location:
    return Location(folder=str(folder))


def listed(folder: Path, kind: pa.DataType = pa.int64()) -> list[object]:  # noqa: B008 - a constant
    ids: list[object] = current_tombstones(place(folder), "id", kind).ids.to_pylist()
    return ids


def test_every_format_of_tombstones(tmp_path: Path) -> None:
    assert list_tombstones(FolderStore(tmp_path, Role.TOMBSTONES)) == ()
    assert listed(tmp_path) == []
    pq.write_table(pa.table({"id": pa.array([3, 4], pa.uint16()), "why": ["a", "b"]}), tmp_path / "a.parquet")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.jsonl").write_text('{"id": 5, "at": "today"}\n{"id": 3}\n')
    (tmp_path / "c.txt").write_text("7\r\n\n 8 \n-9")
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / "_notes.md").write_text("not ids")
    assert listed(tmp_path) == [3, 4, 7, 8, -9, 5]
    (tmp_path / "a.parquet").unlink()
    (tmp_path / "deep" / "b.jsonl").unlink()
    assert listed(tmp_path, pa.string()) == ["7", " 8 ", "-9", "8"]
    (tmp_path / "c.txt").write_text("")
    assert listed(tmp_path) == []


LISTS = {
    "with a byte order mark (Windows)": ("d.txt", "\ufeffdoc 1\r\ndoc 2\r\n".encode()),
    "in UTF-16 (PowerShell)": ("d.txt", "doc 1\r\ndoc 2\r\n".encode("utf-16")),
    "with line ends of an old Mac": ("d.txt", b"doc 1\rdoc 2"),
    "with blanks at the end": ("d.txt", b"doc 1 \ndoc 2\t\n"),
    "quoted": ("d.TXT", b'"doc 1"\n "doc 2" \n'),
    "CSV": ("d.csv", b"id\ndoc 1\ndoc 2\n"),
    "CSV of several columns, quoted, with a byte order mark": (
        "d.CSV", '\ufeff"why","id"\n"a, b","doc 1"\n"c","doc 2 "\n'.encode(),
    ),
    "CSV with semicolons": ("d.csv", b"why;id\n1,5;doc 1\n;doc 2\n"),
    "tabs": ("d.tsv", b"id\twhy\ndoc 1\t\ndoc 2\tx\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(LISTS))
def test_a_list_of_text_hides_what_it_means(tmp_path: Path, name: str) -> None:
    """Each of these hid nothing, without a word."""
    file, data = LISTS[name]
    (tmp_path / file).write_bytes(data)
    assert {"doc 1", "doc 2"} <= set(listed(tmp_path, pa.string()))
    (tmp_path / file).write_bytes(
        data.decode("utf-16").replace("doc ", "").encode("utf-16") if "UTF-16" in name else data.replace(b"doc ", b"")
    )
    assert listed(tmp_path) == [1, 2]


def test_an_id_with_quotes_of_its_own_is_found(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text('say "hi"\n"say ""ho"""\n')
    assert {'say "hi"', 'say "ho"'} <= set(listed(tmp_path, pa.string()))


@pytest.mark.parametrize("name", ["d.xlsx", "d.parquet.gz", "d.json", "ids"])
def test_a_list_that_is_not_understood_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"doc 1\n")
    with pytest.raises(TaskError) as caught:
        listed(tmp_path, pa.string())
    assert (caught.value.reason, caught.value.failure.object) == ("UnknownFormat", name)
    assert ".csv" in str(caught.value.failure.remedy)


def test_a_folder_that_is_not_there_is_misspelt(tmp_path: Path) -> None:
    with pytest.raises(TaskError) as caught:
        listed(tmp_path / "lits")
    assert (caught.value.reason, caught.value.exit_code) == ("FolderNotFound", ExitCode.SOURCE_MISSING)


@pytest.mark.parametrize(
    ("name", "data", "kind", "reason"),
    [
        ("a.txt", b"seven\n", pa.int64(), "BadIdType"),
        ("a.txt", b"9223372036854775808\n", pa.int64(), "BadIdType"),
        ("a.txt", b"\xff\n", pa.string(), "BadIdType"),
        ("a.jsonl", b'{"id": "x"}\n', pa.int64(), "BadIdType"),
        ("a.jsonl", b'{"id": 1}\n{"id": null}\n', pa.int64(), "NullId"),
        ("a.jsonl", b'{"id": 1}\n{"id": "x"}\n', pa.int64(), "BadLine"),
        ("a.jsonl", b'{"key": 1}\n', pa.int64(), "UnknownColumn"),
        ("a.parquet", b"junk", pa.int64(), "CorruptFile"),
        ("a.csv", b"key\n1\n", pa.int64(), "UnknownColumn"),
        ("a.csv", b"1\n2\n", pa.int64(), "UnknownColumn"),
        ("a.csv", b"id,why\n1,a\n2\n", pa.int64(), "BadIdType"),
        ("a.csv", b"id\nseven\n", pa.int64(), "BadIdType"),
        ("a.csv", b"", pa.int64(), "BadIdType"),
    ],
)
def test_bad_tombstones_are_named(tmp_path: Path, name: str, data: bytes, kind: pa.DataType, reason: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TaskError) as caught:
        listed(tmp_path, kind)
    assert (caught.value.reason, caught.value.failure.object) == (reason, name)


def test_tombstones_below_the_source_are_no_vectors() -> None:
    def s3(bucket: str, prefix: str) -> Location:
        return contract.Location(s3=contract.S3(bucket=bucket, prefix=prefix))

    assert nested_key(s3("data", "p/"), s3("data", "p/deleted/")) == "p/deleted"
    assert nested_key(s3("data", "p/"), s3("other", "p/deleted/")) == ""
    assert nested_key(s3("data", "p/"), s3("data", "q/deleted/")) == ""
    assert nested_key(s3("data", "p/"), s3("data", "p")) == ""
    assert nested_key(s3("data", ""), s3("data", "deleted/")) == "deleted"
    assert nested_key(s3("data", "p/"), None) == ""
    assert nested_key(place(Path("/a")), place(Path("/a/b/deleted"))) == "b/deleted"
    assert nested_key(place(Path("/a")), place(Path("/b"))) == ""


# ---------------------------------------------------------------- builds


def opened(folder: Path) -> Source:
    store = FolderStore(folder, Role.SOURCE)
    listing = list_source(store, [nested_key(place(folder), place(folder / "deleted"))])
    return open_source(store, listing, Columns(), Embedding(metric=Metric.L2))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".npy"])
def test_a_source_without_deleted_rows(tmp_path: Path, suffix: str) -> None:
    vectors = numbers("<f4", COUNT)
    write: Callable[..., Any] = {".parquet": write_parquet, ".jsonl": write_jsonl, ".npy": np.save}[suffix]
    write(tmp_path / f"a{suffix}", vectors)
    (tmp_path / "deleted").mkdir()
    (tmp_path / "deleted" / "a.jsonl").write_text('{"id": 1}\n')
    gone = [0, 1, 63, 64, 130, COUNT - 1]
    source = opened(tmp_path)
    left = source.without(pa.array([*gone, 10**6]))
    blocks = list(left.blocks())
    kept = np.setdiff1d(np.arange(COUNT), gone)
    assert left.rows == len(kept)
    np.testing.assert_array_equal(np.concatenate([block.vectors for block in blocks]), vectors[kept])
    assert [value for block in blocks for value in block.ids.to_pylist()] == kept.tolist()
    assert [left.locate(row)[1] for row in range(left.rows)] == kept.tolist()
    assert source.without(pa.array([], pa.int64())) is source
    with pytest.raises(TaskError, match="deleted by tombstones") as caught:
        source.without(pa.array(range(COUNT)))
    assert caught.value.exit_code == ExitCode.SOURCE_MISSING


def build_task(root: Path, digest: str = "d", factory: str = "Flat", **more: Any) -> BuildTask:
    return BuildTask(
        identity=IDENTITY,
        digest=digest,
        source=place(root / "in"),
        artifacts=place(root / "out"),
        embedding=Embedding(metric=Metric.L2),
        index=IndexSpec(factory=factory),
        **more,
    )


def delete(root: Path, *ids: object) -> None:
    (root / "deleted").mkdir(exist_ok=True)
    (root / "deleted" / "ids.txt").write_text("".join(f"{one}\n" for one in ids))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "deleted").mkdir()
    vectors = np.random.default_rng(0).standard_normal((COUNT, 8)).astype(np.float32)
    write_parquet(tmp_path / "in" / "a.parquet", vectors)
    return tmp_path


def engine_of(root: Path, digest: str = "d") -> Engine:
    store = open_store(place(root / "out"), Role.ARTIFACTS)
    layout = Layout(store.prefix, IDENTITY)
    manifest, _ = load_manifest(store, layout, digest)
    return Engine.open(root / "out" / layout.file(digest, manifest.attempt, ""), manifest)


def test_a_build_leaves_deleted_ids_out_and_says_so(root: Path) -> None:
    delete(root, 7, 8, 10**9)
    assert build(build_task(root, tombstones=place(root / "deleted"))).count == COUNT - 2
    engine = engine_of(root)
    assert (engine.manifest.deleted, engine.count) == (2, COUNT - 2)
    assert len(engine.manifest.tombstones) == 64
    ids = engine.ids(np.arange(engine.count))
    assert sorted(set(range(COUNT)) - set(ids)) == [7, 8]
    build(build_task(root, "plain"))
    assert engine_of(root, "plain").manifest.tombstones == ""


def test_a_persons_build_follows_the_tombstones(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> dict[str, Any]:
        common = ["--metric", "L2", "--factory", "Flat", "--tombstones", str(root / "deleted")]
        assert command_line.main(["build", "--source", str(root / "in"), "--out", str(root / "out"), *common]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    first = run()
    assert run()["reused"]
    delete(root, 3)
    second = run()
    assert (first["count"], second["count"]) == (COUNT, COUNT - 1)
    assert first["digest"] != second["digest"]


# ---------------------------------------------------------------- searchers


def answers(engine: Engine, row: int, k: int = 10) -> list[int]:
    vectors = np.random.default_rng(0).standard_normal((COUNT, 8)).astype(np.float32)
    _, rows = engine.search(vectors[row : row + 1], k)
    assert (rows >= 0).all()  # k of them, however many of the nearest are deleted
    return [int(one) for one in engine.ids(rows[0])]


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "IVF8,Flat"])
def test_deleted_ids_are_hidden_after_a_refresh(root: Path, factory: str) -> None:
    build(build_task(root, factory=factory))
    engine, gauges = engine_of(root), Gauges()
    deletions = Deletions(engine, place(root / "deleted"), "id", gauges)
    assert deletions.refresh()
    assert (gauges.tombstones, gauges.tombstone_errors) == (0, 0)
    nearest = answers(engine, 5, 20)
    assert nearest[0] == 5
    delete(root, *nearest, 10**9)
    assert deletions.refresh()
    assert not deletions.refresh()
    assert not set(answers(engine, 5)) & set(nearest)
    assert gauges.tombstones == 20
    delete(root)
    assert deletions.refresh()
    assert answers(engine, 5)[0] == 5


def test_a_failure_keeps_the_last_known_set_and_is_counted(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    build(build_task(root))
    delete(root, 5)
    engine, gauges = engine_of(root), Gauges()
    deletions = Deletions(engine, place(root / "deleted"), "id", gauges)
    deletions.refresh()
    checked = gauges.tombstones_checked
    assert checked
    (root / "deleted" / "bad.parquet").write_bytes(b"junk")

    async def watched() -> None:
        watching = asyncio.create_task(deletions.watch(0.01))
        while (gauges.tombstone_errors or 0) < 2:
            await asyncio.sleep(0.01)
        assert 5 not in answers(engine, 5)
        assert gauges.tombstones_checked == checked
        assert any("bad.parquet" in str(vars(record)) for record in caplog.records)
        monkeypatch.setattr(FolderStore, "list", lambda *_: 1 / 0)
        errors = gauges.tombstone_errors or 0
        while (gauges.tombstone_errors or 0) < errors + 2:
            await asyncio.sleep(0.01)
        monkeypatch.undo()
        (root / "deleted" / "bad.parquet").unlink()
        delete(root, 5, 6)
        while gauges.tombstones != 2:
            await asyncio.sleep(0.01)
        watching.cancel()

    asyncio.run(asyncio.wait_for(watched(), 60))
    assert gauges.tombstones_checked > checked
    text = SearcherMetrics("r", EvidenceRing(()), gauges).exposition().decode()
    assert 'vectorindex_tombstones{revision="r"} 2.0' in text
    assert "vectorindex_tombstones_checked_timestamp_seconds{" in text
    assert 'vectorindex_tombstone_errors_total{revision="r"}' in text


def test_a_searcher_that_cannot_know_its_deleted_ids_does_not_start(root: Path) -> None:
    built = build(build_task(root))
    delete(root, "no number")
    task = ServeTask(
        identity=IDENTITY,
        revision="r",
        digest="d",
        manifest_sha256=built.manifest_sha256,
        artifacts=place(root / "out"),
        cache_dir=str(root / "cache"),
        tombstones=place(root / "deleted"),
    )
    server = Server(task, Settings(host="127.0.0.1", http_port=0, admin_port=0))
    with pytest.raises(BadData):
        server._load()
    delete(root, 5)
    loaded = server._load()
    assert 5 not in answers(loaded.engine, 5)
    loaded.held.close()


def test_a_list_that_another_pod_has_read_is_read_at_once(root: Path) -> None:
    build(build_task(root))
    deletions = Deletions(engine_of(root), place(root / "deleted"), "id", Gauges())
    assert deletions.is_due(300.0), "nothing was read yet"
    deletions.refresh()
    assert not deletions.is_due(300.0)
    for _ in range(3):
        deletions.look_again()
    assert [deletions.is_due(300.0) for _ in range(3)] == [True, False, False]
    assert deletions.is_due(0.0)
    assert (deletions.pause(300.0), deletions.pause(1.0)) == (5.0, 1.0)


def test_an_index_that_cannot_hide_is_refused(root: Path) -> None:
    build(build_task(root))
    engine = engine_of(root)
    engine.supports_filter = False
    with pytest.raises(BadSpec, match="cannot be hidden"):
        Deletions(engine, place(root / "deleted"), "id", Gauges())
    with pytest.raises(BadSpec, match="cannot be hidden"):
        build(build_task(root, "other", "PQ2x4fs_64", tombstones=place(root / "deleted")))


# ---------------------------------------------------------------- the gate


def test_the_gate_searches_for_deleted_ids(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = build(build_task(root))
    delete(root, *range(50), 10**9)

    def measured(gate: str) -> contract.ValidateResult:
        return validate(
            ValidateTask(
                identity=IDENTITY,
                digest="d",
                manifest_sha256=built.manifest_sha256,
                gate_hash=gate,
                artifacts=place(root / "out"),
                tombstones=place(root / "deleted"),
            )
        )

    assert measured("a").tombstoned_found == 0
    report = json.loads(next((root / "out").rglob("reports/a/report.json")).read_bytes())
    assert (report["tombstones"], report["tombstonedInIndex"], report["tombstonedFound"]) == (51, 50, 0)
    monkeypatch.setattr(Engine, "hide", lambda self, rows: None)
    assert measured("b").tombstoned_found >= 50
