"""Waiting for what happens elsewhere: in another thread, another process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def until(condition: Callable[[], Found | None], seconds: float = 60.0) -> Found:
    """What `condition` answers once that is something. `seconds`: it fails only where it would never be."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "condition never held"
        time.sleep(0.005)
    return found
