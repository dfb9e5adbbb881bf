"""Searches in words: texts that wait are encoded together, those of each policy by themselves, by threads of their own,
and then searched as vectors.

Vector queries never come here, so what the model takes is only ever taken from the pod's cores, never from a queue that
they stand in. What waits is bounded in texts and in time, as in pool.py, with a turn for each policy (turns.py); there
is no batching delay.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...contract import Metric
from ...index.faults import fault
from ...text.encoder import Encoder, EncoderError, EncoderUnavailableError, Side
from ..evidence.recorder import Outcome
from ..http.limits import ENCODED_BYTES, ENCODED_ENTRIES, MAX_TEXT_CHARACTERS, MAX_TEXTS, QUEUE_TEXTS
from ..http.messages import Deferred, Problem, overload
from .asked import Encoding
from .plan import SearchPlan
from .pool import QUEUE_SECONDS, deadline_exceeded
from .reader import ReadTexts
from .turns import Turns
from .vectors import Vectors

_ENTRY_BYTES = 256
"""What an entry of the cache takes besides its text and its numbers, about."""
_log = logging.getLogger(__name__)


def encodes(encoder: Encoder) -> dict[str, int]:
    """documents.Encodes."""
    return {"maxTokens": encoder.max_tokens, "texts": MAX_TEXTS, "textCharacters": MAX_TEXT_CHARACTERS}


@dataclass(frozen=True, slots=True)
class EncodedText:
    """One text as a vector."""

    vector: Vectors
    """float32 [d]"""
    truncated: bool
    usable: bool = True
    """Whether it can be searched for."""


class Search(Protocol):
    """SearchService.ask, or that of a Reranking, or of a router."""

    def __call__(
        self,
        plan: SearchPlan,
        vectors: Vectors,
        outcome: Outcome,
        began: float,
        seconds: float | None,
        encoding: Encoding | None = None,
    ) -> Deferred: ...


class _Share:
    """What is kept for one policy, what was asked for longest ago first."""

    __slots__ = ("kept", "nbytes")

    def __init__(self) -> None:
        self.kept: OrderedDict[str, EncodedText] = OrderedDict()
        self.nbytes = 0


class TextCache:
    """Vectors by policy and text, bounded in entries and bytes; what was asked for longest ago by whoever has most goes
    first. For one thread."""

    def __init__(self, entries: int = ENCODED_ENTRIES, nbytes: int = ENCODED_BYTES) -> None:
        self._entries, self._most = entries, nbytes
        self._shares: dict[bytes, _Share] = {}
        self._count = 0
        self.nbytes = 0

    def __len__(self) -> int:
        return self._count

    def get(self, text: str, holder: bytes = b"") -> EncodedText | None:
        """What was kept of a text that this holder, or one of the same policy, has asked for."""
        share = self._shares.get(holder)
        found = share.kept.get(text) if share is not None else None
        if share is not None and found is not None:
            share.kept.move_to_end(text)
        return found

    def put(self, text: str, encoded: EncodedText, holder: bytes = b"") -> None:
        """Keep it, and let go of others."""
        if not encoded.usable or self.get(text, holder) is not None:
            return
        share = self._shares.setdefault(holder, _Share())
        share.kept[text] = encoded
        self._add(share, 1, _cost(text, encoded))
        while self._count > self._entries or self.nbytes > self._most:
            name, largest = max(self._shares.items(), key=lambda one: one[1].nbytes)
            self._add(largest, -1, -_cost(*largest.kept.popitem(last=False)))
            if not largest.kept:
                del self._shares[name]

    def _add(self, share: _Share, count: int, nbytes: int) -> None:
        self._count += count
        self.nbytes += nbytes
        share.nbytes += nbytes


def _cost(text: str, encoded: EncodedText) -> int:
    return _ENTRY_BYTES + 4 * len(text) + encoded.vector.nbytes


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A ticket's plan, and its texts as vectors, in their order."""

    plan: SearchPlan
    texts: tuple[EncodedText, ...]


@dataclass(slots=True, eq=False)
class _Ticket:
    """Texts that wait. Monotonic times: `queued`, and `deadline`, after which nobody wants the answer."""

    read: ReadTexts
    texts: tuple[str, ...]
    queued: float
    deadline: float | None
    then: Callable[[_Encoded | BaseException], None]
    """Told once, on the event loop."""
    timer: asyncio.TimerHandle | None = None
    told: bool = False

    def tell(self, outcome: _Encoded | BaseException) -> None:
        """Only the first outcome counts."""
        if self.told:
            return
        self.told = True
        if self.timer is not None:
            self.timer.cancel()
        self.then(outcome)


class TextSearches:
    """Answers searches in words. `ask` and `close` belong to the event loop's thread, and there answers arrive."""

    def __init__(
        self,
        encoder: Encoder,
        search: Search,
        metric: Metric,
        threads: int,
        *,
        queue_texts: int = QUEUE_TEXTS,
        queue_seconds: float = QUEUE_SECONDS,
    ) -> None:
        self._encoder, self._search, self._metric = encoder, search, metric
        self._loop = asyncio.get_running_loop()
        self._queue: Turns[_Ticket] = Turns(queue_texts)
        self._queue_seconds = queue_seconds
        self._cache = TextCache()
        self._done: deque[tuple[_Ticket, _Encoded | BaseException]] = deque()
        self._threads = [threading.Thread(target=self._work, name=f"encode-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Texts that wait to be encoded."""
        return self._queue.weight

    def ask(self, read: ReadTexts, outcome: Outcome, began: float, seconds: float | None) -> Deferred:
        """Encode, and search. `seconds`: what the client allows, from `began` on. Raises Problem 400, 503 or 504."""
        known = {text: found for text in read.texts if (found := self._cache.get(text, read.holder)) is not None}
        missing = tuple(dict.fromkeys(text for text in read.texts if text not in known))
        if not missing and read.known is not None:
            return self._ask(read, read.make(), known, outcome, began, seconds)
        answer = Deferred()

        def go_on(done: _Encoded | BaseException) -> None:
            if isinstance(done, BaseException):
                answer.resolve(done)
                return
            for text, one in zip(missing, done.texts, strict=True):
                self._cache.put(text, one, read.holder)
                known[text] = one
            try:
                self._ask(read, done.plan, known, outcome, began, seconds).then(answer.resolve)
            except Exception as error:  # also what nobody expects: the connection waits for an answer
                answer.resolve(error)

        self._submit(read, missing, None if seconds is None else began + seconds, go_on)
        return answer

    def close(self) -> None:
        """End the threads once the queue is empty; does not wait for them."""
        self._queue.close()

    def _ask(
        self,
        read: ReadTexts,
        plan: SearchPlan,
        known: dict[str, EncodedText],
        outcome: Outcome,
        began: float,
        seconds: float | None,
    ) -> Deferred:
        found = [known[text] for text in read.texts]
        places = [f"texts[{number}]" for number in range(len(found))] if read.several else ["text"]
        cut = tuple(place for place, one in zip(places, found, strict=True) if one.truncated)
        vectors = np.stack([one.vector for one in found]) if read.several else found[0].vector
        encoding = Encoding(time.monotonic() - began, cut, self._encoder.max_tokens, read.texts, read.holder)
        return self._search(plan, vectors, outcome, began, seconds, encoding)

    def _submit(
        self,
        read: ReadTexts,
        texts: tuple[str, ...],
        deadline: float | None,
        then: Callable[[_Encoded | BaseException], None],
    ) -> None:
        now = time.monotonic()
        if deadline is not None and now >= deadline:
            raise deadline_exceeded()
        ticket = _Ticket(read, texts, now, deadline, then)
        gone = self._queue.put(ticket, read.holder, len(texts))
        if gone is None:
            raise overload(f"{self._queue.weight} texts are waiting to be encoded")
        for one in gone:
            one.tell(overload("others' texts were waiting to be encoded, too"))
        if deadline is not None:
            ticket.timer = self._loop.call_later(deadline - now, ticket.tell, deadline_exceeded())

    def _deliver(self) -> None:
        while self._done:
            ticket, outcome = self._done.popleft()
            ticket.tell(outcome)

    # ------------------------------------------------------------ on threads

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            tickets = [first, *self._gather(len(first.texts))]
            for some in _turns(tickets):
                self._done.extend(zip(some, self._encode(some), strict=True))
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:
                    return  # the loop is closed: the process ends

    def _gather(self, texts: int) -> list[_Ticket]:
        """This thread's share of what waits, as far as it goes into one call with so many texts."""
        tickets: list[_Ticket] = []
        share = len(self._queue) // len(self._threads)
        while texts < MAX_TEXTS and len(tickets) < share:
            ticket = self._queue.get_now()
            if ticket is None:
                break
            tickets.append(ticket)
            texts += len(ticket.texts)
        return tickets

    def _encode(self, tickets: Sequence[_Ticket]) -> list[_Encoded | BaseException]:
        """What becomes of each ticket. All that are still wanted are encoded by one call."""
        plans = [self._plan(ticket) for ticket in tickets]
        texts = dict.fromkeys(
            text for one, plan in zip(tickets, plans, strict=True) if isinstance(plan, SearchPlan) for text in one.texts
        )
        try:
            known = self._vectors(tuple(texts))
        except Exception as error:  # of the model; whatever it is, every search that wants it is answered
            failed = _unavailable(error) if isinstance(error, EncoderUnavailableError) else _failed(error)
            return [failed if isinstance(plan, SearchPlan) else plan for plan in plans]
        return [
            self._encoded(one, plan, known) if isinstance(plan, SearchPlan) else plan
            for one, plan in zip(tickets, plans, strict=True)
        ]

    @staticmethod
    def _encoded(ticket: _Ticket, plan: SearchPlan, known: dict[str, EncodedText]) -> _Encoded | Problem:
        """What was encoded for a ticket. A text that a model fails at is no fault of the revision: 422."""
        for text in ticket.texts:
            if not known[text].usable:
                place = f"texts[{ticket.read.texts.index(text)}]" if ticket.read.several else "text"
                detail = "the encoder of this index makes no vector of this text that can be searched for"
                remedy = "say it in other words"
                return Problem(422, "TextNotEncoded", detail, field=place, value=text, remedy=remedy)
        return _Encoded(plan, tuple(known[text] for text in ticket.texts))

    def _plan(self, ticket: _Ticket) -> SearchPlan | BaseException:
        """The plan of a ticket, or why nothing is searched for it."""
        now = time.monotonic()
        if ticket.deadline is not None and now >= ticket.deadline:
            return deadline_exceeded()
        if now - ticket.queued > self._queue_seconds:
            return overload(f"the text waited longer than {self._queue_seconds:g} s for its turn")
        try:
            return ticket.read.make()
        except Exception as error:  # a Problem of this request, or a bug: told to whoever asked
            return error

    def _vectors(self, texts: Sequence[str]) -> dict[str, EncodedText]:
        if not texts:
            return {}
        encoded = self._encoder.encode(texts, Side.QUERY)
        vectors = encoded.vectors
        sure = fault(vectors, self._metric) is None
        usable = [sure or fault(vectors[n : n + 1], self._metric) is None for n in range(len(texts))]
        rows = zip(texts, vectors, encoded.truncated, usable, strict=True)
        return {text: EncodedText(vector.copy(), cut, good) for text, vector, cut, good in rows}


def _turns(tickets: Sequence[_Ticket]) -> list[list[_Ticket]]:
    """What is encoded together: only texts of one policy, so that nobody's long ones keep those of others waiting. Who
    has least comes first."""
    turns: dict[bytes, list[_Ticket]] = {}
    for ticket in tickets:
        turns.setdefault(ticket.read.holder, []).append(ticket)
    return sorted(turns.values(), key=lambda some: sum(len(text) for one in some for text in one.texts))


def _unavailable(error: EncoderUnavailableError) -> Problem:
    """503 with Retry-After: queries that are vectors go on."""
    _log.warning("the encoder cannot be asked", extra={"problem": str(error)[:300]})
    return Problem(
        503,
        "EncoderUnavailable",
        "the encoder of this index cannot be asked now; queries that are vectors are answered",
        field="text",
        remedy="retry after the seconds named in Retry-After, or send the vector",
        headers=((b"Retry-After", b"%d" % math.ceil(error.retry_after)),),
    )


def _failed(error: Exception) -> Problem:
    """500: the text is no reason for a model to fail."""
    _log.error(
        "the encoder failed",
        exc_info=None if isinstance(error, EncoderError) else error,
        extra={"problem": str(error)[:300]},
    )
    return Problem(
        500,
        "EncoderFailed",
        "the encoder of this index gave no usable vector; the searcher's log says why",
        field="text",
        remedy="send the vector instead",
    )
