"""What each Arrow type may be in a source: an id, a vector, metadata; and the type that differing files agree on.

Everything that other systems export without loss is taken; the rest is refused with the conversion that makes it so.
docs/sources.md has the table, which a test writes from these functions.
"""

from __future__ import annotations

import pyarrow as pa

MAX_DEPTH = 8
"""Lists in structs in lists ... of one metadata column."""
MAX_FIELDS = 256
"""Fields of all structs of one metadata column."""
UUID = "arrow.uuid"
_BOOL8 = "arrow.bool8"


class Refused(Exception):  # noqa: N818 - says what happened, as the errors of tasks do
    """A type that is not taken. `wanted`: what would be; `remedy`: the conversion."""

    def __init__(self, wanted: str, remedy: str) -> None:
        super().__init__(wanted)
        self.wanted, self.remedy = wanted, remedy


# ---------------------------------------------------------------- families


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view())


def is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    sized = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    return bool(sized or kind == pa.binary_view())


def is_list(kind: pa.DataType) -> bool:
    types = pa.types
    sized = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(sized or is_list_view(kind))


def is_list_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def is_extension(kind: pa.DataType, name: str = "") -> bool:
    return isinstance(kind, pa.BaseExtensionType) and (not name or kind.extension_name == name)


def _encoded(kind: pa.DataType) -> pa.DataType | None:
    """The type below an encoding (dictionary, runs), or None."""
    return kind.value_type if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind) else None


# ---------------------------------------------------------------- ids


def id_type(kind: pa.DataType, name: str) -> pa.DataType:
    """int64 or string. Raises Refused."""
    types = pa.types
    if (inner := _encoded(kind)) is not None:
        return id_type(inner, name)
    if is_extension(kind, UUID) or is_text(kind) or is_bytes(kind):
        return pa.string()
    if types.is_integer(kind) or types.is_decimal(kind) or types.is_float32(kind) or types.is_float64(kind):
        return pa.int64()
    if is_extension(kind) and not is_extension(kind, _BOOL8):
        return id_type(kind.storage_type, name)
    raise Refused("integers or strings", f"Write ids as integers or as text: CAST({name} AS VARCHAR).")


# ---------------------------------------------------------------- vectors


def vector_item(kind: pa.DataType, name: str) -> pa.DataType:
    """The type of a vector's numbers. Raises Refused."""
    if is_extension(kind):
        return vector_item(kind.storage_type, name)
    if is_list(kind) and _is_number(kind.value_type):
        return kind.value_type
    raise Refused("a list of numbers", _vector_remedy(kind, name))


def is_half(item: pa.DataType) -> bool:
    """Whether float16 holds every such number exactly."""
    return bool(pa.types.is_float16(item) or item in (pa.int8(), pa.uint8()))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _vector_remedy(kind: pa.DataType, name: str) -> str:
    if is_text(kind):
        return f"Parse the text when exporting: json.loads in pandas, CAST({name} AS FLOAT[]) in DuckDB."
    if is_bytes(kind):
        return f"Decode the bytes when exporting: numpy.frombuffer(row.{name}, '<f4').tolist()."
    if pa.types.is_map(kind):
        return "Write every number of the vector, zeros too, as a list of floats."
    if pa.types.is_struct(kind):
        return f"Write the field that holds the numbers as a column: in Spark vector_to_array({name})."
    if is_list(kind) and is_list(kind.value_type):
        return "Write one vector a row, as a flat list: one of several, or their mean."
    if is_list(kind):
        return f"Write the numbers of the list as floats: CAST({name} AS FLOAT[])."
    return "Name the column that holds the vectors."


# ---------------------------------------------------------------- metadata


def metadata_type(kind: pa.DataType) -> pa.DataType:
    """The type that a column is kept with: one for each kind of value, however the file encodes it. Raises Refused."""
    fields = [0]
    found = _kept(kind, 1, fields)
    if fields[0] > MAX_FIELDS:
        raise Refused(f"at most {MAX_FIELDS} fields in a column", "Write the fields that are wanted as columns.")
    return found


def _kept(kind: pa.DataType, depth: int, fields: list[int]) -> pa.DataType:
    if depth > MAX_DEPTH:
        raise Refused(f"at most {MAX_DEPTH} levels", "Write the values that are wanted as columns.")
    if is_extension(kind):
        named = {UUID: pa.string(), _BOOL8: pa.bool_()}.get(kind.extension_name)
        return named or _kept(kind.storage_type, depth + 1, fields)
    if (inner := _encoded(kind)) is not None:
        return _kept(inner, depth + 1, fields)
    if is_list(kind):
        return pa.list_(_kept(kind.value_type, depth + 1, fields))
    if pa.types.is_map(kind):
        return pa.map_(_kept(kind.key_type, depth + 1, fields), _kept(kind.item_type, depth + 1, fields))
    if pa.types.is_struct(kind):
        fields[0] += kind.num_fields
        if len({field.name for field in kind}) < kind.num_fields:
            raise Refused("fields of different names", "Rename the fields.")
        if fields[0] > MAX_FIELDS:
            return kind
        return pa.struct([(field.name, _kept(field.type, depth + 1, fields)) for field in kind])
    return _scalar(kind)


def _scalar(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if is_text(kind):
        return pa.string()
    if is_bytes(kind):
        return pa.binary()
    if types.is_date(kind):
        return pa.date32()
    if types.is_timestamp(kind):
        return pa.timestamp(kind.unit, "UTC" if kind.tz else None)
    same = (_is_number, types.is_boolean, types.is_null, types.is_time, types.is_duration)
    if any(matches(kind) for matches in same):
        return kind
    raise Refused("a type that JSON can express", "Convert the column to text, numbers or times.")


# ---------------------------------------------------------------- agreement


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The kept type that takes all values of both without loss, or None. Both are kept types.

    int32 yields to what it cannot be joined with: DuckDB writes columns that are all null so. Whoever reads the values
    finds out (column_values.py), as with integers that turn out too large for a float.
    """
    for rule in (_same, _nested, _words, _times, _numbers, _untyped):
        if (found := rule(one, other)) is not None:
            return found
    return None


def _same(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if one == other or pa.types.is_null(other):
        return one
    return other if pa.types.is_null(one) else None


def _nested(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if pa.types.is_list(one) and pa.types.is_list(other):
        item = common_type(one.value_type, other.value_type)
        return None if item is None else pa.list_(item)
    if pa.types.is_map(one) and pa.types.is_map(other):
        key, item = common_type(one.key_type, other.key_type), common_type(one.item_type, other.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        return _struct(one, other)
    return None


def _struct(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The fields of both; where one lacks a field it is null."""
    kinds = {field.name: field.type for field in one}
    for field in other:
        kind = common_type(kinds.get(field.name, pa.null()), field.type)
        if kind is None:
            return None
        kinds[field.name] = kind
    return pa.struct(list(kinds.items()))


def _words(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Text that some writers do not mark as such (Impala)."""
    return pa.string() if {one, other} == {pa.string(), pa.binary()} else None


def _times(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The finer unit; with a time zone if one has it, as times without are UTC."""
    types = pa.types
    if types.is_timestamp(one) and types.is_timestamp(other):
        return pa.timestamp(_finer(one, other), "UTC" if one.tz or other.tz else None)
    if types.is_duration(one) and types.is_duration(other):
        return pa.duration(_finer(one, other))
    if types.is_time(one) and types.is_time(other):
        return max(one, other, key=lambda kind: _UNITS.index(kind.unit))
    return None


_UNITS = ("s", "ms", "us", "ns")


def _finer(one: pa.DataType, other: pa.DataType) -> str:
    return max(str(one.unit), str(other.unit), key=_UNITS.index)


def _numbers(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """As Arrow widens them. Decimals, which are answered as text, only with each other."""
    decimals = [pa.types.is_decimal(kind) for kind in (one, other)]
    if not (_is_number(one) and _is_number(other)) or decimals[0] != decimals[1]:
        return None
    schemas = [pa.schema([("x", kind)]) for kind in (one, other)]
    try:
        found: pa.DataType = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:  # decimals of more digits than there are
        return None
    return found


def _untyped(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if pa.int32() not in (one, other):
        return None
    return other if one == pa.int32() else one
