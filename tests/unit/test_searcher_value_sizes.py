"""What values of a column hold is known from offsets alone, for every type and every piece of an array; and values that
no writer should have written are answered all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

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
