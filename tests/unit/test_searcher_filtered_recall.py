"""What `validate` measures of searches that are limited to some rows, against brute force and against a bad index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from vectorindex_searcher.artifact.manifest import Manifest
from vectorindex_searcher.contract import Device, Embedding, Identity, Metric, OperatingPoint
from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.index.factory import make_index
from vectorindex_searcher.index.parameters import index_type
from vectorindex_searcher.index.rows import Ids, RowWriter
from vectorindex_searcher.index.selection.restricted import Costs
from vectorindex_searcher.index.vectors import VectorFile, VectorWriter
from vectorindex_searcher.proof import exact
from vectorindex_searcher.proof.exact import exact_search
from vectorindex_searcher.proof.filtered import SELECTIVITIES, filtered_recall
from vectorindex_searcher.proof.queries import Queries

COUNT, DIMENSION, K = 4000, 16, 10
Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def vectors() -> Floats:
    return np.random.default_rng(5).standard_normal((COUNT, DIMENSION)).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path, vectors: Floats) -> VectorFile:
    with VectorWriter(tmp_path / "vectors.npy", *vectors.shape, half=False) as writer:
        writer.write(vectors)
    return VectorFile(tmp_path / "vectors.npy", Metric.L2)


def engine(tmp_path: Path, vectors: Floats, factory: str, params: dict[str, int]) -> Engine:
    index = make_index(factory, COUNT, DIMENSION, Metric.L2)
    faiss.omp_set_num_threads(1)
    index.train(vectors)
    index.add(vectors)
    with RowWriter(tmp_path / "ids.arrow", pa.schema([("id", pa.int64())]), 1 << 20) as writer:
        writer.write(pa.table({"id": np.arange(COUNT)}))
    manifest = Manifest(
        digest="d",
        attempt="a",
        identity=Identity(name="n"),
        fingerprint="f",
        embedding=Embedding(metric=Metric.L2),
        dimension=DIMENSION,
        count=COUNT,
        vector_dtype="float32",
        id_type="int64",
        factory=factory,
        index_type=index_type(index),
        default_point=OperatingPoint(params=params, recall=1, recall_low=1, latency_us=1),
        faiss_version=faiss.__version__,
        device=Device.CPU,
        duration_seconds=0,
        peak_memory_bytes=0,
        files=(),
    )
    return Engine(index, manifest, Ids(tmp_path / "ids.arrow"))


@pytest.mark.parametrize("kept", [2, 30, 3999])
def test_exact_search_among_some_rows(
    monkeypatch: pytest.MonkeyPatch, vectors: Floats, file: VectorFile, kept: int
) -> None:
    """In blocks; a query that is one of the rows does not count itself, and one that is not loses no neighbour."""
    monkeypatch.setattr(exact, "SCAN_BYTES", 64 * 4 * DIMENSION)
    among = np.sort(np.random.default_rng(1).choice(COUNT, kept, replace=False))
    missing = np.setdiff1d(np.arange(COUNT), among)[0]
    own = np.array([among[0], missing, -1])
    queries = vectors[np.maximum(own, 0)] + np.float32(1e-3)
    truth = exact_search(file, queries, K, Metric.L2, own, among=among)
    for number, query in enumerate(queries):
        allowed = among[among != own[number]]
        order = allowed[np.argsort(((vectors[allowed] - query) ** 2).sum(axis=1))][:K]
        assert truth.available[number] == len(order)
        assert truth.rows[number][truth.rows[number] >= 0][:K].tolist() == order.tolist()
    file.close()


def held_out(vectors: Floats) -> Queries:
    rows = np.sort(np.random.default_rng(2).choice(COUNT, 250, replace=False))
    return Queries(vectors[rows], rows)


def test_an_exact_index_is_perfect_at_every_selectivity(tmp_path: Path, vectors: Floats, file: VectorFile) -> None:
    with file:
        found = filtered_recall(engine(tmp_path, vectors, "Flat", {}), file, held_out(vectors), K, 0.95)
    assert tuple(row.selectivity for row in found) == SELECTIVITIES
    assert [row.rows for row in found] == [2000, 40, 1]
    for row in found:
        assert (row.recall, row.queries) == (1.0, 200)
        assert 0.9 < row.recall_low <= 1.0
        assert row.query_us > 0


def test_a_bad_index_is_seen(tmp_path: Path, vectors: Floats, file: VectorFile) -> None:
    """Two of 256 lists: poor without a filter, poor with one of half the rows, right where the rows are few."""
    poor = engine(tmp_path, vectors, "IVF256,Flat", {"nprobe": 2})
    poor._restricted.set_costs(Costs(search=100.0, scan=0.15, gather=0.2))
    with file:
        half, few, one = filtered_recall(poor, file, held_out(vectors), K, 0.95)
        assert half.search == "approximate"
        assert half.recall < 0.7
        assert (few.recall, one.recall, one.search) == (1.0, 1.0, "exact")
        queries = Queries(vectors[:50] + np.float32(0.01), np.full(50, -1))
        assert all(row.queries == 50 for row in filtered_recall(poor, file, queries, K, 0.95))
