"""A read that failed for a reason that may be gone is made once more, within the same pass. Writes never are.

A pass is some ten reads before its first write, and one that fails loses all of them: where a tenth of the answers is
"too many requests", or a balancer drops connections, hardly any pass would get as far as writing, and the waits between
passes double up to a minute. Bounded in three ways, so that this never becomes what an API server suffers from:

- once: a read that fails twice ends the pass;
- in time: both tries together end when one of them must have, and no pause is longer than LONGEST_PAUSE;
- in work: reads earn second tries, a fifth of one each: where most are refused, a fifth more is asked, and no more.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from vectorindex_operator.reconcile.errors import UnreachableError

T = TypeVar("T")

EARNED = 0.2
"""Second tries that each read earns."""
MOST_SAVED = 10.0
LONGEST_PAUSE = 2.0
"""Seconds. Who is asked to stay away for longer ends its pass: a worker does not stand still for one VectorIndex."""
PAUSES = (0.05, 0.2)
"""Seconds, drawn from this range, where the server does not ask for any."""
LEAST = 0.5
"""Seconds that must be left for a second try."""


@dataclass(slots=True)
class SecondTries:
    """Whether a read is made again, and when. Safe to use from many threads."""

    on_second: Callable[[], object] = lambda: None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    saved: float = MOST_SAVED
    earned: float = EARNED
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, attempt: Callable[[float], T], seconds: float) -> T:
        """The answer of `attempt(seconds left)`, of the second where the first raises UnreachableError."""
        until = self.clock() + seconds
        with self._lock:
            self.saved = min(MOST_SAVED, self.saved + self.earned)
        try:
            return attempt(seconds)
        except UnreachableError as error:
            pause = max(error.retry_after, random.uniform(*PAUSES))  # noqa: S311 - spreads retries, guards nothing
            left = until - self.clock() - pause
            if pause > LONGEST_PAUSE or left < LEAST or not self._spend():
                raise
        self.on_second()
        self.sleep(pause)
        return attempt(left)

    def _spend(self) -> bool:
        with self._lock:
            if self.saved < 1:
                return False
            self.saved -= 1
            return True
