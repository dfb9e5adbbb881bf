"""Live recall is too low and nothing can be gone back to: the same pods search wider, until somebody ends that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from e2e.conftest import FIRST_REVISION_SECONDS
from e2e.vectors import Corpus, bodies
from e2e.workspace import SLOW, Workspace, no_failures

from harness.kube import Json
from harness.vix import unix

K = 10
ASKED = 60
RULE = {"name": "live", "metric": "LiveRecall", "min": "70%", "window": "10s", "warmUp": "0s", "minSamples": 100}
LIVE = {"guardrails": {"rules": [RULE | {"consecutive": 1}]}, "searcher": {"minScore": -1.0}}
NARROW: dict[str, Any] = {
    **LIVE,
    "index": {"factory": "IVF64,Flat", "objective": {"recall": 0.85}},
    "gate": {"recall": {"min": 0.8}},
}
"""One list of 64 finds enough of what is like a row, and half of what lies between two clusters; three find all."""
EXACT = {**LIVE, "index": {"factory": "Flat"}}
LOW, WIDE = 0.6, 0.75
"""Recall below and above which it is plain at which of the two points a pod answers."""
SEEN_SECONDS = 180
"""A round of live recall, a window, and a look at it."""


@pytest.mark.long
@pytest.mark.together("long rollouts")
def test_the_first_revision_searches_wider_until_a_person_or_the_next_one_ends_that(
    workspace: Workspace, corpus: Corpus
) -> None:
    index, between = workspace.index, corpus.between(clusters=2)
    workspace.put("good", corpus)
    workspace.apply("good", **NARROW)
    index.wait_condition("RolledOut", timeout=FIRST_REVISION_SECONDS)
    first = index.traffic()
    default, wider = (index.revision(first)["build"][f"{name}Point"]["params"] for name in ("default", "conservative"))
    assert wider["nprobe"] > default["nprobe"], "the data is not what this story needs"
    before, switched = workspace.lives(first), index.decision()
    assert max(_recalls(workspace, corpus, first).values()) < LOW
    with workspace.asked(bodies(between), rate=SLOW) as traffic:
        degraded = _wide(workspace, corpus, first)
        for word in (f"nprobe={wider['nprobe']} instead of nprobe={default['nprobe']}", "nothing to go back to"):
            assert word in degraded["message"]
        workspace.wait_event("ConservativePoint", "live: live recall")
        assert workspace.lives(first) == before, "no pod was started, and no container"
        assert (index.decision(), index.revision(first)["phase"]) == (switched, "Stable")
        assert (index.condition("Ready")["status"], index.condition("RolledOut")["status"]) == ("True", "True")
        assert index.condition("Stalled") == {}

        # A pod that comes later is told while it loads.
        index.patch({"spec": {"searcher": {"replicas": 2}}})
        index.wait(lambda: index.status()["ready"] == "2/2" and len(workspace.lives(first)) == 2, 120, "a second pod")
        recalls = _recalls(workspace, corpus, first)
        assert min(recalls.values()) > WIDE, recalls
        assert before < workspace.lives(first)
        before = workspace.lives(first)

        # `retry`: the default point again, and judged again.
        said = workspace.say("retry", "narrow")
        assert (said["result"], "default operating point" in said["message"]) == ("Done", True), said
        assert index.condition("Degraded") == {}
        workspace.wait_event("DefaultPoint", "retry narrow")
        index.wait(lambda: max(_recalls(workspace, corpus, first).values()) < LOW, 30, "its pods to search less wide")
        again = _wide(workspace, corpus, first)
        assert unix(again["lastTransitionTime"]) > unix(degraded["lastTransitionTime"])
        assert workspace.lives(first) == before

        workspace.apply("good", **EXACT)
        second = index.wait_new_revision({first})
        index.wait_revision(second, "Stable")
        index.wait_condition("RolledOut")
        assert index.condition("Degraded") == {}
        index.wait(lambda: index.condition("RollbackPossible")["reason"] in ("Warm", "Cold"), 30, "a way back")
        seen = traffic.wait_answers(second)
    no_failures(seen, at_least=2000)
    assert set(seen.revisions) == {first, second}
    assert workspace.built() == {first: 1, second: 1}


@pytest.mark.long
@pytest.mark.together("long rollouts")
def test_where_the_artifact_of_the_way_back_is_gone_it_searches_wider_too(workspace: Workspace, corpus: Corpus) -> None:
    index, between = workspace.index, corpus.between(clusters=2)
    polled = {"source": {"poll": "10s", "minInterval": "1s"}}
    workspace.put("good", corpus)
    workspace.apply("good", **EXACT, **polled)
    index.wait_condition("RolledOut", timeout=FIRST_REVISION_SECONDS)
    first = index.traffic()
    with workspace.traffic(corpus, rate=SLOW) as traffic:  # like its rows: the narrow point finds them
        workspace.apply("good", **NARROW, **polled)
        second = index.wait_new_revision({first})
        index.wait_revision(second, "Stable")
        index.wait(lambda: not index.pods(first), 150, f"{first} to be unloaded")
        seen = traffic.snapshot()
    no_failures(seen, at_least=500)
    workspace.store.clear(workspace.bucket, workspace.index_file(first).rsplit("/", 2)[0])
    gone = index.wait_condition("RollbackPossible", "False", reason="ArtifactGone", timeout=120)
    assert first in gone["message"]
    before = workspace.lives(second)
    with workspace.asked(bodies(between), rate=SLOW) as traffic:
        _wide(workspace, corpus, second)
        workspace.wait_event("ConservativePoint", "live: live recall")
        seen = traffic.snapshot()
    no_failures(seen)
    assert set(seen.revisions) == {second}
    assert (index.traffic(), workspace.lives(second)) == (second, before), "nobody went back to what cannot be loaded"
    assert index.revision(second)["phase"] == "Stable"


def _wide(space: Workspace, corpus: Corpus, revision: str) -> Json:
    """Until all pods answer at the conservative point; the condition Degraded, which says so."""
    degraded = space.index.wait_condition("Degraded", reason="ConservativePoint", timeout=SEEN_SECONDS)
    assert space.index.revision(revision)["point"]["point"] == "Conservative"
    space.index.wait(lambda: min(_recalls(space, corpus, revision).values()) > WIDE, 30, "its pods to search wider")
    print(degraded["message"])
    return degraded


def _recalls(space: Workspace, corpus: Corpus, revision: str) -> dict[str, float]:
    """Of each pod's answers to queries between two clusters."""
    ready = [pod for pod in space.index.pods(revision) if "deletionTimestamp" not in pod["metadata"]]
    return {pod["metadata"]["name"]: _recall(space, corpus, pod["metadata"]["name"]) for pod in ready}


def _recall(space: Workspace, corpus: Corpus, pod: str) -> float:
    path, shares = f"/api/v1/namespaces/{space.namespace}/pods/{pod}:8080/proxy/v1/search", []
    for query in corpus.between(ASKED, clusters=2, seed=8):
        status, answer = space.kube.call("POST", path, body={"vector": [float(x) for x in query], "k": K})
        assert status == 200, answer
        right = {name for name, _ in corpus.nearest(query, K)}
        shares.append(len(right & set(answer["results"][0]["ids"])) / K)
    return float(np.mean(shares))
