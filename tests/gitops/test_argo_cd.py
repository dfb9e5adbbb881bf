"""A real Argo CD applies an index and the chart from Git: what people see, and what self-heal does about it.

The statuses are those that the real loop wrote in the simulator: there is no operator here, only an API server.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import yaml
from argo_states import STATES, disabled, health_of
from chart import CHART
from gitops import applications
from gitops.argocd import ArgoCD

from argocd_files import KIND
from vectorindex_operator.core.commands import COMMANDS

Json = dict[str, Any]
APP, NAMESPACE, NAME = "indexes", "search", "products"
FILE = "indexes/products.yaml"
LOOKS = 3
"""How often Argo CD looks again, where nothing may come of it."""


def application(name: str) -> Json:
    """One of the page; it deletes in the background, as nobody collects garbage here."""
    return applications.application(name, f"{applications.FINALIZER}/background")


def recorded(name: str) -> Json:
    found: Json = yaml.safe_load((KIND / STATES[name].path).read_text(encoding="utf-8"))
    return found


def in_git(**spec: Any) -> Json:
    at_rest = recorded("at_rest")
    meta = {"name": NAME, "namespace": NAMESPACE}
    return {
        "apiVersion": at_rest["apiVersion"],
        "kind": "VectorIndex",
        "metadata": meta,
        "spec": at_rest["spec"] | spec,
    }


def live(argo: ArgoCD) -> Json:
    path = f"/apis/vectorindex.dev/v1alpha1/namespaces/{NAMESPACE}/vectorindexes/{NAME}"
    answer = argo.plane.api.get(path)
    return answer.body if answer.ok else {}


def says(argo: ArgoCD, name: str) -> Json:
    """The operator writes the status of a state; the object as Argo CD sees it then."""
    status, generation = copy.deepcopy(recorded(name)["status"]), live(argo)["metadata"]["generation"]
    for one in (status, *status["conditions"]):
        one["observedGeneration"] = generation
    written = {**in_git(), "status": status}
    del written["spec"]
    answer = argo.plane.api.apply(written, "operator", subresource="status", force=True)
    assert answer.ok, answer.message
    return answer.body


def synced(argo: ArgoCD, health: str) -> None:
    argo.wait(f"{APP} to be Synced and {health}", lambda: argo.states(APP) == ("Synced", health), name=APP)


def refreshed(argo: ArgoCD, health: Json) -> bool:
    """Whether this is what is shown after a refresh: a message alone makes Argo CD look at nothing."""
    argo.refresh(APP)
    shown = argo.health(APP, NAME)
    return {key: shown.get(key) for key in health} == health


def syncs(argo: ArgoCD) -> int:
    return len(argo.get(APP)["status"].get("history", ()))


@pytest.fixture
def index(argo: ArgoCD) -> Iterator[Json]:
    """The index of Git, synced and stable."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    assert argo.plane.api.apply(namespace).ok
    argo.commit({FILE: in_git()})
    argo.apply(application(APP), "indexes")
    synced(argo, "Progressing")
    says(argo, "at_rest")
    synced(argo, "Healthy")
    yield live(argo)
    argo.delete(APP)
    assert not live(argo), "what an Application deployed goes with it"


def test_each_state_is_shown_and_self_heal_leaves_it(argo: ArgoCD, index: Json) -> None:
    before = syncs(argo)
    for name, state in STATES.items():
        if name in ("nobody_looked", "edited_just_now"):
            continue
        obj = says(argo, name)
        expected = health_of(obj)
        synced(argo, state.health)
        argo.wait(f"the message of {name}", partial(refreshed, argo, expected), 20, name=APP)
        assert argo.actions(APP, NAMESPACE, NAME) == disabled(obj), name
    for _ in range(LOOKS):
        argo.refresh(APP)
    assert argo.states(APP)[0] == "Synced"
    assert syncs(argo) == before, "self-heal wrote something"
    assert live(argo)["metadata"]["generation"] == index["metadata"]["generation"]


def test_actions_are_requests_and_no_difference(argo: ArgoCD, index: Json) -> None:
    before = syncs(argo)
    for action in COMMANDS:
        argo.act(APP, NAMESPACE, NAME, action)
    marks = {f"vectorindex.dev/{action}" for action in COMMANDS}
    found = live(argo)["metadata"]["annotations"]
    assert marks <= found.keys()
    assert all(found[mark].startswith("argocd-") for mark in marks)
    for _ in range(LOOKS):
        argo.refresh(APP)
    assert (argo.states(APP), syncs(argo)) == (("Synced", "Healthy"), before)
    assert marks <= live(argo)["metadata"]["annotations"].keys()


COMPARED = {
    "by what was applied": (False, []),
    "by the server": (True, []),
    "by the server, which also applies": (True, ["ServerSideApply=true"]),
}


def compared(argo: ArgoCD, by_server: bool, options: list[str]) -> None:
    """Have the Application compare in a way, and edit lists in Git: what these leave out the API server adds."""
    made = application(APP)
    made["metadata"]["annotations"] = {"argocd.argoproj.io/compare-options": f"ServerSideDiff={str(by_server).lower()}"}
    made["spec"]["syncPolicy"]["syncOptions"] = options
    argo.apply(made, "indexes")
    argo.commit({FILE: in_git(searcher={"replicas": 2, "pod": {"tolerations": [{"key": "gpu"}]}})})
    argo.refresh(APP)
    argo.wait("the edit to arrive", lambda: live(argo)["spec"]["searcher"]["pod"]["tolerations"], name=APP)


@pytest.mark.parametrize("way", COMPARED)
def test_it_stays_synced_however_argo_cd_compares(argo: ArgoCD, index: Json, way: str) -> None:
    compared(argo, *COMPARED[way])
    synced(argo, "Progressing")
    says(argo, "at_rest")
    synced(argo, "Healthy")
    before, generation = syncs(argo), live(argo)["metadata"]["generation"]
    for _ in range(LOOKS):
        argo.refresh(APP)
        assert argo.states(APP) == ("Synced", "Healthy")
    assert (syncs(argo), live(argo)["metadata"]["generation"]) == (before, generation)


def test_applied_by_the_server_and_not_compared_by_it_an_index_is_never_synced(argo: ArgoCD, index: Json) -> None:
    """A fault of Argo CD's, which docs/gitops.md tells. If this fails, the page is too careful."""
    compared(argo, False, ["ServerSideApply=true"])
    for _ in range(LOOKS):
        argo.refresh(APP)
    assert argo.states(APP)[0] == "OutOfSync"


def test_a_bad_revision_is_degraded_with_its_numbers_until_git_goes_back(argo: ArgoCD, index: Json) -> None:
    argo.commit({FILE: in_git(index={"factory": "B"})})
    argo.refresh(APP)
    argo.wait("the edit to arrive", lambda: live(argo)["spec"]["index"]["factory"] == "B", name=APP)
    synced(argo, "Progressing")
    assert (
        "has not looked at generation" in argo.wait("its health", lambda: argo.health(APP, NAME), name=APP)["message"]
    )
    says(argo, "rejected")
    synced(argo, "Degraded")
    assert "the limit is 0.95" in argo.health(APP, NAME)["message"]
    before = syncs(argo)
    for _ in range(LOOKS):
        argo.refresh(APP)
    assert (argo.states(APP), syncs(argo)) == (("Synced", "Degraded"), before)
    argo.commit({FILE: in_git()})
    argo.refresh(APP)
    argo.wait("the way back", lambda: live(argo)["spec"]["index"]["factory"] == "A", name=APP)
    says(argo, "at_rest")
    synced(argo, "Healthy")


def test_what_somebody_edits_by_hand_is_put_back(argo: ArgoCD, index: Json) -> None:
    """That self-heal does nothing in the other tests is no lack of self-heal, and what it does is counted."""
    applied = argo.applied()
    patch = {"spec": {"history": 7}}
    path = f"/apis/vectorindex.dev/v1alpha1/namespaces/{NAMESPACE}/vectorindexes/{NAME}"
    assert argo.plane.api.request("PATCH", path, patch, "application/merge-patch+json").ok
    argo.refresh(APP)
    argo.wait("self-heal", lambda: live(argo)["spec"]["history"] == in_git()["spec"]["history"], name=APP)
    argo.wait("its end", lambda: (argo.applied() - applied).keys() >= {"kubectl_exec apply", f"app_sync {APP}"})


def test_the_chart_is_synced_and_stays_so(argo: ArgoCD) -> None:
    shutil.copytree(CHART, argo.repository / "chart", ignore=shutil.ignore_patterns("testdata"))
    argo.commit({})
    name = "vectorindex-operator"
    made = application(name)
    made["spec"]["source"]["helm"]["valuesObject"]["metrics"] = {"dashboards": {"enabled": True}}
    argo.apply(made, "chart")
    argo.wait("the chart to be Synced", lambda: argo.states(name)[0] == "Synced", name=name)
    objects = argo.plane.kubectl("-n", "vectorindex-system", "get", "deployments,jobs,configmaps", "-o", "name").stdout
    assert "deployment.apps/vectorindex" in objects
    assert "job" not in objects.split("configmap")[0].replace("deployment.apps", ""), (
        "a pre-delete hook is no part of it"
    )
    before = len(argo.get(name)["status"]["history"])
    for _ in range(LOOKS):
        argo.refresh(name)
        assert argo.states(name)[0] == "Synced"
    assert len(argo.get(name)["status"]["history"]) == before
    argo.delete(name)
    left = argo.plane.kubectl("-n", "vectorindex-system", "get", "deployments", "-o", "name").stdout
    assert left == ""
    assert argo.plane.api.get(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/vectorindexes.vectorindex.dev"
    ).ok
