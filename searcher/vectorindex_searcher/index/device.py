"""Where an index is trained and filled: CPU, or a GPU through this thin seam. Everything else is the same code.

The GPU does what FAISS has there: Flat, IVF-Flat, IVF-SQ and IVF-PQ train and add on it; for any other IVF it runs the
k-means; the result is always a CPU index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..contract import Device
from ..errors import BadSpec, Retry
from .binding import faiss
from .factory import FIELD, faiss_words
from .parameters import layers
from .threads import available_cores, limit_threads

Blocks = Callable[[], Iterator[tuple[int, npt.NDArray[np.float32]]]]


def visible_gpus() -> int:
    """GPUs that this FAISS can use; 0 for the CPU build of FAISS."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def pick_device(wanted: Device, reason: str = "") -> tuple[Device, str]:
    """The device to build on and why it is not the wanted one. Raises Retry/GPUNotFound for GPU without a GPU."""
    if wanted is Device.CPU:
        return Device.CPU, reason
    if visible_gpus():
        return Device.GPU, reason
    if wanted is Device.GPU:
        raise Retry(
            "GPUNotFound",
            "spec.build.device is GPU, but FAISS sees none",
            field="spec.build.device",
            remedy="Use the GPU image on a node with a GPU, or device PreferGPU.",
        )
    return Device.CPU, reason or "no GPU is visible to FAISS"


def fill(index: Any, sample: npt.NDArray[np.float32] | None, blocks: Blocks, device: Device) -> Any:
    """Train on `sample` (float32 [n, d], prepared) and add all blocks (first row, float32 [n, d]). Returns a CPU index.

    Memory: the index, the sample until training is done, and the blocks. Raises BadSpec/CannotTrain.
    """
    limit_threads(available_cores())
    working = _to_gpu(index) if device is Device.GPU else index
    if sample is not None:
        try:
            working.train(sample)
        except RuntimeError as error:
            raise BadSpec(
                "CannotTrain",
                f"FAISS cannot train this index on {len(sample)} rows: {faiss_words(error)[:400]}",
                field=FIELD,
                remedy="Use fewer lists or smaller codes, or Flat or HNSW32 for few rows.",
            ) from error
    for _, vectors in blocks():
        working.add(vectors)
    return faiss.index_gpu_to_cpu(working) if working is not index else index


def _to_gpu(index: Any) -> Any:
    """The index on GPU 0 where its type can be; otherwise the same index with its k-means sent there."""
    resources = faiss.StandardGpuResources()
    *outer, innermost = layers(index)
    convertible = (faiss.IndexFlat, faiss.IndexIVFFlat, faiss.IndexIVFScalarQuantizer, faiss.IndexIVFPQ)
    if not outer and type(innermost) in (*convertible, faiss.IndexFlatL2, faiss.IndexFlatIP):
        moved = faiss.index_cpu_to_gpu(resources, 0, index)
        moved.referenced_resources = resources  # must live as long as the index
        return moved
    if isinstance(innermost, faiss.IndexIVF):
        flat = faiss.index_cpu_to_gpu(resources, 0, faiss.IndexFlatL2(innermost.quantizer.d))
        innermost.clustering_index = flat
        innermost.referenced_clustering = (flat, resources)
    return index
