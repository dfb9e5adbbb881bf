"""The one place that decides how many OpenMP threads FAISS uses.

OpenMP's thread count belongs to the calling thread, so setting it once at start does not reach worker threads: each
thread that calls FAISS goes through `limit_threads`. A searcher answers many queries at once and uses one thread each;
a build uses every core of the container.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

_set = threading.local()


def available_cores() -> int:
    """Cores this process may use: the cgroup's CPU quota where there is one, else the affinity mask. At least 1."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, -(-int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return max(1, cores)


def limit_threads(threads: int) -> None:
    """FAISS calls from this thread use `threads` OpenMP threads. Cheap when nothing changes."""
    if getattr(_set, "threads", None) != threads:
        from .binding import faiss  # here: who only counts cores shall not load it

        faiss.omp_set_num_threads(threads)
        _set.threads = threads
