"""Columns of a mapped Arrow file whose rows are wanted one here, one there: in a few calls of numpy for all of them.

With Arrow's objects a row costs a microsecond and more for each column, since rows of one answer lie in many batches.
But all batches lie in one mapping: where a value is follows from its batch and its number in there. Nothing is copied
but what is asked for, and beside the file there are 8 bytes a batch for each buffer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Numbers = npt.NDArray[np.int64]
Batches = Numbers | int
"""The record batch of each row; 0, where there is only one."""

_FEW_ROWS = 24
"""Fewer texts are quicker cut out one by one."""
_MANY_BYTES = 1 << 20
"""Cutting them all out at once takes twenty-four bytes of memory for each byte of text."""
_WIDTHS = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}
"""Bits of a value -> how it is copied."""


class Scattered(ABC):
    """One column. Rows are given by batch and number in there: int64 [n], within the batch."""

    @abstractmethod
    def take(self, batches: Batches, rows: Numbers) -> pa.Array:
        """The values at `rows`, in their order; texts and lists with wide offsets, whatever the column has."""

    @abstractmethod
    def span_bytes(self, batches: Batches, starts: Numbers, stops: Numbers) -> Numbers:
        """Bytes that the values [start, stop) hold, for each of these ranges, as value_sizes.sizes; looks at offsets
        only."""


def scattered(mapping: pa.Buffer, arrays: Sequence[pa.Array]) -> Scattered | None:
    """The column whose batches are `arrays`, within `mapping`. None for types that take more than arithmetic."""
    types, kind = pa.types, arrays[0].type if arrays else pa.null()
    if any(array.offset for array in arrays):
        return None  # no reader of files makes one
    try:
        if types.is_boolean(kind):
            return _ScatteredFlags(mapping, arrays)
        if types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind):
            return ScatteredTexts(mapping, arrays)
        if types.is_list(kind) or types.is_large_list(kind):
            items = scattered(mapping, [array.values for array in arrays])
            return None if items is None else _ScatteredLists(mapping, arrays, items)
        if types.is_struct(kind):
            fields = [scattered(mapping, [array.field(at) for array in arrays]) for at in range(kind.num_fields)]
            known = [field for field in fields if field is not None]
            return _ScatteredStructs(mapping, arrays, known) if len(known) == len(fields) else None
        return ScatteredNumbers(mapping, arrays) if types.is_primitive(kind) and kind.bit_width in _WIDTHS else None
    except _ElsewhereError:
        return None


class _ElsewhereError(Exception):
    """A buffer is not in the mapping, or not where its values can be counted from the beginning."""


class _Buffer:
    """One buffer of a column in all batches, as items of a type of numpy's."""

    def __init__(self, mapping: pa.Buffer, buffers: Sequence[pa.Buffer | None], kind: npt.DTypeLike) -> None:
        width = np.dtype(kind).itemsize
        starts = [_place(mapping, one, width) for one in buffers]
        self.items: npt.NDArray[Any] = np.frombuffer(mapping, kind, mapping.size // width)
        if len(starts) == 1:
            self.items, starts = self.items[starts[0] :], [0]
        self.starts: Numbers = np.array(starts)
        """Of each batch, in `items`."""

    def at(self, batches: Batches, rows: Numbers) -> npt.NDArray[Any]:
        places = rows if isinstance(batches, int) else self.starts[batches] + rows
        found: npt.NDArray[Any] = self.items[places]
        return found


def _place(mapping: pa.Buffer, buffer: pa.Buffer | None, width: int) -> int:
    """Where a buffer begins, in items of `width` bytes. Raises _ElsewhereError."""
    if buffer is None or not buffer.size:
        return 0
    at = int(buffer.address - mapping.address)
    if at % width or not 0 <= at <= mapping.size - buffer.size:
        raise _ElsewhereError
    return at // width


class _Bits:
    """One bit a row: flags, or which values are there."""

    def __init__(self, mapping: pa.Buffer, buffers: Sequence[pa.Buffer | None]) -> None:
        self._bytes = _Buffer(mapping, buffers, np.uint8)
        self._all = np.array([one is None for one in buffers])
        """A batch without a bitmap has every bit."""
        self._always = bool(self._all.all())

    def take(self, batches: Batches, rows: Numbers) -> pa.Buffer | None:
        """As Arrow has them; None: every one."""
        if self._always:
            return None
        found = (self._bytes.at(batches, rows >> 3) >> (rows & 7) & 1).astype(np.bool_) | self._all[batches]
        return pa.py_buffer(np.packbits(found, bitorder="little"))


class ScatteredNumbers(Scattered):
    """Values of 1, 2, 4 or 8 bytes."""

    def __init__(self, mapping: pa.Buffer, arrays: Sequence[pa.Array]) -> None:
        self._kind = arrays[0].type
        self._there = _Bits(mapping, [array.buffers()[0] for array in arrays])
        self._values = _Buffer(mapping, [array.buffers()[1] for array in arrays], _WIDTHS[self._kind.bit_width])
        self._width = max(8, self._kind.bit_width // 8)

    def values(self, batches: Batches, rows: Numbers) -> npt.NDArray[Any]:
        """As signed numbers of their width, whatever they are; where a value is null, anything."""
        return self._values.at(batches, rows)

    def take(self, batches: Batches, rows: Numbers) -> pa.Array:
        parts = [self._there.take(batches, rows), pa.py_buffer(self._values.at(batches, rows))]
        return pa.Array.from_buffers(self._kind, len(rows), parts)

    def span_bytes(self, batches: Batches, starts: Numbers, stops: Numbers) -> Numbers:  # noqa: ARG002
        found: Numbers = self._width * (stops - starts)
        return found


class _ScatteredFlags(Scattered):
    """True and false."""

    def __init__(self, mapping: pa.Buffer, arrays: Sequence[pa.Array]) -> None:
        self._there = _Bits(mapping, [array.buffers()[0] for array in arrays])
        self._values = _Bits(mapping, [array.buffers()[1] for array in arrays])

    def take(self, batches: Batches, rows: Numbers) -> pa.Array:
        parts = [self._there.take(batches, rows), self._values.take(batches, rows)]
        return pa.Array.from_buffers(pa.bool_(), len(rows), parts)

    def span_bytes(self, batches: Batches, starts: Numbers, stops: Numbers) -> Numbers:  # noqa: ARG002
        return 8 * (stops - starts)


class _Offsets:
    """Where values of any length begin: one more than there are rows."""

    def __init__(self, mapping: pa.Buffer, arrays: Sequence[pa.Array], *, wide: bool) -> None:
        self._buffer = _Buffer(mapping, [array.buffers()[1] for array in arrays], np.int64 if wide else np.int32)

    def spans(self, batches: Batches, rows: Numbers) -> tuple[Numbers, Numbers]:
        """Begin and length of each."""
        starts = self._buffer.at(batches, rows).astype(np.int64)
        return starts, self._buffer.at(batches, rows + 1) - starts

    def at(self, batches: Batches, rows: Numbers) -> Numbers:
        return self._buffer.at(batches, rows).astype(np.int64)


class ScatteredTexts(Scattered):
    """Strings or bytes."""

    def __init__(self, mapping: pa.Buffer, arrays: Sequence[pa.Array]) -> None:
        types, kind = pa.types, arrays[0].type
        self._kind = pa.large_string() if types.is_string(kind) or types.is_large_string(kind) else pa.large_binary()
        self._there = _Bits(mapping, [array.buffers()[0] for array in arrays])
        wide = types.is_large_string(kind) or types.is_large_binary(kind)
        self._offsets = _Offsets(mapping, arrays, wide=wide)
        self._bytes = _Buffer(mapping, [array.buffers()[2] for array in arrays], np.uint8)
        self._text = self._bytes.items.data

    def values(self, batches: Batches, rows: Numbers) -> tuple[Numbers, bytes]:
        """Where each value ends (int64 [n + 1], a 0 before the first) when all stand one after the other, and these
        bytes; of nulls anything."""
        starts, lengths = self._offsets.spans(batches, rows)
        starts += self._bytes.starts[batches]
        ends = _ends(lengths)
        if len(rows) < _FEW_ROWS or ends[-1] > _MANY_BYTES:
            spans = zip(starts.tolist(), (starts + lengths).tolist(), strict=True)
            return ends, b"".join([self._text[start:stop] for start, stop in spans])
        return ends, self._bytes.items[_each(starts, lengths, ends)].tobytes()

    def take(self, batches: Batches, rows: Numbers) -> pa.Array:
        ends, text = self.values(batches, rows)
        parts = [self._there.take(batches, rows), pa.py_buffer(ends), pa.py_buffer(text)]
        return pa.Array.from_buffers(self._kind, len(rows), parts)

    def span_bytes(self, batches: Batches, starts: Numbers, stops: Numbers) -> Numbers:
        return self._offsets.at(batches, stops) - self._offsets.at(batches, starts) + 2 * (stops - starts)


class _ScatteredLists(Scattered):
    """Lists of another column's values."""

    def __init__(self, mapping: pa.Buffer, arrays: Sequence[pa.Array], items: Scattered) -> None:
        self._items = items
        self._there = _Bits(mapping, [array.buffers()[0] for array in arrays])
        self._offsets = _Offsets(mapping, arrays, wide=pa.types.is_large_list(arrays[0].type))

    def take(self, batches: Batches, rows: Numbers) -> pa.Array:
        starts, lengths = self._offsets.spans(batches, rows)
        ends = _ends(lengths)
        of_each = batches if isinstance(batches, int) else np.repeat(batches, lengths)
        items = self._items.take(of_each, _each(starts, lengths, ends))
        parts = [self._there.take(batches, rows), pa.py_buffer(ends)]
        return pa.Array.from_buffers(pa.large_list(items.type), len(rows), parts, children=[items])

    def span_bytes(self, batches: Batches, starts: Numbers, stops: Numbers) -> Numbers:
        first, last = self._offsets.at(batches, starts), self._offsets.at(batches, stops)
        return self._items.span_bytes(batches, first, last) + 8 * (stops - starts)


class _ScatteredStructs(Scattered):
    """Several columns' values together."""

    def __init__(self, mapping: pa.Buffer, arrays: Sequence[pa.Array], fields: Sequence[Scattered]) -> None:
        self._names = arrays[0].type.names
        self._fields = fields
        self._there = _Bits(mapping, [array.buffers()[0] for array in arrays])
        self._names_bytes = sum(len(name) + 4 for name in self._names)

    def take(self, batches: Batches, rows: Numbers) -> pa.Array:
        parts = [field.take(batches, rows) for field in self._fields]
        kind = pa.struct([(name, part.type) for name, part in zip(self._names, parts, strict=True)])
        return pa.Array.from_buffers(kind, len(rows), [self._there.take(batches, rows)], children=parts)

    def span_bytes(self, batches: Batches, starts: Numbers, stops: Numbers) -> Numbers:
        names = self._names_bytes * (stops - starts)
        return sum((field.span_bytes(batches, starts, stops) for field in self._fields), names)


def _ends(lengths: Numbers) -> Numbers:
    """0, and where each of values of these lengths ends when they stand one after the other."""
    ends = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    return ends


def _each(starts: Numbers, lengths: Numbers, ends: Numbers) -> Numbers:
    """The numbers of all spans [start, start + length), one after the other. `ends`: of _ends."""
    return np.arange(int(ends[-1])) + np.repeat(starts - ends[:-1], lengths)
