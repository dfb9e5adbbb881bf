"""While a canary's steps go on: judge what the gateway's queries got of it, against what stable answered meanwhile.

Each step is judged by itself, by the rules of a soak, as soon as its weight is wanted; its time counts from when every
gateway routes so. Whether the next one begins is the way forward's (progress/shift.py).
"""

from __future__ import annotations

from vectorindex_operator.api import v1alpha1 as api
from vectorindex_operator.api.quantities import duration_seconds, share
from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.judging.acts import ACTS, Act, Situation
from vectorindex_operator.core.judging.always import Restarts, restarts, unavailable
from vectorindex_operator.core.judging.baseline import Baseline, freeze_baseline
from vectorindex_operator.core.judging.evidence import RevisionEvidence, merge, samples_since
from vectorindex_operator.core.judging.judge import judge
from vectorindex_operator.core.judging.questions import needs_baseline
from vectorindex_operator.core.judging.rules import RuleVerdict, Verdict, rule_of, worst
from vectorindex_operator.core.judging.shadow import STEPS_BUDGET
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.safety import promote, verdicts
from vectorindex_operator.core.safety.judge_serving import (
    figures,
    restarts_since,
    stable_restarts,
    told_until,
    with_restarts,
)
from vectorindex_operator.core.safety.route import step_of
from vectorindex_operator.core.safety.withdraw import withdraw
from vectorindex_operator.core.state import ReconcileState

BY_HAND = "ByHand"
"""Outcome of steps that a person ended."""


def step(state: ReconcileState) -> None:
    name = state.candidate
    status = state.statuses.get(name)
    if state.has_moved or status is None or status.phase != Phase.SHIFTING or name == state.serving:
        return
    rollout = status.rollout
    at = step_of(rollout)
    if rollout is None or rollout.steps is None or at is None:
        return
    state.keep_loaded.update({name, state.stable} - {""})
    state.requeue_at(state.now + state.settings.soak_look_seconds)
    if unread := rollout.unread & {"settings", "guardrails", "steps"}:
        what = ", ".join(f"status.rollout.{field}" for field in sorted(unread))
        state.block("ForeignRollout", name, f"parts of {what} are of another release: it waits for one that reads them")
        return
    rollout = _with_times(state, name, with_restarts(state, name, rollout))
    assert rollout.steps is not None
    evidence, sums = state.obs.evidence.get(name, ()), state.obs.sums.get(name)
    merged = merge(evidence, state.now, revision=name, sums=sums)
    said = _judge(state, name, rollout, merged)
    act = ACTS[Situation.SHIFTING, worst(said)]
    verdicts.keep(state, name, said, at_once=act is Act.WITHDRAW)
    if act is Act.WITHDRAW:
        first = next(one for one in said if one.verdict is Verdict.FAIL and one.mode == "Enforce")
        state.event(EventReason.GUARDRAIL_TRIPPED, first.message, revision=name)
        withdraw(state, name, rule=first.rule, reason=first.metric, message=first.message)
    elif not _by_word(state, name, rollout, merged, said):
        state.step_passed = act is Act.NEXT_STEP and elapsed(state, rollout.steps) >= _least(at)


def elapsed(state: ReconcileState, steps: api.StepsStatus) -> float:
    """Seconds for which every gateway has been seen to route so; -1 while one does not."""
    return state.seen_at - to_unix(steps.started_at) if steps.started_at is not None else -1.0


def _least(at: api.Step) -> float:
    return duration_seconds(at.duration) if at.duration is not None else 0.0


def _with_times(state: ReconcileState, name: str, rollout: api.RolloutStatus) -> api.RolloutStatus:
    """Times ahead of the clock were written before it was set back: the step counts from now."""
    steps = rollout.steps
    assert steps is not None
    if max(to_unix(steps.asked_at), to_unix(steps.started_at or steps.asked_at)) <= state.now + 1:
        return rollout
    now = to_text(state.now)
    steps = steps.model_copy(update={"asked_at": now, "started_at": now if steps.started_at is not None else None})
    rollout = rollout.model_copy(update={"steps": steps})
    state.update(name, rollout=rollout)
    return rollout


def _judge(
    state: ReconcileState, name: str, rollout: api.RolloutStatus, merged: RevisionEvidence
) -> tuple[RuleVerdict, ...]:
    """The steps share a part of the soak's budget of false trips, each as if it took as long as a soak may."""
    assert rollout.steps is not None
    began, loaded = to_unix(rollout.steps.asked_at), state.loaded(name)
    rules = tuple(rule_of(rule) for rule in rollout.guardrails.rules)
    said = judge(
        rules,
        merged,
        started_at=began,
        now=told_until(state, name),
        baseline=_meanwhile(state, rollout, began),
        alpha_budget=share(rollout.guardrails.false_trip_budget) * STEPS_BUDGET / len(rollout.settings.canary_steps),
        horizon_seconds=duration_seconds(rollout.settings.soak.max_duration),
        ready_pods=loaded.ready,
        steady=False,
    )
    down = unavailable(
        candidate_ready=loaded.ready,
        stable_ready=state.loaded(state.stable).ready,
        unready_since=verdicts.unready_since(rollout, state.seen_at),
        now=state.seen_at,
        who=("the candidate", "stable"),
    )
    again = restarts(_restarts(state, name, rollout), stable_restarts(state))
    return (down, again, *said, *figures(state, name, rules))


def _restarts(state: ReconcileState, name: str, rollout: api.RolloutStatus) -> Restarts:
    """Of the candidate's pods since its first step."""
    began = (state.statuses[name].phase_times or {}).get(Phase.SHIFTING, rollout.started_at)
    return restarts_since(state, name, rollout, to_unix(began))


def _meanwhile(state: ReconcileState, rollout: api.RolloutStatus, began: float) -> Baseline | None:
    """What stable answered since the step began: another time of day, or other users, are no difference then."""
    if not needs_baseline(rollout):
        return None
    serving = merge(state.obs.evidence.get(state.serving, ()), state.now, revision=state.serving)
    if serving.pods == len(serving.silent):
        return None
    return freeze_baseline(serving, began, told_until(state, state.serving))


def _by_word(
    state: ReconcileState,
    name: str,
    rollout: api.RolloutStatus,
    merged: RevisionEvidence,
    said: tuple[RuleVerdict, ...],
) -> bool:
    """Whether a person ended the steps, and the verdicts let them."""
    asked = promote.wanted(state)
    steps = rollout.steps
    if asked is None or steps is None:
        return False
    began = to_unix(steps.asked_at)
    longest = duration_seconds(rollout.settings.soak.max_duration)
    decided = promote.by_word(
        state, asked, said, samples_since(merged, began), told_until(state, name) - began, longest
    )
    if decided is None:
        return False
    status = state.statuses[name]
    assert status.rollout is not None
    over = steps.model_copy(update={"ended_at": to_text(state.now), "outcome": BY_HAND, "message": ": ".join(decided)})
    held = status.pause
    pause = held.model_copy(update={"resumed": asked.nonce}) if held is not None and not held.resumed else held
    state.update(name, rollout=status.rollout.model_copy(update={"steps": over}), pause=pause)
    return True
