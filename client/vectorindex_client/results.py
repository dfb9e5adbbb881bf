"""Answers as Python objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ServerError

Id = int | str


@dataclass(frozen=True, slots=True)
class Result:
    """The hits of one query, best first."""

    ids: list[Id]
    """Of the source's type: integers or strings."""
    scores: list[float]
    """As long as `ids`; higher is better: the cosine, the inner product, or minus the squared L2 distance."""
    metadata: list[dict[str, Any]] | None
    """As long as `ids`; None unless it was asked for."""
    revision: str
    """Which revision of the index answered."""
    took_ms: float
    """The searcher's own time for the request that this query was part of."""
    query_id: str | None = None
    """What `feedback` takes; None unless the query was tracked."""


def results_of(document: Mapping[str, Any], queries: int) -> list[Result]:
    """The results in an answer of /v1/search, one for each query. Raises ServerError when it is none."""
    try:
        revision, took = document["revision"], document["tookMs"]
        found = [
            Result(one["ids"], one["scores"], one.get("metadata"), revision, took, one.get("queryId"))
            for one in document["results"]
        ]
    except (KeyError, TypeError, AttributeError):
        found = []
    if len(found) != queries:
        raise ServerError("the answer is not one of a searcher", remedy="check the URL")
    return found
