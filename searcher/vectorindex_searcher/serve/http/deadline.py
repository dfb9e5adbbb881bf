"""How long a client will wait for its answer: one header, read the same everywhere."""

from __future__ import annotations

from .limits import MAX_DEADLINE_MS
from .messages import Problem

DEADLINE_HEADER = b"x-request-timeout-ms"


def seconds_of(text: bytes) -> float:
    """Of an X-Request-Timeout-Ms. Raises Problem 400."""
    if not text.isdigit() or not 1 <= (milliseconds := int(text[:10])) <= MAX_DEADLINE_MS:
        raise Problem(
            400,
            "InvalidField",
            f"the deadline must be 1 to {MAX_DEADLINE_MS} milliseconds",
            field="X-Request-Timeout-Ms",
            value=text.decode("latin-1"),
            remedy="send whole milliseconds, or leave the header out",
        )
    return milliseconds / 1e3
