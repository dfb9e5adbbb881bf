"""How long a shadow has gone on: only while somebody looks. Leases run out by themselves, so pods send nothing while
the operator is away, and what was to be compared in that time is compared afterwards.

The status says when somebody looked last, about: to write it at each look would be a write every few seconds.
"""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import ShadowStatus

LOOKED_SECONDS = 60.0
"""A look is written down when the last that was is so old; later when a shadow has gone on for long."""
_OF_ELAPSED = 0.05
AWAY = 3.0
"""Nobody looked when the last one is so many times as old."""
MOST_PAUSES = 3
"""An operator that comes and goes does not keep a shadow for ever."""


def elapsed(shadow: ShadowStatus, now: float) -> float:
    """Seconds since it began, without those in which nobody looked."""
    return now - to_unix(shadow.started_at) - shadow.paused_seconds


def looked(shadow: ShadowStatus, now: float) -> ShadowStatus:
    """As this look leaves it; the same object where nothing is to be written."""
    last = to_unix(shadow.looked_at or shadow.started_at)
    pause = max(LOOKED_SECONDS, _OF_ELAPSED * elapsed(shadow, now))
    if 0 <= now - last < pause:
        return shadow
    changes: dict[str, object] = {"looked_at": to_text(now)}
    if now - last > AWAY * pause and shadow.pauses < MOST_PAUSES:
        changes |= {"paused_seconds": shadow.paused_seconds + now - last, "pauses": shadow.pauses + 1}
        changes["resumed_at"] = to_text(now)
    return shadow.model_copy(update=changes)


def lasted(shadow: ShadowStatus, since: str, now: float) -> float:
    """For how many seconds what is so since then was seen to be so: from when the operator went on, if it was away."""
    return now - max(to_unix(since), to_unix(shadow.resumed_at or since))
