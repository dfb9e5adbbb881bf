"""Evidence from searchers and leases to them, over their admin ports (admin_port.py has the bounds of one exchange).

A look has DEADLINE_SECONDS for all pods of an index, pages included. What is not known by then is silence, and the next
look goes on from there. Soaks, watches and leases have lanes of their own.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vectorindex_operator.adapters.admin_port import DEADLINE_SECONDS, AdminPort, Answer, Call, Lane
from vectorindex_operator.adapters.evidence_answers import read_columns, read_rows
from vectorindex_operator.adapters.evidence_cache import EvidenceCache, PodKey
from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_operator.core.judging.evidence import PodCounts, PodEvidence
from vectorindex_operator.core.judging.questions import Purpose, Question
from vectorindex_searcher.contract import (
    ADMIN_PORT,
    EVIDENCE_ANSWER_BYTES,
    EVIDENCE_COLUMNS_TYPE,
    EVIDENCE_CURSOR_HEADER,
    RING_SECONDS,
    TrafficLease,
)

log = logging.getLogger(__name__)

LEASE_PATH = "/v1/lease"
_LEASE_ANSWER_BYTES = 64 << 10
_ANOTHER_POD = 421
_SHORTEST_SPAN = 60.0
LOOK_ROWS = 120_000
"""Of all pods together, about 70 MB while they are parsed: five pods' busiest hour; who is left is asked on."""
_LONGEST_WORDS = 200
_MOST_SPANS = 4096
_MOST_PAGES = 64
"""An hour of every segment takes 14: who has always more to tell is no searcher."""


@dataclass(slots=True)
class _Look:
    """What one look may cost: its time, and the rows that are parsed and held at once."""

    until: float
    rows: int = 0

    @property
    def over(self) -> bool:
        return self.rows >= LOOK_ROWS or time.monotonic() >= self.until


@dataclass(slots=True)
class HttpSearchers:
    """Implements reconcile.ports.Searchers. A pod that does not answer in time is silent; that is no exception."""

    signer: Signer = field(default_factory=Signer)
    port: AdminPort = field(default_factory=AdminPort)
    cache: EvidenceCache = field(default_factory=EvidenceCache)
    admin_port: int = ADMIN_PORT
    _spans: dict[PodKey, float] = field(default_factory=dict)
    """Of pods that know rows only and have more of them than an answer may hold: seconds to ask for."""

    def evidence(self, to: Addressee, pods: Iterable[tuple[str, str]], question: Question) -> tuple[PodEvidence, ...]:
        index, look = to.target.index_uid, _Look(until=time.monotonic() + DEADLINE_SECONDS)
        asked = {PodKey(index, question.revision, name): address for name, address in pods}
        told: dict[PodKey, PodEvidence] = {}
        # Whoever is last when a look has taken all that it may is first another time.
        turn = random.randrange(max(1, len(asked)))  # noqa: S311 - spreads turns, guards nothing
        waiting = [*list(asked)[turn:], *list(asked)[:turn]]
        for _ in range(_MOST_PAGES):
            left = look.until - time.monotonic()
            if not waiting or left <= 0:
                break
            calls = [self._call(to, question, key, asked[key]) for key in waiting]
            lane = Lane.WATCH if question.purpose is Purpose.WATCH else Lane.SOAK
            answers = self.port.ask(calls, lane, largest=EVIDENCE_ANSWER_BYTES, seconds=left)
            waiting = self._take(question, look, dict(zip(waiting, answers, strict=True)), told)
        for key in waiting:
            told[key] = PodEvidence(key.pod, None, time.time(), "it had more to tell than came in time; asked on")
        self.cache.trim(index)
        for key, one in told.items():
            if one.problem:
                log.info("no evidence from %s: %s", key.pod, one.problem)
        return tuple(told[key] for key in asked)

    def tell(self, to: Addressee, addresses: Iterable[str], lease: TrafficLease) -> None:
        body = lease.model_dump_json(by_alias=True).encode()
        headers = {"Content-Type": "application/json", **self.signer.headers(to, "POST", LEASE_PATH, body)}
        calls = [Call(address, self.admin_port, "POST", LEASE_PATH, headers, body) for address in addresses]
        for call, answer in zip(calls, self.port.ask(calls, Lane.LEASE, largest=_LEASE_ANSWER_BYTES), strict=True):
            if answer.status != 200:
                log.info("lease not taken by %s: %s", call.address, answer.problem or _refusal(answer))

    def _call(self, to: Addressee, question: Question, key: PodKey, address: str) -> Call:
        since = max(question.since, time.time() - self._spans.get(key, RING_SECONDS))
        path = f"/v1/evidence?since={since:.0f}"
        headers = {"Accept": f"{EVIDENCE_COLUMNS_TYPE}, application/json", **self.signer.headers(to, "GET", path)}
        cursor = self.cache.cursor(key, question.since)
        if cursor.isascii() and cursor.isprintable() and cursor:
            headers[EVIDENCE_CURSOR_HEADER] = cursor
        return Call(address, self.admin_port, "GET", path, headers)

    def _take(
        self, question: Question, look: _Look, answers: Mapping[PodKey, Answer], told: dict[PodKey, PodEvidence]
    ) -> list[PodKey]:
        """Note what each pod said; returns those that have more to tell, or that came when the look was over."""
        more = []
        for key, answer in answers.items():
            if look.over:
                more.append(key)
                continue
            counts, problem = None, answer.problem
            try:
                if answer.status == 200 and answer.content_type == EVIDENCE_COLUMNS_TYPE:
                    page = read_columns(answer.body)
                    look.rows += len(page.bucket)
                    if page.revision == key.revision:
                        self.cache.take(key, page, question.since)
                        if page.more:
                            more.append(key)
                            continue
                        counts = self.cache.counts(key, page, question.since)
                    else:
                        counts = _foreign(page.revision)
                elif answer.status == 200:
                    counts = read_rows(answer.body)
                    look.rows += len(counts.counted)
                elif answer.status == _ANOTHER_POD:
                    counts = _foreign("another")
                elif answer.status:
                    problem = _refusal(answer)
            except ValueError as error:
                self.cache.forget(key)
                problem = f"what it says is no evidence: {str(error)[:200]}"
            if answer.too_large:
                if len(self._spans) >= _MOST_SPANS:
                    self._spans.clear()
                self._spans[key] = max(_SHORTEST_SPAN, self._spans.get(key, RING_SECONDS) / 2)
            told[key] = PodEvidence(key.pod, counts, time.time(), problem)
        return more


def _refusal(answer: Answer) -> str:
    """Why a pod does not take a request, in its own words as far as they are short and harmless."""
    return f"it answers with status {answer.status}: {answer.body[:_LONGEST_WORDS].decode(errors='replace')!r}"


def _foreign(revision: str) -> PodCounts:
    """A pod of another revision has this address now: it is told apart from one that says nothing."""
    return PodCounts(revision, time.time(), None, ())
