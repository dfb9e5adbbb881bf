"""Which of several operating points is the cheapest: by their parameters where these say it, by the clock elsewhere.

Measures nothing and knows no index.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar


class Point(Protocol):
    """Search parameters and the time of a query at them."""

    @property
    def params(self) -> Mapping[str, int]: ...

    @property
    def latency_us(self) -> float: ...


P = TypeVar("P", bound=Point)


def undercuts(one: Point, other: Point) -> bool:
    """Whether `one` asks for less effort than `other`: no parameter is larger, and one is smaller. Same names in both.

    Its search is then a part of what the other does, so it costs less, whatever a clock on a busy machine says.
    """
    pairs = [(_effort(name, value), _effort(name, other.params[name])) for name, value in one.params.items()]
    return all(mine <= theirs for mine, theirs in pairs) and any(mine < theirs for mine, theirs in pairs)


def cheapest(points: Sequence[P]) -> P:
    """The point of the least time among those that no other one undercuts. Raises ValueError when there is no point."""
    return min(
        (point for point in points if not any(undercuts(other, point) for other in points)),
        key=lambda point: point.latency_us,
    )


def _effort(name: str, value: int) -> float:
    """0 of max_codes means all of them."""
    return math.inf if name == "max_codes" and not value else value
