"""What the pods of both sides counted about pairs, added up. Pure; knows no rule."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, fields
from operator import attrgetter

from vectorindex_searcher.contract import PairCounts


@dataclass(frozen=True, slots=True)
class PairSums:
    """What pods counted of one segment over some time: sums of `contract.PairCounts` (see there for the fields)."""

    mirrored: int = 0
    unanswered: int = 0
    unreached: int = 0
    dropped: int = 0
    pairs: int = 0
    zero_both: int = 0
    zero_candidate_only: int = 0
    zero_stable_only: int = 0
    scored: int = 0
    c_sum: float = 0.0
    s_sum: float = 0.0
    abs_s_sum: float = 0.0
    c_squares: float = 0.0
    s_squares: float = 0.0
    cs_sum: float = 0.0
    s_abs_s_sum: float = 0.0
    c_abs_s_sum: float = 0.0
    slower: int = 0
    void: int = 0
    other_deleted: int = 0
    repeated: int = 0
    warming: int = 0
    answers_judged: int = 0
    missed_sum: float = 0.0
    missed_squares: float = 0.0
    changed_sum: float = 0.0
    changed_squares: float = 0.0
    kept: int = 0
    gone: int = 0
    changed: int = 0
    displaced: int = 0
    missed: int = 0

    @property
    def usable(self) -> bool:
        """Whether all sums are numbers: those of many pods may have run over."""
        return all(map(math.isfinite, read_sums(self)))


FIELDS = tuple(field.name for field in fields(PairSums))
read_sums = attrgetter(*FIELDS)


def add_pairs(parts: Iterable[PairSums | PairCounts]) -> PairSums:
    """The sum of all of them. Counts of pods and sums of these have the same fields."""
    columns = zip(*map(read_sums, parts), strict=True)
    return PairSums(*map(sum, columns))


Buckets = tuple[tuple[int, PairSums], ...]
"""Buckets and their sums, in order of time."""


def merge_pairs(rows: Iterable[PairCounts]) -> dict[str, Buckets]:
    """The rows of all pods of one side by segment ('' is overall), their buckets on one clock already."""
    return add_by_bucket((row.segment, row.bucket, row) for row in rows)


def add_by_bucket(parts: Iterable[tuple[str, int, PairSums | PairCounts]]) -> dict[str, Buckets]:
    """The sums of each segment's buckets. `parts`: segment, bucket, and what was counted there."""
    found: defaultdict[str, defaultdict[int, list[PairSums | PairCounts]]] = defaultdict(lambda: defaultdict(list))
    for segment, bucket, counted in parts:
        found[segment][bucket].append(counted)
    return {
        segment: tuple((bucket, add_pairs(buckets[bucket])) for bucket in sorted(buckets))
        for segment, buckets in found.items()
    }
