"""Times, sizes and numbers as people read them."""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_unix

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_SIZES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def span(seconds: float) -> str:
    """The two largest units of a duration: "3d4h", "12m", "40s"."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for size, unit in _UNITS:
        if left >= size and len(parts) < 2:
            parts.append(f"{left // size}{unit}")
            left %= size
        elif parts:
            break
    return "".join(parts) or "0s"


def age(since: str | None, now: float) -> str:
    """How long ago a time of a status was; empty for none."""
    return span(now - to_unix(since)) if since else ""


def size(count: int) -> str:
    """Bytes in the largest unit that they fill."""
    for unit, name in _SIZES:
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} B"
