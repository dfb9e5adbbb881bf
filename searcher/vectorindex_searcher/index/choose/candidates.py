"""A candidate of `Auto` while it is being looked at: its trials so far, and the time to expect on all rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from ...artifact.manifest import Candidate
from ...contract import Metric
from ..factory import make_index
from ..memory import Footprint, footprint
from .sample import whole
from .trial import Trial

_GROWTH = {"_HNSW": 0.2, "HNSW": 0.15, "IVF": 0.45, "Flat": 1.0, "SQ8": 1.0}
"""Prior exponents: time of a query ~ rows ** growth, where only one sample was measured. The first name that is in the
factory string counts: `_HNSW` is a graph over the centroids."""


@dataclass(slots=True)
class Entry:
    """One kind of index with its verdict, which is empty until there is one."""

    factory: str
    size: Footprint
    ef_construction: int | None = None
    parent: Entry | None = None
    """What it is a variant of: its time is expected until there is a trial, and its growth until there are two."""
    trials: dict[int, Trial] = field(default_factory=dict)
    """By rows of the sample."""
    verdict: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return Candidate(factory=self.factory, ef_construction=self.ef_construction, memory_bytes=0).name

    @property
    def last(self) -> Trial | None:
        """The trial on the most rows so far."""
        return self.trials[max(self.trials)] if self.trials else None

    def at(self, count: int) -> float:
        """Microseconds of a query expected on `count` rows; infinite when the goal was not reached."""
        done = [self.trials[rows] for rows in sorted(self.trials)]
        if not done and self.parent is not None and not self.verdict:
            return self.parent.at(count)
        if not done or done[-1].best is None:
            return math.inf
        last = done[-1]
        assert last.best is not None
        if whole(last.rows, count):
            return last.best.latency_us
        grown: float = max(1.0, count / last.rows) ** self._growth()
        return last.best.latency_us * grown

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
        if len(done) < 2 or done[-2].best is None or done[-1].best is None or done[-1].rows == done[-2].rows:
            return prior
        if done[-1].raised and not done[-2].raised:
            return prior  # the time of more recall, not of more rows
        measured = math.log(done[-1].best.latency_us / done[-2].best.latency_us) / math.log(
            done[-1].rows / done[-2].rows
        )
        return min(max((measured + prior) / 2, 0.0), 1.0)


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
