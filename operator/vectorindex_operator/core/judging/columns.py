"""From contract.EvidenceColumns to counts: what is not in every row, or cannot be, is refused as a whole. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from vectorindex_operator.core.judging.evidence import SUMS, Counted
from vectorindex_operator.core.judging.histogram import Bins
from vectorindex_searcher.contract import COUNTERS, LATENCY_BINS, EvidenceBucket, EvidenceColumns

_FIELDS = {name: EvidenceBucket.model_fields[name].alias or name for name in COUNTERS}
_FLOATS = frozenset(SUMS) | {"live_overall_recall_sum"}


def counted_of(page: EvidenceColumns) -> list[Counted]:
    """The rows of a page. Counters that this release does not know are left out. ValueError: it contradicts itself."""
    rows = len(page.bucket)
    columns = [_column(page, name, rows) for name in COUNTERS]
    for name, length in (("segment", len(page.segment)), ("latencySizes", len(page.latency_sizes))):
        if length != rows:
            raise ValueError(f"{name} has {length} values for {rows} rows")
    if not sum(page.latency_sizes) == len(page.latency_bins) == len(page.latency_counts):
        raise ValueError("latencySizes, latencyBins and latencyCounts do not fit together")
    if any(number >= len(page.segments) for number in page.segment):
        raise ValueError("a row is of a segment that is not listed")
    values = zip(*columns, strict=True) if rows else iter(())
    return [
        Counted.of(bucket, page.segments[segment], dict(zip(COUNTERS, row, strict=True)), latency)
        for bucket, segment, row, latency in zip(page.bucket, page.segment, values, _histograms(page), strict=True)
    ]


def _column(page: EvidenceColumns, name: str, rows: int) -> Sequence[float]:
    """A counter's value in each row: 0 where the searcher does not know it, or nothing of it happened."""
    given = page.counts.get(_FIELDS[name])
    if given is None:
        return [0.0 if name in _FLOATS else 0] * rows
    if len(given) != rows:
        raise ValueError(f"{name} has {len(given)} values for {rows} rows")
    if name in _FLOATS:
        return [math.nan if value is None else value for value in given]
    if any(value is None or not 0 <= value <= 2**53 for value in given):
        raise ValueError(f"{name} is not a count in every row")
    return [int(value or 0) for value in given]


def _histograms(page: EvidenceColumns) -> Iterator[Bins]:
    for stop, size in zip(accumulate(page.latency_sizes), page.latency_sizes, strict=True):
        bins = list(accumulate(page.latency_bins[stop - size : stop]))
        if bins and (bins[-1] >= LATENCY_BINS or any(one >= other for one, other in pairwise(bins))):
            raise ValueError("a histogram has bins that are not in rising order, or that there are not")
        yield Bins(bins, page.latency_counts[stop - size : stop])
