"""A way back that is broken blocks nothing; access is what the manifest says now; a new image reaches old data."""

from __future__ import annotations

import pytest
from e2e.vectors import Corpus
from e2e.workspace import SECRET, Workspace, no_failures

ENDLESS = {"rollout": {"soak": {"minQueries": 1_000_000}, "progressDeadline": "20s"}}
"""The soak lasts as long as the test; a revision without a ready pod is dead after 20 s."""


@pytest.mark.together("without traffic")
def test_a_dead_stable_does_not_block_the_fix(served: Workspace, corpus: Corpus) -> None:
    index, first = served.index, served.index.traffic()
    served.put("second", corpus.moved())
    served.apply("second", **ENDLESS)
    second = index.wait_new_revision({first})
    index.wait_revision(second, "Soaking")

    served.store.delete(served.bucket, served.index_file(first))
    for pod in index.pods(first):
        served.kube.delete("Pod", pod["metadata"]["name"], served.namespace)
    served.put("third", corpus.moved(seed=5))
    served.apply("third", rollout={"progressDeadline": "20s"})
    third = index.wait_new_revision({first, second})
    served.wait_phase(second, "Outgoing", "Superseded", timeout=180)
    assert index.traffic() in (second, third), "what answers keeps the traffic meanwhile"
    index.wait(lambda: index.traffic() == third, 120, "the fix to take the traffic")
    assert served.has_event("WayBackLost")
    assert index.revision(second)["phase"] == "Superseded"
    assert served.ask(corpus.queries()[0])["results"][0]["ids"]


@pytest.mark.together
def test_a_changed_secret_reaches_what_serves_without_a_failed_query(served: Workspace, corpus: Corpus) -> None:
    """And a revision that is loaded again later: where its bytes are is frozen, how to reach them is not."""
    index, first = served.index, served.index.traffic()
    served.kube.apply_secret(f"{SECRET}-new", served.namespace, served.store.access.secret())
    access = served.s3("indexes/", secretRef={"name": f"{SECRET}-new"})
    with served.traffic(corpus) as traffic:
        served.apply("good", artifacts={"s3": access})
        index.wait_condition("UpToDate", "True")
        names = {
            entry["secretRef"]["name"]
            for pod in index.pods(first)
            if "deletionTimestamp" not in pod["metadata"]
            for entry in pod["spec"]["containers"][0]["envFrom"]
        }
        assert names == {f"{SECRET}-new"}
        assert (index.traffic(), set(index.revisions())) == (first, {first}), "nothing was built or rolled out"
        seen = traffic.wait_answers(first)
    no_failures(seen)


@pytest.mark.together
def test_a_change_of_what_serves_builds_nothing_and_is_rolled_out(served: Workspace, corpus: Corpus) -> None:
    index, first = served.index, served.index.traffic()
    with served.traffic(corpus) as traffic:
        served.apply("good", searcher={"minScore": 0.11})
        second = index.wait_new_revision({first})
        index.wait_revision(second, "Stable")
        index.wait_condition("RolledOut")
        index.verb("refresh", "again-1")
        third = index.wait_new_revision({first, second})
        index.wait_revision(third, "Stable")
        seen = traffic.wait_answers(third)
    no_failures(seen)
    assert set(served.built().values()) == {1}, "one artifact, built once"
    digests = {item["spec"]["digest"] for item in index.revisions().values()}
    assert len(digests) == 1
    (verb,) = index.status()["verbs"]
    assert (verb["verb"], verb["result"]) == ("refresh", "Done")
