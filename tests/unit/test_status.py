"""The status: kstatus rules, times of conditions, and that an unchanged world writes nothing."""

from __future__ import annotations

from collections.abc import Callable
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
    after,
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
from vectorindex_operator.api.v1alpha1 import Condition, GateStatus, Rejection, Trip, VectorIndexStatus, WorkFailure
from vectorindex_operator.core import identity
from vectorindex_operator.core.observation import JobState, Observation, Task
from vectorindex_operator.core.traffic import Traffic
from vectorindex_operator.telemetry import CONDITIONS
from vectorindex_searcher.contract import Failure

OLD, NEW = spec(), spec(index={"factory": "HNSW32"})
STABLE = a_revision(OLD, "Stable", created=NOW - 48 * HOUR)
REJECTED = Rejection(stage="Gate", reason="RecallBelowMin", message="recall 0.9", at=AN_HOUR_AGO)
FAILED = WorkFailure(
    stage="Build", key=identity.build_hash(NEW), count=1, at=AN_HOUR_AGO, reason="NonFiniteVector",
    message="row 7 holds NaN", exit_code=65, permanent=True,
)  # fmt: skip
VERDICT = GateStatus(
    gate_hash=identity.gate_hash(NEW), thresholds_hash=identity.thresholds_hash(NEW), verdict="Fail",
    reason=REJECTED.reason, message=REJECTED.message, at=AN_HOUR_AGO,
)  # fmt: skip


def gate_in_doubt() -> Observation:
    view = a_revision(NEW, "Validating")
    key = f"{identity.gate_hash(NEW)}/0"
    result = report(NEW, recall=0.96, low=0.94)
    done = job(Task.VALIDATE, JobState.SUCCEEDED, of=view, key=key, result=result)
    return seen(NEW, STABLE, view, traffic=STABLE, jobs=(listing(NEW), done))


def no_bucket() -> Observation:
    gone = Failure(reason="BucketNotFound", message="no bucket vectors")
    failed = listing(OLD, state=JobState.FAILED, result=None, failure=gone, exit_code=66)
    return Observation(index=index(OLD), jobs=(failed,))


# name -> world, and what kstatus reads of it: Ready, RolledOut, Reconciling, Stalled ("" is absent)
WORLDS: dict[str, tuple[Callable[[], Observation], tuple[str, str, str, str]]] = {
    "nothing yet": (lambda: Observation(index=index(OLD)), ("False", "False", "True", "")),
    "no bucket": (no_bucket, ("False", "False", "", "True")),
    "first build": (lambda: seen(OLD, a_revision(OLD, "Pending")), ("False", "False", "True", "")),
    "stable": (lambda: seen(OLD, STABLE, traffic=STABLE), ("True", "True", "", "")),
    "next build": (
        lambda: seen(NEW, STABLE, a_revision(NEW, "Pending"), traffic=STABLE), ("True", "False", "True", ""),
    ),
    "surging": (
        lambda: replace(
            seen(NEW, STABLE, a_revision(NEW, "Surging"), traffic=STABLE), loaded={STABLE.name: loaded(STABLE)}
        ), ("True", "False", "True", ""),
    ),
    "gate in doubt": (gate_in_doubt, ("True", "False", "", "True")),  # it waits for a person
    "rejected": (
        lambda: seen(NEW, STABLE, a_revision(NEW, "Rejected", rejected=REJECTED, gate=VERDICT), traffic=STABLE),
        ("True", "False", "", "True"),
    ),
    "rolled back": (
        lambda: seen(NEW, STABLE, a_revision(NEW, "RolledBack", rejected=REJECTED), traffic=STABLE),
        ("True", "False", "", "True"),
    ),
    "bad data": (
        lambda: seen(NEW, STABLE, a_revision(NEW, "BuildFailed", failure=FAILED), traffic=STABLE),
        ("True", "False", "", "True"),
    ),
    "no pods": (
        lambda: replace(
            seen(OLD, STABLE, traffic=STABLE), loaded={STABLE.name: loaded(STABLE, pod("a", ready=False))}
        ), ("False", "True", "", ""),
    ),
    "name taken": (
        lambda: replace(seen(OLD, STABLE), traffic=Traffic(True, owned=False)), ("False", "False", "", "True"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("world", WORLDS)
def test_kstatus(world: str) -> None:
    obs, said = WORLDS[world][0](), WORLDS[world][1]
    status = run(obs).status
    assert tuple(condition(status, kind)[0] for kind in ("Ready", "RolledOut", "Reconciling", "Stalled")) == said
    assert status.observed_generation == obs.index.generation
    # Reconciling and Stalled are there only while True, and never both.
    assert condition(status, "Reconciling")[0] in ("", "True")
    assert not (condition(status, "Reconciling")[0] and condition(status, "Stalled")[0])
    kinds = [one.type for one in status.conditions]
    assert len(set(kinds)) == len(kinds)
    assert set(kinds) <= set(CONDITIONS)
    assert all(one.observed_generation == obs.index.generation for one in status.conditions)


@pytest.mark.parametrize("world", WORLDS)
def test_no_change_is_the_same_status(world: str) -> None:
    """Looked at again later, with nothing new: no write. There are no counters and no live figures in it."""
    obs = WORLDS[world][0]()
    for _ in range(3):  # a world settles within a few passes
        obs = after(obs, run(obs))
    settled = run(obs, NOW + 1)
    assert settled.status == obs.index.status
    assert settled.events == ()


def test_a_condition_keeps_its_time_until_its_value_changes() -> None:
    obs = seen(OLD, STABLE, traffic=STABLE)
    first = run(obs).status
    assert {one.last_transition_time for one in first.conditions} == {to_text(NOW)}
    edited = replace(obs, index=index(NEW, first, generation=4))
    second = run(edited, NOW + 60).status
    at = {one.type: one.last_transition_time for one in second.conditions}
    assert (at["Ready"], at["RolledOut"], at["Reconciling"]) == (to_text(NOW), to_text(NOW + 60), to_text(NOW + 60))
    reasons = {one.type: one.observed_generation for one in second.conditions}
    assert set(reasons.values()) == {4}


def test_another_reason_alone_moves_no_time() -> None:
    obs = seen(NEW, STABLE, a_revision(NEW, "Pending"), traffic=STABLE)
    first = run(obs)
    second = run(after(obs, first), NOW + 60)
    before, now = (next(c for c in s.conditions if c.type == "Reconciling") for s in (first.status, second.status))
    assert before.last_transition_time == now.last_transition_time


def test_after_a_rollback_the_numbers_are_where_argo_cd_shows_them() -> None:
    status = run(WORLDS["rolled back"][0]()).status
    assert condition(status, "Stalled")[1] == "RolledBack"
    assert "recall 0.9" in condition(status, "Stalled")[2]
    assert [(row.outcome, row.reason) for row in status.history] == [
        ("RolledBack", "RecallBelowMin"), ("Stable", "Stable")
    ]  # fmt: skip


def test_scale_counts_the_pods_of_the_revision_that_has_the_traffic() -> None:
    obs = replace(seen(OLD, STABLE, traffic=STABLE), loaded={
        STABLE.name: loaded(STABLE, pod("a"), pod("b", ready=False), pod("c", deleting=True))
    })  # fmt: skip
    status = run(obs).status
    assert (status.ready, status.replicas) == ("1/2", 2)
    assert status.selector == f"app.kubernetes.io/component=searcher,vectorindex.dev/revision={STABLE.name}"


def test_an_alarm_is_one_event() -> None:
    obs = no_bucket()
    first = run(obs)
    assert [(one.warning, one.reason) for one in first.events] == [(True, "Stalled")]
    assert run(after(obs, first), NOW + 5).events == ()


def test_milestones() -> None:
    stable = run(seen(OLD, STABLE, traffic=STABLE)).status
    assert condition(stable, "DatasetResolved")[:2] == ("True", "Resolved")
    assert condition(stable, "Built")[:2] == ("True", "Built")
    assert condition(stable, "RollbackPossible")[:2] == ("False", "NoPrior")
    assert condition(stable, "GuardrailsHealthy")[0] == "Unknown"
    older = a_revision(NEW, "Superseded", created=NOW - 90 * HOUR)
    both = seen(OLD, STABLE, older, traffic=STABLE)
    assert condition(run(both).status, "RollbackPossible")[:2] == ("True", "Cold")
    warm = replace(both, loaded={**both.loaded, older.name: loaded(older)})
    assert condition(run(warm).status, "RollbackPossible")[:2] == ("True", "Warm")
    failed = run(WORLDS["bad data"][0]()).status
    assert condition(failed, "Built") == ("False", "NonFiniteVector", "row 7 holds NaN")
    assert condition(run(gate_in_doubt()).status, "Validated")[:2] == ("Unknown", "RecallUncertain")


def test_history_is_newest_first_and_bounded() -> None:
    old: list[Any] = [
        a_revision(spec(history=20), "Superseded", data=f"{n:02}" * 32, created=NOW - n * HOUR) for n in range(2, 30)
    ]
    status = run(seen(spec(history=20), STABLE, *old, traffic=STABLE)).status
    assert len(status.history) == 20
    times = [row.at for row in status.history]
    assert times == sorted(times, reverse=True)


def test_a_very_long_message_fits() -> None:
    gone = Failure(reason="BucketNotFound", message="x" * 50_000)
    failed = listing(OLD, state=JobState.FAILED, result=None, failure=gone, exit_code=66)
    status = run(Observation(index=index(OLD), jobs=(failed,))).status
    assert max(len(one.message) for one in status.conditions) == 32768
    assert Condition.model_validate(status.conditions[0].wire())


def test_a_spec_that_cannot_be_read_keeps_what_is_known() -> None:
    known = run(seen(OLD, STABLE, traffic=STABLE)).status
    obs = replace(seen(OLD, STABLE, traffic=STABLE), index=index(None, known, spec_error="spec.k: no", generation=9))
    status = run(obs, NOW + 60).status
    assert (status.stable, status.observed_generation) == (STABLE.name, 9)
    assert condition(status, "Ready")[0] == "True"
    ready = next(one for one in status.conditions if one.type == "Ready")
    assert ready.last_transition_time == to_text(NOW)
    fresh = run(replace(obs, index=index(None, VectorIndexStatus(), spec_error="spec.k: no"))).status
    assert condition(fresh, "Ready")[0] == "True"  # pods answer, whatever the spec says


def test_new_data_shows_as_progress_towards_its_revision() -> None:
    obs = seen(OLD, STABLE, traffic=STABLE, data=NEW_DATA)
    status = run(obs).status
    assert (status.phase, status.source) == ("Pending", source(OLD, NEW_DATA))
    assert condition(status, "RolledOut")[0] == "False"
    assert DATA not in str(status.source)


def test_rollback_possible_says_what_a_rollback_would_find() -> None:
    """What tripped while it was stable passed a soak and was never rejected, and yet is nothing to go back to."""
    of, now = spec(), spec(index={"factory": "Flat"})
    before, serves = a_revision(of, "Superseded", created=NOW - 2 * HOUR), a_revision(now, "Stable")
    assert condition(run(seen(now, serves, before, traffic=front(serves))).status, "RollbackPossible")[0] == "True"
    rollout = before.status.rollout
    assert rollout is not None
    trip = Trip(rule="errors", reason="ErrorRate", message="9 %", at=to_text(NOW - HOUR))
    status = before.status.model_copy(update={"rollout": rollout.model_copy(update={"trip": trip})})
    tripped = replace(before, status=status)
    plan = run(seen(now, serves, tripped, traffic=front(serves)))
    assert condition(plan.status, "RollbackPossible")[:2] == ("False", "NoPrior")
