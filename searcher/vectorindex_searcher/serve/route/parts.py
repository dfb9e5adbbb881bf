"""What one shard answered, checked: it may be another program, broken, or hostile.

Sizes are compared with what was asked before anything is made of them, and a score that is no number would be merged
anywhere.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ..search.answers import MAGIC
from ..search.reader import BINARY_TYPE
from .link import Reply

_HEAD = struct.Struct("<4sIII")
Scores = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64] | list[str]


class MalformedError(ValueError):
    """It is no answer to what was asked."""


@dataclass(frozen=True, slots=True)
class Question:
    """What an answer is held against. `vectors`: their number; `metadata`: whether each hit has some."""

    vectors: int
    k: int
    text: bool
    """Whether ids are strings."""
    metadata: bool = False
    filtered: bool = False
    """Whether JSON says how the filter was searched."""


@dataclass(frozen=True, slots=True)
class Part:
    """The hits of n queries, one after the other. `ends`: where each query's hits end, with a 0 before the first."""

    ends: Sequence[int]
    scores: Scores
    ids: Ids
    metadata: list[dict[str, Any]] | None = None
    rows: int = 0
    """That a filter left."""
    search: str = ""
    """How they were searched."""


def part_of(reply: Reply, asked: Question) -> Part:
    """Of an answer with status 200. Raises MalformedError."""
    try:
        if reply.head.content_type == BINARY_TYPE.decode():
            return _of_bytes(reply.body, asked)
        return _of_json(reply.body, asked)
    except MalformedError:
        raise
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise MalformedError(f"no answer to a search: {type(error).__name__}") from None


def _of_bytes(body: bytes, asked: Question) -> Part:
    magic, queries, hits, kind = _HEAD.unpack_from(body)
    if magic != MAGIC or queries != asked.vectors or kind != int(asked.text) or hits > queries * asked.k:
        raise MalformedError("an answer to something else")
    if asked.metadata or asked.filtered:
        raise MalformedError("a binary answer where JSON was asked for")
    width = 4 if asked.text else 8
    at = _HEAD.size + width * hits
    fixed = at + 4 * queries + 4 * hits
    if len(body) < fixed or (not asked.text and len(body) != fixed):
        raise MalformedError("an answer that is not as long as it says")
    ends = _ends(np.frombuffer(body, "<u4", queries, at).tolist(), asked.k)
    if ends[-1] != hits:
        raise MalformedError("an answer whose hits are not as many as it says")
    scores = np.frombuffer(body, "<f4", hits, at + 4 * queries)
    _check_scores(scores)
    if asked.text:
        return Part(ends, scores, _texts(body, hits, fixed))
    return Part(ends, scores, np.frombuffer(body, "<i8", hits, _HEAD.size))


def _texts(body: bytes, hits: int, start: int) -> list[str]:
    lengths = np.frombuffer(body, "<u4", hits, _HEAD.size)
    ends = (np.cumsum(lengths, dtype=np.int64) + start).tolist()
    starts = [start, *ends]
    if starts[-1] != len(body):
        raise MalformedError("ids that are not as long as it says")
    return [body[begin:end].decode() for begin, end in zip(starts, ends, strict=False)]


def _of_json(body: bytes, asked: Question) -> Part:
    document = orjson.loads(body)
    results = document["results"]
    if type(results) is not list or len(results) != asked.vectors:
        raise MalformedError("an answer to something else")
    ids: list[Any] = []
    scores: list[float] = []
    metadata: list[dict[str, Any]] | None = [] if asked.metadata else None
    counts = []
    for result in results:
        some, theirs = result["ids"], result["scores"]
        if type(some) is not list or type(theirs) is not list or len(some) != len(theirs):
            raise MalformedError("ids and scores that are not as many")
        counts.append(len(some))
        ids += some
        scores += theirs
        if metadata is not None:
            told = result["metadata"]
            if type(told) is not list or len(told) != len(some) or not all(type(one) is dict for one in told):
                raise MalformedError("metadata that is not of these ids")
            metadata += told
    if not set(map(type, scores)) <= {float, int} or not set(map(type, ids)) <= {str if asked.text else int}:
        raise MalformedError("ids or scores of another kind")
    ends = _ends(counts, asked.k)
    with np.errstate(over="ignore"):
        numbers = np.array(scores, np.float32)
    _check_scores(numbers)
    how = document.get("filter", {})
    rows, search = how.get("rows", 0), how.get("search", "")
    if type(rows) is not int or rows < 0 or type(search) is not str or len(search) > 64:
        raise MalformedError("it does not say how its filter was searched")
    return Part(ends, numbers, ids if asked.text else np.array(ids, np.int64), metadata, rows, search)


def _ends(counts: Sequence[int], k: int) -> list[int]:
    if max(counts) > k:
        raise MalformedError(f"more than {k} hits")
    ends = [0]
    for count in counts:
        ends.append(ends[-1] + count)
    return ends


def _check_scores(scores: Scores) -> None:
    # The sum of squares, as of vectors: finite only if every one is. A hit's own may be too great for it.
    if not math.isfinite(float(np.vdot(scores, scores))) and not np.isfinite(scores).all():
        raise MalformedError("a score that is no number")
