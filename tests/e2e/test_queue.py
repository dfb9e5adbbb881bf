"""Builds in a queue of a real Kueue: they wait in its words, run when there is quota, and are preempted at no cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from e2e.operator_release import Operator
from e2e.test_plugin import Terminal
from e2e.vectors import Corpus
from e2e.workspace import NAME, SMALL, Workspace
from layers import unavailable

from harness.kube import Json, Kube

pytestmark = pytest.mark.queue

API = "kueue.x-k8s.io/v1beta2"
QUEUE = "ml"
LABEL = "kueue.x-k8s.io/queue-name"
COVERED = ("cpu", "memory", "ephemeral-storage")
"""What pods of these Jobs ask for: a ClusterQueue that lacks one of them admits none."""
LOW: Json = {"requests": SMALL["requests"], "limits": {"cpu": "100m", "memory": "1Gi"}}
"""Of a build that takes its time, and can be caught at work."""


@pytest.fixture(scope="module", autouse=True)
def kueue(kube: Kube, operator: Operator) -> Iterator[None]:
    """The operator may list Workloads for as long as these tests run."""
    if kube.get("Deployment", "kueue-controller-manager", "kueue-system") is None:
        unavailable("queue", "there is no Kueue", "make kueue-up")
    operator.upgrade("kueue.enabled=true")
    yield
    operator.upgrade("kueue.enabled=false")


@pytest.fixture
def queue(workspace: Workspace, kube: Kube) -> Iterator[str]:
    """A LocalQueue in the workspace, of a ClusterQueue of its own that has no quota of cores yet; the name of that."""
    name = workspace.namespace
    kube.apply({"apiVersion": API, "kind": "ResourceFlavor", "metadata": {"name": name}})
    fill(kube, name, cpu="0")
    queue = {"apiVersion": API, "kind": "LocalQueue", "metadata": {"name": QUEUE, "namespace": name}}
    kube.apply(queue | {"spec": {"clusterQueue": name}})
    yield name
    workspace.retire()
    kube.wait_for(lambda: not kube.list("Workload", name), 120, f"the Workloads of {name} to go")
    for kind, namespace in (("LocalQueue", name), ("ClusterQueue", ""), ("ResourceFlavor", "")):
        kube.delete(kind, QUEUE if namespace else name, namespace)


def fill(kube: Kube, name: str, cpu: str) -> None:
    """Gives the ClusterQueue this many cores, and as much as anybody wants of the rest."""
    quota = dict.fromkeys(COVERED, "64Gi") | {"cpu": cpu}
    flavor = {"name": name, "resources": [{"name": key, "nominalQuota": value} for key, value in quota.items()]}
    spec = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
        "resourceGroups": [{"coveredResources": list(COVERED), "flavors": [flavor]}],
        "preemption": {"withinClusterQueue": "LowerPriority"},
    }
    kube.apply({"apiVersion": API, "kind": "ClusterQueue", "metadata": {"name": name}, "spec": spec})


def job_of(space: Workspace, verb: str) -> Json:
    """Its one Job of this verb; {} before it is there."""
    jobs: list[Json] = space.index.jobs(verb)
    assert len(jobs) <= 1, "a Job that waits or was stopped is no reason for another one"
    return jobs[0] if jobs else {}


def said_of(kube: Kube, job: Json, kind: str = "QuotaReserved") -> str:
    """What Kueue says in this condition of the Job's Workload."""
    uid = job["metadata"]["uid"]
    (workload,) = kube.list("Workload", job["metadata"]["namespace"], f"kueue.x-k8s.io/job-uid={uid}")
    rows = workload.get("status", {}).get("conditions", [])
    return next((str(row["message"]) for row in rows if row["type"] == kind and row["message"]), "")


def waits_in_kueues_words(space: Workspace, kube: Kube) -> Json | None:
    """The row in the status, once it has what Kueue says now of the build."""
    row, job = space.blocked("Queue"), job_of(space, "build")
    return row if row is not None and job and said_of(kube, job) and said_of(kube, job) in row["message"] else None


def test_a_build_waits_for_quota_in_kueues_words_and_is_served_when_there_is_some(
    workspace: Workspace, corpus: Corpus, kube: Kube, queue: str
) -> None:
    index = workspace.index
    workspace.put("good", corpus)
    workspace.apply("good", build={"queueName": QUEUE})
    row: Json = index.wait(lambda: waits_in_kueues_words(workspace, kube), 120, "to say why its build waits")
    assert row["subject"] == f"LocalQueue/{QUEUE}"
    assert "quota" in row["message"]
    print(row["message"])
    # Progressing, for Argo CD and kstatus; and for people.
    assert index.condition("Reconciling")["status"] == "True"
    assert index.condition("Reconciling")["reason"] == "Queue"
    assert not index.condition("Stalled")
    shown = " ".join(Terminal(workspace).say("get", NAME).split())
    assert f"Queue LocalQueue/{QUEUE}" in shown
    (revision,) = index.revisions()
    assert index.revision(revision)["progress"] == f"waits for its turn in LocalQueue {QUEUE}"
    build = job_of(workspace, "build")
    assert build["spec"]["suspend"] is True
    assert "startTime" not in build["status"], "its time runs while it waits"

    fill(kube, queue, cpu="1")
    index.wait_condition("RolledOut", timeout=240)
    assert index.traffic() == revision
    assert not index.status().get("blockedBy")
    assert "progress" not in index.revision(revision)
    assert job_of(workspace, "build")["metadata"]["uid"] == build["metadata"]["uid"]
    for verb, queued in (("resolve", False), ("build", True), ("validate", True)):
        for job in index.jobs(verb):
            assert (LABEL in job["metadata"]["labels"]) is queued, verb
            assert not job["spec"]["suspend"], "Kueue let it run, and nobody took that back"
    query = corpus.queries(1)[0]
    (best, _), *_ = corpus.nearest(query, 1)
    assert workspace.ask(query, k=1)["results"][0]["ids"] == [best]


def test_a_build_that_is_preempted_goes_on_and_has_lost_no_try(
    workspace: Workspace, corpus: Corpus, kube: Kube, queue: str
) -> None:
    """With `retries: 0`: if to be stopped were a failed try, that would be the end of it."""
    index = workspace.index
    fill(kube, queue, cpu="100m")
    workspace.put("good", corpus)
    workspace.apply("good", build={"queueName": QUEUE, "retries": 0, "resources": LOW})
    index.wait(lambda: runs(workspace), 120, "its build to run")
    build = job_of(workspace, "build")

    with somebody_in_a_hurry(workspace):
        index.wait(lambda: job_of(workspace, "build")["spec"]["suspend"], 60, "Kueue to stop its build")
        evicted = said_of(kube, build, "Evicted")
        assert "reempted" in evicted
        index.wait(
            lambda: evicted in (workspace.blocked("Queue") or {}).get("message", ""), 60, "to say who stopped it"
        )
        index.wait(lambda: not runs(workspace), 60, "the stopped build's pod to end")
        (revision,) = index.revisions()
        assert index.revision(revision)["phase"] == "Building"

    index.wait_condition("RolledOut", timeout=300)
    assert index.traffic() == revision
    assert "failure" not in index.revision(revision)
    done = job_of(workspace, "build")
    assert (done["metadata"]["uid"], done["status"].get("failed", 0)) == (build["metadata"]["uid"], 0)


def runs(space: Workspace) -> bool:
    return any(
        pod["status"]["phase"] == "Running" and pod["metadata"]["labels"].get("vectorindex.dev/verb") == "build"
        for pod in space.index.pods()
    )


@contextmanager
def somebody_in_a_hurry(space: Workspace) -> Iterator[None]:
    """Another Job for the same queue, with all its cores and a higher priority."""
    name = f"urgent-{space.namespace}"
    container = {
        "name": "wait",
        "image": space.images.searcher.reference,
        "command": ["sleep", "600"],
        "resources": {"requests": {"cpu": "100m", "memory": "16Mi", "ephemeral-storage": "1Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    marks = {LABEL: QUEUE, "kueue.x-k8s.io/priority-class": name}
    kube, meta = space.kube, {"name": "urgent", "namespace": space.namespace, "labels": marks}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta}
    kube.apply({"apiVersion": API, "kind": "WorkloadPriorityClass", "metadata": {"name": name}, "value": 1000})
    kube.apply(job | {"spec": {"suspend": True, "template": {"spec": pod}}})
    try:
        yield
    finally:
        kube.delete("Job", "urgent", space.namespace)
        kube.delete("WorkloadPriorityClass", name)


def test_deleted_while_its_build_waits_nothing_is_left(
    workspace: Workspace, corpus: Corpus, kube: Kube, queue: str
) -> None:
    index = workspace.index
    workspace.put("good", corpus)
    workspace.apply("good", build={"queueName": QUEUE})
    index.wait(lambda: waits_in_kueues_words(workspace, kube), 120, "to say why its build waits")
    index.delete()
    kube.wait_for(lambda: not kube.list("Workload", queue), 60, "its Workloads to go")
