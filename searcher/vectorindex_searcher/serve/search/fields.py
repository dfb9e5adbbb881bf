"""From a request's bytes to named values: a JSON object, or a query string beside a binary body.

Looks at names and JSON types only; what the values must be is query.py's business. Every refusal names field, value and
remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson

from ..http.messages import Problem

MAX_NAME_CHARACTERS = 256
FIELDS = ("vector", "vectors", "k", "params", "segment", "include", "minScore", "embedding", "filter", "track")
_BINARY_FIELDS = (*(name for name in FIELDS if name not in ("vector", "vectors")), "dimension")


def fields_of_json(body: bytes, known: tuple[str, ...] = FIELDS) -> dict[str, Any]:
    """The object in a JSON body. Raises Problem 400 when it is none or has fields other than the `known`."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # The error holds the whole body; only its sentence is passed on.
        raise Problem(400, "MalformedJSON", f"the body is not JSON: {error.msg} at byte {error.pos}") from None
    if not isinstance(fields, dict):
        raise Problem(400, "MalformedJSON", "the body must be a JSON object", value=fields)
    refuse_unknown(fields, known)
    return fields


def fields_of_query_string(query: bytes) -> dict[str, Any]:
    """The fields beside a binary body: k, dimension, segment, minScore, include (comma separated), params.NAME,
    embedding.model, embedding.version, and filter (JSON). Raises Problem 400.
    """
    fields: dict[str, Any] = {}
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=64, errors="strict")
    except ValueError as error:
        raise Problem(400, "MalformedQueryString", f"the query string cannot be read: {error}") from None
    for name, text in pairs:
        group, dot, member = name.partition(".")
        if dot and group in ("params", "embedding"):
            value: object = _number(text, int, name) if group == "params" else text
            fields.setdefault(group, {})[member] = value
        elif name in ("k", "dimension"):
            fields[name] = _number(text, int, name)
        elif name == "minScore":
            fields[name] = _number(text, float, name)
        elif name == "include":
            fields[name] = text.split(",")
        elif name == "segment":
            fields[name] = text
        elif name == "track":
            if text not in ("true", "false"):
                raise invalid(name, text, "true or false")
            fields[name] = text == "true"
        elif name == "filter":
            fields[name] = _json_of_query_string(name, text)
        else:
            refuse_unknown({name: text}, tuple(f for f in _BINARY_FIELDS if f not in ("params", "embedding")))
    return fields


def _json_of_query_string(name: str, text: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Problem(
            400,
            "MalformedJSON",
            f"{name} is not JSON: {error.msg} at character {error.pos}",
            field=name,
            value=text,
            remedy="percent-encode the JSON, for example with curl --url-query",
        ) from None


def _number(text: str, kind: type[int] | type[float], name: str) -> int | float:
    try:
        # Python reads 1_000, and digits of any script: JSON does not, so neither does the query string.
        if not text.isascii() or "_" in text or len(text) > 40:
            raise ValueError
        return kind(text)
    except ValueError:
        raise invalid(name, text, "an integer" if kind is int else "a number") from None


def refuse_unknown(found: Mapping[str, object], known: tuple[str, ...], prefix: str = "") -> None:
    """Raises Problem 400 for the first name that is not `known`; `prefix` stands before it in the field."""
    for name in found:
        if name not in known:
            raise Problem(
                400,
                "UnknownField",
                "the request has a field that is not known here",
                field=f"{prefix}{name[:MAX_NAME_CHARACTERS]}",
                remedy=f"known are: {', '.join(known) or 'none'}",
            )


def invalid(place: str, value: object, wanted: str) -> Problem:
    """A value that is not as `wanted`, which is said as in "an integer from 1 to 10"."""
    return Problem(400, "InvalidField", f"{place} must be {wanted}", field=place, value=value, remedy=f"send {wanted}")
