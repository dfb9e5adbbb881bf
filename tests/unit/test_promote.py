"""`promote`: a person's word ends a soak that has shown too little; against a Fail it is worth nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from observations import (
    HOUR,
    NOW,
    a_revision,
    actions,
    after,
    condition,
    loaded,
    moved,
    phase,
    pod,
    recorded,
    run,
    said,
    seen,
    spec,
    with_rollout,
    with_spec,
)
from soaks import NEW, OLD, SOAKING, STABLE, counts, soak

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import RolloutStatus, Trip
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.plan import WriteRevisionStatus

DOUBT = 21
"""Errors of 1,000 where 20 are allowed: outside, and not beyond doubt."""
QUIET = {SOAKING.name: counts(SOAKING, since=NOW)}
"""Its searchers tell that nobody asked them."""


def asks(obs: Observation, argument: str = "") -> Observation:
    return with_spec(obs, commands=(Command("promote", argument, "n1"),))


def rollout_with(obs: Observation, **changes: object) -> Observation:
    """Other fields in the rollout of what soaks."""
    view = obs.revisions[SOAKING.name]
    assert view.status.rollout is not None
    rollout = RolloutStatus.read(view.status.rollout.wire() | changes)
    view = replace(view, status=view.status.model_copy(update={"rollout": rollout}))
    return replace(obs, revisions={**obs.revisions, view.name: view})


@pytest.mark.parametrize(
    "obs",
    [soak(), soak(evidence=QUIET), soak(errors=DOUBT), soak(errors=DOUBT, switched=NOW - 7 * HOUR)],
    ids=["too short", "nobody asks", "in doubt", "in doubt for long"],
)
@pytest.mark.parametrize("argument", ["", SOAKING.name])
def test_a_word_is_enough_where_nothing_fails(obs: Observation, argument: str) -> None:
    plan = run(asks(obs, argument))
    assert (phase(plan, SOAKING), phase(plan, STABLE), moved(plan)) == ("Stable", "Superseded", [])
    assert said(plan)[0] == "Done"
    status = recorded(plan, SOAKING)
    assert status.message.startswith("ByHand: a person asked for it: promote n1, after ")
    assert status.promoted_at == to_text(NOW)
    (told,) = [one for one in plan.events if one.reason == "Promoted"]
    assert told.message == status.message
    assert condition(plan.status, "RolledOut")[0] == "True"


def test_what_was_not_shown_is_kept() -> None:
    plan = run(asks(soak(errors=DOUBT)))
    assert "not shown: errors: " in recorded(plan, SOAKING).message
    assert "not shown: errors: " in said(plan)[1]


def test_it_is_never_stronger_than_a_fail() -> None:
    plan = run(asks(soak(errors=300)))
    assert (moved(plan), phase(plan, SOAKING)) == ([STABLE.name], "RolledBack")
    result, message = said(plan)
    assert (result, message.startswith("errors fails: errors: ")) == ("Refused", True)


def test_nor_than_one_that_lacks_only_the_next_window() -> None:
    """One of two windows has failed beyond doubt, so there is no Fail yet; its owner wants two."""
    rules = [{"name": "errors", "metric": "ErrorRate", "max": "1%", "window": "1m", "consecutive": 2}]
    obs = soak(with_rollout(SOAKING, guardrails=spec(guardrails={"rules": rules}).guardrails))
    early, late = counts(SOAKING, since=NOW - 600), counts(SOAKING, errors=300, since=NOW - 60)
    half = tuple(
        replace(one, evidence=one.evidence.model_copy(update={
            "buckets": (*(b for b in one.evidence.buckets if b.bucket < (NOW - 60) // 5), *bad.evidence.buckets)
        }))
        for one, bad in zip(early, late, strict=True)
    )  # fmt: skip
    plan = run(asks(replace(obs, evidence={SOAKING.name: half})))
    assert (moved(plan), said(plan)[0]) == ([], "Refused")
    assert "errors fails" in said(plan)[1]
    assert plan.status.phase == "Soaking"


def test_nor_while_nothing_of_it_is_ready() -> None:
    """However long it has soaked."""
    obs = soak(switched=NOW - 7 * HOUR)
    down = loaded(SOAKING, pod("a", ready=False), pod("b", ready=False))
    plan = run(asks(replace(obs, loaded={**obs.loaded, SOAKING.name: down}, evidence={})))
    assert (said(plan)[0], plan.status.phase) == ("Refused", "Soaking")


def test_what_tells_nothing_may_hide_a_fail_until_the_soak_took_as_long_as_it_may() -> None:
    silent = {SOAKING.name: tuple(replace(one, evidence=None, problem="no answer") for one in counts(SOAKING))}
    plan = run(asks(soak(evidence=silent)))
    assert (said(plan)[0], plan.status.phase) == ("Refused", "Soaking")
    assert "cannot be judged" in said(plan)[1]
    plan = run(asks(soak(evidence=silent, switched=NOW - 7 * HOUR)))
    assert (said(plan)[0], phase(plan, SOAKING)) == ("Done", "Stable")


@pytest.mark.parametrize("rule", ["errors", "Manual"])
def test_what_is_to_lose_the_traffic_is_not_promoted(rule: str) -> None:
    """It waits for the pods of its target."""
    trip = Trip(rule=rule, reason=rule, message="it was bad", at=to_text(NOW - 5))
    obs = rollout_with(soak(), trip=trip.wire())
    obs = replace(obs, loaded={SOAKING.name: loaded(SOAKING)})
    plan = run(asks(obs))
    assert (said(plan), plan.status.phase) == (
        ("Refused", f"{SOAKING.name} is to lose the traffic: it was bad"), "Soaking",
    )  # fmt: skip


def test_what_another_release_judges_by_is_not_overridden() -> None:
    obs = rollout_with(soak(), guardrails={"rules": [{"name": "new", "metric": "Unheard", "max": {"of": 1}}]})
    plan = run(asks(obs))
    assert said(plan)[0] == "Refused"
    assert "another release" in said(plan)[1]


def test_a_person_who_wants_back_comes_first() -> None:
    both = (Command("promote", "", "n1"), Command("rollback", "", "n2"))
    plan = run(with_spec(soak(), commands=both))
    assert (moved(plan), phase(plan, SOAKING)) == ([STABLE.name], "RolledBack")
    assert [(one.verb, one.result) for one in plan.status.verbs] == [("rollback", "Done")]


@pytest.mark.parametrize(
    ("obs", "argument", "message"),
    [
        (seen(OLD, STABLE, traffic=STABLE), "", "no revision soaks"),
        (seen(OLD, STABLE, traffic=STABLE), STABLE.name, f"revision {STABLE.name!r} does not soak"),
        (soak(), STABLE.name, f"revision {STABLE.name!r} does not soak"),
        (
            seen(NEW, STABLE, a_revision(NEW, "Validated"), traffic=STABLE, loaded={STABLE.name: loaded(STABLE)}),
            "",
            "no revision soaks",
        ),
        (
            seen(NEW, STABLE, a_revision(NEW, "Surging"), traffic=STABLE, loaded={STABLE.name: loaded(STABLE)}),
            "",
            f"{SOAKING.name} is Surging: only what soaks, or has a share of the traffic, is promoted",
        ),
    ],
    ids=["stable", "stable named", "another named", "proven", "surging"],
)
def test_elsewhere_it_is_refused(obs: Observation, argument: str, message: str) -> None:
    plan = run(asks(obs, argument))
    assert said(plan) == ("Refused", message)
    assert moved(plan) == []


def test_one_request_is_one_promotion_although_the_answer_was_lost() -> None:
    obs = asks(soak())
    first = run(obs)
    reborn = with_spec(after(obs, first), status=obs.index.status)
    again = run(reborn)
    assert said(again) == ("Done", f"promoted {SOAKING.name}")
    assert [one for one in actions(again, WriteRevisionStatus) if one.status.phase == "Stable"] == []
    assert run(after(reborn, again), NOW + 1).events == ()


def test_another_nonce_is_another_request() -> None:
    obs = soak()
    promoted = after(obs, run(with_spec(obs, commands=(Command("promote", "", "n10"),))))
    assert said(run(asks(with_spec(promoted, status=obs.index.status)))) == ("Refused", "no revision soaks")


def test_it_is_watched_after_that_as_any_other() -> None:
    obs = soak()
    promoted = with_spec(after(obs, run(asks(obs))), commands=())
    bad = {SOAKING.name: counts(SOAKING, errors=300, since=NOW)}
    later = replace(promoted, evidence=bad)
    assert moved(run(later, NOW)) == []  # nothing was counted since
    worse = {SOAKING.name: counts(SOAKING, errors=300)}
    view = promoted.revisions[SOAKING.name]
    an_hour = view.status.model_copy(update={"promoted_at": to_text(NOW - 600)})
    promoted = replace(promoted, revisions={**promoted.revisions, view.name: replace(view, status=an_hour)})
    assert moved(run(replace(promoted, evidence=worse))) == [STABLE.name]


def test_it_is_obeyed_while_the_index_is_suspended() -> None:
    plan = run(asks(with_spec(soak(), spec=spec(index={"factory": "HNSW32"}, suspend=True))))
    assert (phase(plan, SOAKING), said(plan)[0]) == ("Stable", "Done")
