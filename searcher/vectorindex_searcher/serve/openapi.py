"""The OpenAPI 3.1 document of the user port: of one index at GET /openapi.json, of any in docs/reference.

Made of the model of a request (search/fields.py), the models of answers (documents.py) and the problems listed here.
A test holds real answers, every path and every kind of problem in the code against it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from .. import contract
from ..generated import write_or_check
from ..index.filters import JOINERS, LISTED, ORDERED
from . import documents
from .http.limits import FEEDBACK_BYTES, MAX_DEADLINE_MS, MAX_VECTORS, Limits
from .search.fields import Field, body_schema, query_parameters, search_fields

REFERENCE = Path("docs/reference/openapi.json")
PROBLEMS: Mapping[int, tuple[str, ...]] = {
    400: (
        "InvalidField",
        "InvalidFilter",
        "MalformedJSON",
        "MalformedQueryString",
        "MalformedRequest",
        "NonFiniteVector",
        "TooManyVectors",
        "TooMuchWork",
        "UnknownField",
        "VectorTooLarge",
        "ZeroVector",
    ),
    401: ("Unauthorized",),
    403: ("NoPolicy", "PolicyNotUsable"),
    404: ("NotFound",),
    405: ("MethodNotAllowed",),
    408: ("RequestTimeout",),
    409: ("NotFreshYet",),
    413: ("BodyTooLarge",),
    414: ("TargetTooLong",),
    415: ("UnsupportedEncoding", "UnsupportedMediaType"),
    417: ("UnknownExpectation",),
    422: ("NoEncoder", "TextNotEncoded", "WrongDimension", "WrongEmbedding"),
    431: ("HeaderTooLarge",),
    500: ("EncoderFailed", "InternalError"),
    501: ("CodingNotImplemented", "MethodNotImplemented"),
    503: ("EncoderUnavailable", "Overload", "ShardsMissing"),
    504: ("DeadlineExceeded",),
    505: ("VersionNotSupported",),
}
"""Status -> kinds of problem (the last part of `type`)."""
_ANY = (400, 401, 403, 408, 414, 431, 500, 501, 503, 505)
"""Of every path: whoever asks, the protocol may refuse."""
_SEARCHING = (*_ANY, 409, 413, 415, 417, 422, 504)
_FEEDING_BACK = (*_ANY, 405, 413, 417)
_READING = (*_ANY, 405)
_HEADERS: dict[int, tuple[str, str]] = {
    401: ("WWW-Authenticate", "How to ask: Bearer."),
    405: ("Allow", "The methods of this path."),
    409: ("Retry-After", "Seconds after which to try again."),
    503: ("Retry-After", "Seconds after which to try again."),
}

Json = dict[str, Any]


def document(index: Mapping[str, Any] | None = None, *, tokens: bool = False, foreign: Collection[str] = ()) -> Json:
    """The document. `index`: the answer of GET /v1/index, whose dimension, parameters, segments and columns become the
    limits; without one, what holds for every index. `tokens`: whether a bearer token is asked for. `foreign`: search
    parameters of other kinds of index, which it bears.
    """
    facts = index or {}
    fields = _fields(facts, foreign)
    out: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": f"Vector search: {facts['name']}" if facts else "Vector search",
            "version": str(contract.FORMAT_VERSION),
            "description": "Every answer names the revision of the index that spoke, in a header and in the body.",
        },
        "paths": {
            "/v1/search": {"post": _search(facts, fields)},
            "/v1/index": {"get": _reading("What is served here, and how it may be asked.", "index", _ref("Index"))},
            "/v1/feedback": {"post": _feedback()},
            "/openapi.json": {"get": _reading("This document.", "openapi", {"type": "object"})},
        },
        "components": {"schemas": _schemas(facts, fields), "responses": _problems()},
    }
    if tokens or index is None:
        out["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        # Without a scheme in the second place: tokens are asked for only where the searcher was told to.
        out["security"] = [{"bearer": []}] if tokens else [{"bearer": []}, {}]
    return out


# ---------------------------------------------------------------- paths


def _search(facts: Mapping[str, Any], fields: Mapping[str, Field]) -> Json:
    json_body = {"schema": _ref("Search"), "example": {"vector": [0.1] * facts.get("dimension", 3), "k": 3}}
    if facts.get("dimension", 0) > 16:
        del json_body["example"]
    answers = _answers("The hits of each query, in order.", _ref("Answer"), _SEARCHING)
    answers["200"]["content"]["application/octet-stream"] = {"schema": _bytes(_BINARY_ANSWER)}
    ignored: Json = {"schema": {"type": "string"}, "description": _IGNORED}
    reranked: Json = {"schema": {"type": "string", "enum": ["true", "false"]}, "description": _RERANKED}
    filtered: Json = {"schema": {"type": "string"}, "description": _FILTERED}
    answers["200"]["headers"] |= {
        contract.IGNORED_PARAMS_HEADER: ignored,
        contract.RERANKED_HEADER: reranked,
        contract.FILTERED_HEADER: filtered,
    }
    size = f"{facts['dimension']} (the dimension)" if facts else "dimension"
    vectors = f"Little-endian float32: n x {size} numbers, n from 1 to {MAX_VECTORS}."
    return {
        "summary": "The nearest rows of one query or several.",
        "operationId": "search",
        "description": (
            f"A body of at most {Limits().body_bytes} bytes: JSON with all fields, or raw vectors with the other "
            "fields in the query string (search parameters as params.NAME). A JSON body takes no query string."
        ),
        "parameters": [*query_parameters(fields), _DEADLINE],
        "requestBody": {
            "required": True,
            "content": {"application/json": json_body, "application/octet-stream": {"schema": _bytes(vectors)}},
        },
        "responses": answers,
    }


def _feedback() -> Json:
    answers = _answers("Whether the click counts.", _ref("Taken"), _FEEDING_BACK)
    return {
        "summary": "Which answer of a tracked query was clicked first.",
        "operationId": "feedback",
        "description": f"A body of at most {FEEDBACK_BYTES} bytes.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("Feedback")}}},
        "responses": {"202": answers.pop("200"), **answers},
    }


def _reading(text: str, name: str, schema: Json) -> Json:
    return {"summary": text, "operationId": name, "responses": _answers(text, schema, _READING)}


def _answers(text: str, schema: Json, problems: tuple[int, ...]) -> Json:
    header = {contract.REVISION_HEADER: {"schema": {"type": "string"}, "description": "Which index spoke."}}
    good = {"description": text, "headers": header, "content": {"application/json": {"schema": schema}}}
    refused = {str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in sorted(problems)}
    return {"200": good, **refused}


def _fields(facts: Mapping[str, Any], foreign: Collection[str]) -> dict[str, Field]:
    """Of this index, or of any."""
    params = {name: (one["min"], one["max"]) for name, one in facts.get("params", {}).items()}
    texts = not facts or "encoder" in facts
    return search_fields(params if facts else None, facts.get("segments"), foreign=foreign, texts=texts)


def _bytes(text: str) -> Json:
    return {"type": "string", "contentMediaType": "application/octet-stream", "description": text}


_IGNORED = (
    "When the request named some: search parameters that this kind of index has not, separated by commas. It was "
    "searched without them."
)
_RERANKED = (
    "Of a search in words where the index has a cross-encoder: whether its order was there in time. With false, and "
    "without the header, hits are in the order of their scores."
)
_FILTERED = "Of a binary answer to a search with a filter: what JSON has as filter (rows=12; search=Exact)."
_BINARY_ANSWER = (
    "With `Accept: application/octet-stream`, little-endian: `VXA1`; uint32 n queries, m hits in all, kind; m ids "
    "as int64 (kind 0) or their lengths as uint32 (kind 1); n x uint32 hits of each query; m x float32 scores; the "
    "ids of kind 1 as UTF-8. With metadata the kind is 2 more, and at the end stand m x uint32 lengths of it and a "
    "JSON object for each hit."
)
_DEADLINE: Json = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "schema": {"type": "integer", "minimum": 1, "maximum": MAX_DEADLINE_MS},
    "description": "After this the answer is 504, and a search that has not begun is not begun.",
}


# ---------------------------------------------------------------- schemas


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas(facts: Mapping[str, Any], fields: Mapping[str, Field]) -> Json:
    numbers = facts.get("dimension")
    length = {"minItems": 1} if numbers is None else {"minItems": numbers, "maxItems": numbers}
    return {
        "Search": body_schema(fields),
        "Vector": {"type": "array", "items": {"type": "number"}, **length},
        "Vectors": {"type": "array", "items": _ref("Vector"), "minItems": 1, "maxItems": MAX_VECTORS},
        "Filter": _filter(facts),
        "Condition": _condition(),
        **_models(facts),
    }


def _models(facts: Mapping[str, Any]) -> Json:
    """Of documents.py, with what this index answers in the place of what any may."""
    wanted = (documents.Answer, documents.Index, documents.Feedback, documents.Taken, documents.Problem)
    _, made = models_json_schema(
        [(model, "serialization") for model in wanted], ref_template="#/components/schemas/{model}"
    )
    found: Json = {name: _tidy(schema) for name, schema in made["$defs"].items()}
    found["Feedback"]["oneOf"] = [{"required": ["rank"]}, {"required": ["clicks"]}]
    if facts:
        hits = found["Hits"]["properties"]
        hits["ids"]["items"] = {"type": {"int64": "integer", "string": "string"}[facts["idType"]]}
        hits["metadata"]["items"]["properties"] = {name: {} for name in facts.get("metadataColumns", ())}
    return found


def _tidy(node: Any) -> Any:
    """Without titles, which only repeat names; and what may be missing is then left out, never null."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: value for key, value in node.items() if not (key == "title" and isinstance(value, str))}
    if "default" in kept and kept["default"] is None:
        del kept["default"]
        (one,) = [part for part in kept.pop("anyOf", [{}]) if part != {"type": "null"}]
        kept = {**one, **kept}
    return {key: _tidy(value) for key, value in kept.items()}


def _filter(facts: Mapping[str, Any]) -> Json:
    several = {"type": "array", "items": _ref("Filter"), "minItems": 1}
    joiners: Json = {name: _ref("Filter") if name == "not" else several for name in JOINERS}
    columns: Mapping[str, str] = facts.get("filterColumns", {})
    named: Json = {name: {**_ref("Condition"), "description": kind} for name, kind in columns.items()}
    return {
        "type": "object",
        "minProperties": 1,
        "properties": joiners | named,
        "additionalProperties": False if facts else _ref("Condition"),
        "description": "Conditions on metadata columns; several in one object must all hold.",
    }


def _condition() -> Json:
    scalar: Json = {"type": ["string", "number", "boolean"]}
    operators: Json = dict.fromkeys((*ORDERED, *LISTED), scalar)
    operators |= {"in": {"type": "array", "items": scalar}, "exists": {"type": "boolean"}}
    return {"anyOf": [scalar, {"type": "object", "properties": operators, "minProperties": 1}]}


def _problems() -> Json:
    found = {}
    for status, kinds in PROBLEMS.items():
        types = {"properties": {"type": {"enum": [f"urn:vectorindex:problem:{kind}" for kind in kinds]}}}
        schema = {"allOf": [_ref("Problem"), types]}
        answer: Json = {"description": ", ".join(kinds), "content": {"application/problem+json": {"schema": schema}}}
        if status in _HEADERS:
            name, text = _HEADERS[status]
            answer["headers"] = {name: {"schema": {"type": "string"}, "description": text}}
        found[f"Problem{status}"] = answer
    return found


# ---------------------------------------------------------------- the reference page


def main(arguments: list[str] | None = None) -> int:
    """Write docs/reference/openapi.json (--write) or tell whether it is what it should be (--check)."""
    return write_or_check("openapi", REFERENCE, json.dumps(document(), indent=2) + "\n", arguments)


if __name__ == "__main__":
    raise SystemExit(main())
