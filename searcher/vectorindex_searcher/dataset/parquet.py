"""Parquet objects: headers without rows, and rows as a stream of blocks with bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from ..contract import Columns
from ..errors import BadData, BadSpec
from ..storage.store import Store
from .blocks import Block, Header, block_rows, check_claims, no_vectors, texts_of, vectors_of
from .column_types import Refused, id_type, is_half, metadata_type, vector_item
from .column_values import ids_of
from .names import listed, partition_column, partition_type, partition_values, shown
from .objects import ListedObject
from .parquet_file import ParquetObject, opened
from .reader import Format

ID_ROWS = 1 << 16
METADATA_ROWS = 1 << 12
"""Of a block with metadata, which may be whole documents."""


def read_header(store: Store, item: ListedObject, columns: Columns) -> Header | None:
    """The footer of an object, and the length of its first vector where the schema does not say it.

    None for an object without rows. Raises BadSpec/UnknownColumn (lists the columns there are), BadData.
    """
    # Only names, types and the number of rows are asked of the footer: a damaged row group or column makes pyarrow's
    # accessors for them end the process, where reading through it fails as it should.
    with opened(store, item, in_turn=True) as file:
        schema = file.schema_arrow
        if columns.text is not None:
            _require_text(schema, columns.text, item.key)
        elif not columns.bare:
            _require(schema, columns.vector, item.key, "spec.source.columns.vector")
        for name in columns.metadata:
            if name not in partition_values(item.key):
                _require(schema, name, item.key, "spec.source.columns.metadata")
        made = columns.text is not None or columns.bare
        number = pa.float32() if made else _vector_item(schema, columns.vector, item.key)
        identifier = _id_type(schema, columns, item.key)
        metadata = pa.schema([(name, _metadata_type(schema, name, item.key)) for name in columns.metadata])
        rows = file.rows
        if rows == 0:
            return None
        check_claims(item, rows, 1)
        if made:
            return Header(rows, 0, False, identifier, metadata)
        dimension = _dimension(file, item, columns.vector)
        check_claims(item, rows, dimension)
        return Header(rows, dimension, is_half(number), identifier, metadata)


def _require(schema: pa.Schema, name: str, key: str, field: str, remedy: str = "") -> None:
    count = schema.names.count(name)
    if count == 1:
        return
    there = listed([*schema.names, *partition_values(key)])
    what = f"no column {shown(name)}" if not count else f"{count} columns {shown(name)}"
    remedy = remedy or (_existing(schema, name) if not count else "Give every column a name of its own.")
    message = f"{key} has {what}; its columns are {there}"
    raise BadSpec("UnknownColumn", message, object=key, field=field, remedy=remedy)


def _require_text(schema: pa.Schema, name: str, key: str) -> None:
    field = "spec.source.columns.text"
    _require(schema, name, key, field)
    kind = schema.field(name).type
    if metadata_type(kind) != pa.string():
        message = f"{key}: text column {shown(name)} is {shown(str(kind), 200, quoted=False)}, expected strings"
        raise BadData("BadTextType", message, object=key, field=field, remedy="Name the column of the texts.")


def _existing(schema: pa.Schema, name: str) -> str:
    """A remedy: databases write names in capitals that were not."""
    same = next((other for other in schema.names if other.casefold() == name.casefold()), None)
    return f"Name it as it is there: {shown(same)}." if same is not None else "Name one of the existing columns."


def read_columns(store: Store, item: ListedObject, names: Sequence[str], field: str) -> Iterator[pa.RecordBatch]:
    """Record batches of some columns (gate queries), the first one being the vector.

    `field`: spec path to blame for a column that is not there.
    """
    with opened(store, item) as file:
        for name in names:
            _require(file.schema_arrow, name, item.key, field)
        _vector_item(file.schema_arrow, names[0], item.key)
        yield from file.batches(1024, names)


def read_ids(store: Store, item: ListedObject, name: str) -> Iterator[pa.Array]:
    """The ids of an object in order, int64 or string. Raises as `read_blocks`."""
    done = 0
    with opened(store, item) as file:
        _require(file.schema_arrow, name, item.key, "spec.source.columns.id")
        kind = _typed(id_type, file.schema_arrow, name, item.key, "id")
        for batch in file.batches(ID_ROWS, [name]):
            yield ids_of(batch.column(0), kind, name, item.key, done)
            done += batch.num_rows


def _typed(rule: Callable[[pa.DataType, str], pa.DataType], schema: pa.Schema, name: str, key: str, role: str) -> Any:
    """What the rule says of a column's type. Raises BadData with the conversion to make."""
    kind = schema.field(name).type
    try:
        return rule(kind, name if name.isidentifier() else f'"{shown(name, quoted=False)}"')
    except Refused as refused:
        reason = {"id": "BadIdType", "vector": "BadVectorType"}.get(role, "BadColumnType")
        message = f"{key}: {role} column {shown(name)} is {shown(str(kind), 200, quoted=False)}, expected {refused}"
        field = f"spec.source.columns.{role}"
        raise BadData(reason, message, object=key, field=field, remedy=refused.remedy) from None


def _vector_item(schema: pa.Schema, name: str, key: str) -> pa.DataType:
    return _typed(vector_item, schema, name, key, "vector")


def _metadata_type(schema: pa.Schema, name: str, key: str) -> pa.DataType:
    """Of a column of the file or, without one, of its folders."""
    if name not in schema.names:
        return partition_type(key, name)
    return _typed(lambda kind, _: metadata_type(kind), schema, name, key, "metadata")


def _id_type(schema: pa.Schema, columns: Columns, key: str) -> pa.DataType | None:
    """None for a file without any column that could hold ids: its ids are row numbers, as NPY's."""
    if columns.id == Columns().id and columns.id not in schema.names:
        candidates = [
            field.name for field in schema if field.name not in (columns.vector, columns.text) and _may_be_id(field)
        ]
        if not candidates:
            return None
        remedy = f"Name the column of the ids ({listed(candidates)}), or write one: df['id'] = range(len(df))."
        _require(schema, columns.id, key, "spec.source.columns.id", remedy)
    _require(schema, columns.id, key, "spec.source.columns.id")
    return _typed(id_type, schema, columns.id, key, "id")


def _may_be_id(field: pa.Field) -> bool:
    try:
        id_type(field.type, field.name)
    except Refused:
        return False
    return True


def _dimension(file: ParquetObject, item: ListedObject, name: str) -> int:
    kind = file.schema_arrow.field(name).type
    if pa.types.is_fixed_size_list(kind) and kind.list_size:
        return int(kind.list_size)
    first = next((batch for batch in file.batches(1, [name]) if batch.num_rows), None)
    if first is None:
        message = f"{item.key} holds no row, its footer says {file.rows}"
        raise BadData("CorruptFile", message, object=item.key, remedy="Write the object again.")
    return int(vectors_of(first.column(name), item.key, 0, None).shape[1])


def read_blocks(store: Store, item: ListedObject, columns: Columns, header: Header) -> Iterator[Block]:
    """The rows of an object in order. Raises BadData naming object and row, SourceChanged."""
    done = 0
    with opened(store, item) as file:
        there = set(file.schema_arrow.names)
        wanted = (columns.text or columns.vector, *([columns.id] if header.id_type else []), *columns.metadata)
        names = [name for name in dict.fromkeys(wanted) if name in there]
        rows = min(block_rows(header.dimension), METADATA_ROWS if columns.metadata or columns.text else ID_ROWS)
        for batch in file.batches(rows, names):
            if batch.num_rows == 0:
                continue
            if done + batch.num_rows > header.rows:
                message = f"{item.key} holds more rows than the {header.rows} that its footer says"
                raise BadData("CorruptFile", message, object=item.key, remedy="Write the object again.")
            texts = None
            if columns.text is not None:
                vectors, texts = texts_of(batch.column(columns.text), item.key, done)
            elif columns.bare:
                vectors = no_vectors(batch.num_rows)
            else:
                vectors = vectors_of(batch.column(columns.vector), item.key, done, header.dimension)
            ids = None
            if header.id_type is not None:
                ids = ids_of(batch.column(columns.id), header.id_type, columns.id, item.key, done)
            yield Block(item.key, done, vectors, ids, _metadata(batch, item.key, columns.metadata), texts)
            done += batch.num_rows
    if done != header.rows:
        message = f"{item.key} holds {done} rows, its footer says {header.rows}"
        raise BadData("CorruptFile", message, object=item.key, remedy="Write the object again.")


def _metadata(batch: pa.RecordBatch, key: str, names: Sequence[str]) -> pa.Table:
    """The columns as the file has them; those that it lacks are named by its folders."""
    there = set(batch.schema.names)
    return pa.table(
        {name: batch.column(name) if name in there else partition_column(key, name, batch.num_rows) for name in names}
    )


FORMAT = Format(
    name="Parquet",
    suffixes=(".parquet",),
    header=read_header,
    blocks=read_blocks,
    columns=read_columns,
    ids=read_ids,
    texts=True,
)
