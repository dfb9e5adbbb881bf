"""Searching some rows of an index: sets of rows, exact answers over stored codes, and when which way is taken."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.engine import read_index
from vectorindex_searcher.index.parameters import parameter_limits
from vectorindex_searcher.index.selection.restricted import Costs, Restricted, Strategy
from vectorindex_searcher.index.selection.rowset import RowSet
from vectorindex_searcher.index.selection.subset import CodeStore

COUNT, DIMENSION, K = 3000, 32, 5
Floats = npt.NDArray[np.float32]
_made: dict[tuple[str, int], Any] = {}


@pytest.fixture(scope="module")
def vectors() -> Floats:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((COUNT, 8)) @ rng.standard_normal((8, DIMENSION))).astype(np.float32)


@pytest.fixture(scope="module")
def queries(vectors: Floats) -> Floats:
    return vectors[:40] + 0.1 * np.random.default_rng(1).standard_normal((40, DIMENSION)).astype(np.float32)


def made(factory: str, vectors: Floats, metric: int = faiss.METRIC_L2) -> Any:
    """One index of a kind for all tests, read from its file as in a searcher: nothing here changes what it answers."""
    if (factory, metric) not in _made:
        faiss.omp_set_num_threads(1)
        index = faiss.index_factory(DIMENSION, factory, metric)
        index.train(vectors)
        index.add(vectors)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "index.faiss")
            faiss.write_index(index, str(file))
            _made[factory, metric] = read_index(file)
    return _made[factory, metric]


def some(count: int, seed: int = 2) -> RowSet:
    return RowSet.of_rows(np.random.default_rng(seed).choice(COUNT, count, replace=False), COUNT)


def nearest(vectors: Floats, queries: Floats, only: RowSet, k: int = K, metric: int = faiss.METRIC_L2) -> Any:
    rows = only.rows()
    _, found = faiss.knn(queries, vectors[rows], k, metric=metric)
    return rows[found]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 1000])
def test_sets_of_rows(count: int) -> None:
    rng = np.random.default_rng(count)
    for share in (0.0, 0.005, 0.5, 1.0):
        one, other = rng.random(count) < share, rng.random(count) < 0.5
        a, b = RowSet.of_mask(one), RowSet.of_mask(other)
        assert a.rows().tolist() == np.flatnonzero(one).tolist()
        assert (a.matching, a.count, a.share) == (one.sum(), count, one.sum() / count)
        assert (a & b).rows().tolist() == np.flatnonzero(one & other).tolist()
        assert (a & b) is (a & b)
        assert (~a).matching == count - a.matching
        asked = np.concatenate([rng.integers(0, count, 20), [-1]])
        assert a.holds(asked).tolist() == [bool(row >= 0 and one[row]) for row in asked]
    with pytest.raises(ValueError, match="do not combine"):
        a & RowSet.of_mask(np.zeros(count + 1, np.bool_))
    with pytest.raises(ValueError, match="expected"):
        RowSet(np.zeros(count // 8 + 2, np.uint8), count)


FAMILIES = {
    "Flat": 1.0,
    "SQ8": 0.97,
    "HNSW16,SQ8": 0.97,
    "HNSW16": 1.0,
    "IVF16,Flat": 1.0,
    "IVF16,SQ8": 0.97,
    "IVF16,PQ16x4fs,RFlat": 1.0,
    "IVF16,PQ16x4fs,Refine(SQ8)": 0.97,
    "IVF16,PQ16x4fs": 0.3,
    "IVF16_HNSW8,PQ16x4fs": 0.3,
    "PCA16,IVF16,PQ16x4fsr": 0.3,
    "IVF16,RQ4x4": 0.1,
    "PCA16,IVF16,Flat": 0.97,
    "PQ16x4fs": 0.3,
    "PQ4x4": 0.05,
    "NSG8,Flat": 1.0,
    "LSH": 0.0,
    "IVF16,RaBitQ": 0.1,
}


@pytest.mark.parametrize("factory", FAMILIES)
def test_exact_is_exact_on_stored_codes(factory: str, vectors: Floats, queries: Floats) -> None:
    """Recall is that of the codes; only allowed rows; fewer rows than k are all found; any number of queries."""
    restricted = Restricted(made(factory, vectors), {})
    assert restricted.possible
    for count in (3, 400):
        only = some(count)
        raw, rows = restricted.exact(queries, K, only)
        assert only.holds(rows[rows >= 0]).all()
        there = min(K, count)
        assert ((rows >= 0).sum(axis=1) == there).all()
        assert (np.diff(raw[:, :there], axis=1) >= 0).all()
        truth = nearest(vectors, queries, only, there)
        recall = np.mean([len(set(a) & set(b)) / there for a, b in zip(rows.tolist(), truth.tolist(), strict=True)])
        assert recall >= FAMILIES[factory]
    one, _ = restricted.exact(queries[7:8], K, only)
    np.testing.assert_allclose(one, raw[7:8], rtol=1e-5)


@pytest.mark.parametrize("metric", [faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT])
@pytest.mark.parametrize("factory", ["Flat", "HNSW16,SQ8", "IVF16,SQ8"])
def test_exact_distances_are_the_indexs_own(factory: str, metric: int, vectors: Floats, queries: Floats) -> None:
    """Clients see one kind of score, whatever way a query took."""
    index = made(factory, vectors, metric)
    limits = parameter_limits(index)
    params = {name: min(high, COUNT) for name, (_, high) in limits.items()}
    restricted = Restricted(index, params)
    only = some(1500)
    exact, rows = restricted.exact(queries, K, only)
    own, own_rows = restricted.approximate(queries, K, params, only)
    same = rows == own_rows
    assert same.mean() > 0.9
    np.testing.assert_allclose(exact[same], own[same], rtol=1e-3, atol=1e-2)


def test_large_subsets_are_searched_in_blocks(
    monkeypatch: pytest.MonkeyPatch, vectors: Floats, queries: Floats
) -> None:
    store = CodeStore(made("Flat", vectors))
    only = some(1000)
    whole = store.search(queries, K, only)
    assert store.keeps(only)
    monkeypatch.setattr("vectorindex_searcher.index.selection.subset.BLOCK_BYTES", 100 * store.row_bytes)
    store.cache_bytes = 0
    assert not store.keeps(only)
    raw, rows = store.search(queries, K, only)
    np.testing.assert_array_equal(rows, whole[1])
    np.testing.assert_allclose(raw, whole[0], rtol=1e-6)


def test_kept_subsets_are_bounded(vectors: Floats, queries: Floats) -> None:
    store = CodeStore(made("Flat", vectors))
    store.cache_bytes = 3 * 100 * (store.row_bytes + 8) + 3 * 400
    sets = [some(100, seed) for seed in range(10)]
    for only in (*sets, sets[9], sets[0]):
        _, rows = store.search(queries[:1], K, only)
        assert rows.tolist() == nearest(vectors, queries[:1], only).tolist()
        assert 0 < store._kept_bytes <= store.cache_bytes
    assert len(store._kept) == 3
    assert sets[0] in store._kept
    assert sets[9] in store._kept


def test_the_cheaper_way_is_taken(vectors: Floats, queries: Floats) -> None:
    params = {"efSearch": 32}
    restricted = Restricted(made("HNSW16,Flat", vectors), params)
    # 3 us for a search: half the rows cost 75 us exactly, and about 5 us by the graph.
    restricted.set_costs(Costs(search=3.0, scan=0.05, gather=0.1))
    ways = [restricted._choose(queries, K, params, some(count)) for count in (10, 60, 1500, 2999)]
    assert ways == [Strategy.EXACT, Strategy.EXACT, Strategy.APPROXIMATE, Strategy.APPROXIMATE]
    assert restricted._choose(queries, K, {"efSearch": 2000}, some(1500)) is Strategy.EXACT
    restricted.set_costs(Costs(search=1000.0, scan=0.05, gather=0.1))
    assert restricted._choose(queries, K, params, some(2999)) is Strategy.EXACT


def test_costs_are_measured_once_with_the_callers_queries(vectors: Floats, queries: Floats) -> None:
    restricted = Restricted(made("HNSW16,SQ8", vectors), {"efSearch": 32})
    costs = restricted.costs(queries)
    assert costs is restricted.costs(queries)
    assert 0 < costs.scan < costs.search
    assert 0 < costs.gather < costs.search


@pytest.mark.parametrize(("factory", "params"), [("HNSW16,Flat", {"efSearch": 24}), ("IVF64,Flat", {"nprobe": 6})])
def test_widening_keeps_recall(factory: str, params: dict[str, int], vectors: Floats, queries: Floats) -> None:
    """Recall under a filter is that without one; without widening it would not be."""
    index = made(factory, vectors)
    restricted = Restricted(index, params)
    everything = ~RowSet.of_mask(np.zeros(COUNT, np.bool_))

    def recall(only: RowSet, rows: npt.NDArray[np.int64]) -> float:
        return float(
            np.mean([np.isin(a, b).mean() for a, b in zip(nearest(vectors, queries, only), rows, strict=True)])
        )

    plain = recall(everything, restricted.approximate(queries, K, params, everything)[1])
    assert plain > 0.9
    only = some(150)
    assert recall(only, restricted.approximate(queries, K, params, only)[1]) >= plain - 0.02
    name, value = next(iter(params.items()))
    narrow = faiss.SearchParametersHNSW if name == "efSearch" else faiss.SearchParametersIVF
    _, rows = index.search(queries, K, params=narrow(**{name: value}, sel=only.selector))
    assert recall(only, rows) < plain - 0.05


def test_rows_far_from_the_query_are_found(vectors: Floats) -> None:
    """A graph that meets too few allowed rows is asked again exactly: the answer is full, and right."""
    near = np.argsort(((vectors - vectors[0]) ** 2).sum(axis=1))
    only = RowSet.of_rows(near[-1000:], COUNT)
    params = {"efSearch": 16}
    restricted = Restricted(made("HNSW16,Flat", vectors), params)
    restricted.set_costs(Costs(search=1e-6, scan=1.0, gather=1.0))
    (raw, rows), how = restricted.search(vectors[:1], K, params, only)
    assert how is Strategy.APPROXIMATE
    assert (restricted.approximate(vectors[:1], K, params, only)[1] < 0).any()
    assert rows.tolist() == nearest(vectors, vectors[:1], only).tolist()
    assert np.isfinite(raw).all()


def test_a_wider_search_that_nobody_waits_for_is_not_begun(vectors: Floats, monkeypatch: pytest.MonkeyPatch) -> None:
    near = np.argsort(((vectors - vectors[0]) ** 2).sum(axis=1))
    only, params = RowSet.of_rows(near[-1000:], COUNT), {"efSearch": 16}
    restricted = Restricted(made("HNSW16,Flat", vectors), params)
    restricted.set_costs(Costs(search=1e-6, scan=1.0, gather=1.0))
    asked: list[int] = []
    once = restricted.approximate

    def approximate(*arguments: Any) -> Any:
        asked.append(len(arguments[0]))
        return once(*arguments)

    monkeypatch.setattr(restricted, "approximate", approximate)
    with pytest.raises(TimeoutError):
        restricted.search(vectors[:1], K, params, only, time.monotonic())
    assert asked == [1]


def test_filters_that_correlate_with_the_query(vectors: Floats, queries: Floats) -> None:
    """Most queries lie where few rows are allowed: FAISS with a selector answers rows from where it hardly looked."""
    only = RowSet.of_mask(vectors[:, 0] > np.quantile(vectors[:, 0], 0.85))
    index, params = made("HNSW16,Flat", vectors), {"efSearch": 24}
    restricted = Restricted(index, params)
    restricted.set_costs(Costs(search=1.0, scan=0.02, gather=0.1))
    (_, rows), how = restricted.search(queries, K, params, only)
    assert how is Strategy.APPROXIMATE
    truth = nearest(vectors, queries, only)
    assert np.mean([np.isin(a, b).mean() for a, b in zip(truth, rows, strict=True)]) > 0.97
    widest = restricted._widen(K, params, only.share).params["efSearch"]
    narrow = faiss.SearchParametersHNSW(efSearch=widest, sel=only.selector)
    _, rows = index.search(queries, K, params=narrow)
    assert np.mean([np.isin(a, b).mean() for a, b in zip(truth, rows, strict=True)]) < 0.95


@pytest.mark.parametrize("factory", ["PQ4x4", "NSG8,Flat", "LSH", "IVF16,RQ4x4"])
def test_types_without_selectors_skip_a_few_hidden_rows(factory: str, vectors: Floats, queries: Floats) -> None:
    """Deletes leave nearly every row: asking for a few more and dropping some must do, and never shows a hidden row."""
    index = made(factory, vectors)
    restricted = Restricted(index, {})
    _, own = index.search(queries, K)
    only = ~RowSet.of_rows(np.unique(own[:, 0]), COUNT)
    _, rows = restricted.approximate(queries, K, {}, only)
    assert (rows >= 0).all()
    assert only.holds(rows).all()
    assert rows[0, 0] in own[0]


def test_nothing_matches(vectors: Floats, queries: Floats) -> None:
    for factory in ("Flat", "HNSW16,SQ8", "PQ4x4"):
        (raw, rows), _ = Restricted(made(factory, vectors), {}).search(queries, K, {}, some(0))
        assert raw.shape == rows.shape == (len(queries), K)
        assert (rows == -1).all()


def test_threads_share_one_index_and_its_subsets(vectors: Floats, queries: Floats) -> None:
    restricted = Restricted(made("IVF16,SQ8", vectors), {"nprobe": 16})
    sets = [some(200, seed) for seed in range(6)]
    expected = [Restricted(made("IVF16,SQ8", vectors), {}).exact(queries, K, only)[1].tolist() for only in sets]
    wrong: list[int] = []

    def work(offset: int) -> None:
        for number in range(30):
            which = (number + offset) % len(sets)
            if restricted.exact(queries, K, sets[which])[1].tolist() != expected[which]:
                wrong.append(which)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
