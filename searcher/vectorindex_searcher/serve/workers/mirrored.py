"""Live queries for another revision to answer again, as bytes: from a pod's search processes, which answered them, to
the one that sends them (sending.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
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
        yield q.vector.astype("<f4", copy=False).tobytes()
        yield q.rows.astype("<i8", copy=False).tobytes()
        yield q.scores.astype("<f4", copy=False).tobytes()


def unpacked(data: bytes, dimension: int) -> Iterator[Answered]:
    """The inverse, each with memory of its own."""
    at = 8 + int.from_bytes(data[:8], "little")
    for segment, k, asked, min_score, seconds, bucket, overall, deleted, count in orjson.loads(data[8:at]):
        vector = np.frombuffer(data, "<f4", dimension, at)
        rows = np.frombuffer(data, "<i8", count, at + vector.nbytes)
        scores = np.frombuffer(data, "<f4", count, at + vector.nbytes + rows.nbytes)
        at += vector.nbytes + rows.nbytes + scores.nbytes
        yield Answered(
            segment=segment,
            k=k,
            asked=asked,
            min_score=min_score,
            vector=vector.copy(),
            rows=rows.copy(),
            scores=scores.copy(),
            seconds=seconds,
            bucket=bucket,
            overall=overall,
            deleted=deleted,
        )
