"""NPY objects: a matrix of numbers, no ids and no metadata. Never unpickles; the header's size is capped."""

from __future__ import annotations

import io

import numpy as np

from ..errors import BadData
from ..storage.store import Store
from .matrix import DTYPES, Matrix, bad_type, check_matrix, matrix_format
from .objects import ListedObject

HEADER_BYTES = 4096


def _parse(store: Store, item: ListedObject) -> Matrix:
    """Where the rows are. Raises BadData for anything but a complete C-ordered matrix of numbers."""
    start = io.BytesIO(store.read(item.key, etag=item.etag, length=HEADER_BYTES))
    try:
        version = np.lib.format.read_magic(start)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(start, max_header_size=HEADER_BYTES)
    except Exception as error:  # the header is Python source: numpy's parser of it fails in many ways, all of them data
        message = f"{item.key} has no readable NPY header: {' '.join(str(error).split())[:200]}"
        raise BadData("CorruptFile", message, object=item.key, remedy="Write it with numpy.save.") from error
    if dtype.name not in DTYPES:
        raise bad_type(item, f"holds {dtype}")
    if len(shape) != 2 or fortran:
        raise bad_type(item, f"has shape {shape}{' in Fortran order' if fortran else ''}")
    rows, dimension = (int(length) for length in shape)
    if rows and dimension < 1:
        raise bad_type(item, f"holds vectors of {dimension} dimensions")
    return check_matrix(item, Matrix(rows, dimension, dtype, start.tell()))


FORMAT = matrix_format("NPY", (".npy",), _parse)
