"""The way back that is broken, what supersedes without one, what history may forget, and which edit makes what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from observations import (
    HOUR,
    NEW_DATA,
    NOW,
    SETTINGS,
    a_revision,
    actions,
    after,
    condition,
    front,
    job,
    loaded,
    pod,
    run,
    seen,
    spec,
)

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import GateStatus, Rejection, RevisionStatus, RolloutStatus, Serving, Trip
from vectorindex_operator.core import identity
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.observation import JobState, Observation, RevisionView, Task
from vectorindex_operator.core.plan import (
    CreateRevision,
    DeleteSearchers,
    EnsureSearchers,
    ForgetRevision,
    MoveTraffic,
    Plan,
    StartBuild,
    StartValidation,
    WriteRevisionStatus,
)
from vectorindex_operator.core.traffic import Traffic
from vectorindex_searcher.contract import ExitCode, Failure

OLD, NEW, FIX = spec(), spec(index={"factory": "HNSW32"}), spec(index={"factory": "Flat"})
STABLE = a_revision(OLD, "Stable", created=NOW - 48 * HOUR)
PROVEN = a_revision(FIX, "Validated", created=NOW - 120)
LONG_DEAD = NOW - 700  # the default progressDeadline is ten minutes


def status_of(plan: Plan, view: RevisionView) -> RevisionStatus:
    return next((one.status for one in actions(plan, WriteRevisionStatus) if one.revision == view.name), view.status)


def moves(plan: Plan) -> list[tuple[str, str]]:
    return [(one.decision.from_revision, one.decision.to_revision) for one in actions(plan, MoveTraffic)]


def soaking(*, tripped: bool = False) -> RevisionView:
    view = a_revision(NEW, "Soaking", created=NOW - HOUR)
    rollout = view.status.rollout
    assert isinstance(rollout, RolloutStatus)
    trip = Trip(rule="errors", reason="ErrorRate", message="9 % of requests failed", at=to_text(NOW - 60))
    changes: dict[str, Any] = {"prior": STABLE.name, "trip": trip if tripped else None}
    return replace(view, status=view.status.model_copy(update={"rollout": rollout.model_copy(update=changes)}))


def dead_stable(candidate: RevisionView, *others: RevisionView, since: float = LONG_DEAD, of: Any = FIX) -> Observation:
    """The candidate has the traffic, and no pod of stable has been ready since `since`."""
    obs = seen(of, STABLE, candidate, *others, traffic=candidate)
    gone = loaded(STABLE, pod("s0", ready=False), pod("s1", ready=False), unready_since=since)
    return replace(obs, loaded={**obs.loaded, STABLE.name: gone})


def without(obs: Observation, *views: RevisionView) -> Observation:
    """The searchers of these are gone."""
    names = {view.name for view in views}
    return replace(obs, loaded={name: one for name, one in obs.loaded.items() if name not in names})


# ---------------------------------------------------------------- a dead stable blocks nothing


@pytest.mark.parametrize("tripped", [False, True])
def test_a_dead_stable_does_not_block_the_fix(tripped: bool) -> None:
    """It is unloaded and said to be so; the proven fix surges while the candidate keeps the traffic, and takes it."""
    candidate = soaking(tripped=tripped)
    obs = dead_stable(candidate, PROVEN)
    first = run(obs)
    assert moves(first) == []
    assert status_of(first, candidate).phase == "Outgoing"
    assert status_of(first, STABLE).unloaded_at is not None
    assert EventReason.WAY_BACK_LOST in [event.reason for event in first.events]
    assert [one.revision for one in actions(first, DeleteSearchers)] == [STABLE.name]
    second = run(without(after(obs, first), STABLE))
    assert status_of(second, PROVEN).phase == "Surging"
    third_obs = without(after(without(after(obs, first), STABLE), second), STABLE)
    third = run(third_obs)
    assert {one.revision for one in actions(third, EnsureSearchers)} == {candidate.name, PROVEN.name}
    up = {**third_obs.loaded, PROVEN.name: loaded(PROVEN)}
    last = run(replace(after(third_obs, third), loaded=up))
    assert moves(last) == [(candidate.name, PROVEN.name)]
    ended = status_of(last, candidate)
    assert ended.phase == ("RolledBack" if tripped else "Superseded")
    assert (ended.rejected is not None) is tripped  # what a guardrail found is remembered


def test_a_dead_stable_that_nothing_waits_for_is_unloaded_and_told_of_once() -> None:
    """The next look would take a stable without searchers for one that somebody deleted, and load it again."""
    candidate = soaking()
    obs = dead_stable(candidate, of=NEW)
    first = run(obs)
    assert status_of(first, STABLE).unloaded_at == to_text(NOW)
    assert [event.reason for event in first.events].count(EventReason.WAY_BACK_LOST) == 1
    assert [one.revision for one in actions(first, DeleteSearchers)] == [STABLE.name]
    second = run(without(after(obs, first), STABLE))
    assert [event.reason for event in second.events].count(EventReason.WAY_BACK_LOST) == 0
    assert {one.revision for one in actions(second, EnsureSearchers)} == {candidate.name}


def test_a_stable_that_is_only_slow_is_waited_for() -> None:
    plan = run(dead_stable(soaking(), PROVEN, since=NOW - 60))
    assert status_of(plan, soaking()).phase == "Soaking"
    assert [row.rule for row in plan.status.blocked_by] == ["RollbackTargetNotReady"]
    assert 0 < plan.requeue_after <= 540  # until it counts as dead
    assert actions(plan, DeleteSearchers) == []


def test_a_stable_that_comes_back_takes_the_traffic_of_what_tripped() -> None:
    outgoing = soaking(tripped=True)
    outgoing = replace(outgoing, status=outgoing.status.model_copy(update={"phase": "Outgoing"}))
    ready = seen(FIX, STABLE, outgoing, PROVEN, traffic=outgoing)
    ready = replace(ready, loaded={STABLE.name: loaded(STABLE), outgoing.name: loaded(outgoing)})
    assert moves(run(ready)) == [(outgoing.name, STABLE.name)]


def test_a_dead_stable_is_loaded_again_when_a_rollback_waits_for_it() -> None:
    tripped = soaking(tripped=True)
    plan = run(without(dead_stable(tripped, of=NEW), STABLE))
    assert STABLE.name in {one.revision for one in actions(plan, EnsureSearchers)}
    assert [row.rule for row in plan.status.blocked_by] == ["RollbackTargetNotReady"]


def test_what_was_to_take_over_failed_so_the_candidate_soaks_on() -> None:
    outgoing = replace(soaking(), status=soaking().status.model_copy(update={"phase": "Outgoing"}))
    failed = a_revision(FIX, "Validated")
    gone = Rejection(stage="Surge", reason="ProgressDeadline", message="0 of 2", at=to_text(NOW))
    failed = replace(failed, status=failed.status.model_copy(update={"phase": "SurgeFailed", "rejected": gone}))
    obs = without(seen(FIX, STABLE, outgoing, failed, traffic=outgoing), STABLE)
    assert status_of(run(obs), outgoing).phase == "Soaking"


def test_a_service_that_is_gone_while_stable_is_dead_is_made_for_what_answers() -> None:
    for phase in ("Soaking", "Outgoing"):
        view = replace(soaking(), status=soaking().status.model_copy(update={"phase": phase}))
        obs = replace(dead_stable(view, of=NEW), traffic=Traffic())
        obs = replace(obs, loaded={**obs.loaded, view.name: loaded(view)})
        plan = run(obs)
        assert moves(plan) == [("", view.name)]
        assert view.name in {one.revision for one in actions(plan, EnsureSearchers)}
        assert view.name not in {one.revision for one in actions(plan, DeleteSearchers)}


def test_retry_lets_a_tripped_revision_soak_again_when_nothing_can_be_gone_back_to() -> None:
    tripped = soaking(tripped=True)
    obs = dead_stable(tripped, of=NEW)
    obs = replace(obs, index=replace(obs.index, commands=(Command("retry", "", "n1"),)))
    plan = run(obs)
    (answer,) = plan.status.verbs
    assert (answer.result, "soaks again" in answer.message) == ("Done", True)
    rollout = status_of(plan, tripped).rollout
    assert rollout is not None
    assert rollout.trip is None


def test_what_tripped_is_no_way_back() -> None:
    rollout = RolloutStatus(
        settings=OLD.rollout, guardrails=OLD.guardrails, gate_hash="x", started_at=to_text(NOW - HOUR),
        trip=Trip(rule="errors", reason="ErrorRate", message="bad", at=to_text(NOW - 60)),
    )  # fmt: skip
    bad = a_revision(OLD, "Stable", rollout=rollout)
    fix = a_revision(NEW, "Validated")
    plan = run(seen(NEW, bad, fix, traffic=bad))
    begun = status_of(plan, fix).rollout
    assert begun is not None
    assert begun.prior == ""


# ---------------------------------------------------------------- what history forgets


def test_history_forgets_what_was_good_longest_ago_and_never_the_way_back() -> None:
    """Not what was made first: a rollback made the oldest revision the newest good one."""
    of = spec(history=1)
    stable = a_revision(of, "Stable", created=NOW - HOUR)
    restored = a_revision(
        of, "Superseded", data="r1" * 32, created=NOW - 90 * HOUR, promoted_at=to_text(NOW - 89 * HOUR),
        restored_at=to_text(NOW - 2 * HOUR),
    )  # fmt: skip
    younger = a_revision(of, "Superseded", data="r2" * 32, created=NOW - 5 * HOUR)
    plan = run(seen(of, stable, restored, younger, traffic=stable))
    assert [one.name for one in actions(plan, ForgetRevision)] == [younger.name]


def test_a_rejection_outlives_the_history() -> None:
    """A manifest that comes back by a re-sync finds it; else the bad revision would be rolled out again."""
    of = spec(history=1)
    stable = a_revision(of, "Stable")
    bad = [
        a_revision(
            of, "RolledBack", data=f"{number:02}" * 32, created=NOW - number * HOUR,
            rejected=Rejection(stage="Rollout", reason="ErrorRate", message="bad", at=to_text(NOW - number * HOUR)),
        )
        for number in range(2, 60)
    ]  # fmt: skip
    plan = run(seen(of, stable, *bad, traffic=stable))
    forgotten = {one.name for one in actions(plan, ForgetRevision)}
    assert forgotten == {view.name for view in bad[50:]}  # bounded: the oldest go first


def test_a_look_of_the_gate_that_let_nothing_pass_outlives_the_history() -> None:
    """What is held and then replaced by newer data was a look, too: forgotten, each further one had the same chance."""
    of = spec(history=1)

    def looked(number: int, verdict: str, reason: str) -> RevisionView:
        when = NOW - number * HOUR
        said = GateStatus(
            gate_hash="g", thresholds_hash="t", verdict=verdict, reason=reason, message="", at=to_text(when)
        )
        return a_revision(of, "Superseded", data=f"{number:02}" * 32, created=when, gate=said, promoted_at=None)

    stable = a_revision(of, "Stable", promoted_at=to_text(NOW - 99 * HOUR))
    held = [looked(number, "Inconclusive", "RecallUncertain") for number in range(2, 60)]
    others = [looked(number, "Pass", "RecallProven") for number in range(60, 63)]
    plan = run(seen(of, stable, *held, *others, traffic=stable))
    forgotten = {one.name for one in actions(plan, ForgetRevision)}
    assert forgotten == {view.name for view in (*held[50:], *others[1:])}  # bounded: the oldest go first
    stable = a_revision(of, "Stable", promoted_at=to_text(NOW - HOUR))
    plan = run(seen(of, stable, *held, traffic=stable))
    assert {one.name for one in actions(plan, ForgetRevision)} == {view.name for view in held[1:]}, "it passed since"


# ---------------------------------------------------------------- which edit makes what


def test_a_change_of_what_serves_makes_a_revision_of_the_same_artifact() -> None:
    now = spec(searcher={"minScore": 0.3})
    plan = run(seen(now, STABLE, traffic=STABLE))
    (create,) = actions(plan, CreateRevision)
    assert (create.digest, create.serving.min_score) == (STABLE.spec.digest, 0.3)
    assert create.name != STABLE.name
    assert condition(plan.status, "UpToDate")[0] == "False"
    assert "searcher.minScore" in condition(plan.status, "UpToDate")[2]
    made = replace(
        a_revision(now, "Pending"),
        name=create.name,
        spec=a_revision(now, "Pending").spec.model_copy(update={"serving": create.serving}),
    )
    next_plan = run(seen(now, STABLE, made, traffic=STABLE))
    status = status_of(next_plan, made)
    assert (actions(next_plan, StartBuild), actions(next_plan, StartValidation)) == ([], [])
    assert (status.build, status.report) == (STABLE.status.build, STABLE.status.report)
    assert status.phase in ("Validated", "Surging")


def test_another_image_proves_the_artifact_again() -> None:
    now = spec(searcher={"minScore": 0.3})
    other = replace(STABLE, spec=STABLE.spec.model_copy(update={"image": "example/searcher:v0"}))
    (create,) = actions(run(seen(now, other, traffic=other)), CreateRevision)
    assert create.proof_salt == SETTINGS.searcher_image
    made = replace(
        a_revision(now, "Pending"),
        name=create.name,
        spec=other.spec.model_copy(
            update={"serving": create.serving, "proof_salt": create.proof_salt, "image": SETTINGS.searcher_image}
        ),
    )
    plan = run(seen(now, other, made, traffic=other))
    assert actions(plan, StartBuild) == []
    (start,) = actions(plan, StartValidation)
    assert start.task.gate_hash == identity.gate_hash(now, SETTINGS.searcher_image) != identity.gate_hash(now)


def test_refresh_is_one_revision_however_often_it_is_read() -> None:
    obs = seen(OLD, STABLE, traffic=STABLE)
    obs = replace(obs, index=replace(obs.index, commands=(Command("refresh", "", "n7"),)))
    first = run(obs)
    (create,) = actions(first, CreateRevision)
    assert create.serving == Serving.of(OLD, "n7")
    assert (first.status.verbs, [one.name for one in actions(run(obs), CreateRevision)]) == ((), [create.name])
    made = replace(
        a_revision(OLD, "Pending", created=NOW),
        name=create.name,
        spec=STABLE.spec.model_copy(update={"serving": create.serving}),
    )
    obs = replace(obs, revisions={**obs.revisions, made.name: made})
    plan = run(obs)
    assert actions(plan, CreateRevision) == []
    assert [(one.verb, one.result) for one in plan.status.verbs] == [("refresh", "Done")]
    assert plan.status.next == made.name or plan.status.candidate == made.name


def test_an_upgrade_makes_no_revision() -> None:
    """What an earlier release froze says by its pods' placement how it is served."""
    of = spec(
        segments=[{"name": "fr"}],
        searcher={"minScore": 0.3, "pod": {
            "nodeSelector": {"role": "search"}, "priorityClassName": "high", "serviceAccountName": "searcher",
            "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "search", "effect": "NoSchedule"},
                            {"operator": "Exists"}],
        }},
    )  # fmt: skip
    stable = a_revision(of, "Stable")
    assert stable.spec.serving is None
    plan = run(seen(of, stable, traffic=stable))
    assert plan.forward == ()
    assert status_of(plan, stable).phase == "Stable"
    other = spec(searcher={"pod": {"priorityClassName": "low"}})
    assert len(actions(run(seen(other, stable, traffic=stable)), CreateRevision)) == 1


def test_a_corrected_secret_tries_a_failed_build_again() -> None:
    failure = Failure(reason="AccessDenied", message="403")
    building = a_revision(OLD, "Building")
    key = identity.build_hash(OLD)
    failed = job(
        Task.BUILD, JobState.FAILED, key=f"{key}/0/cpu", of=building, exit_code=ExitCode.BAD_SPEC, failure=failure
    )
    obs = seen(OLD, building)
    plan = run(replace(obs, jobs=(*obs.jobs, failed)))
    stuck = replace(building, status=status_of(plan, building))
    assert stuck.status.phase == "BuildFailed"
    right = spec(artifacts={"s3": {"secretRef": {"name": "right"}}})
    obs = seen(right, stuck)
    again = run(replace(obs, jobs=(*obs.jobs, failed)))
    (start,) = actions(again, StartBuild)
    assert start.key.split("/")[0] != key


def test_edits_that_wait_are_named_with_the_moment_they_wait_for() -> None:
    now = spec(guardrails={"falseTripBudget": "5%"}, rollout={"soak": {"duration": "1m"}})
    plan = run(seen(now, STABLE, traffic=STABLE))
    status, _, message = condition(plan.status, "UpToDate")
    assert (status, "rollout, guardrails: from the next rollout on" in message) == ("False", True)
    obs = seen(OLD, STABLE, traffic=STABLE)
    wanted = identity.live_hash(run(obs).status.live)  # type: ignore[arg-type]
    ready = replace(loaded(STABLE), live=wanted)
    assert condition(run(replace(obs, loaded={STABLE.name: ready})).status, "UpToDate")[0] == "True"
    rolling = replace(ready, outdated=1)
    assert condition(run(replace(obs, loaded={STABLE.name: rolling})).status, "UpToDate")[0] == "False"


# ---------------------------------------------------------------- safety needs nothing else


def test_a_tripped_revision_goes_back_whatever_else_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    from vectorindex_operator.core import lifecycle

    def broken(_state: Any) -> None:
        raise KeyError("vectorindex.dev/verb")

    tripped = soaking(tripped=True)
    obs = seen(NEW, STABLE, tripped, traffic=tripped)
    unreadable = replace(obs, index=replace(obs.index, spec=None, spec_error="spec.gate: what is this"))
    assert moves(run(unreadable)) == [(tripped.name, STABLE.name)]
    monkeypatch.setattr(lifecycle, "GO_FORWARD", (broken,))
    monkeypatch.setattr(lifecycle, "KEEP_SAFE", (broken, *lifecycle.KEEP_SAFE))
    plan = run(obs)
    assert moves(plan) == [(tripped.name, STABLE.name)]
    assert "KeyError" in next(row.message for row in plan.status.blocked_by if row.rule == "InternalError")
    assert len(plan.errors) == 2
    told = replace(after(obs, plan), traffic=front(STABLE, actions(plan, MoveTraffic)[0].decision))
    assert EventReason.INTERNAL_ERROR not in [event.reason for event in run(told).events]  # once, not at each look


def test_a_result_that_nobody_can_read_is_not_built_for_ever() -> None:
    building = a_revision(OLD, "Building")
    obs, starts, now = seen(OLD, building), 0, NOW
    key = identity.build_hash(OLD)
    for _ in range(20):
        status = obs.revisions[building.name].status
        tried = status.failure.count if status.failure else 0
        lost = job(Task.BUILD, JobState.SUCCEEDED, key=f"{key}/{tried}/cpu", of=building)
        plan = run(replace(obs, jobs=(*obs.jobs, replace(lost, failures=tried))), now)
        obs, now = after(obs, plan), now + 10
        started = actions(run(obs, now), StartBuild)
        starts += len(started)
        if not started:
            break
    assert 2 <= starts <= 3
    assert obs.revisions[building.name].status.phase == "Building"
    waiting = run(obs, now)
    assert condition(waiting.status, "Built")[:2] == ("False", "ResultUnreadable")


def test_new_data_of_the_same_recipe_is_no_edit() -> None:
    fresh = a_revision(OLD, "Validated", data=NEW_DATA)
    candidate = a_revision(OLD, "Soaking", data="d3" * 32, created=NOW - 60)
    plan = run(seen(OLD, STABLE, candidate, fresh, traffic=candidate, data=NEW_DATA))
    assert [row.rule for row in plan.status.blocked_by] == ["CandidateUndecided"]
