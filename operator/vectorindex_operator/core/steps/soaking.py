"""After the switch: judge the candidate's evidence, promote it or trip. Then watch the stable revision for a day.

No evidence is never success: without enough of it the soak goes on, the prior revision stays loaded.
"""

from __future__ import annotations

from vectorindex_operator.api import v1alpha1 as api
from vectorindex_operator.api.quantities import duration_seconds, share
from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.core import guardrail
from vectorindex_operator.core.guardrail import Verdict
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.steps import rolling_back
from vectorindex_operator.core.working import Pass

LOOK_SECONDS = 5.0
STEADY_LOOK_SECONDS = 30.0
STEADY_WATCH_SECONDS = 24 * 3600.0
BASELINE_SECONDS = 900.0
NO_PRIOR = "NoPrior"
EXTERNAL = "External"


def step(p: Pass) -> None:
    if p.candidate and p.statuses[p.candidate].phase == "Soaking" and p.traffic == p.candidate:
        _soak(p, p.candidate)
    elif p.stable and p.traffic == p.stable:
        _watch(p, p.stable)


def evidence_wanted(obs: Observation, now: float) -> dict[str, float]:
    """Which revisions' pods are asked for evidence in this pass, and since when (unix seconds).

    The prior is asked once more after the switch, for the baseline that its ring still holds.
    """
    wanted: dict[str, float] = {}
    for name, revision in obs.revisions.items():
        rollout = revision.status.rollout
        if name != obs.service.revision or rollout is None:
            continue
        switched = to_unix(rollout.switched_at) if rollout.switched_at else now
        if obs.service.decision is not None and obs.service.decision.target == name:
            switched = obs.service.decision.at
        wanted[name] = max(switched - BASELINE_SECONDS, now - 3600.0)
        if rollout.prior and rollout.baseline is None and revision.status.phase in {"Surging", "Soaking"}:
            wanted[rollout.prior] = switched - BASELINE_SECONDS
    return wanted


def to_rule(rule: api.GuardrailRule) -> guardrail.Rule:
    """The pure core's form of a rule: bounds as numbers (shares, milliseconds, scores), durations in seconds."""
    metric = guardrail.METRICS[rule.metric.value]
    return guardrail.Rule(
        name=rule.name,
        metric=rule.metric.value,
        max=guardrail.parse_bound(rule.max, rule.metric.value) if rule.max is not None else None,
        min=guardrail.parse_bound(rule.min, rule.metric.value) if rule.min is not None else None,
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


def _soak(p: Pass, name: str) -> None:
    p.keep.update({name, p.stable} - {""})
    rollout = p.statuses[name].rollout
    if rollout is None or rollout.switched_at is None or rollout.trip is not None:
        return
    if not p.stable and not rollout.prior:
        _promote(p, name, NO_PRIOR, "the first revision: nothing to go back to, so no soak")
        return
    rollout = _with_baseline(p, name, rollout)
    switched = to_unix(rollout.switched_at or "")
    soak = rollout.settings.soak
    longest = duration_seconds(soak.max_duration)
    verdicts = _judge(p, name, rollout, started_at=switched, horizon=longest, steady=False)
    _write_verdicts(p, name, verdicts)
    p.wake_at(p.now + LOOK_SECONDS)
    failed = [v for v in verdicts if v.verdict is Verdict.FAIL and v.mode == "Enforce"]
    if failed:
        rolling_back.trip(p, name, failed[0].rule, failed[0].metric, failed[0].message)
        return
    merged = guardrail.merge(p.obs.evidence.get(name, ()), p.now, revision=name)
    samples = guardrail.samples_since(merged, switched)
    elapsed = p.now - switched
    worst = guardrail.worst(verdicts)
    if worst is Verdict.PASS and elapsed >= duration_seconds(soak.duration) and samples >= soak.min_queries:
        _promote(p, name, "SoakPassed", f"passed every guardrail on {samples} queries in {elapsed:.0f} s")
    elif elapsed >= longest and _somebody_waits(p, name):
        # Without evidence the candidate keeps the traffic and the prior stays loaded, but it must not hold up what
        # comes next for ever.
        _promote(p, name, "NoData", f"no verdict within {longest:.0f} s ({samples} queries); the next revision waits")


def _somebody_waits(p: Pass, name: str) -> bool:
    return any(s.phase == "Validated" for n, s in p.statuses.items() if n != name)


def _promote(p: Pass, name: str, reason: str, message: str) -> None:
    prior = p.stable
    p.update(name, phase="Stable", promoted_at=to_text(p.now), message=f"{reason}: {message}")
    if prior:
        p.update(prior, phase="Superseded", message=f"superseded by {name}")
    p.event("Promoted", f"{reason}: {message}", revision=name)
    p.find_slots()


def _with_baseline(p: Pass, name: str, rollout: api.RolloutStatus) -> api.RolloutStatus:
    """Freeze the prior's evidence of the last window before the switch; its ring holds it for an hour."""
    evidence = p.obs.evidence.get(rollout.prior, ())
    if rollout.baseline is not None or not any(e.evidence for e in evidence) or rollout.switched_at is None:
        return rollout
    switched = to_unix(rollout.switched_at)
    merged = guardrail.merge(evidence, p.now, revision=rollout.prior)
    baseline = guardrail.freeze_baseline(merged, switched - BASELINE_SECONDS, switched)
    rollout = rollout.model_copy(update={"baseline": baseline.to_wire(), "baseline_at": to_text(switched)})
    p.update(name, rollout=rollout)
    return rollout


def _judge(
    p: Pass, name: str, rollout: api.RolloutStatus, *, started_at: float, horizon: float, steady: bool
) -> tuple[guardrail.RuleVerdict, ...]:
    pods = p.obs.evidence.get(name, ())
    loaded = p.loaded(name)
    verdicts = guardrail.judge(
        tuple(to_rule(rule) for rule in rollout.guardrails.rules),
        guardrail.merge(pods, p.now, revision=name),
        started_at=started_at,
        now=p.now,
        baseline=guardrail.Baseline.from_wire(rollout.baseline) if rollout.baseline is not None else None,
        alpha_budget=share(rollout.guardrails.false_trip_budget),
        horizon_seconds=horizon,
        ready_pods=loaded.ready,
        silent_pods=sum(pod.evidence is None for pod in pods),
        steady=steady,
    )
    if steady:
        return verdicts
    down = guardrail.unavailable(
        candidate_ready=loaded.ready,
        stable_ready=p.loaded(p.stable).ready,
        unready_since=loaded.unready_since,
        now=p.now,
    )
    return (down, *verdicts)


def _write_verdicts(p: Pass, name: str, verdicts: tuple[guardrail.RuleVerdict, ...]) -> None:
    """Keep the verdicts with their numbers when one of them changed; a mere look writes nothing."""
    rollout = p.statuses[name].rollout
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
            at=to_text(p.now),
        )
        for v in verdicts
    )
    for row in rows:
        if row.verdict == "Fail" and before.get((row.rule, row.segment), ("",))[0] != "Fail":
            p.event("GuardrailFailed", f"{row.rule}: {row.message}", warning=True, revision=name)
    p.update(name, rollout=rollout.model_copy(update={"verdicts": rows}))


def _watch(p: Pass, name: str) -> None:
    """Steady state: absolute rules only; one automatic rollback within a day of the promotion.

    A revision that a rollback restored is watched as well, but only to learn whether the one before it was to blame.
    """
    p.keep.add(name)
    status = p.statuses[name]
    rollout = status.rollout
    since = status.restored_at or status.promoted_at
    if rollout is None or rollout.trip is not None or not rollout.guardrails.rules or since is None:
        return
    if p.age(since) > STEADY_WATCH_SECONDS:
        return
    p.wake_at(p.now + STEADY_LOOK_SECONDS)
    verdicts = _judge(p, name, rollout, started_at=to_unix(since), horizon=STEADY_WATCH_SECONDS, steady=True)
    failed = [v for v in verdicts if v.verdict is Verdict.FAIL and v.mode == "Enforce"]
    if failed and status.restored_at is not None:
        _blame_the_outside(p, name, failed)
    elif failed:
        _write_verdicts(p, name, verdicts)
        # A new candidate is being loaded or decided: it replaces this revision anyway, or gives it up by itself.
        if rollout.guardrails.steady_state == "Rollback" and not p.candidate and rolling_back.rollback_target(p, name):
            rolling_back.trip(p, name, failed[0].rule, failed[0].metric, failed[0].message)


def _blame_the_outside(p: Pass, name: str, failed: list[guardrail.RuleVerdict]) -> None:
    """The revision that we went back to breaches the same rule: the index was not the cause. Say so and stop acting."""
    decision = p.obs.service.decision
    if decision is None or decision.target != name or decision.source not in p.statuses:
        return
    rejected = p.statuses[decision.source].rejected
    same = next((v for v in failed if v.rule == decision.rule), None)
    if same is None or rejected is None or rejected.stage != "Rollout":
        return
    message = (
        f"{name} breaches {same.rule} as well, so the cause is outside the index: {same.message}; retry when it is gone"
    )
    outside = rejected.model_copy(update={"stage": "External", "reason": EXTERNAL, "message": message})
    p.update(decision.source, rejected=outside, message=message)
    p.event(EXTERNAL, message, warning=True, revision=decision.source)
