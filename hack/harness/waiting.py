"""The one way to wait: poll until something is there, within a bound, and say what was last seen when it is not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from harness.errors import WaitTimeout

T = TypeVar("T")
POLL_SECONDS = 0.3


def wait_for(
    probe: Callable[[], T | None],
    timeout: float,
    what: str,
    *,
    last_seen: Callable[[], str] = lambda: "",
    every: float = POLL_SECONDS,
) -> T:
    """The first value of `probe` that is neither None nor False. Raises WaitTimeout after `timeout` seconds.

    `last_seen` is asked only on failure, for the message.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = probe()
        if value is not None and value is not False:
            return value
        if time.monotonic() >= deadline:
            seen = last_seen()
            raise WaitTimeout(f"waited {timeout:.0f} s for {what}" + (f"; last seen:\n{seen}" if seen else ""))
        time.sleep(every)
