"""An index in shards, as the operator builds and serves it: three Jobs, and groups of pods that are one revision."""

from __future__ import annotations

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
    index,
    job,
    phase,
    pod,
    recorded,
    run,
    seen,
    spec,
    with_rollout,
)

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import SHARDS, Live, Serving
from vectorindex_operator.core import identity, recipe
from vectorindex_operator.core.internal_keys import addressee
from vectorindex_operator.core.loaded import ROUTER, SHARD, Group, LoadedRevision
from vectorindex_operator.core.observation import JobState, JobView, Task
from vectorindex_operator.core.plan import (
    CreateRevision,
    DeleteJob,
    EnsureNetworkPolicy,
    EnsureSearchers,
    MoveTraffic,
    Plan,
    StartBuild,
    StartPartition,
    StartPublish,
    StartValidation,
)
from vectorindex_operator.manifests import labels
from vectorindex_operator.manifests.render import render
from vectorindex_operator.reconcile import held
from vectorindex_operator.reconcile.pods import job_view
from vectorindex_operator.reconcile.views import loaded_views
from vectorindex_searcher.contract import Failure

OF = spec(index={"shards": 3})
PENDING = a_revision(OF, "Pending")
KEY = identity.build_hash(OF)


def one(verb: Task, state: JobState = JobState.RUNNING, tried: int = 0, **changes: Any) -> JobView:
    return job(verb, state, of=PENDING, **{"key": f"{KEY}/{tried}", "failures": tried} | changes)


def with_jobs(*jobs: JobView, **status: Any) -> Plan:
    view = replace(PENDING, status=PENDING.status.model_copy(update=status))
    return run(seen(OF, view, jobs=(*seen(OF).jobs, *jobs)))


def started(plan: Plan) -> list[str]:
    kinds = (StartPartition, StartBuild, StartPublish, StartValidation)
    return [type(action).__name__ for action in plan.actions if isinstance(action, kinds)]


# ---------------------------------------------------------------- what it is


def test_shards_are_part_of_the_digest_and_none_are_not() -> None:
    assert identity.digest(OF, DATA) != identity.digest(spec(), DATA)
    assert identity.digest(spec(index={"shards": None}), DATA) == identity.digest(spec(), DATA)
    assert identity.build_hash(spec(build={"parallelism": None})) == identity.build_hash(spec())


def test_a_release_that_knows_no_shards_leaves_their_revision_alone() -> None:
    made = CreateRevision(PENDING.name, PENDING.spec.digest, DATA, Serving.of(OF))
    (revision,) = render(made, seen(OF), OF, SETTINGS)
    assert revision["spec"]["requires"] == [SHARDS]
    assert "sourcePoll" not in revision["spec"]  # routers have no keys to list it with


# ---------------------------------------------------------------- three Jobs


def test_rows_are_laid_ready_then_built_then_published() -> None:
    plan = with_jobs()
    (start,) = actions(plan, StartPartition)
    assert (start.task.shards, start.task.replaces, start.key) == (3, True, f"{KEY}/0")
    assert started(with_jobs(one(Task.PARTITION))) == []
    laid = one(Task.PARTITION, JobState.SUCCEEDED)  # its pod is gone: nothing of its result is needed
    plan = with_jobs(laid)
    (build,) = actions(plan, StartBuild)
    assert (build.task.index.shards, build.task.shard, build.key) == (3, None, f"{KEY}/0/cpu")
    parts = one(Task.BUILD, key=f"{KEY}/0/cpu", done=2, parts=3)
    running = with_jobs(laid, parts)
    assert (started(running), recorded(running, PENDING).progress) == ([], "2 of 3 shards are built")
    assert running.status.conditions
    assert "2 of 3 shards are built" in str(running.status.conditions)
    plan = with_jobs(laid, replace(parts, state=JobState.SUCCEEDED))
    assert started(plan) == ["StartPublish"]
    whole = built(PENDING.spec.digest, shards=3)
    published = with_jobs(laid, one(Task.PUBLISH, JobState.SUCCEEDED, result=whole), phase="Building", progress="x")
    status = recorded(published, PENDING)
    assert (status.phase, status.build, status.progress) == ("Validating", whole, None)


def test_the_next_try_goes_through_all_jobs_again() -> None:
    """What is done is answered at once; what the last try could not go on from is made anew."""
    laid, lost = one(Task.PARTITION, JobState.SUCCEEDED), Failure(reason="ShardMissing", message="shard 1 is not built")
    failed = one(Task.PUBLISH, JobState.FAILED, failure=lost, exit_code=75)
    built_once = one(Task.BUILD, JobState.SUCCEEDED, key=f"{KEY}/0/cpu")
    plan = with_jobs(laid, built_once, failed, phase="Building")
    assert phase(plan, PENDING) == "BuildFailed"
    failure = recorded(plan, PENDING).failure
    assert failure is not None
    assert (failure.count, failure.permanent, failure.reason) == (1, False, "ShardMissing")
    again = with_jobs(laid, built_once, failed, phase="Pending", failure=failure)
    (start,) = actions(again, StartPartition)
    assert (start.key, start.failures) == (f"{KEY}/1", 1)
    second = one(Task.PARTITION, JobState.SUCCEEDED, 1, name="second", created_at=NOW)
    assert started(with_jobs(laid, built_once, failed, second, phase="Building", failure=failure)) == ["StartBuild"]


def test_an_edit_stops_what_runs_of_the_try_before() -> None:
    old = replace(one(Task.BUILD, key="other/0/cpu"), uid="old")
    plan = with_jobs(old)
    assert [action.uid for action in actions(plan, DeleteJob)] == ["old"]
    assert started(plan) == ["StartPartition"]


def test_a_job_says_what_of_its_parts_holds_it_up_or_failed() -> None:
    def of(state: str, message: str = "", *, waits: bool = False) -> dict[str, Any]:
        ended = {"terminated": {"exitCode": 65 if state == "Failed" else 0, "message": message}}
        scheduled = {"type": "PodScheduled", "status": "False" if waits else "True", "reason": "Unschedulable",
                     "lastTransitionTime": to_text(NOW - 600), "message": "no GPU"}  # fmt: skip
        status = {"phase": state, "conditions": [scheduled], "containerStatuses": [{"state": ended}]}
        return {"metadata": {"ownerReferences": [{"uid": "j", "controller": True}]}, "status": status}

    marks = {labels.VERB: "build", labels.REVISION: PENDING.name}
    meta = {"name": "b", "uid": "j", "labels": marks, "annotations": {labels.SHARDS: "3"}}
    bad = Failure(reason="NonFiniteVector", message="row 3").model_dump_json()
    running = {"kind": "Job", "metadata": meta, "status": {"succeeded": 2}}
    failed = running | {"status": {"conditions": [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy"}]}}
    view = job_view(failed, [of("Failed", bad), of("Succeeded")])
    assert view is not None
    assert view.failure is not None
    assert (view.failure.reason, view.exit_code) == ("NonFiniteVector", 65)
    waits = [of("Pending", waits=True), of("Succeeded")]
    held, going = job_view(running, waits), job_view(running, [*waits, of("Running")])
    assert held is not None
    assert going is not None
    assert (held.unschedulable, held.done) == ("no GPU", 2)
    assert going.unschedulable == ""  # another one has the GPU, and gets on


# ---------------------------------------------------------------- groups of pods


def deployment(name: str, component: str, ready: bool, **marks: str) -> dict[str, Any]:
    """A Deployment of two pods."""
    all_marks = {labels.REVISION: PENDING.name, labels.COMPONENT: component, **marks}
    owner = {"uid": "uid-docs", "controller": True, "kind": "VectorIndex"}
    since = to_text(NOW - 60)
    meta = {"name": name, "labels": all_marks, "annotations": {labels.SHARDS: "3"}, "ownerReferences": [owner]}
    status = {"conditions": [] if ready else [{"type": "Available", "status": "False", "lastTransitionTime": since}]}
    return {"kind": "Deployment", "metadata": meta, "spec": {"replicas": 2}, "status": status}


def pods_of(owner: dict[str, Any], ready: bool = True) -> list[dict[str, Any]]:
    marks = owner["metadata"]["labels"] | {"pod-template-hash": "x"}
    name = owner["metadata"]["name"]
    manager = {"kind": "ReplicaSet", "name": f"{name}-x", "controller": True}
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": to_text(NOW - 30)}
    return [
        {"metadata": {"name": f"{name}-{number}", "labels": marks, "ownerReferences": [manager]},
         "status": {"podIP": f"10.0.0.{number}", "conditions": [condition]}}
        for number in range(2)
    ]  # fmt: skip


ROUTERS = deployment(PENDING.name, labels.SEARCHER, True)
PARTS = [
    deployment(labels.shard_name(PENDING.name, n), labels.SHARD_PODS, True, **{labels.SHARD: str(n)}) for n in range(3)
]


def test_a_revision_is_complete_and_serves_with_all_its_groups() -> None:
    everything = [ROUTERS, *PARTS]
    ready = [pod for one in everything for pod in pods_of(one)]
    (view,) = loaded_views(everything, ready, "uid-docs", NOW).values()
    assert sorted(view.groups) == [Group(ROUTER), Group(SHARD, 0), Group(SHARD, 1), Group(SHARD, 2)]
    assert (view.complete(2), view.serving(), view.unready_since, len(view.answering)) == (True, True, None, 2)
    without = [pod for one in everything if one is not PARTS[1] for pod in pods_of(one)]
    lost = loaded_views(everything, [*without, *pods_of(PARTS[1], ready=False)], "uid-docs", NOW)[PENDING.name]
    assert (lost.complete(1), lost.serving(), lost.unready_since) == (False, False, NOW - 30)


def test_a_group_that_somebody_removed_is_missed() -> None:
    there = [ROUTERS, PARTS[0], PARTS[2]]
    (view,) = loaded_views(there, [p for one in there for p in pods_of(one)], "uid-docs", NOW).values()
    assert (view.complete(1), view.serving(), view.unready_since) == (False, False, NOW)
    (view,) = loaded_views(PARTS, [p for one in PARTS for p in pods_of(one)], "uid-docs", NOW).values()
    assert (view.exists, view.serving(), view.answering) == (True, False, ())


def surging(groups: dict[Group, tuple[Any, ...]]) -> Plan:
    view = with_rollout(a_revision(OF, "Surging"), progress_since=to_text(NOW - 60))
    return run(seen(OF, view, loaded={view.name: LoadedRevision(view.name, True, groups)}))


def test_the_traffic_waits_for_every_shard() -> None:
    full = {group: (pod("a"), pod("b")) for group in (Group(ROUTER), *(Group(SHARD, n) for n in range(3)))}
    plan = surging(full)
    assert [one.decision.rule for one in actions(plan, MoveTraffic)] == ["Surge"]
    (ensure,) = actions(plan, EnsureSearchers)
    assert ensure.shards == 3
    assert plan.loaded_bytes[ensure.revision] == 3 * 2 * ensure.resident_bytes
    assert actions(surging(full | {Group(SHARD, 2): (pod("a"), pod("b", ready=False))}), MoveTraffic) == []


def test_one_shard_that_every_searcher_refuses_ends_it() -> None:
    bad = Failure(reason="ChecksumMismatch", message="index.faiss")
    refusing = tuple(pod(name, ready=False, restarts=3, failure=bad) for name in "ab")
    groups = {Group(ROUTER): (pod("r", ready=False),) * 2, Group(SHARD, 0): (pod("a"), pod("b"))}
    plan = surging(groups | {Group(SHARD, 1): refusing, Group(SHARD, 2): (pod("c"), pod("d"))})
    view = a_revision(OF, "Surging")
    status = recorded(plan, view)
    assert (status.phase, status.rejected and status.rejected.reason) == ("SurgeFailed", "ChecksumMismatch")
    assert "every searcher of shard 1 refuses" in (status.rejected.message if status.rejected else "")


def test_routers_are_asked_as_routers() -> None:
    obs = seen(OF, PENDING)
    stored = {"metadata": {"uid": "u"}, "spec": {"indexSpec": {"shards": 3}}}
    obs = replace(obs, objects={("VectorIndexRevision", PENDING.name): stored})
    assert str(addressee(obs, PENDING.name).target) == f"uid-docs/{PENDING.name}/router"
    assert str(addressee(seen(OF, PENDING), PENDING.name).target) == f"uid-docs/{PENDING.name}/0"


@pytest.mark.parametrize("sharded", [0, 1])
def test_nothing_is_compared_in_shadow_with_or_by_routers(sharded: int) -> None:
    shadowed = {"rollout": {"shadow": {"maxPerSecond": 5}}}
    specs = [spec(index={"factory": f"IVF{64 + n},Flat", "shards": 3 if n == sharded else None}, **shadowed)
             for n in range(2)]  # fmt: skip
    stable, view = a_revision(specs[0], "Stable"), a_revision(specs[1], "Surging")
    full = {Group(ROUTER): (pod("a"), pod("b")), **{Group(SHARD, n): (pod("a"), pod("b")) for n in range(3)}}
    obs = seen(specs[1], stable, view, traffic=stable)
    if sharded:
        obs = replace(obs, loaded={**obs.loaded, view.name: LoadedRevision(view.name, True, full)})
    plan = run(replace(obs, index=index(specs[1], obs.index.status)))
    shadow = recorded(plan, view).rollout
    assert shadow is not None
    assert shadow.shadow is not None
    assert shadow.shadow.outcome == "CannotMirror"
    assert "is in shards" in shadow.shadow.message


def test_fresh_rows_of_the_next_index_in_one_part_are_not_told_to_shards() -> None:
    whole = spec(source={"poll": "1m", "fresh": {"prefix": "fresh/"}})
    assert recipe.fresh_task(a_revision(whole, "Stable").spec, Live.of(whole)) is not None
    assert recipe.fresh_task(a_revision(OF, "Stable").spec, Live.of(whole)) is None, "their searchers would not start"


def test_routers_reach_shards_whose_revision_cannot_be_read() -> None:
    whole = spec(searcher={"networkPolicy": {"mode": "Managed"}})
    left = LoadedRevision("docs-1", True, {Group(ROUTER): (pod("r"),), Group(SHARD, 0): (pod("a"),)})
    (without,) = actions(run(seen(whole)), EnsureNetworkPolicy)
    (ensure,) = actions(run(seen(whole, loaded={left.revision: left})), EnsureNetworkPolicy)
    assert (without.shards, ensure.shards) == (False, True)


def test_an_index_that_is_gone_waits_for_no_shard_that_was_told_to_end() -> None:
    for component in (labels.SEARCHER, labels.SHARD_PODS):
        marks = {"labels": {labels.COMPONENT: component}}
        assert held._is_busy({"metadata": marks})
        assert not held._is_busy({"metadata": marks | {"deletionTimestamp": to_text(NOW)}})
