"""Evidence from searchers, leases to them, over their admin ports (admin_port.py has the bounds of one exchange;
pairs.py is about shadows, source_looks.py about the source, fresh_looks.py about fresh rows).

Nobody waits for pods here: who asks gets a Future. A look has DEADLINE_SECONDS for all pods of an index, pages
included. What is not known by then is silence, and the next look goes on from there. Soaks, watches and leases have
lanes of their own, and the shortest answers are read first (reader.py), so that long ones hold up nobody else's.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from vectorindex_operator.adapters.admin_port import DEADLINE_SECONDS, AdminPort, Answer, Call, Lane
from vectorindex_operator.adapters.evidence_answers import read_columns, read_rows
from vectorindex_operator.adapters.evidence_cache import ROW_BYTES, EvidenceCache, PodKey
from vectorindex_operator.adapters.fresh_looks import look_at_fresh
from vectorindex_operator.adapters.orders import post
from vectorindex_operator.adapters.pairs import look_at_pairs, mirror
from vectorindex_operator.adapters.reader import Reader
from vectorindex_operator.adapters.shares import Share
from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.adapters.source_looks import look_at_source
from vectorindex_operator.core.fresh_looks import FreshAnswer, FreshQuestion
from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_operator.core.judging.evidence import PodCounts, PodEvidence
from vectorindex_operator.core.judging.questions import Purpose, Question
from vectorindex_operator.core.judging.shadow import PodPairs
from vectorindex_operator.core.source_poll import SourceAnswer, SourceQuestion
from vectorindex_searcher.contract import (
    ADMIN_PORT,
    EVIDENCE_ANSWER_BYTES,
    EVIDENCE_COLUMNS_TYPE,
    EVIDENCE_CURSOR_HEADER,
    FRESH_PATH,
    POINT_PATH,
    RING_SECONDS,
    FreshOrder,
    LeaseState,
    MirrorLease,
    PointOrder,
    Target,
    TrafficLease,
)

log = logging.getLogger(__name__)

LEASE_PATH = "/v1/lease"
READ_SECONDS = 2.0
"""CPU time that reading the answers of one look may take; who is left is asked on."""
TURN_BYTES = 64 << 10
"""Short answers are read together up to this."""
LOOK_SECONDS = 10.0
"""All of a look, with the time that its answers wait to be read."""
_LEASE_ANSWER_BYTES = 64 << 10
_ANOTHER_POD = 421
_SHORTEST_SPAN = 60.0
_MOST_SPANS = 4096
_MOST_PAGES = 64
"""An hour of every segment takes 14: who has always more to tell is no searcher."""


@dataclass(slots=True)
class _Look:
    """One look, and what it has cost so far: time, bytes that were read, and of its share the rows that are held."""

    to: Addressee
    question: Question
    share: Share
    began: float = field(default_factory=time.monotonic)
    read_seconds: float = 0.0
    read_bytes: int = 0
    full: bool = False
    rows: dict[PodKey, int] = field(default_factory=dict)
    """Of each pod, those that were paid for."""

    def pays(self, key: PodKey, rows: int) -> bool:
        """Whether so many rows of a pod may be held; else nobody else's are either."""
        more = max(0, rows - self.rows.get(key, 0))
        if not self.share.take(more * ROW_BYTES):
            self.full = True
            return False
        self.rows[key] = self.rows.get(key, 0) + more
        return True

    @property
    def over(self) -> bool:
        late = time.monotonic() - self.began >= LOOK_SECONDS
        return late or self.full or self.read_seconds >= READ_SECONDS


@dataclass(slots=True)
class HttpSearchers:
    """Implements reconcile.ports.Searchers. A pod that does not answer in time is silent; that is no exception."""

    signer: Signer = field(default_factory=Signer)
    port: AdminPort = field(default_factory=AdminPort)
    cache: EvidenceCache = field(default_factory=EvidenceCache)
    admin_port: int = ADMIN_PORT
    _reader: Reader = field(default_factory=Reader)
    _spans: dict[PodKey, float] = field(default_factory=dict)
    """Of pods that know rows only and have more of them than an answer may hold: seconds to ask for."""
    _telling: dict[Target, tuple[LeaseState, asyncio.Task[None]]] = field(default_factory=dict)
    """What the pods of a revision are being told. On the event loop."""

    def evidence(
        self, to: Addressee, pods: Iterable[tuple[str, str]], question: Question
    ) -> Future[tuple[PodEvidence, ...]]:
        look = _Look(to, question, self.port.share())
        asked = {PodKey(to.target.index_uid, question.revision, name): address for name, address in pods}
        answered = self.port.start(self._answered(look, asked))
        # What the answers hold is held as long as somebody has them.
        weakref.finalize(answered, look.share.close).atexit = False
        return answered

    async def _answered(self, look: _Look, asked: dict[PodKey, str]) -> tuple[PodEvidence, ...]:
        told: dict[PodKey, PodEvidence] = {}
        self.cache.begin(look.to.target.index_uid, urgent=look.question.purpose is not Purpose.WATCH)
        try:
            waiting = await self._asked(look, asked, told)
        finally:
            self.cache.end(look.to.target.index_uid)
        for key in waiting:
            told[key] = PodEvidence(key.pod, None, time.time(), "it has more to tell than one look takes; asked on")
        for key, one in told.items():
            if one.problem:
                log.info("no evidence from %s: %s", key.pod, one.problem)
        return tuple(told[key] for key in asked)

    async def _asked(self, look: _Look, asked: dict[PodKey, str], told: dict[PodKey, PodEvidence]) -> list[PodKey]:
        """Ask page by page, and note what each pod told; returns those that have not told all."""
        until = time.monotonic() + DEADLINE_SECONDS
        # Whoever is last when a look has taken all that it may is first another time.
        turn = random.randrange(max(1, len(asked)))  # noqa: S311 - spreads turns, guards nothing
        waiting = [*list(asked)[turn:], *list(asked)[:turn]]
        for _ in range(_MOST_PAGES):
            left = until - time.monotonic()
            if not waiting or left <= 0 or look.over:
                break
            calls = [self._call(look, key, asked[key]) for key in waiting]
            lane = Lane.WATCH if look.question.purpose is Purpose.WATCH else Lane.SOAK
            answers = await self.port.ask(calls, lane, look.share, largest=EVIDENCE_ANSWER_BYTES, seconds=left)
            waiting = await self._read(look, list(zip(waiting, answers, strict=True)), told)
        return waiting

    async def _read(
        self, look: _Look, answers: list[tuple[PodKey, Answer]], told: dict[PodKey, PodEvidence]
    ) -> list[PodKey]:
        """Note what each pod said; returns those that have more to tell, or that came when the look was over."""
        more = []
        for batch in _turns(answers):
            look.read_bytes += sum(len(answer.body) for _, answer in batch)
            read = partial(self._all_understood, look, batch)
            for (key, answer), one in zip(batch, await self._reader.read(look.read_bytes, read), strict=True):
                look.share.give_back(len(answer.body))
                if one is None:
                    more.append(key)
                else:
                    told[key] = one
        return more

    def _all_understood(self, look: _Look, batch: list[tuple[PodKey, Answer]]) -> list[PodEvidence | None]:
        return [self._understood(look, key, answer) for key, answer in batch]

    def _understood(self, look: _Look, key: PodKey, answer: Answer) -> PodEvidence | None:
        """What a pod said; None: it has more to tell, or came when the look was over."""
        if look.over:
            return None
        began = time.thread_time()
        counts, problem = None, answer.problem
        try:
            if answer.status == 200:
                counts = self._counts(look, key, answer)
                if counts is None:
                    return None
            elif answer.status == _ANOTHER_POD:
                counts = _foreign("another")
            elif answer.status:
                problem = answer.refusal
        except ValueError as error:
            self.cache.forget(key)
            problem = f"what it says is no evidence: {str(error)[:200]}"
        finally:
            look.read_seconds += time.thread_time() - began
        if answer.too_large:
            if len(self._spans) >= _MOST_SPANS:
                self._spans.clear()
            self._spans[key] = max(_SHORTEST_SPAN, self._spans.get(key, RING_SECONDS) / 2)
        return PodEvidence(key.pod, counts, answer.at, problem)

    def _counts(self, look: _Look, key: PodKey, answer: Answer) -> PodCounts | None:
        """What a pod has counted; None: there is more of it."""
        if answer.content_type != EVIDENCE_COLUMNS_TYPE:
            counts = read_rows(answer.body)
            return counts if look.pays(key, len(counts.counted)) else None
        page = read_columns(answer.body)
        if page.revision != key.revision:
            return _foreign(page.revision)
        self.cache.take(key, page, self.cache.begins(key, look.question.since))
        if not look.pays(key, look.rows.get(key, 0) + len(page.bucket)) or page.more:
            return None
        counts = self.cache.counts(key, page, self.cache.begins(key, look.question.since))
        return counts if look.pays(key, len(counts.counted)) else None

    def _call(self, look: _Look, key: PodKey, address: str) -> Call:
        to, question = look.to, look.question
        # It reads this by its own clock, which may differ by as much as it puts up with in a signature.
        began = self.cache.begins(key, question.since)
        since = max(began, time.time() - self._spans[key]) if key in self._spans else began
        path = f"/v1/evidence?since={since:.0f}"
        headers = {"Accept": f"{EVIDENCE_COLUMNS_TYPE}, application/json", **self.signer.headers(to, "GET", path)}
        cursor = self.cache.cursor(key, began)
        if cursor.isascii() and cursor.isprintable() and cursor:
            headers[EVIDENCE_CURSOR_HEADER] = cursor
        return Call(address, self.admin_port, "GET", path, headers)

    # ------------------------------------------------------------ shadows

    def pairs(self, to: Addressee, pods: Iterable[tuple[str, str]], shadow: str) -> Future[tuple[PodPairs, ...]]:
        share = self.port.share()
        look = look_at_pairs(self.port, self._reader, self.signer, self.admin_port, to, list(pods), shadow, share)
        answered = self.port.start(look)
        weakref.finalize(answered, share.close).atexit = False
        return answered

    def mirror(self, to: Addressee, addresses: Iterable[str], receiver: Addressee, lease: MirrorLease) -> Future[None]:
        return self.port.start(mirror(self.port, self.signer, self.admin_port, to, list(addresses), receiver, lease))

    # ------------------------------------------------------------ operating points

    def order(self, to: Addressee, addresses: Iterable[str], order: PointOrder | FreshOrder) -> Future[None]:
        path = POINT_PATH if isinstance(order, PointOrder) else FRESH_PATH
        return self.port.start(post(self.port, self.signer, self.admin_port, to, list(addresses), path, order))

    # ------------------------------------------------------------ the source

    def source(self, to: Addressee, question: SourceQuestion) -> Future[SourceAnswer]:
        return self.port.start(look_at_source(self.port, self.signer, self.admin_port, to, question))

    def fresh(self, to: Addressee, question: FreshQuestion) -> Future[FreshAnswer]:
        return self.port.start(look_at_fresh(self.port, self.signer, self.admin_port, to, question))

    # ------------------------------------------------------------ leases

    def tell(self, to: Addressee, addresses: Iterable[str], lease: TrafficLease) -> Future[None]:
        return self.port.start(self._tell(to, list(addresses), lease))

    async def _tell(self, to: Addressee, addresses: list[str], lease: TrafficLease) -> None:
        """One such call to a revision at a time; what was said before and is no longer so is said no further."""
        if to.target in self._telling:
            state, under_way = self._telling[to.target]
            if state == lease.state:
                return
            under_way.cancel()
        task = asyncio.ensure_future(self._told(to, addresses, lease))
        self._telling[to.target] = lease.state, task
        try:
            await asyncio.wait([task])
        finally:
            if self._telling.get(to.target) == (lease.state, task):
                del self._telling[to.target]

    async def _told(self, to: Addressee, addresses: list[str], lease: TrafficLease) -> None:
        body = lease.model_dump_json(by_alias=True).encode()
        headers = {"Content-Type": "application/json", **self.signer.headers(to, "POST", LEASE_PATH, body)}
        calls = [Call(address, self.admin_port, "POST", LEASE_PATH, headers, body) for address in addresses]
        share = self.port.share()
        try:
            answers = await self.port.ask(calls, Lane.LEASE, share, largest=_LEASE_ANSWER_BYTES)
        finally:
            share.close()
        for call, answer in zip(calls, answers, strict=True):
            if answer.status != 200:
                log.info("lease not taken by %s: %s", call.address, answer.problem or answer.refusal)


def _turns(answers: list[tuple[PodKey, Answer]]) -> Iterator[list[tuple[PodKey, Answer]]]:
    """What is read in one turn: a long answer, or a few short ones. Each is forgotten once it was read."""
    answers.reverse()
    while answers:
        batch, size = [answers.pop()], 0
        while answers and size + len(answers[-1][1].body) <= TURN_BYTES:
            size += len(answers[-1][1].body)
            batch.append(answers.pop())
        yield batch


def _foreign(revision: str) -> PodCounts:
    """A pod of another revision has this address now: it is told apart from one that says nothing."""
    return PodCounts(revision, time.time(), None, ())
