"""Fresh rows: an exact search of a snapshot beside the artifact, merged into every answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.test_searcher_policies import COUNT, DIMENSION, SIZES, TAGS, TENANTS, Shop, a_shop, an_engine

from vectorindex_searcher.contract import FRESH_HEADER
from vectorindex_searcher.errors import BadData, BadSpec, TaskError
from vectorindex_searcher.index import fresh as fresh_module
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.index.filters import parse
from vectorindex_searcher.index.fresh import DeletedIds, FreshFile, fresh_rows
from vectorindex_searcher.index.metric import normalise
from vectorindex_searcher.index.selection.rowset import RowSet
from vectorindex_searcher.serve.http.messages import Problem
from vectorindex_searcher.serve.search.freshness import Freshness

BINARY = "application/octet-stream"
QUERY = [1.0, *[0.0] * (DIMENSION - 1)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return an_engine(tmp_path_factory.mktemp("fresh"), "Flat")


def vectors_of(seed: int, count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)


def a_file(ids: list[int], stored_at: float, tenant: str = "a", *, seed: int = 0, size: int = 1) -> FreshFile:
    metadata = pa.table(
        {"tenant": [tenant] * len(ids), "size": [size] * len(ids), "tags": pa.array([["new"]] * len(ids))},
        schema=pa.schema({"tenant": pa.string(), "size": pa.int64(), "tags": pa.list_(pa.string())}),
    )
    vectors = vectors_of(seed + int(stored_at), len(ids))
    return FreshFile(f"{stored_at:03.0f}.parquet", stored_at, pa.array(ids, pa.int64()), vectors, metadata)


# ---------------------------------------------------------------- equal to an exact search over the union

files = st.lists(
    st.tuples(
        st.lists(st.integers(COUNT - 12, COUNT + 12), max_size=9),
        st.integers(1, 9),
        st.sampled_from("abc"),
        st.integers(0, 60),
    ),
    max_size=4,
)
graves = st.lists(st.tuples(st.lists(st.integers(COUNT - 12, COUNT + 12), max_size=5), st.integers(0, 10)), max_size=2)


@settings(max_examples=60, deadline=None)
@given(files, graves, st.sampled_from([None, "a", "b"]), st.sampled_from([1, 7, 40, COUNT + 30]))
def test_equal_to_an_exact_search_over_the_union(
    engine: Engine, written: list[Any], dead: list[Any], tenant: str | None, k: int
) -> None:
    """Ids replace, the newest store time wins, tombstones hide what is not newer: scores equal to the last bit."""
    files = [a_file(ids, at + n / 10, name, seed=10 * n, size=size) for n, (ids, at, name, size) in enumerate(written)]
    deleted = [DeletedIds(float(at), pa.array(ids, pa.int64())) for ids, at in dead]
    truth: dict[int, tuple[float, np.ndarray[Any, Any], str, int]] = {
        row: (0.0, engine_vectors(engine)[row], str(TENANTS[row]), int(SIZES[row])) for row in range(COUNT)
    }
    for one in sorted(files, key=lambda file: file.stored_at):
        tenants, sizes = one.metadata["tenant"].to_pylist(), one.metadata["size"].to_pylist()
        vectors = normalise(one.vectors) if len(one.ids) else one.vectors
        for number, key in enumerate(one.ids.to_pylist()):
            truth[key] = (one.stored_at, vectors[number], tenants[number], sizes[number])
    for grave in deleted:
        for key in grave.ids.to_pylist():
            if key in truth and truth[key][0] <= grave.stored_at:
                del truth[key]
    kept = [key for key, (_, _, name, size) in truth.items() if tenant is None or (name == tenant and size < 40)]
    reference = faiss.IndexFlatL2(DIMENSION)
    reference.add(np.array([truth[key][1] for key in kept], np.float32))
    queries = vectors_of(99, 5)
    raw, lines = reference.search(normalise(queries), k)

    predicate = None
    if tenant is not None:
        predicate = parse({"tenant": tenant, "size": {"lt": 40}}, engine.filter_columns)
    side = fresh_rows(engine, 1, files, deleted)
    gone = [key for grave in deleted for key in grave.ids.to_pylist() if key < COUNT]
    hidden = None if not gone else ~RowSet.of_rows(np.array(sorted({*gone})), COUNT)
    allowed = None if predicate is None else engine.matching(predicate)
    if hidden is not None:  # what Deletions hides
        allowed = hidden if allowed is None else allowed & hidden
    base = engine.search(queries, k, allowed_rows=side.only(allowed))
    scores, rows = side.merged(queries, k, *base, predicate)
    expected = np.where(lines < 0, -np.inf, np.clip(1 - raw / np.float32(2), -1, 1))
    np.testing.assert_array_equal(scores, expected)
    for line, found in zip(lines, rows, strict=True):
        assert side.ids(found[found >= 0]) == [kept[number] for number in line[line >= 0]]


def engine_vectors(engine: Engine) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = engine._index.reconstruct_n(0, COUNT)
    return found


def test_fresh_rows_are_counted_among_the_hits_alone(engine: Engine) -> None:
    side = fresh_rows(engine, 1, [a_file([COUNT, COUNT + 1], 1)])
    rows = np.array([[COUNT, 3], [3, COUNT + 1], [3, COUNT], [4, -1]])
    assert side.among(rows, [2, 2, 1, 1]) == 2


# ---------------------------------------------------------------- over the port


@pytest.fixture
def fresh() -> Freshness:
    return Freshness()


@pytest.fixture
def shop(tmp_path: Path, fresh: Freshness) -> Iterator[Shop]:
    with a_shop(tmp_path, fresh=fresh) as one:
        yield one


def nearest(ids: list[int], stored_at: float, tenant: str) -> FreshFile:
    """Rows that QUERY finds before all others."""
    one = a_file(ids, stored_at, tenant)
    return FreshFile(one.key, stored_at, one.ids, np.array([QUERY] * len(ids), np.float32), one.metadata)


def test_fresh_rows_are_in_every_answer_and_say_their_snapshot(engine: Engine, shop: Shop, fresh: Freshness) -> None:
    status, _, before = shop.ask("support", {"vector": QUERY, "k": 3})
    assert status == 200
    assert "fresh" not in before
    fresh.take(fresh_rows(engine, 7, [nearest([COUNT + 1], 1, "a"), nearest([5], 2, "b")]))
    for body in ({"vector": QUERY}, {"vectors": [QUERY] * 40}, {"vector": QUERY, "filter": {"size": 1}}):
        status, headers, answer = shop.ask("support", {**body, "k": 3, "include": ["metadata"]})
        assert (status, answer["fresh"], headers[FRESH_HEADER.lower()]) == (200, 7, "7")
        for result in answer["results"]:
            assert result["ids"][:2] == [COUNT + 1, 5]
            assert result["scores"][:2] == [1, 1]
            assert result["metadata"][1] == {"tenant": "b", "size": 1, "tags": ["new"]}
    assert answer["filter"]["rows"] == np.count_nonzero((SIZES == 1) & (np.arange(COUNT) != 5)) + 2
    _, headers, answer = shop.ask("support", {"vector": QUERY, "k": 2}, headers={"Accept": BINARY})
    assert (headers[FRESH_HEADER.lower()], list(np.frombuffer(answer, "<i8", 2, 16))) == ("7", [COUNT + 1, 5])
    _, _, everything = shop.ask("support", {"vector": QUERY, "k": COUNT})
    assert len({*everything["results"][0]["ids"]}) == COUNT, "each id once"
    fresh.switch(off=True)
    _, _, after = shop.ask("support", {"vector": QUERY, "k": 3})
    assert after["results"] == before["results"]
    assert "fresh" not in after


def test_policies_hold_for_fresh_rows(engine: Engine, shop: Shop, fresh: Freshness) -> None:
    """A row that became another tenant's is nobody else's from then on, though the artifact has it for the old one."""
    moved = int(np.flatnonzero(TENANTS == "a")[0])
    fresh.take(fresh_rows(engine, 1, [nearest([COUNT], 1, "b"), nearest([moved], 2, "b")]))
    for body in ({"vector": QUERY}, {"vectors": [QUERY]}, {"vector": QUERY, "filter": {"size": {"gte": 0}}}):
        _, _, answer = shop.ask("a", {**body, "k": COUNT})
        assert sorted(answer["results"][0]["ids"]) == [n for n in np.flatnonzero(TENANTS == "a") if n != moved]
        _, _, answer = shop.ask("b", {**body, "k": COUNT})
        assert {COUNT, moved} <= {*answer["results"][0]["ids"]}
        # Few hits of one vector are searched together with those of others, which is another way.
        _, _, answer = shop.ask("a", {**body, "k": 5})
        assert not {COUNT, moved} & {*answer["results"][0]["ids"]}
        _, _, answer = shop.ask("b", {**body, "k": 5})
        assert answer["results"][0]["ids"][:2] == [COUNT, moved]
    status, _, _ = shop.ask("broken", {"vector": QUERY})
    assert status == 403


def test_a_client_reads_what_it_wrote(engine: Engine, shop: Shop, fresh: Freshness) -> None:
    status, headers, problem = shop.ask("a", {"vector": QUERY, "minFresh": 2})
    assert (status, problem["type"].rpartition(":")[2], problem["fresh"]) == (409, "NotFreshYet", 0)
    assert headers["retry-after"] == "1"
    fresh.take(fresh_rows(engine, 2, []))
    with shop.pod.held():  # both wait, and one is refused alone
        import concurrent.futures as futures

        pool = futures.ThreadPoolExecutor(4)
        waiting = [pool.submit(shop.ask, "a", {"vector": QUERY, "minFresh": least}) for least in (2, 3, 0, 1)]
    assert [one.result()[0] for one in waiting] == [200, 409, 200, 200]
    pool.shutdown()
    assert shop.pod.evidence().errors == 0, "what is not there yet is no fault of the index"


def test_without_fresh_rows_there_is_no_such_field(tmp_path: Path) -> None:
    with a_shop(tmp_path) as shop:
        status, _, problem = shop.ask("a", {"vector": QUERY, "minFresh": 0})
        assert (status, problem["field"]) == (400, "minFresh")


def test_a_number_never_falls(engine: Engine) -> None:
    held = Freshness()
    assert held.take(fresh_rows(engine, 3, []))
    assert not held.take(fresh_rows(engine, 3, []))
    assert not held.take(fresh_rows(engine, 2, []))
    held.switch(off=True)
    with pytest.raises(Problem):
        held.wanted([3])
    assert not held.take(fresh_rows(engine, 2, [])), "nor by being switched off and on"
    assert held.take(fresh_rows(engine, 4, []))
    assert held.now is None
    held.switch(off=False)
    assert held.wanted([1, 4]) is held.now


# ---------------------------------------------------------------- what is refused


def changed(**what: Any) -> FreshFile:
    one = a_file([1, 2], 1)
    given = {"ids": one.ids, "vectors": one.vectors, "metadata": one.metadata} | what
    return FreshFile("bad.parquet", 1.0, **given)


HOSTILE = {
    "DimensionMismatch": lambda: changed(vectors=np.ones((2, DIMENSION + 1), np.float32)),
    "BadIdType": lambda: changed(ids=pa.array(["1", "2"])),
    "NonFiniteVector": lambda: changed(vectors=np.full((2, DIMENSION), np.nan, np.float32)),
    "ZeroVector": lambda: changed(vectors=np.zeros((2, DIMENSION), np.float32)),
    "UnknownColumn": lambda: changed(metadata=pa.table({"tenant": ["a", "b"]})),
    "MixedTypes": lambda: changed(metadata=pa.table({"tenant": ["a", "b"], "size": ["x", "y"], "tags": TAGS[:2]})),
    "TooManyFreshRows": lambda: a_file(list(range(21)), 1),
}


@pytest.mark.parametrize("reason", HOSTILE)
def test_what_cannot_stand_beside_the_index_is_refused(
    engine: Engine, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh_module, "MAX_FRESH_ROWS", 20)
    file = HOSTILE[reason]()
    with pytest.raises(BadData) as caught:
        fresh_rows(engine, 1, [a_file([5], 0), file])
    assert (caught.value.reason, caught.value.failure.object) == (reason, file.key)


def test_a_row_cannot_take_the_place_of_one_that_cannot_be_hidden(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "supports_filter", False)
    assert fresh_rows(engine, 1, [a_file([COUNT], 1)]).kept is None
    with pytest.raises(BadSpec) as caught:
        fresh_rows(engine, 1, [a_file([5], 1)])
    assert isinstance(caught.value, TaskError)
    assert caught.value.reason == "CannotHide"
