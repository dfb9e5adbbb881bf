"""The user port of a router: what a searcher's answers, over all shards. Every answer becomes evidence, once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import orjson

from ... import contract
from ...index.filters import columns_of_letters
from ...text.encoder import Encoder
from .. import openapi
from ..answered import SEARCH_PATH, count_answer
from ..evidence.feedback import QueryIds
from ..evidence.recorder import Outcome, Recorder
from ..http.deadline import DEADLINE_HEADER, seconds_of
from ..http.dispatch import Answer, Routes, dispatch
from ..http.messages import Deferred, Request, Response, json_response
from ..search.encoding import TextSearches, encodes
from ..search.plan import Planner
from ..search.policies import ALL_ROWS, Policies, Policy, narrowed, unusable
from ..search.pool import Group
from ..search.reader import Read, ReadTexts, RequestReader, wants_binary
from ..search.vectors import VectorReader, Vectors
from .facts import Whole
from .router import Router

READ_HERE_BYTES = 16 << 10
"""Of a request with a filter that is read, and written for shards, on the event loop."""
NOWHERE = Group(run=lambda asked: [])
"""Searches are grouped by who searches."""


class RouterApp:
    """Answers users. One revision, for the life of the process."""

    def __init__(
        self,
        whole: Whole,
        router: Router,
        recorder: Recorder,
        feedback: QueryIds,
        *,
        tokens: bool = False,
        policies: Policies | None = None,
        columns_before: Mapping[str, str] | None = None,
        encoder: Encoder | None = None,
        threads: int = 1,
    ) -> None:
        """As SearchApp's: `tokens`, `policies`, `columns_before`, `encoder`, `threads`."""
        before = columns_of_letters(columns_before) if columns_before else None
        self._schema = schema = replace(whole.schema(), columns_before=before, texts=encoder is not None)
        self._router, self._recorder, self._tokens, self._policies = router, recorder, tokens, policies
        self._compares = columns_before is not None
        if policies is not None:
            policies.bind(schema.columns)
        self._planner = planner = Planner(schema, lambda k, params, metadata, candidates, rows: NOWHERE)
        vectors = VectorReader(schema.dimension, schema.metric, schema.embedding_model)
        self._reader = RequestReader(planner, vectors, encodes=schema.texts)
        self._texts: TextSearches | None = None
        if encoder is not None:
            self._texts = TextSearches(encoder, router.ask_encoded, schema.metric, threads)
        self.ignored_params: Counter[str] = Counter()
        """As SearchApp's."""
        self._document = document = {
            **whole.document(),
            **({} if encoder is None else {"encoder": encodes(encoder)}),
        }
        openapi_bytes = orjson.dumps(openapi.document(document, tokens=tokens, foreign=planner.foreign))
        self._routes: Routes = {
            SEARCH_PATH: ((b"POST",), self._search),
            b"/v1/index": ((b"GET", b"HEAD"), self._index),
            b"/v1/feedback": ((b"POST",), feedback.handle),
            b"/openapi.json": ((b"GET", b"HEAD"), lambda request: Response(200, openapi_bytes)),
        }

    def close(self) -> None:
        """End what threads it has."""
        if self._texts is not None:
            self._texts.close()

    def handle(self, request: Request) -> Answer:
        """Route one request. Raises Problem 403 for a token that may see no row."""
        self._policy(request)
        return dispatch(self._routes, request)

    def answered(self, request: Request, response: Response, seconds: float) -> None:
        """Count it; see count_answer."""
        count_answer(self._recorder, self.ignored_params, request, response, seconds, tokens=self._tokens)

    def _policy(self, request: Request) -> Policy:
        """What the token may see. Raises Problem 403 for one without a policy."""
        return ALL_ROWS if self._policies is None else self._policies.of(request.credential)

    def _index(self, request: Request) -> Answer:
        """GET /v1/index. How many rows a policy leaves is asked of all shards."""
        policy = self._policy(request)
        if policy.fault:
            raise unusable()
        if policy.filter is None:
            return json_response(self._document)
        fields = {"k": 1, "filter": policy.filter}
        plan = self._planner.plan(fields, binary=False)
        outcome, told = Outcome(contract.OTHER_SEGMENT), Deferred()

        def count(answer: Response | BaseException) -> None:
            if not isinstance(answer, Response):
                told.resolve(answer)
                return
            told.resolve(json_response(narrowed(self._document, orjson.loads(answer.body)["filter"]["rows"])))

        self._router.ask(plan, any_vector(self._schema.dimension), outcome, time.monotonic(), None, whole=True).then(
            count
        )
        return told

    def _search(self, request: Request) -> Deferred:
        """POST /v1/search."""
        policy = self._policy(request)
        request.outcome = outcome = Outcome(contract.OTHER_SEGMENT, compared=self._compares)
        if policy.fault:
            outcome.lost = self._planner.lost({}, policy)
            raise unusable()
        headers, body, query = request.headers, request.body, request.query
        binary, content_type = wants_binary(headers.get(b"accept")), headers.get(b"content-type", b"")
        read = self._reader.read(body, query, content_type, outcome, binary=binary, policy=policy)
        text = headers.get(DEADLINE_HEADER)
        seconds = None if text is None else seconds_of(text)
        if isinstance(read, ReadTexts):
            assert self._texts is not None  # the reader refuses them without an encoder
            return self._texts.ask(read, outcome, request.completed, seconds)
        if len(body) + len(query) > READ_HERE_BYTES and not (isinstance(read, tuple) and "filter" not in read[0].asked):
            later = read if callable(read) else partial(_known, read)
            return self._router.ask_unread(later, outcome, request.completed, seconds)
        plan, vectors = read() if callable(read) else read
        return self._router.ask(plan, vectors, outcome, request.completed, seconds)


def _known(read: Read) -> Read:
    return read


def any_vector(dimension: int) -> Vectors:
    """One that every index can be asked for, float32 [dimension]."""
    vector = np.zeros(dimension, np.float32)
    vector[0] = 1.0
    return vector
