"""From vectors.npy to index.faiss: train (or go on from a checkpoint), add rows in blocks, write.

Memory: budget.py. Devices: index/device.py. Knows nothing of sources, manifests and operating points.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..artifact.layout import INDEX_FILE
from ..contract import Metric
from ..errors import BadSpec
from ..index import heap
from ..index.binding import faiss
from ..index.device import Backend, Blocks, DeviceFallback
from ..index.factory import FIELD, faiss_words, make_index, set_ef_construction
from ..index.vectors import VectorFile
from ..progress import Progress, step
from .checkpoint import Checkpoints, Training

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """What to build from vectors.npy."""

    factory: str
    metric: Metric
    rows: int
    """Of the source: all that the index will hold in the end."""
    dimension: int
    sample: npt.NDArray[np.int64]
    """Row numbers of the training sample; none where the index needs no training."""
    fingerprints: tuple[str, str]
    """Of the source and of the tombstones."""
    vector_column: str
    ef_construction: int | None = None
    """Of its graphs; see `make_index`."""
    moved: str = ""
    """SHA-256 of the source's row numbers that were moved to the end of vectors.npy; empty when none were."""

    def empty(self) -> Any:
        """A new untrained index. Raises BadSpec."""
        return make_index(self.factory, self.rows, self.dimension, self.metric, self.ef_construction)

    @property
    def training(self) -> Training:
        return Training(
            fingerprint=self.fingerprints[0],
            tombstones=self.fingerprints[1],
            vector_column=self.vector_column,
            metric=self.metric,
            dimension=self.dimension,
            count=self.rows,
            factory=self.factory,
            sample_rows=len(self.sample),
            sample_sha256=hash_rows(self.sample),
            moved=self.moved,
        )


def hash_rows(rows: npt.NDArray[np.int64]) -> str:
    """SHA-256 of row numbers."""
    return hashlib.sha256(np.ascontiguousarray(rows, np.int64).data).hexdigest()


def filled(
    order: Order,
    vectors: VectorFile,
    fallback: DeviceFallback,
    checkpoints: Checkpoints | None,
    folder: Path,
    rows: npt.NDArray[np.int64] | None = None,
) -> Any:
    """A trained index with the rows of `vectors` (all that it shows, or int64 `rows`, rising), with room for all
    `order.rows`.

    checkpoints: where training is kept (None: nowhere); folder: to work in. Raises BadSpec/CannotTrain and
    BadSpec/CannotBuild with FAISS's words, Retry/GPUFailed, MemoryError.
    """
    trained = _trained(order, vectors, folder, fallback, checkpoints)
    count = vectors.count if rows is None else len(rows)

    def blocks() -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        with Progress("adding rows", count, 4 * order.dimension) as progress:
            for first, block in vectors.blocks() if rows is None else vectors.blocks_of(rows):
                yield first, block
                progress.add(len(block))

    return add(trained, blocks, order.rows, fallback)


def add(index: Any, blocks: Blocks, rows: int, fallback: DeviceFallback) -> Any:
    """`index` with the rows of `blocks`, and room for `rows` in all. Raises BadSpec/CannotBuild with FAISS's words."""
    try:
        return fallback.run(lambda backend: backend.add(index, blocks, rows))
    except RuntimeError as error:
        raise BadSpec("CannotBuild", f"FAISS: {faiss_words(error)[:400]}", field=FIELD) from error


def write_index(index: Any, folder: Path) -> None:
    """Write `folder`/index.faiss. The caller drops the index, and the heap gives its memory back."""
    step("writing")
    faiss.write_index(index, str(folder / INDEX_FILE))


def _trained(
    order: Order, vectors: VectorFile, folder: Path, fallback: DeviceFallback, checkpoints: Checkpoints | None
) -> Any:
    if not len(order.sample):
        return order.empty()
    training = order.training
    if checkpoints is not None and (found := checkpoints.load(training, folder)) is not None:
        set_ef_construction(found, order.ef_construction)
        return found
    began = time.monotonic()
    step("training")
    _log.info("training", extra={"rows": len(order.sample), "factory": order.factory})
    index = _train(order, vectors, fallback)
    seconds = time.monotonic() - began
    _log.info("trained", extra={"seconds": round(seconds, 1)})
    if checkpoints is not None:
        checkpoints.save(training, index, seconds, folder)
    return index


def _train(order: Order, vectors: VectorFile, fallback: DeviceFallback) -> Any:
    """The trained index. The sample is out of memory when this returns."""
    sample = vectors.gather(order.sample)

    def train(backend: Backend) -> Any:
        return backend.train(order.empty(), sample)

    try:
        with heap.tight():
            return fallback.run(train)
    except RuntimeError as error:
        raise BadSpec(
            "CannotTrain",
            f"FAISS cannot train this index on {len(sample)} rows: {faiss_words(error)[:400]}",
            field=FIELD,
            remedy="Use fewer lists or smaller codes, or Flat or HNSW32 for few rows.",
        ) from error
