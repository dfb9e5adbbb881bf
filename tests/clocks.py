"""A clock that stands still until a test sets it, for whatever takes a callable that tells the seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Clock:
    """Seconds, as a test says."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now
