"""One query to an index from a laptop."""

from __future__ import annotations

import json
import math
import random
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vectorindex_client import Client, InvalidRequest, Result, Unauthorized, VectorIndexError
from vectorindex_plugin.exits import EndedError, Exit


@dataclass(frozen=True, slots=True)
class HitFacts:
    """One answer: its id, its score, and its metadata where it has any."""

    id: int | str
    score: float
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class QueryFacts:
    """`note`: what was asked where nobody gave a vector."""

    revision: str
    took_ms: float | None
    hits: tuple[HitFacts, ...]
    note: str


def vector_of(text: str) -> list[float] | None:
    """The numbers that were given: JSON, @FILE, or - for standard input; None: none were. Raises EndedError."""
    if not text:
        return None
    try:
        given = sys.stdin.read() if text == "-" else Path(text[1:]).read_text("utf-8") if text[0] == "@" else text
        found = json.loads(given)
    except OSError as error:
        raise EndedError(Exit.NOT_FOUND, f"{text[1:]} cannot be read: {error}") from error
    except ValueError as error:
        raise EndedError(Exit.USAGE, f"a vector is a list of numbers, such as [0.1, 0.2]: {error}") from error
    if not isinstance(found, list) or not all(isinstance(one, int | float) for one in found):
        raise EndedError(Exit.USAGE, "a vector is a list of numbers, such as [0.1, 0.2]")
    return [float(one) for one in found]


def ask(
    url: str,
    vector: list[float] | None,
    k: int,
    *,
    text: str | None = None,
    filter: Mapping[str, Any] | None = None,  # noqa: A002 - the API's name
    token: str | None = None,
    ca: str | None = None,
) -> QueryFacts:
    """Ask a searcher. Without a vector and a text, random numbers, to see that it answers. Raises EndedError."""
    try:
        with Client(url, token=token, ca=_trusted(ca), retries=0) as client:
            document = client.index()
            random_one = vector is None and text is None
            query = _some(int(document["dimension"])) if random_one else vector
            metadata = bool(document.get("metadataColumns"))
            found = client.search(query, k, text=text, filter=filter, include_metadata=metadata)
            note = "a vector of random numbers was asked" if random_one else _cut(found)
    except (InvalidRequest, Unauthorized) as error:
        raise EndedError(Exit.REFUSED, str(error)) from error
    except VectorIndexError as error:
        raise EndedError(Exit.UNREACHABLE, str(error)) from error
    rows = found.metadata or [{} for _ in found.ids]
    hits = tuple(HitFacts(*one) for one in zip(found.ids, found.scores, rows, strict=True))
    return QueryFacts(found.revision, found.took_ms, hits, note)


def _cut(found: Result) -> str:
    return "only the beginning of the text was encoded: no more is taken" if found.truncated else ""


def _trusted(ca: str | None) -> ssl.SSLContext | None:
    """Certificates of this authority. The name in one is that of the Service, and the port is forwarded from here."""
    if ca is None:
        return None
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = False
    return context


def _some(dimension: int) -> list[float]:
    """Numbers of length 1 in all: any metric takes them."""
    rng = random.Random(0)  # noqa: S311 - not a secret
    numbers = [rng.gauss(0.0, 1.0) for _ in range(dimension)]
    length = math.hypot(*numbers)
    return [one / length for one in numbers]
