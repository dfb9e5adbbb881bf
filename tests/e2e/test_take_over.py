"""The namespace is lost with all objects. What was decided lies in the bucket: the same manifest goes on from it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from e2e.vectors import Corpus
from e2e.workspace import Workspace, no_failures

from harness import release
from harness.base import Cluster
from harness.images import Images
from harness.kube import Kube

NAMESPACE, CLASS = "vectorindex-keeps", "keeps"
ANNOTATION = "vectorindex.dev/operator-class"


@pytest.fixture
def keeper(cluster: Cluster, kube: Kube, images: Images) -> Iterator[None]:
    """A second operator, with `outcomes: true`: the others' indexes stay as they are."""
    release.install_beside(cluster, images, CLASS, NAMESPACE, "--set", "outcomes=true")
    yield
    cluster.helm("uninstall", CLASS, "--namespace", NAMESPACE, "--wait", timeout=300)
    kube.delete("Namespace", NAMESPACE)


def apply(space: Workspace, folder: str) -> None:
    manifest = space.manifest(folder)
    manifest["metadata"]["annotations"] = {ANNOTATION: CLASS}
    space.index.apply(manifest)


@pytest.mark.long
@pytest.mark.usefixtures("keeper")
def test_the_same_manifest_serves_again_without_a_build_and_tries_nothing_that_was_rejected(
    workspace: Workspace, corpus: Corpus
) -> None:
    index, kube = workspace.index, workspace.kube
    for folder, data in (("good", corpus), ("better", corpus.moved()), ("bad", corpus.spoiled(0.5))):
        workspace.put(folder, data)
    apply(workspace, "good")
    index.wait_condition("RolledOut", timeout=240)
    first = index.traffic()
    with workspace.traffic(corpus) as traffic:
        apply(workspace, "better")
        second = index.wait_new_revision({first})
        index.wait_revision(second, "Stable")
        apply(workspace, "bad")
        bad = index.wait_new_revision({first, second})
        index.wait_revision(bad, "RolledBack")
        seen = traffic.snapshot()
    no_failures(seen)
    index.wait(lambda: all(index.revision(one).get("recorded") for one in (first, second, bad)), 60, "to be written")
    index.wait(lambda: not index.jobs("outcomes"), 30, "its Job to be gone")
    why, built, uid = index.revision(bad)["rejected"], workspace.built().total(), index.get()["metadata"]["uid"]

    kube.delete("Namespace", workspace.namespace)
    kube.wait_gone("Namespace", workspace.namespace, timeout=120)
    kube.ensure_namespace(workspace.namespace, **{"vectorindex.dev/e2e": "true"})
    workspace.make_secret()
    apply(workspace, "bad")
    began = time.monotonic()
    index.wait(lambda: index.traffic() == second, 120, "what was stable to have the traffic")
    index.wait(lambda: index.condition("Ready")["status"] == "True", 60, "to be ready")
    print(f"serves {time.monotonic() - began:.1f} s after the manifest was applied")
    assert index.get()["metadata"]["uid"] != uid
    assert workspace.ask(corpus.queries()[0])["results"][0]["ids"]

    index.wait_condition("Stalled", reason="RolledBack")
    said = index.revision(bad)["rejected"]
    assert (said["reason"], said["at"]) == (why["reason"], why["at"])
    assert said["message"].startswith(why["message"])
    assert {one: index.revision(one)["phase"] for one in (first, second)} == {first: "Retired", second: "Stable"}
    index.touch("1")
    workspace.hold(lambda: (workspace.work(), index.traffic(), index.revisions().keys()), 8, "nothing is tried")
    assert (workspace.work(), workspace.built().total()) == (set(), built), "neither built nor measured"
    assert index.condition("RollbackPossible")["status"] == "True"

    assert workspace.say("rollback", "back-1")["result"] == "Done"
    index.wait(lambda: index.traffic() == first, 120, "to go back to what it never rolled out itself")
    assert workspace.ask(corpus.queries()[0])["results"][0]["ids"]
