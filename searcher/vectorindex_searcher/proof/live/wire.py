"""Live queries as bytes: from a searcher to the gate's Job, and in the artifact store while a revision is measured.

A line of JSON ({"dimension": d, "segments": [...], "asked": {...}}), then one record of fixed length for each query.
Plain numbers, so that whoever forges them can only lie about numbers: everything is checked before anything is made of
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import ConfigDict, Field, ValidationError

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
_MOST_SEARCHES = 1 << 40
_Count = Annotated[int, Field(ge=0, le=_MOST_SEARCHES)]
_SegmentText = Annotated[str, Field(max_length=253)]


class MalformedError(ValueError):
    """What came is no sample of this index's live queries. Says what is wrong, never what was asked."""


class Tally(Model):
    """Searches of the hours that a sample is of, each as often as it was asked."""

    model_config = ConfigDict(extra="ignore")
    searches: _Count = 0
    """All of them, with those that are left out."""
    filtered: _Count = 0
    """Those with a filter: it is not kept, so they are left out."""
    own_params: _Count = 0
    """Those that name search parameters of their own: likewise."""

    def and_of(self, other: Tally) -> Tally:
        """Of both together."""
        return Tally(
            searches=min(_MOST_SEARCHES, self.searches + other.searches),
            filtered=min(_MOST_SEARCHES, self.filtered + other.filtered),
            own_params=min(_MOST_SEARCHES, self.own_params + other.own_params),
        )


class _Head(Model):
    model_config = ConfigDict(extra="ignore")  # of a searcher that is newer than the gate
    dimension: Annotated[int, Field(ge=1, le=65536)]
    segments: Annotated[tuple[_SegmentText, ...], Field(max_length=64)]
    asked: Tally | None = None
    """None: a searcher that is older than the gate does not count them."""


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


def encode(queries: Iterable[LiveQuery], dimension: int, segments: Sequence[str], asked: Tally | None = None) -> bytes:
    """The bytes. segments: all that a query of them may be of."""
    numbers = {name: number for number, name in enumerate(segments)}
    head = _Head(dimension=dimension, segments=tuple(segments), asked=asked)
    pieces = [orjson.dumps(head.wire()), b"\n"]
    for query in queries:
        facts = np.array([(query.hour, query.k, numbers[query.segment])], dtype="<i8,<u2,<u2").tobytes()
        pieces += [query.name, query.sender, facts, query.vector]
    return b"".join(pieces)


def decode(data: bytes, dimension: int, metric: Metric, most: int) -> list[LiveQuery]:
    """The queries, at most `most`. Raises MalformedError."""
    facts, length = _head(data)
    if facts.dimension != dimension:
        raise MalformedError(f"its queries have {facts.dimension} dimensions, the index has {dimension}")
    body, record = data[length:], _record(dimension)
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


def tally(data: bytes) -> Tally | None:
    """What was asked besides; None where a searcher does not count it. Raises MalformedError."""
    return _head(data)[0].asked


def _head(data: bytes) -> tuple[_Head, int]:
    """The head, and how many bytes it has with its end."""
    head, found, _ = data[:HEAD_BYTES].partition(b"\n")
    if not found:
        raise MalformedError("it has no head")
    try:
        return _Head.model_validate_json(head), len(head) + 1
    except ValidationError as error:
        raise MalformedError(f"its head has {error.error_count()} faults") from None


def _check(rows: npt.NDArray[np.void], segments: int, metric: Metric) -> None:
    """Raises MalformedError for what no searcher would have answered."""
    if len(rows) and int(rows["segment"].max()) >= segments:
        raise MalformedError("a query is of no segment")
    if len(rows) and not 1 <= int(rows["k"].min()) <= int(rows["k"].max()) <= MOST_K:
        raise MalformedError(f"a query asks for no answer or for more than {MOST_K}")
    if found := fault(rows["vector"], metric):
        raise MalformedError(_FAULTS[found[0]])
