"""Bytes for other processes of the pod that no message holds: by a descriptor of memory. The rows that may be answered,
from the process that lists deleted ids to those that search, are so one mapping that all of them share."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable

import numpy as np

from ...index.selection.rowset import RowSet


def descriptor_of(rows: RowSet) -> int:
    """A descriptor of the set's bits, to be given away and closed."""
    return written((rows.bits.data,))


def written(pieces: Iterable[bytes | memoryview[int]]) -> int:
    """A descriptor of these bytes, one piece after the other; they live as long as it is open or mapped."""
    descriptor = os.memfd_create("vectorindex", os.MFD_CLOEXEC)
    try:
        for piece in pieces:
            left = memoryview(piece)
            while left:
                left = left[os.write(descriptor, left) :]
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def rows_of(descriptor: int, count: int) -> RowSet:
    """The inverse; closes the descriptor. The bits stay in the mapping."""
    try:
        mapped = mmap.mmap(descriptor, (count + 7) // 8, prot=mmap.PROT_READ)
    finally:
        os.close(descriptor)
    return RowSet(np.frombuffer(mapped, np.uint8), count)


def read(descriptor: int) -> bytes:
    """All bytes of a descriptor of `written`; closes it."""
    try:
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)
