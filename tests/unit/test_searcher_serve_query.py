"""Every way a search can be asked wrongly is refused with field, value and remedy; every right way is understood."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectorindex_searcher.contract import Metric
from vectorindex_searcher.serve.http.messages import Problem
from vectorindex_searcher.serve.search.fields import fields_of_json, fields_of_query_string
from vectorindex_searcher.serve.search.query import MAX_VECTORS, QuerySchema, Search, search_of

TERMS = QuerySchema(
    dimension=3,
    metric=Metric.COSINE,
    param_limits={"efSearch": (1, 4096)},
    segments=frozenset({"keyword"}),
    embedding_model="mini",
    embedding_version="1",
    min_score=0.25,
)
V = [1.0, 2.0, 3.0]


def parse(body: object, terms: QuerySchema = TERMS) -> Search:
    return search_of(fields_of_json(orjson.dumps(body)), None, terms)


def parse_binary(query: bytes, vectors: np.ndarray, terms: QuerySchema = TERMS) -> Search:
    return search_of(fields_of_query_string(query), vectors.astype("<f4").tobytes(), terms)


def test_smallest_search_has_defaults() -> None:
    search = parse({"vector": V})
    assert search.vectors.dtype == np.float32
    assert search.vectors.tolist() == [V]
    assert (search.k, search.params, search.segment) == (10, {}, "other")
    assert (search.include_metadata, search.min_score) == (False, 0.25)


def test_everything_named() -> None:
    search = parse(
        {
            "vectors": [V, [0, -1, 1e-3]],
            "k": 1000,
            "params": {"efSearch": 64},
            "segment": "keyword",
            "include": ["metadata"],
            "minScore": -1,
            "embedding": {"model": "mini", "version": "1"},
        }
    )
    assert search.vectors.shape == (2, 3)
    assert (search.k, search.params, search.segment) == (1000, {"efSearch": 64}, "keyword")
    assert (search.include_metadata, search.min_score) == (True, -1.0)


def test_nulls_mean_absent_and_undeclared_segments_are_other() -> None:
    search = parse({"vector": V, "params": None, "segment": None, "include": None, "minScore": None, "embedding": None})
    assert search.min_score == 0.25
    assert parse({"vector": V, "segment": "spoken"}).segment == "other"


def test_binary_body_and_query_string_say_the_same() -> None:
    vectors = np.array([V, V], np.float32)
    query = b"k=5&params.efSearch=7&segment=keyword&include=metadata&minScore=0.5&embedding.model=mini"
    search = parse_binary(query, vectors)
    assert (search.vectors == vectors).all()
    assert (search.k, search.params, search.segment, search.include_metadata) == (5, {"efSearch": 7}, "keyword", True)
    assert search.min_score == 0.5


BAD: dict[str, tuple[object, int, str, str | None]] = {
    "not an object": ([V], 400, "MalformedJSON", None),
    "unknown field": ({"vector": V, "topK": 3}, 400, "UnknownField", "topK"),
    "no vector": ({"k": 3}, 400, "InvalidField", "vector"),
    "both": ({"vector": V, "vectors": [V]}, 400, "InvalidField", "vector"),
    "vector no list": ({"vector": "abc"}, 400, "InvalidField", "vector"),
    "vectors empty": ({"vectors": []}, 400, "InvalidField", "vectors"),
    "vectors flat": ({"vectors": V}, 400, "InvalidField", "vectors[0]"),
    "string number": ({"vector": [1.0, "2", 3.0]}, 400, "InvalidField", "vector[1]"),
    "null number": ({"vectors": [V, [1.0, 2.0, None]]}, 400, "InvalidField", "vectors[1][2]"),
    "nested": ({"vector": [1.0, [2.0], 3.0]}, 400, "InvalidField", "vector[1]"),
    "too many": ({"vectors": [V] * (MAX_VECTORS + 1)}, 400, "TooManyVectors", "vectors"),
    "short": ({"vector": [1.0]}, 422, "WrongDimension", "vector"),
    "one long": ({"vectors": [V, [*V, 4.0]]}, 422, "WrongDimension", "vectors[1]"),
    "empty vector": ({"vector": []}, 422, "WrongDimension", "vector"),
    "beyond float32": ({"vector": [1.0, 1e39, 3.0]}, 400, "NonFiniteVector", "vector[1]"),
    "square beyond float32": ({"vectors": [V, [1.0, 1e30, 3.0]]}, 400, "VectorTooLarge", "vectors[1][1]"),
    "zero": ({"vector": [0, 0.0, 0]}, 400, "ZeroVector", "vector"),
    "k zero": ({"vector": V, "k": 0}, 400, "InvalidField", "k"),
    "k large": ({"vector": V, "k": 1001}, 400, "InvalidField", "k"),
    "k float": ({"vector": V, "k": 5.0}, 400, "InvalidField", "k"),
    "k true": ({"vector": V, "k": True}, 400, "InvalidField", "k"),
    "k null": ({"vector": V, "k": None}, 400, "InvalidField", "k"),
    "params list": ({"vector": V, "params": [1]}, 400, "InvalidField", "params"),
    "param unknown": ({"vector": V, "params": {"nprobe": 3}}, 400, "UnknownField", "params.nprobe"),
    "param low": ({"vector": V, "params": {"efSearch": 0}}, 400, "InvalidField", "params.efSearch"),
    "param high": ({"vector": V, "params": {"efSearch": 5000}}, 400, "InvalidField", "params.efSearch"),
    "param text": ({"vector": V, "params": {"efSearch": "9"}}, 400, "InvalidField", "params.efSearch"),
    "segment number": ({"vector": V, "segment": 3}, 400, "InvalidField", "segment"),
    "segment long": ({"vector": V, "segment": "s" * 300}, 400, "InvalidField", "segment"),
    "include text": ({"vector": V, "include": "metadata"}, 400, "InvalidField", "include"),
    "include unknown": ({"vector": V, "include": ["vector"]}, 400, "InvalidField", "include[0]"),
    "include number": ({"vector": V, "include": [{}]}, 400, "InvalidField", "include[0]"),
    "minScore text": ({"vector": V, "minScore": "1"}, 400, "InvalidField", "minScore"),
    "minScore true": ({"vector": V, "minScore": True}, 400, "InvalidField", "minScore"),
    "embedding text": ({"vector": V, "embedding": "mini"}, 400, "InvalidField", "embedding"),
    "embedding unknown": ({"vector": V, "embedding": {"name": "a"}}, 400, "UnknownField", "embedding.name"),
    "embedding number": ({"vector": V, "embedding": {"model": 1}}, 400, "InvalidField", "embedding.model"),
    "other model": ({"vector": V, "embedding": {"model": "ada"}}, 422, "WrongEmbedding", "embedding.model"),
    "other version": ({"vector": V, "embedding": {"version": "2"}}, 422, "WrongEmbedding", "embedding.version"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(case: str) -> None:
    body, status, kind, place = BAD[case]
    with pytest.raises(Problem) as caught:
        parse(body)
    problem = caught.value
    assert (problem.status, problem.kind, problem.field) == (status, kind, place)
    document = orjson.loads(problem.response("rev-1").body)
    assert document["revision"] == "rev-1"
    assert document["status"] == status
    assert document["detail"]


def test_wrong_dimension_names_both_numbers_and_wrong_embedding_both_names() -> None:
    document = refusal({"vector": [1.0]})
    assert (document["expected"], document["value"]) == (3, 1)
    assert "3" in document["detail"]
    assert "1" in document["detail"]
    document = refusal({"vector": V, "embedding": {"model": "ada"}})
    assert (document["expected"], document["value"]) == ("mini", "ada")


def refusal(body: object) -> dict[str, Any]:
    with pytest.raises(Problem) as caught:
        parse(body)
    document: dict[str, Any] = orjson.loads(caught.value.response("r").body)
    return document


@pytest.mark.parametrize("body", [b"", b"{", b'{"vector": [NaN]}', b'{"vector": [1e999]}', b"\xff", b'{"k":1,}'])
def test_malformed_json_never_echoes_the_body(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        fields_of_json(body)
    assert (caught.value.status, caught.value.kind) == (400, "MalformedJSON")


def test_an_error_about_a_large_value_is_small() -> None:
    assert len(orjson.dumps(refusal({"vector": "x" * 100_000}))) < 1000
    assert len(orjson.dumps(refusal({"vector": V, "x" * 100_000: 1}))) < 1500


BAD_BINARY: dict[str, tuple[bytes, np.ndarray, int, str]] = {
    "nothing": (b"", np.zeros(0), 400, "body"),
    "wrong width": (b"", np.ones(4), 422, "body"),
    "nan": (b"", np.array([1, 2, 3, 1, math.nan, 3]), 400, "vectors[1][1]"),
    "infinite": (b"", np.array([1, 2, -math.inf]), 400, "vectors[0][2]"),
    "zero": (b"", np.zeros(3), 400, "vectors[0]"),
    "too many": (b"", np.ones(3 * (MAX_VECTORS + 1)), 400, "vectors"),
    "two short vectors for one long": (b"dimension=6", np.ones(6), 422, "dimension"),
    "one long vector for two short": (b"dimension=1", np.ones(3), 422, "dimension"),
    "dimension text": (b"dimension=many", np.ones(3), 400, "dimension"),
    "dimension zero": (b"dimension=0", np.ones(3), 400, "dimension"),
    "k text": (b"k=ten", np.ones(3), 400, "k"),
    "k underscore": (b"k=1_0", np.ones(3), 400, "k"),
    "k digits of another script": (b"k=%D9%A3", np.ones(3), 400, "k"),
    "k zero": (b"k=0", np.ones(3), 400, "k"),
    "minScore nan": (b"minScore=nan", np.ones(3), 400, "minScore"),
    "unknown": (b"topk=1", np.ones(3), 400, "topk"),
    "vector here": (b"vector=1", np.ones(3), 400, "vector"),
    "params without name": (b"params=1", np.ones(3), 400, "params"),
    "param": (b"params.efSearch=9999", np.ones(3), 400, "params.efSearch"),
    "include": (b"include=metadata,vector", np.ones(3), 400, "include[1]"),
    "embedding": (b"embedding.model=ada", np.ones(3), 422, "embedding.model"),
}


@pytest.mark.parametrize("case", BAD_BINARY)
def test_refused_binary(case: str) -> None:
    query, vectors, status, place = BAD_BINARY[case]
    with pytest.raises(Problem) as caught:
        parse_binary(query, vectors)
    assert (caught.value.status, caught.value.field) == (status, place)


def test_bytes_that_are_no_floats() -> None:
    with pytest.raises(Problem) as caught:
        search_of({}, b"12345", TERMS)
    assert caught.value.status == 400


def test_zero_vector_is_fine_without_cosine_and_no_declared_model_contradicts_nobody() -> None:
    terms = replace(TERMS, metric=Metric.L2, embedding_model="", embedding_version="")
    assert parse({"vector": [0, 0, 0], "embedding": {"model": "ada"}}, terms).vectors.tolist() == [[0, 0, 0]]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = ("vector", "vectors", "k", "params", "segment", "include", "minScore", "embedding")
NUMBERS = st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(), min_size=3, max_size=3)


def check_result(search: Search) -> None:
    assert search.vectors.dtype == np.float32
    assert search.vectors.shape[1] == 3
    assert np.isfinite(search.vectors).all()
    assert 1 <= search.k <= 1000


def check_problem(problem: Problem) -> None:
    assert problem.status in (400, 422)
    orjson.loads(problem.response("r").body)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), JSON | NUMBERS | st.lists(NUMBERS, max_size=3), max_size=5))
def test_any_json_is_a_search_or_a_problem(body: dict[str, object]) -> None:
    try:
        data = orjson.dumps(body)
    except TypeError:  # an integer beyond 64 bits is no JSON that orjson writes
        return
    try:
        check_result(search_of(fields_of_json(data), None, TERMS))
    except Problem as problem:
        check_problem(problem)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=40))
def test_any_bytes_are_a_search_or_a_problem(raw: bytes, query: bytes) -> None:
    for make in (lambda: (fields_of_json(raw), None), lambda: (fields_of_query_string(query), raw)):
        try:
            check_result(search_of(*make(), TERMS))
        except Problem as problem:
            check_problem(problem)
