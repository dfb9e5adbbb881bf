"""Two releases of the chart in one cluster: an index belongs to one of them, and changes hands only when told to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from e2e.vectors import Corpus
from e2e.workspace import Workspace, no_failures
from rights import refused

from harness import audit, release
from harness.base import Cluster
from harness.errors import LackingError
from harness.images import Images
from harness.kube import Kube

NAMESPACE, CLASS = "vectorindex-next", "next"
ANNOTATION = "vectorindex.dev/operator-class"
QUIET_SECONDS = 20


@pytest.fixture
def second_release(cluster: Cluster, kube: Kube, images: Images) -> Iterator[Callable[[], None]]:
    """Uninstalls it, once; it is gone after the test."""
    release.install_beside(cluster, images, CLASS, NAMESPACE)
    began, lacking = time.time(), list[Any]()

    def uninstall() -> None:
        if lacking:
            return
        lacking.append({})
        with contextlib.suppress(LackingError):  # a cluster without an audit log; roles go before the pod that has them
            lacking[0] = refused(audit.events(cluster, NAMESPACE, began))
        cluster.helm("uninstall", CLASS, "--namespace", NAMESPACE, "--wait", timeout=300)

    yield uninstall
    uninstall()
    kube.delete("Namespace", NAMESPACE)
    assert lacking == [{}]


def test_an_index_changes_hands_when_told_to_and_nobody_fights_over_it(
    served: Workspace, corpus: Corpus, second_release: Callable[[], None]
) -> None:
    index = served.index

    def versions() -> dict[str, str]:
        seen = [index.get(), *index.children()]
        return {f"{one.get('kind')}/{one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in seen}

    def settled(searchers: int) -> None:
        """Each release signs with a key of its own, so searchers are replaced when an index changes hands."""
        ready = f"{searchers}/{searchers}"

        def rests() -> bool:
            pods = index.pods(index.traffic())
            return index.status()["ready"] == ready and len(pods) == searchers and not index.condition("Reconciling")

        index.wait(rests, 150, f"{searchers} searchers, and none that starts or drains")

    def handed_to(operator: str, searchers: int) -> None:
        index.patch({"metadata": {"annotations": {ANNOTATION: operator}}})
        index.wait(lambda: index.status().get("operator") == operator, 60, f"to be claimed by {operator}")
        index.wait_condition("UpToDate", timeout=150)
        settled(searchers)
        served.hold(versions, QUIET_SECONDS, "nobody writes over the other")

    assert index.status()["operator"] == "default"
    served.hold(versions, QUIET_SECONDS, "the other one leaves it alone")
    with served.traffic(corpus) as traffic:
        handed_to(CLASS, searchers=1)
        index.patch({"spec": {"searcher": {"replicas": 2}}})
        settled(2)
        handed_to("default", searchers=2)
        seen = traffic.snapshot()
    no_failures(seen, at_least=1000)
    assert served.built().total() == 1


@pytest.mark.long
def test_a_release_that_is_uninstalled_keeps_nothing_from_being_deleted(
    workspace: Workspace, corpus: Corpus, second_release: Callable[[], None]
) -> None:
    """Searchers serve on; the finalizers, which only this release would have taken off, are gone before it is."""
    index, kube = workspace.index, workspace.kube
    workspace.put("good", corpus)
    manifest = workspace.manifest("good", artifacts={"deletionPolicy": "Delete"})
    manifest["metadata"]["annotations"] = {ANNOTATION: CLASS}
    index.apply(manifest)
    index.wait_condition("RolledOut", timeout=240)

    def finalizers() -> set[str]:
        found = [item["metadata"].get("finalizers", []) for item in index.revisions().values()]
        return {one for some in found for one in some}

    assert finalizers() == {f"vectorindex.dev/artifacts.{CLASS}"}
    artifacts = workspace.stored()
    with workspace.traffic(corpus) as traffic:
        began = time.monotonic()
        second_release()
        print(f"uninstalled after {time.monotonic() - began:.0f} s")
        assert finalizers() == set()
        workspace.hold(finalizers, 10, "nobody puts them back")
        seen = traffic.snapshot()
    no_failures(seen, at_least=1000)
    kube.delete("VectorIndex", index.name, workspace.namespace)
    kube.wait_for(lambda: not index.revisions(), 60, "the revisions to go", last_seen=lambda: str(index.revisions()))
    assert workspace.stored() == artifacts, "there is nobody who would remove them"
