"""A look whose reads take long: what was seen at its beginning has not lasted until its end.

What counts how long something has been so (a pod that is not ready, evidence that does not come) counts up to when it
was seen, never up to when it is decided upon: an API server that takes a minute to answer must take no revision back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from observations import (
    HOUR,
    NOW,
    SETTINGS,
    a_revision,
    actions,
    after,
    index,
    job,
    loaded,
    moved,
    pod,
    run,
    seen,
    source,
    spec,
)
from raw_objects import (
    NAME,
    NAMESPACE,
    Raw,
    Silent,
    Stored,
    deployment_raw,
    front_raw,
    index_raw,
    revision_raw,
    searcher_pod,
    slice_raw,
)

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Condition, VectorIndexStatus
from vectorindex_operator.core import identity
from vectorindex_operator.core.judging.evidence import PodEvidence
from vectorindex_operator.core.observation import Observation, RevisionView, Task
from vectorindex_operator.core.plan import Plan, StartBuild, WriteRevisionStatus
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile.loop import Reconciler
from vectorindex_searcher.contract import Evidence, EvidenceBucket

WANTED = spec(index={"factory": "HNSW32"})
STABLE = a_revision(spec(), "Stable", created=NOW - 48 * HOUR)
LONG_DEAD = 600.0
"""Default of `rollout.progressDeadline`, seconds."""


def soaking(since: float, of: Any = WANTED) -> RevisionView:
    view = a_revision(of, "Soaking", created=since)
    rollout = view.status.rollout
    assert rollout is not None
    changes = {"prior": STABLE.name, "switched_at": to_text(since)}
    return replace(view, status=view.status.model_copy(update={"rollout": rollout.model_copy(update=changes)}))


def slow(obs: Observation, began: float, ended: float) -> Plan:
    """The decision of a look whose reads took from the one time to the other."""
    return run(replace(obs, seen_at=began), ended)


def told(view: RevisionView, at: float, since: float, queries: int = 1000) -> tuple[PodEvidence, ...]:
    """What its two searchers had counted at `at`: so many queries in each bucket since the other time."""
    counts = {"requests": queries, "queries": queries}
    rows = tuple(EvidenceBucket(bucket=b, segment="other", **counts) for b in range(int(since // 5), int(at // 5)))
    names = [f"{view.name}-{number}" for number in range(2)]
    return tuple(PodEvidence(n, Evidence(pod=n, revision=view.name, now=at, buckets=rows), at) for n in names)


# ---------------------------------------------------------------- pods


def test_a_candidate_whose_pods_were_unready_for_a_moment_is_not_taken_back_by_slow_reads() -> None:
    """From the end of the look that saw it first to the beginning of the last one: so long it has surely lasted."""
    candidate = soaking(NOW - 300)
    obs = seen(WANTED, STABLE, candidate, traffic=candidate)
    down = loaded(candidate, pod("b-0", ready=False), pod("b-1", ready=False))
    obs = replace(obs, loaded={**obs.loaded, candidate.name: down})
    plans = []
    for began, ended in ((NOW, NOW + 30), (NOW + 35, NOW + 65), (NOW + 39, NOW + 70), (NOW + 40, NOW + 71)):
        plans.append(slow(obs, began, ended))
        obs = after(obs, plans[-1])
    assert [moved(plan) for plan in plans] == [[], [], [], [STABLE.name]]
    assert "for 10 s" in next(one.message for one in plans[-1].events if one.reason == "GuardrailTripped")


def test_a_stable_revision_is_dead_when_it_was_seen_without_pods_for_so_long() -> None:
    candidate = soaking(NOW - HOUR)
    proven = a_revision(spec(index={"factory": "Flat"}), "Validated", created=NOW - 60)
    obs = seen(spec(index={"factory": "Flat"}), STABLE, candidate, proven, traffic=candidate)
    gone = loaded(STABLE, pod("a-0", ready=False), unready_since=NOW - LONG_DEAD + 5)
    obs = replace(obs, loaded={**obs.loaded, STABLE.name: gone})
    early = slow(obs, NOW, NOW + 60)
    assert "WayBackLost" not in [one.reason for one in early.events]
    assert "WayBackLost" in [one.reason for one in slow(obs, NOW + 5, NOW + 60).events]


def test_slow_reads_bring_no_deadline_of_a_surge_forward() -> None:
    view = a_revision(WANTED, "Surging", created=NOW - HOUR)
    loading = loaded(view, pod("b-0", ready=False), pod("b-1", ready=False))
    obs = replace(seen(WANTED, STABLE, view, traffic=STABLE), loaded={STABLE.name: loaded(STABLE), view.name: loading})
    begun = after(obs, slow(obs, NOW - 30, NOW))
    phases = [slow(begun, at, NOW + LONG_DEAD + 90).status.phase for at in (NOW + LONG_DEAD - 1, NOW + LONG_DEAD)]
    assert phases == ["Surging", "SurgeFailed"]


def test_slow_reads_end_no_wait_for_a_gpu() -> None:
    of = spec(build={"device": "PreferGPU"})
    view = a_revision(of, "Building", created=NOW - HOUR)
    waits = {"unschedulable_since": NOW - 299, "unschedulable": "no GPU", "device": "gpu"}
    build = job(Task.BUILD, key=f"{identity.build_hash(of)}/0/gpu", of=view, **waits)
    quiet = seen(of, view)
    obs = replace(quiet, jobs=(*quiet.jobs, build))
    assert [len(actions(slow(obs, at, NOW + 60), StartBuild)) for at in (NOW, NOW + 1)] == [0, 1]


# ---------------------------------------------------------------- evidence


def test_a_soak_is_as_long_as_its_evidence_tells() -> None:
    """15 minutes, of which the last one was not told when the reads began that took it."""
    since = NOW - 895
    candidate = soaking(since)
    obs = seen(WANTED, STABLE, candidate, traffic=candidate, evidence={candidate.name: told(candidate, NOW, since)})
    for began in (NOW, NOW + 60):
        plan = slow(obs, began, NOW + 60)
        assert "Promoted" not in [one.reason for one in plan.events], f"told at {NOW}, looked at from {began} on"
    later = replace(obs, evidence={candidate.name: told(candidate, NOW + 60, since)})
    assert "Promoted" in [one.reason for one in slow(later, NOW + 60, NOW + 61).events]


@pytest.mark.parametrize("policy", ["Fail", "Pass"])
def test_what_was_not_asked_for_is_not_missing(policy: str) -> None:
    rule = {"name": "zero", "metric": "ZeroResultRate", "max": "5%", "window": "1m", "warmUp": "0s"}
    of = spec(index={"factory": "HNSW32"}, guardrails={"rules": [{**rule, "consecutive": 1, "onNoData": policy}]})
    candidate = soaking(NOW - 60, of)

    def said(at: float) -> str:
        evidence = {candidate.name: told(candidate, at, at)}
        plan = slow(seen(of, STABLE, candidate, traffic=candidate, evidence=evidence), NOW + 100, NOW + 160)
        written = {one.revision: one.status.rollout for one in actions(plan, WriteRevisionStatus)}
        rollout = written[candidate.name]
        assert rollout is not None
        return next(row.reason for row in rollout.verdicts if row.rule == "zero")

    assert [said(NOW - 1), said(NOW + 100)] == ["TooFewSamples", "NoData"]


# ---------------------------------------------------------------- the loop


class Slow(Stored):
    """A cluster whose answers take so many seconds each."""

    def __init__(self, *objects: Raw) -> None:
        super().__init__(*objects)
        self.now, self.seconds = NOW, 0.0

    def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        self.now += self.seconds
        return super().get(kind, namespace, name)

    def children(self, kind: str, namespace: str, selector: str) -> list[Raw]:
        self.now += self.seconds
        return super().children(kind, namespace, selector)

    def serving(self) -> str:
        service = self.get("Service", NAMESPACE, NAME)
        assert service is not None
        return str(service["spec"]["selector"][labels.REVISION])


def unready(view: RevisionView) -> Iterator[Raw]:
    for number in range(2):
        one = searcher_pod(view, number)
        ready = {"type": "Ready", "status": "False", "lastTransitionTime": to_text(NOW)}
        one["status"]["conditions"] = [c for c in one["status"]["conditions"] if c["type"] != "Ready"] + [ready]
        yield one


def test_the_loop_decides_on_the_time_at_which_its_reads_began() -> None:
    candidate = soaking(NOW - 300)
    said = (Condition(type="Ready", status="True", reason="Serving", last_transition_time="2026-11-20T12:00:00Z"),)
    view = index(WANTED, VectorIndexStatus(source=source(WANTED), conditions=said))
    pods = [*(searcher_pod(STABLE, number) for number in range(2)), *unready(candidate), slice_raw(STABLE)]
    revisions = [revision_raw(STABLE), revision_raw(candidate)]
    deployments = [deployment_raw(STABLE), deployment_raw(candidate)]
    cluster = Slow(index_raw(view), front_raw(candidate), *revisions, *deployments, *pods)
    port: Any = cluster
    sink: Any = type("Sink", (), {"send": lambda *_: None})()
    reconciler = Reconciler(port, Silent(), sink, SETTINGS, clock=lambda: cluster.now)
    reconciler.run(NAMESPACE, NAME)  # sees it for the first time
    cluster.now, cluster.seconds = NOW + 5, 18.0
    reconciler.run(NAMESPACE, NAME)
    cluster.seconds = 0.0
    assert cluster.serving() == candidate.name, "five seconds without a pod, and reads of minutes"
    cluster.now = NOW + 10
    reconciler.run(NAMESPACE, NAME)
    assert cluster.serving() == STABLE.name
