"""From vectors to a proven artifact and back, in a folder: resolve, build, validate, canary, command line."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vectorindex_searcher.artifact import ranges
from vectorindex_searcher.artifact.layout import RANGES_FILE, SERVED_FILES, Layout
from vectorindex_searcher.artifact.manifest import Manifest, encode, load_manifest
from vectorindex_searcher.artifact.publish import download_verified, publish
from vectorindex_searcher.build import task as build_module
from vectorindex_searcher.build.task import build
from vectorindex_searcher.contract import (
    BuildTask,
    Columns,
    Device,
    Embedding,
    ExitCode,
    Identity,
    IndexSpec,
    Location,
    Metric,
    Objective,
    OperatingPoint,
    QueryColumns,
    ResolveTask,
    ValidateTask,
)
from vectorindex_searcher.dataset.resolve import resolve
from vectorindex_searcher.errors import ChecksumMismatch, TaskError
from vectorindex_searcher.index import device as device_module
from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.choose import tuning
from vectorindex_searcher.index.choose.tuning import tune
from vectorindex_searcher.index.engine import Engine, read_index
from vectorindex_searcher.proof.canary import canary_recall, canary_recalls
from vectorindex_searcher.proof.report import fetch_canary, load_report
from vectorindex_searcher.proof.task import validate
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

COUNT, DIMENSION = 3000, 32
IDENTITY = Identity(namespace="shop", name="products", uid="u-1")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer queries and shorter timing than in earnest."""
    monkeypatch.setattr(build_module, "HELD_OUT", 200)
    # One OpenMP thread: two of them spinning on a busy machine take many times as long.
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr("vectorindex_searcher.index.choose.tuning.LATENCY_QUERIES", 3)
    monkeypatch.setattr("vectorindex_searcher.proof.timing.LATENCY_CALLS", 5)


def clustered(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((30, DIMENSION))
    return (centres[rng.integers(0, 30, count)] + 0.6 * rng.standard_normal((count, DIMENSION))).astype(np.float32)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    vectors = clustered(COUNT)
    for part in range(2):
        chosen = slice(part * COUNT // 2, (part + 1) * COUNT // 2)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors[chosen].ravel()), DIMENSION)
        ids = [f"p-{row}" for row in range(COUNT)[chosen]]
        pq.write_table(
            pa.table({"id": ids, "vector": column, "title": [f"T{i}" for i in ids]}), folder / f"{part}.parquet"
        )
    return folder


def task(source: Path, out: Path, **changes: Any) -> BuildTask:
    fields: dict[str, Any] = {
        "identity": IDENTITY,
        "digest": "digest1",
        "source": Location(folder=str(source)),
        "artifacts": Location(folder=str(out)),
        "index": IndexSpec(factory="HNSW16,SQ8"),
    }
    return BuildTask(**(fields | changes))


def gate(out: Path, sha256: str, **changes: Any) -> ValidateTask:
    fields: dict[str, Any] = {
        "identity": IDENTITY,
        "digest": "digest1",
        "manifest_sha256": sha256,
        "gate_hash": "gate1",
        "artifacts": Location(folder=str(out)),
    }
    return ValidateTask(**(fields | changes))


def stored(out: Path) -> tuple[FolderStore, Layout]:
    store = FolderStore(out, Role.ARTIFACTS)
    return store, Layout(store.prefix, IDENTITY)


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("factory", ["Flat", "HNSW32,SQ8", "IVF64,PQ16x4fs,RFlat", "IVF32,SQ8"])
def test_build_then_validate(source: Path, tmp_path: Path, factory: str, metric: Metric) -> None:
    spec = IndexSpec(factory=factory, objective=Objective(recall=0.9))
    built = build(task(source, tmp_path, index=spec, embedding=Embedding(metric=metric)))
    assert (built.count, built.dimension, built.factory, built.reused) == (COUNT, DIMENSION, factory, False)
    (vectors,) = tmp_path.rglob("vectors.npy")
    assert built.vectors_bytes == vectors.stat().st_size
    measured = validate(gate(tmp_path, built.manifest_sha256))
    # 5 % of 3000 rows, half of them to tune with, make 75: two indexes are measured, each without others.
    assert measured.overall.queries == (200 if factory == "Flat" else 100)
    assert measured.overall.recall >= 0.9
    assert measured.overall.recall_low < measured.overall.recall or factory == "Flat"
    # At one list a query finds all or nothing: of 100 such queries a mean has a standard error of .03.
    assert abs(measured.overall.recall - built.default_point.recall) < 0.12
    if factory == "Flat":
        assert (measured.overall.recall, measured.overall.mrr, measured.canary_recall) == (1, 1, 1)
    # A searcher fetches, opens and answers as the gate did.
    store, layout = stored(tmp_path)
    manifest, _ = load_manifest(store, layout, "digest1", built.manifest_sha256)
    report, _ = load_report(store, layout, "digest1", "gate1", measured.report_sha256)
    # Of the index that was asked, which lacks 5 % of the rows unless it is exact.
    least = COUNT if factory == "Flat" else 0.95 * COUNT
    assert [row.selectivity for row in report.filtered] == [0.5, 0.01, 0.0001]
    assert all(
        max(1, round(row.selectivity * least)) <= row.rows <= max(1, row.selectivity * COUNT) for row in report.filtered
    )
    assert all(row.recall >= 0.85 for row in report.filtered)
    folder = download_verified(store, layout, manifest, tmp_path / "cache")
    engine = Engine.open(folder, manifest)
    canary = fetch_canary(store, layout, report, tmp_path / "cache" / "gate1")
    assert canary.num_rows == measured.canary_queries == measured.overall.queries
    assert canary_recall(engine, canary, report.k) == measured.canary_recall
    assert canary_recalls(engine, canary, report.k).sum() * 10 == pytest.approx(sum(canary.column("hits").to_pylist()))
    _, rows = engine.search(clustered(COUNT)[:3], 1)
    expected = ["p-0", "p-1", "p-2"] if metric is not Metric.INNER_PRODUCT else engine.ids(rows[:, 0])
    assert engine.ids(rows[:, 0]) == expected


def test_a_spoilt_engine_shows_in_the_canary(source: Path, tmp_path: Path) -> None:
    built = build(task(source, tmp_path, index=IndexSpec(factory="IVF64,Flat")))
    measured = validate(gate(tmp_path, built.manifest_sha256))
    store, layout = stored(tmp_path)
    manifest, _ = load_manifest(store, layout, "digest1")
    report, _ = load_report(store, layout, "digest1", "gate1")
    canary = fetch_canary(store, layout, report, tmp_path / "cache")
    folder = download_verified(store, layout, manifest, tmp_path / "cache")
    point = OperatingPoint(params={"nprobe": 1}, recall=1, recall_low=1, latency_us=1)
    spoilt = Engine.open(folder, manifest.model_copy(update={"default_point": point}))
    assert manifest.default_point.params != point.params
    assert canary_recall(spoilt, canary, 10) < measured.canary_recall - 0.02


def test_both_verbs_answer_from_what_is_there(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(task(source, tmp_path))
    measured = validate(gate(tmp_path, first.manifest_sha256))
    monkeypatch.setattr("vectorindex_searcher.build.given.stage", None)
    monkeypatch.setattr("vectorindex_searcher.proof.groundtruth.exact_search", None)
    again = build(task(source, tmp_path, attempt="second"))
    assert again == first.model_copy(update={"reused": True})
    assert validate(gate(tmp_path, first.manifest_sha256)) == measured


class CountedHash:
    """SHA-256 that adds the bytes which it is given to `counted`."""

    counted = 0

    def __init__(self, data: Any = b"") -> None:
        self._hash = hashlib.sha256()
        self.hexdigest = self._hash.hexdigest
        self.update(data)

    def update(self, data: Any) -> None:
        CountedHash.counted += len(data)
        self._hash.update(data)


def test_no_byte_of_an_artifact_is_hashed_more_than_twice(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once with its file and once with its range, and read once for both: of large vectors each time takes seconds."""
    opened, elsewhere = Counter[str](), list[str]()
    hash_file, file_digest = ranges.hash_file, hashlib.file_digest

    def counted(path: Path) -> ranges.Hashed:
        opened[path.name] += 1
        return hash_file(path)

    def noted(file: Any, name: str) -> Any:
        elsewhere.append(Path(file.name).name)
        return file_digest(file, name)

    monkeypatch.setattr(build_module, "hash_file", counted)
    monkeypatch.setattr(hashlib, "file_digest", noted)
    monkeypatch.setattr(ranges, "RANGE_BYTES", 4096)
    monkeypatch.setattr(ranges, "hashlib", SimpleNamespace(sha256=CountedHash))
    monkeypatch.setattr(CountedHash, "counted", 0)
    build(task(source, tmp_path, index=IndexSpec(factory="Flat"), columns=Columns(metadata=("title",))))
    manifest, _ = load_manifest(*stored(tmp_path), "digest1")
    sizes = {file.name: file.size for file in manifest.files if file.name != RANGES_FILE}
    assert opened == dict.fromkeys(sizes, 1)
    assert CountedHash.counted == 2 * sum(sizes.values())
    assert not sizes.keys() & set(elsewhere)


def test_build_reads_the_listing_that_resolve_stored(source: Path, tmp_path: Path) -> None:
    """New objects beside the listed ones are the next revision's business; a changed one ends the build."""
    mine = tmp_path / "source"
    mine.mkdir()
    for path in source.iterdir():
        (mine / path.name).write_bytes(path.read_bytes())
    locations = {"source": Location(folder=str(mine)), "artifacts": Location(folder=str(tmp_path / "out"))}
    resolved = resolve(ResolveTask(identity=IDENTITY, **locations))
    (mine / "2.parquet").write_bytes((mine / "1.parquet").read_bytes())
    flat = IndexSpec(factory="Flat")
    built = build(task(mine, tmp_path / "out", fingerprint=resolved.fingerprint, index=flat))
    assert (built.count, built.fingerprint) == (COUNT, resolved.fingerprint)
    pq.write_table(pq.read_table(mine / "0.parquet").slice(5), mine / "0.parquet")
    with pytest.raises(TaskError) as caught:
        build(task(mine, tmp_path / "out", fingerprint=resolved.fingerprint, digest="digest2", index=flat))
    assert (caught.value.reason, caught.value.exit_code) == ("SourceChanged", ExitCode.RETRY)
    with pytest.raises(TaskError) as caught:
        build(task(mine, tmp_path / "other", fingerprint=resolved.fingerprint, index=flat))
    assert caught.value.reason == "SourceChanged"
    assert not [path for path in (tmp_path / "other").rglob("*") if path.is_file()]


def test_two_builders_publish_one_manifest(source: Path, tmp_path: Path) -> None:
    built = build(task(source, tmp_path, index=IndexSpec(factory="Flat")))
    store, layout = stored(tmp_path)
    winner, sha256 = load_manifest(store, layout, "digest1")
    folder = tmp_path / "shop" / "products" / "digest1" / winner.attempt
    late = winner.model_copy(update={"attempt": "late", "created": "2099-01-01T00:00:00+00:00"})
    published, published_sha256, ours = publish(store, layout, late, folder)
    assert (published, published_sha256, ours) == (winner, sha256, False)
    assert built.manifest_sha256 == sha256
    # The straggler's files lie in its own attempt; those of the published one are untouched.
    assert (folder.parent / "late" / "index.faiss").is_file()
    download_verified(store, layout, published, tmp_path / "cache")


@pytest.fixture
def published(source: Path, tmp_path: Path) -> tuple[Path, Manifest, str]:
    built = build(task(source, tmp_path / "out", index=IndexSpec(factory="Flat")))
    manifest, sha256 = load_manifest(*stored(tmp_path / "out"), "digest1")
    assert sha256 == built.manifest_sha256
    return tmp_path / "out", manifest, sha256


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_flipped_byte_is_refused_in_the_store_and_in_the_cache(
    published: tuple[Path, Manifest, str], tmp_path: Path
) -> None:
    out, manifest, _ = published
    cache = tmp_path / "cache"
    folder = download_verified(*stored(out), manifest, cache)
    # In the cache: fetched again, without a word.
    whole = (folder / "index.faiss").read_bytes()
    flip(folder / "index.faiss")
    download_verified(*stored(out), manifest, cache)
    assert (folder / "index.faiss").read_bytes() == whole
    # In the store: refused by name, and nothing is left behind that could be opened.
    flip(out / "shop" / "products" / "digest1" / manifest.attempt / "index.faiss")
    with pytest.raises(ChecksumMismatch) as caught:
        download_verified(*stored(out), manifest, tmp_path / "fresh")
    assert caught.value.failure.object == "index.faiss"
    assert not list((tmp_path / "fresh").rglob("*index*"))


def test_a_grown_object_is_refused_before_it_fills_the_disk(
    published: tuple[Path, Manifest, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, manifest, _ = published
    path = out / "shop" / "products" / "digest1" / manifest.attempt / "ids.arrow"
    path.write_bytes(path.read_bytes() + b"more")
    store, layout = stored(out)
    streamed: list[str] = []
    stream = store.stream
    monkeypatch.setattr(store, "stream", lambda key: streamed.append(key) or stream(key))
    with pytest.raises(ChecksumMismatch, match="the manifest says"):
        download_verified(store, layout, manifest, tmp_path / "cache", ["ids.arrow"])
    assert not streamed


def test_another_manifest_than_expected_is_refused(published: tuple[Path, Manifest, str]) -> None:
    out, manifest, sha256 = published
    store, layout = stored(out)
    load_manifest(store, layout, "digest1", sha256)
    store.put(layout.manifest("digest1"), encode(manifest.model_copy(update={"count": 5})))
    with pytest.raises(ChecksumMismatch):
        load_manifest(store, layout, "digest1", sha256)
    store.put(layout.manifest("digest2"), encode(manifest))
    with pytest.raises(TaskError, match="names digest digest1"):
        load_manifest(store, layout, "digest2")
    text = encode(manifest).decode().replace('"index.faiss"', '"../../etc/passwd"')
    store.put(layout.manifest("digest1"), text.encode())
    with pytest.raises(TaskError, match="files"):
        load_manifest(store, layout, "digest1")


def test_user_queries_by_segment_with_right_answers(source: Path, tmp_path: Path) -> None:
    built = build(task(source, tmp_path / "out", index=IndexSpec(factory="Flat")))
    vectors = clustered(COUNT)[:90] + np.float32(0.01)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSION)
    table = pa.table(
        {
            "q": column,
            "kind": ["short"] * 60 + ["long"] * 29 + [None],
            "right": pa.array([[f"p-{row}"] if row % 2 else None for row in range(90)], pa.list_(pa.string())),
        }
    )
    pq.write_table(table, tmp_path / "queries.parquet")
    result = validate(
        gate(
            tmp_path / "out",
            built.manifest_sha256,
            queries=Location(folder=str(tmp_path / "queries.parquet")),
            query_columns=QueryColumns(vector="q", segment="kind", relevant="right"),
            segments=("short", "long", "never"),
        )
    )
    assert [(s.segment, s.queries) for s in result.segments] == [("short", 60), ("long", 29)]
    assert result.overall.queries == 90
    assert result.overall.recall == 1
    assert result.overall.relevance_mrr == 1


def test_queries_of_another_model_are_refused(source: Path, tmp_path: Path) -> None:
    built = build(task(source, tmp_path / "out", index=IndexSpec(factory="Flat")))
    np.save(tmp_path / "queries.npy", np.ones((5, DIMENSION + 1), np.float32))
    queries = Location(folder=str(tmp_path / "queries.npy"))
    with pytest.raises(TaskError) as caught:
        validate(gate(tmp_path / "out", built.manifest_sha256, queries=queries))
    assert (caught.value.reason, caught.value.exit_code) == ("DimensionMismatch", ExitCode.BAD_DATA)


@pytest.mark.parametrize("count", [1, 2, 12])
def test_tiny_sources(tmp_path: Path, count: int) -> None:
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", clustered(count).astype(np.float16))
    built = build(task(tmp_path / "in", tmp_path / "out", index=IndexSpec()))
    result = validate(gate(tmp_path / "out", built.manifest_sha256))
    assert (built.factory, result.overall.recall, result.canary_recall) == ("Flat", 1, 1)
    assert result.overall.queries == count


@pytest.mark.parametrize("sign", [1, -1], ids=["clock", "clock that says the opposite"])
def test_the_default_point_is_the_cheapest_with_two_half_widths_to_spare(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sign: int
) -> None:
    build(task(source, tmp_path, index=IndexSpec(factory="IVF64,Flat", objective=Objective(recall=0.9))))
    manifest, _ = load_manifest(*stored(tmp_path), "digest1")
    engine = Engine.open(download_verified(*stored(tmp_path), manifest, tmp_path / "cache"), manifest)
    monkeypatch.setattr(tuning, "_latency", lambda engine, queries, params: 1e3 + sign * params["nprobe"])
    curve = ((1, 2, 3, 4, 6, 8, 12, 16, 64), (0.5, 0.8, 0.91, 0.92, 0.95, 0.97, 0.99, 0.996, 1.0))
    tuned = tune(
        engine,
        clustered(5),
        lambda params: np.full(100, np.interp(params["nprobe"], *curve)),
        lambda values: float(values.mean()) - 0.02,
        0.9,
    )
    # 0.9 and two half-widths of 0.02 make 0.94; 3 lists reach the objective, but not with that to spare.
    assert (tuned.default.params, tuned.default.recall) == ({"nprobe": 6}, pytest.approx(0.95))
    assert tuned.conservative is not None
    assert tuned.conservative.recall >= 0.99
    hopeless = tune(engine, clustered(5), lambda params: np.full(100, 0.3), lambda values: 0.2, 0.9)
    assert (hopeless.default.recall, hopeless.conservative) == (pytest.approx(0.3), None)


def test_gpu_is_demanded_preferred_or_not(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "visible_gpus", lambda: 0)
    flat = IndexSpec(factory="Flat")
    with pytest.raises(TaskError) as caught:
        build(task(source, tmp_path, device=Device.GPU, index=flat))
    assert (caught.value.reason, caught.value.exit_code) == ("GPUNotFound", ExitCode.RETRY)
    assert "this is the FAISS for CPUs" in str(caught.value)
    built = build(task(source, tmp_path, device=Device.PREFER_GPU, index=flat))
    assert built.device == Device.CPU
    assert built.device_reason == "this is the FAISS for CPUs, not the one of the GPU image"
    monkeypatch.setattr(device_module.faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device_module.pick_device(Device.PREFER_GPU).reason == (
        "no GPU is visible to FAISS (CUDA_VISIBLE_DEVICES='')"
    )


def test_resident_bytes_count_the_tables_that_faiss_computes(source: Path, tmp_path: Path) -> None:
    """IVF-PQ under L2 keeps a table of lists x parts x 256 floats that is in no file; filters keep codes and a map."""
    result = build(task(source, tmp_path, index=IndexSpec(factory="IVF16,PQ8"), embedding=Embedding(metric=Metric.L2)))
    store, layout = stored(tmp_path)
    manifest, _ = load_manifest(store, layout, "digest1")
    files = sum(file.size for file in manifest.files if file.name in SERVED_FILES)
    tables = 4 * 16 * 8 * 256
    assert files + tables + 8 * manifest.count < result.resident_bytes == files + manifest.computed_bytes
    index = faiss.downcast_index(read_index(next(tmp_path.rglob("index.faiss"))))
    assert index.precomputed_table.size() * 4 == tables
