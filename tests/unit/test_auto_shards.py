"""As many shards as fit, in the operator: what it asks for, hears and serves, and that it remembers nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from observations import (
    DATA,
    NOW,
    SETTINGS,
    a_revision,
    actions,
    built,
    job,
    phase,
    recorded,
    run,
    seen,
    spec,
)

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import SHARDS, Live, Serving
from vectorindex_operator.core import identity, outcomes
from vectorindex_operator.core.attempt import UNREADABLE
from vectorindex_operator.core.observation import JobState, JobView, Task
from vectorindex_operator.core.plan import (
    CreateRevision,
    DeleteJob,
    EnsureSearchers,
    Plan,
    StartBuild,
    StartPartition,
    StartPublish,
)
from vectorindex_operator.manifests import labels
from vectorindex_operator.manifests.render import render
from vectorindex_searcher.contract import TASK_ENV, Identity, Outcome, PartitionResult, PartitionTask

OF = spec(index={"shards": "Auto"}, searcher={"memoryPerShard": "1Gi"}, build={"parallelism": 2})
PENDING = a_revision(OF, "Pending")
KEY = identity.build_hash(OF)
LAID = PartitionResult(
    digest=PENDING.spec.digest, plan_sha256="a" * 64, fingerprint=DATA, shards=5, count=50, counts=(10,) * 5,
    dimension=4, factory="Flat", bytes=1, duration_seconds=1,
)  # fmt: skip


def one(verb: Task, state: JobState = JobState.RUNNING, tried: int = 0, **changes: Any) -> JobView:
    return job(verb, state, of=PENDING, **{"key": f"{KEY}/{tried}", "failures": tried} | changes)


def with_jobs(*jobs: JobView, of: Any = OF, **status: Any) -> Plan:
    view = replace(PENDING, status=PENDING.status.model_copy(update=status))
    return run(seen(of, view, jobs=(*seen(of).jobs, *jobs)))


PARTED = one(Task.PARTITION, JobState.SUCCEEDED, result=LAID)

# ---------------------------------------------------------------- what it is


def test_the_digest_knows_what_is_asked_for_and_not_what_it_comes_to() -> None:
    digests = [
        identity.digest(spec(index={"shards": shards}, searcher=searcher), DATA)
        for shards, searcher in (
            ("Auto", {}),
            ("Auto", {"memoryPerShard": "8Gi"}),
            (16, {}),
        )
    ]
    assert len(set(digests)) == 3
    for same in ("16Gi", "16384Mi", 16 * 2**30):
        asked = spec(index={"shards": "Auto"}, searcher={"memoryPerShard": same})
        assert identity.digest(asked, DATA) == digests[0]


def test_how_much_is_of_the_revision_and_no_live_setting() -> None:
    other = spec(index={"shards": "Auto"}, searcher={"memoryPerShard": "2Gi"})
    assert identity.live_hash(Live.of(other)) == identity.live_hash(Live.of(OF))
    for asked, frozen in ((OF, "1Gi"), (spec(index={"shards": "Auto"}), "16Gi"), (spec(index={"shards": 3}), None)):
        digest = identity.digest(asked, DATA)
        made = CreateRevision(identity.revision_name("docs", digest), digest, DATA, Serving.of(asked))
        (revision,) = render(made, seen(asked), asked, SETTINGS)
        assert revision["spec"].get("memoryPerShard") == frozen
        assert revision["spec"]["requires"] == [SHARDS]
    served = a_revision(OF, "Stable")
    pending = run(seen(other, served, traffic=served)).status.conditions
    assert "searcher.memoryPerShard: with the next revision" in str(pending)


# ---------------------------------------------------------------- three Jobs


def test_the_first_job_is_told_what_a_searcher_may_ask_for_and_what_of_it_is_not_for_rows() -> None:
    of = spec(index={"shards": "Auto"}, searcher={"memoryPerShard": "1Gi", "resources": {"requests": {"cpu": "4"}}})
    obs = seen(of, a_revision(of, "Pending"))
    (start,) = actions(run(obs), StartPartition)
    (manifest,) = render(start, obs, of, SETTINGS)
    (pod,) = manifest["spec"]["template"]["spec"]["containers"]
    task = PartitionTask.model_validate_json(next(e["value"] for e in pod["env"] if e["name"] == TASK_ENV))
    assert (task.shards, task.memory_per_shard, task.replaces) == ("Auto", "1Gi", True)
    assert task.searcher_bytes == (256 + 3 * 64) << 20, "four processes"


def test_what_the_first_job_says_is_what_the_others_go_by() -> None:
    plan = with_jobs(PARTED)
    (start,) = actions(plan, StartBuild)
    assert start.task.index.shards == 5
    view = replace(PENDING, status=PENDING.status)
    (manifest,) = render(start, seen(OF, view), OF, SETTINGS)
    assert (manifest["spec"]["completions"], manifest["spec"]["parallelism"]) == (5, 2)
    assert manifest["metadata"]["annotations"][labels.SHARDS] == "5"
    built_some = one(Task.BUILD, key=f"{KEY}/0/cpu", done=2, parts=5)
    assert recorded(with_jobs(PARTED, built_some), PENDING).progress == "2 of 5 shards are built"
    laying = recorded(with_jobs(one(Task.PARTITION)), PENDING)
    assert laying.progress == "the rows of as many shards as fit are laid ready"


def test_the_first_job_may_be_gone_by_the_time_that_the_others_end() -> None:
    """It is kept for an hour; a build takes many."""
    ended = one(Task.BUILD, JobState.SUCCEEDED, key=f"{KEY}/0/cpu", parts=5)
    assert len(actions(with_jobs(ended, phase="Building"), StartPublish)) == 1
    whole = built(PENDING.spec.digest, shards=5)
    published = one(Task.PUBLISH, JobState.SUCCEEDED, result=whole)
    assert recorded(with_jobs(published, phase="Building"), PENDING).build == whole


def test_a_first_job_whose_words_are_lost_is_run_again_and_nothing_is_built_by_a_guess() -> None:
    mute = one(Task.PARTITION, JobState.SUCCEEDED)
    plan = with_jobs(mute, phase="Building")
    assert actions(plan, StartBuild) == []
    assert [gone.uid for gone in actions(plan, DeleteJob)] == [mute.uid]
    failure = recorded(plan, PENDING).failure
    assert failure is not None
    assert (failure.reason, failure.count, failure.permanent) == (UNREADABLE, 1, False)
    assert phase(plan, PENDING) == "Building"
    long_ago = failure.model_copy(update={"at": "2020-01-01T00:00:00Z"})
    (again,) = actions(with_jobs(phase="Building", failure=long_ago), StartPartition)
    assert again.key == f"{KEY}/1"
    said = one(Task.PARTITION, JobState.SUCCEEDED, 1, result=LAID)
    (start,) = actions(with_jobs(said, phase="Building", failure=failure), StartBuild)
    assert start.task.index.shards == 5


def test_a_build_that_goes_on_on_cpus_has_as_many_shards() -> None:
    of = spec(
        index={"shards": "Auto"}, searcher={"memoryPerShard": "1Gi"}, build={"parallelism": 2, "device": "PreferGPU"}
    )
    key = identity.build_hash(of)
    waits = one(Task.BUILD, key=f"{key}/0/gpu", device="gpu", parts=5, unschedulable_since=NOW - 900, unschedulable="x")
    (start,) = actions(with_jobs(waits, of=of, phase="Building"), StartBuild)
    assert (start.gpu, start.task.index.shards) == (False, 5)


# ---------------------------------------------------------------- what serves, and who takes over


def test_as_many_searchers_are_loaded_as_were_built() -> None:
    loading = a_revision(OF, "Surging")
    status = loading.status.model_copy(update={"build": built(loading.spec.digest, shards=5)})
    obs = seen(OF, replace(loading, status=status))
    (ensure,) = actions(run(obs), EnsureSearchers)
    assert ensure.shards == 5
    made = render(ensure, obs, OF, SETTINGS)
    names = [one["metadata"]["name"] for one in made if one["kind"] == "Deployment"]
    assert names == [*(labels.shard_name(loading.name, number) for number in range(5)), loading.name]
    (router,) = made[-2]["spec"]["template"]["spec"]["containers"]
    assert len(json.loads(router["env"][0]["value"])["shards"]) == 5


@pytest.mark.parametrize("today", [OF, spec(index={"shards": "Auto"}), spec()])
def test_what_was_decided_is_known_again_whatever_memory_the_spec_says_today(today: Any) -> None:
    told = Outcome(
        version=1, identity=Identity(name="docs"), revision=PENDING.name, outcome="Rejected", at=to_text(NOW),
        digest=PENDING.spec.digest, fingerprint=DATA, columns=OF.source.columns, index=OF.index,
        memory_per_shard=PENDING.spec.memory_per_shard,
    )  # fmt: skip
    assert identity.digest(outcomes.as_spec(today, told), DATA) == PENDING.spec.digest
