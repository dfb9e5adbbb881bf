"""What the pods on both sides of a shadow told, and the verdicts on it. Pure; pairs.py judges the pairs themselves.

The side that sends counts what was not answered, the side that is judged counts the pairs: both are needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vectorindex_operator.core.judging.blocks import OVERALL
from vectorindex_operator.core.judging.judge import SILENT_SHARE
from vectorindex_operator.core.judging.pair_sums import Buckets, add_by_bucket, add_pairs, merge_pairs
from vectorindex_operator.core.judging.pairs import UNANSWERED, judge_pairs
from vectorindex_operator.core.judging.rules import Rule, RuleVerdict, Verdict, worst
from vectorindex_operator.core.judging.same_moment import SameMoment
from vectorindex_searcher.contract import BUCKET_SECONDS, PairEvidence

PAIRS = "pairs"
"""Name of the rule that is always on: enough pods tell what they counted."""
SHADOW_BUDGET = 0.25
"""Share of `falseTripBudget` that a shadow may use: docs/adr/0038-sequential-tests.md."""
SOAK_BUDGET = 1.0 - SHADOW_BUDGET
"""What all that is judged from the switch to the promotion may use."""
STEPS_BUDGET = 0.25
"""Where there are a canary's steps, what they may use of that, all together."""

_LATE = 60 // BUCKET_SECONDS
"""Buckets of the last minute."""
_FEWEST = 20
_HARDLY = 0.05
LIVELIER = 4.0
"""Traffic of the next minutes may be so many times that of the last ones."""


@dataclass(frozen=True, slots=True)
class PodPairs:
    """What a pod told of a shadow, by segment, on the operator's clock. `counts` None: nothing that is of use, and
    `problem` says why. `unable`: its image does not know what a shadow is. `judged`: whom its pairs are about; empty:
    it counted none. `reference`: whom that one is compared with; empty: it has taken no lease, and counted nothing."""

    pod: str
    counts: Mapping[str, Buckets] | None
    problem: str = ""
    unable: bool = False
    judged: str = ""
    reference: str = ""

    @classmethod
    def of(cls, pod: str, evidence: PairEvidence, received_at: float) -> PodPairs:
        """ValueError where the pod has no clock."""
        if not math.isfinite(evidence.now):
            raise ValueError("its clock is no number")
        shift = round((received_at - evidence.now) / BUCKET_SECONDS)
        merged = merge_pairs(evidence.rows)
        counts = {name: tuple((at + shift, sums) for at, sums in rows) for name, rows in merged.items()}
        return cls(pod, counts, judged=evidence.judged, reference=evidence.reference)


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a shadow. `ready`: pods that ought to tell something."""

    pods: Sequence[PodPairs]
    ready: int

    @property
    def silent(self) -> int:
        return max(0, self.ready - sum(one.counts is not None for one in self.pods))

    @property
    def mute(self) -> bool:
        """Whether so few tell that nobody knows what happened."""
        return self.ready == 0 or self.silent > SILENT_SHARE * self.ready

    def uncounted(self) -> Side:
        """The same pods, that tell nothing but that they are there."""
        return Side(tuple(replace(pod, counts=pod.counts and {}) for pod in self.pods), self.ready)

    def counts(self) -> dict[str, Buckets]:
        """Of all its pods."""
        return add_by_bucket(
            (segment, bucket, sums)
            for pod in self.pods
            for segment, buckets in (pod.counts or {}).items()
            for bucket, sums in buckets
        )


def same_moment(name: str, sender: Side, reference: Side) -> SameMoment:
    """What was compared of `name` after its switch: nothing, where pods of either side are of an image that knows no
    such mirror; nothing that is known, where some of its own send and too many do not."""
    if any(of_before(name, sender, reference)):
        return SameMoment({}, {})
    if is_half(sender):
        return SameMoment(None, None, gone=not reference.ready)
    sent, told = (None if side.mute else side.counts() for side in (sender, reference))
    return SameMoment(sent, told, gone=not reference.ready)


def is_half(sender: Side) -> bool:
    """Whether some pods send what they answer, and so many others do not that nobody knows of what users get."""
    sends = sum(bool(pod.reference) for pod in sender.pods)
    return not sender.mute and 0 < sends < (1 - SILENT_SHARE) * sender.ready


def of_before(name: str, sender: Side, reference: Side) -> tuple[bool, bool]:
    """Whether pods of the one and of the other side tell that their image knows no mirror in which `name`, which sends,
    is judged: it does not know what is asked for; or it takes itself for the one that is judged, or says of nobody that
    he is, and has counted pairs."""
    turned = any(pod.judged != name for pod in reference.pods if pod.judged or pod.counts)
    old, older = (any(pod.unable for pod in side.pods) for side in (sender, reference))
    return old, older or turned


def judge_shadow(
    rules: Sequence[Rule], judged: Side, sender: Side, *, false_trip_budget: float, min_queries: int
) -> tuple[RuleVerdict, ...]:
    """A verdict on whether enough pods tell, then those on what they tell (judge_pairs)."""
    said = judge_pairs(
        rules,
        judged.counts(),
        sender.counts(),
        alpha_budget=SHADOW_BUDGET * false_trip_budget,
        min_queries=min_queries,
    )
    return (_told(judged, sender), *said)


def compared(judged: Side) -> int:
    """Queries that both revisions answered, and that count."""
    return sum(sums.pairs for name, rows in judged.counts().items() if name != OVERALL for _, sums in rows)


def is_incomparable(judged: Side) -> bool:
    """Whether of late hardly a query made a pair, because the two revisions have other deleted ids. Pods read the list
    again when that is so, within seconds: what lasts is a list that one of them does not have, and waiting ends it not.
    """
    rows = [row for name, rows in judged.counts().items() if name != OVERALL for row in rows]
    newest = max((bucket for bucket, _ in rows), default=0)
    late = add_pairs(sums for bucket, sums in rows if bucket > newest - _LATE)
    return late.other_deleted >= _FEWEST and late.pairs < _HARDLY * late.other_deleted


def is_unreached(sender: Side) -> bool:
    """Whether not one query found a connection to the other side. Where the operator finds one, something between the
    pods lets none through, and nothing is known of who is judged."""
    sent = add_pairs(sums for name, rows in sender.counts().items() if name != OVERALL for _, sums in rows)
    return 0 < sent.mirrored <= sent.unreached


def is_out_of_reach(judged: Side, sender: Side, *, min_queries: int, seen: float, left: float) -> bool:
    """Whether too few queries come for a verdict: at `LIVELIER` times the rate at which new ones were sent in `seen`
    seconds, the `left` ones bring not `min_queries` pairs. Where one was left unanswered, more are waited for: it may
    be what becomes of all of them."""
    sent = sender.counts()
    if any(sums.unanswered for rows in sent.values() for _, sums in rows):
        return False
    asked = add_pairs(sums for _, sums in sent.get(OVERALL, ()))
    answered = add_pairs(sums for _, sums in judged.counts().get(OVERALL, ()))
    new = max(0, asked.mirrored - answered.repeated)
    return answered.pairs + LIVELIER * left * new / seen < max(1, min_queries)


def worst_in_shadow(said: Iterable[RuleVerdict]) -> Verdict:
    """The worst of the enforced verdicts. Queries that were not answered keep a revision from the traffic; that its
    index is bad is for a rule on ErrorRate to say, since the network may have lost them."""
    return worst(replace(one, verdict=Verdict.ERROR) if is_unanswered(one) else one for one in said)


def is_unanswered(one: RuleVerdict) -> bool:
    """Whether it says that too many queries were not answered, beyond doubt or not."""
    return one.rule == UNANSWERED and one.reason == "Unanswered"


def _told(judged: Side, sender: Side) -> RuleVerdict:
    silent, ready = judged.silent + sender.silent, judged.ready + sender.ready
    mute = judged.mute or sender.mute
    why = next((f": {one.pod}: {one.problem}" for one in (*judged.pods, *sender.pods) if one.problem), "")
    return RuleVerdict(
        rule=PAIRS,
        metric="Pairs",
        segment=OVERALL,
        verdict=Verdict.ERROR if mute else Verdict.PASS,
        reason="EvidenceMissing" if mute else "Told",
        message=f"{PAIRS}: {silent} of {ready} ready pods do not tell what they compared{why}",
        value=float(silent),
        samples=ready,
    )
