"""Rules on PromQL: one number a window, told by a server of the installation's, not by searchers. Pure.

Nothing is remembered between looks here either, for the server keeps the past: each look asks for the number at the end
of every window since the warm-up, one query for all of them, and judges what comes. A window is outside or it is not:
there is no sample of which anything could be beyond doubt, so the budget of false trips does not hold for these rules,
and `consecutive` and the distance of the bound are all that stands between noise and a trip.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vectorindex_operator.core.judging.blocks import OVERALL
from vectorindex_operator.core.judging.comparison import Bound
from vectorindex_operator.core.judging.metrics import FIGURE_METRICS
from vectorindex_operator.core.judging.rules import Rule, RuleVerdict, Verdict

LAG_SECONDS = 15.0
"""A window's number is asked for so long after its end: what was scraped last has to arrive."""
MOST_WINDOWS = 240
"""Of one rule in one look; the newest."""

Told = Mapping[tuple[str, str], "FigureAnswer"]
"""By rule and revision."""


@dataclass(frozen=True, slots=True)
class FigureQuestion:
    """A query of a rule about a revision, as the server gets it, at `first`, `first + step`, ... `last` (Unix seconds).
    `rule`, `revision`: whose answer it is."""

    rule: str
    revision: str
    query: str
    first: float
    last: float
    step: float

    @property
    def count(self) -> int:
        return round((self.last - self.first) / self.step) + 1


@dataclass(frozen=True, slots=True)
class FigureAnswer:
    """One value for each time of the question, oldest first; None where the server has none, or it is no number.

    `problem`: why nothing is known, in words for people; then there are no values. `invalid`: the server answered, but
    not with one number a time.
    """

    values: tuple[float | None, ...] = ()
    problem: str = ""
    invalid: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is judged: `revision` since `began` (Unix seconds), when it got the traffic or a part of it, or was promoted.

    `stable`: whom relative rules compare with; "" in steady state. `before`: the time at which that is asked about,
    where it had the traffic until then and not since; None: the same times as for the revision itself.
    """

    namespace: str
    index: str
    revision: str
    began: float
    stable: str = ""
    before: float | None = None


def figure_rules(rules: Iterable[Rule], subject: Subject) -> Iterator[Rule]:
    """Those that are judged here: without stable relative ones are not."""
    return (rule for rule in rules if rule.metric in FIGURE_METRICS and (subject.stable or not rule.relative))


def figure_questions(rules: Iterable[Rule], subject: Subject, now: float) -> Iterator[FigureQuestion]:
    """What the server is asked; nothing of a rule of which no window is over."""
    for rule in figure_rules(rules, subject):
        first = subject.began + rule.warm_up_seconds + rule.window_seconds
        count = math.floor((now - LAG_SECONDS - first) / rule.window_seconds) + 1
        if count < 1:
            continue
        last = first + (count - 1) * rule.window_seconds
        first = max(first, last - (MOST_WINDOWS - 1) * rule.window_seconds)
        yield _question(rule, subject, subject.revision, first, last)
        if rule.relative:
            at = (first, last) if subject.before is None else (subject.before, subject.before)
            yield _question(rule, subject, subject.stable, *at)


def _question(rule: Rule, subject: Subject, revision: str, first: float, last: float) -> FigureQuestion:
    query = rule.query
    filled = {
        "revision": revision,
        "index": subject.index,
        "namespace": subject.namespace,
        "window": f"{round(rule.window_seconds)}s",
    }
    for name, value in filled.items():
        query = query.replace(f"{{{{{name}}}}}", value)
    return FigureQuestion(rule.name, revision, query, first, last, rule.window_seconds)


def judge_figures(rules: Sequence[Rule], told: Told, subject: Subject, now: float) -> tuple[RuleVerdict, ...]:
    """One verdict per rule on PromQL, in their order. `now`: Unix seconds."""
    return tuple(_judge(rule, told, subject, now) for rule in figure_rules(rules, subject))


def _judge(rule: Rule, told: Told, subject: Subject, now: float) -> RuleVerdict:
    warm = subject.began + rule.warm_up_seconds
    if now < warm:
        return _say(rule, Verdict.INCONCLUSIVE, "WarmingUp", f"warming up for another {warm - now:.0f} s")
    mine = told.get((rule.name, subject.revision))
    if mine is None:
        return _say(rule, Verdict.INCONCLUSIVE, "TooFewSamples", f"no window of {rule.window_seconds:g} s is over yet")
    if mine.problem:
        return _error(rule, mine, subject.revision)
    base: tuple[float | None, ...] = (None,) * len(mine.values)
    if rule.relative:
        theirs = told.get((rule.name, subject.stable)) or FigureAnswer(problem="nothing is known of it")
        if theirs.problem:
            return _error(rule, theirs, subject.stable)
        same = subject.before is None
        base = theirs.values if same else theirs.values[-1:] * len(mine.values)
        if base[-1:] in ((), (None,)):
            return _error(rule, FigureAnswer(problem="the query has no number", invalid=True), subject.stable)
    return _judge_windows(rule, list(zip(mine.values, base, strict=False)), subject)


def _judge_windows(rule: Rule, windows: list[tuple[float | None, float | None]], subject: Subject) -> RuleVerdict:
    """Fail where `consecutive` windows in a row were outside, at any time; else what the newest says."""
    run = 0
    for value, base in windows:
        known = value is not None and (base is not None or not rule.relative)
        run = run + 1 if known and _outside(rule.bound, value, base) else 0
        if run >= rule.consecutive:
            row = f" in {run} windows in a row" if run > 1 else ""
            return _say(rule, Verdict.FAIL, "BoundExceeded", f"outside{row}", value, base, len(windows), run)
    value, base = windows[-1] if windows else (None, None)
    if value is None:
        return _error(rule, FigureAnswer(problem="the query has no number", invalid=True), subject.revision)
    if run:
        text = f"outside, in {run} of {rule.consecutive} windows of {rule.window_seconds:g} s"
        return _say(rule, Verdict.INCONCLUSIVE, "NearBound", text, value, base, len(windows), run)
    return _say(rule, Verdict.PASS, "WithinBound", "inside", value, base, len(windows))


def _outside(bound: Bound, value: float | None, base: float | None) -> bool:
    assert value is not None
    edge = bound.limit(math.nan if base is None else base)
    return not bound.allows(value, edge)


def _error(rule: Rule, answer: FigureAnswer, revision: str) -> RuleVerdict:
    reason = "EvidenceInvalid" if answer.invalid else "EvidenceMissing"
    return _say(rule, Verdict.ERROR, reason, f"of {revision}: {answer.problem}")


def _say(
    rule: Rule,
    verdict: Verdict,
    reason: str,
    text: str,
    value: float | None = None,
    base: float | None = None,
    windows: int = 0,
    failed: int = 0,
) -> RuleVerdict:
    row, bound = FIGURE_METRICS[rule.metric], rule.bound
    edge = bound.limit(math.nan if base is None else base) if base is not None or not rule.relative else None
    sentence = f"{rule.name}: {row.label} {'unknown' if value is None else row.show(value)}"
    if windows:
        sentence += f" in the last of {windows} {row.samples} of {rule.window_seconds:g} s"
    if edge is not None:
        sentence += f"; {'max' if bound.sign > 0 else 'min'} {row.show(edge)}"
    if base is not None:
        sentence += f" from stable's {row.show(base)}"
    return RuleVerdict(
        rule=rule.name,
        metric=rule.metric,
        segment=OVERALL,
        verdict=verdict,
        reason=reason,
        message=f"{sentence}; {text}",
        mode=rule.mode,
        value=value,
        limit=edge,
        samples=windows,
        window_seconds=rule.window_seconds,
        windows_failed=failed,
        baseline_value=base,
    )
