"""`searcher.cache`: pods that share a claim download an artifact once, whoever of them begins again."""

from __future__ import annotations

import re

import pytest
from e2e.node_claims import claims
from e2e.vectors import Corpus
from e2e.workspace import SLOW, Workspace, no_failures

from harness.kube import Json

CLAIM = "products-cache"


@pytest.mark.long
@pytest.mark.together("claims and words")
def test_what_one_pod_has_downloaded_no_other_downloads(served: Workspace, corpus: Corpus) -> None:
    index, first = served.index, served.index.traffic()
    served.put("second", corpus.moved())
    cached = {"searcher": {"cache": {"claimName": CLAIM, "limit": "1Gi"}}}
    with claims(served, CLAIM), served.traffic(corpus, rate=SLOW) as traffic:
        served.apply("good", **cached)
        _replaced(served, first, pods=1)
        (filled,) = _origins(served, first).values()
        assert filled["store"] > 0, "the claim was empty"

        served.apply("good", searcher={**cached["searcher"], "replicas": 2})
        _replaced(served, first, pods=2)
        assert sorted(one["store"] for one in _origins(served, first).values()) == [0, filled["store"]]
        assert {sum(one.values()) for one in _origins(served, first).values()} == {filled["store"]}
        for name in _origins(served, first):
            served.kube.delete("Pod", name, served.namespace)
            served.kube.wait_gone("Pod", name, served.namespace)
            _replaced(served, first, pods=2)
        assert {one["store"] for one in _origins(served, first).values()} == {0}, "new pods, and no download"

        served.apply("second", **cached)
        second = index.wait_new_revision({first})
        index.wait_revision(second, "Stable")
        index.wait(lambda: not index.pods(first), 150, f"{first} to be unloaded")
        index.verb("rollback", f"{first}@back-1")
        index.wait(lambda: index.traffic() == first, 120, "the way back, which is cold")
        assert {one["store"] for one in _origins(served, first).values()} == {0}, "a cold way back, and no download"
        seen = traffic.snapshot()
        served.apply("good")
        index.wait(lambda: not _on_claim(served), 150, "the pods to leave the claim")
    no_failures(seen)


def _replaced(space: Workspace, revision: str, *, pods: int) -> None:
    """Until so many pods serve from the claim, and no other is there."""

    def done() -> bool:
        mine = space.index.pods(revision)
        ready = [pod for pod in mine if _is_ready(pod) and pod in _on_claim(space)]
        return len(mine) == len(ready) == pods

    space.index.wait(done, 180, f"{pods} pods of {revision} on the claim")


def _is_ready(pod: Json) -> bool:
    said = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}
    return said.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def _on_claim(space: Workspace) -> list[Json]:
    return [pod for pod in space.index.pods() if any("persistentVolumeClaim" in one for one in pod["spec"]["volumes"])]


def _origins(space: Workspace, revision: str) -> dict[str, dict[str, float]]:
    """By pod: bytes of the artifact by where they came from, as its metrics tell."""
    found = {}
    for pod in space.index.pods(revision):
        name = pod["metadata"]["name"]
        path = f"/api/v1/namespaces/{space.namespace}/pods/{name}:8081/proxy/metrics"
        status, answer = space.kube.call("GET", path)
        assert status == 200, answer
        rows = re.findall(r'vectorindex_artifact_bytes_total\{origin="(\w+)",[^}]*\} (\S+)', answer["text"])
        found[name] = {origin: float(value) for origin, value in rows}
    return found
