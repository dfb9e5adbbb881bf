"""Columns of random types and values: kept and answered as they are, alone and beside another shard, or refused."""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vectorindex_searcher.dataset.column_types import common_type, metadata_type
from vectorindex_searcher.dataset.column_values import Keeper
from vectorindex_searcher.errors import BadData
from vectorindex_searcher.index.json_values import json_values
from vectorindex_searcher.index.rows import RowFile, RowWriter
from vectorindex_searcher.index.value_sizes import sizes

BITS = st.integers(-(2**63), 2**63 - 1)
Draw = Callable[[st.SearchStrategy[Any]], Any]


def integers(bits: int, signed: bool) -> st.SearchStrategy[int]:
    return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) if signed else st.integers(0, (1 << bits) - 1)


def scalars() -> list[tuple[pa.DataType, st.SearchStrategy[Any]]]:
    whole = [
        (kind, integers(kind.bit_width, pa.types.is_signed_integer(kind)))
        for kind in (pa.int8(), pa.int32(), pa.int64(), pa.uint16(), pa.uint64())
    ]
    raw = [pa.timestamp(unit, zone) for unit in ("ms", "us", "ns") for zone in (None, "UTC", "Europe/Berlin")]
    raw += [pa.duration(unit) for unit in ("s", "ns")]
    return [
        *whole,
        *((kind, BITS) for kind in raw),
        (pa.date32(), integers(32, True)),
        (pa.time64("us"), st.integers(0, 86_399_999_999)),
        (pa.float32(), st.floats(width=32)),
        (pa.float64(), st.floats()),
        (pa.bool_(), st.booleans()),
        (pa.string(), st.text(max_size=8)),
        (pa.large_string(), st.text(max_size=8)),
        (pa.binary(), st.binary(max_size=8)),
        (pa.binary(3), st.binary(min_size=3, max_size=3)),
        (pa.decimal128(9, 2), st.decimals(-9999, 9999, places=2)),
        (pa.null(), st.none()),
    ]


@st.composite
def typed(draw: Draw, depth: int = 3) -> tuple[pa.DataType, st.SearchStrategy[Any]]:
    """A type, and its values."""
    choice = draw(st.integers(0, 9 if depth else 5))
    if choice <= 5:
        return draw(st.sampled_from(scalars()))
    if choice <= 7:
        item, values = draw(typed(depth - 1))
        kind = draw(st.sampled_from([pa.list_(item), pa.large_list(item), pa.list_view(item), pa.list_(item, 2)]))
        length = {"min_size": 2, "max_size": 2} if pa.types.is_fixed_size_list(kind) else {"max_size": 3}
        return kind, st.lists(st.none() | values, **length)
    if choice == 8:
        parts = [draw(typed(depth - 1)) for _ in range(draw(st.integers(1, 3)))]
        fields = {f"f{number}": kind for number, (kind, _) in enumerate(parts)}
        return pa.struct(list(fields.items())), st.fixed_dictionaries(
            {f"f{number}": st.none() | values for number, (_, values) in enumerate(parts)}
        )
    item, values = draw(typed(depth - 1))
    pairs = st.dictionaries(st.text(max_size=3), st.none() | values, max_size=3).map(lambda found: list(found.items()))
    return pa.map_(pa.string(), item), pairs


@st.composite
def column(draw: Draw) -> pa.Array:
    kind, values = draw(typed())
    rows = draw(st.lists(st.none() | values, min_size=1, max_size=6))
    made = pa.array(rows, kind)
    start = draw(st.integers(0, len(made) - 1))
    return made.slice(start) if draw(st.booleans()) else made


def expected(value: Any) -> Any:
    """What JSON cannot say is null."""
    if isinstance(value, list):
        return [expected(one) for one in value]
    if isinstance(value, dict):
        return {name: expected(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def answers(path: Path, table: pa.Table, batch: int) -> list[Any]:
    with RowWriter(path, table.schema, batch) as writer:
        writer.write(table)
    file = RowFile(path)
    values = file.values(pa.array(range(file.count)).to_numpy(), "x")
    for chunk in file.table().column("x").chunks:
        assert (
            sizes(chunk, pa.array(range(len(chunk))).to_numpy(), pa.array(range(1, len(chunk) + 1)).to_numpy()) >= 0
        ).all()
    found: list[Any] = orjson.loads(orjson.dumps(values))
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=150)
@given(made=column(), batch=st.integers(1, 4))
@example(made=pa.array([[[]]], pa.large_list(pa.map_(pa.string(), pa.null()))), batch=1)
@example(made=pa.array([[1, 2], None, [3]], pa.list_view(pa.int64())), batch=2)
def test_any_column_is_kept_as_it_is(tmp_path: Path, made: pa.Array, batch: int) -> None:
    kind = metadata_type(made.type)
    kept = Keeper(pa.schema([("x", kind)])).keep(pa.table({"x": made}), "a", 0)
    found = answers(tmp_path / "rows.arrow", kept, batch)
    assert found == orjson.loads(orjson.dumps(expected(json_values(made))))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=150)
@given(one=column(), other=column())
def test_shards_keep_their_values_or_are_refused(tmp_path: Path, one: pa.Array, other: pa.Array) -> None:
    kind = common_type(metadata_type(one.type), metadata_type(other.type))
    if kind is None:
        return
    keeper = Keeper(pa.schema([("x", kind)]))
    for part in (one, other):
        try:
            kept = keeper.keep(pa.table({"x": part}), "a.parquet", 7)
        except BadData as error:
            refused = error.failure
        else:
            refused = None
        if refused is not None:
            assert refused.remedy
            assert refused.row is not None
            assert 7 <= refused.row < 7 + len(part)
            continue
        assert kept.schema.field("x").type == kind
        found = answers(tmp_path / "rows.arrow", kept, 3)
        assert [one is None for one in found] == [one is None for one in expected(json_values(part))]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(made=column())
def test_any_column_survives_parquet(tmp_path: Path, made: pa.Array) -> None:
    try:
        pq.write_table(pa.table({"x": made}), tmp_path / "a.parquet")
        back = pq.read_table(tmp_path / "a.parquet")
    except (pa.ArrowException, NotImplementedError):
        return  # pyarrow itself cannot
    keeper = Keeper(pa.schema([("x", metadata_type(back.schema.field("x").type))]))
    kept = keeper.keep(back, "a.parquet", 0)
    assert answers(tmp_path / "rows.arrow", kept, 2) == orjson.loads(
        orjson.dumps(expected([value for chunk in back.column("x").chunks for value in json_values(chunk)]))
    )


def test_the_words_of_the_oracle() -> None:
    made = pa.array([{"a": math.nan, "b": decimal.Decimal("1.50"), "c": datetime.date(2024, 1, 1)}])
    assert expected(json_values(made)) == [{"a": None, "b": "1.50", "c": "2024-01-01"}]
