"""`promote`: a person takes a soaking revision for good before its soak has shown that it is. Never against a Fail.

What does not apply is refused here. What may apply stays open until the verdicts of this very pass are known, and
judge_serving.py decides by them.
"""

from __future__ import annotations

from collections.abc import Iterable

from vectorindex_operator.api.v1alpha1 import RevisionStatus
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.judging.always import UNREADY
from vectorindex_operator.core.judging.rules import RuleVerdict, Verdict
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.safety.answers import answer, unanswered
from vectorindex_operator.core.state import ReconcileState

BY_HAND = "ByHand"
"""Reason of such a promotion."""


def obey(state: ReconcileState, command: Command) -> None:
    """Refuse what does not apply, and answer what was done by an operator that died before it could say so."""
    mark = f"{BY_HAND}: {_mark(command)}, after "
    promoted = [name for name, status in state.statuses.items() if status.message.startswith(mark)]
    ended = [name for name, status in state.statuses.items() if _of_steps(status).startswith(mark)]
    if promoted or ended:
        what = f"promoted {promoted[0]}" if promoted else f"ended the steps of {ended[0]}"
        return answer(state, command, done=True, message=what)
    if why := _why_not(state, command):
        answer(state, command, done=False, message=why)
    return None


def _of_steps(status: RevisionStatus) -> str:
    """Where the mark of a request stands that ended a canary's steps."""
    steps = status.rollout.steps if status.rollout is not None else None
    return steps.message if steps is not None else ""


def wanted(state: ReconcileState) -> Command | None:
    """The request that is still open once `obey` has looked at it."""
    return next((one for one in unanswered(state) if one.name == "promote" and not _why_not(state, one)), None)


def by_word(
    state: ReconcileState, command: Command, said: Iterable[RuleVerdict], samples: int, elapsed: float, longest: float
) -> tuple[str, str] | None:
    """Reason and message of the promotion, where the verdicts `said` allow it. The request is answered in any case.

    `samples`, `elapsed`, `longest`: queries and seconds of the soak until now, and the seconds that it may last.
    """
    enforced = [one for one in said if one.mode == "Enforce"]
    why = _objection(enforced, over=elapsed >= longest)
    if why:
        answer(state, command, done=False, message=why)
        return None
    open_ = "; ".join(one.message for one in enforced if one.verdict is not Verdict.PASS)
    shown = f"{samples} queries in {elapsed:.0f} s, {f'not shown: {open_}' if open_ else 'no guardrail fails'}"
    shifting = state.statuses[state.candidate].phase == Phase.SHIFTING
    did = "ended the steps of" if shifting else "promoted"
    answer(state, command, done=True, message=f"{did} {state.candidate} after {shown}"[:1024])
    return BY_HAND, f"{_mark(command)}, after {shown}"[:1024]  # who asked is not known; the nonce is


def _objection(enforced: Iterable[RuleVerdict], *, over: bool) -> str:
    """What no word helps against: a Fail, one that lacks only the next window or look, and, until the soak has taken as
    long as it may, an Error, behind which there may be a Fail."""
    for one in enforced:
        if one.verdict is Verdict.FAIL or one.windows_failed or one.reason in UNREADY:
            return f"{one.rule} fails: {one.message}"
        if one.verdict is Verdict.ERROR and not over:
            return f"{one.rule} cannot be judged, and may fail: {one.message}; after soak.maxDuration a word is enough"
    return ""


def _mark(command: Command) -> str:
    return f"a person asked for it: promote {command.nonce}"


def _why_not(state: ReconcileState, command: Command) -> str:
    """Empty: its verdicts decide."""
    name = state.candidate
    if not name or command.argument not in ("", name):
        return f"revision {command.argument!r} does not soak" if command.argument else "no revision soaks"
    status = state.statuses[name]
    rollout = status.rollout
    soaks = status.phase == Phase.SOAKING and state.serving == name
    shares = status.phase == Phase.SHIFTING and state.serving != name
    if rollout is None or not (soaks or shares):
        return f"{name} is {status.phase}: only what soaks, or has a share of the traffic, is promoted"
    if rollout.trip is not None:
        return f"{name} is to lose the traffic: {rollout.trip.message}"
    if unread := rollout.unread & {"settings", "guardrails"}:
        return f"parts of {', '.join(sorted(unread))} are of another release: nobody knows whether one of them fails"
    return ""
