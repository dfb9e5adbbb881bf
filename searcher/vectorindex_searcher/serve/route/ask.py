"""One request to one shard: a pod is asked, another one where that fails, and a second one where it takes long.

No pod is asked twice while there is another. What is asked again is bounded: once for a failure, and second requests by
what first ones have earned.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Protocol

import orjson

from ..http.messages import Problem
from .link import BrokenError, NoRoomError, Reply, Room
from .parts import Part
from .pods import Pod, Shard

MOST_TRIES = 2
_TOO_MUCH, _WRONG_FIELD = "TooMuchWork", "InvalidField"
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
    room: Room
    revision: str
    usual: bool
    """Whether it takes as long as most do."""

    def rest(self) -> tuple[bytes, bytes] | None: ...

    def read(self, reply: Reply, then: Callable[[Part | Exception], None]) -> None: ...

    def answered(self, shard: Shard, part: Part) -> None: ...

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
        if isinstance(outcome, Reply) and outcome.head.status == 200 and self._asking.usual:
            self.shard.took(pod, time.monotonic() - since)
        if self._done:
            self._under_way -= 1
            self._give_back(outcome)
            return
        try:
            reply = self._checked(outcome)
        except (Problem, _UnusableError) as error:
            self._under_way -= 1
            self._give_back(outcome)
            self._told(pod, error)
        else:
            self._asking.read(reply, lambda read: self._read(pod, read))

    def _read(self, pod: Pod, read: Part | Exception) -> None:
        self._under_way -= 1
        if self._done:
            if isinstance(read, Part):
                self._asking.room.give(read.nbytes)
        elif isinstance(read, Part):
            self._end()
            self.shard.results["Answered"] += 1
            self._asking.answered(self.shard, read)
        else:
            reason = Reason.OVERLOAD if isinstance(read, NoRoomError) else Reason.FAILED
            self._told(pod, _UnusableError(reason, str(read)))

    def _told(self, pod: Pod, error: Problem | _UnusableError) -> None:
        if isinstance(error, _UnusableError):
            self._failed(pod, error)
            return
        self._end()
        self.shard.results["Refused"] += 1
        self._asking.refused(error)

    def _failed(self, pod: Pod, error: _UnusableError) -> None:
        if error.refused:
            self.shard.disagrees(pod, str(error))
        elif error.reason is Reason.FAILED:
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

    def _checked(self, outcome: Reply | Exception) -> Reply:
        """An answer to a search. Raises Problem where the client is at fault, and _UnusableError."""
        if isinstance(outcome, NoRoomError):
            raise _UnusableError(Reason.OVERLOAD, str(outcome))
        if isinstance(outcome, Exception):
            raise _UnusableError(Reason.FAILED, str(outcome), broken=isinstance(outcome, (BrokenError, OSError)))
        head = outcome.head
        if head.revision != self._asking.revision:
            raise _UnusableError(Reason.FAILED, f"revision {head.revision[:100]!r} answered")
        if 400 <= head.status < 500:
            raise _refusal(outcome)
        if head.status != 200:
            raise _UnusableError(_reason(outcome), f"it answered {head.status}")
        return outcome


class _UnusableError(Exception):
    """`broken`: it was the connection that failed; `refused`: it answers well, but not what the router asks."""

    def __init__(self, reason: Reason, text: str, *, broken: bool = False, refused: bool = False) -> None:
        super().__init__(text)
        self.reason, self.broken, self.refused = reason, broken, refused


def _reason(reply: Reply) -> Reason:
    """Of an answer with a status from 500 on: only what a searcher says of too much to do, or of too little time, says
    nothing about the index."""
    problem = _problem(reply)
    kind = "" if isinstance(problem, _UnusableError) else problem.kind
    return {(503, "Overload"): Reason.OVERLOAD, (504, "DeadlineExceeded"): Reason.DEADLINE}.get(
        (reply.head.status, kind), Reason.FAILED
    )


def _refusal(reply: Reply) -> Problem | _UnusableError:
    """What a shard refuses. The router has checked the request, so a refusal is a fault of the index, but for what only
    a shard knows: how much work its own operating point makes of a request, how long its answer becomes, and which
    parameters queries may name."""
    problem = _problem(reply)
    if isinstance(problem, _UnusableError) or problem.kind == _TOO_MUCH:
        return problem
    if problem.kind == _WRONG_FIELD and (problem.field or "").startswith("params"):
        return problem
    text = f"it refused what the router had checked: {problem.status} {problem.kind} {(problem.field or '')[:100]}"
    return _UnusableError(Reason.FAILED, text, refused=True)


def _problem(reply: Reply) -> Problem | _UnusableError:
    """As a searcher tells it."""
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
        return _UnusableError(Reason.FAILED, f"it answered {reply.head.status} without a problem")
