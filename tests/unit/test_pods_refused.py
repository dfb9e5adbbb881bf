"""Pods that a quota or a webhook lets nobody make: said in its words, written once, and no fault of the revision."""

from __future__ import annotations

from dataclasses import replace

import pytest
from observations import HOUR, NOW, a_revision, actions, after, job, listing, loaded, pod, run, seen, spec

from vectorindex_operator.core import identity
from vectorindex_operator.core.attempt import PODLESS_SECONDS
from vectorindex_operator.core.loaded import LoadedRevision
from vectorindex_operator.core.observation import Observation, Task
from vectorindex_operator.core.plan import Plan, WriteRevisionStatus
from vectorindex_operator.reconcile import pods

OLD, NEW = spec(), spec(index={"factory": "Flat"})
STABLE = a_revision(OLD, "Stable")
SURGING = a_revision(NEW, "Surging", created=NOW - HOUR)
QUOTA = "exceeded quota: compute, requested: cpu=1, used: cpu={}, limited: cpu=4"


def surge(refused: str) -> Observation:
    """A candidate of which one pod of two could be made, and is loading."""
    one = replace(loaded(SURGING, pod("p0", ready=False)), refused_since=NOW - HOUR, refused=refused)
    obs = seen(NEW, STABLE, SURGING, traffic=STABLE)
    return replace(obs, loaded={**obs.loaded, SURGING.name: one})


def phase(plan: Plan) -> str:
    """Of the candidate, after a plan."""
    written = (one.status.phase for one in actions(plan, WriteRevisionStatus) if one.revision == SURGING.name)
    return next(written, SURGING.status.phase)


def rows(obs: Observation) -> list[tuple[str, str, str]]:
    return [(row.rule, row.subject, row.message) for row in run(obs).status.blocked_by]


def test_a_quota_is_told_in_its_words() -> None:
    words = QUOTA.format(4)
    assert ("PodsRefused", f"Deployment/{SURGING.name}", words) in rows(surge(words))


def test_numbers_that_change_are_no_news() -> None:
    """Each try of the controller says how much is used just then: that must not be a write of ours each time."""
    first = surge(QUOTA.format(4))
    later = replace(surge(QUOTA.format(3)), index=after(first, run(first)).index)
    assert rows(later) == rows(replace(first, index=later.index))
    assert rows(surge("exceeded quota: pods, used: 2"))[-1] != rows(first)[-1]


def test_a_quota_is_no_fault_of_the_revision() -> None:
    obs = surge(QUOTA.format(4))
    for minutes in (0, 30, 300):
        plan = run(obs, NOW + 60 * minutes)
        assert phase(plan) == "Surging"
        obs = after(obs, plan)
    room = replace(obs, loaded={**obs.loaded, SURGING.name: loaded(SURGING, pod("p0"), pod("p1", ready=False))})
    plan = run(room, NOW + 18_100)
    assert phase(plan) == "Surging", "its time begins when there is room"


def test_what_serves_says_so_as_well() -> None:
    obs = seen(OLD, STABLE, traffic=STABLE)
    few: LoadedRevision = replace(loaded(STABLE, pod("p0")), refused=QUOTA.format(4), refused_since=NOW)
    assert rows(replace(obs, loaded={STABLE.name: few}))[0][:2] == ("PodsRefused", f"Deployment/{STABLE.name}")
    assert rows(obs) == []


# ---------------------------------------------------------------- Jobs


@pytest.mark.parametrize("task", [Task.RESOLVE, Task.BUILD, Task.VALIDATE])
def test_a_job_without_a_pod_says_so_after_a_while(task: Task) -> None:
    view = a_revision(OLD, "Building" if task is Task.BUILD else "Validating")
    keys = {
        Task.RESOLVE: f"{identity.source_hash(OLD)}/",
        Task.BUILD: f"{identity.build_hash(OLD)}/0/cpu",
        Task.VALIDATE: f"{identity.gate_hash(OLD)}/0",
    }
    one = job(task, of=None if task is Task.RESOLVE else view, key=keys[task])
    jobs = (one,) if task is Task.RESOLVE else (listing(OLD), one)

    def blocked(since: float) -> list[tuple[str, str, str]]:
        mine = tuple(replace(each, podless_since=since) if each is one else each for each in jobs)
        return rows(seen(OLD, *(() if task is Task.RESOLVE else (view,)), jobs=mine))

    assert blocked(NOW - PODLESS_SECONDS + 1) == []
    ((rule, subject, message),) = blocked(NOW - PODLESS_SECONDS)
    assert (rule, subject) == ("JobWaiting", one.name)
    assert f"kubectl -n team-a describe job {one.name}" in message
    assert blocked(NOW - 999) != [], "a text that changes would be a write at every look"


# ---------------------------------------------------------------- what Kubernetes says


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (f'pods "docs-1a-6d8f-x7k2p" is forbidden: {QUOTA.format(4)}', QUOTA.format(4)),
        ('admission webhook "v.house" denied the request: no', 'admission webhook "v.house" denied the request: no'),
        ("", "its pods cannot be made"),
        (7, "its pods cannot be made"),
    ],
)
def test_the_words_are_those_of_the_condition_without_the_pods_name(message: object, words: str) -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    assert pods.refusal({"status": {"conditions": [condition]}}) == words
    assert pods.refusal({"status": {"conditions": [condition | {"status": "False"}]}}) == ""
    assert pods.refusal({}) == ""
