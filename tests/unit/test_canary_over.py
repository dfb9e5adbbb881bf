"""A share that is over: the candidate stays named with weight 0, and its Service and searchers stay, until gateways
have followed; and one that never follows is not waited for without end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from canaries import FRONT, NAME, NEW, OLD, STABLE, at_step, lost, named, over, routed, shares, shifting
from observations import HOUR, NOW, SETTINGS, a_revision, actions, run, seen, with_spec

from vectorindex_operator.api.v1alpha1 import VectorIndexSpec
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.plan import (
    DeleteRoute,
    DeleteSearchers,
    DeleteStepService,
    EnsureRoute,
    EnsureStepService,
    LowerRoute,
    Plan,
)
from vectorindex_operator.core.safety.route import FOLLOW_SECONDS, GONE_SECONDS
from vectorindex_operator.core.traffic import RouteView
from vectorindex_operator.manifests.render import render

LONGEST = 6 * HOUR
"""soak.maxDuration, as it is by default."""


def removed(plan: Plan) -> tuple[list[str], list[str]]:
    """Whose searchers, and whose Services."""
    searchers = [one.revision for one in actions(plan, DeleteSearchers)]
    return searchers, [one.name for one in actions(plan, DeleteStepService)]


def unloaded(obs: Observation) -> Observation:
    """Its searchers are gone."""
    return replace(obs, loaded={STABLE.name: obs.loaded[STABLE.name]})


def aborted(obs: Observation) -> Observation:
    return with_spec(obs, commands=(Command("abort", "", "n1"),))


# ---------------------------------------------------------------- the one write


@pytest.mark.parametrize(
    "obs",
    [
        shifting(errors=300),
        aborted(shifting()),
        aborted(shifting(at_step(started=False), route=named())),
        aborted(shifting(at_step(started=False), route=routed())),
        with_spec(shifting(), spec=OLD),
        shifting(at_step(1, since=600.0), weight=50),
    ],
    ids=["guardrail", "abort", "abort before the share", "abort before the name", "edit", "switch"],
)
def test_whoever_takes_a_share_away_leaves_its_name_in_the_same_write(obs: Observation) -> None:
    """Envoy hears of routes and of what they lead to apart: it would know the share, and not any more who has it."""
    (lower,) = actions(run(obs), LowerRoute)
    assert (lower.candidate, lower.weight, lower.over, lower.resource_version) == ("", 0, (NAME,), "")
    (route,) = render(lower, obs, None, SETTINGS)
    backends = [(one["name"], one["weight"]) for one in route["spec"]["rules"][0]["backendRefs"]]
    assert backends == [(FRONT, 100), (NAME, 0)]


def test_whatever_else_is_written_is_refused_on_a_route_that_has_changed() -> None:
    """A repair that comes late would take a candidate out whose share began meanwhile."""
    for obs in (seen(NEW, STABLE, traffic=STABLE, route=routed()), shifting(at_step(since=100.0)), lost(route=named())):
        (route,) = actions(run(obs), EnsureRoute)
        assert route.resource_version == "77"


def test_what_is_not_of_this_index_is_not_named_any_more() -> None:
    route = routed(10, weights={FRONT: 50, NAME: 10, "somewhere": 40})
    assert over(run(shifting(at_step(since=100.0), route=route))) == ()


def test_what_has_a_share_stands_beside_what_has_none_any_more() -> None:
    earlier = a_revision(OLD, "RolledBack", data="d3" * 32)
    route = routed(weights={FRONT: 100, NAME: 0, earlier.name: 0}, behind=True)
    obs = shifting(at_step(started=False), route=route)
    plan = run(replace(obs, revisions={**obs.revisions, earlier.name: earlier}))
    assert (shares(plan), over(plan)) == ([("EnsureRoute", NAME, 0)], (earlier.name,))


def test_a_candidate_that_cannot_get_its_first_share_yet_keeps_its_name() -> None:
    """Each naming is a change that all gateways must see."""
    route = named(endpoints={FRONT: 2})
    plan = run(shifting(at_step(started=False), route=route))
    assert (shares(plan), over(plan)) == ([("EnsureRoute", NAME, 0)], ())


# ---------------------------------------------------------------- until gateways have followed


@pytest.mark.parametrize(
    "route",
    [named(behind=True, accepted=False), named(said_at=NOW - FOLLOW_SECONDS + 1)],
    ids=["not seen", "not followed"],
)
def test_until_then_nothing_of_it_goes(route: RouteView) -> None:
    assert over(run(unloaded(lost(route=route)))) == (NAME,)
    plan = run(lost(route=route))
    assert (over(plan), removed(plan)) == ((NAME,), ([], []))
    assert [one.revision for one in actions(plan, EnsureStepService)] == [NAME], "it is made again if somebody takes it"
    assert "RouteNotObserved" in [row.rule for row in plan.status.blocked_by]
    assert plan.requeue_after <= 5


def test_then_its_searchers_go_and_then_its_name_and_then_its_service() -> None:
    seen_by_all = lost(route=named(said_at=NOW - FOLLOW_SECONDS))
    plan = run(seen_by_all)
    assert (over(plan), removed(plan)) == ((NAME,), ([NAME], []))
    plan = run(unloaded(seen_by_all))
    (route,) = actions(plan, EnsureRoute)
    assert (route.over, route.resource_version, removed(plan)) == ((), "77", ([], [])), "on the very route it was"
    for changes in ({"behind": True}, {"said_at": NOW - 1}):
        plan = run(unloaded(lost(route=routed(services={NAME: "u"}, **changes))))
        assert (removed(plan), plan.requeue_after <= FOLLOW_SECONDS) == (([], []), True)
    plan = run(unloaded(lost(route=routed(services={NAME: "u"}, said_at=NOW - FOLLOW_SECONDS))))
    assert removed(plan) == ([], [NAME])


def test_what_took_the_traffic_keeps_its_searchers_and_loses_its_name() -> None:
    view = a_revision(NEW, "Stable", created=NOW - HOUR)
    obs = seen(NEW, view, traffic=view, route=named(behind=True))
    assert (over(run(obs)), removed(run(obs))) == ((NAME,), ([], []))
    plan = run(replace(obs, route=named()))
    assert (over(plan), removed(plan)) == ((), ([], []))


def test_a_route_that_is_taken_out_stays_as_long() -> None:
    """Once it is gone, nothing tells any more what gateways have seen of it."""
    for route in (named(behind=True), named(said_at=NOW - 1)):
        plan = run(with_spec(lost(route=route), spec=OLD))
        assert (actions(plan, DeleteRoute), removed(plan), plan.requeue_after <= FOLLOW_SECONDS) == ([], ([], []), True)
    plan = run(with_spec(lost(route=named()), spec=OLD))
    assert [one.name for one in actions(plan, DeleteRoute)] == [FRONT]


# ---------------------------------------------------------------- one that never follows


def short(max_duration: str) -> VectorIndexSpec:
    soak = NEW.rollout.soak.model_copy(update={"max_duration": max_duration})
    return NEW.model_copy(update={"rollout": NEW.rollout.model_copy(update={"soak": soak})})


@pytest.mark.parametrize(
    ("changes", "longest"),
    [
        ({}, LONGEST),
        ({"spec": short("1h")}, HOUR),
        ({"spec": short("1s")}, GONE_SECONDS),
        ({"spec": None, "spec_error": "nonsense"}, LONGEST),
    ],
)
def test_it_is_waited_for_as_long_as_a_soak_may_be_and_that_is_said(changes: dict[str, Any], longest: float) -> None:
    def since(seconds: float) -> Plan:
        return run(with_spec(lost(route=named(behind=True, accepted=False, written_at=NOW - seconds)), **changes))

    plan = since(longest - 1)
    (row,) = [row for row in plan.status.blocked_by if row.rule == "RouteNotObserved"]
    assert (removed(plan), row.message.endswith("at the latest")) == (([], []), True)
    assert EventReason.GATEWAY_LOST not in [event.reason for event in plan.events]
    plan = since(longest)
    assert removed(plan) == ([NAME], [])
    (event,) = [event for event in plan.events if event.reason is EventReason.GATEWAY_LOST]
    assert (event.revision, "HTTPRoute/docs" in event.message) == (NAME, True)


def test_who_goes_on_saying_something_is_not_waited_for_longer() -> None:
    def since(seconds: float) -> RouteView:
        return named(said_at=NOW - 1, written_at=NOW - seconds)

    assert removed(run(lost(route=since(LONGEST)))) == ([], [])
    assert removed(run(lost(route=since(LONGEST + FOLLOW_SECONDS)))) == ([NAME], [])
    waits, goes_on = (run(shifting(route=since(LONGEST + more))) for more in (0, FOLLOW_SECONDS))
    assert (shares(waits), shares(goes_on)) == ([("EnsureRoute", NAME, 0)], [("EnsureRoute", NAME, 10)])


def test_one_that_has_followed_is_not_taken_for_gone() -> None:
    assert EventReason.GATEWAY_LOST not in [event.reason for event in run(lost(route=named())).events]


def test_a_route_that_cannot_be_read_holds_nothing_for_ever() -> None:
    obs = lost(route=RouteView(problem="403 Forbidden: no"))
    assert removed(run(obs)) == ([], [])
    assert removed(run(obs, NOW + LONGEST)) == ([NAME], [])
