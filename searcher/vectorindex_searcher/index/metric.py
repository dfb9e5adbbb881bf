"""Metrics in FAISS's terms and in the user's: the only place where one becomes the other.

Cosine is built and searched as L2 on unit vectors: |a-b|^2 = 2 - 2 cos, the same order, and an IVF assigned by L2
reaches a higher recall than the same one assigned by inner product.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..contract import Metric
from .binding import faiss


def faiss_metric(metric: Metric) -> int:
    """faiss.METRIC_INNER_PRODUCT or faiss.METRIC_L2."""
    return int(faiss.METRIC_INNER_PRODUCT if metric is Metric.INNER_PRODUCT else faiss.METRIC_L2)


def normalise(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A copy of float32 [n, d] with rows of length 1. A zero row stays zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))[:, None]
    # Divided in float64 (a tiny vector has a direction too), without a float64 copy of the whole array.
    return np.divide(vectors, np.where(norms == 0, 1, norms), out=np.empty_like(vectors), casting="same_kind")


def to_scores(raw: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], metric: Metric) -> npt.NDArray[np.float32]:
    """FAISS's distances [n, k] as the user's scores: higher is better, -inf where `rows` is -1."""
    scores: npt.NDArray[np.float32]
    match metric:
        case Metric.COSINE:
            scores = np.clip(1 - raw / 2, -1, 1).astype(np.float32, copy=False)
        case Metric.INNER_PRODUCT:
            scores = raw
        case Metric.L2:
            scores = -raw
    return np.where(rows >= 0, scores, np.float32(-np.inf))
