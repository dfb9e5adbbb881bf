"""What values of a column hold is known from offsets alone, for every type and every piece of an array; and values that
no writer should have written are answered all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from vectorindex_searcher.errors import BadData
from vectorindex_searcher.index.rows import Ids, RowFile, RowWriter
from vectorindex_searcher.index.value_sizes import sizes

TEXTS = ["", "a" * 50, None, "bc", "d" * 7]
LISTS: list[Any] = [[], ["a" * 9, None], None, ["b"] * 4, ["c" * 30]]
ARRAYS: dict[str, pa.Array] = {
    "text": pa.array(TEXTS),
    "large text": pa.array(TEXTS, pa.large_string()),
    "bytes": pa.array([text and text.encode() for text in TEXTS]),
    "lists": pa.array(LISTS, pa.list_(pa.string())),
    "large lists": pa.array(LISTS, pa.large_list(pa.string())),
    "pairs": pa.array([["a", "b" * 9]] * 5, pa.list_(pa.string(), 2)),
    "structs": pa.array([{"a": text, "b": 1} for text in TEXTS]),
    "maps": pa.array([[("k", text or "")] for text in TEXTS], pa.map_(pa.string(), pa.string())),
    "numbers": pa.array(range(5)),
    "flags": pa.array([True, False, None, True, True]),
    "nothing": pa.nulls(5),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "views": pa.array(TEXTS, pa.string_view()),
    "fixed bytes": pa.array([b"abcd"] * 5, pa.binary(4)),
    "nested": pa.array([[["x" * 20], []], [], None, [["y"]], [["z" * 9] * 3]], pa.list_(pa.list_(pa.string()))),
}  # fmt: skip


def text_of(value: Any) -> int:
    """Characters of all texts in a value."""
    if isinstance(value, dict):
        return sum(map(text_of, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(text_of, value))
    return len(value) if isinstance(value, str | bytes) else 0


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("piece", [slice(0, 5), slice(1, 5), slice(2, 4)])
def test_no_value_is_larger_than_its_size_and_none_is_far_smaller(name: str, piece: slice) -> None:
    array = ARRAYS[name].slice(piece.start, piece.stop - piece.start)
    starts = np.arange(len(array))
    found = sizes(array, starts, starts + 1)
    assert len(found) == len(array)
    exact = name not in ("dictionary", "views")  # bounded by what the whole array holds
    for size, value in zip(found.tolist(), array.to_pylist(), strict=True):
        assert size >= text_of(value) or name == "views"
        assert size <= text_of(value) + 200 or not exact


def test_rows_of_a_file_have_the_size_of_all_their_columns(tmp_path: Path) -> None:
    schema = pa.schema([("title", pa.string()), ("tags", pa.list_(pa.string()))])
    with RowWriter(tmp_path / "rows.arrow", schema, 7) as writer:
        texts = ["t" * row for row in range(40)]
        writer.write(pa.table({"title": texts, "tags": [[text] * 2 for text in texts]}, schema))
    file = RowFile(tmp_path / "rows.arrow")
    rows = np.array([39, 3, 20, 39])
    held = 3 * int(rows.sum())
    assert held < file.nbytes(rows) < held + 200 * len(rows)
    assert file.nbytes(rows[:0]) == 0


def broken() -> pa.Array:
    """Text of which the first is no UTF-8, as a Parquet file may hold it."""
    offsets = pa.py_buffer(np.array([0, 2, 4, 6], np.int32))
    return pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"\xff\xfeab\xc3\xa9")])


@pytest.mark.parametrize("batch_rows", [2, 10])
def test_text_that_is_no_utf8_is_answered_as_far_as_it_can_be_read(tmp_path: Path, batch_rows: int) -> None:
    wanted = ["\ufffd\ufffd", "ab", "é"]
    columns = {
        "text": broken(),
        "large": broken().cast(pa.binary()).cast(pa.large_binary()).view(pa.large_string()),
        "list": pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), broken()),
        "struct": pa.StructArray.from_arrays([broken()], ["a"]),
    }
    table = pa.table(columns)
    with RowWriter(tmp_path / "rows.arrow", table.schema, batch_rows) as writer:
        writer.write(table)
    file, rows = RowFile(tmp_path / "rows.arrow"), np.arange(3)
    assert file.values(rows, "text") == file.values(rows, "large") == wanted
    assert file.values(rows, "list") == [[text] for text in wanted]
    assert file.values(rows, "struct") == [{"a": text} for text in wanted]
    orjson.dumps([file.values(rows, name) for name in columns])
    with RowWriter(tmp_path / "ids.arrow", pa.schema([("id", pa.string())]), batch_rows) as writer:
        writer.write(pa.table({"id": broken()}))
    assert Ids(tmp_path / "ids.arrow")(rows) == wanted


def outside() -> pa.Array:
    """Text of which the values in the middle lie far behind its bytes; the first and the last offset are right."""
    offsets = np.array([0, 1 << 30, (1 << 30) + 7, 64], np.int32)
    return pa.Array.from_buffers(pa.string(), 3, [None, pa.py_buffer(offsets), pa.py_buffer(b"x" * 64)])


OUTSIDE: dict[str, pa.Array] = {
    "text": outside(),
    "list": pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), outside()),
    "struct": pa.StructArray.from_arrays([outside()], ["a"]),
    "map": pa.MapArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), pa.array(["a", "b", "c"]), outside()),
    "list itself": pa.Array.from_buffers(
        pa.list_(pa.null()), 3, [None, pa.py_buffer(np.array([0, 1 << 28, 1, 2], np.int32))], children=[pa.nulls(2)]
    ),
    "dictionary": pa.DictionaryArray.from_arrays(pa.array([0, 1 << 28, 0], pa.int32()), pa.array(["a"]), safe=False),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_file_whose_values_lie_outside_of_it_is_refused_when_it_is_opened(tmp_path: Path, name: str) -> None:
    """Reading one of them ends the process."""
    table = pa.record_batch({"good": pa.array(range(3)), "bad": OUTSIDE[name]})
    with pa.OSFile(str(tmp_path / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_batch(table)
    with pytest.raises(BadData, match=r"rows\.arrow"):
        RowFile(tmp_path / "rows.arrow")


@pytest.mark.parametrize("ids", [{"id": outside()}, {"id": pa.array([1, None])}, {"other": pa.array([1])}])
def test_ids_that_cannot_be_read_are_refused_when_they_are_opened(tmp_path: Path, ids: dict[str, pa.Array]) -> None:
    table = pa.record_batch(ids)
    with pa.OSFile(str(tmp_path / "ids.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_batch(table)
    with pytest.raises(BadData, match=r"ids\.arrow"):
        Ids(tmp_path / "ids.arrow")


@pytest.mark.parametrize("name", [*ARRAYS, "time", "money"])
def test_what_writers_write_is_opened(tmp_path: Path, name: str) -> None:
    more = {"time": pa.array([1 << 40], pa.int64()).view(pa.time64("us")), "money": pa.array([1], pa.decimal128(9, 2))}
    table = pa.record_batch({"column": (ARRAYS | more)[name]})
    with pa.OSFile(str(tmp_path / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_batch(table)
    assert RowFile(tmp_path / "rows.arrow").count == table.num_rows
