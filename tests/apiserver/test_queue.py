"""A Job in a queue, on a real API server on which Kueue is played: what it writes stays, and what it says is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from apiserver.test_ownership import cluster as cluster
from apiserver.test_rbac import ensure_namespace
from control_plane import Api, Json, path_of
from observations import SETTINGS, a_revision, actions, run, seen, spec

from vectorindex_operator.adapters.kube import KubeCluster
from vectorindex_operator.core.plan import StartBuild
from vectorindex_operator.manifests import labels
from vectorindex_operator.manifests.render import render
from vectorindex_operator.reconcile import kueue
from vectorindex_operator.reconcile.cache import trimmed
from vectorindex_operator.reconcile.objects import Objects
from vectorindex_operator.reconcile.pods import job_view

SPACE = "queues"
OF = spec(build={"queueName": "ml"})
REASON = "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor default, 1 more needed"


@pytest.fixture
def manifest() -> Json:
    view = a_revision(OF, "Pending")
    obs = seen(OF, view)
    (action,) = actions(run(obs), StartBuild)
    (job,) = render(action, obs, OF, SETTINGS)
    job["metadata"]["namespace"] = SPACE
    return job


@pytest.fixture
def job(api: Api, cluster: KubeCluster, manifest: Json) -> Iterator[Json]:
    """The build Job, as the operator makes it."""
    ensure_namespace(api, SPACE)
    Objects(cluster).create(manifest)
    made = live(cluster, manifest)
    yield made
    cluster.delete("Job", SPACE, made["metadata"]["name"], made["metadata"]["uid"])


def live(cluster: KubeCluster, manifest: Json) -> Json:
    found: Any = cluster.get("Job", SPACE, manifest["metadata"]["name"])
    return dict(found)


def merge(api: Api, manifest: Json, changes: Json) -> Json:
    """A write of Kueue's."""
    answer = api.request(
        "PATCH", path_of(manifest), changes, "application/merge-patch+json", fieldManager="kueue-job-controller"
    )
    assert answer.ok, answer.message
    return answer.body


def admit(api: Api, manifest: Json) -> Json:
    """Its Workload has got quota: it runs, on the nodes of a flavor."""
    template = {"spec": {"nodeSelector": {"pool": "spot"}}}
    return merge(api, manifest, {"spec": {"suspend": False, "template": template}})


def test_it_is_made_for_kueue_to_start(job: Json) -> None:
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"][labels.QUEUE] == "ml"
    assert labels.QUEUE not in job["spec"]["template"]["metadata"]["labels"]
    view = job_view(trimmed(job), [])
    assert view is not None
    assert (view.held, view.queue, view.podless_since) == (True, "ml", None)


def test_what_kueue_writes_is_kueues(api: Api, cluster: KubeCluster, manifest: Json, job: Json) -> None:
    """A pass that wants the Job again finds it: nothing of it is ever applied, so nothing is taken back."""
    assert job["spec"]["suspend"] is True
    admitted = admit(api, manifest)
    Objects(cluster).create(manifest)
    now = live(cluster, manifest)
    assert now["metadata"]["resourceVersion"] == admitted["metadata"]["resourceVersion"]
    assert now["spec"]["suspend"] is False
    assert now["spec"]["template"]["spec"]["nodeSelector"] == {"pool": "spot"}
    (owner,) = [row["manager"] for row in now["metadata"]["managedFields"] if _owns_suspend(row)]
    assert owner == "kueue-job-controller"
    stopped = merge(api, manifest, {"spec": {"suspend": True}})  # somebody with a higher priority came
    Objects(cluster).create(manifest)
    assert live(cluster, manifest)["metadata"]["resourceVersion"] == stopped["metadata"]["resourceVersion"]


def _owns_suspend(row: Json) -> bool:
    return "f:suspend" in row["fieldsV1"].get("f:spec", {})


def test_its_words_are_read_while_the_job_waits(api: Api, cluster: KubeCluster, manifest: Json, job: Json) -> None:
    uid = job["metadata"]["uid"]
    assert "no Workload" in kueue.words(cluster, SPACE, [job])[uid]
    meta = {"name": f"job-{job['metadata']['name']}-1a2b3", "namespace": SPACE, "labels": {kueue.JOB_UID: uid}}
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": uid, "controller": True}
    workload = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload",
                "metadata": meta | {"ownerReferences": [owner]}, "spec": {"queueName": "ml"}}  # fmt: skip
    assert api.apply(workload).ok
    row = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": REASON,
           "lastTransitionTime": "2027-01-15T08:00:00Z"}  # fmt: skip
    said = {key: workload[key] for key in ("apiVersion", "kind")} | {"metadata": meta}
    answer = api.apply(said | {"status": {"conditions": [row]}}, "kueue", subresource="status")
    assert answer.ok, answer.message
    assert kueue.words(cluster, SPACE, [job]) == {uid: REASON}
    assert kueue.words(cluster, SPACE, [admit(api, manifest)]) == {}
    assert api.delete(workload).ok
