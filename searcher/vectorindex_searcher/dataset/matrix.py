"""Rows of numbers at a fixed distance from each other: what NPY, fvecs, fbin and contiguous HDF5 have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..contract import Columns
from ..errors import BadData
from ..storage.store import Store
from .blocks import Block, Header, block_rows, check_claims
from .names import partition_column, partition_type
from .objects import ListedObject
from .reader import Format, refuse_columns

DTYPES = (
    *("float16", "float32", "float64"),
    *(f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "u")),
)
"""What a format that carries its own type may hold."""
HALF = ("float16", "int8", "uint8")
"""Those whose every number float16 holds exactly."""
CONVERSION = "in numpy, for example, numpy.ascontiguousarray(v, numpy.float32)"


@dataclass(frozen=True, slots=True)
class Matrix:
    """Where the rows of an object are. Row i begins at `offset + i * stride`; its numbers at `prefix` bytes after."""

    rows: int
    dimension: int
    dtype: np.dtype[np.generic]
    offset: int
    prefix: int = 0
    """Bytes before each vector: an int32 that repeats the dimension (fvecs)."""

    @property
    def stride(self) -> int:
        return self.prefix + self.dimension * self.dtype.itemsize

    @property
    def end(self) -> int:
        return self.offset + self.rows * self.stride


def check_matrix(item: ListedObject, matrix: Matrix, *, exact: bool = True) -> Matrix:
    """The same matrix. Raises BadData when the object cannot hold it; `exact`: also when bytes are left over."""
    if matrix.rows < 0 or (matrix.end != item.size if exact else matrix.end > item.size):
        what = f"{matrix.rows} vectors of {matrix.dimension} dimensions ({matrix.dtype})"
        message = f"{item.key} is {item.size} bytes; {what} end at byte {matrix.end}: truncated or overwritten"
        raise BadData("CorruptFile", message, object=item.key, remedy="Write the object again.")
    if matrix.rows:
        check_claims(item, matrix.rows, matrix.dimension)
    return matrix


def bad_type(item: ListedObject, what: str, conversion: str = CONVERSION) -> BadData:
    """The refusal of a matrix of something else than the numbers above."""
    remedy = f"Write vectors [n, d] of {', '.join(DTYPES)}; {conversion}."
    return BadData("BadVectorType", f"{item.key} {what}", object=item.key, remedy=remedy)


def matrix_format(name: str, suffixes: tuple[str, ...], parse: Callable[[Store, ListedObject], Matrix]) -> Format:
    """The format whose objects are one matrix each; `parse` says where its rows are, or raises BadData."""

    def header(store: Store, item: ListedObject, columns: Columns) -> Header | None:
        refuse_columns(item, name, columns)
        return matrix_header(parse(store, item), item, columns)

    def blocks(store: Store, item: ListedObject, columns: Columns, header: Header) -> Iterator[Block]:  # noqa: ARG001
        return matrix_blocks(store, item, parse(store, item), header)

    return Format(name=name, suffixes=suffixes, header=header, blocks=blocks)


def matrix_header(matrix: Matrix, item: ListedObject, columns: Columns) -> Header | None:
    """The header of a matrix; None without rows. Its metadata are the folders that it lies in."""
    if not matrix.rows:
        return None
    metadata = pa.schema([(name, partition_type(item.key, name)) for name in columns.metadata])
    return Header(matrix.rows, matrix.dimension, matrix.dtype.name in HALF, None, metadata)


def matrix_blocks(store: Store, item: ListedObject, matrix: Matrix, header: Header) -> Iterator[Block]:
    """The rows in order, by ranges. Raises SourceChanged, BadData/{CorruptFile, MixedDimensions} naming the row."""
    step = block_rows(matrix.dimension)
    for first in range(0, matrix.rows, step):
        count = min(step, matrix.rows - first)
        start, wanted = matrix.offset + first * matrix.stride, count * matrix.stride
        data = store.read(item.key, etag=item.etag, offset=start, length=wanted)
        if len(data) != wanted:
            raise BadData(
                "CorruptFile", f"{item.key} ended at row {first + len(data) // matrix.stride}", object=item.key
            )
        raw = np.frombuffer(data, np.uint8).reshape(count, matrix.stride)
        if matrix.prefix:
            _check_prefixes(item, matrix, first, raw)
            raw = np.ascontiguousarray(raw[:, matrix.prefix :])
        with np.errstate(over="ignore"):  # Inf is named by check_vectors
            vectors = raw.view(matrix.dtype).reshape(count, matrix.dimension).astype(np.float32, copy=False)
        metadata = {name: partition_column(item.key, name, count) for name in header.metadata.names}
        yield Block(item.key, first, vectors, None, pa.table(metadata))


def _check_prefixes(
    item: ListedObject, matrix: Matrix, first: int, raw: np.ndarray[tuple[int, int], np.dtype[np.uint8]]
) -> None:
    lengths = np.ascontiguousarray(raw[:, : matrix.prefix]).view("<i4").ravel()
    other = lengths != matrix.dimension
    if other.any():
        row = first + int(np.argmax(other))
        message = f"{item.key} row {row} has {int(lengths[np.argmax(other)])} dimensions, expected {matrix.dimension}"
        remedy = "All vectors of an index come from one model and have one length; or the file is damaged."
        raise BadData("MixedDimensions", message, object=item.key, row=row, remedy=remedy)
