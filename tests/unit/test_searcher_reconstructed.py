"""A source without vectors: an imported index gives back what it has of them, and everything measured says so."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from unit.test_searcher_imported import COUNT, DIMENSION, IDENTITY, ORDER, engine_of, filled, vectors, wanted, with_ids

from vectorindex_searcher.artifact.inspection import report_lines
from vectorindex_searcher.artifact.layout import IDS_FILE, VECTORS_FILE
from vectorindex_searcher.build import reconstructed
from vectorindex_searcher.build.partition import partition
from vectorindex_searcher.build.task import build
from vectorindex_searcher.contract import (
    BuildTask,
    Columns,
    Embedding,
    ImportedIndex,
    IndexSpec,
    Location,
    Metric,
    PartitionTask,
    ValidateTask,
)
from vectorindex_searcher.errors import TaskError
from vectorindex_searcher.index.rows import Ids
from vectorindex_searcher.proof.page import page
from vectorindex_searcher.proof.task import prove


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter timing than in earnest; one OpenMP thread."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr("vectorindex_searcher.index.choose.tuning.LATENCY_QUERIES", 3)


BARE = Columns(vector="", metadata=("name",))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ids and names, and nothing else."""
    (tmp_path / "in").mkdir()
    table = pa.table({"id": np.arange(COUNT), "name": [f"row {number}" for number in range(COUNT)]})
    pq.write_table(table, tmp_path / "in" / "a.parquet", row_group_size=40)
    return tmp_path


def task(root: Path, imported: ImportedIndex | None, metric: Metric = Metric.L2, **more: Any) -> BuildTask:
    of: dict[str, Any] = {
        "identity": IDENTITY,
        "digest": "d",
        "source": Location(folder=str(root / "in")),
        "artifacts": Location(folder=str(root / "out")),
        "columns": BARE,
        "embedding": Embedding(metric=metric, dimension=DIMENSION),
        "index": IndexSpec(imported=imported),
    }
    return BuildTask(**(of | more))


def file_of(root: Path, name: str) -> Path:
    return next((root / "out").rglob(name))


def damaged_table() -> Any:
    """Lists with a table of places of their own, which lead elsewhere."""
    index = filled("IVF8,Flat")
    index.make_direct_map(True)
    table = faiss.vector_to_array(index.direct_map.array)
    faiss.copy_array_to_vector(np.full_like(table, (7 << 32) | 9_999_999), index.direct_map.array)
    return index


INDEXES: dict[str, Callable[[], tuple[Any, np.ndarray | None]]] = {
    "Flat": lambda: (filled("Flat"), ORDER),
    "HNSW16,SQ8": lambda: (filled("HNSW16,SQ8"), ORDER),
    "IVF8,Flat with a table that lies": lambda: (damaged_table(), ORDER),
    "IVF8,PQ8x4fs,RFlat": lambda: (filled("IVF8,PQ8x4fs,RFlat"), ORDER),
    "PCA8,IVF8,SQ8": lambda: (filled("PCA8,IVF8,SQ8"), ORDER),
    "IDMap,HNSW16": lambda: (with_ids("IDMap,HNSW16"), None),
    "IVF8,PQ8x4fs with ids": lambda: (with_ids("IVF8,PQ8x4fs"), None),
}
NEAR = {"PCA8,IVF8,SQ8": 9.0, "IVF8,PQ8x4fs with ids": 5.0}
"""Squared distance of a vector and what is given back of it; elsewhere below 0.1."""


@pytest.mark.parametrize("kind", INDEXES)
def test_a_row_has_what_the_index_gives_back_of_it(root: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstructed, "BLOCK_BYTES", 4 * DIMENSION * 47)
    build(task(root, wanted(root, *INDEXES[kind]())))
    ids = Ids(file_of(root, IDS_FILE))(np.arange(COUNT))
    given = np.load(file_of(root, VECTORS_FILE))
    assert given.shape == (COUNT, DIMENSION)
    away = np.square(given - vectors()[np.array(ids)]).sum(axis=1)
    assert away.mean() < NEAR.get(kind, 0.1)
    engine = engine_of(root)
    assert engine.manifest.reconstructed is True
    _, rows = engine.search(given, 1)
    assert (rows[:, 0] == np.arange(COUNT)).mean() > 0.9, "a row is found by what is given back of it"


def test_the_report_says_what_was_the_truth(root: Path) -> None:
    result = build(task(root, wanted(root, filled("HNSW16,SQ8"), ORDER)))
    (root / "queries").mkdir()
    np.save(root / "queries" / "q.npy", np.random.default_rng(5).standard_normal((200, DIMENSION)).astype(np.float32))
    report, sha256 = prove(
        ValidateTask(
            identity=IDENTITY,
            digest="d",
            manifest_sha256=result.manifest_sha256,
            gate_hash="gate",
            artifacts=Location(folder=str(root / "out")),
            queries=Location(folder=str(root / "queries")),
        )
    )
    assert report.truth == "Reconstructions"
    assert report.result(sha256).truth == "Reconstructions"
    assert json.loads(file_of(root, "report.json").read_text())["truth"] == "Reconstructions"
    said = "what the index gives back"
    assert said in page(report).decode()
    assert any(said in line for line in report_lines(report))


def test_lines_and_cosine(root: Path) -> None:
    (root / "in" / "a.parquet").unlink()
    rows = (json.dumps({"id": number, "name": "x"}) for number in range(COUNT))
    (root / "in" / "a.jsonl").write_text("\n".join(rows))
    unit = vectors() / np.linalg.norm(vectors(), axis=1, keepdims=True)
    build(task(root, wanted(root, filled("Flat", rows=unit), np.arange(COUNT)), Metric.COSINE))
    np.testing.assert_array_equal(np.load(file_of(root, VECTORS_FILE)), unit)


def refusal(call: Callable[[], object]) -> tuple[str, str | None]:
    with pytest.raises(TaskError) as caught:
        call()
    assert caught.value.failure.remedy
    return caught.value.reason, caught.value.failure.field


@pytest.mark.parametrize("factory", ["ITQ8,Flat", "PCAW8,Flat", "PCAW8,IVF8,Flat"])
def test_what_cannot_give_vectors_back_is_refused_and_leaves_nothing(root: Path, factory: str) -> None:
    """One has no way back, the others one that leads elsewhere."""
    asked = task(root, wanted(root, filled(factory), ORDER))
    assert refusal(lambda: build(asked)) == ("CannotReconstruct", "spec.source.columns.vector")
    assert not list((root / "out").rglob("index.faiss"))


def test_what_is_given_back_can_be_searched_for(root: Path) -> None:
    zero = vectors()[ORDER]
    zero[5] = 0
    key = wanted(root, filled("Flat", rows=zero), ORDER)
    assert refusal(lambda: build(task(root, key, Metric.COSINE)))[0] == "BadIndexFile"


def test_rows_without_vectors_are_refused_where_nothing_gives_them(root: Path) -> None:
    field = "spec.source.columns.vector"
    flat = wanted(root, filled("Flat"), ORDER)
    assert refusal(lambda: build(task(root, None))) == ("NoVectors", field)
    parts = task(root, None).model_dump(include={"identity", "digest", "source", "artifacts", "columns", "embedding"})
    assert refusal(lambda: partition(PartitionTask(**parts, shards=2)))[0] == "NoVectors"
    nameless = task(root, flat, embedding=Embedding(metric=Metric.L2))
    assert refusal(lambda: build(nameless)) == ("NoDimension", "spec.embedding.dimension")
    pq.write_table(pa.table({"name": ["a"] * COUNT}), root / "in" / "a.parquet")
    assert refusal(lambda: build(task(root, flat))) == ("UnknownColumn", "spec.source.columns.id")
    (root / "in" / "a.parquet").unlink()
    np.save(root / "in" / "a.npy", vectors())
    assert refusal(lambda: build(task(root, flat, columns=Columns(vector="")))) == ("UnknownColumn", field)


def test_no_more_than_a_block_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, block = 40_000, 64 << 10
    monkeypatch.setattr(reconstructed, "BLOCK_BYTES", block)
    index = faiss.IndexFlatL2(DIMENSION)
    index.add(np.random.default_rng(0).standard_normal((rows, DIMENSION)).astype(np.float32))
    path = tmp_path / VECTORS_FILE
    tracemalloc.start()
    try:
        reconstructed.write_reconstructions(index, path, "docs.faiss", Metric.L2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * block < rows * DIMENSION * 4 / 6
    given = np.load(path, mmap_mode="r")
    assert hashlib.sha256(given.tobytes()).digest() == hashlib.sha256(index.reconstruct_n(0, rows).tobytes()).digest()
