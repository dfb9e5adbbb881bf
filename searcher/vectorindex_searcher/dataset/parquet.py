"""Parquet objects: headers without rows, and rows as a stream of blocks with bounded memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..contract import Columns
from ..errors import BadData, BadSpec, TaskError
from ..storage.store import Store
from .blocks import Block, Header, block_rows, check_claims, vectors_of
from .objects import ListedObject
from .ranged import RangedFile
from .reader import Format

BUFFER_BYTES = 4 << 20
"""Bytes fetched at a time and per column. Row groups may be larger than memory; they are never read whole."""
LARGEST_PAGE_BYTES = 128 << 20
"""As stored. Arrow takes a page into memory whole, so this bounds what one takes; what it decompresses to is known to
its header only, which pyarrow does not show. Writers make pages of 1 MiB (pyarrow, Spark) to 100 MB (DuckDB)."""
ID_ROWS = 1 << 16
INT64_MAX = pa.scalar((1 << 63) - 1, pa.uint64())


class _Pages(RangedFile):
    """Raises BadData/PageTooLarge instead of reading more than LARGEST_PAGE_BYTES at once: only a page asks for it."""

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._item.size - self._position)
        if (left if size is None or size < 0 else min(size, left)) > LARGEST_PAGE_BYTES:
            self.error = BadData(
                "PageTooLarge",
                f"{self._item.key} holds a page of {size} bytes at byte {self._position}; a page is read whole, so at "
                f"most {LARGEST_PAGE_BYTES} are taken",
                object=self._item.key,
                remedy="Write the object again with pages of about 1 MiB (pyarrow: data_page_size).",
            )
            raise self.error
        return super().read(size)


@contextlib.contextmanager
def _opened(store: Store, item: ListedObject) -> Iterator[pq.ParquetFile]:
    """Open an object; Arrow's complaints about its content become BadData/CorruptFile, the store's pass through."""
    file = _Pages(store, item)
    try:
        yield pq.ParquetFile(pa.PythonFile(file, mode="r"), buffer_size=BUFFER_BYTES, pre_buffer=False)
    except TaskError:
        raise
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        if file.error is not None:
            raise file.error from error
        raise BadData(
            "CorruptFile",
            f"{item.key} is not a complete Parquet file: {' '.join(str(error).split())[:300]}",
            object=item.key,
            remedy="Write the object again.",
        ) from error


def read_header(store: Store, item: ListedObject, columns: Columns) -> Header | None:
    """The footer of an object, and the length of its first vector where the schema does not say it.

    None for an object without rows. Raises BadSpec/UnknownColumn (lists the columns there are), BadData.
    """
    # Only names, types and the number of rows are asked of the footer: a damaged row group or column makes pyarrow's
    # accessors for them end the process, where reading through it fails as it should.
    with _opened(store, item) as file:
        schema = file.schema_arrow
        for number, name in enumerate((columns.id, columns.vector, *columns.metadata)):
            _require(schema, name, item.key, f"spec.source.columns.{('id', 'vector', 'metadata')[min(number, 2)]}")
        vector = schema.field(columns.vector).type
        if not _is_vector(vector):
            message = (
                f"{item.key}: column {columns.vector!r} is {vector}, expected a list of floats or of 8-bit integers"
            )
            raise BadData("BadVectorType", message, object=item.key, field="spec.source.columns.vector")
        rows = file.metadata.num_rows
        if rows == 0:
            return None
        check_claims(item, rows, 1)
        metadata = pa.schema([pa.field(name, _plain(schema.field(name).type)) for name in columns.metadata])
        dimension = _dimension(file, item, columns.vector, vector)
        check_claims(item, rows, dimension)
        return Header(
            rows=rows,
            dimension=dimension,
            half=vector.value_type.bit_width <= 16,
            id_type=_id_type(schema.field(columns.id).type, item.key, columns.id),
            metadata=metadata,
        )


def _require(schema: pa.Schema, name: str, key: str, field: str) -> None:
    if name not in schema.names:
        raise BadSpec(
            "UnknownColumn",
            f"{key} has no column {name!r}; its columns are {', '.join(schema.names[:50])}",
            object=key,
            field=field,
            remedy="Name one of the existing columns.",
        )


def read_columns(store: Store, item: ListedObject, names: Sequence[str], field: str) -> Iterator[pa.RecordBatch]:
    """Record batches of some columns (gate queries). `field`: spec path to blame for a column that is not there."""
    with _opened(store, item) as file:
        for name in names:
            _require(file.schema_arrow, name, item.key, field)
        yield from file.iter_batches(batch_size=1024, columns=list(names))


def read_ids(store: Store, item: ListedObject, name: str) -> Iterator[pa.Array]:
    """The ids of an object in order, int64 or string. Raises as `read_blocks`."""
    done = 0
    with _opened(store, item) as file:
        _require(file.schema_arrow, name, item.key, "spec.source.columns.id")
        kind = _id_type(file.schema_arrow.field(name).type, item.key, name)
        for batch in file.iter_batches(batch_size=ID_ROWS, columns=[name]):
            yield _ids(batch.column(0), kind, item.key, done)
            done += batch.num_rows


def _is_vector(kind: pa.DataType) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists and (pa.types.is_floating(kind.value_type) or kind.value_type in (pa.int8(), pa.uint8())))


def _dimension(file: pq.ParquetFile, item: ListedObject, name: str, kind: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(kind) and kind.list_size:
        return int(kind.list_size)
    first = next((batch for batch in file.iter_batches(batch_size=1, columns=[name]) if batch.num_rows), None)
    if first is None:
        message = f"{item.key} holds no row, its footer says {file.metadata.num_rows}"
        raise BadData("CorruptFile", message, object=item.key, remedy="Write the object again.")
    return int(vectors_of(first.column(0), item.key, 0, None).shape[1])


def _id_type(kind: pa.DataType, key: str, name: str) -> pa.DataType:
    kind = _plain(kind)
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_string(kind):
        return pa.string()
    message = f"{key}: id column {name!r} is {kind}, expected integers or strings"
    raise BadData("BadIdType", message, object=key, field="spec.source.columns.id")


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type without dictionary encoding and 64-bit offsets, so that files written differently agree."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind) or kind == pa.string_view():
        return pa.string()
    return kind


def read_blocks(store: Store, item: ListedObject, columns: Columns, header: Header) -> Iterator[Block]:
    """The rows of an object in order. Raises BadData naming object and row, SourceChanged."""
    names = list(dict.fromkeys((columns.vector, columns.id, *columns.metadata)))
    done = 0
    with _opened(store, item) as file:
        for batch in file.iter_batches(batch_size=block_rows(header.dimension), columns=names):
            if batch.num_rows == 0:
                continue
            if done + batch.num_rows > header.rows:
                message = f"{item.key} holds more rows than the {header.rows} that its footer says"
                raise BadData("CorruptFile", message, object=item.key, remedy="Write the object again.")
            vectors = vectors_of(batch.column(columns.vector), item.key, done, header.dimension)
            ids = _ids(batch.column(columns.id), header.id_type, item.key, done)
            arrays = [
                _valid(batch.column(field.name).cast(field.type), field.name, item.key, done)
                for field in header.metadata
            ]
            metadata = pa.Table.from_arrays(arrays, schema=header.metadata)
            yield Block(item.key, done, vectors, ids, metadata)
            done += batch.num_rows
    if done != header.rows:
        message = f"{item.key} holds {done} rows, its footer says {header.rows}"
        raise BadData("CorruptFile", message, object=item.key, remedy="Write the object again.")


def _ids(column: pa.Array, kind: pa.DataType, key: str, first_row: int) -> pa.Array:
    """int64 or string ids. Raises BadData naming the row: null, beyond int64, not UTF-8."""
    if column.null_count:
        row = first_row + pc.index(column.is_null(), True).as_py()
        message = f"{key} row {row} has no id"
        raise BadData("NullId", message, object=key, row=row, remedy="Give every row an id.")
    plain = column.cast(_plain(column.type)) if pa.types.is_dictionary(column.type) else column
    if pa.types.is_uint64(plain.type) and (large := pc.index(pc.greater(plain, INT64_MAX), True).as_py()) >= 0:
        message = f"{key} row {first_row + large} has id {plain[large].as_py()}, beyond the largest int64"
        remedy = "Write such ids as strings."
        raise BadData("BadIdType", message, object=key, row=first_row + large, remedy=remedy)
    return _valid(plain.cast(kind), "id", key, first_row)


def _valid(values: pa.Array, name: str, key: str, first_row: int) -> pa.Array:
    """The same values: Arrow does not look into strings by itself. Raises BadData naming the first not in UTF-8."""
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        for row in range(len(values)):
            try:
                values.slice(row, 1).validate(full=True)
            except pa.ArrowInvalid:
                message = f"{key} row {first_row + row}: column {name!r} is not UTF-8"
                remedy = "Write text as UTF-8."
                raise BadData("NotText", message, object=key, row=first_row + row, remedy=remedy) from None
    return values


FORMAT = Format(
    name="Parquet", suffixes=(".parquet",), header=read_header, blocks=read_blocks, columns=read_columns, ids=read_ids
)
