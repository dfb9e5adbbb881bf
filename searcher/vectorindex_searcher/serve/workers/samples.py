"""What live recall is measured on in a pod of several processes: from each that searches to the one that judges.

Both are processes of this pod; what is sent is bytes in memory that goes with a message (memory.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from ...index.selection.rowset import RowSet
from ..evidence.live_sample import LiveSample, Sampled

REMEMBERED = 3
"""States of deleted ids that are known by number: older ones are of rounds that are over."""


class LiveStates:
    """The rows that could be answered, by number: each process has the same set under the same one."""

    def __init__(self, first: RowSet | None) -> None:
        self._sets: dict[int, RowSet | None] = {0: first}

    @property
    def newest(self) -> int:
        """Number of the state that it is now."""
        return max(self._sets)

    def learn(self, number: int, rows: RowSet | None) -> None:
        """From now on it is this one."""
        self._sets[number] = rows
        for old in sorted(self._sets)[:-REMEMBERED]:
            del self._sets[old]

    def number_of(self, rows: RowSet | None) -> int:
        """-1: one that is forgotten."""
        return next((number for number, known in reversed(self._sets.items()) if known is rows), -1)

    def known(self, number: int) -> bool:
        return number in self._sets

    def __getitem__(self, number: int) -> RowSet | None:
        return self._sets[number]


def packed(sample: Sequence[Sampled], states: LiveStates) -> Iterator[bytes]:
    """A process's sample as bytes, piece by piece: it is megabytes."""
    rows = [
        [one.bucket, one.segment, one.draw, one.overall, len(one.rows), states.number_of(one.live)] for one in sample
    ]
    head = orjson.dumps(rows)
    yield len(head).to_bytes(8, "little") + head
    for one in sample:
        yield one.vector.astype("<f4", copy=False).tobytes() + one.rows.astype("<i8", copy=False).tobytes()


def unpacked(data: bytes, dimension: int, states: LiveStates) -> list[Sampled]:
    """The inverse, each with memory of its own. What was answered in a state that is forgotten is left out."""
    size = int.from_bytes(data[:8], "little")
    at = 8 + size
    found = []
    for bucket, segment, draw, overall, count, number in orjson.loads(data[8:at]):
        vector = np.frombuffer(data, "<f4", dimension, at)
        rows = np.frombuffer(data, "<i8", count, at + vector.nbytes)
        at += vector.nbytes + rows.nbytes
        if states.known(number):
            found.append(Sampled(bucket, segment, vector.copy(), rows.copy(), draw, overall, states[number]))
    return found


class Rounds:
    """Rounds of several processes as one, and their samples as one: no larger than that of one process."""

    def __init__(self, workers: int, began: int, segments: Sequence[str]) -> None:
        """began: the bucket in which the first round began."""
        self._since = [began] * workers
        self._told: set[int] = set()
        self._sample = LiveSample(segments)

    def add(self, worker: int, since: int, sample: Sequence[Sampled]) -> None:
        """A process ended its round; its next one begins in bucket `since`."""
        self._since[worker] = since
        self._told.add(worker)
        for item in sample:
            self._sample.put(item)

    @property
    def whole(self) -> bool:
        """Whether every process has said something since the last `take`."""
        return len(self._told) == len(self._since)

    def take(self) -> tuple[list[Sampled], int]:
        """The sample of what all of them were asked, and the first bucket whose queries may still be unjudged."""
        self._told.clear()
        return self._sample.take()[0], min(self._since)


def tallies_wire(tallies: Sequence[Any]) -> list[Mapping[str, object]]:
    """LiveTallies as JSON has them."""
    return [{name: getattr(one, name) for name in one.__slots__} for one in tallies]
