"""What users asked and were answered, put aside for another revision to answer again, as long as a lease says so.

Called on the way of every answer, so it never waits: without a lease one attribute is looked at; with one a query is
drawn or not, and appended to a queue that drops when it is full. Thread-safe. Knows no sockets.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ... import contract
from ..search.plan import SearchPlan
from .counts import PairRows
from .rates import Draw, Rates

QUEUE_QUERIES = 512
QUEUE_BYTES = 4 << 20
_QUERY_BYTES = 2048
"""What a query takes besides its vector."""


@dataclass(slots=True, eq=False)
class Answered:
    """A live query as it was answered. `asked`: as SearchPlan.asked; `min_score`: what it was answered with."""

    segment: str
    k: int
    asked: Mapping[str, Any]
    min_score: float | None
    vector: bytes
    """float32 [dimension], as the user gave it. Bytes, since it leaves as such, with many others at once."""
    rows: bytes
    """int64: its first answers, at most contract.SHADOW_ANSWERS; -1 where there is none."""
    scores: bytes
    """float32: theirs, as the user was told."""
    seconds: float
    bucket: int
    overall: bool
    deleted: str
    """Fingerprint of the deleted ids that were hidden."""


@dataclass(frozen=True, slots=True, eq=False)
class Mirroring:
    """A lease that holds. `key`: the shadow key of who is judged; `until`: monotonic."""

    revision: str
    addresses: tuple[str, ...]
    port: int
    key: str
    until: float
    rates: Rates
    counts: PairRows
    sender_judged: bool


class Search(Protocol):
    """A search that was answered. `began`: monotonic, when its request had arrived."""

    plan: SearchPlan
    began: float


MakeRates = Callable[[float, Sequence[str], float], Rates]
"""From a rate, segments, and now (monotonic)."""


class Mirror:
    """Takes leases and queries. `segments`: those that are declared, and `other`; `deleted`: the fingerprint of the ids
    that are hidden now; `clock`: unix seconds; `rates`: what draws; `processes`: of the pod, each of which has its part
    of the room."""

    def __init__(
        self,
        segments: Sequence[str] = (),
        dimension: int = 1,
        deleted: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        rates: MakeRates = Rates,
        processes: int = 1,
    ) -> None:
        self.lease: Mirroring | None = None
        """None: nothing is put aside."""
        self.counts: PairRows | None = None
        """Of the newest shadow, also when its lease has run out."""
        self.queue: deque[Answered] = deque()
        self._segments = tuple(dict.fromkeys((*segments, contract.OTHER_SEGMENT)))
        self._room = max(1, min(QUEUE_QUERIES, QUEUE_BYTES // (_QUERY_BYTES + 4 * dimension)) // processes)
        self._rates = rates
        self._deleted, self._clock, self._monotonic = deleted, clock, monotonic
        self._lock = threading.Lock()
        self._left_out: Counter[str] = Counter()
        self.results: Counter[str] = Counter()
        """Queries by what became of them: Answered, Unanswered, Dropped."""

    def take(self, lease: contract.MirrorLease, key: str, revision: str) -> None:
        """In place of the one before. `key`: its shadow key, opened; `revision`: our own."""
        now = self._monotonic()
        reference = lease.revision if lease.sender_judged else revision
        with self._lock:
            before = self.lease
            if self.counts is None or self.counts.shadow != lease.shadow:
                self.counts, before = PairRows(lease.shadow, reference), None
                self._left_out.clear()
            if not lease.max_per_second or not lease.addresses:
                self.lease = None
                return
            if before is not None and before.rates.per_second == lease.max_per_second:
                rates = before.rates
            else:
                rates = self._rates(lease.max_per_second, self._segments, now)
            self.lease = Mirroring(
                revision=lease.revision,
                addresses=lease.addresses,
                port=lease.port,
                key=key,
                until=now + lease.ttl_seconds,
                rates=rates,
                counts=self.counts,
                sender_judged=bool(lease.sender_judged),
            )

    def offer(
        self,
        asked: Sequence[Search],
        vectors: npt.NDArray[np.float32],
        rows: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float32],
    ) -> None:
        """Consider each of the queries that were just answered together: vectors float32 [n, dimension], rows int64
        [n, k], scores float32 [n, k]. Between two tokens, where most of them fall, hardly anything is done for one."""
        lease, now = self.lease, self._monotonic()
        if lease is None:
            return
        if now >= lease.until:
            self.end(lease)
            return
        rates = lease.rates
        # Of who sends and is judged, no answer but the first is compared.
        most = 1 if lease.sender_judged else contract.SHADOW_ANSWERS
        with self._lock:
            for number, one in enumerate(asked):
                segment = one.plan.segment
                drawn = rates.draw(segment, now) if now >= rates.dry_until else None
                if drawn is None or len(self.queue) >= self._room:
                    self._left_out[segment] += 1
                else:
                    found = rows[number, :most], scores[number, :most]
                    self.queue.append(self._answered(one, vectors[number], *found, now, drawn))

    def offer_one(
        self,
        asked: Search,
        vectors: npt.NDArray[np.float32],
        rows: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float32],
    ) -> None:
        """Consider a request for n queries, of which any one is taken; as `offer`."""
        number = random.randrange(len(vectors))  # noqa: S311 - no secret
        part = slice(number, number + 1)
        self.offer((asked,), vectors[part], rows[part], scores[part])

    def _answered(
        self,
        asked: Search,
        vector: npt.NDArray[np.float32],
        rows: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float32],
        now: float,
        drawn: Draw,
    ) -> Answered:
        """Copies: what is given are parts of a request's body and of a whole group's answers."""
        plan = asked.plan
        return Answered(
            segment=plan.segment,
            k=plan.k,
            asked=plan.asked,
            min_score=plan.min_score,
            vector=vector.tobytes(),
            rows=rows[: plan.k].tobytes(),
            scores=scores[: plan.k].tobytes(),
            seconds=now - asked.began,
            bucket=self._bucket(),
            overall=drawn is Draw.OVERALL,
            deleted=self._deleted(),
        )

    def put(self, query: Answered) -> None:
        """One that another process of the pod has drawn."""
        with self._lock:
            if len(self.queue) < self._room:
                self.queue.append(query)
            else:
                self._left_out[query.segment] += 1

    def end(self, lease: Mirroring) -> None:
        """It has run out. One that has come in its place meanwhile stays."""
        with self._lock:
            if self.lease is lease:
                self.lease = None

    def drop(self, segment: str) -> None:
        """A query that was put aside will not be sent after all."""
        with self._lock:
            self._left_out[segment] += 1

    def count_left_out(self) -> None:
        """Into the newest shadow's counts, in the bucket that it is now: so seldom that it costs nothing."""
        with self._lock:
            left_out, self._left_out = self._left_out, Counter()
            counts = self.counts
        for segment, count in left_out.items():
            self.results["Dropped"] += count
            if counts is not None:
                counts.add(self._bucket(), segment, {"dropped": count}, overall=False)

    def _bucket(self) -> int:
        return int(self._clock()) // contract.BUCKET_SECONDS
