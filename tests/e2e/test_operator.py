"""The operator itself: killed at the worst moments, doubled, upgraded, and with no more rights than it needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e.operator_release import Operator
from e2e.vectors import Corpus
from e2e.workspace import Workspace, no_failures

from harness import release

GROUP = "vectorindex.dev"
TAKEOVER_SECONDS = 45
"""A Lease of 15 s, its renewal every 2 s, and the start of a process."""


@pytest.mark.together
def test_killed_during_the_soak_it_ends_the_same(served: Workspace, corpus: Corpus, operator: Operator) -> None:
    index, first = served.index, served.index.traffic()
    served.put("better", corpus.moved())
    with served.traffic(corpus) as traffic:
        served.apply("better")
        second = index.wait_new_revision({first})
        index.wait_revision(second, "Soaking")
        operator.kill()
        index.wait_revision(second, "Stable", timeout=60 + TAKEOVER_SECONDS)
        index.wait_condition("RolledOut")
        seen = traffic.snapshot()
    no_failures(seen, at_least=1000)
    assert served.built() == {first: 1, second: 1}
    outcomes = {row["revision"]: row["outcome"] for row in index.status()["history"]}
    assert outcomes == {second: "Stable", first: "Superseded"}


@pytest.mark.together
def test_killed_while_a_trip_is_handled_it_ends_the_same(served: Workspace, corpus: Corpus, operator: Operator) -> None:
    index, first = served.index, served.index.traffic()
    served.put("bad", corpus.spoiled(0.5))
    with served.traffic(corpus) as traffic:
        served.apply("bad")
        bad = index.wait_new_revision({first})
        index.wait_revision(bad, "Soaking")
        operator.kill()  # before it could judge anything: the evidence is with the searchers
        index.wait(lambda: index.traffic() == first, 60 + TAKEOVER_SECONDS, "the rollback")
        operator.kill()  # right after the one write: the decision is on the Service
        index.wait_revision(bad, "RolledBack", timeout=TAKEOVER_SECONDS)
        index.wait_condition("Stalled", reason="RolledBack")
        seen = traffic.wait(lambda s: s.at - s.revisions[bad].last_at > 5, 60, f"no more answers of {bad}")
        served.hold(index.traffic, 5, "no later pass repairs the traffic back to the bad one")
    no_failures(seen, at_least=1000)
    assert served.built() == {first: 1, bad: 1}
    decision = index.decision()
    assert decision is not None
    assert (decision.kind, decision.rule, decision.to_revision) == ("RollBack", "zero-results", first)


def test_a_standby_takes_over(served: Workspace, corpus: Corpus, two_operators: Operator) -> None:
    index, first = served.index, served.index.traffic()
    served.put("better", corpus.moved())
    with served.traffic(corpus) as traffic:
        served.apply("better")
        second = index.wait_new_revision({first})
        index.wait_revision(second, "Soaking")
        leader = two_operators.leader()
        # Gone for good, unlike a process that its kubelet starts again under the same name.
        two_operators.kube.delete("Pod", leader, release.NAMESPACE, grace=0)
        two_operators.kube.wait_for(
            lambda: two_operators.leader() not in ("", leader) or None,
            TAKEOVER_SECONDS,
            f"another leader than {leader}",
        )
        index.wait_revision(second, "Stable", timeout=60)
        seen = traffic.snapshot()
    no_failures(seen, at_least=1000)
    assert served.built() == {first: 1, second: 1}


def test_an_upgrade_of_the_operator_restarts_no_searcher(served: Workspace, operator: Operator) -> None:
    index = served.index

    def searchers() -> dict[str, tuple[str, int]]:
        pods = index.pods(index.traffic())
        return {
            pod["metadata"]["name"]: (pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"])
            for pod in pods
        }

    before, operators = searchers(), {pod["metadata"]["uid"] for pod in operator.pods()}
    operator.upgrade(f"podAnnotations.e2e={served.namespace}")
    assert not operators & {pod["metadata"]["uid"] for pod in operator.pods()}, "it was upgraded"
    index.patch({"spec": {"history": 5}})
    generation = index.get()["metadata"]["generation"]
    index.wait(
        lambda: index.status()["observedGeneration"] == generation, 60, "the new operator to have looked at this index"
    )
    served.hold(searchers, 5, "no searcher is restarted")
    assert searchers() == before
    assert served.built().total() == 1


def test_it_may_not_read_secrets_and_is_refused_nothing_it_tries(operator: Operator) -> None:
    may = operator.may

    for verb in ("get", "list", "watch", "create", "update", "patch", "delete"):
        assert not may(verb, "secrets"), f"{verb} secrets"
    assert not may("create", "pods", subresource="exec")
    assert not may("patch", "vectorindexes", GROUP), "spec belongs to the user"
    assert not may("escalate", "clusterroles", "rbac.authorization.k8s.io")
    assert may("patch", "vectorindexes", GROUP, subresource="status")
    assert may("patch", "services")
    log = Operator.log_of(operator.kube, lines=10_000)
    refused = [line for line in log.splitlines() if "403" in line or "orbidden" in line]
    # A namespace that is going away refuses new objects; that is no right that lacks.
    assert not [line for line in refused if "being terminated" not in line], "\n".join(refused)
    bugs = [line for line in log.splitlines() if "a bug" in line or "Traceback" in line]
    assert not bugs, "\n".join(bugs)


@pytest.fixture
def two_operators(operator: Operator) -> Iterator[Operator]:
    operator.upgrade("replicaCount=2")
    operator.kube.wait_for(
        lambda: operator.leader() in [pod["metadata"]["name"] for pod in operator.pods()], 60, "one of two to lead"
    )
    yield operator
    operator.upgrade("replicaCount=1")
