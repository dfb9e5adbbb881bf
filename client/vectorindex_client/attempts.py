"""One request from its first attempt to its answer: its deadline, what it sends, and what is tried again.

What is tried again, and why that is safe. A search only reads, so a request that was answered twice, or was carried
out and its answer lost, changes nothing. What is left to consider is load:

- 503 with Retry-After: the searcher asks for it. Waits as long as it says and a little longer, by chance, so that those
  who were refused together do not come back together.
- 409 with Retry-After: the searcher has not read yet what is asked for. Waits likewise, until the deadline.
- No connection: nothing was sent. A searcher that was killed is in the Service for a second or two longer, so each wait
  is four times the one before.
- A connection that broke before the head of an answer: the searcher closed an idle connection at the very moment of
  the request, or was killed, or its node is lost and nobody acknowledged the request. Once, on another connection,
  after the first of these waits: a process that dies closes its connections before it closes the port, and what
  connects in between is lost as well. Not more than once, since a query that makes a searcher crash must not be handed
  round to all of them.

Nothing else: another 4xx or 5xx would be the same again, and after a timeout the time is over. Feedback counts: once
sent it is not sent again, since two searchers could both count it.
"""

from __future__ import annotations

import random
import socket
import time

from .answers import Answer, not_a_searcher
from .calls import Request
from .errors import DeadlineExceeded, NotFreshYet, Overloaded, Unreachable, VectorIndexError

MAX_DEADLINE_MS = 600_000
JITTER = 0.5
AGAIN_SECONDS, AGAIN_FACTOR = 0.1, 4.0
"""The first wait, and how much longer each is than the one before."""
CONNECT_SECONDS = 2.0
"""The most that one attempt waits for a connection: a lost node answers nobody, and the next may go elsewhere."""
UNHEARD_SECONDS = 3.0
"""A connection whose other end has not even said that the request arrived is dead. A busy searcher's kernel says it."""


class Unconnected(Exception):  # noqa: N818 - it says what happened
    """No connection came about, so nothing was sent. `again`: whether another try may go better."""

    def __init__(self, text: str, *, again: bool = True) -> None:
        super().__init__(text)
        self.again = again


class Broken(Exception):  # noqa: N818 - it says what happened
    """A connection ended before its answer. `early`: before the head of an answer was there."""

    def __init__(self, text: str, *, early: bool) -> None:
        super().__init__(text)
        self.early = early


class NotHttp(Exception):  # noqa: N818 - it says what happened
    """What came is no HTTP answer, or none that this client takes."""


FAILURES = (Unconnected, Broken, NotHttp)


def give_up_unheard(connected: socket.socket) -> None:
    """What is sent on it and not acknowledged ends it, after UNHEARD_SECONDS; where the system can."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNHEARD_SECONDS * 1e3))


class Deadline:
    """When one call ends, everything included, and what it is waiting for just now."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.ends = time.monotonic() + timeout
        self.waiting_for = "an answer"

    @property
    def remaining(self) -> float:
        """Seconds that are left. Raises DeadlineExceeded when none are."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise self.exceeded()
        return left

    @property
    def half(self) -> float:
        """The moment when half of what is left now will be over."""
        return (self.ends + time.monotonic()) / 2

    def exceeded(self) -> DeadlineExceeded:
        """The error that says so."""
        detail = f"no answer within {self.timeout:g} s: the time ended while waiting for {self.waiting_for}"
        remedies = {
            "a free connection": "ask less at a time, run more searchers, or raise connections",
            "a connection": "check the URL and the network",
        }
        return DeadlineExceeded(detail, kind="Timeout", remedy=remedies.get(self.waiting_for))


class Attempts:
    """The attempts at one request, at most `retries` after the first."""

    def __init__(self, request: Request, token: str | None, deadline: Deadline, retries: int) -> None:
        self.request = request
        self.deadline = deadline
        self._token = token
        self._left = retries
        self._broken_once = False
        self._again = AGAIN_SECONDS

    def headers(self) -> dict[str, str]:
        """Headers of the next attempt: its deadline is what is left of the call's."""
        found = {"Accept": self.request.accept, "X-Request-Timeout-Ms": str(_told(self.deadline.remaining))}
        if self.request.content_type is not None:
            found["Content-Type"] = self.request.content_type
        if self._token is not None:
            found["Authorization"] = f"Bearer {self._token}"
        return found

    def failed(self, error: Unconnected | Broken | NotHttp) -> float:
        """Seconds to wait before the next attempt, after one without an answer. Raises when there is none."""
        if isinstance(error, NotHttp):
            raise not_a_searcher(detail=str(error)) from error
        again = isinstance(error, Unconnected) and error.again
        if isinstance(error, Broken) and error.early and self.request.reads_only and not self._broken_once:
            self._broken_once = again = True
        # Whoever is not there, or is about to die, gets a moment, then a longer one.
        seconds = min(self._again, (self.deadline.ends - time.monotonic()) / 2)
        self._again *= AGAIN_FACTOR
        remedy = "check the URL and the network" if isinstance(error, Unconnected) and error.again else None
        return self._wait(seconds, Unreachable(str(error), kind="Unreachable", remedy=remedy), again)

    def answered(self, answer: Answer) -> float | None:
        """None after a good answer, or seconds to wait before the next attempt. Raises for any other."""
        if 200 <= answer.status < 300:
            return None
        error, seconds = answer.problem(), answer.retry_after
        if isinstance(error, NotFreshYet) and seconds is not None:
            self._left += 1  # it costs next to nothing, and comes with time alone
            return self._wait(seconds, error, True)
        return self._wait(seconds or 0.0, error, isinstance(error, Overloaded) and seconds is not None)

    def _wait(self, seconds: float, error: VectorIndexError, again: bool) -> float:
        seconds *= random.uniform(1, 1 + JITTER)  # noqa: S311 - no secret
        if not again or self._left <= 0 or time.monotonic() + seconds >= self.deadline.ends:
            raise error
        self._left -= 1
        return seconds


def _told(seconds: float) -> int:
    """The deadline as the searcher is told it: milliseconds, rounded up to two digits.

    Every request with the same head costs the searcher less than one with a head it has not seen, so a deadline of 10 s
    is 10000 in each, and not 9999, 9998 and 9997.
    """
    milliseconds = max(1, min(MAX_DEADLINE_MS, int(seconds * 1e3) + 1))
    step = 10 ** max(0, len(str(milliseconds)) - 2)
    return min(MAX_DEADLINE_MS, int(-(-milliseconds // step) * step))
