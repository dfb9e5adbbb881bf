"""Reading a long JSON body vector by vector.

Decoded as a whole, eight megabytes of JSON are a hundred of Python's objects, and hold the interpreter's lock for 25
ms: nothing else is answered meanwhile. Vector by vector it is one vector's objects and 0.1 ms. For search threads only.
"""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Iterator
from typing import Any

import orjson

from ..http.limits import MAX_VECTORS
from ..http.messages import Problem
from .fields import fields_of_json

OTHER_VALUES = 65_536
"""Values of a long body besides its vectors: sixteen times those of the largest filter."""
_NAME = b'"vectors"'
_VECTORS = re.compile(rb'"vectors"\s*:\s*\[')
_PIECE = 256 << 10
_BETWEEN = re.compile(rb"\s*([\[,\]])")
_MOST_PLACES = 4
_MARK = secrets.token_hex(16)
"""Stands where the vectors were. Nobody can know it, so where it is found is where they were."""

Span = tuple[int, int]


def fields_of_long_json(body: bytes, dimension: int) -> tuple[dict[str, Any], Iterator[Any] | None]:
    """The fields of a JSON body, without its vectors, and these, one after the other; None: they are in the fields.

    Raises Problem 400 for what is no JSON object, and for one of too many values.
    """
    for at in itertools.islice(_places(body), _MOST_PLACES):
        found = _VECTORS.match(body, at)
        spans, end = _spans(body, found.end()) if found is not None else ([], 0)
        if found is not None and spans and end:
            short = b'%b["%b"]%b' % (body[: found.end() - 1], _MARK.encode(), body[end:])
            fields = _marked(short)
            if fields is not None:
                return fields, (_row(body, start, stop, dimension) for start, stop in spans)
    _check_values(body, dimension)
    return fields_of_json(body), None


def _places(body: bytes) -> Iterator[int]:
    """Where the name of the vectors stands. Looked for in pieces: within one, no other thread runs."""
    for start in range(0, len(body), _PIECE):
        at = start
        while (at := body.find(_NAME, at, start + _PIECE + len(_NAME) - 1)) >= 0:
            yield at
            at += len(_NAME)


def _spans(body: bytes, at: int) -> tuple[list[Span], int]:
    """Of each list from `at` on, inside a list, and where that one ends; 0: it is no list of lists of plain values.

    One more than a request may have is enough.
    """
    spans: list[Span] = []
    wanted = b"["
    while (found := _BETWEEN.match(body, at)) is not None and len(spans) <= MAX_VECTORS:
        at = found.end()
        if found[1] == b"]" and wanted == b",":
            return spans, at
        if found[1] != wanted:
            return spans, 0
        if wanted == b"[":
            start, at = at - 1, body.find(b"]", at) + 1
            if not at:
                return spans, 0
            spans.append((start, at))
        wanted = b"," if wanted == b"[" else b"["
    if len(spans) > MAX_VECTORS:
        detail = f"more than {MAX_VECTORS} vectors in one request"
        raise Problem(400, "TooManyVectors", detail, field="vectors", remedy="send them in several requests")
    return spans, 0


def _marked(short: bytes) -> dict[str, Any] | None:
    """The fields of a body without its vectors, if what was cut out were these."""
    try:
        _check_values(short, 0)
        fields = orjson.loads(short)
    except (Problem, orjson.JSONDecodeError):
        return None
    if not isinstance(fields, dict) or fields.get("vectors") != [_MARK]:
        return None
    del fields["vectors"]
    return fields


def _row(body: bytes, start: int, end: int, dimension: int) -> Any:
    _check_values(body[start:end], dimension)
    try:
        return orjson.loads(body[start:end])
    except orjson.JSONDecodeError as error:
        at = start + error.pos
        raise Problem(400, "MalformedJSON", f"the body is not JSON: {error.msg} at byte {at}") from None


def _check_values(text: bytes, dimension: int) -> None:
    """Raises Problem 400 when there are more values than one vector of this dimension and other fields may have."""
    commas = 0
    for start in range(0, len(text), _PIECE):
        commas += text.count(b",", start, start + _PIECE)
        if commas <= OTHER_VALUES + dimension:
            continue
        raise Problem(
            400,
            "TooMuchWork",
            f"the body holds more than {OTHER_VALUES + dimension} values besides those of its vectors",
            field="body",
            value=len(text),
            remedy=f"send vectors as application/octet-stream, or each as a list of {dimension} numbers",
        )
