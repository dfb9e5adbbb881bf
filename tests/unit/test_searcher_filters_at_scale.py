"""Filters over very many rows: memory bounded by design, work that is done once, and nobody who waits for it."""

from __future__ import annotations

import math
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from vectorindex_searcher.index import predicates
from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.filters import FilterColumns, memory_of, parse
from vectorindex_searcher.index.parameters import layers
from vectorindex_searcher.index.predicates import Evaluation, MatchCache
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

    class Slow(Evaluation):
        def found(self) -> RowSet:
            times.append(1)
            begun.set()
            assert go_on.wait(60)
            return super().found()

    monkeypatch.setattr(predicates, "Evaluation", Slow)
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

    monkeypatch.setattr(Evaluation, "go_on", broken)
    for _ in range(2):
        with pytest.raises(MemoryError):
            cache(at_least(3))
    monkeypatch.undo()
    assert cache(at_least(3)).matching == 2500
    assert at_least(3) in cache
    assert at_least(4) not in cache


class Stepped(Evaluation):
    """An evaluation for whose batches a clock goes by a second each, and that can be held up before one."""

    clock: ClassVar[list[float]]
    evaluated: ClassVar[list[int]]
    before: ClassVar[dict[int, Callable[[], object]]]

    def __init__(self, file: RowFile, predicate: Any) -> None:
        super().__init__(file, predicate)
        self._prepared = self  # type: ignore[assignment]
        self._real = predicates._Prepared(file.schema)

    def holds(self, predicate: Any, batch: Any) -> Any:
        self.before.get(len(self.evaluated), int)()
        self.evaluated.append(batch.num_rows)
        self.clock[0] += 1
        return self._real.holds(predicate, batch)


@pytest.fixture
def stepped(monkeypatch: pytest.MonkeyPatch) -> type[Stepped]:
    """In place of evaluations, and of the time that those who wait for one look at."""
    Stepped.clock, Stepped.evaluated, Stepped.before = [0.0], [], {}
    monkeypatch.setattr(predicates, "Evaluation", Stepped)
    monkeypatch.setattr(predicates, "time", SimpleNamespace(monotonic=lambda: Stepped.clock[0]))
    return Stepped


@pytest.mark.parametrize("seconds", [0.5, 1, 3, 8, 11.5])
def test_a_filter_past_its_deadline_ends_and_goes_on_where_it_ended(
    file: RowFile, stepped: type[Stepped], seconds: float
) -> None:
    """Also with a deadline that none of its evaluations would meet from the start."""
    cache = MatchCache(file)
    for number in range(math.floor(26 / math.ceil(seconds))):
        with pytest.raises(TimeoutError):
            cache(at_least(3), stepped.clock[0] + seconds)
        assert len(stepped.evaluated) == (number + 1) * math.ceil(seconds), "a batch after the deadline at most"
        assert (at_least(3) in cache) == (len(stepped.evaluated) == 26)
    found = cache(at_least(3), stepped.clock[0] + seconds)
    assert stepped.evaluated == [100] * 25 + [3], "no batch twice"
    np.testing.assert_array_equal(found.rows(), np.arange(3, 2503))
    assert cache(at_least(3)) is found
    assert cache.misses == 1


def test_a_filter_goes_on_past_the_deadline_of_who_began_it_while_somebody_waits_longer(
    file: RowFile, stepped: type[Stepped], monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(event: threading.Event, result: Callable[..., RowSet], timeout: float | None) -> RowSet:
        event.set()
        return result(timeout)

    cache, there, waits, go_on = MatchCache(file), threading.Event(), threading.Event(), threading.Event()
    stepped.before[4] = lambda: (there.set(), go_on.wait(60))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache, at_least(3), 10.0)
        assert there.wait(60)
        coming = cache._coming[at_least(3)].found
        monkeypatch.setattr(coming, "result", partial(told, waits, coming.result))
        other = pool.submit(cache, at_least(3))
        assert waits.wait(60)
        go_on.set()
        assert other.result(60).matching == 2500
        with pytest.raises(TimeoutError):
            first.result(60)
    assert len(stepped.evaluated) == 26


def test_who_waits_for_the_filter_of_another_waits_no_longer_than_he_may(file: RowFile, stepped: type[Stepped]) -> None:
    cache, there, go_on = MatchCache(file), threading.Event(), threading.Event()
    stepped.before[4] = lambda: (there.set(), go_on.wait(60))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache, at_least(3))
        assert there.wait(60)
        with pytest.raises(TimeoutError):
            cache(at_least(3), stepped.clock[0])
        go_on.set()
        assert first.result(60).matching == 2500


def test_what_was_begun_of_a_filter_is_kept_within_the_bytes_of_all(file: RowFile, stepped: type[Stepped]) -> None:
    cost = 2 * 313 + 512 + memory_of(at_least(1))
    cache = MatchCache(file, limit_bytes=2 * cost)
    for size in (1, 2, 3, 4, 5):
        with pytest.raises(TimeoutError):
            cache(at_least(size), stepped.clock[0] + 2)
        assert cache.nbytes <= 2 * cost
    for size in (4, 5):
        assert cache(at_least(size)).matching == 2503 - size
    assert len(stepped.evaluated) == 5 * 2 + 2 * 24, "the last two went on"
    assert cache.nbytes == 2 * cost


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
