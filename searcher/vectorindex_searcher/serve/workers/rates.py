"""How many live queries a pod of several processes may mirror: one budget, from which each of them draws.

Tokens and their lock are in memory that all of them share. To part the rate among them would leave most of it unused
where one is asked more than the others, and would not be a uniform sample of what the pod is asked.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence

from ..shadow.rates import Draw, Rates, state_size


class SharedRates:
    """Made before the processes are: they inherit the mapping. `segments`: those that are declared, and `other`."""

    def __init__(self, segments: int) -> None:
        size = 8 * state_size(segments)
        self._descriptor = os.memfd_create("vectorindex-rates", os.MFD_CLOEXEC)
        os.ftruncate(self._descriptor, size)
        self._state = memoryview(mmap.mmap(self._descriptor, size)).cast("d")

    def rates(self, per_second: float, segments: Sequence[str], now: float) -> Rates:
        """What a process draws with. Another rate takes over the tokens that are left."""
        return _PodRates(per_second, segments, now, self._state, self._descriptor)


class _PodRates(Rates):
    """Rates whose draws no two processes make at once. Never waits: who finds another one drawing leaves its query
    out, which is one of thousands.

    The lock is the system's, on the file: a process that dies with it gives it back.
    """

    def __init__(
        self, per_second: float, segments: Sequence[str], now: float, state: memoryview[float], descriptor: int
    ) -> None:
        super().__init__(per_second, segments, now, state)
        self._descriptor = descriptor

    def draw(self, segment: str, now: float) -> Draw | None:
        """As Rates."""
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return None
        try:
            return super().draw(segment, now)
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
