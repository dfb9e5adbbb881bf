"""Verdicts in a revision's status: written when they change, never at each look, and not as fast as they flap.

What a look says is compared with what is stored; Fail is written and told at once, all else at most every
`PAUSE_SECONDS`. So a rule that sways between two verdicts costs a write and an Event now and then, not one a look.
"""

from __future__ import annotations

from collections.abc import Iterable

from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import RolloutStatus
from vectorindex_operator.api.v1alpha1 import RuleVerdict as Row
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.judging.always import UNAVAILABLE, UNREADY
from vectorindex_operator.core.judging.rules import RuleVerdict
from vectorindex_operator.core.state import ReconcileState

PAUSE_SECONDS = 30.0
STEADY_PAUSE_SECONDS = 90.0
_TOLD = {"Fail": EventReason.GUARDRAIL_FAILED, "Error": EventReason.GUARDRAIL_ERROR}
"""Events by the verdict that a rule changed to."""


def fresh_rows(
    before: tuple[Row, ...], said: Iterable[RuleVerdict], now: float, *, at_once: bool
) -> tuple[Row, ...] | None:
    """The rows to store in the place of `before`; None: nothing has changed, or it changes too fast to be written."""
    known = _by_rule(before)
    rows = tuple(_row(verdict, known, now) for verdict in said)
    changed = [row for row in rows if _differs(row, known)]
    if not changed and len(known) == len(rows):
        return None
    # What `unavailable` says is a time to count from: it must be true at every look.
    urgent = any(row.verdict == "Fail" or row.rule == UNAVAILABLE for row in changed)
    return rows if at_once or urgent or _rested(before, PAUSE_SECONDS, now) else None


def keep(state: ReconcileState, name: str, said: Iterable[RuleVerdict], *, at_once: bool) -> None:
    """Store the verdicts of a soak if one of them has another verdict or reason than the stored one."""
    rollout = state.statuses[name].rollout
    if rollout is None:
        return
    rows = fresh_rows(rollout.verdicts, said, state.now, at_once=at_once)
    if rows is not None:
        before = _by_rule(rollout.verdicts)
        _write(state, name, rollout, rows, [row for row in rows if _differs(row, before)])


def keep_steady(state: ReconcileState, name: str, said: Iterable[RuleVerdict]) -> None:
    """Store the verdicts of a watched revision: what fails, what cannot be judged, and what is well again.

    A rule that passed and now merely lacks samples is none of these: traffic that comes and goes writes nothing. What
    only the soak judged stays as it was, if it passed.
    """
    rollout = state.statuses[name].rollout
    if rollout is None:
        return
    before, verdicts = _by_rule(rollout.verdicts), tuple(said)
    judged = {(v.rule, v.segment) for v in verdicts}
    kept = tuple(row for key, row in before.items() if key not in judged and row.verdict == "Pass")
    fresh = [_row(verdict, before, state.now) for verdict in verdicts]
    changed = [row for row in fresh if _matters(row, before.get((row.rule, row.segment)))]
    if not changed and len(kept) == sum(key not in judged for key in before):
        return
    urgent = any(row.verdict == "Fail" or row.rule == UNAVAILABLE for row in changed)  # as above
    if urgent or _rested(rollout.verdicts, STEADY_PAUSE_SECONDS, state.now):
        told = {(row.rule, row.segment) for row in changed}
        rows = [row if (row.rule, row.segment) in told else before.get((row.rule, row.segment)) for row in fresh]
        _write(state, name, rollout, (*kept, *(row for row in rows if row is not None)), changed)


def end_watch(state: ReconcileState, name: str) -> None:
    """Nobody judges the revision any more: a verdict that was not Pass must not stand for ever."""
    rollout = state.statuses[name].rollout
    if rollout is not None and any(row.verdict != "Pass" for row in rollout.verdicts):
        state.update(name, rollout=rollout.model_copy(update={"verdicts": ()}))


def unready_since(rollout: RolloutStatus, now: float) -> float:
    """When a look first found the revision without a ready pod, by the operator's clock; now, if this one does."""
    times = [to_unix(row.at) for row in rollout.verdicts if row.rule == UNAVAILABLE and row.reason in UNREADY]
    return min([now, *times])


def _by_rule(rows: tuple[Row, ...]) -> dict[tuple[str, str], Row]:
    return {(row.rule, row.segment): row for row in rows}


def _differs(row: Row, before: dict[tuple[str, str], Row]) -> bool:
    old = before.get((row.rule, row.segment))
    return old is None or (old.verdict, old.reason, old.at) != (row.verdict, row.reason, row.at)


def _matters(row: Row, old: Row | None) -> bool:
    """Whether people should know. That what was never judged cannot be judged yet is no news."""
    if row.rule == UNAVAILABLE:
        return old is None or (old.verdict, old.reason) != (row.verdict, row.reason)
    if old is None:
        return row.verdict in ("Fail", "Pass")
    if row.verdict in ("Fail", "Error"):
        return (old.verdict, old.reason) != (row.verdict, row.reason)
    return old.verdict in ("Fail", "Error") or (row.verdict == "Pass" and old.verdict != "Pass")


def _rested(rows: tuple[Row, ...], pause: float, now: float) -> bool:
    """Whether the last change is long enough ago. A time ahead of the clock holds nothing up."""
    times = [to_unix(row.at) for row in rows]
    return not times or not 0 <= now - max(times) < pause


def _row(verdict: RuleVerdict, before: dict[tuple[str, str], Row], now: float) -> Row:
    old = before.get((verdict.rule, verdict.segment))
    row = Row(
        rule=verdict.rule,
        metric=verdict.metric,
        segment=verdict.segment,
        verdict=verdict.verdict.value,
        reason=verdict.reason,
        message=verdict.message,
        value=verdict.value,
        limit=verdict.limit,
        samples=verdict.samples,
        at=to_text(now),
    )
    same = old is not None and (
        (old.verdict, old.reason) == (row.verdict, row.reason) or (old.reason in UNREADY and row.reason in UNREADY)
    )
    # A time that lies ahead was written before the clock was set back: counting starts anew.
    return row.model_copy(update={"at": old.at}) if old is not None and same and to_unix(old.at) <= now else row


def _write(
    state: ReconcileState, name: str, rollout: RolloutStatus, rows: tuple[Row, ...], changed: Iterable[Row]
) -> None:
    before = _by_rule(rollout.verdicts)
    for row in changed:
        old = before.get((row.rule, row.segment))
        if old is not None and old.verdict == row.verdict:
            continue
        if row.verdict in _TOLD:
            state.event(_TOLD[row.verdict], row.message, revision=name)
        elif old is not None and old.verdict == "Fail":
            state.event(EventReason.GUARDRAIL_RECOVERED, row.message, revision=name)
    state.update(name, rollout=rollout.model_copy(update={"verdicts": rows}))
