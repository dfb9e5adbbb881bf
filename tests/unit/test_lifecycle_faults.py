"""What the simulator found, one test each: passes that died half way, clocks that differ, hands in the cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from observations import (
    HOUR,
    NEW_DATA,
    NOW,
    a_revision,
    actions,
    after,
    built,
    condition,
    front,
    index,
    job,
    listing,
    loaded,
    pod,
    report,
    run,
    seen,
    source,
    spec,
)

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import (
    Condition,
    GateStatus,
    RevisionStatus,
    RolloutStatus,
    VectorIndexSpec,
    VectorIndexStatus,
    WorkFailure,
)
from vectorindex_operator.core import identity
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.observation import JobState, JobView, RevisionView, Task
from vectorindex_operator.core.plan import (
    DeleteJob,
    MoveTraffic,
    Plan,
    StartBuild,
    StartResolve,
    WriteRevisionStatus,
)
from vectorindex_operator.core.traffic import Decision, DecisionKind, Traffic
from vectorindex_searcher.contract import ExitCode, Failure

OLD, NEW = spec(), spec(index={"factory": "HNSW32"})
THIRD = spec(index={"factory": "Flat"})
STABLE = a_revision(OLD, "Stable", created=NOW - 48 * HOUR)
SWITCH = DecisionKind.SWITCH
BUILD_KEY = identity.build_hash(OLD)


def status_of(plan: Plan, view: RevisionView) -> RevisionStatus:
    """The status of a revision after the plan."""
    return next((one.status for one in actions(plan, WriteRevisionStatus) if one.revision == view.name), view.status)


def moves(plan: Plan) -> list[tuple[str, str]]:
    return [(one.decision.from_revision, one.decision.to_revision) for one in actions(plan, MoveTraffic)]


def soaking(of: RevisionView, prior: str, switched: float = NOW - 30) -> RevisionView:
    rollout = of.status.rollout
    assert isinstance(rollout, RolloutStatus)
    rollout = rollout.model_copy(update={"prior": prior, "switched_at": to_text(switched)})
    return replace(of, status=of.status.model_copy(update={"rollout": rollout}))


SOAKING = soaking(a_revision(NEW, "Soaking", created=NOW - 60), STABLE.name)


# ---------------------------------------------------------------- one build at a time


def test_a_build_that_nobody_wants_is_stopped_before_the_next_one_starts() -> None:
    given_up, wanted = a_revision(NEW, "Building"), a_revision(OLD, "Superseded", build=None, promoted_at=None)
    running = job(Task.BUILD, key=f"{BUILD_KEY}/0/cpu", of=given_up)
    plan = run(seen(OLD, given_up, wanted, jobs=(listing(OLD), running)))
    kinds = [type(one) for one in plan.actions if isinstance(one, (DeleteJob, StartBuild))]
    assert kinds == [DeleteJob, StartBuild]


def test_a_build_of_a_revision_given_up_is_stopped_whenever_that_was() -> None:
    given_up = a_revision(NEW, "Superseded", build=None, promoted_at=None)
    running = job(Task.BUILD, key=f"{BUILD_KEY}/0/cpu", of=given_up)
    plan = run(seen(OLD, STABLE, given_up, traffic=STABLE, jobs=(listing(OLD), running)))
    assert actions(plan, DeleteJob) == [DeleteJob(running.name, running.uid)]


def test_the_gpu_job_is_gone_before_the_cpu_job_starts() -> None:
    wish = spec(build={"device": "PreferGPU"})
    building = a_revision(wish, "Building")
    waiting = job(
        Task.BUILD,
        key=f"{identity.build_hash(wish)}/0/gpu",
        of=building,
        device="gpu",
        unschedulable_since=NOW - 400,
        unschedulable="no GPU",
    )
    plan = run(seen(wish, building, jobs=(listing(wish), waiting)))
    kinds = [type(one) for one in plan.actions if isinstance(one, (WriteRevisionStatus, DeleteJob, StartBuild))]
    assert kinds == [WriteRevisionStatus, DeleteJob, StartBuild], "what is decided is recorded first"


# ---------------------------------------------------------------- two operators at once


def on_gpu(of: RevisionView, wish: VectorIndexSpec, **changes: Any) -> JobView:
    waits = {"unschedulable_since": NOW - 400, "unschedulable": "no GPU", "device": "gpu"}
    return job(Task.BUILD, key=f"{identity.build_hash(wish)}/0/gpu", of=of, **(waits | changes))


def test_whoever_looks_while_a_build_moves_to_a_cpu_starts_the_same_job() -> None:
    """The one Job is gone and the other not there yet: a second operator started the build on a GPU anew."""
    wish = spec(build={"device": "PreferGPU"})
    building = a_revision(wish, "Building")
    obs = seen(wish, building, jobs=(listing(wish), on_gpu(building, wish)))
    plan = run(obs)
    between = replace(after(obs, plan), jobs=(listing(wish),))
    (first,), (second,) = actions(plan, StartBuild), actions(run(between), StartBuild)
    assert (first.gpu, first) == (False, second)


def test_a_build_on_a_gpu_that_comes_after_it_was_given_up_is_stopped() -> None:
    wish = spec(build={"device": "PreferGPU"})
    key = identity.build_hash(wish)
    building = a_revision(wish, "Building", on_cpu=f"{key}/0")
    cpu = job(Task.BUILD, key=f"{key}/0/cpu", of=building, created_at=NOW - 50)
    late = on_gpu(building, wish, name="late", uid="late", created_at=NOW - 1)
    plan = run(seen(wish, building, jobs=(listing(wish), cpu, late)))
    assert actions(plan, DeleteJob) == [DeleteJob("late", "late")]
    assert actions(plan, StartBuild) == []
    finished = replace(late, state=JobState.SUCCEEDED, result=built(building.spec.digest), unschedulable_since=None)
    plan = run(seen(wish, building, jobs=(listing(wish), cpu, finished)))
    assert status_of(plan, building).build == finished.result, "unless it is done"
    assert actions(plan, DeleteJob) == [DeleteJob(cpu.name, cpu.uid)]


def test_another_try_prefers_a_gpu_again() -> None:
    wish = spec(build={"device": "PreferGPU"})
    key = identity.build_hash(wish)
    row = WorkFailure(stage="Build", key=key, count=1, at=to_text(NOW - HOUR), reason="OutOfMemory", message="x")
    failed = a_revision(wish, "BuildFailed", on_cpu=f"{key}/0", failure=row)
    (start,) = actions(run(seen(wish, failed, jobs=(listing(wish),))), StartBuild)
    assert start.gpu


@pytest.mark.parametrize("task", [Task.BUILD, Task.VALIDATE])
def test_of_two_tries_that_run_one_is_stopped(task: Task) -> None:
    """An operator that had lost the Lease started another try of the same work: both ran to their ends."""
    working = a_revision(OLD, "Building" if task is Task.BUILD else "Validating")
    key = BUILD_KEY if task is Task.BUILD else identity.gate_hash(OLD)
    older = job(task, key=f"{key}/0/cpu", of=working, name="older", uid="older", created_at=NOW - 60)
    newer = replace(older, name="newer", uid="newer", created_at=NOW - 5)
    plan = run(seen(OLD, working, jobs=(listing(OLD), newer, older)))
    assert actions(plan, DeleteJob) == [DeleteJob("older", "older")]


@pytest.mark.parametrize("task", [Task.BUILD, Task.VALIDATE])
def test_what_is_done_is_taken_although_another_try_runs(task: Task) -> None:
    working = a_revision(OLD, "Building" if task is Task.BUILD else "Validating")
    key = BUILD_KEY if task is Task.BUILD else identity.gate_hash(OLD)
    result = built(working.spec.digest) if task is Task.BUILD else report(OLD)
    running = job(task, key=f"{key}/0/cpu", of=working, name="newer", uid="newer", created_at=NOW - 5)
    done = replace(running, name="older", uid="older", created_at=NOW - 60, state=JobState.SUCCEEDED, result=result)
    obs = seen(OLD, working, jobs=(listing(OLD), running, done))
    plan = run(obs)
    after_it = status_of(plan, working)
    assert (after_it.build if task is Task.BUILD else after_it.report) == result
    assert actions(plan, DeleteJob) == [DeleteJob("newer", "newer")]
    again = run(after(obs, plan))
    assert actions(again, DeleteJob) == [DeleteJob("newer", "newer")], "also when the result is recorded"


# ---------------------------------------------------------------- failed work


def failed_build(
    exit_code: ExitCode, *, phase: str = "BuildFailed", count: int = 1, at: float = NOW - 60
) -> RevisionView:
    failure = WorkFailure(
        stage="Build", key=BUILD_KEY, count=count, at=to_text(at), reason="X", message="x", exit_code=exit_code,
        permanent=exit_code is ExitCode.BAD_DATA,
    )  # fmt: skip
    return a_revision(OLD, phase, failure=failure)


def failed_job(of: RevisionView, exit_code: ExitCode) -> Any:
    failure = Failure(reason="X", message="x")
    return job(Task.BUILD, JobState.FAILED, key=f"{BUILD_KEY}/0/cpu", of=of, exit_code=exit_code, failure=failure)


@pytest.mark.parametrize("phase", ["BuildFailed", "Pending"])
def test_retry_builds_at_once_although_the_failed_job_is_still_there(phase: str) -> None:
    """Also when the operator died after it had written the first half: the phase is Pending and says which retry."""
    failed = failed_build(ExitCode.BAD_DATA, phase=phase)
    if phase == "Pending":
        failed = replace(failed, status=failed.status.model_copy(update={"message": "retry n1", "failure": None}))
    old = failed_job(failed, ExitCode.BAD_DATA)
    obs = seen(OLD, failed, jobs=(listing(OLD), old))
    plan = run(replace(obs, index=replace(obs.index, commands=(Command("retry", "", "n1"),))))
    assert [v.result for v in plan.status.verbs] == ["Done"]
    kinds = [type(a) for a in plan.actions if isinstance(a, StartBuild) or a == DeleteJob(old.name, old.uid)]
    assert kinds == [DeleteJob, StartBuild]


@pytest.mark.parametrize(
    ("poll", "learnt_at", "lists"),
    [
        ("0", NOW - HOUR, False),  # read, and the data was what is known
        ("0", NOW - 30, False),  # read and adopted
        ("5m", NOW - 30, False),
        ("5m", NOW - HOUR, True),
        ("0", NOW - 120, True),  # within minInterval: may have been held back
    ],
)
def test_a_listing_that_was_read_is_not_repeated_when_its_pod_goes(poll: str, learnt_at: float, lists: bool) -> None:
    """The pod goes with its node; where polling is off, new data must not come in by that."""
    of = spec(source={"poll": poll})
    known = source(of).model_copy(update={"at": to_text(learnt_at)})
    view = index(of, VectorIndexStatus(source=known))
    obs = seen(of, STABLE, traffic=STABLE, index=view, jobs=(listing(of, result=None),))
    assert bool(actions(run(obs), StartResolve)) is lists


@pytest.mark.parametrize("waits", ["the first", "another source", "failed", "bad data"])
def test_a_listing_that_nobody_can_read_is_repeated_while_somebody_waits_for_it(waits: str) -> None:
    of = spec(source={"poll": "0"})
    known = (
        None
        if waits == "the first"
        else source(OLD if waits != "another source" else spec(source={"s3": {"bucket": "elsewhere"}}))
    )
    failed = Condition(type="DatasetResolved", status="False", reason="X", last_transition_time=to_text(NOW - HOUR))
    view = index(of, VectorIndexStatus(source=known, conditions=(failed,) if waits == "failed" else ()))
    bad = failed_build(ExitCode.BAD_DATA) if waits == "bad data" else STABLE
    plan = run(seen(of, bad, index=view, jobs=(listing(of, result=None),)))
    assert len(actions(plan, StartResolve)) == 1


@pytest.mark.parametrize("reason", ["PodFailurePolicy", "BackoffLimitExceeded"])
def test_a_listing_that_failed_keeps_its_reason_when_its_pod_goes(reason: str) -> None:
    """A node that is removed took along what was wrong, and that a person has to act."""
    said = Failure(reason="BucketNotFound", message="no bucket vectors", remedy="create it")
    failed = listing(OLD, state=JobState.FAILED, result=None, failure=said, exit_code=int(ExitCode.SOURCE_MISSING))
    obs = seen(OLD, STABLE, traffic=STABLE, jobs=(failed,))
    plan = run(obs)
    by_the_job = Failure(reason=reason, message="Container resolve failed with exit code 66")
    podless = replace(failed, failure=by_the_job, exit_code=None)
    again = run(replace(after(obs, plan), jobs=(podless,)))
    assert (again.status, again.events) == (plan.status, ())
    assert condition(again.status, "Stalled")[:2] == ("True", "BucketNotFound")


@pytest.mark.parametrize(
    ("reason", "code"), [("DeadlineExceeded", None), ("BackoffLimitExceeded", 137), ("JobFailed", 1)]
)
def test_a_listing_that_fails_for_another_reason_says_so(reason: str, code: int | None) -> None:
    said = Failure(reason="BucketNotFound", message="no bucket vectors")
    failed = listing(OLD, state=JobState.FAILED, result=None, failure=said, exit_code=int(ExitCode.SOURCE_MISSING))
    obs = seen(OLD, STABLE, traffic=STABLE, jobs=(failed,))
    next_one = replace(failed, name="next", uid="next", failure=Failure(reason=reason, message="x"), exit_code=code)
    plan = run(replace(after(obs, run(obs)), jobs=(next_one,)))
    assert condition(plan.status, "DatasetResolved")[:2] == ("False", reason)


def test_a_source_that_changed_under_a_build_is_listed_again_first() -> None:
    failed = failed_build(ExitCode.RETRY, at=NOW - 10)
    before = listing(OLD, created_at=NOW - 100, finished_at=NOW - 90)
    plan = run(seen(OLD, failed, jobs=(before, failed_job(failed, ExitCode.RETRY))))
    assert len(actions(plan, StartResolve)) == 1
    assert not actions(plan, StartBuild)
    listed = replace(before, name="again", uid="again", created_at=NOW - 5, finished_at=NOW - 1)
    plan = run(seen(OLD, failed, jobs=(listed, failed_job(failed, ExitCode.RETRY))))
    assert not actions(plan, StartResolve)
    assert len(actions(plan, StartBuild)) == 1


def test_a_measurement_that_failed_stays_said_while_it_is_repeated() -> None:
    failure = WorkFailure(
        stage="Validate", key=identity.gate_hash(OLD), count=1, at=to_text(NOW - 70), reason="EmptyQueries",
        message="no object", exit_code=ExitCode.SOURCE_MISSING, permanent=True,
    )  # fmt: skip
    measuring = a_revision(OLD, "Validating", failure=failure)
    again = job(Task.VALIDATE, key=f"{identity.gate_hash(OLD)}/1", of=measuring, failures=1)
    plan = run(seen(OLD, measuring, jobs=(listing(OLD), again)))
    assert condition(plan.status, "Stalled")[:2] == ("True", "EmptyQueries")


def test_a_refused_dimension_stays_said_while_the_source_is_listed_again() -> None:
    refused = listing(OLD, NEW_DATA)
    refused = replace(refused, result=refused.result.model_copy(update={"dimension": 16}))  # type: ignore[union-attr]
    obs = seen(OLD, STABLE, traffic=STABLE, jobs=(refused,))
    first = run(obs)
    assert condition(first.status, "Stalled")[1] == "DimensionChanged"
    again = job(Task.RESOLVE, key=f"{identity.source_hash(OLD)}/{refused.name}", created_at=NOW - 1)
    second = run(replace(after(obs, first), jobs=(refused, again)))
    assert second.status == first.status


def test_a_verdict_that_nobody_can_give_does_not_hold_up_new_data() -> None:
    gate = GateStatus(
        gate_hash=identity.gate_hash(OLD), thresholds_hash=identity.thresholds_hash(OLD), verdict="Inconclusive",
        reason="RecallUncertain", message="", at=to_text(NOW),
    )  # fmt: skip
    held = a_revision(OLD, "Validating", gate=gate, report=report(OLD, 0.952, 0.947))
    fresh = a_revision(OLD, "Pending", data=NEW_DATA)
    plan = run(seen(OLD, held, fresh, data=NEW_DATA))
    assert status_of(plan, held).phase == "Superseded"
    assert [one.revision for one in actions(plan, StartBuild)] == [fresh.name]


# ---------------------------------------------------------------- traffic


def test_a_decision_is_later_than_the_one_before_even_when_the_clock_is_not() -> None:
    """Another operator with another clock reads the later one as settled, and the rejection would be lost."""
    ahead = Decision(SWITCH, STABLE.name, SOAKING.name, "Surge", "Ready", "", NOW + 5)
    obs = seen(NEW, STABLE, SOAKING, traffic=front(SOAKING, ahead))
    obs = replace(obs, index=replace(obs.index, commands=(Command("rollback", "", "n1"),)))
    move = actions(run(obs), MoveTraffic)[0].decision
    assert (move.from_revision, move.to_revision) == (SOAKING.name, STABLE.name)
    assert move.serial > ahead.serial


def test_a_request_to_roll_back_is_one_step_although_the_answer_was_lost() -> None:
    before = a_revision(OLD, "Superseded", created=NOW - 72 * HOUR)
    middle = a_revision(NEW, "Stable", created=NOW - 2 * HOUR)
    newest = a_revision(THIRD, "Soaking", created=NOW - 60)
    done = Decision(DecisionKind.ROLL_BACK, newest.name, middle.name, "Manual", "Manual", "", NOW - 1, nonce="n1")
    obs = seen(THIRD, before, middle, newest, traffic=front(middle, done))
    obs = replace(obs, loaded={**obs.loaded, before.name: loaded(before)})
    plan = run(replace(obs, index=replace(obs.index, commands=(Command("rollback", "", "n1"),))))
    assert moves(plan) == []
    assert [v.result for v in plan.status.verbs] == ["Done"]


def test_of_two_stable_revisions_the_latest_counts_and_the_other_is_superseded() -> None:
    """A promotion whose second half was lost."""
    newer = a_revision(NEW, "Stable", created=NOW - 60)
    plan = run(seen(NEW, STABLE, newer, traffic=newer))
    assert plan.status.stable == newer.name
    assert status_of(plan, STABLE).phase == "Superseded"


def test_a_promotion_is_recorded_before_the_demotion() -> None:
    done = a_revision(NEW, "Soaking", created=NOW - 60)
    rollout = done.status.rollout
    assert rollout is not None
    later = spec(index={"factory": "Flat"})
    waiting = a_revision(later, "Validated")
    longest = rollout.model_copy(update={"prior": STABLE.name, "switched_at": to_text(NOW - 7 * HOUR)})
    done = replace(done, status=done.status.model_copy(update={"rollout": longest}))
    plan = run(seen(later, STABLE, done, waiting, traffic=done))
    phases = [
        one.status.phase for one in actions(plan, WriteRevisionStatus) if one.status.phase in ("Stable", "Superseded")
    ]
    assert phases == ["Stable", "Superseded"]


def test_a_service_that_is_gone_is_made_again_for_stable_not_for_the_candidate() -> None:
    plan = run(seen(NEW, STABLE, SOAKING, traffic=Traffic()))
    assert moves(plan) == [(SOAKING.name, STABLE.name)]
    assert status_of(plan, SOAKING).rejected is None


def test_the_first_revision_surges_again_when_the_service_is_gone_before_its_promotion() -> None:
    first = soaking(a_revision(OLD, "Soaking", created=NOW - 60), "")
    plan = run(seen(OLD, first, traffic=Traffic()))
    assert moves(plan) == [("", first.name)]


def test_traffic_on_a_revision_that_was_given_up_goes_to_stable() -> None:
    given_up = a_revision(NEW, "Superseded", created=NOW - 60)
    obs = seen(OLD, STABLE, given_up, traffic=given_up)
    plan = run(replace(obs, loaded={**obs.loaded, given_up.name: loaded(given_up)}))
    assert moves(plan) == [(given_up.name, STABLE.name)]


@pytest.mark.parametrize("phase", ["SurgeFailed", "Rejected", "Superseded"])
def test_a_switch_to_what_was_given_up_meanwhile_is_taken_back(phase: str) -> None:
    """An operator that was paused switched to it after another one had given it up: it was made to soak, and loaded."""
    surging = a_revision(NEW, "Surging", created=NOW - 60)
    given_up = replace(surging, status=surging.status.model_copy(update={"phase": phase}))
    late = Decision(SWITCH, STABLE.name, given_up.name, "Surge", "Ready", "", NOW - 1, serial=1)
    obs = seen(OLD, STABLE, given_up, traffic=front(given_up, late))
    plan = run(replace(obs, loaded={STABLE.name: loaded(STABLE), given_up.name: loaded(given_up)}))
    assert moves(plan) == [(given_up.name, STABLE.name)]
    assert status_of(plan, given_up).phase == phase


def test_a_switch_away_from_a_revision_whose_object_is_deleted() -> None:
    gone = a_revision(OLD, "Stable")
    surging = a_revision(NEW, "Surging", created=NOW - 60)
    obs = seen(NEW, surging, traffic=gone)
    plan = run(replace(obs, loaded={**obs.loaded, gone.name: loaded(gone)}))
    assert moves(plan) == [(gone.name, surging.name)]


def test_the_deadline_of_a_surge_does_not_run_while_a_secret_is_missing() -> None:
    surging = a_revision(NEW, "Surging", created=NOW - HOUR)
    blocked = loaded(surging, *(pod(f"p{n}", ready=False, waiting="Secret/s3: not found") for n in range(2)))
    obs = seen(NEW, STABLE, surging, traffic=STABLE)
    waiting = replace(obs, loaded={**obs.loaded, surging.name: blocked})
    there = loaded(surging, *(pod(f"p{n}", ready=False) for n in range(2)))
    obs = replace(after(waiting, run(waiting)), loaded={**obs.loaded, surging.name: there})
    plan = run(obs)
    assert status_of(plan, surging).phase == "Surging"
    obs = after(obs, plan)
    assert status_of(run(obs, NOW + 500), surging).phase == "Surging"
    assert status_of(run(obs, NOW + 700), surging).phase == "SurgeFailed"


def test_a_stall_keeps_its_words_only_for_the_source_that_it_is_about() -> None:
    """The user points at another source while the last one is refused: nothing is known about the new one yet."""
    other = spec(source={"s3": {"bucket": "elsewhere"}})
    before = VectorIndexStatus(source=source(OLD))
    running = job(Task.RESOLVE, key=f"{identity.source_hash(other)}/x")
    plan = run(replace(seen(other, STABLE, traffic=STABLE, jobs=(running,)), index=index(other, before)))
    assert condition(plan.status, "Stalled")[0] == ""
