"""An index as a vector store of LlamaIndex: `VectorStoreIndex.from_vector_store(VectorIndexStore(client))`.

Needs llama-index-core (extra `llama-index`). It reads only. What `vector_store_kwargs` of a retriever hold goes to
`Client.search`: `segment`, `min_score`, `params`, `track`, `timeout`, and a `filter` in our own language. See
docs/client.md.
"""

# ruff: noqa: ARG002 - what is refused takes what the library gives

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NoReturn

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from .client import AsyncClient, Client
from .results import Result
from .stores import refuse_write, rows_of

Filter = dict[str, Any]


class VectorIndexStore(BasePydanticVectorStore):
    """Nodes of one index. Their text is the metadata column `text_column`, all other columns are their metadata, with
    `_revision`: which revision answered.

    `async_client`: what the asynchronous calls use; without it they wait for `client` in a thread. Both stay the
    caller's to close.
    """

    stores_text: bool = True
    text_column: str = "text"
    _client: Client = PrivateAttr()
    _async_client: AsyncClient | None = PrivateAttr()

    def __init__(self, client: Client, *, text_column: str = "text", async_client: AsyncClient | None = None) -> None:
        super().__init__(stores_text=True, text_column=text_column)
        self._client = client
        self._async_client = async_client

    @classmethod
    def class_name(cls) -> str:
        return "VectorIndexStore"

    @property
    def client(self) -> Client:
        return self._client

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The nodes nearest to the query's vector. Raises ValueError for what no search can do, NotImplementedError for
        modes other than the default one, VectorIndexError when it is not answered."""
        return self._result(self._client.search(**search_arguments(query, kwargs)))

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        if self._async_client is None:
            return await asyncio.to_thread(self.query, query, **kwargs)
        return self._result(await self._async_client.search(**search_arguments(query, kwargs)))

    def _result(self, found: Result) -> VectorStoreQueryResult:
        rows = rows_of(found, self.text_column)
        nodes = [TextNode(id_=row.id, text=row.text, metadata=row.metadata) for row in rows]
        return VectorStoreQueryResult(nodes, [row.score for row in rows], [row.id for row in rows])

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> NoReturn:
        """Refused: rows come from object storage."""
        refuse_write("add")

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> NoReturn:
        """Refused: rows come from object storage."""
        refuse_write("delete")


def search_arguments(query: VectorStoreQuery, more: dict[str, Any]) -> dict[str, Any]:
    """What `Client.search` is asked for. `more`: further arguments of it; a `filter` holds beside the query's."""
    if query.mode != VectorStoreQueryMode.DEFAULT:
        raise NotImplementedError(f"mode {query.mode.value}: searchers compare vectors only: use mode default")
    if query.query_embedding is None:
        raise ValueError("query_embedding: there is no vector to search for: give the index an embed_model")
    if query.node_ids or query.doc_ids:
        raise ValueError(
            "node_ids, doc_ids: rows are chosen by their columns: write the ids into a metadata column as well, and "
            "use a filter with the operator in"
        )
    given = [one for one in (filter_of(query.filters), more.get("filter")) if one]
    arguments = {name: value for name, value in more.items() if name != "filter"}
    if given:
        arguments["filter"] = given[0] if len(given) == 1 else {"and": given}
    return arguments | {"query": query.query_embedding, "k": query.similarity_top_k, "include_metadata": True}


# ---------------------------------------------------------------- filters

PLAIN = {
    FilterOperator.EQ: "eq",
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
    FilterOperator.IN: "in",
    FilterOperator.CONTAINS: "contains",
}


def filter_of(filters: MetadataFilters | None, *, negated: bool = False) -> Filter | None:
    """Their filters in our language (docs/filters.md), None for none. A row without a value counts as in LlamaIndex:
    it differs from every value, and fulfils no other condition. `negated`: they stand below a `not`. Raises ValueError
    for what cannot be asked."""
    if filters is None:
        return None
    none_of = filters.condition == FilterCondition.NOT
    found = [one for part in filters.filters if (one := _part(part, negated or none_of))]
    if not found:
        return None
    if none_of:
        return {"not": {"or": found}}
    return {"or" if filters.condition == FilterCondition.OR else "and": found}


def _part(one: MetadataFilter | MetadataFilters, negated: bool) -> Filter | None:
    return filter_of(one, negated=negated) if isinstance(one, MetadataFilters) else _condition(one, negated)


def _condition(one: MetadataFilter, negated: bool) -> Filter:
    absent = {one.key: {"exists": False}}
    # In our language null compares with nothing, and the `not` of that is not true either: below one it is told apart.
    there = {"exists": True} if negated else {}
    if one.operator == FilterOperator.IS_EMPTY:
        return absent
    if one.value is None or one.value == []:
        raise ValueError(f"filters: {one.key} {one.operator.value} {one.value}: give a value, or use is_empty")
    if one.operator in PLAIN:
        return {one.key: there | {PLAIN[one.operator]: one.value}}
    if one.operator == FilterOperator.NE:
        return {"or": [absent, {one.key: {"ne": one.value}}]}
    if one.operator == FilterOperator.NIN:
        return {"or": [absent, {"not": {one.key: {"in": one.value}}}]}
    if one.operator in (FilterOperator.ANY, FilterOperator.ALL):
        values = one.value if isinstance(one.value, list) else [one.value]
        together = "or" if one.operator == FilterOperator.ANY else "and"
        return {together: [{one.key: there | {"contains": value}} for value in values]}
    raise ValueError(
        f"filters: {one.key} {one.operator.value}: texts are compared whole: use ==, in, or a column of its own"
    )
