"""Metrics in FAISS's terms and in the user's: the only place where one becomes the other.

Cosine is built and searched as L2 on unit vectors: |a-b|^2 = 2 - 2 cos, the same order, and an IVF assigned by L2
reaches a higher recall than the same one assigned by inner product.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..contract import Metric
from .binding import faiss

_FEW_ROWS = 64
_ONE, _MINUS_HALF = np.float32(1), np.float32(-0.5)


def faiss_metric(metric: Metric) -> int:
    """faiss.METRIC_INNER_PRODUCT or faiss.METRIC_L2."""
    return int(faiss.METRIC_INNER_PRODUCT if metric is Metric.INNER_PRODUCT else faiss.METRIC_L2)


def normalise(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A copy of float32 [n, d] with rows of length 1. A zero row stays zero."""
    # Divided in float64: a tiny vector has a direction too.
    if len(vectors) == 1:
        wide = vectors.astype(np.float64)
        wide /= math.sqrt(np.dot(wide[0], wide[0])) or 1.0
        return wide.astype(np.float32)
    if len(vectors) <= _FEW_ROWS:
        wide = vectors.astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        norms[norms == 0] = 1
        wide /= norms[:, None]
        return wide.astype(np.float32)
    # The same, without a float64 copy of the whole array.
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))[:, None]
    return np.divide(vectors, np.where(norms == 0, 1, norms), out=np.empty_like(vectors), casting="same_kind")


def to_scores(raw: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], metric: Metric) -> npt.NDArray[np.float32]:
    """FAISS's distances [n, k] as the user's scores: higher is better, -inf where `rows` is -1. May write on `raw`."""
    match metric:
        case Metric.COSINE:
            # 1 - raw / 2, within [-1, 1] whatever rounding did; in place, because a query's worth of numbers costs
            # less than the array to hold them.
            raw *= _MINUS_HALF
            raw += _ONE
            np.minimum(raw, _ONE, out=raw)
            np.maximum(raw, -_ONE, out=raw)
        case Metric.INNER_PRODUCT:
            pass
        case Metric.L2:
            np.negative(raw, out=raw)
    missing = rows < 0
    if np.count_nonzero(missing):  # a third of what any() costs
        raw[missing] = -np.inf
    return raw
