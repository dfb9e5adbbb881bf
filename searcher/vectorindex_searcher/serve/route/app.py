"""The user port of a router: what a searcher's answers, over all shards. Every answer becomes evidence, once."""

from __future__ import annotations

from collections import Counter
from functools import partial

import orjson

from ... import contract
from .. import openapi
from ..answered import SEARCH_PATH, count_answer
from ..evidence.feedback import QueryIds
from ..evidence.recorder import Outcome, Recorder
from ..http.deadline import DEADLINE_HEADER, seconds_of
from ..http.dispatch import Answer, Routes, dispatch
from ..http.messages import Deferred, Problem, Request, Response, json_response
from ..search.plan import Planner
from ..search.pool import Group
from ..search.reader import Read, ReadTexts, RequestReader, wants_binary
from ..search.vectors import VectorReader
from .facts import Whole
from .router import Router

READ_HERE_BYTES = 16 << 10
"""Of a request with a filter that is read, and written for shards, on the event loop."""
NOWHERE = Group(run=lambda asked: [])
"""Searches are grouped by who searches."""


class RouterApp:
    """Answers users. One revision, for the life of the process."""

    def __init__(
        self, whole: Whole, router: Router, recorder: Recorder, feedback: QueryIds, *, tokens: bool = False
    ) -> None:
        """`tokens`: whether a bearer token is asked for."""
        schema = whole.schema()
        self._router, self._recorder, self._tokens = router, recorder, tokens
        planner = Planner(schema, lambda k, params, metadata, candidates, rows: NOWHERE)
        model = schema.embedding_model
        self._reader = RequestReader(planner, VectorReader(schema.dimension, schema.metric, model), encodes=False)
        self.ignored_params: Counter[str] = Counter()
        """As SearchApp's."""
        document = whole.document()
        openapi_bytes = orjson.dumps(openapi.document(document, tokens=tokens, foreign=planner.foreign))
        self._routes: Routes = {
            SEARCH_PATH: ((b"POST",), self._search),
            b"/v1/index": ((b"GET", b"HEAD"), lambda request: json_response(document)),
            b"/v1/feedback": ((b"POST",), feedback.handle),
            b"/openapi.json": ((b"GET", b"HEAD"), lambda request: Response(200, openapi_bytes)),
        }

    def handle(self, request: Request) -> Answer:
        """Route one request."""
        return dispatch(self._routes, request)

    def answered(self, request: Request, response: Response, seconds: float) -> None:
        """Count it; see count_answer."""
        count_answer(self._recorder, self.ignored_params, request, response, seconds, tokens=self._tokens)

    def _search(self, request: Request) -> Deferred:
        """POST /v1/search."""
        request.outcome = outcome = Outcome(contract.OTHER_SEGMENT)
        headers, body, query = request.headers, request.body, request.query
        binary, content_type = wants_binary(headers.get(b"accept")), headers.get(b"content-type", b"")
        read = self._reader.read(body, query, content_type, outcome, binary=binary)
        text = headers.get(DEADLINE_HEADER)
        seconds = None if text is None else seconds_of(text)
        if isinstance(read, ReadTexts):
            raise Problem(422, "NoEncoder", "a router takes vectors and no text", field="text")
        if len(body) + len(query) > READ_HERE_BYTES and not (isinstance(read, tuple) and "filter" not in read[0].asked):
            later = read if callable(read) else partial(_known, read)
            return self._router.ask_unread(later, outcome, request.completed, seconds)
        plan, vectors = read() if callable(read) else read
        return self._router.ask(plan, vectors, outcome, request.completed, seconds)


def _known(read: Read) -> Read:
    return read
