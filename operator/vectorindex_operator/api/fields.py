"""Types of single fields of the API: strings with a pattern and a length, and CEL rules over several fields."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import Field

from vectorindex_operator.api.quantities import DURATION_PATTERN

Duration = Annotated[str, Field(pattern=DURATION_PATTERN, max_length=20)]
PositiveDuration = Annotated[
    str, Field(pattern=r"^([0-9]{1,6}(s|m|h|d))*0*[1-9][0-9]{0,5}(s|m|h|d)([0-9]{1,6}(s|m|h|d))*$", max_length=20)
]
Percent = Annotated[str, Field(pattern=r"^(100|[0-9]{1,2}(\.[0-9]{1,4})?)%$", max_length=16)]
PercentIncrease = Annotated[str, Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,4})?%$", max_length=16)]
Bound = Annotated[str, Field(pattern=r"^-?[0-9]+(\.[0-9]+)?(%|ms|s)?$", max_length=32)]
SegmentName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", max_length=253)]
ObjectNameOrNone = Annotated[str, Field(pattern=r"^([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?$", max_length=253)]
Cidr = Annotated[str, Field(pattern=r"^[0-9a-fA-F:.]+/[0-9]{1,3}$", max_length=43)]
LabelMap = dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=63)]]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", max_length=32)]


class CelRule(NamedTuple):
    """One CEL rule of a schema node (x-kubernetes-validations)."""

    rule: str
    message: str
    field_path: str = ""
