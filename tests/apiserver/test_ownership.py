"""Objects written through the real adapter to a real API server: what goes, what stays, what is never taken."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from control_plane import Api, ControlPlane, Json, path_of
from kubernetes import client
from observations import index

from vectorindex_operator.adapters.kube import FIELD_MANAGER, KubeCluster
from vectorindex_operator.api.v1alpha1 import FrontService
from vectorindex_operator.manifests import labels, service
from vectorindex_operator.reconcile import raw
from vectorindex_operator.reconcile.errors import ConflictError, NotOursError, RefusedError
from vectorindex_operator.reconcile.objects import Objects

OWNER = {
    "apiVersion": "vectorindex.dev/v1alpha1",
    "kind": "VectorIndex",
    "name": "docs",
    "uid": "uid-docs",
    "controller": True,
}
FOREIGN = OWNER | {"kind": "Elsewhere", "uid": "uid-elsewhere"}


@pytest.fixture
def cluster(control_plane: ControlPlane) -> Iterator[KubeCluster]:
    configuration = client.Configuration(host=control_plane.api.url)
    configuration.ssl_ca_cert = str(control_plane.folder / "certificates" / "apiserver.crt")
    configuration.api_key = {"authorization": "Bearer admin"}
    one = KubeCluster(client.ApiClient(configuration))
    yield one
    one.api.close()


def a_deployment(name: str, limits: Json) -> Json:
    resources = {"limits": limits, "requests": {"cpu": "100m"}}
    one = {"name": "searcher", "image": "example/searcher:1", "resources": resources}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default", "labels": {"a": "b"}, "ownerReferences": [OWNER]},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"of": name}},
            "template": {"metadata": {"labels": {"of": name}}, "spec": {"containers": [one]}},
        },
    }


def a_front(name: str, version: str = "") -> Json:
    meta = {"name": name, "namespace": "default", "ownerReferences": [OWNER], "annotations": {labels.DECISION: "{}"}}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta | ({"resourceVersion": version} if version else {}),
        "spec": {
            "type": "ClusterIP",
            "selector": {labels.REVISION: "docs-1"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def test_the_server_does_nothing_for_which_it_was_given_no_time(api: Api) -> None:
    """What an operator relies on whose Lease ends while a write is under way (docs/adr/0031-two-operators-meet.md)."""
    hurried = a_deployment("hurried", {"cpu": "1"})
    answer = api.apply(hurried, timeout="1us")
    assert answer.status == 504, answer.message
    assert api.get(path_of(hurried)).status == 404
    assert api.apply(hurried, timeout="20000ms").ok


def limits_of(live: Any) -> Any:
    return live["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]


def edited(api: Api, manifest: Json, **spec: Any) -> None:
    """kubectl edit by somebody else."""
    merge = "application/merge-patch+json"
    answer = api.request("PATCH", path_of(manifest), {"spec": spec}, merge, fieldManager="hand")
    assert answer.ok, answer.message


def test_a_field_that_is_no_longer_rendered_goes(cluster: KubeCluster, name: str) -> None:
    objects = Objects(cluster)
    assert objects.ensure(a_deployment(name, {"cpu": "1", "memory": "1Gi"}), None) is None
    live = cluster.get("Deployment", "default", name)
    assert objects.ensure(a_deployment(name, {"memory": "1Gi"}), live) is None
    assert limits_of(cluster.get("Deployment", "default", name)) == {"memory": "1Gi"}


def test_what_an_earlier_release_created_loses_it_too_and_restarts_nothing(cluster: KubeCluster, name: str) -> None:
    objects = Objects(cluster)
    before = a_deployment(name, {"cpu": "1", "memory": "1Gi"})
    assert cluster.create(before)
    created = cluster.get("Deployment", "default", name)
    assert created is not None
    objects.ensure(before, created)
    marked = cluster.get("Deployment", "default", name)
    assert marked is not None
    assert marked["spec"] == created["spec"], "no pod is restarted by an upgrade"
    assert [(m["manager"], m["operation"]) for m in marked["metadata"]["managedFields"]] == [(FIELD_MANAGER, "Apply")]
    objects.ensure(a_deployment(name, {"memory": "1Gi"}), marked)
    assert limits_of(cluster.get("Deployment", "default", name)) == {"memory": "1Gi"}


def test_an_object_that_says_what_we_rendered_is_not_written(cluster: KubeCluster, name: str) -> None:
    objects = Objects(cluster)
    objects.ensure(a_deployment(name, {"cpu": "1000m"}), None)
    first = cluster.get("Deployment", "default", name)
    assert first is not None
    assert objects.ensure(a_deployment(name, {"cpu": "1000m"}), first) is None
    again = cluster.get("Deployment", "default", name)
    assert again is not None
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_a_hand_made_change_is_found_and_named(cluster: KubeCluster, api: Api, name: str) -> None:
    objects, manifest = Objects(cluster), a_deployment(name, {"cpu": "1"})
    objects.ensure(manifest, None)
    edited(api, manifest, replicas=9, minReadySeconds=3)
    repair = objects.ensure(manifest, cluster.get("Deployment", "default", name))
    live = cluster.get("Deployment", "default", name)
    assert repair is not None
    assert live is not None
    assert (repair.subject, repair.field) == (f"Deployment/{name}", "spec.replicas")
    assert (live["spec"]["replicas"], live["spec"]["minReadySeconds"]) == (2, 3), "what we do not render stays"


def test_a_sidecar_of_another_manager_stays_and_costs_no_write(cluster: KubeCluster, api: Api, name: str) -> None:
    objects, manifest = Objects(cluster), a_deployment(name, {"cpu": "1"})
    objects.ensure(manifest, None)
    proxy = {"name": "proxy", "image": "proxy:1"}
    variable = {"name": "searcher", "env": [{"name": "THEIRS", "value": "1"}]}
    theirs = {"spec": {"template": {"spec": {"containers": [proxy, variable]}}}}
    meta = {"name": name, "namespace": "default"}
    answer = api.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta} | theirs, "mesh")
    assert answer.ok, answer.message
    live = cluster.get("Deployment", "default", name)
    assert live is not None
    assert objects.ensure(manifest, live) is None
    assert cluster.get("Deployment", "default", name) == live
    edited(api, manifest, replicas=9)
    assert objects.ensure(manifest, cluster.get("Deployment", "default", name)) is not None, "the rest is put back"
    pod = raw.part(cluster.get("Deployment", "default", name), "spec", "template", "spec")
    assert sorted(one["name"] for one in raw.rows(pod["containers"])) == ["proxy", "searcher"]


def test_a_repair_that_comes_late_makes_nothing_again_and_takes_nothing_over(
    cluster: KubeCluster, api: Api, name: str
) -> None:
    objects, manifest = Objects(cluster), a_deployment(name, {"cpu": "1"})
    objects.ensure(manifest, None)
    looked_at = cluster.get("Deployment", "default", name)
    assert looked_at is not None
    changed = {**looked_at, "spec": {**looked_at["spec"], "replicas": 9}}
    assert api.delete(manifest).ok
    with pytest.raises(ConflictError):
        objects.ensure(manifest, changed)
    assert cluster.get("Deployment", "default", name) is None
    theirs = a_deployment(name, {"cpu": "5"})
    theirs["metadata"]["ownerReferences"] = [FOREIGN]
    cluster.create(theirs)
    before = cluster.get("Deployment", "default", name)
    with pytest.raises(RefusedError):
        objects.ensure(manifest, changed)
    assert cluster.get("Deployment", "default", name) == before


def test_what_somebody_else_has_is_never_taken(cluster: KubeCluster, name: str) -> None:
    theirs = a_deployment(name, {"cpu": "5"})
    theirs["metadata"]["ownerReferences"] = [FOREIGN]
    theirs["spec"]["selector"]["matchLabels"] = theirs["spec"]["template"]["metadata"]["labels"] = {"of": "them"}
    cluster.create(theirs)
    before = cluster.get("Deployment", "default", name)
    with pytest.raises(NotOursError, match=name):
        Objects(cluster).ensure(a_deployment(name, {"cpu": "1"}), None)
    with pytest.raises(ConflictError):  # it came between our look and our write
        cluster.apply(a_deployment(name, {"cpu": "1"}), force=False)
    assert cluster.get("Deployment", "default", name) == before


def test_the_front_service_is_made_exact_in_one_write(cluster: KubeCluster, api: Api, name: str) -> None:
    objects, manifest = Objects(cluster), a_front(name)
    objects.point(manifest, None)
    wrong = [{"name": "http", "port": 8080, "targetPort": "http"}, {"name": "web", "port": 81}]
    edited(api, manifest, selector={"app": "web"}, ports=wrong, publishNotReadyAddresses=True)
    live = cluster.get("Service", "default", name)
    assert live is not None
    moved = a_front(name, live["metadata"]["resourceVersion"])
    moved["spec"]["selector"] = {labels.REVISION: "docs-2"}
    objects.point(moved, live)
    spec = raw.part(cluster.get("Service", "default", name), "spec")
    assert spec["selector"] == {labels.REVISION: "docs-2"}
    assert spec["ports"] == moved["spec"]["ports"]
    assert not spec.get("publishNotReadyAddresses")
    with pytest.raises(ConflictError):
        objects.point(moved, live)  # decided on what is no longer so


def test_the_front_service_that_is_gone_is_a_conflict(cluster: KubeCluster, name: str) -> None:
    with pytest.raises(ConflictError, match="is gone"):
        Objects(cluster).point(a_front(name, "7"), None)


def test_a_service_of_somebody_else_is_not_pointed_anywhere(cluster: KubeCluster, name: str) -> None:
    theirs = deepcopy(a_front(name))
    theirs["metadata"]["ownerReferences"] = [FOREIGN]
    cluster.create(theirs)
    with pytest.raises(NotOursError):
        Objects(cluster).point(a_front(name), None)


def test_what_a_user_asks_of_the_front_service_moves_neither_traffic_nor_address(
    cluster: KubeCluster, name: str
) -> None:
    """Families, distribution and annotations come and go in place; what the cluster cannot do is refused and undoes
    nothing."""
    Objects(cluster).point(a_front(name), None)

    def ask(**asked: Any) -> Json:
        live = cluster.get("Service", "default", name)
        assert live is not None
        before = raw.annotation(live, labels.ASKED, 4096)
        view = index(None, name=name, namespace="default")
        Objects(cluster).dress_front(service.as_asked(FrontService.model_validate(asked), view, before), live)
        now = cluster.get("Service", "default", name)
        assert now is not None
        for field in ("selector", "ports", "clusterIP"):
            assert now["spec"][field] == live["spec"][field]
        assert now["metadata"]["annotations"][labels.DECISION] == "{}"
        return dict(now)

    asked = ask(annotations={"team": "search"}, ipFamilyPolicy="PreferDualStack", trafficDistribution="PreferClose")
    assert asked["metadata"]["annotations"]["team"] == "search"
    assert (asked["spec"]["ipFamilyPolicy"], asked["spec"]["trafficDistribution"]) == ("PreferDualStack", "PreferClose")
    version = asked["metadata"]["resourceVersion"]
    again = ask(annotations={"team": "search"}, ipFamilyPolicy="PreferDualStack", trafficDistribution="PreferClose")
    assert again["metadata"]["resourceVersion"] == version
    with pytest.raises(RefusedError, match=r"ipFamilyPolicy|ipFamilies"):
        ask(annotations={"team": "search"}, ipFamilyPolicy="RequireDualStack")  # this cluster has one family
    with pytest.raises(RefusedError, match="trafficDistribution"):
        ask(trafficDistribution="Prefer")
    bare = ask()
    assert "team" not in bare["metadata"]["annotations"]
    assert "trafficDistribution" not in bare["spec"]
