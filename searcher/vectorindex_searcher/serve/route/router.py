"""A request to all shards of one revision, and what becomes of it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from functools import partial

from ... import contract
from ..evidence.feedback import QueryIds
from ..evidence.recorder import Outcome
from ..http.limits import ANSWER_BYTES, CANDIDATES, LOOP_BYTES
from ..http.messages import Deferred, Problem, Response, overload
from ..search.asked import Encoding
from ..search.plan import SearchPlan
from ..search.pool import deadline_exceeded
from ..search.reader import Read
from ..search.vectors import Vectors
from ..search.work import Work, WorkBudget
from .ask import Ask, Reason
from .link import Reply
from .merge import Line, answer
from .parts import Part
from .pods import Shard
from .reading import Reading
from .sent import Sent, sent

SHARD_SECONDS = 10.0
"""For all shards to answer, whatever the client allows."""
MOST_REQUESTS = 1024
"""That are not answered."""
LOOP_HITS = 8192
"""Merged on the event loop; more on a thread. A query costs as much for each shard as LINE_HITS hits."""
LINE_HITS = 16
LEAVE_SHARE, LEAVE_SECONDS = 0.1, 0.02
"""Of the client's time, what is left for an answer without the shards that are late, where one is allowed."""


class Router:
    """All shards of a revision. `ask` and `ask_unread` belong to the event loop's thread."""

    def __init__(
        self,
        shards: Sequence[Shard],
        revision: str,
        query_ids: QueryIds,
        reading: Reading,
        *,
        text: bool,
        partial: contract.Partial = contract.Partial.REFUSE,
    ) -> None:
        """`reading`: on its threads also long requests are read and written, and long answers are merged; `text`:
        whether ids are strings."""
        self.shards, self.revision, self.query_ids, self.reading = shards, revision, query_ids, reading
        self.text, self.partial = text, partial
        self.budget = WorkBudget()
        self.under_way = 0
        self.offer: Callable[[Sent, Sequence[Line]], None] | None = None
        """Is shown what users get of all shards, on any thread; None: nobody looks."""

    def ask(
        self,
        plan: SearchPlan,
        vectors: Vectors,
        outcome: Outcome,
        began: float,
        seconds: float | None,
        encoding: Encoding | None = None,
        *,
        whole: bool = False,
    ) -> Deferred:
        """Ask every shard for `vectors`, float32 [d] or [n, d], checked. `seconds`: what the client allows, from
        `began` on. `encoding`: None where it came with vectors. `whole`: an answer of some shards is none, whatever
        else is allowed. Raises Problem 400, 503 or 504."""
        self._check_now(began, seconds)
        return self._send(self._sent(plan, vectors, outcome), outcome, began, seconds, encoding, whole=whole)

    def ask_encoded(
        self,
        plan: SearchPlan,
        vectors: Vectors,
        outcome: Outcome,
        began: float,
        seconds: float | None,
        encoding: Encoding | None = None,
    ) -> Deferred:
        """As `ask`, for vectors of texts: several beside a filter take long to write."""
        if vectors.ndim == 1 or "filter" not in plan.asked:
            return self.ask(plan, vectors, outcome, began, seconds, encoding)
        return self.ask_unread(lambda: (plan, vectors), outcome, began, seconds, encoding)

    def ask_unread(
        self,
        read: Callable[[], Read],
        outcome: Outcome,
        began: float,
        seconds: float | None,
        encoding: Encoding | None = None,
    ) -> Deferred:
        """As `ask`, for a request that is read, and written for the shards, on a thread, and may be refused there."""
        told = Deferred()

        def go_on(done: asyncio.Future[Sent]) -> None:
            try:
                what = done.result()
                self._check_now(began, seconds)
                self._send(what, outcome, began, seconds, encoding).then(told.resolve)
            except Exception as error:  # also what nobody expects: the connection waits for an answer
                told.resolve(error)

        def job() -> Sent:
            return self._sent(*read(), outcome)

        asyncio.get_running_loop().run_in_executor(self.reading.executor, job).add_done_callback(go_on)
        return told

    def _check_now(self, began: float, seconds: float | None) -> None:
        if seconds is not None and time.monotonic() >= began + seconds:
            raise deadline_exceeded()
        if self.under_way >= MOST_REQUESTS:
            raise overload(f"{self.under_way} requests wait for shards")

    def _sent(self, plan: SearchPlan, vectors: Vectors, outcome: Outcome) -> Sent:
        """On any thread. Raises Problem 400."""
        hits = outcome.queries * plan.k * len(self.shards)
        if hits > CANDIDATES:
            most = CANDIDATES // (plan.k * len(self.shards))
            detail = f"{outcome.queries} vectors with k={plan.k} are {hits} hits of {len(self.shards)} shards"
            remedy = f"send at most {most} vectors in one request, or a smaller k"
            raise Problem(400, "TooMuchWork", detail, "vectors", hits, remedy, members={"expected": CANDIDATES})
        return sent(plan, vectors, text=self.text)

    def _send(
        self,
        what: Sent,
        outcome: Outcome,
        began: float,
        seconds: float | None,
        encoding: Encoding | None,
        *,
        whole: bool = False,
    ) -> Deferred:
        if not self.reading.room.take(len(what.body)):
            raise overload("answers, and requests that shards have not taken, fill the room that there is for them")
        deadline = None if seconds is None else began + seconds
        partial = contract.Partial.REFUSE if whole else self.partial
        scatter = Scatter(self, what, outcome, began, deadline, partial, encoding)
        scatter.begin()
        return scatter


class Scatter(Deferred):
    """One request. Its answer is there once every shard answered, is missing, or the time is over."""

    __slots__ = (
        "_asks", "_body", "_deadline", "_encoding", "_ended", "_held", "_left", "_outcome_of", "_partial", "_router",
        "_sent", "_timer", "_until", "began", "line", "missing_ones", "parts", "revision", "room", "usual",
    )  # fmt: skip

    def __init__(
        self,
        router: Router,
        what: Sent,
        outcome: Outcome,
        began: float,
        deadline: float | None,
        partial: contract.Partial,
        encoding: Encoding | None,
    ) -> None:
        super().__init__()
        self._partial, self._encoding = partial, encoding
        self._router, self._sent, self._outcome_of, self.began = router, what, outcome, began
        self.revision, self.room = router.revision, router.reading.room
        self.line, self._body, self.usual = what.line, what.body, what.usual
        self.parts: dict[int, Part] = {}
        self.missing_ones: dict[int, Reason] = {}
        self._asks: list[Ask] = []
        self._left, self._held, self._ended = len(router.shards), 0, False
        self._deadline = deadline
        now = time.monotonic()
        self._until = now + SHARD_SECONDS
        if deadline is not None:
            left = deadline - now
            leave = min(LEAVE_SHARE * left, LEAVE_SECONDS) if partial is contract.Partial.ALLOW else 0.0
            self._until = min(self._until, deadline - leave)
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Ask all."""
        self._router.under_way += 1
        self._timer = asyncio.get_running_loop().call_later(self._until - time.monotonic(), self._over)
        for shard in self._router.shards:
            one = Ask(self, shard, ANSWER_BYTES + (1 << 20))
            self._asks.append(one)
            one.begin()
            if self._ended:
                return

    # ------------------------------------------------------------ as ask.Asking

    def rest(self) -> tuple[bytes, bytes] | None:
        """The other headers, and the body; None once it has ended."""
        if self._ended:
            return None
        left = max(1, math.ceil((self._until - time.monotonic()) * 1e3))
        return b"%bX-Request-Timeout-Ms: %d\r\n\r\n" % (self._sent.headers, left), self._body

    def read(self, reply: Reply, then: Callable[[Part | Exception], None]) -> None:
        """See Reading.read."""
        self._router.reading.read(reply, self._sent.question, then)

    def answered(self, shard: Shard, part: Part) -> None:
        """One more."""
        self.parts[shard.number] = part
        self._held += part.nbytes
        self._count()

    def missing(self, shard: Shard, reason: Reason) -> None:
        """One will not come."""
        self.missing_ones[shard.number] = reason
        self._count()

    def refused(self, problem: Problem) -> None:
        """The client is at fault: the others would say so, too."""
        self._end(problem)

    # ------------------------------------------------------------

    def _count(self) -> None:
        self._left -= 1
        if not self._left and not self._ended:
            self._gathered()

    def _over(self) -> None:
        """The time is over."""
        if self._ended:
            return
        by_client = self._deadline is not None and self._until >= self._deadline - LEAVE_SECONDS
        for one in self._asks:
            number = one.shard.number
            if number not in self.parts and number not in self.missing_ones:
                one.give_up(fault=not by_client)
                one.shard.results["Failed"] += 1
                self.missing_ones[number] = Reason.DEADLINE if by_client else Reason.LATE
        self._gathered()

    def _gathered(self) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        hits = self._outcome_of.queries * (self._sent.plan.k + LINE_HITS) * len(self.parts)
        if hits <= LOOP_HITS and self._held <= LOOP_BYTES:
            try:
                self._end(self._merged())
            except Exception as error:
                self._end(error)
            return

        def done(future: asyncio.Future[Response]) -> None:
            self._end(future.exception() or future.result())

        asyncio.get_running_loop().run_in_executor(self._router.reading.executor, self._merged).add_done_callback(done)

    def _merged(self) -> Response:
        """On the event loop or a thread. Raises Problem."""
        parts, missing = self.parts, self.missing_ones
        numbers = sorted(missing)
        if numbers and (not parts or self._partial is contract.Partial.REFUSE):
            raise self._refusal(numbers, missing)
        in_order = [parts[number] for number in sorted(parts)]
        router = self._router
        with Work(router.budget) as work:
            return answer(
                in_order,
                self._sent.plan,
                self._outcome_of,
                work,
                revision=router.revision,
                began=self.began,
                query_ids=router.query_ids,
                missing=numbers,
                fault=self._at_fault(set(missing.values())),
                encoding=self._encoding,
                offer=None if numbers or router.offer is None else partial(router.offer, self._sent),
            )

    def _at_fault(self, reasons: set[Reason]) -> bool:
        """Whether shards that are missing for these reasons are an error of the index. Not where a client had less time
        than any revision takes (as for 504), or asked more than there is time for: it could make errors at will."""
        if self._deadline is not None and self._deadline - self.began < contract.DEADLINE_FLOOR_SECONDS:
            reasons = reasons - {Reason.DEADLINE}
        return bool(reasons - {Reason.OVERLOAD})

    def _refusal(self, numbers: Sequence[int], missing: dict[int, Reason]) -> Problem:
        reasons = set(missing.values())
        if reasons == {Reason.OVERLOAD}:
            return overload(f"{_named(numbers, len(self._router.shards))} have too much to do")
        if reasons <= {Reason.DEADLINE, Reason.OVERLOAD}:
            return deadline_exceeded()
        self._outcome_of.incomplete = True
        return Problem(
            503,
            "ShardsMissing",
            f"{_named(numbers, len(self._router.shards))} did not answer, and an answer without them is not allowed",
            remedy="retry after the seconds named in Retry-After; the pods of these shards say what is wrong",
            headers=((b"Retry-After", b"1"),),
            members={"shards": list(numbers)},
        )

    def _end(self, outcome: Response | BaseException) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for one in self._asks:
            one.give_up(fault=False)
        self.room.give(self._held + len(self._body))
        # A pod that still owes an answer keeps this alive, for as long as it likes.
        self._held, self.parts, self._body = 0, {}, b""
        self._router.under_way -= 1
        self.resolve(outcome)


def _named(numbers: Sequence[int], of: int) -> str:
    return f"shard{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))} of {of}"
