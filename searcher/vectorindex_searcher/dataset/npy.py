"""NPY objects: a matrix of floats, no ids and no metadata. Never unpickles; the header's size is capped."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from ..contract import Columns
from ..errors import BadData, BadSpec
from ..store import Store
from .blocks import Block, Header, block_rows
from .listing import ListedObject

HEADER_BYTES = 4096


def _parse(store: Store, item: ListedObject) -> tuple[tuple[int, ...], np.dtype[np.floating], int]:
    """Shape, dtype and offset of the data. Raises BadData for anything but a complete C-ordered float matrix."""

    def corrupt(reason: str, what: str) -> BadData:
        return BadData(
            reason, f"{item.key} {what}", object=item.key, remedy="Write it with numpy.save, float32 [n, d]."
        )

    start = io.BytesIO(store.read(item.key, etag=item.etag, length=HEADER_BYTES))
    try:
        version = np.lib.format.read_magic(start)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(start, max_header_size=HEADER_BYTES)
    except (ValueError, KeyError, EOFError, SyntaxError) as error:
        raise corrupt("CorruptFile", f"has no readable NPY header: {error}") from error
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise corrupt("BadVectorType", f"holds {dtype}, expected float16, float32 or float64")
    if len(shape) != 2 or fortran:
        raise corrupt("BadVectorType", f"has shape {shape}{' in Fortran order' if fortran else ''}, expected [n, d]")
    if shape[0] and not shape[1]:
        raise corrupt("BadVectorType", "holds vectors of 0 dimensions")
    expected = start.tell() + shape[0] * shape[1] * dtype.itemsize
    if item.size != expected:
        raise corrupt("CorruptFile", f"is {item.size} bytes, its header says {expected}: truncated or overwritten")
    return shape, dtype, start.tell()


def read_header(store: Store, item: ListedObject, columns: Columns) -> Header | None:
    """The header of an object; None without rows. Raises BadSpec when metadata columns are asked for."""
    if columns.metadata:
        raise BadSpec(
            "UnknownColumn",
            f"{item.key} is NPY, which has no columns; {', '.join(columns.metadata)} cannot be read from it",
            object=item.key,
            field="spec.source.columns.metadata",
            remedy="Use Parquet for metadata, or remove the columns.",
        )
    shape, dtype, _ = _parse(store, item)
    if not shape[0]:
        return None
    return Header(shape[0], shape[1], dtype.itemsize == 2, None, pa.schema([]))


def read_blocks(store: Store, item: ListedObject, header: Header) -> Iterator[Block]:
    """The rows of an object in order, by ranges. Raises SourceChanged, BadData."""
    (rows, dimension), dtype, offset = _parse(store, item)
    step = block_rows(dimension)
    for first in range(0, rows, step):
        count = min(step, rows - first)
        width = dimension * dtype.itemsize
        data = store.read(item.key, etag=item.etag, offset=offset + first * width, length=count * width)
        if len(data) != count * width:
            raise BadData("CorruptFile", f"{item.key} ended at row {first + len(data) // width}", object=item.key)
        with np.errstate(over="ignore"):  # Inf is named by check_vectors
            vectors = np.frombuffer(data, dtype).reshape(count, dimension).astype(np.float32, copy=False)
        yield Block(item.key, first, vectors, None, pa.table({}))
    assert rows == header.rows
