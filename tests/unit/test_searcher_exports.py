"""Data as other systems export it, read as what it says: each test is a way in which real exports went wrong."""

from __future__ import annotations

import datetime
import decimal
import gzip
import logging
import re
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vectorindex_searcher.contract import Columns, Embedding, ExitCode, Metric
from vectorindex_searcher.dataset import jsonl
from vectorindex_searcher.dataset.column_types import MAX_DEPTH, MAX_FIELDS, common_type, metadata_type
from vectorindex_searcher.dataset.listing import list_source, with_counts
from vectorindex_searcher.dataset.source import Source, open_source
from vectorindex_searcher.dataset.stage import stage
from vectorindex_searcher.errors import TaskError
from vectorindex_searcher.index import filters, rows
from vectorindex_searcher.index.predicates import matching
from vectorindex_searcher.index.rows import Ids, RowFile, RowWriter
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

VECTORS = np.random.default_rng(7).standard_normal((4, 8)).astype(np.float32)
INFINITY = pa.array([2**31 - 1], pa.int32()).cast(pa.date32())[0]
"""A date of Postgres that Python cannot express."""


def named(value: object) -> str:
    """A parameter in the name of its test."""
    return str(value.type)[:40] if isinstance(value, pa.Array) else ""


def write(path: Path, ids: Any = None, vectors: Any = None, **options: Any) -> None:
    """Four rows, but for other `ids`; further keywords are columns, or options of pyarrow's writer."""
    columns = {name: options.pop(name) for name in list(options) if isinstance(options[name], pa.Array | list)}
    count = len(next(iter(columns.values()), VECTORS))
    ids = pa.array(range(count)) if ids is None else ids
    vectors = pa.array(np.resize(VECTORS, (count, 8)).tolist(), pa.list_(pa.float32())) if vectors is None else vectors
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": ids, "vector": vectors, **columns}), path, **options)


def opened(folder: Path, *metadata: str, **columns: str) -> Source:
    store = FolderStore(folder, Role.SOURCE)
    named = Columns(metadata=metadata, **columns)
    return open_source(store, list_source(store), named, Embedding(metric=Metric.L2))


def staged(folder: Path, *metadata: str) -> Path:
    """The folder that a build of `folder` keeps its rows in."""
    out = folder.with_name(folder.name + "-out")
    out.mkdir(exist_ok=True)
    stage(opened(folder, *metadata), out)
    return out


def kept(folder: Path, name: str) -> RowFile:
    return RowFile(staged(folder, name) / "metadata.arrow")


def answered(file: RowFile, name: str) -> list[Any]:
    """What a query gets: through orjson, as the searcher writes it, without a word of Python's."""
    values = file.values(np.arange(file.count), name)
    found: list[Any] = orjson.loads(orjson.dumps(values))
    return found


def found(file: RowFile, filter_: dict[str, Any]) -> int:
    return matching(file, filters.parse(filter_, filters.FilterColumns(file.schema))).matching


def ids_of(folder: Path) -> list[Any]:
    out = staged(folder)
    ids = Ids(out / "ids.arrow")
    return list(ids(np.arange(ids.count)))


# ---------------------------------------------------------------- times

NANOSECONDS = 1704067200_123456789
UNITS = {"s": 1, "ms": 10**3, "us": 10**6}


@pytest.mark.parametrize(
    ("column", "answer"),
    [
        (pa.array([NANOSECONDS], pa.timestamp("ns")), "2024-01-01T00:00:00.123456789Z"),
        (pa.array([NANOSECONDS], pa.timestamp("ns", "Europe/Berlin")), "2024-01-01T00:00:00.123456789Z"),
        (pa.array([1704067200], pa.timestamp("s")), "2024-01-01T00:00:00Z"),
        (pa.array([1704067200_500], pa.timestamp("ms")), "2024-01-01T00:00:00.500Z"),
        (pa.array([datetime.datetime(9999, 12, 31)], pa.timestamp("us")), "9999-12-31T00:00:00Z"),
        (pa.array([-62167219200 * 10**6], pa.timestamp("us")), "0000-01-01T00:00:00Z"),
        (pa.array([-62198755200 * 10**6], pa.timestamp("us")), "-000001-01-01T00:00:00Z"),
        (pa.array([2**62], pa.timestamp("us")), "+148108-07-06T14:00:27.387904Z"),
        (pa.array([-(2**63)], pa.timestamp("ns")), None),
        (pa.array([123456789], pa.time64("ns")), "00:00:00.123456789"),
        (pa.array([1], pa.time32("s")), "00:00:01"),
        (pa.array([123456789], pa.duration("ns")), "PT0.123456789S"),
        (pa.array([90_000 * 10**6], pa.duration("us")), "P1DT1H"),
        (pa.array([-61], pa.duration("s")), "-PT1M1S"),
        (pa.array([0], pa.duration("s")), "PT0S"),
        (pa.array([INFINITY], pa.date32()), "+5881580-07-11"),
        (pa.array([19723 * 86_400_000], pa.date64()), "2024-01-01"),
        (pa.array([[NANOSECONDS, None]], pa.list_(pa.timestamp("ns"))), ["2024-01-01T00:00:00.123456789Z", None]),
        (pa.array([{"at": 0}], pa.struct([("at", pa.timestamp("ns"))])), {"at": "1970-01-01T00:00:00Z"}),
    ],
    ids=named,
)  # fmt: skip
def test_any_time_is_answered_as_text(tmp_path: Path, column: pa.Array, answer: object) -> None:
    """A value beyond Python's own types was a 500 on every hit, after the build and the gate had passed."""
    source = tmp_path / "source"
    write(source / "a.parquet", at=pa.concat_arrays([column, pa.nulls(1, column.type)]))
    assert answered(kept(source, "at"), "at") == [answer, None]


@pytest.mark.parametrize("schema", [True, False])
def test_96_bit_times_reach_to_the_year_9999(tmp_path: Path, schema: bool) -> None:
    """Spark, Hive and Impala write them; as nanoseconds 9999-12-31 is a day in 1816."""
    ends = pa.array([datetime.datetime(9999, 12, 31), datetime.datetime(2025, 6, 1), None], pa.timestamp("us"))
    source = tmp_path / "source"
    write(source / "a.parquet", end=ends, use_deprecated_int96_timestamps=True, store_schema=schema)
    file = kept(source, "end")
    assert answered(file, "end") == ["9999-12-31T00:00:00Z", "2025-06-01T00:00:00Z", None]
    assert found(file, {"end": {"gte": "2030-01-01T00:00:00Z"}}) == 1


def test_what_is_answered_for_a_time_is_what_a_filter_takes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write(source / "a.parquet", at=pa.array([1704067200_123456, 1704067201_000000], pa.timestamp("us")))
    file = kept(source, "at")
    for value in answered(file, "at"):
        assert found(file, {"at": value}) == 1


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_for_ever_is_found_by_filters(tmp_path: Path, unit: str) -> None:
    """9999-12-31, or the largest number there is: a filter on such a column failed, or could not name it."""
    moments = [
        0,
        None,
        int(datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC).timestamp()) * UNITS[unit],
        2**62,
        -(2**62),
    ]
    with RowWriter(tmp_path / "metadata.arrow", pa.schema([("end", pa.timestamp(unit))]), 2) as writer:
        writer.write(pa.table({"end": pa.array(moments, pa.int64()).cast(pa.timestamp(unit))}))
    file = RowFile(tmp_path / "metadata.arrow")
    for value in answered(file, "end")[2:3]:
        assert found(file, {"end": value}) == 1
    assert found(file, {"end": {"gte": "2030-01-01T00:00:00Z"}}) == 2
    assert found(file, {"end": {"lt": "2030-01-01T00:00:00Z"}}) == 2
    assert found(file, {"end": {"in": ["1970-01-01T00:00:00Z"]}}) == 1
    assert found(file, {"end": {"exists": False}}) == 1


# ---------------------------------------------------------------- other types of metadata


@pytest.mark.parametrize(
    ("column", "answer"),
    [
        (pa.array([b"\xff\x00"]), "/wA="),
        (pa.array([b"\xff\x00" * 8], pa.binary(16)), "/wD/AP8A/wD/AP8A/wD/AA=="),
        (pa.array([uuid.UUID(int=1).bytes], pa.uuid()), "00000000-0000-0000-0000-000000000001"),
        (pa.array([decimal.Decimal("12.50")], pa.decimal128(10, 2)), "12.50"),
        (pa.array([decimal.Decimal(10**30)], pa.decimal128(38, 0)), "1" + "0" * 30),
        (pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string())), {"k": "v"}),
        (pa.array([[(7, 1.5)]], pa.map_(pa.int32(), pa.float64())), {"7": 1.5}),
        (pa.array([{"a": b"x", "b": [{"c": None}]}]), {"a": "eA==", "b": [{"c": None}]}),
        (pa.array(["a"]).dictionary_encode(), "a"),
        (pa.array([1.5], pa.float16()), 1.5),
        (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1),
        (pa.array([[float("nan"), 1.0, float("inf")]]), [None, 1.0, None]),
    ],
    ids=named,
)
def test_metadata_is_answered_in_words_of_json(tmp_path: Path, column: pa.Array, answer: object) -> None:
    source = tmp_path / "source"
    write(source / "a.parquet", x=pa.concat_arrays([column, pa.nulls(1, column.type)]))
    file = kept(source, "x")
    assert answered(file, "x") == [answer, None]
    with RowWriter(tmp_path / "slices.arrow", file.schema, 1) as writer:  # rows of several batches
        writer.write(file.table())
    assert answered(RowFile(tmp_path / "slices.arrow"), "x") == [answer, None]


def test_not_a_number_and_infinity_are_null_for_answers_and_filters(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "source"
    prices = [float("nan"), float("inf"), -float("inf"), 1.5]
    for name, kind in (("a", pa.float64()), ("b", pa.float32()), ("c", pa.float16())):
        ids = pa.array(range(4 * ord(name), 4 * ord(name) + 4))
        write(source / f"{name}.parquet", ids, price=pa.array(np.array(prices, kind.to_pandas_dtype())))
    with caplog.at_level(logging.WARNING):
        file = kept(source, "price")
    assert answered(file, "price") == [None, None, None, 1.5] * 3
    assert found(file, {"price": {"exists": False}}) == 9
    assert found(file, {"price": {"exists": True}}) == 3
    (said,) = [record for record in caplog.records if "kept as null" in record.getMessage()]
    assert (said.column, said.values) == ("price", 9)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pa.array([b"\xff"]).view(pa.string()), ("NotText", 0)),
        (pa.array([[b"\xff"]]).cast(pa.list_(pa.binary())).view(pa.list_(pa.string())), ("NotText", 0)),
    ],
    ids=named,
)
def test_metadata_that_is_no_text_is_named(tmp_path: Path, column: pa.Array, told: tuple[str, int]) -> None:
    source = tmp_path / "source"
    write(source / "a.parquet", x=column)
    with pytest.raises(TaskError) as caught:
        kept(source, "x")
    assert (caught.value.reason, caught.value.failure.row) == told


def deep(levels: int) -> pa.DataType:
    return pa.list_(deep(levels - 1)) if levels else pa.int32()


@pytest.mark.parametrize(
    "kind",
    [
        deep(MAX_DEPTH),
        pa.struct([(f"f{number}", pa.int32()) for number in range(MAX_FIELDS + 1)]),
        pa.list_(pa.struct([(f"f{number}", pa.struct([("a", pa.int8())] * 1)) for number in range(MAX_FIELDS)])),
    ],
    ids=["deep", "wide", "wide below"],
)
def test_metadata_of_endless_shape_is_refused_with_a_remedy(tmp_path: Path, kind: pa.DataType) -> None:
    source = tmp_path / "source"
    write(source / "a.parquet", x=pa.nulls(2, kind))
    with pytest.raises(TaskError) as caught:
        opened(source, "x")
    assert caught.value.reason == "BadColumnType"
    assert caught.value.failure.remedy


# ---------------------------------------------------------------- shards of one table

DAY = datetime.datetime(2024, 1, 1)
HARMLESS = {
    "all null (pandas, datasets)": (pa.array(["en", "de"]), pa.array([None, None]), "en"),
    "all null (DuckDB writes INT32)": (pa.array(["en", "de"]), pa.array([None, None], pa.int32()), "en"),
    "lists, all null or empty": (pa.array([["en"], []]), pa.array([[], None], pa.list_(pa.int32())), ["en"]),
    "integers and, where one is missing, floats (pandas)": (pa.array([1, 2]), pa.array([1.0, None]), 1.0),
    "32 and 64 bits": (pa.array([1, 2], pa.int32()), pa.array([2**40, 2]), 1),
    "unsigned": (pa.array([1, 2], pa.uint32()), pa.array([-1, 2], pa.int32()), 1),
    "half and double": (pa.array([1.5, 2], pa.float16()), pa.array([0.1, 2]), 1.5),
    "times in us and ns": (
        pa.array([DAY] * 2, pa.timestamp("us")), pa.array([DAY] * 2, pa.timestamp("ns")), "2024-01-01T00:00:00Z",
    ),
    "times with and without UTC": (
        pa.array([DAY] * 2, pa.timestamp("us")), pa.array([DAY] * 2, pa.timestamp("us", "UTC")), "2024-01-01T00:00:00Z",
    ),
    "times of two zones": (
        pa.array([DAY] * 2, pa.timestamp("us", "Europe/Berlin")), pa.array([DAY] * 2, pa.timestamp("s", "UTC")),
        "2024-01-01T00:00:00Z",
    ),
    "dates of 32 and 64 bits": (
        pa.array([DAY.date()] * 2, pa.date32()), pa.array([DAY.date()] * 2, pa.date64()), "2024-01-01",
    ),
    "list (pandas) and large_list (Polars)": (
        pa.array([["a"], []]), pa.array([["b"], None], pa.large_list(pa.large_string())), ["a"],
    ),
    "text with and without its annotation (Impala)": (pa.array(["a", "b"]), pa.array([b"c", None]), "a"),
    "list and list view": (pa.array([["a", "b"], []]), pa.array([["b"], None], pa.list_view(pa.string())), ["a", "b"]),
    "views of lists": (
        pa.array([["a", "b"], ["c"]], pa.large_list_view(pa.string())),
        pa.array([["b"], None], pa.list_view(pa.string())), ["a", "b"],
    ),
    "dictionary and plain": (pa.array(["a", "b"]).dictionary_encode(), pa.array(["a", "b"]), "a"),
    "a field that came later": (
        pa.array([{"a": 1}, {"a": 2}]), pa.array([{"a": 1.5, "b": "x"}, None]), {"a": 1.0, "b": None},
    ),
    "maps": (
        pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int32())),
        pa.array([[("a", 2**40)], None], pa.map_(pa.large_string(), pa.int64())), {"a": 1},
    ),
    "decimals": (
        pa.array([decimal.Decimal("1.5")] * 2, pa.decimal128(10, 2)),
        pa.array([decimal.Decimal("1.5")] * 2, pa.decimal128(12, 3)), "1.500",
    ),
}  # fmt: skip


@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
@pytest.mark.parametrize("name", list(HARMLESS))
def test_shards_that_differ_without_loss_are_one_column(tmp_path: Path, name: str, turned: bool) -> None:
    one, other, first = HARMLESS[name]
    source = tmp_path / "source"
    write(source / ("b.parquet" if turned else "a.parquet"), pa.array([1, 2]), x=one)
    write(source / ("a.parquet" if turned else "b.parquet"), pa.array([3, 4]), x=other)
    file = kept(source, "x")
    assert file.count == 4
    assert answered(file, "x")[2 if turned else 0] == first


HARMFUL = {
    "text and numbers": (pa.array(["en", "de"]), pa.array([1, 2]), None),
    "text and an INT32 that is not all null": (pa.array(["en", "de"]), pa.array([None, 7], pa.int32()), 1),
    "beyond what a float counts": (pa.array([1.5, 2]), pa.array([1, 2**53 + 1]), 1),
    "beyond nanoseconds": (
        pa.array([DAY, DAY], pa.timestamp("ns")),
        pa.array([DAY, datetime.datetime(9999, 12, 31)], pa.timestamp("us")), 1,
    ),
    "beyond int64": (pa.array([1, -1]), pa.array([1, 2**64 - 1], pa.uint64()), 1),
    "bytes that are no text": (pa.array(["a", "b"]), pa.array([b"a", b"\xff"]), 1),
    "booleans and numbers": (pa.array([True, False]), pa.array([1, 2]), None),
    "dates and times": (pa.array([DAY.date()] * 2), pa.array([DAY] * 2, pa.timestamp("us")), None),
}  # fmt: skip


@pytest.mark.parametrize("name", list(HARMFUL))
def test_shards_that_differ_with_loss_are_refused(tmp_path: Path, name: str) -> None:
    """By the row, where only a value tells."""
    one, other, row = HARMFUL[name]
    source = tmp_path / "source"
    write(source / "a.parquet", pa.array([1, 2]), x=one)
    write(source / "b.parquet", pa.array([3, 4]), x=other)
    with pytest.raises(TaskError) as caught:
        kept(source, "x")
    assert caught.value.reason in {"MixedTypes", "NotText"}
    assert (caught.value.failure.object, caught.value.failure.row) == ("b.parquet", row)
    assert "x" in caught.value.failure.message
    assert caught.value.failure.remedy
    assert caught.value.exit_code == ExitCode.BAD_DATA


def test_what_types_agree_on_does_not_hang_on_their_order() -> None:
    kinds = {metadata_type(column.type) for pair in HARMLESS.values() for column in pair[:2]}
    for one in kinds:
        assert common_type(one, one) == one
        for other in kinds:
            either, turned = common_type(one, other), common_type(other, one)
            if either is not None and pa.types.is_struct(either):  # fields are in the order in which they came
                assert {field.name: field.type for field in either} == {field.name: field.type for field in turned}
            else:
                assert either == turned


# ---------------------------------------------------------------- ids

BIG = 2**63 - 1


@pytest.mark.parametrize(
    ("ids", "kept_as"),
    [
        (pa.array([decimal.Decimal(7), decimal.Decimal(BIG)], pa.decimal128(38, 0)), [7, BIG]),
        (pa.array([decimal.Decimal("7.00"), decimal.Decimal("8.00")], pa.decimal128(12, 2)), [7, 8]),
        (pa.array([b"a", "ä".encode()]), ["a", "ä"]),
        (pa.array([b"ab", b"cd"], pa.binary(2)), ["ab", "cd"]),
        (pa.array([7.0, 2.0**53 - 1]), [7, 2**53 - 1]),
        (pa.array([uuid.UUID(int=1).bytes, uuid.UUID(int=2**128 - 1).bytes], pa.uuid()),
         [str(uuid.UUID(int=1)), str(uuid.UUID(int=2**128 - 1))]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
    ],
    ids=named,
)  # fmt: skip
def test_ids_as_exports_have_them(tmp_path: Path, ids: pa.Array, kept_as: list[object]) -> None:
    source = tmp_path / "source"
    write(source / "a.parquet", ids, pa.array(VECTORS[:2].tolist()))
    assert ids_of(source) == kept_as


@pytest.mark.parametrize(
    ("ids", "reason", "row"),
    [
        (pa.array([decimal.Decimal(7), decimal.Decimal(BIG + 1)], pa.decimal128(38, 0)), "BadIdType", 1),
        (pa.array([decimal.Decimal("7.00"), decimal.Decimal("7.50")], pa.decimal128(12, 2)), "BadIdType", 1),
        (pa.array([7.0, 7.5]), "BadIdType", 1),
        (pa.array([7.0, 2.0**53]), "BadIdType", 1),
        (pa.array([7.0, float("inf")]), "BadIdType", 1),
        (pa.array([7.0, float("nan")]), "NullId", 1),
        (pa.array([7.0, 2.0**24], pa.float32()), "BadIdType", 1),
        (pa.array([b"a", b"\xff"]), "NotText", 1),
        (pa.array([1, 2**64 - 1], pa.uint64()), "BadIdType", 1),
        (pa.array([1, 2], pa.timestamp("us")), "BadIdType", None),
        (pa.array([True, False]), "BadIdType", None),
        (pa.nulls(2), "BadIdType", None),
    ],
    ids=named,
)
def test_ids_that_would_lose_something_are_refused(tmp_path: Path, ids: pa.Array, reason: str, row: int | None) -> None:
    source = tmp_path / "source"
    write(source / "a.parquet", ids, pa.array(VECTORS[:2].tolist()))
    with pytest.raises(TaskError) as caught:
        ids_of(source)
    assert (caught.value.reason, caught.value.failure.row) == (reason, row)
    assert caught.value.failure.remedy


# ---------------------------------------------------------------- vectors


WHOLE = np.arange(32).reshape(4, 8) + 1


@pytest.mark.parametrize(
    "column",
    [
        pa.array(WHOLE.tolist()),
        pa.array(WHOLE.tolist(), pa.list_(pa.int16())),
        pa.array(WHOLE.tolist(), pa.large_list(pa.uint64())),
        pa.array(WHOLE.tolist(), pa.list_(pa.decimal128(10, 2))),
        pa.array(WHOLE.tolist(), pa.list_view(pa.float64())),
        pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), (2, 4)),
                                       pa.array(WHOLE.tolist(), pa.list_(pa.float32(), 8))),
    ],
    ids=named,
)  # fmt: skip
def test_vectors_of_any_kind_of_number(tmp_path: Path, column: pa.Array) -> None:
    source = tmp_path / "source"
    write(source / "a.parquet", vectors=column)
    (block,) = opened(source).blocks()
    np.testing.assert_array_equal(block.vectors, WHOLE)
    assert not opened(source).half


@pytest.mark.parametrize(
    ("column", "conversion"),
    [
        (pa.array([str(row) for row in WHOLE.tolist()]), "json.loads"),
        (pa.array([row.tobytes() for row in VECTORS]), "frombuffer"),
        (pa.array([{"type": 1, "size": None, "values": row} for row in VECTORS.tolist()]), "vector_to_array"),
        (pa.array([[row] for row in VECTORS.tolist()]), "one vector a row"),
        (pa.array([["1"]] * 4), "CAST(vector AS FLOAT[])"),
        (pa.array([[(1, 0.5)]] * 4, pa.map_(pa.int32(), pa.float32())), "list of floats"),
        (pa.array([0.5] * 4), "Name the column"),
    ],
    ids=named,
)
def test_what_is_no_vector_names_the_conversion(tmp_path: Path, column: pa.Array, conversion: str) -> None:
    source = tmp_path / "source"
    write(source / "a.parquet", vectors=column)
    with pytest.raises(TaskError) as caught:
        opened(source)
    assert caught.value.reason == "BadVectorType"
    assert conversion in str(caught.value.failure.remedy)


# ---------------------------------------------------------------- columns that are not in the file


def test_a_column_that_only_the_folders_name(tmp_path: Path) -> None:
    """Hive, Spark and Athena write `date=2024-01-01/part-0.parquet`. Text, always: a postal code is no number."""
    source = tmp_path / "source"
    for number, folder in enumerate(("date=2024-01-01/zip=01234", "date=2024-01-02/zip=__HIVE_DEFAULT_PARTITION__")):
        write(source / folder / "a.parquet", pa.array(range(4 * number, 4 * number + 4)))
    write(source / "date=a%2Fb" / "zip=9" / "a.parquet", pa.array(range(8, 10)), date=["c", "d"])
    out = staged(source, "date", "zip")
    file = RowFile(out / "metadata.arrow")
    assert answered(file, "date") == ["2024-01-01"] * 4 + ["2024-01-02"] * 4 + ["c", "d"]
    assert answered(file, "zip") == ["01234"] * 4 + [None] * 4 + ["9"] * 2
    assert found(file, {"date": {"gte": "2024-01-02"}}) == 6


def test_folders_name_columns_of_formats_without_any(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for day in ("2024-01-01", "2024-01-02"):
        (source / f"date={day}").mkdir(parents=True)
        np.save(source / f"date={day}" / "a.npy", VECTORS)
    assert answered(kept(source, "date"), "date") == ["2024-01-01"] * 4 + ["2024-01-02"] * 4
    with pytest.raises(TaskError, match="its folders name date"):
        opened(source, "day")


def test_a_name_in_capitals_is_pointed_at(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    pq.write_table(pa.table({"ID": [1], "VECTOR": [[1.0]]}), source / "a.parquet")
    with pytest.raises(TaskError) as caught:
        opened(source)
    assert caught.value.failure.remedy == "Name it as it is there: 'VECTOR'."


def test_a_column_that_is_nowhere_lists_those_of_file_and_folders(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write(source / "date=2024-01-01" / "a.parquet")
    with pytest.raises(TaskError) as caught:
        opened(source, "dat")
    assert "id, vector, date" in caught.value.failure.message


def test_rows_of_a_file_that_has_only_vectors_are_numbered(tmp_path: Path) -> None:
    """pandas writes no column for its default index. As for NPY, ids are the row numbers of the whole source."""
    source = tmp_path / "source"
    for name in ("a", "b"):
        source.mkdir(exist_ok=True)
        pq.write_table(pa.table({"vector": VECTORS.tolist()}), source / f"{name}.parquet")
    assert ids_of(source) == list(range(8))
    assert [part.to_pylist() for part in opened(source).ids()] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_ids_that_may_have_another_name_are_not_guessed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    pq.write_table(pa.table({"vector": VECTORS.tolist(), "doc": ["a", "b", "c", "d"]}), source / "a.parquet")
    with pytest.raises(TaskError) as caught:
        opened(source)
    assert (caught.value.reason, caught.value.exit_code) == ("UnknownColumn", ExitCode.BAD_SPEC)
    assert "doc" in str(caught.value.failure.remedy)
    assert "range(len(df))" in str(caught.value.failure.remedy)


def test_numbered_rows_beside_rows_with_ids_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write(source / "a.parquet")
    pq.write_table(pa.table({"vector": VECTORS.tolist()}), source / "b.parquet")
    with pytest.raises(TaskError) as caught:
        opened(source)
    assert (caught.value.reason, caught.value.failure.object) == ("MixedTypes", "b.parquet")
    assert "no ids" in caught.value.failure.message


@pytest.mark.parametrize("name", ["vector", "x"])
def test_a_column_that_is_there_twice_is_refused(tmp_path: Path, name: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    arrays = {"id": pa.array([1]), "vector": pa.array([[1.0]]), "x": pa.array([1])}
    columns = [*arrays.items(), (name, arrays[name])]
    table = pa.Table.from_arrays([array for _, array in columns], names=[one for one, _ in columns])
    pq.write_table(table, source / "a.parquet")
    with pytest.raises(TaskError) as caught:
        opened(source, "x")
    assert f"2 columns '{name}'" in caught.value.failure.message


def test_names_of_strangers_are_shown_without_control_characters(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    columns = {"\x1b[2Jid\n" + "n" * 5000: [1], **{f"c{number}": [1] for number in range(500)}}
    pq.write_table(pa.table(columns), source / "a.parquet")
    with pytest.raises(TaskError) as caught:
        opened(source)
    message = caught.value.failure.message
    assert message.isprintable()
    assert len(message) < 1000
    assert "481 more" in message


# ---------------------------------------------------------------- JSON lines that grow


def lines(path: Path, values: list[Any], *, head: bytes = b"", folder: str = "") -> None:
    """A line for each value, of the field `x`; no field for `...`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = (
        {"id": row, "vector": [1.0, row]} | ({} if value is ... else {"x": value}) for row, value in enumerate(values)
    )
    path.write_bytes(head + b"".join(orjson.dumps(row) + b"\n" for row in rows))


LATER = 1500
"""Lines before a field shows its type: beyond those that are looked at first."""
GROWING = {
    "a field that comes late": ([...] * LATER + ["en"], [None, "en"]),
    "nulls first": ([None] * LATER + ["en"], [None, "en"]),
    "a number that gets a fraction": ([10] * LATER + [10.5], [10.0, 10.5]),
    "a list that gets values": ([[]] * LATER + [["a"]], [[], ["a"]]),
    "a list that gets fractions": ([[1]] * LATER + [[1.5, None]], [[1.0], [1.5, None]]),
    "whole numbers alone": ([2**53 + 1] * LATER + [7], [2**53 + 1, 7]),
    "nothing but null": ([None] * (LATER + 1), [None, None]),
}


@pytest.mark.parametrize("chunk", [4 << 20, 5000])
@pytest.mark.parametrize("name", list(GROWING))
def test_json_lines_may_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, chunk: int) -> None:
    monkeypatch.setattr(jsonl, "CHUNK_BYTES", chunk)
    values, ends = GROWING[name]
    source = tmp_path / "source"
    lines(source / "a.jsonl", values)
    found = answered(kept(source, "x"), "x")
    assert [found[0], found[-1]] == ends
    assert len(found) == LATER + 1


def test_json_lines_and_what_is_counted_already(tmp_path: Path) -> None:
    """`resolve` keeps the rows with the listing; types are looked for again."""
    source = tmp_path / "source"
    lines(source / "a.jsonl", [10] * LATER + [10.5])
    store = FolderStore(source, Role.SOURCE)
    listing = with_counts(list_source(store), {"a.jsonl": LATER + 1})
    found = open_source(store, listing, Columns(metadata=("x",)), Embedding(metric=Metric.L2))
    assert found.metadata.field("x").type == pa.float64()


@pytest.mark.parametrize(
    ("values", "reason", "row"),
    [
        ([10] * LATER + ["x"], "BadLine", LATER),
        ([True] * LATER + [1], "BadLine", LATER),
        ([10] * LATER + [2**63], "BadLine", LATER),
        ([{"a": 1}], "BadColumnType", None),
        ([1, "a"], "BadColumnType", None),
    ],
)
def test_json_lines_that_have_no_common_type(tmp_path: Path, values: list[Any], reason: str, row: int | None) -> None:
    source = tmp_path / "source"
    lines(source / "a.jsonl", values)
    with pytest.raises(TaskError) as caught:
        kept(source, "x")
    assert (caught.value.reason, caught.value.failure.row) == (reason, row)
    assert caught.value.failure.remedy
    assert not re.search(r"\b(int|str|dict|NoneType|None|True)\b", caught.value.failure.message)


def test_a_field_that_no_line_has_is_unknown(tmp_path: Path) -> None:
    source = tmp_path / "source"
    lines(source / "a.jsonl", [...] * LATER)
    with pytest.raises(TaskError) as caught:
        opened(source, "x")
    assert caught.value.reason == "UnknownColumn"
    lines(source / "x=web" / "a.jsonl", [...] * 3)
    (source / "a.jsonl").unlink()
    assert answered(kept(source, "x"), "x") == ["web"] * 3


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "A.JSONL"])
def test_a_byte_order_mark_is_skipped(tmp_path: Path, name: str) -> None:
    source = tmp_path / "source"
    lines(source / name, [1, 2], head=b"\xef\xbb\xbf")
    if name.endswith(".gz"):
        (source / name).write_bytes(gzip.compress((source / name).read_bytes()))
    assert answered(kept(source, "x"), "x") == [1, 2]


def test_text_of_16_bits_is_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.jsonl").write_bytes('{"id": 1, "vector": [1]}\n'.encode("utf-16"))
    with pytest.raises(TaskError, match="UTF-16"):
        opened(source)


def test_lines_that_have_only_vectors_are_numbered(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.jsonl").write_text('{"vector": [1, 2], "price": 1.5}\n{"vector": [2, 3]}\n')
    assert ids_of(source) == [0, 1]
    (source / "a.jsonl").write_text('{"vector": [1, 2], "doc": "a"}\n')
    with pytest.raises(TaskError, match="no field 'id'"):
        opened(source)


@pytest.mark.parametrize("shape", [b"[", b'{"a":'])
def test_endless_nesting_in_a_line_harms_nothing(tmp_path: Path, shape: bytes) -> None:
    source = tmp_path / "source"
    source.mkdir()
    end = {b"[": b"]", b'{"a":': b"}"}[shape]
    deep_value = shape * 300_000 + b"1" + end * 300_000
    (source / "a.jsonl").write_bytes(b'{"id":1,"vector":[1]}\n{"id":2,"vector":[1],"x":' + deep_value + b"}\n")
    assert ids_of(source) == [1, 2]


# ---------------------------------------------------------------- size


def test_rows_that_take_too_much_are_refused_and_large_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole documents as metadata: beyond 2 GiB a batch could not be written, and memory went first."""
    monkeypatch.setattr(rows, "LARGEST_BATCH_BYTES", 1 << 20)
    for name, length in (("small", 20_000), ("large", 30_000)):
        write(tmp_path / name / "a.parquet", x=["a" * length] * 40)
    assert kept(tmp_path / "small", "x").count == 40
    with pytest.raises(TaskError) as caught:
        kept(tmp_path / "large", "x")
    assert caught.value.reason == "RowsTooLarge"
    assert "'x'" in caught.value.failure.message
    assert caught.value.failure.remedy
