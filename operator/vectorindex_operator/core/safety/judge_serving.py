"""After the switch: judge the candidate's evidence, promote it or trip. Then watch the stable revision for a day.

No evidence is never success: without enough of it the soak goes on, the prior revision stays loaded. Whatever else
goes on (a revision that surges, a rollback that waits for its target), what has the traffic is judged.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable

from vectorindex_operator.api import v1alpha1 as api
from vectorindex_operator.api.quantities import duration_seconds, share
from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.judging.acts import ACTS, Act, Situation
from vectorindex_operator.core.judging.always import Restarts, restarts, unavailable
from vectorindex_operator.core.judging.baseline import Baseline, freeze_baseline
from vectorindex_operator.core.judging.evidence import RevisionEvidence, merge, samples_since
from vectorindex_operator.core.judging.figures import judge_figures
from vectorindex_operator.core.judging.judge import judge
from vectorindex_operator.core.judging.questions import (
    BASELINE_SECONDS,
    STEADY_WATCH_SECONDS,
    figures_subject,
    needs_baseline,
    started_at,
    tripped,
    watched_since,
)
from vectorindex_operator.core.judging.rules import Rule, RuleVerdict, Verdict, rule_of, worst
from vectorindex_operator.core.judging.shadow import SOAK_BUDGET, STEPS_BUDGET
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.safety import (
    fresh_off,
    keep_prior,
    mirrors,
    operating_point,
    pause,
    promote,
    roll_back,
    verdicts,
)
from vectorindex_operator.core.state import ReconcileState

NO_PRIOR = "NoPrior"
EXTERNAL = "External"


def step(state: ReconcileState) -> None:
    if state.has_moved:
        return  # the searchers of what gets the traffic in this pass were not asked: the next one judges it
    if state.candidate and state.statuses[state.candidate].phase == Phase.SOAKING and state.serving == state.candidate:
        _soak(state, state.candidate)
    elif state.stable and state.serving == state.stable:
        _watch(state, state.stable)


def _soak(state: ReconcileState, name: str) -> None:
    state.keep_loaded.update({name, state.stable} - {""})
    rollout = state.statuses[name].rollout
    if rollout is None or rollout.switched_at is None or tripped(rollout):
        return
    if not state.stable and not rollout.prior:
        _promote(state, name, NO_PRIOR, "the first revision: nothing to go back to, so no soak")
        return
    rollout = with_restarts(state, name, _with_times(state, name, rollout))
    rollout = _with_baseline(state, name, rollout)
    evidence, sums = operating_point.evidence_of(state, name), state.obs.sums.get(name)
    merged = merge(evidence, state.now, revision=name, sums=sums)
    said = _judge(state, name, rollout, merged, Situation.SOAKING)
    act = ACTS[Situation.SOAKING, worst(said)]
    promotion = _by_word(state, name, rollout, merged, said) or _due(state, name, rollout, merged, act)
    verdicts.keep(state, name, said, at_once=promotion is not None or act is Act.ROLL_BACK)
    state.requeue_at(state.now + state.settings.soak_look_seconds)
    if act is Act.ROLL_BACK:
        _trip(state, name, said)
    elif promotion is not None and rollout.trip is None:
        _promote(state, name, *promotion)


def _due(
    state: ReconcileState, name: str, rollout: api.RolloutStatus, merged: RevisionEvidence, act: Act
) -> tuple[str, str] | None:
    """Reason and message of the promotion that is due; None: the soak goes on."""
    if unread := rollout.unread & {"settings", "guardrails"}:
        what = ", ".join(f"status.rollout.{field}" for field in sorted(unread))
        state.block("ForeignRollout", name, f"parts of {what} are of another release: it soaks until one reads them")
        return None
    if pause.holds(state, name):
        return None
    soak = rollout.settings.soak
    samples, elapsed = _so_far(state, name, rollout, merged)
    longest = duration_seconds(soak.max_duration)
    if act is Act.PROMOTE and elapsed >= duration_seconds(soak.duration) and samples >= soak.min_queries:
        return "SoakPassed", f"passed every guardrail on {samples} queries in {elapsed:.0f} s"
    if act in (Act.PROMOTE, Act.HOLD_FOR_A_TIME) and elapsed >= longest and next_is_validated(state, name):
        # Without evidence the candidate keeps the traffic and the prior stays loaded, but it must not hold up what
        # comes next for ever.
        return "NoData", f"no verdict within {longest:.0f} s ({samples} queries); the next revision waits"
    return None


def _by_word(
    state: ReconcileState, name: str, rollout: api.RolloutStatus, merged: RevisionEvidence, said: Iterable[RuleVerdict]
) -> tuple[str, str] | None:
    """Reason and message of the promotion that a person asked for; None: nobody did, or the verdicts are against it."""
    asked = promote.wanted(state)
    if asked is None:
        return None
    samples, elapsed = _so_far(state, name, rollout, merged)
    longest = duration_seconds(rollout.settings.soak.max_duration)
    return promote.by_word(state, asked, said, samples, elapsed, longest)


def _so_far(
    state: ReconcileState, name: str, rollout: api.RolloutStatus, merged: RevisionEvidence
) -> tuple[int, float]:
    """Queries and seconds of the soak until now."""
    switched = to_unix(rollout.switched_at or "")
    return samples_since(merged, switched), told_until(state, name) - switched


def next_is_validated(state: ReconcileState, name: str) -> bool:
    return any(s.phase == Phase.VALIDATED for n, s in state.statuses.items() if n != name)


def _promote(state: ReconcileState, name: str, reason: str, message: str) -> None:
    prior = state.stable
    state.update(name, phase=Phase.STABLE, promoted_at=to_text(state.now), message=f"{reason}: {message}")
    if prior:
        state.update(prior, phase=Phase.SUPERSEDED, message=f"superseded by {name}")
        if state.statuses[prior].unloaded_at is not None:
            state.keep_loaded.discard(prior)  # dead, and no way back any more: it would be loaded to be retired
        else:
            keep_prior.begin(state, name, prior)
    state.event(EventReason.PROMOTED, f"{reason}: {message}", revision=name)
    state.find_slots()
    state.requeue_at(state.now + state.settings.watch_look_seconds)  # its watch begins: nothing else may wake us


def _trip(state: ReconcileState, name: str, said: tuple[RuleVerdict, ...]) -> None:
    first = next(v for v in said if v.verdict is Verdict.FAIL and v.mode == "Enforce")
    roll_back.trip(state, name, first.rule, first.metric, first.message)


def _with_times(state: ReconcileState, name: str, rollout: api.RolloutStatus) -> api.RolloutStatus:
    """A switch ahead of the clock: the clock was set back since. The soak is counted from now, not from then on, or
    neither a verdict nor the next rollout would come until the clock had caught up."""
    if to_unix(rollout.switched_at or "") <= state.now + 1:
        return rollout
    rollout = rollout.model_copy(update={"switched_at": to_text(state.now)})
    state.update(name, rollout=rollout)
    return rollout


def with_restarts(state: ReconcileState, name: str, rollout: api.RolloutStatus) -> api.RolloutStatus:
    """Note what its pods had behind them when they got the traffic: a pod may restart while it loads."""
    if rollout.restarts is not None:
        return rollout
    before = {pod.name: pod.restarts for pod in state.loaded(name).pods if pod.restarts}
    rollout = rollout.model_copy(update={"restarts": before})
    state.update(name, rollout=rollout)
    return rollout


def restarts_since(state: ReconcileState, name: str, rollout: api.RolloutStatus, began: float) -> Restarts:
    """Of the candidate's pods since it got the traffic, or a share of it."""
    before, pods = rollout.restarts or {}, state.loaded(name).pods
    since = {pod.name: max(0, pod.restarts - before.get(pod.name, 0)) for pod in pods}
    elapsed = max(0.0, state.now - began)
    return Restarts(sum(since.values()), sum(count > 0 for count in since.values()), len(pods), elapsed * len(pods))


def stable_restarts(state: ReconcileState) -> Restarts:
    """Of stable's pods, as long as they have surely been there when they were seen."""
    pods = state.loaded(state.stable).pods
    lived = sum(max(0.0, state.seen_at - pod.scheduled_at) for pod in pods if pod.scheduled_at is not None)
    return Restarts(sum(p.restarts for p in pods), sum(p.restarts > 0 for p in pods), len(pods), lived)


def _with_baseline(state: ReconcileState, name: str, rollout: api.RolloutStatus) -> api.RolloutStatus:
    """Freeze the prior's evidence of the last window before the switch; its ring holds it for an hour."""
    if rollout.baseline is not None or not needs_baseline(rollout):
        return rollout
    merged = merge(state.obs.evidence.get(rollout.prior, ()), state.now, revision=rollout.prior)
    if merged.pods == len(merged.silent):
        return rollout
    switched = to_unix(rollout.switched_at or "")
    baseline = freeze_baseline(merged, switched - BASELINE_SECONDS, switched)
    rollout = rollout.model_copy(update={"baseline": baseline.to_wire(), "baseline_at": to_text(switched)})
    state.update(name, rollout=rollout)
    return rollout


def _judge(
    state: ReconcileState, name: str, rollout: api.RolloutStatus, merged: RevisionEvidence, situation: Situation
) -> tuple[RuleVerdict, ...]:
    """The verdicts of the rollout's own rules, and of those that are always on: in a soak both, and while the prior is
    kept loaded that there are ready pods.

    Each counts up to when what it judges was so: evidence to when it was told, pods to when the look at them began.
    """
    steady = situation is Situation.STEADY
    watched = watched_since(state.statuses[name]) or 0.0
    loaded = state.loaded(name)
    rules = tuple(rule_of(rule) for rule in rollout.guardrails.rules)
    counted = judge(
        rules,
        merged,
        started_at=fresh_off.judged_from(state, name, started_at(watched, state.now))
        if steady
        else to_unix(rollout.switched_at or ""),
        now=told_until(state, name),
        baseline=_baseline(rollout),
        alpha_budget=share(rollout.guardrails.false_trip_budget) * (1.0 if steady else _of_budget(rollout)),
        horizon_seconds=STEADY_WATCH_SECONDS if steady else duration_seconds(rollout.settings.soak.max_duration),
        ready_pods=loaded.ready,
        steady=steady,
        pairs=None if steady else mirrors.compared(state, name),
    )
    said = (*counted, *figures(state, name, rules))
    if steady and not state.kept:
        return said
    down = unavailable(
        candidate_ready=loaded.ready,
        stable_ready=state.loaded(state.kept if steady else state.stable).ready,
        unready_since=verdicts.unready_since(rollout, state.seen_at),
        now=state.seen_at,
        who=(name, state.kept) if steady else ("the candidate", "stable"),
    )
    if steady:
        return (down, *said)
    behind = restarts_since(state, name, rollout, to_unix(rollout.switched_at or ""))
    return (down, restarts(behind, stable_restarts(state)), *said)


def figures(state: ReconcileState, name: str, rules: tuple[Rule, ...]) -> tuple[RuleVerdict, ...]:
    """The verdicts of the rules that searchers know nothing of."""
    subject = figures_subject(state.obs, name, state.statuses[name], state.now)
    return () if subject is None else judge_figures(rules, state.obs.figures, subject, state.now)


def _of_budget(rollout: api.RolloutStatus) -> float:
    """The share of a soak: what steps before it may use is not used twice."""
    return SOAK_BUDGET - (STEPS_BUDGET if rollout.settings.canary_steps else 0.0)


def told_until(state: ReconcileState, name: str) -> float:
    """Up to when the evidence of a revision tells of it: what came after that, a look on slow reads does not know."""
    return min([state.seen_at, *(pod.received_at for pod in state.obs.evidence.get(name, ()))])


def _baseline(rollout: api.RolloutStatus) -> Baseline | None:
    """None: there is none, or another release wrote it in a way that this one cannot read."""
    try:
        return None if rollout.baseline is None else Baseline.from_wire(rollout.baseline)
    except ValueError:
        return None


def _watch(state: ReconcileState, name: str) -> None:
    """Steady state: absolute rules only; one automatic rollback within a day of the promotion.

    A revision that a rollback restored is watched as well, but only to learn whether the one before it was to blame.
    """
    state.keep_loaded.add(name)
    status = state.statuses[name]
    rollout, since = status.rollout, watched_since(status)
    if rollout is None or tripped(rollout) or since is None:
        return
    if not (rollout.guardrails.rules or state.kept) or state.now - since > STEADY_WATCH_SECONDS:
        verdicts.end_watch(state, name)
        return
    state.requeue_at(min(state.now + _steady_look(state, name), since + STEADY_WATCH_SECONDS + 1))
    if state.kept and not state.loaded(name).serving():
        state.requeue_at(state.now + state.settings.soak_look_seconds)  # users wait
    evidence, sums = operating_point.evidence_of(state, name), state.obs.sums.get(name)
    merged = merge(evidence, state.now, revision=name, sums=sums)
    said = _judge(state, name, rollout, merged, Situation.STEADY)
    verdicts.keep_steady(state, name, said)
    if ACTS[Situation.STEADY, worst(said)] is not Act.STEADY_STATE or fresh_off.switch_off(state, name, said, merged):
        return
    if status.restored_at is not None:
        mark_cause_external(state, name, [v for v in said if v.verdict is Verdict.FAIL and v.mode == "Enforce"])
    elif rollout.guardrails.steady_state != "Rollback" or operating_point.fall_back(state, name, said):
        return
    elif roll_back.rollback_target(state, name):
        _trip(state, name, said)


def _steady_look(state: ReconcileState, name: str) -> float:
    """The interval, give or take a sixth, other for each index and look: a thousand indexes must not ask at once."""
    drawn = zlib.crc32(f"{state.obs.index.uid} {name} {math.floor(state.now)}".encode()) / 2**32
    return state.settings.watch_look_seconds * (5 + 2 * drawn) / 6


def mark_cause_external(state: ReconcileState, name: str, failed: list[RuleVerdict]) -> None:
    """The revision that we went back to breaches the same rule: the index was not the cause. Say so and stop acting."""
    decision = state.obs.traffic.decision
    if decision is None or decision.to_revision != name or decision.from_revision not in state.statuses:
        return
    rejected = state.statuses[decision.from_revision].rejected
    same = next((v for v in failed if v.rule == decision.rule), None)
    if same is None or rejected is None or rejected.stage != "Rollout":
        return
    message = (
        f"{name} breaches {same.rule} as well, so the cause is outside the index: {same.message}; retry when it is gone"
    )
    outside = rejected.model_copy(update={"stage": "External", "reason": EXTERNAL, "message": message})
    state.update(decision.from_revision, rejected=outside, message=message)
    state.event(EventReason.EXTERNAL, message, revision=decision.from_revision)
