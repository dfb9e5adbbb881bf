"""Fresh rows: answered by every pod within a poll and 5 s without a build, and part of the next one that is due."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from e2e.vectors import Corpus, Floats, parquet
from e2e.workspace import OK, SLOW, TWO_CORES, Workspace, no_failures

POLL, AND = 5.0, 5.0
SLACK = 3.0
"""For the questions themselves: pods are asked by way of the API server, one after the other."""
CHANGED = "row-00007"
CONFLICT = 409


def ask(space: Workspace, pod: str, query: Floats, **fields: Any) -> tuple[int, dict[str, Any]]:
    """What one pod answers: status and document."""
    path = f"/api/v1/namespaces/{space.namespace}/pods/{pod}:8080/proxy/v1/search"
    status, answer = space.kube.call("POST", path, body={"vector": [float(x) for x in query], "k": 3, **fields})
    return status, answer


def pods(space: Workspace) -> list[str]:
    return [pod["metadata"]["name"] for pod in space.index.pods(space.index.traffic())]


def first(space: Workspace, pod: str, query: Floats) -> str:
    """The id of its first hit."""
    status, answer = ask(space, pod, query)
    assert status == OK, answer
    return str(answer["results"][0]["ids"][0])


def seconds_until(space: Workspace, true: Callable[[str], bool], what: str) -> float:
    """Until it is so in all pods."""
    began = time.monotonic()
    space.index.wait(lambda: all(true(pod) for pod in pods(space)), 60, what)
    took = time.monotonic() - began
    print(f"{what}: {took:.1f} s")
    return took


@pytest.mark.long
def test_fresh_rows_are_answered_without_a_build_and_are_in_the_next_one(workspace: Workspace, corpus: Corpus) -> None:
    index, store, bucket = workspace.index, workspace.store, workspace.bucket
    new, moved, gone = corpus.queries(3, seed=9)
    source = {
        "poll": f"{POLL:.0f}s",
        "minInterval": "1s",
        "fresh": {"prefix": "good-fresh/"},
        "tombstones": {"prefix": "good-deleted/"},
    }
    workspace.put("good", corpus)
    workspace.apply("good", source=source, searcher={"replicas": 2, "resources": TWO_CORES})
    index.wait_condition("RolledOut", timeout=240)
    before = index.traffic()
    assert workspace.processes(before) == {"2"}, "every one of them has to know the rows"
    with workspace.traffic(corpus, SLOW) as traffic:
        old = corpus.vectors[int(CHANGED[-5:])]
        assert {first(workspace, pod, old) for pod in pods(workspace)} == {CHANGED}
        rows = parquet(("fresh-1", "fresh-2", CHANGED), corpus.queries(3, seed=9)[[0, 2, 1]])
        store.put(bucket, "good-fresh/1.parquet", rows)
        took = seconds_until(workspace, lambda pod: first(workspace, pod, new) == "fresh-1", "a new row is answered")
        assert took <= POLL + AND + SLACK
        for pod in pods(workspace):
            assert first(workspace, pod, moved) == CHANGED
            assert first(workspace, pod, old) != CHANGED, "the row of the artifact has given way"
        assert index.traffic() == before, "new rows build nothing"

        (number,) = {ask(workspace, pod, new)[1]["fresh"] for pod in pods(workspace)}
        for pod in pods(workspace):
            assert ask(workspace, pod, new, minFresh=number)[0] == OK
            status, problem = ask(workspace, pod, new, minFresh=number + 1)
            assert (status, problem["fresh"]) == (CONFLICT, number)
            assert problem["type"].endswith("NotFreshYet")
        index.wait(lambda: index.status()["fresh"]["rows"] == 3, 60, "the status to tell of them")
        assert index.condition("FreshRows")["reason"] == "Answered"

        store.put(bucket, "good-deleted/today.txt", b"fresh-2\n")
        took = seconds_until(workspace, lambda pod: first(workspace, pod, gone) != "fresh-2", "a deleted one is gone")
        assert took <= POLL + AND + SLACK

        store.put(bucket, "good-fresh/2.jsonl", b'{"id": "odd", "vector": [1, 2, 3]}\n')
        index.wait_condition("FreshRows", "False", reason="FileRefused", timeout=90)
        assert "good-fresh/2.jsonl" in index.condition("FreshRows")["message"]
        workspace.wait_event("FreshFileRefused", "good-fresh/2.jsonl")
        assert {first(workspace, pod, new) for pod in pods(workspace)} == {"fresh-1"}, "no other file waits for it"

        workspace.put("good", corpus.moved(), "part-0.parquet")
        after = index.wait_new_revision({before})
        index.wait_revision(after, "Stable")
        assert index.status()["source"]["fresh"] == 1, "the refused file is no part of it"
        assert index.revision(after)["report"]["count"] == len(corpus.ids) + 1
        store.delete(bucket, "good-fresh/2.jsonl")
        index.wait(lambda: index.condition("FreshRows")["status"] == "True", 90, "nothing to be refused any more")
        index.wait(lambda: index.status()["fresh"]["rows"] == 0, 60, "what is built in to be fresh no more")
        for pod in pods(workspace):
            assert (first(workspace, pod, new), first(workspace, pod, moved)) == ("fresh-1", CHANGED)
            assert first(workspace, pod, gone) != "fresh-2"
        seen = traffic.snapshot()
    no_failures(seen, at_least=1000)
    assert len(workspace.built()) == 2
