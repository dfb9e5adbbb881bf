"""POST /v1/shadow: answers again what the revision with the traffic has answered, and counts the pairs. Who of the two
is judged, the request says.

With what users would be answered with: the same planner, engine and search threads. Users come first: a query waits
while any search of theirs does, and is refused when that takes too long. What users ask is kept nowhere.
"""

from __future__ import annotations

import asyncio
import logging
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ... import contract
from ...index.engine import Engine
from ...index.selection.rowset import RowSet
from ..http.messages import Problem, Request, Response, json_response, overload
from ..search.pool import SearchPool
from .counts import PairRows
from .judge import AnswersJudge, Pair
from .wire import Batch, MalformedError, ShadowQuery, decode

PATIENCE_SECONDS = 0.8 * contract.SHADOW_SECONDS
"""For a whole request: what is answered later finds nobody."""
REQUESTS = 8
"""At once; more are refused."""
SLOWER = 2.0
_PLACES = 1 << 18
"""Of names that are remembered, 2 MiB."""
ENDED = 16
"""Shadows that are remembered as over: another one has begun since, and what comes late does not bring them back."""
_YIELD_SECONDS = 0.002
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """What a query finds here. rows: int64 [k], -1 where there is none; scores: float32 [k]."""

    segment: str
    scores: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64]
    hits: int
    allowed: RowSet | None
    """What its filter allows; None: it has none."""


@dataclass(slots=True)
class Told:
    """The answer to a request, or to a part of it. unanswered: numbers of its queries; other_deleted: whether some came
    from a pod that has another list of deleted ids."""

    counted: int = 0
    unanswered: list[int] = field(default_factory=list)
    other_deleted: bool = False

    def wire(self) -> dict[str, object]:
        return {
            "counted": self.counted,
            "unanswered": sorted(self.unanswered),
            "otherDeleted": self.other_deleted,
        }

    def add(self, wire: Mapping[str, Any]) -> None:
        """What another process answered of its part, as `wire` has it."""
        self.counted += wire["counted"]
        self.unanswered += wire["unanswered"]
        self.other_deleted |= wire["otherDeleted"]


class Searches(Protocol):
    """What answers users (serve/app.py)."""

    def find(self, fields: dict[str, object], vector: npt.NDArray[np.float32], deadline: float) -> Found:
        """What a request with these fields and this vector finds; on a search thread. Raises Problem, also once the
        monotonic time `deadline` has passed."""
        ...


class _Seen:
    """Names of queries, in 8 bytes a place: two that fall on one place push each other out, which lets some count
    twice."""

    def __init__(self, places: int) -> None:
        self._places = array("Q", bytes(8 * places))

    def __contains__(self, name: bytes) -> bool:
        number = int.from_bytes(name[:8], "little") or 1
        return self._places[number % len(self._places)] == number

    def add(self, name: bytes) -> None:
        number = int.from_bytes(name[:8], "little") or 1
        self._places[number % len(self._places)] = number


@dataclass(frozen=True, slots=True)
class Part:
    """Which queries are one process's of several, by their hash: whoever asks for the same asks the same process, which
    so knows that it was asked before. `number`: from 0."""

    number: int = 0
    processes: int = 1

    def has(self, name: bytes) -> bool:
        return int.from_bytes(name[8:12], "little") % self.processes == self.number

    def of(self, whole: int) -> int:
        """Its part of a number, rounded up."""
        return -(-whole // self.processes)


@dataclass(slots=True)
class _Shadow:
    """One shadow, and which of its queries were counted."""

    counts: PairRows
    seen: _Seen
    complained: bool = False


class ShadowReceiver:
    """Belongs to the event loop. `revision`: our own; `segments`: those that are declared; `deleted`: the fingerprint
    of the ids that are hidden now; `threads`: searches at once; `clock`: unix seconds; `part`: what it answers of each
    request; `differ`: told that a query was answered with other deleted ids than ours."""

    def __init__(
        self,
        searches: Searches,
        engine: Engine,
        pool: SearchPool,
        judge: AnswersJudge,
        segments: Sequence[str] = (),
        *,
        revision: str,
        deleted: Callable[[], str] = lambda: "",
        threads: int = 1,
        clock: Callable[[], float] = time.time,
        part: Part = Part(),
        differ: Callable[[], None] = lambda: None,
    ) -> None:
        self._revision, self._part, self._differ = revision, part, differ
        self._searches, self._engine, self._pool, self._judge = searches, engine, pool, judge
        self._deleted, self._clock = deleted, clock
        self._segments = frozenset(segments)
        self._turn = asyncio.Semaphore(threads)
        self._requests = 0
        self._shadow: _Shadow | None = None
        self._ended: deque[str] = deque(maxlen=ENDED)
        self._warmed = 0
        self.results: Counter[str] = Counter()
        """Queries by what became of them: Counted, Void, OtherDeleted, Repeated, Warming, Refused."""

    @property
    def counts(self) -> PairRows | None:
        """Of the newest shadow."""
        return self._shadow.counts if self._shadow is not None else None

    async def take(self, request: Request) -> Response:
        """Search all queries of a request. Raises Problem 400, 409 or 503."""
        if self._requests >= REQUESTS:
            raise too_many()
        self._requests += 1
        try:
            return json_response((await self.answer(request.body, request.completed + PATIENCE_SECONDS)).wire())
        finally:
            self._requests -= 1

    async def answer(self, body: bytes, until: float) -> Told:
        """Search those of its part until then (monotonic). Raises Problem 400 or 409."""
        try:
            batch = await asyncio.to_thread(decode, body, self._engine.metric)
        except MalformedError as error:
            raise Problem(400, "MalformedShadow", str(error), remedy="send what serve/shadow/wire.py says") from None
        shadow = self._begin(batch)
        mine = [(number, query) for number, query in enumerate(batch.queries) if self._part.has(query.name)]
        answered = await asyncio.gather(*(self._one(batch, query, shadow, until) for _, query in mine))
        unanswered = [number for (number, _), done in zip(mine, answered, strict=True) if not done]
        self.results["Refused"] += len(unanswered)
        differ = any(query.asked.deleted != self._deleted() for _, query in mine)
        return Told(len(mine) - len(unanswered), unanswered, differ)

    def _begin(self, batch: Batch) -> _Shadow:
        current = self._shadow
        if current is not None and current.counts.shadow == batch.shadow:
            return current
        if batch.shadow in self._ended:
            remedy = "ask for a lease of the one that runs"
            raise Problem(409, "ShadowEnded", "another shadow has begun since", value=batch.shadow, remedy=remedy)
        if current is not None:
            self._ended.append(current.counts.shadow)
        reference, judged = batch.sender, self._revision
        if batch.sender_judged:
            reference, judged = judged, reference
        self._shadow = _Shadow(PairRows(batch.shadow, reference, judged), _Seen(self._part.of(_PLACES)))
        return self._shadow

    async def _one(self, batch: Batch, query: ShadowQuery, shadow: _Shadow, until: float) -> bool:
        """Answer and count one query; whether it was answered, as users would be."""
        asked = query.asked
        if batch.dimension != self._engine.dimension:
            self._count(shadow, query, "void")
            return True
        if asked.deleted != self._deleted():
            self._count(shadow, query, "other_deleted")
            self._differ()
            return True
        if query.name in shadow.seen:
            self._count(shadow, query, "repeated")
            return True
        live = self._engine.live
        async with self._turn:
            while self._pool.waiting:
                if time.monotonic() >= until:
                    return False
                await asyncio.sleep(_YIELD_SECONDS)
            try:
                found, seconds = await self._search(query, until)
            except Problem:
                return False
            except Exception as error:  # as users would see it: an error
                if not shadow.complained:
                    _log.error("a query of a shadow failed", exc_info=error)
                shadow.complained = True
                return False
        # Who is the reference had users a moment ago: its pages are there.
        if not batch.sender_judged and self._warmed < self._part.of(contract.SHADOW_WARMING):
            self._warmed += 1
            self._count(shadow, query, "warming")
        elif query.name in shadow.seen:  # while this one was searched
            self._count(shadow, query, "repeated")
        else:
            shadow.seen.add(query.name)
            if batch.sender_judged:
                self._pair_of_sender(shadow, query, found, seconds)
            else:
                self._pair(shadow, query, found, seconds, live)
        return True

    async def _search(self, query: ShadowQuery, until: float) -> tuple[Found, float]:
        """What is found, and how long it took. Raises Problem."""
        asked = query.asked
        fields: dict[str, object] = {**asked.fields, "k": asked.k}
        if asked.segment != contract.OTHER_SEGMENT:
            fields["segment"] = asked.segment
        found: list[tuple[Found, float]] = []

        def job() -> Response:
            began = time.monotonic()
            found.append((self._searches.find(fields, query.vector, until), time.monotonic() - began))
            return Response(200, b"")

        done: asyncio.Future[Response | BaseException] = asyncio.get_running_loop().create_future()
        self._pool.submit(job, 1, until).then(done.set_result)
        outcome = await done
        if isinstance(outcome, BaseException):
            raise outcome
        return found[0]

    # ------------------------------------------------------------ counting

    def _count(self, shadow: _Shadow, query: ShadowQuery, kind: str) -> None:
        """One that is no pair."""
        self.results[kind.title().replace("_", "")] += 1
        named = query.asked.segment
        segment = named if named in self._segments else contract.OTHER_SEGMENT
        shadow.counts.add(self._bucket(), segment, {kind: 1}, overall=query.asked.overall)

    def _pair(self, shadow: _Shadow, query: ShadowQuery, found: Found, seconds: float, live: RowSet | None) -> None:
        self.results["Counted"] += 1
        asked, bucket = query.asked, self._bucket()
        first = float(found.scores[0]) if found.rows[0] >= 0 else None
        counts = _pair_counts(asked.first, asked.hits == 0, first, found.hits == 0)
        counts["slower"] = int(seconds > SLOWER * asked.seconds)
        shadow.counts.add(bucket, found.segment, counts, overall=asked.overall)
        if asked.exact and asked.answers:
            pair = Pair(
                counts=shadow.counts,
                bucket=bucket,
                segment=found.segment,
                overall=asked.overall,
                # Copies: what came is part of a whole request.
                vector=query.vector.copy(),
                ids=query.ids,
                scores=query.scores.copy(),
                rows=found.rows,
                allowed=found.allowed,
                live=live,
            )
            self._judge.put(pair)

    def _pair_of_sender(self, shadow: _Shadow, query: ShadowQuery, found: Found, seconds: float) -> None:
        """One in which we are the reference: what became of our answers nobody asks."""
        self.results["Counted"] += 1
        asked = query.asked
        first = float(found.scores[0]) if found.rows[0] >= 0 else None
        counts = _pair_counts(first, found.hits == 0, asked.first, asked.hits == 0)
        counts["slower"] = int(asked.seconds > SLOWER * seconds)
        shadow.counts.add(self._bucket(), found.segment, counts, overall=asked.overall)

    def _bucket(self) -> int:
        return int(self._clock()) // contract.BUCKET_SECONDS


def too_many() -> Problem:
    """What is said to more than REQUESTS at once."""
    return overload(f"{REQUESTS} requests of a shadow are under way")


def _pair_counts(s: float | None, s_zero: bool, c: float | None, c_zero: bool) -> dict[str, float]:
    """As contract.PairCounts has them. s, c: first scores, of the reference and of who is judged; s_zero, c_zero:
    whether there was no hit."""
    counts: dict[str, float] = {
        "pairs": 1,
        "zero_both": int(s_zero and c_zero),
        "zero_candidate_only": int(c_zero and not s_zero),
        "zero_stable_only": int(s_zero and not c_zero),
    }
    if s is None or c is None:
        return counts
    size = abs(s)
    return counts | {
        "scored": 1,
        "c_sum": c,
        "s_sum": s,
        "abs_s_sum": size,
        "c_squares": c * c,
        "s_squares": s * s,
        "cs_sum": c * s,
        "s_abs_s_sum": s * size,
        "c_abs_s_sum": c * size,
    }
