"""Answers as Python objects."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from .answers import FRESH, IGNORED_PARAMS, RERANKED, REVISION, SHARDS_MISSING, Answer, not_a_searcher

Id = int | str
MAGIC = b"VXA1"
_HEAD = struct.Struct("<4sIII")


@dataclass(frozen=True, slots=True)
class Result:
    """The hits of one query, best first."""

    ids: list[Id]
    """Of the source's type: integers or strings."""
    scores: list[float]
    """As long as `ids`; higher is better: the cosine, the inner product, or minus the squared L2 distance. Each is a
    float32 of the searcher."""
    metadata: list[dict[str, Any]] | None
    """As long as `ids`; None unless it was asked for."""
    revision: str
    """Which revision of the index answered."""
    took_ms: float | None
    """The searcher's own time for the request that this query was part of. None unless the answer came as JSON, as it
    does with `include_metadata` or `track`: a binary answer holds ids and scores."""
    query_id: str | None = None
    """What `feedback` takes; None unless the query was tracked."""
    ignored_params: tuple[str, ...] = ()
    """Search parameters that were asked for and that this kind of index has not: it was searched without them."""
    encode_ms: float | None = None
    """Of `took_ms`, until the vectors of the request's texts were there. None for vectors."""
    truncated: bool = False
    """Whether the text had more tokens than the model takes: only its beginning was encoded."""
    reranked: bool | None = None
    """Whether the hits are in the order of the index's cross-encoder, and not in that of `scores`. None where nobody
    was to reorder them: for vectors, and where the index has none."""
    fresh: int | None = None
    """Number of the snapshot of fresh rows that were searched too, for `min_fresh`. None: there are none, or they are
    switched off."""
    shards_missing: tuple[int, ...] = ()
    """Numbers of the shards that did not answer: their rows are not among the hits. Empty unless the index is in shards
    with `searcher.partial: Allow`."""

    @property
    def partial(self) -> bool:
        """Whether nearer rows may be missing, because a shard did not answer."""
        return bool(self.shards_missing)


def results_of(answer: Answer, queries: int) -> list[Result]:
    """The results in an answer of /v1/search, one for each query. Raises ServerError when it is none."""
    try:
        found = _of_bytes(answer) if answer.body[:4] == MAGIC else _of_json(answer)
    except (KeyError, TypeError, AttributeError, ValueError, struct.error):
        raise not_a_searcher(answer.status) from None
    if len(found) != queries:
        raise not_a_searcher(answer.status)
    return found


def _of_json(answer: Answer) -> list[Result]:
    document = answer.document("results")
    revision, took, ignored = document["revision"], document["tookMs"], _ignored(answer)
    encode, cut, missing = document.get("encodeMs"), _cut(document), _missing(answer)
    return [
        Result(
            one["ids"],
            one["scores"],
            one.get("metadata"),
            revision,
            took,
            one.get("queryId"),
            ignored,
            encode,
            bool(cut & {"text", f"texts[{number}]"}),
            document.get("reranked"),
            document.get("fresh"),
            missing,
        )
        for number, one in enumerate(document["results"])
    ]


def _cut(document: dict[str, Any]) -> set[str]:
    """The texts of a request of which only the beginning was encoded."""
    return {one["field"] for one in document.get("warnings", ()) if one.get("kind") == "TextTruncated"}


def _of_bytes(answer: Answer) -> list[Result]:
    """A binary answer (docs/searcher-api.md). Raises ValueError or struct.error for one that is not whole."""
    body, revision = answer.body, answer.headers[REVISION]
    _, queries, hits, kind = _HEAD.unpack_from(body)
    at = _HEAD.size
    ids: list[Id] = list(struct.unpack_from(f"<{hits}{'I' if kind else 'q'}", body, at))
    at += hits * (4 if kind else 8)
    counts = struct.unpack_from(f"<{queries}I", body, at)
    at += 4 * queries
    scores = list(struct.unpack_from(f"<{hits}f", body, at))
    at += 4 * hits
    if kind:
        ends = list(accumulate(ids, initial=at))
        ids, at = [body[start:end].decode() for start, end in pairwise(ends)], ends[-1]
    if at != len(body) or sum(counts) != hits or kind > 1:
        raise ValueError("not whole")
    ignored, said = _ignored(answer), answer.headers.get(RERANKED)
    reranked = None if said is None else said == "true"
    number = answer.headers.get(FRESH)
    fresh = None if number is None else int(number)
    missing = _missing(answer)
    spans = ((0, hits),) if queries == 1 else pairwise(accumulate(counts, initial=0))
    return [
        Result(
            ids[at:end],
            scores[at:end],
            None,
            revision,
            None,
            None,
            ignored,
            reranked=reranked,
            fresh=fresh,
            shards_missing=missing,
        )
        for at, end in spans
    ]


def _ignored(answer: Answer) -> tuple[str, ...]:
    text = answer.headers.get(IGNORED_PARAMS)
    return tuple(text.split(", ")) if text else ()


def _missing(answer: Answer) -> tuple[int, ...]:
    """Of JSON, too: the header says what the document does. Raises ValueError where it holds no numbers."""
    text = answer.headers.get(SHARDS_MISSING)
    return tuple(int(number) for number in text.split(",")) if text else ()
