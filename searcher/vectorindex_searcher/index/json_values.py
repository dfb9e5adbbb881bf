"""Values of any Arrow column as JSON has them: what `include: ["metadata"]` answers (docs/sources.md has the table).

Nothing here fails for a value that a file can hold: an index that was built before may hold any type, and a value that
Python cannot express (a year beyond 9999, nanoseconds) must not cost a query its answer. Text is what filters take too.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_NO_TIME = -(1 << 63)
"""What pandas calls NaT."""
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_YEAR = re.compile(r"(-?\d+)(-\d\d-\d\d.*)")
_NO_FRACTION = re.compile(r"\.0+$")

Values = list[Any]


def json_values(column: pa.Array) -> Values:
    """The values of a column as None, bool, int, float, str, list and dict (for orjson, which writes NaN as null)."""
    kind = column.type
    if is_plain(kind):
        try:
            plain: Values = column.to_pylist()
            return plain
        except UnicodeDecodeError:
            return _lists(column) if hasattr(column, "flatten") else _broken_texts(column)
    for matches, convert in _CONVERSIONS:
        if matches(kind):
            return convert(column)
    # Types that no source can have (intervals, unions): Arrow's own words.
    return [str(value) if value.is_valid else None for value in column]


def is_plain(kind: pa.DataType) -> bool:
    """Whether Python's values of this type are JSON's: those of most columns, without a detour."""
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return is_plain(kind.value_type)
    text = types.is_string(kind) or types.is_large_string(kind) or kind == pa.string_view()
    numbers = types.is_integer(kind) or types.is_floating(kind)
    return bool(text or numbers or types.is_boolean(kind) or types.is_null(kind))


def _broken_texts(column: Any) -> Values:
    """Text of which some is no UTF-8: Parquet promises it and checks nothing. What cannot be read is U+FFFD."""
    kind = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
    return [None if value is None else value.decode("utf-8", "replace") for value in column.cast(kind).to_pylist()]


def _extension(column: Any) -> Values:
    if column.type.extension_name == "arrow.uuid":
        return [None if value is None else str(value) for value in column.to_pylist()]
    if column.type.extension_name == "arrow.bool8":
        return json_values(column.cast(pa.bool_()))
    return json_values(column.storage)


def _timestamps(column: Any) -> Values:
    """RFC 3339 in UTC, to the last digit that the column has; a column without a time zone is UTC, as in filters."""
    return [text and f"{text}Z" for text in _moments(column, column.type.unit)]


def _dates(column: Any) -> Values:
    unit = "D" if pa.types.is_date32(column.type) else "ms"
    return [text and text.partition("T")[0] for text in _moments(column, unit)]


def _moments(column: Any, unit: str) -> list[str | None]:
    """ISO 8601 without a zone. Years beyond 0000 to 9999 have a sign and six digits at least (+292278-01-01)."""
    texts = np.datetime_as_string(_integers(column).view(f"datetime64[{unit}]")).tolist()
    return [_iso(text) if there else None for text, there in zip(texts, _there(column), strict=True)]


def _iso(text: str) -> str | None:
    found = _YEAR.fullmatch(_NO_FRACTION.sub("", text))
    if found is None:
        return None  # numpy's NaT
    year = int(found[1])
    return f"{year:04d}{found[2]}" if 0 <= year <= 9999 else f"{year:+07d}{found[2]}"


def _durations(column: Any) -> Values:
    """ISO 8601 in days of 24 hours and less: P1DT1H0.5S, -PT90S is -PT1M30S."""
    per_second = _UNITS[column.type.unit]
    return [
        _duration(count, per_second) if there and count != _NO_TIME else None
        for count, there in zip(_integers(column).tolist(), _there(column), strict=True)
    ]


def _duration(count: int, per_second: int) -> str:
    seconds, part = divmod(abs(count), per_second)
    days, seconds = divmod(seconds, 86_400)
    hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
    fraction = f".{part:0{len(str(per_second)) - 1}d}".rstrip("0") if part else ""
    time = "".join(f"{number}{unit}" for number, unit in ((hours, "H"), (minutes, "M")) if number)
    if seconds or fraction:
        time += f"{seconds}{fraction}S"
    day = f"{days}D" if days else ""
    body = f"{day}T{time}" if time else day or "T0S"
    return f"{'-' if count < 0 else ''}P{body}"


def _integers(column: Any) -> npt.NDArray[np.int64]:
    """What is stored, int64 [n]; 0 for null. (A view: casts of times check and convert.)"""
    wide = column.view(pa.int32()).cast(pa.int64()) if column.type.bit_width == 32 else column.view(pa.int64())
    found: npt.NDArray[np.int64] = pc.fill_null(wide, 0).to_numpy(zero_copy_only=False)
    return found


def _there(column: Any) -> list[bool]:
    found: list[bool] = column.is_valid().to_pylist()
    return found


def _texts(column: Any) -> Values:
    """Times of day, in Arrow's own ISO 8601."""
    return [text and _NO_FRACTION.sub("", text) for text in column.cast(pa.string()).to_pylist()]


def _decimals(column: Any) -> Values:
    """Text: a JSON number would be read as a float."""
    return [None if value is None else format(value, "f") for value in column.to_pylist()]


def _bytes(column: Any) -> Values:
    return [None if value is None else base64.b64encode(value).decode() for value in column.to_pylist()]


def _lists(column: Any) -> Values:
    return [json_values(value.values) if value.is_valid else None for value in column]


def _structs(column: Any) -> Values:
    names = [field.name for field in column.type]
    parts = [json_values(part) for part in column.flatten()]
    rows = zip(*parts, strict=True) if parts else ((),) * len(column)
    return [
        dict(zip(names, row, strict=True)) if there else None for row, there in zip(rows, _there(column), strict=True)
    ]


def _maps(column: Any) -> Values:
    return [_map(value.values) if value.is_valid else None for value in column]


def _map(entries: Any) -> dict[str, Any]:
    """An object; keys that are no text are written as JSON."""
    keys, values = (json_values(part) for part in entries.flatten())
    named = [key if isinstance(key, str) else json.dumps(key) for key in keys]
    return dict(zip(named, values, strict=True))


_Convert = Callable[[Any], Values]
_CONVERSIONS: tuple[tuple[Callable[[pa.DataType], bool], _Convert], ...] = (
    (lambda kind: isinstance(kind, pa.BaseExtensionType), _extension),
    (pa.types.is_dictionary, lambda column: json_values(column.dictionary_decode())),
    (pa.types.is_run_end_encoded, lambda column: json_values(pc.run_end_decode(column))),
    (pa.types.is_timestamp, _timestamps),
    (pa.types.is_date, _dates),
    (pa.types.is_time, _texts),
    (pa.types.is_duration, _durations),
    (pa.types.is_decimal, _decimals),
    (lambda kind: kind == pa.binary_view() or pa.types.is_binary(kind) or pa.types.is_large_binary(kind), _bytes),
    (pa.types.is_fixed_size_binary, _bytes),
    (pa.types.is_map, _maps),
    (pa.types.is_struct, _structs),
    (lambda kind: pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind), _lists),
    (lambda kind: pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind), _lists),
)
