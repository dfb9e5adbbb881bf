"""Searching only some rows of an index: whether by the index itself with a selector, or exactly over those rows.

A graph or an IVF asked for few rows walks past them: at 1 % of the rows and efSearch 64 an HNSW's recall falls from
0.98 to 0.49, and widening the search until recall is back costs ten times the search without a filter, where scanning
the 636 rows costs a seventh. So the cost of both ways is estimated from what was measured on this machine, and the
cheaper one is taken (docs/filters.md has the figures). The index is never changed.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import BadSpec
from ..binding import faiss
from ..parameters import MAX_EF_SEARCH, layers, search_parameters, takes_selector
from ..threads import limit_threads
from .rowset import RowSet
from .subset import Answer, CodeStore, nothing

EXACT_WORTH = 1.5
"""Exact search may cost this much more than the index's own: it loses no row, however the rows lie."""
IVF_EXPONENT = 2 / 3
"""nprobe grows with (1 / share) to this power. Measured on debian-packages: 0.6 to 0.7 keeps recall down to 1 %."""
MAX_FETCH = 4096
"""Rows to ask for at most when those that are not allowed are dropped afterwards."""
_PREPARED_BYTES = 8 << 20
"""Of row sets that are held with their search parameters."""
_CALIBRATION_QUERIES, _CALIBRATION_ROWS, _CALIBRATION_K, _ROUNDS = 8, 1024, 10, 3


def check_hidable(possible: bool, kind: str) -> None:
    """Raises BadSpec/CannotHide unless rows of such an index can be left out of its answers (`Restricted.possible`)."""
    if not possible:
        message = f"deleted ids cannot be hidden in an index of type {kind}"
        remedy = "Use another factory (Flat, IVF, HNSW and their quantised forms can), or remove the tombstones."
        raise BadSpec("CannotHide", message, field="spec.index.factory", remedy=remedy)


class Strategy(StrEnum):
    """How rows were searched."""

    PLAIN = "plain"
    """Every row was allowed."""
    APPROXIMATE = "approximate"
    EXACT = "exact"


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU microseconds on this machine, one query, one thread."""

    search: float
    """The index's own search at the default point, all rows."""
    scan: float
    """Exact search, per row of a kept subset."""
    gather: float
    """Copying one row into a subset."""


@dataclass(frozen=True, slots=True)
class Widened:
    """How to ask the index itself for few rows."""

    params: Mapping[str, int]
    factor: float
    """Cost as a multiple of that of a search over all rows."""
    fetch: int
    """Ask for so many rows without a selector and drop those that are not allowed; 0: use a selector."""
    most: bool
    """Asking for more would not find more."""


class Restricted:
    """Searches of one index that are limited to a RowSet. Thread-safe."""

    def __init__(self, index: Any, default_params: Mapping[str, int]) -> None:
        self._index = index
        self._defaults = dict(default_params)
        self._selects = takes_selector(index)
        self._walk = _walk_of(index)
        self._store = CodeStore(index)
        self._costs: Costs | None = None
        self._lock = threading.Lock()
        # Making the parameters costs as much as ten of a graph's steps. Few, since each holds its row set.
        most = _PREPARED_BYTES // max(1, index.ntotal // 8)
        self._prepared = functools.lru_cache(maxsize=max(1, min(8, most)))(self._prepare)
        self.live: RowSet | None = None
        """Rows that are not hidden; None for all. Replaced as a whole, so every search sees one state of it."""

    @property
    def possible(self) -> bool:
        """Whether this index type can be restricted exactly, or by a selector."""
        return self._selects or self._store.usable

    def search(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        params: Mapping[str, int],
        allowed_rows: RowSet,
        deadline: float = math.inf,
    ) -> tuple[Answer, Strategy]:
        """The k best rows of `only`; FAISS's distances float32 [n, k], rows int64 [n, k] (-1: there is none), and how.

        queries: float32 [n, d], prepared. params: all search parameters of this call, for all rows.
        A query for which the index found fewer than k of at least k rows is asked again, wider, and in the end exactly;
        not after the monotonic time `deadline`, which raises TimeoutError.
        """
        if not self.possible:
            raise ValueError("FAISS can neither restrict a search of this index type nor read its rows")
        if not allowed_rows.matching:
            return nothing(len(queries), k, self._index.metric_type), Strategy.EXACT
        if self._choose(queries, k, params, allowed_rows) is Strategy.EXACT:
            return self._store.search(queries, k, allowed_rows), Strategy.EXACT
        raw, rows = self.approximate(queries, k, params, allowed_rows)
        last, effort = min(k, allowed_rows.matching) - 1, 1
        short = np.flatnonzero(rows[:, last] < 0)
        while len(short):
            if time.monotonic() >= deadline:
                raise TimeoutError("nobody waits for a wider search any more")
            # These queries lie far from the allowed rows. Looking farther pays only while a scan costs more.
            if self._widen(k, params, allowed_rows.share, effort).most and not self._store.usable:
                break
            effort *= 4
            if self._choose(queries, k, params, allowed_rows, effort) is Strategy.EXACT:
                raw[short], rows[short] = self._store.search(queries[short], k, allowed_rows)
                break
            raw[short], rows[short] = self.approximate(queries[short], k, params, allowed_rows, effort)
            short = short[rows[short, last] < 0]
        return (raw, rows), Strategy.APPROXIMATE

    @property
    def sets_bytes(self) -> int:
        """What row sets of filters may take in memory, to be kept for the next query with the same one."""
        return self._store.sets_bytes

    def prepare(self) -> None:
        """Before the first search of some rows: make what it would wait for."""
        self._store.prepare()

    def share_among(self, processes: int) -> None:
        """See Engine.share_among."""
        self._store.share_among(processes)

    def release(self) -> None:
        """Give back what searches have kept, also within the index."""
        self._prepared.cache_clear()
        self._store.release()

    def lengths(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
        """Of the vectors of `rows` int64 [n], as they are stored; None where they cannot be read."""
        return self._store.lengths(rows)

    def exact(self, queries: npt.NDArray[np.float32], k: int, allowed_rows: RowSet) -> Answer:
        """As `search`, always over the rows' stored codes."""
        return self._store.search(queries, k, allowed_rows)

    def approximate(
        self, queries: npt.NDArray[np.float32], k: int, params: Mapping[str, int], allowed_rows: RowSet, effort: int = 1
    ) -> Answer:
        """As `search`, always by the index itself, widened (and `effort` times that); may find fewer rows."""
        wide = self._widen(k, params, allowed_rows.share, effort)
        names = tuple(wide.params.items())
        if not wide.fetch:
            raw, rows = self._index.search(queries, k, params=self._prepared(names, allowed_rows))
            return raw, rows
        fetch = min(max(wide.fetch, k), max(k, self._index.ntotal))
        raw, rows = self._index.search(queries, fetch, params=self._prepared(names, None))
        return _first_allowed(raw, rows, k, allowed_rows)

    def _prepare(self, names: tuple[tuple[str, int], ...], allowed_rows: RowSet | None) -> Any:
        return search_parameters(self._index, dict(names), allowed_rows.selector if allowed_rows else None)

    def _choose(
        self, queries: npt.NDArray[np.float32], k: int, params: Mapping[str, int], allowed_rows: RowSet, effort: int = 1
    ) -> Strategy:
        """Exact search when it is about as cheap, by the costs measured here; see docs/filters.md."""
        if not self._store.usable:
            return Strategy.APPROXIMATE
        if allowed_rows.matching <= 2 * k:
            return Strategy.EXACT
        wide = self._widen(k, params, allowed_rows.share, effort)
        if effort > 1 and wide.most:
            return Strategy.EXACT
        costs = self.costs(queries)
        per_row = costs.scan if self._store.keeps(allowed_rows) else costs.scan + costs.gather
        approximate = costs.search * self._of_default(params) * wide.factor
        return Strategy.EXACT if per_row * allowed_rows.matching <= EXACT_WORTH * approximate else Strategy.APPROXIMATE

    def costs(self, queries: npt.NDArray[np.float32]) -> Costs:
        """What searching costs here; measured on the first call with these queries (float32 [n, d], prepared), in a few
        milliseconds of this thread's CPU time."""
        if self._costs is None:
            with self._lock:
                if self._costs is None:
                    self._costs = self._measure(queries[:_CALIBRATION_QUERIES])
        return self._costs

    def set_costs(self, costs: Costs) -> None:
        """Use known costs instead of measuring them."""
        self._costs = costs

    def _of_default(self, params: Mapping[str, int]) -> float:
        """Cost of a search with `params` over one at the default point: both families' cost is linear in one number."""
        for name in ("efSearch", "nprobe"):
            if self._defaults.get(name) and name in params:
                return params[name] / self._defaults[name]
        return 1.0

    def _widen(self, k: int, params: Mapping[str, int], share: float, effort: int = 1) -> Widened:
        """Parameters that find k rows of a share of all rows about as well as `params` find k of all."""
        wanted = math.ceil(effort * _needed(k) / max(share, 1e-9))
        match self._walk:
            case _Graph():
                return _widen_graph(self._walk, wanted, params, share)
            case _Lists() if self._selects:
                return _widen_lists(self._walk, effort, params, share)
            case None if self._selects:
                return Widened(params, 0.05 + share, 0, True)
            case _:
                return Widened(params, 1.0, min(wanted, MAX_FETCH), wanted >= MAX_FETCH)

    def _measure(self, queries: npt.NDArray[np.float32]) -> Costs:
        threads = faiss.omp_get_max_threads()
        limit_threads(1)  # the clock counts this thread alone
        rng = np.random.default_rng(0)
        count = self._index.ntotal
        rows = np.sort(rng.choice(count, min(count, _CALIBRATION_ROWS), replace=False)).astype(np.int64)
        subset = self._store.gather(rows)
        # The cost of a scan does not depend on the query, and a transform may change the dimension.
        others = rng.standard_normal((len(queries), subset.d)).astype(np.float32)
        prepared = search_parameters(self._index, self._defaults)
        costs = Costs(
            search=_best(lambda query: self._index.search(query, _CALIBRATION_K, params=prepared), queries),
            scan=_best(lambda query: subset.search(query, _CALIBRATION_K), others) / len(rows),
            gather=_best(lambda _: self._store.gather(rows), others[:1]) / len(rows),
        )
        limit_threads(threads)
        return costs


def _needed(k: int) -> float:
    """Rows to draw on average so that k of them are nearly always there: k plus four deviations of a Poisson count."""
    return k + 4 * math.sqrt(k)


def _first_allowed(raw: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], k: int, allowed_rows: RowSet) -> Answer:
    """The first k of each line [n, m >= k] that are in `only`, in order; -1 behind them."""
    allowed = allowed_rows.holds(rows)
    first = allowed[:, :k]
    if first.all():
        return raw[:, :k].copy(), rows[:, :k].copy()
    order = np.argsort(~allowed, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(allowed, order, 1)
    return np.take_along_axis(raw, order, 1), np.where(kept, np.take_along_axis(rows, order, 1), -1)


@dataclass(frozen=True, slots=True)
class _Graph:
    """A graph search walks over rows that are not allowed, so its beam must hold enough that are.

    With a selector FAISS also answers rows that it met outside the beam, where it has not looked at all: on
    debian-packages a filter by section had recall 0.70 on the queries whose beam held fewer than k allowed rows, and
    0.98 on the others. Without one the beam itself comes back, and tells which queries these are.
    """

    ef_search: int
    refined: bool
    """Below a refine layer, which would compute every row of the beam again."""


@dataclass(frozen=True, slots=True)
class _Lists:
    """The nearest allowed rows lie farther away than the nearest of all, so in more lists."""

    nprobe: int
    nlist: int
    fast_scan: bool


def _walk_of(index: Any) -> _Graph | _Lists | None:
    """What a search of the index goes through; None: every row."""
    refined = False
    for layer in layers(index):
        if isinstance(layer, faiss.IndexRefine):
            refined = True
        elif isinstance(layer, faiss.IndexHNSW):
            return _Graph(layer.hnsw.efSearch, refined)
        elif isinstance(layer, faiss.IndexIVF):
            return _Lists(layer.nprobe, layer.nlist, isinstance(layer, faiss.IndexIVFFastScan))
    return None


def _widen_graph(graph: _Graph, wanted: int, params: Mapping[str, int], share: float) -> Widened:
    own = params.get("efSearch", graph.ef_search)
    # The k-th allowed row lies farther out than the k-th of all, so the beam grows too where it holds enough already.
    # FAISS's heap is searched linearly: beyond some thousand the cost grows with the square of the beam.
    wide = max(own, min(max(wanted, math.ceil(own * max(share, 1e-9) ** -0.5)), MAX_EF_SEARCH))
    fetch = 0 if graph.refined else min(wanted, wide)
    return Widened({**params, "efSearch": wide}, wide / own, fetch, wanted >= MAX_EF_SEARCH)


def _widen_lists(lists: _Lists, effort: int, params: Mapping[str, int], share: float) -> Widened:
    own = params.get("nprobe", lists.nprobe)
    wide = min(math.ceil(effort * own * max(share, 1e-9) ** -IVF_EXPONENT), lists.nlist)
    changed = {**params, "nprobe": wide}
    if "quantizer_efSearch" in params:
        changed["quantizer_efSearch"] = max(params["quantizer_efSearch"], 2 * wide)
    # Codes that are not allowed are skipped before their distance is computed; fast-scan computes blocks of them first.
    skipped = 1.0 if lists.fast_scan else 0.3 + 0.7 * share
    return Widened(changed, wide / own * skipped, 0, wide == lists.nlist)


def _best(job: Callable[[npt.NDArray[np.float32]], Any], queries: npt.NDArray[np.float32]) -> float:
    """CPU microseconds of `job` for one query [1, d]: the mean of the best round, so a cold cache does not count."""
    best = math.inf
    for _ in range(_ROUNDS):
        began = time.thread_time_ns()
        for number in range(len(queries)):
            job(queries[number : number + 1])
        best = min(best, time.thread_time_ns() - began)
    return best / 1e3 / len(queries)
