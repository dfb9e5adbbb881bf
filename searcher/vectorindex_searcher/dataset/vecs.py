"""fvecs, bvecs, ivecs (TEXMEX): every vector preceded by its dimension as a little-endian int32. No ids."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from ..errors import BadData
from ..storage.store import Store
from .blocks import MAX_DIMENSION
from .matrix import Matrix, check_matrix, matrix_format
from .objects import ListedObject

_DTYPES: dict[str, np.dtype[Any]] = {".fvecs": np.dtype("<f4"), ".bvecs": np.dtype("u1"), ".ivecs": np.dtype("<i4")}


def _parse(store: Store, item: ListedObject) -> Matrix:
    dtype = _DTYPES[item.key[item.key.rindex(".") :].lower()]
    if not item.size:
        return Matrix(0, 1, dtype, 0, 4)
    start = store.read(item.key, etag=item.etag, length=4)
    dimension = struct.unpack("<i", start)[0] if len(start) == 4 else 0
    if not 1 <= dimension <= MAX_DIMENSION:
        message = f"{item.key} begins with a vector of {dimension} dimensions, expected 1 to {MAX_DIMENSION}"
        raise BadData("BadVectorType", message, object=item.key, remedy="Write the object again.")
    stride = 4 + dimension * dtype.itemsize
    rows, rest = divmod(item.size, stride)
    if rest:
        message = f"{item.key} is {item.size} bytes, not a multiple of the {stride} bytes of its first row"
        remedy = f"It is truncated after row {rows - 1}, or its vectors differ in length: write it again."
        raise BadData("CorruptFile", message, object=item.key, row=rows, remedy=remedy)
    return check_matrix(item, Matrix(rows, dimension, dtype, 0, 4))


FORMAT = matrix_format("fvecs, bvecs or ivecs", tuple(_DTYPES), _parse)
