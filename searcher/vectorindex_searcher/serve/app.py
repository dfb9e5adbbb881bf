"""The user port: POST /v1/search, GET /v1/index and GET /openapi.json.

Turns requests into searches, and every answer into evidence.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from .. import contract
from ..index.engine import Engine
from ..proof.report import Points
from . import openapi
from .evidence.feedback import Feedback
from .evidence.live_sample import LiveSample
from .evidence.ring import EvidenceRing, Outcome
from .http.dispatch import Answer, Routes, dispatch
from .http.messages import Deferred, Problem, Request, Response, json_response
from .search.answers import BINARY_TYPE, wants_binary
from .search.fast_path import FastPath
from .search.fields import fields_of_json, fields_of_query_string
from .search.pool import SearchPool
from .search.query import DEFAULT_K, MAX_K, MAX_VECTORS, QuerySchema, Vectors, search_of, segment_of
from .search.service import SearchPlan, SearchService

DEADLINE_HEADER = b"x-request-timeout-ms"
MAX_DEADLINE_MS = 600_000
_JSON_TYPES = (b"", b"application/json", b"application/x-www-form-urlencoded", b"text/plain")
"""What a JSON body may call itself: curl -d without a header says form."""


@dataclass(slots=True, eq=False)
class RequestFormat:
    """How a request is written, whatever its body says."""

    binary_answer: bool
    fields: Mapping[str, Any] | None = None
    """Of the query string beside a binary body; None: the body is JSON."""
    plan: SearchPlan | None = None
    """What such a request wants, once one was found to be right."""


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
        self._ring = ring
        self.feedback = Feedback(task.revision, ring)
        self._terms = QuerySchema(
            dimension=engine.dimension,
            metric=engine.metric,
            param_limits=engine.param_limits,
            segments=frozenset(task.segments),
            segment_params=points.params if points else {},
            embedding_model=embedding.model,
            embedding_version=embedding.version,
            min_score=task.min_score,
            columns=engine.filter_columns if engine.supports_filter else None,
        )
        self._routes: Routes = {
            b"/v1/search": ((b"POST",), self._search),
            b"/v1/index": ((b"GET", b"HEAD"), self._index),
            b"/v1/feedback": ((b"POST",), self.feedback.handle),
            b"/openapi.json": ((b"GET", b"HEAD"), self._openapi),
        }
        self._index_document = index_document(engine, task, points)
        self._openapi_bytes = orjson.dumps(openapi.document(self._index_document, tokens=tokens))
        self._searching = SearchService(engine, pool, task.revision, self._terms.segment_params, live, self.feedback)
        self._quick = FastPath(engine.dimension)
        self._form = functools.lru_cache(maxsize=256)(self._make_form)
        self._plain_plan = functools.lru_cache(maxsize=1024)(self._make_plain_plan)

    def handle(self, request: Request) -> Answer:
        """Route one request; a search whose head came before needs no routing."""
        head = request.head
        if head is not None and isinstance(head.plan, RequestFormat):
            return self._search_as(head.plan, request)
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
            text = request.headers.get(DEADLINE_HEADER)
            outcome.deadline = math.inf if text is None else _seconds(text)
        self._ring.record(outcome, response.status, seconds)

    def _index(self, _request: Request) -> Response:
        return json_response(self._index_document)

    def _openapi(self, _request: Request) -> Response:
        return Response(200, self._openapi_bytes)

    def _search(self, request: Request) -> Deferred:
        """POST /v1/search."""
        # What does not depend on the body is worked out once: clients repeat it.
        request.outcome = Outcome(contract.OTHER_SEGMENT)
        headers = request.headers
        form = self._form(headers.get(b"content-type", b""), request.query, headers.get(b"accept", b""))
        if request.head is not None:
            request.head.plan = form
        return self._search_as(form, request)

    def _search_as(self, form: RequestFormat, request: Request) -> Deferred:
        """Check the request and hand it to the pool. A refusal counts for the segment that the request named."""
        request.outcome = outcome = Outcome(contract.OTHER_SEGMENT)
        raw: bytes | None = request.body
        fields = form.fields
        if fields is None:
            fields, raw = fields_of_json(request.body), None
            plan, vector = self._plain(fields, form.binary_answer)
        else:
            plan, vector = form.plan, self._quick.of_bytes(request.body) if form.plan is not None else None
        if plan is None or vector is None:
            outcome.segment = segment_of(fields, self._terms)
            search = search_of(fields, raw, self._terms)
            outcome.queries, vector = len(search.vectors), search.vectors
            plan = self._searching.plan(search, binary=form.binary_answer)
            if raw is not None:
                form.plan = plan
        else:
            outcome.segment = plan.search.segment
        text = request.headers.get(DEADLINE_HEADER)
        seconds = None if text is None else _seconds(text)
        return self._searching.ask(plan, vector, outcome, request.completed, seconds)

    def _plain(self, fields: Mapping[str, Any], binary: bool) -> tuple[SearchPlan | None, Vectors | None]:
        """For a JSON body that asks for one vector and names no more than k and segment; else None."""
        vector = self._quick.of_fields(fields)
        if vector is None:
            return None, None
        segment = fields.get("segment")
        known = segment if segment in self._terms.segments else contract.OTHER_SEGMENT
        return self._plain_plan(fields.get("k", DEFAULT_K), known, binary), vector

    def _make_plain_plan(self, k: int, segment: str, binary: bool) -> SearchPlan:
        search = search_of({"k": k, "segment": segment}, self._quick.any_vector, self._terms)
        return self._searching.plan(search, binary=binary)

    def _make_form(self, content_type: bytes, query: bytes, accept: bytes) -> RequestFormat:
        """What follows from headers and query string. Raises Problem 400 or 415."""
        binary_answer = wants_binary(accept)
        content_type = content_type.partition(b";")[0].strip().lower()
        if content_type == BINARY_TYPE:
            return RequestFormat(binary_answer, fields_of_query_string(query))
        if content_type not in _JSON_TYPES:
            raise Problem(
                415,
                "UnsupportedMediaType",
                "the body's media type is not understood",
                field="Content-Type",
                value=content_type.decode("latin-1"),
                remedy=f"send application/json, or little-endian float32 as {BINARY_TYPE.decode()}",
            )
        if query:
            raise Problem(
                400,
                "UnknownField",
                "a search with a JSON body takes no query string",
                field="query string",
                value=query.decode("latin-1"),
                remedy="name everything in the body",
            )
        return RequestFormat(binary_answer)


def _seconds(text: bytes) -> float:
    """How long the client will wait for its answer: `text` of its X-Request-Timeout-Ms. Raises Problem 400."""
    if not text.isdigit() or not 1 <= (milliseconds := int(text[:10])) <= MAX_DEADLINE_MS:
        raise Problem(
            400,
            "InvalidField",
            f"the deadline must be 1 to {MAX_DEADLINE_MS} milliseconds",
            field="X-Request-Timeout-Ms",
            value=text.decode("latin-1"),
            remedy="send whole milliseconds, or leave the header out",
        )
    return milliseconds / 1e3


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
        "filterColumns": engine.filter_columns.described if engine.supports_filter else {},
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
