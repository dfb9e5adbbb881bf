"""Live queries for another revision to answer again, as bytes: from a pod's search processes, which answered them, to
the one that sends them (sending.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import orjson

from ..shadow.mirror import Answered


def packed(queries: Sequence[Answered]) -> Iterator[bytes]:
    """Queries as bytes, piece by piece."""
    head = orjson.dumps(
        [
            [q.segment, q.k, q.asked, q.min_score, q.seconds, q.bucket, q.overall, q.deleted, len(q.rows)]
            for q in queries
        ]
    )
    yield len(head).to_bytes(8, "little") + head
    for q in queries:
        yield q.vector + q.rows + q.scores


def unpacked(data: bytes, dimension: int) -> Iterator[Answered]:
    """The inverse, each with memory of its own."""
    at = 8 + int.from_bytes(data[:8], "little")
    for segment, k, asked, min_score, seconds, bucket, overall, deleted, size in orjson.loads(data[8:at]):
        rows = at + 4 * dimension
        scores = rows + size
        end = scores + size // 2
        yield Answered(
            segment=segment,
            k=k,
            asked=asked,
            min_score=min_score,
            vector=data[at:rows],
            rows=data[rows:scores],
            scores=data[scores:end],
            seconds=seconds,
            bucket=bucket,
            overall=overall,
            deleted=deleted,
        )
        at = end
