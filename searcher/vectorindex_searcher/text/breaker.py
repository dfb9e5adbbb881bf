"""A circuit breaker: whoever does not answer is not asked for a while, and then by one.

Without it each query in words would wait for its whole time budget while a server is down, and those behind it too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .encoder import EncoderUnavailableError

NOT_ASKED = "the encoder's endpoint does not answer, and is not asked now"
FAILURES = 3
"""In a row, after which it opens."""
FIRST_SECONDS, LONGEST_SECONDS = 1.0, 30.0
"""For how long, twice as long each time that the one who tries fails."""


class Breaker:
    """Thread-safe. `enter` before a call, then `succeeded` or `failed`, or neither where a call says nothing of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._seconds = FIRST_SECONDS
        self._closed_at = 0.0
        """Until then nobody asks."""
        self._trying = False

    def enter(self) -> bool:
        """Whether the caller is the one who tries, by a text of ours.

        Raises EncoderUnavailableError while it is open."""
        with self._lock:
            if self._failures < FAILURES:
                return False
            left = self._closed_at - self._clock()
            if left <= 0 and not self._trying:
                self._trying = True
                return True
        raise EncoderUnavailableError(NOT_ASKED, max(left, 1.0))

    def succeeded(self) -> None:
        with self._lock:
            self._failures, self._seconds, self._trying = 0, FIRST_SECONDS, False

    def failed(self) -> None:
        with self._lock:
            self._failures += 1
            if self._failures >= FAILURES:
                self._closed_at = self._clock() + self._seconds
                self._seconds = min(2 * self._seconds, LONGEST_SECONDS)
            self._trying = False
