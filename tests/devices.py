"""What tests of a device do with it: fill an index, ask it, compare with what is exact (tests/unit, tests/gpu)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vectorindex_searcher.contract import Metric
from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.device import Backend, DeviceFallback, Rung
from vectorindex_searcher.index.parameters import layers
from vectorindex_searcher.index.vectors import VectorFile, VectorWriter
from vectorindex_searcher.proof.exact import exact_search

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
FACTORIES = ("Flat", "IVF16,Flat", "IVF16,SQ8", "IVF16,PQ8x4fs,RFlat", "HNSW16,SQ8", "PCA16,IVF16,SQ8")


def random(count: int, dimension: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)


def filled(backend: Backend, factory: str, data: Floats, *, step: int = 700, nprobe: int = 16) -> Any:
    """An index of all rows, which come in blocks of `step`, trained on the first two thirds."""
    index = faiss.index_factory(data.shape[1], factory)
    trained = index if index.is_trained else backend.train(index, data[: 2 * len(data) // 3])
    blocks = range(0, len(data), step)
    full = backend.add(trained, lambda: ((start, data[start : start + step]) for start in blocks), len(data))
    for layer in layers(full):
        if isinstance(layer, faiss.IndexIVF):
            layer.nprobe = nprobe
    return full


def recall_of_itself(index: Any, data: Floats) -> float:
    """Of the first rows, the share that is among the ten nearest of itself."""
    _, rows = index.search(data[:300], 10)
    return float(np.mean((rows == np.arange(300)[:, None]).any(axis=1)))


def exact_rows(data: Floats, queries: Floats, k: int) -> Rows:
    """Nearest rows by L2, [q, k]."""
    distances = (data.astype(np.float64) ** 2).sum(axis=1) - 2 * queries.astype(np.float64) @ data.T
    return np.argsort(distances, axis=1)[:, :k]


def truth_of(backend: Callable[[], Backend], metric: Metric, folder: Path) -> tuple[Rows, Rows]:
    """What exact search finds on this device, and what it must find, [50, 5]."""
    data = random(2000, 24)
    with VectorWriter(folder / "vectors.npy", 2000, 24, half=False) as writer:
        writer.write(data)
    with VectorFile(folder / "vectors.npy", metric) as vectors:
        truth = exact_search(vectors, data[:50], 5, metric, fallback=DeviceFallback([Rung("x", backend)]))
    wide = data.astype(np.float64)
    if metric is Metric.COSINE:
        wide /= np.linalg.norm(wide, axis=1)[:, None]
    scores = wide[:50] @ wide.T
    if metric is not Metric.INNER_PRODUCT:
        scores = -((wide[:50, None] - wide[None]) ** 2).sum(axis=2)
    return truth.rows[:, :5], np.argsort(-scores, axis=1)[:, :5]
