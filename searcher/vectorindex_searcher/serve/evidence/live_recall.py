"""Live recall: a sample of what users asked, answered again exactly, on a background thread that stays within a budget.

Rounds: a sample is collected while the one before is judged by one scan over vectors.npy. The scan is one call after
another into FAISS (which releases the interpreter lock), a block of rows at a time, and sleeps between blocks so that
the thread uses `CPU_SHARE` of a core on average. A scan that would take longer than `LONGEST_SCAN_SECONDS` at that
share takes fewer queries; where even `FEWEST_QUERIES` are too many, a much wider search of the same index stands in for
the exact one, and the evidence says so. Must not touch the event loop's objects: results leave through `deliver`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ... import contract
from ...artifact.layout import VECTORS_FILE, Layout
from ...artifact.publish import Note, cache_error, cache_name, download_verified
from ...errors import TaskError
from ...index.engine import Engine
from ...index.vectors import VectorFile
from ...proof.exact import SLACK, Truth, exact_search, truth_among
from ...proof.measure import measure
from ...storage.cache import NodeCache
from ...storage.store import Role, open_store
from .judged import Judged, tallies
from .live_sample import FEWEST_QUERIES, ROUND_SECONDS, Sampled, smaller
from .ring import LiveTally

CPU_SHARE = 0.05
"""Of one core, on average over a block and the sleep after it."""
LONGEST_SCAN_SECONDS = 450.0
"""A scan that takes longer at `CPU_SHARE` gets fewer queries: evidence must come in while it matters."""
WIDER = 4
"""Search parameters of the stand-in: this many times the wider of the default and the conservative point."""
NICENESS = 5
_BLOCK_BYTES = 8 << 20
_WIDE_AT_ONCE = 4
_RETRY_SECONDS = 60.0
_log = logging.getLogger(__name__)


class BeyondBudgetError(Exception):
    """The scan would cost `times` what it may."""

    def __init__(self, times: float) -> None:
        super().__init__(f"the scan costs {times:.1f} times its budget")
        self.times = times


class CpuBudget:
    """Keeps the calling thread at a share of a core: `pay` sleeps off what was used since the last call."""

    def __init__(self, share: float, sleep: Callable[[float], object]) -> None:
        self._share = share
        self._sleep = sleep
        self._last = time.thread_time()
        self.spent = 0.0
        """CPU seconds so far."""

    def pay(self) -> float:
        """CPU seconds used since the last call, after having slept long enough for them."""
        used = time.thread_time() - self._last
        self._last += used
        self.spent += used
        self._sleep(used / self._share - used)
        return used


class PacedVectors(VectorFile):
    """vectors.npy whose scan pays for each block, and gives up after the first when all would cost too much."""

    def __init__(self, path: Path, metric: contract.Metric, budget: CpuBudget, affordable: float) -> None:
        """`affordable`: CPU seconds of one scan."""
        super().__init__(path, metric)
        self._budget = budget
        self._affordable = affordable

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        step = max(64, _BLOCK_BYTES // (4 * self.dimension))
        self._budget.pay()
        for start in range(0, self.count, step):
            stop = min(start + step, self.count)
            yield start, self.prepared(self.raw(start, stop))
            used = self._budget.pay()  # the consumer has searched the block by now
            whole = used * self.count / (stop - start)
            if start == 0 and whole > self._affordable:
                raise BeyondBudgetError(whole / self._affordable)


class LiveJudge:
    """Judges samples. Belongs to one thread."""

    def __init__(
        self,
        engine: Engine,
        vectors: PacedVectors,
        budget: CpuBudget,
        affordable: float,
        segment_params: Sequence[Mapping[str, int]] = (),
    ) -> None:
        """`affordable`: CPU seconds of one scan. `segment_params`: of segments served with points of their own."""
        self._engine = engine
        self._vectors = vectors
        self._budget = budget
        self._affordable = affordable
        self._share = 1.0
        """Of a full sample: what the last scan could afford."""
        points = (engine.manifest.default_point, engine.manifest.conservative_point)
        known = [*segment_params, engine.default_params, *(point.params for point in points if point is not None)]
        self.wide_params = {
            name: min(high, WIDER * max([low, *(params.get(name, low) for params in known)]))
            for name, (low, high) in engine.param_limits.items()
        }

    def judge(self, sample: Sequence[Sampled]) -> list[Judged]:
        """The recall of each query of the sample, or of a uniform part of it."""
        sample = _of_one_state([item for item in sample if len(item.rows)])
        if not sample:
            return []
        # A little more than last time, in case the machine is quicker now.
        share = min(1.0, 1.5 * self._share)
        while share * len(sample) >= FEWEST_QUERIES or share == 1.0:
            some = smaller(sample, share) if share < 1.0 else list(sample)
            try:
                found = self._judge(some, self._exact(some))
            except BeyondBudgetError as error:
                share /= 1.1 * error.times
                self._share = share
                continue
            self._share = share
            return found
        self._share = 1.0  # a smaller sample may be affordable
        return self._wide(sample)

    def _exact(self, sample: Sequence[Sampled]) -> Truth:
        queries, depths = _arrays(sample)
        return exact_search(
            self._vectors,
            queries,
            int(depths.max()),
            self._vectors.metric,
            depths=depths,
            threads=1,
            allowed_rows=sample[0].live,
        )

    def _judge(self, sample: Sequence[Sampled], truth: Truth, *, wide: bool = False) -> list[Judged]:
        queries, depths = _arrays(sample)
        answered = np.full((len(sample), int(depths.max())), -1, np.int64)
        for line, item in zip(answered, sample, strict=True):
            line[: len(item.rows)] = item.rows
        recall = measure(truth, answered, self._vectors, queries).recall.tolist()
        self._budget.pay()
        return [
            Judged(item.bucket, item.segment, value, item.overall, wide)
            for item, value in zip(sample, recall, strict=True)
        ]

    def _wide(self, sample: Sequence[Sampled]) -> list[Judged]:
        """Against a much wider search; its candidates are ranked by their exact distances."""
        live = self._engine.live
        if sample[0].live is not live:
            return []  # the wider search would not see the rows that these answers were chosen from
        ordered = sorted(sample, key=lambda item: item.draw)
        found: list[Judged] = []
        began = self._budget.spent
        for start in range(0, len(ordered), _WIDE_AT_ONCE):
            some = ordered[start : start + _WIDE_AT_ONCE]
            queries, depths = _arrays(some)
            k = int(depths.max())
            _, rows = self._engine.search(queries, min(k + SLACK, self._engine.count), self.wide_params)
            truth = truth_among(self._vectors, queries, rows, k, self._vectors.metric, depths=depths, allowed_rows=live)
            found += self._judge(some, truth, wide=True)
            if self._budget.spent - began > self._affordable:
                break  # the queries with the smallest draws are a uniform part of the sample
        return found


def _of_one_state(sample: Sequence[Sampled]) -> list[Sampled]:
    """The queries that saw the same deleted ids: of the states of a round, the one that most of them saw."""
    states: dict[int, list[Sampled]] = {}
    for item in sample:
        states.setdefault(id(item.live), []).append(item)
    return max(states.values(), key=len, default=[])


def _arrays(sample: Sequence[Sampled]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Queries float32 [n, dimension] and how many answers of each count, int64 [n]."""
    return np.stack([item.vector for item in sample]), np.array([len(item.rows) for item in sample])


class LiveRecall:
    """The background thread: fetches vectors.npy, then judges round after round until `stop`."""

    def __init__(
        self,
        task: contract.ServeTask,
        engine: Engine,
        segment_params: Sequence[Mapping[str, int]],
        take: Callable[[], tuple[list[Sampled], int]],
        deliver: Callable[[list[LiveTally], int, float], None],
        note: Note = lambda fetched, found: None,
    ) -> None:
        """`take`: ends a round; its sample, and the bucket in which the next begins.

        `deliver`: gets what was judged, the first bucket whose queries may still be unjudged, and the CPU seconds used
        so far; called on this thread. `note`: gets the bytes of vectors.npy, on this thread, too.
        """
        self._task = task
        self._engine = engine
        self._segment_params = segment_params
        self._take = take
        self._deliver = deliver
        self._note = note
        self._stop = threading.Event()
        self.vectors: Path | None = None
        """Where vectors.npy is, verified, once it is there."""
        self._thread = threading.Thread(target=self._run, name="live-recall", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; does not wait for it."""
        self._stop.set()

    def _run(self) -> None:
        be_nice()
        self.vectors = path = fetch_vectors(self._task, self._engine, self._stop, self._note)
        if path is None:
            return
        budget = CpuBudget(CPU_SHARE, self._stop.wait)
        affordable = CPU_SHARE * LONGEST_SCAN_SECONDS
        try:
            with PacedVectors(path, self._engine.metric, budget, affordable) as vectors:
                judge = LiveJudge(self._engine, vectors, budget, affordable, self._segment_params)
                while not self._stop.wait(ROUND_SECONDS):
                    self._round(judge, budget)
        except TaskError as error:
            _log.error("live recall ended", extra={"reason": error.reason, "failure": str(error)})

    def _round(self, judge: LiveJudge, budget: CpuBudget) -> None:
        sample, next_bucket = self._take()
        began, before = time.monotonic(), budget.spent
        judged = judge.judge(sample)
        if self._stop.is_set():
            return
        self._deliver(tallies(judged), next_bucket, budget.spent)
        facts = {
            "sampled": len(sample),
            "judged": len(judged),
            "reference": "Wide" if judged and judged[0].wide else "Exact",
            "recall": round(sum(one.recall for one in judged) / len(judged), 4) if judged else None,
            "seconds": round(time.monotonic() - began, 3),
            "cpuSeconds": round(budget.spent - before, 3),
        }
        _log.info("live recall", extra=facts)


def be_nice() -> None:
    """Users' searches go before this thread."""
    with contextlib.suppress(OSError):  # on Linux this is the thread's own priority
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def fetch_vectors(task: contract.ServeTask, engine: Engine, stop: threading.Event, note: Note) -> Path | None:
    """vectors.npy, verified; None when the process ends first. Users are served meanwhile."""
    manifest, root = engine.manifest, Path(task.cache_dir)
    cache = NodeCache(root)
    while not stop.is_set():
        try:
            store = open_store(task.artifacts, Role.ARTIFACTS)
            layout = Layout(store.prefix, task.identity, task.shard)
            # Alone: searchers that share the cache fetch it once, and what a killed one has left goes.
            with cache.fetching(cache_name(manifest)):
                return download_verified(store, layout, manifest, root, (VECTORS_FILE,), note) / VECTORS_FILE
        except (TaskError, OSError) as failed:
            error = failed if isinstance(failed, TaskError) else cache_error(failed, root, 0)
            facts = {"reason": error.reason, "failure": str(error), "retrySeconds": _RETRY_SECONDS}
            _log.warning("vectors for live recall are not there", extra=facts)
            stop.wait(_RETRY_SECONDS)
    return None
