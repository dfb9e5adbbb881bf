"""Searches in words: understood or refused by field, encoded once, together with what waits, and never for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from search_requests import reader

from vectorindex_searcher.contract import OTHER_SEGMENT, Metric
from vectorindex_searcher.index.filters import FilterColumns
from vectorindex_searcher.serve.evidence.recorder import Outcome
from vectorindex_searcher.serve.http.limits import LOOP_BYTES, MAX_TEXT_CHARACTERS, MAX_TEXTS
from vectorindex_searcher.serve.http.messages import Deferred, Problem, Response
from vectorindex_searcher.serve.search.encoding import EncodedText, TextCache, TextSearches
from vectorindex_searcher.serve.search.plan import QuerySchema
from vectorindex_searcher.serve.search.policies import ALL_ROWS, Policy
from vectorindex_searcher.serve.search.reader import ReadTexts
from vectorindex_searcher.serve.search.service import Encoding
from vectorindex_searcher.text.encoder import Encoded, EncoderError, EncoderUnavailableError, Side

TERMS = QuerySchema(dimension=3, metric=Metric.COSINE, param_limits={"efSearch": (1, 4096)}, texts=True)
READER = reader(TERMS)


def read(body: object) -> tuple[ReadTexts, Outcome]:
    outcome = Outcome(OTHER_SEGMENT)
    found = READER.read(orjson.dumps(body), b"", b"", outcome, binary=False)
    if callable(found) and not isinstance(found, ReadTexts):
        found = found()
    assert isinstance(found, ReadTexts)
    return found, outcome


# ---------------------------------------------------------------- reading


def test_a_text_is_a_query_with_all_other_fields() -> None:
    found, outcome = read({"text": "red car", "k": 5, "params": {"efSearch": 7}})
    assert (found.texts, found.several, outcome.queries) == (("red car",), False, 1)
    assert (found.make().k, dict(found.make().params)) == (5, {"efSearch": 7})


def test_texts_are_several_queries() -> None:
    found, outcome = read({"texts": ["red", "blue", "red"]})
    assert (found.texts, found.several, outcome.queries) == (("red", "blue", "red"), True, 3)


LONG = "x" * (MAX_TEXT_CHARACTERS + 1)
BAD: dict[str, tuple[object, int, str, str | None]] = {
    "a number": ({"text": 7}, 400, "InvalidField", "text"),
    "null": ({"text": None}, 400, "InvalidField", "text"),
    "empty": ({"text": ""}, 400, "InvalidField", "text"),
    "spaces": ({"text": " \t\n"}, 400, "InvalidField", "text"),
    "too long": ({"text": LONG}, 400, "InvalidField", "text"),
    "no list": ({"texts": "red"}, 400, "InvalidField", "texts"),
    "none": ({"texts": []}, 400, "InvalidField", "texts"),
    "too many": ({"texts": ["red"] * (MAX_TEXTS + 1)}, 400, "InvalidField", "texts"),
    "one of them": ({"texts": ["red", 7]}, 400, "InvalidField", "texts[1]"),
    "both": ({"text": "red", "texts": ["red"]}, 400, "InvalidField", "text"),
    "and a vector": ({"text": "red", "vector": [1, 2, 3]}, 400, "InvalidField", "vector"),
    "and vectors": ({"texts": ["red"], "vectors": [[1, 2, 3]]}, 400, "InvalidField", "vectors"),
    "another field": ({"text": "red", "topK": 3}, 400, "UnknownField", "topK"),
    "another embedding": ({"text": "red", "k": 0}, 400, "InvalidField", "k"),
    "a long body": ({"texts": ["x" * 8000] * 11}, 413, "BodyTooLarge", "Content-Length"),
}


@pytest.mark.parametrize(("body", "status", "kind", "field"), BAD.values(), ids=BAD)
def test_what_is_no_text_is_refused_by_its_field(body: object, status: int, kind: str, field: str | None) -> None:
    assert len(orjson.dumps(body)) > LOOP_BYTES or status != 413
    with pytest.raises(Problem) as refused:
        read(body)[0].make()
    assert (refused.value.status, refused.value.kind, refused.value.field) == (status, kind, field)
    assert refused.value.remedy


@pytest.mark.parametrize("body", [{"text": "red"}, {"texts": ["red"]}])
def test_an_index_without_an_encoder_says_so(body: dict[str, Any]) -> None:
    terms = QuerySchema(dimension=3, metric=Metric.COSINE, param_limits={})
    with pytest.raises(Problem) as refused:
        reader(terms).read(orjson.dumps(body), b"", b"", Outcome(OTHER_SEGMENT), binary=False)
    assert (refused.value.status, refused.value.kind, refused.value.field) == (422, "NoEncoder", next(iter(body)))


def test_a_text_is_searched_for_among_the_rows_that_its_token_may_see() -> None:
    """Whoever asked for the same before, with another token, has made no plan for this one."""
    columns = FilterColumns(pa.schema([("team", pa.string())]))
    asking = reader(replace(TERMS, columns=columns))
    policy = Policy.of({"team": "red"}, columns)
    plans = {}
    for name, seen in (("all", ALL_ROWS), ("red", policy), ("again", ALL_ROWS)):
        body = orjson.dumps({"text": "car"})
        found = asking.read(body, b"", b"", Outcome(OTHER_SEGMENT), binary=False, policy=seen)
        assert isinstance(found, ReadTexts)
        plans[name] = found.make()
    assert plans["red"].filter == policy.predicate
    assert plans["all"].filter is plans["again"].filter is None


# ---------------------------------------------------------------- the cache


def test_the_cache_is_bounded_in_entries_and_bytes() -> None:
    cache = TextCache(entries=3, nbytes=10_000)
    for text in "abc":
        cache.put(text, EncodedText(np.zeros(3, np.float32), False))
    assert cache.get("a") is not None
    cache.put("d", EncodedText(np.zeros(3, np.float32), False))
    assert [cache.get(text) is not None for text in "abcd"] == [True, False, True, True], (
        "what was asked for last stays"
    )
    cache.put("long" * 1000, EncodedText(np.zeros(3, np.float32), False))
    assert cache.nbytes <= 10_000
    assert len(cache) == 0, "it alone is more than there is room for"


def test_who_has_another_policy_learns_nothing_from_the_cache_and_pushes_nothing_out() -> None:
    cache = TextCache(entries=4)
    one = EncodedText(np.zeros(3, np.float32), False)
    cache.put("a", one, b"mine")
    assert cache.get("a", b"theirs") is None
    for text in "bcdefg":
        cache.put(text, one, b"theirs")
    assert cache.get("a", b"mine") is not None
    assert len(cache) == 4


def test_the_policy_of_who_asks_is_with_its_texts() -> None:
    columns = FilterColumns(pa.schema([("team", pa.string())]))
    policy = Policy.of({"team": "red"}, columns)
    body = orjson.dumps({"text": "car"})
    found = reader(replace(TERMS, columns=columns)).read(
        body, b"", b"", Outcome(OTHER_SEGMENT), binary=False, policy=policy
    )
    assert isinstance(found, ReadTexts)
    assert found.holder == policy.key != b""


# ---------------------------------------------------------------- encoding


class Fake:
    """Makes [length, 1, 0] of a text, when its gate is open."""

    dimension, max_tokens, nbytes = 3, 6, 0

    def close(self) -> None: ...

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    def encode(self, texts: Sequence[str], side: Side) -> Encoded:
        assert side is Side.QUERY
        self.calls.append(tuple(texts))
        self.begun.set()
        assert self.gate.wait(60)
        if "away" in texts:
            raise EncoderUnavailableError("secret detail", 2.1)
        if "broken" in texts:
            raise EncoderError("secret detail")
        vectors = np.array([[0, 0, 0] if "zero" in text else [len(text), 1, 0] for text in texts], np.float32)
        return Encoded(vectors, tuple(len(text) > 20 for text in texts))


class Asked:
    """What was searched for."""

    def __init__(self) -> None:
        self.vectors: list[np.ndarray] = []
        self.encodings: list[Encoding] = []
        self.problem: Problem | None = None

    def __call__(
        self, plan: Any, vectors: Any, outcome: Any, began: Any, seconds: Any, encoding: Any = None
    ) -> Deferred:
        if self.problem is not None:
            raise self.problem
        self.vectors.append(vectors)
        self.encodings.append(encoding)
        deferred = Deferred()
        deferred.resolve(Response(200, b"{}"))
        return deferred


class Running:
    def __init__(self, threads: int = 1, **options: Any) -> None:
        self.encoder, self.searched = Fake(), Asked()
        options.setdefault("queue_seconds", 60)
        self.texts = TextSearches(self.encoder, self.searched, Metric.COSINE, threads, **options)

    def ask(
        self, body: object, seconds: float | None = None, holder: bytes = b""
    ) -> Awaitable[int | tuple[int, str, str | None]]:
        """The status of its answer; of a refusal with kind and field."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        found, outcome = read(body)
        found = replace(found, holder=holder)
        try:
            answer = self.texts.ask(found, outcome, time.monotonic(), seconds)
        except Problem as problem:
            future.set_result((problem.status, problem.kind, problem.field))
            return future

        def told(said: Response | BaseException) -> None:
            if isinstance(said, Response):
                future.set_result(said.status)
            else:
                assert isinstance(said, Problem), said
                assert "secret" not in said.detail
                future.set_result((said.status, said.kind, said.field))

        answer.then(told)
        return future


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def test_a_text_is_encoded_and_searched_for() -> None:
    async def test() -> None:
        one = Running()
        assert await one.ask({"text": "red"}) == 200
        assert await one.ask({"texts": ["a longer text than twenty", "red", "a longer text than twenty"]}) == 200
        first, second = one.searched.vectors
        assert first.tolist() == [3, 1, 0]
        assert second.tolist() == [[25, 1, 0], [3, 1, 0], [25, 1, 0]]
        assert one.encoder.calls == [("red",), ("a longer text than twenty",)], "each text once"
        assert one.searched.encodings[0].truncated == ()
        assert one.searched.encodings[1].truncated == ("texts[0]", "texts[2]")
        assert one.searched.encodings[1].most_tokens == 6
        one.texts.close()

    run(test)


def test_what_waits_is_encoded_together_and_each_gets_its_own() -> None:
    async def test() -> None:
        one = Running()
        one.encoder.gate.clear()
        first = one.ask({"text": "first"})
        assert await asyncio.to_thread(one.encoder.begun.wait, 60)
        others = [one.ask({"text": text}) for text in ("aa", "bbb", "zero", "bbb", "broken k")]
        one.encoder.gate.set()
        assert await first == 200
        assert await asyncio.gather(*others) == [200, 200, (422, "TextNotEncoded", "text"), 200, 200]
        assert one.encoder.calls == [("first",), ("aa", "bbb", "zero", "broken k")]
        assert await one.ask({"texts": ["aa", "zero"]}) == (422, "TextNotEncoded", "texts[1]")
        assert one.encoder.calls[-1] == ("zero",), "what is of no use is not kept"
        one.texts.close()

    run(test)


def test_long_texts_of_one_policy_keep_nobody_else_waiting() -> None:
    async def test() -> None:
        one = Running()
        one.encoder.gate.clear()
        first = one.ask({"text": "first"})
        assert await asyncio.to_thread(one.encoder.begun.wait, 60)
        others = [one.ask({"text": text}, holder=holder) for text, holder in (("long" * 99, b"a"), ("b", b"b"))]
        others.append(one.ask({"text": "away"}, holder=b"a"))
        one.encoder.gate.set()
        assert await first == 200
        assert await asyncio.gather(*others) == [
            (503, "EncoderUnavailable", "text"),
            200,
            (503, "EncoderUnavailable", "text"),
        ]
        assert one.encoder.calls == [("first",), ("b",), ("long" * 99, "away")]
        one.texts.close()

    run(test)


def test_a_model_that_fails_is_told_without_its_words_and_goes_on() -> None:
    async def test() -> None:
        one = Running()
        assert await one.ask({"text": "broken"}) == (500, "EncoderFailed", "text")
        assert await one.ask({"text": "red"}) == 200
        one.searched.problem = Problem(503, "Overload", "full")
        assert await one.ask({"text": "red"}) == (503, "Overload", None), "from the cache"
        assert await one.ask({"text": "blue"}) == (503, "Overload", None)
        one.texts.close()

    run(test)


def test_an_encoder_that_cannot_be_asked_is_503_and_says_when_to_come_back() -> None:
    async def test() -> None:
        one = Running()
        found, outcome = read({"text": "away"})
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        one.texts.ask(found, outcome, time.monotonic(), None).then(future.set_result)
        problem = await future
        assert (problem.status, problem.kind, problem.headers) == (503, "EncoderUnavailable", ((b"Retry-After", b"3"),))
        assert "secret" not in problem.detail
        assert await one.ask({"text": "red"}) == 200
        one.texts.close()

    run(test)


def test_what_waits_is_bounded_in_texts_and_in_time() -> None:
    async def test() -> None:
        one = Running(queue_texts=3, queue_seconds=0.05)
        one.encoder.gate.clear()
        first = one.ask({"text": "first"})
        assert await asyncio.to_thread(one.encoder.begun.wait, 60)
        waits = one.ask({"texts": ["aa", "bb"]})
        late = one.ask({"text": "cc"}, 0.01)
        assert await one.ask({"text": "dd"}) == (503, "Overload", None), "three texts wait"
        assert await late == (504, "DeadlineExceeded", "X-Request-Timeout-Ms")
        await asyncio.sleep(0.06)
        one.encoder.gate.set()
        assert await first == 200
        assert await waits == (503, "Overload", None)
        assert one.texts.waiting == 0
        assert one.encoder.calls == [("first",)], "nothing is encoded for those who have gone"
        one.texts.close()

    run(test)


def test_a_deadline_that_has_passed_is_not_waited_for() -> None:
    async def test() -> None:
        one = Running()
        assert await one.ask({"text": "red"}, 1e-9) == (504, "DeadlineExceeded", "X-Request-Timeout-Ms")
        one.texts.close()

    run(test)


def test_threads_share_what_waits() -> None:
    async def test() -> None:
        one = Running(threads=4)
        assert await asyncio.gather(*(one.ask({"text": f"text {n}"}) for n in range(100))) == [200] * 100
        assert sorted(text for call in one.encoder.calls for text in call) == sorted(f"text {n}" for n in range(100))
        one.texts.close()

    run(test)
