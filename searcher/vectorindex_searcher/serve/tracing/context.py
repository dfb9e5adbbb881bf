"""The trace that a request belongs to, from the bytes of its head (W3C Trace Context, `traceparent`); parts of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TRACEPARENT = re.compile(
    rb"\r\n(?i:traceparent):[ \t]*(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-[^\r]*)?[ \t]*\r\n"
)


@dataclass(frozen=True, slots=True)
class Context:
    """What a span of ours is a child of. Both are hex."""

    trace_id: str
    parent_id: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a search that takes a model's time. `began` and `ended`: seconds since the request had arrived."""

    name: str
    began: float
    ended: float


def sampled(head: bytes) -> Context | None:
    """Whose caller records its trace; None: nobody's, or it cannot be read, which is no reason to refuse a query."""
    found = _TRACEPARENT.search(head)
    if found is None or not int(found[3], 16) & 1 or not found[1].strip(b"0") or not found[2].strip(b"0"):
        return None
    return Context(found[1].decode(), found[2].decode())
