"""Training an index on the CPU at a bounded cost: many lists are found in two levels instead of one.

k-means with L lists over 100 L rows costs L^2: at 16,384 lists of 768 floats hours. In two levels (sqrt L groups first,
then the lists within each, as many as the group has rows for) it costs L^1.5. The rest of the training is FAISS's own.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from faiss.contrib.clustering import two_level_clustering

from .binding import faiss
from .parameters import layers

TWO_LEVEL_LISTS = 8192
"""From here on one level takes minutes on a few cores, and more than all the rest of the build."""
ROUNDS = 10
_log = logging.getLogger(__name__)


def train(index: Any, sample: npt.NDArray[np.float32]) -> None:
    """Train the empty `index` on float32 [n, d], prepared. Raises RuntimeError in FAISS's words."""
    whole = list(layers(index))
    inner = whole[-1]
    transformed = any(isinstance(layer, faiss.IndexPreTransform) for layer in whole)
    if isinstance(inner, faiss.IndexIVF) and inner.nlist >= TWO_LEVEL_LISTS and not transformed:
        quantizer = faiss.downcast_index(inner.quantizer)
        if isinstance(quantizer, faiss.IndexFlat | faiss.IndexHNSWFlat) and not quantizer.ntotal:
            centroids = _two_levels(sample, inner)
            if centroids is not None:
                quantizer.add(centroids)  # FAISS trains no quantizer that has all its lists
    index.train(sample)


def _two_levels(sample: npt.NDArray[np.float32], ivf: Any) -> npt.NDArray[np.float32] | None:
    """float32 [lists, d]; None where the rows are so uneven that a group would get no list."""
    groups = 2 ** round(math.log2(math.sqrt(ivf.nlist)))
    options = {"spherical": True} if ivf.metric_type == faiss.METRIC_INNER_PRODUCT else {}
    try:
        found, _ = two_level_clustering(  # type: ignore[no-untyped-call]
            sample, groups, ivf.nlist, clustering_niter=ROUNDS, min_points_per_centroid=1, **options
        )
    except (RuntimeError, AssertionError, ValueError) as error:
        _log.warning("lists are trained in one level", extra={"reason": str(error)[:200]})
        return None
    centroids: npt.NDArray[np.float32] = np.ascontiguousarray(found, np.float32)
    return centroids if centroids.shape == (ivf.nlist, sample.shape[1]) else None
