"""The user port: POST /v1/search, GET /v1/index and GET /openapi.json.

Turns requests into searches on the pool, searches into JSON, and every answer into evidence.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from .. import contract
from ..index.engine import Engine
from ..recall.report import Points
from . import openapi
from .dispatch import Answer, Routes, dispatch
from .evidence import EvidenceRing, Outcome
from .live_sample import LiveSample
from .messages import Later, Problem, Request, Response, json_response
from .pool import Group, SearchPool
from .query import MAX_K, MAX_VECTORS, Search, Terms, fields_of_json, fields_of_query_string, search_of, segment_of

Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

DEADLINE_HEADER = b"x-request-timeout-ms"
MAX_DEADLINE_MS = 600_000
SMALL_K = 100
_BINARY = b"application/octet-stream"
_JSON_TYPES = (b"", b"application/json", b"application/x-www-form-urlencoded", b"text/plain")
"""What a JSON body may call itself: curl -d without a header says form."""


@dataclass(slots=True)
class _Asked:
    """A search on its way. `began`: monotonic time when its request had arrived."""

    search: Search
    outcome: Outcome
    began: float


class SearchApp:
    """Answers users. One revision, for the life of the process."""

    def __init__(
        self,
        engine: Engine,
        task: contract.ServeTask,
        pool: SearchPool,
        ring: EvidenceRing,
        points: Points | None = None,
        live: LiveSample | None = None,
        *,
        tokens: bool = False,
    ) -> None:
        """`tokens`: whether a bearer token is asked for, which is all that it knows of them."""
        embedding = engine.manifest.embedding
        self._engine = engine
        self._task = task
        self._pool = pool
        self._ring = ring
        self._live = live
        self._terms = Terms(
            dimension=engine.dimension,
            metric=engine.metric,
            param_limits=engine.param_limits,
            segments=frozenset(task.segments),
            segment_params=points.params if points else {},
            embedding_model=embedding.model,
            embedding_version=embedding.version,
            min_score=task.min_score,
            columns=engine.filter_columns if engine.takes_only else None,
        )
        self._routes: Routes = {
            b"/v1/search": ((b"POST",), self._search),
            b"/v1/index": ((b"GET", b"HEAD"), self._index),
            b"/openapi.json": ((b"GET", b"HEAD"), self._openapi),
        }
        self._index_document = index_document(engine, task, points)
        self._openapi_bytes = orjson.dumps(openapi.document(self._index_document, tokens=tokens))
        # Clients with binary bodies repeat one query string; reading it anew costs as much as all other checks.
        self._query_fields = functools.lru_cache(maxsize=256)(fields_of_query_string)
        self._group = functools.lru_cache(maxsize=256)(self._make_group)

    def handle(self, request: Request) -> Answer:
        """Route one request."""
        return dispatch(self._routes, request)

    def answered(self, request: Request, response: Response, seconds: float) -> None:
        """Count searches, and requests that were refused before anyone knew what they were."""
        outcome = request.outcome
        if outcome is None:
            if request.problem is None and request.path != b"/v1/search":
                return
            outcome = Outcome(contract.OTHER_SEGMENT)
        assert isinstance(outcome, Outcome)
        if response.status == 504:
            deadline = _deadline(request)
            outcome.deadline = math.inf if deadline is None else deadline - request.completed
        self._ring.record(outcome, response.status, seconds)

    def _index(self, _request: Request) -> Response:
        return json_response(self._index_document)

    def _openapi(self, _request: Request) -> Response:
        return Response(200, self._openapi_bytes)

    def _search(self, request: Request) -> Later:
        """Check the request and hand it to the pool. A refusal counts for the segment that the request named."""
        request.outcome = outcome = Outcome(contract.OTHER_SEGMENT)
        fields, raw = self._fields(request)
        outcome.segment = segment_of(fields, self._terms)
        search = search_of(fields, raw, self._terms)
        outcome.queries = len(search.vectors)
        deadline = _deadline(request)
        asked = _Asked(search, outcome, request.completed)
        # A filter may have to read whole columns: never on the event loop, and no two are the same rows.
        if outcome.queries > 1 or search.filter is not None:
            return self._pool.submit(functools.partial(self._run_alone, asked), outcome.queries, deadline)
        group = self._group(search.k, tuple(sorted(search.params.items())), search.include_metadata)
        return self._pool.submit_one(group, asked, deadline)

    def _make_group(self, k: int, params: tuple[tuple[str, int], ...], metadata: bool) -> Group:
        """The group of all searches for one vector with this k and these parameters."""
        run = functools.partial(self._run_group, k, dict(params))
        # Parameters of the revision's own are known to be quick; those that users name may be anything.
        own = not params or dict(params) in self._terms.segment_params.values()
        return Group(run, small=k <= SMALL_K and own and not metadata)

    def _fields(self, request: Request) -> tuple[Mapping[str, Any], bytes | None]:
        """The request's fields, and the raw vectors of a binary body. Raises Problem 400 or 415."""
        content_type = request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type == _BINARY:
            return self._query_fields(request.query), request.body
        if content_type not in _JSON_TYPES:
            raise Problem(
                415,
                "UnsupportedMediaType",
                "the body's media type is not understood",
                field="Content-Type",
                value=content_type.decode("latin-1"),
                remedy=f"send application/json, or little-endian float32 as {_BINARY.decode()}",
            )
        if request.query:
            raise Problem(
                400,
                "UnknownField",
                "a search with a JSON body takes no query string",
                field="query string",
                value=request.query.decode("latin-1"),
                remedy="name everything in the body",
            )
        return fields_of_json(request.body), None

    def _run_group(self, k: int, params: Mapping[str, int], asked: Sequence[_Asked]) -> list[Response]:
        """Answer searches for one vector each by one call of the engine."""
        vectors = [one.search.vectors for one in asked]
        scores, rows = self._engine.search(vectors[0] if len(vectors) == 1 else np.concatenate(vectors), k, params)
        answers = []
        for number, one in enumerate(asked):
            self._offer(one.search, rows[number : number + 1])
            answers.append(self._answer(one, scores[number : number + 1], rows[number : number + 1]))
        return answers

    def _run_alone(self, asked: _Asked) -> Response:
        search = asked.search
        if search.filter is None:
            scores, rows = self._engine.search(search.vectors, search.k, search.params)
            self._offer(search, rows)
            return self._answer(asked, scores, rows)
        only = self._engine.matching(search.filter)
        scores, rows, strategy = self._engine.search_how(search.vectors, search.k, search.params, only)
        return self._answer(asked, scores, rows, {"filter": {"rows": only.matching, "search": strategy.value}})

    def _offer(self, search: Search, rows: Rows) -> None:
        """To the live sample; but what a client chose by itself is not the revision's recall."""
        if self._live is not None and search.params == self._terms.segment_params.get(search.segment, {}):
            self._live.offer(search.segment, search.vectors, search.k, rows)

    def _answer(
        self, asked: _Asked, scores: Scores, rows: Rows, how: Mapping[str, object] = MappingProxyType({})
    ) -> Response:
        """Write down what was found, and what of it is evidence."""
        search, outcome = asked.search, asked.outcome
        firsts = zip(rows[:, 0].tolist(), scores[:, 0].tolist(), strict=True)
        outcome.top_scores = [score for row, score in firsts if row >= 0]
        outcome.hits = hits = _hits(scores, rows, search.min_score)
        results: list[dict[str, Any]] = []
        for number, count in enumerate(hits):
            kept = rows[number, :count]
            result: dict[str, Any] = {"ids": self._engine.ids(kept), "scores": scores[number, :count]}
            if search.include_metadata:
                result["metadata"] = self._engine.metadata(kept)
            results.append(result)
        document = {
            "revision": self._task.revision,
            "k": search.k,
            "results": results,
            "zeroResults": hits.count(0),
            "tookMs": round((time.monotonic() - asked.began) * 1e3, 3),
            **how,
        }
        return Response(200, orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY, default=str))


def _hits(scores: Scores, rows: Rows, min_score: float | None) -> list[int]:
    """How many of each query's best-first answers [n, k] are hits: those with a row, and a score of at least the bound.

    Hits are the first ones of a line, so a count says which they are.
    """
    if min_score is None:
        if len(rows) == 1 and rows[0, -1] >= 0:
            return [rows.shape[1]]  # the usual case, without numpy's overhead
        found = rows >= 0
    else:
        found = (rows >= 0) & (scores >= min_score)
    counts: list[int] = np.count_nonzero(found, axis=1).tolist()
    return counts


def _deadline(request: Request) -> float | None:
    """Monotonic time by which the client wants its answer, from its X-Request-Timeout-Ms. Raises Problem 400."""
    text = request.headers.get(DEADLINE_HEADER)
    if text is None:
        return None
    if not text.isdigit() or not 1 <= (milliseconds := int(text[:10])) <= MAX_DEADLINE_MS:
        raise Problem(
            400,
            "InvalidField",
            f"the deadline must be 1 to {MAX_DEADLINE_MS} milliseconds",
            field="X-Request-Timeout-Ms",
            value=text.decode("latin-1"),
            remedy="send whole milliseconds, or leave the header out",
        )
    return request.completed + milliseconds / 1e3


def index_document(engine: Engine, task: contract.ServeTask, points: Points | None = None) -> dict[str, object]:
    """The answer of GET /v1/index: what is served here and how it may be asked."""
    manifest = engine.manifest
    general = {"default": manifest.default_point, "conservative": manifest.conservative_point}
    own = {row.segment: row.point for row in points.segments} if points else {}
    return {
        "revision": task.revision,
        "namespace": task.identity.namespace,
        "name": task.identity.name,
        "digest": task.digest,
        "fingerprint": manifest.fingerprint,
        "count": engine.count,
        "dimension": engine.dimension,
        "metric": engine.metric.value,
        "embedding": manifest.embedding.wire(),
        "idType": manifest.id_type,
        "metadataColumns": list(engine.metadata_columns),
        "filterColumns": engine.filter_columns.described if engine.takes_only else {},
        "factory": manifest.factory,
        "indexType": manifest.index_type,
        "operatingPoints": {name: point.wire() for name, point in general.items() if point is not None},
        "segmentPoints": {name: own.get(name, manifest.default_point).wire() for name in task.segments},
        "params": {name: {"min": low, "max": high} for name, (low, high) in engine.param_limits.items()},
        "segments": list(task.segments),
        "minScore": task.min_score,
        "limits": {"k": MAX_K, "vectors": MAX_VECTORS},
        "indexBytes": engine.resident_bytes,
        "faissVersion": manifest.faiss_version,
        "builderVersion": manifest.builder_version,
        "created": manifest.created,
    }
