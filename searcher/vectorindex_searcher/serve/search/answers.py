"""Answers to searches as bytes: JSON, or little-endian arrays for clients that ask for them.

The binary answer (docs/searcher-api.md), n queries with m hits in all, best first, query after query:

    4 bytes   "VXA1"
    uint32    n
    uint32    m
    uint32    kind: 0: ids are int64; 1: ids are UTF-8 strings
    int64[m] ids, or uint32[m] lengths of ids in bytes
    uint32[n] hits of each query
    float32[m] scores
    the bytes of string ids, one after the other
    with metadata, which 2 more in the kind says: uint32[m] lengths of it in bytes, and it, a JSON object for each hit

Knows no HTTP but the media types, and no FAISS. (Bytes of arrays are taken as they are: every machine that FAISS is
built for is little-endian.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ...index.rows import RawIds
from ..http.messages import JSON_TYPE, Response
from .reader import BINARY_TYPE

MAGIC = b"VXA1"
TEXT_IDS, WITH_METADATA = 1, 2
"""Bits of the kind of a binary answer."""
PIECE_BYTES = 64 << 10
"""Of a long answer: to put ten megabytes together holds the interpreter's lock, and so the event loop, for 5 ms."""
_HEAD = struct.Struct("<4sIII")
_COUNT = struct.Struct("<I")
_SCORE_BYTES = 4

Scores = npt.NDArray[np.float32]


class Joined:
    """Texts as bytes, one after the other: `data`, and `lengths` (uint32 [n]). A list of them would take many times as
    much: orjson gives each at least 4 KB."""

    def __init__(self, texts: Iterable[bytes]) -> None:
        data, lengths = bytearray(), []
        for text in texts:
            data += text
            lengths.append(len(text))
        self.data, self.lengths = bytes(data), np.array(lengths, np.uint32)


def json_of(document: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """JSON of a document that may hold arrays; what JSON does not know becomes text."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY, default=str)


def json_answer(document: Mapping[str, Any]) -> Response:
    """The document as an answer."""
    return Response(200, json_of(document), JSON_TYPE)


def long_json_answer(before: Mapping[str, Any], results: Iterable[bytes], after: Mapping[str, Any]) -> Response:
    """The fields `before`, the results, which are JSON with their commas, and the fields `after`; none is empty."""
    parts = (json_of(before)[:-1], b',"results":[', *results, b"],", json_of(after)[1:])
    first, *rest = pieces_of(parts)
    return Response(200, first, JSON_TYPE, rest=tuple(rest))


def pieces_of(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, at least one of them, in pieces of PIECE_BYTES at most where no part is longer."""
    some: list[bytes] = []
    size = 0
    for part in parts:
        if some and size + len(part) > PIECE_BYTES:
            yield b"".join(some)
            some, size = [], 0
        some.append(part)
        size += len(part)
    if some:
        yield b"".join(some)


def binary_answer(pieces: Sequence[tuple[RawIds, Scores]], metadata: Sequence[Joined] | None = None) -> Response:
    """`pieces`: ids and scores of each query's hits, at least one query; `metadata`: JSON of theirs."""
    counts = [len(scores) for _, scores in pieces]
    kind = 0 if pieces[0][0].ends is None else TEXT_IDS
    if metadata is not None:
        kind |= WITH_METADATA
    parts = [_HEAD.pack(MAGIC, len(pieces), sum(counts), kind)]
    parts += [ids.numbers.tobytes() for ids, _ in pieces]
    parts.append(struct.pack(f"<{len(pieces)}I", *counts))
    parts += [scores.tobytes() for _, scores in pieces]
    parts += [ids.text for ids, _ in pieces]
    if metadata is not None:
        parts += [texts.lengths.tobytes() for texts in metadata]
        for texts in metadata:
            parts += [texts.data[at : at + PIECE_BYTES] for at in range(0, len(texts.data), PIECE_BYTES)]
    first, *rest = pieces_of(parts)
    return Response(200, first, BINARY_TYPE, rest=tuple(rest))


class SingleAnswers:
    """Binary answers to many searches for one vector each, all with the same k, whose every line of hits is full.

    `ids`: of all lines; `scores`: [n, k]. Arrays become bytes once, not once an answer.
    """

    def __init__(self, ids: RawIds, scores: Scores) -> None:
        self._ids, self._k = ids, scores.shape[1]
        self._numbers, self._scores = ids.numbers.tobytes(), scores.tobytes()
        self._number_bytes, self._kind = ids.numbers.itemsize, 0 if ids.ends is None else 1

    def of(self, line: int, count: int) -> Response:
        """The answer that holds the first `count` hits of a line; the same bytes as binary_answer's."""
        start = line * self._k
        stop, width = start + count, self._number_bytes
        body = b"%b%b%b%b%b" % (
            _HEAD.pack(MAGIC, 1, count, self._kind),
            self._numbers[start * width : stop * width],
            _COUNT.pack(count),
            self._scores[start * _SCORE_BYTES : stop * _SCORE_BYTES],
            self._ids.text_of(start, stop) if self._kind else b"",
        )
        return Response(200, body, BINARY_TYPE)
