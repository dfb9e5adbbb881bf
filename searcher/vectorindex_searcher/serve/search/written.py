"""Rows as they stand in an answer: of an artifact, or of an artifact and the fresh rows beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...index.engine import Engine
from ...index.fresh import FreshRows
from ..http.messages import Response
from .answers import PIECE_BYTES, binary_answer, json_of
from .asked import Rows, Scores
from .work import Work


def metadata_of(source: Engine | FreshRows, rows: Rows, work: Work) -> Iterator[bytes]:
    """The metadata of the rows as JSON, some of them at a time."""
    size = source.metadata_bytes(rows)
    work.answer(size)
    step = max(1, len(rows) * PIECE_BYTES // max(1, size))
    for at in range(0, len(rows), step):
        text = json_of(source.metadata(rows[at : at + step]))
        size -= len(text)
        yield b"," + text[1:-1] if at else text[1:-1]
    if size < 0:
        work.answer(-size)


def binary_of(source: Engine | FreshRows, rows: Rows, scores: Scores, hits: Sequence[int], work: Work) -> Response:
    """The first `hits` of each line of rows and scores [n, k]."""
    pieces = []
    for number, count in enumerate(hits):
        ids = source.raw_ids(rows[number, :count])
        work.answer(ids.numbers.nbytes + len(ids.text))
        pieces.append((ids, scores[number, :count]))
    return binary_answer(pieces)
