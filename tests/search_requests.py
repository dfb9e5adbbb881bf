"""Reading a search request as the searcher does, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from vectorindex_searcher.contract import OTHER_SEGMENT
from vectorindex_searcher.serve.evidence.recorder import Outcome
from vectorindex_searcher.serve.search.plan import Planner, QuerySchema, SearchPlan
from vectorindex_searcher.serve.search.pool import Group
from vectorindex_searcher.serve.search.reader import BINARY_TYPE, RequestReader
from vectorindex_searcher.serve.search.vectors import VectorReader, Vectors


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it was understood. `vectors`: [n, d]."""

    plan: SearchPlan
    vectors: Vectors
    outcome: Outcome

    @property
    def params(self) -> dict[str, int]:
        return dict(self.plan.params)


def reader(terms: QuerySchema) -> RequestReader:
    def nothing(_items: Sequence[Any]) -> list[Any]:
        return []

    planner = Planner(terms, lambda *_: Group(nothing))
    vectors = VectorReader(terms.dimension, terms.metric, terms.embedding_model)
    return RequestReader(planner, vectors, encodes=terms.texts)


def ask(reader: RequestReader, body: bytes, query: bytes = b"", *, raw: bool = False, binary: bool = False) -> Asked:
    """`raw`: the body is binary vectors; `binary`: the answer is. Raises Problem."""
    outcome = Outcome(OTHER_SEGMENT)
    read = reader.read(body, query, BINARY_TYPE if raw else b"", outcome, binary=binary)
    plan, vectors = read if isinstance(read, tuple) else read()
    assert outcome.queries == (1 if vectors.ndim == 1 else len(vectors))
    return Asked(plan, vectors.reshape(outcome.queries, -1), outcome)


def ask_json(terms: QuerySchema, body: object) -> Asked:
    return ask(reader(terms), body if isinstance(body, bytes) else orjson.dumps(body))


def ask_binary(terms: QuerySchema, query: bytes, vectors: np.ndarray | bytes) -> Asked:
    raw = vectors if isinstance(vectors, bytes) else vectors.astype("<f4").tobytes()
    return ask(reader(terms), raw, query, raw=True)
