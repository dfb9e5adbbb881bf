"""One request to one shard: a pod is asked, another one where that fails, and a second one where it takes long.

No pod is asked twice while there is another. What is asked again is bounded: once for a failure, and second requests by
what first ones have earned.
"""

from __future__ import annotations

import asyncio
import re
import time
from enum import StrEnum
from typing import Any, Protocol

import orjson

from ..http.limits import LOOP_BYTES
from ..http.messages import Problem
from .link import BrokenError, NoRoomError, Reply, Room
from .parts import MalformedError, Part, Question, part_of
from .pods import Pod, Shard

MOST_TRIES = 2
_CLIENT_FAULTS = frozenset({400, 413, 414, 415, 422})
"""Of a shard: every shard would say so, and the client shall know it."""
_PROBLEM_BYTES = 64 << 10
_PREFIX = "urn:vectorindex:problem:"
_KIND, _SHOWN = re.compile(r"[A-Za-z]{1,64}"), 500


class Reason(StrEnum):
    """Why a shard is missing."""

    FAILED = "Failed"
    LATE = "Late"
    """Longer than the router waits."""
    DEADLINE = "Deadline"
    """Longer than the client allows."""
    OVERLOAD = "Overload"
    """It has too much to do: that says nothing about the revision."""


class Asking(Protocol):
    """The request that all shards are asked for."""

    line: bytes
    question: Question
    room: Room
    revision: str
    usual: bool
    """Whether it takes as long as most do."""

    def rest(self) -> tuple[bytes, bytes] | None: ...

    def answered(self, shard: Shard, reply: Reply, part: Part | None) -> None: ...

    def missing(self, shard: Shard, reason: Reason) -> None: ...

    def refused(self, problem: Problem) -> None: ...


class Ask:
    """`begin` once. The request is told once what became of it, unless `give_up` comes before."""

    __slots__ = ("_asking", "_done", "_most", "_tried", "_tries", "_under_way", "_wait", "shard")

    def __init__(self, asking: Asking, shard: Shard, most: int) -> None:
        """`most`: bytes of an answer."""
        self._asking, self.shard, self._most = asking, shard, most
        self._tried: list[Pod] = []
        self._tries = self._under_way = 0
        self._done = False
        self._wait: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Ask. May tell at once what became of it."""
        shard = self.shard
        pod = shard.pick()
        if pod is None:
            self._miss(Reason.OVERLOAD if shard.full else Reason.FAILED)
            return
        shard.began()
        self._try(pod)
        if self._asking.usual and not self._done and shard.hedge_after is not None and len(shard.pods) > 1:
            self._wait = asyncio.get_running_loop().call_later(shard.hedge_after, self._hedge)

    def give_up(self, *, fault: bool) -> None:
        """Nobody wants the answer any more. `fault`: it took longer than a pod that is well would."""
        self._end()
        if self._under_way:
            for pod in self._tried:
                pod.give_up(self)
        if fault:
            for pod in self._tried:
                pod.fail(TimeoutError("it took too long"))

    # ------------------------------------------------------------

    def _try(self, pod: Pod) -> None:
        self._tries += 1
        self._send(pod)

    def _hedge(self) -> None:
        pod = self.shard.pick(self._tried)
        if self._done or not self._under_way or pod is None or not self.shard.may_hedge():
            return
        self.shard.results["Hedged"] += 1
        self._send(pod)

    def _send(self, pod: Pod) -> None:
        self._tried.append(pod)
        self._under_way += 1
        since = time.monotonic()
        asking = self._asking
        pod.ask(self, asking.line, asking.rest, self._most, lambda outcome: self._replied(pod, since, outcome))

    def _replied(self, pod: Pod, since: float, outcome: Reply | Exception) -> None:
        self._under_way -= 1
        if isinstance(outcome, Reply) and outcome.head.status == 200 and self._asking.usual:
            self.shard.took(pod, time.monotonic() - since)
        if self._done:
            self._give_back(outcome)
            return
        try:
            found = self._found(outcome)
        except Problem as problem:
            self._give_back(outcome)
            self._end()
            self.shard.results["Refused"] += 1
            self._asking.refused(problem)
        except _UnusableError as error:
            self._give_back(outcome)
            self._failed(pod, error)
        else:
            self._end()
            self.shard.results["Answered"] += 1
            assert isinstance(outcome, Reply)
            self._asking.answered(self.shard, outcome, found)

    def _failed(self, pod: Pod, error: _UnusableError) -> None:
        if error.reason is Reason.FAILED:
            pod.fail(error)
        other = self.shard.pick(self._tried)
        if other is None and error.broken and len(self.shard.pods) == 1:
            other = pod  # the connection may have been closed while it was idle
        if other is not None and self._tries < MOST_TRIES:
            self._try(other)
        elif not self._under_way:
            self._miss(error.reason)

    def _miss(self, reason: Reason) -> None:
        self._end()
        self.shard.results["Failed"] += 1
        self._asking.missing(self.shard, reason)

    def _end(self) -> None:
        self._done = True
        if self._wait is not None:
            self._wait.cancel()

    def _give_back(self, outcome: Reply | Exception) -> None:
        if isinstance(outcome, Reply):
            self._asking.room.give(len(outcome.body))

    def _found(self, outcome: Reply | Exception) -> Part | None:
        """The answer; None: it is read later, since that takes long. Raises Problem where the client is at fault, and
        _UnusableError."""
        if isinstance(outcome, NoRoomError):
            raise _UnusableError(Reason.OVERLOAD, str(outcome))
        if isinstance(outcome, Exception):
            raise _UnusableError(Reason.FAILED, str(outcome), broken=isinstance(outcome, (BrokenError, OSError)))
        head = outcome.head
        if head.revision != self._asking.revision:
            raise _UnusableError(Reason.FAILED, f"revision {head.revision[:100]!r} answered")
        if head.status in _CLIENT_FAULTS:
            raise _problem(outcome)
        if head.status != 200:
            reasons = {503: Reason.OVERLOAD, 504: Reason.DEADLINE}
            raise _UnusableError(reasons.get(head.status, Reason.FAILED), f"it answered {head.status}")
        if len(outcome.body) > LOOP_BYTES:
            return None
        try:
            return part_of(outcome, self._asking.question)
        except MalformedError as error:
            raise _UnusableError(Reason.FAILED, str(error)) from None


class _UnusableError(Exception):
    """`broken`: it was the connection that failed."""

    def __init__(self, reason: Reason, text: str, *, broken: bool = False) -> None:
        super().__init__(text)
        self.reason, self.broken = reason, broken


def _problem(reply: Reply) -> Problem:
    """What a shard refuses. Raises _UnusableError for what is no problem of a searcher."""
    try:
        if len(reply.body) > _PROBLEM_BYTES:
            raise ValueError
        told: dict[str, Any] = orjson.loads(reply.body)
        kind = told["type"].removeprefix(_PREFIX)
        field, remedy = told.get("field"), told.get("remedy")
        if not _KIND.fullmatch(kind) or not all(one is None or isinstance(one, str) for one in (field, remedy)):
            raise ValueError
        detail, field, remedy = str(told["detail"])[:_SHOWN], field and field[:_SHOWN], remedy and remedy[:_SHOWN]
        return Problem.relayed(reply.head.status, kind, detail, field, told.get("value"), remedy)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _UnusableError(Reason.FAILED, f"it answered {reply.head.status} without a problem") from None
