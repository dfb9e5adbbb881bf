"""JSON lines: an object a line, `{"id": 7, "vector": [0.1, ...], "section": "web"}`; optionally gzip or zstd.

Parsed in blocks by Arrow against a schema: no Python object is made of a number. The first lines give the types; a
metadata field that may still become another (absent so far, or whole numbers) is looked for in all lines. Every line
must fit what is found. Rows are lines, counted from 0.
"""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import Iterator, Sequence

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from ..contract import Columns
from ..errors import BadData, BadSpec, TaskError
from ..storage.store import Store
from .blocks import (
    MAX_DIMENSION,
    ROWS_PER_BYTE,
    Block,
    Header,
    block_rows,
    check_claims,
    no_vectors,
    texts_of,
    vectors_of,
)
from .column_types import common_type
from .jsonl_types import WORDS, Seen, fields_of, settled
from .names import listed, partition_values, shown
from .objects import ListedObject
from .ranged import RangedFile
from .reader import Format

CHUNK_BYTES = 4 << 20
"""Bytes fetched, and bytes of text taken, at a time."""
MAX_LINE_BYTES = 4 << 20
"""The longest vectors take about 1.5 MiB as text."""
TYPED_LINES = 1000
"""The types of ids and metadata are those of the first lines, where those settle them."""
TYPED_BYTES = 4 << 20
"""Of the first lines, about: long ones settle the types sooner, in fewer lines."""
_MARK = b"\xef\xbb\xbf"
"""What Windows programs begin a text in UTF-8 with."""
_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
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
    row, rest, begun = 0, b"", False
    with _opened(store, item) as stream:
        while data := stream.read(CHUNK_BYTES):
            if not begun and data.startswith(_WIDE_MARKS):
                raise _refusal(item, 0, "CorruptFile", "is UTF-16", "Write the text as UTF-8.")
            data = rest + (data if begun else data.removeprefix(_MARK))
            begun = True
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


def _count(store: Store, item: ListedObject, types: _Types) -> int:
    """Lines of the whole object, each shown to `types`. Raises BadData for more than the object's size can hold."""
    rows = 0
    for piece in _pieces(store, item):
        types.see(piece)
        rows += _lines(piece)
        if rows > item.size * ROWS_PER_BYTE:
            raise _refusal(item, rows, "CorruptFile", f"comes out of {item.size} bytes", "Write the object again.")
    return rows


def _first(store: Store, item: ListedObject, names: Sequence[str], limit: int, kept: Sequence[str] = ()) -> Seen | None:
    """The first lines; `names` are looked at in all of them, `kept` in the first. None: no lines. Raises BadData."""
    first, seen, taken = Seen(), 0, 0
    for piece in _pieces(store, item):
        start = 0
        while seen < limit and taken < TYPED_BYTES and start <= len(piece):
            end = piece.find(b"\n", start)
            line = piece[start:] if end < 0 else piece[start:end]
            row = fields_of(line)
            if isinstance(row, str):
                if seen and not row.startswith(("has", "is no JSON object")):
                    return first  # it is named when its block is read
                raise _refusal(item, seen, "CorruptFile", row, "Write one object a line.")
            if not seen:
                wanted = (*kept, *names)
                first.row = {
                    key: value if key in wanted or isinstance(value, int | float | str) else None
                    for key, value in row.items()
                }
            first.see(row, names)
            seen, taken, start = seen + 1, taken + len(line), start + len(line) + 1
        if seen >= limit or taken >= TYPED_BYTES:
            break
    return first if seen else None


class _Types:
    """The types of metadata fields, as far as lines have shown them."""

    def __init__(self, item: ListedObject, names: Sequence[str], first: Seen) -> None:
        """Raises BadData/BadColumnType for a field that has no type in the first lines."""
        self.known: dict[str, pa.DataType] = {}
        for name in names:
            kind = first.kinds.get(name, pa.null())
            if kind is None:
                words = ", ".join(sorted({WORDS[one] for one in first.types[name] if one in WORDS}))
                what = f"field {shown(name)} holds {words}; expected strings, numbers, booleans or lists of one of them"
                raise _refusal(item, None, "BadColumnType", what, "Give the field one simple type in all lines.")
            self.known[name] = kind
        self._open = [name for name, kind in self.known.items() if not settled(kind)]

    @property
    def settled(self) -> bool:
        return not self._open

    def see(self, piece: bytes) -> None:
        """Widen the types by some lines. What cannot be joined, or read, is left to whoever reads the rows."""
        if not self._open or isinstance(_parse(piece, self._schema()), pa.Table):
            return
        found = Seen()
        for line in piece.split(b"\n"):
            row = fields_of(line)  # one at a time: together they take thirty times the text
            if isinstance(row, str):
                break
            found.see(row, self._open)
        for name, kind in found.kinds.items():
            wider = None if kind is None else common_type(self.known[name], kind)
            self.known[name] = self.known[name] if wider is None else wider
        stuck = not isinstance(_parse(piece, self._schema()), pa.Table)
        self._open = [] if stuck else [name for name in self._open if not settled(self.known[name])]

    def _schema(self) -> pa.Schema:
        return pa.schema([(name, self.known[name]) for name in self._open])


def _require(item: ListedObject, row: dict[str, object], name: str, field: str) -> None:
    if name not in row:
        raise BadSpec(
            "UnknownColumn",
            f"{item.key}: the first line has no field {shown(name)}; its fields are {listed(row)}",
            object=item.key,
            field=field,
            remedy="Name one of the existing fields.",
        )


def read_header(store: Store, item: ListedObject, columns: Columns) -> Header | None:
    """Types and dimension from the first lines; the rows are counted unless the listing has them.

    None for an object without lines. Raises BadSpec/UnknownColumn, BadData.
    """
    first = _first(store, item, columns.metadata, TYPED_LINES, (columns.vector, columns.id))
    if first is None:
        return None
    dimension = _dimension(item, columns, first.row)
    id_type = _own_ids(item, columns, first.row)
    types = _Types(item, columns.metadata, first)
    rows = item.rows
    if rows is None or not types.settled:
        rows = _count(store, item, types)
    check_claims(item, rows, dimension or 1)
    metadata = pa.schema([(name, _field_type(item, name, types.known[name], first)) for name in columns.metadata])
    return Header(rows, dimension, False, id_type, metadata)


def _dimension(item: ListedObject, columns: Columns, row: dict[str, object]) -> int:
    """Numbers of the first vector; 0 where rows have texts, or nothing. Raises BadSpec/UnknownColumn, BadData."""
    if columns.text is not None:
        _require(item, row, columns.text, "spec.source.columns.text")
        if not isinstance(row[columns.text], str):
            what = f"field {shown(columns.text)} is no string"
            raise _refusal(item, 0, "BadTextType", what, "Write texts as strings; null is none.")
        return 0
    if columns.bare:
        return 0
    _require(item, row, columns.vector, "spec.source.columns.vector")
    vector = row[columns.vector]
    if not isinstance(vector, list) or not all(isinstance(value, int | float) for value in vector[:MAX_DIMENSION]):
        what = f"field {shown(columns.vector)} is no list of numbers"
        raise _refusal(item, 0, "BadVectorType", what, "Write vectors as lists of numbers.")
    return len(vector)


def _own_ids(item: ListedObject, columns: Columns, row: dict[str, object]) -> pa.DataType | None:
    """The type of ids; None where the lines hold nothing that could be one: their ids are row numbers."""
    if columns.id == Columns().id and columns.id not in row:
        others = (value for name, value in row.items() if name not in (columns.vector, columns.text))
        if not any(isinstance(value, int | str) and not isinstance(value, bool) for value in others):
            return None
    _require(item, row, columns.id, "spec.source.columns.id")
    return _id_type(item, columns.id, row[columns.id])


def _field_type(item: ListedObject, name: str, kind: pa.DataType, first: Seen) -> pa.DataType:
    """The type of a field of the lines or, where no line has it, of the object's folders."""
    if not pa.types.is_null(kind) or name in first.kinds:
        return kind
    if name not in partition_values(item.key):
        _require(item, first.row, name, "spec.source.columns.metadata")
    return pa.string()


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
    fields = {columns.text: pa.string()} if columns.text is not None else {}
    if columns.text is None and not columns.bare:
        fields[columns.vector] = pa.list_(pa.float32())
    if header.id_type is not None:
        fields[columns.id] = header.id_type
    schema = pa.schema({field.name: field.type for field in header.metadata} | fields)
    done = 0
    for first, batch in _batches(store, item, schema, block_rows(header.dimension)):
        texts = None
        if columns.text is not None:
            vectors, texts = texts_of(batch.column(columns.text), item.key, first)
        elif columns.bare:
            vectors = no_vectors(batch.num_rows)
        else:
            vectors = vectors_of(batch.column(columns.vector), item.key, first, header.dimension)
        ids = None if header.id_type is None else _without_null(item, batch.column(columns.id), first)
        yield Block(item.key, first, vectors, ids, _metadata(batch, item.key, columns.metadata), texts)
        done = first + batch.num_rows
    if done != header.rows:
        raise _refusal(item, None, "CorruptFile", f"holds {done} lines, {header.rows} were counted", "List it again.")


def _metadata(batch: pa.RecordBatch, key: str, names: Sequence[str]) -> pa.Table:
    """The fields as the lines have them; text that a line lacks may be named by the folders."""
    folders = partition_values(key)
    found = {name: batch.column(name) for name in names}
    for name, column in found.items():
        if folders.get(name) is not None and pa.types.is_string(column.type):
            found[name] = pc.fill_null(column, folders[name])
    return pa.table(found)


def read_columns(store: Store, item: ListedObject, names: Sequence[str], field: str) -> Iterator[pa.RecordBatch]:
    """Record batches of some fields (gate queries), the first one being the vector."""
    first = _first(store, item, names, TYPED_LINES)
    if first is None:
        return
    for name in names:
        if name not in first.kinds:
            _require(item, first.row, name, field)
    types = _Types(item, names[1:], first)
    if not types.settled:
        _count(store, item, types)
    for _, batch in _batches(store, item, pa.schema(types.known | {names[0]: pa.list_(pa.float32())}), 1024):
        yield batch.select(list(names))


def read_ids(store: Store, item: ListedObject, name: str) -> Iterator[pa.Array]:
    """The ids of an object in order, int64 or string, as the first line has them. Raises as `read_blocks`."""
    first = _first(store, item, [name], 1)
    if first is None:
        return
    _require(item, first.row, name, "spec.source.columns.id")
    for row, batch in _batches(store, item, pa.schema({name: _id_type(item, name, first.row[name])}), 1 << 16):
        yield _without_null(item, batch.column(0), row)


def _id_type(item: ListedObject, name: str, value: object) -> pa.DataType:
    if isinstance(value, bool) or not isinstance(value, int | str):
        told = shown(orjson.dumps(value).decode(), 40, quoted=False)
        what = f"field {shown(name)} is {told}, expected an integer or a string"
        raise _refusal(item, 0, "BadIdType", what, "Write ids as integers or strings; null is none.")
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
    texts=True,
)
