"""JSON lines: an object a line, `{"id": 7, "vector": [0.1, ...], "section": "web"}`; optionally gzip or zstd.

Parsed in blocks by Arrow against a schema: no Python object is made of a number. The first lines give the types; every
later line must fit them. Rows are lines, counted from 0.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from ..contract import Columns
from ..errors import BadData, BadSpec, TaskError
from ..storage.store import Store
from .blocks import MAX_DIMENSION, ROWS_PER_BYTE, Block, Header, block_rows, check_claims, vectors_of
from .objects import ListedObject
from .ranged import RangedFile
from .reader import Format

CHUNK_BYTES = 4 << 20
"""Bytes fetched, and bytes of text taken, at a time."""
MAX_LINE_BYTES = 4 << 20
"""The longest vectors take about 1.5 MiB as text."""
TYPED_LINES = 1000
"""The types of ids and metadata are those of the first lines."""
_CODECS = {".gz": "gzip", ".zst": "zstd"}


def _refusal(item: ListedObject, row: int | None, reason: str, what: str, remedy: str) -> BadData:
    where = item.key if row is None else f"{item.key} row {row}"
    return BadData(reason, f"{where} {what}", object=item.key, row=row, remedy=remedy)


@contextlib.contextmanager
def _opened(store: Store, item: ListedObject) -> Iterator[pa.NativeFile]:
    """The text as a stream. A broken compression becomes BadData/CorruptFile; the store's failures pass through."""
    file = RangedFile(store, item)
    try:
        stream = pa.BufferedInputStream(pa.PythonFile(file, mode="r"), CHUNK_BYTES)
        codec = _CODECS.get(item.key[item.key.rindex(".") :].lower())
        yield pa.CompressedInputStream(stream, codec) if codec else stream
    except TaskError:
        raise
    except (pa.ArrowException, OSError, EOFError) as error:
        if file.error is not None:
            raise file.error from error
        what = f"cannot be decompressed: {' '.join(str(error).split())[:200]}"
        raise _refusal(item, None, "CorruptFile", what, "Write the object again.") from error


def _pieces(store: Store, item: ListedObject) -> Iterator[bytes]:
    """Complete lines, about CHUNK_BYTES of them at a time, the last one without its line end.

    White space at the end of the object is dropped. Raises BadData for a line that is too long.
    """
    row, rest = 0, b""
    with _opened(store, item) as stream:
        while data := stream.read(CHUNK_BYTES):
            data = rest + data
            # White space stays behind until something follows it.
            end = data.rfind(b"\n", 0, len(data.rstrip()))
            if end < 0 and len(data) > MAX_LINE_BYTES:
                what = f"is longer than {MAX_LINE_BYTES} bytes"
                raise _refusal(item, row, "CorruptFile", what, "Write one object a line.")
            if end >= 0:
                yield data[:end]
                row += data.count(b"\n", 0, end + 1)
            rest = data[end + 1 :]
    if rest := rest.rstrip():
        yield rest


def _lines(piece: bytes) -> int:
    return piece.count(b"\n") + 1


def _count(store: Store, item: ListedObject) -> int:
    """Lines of the whole object. Raises BadData for more of them than the object's size can hold."""
    rows = 0
    for piece in _pieces(store, item):
        rows += _lines(piece)
        if rows > item.size * ROWS_PER_BYTE:
            raise _refusal(item, rows, "CorruptFile", f"comes out of {item.size} bytes", "Write the object again.")
    return rows


def _first(store: Store, item: ListedObject, limit: int) -> list[dict[str, object]]:
    """The first lines as Python objects. Raises BadData for a line that is no object."""
    found: list[dict[str, object]] = []
    for piece in _pieces(store, item):
        for line in piece.split(b"\n")[:limit]:
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                if found:
                    break  # it is named when its block is read
                raise _refusal(item, 0, "CorruptFile", f"is no JSON: {error}", "Write one object a line.") from error
            if not isinstance(value, dict):
                raise _refusal(item, len(found), "CorruptFile", "is no JSON object", "Write one object a line.")
            found.append(value)
        break
    return found


def _type_of(item: ListedObject, name: str, values: Sequence[object]) -> pa.DataType:
    """The Arrow type of a column by its first values; string when all are null. Raises BadData/BadColumnType."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and float in kinds:
        return pa.float64()
    if kinds <= {list} and kinds:
        inner = [element for value in values if isinstance(value, list) for element in value]
        if list not in {type(element) for element in inner}:
            return pa.list_(_type_of(item, name, inner))
    simple = {int: pa.int64(), str: pa.string(), bool: pa.bool_()}
    if len(kinds) <= 1 and kinds <= set(simple):
        return simple[kinds.pop()] if kinds else pa.string()
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    what = f"field {name!r} holds {names}; expected strings, numbers, booleans or lists of one of them"
    raise _refusal(item, None, "BadColumnType", what, "Give the field one simple type in all lines.")


def _require(item: ListedObject, row: dict[str, object], name: str, field: str) -> None:
    if name not in row:
        raise BadSpec(
            "UnknownColumn",
            f"{item.key}: the first line has no field {name!r}; its fields are {', '.join(list(row)[:50])}",
            object=item.key,
            field=field,
            remedy="Name one of the existing fields.",
        )


def read_header(store: Store, item: ListedObject, columns: Columns) -> Header | None:
    """Types and dimension from the first lines; the rows are counted unless the listing has them.

    None for an object without lines. Raises BadSpec/UnknownColumn, BadData.
    """
    first = _first(store, item, TYPED_LINES)
    if not first:
        return None
    for name, field in ((columns.id, "id"), (columns.vector, "vector")):
        _require(item, first[0], name, f"spec.source.columns.{field}")
    for name in columns.metadata:
        if not any(name in row for row in first):
            _require(item, first[0], name, "spec.source.columns.metadata")
    vector, identifier = first[0][columns.vector], first[0][columns.id]
    if not isinstance(vector, list) or not all(isinstance(value, int | float) for value in vector[:MAX_DIMENSION]):
        what = f"field {columns.vector!r} is no list of numbers"
        raise _refusal(item, 0, "BadVectorType", what, "Write vectors as lists of numbers.")
    id_type = _id_type(item, columns.id, identifier)
    rows = _count(store, item) if item.rows is None else item.rows
    check_claims(item, rows, len(vector))
    metadata = [pa.field(name, _type_of(item, name, [row.get(name) for row in first])) for name in columns.metadata]
    return Header(rows, len(vector), False, id_type, pa.schema(metadata))


def _parse(data: bytes, schema: pa.Schema) -> pa.Table | str:
    """The table of some lines, or what is wrong with one of them."""
    try:
        table = pj.read_json(
            pa.BufferReader(data),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
        if table.num_rows != _lines(data):
            return "is not one JSON object"
        for name in schema.names:
            table.column(name).validate(full=True)  # strings are UTF-8
    except (pa.ArrowException, ValueError) as error:
        return " ".join(str(error).split()).removesuffix(" in row 0")[:200]
    return table


def _table(item: ListedObject, data: bytes, schema: pa.Schema, first_row: int) -> pa.RecordBatch:
    """Lines as one batch. Raises BadData naming the first line that does not fit."""
    table = _parse(data, schema)
    if isinstance(table, pa.Table):
        batch: pa.RecordBatch = table.combine_chunks().to_batches()[0]
        return batch
    lines = data.split(b"\n")
    while len(lines) > 1:
        half = len(lines) // 2
        why = _parse(b"\n".join(lines[:half]), schema)
        if isinstance(why, str):
            lines, table = lines[:half], why
        else:
            lines, first_row = lines[half:], first_row + half
            table = _parse(b"\n".join(lines), schema)
    why = table if isinstance(table, str) else "cannot be read beside its neighbours"
    if not lines[0].strip():
        why = "is blank"
    raise _refusal(item, first_row, "BadLine", why, "Write one object a line, each field with one type.")


def _batches(store: Store, item: ListedObject, schema: pa.Schema, rows: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(first row, batch) of at most `rows` rows over the whole object."""
    done = 0
    for piece in _pieces(store, item):
        batch = _table(item, piece, schema, done)
        for start in range(0, batch.num_rows, rows):
            yield done + start, batch.slice(start, rows)
        done += batch.num_rows


def read_blocks(store: Store, item: ListedObject, columns: Columns, header: Header) -> Iterator[Block]:
    """The rows of an object in order. Raises BadData naming object and row, SourceChanged."""
    fields = {columns.vector: pa.list_(pa.float32()), columns.id: header.id_type}
    schema = pa.schema({field.name: field.type for field in header.metadata} | fields)
    done = 0
    for first, batch in _batches(store, item, schema, block_rows(header.dimension)):
        vectors = vectors_of(batch.column(columns.vector), item.key, first, header.dimension)
        ids = _without_null(item, batch.column(columns.id), first)
        arrays = [batch.column(field.name).cast(field.type) for field in header.metadata]
        yield Block(item.key, first, vectors, ids, pa.Table.from_arrays(arrays, schema=header.metadata))
        done = first + batch.num_rows
    if done != header.rows:
        raise _refusal(item, None, "CorruptFile", f"holds {done} lines, {header.rows} were counted", "List it again.")


def read_columns(store: Store, item: ListedObject, names: Sequence[str], field: str) -> Iterator[pa.RecordBatch]:
    """Record batches of some fields (gate queries), the first one being the vector."""
    first = _first(store, item, TYPED_LINES)
    for name in names if first else ():
        if not any(name in row for row in first):
            _require(item, first[0], name, field)
    types = {name: _type_of(item, name, [row.get(name) for row in first]) for name in names[1:]}
    for _, batch in _batches(store, item, pa.schema(types | {names[0]: pa.list_(pa.float32())}), 1024):
        yield batch.select(list(names))


def read_ids(store: Store, item: ListedObject, name: str) -> Iterator[pa.Array]:
    """The ids of an object in order, int64 or string, as the first line has them. Raises as `read_blocks`."""
    first = _first(store, item, 1)
    if not first:
        return
    _require(item, first[0], name, "spec.source.columns.id")
    for row, batch in _batches(store, item, pa.schema({name: _id_type(item, name, first[0][name])}), 1 << 16):
        yield _without_null(item, batch.column(0), row)


def _id_type(item: ListedObject, name: str, value: object) -> pa.DataType:
    if isinstance(value, bool) or not isinstance(value, int | str):
        what = f"field {name!r} is {value!r:.40}, expected an integer or a string"
        raise _refusal(item, 0, "BadIdType", what, "Give every row an id.")
    return pa.string() if isinstance(value, str) else pa.int64()


def _without_null(item: ListedObject, ids: pa.Array, first_row: int) -> pa.Array:
    if ids.null_count:
        row = first_row + pc.index(ids.is_null(), True).as_py()
        raise _refusal(item, row, "NullId", "has no id", "Give every row an id.")
    return ids


FORMAT = Format(
    name="JSON lines",
    suffixes=tuple(base + end for base in (".jsonl", ".ndjson") for end in ("", ".gz", ".zst")),
    header=read_header,
    blocks=read_blocks,
    columns=read_columns,
    ids=read_ids,
    counted=True,
)
