"""Evidence of one revision: adding up what its pods counted, and cutting it into windows.

Knows buckets, segments and counts, and no rule. Pure: the operator's clock comes in as an argument. Everything here is
a function of the pods' rings alone, so an operator that restarts sees what the one before it saw.

Only *complete* buckets are judged (those that every answering pod has left), so a window that is closed once never
changes, and each is judged once however often the operator looks.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from typing import Any

from vectorindex_operator.core.judging.blocks import BLOCK, OVERALL, Block, BySegment, Part, Rows, blocks_of
from vectorindex_operator.core.judging.sums import Sums
from vectorindex_operator.core.judging.windows import Cut, Cutting, Window
from vectorindex_searcher.contract import (
    BUCKET_SECONDS,
    COUNTERS,
    FEEDBACK_SECONDS,
    RING_SECONDS,
    Evidence,
    EvidenceBucket,
)

EPOCH_LIMIT = RING_SECONDS // BUCKET_SECONDS // 2
"""Longest epoch in buckets: the ring holds two of them."""
NO_CLICKS: dict[str, Any] = dict.fromkeys(
    ("tracked", "tracked_depth_sum", "clicked", "click_gain_sum", "click_depth_top"), 0
)
CLICKS_LATE = FEEDBACK_SECONDS // BUCKET_SECONDS + 2
"""Buckets that clicks may come in late; two more for the pods' clocks."""
LATEST = 300
"""Buckets (25 min) that evidence may come in late; an epoch and this fit into the ring."""
VISIBLE = RING_SECONDS // BUCKET_SECONDS - 4
"""Buckets before the newest that are surely still in every pod's ring, whatever its clock and when it answered."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of one segment over some time; sums of `contract.EvidenceBucket` (see there for the fields)."""

    requests: int = 0
    failed_requests: int = 0
    queries: int = 0
    errors: int = 0
    refused: int = 0
    mismatched: int = 0
    zero_results: int = 0
    filtered_queries: int = 0
    filtered_zero_results: int = 0
    filters_compared: int = 0
    filters_lost: int = 0
    rerankable_queries: int = 0
    reranked_queries: int = 0
    fresh_queries: int = 0
    top_count: int = 0
    top_sum: float = 0.0
    top_sum_squares: float = 0.0
    live_queries: int = 0
    live_wide: int = 0
    live_recall_sum: float = 0.0
    tracked: int = 0
    tracked_depth_sum: int = 0
    clicked: int = 0
    click_gain_sum: int = 0
    click_depth_top: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)

    @property
    def consistent(self) -> bool:
        """Whether the counts can be counts. Sums of scores may be NaN: that is TopScore's trouble, not the pod's."""
        return min(_read_counts(self)) >= 0 and all(count >= 0 for count in self.latency.values())


_KEPT = tuple(name for name in COUNTERS if not name.startswith("live_overall_"))
"""Counters of the wire that a Counts has; the uniform part of a live sample goes into all segments together."""
TOPS = ("click_depth_top",)
"""Fields of a Counts that are the largest of all, not the sum."""
SUMS = tuple(name for name in _KEPT if EvidenceBucket.model_fields[name].annotation is float)
"""Fields of a Counts that are sums of floats."""
COUNTS = tuple(name for name in _KEPT if name not in TOPS + SUMS)
"""Fields of a Counts that are whole numbers and are added up."""
_read_counts = attrgetter(*COUNTS, *TOPS)
_read_all = attrgetter(*COUNTS, *SUMS, *TOPS)


@dataclass(frozen=True, slots=True)
class Counted:
    """One bucket of one segment of a pod. `overall`: what it adds to all segments together."""

    bucket: int
    segment: str
    cell: Counts
    overall: Counts

    @classmethod
    def of(cls, bucket: int, segment: str, values: Mapping[str, Any], latency: Mapping[int, int]) -> Counted:
        """`values`: by counter of the wire. ValueError when they cannot be counts."""
        cell = Counts(**{name: values[name] for name in _KEPT}, latency=latency)
        overall = cell
        if values["live_queries"]:
            # A small segment's sample is a larger share of it than a large one's: added up they would not be the
            # traffic.
            overall = replace(
                cell,
                live_queries=values["live_overall_queries"],
                live_recall_sum=values["live_overall_recall_sum"],
                live_wide=min(values["live_wide"], values["live_overall_queries"]),
            )
        if not (cell.consistent and overall.consistent):
            raise ValueError(f"bucket {bucket} of segment {segment[:40]!r} has negative counts")
        return cls(bucket, segment, cell, overall)


@dataclass(frozen=True, slots=True)
class PodCounts:
    """What one pod knows, in whatever form it came. `now`: the pod's clock, Unix seconds."""

    revision: str
    now: float
    live_before: int | None
    counted: Sequence[Counted]
    tells: frozenset[str] = frozenset()
    """Of contract.LATER_COUNTERS: what it counts."""
    point: str = ""
    """Operating point at which all of this was answered; empty: not known."""
    points: tuple[str, ...] = ()
    """Those that the pod can answer at; none: its image has one only."""

    @classmethod
    def of(cls, evidence: Evidence) -> PodCounts:
        """From rows. ValueError when they cannot be counts."""
        counted = [
            Counted.of(row.bucket, row.segment, {name: getattr(row, name) for name in COUNTERS}, row.latency)
            for row in evidence.buckets
        ]
        return cls(evidence.revision, evidence.now, evidence.live_before, counted)


@dataclass(frozen=True, slots=True)
class PodEvidence:
    """One pod's answer. `evidence` None: silent, and `problem` says why. `received_at`: when it came, by the operator's
    clock, Unix seconds: what it tells ends there."""

    pod: str
    evidence: Evidence | PodCounts | None
    received_at: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class RevisionEvidence:
    """Evidence of a revision on the operator's clock.

    `segments`: segment -> bucket -> counts; key '' holds all segments together. `complete_before`: the first bucket
    that some pod may still be filling. `silent`: pods without usable evidence. `live_before`: as `complete_before`,
    for live recall, which comes in later.
    """

    segments: Mapping[str, Mapping[int, Counts]]
    complete_before: int
    pods: int
    silent: tuple[str, ...]
    now: float
    live_before: int | None = None
    """None: no pod measures it."""
    tells: frozenset[str] = frozenset()
    """Of contract.LATER_COUNTERS: what every pod that told counts."""
    lag: int = 0
    """Buckets that `until` left out."""
    foreign: tuple[str, ...] = ()
    """Those of `silent` that answered in the name of another revision."""
    problem: str = ""
    """Why one of them is silent, where that is known."""
    sums: Sums = field(default_factory=Sums, compare=False, repr=False)
    blocks: Mapping[int, Block] = field(init=False, compare=False, repr=False)
    """The same as `segments`, by bucket // BLOCK."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", blocks_of(self.segments, add_up))

    @property
    def oldest(self) -> int:
        """The first bucket that is judged: older ones may already be gone from some pod's ring."""
        return self.complete_before + self.lag - VISIBLE

    def until(self, stop: int | None) -> RevisionEvidence:
        """The same as if buckets from `stop` on were not complete yet. At most `LATEST` buckets are left out.

        A pod that lags more has stopped measuring; what it never says must not keep the others' word from counting.
        """
        stop = self.complete_before if stop is None else min(stop, self.complete_before)
        stop = max(stop, self.complete_before - LATEST)
        return replace(self, complete_before=stop, lag=self.lag + self.complete_before - stop)

    def total(self, segment: str, first: int, *, latency: bool = True) -> Counts:
        """Sum of the complete buckets of a segment from bucket `first` on, as far as they are visible."""
        return add_up(self._sums(segment, max(first, self.oldest), self.complete_before), latency=latency)

    def mix(self, first: int, stop: int) -> dict[str, int]:
        """Queries per segment in buckets [first, stop)."""
        names = {name for block in self.blocks.values() for name in block.sums()} - {OVERALL}
        return {name: sum(cell.queries for cell in self._sums(name, first, stop)) for name in sorted(names)}

    def cells_since(self, segment: str, first: int) -> Iterator[tuple[int, Counts]]:
        """Buckets of a segment from `first` on, also those that are not complete yet, the newest first."""
        for number in sorted((number for number in self.blocks if number >= first // BLOCK), reverse=True):
            yield from reversed(self.blocks[number].between(segment, first, (number + 1) * BLOCK))

    def _sums(self, segment: str, start: int, stop: int) -> list[Counts]:
        """What the buckets [start, stop) add up from: sums of whole blocks, and cells of those that are cut."""
        found: list[Counts] = []
        for number, block in self.blocks.items():
            if start <= block.first and block.first + BLOCK <= stop:
                found += [block.sums()[segment]] if segment in block.sums() else []
            elif start // BLOCK <= number and block.first < stop:
                found += [cell for _, cell in block.between(segment, start, stop)]
        return found


def add_up(cells: Iterable[Counts], *, latency: bool = True) -> Counts:
    """The sum. Scores are added with fsum, so that no order of pods or buckets can change a verdict.

    `latency` False leaves the histogram out: most of the work, and most metrics do not look at it.
    """
    taken = list(cells)
    if len(taken) == 1:
        return taken[0]
    histogram: dict[int, int] = {}
    for cell in taken if latency else ():
        for index, count in cell.latency.items():
            histogram[index] = histogram.get(index, 0) + count
    if not taken:
        return Counts(latency=histogram)
    columns = list(zip(*map(_read_all, taken), strict=True))
    counts: dict[str, Any] = dict(zip(COUNTS, map(sum, columns), strict=False))
    sums: dict[str, Any] = {
        name: _exact_sum(column) for name, column in zip(SUMS, columns[len(COUNTS) :], strict=False)
    }
    tops: dict[str, Any] = dict(zip(TOPS, map(max, columns[len(COUNTS) + len(SUMS) :]), strict=True))
    return Counts(**counts, **sums, **tops, latency=histogram)


def _exact_sum(values: Iterable[float]) -> float:
    """fsum, with NaN for what it refuses to add (infinities of both signs, overflow)."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return math.nan


# ---------------------------------------------------------------- adding up pods


def merge(pods: Sequence[PodEvidence], now: float, *, revision: str = "", sums: Sums | None = None) -> RevisionEvidence:
    """Add up the pods' evidence per (bucket, segment) on the operator's clock.

    A pod's bucket numbers are shifted by whole buckets, by none while its clock is within half a bucket of ours. `now`:
    the operator's clock, Unix seconds. `revision`: if given, evidence that names another one counts as silent, since
    evidence belongs to a revision and a pod's address may have been reused. So do negative counts. `sums`: of the look
    before, which save time.
    """
    sums = Sums() if sums is None else sums
    parts: defaultdict[int, list[Part]] = defaultdict(list)
    silent: list[str] = []
    foreign: list[str] = []
    complete: list[int] = []
    live: list[int] = []
    tells: list[frozenset[str]] = []
    for pod in pods:
        counts = _usable(pod.evidence)
        if counts is not None and revision and counts.revision != revision:
            foreign.append(pod.pod)
            counts = None
        if counts is None:
            silent.append(pod.pod)
            continue
        shift = round((pod.received_at - counts.now) / BUCKET_SECONDS)
        complete.append(math.floor(counts.now / BUCKET_SECONDS) + shift)
        tells.append(counts.tells)
        if counts.live_before is not None:
            live.append(counts.live_before + shift)
        for number, rows in _blocks(counts.counted).items():
            for place in {(number * BLOCK + shift) // BLOCK, (number * BLOCK + BLOCK - 1 + shift) // BLOCK}:
                parts[place].append((rows, shift))
    complete_before = min(complete, default=math.floor(now / BUCKET_SECONDS))
    return RevisionEvidence(
        segments=BySegment(_merged(parts, sums)),
        complete_before=complete_before,
        pods=len(pods),
        silent=tuple(sorted(silent)),
        now=now,
        live_before=min(live, default=None),
        tells=frozenset.intersection(*tells) if tells else frozenset(),
        foreign=tuple(sorted(foreign)),
        problem=next((f"{pod.pod}: {pod.problem}" for pod in pods if pod.problem), ""),
        sums=sums,
    )


def _blocks(counted: Sequence[Counted]) -> Mapping[int, Sequence[Counted]]:
    return (counted if isinstance(counted, Rows) else Rows.of(counted)).blocks


def _merged(parts: Mapping[int, Sequence[Part]], sums: Sums) -> dict[int, Block]:
    """Those of the look before, where they are of the same parts."""
    blocks = {}
    for number, mine in parts.items():

        def block(had: Block | None, number: int = number, mine: Sequence[Part] = mine) -> Block:
            return had if had is not None and had.parts == mine else Block(number, mine, add_up, had)

        blocks[number] = sums.of(number, block)
    return blocks


def _usable(evidence: Evidence | PodCounts | None) -> PodCounts | None:
    """None: silent, without a clock, or with counts that cannot be."""
    if evidence is None or not math.isfinite(evidence.now):
        return None
    try:
        return evidence if isinstance(evidence, PodCounts) else PodCounts.of(evidence)
    except ValueError:
        return None


def samples_since(merged: RevisionEvidence, since: float) -> int:
    """Queries that the revision answered in complete buckets that began at `since` (Unix seconds) or later.

    The rings hold an hour, so a soak longer than that counts the last hour: `soak.minQueries` is per hour then.
    """
    return merged.total(OVERALL, first_bucket(since)).queries


def first_bucket(time: float) -> int:
    """The first bucket that lies wholly at or after `time`."""
    return math.ceil(time / BUCKET_SECONDS)


# ---------------------------------------------------------------- windows


def closed_windows(
    merged: RevisionEvidence,
    segment: str,
    *,
    first: int,
    span: int,
    enough: int,
    size: Callable[[Counts], int],
    latency: bool = True,
) -> Iterator[Window]:
    """Non-overlapping windows since bucket `first`, in order of time.

    A window closes when it is at least `span` buckets long and `size` of it at least `enough`. Where a window begins
    depends on where the one before ended, and the ring forgets; so windows are cut anew from fixed epochs, the longest
    multiple of `span` of which two fit into the ring. Any operator at any time cuts the same windows, at most
    one per `span` of time, which is what the false-trip budget counts. A rest shorter than a window at the end of an
    epoch is not judged.
    """
    length = max(1, EPOCH_LIMIT // span) * span
    newest = (merged.complete_before - 1 - first) // length
    for number in (newest - 1, newest):
        start = first + number * length
        if number >= 0 and start >= merged.oldest:
            cut = merged.sums.of((segment, start, span, enough, size, latency), _cut)
            how = Cutting(segment, span, enough, size, partial(add_up, latency=latency))
            yield from cut.windows(how, merged.blocks, start, min(start + length, merged.complete_before))


def _cut(had: Cut | None) -> Cut:
    return Cut() if had is None else had
