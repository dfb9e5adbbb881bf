"""One description of every call, for both clients: its requests, and what its answers come to. No waiting, no sending.

A search goes out as raw float32 and comes back as little-endian arrays, because JSON costs more than the search; JSON
where the other form cannot hold what is asked: metadata and query ids in answers, long filters in requests.
"""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from . import filters, vectors
from .answers import Answer
from .results import Result, results_of
from .vectors import Vector, Vectors

SEARCH, INDEX, FEEDBACK = "/v1/search", "/v1/index", "/v1/feedback"
MAX_VECTORS = 256
"""Queries in one request: the searcher's limit. More go in several."""
MAX_TEXTS = 32
"""Queries in words in one request: the searcher's limit."""
MAX_BODY_BYTES = 4 << 20
"""Half of the searcher's limit."""
MAX_TEXT_BYTES = 60 << 10
"""Of the texts of one request, as JSON; the searcher takes a little more, for the other fields."""
MAX_QUERY_STRING = 8000
"""Characters; a longer one (a long filter) travels in a JSON body."""
BINARY, JSON = "application/octet-stream", "application/json"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. `queries`: how many results its answer must have."""

    method: str
    path: str
    content: bytes | None = None
    content_type: str | None = None
    accept: str = JSON
    queries: int = 0
    reads_only: bool = True
    """Whether it may be sent again when nobody knows if it was carried out."""


@dataclass(frozen=True, slots=True)
class Plan(Generic[T]):
    """One call: its requests, one after the other, and what it returns once all are answered."""

    requests: Sequence[Request]
    read: Callable[[Sequence[Answer]], T]


@dataclass(frozen=True, slots=True)
class Fields:
    """What a search asks for besides its vectors; checked, and in JSON's types."""

    k: int
    segment: str | None
    filter: Mapping[str, Any] | None
    min_score: float | None
    params: Mapping[str, int]
    include_metadata: bool
    track: bool
    min_fresh: int


def fields(
    k: int = 10,
    *,
    segment: str | None = None,
    filter: Mapping[str, Any] | None = None,  # noqa: A002 - the API's name
    min_score: float | None = None,
    params: Mapping[str, int] | None = None,
    include_metadata: bool = False,
    track: bool = False,
    min_fresh: int = 0,
) -> Fields:
    """Raises ValueError for what no request can hold: the searcher judges the rest."""
    return Fields(
        _integer("k", k),
        None if segment is None else str(segment),
        None if filter is None else filters.plain(filter),
        None if min_score is None else _number("min_score", min_score),
        {str(name): _integer(f"params.{name}", value) for name, value in (params or {}).items()},
        bool(include_metadata),
        bool(track),
        _integer("min_fresh", min_fresh),
    )


def search(query: Vector | None, text: str | None, wanted: Fields) -> Plan[Result]:
    """One vector, or one text."""
    if (query is None) is (text is None):
        raise ValueError("exactly one of query (a vector) and text is needed")
    if text is not None:
        requests = [_in_words({"text": _text("text", text)}, wanted, 1)]
        return Plan(requests, lambda answers: _results(requests, answers)[0])
    data = vectors.one(query)
    requests = search_requests([data], len(data) // 4, wanted)
    return Plan(requests, lambda answers: _results(requests, answers)[0])


def search_many(queries: Vectors | None, texts: Sequence[str] | None, wanted: Fields) -> Plan[list[Result]]:
    """Several vectors, or several texts, in as few requests as the searcher's limits allow."""
    if (queries is None) is (texts is None):
        raise ValueError("exactly one of queries (vectors) and texts is needed")
    if texts is not None:
        return _search_texts(texts, wanted)
    found, dimension = vectors.many(queries)
    requests = search_requests(found, dimension, wanted)
    return Plan(requests, lambda answers: _results(requests, answers))


def index() -> Plan[dict[str, Any]]:
    """What is served."""
    return Plan([Request("GET", INDEX)], lambda answers: answers[0].document("revision"))


def feedback(query_id: str, rank: int) -> Plan[bool]:
    """Which answer of a tracked query was chosen first."""
    body = json.dumps({"queryId": str(query_id), "rank": _integer("rank", rank)}).encode()
    request = Request("POST", FEEDBACK, body, JSON, reads_only=False)
    return Plan([request], lambda answers: bool(answers[0].document("counted")["counted"]))


def search_requests(found: Sequence[bytes], dimension: int, wanted: Fields) -> list[Request]:
    """The requests for these vectors (bytes each), as few as the searcher's limits allow."""
    together = max(1, min(MAX_VECTORS, MAX_BODY_BYTES // max(4 * dimension, 1)))
    pieces = [found[start : start + together] for start in range(0, len(found), together)]
    accept = JSON if wanted.include_metadata or wanted.track else BINARY
    text = _query_string(wanted, dimension)
    if len(text) <= MAX_QUERY_STRING:
        path = f"{SEARCH}?{text}"
        return [Request("POST", path, vectors.joined(piece), BINARY, accept, len(piece)) for piece in pieces]
    body = _document(wanted)
    return [
        Request(
            "POST",
            SEARCH,
            json.dumps(body | {"vectors": [vectors.numbers(one) for one in piece]}).encode(),
            JSON,
            accept,
            len(piece),
        )
        for piece in pieces
    ]


def _search_texts(texts: Sequence[str], wanted: Fields) -> Plan[list[Result]]:
    if isinstance(texts, str):
        raise ValueError("texts is a list of texts: write [text] for one")
    found = [_text(f"texts[{number}]", one) for number, one in enumerate(texts)]
    requests = [_in_words({"texts": piece}, wanted, len(piece)) for piece in _pieces(found)]
    return Plan(requests, lambda answers: _results(requests, answers))


def _pieces(texts: Sequence[str]) -> Iterator[list[str]]:
    """As many together as one request may hold."""
    piece: list[str] = []
    size = 0
    for text in texts:
        more = len(json.dumps(text)) + 2
        if piece and (len(piece) == MAX_TEXTS or size + more > MAX_TEXT_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(text)
        size += more
    if piece:
        yield piece


def _in_words(query: dict[str, object], wanted: Fields, queries: int) -> Request:
    """A search in words: JSON both ways, as only that tells what was cut, and encoding costs more than either form."""
    return Request("POST", SEARCH, json.dumps(_document(wanted) | query).encode(), JSON, JSON, queries)


def _text(place: str, text: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{place} is a text that is not empty, not {text!r:.50}")
    return text


def _query_string(wanted: Fields, dimension: int) -> str:
    plain = _plain_query_string(
        wanted.k,
        dimension,
        wanted.segment,
        wanted.min_score,
        tuple(wanted.params.items()),
        wanted.include_metadata,
        wanted.track,
        wanted.min_fresh,
    )
    if wanted.filter is None:
        return plain
    return f"{plain}&{urlencode({'filter': json.dumps(wanted.filter, separators=(',', ':'))})}"


@functools.lru_cache(maxsize=256)
def _plain_query_string(
    k: int,
    dimension: int,
    segment: str | None,
    min_score: float | None,
    params: tuple[tuple[str, int], ...],
    include_metadata: bool,
    track: bool,
    min_fresh: int,
) -> str:
    """Kept, because it costs as much as reading an answer and a program asks for the same again and again."""
    # The dimension travels with the bytes: without it, two vectors of half the length look like one.
    found: dict[str, object] = {"k": k, "dimension": dimension}
    if segment is not None:
        found["segment"] = segment
    if min_score is not None:
        found["minScore"] = min_score
    found |= {f"params.{name}": value for name, value in params}
    if track:
        found["track"] = "true"
    if include_metadata:
        found["include"] = "metadata"
    if min_fresh:
        found["minFresh"] = min_fresh
    return urlencode(found)


def _document(wanted: Fields) -> dict[str, object]:
    found: dict[str, object] = {"k": wanted.k, "filter": wanted.filter, "params": wanted.params}
    if wanted.segment is not None:
        found["segment"] = wanted.segment
    if wanted.min_score is not None:
        found["minScore"] = wanted.min_score
    if wanted.track:
        found["track"] = True
    if wanted.include_metadata:
        found["include"] = ["metadata"]
    if wanted.min_fresh:
        found["minFresh"] = wanted.min_fresh
    return found


def _results(requests: Sequence[Request], answers: Sequence[Answer]) -> list[Result]:
    return [
        one for request, answer in zip(requests, answers, strict=True) for one in results_of(answer, request.queries)
    ]


def _integer(place: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)  # numpy's integers too
    except TypeError:
        raise ValueError(f"{place}: {value!r} is no integer: write a whole number") from None


def _number(place: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{place}: {value!r} is no number: write one") from None
