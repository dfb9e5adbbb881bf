"""The engine: user scores, parameters per call, mapped rows, and refusing what is not the manifest's."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from vectorindex_searcher.artifact.manifest import Manifest, ManifestFile
from vectorindex_searcher.contract import Device, Embedding, Identity, Metric, OperatingPoint
from vectorindex_searcher.errors import BadData, BadSpec
from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.engine import Engine, read_index
from vectorindex_searcher.index.factory import make_index, small, training_rows
from vectorindex_searcher.index.metric import normalise
from vectorindex_searcher.index.parameters import index_type, layers
from vectorindex_searcher.index.rows import Ids, RowFile, RowWriter
from vectorindex_searcher.index.selection.rowset import RowSet

COUNT, DIMENSION = 800, 32


@pytest.fixture(scope="module")
def vectors() -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((COUNT, 8)) @ rng.standard_normal((8, DIMENSION))).astype(np.float32)


def opened(
    folder: Path, vectors: npt.NDArray[np.float32], factory: str, metric: Metric, params: dict[str, int] | None = None
) -> Engine:
    manifest = written(folder, vectors, factory, metric, params)
    return Engine.open(folder, manifest)


def written(
    folder: Path, vectors: npt.NDArray[np.float32], factory: str, metric: Metric, params: dict[str, int] | None = None
) -> Manifest:
    index = make_index(factory, COUNT, DIMENSION, metric)
    prepared = normalise(vectors) if metric is Metric.COSINE else vectors
    faiss.omp_set_num_threads(1)
    index.train(prepared)
    index.add(prepared)
    faiss.write_index(index, str(folder / "index.faiss"))
    with RowWriter(folder / "ids.arrow", pa.schema([("id", pa.int64())]), 1 << 20) as writer:
        writer.write(pa.table({"id": np.arange(COUNT) * 3}))
    with RowWriter(folder / "metadata.arrow", pa.schema([("title", pa.string())]), 100) as writer:
        for start in range(0, COUNT, 70):
            writer.write(pa.table({"title": [f"t{row}" for row in range(start, min(start + 70, COUNT))]}))
    return Manifest(
        digest="d",
        attempt="a",
        identity=Identity(name="n"),
        fingerprint="f",
        embedding=Embedding(metric=metric),
        dimension=DIMENSION,
        count=COUNT,
        vector_dtype="float32",
        id_type="int64",
        metadata_columns=("title",),
        factory=factory,
        index_type=index_type(read_index(folder / "index.faiss")),
        default_point=OperatingPoint(params=params or {}, recall=1, recall_low=1, latency_us=1),
        faiss_version=faiss.__version__,
        device=Device.CPU,
        duration_seconds=0,
        peak_memory_bytes=0,
        files=(ManifestFile(name="metadata.arrow", size=0, sha256="0" * 64),),
    )


@pytest.mark.parametrize("metric", list(Metric))
def test_scores_are_in_the_users_terms(tmp_path: Path, vectors: npt.NDArray[np.float32], metric: Metric) -> None:
    engine = opened(tmp_path, vectors, "Flat", metric)
    queries = 3 * np.random.default_rng(1).standard_normal((4, DIMENSION)).astype(np.float32)
    scores, rows = engine.search(queries, 5)
    assert (scores.dtype, rows.dtype, scores.shape) == (np.float32, np.int64, (4, 5))
    found, wide = vectors[rows].astype(np.float64), queries.astype(np.float64)
    products = np.einsum("nkd,nd->nk", found, wide)
    if metric is Metric.COSINE:
        expected = products / np.linalg.norm(found, axis=2) / np.linalg.norm(wide, axis=1)[:, None]
    elif metric is Metric.L2:
        expected = -((found - wide[:, None]) ** 2).sum(axis=2)
    else:
        expected = products
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_missing_rows_are_marked(tmp_path: Path, vectors: npt.NDArray[np.float32]) -> None:
    engine = opened(tmp_path, vectors, "Flat", Metric.COSINE)
    allowed_rows = np.zeros(COUNT, np.bool_)
    allowed_rows[[3, 700]] = True
    scores, rows = engine.search(vectors[:1], 4, allowed_rows=RowSet.of_mask(allowed_rows))
    assert sorted(rows[0].tolist()) == [-1, -1, 3, 700]
    assert np.isneginf(scores[0][rows[0] == -1]).all()


@pytest.mark.parametrize("factory", ["Flat", "HNSW16,SQ8", "IVF16,PQ8x4fs,RFlat", "PQ8x4fs"])
def test_hidden_rows_never_come_whatever_a_query_asks(
    tmp_path: Path, vectors: npt.NDArray[np.float32], factory: str
) -> None:
    engine = opened(tmp_path, vectors, factory, Metric.COSINE)
    copy, queries = engine.with_threads(1), vectors[:20]
    before = engine.search(queries, 3)[1]
    hidden = RowSet.of_rows(np.unique(before[:, 0]), COUNT)
    even = RowSet.of_mask(np.arange(COUNT) % 2 == 0)
    engine.hide(hidden)
    for searcher in (engine, copy):
        for allowed_rows in (None, even, RowSet.of_rows(np.arange(60), COUNT)):
            rows = searcher.search(queries, 3, allowed_rows=allowed_rows)[1]
            found = rows[rows >= 0]
            assert len(found)
            assert not hidden.holds(found).any()
            assert allowed_rows is None or allowed_rows.holds(found).all()
    engine.hide(None)
    np.testing.assert_array_equal(engine.search(queries, 3)[1], before)
    for call in (lambda rows: engine.search(queries, 3, allowed_rows=rows), engine.hide):
        with pytest.raises(ValueError, match="800"):
            call(RowSet.of_rows(np.arange(3), COUNT + 8))


@pytest.mark.parametrize(
    ("factory", "names"),
    [
        ("Flat", set()),
        ("HNSW16,SQ8", {"efSearch"}),
        ("IVF16,PQ8x4fs,RFlat", {"nprobe", "k_factor"}),
        ("IVF16_HNSW8,SQ8", {"nprobe", "quantizer_efSearch"}),
        ("PCA16,IVF16,PQ8x4fs,Refine(SQ8)", {"nprobe", "k_factor"}),
        ("PCA16,HNSW16,SQ8", {"efSearch"}),
        ("PQ8x4fs", set()),
        ("IVF16,RaBitQ", {"nprobe"}),
    ],
)
def test_parameters_by_family(tmp_path: Path, vectors: npt.NDArray[np.float32], factory: str, names: set[str]) -> None:
    engine = opened(tmp_path, vectors, factory, Metric.L2)
    assert engine.param_limits.keys() == names
    most = {name: min(high, 64) for name, (_, high) in engine.param_limits.items()}
    scores, rows = engine.search(vectors[:8], 3, most)
    assert np.isfinite(scores).all()
    assert (rows >= 0).all()
    with pytest.raises(ValueError, match="nonsense"):
        engine.search(vectors[:1], 3, {"nonsense": 1})
    if engine.supports_filter:
        allowed_rows = np.arange(COUNT) % 7 == 0
        assert (engine.search(vectors[:8], 3, most, allowed_rows=RowSet.of_mask(allowed_rows))[1] % 7 == 0).all()


def test_parameters_belong_to_the_call(tmp_path: Path, vectors: npt.NDArray[np.float32]) -> None:
    """Many threads with different parameters at once get what each gets alone; the index keeps its own."""
    engine = opened(tmp_path, vectors, "IVF32,Flat", Metric.L2, {"nprobe": 2})
    queries = vectors[:50] + 0.5
    alone = {nprobe: engine.search(queries, 10, {"nprobe": nprobe})[1] for nprobe in (1, 4, 32)}
    assert (alone[1] != alone[32]).any()
    wrong: list[int] = []

    def work(nprobe: int) -> None:
        for _ in range(30):
            if (engine.search(queries, 10, {"nprobe": nprobe})[1] != alone[nprobe]).any():
                wrong.append(nprobe)

    threads = [threading.Thread(target=work, args=(nprobe,)) for nprobe in (1, 4, 32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    np.testing.assert_array_equal(engine.search(queries, 10)[1], engine.search(queries, 10, {"nprobe": 2})[1])


def test_ids_and_metadata_come_from_mapped_files(tmp_path: Path, vectors: npt.NDArray[np.float32]) -> None:
    engine = opened(tmp_path, vectors, "Flat", Metric.L2)
    rows = np.array([799, 0, 100, 100])
    assert engine.ids(rows) == [2397, 0, 300, 300]
    assert engine.metadata(rows, ["title"]) == [{"title": f"t{row}"} for row in rows]
    assert engine.metadata_columns == ("title",)
    with pytest.raises(KeyError):
        engine.metadata(rows, ["author"])
    with pytest.raises(ValueError, match="expected"):
        engine.search(vectors[:1, :5], 3)


def test_the_table_of_lists_is_made_before_a_query_waits_for_it(
    tmp_path: Path, vectors: npt.NDArray[np.float32]
) -> None:
    """With the index where filters are possible, with the first deleted ids where they are not."""
    manifest = written(tmp_path, vectors, "IVF16,SQ8", Metric.L2)

    def has_table(engine: Engine) -> bool:
        *_, lists = layers(engine._index)
        return not lists.direct_map.no()

    assert has_table(Engine.open(tmp_path, manifest))
    bare = Engine.open(tmp_path, manifest.model_copy(update={"files": ()}))
    assert not has_table(bare)
    bare.hide(RowSet.of_rows(np.arange(3), COUNT))
    assert has_table(bare)


@pytest.mark.parametrize("batch_rows", [7, 1000])
def test_row_files_of_any_block_sizes(tmp_path: Path, batch_rows: int) -> None:
    values = [f"ä{number}" if number % 5 else None for number in range(100)]
    path = tmp_path / "x.arrow"
    with RowWriter(path, pa.schema([("v", pa.string())]), batch_rows) as writer:
        for start, stop in ((0, 3), (3, 3), (3, 50), (50, 51), (51, 100)):
            writer.write(pa.table({"v": pa.array(values[start:stop], pa.string())}))
    file = RowFile(path)
    assert file.count == 100
    assert file.values(np.arange(100)[::-1], "v") == values[::-1]


@pytest.mark.parametrize("batch_rows", [7, 1000])
@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_ids_keep_their_type_in_files_of_one_batch_and_of_many(
    tmp_path: Path, kind: pa.DataType, batch_rows: int
) -> None:
    given = [number * 7 if kind == pa.int64() else "ä" * (number % 4) + f"{number}" for number in range(100)]
    given[50] = given[50] if kind == pa.int64() else ""
    with RowWriter(tmp_path / "ids.arrow", pa.schema([("id", kind)]), batch_rows) as writer:
        writer.write(pa.table({"id": pa.array(given, kind)}))
    ids = Ids(tmp_path / "ids.arrow")
    rows = np.array([99, 0, 50, 6, 7, 7, 63])
    assert ids(rows) == [given[row] for row in rows]
    assert ids(rows[:0]) == []
    for many in (np.resize(rows, 60), np.resize(rows[1:4], 30)):
        assert ids(many) == [given[row] for row in many]


@pytest.mark.parametrize("count", [1, 5, 300])
def test_unit_length_however_many_rows(count: int) -> None:
    given = np.random.default_rng(5).standard_normal((count, DIMENSION)).astype(np.float32)
    given[0] *= np.float32(1e-25)
    if count > 1:
        given[1] = 0
    before = given.copy()
    made = normalise(given)
    wide = given.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    np.testing.assert_array_equal(made, (wide / np.where(lengths == 0, 1, lengths)).astype(np.float32))
    np.testing.assert_array_equal(given, before)
    assert (normalise(np.zeros((count, 3), np.float32)) == 0).all()


def test_what_is_not_the_manifests_is_refused(tmp_path: Path, vectors: npt.NDArray[np.float32]) -> None:
    manifest = written(tmp_path, vectors, "HNSW16,Flat", Metric.L2)
    for change in (
        {"count": COUNT + 1},
        {"dimension": DIMENSION + 1},
        {"index_type": "IndexFlatL2"},
        {"embedding": Embedding(metric=Metric.INNER_PRODUCT)},
    ):
        with pytest.raises(BadData) as caught:
            Engine.open(tmp_path, manifest.model_copy(update=change))
        assert caught.value.reason == "BadArtifact"
    (tmp_path / "index.faiss").write_bytes(b"IxF2" + b"\xff" * 100)
    with pytest.raises(BadData, match="FAISS refuses"):
        Engine.open(tmp_path, manifest)
    assert faiss.get_deserialization_loop_limit() == 0


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("HNSWfoo", "UnknownFactory"),
        ("IVF16,PQ7", "UnknownFactory"),
        ("IDMap,Flat", "UnknownFactory"),
        ("Flat,IDMap2", "UnknownFactory"),
        ("Flat; rm -rf", "UnknownFactory"),
        ("IVF4096,Flat", "TooManyLists"),
        ("IVF99999999999999999999,Flat", "TooManyLists"),
        ("IMI2x40,Flat", "TooManyLists"),
        ("HNSW999999,Flat", "TooManyLinks"),
    ],
)
def test_bad_factories_are_named(factory: str, reason: str) -> None:
    with pytest.raises(BadSpec) as caught:
        make_index(factory, 1000, DIMENSION, Metric.COSINE)
    failure = caught.value.failure
    assert (failure.reason, failure.field) == (reason, "spec.index.factory")
    assert failure.remedy


def test_a_metric_that_faiss_would_drop_silently() -> None:
    with pytest.raises(BadSpec) as caught:
        make_index("HNSW32,PQ16", 1000, DIMENSION, Metric.INNER_PRODUCT)
    assert caught.value.reason == "UnsupportedMetric"


def test_auto_is_exact_while_that_is_fast() -> None:
    assert small(300, 768)
    assert not small(5_000, 768)


def test_training_sample_follows_lists_and_memory() -> None:
    index = make_index("IVF1024,Flat", 10**9, 64, Metric.L2)
    assert training_rows(index, 10**9) == 102_400
    assert training_rows(index, 10**9, memory_limit=64 << 20) == 65_536
    assert training_rows(index, 10**9, memory_limit=1 << 20) == 39 * 1024
    assert training_rows(index, 2000) == 2000
    assert training_rows(make_index("Flat", 10, 64, Metric.L2), 10) == 0
