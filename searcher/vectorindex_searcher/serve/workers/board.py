"""Numbers that the processes of a pod show each other all the time, in one shared mapping.

Every word has one writer, so nothing is locked: aligned words of eight bytes are written and read as a whole.
"""

from __future__ import annotations

import mmap

from ... import contract

_WORDS = 8
"""Of a worker: a line of the processor's cache, so that no two write into the same one."""
_RECEIVED, _OPEN, _IN_FLIGHT, _WAITING, _BEAT = range(5)


class Board:
    """Made before the processes are: they inherit the mapping, and see what each writes."""

    def __init__(self) -> None:
        # Anonymous, and shared with processes that are forked.
        self._memory = mmap.mmap(-1, contract.MOST_PROCESSES * _WORDS * 8)
        self._whole = memoryview(self._memory).cast("q")
        self._times = memoryview(self._memory).cast("d")

    def line(self, worker: int) -> Line:
        """What one worker writes, and the others read."""
        return Line(self._whole[worker * _WORDS :][:_WORDS], self._times[worker * _WORDS :][:_WORDS])


class Line:
    """One worker's numbers."""

    def __init__(self, whole: memoryview[int], times: memoryview[float]) -> None:
        self._whole, self._times = whole, times

    def tell(self, received: int, connections: int, in_flight: int, waiting: int) -> None:
        """By the worker. `received`: connections since the start; `waiting`: vectors whose search has not begun."""
        whole = self._whole
        whole[_RECEIVED], whole[_OPEN], whole[_IN_FLIGHT], whole[_WAITING] = received, connections, in_flight, waiting

    def beat(self, now: float) -> None:
        """By the worker: its event loop turns. `now`: monotonic, the same clock in all processes."""
        self._times[_BEAT] = now

    @property
    def received(self) -> int:
        return int(self._whole[_RECEIVED])

    @property
    def connections(self) -> int:
        return int(self._whole[_OPEN])

    @property
    def in_flight(self) -> int:
        return int(self._whole[_IN_FLIGHT])

    @property
    def waiting(self) -> int:
        return int(self._whole[_WAITING])

    @property
    def beaten(self) -> float:
        """When it last did; 0.0: never."""
        return float(self._times[_BEAT])
