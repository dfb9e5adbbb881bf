"""Arrow files of an artifact are opened here: none of their buffers may be compressed.

Builds write none that are. Arrow decompresses a buffer when its batch is read, and believes the size that stands before
it: a file of kilobytes would take gigabytes of a searcher. Whether a batch is compressed stands in its message, of
which Arrow's Python shows nothing; so the few numbers on the way to it (flatbuffers) are read here, where Arrow reads
them. Messages of older versions than builds write are refused whole: Arrow 0.17 said elsewhere what is compressed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

_END = b"ARROW1"
_CONTINUES = 0xFFFFFFFF
_BLOCK = struct.Struct("<q i 4x q")
"""Of the footer, for each message: where it is, bytes of its metadata, bytes of its body."""
_DICTIONARIES, _BATCHES = 2, 3  # fields of Footer
_VERSION, _HEADER_TYPE, _HEADER = 0, 1, 2  # of Message
_DATA = 1  # of DictionaryBatch
_COMPRESSION = 3  # of RecordBatch
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # types of a header
_V5 = 4  # of Message's versions


def open_mapped(path: Path) -> tuple[pa.RecordBatchFileReader, pa.Buffer]:
    """The file, mapped, and its bytes. Raises pa.ArrowException, OSError."""
    mapping = pa.memory_map(str(path)).read_buffer()
    return open_buffer(mapping), mapping


def read_table(path: Path) -> pa.Table:
    """The file in memory. Raises pa.ArrowException, OSError."""
    return open_buffer(pa.py_buffer(path.read_bytes())).read_all()


def open_buffer(data: pa.Buffer) -> pa.RecordBatchFileReader:
    """A file's bytes. Raises pa.ArrowInvalid where Arrow does, and for compressed buffers."""
    reader = pa.ipc.open_file(data)
    if any(map(_is_compressed, _messages(memoryview(data)))):
        raise pa.ArrowInvalid("its buffers are compressed, which no build writes")
    return reader


class _Table:
    """A flatbuffers table: its fields by number."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - _number(data, "<i", at)

    def place(self, field: int) -> int:
        """Where the field's value is; 0 where it has none."""
        slot = 4 + 2 * field
        if slot >= _number(self._data, "<H", self._fields):
            return 0
        offset = _number(self._data, "<H", self._fields + slot)
        return self._at + offset if offset else 0

    def table(self, field: int) -> _Table:
        at = self.place(field)
        if not at:
            raise pa.ArrowInvalid("a message has no content")
        return _Table(self._data, at + _number(self._data, "<I", at))


def _number(data: memoryview, kind: str, at: int) -> int:
    if not 0 <= at <= len(data) - struct.calcsize(kind):
        raise pa.ArrowInvalid("its messages lead outside the file")
    found: int = struct.unpack_from(kind, data, at)[0]
    return found


def _messages(data: memoryview) -> Iterator[_Table]:
    """The headers of all dictionaries and batches, as the footer lists them."""
    end = len(data) - len(_END) - 4
    size = _number(data, "<i", end)
    start = end - size
    footer = _Table(data[:end], start + _number(data, "<I", start))
    for field in (_DICTIONARIES, _BATCHES):
        at = footer.place(field)
        if not at:
            continue
        at += _number(data, "<I", at)
        for number in range(_number(data, "<I", at)):
            place = at + 4 + number * _BLOCK.size
            yield _message(data, _number(data, "<q", place))


def _message(data: memoryview, at: int) -> _Table:
    if _number(data, "<I", at) != _CONTINUES:
        raise pa.ArrowInvalid("a message is of a version that no build writes")
    message = _Table(data, at + 8 + _number(data, "<I", at + 8))
    version = message.place(_VERSION)
    if not version or _number(data, "<h", version) != _V5:
        raise pa.ArrowInvalid("a message is of a version that no build writes")
    return message


def _is_compressed(message: _Table) -> bool:
    at = message.place(_HEADER_TYPE)
    header = message.table(_HEADER)
    kind = _number(message._data, "<B", at) if at else 0
    if kind == _DICTIONARY_BATCH:
        header = header.table(_DATA)
    elif kind != _RECORD_BATCH:
        raise pa.ArrowInvalid("a message is neither a batch nor a dictionary")
    return header.place(_COMPRESSION) != 0
