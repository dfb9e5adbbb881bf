"""Pods as a VectorIndex describes them, judged by a real API server: what it says, and that nothing is made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from control_plane import Api, ControlPlane, Json
from kubernetes import client
from observations import SETTINGS, index, spec
from unit.test_pods_of_a_platform import OF, POD, build_job, frozen

from vectorindex_operator.adapters.kube import KubeCluster
from vectorindex_operator.manifests import searchers
from vectorindex_operator.reconcile.errors import InvalidError

NAMESPACE = "team-a"
TERM = "nodeSelectorTerms"


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> Iterator[KubeCluster]:
    namespace: Json = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    assert control_plane.api.apply(namespace).ok
    configuration = client.Configuration(host=control_plane.api.url)
    configuration.ssl_ca_cert = str(control_plane.folder / "certificates" / "apiserver.crt")
    configuration.api_key = {"authorization": "Bearer admin"}
    one = KubeCluster(client.ApiClient(configuration))
    yield one
    one.api.close()


def trial(**pod: Any) -> Json:
    of = spec(searcher={"pod": POD | pod})
    return searchers.trial(of, index(of), SETTINGS)


def test_good_pods_are_taken_and_not_made(cluster: KubeCluster) -> None:
    cluster.judge(trial())
    assert cluster.get("Deployment", NAMESPACE, "docs-trial") is None


def test_one_that_is_there_does_not_matter(cluster: KubeCluster, api: Api) -> None:
    assert api.apply(trial()).ok
    cluster.judge(trial())
    with pytest.raises(InvalidError):
        cluster.judge(trial(affinity={"nodeAffinities": {}}))


@pytest.mark.parametrize(
    ("pod", "says"),
    [
        ({"affinity": {"nodeAffinities": {}}}, 'unknown field "spec.template.spec.affinity.nodeAffinities"'),
        ({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {TERM: []}}}}, TERM),
        ({"affinity": {"nodeAffinity": "nvme"}}, "NodeAffinity"),
        ({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "x"}]}, "maxSkew"),
        ({"labels": {"team": "two words"}}, "spec.template.labels"),
        ({"annotations": {"a b": "x"}}, "spec.template.annotations"),
        ({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nothing"}}}]}, "fieldPath"),
        ({"volumes": [{"name": "ca", "configMap": {}}]}, "configMap.name"),
    ],
)
def test_a_mistake_is_told_in_the_servers_own_words(cluster: KubeCluster, pod: Json, says: str) -> None:
    with pytest.raises(InvalidError, match=r"^4(00|22) ") as refused:
        cluster.judge(trial(**pod))
    assert says in str(refused.value)


def test_the_job_and_the_revision_are_taken_as_they_are_rendered(cluster: KubeCluster) -> None:
    cluster.judge(build_job(OF))
    cluster.judge(frozen(OF))
