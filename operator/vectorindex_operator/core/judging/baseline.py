"""The stable revision's evidence, frozen when it loses the traffic: what relative rules compare with.

Sums only, so that it fits into a Kubernetes status (a few KB). Pure; knows no rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vectorindex_operator.core.judging.blocks import OVERALL
from vectorindex_operator.core.judging.evidence import (
    CLICKS_LATE,
    COUNTS,
    NO_CLICKS,
    SUMS,
    TOPS,
    Counts,
    RevisionEvidence,
    add_up,
    first_bucket,
)
from vectorindex_operator.core.judging.histogram import slowest
from vectorindex_searcher.contract import BUCKET_SECONDS, EvidenceBucket

_WIRE_NAMES = {name: EvidenceBucket.model_fields[name].alias or name for name in (*COUNTS, *SUMS, *TOPS)}
BASELINE_TAIL = 0.85
"""A baseline keeps its latency histogram above this quantile: P95 and P99 need no more."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """Stable's evidence of [from_time, to_time] as sums per segment ('' is all), small enough for a status."""

    from_time: float
    to_time: float
    cells: Mapping[str, Counts]

    @property
    def mix(self) -> dict[str, int]:
        """Queries per segment."""
        return {name: cell.queries for name, cell in self.cells.items() if name != OVERALL}

    def to_wire(self) -> dict[str, object]:
        """JSON for a Kubernetes status: camelCase, lists and numbers only."""
        return {
            "from": self.from_time,
            "to": self.to_time,
            "segments": [{"segment": name, **_cell_to_wire(cell)} for name, cell in sorted(self.cells.items())],
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, object]) -> Baseline:
        """The inverse of `to_wire`. ValueError when it is something else."""
        try:
            segments = wire["segments"]
            if not isinstance(segments, list):
                raise TypeError("segments is not a list")
            cells = {str(item["segment"]): _cell_from_wire(item) for item in segments}
            return cls(float(str(wire["from"])), float(str(wire["to"])), cells)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a baseline: {error!r}") from error


def freeze_baseline(merged: RevisionEvidence, from_t: float, to_t: float) -> Baseline:
    """Stable's evidence between two times of the operator's clock, to be kept when it loses the traffic.

    Only complete buckets inside. The longer, the better a relative rule can be judged: 15 minutes or more, not one
    window. Empty segments are left out; the latency histogram keeps its tail only.
    """
    first = max(first_bucket(from_t), merged.oldest)
    stop = min(math.floor(to_t / BUCKET_SECONDS), merged.complete_before)
    clicks_before = merged.complete_before - CLICKS_LATE

    def known(bucket: int, cell: Counts) -> Counts:
        """Without queries whose clicks may still come: they would count as not clicked."""
        return cell if bucket < clicks_before or not cell.tracked else replace(cell, **NO_CLICKS)

    cells = {
        name: add_up(known(bucket, cell) for bucket, cell in buckets.items() if first <= bucket < stop)
        for name, buckets in merged.segments.items()
    }
    kept = {name: _compact(cell) for name, cell in cells.items() if cell.queries}
    return Baseline(from_time=first * BUCKET_SECONDS, to_time=max(first, stop) * BUCKET_SECONDS, cells=kept)


def mix_distance(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    """Total variation distance of two segment mixes (queries per segment), 0 to 1; 0 while either is empty."""
    total_one, total_other = sum(one.values()), sum(other.values())
    if not total_one or not total_other:
        return 0.0
    names = sorted(one.keys() | other.keys())
    return math.fsum(abs(one.get(n, 0) / total_one - other.get(n, 0) / total_other) for n in names) / 2


def _compact(cell: Counts) -> Counts:
    """The same with all fast queries in bin 0: order statistics above `BASELINE_TAIL` stay what they were.

    Scores that are not numbers are dropped (JSON has no NaN): TopScore has no baseline then.
    """
    if not (math.isfinite(cell.top_sum) and math.isfinite(cell.top_sum_squares)):
        cell = replace(cell, top_count=0, top_sum=0.0, top_sum_squares=0.0)
    total = sum(cell.latency.values())
    if not total:
        return cell
    cut = slowest(cell.latency, max(1, math.ceil((1 - BASELINE_TAIL) * total)))
    latency: dict[int, int] = {}
    for index, count in cell.latency.items():
        kept = index if index >= cut else 0
        latency[kept] = latency.get(kept, 0) + count
    return replace(cell, latency=latency)


def _cell_to_wire(cell: Counts) -> dict[str, object]:
    tail = sorted(index for index in cell.latency if index > 0)
    first = tail[0] if tail else 1
    return {
        **{wire: value for name, wire in _WIRE_NAMES.items() if (value := getattr(cell, name))},
        "latencyFaster": cell.latency.get(0, 0),
        "latencyFirstBin": first,
        "latencyCounts": [cell.latency.get(index, 0) for index in range(first, tail[-1] + 1)] if tail else [],
    }


def _cell_from_wire(item: Mapping[str, object]) -> Counts:
    counts = item["latencyCounts"]
    if not isinstance(counts, list):
        raise TypeError("latencyCounts is not a list")
    first = int(str(item["latencyFirstBin"]))
    latency = {0: int(str(item["latencyFaster"])), **{first + at: int(count) for at, count in enumerate(counts)}}
    values: dict[str, Any] = {name: int(str(item.get(_WIRE_NAMES[name], 0))) for name in (*COUNTS, *TOPS)}
    values |= {name: float(str(item.get(_WIRE_NAMES[name], 0.0))) for name in SUMS}
    return Counts(**values, latency={index: count for index, count in latency.items() if count})
