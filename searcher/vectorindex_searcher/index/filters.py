"""The filter language: from a query's JSON to a checked predicate over metadata columns (grammar: docs/filters.md).

    {"section": "python"}                               one column; a bare value means eq
    {"size": {"gte": 10, "lt": 20}, "section": {...}}   all of them
    {"and": [..]}  {"or": [..]}  {"not": ..}

Sizes are bounded, values are checked against the columns' Arrow types and brought to one Python type each, and equal
filters become equal predicates, so predicates serve as cache keys. Evaluates nothing; knows no index.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from ..contract import COLUMN_TYPES

MAX_DEPTH = 8
MAX_TERMS = 64
"""Comparisons in one filter."""
MAX_VALUES = 4096
"""Values in all `in` lists of one filter."""
MAX_TEXT = 1024
"""Characters of one value."""

JOINERS = ("and", "or", "not")
ORDERED = ("eq", "ne", "in", "gt", "gte", "lt", "lte", "exists")
UNORDERED = ("eq", "ne", "in", "exists")
LISTED = ("contains", "exists")

_NANOSECONDS = (datetime(1677, 9, 22, tzinfo=UTC), datetime(2262, 4, 11, tzinfo=UTC))
"""Whole days that 64-bit nanoseconds hold."""
Value = str | int | float | bool | datetime | date


class FilterError(ValueError):
    """A filter that is refused. `where`: path in the filter; `value`: what was found there; `remedy`: what to do."""

    def __init__(self, where: str, detail: str, value: object = None, remedy: str | None = None) -> None:
        super().__init__(f"{where}: {detail}")
        self.where, self.detail, self.value, self.remedy = where, detail, value, remedy


@dataclass(frozen=True, slots=True)
class Term:
    """One comparison. `operator`: one of ORDERED or LISTED; `values`: one value, or those of `in`, sorted, unique."""

    column: str
    operator: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds. At least one part."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """One part holds at least. At least one part."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold; a null stays a null."""

    part: Predicate


Predicate = Term | All | Some | Not


def memory_of(predicate: Predicate | None) -> int:
    """Bytes that a predicate holds, about: caches of predicates are bounded by it."""
    match predicate:
        case None:
            return 0
        case Term():
            return 256 + 8 * len(predicate.values) + sum(map(sys.getsizeof, predicate.values))
        case Not(part):
            return 64 + memory_of(part)
        case All(parts) | Some(parts):
            return 64 + sum(map(memory_of, parts))


@dataclass(frozen=True, slots=True)
class _Kind:
    """How values of a column's type are written in JSON and compared."""

    name: str
    operators: tuple[str, ...]
    read: Callable[[object], Value | None]
    """The value as the column has it; None when it is no such value."""
    wanted: str
    limits: tuple[Any, Any] | None = None
    """Least and greatest value of the column's type, where it does not hold all that a filter can say: values outside
    are legal in a filter, and match nothing or everything."""


class FilterColumns:
    """The metadata columns that filters may name, by their Arrow types."""

    def __init__(self, schema: pa.Schema) -> None:
        self._kinds: dict[str, _Kind] = {}
        self._others: dict[str, str] = {}
        for field in schema:
            kind = _kind_of(field.type)
            if kind is None or field.name in JOINERS:
                self._others[field.name] = str(field.type)
            else:
                self._kinds[field.name] = kind

    @property
    def described(self) -> dict[str, str]:
        """Column -> type name, of the columns that filters may name."""
        return {name: kind.name for name, kind in self._kinds.items()}

    def kind(self, name: str, where: str) -> _Kind:
        """Raises FilterError for a column that is not there, or of a type that filters do not know."""
        if (kind := self._kinds.get(name)) is not None:
            return kind
        known = ", ".join(self._kinds) or "none"
        if name in self._others:
            detail = f"column {name!r} has type {self._others[name]}, which filters do not know"
            raise FilterError(where, detail, name, f"columns for filters are: {known}")
        remedy = f"columns are: {known}" if self._kinds else "name metadata columns in the source, and build again"
        raise FilterError(where, f"there is no metadata column {name[:MAX_TEXT]!r}", name, remedy)


def parse(document: object, columns: FilterColumns) -> Predicate:
    """The predicate that `document` (decoded JSON) means. Raises FilterError."""
    return _Parser(columns).predicate(document, "filter", 1)


class _Parser:
    def __init__(self, columns: FilterColumns) -> None:
        self._columns = columns
        self._terms = 0
        self._values = 0

    def predicate(self, document: object, where: str, depth: int) -> Predicate:
        if depth > MAX_DEPTH:
            raise FilterError(where, f"the filter is nested more than {MAX_DEPTH} deep", remedy="write it flatter")
        if not isinstance(document, dict):
            raise FilterError(where, "a filter must be an object", document, 'send for example {"column": {"eq": 1}}')
        if not document:
            raise FilterError(where, "a filter must not be empty", remedy="leave it out to search all rows")
        parts = [part for name, value in document.items() for part in self._member(name, value, where, depth)]
        return _joined(All, parts)

    def _member(self, name: str, value: object, where: str, depth: int) -> list[Predicate]:
        where = f"{where}.{name[:MAX_TEXT]}"
        if name == "not":
            return [Not(self.predicate(value, where, depth + 1))]
        if name in JOINERS:
            if not isinstance(value, list) or not value:
                raise FilterError(where, f"{name} takes a list of filters, at least one", value, "send [{..}, {..}]")
            # Counted before the walk: a list of a million filters is refused at its size.
            if len(value) > MAX_TERMS:
                raise self._too_many(where, len(value))
            parts = [self.predicate(part, f"{where}[{number}]", depth + 1) for number, part in enumerate(value)]
            return [_joined(All if name == "and" else Some, parts)]
        return self._column(name, value, where)

    def _column(self, name: str, conditions: object, where: str) -> list[Predicate]:
        kind = self._columns.kind(name, where)
        if not isinstance(conditions, dict):
            if isinstance(conditions, list) or conditions is None:
                other = "in" if isinstance(conditions, list) else "exists"
                remedy = 'send {"in": [..]}' if other == "in" else 'send {"exists": false} for rows without a value'
                raise FilterError(where, "a condition must be a value or an object of operators", conditions, remedy)
            conditions = {"contains" if kind.operators is LISTED else "eq": conditions}
        if not conditions:
            raise FilterError(where, "a condition must not be empty", remedy=f"use {', '.join(kind.operators)}")
        return [self._term(name, kind, operator, value, where) for operator, value in conditions.items()]

    def _term(self, column: str, kind: _Kind, operator: str, value: object, where: str) -> Predicate:
        where = f"{where}.{operator[:MAX_TEXT]}"
        if operator not in kind.operators:
            detail = f"a column of type {kind.name} has no operator {operator[:MAX_TEXT]!r}"
            raise FilterError(where, detail, operator, f"use {', '.join(kind.operators)}")
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise self._too_many(where, self._terms)
        if operator == "exists":
            if not isinstance(value, bool):
                raise FilterError(where, "exists takes true or false", value, "send true or false")
            there = Term(column, "exists", ())
            return there if value else Not(there)
        if operator == "in":
            return self._among(column, kind, value, where)
        return _compared(column, kind, operator, _value(kind, value, where))

    def _among(self, column: str, kind: _Kind, values: object, where: str) -> Predicate:
        if not isinstance(values, list):
            raise FilterError(where, "in takes a list of values", values, "send [..]")
        self._values += len(values)
        if self._values > MAX_VALUES:
            detail = f"the filter's lists hold more than {MAX_VALUES} values"
            raise FilterError(where, detail, self._values, "split the query, or store what the values have in common")
        read: set[Value] = set()
        for number, value in enumerate(values):
            found = kind.read(value)
            # To name the place of each of 4,096 values costs more than to read it.
            if found is None or (type(value) is str and len(value) > MAX_TEXT):
                found = _value(kind, value, f"{where}[{number}]")
            read.add(found)
        if kind.limits is not None:
            read = {value for value in read if _inside(kind, value)}
        return Term(column, "in", tuple(sorted(read)))

    @staticmethod
    def _too_many(where: str, found: int) -> FilterError:
        remedy = "use in for many values of one column"
        return FilterError(where, f"the filter has more than {MAX_TERMS} conditions", found, remedy)


def _joined(kind: type[All] | type[Some], parts: list[Predicate]) -> Predicate:
    """The parts, in one order and without doubles: the same filter written differently is the same predicate."""
    # By hash: any order will do that is the same each time. (By text it takes as long as all of the parsing.)
    unique = sorted(set(parts), key=hash)
    return unique[0] if len(unique) == 1 else kind(tuple(unique))


def _value(kind: _Kind, value: object, where: str) -> Value:
    if value is None:
        raise FilterError(where, "null is not a value", remedy='rows without a value are {"exists": false}')
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise FilterError(where, f"a value has at most {MAX_TEXT} characters", value, "shorten the value")
    read = kind.read(value)
    if read is None:
        raise FilterError(where, f"a column of type {kind.name} is compared with {kind.wanted}", value, kind.wanted)
    return read


def _inside(kind: _Kind, value: Value) -> bool:
    return kind.limits is None or bool(kind.limits[0] <= value <= kind.limits[1])


def _compared(column: str, kind: _Kind, operator: str, value: Value) -> Predicate:
    """The comparison; with a value that the column's type cannot hold, what it comes to for every row with a value."""
    if _inside(kind, value):
        return Term(column, operator, (value,))
    assert kind.limits is not None
    true = operator == "ne" or operator in (("gt", "gte") if value < kind.limits[0] else ("lt", "lte"))
    nothing = Term(column, "in", ())
    return Not(nothing) if true else nothing


# ---------------------------------------------------------------- types

_ARROW = {
    "string": pa.string(), "integer": pa.int64(), "float": pa.float64(), "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us"), "date": pa.date32(),
}  # fmt: skip
"""A type of each name; values of a column of it are written in the same way."""


def columns_of_letters(letters: Mapping[str, str]) -> FilterColumns:
    """The columns of another artifact, of which no more is known than the letters of their types (COLUMN_TYPES).

    Takes every filter that it takes, and no other. Columns of unknown letters are of no use to filters.
    """
    known = {letter: _ARROW[name] for name, letter in COLUMN_TYPES.items() if name in _ARROW}
    known |= {letter.upper(): pa.list_(arrow) for letter, arrow in known.items()}
    return FilterColumns(pa.schema([(name, known.get(letter, pa.null())) for name, letter in letters.items()]))


def columns_of_names(names: Mapping[str, str]) -> FilterColumns:
    """The columns that `described` of another artifact's tells."""
    lists = {f"list of {name}": pa.list_(arrow) for name, arrow in _ARROW.items()}
    return FilterColumns(pa.schema([(name, (_ARROW | lists).get(kind, pa.null())) for name, kind in names.items()]))


def type_name(arrow: pa.DataType) -> str:
    """The type as filters know it: string, list of integer, ...; null where there are no values; else other."""
    kind = _kind_of(arrow)
    if kind is not None:
        return kind.name
    return "null" if pa.types.is_null(arrow) else "other"


def _kind_of(arrow: pa.DataType) -> _Kind | None:
    types = pa.types
    if types.is_list(arrow) or types.is_large_list(arrow) or types.is_fixed_size_list(arrow):
        item = _kind_of(arrow.value_type)
        if item is None or item.operators is LISTED:
            return None
        return _Kind(f"list of {item.name}", LISTED, item.read, item.wanted, item.limits)
    if types.is_string(arrow) or types.is_large_string(arrow):
        return _Kind("string", ORDERED, _text, "a string")
    if types.is_boolean(arrow):
        return _Kind("boolean", UNORDERED, lambda value: value if isinstance(value, bool) else None, "true or false")
    if types.is_integer(arrow):
        bits, signed = arrow.bit_width, types.is_signed_integer(arrow)
        integers = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        return _Kind("integer", ORDERED, _integer, "an integer", integers)
    if types.is_floating(arrow):
        return _Kind("float", ORDERED, _float, "a finite number")
    if types.is_timestamp(arrow):
        limits = _NANOSECONDS if arrow.unit == "ns" else None
        return _Kind("timestamp", ORDERED, _timestamp, "an RFC 3339 time such as 2026-03-01T12:00:00Z", limits)
    if types.is_date(arrow):
        return _Kind("date", ORDERED, _date, "a date such as 2026-03-01")
    return None


def _text(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None  # a lone surrogate is no text, and Arrow could not hold it
    return value


def _integer(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number + 0.0 if math.isfinite(number) else None  # -0.0 becomes 0.0: they are equal


def _timestamp(value: object) -> datetime | None:
    """To the microsecond, in UTC."""
    if not isinstance(value, str) or "T" not in value.upper():
        return None
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            return None
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _date(value: object) -> date | None:
    if not isinstance(value, str) or len(value) != 10:
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None
