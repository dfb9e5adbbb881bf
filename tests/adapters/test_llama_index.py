"""The LlamaIndex adapter: the real llama-index-core, against a real searcher process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from adapters.rows import DATA, DIMENSION, example, row
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from vectorindex_client import AsyncClient, Client, InvalidRequest
from vectorindex_client.llama_index import VectorIndexStore


@pytest.fixture
def store(client: Client) -> VectorIndexStore:
    return VectorIndexStore(client)


def query(number: int = 7, k: int = 3, **fields: Any) -> VectorStoreQuery:
    return VectorStoreQuery(query_embedding=DATA[number].tolist(), similarity_top_k=k, **fields)


def test_a_node_is_the_row(store: VectorIndexStore, client: Client) -> None:
    found = store.query(query())
    plain = client.search(DATA[7], 3)
    assert (found.ids, found.similarities) == (plain.ids, pytest.approx(plain.scores, abs=1e-6))
    assert found.nodes is not None
    first = found.nodes[0]
    assert (first.node_id, first.get_content()) == ("row-7", "text 7")
    kept = {name: value for name, value in row(7).items() if name in ("section", "year", "tags")}
    assert first.metadata == kept | {"_revision": plain.revision}


def test_an_index_over_the_store_retrieves(store: VectorIndexStore) -> None:
    index = VectorStoreIndex.from_vector_store(store, embed_model=MockEmbedding(embed_dim=DIMENSION))
    filters = MetadataFilters(filters=[MetadataFilter(key="section", value="home")])
    retriever = index.as_retriever(similarity_top_k=5, filters=filters, vector_store_kwargs={"min_score": -1})
    found = retriever.retrieve("a question")
    assert [one.node.metadata["section"] for one in found] == ["home"] * 5
    assert asyncio.run(retriever.aretrieve("a question")) == found


@pytest.mark.parametrize("own", [False, True], ids=["in a thread", "with a client of its own"])
def test_the_asynchronous_query_finds_the_same(store: VectorIndexStore, client: Client, url: str, own: bool) -> None:
    async def found() -> list[str] | None:
        async with AsyncClient(url) as other:
            asked = VectorIndexStore(client, async_client=other if own else None)
            return (await asked.aquery(query())).ids

    assert asyncio.run(found()) == store.query(query()).ids


# ---------------------------------------------------------------- filters

EQ, NE, IN, NIN = FilterOperator.EQ, FilterOperator.NE, FilterOperator.IN, FilterOperator.NIN
ANY, ALL, CONTAINS, IS_EMPTY = FilterOperator.ANY, FilterOperator.ALL, FilterOperator.CONTAINS, FilterOperator.IS_EMPTY


def one(key: str, operator: FilterOperator, value: Any) -> MetadataFilter:
    return MetadataFilter(key=key, operator=operator, value=value)


CONDITIONS = [
    one("section", EQ, "home"),
    one("section", NE, "home"),
    one("section", IN, ["home", "cellar"]),
    one("section", NIN, ["home", "cellar"]),
    one("section", IS_EMPTY, None),
    one("year", EQ, 2003),
    one("year", FilterOperator.GT, 2003),
    one("year", FilterOperator.GTE, 2003),
    one("year", FilterOperator.LT, 2001),
    one("year", FilterOperator.LTE, 2001),
    one("year", IN, [2001, 2004]),
    one("tags", CONTAINS, "t1"),
    one("tags", ANY, ["t1", "u0"]),
    one("tags", ALL, ["t1", "u0"]),
]


@pytest.mark.parametrize("condition", list(FilterCondition), ids=lambda one: one.value)
@pytest.mark.parametrize("number", range(len(CONDITIONS)))
def test_a_filter_finds_what_llama_index_itself_finds(
    store: VectorIndexStore, number: int, condition: FilterCondition
) -> None:
    """Alone and with the next one: by LlamaIndex's own function on the same rows, those without a value included."""
    for some in (CONDITIONS[number : number + 1], [CONDITIONS[number], CONDITIONS[(number + 1) % len(CONDITIONS)]]):
        filters = MetadataFilters(filters=list(some), condition=condition)
        rows = {f"row-{number}": row(number) for number in range(len(DATA))}
        fits = build_metadata_filter_fn(rows.__getitem__, filters)
        assert set(store.query(query(k=len(DATA), filters=filters)).ids or ()) == set(filter(fits, rows))


def test_filters_within_filters(store: VectorIndexStore) -> None:
    """LlamaIndex's own function knows none of these."""
    none_of = MetadataFilters(
        filters=[
            MetadataFilters(filters=[one("section", EQ, "home"), one("year", EQ, 2001)]),
            MetadataFilters(filters=[one("section", EQ, "garden")]),
            MetadataFilters(filters=[]),
        ],
        condition=FilterCondition.NOT,
    )
    filters = MetadataFilters(filters=[none_of, one("tags", CONTAINS, "t1")])
    wanted = {
        found["id"]
        for found in map(row, range(len(DATA)))
        if not ((found["section"], found["year"]) == ("home", 2001) or found["section"] == "garden")
        and "t1" in found["tags"]
    }
    assert set(store.query(query(k=len(DATA), filters=filters)).ids or ()) == wanted
    assert len(store.query(query(filters=MetadataFilters(filters=[]))).ids or ()) == 3


def test_a_filter_of_our_own_holds_beside_theirs(store: VectorIndexStore) -> None:
    theirs = MetadataFilters(filters=[one("section", EQ, "home")])
    found = store.query(query(k=400, filters=theirs), filter={"year": {"gte": 2003}})
    assert found.nodes
    assert {(node.metadata["section"], node.metadata["year"] >= 2003) for node in found.nodes} == {("home", True)}
    assert (
        store.query(query(), filter={"year": 2003}).ids
        == store.query(query(filters=MetadataFilters(filters=[one("year", EQ, 2003)]))).ids
    )


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (query(mode=VectorStoreQueryMode.MMR), "mode mmr"),
        (query(mode=VectorStoreQueryMode.HYBRID), "mode hybrid"),
        (VectorStoreQuery(query_str="a text"), "embed_model"),
        (query(node_ids=["row-7"]), "metadata column"),
        (query(doc_ids=["row-7"]), "metadata column"),
        (query(filters=MetadataFilters(filters=[one("text", FilterOperator.TEXT_MATCH, "t")])), "compared whole"),
        (query(filters=MetadataFilters(filters=[one("year", EQ, None)])), "is_empty"),
        (query(filters=MetadataFilters(filters=[one("tags", ANY, [])])), "give a value"),
    ],
)
def test_what_no_search_can_do_is_refused(store: VectorIndexStore, asked: VectorStoreQuery, words: str) -> None:
    with pytest.raises((ValueError, NotImplementedError), match=words):
        store.query(asked)


def test_a_wrong_column_is_told_by_the_searcher(store: VectorIndexStore) -> None:
    with pytest.raises(InvalidRequest, match="colour"):
        store.query(query(filters=MetadataFilters(filters=[one("colour", EQ, "red")])))


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.add([TextNode(text="a text")]),
        lambda store: store.delete("row-7"),
        lambda store: asyncio.run(store.async_add([TextNode(text="a text")])),
    ],
)
def test_rows_do_not_come_this_way(store: VectorIndexStore, call: Callable[[VectorIndexStore], object]) -> None:
    with pytest.raises(NotImplementedError, match=r"object storage.*spec\.source"):
        call(store)


def test_the_example(url: str) -> None:
    found = example("LlamaIndex", url)["found"]
    assert {one.node.metadata["section"] for one in found} == {"home"}
