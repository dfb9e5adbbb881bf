"""What one shard answered, checked: it may be another program, broken, or hostile.

Sizes are compared with what was asked before anything is made of them, and a score that is no number would be merged
anywhere. Of an answer nothing is made but views onto its bytes: as Python's objects it would take many times as much
(docs/adr/0089-answers-stay-bytes.md).
"""

from __future__ import annotations

import codecs
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson

from ..search.answers import MAGIC, TEXT_IDS, WITH_METADATA
from ..search.reader import BINARY_TYPE
from .link import Reply

_HEAD = struct.Struct("<4sIII")
_TYPE = BINARY_TYPE.decode()
_FILTERED = re.compile(r"rows=([0-9]{1,18}); search=([A-Za-z]{1,64})")
_PIECE = 64 << 10
Scores = npt.NDArray[np.float32]


class MalformedError(ValueError):
    """It is no answer to what was asked."""


class Texts:
    """Texts within an answer, without a copy: from one of `ends` (int64 [n + 1]) to the next."""

    __slots__ = ("_body", "ends")

    def __init__(self, body: bytes, start: int, lengths: npt.NDArray[np.uint32]) -> None:
        self._body, self.ends = body, np.full(len(lengths) + 1, start, np.int64)
        self.ends[1:] += np.cumsum(lengths, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, place: int) -> bytes:
        return self._body[self.ends[place] : self.ends[place + 1]]


Ids = npt.NDArray[np.int64] | Texts


@dataclass(frozen=True, slots=True)
class Question:
    """What an answer is held against. `vectors`: their number; `metadata`: whether each hit has some."""

    vectors: int
    k: int
    text: bool
    """Whether ids are strings."""
    metadata: bool = False
    filtered: bool = False
    """Whether it says how the filter was searched."""


@dataclass(frozen=True, slots=True)
class Part:
    """The hits of n queries, one after the other. `ends`: where each query's hits end, with a 0 before the first."""

    ends: Sequence[int]
    scores: Scores
    ids: Ids
    metadata: Texts | None = None
    """JSON of each hit."""
    rows: int = 0
    """That a filter left."""
    search: str = ""
    """How they were searched."""
    nbytes: int = 0
    """In memory, with the answer that it is a view of."""


def part_of(reply: Reply, asked: Question) -> Part:
    """Of an answer with status 200. Raises MalformedError."""
    try:
        if reply.head.content_type != _TYPE:
            raise MalformedError("an answer of another kind than was asked for")
        return _of_bytes(reply, asked)
    except MalformedError:
        raise
    except (struct.error, ValueError, OverflowError) as error:
        raise MalformedError(f"no answer to a search: {type(error).__name__}") from None


def _of_bytes(reply: Reply, asked: Question) -> Part:
    body = reply.body
    magic, queries, hits, kind = _HEAD.unpack_from(body)
    wanted = (TEXT_IDS if asked.text else 0) | (WITH_METADATA if asked.metadata else 0)
    if magic != MAGIC or queries != asked.vectors or kind != wanted or hits > queries * asked.k:
        raise MalformedError("an answer to something else")
    width = 4 if asked.text else 8
    counts_at = _HEAD.size + width * hits
    scores_at = counts_at + 4 * queries
    at, size = scores_at + 4 * hits, len(body)
    if len(body) < at:
        raise MalformedError("an answer that is not as long as it says")
    ends = _ends(np.frombuffer(body, "<u4", queries, counts_at).tolist(), asked.k)
    if ends[-1] != hits:
        raise MalformedError("an answer whose hits are not as many as it says")
    scores = np.frombuffer(body, "<f4", hits, scores_at)
    _check_scores(scores)
    ids: Ids
    if asked.text:
        ids = Texts(body, at, np.frombuffer(body, "<u4", hits, _HEAD.size))
        at, size = int(ids.ends[-1]), size + ids.ends.nbytes
        _check_texts(body, ids)
    else:
        ids = np.frombuffer(body, "<i8", hits, _HEAD.size)
    metadata = None
    if asked.metadata:
        metadata = Texts(body, at + 4 * hits, np.frombuffer(body, "<u4", hits, at))
        at, size = int(metadata.ends[-1]), size + metadata.ends.nbytes
        _check_objects(metadata)
    if at != len(body):
        raise MalformedError("an answer that is not as long as it says")
    rows, search = _how(reply.head.filtered) if asked.filtered else (0, "")
    return Part(ends, scores, ids, metadata, rows, search, size)


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


def _check_texts(body: bytes, texts: Texts) -> None:
    """All of it in pieces, and that each begins with a letter: one by one takes a hundred times as long."""
    start, end = int(texts.ends[0]), int(texts.ends[-1])
    if end > len(body):
        raise MalformedError("ids that are not as long as it says")
    reader = codecs.getincrementaldecoder("utf-8")()
    for at in range(start, end, _PIECE):
        reader.decode(body[at : min(at + _PIECE, end)])
    reader.decode(b"", final=True)
    begins = texts.ends[:-1][np.diff(texts.ends) > 0]
    if np.any(np.frombuffer(body, np.uint8)[begins] & 0xC0 == 0x80):
        raise MalformedError("ids that begin within a letter")


def _check_objects(texts: Texts) -> None:
    """Each for itself, so that no more than one is there as Python's objects."""
    if not all(type(orjson.loads(texts[place])) is dict for place in range(len(texts))):
        raise MalformedError("metadata that is no object")


def _how(said: str) -> tuple[int, str]:
    found = _FILTERED.fullmatch(said)
    if found is None:
        raise MalformedError("it does not say how its filter was searched")
    return int(found[1]), found[2]
