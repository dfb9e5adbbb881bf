"""Where an index is trained and filled and exact neighbours are found: the CPU, or a GPU, behind one small interface.

Everything else is the same code. The GPU does what FAISS has there: Flat, IVF-Flat, IVF-SQ and IVF-PQ train and add on
it, any other IVF runs its k-means there, and exact search runs there for every index. The result is always a CPU index.
One GPU is used, the first that FAISS sees.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..contract import Device
from ..errors import RetryableError
from . import heap
from .binding import faiss
from .factory import faiss_words
from .parameters import layers
from .threads import available_cores, limit_threads
from .training import train

Floats = npt.NDArray[np.float32]
Blocks = Callable[[], Iterator[tuple[int, Floats]]]
"""Makes an iterator over (first row, float32 [n, d] as the index takes them), from the start each time."""
Answer = TypeVar("Answer")

SMALL_TEMP_BYTES = 64 << 20
"""Scratch memory of the GPU after it ran out once; FAISS takes up to 1.5 GiB by itself."""
SMALL_PIECE_ROWS = 1024
"""Rows sent to the GPU at a time after it ran out twice."""
_log = logging.getLogger(__name__)


class Backend(Protocol):
    """One device. Errors are FAISS's: RuntimeError, for GPU memory that ran out too; MemoryError for the host's."""

    device: Device

    def train(self, index: Any, sample: Floats) -> Any:
        """Train the empty `index` (CPU) on float32 [n, d]; the trained index, on the CPU. `sample` is not changed."""
        ...

    def add(self, index: Any, blocks: Blocks, rows: int) -> Any:
        """Add all blocks, `rows` rows, to the empty trained `index` (CPU); the full index, on the CPU."""
        ...

    def nearest(self, queries: Floats, block: Floats, k: int, metric: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Exact k nearest rows of `block` [n, d] for each query [q, d], k <= n: FAISS's distances and rows, [q, k]."""
        ...


class OnCPU:
    """FAISS on `threads` threads (default: every core of this process)."""

    device = Device.CPU

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or available_cores()

    def train(self, index: Any, sample: Floats) -> Any:
        limit_threads(self._threads)
        train(index, sample)
        return index

    def add(self, index: Any, blocks: Blocks, rows: int) -> Any:
        limit_threads(self._threads)
        with heap.tight():
            heap.reserve(index, rows)
            for _, vectors in blocks():
                index.add(vectors)
        return index

    def nearest(self, queries: Floats, block: Floats, k: int, metric: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        limit_threads(self._threads)
        distances, rows = faiss.knn(queries, block, k, metric=metric)
        return distances, rows


class OnGPU:
    """FAISS on the first GPU. temp_bytes: its scratch memory (None: FAISS decides). piece_rows: rows sent at a time."""

    device = Device.GPU

    def __init__(self, temp_bytes: int | None = None, piece_rows: int | None = None) -> None:
        self._piece_rows = piece_rows
        self._resources = faiss.StandardGpuResources()
        if temp_bytes is not None:
            self._resources.setTempMemory(temp_bytes)

    def train(self, index: Any, sample: Floats) -> Any:
        limit_threads(available_cores())
        if _fits_gpu(index):
            moved = faiss.index_cpu_to_gpu(self._resources, 0, index)
            moved.train(sample)
            return faiss.index_gpu_to_cpu(moved)
        *_, innermost = layers(index)
        if not isinstance(innermost, faiss.IndexIVF):
            index.train(sample)
            return index
        # k-means assigns the sample to this index; the rest (code books) is trained on the CPU.
        clustering = faiss.index_cpu_to_gpu(self._resources, 0, faiss.IndexFlatL2(innermost.quantizer.d))
        innermost.clustering_index = clustering
        try:
            index.train(sample)
        finally:
            innermost.clustering_index = None
        return index

    def add(self, index: Any, blocks: Blocks, rows: int) -> Any:
        if not _fits_gpu(index):
            return OnCPU().add(index, blocks, rows)
        limit_threads(available_cores())
        moved = faiss.index_cpu_to_gpu(self._resources, 0, index)
        for _, vectors in blocks():
            for piece in self._pieces(vectors):
                moved.add(piece)
        return faiss.index_gpu_to_cpu(moved)

    def nearest(self, queries: Floats, block: Floats, k: int, metric: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        found = [faiss.knn_gpu(self._resources, q, block, k, metric=metric, device=0) for q in self._pieces(queries)]
        return np.concatenate([d for d, _ in found]), np.concatenate([rows for _, rows in found])

    def _pieces(self, rows: Floats) -> Iterator[Floats]:
        step = self._piece_rows or max(1, len(rows))
        return (rows[start : start + step] for start in range(0, len(rows), step))


def _fits_gpu(index: Any) -> bool:
    """Whether FAISS has this type on the GPU: exact types only, since a subclass (fast-scan) is another index."""
    outermost = faiss.downcast_index(index)
    return type(outermost) in (
        faiss.IndexFlat,
        faiss.IndexFlatL2,
        faiss.IndexFlatIP,
        faiss.IndexIVFFlat,
        faiss.IndexIVFScalarQuantizer,
        faiss.IndexIVFPQ,
    )


@dataclass(frozen=True, slots=True)
class Rung:
    """A backend to try and what to say when it came to that."""

    what: str
    make: Callable[[], Backend]


GPU_RUNGS = (
    Rung("the GPU", OnGPU),
    Rung("the GPU with less scratch memory", lambda: OnGPU(SMALL_TEMP_BYTES)),
    Rung("the GPU in smaller blocks", lambda: OnGPU(SMALL_TEMP_BYTES, SMALL_PIECE_ROWS)),
)
CPU_RUNG = Rung("the CPU", OnCPU)


class DeviceFallback:
    """Runs each step on the best backend that can; a backend that failed once is not tried again.

    Out of GPU memory: less scratch memory, then smaller blocks, then the CPU; any other failure of the GPU: the CPU.
    `reason`: why the device, or the way it is used, is not the wanted one; empty when it is.
    """

    def __init__(self, rungs: Sequence[Rung], reason: str = "") -> None:
        self._rungs = list(rungs)
        self._backend: Backend | None = None
        self.reason = reason

    @property
    def device(self) -> Device:
        """Where the last step ran, or the next one will."""
        return self._current().device

    def run(self, step: Callable[[Backend], Answer]) -> Answer:
        """What `step` answers on the first rung where it works; it must be repeatable.

        Raises Retry/GPUFailed where the GPU was demanded and fails, otherwise what FAISS raises on the last rung.
        """
        while True:
            try:
                return step(self._current())
            except RuntimeError as error:
                if self._current().device is Device.CPU:
                    raise
                self._descend(error)

    def _current(self) -> Backend:
        if self._backend is None:
            self._backend = self._rungs[0].make()
        return self._backend

    def _descend(self, error: RuntimeError) -> None:
        words = faiss_words(error)[:200]
        left = self._rungs[1:]
        if not out_of_memory(error):
            left = [rung for rung in left if rung is CPU_RUNG]
        if not left:
            raise RetryableError(
                "GPUFailed",
                f"FAISS on the GPU: {words}",
                field="spec.build.device",
                remedy="Use a larger GPU, device PreferGPU (falls back to the CPU), or device CPU.",
            ) from error
        self._rungs, self._backend = list(left), None
        self.reason = f"on {left[0].what}, since the GPU failed: {words}"
        _log.warning("the GPU failed, going on with less of it", extra={"now": left[0].what, "reason": words})


def on_cpu(threads: int | None = None) -> DeviceFallback:
    """The CPU and nothing else. threads: default every core."""
    return DeviceFallback([Rung(CPU_RUNG.what, lambda: OnCPU(threads))])


def out_of_memory(error: BaseException) -> bool:
    """Whether FAISS ran out of GPU memory (StandardGpuResources: 'alloc fail ... cudaMalloc error out of memory')."""
    text = str(error)
    return "cudaMalloc" in text or "out of memory" in text


def visible_gpus() -> int:
    """GPUs that this FAISS can use; 0 for the CPU build of FAISS."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def pick_device(wanted: Device, reason: str = "") -> DeviceFallback:
    """The backends to build with, best first. Raises Retry/GPUNotFound for GPU without a GPU.

    reason: why a caller already asks for less than the user did.
    """
    if wanted is Device.CPU:
        return DeviceFallback([CPU_RUNG], reason)
    if visible_gpus():
        return DeviceFallback(GPU_RUNGS if wanted is Device.GPU else (*GPU_RUNGS, CPU_RUNG), reason)
    if wanted is Device.GPU:
        raise RetryableError(
            "GPUNotFound",
            f"spec.build.device is GPU, but {_no_gpu()}",
            field="spec.build.device",
            remedy="Use the GPU image on a node with a GPU, or device PreferGPU.",
        )
    return DeviceFallback([CPU_RUNG], reason or _no_gpu())


def _no_gpu() -> str:
    """Why there is none: the two have different remedies."""
    if not hasattr(faiss, "StandardGpuResources"):
        return "this is the FAISS for CPUs, not the one of the GPU image"
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "no GPU is visible to FAISS" + ("" if seen is None else f" (CUDA_VISIBLE_DEVICES={seen[:100]!r})")
