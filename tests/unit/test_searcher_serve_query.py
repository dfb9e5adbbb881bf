"""Every way a search can be asked wrongly is refused with field, value and remedy; every right way is understood."""

from __future__ import annotations

import gc
import math
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_requests import Asked, ask, ask_binary, ask_json, reader

from vectorindex_searcher.contract import PARAM_LIMITS_ENV, Metric, ParamLimits
from vectorindex_searcher.dataset.blocks import Block, check_vectors
from vectorindex_searcher.errors import BadData, BadSpec
from vectorindex_searcher.index.filters import FilterColumns, columns_of_names
from vectorindex_searcher.serve.evidence.recorder import Outcome
from vectorindex_searcher.serve.http.limits import CANDIDATES, LOOP_BYTES, MAX_VECTORS
from vectorindex_searcher.serve.http.messages import Problem
from vectorindex_searcher.serve.search.plan import PlanCache, QuerySchema
from vectorindex_searcher.serve.settings import Settings

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


def parse(body: object, terms: QuerySchema = TERMS) -> Asked:
    return ask_json(terms, body)


def parse_binary(query: bytes, vectors: np.ndarray | bytes, terms: QuerySchema = TERMS) -> Asked:
    return ask_binary(terms, query, vectors)


def test_smallest_search_has_defaults() -> None:
    search = parse({"vector": V})
    assert search.vectors.dtype == np.float32
    assert search.vectors.tolist() == [V]
    assert (search.plan.k, search.params, search.plan.segment) == (10, {}, "other")
    assert (search.plan.include_metadata, search.plan.min_score) == (False, 0.25)


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
    assert (search.plan.k, search.params, search.plan.segment) == (1000, {"efSearch": 64}, "keyword")
    assert (search.plan.include_metadata, search.plan.min_score) == (True, -1.0)


def test_nulls_mean_absent_and_undeclared_segments_are_other() -> None:
    search = parse({"vector": V, "params": None, "segment": None, "include": None, "minScore": None, "embedding": None})
    assert search.plan.min_score == 0.25
    assert parse({"vector": V, "segment": "spoken"}).plan.segment == "other"


def test_binary_body_and_query_string_say_the_same() -> None:
    vectors = np.array([V, V], np.float32)
    query = b"dimension=3&k=5&params.efSearch=7&segment=keyword&include=metadata&minScore=0.5&embedding.model=mini"
    search = parse_binary(query, vectors)
    assert (search.vectors == vectors).all()
    assert (search.plan.k, search.params, search.plan.segment, search.plan.include_metadata) == (
        5,
        {"efSearch": 7},
        "keyword",
        True,
    )
    assert search.plan.min_score == 0.5


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
    "empty vector": ({"vector": []}, 400, "InvalidField", "vector"),
    "nested vector": ({"vector": [V]}, 400, "InvalidField", "vector[0]"),
    "nested vectors": ({"vectors": [[V]]}, 400, "InvalidField", "vectors[0][0]"),
    "true in a vector": ({"vector": [1.0, True, 3.0]}, 400, "InvalidField", "vector[1]"),
    "false in vectors": ({"vectors": [V, [1.0, 2.0, False]]}, 400, "InvalidField", "vectors[1][2]"),
    "true is no parameter": ({"vector": V, "params": {"efSearch": True}}, 400, "InvalidField", "params.efSearch"),
    "null is no parameter": ({"vector": V, "params": {"efSearch": None}}, 400, "InvalidField", "params.efSearch"),
    "k beyond 64 bits": (b'{"vector": [1, 2, 3], "k": 123456789012345678901234567890}', 400, "InvalidField", "k"),
    "number beyond float64": (b'{"vector": [1, 2, 1' + b"0" * 400 + b"]}", 400, "MalformedJSON", None),
    "integer beyond float32": (b'{"vector": [1, 2, 1' + b"0" * 60 + b"]}", 400, "NonFiniteVector", "vector[2]"),
    "deep value": (b'{"vector": [1, 2, 3], "k": ' + b"[" * 200 + b"]" * 200 + b"}", 400, "InvalidField", "k"),
    "deeper value": (b'{"vector": [1, 2, 3], "k": ' + b"[" * 900 + b"]" * 900 + b"}", 400, "MalformedJSON", None),
    "deep vector": (b'{"vector": ' + b"[" * 900 + b"]" * 900 + b"}", 400, "InvalidField", "vector[0]"),
    "many names": ({"vector": V, "include": ["metadata"] * 17}, 400, "InvalidField", "include"),
    "dimension in a body": ({"vector": V, "dimension": 3}, 400, "UnknownField", "dimension"),
    "beyond float32": ({"vector": [1.0, 1e39, 3.0]}, 400, "NonFiniteVector", "vector[1]"),
    "zero": ({"vector": [0, 0.0, 0]}, 400, "ZeroVector", "vector"),
    "k zero": ({"vector": V, "k": 0}, 400, "InvalidField", "k"),
    "k large": ({"vector": V, "k": 1001}, 400, "InvalidField", "k"),
    "k float": ({"vector": V, "k": 5.0}, 400, "InvalidField", "k"),
    "k true": ({"vector": V, "k": True}, 400, "InvalidField", "k"),
    "k null": ({"vector": V, "k": None}, 400, "InvalidField", "k"),
    "params list": ({"vector": V, "params": [1]}, 400, "InvalidField", "params"),
    "param unknown": ({"vector": V, "params": {"nprobes": 3}}, 400, "UnknownField", "params.nprobes"),
    "param of another kind, no number": (
        {"vector": V, "params": {"nprobe": "3"}},
        400,
        "InvalidField",
        "params.nprobe",
    ),
    "param of another kind, null": ({"vector": V, "params": {"nprobe": None}}, 400, "InvalidField", "params.nprobe"),
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
        parse(body)
    assert (caught.value.status, caught.value.kind) == (400, "MalformedJSON")


def test_an_error_about_a_large_value_is_small() -> None:
    assert len(orjson.dumps(refusal({"vector": "x" * 100_000}))) < 1000
    assert len(orjson.dumps(refusal({"vector": V, "x" * 100_000: 1}))) < 1500


BAD_BINARY: dict[str, tuple[bytes, np.ndarray, int, str]] = {
    "nothing": (b"", np.zeros(0), 400, "body"),
    "wrong width": (b"", np.ones(4), 422, "body"),
    "nan": (b"dimension=3", np.array([1, 2, 3, 1, math.nan, 3]), 400, "vectors[1][1]"),
    "infinite": (b"", np.array([1, 2, -math.inf]), 400, "vector[2]"),
    "zero": (b"", np.zeros(3), 400, "vector"),
    "several, or one of another dimension": (b"", np.ones(6), 400, "dimension"),
    "another dimension": (b"dimension=6", np.ones(6), 422, "dimension"),
    "another dimension, right size": (b"dimension=1", np.ones(3), 422, "dimension"),
    "no multiple": (b"dimension=3", np.ones(7), 400, "body"),
    "dimension zero": (b"dimension=0", np.ones(3), 400, "dimension"),
    "dimension text": (b"dimension=3.0", np.ones(3), 400, "dimension"),
    "too many": (b"dimension=3", np.ones(3 * (MAX_VECTORS + 1)), 400, "vectors"),
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
        parse_binary(b"", b"12345")
    assert caught.value.status == 400


def test_a_body_that_could_be_two_things_is_refused_with_both_numbers() -> None:
    """64 numbers asked of an index of 32 were taken for two vectors."""
    with pytest.raises(Problem) as caught:
        parse_binary(b"", np.ones(64), replace(TERMS, dimension=32))
    problem = caught.value
    assert (problem.status, problem.field, problem.value) == (400, "dimension", 64)
    assert "2 vectors of the index's dimension 32" in problem.detail
    assert "one vector of dimension 64" in problem.detail
    assert "dimension=32" in str(problem.remedy)
    assert parse_binary(b"dimension=32", np.ones(64), replace(TERMS, dimension=32)).vectors.shape == (2, 32)
    assert parse_binary(b"", np.ones(32), replace(TERMS, dimension=32)).vectors.shape == (1, 32)


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


def check_result(search: Asked) -> None:
    assert search.vectors.dtype == np.float32
    assert search.vectors.shape[1] == 3
    assert np.isfinite(search.vectors).all()
    assert 1 <= search.plan.k <= 1000


def check_problem(problem: Problem) -> None:
    assert problem.status in (400, 422)
    orjson.loads(problem.response("r").body)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(NAMES), JSON | NUMBERS | st.lists(NUMBERS, max_size=3), max_size=5))
def test_any_json_is_a_search_or_a_problem(body: dict[str, object]) -> None:
    try:
        data = orjson.dumps(body)
    except TypeError:  # an integer beyond 64 bits is no JSON that orjson writes
        return
    try:
        check_result(parse(data))
    except Problem as problem:
        check_problem(problem)


@settings(max_examples=100)
@given(st.binary(max_size=60), st.binary(max_size=40))
def test_any_bytes_are_a_search_or_a_problem(raw: bytes, query: bytes) -> None:
    for make in (lambda: parse(raw), lambda: parse_binary(query, raw)):
        try:
            check_result(make())
        except Problem as problem:
            check_problem(problem)


# ---------------------------------------------------------------- one rule for rows and queries


RULE_VALUES = [0.0, 1e-45, 1e-30, 1e-20, 1.0, 1e18, 1e25, 3e38, math.nan, math.inf]


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("value", RULE_VALUES)
def test_a_query_is_refused_exactly_when_a_row_of_the_same_numbers_is(metric: Metric, value: float) -> None:
    vector = np.array([0, value, 0], np.float32)
    block = Block("a.parquet", 0, vector.reshape(1, -1), None, pa.table({}))
    reasons = []
    for judge in (
        lambda: check_vectors(block, metric),
        lambda: parse_binary(b"", vector, replace(TERMS, metric=metric)),
        lambda: parse_binary(b"dimension=3", np.tile(vector, 2), replace(TERMS, metric=metric)),
    ):
        try:
            judge()
            reasons.append("")
        except BadData as error:
            reasons.append(error.reason)
        except Problem as problem:
            reasons.append(problem.kind)
    assert len(set(reasons)) == 1, reasons


@pytest.mark.parametrize("metric", [Metric.L2, Metric.INNER_PRODUCT])
def test_a_square_beyond_float32_is_refused_where_distances_are_squares(metric: Metric) -> None:
    with pytest.raises(Problem) as caught:
        parse({"vectors": [V, [1.0, 1e30, 3.0]]}, replace(TERMS, metric=metric))
    assert (caught.value.kind, caught.value.field) == ("VectorTooLarge", "vectors[1][1]")
    assert parse({"vectors": [V, [1.0, 1e30, 3.0]]}).vectors.shape == (2, 3)


# ---------------------------------------------------------------- plans


def test_what_is_asked_again_has_the_plan_that_it_had() -> None:
    reading = reader(TERMS)
    first = ask(reading, b'{"vector": [1, 2, 3], "k": 5}').plan
    assert ask(reading, b'{"vector": [4, 5, 6], "k": 5}').plan is first
    assert ask(reading, b'{"vectors": [[4, 5, 6], [1, 2, 3]], "k": 5}').plan is first
    assert ask(reading, b'{"vector": [4, 5, 6], "k": 6}').plan is not first
    assert ask(reading, b'{"vector": [1, 2, 3], "k": 5}', binary=True).plan is not first
    raw = np.ones(3, "<f4").tobytes()
    assert ask(reading, raw, b"k=5", raw=True).plan is ask(reading, raw, b"k=5", raw=True).plan


def test_plans_hold_nothing_of_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """They kept their first request's vectors: 1.1 GiB after 975 requests."""
    reading = reader(TERMS)
    for number in range(200):
        body = orjson.dumps({"vectors": [V] * MAX_VECTORS, "k": 1 + number})
        ask(reading, body)
        ask(reading, np.ones(3 * MAX_VECTORS, "<f4").tobytes(), b"dimension=3&k=%d" % (1 + number), raw=True)
    gc.collect()
    kept = [one for one in gc.get_referrers(*reading.plans._young.values()) if one is not reading.plans._young]
    assert not kept
    plan = next(iter(reading.plans._young.values()))
    for name in plan.__slots__:
        assert not isinstance(getattr(plan, name), np.ndarray | memoryview | bytes | bytearray)
    assert reading.plans.nbytes < 400 * 1024


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3000)), max_size=80))
@settings(max_examples=60)
def test_the_cache_of_plans_is_bounded_in_entries_and_bytes(puts: list[tuple[int, int]]) -> None:
    plan = parse({"vector": V}).plan
    cache = PlanCache(entries=8, nbytes=64 << 10)
    for number, length in puts:
        key = (False, b"%d" % number + b" " * length, b"")
        if cache.get(key) is None:
            cache.put(key, plan)
        assert len(cache) <= 8
        assert cache.nbytes <= 64 << 10
        assert cache.get(key) is plan


def test_a_plan_that_is_asked_for_again_and_again_stays() -> None:
    plan = parse({"vector": V}).plan
    cache = PlanCache(entries=8)
    for number in range(100):
        cache.put((False, b"%d" % number, b""), plan)
        assert cache.get((False, b"0", b"")) is plan


def test_the_cache_of_plans_holds_what_it_counts() -> None:
    """What orjson makes of a few bytes takes 4 KB for as long as it lives."""
    plan = parse({"vector": V}).plan
    cache = PlanCache()
    tracemalloc.start()
    try:
        for number in range(500):
            cache.put((False, orjson.dumps({"k": number}), b""), plan)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < cache.nbytes


@pytest.mark.parametrize(
    "words",
    [
        {"section": {"in": ["ab"] * 4000}},
        {"size": {"in": [0.5 + 1e9] * 4000}},
        {"or": [{"section": {"in": ["ab", "cd"] * 30}}] * 60},
        {"or": [{"and": [{"section": "ab"}]}] * 60},
    ],
)
def test_words_of_a_filter_count_though_they_say_one_thing_many_times(words: object) -> None:
    """A value that was repeated for four bytes each held sixty, and none was counted: 100 MB in a cache of 8."""
    terms = replace(TERMS, columns=columns_of_names({"section": "string", "size": "float"}))
    body = orjson.dumps({"vector": V, "filter": words})
    cache = PlanCache()
    tracemalloc.start()
    try:
        for number in range(10):
            cache.put((False, b"%d" % number, b""), parse(orjson.loads(body), terms).plan)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(cache) == 10
    assert held < 1.1 * cache.nbytes


def test_what_takes_long_is_left_for_a_search_thread() -> None:
    reading, outcome = (
        reader(replace(TERMS, columns=FilterColumns(pa.schema([("size", pa.int64())])))),
        Outcome("other"),
    )
    long = orjson.dumps({"vector": V, "k": 3}).ljust(LOOP_BYTES + 1)
    filtered = b'{"vector": [1, 2, 3], "filter": {"size": 1}}'
    assert callable(reading.read(long, b"", b"", outcome, binary=False))
    later = reading.read(filtered, b"", b"", outcome, binary=False)
    assert callable(later)
    later()
    assert isinstance(reading.read(filtered, b"", b"", outcome, binary=False), tuple), "known now"


# ---------------------------------------------------------------- work


def test_a_request_is_refused_for_its_work_and_not_for_its_counts() -> None:
    terms = replace(TERMS, param_limits={"k_factor": (1, 256)}, default_params={"k_factor": 4})
    body = {"vectors": [V] * 256, "k": 1000}
    assert parse(body, terms).plan.candidates == 4000
    assert parse(body | {"k": 10, "params": {"k_factor": 256}}, terms).vectors.shape[0] == 256
    with pytest.raises(Problem) as caught:
        parse(body | {"params": {"k_factor": 256}}, terms)
    problem = caught.value
    assert (problem.status, problem.kind, problem.field) == (400, "TooMuchWork", "vectors")
    assert problem.value == 256 * 1000 * 256
    assert "k=1000 and k_factor=256" in problem.detail
    fewer = int(str(problem.remedy).split()[3].rstrip(","))
    assert CANDIDATES - 256_000 < fewer * 256_000 <= CANDIDATES
    assert parse({"vectors": [V] * fewer, "k": 1000, "params": {"k_factor": 256}}, terms)
    with pytest.raises(Problem):
        parse({"vectors": [V] * (fewer + 1), "k": 1000, "params": {"k_factor": 256}}, terms)


def test_the_revisions_own_parameters_are_never_too_much() -> None:
    """A batch that was answered before the budget was there is answered now, whatever the proof chose."""
    own = {"param_limits": {"k_factor": (1, 256)}, "default_params": {"k_factor": 4}}
    terms = replace(TERMS, **own, segment_params={"keyword": {"k_factor": 256}})
    body = {"vectors": [V] * 256, "k": 1000, "segment": "keyword"}
    assert len(parse(body, terms).vectors) == 256
    assert len(parse(body | {"params": {"k_factor": 200}}, terms).vectors) == 256
    with pytest.raises(Problem):
        parse(body | {"params": {"k_factor": 200}, "segment": None}, terms)


# ---------------------------------------------------------------- limits on parameters


LIMITED = replace(
    TERMS,
    param_limits={"nprobe": (1, 4096), "k_factor": (1, 256), "max_codes": (0, 1 << 31)},
    limited=ParamLimits(allow=("nprobe", "max_codes", "efSearch"), max={"nprobe": 64, "efSearch": 9}),
    segment_params={"keyword": {"nprobe": 900, "k_factor": 9}},
)


def test_a_query_may_name_the_parameters_that_the_spec_allows_up_to_its_limits() -> None:
    assert parse({"vector": V, "params": {"nprobe": 64, "max_codes": 1 << 31}}, LIMITED).params["nprobe"] == 64
    # The revision's own points were measured and proven: they are not bound.
    assert parse({"vector": V, "segment": "keyword"}, LIMITED).params == {"nprobe": 900, "k_factor": 9}
    with pytest.raises(Problem) as caught:
        parse({"vector": V, "params": {"nprobe": 65}}, LIMITED)
    problem = caught.value
    assert (problem.status, problem.kind, problem.field, problem.value) == (400, "InvalidField", "params.nprobe", 65)
    assert "from 1 to 64 (searcher.params.max of the VectorIndex)" in str(problem.remedy)
    with pytest.raises(Problem) as caught:
        parse({"vector": V, "params": {"k_factor": 2}}, LIMITED)
    problem = caught.value
    assert (problem.status, problem.kind, problem.field, problem.value) == (400, "InvalidField", "params.k_factor", 2)
    assert "searcher.params of the VectorIndex does not allow it" in problem.detail
    assert str(problem.remedy).endswith("queries may set: nprobe, max_codes")
    with pytest.raises(Problem) as caught:
        parse_binary(b"params.k_factor=2", np.ones(3), LIMITED)
    assert caught.value.field == "params.k_factor"
    assert parse({"vector": V, "params": {"efSearch": 2}}, LIMITED).plan.ignored == ("efSearch",), "this index has none"


def test_a_parameter_of_another_kind_of_index_is_ignored_and_told() -> None:
    """What was asked of the IVF before a switch to a graph must be no error after it."""
    query = b"params.nprobe=70000&params.efSearch=9&params.quantizer_efSearch=1"
    body = {"vector": V, "params": {"nprobe": 70_000, "efSearch": 9, "quantizer_efSearch": 1}}
    for search in (parse(body), parse_binary(query, np.ones(3))):
        assert search.plan.ignored == ("nprobe", "quantizer_efSearch")
        assert search.params == {"efSearch": 9}
    plain = parse({"vector": V, "params": {"nprobe": 3}}).plan
    assert (plain.params, plain.own) == ((), True), "it is a search at the revision's own parameters"
    assert parse({"vector": V}).plan.ignored == ()


def test_of_a_slip_the_index_says_its_own_parameters() -> None:
    for asked in (lambda: parse({"vector": V, "params": {"efsearch": 3}}),
                  lambda: parse_binary(b"params.efsearch=3", np.ones(3))):  # fmt: skip
        with pytest.raises(Problem) as caught:
            asked()
        assert (caught.value.kind, caught.value.field) == ("UnknownField", "params.efsearch")
        assert caught.value.remedy == "known are: efSearch"


def test_an_empty_list_allows_none_and_a_limit_below_the_least_value_neither() -> None:
    for limited in (ParamLimits(allow=()), ParamLimits(max={"efSearch": 0})):
        with pytest.raises(Problem) as caught:
            parse({"vector": V, "params": {"efSearch": 5}}, replace(TERMS, limited=limited))
        assert str(caught.value.remedy).endswith("queries may set: none")


@pytest.mark.parametrize("text", ["{", "[]", '{"allow": "nprobe"}', '{"max": {"nprobe": -1}}', '{"most": {}}'])
def test_limits_that_cannot_be_read_end_the_start(text: str) -> None:
    with pytest.raises(BadSpec) as caught:
        Settings.from_environment({PARAM_LIMITS_ENV: text})
    assert caught.value.failure.field == PARAM_LIMITS_ENV
    assert Settings.from_environment({}).params == ParamLimits()
