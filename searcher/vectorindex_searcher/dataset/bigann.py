"""fbin, u8bin, i8bin (big-ann-benchmarks): rows and dimension as little-endian uint32, then the numbers. No ids."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..contract import Columns
from ..errors import BadData
from ..store import Store
from .blocks import Block, Header
from .matrix import Matrix, check_matrix, matrix_blocks, matrix_header
from .objects import ListedObject
from .reader import Format, refuse_columns

_DTYPES: dict[str, np.dtype[Any]] = {".fbin": np.dtype("<f4"), ".u8bin": np.dtype("u1"), ".i8bin": np.dtype("i1")}


def _parse(store: Store, item: ListedObject) -> Matrix:
    start = store.read(item.key, etag=item.etag, length=8)
    if len(start) < 8:
        message = f"{item.key} is {item.size} bytes, its header alone takes 8"
        raise BadData("CorruptFile", message, object=item.key, remedy="Write the object again.")
    rows, dimension = struct.unpack("<II", start)
    dtype = _DTYPES[item.key[item.key.rindex(".") :]]
    return check_matrix(item, Matrix(rows, dimension, dtype, 8))


def read_header(store: Store, item: ListedObject, columns: Columns) -> Header | None:
    """The header of an object; None without rows. Raises BadSpec when metadata columns are asked for."""
    refuse_columns(item, FORMAT.name, columns)
    return matrix_header(_parse(store, item))


def read_blocks(store: Store, item: ListedObject, columns: Columns, header: Header) -> Iterator[Block]:  # noqa: ARG001
    """The rows of an object in order, by ranges. Raises SourceChanged, BadData."""
    return matrix_blocks(store, item, _parse(store, item))


FORMAT = Format(name="fbin, u8bin or i8bin", suffixes=tuple(_DTYPES), header=read_header, blocks=read_blocks)
