"""vectors.npy of a source without vectors: what an index that was built elsewhere gives back of them.

Of an index that keeps vectors (Flat, HNSW or IVF over Flat, a refinement of Flat) that is what it was built from, of
any other what its codes stand for. What is measured against it proves the search and not the codes: the manifest, the
report and whoever judges it say so.

Memory: the index, 8 bytes a row where it has lists, and a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..contract import Metric
from ..errors import BadData, BadSpec
from ..index.binding import faiss
from ..index.faults import fault
from ..index.parameters import index_type
from ..index.vectors import VectorWriter
from ..progress import Progress

BLOCK_BYTES = 16 << 20
"""Of the vectors that are in memory at once."""


def write_reconstructions(index: Any, path: Path, key: str, metric: Metric) -> None:
    """Write the vector of each label of the index, in their order. Whether it can give them is asked of it, not of its
    name. Raises BadSpec/CannotReconstruct, BadData/BadIndexFile."""
    step = max(1, BLOCK_BYTES // (4 * index.d))
    with (
        _by_label(index),
        Progress("reconstructing rows", index.ntotal, 4 * index.d) as progress,
        VectorWriter(path, index.ntotal, index.d, half=False) as file,
    ):
        for start in range(0, index.ntotal, step):
            labels = np.arange(start, min(start + step, index.ntotal))
            try:
                vectors = index.reconstruct_batch(labels)
                comes_back = start > 0 or _come_back(index, labels, vectors)
            except RuntimeError as error:
                raise _cannot(index, key, str(error)) from None
            if not comes_back:
                raise _cannot(index, key, "its transform leads elsewhere on the way back")
            if (found := fault(vectors, metric)) is not None:
                message = f"{key}: what it has of row {start + int(np.argmax(found[1]))} is a {found[0].value}"
                remedy = "Build the index again from vectors that can be searched for."
                raise BadData("BadIndexFile", message, object=key, field="spec.index.import", remedy=remedy)
            file.write(vectors)
            progress.add(len(labels))


@contextmanager
def _by_label(index: Any) -> Iterator[None]:
    """Lists that know where each label is, for as long: a table that the file has itself is not believed."""
    lists = faiss.try_extract_index_ivf(index)
    if lists is None:
        yield
        return
    lists.make_direct_map(False)
    lists.make_direct_map(True)
    try:
        yield
    finally:
        lists.make_direct_map(False)


def _come_back(index: Any, labels: npt.NDArray[np.int64], vectors: npt.NDArray[np.float32]) -> bool:
    """Whether transforms make of the vectors what lies behind them. One that whitens says so and does not: what scales
    it is forgotten in its file."""
    outer = faiss.downcast_index(index)
    if isinstance(outer, faiss.IndexRefine):
        outer = faiss.downcast_index(outer.refine_index)
    if not isinstance(outer, faiss.IndexPreTransform):
        return True
    behind = outer.index.reconstruct_batch(labels)
    for number in range(outer.chain.size()):
        vectors = outer.chain.at(number).apply(vectors)
    return bool(np.allclose(vectors, behind, rtol=0, atol=1e-3 * float(np.abs(behind).max())))


def _cannot(index: Any, key: str, why: str) -> BadSpec:
    said = why.rpartition("Error: ")[2].strip() or why
    return BadSpec(
        "CannotReconstruct",
        f"{key} is an {index_type(index)}, which gives no vectors back ({said[:200]})",
        object=key,
        field="spec.source.columns.vector",
        remedy="Name the column of the vectors that it was built from.",
    )
