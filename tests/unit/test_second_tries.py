"""Reads that fail are made once more within a pass, bounded in time and in work; writes are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from http_stub import Exchange, answering
from kubernetes import client

from vectorindex_operator.adapters.kube import KubeCluster
from vectorindex_operator.adapters.second_tries import EARNED, LONGEST_PAUSE, MOST_SAVED, SecondTries
from vectorindex_operator.reconcile.errors import ClusterError, RefusedError, UnreachableError
from vectorindex_operator.reconcile.queue import KeyedQueue, Outcome

JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"namespace": "team-a", "name": "docs-1"}}
CUT = 0
"""Instead of a status: the connection ends."""


@dataclass
class Server:
    """Answers with the next of `answers`, the last one again and again; counts what it was asked."""

    answers: list[tuple[int, str]] = field(default_factory=list)
    """Status and Retry-After."""
    asked: int = 0

    def __call__(self, to: Exchange) -> None:
        to.body()
        self.asked += 1
        status, after = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if status == CUT:
            to.close_connection = True
            return
        page = {"apiVersion": "v1", "metadata": {}, "items": [], "reason": "Because", "message": "of that"}
        to.answer(status, page, **({"Retry_After": after} if after else {}))


@dataclass
class Clock:
    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[Server, KubeCluster]]:
    server = Server()
    with answering(server) as url:
        cluster = KubeCluster(client.ApiClient(client.Configuration(host=url)))
        yield server, cluster
        cluster.api.rest_client.pool_manager.clear()
        cluster.api.close()


def reached(endpoint: tuple[Server, KubeCluster], *answers: tuple[int, str]) -> tuple[Server, KubeCluster, Clock]:
    """The server, about to answer so, and a cluster with all its second tries."""
    server, cluster = endpoint
    clock = Clock()
    server.answers, server.asked = list(answers), 0
    cluster.second_tries = SecondTries(clock=clock, sleep=clock.sleep)
    return server, cluster, clock


READS: list[Callable[[KubeCluster], Any]] = [
    lambda cluster: cluster.get("Job", "team-a", "docs-1"),
    lambda cluster: cluster.children("Pod", "team-a", "x=y"),
    lambda cluster: list(cluster.pages("Pod", "", "x=y", metadata_only=True)),
]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, CUT])
def test_a_read_that_fails_is_made_once_more(endpoint: tuple[Server, KubeCluster], status: int) -> None:
    for read in READS:
        server, cluster, clock = reached(endpoint, (status, ""), (200, ""))
        read(cluster)
        assert (server.asked, len(clock.slept)) == (2, 1)


def test_and_no_third_time(endpoint: tuple[Server, KubeCluster]) -> None:
    server, cluster, _ = reached(endpoint, (503, ""))
    with pytest.raises(UnreachableError, match="503 Because: of that"):
        cluster.get("Job", "team-a", "docs-1")
    assert server.asked == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 422])
def test_what_would_be_answered_the_same_is_not_asked_again(endpoint: tuple[Server, KubeCluster], status: int) -> None:
    server, cluster, _ = reached(endpoint, (status, ""))
    with pytest.raises(ClusterError):
        cluster.get("Job", "team-a", "docs-1")
    assert server.asked == 1


@pytest.mark.parametrize("status", [429, 500, 503, CUT])
def test_no_write_is_made_twice(endpoint: tuple[Server, KubeCluster], status: int) -> None:
    """What became of one whose answer is lost, the next pass sees."""
    meta = {"namespace": "team-a", "name": "docs"}
    index = {"apiVersion": "vectorindex.dev/v1alpha1", "kind": "VectorIndex", "metadata": meta}
    fields = {"manager": "vectorindex-operator", "operation": "Update", "fieldsV1": {}}
    writes: list[Callable[[KubeCluster], Any]] = [
        lambda cluster: cluster.apply(JOB),
        lambda cluster: cluster.merge(JOB),
        lambda cluster: cluster.create(JOB),
        lambda cluster: cluster.delete("Job", "team-a", "docs-1", "uid-1"),
        lambda cluster: cluster.apply_status(index),
        lambda cluster: cluster.take_over(
            {**JOB, "metadata": {**JOB["metadata"], "resourceVersion": "7", "managedFields": [fields]}}  # type: ignore[dict-item]
        ),
    ]
    for write in writes:
        server, cluster, _ = reached(endpoint, (status, ""), (200, ""))
        with pytest.raises(UnreachableError):
            write(cluster)
        assert server.asked == 1


def test_it_waits_as_long_as_it_is_asked_to_or_not_at_all(endpoint: tuple[Server, KubeCluster]) -> None:
    _, cluster, clock = reached(endpoint, (429, "1"), (200, ""))
    cluster.get("Job", "team-a", "docs-1")
    assert clock.slept == [1.0]
    server, cluster, clock = reached(endpoint, (429, f"{LONGEST_PAUSE + 1:.0f}"), (200, ""))
    with pytest.raises(UnreachableError) as caught:
        cluster.get("Job", "team-a", "docs-1")
    assert (server.asked, clock.slept, caught.value.retry_after) == (1, [], LONGEST_PAUSE + 1)


@pytest.mark.parametrize("said", ["", "soon", "-1", "1e9", "Fri, 27 Nov 2026 12:00:00 GMT"])
def test_whatever_stands_for_a_time_is_no_reason_to_wait(endpoint: tuple[Server, KubeCluster], said: str) -> None:
    _, cluster, clock = reached(endpoint, (429, said), (200, ""))
    cluster.get("Job", "team-a", "docs-1")
    assert clock.slept[0] < 1.0


# ---------------------------------------------------------------- bounds


def test_both_tries_together_take_no_longer_than_one_may() -> None:
    clock, given = Clock(), list[float]()

    def attempt(seconds: float) -> None:
        given.append(seconds)
        clock.now += takes
        raise UnreachableError("503")

    for takes, tries in ((0.0, 2), (12.0, 2), (19.9, 1), (20.0, 1)):
        given.clear()
        began = clock.now
        with pytest.raises(UnreachableError):
            SecondTries(clock=clock, sleep=clock.sleep).read(attempt, 20.0)
        assert (len(given), given[0]) == (tries, 20.0)
        assert all(clock.now - began - takes + seconds <= 20.0 + 1e-6 for seconds in given[1:])


def test_a_server_that_refuses_most_is_not_asked_twice_as_much() -> None:
    asked, clock = [0], Clock()
    tries = SecondTries(clock=clock, sleep=clock.sleep)

    def attempt(seconds: float) -> None:
        asked[0] += 1
        raise UnreachableError("429")

    for _ in range(1000):
        with pytest.raises(UnreachableError):
            tries.read(attempt, 20.0)
    assert 1000 < asked[0] <= 1000 * (1 + EARNED) + MOST_SAVED


def test_where_a_tenth_is_refused_one_read_in_a_hundred_fails() -> None:
    drawn, clock, seconds = Random(1), Clock(), list[None]()
    tries = SecondTries(lambda: seconds.append(None), clock, clock.sleep)

    def attempt(_: float) -> None:
        if drawn.random() < 0.1:
            raise UnreachableError("500")

    failed = 0
    for _ in range(3000):
        try:
            tries.read(attempt, 20.0)
        except UnreachableError:
            failed += 1
    assert failed < 3000 * 0.02
    assert 3000 * 0.07 < len(seconds) < 3000 * 0.13


def test_other_faults_are_no_reason_for_a_second_try() -> None:
    def refused(_: float) -> None:
        raise RefusedError("403")

    tries = SecondTries(sleep=lambda seconds: pytest.fail("it waited"))
    with pytest.raises(RefusedError):
        tries.read(refused, 20.0)


# ---------------------------------------------------------------- the queue


@pytest.mark.parametrize(("asked", "waits"), [(0.0, [0.5, 1.0, 2.0]), (1.0, [1.0, 1.0, 2.0]), (1e6, [60.0] * 3)])
def test_a_pass_stays_away_as_long_as_it_is_asked_to(asked: float, waits: list[float]) -> None:
    def refused(namespace: str, name: str) -> Outcome:
        raise UnreachableError("429", asked)

    queue = KeyedQueue(refused, jitter=lambda least, most: most)
    assert [queue._run(("team-a", "docs"))[1] for _ in range(3)] == waits
