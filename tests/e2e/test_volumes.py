"""Vectors, queries of the gate and artifacts on volumes that a real kubelet mounts."""

from __future__ import annotations

import pytest
from e2e.node_claims import claims
from e2e.vectors import Corpus, parquet
from e2e.workspace import SLOW, Workspace, no_failures

from harness.kube import Json

VECTORS, INDEXES = "vectors", "indexes"


@pytest.mark.long
@pytest.mark.together("claims and words")
def test_an_index_that_lives_on_claims_alone(workspace: Workspace, corpus: Corpus) -> None:
    """Built, proven with given queries, served, rolled out and back; nothing of it is in a bucket."""
    space, index = workspace, workspace.index
    space.put("good", corpus)
    space.put("better", corpus.moved())
    asked = corpus.queries(200)
    space.put("asked", parquet(tuple(f"q-{n:03}" for n in range(len(asked))), asked))
    with claims(space, VECTORS, INDEXES) as filled:
        for folder in ("good", "better", "asked"):
            filled.fetch(VECTORS, folder)
        space.store.clear(space.bucket)

        index.apply(_on_claims(space, "good"))
        index.wait_condition("RolledOut", timeout=300)
        first = index.traffic()
        assert space.ask(corpus.queries()[0])["results"][0]["ids"]
        assert {one for pod in index.pods(first) for one in _claims_of(pod)} == {(INDEXES, True)}

        with space.traffic(corpus, rate=SLOW) as traffic:
            index.apply(_on_claims(space, "better"))
            second = index.wait_new_revision({first})
            index.wait_revision(second, "Stable")
            traffic.wait_answers(second)
            index.wait(lambda: not index.pods(first), 150, f"{first} to be unloaded")
            index.verb("rollback", f"{first}@back-1")
            index.wait(lambda: index.traffic() == first, 120, "the way back, which is cold")
            traffic.wait_answers(first)
            seen = traffic.snapshot()
        no_failures(seen, at_least=1000)
        assert space.store.keys(space.bucket) == []
        # The claims are not gone before the pods that have them.
        index.delete()
        index.wait(lambda: not index.pods(), 150, "the pods to end")


def _on_claims(space: Workspace, folder: str) -> Json:
    made = space.manifest(folder)
    spec = made["spec"]
    for field in ("source", "artifacts"):
        del spec[field]["s3"]
    spec["source"]["volume"] = {"claimName": VECTORS, "path": f"{folder}/"}
    spec["artifacts"]["volume"] = {"claimName": INDEXES}
    spec["gate"] = {"queries": {"volume": {"claimName": VECTORS, "path": "asked/"}}}
    return made


def _claims_of(pod: Json) -> list[tuple[str, bool]]:
    """Name, and whether it is read-only as a whole."""
    found = [one.get("persistentVolumeClaim") for one in pod["spec"]["volumes"]]
    return [(one["claimName"], one.get("readOnly", False)) for one in found if one is not None]
