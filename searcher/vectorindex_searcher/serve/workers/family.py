"""CPU and memory of all processes of a pod, under the names that one process has them."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Family(Collector):
    """`first`: the process that loaded the index and was forked; `members`: all of them that run now."""

    def __init__(self, first: int, members: Callable[[], Iterable[int]]) -> None:
        self._first, self._members = first, members
        self._began = time.time()
        self._cpu: dict[int, float] = {}
        """Of processes that have ended too: a counter never falls."""

    def describe(self) -> Iterable[Metric]:
        """Nothing, as SearcherMetrics."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """At this moment."""
        members, descriptors, own, mapped = 0, 0, 0, 0
        first, _ = _pages(self._first)
        for pid in {self._first, *self._members()}:
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                self._cpu[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
                anonymous, shared = _pages(pid)
                # What a child has of its own is about what it has more than its parent; files are there once.
                own += anonymous if pid == self._first else max(0, anonymous - first)
                mapped = max(mapped, shared)
                descriptors += len(list(Path(f"/proc/{pid}/fd").iterdir()))
                members += 1
        spent = CounterMetricFamily("process_cpu_seconds", "CPU seconds of all processes of the pod.")
        spent.add_metric((), sum(self._cpu.values()))
        yield spent
        for name, text, value in (
            ("process_resident_memory_bytes", "Memory of all processes, what they share once.", (own + mapped) * _PAGE),
            ("process_open_fds", "Open files of all processes.", descriptors),
            ("process_max_fds", "Files that all processes may open, an equal part each.", members * _most_files()),
            ("process_start_time_seconds", "Unix time of the start.", self._began),
        ):
            family = GaugeMetricFamily(name, text)
            family.add_metric((), value)
            yield family


def _most_files() -> float:
    """Of one process: the first one raised the limit (http/limits.py), and the others have it from there."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return float("inf") if soft == resource.RLIM_INFINITY else soft


def _pages(pid: int) -> tuple[int, int]:
    """Resident pages of a process: its own and its parent's, and those of files and shared mappings."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0, 0
    return int(fields[1]) - int(fields[2]), int(fields[2])
