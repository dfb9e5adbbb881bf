"""What all shards are sent for one request: written once. Vectors go as they are held; beside a filter that is too long
for a line they go as JSON, which takes a while and four times the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

import orjson

from ... import contract
from ..http.limits import Limits
from ..http.messages import JSON_TYPE, Problem
from ..search.plan import SearchPlan
from ..search.reader import BINARY_TYPE
from ..search.vectors import Vectors
from .parts import Question

LONGEST_LINE = 8 << 10
"""Of a request: a longer filter goes in a body of JSON."""
BODY_BYTES = Limits().body_bytes
"""That a shard takes."""
NUMBER_CHARACTERS = 16
"""Of a float32 in JSON, with its comma: -1.17549435e-38."""
_OTHER_BYTES = 4 << 10
"""Of a body of JSON, besides vectors and filter."""
_LOWEST = "-3.4028235e38"
"""minScore for shards: the router counts the first hit's score, be it a hit or not, and cuts itself."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request for shards. `headers`: lines, without those of the pod and of the time that is left."""

    plan: SearchPlan
    line: bytes
    headers: bytes
    body: bytes
    question: Question
    usual: bool
    """Whether it takes as long as most do. Who names parameters says how long it takes, and so do the rows of a policy:
    others' second requests are not timed by that."""


def sent(plan: SearchPlan, vectors: Vectors, *, text: bool) -> Sent:
    """`vectors`: float32 [d] or [n, d]; `text`: whether ids are strings. On any thread. Raises Problem 400 for more
    than a shard takes."""
    count = 1 if vectors.ndim == 1 else len(vectors)
    question = Question(count, plan.k, text, plan.include_metadata, plan.filtered)
    rule = orjson.dumps(plan.asked["filter"]) if "filter" in plan.asked else b""
    line = b"" if len(rule) > LONGEST_LINE else _line(plan, vectors.shape[-1], rule)
    if line and len(line) <= LONGEST_LINE:
        _check(vectors, BODY_BYTES // vectors.itemsize, "vectors", "send fewer")
        kind, body = BINARY_TYPE, vectors.tobytes()
    else:
        most = (BODY_BYTES - _OTHER_BYTES - len(rule)) // NUMBER_CHARACTERS
        _check(vectors, most, "filter", f"beside a filter of {len(rule)} bytes, send a shorter one or fewer")
        line, kind, body = b"POST /v1/search", JSON_TYPE, _json(plan, vectors, rule)
    headers = b"Content-Type: %b\r\nAccept: %b\r\nContent-Length: %d\r\n" % (kind, BINARY_TYPE, len(body))
    usual = vectors.ndim == 1 and plan.own and plan.filter is None and not plan.include_metadata
    return Sent(plan, line, headers, body, question, usual)


def _check(vectors: Vectors, most: int, field: str, remedy: str) -> None:
    """Raises Problem 400 for more numbers than `most`."""
    if vectors.size <= most:
        return
    dimension = vectors.shape[-1]
    detail = f"{vectors.size // dimension} vectors of dimension {dimension} are more than a shard takes in one request"
    remedy = f"{remedy} vectors: at most {max(0, most) // dimension} in one request"
    raise Problem(400, "TooMuchWork", detail, field, vectors.size, remedy, members={"expected": max(0, most)})


def _line(plan: SearchPlan, dimension: int, rule: bytes) -> bytes:
    fields = [f"dimension={dimension}", f"k={plan.k}"]
    if plan.segment != contract.OTHER_SEGMENT:
        fields.append(f"segment={quote(plan.segment, safe='')}")
    fields += [f"params.{name}={value}" for name, value in plan.asked.get("params", {}).items()]
    if plan.min_score is not None:
        fields.append(f"minScore={_LOWEST}")
    if plan.include_metadata:
        fields.append("include=metadata")
    if rule:
        fields.append(f"filter={quote(rule, safe='')}")
    return f"POST /v1/search?{'&'.join(fields)}".encode()


def _json(plan: SearchPlan, vectors: Vectors, rule: bytes) -> bytes:
    document = {
        "vectors": vectors.reshape(-1, vectors.shape[-1]),
        "k": plan.k,
        "segment": plan.segment,
        "params": plan.asked.get("params", {}),
        "filter": orjson.Fragment(rule) if rule else None,
        "include": ["metadata"] if plan.include_metadata else [],
        "minScore": None if plan.min_score is None else float(_LOWEST),
    }
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
