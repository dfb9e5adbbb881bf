"""The user port: POST /v1/search, GET /v1/index and GET /openapi.json.

Turns requests into searches, and every answer into evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import orjson

from .. import contract
from ..index.engine import Engine
from ..index.filters import columns_of_letters
from ..proof.report import Points
from ..text.encoder import Encoder
from ..text.reranker import Reranker
from . import openapi
from .answered import SEARCH_PATH, count_answer
from .evidence.feedback import QueryIds
from .evidence.live_queries import LiveQueries
from .evidence.live_sample import LiveSample
from .evidence.recorder import Outcome, Recorder
from .http.deadline import DEADLINE_HEADER, seconds_of
from .http.dispatch import Answer, Routes, dispatch
from .http.head import Credential
from .http.limits import (
    ANSWER_BYTES,
    CANDIDATES,
    MAX_K,
    MAX_VECTORS,
)
from .http.messages import Deferred, Request, Response, json_response
from .point import serving_points
from .search.encoding import Search, TextSearches, encodes
from .search.freshness import Freshness
from .search.plan import NO_LIMITS, Planner, QuerySchema, allowed_params
from .search.policies import ALL_ROWS, Policies, Policy, narrowed, unusable
from .search.pool import SearchPool
from .search.reader import ReadTexts, RequestReader, wants_binary
from .search.reranking import Reranking
from .search.service import SearchService
from .search.vectors import VectorReader, Vectors
from .shadow.mirror import Mirror
from .shadow.receiver import Found


class SearchApp:
    """Answers users. One revision, for the life of the process."""

    def __init__(
        self,
        engine: Engine,
        task: contract.ServeTask,
        pool: SearchPool,
        recorder: Recorder,
        feedback: QueryIds,
        points: Points | None = None,
        live: LiveSample | None = None,
        queries: LiveQueries | None = None,
        *,
        mirror: Mirror | None = None,
        tokens: bool = False,
        policies: Policies | None = None,
        limited: contract.ParamLimits = NO_LIMITS,
        columns_before: Mapping[str, str] | None = None,
        encoder: Encoder | None = None,
        reranker: Reranker | None = None,
        threads: int = 1,
        fresh: Freshness | None = None,
        shards: int = 0,
    ) -> None:
        """`mirror`: takes what another revision is to answer again. `tokens`: whether a bearer token is asked for,
        which is all that it knows of them. `policies`: which rows a token may see; None: all. `limited`: what queries
        may choose for themselves. `columns_before`: contract.COLUMNS_BEFORE_ENV; None: not known. `encoder`: takes
        queries in words, on `threads` threads; `reranker`: reorders the answers to them, on as many, by the task.
        `fresh`: what of the rows after the artifact's is searched too. `shards`: of which this is one; 0: of none.
        """
        embedding = engine.manifest.embedding
        self._recorder = recorder
        # Also where this index cannot be filtered at all: it is told only if the one before surely could.
        self._compares = columns_before is not None
        segment_params = points.params if points else {}
        self._params = serving_points(engine, segment_params, task.segments)
        self._schema = schema = QuerySchema(
            dimension=engine.dimension,
            metric=engine.metric,
            param_limits=engine.param_limits,
            limited=limited,
            default_params=engine.default_params,
            segments=frozenset(task.segments),
            segment_params=segment_params,
            embedding_model=embedding.model,
            embedding_version=embedding.version,
            min_score=task.min_score,
            columns=engine.filter_columns if engine.supports_filter else None,
            columns_before=columns_of_letters(columns_before) if columns_before else None,
            texts=encoder is not None,
            fresh=fresh is not None,
        )
        if policies is not None:
            policies.bind(schema.columns)
        own = [one for point in self._params.values() for one in point.values()]
        self._searching = SearchService(engine, pool, task.revision, own, live, feedback, queries, mirror, fresh)
        self._keeps_queries, self._tokens, self._policies = queries is not None, tokens, policies
        self._engine, self._pool = engine, pool
        self._vectors = VectorReader(engine.dimension, engine.metric, embedding.model)
        self._planner = planner = Planner(schema, self._searching.group)
        self._reader = RequestReader(planner, self._vectors, encodes=schema.texts)
        self._texts: TextSearches | None = None
        self._reranking: Reranking | None = None
        if encoder is not None:
            search: Search = self._searching.ask
            if reranker is not None and task.rerank is not None:
                self._reranking = Reranking(self._searching, pool, engine, reranker, task.rerank, threads)
                search = self._reranking.ask
            self._texts = TextSearches(encoder, search, engine.metric, threads)
        self.ignored_params: Counter[str] = Counter()
        """Answered searches by the parameters that they named and this index has not."""
        self._routes: Routes = {
            b"/v1/search": ((b"POST",), self.handle),
            b"/v1/index": ((b"GET", b"HEAD"), self._index),
            b"/v1/feedback": ((b"POST",), feedback.handle),
            b"/openapi.json": ((b"GET", b"HEAD"), self._openapi),
        }
        self._index_document = index_document(engine, task, points, limited, encoder, shards)
        self._openapi_bytes = orjson.dumps(
            openapi.document(self._index_document, tokens=tokens, foreign=planner.foreign)
        )

    @property
    def points(self) -> tuple[contract.ServingPoint, ...]:
        """Where it can answer."""
        return tuple(self._params)

    def serve_at(self, point: contract.ServingPoint) -> None:
        """Answer what is read from now on at this point, one of `points`. What a request says itself stays."""
        self._planner = Planner(replace(self._schema, segment_params=self._params[point]), self._searching.group)
        self._reader = RequestReader(self._planner, self._vectors, encodes=self._schema.texts)

    def close(self) -> None:
        """End what threads it has; the pool is not its own."""
        if self._texts is not None:
            self._texts.close()
        if self._reranking is not None:
            self._reranking.close()

    def handle(self, request: Request) -> Answer:
        """Route one request, a search by the shortest way. Raises Problem 403 for a token that may see no row."""
        path, _, query = request.target.partition(b"?")
        policy = self._policy(request)
        if path == SEARCH_PATH and request.method == b"POST":
            return self._search(request, query, policy)
        return dispatch(self._routes, request)

    def answered(self, request: Request, response: Response, seconds: float) -> None:
        """Count it; see count_answer."""
        count_answer(self._recorder, self.ignored_params, request, response, seconds, tokens=self._tokens)

    def find(self, fields: dict[str, object], vector: Vectors, deadline: float) -> Found:
        """What a request with these fields and this vector finds, and would be answered with: for a shadow, which waits
        until `deadline` (monotonic). It is no evidence. On a search thread. Raises Problem 400, 422, 503 or 504."""
        plan = self._planner.plan(fields, binary=False)
        scores, rows, allowed, hits = self._searching.find(plan, vector, deadline)
        return Found(plan.segment, scores, rows, hits, allowed)

    def _sender(self, request: Request) -> Credential | str:
        """The token, where the guard has checked it; else a client could show any number of them: its address."""
        credential = request.credential if self._tokens else None
        return credential if credential is not None else request.peer

    def _policy(self, request: Request) -> Policy:
        """What the token may see. Raises Problem 403 for one without a policy."""
        return ALL_ROWS if self._policies is None else self._policies.of(request.credential)

    def _index(self, request: Request) -> Answer:
        policy = self._policy(request)
        if policy.fault:
            raise unusable()
        if policy.predicate is None:
            return json_response(self._index_document)
        predicate = policy.predicate

        def job() -> Response:
            rows = self._engine.matching(predicate)
            return json_response(narrowed(self._index_document, rows.matching))

        return self._pool.submit(job, 1, None)

    def _openapi(self, _request: Request) -> Response:
        return Response(200, self._openapi_bytes)

    def _search(self, request: Request, query: bytes, policy: Policy) -> Deferred:
        """POST /v1/search. A refusal counts for the segment that the request named."""
        request.outcome = outcome = Outcome(contract.OTHER_SEGMENT, compared=self._compares)
        if self._keeps_queries:
            outcome.sender = self._sender(request)
        if policy.fault:
            outcome.lost = self._planner.lost({}, policy)
            raise unusable()
        headers, body = request.headers, request.body
        binary, content_type = wants_binary(headers.get(b"accept")), headers.get(b"content-type", b"")
        read = self._reader.read(body, query, content_type, outcome, binary=binary, policy=policy)
        text = headers.get(DEADLINE_HEADER)
        seconds = None if text is None else seconds_of(text)
        if isinstance(read, tuple):
            return self._searching.ask(*read, outcome, request.completed, seconds)
        if isinstance(read, ReadTexts):
            assert self._texts is not None  # the reader refuses them without an encoder
            return self._texts.ask(read, outcome, request.completed, seconds)
        return self._searching.ask_unread(read, len(body), outcome, request.completed, seconds)


def index_document(
    engine: Engine,
    task: contract.ServeTask,
    points: Points | None = None,
    limited: contract.ParamLimits = NO_LIMITS,
    encoder: Encoder | None = None,
    shards: int = 0,
) -> dict[str, object]:
    """The answer of GET /v1/index: what is served here and how it may be asked."""
    manifest = engine.manifest
    default = points.default if points else manifest.default_point
    general = {"default": default, "conservative": manifest.conservative_point}
    params = allowed_params(engine.param_limits, limited)
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
        "segmentPoints": {name: own.get(name, default).wire() for name in task.segments},
        "params": {name: {"min": low, "max": high} for name, (low, high) in params.items()},
        "segments": list(task.segments),
        "minScore": task.min_score,
        "limits": {
            "k": MAX_K,
            "vectors": MAX_VECTORS,
            "candidates": CANDIDATES,
            "answerBytes": ANSWER_BYTES,
        },
        "indexBytes": engine.resident_bytes,
        "faissVersion": manifest.faiss_version,
        "builderVersion": manifest.builder_version,
        "created": manifest.created,
        **({"shard": {"number": manifest.shard, "of": shards, "plan": manifest.plan_sha256}} if shards else {}),
        **({} if encoder is None else {"encoder": encodes(encoder)}),
        **({} if encoder is None or task.rerank is None else {"reranker": _reranks(task.rerank)}),
    }


def _reranks(task: contract.RerankTask) -> dict[str, object]:
    """documents.Reranks."""
    return {"candidates": task.candidates, "budgetMs": round(task.budget_seconds * 1e3, 3)}
