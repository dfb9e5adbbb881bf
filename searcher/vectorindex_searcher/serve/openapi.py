"""The OpenAPI 3.1 document of the user port: of one index at GET /openapi.json, of any in docs/reference.

Says what query.py and app.py accept and answer; it checks nothing itself. A test holds real answers, every path and
every kind of problem in the code against it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import contract
from .http.limits import Limits
from .search.fields import MAX_NAME_CHARACTERS
from .search.query import DEFAULT_K, INCLUDABLE, MAX_K, MAX_VECTORS

REFERENCE = Path("docs/reference/openapi.json")
MAX_DEADLINE_MS = 600_000
JOINERS = ("and", "or", "not")
PROBLEMS: Mapping[int, tuple[str, ...]] = {
    400: (
        "InvalidField",
        "InvalidFilter",
        "MalformedJSON",
        "MalformedQueryString",
        "MalformedRequest",
        "NonFiniteVector",
        "TooManyVectors",
        "UnknownField",
        "VectorTooLarge",
        "ZeroVector",
    ),
    401: ("Unauthorized",),
    404: ("NotFound",),
    405: ("MethodNotAllowed",),
    408: ("RequestTimeout",),
    413: ("BodyTooLarge",),
    415: ("UnsupportedEncoding", "UnsupportedMediaType"),
    417: ("UnknownExpectation",),
    422: ("WrongDimension", "WrongEmbedding"),
    431: ("HeaderTooLarge",),
    500: ("InternalError",),
    503: ("Overload",),
    504: ("DeadlineExceeded",),
}
"""Status -> kinds of problem (the last part of `type`)."""
_SEARCHING = (400, 401, 408, 413, 415, 417, 422, 431, 500, 503, 504)
_READING = (400, 401, 405, 408, 431, 500, 503)
_HEADERS: dict[int, tuple[str, str]] = {
    401: ("WWW-Authenticate", "How to ask: Bearer."),
    405: ("Allow", "The methods of this path."),
    503: ("Retry-After", "Seconds after which to try again."),
}

Json = dict[str, Any]


def document(index: Mapping[str, Any] | None = None, *, tokens: bool = False) -> Json:
    """The document. `index`: the answer of GET /v1/index, whose dimension, parameters, segments and columns become the
    limits; without one, what holds for every index. `tokens`: whether a bearer token is asked for.
    """
    facts = index or {}
    out: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": f"Vector search: {facts['name']}" if facts else "Vector search",
            "version": str(contract.FORMAT_VERSION),
            "description": "Every answer names the revision of the index that spoke, in a header and in the body.",
        },
        "paths": {
            "/v1/search": {"post": _search(facts)},
            "/v1/index": {"get": _reading("What is served here, and how it may be asked.", "index", _ref("Index"))},
            "/v1/feedback": {"post": _feedback()},
            "/openapi.json": {"get": _reading("This document.", "openapi", {"type": "object"})},
        },
        "components": {"schemas": _schemas(facts), "responses": _problems()},
    }
    if tokens or index is None:
        out["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        # Without a scheme in the second place: tokens are asked for only where the searcher was told to.
        out["security"] = [{"bearer": []}] if tokens else [{"bearer": []}, {}]
    return out


# ---------------------------------------------------------------- paths


def _search(facts: Mapping[str, Any]) -> Json:
    json_body = {"schema": _ref("Search"), "example": {"vector": [0.1] * facts.get("dimension", 3), "k": 3}}
    if facts.get("dimension", 0) > 16:
        del json_body["example"]
    answers = _answers("The hits of each query, in order.", _ref("Answer"), _SEARCHING)
    answers["200"]["content"]["application/octet-stream"] = {"schema": _binary_answer()}
    return {
        "summary": "The nearest rows of one query or several.",
        "operationId": "search",
        "description": (
            f"A body of at most {Limits().body_bytes} bytes: JSON with all fields, or raw vectors with the other "
            "fields in the query string (search parameters as params.NAME). A JSON body takes no query string."
        ),
        "parameters": [*_query_parameters(facts), _deadline_header()],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": json_body,
                "application/octet-stream": {"schema": _binary(facts)},
            },
        },
        "responses": answers,
    }


def _feedback() -> Json:
    rank = {"type": "integer", "minimum": 1, "maximum": MAX_K, "description": "1 is the first answer."}
    body = {
        "type": "object",
        "required": ["queryId"],
        "properties": {
            "queryId": {"type": "string", "description": "Of an answer to a search with `track`."},
            "rank": rank,
            "clicks": {"type": "array", "items": rank, "minItems": 1, "maxItems": 1000,
                       "description": "In the order of the clicks; the first one counts."},
        },
        "oneOf": [{"required": ["rank"]}, {"required": ["clicks"]}],
        "additionalProperties": False,
    }  # fmt: skip
    taken = {
        "type": "object",
        "required": ["counted"],
        "properties": {
            "counted": {"type": "boolean"},
            "reason": {"enum": ["Duplicate", "Late", "OtherRevision"], "description": "Why it does not count."},
        },
    }
    refused = (400, 401, 405, 408, 413, 417, 431, 500, 503)
    answers = _answers("Whether the click counts.", taken, refused)
    return {
        "summary": "Which answer of a tracked query was clicked first.",
        "operationId": "feedback",
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"202": answers.pop("200"), **answers},
    }


def _reading(text: str, name: str, schema: Json) -> Json:
    return {"summary": text, "operationId": name, "responses": _answers(text, schema, _READING)}


def _answers(text: str, schema: Json, problems: tuple[int, ...]) -> Json:
    header = {contract.REVISION_HEADER: {"schema": {"type": "string"}, "description": "Which index spoke."}}
    good = {"description": text, "headers": header, "content": {"application/json": {"schema": schema}}}
    refused = {str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in problems}
    return {"200": good, **refused}


def _query_parameters(facts: Mapping[str, Any]) -> list[Json]:
    fields = _fields(facts)
    given = {name: fields[name] for name in ("k", "segment", "minScore", "track")}
    given |= {f"params.{name}": schema for name, schema in fields["params"].get("properties", {}).items()}
    given |= {f"embedding.{name}": schema for name, schema in fields["embedding"]["properties"].items()}
    found: list[Json] = [
        {"name": name, "in": "query", "schema": {k: v for k, v in schema.items() if k != "description"},
         "description": f"With a binary body. {schema.get('description', '')}".strip()}
        for name, schema in given.items()
    ]  # fmt: skip
    numbers = {"type": "integer", "const": facts["dimension"]} if facts else {"type": "integer", "minimum": 1}
    text = "With a binary body: how many numbers a vector has. Another than the index's is 422."
    found.append({"name": "dimension", "in": "query", "schema": numbers, "description": text})
    listed = {"type": "array", "items": {"enum": list(INCLUDABLE)}}
    found.append({"name": "include", "in": "query", "schema": listed, "style": "form", "explode": False,
                  "description": "With a binary body."})  # fmt: skip
    found.append({"name": "filter", "in": "query", "content": {"application/json": {"schema": _ref("Filter")}},
                  "description": "With a binary body."})  # fmt: skip
    return found


def _deadline_header() -> Json:
    return {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_DEADLINE_MS},
        "description": "After this the answer is 504, and a search that has not begun is not begun.",
    }


def _binary(facts: Mapping[str, Any]) -> Json:
    size = f"{facts['dimension']} (the dimension)" if facts else "dimension"
    text = f"Little-endian float32: n x {size} numbers, n from 1 to {MAX_VECTORS}."
    return {"type": "string", "contentMediaType": "application/octet-stream", "description": text}


def _binary_answer() -> Json:
    text = (
        "With `Accept: application/octet-stream`, little-endian: `VXA1`; uint32 n queries, m hits in all, kind of ids; "
        "m ids as int64 (kind 0) or their lengths as uint32 (kind 1); n x uint32 hits of each query; m x float32 "
        "scores; the ids of kind 1 as UTF-8."
    )
    return {"type": "string", "contentMediaType": "application/octet-stream", "description": text}


# ---------------------------------------------------------------- schemas


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas(facts: Mapping[str, Any]) -> Json:
    return {
        "Search": {
            "type": "object",
            "properties": _fields(facts),
            "oneOf": [{"required": ["vector"]}, {"required": ["vectors"]}],
            "additionalProperties": False,
        },
        "Vector": _vector(facts),
        "Filter": _filter(facts),
        "Condition": _condition(),
        "Answer": _answer(facts),
        "Index": _index(),
        "Problem": _problem_schema(),
    }


def _vector(facts: Mapping[str, Any]) -> Json:
    length = {"minItems": facts["dimension"], "maxItems": facts["dimension"]} if facts else {"minItems": 1}
    return {"type": "array", "items": {"type": "number"}, **length}


def _fields(facts: Mapping[str, Any]) -> Json:
    limits: Mapping[str, Mapping[str, int]] = facts.get("params", {})
    integers = {n: {"type": "integer", "minimum": one["min"], "maximum": one["max"]} for n, one in limits.items()}
    params: Json = {"type": ["object", "null"], "description": "Search parameters instead of the revision's own."}
    params |= (
        {"properties": integers, "additionalProperties": False}
        if facts
        else {"additionalProperties": {"type": "integer"}}
    )
    known = (", ".join(facts["segments"]) or "none") if facts.get("segments") is not None else "see /v1/index"
    text = {"type": "string"}
    return {
        "vector": _ref("Vector"),
        "vectors": {"type": "array", "items": _ref("Vector"), "minItems": 1, "maxItems": MAX_VECTORS},
        "k": {"type": "integer", "minimum": 1, "maximum": MAX_K, "default": DEFAULT_K},
        "params": params,
        "segment": {
            "type": ["string", "null"],
            "maxLength": MAX_NAME_CHARACTERS,
            "description": f"The class of this query. Declared: {known}; another is `other`.",
        },
        "filter": {"anyOf": [_ref("Filter"), {"type": "null"}]},
        "include": {"type": ["array", "null"], "items": {"enum": list(INCLUDABLE)}},
        "minScore": {"type": ["number", "null"], "description": "Hits below are no hits."},
        "track": {"type": ["boolean", "null"], "description": "Give each answer a query id, for /v1/feedback."},
        "embedding": {
            "type": ["object", "null"],
            "properties": {"model": text, "version": text},
            "additionalProperties": False,
            "description": "What made the vector; another one than the index's is refused.",
        },
    }


def _filter(facts: Mapping[str, Any]) -> Json:
    several = {"type": "array", "items": _ref("Filter"), "minItems": 1}
    joiners: Json = {"and": several, "or": several, "not": _ref("Filter")}
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
    operators: Json = dict.fromkeys(("eq", "ne", "gt", "gte", "lt", "lte", "contains"), scalar)
    operators |= {"in": {"type": "array", "items": scalar}, "exists": {"type": "boolean"}}
    return {"anyOf": [scalar, {"type": "object", "properties": operators, "minProperties": 1}]}


def _answer(facts: Mapping[str, Any]) -> Json:
    kinds = {"int64": "integer", "string": "string"}
    identity = {"type": kinds[facts["idType"]] if facts else ["integer", "string"]}
    columns: dict[str, Json] = {name: {} for name in facts.get("metadataColumns", ())}
    result = {
        "type": "object",
        "required": ["ids", "scores"],
        "properties": {
            "ids": {"type": "array", "items": identity, "maxItems": MAX_K},
            "scores": {"type": "array", "items": {"type": "number"}, "description": "Best first; higher is better."},
            "metadata": {"type": "array", "items": {"type": "object", "properties": columns}},
            "queryId": {"type": "string", "description": "With `track`: what /v1/feedback asks for."},
        },
    }
    count: Json = {"type": "integer", "minimum": 0}
    return {
        "type": "object",
        "required": ["revision", "k", "results", "zeroResults", "tookMs"],
        "properties": {
            "revision": {"type": "string"},
            "k": {"type": "integer", "minimum": 1, "maximum": MAX_K},
            "results": {"type": "array", "items": result, "minItems": 1, "maxItems": MAX_VECTORS},
            "zeroResults": {**count, "description": "Queries without a hit."},
            "tookMs": {"type": "number", "minimum": 0},
            "filter": {
                "type": "object",
                "required": ["rows", "search"],
                "properties": {"rows": count, "search": {"type": "string"}},
                "description": "With a filter: how many rows it left, and how they were searched.",
            },
        },
    }


def _index() -> Json:
    text: Json = {"type": "string"}
    count: Json = {"type": "integer", "minimum": 0}
    names: Json = {"type": "array", "items": text}
    point: Json = contract.OperatingPoint.model_json_schema(by_alias=True)
    points: Json = {"type": "object", "additionalProperties": point}
    limit: Json = {"type": "object", "required": ["min", "max"], "properties": {"min": count, "max": count}}
    fields: Json = {
        **dict.fromkeys(("revision", "namespace", "name", "digest", "fingerprint", "factory", "indexType"), text),
        **dict.fromkeys(("faissVersion", "builderVersion", "created"), text),
        **dict.fromkeys(("count", "dimension", "indexBytes"), count),
        "metric": {"enum": [metric.value for metric in contract.Metric]},
        "idType": {"enum": ["int64", "string"]},
        "embedding": {"type": "object"},
        "metadataColumns": names,
        "filterColumns": {"type": "object", "additionalProperties": text},
        "operatingPoints": points,
        "segmentPoints": points,
        "params": {"type": "object", "additionalProperties": limit},
        "segments": names,
        "minScore": {"type": ["number", "null"]},
        "limits": {"type": "object", "additionalProperties": count},
    }
    return {"type": "object", "required": sorted(fields), "properties": fields}


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


def _problem_schema() -> Json:
    return {
        "type": "object",
        "description": "RFC 9457. Branch on `type`.",
        "required": ["type", "title", "status", "detail", "revision"],
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "field": {"type": "string", "description": "The part of the request that is wrong."},
            "value": {"description": "What was found there, shortened."},
            "expected": {"description": "What the index has instead."},
            "remedy": {"type": "string"},
            "revision": {"type": "string"},
        },
    }


# ---------------------------------------------------------------- the reference page


def main(arguments: list[str] | None = None) -> int:
    """Write docs/reference/openapi.json (--write) or tell whether it is what it should be (--check)."""
    parser = argparse.ArgumentParser(prog="openapi", description="Generate docs/reference/openapi.json.")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="write it")
    mode.add_argument("--check", action="store_true", help="fail when it differs")
    text = json.dumps(document(), indent=2) + "\n"
    if parser.parse_args(arguments).write:
        REFERENCE.write_text(text)
        return 0
    if not REFERENCE.is_file() or REFERENCE.read_text() != text:
        sys.stderr.write(f"{REFERENCE} differs from the code: run `make generate`\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
