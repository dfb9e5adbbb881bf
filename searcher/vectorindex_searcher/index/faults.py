"""What is wrong with a vector: one rule for the rows of an index and for the queries that are asked of it.

Knows no FAISS: what only reads sources need not load it.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import numpy.typing as npt

from ..contract import Metric


class Fault(StrEnum):
    """Why a vector can neither be indexed nor searched for."""

    NON_FINITE = "NonFiniteVector"
    ZERO = "ZeroVector"
    """Under Cosine: it has no direction."""
    TOO_LONG = "VectorTooLarge"
    """Under the other metrics: its squared length is no float32 number."""


def fault(vectors: npt.NDArray[np.float32], metric: Metric) -> tuple[Fault, npt.NDArray[np.bool_]] | None:
    """What is wrong with float32 [n, d], and with which rows; None: nothing. One rule for rows and for queries.

    A vector that is so short that its square is no float32 number has a direction all the same.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
    odd = ~np.isfinite(squares)
    if odd.any():
        broken = np.asarray(~np.isfinite(vectors).all(axis=1))
        if broken.any():
            return Fault.NON_FINITE, broken
        if metric is not Metric.COSINE:  # which divides in float64
            return Fault.TOO_LONG, odd
    if metric is Metric.COSINE:
        zero = squares == 0
        if zero.any():
            zero &= np.asarray(~vectors.any(axis=1))
            if zero.any():
                return Fault.ZERO, zero
    return None
