"""Filters as JSON, from what a program has: numpy's scalars and arrays, sets, dates, UUIDs, enumerations.

What JSON or the searcher cannot take is refused here, with its place, its value and what to write instead, rather than
by json's TypeError, which names neither.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from enum import Enum
from typing import Any

MAX_DEPTH = 32
"""Deeper than any searcher allows, and far from Python's own limit: a filter that holds itself ends."""
MAX_VALUES = 100_000
"""Values in all, counted while they are converted: more than any searcher allows, and no endless iterator."""
_SHOWN = 120


def plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """The filter in JSON's own types. Raises ValueError naming field, value and remedy."""
    if not isinstance(document, Mapping):
        raise _wrong("filter", document, "is no filter", 'write a mapping, for example {"section": {"eq": "home"}}')
    return _Converter().mapping(document, "filter", 0)


class _Converter:
    def __init__(self) -> None:
        self._left = MAX_VALUES

    def mapping(self, document: Mapping[Any, Any], place: str, depth: int) -> dict[str, Any]:
        found = {}
        for name, value in document.items():
            if not isinstance(name, str):
                raise _wrong(place, name, "is the name of a column and no text", "name columns by their text")
            found[str(name)] = self.value(value, f"{place}.{name}", depth + 1)
        return found

    def value(self, value: Any, place: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise _wrong(place, "…", f"lies more than {MAX_DEPTH} levels deep", "write a flatter filter")
        if isinstance(value, Mapping):
            return self.mapping(value, place, depth)
        if isinstance(value, Enum):
            value = value.value
        array = _array(value)
        if array is not None:
            return self.values(array, place, depth)
        self._left -= 1
        if self._left < 0:
            raise _wrong(place, "…", f"is beyond {MAX_VALUES} values in one filter", "ask in several searches")
        return _scalar(value, place)

    def values(self, values: Iterable[Any], place: str, depth: int) -> list[Any]:
        return [self.value(one, f"{place}[{number}]", depth + 1) for number, one in enumerate(values)]


def _array(value: Any) -> Iterable[Any] | None:
    """The values of a list, a set, or an array of numpy's kind that has dimensions; None for anything else."""
    if isinstance(value, list | tuple | AbstractSet):
        return value
    if getattr(value, "ndim", 0) and hasattr(value, "__iter__"):
        return value  # type: ignore[no-any-return]
    return None


def _scalar(value: Any, place: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)  # numpy.str_ and str enumerations too
    if isinstance(value, int):
        return int(value)
    if isinstance(value, datetime | date):
        return _moment(value, place)
    if isinstance(value, uuid.UUID):
        return str(value)
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind == "M":
        return _numpy_moment(value, place)
    if kind in ("b", "i", "u", "f") or isinstance(value, float):
        return _number(value, place)
    raise _wrong(
        place,
        value,
        f"is of type {type(value).__name__}, which no filter can hold",
        "write a text, a number, a boolean, a date, a time with a zone, or a list of these",
    )


def _number(value: Any, place: str) -> Any:
    number = value.item() if hasattr(value, "item") else float(value)
    if isinstance(number, float) and not math.isfinite(number):
        raise _wrong(place, value, "is no finite number", "write a number, or {'exists': false} for rows without one")
    return number


def _moment(value: datetime | date, place: str) -> str:
    if isinstance(value, datetime):
        if value != value:  # pandas.NaT is a datetime that is not itself
            raise _wrong(place, value, "is no time", "write a time, or {'exists': false} for rows without one")
        if value.tzinfo is None:
            raise _wrong(place, value, "is a time without a zone", "give it one: value.replace(tzinfo=datetime.UTC)")
        if getattr(value, "nanosecond", 0):
            raise _wrong(place, value, "is finer than a microsecond", "round it: value.floor('us')")
    return value.isoformat()


def _numpy_moment(value: Any, place: str) -> str:
    """numpy's times have no zone and mean UTC; its days are dates."""
    exact = value.astype("datetime64[us]")
    if exact != value:  # also not-a-time, which equals nothing
        remedy = "write a time of whole microseconds: value.astype('datetime64[us]')"
        raise _wrong(place, value, "is no time, or finer than a microsecond", remedy)
    found = exact.item()
    if not isinstance(found, datetime):
        raise _wrong(place, value, "lies outside the years 1 to 9999", "write a time within them")
    days = str(value.dtype) in ("datetime64[D]", "datetime64[W]", "datetime64[M]", "datetime64[Y]")
    return found.date().isoformat() if days else f"{found.isoformat()}Z"


def _wrong(place: str, value: object, what: str, remedy: str) -> ValueError:
    text = value if isinstance(value, str) else repr(value)
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return ValueError(f"{place}: {shown} {what}: {remedy}")
