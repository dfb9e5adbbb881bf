"""What was decided about revisions is written beside their artifacts, and an index that is made again begins so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from observations import (
    DATA,
    HOUR,
    NEW_DATA,
    NOW,
    SETTINGS,
    a_revision,
    actions,
    after,
    condition,
    index,
    job,
    loaded,
    moved,
    recorded,
    seen,
    source,
    spec,
)

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import (
    GateStatus,
    Rejection,
    RevisionSpec,
    RevisionStatus,
    VectorIndexSpec,
    VectorIndexStatus,
)
from vectorindex_operator.core.backoff import resolve_wait
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.identity import thresholds_hash
from vectorindex_operator.core.lifecycle import decide
from vectorindex_operator.core.observation import JobState, JobView, Observation, RevisionView, Task
from vectorindex_operator.core.outcomes import LONGEST_MESSAGE
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.plan import (
    CreateRevision,
    DeleteJob,
    EnsureSearchers,
    Plan,
    StartBuild,
    StartOutcomes,
    StartResolve,
    StartValidation,
)
from vectorindex_operator.core.progress.record import MOST_TRIES
from vectorindex_operator.manifests.render import render
from vectorindex_searcher.contract import (
    OUTCOMES_WRITTEN,
    TASK_ENV,
    ExitCode,
    Failure,
    Outcome,
    OutcomesResult,
    OutcomesTask,
)

KEEPS = replace(SETTINGS, outcomes=True, cluster_uid="cluster-a")
OF = spec()
WHY = Rejection(stage="Rollout", reason="ErrorRate", message="7 % failed, 2 % may", at=to_text(NOW - 60))
STABLE = a_revision(OF, "Stable")
BEFORE = a_revision(OF, "Superseded", data="d0" * 32, created=NOW - 5 * HOUR)
BAD = a_revision(OF, "RolledBack", data=NEW_DATA, created=NOW - 60, promoted_at=None, rejected=WHY)
ACCESS_DENIED = Failure(reason="AccessDenied", message="no right to write", field="spec.artifacts")


def run(obs: Observation, now: float = NOW) -> Plan:
    plan = decide(obs, KEEPS, now)
    assert plan.errors == ()
    return plan


def decided(*views: RevisionView, of: VectorIndexSpec = OF, jobs: tuple[JobView, ...] = ()) -> Observation:
    obs = seen(of, STABLE, *views, traffic=STABLE)
    return replace(obs, jobs=(*obs.jobs, *jobs))


def start(plan: Plan) -> StartOutcomes:
    (one,) = actions(plan, StartOutcomes)
    return one


def ended(one: StartOutcomes, state: JobState = JobState.SUCCEEDED, **more: Any) -> JobView:
    """The Job that was started."""
    view = job(Task.OUTCOMES, state, key=one.key, failures=one.failures)
    return replace(view, name=one.name, uid=f"uid-{one.name}", **more)


def marked(view: RevisionView, plan: Plan) -> str | None:
    return recorded(plan, view).recorded


# ---------------------------------------------------------------- writing


def test_without_it_nothing_is_written() -> None:
    assert actions(decide(decided(BEFORE, BAD), SETTINGS, NOW), StartOutcomes) == []


def test_one_job_writes_what_was_decided() -> None:
    task = start(run(decided(BEFORE, BAD))).task
    assert (task.identity.uid, task.restore) == ("uid-docs", False)
    said = {one.revision: one for one in task.write}
    assert set(said) == {STABLE.name, BEFORE.name, BAD.name}
    good, bad = said[STABLE.name], said[BAD.name]
    assert (good.outcome, good.at, good.digest) == ("Promoted", STABLE.status.promoted_at, STABLE.spec.digest)
    assert (good.build, good.report, good.cluster) == (STABLE.status.build, STABLE.status.report, "cluster-a")
    assert (bad.outcome, bad.phase, bad.reason, bad.message) == ("Rejected", "RolledBack", WHY.reason, WHY.message)
    assert (bad.build, bad.fingerprint) == (None, NEW_DATA)


def test_the_job_has_the_keys_of_the_artifacts_and_todays_image() -> None:
    obs = decided(BAD)
    one = start(run(obs))
    (manifest,) = render(one, obs, OF, KEEPS)
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    assert (container["args"], container["image"]) == (["outcomes"], KEEPS.searcher_image)
    assert container["envFrom"] == [{"prefix": "ARTIFACTS_", "secretRef": {"name": "s3"}}]
    told = next(row["value"] for row in container["env"] if row["name"] == TASK_ENV)
    assert OutcomesTask.model_validate_json(told) == one.task
    (owner,) = manifest["metadata"]["ownerReferences"]
    assert owner["uid"] == "uid-docs"


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.RUNNING])
def test_what_a_job_has_written_is_not_written_again(state: JobState) -> None:
    obs = decided(BAD)
    done = ended(start(run(obs)), state)
    plan = run(replace(obs, jobs=(*obs.jobs, done)))
    assert actions(plan, StartOutcomes) == []
    if state is not JobState.SUCCEEDED:
        return
    assert marked(STABLE, plan) == f"Promoted/{STABLE.status.promoted_at}"
    assert marked(BAD, plan) == f"Rejected/{WHY.at}"
    assert [one.uid for one in actions(plan, DeleteJob)] == [done.uid]
    quiet = run(after(obs, plan))
    assert (actions(quiet, StartOutcomes), actions(quiet, DeleteJob)) == ([], [])


def test_what_is_decided_meanwhile_is_written_next() -> None:
    one = start(run(decided(BEFORE)))
    plan = run(decided(BEFORE, BAD, jobs=(ended(one),)))
    assert {said.revision for said in start(plan).task.write} == {STABLE.name, BEFORE.name, BAD.name}
    assert len(actions(plan, DeleteJob)) == 1


def test_a_revision_that_is_good_again_is_written_again() -> None:
    """Its last outcome is the one that holds."""
    was = a_revision(OF, "Stable", restored_at=to_text(NOW - 30), recorded=f"Promoted/{STABLE.status.promoted_at}")
    (said,) = start(run(seen(OF, was, traffic=was))).task.write
    assert said.at == was.status.restored_at


@pytest.mark.parametrize("phase", ["Pending", "Building", "Validating", "Validated", "Surging", "Soaking"])
def test_what_is_under_way_is_not_decided(phase: str) -> None:
    other = a_revision(spec(index={"factory": "HNSW32"}), phase, created=NOW - 30)
    done = replace(
        STABLE, status=STABLE.status.model_copy(update={"recorded": f"Promoted/{STABLE.status.promoted_at}"})
    )
    assert actions(run(seen(OF, done, other, traffic=done)), StartOutcomes) == []


def test_long_words_are_cut() -> None:
    """A text of more than a status holds would make the document unusable."""
    gate = GateStatus(
        gate_hash="g", thresholds_hash="t", verdict="Fail", reason="RecallBelowMin", message="x" * 5000, at=WHY.at
    )
    why = WHY.model_copy(update={"message": "x" * 5000})
    bad = a_revision(OF, "Rejected", data=NEW_DATA, created=NOW - 60, rejected=why, gate=gate)
    said = next(one for one in start(run(decided(bad))).task.write if one.revision == bad.name)
    assert said.gate is not None
    assert max(len(said.message), len(said.gate["message"])) == LONGEST_MESSAGE


def test_what_lies_in_an_earlier_bucket_is_not_written_to_this_one() -> None:
    moved_on = spec(artifacts={"s3": {"bucket": "another"}})
    assert actions(run(seen(moved_on, STABLE, traffic=STABLE)), StartOutcomes) == []


def test_a_job_takes_so_many_and_the_newest_first() -> None:
    many = [
        a_revision(OF, "Rejected", data=f"{n:02}" * 32, created=NOW - n * HOUR,
                   rejected=WHY.model_copy(update={"at": to_text(NOW - n * HOUR)}))
        for n in range(2, 30)
    ]  # fmt: skip
    write = start(run(decided(*many))).task.write
    assert len(write) == OUTCOMES_WRITTEN
    assert write[0].revision == STABLE.name
    assert write[-1].at > many[20].status.phase_times["Rejected"]


def test_a_job_that_fails_is_tried_again_a_few_times_and_told() -> None:
    obs, tries = decided(BAD), 0
    one = start(run(obs))
    for _ in range(2 * MOST_TRIES):
        failed = ended(one, JobState.FAILED, finished_at=NOW, failure=ACCESS_DENIED, exit_code=69)
        world = replace(obs, jobs=(*obs.jobs, failed))
        early = run(world, NOW + 1)
        assert (actions(early, StartOutcomes), moved(early)) == ([], [])
        plan = run(world, NOW + resolve_wait(one.failures + 1) + 1)
        if not actions(plan, StartOutcomes):
            break
        (event,) = [event for event in plan.events if event.reason is EventReason.OUTCOME_NOT_RECORDED]
        assert "no right to write" in event.message
        assert event.warning
        before, one = one, start(plan)
        assert one.name != before.name
        assert one.task == before.task
        tries += 1
    assert tries == MOST_TRIES - 1
    assert plan.events == (), "it was given up, until something else is decided"


def test_it_is_written_also_of_a_suspended_index() -> None:
    """A guardrail takes back what soaks there, too."""
    assert start(run(decided(BAD, of=spec(suspend=True)))).task.write


# ---------------------------------------------------------------- beginning with it


def outcome_of(view: RevisionView, of: VectorIndexSpec = OF) -> Outcome:
    """What an index of the name that is gone has left about a revision."""
    views = (view,) if view == STABLE else (STABLE, view)
    write = start(run(seen(of, *views, traffic=STABLE))).task.write
    return next(one for one in write if one.revision == view.name)


GOOD_THEN, BEFORE_THEN, BAD_THEN = (outcome_of(view) for view in (STABLE, BEFORE, BAD))


def empty(*jobs: JobView, of: VectorIndexSpec = OF, views: tuple[RevisionView, ...] = ()) -> Observation:
    """The index was just made, under another uid."""
    obs = Observation(index=index(of, VectorIndexStatus(), uid="uid-again"), jobs=jobs)
    return replace(obs, revisions={view.name: view for view in views})


def told(*found: Outcome, of: VectorIndexSpec = OF, **more: Any) -> tuple[Observation, Plan]:
    """What is done about what the Job has found."""
    done = ended(start(run(empty(of=of))), result=OutcomesResult(found=found, **more))
    obs = empty(done, of=of)
    return obs, run(obs)


def made(obs: Observation, plan: Plan) -> Observation:
    """The world once the revisions are there, and nothing of them is written yet."""
    spec_now = obs.index.spec
    assert spec_now is not None
    views = {}
    for one in actions(plan, CreateRevision):
        (manifest,) = render(one, obs, spec_now, KEEPS)
        frozen = RevisionSpec.read(manifest["spec"])
        assert frozen.unread == frozenset()
        views[one.name] = RevisionView(one.name, f"uid-{one.name}", NOW, frozen, RevisionStatus())
    return replace(obs, revisions=views)


def taken_over(*found: Outcome, of: VectorIndexSpec = OF) -> tuple[Observation, Plan]:
    obs = made(*told(*found, of=of))
    return obs, run(obs)


def test_what_is_there_is_read_before_anything_begins() -> None:
    plan = run(empty())
    one = start(plan)
    assert (one.task.restore, one.task.write, one.task.cluster) == (True, (), "cluster-a")
    assert actions(plan, StartResolve) == []
    running = run(empty(ended(one, JobState.RUNNING)))
    assert (actions(running, StartResolve), actions(running, StartOutcomes)) == ([], [])
    assert actions(decide(empty(), SETTINGS, NOW), StartOutcomes) == [], "off unless it is set"


def test_what_was_found_stays_until_the_source_was_listed() -> None:
    """Who begins anew meanwhile finds it again, and reads nothing twice."""
    obs, plan = taken_over(GOOD_THEN)
    for world in (obs, after(obs, plan)):
        assert [one.uid for one in actions(run(world), DeleteJob)] == []
    known = VectorIndexStatus(source=source(OF))
    done = after(obs, plan)
    plan = run(replace(done, jobs=(*done.jobs, *seen(OF).jobs), index=replace(done.index, status=known)))
    assert [one.uid for one in actions(plan, DeleteJob)] == [done.jobs[0].uid]


def test_where_nothing_is_an_index_begins_as_ever() -> None:
    _, plan = told()
    assert len(actions(plan, StartResolve)) == 1
    assert plan.events == ()


def test_what_served_serves_again_and_nothing_is_built_or_proven() -> None:
    obs, plan = taken_over(GOOD_THEN, BEFORE_THEN, BAD_THEN)
    good, before, bad = (recorded(plan, view) for view in (STABLE, BEFORE, BAD))
    assert (good.phase, good.build, good.report) == ("Stable", STABLE.status.build, STABLE.status.report)
    assert (before.phase, before.promoted_at) == ("Retired", BEFORE.status.promoted_at)
    assert bad.phase == "RolledBack"
    assert bad.rejected is not None
    assert bad.rejected.reason == "ErrorRate"
    assert bad.rejected.message.startswith("7 % failed, 2 % may (decided at ")
    (ensure,) = actions(plan, EnsureSearchers)
    assert (ensure.revision, ensure.manifest_sha256) == (STABLE.name, "aa" * 32)
    assert [actions(plan, kind) for kind in (StartBuild, StartValidation)] == [[], []]
    assert len(actions(plan, StartResolve)) == 1
    ready = replace(after(obs, plan), loaded={STABLE.name: loaded(STABLE)})
    assert moved(run(ready)) == [STABLE.name]


def test_what_was_rejected_is_not_tried_again() -> None:
    """The source still holds what was taken back."""
    obs, plan = taken_over(GOOD_THEN, BEFORE_THEN, BAD_THEN)
    status = VectorIndexStatus(source=source(OF, NEW_DATA))
    world = replace(after(obs, plan), loaded={STABLE.name: loaded(STABLE)}, jobs=seen(OF, data=NEW_DATA).jobs)
    plan = run(replace(world, index=replace(world.index, status=status)))
    work = (StartBuild, StartValidation, CreateRevision, StartOutcomes)
    assert [actions(plan, kind) for kind in work] == [[], [], [], []]
    assert condition(plan.status, "Stalled")[:2] == ("True", "RolledBack")
    assert condition(plan.status, "RollbackPossible")[:2] == ("True", "Cold")


def test_a_person_can_roll_back_to_what_was_before() -> None:
    obs, plan = taken_over(GOOD_THEN, BEFORE_THEN)
    world = replace(after(obs, plan), loaded={STABLE.name: loaded(STABLE)}, traffic=seen(OF, traffic=STABLE).traffic)
    status = VectorIndexStatus(source=source(OF))
    asked = replace(world, index=replace(world.index, status=status, commands=(Command("rollback", "", "n1"),)))
    plan = run(asked)
    assert plan.status.verbs[0].result == "Done", plan.status.verbs
    assert BEFORE.name in {one.revision for one in actions(run(after(asked, plan)), EnsureSearchers)}


def test_a_retry_tries_again_what_was_rejected() -> None:
    obs, plan = taken_over(GOOD_THEN, BAD_THEN)
    status = VectorIndexStatus(source=source(OF, NEW_DATA))
    world = replace(
        after(obs, plan), loaded={STABLE.name: loaded(STABLE)}, traffic=seen(OF, traffic=STABLE).traffic,
        jobs=seen(OF, data=NEW_DATA).jobs,
    )  # fmt: skip
    plan = run(replace(world, index=replace(world.index, status=status, commands=(Command("retry", "", "n1"),))))
    assert recorded(plan, BAD).rejected is None
    assert [one.revision for one in actions(plan, StartBuild)] == [BAD.name]


def test_whoever_dies_before_a_status_is_written_leaves_nothing_that_looks_new() -> None:
    """An object without a status is Pending: the rejected one would be built, proven and rolled out."""
    obs, _ = taken_over(GOOD_THEN, BAD_THEN)
    status = VectorIndexStatus(source=source(OF, NEW_DATA))
    plan = run(replace(obs, jobs=seen(OF, data=NEW_DATA).jobs, index=replace(obs.index, status=status)))
    assert recorded(plan, BAD).phase == "RolledBack"
    assert actions(plan, StartBuild) == []


def test_what_is_not_made_yet_holds_up_the_rest() -> None:
    obs, plan = told(GOOD_THEN, BAD_THEN)
    assert len(actions(plan, CreateRevision)) == 2
    assert actions(plan, StartResolve) == []
    both = made(obs, plan)
    half = replace(both, revisions={STABLE.name: both.revisions[STABLE.name]})
    plan = run(half)
    assert [one.name for one in actions(plan, CreateRevision)] == [BAD.name]
    assert actions(plan, StartResolve) == []


def test_with_another_image_it_is_proven_again_before_it_serves() -> None:
    other = GOOD_THEN.model_copy(update={"image": "example/searcher:of-before"})
    obs, plan = taken_over(other, BEFORE_THEN, BAD_THEN)
    status = recorded(plan, STABLE)
    assert (status.phase, status.report, status.promoted_at) == (Phase.VALIDATING, None, None)
    assert actions(plan, EnsureSearchers) == []
    frozen = obs.revisions[STABLE.name].spec
    assert (frozen.image, frozen.proof_salt) == (KEEPS.searcher_image, KEEPS.searcher_image)
    known = VectorIndexStatus(source=source(OF, NEW_DATA))
    world = replace(after(obs, plan), jobs=seen(OF, data=NEW_DATA).jobs)
    plan = run(replace(world, index=replace(world.index, status=known)))
    assert [one.revision for one in actions(plan, StartValidation)] == [STABLE.name], "whatever the spec asks for"
    assert actions(plan, StartBuild) == []


def test_what_served_is_proven_again_also_where_the_spec_has_changed_since() -> None:
    """The edit was rolled back, and its manifest is applied to the new cluster: else nothing would serve."""
    edit = spec(index={"factory": "HNSW32"})
    bad = a_revision(edit, "RolledBack", created=NOW - 60, promoted_at=None, rejected=WHY)
    other = GOOD_THEN.model_copy(update={"image": "example/searcher:of-before"})
    obs, plan = taken_over(other, outcome_of(bad), of=edit)
    known = VectorIndexStatus(source=source(edit))
    world = replace(after(obs, plan), jobs=seen(edit).jobs)
    plan = run(replace(world, index=replace(world.index, status=known)))
    assert [one.revision for one in actions(plan, StartValidation)] == [STABLE.name]
    assert obs.revisions[STABLE.name].spec.index_spec == OF.index


def test_a_report_that_is_not_there_any_more_is_measured_again() -> None:
    _, plan = taken_over(GOOD_THEN.model_copy(update={"report": None}))
    assert recorded(plan, STABLE).phase == Phase.VALIDATING


def test_what_was_proven_with_another_image_is_nothing_to_go_back_to() -> None:
    other = BEFORE_THEN.model_copy(update={"image": "example/searcher:of-before"})
    _, plan = told(GOOD_THEN, other)
    assert [one.name for one in actions(plan, CreateRevision)] == [STABLE.name]
    assert [event.reason for event in plan.events] == [EventReason.OUTCOMES_LOST]


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "00" * 32},
        {"fingerprint": NEW_DATA},
        {"rebuild": 2},
        {"index": spec(index={"factory": "Flat"}).index},
        {"revision": "docs-2-0a0a0a0a"},
        {"revision": "other-0a0a0a0a"},
        {"identity": GOOD_THEN.identity.model_copy(update={"name": "other"})},
        {"identity": GOOD_THEN.identity.model_copy(update={"namespace": "team-b"})},
        {"at": "2026-13-01T00:00:00Z"},
        {"at": to_text(NOW + HOUR)},
        {"at": "9999-01-01T00:00:00Z"},
        {"segments": ("no name!",)},
    ],
)
def test_what_does_not_come_out_of_what_it_says_is_not_taken(changes: dict[str, Any]) -> None:
    """The digest binds it: whoever writes to a bucket can only name what a build of that spec and data would be."""
    _, plan = told(GOOD_THEN.model_copy(update=changes), unusable=1)
    assert actions(plan, CreateRevision) == []
    (event,) = plan.events
    assert event.reason is EventReason.OUTCOMES_LOST
    assert event.message.startswith("2 of 2 outcomes")


def test_too_many_outcomes_are_done_without_and_told() -> None:
    _, plan = told(too_many=True)
    assert actions(plan, CreateRevision) == []
    (event,) = plan.events
    assert event.reason is EventReason.OUTCOMES_LOST
    assert "more outcomes than are listed (10,000)" in event.message
    assert actions(plan, StartResolve), "it begins as a new one does"


def test_nothing_of_where_pods_run_comes_from_the_bucket() -> None:
    hostile = {"pod": {"serviceAccountName": "admin"}, "serving": {"pod": {"serviceAccountName": "admin"}}}
    sly = Outcome.read({**GOOD_THEN.wire(), "image": "evil/image:1", **hostile})
    obs, _ = taken_over(sly)
    frozen = obs.revisions[STABLE.name].spec
    assert frozen.image == KEEPS.searcher_image
    assert frozen.pod_template["spec"]["containers"][0]["image"] == KEEPS.searcher_image
    assert "serviceAccountName" not in frozen.pod_template["spec"]
    assert frozen.served_as().pod == OF.searcher.pod


def test_a_rejection_by_the_gate_is_judged_again_where_the_gate_has_changed() -> None:
    gate = GateStatus(
        gate_hash="g", thresholds_hash=thresholds_hash(OF), verdict="Fail", reason="RecallBelowMin", message="0.9",
        at=to_text(NOW - 60),
    )  # fmt: skip
    why = Rejection(stage="Gate", reason="RecallBelowMin", message="0.9", at=to_text(NOW - 60))
    turned_down = a_revision(OF, "Rejected", data=NEW_DATA, created=NOW - 60, rejected=why, gate=gate)
    for floor, expected in ((0.95, []), (0.9, [turned_down.name])):
        of = spec(gate={"recall": {"min": floor}})
        obs, plan = taken_over(GOOD_THEN, outcome_of(turned_down), of=of)
        known = VectorIndexStatus(source=source(of, NEW_DATA))
        world = replace(after(obs, plan), loaded={STABLE.name: loaded(STABLE)}, jobs=seen(of, data=NEW_DATA).jobs)
        world = replace(world, index=replace(world.index, status=known))
        again = run(after(world, run(world)))
        assert [one.revision for one in actions(again, StartBuild)] == expected, "its artifact is found, or built anew"


@pytest.mark.parametrize("lost", [False, True])
def test_a_bucket_that_cannot_be_read_is_told_and_tried_again(lost: bool) -> None:
    """Without knowing what was rejected nothing begins; where it cannot be read, nothing could be published either."""
    first = start(run(empty()))
    failed = (
        ended(first, JobState.SUCCEEDED) if lost else ended(first, JobState.FAILED, failure=ACCESS_DENIED, exit_code=69)
    )
    plan = run(empty(failed))
    assert actions(plan, StartResolve) == []
    if not lost:
        assert plan.status.reason == "AccessDenied"
        assert actions(plan, StartOutcomes) == []
        plan = run(empty(failed), NOW + resolve_wait(1))
    again = start(plan)
    assert (again.failures, again.name != first.name, again.task) == (1, True, first.task)


def test_an_index_that_knows_its_source_is_never_held_up() -> None:
    """After an upgrade, or where the setting was turned on."""
    obs = seen(OF, STABLE, traffic=STABLE, jobs=())
    assert all(not one.task.restore for one in actions(run(obs), StartOutcomes))
    unlisted = replace(obs, index=replace(obs.index, status=VectorIndexStatus()))
    assert all(not one.task.restore for one in actions(run(unlisted), StartOutcomes)), "nor one that has revisions"


def test_a_suspended_index_begins_with_it_too() -> None:
    _, plan = taken_over(GOOD_THEN, of=spec(suspend=True))
    assert recorded(plan, STABLE).phase == "Stable"
    assert len(actions(plan, EnsureSearchers)) == 1


def test_what_was_taken_over_is_not_written_again() -> None:
    obs, plan = taken_over(GOOD_THEN, BEFORE_THEN, BAD_THEN)
    known = VectorIndexStatus(source=source(OF, DATA))
    world = replace(after(obs, plan), jobs=seen(OF).jobs, index=replace(obs.index, status=known))
    assert actions(run(world), StartOutcomes) == []


def test_a_bucket_that_is_refused_for_good_is_for_a_person() -> None:
    failed = ended(start(run(empty())), JobState.FAILED, failure=ACCESS_DENIED, exit_code=ExitCode.BAD_SPEC)
    assert run(empty(failed)).status.phase == "Stalled"
