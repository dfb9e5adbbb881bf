"""The answers of pairs, scored exactly on a background thread: ids are looked up among all, and vectors are read from
disk, so no pair waits for it. What is too much for its part of a core is left unjudged.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ... import contract
from ...index.engine import Engine
from ...index.selection.rowset import RowSet
from ..evidence.live_recall import NICENESS, CpuBudget
from .answers import KINDS, ExactScores, fates, rows_of_ids
from .counts import PairRows

CPU_SHARE = 0.25
"""Of one core: a revision that is judged has no users, and one that has them judges what is left."""
WAITING = 1024
WAITING_BYTES = 4 << 20
"""Queries that wait at most."""
AT_ONCE = 128
"""For one pass over the ids of the index."""
_PAIR_BYTES = 4096
"""What a query takes besides its vector: a hundred answers on each side."""
_WAIT_SECONDS = 0.5
"""For more to come: a pass over the ids costs the same for one as for many."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pair:
    """One query as both answered it."""

    counts: PairRows
    bucket: int
    segment: str
    overall: bool
    vector: npt.NDArray[np.float32]
    ids: Sequence[int] | Sequence[str]
    """Answers of the revision with the traffic, at least one."""
    scores: npt.NDArray[np.float64]
    """Their exact scores there."""
    rows: npt.NDArray[np.int64]
    """Our own answers, best first: int64 [k], -1 where there was none."""
    allowed: RowSet | None
    """What the query's filter allows; None: all rows."""
    live: RowSet | None
    """What was not deleted then; None: all rows."""


class AnswersJudge:
    """Takes pairs from the event loop, and counts into their PairRows."""

    def __init__(self, engine: Engine, exact: ExactScores, processes: int = 1) -> None:
        """`exact` is this thread's own. `processes`: of the pod, each of which has its part of room and CPU."""
        self._engine, self._exact, self._processes = engine, exact, processes
        self._waiting: deque[Pair] = deque()
        self._room = max(1, min(WAITING, WAITING_BYTES // (_PAIR_BYTES + 4 * engine.dimension)) // processes)
        self._some = threading.Event()
        self._stop = threading.Event()
        self._started = self._judging = False
        self.results: Counter[str] = Counter()
        """Answers by what became of them."""
        self._thread = threading.Thread(target=self._run, name="shadow-judge", daemon=True)

    def start(self) -> None:
        """Again does nothing."""
        if not self._started:
            self._started = True
            self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; does not wait for it."""
        self._stop.set()
        self._some.set()

    def put(self, pair: Pair) -> None:
        """Judge it when there is time; not at all where too many wait."""
        if len(self._waiting) < self._room:
            self._waiting.append(pair)
            self._some.set()

    @property
    def idle(self) -> bool:
        """Whether nothing is left to be judged."""
        return not self._waiting and not self._judging

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # on Linux this is the thread's own priority
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        budget = CpuBudget(CPU_SHARE / self._processes, self._stop.wait)
        while not self._stop.is_set():
            self._some.wait()
            self._some.clear()
            while self._waiting and not self._stop.wait(_WAIT_SECONDS):
                self._judging = True
                some = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
                try:
                    self.judge(some)
                except Exception as error:  # the pairs stay counted, their answers are not
                    _log.error("answers of a shadow are not judged", exc_info=error)
                self._judging = False
                budget.pay()
        self._exact.close()

    def judge(self, pairs: Sequence[Pair]) -> None:
        """Count them, if the vectors are there."""
        if not self._exact.possible:
            return
        known = [dict(zip(self._engine.ids(own), own.tolist(), strict=True)) for own in map(_found, pairs)]
        unknown = {one for pair, own in zip(pairs, known, strict=True) for one in pair.ids if one not in own}
        others = rows_of_ids(self._engine, list(unknown))  # type: ignore[arg-type]  # ids of an index are of one kind
        for pair, own in zip(pairs, known, strict=True):
            rows = np.array([own.get(one, others.get(one, -1)) for one in pair.ids], np.int64)
            for allowed in (pair.allowed, pair.live):
                if allowed is not None:
                    rows = np.where(allowed.holds(rows), rows, -1)
            answered = np.fromiter((one in own for one in pair.ids), np.bool_, len(pair.ids))
            now = self._exact.of(pair.vector[None], rows[None])[0]
            counts = fates(pair.scores, now, answered, self._last(pair)).counts()
            for kind in KINDS:
                self.results[kind.capitalize()] += int(counts[kind])
            pair.counts.add(pair.bucket, pair.segment, counts, overall=pair.overall)

    def _last(self, pair: Pair) -> float:
        """The exact score of the worst of our own k answers. Of many, those that were told to be the worst are looked
        at."""
        own = _found(pair)
        if len(own) < len(pair.rows):
            return -np.inf
        return float(self._exact.of(pair.vector[None], own[None, -contract.SHADOW_ANSWERS :]).min())


def _found(pair: Pair) -> npt.NDArray[np.int64]:
    return pair.rows[pair.rows >= 0]
