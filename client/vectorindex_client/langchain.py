"""An index as a vector store of LangChain: `VectorIndexStore(client, embedding).as_retriever()`. See docs/client.md.

Needs langchain-core (extra `langchain`). It reads only. What goes beyond LangChain's own arguments is that of
`Client.search`: `filter`, `segment`, `min_score`, `params`, `track`, `timeout`.
"""

# ruff: noqa: ARG002, ARG003 - what is refused takes what the library gives

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NoReturn

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from .client import AsyncClient, Client
from .results import Result
from .stores import refuse_write, rows_of

Scored = list[tuple[Document, float]]


class VectorIndexStore(VectorStore):
    """Documents of one index. Their text is the metadata column `text_column`, all other columns are their metadata,
    with `_revision`: which revision answered.

    `embedding`: the model that made the vectors of the index; None where only vectors are asked for. `async_client`:
    what the asynchronous calls use; without it they wait for `client` in a thread. Both stay the caller's to close.
    """

    def __init__(
        self,
        client: Client,
        embedding: Embeddings | None = None,
        *,
        text_column: str = "text",
        async_client: AsyncClient | None = None,
    ) -> None:
        self._client = client
        self._async_client = async_client
        self._embedding = embedding
        self._text_column = text_column

    @property
    def embeddings(self) -> Embeddings | None:
        return self._embedding

    # ------------------------------------------------------------ searches

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The k documents nearest to a text. Raises VectorIndexError when it is not answered."""
        return _documents(self.similarity_search_with_score(query, k, **kwargs))

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> Scored:
        """As `similarity_search`, each with its score. Higher is better, whatever the metric."""
        return self.similarity_search_with_score_by_vector(self._model().embed_query(query), k, **kwargs)

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """The k documents nearest to a vector."""
        return _documents(self.similarity_search_with_score_by_vector(embedding, k, **kwargs))

    def similarity_search_with_score_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> Scored:
        """As `similarity_search_by_vector`, each with its score."""
        return self._scored(self._client.search(embedding, k, include_metadata=True, **kwargs))

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return _documents(await self.asimilarity_search_with_score(query, k, **kwargs))

    async def asimilarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> Scored:
        return await self._ascored(await self._model().aembed_query(query), k, **kwargs)

    async def asimilarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        return _documents(await self._ascored(embedding, k, **kwargs))

    async def _ascored(self, embedding: list[float], k: int, **kwargs: Any) -> Scored:
        if self._async_client is None:
            return await asyncio.to_thread(self.similarity_search_with_score_by_vector, embedding, k, **kwargs)
        return self._scored(await self._async_client.search(embedding, k, include_metadata=True, **kwargs))

    def _scored(self, found: Result) -> Scored:
        return [
            (Document(id=row.id, page_content=row.text, metadata=row.metadata), row.score)
            for row in rows_of(found, self._text_column)
        ]

    def _model(self) -> Embeddings:
        if self._embedding is None:
            raise ValueError(
                "embedding: this store was made without a model, so it takes no text: give it the one that made the "
                "vectors of the index, or ask by vector"
            )
        return self._embedding

    # ------------------------------------------------------------ scores from 0 to 1

    def _similarity_search_with_relevance_scores(self, query: str, k: int = 4, **kwargs: Any) -> Scored:
        """For `score_threshold`. The metric is asked for each time: the next revision may have another one."""
        metric = str(self._client.index()["metric"])
        return _relevant(self.similarity_search_with_score(query, k, **kwargs), metric)

    async def _asimilarity_search_with_relevance_scores(self, query: str, k: int = 4, **kwargs: Any) -> Scored:
        if self._async_client is None:
            index = await asyncio.to_thread(self._client.index)
        else:
            index = await self._async_client.index()
        return _relevant(await self.asimilarity_search_with_score(query, k, **kwargs), str(index["metric"]))

    # ------------------------------------------------------------ what is refused

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> NoReturn:
        """Refused: it compares the vectors of hits with each other, and searchers answer without vectors."""
        raise NotImplementedError(
            'search_type "mmr": searchers answer ids, scores and metadata, no vectors to compare hits with each other: '
            "search for more, and choose among their texts"
        )

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> NoReturn:
        """Refused, as `max_marginal_relevance_search`."""
        self.max_marginal_relevance_search("", k, fetch_k, lambda_mult)

    def add_texts(self, texts: Iterable[str], metadatas: list[dict[str, Any]] | None = None, **kwargs: Any) -> NoReturn:
        """Refused: rows come from object storage."""
        refuse_write("add_texts")

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> NoReturn:
        """Refused: rows come from object storage."""
        refuse_write("delete")

    @classmethod
    def from_texts(cls, texts: list[str], embedding: Embeddings, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: rows come from object storage."""
        refuse_write("from_texts")


def _documents(found: Scored) -> list[Document]:
    return [document for document, _ in found]


def _relevant(found: Scored, metric: str) -> Scored:
    """Scores from 0 to 1: cosines, where those below 0 are 0. Other metrics have no such scale."""
    if metric != "Cosine":
        raise ValueError(
            f"score_threshold: scores of an index with the metric {metric} have no scale from 0 to 1: "
            "use min_score, in the index's own scores"
        )
    return [(document, min(max(score, 0.0), 1.0)) for document, score in found]
