"""When a source is due to be looked at by itself: once a `poll`, or at the times of a `schedule`.

Nothing of it is stored: from what was found out last, and when, and from the clock follows whether a look is due.
So of times that passed while nobody looked, however many, one look is made, and an index at rest is never written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zlib import crc32
from zoneinfo import ZoneInfo

from cronsim import CronSim

from vectorindex_operator.api.quantities import duration_seconds
from vectorindex_operator.api.v1alpha1 import Schedule, VectorIndexSpec

SPREAD_SECONDS = 300
"""By so much looks at the same time of many indexes are spread: each has its own delay, by its uid."""


@dataclass(frozen=True, slots=True)
class Polls:
    """A look every so many seconds, as seen at unix time `now`."""

    every: float
    now: float

    def due(self, since: float) -> float:
        """When the next look is due after one at `since`."""
        return since + self.every

    @property
    def next(self) -> float:
        """When to look again after a look that begins now."""
        return self.now + self.every

    @property
    def max_age(self) -> float:
        """Seconds by which a searcher's listing may be old. Half: what a pod listed in this turn is good enough, what
        it listed in its last one is not."""
        return self.every / 2

    def whose_turn(self, pods: Sequence[str]) -> int:
        """Place of the pod that is asked first: another one in each look."""
        return int(self.now // self.every) % len(pods)


@dataclass(frozen=True, slots=True)
class Times:
    """Looks at certain times: the last one up to `now`, and the next one after it (unix)."""

    last: float
    next: float
    now: float

    def due(self, since: float) -> float:
        """When a look is due: at once where a time has passed since the one at `since`."""
        return self.last if since < self.last else self.next

    @property
    def max_age(self) -> float:
        """Of this turn is what was listed after its time."""
        return self.now - self.last

    def whose_turn(self, pods: Sequence[str]) -> int:
        """Place of the pod that is asked first: another one at another time, and for one time the same, however late
        and (nearly always) whoever has come or gone since. A restarted operator asks who was asked, and has listed."""
        return max(range(len(pods)), key=lambda place: crc32(f"{self.last} {pods[place]}".encode()))


def look_times(spec: VectorIndexSpec, uid: str, now: float) -> Polls | Times | None:
    """Of the VectorIndex `uid`. None: it is never looked at by itself."""
    source = spec.source
    if source.schedule is not None:
        late = delay(uid)
        last, coming = around(source.schedule, now - late)
        return Times(last + late, coming + late, now)
    return Polls(duration_seconds(source.poll), now) if source.looked_at else None


def delay(uid: str) -> int:
    """Seconds after its times at which a VectorIndex looks: always the same ones."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:4]) % SPREAD_SECONDS


def around(schedule: Schedule, at: float) -> tuple[float, float]:
    """The last time of a schedule up to unix time `at`, and the next one after it.

    Times of day mean the clock on the wall, as in Debian's cron: one that is skipped in spring comes right after the
    gap, one that comes twice in autumn is the first. What recurs by a star (every hour, every ten minutes) goes on
    evenly through both. CronSim goes by the clock on the wall: in the hour that comes twice what it gives as the next
    one may have been, and backwards it passes over one right after a gap. So it is followed from the one before.
    """
    here = datetime.fromtimestamp(int(at), ZoneInfo(schedule.time_zone))
    begin = next(CronSim(schedule.cron, here, reverse=True))
    last = begin.timestamp()
    for moment in CronSim(schedule.cron, begin):
        if moment.timestamp() > at:
            return last, moment.timestamp()
        last = moment.timestamp()
    raise ValueError(f"{schedule.cron!r} comes to an end")
