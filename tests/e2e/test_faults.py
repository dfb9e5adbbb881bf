"""What users get wrong and clusters lack: said with name, place and remedy, and gone when it is mended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from e2e.operator_release import Operator
from e2e.vectors import Corpus
from e2e.workspace import SECRET, Workspace

from harness.kube import Json

GPU = "nvidia.com/gpu"
BAD_ROW = 1234
FIRST_WAIT_SECONDS = 60
"""How long the operator waits before it lists a source again that could not be read."""


@pytest.mark.together("without traffic")
def test_a_missing_bucket_is_named_and_found_once_it_is_there(workspace: Workspace, corpus: Corpus) -> None:
    index, bucket = workspace.index, f"{workspace.bucket}-later"
    workspace.apply("good", source={"s3": {"bucket": bucket}})
    stalled = index.wait_condition("Stalled", reason="BucketNotFound", timeout=120)
    assert bucket in stalled["message"]
    assert "spec.source.s3.bucket" in stalled["message"]
    assert index.condition("DatasetResolved")["status"] == "False"
    assert index.condition("Ready")["reason"] == "NoRevision"
    assert not index.revisions()

    workspace.store.make_bucket(bucket)
    try:
        workspace.store.put(bucket, "good/part-0.parquet", corpus.parquet())
        index.verb("retry", "bucket-is-there")
        index.wait_condition("RolledOut")
        (verb,) = index.status()["verbs"]
        assert (verb["verb"], verb["result"]) == ("retry", "Done")
    finally:
        workspace.store.remove_bucket(bucket)


@pytest.mark.together("without traffic")
def test_a_nan_row_is_named_and_its_repair_is_picked_up_by_itself(workspace: Workspace, corpus: Corpus) -> None:
    index, vectors = workspace.index, corpus.vectors.copy()
    vectors[BAD_ROW, 7] = np.nan
    workspace.put("good", Corpus.make(100, seed=7, name="others"), "part-0.parquet")
    workspace.put("good", replace(corpus, vectors=vectors), "part-1.parquet")
    workspace.apply("good")
    stalled = index.wait_condition("Stalled", reason="NonFiniteVector", timeout=120)
    for word in ("part-1.parquet", f"row {BAD_ROW}", "NaN"):
        assert word in stalled["message"], stalled["message"]
    (bad,) = index.revisions()
    workspace.hold(workspace.work, 30, "bad data is not built again and again")

    workspace.put("good", corpus, "part-1.parquet")
    fixed = index.wait_new_revision({bad}, timeout=FIRST_WAIT_SECONDS + 60)
    index.wait_condition("RolledOut")
    assert index.status()["stable"] == fixed
    builds = [job["metadata"]["labels"]["vectorindex.dev/revision"] for job in index.jobs("build")]
    assert sorted(builds) == sorted([bad, fixed]), "each was built once, however often the source was listed"
    assert not index.status().get("verbs"), "nobody asked for it"


@pytest.mark.together("without traffic")
def test_a_missing_secret_blocks_and_is_named(workspace: Workspace, corpus: Corpus) -> None:
    index = workspace.index
    workspace.kube.delete("Secret", SECRET, workspace.namespace)
    workspace.put("good", corpus)
    workspace.apply("good")
    row = index.wait(lambda: _blocked(workspace, "JobWaiting"), 90, "to say which Secret is missing")
    assert f"Secret/{SECRET}" in row["message"]
    assert index.condition("Reconciling")["status"] == "True"
    assert not index.condition("Stalled"), "a Secret may come any moment: nothing has failed"
    workspace.make_secret()
    index.wait_condition("RolledOut")
    assert not index.status().get("blockedBy")


@pytest.mark.together("without traffic")
def test_deleted_in_the_middle_of_a_build_everything_goes_but_the_artifacts(
    served: Workspace, corpus: Corpus, operator: Operator
) -> None:
    index, first = served.index, served.index.traffic()
    served.put("next", corpus.moved())
    served.apply("next")
    second = index.wait_new_revision({first})
    index.wait_revision(second, "Building")
    artifacts = set(served.store.keys(served.bucket, "indexes/"))
    assert any(key.endswith("manifest.json") for key in artifacts)

    served.kube.delete("VectorIndex", index.name, served.namespace)
    kinds = served.kube.kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    listable = ",".join(kind for kind in kinds if "events" not in kind)

    def left() -> str:
        label = f"vectorindex.dev/index={index.name}"
        return served.kube.kubectl("-n", served.namespace, "get", listable, "-l", label, "-o", "name").strip()

    served.kube.wait_for(lambda: not left(), 90, f"everything of {index.name} to go", last_seen=left)
    served.kube.wait_gone("VectorIndex", index.name, served.namespace, 10)
    assert artifacts <= set(served.store.keys(served.bucket, "indexes/")), "deletionPolicy is Retain"
    labels = f'name="{index.name}",namespace="{served.namespace}"'
    served.kube.wait_for(
        lambda: not any(labels in row for row in operator.metric("vectorindex_condition")), 90, "its metrics to go"
    )


def test_a_gpu_build_asks_for_the_gpu_and_says_what_is_wrong_with_it(workspace: Workspace, corpus: Corpus) -> None:
    with _claimed_gpu(workspace):
        workspace.put("good", corpus)
        workspace.apply("good", build={"device": "GPU"})
        pod = workspace.index.wait(lambda: _build_pod(workspace), 90, "the pod of the build")
        resources = pod["spec"]["containers"][0]["resources"]
        assert resources["limits"][GPU] == resources["requests"][GPU] == "1"
        tolerations = {(t.get("key"), t.get("operator"), t.get("effect")) for t in pod["spec"]["tolerations"]}
        assert (GPU, "Exists", "NoSchedule") in tolerations
        # Nothing is behind the claimed GPU, and the CPU image's FAISS says so.
        built = workspace.index.wait_condition("Built", "False", reason="GPUNotFound", timeout=90)
        assert "spec.build.device" in built["message"]
        pod = _build_pod(workspace)
        assert pod is not None
        assert pod["spec"]["nodeName"], "it was scheduled onto the node with the GPU"


def test_a_preferred_gpu_that_does_not_come_falls_back_to_the_cpu(workspace: Workspace, corpus: Corpus) -> None:
    if any(GPU in node["status"]["allocatable"] for node in workspace.kube.list("Node")):
        pytest.skip(f"a node has {GPU}")
    workspace.put("good", corpus)
    workspace.apply("good", build={"device": "PreferGPU"})
    row = workspace.index.wait(
        lambda: _blocked(workspace, "Unschedulable"), 90, "to say that nothing can run its build"
    )
    assert GPU in row["message"]
    assert not workspace.has_event("BuildFellBackToCPU"), "five minutes are not over"
    _unschedulable_for(workspace, minutes=6)
    workspace.index.wait_condition("RolledOut", timeout=120)
    build = workspace.index.revision(workspace.index.traffic())["build"]
    assert build["device"] == "CPU"
    assert "unschedulable" in build["deviceReason"]
    assert workspace.has_event("BuildFellBackToCPU")


def _blocked(space: Workspace, rule: str) -> Json | None:
    return next((row for row in space.index.status().get("blockedBy", []) if row["rule"] == rule), None)


def _build_pod(space: Workspace) -> Json | None:
    pods = [pod for pod in space.index.pods() if pod["metadata"]["labels"].get("vectorindex.dev/verb") == "build"]
    return pods[0] if pods else None


@contextmanager
def _claimed_gpu(space: Workspace) -> Iterator[None]:
    """The first node claims one GPU; with CLUSTER=current only a real one will do."""
    node = space.kube.list("Node")[0]
    if GPU in node["status"]["allocatable"]:
        yield
        return
    if space.kube.cluster.name == "current":
        pytest.skip(f"no node has {GPU}, and this cluster's nodes are not ours to change")

    def claim(count: str | None) -> None:
        space.kube.patch("Node", node["metadata"]["name"], "", _capacity(count), subresource="status")

    claim("1")
    try:
        yield
    finally:
        claim(None)


def _capacity(count: str | None) -> Json:
    return {"status": {"capacity": {GPU: count}, "allocatable": {GPU: count}}}


def _unschedulable_for(space: Workspace, minutes: int) -> None:
    """Dates the scheduler's verdict on the build's pod back: five minutes are too long for a test."""
    pod = _build_pod(space)
    assert pod is not None
    since = (datetime.now(UTC) - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = [
        c | ({"lastTransitionTime": since} if c["type"] == "PodScheduled" else {}) for c in pod["status"]["conditions"]
    ]
    change = {"status": {"conditions": conditions}}
    space.kube.patch("Pod", pod["metadata"]["name"], space.namespace, change, subresource="status")
