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
_LONGEST_DRY = 1.0
"""Seconds: what is left out meanwhile is not looked at, and must not be taken for calm."""
_LEFT_OUT, _TOKENS = 0, 1
"""Places of the state: when something was left out last; then left and at of all tokens, of the uniform half's, and of
each segment's."""


class Draw(Enum):
    """What a query is sent for."""

    OVERALL = "Overall"
    """As one of the uniform sample, and for its segment."""
    SEGMENT = "Segment"
    """For its segment only."""


def state_size(segments: int) -> int:
    """Numbers that the state of Rates for so many segments has."""
    return _TOKENS + 2 * (2 + segments)


class _Tokens:
    """Two numbers of `state` at `place`: how many are left, and when that was. Zeros are as many as there may be."""

    __slots__ = ("_place", "_rate", "_state", "room")

    def __init__(self, rate: float, state: memoryview[float], place: int) -> None:
        self._rate, self._state, self._place = rate, state, place
        self.room = max(1.0, rate)

    @property
    def left(self) -> float:
        return self._state[self._place]

    def refill(self, now: float) -> float:
        """How many there are."""
        state, place = self._state, self._place
        left = state[place] + (now - state[place + 1]) * self._rate
        left = state[place] = left if left < self.room else self.room
        state[place + 1] = now
        return left

    def take(self) -> None:
        self._state[self._place] -= 1


class Rates:
    """Draws for one lease. `per_second` > 0. `now`: monotonic.

    `state`: state_size numbers that others draw from, too, as they were left; None: its own, and nothing was drawn.
    """

    def __init__(
        self, per_second: float, segments: Sequence[str], now: float, state: memoryview[float] | None = None
    ) -> None:
        several = len(segments) > 1
        self.per_second = per_second
        self._state = state if state is not None else memoryview(bytearray(8 * state_size(len(segments)))).cast("d")
        self._all = _Tokens(per_second, self._state, _TOKENS)
        self._uniform = _Tokens(per_second / 2 if several else per_second, self._state, _TOKENS + 2)
        each = per_second / 2 / len(segments)
        own = {name: _Tokens(each, self._state, _TOKENS + 4 + 2 * number) for number, name in enumerate(segments)}
        self._of = own if several else {}
        self.dry_until = -math.inf
        """Nothing is drawn before. Looked at on the way of every answer, so no call is made for it."""
        if state is None:
            self._state[_LEFT_OUT] = now - CALM_SECONDS
            for number, tokens in enumerate((self._all, self._uniform, *own.values())):
                self._state[_TOKENS + 2 * number] = tokens.room
                self._state[_TOKENS + 2 * number + 1] = now

    def draw(self, segment: str, now: float) -> Draw | None:
        """What to send a query of this segment for; None: it is left out."""
        whole = self._all
        left = whole.refill(now)
        drawn = self._kind(segment, now) if left >= 1 else None
        if drawn is None:
            self._state[_LEFT_OUT] = now
            self.dry_until = now + min(_LONGEST_DRY, (1 - left) / self.per_second)
        else:
            whole.take()
        return drawn

    def _kind(self, segment: str, now: float) -> Draw | None:
        uniform = self._uniform
        if uniform.refill(now) >= 1:
            uniform.take()
            return Draw.OVERALL
        if now - self._state[_LEFT_OUT] >= CALM_SECONDS:
            return Draw.OVERALL
        own = self._of.get(segment)
        if own is not None and own.refill(now) >= 1:
            own.take()
            return Draw.SEGMENT
        # What other segments do not use.
        return Draw.SEGMENT if self._all.left > self._all.room / 2 else None
