"""After the switch: a rule against stable, judged by what the prior answers to the same queries at the same moment.

The revision with the traffic sends queries that it has answered to the prior, which is still loaded. What it sent, its
own pods count; the pairs, the prior's. At each look one of two judges a rule, and counts alone say which: the pairs, or
the baseline that was frozen at the switch, as in a soak without a mirror. Each has half of the rule's level, so that
the choice costs nothing of the budget, whatever it depends on (docs/adr/0051-after-the-switch.md). Pure.

  hardly anything was sent, or answered        the baseline, since the switch
  nothing was answered for a window's time,
  though it was tried, or the prior is gone    the baseline, from there on: what was before is the pairs'
  enough pairs                                 the pairs
  much was answered, and is no pair: queries
  that repeat, other deleted ids               the baseline, since the switch
  else: the prior lost its counts, does not
  tell at this look, the operator was away, or
  more than a third of the pods do not send    nobody, for a moment

What was answered, both sides count: a pod with the traffic that restarts, or is replaced, forgets what it sent, and the
prior's pairs stay what they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from vectorindex_operator.core.judging.evidence import RevisionEvidence
from vectorindex_operator.core.judging.metrics import METRICS
from vectorindex_operator.core.judging.pair_metrics import PAIR_METRICS
from vectorindex_operator.core.judging.pair_sums import Buckets, PairSums, add_pairs
from vectorindex_operator.core.judging.pairs import is_told, judge_same_moment
from vectorindex_operator.core.judging.rules import Rule, RuleVerdict
from vectorindex_operator.core.judging.sequential import START_SECONDS
from vectorindex_searcher.contract import BUCKET_SECONDS

IN_VAIN = 4
"""So many times `minSamples` were answered, and there are not `minSamples` pairs: there will be none soon."""


@dataclass(frozen=True, slots=True)
class SameMoment:
    """By segment. None: too few of the pods told at this look."""

    sent: Mapping[str, Buckets] | None
    """By the pods with the traffic."""
    told: Mapping[str, Buckets] | None
    """By the prior's."""
    gone: bool = False
    """Whether none of these is ready."""


def is_paired(rule: Rule) -> bool:
    """Whether pairs may judge it after the switch: a rule against stable whose windows nobody chose. What became of the
    prior's answers (AnswersMissed, AnswersChanged) nobody asks then: it answers, and is not judged."""
    return rule.relative and rule.sequential and is_told(rule)


def baseline_since(rule: Rule, pairs: SameMoment, merged: RevisionEvidence, first: int, now: float) -> int | None:
    """The bucket from which on the baseline judges it at this look; None: the pairs do, few as they may be.

    `merged`: what the revision with the traffic counted; `first`: its first bucket after the warm-up.
    """
    if pairs.sent is None:
        return None
    current = int(now // BUCKET_SECONDS)
    counted = _between(pairs.sent.get(rule.segment, ()), first, current)
    answered = {bucket: sums.mirrored - sums.unanswered for bucket, sums in counted if sums.mirrored > sums.unanswered}
    here = {bucket: count for bucket, sums in _told(rule, pairs, first, current) if (count := _taken(sums))}
    if max(sum(answered.values()), sum(here.values())) < rule.min_samples:
        return first
    newest = max(*answered, *here)
    asked = METRICS[rule.metric].family.size(merged.total(rule.segment, newest + 1, latency=False))
    tried = sum(sums.mirrored for bucket, sums in counted if bucket > newest)
    missed = current - newest >= rule.span and asked >= rule.min_samples
    if missed and (pairs.gone or tried >= rule.min_samples):
        return newest + 1
    if pairs.told is None:
        return None
    total = add_pairs(sums for _, sums in _told(rule, pairs, first, current))
    if not total.usable:
        return first
    if PAIR_METRICS[rule.metric].size(total) >= rule.min_samples:
        return None
    seen = [bucket for buckets in pairs.told.values() for bucket, _ in _between(buckets, first, current)]
    begun = min(seen, default=current - 2 * rule.span)
    in_vain = max(sum(here.values()), sum(count for bucket, count in answered.items() if bucket >= begun))
    return first if in_vain >= IN_VAIN * rule.min_samples else None


def by_pairs(
    rule: Rule, pairs: SameMoment, first: int, now: float, *, level: float, horizon_seconds: float
) -> RuleVerdict:
    """What the pairs say. `level`: of a rule that is within its bound, the probability, at most, that they ever fail it
    within `horizon_seconds`."""
    current = int(now // BUCKET_SECONDS)
    return judge_same_moment(
        rule,
        _told(rule, pairs, first, current),
        first=first,
        stop=current + 2,
        starts=math.ceil(horizon_seconds / START_SECONDS),
        level=level,
    )


def _told(rule: Rule, pairs: SameMoment, first: int, current: int) -> Buckets:
    """The prior's counts of a rule's segment."""
    return _between((pairs.told or {}).get(rule.segment, ()), first, current)


def _taken(sums: PairSums) -> int:
    """Queries that the prior has answered, whatever became of them."""
    return sums.pairs + sums.void + sums.other_deleted + sums.repeated + sums.warming


def _between(buckets: Buckets, first: int, current: int) -> Buckets:
    """From `first` on. Pods' clocks are known to a bucket: the one after the current one may be it."""
    return tuple((bucket, sums) for bucket, sums in buckets if first <= bucket <= current + 1)
