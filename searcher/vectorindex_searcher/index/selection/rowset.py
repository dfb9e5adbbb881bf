"""A set of index rows as one bit each: what a filter matched, or what is left of an index after deletes.

Immutable, so threads and caches share them. Sets combine with `&` and `~`. Knows no filters and no index.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..binding import faiss

_PART_BYTES = 64 << 10
"""Of bits that are unpacked at a time, into eight times as many bytes."""
_LOW_BITS = tuple((1 << bits) - 1 if bits else 0xFF for bits in range(8))


class RowSet:
    """Rows of [0, count). `matching`: how many are in the set; `share`: matching / count."""

    __slots__ = ("_last", "_selector", "bits", "count", "matching", "share")

    def __init__(self, bits: npt.NDArray[np.uint8], count: int) -> None:
        """bits: uint8 [ceil(count / 8)], row r is bit r % 8 of byte r // 8; bits behind the last row are ignored."""
        if bits.shape != ((count + 7) // 8,):
            raise ValueError(f"bits have shape {bits.shape}, expected ({(count + 7) // 8},) for {count} rows")
        mask = _LOW_BITS[count % 8]
        if len(bits) and bits[-1] & ~np.uint8(mask):
            bits = bits.copy()
            bits[-1] &= mask
        self.bits = np.ascontiguousarray(bits)
        self.count = count
        self.matching = int(np.bitwise_count(self.bits).sum(dtype=np.int64))
        self.share = self.matching / count if count else 0.0
        self._selector: Any = None
        self._last: tuple[RowSet, RowSet] | None = None

    @classmethod
    def of_mask(cls, mask: npt.NDArray[np.bool_]) -> RowSet:
        """The rows where bool [count] is True."""
        return cls(np.packbits(mask, bitorder="little"), len(mask))

    @classmethod
    def of_rows(cls, rows: npt.NDArray[np.int64], count: int) -> RowSet:
        """The rows named (int64 [n], each in [0, count))."""
        bits = np.zeros((count + 7) // 8, np.uint8)
        np.bitwise_or.at(bits, rows >> 3, np.left_shift(1, rows & 7).astype(np.uint8))
        return cls(bits, count)

    @property
    def nbytes(self) -> int:
        """Memory of the bits."""
        return self.bits.nbytes

    def rows(self) -> npt.NDArray[np.int64]:
        """The rows in the set, int64 [matching], rising. Memory: theirs, however many the index has."""
        found, at = np.empty(self.matching, np.int64), 0
        for part in self._parts():
            found[at : at + len(part)] = part
            at += len(part)
        return found

    def blocks(self, most: int) -> Iterator[npt.NDArray[np.int64]]:
        """The rows in the set, rising, `most` of them at a time; the last block may be shorter. Memory: a block, and
        some megabytes."""
        held = np.zeros(0, np.int64)
        for part in self._parts():
            held = np.concatenate([held, part])
            while len(held) >= most:
                yield held[:most]
                held = held[most:]
        if len(held):
            yield held

    def _parts(self) -> Iterator[npt.NDArray[np.int64]]:
        """The rows of some bytes of bits after the other."""
        for start in range(0, len(self.bits), _PART_BYTES):
            bits = self.bits[start : start + _PART_BYTES]
            places = np.flatnonzero(bits)
            if 4 * len(places) < len(bits):  # few: only the bytes that hold one are unpacked
                which, bit = np.nonzero(np.unpackbits(bits[places], bitorder="little").reshape(-1, 8))
                yield (start + places[which]) * 8 + bit
            else:
                yield 8 * start + np.flatnonzero(np.unpackbits(bits, bitorder="little"))

    def holds(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether each of `rows` (any shape, -1 for none) is in the set."""
        there = np.maximum(rows, 0)
        found: npt.NDArray[np.bool_] = ((self.bits[there >> 3] >> (there & 7)) & 1).astype(np.bool_) & (rows >= 0)
        return found

    def __and__(self, other: RowSet) -> RowSet:
        """Rows in both. The last answer is kept: a cached filter meets the same deletes again and again."""
        last = self._last
        if last is not None and last[0] is other:
            return last[1]
        if self.count != other.count:
            raise ValueError(f"sets of {self.count} and of {other.count} rows do not combine")
        both = RowSet(self.bits & other.bits, self.count)
        self._last = (other, both)
        return both

    def __invert__(self) -> RowSet:
        """Rows that are not in the set."""
        return RowSet(~self.bits, self.count)

    @property
    def selector(self) -> Any:
        """The set as a faiss.IDSelector, made once; it reads the bits in place."""
        if self._selector is None:
            self._selector = faiss.IDSelectorBitmap(self.bits)
        return self._selector
