"""Exact search over some rows of an index, by their stored codes: these are copied together and scanned.

Exact with respect to what the index stores: full vectors for Flat, HNSW,Flat and a Flat refine layer, 8-bit codes for
SQ8. Cost grows with the rows asked for and not with the index. Never changes what an index answers.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt

from ..binding import faiss
from .rowset import RowSet

BLOCK_BYTES = 8 << 20
"""Codes copied at a time when a subset is too large to be kept."""
CACHE_SHARE = 8
"""Kept subsets take at most 1 / CACHE_SHARE of the bytes of the index's codes..."""
CACHE_BYTES = (16 << 20, 256 << 20)
"""...within these limits."""
SETS_BYTES = 32 << 20
"""What row sets of filters may take (predicates.py)..."""
KEPT_SETS = 16
"""...and of an index of which so many take more, up to half of what copies may take."""
QUERY_BLOCK = 16
"""Fewer than FAISS's threshold for BLAS, whose |q|^2 + |x|^2 - 2qx loses the distance of data far from the origin."""

_SCANNED = faiss.IndexFlat | faiss.IndexScalarQuantizer
"""Whose codes FAISS scans by themselves."""
_BLOCK_ROWS = 32
"""Of fast-scan codes, unless a factory string asks for another number (PQ32x4fs_64)."""

Answer = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


def cache_bytes(rows: int, row_bytes: int) -> int:
    """What kept subsets of an index of `rows` may take in memory."""
    return int(np.clip(rows * row_bytes // CACHE_SHARE, *CACHE_BYTES))


def lent_bytes(rows: int, total: int) -> int:
    """How many of the `total` bytes of cache_bytes are lent to the row sets of an index of `rows`."""
    wanted = KEPT_SETS * 2 * ((rows + 7) // 8)  # twice: with deleted rows and without
    return min(max(0, wanted - SETS_BYTES), total // 2)


def restricted_bytes(index: Any, rows: int | None = None) -> int:
    """Memory that searching only some rows of `index` (a faiss.Index) can take, beside the file: kept subsets, and for
    lists the table from row to list. Never more than copies of all rows. rows: what it will hold, for an empty index of
    a kind whose rows can be read."""
    store = CodeStore(index)
    if rows is None and not store.usable:
        return 0
    count = int(index.ntotal) if rows is None else rows
    table = 8 * count if store.reads_lists else 0
    return min(cache_bytes(count, store.row_bytes), count * (store.row_bytes + 8)) + table


class CodeStore:
    """Where an index keeps its rows one by one: its refine layer, the storage of a graph, flat codes, or an IVF."""

    def __init__(self, index: Any) -> None:
        self._index = index  # what is inside lives only as long as the whole
        self._transforms, self._store = _store_of(index)
        self.metric: int = self._store.metric_type
        self._lock = threading.Lock()
        self._mapping = threading.Lock()
        """A lock of its own: the table takes a second for many rows, and kept subsets are not to wait for it."""
        self._kept: OrderedDict[RowSet, tuple[Any, npt.NDArray[np.int64], int]] = OrderedDict()
        self._kept_bytes = 0
        self._mapped = False
        self._codes = _codes(self._store)
        width = int(self._store.code_size) if isinstance(self._store, _SCANNED) else 4 * self._store.d
        self.row_bytes: int = width
        """Memory of one copied row."""
        self.reads_lists: bool = isinstance(self._store, faiss.IndexIVF)
        """Whether rows lie in lists, and are found through a table of 8 bytes a row."""
        self.usable: bool = self._try()
        """Whether rows can be read at all; false for types that FAISS cannot reconstruct."""
        total = cache_bytes(index.ntotal, width)
        lent = lent_bytes(index.ntotal, total) if self.usable else 0
        self.cache_bytes: int = total - lent
        """What kept subsets may take."""
        self.sets_bytes: int = SETS_BYTES + lent
        """What kept row sets may take."""

    def _try(self) -> bool:
        if not self._store.ntotal:
            return False
        if not _decodes(self._store):
            return False
        try:
            if self.reads_lists:
                _decode_one(self._store)  # the table that `reconstruct` needs is made on first use
            else:
                self.gather(np.zeros(1, np.int64))
        except RuntimeError:
            return False
        return True

    def share_among(self, processes: int) -> None:
        """See Engine.share_among."""
        self.cache_bytes //= processes
        self.prepare()

    def prepare(self) -> None:
        """Make what the first search of some rows would wait for: with lists, the table from row to list."""
        if self.usable:
            self._map()

    def keeps(self, rows: RowSet) -> bool:
        """Whether a subset of this size is kept for the next query with the same filter."""
        return rows.matching * (self.row_bytes + 8) <= self.cache_bytes // 2

    def gather(self, rows: npt.NDArray[np.int64]) -> Any:
        """A FAISS index over copies of `rows` (int64 [n]), numbered from 0."""
        if isinstance(self._store, faiss.IndexScalarQuantizer) and self._codes is not None:
            copied = faiss.IndexScalarQuantizer(self._store.d, self._store.sq.qtype, self.metric)
            copied.sq = self._store.sq
            copied.is_trained = True
            copied.add_sa_codes(self._codes[rows])
            return copied
        flat = faiss.IndexFlat(self._store.d, self.metric)
        if self._codes is not None:
            flat.add_sa_codes(self._codes[rows])
        else:
            self._map()
            flat.add(self._store.reconstruct_batch(rows))
        return flat

    def lengths(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
        """Of the vectors of `rows` int64 [n]; None where they cannot be read, or a transform may have changed them."""
        if not self.usable or self._transforms:
            return None
        found: npt.NDArray[np.float32] = np.linalg.norm(self.gather(rows).reconstruct_n(0, len(rows)), axis=1)
        return found

    def _map(self) -> None:
        """IVF: build FAISS's table from row to list, 8 bytes a row, if it is not there."""
        if self.reads_lists and not self._mapped:
            with self._mapping:
                if not self._mapped:
                    self._store.make_direct_map()
                    self._mapped = True

    def release(self) -> None:
        """Drop the copies and the table: an index that is to be added to and written is then as it was."""
        with self._lock, self._mapping:
            self._kept.clear()
            self._kept_bytes = 0
            if self._mapped:
                self._store.make_direct_map(False)
                self._mapped = False

    def search(self, queries: npt.NDArray[np.float32], k: int, allowed_rows: RowSet) -> Answer:
        """The k best rows of `only` for each query, by FAISS's own distances.

        queries: float32 [n, d], prepared for the outermost layer. Returns FAISS's distances float32 [n, k] and rows
        int64 [n, k], -1 behind the last one. Memory: the kept subset, or BLOCK_BYTES.
        """
        for transform in self._transforms:
            queries = transform.apply(queries)
        if self.keeps(allowed_rows):
            subset, rows = self._subset(allowed_rows)
            return _numbered(_scan(subset, queries, k), rows)
        best = nothing(len(queries), k, self.metric)
        for some in allowed_rows.blocks(max(1, BLOCK_BYTES // self.row_bytes)):
            best = _merge(best, _numbered(_scan(self.gather(some), queries, k), some), k, self.metric)
        return best

    def _subset(self, allowed_rows: RowSet) -> tuple[Any, npt.NDArray[np.int64]]:
        with self._lock:
            if (kept := self._kept.get(allowed_rows)) is not None:
                self._kept.move_to_end(allowed_rows)
                return kept[:2]
        rows = allowed_rows.rows()
        size = rows.nbytes + len(rows) * self.row_bytes + allowed_rows.nbytes
        subset = self.gather(rows)
        with self._lock:
            if allowed_rows not in self._kept:
                self._kept[allowed_rows] = (subset, rows, size)
                self._kept_bytes += size
            while self._kept_bytes > self.cache_bytes:
                self._kept_bytes -= self._kept.popitem(last=False)[1][2]
        return subset, rows


def _store_of(index: Any) -> tuple[list[Any], Any]:
    """The transforms that lead to the rows' codes (outermost first), and the index that holds them."""
    transforms: list[Any] = []
    while True:
        index = faiss.downcast_index(index)
        if isinstance(index, faiss.IndexRefine):
            index = index.refine_index
        elif isinstance(index, faiss.IndexPreTransform):
            transforms += [faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]
            index = index.index
        elif isinstance(index, faiss.IndexHNSW | faiss.IndexNSG):
            index = index.storage
        else:
            return transforms, index


def _decodes(store: Any) -> bool:
    """Whether what FAISS 1.15.1 decodes is what it searches, for the types that it decodes without an error.

    Of RaBitQ codes of several bits it decodes one, of fast-scan blocks only those of 32 rows rightly; of lists of
    fast-scan codes RaBitQ wrongly, and all but PQ end the process.
    """
    if isinstance(store, faiss.IndexIVFFastScan) and not isinstance(store, faiss.IndexIVFPQFastScan):
        return False
    if not getattr(store, "code_size", 1):
        return False  # SQ0: a row is its list
    return getattr(store, "bbs", _BLOCK_ROWS) == _BLOCK_ROWS and (
        not hasattr(store, "rabitq") or store.rabitq.nb_bits == 1
    )


def _decode_one(ivf: Any) -> None:
    """Decode the first row of the first list that has one. Raises RuntimeError where FAISS has not implemented it."""
    lists = ivf.invlists
    first = next(number for number in range(ivf.nlist) if lists.list_size(number))
    decoded = np.empty(ivf.d, np.float32)
    ivf.reconstruct_from_offset(first, 0, faiss.swig_ptr(decoded))


def _codes(store: Any) -> npt.NDArray[np.uint8] | None:
    """The codes [ntotal, code size] where they are, for the types whose codes FAISS scans by themselves."""
    if not isinstance(store, _SCANNED) or not store.ntotal:
        return None
    size = store.ntotal * store.code_size
    codes: npt.NDArray[np.uint8] = faiss.rev_swig_ptr(store.codes.data(), size).reshape(store.ntotal, store.code_size)
    return codes


def _scan(subset: Any, queries: npt.NDArray[np.float32], k: int) -> Answer:
    if len(queries) <= QUERY_BLOCK:
        raw, found = subset.search(queries, k)
        return raw, found
    parts = [subset.search(queries[start : start + QUERY_BLOCK], k) for start in range(0, len(queries), QUERY_BLOCK)]
    return np.concatenate([raw for raw, _ in parts]), np.concatenate([found for _, found in parts])


def _numbered(answer: Answer, rows: npt.NDArray[np.int64]) -> Answer:
    raw, found = answer
    return raw, np.where(found >= 0, rows[np.maximum(found, 0)], -1)


def nothing(count: int, k: int, metric: int) -> Answer:
    """An answer without rows, [count, k]."""
    worst = -np.inf if metric == faiss.METRIC_INNER_PRODUCT else np.inf
    return np.full((count, k), worst, np.float32), np.full((count, k), -1, np.int64)


def _merge(one: Answer, other: Answer, k: int, metric: int) -> Answer:
    raw = np.concatenate([one[0], other[0]], axis=1)
    rows = np.concatenate([one[1], other[1]], axis=1)
    sign = -1 if metric == faiss.METRIC_INNER_PRODUCT else 1
    order = np.argsort(np.where(rows >= 0, sign * raw, np.inf), axis=1, kind="stable")[:, :k]
    return np.take_along_axis(raw, order, 1), np.take_along_axis(rows, order, 1)
