"""Factory strings beyond the families of `Auto`: built, written, read and searched in every way, or refused early."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vectorindex_searcher.build.task import build
from vectorindex_searcher.contract import (
    SEARCH_PARAMS,
    BuildTask,
    ExitCode,
    Identity,
    IndexSpec,
    Location,
    Metric,
)
from vectorindex_searcher.errors import BadSpec
from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.choose.rehearsal import PROVEN, try_out
from vectorindex_searcher.index.engine import read_index
from vectorindex_searcher.index.factory import make_index, parts
from vectorindex_searcher.index.metric import normalise
from vectorindex_searcher.index.parameters import parameter_limits, search_parameters
from vectorindex_searcher.index.selection.restricted import Restricted
from vectorindex_searcher.index.selection.rowset import RowSet

COUNT, DIMENSION, K = 1200, 32, 5
Floats = npt.NDArray[np.float32]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Two OpenMP threads on one busy core spin for minutes."""
    faiss.omp_set_num_threads(1)


@pytest.fixture(scope="module")
def vectors() -> Floats:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((COUNT, 8)) @ rng.standard_normal((8, DIMENSION))).astype(np.float32)


def made(factory: str, vectors: Floats, metric: Metric) -> Any:
    """As a searcher has it: read from its file."""
    index = make_index(factory, len(vectors), vectors.shape[1], metric)
    index.train(vectors)
    index.add(vectors)
    with tempfile.TemporaryDirectory() as folder:
        faiss.write_index(index, str(Path(folder, "index.faiss")))
        return read_index(Path(folder, "index.faiss"))


def recall(rows: npt.NDArray[np.int64], vectors: Floats, queries: Floats, only: RowSet, metric: Metric) -> float:
    kind = faiss.METRIC_INNER_PRODUCT if metric is Metric.INNER_PRODUCT else faiss.METRIC_L2
    _, truth = faiss.knn(queries, vectors[only.rows()], K, metric=kind)
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(only.rows()[truth], rows, strict=True)]))


ALL = list(Metric)
L2_ONLY = [Metric.L2]
SEARCHED = {
    "SQbf16": ALL,
    "HNSW16": L2_ONLY,
    "HNSW16,SQ4": [Metric.INNER_PRODUCT],
    "IVF16,Flat": ALL,
    "IVF16,SQfp16": ALL,
    "IVF16,PQ16x4fsr": ALL,
    "IVF16,PQ16x4fs,Refine(SQ6)": ALL,
    "IVF16_HNSW8,SQ8": ALL,
    "PCA16,IVF16,RaBitQ,RFlat": ALL,
    "IVF16,RaBitQ4": ALL,
    "RaBitQ4": ALL,
    "RaBitQfs4": ALL,
    "IVF16,RaBitQfs4": ALL,
    "PQ16x4fs_64": ALL,
    "IVF16,PQ16x4fs_64": ALL,
    "IVF16,FlatDedup": L2_ONLY,
    "PQ8x4": ALL,
    "RQ2x4": L2_ONLY,
    "IVF16,RQ2x4": L2_ONLY,
    "RQ8x4fs_Nrq2x4,RFlat": L2_ONLY,
    "IVF16,PCA16,SH,RFlat": L2_ONLY,
    "LSH,RFlat": L2_ONLY,
    "NSG8,SQ8": L2_ONLY,
    "EDEN4": ALL,
    "IVF16(PQ8x4fs,RFlat),Flat": ALL,
    "HNSW8,PQ8x4": L2_ONLY,
}


@pytest.mark.parametrize(
    ("factory", "metric"), [(factory, metric) for factory, metrics in SEARCHED.items() for metric in metrics]
)
def test_rows_are_found_under_filters_as_without(factory: str, metric: Metric, vectors: Floats) -> None:
    """Filtered answers are allowed rows alone, k of them, and no worse than those of the index without a filter."""
    vectors = normalise(vectors) if metric is Metric.COSINE else vectors
    index = made(factory, vectors, metric)
    queries = vectors[:60]
    params = {name: min(most, 64) for name, (_, most) in parameter_limits(index).items()}
    assert params.keys() <= set(SEARCH_PARAMS), "what queries may name at every index"
    everything = ~RowSet.of_mask(np.zeros(COUNT, np.bool_))
    _, rows = index.search(queries, K, params=search_parameters(index, params))
    plain = recall(rows, vectors, queries, everything, metric)
    assert plain > 0.05
    restricted = Restricted(index, params)
    if not restricted.possible:
        assert factory in ("RaBitQfs4", "PQ16x4fs_64")
        return
    for share in (0.9, 0.2, 0.008):
        only = RowSet.of_mask(np.random.default_rng(3).random(COUNT) < share)
        (_, rows), how = restricted.search(queries, K, params, only)
        assert only.holds(rows[rows >= 0]).all()
        assert (rows >= 0).all()
        assert recall(rows, vectors, queries, only, metric) >= plain - 0.05, how
        _, rows = restricted.approximate(queries, K, params, only)
        assert only.holds(rows[rows >= 0]).all()


@pytest.mark.parametrize("metric", ALL)
def test_the_kinds_that_are_not_tried_before_a_build_could_be(metric: Metric) -> None:
    for factory in ("SQ8", "HNSW16,SQfp16", "IVF64_HNSW16,PQ8x4fs,Refine(SQ4)", "PCA16,HNSW16,RFlat", "IVF64,RaBitQ"):
        assert PROVEN.fullmatch(factory)
        assert try_out(factory, COUNT, DIMENSION, metric)
    for factory in (
        "PQ8",
        "PQ8x4fs",
        "IVF64,PQ8",
        "NSG16",
        "IVF64,RQ8x4fs_Nrq2x4",
        "HNSW16,SQ0",
        "PQ0",
        "IVF4k,Flat x",
    ):
        assert not PROVEN.fullmatch(factory)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("IVF64,RQ8x4fs_Nrq2x4", "params not supported"),
        ("HNSW16,16+PQ8", "params not supported"),
        ("ZnLattice4x10_8", "no code st"),
        ("RCQ2x4", "not applicable"),
        ("PQ2x12", "2.12 rows"),
        ("PQ16x24", "2.24 rows"),
        ("IVF0,Flat", "0 lists"),
        ("SQ0", "no distances"),
        ("MinMax,SQ8", "add not implemented"),
        ("Residual16,PQ8x4", "not implemented"),
        ("HNSW1", "1 links"),
        ("PQ8x4fs,Refine(FlatL2Panorama8)", "instead of Panorama"),
        ("FlatL2Panorama8", "instead of Panorama"),
        ("NSG0", "0 links"),
        ("LSH", "no distances"),
        ("PQ8x4fs,Refine(LSH)", "no distances"),
        ("PQ8x4fs,Refine(RaBitQfs)", "no distances"),
        ("IVF64,PCA16,SH", "no distances"),
        ("RQ8x4fs_Nrq2x4", "no distances"),
        ("IVF64,RQ4x4_Nnone", "no distances"),
        ("IVF2k,Flat", "2048 lists"),
    ],
)
def test_what_cannot_be_searched_is_refused(factory: str, said: str) -> None:
    with pytest.raises(BadSpec, match=said) as caught:
        try_out(factory, COUNT, DIMENSION, Metric.L2)
    failure = caught.value.failure
    assert failure.field == "spec.index.factory"
    assert factory in failure.message
    assert failure.remedy


def test_code_books_larger_than_the_miniature_are_left_to_training() -> None:
    assert try_out("PQ2x12", 100_000, DIMENSION, Metric.L2)
    assert try_out("IVF8192,PQ8x4", 10**6, DIMENSION, Metric.L2)
    assert try_out("IMI2x8,PQ8x4", 10**6, DIMENSION, Metric.L2)


def test_a_kind_that_ends_the_process_ends_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAISS throws inside its threads: the build says so with its exit code, before it reads a row."""
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32))
    monkeypatch.setattr("vectorindex_searcher.build.given.stage", lambda *_: pytest.fail("the source is read"))
    task = BuildTask(
        identity=Identity(name="n"),
        digest="d",
        source=Location(folder=str(tmp_path)),
        artifacts=Location(folder=str(tmp_path / "out")),
        index=IndexSpec(factory="HNSW16,SQ0"),
    )
    with pytest.raises(BadSpec, match=r"'HNSW16,SQ0'.*its process ends with -6: .*QT_0bit") as caught:
        build(task)
    assert caught.value.exit_code is ExitCode.BAD_SPEC
    assert (caught.value.reason, caught.value.failure.field) == ("UnsupportedIndex", "spec.index.factory")


def test_the_trial_tells_whether_deleted_ids_can_be_hidden() -> None:
    """An empty index of product codes cannot be asked; a small one can."""
    assert try_out("PQ8x4", COUNT, DIMENSION, Metric.L2)
    assert not try_out("PQ8x4fs_64", COUNT, DIMENSION, Metric.L2)


@pytest.mark.parametrize("factory", ["PQ8", "HNSW16,PQ8", "NSG16,PQ8", "IVF64,SQ8,Refine(PQ8)", "IVF64(PQ8),Flat"])
def test_no_part_is_trained_for_polysemous_codes(factory: str) -> None:
    """Minutes of simulated annealing for what no search parameter can ask for."""
    index = make_index(factory, COUNT, DIMENSION, Metric.L2)  # its parts live as long as this name
    kinds = [part for part in parts(index) if hasattr(part, "pq")]
    assert kinds
    assert not any(part.do_polysemous_training for part in kinds)


def test_codes_that_are_the_numbers_themselves(vectors: Floats) -> None:
    """SQ8_direct in lists: differences to a centroid would wrap around."""
    whole = np.random.default_rng(0).integers(0, 256, (COUNT, DIMENSION)).astype(np.float32)
    index = made("IVF16,SQ8_direct", whole, Metric.L2)
    only = ~RowSet.of_mask(np.zeros(COUNT, np.bool_))
    for _, rows in (
        index.search(whole[:50], K, params=search_parameters(index, {"nprobe": 16})),
        Restricted(index, {}).exact(whole[:50], K, only),
    ):
        assert recall(rows, whole, whole[:50], only, Metric.L2) == 1.0
