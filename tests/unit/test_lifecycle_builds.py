"""What `decide` does before a revision has pods: the listing of the source, builds, the gate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from observations import (
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
    moved,
    phase,
    pod,
    recorded,
    report,
    run,
    seen,
    spec,
    with_spec,
)

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import (
    GateStatus,
    WorkFailure,
)
from vectorindex_operator.core import identity
from vectorindex_operator.core.observation import JobState, JobView, Observation, RevisionView, Task
from vectorindex_operator.core.plan import (
    CreateRevision,
    DeleteJob,
    EnsureSearchers,
    StartBuild,
    StartResolve,
    StartValidation,
    WriteRevisionStatus,
)
from vectorindex_searcher.contract import ExitCode, Failure

OLD = spec()
NEW = spec(index={"factory": "HNSW32"})
STABLE = a_revision(OLD, "Stable", created=NOW - 48 * HOUR)


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
