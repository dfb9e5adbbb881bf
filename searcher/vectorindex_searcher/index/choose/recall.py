"""The one measure of recall: which answers are right, and how many of the nearest rows they are.

By distance, not by number: a row as near as the k-th neighbour is as good as it. Trials of `Auto`, tuning and the gate
count by it; how they search the exact neighbours is theirs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...contract import Metric

RELATIVE_TIE = 1e-5
"""Of a squared distance, or of an inner product: two rows nearer to each other than this are a tie."""
PRODUCT_TIE = 1e-6
"""Of the lengths of query and row: an inner product near 0 is a difference of large terms."""

Floats = npt.NDArray[np.float64]


def tie_width(
    scores: Floats, queries: npt.NDArray[np.float32], rows: npt.NDArray[np.float32], metric: Metric
) -> Floats:
    """How much lower than `scores` [n] a score may be and still be a tie.

    queries: [n, d]. rows: [n, d], those that have these scores: the width follows their own lengths, so that no other
    row, however long, widens it.
    """
    relative: Floats = RELATIVE_TIE * np.abs(scores)
    if metric is not Metric.INNER_PRODUCT:
        return relative
    lengths = np.linalg.norm(queries.astype(np.float64), axis=1) * np.linalg.norm(rows.astype(np.float64), axis=1)
    wide: Floats = np.maximum(relative, PRODUCT_TIE * lengths)
    return wide


def nearest(scores: Floats, rows: npt.NDArray[np.int64], threshold: Floats) -> npt.NDArray[np.bool_]:
    """Which answers `rows` [n, k] (-1: none) with exact `scores` [n, k] are among the nearest.

    threshold: [n], the score of the last neighbour that counts, less what is a tie.
    """
    found: npt.NDArray[np.bool_] = (scores >= threshold[:, None]) & (rows >= 0)
    return found


def recall_of(hits: npt.NDArray[np.bool_], available: npt.NDArray[np.int64]) -> Floats:
    """Recall [n] of answers of which `hits` [n, k] are right; available: [n], neighbours that count, 0 for none."""
    found = np.minimum(hits.sum(axis=1), available)
    values: Floats = np.where(available > 0, found / np.maximum(available, 1), 1.0)
    return values
