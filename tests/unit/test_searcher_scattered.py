"""Rows that lie in many record batches are answered as Arrow answers them, without an object of Arrow's for each."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vectorindex_searcher.index.json_values import json_values
from vectorindex_searcher.index.rows import Ids, RowFile, RowWriter
from vectorindex_searcher.index.scattered import ScatteredNumbers, ScatteredTexts, scattered
from vectorindex_searcher.index.value_sizes import sizes

COUNT = 103
TEXTS = ["" if row % 7 == 0 else f"ä{row}" * (row % 4) for row in range(COUNT)]
HOLES = [None if row % 3 == 0 else value for row, value in enumerate(TEXTS)]
LATE: list[Any] = [None if row > 90 else row for row in range(COUNT)]
"""No value is missing in the first batches."""
LISTS = [None if row % 11 == 0 else [HOLES[(row + at) % COUNT] for at in range(row % 4)] for row in range(COUNT)]
DAY = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)

QUICK: dict[str, pa.Array] = {
    "int64": pa.array(range(COUNT)),
    "int8": pa.array([row - 50 for row in range(COUNT)], pa.int8()),
    "uint16": pa.array(LATE, pa.uint16()),
    "float32": pa.array([row / 7 for row in range(COUNT)], pa.float32()),
    "float16": pa.array([row / 8 for row in range(COUNT)], pa.float16()),
    "double": pa.array([None if row % 2 else row / 3 for row in range(COUNT)]),
    "flag": pa.array([row % 5 < 2 for row in range(COUNT)]),
    "flag or none": pa.array([None if row % 4 == 1 else row % 5 < 2 for row in range(COUNT)]),
    "text": pa.array(TEXTS),
    "text or none": pa.array(HOLES),
    "large text": pa.array(HOLES, pa.large_string()),
    "bytes": pa.array([text and text.encode() for text in HOLES]),
    "nothing but nulls": pa.array([None] * COUNT, pa.string()),
    "moment": pa.array([DAY + datetime.timedelta(seconds=row) for row in range(COUNT)], pa.timestamp("ms", "UTC")),
    "date": pa.array([DAY.date() + datetime.timedelta(days=row) for row in range(COUNT)]),
    "tags": pa.array(LISTS, pa.list_(pa.string())),
    "large tags": pa.array(LISTS, pa.large_list(pa.string())),
    "numbers": pa.array([[row] * (row % 3) for row in range(COUNT)], pa.list_(pa.int32())),
    "lists of lists": pa.array([one and [one, []] for one in LISTS], pa.list_(pa.list_(pa.string()))),
    "struct": pa.array([{"a": text, "b": row} if row % 5 else None for row, text in enumerate(HOLES)]),
    "struct of tags": pa.array([{"tags": tags} for tags in LISTS]),
    "lists of structs": pa.array([[{"a": row}] * (row % 3) for row in range(COUNT)]),
    "struct of nothing": pa.array([{} if row % 2 else None for row in range(COUNT)], pa.struct([])),
    "empty lists": pa.array([[]] * COUNT, pa.list_(pa.bool_())),
}
OTHER: dict[str, pa.Array] = {
    "struct of a map": pa.array([{"a": [("k", 1)]}] * COUNT, pa.struct([("a", pa.map_(pa.string(), pa.int64()))])),
    "map": pa.array([[("k", text or "")] for text in HOLES], pa.map_(pa.string(), pa.string())),
    "pair": pa.array([[row, row + 1] for row in range(COUNT)], pa.list_(pa.int64(), 2)),
    "dictionary": pa.array(HOLES).dictionary_encode(),
    "view": pa.array(HOLES, pa.string_view()),
    "null": pa.nulls(COUNT),
    "fixed bytes": pa.array([b"abc"] * COUNT, pa.binary(3)),
}


def written(path: Path, column: pa.Array, batch_rows: int, name: str = "x") -> Path:
    table = pa.table({name: column})
    with RowWriter(path, table.schema, batch_rows) as writer:
        writer.write(table)
    return path


@pytest.mark.parametrize("batch_rows", [1, 7, 64, COUNT])
@pytest.mark.parametrize("name", [*QUICK, *OTHER])
def test_any_rows_of_any_column(tmp_path: Path, name: str, batch_rows: int) -> None:
    column = (QUICK | OTHER)[name]
    file = RowFile(written(tmp_path / "rows.arrow", column, batch_rows))
    assert (file.column("x") is not None) == (name in QUICK), "read with an object of Arrow's for each row"
    rng = np.random.default_rng(1)
    for rows in (rng.integers(0, COUNT, 3), rng.integers(0, COUNT, 60), np.arange(COUNT)[::-1], np.zeros(0, np.int64)):
        wanted = json_values(column)
        assert file.values(rows, "x") == [wanted[row] for row in rows.tolist()]
        held = sizes(column, rows, rows + 1).sum() + len(rows) * len("x") + 6 * len(rows) if len(rows) else 0
        exact = name not in ("dictionary", "view")  # of these it is what the batch holds
        assert not exact or file.nbytes(rows) == held


@pytest.mark.parametrize("batch_rows", [7, COUNT])
def test_ids_are_the_same_in_every_form(tmp_path: Path, batch_rows: int) -> None:
    numbers = Ids(written(tmp_path / "numbers.arrow", pa.array([row - 50 for row in range(COUNT)]), batch_rows, "id"))
    texts = Ids(written(tmp_path / "texts.arrow", pa.array(TEXTS), batch_rows, "id"))
    assert isinstance(numbers._integers, ScatteredNumbers)
    assert isinstance(texts._strings, ScatteredTexts)
    for rows in (np.array([102, 0, 51, 51, 6, 7]), np.arange(COUNT)[::-1]):
        assert numbers(rows) == numbers.raw(rows).numbers.tolist() == [row - 50 for row in rows.tolist()]
        assert texts(rows) == [TEXTS[row] for row in rows.tolist()]
        raw, at = texts.raw(rows), 0
        for length, row in zip(raw.numbers.tolist(), rows.tolist(), strict=True):
            assert raw.text[at : at + length].decode() == TEXTS[row]
            at += length
        assert raw.text_of(0, len(rows)) == raw.text


def test_text_that_takes_much_memory_is_cut_out_piece_by_piece(tmp_path: Path) -> None:
    long = ["x" * 50_000 if row % 2 else "y" for row in range(COUNT)]
    file = RowFile(written(tmp_path / "rows.arrow", pa.array(long), 7))
    rows = np.arange(COUNT)[::-1]
    assert file.values(rows, "x") == long[::-1]


def test_what_lies_elsewhere_is_left_to_arrow() -> None:
    """Buffers outside of the mapping, at odd places in it, or arrays that begin later."""
    data = pa.py_buffer(bytes(range(64)))
    aligned = pa.Array.from_buffers(pa.int64(), 2, [None, data.slice(8, 16)])
    found = scattered(data, [aligned])
    assert found is not None
    assert found.take(0, np.array([1, 0])).to_pylist() == aligned.to_pylist()[::-1]
    assert scattered(data, [pa.Array.from_buffers(pa.int64(), 2, [None, data.slice(12, 16)])]) is None
    assert scattered(data, [aligned, pa.array([1, 2])]) is None
    assert scattered(data, [aligned.slice(1)]) is None
