"""The filter language against rows of real Arrow files: what it matches, what it refuses, and what is remembered."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cost import cpu, least
from hypothesis import given, settings
from hypothesis import strategies as st

from vectorindex_searcher.index.filters import (
    MAX_DEPTH,
    MAX_TERMS,
    MAX_TEXT,
    MAX_VALUES,
    FilterColumns,
    FilterError,
    Predicate,
    Term,
    parse,
)
from vectorindex_searcher.index.predicates import MatchCache, matching
from vectorindex_searcher.index.rows import RowFile, RowWriter

COUNT = 203
SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("size", pa.int16()),
        ("big", pa.uint64()),
        ("price", pa.float32()),
        ("half", pa.float16()),
        ("used", pa.bool_()),
        ("made", pa.timestamp("s")),
        ("seen", pa.timestamp("ns", "Europe/Berlin")),
        ("day", pa.date32()),
        ("tags", pa.list_(pa.string())),
        ("blob", pa.binary()),
        ("not", pa.int8()),
    ]
)
START = datetime(2026, 1, 1, tzinfo=UTC)


def row(number: int) -> dict[str, Any]:
    """Deterministic; every column has nulls at other rows."""
    values: dict[str, Any] = {
        "name": f"n{number % 7}",
        "size": number - 100,
        "big": 2**64 - 1 - number % 5,
        "price": number / 10,
        "half": float(number % 9) + 0.1,
        "used": number % 3 == 0,
        "made": (START + timedelta(hours=number)).replace(tzinfo=None),
        "seen": START + timedelta(minutes=number),
        "day": date(2026, 1, 1) + timedelta(days=number),
        "tags": [f"t{number % 4}", f"u{number % 5}"][: number % 3],
        "blob": b"x",
        "not": 1,
    }
    return {name: None if (number + at) % 11 == 0 else value for at, (name, value) in enumerate(values.items())}


ROWS = [row(number) for number in range(COUNT)]
COLUMNS = FilterColumns(SCHEMA)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> RowFile:
    """Batches of 50 rows: not a multiple of eight, so bits of different batches share bytes."""
    path = tmp_path_factory.mktemp("rows") / "metadata.arrow"
    with RowWriter(path, SCHEMA, 50) as writer:
        writer.write(pa.Table.from_pylist(ROWS, SCHEMA))
    return RowFile(path)


def rows_of(file: RowFile, document: object) -> list[int]:
    return matching(file, parse(document, COLUMNS)).rows().tolist()


def expected(test: Callable[[dict[str, Any]], bool | None]) -> list[int]:
    return [number for number, values in enumerate(ROWS) if test(values)]


def known(column: str, test: Callable[[Any], bool]) -> Callable[[dict[str, Any]], bool]:
    return lambda values: values[column] is not None and test(values[column])


MATCHES: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = {
    "bare value": ({"name": "n3"}, known("name", lambda v: v == "n3")),
    "eq": ({"name": {"eq": "n3"}}, known("name", lambda v: v == "n3")),
    "ne": ({"name": {"ne": "n3"}}, known("name", lambda v: v != "n3")),
    "in": ({"name": {"in": ["n1", "n2", "zz", "n1"]}}, known("name", lambda v: v in ("n1", "n2"))),
    "in nothing": ({"name": {"in": []}}, lambda v: False),
    "text range": ({"name": {"gt": "n2", "lte": "n4"}}, known("name", lambda v: "n2" < v <= "n4")),
    "range": ({"size": {"gte": -5, "lt": 20}}, known("size", lambda v: -5 <= v < 20)),
    "whole float": ({"size": 7.0}, known("size", lambda v: v == 7)),
    "above the type": ({"size": {"lt": 10**9}}, known("size", lambda v: True)),
    "never above the type": ({"size": {"gte": 10**9}}, lambda v: False),
    "below the type": ({"size": {"gt": -(10**9)}}, known("size", lambda v: True)),
    "equal to what cannot be": ({"size": 10**9}, lambda v: False),
    "unequal to what cannot be": ({"size": {"ne": 10**9}}, known("size", lambda v: True)),
    "in with what cannot be": ({"size": {"in": [10**9, 7]}}, known("size", lambda v: v == 7)),
    "not what cannot be": ({"not": {"size": 10**9}}, known("size", lambda v: True)),
    "64 bits": ({"big": {"gt": 2**64 - 4}}, known("big", lambda v: v > 2**64 - 4)),
    "32-bit tenth": ({"price": 0.3}, known("price", lambda v: v == 0.3)),
    "float range": ({"price": {"gt": 3, "lte": 7.5}}, known("price", lambda v: 3 < v <= 7.5)),
    "beyond floats": ({"price": {"lt": 1e300}}, known("price", lambda v: True)),
    "16-bit tenth": ({"half": 3.1}, known("half", lambda v: v == 3.1)),
    "boolean": ({"used": True}, known("used", lambda v: v)),
    "boolean ne": ({"used": {"ne": True}}, known("used", lambda v: not v)),
    "time": (
        {"made": {"lt": "2026-01-02T03:00:00Z"}},
        known("made", lambda v: v < datetime(2026, 1, 2, 3)),
    ),
    "fraction of a second": (
        {"made": {"lt": "2026-01-02T03:00:00.5Z"}},
        known("made", lambda v: v <= datetime(2026, 1, 2, 3)),
    ),
    "time with offset": (
        {"seen": {"gte": "2026-01-01T02:30:00+01:00"}},
        known("seen", lambda v: v >= datetime(2026, 1, 1, 1, 30, tzinfo=UTC)),
    ),
    "times": ({"made": {"in": ["2026-01-01T06:00:00Z"]}}, known("made", lambda v: v.day == 1 and v.hour == 6)),
    "day": ({"day": {"gt": "2026-03-01"}}, known("day", lambda v: v > date(2026, 3, 1))),
    "contains": ({"tags": {"contains": "t2"}}, known("tags", lambda v: "t2" in v)),
    "bare list element": ({"tags": "u4"}, known("tags", lambda v: "u4" in v)),
    "not contains": ({"not": {"tags": "t2"}}, known("tags", lambda v: "t2" not in v)),
    "exists": ({"name": {"exists": True}}, known("name", lambda v: True)),
    "does not exist": ({"tags": {"exists": False}}, lambda v: v["tags"] is None),
    "two columns": (
        {"name": "n3", "size": {"gt": 0}},
        lambda v: v["name"] == "n3" and v["size"] is not None and v["size"] > 0,
    ),
    "or": ({"or": [{"name": "n3"}, {"used": True}]}, lambda v: v["name"] == "n3" or v["used"] is True),
    "and": ({"and": [{"name": "n3"}, {"used": True}]}, lambda v: v["name"] == "n3" and v["used"] is True),
    "not keeps nulls out": ({"not": {"name": "n3"}}, known("name", lambda v: v != "n3")),
    "not or": (
        {"not": {"or": [{"name": "n3"}, {"used": True}]}},
        lambda v: v["name"] not in (None, "n3") and v["used"] is False,
    ),
    "and beside a column": (
        {"used": True, "not": {"name": "n3"}},
        lambda v: bool(v["used"]) and v["name"] not in (None, "n3"),
    ),
}


@pytest.mark.parametrize("case", MATCHES)
def test_matches(file: RowFile, case: str) -> None:
    document, test = MATCHES[case]
    found = rows_of(file, document)
    assert found == expected(test)
    assert found or "cannot be" in case or "never" in case or "nothing" in case


def nested(depth: int) -> dict[str, Any]:
    document: dict[str, Any] = {"name": "n1"}
    for _ in range(depth - 1):
        document = {"not": document}
    return document


REFUSED: dict[str, tuple[object, str, str]] = {
    "text": ("name", "filter", "must be an object"),
    "empty": ({}, "filter", "must not be empty"),
    "unknown column": ({"nane": 1}, "filter.nane", "no metadata column 'nane'"),
    "unknown type": ({"blob": "x"}, "filter.blob", "type binary"),
    "column named not": ({"not": 1}, "filter.not", "must be an object"),
    "unknown operator": ({"name": {"equals": "x"}}, "filter.name.equals", "no operator 'equals'"),
    "range of booleans": ({"used": {"gt": True}}, "filter.used.gt", "no operator 'gt'"),
    "eq of a list": ({"tags": {"eq": "x"}}, "filter.tags.eq", "no operator 'eq'"),
    "list for a value": ({"name": ["a"]}, "filter.name", "a value or an object"),
    "null": ({"name": None}, "filter.name", "a value or an object"),
    "null value": ({"name": {"eq": None}}, "filter.name.eq", "null is not a value"),
    "no condition": ({"name": {}}, "filter.name", "must not be empty"),
    "number for text": ({"name": 3}, "filter.name.eq", "compared with a string"),
    "text for number": ({"size": {"lt": "3"}}, "filter.size.lt", "compared with an integer"),
    "fraction for integer": ({"size": {"lt": 2.5}}, "filter.size.lt", "compared with an integer"),
    "boolean for integer": ({"size": True}, "filter.size.eq", "compared with an integer"),
    "infinite": ({"price": math.inf}, "filter.price.eq", "a finite number"),
    "boolean for float": ({"price": {"gt": False}}, "filter.price.gt", "a finite number"),
    "text for boolean": ({"used": "true"}, "filter.used.eq", "true or false"),
    "time without offset": ({"made": "2026-01-01T00:00:00"}, "filter.made.eq", "RFC 3339"),
    "day for time": ({"made": "2026-01-01"}, "filter.made.eq", "RFC 3339"),
    "year 1": ({"seen": "0001-01-01T00:00:00+12:00"}, "filter.seen.eq", "RFC 3339"),
    "time for day": ({"day": "2026-01-01T00:00:00Z"}, "filter.day.eq", "a date"),
    "no such day": ({"day": "2026-02-30"}, "filter.day.eq", "a date"),
    "in without list": ({"name": {"in": "n1"}}, "filter.name.in", "list of values"),
    "in with a wrong one": ({"name": {"in": ["a", 3]}}, "filter.name.in[1]", "compared with a string"),
    "exists 1": ({"name": {"exists": 1}}, "filter.name.exists", "true or false"),
    "and without list": ({"and": {"name": "a"}}, "filter.and", "list of filters"),
    "or of nothing": ({"or": []}, "filter.or", "list of filters"),
    "inside": ({"or": [{"name": "a"}, {"not": {"size": "b"}}]}, "filter.or[1].not.size.eq", "an integer"),
    "long": ({"name": "x" * (MAX_TEXT + 1)}, "filter.name.eq", f"{MAX_TEXT} characters"),
    "surrogate": ({"name": "\ud800"}, "filter.name.eq", "a string"),
    "deep": (nested(MAX_DEPTH + 1), "filter" + ".not" * MAX_DEPTH, "nested more"),
    "wide": ({"or": [{"size": n} for n in range(MAX_TERMS + 1)]}, "filter.or", "more than"),
    "many": ({"and": [{"or": [{"size": 1}] * 33}] * 2}, "filter.and[1].or[31].size.eq", "more than"),
    "many values": ({"size": {"in": [1] * (MAX_VALUES + 1)}}, "filter.size.in", "more than"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    document, where, detail = REFUSED[case]
    with pytest.raises(FilterError) as caught:
        parse(document, COLUMNS)
    assert caught.value.where == where
    assert detail in caught.value.detail
    if case != "deep":
        assert caught.value.remedy


def test_refusals_list_what_there_is() -> None:
    with pytest.raises(FilterError) as caught:
        parse({"section": "x"}, COLUMNS)
    assert "name, size, big" in str(caught.value.remedy)
    assert "blob" not in str(caught.value.remedy)
    with pytest.raises(FilterError) as caught:
        parse({"section": "x"}, FilterColumns(pa.schema([])))
    assert "build again" in str(caught.value.remedy)


def test_limits_are_within(file: RowFile) -> None:
    assert rows_of(file, nested(MAX_DEPTH)) == expected(known("name", lambda v: v != "n1"))
    wide = {"or": [{"size": {"eq": n}} for n in range(MAX_TERMS)]}
    assert rows_of(file, wide) == expected(known("size", lambda v: 0 <= v < MAX_TERMS))
    values = {"size": {"in": list(range(-MAX_VALUES // 2, MAX_VALUES // 2))}}
    assert rows_of(file, values) == expected(known("size", lambda v: True))


def test_equal_filters_are_equal_predicates() -> None:
    def same(*documents: object) -> bool:
        return len({parse(document, COLUMNS) for document in documents}) == 1

    assert same(
        {"name": "a", "size": 3}, {"size": {"eq": 3.0}, "name": {"eq": "a"}}, {"and": [{"size": 3}, {"name": "a"}]}
    )
    assert same({"size": {"in": [2, 1, 2]}}, {"size": {"in": [1, 2]}})
    assert same({"or": [{"name": "a"}, {"name": "b"}]}, {"or": [{"name": "b"}, {"name": "a"}, {"name": "b"}]})
    assert same({"price": 0.0}, {"price": -0.0})
    assert not same({"or": [{"name": "a"}, {"size": 1}]}, {"and": [{"name": "a"}, {"size": 1}]})
    assert not same({"name": "a"}, {"not": {"name": "a"}})


def test_the_cache_remembers_within_its_bytes(file: RowFile) -> None:
    cache = MatchCache(file, limit_bytes=3 * (2 * 26 + 512))
    predicates = [parse({"size": {"gte": number}}, COLUMNS) for number in range(5)]
    first = cache(predicates[0])
    assert cache(parse({"size": {"gte": 0.0}}, COLUMNS)) is first
    assert (cache.hits, cache.misses) == (1, 1)
    for predicate in predicates:
        cache(predicate)
    assert 0 < cache.nbytes <= 3 * (2 * 26 + 512)
    assert cache(predicates[0]) is not first
    assert cache(predicates[4]) is cache(predicates[4])
    assert MatchCache(file, limit_bytes=10)(predicates[1]).matching == cache(predicates[1]).matching


def test_one_batch_and_no_rows(tmp_path: Path) -> None:
    for count in (0, 1, 8, 9):
        path = tmp_path / f"{count}.arrow"
        with RowWriter(path, pa.schema([("v", pa.int32())]), 100) as writer:
            writer.write(pa.table({"v": pa.array(range(count), pa.int32())}))
        found = matching(RowFile(path), parse({"v": {"gte": 1}}, FilterColumns(pa.schema([("v", pa.int32())]))))
        assert found.rows().tolist() == list(range(1, count))


# ---------------------------------------------------------------- against a second implementation

_LEAVES = st.one_of(
    st.builds(
        lambda o, v: {"size": {o: v}}, st.sampled_from(("eq", "ne", "gt", "gte", "lt", "lte")), st.integers(-101, 110)
    ),
    st.builds(lambda v: {"name": {"in": v}}, st.lists(st.sampled_from([f"n{n}" for n in range(8)]), max_size=3)),
    st.builds(lambda c, v: {c: {"exists": v}}, st.sampled_from(("size", "name", "used")), st.booleans()),
    st.builds(lambda v: {"used": v}, st.booleans()),
)
_FILTERS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda part: {"not": part}, inner),
        st.builds(
            lambda name, parts: {name: parts}, st.sampled_from(("and", "or")), st.lists(inner, min_size=1, max_size=3)
        ),
    ),
    max_leaves=8,
)
_PYTHON = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
    "in": lambda a, b: a in b,
}


def holds(document: dict[str, Any], values: dict[str, Any]) -> bool | None:
    """SQL's three values, written out."""
    ((name, value),) = document.items()
    if name == "not":
        inner = holds(value, values)
        return None if inner is None else not inner
    if name in ("and", "or"):
        found = [holds(part, values) for part in value]
        decisive = name == "or"
        return decisive if decisive in found else None if None in found else not decisive
    ((operator, operand),) = value.items() if isinstance(value, dict) else [("eq", value)]
    if operator == "exists":
        return bool((values[name] is not None) == operand)
    return None if values[name] is None else bool(_PYTHON[operator](values[name], operand))


@settings(max_examples=150, derandomize=True, database=None)
@given(document=_FILTERS)
def test_any_filter_means_what_sql_says(file: RowFile, document: dict[str, Any]) -> None:
    try:
        predicate: Predicate = parse(document, COLUMNS)
    except FilterError as error:
        assert "nested" in error.detail  # noqa: PT017 - the only refusal these can meet
        return
    assert matching(file, predicate).rows().tolist() == expected(lambda values: holds(document, values))


def test_memory_is_bits_not_rows(tmp_path: Path) -> None:
    """A column of a million rows: what is left is one bit a row, and Arrow never held much more than a batch."""
    path, count = tmp_path / "m.arrow", 1_000_000
    with RowWriter(path, pa.schema([("v", pa.int64())]), 1 << 14) as writer:
        writer.write(pa.table({"v": np.arange(count)}))
    file = RowFile(path)
    pool = pa.default_memory_pool()
    before, peak = pool.bytes_allocated(), 0
    predicate = parse({"v": {"gte": 10}, "not": {"v": {"in": [11, 12]}}}, FilterColumns(file.schema))
    found = matching(file, predicate)
    peak = pool.bytes_allocated() - before
    assert found.matching == count - 12
    assert found.nbytes == count / 8
    assert peak < 2 * count / 8 + 100_000


# ---------------------------------------------------------------- what a type holds and what a filter may say


FAR = [
    ({"gt": "2400-01-01T00:00:00Z"}, False),
    ({"lt": "2400-01-01T00:00:00Z"}, True),
    ({"lte": "9999-12-31T23:59:59Z"}, True),
    ({"gte": "0001-01-01T00:00:00Z"}, True),
    ({"lt": "1600-01-01T00:00:00Z"}, False),
    ({"eq": "9999-12-31T00:00:00Z"}, False),
    ({"ne": "9999-12-31T00:00:00Z"}, True),
    ({"in": ["9999-12-31T00:00:00Z"]}, False),
]


@pytest.mark.parametrize("column", ["seen", "made"])
@pytest.mark.parametrize(("condition", "matches"), FAR)
def test_a_time_that_the_column_cannot_hold_is_compared_all_the_same(
    file: RowFile, column: str, condition: dict[str, Any], matches: bool
) -> None:
    """ "valid for ever" is written as the year 9999, and asked for with it."""
    there = [number for number, values in enumerate(ROWS) if values[column] is not None]
    assert rows_of(file, {column: condition}) == (there if matches else [])


def test_what_is_answered_as_null_is_null_for_filters(tmp_path: Path) -> None:
    """NaN and infinity of an index that was built before they were taken for null."""
    schema = pa.schema([("price", pa.float64()), ("half", pa.float16())])
    values = [math.nan, math.inf, -math.inf, None, 1.5]
    with RowWriter(tmp_path / "rows.arrow", schema, 10) as writer:
        halves = [None if value is None else np.float16(value) for value in values]
        writer.write(pa.table({"price": pa.array(values), "half": pa.array(halves, pa.float16())}, schema))
    rows, columns = RowFile(tmp_path / "rows.arrow"), FilterColumns(schema)
    for column in schema.names:
        assert rows.values(np.arange(5), column)[3:] == [None, 1.5]
        for condition, wanted in (
            ({"exists": False}, [0, 1, 2, 3]),
            ({"exists": True}, [4]),
            ({"gt": 0}, [4]),
            ({"ne": 7}, [4]),
            ({"in": [1.5]}, [4]),
        ):
            assert matching(rows, parse({column: condition}, columns)).rows().tolist() == wanted, condition


# ---------------------------------------------------------------- memory and time


def large(turn: int) -> dict[str, Any]:
    return {"name": {"in": [f"{turn}-{number:06d}" * 8 for number in range(MAX_VALUES)]}}


def test_the_cache_of_rows_counts_its_predicates(file: RowFile) -> None:
    """It counted bits: 1,500 lists of values were 0.8 GiB, of which it knew of 2 MB."""
    cache = MatchCache(file, limit_bytes=2 << 20)
    for turn in range(12):
        cache(parse(large(turn), COLUMNS))
    held = sum(sum(map(sys.getsizeof, values)) for (values,) in ((one.values,) for one in terms(cache)))
    assert 0 < held <= cache.nbytes <= 2 << 20


def terms(cache: MatchCache) -> list[Term]:
    return [one for one in cache._sets if isinstance(one, Term)]


def test_the_order_of_parts_and_their_doubles_do_not_matter() -> None:
    parts = [{"size": number} for number in range(20)]
    one = parse({"or": parts}, COLUMNS)
    other = parse({"or": [*reversed(parts), *parts]}, COLUMNS)
    assert one == other
    assert hash(one) == hash(other)


def test_parsing_takes_about_as_long_as_the_values_are_many() -> None:
    """Nested joiners wrote out all that is in them, to sort it, once a level."""

    def alike(deep: float, flat: float) -> bool:
        return deep < 4 * flat

    flat = large(0)
    deep: dict[str, Any] = {"and": [large(1), {"size": 1}]}
    for _ in range(MAX_DEPTH - 2):
        deep = {"and": [deep, {"size": 1}]}
    taken = least(cpu(lambda: parse(deep, COLUMNS)), cpu(lambda: parse(flat, COLUMNS)), until=alike)
    assert alike(*taken), taken
