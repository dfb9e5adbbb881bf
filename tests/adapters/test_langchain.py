"""The LangChain adapter: the real langchain-core, against a real searcher process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from adapters.rows import DATA, example, row
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda

from vectorindex_client import AsyncClient, Client, InvalidRequest
from vectorindex_client.langchain import VectorIndexStore


class ByNumber(Embeddings):
    """Text that ends with a number is embedded as that row of the data."""

    def embed_query(self, text: str) -> list[float]:
        vector: list[float] = DATA[int(text.split()[-1])].tolist()
        return vector

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


@pytest.fixture
def store(client: Client) -> VectorIndexStore:
    return VectorIndexStore(client, ByNumber())


def ids(found: list[Document]) -> list[str | None]:
    return [document.id for document in found]


def test_a_document_is_the_row(store: VectorIndexStore, client: Client) -> None:
    (document,) = store.similarity_search("row 7", 1)
    assert (document.id, document.page_content) == ("row-7", "text 7")
    kept = {name: value for name, value in row(7).items() if name in ("section", "year", "tags")}
    assert document.metadata == kept | {"_revision": client.index()["revision"]}
    assert store.similarity_search("row 10", 1)[0].page_content == "", "a row without a text"
    assert len(store.similarity_search("row 7")) == 4, "as LangChain's own stores"


def test_the_score_is_the_searchers_and_higher_is_better(store: VectorIndexStore, client: Client) -> None:
    found = store.similarity_search_with_score("row 7", 5)
    plain = client.search(DATA[7], 5)
    assert ids([document for document, _ in found]) == plain.ids
    assert [score for _, score in found] == pytest.approx(plain.scores, abs=1e-6)
    assert found[0][1] == pytest.approx(1, abs=1e-5)


def test_by_vector(store: VectorIndexStore, client: Client) -> None:
    without = VectorIndexStore(client)
    assert ids(without.similarity_search_by_vector(DATA[3].tolist(), 2)) == ids(store.similarity_search("row 3", 2))
    with pytest.raises(ValueError, match="without a model"):
        without.similarity_search("row 3")


def test_arguments_of_a_search_reach_the_searcher(store: VectorIndexStore) -> None:
    found = store.similarity_search("row 7", 50, filter={"section": "home", "year": {"gte": 2003}})
    assert {(one.metadata["section"], one.metadata["year"] >= 2003) for one in found} == {("home", True)}
    assert ids(store.similarity_search("row 7", 50, min_score=0.999)) == ["row-7"]
    with pytest.raises(InvalidRequest, match="colour"):
        store.similarity_search("row 7", filter={"colour": "red"})
    with pytest.raises(TypeError, match="fliter"):
        store.similarity_search("row 7", fliter={"section": "home"})


def test_feedback_finds_its_query(store: VectorIndexStore, client: Client) -> None:
    (document,) = store.similarity_search("row 7", 1, track=True)
    assert client.feedback(document.metadata["_query_id"], 1)


@pytest.mark.parametrize("own", [False, True], ids=["in a thread", "with a client of its own"])
def test_the_asynchronous_calls_find_the_same(store: VectorIndexStore, client: Client, url: str, own: bool) -> None:
    async def found() -> list[Any]:
        async with AsyncClient(url) as other:
            asked = VectorIndexStore(client, ByNumber(), async_client=other if own else None)
            return [
                await asked.asimilarity_search("row 7", 3),
                await asked.asimilarity_search_with_score("row 7", 3),
                await asked.asimilarity_search_by_vector(DATA[7].tolist(), 3),
                await asked.asimilarity_search_with_relevance_scores("row 7", 3),
                await asked.as_retriever(search_kwargs={"k": 3}).ainvoke("row 7"),
            ]

    assert asyncio.run(found()) == [
        store.similarity_search("row 7", 3),
        store.similarity_search_with_score("row 7", 3),
        store.similarity_search_by_vector(DATA[7].tolist(), 3),
        store.similarity_search_with_relevance_scores("row 7", 3),
        store.similarity_search("row 7", 3),
    ]


def test_a_retriever_in_a_chain(store: VectorIndexStore) -> None:
    retriever = store.as_retriever(search_kwargs={"k": 2, "filter": {"section": "garden"}})
    texts = RunnableLambda(lambda found: " / ".join(document.page_content for document in found))
    assert (retriever | texts | StrOutputParser()).invoke("row 7").startswith("text 7 / ")


def test_a_threshold_of_relevance(store: VectorIndexStore) -> None:
    whole = {"k": 400, "score_threshold": 0.5}
    found = store.as_retriever(search_type="similarity_score_threshold", search_kwargs=whole).invoke("row 7")
    assert ids(found) == ids(store.similarity_search("row 7", 400, min_score=0.5))
    scores = [score for _, score in store.similarity_search_with_relevance_scores("row 7", 400)]
    assert (min(scores), max(scores)) == (0, pytest.approx(1, abs=1e-5))


def test_a_metric_without_a_scale_has_no_relevance(store: VectorIndexStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "index", lambda self: {"metric": "L2"})
    with pytest.raises(ValueError, match="use min_score"):
        store.similarity_search_with_relevance_scores("row 7")


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.add_texts(["a text"]),
        lambda store: store.add_documents([Document(page_content="a text")]),
        lambda store: store.delete(["row-7"]),
        lambda store: type(store).from_texts(["a text"], ByNumber()),
        lambda store: type(store).from_documents([Document(page_content="a text")], ByNumber()),
        lambda store: asyncio.run(store.aadd_texts(["a text"])),
    ],
)
def test_rows_do_not_come_this_way(store: VectorIndexStore, call: Callable[[VectorIndexStore], object]) -> None:
    with pytest.raises(NotImplementedError, match=r"object storage.*spec\.source"):
        call(store)


def test_diversity_needs_vectors_that_no_answer_has(store: VectorIndexStore) -> None:
    with pytest.raises(NotImplementedError, match="no vectors"):
        store.as_retriever(search_type="mmr").invoke("row 7")
    with pytest.raises(NotImplementedError, match="no vectors"):
        store.max_marginal_relevance_search_by_vector(DATA[7].tolist())


@pytest.mark.parametrize(("column", "words"), [("title", "has: section, tags, text, year"), ("year", "holds int")])
def test_a_column_that_holds_no_text_is_named(client: Client, column: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VectorIndexStore(client, ByNumber(), text_column=column).similarity_search("row 7")


def test_the_example(url: str) -> None:
    found = example("LangChain", url)["found"]
    assert {document.metadata["section"] for document in found} == {"home"}
