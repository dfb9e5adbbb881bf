"""The recall of merged answers to canary queries: the same sum for `validate`, which has all shards, and for a router,
which is told what each found. Opens no FAISS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..contract import CANARY_TOLERANCE, ShardCanary
from ..errors import BadData
from ..index.choose.recall import recall_of


@dataclass(frozen=True, slots=True)
class PartAnswers:
    """What one shard answers to n canary queries."""

    scores: npt.NDArray[np.float32]
    """[n, k], the engine's own, best first; -inf where there is no hit."""
    right: npt.NDArray[np.bool_]
    """[n, k]: whether the hit is among the k nearest rows of all shards."""

    @classmethod
    def of(cls, told: ShardCanary) -> PartAnswers:
        """As a searcher tells it."""
        shape = (len(told.scores), told.k)
        scores, right = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.bool_)
        for number, (hits, places) in enumerate(zip(told.scores, told.right, strict=True)):
            scores[number, : len(hits)] = hits
            right[number, list(places)] = True
        return cls(scores, right)


def merged_recall(parts: Sequence[PartAnswers], available: npt.NDArray[np.int64]) -> float:
    """Mean recall@k, in [0, 1], of the k best hits of all parts by score; of equal scores the first part's. `parts`: in
    the order of the shards; available: [n], right answers there are, at most k."""
    k = parts[0].scores.shape[1]
    scores = np.concatenate([part.scores for part in parts], axis=1)
    right = np.concatenate([part.right for part in parts], axis=1)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(recall_of(np.take_along_axis(right, best, 1), available).mean())


def must_reach(recall: float, measured: float, queries: int, k: int) -> None:
    """Raises BadData/CanaryRecall for a recall on canary queries that is below what the gate measured on the same."""
    least = measured - CANARY_TOLERANCE
    # No queries prove nothing; the comparison allows for the last bit of a mean.
    if not queries or recall < least - 1e-9:
        raise BadData(
            "CanaryRecall",
            f"recall@{k} on {queries} canary queries is {recall:.4f}; the gate measured "
            f"{measured:.4f}, so at least {least:.4f} is needed",
            remedy="Compare FAISS version and CPU features of the gate's pod (report.json) and of this one.",
        )
