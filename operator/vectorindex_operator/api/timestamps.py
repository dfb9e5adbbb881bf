"""RFC 3339 times as Kubernetes writes them, to and from unix seconds (UTC, whole seconds or microseconds)."""

from __future__ import annotations

from datetime import UTC, datetime

MOST_UNIX = 32_503_680_000.0
"""The year 3000: no time of ours is after it, and what is added to one still has a name."""


def to_text(unix: float) -> str:
    """RFC 3339 with microseconds, so that a decision made within a second keeps its order."""
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def to_unix(text: str) -> float:
    """Unix seconds of an RFC 3339 time. Raises ValueError when it is none."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
