"""Live queries as bytes: from a searcher to the gate's Job, and in the artifact store while a revision is measured.

A line of JSON ({"dimension": d, "segments": [...]}), then one record of fixed length for each query. Plain numbers, so
that whoever forges them can only lie about numbers: everything is checked before anything is made of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import Field, ValidationError

from ...contract import Metric, Model
from ...index.faults import Fault, fault
from .sample import NAME_BYTES, SENDER_BYTES, LiveQuery

HEAD_BYTES = 32 << 10
MOST_K = 1000
_FAULTS = {
    Fault.NON_FINITE: "a query holds numbers that are not finite",
    Fault.ZERO: "a query is a zero vector",
    Fault.TOO_LONG: "a query is too long: its squared length is no float32 number",
}
_SegmentText = Annotated[str, Field(max_length=253)]


class MalformedError(ValueError):
    """What came is no sample of this index's live queries. Says what is wrong, never what was asked."""


class _Head(Model):
    dimension: Annotated[int, Field(ge=1, le=65536)]
    segments: Annotated[tuple[_SegmentText, ...], Field(max_length=64)]


def record_bytes(dimension: int) -> int:
    """Of one query."""
    return _record(dimension).itemsize


def _record(dimension: int) -> np.dtype[np.void]:
    return np.dtype(
        [
            ("name", "u1", (NAME_BYTES,)),
            ("sender", "u1", (SENDER_BYTES,)),
            ("hour", "<i8"),
            ("k", "<u2"),
            ("segment", "<u2"),
            ("vector", "<f4", (dimension,)),
        ]
    )


def encode(queries: Iterable[LiveQuery], dimension: int, segments: Sequence[str]) -> bytes:
    """The bytes. segments: all that a query of them may be of."""
    numbers = {name: number for number, name in enumerate(segments)}
    pieces = [orjson.dumps({"dimension": dimension, "segments": list(segments)}), b"\n"]
    for query in queries:
        facts = np.array([(query.hour, query.k, numbers[query.segment])], dtype="<i8,<u2,<u2").tobytes()
        pieces += [query.name, query.sender, facts, query.vector]
    return b"".join(pieces)


def decode(data: bytes, dimension: int, metric: Metric, most: int) -> list[LiveQuery]:
    """The queries, at most `most`. Raises MalformedError."""
    head, found, body = data[:HEAD_BYTES].partition(b"\n")
    if not found:
        raise MalformedError("it has no head")
    try:
        facts = _Head.model_validate_json(head)
    except ValidationError as error:
        raise MalformedError(f"its head has {error.error_count()} faults") from None
    if facts.dimension != dimension:
        raise MalformedError(f"its queries have {facts.dimension} dimensions, the index has {dimension}")
    body, record = data[len(head) + 1 :], _record(dimension)
    count, rest = divmod(len(body), record.itemsize)
    if rest:
        raise MalformedError(f"{len(body)} bytes are no whole number of queries of {record.itemsize}")
    if count > most:
        raise MalformedError(f"it has {count} queries, {most} at most are a sample")
    rows = np.frombuffer(body, record)
    _check(rows, len(facts.segments), metric)
    return [
        LiveQuery(
            name=row["name"].tobytes(),
            sender=row["sender"].tobytes(),
            hour=int(row["hour"]),
            k=int(row["k"]),
            segment=facts.segments[int(row["segment"])],
            vector=row["vector"].tobytes(),
        )
        for row in rows
    ]


def _check(rows: npt.NDArray[np.void], segments: int, metric: Metric) -> None:
    """Raises MalformedError for what no searcher would have answered."""
    if len(rows) and int(rows["segment"].max()) >= segments:
        raise MalformedError("a query is of no segment")
    if len(rows) and not 1 <= int(rows["k"].min()) <= int(rows["k"].max()) <= MOST_K:
        raise MalformedError(f"a query asks for no answer or for more than {MOST_K}")
    if found := fault(rows["vector"], metric):
        raise MalformedError(_FAULTS[found[0]])
