"""An index in shards, on real pods: three shards with two searchers each, and two routers that users reach."""

from __future__ import annotations

from typing import Any

import pytest
from e2e.vectors import Corpus
from e2e.workspace import SMALL, Workspace, no_failures

from harness.kube import Json

SHARDS = 3
TIGHT = {"requests": SMALL["requests"], "limits": {"memory": "1Gi"}}
IN_SHARDS: dict[str, Any] = {
    "index": {"shards": SHARDS, "factory": "Flat"},
    "build": {"parallelism": 2},
    "searcher": {"replicas": 2, "routerResources": TIGHT},
}
ENDLESS = {"rollout": {"soak": {"minQueries": 1_000_000}}}
"""The soak lasts as long as the test."""
LONG = 420


def pods_of(space: Workspace, revision: str, shard: int | None = None) -> list[Json]:
    """Searchers of the shards of a revision, or of one, those that end left out."""
    selector = f"vectorindex.dev/revision={revision},app.kubernetes.io/component=shard"
    selector += "" if shard is None else f",vectorindex.dev/shard={shard}"
    pods = space.kube.list("Pod", space.namespace, selector)
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def ready(pods: list[Json]) -> int:
    conditions = [one for pod in pods for one in pod["status"].get("conditions", []) if one["type"] == "Ready"]
    return sum(one["status"] == "True" for one in conditions)


def wait_complete(space: Workspace, revision: str) -> None:
    """Until each shard has its searchers again."""
    for shard in range(SHARDS):
        space.index.wait(lambda n=shard: ready(pods_of(space, revision, n)) == 2, 180, f"shard {shard} of {revision}")


@pytest.mark.long
@pytest.mark.together("long shards")
def test_an_index_in_shards_is_built_rolled_out_and_gone_back_from(workspace: Workspace, corpus: Corpus) -> None:
    space, index = workspace, workspace.index
    space.put("good", corpus)
    space.apply("good", **IN_SHARDS)
    first = index.wait_new_revision(set())
    index.wait_revision(first, "Stable", timeout=LONG)
    build = index.revision(first)["build"]
    assert (build["shards"], build["count"]) == (SHARDS, len(corpus.ids))
    assert len(index.revision(first)["report"]["shardRecalls"]) == SHARDS
    assert (len(index.pods(first)), len(pods_of(space, first))) == (2, 2 * SHARDS)
    for query in corpus.queries(12):  # exact shards: the merged answer is the right one
        found = space.ask(query, k=10)["results"][0]["ids"]
        assert found == [row for row, _ in corpus.nearest(query, 10)]

    space.put("better", corpus.moved())
    with space.traffic(corpus) as traffic:
        space.apply("better", **IN_SHARDS)
        second = index.wait_new_revision({first})
        index.wait_revision(second, "Stable", timeout=LONG)
        index.wait(lambda: not index.pods(first) and not pods_of(space, first), 120, f"{first} to be retired")
        left = space.kube.list("Service", space.namespace, f"vectorindex.dev/revision={first}")
        assert left == [], "the Services of its shards go with its pods"
        seen = traffic.wait_answers(second)
        assert set(seen.revisions) == {first, second}
        index.verb("rollback", f"{first}@back")
        index.wait(lambda: index.traffic() == first, LONG, "the traffic to go back")
        seen = traffic.wait_answers(first)
    no_failures(seen, at_least=3000)
    assert set(space.built().values()) == {SHARDS}, "each shard of each revision was built once"


def _as_fit(memory: str) -> dict[str, Any]:
    """What a searcher asks for besides its rows is 256Mi."""
    return {**IN_SHARDS, "index": {"shards": "Auto", "factory": "Flat"},
            "searcher": IN_SHARDS["searcher"] | {"memoryPerShard": memory}}  # fmt: skip


@pytest.mark.long
@pytest.mark.together("long shards")
def test_there_are_as_many_shards_as_fit(workspace: Workspace) -> None:
    """Three of 1Mi each, then two of 2Mi: another revision, to which the traffic goes in one write."""
    space, index, corpus = workspace, workspace.index, Corpus.make(6000)
    space.put("good", corpus)
    space.apply("good", **_as_fit("257Mi"))
    first = index.wait_new_revision(set())
    index.wait_revision(first, "Stable", timeout=LONG)
    assert index.revision(first)["build"]["shards"] == 3
    assert (len(index.pods(first)), len(pods_of(space, first))) == (2, 2 * 3)
    with space.traffic(corpus) as traffic:
        space.apply("good", **_as_fit("258Mi"))
        second = index.wait_new_revision({first})
        index.wait_revision(second, "Stable", timeout=LONG)
        seen = traffic.wait_answers(second)
    no_failures(seen)
    build = index.revision(second)["build"]
    assert (build["shards"], build["count"]) == (2, len(corpus.ids))
    assert (len(index.pods(second)), len(pods_of(space, second))) == (2, 2 * 2)
    for query in corpus.queries(12):
        found = space.ask(query, k=10)["results"][0]["ids"]
        assert found == [row for row, _ in corpus.nearest(query, 10)]


@pytest.mark.long
@pytest.mark.together("long shards")
def test_a_shard_lives_with_one_pod_and_without_any_the_traffic_goes_back(workspace: Workspace, corpus: Corpus) -> None:
    space, index = workspace, workspace.index
    space.put("good", corpus)
    space.put("better", corpus.moved())
    space.apply("good", **IN_SHARDS)
    first = index.wait_new_revision(set())
    index.wait_revision(first, "Stable", timeout=LONG)
    with space.traffic(corpus) as traffic:
        space.apply("better", **IN_SHARDS, **ENDLESS)
        second = index.wait_new_revision({first})
        index.wait_revision(second, "Soaking", timeout=LONG)
        for shard in range(SHARDS):
            space.kube.delete("Pod", pods_of(space, second, shard)[0]["metadata"]["name"], space.namespace)
        wait_complete(space, second)
        assert index.revision(second)["phase"] == "Soaking"
        no_failures(traffic.wait_answers(second))

        before = traffic.snapshot()
        name = f"{second}-shard-1"
        # The operator puts the Deployment right at once: its pods are what is taken away, again and again.
        index.wait(lambda: _without_pods(space, name, second), 120, "the traffic to go back")
        index.wait_revision(second, "RolledBack", timeout=60)
        assert index.traffic() == first
        seen = traffic.wait_answers(first)
    lost = seen.failed - before.failed
    print(f"{lost} queries had no whole answer while shard 1 had no pod, of {seen.queries - before.queries}")
    assert lost > 0, "an answer without a shard is none"
    assert space.ask(corpus.queries(1)[0])["results"][0]["ids"]


def _without_pods(space: Workspace, name: str, revision: str) -> bool:
    """Takes the pods of shard 1 away once more. Whether the traffic has left the revision."""
    space.kube.kubectl(
        "-n", space.namespace, "delete", "pod", "--wait=false", "--grace-period=0", "--force",
        "-l", f"vectorindex.dev/revision={revision},vectorindex.dev/shard=1",
    )  # fmt: skip
    return space.index.traffic() != revision
