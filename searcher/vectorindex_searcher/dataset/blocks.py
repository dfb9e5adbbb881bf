"""Blocks of rows as they stream out of a source, and the checks every block passes. All vectorised.

A block is a few megabytes: whatever the size of the source, no more than a few blocks are in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..contract import Metric
from ..errors import BadData
from ..index.faults import Fault, fault
from .column_types import is_extension
from .column_values import without_views
from .objects import ListedObject

BLOCK_BYTES = 16 << 20
"""Float32 bytes of one block's vectors."""
MAX_DIMENSION = 65_536
"""Of spec.embedding.dimension too. Whatever a header claims, a block of 64 rows stays small."""
ROWS_PER_BYTE = 64
"""No real object holds more rows than this per stored byte, however well it is compressed: ids differ."""


def block_rows(dimension: int) -> int:
    """Rows of a block: at least 64, so huge vectors make progress; at most 65,536, since ids and metadata count too."""
    return min(1 << 16, max(64, BLOCK_BYTES // (4 * dimension)))


@dataclass(frozen=True, slots=True)
class Header:
    """What an object's header says, before its rows are read."""

    rows: int
    dimension: int
    """0 from a format whose rows have texts, or nothing: only what makes their vectors knows it."""
    half: bool
    """float16 holds every vector exactly: float16 or 8-bit integers."""
    id_type: pa.DataType | None
    """int64 or string; None when the object has no ids (NPY): they are the row numbers of the whole source."""
    metadata: pa.Schema
    """The type that each column is kept with, for this object alone (column_types.py)."""


def check_claims(item: ListedObject, rows: int, dimension: int) -> None:
    """Refuse what no real object can hold, before memory is sized by it. Raises BadData."""
    if not 1 <= dimension <= MAX_DIMENSION:
        message = f"{item.key} holds vectors of {dimension} dimensions, expected 1 to {MAX_DIMENSION}"
        raise BadData("BadVectorType", message, object=item.key, remedy="Write the object again.")
    if not 0 <= rows <= item.size * ROWS_PER_BYTE:
        message = f"{item.key} claims {rows} rows in {item.size} bytes"
        raise BadData("CorruptFile", message, object=item.key, remedy="Write the object again.")


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows of one object."""

    object: str
    first_row: int
    """Number of the first row within its object."""
    vectors: npt.NDArray[np.float32]
    """[n, dimension], as given (not normalised); [n, 0] where rows have none (Columns.bare)."""
    ids: pa.Array | None
    """int64 or string [n]; None for objects without ids, whose ids are the row numbers of the whole source."""
    metadata: pa.Table
    """The metadata columns, n rows: as the object has them, from a format; from a Source, of its one schema."""
    texts: pa.Array | None = None
    """string [n], in the place of vectors, which have no dimension then; None: there are vectors."""

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        columns = (self.vectors, self.ids, self.metadata, self.texts)
        return sum(int(column.nbytes) for column in columns if column is not None)


def texts_of(column: pa.Array, key: str, first_row: int) -> tuple[npt.NDArray[np.float32], pa.Array]:
    """No vectors yet, float32 [n, 0], and the texts of a column. Raises BadData/NullText naming the row."""
    texts = without_views(column).cast(pa.string())
    if texts.null_count:
        row = first_row + int(np.argmax(texts.is_null().to_numpy(zero_copy_only=False)))
        remedy = "Remove the row or fill in its text."
        raise BadData("NullText", f"{key} row {row} has no text", object=key, row=row, remedy=remedy)
    return no_vectors(len(texts)), texts


def no_vectors(rows: int) -> npt.NDArray[np.float32]:
    """Of rows that have none, or none yet: float32 [rows, 0]."""
    return np.empty((rows, 0), np.float32)


_FAULTS = {
    Fault.NON_FINITE: ("holds NaN or Inf", "Remove or repair the row."),
    Fault.ZERO: (
        "is the zero vector, under metric Cosine",
        "A zero vector has no cosine: remove the row, or use metric L2 or InnerProduct.",
    ),
    Fault.TOO_LONG: ("is so long that distances overflow float32", "Scale the data."),
}


def check_vectors(block: Block, metric: Metric) -> None:
    """Raises BadData naming the first bad row: NaN or Inf, a zero vector under Cosine, a length that overflows."""
    found = fault(block.vectors, metric)
    if found is not None:
        kind, rows = found
        raise _bad_row(block, rows, kind.value, *_FAULTS[kind])


def _bad_row(block: Block, bad: npt.NDArray[np.bool_], reason: str, what: str, remedy: str) -> BadData:
    row = block.first_row + int(np.argmax(bad))
    more = int(bad.sum()) - 1
    also = f" (and {more} more near it)" if more else ""
    return BadData(reason, f"{block.object} row {row} {what}{also}", object=block.object, row=row, remedy=remedy)


def vectors_of(column: pa.Array, key: str, first_row: int, dimension: int | None) -> npt.NDArray[np.float32]:
    """float32 [n, dimension] of a column that column_types.vector_item takes; zero copies for float32 without offsets.

    `dimension` None: that of the first row. Raises BadData naming the row: null vector, null element, another length.
    """

    def bad(mask: npt.NDArray[np.bool_], reason: str, what: str, remedy: str) -> BadData:
        row = first_row + int(np.argmax(mask))
        return BadData(reason, f"{key} row {row} {what}", object=key, row=row, remedy=remedy)

    column = without_views(column.storage if is_extension(column.type) else column)
    if column.null_count:
        mask = column.is_null().to_numpy(zero_copy_only=False)
        raise bad(mask, "NullVector", "has no vector", "Remove the row or fill in its vector.")
    if pa.types.is_fixed_size_list(column.type):
        lengths = np.full(len(column), column.type.list_size)
    else:
        lengths = np.diff(column.offsets.to_numpy())
    dimension = int(lengths[0]) if dimension is None else dimension
    if dimension < 1:
        raise bad(lengths < 1, "EmptyVector", "has a vector of 0 dimensions", "Remove the row or fill in its vector.")
    if (other := lengths != dimension).any():
        length = int(lengths[np.argmax(other)])
        remedy = "All vectors of an index come from one model and have one length (embedding.dimension)."
        raise bad(other, "MixedDimensions", f"has {length} dimensions, expected {dimension}", remedy)
    values = column.flatten()
    if values.null_count:
        holes = values.is_null().to_numpy(zero_copy_only=False).reshape(-1, dimension).any(axis=1)
        raise bad(holes, "NullVector", "has a null inside its vector", "Remove the row or fill in its vector.")
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.float64())
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes Inf, which check_vectors names
        narrow: npt.NDArray[np.float32] = values.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    return narrow.reshape(-1, dimension)
