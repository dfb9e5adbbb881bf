"""Judging a candidate before it gets the traffic: pairs of answers, its own and stable's, to the same live queries. And
afterwards, by the same queries' answers of what had the traffic before (`judge_same_moment`, for same_moment.py).

Pure; docs/adr/0040-pairs.md. The loop, at each look of a shadow, and which module does what:

  1  pair_sums.py adds up what the pods of both sides counted              -> buckets by segment
  2  pair_metrics.py: what a rule bets against, pair_bets.py: at what odds
  3  eprocess.py: what the stake of each rule has become, without the five seconds that were the worst
  4  `judge_pairs`: beyond doubt when all stakes together, on average, are 1 / `alpha_budget` times what they were; the
     rule that won the most fails. Averages, never products: they need no independence of rules and segments

Nothing is remembered between looks, and looking again costs nothing: the promise holds at any number of looks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vectorindex_operator.core.judging.blocks import OVERALL
from vectorindex_operator.core.judging.eprocess import Gains, wealth
from vectorindex_operator.core.judging.metrics import metric_of
from vectorindex_operator.core.judging.pair_metrics import PAIR_METRICS, Bets, PairMetric
from vectorindex_operator.core.judging.pair_sums import PairSums, add_pairs, merge_pairs
from vectorindex_operator.core.judging.rules import LEAST_BUDGET, Rule, RuleVerdict, Verdict
from vectorindex_operator.core.judging.statistics import binomial_at_least
from vectorindex_searcher.contract import BUCKET_SECONDS, RING_SECONDS

__all__ = ["UNANSWERED", "PairSums", "judge_pairs", "merge_pairs"]

UNANSWERED = "unanswered"
"""Name of the rule that is always on in shadow."""
MOST_UNANSWERED = 0.01
"""A candidate that leaves more of its queries unanswered gets no traffic, whatever the rules say or leave out."""
STARTS = 10
"""Minutes from each of which a part of the stake bets: what begins within them is seen. As many as the default
`maxDuration` has."""
_FEWEST = 200
"""Queries without which `unanswered` fails nobody; fewer where fewer end a shadow."""
LIKELY = 0.05
"""With fewer than `min_queries`, so many unanswered are held against a candidate as are no more likely than this."""
_LONGEST = RING_SECONDS // BUCKET_SECONDS
"""Buckets that rings hold. What is older than that before the newest came from a clock that is wrong."""
_REASON = "Unanswered"


@dataclass(frozen=True, slots=True)
class _Case:
    """One rule with the pairs that it judges, and what the bets against it have won of each unit of its stake."""

    rule: Rule
    metric: PairMetric
    cells: Mapping[int, PairSums]
    total: PairSums
    seconds: float
    won: tuple[float, ...]
    """Of each hypothesis that must be refuted; empty: the sums are no numbers."""
    what: str = "shadow"
    """In which they were asked, for messages."""

    @property
    def size(self) -> int:
        return self.metric.size(self.total)

    @property
    def stake(self) -> float:
        """The smallest: it is a fair bet against each of the hypotheses."""
        return min(self.won, default=0.0)

    @property
    def value(self) -> float:
        return self.metric.value(self.total)

    @property
    def limit(self) -> float:
        return self.metric.limit(self.rule.bound, self.total)

    @property
    def inside(self) -> bool:
        value, edge = self.value, self.limit
        return self.rule.bound.allows(value, edge)

    def say(self, verdict: Verdict, reason: str, text: str) -> RuleVerdict:
        value, edge, stable = map(_number, (self.value, self.limit, self.metric.stable(self.total)))
        return RuleVerdict(
            rule=self.rule.name,
            metric=self.rule.metric,
            segment=self.rule.segment,
            verdict=verdict,
            reason=reason,
            message=_sentence(self, value, edge, stable, text),
            mode=self.rule.mode,
            value=value,
            limit=edge,
            samples=self.size,
            window_seconds=self.seconds,
            baseline_value=stable,
            baseline_age_seconds=None if stable is None else 0.0,
        )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _sentence(case: _Case, value: float | None, edge: float | None, stable: float | None, text: str) -> str:
    rule, metric = case.rule, metric_of(case.rule.metric)
    where = f" of segment {rule.segment}" if rule.segment else ""
    label, samples = metric.label, metric.samples
    if case.metric.by_sender:
        label, samples = "share without an answer", "mirrored queries"
    sentence = f"{rule.name}: {label}{where} {'unknown' if value is None else metric.show(value)}"
    sentence += f" on {case.size:,} {samples} in {case.seconds:g} s of {case.what}; "
    if edge is not None:
        sentence += f"{'max' if rule.bound.sign > 0 else 'min'} {metric.show(edge)}"
    if stable is not None:
        sentence += f"{' from' if rule.relative else ','} stable's {metric.show(stable)} on the same queries"
    return f"{sentence}{'; ' if edge is not None else ''}{text}"


# ---------------------------------------------------------------- judging


def judge_pairs(
    rules: Sequence[Rule],
    candidate: Mapping[str, Sequence[tuple[int, PairSums]]],
    sender: Mapping[str, Sequence[tuple[int, PairSums]]],
    *,
    alpha_budget: float,
    min_queries: int,
) -> tuple[RuleVerdict, ...]:
    """One verdict for `unanswered` and for each rule that pairs can tell of, in their order.

    `candidate`: what the pods counted that answer again, `sender`: those that have the traffic; buckets by segment (''
    is overall, the uniform half), from the beginning of the shadow to now, on the operator's clock. Rings hold an hour:
    a shadow that goes on for longer is judged by what they hold, and the promise is that of an hour.
    `alpha_budget`: probability, at most, that a candidate within its bounds is failed by anything in this shadow.
    `min_queries`: pairs overall before `unanswered` passes.

    Fail is beyond doubt, and stands whatever the others say. Inconclusive with reason Unanswered must not be switched
    to either; what the other reasons allow is up to `onInconclusive`.
    """
    first, stop = _span(candidate, sender)
    always = Rule(
        UNANSWERED, "ErrorRate", max=MOST_UNANSWERED, min_samples=min(_FEWEST, max(1, min_queries)), window_seconds=1.0
    )
    cases = [
        _case(rule, sender if PAIR_METRICS[rule.metric].by_sender else candidate, first, stop)
        for rule in (always, *rules)
        if is_told(rule)
    ]
    enforced = [case for case in cases if case.rule.mode == "Enforce"]
    odds = 1.0 / min(0.5, max(alpha_budget, LEAST_BUDGET))
    together = math.fsum(case.stake for case in enforced) / len(enforced)
    strongest = max(enforced, key=lambda case: case.stake) if together >= odds else None
    compared = add_pairs(cell for _, cell in candidate.get(OVERALL, ()))
    verdicts = []
    for case in cases:
        # What only observes takes no part of the others' budget, and is shown at the odds that it would get.
        needed = odds * (len(enforced) + (case.rule.mode != "Enforce"))
        failed = case is strongest or case.stake >= needed
        if case is cases[0]:
            verdicts.append(_judge_unanswered(case, failed, compared, min_queries))
        else:
            verdicts.append(_judge(case, failed, needed))
    return tuple(verdicts)


def is_told(rule: Rule) -> bool:
    """Whether pairs tell of it. What they cannot tell is for the soak: no verdict here, or every shadow would wait for
    one until its time is over."""
    metric = PAIR_METRICS.get(rule.metric)
    return metric is not None and metric.bets(rule.bound, PairSums()) != ()


def judge_same_moment(
    rule: Rule, buckets: Sequence[tuple[int, PairSums]], *, first: int, stop: int, starts: int, level: float
) -> RuleVerdict:
    """A rule against stable, of a revision that has the traffic: by the pairs of its segment in buckets [first, stop).

    `starts`: minutes from each of which a part of the stake bets. `level`: probability, at most, that a revision within
    the bound is ever failed, at any number of looks.
    """
    metric, oldest = PAIR_METRICS[rule.metric], max(first, stop - _LONGEST + 2)
    cells = {bucket: cell for bucket, cell in buckets if first <= bucket < stop}
    total = add_pairs(cells.values())
    bets = metric.bets(rule.bound, total) if total.usable else ()
    won = tuple(_won(metric, one, cells, (first, stop), oldest, starts, rule.min_samples) for one in bets)
    seconds = float((max(cells) + 1 - min(cells)) * BUCKET_SECONDS) if cells else 0.0
    case = _Case(rule, metric, cells, total, seconds, won, what="pairs with the revision before")
    needed = 1.0 / min(0.5, max(level, LEAST_BUDGET))
    return _judge(case, case.stake >= needed, needed)


def _span(*sides: Mapping[str, Sequence[tuple[int, PairSums]]]) -> tuple[int, int]:
    """Buckets [first, stop) in which anything was counted; the same for all rules."""
    buckets = [bucket for side in sides for cells in side.values() for bucket, _ in cells]
    if not buckets:
        return 0, 1
    stop = max(buckets) + 1
    return max(min(buckets), stop - _LONGEST), stop


def _case(rule: Rule, side: Mapping[str, Sequence[tuple[int, PairSums]]], first: int, stop: int) -> _Case:
    metric = PAIR_METRICS[rule.metric]
    cells = {bucket: cell for bucket, cell in side.get(rule.segment, ()) if first <= bucket < stop}
    total = add_pairs(cells.values())
    bets = metric.bets(rule.bound, total) if total.usable else ()
    won = tuple(_won(metric, one, cells, (first, stop), first, STARTS, rule.min_samples) for one in bets)
    return _Case(rule, metric, cells, total, float((stop - first) * BUCKET_SECONDS), won)


def _won(
    metric: PairMetric,
    bets: Bets,
    cells: Mapping[int, PairSums],
    span: tuple[int, int],
    oldest: int,
    starts: int,
    enough: int,
) -> float:
    """`span`, `oldest` and the others: of eprocess.wealth."""
    nothing = bets(PairSums()), 0

    def bucket(number: int) -> tuple[Gains, int]:
        cell = cells.get(number)
        return nothing if cell is None else (bets(cell), metric.size(cell))

    return wealth(bucket, first=span[0], stop=span[1], oldest=oldest, starts=starts, enough=enough)


def _judge(case: _Case, failed: bool, needed: float) -> RuleVerdict:
    """`needed`: what a stake must have become for proof."""
    rule, unsure = case.rule, Verdict.INCONCLUSIVE
    if not case.total.usable:
        return case.say(Verdict.ERROR, "EvidenceInvalid", "the searchers' sum is not a number")
    if failed:
        worse = " and worse than stable" if len(case.won) > 1 else ""
        return case.say(Verdict.FAIL, "BoundExceeded", f"outside{worse} beyond doubt")
    if case.size < rule.min_samples:
        reason = "NotJudged" if rule.segment else "TooFewSamples"
        return case.say(unsure, reason, f"{rule.min_samples:,} needed")
    if case.inside:
        return case.say(Verdict.PASS, "WithinBound", "inside")
    if case.won[0] >= needed:
        return case.say(unsure, "StableToo", "outside, but not worse than stable beyond doubt")
    return case.say(unsure, "NearBound", "outside, and chance may explain it")


def _judge_unanswered(case: _Case, failed: bool, compared: PairSums, least: int) -> RuleVerdict:
    """`compared`: what was counted overall, of which `least` pairs are needed."""
    unsure = Verdict.INCONCLUSIVE
    if failed:
        return case.say(Verdict.FAIL, _REASON, "more than that beyond doubt")
    if not case.size:
        return case.say(unsure, "NothingMirrored", "stable's pods mirrored nothing")
    hits, trials = _without_burst(case.cells)
    likely = trials >= least or (hits > 0 and binomial_at_least(hits, trials, MOST_UNANSWERED) <= LIKELY)
    if hits > MOST_UNANSWERED * trials and likely:
        return case.say(unsure, _REASON, "more than that, and not in one burst")
    if min(case.size, compared.pairs) < least:
        few = f"{compared.pairs:,} pairs of {least:,} that are needed"
        if compared.other_deleted > compared.pairs:
            few += f"; {compared.other_deleted:,} queries made none, since the two have other deleted ids"
        return case.say(unsure, "TooFewSamples", few)
    return case.say(Verdict.PASS, "WithinBound", "inside" if case.inside else "inside but for one burst")


def _without_burst(cells: Mapping[int, PairSums]) -> tuple[int, int]:
    """Queries that were not answered and queries, without the two neighbouring buckets that hold the most of them."""
    unanswered = {bucket: cell.unanswered for bucket, cell in cells.items()}
    worst = max(unanswered, key=lambda bucket: unanswered[bucket] + unanswered.get(bucket + 1, 0), default=0)
    kept = add_pairs(cell for bucket, cell in cells.items() if bucket not in (worst, worst + 1))
    return kept.unanswered, max(kept.mirrored, kept.unanswered)
