"""Guardrails: from the searchers' counts to one verdict per rule. Pure: no I/O, no randomness, time comes in.

The loop, at each look (every 5 s during a soak), and which module of this package does what:

  0  questions.py: whose pods are asked, since when, for what        -> Question
  1  the adapter asks every pod of the revision for its counts       -> PodEvidence
  2  evidence.py puts the pods on one clock and adds them up         -> RevisionEvidence
  3  `judge`, per rule:
       cut the evidence since warm-up into windows that do not overlap and never change once closed;
       a window fails when its confidence limit lies beyond the bound, at a level of which all windows of all rules
       together use up the false-trip budget; `consecutive` failed windows in a row, at any time: Fail
       a rule whose windows nobody chose fails, too, once a bet against it has won enough (sequential.py): seconds after
       a clear fault; windows and bet then have half of the rule's level each
       a rule against stable is judged by pairs with the prior instead, where there are enough (same_moment.py)
       otherwise judge all evidence since warm-up: value inside the bound: Pass; outside, or a window has just
       failed: Inconclusive; too little evidence: Inconclusive; pods silent: Error
  4  `worst` of the enforced verdicts and of the rules of always.py, by the table of acts.py, decides what is done
     (core/safety/judge_serving.py)

Nothing is remembered between looks: an operator that restarts cuts the same windows and reaches the same verdicts.
What a new metric needs is listed in CONTRIBUTING.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vectorindex_operator.core.judging.baseline import Baseline, mix_distance
from vectorindex_operator.core.judging.blocks import OVERALL
from vectorindex_operator.core.judging.comparison import Levels, inside, limit
from vectorindex_operator.core.judging.evidence import (
    EPOCH_LIMIT,
    Counts,
    RevisionEvidence,
    add_up,
    closed_windows,
    first_bucket,
)
from vectorindex_operator.core.judging.metrics import METRICS, Metric
from vectorindex_operator.core.judging.rules import LEAST_BUDGET, Rule, RuleVerdict, Verdict
from vectorindex_operator.core.judging.same_moment import SameMoment, baseline_since, by_pairs, is_paired
from vectorindex_operator.core.judging.sequential import Stake, stake_on
from vectorindex_operator.core.judging.statistics import same_mix
from vectorindex_operator.core.judging.windows import Window
from vectorindex_searcher.contract import BUCKET_SECONDS

SILENT_SHARE = 1 / 3
"""More silent pods than this share of the ready ones: Error."""
MIX_DISTANCE = 0.2
"""Total variation distance between segment mixes from which an overall relative rule says nothing, if a difference so
large is no chance: at the level of one window, as all else that is said of it."""
EARLY_SAMPLES = 20
EARLY_RATE = 0.5
"""An error rate above this on so many queries needs no window and no warm-up."""
EARLY_BUDGET = 0.01
"""Share of a rule's level that all its early looks together may use."""


@dataclass(frozen=True, slots=True)
class _Case:
    """One rule with all that is needed to judge it."""

    rule: Rule
    metric: Metric
    merged: RevisionEvidence
    baseline: Baseline | None
    base: Counts | None
    """Stable's sample: None for absolute rules, and for relative ones without a usable baseline."""
    levels: Levels
    started_at: float
    first: int
    """The first bucket after the warm-up."""
    now: float
    stake: Stake | None
    """None: windows alone judge it."""
    stake_level: float

    @property
    def comparable(self) -> bool:
        return not self.rule.relative or self.base is not None

    @property
    def baseline_age(self) -> float:
        """Seconds since stable was last observed."""
        return self.now - self.baseline.to_time if self.baseline is not None else math.nan

    def mix_changed(self, first: int, stop: int) -> bool:
        """Whether an overall comparison with stable would compare different questions, not different answers.

        Far apart, and not by chance: among many segments two small samples of one mix are far apart as a rule.
        """
        if not self.rule.relative or self.rule.segment != OVERALL or self.baseline is None:
            return False
        now, before = self.merged.mix(first, stop), self.baseline.mix
        if mix_distance(now, before) <= MIX_DISTANCE:
            return False
        names = sorted(now.keys() | before.keys())
        chance = same_mix([now.get(name, 0) for name in names], [before.get(name, 0) for name in names])
        return chance <= self.levels.window

    def failed(self, window: Window) -> bool:
        """Whether the window is outside the bound beyond doubt."""
        family, bound = self.metric.family, self.rule.bound
        return (
            self.comparable
            and not inside(family, window.cell, self.base, bound)  # spares the exact tails nearly always
            and family.beyond(window.cell, self.base, bound, self.levels)
            and not self.mix_changed(window.first, window.stop)
        )

    def say(
        self,
        verdict: Verdict,
        reason: str,
        text: str,
        cell: Counts,
        seconds: float,
        failed: int = 0,
        *,
        near: bool = True,
    ) -> RuleVerdict:
        """The verdict on `cell` with its numbers; `text` follows the description of the sample. `near`: with the
        confidence limit of such a sample by itself."""
        family, rule = self.metric.family, self.rule
        value = _number(family.value(cell))
        edge = _number(limit(family, self.base, rule.bound)) if self.comparable else None
        confident = None
        if near and value is not None and self.comparable:
            confident = _number(family.confidence(cell, self.base, rule.bound, self.levels))
        stable = None if self.base is None else _number(family.value(self.base))
        sample = f"{family.size(cell):,} {self.metric.samples}{self.metric.note(cell)}"
        return RuleVerdict(
            rule=rule.name,
            metric=rule.metric,
            segment=rule.segment,
            verdict=verdict,
            reason=reason,
            message=_sentence(self, text, sample, seconds, value, edge, confident, stable),
            mode=rule.mode,
            value=value,
            limit=edge,
            confidence_limit=confident,
            samples=family.size(cell),
            window_seconds=seconds,
            windows_failed=failed,
            baseline_value=stable,
            baseline_age_seconds=None if stable is None else self.baseline_age,
        )


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _sentence(
    case: _Case,
    text: str,
    sample: str,
    seconds: float,
    value: float | None,
    edge: float | None,
    near: float | None,
    stable: float | None,
) -> str:
    rule, show = case.rule, case.metric.show
    where = f" of segment {rule.segment}" if rule.segment else ""
    sentence = f"{rule.name}: {case.metric.label}{where} "
    sentence += "unknown" if value is None else show(value)
    if near is not None:
        sentence += f" (at {'least' if rule.bound.sign > 0 else 'most'} {show(near)} beyond doubt)"
    sentence += f" on {sample} in {seconds:g} s; "
    if edge is not None:
        sentence += f"{'max' if rule.bound.sign > 0 else 'min'} {show(edge)}"
    if stable is not None:
        sentence += f" from stable's {show(stable)} {case.baseline_age:.0f} s ago"
    return f"{sentence}{'; ' if edge is not None else ''}{text}"


# ---------------------------------------------------------------- judging


def judge(
    rules: Sequence[Rule],
    merged: RevisionEvidence,
    *,
    started_at: float,
    now: float,
    baseline: Baseline | None,
    alpha_budget: float,
    horizon_seconds: float,
    ready_pods: int,
    steady: bool,
    pairs: SameMoment | None = None,
) -> tuple[RuleVerdict, ...]:
    """One verdict per rule, in their order; none for a metric that only shadow knows (pairs.py).

    `started_at`: when the revision got the traffic (soak) or was promoted (steady state), Unix seconds on the
    operator's clock. `alpha_budget`: probability of a false trip within `horizon_seconds` (maxDuration, or 24 h in
    steady state) that all enforced rules share. Ready pods that are not in the evidence count as silent.
    In steady state relative rules are left out: their baseline would be of another day. `pairs`: None where nothing is
    mirrored after the switch.
    """
    budget = min(0.5, max(alpha_budget, LEAST_BUDGET))
    judged = [rule for rule in rules if rule.metric in METRICS and not (steady and rule.relative)]
    looks = {rule: math.ceil(horizon_seconds / rule.window_seconds) for rule in judged}
    enforced = sum(looks[rule] for rule in judged if rule.mode == "Enforce")
    verdicts = []
    for rule in judged:
        # What only observes can trip nothing and costs the others nothing; it is shown at the level it would get.
        alpha = budget / max(1, enforced + (0 if rule.mode == "Enforce" else looks[rule]))
        final = METRICS[rule.metric].final(merged)
        first = first_bucket(started_at + rule.warm_up_seconds)
        stake = stake_on(METRICS[rule.metric].bet, rule, final, first, horizon_seconds)
        of_pairs = pairs if pairs is not None and is_paired(rule) else None
        if stake is not None or of_pairs is not None:
            alpha /= 2
        since = first if of_pairs is None else baseline_since(rule, of_pairs, final, first, now)
        case = _Case(
            rule=rule,
            metric=METRICS[rule.metric],
            merged=final,
            baseline=baseline,
            base=_usable(baseline, rule) if rule.relative else None,
            levels=Levels(window=alpha, once=alpha * max(1, looks[rule]) / 2),
            started_at=started_at,
            first=first if since is None else since,
            now=now,
            stake=stake,
            stake_level=alpha * looks[rule],
        )
        if of_pairs is None or since is not None:
            verdicts.append(_judge_rule(case, ready_pods))
        else:
            said = by_pairs(rule, of_pairs, first, now, level=case.stake_level, horizon_seconds=horizon_seconds)
            verdicts.append(said if said.verdict is Verdict.FAIL else _missing(case, ready_pods) or said)
    return tuple(verdicts)


def _usable(baseline: Baseline | None, rule: Rule) -> Counts | None:
    """Stable's sample, if it is large enough to compare with."""
    family = METRICS[rule.metric].family
    cell = baseline.cells.get(rule.segment) if baseline is not None else None
    return cell if cell is not None and family.size(cell) >= rule.min_samples else None


def _judge_rule(case: _Case, ready_pods: int) -> RuleVerdict:
    """Fail comes first: what the pods that answer prove stands, whatever the others would say."""
    found = _early(case) or _proven(case)
    if found is not None:
        return found
    window, run = _failed_windows(case)
    if window is not None:
        seconds = float((window.stop - window.first) * BUCKET_SECONDS)
        text = "outside beyond doubt" + (f" in {run} windows in a row" if run > 1 else "")
        return case.say(Verdict.FAIL, "BoundExceeded", text, window.cell, seconds, run)
    return _missing(case, ready_pods) or _too_long(case) or _judge_all(case, run)


def _failed_windows(case: _Case) -> tuple[Window | None, int]:
    """The window that completed `consecutive` failed ones in a row, if any, and the length of the row.

    Without one: how many up to the newest failed in a row.
    """
    windows = closed_windows(
        case.merged,
        case.rule.segment,
        first=case.first,
        span=case.rule.span,
        enough=max(case.rule.min_samples, case.metric.family.enough(case.levels)),
        size=case.metric.family.size,
        latency=case.metric.latency,
    )
    run = 0
    for window in windows:
        run = run + 1 if case.failed(window) else 0
        if run >= case.rule.consecutive:
            return window, run
    return None, run


def _early(case: _Case) -> RuleVerdict | None:
    """Fail at once on an error rate above one half in the newest buckets that hold 20 requests, the open one included.

    Neither window nor warm-up: pods proved themselves before they became ready, so errors are never a cold start.
    Looks this frequent have their own, tiny share of the budget; it matters only with bounds of some 20 % and more.
    """
    bound = case.rule.bound
    if case.rule.metric != "ErrorRate" or bound.sign < 0:
        return None
    family = case.metric.family
    taken, seconds = _newest(case, EARLY_SAMPLES)
    if family.size(taken) < EARLY_SAMPLES or family.value(taken) <= EARLY_RATE:
        return None
    levels = replace(case.levels, window=case.levels.window * EARLY_BUDGET / case.rule.span)
    if case.comparable and not family.beyond(taken, case.base, bound, levels):
        return None
    return case.say(Verdict.FAIL, "BoundExceeded", "more than half of the newest requests failed", taken, seconds, 1)


def _proven(case: _Case) -> RuleVerdict | None:
    """Fail once a bet against the rule has won enough."""
    since = None if case.stake is None else case.stake.proven_since(case.stake_level)
    if since is None:
        return None
    cells = [cell for _, cell in case.merged.cells_since(case.rule.segment, since)]
    seconds = max(0.0, case.now - since * BUCKET_SECONDS)
    text = "outside beyond doubt, whenever it is looked at"
    return case.say(Verdict.FAIL, "BoundExceeded", text, add_up(cells), seconds, near=False)


def _newest(case: _Case, enough: int) -> tuple[Counts, float]:
    """The newest buckets, at most a window, that hold `enough` samples or all there are, and their age in seconds.

    The bucket in which the revision got the traffic counts: what it holds is the revision's own.
    """
    oldest = max(math.floor(case.started_at / BUCKET_SECONDS), case.merged.complete_before - case.rule.span)
    taken, first = Counts(), case.merged.complete_before
    for bucket, cell in case.merged.cells_since(case.rule.segment, oldest):
        taken, first = add_up((taken, cell)), bucket
        if case.metric.family.size(taken) >= enough:
            break
    return taken, max(0.0, case.now - first * BUCKET_SECONDS)


def _missing(case: _Case, ready_pods: int) -> RuleVerdict | None:
    """Error, when too many of the pods that serve say nothing that can be used. A Fail on what the others say stands.

    A pod that answers in the name of another revision is such a one: its address was reused, or the selector of its
    Deployment reaches what it should not. That is no silence of users, so it must never pass for "no data".
    """
    merged = case.merged
    silent = max(len(merged.silent), ready_pods - (merged.pods - len(merged.silent)))
    if ready_pods > 0 and silent <= ready_pods * SILENT_SHARE:
        return None
    if ready_pods > 0 and merged.foreign:
        text = f"{len(merged.foreign)} of {ready_pods} serving pods answer in the name of another revision"
        return case.say(Verdict.ERROR, "WrongRevision", text, *_everything(case))
    text = (
        f"{silent} of {ready_pods} serving pods gave no evidence" if ready_pods > 0 else "no pod is ready to be asked"
    )
    if merged.problem:
        text = f"{text} ({merged.problem})"
    return case.say(Verdict.ERROR, "EvidenceMissing", text, *_everything(case))


def _too_long(case: _Case) -> RuleVerdict | None:
    """Error, when no window can close before the rings forget it: such a rule would guard nothing and say Pass."""
    if not case.rule.too_long:
        return None
    longest = f"{EPOCH_LIMIT * BUCKET_SECONDS / 60:.0f} min of windows, and searchers keep an hour of evidence"
    text = f"window x consecutive is more than {longest}: shorten one of them"
    return case.say(Verdict.ERROR, "WindowTooLong", text, *_everything(case))


def _everything(case: _Case) -> tuple[Counts, float]:
    """All visible evidence since warm-up and its length in seconds."""
    first = max(case.first, case.merged.oldest)
    seconds = max(0, case.merged.complete_before - first) * BUCKET_SECONDS
    return case.merged.total(case.rule.segment, first, latency=case.metric.latency), float(seconds)


def _judge_all(case: _Case, failed: int) -> RuleVerdict:
    """Pass or Inconclusive, on all evidence since warm-up. `failed`: windows in a row up to the newest."""
    rule, family = case.rule, case.metric.family
    cell, seconds = _everything(case)
    size = family.size(cell)
    warm = case.started_at + rule.warm_up_seconds
    unsure = Verdict.INCONCLUSIVE
    if case.now < warm:
        return case.say(unsure, "WarmingUp", f"warming up for another {warm - case.now:.0f} s", cell, seconds)
    if not case.comparable:
        return case.say(
            unsure, "NoBaseline", f"stable left fewer than {rule.min_samples} to compare with", cell, seconds
        )
    if case.metric.needs and case.metric.needs not in case.merged.tells:
        text = "its searchers do not tell: their image, or the report of the revision before, is too old"
        return case.say(unsure, "NotJudged", text, cell, seconds)
    if size == 0 and case.now - warm >= rule.window_seconds * rule.consecutive:
        on_no_data = {"Hold": unsure, "Pass": Verdict.PASS, "Fail": Verdict.FAIL}
        return case.say(on_no_data[rule.on_no_data], "NoData", f"onNoData is {rule.on_no_data}", cell, seconds)
    if size < rule.min_samples:
        return case.say(unsure, "TooFewSamples", f"{rule.min_samples} needed", cell, seconds)
    if not math.isfinite(family.value(cell)):
        return case.say(Verdict.ERROR, "EvidenceInvalid", "the searchers' sum is not a number", cell, seconds)
    if case.mix_changed(max(case.first, case.merged.oldest), case.merged.complete_before):
        return case.say(unsure, "MixChanged", "the mix of segments is not the baseline's", cell, seconds)
    needed = f"{failed} of {rule.consecutive} windows of {rule.window_seconds:g} s beyond doubt"
    if not inside(family, cell, case.base, rule.bound):
        return case.say(unsure, "NearBound", f"outside, {needed}", cell, seconds, failed)
    if failed:
        return case.say(unsure, "WindowFailed", f"inside, but the newest: {needed}", cell, seconds, failed)
    return case.say(Verdict.PASS, "WithinBound", "inside", cell, seconds)
