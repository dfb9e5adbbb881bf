"""Finding an id that occurs twice among any number of ids, with bounded memory.

64-bit hashes of all ids go to a file; they are compared one slice of the hash space at a time, so memory is a slice.
Equal hashes only accuse: the ids themselves decide. Integers hash one to one (splitmix64); strings hash by a
polynomial over their bytes, all at once from prefix sums, without a loop over strings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

SLICE_HASHES = 1 << 20
"""Hashes compared at a time (8 MiB, and about four times that to sort them)."""
SLICE_STRINGS = 1 << 12
"""Strings hashed at a time: the prefix sums take 8 bytes for every byte of them."""
_BASE = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2**64
_INVERSE = pow(_BASE, -1, 1 << 64)


def hash_ids(ids: pa.Array) -> npt.NDArray[np.uint64]:
    """uint64 [n] of an int64 or string array without nulls."""
    with np.errstate(over="ignore"):
        if pa.types.is_int64(ids.type):
            return _mix(ids.to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64))
        slices = [_polynomial(ids.slice(start, SLICE_STRINGS)) for start in range(0, len(ids), SLICE_STRINGS)]
        return _mix(np.concatenate(slices)) if slices else np.empty(0, np.uint64)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    values = values + np.uint64(_BASE)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed


def _powers(base: int, count: int) -> npt.NDArray[np.uint64]:
    powers = np.full(count + 1, base, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def _polynomial(ids: pa.Array) -> npt.NDArray[np.uint64]:
    """sum (byte+1) * B**position within each string, modulo 2**64, from differences of one prefix sum."""
    buffers = ids.buffers()
    offsets = np.frombuffer(buffers[1], np.int32, count=len(ids) + 1, offset=ids.offset * 4).astype(np.int64)
    start, end = int(offsets[0]), int(offsets[-1])
    data = (
        np.frombuffer(buffers[2], np.uint8, count=end - start, offset=start) if end > start else np.empty(0, np.uint8)
    )
    offsets -= start
    terms = (data.astype(np.uint64) + np.uint64(1)) * _powers(_BASE, len(data))[: len(data)]
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    found: npt.NDArray[np.uint64] = (sums[offsets[1:]] - sums[offsets[:-1]]) * _powers(_INVERSE, len(data))[
        offsets[:-1]
    ]
    return found


def find_duplicate(
    hashes: Path, count: int, ids_at: Callable[[npt.NDArray[np.int64]], Sequence[int | str]]
) -> tuple[int, int] | None:
    """Two row numbers with the same id (the earliest repetition in its slice), or None.

    hashes: file of `count` uint64. ids_at: the ids of row numbers.
    """
    if not count:
        return None
    bits = max(0, (count // SLICE_HASHES).bit_length())
    for part in range(1 << bits):
        rows, chosen = _part(hashes, count, part, bits)
        order = np.argsort(chosen, kind="stable")
        same = np.flatnonzero(chosen[order][1:] == chosen[order][:-1])
        if len(same):
            suspects = np.unique(np.concatenate([rows[order[same]], rows[order[same + 1]]]))
            if found := _confirm(suspects, ids_at(suspects)):
                return found
    return None


def _part(hashes: Path, count: int, part: int, bits: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Row numbers and hashes whose upper `bits` are `part`. Read, not mapped: a mapped page counts as memory."""
    rows: list[npt.NDArray[np.int64]] = []
    found: list[npt.NDArray[np.uint64]] = []
    for start in range(0, count, SLICE_HASHES):
        values = np.fromfile(hashes, np.uint64, min(SLICE_HASHES, count - start), offset=8 * start)
        chosen = np.flatnonzero(values >> np.uint64(64 - bits) == np.uint64(part)) if bits else np.arange(len(values))
        rows.append(chosen + start)
        found.append(values[chosen])
    return np.concatenate(rows), np.concatenate(found)


def _confirm(rows: npt.NDArray[np.int64], ids: Sequence[int | str]) -> tuple[int, int] | None:
    seen: dict[int | str, int] = {}
    for row, value in zip(rows.tolist(), ids, strict=True):
        if value in seen:
            return seen[value], row
        seen[value] = row
    return None
