"""What a deleted VectorIndex left keeps nothing from being deleted for long: decided by a real API server, which no
controller helps. What the garbage collector and the namespace controller do, the test does by hand."""

from __future__ import annotations

import time
from typing import Any

import pytest
from apiserver.test_rbac import ensure_namespace, install
from chart import HOME
from control_plane import Api, ControlPlane, Json, path_of
from kubernetes import client, config
from observations import DATA, SETTINGS, a_revision, index, spec
from raw_objects import Silent

from vectorindex_operator.adapters.events import KubeEvents
from vectorindex_operator.adapters.kube import KubeCluster, api_client
from vectorindex_operator.api.v1alpha1 import API_VERSION, Serving
from vectorindex_operator.core.leftovers import GIVE_UP_SECONDS, OVERDUE_SECONDS
from vectorindex_operator.core.plan import CreateRevision
from vectorindex_operator.manifests import revisions
from vectorindex_operator.reconcile.loop import Reconciler

NAME = "docs"
DELETES = spec(artifacts={"deletionPolicy": "Delete"})
SOON = 20.0
MERGE = "application/merge-patch+json"


class Operator:
    """The real loop with the rights of the chart; `later`: seconds by which its clock is ahead."""

    def __init__(self, plane: ControlPlane) -> None:
        config.load_kube_config(str(plane.kubeconfig(HOME, "operator-vectorindex-operator")))
        cluster = KubeCluster(api_client(client.Configuration.get_default_copy()))
        self.later = 0.0
        self.loop = Reconciler(
            cluster, Silent(), KubeEvents(cluster, "operator-1"), SETTINGS, clock=lambda: time.time() + self.later
        )

    def look(self, namespace: str) -> None:
        self.loop.run(namespace, NAME)


@pytest.fixture(scope="module")
def operator(control_plane: ControlPlane, api: Api) -> Operator:
    install(api)
    return Operator(control_plane)


def vectorindex(namespace: str) -> Json:
    meta = {"name": NAME, "namespace": namespace}
    return {"apiVersion": API_VERSION, "kind": "VectorIndex", "metadata": meta, "spec": DELETES.wire()}


def deleted_index(api: Api, namespace: str) -> Json:
    """A VectorIndex that is gone, and its revision, which the garbage collector has deleted and a finalizer keeps."""
    answer = api.apply(vectorindex(namespace))
    assert answer.ok, answer.message
    owner = index(DELETES, uid=answer.body["metadata"]["uid"], namespace=namespace)
    view = a_revision(DELETES, "Stable")
    made = CreateRevision(view.name, view.spec.digest, DATA, Serving.of(DELETES))
    revision = revisions.revision(made, owner, DELETES, SETTINGS)
    answer = api.request("POST", path_of(revision).rpartition("/")[0], revision)
    assert answer.ok, answer.message
    assert api.delete(vectorindex(namespace)).ok
    assert api.get(path_of(vectorindex(namespace))).status == 404, "nothing of ours keeps a VectorIndex"
    assert api.delete(revision).ok
    kept = api.get(path_of(revision))
    assert kept.ok
    assert kept.body["metadata"]["deletionTimestamp"]
    return revision


def jobs(api: Api, namespace: str) -> list[Json]:
    found: list[Any] = api.get(f"/apis/batch/v1/namespaces/{namespace}/jobs").body["items"]
    return found


def test_a_job_is_made_and_a_revision_goes_when_it_does_not_end(api: Api, operator: Operator) -> None:
    ensure_namespace(api, "emptied")
    revision = deleted_index(api, "emptied")
    for _ in range(3):
        operator.look("emptied")
    (job,) = jobs(api, "emptied")
    assert "ownerReferences" not in job["metadata"]
    assert api.get(path_of(revision)).ok, "it waits for the Job"
    operator.later = GIVE_UP_SECONDS + OVERDUE_SECONDS + 5.0
    operator.look("emptied")
    operator.later = 0.0
    assert api.get(path_of(revision)).status == 404


def test_a_namespace_that_terminates_is_not_kept(api: Api, operator: Operator) -> None:
    ensure_namespace(api, "ending")
    path = "/api/v1/namespaces/ending"
    revision = deleted_index(api, "ending")
    assert api.request("DELETE", path).ok
    deadline = time.monotonic() + SOON
    probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe", "namespace": "ending"}}
    while api.request("POST", f"{path}/configmaps", probe, dryRun="All").ok:
        assert time.monotonic() < deadline, "the namespace never terminates"
        time.sleep(0.1)
    operator.look("ending")
    assert (api.get(path_of(revision)).status, jobs(api, "ending")) == (404, [])
    emptied = api.get(path).body | {"spec": {"finalizers": []}}
    assert api.request("PUT", f"{path}/finalize", emptied).ok
    assert api.get(path).status == 404


def test_somebody_elses_finalizer_is_left_and_ours_added_and_taken_off(api: Api, operator: Operator) -> None:
    """The merge patch of a list of finalizers is what this API server takes it for."""
    ensure_namespace(api, "emptied")
    answer = api.apply(vectorindex("emptied"))
    assert answer.ok, answer.message
    owner = index(DELETES, uid=answer.body["metadata"]["uid"], namespace="emptied")
    view = a_revision(DELETES, "Superseded", data=DATA[::-1])
    made = CreateRevision(view.name, view.spec.digest, DATA[::-1], Serving.of(DELETES))
    revision = revisions.revision(made, owner, spec(), SETTINGS)
    assert "finalizers" not in revision["metadata"]
    revision["metadata"]["finalizers"] = ["others.example/keeps"]
    assert api.request("POST", path_of(revision).rpartition("/")[0], revision).ok

    def finalizers() -> list[str]:
        found: list[str] = api.get(path_of(revision)).body["metadata"]["finalizers"]
        return found

    operator.look("emptied")
    assert finalizers() == ["others.example/keeps", SETTINGS.finalizer]
    retained = {"spec": {"artifacts": {"deletionPolicy": "Retain"}}}
    assert api.request("PATCH", path_of(vectorindex("emptied")), retained, MERGE).ok
    operator.look("emptied")
    assert finalizers() == ["others.example/keeps"]
    assert api.delete(vectorindex("emptied")).ok
