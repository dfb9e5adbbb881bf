"""Fuzzing what strangers send: any body, any query string, any filter is a checked search or a refusal, nothing else.

Bounded and derandomised, so that a failure is the same failure everywhere.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from search_requests import Asked, ask_binary, ask_json

from vectorindex_searcher.contract import Metric
from vectorindex_searcher.index.filters import JOINERS, ORDERED, FilterColumns, FilterError, parse
from vectorindex_searcher.index.predicates import matching
from vectorindex_searcher.index.rows import RowFile, RowWriter
from vectorindex_searcher.serve.http.limits import MAX_K, MAX_VECTORS
from vectorindex_searcher.serve.http.messages import Problem
from vectorindex_searcher.serve.search.fields import search_fields
from vectorindex_searcher.serve.search.plan import QuerySchema

SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("size", pa.int8()),
        ("big", pa.uint64()),
        ("price", pa.float32()),
        ("half", pa.float16()),
        ("used", pa.bool_()),
        ("made", pa.timestamp("s")),
        ("seen", pa.timestamp("ns", "Europe/Berlin")),
        ("day", pa.date64()),
        ("tags", pa.list_(pa.string())),
        ("sizes", pa.list_(pa.int16(), 2)),
        ("odd", pa.decimal128(5, 2)),
    ]
)
TERMS = QuerySchema(
    dimension=3,
    metric=Metric.COSINE,
    param_limits={"efSearch": (1, 4096)},
    segments=frozenset({"keyword"}),
    embedding_model="mini",
    embedding_version="1",
    min_score=0.25,
    columns=FilterColumns(SCHEMA),
)
BOUNDED = settings(
    max_examples=120,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def check(search: Asked) -> None:
    """What every search that passed the checks promises to the engine."""
    assert search.vectors.dtype == np.float32
    assert search.vectors.flags.c_contiguous
    assert 1 <= len(search.vectors) <= MAX_VECTORS
    assert search.vectors.shape[1] == 3
    assert np.isfinite(search.vectors).all()
    assert 1 <= search.plan.k <= MAX_K
    assert search.plan.segment in {"keyword", "other"}
    assert all(1 <= value <= 4096 for value in search.params.values())
    assert search.plan.min_score is None or np.isfinite(search.plan.min_score)
    hash(search.plan.filter)


def refused(problem: Problem) -> None:
    """A refusal blames the client, says what and where, and can be written down."""
    assert 400 <= problem.status < 500
    assert problem.detail
    document = orjson.loads(problem.response("r").body)
    assert document["status"] == problem.status
    assert len(problem.response("r").body) < 20_000


_NUMBERS = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.sampled_from([0, -0.0, 1e39, 1e-46, 2**53 + 1, -129, 128, 1e308]),
)
_SCALARS = st.one_of(st.none(), st.booleans(), _NUMBERS, st.text(max_size=12))
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
_TIMES = st.sampled_from(
    [
        "2026-01-01T00:00:00Z",
        "1678-01-01T00:00:00Z",
        "2261-12-31T23:59:59.999999Z",
        "2262-01-01T00:00:00Z",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00+23:59",
        "2026-W01-1T00:00Z",
        "2026-01-01T24:00:00Z",
        "20260101T000000,5+0130",
        "2026-01-01",
        "0001-01-01",
        "9999-12-31",
    ]
)
_VALUES = st.one_of(_SCALARS, _TIMES, st.lists(_SCALARS | _TIMES, max_size=4), st.integers(-200, 200))
_OPERATORS = st.sampled_from((*ORDERED, "contains", "near", ""))
_CONDITIONS = st.one_of(_VALUES, st.dictionaries(_OPERATORS, _VALUES, max_size=3))
_LEAVES = st.dictionaries(st.sampled_from((*SCHEMA.names, "other", "")), _CONDITIONS, max_size=3)
_FILTERS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(JOINERS), inner | st.lists(inner, max_size=3), max_size=2), st.lists(inner)
    ),
    max_leaves=6,
)
_VECTOR = st.one_of(st.just([1.0, 2.0, 3.0]), st.lists(_NUMBERS, max_size=4), _JSON)
_BODIES = st.fixed_dictionaries(
    {},
    optional={
        "vector": _VECTOR,
        "vectors": st.lists(_VECTOR, max_size=3) | _JSON,
        "k": st.integers(-1, MAX_K + 1) | _JSON,
        "params": st.dictionaries(st.sampled_from(("efSearch", "nprobe")), st.integers(0, 5000) | _JSON) | _JSON,
        "segment": st.sampled_from(("keyword", "spoken", "x" * 300)) | _JSON,
        "include": st.lists(st.sampled_from(("metadata", "vector"))) | _JSON,
        "minScore": _NUMBERS | _JSON,
        "embedding": st.dictionaries(st.sampled_from(("model", "version", "other")), _JSON) | _JSON,
        "filter": _FILTERS | _JSON,
        "other": _JSON,
    },
)


def encoded(value: object) -> bytes:
    """As JSON; NaN and lone surrogates as a careless client would write them."""
    return json.dumps(value).encode()


@BOUNDED
@given(_BODIES)
def test_any_body_of_known_fields(body: dict[str, Any]) -> None:
    try:
        check(ask_json(TERMS, encoded(body)))
    except Problem as problem:
        refused(problem)


@BOUNDED
@given(st.one_of(st.binary(max_size=200), _JSON.map(encoded)))
def test_any_bytes_as_a_body(body: bytes) -> None:
    try:
        check(ask_json(TERMS, body))
    except Problem as problem:
        refused(problem)


@BOUNDED
@given(st.binary(max_size=48), st.binary(max_size=80))
def test_any_bytes_as_a_binary_query(raw: bytes, query: bytes) -> None:
    try:
        check(ask_binary(TERMS, query, raw))
    except Problem as problem:
        refused(problem)


@BOUNDED
@given(
    st.lists(st.floats(width=32), min_size=3, max_size=6),
    st.lists(
        st.tuples(
            st.sampled_from((*search_fields(), "params.efSearch", "params.", "embedding.model", "embedding.", "x")),
            st.text(max_size=10) | st.integers(0, 1100).map(str) | _FILTERS.map(lambda f: encoded(f).decode()),
        ),
        max_size=5,
    ),
)
def test_any_query_string_of_known_names(numbers: list[float], pairs: list[tuple[str, str]]) -> None:
    query = "&".join(f"{name}={quote(text)}" for name, text in pairs).encode()
    raw = np.array(numbers, "<f4").tobytes()
    try:
        check(ask_binary(TERMS, query, raw))
    except Problem as problem:
        refused(problem)


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 5000, b'{"filter": ' + b'{"not": ' * 500])
def test_deep_json_is_refused(text: bytes) -> None:
    with pytest.raises(Problem) as caught:
        ask_json(TERMS, text)
    refused(caught.value)


@pytest.mark.parametrize("depth", [9, 900])
def test_deep_filters_are_refused(depth: int) -> None:
    text = b'{"vector": [1, 2, 3], "filter": ' + b'{"not": ' * depth + b'{"size": 1}' + b"}" * (depth + 1)
    with pytest.raises(Problem) as caught:
        ask_json(TERMS, text)
    refused(caught.value)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> RowFile:
    """One row without any value, one of zeros and empties, in a file of every type."""
    path = tmp_path_factory.mktemp("rows") / "metadata.arrow"
    numbers = dict.fromkeys(("size", "big", "price", "half", "made", "seen", "day"), 0)
    values = {**numbers, "name": "", "used": False, "tags": [], "sizes": [1, 2]}
    with RowWriter(path, SCHEMA, 100) as writer:
        writer.write(pa.Table.from_pylist([{}, values], SCHEMA))
    return RowFile(path)


@BOUNDED
@given(document=_FILTERS)
def test_any_filter_is_evaluated_or_refused(file: RowFile, document: object) -> None:
    """What passed the checks never fails on the search thread."""
    try:
        predicate = parse(document, TERMS.columns or FilterColumns(SCHEMA))
    except FilterError as error:
        assert error.where.startswith("filter")  # noqa: PT017
        return
    found = matching(file, predicate)
    assert found.count == 2
    assert found.rows().tolist() in ([], [0], [1], [0, 1])


@BOUNDED
@given(
    column=st.sampled_from(SCHEMA.names),
    operator=_OPERATORS,
    values=st.lists(_SCALARS | _TIMES, min_size=1, max_size=8),
)
def test_any_comparison_is_evaluated_or_refused(file: RowFile, column: str, operator: str, values: list[Any]) -> None:
    """Each value by itself, so that most comparisons pass the checks somewhere."""
    for value in values:
        try:
            predicate = parse({column: {operator: [value] if operator == "in" else value}}, FilterColumns(SCHEMA))
        except FilterError:
            continue
        assert matching(file, predicate).count == 2
