"""Which given queries equal a row: they ask for more like it, are answered more easily, and are judged apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..index.vectors import VectorFile


def rows_that_equal(vectors: VectorFile, queries: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The first row that each query [n, d] equals number by number, as the index sees both; -1 for none.

    Rows that are stored in half precision are compared with queries rounded as they were. One pass over the rows. Only
    rows that agree in one number, the one in which the queries differ most, are compared.
    """
    stored = np.ascontiguousarray(queries, np.float32)
    if vectors.half:
        with np.errstate(over="ignore"):  # what is beyond half precision equals no row
            stored = stored.astype(np.float16).astype(np.float32)
    prepared = np.ascontiguousarray(vectors.prepared(stored), "<f4")
    column = int(np.argmax([len(np.unique(prepared[:, number])) for number in range(prepared.shape[1])]))
    wanted: dict[bytes, list[int]] = {}
    for number, query in enumerate(prepared):
        wanted.setdefault(query.tobytes(), []).append(number)
    found = np.full(len(queries), -1, np.int64)
    values = np.unique(prepared[:, column])
    for first, block in vectors.blocks():
        for at in np.flatnonzero(np.isin(block[:, column], values)).tolist():
            for number in wanted.pop(np.ascontiguousarray(block[at], "<f4").tobytes(), ()):
                found[number] = first + at
        if not wanted:
            break
    return found
