"""Query vectors as little-endian float32, from whatever a program has: lists, arrays, numpy, anything with a buffer."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, SupportsFloat

Vector = Sequence[SupportsFloat] | Any
"""One vector: a sequence of numbers, or an object with a buffer of one dimension (array, memoryview, numpy.ndarray)."""
Vectors = Sequence[Vector] | Any
"""Several vectors of one length: a sequence of them, or an object with a buffer of two dimensions."""


def one(vector: Vector) -> bytes:
    """The bytes of one vector. Raises ValueError when it is none."""
    whole = _float_buffer(vector, 1)
    if whole is not None:
        return whole[0]
    if isinstance(vector, str | bytes):
        raise ValueError("a query is a vector of numbers, not a text: embed it first")
    try:
        numbers = array("f", vector)
    except TypeError:
        try:
            numbers = array("f", [float(x) for x in vector])  # a tensor's elements, Decimal, numpy scalars
        except (TypeError, ValueError) as error:
            raise ValueError(f"a query is a vector of numbers: {error}") from None
    if not numbers:
        raise ValueError("the query vector is empty")
    return _little_endian(numbers)


def many(vectors: Vectors) -> tuple[list[bytes], int]:
    """The bytes of each vector, and their common length. Raises ValueError naming the vector that is wrong."""
    whole = _float_buffer(vectors, 2)
    found = whole if whole is not None else [_numbered(number, vector) for number, vector in enumerate(vectors)]
    if not found:
        return [], 0
    for number, data in enumerate(found):
        if len(data) != len(found[0]):
            lengths = f"{len(data) // 4} numbers, the first has {len(found[0]) // 4}"
            raise ValueError(f"queries[{number}] has {lengths}: they must be as long as the index's dimension")
    return found, len(found[0]) // 4


def numbers(data: bytes) -> list[float]:
    """The numbers of a vector's bytes."""
    floats = array("f", data)
    if sys.byteorder == "big":
        floats.byteswap()
    return floats.tolist()


def _numbered(number: int, vector: Vector) -> bytes:
    try:
        return one(vector)
    except ValueError as error:
        raise ValueError(f"queries[{number}]: {error}") from None


def _float_buffer(data: Any, dimensions: int) -> list[bytes] | None:
    """The rows of an object with a buffer, or None when it has none that is known here."""
    if hasattr(data, "astype"):  # numpy, or alike: other widths, other byte orders, strides
        data = data.astype("<f4")
    try:
        view = memoryview(data)
    except TypeError:
        return None
    if view.format not in ("f", "<f") or (sys.byteorder == "big" and view.format == "f"):
        return None
    if view.ndim != dimensions:
        shape = "one vector" if dimensions == 1 else "a matrix of one vector a row"
        raise ValueError(f"expected {shape}, got an array of {view.ndim} dimensions")
    if 0 in (view.shape or (0,)):
        if dimensions == 2 and view.shape and view.shape[0] == 0:
            return []
        raise ValueError("the query vector is empty")
    whole = view.tobytes()
    if dimensions == 1:
        return [whole]
    size = len(whole) // len(view)
    return [whole[start : start + size] for start in range(0, len(whole), size)]


def _little_endian(floats: array[float]) -> bytes:
    if sys.byteorder == "big":
        floats.byteswap()
    return floats.tobytes()


def joined(vectors: Iterable[bytes]) -> bytes:
    """Several vectors' bytes, one after the other."""
    return b"".join(vectors)
