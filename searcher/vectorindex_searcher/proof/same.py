"""Which given queries ask the same: as a row, or as each other. Rows and their copies are answered more easily than
other queries, and copies are no independent ones.

Under Cosine and InnerProduct the length of a query changes no answer, so there queries are compared by direction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ..contract import Metric
from ..index.metric import normalise
from ..index.vectors import SCAN_BYTES, VectorFile

SAME_DIRECTION = 1e-6
"""Between unit vectors: a multiple of a vector, rounded to float32, is nearer than a quarter of it."""

Vectors = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


def rows_that_equal(vectors: VectorFile, queries: Vectors) -> Numbers:
    """The first row that each query [n, d] equals, as the index sees both; -1 for none. One pass over the rows.

    Rows that are stored in half precision are compared with queries rounded as they were.
    """
    stored = np.ascontiguousarray(queries, np.float32)
    if vectors.half:
        with np.errstate(over="ignore"):  # what is beyond half precision equals no row
            stored = stored.astype(np.float16).astype(np.float32)
    if vectors.metric is Metric.L2:
        return _equal_rows(vectors, stored)
    found = _rows_of_direction(vectors, stored)
    if not vectors.half:
        return found
    # A multiple of a row is rounded otherwise than the row was.
    given = _rows_of_direction(vectors, queries)
    return np.where((found < 0) | ((given >= 0) & (given < found)), given, found)


def asking_the_same(queries: Vectors, metric: Metric) -> Numbers:
    """The number of the first of the queries [n, d] that each asks the same as; its own, where none did before."""
    first = np.arange(len(queries))
    if metric is Metric.L2:
        known: dict[bytes, int] = {}
        for number, query in enumerate(queries):
            first[number] = known.setdefault(query.tobytes(), number)
        return first
    lines = _Lines(queries.shape[1])
    units = normalise(queries)
    cells: dict[tuple[int, int], list[int]] = {}
    for number, (one, other) in enumerate(np.floor(lines.places(units) / SAME_DIRECTION).astype(np.int64).tolist()):
        around = [(one + right, other + up) for right in (-1, 0, 1) for up in (-1, 0, 1)]
        there = np.array([one for cell in around for one in cells.get(cell, ())], np.int64)
        # By one call: whoever asks thousands beside each other that are not the same has them all compared.
        near = there[_close(units[there], units[number])] if len(there) else there
        if len(near):
            first[number] = near.min()
        else:
            cells.setdefault((one, other), []).append(number)
    return first


def marks(queries: Vectors, metric: Metric) -> npt.NDArray[np.uint64]:
    """A number drawn for each query [n, d] by its content: the same every time, and for those that ask the same."""
    drawn = [hashlib.blake2b(query.tobytes(), digest_size=8).digest() for query in np.ascontiguousarray(queries, "<f4")]
    return np.frombuffer(b"".join(drawn), "<u8").astype(np.uint64)[asking_the_same(queries, metric)]


class _Lines:
    """Two random lines: vectors that are near each other are as near along each of them.

    Drawn anew each time, so that nobody can choose vectors that share a place; what is found does not depend on them.
    """

    def __init__(self, dimension: int) -> None:
        lines = np.random.default_rng().standard_normal((dimension, 2))
        self._lines = lines / np.linalg.norm(lines, axis=0)

    def places(self, units: Vectors) -> npt.NDArray[np.float64]:
        """float64 [n, 2]"""
        places: npt.NDArray[np.float64] = units.astype(np.float64) @ self._lines
        return places


def _close(one: Vectors, other: Vectors) -> npt.NDArray[np.bool_]:
    """Whether unit vectors [..., d] have one direction."""
    close: npt.NDArray[np.bool_] = np.linalg.norm(one - other, axis=-1) <= SAME_DIRECTION
    return close


def _rows_of_direction(vectors: VectorFile, queries: Vectors) -> Numbers:
    """The first row with the direction of each query; queries that are not finite have none."""
    usable = np.flatnonzero(np.isfinite(queries).all(axis=1))
    first = asking_the_same(queries[usable], vectors.metric)
    heads = np.unique(first)
    units, lines = normalise(queries[usable[heads]]), _Lines(queries.shape[1])
    places = lines.places(units)
    order = np.argsort(places[:, 0])
    units, places = units[order], places[order]
    found = np.full(len(heads), -1)  # in that order
    for start, block in vectors.blocks():
        rows = block if vectors.metric is Metric.COSINE else normalise(block)
        for row, query in _near(lines.places(rows), places, max(64, SCAN_BYTES // (4 * queries.shape[1]))):
            same = _close(rows[row], units[query])
            # Backwards: of several rows the first is written last.
            now = np.full(len(heads), -1)
            now[query[same][::-1]] = row[same][::-1] + start
            found = np.where(found < 0, now, found)
        if (found >= 0).all():
            break
    of_head = np.full(len(heads), -1)
    of_head[order] = found
    whole = np.full(len(queries), -1)
    whole[usable] = of_head[np.searchsorted(heads, first)]
    return whole


def _near(
    rows: npt.NDArray[np.float64], queries: npt.NDArray[np.float64], most: int
) -> Iterator[tuple[Numbers, Numbers]]:
    """Pairs of numbers whose places [n, 2] are near each other, at most `most` at a time, by rising rows.

    queries: rising along the first line.
    """
    low = np.searchsorted(queries[:, 0], rows[:, 0] - SAME_DIRECTION)
    counts = np.searchsorted(queries[:, 0], rows[:, 0] + SAME_DIRECTION, side="right") - low
    ends = np.cumsum(counts)
    for start in range(0, int(ends[-1]), most):
        numbers = np.arange(start, min(start + most, ends[-1]))
        row = np.searchsorted(ends, numbers, side="right")
        query = numbers - ends[row] + counts[row] + low[row]
        near = np.abs(rows[row, 1] - queries[query, 1]) <= SAME_DIRECTION
        yield row[near], query[near]


def _equal_rows(vectors: VectorFile, queries: Vectors) -> Numbers:
    """The first row that each query equals number by number. Only rows that agree in one number, the one in which the
    queries differ most, are compared."""
    column = int(np.argmax([len(np.unique(queries[:, number])) for number in range(queries.shape[1])]))
    wanted: dict[bytes, list[int]] = {}
    for number, query in enumerate(np.ascontiguousarray(queries, "<f4")):
        wanted.setdefault(query.tobytes(), []).append(number)
    found = np.full(len(queries), -1, np.int64)
    values = np.unique(queries[:, column])
    for first, block in vectors.blocks():
        for at in np.flatnonzero(np.isin(block[:, column], values)).tolist():
            for number in wanted.pop(np.ascontiguousarray(block[at], "<f4").tobytes(), ()):
                found[number] = first + at
        if not wanted:
            break
    return found
