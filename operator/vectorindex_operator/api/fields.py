"""Types of single fields of the API: strings with a pattern and a length, and CEL rules over several fields."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field

from vectorindex_operator.api.quantities import DURATION_PATTERN
from vectorindex_searcher.contract import NUMBERS, number_text

_POSITIVE_DURATION = r"^([0-9]{1,6}(s|m|h|d))*0*[1-9][0-9]{0,5}(s|m|h|d)([0-9]{1,6}(s|m|h|d))*$"


def _nothing(text: str, wanted: str) -> tuple[BeforeValidator, dict[str, Any]]:
    """A field of numbers with a unit that also takes a bare 0, read as `text`: what its validator and schema say."""
    remedy = f"a number needs a unit ({wanted}); only 0 stands alone"

    def read(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        if value != 0:
            raise ValueError(f"{value} is not understood: {remedy}")
        return text

    return BeforeValidator(read), {NUMBERS: {"kind": "zero", "words": remedy}}


def _any_number(minimum: float, maximum: float, words: str) -> dict[str, Any]:
    return {NUMBERS: {"kind": "any", "minimum": minimum, "maximum": maximum, "words": words}}


_read_poll, _poll = _nothing("0", "90s, 15m, 1h30m")
_read_duration, _duration = _nothing("0s", "90s, 15m, 1h30m")
_read_percent, _percent = _nothing("0%", "2%, 0.5%")

# The validator stands last: it runs first, and pydantic keeps a pattern in the schema only right beside `str`.
Poll = Annotated[
    str, Field(pattern=r"^(0|([0-9]{1,6}(ms|s|m|h|d))+)$", max_length=20, json_schema_extra=_poll), _read_poll
]
Duration = Annotated[str, Field(pattern=DURATION_PATTERN, max_length=20, json_schema_extra=_duration), _read_duration]
PositiveDuration = Annotated[str, Field(pattern=_POSITIVE_DURATION, max_length=20)]
Percent = Annotated[
    str,
    Field(pattern=r"^(100|[0-9]{1,2}(\.[0-9]{1,4})?)%$", max_length=16, json_schema_extra=_percent),
    _read_percent,
]
PercentIncrease = Annotated[
    str, Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,4})?%$", max_length=16, json_schema_extra=_percent), _read_percent
]
Bound = Annotated[
    str,
    Field(
        pattern=r"^-?[0-9]+(\.[0-9]+)?(%|ms|s)?$",
        max_length=32,
        json_schema_extra=_any_number(-1e9, 1e9, "a number, or text such as 2% or 40ms"),
    ),
    BeforeValidator(number_text),
]
SegmentName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
QueueName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", max_length=253)]
ObjectNameOrNone = Annotated[str, Field(pattern=r"^([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?$", max_length=253)]
Cidr = Annotated[str, Field(pattern=r"^[0-9a-fA-F:.]+/[0-9]{1,3}$", max_length=43)]
LabelMap = dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=63)]]
AnnotationMap = dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=4096)]]
Quantity = Annotated[
    str,
    Field(
        pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$",
        max_length=32,
        json_schema_extra=_any_number(0, 1e18, "a number, or text such as 500m or 4Gi"),
    ),
    BeforeValidator(number_text),
]


def _without_nulls(value: Any) -> Any:
    """A schema without a type refuses no null, so the API server stores it: as if the name were not there."""
    return {name: part for name, part in value.items() if part is not None} if isinstance(value, dict) else value


Quantities = Annotated[
    dict[Annotated[str, Field(max_length=64)], Quantity], Field(max_length=4), BeforeValidator(_without_nulls)
]


class CelRule(NamedTuple):
    """One CEL rule of a schema node (x-kubernetes-validations)."""

    rule: str
    message: str
    field_path: str = ""
