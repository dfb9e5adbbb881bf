"""How many Events an object may have: what is told already is not told again, and no fault can flood a namespace.

A budget for each object and reason, so that a reason which repeats itself never keeps a rollback from being told. Kept
in memory and bounded; a new process may tell something once more.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

BURST = 10.0
"""Events of one reason about one object that may come at once."""
REFILL_SECONDS = 300.0
"""After so long there may be one more."""
REPEAT_SECONDS = 600.0
"""The same sentence is not told again within this time."""
REMEMBERED = 8192
"""Pairs of object and reason; the one that was looked at longest ago is forgotten first."""


@dataclass(slots=True)
class _Account:
    left: float
    at: float
    last: str = ""
    told_at: float = float("-inf")


@dataclass(slots=True)
class EventBudget:
    """Thread-safe. `clock`: seconds that never go back."""

    clock: Callable[[], float] = time.monotonic
    _accounts: OrderedDict[tuple[str, str], _Account] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def allows(self, uid: str, reason: str, message: str) -> bool:
        """Whether this Event is to be sent; it is counted then."""
        now = self.clock()
        with self._lock:
            account = self._accounts.setdefault((uid, reason), _Account(BURST, now))
            self._accounts.move_to_end((uid, reason))
            if len(self._accounts) > REMEMBERED:
                self._accounts.popitem(last=False)
            account.left = min(BURST, account.left + (now - account.at) / REFILL_SECONDS)
            account.at = now
            repeats = message == account.last and now - account.told_at < REPEAT_SECONDS
            if repeats or account.left < 1.0:
                return False
            account.left -= 1.0
            account.last, account.told_at = message, now
            return True
