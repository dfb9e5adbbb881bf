"""`Auto`: which kind of index to build, measured on samples. See docs/adr/0009-auto-measures.md.

    1  memory    the formula drops what does not fit the limit; if nothing does, that is said before anything is built
    2  screen    one index of each family on a small sample
    3  deepen    the best families, and variants of the best one, on a larger sample; the growth between samples tells
                 how the time of a query grows, and so what it will be on all rows
    4  race      whoever is expected to be the fastest, or close to it, is measured on the largest sample

Builds nothing that is kept and never reads the source: it gathers rows of vectors.npy. Memory: the sample and at most
RACERS indexes of it, or some more of a smaller sample.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

from ...artifact.manifest import Candidate
from ...contract import Metric, Minimise
from ...errors import BadSpec
from ..factory import make_index, small
from ..memory import Footprint, footprint
from ..sizes import size_text
from ..vectors import VectorFile
from .families import scaled, shortlist, variants
from .sample import K, Sample, draw_sample, whole
from .trial import Bench, Trial, raised

AUTO = "Auto"
MEMORY_FIELD = "spec.index.objective.memoryLimit"
SCREEN_ROWS = 6_000
DEEP_ROWS = 24_000
TOP_ROWS = 64_000
RACERS = 4
"""Indexes built on the largest sample, at most."""
SAMPLE_BYTES = 128 << 20
QUERIES = 300
TUNING_QUERIES = 1000
"""What `build` tunes the chosen index with: the margin below is that of its interval."""
SCREEN_SLACK = 2.5
"""A family this many times slower than the best on the small sample is not looked at again."""
DEEP_FAMILIES = 3
CLOSE = 1.25
"""Whoever is expected to be slower than the leader by this ratio at most is raced too."""
_GROWTH = {"HNSW": 0.15, "IVF": 0.45, "Flat": 1.0, "SQ8": 1.0}
"""Prior exponents: time of a query ~ rows ** growth, where only one sample was measured."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Goal:
    """What to choose for. recall: floor of recall@10. memory_limit: bytes for the index alone, None for none."""

    recall: float
    minimise: Minimise = Minimise.LATENCY
    memory_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The factory string to build, every candidate with its verdict, and the winner's reason in words."""

    factory: str
    candidates: tuple[Candidate, ...]
    reason: str


@dataclass(slots=True)
class _Entry:
    """A candidate while it is being looked at."""

    factory: str
    size: Footprint
    trials: dict[int, Trial]
    verdict: str = ""

    @property
    def last(self) -> Trial | None:
        """The trial on the most rows so far."""
        return self.trials[max(self.trials)] if self.trials else None

    def at(self, count: int) -> float:
        """Microseconds of a query expected on `count` rows; infinite when the goal was not reached."""
        done = [self.trials[rows] for rows in sorted(self.trials)]
        if not done or done[-1].best is None:
            return math.inf
        last = done[-1]
        assert last.best is not None
        if whole(last.rows, count):
            return last.best.latency_us
        grown: float = max(1.0, count / last.rows) ** self._growth(done)
        return last.best.latency_us * grown

    def retime(self, rows: int) -> None:
        """Time a query again on the index that is still there; the least time counts."""
        trial = self.trials[rows]
        assert trial.best is not None
        if trial.again is not None:
            faster = replace(trial.best, latency_us=min(trial.best.latency_us, trial.again()))
            self.trials[rows] = replace(trial, best=faster)

    def _growth(self, done: list[Trial]) -> float:
        prior = next(value for name, value in _GROWTH.items() if name in self.factory)
        if len(done) < 2 or done[-2].best is None or done[-1].best is None or done[-1].rows == done[-2].rows:
            return prior
        if done[-1].raised and not done[-2].raised:
            return prior  # the time of more recall, not of more rows
        measured = math.log(done[-1].best.latency_us / done[-2].best.latency_us) / math.log(
            done[-1].rows / done[-2].rows
        )
        return min(max((measured + prior) / 2, 0.0), 1.0)


def select(vectors: VectorFile, goal: Goal, threads: int, *, working_bytes: int = 0, seed: int = 0) -> Choice:
    """Choose the index for the rows of `vectors`.

    threads: OpenMP threads for building on the sample. working_bytes: memory the sample may take (0: SAMPLE_BYTES).
    Raises BadSpec/MemoryLimitTooSmall when the smallest family does not fit.
    """
    count, dimension, metric = vectors.count, vectors.dimension, vectors.metric
    entries = [_entry(one, count, dimension, metric) for one in shortlist(count, dimension, goal.minimise)]
    if goal.memory_limit is not None and sum(one.size.resident <= goal.memory_limit for one in entries) < DEEP_FAMILIES:
        known = {one.factory for one in entries}
        smaller = [one for one in shortlist(count, dimension, Minimise.MEMORY) if one not in known]
        entries += [_entry(one, count, dimension, metric) for one in smaller]
    fitting = _fitting(entries, goal)
    flat = next((one for one in fitting if one.factory == "Flat"), None)
    if flat is not None and goal.minimise is Minimise.LATENCY and small(count, dimension):
        reason = f"{count} x {dimension} is small: exact search is as fast as anything else"
        return Choice(flat.factory, (_candidate(flat, count, f"chosen: {reason}"),), reason)
    affordable = (working_bytes or SAMPLE_BYTES) // (4 * dimension)
    most = max(K + 1, min(TOP_ROWS, affordable))
    sample = draw_sample(vectors, most, QUERIES, seed)
    selection = _Selection(goal, count, dimension, metric, threads, entries)
    search = selection.smallest if goal.minimise is Minimise.MEMORY else selection.fastest
    return selection.choice(search(fitting, sample))


def _entry(factory: str, count: int, dimension: int, metric: Metric) -> _Entry:
    size = footprint(make_index(factory, count, dimension, metric), count)
    assert size is not None, factory
    return _Entry(factory, size, {})


def _fitting(entries: list[_Entry], goal: Goal) -> list[_Entry]:
    """Those within the memory limit; the others get their verdict. Raises BadSpec when none is."""
    if goal.memory_limit is None:
        return entries
    for entry in entries:
        if entry.size.resident > goal.memory_limit:
            entry.verdict = (
                f"over memoryLimit: needs {size_text(entry.size.resident)} of {size_text(goal.memory_limit)}"
            )
    fitting = [entry for entry in entries if not entry.verdict]
    if not fitting:
        least = min(entries, key=lambda entry: entry.size.resident)
        raise BadSpec(
            "MemoryLimitTooSmall",
            f"the smallest index, {least.factory}, needs {size_text(least.size.resident)}; "
            f"memoryLimit leaves {size_text(goal.memory_limit)} for the index beside ids and metadata",
            field=MEMORY_FIELD,
            remedy="Raise memoryLimit, or keep fewer metadata columns.",
        )
    return fitting


class _Selection:
    """One run of `select`: the trials so far and what they say."""

    def __init__(
        self, goal: Goal, count: int, dimension: int, metric: Metric, threads: int, entries: list[_Entry]
    ) -> None:
        self.goal, self.count, self.dimension, self.metric = goal, count, dimension, metric
        self.threads = threads
        self.entries = entries
        self.target = goal.recall
        """Recall to reach on the sample: the floor and the two half-widths that tuning will ask for."""

    def fastest(self, entries: list[_Entry], sample: Sample) -> _Entry:
        """The lowest expected latency on all rows: screened on a small sample, raced on the largest."""
        rungs = [rows for rows in (SCREEN_ROWS, DEEP_ROWS) if 2 * rows < len(sample.rows)]
        for number, rows in enumerate(rungs):
            bench = Bench(sample.part(rows), self.threads)
            for entry in entries:
                self._try(entry, bench)
            self._settle(entries, rows)
            ranked = sorted(entries, key=lambda entry: entry.at(self.count))
            slowest = SCREEN_SLACK * ranked[0].at(self.count)
            entries = [one for one in ranked if one.at(self.count) <= slowest][:DEEP_FAMILIES] or ranked[:DEEP_FAMILIES]
            if number == 0:
                entries += self._variants(entries[0])
        return self._race(entries, Bench(sample, self.threads), everyone=not rungs)

    def _race(self, entries: list[_Entry], bench: Bench, *, everyone: bool) -> _Entry:
        """The fastest on the largest sample; `everyone`: there was no smaller one to choose by."""
        rows = len(bench.sample.rows)
        if everyone:
            for entry in entries:
                self._try(entry, bench)
            for entry in self._variants(min(entries, key=lambda one: one.at(self.count))):
                self._try(entry, bench)
                entries = [*entries, entry]
        for _ in range(0 if everyone else RACERS):
            ranked = sorted(entries, key=lambda one: one.at(self.count))
            limit = CLOSE * ranked[0].at(self.count)
            waiting = [one for one in ranked if one.at(self.count) <= limit and rows not in one.trials]
            if not waiting:
                break
            self._try(waiting[0], bench)
        raced = [one for one in entries if rows in one.trials and math.isfinite(one.at(self.count))]
        self._settle(raced, rows)
        if raced:
            return min(raced, key=lambda one: one.at(self.count))
        return max(self.entries, key=lambda one: max((t.ceiling for t in one.trials.values()), default=0.0))

    def _settle(self, entries: list[_Entry], rows: int) -> None:
        """Time those close to the best again, in turns, since a machine changes its speed; then free the indexes."""
        measured = [one for one in entries if rows in one.trials and math.isfinite(one.at(self.count))]
        if measured:
            limit = CLOSE**2 * min(one.at(self.count) for one in measured)
            close = [one for one in measured if one.at(self.count) <= limit]
            for _ in range(3 if len(close) > 1 else 0):
                for one in close:
                    one.retime(rows)
        for one in entries:
            if rows in one.trials:
                one.trials[rows] = replace(one.trials[rows], again=None)

    def smallest(self, entries: list[_Entry], sample: Sample) -> _Entry:
        """The smallest one that reaches the recall on all rows without being slower than exact search."""
        rows = len(sample.rows)
        fewer = sample.part(min(DEEP_ROWS, rows if whole(rows, self.count) else rows // 2))
        samples = [fewer] if len(fewer.rows) == rows else [fewer, sample]
        benches = [Bench(one, self.threads, exhaust=True) for one in samples]
        ceiling = math.inf
        if (flat := next((one for one in self.entries if one.factory == "Flat"), None)) is not None:
            ceiling = self._try(flat, benches[0])
        for entry in sorted(entries, key=lambda one: one.size.resident):
            if all(self._try(entry, bench) <= ceiling for bench in benches) and self._lasts(entry):
                return entry
        return max(entries, key=lambda one: one.last.ceiling if one.last else 0.0)

    def _lasts(self, entry: _Entry) -> bool:
        """Whether the codes are fine enough for the recall on all rows, by what more rows took away so far."""
        *fewer, last = (entry.trials[rows] for rows in sorted(entry.trials))
        if not fewer or whole(last.rows, self.count):
            return True
        wanted = raised(self.target, (fewer[-1].rows, fewer[-1].ceiling), (last.rows, last.ceiling), self.count)
        if last.ceiling < wanted:
            entry.verdict = f"recall {last.ceiling:.3f} at most on the sample, too little for all rows"
        return last.ceiling >= wanted

    def choice(self, winner: _Entry) -> Choice:
        """Verdicts in words, and the result."""
        own = winner.at(self.count)
        smallest = self.goal.minimise is Minimise.MEMORY
        for entry in self.entries:
            if entry is not winner and not entry.verdict:
                entry.verdict = self._verdict(entry, winner)
        size, time = size_text(winner.size.resident), f"about {own:.0f} us a query"
        aim = f"the smallest ({size}, {time})" if smallest else f"the fastest ({time}, {size})"
        reached = math.isfinite(own)
        reason = f"{aim} of {len(self.entries)} candidates at recall {self.target:.3f} on a sample"
        winner.verdict = f"chosen: {reason if reached else 'none reaches the recall, this one comes nearest'}"
        ordered = sorted(self.entries, key=lambda one: (one is not winner, one.at(self.count), one.size.resident))
        found = tuple(_candidate(one, self.count, one.verdict) for one in ordered)
        for one in found:
            _log.info("candidate", extra=one.wire())
        return Choice(winner.factory, found, winner.verdict)

    def _verdict(self, entry: _Entry, winner: _Entry) -> str:
        last = entry.last
        if last is None:
            return "not measured: larger than the chosen one"
        if last.best is None:
            return f"reaches recall {last.ceiling:.3f} at most on the sample"
        if self.goal.minimise is Minimise.MEMORY and entry.at(self.count) < math.inf:
            ratio = entry.size.resident / winner.size.resident
            return f"{ratio:.2f}x the memory of {winner.factory}" if ratio > 1 else "slower than exact search"
        return f"{entry.at(self.count) / winner.at(self.count):.2f}x the latency of {winner.factory}"

    def _variants(self, leader: _Entry) -> list[_Entry]:
        known = {entry.factory for entry in self.entries}
        found = [
            _entry(factory, self.count, self.dimension, self.metric)
            for factory in variants(leader.factory, self.dimension)
            if factory not in known
        ]
        self.entries += found
        if self.goal.memory_limit is not None:
            for one in found:
                if one.size.resident > self.goal.memory_limit:
                    one.verdict = f"over memoryLimit: needs {size_text(one.size.resident)}"
        return [one for one in found if not one.verdict]

    def _try(self, entry: _Entry, bench: Bench) -> float:
        """Measure it on this sample, once; the time to expect on all rows (`_Entry.at`)."""
        rows = len(bench.sample.rows)
        if rows not in entry.trials:
            self._measure(entry, bench, rows)
        return entry.at(self.count)

    def _measure(self, entry: _Entry, bench: Bench, rows: int) -> None:
        factory = scaled(entry.factory, self.count, rows)
        try:
            trial = bench.run(factory, self.target, entry.last, self.count)
            if trial.best is not None and trial.best.spread and self.target == self.goal.recall:
                # Two half-widths of what tuning will measure, from the spread of the first trial that gets there.
                margin = 2 * 1.645 * trial.best.spread / math.sqrt(TUNING_QUERIES)
                self.target = min(1.0, self.goal.recall + margin)
                if trial.best.recall < self.target:
                    trial = bench.run(factory, self.target, entry.last, self.count)
        except (BadSpec, RuntimeError) as error:
            entry.verdict = f"FAISS cannot build it: {str(error)[:120]}"
            return
        entry.trials[rows] = trial


def _candidate(entry: _Entry, count: int, verdict: str) -> Candidate:
    last = entry.last
    best = last.best if last else None
    return Candidate(
        factory=entry.factory,
        memory_bytes=entry.size.resident,
        sample_rows=last.rows if last else 0,
        params=best.params if best else {},
        recall=round(best.recall if best else last.ceiling, 4) if last else None,
        latency_us=round(entry.at(count), 1) if best else None,
        verdict=verdict,
    )
