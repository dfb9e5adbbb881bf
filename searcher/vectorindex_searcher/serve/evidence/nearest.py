"""The part of a shard's searcher in live recall: it scans its own rows for the queries that its routers sampled, one
request after the other, within the budget that a searcher of a whole index has for its own (live_recall.py).

A background thread, which ends with the process. A router is told what was found; it merges and judges.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ... import contract
from ...artifact.publish import Note
from ...dataset.source import deleted_rows
from ...errors import TaskError
from ...index.engine import Engine
from ...index.selection.rowset import RowSet
from ...proof.exact import exact_scores, exact_search
from ...proof.merging import tie_widths
from .live_recall import (
    CPU_SHARE,
    LONGEST_SCAN_SECONDS,
    BeyondBudgetError,
    CpuBudget,
    PacedVectors,
    be_nice,
    fetch_vectors,
)

LOOK_SECONDS = 1.0
"""Between two looks whether other rows may be answered."""
_log = logging.getLogger(__name__)

Then = Callable[[bytes], None]
"""Takes contract.NearestRows as JSON, on the thread that scans; empty: the request was none, or came to nothing."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    data: bytes
    came: float
    """Monotonic."""
    then: Then


class NearestScans:
    """`start` once."""

    def __init__(
        self,
        task: contract.ServeTask,
        engine: Engine,
        note: Note = lambda fetched, found: None,
        spent: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """`note`: gets the bytes of vectors.npy; `spent`: the CPU seconds used so far; both on the thread."""
        self._task, self._engine, self._note, self._spent = task, engine, note, spent
        self._queue: queue.Queue[_Waiting] = queue.Queue(contract.NEAREST_WAITING)
        self._stop = threading.Event()
        self._live, self._since = engine.live, time.monotonic()
        self._thread = threading.Thread(target=self._run, name="nearest", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; does not wait for it."""
        self._stop.set()

    def ask(self, data: bytes, then: Then) -> bool:
        """Take one request (contract/nearest.py); False where too many wait. From any thread."""
        try:
            self._queue.put_nowait(_Waiting(data, time.monotonic(), then))
        except queue.Full:
            return False
        return True

    def _run(self) -> None:
        be_nice()
        path = fetch_vectors(self._task, self._engine, self._stop, self._note)
        if path is None:
            return
        budget = CpuBudget(CPU_SHARE, self._stop.wait)
        try:
            with PacedVectors(path, self._engine.metric, budget, CPU_SHARE * LONGEST_SCAN_SECONDS) as vectors:
                while not self._stop.is_set():
                    self._look()
                    try:
                        one = self._queue.get(timeout=LOOK_SECONDS)
                    except queue.Empty:
                        continue
                    one.then(self._answer(one, vectors))
                    self._spent(budget.spent)
        except TaskError as error:
            _log.error("scans for live recall ended", extra={"reason": error.reason, "failure": str(error)})

    def _look(self) -> None:
        """Whether other rows may be answered than at the last look: what was answered before says nothing of these."""
        if self._engine.live is not self._live:
            self._live, self._since = self._engine.live, time.monotonic()

    def _answer(self, one: _Waiting, vectors: PacedVectors) -> bytes:
        self._look()
        began = time.monotonic()
        try:
            asked, queries = question_of(one.data, self._engine.dimension, self._engine.manifest.id_type)
            steady = max(0.0, one.came - self._since)
            found = nearest_rows(self._engine, vectors, asked, queries, self._live, steady)
        except BeyondBudgetError as error:
            found = contract.NearestRows(times=error.times)
        except ValueError as error:
            _log.warning("a request for nearest rows is none", extra={"problem": str(error)[:200]})
            return b""
        except Exception:  # the next request may be fine
            _log.exception("a scan for a router failed")
            return b""
        facts = {"queries": len(queries), "times": found.times, "seconds": round(time.monotonic() - began, 3)}
        _log.info("nearest rows for a router", extra=facts)
        return found.model_dump_json(by_alias=True).encode()


def question_of(data: bytes, dimension: int, id_type: str) -> tuple[contract.NearestQuestion, npt.NDArray[np.float32]]:
    """What a request asks, and its queries [n, d]. Raises ValueError for anything else."""
    head, _, body = data.partition(b"\n")
    asked = contract.NearestQuestion.model_validate_json(head)
    if len(body) != 4 * dimension * len(asked.depths):
        raise ValueError(f"{len(body)} bytes are not {len(asked.depths)} vectors of dimension {dimension}")
    kind = str if id_type == "string" else int
    if any(type(one) is not kind for ids in asked.ids for one in ids):
        raise ValueError("ids of another kind")
    queries = np.frombuffer(body, "<f4").reshape(-1, dimension)
    if not np.isfinite(queries).all():
        raise ValueError("a vector with what is no number")
    return asked, queries


def nearest_rows(
    engine: Engine,
    vectors: PacedVectors,
    asked: contract.NearestQuestion,
    queries: npt.NDArray[np.float32],
    live: RowSet | None,
    steady: float,
) -> contract.NearestRows:
    """The answer to it. `live`: rows that may be answered, None: all; `steady`: for how many seconds it was these when
    the request came. Raises BeyondBudgetError."""
    depths = np.array(asked.depths)
    truth = exact_search(
        vectors, queries, int(depths.max()), vectors.metric, depths=depths, threads=1, allowed_rows=live
    )
    prepared = vectors.prepared(queries)
    widths = tie_widths(vectors, prepared, truth.rows, truth.scores)
    rows = _rows_of(engine, asked, live)
    hits = exact_scores(vectors, prepared, rows, vectors.metric)
    return contract.NearestRows(
        steady_seconds=steady,
        scores=tuple(tuple(line[:end].tolist()) for line, end in zip(truth.scores, truth.available, strict=True)),
        widths=tuple(tuple(line[:end].tolist()) for line, end in zip(widths, truth.available, strict=True)),
        hits=tuple(
            tuple(score if row >= 0 else None for row, score in zip(mine, line, strict=False))
            for mine, line in ((rows[at, : len(ids)].tolist(), hits[at].tolist()) for at, ids in enumerate(asked.ids))
        ),
    )


def _rows_of(engine: Engine, asked: contract.NearestQuestion, live: RowSet | None) -> npt.NDArray[np.int64]:
    """Rows [n, m] of the ids; -1 where there is none, or it may not be answered any more."""
    width = max(1, *map(len, asked.ids)) if asked.ids else 1
    wanted = sorted({one for ids in asked.ids for one in ids}, key=str)
    kind = pa.string() if engine.manifest.id_type == "string" else pa.int64()
    rows = deleted_rows(engine.id_chunks(), pa.array(wanted, kind))
    if live is not None:
        rows = rows[live.holds(rows)]
    known: dict[int | str, int] = dict(zip(engine.ids(rows), rows.tolist(), strict=True))
    found = np.full((len(asked.ids), width), -1, np.int64)
    for line, ids in zip(found, asked.ids, strict=True):
        line[: len(ids)] = [known.get(one, -1) for one in ids]
    return found
