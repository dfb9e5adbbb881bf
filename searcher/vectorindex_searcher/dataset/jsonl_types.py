"""What types the fields of JSON lines have, by lines that are made Python objects: one at a time, and few are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson
import pyarrow as pa

from .column_types import common_type

MAX_COMMAS = 1 << 19
"""Of a line of which Python objects are made: they take up to a hundred bytes each. A vector has 65,535 at most."""
_KINDS = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_(), type(None): pa.null()}
WORDS = {int: "numbers", float: "numbers", str: "strings", bool: "booleans", dict: "objects", list: "lists of lists"}


def _type_of(values: Sequence[object]) -> pa.DataType | None:
    """The Arrow type of a field by values of it; None when they have no common one."""
    kind: pa.DataType | None = pa.null()
    inner: list[object] = []
    for one in {type(value) for value in values}:
        if one is list:
            inner = [element for value in values if isinstance(value, list) for element in value]
        found = _list_of(inner) if one is list else _KINDS.get(one)
        kind = None if kind is None or found is None else common_type(kind, found)
    return kind


def joined(kind: pa.DataType | None, value: object) -> pa.DataType | None:
    """The type of values of this one and one more; None, once they have none in common."""
    found = None if kind is None else _type_of([value])
    return None if found is None else common_type(kind, found)


def _list_of(values: Sequence[object]) -> pa.DataType | None:
    inner = None if list in {type(value) for value in values} else _type_of(values)
    return None if inner is None else pa.list_(inner)


def settled(kind: pa.DataType) -> bool:
    """Whether no further value can make another type of it: such a value does not fit."""
    return not (kind in (pa.null(), pa.int64()) or (pa.types.is_list(kind) and not settled(kind.value_type)))


@dataclass(slots=True)
class Seen:
    """What some lines say. Values are kept of the first line alone, and of it what is asked for."""

    row: dict[str, object] = field(default_factory=dict)
    """The first line: all names; the values of the wanted fields and those that could be ids."""
    kinds: dict[str, pa.DataType | None] = field(default_factory=dict)
    """The types of the wanted fields that any line has; None: there is no common one."""
    types: dict[str, set[type]] = field(default_factory=dict)
    """Of Python, of the same fields."""

    def see(self, row: dict[str, object], names: Sequence[str]) -> None:
        for name in names:
            if name in row:
                self.kinds[name] = joined(self.kinds.get(name, pa.null()), row[name])
                self.types.setdefault(name, set()).add(type(row[name]))


def fields_of(line: bytes) -> dict[str, object] | str:
    """A line as Python objects, or what is wrong with it: also, that they would take a hundred times its bytes."""
    if (commas := line.count(b",")) > MAX_COMMAS:
        return f"has {commas} commas, at most {MAX_COMMAS} are taken"
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"is no JSON: {error}"
    return value if isinstance(value, dict) else "is no JSON object"
