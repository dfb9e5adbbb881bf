"""`artifacts.deletionPolicy: Delete`: of an index that is deleted nothing stays in the bucket, and nothing hangs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from e2e.operator_release import Operator
from e2e.vectors import Corpus, bodies
from e2e.workspace import NAME, Workspace, no_failures

from harness import traffic as load
from harness.kube import Json
from harness.vix import VectorIndexHandle

DELETES = {"artifacts": {"deletionPolicy": "Delete"}}
GONE_SECONDS = 120
"""Pods end (their grace is the longest part), a Job removes, finalizers go."""
SERVED_SECONDS = 240


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


@pytest.mark.long
@pytest.mark.together("long stories")
def test_deleted_in_the_foreground_beside_another_that_serves_on(workspace: Workspace, corpus: Corpus) -> None:
    index, other = workspace.index, VectorIndexHandle(workspace.kube, workspace.namespace, "neighbour")
    workspace.put("good", corpus)
    workspace.put("better", corpus.moved())
    workspace.apply("good", **DELETES)
    other.apply(workspace.manifest("good", **DELETES))
    index.wait_condition("RolledOut", timeout=SERVED_SECONDS)
    other.wait_condition("RolledOut", timeout=SERVED_SECONDS)
    first = index.traffic()
    workspace.apply("better", **DELETES)
    index.wait_revision(index.wait_new_revision({first}), "Soaking")
    theirs, finalizers = workspace.stored("neighbour"), _finalizers(workspace)
    assert finalizers == {"vectorindex.dev/artifacts"}
    with load.to_index(workspace.kube, workspace.images, other, bodies(corpus.queries()), rate=50) as traffic:
        traffic.wait(lambda seen: seen.queries > 50, 30, "the first second of traffic")
        _delete(workspace, "Foreground")
        assert workspace.stored() == set()
        seen = traffic.snapshot()
    no_failures(seen)
    assert workspace.stored("neighbour") == theirs
    _told(workspace, "ArtifactsRemoved")


@pytest.mark.long
@pytest.mark.together("long stories")
def test_deleted_and_made_again_at_once_it_builds_everything_anew(workspace: Workspace, corpus: Corpus) -> None:
    """As `kubectl replace --force` does."""
    index = workspace.index
    workspace.put("good", corpus)
    workspace.apply("good", **DELETES)
    index.wait_condition("RolledOut", timeout=SERVED_SECONDS)
    before, first = index.get()["metadata"]["uid"], workspace.index_file(index.traffic())
    modified = workspace.store.client.head_object(Bucket=workspace.bucket, Key=first)["LastModified"]
    workspace.kube.delete("VectorIndex", NAME, workspace.namespace)
    workspace.apply("good", **DELETES)
    assert index.get()["metadata"]["uid"] != before
    index.wait(lambda: workspace.blocked("ArtifactBeingRemoved"), 30, "to wait for what the other one left")
    index.wait_condition("RolledOut", timeout=SERVED_SECONDS)
    again = workspace.store.client.head_object(Bucket=workspace.bucket, Key=workspace.index_file(index.traffic()))[
        "LastModified"
    ]
    assert again > modified, "it is built, not found"
    assert workspace.built().total() == 1
    _told(workspace, "ArtifactsRemoved")
    assert workspace.ask(corpus.queries()[0])["results"][0]["ids"]


@pytest.mark.long
@pytest.mark.together("long stories")
def test_what_the_store_does_not_let_go_is_told_and_keeps_nothing(workspace: Workspace, corpus: Corpus) -> None:
    """Objects under a legal hold are refused as to a key without s3:DeleteObject, to whomever asks."""
    index, locked = workspace.index, f"{workspace.bucket}-locked"
    client = workspace.store.client
    client.create_bucket(Bucket=locked, ObjectLockEnabledForBucket=True)
    workspace.put("good", corpus)
    workspace.apply("good", artifacts={"deletionPolicy": "Delete", "s3": {"bucket": locked}})
    index.wait_condition("RolledOut", timeout=SERVED_SECONDS)
    with _held(workspace, locked) as held:
        _delete(workspace, seconds=3 * GONE_SECONDS)
        note = _told(workspace, "ArtifactLeft")
        assert locked in note
        print(note)
        assert set(workspace.store.keys(locked)) == held, "nothing is half gone"
    workspace.store.remove_bucket(locked)


@pytest.mark.long
@pytest.mark.together("long stories")
def test_a_namespace_that_is_deleted_is_gone_in_bounded_time(workspace: Workspace, corpus: Corpus) -> None:
    index = workspace.index
    workspace.put("good", corpus)
    workspace.apply("good", **DELETES)
    index.wait_condition("RolledOut", timeout=SERVED_SECONDS)
    artifacts = workspace.stored()
    began = time.monotonic()
    workspace.kube.delete("Namespace", workspace.namespace)
    workspace.kube.wait_gone("Namespace", workspace.namespace, timeout=GONE_SECONDS)
    print(f"the namespace was gone after {time.monotonic() - began:.0f} s")
    assert workspace.stored() == artifacts, "no Job can be made in it: docs/operations.md says so"


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


def _finalizers(space: Workspace) -> set[str]:
    return {one for item in space.index.revisions().values() for one in item["metadata"].get("finalizers", ())}


def _builders(space: Workspace) -> list[Json]:
    return [pod for pod in space.index.pods() if pod["metadata"]["labels"].get("vectorindex.dev/verb") == "build"]


@contextmanager
def _held(space: Workspace, bucket: str) -> Iterator[set[str]]:
    """Keeps every object of a bucket from being removed; their keys."""
    keys = set(space.store.keys(bucket))

    def hold(status: str) -> None:
        for key in keys:
            space.store.client.put_object_legal_hold(Bucket=bucket, Key=key, LegalHold={"Status": status})

    hold("ON")
    try:
        yield keys
    finally:
        hold("OFF")
