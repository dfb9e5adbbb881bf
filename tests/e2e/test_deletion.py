"""`artifacts.deletionPolicy: Delete`: of an index that is deleted nothing stays in the bucket, and nothing hangs."""

from __future__ import annotations

import time

import pytest
from e2e.operator_release import Operator
from e2e.vectors import Corpus
from e2e.workspace import NAME, Workspace

from harness.kube import Json

DELETES = {"artifacts": {"deletionPolicy": "Delete"}}
GONE_SECONDS = 120
"""Pods end (their grace is the longest part), a Job removes, finalizers go."""


@pytest.mark.together("without traffic")
def test_deleted_in_the_middle_of_a_build_it_leaves_no_object(workspace: Workspace, corpus: Corpus) -> None:
    index = workspace.index
    workspace.put("good", corpus)
    theirs = f"indexes/{workspace.namespace}/{NAME}-2/0123/manifest.json", f"indexes/{NAME}/readme.txt"
    for key in theirs:
        workspace.store.put(workspace.bucket, key, b"of somebody else")
    workspace.apply("good", **DELETES)
    first = index.wait_new_revision(set())
    index.wait_revision(first, "Building")
    index.wait(lambda: any(pod["status"]["phase"] == "Running" for pod in _builders(workspace)), 90, "a build to run")
    assert workspace.stored(), "at least the listing of the source is there"
    _delete(workspace)
    assert workspace.stored() == set()
    assert {*theirs, "good/part-0.parquet"} == set(workspace.store.keys(workspace.bucket))
    _told(workspace, "ArtifactsRemoved")


# ---------------------------------------------------------------- what is looked at


def _delete(space: Workspace, policy: str = "Background", seconds: float = GONE_SECONDS) -> None:
    """Deletes the index; returns when it and its revisions are gone."""
    began = time.monotonic()
    space.kube.delete("VectorIndex", NAME, space.namespace, policy=policy)
    space.kube.wait_gone("VectorIndex", NAME, space.namespace, seconds if policy == "Foreground" else 10)
    space.kube.wait_for(
        lambda: not space.index.revisions(),
        seconds,
        "the revisions to be let go",
        last_seen=lambda: f"{space.index.revisions()}\n{Operator.log_of(space.kube, space.namespace)}",
    )
    print(f"{policy}: gone after {time.monotonic() - began:.0f} s")


def _told(space: Workspace, reason: str) -> str:
    """What the one Event about the end of the artifacts says; it is about an index that is gone."""
    said = space.kube.wait_for(
        lambda: [one for one in space.index.events() if one["reason"] in ("ArtifactsRemoved", "ArtifactLeft")],
        30,
        f"an Event {reason}",
    )
    assert [one["reason"] for one in said] == [reason], said
    return str(said[0]["note"])


def _builders(space: Workspace) -> list[Json]:
    return [pod for pod in space.index.pods() if pod["metadata"]["labels"].get("vectorindex.dev/verb") == "build"]
