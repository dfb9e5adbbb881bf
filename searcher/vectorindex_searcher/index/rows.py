"""Arrow files with one value per indexed row (ids, metadata), read through a memory map.

Every record batch of a file but the last has the same number of rows, so a row number gives its batch by a division
and pods on one node share the pages. Nothing here loads a column as a whole. What an answer needs of columns is read by
scattered.py, however many batches there are; what is filtered or reordered, batch by batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import BadData
from .arrow_files import open_mapped
from .json_values import json_values
from .mapped import check_offsets
from .scattered import Batches, Numbers, Scattered, ScatteredNumbers, ScatteredTexts, scattered
from .value_sizes import sizes

IDS_BATCH_ROWS = 1 << 20
METADATA_BATCH_ROWS = 1 << 14
LARGEST_BATCH_BYTES = 1 << 30
"""Of one column, or it no longer fits Arrow's 32-bit offsets; a batch is also what a build holds in memory."""


class RowFile:
    """A mapped Arrow IPC file. `columns`: names; `count`: rows; `batches`: its record batches, mapped."""

    def __init__(self, path: Path) -> None:
        """Raises BadData when the file is no Arrow file, is compressed, a value lies outside of it or its batches are
        uneven."""
        try:
            reader, mapping = open_mapped(path)
            self.batches: list[pa.RecordBatch] = [
                reader.get_batch(number) for number in range(reader.num_record_batches)
            ]
            for batch in self.batches:
                check_offsets(batch)
        except (pa.ArrowException, OSError) as error:
            raise BadData("BadArtifact", f"{path.name}: {error}", object=path.name) from error
        self.columns: tuple[str, ...] = tuple(reader.schema.names)
        self.schema: pa.Schema = reader.schema
        self.count: int = sum(batch.num_rows for batch in self.batches)
        self._rows = self.batches[0].num_rows if self.batches else 1
        if any(batch.num_rows != self._rows for batch in self.batches[:-1]):
            raise BadData("BadArtifact", f"{path.name}: uneven record batches", object=path.name)
        of_each = ([batch.column(number) for batch in self.batches] for number in range(len(self.columns)))
        self._columns = [scattered(mapping, arrays) for arrays in of_each]

    def values(self, rows: npt.NDArray[np.int64], column: str) -> list[Any]:
        """JSON values of a column at `rows` (int64 [n], each in [0, count)), in order. KeyError: no such column."""
        index = self.schema.get_field_index(column)
        if index < 0:
            raise KeyError(column)
        if not len(rows):
            return []
        found = self._columns[index]
        if found is not None:
            return json_values(found.take(*self.places(rows)))
        batches, offsets = np.divmod(rows, self._rows)
        each = zip(batches.tolist(), offsets.tolist(), strict=True)
        return json_values(pa.concat_arrays([self.batches[batch].column(index).slice(row, 1) for batch, row in each]))

    def nbytes(self, rows: npt.NDArray[np.int64]) -> int:
        """Bytes that all columns hold at `rows`, names included, about; looks at offsets only."""
        if not len(rows):
            return 0
        total = len(rows) * sum(len(name) + 6 for name in self.columns)
        batches, offsets = self.places(rows)
        for number, column in enumerate(self._columns):
            if column is not None:
                total += int(column.span_bytes(batches, offsets, offsets + 1).sum())
            else:
                total += self._bytes_by_batch(number, rows)
        return total

    def _bytes_by_batch(self, column: int, rows: npt.NDArray[np.int64]) -> int:
        batches, offsets = np.divmod(rows, self._rows)
        total = 0
        for number in np.unique(batches).tolist():
            inside = offsets[batches == number]
            total += int(sizes(self.batches[number].column(column), inside, inside + 1).sum())
        return total

    def column(self, name: str) -> Scattered | None:
        """What reads a column's rows without Arrow's objects; None for types that need them."""
        return self._columns[self.columns.index(name)]

    def places(self, rows: npt.NDArray[np.int64]) -> tuple[Batches, Numbers]:
        """For each row its record batch and its number in there."""
        if len(self.batches) == 1:
            return 0, rows
        batches = rows // self._rows
        return batches, rows - batches * self._rows

    def gather(self, rows: npt.NDArray[np.int64]) -> pa.Table:
        """The rows (int64 [n]) as a table, in their order; memory: theirs, whatever the file holds."""
        batches, offsets = np.divmod(rows, self._rows)
        order = np.argsort(batches, kind="stable")
        parts = [self.batches[number].take(pa.array(offsets[batches == number])) for number in np.unique(batches)]
        found = pa.Table.from_batches(parts, self.schema).combine_chunks()
        return found.take(pa.array(np.argsort(order, kind="stable")))

    def reordered(self, ones: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> Iterator[pa.Table]:
        """The file's batches with ones[i] and others[i] exchanged; memory: a batch. No row occurs twice."""
        order = np.argsort(places := np.concatenate([ones, others]), kind="stable")
        places, rows = places[order], np.concatenate([others, ones])[order]
        for number, batch in enumerate(self.batches):
            first = number * self._rows
            low, high = np.searchsorted(places, (first, first + batch.num_rows))
            whole = pa.Table.from_batches([batch])
            if low < high:
                taken = np.arange(batch.num_rows)
                taken[places[low:high] - first] = batch.num_rows + np.arange(high - low)
                joined = pa.concat_tables([whole, self.gather(rows[low:high])]).combine_chunks()
                whole = joined.take(pa.array(taken))
            yield whole

    @property
    def batch_rows(self) -> int:
        """Rows of every batch but the last."""
        return self._rows

    def table(self) -> pa.Table:
        """The whole file as a table of mapped chunks (for predicates over columns); copies nothing."""
        return pa.Table.from_batches(self.batches, self.schema)


class Ids:
    """The user's id of each row: int64 or string, read from the mapped file without Arrow's objects."""

    def __init__(self, path: Path) -> None:
        self._file = RowFile(path)
        self.count = self._file.count
        if self._file.columns != ("id",) or any(chunk.null_count for chunk in self.chunks()):
            raise BadData("BadArtifact", f"{path.name}: expected one column, id, without nulls", object=path.name)
        kind, column = self._file.schema.field("id").type, self._file.column("id")
        self._integers = column if pa.types.is_int64(kind) and isinstance(column, ScatteredNumbers) else None
        # There are no nulls, so offsets and bytes say all there is.
        self._strings = column if pa.types.is_string(kind) and isinstance(column, ScatteredTexts) else None

    def chunks(self) -> list[pa.Array]:
        """All ids in order, as mapped Arrow arrays (for matching many at once); copies nothing."""
        chunks: list[pa.Array] = self._file.table().column("id").chunks
        return chunks

    def __call__(self, rows: npt.NDArray[np.int64]) -> list[int] | list[str]:
        """Ids at `rows` (int64 [n], each in [0, count))."""
        if self._integers is not None:
            taken: list[int] = self._integers.values(*self._file.places(rows)).tolist()
            return taken
        if self._strings is None:
            return self._file.values(rows, "id")
        found, data = self._strings.values(*self._file.places(rows))
        ends = found.tolist()
        if data.isascii():
            text = data.decode("ascii")
            return [text[start:end] for start, end in pairwise(ends)]
        return [data[start:end].decode("utf-8", "replace") for start, end in pairwise(ends)]

    def raw(self, rows: npt.NDArray[np.int64]) -> RawIds:
        """Ids at `rows` as bytes."""
        if self._integers is not None:
            return RawIds(self._integers.values(*self._file.places(rows)), b"", None)
        if self._strings is None:
            return RawIds(np.array(self(rows), np.int64), b"", None)
        ends, data = self._strings.values(*self._file.places(rows))
        return RawIds((ends[1:] - ends[:-1]).astype(np.uint32), data, ends.tolist())


@dataclass(frozen=True, slots=True)
class RawIds:
    """Ids as bytes. `numbers`: the ids, int64, or the lengths of strings in bytes, uint32."""

    numbers: npt.NDArray[np.int64] | npt.NDArray[np.uint32]
    text: bytes
    """String ids in UTF-8, one after the other."""
    ends: list[int] | None
    """Where strings end in `text`, with a 0 before the first; None: ids are integers."""

    def text_of(self, start: int, stop: int) -> bytes:
        """The string ids of [start, stop)."""
        return b"" if self.ends is None else self.text[self.ends[start] : self.ends[stop]]


class RowWriter:
    """Writes a RowFile from blocks of any size, with even batches; memory: about one batch. Use with `with`."""

    def __init__(self, path: Path, schema: pa.Schema, batch_rows: int) -> None:
        self._schema, self._batch_rows = schema, batch_rows
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, schema)
        self._pending: list[pa.Table] = []
        self._rows = self._bytes = 0

    def write(self, table: pa.Table) -> None:
        """Append rows; `table` has the schema given at the start. Raises BadData/RowsTooLarge."""
        self._pending.append(table)
        self._rows += table.num_rows
        self._bytes += table.nbytes
        if self._bytes > LARGEST_BATCH_BYTES:
            raise self._too_large()
        while self._rows >= self._batch_rows:
            joined = pa.concat_tables(self._pending)
            self._write_batch(joined.slice(0, self._batch_rows))
            rest = joined.slice(self._batch_rows)
            self._pending, self._rows, self._bytes = [rest], rest.num_rows, rest.nbytes

    def _too_large(self) -> BadData:
        held = {name: sum(table.column(name).nbytes for table in self._pending) for name in self._schema.names}
        name = max(held, key=lambda one: held[one])
        message = f"column {name!r} takes {held[name]} bytes in {self._rows} rows, and all of them {self._bytes}"
        remedy = f"Keep shorter values: {self._batch_rows} rows may take {LARGEST_BATCH_BYTES} bytes."
        return BadData("RowsTooLarge", message, remedy=remedy)

    def _write_batch(self, table: pa.Table) -> None:
        self._writer.write_table(table.combine_chunks(), max_chunksize=self._batch_rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._rows and error is None:
            self._write_batch(pa.concat_tables(self._pending))
        self._writer.close()
        self._sink.close()


def swap_rows(path: Path, ones: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> None:
    """Exchange rows of a RowFile: ones[i] with others[i]. Batch by batch, into a file that takes its place."""
    old, new = RowFile(path), path.with_name(f"{path.name}.new")
    with RowWriter(new, old.schema, old.batch_rows) as writer:
        for table in old.reordered(ones, others):
            writer.write(table)
    new.replace(path)


def order_rows(path: Path, order: npt.NDArray[np.int64]) -> None:
    """Put all rows of a RowFile in another order: row i becomes what order[i] was. Batch by batch, into a file that
    takes its place."""
    old, new = RowFile(path), path.with_name(f"{path.name}.new")
    with RowWriter(new, old.schema, old.batch_rows) as writer:
        for start in range(0, old.count, old.batch_rows):
            writer.write(old.gather(order[start : start + old.batch_rows]))
    new.replace(path)
