"""How long to wait before work that failed is tried again. Pure; the counts live on Kubernetes objects."""

from __future__ import annotations

MINUTE = 60.0
HOUR = 3600.0

RESOLVE_FIRST_WAIT = MINUTE
RESOLVE_LONGEST_WAIT = 30 * MINUTE
FREE_BUILD_TRIES = 3
BUILD_FIRST_WAIT = 10 * MINUTE
BUILD_LONGEST_WAIT = 24 * HOUR
NOTICE_FIRST_WAIT = 5.0
NOTICE_LONGEST_WAIT = 10 * MINUTE


def resolve_wait(failures: int) -> float:
    """Seconds from the end of the last failed listing to the next: 1, 2, 4 ... 30 minutes."""
    return _doubled(RESOLVE_FIRST_WAIT, max(0, failures - 1), RESOLVE_LONGEST_WAIT)


def build_wait(failures: int) -> float:
    """Seconds from the last failed build to the next automatic one: three at once, then 10 min doubling to 24 h."""
    if failures < FREE_BUILD_TRIES:
        return 0.0
    return _doubled(BUILD_FIRST_WAIT, failures - FREE_BUILD_TRIES, BUILD_LONGEST_WAIT)


def notice_wait(failures: int) -> float:
    """Seconds until a notice that was not taken is sent again: 5, 10, 20 ... 600."""
    return _doubled(NOTICE_FIRST_WAIT, max(0, failures - 1), NOTICE_LONGEST_WAIT)


def _doubled(first: float, times: int, longest: float) -> float:
    # Whoever fails for weeks gets to 2**1024, which is no float.
    return min(longest, first * 2.0 ** min(times, 32))
