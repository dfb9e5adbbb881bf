"""The smallest manifest, from apply to an index that answers and that nobody touches any more."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import urllib3
from e2e.operator_release import Operator
from e2e.vectors import Corpus
from e2e.workspace import SMALL, MakeWorkspace, Workspace, merged

from harness.errors import WaitTimeout
from harness.kube import KubeError

IDLE_SECONDS = 60
REPLICAS = 2


@pytest.fixture(scope="module")
def index(make_workspace: MakeWorkspace, corpus: Corpus) -> Iterator[Workspace]:
    """The smallest manifest; the default requests would not fit twice on a machine of two cores."""
    space = make_workspace("first-revision")
    space.put("good", corpus)
    fits = {"spec": {"searcher": {"resources": SMALL}, "build": {"resources": SMALL}}}
    space.index.apply(merged(space.smallest("good"), fits))
    space.index.wait_condition("RolledOut", timeout=180)
    yield space
    space.retire()


def test_kubectl_wait_returns_and_the_status_says_what_serves(index: Workspace) -> None:
    said = index.kube.kubectl(
        "-n", index.namespace, "wait", f"vix/{index.index.name}", "--for=condition=RolledOut", "--timeout=5s"
    )
    assert "condition met" in said
    status = index.index.status()
    stable = status["stable"]
    assert stable == index.index.traffic(), index.index.explain()
    assert status["phase"] == "Stable"
    assert status["ready"] == f"{REPLICAS}/{REPLICAS}"
    assert float(status["recall"]) == 1.0, "small data is searched exactly"
    assert [row["outcome"] for row in status["history"]] == ["Stable"]
    revision = index.index.revision(stable)
    assert revision["build"]["factory"] == "Flat"
    assert revision["report"]["overall"]["queries"] >= 300
    row = index.kube.kubectl("-n", index.namespace, "get", "vix").splitlines()[1].split()
    assert {stable, "Stable", "2/2", "True"} <= set(row), row


def test_answers_are_those_of_exact_search(index: Workspace, corpus: Corpus) -> None:
    for query in corpus.queries(40):
        answer = index.ask(query, k=10)
        right = corpus.nearest(query, 10)
        assert answer["revision"] == index.index.status()["stable"]
        (found,) = answer["results"]
        assert found["ids"] == [name for name, _ in right]
        assert found["scores"] == pytest.approx([score for _, score in right], abs=1e-5)


def test_every_answer_names_its_revision_in_a_header(index: Workspace, corpus: Corpus) -> None:
    if not index.kube.cluster.direct:
        pytest.skip("this machine does not reach ClusterIPs here; the API server's proxy would answer for the Service")
    service = index.index.service()
    assert service is not None
    url = f"http://{service['spec']['clusterIP']}/v1/search"
    body = {"vector": corpus.queries(1)[0].tolist()}
    answer = urllib3.request("POST", url, json=body, timeout=10.0)
    assert answer.status == 200
    assert answer.headers["X-VectorIndex-Revision"] == index.index.traffic()


def test_conditions_follow_kstatus(index: Workspace) -> None:
    seen = index.index.get()
    generation = seen["metadata"]["generation"]
    conditions = {c["type"]: c for c in seen["status"]["conditions"]}
    assert seen["status"]["observedGeneration"] == generation
    assert {c["observedGeneration"] for c in conditions.values()} == {generation}
    values = {kind: c["status"] for kind, c in conditions.items()}
    assert values["Ready"] == values["RolledOut"] == values["DatasetResolved"] == "True"
    assert values["Built"] == values["Validated"] == "True"
    assert values["RollbackPossible"] == "False"
    assert not {"Reconciling", "Stalled"} & set(values), "these are there only while they are True"


def test_pods_run_under_pod_security_restricted(index: Workspace) -> None:
    labels = (index.kube.get("Namespace", index.namespace) or {})["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    root = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root", "namespace": index.namespace}}
    with pytest.raises(KubeError, match="violates PodSecurity"):
        index.kube.apply(root | {"spec": {"containers": [{"name": "c", "image": "x:1"}]}}, dry_run=True)
    pods = index.index.pods()
    verbs = {pod["metadata"]["labels"].get("vectorindex.dev/verb", "searcher") for pod in pods}
    assert verbs == {"resolve", "build", "validate", "searcher"}
    for pod in pods:
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def test_an_idle_index_costs_no_write(index: Workspace, operator: Operator) -> None:
    """A write that changes nothing leaves no trace on an object, so the operator's own count is asked too."""

    def others(*, leaving: bool = False) -> list[str]:
        """Other indexes of this operator; with `leaving`, only those whose namespace is on its way out."""
        names = [one["metadata"] for one in operator.kube.list("VectorIndex")]
        others = [(one["namespace"], one["name"]) for one in names if one["namespace"] != index.namespace]
        if leaving:
            spaces = [one["metadata"] for one in operator.kube.list("Namespace")]
            going = {one["name"] for one in spaces if "deletionTimestamp" in one}
            others = [one for one in others if one[0] in going]
        return ["/".join(one) for one in others]

    def versions() -> dict[str, str]:
        mine = [index.index.get(), *index.index.children(), *index.kube.list("Event", index.namespace)]
        seen = {f"{one.get('kind')}/{one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in mine}
        writes = operator.metric("vectorindex_api_writes_total") if alone else {}
        return seen | {f"writes {kind}": str(count) for kind, count in writes.items()}

    with contextlib.suppress(WaitTimeout):  # those of the tests before this one
        index.kube.wait_for(lambda: not others(leaving=True), 60, "the other indexes to go")
    alone = not others()
    before = operator.passes()
    index.hold(versions, IDLE_SECONDS, "nothing is written about an idle index")
    assert operator.passes() != before, "the operator never looked"
    if not alone:
        pytest.skip(f"no object changed, but writes cannot be counted: {', '.join(others())} share the operator")


def test_the_scale_subresource_moves_the_searchers(index: Workspace) -> None:
    name = index.index.name
    index.kube.kubectl("-n", index.namespace, "scale", f"vix/{name}", "--replicas=1")
    stable = index.index.traffic()
    index.index.wait(
        lambda: index.index.status()["ready"] == "1/1" and len(index.index.pods(stable)) == 1, 60, "one searcher"
    )
    status, scale = index.kube.call(
        "GET", f"/apis/vectorindex.dev/v1alpha1/namespaces/{index.namespace}/vectorindexes/{name}/scale"
    )
    assert status == 200
    assert scale["spec"]["replicas"] == scale["status"]["replicas"] == 1
    chosen = index.kube.list("Pod", index.namespace, scale["status"]["selector"])
    assert [pod["metadata"]["name"] for pod in chosen] == [p["metadata"]["name"] for p in index.index.pods(stable)]
    assert len(index.index.revisions()) == 1, "the number of replicas is no property of a revision"
