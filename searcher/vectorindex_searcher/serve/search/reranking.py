"""Answers to queries in words, in the order of a cross-encoder; in that of their vectors when there is no time for it.

What it takes is taken from threads and a queue of its own: a search for a vector never comes here, and one in words
waits its budget and no longer. The vectors' answer is there before anything is reordered, and all that is evidence
comes of it (docs/adr/0077-reranking-has-a-budget.md).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from ... import contract
from ...index.engine import Engine
from ...text.encoder import EncoderError
from ...text.reordering import order_of
from ...text.reranker import Reranker
from ..evidence.recorder import Outcome
from ..http.messages import Deferred, Response
from ..tracing.context import Stage
from .asked import Candidates, Encoding, PendingSearch, Vectors, Written, hits_of
from .plan import SearchPlan
from .pool import SearchPool
from .service import SearchService
from .turns import Turns

QUEUE_REQUESTS = 64
"""That may wait for a thread, of all policies; each holds its candidates' rows, and waits its budget at most."""
DEADLINE_SHARE = 0.5
"""Of what is left of a client's own deadline: it shall have its answer, in whatever order."""
_RERANKED = contract.RERANKED_HEADER.encode()
_SEARCHED = Response(200, b"")
"""What the pool is told of a search whose answer is not yet made."""
_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Ticket:
    """A search that was made. Monotonic times: `began`, when its candidates were there, and `until`."""

    asked: PendingSearch
    found: Candidates
    answer: Deferred
    began: float
    until: float
    timer: asyncio.TimerHandle | None = None
    told: bool = False
    """Written on the event loop; a thread that reads it too early works in vain, no more."""


class Reranking:
    """Searches in words, reordered. `ask` and `close` belong to the event loop's thread, and there answers arrive."""

    def __init__(
        self,
        service: SearchService,
        pool: SearchPool,
        engine: Engine,
        model: Reranker,
        task: contract.RerankTask,
        threads: int,
        *,
        queue_requests: int = QUEUE_REQUESTS,
    ) -> None:
        """`threads`: queries that are reordered at once."""
        self._service, self._pool, self._engine, self._model, self._task = service, pool, engine, model, task
        self._loop = asyncio.get_running_loop()
        self._queue: Turns[_Ticket] = Turns(queue_requests)
        self._done: deque[tuple[_Ticket, Written | None]] = deque()
        self._threads = [threading.Thread(target=self._work, name=f"rerank-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def ask(
        self,
        plan: SearchPlan,
        vectors: Vectors,
        outcome: Outcome,
        began: float,
        seconds: float | None,
        encoding: Encoding | None = None,
    ) -> Deferred:
        """As SearchService.ask, for vectors of texts. Raises Problem 503 or 504."""
        deadline = None if seconds is None else began + seconds
        asked = PendingSearch(plan, vectors, outcome, began, deadline, encoding)
        answer = Deferred()
        found: list[Candidates] = []

        def search() -> Response:
            found.append(self._service.candidates(asked, self._task.candidates))
            return _SEARCHED

        def searched(said: Response | BaseException) -> None:
            if isinstance(said, BaseException):
                answer.resolve(said)
                return
            try:
                self._submit(asked, found[0], answer)
            except Exception as error:  # also what nobody expects: the connection waits for an answer
                answer.resolve(error)

        self._pool.submit(search, outcome.queries, deadline).then(searched)
        return answer

    def close(self) -> None:
        """End the threads once the queue is empty; does not wait for them."""
        self._queue.close()

    # ------------------------------------------------------------ on the event loop

    def _submit(self, asked: PendingSearch, found: Candidates, answer: Deferred) -> None:
        now = time.monotonic()
        budget = self._task.budget_seconds
        if asked.deadline is not None:
            budget = min(budget, DEADLINE_SHARE * (asked.deadline - now))
        ticket = _Ticket(asked, found, answer, now, now + budget)
        if not found.whole:
            self._tell(ticket, found.written, reranked=False)
        elif max(hits_of(found.scores, found.rows, asked.plan.min_score)) < 2 or not any(asked.outcome.hits):
            self._tell(ticket, found.written, reranked=True)  # one row has one order
        elif budget <= 0:
            self._late(ticket)
        else:
            self._wait(ticket, budget)

    def _wait(self, ticket: _Ticket, budget: float) -> None:
        """For a turn of its policy, as long as the budget lasts."""
        encoding = ticket.asked.encoding
        gone = self._queue.put(ticket, encoding.holder if encoding is not None else b"")
        if gone is None:
            self._late(ticket)
            return
        ticket.timer = self._loop.call_later(budget, self._late, ticket)
        for one in gone:  # the newest of whoever has most
            self._late(one)

    def _late(self, ticket: _Ticket) -> None:
        """The budget has run out, or there is no room to wait for a turn."""
        self._tell(ticket, ticket.found.written, reranked=False)

    def _deliver(self) -> None:
        while self._done:
            ticket, written = self._done.popleft()
            self._tell(ticket, ticket.found.written if written is None else written, reranked=written is not None)

    def _tell(self, ticket: _Ticket, written: Written, *, reranked: bool) -> None:
        """Only the first answer counts."""
        if ticket.told:
            return
        ticket.told = True
        if ticket.timer is not None:
            ticket.timer.cancel()
        ticket.asked.outcome.reranked = reranked
        now, arrived = time.monotonic(), ticket.asked.began
        milliseconds = round((now - ticket.began) * 1e3, 3)
        how: Mapping[str, object] = {**ticket.found.how, "reranked": reranked, "rerankMs": milliseconds}
        response = self._service.wrapped(ticket.asked, written, how)
        response.headers = (*response.headers, (_RERANKED, b"true" if reranked else b"false"))
        response.stages = (*response.stages, Stage("rerank", ticket.began - arrived, now - arrived))
        ticket.answer.resolve(response)

    # ------------------------------------------------------------ on threads

    def _work(self) -> None:
        while (ticket := self._queue.get()) is not None:
            if ticket.told:
                continue
            written: Written | None = None
            try:
                written = self._reordered(ticket)
            except EncoderError as error:
                _log.error("the reranker failed", extra={"problem": str(error)[:300]})
            except Exception:  # whatever it is, the answer in the order of vectors is there
                _log.exception("an answer could not be reordered")
            self._done.append((ticket, written))
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                return  # the loop is closed: the process ends

    def _reordered(self, ticket: _Ticket) -> Written | None:
        """The results in their new order; None: there was no time for it."""
        asked, found = ticket.asked, ticket.found
        assert asked.encoding is not None  # only texts are asked here
        orders = []
        hits = hits_of(found.scores, found.rows, asked.plan.min_score)
        for number, (text, count) in enumerate(zip(asked.encoding.texts, hits, strict=True)):
            rows = found.rows[number, :count]
            order = order_of(self._model, self._task, asked.fresh or self._engine, text, rows, ticket.until)
            if order is None:
                return None
            orders.append(order)
        return self._service.reordered(asked, found, orders)
