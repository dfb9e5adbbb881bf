"""Which live queries are mirrored: at most so many a second, half of them a uniform sample, half shared among segments.

Below the rate all of them are, and are the uniform sample. Tokens, not draws: a burst of one sender takes what there is
once, and no more. Confined to whoever holds the caller's lock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum

CALM_SECONDS = 10.0
"""Once nothing was left out for so long, all are sent, and so each is of the uniform sample."""


class Draw(Enum):
    """What a query is sent for."""

    OVERALL = "Overall"
    """As one of the uniform sample, and for its segment."""
    SEGMENT = "Segment"
    """For its segment only."""


class _Tokens:
    __slots__ = ("_at", "_rate", "left", "room")

    def __init__(self, rate: float, now: float) -> None:
        self._rate, self._at = rate, now
        self.room = self.left = max(1.0, rate)

    def refill(self, now: float) -> bool:
        """Whether there is one."""
        self.left = min(self.room, self.left + (now - self._at) * self._rate)
        self._at = now
        return self.left >= 1


class Rates:
    """Draws for one lease. `per_second` > 0. `now`: monotonic."""

    def __init__(self, per_second: float, segments: Sequence[str], now: float) -> None:
        several = len(segments) > 1
        self.per_second = per_second
        self._all = _Tokens(per_second, now)
        self._uniform = _Tokens(per_second / 2 if several else per_second, now)
        each = per_second / 2 / len(segments)
        self._of = {name: _Tokens(each, now) for name in segments} if several else {}
        self._left_out = -math.inf

    def draw(self, segment: str, now: float) -> Draw | None:
        """What to send a query of this segment for; None: it is left out."""
        whole = self._all
        drawn = self._kind(segment, now) if whole.refill(now) else None
        if drawn is None:
            self._left_out = now
        else:
            whole.left -= 1
        return drawn

    def _kind(self, segment: str, now: float) -> Draw | None:
        uniform = self._uniform
        if uniform.refill(now):
            uniform.left -= 1
            return Draw.OVERALL
        if now - self._left_out >= CALM_SECONDS:
            return Draw.OVERALL
        own = self._of.get(segment)
        if own is not None and own.refill(now):
            own.left -= 1
            return Draw.SEGMENT
        # What other segments do not use.
        return Draw.SEGMENT if self._all.left > self._all.room / 2 else None
