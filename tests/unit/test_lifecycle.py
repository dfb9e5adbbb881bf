"""What `decide` does about hand-made states of the world. How whole rollouts end is for tests/simulator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from observations import (
    AN_HOUR_AGO,
    DATA,
    HOUR,
    NEW_DATA,
    NOW,
    a_revision,
    actions,
    after,
    built,
    condition,
    front,
    index,
    job,
    listing,
    loaded,
    pod,
    report,
    run,
    seen,
    source,
    spec,
)

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import (
    GateStatus,
    Rejection,
    RevisionStatus,
    VectorIndexStatus,
    WorkFailure,
)
from vectorindex_operator.core import identity
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.judging.evidence import PodEvidence
from vectorindex_operator.core.observation import JobState, JobView, Observation, RevisionView, Task
from vectorindex_operator.core.plan import (
    CreateRevision,
    DeleteJob,
    DeleteSearchers,
    EnsureSearchers,
    ForgetRevision,
    MoveTraffic,
    Plan,
    RenewLeases,
    StartBuild,
    StartResolve,
    StartValidation,
    WriteRevisionStatus,
)
from vectorindex_operator.core.traffic import Decision, DecisionKind, Traffic
from vectorindex_searcher.contract import Evidence, EvidenceBucket, ExitCode, Failure, LeaseState

OLD = spec()
NEW = spec(index={"factory": "HNSW32"})
STABLE = a_revision(OLD, "Stable", created=NOW - 48 * HOUR)
SOAKING = a_revision(NEW, "Soaking", created=NOW - 60)
SOAKING = replace(
    SOAKING,
    status=SOAKING.status.model_copy(
        update={"rollout": SOAKING.status.rollout.model_copy(update={"prior": STABLE.name})}  # type: ignore[union-attr]
    ),
)


def recorded(plan: Plan, view: RevisionView) -> RevisionStatus:
    """The status that the plan writes for a revision."""
    return next(one.status for one in actions(plan, WriteRevisionStatus) if one.revision == view.name)


def phase(plan: Plan, view: RevisionView) -> str:
    return recorded(plan, view).phase


def moved(plan: Plan) -> list[str]:
    return [one.decision.to_revision for one in actions(plan, MoveTraffic)]


def counts(view: RevisionView, *, errors: int = 0, since: float = NOW - 600) -> tuple[PodEvidence, ...]:
    """What its two searchers answered: 1,000 queries each in every bucket since then."""
    latency = {188: 1000}
    buckets = tuple(
        EvidenceBucket(
            bucket=b,
            segment="other",
            requests=1000,
            failed_requests=errors,
            queries=1000,
            errors=errors,
            latency=latency,
        )
        for b in range(int(since // 5), int(NOW // 5))
    )
    names = [f"{view.name}-{number}" for number in range(2)]
    return tuple(
        PodEvidence(
            pod=name, evidence=Evidence(pod=name, revision=view.name, now=NOW, buckets=buckets), received_at=NOW
        )
        for name in names
    )


def soak(of: RevisionView = SOAKING, *, errors: int = 0, switched: float = NOW - 600, **changes: Any) -> Observation:
    """STABLE is loaded, `of` has had the traffic since `switched`."""
    rollout = of.status.rollout
    assert rollout is not None
    rollout = rollout.model_copy(update={"switched_at": to_text(switched), "prior": STABLE.name})
    view = replace(of, status=of.status.model_copy(update={"rollout": rollout}))
    evidence = {of.name: counts(of, errors=errors, since=switched)}
    return seen(NEW, STABLE, view, traffic=view, **{"evidence": evidence, **changes})


def with_spec(obs: Observation, **changes: Any) -> Observation:
    return replace(obs, index=replace(obs.index, **changes))


# ---------------------------------------------------------------- before any revision


def test_the_first_pass_lists_the_source_and_says_so() -> None:
    plan = run(Observation(index=index(OLD)))
    (start,) = actions(plan, StartResolve)
    assert start.key == f"{identity.source_hash(OLD)}/"
    assert (plan.status.phase, plan.status.observed_generation) == ("Resolving", 3)
    assert condition(plan.status, "Ready")[:2] == ("False", "NoRevision")


def test_queries_below_the_source_are_left_out_of_its_listing() -> None:
    for place, told in (("docs/asked/", "docs/asked/"), ("docs2/", "")):
        of = spec(gate={"queries": {"s3": {"bucket": "vectors", "prefix": place}}})
        (start,) = actions(run(Observation(index=index(of))), StartResolve)
        (again,) = actions(run(seen(of, a_revision(of, "Pending"))), StartBuild)
        for task in (start.task, again.task):
            assert (task.queries.s3.prefix if task.queries and task.queries.s3 else "") == told


def test_a_listing_makes_a_revision_and_its_revision_a_build() -> None:
    plan = run(seen(OLD))
    (made,) = actions(plan, CreateRevision)
    assert made.digest == identity.digest(OLD, DATA)
    pending = a_revision(OLD, "Pending")
    (start,) = actions(run(seen(OLD, pending)), StartBuild)
    # The default asks for 2Gi and limits nothing: a request is no bound that a build could pass.
    assert (start.gpu, start.task.device, start.task.memory_limit_bytes) == (False, "CPU", 0)
    assert start.task.source.s3 is not None
    assert "secret" not in start.task.model_dump_json().lower()


@pytest.mark.parametrize(
    ("failure", "code", "field"),
    [
        (Failure(reason="AccessDenied", message="403 for bucket vectors", field="spec.source.s3.secretRef",
                 remedy="check the keys of Secret s3"), ExitCode.SOURCE_MISSING, "spec.source.s3.secretRef"),
        (Failure(reason="EmptySource", message="no file below docs/", field="spec.source.s3.prefix",
                 remedy="put Parquet files there, or name another prefix"), ExitCode.BAD_DATA, "spec.source.s3.prefix"),
    ],
)  # fmt: skip
def test_a_source_that_cannot_be_read_is_stalled_with_field_and_remedy(
    failure: Failure, code: ExitCode, field: str
) -> None:
    failed = listing(OLD, state=JobState.FAILED, result=None, failure=failure, exit_code=int(code))
    plan = run(Observation(index=index(OLD), jobs=(failed,)))
    assert plan.actions == ()
    assert (plan.status.phase, plan.status.reason) == ("Stalled", failure.reason)
    stalled = condition(plan.status, "Stalled")
    assert stalled[:2] == ("True", failure.reason)
    assert field in stalled[2]
    assert str(failure.remedy)[1:] in stalled[2]
    assert condition(plan.status, "DatasetResolved")[:2] == ("False", failure.reason)
    assert 0 < plan.requeue_after <= 60  # a fix is picked up by itself
    again = run(Observation(index=index(OLD), jobs=(failed,)), NOW + 61)
    assert [one.failures for one in actions(again, StartResolve)] == [1]


def test_an_outage_of_the_store_is_retried_not_stalled() -> None:
    failed = listing(OLD, state=JobState.FAILED, result=None, exit_code=int(ExitCode.STORE_UNAVAILABLE))
    plan = run(Observation(index=index(OLD), jobs=(failed,)))
    assert (plan.status.phase, condition(plan.status, "Stalled")) == ("Retrying", ("", "", ""))
    assert condition(plan.status, "Reconciling")[0] == "True"


def test_a_source_that_is_missing_for_weeks_is_still_listed() -> None:
    """2.0 ** 1024 is no number: half an hour at a time, that many failures take three weeks."""
    gone = Failure(reason="BucketNotFound", message="no bucket vectors")
    failed = listing(OLD, state=JobState.FAILED, result=None, failure=gone, exit_code=66, failures=5000)
    plan = run(seen(OLD, STABLE, traffic=STABLE, jobs=(failed,)))
    assert 0 < plan.requeue_after <= 300
    later = run(seen(OLD, STABLE, traffic=STABLE, jobs=(failed,)), NOW + 1800)
    assert [one.failures for one in actions(later, StartResolve)] == [5001]


def test_data_of_another_dimension_is_refused() -> None:
    other = listing(OLD, NEW_DATA)
    assert other.result is not None
    other = replace(other, result=other.result.model_copy(update={"dimension": 16}))
    plan = run(seen(OLD, STABLE, traffic=STABLE, jobs=(other,)))
    assert actions(plan, CreateRevision) == []
    assert condition(plan.status, "Stalled")[:2] == ("True", "DimensionChanged")
    assert condition(plan.status, "Ready")[0] == "True"


# ---------------------------------------------------------------- building


def building(of: Any, **changes: Any) -> tuple[RevisionView, Observation]:
    view = a_revision(of, "Building")
    one = job(Task.BUILD, of=view, **{"key": f"{identity.build_hash(of)}/0/cpu", **changes})
    return view, seen(of, view, jobs=(listing(of), one))


def test_an_unknown_factory_ends_stalled_with_field_and_remedy() -> None:
    unknown = Failure(
        reason="UnknownFactory", message="'IVF64,Nope' is no index", field="spec.index.factory", remedy="use Auto"
    )
    view, obs = building(OLD, state=JobState.FAILED, failure=unknown, exit_code=int(ExitCode.BAD_SPEC))
    plan = run(obs)
    status = recorded(plan, view)
    assert (status.phase, status.failure is not None and status.failure.permanent) == ("BuildFailed", True)
    assert condition(plan.status, "Stalled") == (
        "True", "UnknownFactory", "spec.index.factory: 'IVF64,Nope' is no index. Use Auto"
    )  # fmt: skip
    settled = run(after(obs, plan))
    assert (settled.actions, settled.status.phase) == ((), "Stalled")
    edited = after(obs, plan)
    edited = replace(edited, index=replace(edited.index, spec=NEW), jobs=(listing(NEW),))
    assert [one.digest for one in actions(run(edited), CreateRevision)] == [identity.digest(NEW, DATA)]


def test_three_failed_builds_are_free_the_next_wait() -> None:
    for count, waits in ((1, False), (2, False), (3, True)):
        failed = WorkFailure(
            stage="Build", key=identity.build_hash(OLD), count=count, at=to_text(NOW - 30), reason="OutOfMemory",
            message="killed", exit_code=137,
        )  # fmt: skip
        plan = run(seen(OLD, a_revision(OLD, "BuildFailed", failure=failed)))
        assert bool(actions(plan, StartBuild)) is not waits
        assert plan.status.phase == ("Retrying" if waits else "Building")
    more = spec(build={"resources": {"limits": {"memory": "8Gi"}}})
    plan = run(seen(more, a_revision(OLD, "BuildFailed", failure=failed)))
    assert [one.task.memory_limit_bytes for one in actions(plan, StartBuild)] == [8 * 2**30]


@pytest.mark.parametrize(("memory", "limit"), [("2147483648000m", 2**31), ("1.5Gi", 1610612736), ("2G", 2 * 10**9)])
def test_any_memory_that_the_schema_takes_is_understood(memory: str, limit: int) -> None:
    of = spec(build={"resources": {"limits": {"memory": memory}}})
    (start,) = actions(run(seen(of, a_revision(of, "Pending"))), StartBuild)
    assert start.task.memory_limit_bytes == limit


def gpu(device: str, waited: float) -> tuple[RevisionView, JobView, Observation]:
    of = spec(build={"device": device})
    view, obs = building(
        of, key=f"{identity.build_hash(of)}/0/gpu", device="gpu", unschedulable_since=NOW - waited,
        unschedulable="0/3 nodes: Insufficient nvidia.com/gpu",
    )  # fmt: skip
    return view, obs.jobs[1], obs


def test_prefer_gpu_waits_five_minutes_and_then_builds_on_cpu() -> None:
    _, _, obs = gpu("PreferGPU", 299)
    early = run(obs)
    assert actions(early, StartBuild) == []
    assert early.requeue_after == pytest.approx(1.0)
    assert [row.rule for row in early.status.blocked_by] == ["Unschedulable"]
    view, waiting, obs = gpu("PreferGPU", 300)
    plan = run(obs)
    (start,) = actions(plan, StartBuild)
    assert (start.gpu, start.task.device) == (False, "CPU")
    assert "unschedulable" in start.task.device_reason
    assert [one.uid for one in actions(plan, DeleteJob)] == [waiting.uid]
    order = [type(one) for one in plan.actions]
    assert order.index(DeleteJob) < order.index(StartBuild)  # one build at a time
    assert "BuildFellBackToCPU" in [one.reason for one in plan.events]
    assert view.name == start.revision


def test_gpu_only_waits_for_ever_and_says_for_what() -> None:
    _, _, obs = gpu("GPU", 24 * HOUR)
    plan = run(obs)
    assert (actions(plan, StartBuild), actions(plan, DeleteJob)) == ([], [])
    assert plan.status.blocked_by[0].rule == "Unschedulable"
    assert "nvidia.com/gpu" in plan.status.blocked_by[0].message
    assert plan.status.phase == "Building"


def test_a_result_that_nobody_read_is_asked_for_again() -> None:
    _, obs = building(OLD, state=JobState.SUCCEEDED)
    assert len(actions(run(obs), DeleteJob)) == 1
    view, obs = building(OLD, state=JobState.SUCCEEDED, result=built())
    assert phase(run(obs), view) == "Validating"


def test_a_build_that_misses_its_objective_says_so_in_an_event_and_goes_on() -> None:
    for reached, expected in ((False, ["ObjectiveMissed"]), (True, []), (None, [])):
        result = built(objective_reached=reached)
        view, obs = building(OLD, state=JobState.SUCCEEDED, result=result)
        plan = run(obs)
        assert phase(plan, view) == "Validating"
        events = [one for one in plan.events if one.reason == "ObjectiveMissed"]
        assert [one.reason for one in events] == expected
        assert all(one.warning and "index.objective.recall" in one.message for one in events)


def test_a_missing_secret_blocks_by_name() -> None:
    _, obs = building(OLD, waiting='Secret/s3: secret "s3" not found')
    (blocked,) = run(obs).status.blocked_by
    assert (blocked.rule, blocked.message) == ("JobWaiting", 'Secret/s3: secret "s3" not found')


# ---------------------------------------------------------------- the gate


def validating(of: Any, **measured: Any) -> tuple[RevisionView, Observation]:
    view = a_revision(of, "Validating")
    one = job(
        Task.VALIDATE, JobState.SUCCEEDED, of=view, key=f"{identity.gate_hash(of)}/0", result=report(of, **measured)
    )
    return view, seen(of, view, jobs=(listing(of), one))


def test_the_gate_is_told_what_to_tune_segments_for() -> None:
    queries = {"s3": {"bucket": "queries"}, "segmentColumn": "kind"}
    wanted = spec(segments=[{"name": "fr"}], gate={"queries": queries, "segments": [{"name": "fr", "min": 0.98}]})
    (start,) = actions(run(seen(wanted, a_revision(wanted, "Validating"))), StartValidation)
    assert (start.task.segments, start.task.segment_targets) == (("fr",), {"fr": 0.98})
    assert start.task.gate_hash == identity.gate_hash(wanted)


def test_the_gate_is_told_what_to_tune_the_default_point_for() -> None:
    queries = {"queries": {"s3": {"bucket": "queries"}}}
    for gate, expected in (({}, None), (queries, 0.96), ({**queries, "recall": {"min": 0.98}}, 0.98)):
        wanted = spec(gate=gate)
        (start,) = actions(run(seen(wanted, a_revision(wanted, "Validating"))), StartValidation)
        assert start.task.objective == expected
    fixed = spec(index={"factory": "HNSW32", "searchParams": {"efSearch": 64}}, gate=queries)
    (start,) = actions(run(seen(fixed, a_revision(fixed, "Validating"))), StartValidation)
    assert start.task.objective is None


def test_the_gate_asks_the_pods_of_stable_that_serve_and_nobody_without_one() -> None:
    wanted = spec(gate={"queries": {"live": {"minQueries": 300}}})
    stable, fresh = a_revision(wanted, "Stable"), a_revision(wanted, "Validating", data=NEW_DATA)
    up = loaded(stable, pod("one", address="10.0.0.1"), pod("two", address="10.0.0.2", ready=False))
    obs = replace(seen(wanted, stable, fresh, traffic=stable, data=NEW_DATA), loaded={stable.name: up})
    (start,) = actions(run(obs), StartValidation)
    source = start.task.live
    assert source is not None
    assert (source.index_uid, source.revision, source.addresses) == ("uid-docs", stable.name, ("10.0.0.1",))
    assert (source.min_queries, start.task.queries, start.task.objective) == (300, None, 0.96)
    (first,) = actions(run(seen(wanted, a_revision(wanted, "Validating"))), StartValidation)
    assert first.task.live is not None
    assert (first.task.live.revision, first.task.live.addresses) == ("", ())
    (plain,) = actions(run(seen(OLD, a_revision(OLD, "Validating"))), StartValidation)
    assert plain.task.live is None


def test_each_look_in_a_row_asks_the_gate_for_more_certainty() -> None:
    """An index at its floor must not pass by being tried often: what counts is looks at its recall, and only these."""

    def looked(
        of: Any, data: str, reason: str = "RecallBelowMin", hours: float = 1, phase: str = "Rejected"
    ) -> RevisionView:
        said = GateStatus(
            gate_hash="g",
            thresholds_hash="t",
            verdict="Fail",
            reason=reason,
            message="",
            at=to_text(NOW - hours * HOUR),
        )
        return a_revision(of, phase, data=data * 32, gate=said, promoted_at=None)

    fresh = a_revision(OLD, "Validating", data=NEW_DATA)
    earlier = [
        looked(OLD, "a1"),
        looked(OLD, "a2", "SegmentRecallBelowMin"),
        looked(OLD, "a3", "RecallUncertain", phase="Superseded"),  # held, then the data changed
        looked(NEW, "a4"),  # another index
        looked(OLD, "a5", "CountDropped"),  # no luck in that
        looked(OLD, "a7", "LiveRecallBelowMin"),  # the gate's own queries passed; who asks others must not undo that
        looked(OLD, "a8", "LiveRecallUncertain"),
        looked(OLD, "a6", hours=72),  # before one of this spec was promoted
    ]
    for others, expected in ((earlier, 3), (earlier[3:], None)):
        (start,) = actions(run(seen(OLD, STABLE, *others, fresh, traffic=STABLE, data=NEW_DATA)), StartValidation)
        assert start.task.rejections == expected
    other = a_revision(NEW, "Stable", promoted_at=to_text(NOW))
    (start,) = actions(run(seen(OLD, other, *earlier, fresh, traffic=other, data=NEW_DATA)), StartValidation)
    assert start.task.rejections == 4, "a promotion of another index says nothing of this one"
    many = [looked(OLD, f"b{number}") for number in range(1, 10)]
    (start,) = actions(run(seen(OLD, STABLE, *many, fresh, traffic=STABLE, data=NEW_DATA)), StartValidation)
    assert start.task.rejections == 6, "no number of queries could prove it any more"


@pytest.mark.parametrize(("recall", "low"), [(0.98, 0.94), (0.93, 0.92)], ids=["held", "rejected"])
def test_the_same_index_asked_other_queries_is_looked_at_again(recall: float, low: float) -> None:
    """Given until some let it pass, each set of queries had the chance of the first: with ten, two of five
    indexes passed that were at their floor."""
    sets = [spec(gate={"queries": {"s3": {"bucket": f"queries-{number}"}}}) for number in range(4)]
    view = a_revision(sets[0], "Validating")
    asked = []
    for of in sets:
        obs = seen(of, view)
        plan = run(obs)
        obs = after(obs, plan)
        if not actions(plan, StartValidation):  # what was rejected is taken up, and measured in the next pass
            plan = run(obs)
        (start,) = actions(plan, StartValidation)
        asked.append(start.task.rejections)
        done = job(
            Task.VALIDATE, JobState.SUCCEEDED, of=view, key=f"{identity.gate_hash(of)}/0",
            result=report(of, recall, low),
        )  # fmt: skip
        obs = replace(after(obs, plan), jobs=(*obs.jobs, done))
        measured = run(obs)
        assert recorded(measured, view).gate is not None
        view = after(obs, measured).revisions[view.name]
    assert asked == [None, 1, 2, 3]
    newer = a_revision(sets[3], "Validating", data=NEW_DATA)
    (start,) = actions(run(seen(sets[3], view, newer, data=NEW_DATA)), StartValidation)
    assert start.task.rejections == 4


def test_a_built_revision_is_measured_and_a_proven_one_surges() -> None:
    fresh = a_revision(OLD, "Validating")
    (start,) = actions(run(seen(OLD, fresh)), StartValidation)
    assert start.task.gate_hash == identity.gate_hash(OLD)
    assert start.task.segment_targets == {}
    view, obs = validating(OLD)
    plan = run(obs)
    assert phase(plan, view) == "Surging"
    assert [one.revision for one in actions(plan, EnsureSearchers)] == [view.name]
    assert moved(plan) == []


def test_a_report_of_another_gate_is_not_judged() -> None:
    """However good it is: it was measured by something else. Another release may have written it under this key."""
    view, obs = validating(OLD)
    assert recorded(run(obs), view).gate is not None
    view, obs = validating(OLD, gate_hash="another")
    plan = run(obs)
    written = [one.status for one in actions(plan, WriteRevisionStatus) if one.revision == view.name]
    assert not [one for one in written if one.gate is not None or one.report is not None]
    assert [one.name for one in actions(plan, DeleteJob)] == [obs.jobs[-1].name]


def test_a_failed_gate_rejects_and_the_traffic_stays() -> None:
    view, obs = validating(NEW, recall=0.9, low=0.88)
    obs = replace(obs, revisions={**obs.revisions, STABLE.name: STABLE}, traffic=front(STABLE),
                  loaded={STABLE.name: loaded(STABLE)})  # fmt: skip
    plan = run(obs)
    status = recorded(plan, view)
    assert (status.phase, status.rejected is not None and status.rejected.stage) == ("Rejected", "Gate")
    assert (moved(plan), [one.revision for one in actions(plan, EnsureSearchers)]) == ([], [STABLE.name])
    assert condition(plan.status, "Stalled")[:2] == ("True", "RecallBelowMin")
    assert condition(plan.status, "Ready")[0] == "True"
    settled = after(obs, plan)
    assert run(settled).status == run(after(settled, run(settled))).status
    lower = spec(index={"factory": "HNSW32"}, gate={"recall": {"min": 0.85}})
    again = run(with_spec(settled, spec=lower))
    assert (phase(again, view), actions(again, StartBuild), actions(again, StartValidation)) == ("Surging", [], [])


def test_a_column_of_another_type_than_stables_is_rejected_and_the_traffic_stays() -> None:
    """A build of data whose language column is nothing but null: after a switch every filter on it would be refused."""
    columns = {"source": {"columns": {"metadata": ["lang"]}}}
    of = spec(**columns)
    serving = a_revision(of, "Stable", created=NOW - 48 * HOUR, report=report(of, column_types="s"))
    view, obs = validating(spec(**columns, index={"factory": "HNSW32"}), column_types="n")
    obs = replace(obs, revisions={**obs.revisions, serving.name: serving}, traffic=front(serving),
                  loaded={serving.name: loaded(serving)})  # fmt: skip
    plan = run(obs)
    status = recorded(plan, view)
    assert (status.phase, status.rejected is not None and status.rejected.reason) == ("Rejected", "ColumnTypeChanged")
    assert moved(plan) == []
    meant = spec(**columns, index={"factory": "HNSW32"}, gate={"allowColumnChanges": ["lang"]})
    again = run(with_spec(after(obs, plan), spec=meant))
    assert (phase(again, view), actions(again, StartValidation)) == ("Surging", [])


def test_an_inconclusive_gate_holds_or_rejects_as_asked() -> None:
    view, obs = validating(OLD, recall=0.96, low=0.94)
    plan = run(obs)
    assert (phase(plan, view), actions(plan, EnsureSearchers)) == ("Validating", [])
    assert condition(plan.status, "Validated")[:2] == ("Unknown", "RecallUncertain")
    assert [row.rule for row in plan.status.blocked_by] == ["GateInconclusive"]
    view, obs = validating(spec(gate={"onInconclusive": "Reject"}), recall=0.96, low=0.94)
    assert phase(run(obs), view) == "Rejected"


def test_changed_queries_measure_again_and_rebuild_nothing() -> None:
    of = spec(gate={"k": 5})
    view = a_revision(OLD, "Validated")
    plan = run(seen(of, view))
    (start,) = actions(plan, StartValidation)
    assert (start.task.gate_hash, actions(plan, StartBuild)) == (identity.gate_hash(of), [])


# ---------------------------------------------------------------- loading and the switch


def surging(*pods: Any, first: bool = False) -> tuple[RevisionView, Observation]:
    view = a_revision(NEW, "Surging", created=NOW - 60)
    obs = seen(NEW, view, traffic=None) if first else seen(NEW, STABLE, view, traffic=STABLE)
    return view, replace(obs, loaded={**obs.loaded, view.name: loaded(view, *pods)} if pods else obs.loaded)


def test_the_traffic_moves_when_all_pods_are_ready_and_not_before() -> None:
    view, obs = surging(pod("a"), pod("b", ready=False))
    assert moved(run(obs)) == []
    view, obs = surging(pod("a"), pod("b", deleting=True))
    assert moved(run(obs)) == []
    view, obs = surging(pod("a"), pod("b"))
    plan = run(obs)
    (move,) = actions(plan, MoveTraffic)
    assert (move.decision.kind, move.decision.from_revision, move.decision.to_revision) == (
        "Switch",
        STABLE.name,
        view.name,
    )
    assert move.resource_version == "41"
    assert plan.actions[0] == move
    assert phase(plan, view) == "Soaking"
    assert STABLE.name in [one.revision for one in actions(plan, EnsureSearchers)]  # the way back stays loaded
    assert actions(plan, DeleteSearchers) == []


def test_pods_that_refuse_reject_the_revision_but_one_bad_pod_does_not() -> None:
    low = Failure(reason="CanaryRecall", message="canary recall 0.81, 0.975 is needed")
    bad: dict[str, Any] = {"ready": False, "failure": low, "restarts": 2}
    view, obs = surging(pod("a", **bad), pod("b", ready=False))
    assert run(obs).status.phase == "Surging"
    view, obs = surging(pod("a", **bad), pod("b", **{**bad, "restarts": 1}))
    assert run(obs).status.phase == "Surging"
    view, obs = surging(pod("a", **bad), pod("b", **bad))
    plan = run(obs)
    status = recorded(plan, view)
    assert (status.phase, status.rejected is not None and status.rejected.reason) == ("Rejected", "CanaryRecall")
    assert moved(plan) == []


def test_no_room_and_no_secret_block_and_the_deadline_does_not_run() -> None:
    for changes, rule in (
        ({"ready": False, "scheduled_at": None, "unschedulable": "0/3 nodes"}, "Unschedulable"),
        ({"ready": False, "waiting": 'Secret/s3: secret "s3" not found'}, "PodWaiting"),
    ):
        view, obs = surging(pod("a", **changes), pod("b", **changes))
        plan = run(obs, NOW + 24 * HOUR)
        assert [row.rule for row in plan.status.blocked_by] == [rule]
        assert plan.status.phase == "Surging"
        assert view.name == plan.status.candidate


def test_searchers_that_never_get_ready_fail_the_surge() -> None:
    view, obs = surging(pod("a", ready=False), pod("b", ready=False))
    first = run(obs)
    rollout = recorded(first, view).rollout
    assert rollout is not None
    assert rollout.progress_since == to_text(NOW)
    assert run(after(obs, first), NOW + 599).status.phase == "Surging"
    last = run(after(obs, first), NOW + 600)
    assert phase(last, view) == "SurgeFailed"
    assert condition(last.status, "Stalled")[:2] == ("True", "ProgressDeadline")


# ---------------------------------------------------------------- soak, promotion, rollback


def test_the_first_revision_has_nothing_to_go_back_to_and_does_not_soak() -> None:
    view = a_revision(OLD, "Soaking", created=NOW - 5)
    plan = run(seen(OLD, view, traffic=view))
    assert phase(plan, view) == "Stable"
    assert next(one.message for one in plan.events if one.reason == "Promoted").startswith("NoPrior")
    assert condition(plan.status, "RolledOut")[0] == "True"


def test_a_good_soak_promotes_after_its_time_only() -> None:
    assert run(soak()).status.phase == "Soaking"  # 10 of 15 minutes
    plan = run(soak(switched=NOW - 16 * 60))
    assert (phase(plan, SOAKING), phase(plan, STABLE)) == ("Stable", "Superseded")
    records = [one.revision for one in actions(plan, WriteRevisionStatus)]
    assert records.index(SOAKING.name) < records.index(STABLE.name)  # never a moment without a stable one


@pytest.mark.parametrize(("fewest", "ends_as"), [(100_000, "Stable"), (1_000_000, "Soaking")])
def test_a_soak_ends_with_as_many_queries_as_were_asked_for(fewest: int, ends_as: str) -> None:
    rollout = SOAKING.status.rollout
    assert rollout is not None
    needs = rollout.settings.model_copy(
        update={"soak": rollout.settings.soak.model_copy(update={"min_queries": fewest})}
    )
    status = SOAKING.status.model_copy(update={"rollout": rollout.model_copy(update={"settings": needs})})
    obs = soak(replace(SOAKING, status=status), switched=NOW - 16 * 60)  # two pods that answer 200 queries a second
    assert after(obs, run(obs)).revisions[SOAKING.name].status.phase == ends_as


def test_a_dead_stable_is_not_loaded_again_by_the_promotion_that_ends_its_time() -> None:
    dead = replace(STABLE, status=STABLE.status.model_copy(update={"unloaded_at": to_text(NOW - 300)}))
    obs = soak(switched=NOW - 16 * 60)
    revisions = {**obs.revisions, dead.name: dead}
    obs = replace(obs, revisions=revisions, loaded={SOAKING.name: obs.loaded[SOAKING.name]})
    plan = run(obs)
    assert phase(plan, SOAKING) == "Stable"
    assert [one.revision for one in actions(plan, EnsureSearchers)] == [SOAKING.name]


def test_doubt_is_never_success() -> None:
    plan = run(soak(errors=21, switched=NOW - 16 * 60))  # the limit is 20 of 1,000
    assert (plan.status.phase, moved(plan)) == ("Soaking", [])
    assert condition(plan.status, "GuardrailsHealthy")[0] == "Unknown"


def test_no_evidence_is_never_success() -> None:
    plan = run(soak(switched=NOW - 7 * HOUR, evidence={}))
    assert (plan.status.phase, moved(plan)) == ("Soaking", [])
    assert STABLE.name in [one.revision for one in actions(plan, EnsureSearchers)]


def test_a_guardrail_that_fails_goes_back_in_one_write_first_of_all() -> None:
    plan = run(soak(errors=300))
    (move,) = actions(plan, MoveTraffic)
    assert plan.actions[0] == move
    assert (move.decision.kind, move.decision.from_revision, move.decision.to_revision, move.decision.rule) == (
        "RollBack", SOAKING.name, STABLE.name, "errors",
    )  # fmt: skip
    status = recorded(plan, SOAKING)
    assert (status.phase, status.rejected is not None and status.rejected.stage) == ("RolledBack", "Rollout")
    assert condition(plan.status, "Stalled")[:2] == ("True", "RolledBack")
    assert condition(plan.status, "Ready")[0] == "True"
    assert (plan.status.stable, plan.status.candidate) == (STABLE.name, "")


def test_dying_right_after_the_write_of_a_rollback_loses_nothing() -> None:
    obs = soak(errors=300)
    (move,) = actions(run(obs), MoveTraffic)
    reborn = replace(obs, traffic=Traffic.to(STABLE.name, "42", move.decision), evidence={})
    plan = run(reborn)
    assert (phase(plan, SOAKING), moved(plan)) == ("RolledBack", [])
    settled = run(after(reborn, plan))
    assert [one for one in settled.actions if not isinstance(one, EnsureSearchers | RenewLeases)] == []


def test_a_target_without_pods_is_loaded_first_and_the_traffic_waits() -> None:
    obs = soak(errors=300)
    cold = run(replace(obs, loaded={SOAKING.name: obs.loaded[SOAKING.name]}))
    assert moved(cold) == []
    assert [row.rule for row in cold.status.blocked_by][:1] == ["RollbackTargetNotReady"]
    assert STABLE.name in [one.revision for one in actions(cold, EnsureSearchers)]


def test_a_trip_that_waits_for_its_target_is_remembered_when_its_evidence_is_gone() -> None:
    """Searchers keep an hour, and a target may take longer; nor does an operator that restarts ask them again."""
    obs = soak(errors=300)
    cold = replace(obs, loaded={SOAKING.name: obs.loaded[SOAKING.name]})
    waits = after(cold, run(cold))
    assert moved(run(replace(waits, evidence={}))) == []
    assert moved(run(replace(waits, evidence={}, loaded=obs.loaded))) == [STABLE.name]


def test_a_rejected_digest_is_not_tried_again() -> None:
    why = Rejection(stage="Rollout", reason="ErrorRate", message="30 %", at=AN_HOUR_AGO)
    bad = a_revision(NEW, "RolledBack", rejected=why)
    plan = run(seen(NEW, STABLE, bad, traffic=STABLE))
    assert [one for one in plan.actions if not isinstance(one, EnsureSearchers)] == []
    assert (plan.status.phase, plan.status.reason) == ("RolledBack", "ErrorRate")
    newer = run(seen(NEW, STABLE, bad, traffic=STABLE, data=NEW_DATA))
    assert [one.digest for one in actions(newer, CreateRevision)] == [identity.digest(NEW, NEW_DATA)]


def external(rule: str = "errors") -> Observation:
    at = NOW - 900
    back = Decision(DecisionKind.ROLL_BACK, SOAKING.name, STABLE.name, rule, "ErrorRate", "30 %", at)
    why = Rejection(stage="Rollout", reason="ErrorRate", message="30 %", at=to_text(at))
    bad = a_revision(NEW, "RolledBack", rejected=why, settled_at=to_text(at), lost_traffic_at=to_text(at))
    kept = STABLE.status.model_copy(update={"restored_at": to_text(at), "settled_at": to_text(at)})
    restored = replace(STABLE, status=kept)
    evidence = {STABLE.name: counts(STABLE, errors=300)}
    obs = seen(NEW, restored, bad, traffic=restored, evidence=evidence)
    return replace(obs, traffic=front(restored, back))


def test_when_the_target_breaches_the_same_rule_the_cause_is_outside() -> None:
    plan = run(external())
    rejected = recorded(plan, SOAKING).rejected
    assert rejected is not None
    assert (rejected.stage, rejected.reason) == ("External", "External")
    assert moved(plan) == []
    assert "External" in [one.reason for one in plan.events]
    assert [one for one in run(after(external(), plan)).actions if not isinstance(one, EnsureSearchers)] == []
    other = run(external(rule="latency"))
    assert [one for one in actions(other, WriteRevisionStatus) if one.status.rejected] == []


def test_a_stable_revision_that_turns_bad_goes_back_once() -> None:
    older = a_revision(OLD, "Superseded", created=NOW - 48 * HOUR)
    fresh = a_revision(NEW, "Stable", created=NOW - HOUR)
    evidence = {fresh.name: counts(fresh, errors=300)}
    obs = seen(NEW, older, fresh, traffic=fresh, evidence=evidence)
    obs = replace(obs, loaded={**obs.loaded, older.name: loaded(older)})
    assert moved(run(obs)) == [older.name]
    late = replace(fresh, status=fresh.status.model_copy(update={"promoted_at": to_text(NOW - 25 * HOUR)}))
    assert moved(run(replace(obs, revisions={older.name: older, late.name: late}))) == []
    observed = spec(index={"factory": "HNSW32"}, guardrails={"steadyState": "Observe"})
    watching = a_revision(observed, "Stable", created=NOW - HOUR)
    assert moved(run(replace(obs, revisions={older.name: older, watching.name: watching}))) == []


# ---------------------------------------------------------------- edits and new data during a rollout


def test_going_back_to_the_stable_spec_during_a_soak_reverts_without_a_rejection() -> None:
    plan = run(with_spec(soak(), spec=OLD))
    (move,) = actions(plan, MoveTraffic)
    assert (move.decision.kind, move.decision.rule, move.decision.to_revision) == ("RollBack", "Reverted", STABLE.name)
    status = recorded(plan, SOAKING)
    assert (status.phase, status.rejected) == ("Superseded", None)


def test_an_edit_during_a_soak_is_built_meanwhile_and_replaces_the_candidate_when_proven() -> None:
    third = spec(index={"factory": "Flat"})
    obs = with_spec(soak(), spec=third)
    plan = run(obs)
    assert (len(actions(plan, CreateRevision)), moved(plan)) == (1, [])
    proven = a_revision(third, "Validated")
    plan = run(replace(obs, revisions={**obs.revisions, proven.name: proven}))
    assert moved(plan) == [STABLE.name]
    assert phase(plan, SOAKING) == "Superseded"


def test_new_data_during_a_soak_waits_until_it_is_decided() -> None:
    newer = a_revision(NEW, "Validated", data=NEW_DATA)
    obs = soak()
    obs = replace(
        obs,
        revisions={**obs.revisions, newer.name: newer},
        jobs=(listing(NEW, NEW_DATA),),
        index=index(NEW, VectorIndexStatus(source=source(NEW, NEW_DATA))),
    )
    plan = run(obs)
    assert moved(plan) == []
    assert [row.rule for row in plan.status.blocked_by] == ["CandidateUndecided"]


def test_an_edit_of_replicas_reaches_the_searchers_at_once() -> None:
    of = spec(searcher={"replicas": 5})
    plan = run(seen(of, STABLE, traffic=STABLE))
    assert [(type(one), one.live.searcher.replicas) for one in plan.actions if isinstance(one, EnsureSearchers)] == [
        (EnsureSearchers, 5)
    ]
    assert [one for one in plan.actions if not isinstance(one, EnsureSearchers)] == []


# ---------------------------------------------------------------- verbs


def asked(obs: Observation, name: str, argument: str = "") -> Plan:
    return run(with_spec(obs, commands=(Command(name, argument, "n1"),)))


@pytest.mark.parametrize(
    ("verb", "argument", "says"),
    [
        ("rollback", "", "nothing to roll back to: no earlier proven revision"),
        ("rollback", "docs-ffffffff", "nothing to roll back to: revision 'docs-ffffffff' is not one to go back to"),
        ("retry", "", "nothing has failed"),
        ("promote", "", "unknown command: use one of rollback, retry, refresh"),
    ],
)
def test_a_verb_that_does_not_apply_is_refused_with_a_reason(verb: str, argument: str, says: str) -> None:
    obs = seen(OLD, STABLE, traffic=STABLE)
    plan = asked(obs, verb, argument)
    (answer,) = plan.status.verbs
    assert (answer.verb, answer.nonce, answer.result, answer.message) == (verb, "n1", "Refused", says)
    assert [(one.warning, one.reason) for one in plan.events] == [(True, "CommandRefused")]
    assert moved(plan) == []
    told = with_spec(after(obs, plan), commands=(Command(verb, argument, "n1"),))
    assert run(told).events == ()  # consumed once
    assert run(told).status == plan.status


@pytest.mark.parametrize("verb", ["rollback", "retry", "refresh"])
def test_a_request_without_a_nonce_is_refused(verb: str) -> None:
    """The decision that an operator makes by itself has none either: it was taken for the answer."""
    obs = with_spec(soak(), commands=(Command(verb, STABLE.name, ""),))
    (answer,) = run(obs).status.verbs
    assert (answer.result, answer.message) == ("Refused", "there is no nonce: write NONCE or ARGUMENT@NONCE")


def test_rollback_before_there_is_any_traffic_is_refused() -> None:
    assert asked(seen(OLD), "rollback").status.verbs[0].message == "no revision has the traffic"


def test_rollback_goes_to_the_stable_revision_and_is_one_step_however_often_it_is_read() -> None:
    obs = soak()
    plan = asked(obs, "rollback")
    (move,) = actions(plan, MoveTraffic)
    assert (move.decision.to_revision, move.decision.rule, move.decision.nonce) == (STABLE.name, "Manual", "n1")
    assert plan.status.verbs[0].result == "Done"
    reborn = replace(obs, traffic=Traffic.to(STABLE.name, "42", move.decision))
    again = asked(reborn, "rollback")
    assert (moved(again), again.status.verbs[0].result) == ([], "Done")


def test_retry_tries_a_rejected_revision_again() -> None:
    why = Rejection(stage="Rollout", reason="ErrorRate", message="30 %", at=AN_HOUR_AGO)
    bad = a_revision(NEW, "RolledBack", rejected=why)
    plan = asked(seen(NEW, STABLE, bad, traffic=STABLE), "retry")
    status = recorded(plan, bad)
    assert status.rejected is None
    assert status.phase in ("Pending", "Validating")
    assert plan.status.verbs[0].result == "Done"
    assert actions(plan, StartBuild) == []  # the artifact is there


def test_retry_forgets_no_look_at_its_recall() -> None:
    """Else each retry would give the next queries the chance of the first."""
    said = GateStatus(
        gate_hash=identity.gate_hash(NEW), thresholds_hash="t", verdict="Fail", reason="RecallBelowMin", message="",
        at=AN_HOUR_AGO, looks=2,
    )  # fmt: skip
    why = Rejection(stage="Gate", reason="RecallBelowMin", message="0.93", at=AN_HOUR_AGO)
    bad = a_revision(NEW, "Rejected", rejected=why, gate=said, report=report(NEW, 0.93, 0.92))
    obs = seen(NEW, STABLE, bad, traffic=STABLE)
    plan = asked(obs, "retry")
    assert (recorded(plan, bad).rejected, recorded(plan, bad).report) == (None, None)
    other = spec(index={"factory": "HNSW32"}, gate={"queries": {"s3": {"bucket": "others"}}})
    (start,) = actions(run(with_spec(after(obs, plan), spec=other)), StartValidation)
    assert start.task.rejections == 3


# ---------------------------------------------------------------- precedence


def test_a_rollback_by_a_person_beats_a_soak_that_passed() -> None:
    plan = asked(soak(switched=NOW - 16 * 60), "rollback")
    assert (moved(plan), phase(plan, SOAKING)) == ([STABLE.name], "RolledBack")


def test_a_guardrail_beats_an_edit_and_a_promotion() -> None:
    third = spec(index={"factory": "Flat"})
    plan = run(with_spec(soak(errors=300, switched=NOW - 16 * 60), spec=third))
    (move,) = actions(plan, MoveTraffic)
    assert (move.decision.rule, phase(plan, SOAKING)) == ("errors", "RolledBack")


def test_deletion_beats_everything_and_does_nothing() -> None:
    plan = run(with_spec(soak(errors=300), deleting=True, commands=(Command("rollback", "", "n1"),)))
    assert (plan.actions, plan.events) == ((), ())
    assert plan.status == soak().index.status


def test_a_front_service_of_somebody_else_stops_what_is_new() -> None:
    plan = run(replace(soak(errors=300), traffic=Traffic(True, owned=False)))
    assert (plan.forward, moved(plan)) == ((), [])
    status, reason, message = condition(plan.status, "Stalled")
    assert (status, reason) == ("True", "NameConflict")
    assert "Service/docs" in message
    assert 0 < plan.requeue_after <= 60  # nobody tells us when the other object is gone


def test_a_stored_spec_that_cannot_be_read_stops_nothing_that_serves() -> None:
    obs = with_spec(seen(OLD, STABLE, traffic=STABLE), spec=None, spec_error="spec.gate.k: not a number (got 'ten')")
    plan = run(obs)
    assert (plan.forward, plan.status.phase, plan.status.reason) == ((), "Stalled", "InvalidSpec")
    assert condition(plan.status, "Stalled") == ("True", "InvalidSpec", "spec.gate.k: not a number (got 'ten')")
    assert run(after(obs, plan), NOW + HOUR).status == plan.status


# ---------------------------------------------------------------- the rest


def test_a_service_that_was_changed_by_hand_is_put_back() -> None:
    obs = seen(OLD, STABLE, traffic=STABLE)
    for broken in (Traffic(), replace(front(STABLE), shares={"elsewhere": 100})):
        (move,) = actions(run(replace(obs, traffic=broken)), MoveTraffic)
        assert (move.decision.to_revision, move.decision.rule) == (STABLE.name, "Restored")
        assert move.resource_version == broken.resource_version


def test_what_lost_the_traffic_drains_before_it_is_retired() -> None:
    def lost(seconds: float) -> Plan:
        gone = a_revision(OLD, "Superseded", lost_traffic_at=to_text(NOW - seconds))
        now = a_revision(NEW, "Stable")
        obs = seen(NEW, gone, now, traffic=now)
        return run(replace(obs, loaded={**obs.loaded, gone.name: loaded(gone)}))

    assert (actions(lost(44), DeleteSearchers), len(actions(lost(46), DeleteSearchers))) == ([], 1)
    assert {one.state for one in actions(lost(10), RenewLeases)} == {LeaseState.SERVING, LeaseState.DRAINING}


def test_history_keeps_as_many_as_asked_and_never_what_is_in_use() -> None:
    of = spec(history=1)
    old = [a_revision(of, "Superseded", data=f"{n:02}" * 32, created=NOW - n * HOUR) for n in range(2, 6)]
    stable = a_revision(of, "Stable")
    plan = run(seen(of, stable, *old, traffic=stable))
    assert {one.name for one in actions(plan, ForgetRevision)} == {view.name for view in old[1:]}


def test_what_the_spec_asks_for_is_not_forgotten_although_its_build_fails() -> None:
    """It would be made, and built in vain, at every pass."""
    of, another = spec(history=1), spec(history=1, index={"factory": "HNSW32"})
    failure = WorkFailure(
        stage="Build",
        key=identity.build_hash(of),
        count=1,
        at=AN_HOUR_AGO,
        reason="BadSpec",
        message="",
        permanent=True,
    )
    asked_for = a_revision(of, "BuildFailed", created=NOW - 9 * HOUR, failure=failure)
    newer = a_revision(another, "BuildFailed", created=NOW - HOUR, failure=failure)
    newest = a_revision(another, "BuildFailed", data=NEW_DATA, created=NOW - 60, failure=failure)
    plan = run(seen(of, asked_for, newer, newest))
    assert [one.name for one in actions(plan, ForgetRevision)] == [newer.name]


def test_a_quiet_world_stays_quiet() -> None:
    obs = seen(OLD, STABLE, traffic=STABLE)
    first = run(obs)
    assert [type(one) for one in first.actions] == [EnsureSearchers]  # which the executor compares and does not write
    settled = run(after(obs, first), NOW + 100)
    assert settled.actions == first.actions
    assert (settled.status, settled.events) == (first.status, ())
