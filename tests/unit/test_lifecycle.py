"""What `decide` does about hand-made states of the world with pods. How whole rollouts end is for tests/simulator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from observations import (
    AN_HOUR_AGO,
    HOUR,
    NEW_DATA,
    NOW,
    a_revision,
    actions,
    after,
    condition,
    front,
    index,
    listing,
    loaded,
    moved,
    phase,
    pod,
    recorded,
    report,
    run,
    seen,
    source,
    spec,
    with_spec,
)
from soaks import NEW, OLD, SOAKING, STABLE, counts, soak

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import (
    GateStatus,
    Rejection,
    VectorIndexStatus,
    WorkFailure,
)
from vectorindex_operator.core import identity
from vectorindex_operator.core.commands import COMMANDS, Command
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_operator.core.plan import (
    CreateRevision,
    DeleteSearchers,
    EnsureSearchers,
    ForgetRevision,
    MoveTraffic,
    Plan,
    RenewLeases,
    StartBuild,
    StartValidation,
    WriteRevisionStatus,
)
from vectorindex_operator.core.traffic import Decision, DecisionKind, Traffic
from vectorindex_searcher.contract import Failure, LeaseState

# ---------------------------------------------------------------- loading and the switch


def surging(*pods: Any, first: bool = False) -> tuple[RevisionView, Observation]:
    view = a_revision(NEW, "Surging", created=NOW - 60)
    obs = seen(NEW, view, traffic=None) if first else seen(NEW, STABLE, view, traffic=STABLE)
    return view, replace(obs, loaded={**obs.loaded, view.name: loaded(view, *pods)} if pods else obs.loaded)


def test_the_traffic_moves_when_all_pods_are_ready_and_not_before() -> None:
    view, obs = surging(pod("a"), pod("b", ready=False))
    assert moved(run(obs)) == []
    view, obs = surging(pod("a"), pod("b", deleting=True))
    assert moved(run(obs)) == []
    view, obs = surging(pod("a"), pod("b"))
    plan = run(obs)
    (move,) = actions(plan, MoveTraffic)
    assert (move.decision.kind, move.decision.from_revision, move.decision.to_revision) == (
        "Switch",
        STABLE.name,
        view.name,
    )
    assert move.resource_version == "41"
    assert plan.actions[0] == move
    assert phase(plan, view) == "Soaking"
    assert STABLE.name in [one.revision for one in actions(plan, EnsureSearchers)]  # the way back stays loaded
    assert actions(plan, DeleteSearchers) == []


def test_pods_that_refuse_reject_the_revision_but_one_bad_pod_does_not() -> None:
    low = Failure(reason="CanaryRecall", message="canary recall 0.81, 0.975 is needed")
    bad: dict[str, Any] = {"ready": False, "failure": low, "restarts": 2}
    view, obs = surging(pod("a", **bad), pod("b", ready=False))
    assert run(obs).status.phase == "Surging"
    view, obs = surging(pod("a", **bad), pod("b", **{**bad, "restarts": 1}))
    assert run(obs).status.phase == "Surging"
    view, obs = surging(pod("a", **bad), pod("b", **bad))
    plan = run(obs)
    status = recorded(plan, view)
    assert (status.phase, status.rejected is not None and status.rejected.reason) == ("Rejected", "CanaryRecall")
    assert moved(plan) == []


def test_no_room_and_no_secret_block_and_the_deadline_does_not_run() -> None:
    for changes, rule in (
        ({"ready": False, "scheduled_at": None, "unschedulable": "0/3 nodes"}, "Unschedulable"),
        ({"ready": False, "waiting": 'Secret/s3: secret "s3" not found'}, "PodWaiting"),
    ):
        view, obs = surging(pod("a", **changes), pod("b", **changes))
        plan = run(obs, NOW + 24 * HOUR)
        assert [row.rule for row in plan.status.blocked_by] == [rule]
        assert plan.status.phase == "Surging"
        assert view.name == plan.status.candidate


def test_searchers_that_never_get_ready_fail_the_surge() -> None:
    view, obs = surging(pod("a", ready=False), pod("b", ready=False))
    first = run(obs)
    rollout = recorded(first, view).rollout
    assert rollout is not None
    assert rollout.progress_since == to_text(NOW)
    assert run(after(obs, first), NOW + 599).status.phase == "Surging"
    last = run(after(obs, first), NOW + 600)
    assert phase(last, view) == "SurgeFailed"
    assert condition(last.status, "Stalled")[:2] == ("True", "ProgressDeadline")


# ---------------------------------------------------------------- soak, promotion, rollback


def test_the_first_revision_has_nothing_to_go_back_to_and_does_not_soak() -> None:
    view = a_revision(OLD, "Soaking", created=NOW - 5)
    plan = run(seen(OLD, view, traffic=view))
    assert phase(plan, view) == "Stable"
    assert next(one.message for one in plan.events if one.reason == "Promoted").startswith("NoPrior")
    assert condition(plan.status, "RolledOut")[0] == "True"


def test_a_good_soak_promotes_after_its_time_only() -> None:
    assert run(soak()).status.phase == "Soaking"  # 10 of 15 minutes
    plan = run(soak(switched=NOW - 16 * 60))
    assert (phase(plan, SOAKING), phase(plan, STABLE)) == ("Stable", "Superseded")
    records = [one.revision for one in actions(plan, WriteRevisionStatus)]
    assert records.index(SOAKING.name) < records.index(STABLE.name)  # never a moment without a stable one


@pytest.mark.parametrize(("fewest", "ends_as"), [(100_000, "Stable"), (1_000_000, "Soaking")])
def test_a_soak_ends_with_as_many_queries_as_were_asked_for(fewest: int, ends_as: str) -> None:
    rollout = SOAKING.status.rollout
    assert rollout is not None
    needs = rollout.settings.model_copy(
        update={"soak": rollout.settings.soak.model_copy(update={"min_queries": fewest})}
    )
    status = SOAKING.status.model_copy(update={"rollout": rollout.model_copy(update={"settings": needs})})
    obs = soak(replace(SOAKING, status=status), switched=NOW - 16 * 60)  # two pods that answer 200 queries a second
    assert after(obs, run(obs)).revisions[SOAKING.name].status.phase == ends_as


def test_a_dead_stable_is_not_loaded_again_by_the_promotion_that_ends_its_time() -> None:
    dead = replace(STABLE, status=STABLE.status.model_copy(update={"unloaded_at": to_text(NOW - 300)}))
    obs = soak(switched=NOW - 16 * 60)
    revisions = {**obs.revisions, dead.name: dead}
    obs = replace(obs, revisions=revisions, loaded={SOAKING.name: obs.loaded[SOAKING.name]})
    plan = run(obs)
    assert phase(plan, SOAKING) == "Stable"
    assert [one.revision for one in actions(plan, EnsureSearchers)] == [SOAKING.name]


def test_doubt_is_never_success() -> None:
    plan = run(soak(errors=21, switched=NOW - 16 * 60))  # the limit is 20 of 1,000
    assert (plan.status.phase, moved(plan)) == ("Soaking", [])
    assert condition(plan.status, "GuardrailsHealthy")[0] == "Unknown"


def test_no_evidence_is_never_success() -> None:
    plan = run(soak(switched=NOW - 7 * HOUR, evidence={}))
    assert (plan.status.phase, moved(plan)) == ("Soaking", [])
    assert STABLE.name in [one.revision for one in actions(plan, EnsureSearchers)]


def test_a_guardrail_that_fails_goes_back_in_one_write_first_of_all() -> None:
    plan = run(soak(errors=300))
    (move,) = actions(plan, MoveTraffic)
    assert plan.actions[0] == move
    assert (move.decision.kind, move.decision.from_revision, move.decision.to_revision, move.decision.rule) == (
        "RollBack", SOAKING.name, STABLE.name, "errors",
    )  # fmt: skip
    status = recorded(plan, SOAKING)
    assert (status.phase, status.rejected is not None and status.rejected.stage) == ("RolledBack", "Rollout")
    assert condition(plan.status, "Stalled")[:2] == ("True", "RolledBack")
    assert condition(plan.status, "Ready")[0] == "True"
    assert (plan.status.stable, plan.status.candidate) == (STABLE.name, "")


def test_dying_right_after_the_write_of_a_rollback_loses_nothing() -> None:
    obs = soak(errors=300)
    (move,) = actions(run(obs), MoveTraffic)
    reborn = replace(obs, traffic=Traffic.to(STABLE.name, "42", move.decision), evidence={})
    plan = run(reborn)
    assert (phase(plan, SOAKING), moved(plan)) == ("RolledBack", [])
    settled = run(after(reborn, plan))
    assert [one for one in settled.actions if not isinstance(one, EnsureSearchers | RenewLeases)] == []


def test_a_target_without_pods_is_loaded_first_and_the_traffic_waits() -> None:
    obs = soak(errors=300)
    cold = run(replace(obs, loaded={SOAKING.name: obs.loaded[SOAKING.name]}))
    assert moved(cold) == []
    assert [row.rule for row in cold.status.blocked_by][:1] == ["RollbackTargetNotReady"]
    assert STABLE.name in [one.revision for one in actions(cold, EnsureSearchers)]


def test_a_trip_that_waits_for_its_target_is_remembered_when_its_evidence_is_gone() -> None:
    """Searchers keep an hour, and a target may take longer; nor does an operator that restarts ask them again."""
    obs = soak(errors=300)
    cold = replace(obs, loaded={SOAKING.name: obs.loaded[SOAKING.name]})
    waits = after(cold, run(cold))
    assert moved(run(replace(waits, evidence={}))) == []
    assert moved(run(replace(waits, evidence={}, loaded=obs.loaded))) == [STABLE.name]


def test_a_rejected_digest_is_not_tried_again() -> None:
    why = Rejection(stage="Rollout", reason="ErrorRate", message="30 %", at=AN_HOUR_AGO)
    bad = a_revision(NEW, "RolledBack", rejected=why)
    plan = run(seen(NEW, STABLE, bad, traffic=STABLE))
    assert [one for one in plan.actions if not isinstance(one, EnsureSearchers)] == []
    assert (plan.status.phase, plan.status.reason) == ("RolledBack", "ErrorRate")
    newer = run(seen(NEW, STABLE, bad, traffic=STABLE, data=NEW_DATA))
    assert [one.digest for one in actions(newer, CreateRevision)] == [identity.digest(NEW, NEW_DATA)]


def external(rule: str = "errors") -> Observation:
    at = NOW - 900
    back = Decision(DecisionKind.ROLL_BACK, SOAKING.name, STABLE.name, rule, "ErrorRate", "30 %", at)
    why = Rejection(stage="Rollout", reason="ErrorRate", message="30 %", at=to_text(at))
    bad = a_revision(NEW, "RolledBack", rejected=why, settled_at=to_text(at), lost_traffic_at=to_text(at))
    kept = STABLE.status.model_copy(update={"restored_at": to_text(at), "settled_at": to_text(at)})
    restored = replace(STABLE, status=kept)
    evidence = {STABLE.name: counts(STABLE, errors=300)}
    obs = seen(NEW, restored, bad, traffic=restored, evidence=evidence)
    return replace(obs, traffic=front(restored, back))


def test_when_the_target_breaches_the_same_rule_the_cause_is_outside() -> None:
    plan = run(external())
    rejected = recorded(plan, SOAKING).rejected
    assert rejected is not None
    assert (rejected.stage, rejected.reason) == ("External", "External")
    assert moved(plan) == []
    assert "External" in [one.reason for one in plan.events]
    assert [one for one in run(after(external(), plan)).actions if not isinstance(one, EnsureSearchers)] == []
    other = run(external(rule="latency"))
    assert [one for one in actions(other, WriteRevisionStatus) if one.status.rejected] == []


def test_a_stable_revision_that_turns_bad_goes_back_once() -> None:
    older = a_revision(OLD, "Superseded", created=NOW - 48 * HOUR)
    fresh = a_revision(NEW, "Stable", created=NOW - HOUR)
    evidence = {fresh.name: counts(fresh, errors=300)}
    obs = seen(NEW, older, fresh, traffic=fresh, evidence=evidence)
    obs = replace(obs, loaded={**obs.loaded, older.name: loaded(older)})
    assert moved(run(obs)) == [older.name]
    late = replace(fresh, status=fresh.status.model_copy(update={"promoted_at": to_text(NOW - 25 * HOUR)}))
    assert moved(run(replace(obs, revisions={older.name: older, late.name: late}))) == []
    observed = spec(index={"factory": "HNSW32"}, guardrails={"steadyState": "Observe"})
    watching = a_revision(observed, "Stable", created=NOW - HOUR)
    assert moved(run(replace(obs, revisions={older.name: older, watching.name: watching}))) == []


# ---------------------------------------------------------------- edits and new data during a rollout


def test_going_back_to_the_stable_spec_during_a_soak_reverts_without_a_rejection() -> None:
    plan = run(with_spec(soak(), spec=OLD))
    (move,) = actions(plan, MoveTraffic)
    assert (move.decision.kind, move.decision.rule, move.decision.to_revision) == ("RollBack", "Reverted", STABLE.name)
    status = recorded(plan, SOAKING)
    assert (status.phase, status.rejected) == ("Superseded", None)


def test_an_edit_during_a_soak_is_built_meanwhile_and_replaces_the_candidate_when_proven() -> None:
    third = spec(index={"factory": "Flat"})
    obs = with_spec(soak(), spec=third)
    plan = run(obs)
    assert (len(actions(plan, CreateRevision)), moved(plan)) == (1, [])
    proven = a_revision(third, "Validated")
    plan = run(replace(obs, revisions={**obs.revisions, proven.name: proven}))
    assert moved(plan) == [STABLE.name]
    assert phase(plan, SOAKING) == "Superseded"


def test_new_data_during_a_soak_waits_until_it_is_decided() -> None:
    newer = a_revision(NEW, "Validated", data=NEW_DATA)
    obs = soak()
    obs = replace(
        obs,
        revisions={**obs.revisions, newer.name: newer},
        jobs=(listing(NEW, NEW_DATA),),
        index=index(NEW, VectorIndexStatus(source=source(NEW, NEW_DATA))),
    )
    plan = run(obs)
    assert moved(plan) == []
    assert [row.rule for row in plan.status.blocked_by] == ["CandidateUndecided"]


def test_an_edit_of_replicas_reaches_the_searchers_at_once() -> None:
    of = spec(searcher={"replicas": 5})
    plan = run(seen(of, STABLE, traffic=STABLE))
    assert [(type(one), one.live.searcher.replicas) for one in plan.actions if isinstance(one, EnsureSearchers)] == [
        (EnsureSearchers, 5)
    ]
    assert [one for one in plan.actions if not isinstance(one, EnsureSearchers)] == []


# ---------------------------------------------------------------- verbs


def asked(obs: Observation, name: str, argument: str = "") -> Plan:
    return run(with_spec(obs, commands=(Command(name, argument, "n1"),)))


@pytest.mark.parametrize(
    ("verb", "argument", "says"),
    [
        ("rollback", "", "nothing to roll back to: no earlier proven revision"),
        ("rollback", "docs-ffffffff", "nothing to roll back to: revision 'docs-ffffffff' is not one to go back to"),
        ("retry", "", "nothing has failed"),
        ("forward", "", "unknown command: use one of rollback, abort, promote, pause, resume, retry, refresh, rebuild"),
    ],
)
def test_a_verb_that_does_not_apply_is_refused_with_a_reason(verb: str, argument: str, says: str) -> None:
    obs = seen(OLD, STABLE, traffic=STABLE)
    plan = asked(obs, verb, argument)
    (answer,) = plan.status.verbs
    assert (answer.verb, answer.nonce, answer.result, answer.message) == (verb, "n1", "Refused", says)
    assert [(one.warning, one.reason) for one in plan.events] == [(True, "CommandRefused")]
    assert moved(plan) == []
    told = with_spec(after(obs, plan), commands=(Command(verb, argument, "n1"),))
    assert run(told).events == ()  # consumed once
    assert run(told).status == plan.status


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_request_without_a_nonce_is_refused(verb: str) -> None:
    """The decision that an operator makes by itself has none either: it was taken for the answer."""
    obs = with_spec(soak(), commands=(Command(verb, STABLE.name, ""),))
    (answer,) = run(obs).status.verbs
    assert (answer.result, answer.message) == ("Refused", "there is no nonce: write NONCE or ARGUMENT@NONCE")


def test_rollback_before_there_is_any_traffic_is_refused() -> None:
    assert asked(seen(OLD), "rollback").status.verbs[0].message == "no revision has the traffic"


def test_rollback_goes_to_the_stable_revision_and_is_one_step_however_often_it_is_read() -> None:
    obs = soak()
    plan = asked(obs, "rollback")
    (move,) = actions(plan, MoveTraffic)
    assert (move.decision.to_revision, move.decision.rule, move.decision.nonce) == (STABLE.name, "Manual", "n1")
    assert plan.status.verbs[0].result == "Done"
    reborn = replace(obs, traffic=Traffic.to(STABLE.name, "42", move.decision))
    again = asked(reborn, "rollback")
    assert (moved(again), again.status.verbs[0].result) == ([], "Done")


def test_retry_tries_a_rejected_revision_again() -> None:
    why = Rejection(stage="Rollout", reason="ErrorRate", message="30 %", at=AN_HOUR_AGO)
    bad = a_revision(NEW, "RolledBack", rejected=why)
    plan = asked(seen(NEW, STABLE, bad, traffic=STABLE), "retry")
    status = recorded(plan, bad)
    assert status.rejected is None
    assert status.phase in ("Pending", "Validating")
    assert plan.status.verbs[0].result == "Done"
    assert actions(plan, StartBuild) == []  # the artifact is there


def test_retry_forgets_no_look_at_its_recall() -> None:
    """Else each retry would give the next queries the chance of the first."""
    said = GateStatus(
        gate_hash=identity.gate_hash(NEW), thresholds_hash="t", verdict="Fail", reason="RecallBelowMin", message="",
        at=AN_HOUR_AGO, looks=2,
    )  # fmt: skip
    why = Rejection(stage="Gate", reason="RecallBelowMin", message="0.93", at=AN_HOUR_AGO)
    bad = a_revision(NEW, "Rejected", rejected=why, gate=said, report=report(NEW, 0.93, 0.92))
    obs = seen(NEW, STABLE, bad, traffic=STABLE)
    plan = asked(obs, "retry")
    assert (recorded(plan, bad).rejected, recorded(plan, bad).report) == (None, None)
    other = spec(index={"factory": "HNSW32"}, gate={"queries": {"s3": {"bucket": "others"}}})
    (start,) = actions(run(with_spec(after(obs, plan), spec=other)), StartValidation)
    assert start.task.rejections == 3


# ---------------------------------------------------------------- precedence


def test_a_rollback_by_a_person_beats_a_soak_that_passed() -> None:
    plan = asked(soak(switched=NOW - 16 * 60), "rollback")
    assert (moved(plan), phase(plan, SOAKING)) == ([STABLE.name], "RolledBack")


def test_a_guardrail_beats_an_edit_and_a_promotion() -> None:
    third = spec(index={"factory": "Flat"})
    plan = run(with_spec(soak(errors=300, switched=NOW - 16 * 60), spec=third))
    (move,) = actions(plan, MoveTraffic)
    assert (move.decision.rule, phase(plan, SOAKING)) == ("errors", "RolledBack")


def test_deletion_beats_everything_and_does_nothing() -> None:
    plan = run(with_spec(soak(errors=300), deleting=True, commands=(Command("rollback", "", "n1"),)))
    assert (plan.actions, plan.events) == ((), ())
    assert plan.status == soak().index.status


def test_a_front_service_of_somebody_else_stops_what_is_new() -> None:
    plan = run(replace(soak(errors=300), traffic=Traffic(True, owned=False)))
    assert (plan.forward, moved(plan)) == ((), [])
    status, reason, message = condition(plan.status, "Stalled")
    assert (status, reason) == ("True", "NameConflict")
    assert "Service/docs" in message
    assert 0 < plan.requeue_after <= 60  # nobody tells us when the other object is gone


def test_a_stored_spec_that_cannot_be_read_stops_nothing_that_serves() -> None:
    obs = with_spec(seen(OLD, STABLE, traffic=STABLE), spec=None, spec_error="spec.gate.k: not a number (got 'ten')")
    plan = run(obs)
    assert (plan.forward, plan.status.phase, plan.status.reason) == ((), "Stalled", "InvalidSpec")
    assert condition(plan.status, "Stalled") == ("True", "InvalidSpec", "spec.gate.k: not a number (got 'ten')")
    assert run(after(obs, plan), NOW + HOUR).status == plan.status


# ---------------------------------------------------------------- the rest


def test_a_service_that_was_changed_by_hand_is_put_back() -> None:
    obs = seen(OLD, STABLE, traffic=STABLE)
    for broken in (Traffic(), replace(front(STABLE), shares={"elsewhere": 100})):
        (move,) = actions(run(replace(obs, traffic=broken)), MoveTraffic)
        assert (move.decision.to_revision, move.decision.rule) == (STABLE.name, "Restored")
        assert move.resource_version == broken.resource_version


def test_what_lost_the_traffic_drains_before_it_is_retired() -> None:
    def lost(seconds: float) -> Plan:
        gone = a_revision(OLD, "Superseded", lost_traffic_at=to_text(NOW - seconds))
        now = a_revision(NEW, "Stable")
        obs = seen(NEW, gone, now, traffic=now)
        return run(replace(obs, loaded={**obs.loaded, gone.name: loaded(gone)}))

    assert (actions(lost(44), DeleteSearchers), len(actions(lost(46), DeleteSearchers))) == ([], 1)
    assert {one.state for one in actions(lost(10), RenewLeases)} == {LeaseState.SERVING, LeaseState.DRAINING}


def test_history_keeps_as_many_as_asked_and_never_what_is_in_use() -> None:
    of = spec(history=1)
    old = [a_revision(of, "Superseded", data=f"{n:02}" * 32, created=NOW - n * HOUR) for n in range(2, 6)]
    stable = a_revision(of, "Stable")
    plan = run(seen(of, stable, *old, traffic=stable))
    assert {one.name for one in actions(plan, ForgetRevision)} == {view.name for view in old[1:]}


def test_what_the_spec_asks_for_is_not_forgotten_although_its_build_fails() -> None:
    """It would be made, and built in vain, at every pass."""
    of, another = spec(history=1), spec(history=1, index={"factory": "HNSW32"})
    failure = WorkFailure(
        stage="Build",
        key=identity.build_hash(of),
        count=1,
        at=AN_HOUR_AGO,
        reason="BadSpec",
        message="",
        permanent=True,
    )
    asked_for = a_revision(of, "BuildFailed", created=NOW - 9 * HOUR, failure=failure)
    newer = a_revision(another, "BuildFailed", created=NOW - HOUR, failure=failure)
    newest = a_revision(another, "BuildFailed", data=NEW_DATA, created=NOW - 60, failure=failure)
    plan = run(seen(of, asked_for, newer, newest))
    assert [one.name for one in actions(plan, ForgetRevision)] == [newer.name]


def test_a_quiet_world_stays_quiet() -> None:
    obs = seen(OLD, STABLE, traffic=STABLE)
    first = run(obs)
    assert [type(one) for one in first.actions] == [EnsureSearchers]  # which the executor compares and does not write
    settled = run(after(obs, first), NOW + 100)
    assert settled.actions == first.actions
    assert (settled.status, settled.events) == (first.status, ())
