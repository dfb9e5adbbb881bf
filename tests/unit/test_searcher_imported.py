"""Indexes built elsewhere: taken as they are, put in order, proven; refused where a search would answer wrongly."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from dataset_files import write_parquet

from vectorindex_searcher.artifact.layout import Layout
from vectorindex_searcher.artifact.manifest import load_manifest
from vectorindex_searcher.build.task import build
from vectorindex_searcher.contract import (
    BuildTask,
    Embedding,
    Identity,
    ImportedIndex,
    IndexSpec,
    Location,
    Metric,
    ValidateTask,
)
from vectorindex_searcher.errors import TaskError
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.proof.task import validate
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

COUNT, DIMENSION = 600, 16
IDENTITY = Identity(name="n")
ORDER = np.random.default_rng(7).permutation(COUNT)
"""Row i of an index is row ORDER[i] of the source."""


def vectors() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((COUNT, DIMENSION)).astype(np.float32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    write_parquet(tmp_path / "in" / "a.parquet", vectors())
    return tmp_path


def filled(factory: str, metric: int = faiss.METRIC_L2, rows: np.ndarray | None = None) -> Any:
    index = faiss.index_factory(DIMENSION, factory, metric)
    data = vectors()[ORDER] if rows is None else rows
    index.train(data)
    index.add(data)
    return index


def with_ids(factory: str) -> Any:
    index = faiss.index_factory(DIMENSION, factory)
    index.train(vectors())
    index.add_with_ids(vectors()[ORDER], ORDER.astype(np.int64))
    return index


def put(root: Path, name: str, write: Any) -> tuple[str, str]:
    path = root / "in" / "elsewhere" / name
    path.parent.mkdir(exist_ok=True)
    write(path)
    return f"elsewhere/{name}", hashlib.sha256(path.read_bytes()).hexdigest()


def wanted(root: Path, index: Any, ids: np.ndarray | None = None) -> ImportedIndex:
    key, sha256 = put(root, "docs.faiss", lambda path: faiss.write_index(index, str(path)))
    if ids is None:
        return ImportedIndex(index=key, sha256=sha256)
    ids_key, ids_sha256 = put(root, "docs.npy", lambda path: np.save(path, ids))
    return ImportedIndex(index=key, sha256=sha256, ids=ids_key, ids_sha256=ids_sha256)


def task(root: Path, imported: ImportedIndex, metric: Metric = Metric.L2, **more: Any) -> BuildTask:
    return BuildTask(
        identity=IDENTITY,
        digest="d",
        source=Location(folder=str(root / "in")),
        artifacts=Location(folder=str(root / "out")),
        embedding=Embedding(metric=metric),
        index=IndexSpec(imported=imported, **more),
    )


def engine_of(root: Path) -> Engine:
    store = FolderStore(root / "out", Role.ARTIFACTS)
    layout = Layout(store.prefix, IDENTITY)
    manifest, _ = load_manifest(store, layout, "d")
    return Engine.open(root / "out" / layout.file("d", manifest.attempt, ""), manifest)


INDEXES = {
    "HNSW16": lambda: (filled("HNSW16"), ORDER),
    "IVF8,Flat": lambda: (filled("IVF8,Flat"), ORDER),
    "Flat": lambda: (filled("Flat"), ORDER),
    "IVF8,PQ8x4fs,RFlat": lambda: (filled("IVF8,PQ8x4fs,RFlat"), ORDER),
    "IDMap,HNSW16": lambda: (with_ids("IDMap,HNSW16"), None),
    "IDMap2,Flat": lambda: (with_ids("IDMap2,Flat"), None),
    "IVF8,SQ8 with ids": lambda: (with_ids("IVF8,SQ8"), None),
    "IVF8,PQ8x4fs with ids": lambda: (with_ids("IVF8,PQ8x4fs"), None),
    "OPQ8,IVF8,PQ8 with ids": lambda: (with_ids("OPQ8,IVF8,PQ8x4"), None),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_it_answers_with_the_ids_of_its_rows(root: Path, kind: str) -> None:
    index, ids = INDEXES[kind]()
    result = build(task(root, wanted(root, index, ids)))
    assert (result.count, result.factory) == (COUNT, "Imported")
    engine = engine_of(root)
    assert set(engine.ids(np.arange(COUNT))) == set(range(COUNT))
    _, rows = engine.search(vectors(), 5)
    found = np.array([engine.ids(row) for row in rows])
    assert (found == np.arange(COUNT)[:, None]).any(axis=1).mean() > (0.8 if "PQ" in kind else 0.99)
    assert len(np.load(next((root / "out").rglob("vectors.npy")))) == COUNT


def test_a_gate_with_queries_proves_it(root: Path) -> None:
    result = build(task(root, wanted(root, filled("HNSW16"), ORDER)))
    (root / "queries").mkdir()
    np.save(root / "queries" / "q.npy", np.random.default_rng(5).standard_normal((200, DIMENSION)).astype(np.float32))
    found = validate(
        ValidateTask(
            identity=IDENTITY,
            digest="d",
            manifest_sha256=result.manifest_sha256,
            gate_hash="gate",
            artifacts=Location(folder=str(root / "out")),
            queries=Location(folder=str(root / "queries")),
        )
    )
    assert found.overall.queries >= 100
    assert found.overall.recall > 0.85


def test_vectors_of_another_model_are_seen_by_the_recall(root: Path) -> None:
    others = np.random.default_rng(99).standard_normal((COUNT, DIMENSION)).astype(np.float32)
    result = build(task(root, wanted(root, filled("HNSW16", rows=others), ORDER)))
    assert result.default_point is not None
    assert result.default_point.recall < 0.2


def refusal(root: Path, imported: ImportedIndex, **more: Any) -> TaskError:
    with pytest.raises(TaskError) as caught:
        build(task(root, imported, **more))
    assert caught.value.failure.remedy
    assert not list((root / "out").rglob("index.faiss"))
    return caught.value


def ivf_of_other_rows() -> Any:
    index = faiss.index_factory(DIMENSION, "IVF8,Flat")
    index.train(vectors())
    index.add_with_ids(vectors(), np.arange(COUNT) + 5)
    return index


def damaged(change: Any) -> Any:
    index = filled("HNSW16")
    change(index.hnsw)
    return index


def set_link(graph: Any) -> None:
    links = faiss.vector_to_array(graph.neighbors)
    links[3] = COUNT + 7
    faiss.copy_array_to_vector(links, graph.neighbors)


def set_entry(graph: Any) -> None:
    graph.entry_point = COUNT


def set_level(graph: Any) -> None:
    graph.max_level += 1


def lists_with_other_ids() -> Any:
    index = with_ids("IDMap,IVF8,Flat")
    lists = faiss.downcast_index(index.index).invlists
    faiss.rev_swig_ptr(lists.get_ids(0), lists.list_size(0))[0] = 10**9
    return index


def refined_by(dimension: int) -> Any:
    index = filled("IVF8,PQ8x4,RFlat")
    refiner = faiss.IndexFlatL2(dimension)
    refiner.add(np.zeros((COUNT, dimension), np.float32))
    index.own_refine_index, index.refine_index = False, refiner
    index.referenced_objects = [*getattr(index, "referenced_objects", []), refiner]
    return index


REFUSED = {
    "an id map over other ids": (lambda: (lists_with_other_ids(), None), "BadIndexFile"),
    "a refinement of more dimensions": (lambda: (refined_by(2 * DIMENSION), ORDER), "BadIndexFile"),
    "fewer rows": (lambda: (filled("Flat", rows=vectors()[:-1]), ORDER[:-1]), "OtherRows"),
    "other ids": (lambda: (ivf_of_other_rows(), None), "OtherRows"),
    "an id twice": (lambda: (filled("Flat"), np.where(ORDER == 3, 4, ORDER)), "OtherRows"),
    "ids twice": (lambda: (with_ids("IDMap,Flat"), ORDER), "IdsTwice"),
    "fewer ids": (lambda: (filled("Flat"), ORDER[:-1]), "BadIdType"),
    "text ids": (lambda: (filled("Flat"), ORDER.astype(str)), "BadIdType"),
    "ids that are floats": (lambda: (filled("Flat"), ORDER.astype(float)), "BadIdType"),
    "another metric": (lambda: (filled("Flat", faiss.METRIC_INNER_PRODUCT), ORDER), "OtherMetric"),
    "other dimensions": (lambda: (faiss.IndexFlatL2(8), None), "BadIndexFile"),
    "not trained": (lambda: (faiss.index_factory(DIMENSION, "IVF8,Flat"), None), "BadIndexFile"),
    "LSH": (lambda: (filled("LSH"), ORDER), "UnsupportedIndex"),
    "a link outside": (lambda: (damaged(set_link), ORDER), "BadIndexFile"),
    "an entry outside": (lambda: (damaged(set_entry), ORDER), "BadIndexFile"),
    "a level outside": (lambda: (damaged(set_level), ORDER), "BadIndexFile"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_answer_wrongly_is_refused(root: Path, kind: str) -> None:
    make, reason = REFUSED[kind]
    assert refusal(root, wanted(root, *make())).reason == reason


def test_a_file_is_not_parsed_before_its_checksum_is_right(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = wanted(root, filled("Flat"), ORDER)
    monkeypatch.setattr("vectorindex_searcher.build.imported.read_index", lambda *_a, **_k: pytest.fail("parsed"))
    assert refusal(root, asked.model_copy(update={"sha256": "0" * 64})).reason == "OtherFile"
    assert refusal(root, asked.model_copy(update={"index": "elsewhere/none"})).reason == "ImportMissing"


def test_a_file_that_is_no_index(root: Path) -> None:
    key, sha256 = put(root, "docs.faiss", lambda path: path.write_bytes(b"IxF2" + b"\xff" * 200))
    assert refusal(root, ImportedIndex(index=key, sha256=sha256)).reason == "BadIndexFile"


def test_a_pod_that_cannot_hold_it_is_told_before_it_is_fetched(root: Path) -> None:
    asked = task(root, wanted(root, filled("Flat"), ORDER).model_copy(update={"sha256": "0" * 64}))
    with pytest.raises(TaskError) as caught:
        build(asked.model_copy(update={"memory_limit_bytes": 100 << 20}))
    assert caught.value.reason == "NotEnoughMemory"


@pytest.mark.parametrize("more", [{"factory": "Flat"}, {"effort": "High"}])
def test_what_says_how_to_build_is_refused_beside_it(root: Path, more: dict[str, Any]) -> None:
    found = refusal(root, wanted(root, filled("Flat"), ORDER), **more)
    assert (found.reason, found.failure.field) == ("ImportIsBuilt", f"spec.index.{next(iter(more))}")


def test_ids_and_their_checksum_go_together() -> None:
    with pytest.raises(ValueError, match="go together"):
        ImportedIndex(index="a", sha256="0" * 64, ids="b")
