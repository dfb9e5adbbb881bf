"""From a request's bytes to its plan and its vectors. What takes long is left for a search thread."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ..evidence.recorder import Outcome
from ..http.limits import LOOP_BYTES, MAX_TEXT_CHARACTERS, MAX_TEXTS
from ..http.messages import JSON_TYPE, Problem, body_too_large
from .fields import fields_of_json, fields_of_query_string
from .kinds import Texts, read_text
from .long_json import fields_of_long_json
from .plan import Key, PlanCache, Planner, SearchPlan, check_work
from .policies import ALL_ROWS, Policy
from .vectors import ABSENT, VectorReader, Vectors

BINARY_TYPE = b"application/octet-stream"
_USUAL = frozenset((JSON_TYPE, b"*/*"))
_JSON_TYPES = (b"", JSON_TYPE, b"application/x-www-form-urlencoded", b"text/plain")
"""What a JSON body may call itself: curl -d without a header says form."""

Read = tuple[SearchPlan, Vectors]
"""Vectors: float32 [d] of one, [n, d] of several; what they are is checked."""
_TEXTS = Texts(MAX_TEXTS, MAX_TEXT_CHARACTERS)


@dataclass(frozen=True, slots=True)
class ReadTexts:
    """A search in words: its vectors are still to be made."""

    known: SearchPlan | None
    """Its plan, if it was asked for lately."""
    make: Callable[[], SearchPlan]
    """Makes the plan, on any thread: a filter may hold thousands of values. Raises Problem."""
    texts: tuple[str, ...]
    several: bool
    """Whether they came as a list."""
    holder: bytes = b""
    """Key of the policy of who asks: others shall not learn from the time of an answer what was asked."""


class RequestReader:
    """Reads the searches of one revision. Every method may run on any thread. `encodes`: whether it takes texts."""

    def __init__(self, planner: Planner, vectors: VectorReader, *, encodes: bool = False) -> None:
        self._planner, self._vectors, self._encodes = planner, vectors, encodes
        self.plans = PlanCache()
        self._known = self.plans.get

    def read(
        self,
        body: bytes,
        query: bytes,
        content_type: bytes,
        outcome: Outcome,
        *,
        binary: bool,
        policy: Policy = ALL_ROWS,
    ) -> Read | ReadTexts | Callable[[], Read]:
        """What is asked; or a function that finds out, where that takes long. `binary`: how the answer is written.
        `policy`: what the token may see.

        Writes to `outcome` what is known of the request, also when it is refused. Raises Problem 400, 415 or 422.
        """
        if content_type == BINARY_TYPE or (content_type != JSON_TYPE and _is_binary(content_type)):
            return self._of_bytes(body, query, outcome, binary, policy)
        if query:
            raise _query_beside_json(query)
        if len(body) > LOOP_BYTES:
            return functools.partial(self._of_long_json, body, outcome, binary, policy)
        return self._of_json(body, outcome, binary, policy)

    # ------------------------------------------------------------ binary

    def _of_bytes(
        self, body: bytes, query: bytes, outcome: Outcome, binary: bool, policy: Policy
    ) -> Read | Callable[[], Read]:
        key = (binary, b"?" + query, policy.key)
        plan = self._known(key)
        if plan is not None:
            outcome.segment = plan.segment
            vectors = self._vectors.of_bytes(body, plan.dimension)
            return (plan, vectors) if vectors.ndim == 1 else self._counted(plan, vectors, outcome)
        fields = fields_of_query_string(query, self._planner.fields)
        if "filter" in fields:
            return functools.partial(self._new_of_bytes, key, fields, body, outcome, policy)
        return self._new_of_bytes(key, fields, body, outcome, policy)

    def _new_of_bytes(self, key: Key, fields: Mapping[str, Any], body: bytes, outcome: Outcome, policy: Policy) -> Read:
        plan = self._new(key, fields, outcome, policy)
        return self._counted(plan, self._vectors.of_bytes(body, plan.dimension), outcome)

    # ------------------------------------------------------------ JSON

    def _of_long_json(self, body: bytes, outcome: Outcome, binary: bool, policy: Policy) -> Read:
        fields, rows = fields_of_long_json(body, self._vectors.dimension)
        one, several = fields.pop("vector", ABSENT), fields.pop("vectors", ABSENT) if rows is None else rows
        if "text" in fields or "texts" in fields:
            raise body_too_large(len(body), LOOP_BYTES, remedy="send fewer or shorter texts in one request")
        key = _key(binary, fields, policy)
        plan = self._known(key) or self._new(key, fields, outcome, policy)
        outcome.segment = plan.segment
        return self._counted(plan, self._vectors.of_json(one, several, body), outcome)

    def _of_json(
        self, body: bytes, outcome: Outcome, binary: bool, policy: Policy
    ) -> Read | ReadTexts | Callable[[], Read]:
        fields = fields_of_json(body)
        if "text" in fields or "texts" in fields:
            return self._of_texts(fields, outcome, binary, policy)
        one, several = fields.pop("vector", ABSENT), fields.pop("vectors", ABSENT)
        key = _key(binary, fields, policy)
        plan = self._known(key)
        if plan is not None:
            outcome.segment = plan.segment
            vectors = self._vectors.of_json(one, several, body)
            return (plan, vectors) if vectors.ndim == 1 else self._counted(plan, vectors, outcome)
        # A filter may hold thousands of values, and is searched on a thread anyway.
        if "filter" in fields:
            return functools.partial(self._new_of_json, key, fields, one, several, body, outcome, policy)
        return self._new_of_json(key, fields, one, several, body, outcome, policy)

    def _new_of_json(
        self,
        key: Key,
        fields: Mapping[str, Any],
        one: Any,
        several: Any,
        body: bytes,
        outcome: Outcome,
        policy: Policy,
    ) -> Read:
        plan = self._new(key, fields, outcome, policy)
        return self._counted(plan, self._vectors.of_json(one, several, body), outcome)

    def _of_texts(self, fields: dict[str, Any], outcome: Outcome, binary: bool, policy: Policy) -> ReadTexts:
        """A search in words."""
        if not self._encodes:
            raise _no_encoder("text" if "text" in fields else "texts")
        given = [name for name in ("vector", "vectors", "text", "texts") if name in fields]
        if len(given) > 1:
            raise _one_of_four(given)
        several, value = given[0] == "texts", fields.pop(given[0])
        texts = _TEXTS.read(value, "texts") if several else (read_text(value, "text", MAX_TEXT_CHARACTERS),)
        outcome.queries = len(texts)
        key = _key(binary, fields, policy)
        known = self._known(key)
        if known is not None:
            outcome.segment = known.segment

        def make() -> SearchPlan:
            plan = known or self._new(key, fields, outcome, policy)
            check_work(plan, len(texts))
            return plan

        return ReadTexts(known, make, texts, several, policy.key)

    # ------------------------------------------------------------ both

    def _new(self, key: Key, fields: Mapping[str, Any], outcome: Outcome, policy: Policy) -> SearchPlan:
        """A plan that was not asked for lately."""
        outcome.segment = self._planner.segment_of(fields)
        try:
            plan = self._planner.plan(fields, binary=key[0], from_query=key[1][:1] == b"?", policy=policy)
        except Problem as problem:
            # All else that it says was checked before.
            outcome.lost = problem.kind == "InvalidFilter" and self._planner.lost(fields, policy)
            raise
        self.plans.put(key, plan)
        return plan

    @staticmethod
    def _counted(plan: SearchPlan, vectors: Vectors, outcome: Outcome) -> Read:
        if vectors.ndim == 2:
            outcome.queries = len(vectors)
            check_work(plan, outcome.queries)
        return plan, vectors


def _key(binary: bool, fields: Mapping[str, Any], policy: Policy) -> Key:
    try:
        return binary, orjson.dumps(fields), policy.key
    except TypeError:
        raise Problem(400, "MalformedJSON", "the body is nested too deeply", remedy="write it flatter") from None


def wants_binary(accept: bytes | None) -> bool:
    """Whether the first media type of an Accept header is the binary answer's."""
    if accept is None or accept in _USUAL:
        return False
    return accept == BINARY_TYPE or accept.partition(b",")[0].partition(b";")[0].strip().lower() == BINARY_TYPE


def _is_binary(content_type: bytes) -> bool:
    """Whether the body is raw vectors; False: JSON. Raises Problem 415 for any other."""
    plain = content_type.partition(b";")[0].strip().lower()
    if plain in _JSON_TYPES:
        return False
    if plain == BINARY_TYPE:
        return True
    raise Problem(
        415,
        "UnsupportedMediaType",
        "the body's media type is not understood",
        field="Content-Type",
        value=plain.decode("latin-1"),
        remedy=f"send application/json, or little-endian float32 as {BINARY_TYPE.decode()}",
    )


def _no_encoder(place: str) -> Problem:
    return Problem(
        422,
        "NoEncoder",
        "this index has no encoder, so it takes vectors and no text",
        field=place,
        remedy="embed the text yourself and send vector; or spec.embedding.encoder of the VectorIndex",
    )


def _one_of_four(given: Sequence[str]) -> Problem:
    return Problem(
        400,
        "InvalidField",
        f"exactly one of vector, vectors, text and texts is needed, found {' and '.join(given)}",
        field=given[0],
        remedy='send {"text": ".."} for one query in words, {"vector": [..]} for one vector',
    )


def _query_beside_json(query: bytes) -> Problem:
    return Problem(
        400,
        "UnknownField",
        "a search with a JSON body takes no query string",
        field="query string",
        value=query.decode("latin-1"),
        remedy="name everything in the body",
    )
