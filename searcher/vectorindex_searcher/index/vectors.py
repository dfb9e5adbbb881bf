"""vectors.npy: the rows of an artifact as they were given, for exact search. Written and read in blocks.

Under Cosine the file keeps the vectors as given and every reader normalises them in the same way as the build did.
All of it is read, nothing mapped: a large file does not count as this process's memory, and a thread that waits for
the disk holds up no other.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from ..contract import Metric
from ..errors import BadData
from ..storage.prefetch import prefetch
from .metric import normalise

SCAN_BYTES = 16 << 20
PREPARE_ROWS = 4096
_GATHER_BYTES = 1 << 20
"""Of rows that are gathered, held twice."""


class VectorWriter:
    """Writes vectors.npy. Use with `with`."""

    def __init__(self, path: Path, rows: int | None, dimension: int, *, half: bool) -> None:
        """rows: how many will come (headers of the source say so); None: the header is written again at the end, with
        as many as came."""
        self._dtype = np.dtype("<f2" if half else "<f4")
        self._file = path.open("wb")
        self._counts, self._dimension, self._rows = rows is None, dimension, 0
        self._header(0 if rows is None else rows)

    def _header(self, rows: int) -> None:
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (rows, self._dimension)}
        np.lib.format.write_array_header_1_0(self._file, header)  # of one length, whatever the rows

    def write(self, vectors: npt.NDArray[np.float32]) -> None:
        """Append float32 [n, dimension]; float16 files only get what was float16 before."""
        self._file.write(np.ascontiguousarray(vectors, dtype=self._dtype).data)
        self._rows += len(vectors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._counts and error is None:
            self._file.seek(0)
            self._header(self._rows)
        self._file.close()


class VectorFile:
    """vectors.npy, read as the index sees it: float32, unit length under Cosine. Closes with `close` or `with`."""

    def __init__(self, path: Path, metric: Metric, rows: int | None = None) -> None:
        """rows: read as if there were only the first so many. Raises BadData/BadArtifact when the file is not a
        complete matrix of floats."""
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.metric = metric
        start = io.BytesIO(os.pread(self._fd, 4096, 0))
        try:
            np.lib.format.read_magic(start)
            shape, _, dtype = np.lib.format.read_array_header_1_0(start, max_header_size=4096)
            self.count, self.dimension = shape
        except ValueError as error:
            raise BadData("BadArtifact", f"{path.name}: {error}", object=path.name) from error
        self._offset, self._dtype = start.tell(), dtype
        self.half: bool = dtype.itemsize == 2
        """Whether rows are stored in half precision."""
        self._width = self.dimension * dtype.itemsize
        if os.fstat(self._fd).st_size != self._offset + self.count * self._width or dtype.kind != "f":
            raise BadData("BadArtifact", f"{path.name} is not {self.count} rows of floats", object=path.name)
        self.count = self.count if rows is None else min(rows, self.count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Again does nothing: the number may be another file's by then."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def raw(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows [start, stop) as given, float32."""
        found = np.empty((stop - start, self.dimension), self._dtype)
        view, done = found.view(np.uint8).reshape(-1).data, 0
        while done < len(view):  # a read returns at most 2 GiB and may return less
            read = os.preadv(self._fd, [view[done:]], self._offset + start * self._width + done)
            if not read:
                raise BadData("BadArtifact", f"vectors.npy ended before row {stop}", object="vectors.npy")
            done += read
        return found.astype(np.float32, copy=False)

    def prepared(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Vectors as the index takes them: unit length under Cosine."""
        return normalise(vectors) if self.metric is Metric.COSINE else vectors

    def prepare(self, vectors: npt.NDArray[np.float32]) -> None:
        """Like `prepared`, in place: a training sample can be as large as the index."""
        for start in range(0, len(vectors), PREPARE_ROWS):
            vectors[start : start + PREPARE_ROWS] = self.prepared(vectors[start : start + PREPARE_ROWS])

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """(first row, prepared float32 [n, dimension]) over the whole file; the next block is read meanwhile."""
        return prefetch(self._blocks())

    def _blocks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        step = max(64, SCAN_BYTES // (4 * self.dimension))
        for start in range(0, self.count, step):
            block = self.raw(start, min(start + step, self.count))
            if self.metric is Metric.COSINE:
                self.prepare(block)
            yield start, block
            del block

    def blocks_of(self, rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """As `blocks`, over `rows` (int64 [n], rising) alone; the first number counts within them."""
        step = max(64, SCAN_BYTES // (4 * self.dimension))
        for start in range(0, len(rows), step):
            yield start, self.gather(rows[start : start + step])

    def gather(self, rows: npt.NDArray[np.int64], *, prepared: bool = True) -> npt.NDArray[np.float32]:
        """float32 [n, dimension] of any rows, in their order. A read for each costs a third of what a fault does, which
        maps 64 KiB around it. Raises BadData where the file has become shorter."""
        found = np.empty((len(rows), self.dimension), np.float32)
        order = np.argsort(rows, kind="stable")  # as they lie on the disk
        step = max(1, _GATHER_BYTES // self._width)
        for start in range(0, len(rows), step):
            some = order[start : start + step]
            places = (self._offset + self._width * rows[some]).tolist()
            read = b"".join([os.pread(self._fd, self._width, place) for place in places])
            if len(read) != self._width * len(some):
                raise BadData("BadArtifact", "vectors.npy ended before a row of it", object="vectors.npy")
            found[some] = np.frombuffer(read, self._dtype).reshape(len(some), -1)
        if prepared and self.metric is Metric.COSINE:
            self.prepare(found)
        return found


def swap_rows(path: Path, ones: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> None:
    """Exchange rows of vectors.npy in place: ones[i] with others[i]; no row occurs twice. Memory: two rows."""
    with path.open("r+b") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        start, width = file.tell(), shape[1] * dtype.itemsize
        for one, other in zip((start + width * ones).tolist(), (start + width * others).tolist(), strict=True):
            first, second = os.pread(file.fileno(), width, one), os.pread(file.fileno(), width, other)
            os.pwrite(file.fileno(), second, one)
            os.pwrite(file.fileno(), first, other)


def order_rows(path: Path, order: npt.NDArray[np.int64]) -> None:
    """Put all rows of vectors.npy in another order: row i becomes what order[i] was. Into a file that takes its place;
    memory: SCAN_BYTES."""
    new = path.with_name(f"{path.name}.new")
    with VectorFile(path, Metric.L2) as old:
        step = max(64, SCAN_BYTES // (4 * old.dimension))
        with VectorWriter(new, old.count, old.dimension, half=old.half) as writer:
            for start in range(0, old.count, step):
                writer.write(old.gather(order[start : start + step], prepared=False))
    new.replace(path)
