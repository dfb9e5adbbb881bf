"""Jobs in a queue of Kueue: made suspended, left to Kueue, said in its words, and no try until they run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from chart import of_kind
from chart import render as chart
from observations import (
    HOUR,
    NOW,
    SETTINGS,
    a_revision,
    actions,
    after,
    built,
    condition,
    index,
    job,
    listing,
    recorded,
    run,
    seen,
    spec,
)
from raw_objects import NAMESPACE, Stored, index_raw, look, revision_raw, stored

from vectorindex_operator.api.v1alpha1 import VectorIndexSpec
from vectorindex_operator.core import identity
from vectorindex_operator.core.attempt import QUEUE_LOOK_SECONDS
from vectorindex_operator.core.observation import JobState, JobView, Observation, Task
from vectorindex_operator.core.plan import (
    Action,
    DeleteJob,
    StartBuild,
    StartPartition,
    StartPublish,
    StartResolve,
    StartValidation,
    WriteRevisionStatus,
)
from vectorindex_operator.manifests import labels
from vectorindex_operator.manifests.render import Rendered, render
from vectorindex_operator.reconcile import kueue
from vectorindex_operator.reconcile.cache import CachedCluster, LiveCluster, NotCachedError, ReadCache, trimmed
from vectorindex_operator.reconcile.errors import RefusedError, UnreachableError

Raw = dict[str, Any]
PLAIN = spec()
OF = spec(build={"queueName": "ml"}, source={"poll": "0"})
IN_SHARDS = spec(build={"queueName": "ml", "parallelism": 2}, index={"shards": 3})
NO_QUOTA = "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor default, 1 more needed"
PREEMPTED = "Preempted to accommodate a workload (UID: 7d1) due to prioritization in the ClusterQueue"


# ---------------------------------------------------------------- the Jobs


def made(of: VectorIndexSpec, obs: Observation, kind: type[Rendered]) -> Raw:
    (action,) = actions(run(obs), kind)
    (manifest,) = render(action, obs, of, SETTINGS)
    return manifest


def moments(of: VectorIndexSpec, shards: VectorIndexSpec) -> list[tuple[str, VectorIndexSpec, Observation, type[Any]]]:
    """Each kind of Job, and the moment at which one is planned."""
    pending, whole = a_revision(of, "Pending"), a_revision(shards, "Pending")
    key = f"{identity.build_hash(shards)}/0"
    laid, parts = (job(task, JobState.SUCCEEDED, key=key, of=whole) for task in (Task.PARTITION, Task.BUILD))
    return [
        ("resolve", of, replace(seen(of, jobs=()), index=index(of)), StartResolve),
        ("build", of, seen(of, pending), StartBuild),
        ("partition", shards, seen(shards, whole), StartPartition),
        ("parts", shards, seen(shards, whole, jobs=(laid,)), StartBuild),
        ("publish", shards, seen(shards, whole, jobs=(parts,)), StartPublish),
        ("validate", of, seen(of, a_revision(of, "Validating")), StartValidation),
    ]


def test_what_takes_cores_waits_for_its_turn_and_what_is_small_does_not() -> None:
    waits = {name for name, of, obs, kind in moments(OF, IN_SHARDS) if is_queued(made(of, obs, kind))}
    assert waits == {"build", "partition", "parts", "validate"}


def is_queued(manifest: Raw) -> bool:
    """Whether a Job is Kueue's to start; its pods never say so, or they would be in the queue a second time."""
    assert labels.QUEUE not in manifest["spec"]["template"]["metadata"]["labels"]
    marked, suspended = manifest["metadata"]["labels"].get(labels.QUEUE), manifest["spec"].get("suspend")
    assert (marked, suspended) in (("ml", True), (None, None))
    return bool(suspended)


def test_without_a_queue_nothing_changes() -> None:
    assert identity.build_hash(PLAIN) == identity.build_hash(spec(build={"queueName": None}))
    for name, of, obs, kind in moments(PLAIN, spec(build={"parallelism": 2}, index={"shards": 3})):
        assert not is_queued(made(of, obs, kind)), name


def test_another_queue_is_another_try_of_what_waits_in_the_one_before() -> None:
    """A Job cannot be moved once Kueue has admitted it, and one that waits in the wrong queue waits for ever."""
    elsewhere = spec(build={"queueName": "batch"}, source={"poll": "0"})
    for phase, task, kind in (("Building", Task.BUILD, StartBuild), ("Validating", Task.VALIDATE, StartValidation)):
        view = a_revision(OF, phase)
        first: Any = next(one for one in run(seen(OF, view)).actions if isinstance(one, kind))
        waits = replace(job(task, key=first.key, of=view), name=first.name, held=True, queue="ml")
        stays = run(seen(OF, view, jobs=(listing(OF), waits)))
        assert actions(stays, DeleteJob) + actions(stays, kind) == []
        moved = run(seen(elsewhere, view, jobs=(listing(OF), waits)))
        (gone,), (begun,) = actions(moved, DeleteJob), actions(moved, kind)
        assert gone.name == waits.name
        assert begun.name != waits.name


# ---------------------------------------------------------------- what the status says of one that waits


def queued(task: Task, words: str = NO_QUOTA, of: VectorIndexSpec = OF, **changes: Any) -> tuple[Any, Observation]:
    """A revision whose Job waits for its turn."""
    view = a_revision(of, "Building" if task is Task.BUILD else "Validating")
    kind: type[Action] = StartBuild if task is Task.BUILD else StartValidation
    (first,) = actions(run(seen(of, view)), kind)
    one: JobView = job(task, key=getattr(first, "key"), of=view, held=True, queue="ml", queued=words)  # noqa: B009
    return view, seen(of, view, jobs=(listing(of), replace(one, **changes)))


@pytest.mark.parametrize("task", [Task.BUILD, Task.VALIDATE])
def test_one_that_waits_is_told_in_kueues_words(task: Task) -> None:
    _, obs = queued(task)
    plan = run(obs)
    (row,) = plan.status.blocked_by
    assert (row.rule, row.subject) == ("Queue", "LocalQueue/ml")
    assert row.message.startswith(f"Job {obs.jobs[-1].name} ")
    assert row.message.endswith(NO_QUOTA)
    # Argo CD and kstatus: it is on its way, and nothing failed.
    assert condition(plan.status, "Reconciling")[:2] == ("True", "Queue")
    assert NO_QUOTA in condition(plan.status, "RolledOut")[2]
    assert condition(plan.status, "Stalled") == ("", "", "")
    assert plan.requeue_after <= QUEUE_LOOK_SECONDS, "nobody watches what Kueue says"


def test_how_far_a_build_is_says_that_it_waits() -> None:
    view, obs = queued(Task.BUILD)
    assert recorded(run(obs), view).progress == "waits for its turn in LocalQueue ml"
    told = after(obs, run(obs))
    runs = replace(told, jobs=(listing(OF), replace(obs.jobs[-1], held=False, queued="")))
    assert recorded(run(runs), view).progress is None
    assert run(runs).status.blocked_by == ()
    whole = a_revision(IN_SHARDS, "Building")
    key = f"{identity.build_hash(IN_SHARDS)}/0"
    laid = job(Task.PARTITION, JobState.SUCCEEDED, key=key, of=whole)
    parts = job(Task.BUILD, key=f"{key}/cpu", of=whole, held=True, queue="ml", queued=PREEMPTED, done=2, parts=3)
    stopped = run(seen(IN_SHARDS, whole, jobs=(listing(IN_SHARDS), laid, parts)))
    assert recorded(stopped, whole).progress == "2 of 3 shards are built; waits for its turn in LocalQueue ml"


def test_a_wait_of_days_costs_no_try() -> None:
    view, obs = queued(Task.BUILD)
    for hours in (1, 24, 240):
        plan = run(obs, NOW + hours * HOUR)
        assert actions(plan, DeleteJob) + actions(plan, StartBuild) == []
        written = [one.status for one in actions(plan, WriteRevisionStatus)]
        assert all(status.phase == "Building" and status.failure is None for status in written)
        obs = after(obs, plan)
    done = replace(obs.jobs[-1], held=False, queued="", state=JobState.SUCCEEDED, finished_at=NOW, result=built())
    assert recorded(run(replace(obs, jobs=(listing(OF), done))), view).phase == "Validating"


def test_numbers_that_change_are_no_news_and_another_reason_is() -> None:
    _, obs = queued(Task.BUILD)
    first = run(obs).status
    _, later = queued(Task.BUILD, NO_QUOTA.replace("1 more", "7 more"))
    later = replace(later, index=replace(later.index, status=first))
    assert run(later).status.blocked_by == first.blocked_by
    _, stopped = queued(Task.BUILD, PREEMPTED)
    stopped = replace(stopped, index=replace(stopped.index, status=first))
    assert PREEMPTED in run(stopped).status.blocked_by[0].message


def test_a_gpu_that_is_waited_for_in_a_queue_is_not_given_up() -> None:
    """Its pods have never been unschedulable: there are none."""
    _, obs = queued(
        Task.BUILD, of=spec(build={"queueName": "ml", "device": "PreferGPU"}, source={"poll": "0"}), device="gpu"
    )
    plan = run(obs, NOW + 10 * HOUR)
    assert actions(plan, DeleteJob) + actions(plan, StartBuild) == []


def test_one_that_somebody_suspends_by_hand_says_so() -> None:
    _, obs = queued(Task.BUILD, queue="")
    (row,) = run(obs).status.blocked_by
    assert (row.rule, row.subject) == ("JobWaiting", obs.jobs[-1].name)
    assert "spec.suspend" in row.message


# ---------------------------------------------------------------- what Kueue says


def is_so(kind: str, message: str = "", status: str = "True") -> Raw:
    return {"type": kind, "status": status, "reason": "R", "message": message}


def a_job(uid: str = "uid-job", *, suspend: bool = True, queue: str = "ml") -> Raw:
    view = a_revision(OF, "Building")
    obs = seen(OF, view)
    manifest = made(OF, obs, StartBuild)
    manifest["spec"]["suspend"] = suspend
    if not queue:
        del manifest["metadata"]["labels"][labels.QUEUE]
    return stored(manifest, uid, NOW)


def a_workload(*conditions: Raw, owner: str = "uid-job", **status: Any) -> Raw:
    meta = {
        "name": "job-docs-1-ab12c",
        "namespace": NAMESPACE,
        "labels": {kueue.JOB_UID: owner},
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "uid": owner, "controller": True}],
    }
    manifest = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "metadata": meta}
    return stored(manifest, "uid-workload", NOW, conditions=list(conditions), **status)


WAITS = is_so("QuotaReserved", NO_QUOTA, "False")


@pytest.mark.parametrize(
    ("workload", "says"),
    [
        (a_workload(WAITS), NO_QUOTA),
        (a_workload(WAITS, is_so("Admitted", "The workload has no reservation", "False")), NO_QUOTA),
        (a_workload(WAITS, is_so("Evicted", PREEMPTED)), f"{NO_QUOTA}; {PREEMPTED}"),
        (a_workload(WAITS, is_so("Evicted", "of before", "False")), NO_QUOTA),
        (
            a_workload(
                is_so("QuotaReserved"),
                is_so("Admitted", "The workload has not all checks ready", "False"),
                admissionChecks=[
                    {"name": "nodes", "state": "Pending", "message": "nodes come up"},
                    {"name": "budget", "state": "Ready", "message": "paid"},
                    {"name": "night", "state": "Retry"},
                ],
            ),
            "The workload has not all checks ready; nodes: nodes come up; night: Retry",
        ),
        (a_workload(), kueue.UNHEARD),
        (a_workload(is_so("QuotaReserved"), is_so("Admitted")), kueue.UNHEARD),
        ({**a_workload(), "status": {"conditions": "nonsense"}}, kueue.UNHEARD),
    ],
)
def test_the_words_are_those_of_what_is_still_lacking(workload: Raw, says: str) -> None:
    assert kueue.words(cluster(workload), NAMESPACE, [a_job()]) == {"uid-job": says}


def cluster(*objects: Raw, refuse: Exception | None = None) -> Any:
    """Answers lists as an API server does: by the label that is asked for."""

    class Selective(Stored):
        asked = 0

        def children(self, kind: str, namespace: str, selector: str) -> list[Raw]:
            self.asked += 1
            if refuse is not None:
                raise refuse
            name, _, value = selector.partition("=")
            return [one for one in super().children(kind, namespace, selector) if raw_label(one, name) == value]

    return Selective(*objects)


def raw_label(one: Raw, name: str) -> str:
    return str(one["metadata"]["labels"].get(name, ""))


def test_only_a_job_that_waits_in_a_queue_is_asked_about_and_few_of_them() -> None:
    for quiet in (a_job(suspend=False), a_job(queue="")):
        asked = cluster(a_workload(WAITS))
        assert kueue.words(asked, NAMESPACE, [quiet]) == {}
        assert asked.asked == 0
    many = cluster()
    kueue.words(many, NAMESPACE, [a_job(f"uid-{number}") for number in range(50)])
    assert many.asked == kueue.MOST_ASKED


def test_a_workload_of_somebody_elses_making_says_nothing() -> None:
    forged = a_workload(is_so("QuotaReserved", "drop everything", "False"))
    forged["metadata"]["ownerReferences"][0]["uid"] = "uid-of-mine"
    (said,) = kueue.words(cluster(forged), NAMESPACE, [a_job()]).values()
    assert "drop everything" not in said
    assert "no Workload" in said


@pytest.mark.parametrize("error", [RefusedError("403 Forbidden: workloads"), UnreachableError("500: webhook")])
def test_whatever_ails_kueue_ends_no_pass(error: Exception) -> None:
    """Its conversion webhook may be down, or its API not be there: a way back does not wait for that."""
    (said,) = kueue.words(cluster(refuse=error), NAMESPACE, [a_job()]).values()
    assert str(error) in said
    assert "kueue.enabled" in said


def test_a_look_reads_label_suspension_and_words() -> None:
    view = a_revision(OF, "Building")
    revision = revision_raw(view)
    raw = a_job()
    raw["metadata"]["ownerReferences"][0]["uid"] = revision["metadata"]["uid"]
    objects = index_raw(index(OF)), revision, trimmed(raw)
    (one,) = look(*objects, a_workload(WAITS), now=NOW).jobs
    assert (one.held, one.queue, one.queued, one.podless_since) == (True, "ml", NO_QUOTA, None)
    somebodys = {**raw, "metadata": raw["metadata"] | {"ownerReferences": [{"uid": "other", "controller": True}]}}
    assert look(*objects[:2], trimmed(somebodys), a_workload(WAITS), now=NOW).jobs == ()


def test_the_cache_keeps_whether_a_job_is_suspended_and_no_workload() -> None:
    assert trimmed(a_job())["spec"] == {"suspend": True}
    assert trimmed(a_job(suspend=False))["spec"] == {}
    cache, asked = ReadCache(), f"{kueue.JOB_UID}=uid-job"
    live: Any = LiveCluster(cluster(a_workload(WAITS)), cache)
    assert len(CachedCluster(cache, live).children("Workload", NAMESPACE, asked)) == 1
    with pytest.raises(NotCachedError):
        CachedCluster(cache).children("Workload", NAMESPACE, asked)


# ---------------------------------------------------------------- the chart


def test_the_chart_lets_workloads_be_listed_only_where_that_is_asked_for() -> None:
    def rights(*settings: str) -> set[tuple[str, str]]:
        roles = of_kind(chart(*settings), "ClusterRole")
        rules = [rule for role in roles if role["metadata"]["name"] == "operator-vectorindex-operator"
                 for rule in role["rules"]]  # fmt: skip
        return {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}

    assert rights("kueue.enabled=true") - rights() == {("workloads", "list")}
