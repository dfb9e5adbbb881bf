"""Answers to searches as bytes: JSON, or little-endian arrays for clients that ask for them.

The binary answer (docs/searcher-api.md), n queries with m hits in all, best first, query after query:

    4 bytes   "VXA1"
    uint32    n
    uint32    m
    uint32    0: ids are int64; 1: ids are UTF-8 strings
    int64[m] ids, or uint32[m] lengths of ids in bytes
    uint32[n] hits of each query
    float32[m] scores
    the bytes of string ids, one after the other

Knows no HTTP but the media types, and no FAISS.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from .messages import JSON_TYPE, Response

BINARY_TYPE = b"application/octet-stream"
MAGIC = b"VXA1"
_HEAD = struct.Struct("<4sIII")

Scores = npt.NDArray[np.float32]
Ids = Sequence[int] | Sequence[str]


def json_answer(document: Mapping[str, Any]) -> Response:
    """The document, which may hold arrays; what JSON does not know (dates in metadata) becomes text."""
    return Response(200, orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY, default=str), JSON_TYPE)


def binary_answer(ids: Sequence[Ids], scores: Sequence[Scores]) -> Response:
    """`ids` and `scores` of each query's hits, equally many."""
    if len(ids) == 1:
        found, values = ids[0], scores[0].tobytes()
    else:
        found = [one for some in ids for one in some]  # type: ignore[assignment]
        values = b"".join([some.tobytes() for some in scores])
    total = len(found)
    counts = struct.pack(f"<{len(ids)}I", *map(len, ids))
    if total and isinstance(found[0], str):
        texts = [str(one).encode() for one in found]
        head = _HEAD.pack(MAGIC, len(ids), total, 1) + struct.pack(f"<{total}I", *map(len, texts))
        return Response(200, b"".join((head, counts, values, *texts)), BINARY_TYPE)
    body = _HEAD.pack(MAGIC, len(ids), total, 0) + struct.pack(f"<{total}q", *found) + counts + values
    return Response(200, body, BINARY_TYPE)


def wants_binary(accept: bytes | None) -> bool:
    """Whether the first media type of an Accept header is the binary answer's."""
    if accept is None:
        return False
    return accept.partition(b",")[0].partition(b";")[0].strip().lower() == BINARY_TYPE
