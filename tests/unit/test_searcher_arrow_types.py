"""Every type of Arrow as id, as vector and as metadata, through a real file: the table of docs/sources.md.

After an intended change: UPDATE_GOLDENS=1 pytest tests/unit/test_searcher_arrow_types.py, then read the diff.
"""

from __future__ import annotations

import datetime
import decimal
import json
import os
import urllib.request
import uuid
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from searcher_process import started

from vectorindex_searcher.cli.main import main
from vectorindex_searcher.contract import Columns, Embedding, Identity, Location, Metric, ServeTask
from vectorindex_searcher.dataset.listing import list_source
from vectorindex_searcher.dataset.source import Source, open_source
from vectorindex_searcher.dataset.stage import stage
from vectorindex_searcher.errors import BadData
from vectorindex_searcher.index.filters import type_name
from vectorindex_searcher.index.json_values import json_values
from vectorindex_searcher.index.rows import Ids, RowFile
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

PAGE = Path(__file__).parents[2] / "docs" / "sources.md"
BEGIN, END = "<!-- types: written by tests/unit/test_searcher_arrow_types.py -->\n", "<!-- types: end -->"
NEVER = "no"
MOMENT = datetime.datetime(2024, 1, 1, 12, 30)
NANOSECOND = 1704067200_000000001


def one(value: Any, kind: pa.DataType) -> pa.Array:
    return pa.array([value], kind)


def tensor() -> pa.Array:
    storage = pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), (2,)), storage)


def union() -> pa.Array:
    return pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1]), pa.array(["a"])])


def small(*kinds: pa.DataType, value: Any = 7) -> list[pa.Array]:
    return [one(value, kind) for kind in kinds]


INTEGERS = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
EXAMPLES: dict[str, list[pa.Array]] = {
    "int8 to int64, uint8 to uint64": small(*INTEGERS),
    "float16": [pa.array(np.array([1.5], np.float16))],
    "float32, float64": small(pa.float32(), pa.float64(), value=7.0),
    "decimal, whole (`DECIMAL(38,0)`)": [
        one(decimal.Decimal(7), kind)
        for kind in (pa.decimal32(9), pa.decimal64(9), pa.decimal128(38), pa.decimal256(76))
    ],
    "decimal with a fraction": [
        one(decimal.Decimal("7.50"), kind)
        for kind in (pa.decimal32(9, 2), pa.decimal64(9, 2), pa.decimal128(9, 2), pa.decimal256(76, 2))
    ],
    "bool": [one(True, pa.bool_()), pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8()))],
    "string, large, view": small(pa.string(), pa.large_string(), pa.string_view(), value="doc 7"),
    "binary, large, view, that is text": small(pa.binary(), pa.large_binary(), pa.binary_view(), value=b"doc 7"),
    "binary that is no text": small(pa.binary(), value=b"\xff\x00"),
    "fixed-size binary": small(pa.binary(2), value=b"\xff\x00"),
    "UUID": [one(uuid.UUID(int=7).bytes, pa.uuid())],
    "JSON": [pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":1}']))],
    "date32, date64": small(pa.date32(), pa.date64(), value=MOMENT.date()),
    "timestamp, s to us": [one(MOMENT, pa.timestamp(unit)) for unit in ("s", "ms", "us")],
    "timestamp, ns": [one(NANOSECOND, pa.timestamp("ns"))],
    "timestamp with a time zone": [
        one(MOMENT, pa.timestamp("us", zone)) for zone in ("UTC", "Europe/Berlin", "+02:00")
    ],
    "time32, time64": small(pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"), value=MOMENT.time()),
    "duration": [one(datetime.timedelta(days=1, seconds=90), pa.duration(unit)) for unit in ("s", "ms", "us", "ns")],
    "interval": [one((1, 2, 3), pa.month_day_nano_interval())],
    "null": [pa.nulls(1)],
    "dictionary of text": [pa.array(["doc 7"]).dictionary_encode()],
    "dictionary of numbers": [pa.array([7]).dictionary_encode()],
    "runs of text": [pa.RunEndEncodedArray.from_arrays([1], ["doc 7"])],
    "list, large, fixed-size, view, of numbers": [
        one([1, 2], kind) for kind in (pa.list_(pa.int64()), pa.large_list(pa.int64()), pa.list_(pa.int64(), 2),
                                       pa.list_view(pa.int64()), pa.large_list_view(pa.int64()))
    ],
    "list of text": [one(["a"], pa.list_(kind)) for kind in (pa.string(), pa.large_string())],
    "list of booleans": [one([True], pa.list_(pa.bool_()))],
    "list of lists": [one([[1.5]], pa.list_(pa.list_(pa.float64())))],
    "tensor of fixed shape": [tensor()],
    "struct": [one({"a": 1, "b": b"x"}, pa.struct([("a", pa.int32()), ("b", pa.binary())]))],
    "map": [one([("a", 1)], pa.map_(pa.string(), pa.int32()))],
    "union": [union()],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a column; `remedies`: by role, where it is refused."""

    id: str
    vector: str
    metadata: str
    filtered: str
    json: str
    remedies: tuple[tuple[str, str], ...]


def read(folder: Path, table: pa.Table, **columns: Any) -> tuple[Source, Path]:
    """The staged source. Raises BadData."""
    for name in ("in", "out"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "in" / "a.parquet")
    store = FolderStore(folder / "in", Role.SOURCE)
    source = open_source(store, list_source(store), Columns(**columns), Embedding(metric=Metric.L2))
    stage(source, folder / "out")
    return source, folder / "out"


def outcome(folder: Path, column: pa.Array) -> Outcome | None:
    """None for a type that Parquet cannot hold."""
    try:
        pq.write_table(pa.table({"x": column}), pa.BufferOutputStream())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError):
        return None
    remedies: dict[str, str] = {}

    def attempt(role: str, table: pa.Table, **columns: Any) -> tuple[Source, Path] | None:
        try:
            return read(folder / role, table, **columns)
        except BadData as refused:
            remedies[role] = refused.failure.remedy or "none"
            return None

    found = attempt("id", pa.table({"id": column, "vector": [[1.0]]}))
    as_id = NEVER if found is None else type(Ids(found[1] / "ids.arrow")(np.array([0]))[0]).__name__
    as_vector = NEVER
    if attempt("vector", pa.table({"id": [1], "vector": column})) is not None:
        as_vector = "yes"
    elif any(family(column.type) for family in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)):
        numbers = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), column)
        as_vector = "lists of it" if attempt("vector", pa.table({"id": [1], "vector": numbers})) else NEVER
    if as_vector != NEVER:
        remedies.pop("vector", None)
    kept = attempt("metadata", pa.table({"id": [1], "vector": [[1.0]], "x": column}), metadata=("x",))
    if kept is None:
        return Outcome(as_id, as_vector, NEVER, "", "", tuple(sorted(remedies.items())))
    file = RowFile(kept[1] / "metadata.arrow")
    kind = file.schema.field("x").type
    text = orjson.dumps(file.values(np.array([0]), "x")[0]).decode()
    filtered = type_name(kind)
    return Outcome(as_id, as_vector, str(kind), filtered, text, tuple(sorted(remedies.items())))


def rows_of_table(folder: Path) -> tuple[list[list[str]], dict[tuple[str, str], list[str]]]:
    """The rows of the table; and by role and remedy, the types that are refused so."""
    rows, refused = [], defaultdict(list)
    for name, columns in EXAMPLES.items():
        found = [outcome(folder / f"{name[:8]}-{number}", column) for number, column in enumerate(columns)]
        first = found[0]
        facts = {None if one is None else (one.id, one.vector, one.filtered, one.json, one.remedies) for one in found}
        assert len(facts) == 1, f"{name}: {found}"
        if first is None:
            rows.append([name, "Parquet has none", "", "", ""])
            continue
        id_kind = {"int": "integer", "str": "text"}.get(first.id, first.id)
        filtered = {"other": "no", "": "", "null": "no"}.get(first.filtered, first.filtered)
        answered = f"`{first.json}`" if first.json else NEVER
        rows.append([name, id_kind, first.vector, answered, filtered])
        for role, remedy in first.remedies:
            assert remedy != "none", (name, role)
            refused[role, remedy].append(name)
    return rows, refused


def page(folder: Path) -> str:
    rows, refused = rows_of_table(folder)
    head = ["type in the file", "as id", "as vector", "as metadata, in JSON", "in filters"]
    lines = [head, ["---"] * len(head), *rows]
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    remedies = "".join(
        f"| {role} | {'; '.join(names)} | {remedy} |\n" for (role, remedy), names in sorted(refused.items())
    )
    return f"{table}\n| refused as | types | remedy that the refusal names |\n|---|---|---|\n{remedies}"


def test_the_table_of_the_documentation_is_what_happens(tmp_path: Path) -> None:
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    inside, _, after = rest.partition(END)
    made = page(tmp_path)
    if os.environ.get("UPDATE_GOLDENS"):
        PAGE.write_text(f"{before}{BEGIN}{made}{END}{after}")
        inside = made
    assert inside == made


def test_the_table_has_every_type_of_arrow() -> None:
    """A type that a later Arrow brings must be given a place."""
    there = {column.type.id for columns in EXAMPLES.values() for column in columns}
    names = {name: value for name, value in vars(pa.lib).items() if name.startswith("Type_") and isinstance(value, int)}
    never = {"Type_INTERVAL_MONTHS", "Type_INTERVAL_DAY_TIME"}  # pyarrow cannot make them
    missing = {name for name, value in names.items() if value not in there} - never
    assert not missing - {"Type_DENSE_UNION"}


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_an_index_that_was_built_before_answers_any_type(name: str) -> None:
    """Whatever type an earlier release kept, no hit may be a 500; and nulls are null."""
    for column in EXAMPLES[name]:
        doubled = pa.concat_arrays([column, pa.nulls(1, column.type)]) if name != "union" else column
        text = orjson.dumps(json_values(doubled)).decode()
        values = json.loads(text)
        assert len(values) == len(doubled)
        assert name == "union" or values[-1] is None
        assert not any(word in text for word in ("b'", "datetime", "Decimal", "UUID("))


# ---------------------------------------------------------------- through a searcher

COUNT = 40


def columns() -> dict[str, pa.Array]:
    """An example of each kind that Parquet can hold, and a null after it; at most 32, as many as an index keeps."""
    found = {}
    for name, (example, *_) in EXAMPLES.items():
        column = pa.concat_arrays([example, pa.nulls(1, example.type)] * (COUNT // 2)) if name != "union" else example
        try:
            pq.write_table(pa.table({"x": column}), pa.BufferOutputStream())
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError):
            continue
        found[f"c{len(found)}"] = column
    return found


def test_every_type_is_answered_by_a_searcher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No hit is a fault, no word is Python's."""
    vectors = np.random.default_rng(0).standard_normal((COUNT, 4)).astype(np.float32)
    given = columns()
    assert 25 <= len(given) <= 32
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"id": range(COUNT), "vector": vectors.tolist(), **given}), tmp_path / "in" / "a.parquet")
    words = ["--source", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--factory", "Flat", "--metric", "L2"]
    assert main(["build", *words, "--metadata", *given]) == 0
    built = json.loads(capsys.readouterr().out)
    name = next((tmp_path / "out" / "local").iterdir()).name
    task = ServeTask(
        identity=Identity(name=name),
        revision=built["digest"],
        digest=built["digest"],
        manifest_sha256=built["manifestSha256"],
        artifacts=Location(folder=str(tmp_path / "out")),
        cache_dir=str(tmp_path / "cache"),
    )
    with started(task) as searcher:
        body = {"vector": vectors[0].tolist(), "k": COUNT, "include": ["metadata"]}
        request = urllib.request.Request(
            f"http://127.0.0.1:{searcher.port()}/v1/search",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read().decode()
    (result,) = json.loads(text)["results"]
    assert result["ids"][0] == 0
    for row, values in zip(result["ids"], result["metadata"], strict=True):
        assert list(values) == list(given)
        assert row % 2 == 0 or set(values.values()) == {None}
    assert not any(word in text for word in ("b'", "datetime", "Decimal", "UUID(", "NaT", "array("))
