"""What a state means for whoever looks: screens and the dashboard colour by it, each in its own way."""

from __future__ import annotations

from enum import StrEnum

from vectorindex_operator.core.phase import FAILED, UNDER_WAY


class Tone(StrEnum):
    """Good and bad are ends, moving is on its way to one; quiet says nothing."""

    GOOD = "good"
    BAD = "bad"
    MOVING = "moving"
    QUIET = "quiet"


_BAD = frozenset({*FAILED, "Fail", "Refused", "Failed", "Stalled", "Retrying", "Unschedulable", "Error"})
_GOOD = frozenset({"Stable", "Pass", "Ready", "Done", "Promoted", "Proven", "Switched", "Succeeded"})
_MOVING = frozenset(
    {*UNDER_WAY, "Resolving", "Loading", "Waiting", "Held", "Inconclusive", "Suspended", "Ending", "Running"}
)


def tone(word: str) -> Tone:
    """Of a phase, a verdict, or the state of a pod or a Job."""
    if word in _BAD:
        return Tone.BAD
    if word in _GOOD:
        return Tone.GOOD
    return Tone.MOVING if word in _MOVING else Tone.QUIET
