"""`spec.suspend`: nothing new begins, nothing that protects ends, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from observations import (
    DATA,
    HOUR,
    NEW_DATA,
    NOW,
    a_revision,
    actions,
    after,
    condition,
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
from soaks import FIX, NEW, OLD, OUTGOING, PROVEN, SOAKING, STABLE, counts, leaving, soak

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Rejection, ShadowStatus
from vectorindex_operator.core import identity
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.observation import JobState, Observation, Task
from vectorindex_operator.core.plan import (
    CreateRevision,
    DeleteJob,
    DeleteSearchers,
    EnsureSearchers,
    ForgetRevision,
    RenewMirrors,
    StartBuild,
    StartCollect,
    StartResolve,
    StartValidation,
)
from vectorindex_searcher.contract import Failure

HELD, NEW_HELD = (one.model_copy(update={"suspend": True}) for one in (OLD, NEW))
WANTED = identity.revision_name("docs", identity.digest(NEW, DATA))
WORK = (StartResolve, CreateRevision, StartBuild, StartValidation, StartCollect, DeleteJob, ForgetRevision)


def edited(was: str = "") -> Observation:
    """Stable serves, and the user has asked for another one, which was `was` when the index was suspended."""
    mine = (a_revision(NEW, was, created=NOW - 60),) if was else ()
    return seen(NEW_HELD, STABLE, *mine, traffic=STABLE)


def poll_is_due() -> Observation:
    at = NOW - 24 * HOUR
    return replace(seen(HELD, STABLE, traffic=STABLE), jobs=(listing(HELD, created_at=at, finished_at=at),))


def listing_failed() -> Observation:
    gone = Failure(reason="BucketNotFound", message="no bucket vectors")
    failed = listing(OLD, state=JobState.FAILED, result=None, failure=gone, exit_code=66)
    obs = replace(seen(OLD, STABLE, traffic=STABLE), jobs=(failed,))
    return with_spec(after(obs, run(obs)), spec=HELD)


def at_work(task: Task, state: JobState, was: str) -> Observation:
    obs = edited(was)
    keys = {Task.BUILD: f"{identity.build_hash(NEW)}/0/cpu", Task.VALIDATE: f"{identity.gate_hash(NEW)}/0"}
    result = {Task.BUILD: None, Task.VALIDATE: report(NEW)}[task]
    done = job(task, state, of=obs.revisions[WANTED], key=keys[task], result=result)
    return replace(obs, jobs=(*obs.jobs, done))


WAITS: dict[str, Callable[[], Observation]] = {
    "nothing was ever listed": lambda: Observation(index=index(HELD)),
    "an edit": edited,
    "new data": lambda: seen(HELD, STABLE, traffic=STABLE, data=NEW_DATA),
    "Pending": lambda: edited("Pending"),
    "Building": lambda: at_work(Task.BUILD, JobState.RUNNING, "Building"),
    "Validating": lambda: edited("Validating"),
    "measured": lambda: at_work(Task.VALIDATE, JobState.SUCCEEDED, "Validating"),
    "Validated": lambda: edited("Validated"),
    "Surging": lambda: edited("Surging"),
    "Shadowing": lambda: edited("Shadowing"),
}


@pytest.mark.parametrize("world", [*WAITS.values(), poll_is_due, listing_failed], ids=[*WAITS, "poll", "failed"])
def test_nothing_new_begins(world: Callable[[], Observation]) -> None:
    """Nor does what runs end: a Job that is there goes on."""
    obs = world()
    for hour in range(3):
        plan = run(obs, NOW + hour * HOUR)
        assert [one for one in plan.actions if isinstance(one, WORK)] == []
        assert (moved(plan), plan.ask) == ([], None)
        assert {one.revision for one in actions(plan, EnsureSearchers)} <= {STABLE.name}
        obs = after(obs, plan)


@pytest.mark.parametrize("world", WAITS)
def test_what_waits_is_said_and_nobody_is_alarmed(world: str) -> None:
    plan = run(WAITS[world]())
    assert (plan.status.phase, plan.status.reason) == ("Suspended", "Suspended")
    assert condition(plan.status, "Suspended")[0] == "True"
    assert condition(plan.status, "RolledOut")[:2] == ("False", "Suspended")
    assert (condition(plan.status, "Stalled")[0], condition(plan.status, "Reconciling")[0]) == ("", "")
    said = [row.rule for row in plan.status.blocked_by]
    assert said == ([] if world.startswith("nothing") else ["Suspended"])


def test_that_a_listing_failed_stays_said() -> None:
    assert condition(run(listing_failed()).status, "DatasetResolved")[:2] == ("False", "BucketNotFound")


@pytest.mark.parametrize("was", ["Pending", "Building", "Validating", "Validated"])
def test_what_is_prepared_is_shown_and_stays_what_it_is(was: str) -> None:
    obs = edited(was)
    plan = run(obs)
    assert plan.status.next == WANTED
    assert after(obs, plan).revisions[WANTED].status == obs.revisions[WANTED].status


def test_what_ended_meanwhile_is_read_when_it_goes_on() -> None:
    obs = at_work(Task.VALIDATE, JobState.SUCCEEDED, "Validating")
    resumed = run(with_spec(after(obs, run(obs)), spec=NEW), NOW + HOUR)
    assert phase(resumed, obs.revisions[WANTED]) in ("Validated", "Surging")
    assert actions(resumed, StartValidation) == []


def test_what_no_user_has_met_steps_back_and_keeps_its_proof() -> None:
    candidate = a_revision(NEW, "Shadowing", created=NOW - 60)
    rollout = candidate.status.rollout
    assert rollout is not None
    shadow = ShadowStatus(id="s", reference=STABLE.name, started_at=to_text(NOW - 60))
    status = candidate.status.model_copy(update={"rollout": rollout.model_copy(update={"shadow": shadow})})
    candidate = replace(candidate, status=status)
    obs = seen(NEW_HELD, STABLE, candidate, traffic=STABLE)
    plan = run(obs)
    assert (phase(plan, candidate), recorded(plan, candidate).rollout) == ("Validated", None)
    assert [one.revision for one in actions(plan, DeleteSearchers)] == [candidate.name]
    assert [one.max_per_second for one in actions(plan, RenewMirrors)] == [0.0]  # its shadow is over at once
    waits = replace(after(obs, plan), loaded={STABLE.name: loaded(STABLE)})
    assert run(waits, NOW + HOUR).events == ()
    resumed = run(with_spec(waits, spec=NEW), NOW + HOUR)
    assert phase(resumed, candidate) == "Surging"
    assert [one for one in resumed.actions if isinstance(one, (StartBuild, StartValidation))] == []


# ---------------------------------------------------------------- what protects goes on


def held(obs: Observation) -> Observation:
    return with_spec(obs, spec=NEW_HELD)


def test_a_guardrail_that_fails_goes_back() -> None:
    plan = run(held(soak(errors=300)))
    assert (moved(plan), phase(plan, SOAKING)) == ([STABLE.name], "RolledBack")
    assert condition(plan.status, "Stalled")[:2] == ("True", "RolledBack")  # which says more than that it is suspended


def test_a_person_goes_back() -> None:
    plan = run(
        replace(held(soak()), index=index(NEW_HELD, soak().index.status, commands=(Command("rollback", "", "n"),)))
    )
    assert (moved(plan), phase(plan, SOAKING)) == ([STABLE.name], "RolledBack")


def test_a_soak_goes_on_and_ends() -> None:
    plan = run(held(soak()))
    assert (plan.status.phase, condition(plan.status, "Reconciling")[0]) == ("Soaking", "True")
    plan = run(held(soak(switched=NOW - 16 * 60)))
    assert (phase(plan, SOAKING), phase(plan, STABLE)) == ("Stable", "Superseded")


def test_an_edit_gives_up_no_soak() -> None:
    """Without it, going back to the spec of stable takes the traffic back at once."""
    plan = run(with_spec(soak(), spec=HELD))
    assert (moved(plan), plan.status.phase) == ([], "Soaking")


def test_searchers_that_serve_are_looked_after() -> None:
    more = spec(searcher={"replicas": 5}, suspend=True)
    (ensured,) = actions(run(seen(more, STABLE, traffic=STABLE)), EnsureSearchers)
    assert ensured.live.searcher.replicas == 5
    down = seen(HELD, STABLE, traffic=STABLE, loaded={STABLE.name: loaded(STABLE, pod("a", ready=False))})
    assert condition(run(down).status, "Ready")[0] == "False"


def test_what_lost_the_traffic_is_retired() -> None:
    gone = a_revision(NEW, "Superseded", lost_traffic_at=to_text(NOW - 60))
    obs = seen(HELD, STABLE, gone, traffic=STABLE, loaded={one.name: loaded(one) for one in (STABLE, gone)})
    assert [one.revision for one in actions(run(obs), DeleteSearchers)] == [gone.name]


def test_work_that_nobody_wants_any_more_is_stopped() -> None:
    gone = a_revision(NEW, "Rejected", rejected=Rejection(stage="Gate", reason="x", message="", at=to_text(NOW)))
    work = job(Task.BUILD, of=gone, key=f"{identity.build_hash(NEW)}/0/cpu")
    obs = seen(NEW_HELD, STABLE, gone, traffic=STABLE)
    assert [one.name for one in actions(run(replace(obs, jobs=(*obs.jobs, work))), DeleteJob)] == [work.name]


# ---------------------------------------------------------------- what is said


@pytest.mark.parametrize("verb", ["retry", "refresh"])
def test_a_request_that_would_begin_something_is_refused(verb: str) -> None:
    why = Rejection(stage="Gate", reason="RecallBelowMin", message="0.9", at=to_text(NOW - HOUR))
    bad = a_revision(NEW, "Rejected", rejected=why)
    obs = seen(NEW_HELD, STABLE, bad, traffic=STABLE)
    plan = run(with_spec(obs, commands=(Command(verb, "", "n1"),)))
    (answer,) = plan.status.verbs
    assert (answer.result, "spec.suspend" in answer.message) == ("Refused", True)
    assert (plan.status.phase, condition(plan.status, "Stalled")[:2]) == ("Rejected", ("True", "RecallBelowMin"))


def test_an_index_at_rest_is_rolled_out_and_suspended_and_that_is_told_once() -> None:
    obs = seen(HELD, STABLE, traffic=STABLE)
    first = run(obs)
    assert (first.status.phase, condition(first.status, "RolledOut")[0]) == ("Stable", "True")
    assert condition(first.status, "Suspended")[0] == "True"
    assert [one.reason for one in first.events] == [EventReason.SUSPENDED]
    settled = run(after(obs, first), NOW + 100)
    assert (settled.status, settled.events) == (first.status, ())
    resumed = run(with_spec(after(obs, first), spec=OLD), NOW + 200)
    assert [one.reason for one in resumed.events] == [EventReason.RESUMED]
    assert condition(resumed.status, "Suspended")[0] == ""


@pytest.mark.parametrize("was", ["Validated", "Surging"])
def test_what_was_to_make_room_soaks_on_and_is_judged(was: str) -> None:
    """With a dead stable revision it keeps the traffic until the next one takes it, which does not come now."""
    fix = PROVEN if was == "Validated" else a_revision(FIX, was, created=NOW - 30)
    obs = leaving(FIX.model_copy(update={"suspend": True}), fix)
    plan = run(obs)
    assert (phase(plan, OUTGOING), plan.status.candidate, moved(plan)) == ("Soaking", OUTGOING.name, [])
    evidence = counts(OUTGOING, errors=300, at=NOW + 600, since=NOW)
    rollout = recorded(run(replace(after(obs, plan), evidence={OUTGOING.name: evidence}), NOW + 600), OUTGOING).rollout
    assert rollout is not None
    assert rollout.trip is not None, "a guardrail fails, and stable is loaded for it"
    assert phase(run(leaving()), PROVEN) == "Surging"
