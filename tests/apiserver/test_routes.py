"""An HTTPRoute as a real API server with the real Gateway API takes and stores it: valid, and written once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from canaries import NAME as CANDIDATE
from canaries import NEW, ROUTE
from control_plane import Api, ControlPlane, Json, path_of
from kubernetes import client, config
from observations import NOW, SETTINGS, index, seen

from vectorindex_operator.adapters import kube
from vectorindex_operator.adapters.kube import KubeCluster, api_client
from vectorindex_operator.api.v1alpha1 import Route
from vectorindex_operator.core.plan import EnsureRoute
from vectorindex_operator.core.traffic import Decision, DecisionKind
from vectorindex_operator.manifests.render import render
from vectorindex_operator.reconcile.errors import ConflictError, RefusedError
from vectorindex_operator.reconcile.objects import Objects
from vectorindex_operator.reconcile.routes import route_view

SPACE = "team-a"
BACK = Decision(DecisionKind.ROLL_BACK, CANDIDATE, "docs-1", "errors", "ErrorRate", "too many", NOW, serial=3)
FULL = {**ROUTE, "hostnames": ["search.example.com", "*.example.org"]}
FULL["parentRefs"] = [{"name": "public", "namespace": "gateways", "sectionName": "https"}, {"name": "internal"}]


def manifest(weight: int, route: Any = None, decision: Decision | None = None, over: tuple[str, ...] = ()) -> Json:
    action = EnsureRoute(Route.model_validate(route or ROUTE), CANDIDATE if weight else "", weight, decision, "", over)
    (one,) = render(action, seen(NEW), None, SETTINGS)
    return one


@pytest.fixture
def cluster(control_plane: ControlPlane, api: Api) -> Iterator[KubeCluster]:
    """The operator's own adapter, with an administrator's rights; without a route afterwards."""
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "routes", "namespace": SPACE}}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "routes"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "routes", "namespace": SPACE}],
    }  # fmt: skip
    for one in (space, account, binding):
        answer = api.apply(one)
        assert answer.ok, answer.message
    config.load_kube_config(str(control_plane.kubeconfig(SPACE, "routes")))
    yield KubeCluster(api_client(client.Configuration.get_default_copy()))
    api.request("DELETE", path_of(manifest(0)))
    assert api.request("DELETE", path_of(binding)).ok


def test_a_kind_that_the_cluster_does_not_have_is_refused_and_not_taken_for_absent(
    cluster: KubeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kube._PATHS, "HTTPRoute", ("/apis/nobody.example.com/v1", "httproutes"))
    with pytest.raises(RefusedError, match="404"):
        cluster.get("HTTPRoute", SPACE, "docs")
    with pytest.raises(RefusedError, match="404"):
        cluster.apply(manifest(0))


def test_a_route_that_is_not_there_is_absent(cluster: KubeCluster) -> None:
    assert cluster.get("HTTPRoute", SPACE, "docs") is None


@pytest.mark.parametrize("route", [ROUTE, FULL])
@pytest.mark.parametrize("weight", [0, 10, 99])
def test_it_is_valid_and_stays_as_it_was_written(cluster: KubeCluster, route: Any, weight: int) -> None:
    wanted = manifest(weight, route, BACK)
    Objects(cluster).make(wanted)
    live = cluster.get("HTTPRoute", SPACE, "docs")
    assert live is not None
    again = Refusing(cluster)
    assert Objects(again).ensure(wanted, live) is None, "it would be written at every look"
    view = route_view(live, "", [], [], index(NEW).uid)
    assert (view.weights.get(CANDIDATE, 0), view.decision) == (weight, BACK)


def test_a_share_that_is_over_is_stored_as_weight_0(cluster: KubeCluster) -> None:
    """Not as the 1 that a backend without a weight has."""
    objects = Objects(cluster)
    objects.make(manifest(10))
    wanted = manifest(0, decision=BACK, over=(CANDIDATE,))
    objects.ensure(wanted, cluster.get("HTTPRoute", SPACE, "docs"))
    live = cluster.get("HTTPRoute", SPACE, "docs")
    assert live is not None
    assert route_view(live, "", [], [], index(NEW).uid).weights == {"docs": 100, CANDIDATE: 0}
    assert Objects(Refusing(cluster)).ensure(wanted, live) is None, "it would be written at every look"


class Refusing:
    """A cluster that nothing may be written to."""

    def __init__(self, inner: KubeCluster) -> None:
        self.get = inner.get

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was called")


def test_what_a_gateway_says_meanwhile_holds_up_a_larger_share_and_no_way_back(cluster: KubeCluster, api: Api) -> None:
    objects = Objects(cluster)
    objects.make(manifest(0))
    read = cluster.get("HTTPRoute", SPACE, "docs")
    assert read is not None
    says(api, read)
    with pytest.raises(ConflictError):
        objects.ensure(manifest(10), read, read["metadata"]["resourceVersion"])
    now = cluster.get("HTTPRoute", SPACE, "docs")
    assert now is not None
    objects.ensure(manifest(10), now, now["metadata"]["resourceVersion"])
    objects.ensure(manifest(0, decision=BACK), cluster.get("HTTPRoute", SPACE, "docs"))
    view = route_view(cluster.get("HTTPRoute", SPACE, "docs"), "", [], [], index(NEW).uid)
    assert (view.weights, view.behind, view.accepted) == ({"docs": 100}, True, False)


def says(api: Api, live: Any) -> None:
    """A gateway's controller writes that it has taken the route."""
    conditions = [
        {
            "type": kind, "status": "True", "reason": kind, "message": "",
            "observedGeneration": live["metadata"]["generation"], "lastTransitionTime": "2026-11-01T00:00:00Z",
        }
        for kind in ("Accepted", "ResolvedRefs")
    ]  # fmt: skip
    row = {"parentRef": live["spec"]["parentRefs"][0], "controllerName": "example.com/g", "conditions": conditions}
    written = {"apiVersion": live["apiVersion"], "kind": "HTTPRoute", "metadata": {"name": "docs", "namespace": SPACE}}
    answer = api.apply(written | {"status": {"parents": [row]}}, "gateway", subresource="status")
    assert answer.ok, answer.message


def test_what_somebody_adds_goes_with_the_next_write(cluster: KubeCluster, api: Api) -> None:
    Objects(cluster).make(manifest(0))
    (rule,) = manifest(0)["spec"]["rules"]
    edit = {"rules": [{**rule, "timeouts": {"request": "1s"}}, {"backendRefs": [{"name": "other", "port": 80}]}]}
    patch = api.request("PATCH", path_of(manifest(0)), {"spec": edit}, "application/merge-patch+json")
    assert patch.ok, patch.message
    repair = Objects(cluster).ensure(manifest(0), cluster.get("HTTPRoute", SPACE, "docs"))
    assert repair is not None
    view = route_view(cluster.get("HTTPRoute", SPACE, "docs"), "", [], [], index(NEW).uid)
    assert view.weights == {"docs": 100}
