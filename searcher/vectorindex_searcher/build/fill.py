"""From vectors.npy to index.faiss: train (or go on from a checkpoint), add every row in blocks, write.

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

from ..artifact.layout import INDEX_FILE, VECTORS_FILE
from ..contract import Metric
from ..errors import BadSpec
from ..index import heap
from ..index.binding import faiss
from ..index.device import Backend, DeviceFallback
from ..index.factory import FIELD, faiss_words, make_index
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
    dimension: int
    sample: npt.NDArray[np.int64]
    """Row numbers of the training sample; none where the index needs no training."""
    fingerprints: tuple[str, str]
    """Of the source and of the tombstones."""
    vector_column: str

    def empty(self) -> Any:
        """A new untrained index. Raises BadSpec."""
        return make_index(self.factory, self.rows, self.dimension, self.metric)

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
            sample_sha256=hashlib.sha256(np.ascontiguousarray(self.sample, np.int64).data).hexdigest(),
        )


def write_index(order: Order, folder: Path, fallback: DeviceFallback, checkpoints: Checkpoints) -> None:
    """Write `folder`/index.faiss from `folder`/vectors.npy. The index is out of memory when this returns.

    Raises BadSpec/CannotTrain and BadSpec/CannotBuild with FAISS's words, Retry/GPUFailed, MemoryError.
    """
    with VectorFile(folder / VECTORS_FILE, order.metric) as vectors:
        index = _add(order, _trained(order, vectors, folder, fallback, checkpoints), vectors, fallback)
    step("writing")
    faiss.write_index(index, str(folder / INDEX_FILE))
    del index
    heap.release()


def _add(order: Order, trained: Any, vectors: VectorFile, fallback: DeviceFallback) -> Any:
    def blocks() -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        with Progress("adding rows", order.rows, 4 * order.dimension) as progress:
            for first, block in vectors.blocks():
                yield first, block
                progress.add(len(block))

    try:
        return fallback.run(lambda backend: backend.add(trained, blocks, order.rows))
    except RuntimeError as error:
        raise BadSpec("CannotBuild", f"FAISS: {faiss_words(error)[:400]}", field=FIELD) from error


def _trained(
    order: Order, vectors: VectorFile, folder: Path, fallback: DeviceFallback, checkpoints: Checkpoints
) -> Any:
    if not len(order.sample):
        return order.empty()
    training = order.training
    if (found := checkpoints.load(training, folder)) is not None:
        return found
    began = time.monotonic()
    step("training")
    _log.info("training", extra={"rows": len(order.sample), "factory": order.factory})
    index = _train(order, vectors, fallback)
    seconds = time.monotonic() - began
    _log.info("trained", extra={"seconds": round(seconds, 1)})
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
