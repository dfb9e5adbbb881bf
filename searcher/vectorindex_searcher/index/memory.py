"""How many bytes an index of `count` rows will take, before it is built.

The formula counts what FAISS writes (impl/index_write.cpp of the pinned version) and what it adds when it reads the
file (the tables of IndexIVFPQ). It looks at an empty index, so it holds for any factory string whose layers it knows;
nothing is trained and no row is read.

    codes      count x bytes of a code                   Flat 4d, SQ8 d, SQ6 3d/4, SQfp16 2d, PQm x4 m/2, RaBitQ d/8 + 8
    lists      8 a row for its id, 8 a list for its size, the centroids 4 d lists
    fast scan  codes come in blocks of 32: half a block a list is empty
    graph      HNSW with M links: 4 x 2M a row on the lowest level and 4 M on each level above, which a node reaches
               with probability 1/M; 8 for its offset and 4 for its level
    refine     a second code of each row
    tables     IVF-PQ under L2: 4 x lists x parts x 2^bits, made again at each load up to 2 GiB
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .binding import faiss

TABLE_LIMIT_BYTES = 2 << 30
"""faiss.precomputed_table_max_bytes: larger tables are not made."""
HEADER_BYTES = 64
"""Of one layer: its type, dimension, count, metric and a few numbers."""
FAST_SCAN_ROWS = 32


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of index.faiss, and of what FAISS computes when it reads the file."""

    file: int
    tables: int = 0

    @property
    def resident(self) -> int:
        """Bytes in memory while the index serves."""
        return self.file + self.tables

    def __add__(self, other: Footprint) -> Footprint:
        return Footprint(self.file + other.file, self.tables + other.tables)


def footprint(index: Any, count: int) -> Footprint | None:
    """The bytes of `index` (a faiss.Index, empty or not) once it holds `count` rows; None for a layer not known here.

    Within 5 % of the real file for the families of `Auto` from a few thousand rows on (tested).
    """
    layer = faiss.downcast_index(index)
    if isinstance(layer, faiss.IndexRefine):
        return _sum(Footprint(HEADER_BYTES), footprint(layer.base_index, count), footprint(layer.refine_index, count))
    if isinstance(layer, faiss.IndexPreTransform):
        return _sum(Footprint(HEADER_BYTES + _transforms(layer)), footprint(layer.index, count))
    if isinstance(layer, faiss.IndexIVF):
        return _inverted(layer, count)
    if isinstance(layer, faiss.IndexHNSW):
        return _sum(Footprint(HEADER_BYTES + _graph(layer.hnsw, count)), footprint(layer.storage, count))
    if isinstance(layer, faiss.IndexRaBitQFastScan | faiss.IndexPQFastScan):
        return Footprint(HEADER_BYTES + _trained(layer) + count * _block_code(layer))
    if isinstance(layer, faiss.IndexFlatCodes):
        return Footprint(HEADER_BYTES + _trained(layer) + count * layer.code_size)
    return None


def _sum(*parts: Footprint | None) -> Footprint | None:
    total = Footprint(0)
    for part in parts:
        if part is None:
            return None
        total += part
    return total


def _transforms(layer: Any) -> int:
    chain = [faiss.downcast_VectorTransform(layer.chain.at(number)) for number in range(layer.chain.size())]
    linear = [one for one in chain if isinstance(one, faiss.LinearTransform)]
    # A PCA keeps all its eigenvectors beside the matrix, so that it can be cut again.
    kept = [one.d_out + (one.d_in + 2 if isinstance(one, faiss.PCAMatrix) else 1) for one in linear]
    return sum(4 * one.d_in * columns + HEADER_BYTES for one, columns in zip(linear, kept, strict=True))


def _graph(hnsw: Any, count: int) -> int:
    probabilities = faiss.vector_to_array(hnsw.assign_probas)
    links = faiss.vector_to_array(hnsw.cum_nneighbor_per_level)[1 : len(probabilities) + 1]
    expected = float(probabilities @ links)
    return int(count * (4 * expected + 8 + 4))


def _inverted(layer: Any, count: int) -> Footprint | None:
    quantizer = footprint(layer.quantizer, layer.nlist)
    fast = isinstance(layer, faiss.IndexIVFFastScan)
    code = _block_code(layer) if fast else layer.code_size
    empty = min(layer.nlist, count) * (FAST_SCAN_ROWS - 1) // 2 * code if fast else 0
    lists = count * (code + 8) + empty + 8 * layer.nlist
    return _sum(Footprint(HEADER_BYTES + _trained(layer) + lists, _tables(layer)), quantizer)


def _block_code(layer: Any) -> int:
    """Bytes a row takes in the blocks of a fast-scan index: parts are padded to an even number."""
    return int(layer.get_block_stride()) // FAST_SCAN_ROWS if hasattr(layer, "get_block_stride") else layer.M2 // 2


def _trained(layer: Any) -> int:
    """Code books of a product quantizer, ranges of a scalar quantizer."""
    if hasattr(layer, "pq"):
        return int(4 * layer.pq.ksub * layer.d)
    return 8 * int(layer.d) if hasattr(layer, "sq") or hasattr(layer, "rabitq") else 0


def _tables(layer: Any) -> int:
    if not isinstance(layer, faiss.IndexIVFPQ | faiss.IndexIVFPQFastScan):
        return 0
    if layer.metric_type != faiss.METRIC_L2 or not layer.by_residual:
        return 0
    size = 4 * layer.nlist * layer.pq.M * layer.pq.ksub
    return int(size) if size <= TABLE_LIMIT_BYTES else 0
