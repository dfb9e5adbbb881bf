"""fbin, u8bin, i8bin (big-ann-benchmarks): rows and dimension as little-endian uint32, then the numbers. No ids."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from ..errors import BadData
from ..storage.store import Store
from .matrix import Matrix, check_matrix, matrix_format
from .objects import ListedObject

_DTYPES: dict[str, np.dtype[Any]] = {".fbin": np.dtype("<f4"), ".u8bin": np.dtype("u1"), ".i8bin": np.dtype("i1")}


def _parse(store: Store, item: ListedObject) -> Matrix:
    start = store.read(item.key, etag=item.etag, length=8)
    if len(start) < 8:
        message = f"{item.key} is {item.size} bytes, its header alone takes 8"
        raise BadData("CorruptFile", message, object=item.key, remedy="Write the object again.")
    rows, dimension = struct.unpack("<II", start)
    dtype = _DTYPES[item.key[item.key.rindex(".") :].lower()]
    return check_matrix(item, Matrix(rows, dimension, dtype, 8))


FORMAT = matrix_format("fbin, u8bin or i8bin", tuple(_DTYPES), _parse)
