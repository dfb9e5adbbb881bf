"""A long JSON body read vector by vector says what it says as a whole; and no request holds the event loop for long."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from cost import cpu, in_a_process_of_its_own, least
from hypothesis import given, settings
from hypothesis import strategies as st
from search_requests import ask, reader

from vectorindex_searcher.contract import OTHER_SEGMENT, Metric
from vectorindex_searcher.index.filters import MAX_VALUES, FilterColumns
from vectorindex_searcher.serve.evidence.recorder import Outcome
from vectorindex_searcher.serve.http.limits import LOOP_BYTES, MAX_VECTORS, Limits
from vectorindex_searcher.serve.http.messages import Problem
from vectorindex_searcher.serve.search.fields import fields_of_json
from vectorindex_searcher.serve.search.long_json import OTHER_VALUES, fields_of_long_json
from vectorindex_searcher.serve.search.plan import QuerySchema
from vectorindex_searcher.serve.search.reader import BINARY_TYPE

TERMS = QuerySchema(
    4, Metric.L2, {}, columns=FilterColumns(pa.schema([("text", pa.string()), ("vectors", pa.string())]))
)

_STRANGE = st.sampled_from(['"vectors":[[1]]', '\\"vectors\\":[[1]]', "[", "]", '"', "vectors", "é"])
_PLAIN = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1, 1) | st.text(max_size=4) | _STRANGE
_ROWS = st.lists(st.lists(_PLAIN, max_size=5) | _PLAIN, max_size=4)
_KEYS = st.sampled_from(["vectors", "vector", "k", "filter", "x", '"vectors":['])
_DEEP = st.recursive(_PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3))
_BODIES = st.dictionaries(_KEYS, _ROWS | _DEEP, max_size=5)


@settings(max_examples=400, derandomize=True, database=None)
@given(_BODIES, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_vector_by_vector_is_the_same_as_the_whole(body: dict[str, Any], indent: Any, twice: bool) -> None:
    text = json.dumps(body, indent=indent).encode()
    if twice and b'"vectors"' in text:  # a name given twice: the last one counts
        text = text[:-1].rstrip() + b', "vectors" : [ [ 7 ] , [8,9]]}'
    whole = fields_of_json(text)
    fields, rows = fields_of_long_json(text, 4)
    if rows is not None:
        fields = fields | {"vectors": list(rows)}
    assert fields == whole


@settings(max_examples=200, derandomize=True, database=None)
@given(st.binary(max_size=60), st.integers(0, 60))
def test_broken_bodies_are_refused_like_others(noise: bytes, at: int) -> None:
    good = b'{"k": 3, "vectors": [[1, 2], [3, 4]], "segment": "a"}'
    text = good[:at] + noise + good[at:]

    def read(way: Callable[[], Any]) -> object:
        try:
            return way()
        except Problem as problem:
            return problem.kind

    def by_vector() -> object:
        fields, rows = fields_of_long_json(text, 4)
        return fields if rows is None else fields | {"vectors": list(rows)}

    assert read(by_vector) == read(lambda: fields_of_json(text))


def test_it_is_read_vector_by_vector_whatever_stands_before_it() -> None:
    for body in (
        {"vectors": [[1, 2, 3, 4]] * 9, "filter": {"text": "x"}},
        {"filter": {"vectors": "x", "text": '"vectors":[[1]]'}, "vectors": [[1, 2, 3, 4]] * 9},
        {"filter": {"vectors": {"in": ["x"]}}, "vectors": [[1, 2, 3, 4]] * 9, "k": 3},
    ):
        fields, rows = fields_of_long_json(json.dumps(body).encode(), 4)
        assert isinstance(rows, Iterator)
        assert list(rows) == body["vectors"]
        assert fields == {name: value for name, value in body.items() if name != "vectors"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b'{"vectors":[' + b"[]," * 100_000 + b"[]]}", "TooManyVectors"),
        (b'{"k":[' + b"{}," * (OTHER_VALUES + 9) + b"{}]}", "TooMuchWork"),
        (b'{"vector":[' + b"1," * (OTHER_VALUES + 9) + b"1]}", "TooMuchWork"),
        (b'{"vectors":[[' + b"1," * (OTHER_VALUES + 9) + b"1]]}", "TooMuchWork"),
        (b'{"vectors":[[1,2,3,4],[1,2,3,true]],"k":"' + b"x" * LOOP_BYTES + b'"}', "InvalidField"),
        (b'{"vectors":[[1,2,3,4],[1,2,3,true]],"segment":"y"' + b" " * LOOP_BYTES + b"}", "InvalidField"),
        (b'{"vectors":[[[1,2,3,4]],[1]]' + b" " * LOOP_BYTES + b"}", "InvalidField"),
        (b'{"vectors":[]' + b" " * LOOP_BYTES + b"}", "InvalidField"),
        (b'{"vectors":[[1,2,3]]' + b" " * LOOP_BYTES + b"}", "WrongDimension"),
    ],
)
def test_long_bodies_are_refused_as_short_ones_are(text: bytes, kind: str) -> None:
    with pytest.raises(Problem) as caught:
        ask(reader(TERMS), text)
    assert caught.value.kind == kind
    assert len(orjson.dumps(caught.value.response("r").body.decode())) < 2000


# ---------------------------------------------------------------- the event loop


def _padded(body: dict[str, Any], size: int) -> bytes:
    text = json.dumps(body).encode()
    return text[:-1] + b" " * (size - len(text)) + b"}"


_VALUES = [f"{number:06d}" for number in range(MAX_VALUES)]
_VECTOR: list[float] = [0.1, 0.2, 0.3, 0.4]
WORST: dict[str, tuple[bytes, bytes, bytes]] = {
    "all of a body in small numbers": (b'{"k":[' + b"1," * (LOOP_BYTES // 2 - 8) + b"1]}", b"", b""),
    "all of a body in objects": (b'{"k":[' + b"{}," * (LOOP_BYTES // 3 - 8) + b"{}]}", b"", b""),
    "a name that is asked for again and again": (b'{"include":[' + b'"metadata",' * 9000 + b'"metadata"]}', b"", b""),
    "the largest filter": (json.dumps({"vector": _VECTOR, "filter": {"text": {"in": _VALUES}}}).encode(), b"", b""),
    "as many vectors as there may be": (
        np.ones((MAX_VECTORS, 4), "<f4").tobytes(), b"dimension=4&k=1000", BINARY_TYPE
    ),
    "the longest body": (_padded({"vectors": [_VECTOR] * MAX_VECTORS}, Limits().body_bytes), b"", b""),
    "the longest value": (b'{"k": "' + b"x" * (Limits().body_bytes - 9) + b'"}', b"", b""),
    "the longest body of vectors": (np.ones(Limits().body_bytes // 4, "<f4").tobytes(), b"dimension=4", BINARY_TYPE),
}  # fmt: skip


MEASURE = """
    import json
    from test_searcher_long_json import WORST, held
    print(json.dumps({name: held(name) for name in WORST}))
"""


@pytest.fixture(scope="module")
def measured() -> dict[str, tuple[float, float]]:
    """`held` of all, in a process of its own: in one that has run a thousand tests the heap gives memory back after
    each round, and taking it again costs more than what is measured."""
    return json.loads(in_a_process_of_its_own(MEASURE))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", WORST)
def test_no_request_holds_the_event_loop_longer_than_decoding_a_body_of_the_usual_size(
    name: str, measured: dict[str, tuple[float, float]]
) -> None:
    held, usual = measured[name]
    assert little(held, usual), f"{held * 1e3:.2f} ms, {usual * 1e3:.2f} ms"


def little(held: float, usual: float) -> bool:
    return held < 16 * usual


def held(name: str) -> tuple[float, ...]:
    """CPU seconds of reading it, and of decoding the longest body that the loop decodes, full of numbers: 0.1 ms."""
    body, query, content_type = WORST[name]
    numbers = b"[" + b"0.1234567890," * (LOOP_BYTES // 13) + b"0.5]"

    def read() -> None:
        try:
            reading.read(body, query, content_type, Outcome(OTHER_SEGMENT), binary=False)
        except Problem as problem:
            problem.response("r")

    reading = reader(TERMS)
    return least(cpu(read), cpu(lambda: orjson.loads(numbers)), until=little)
