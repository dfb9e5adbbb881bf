"""A candidate of `Auto` while it is being looked at: its trials so far, and the time to expect on all rows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ...artifact.manifest import Candidate
from ...contract import Metric
from ..factory import make_index
from ..memory import Footprint, footprint
from .families import is_graph, links_in
from .sample import whole
from .trial import Measured, Trial

_GROWTH = {"_HNSW": 0.3, "HNSW": 0.15, "IVF": 0.45, "Flat": 1.0, "SQ8": 1.0}
"""Prior exponents: time of a query ~ rows ** growth, where only one sample was measured. The first name that is in the
factory string counts: `_HNSW` is a graph over the centroids."""
AS_MUCH = 1.05
"""Less than this apart there is no telling who computes less at a recall that 1,000 queries say."""
WHOLE_VECTORS = 0.05
"""More for a graph without codes: of a small sample its vectors fit into the caches."""


@dataclass(slots=True)
class Entry:
    """One kind of index with its verdict, which is empty until there is one."""

    factory: str
    size: Footprint
    ef_construction: int | None = None
    parent: Entry | None = None
    """What it is a variant of: its time is expected until there is a trial, and its growth until there are two."""
    handicap: float = 1.0
    """How many times as long as its parent's its queries are expected to take, until there is a trial."""
    trials: dict[int, Trial] = field(default_factory=dict)
    """By rows of the sample."""
    evened: dict[int, float] = field(default_factory=dict)
    """Rows of a sample -> the time there, once `even_out` saw it beside others of its kind."""
    verdict: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return Candidate(factory=self.factory, ef_construction=self.ef_construction, memory_bytes=0).name

    @property
    def last(self) -> Trial | None:
        """The trial on the most rows so far."""
        return self.trials[max(self.trials)] if self.trials else None

    @property
    def last_params(self) -> dict[str, int] | None:
        """Of the last trial that reached the goal."""
        best = self.last.best if self.last else None
        return best.params if best else None

    def at(self, count: int) -> float:
        """Microseconds of a query expected on `count` rows; infinite when the goal was not reached."""
        done = [self.trials[rows] for rows in sorted(self.trials)]
        if not done and self.parent is not None and not self.verdict:
            return self.handicap * self.parent.at(count)
        if not done or done[-1].best is None:
            return math.inf
        last = done[-1]
        assert last.best is not None
        here = self.evened.get(last.rows, last.best.latency_us)
        if whole(last.rows, count):
            return here
        grown: float = max(1.0, count / last.rows) ** self._growth()
        return here * grown

    def computes_more(self, other: Entry) -> bool:
        """Whether both are graphs over the same codes, built as well, and this one computes more for an
        answer, on the largest sample that both were measured on. Exact, where the clock is noisy; their order
        stays on more rows."""
        here = self._beside(other)
        return here is not None and here[0] > here[1]

    def computes_as_much(self, other: Entry) -> bool:
        """Whether both are such graphs, and this one computes hardly more."""
        here = self._beside(other)
        return here is not None and here[0] <= AS_MUCH * here[1]

    def _beside(self, other: Entry) -> tuple[float, float] | None:
        """What this one and the other compute; None: they are not to be compared by that."""
        if self.factory.partition(",")[2] != other.factory.partition(",")[2]:
            return None
        if self.ef_construction != other.ef_construction:
            return None
        mine, its = self._work(), other._work()
        both = mine.keys() & its.keys()
        return (mine[max(both)], its[max(both)]) if both else None

    def _work(self) -> dict[int, float]:
        """Rows of a sample -> what the graph computes there, if it reached the goal; before its own trials those of
        the lighter one in whose place it came."""
        lighter = self.parent._work() if self.parent is not None and self.parent.factory == self.factory else {}
        own = {rows: trial.best.work for rows, trial in self.trials.items() if trial.best and trial.best.work}
        return lighter | own

    def retime(self, rows: int) -> None:
        """Time a query again on the index that is still there; the least time counts."""
        trial = self.trials[rows]
        assert trial.best is not None
        if trial.again is not None:
            faster = replace(trial.best, latency_us=min(trial.best.latency_us, trial.again()))
            self.trials[rows] = replace(trial, best=faster)

    def free(self, rows: int) -> None:
        """Let go of the index of the trial on so many rows."""
        if rows in self.trials:
            self.trials[rows] = replace(self.trials[rows], again=None)

    def wire(self, count: int) -> Candidate:
        """As the manifest keeps it, with the time on `count` rows."""
        last = self.last
        best = last.best if last else None
        return Candidate(
            factory=self.factory,
            ef_construction=self.ef_construction,
            memory_bytes=self.size.resident,
            sample_rows=last.rows if last else 0,
            params=best.params if best else {},
            recall=round(best.recall if best else last.ceiling, 4) if last else None,
            latency_us=round(self.at(count), 1) if best else None,
            verdict=self.verdict,
        )

    def _growth(self) -> float:
        done = [self.trials[rows] for rows in sorted(self.trials)]
        if len(done) < 2 and self.parent is not None:
            return self.parent._growth()
        prior = next(value for name, value in _GROWTH.items() if name in self.factory)
        if is_graph(self.factory) and "," not in self.factory:
            prior += WHOLE_VECTORS
        if len(done) < 2 or done[-2].best is None or done[-1].best is None or done[-1].rows == done[-2].rows:
            return prior
        if done[-1].raised and not done[-2].raised:
            return prior  # the time of more recall, not of more rows
        if (done[-1].factory == self.factory) != (done[-2].factory == self.factory):
            return prior  # the time of other lists
        measured = math.log(done[-1].best.latency_us / done[-2].best.latency_us) / math.log(
            done[-1].rows / done[-2].rows
        )
        return min(max((measured + prior) / 2, 0.0), 1.0)


def lightest(entries: list[Entry]) -> list[Entry]:
    """Without graphs that another one over the same codes, built as well, makes needless: the one that computes the
    least stays, or instead of it the one with the fewest links that computes as much: more of it fits the caches."""
    least = [one for one in entries if not any(one.computes_more(other) for other in entries)]
    found = [
        min(
            (other for other in entries if other is one or other.computes_as_much(one)),
            key=lambda it: links_in(it.factory),
        )
        for one in least
    ]
    return [one for number, one in enumerate(found) if not any(one is other for other in found[:number])]


def even_out(entries: Iterable[Entry], rows: int) -> None:
    """Take the noise of the clock out of the times of graphs over the same codes, measured on the same sample.

    A distance costs them all the same, so what each needs of them (`Measured.work`, which is exact) says how their
    times stand to each other. The middle cost of a distance and each one's own time are given the same weight.
    """
    kinds: dict[str, list[tuple[Entry, Measured]]] = {}
    for one in entries:
        best = one.trials[rows].best if rows in one.trials else None
        if best is not None and best.work:
            kinds.setdefault(one.factory.partition(",")[2], []).append((one, best))
    for members in kinds.values():
        cost = statistics.median(best.latency_us / best.work for _, best in members)
        for one, best in members:
            one.evened[rows] = math.sqrt(best.latency_us * cost * best.work)


def new_entry(
    factory: str,
    count: int,
    dimension: int,
    metric: Metric,
    ef_construction: int | None = None,
    parent: Entry | None = None,
) -> Entry:
    """A candidate for `count` rows, not measured yet. Raises BadSpec when FAISS cannot build it."""
    size = footprint(make_index(factory, count, dimension, metric), count)
    assert size is not None, factory
    return Entry(factory, size, ef_construction, parent)
