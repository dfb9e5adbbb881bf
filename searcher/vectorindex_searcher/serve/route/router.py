"""A request to all shards of one revision, and what becomes of it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from urllib.parse import quote

import orjson

from ... import contract
from ..evidence.feedback import QueryIds
from ..evidence.recorder import Outcome
from ..http.limits import ANSWER_BYTES, CANDIDATES, LOOP_BYTES
from ..http.messages import Deferred, Problem, Response, overload
from ..search.plan import SearchPlan
from ..search.pool import deadline_exceeded
from ..search.reader import Read
from ..search.vectors import Vectors
from ..search.work import Work, WorkBudget
from .ask import Ask, Reason
from .link import Reply, Room
from .merge import answer
from .parts import MalformedError, Part, Question, part_of
from .pods import Shard

SHARD_SECONDS = 10.0
"""For all shards to answer, whatever the client allows."""
MOST_REQUESTS = 1024
"""That are not answered."""
LOOP_HITS = 8192
"""Merged on the event loop; more on a thread. A query costs as much for each shard as LINE_HITS hits."""
LINE_HITS = 16
LONGEST_LINE = 8 << 10
"""Of a request: a longer filter goes in a body of JSON."""
LEAVE_SHARE, LEAVE_SECONDS = 0.1, 0.02
"""Of the client's time, what is left for an answer without the shards that are late, where one is allowed."""
_LOWEST = "-3.4028235e38"
"""minScore for shards: the router counts the first hit's score, be it a hit or not, and cuts itself."""


class Router:
    """All shards of a revision. `ask` and `ask_unread` belong to the event loop's thread."""

    def __init__(
        self,
        shards: Sequence[Shard],
        revision: str,
        query_ids: QueryIds,
        room: Room,
        executor: Executor,
        *,
        text: bool,
        partial: contract.Partial = contract.Partial.REFUSE,
    ) -> None:
        """`text`: whether ids are strings; `executor`: where long requests are read and long answers are merged."""
        self.shards, self.revision, self.query_ids, self.room = shards, revision, query_ids, room
        self.text, self.partial = text, partial
        self.budget = WorkBudget()
        self.executor = executor
        self.under_way = 0

    def ask(
        self, plan: SearchPlan, vectors: Vectors, outcome: Outcome, began: float, seconds: float | None
    ) -> Deferred:
        """Ask every shard for `vectors`, float32 [d] or [n, d], checked. `seconds`: what the client allows, from
        `began` on. Raises Problem 400, 503 or 504."""
        now = time.monotonic()
        if seconds is not None and now >= began + seconds:
            raise deadline_exceeded()
        if self.under_way >= MOST_REQUESTS:
            raise overload(f"{self.under_way} requests wait for shards")
        hits = outcome.queries * plan.k * len(self.shards)
        if hits > CANDIDATES:
            most = CANDIDATES // (plan.k * len(self.shards))
            detail = f"{outcome.queries} vectors with k={plan.k} are {hits} hits of {len(self.shards)} shards"
            remedy = f"send at most {most} vectors in one request, or a smaller k"
            raise Problem(400, "TooMuchWork", detail, "vectors", hits, remedy, members={"expected": CANDIDATES})
        scatter = Scatter(self, plan, vectors, outcome, began, now, None if seconds is None else began + seconds)
        scatter.begin()
        return scatter

    def ask_unread(self, read: Callable[[], Read], outcome: Outcome, began: float, seconds: float | None) -> Deferred:
        """As `ask`, for a request that is read on a thread, and may be refused there."""
        told = Deferred()

        def go_on(done: asyncio.Future[Read]) -> None:
            try:
                self.ask(*done.result(), outcome, began, seconds).then(told.resolve)
            except Exception as error:  # also what nobody expects: the connection waits for an answer
                told.resolve(error)

        asyncio.get_running_loop().run_in_executor(self.executor, read).add_done_callback(go_on)
        return told


class Scatter(Deferred):
    """One request. Its answer is there once every shard answered, is missing, or the time is over."""

    __slots__ = (
        "_asks", "_body", "_deadline", "_ended", "_headers", "_held", "_left", "_outcome_of", "_plan", "_router",
        "_timer", "_until", "began", "line", "missing_ones", "parts", "question", "revision", "room", "usual",
    )  # fmt: skip

    def __init__(
        self,
        router: Router,
        plan: SearchPlan,
        vectors: Vectors,
        outcome: Outcome,
        began: float,
        now: float,
        deadline: float | None,
    ) -> None:
        super().__init__()
        self._router, self._plan, self._outcome_of, self.began = router, plan, outcome, began
        self.revision, self.room = router.revision, router.room
        # Who names parameters says how long it takes: others' second requests are not timed by that.
        self.usual = vectors.ndim == 1 and plan.own and not plan.include_metadata
        json = not plan.binary and (plan.filtered or plan.include_metadata)
        self.question = Question(outcome.queries, plan.k, router.text, plan.include_metadata, json and plan.filtered)
        self.line, self._headers, self._body = written(plan, vectors, json=json)
        self.parts: dict[int, tuple[Reply, Part | None]] = {}
        self.missing_ones: dict[int, Reason] = {}
        self._asks: list[Ask] = []
        self._left, self._held, self._ended = len(router.shards), 0, False
        self._deadline = deadline
        self._until = now + SHARD_SECONDS
        if deadline is not None:
            left = deadline - now
            leave = min(LEAVE_SHARE * left, LEAVE_SECONDS) if router.partial is contract.Partial.ALLOW else 0.0
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
        return b"%bX-Request-Timeout-Ms: %d\r\n\r\n" % (self._headers, left), self._body

    def answered(self, shard: Shard, reply: Reply, part: Part | None) -> None:
        """One more."""
        self.parts[shard.number] = reply, part
        self._held += len(reply.body)
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
        hits = self._outcome_of.queries * (self._plan.k + LINE_HITS) * len(self.parts)
        if hits <= LOOP_HITS and self._held <= LOOP_BYTES:
            try:
                self._end(self._merged())
            except Exception as error:
                self._end(error)
            return

        def done(future: asyncio.Future[Response]) -> None:
            self._end(future.exception() or future.result())

        asyncio.get_running_loop().run_in_executor(self._router.executor, self._merged).add_done_callback(done)

    def _merged(self) -> Response:
        """On the event loop or a thread. Raises Problem."""
        parts, missing = {}, dict(self.missing_ones)
        for number, (reply, part) in self.parts.items():
            try:
                parts[number] = part if part is not None else part_of(reply, self.question)
            except MalformedError:
                missing[number] = Reason.FAILED
        numbers = sorted(missing)
        if numbers and (not parts or self._router.partial is contract.Partial.REFUSE):
            raise self._refusal(numbers, missing)
        in_order = [parts[number] for number in sorted(parts)]
        router = self._router
        with Work(router.budget) as work:
            return answer(
                in_order,
                self._plan,
                self._outcome_of,
                work,
                revision=router.revision,
                began=self.began,
                query_ids=router.query_ids,
                missing=numbers,
                fault=self._at_fault(set(missing.values())),
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
        self.room.give(self._held)
        # A pod that still owes an answer keeps this alive, for as long as it likes.
        self._held, self.parts, self._body = 0, {}, b""
        self._router.under_way -= 1
        self.resolve(outcome)


def written(plan: SearchPlan, vectors: Vectors, *, json: bool) -> tuple[bytes, bytes, bytes]:
    """Line, headers and body of the request that every shard gets. `json`: whether the answer shall be."""
    count = 1 if vectors.ndim == 1 else len(vectors)
    fields = [f"dimension={vectors.shape[-1]}", f"k={plan.k}"]
    if plan.segment != contract.OTHER_SEGMENT:
        fields.append(f"segment={quote(plan.segment, safe='')}")
    fields += [f"params.{name}={value}" for name, value in plan.asked.get("params", {}).items()]
    if plan.min_score is not None:
        fields.append(f"minScore={_LOWEST}")
    if plan.include_metadata:
        fields.append("include=metadata")
    if "filter" in plan.asked:
        fields.append(f"filter={quote(orjson.dumps(plan.asked['filter']), safe='')}")
    line = f"POST /v1/search?{'&'.join(fields)}".encode()
    accept = b"application/json" if json else b"application/octet-stream"
    if len(line) <= LONGEST_LINE:
        body = vectors.tobytes()
        return line, _headers(b"application/octet-stream", accept, body), body
    document = {
        "vectors": vectors.reshape(count, -1),
        "k": plan.k,
        "segment": plan.segment,
        "params": plan.asked.get("params", {}),
        "filter": plan.asked["filter"],
        "include": ["metadata"] if plan.include_metadata else [],
        "minScore": None if plan.min_score is None else float(_LOWEST),
    }
    body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"POST /v1/search", _headers(b"application/json", accept, body), body


def _headers(kind: bytes, accept: bytes, body: bytes) -> bytes:
    return b"Content-Type: %b\r\nAccept: %b\r\nContent-Length: %d\r\n" % (kind, accept, len(body))


def _named(numbers: Sequence[int], of: int) -> str:
    return f"shard{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))} of {of}"
