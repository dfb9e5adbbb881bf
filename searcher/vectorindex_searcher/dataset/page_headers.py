"""What the headers of Parquet's pages claim, seen while the bytes go by to pyarrow.

A page of a few kilobytes can claim, and decompress to, 2 GiB: pyarrow believes the header, the only place that says it.
So the headers are read here first (Thrift's compact protocol, nothing but numbers and lengths). What cannot be followed
is left to pyarrow, which refuses it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

LARGEST_CONTENT_BYTES = 256 << 20
"""Of a page, decompressed. Writers make pages of 1 MiB (pyarrow, Spark) to 100 MB (DuckDB)."""
LARGEST_VALUES = 1 << 26
"""Of a page: lists of nothing but repetitions take no bytes."""
VALUES_PER_BYTE = 64
"""Of a column, beyond one such page: a list of a thousand pages of repetitions is one value."""
_HEADER_BYTES = 1 << 20
"""A longer header is not followed; statistics in it have a few kilobytes."""
_DEPTH = 8

_CONTENT_SIZE, _STORED_SIZE = 2, 3  # fields of PageHeader
_DICTIONARY = 7
_DATA_ENCODINGS = ((5, 2), (8, 4))  # of data pages of version 1 and 2
_DATA_HEADERS = (
    5,
    _DICTIONARY,
    8,
)  # its headers of data and dictionary pages, whose first field is the number of values
_BY_DICTIONARY, _BY_PREFIX, _LENGTHS_APART = (2, 8), 7, (6, 7)  # encodings
_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, 12

Found = dict[tuple[int, ...], int]
"""Integers of a struct by their path of field numbers."""


class _Incomplete(Exception):  # noqa: N818 - no error: more bytes are to come
    pass


class _Nonsense(Exception):  # noqa: N818 - no error of ours: pyarrow will name it
    pass


@dataclass(frozen=True, slots=True)
class Page:
    """A page of data, by its header."""

    values: int
    content: int
    """Bytes of the page, decompressed."""
    longest: int
    """Bytes that each of its texts may have though the page holds them once: they are of a dictionary, or begin as
    those before them do. 0: what they take is in the page."""
    prefixed: bool
    """They begin as those before them do."""
    by_dictionary: bool
    """pyarrow can leave its texts in their dictionary, or put them into one."""


class PageHeaders:
    """The pages of one object. `see` every read of it; `refuse` is called with what a header claims too much of."""

    def __init__(self, size: int, refuse: Callable[[int, str], None]) -> None:
        """size: bytes of the object."""
        self._refuse = refuse
        self._most = LARGEST_VALUES + VALUES_PER_BYTE * size
        self._streams: dict[int, Stream] = {}
        """By the position at which each column goes on."""

    def see(self, position: int, data: bytes) -> Stream:
        """Bytes that were read at `position`: they go on where another read ended, or begin a column. Its `pages`:
        those of data whose headers were in them."""
        stream = self._streams.pop(position, None) or Stream(self._most)
        stream.pages = []
        stream.take(position, data, self._refuse)
        self._streams[position + len(data)] = stream
        return stream


class Stream:
    """The pages of one column chunk, one after the other."""

    def __init__(self, most_values: int) -> None:
        self.pages: list[Page] = []
        self._entry = 0
        self._left = most_values
        self._skip = 0
        self._head = b""
        self._lost = False

    def take(self, position: int, data: bytes, refuse: Callable[[int, str], None]) -> None:
        at = 0
        while not self._lost and at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                at, self._skip = at + step, self._skip - step
                continue
            # A header that an earlier read has cut is put together again; others are read in place.
            cut = len(self._head)
            text, start = (self._head + data[at : at + _HEADER_BYTES], 0) if cut else (data, at)
            try:
                found, end = _struct(text, start, 0)
            except _Incomplete:
                self._head = text[start:]
                self._lost = len(self._head) > _HEADER_BYTES
                return
            except _Nonsense:
                self._lost = True
                return
            if (_DICTIONARY, 1) in found:
                self._entry = _largest_value(found)
            values = _check(position + at - cut, found, refuse)
            self._left -= values
            self.pages.extend(_data_page(found, values, self._entry))
            if self._left < 0:
                refuse(position + at - cut, "goes on with more values than a file of this size can hold")
            at += end - start - cut
            self._head, self._skip = b"", max(0, found.get((_STORED_SIZE,), 0))


def _check(position: int, found: Found, refuse: Callable[[int, str], None]) -> int:
    """The values of the page."""
    if (size := found.get((_CONTENT_SIZE,), 0)) > LARGEST_CONTENT_BYTES:
        refuse(position, f"decompresses to {size} bytes, at most {LARGEST_CONTENT_BYTES} are taken")
    values = max((found.get((header, 1), 0) for header in _DATA_HEADERS), default=0)
    if values > LARGEST_VALUES:
        refuse(position, f"holds {values} values, at most {LARGEST_VALUES} are taken")
    return max(0, values)


def _data_page(found: Found, values: int, entry: int) -> list[Page]:
    encoding = next((found[path] for path in _DATA_ENCODINGS if path in found), None)
    if encoding is None:
        return []
    content = max(0, found.get((_CONTENT_SIZE,), 0))
    longest = entry if encoding in _BY_DICTIONARY else content if encoding == _BY_PREFIX else 0
    return [Page(values, content, longest, encoding == _BY_PREFIX, encoding not in _LENGTHS_APART)]


def _largest_value(found: Found) -> int:
    """Bytes of the longest text that a dictionary page can hold: its texts have four bytes each before them."""
    values = found.get((_DICTIONARY, 1), 0)
    return max(0, found.get((_CONTENT_SIZE,), 0) - 4 * values) if values > 0 else 0


# ---------------------------------------------------------------- Thrift's compact protocol


def _struct(data: bytes, at: int, depth: int) -> tuple[Found, int]:
    """The integers of a struct that begins at `at`, and where it ends."""
    if depth > _DEPTH:
        raise _Nonsense
    found: Found = {}
    number = 0
    while (head := _byte(data, at)) != 0:
        at += 1
        delta, kind = head >> 4, head & 15
        if delta:
            number += delta
        else:
            number, at = _integer(data, at)
        if kind == _STRUCT:
            inner, at = _struct(data, at, depth + 1)
            found |= {(number, *path): value for path, value in inner.items()}
        elif kind in _INTEGERS:
            found[(number,)], at = _integer(data, at)
        elif kind not in _BOOLEANS:
            at = _past(data, at, kind, depth)
    return found, at + 1


def _past(data: bytes, at: int, kind: int, depth: int) -> int:
    """Where a value ends that is of no interest."""
    if kind in (*_BOOLEANS, _BYTE):
        return at + 1
    if kind == _DOUBLE:
        return at + 8
    if kind == _BINARY:
        length, at = _varint(data, at)
        if at + length > len(data):
            raise _Incomplete
        return at + length
    if kind == _STRUCT:
        return _struct(data, at, depth + 1)[1]
    if kind in _INTEGERS:
        return _integer(data, at)[1]
    raise _Nonsense  # page headers have no lists and maps


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise _Incomplete
    return data[at]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = _byte(data, at)
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise _Nonsense


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at
