"""A Parquet object as pyarrow reads it: column by column, in batches whose decoded bytes are bounded beforehand.

What a page takes once it is decoded is told by its header (page_headers.py): a text that stands once in a dictionary is
taken whole by every value that refers to it. A batch that could take too much has fewer rows; lists, of which one row
may have any number of values, are read with their dictionaries, so that what each row takes is known before it does.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import BadData, TaskError
from ..storage.store import Store
from .decoded_size import holds_dictionary, rows_within
from .names import shown
from .objects import ListedObject
from .page_headers import LARGEST_CONTENT_BYTES, Page, PageHeaders, Stream
from .ranged import RangedFile

FETCH_BYTES = 4 << 20
"""Fetched at a time and per column. Row groups may be larger than memory; they are never read whole."""
FETCHED_BYTES = 64 << 20
"""Of all columns together."""
BUFFER_BYTES = 64 << 10
"""Of a column that pyarrow takes at a time: what is known of pages before a batch that does not need them."""
LARGEST_PAGE_BYTES = 128 << 20
"""As stored. Arrow takes a page into memory whole, so this bounds what one takes (decompressed: page_headers.py)."""
FOOTER_BYTES = 32 << 20
"""A footer takes thirty times this in memory. 10,000 chunks of columns and row groups take about 1 MiB."""
LARGEST_BATCH_BYTES = 256 << 20
"""Of a column's texts that are repeated. Arrow takes up to twice this."""
LARGEST_PAGES_BYTES = 3 * LARGEST_CONTENT_BYTES
"""Of the pages that a batch of a column may need: one row may lie on two, of which it needs little."""
VALUE_BYTES = 8
"""Of numbers, and of where texts and lists begin."""
INT96_UNIT = "us"
"""Of the times that Spark, Hive and Impala write as 96 bits: in nanoseconds, 9999-12-31 would wrap around to 1816."""
_alone = threading.Lock()
"""Held by whoever reads a header that takes much memory: headers of many objects are read at once."""
_MUCH_BYTES = 1 << 20


@dataclass(slots=True)
class _Column:
    """A column that is read."""

    name: str
    parts: int
    """Columns of the file that it is made of: fields of structs, keys and values of maps."""
    text: bool
    """Some of it is text or bytes."""
    nested: bool
    """A row may have any number of values."""
    width: int
    """Bytes of a value of fixed size."""
    by_dictionary: bool = False
    """Its texts stay numbers of their dictionary, until it is known what they take."""

    def repeated(self, pages: Sequence[Page], rows: int) -> int:
        """Bytes that texts of these pages take at most in `rows` rows, each with its own copy."""
        if not self.text:
            return 0
        each = [(page.values, 0 if self.by_dictionary else page.longest) for page in pages]
        if self.nested:
            return sum(values * size for values, size in each)
        return min(rows, sum(values for values, _ in each)) * max((size for _, size in each), default=0)

    def taken(self, pages: Sequence[Page], rows: int) -> int:
        """Bytes that these pages take in memory, and all numbers that are in them."""
        values = sum(page.values for page in pages)
        return sum(page.content for page in pages) + self.width * (values if self.nested else min(rows, values))


class _Pages(RangedFile):
    """The object as pyarrow reads it: its footer, then pages, which are refused before they are taken into memory."""

    def __init__(self, store: Store, item: ListedObject, *, in_turn: bool) -> None:
        super().__init__(store, item)
        self.headers: PageHeaders | None = None
        """Once the footer is read."""
        self.too_many = False
        """Rows, for the pages seen. Kept because pyarrow may wrap what is raised."""
        self._fetched: list[tuple[int, bytes]] = []
        self._streams = 1
        self._in_turn, self._turn = in_turn, contextlib.ExitStack()
        self._column, self._rows = _Column("", 1, text=False, nested=False, width=0), 1
        self._pages: list[Page] = []
        self._last: dict[str, dict[Stream, list[Page]]] = {}

    def pages_follow(self) -> None:
        self.headers = PageHeaders(self._item.size, self._refuse)

    def expect(self, streams: int) -> None:
        """So many columns of the file are read, each from where it was."""
        self._streams = streams

    def begin_group(self) -> None:
        self.too_many = False
        self._last.clear()
        self._fetched.clear()

    def begin(self, column: _Column, rows: int) -> None:
        """A batch of a column: it may need the pages that were seen last, and those that are seen from now on."""
        self._column, self._rows = column, rows
        self._pages = [page for pages in self._last.get(column.name, {}).values() for page in pages]

    def otherwise(self, rows: int) -> int:
        """How the column that was read last is read on, after `rows` of it might have taken too much: so many rows at a
        time, or with its dictionary."""
        if self._column.nested and self._column.repeated(self._pages, rows) > LARGEST_BATCH_BYTES:
            self._column.by_dictionary = True
            return rows
        longest = max(page.longest for page in self._pages)
        return max(1, min(rows // 2, LARGEST_BATCH_BYTES // max(1, longest)))

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._item.size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        if self.headers is None and wanted > FOOTER_BYTES:
            self._refuse(self._position, f"is a footer of {wanted} bytes, at most {FOOTER_BYTES} are taken")
        if wanted > LARGEST_PAGE_BYTES:
            self._refuse(self._position, f"is a page of {wanted} bytes, at most {LARGEST_PAGE_BYTES} are taken")
        if self.headers is None:
            self._wait_for_turn(wanted)
            return super().read(size)
        position, data = self._position, self._ahead(wanted)
        self._look(self.headers.see(position, data), position)
        return data

    def give_turn(self) -> None:
        self._turn.close()

    def _wait_for_turn(self, size: int) -> None:
        if self._in_turn and size > _MUCH_BYTES:
            self._in_turn = False
            self._turn.enter_context(_alone)

    def _ahead(self, size: int) -> bytes:
        """Bytes at the position, fetched with those behind them: each column goes on where it was."""
        for number, (start, data) in enumerate(self._fetched):
            if start <= self._position and self._position + size <= start + len(data):
                self._fetched.append(self._fetched.pop(number))
                found = data[self._position - start : self._position - start + size]
                self._position += size
                return found
        position = self._position
        data = super().read(max(size, min(FETCH_BYTES, FETCHED_BYTES // self._streams)))
        others = [one for one in self._fetched if not one[0] <= position <= one[0] + len(one[1])]
        self._fetched = [*others[max(0, len(others) + 1 - self._streams) :], (position, data)]
        self._position = position + min(size, len(data))
        return data[:size]

    def _look(self, stream: Stream, position: int) -> None:
        if not stream.pages:
            return
        self._last.setdefault(self._column.name, {})[stream] = stream.pages
        self._pages += stream.pages
        column, rows = self._column, self._rows
        repeated, taken = column.repeated(self._pages, rows), column.taken(self._pages, rows)
        self._wait_for_turn(max(repeated, taken))
        if column.nested and any(self._must_unfold(page) for page in stream.pages):
            what = (
                f"repeats what may be long texts in lists (column {shown(column.name)}) in a way that tells no lengths"
            )
            self._refuse(position, what, "Write the column with plain encoding (parquet.writer.version=v1).")
        if (repeated > LARGEST_BATCH_BYTES and (rows > 1 or column.nested)) or (
            taken > LARGEST_PAGES_BYTES and rows > 1
        ):
            self.too_many = True
            raise OSError("the batch may take too much")  # it is read again, in another way
        if taken > LARGEST_PAGES_BYTES:
            self._refuse(position, f"is {taken} bytes of one row of column {shown(column.name)}, once decoded")

    def _must_unfold(self, page: Page) -> bool:
        """What the page's texts take is not known before they do, and it may be too much."""
        if self._column.by_dictionary:
            return not page.by_dictionary
        return page.prefixed and page.values * page.longest > LARGEST_BATCH_BYTES

    def _refuse(self, position: int, what: str, remedy: str = "") -> None:
        """Kept as well: pyarrow may wrap it while it passes through C++."""
        small = "Write the object again with fewer columns and row groups, and pages of about 1 MiB"
        self.error = BadData(
            "PageTooLarge",
            f"what {self._item.key} holds at byte {position} {what}: it is read whole",
            object=self._item.key,
            remedy=remedy or f"{small} (pyarrow: data_page_size).",
        )
        raise self.error


class ParquetObject:
    """An object that is being read."""

    def __init__(self, source: pa.PythonFile, pages: _Pages, item: ListedObject) -> None:
        self._source, self._pages, self._item = source, pages, item
        self._file = self._open()
        self._by_dictionary: pq.ParquetFile | None = None
        self.schema_arrow: pa.Schema = self._file.schema_arrow
        self.rows: int = self._file.metadata.num_rows
        """As the footer says."""

    def batches(self, rows: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns in batches of `rows` rows; of fewer where so many might take more than LARGEST_BATCH_BYTES.

        Raises BadData/RowTooLarge for one row that does.
        """
        columns = [_column(self._file, name) for name in names]
        self._pages.expect(sum(column.parts for column in columns))
        first = 0
        for group in range(self._file.num_row_groups):
            done, finished = 0, False
            while not finished:
                given, finished = yield from self._group(group, columns, rows, (first, done))
                done += given
                rows = rows if finished else self._pages.otherwise(rows)
            first += done

    def _group(
        self, group: int, columns: Sequence[_Column], rows: int, where: tuple[int, int]
    ) -> Generator[pa.RecordBatch, None, tuple[int, bool]]:
        """The batches of a row group, `where` it begins and without so many of its rows. Returns how many rows were
        given, and whether that was all: else its pages ask for other batches."""
        first, skipped = where
        self._pages.begin_group()
        readers = [self._reader(one).iter_batches(rows, [group], [one.name], use_threads=False) for one in columns]
        parts: list[pa.RecordBatch | None] = [None] * len(columns)
        at = 0
        while True:
            try:
                for number, (column, reader) in enumerate(zip(columns, readers, strict=True)):
                    if parts[number] is None:
                        self._pages.begin(column, rows)
                        parts[number] = next(reader, None)
            except (pa.ArrowException, OSError):
                if not self._pages.too_many:
                    raise
                return max(0, at - skipped), False
            there = [part for part in parts if part is not None]
            if len(there) < len(columns):
                return max(0, at - skipped), True
            count = min(part.num_rows for part in there)
            batch = pa.RecordBatch.from_arrays([one.column(0)[:count] for one in there], [one.name for one in columns])
            parts = [part[count:] if part.num_rows > count else None for part in there]
            yield from self._bounded(batch[max(0, skipped - at) :], first + max(at, skipped))
            at += count

    def _bounded(self, batch: pa.RecordBatch, first: int) -> Iterator[pa.RecordBatch]:
        """The batch in parts, none of which takes too much once its texts are decoded."""
        names = [field.name for field in batch.schema if holds_dictionary(field.type)]
        start = 0
        while start < batch.num_rows:
            count = batch.num_rows - start
            for name in names:
                count = min(count, rows_within(batch.column(name)[start:], LARGEST_BATCH_BYTES))
                if not count:
                    raise self._too_large(first + start, name)
            yield batch[start : start + count]
            start += count

    def _too_large(self, row: int, name: str) -> BadData:
        what = f"takes more than {LARGEST_BATCH_BYTES} bytes in column {shown(name)}"
        remedy = "Shorten the texts of the row, or leave the column out of spec.source.columns.metadata."
        message = f"{self._item.key} row {row} {what}"
        return BadData("RowTooLarge", message, object=self._item.key, row=row, remedy=remedy)

    def _reader(self, column: _Column) -> pq.ParquetFile:
        if not column.by_dictionary:
            return self._file
        if self._by_dictionary is None:
            self._by_dictionary = self._open(read_dictionary=_texts(self._file), metadata=self._file.metadata)
        return self._by_dictionary

    def _open(self, **options: Any) -> pq.ParquetFile:
        return pq.ParquetFile(
            self._source,
            buffer_size=BUFFER_BYTES,
            pre_buffer=False,
            coerce_int96_timestamp_unit=INT96_UNIT,
            **options,
        )


def _texts(file: pq.ParquetFile) -> list[int]:
    """Numbers of all leaves that hold text or bytes."""
    leaves = [file.schema.column(number) for number in range(len(file.schema))]
    return [number for number, leaf in enumerate(leaves) if leaf.physical_type == "BYTE_ARRAY"]


def _column(file: pq.ParquetFile, name: str) -> _Column:
    leaves = [file.schema.column(number) for number in range(len(file.schema))]
    mine = [leaf for leaf in leaves if leaf.path == name or leaf.path.startswith(f"{name}.")]
    return _Column(
        name,
        parts=max(1, len(mine)),
        text=any(leaf.physical_type == "BYTE_ARRAY" for leaf in mine),
        nested=any(leaf.max_repetition_level for leaf in mine),
        width=max([VALUE_BYTES, *(leaf.length for leaf in mine if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY")]),
    )


@contextlib.contextmanager
def opened(store: Store, item: ListedObject, *, in_turn: bool = False) -> Iterator[ParquetObject]:
    """Open an object; Arrow's complaints about its content become BadData/CorruptFile, the store's pass through.

    in_turn: for something short, that others do at the same time: one that takes much memory waits for those.
    """
    pages = _Pages(store, item, in_turn=in_turn)
    try:
        found = ParquetObject(pa.PythonFile(pages, mode="r"), pages, item)
        pages.pages_follow()
        yield found
    except TaskError:
        raise
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        if pages.error is not None:
            raise pages.error from error
        raise BadData(
            "CorruptFile",
            f"{item.key} is not a complete Parquet file: {' '.join(str(error).split())[:300]}",
            object=item.key,
            remedy="Write the object again.",
        ) from error
    finally:
        pages.give_turn()
