"""What builds do on a GPU, with the same tests as on a CPU. Run by `make test-gpu`, in an environment of its own."""

from __future__ import annotations

import pytest
from layers import unavailable

from vectorindex_searcher.index.device import visible_gpus


@pytest.fixture(autouse=True, scope="session")
def gpus() -> int:
    """How many there are; none: the layer cannot run."""
    count = visible_gpus()
    if not count:
        unavailable("gpu", "FAISS sees no NVIDIA GPU", "make test-gpu, on a machine with one and its driver")
    return count
