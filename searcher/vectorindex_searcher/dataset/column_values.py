"""Columns of a source as they are kept: ids, and metadata of one type for all objects. Whole arrays at a time.

Arrow's own casts convert and check; what they refuse is looked for by halves, so that the row is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import BadData
from .column_types import UUID, common_type, is_extension, is_list, is_list_view, metadata_type
from .names import shown

_EXACT = {pa.float64(): 2.0**53, pa.float32(): 2.0**24}
"""Below this a float is one whole number; from here on, several are rounded to one."""
_NO_TIME = -(1 << 63)
"""What pandas calls NaT, where a writer did not make it null."""


def ids_of(column: pa.Array, kind: pa.DataType, name: str, key: str, first_row: int) -> pa.Array:
    """int64 or string ids. Raises BadData naming the row: null, not a whole number, beyond int64, not UTF-8."""

    def convert(part: pa.Array) -> pa.Array:
        if pa.types.is_floating(part.type):
            largest = pc.max(pc.abs(part)).as_py()
            if largest is not None and largest >= _EXACT[part.type]:
                raise pa.ArrowInvalid(f"{largest:.0f} is beyond what a float counts exactly")
        return _cast(_plain(part), kind)

    column = _plain(column)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if column.null_count:
        row = first_row + int(pc.index(column.is_null(), True).as_py())
        raise BadData("NullId", f"{key} row {row} has no id", object=key, row=row, remedy="Give every row an id.")
    remedy = f"Write ids as whole numbers below {1 << 63}, or as text."
    converted = _converted(column, convert, ("BadIdType", name, key, first_row, remedy))
    return valid(converted, name, key, first_row)


_Blame = tuple[str, str, str, int, str]
"""Reason, column, object, its first row, remedy."""


def _converted(column: pa.Array, convert: Callable[[pa.Array], pa.Array], blame: _Blame) -> pa.Array:
    try:
        return convert(column)
    except pa.ArrowException:
        row, why = _first_failing(column, convert)
    reason, name, key, first_row, remedy = blame
    message = f"{key} row {first_row + row}: column {shown(name)} cannot be kept: {why}"
    raise BadData(reason, message, object=key, row=first_row + row, remedy=remedy)


def _first_failing(column: pa.Array, convert: Callable[[pa.Array], pa.Array]) -> tuple[int, str]:
    """The first row that fails, and why."""
    start, stop, why = 0, len(column), ""
    while stop - start > 1:
        middle = (start + stop) // 2
        try:
            convert(column.slice(start, middle - start))
        except pa.ArrowException:
            stop = middle
        else:
            start = middle
    try:
        convert(column.slice(start, 1))
    except pa.ArrowException as error:
        why = shown(str(error), 200, quoted=False)
    return start, why


def valid(values: pa.Array, name: str, key: str, first_row: int) -> pa.Array:
    """The same values: Arrow does not look into strings by itself. Raises BadData naming the first not in UTF-8."""

    def look(part: pa.Array) -> pa.Array:
        part.validate(full=True)
        return part

    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        row = first_row + _first_failing(values, look)[0]
        message = f"{key} row {row}: column {shown(name)} is not UTF-8"
        remedy = "Write text as UTF-8, bytes as hex or base64 text."
        raise BadData("NotText", message, object=key, row=row, remedy=remedy) from None
    return values


class Keeper:
    """Brings the metadata of blocks to one schema. `lost`: by column, values without a form in JSON, kept as null."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self.lost: Counter[str] = Counter()

    def keep(self, metadata: pa.Table, key: str, first_row: int) -> pa.Table:
        """A table of the schema. Raises BadData naming the row and column of a value that does not fit."""
        columns = [self._column(metadata.column(field.name), field, key, first_row) for field in self._schema]
        return pa.Table.from_arrays(columns, schema=self._schema)

    def _column(self, column: pa.ChunkedArray, field: pa.Field, key: str, first_row: int) -> pa.Array:
        whole = column.combine_chunks()
        whole = pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
        remedy = "Write the column with one type in all objects, and values that it can hold."
        blame = ("MixedTypes", field.name, key, first_row, remedy)
        kept = valid(_converted(whole, lambda part: _kept(part, field.type), blame), field.name, key, first_row)
        self.lost[field.name] += _nulls(kept) - _nulls(whole)
        return kept


def _nulls(column: pa.Array) -> int:
    """Nulls, those in lists too."""
    inner = _nulls(column.flatten()) if is_list(column.type) else 0
    return int(column.null_count) + inner


def _plain(column: pa.Array) -> pa.Array:
    """Without an encoding or an extension type: the values themselves."""
    kind = column.type
    if is_extension(kind, UUID):
        return _uuid_text(column)
    if is_extension(kind):
        return _plain(column.cast(pa.bool_()) if kind.extension_name == "arrow.bool8" else column.storage)
    if pa.types.is_dictionary(kind):
        return _plain(column.dictionary_decode())
    return _plain(pc.run_end_decode(column)) if pa.types.is_run_end_encoded(kind) else column


def _uuid_text(column: pa.Array) -> pa.Array:
    """8-4-4-4-12 hexadecimal digits, as everybody writes them."""
    filled = pc.fill_null(column.storage, pa.scalar(bytes(16), column.storage.type))
    raw = np.frombuffer(b"".join(filled.to_pylist()), np.uint8).reshape(-1, 16)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)[np.stack([raw >> 4, raw & 15], axis=2).reshape(-1, 32)]
    text = np.insert(digits, (8, 12, 16, 20), ord("-"), axis=1)
    offsets = pa.py_buffer(np.arange(0, 36 * (len(raw) + 1), 36, dtype=np.int32))
    words = pa.StringArray.from_buffers(len(raw), offsets, pa.py_buffer(np.ascontiguousarray(text)))
    return pc.if_else(column.is_valid(), words, pa.scalar(None, pa.string()))


def _kept(column: pa.Array, target: pa.DataType) -> pa.Array:
    """The column as its kept type. Raises ArrowException for a value that does not fit."""
    column = _plain(column)
    kind = column.type
    if pa.types.is_null(kind) or column.null_count == len(column):
        return pa.nulls(len(column), target)
    own = metadata_type(kind)
    if common_type(own, target) != target or (own == pa.int32() and not _is_number(target)):
        raise pa.ArrowInvalid(f"it holds values of type {kind}, other objects have {target}")
    if pa.types.is_list(target):
        return _list(column, target)
    if pa.types.is_map(target):
        return _map(column, target)
    if pa.types.is_struct(target):
        return _struct(column, target)
    return _cast(_expressible(column), target)


def _cast(column: pa.Array, target: pa.DataType) -> pa.Array:
    """Arrow's safe cast; whether bytes are text is looked at afterwards (`valid`)."""
    if pa.types.is_decimal(column.type) and pa.types.is_integer(target) and column.type.bit_width < 128:
        column = column.cast(pa.decimal128(38, column.type.scale))  # Arrow makes no integers of shorter ones
    return pc.cast(column, options=pc.CastOptions(target, allow_invalid_utf8=True))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _expressible(column: pa.Array) -> pa.Array:
    """NaN, infinity and NaT become null: JSON has no word for them, and a filter for what exists must not find them."""
    kind = column.type
    if pa.types.is_floating(kind):
        # (is_finite knows no 16-bit floats)
        finite = pc.is_finite(column.cast(pa.float32()) if pa.types.is_float16(kind) else column)
        lost = pc.invert(pc.fill_null(finite, True))
    elif pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        lost = pc.equal(pc.fill_null(column.view(pa.int64()), 0), _NO_TIME)
    else:
        return column
    if not pc.any(lost).as_py():
        return column
    return pc.if_else(lost, pa.scalar(None, kind), column)


def _unsliced(column: pa.Array) -> pa.Array:
    """The same values from offset 0, which Arrow wants where it puts nested arrays together."""
    return column.take(pa.array(np.arange(len(column)))) if column.offset else column


def without_views(column: pa.Array) -> pa.Array:
    """Lists whose values follow each other, with 64-bit offsets where they were views."""
    return _listed(column) if is_list_view(column.type) else column


def _listed(column: pa.Array) -> pa.Array:
    """The lists of any kind of list. Put together here: pyarrow's casts between kinds lose values (26.0)."""
    lengths = pc.if_else(column.is_valid(), pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
    return pa.LargeListArray.from_arrays(offsets, column.flatten(), mask=column.is_null())


def _list(column: pa.Array, target: pa.DataType) -> pa.Array:
    lists = _unsliced(column if pa.types.is_list(column.type) else _listed(column))
    values = _kept(lists.values, target.value_type)
    return pa.ListArray.from_arrays(lists.offsets.cast(pa.int32()), values, type=target, mask=lists.is_null())


def _map(column: pa.Array, target: pa.DataType) -> pa.Array:
    maps = _unsliced(column)
    keys, items = _kept(maps.keys, target.key_type), _kept(maps.items, target.item_type)
    return pa.MapArray.from_arrays(maps.offsets, keys, items, type=target, mask=maps.is_null())


def _struct(column: pa.Array, target: pa.DataType) -> pa.Array:
    parts = dict(zip((field.name for field in column.type), column.flatten(), strict=True))
    missing = pa.nulls(len(column))
    arrays = [_kept(parts.get(field.name, missing), field.type) for field in target]
    return pa.StructArray.from_arrays(arrays, fields=list(target), mask=column.is_null())
