"""`pause` and `resume`: what is on its way is held before its next step; what protects is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from observations import (
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
    recorded,
    report,
    run,
    said,
    seen,
    with_spec,
)
from soaks import NEW, OLD, SOAKING, STABLE, soak

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Pause
from vectorindex_operator.core import identity
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.observation import JobState, Observation, RevisionView, Task

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
