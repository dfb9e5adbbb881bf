"""What pods send to those of a revision in shadow, or of the prior after the switch, and what both sides count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from simulator.clock import START, Clock
from simulator.truth import Quality, Truth

from vectorindex_searcher.contract import BUCKET_SECONDS, MirrorLease, PairCounts

Span = tuple[float, float]


@dataclass(slots=True)
class Shadow:
    """One shadow. `sender`: who has the traffic; `sender_judged`: after the switch. `spans`: of each sending pod, when
    it sent."""

    sender: str
    receiver: str
    sender_judged: bool = False
    receivers: int = 1
    spans: dict[str, list[Span]] = field(default_factory=dict)
    counted: dict[tuple[int, bool], PairCounts] = field(default_factory=dict)
    """Of buckets that are over, as each pod of a side counted them."""


class Mirrors:
    """`share(revision, start, stop)`: seconds of the queries that it answered then; `quality(revision)`: how it
    behaves."""

    def __init__(self, clock: Clock, share: Callable[[str, float, float], float]) -> None:
        self.clock, self.share = clock, share
        self.shadows: dict[str, Shadow] = {}

    def leased(self, pod: str, sender: str, lease: MirrorLease) -> None:
        """A pod took a lease: what it sent until now is so, and another one takes the place of what it had."""
        now = self.clock.now
        for shadow in self.shadows.values():
            self._cut(shadow, pod, now)
        if lease.max_per_second > 0:
            made = Shadow(sender, lease.revision, bool(lease.sender_judged))
            shadow = self.shadows.setdefault(lease.shadow, made)
            shadow.receivers = max(1, len(lease.addresses))
            shadow.spans.setdefault(pod, []).append((now, now + lease.ttl_seconds))

    @staticmethod
    def _cut(shadow: Shadow, pod: str, now: float) -> None:
        spans = shadow.spans.get(pod)
        if spans and spans[-1][1] > now:
            spans[-1] = (spans[-1][0], now)

    def sending(self) -> list[str]:
        """Shadows that some pod sends queries for now."""
        now = self.clock.now
        return [name for name, one in self.shadows.items() if any(spans[-1][1] > now for spans in one.spans.values())]

    def judged(self, name: str, revision: str) -> str:
        """Whom the pairs are about that a pod of a revision counted; empty: it counts none."""
        shadow = self.shadows.get(name)
        if shadow is None or revision != shadow.receiver:
            return ""
        return shadow.sender if shadow.sender_judged else revision

    def reference(self, name: str, pod: str) -> str:
        """Whom the one that is judged is compared with, as a pod that took a lease says it; empty: it took none."""
        shadow = self.shadows.get(name)
        if shadow is None or pod not in shadow.spans:
            return ""
        return shadow.receiver if shadow.sender_judged else shadow.sender

    def rows(self, name: str, revision: str, truth: Truth, quality: Callable[[str], Quality]) -> Iterator[PairCounts]:
        """What one pod of a side counted; pods of a side are alike."""
        shadow = self.shadows.get(name)
        if shadow is None or revision not in (shadow.sender, shadow.receiver):
            return
        sends = revision == shadow.sender
        first = int((min(spans[0][0] for spans in shadow.spans.values()) - START) // BUCKET_SECONDS)
        newest = int((self.clock.now - START) // BUCKET_SECONDS)
        for number in range(first, newest + 1):
            row = shadow.counted.get((number, sends)) or self._row(shadow, number, sends, truth, quality)
            if number < newest:
                shadow.counted[number, sends] = row
            if row.mirrored or row.pairs or row.other_deleted:
                yield from (row, _half(row))

    def _row(
        self, shadow: Shadow, number: int, sends: bool, truth: Truth, quality: Callable[[str], Quality]
    ) -> PairCounts:
        start = START + number * BUCKET_SECONDS
        stop = min(self.clock.now, start + BUCKET_SECONDS)
        spans = [span for mine in shadow.spans.values() for span in mine]
        covered = sum(max(0.0, min(end, stop) - max(begin, start)) for begin, end in spans) / len(shadow.spans)
        share = self.share(shadow.sender, start, stop) / max(1e-9, stop - start)
        queries = int(covered * share * truth.queries_per_second / (len(shadow.spans) if sends else shadow.receivers))
        bucket = int(start // BUCKET_SECONDS)
        answering = quality(shadow.receiver)
        lost = queries if answering.hangs or truth.kept_apart else int(queries * answering.errors)
        roles = answering, quality(shadow.sender)
        judged, reference = reversed(roles) if shadow.sender_judged else roles
        if sends:
            apart = lost if truth.kept_apart else 0
            return PairCounts(bucket=bucket, segment="other", mirrored=queries, unanswered=lost, unreached=apart)
        pairs = queries - lost
        if truth.other_deleted:
            return PairCounts(bucket=bucket, segment="other", other_deleted=pairs)
        zero, there = int(pairs * judged.zero_results), int(pairs * reference.zero_results)
        return PairCounts(
            bucket=bucket,
            segment="other",
            pairs=pairs,
            zero_both=min(zero, there),
            zero_candidate_only=max(0, zero - there),
            zero_stable_only=max(0, there - zero),
        )


def _half(row: PairCounts) -> PairCounts:
    """The uniform half of what was sent."""
    counts = {name: value // 2 for name, value in row if isinstance(value, int) and name != "bucket"}
    return row.model_copy(update={**counts, "segment": ""})
