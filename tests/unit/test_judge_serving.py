"""What is judged, when, and what is written about it: nothing but a trip or the end of the watch ends judging."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from observations import (
    HOUR,
    NOW,
    SETTINGS,
    a_revision,
    actions,
    after,
    condition,
    front,
    loaded,
    pod,
    run,
    seen,
    spec,
    with_rollout,
)
from soaks import counts

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import RuleVerdict, Trip
from vectorindex_operator.core.judging.evidence import PodEvidence
from vectorindex_operator.core.judging.shadow import SHADOW_BUDGET
from vectorindex_operator.core.lifecycle import decide
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_operator.core.plan import EnsureSearchers, MoveTraffic, Plan, WriteRevisionStatus
from vectorindex_operator.core.safety import judge_serving
from vectorindex_operator.core.traffic import Decision, DecisionKind

OLD = spec()
NEW = spec(index={"factory": "HNSW32"})
THIRD = spec(index={"factory": "IVF16,Flat"})
A = a_revision(OLD, "Superseded", created=NOW - 48 * HOUR)
B = a_revision(NEW, "Stable", created=NOW - HOUR)


def moved(plan: Plan) -> list[str]:
    return [one.decision.to_revision for one in actions(plan, MoveTraffic)]


def soaking(*, since: float, of: Any = NEW, **rollout: Any) -> RevisionView:
    view = a_revision(of, "Soaking", created=since)
    return with_rollout(view, switched_at=to_text(since), **rollout)


# ---------------------------------------------------------------- Fail comes before everything else


@pytest.mark.parametrize("placed", [True, False], ids=["loading", "unschedulable"])
def test_a_stable_revision_that_fails_goes_back_while_another_one_surges(placed: bool) -> None:
    c = with_rollout(a_revision(THIRD, "Surging", created=NOW - 60), prior=B.name)
    waiting = pod("c-0", ready=False, scheduled_at=NOW - 30 if placed else None, unschedulable="" if placed else "full")
    obs = seen(THIRD, A, B, c, traffic=B, evidence={B.name: counts(B, errors=300)})
    obs = replace(obs, loaded={B.name: loaded(B), c.name: loaded(c, waiting), A.name: loaded(A)})
    assert moved(run(obs)) == [A.name]
    cold = replace(obs, loaded={B.name: loaded(B), c.name: loaded(c, waiting)})
    assert A.name in [one.revision for one in actions(run(cold), EnsureSearchers)]


def test_a_rollback_that_waits_for_its_target_does_not_switch_the_automatic_one_off() -> None:
    """A person asked for A, whose pods never become ready; meanwhile the candidate fails: stable is one step away."""
    asked = Trip(
        rule="Manual", reason="Manual", message=f"a person asked for {A.name}", at=to_text(NOW - 60), target=A.name
    )
    stable = a_revision(THIRD, "Stable", created=NOW - 24 * HOUR)
    candidate = soaking(since=NOW - 600, prior=stable.name, trip=asked)
    dead = loaded(A, pod("a-0", ready=False))
    obs = seen(NEW, A, stable, candidate, traffic=candidate, evidence={candidate.name: counts(candidate)})
    obs = replace(obs, loaded={**obs.loaded, A.name: dead})
    assert moved(run(obs)) == []
    bad = replace(obs, evidence={candidate.name: counts(candidate, errors=300)})
    assert moved(run(bad)) == [stable.name]


def test_what_gets_the_traffic_in_this_pass_is_not_reproached_for_evidence_that_nobody_asked_for() -> None:
    trip = Trip(rule="errors", reason="ErrorRate", message="30 %", at=to_text(NOW - 60))
    tripped = with_rollout(B, prior=A.name, trip=trip)
    ruled = spec(guardrails={"rules": [{"name": "zero", "metric": "ZeroResultRate", "max": "5%", "window": "1m"}]})
    well = RuleVerdict(rule="zero", metric="ZeroResultRate", verdict="Pass", reason="Pass", at=to_text(NOW - HOUR))
    back = with_rollout(a_revision(ruled, "Superseded", created=NOW - 48 * HOUR), verdicts=(well,))
    obs = seen(NEW, back, tripped, traffic=tripped)
    obs = replace(obs, loaded={B.name: loaded(B), back.name: loaded(back)})
    plan = run(obs)
    assert moved(plan) == [back.name]
    assert "GuardrailError" not in [event.reason for event in plan.events]


def test_a_soak_with_a_rollback_pending_is_not_promoted() -> None:
    asked = Trip(rule="Manual", reason="Manual", message="", at=to_text(NOW - 60), target=A.name)
    stable = a_revision(THIRD, "Stable", created=NOW - 24 * HOUR)
    candidate = soaking(since=NOW - 1000, prior=stable.name, trip=asked)
    evidence = {candidate.name: counts(candidate, since=NOW - 1000)}
    obs = seen(NEW, A, stable, candidate, traffic=candidate, evidence=evidence)
    obs = replace(obs, loaded={**obs.loaded, A.name: loaded(A, pod("a-0", ready=False))})
    plan = run(obs)
    assert plan.status.candidate == candidate.name
    assert "Promoted" not in [event.reason for event in plan.events]


# ---------------------------------------------------------------- what cannot be known never promotes


def undecided(evidence: tuple[PodEvidence, ...]) -> Observation:
    """A soak past its longest time, the next revision proven and waiting."""
    stable = a_revision(THIRD, "Stable", created=NOW - 48 * HOUR)
    candidate = soaking(since=NOW - 7 * HOUR, prior=stable.name)
    waiting = a_revision(NEW, "Validated", data="d2" * 32, created=NOW - HOUR)
    return seen(NEW, stable, candidate, waiting, traffic=candidate, data="d2" * 32, evidence={candidate.name: evidence})


def test_evidence_of_another_revision_never_promotes() -> None:
    candidate = soaking(since=NOW - 7 * HOUR)
    quiet = run(undecided(counts(candidate, since=NOW)))
    assert next(event.message for event in quiet.events if event.reason == "Promoted").startswith("NoData")
    foreign = run(undecided(counts(candidate, since=NOW, named="another")))
    assert "Promoted" not in [event.reason for event in foreign.events]
    assert condition(foreign.status, "GuardrailsHealthy")[:2] == ("Unknown", "WrongRevision")
    assert "GuardrailError" in [event.reason for event in foreign.events]


def test_silent_searchers_never_promote() -> None:
    candidate = soaking(since=NOW - 7 * HOUR)
    silent = tuple(replace(one, evidence=None) for one in counts(candidate))
    for evidence in (silent, ()):
        assert "Promoted" not in [event.reason for event in run(undecided(evidence)).events]


def test_a_rollout_spends_its_budget_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`falseTripBudget` is for shadow and soak together, and once more for the day of the watch."""
    spent: list[float] = []
    real = judge_serving.judge

    def judge(*given: Any, **named: Any) -> Any:
        spent.append(named["alpha_budget"])
        return real(*given, **named)

    monkeypatch.setattr(judge_serving, "judge", judge)
    run(undecided(counts(soaking(since=NOW - 7 * HOUR))))
    run(watched(0))
    soak, day = spent
    assert soak + SHADOW_BUDGET * 0.01 == pytest.approx(0.01)
    assert day == pytest.approx(0.01)


# ---------------------------------------------------------------- clocks


def looks(obs: Observation, times: list[float]) -> Iterator[Plan]:
    """Pass after pass at these times of the operator's clock, each on what the one before wrote."""
    for now in times:
        plan = run(obs, now)
        yield plan
        obs = after(obs, plan)


def crashed(since: float) -> Observation:
    """The candidate's pods went down at `since`, by the clocks of their nodes."""
    stable = a_revision(THIRD, "Stable", created=NOW - 48 * HOUR)
    candidate = soaking(since=NOW - 300, prior=stable.name)
    obs = seen(NEW, stable, candidate, traffic=candidate)
    down = loaded(candidate, pod("b-0", ready=False), pod("b-1", ready=False), unready_since=since)
    return replace(obs, loaded={**obs.loaded, candidate.name: down})


@pytest.mark.parametrize("skew", [-3600.0, -10.0, 0.0, 10.0, 3600.0])
def test_unavailable_is_ten_seconds_of_one_clock(skew: float) -> None:
    """The nodes' clocks are `skew` behind the operator's: it trips neither before ten seconds nor long after."""
    plans = list(looks(crashed(NOW - skew), [NOW, NOW + 5, NOW + 9, NOW + 10]))
    assert [len(moved(plan)) for plan in plans] == [0, 0, 0, 1]


def test_a_clock_set_back_delays_unavailable_by_ten_seconds_at_most() -> None:
    back = NOW - 3600
    plans = list(looks(crashed(NOW), [NOW, NOW + 5, back, back + 5, back + 10]))
    assert [len(moved(plan)) for plan in plans] == [0, 0, 0, 0, 1]


def test_a_pod_that_came_back_in_between_starts_the_ten_seconds_anew() -> None:
    obs = crashed(NOW)
    first = after(obs, run(obs, NOW))
    name = next(view.name for view in obs.revisions.values() if view.status.phase == "Soaking")
    up = replace(first, loaded={**first.loaded, name: loaded(obs.revisions[name])})
    again = replace(after(up, run(up, NOW + 5)), loaded=obs.loaded)
    plans = list(looks(again, [NOW + 10, NOW + 14, NOW + 20]))
    assert [len(moved(plan)) for plan in plans] == [0, 0, 1]


def test_a_clock_set_back_blocks_no_rollout() -> None:
    """The switch was made by a clock an hour ahead. The soak counts from now: 15 minutes later it is over."""
    stable = a_revision(THIRD, "Stable", created=NOW - 48 * HOUR)
    candidate = soaking(since=NOW + HOUR, prior=stable.name)
    switch = Decision(DecisionKind.SWITCH, stable.name, candidate.name, "Surge", "Ready", "", NOW + HOUR)
    obs = seen(NEW, stable, candidate, traffic=candidate, evidence={candidate.name: counts(candidate)})
    obs = replace(obs, traffic=front(candidate, switch))
    (first,) = looks(obs, [NOW])
    later = replace(after(obs, first), evidence={candidate.name: counts(candidate, at=NOW + 905, since=NOW + 5)})
    assert "Promoted" in [event.reason for event in run(later, NOW + 905).events]


def test_a_watch_that_began_ahead_of_the_clock_judges_nevertheless() -> None:
    ahead = replace(B, status=B.status.model_copy(update={"promoted_at": to_text(NOW + HOUR)}))
    obs = seen(NEW, A, ahead, traffic=ahead, evidence={B.name: counts(B, errors=300)})
    obs = replace(obs, loaded={**obs.loaded, A.name: loaded(A)})
    assert moved(run(obs)) == [A.name]


# ---------------------------------------------------------------- restarts


def restarting(*candidate: int, stable: int = 0, hours: float = 24.0) -> Observation:
    """A soak of ten minutes, at whose start one pod had restarted five times already; then so often, pod by pod."""
    way_back = a_revision(THIRD, "Stable", created=NOW - 48 * HOUR)
    soaks = soaking(since=NOW - 600, prior=way_back.name, restarts={"b-0": 5})
    pods = [pod(f"b-{n}", restarts=count + (5 if n == 0 else 0)) for n, count in enumerate(candidate)]
    others = [pod(f"s-{n}", restarts=stable if n == 0 else 0, scheduled_at=NOW - hours * HOUR) for n in range(2)]
    obs = seen(NEW, way_back, soaks, traffic=soaks, evidence={soaks.name: counts(soaks)})
    return replace(obs, loaded={soaks.name: loaded(soaks, *pods), way_back.name: loaded(way_back, *others)})


@pytest.mark.parametrize(("obs", "back"), [
    (restarting(2, 2), True),  # a query of death: no counts are left of it, only restarts
    (restarting(0, 0), False),
    (restarting(1, 0), False),
    (restarting(1, 1), False),
    (restarting(9, 0), False),  # one pod of two: its node
    (restarting(9), True),  # the only one
    (restarting(2, 2, stable=400), False),  # stable's pods do the same
    (restarting(2, 1, hours=0.5), False),  # stable's pods have not been there long enough to tell
])  # fmt: skip
def test_pods_that_restart_more_than_stables_take_the_revision_back(obs: Observation, back: bool) -> None:
    plan = run(obs)
    assert len(moved(plan)) == back
    if back:
        assert any("restarts: " in event.message for event in plan.events if event.reason == "GuardrailTripped")


def test_restarts_before_the_switch_are_remembered_not_counted() -> None:
    obs = restarting(0, 0)
    name = next(view.name for view in obs.revisions.values() if view.status.phase == "Soaking")
    fresh = replace(obs, revisions={**obs.revisions, name: with_rollout(obs.revisions[name], restarts=None)})
    first = after(fresh, run(fresh))
    known = first.revisions[name].status.rollout
    assert known is not None
    assert known.restarts == {"b-0": 5}
    assert moved(run(first, NOW + 5)) == []


# ---------------------------------------------------------------- verdicts are written when they change


def watched(errors: int, mode: str = "Observe", now: float = NOW) -> Observation:
    rules = [{"name": "errors", "metric": "ErrorRate", "max": "2%", "mode": mode}]
    of = spec(guardrails={"rules": rules})
    view = a_revision(of, "Stable", created=NOW - HOUR)
    return seen(of, view, traffic=view, evidence={view.name: counts(view, errors=errors, at=now)})


def at(obs: Observation, errors: int, now: float) -> Observation:
    (view,) = obs.revisions.values()
    return replace(obs, evidence={view.name: counts(view, errors=errors, at=now)})


def test_an_observed_rule_is_announced_after_the_promotion_too() -> None:
    obs = watched(0)
    quiet = after(obs, run(obs))
    assert condition(quiet.index.status, "GuardrailsHealthy")[0] == "True"
    plan = run(at(quiet, 300, NOW + 600), NOW + 600)
    assert [event.reason for event in plan.events] == ["GuardrailFailed"]
    assert condition(plan.status, "GuardrailsHealthy")[:2] == ("False", "BoundExceeded")
    assert "errors: errors" not in condition(plan.status, "GuardrailsHealthy")[2]


def test_what_recovered_is_healthy_again() -> None:
    obs = watched(300)
    failing = after(obs, run(obs))
    assert condition(failing.index.status, "GuardrailsHealthy")[0] == "False"
    plan = run(at(failing, 0, NOW + 600), NOW + 600)
    assert condition(plan.status, "GuardrailsHealthy")[0] == "True"


def test_the_end_of_the_watch_leaves_no_failure_behind() -> None:
    obs = watched(300)
    failing = after(obs, run(obs))
    plan = run(replace(failing, evidence={}), NOW + 24 * HOUR)
    assert condition(plan.status, "GuardrailsHealthy")[0] == "Unknown"


def test_a_rule_that_flaps_writes_and_tells_now_and_then_only() -> None:
    """Two hours of looks, each with another verdict than the one before."""
    obs, writes, events = watched(0), 0, 0
    for number in range(240):
        now = NOW + 30.0 * number
        plan = run(at(obs, 300 if number % 2 else 0, now), now)
        writes += len(actions(plan, WriteRevisionStatus))
        events += len(plan.events)
        obs = after(obs, plan)
    assert writes <= 2 * 80 + 2  # a Fail at once, and back after a minute and a half
    assert events <= 2 * 80 + 2


def test_traffic_that_comes_and_goes_writes_nothing() -> None:
    obs = watched(0)
    obs = after(obs, run(obs))
    for number in range(1, 10):
        now = NOW + 600.0 * number
        (view,) = obs.revisions.values()
        few = counts(view, at=now, since=now if number % 2 else None)
        plan = run(replace(obs, evidence={view.name: few}), now)
        assert actions(plan, WriteRevisionStatus) == []
        obs = after(obs, plan)


def test_looks_come_as_often_as_the_installation_says() -> None:
    soaking = a_revision(NEW, "Soaking")
    soak = seen(NEW, a_revision(OLD, "Stable"), soaking, traffic=front(soaking))
    watch = seen(NEW, B, traffic=front(B))
    for seconds in (2.0, 4.0):
        settings = replace(SETTINGS, soak_look_seconds=seconds, watch_look_seconds=10 * seconds)
        assert decide(soak, settings, NOW).requeue_after == seconds
        assert 8 * seconds < decide(watch, settings, NOW).requeue_after < 12 * seconds
