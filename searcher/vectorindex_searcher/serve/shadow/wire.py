"""Queries of a shadow as bytes, from a pod that answered them to one that is judged.

A line of JSON, then plain little-endian arrays over all queries, one after the other:

    float32 [n, dimension]    vectors
    uint8 [n, 16]             hashes
    float64 [m]               scores of the answers
    int64 [m], or uint32 [m]  ids, or lengths of ids in bytes
                              the UTF-8 of string ids

Whoever forges them can only lie about numbers: every length is checked before anything is made of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import ConfigDict, Field, ValidationError

from ...contract import SHADOW_ANSWERS, SHADOW_BYTES, SHADOW_QUERIES, Metric, Model, ShadowId
from ...index.faults import fault

HASH_BYTES = 16
HEAD_BYTES = 1024
"""Of the line, besides its queries."""
_Name = Annotated[str, Field(max_length=253)]
_Count = Annotated[int, Field(ge=0, le=SHADOW_ANSWERS)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class MalformedError(ValueError):
    """What came are no queries of a shadow. Says what is wrong, never what was asked."""


class Asked(Model):
    """One query, apart from its numbers."""

    model_config = ConfigDict(extra="ignore")  # of a searcher that is newer
    segment: _Name
    k: Annotated[int, Field(ge=1, le=1000)]
    fields: Annotated[dict[str, Any], Field(max_length=8)] = {}
    """params, filter, minScore, where the request named them."""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    overall: bool
    deleted: _Name = ""
    """Fingerprint of the deleted ids that were hidden."""
    first: _Finite | None = None
    """The first hit's score as the user was told it; None: nothing was found."""
    hits: _Count
    """Of the first answers, those at or above minScore."""
    answers: _Count
    """How many of them were found, and follow as ids and scores."""
    exact: bool = False
    """Whether these scores are exact ones."""


class _Head(Model):
    model_config = ConfigDict(extra="ignore")
    shadow: ShadowId
    reference: _Name
    """Who sends: the name is of when nobody else was a reference."""
    sender_judged: bool = False
    dimension: Annotated[int, Field(ge=1, le=65536)]
    text: bool
    queries: Annotated[tuple[Asked, ...], Field(min_length=1, max_length=SHADOW_QUERIES)]


@dataclass(frozen=True, slots=True)
class ShadowQuery:
    """One query with its numbers, as it came."""

    asked: Asked
    name: bytes
    """Its hash."""
    vector: npt.NDArray[np.float32]
    ids: Sequence[int] | Sequence[str]
    scores: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Batch:
    """One request. `sender_judged`: the queries' answers are those of who is judged, and we are the reference."""

    shadow: str
    sender: str
    dimension: int
    queries: Sequence[ShadowQuery]
    sender_judged: bool = False


@dataclass(slots=True, eq=False)
class Packed:
    """One query, ready to be sent with others."""

    head: bytes
    """An Asked as JSON."""
    vector: bytes
    name: bytes
    scores: bytes
    numbers: bytes
    """Ids, or their lengths."""
    text: bytes

    @property
    def nbytes(self) -> int:
        lengths = len(self.head) + len(self.vector) + len(self.name) + len(self.scores)
        return lengths + len(self.numbers) + len(self.text) + 1


def query_hash(vector: bytes, k: int, fields: Mapping[str, Any]) -> bytes:
    """The name of a query: whoever asks for the same has the same. `vector`: little-endian float32 [dimension]."""
    digest = hashlib.blake2b(vector, digest_size=HASH_BYTES)
    digest.update(orjson.dumps([k, fields], option=orjson.OPT_SORT_KEYS))
    return digest.digest()


def fits(queries: int, nbytes: int) -> bool:
    """Whether so many queries of so many bytes together are one request."""
    return queries <= SHADOW_QUERIES and nbytes + HEAD_BYTES <= SHADOW_BYTES


def join(
    shadow: str, sender: str, dimension: int, queries: Sequence[Packed], *, text: bool, sender_judged: bool = False
) -> bytes:
    """The body of a request. `text`: whether ids are strings; `sender_judged`: see Batch."""
    known: dict[str, object] = {"shadow": shadow, "reference": sender, "dimension": dimension, "text": text}
    head = orjson.dumps(known | ({"senderJudged": True} if sender_judged else {}))
    parts = [head[:-1], b',"queries":[', b",".join([query.head for query in queries]), b"]}\n"]
    parts += [query.vector for query in queries]
    parts += [query.name for query in queries]
    parts += [query.scores for query in queries]
    parts += [query.numbers for query in queries]
    parts += [query.text for query in queries]
    return b"".join(parts)


def decode(body: bytes, metric: Metric) -> Batch:
    """The queries. Raises MalformedError."""
    line, found, rest = body.partition(b"\n")
    if not found or len(body) > SHADOW_BYTES:
        raise MalformedError("it has no head" if not found else f"it is longer than {SHADOW_BYTES} bytes")
    try:
        head = _Head.model_validate(orjson.loads(line))
    except orjson.JSONDecodeError:
        raise MalformedError("its head is no JSON") from None
    except ValidationError as error:
        raise MalformedError(f"its head has {error.error_count()} faults") from None
    return Batch(head.shadow, head.reference, head.dimension, _queries(head, rest, metric), head.sender_judged)


def _queries(head: _Head, rest: bytes, metric: Metric) -> list[ShadowQuery]:
    count, answers = len(head.queries), [asked.answers for asked in head.queries]
    many = sum(answers)
    sizes = (4 * head.dimension * count, HASH_BYTES * count, 8 * many, (4 if head.text else 8) * many)
    if len(rest) < sum(sizes) or (not head.text and len(rest) > sum(sizes)):
        raise MalformedError(f"{len(rest)} bytes are not what its head says")
    ends = np.cumsum((0, *sizes)).tolist()
    vectors = np.frombuffer(rest, "<f4", head.dimension * count, ends[0]).reshape(count, -1)
    scores = np.frombuffer(rest, "<f8", many, ends[2])
    if fault(vectors, metric) or not np.isfinite(scores).all():
        raise MalformedError("it holds numbers that no searcher has answered")
    ids = _texts(rest, many, ends[3]) if head.text else np.frombuffer(rest, "<i8", many, ends[3]).tolist()
    found, at = [], 0
    for number, asked in enumerate(head.queries):
        start = ends[1] + HASH_BYTES * number
        name, stop = rest[start : start + HASH_BYTES], at + asked.answers
        found.append(ShadowQuery(asked, name, vectors[number], ids[at:stop], scores[at:stop]))
        at = stop
    return found


def _texts(rest: bytes, count: int, start: int) -> list[str]:
    lengths = np.frombuffer(rest, "<u4", count, start)
    ends = (np.cumsum(lengths, dtype=np.int64) + start + 4 * count).tolist()
    starts = [start + 4 * count, *ends]
    if starts[-1] != len(rest):
        raise MalformedError("its ids are not as long as it says")
    try:
        return [rest[begin:end].decode() for begin, end in zip(starts, ends, strict=False)]
    except UnicodeDecodeError:
        raise MalformedError("an id is no UTF-8") from None
