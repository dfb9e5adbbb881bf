"""What pods and Jobs of an index take, by the formulas of both planes. What must be built first needs FAISS: only FAISS
knows how large an index of a factory string becomes.
"""

from __future__ import annotations

import bisect
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from vectorindex_operator.api.quantities import memory_bytes
from vectorindex_operator.api.v1alpha1 import Resources
from vectorindex_operator.manifests import sizing
from vectorindex_operator.manifests.podspec import DISK, disk_mebibytes
from vectorindex_searcher.contract import LEAST_SHARDS, Metric

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes. `held`: index and ids in a searcher, and what it makes of them (`residentBytes`). `least`: the memory
    limit below which a build is refused; `whole`: that from which on it trains on its whole sample."""

    index: int
    held: int
    least: int
    whole: int
    build_disk: int

    def pod(self, cores: int) -> tuple[int, int, int]:
        """Memory request and limit, and disk request, of a searcher whose CPU limit is so many cores."""
        given = sizing.container_resources(Resources(), sizing.Need(self.held), self.held, cores)
        requests, limits = given["requests"], given["limits"]
        return memory_bytes(requests["memory"]), memory_bytes(limits["memory"]), memory_bytes(requests[DISK])


def has_faiss() -> bool:
    """Whether sizes can be computed here."""
    return importlib.util.find_spec("faiss") is not None


def sizes(factory: str, rows: int, dimension: int, metric: Metric = Metric.COSINE) -> Sizes | None:
    """What an index of int64 ids and without metadata takes, with or without filters. None: a kind of index for which
    there is no formula. Raises searcher.errors.BadSpec for a factory string that is none."""
    from vectorindex_searcher.build import budget
    from vectorindex_searcher.build.sharing import ID_BYTES, held_bytes
    from vectorindex_searcher.errors import BadSpec
    from vectorindex_searcher.index.factory import make_index, training_rows
    from vectorindex_searcher.index.memory import footprint

    empty = make_index(factory, rows, dimension, metric)
    ids = ID_BYTES * rows
    size, held = footprint(empty, rows), held_bytes(empty, rows, ids)
    if size is None or held is None:
        return None
    sample = budget.sample_bytes(training_rows(empty, rows), dimension)

    def fits(mebibytes: int) -> bool:
        part = budget.sample_bytes(training_rows(empty, rows, mebibytes * _MIB), dimension)
        try:
            budget.require(mebibytes * _MIB, size.resident, part)
        except BadSpec:
            return False
        return True

    whole = max(budget.INTERPRETER_BYTES + budget.peak_bytes(size.resident, sample), 4 * sample)
    return Sizes(
        index=size.file,
        held=held,
        least=_MIB * bisect.bisect_left(range(whole // _MIB + 1), True, lo=1, key=fits),
        whole=whole,
        build_disk=_MIB * disk_mebibytes(4 * rows * dimension + ids + max(size.file, ids)),
    )


def fewest_shards(
    factory: Callable[[int], str],
    rows: int,
    dimension: int,
    memory: str,
    cores: int = 1,
    metric: Metric = Metric.COSINE,
    least: int = LEAST_SHARDS,
) -> int | None:
    """The fewest shards whose searcher asks for at most `memory`, as `index.shards: Auto` counts them but for metadata.
    factory: of a shard of so many rows. None: MAX_SHARDS do not fit, or there is no formula."""
    from vectorindex_searcher.build.sharing import fewest, largest_share
    from vectorindex_searcher.errors import BadSpec

    def fits(shards: int) -> bool:
        share = largest_share(rows, shards)
        try:
            found = sizes(factory(share), share, dimension, metric)
        except BadSpec:
            return True  # too few rows for that kind of index, as partition will say
        return found is not None and found.pod(cores)[0] <= memory_bytes(memory)

    return fewest(fits, least)
