"""Numbers where a field is text: people write `cpu: 2`, `poll: 0` and `max: 3.5` without quotes.

The model reads such a number as the one text that it stands for, so digests, hashes and everything stored are the same
however it was written. A field says in its schema (`json_schema_extra`, key NUMBERS) which numbers it takes.
"""

from __future__ import annotations

from decimal import Decimal
from math import isfinite

NUMBERS = "x-numbers"
"""Schema key of a text field that takes numbers, too: a mapping, read by whoever makes a schema for others of it.

`kind`: "zero" (0 alone), "whole" or "any"; `minimum`, `maximum`: the bounds of numbers; `words`: what is wanted.
"""
_PLACES = 12


def number_text(value: object) -> object:
    """A number as decimal text without an exponent (2, 0.5), cut after 12 places; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return value
    whole, _, places = f"{Decimal(repr(value)):.{_PLACES}f}".partition(".")
    text = f"{whole}.{places}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
