"""Times at which a source is looked at: cron with a time zone, and what of both no schema can judge.

The API server refuses what has not the form of five fields, numbers out of bounds, and zones that it does not know.
Whether the fields mean anything together, and whether this operator knows the zone, is found out here: a spec that is
refused here stalls (InvalidSpec).
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field

from vectorindex_operator.api.fields import CelRule
from vectorindex_searcher.contract import Model


def _field(value: str) -> str:
    """Regular expression of one field: a list of `*`, values and ranges, each with a step or none."""
    part = f"([*]|({value})(-({value}))?)(/[1-9][0-9]?)?"
    return f"{part}(,{part})*"


_VALUES = (
    "[0-5]?[0-9]",
    "[01]?[0-9]|2[0-3]",
    "0?[1-9]|[12][0-9]|3[01]",
    "0?[1-9]|1[0-2]|[A-Za-z]{3}",
    "[0-7]|[A-Za-z]{3}",
)
_FORM = f"^{' +'.join(_field(value) for value in _VALUES)}$"
_CRON = "cron is minute, hour, day of month, month and day of week, such as 0 3 * * * or */30 6-20 * * MON-FRI"
_ZONE = "a name of the IANA database, such as UTC or Europe/Zurich"
# A zone that the API server does not know ends the rule with an error. On the field itself, so that this names it.
_KNOWN_ZONE = {"rule": "timestamp('2000-01-01T00:00:00Z').getHours(self) >= 0", "message": _ZONE}


def _read_cron(cron: str) -> str:
    if not re.fullmatch(_FORM, cron):
        raise ValueError(_CRON)
    try:
        CronSim(cron, datetime(2000, 1, 1))
    except CronSimError as error:
        raise ValueError(f"{str(error).lower()}: {_CRON}") from None
    return cron


def _read_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder of zones is an OSError
        raise ValueError(f"there is no such time zone: write {_ZONE}") from None
    return name


class Schedule(Model):
    """Times at which the source is looked at, in the place of `poll`. A look begins at most 5 minutes after its time,
    for one VectorIndex always as late; times that were missed are made up for by one look."""

    cron: Annotated[str, Field(max_length=100), AfterValidator(_read_cron)]
    """Minute, hour, day of month, month and day of week, as in crontab(5): lists, ranges, steps, names (MON, JAN)."""
    time_zone: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$",
            max_length=64,
            json_schema_extra={"x-kubernetes-validations": [_KNOWN_ZONE]},
        ),
        AfterValidator(_read_zone),
    ] = "UTC"
    """Whose clock that is: a name of the IANA database. When clocks are changed: docs/sources.md."""
    cel: ClassVar[tuple[CelRule, ...]] = (CelRule(f"self.cron.matches('{_FORM}')", _CRON, ".cron"),)
