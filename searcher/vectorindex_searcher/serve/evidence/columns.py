"""Evidence as columns: one page of contract.EvidenceColumns, filled row by row until it is long enough.

A third of the bytes of the rows, and only what changed. Knows no ring and no HTTP.
"""

from __future__ import annotations

import math

import numpy as np
import orjson

from ... import contract
from .ring import Ints

_FIELDS = {name: contract.EvidenceBucket.model_fields[name].alias or name for name in contract.COUNTERS}
_ROW_BYTES = 16
"""Of bucket, segment and the number of bins."""


class ColumnsPage:
    """One page. `full`: it holds what an answer should; what is left goes onto the next one."""

    def __init__(self) -> None:
        self._buckets: list[int] = []
        self._segments: list[int] = []
        self._counts: dict[str, list[float | None]] = {name: [] for name in contract.COUNTERS}
        self._sizes: list[int] = []
        self._bins: list[int] = []
        self._bin_counts: list[int] = []
        self._bytes = 0

    @property
    def full(self) -> bool:
        return self._bytes >= contract.EVIDENCE_PAGE_BYTES

    def add(self, bucket: int, segment: int, counters: dict[str, float], bins: Ints, counts: Ints) -> None:
        """What one segment of a bucket holds now."""
        self._buckets.append(bucket)
        self._segments.append(segment)
        written = _ROW_BYTES
        for name, column in self._counts.items():
            value = counters.get(name, 0)
            # Whole numbers are written as such; JSON has no word for what is not a number.
            number = None if not math.isfinite(value) else int(value) if value == int(value) else value
            column.append(number)
            written += len(str(number)) + 1 if number else 2
        self._sizes.append(len(bins))
        distances = np.diff(bins, prepend=0).tolist()
        numbers = counts.tolist()
        self._bins += distances
        self._bin_counts += numbers
        self._bytes += written + len(str(distances)) + len(str(numbers))

    def write(self, head: dict[str, object]) -> bytes:
        """The answer, after the fields of `head`. Counters that are 0 in all rows are left out."""
        document = head | {
            "bucket": self._buckets,
            "segment": self._segments,
            "counts": {_FIELDS[name]: column for name, column in self._counts.items() if any(v != 0 for v in column)},
            "latencySizes": self._sizes,
            "latencyBins": self._bins,
            "latencyCounts": self._bin_counts,
        }
        return orjson.dumps(document)
