"""Rows as they stand in an answer: of an artifact, or of an artifact and the fresh rows beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...index.engine import Engine
from ...index.fresh import FreshRows
from ..http.messages import Response
from .answers import PIECE_BYTES, Joined, binary_answer, json_of
from .asked import Rows, Scores
from .work import Work


def metadata_of(source: Engine | FreshRows, rows: Rows, work: Work) -> Iterator[bytes]:
    """The metadata of the rows as JSON, some of them at a time."""
    size = source.metadata_bytes(rows)
    work.answer(size)
    for at, some in _slices(source, rows, size):
        text = json_of(some)
        size -= len(text)
        yield b"," + text[1:-1] if at else text[1:-1]
    if size < 0:
        work.answer(-size)


def _slices(source: Engine | FreshRows, rows: Rows, size: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The metadata of some of the rows at a time, and where they begin. `size`: of all."""
    step = max(1, len(rows) * PIECE_BYTES // max(1, size))
    return ((at, source.metadata(rows[at : at + step])) for at in range(0, len(rows), step))


def _each_metadata(source: Engine | FreshRows, rows: Rows, work: Work) -> Joined:
    """The metadata of each row as JSON."""
    size = source.metadata_bytes(rows)
    work.answer(size + 4 * len(rows))
    texts = Joined(json_of(one) for _, some in _slices(source, rows, size) for one in some)
    if len(texts.data) > size:
        work.answer(len(texts.data) - size)
    return texts


def binary_of(
    source: Engine | FreshRows, rows: Rows, scores: Scores, hits: Sequence[int], work: Work, *, metadata: bool
) -> Response:
    """The first `hits` of each line of rows and scores [n, k]."""
    pieces, texts = [], []
    for number, count in enumerate(hits):
        some = rows[number, :count]
        ids = source.raw_ids(some)
        work.answer(ids.numbers.nbytes + len(ids.text))
        pieces.append((ids, scores[number, :count]))
        if metadata:
            texts.append(_each_metadata(source, some, work))
    return binary_answer(pieces, texts if metadata else None)
