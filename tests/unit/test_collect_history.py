"""What falls out of the history, where its artifacts are to be removed: marked, removed by a Job, then forgotten."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from observations import (
    HOUR,
    NOW,
    SETTINGS,
    a_revision,
    actions,
    after,
    index,
    job,
    loaded,
    seen,
    spec,
)

from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.lifecycle import decide
from vectorindex_operator.core.observation import JobState, JobView, Observation, RevisionView, Task
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.plan import (
    CreateRevision,
    DeleteJob,
    ForgetRevision,
    MoveTraffic,
    Plan,
    StartBuild,
    StartCollect,
    WriteRevisionStatus,
)
from vectorindex_operator.core.progress.collect import GIVE_UP_SECONDS
from vectorindex_operator.manifests.render import render
from vectorindex_searcher.contract import TASK_ENV, CollectResult, CollectTask, Failure

COLLECTS = replace(SETTINGS, collect_history=True, cluster_uid="cluster-a")
OF = spec(history=1)
STABLE = a_revision(OF, "Stable")


def retired(data: str, hours: int) -> RevisionView:
    view = a_revision(OF, "Superseded", data=data, created=NOW - hours * HOUR)
    return replace(view, status=view.status.model_copy(update={"phase": "Retired"}))


YOUNGER, OLDEST = retired("r2" * 32, 5), retired("r1" * 32, 9)
MARKED = a_revision(OF, "Removing", data="r1" * 32, created=NOW - 60)
REMOVED = CollectResult(artifacts=1, objects=9, bytes=900, uploads=0, left=0, unknown=0)
WORK = (ForgetRevision, StartCollect, DeleteJob, CreateRevision, StartBuild)


def world(*more: RevisionView, jobs: tuple[JobView, ...] = ()) -> Observation:
    obs = seen(OF, STABLE, YOUNGER, *more, traffic=STABLE)
    return replace(obs, jobs=(*obs.jobs, *jobs))


def run(obs: Observation, now: float = NOW) -> Plan:
    plan = decide(obs, COLLECTS, now)
    assert plan.errors == ()
    return plan


def done(plan: Plan) -> list[object]:
    return [one for one in plan.actions if isinstance(one, WORK)]


def collecting(state: JobState = JobState.RUNNING, **more: object) -> JobView:
    return replace(job(Task.COLLECT, state, key="k", of=MARKED), **more)  # type: ignore[arg-type]


def test_without_it_what_falls_out_of_the_history_is_forgotten_and_its_artifact_stays() -> None:
    plan = decide(world(OLDEST), SETTINGS, NOW)
    assert done(plan) == [ForgetRevision(OLDEST.name, OLDEST.uid)]


def test_what_falls_out_of_the_history_is_marked_first() -> None:
    """Against the version that was read: whoever wants it again at the same moment is either first, or too late."""
    obs = world(OLDEST)
    plan = run(obs)
    (written,) = [one for one in actions(plan, WriteRevisionStatus) if one.revision == OLDEST.name]
    status = written.status
    assert (status.phase, status.build, status.report, status.promoted_at) == (Phase.REMOVING, None, None, None)
    assert done(plan) == [], "the Job is for what the mark is written of"
    assert EventReason.REMOVING in [event.reason for event in plan.events]
    assert [type(one) for one in done(run(after(obs, plan)))] == [StartCollect]


def test_a_job_removes_the_artifact_of_what_is_marked() -> None:
    (start,) = done(run(world(MARKED)))
    assert isinstance(start, StartCollect)
    task = start.task
    assert (start.revision, task.digests, task.cluster) == (MARKED.name, (MARKED.spec.digest,), "cluster-a")
    assert (task.everything, task.dry_run, task.keep, task.listings) == (False, False, {}, None)
    assert set(task.building) == {STABLE.spec.digest, YOUNGER.spec.digest}
    assert task.identity.uid == "uid-docs"


def test_the_job_belongs_to_the_revision_and_runs_in_todays_image() -> None:
    before = replace(MARKED, spec=MARKED.spec.model_copy(update={"image": "example/searcher:of-before"}))
    obs = world(before)
    (start,) = actions(run(obs), StartCollect)
    (manifest,) = render(start, obs, OF, COLLECTS)
    (owner,) = manifest["metadata"]["ownerReferences"]
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    assert (owner["uid"], container["image"], container["args"]) == (before.uid, COLLECTS.searcher_image, ["collect"])
    told = next(one["value"] for one in container["env"] if one["name"] == TASK_ENV)
    assert CollectTask.model_validate_json(told) == start.task
    assert json.loads(told)["digests"] == [before.spec.digest]
    assert container["envFrom"] == [{"prefix": "ARTIFACTS_", "secretRef": {"name": "s3"}}]


def test_its_object_goes_when_its_artifact_is_gone() -> None:
    assert done(run(world(MARKED, jobs=(collecting(),)))) == []
    unreadable = collecting(JobState.SUCCEEDED)
    for ended in (replace(unreadable, result=REMOVED), unreadable):
        plan = run(world(MARKED, jobs=(ended,)))
        assert done(plan) == [ForgetRevision(MARKED.name, MARKED.uid)]
        assert plan.events == ()


def test_what_cannot_be_removed_is_given_up_with_an_event() -> None:
    why = Failure(reason="NotRemoved", message="1 of 9 objects could not be removed")
    failed = collecting(JobState.FAILED, failure=why, exit_code=69)
    plan = run(world(MARKED, jobs=(failed,)))
    assert done(plan) == [DeleteJob(failed.name, failed.uid), ForgetRevision(MARKED.name, MARKED.uid)]
    (event,) = plan.events
    assert (event.reason, event.warning) == (EventReason.ARTIFACT_LEFT, True)
    assert "1 of 9 objects" in event.message
    assert MARKED.spec.digest in event.message
    waits = collecting(waiting='Secret/s3: secret "s3" not found')
    late = MARKED.created_at + GIVE_UP_SECONDS + 1
    for jobs in ((), (waits,)):
        plan = run(world(MARKED, jobs=jobs), late)
        assert actions(plan, ForgetRevision) == [ForgetRevision(MARKED.name, MARKED.uid)]
        (event,) = plan.events
        assert ("s3" in event.message) == bool(jobs) or "bucket" in event.message


def test_a_mark_without_a_time_is_given_up_too() -> None:
    odd = replace(MARKED, status=MARKED.status.model_copy(update={"phase_times": {"Removing": "yesterday"}}))
    assert actions(run(world(odd), odd.created_at + GIVE_UP_SECONDS + 1), ForgetRevision)


# ---------------------------------------------------------------- what is never removed


def test_an_artifact_that_another_revision_has_too_stays() -> None:
    same = replace(YOUNGER, spec=YOUNGER.spec.model_copy(update={"digest": OLDEST.spec.digest}))
    plan = run(seen(OF, STABLE, same, OLDEST, traffic=STABLE))
    assert done(plan) == [ForgetRevision(OLDEST.name, OLDEST.uid)]
    assert not [one for one in actions(plan, WriteRevisionStatus) if one.revision == OLDEST.name]


def test_of_two_that_have_the_same_artifact_the_last_takes_it_along() -> None:
    same = replace(OLDEST, name="docs-refreshed", uid="uid-refreshed", created_at=NOW - 12 * HOUR)
    plan = run(world(OLDEST, same))
    marked = [one.revision for one in actions(plan, WriteRevisionStatus) if one.status.phase == Phase.REMOVING]
    assert len(marked) == 1
    assert [one.name for one in actions(plan, ForgetRevision)] == [
        n for n in (OLDEST.name, same.name) if n not in marked
    ]


def test_nothing_is_removed_while_a_revision_cannot_be_read() -> None:
    plan = run(replace(world(OLDEST), unreadable={"docs-newer": "spec.digest: missing"}))
    assert done(plan) == []
    assert not [one for one in actions(plan, WriteRevisionStatus) if one.revision == OLDEST.name]


def test_what_is_marked_is_nothing_to_go_back_to() -> None:
    """Not even where another release wrote the mark, and left the evidence."""
    status = OLDEST.status.model_copy(update={"phase": "Removing", "phase_times": MARKED.status.phase_times})
    obs = seen(OF, STABLE, replace(OLDEST, status=status), traffic=STABLE)
    asked = Command("rollback", OLDEST.name, "n1")
    plan = run(replace(obs, index=replace(obs.index, commands=(asked,))))
    assert actions(plan, MoveTraffic) == []
    (answer,) = plan.status.verbs
    assert answer.result == "Refused"
    assert next(c.reason for c in plan.status.conditions if c.type == "RollbackPossible") == "NoPrior"


def test_what_is_wanted_again_waits_until_its_artifact_is_gone() -> None:
    again = seen(OF, STABLE, YOUNGER, MARKED, traffic=STABLE, data="r1" * 32)
    running = replace(again, jobs=(*again.jobs, collecting()))
    plan = run(running)
    assert done(plan) == []
    assert [row.rule for row in plan.status.blocked_by] == ["ArtifactBeingRemoved"]
    assert plan.requeue_after <= 5
    gone = replace(again, revisions={STABLE.name: STABLE, YOUNGER.name: YOUNGER})
    (create,) = actions(run(gone), CreateRevision)
    assert (create.name, create.digest) == (MARKED.name, MARKED.spec.digest)


@pytest.mark.parametrize("how", ["loaded", "serving"])
def test_a_mark_that_came_too_late_costs_no_artifact(how: str) -> None:
    """Somebody who had lost the Lease marked what another operator has loaded: as if its object had been deleted."""
    obs = world(MARKED)
    if how == "loaded":
        obs = replace(obs, loaded={**obs.loaded, MARKED.name: loaded(MARKED)})
    else:
        obs = seen(OF, STABLE, YOUNGER, MARKED, traffic=MARKED)
    assert actions(run(obs), StartCollect) == []
    assert actions(run(obs), ForgetRevision) == [ForgetRevision(MARKED.name, MARKED.uid)]


def test_an_index_that_is_being_deleted_removes_nothing() -> None:
    obs = world(MARKED)
    assert done(run(replace(obs, index=index(OF, obs.index.status, deleting=True)))) == []
