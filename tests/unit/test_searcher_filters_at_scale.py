"""Filters over very many rows: memory bounded by design, work that is done once, and nobody who waits for it."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vectorindex_searcher.index import predicates
from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.filters import FilterColumns, parse
from vectorindex_searcher.index.parameters import layers
from vectorindex_searcher.index.predicates import MatchCache, matching
from vectorindex_searcher.index.rows import RowFile, RowWriter
from vectorindex_searcher.index.selection import restricted
from vectorindex_searcher.index.selection.restricted import Restricted
from vectorindex_searcher.index.selection.rowset import RowSet
from vectorindex_searcher.index.selection.subset import SETS_BYTES, CodeStore, cache_bytes, lent_bytes
from vectorindex_searcher.serve.http.messages import Problem
from vectorindex_searcher.serve.search.work import Work, WorkBudget

MANY = 16_000_000
SCHEMA = pa.schema([("size", pa.int32())])


def peak_of(job: Callable[[], object]) -> int:
    """Bytes that it takes at most, beside what was there."""
    tracemalloc.start()
    try:
        job()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def file(tmp_path: Path) -> RowFile:
    path = tmp_path / "metadata.arrow"
    with RowWriter(path, SCHEMA, 100) as writer:
        writer.write(pa.table({"size": range(2503)}, SCHEMA))
    return RowFile(path)


def at_least(size: int) -> Any:
    return parse({"size": {"gte": size}}, FilterColumns(SCHEMA))


# ---------------------------------------------------------------- sets of rows


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.02, 0.6, 1.0])
@pytest.mark.parametrize("count", [5, 3_000_017])
def test_blocks_are_the_rows_in_order(count: int, share: float) -> None:
    mask = np.random.default_rng(4).random(count) < share
    allowed, wanted = RowSet.of_mask(mask), np.flatnonzero(mask)
    np.testing.assert_array_equal(allowed.rows(), wanted)
    np.testing.assert_array_equal(RowSet.of_rows(wanted, count).bits, allowed.bits)
    for most in (4096, 1_000_000):
        blocks = list(allowed.blocks(most))
        assert [len(block) for block in blocks[:-1]] == [most] * (len(blocks) - 1)
        assert all(0 < len(block) <= most for block in blocks)
        np.testing.assert_array_equal(np.concatenate([wanted[:0], *blocks]), wanted)


def test_a_set_of_many_rows_is_neither_made_nor_read_as_numbers_of_all_rows() -> None:
    """64 MB as rows of eight bytes, 16 MB as one byte a row; the set itself is 2 MB."""
    half = RowSet(np.full(MANY // 8, 0x0F, np.uint8), MANY)
    assert peak_of(lambda: sum(len(block) for block in half.blocks(5000))) < 12 << 20
    assert peak_of(lambda: RowSet.of_rows(np.array([7, MANY - 1]), MANY)) < 8 << 20


def test_an_exact_search_of_many_rows_takes_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The set's rows would be 32 MB."""
    index = faiss.IndexFlat(1)
    index.add(np.zeros((8_000_000, 1), np.float32))
    store = CodeStore(index)
    monkeypatch.setattr("vectorindex_searcher.index.selection.subset.BLOCK_BYTES", 1 << 20)
    store.cache_bytes = 0
    allowed, query = RowSet(np.full(1_000_000, 0x55, np.uint8), 8_000_000), np.zeros((1, 1), np.float32)
    assert peak_of(lambda: store.search(query, 3, allowed)) < 16 << 20


# ---------------------------------------------------------------- what is kept


@pytest.mark.parametrize("rows", [1000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000])
@pytest.mark.parametrize("row_bytes", [16, 64, 768])
def test_sets_and_copies_share_what_is_counted(rows: int, row_bytes: int) -> None:
    """The formula of memory knows their sum."""
    total = cache_bytes(rows, row_bytes)
    lent = lent_bytes(rows, total)
    assert 0 <= lent <= total // 2
    assert lent == 0 or rows > 8_000_000, "of a smaller index sixteen sets have room as it is"
    kept = (SETS_BYTES + lent) // (2 * rows // 8)
    assert kept >= (16 if rows <= 8_000_000 else 4 if rows <= 100_000_000 and row_bytes >= 16 else 0)


def test_a_large_index_lends_its_sets_what_its_copies_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    index = faiss.IndexFlat(2)
    index.add(np.zeros((1000, 2), np.float32))
    small = CodeStore(index)
    assert (small.cache_bytes, small.sets_bytes) == (cache_bytes(1000, 8), SETS_BYTES)
    monkeypatch.setattr("vectorindex_searcher.index.selection.subset.SETS_BYTES", 1000)
    store = CodeStore(index)
    assert (store.cache_bytes, store.sets_bytes) == (cache_bytes(1000, 8) - 3000, 4000)
    assert Restricted(index, {}).sets_bytes == 4000


def test_few_sets_are_held_with_their_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    index = faiss.IndexFlat(2)
    index.add(np.zeros((1000, 2), np.float32))
    assert Restricted(index, {})._prepared.cache_parameters()["maxsize"] == 8
    monkeypatch.setattr(restricted, "_PREPARED_BYTES", 260)
    assert Restricted(index, {})._prepared.cache_parameters()["maxsize"] == 2


# ---------------------------------------------------------------- evaluated once, and within the budget


def test_a_filter_that_many_ask_at_once_is_evaluated_once(file: RowFile, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, begun, go_on, times = MatchCache(file), threading.Event(), threading.Event(), []

    def slow(*given: Any) -> RowSet:
        times.append(1)
        begun.set()
        assert go_on.wait(60)
        return matching(*given)

    monkeypatch.setattr(predicates, "matching", slow)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(cache, at_least(3))
        assert begun.wait(60)
        others = [pool.submit(cache, at_least(3)) for _ in range(7)]
        go_on.set()
        sets = {id(one.result(60)) for one in (first, *others)}
    assert len(sets) == 1, "one object, so what hangs on it is shared"
    assert len(times) == 1


def test_a_filter_that_fails_fails_for_all_who_wait_and_is_tried_again(
    file: RowFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = MatchCache(file)

    def broken(*_: Any) -> RowSet:
        raise MemoryError

    monkeypatch.setattr(predicates, "matching", broken)
    for _ in range(2):
        with pytest.raises(MemoryError):
            cache(at_least(3))
    monkeypatch.undo()
    assert cache(at_least(3)).matching == 2500
    assert at_least(3) in cache
    assert at_least(4) not in cache


def test_rows_of_filters_that_are_not_kept_are_counted_as_work() -> None:
    budget = WorkBudget(limit=40 << 20)
    with Work(budget) as one:
        one.filter(100_000_000)
        assert budget.taken == 25_000_000
        with pytest.raises(Problem) as caught, Work(budget) as other:
            other.filter(100_000_000)
        assert caught.value.status == 503
    assert budget.taken == 0


# ---------------------------------------------------------------- the table of lists


def lists(count: int = 4000) -> Any:
    vectors = np.random.default_rng(2).standard_normal((count, 8)).astype(np.float32)
    index = faiss.index_factory(8, "IVF16,SQ8", faiss.METRIC_L2)
    index.train(vectors)
    index.add(vectors)
    return index


def has_table(index: Any) -> bool:
    *_, innermost = layers(index)
    return not innermost.direct_map.no()


def test_the_table_of_lists_is_there_before_a_query_needs_it() -> None:
    index = lists()
    store = Restricted(index, {})
    assert not has_table(index)
    store.prepare()
    assert has_table(index)
    Restricted(index, {}).prepare()
    store.release()
    assert not has_table(index)


def test_kept_subsets_wait_for_no_table() -> None:
    store, query = CodeStore(lists()), np.zeros((1, 8), np.float32)
    allowed = RowSet.of_rows(np.arange(50), 4000)
    wanted = store.search(query, 3, allowed)[1].tolist()
    with store._mapping, ThreadPoolExecutor(1) as pool:
        assert pool.submit(store.search, query, 3, allowed).result(60)[1].tolist() == wanted
