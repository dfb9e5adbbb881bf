"""What idle.py counts and judges: requests by what they are for, the operator's process by /proc, figures by goals."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from cost import memory

Event = Mapping[str, Any]

_READS, _LISTS = frozenset({"get", "list", "watch"}), frozenset({"list"})
_WATCHER = "kopf/"
"""How the user agent of what watches begins; all else the operator asks through another client."""


class Use(StrEnum):
    """What a request is for."""

    READ = "reads of looks"
    RELIST = "relist"
    WATCH = "watches"
    WRITE = "writes"
    LEASE_READ = "reads of the Lease"
    LEASE_WRITE = "writes of the Lease"

    @property
    def reads(self) -> bool:
        return self in (Use.READ, Use.RELIST, Use.WATCH)


def use_of(event: Event) -> Use | None:
    """None: this stage of a request that is counted by another one of its stages.

    A watch counts when it begins, everything else when it is answered. A list of all namespaces is the relist's, or
    part of beginning a watch where whoever watches asks for it; a look lists in one namespace.
    """
    about, verb = event.get("objectRef") or {}, event["verb"]
    if event["stage"] == "RequestReceived" or (event["stage"] == "ResponseStarted") != (verb == "watch"):
        return None
    if about.get("resource") == "leases":
        return Use.LEASE_READ if verb in _READS else Use.LEASE_WRITE
    if verb not in _READS:
        return Use.WRITE
    if verb == "watch" or event.get("userAgent", "").startswith(_WATCHER):
        return Use.WATCH
    return Use.RELIST if verb in _LISTS and not about.get("namespace") else Use.READ


def counted(events: Iterable[Event]) -> Counter[Use]:
    """How many requests of each use."""
    return Counter(use for event in events if (use := use_of(event)) is not None)


def written(events: Iterable[Event]) -> Counter[str]:
    """Writes by verb and resource: what to look for when there should be none."""
    return Counter(
        f"{event['verb']} {event['objectRef'].get('resource')}{_sub(event)}"
        for event in events
        if use_of(event) is Use.WRITE
    )


def _sub(event: Event) -> str:
    sub = event["objectRef"].get("subresource")
    return f"/{sub}" if sub else ""


def at(text: str) -> float:
    """Unix seconds of a time in the audit log."""
    return datetime.fromisoformat(text).timestamp()


@dataclass(slots=True)
class Tail:
    """Reads an audit log from where it was read last. `user`: whose events."""

    file: Path
    user: str
    _offset: int = 0
    _inode: int = 0

    def skip(self) -> None:
        """Forget what stands there by now."""
        self._offset = self._known(self.file.stat()).st_size

    def new(self) -> Iterator[Event]:
        """What was written since; a line that is not whole yet is left for the next time. Raises RuntimeError when the
        log has begun a new file: nobody knows how much of the old one was not read."""
        with self.file.open("rb") as log:
            self._known(os.fstat(log.fileno()))
            log.seek(self._offset)
            for line in log:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                event = json.loads(line)
                if event["user"]["username"] == self.user:
                    yield event

    def _known(self, found: os.stat_result) -> os.stat_result:
        if self._inode not in (0, found.st_ino):
            raise RuntimeError(f"{self.file} is another file by now: raise --audit-log-maxsize of the API server")
        self._inode = found.st_ino
        return found


@dataclass(frozen=True, slots=True)
class Usage:
    """A process as /proc tells of it: CPU seconds since its start, memory now and at most, MB (10**6 bytes)."""

    cpu: float
    memory: float
    peak: float


def usage(pid: int) -> Usage:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), memory("VmRSS", pid) / 1e6, memory("VmHWM", pid) / 1e6)


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure and the most that it may be."""

    figure: str
    most: float
    unit: str

    def verdict(self, value: float | None) -> str:
        """`pass`, `MISS`, or that it was not measured: never a pass by absence."""
        if value is None:
            return "not measured"
        return "pass" if value <= self.most else "MISS"


GOALS = (
    Goal("idle_writes_per_s", 0.0, "/s"),
    Goal("idle_reads_per_s", 1.0, "/s"),
    Goal("idle_cpu_share", 0.03, "of a core"),
    Goal("idle_memory_mb", 200.0, "MB"),
    Goal("soak_look_ms_8", 15.0, "ms"),
    Goal("soak_look_ms_32", 60.0, "ms"),
    Goal("fail_to_switch_p99_s", 1.0, "s"),
)
