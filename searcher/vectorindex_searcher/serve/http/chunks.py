"""A body that comes in chunks (RFC 9112, 7.1): its data and end. Extensions and trailers are checked and dropped."""

from __future__ import annotations

import re

from .head_parser import HEADER_LINES, NO_TRAILERS, malformed
from .limits import Limits
from .messages import Problem, body_too_large, head_too_large

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_LINE_END = b"\r\n"
CHUNKS_AT_ONCE = 256
_LONGEST_SIZE = 16 + len(_LINE_END)


class ChunkedBody:
    """One body on its way. What it takes is bounded, however little data it brings."""

    def __init__(self, limits: Limits) -> None:
        self.data = bytearray()
        self._limits = limits
        self._missing = 0
        """Bytes of the chunk that are still to come, with the line end after them; 0: a size comes next."""
        self._in_trailer = False
        self._chunks = 0
        self._beside = 0
        """Bytes that are no data."""

    def take(self, given: bytearray) -> bool:
        """Take from the front of `given` what belongs to this body, if it is many chunks not all of them; whether the
        body is complete. Raises Problem.
        """
        at, stop = 0, self._chunks + CHUNKS_AT_ONCE
        try:
            while self._chunks < stop:
                if self._missing:
                    at = self._take_data(given, at)
                    if self._missing:
                        return False
                line = self._line(given, at)
                if line is None:
                    return False
                at += len(line)
                if self._in_trailer:
                    if line == _LINE_END:
                        return True
                    name = line.partition(b":")[0].lower()
                    if HEADER_LINES.fullmatch(line) is None or name in NO_TRAILERS:
                        raise malformed("a trailer of a chunked body is no header, or one that must come before it")
                else:
                    self._begin(line)
            return False
        finally:
            del given[:at]

    def _take_data(self, given: bytearray, at: int) -> int:
        """Data of the chunk, and the line end after it; where it stopped."""
        size = min(len(given) - at, max(0, self._missing - len(_LINE_END)))
        self.data += memoryview(given)[at : at + size]
        self._missing -= size
        at += size
        if self._missing == len(_LINE_END) and len(given) - at >= len(_LINE_END):
            if given[at : at + len(_LINE_END)] != _LINE_END:
                raise malformed("a chunk is longer than its size says")
            self._missing = 0
            at += len(_LINE_END)
        return at

    def _line(self, given: bytearray, at: int) -> bytes | None:
        """The next line with its end, if it is here."""
        room = self._limits.header_bytes - self._beside
        end = given.find(_LINE_END, at, at + room)
        if end < 0:
            if len(given) - at >= room:
                raise head_too_large(self._limits.header_bytes)
            return None
        line = bytes(given[at : end + len(_LINE_END)])
        if self._in_trailer or len(line) > _LONGEST_SIZE:
            self._beside += len(line)
        return line

    def _begin(self, line: bytes) -> None:
        """Begin the chunk that `line` announces."""
        size = _SIZE.fullmatch(line)
        if size is None:
            raise malformed("a chunk's size is no hexadecimal number")
        length = int(size[1], 16)
        self._chunks += 1
        if self._chunks > self._limits.chunks:
            raise Problem(413, "BodyTooLarge", f"the body has more than {self._limits.chunks} chunks")
        if len(self.data) + length > self._limits.body_bytes:
            raise body_too_large(len(self.data) + length, self._limits.body_bytes)
        self._in_trailer = length == 0
        self._missing = length + len(_LINE_END) if length else 0
