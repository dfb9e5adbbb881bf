"""After the switch: judge the candidate's evidence, promote it or trip. Then watch the stable revision for a day.

No evidence is never success: without enough of it the soak goes on, the prior revision stays loaded.
"""

from __future__ import annotations

from vectorindex_operator.api import v1alpha1 as api
from vectorindex_operator.api.quantities import duration_seconds, share
from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.judging import judge
from vectorindex_operator.core.judging.judge import Verdict
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.phase import CANDIDATE, Phase
from vectorindex_operator.core.safety import roll_back
from vectorindex_operator.core.state import ReconcileState

LOOK_SECONDS = 5.0
STEADY_LOOK_SECONDS = 30.0
STEADY_WATCH_SECONDS = 24 * 3600.0
BASELINE_SECONDS = 900.0
NO_PRIOR = "NoPrior"
EXTERNAL = "External"


def step(state: ReconcileState) -> None:
    if state.candidate and state.statuses[state.candidate].phase == Phase.SOAKING and state.serving == state.candidate:
        _soak(state, state.candidate)
    elif state.stable and state.serving == state.stable:
        _watch(state, state.stable)


def evidence_wanted(obs: Observation, now: float) -> dict[str, float]:
    """Which revisions' pods are asked for evidence in this pass, and since when (unix seconds).

    The prior is asked once more after the switch, for the baseline that its ring still holds.
    """
    wanted: dict[str, float] = {}
    for name, revision in obs.revisions.items():
        rollout = revision.status.rollout
        if name != obs.traffic.revision or rollout is None:
            continue
        switched = to_unix(rollout.switched_at) if rollout.switched_at else now
        if obs.traffic.decision is not None and obs.traffic.decision.to_revision == name:
            switched = obs.traffic.decision.at
        wanted[name] = max(switched - BASELINE_SECONDS, now - 3600.0)
        if rollout.prior and rollout.baseline is None and revision.status.phase in CANDIDATE:
            wanted[rollout.prior] = switched - BASELINE_SECONDS
    return wanted


def to_rule(rule: api.GuardrailRule) -> judge.Rule:
    """The pure core's form of a rule: bounds as numbers (shares, milliseconds, scores), durations in seconds."""
    metric = judge.METRICS[rule.metric.value]
    return judge.Rule(
        name=rule.name,
        metric=rule.metric.value,
        max=judge.parse_bound(rule.max, rule.metric.value) if rule.max is not None else None,
        min=judge.parse_bound(rule.min, rule.metric.value) if rule.min is not None else None,
        max_drop_vs_stable=share(rule.max_drop_vs_stable) if rule.max_drop_vs_stable is not None else None,
        max_rise_vs_stable=share(rule.max_rise_vs_stable) if rule.max_rise_vs_stable is not None else None,
        segment=rule.segment,
        window_seconds=metric.window_seconds if rule.window is None else duration_seconds(rule.window),
        warm_up_seconds=duration_seconds(rule.warm_up),
        min_samples=rule.min_samples,
        consecutive=rule.consecutive,
        mode=rule.mode,
        on_no_data=rule.on_no_data,
    )


def _soak(state: ReconcileState, name: str) -> None:
    state.keep_loaded.update({name, state.stable} - {""})
    rollout = state.statuses[name].rollout
    if rollout is None or rollout.switched_at is None or rollout.trip is not None:
        return
    if not state.stable and not rollout.prior:
        _promote(state, name, NO_PRIOR, "the first revision: nothing to go back to, so no soak")
        return
    rollout = _with_baseline(state, name, rollout)
    switched = to_unix(rollout.switched_at or "")
    soak = rollout.settings.soak
    longest = duration_seconds(soak.max_duration)
    verdicts = _judge(state, name, rollout, started_at=switched, horizon=longest, steady=False)
    _write_verdicts(state, name, verdicts)
    state.requeue_at(state.now + LOOK_SECONDS)
    failed = [v for v in verdicts if v.verdict is Verdict.FAIL and v.mode == "Enforce"]
    if failed:
        roll_back.trip(state, name, failed[0].rule, failed[0].metric, failed[0].message)
        return
    merged = judge.merge(state.obs.evidence.get(name, ()), state.now, revision=name)
    samples = judge.samples_since(merged, switched)
    elapsed = state.now - switched
    worst = judge.worst(verdicts)
    if worst is Verdict.PASS and elapsed >= duration_seconds(soak.duration) and samples >= soak.min_queries:
        _promote(state, name, "SoakPassed", f"passed every guardrail on {samples} queries in {elapsed:.0f} s")
    elif elapsed >= longest and next_is_validated(state, name):
        # Without evidence the candidate keeps the traffic and the prior stays loaded, but it must not hold up what
        # comes next for ever.
        _promote(
            state, name, "NoData", f"no verdict within {longest:.0f} s ({samples} queries); the next revision waits"
        )


def next_is_validated(state: ReconcileState, name: str) -> bool:
    return any(s.phase == Phase.VALIDATED for n, s in state.statuses.items() if n != name)


def _promote(state: ReconcileState, name: str, reason: str, message: str) -> None:
    prior = state.stable
    state.update(name, phase=Phase.STABLE, promoted_at=to_text(state.now), message=f"{reason}: {message}")
    if prior:
        state.update(prior, phase=Phase.SUPERSEDED, message=f"superseded by {name}")
    state.event(EventReason.PROMOTED, f"{reason}: {message}", revision=name)
    state.find_slots()


def _with_baseline(state: ReconcileState, name: str, rollout: api.RolloutStatus) -> api.RolloutStatus:
    """Freeze the prior's evidence of the last window before the switch; its ring holds it for an hour."""
    evidence = state.obs.evidence.get(rollout.prior, ())
    if rollout.baseline is not None or not any(e.evidence for e in evidence) or rollout.switched_at is None:
        return rollout
    switched = to_unix(rollout.switched_at)
    merged = judge.merge(evidence, state.now, revision=rollout.prior)
    baseline = judge.freeze_baseline(merged, switched - BASELINE_SECONDS, switched)
    rollout = rollout.model_copy(update={"baseline": baseline.to_wire(), "baseline_at": to_text(switched)})
    state.update(name, rollout=rollout)
    return rollout


def _judge(
    state: ReconcileState, name: str, rollout: api.RolloutStatus, *, started_at: float, horizon: float, steady: bool
) -> tuple[judge.RuleVerdict, ...]:
    pods = state.obs.evidence.get(name, ())
    loaded = state.loaded(name)
    verdicts = judge.judge(
        tuple(to_rule(rule) for rule in rollout.guardrails.rules),
        judge.merge(pods, state.now, revision=name),
        started_at=started_at,
        now=state.now,
        baseline=judge.Baseline.from_wire(rollout.baseline) if rollout.baseline is not None else None,
        alpha_budget=share(rollout.guardrails.false_trip_budget),
        horizon_seconds=horizon,
        ready_pods=loaded.ready,
        silent_pods=sum(pod.evidence is None for pod in pods),
        steady=steady,
    )
    if steady:
        return verdicts
    down = judge.unavailable(
        candidate_ready=loaded.ready,
        stable_ready=state.loaded(state.stable).ready,
        unready_since=loaded.unready_since,
        now=state.now,
    )
    return (down, *verdicts)


def _write_verdicts(state: ReconcileState, name: str, verdicts: tuple[judge.RuleVerdict, ...]) -> None:
    """Keep the verdicts with their numbers when one of them changed; a mere look writes nothing."""
    rollout = state.statuses[name].rollout
    if rollout is None:
        return
    before = {(v.rule, v.segment): (v.verdict, v.reason) for v in rollout.verdicts}
    after = {(v.rule, v.segment): (v.verdict.value, v.reason) for v in verdicts}
    if before == after:
        return
    rows = tuple(
        api.RuleVerdict(
            rule=v.rule,
            metric=v.metric,
            segment=v.segment,
            verdict=v.verdict.value,
            reason=v.reason,
            message=v.message,
            value=v.value,
            limit=v.limit,
            samples=v.samples,
            at=to_text(state.now),
        )
        for v in verdicts
    )
    for row in rows:
        if row.verdict == "Fail" and before.get((row.rule, row.segment), ("",))[0] != "Fail":
            state.event(EventReason.GUARDRAIL_FAILED, row.message, revision=name)
    state.update(name, rollout=rollout.model_copy(update={"verdicts": rows}))


def _watch(state: ReconcileState, name: str) -> None:
    """Steady state: absolute rules only; one automatic rollback within a day of the promotion.

    A revision that a rollback restored is watched as well, but only to learn whether the one before it was to blame.
    """
    state.keep_loaded.add(name)
    status = state.statuses[name]
    rollout = status.rollout
    since = status.restored_at or status.promoted_at
    if rollout is None or rollout.trip is not None or not rollout.guardrails.rules or since is None:
        return
    if state.age(since) > STEADY_WATCH_SECONDS:
        return
    state.requeue_at(state.now + STEADY_LOOK_SECONDS)
    verdicts = _judge(state, name, rollout, started_at=to_unix(since), horizon=STEADY_WATCH_SECONDS, steady=True)
    failed = [v for v in verdicts if v.verdict is Verdict.FAIL and v.mode == "Enforce"]
    if failed and status.restored_at is not None:
        mark_cause_external(state, name, failed)
    elif failed:
        _write_verdicts(state, name, verdicts)
        # A new candidate is being loaded or decided: it replaces this revision anyway, or gives it up by itself.
        if (
            rollout.guardrails.steady_state == "Rollback"
            and not state.candidate
            and roll_back.rollback_target(state, name)
        ):
            roll_back.trip(state, name, failed[0].rule, failed[0].metric, failed[0].message)


def mark_cause_external(state: ReconcileState, name: str, failed: list[judge.RuleVerdict]) -> None:
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
