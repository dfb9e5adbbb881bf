"""Deleted ids: not answered within a poll by the revision that serves, and absent from the next one."""

from __future__ import annotations

import pytest
from e2e.vectors import Corpus
from e2e.workspace import TWO_CORES, Workspace


@pytest.mark.together("without traffic")
def test_a_deleted_id_is_hidden_within_a_poll_and_absent_from_the_next_build(
    workspace: Workspace, corpus: Corpus
) -> None:
    index = workspace.index
    source = {"source": {"poll": "5s", "minInterval": "1s", "tombstones": {"prefix": "good/deleted/"}}}
    workspace.put("good", corpus)
    workspace.apply("good", searcher={"resources": TWO_CORES}, **source)
    index.wait_condition("RolledOut", timeout=240)
    first = index.traffic()
    assert workspace.processes(first) == {"2"}, "every one of them has to hide what is deleted"
    query = corpus.vectors[7]
    victims = [found for found, _ in corpus.nearest(query, 5)]

    def answered() -> list[str]:
        """The ids of ten hits of the vector of a row that is about to be deleted."""
        ids: list[str] = workspace.ask(query, k=10)["results"][0]["ids"]
        return ids

    assert answered()[0] == victims[0]
    workspace.store.put(workspace.bucket, "good/deleted/today.txt", "\n".join(victims).encode())
    index.wait(lambda: not set(answered()) & set(victims), 30, "the deleted ids to be hidden")
    assert len(answered()) == 10
    assert index.traffic() == first, "a delete alone builds nothing"
    listings = lambda: sorted(job["metadata"]["uid"] for job in index.jobs("resolve"))  # noqa: E731
    workspace.hold(listings, 12, "no Job lists a source that is as it was, in two polls")

    workspace.put("good", corpus.moved(), "part-0.parquet")
    second = index.wait_new_revision({first})
    index.wait_revision(second, "Soaking", "Stable")
    assert index.revision(second)["report"]["count"] == len(corpus.ids) - len(victims)
    assert index.revision(second)["report"]["tombstonedFound"] == 0
    index.wait(lambda: index.traffic() == second, 60, "the switch")
    assert not set(answered()) & set(victims)
