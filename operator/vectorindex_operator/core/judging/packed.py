"""Rows of a block that is over, kept in a tenth of the memory. Pure."""

from __future__ import annotations

import marshal
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

from vectorindex_operator.core.judging.evidence import Counted, Counts
from vectorindex_operator.core.judging.histogram import Bins

_read = attrgetter(*(one.name for one in fields(Counts) if one.name != "latency"))
_LEVEL = 1
OVERHEAD_BYTES = 120
"""Of a block, besides what is packed."""


class Packed(Sequence[Counted]):
    """Rows that nobody reads often: reading unpacks them."""

    __slots__ = ("_data", "_size")

    def __init__(self, rows: Iterable[Counted]) -> None:
        taken = [(one.bucket, one.segment, _values(one.cell), _own_overall(one)) for one in rows]
        self._size = len(taken)
        self._data = zlib.compress(marshal.dumps(taken), _LEVEL)

    @property
    def held(self) -> int:
        """Bytes of memory."""
        return len(self._data) + OVERHEAD_BYTES

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Counted]:
        for bucket, segment, cell, overall in marshal.loads(zlib.decompress(self._data)):  # noqa: S302 - our own bytes
            one = _counts(cell)
            yield Counted(bucket, segment, one, one if overall is None else _counts(overall))

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]


def _own_overall(one: Counted) -> tuple[Any, ...] | None:
    """None: all segments together get what the segment gets, as nearly always."""
    return None if one.overall is one.cell else _values(one.overall)


def _values(cell: Counts) -> tuple[Any, ...]:
    latency = cell.latency if isinstance(cell.latency, Bins) else Bins.of(cell.latency)
    return (*_read(cell), *latency.raw())


def _counts(values: tuple[Any, ...]) -> Counts:
    in_order: list[Any] = [*values[:-3], Bins.of_raw(*values[-3:])]
    return Counts(*in_order)
