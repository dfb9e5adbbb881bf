"""Does a live object still say what we rendered? An object that does is not written again: an idle index costs no
writes, and a hand-made change is found and undone.

The API server adds defaults and rewrites quantities ("1000m" becomes "1"), so this compares only what was rendered.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([numkMGTPE]|[KMGTPE]i)?")
# Exact: as binary fractions 0.009 and 9m differ, and such a limit would be written again at every pass.
_FACTORS: dict[str | None, Fraction] = {
    None: Fraction(1), "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "k": Fraction(1000),
    **{f"{unit}i": Fraction(1024**power) for power, unit in enumerate("KMGTPE", 1)},
    **{unit: Fraction(1000**power) for power, unit in enumerate("MGTPE", 2)},
}  # fmt: skip


def matches(rendered: Any, live: Any) -> bool:
    """True when everything in `rendered` is in `live` with the same value; empty values match absent ones."""
    if isinstance(rendered, dict):
        if not isinstance(live, dict):
            return not rendered
        return all(matches(value, live.get(key)) for key, value in rendered.items())
    if isinstance(rendered, list | tuple):
        if not rendered:
            return not live
        if not isinstance(live, list | tuple) or len(live) != len(rendered):
            return False
        return all(matches(one, other) for one, other in zip(rendered, live, strict=True))
    if rendered in ("", None):
        return live in ("", None)
    return rendered == live or _same_quantity(rendered, live)


def same_rules(rendered: Any, live: Any) -> bool:
    """Whether a NetworkPolicy admits exactly who was rendered. Here what is absent means something: a selector without
    labels is everybody, so a label that only the live one has is no default but another rule."""
    return all(rendered["spec"][part] == live["spec"].get(part) for part in ("podSelector", "ingress"))


def _same_quantity(one: object, other: object) -> bool:
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    first, second = _QUANTITY.fullmatch(one), _QUANTITY.fullmatch(other)
    if first is None or second is None:
        return False
    return Fraction(first[1]) * _FACTORS[first[2]] == Fraction(second[1]) * _FACTORS[second[2]]
