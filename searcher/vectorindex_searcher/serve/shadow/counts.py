"""What one shadow has come to in this pod: contract.PairCounts by bucket and segment, bounded. Thread-safe."""

from __future__ import annotations

import threading
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

import orjson

from ... import contract

_PLACES = {name: place for place, name in enumerate(contract.PAIR_COUNTERS)}
_FIELDS = tuple((contract.PairCounts.model_fields[name].alias or name, place) for name, place in _PLACES.items())
_EMPTY = bytes(8 * len(_PLACES))
_BUCKETS = contract.RING_SECONDS // contract.BUCKET_SECONDS
_HEAD_BYTES = 4096
"""Of an answer, besides its rows."""

Row = tuple[int, str, "array[float]"]
"""Bucket, segment, and the counters in the order of contract.PAIR_COUNTERS."""


class PairRows:
    """Counts of the shadow `shadow`. `reference`, `judged`: as contract.PairEvidence has them."""

    def __init__(self, shadow: str, reference: str = "", judged: str = "") -> None:
        self.shadow, self.reference, self.judged = shadow, reference, judged
        self._lock = threading.Lock()
        self._rows: dict[int, dict[str, array[float]]] = {}
        """By bucket and segment."""
        self._buckets: deque[int] = deque()
        """In the order in which they began."""

    def add(self, bucket: int, segment: str, counts: Mapping[str, float], *, overall: bool) -> None:
        """Count for a segment (one of those that are declared, or `other`), and for all together if `overall`. What
        comes for a bucket that is forgotten is no evidence any more."""
        with self._lock:
            rows = self._rows_of(bucket)
            for name in (segment, "") if overall else (segment,):
                row = rows.setdefault(name, array("d", _EMPTY))
                for counter, value in counts.items():
                    row[_PLACES[counter]] += value

    def merge(self, rows: Iterable[tuple[int, str, Sequence[float]]]) -> None:
        """Add what another process has counted, as its `take` told it."""
        with self._lock:
            for bucket, segment, more in rows:
                row = self._rows_of(bucket).setdefault(segment, array("d", _EMPTY))
                row[:] = array("d", [mine + other for mine, other in zip(row, more, strict=True)])

    def take(self) -> list[Row]:
        """What was counted since the last call, by bucket: it is another's from now on."""
        with self._lock:
            taken, self._rows = self._rows, {}
            self._buckets.clear()
        return [(bucket, name, row) for bucket in sorted(taken) for name, row in taken[bucket].items()]

    def _rows_of(self, bucket: int) -> dict[str, array[float]]:
        """By segment. Of a bucket that is forgotten they are nobody's."""
        rows = self._rows.get(bucket)
        if rows is not None:
            return rows
        rows = {}
        if self._buckets and bucket <= self._buckets[-1] - _BUCKETS:
            return rows
        self._rows[bucket] = rows
        self._buckets.append(bucket)
        if len(self._buckets) > _BUCKETS:
            del self._rows[self._buckets.popleft()]
        return rows

    def rows(self) -> list[Row]:
        """All of them as they are now, by bucket."""
        with self._lock:
            return [
                (bucket, segment, array("d", row))
                for bucket in sorted(self._rows)
                for segment, row in self._rows[bucket].items()
            ]

    def document(self, head: Mapping[str, object]) -> bytes:
        """contract.PairEvidence as JSON, with the fields of `head`. Where the rows are too many for an answer, those of
        2, 4, 8 ... buckets are one: they add up to the same."""
        rows, width = self.rows(), 1
        while True:
            written = [_written(row) for row in _joined(rows, width)]
            if sum(map(len, written)) + len(written) + _HEAD_BYTES <= contract.PAIRS_BYTES:
                break
            width *= 2
        known = {**head, "shadow": self.shadow, "reference": self.reference}
        return orjson.dumps(known)[:-1] + b',"rows":[' + b",".join(written) + b"]}"


def _joined(rows: list[Row], width: int) -> Iterator[Row]:
    if width == 1:
        yield from rows
        return
    together: dict[tuple[int, str], array[float]] = {}
    for bucket, segment, row in rows:
        known = together.setdefault((bucket // width * width, segment), array("d", _EMPTY))
        known[:] = array("d", [mine + more for mine, more in zip(known, row, strict=True)])
    for (bucket, segment), row in together.items():
        yield bucket, segment, row


def _written(row: Row) -> bytes:
    """Without counters that are 0; whole numbers as such."""
    bucket, segment, values = row
    told: dict[str, object] = {"bucket": bucket, "segment": segment}
    for name, place in _FIELDS:
        if value := values[place]:
            told[name] = int(value) if value == int(value) else value
    return orjson.dumps(told)
