"""Searching one artifact: what `validate` measures is this class, and `serve` answers with it.

Opens files that were verified already (artifact.download_verified). Thread-safe: search parameters travel with each
call and the index is never changed. Knows nothing of HTTP, stores or queues.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..artifact.layout import IDS_FILE, INDEX_FILE, METADATA_FILE
from ..artifact.manifest import Manifest
from ..contract import Metric
from ..errors import BadData
from .binding import faiss
from .filters import FilterColumns, Predicate
from .metric import faiss_metric, normalise, to_scores
from .parameters import faiss_ladders, index_type, layers, parameter_limits, search_parameters
from .predicates import MatchCache
from .rows import Ids, RawIds, RowFile
from .selection.restricted import Restricted, Strategy
from .selection.rowset import RowSet
from .threads import limit_threads

PRECOMPUTED_TABLE_BYTES = 2 << 30
"""FAISS rebuilds IVF-PQ tables of up to this size at load and counts them against the deserialisation limit."""
_DEFAULT_BYTE_LIMIT = 1 << 40
_deserialising = threading.Lock()


class Engine:
    """A loaded artifact. Make one with `Engine.open`."""

    def __init__(
        self,
        index: Any,
        manifest: Manifest,
        ids: Ids,
        metadata: RowFile | None = None,
        threads: int = 1,
        restricted: Restricted | None = None,
        cache: MatchCache | None = None,
        default_params: Mapping[str, int] | None = None,
    ) -> None:
        self._index = index
        self._ids = ids
        self._metadata = metadata
        self._threads = threads
        self.manifest = manifest
        self.count: int = index.ntotal
        self.dimension: int = index.d
        self.metric: Metric = manifest.embedding.metric
        given = manifest.default_point.params if default_params is None else default_params
        self.default_params: dict[str, int] = dict(given)
        self.param_limits: dict[str, tuple[int, int]] = parameter_limits(index)
        self._restricted = restricted or Restricted(index, self.default_params)
        self.supports_filter: bool = self._restricted.possible
        """Whether `search(only=...)` works for this index type."""
        self.filter_columns = FilterColumns(metadata.schema if metadata else pa.schema([]))
        """The metadata columns that a filter may name."""
        self._matching = cache or (MatchCache(metadata, self._restricted.sets_bytes) if metadata else None)
        self.metadata_columns: tuple[str, ...] = metadata.columns if metadata else ()
        self.metadata_schema: pa.Schema = metadata.schema if metadata else pa.schema([])
        self.resident_bytes: int = manifest.resident_bytes
        # Parameters come from users: remember the common ones, never without bound.
        self._prepared = functools.lru_cache(maxsize=256)(self._prepare)

    @classmethod
    def open(cls, folder: Path, manifest: Manifest, *, threads: int = 1) -> Engine:
        """Map index.faiss, ids.arrow and metadata.arrow of `folder`.

        `threads`: OpenMP threads of one search call. Raises BadData/BadArtifact when FAISS refuses the file or it is
        not what the manifest says.
        """
        index = read_index(folder / INDEX_FILE)
        _check(index, manifest)
        ids = Ids(folder / IDS_FILE)
        metadata = RowFile(folder / METADATA_FILE) if manifest.file(METADATA_FILE) else None
        for name, count in ((IDS_FILE, ids.count), (METADATA_FILE, metadata.count if metadata else ids.count)):
            if count != manifest.count:
                message = f"{name} has {count} rows, the manifest says {manifest.count}"
                raise BadData("BadArtifact", message, object=name)
        engine = cls(index, manifest, ids, metadata, threads)
        if metadata is not None:
            engine._restricted.prepare()  # no query waits for it
        return engine

    def parameter_grid(self) -> dict[str, tuple[int, ...]]:
        """Values of each search parameter that FAISS holds worth trying; see `faiss_ladders`."""
        return faiss_ladders(self._index)

    def with_threads(self, threads: int) -> Engine:
        """The same loaded index with another number of OpenMP threads for one call (batches: all cores)."""
        return Engine(
            self._index,
            self.manifest,
            self._ids,
            self._metadata,
            threads,
            self._restricted,
            self._matching,
            self.default_params,
        )

    def with_default(self, params: Mapping[str, int]) -> Engine:
        """The same loaded index with another default point (each parameter within `param_limits`). What is hidden later
        in one of the two is not hidden in the other."""
        restricted = Restricted(self._index, params)
        restricted.live = self._restricted.live
        return Engine(
            self._index, self.manifest, self._ids, self._metadata, self._threads, restricted, self._matching, params
        )

    def search(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        params: Mapping[str, int] | None = None,
        *,
        allowed_rows: RowSet | None = None,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The k best rows of each query, best first.

        queries: float32 [n, dimension], finite, as the user gave them (normalised here under Cosine).
        params: overrides of the default point, each within `param_limits` (not checked again here).
        allowed_rows: rows that may be answered (None: all); needs `supports_filter`. Rows of `hide` are never answered.
        Returns scores float32 [n, k] (cosine, inner product, or minus squared L2; -inf where there is no row) and rows
        int64 [n, k] (-1 where the index found fewer than k). Raises ValueError for a wrong shape or an unknown name.
        """
        scores, rows, _ = self.search_with_strategy(queries, k, params, allowed_rows)
        return scores, rows

    def search_with_strategy(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        params: Mapping[str, int] | None = None,
        allowed_rows: RowSet | None = None,
        deadline: float = math.inf,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], Strategy]:
        """As `search`, and how the rows were found. Raises TimeoutError where some rows would be looked for once more,
        farther away, after the monotonic time `deadline`."""
        if queries.ndim != 2 or queries.shape[1] != self.dimension:
            raise ValueError(f"queries have shape {queries.shape}, expected (n, {self.dimension})")
        limit_threads(self._threads)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if self.metric is Metric.COSINE:
            queries = normalise(queries)
        names = tuple(sorted(params.items())) if params else ()
        allowed = self._allowed(allowed_rows)
        if allowed is None:
            raw, rows = _search(self._index, queries, k, self._prepared(names))
            return to_scores(raw, rows, self.metric), rows, Strategy.PLAIN
        (raw, rows), how = self._restricted.search(queries, k, self._merged(names), allowed, deadline)
        return to_scores(raw, rows, self.metric), rows, how

    def _allowed(self, allowed_rows: RowSet | None) -> RowSet | None:
        """What may be answered: a query's own rows without the hidden ones; None for all."""
        if allowed_rows is not None and allowed_rows.count != self.count:
            raise ValueError(f"allowed_rows is a set of {allowed_rows.count} rows, the index has {self.count}")
        live = self._restricted.live
        allowed = allowed_rows if live is None or allowed_rows is None else allowed_rows & live
        allowed = live if allowed is None else allowed
        return None if allowed is None or allowed.matching == self.count else allowed

    def matching(self, predicate: Predicate, deadline: float = math.inf) -> RowSet:
        """The rows that a filter matches; `predicate` was parsed with `filter_columns`.

        Remembered for the next query with an equal filter. The first time it reads the columns: not on an event loop.
        Raises TimeoutError at the monotonic time `deadline`; what was done by then is remembered, too.
        """
        if self._matching is None:
            raise ValueError("this index has no metadata")
        return self._matching(predicate, deadline)

    def keeps_matching(self, predicate: Predicate) -> bool:
        """Whether `matching` has the rows at hand: they are counted with what filters may keep."""
        return self._matching is not None and predicate in self._matching

    def hide(self, rows: RowSet | None) -> None:
        """From now on never answer these rows (deleted ids), whatever a query asks; None hides nothing.

        Takes effect for searches that begin afterwards, also those of `with_threads` engines. Needs `supports_filter`.
        """
        if rows is not None and rows.count != self.count:
            raise ValueError(f"hide takes a set of {self.count} rows, got {rows.count}")
        self.show_only(None if rows is None or not rows.matching else ~rows)

    def show_only(self, live: RowSet | None) -> None:
        """From now on answer these rows at most; None: all. As `hide` of all others, without a copy of the set."""
        if live is not None and live.count != self.count:
            raise ValueError(f"show_only takes a set of {self.count} rows, got {live.count}")
        if live is not None:
            self._restricted.prepare()
        self._restricted.live = live

    def share_among(self, processes: int) -> None:
        """Before this process is forked into so many that search: each keeps its share of what filters may keep, and
        what every filter needs is made now, once for all."""
        if self._matching is not None:
            self._matching.limit_bytes //= processes
        self._restricted.share_among(processes)

    def release(self) -> None:
        """Give back what searches of some rows have kept. For an index that a build goes on with; nobody searches."""
        self._restricted.release()

    @property
    def live(self) -> RowSet | None:
        """The rows that `hide` has left; None for all."""
        return self._restricted.live

    def lengths(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
        """The lengths of these rows' vectors as they are stored, float32 [n]; None where they cannot be read."""
        return self._restricted.lengths(rows)

    def _merged(self, names: tuple[tuple[str, int], ...]) -> dict[str, int]:
        merged = self.default_params | dict(names)
        if unknown := merged.keys() - self.param_limits.keys():
            raise ValueError(f"this index has no search parameter {', '.join(sorted(unknown))}")
        return merged

    def _prepare(self, names: tuple[tuple[str, int], ...]) -> Any:
        return search_parameters(self._index, self._merged(names))

    def ids(self, rows: npt.NDArray[np.int64]) -> list[int] | list[str]:
        """The user's ids of `rows` (int64 [n], each in [0, count); -1 is not a row)."""
        return self._ids(rows)

    def id_chunks(self) -> list[Any]:
        """All ids in order of the rows, as mapped Arrow arrays."""
        return self._ids.chunks()

    def raw_ids(self, rows: npt.NDArray[np.int64]) -> RawIds:
        """As `ids`, as bytes."""
        return self._ids.raw(rows)

    def metadata(self, rows: npt.NDArray[np.int64], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """One dict per row with the named metadata columns (default: all), as JSON has them. KeyError: none such."""
        wanted = self.metadata_columns if columns is None else tuple(columns)
        if not wanted:
            return [{} for _ in range(len(rows))]
        if self._metadata is None:
            raise KeyError(wanted[0])
        values = [self._metadata.values(rows, column) for column in wanted]
        return [dict(zip(wanted, row, strict=True)) for row in zip(*values, strict=True)]

    def metadata_bytes(self, rows: npt.NDArray[np.int64]) -> int:
        """What `metadata` of these rows holds, about, without reading it."""
        return self._metadata.nbytes(rows) if self._metadata is not None else 0


def _search(
    index: Any, queries: npt.NDArray[np.float32], k: int, params: Any
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """FAISS's distances and rows [n, k] of `queries`: float32 [n, d], C-contiguous.

    What faiss.Index.search does after its checks, which the caller made already; they cost 3 us a call.
    """
    count = len(queries)
    raw = np.empty((count, k), np.float32)
    rows = np.empty((count, k), np.int64)
    index.search_c(count, faiss.swig_ptr(queries), k, faiss.swig_ptr(raw), faiss.swig_ptr(rows), params)
    return raw, rows


def read_index(path: Path, *, writable: bool = False) -> Any:
    """Read a FAISS index, mapped where its type can be, with allocation limits. Raises BadData/BadArtifact.

    writable: in memory and fit for adding rows.
    """
    with _limits(path.stat().st_size):
        try:
            if not writable:
                return _completed(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY))
        except RuntimeError:
            pass  # a type that cannot be mapped; a broken file fails again below
        try:
            return _completed(faiss.read_index(str(path), 0 if writable else faiss.IO_FLAG_READ_ONLY))
        except (RuntimeError, MemoryError) as error:
            raise BadData("BadArtifact", f"{path.name}: FAISS refuses it: {error}", object=path.name) from error


def _completed(index: Any) -> Any:
    """FAISS 1.15.1 forgets a fast-scan IVF's quantizer when it reads the file, and decoding a row then ends the
    process."""
    *_, innermost = layers(index)
    if isinstance(innermost, faiss.IndexIVFPQFastScan) and innermost.fine_quantizer is None:
        innermost.fine_quantizer = innermost.pq
    return index


@contextlib.contextmanager
def _limits(size: int) -> Iterator[None]:
    """No vector of the file can be larger than the file. The limits are global in FAISS, hence the lock."""
    with _deserialising:
        faiss.set_deserialization_vector_byte_limit(size + PRECOMPUTED_TABLE_BYTES)
        faiss.set_deserialization_loop_limit(size + 1)
        try:
            yield
        finally:
            faiss.set_deserialization_vector_byte_limit(_DEFAULT_BYTE_LIMIT)
            faiss.set_deserialization_loop_limit(0)


def _check(index: Any, manifest: Manifest) -> None:
    facts = (
        ("rows", index.ntotal, manifest.count),
        ("dimensions", index.d, manifest.dimension),
        ("metric", index.metric_type, faiss_metric(manifest.embedding.metric)),
        ("type", index_type(index), manifest.index_type),
    )
    for name, found, expected in facts:
        if found != expected:
            message = f"{INDEX_FILE}: {name} is {found}, the manifest says {expected}"
            raise BadData("BadArtifact", message, object=INDEX_FILE)
