"""What one request's head says, in the form in which it may be kept: with no secret in it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Credential:
    """What a request showed of itself. Never the token."""

    digest: bytes
    """SHA-256 of the bearer token; empty when the Authorization header is none of a bearer token."""


@dataclass(slots=True, eq=False)
class Head:
    """Request line and headers, checked. Many requests may share one: never changed."""

    method: bytes
    target: bytes
    """Path and query string, whatever form of target the request line had."""
    headers: dict[bytes, bytes]
    """Those of READ_HEADERS that came; names in lower case."""
    length: int | None
    """Bytes of the body; None: it comes in chunks."""
    keep_alive: bool
    expects_continue: bool
    """The client waits for 100 Continue before it sends the body."""
    credential: Credential | None
    """None: no Authorization header."""
