"""`pause` and `resume`: what is on its way is held before its next step; what protects is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from observations import (
    AN_HOUR_AGO,
    DATA,
    HOUR,
    NOW,
    a_revision,
    after,
    condition,
    job,
    loaded,
    moved,
    phase,
    pod,
    recorded,
    report,
    run,
    said,
    seen,
    with_rollout,
    with_spec,
)
from soaks import NEW, OLD, OUTGOING, PROVEN, SOAKING, STABLE, leaving, soak

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Pause, Rejection, WorkFailure
from vectorindex_operator.core import identity
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.observation import JobState, Observation, RevisionView, Task
from vectorindex_operator.core.phase import UNDER_WAY

HELD = Pause(nonce="p1", at=to_text(NOW - 60))
WANTED = identity.revision_name("docs", identity.digest(NEW, DATA))


def asks(obs: Observation, verb: str = "pause", argument: str = "", nonce: str = "n1") -> Observation:
    return with_spec(obs, commands=(Command(verb, argument, nonce),))


def with_pause(obs: Observation, name: str = WANTED, pause: Pause | None = HELD) -> Observation:
    view = obs.revisions[name]
    view = replace(view, status=view.status.model_copy(update={"pause": pause}))
    return replace(obs, revisions={**obs.revisions, name: view})


def going(was: str) -> tuple[RevisionView, Observation]:
    view = a_revision(NEW, was, created=NOW - 60)
    return view, seen(NEW, STABLE, view, traffic=STABLE)


@pytest.mark.parametrize("was", ["Pending", "Building", "Validating", "Validated", "Surging", "Shadowing"])
def test_it_is_kept_in_the_status_and_said(was: str) -> None:
    view, obs = going(was)
    plan = run(asks(obs))
    assert recorded(plan, view).pause == Pause(nonce="n1", at=to_text(NOW))
    assert (said(plan), moved(plan)) == (("Done", f"holds {view.name}"), [])


def test_what_is_proven_is_not_loaded() -> None:
    view, obs = going("Validated")
    plan = run(with_pause(replace(obs, loaded={STABLE.name: loaded(STABLE)})))
    assert (plan.status.phase, plan.status.reason, plan.status.next) == ("Validated", "Paused", view.name)
    assert after(obs, plan).revisions[view.name].status.phase == "Validated"
    assert condition(plan.status, "Reconciling")[:2] == ("True", "Paused")
    assert phase(run(obs), view) == "Surging"


def test_what_is_loaded_is_not_switched_to() -> None:
    _, obs = going("Surging")
    plan = run(with_pause(obs))
    assert (moved(plan), [row.rule for row in plan.status.blocked_by]) == ([], ["Paused"])
    assert moved(run(obs)) == [WANTED]


def test_what_soaks_is_not_promoted() -> None:
    obs = soak(switched=NOW - 16 * 60)
    plan = run(with_pause(obs, SOAKING.name))
    assert (plan.status.phase, plan.status.reason) == ("Soaking", "Paused")
    assert phase(run(obs), SOAKING) == "Stable"


def test_what_soaks_for_long_makes_no_room_either() -> None:
    newer = a_revision(NEW, "Validated", data="d2" * 32)
    obs = soak(switched=NOW - 7 * HOUR, errors=21)
    obs = with_pause(replace(obs, revisions={**obs.revisions, newer.name: newer}), SOAKING.name)
    assert run(obs).status.candidate == SOAKING.name


def test_a_build_and_a_proof_go_on() -> None:
    view, obs = going("Validating")
    done = job(Task.VALIDATE, JobState.SUCCEEDED, of=view, key=f"{identity.gate_hash(NEW)}/0", result=report(NEW))
    plan = run(with_pause(replace(obs, jobs=(*obs.jobs, done), loaded={STABLE.name: loaded(STABLE)})))
    assert phase(plan, view) == "Validated"


def test_a_pod_that_is_lost_while_it_is_held_has_the_time_of_a_new_one() -> None:
    """It had been loading since an hour ago when it was held; its deadline is of ten minutes."""
    view, obs = going("Surging")
    obs = with_pause(
        replace(obs, revisions={**obs.revisions, view.name: with_rollout(view, progress_since=AN_HOUR_AGO)})
    )
    plan = run(obs)
    held = recorded(plan, view)
    assert (held.phase, held.rollout is not None and held.rollout.progress_since) == ("Surging", None)
    lame = loaded(view, pod(f"{view.name}-0"), pod(f"{view.name}-1", ready=False))
    lost = replace(after(obs, plan), loaded={**obs.loaded, view.name: lame})
    assert run(lost, NOW + HOUR).status.phase == "Surging"


def test_what_was_to_make_room_soaks_on_and_is_judged() -> None:
    """With a dead stable revision it keeps the traffic until the next one takes it, which is held."""
    obs = with_pause(leaving(), PROVEN.name)
    plan = run(obs)
    assert (phase(plan, OUTGOING), plan.status.candidate) == ("Soaking", OUTGOING.name)
    assert after(obs, run(after(obs, plan), NOW + 1)).revisions[PROVEN.name].status.phase == "Validated"


# ---------------------------------------------------------------- what protects


def test_a_guardrail_goes_back_all_the_same() -> None:
    plan = run(with_pause(soak(errors=300), SOAKING.name))
    assert (moved(plan), phase(plan, SOAKING)) == ([STABLE.name], "RolledBack")


@pytest.mark.parametrize("verb", ["rollback", "abort"])
def test_so_does_a_person(verb: str) -> None:
    plan = run(asks(with_pause(soak(), SOAKING.name), verb))
    assert (moved(plan), phase(plan, SOAKING)) == ([STABLE.name], "RolledBack")


def test_an_edit_is_built_and_takes_its_place() -> None:
    """Who edits has decided: the traffic goes back to stable, and what was held is given up."""
    plan = run(with_spec(with_pause(soak(), SOAKING.name), spec=OLD))
    assert (moved(plan), phase(plan, SOAKING)) == ([STABLE.name], "Superseded")


def test_a_word_ends_it() -> None:
    plan = run(asks(with_pause(soak(), SOAKING.name), "promote"))
    assert phase(plan, SOAKING) == "Stable"


# ---------------------------------------------------------------- resume


def test_what_is_let_go_on_goes_on() -> None:
    plan = run(asks(with_pause(soak(switched=NOW - 16 * 60), SOAKING.name), "resume", nonce="n2"))
    status = recorded(plan, SOAKING)
    assert (status.phase, status.pause) == ("Stable", HELD.model_copy(update={"resumed": "n2"}))
    assert said(plan) == ("Done", f"{SOAKING.name} goes on")


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_one_request_is_one_although_the_answer_was_lost(verb: str) -> None:
    obs = asks(with_pause(soak(), SOAKING.name, HELD if verb == "resume" else None), verb)
    first = run(obs)
    again = run(with_spec(after(obs, first), status=obs.index.status))
    assert said(again) == said(first)
    assert said(first)[0] == "Done"


def test_it_can_be_held_again() -> None:
    ended = HELD.model_copy(update={"resumed": "n2"})
    plan = run(asks(with_pause(soak(), SOAKING.name, ended), nonce="n3"))
    assert recorded(plan, SOAKING).pause == Pause(nonce="n3", at=to_text(NOW))


def test_the_one_that_is_named() -> None:
    third = a_revision(NEW, "Building", data="d2" * 32)
    obs = soak()
    obs = replace(obs, revisions={**obs.revisions, third.name: third})
    plan = run(asks(obs, argument=SOAKING.name))
    assert said(plan) == ("Done", f"holds {SOAKING.name}")
    assert after(obs, plan).revisions[third.name].status.pause is None


@pytest.mark.parametrize(
    ("verb", "message"), [("pause", "nothing that could be held is on its way"), ("resume", "nothing is held")]
)
def test_where_nothing_is_on_its_way_it_is_refused(verb: str, message: str) -> None:
    plan = run(asks(seen(OLD, STABLE, traffic=STABLE), verb, STABLE.name))
    assert said(plan) == ("Refused", message)


def test_what_is_wanted_again_is_not_held_by_what_was_said_long_ago() -> None:
    gone = a_revision(NEW, "Superseded", created=NOW - 90 * HOUR)
    obs = with_pause(seen(NEW, STABLE, gone, traffic=STABLE), gone.name)
    assert recorded(run(obs), gone).pause is None


# ---------------------------------------------------------------- what ended since


def rejected(was: str, stage: str) -> RevisionView:
    why = Rejection(stage=stage, reason="RecallBelowMin", message="0.9", at=to_text(NOW - HOUR))
    return a_revision(NEW, was, created=NOW - 90 * HOUR, rejected=why, promoted_at=to_text(NOW - 80 * HOUR))


def failed(**changes: Any) -> RevisionView:
    """Its build failed, by a `spec.build` that is not today's."""
    at = to_text(NOW - HOUR)
    failure = WorkFailure(stage="Build", key="other", count=1, at=at, reason="BadSpec", message="no", **changes)
    return a_revision(NEW, "BuildFailed", created=NOW - 90 * HOUR, failure=failure)


def pinned(obs: Observation) -> Observation:
    return with_spec(obs, spec=OLD.model_copy(update={"pin_revision": WANTED}))


def retried(obs: Observation) -> Observation:
    return asks(obs, "retry")


@pytest.mark.parametrize(
    ("gone", "taken_up"),
    [
        (a_revision(NEW, "Superseded", created=NOW - 90 * HOUR), pinned),
        (rejected("RolledBack", "Rollout"), retried),
        (rejected("RolledBack", "Rollout"), lambda obs: pinned(retried(obs))),
        (rejected("Rejected", "Gate"), lambda obs: obs),
        (failed(permanent=True), lambda obs: obs),
    ],
    ids=["pinned", "retried", "pinned and retried", "another gate", "another build"],
)
def test_what_was_said_before_it_ended_holds_nothing_that_is_prepared_anew(
    gone: RevisionView, taken_up: Callable[[Observation], Observation]
) -> None:
    plan = run(taken_up(with_pause(seen(NEW, STABLE, gone, traffic=STABLE))))
    status = recorded(plan, gone)
    assert (status.phase in UNDER_WAY, status.pause) == (True, None)


@pytest.mark.parametrize("asked", [lambda obs: obs, retried], ids=["by itself", "by a word"])
def test_a_build_that_fails_meanwhile_is_held_all_the_same(asked: Callable[[Observation], Observation]) -> None:
    view = failed()
    status = recorded(run(asked(with_pause(seen(NEW, STABLE, view, traffic=STABLE)))), view)
    assert (status.phase in UNDER_WAY, status.pause) == (True, HELD)
