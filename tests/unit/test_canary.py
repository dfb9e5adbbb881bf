"""A canary's steps: what begins one, what ends it, and that every way back is one write before all others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from canaries import FRONT, NAME, NEW, OLD, STABLE, at_step, canary, lost, named, routed, shares, shifting
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
    with_spec,
)
from soaks import counts

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Pause
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.judging.questions import Purpose, questions
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_operator.core.plan import (
    DeleteRoute,
    DeleteSearchers,
    DeleteStepService,
    EnsureRoute,
    EnsureStepService,
    LowerRoute,
    MoveTraffic,
    Plan,
    RenewLeases,
    WriteRevisionStatus,
)
from vectorindex_operator.core.safety.route import FOLLOW_SECONDS, LEFT_SECONDS
from vectorindex_operator.core.traffic import Decision, DecisionKind, RouteView
from vectorindex_searcher.contract import LeaseState


def surging(of: Any = NEW, **changes: Any) -> Observation:
    """All its pods are ready, and the route leads to the front Service."""
    view = a_revision(of, "Surging", created=NOW - 60)
    return seen(of, STABLE, view, traffic=STABLE, **{"route": routed(), **changes})


def asks(obs: Observation, verb: str, nonce: str = "n1") -> Observation:
    return with_spec(obs, commands=(Command(verb, "", nonce),))


# ---------------------------------------------------------------- how it begins


def test_it_gets_no_traffic_before_it_is_written_down_that_it_does() -> None:
    plan = run(surging())
    view = surging().revisions[NAME]
    assert (phase(plan, view), moved(plan)) == ("Shifting", [])
    steps = recorded(plan, view).rollout.steps  # type: ignore[union-attr]
    assert steps is not None
    assert (steps.number, steps.started_at) == (0, None)
    assert shares(plan) == [("EnsureRoute", "", 0)]
    assert [one.revision for one in actions(plan, EnsureStepService)] == [NAME]


def test_then_the_gateways_are_told_its_name_and_then_its_share() -> None:
    """A gateway that meets a backend with its first share may not know it yet: Envoy answers 503 for a moment."""
    obs = after(surging(), run(surging()))
    assert shares(run(replace(obs, route=routed()), NOW + 1)) == [("EnsureRoute", NAME, 0)]
    for waits in (named(behind=True), named(accepted=False)):
        assert shares(run(replace(obs, route=waits), NOW + 1)) == [("EnsureRoute", NAME, 0)]
    plan = run(replace(obs, route=named()), NOW + 1)
    assert shares(plan) == [("EnsureRoute", NAME, 10)]
    assert versions(plan) == ["77"] == versions(run(replace(obs, route=routed()), NOW + 1))


def versions(plan: Plan) -> list[str]:
    """On which version of the route it is written."""
    return [one.resource_version for one in actions(plan, EnsureRoute)]


def test_no_larger_share_before_its_service_leads_to_its_pods() -> None:
    obs = replace(after(surging(), run(surging())), route=routed(endpoints={FRONT: 2}))
    assert shares(run(obs, NOW + 1)) == [("EnsureRoute", "", 0)]


@pytest.mark.parametrize("route", [routed(10, accepted=False, behind=True), routed(10, accepted=False)])
def test_a_step_counts_only_when_every_gateway_routes_so(route: RouteView) -> None:
    view = at_step(started=False)
    plan = run(shifting(view, route=route))
    assert plan.status.reason == "RouteNotObserved"
    assert all(one.status.rollout.steps.started_at is None for one in actions(plan, WriteRevisionStatus)
               if one.revision == NAME and one.status.rollout and one.status.rollout.steps)  # fmt: skip
    plan = run(shifting(view))
    assert recorded(plan, view).rollout.steps.started_at == to_text(NOW)  # type: ignore[union-attr]
    assert EventReason.STEP_STARTED in [event.reason for event in plan.events]


def test_a_gateway_that_does_not_find_a_service_yet_is_no_missing_gateway() -> None:
    route = routed(10, accepted=False, unresolved="BackendNotFound: docs-1")
    plan = run(shifting(at_step(started=False), route=route))
    assert (plan.status.reason, condition(plan.status, "Stalled")) == ("RouteNotObserved", ("", "", ""))
    assert "BackendNotFound" in plan.status.blocked_by[0].message


def test_the_first_revision_has_no_steps() -> None:
    view = a_revision(NEW, "Surging", created=NOW - 60)
    plan = run(seen(NEW, view, route=RouteView()))
    assert (moved(plan), shares(plan)) == ([NAME], [("EnsureRoute", "", 0)])
    assert EventReason.STEPS_SKIPPED in [event.reason for event in plan.events]


def test_a_stable_revision_without_pods_holds_up_nothing() -> None:
    dead = loaded(STABLE, pod("a", ready=False), pod("b", ready=False), unready_since=NOW - 60)
    obs = surging()
    assert moved(run(replace(obs, loaded={**obs.loaded, STABLE.name: dead}))) == [NAME]
    obs = shifting(at_step(since=100.0))
    plan = run(replace(obs, loaded={**obs.loaded, STABLE.name: dead}))
    assert (moved(plan), shares(plan)) == ([NAME], [("LowerRoute", "", 0)])


def test_without_strategy_canary_there_is_no_step_and_no_route() -> None:
    plan = run(seen(OLD, STABLE, a_revision(OLD, "Surging", data="d2" * 32), traffic=STABLE, data="d2" * 32))
    assert (len(moved(plan)), shares(plan)) == (1, [])


# ---------------------------------------------------------------- from step to step


def test_after_its_time_comes_the_next() -> None:
    plan = run(shifting())
    steps = recorded(plan, at_step()).rollout.steps  # type: ignore[union-attr]
    assert steps is not None
    assert (steps.number, steps.started_at, moved(plan)) == (1, None, [])
    assert shares(plan) == [("EnsureRoute", NAME, 10)]  # the larger one once that is written down


def step_numbers(plan: Any) -> set[int]:
    """Of the steps that the candidate was and will be at."""
    now = recorded_of(plan, NAME)
    steps = now.rollout.steps if now is not None else None
    return {0} | ({steps.number} if steps is not None else set())


@pytest.mark.parametrize("changes", [{"since": 200.0}, {"since": 600.0, "started_at": to_text(NOW - 200)}])
def test_not_before(changes: dict[str, Any]) -> None:
    plan = run(shifting(at_step(**changes)))
    assert (plan.status.phase, step_numbers(plan)) == ("Shifting", {0})


def test_without_evidence_it_stays_where_it_is() -> None:
    plan = run(shifting(evidence={}))
    assert (moved(plan), shares(plan), step_numbers(plan)) == ([], [("EnsureRoute", NAME, 10)], {0})
    assert plan.status.candidate == NAME


def test_a_step_that_pauses_waits_for_resume() -> None:
    began = run(shifting(at_step(1, started=False), weight=50))
    status = recorded(began, at_step(1))
    assert status.pause == Pause(nonce="rollout.steps[1]", at=to_text(NOW))
    held = at_step(1, since=600.0)
    held = replace(held, status=held.status.model_copy(update={"pause": status.pause}))
    plan = run(shifting(held, weight=50))
    assert (plan.status.reason, moved(plan)) == ("Paused", [])
    assert moved(run(asks(shifting(held, weight=50), "resume"))) == [NAME]


def test_after_the_last_the_front_service_switches_and_the_route_goes_back_to_it() -> None:
    view = at_step(1, since=600.0)
    plan = run(shifting(view, weight=50))
    assert (moved(plan), phase(plan, view)) == ([NAME], "Soaking")
    assert shares(plan) == [("LowerRoute", "", 0)]
    kinds = [type(one) for one in plan.safe]
    assert kinds.index(MoveTraffic) < kinds.index(LowerRoute)
    status = recorded(plan, view)
    assert status.rollout is not None
    assert (status.rollout.steps.outcome, status.rollout.restarts) == ("Passed", None)  # type: ignore[union-attr]


def test_while_a_pod_is_away_nobody_else_is_sent_there() -> None:
    obs = shifting(at_step(1, since=600.0), weight=50)
    view = obs.revisions[NAME]
    plan = run(replace(obs, loaded={**obs.loaded, NAME: loaded(view, pod("a"), pod("b", ready=False))}))
    assert (moved(plan), plan.status.reason) == ([], "StepWaits")


# ---------------------------------------------------------------- every way back


def gave_up(plan: Any, view: RevisionView) -> tuple[list[tuple[str, str, int]], str, list[str]]:
    kinds = [type(one) for one in plan.safe]
    assert kinds.index(LowerRoute) < kinds.index(WriteRevisionStatus), "the way back waits for other writes"
    return shares(plan), phase(plan, view), moved(plan)


BACK = [("LowerRoute", "", 0)]


def test_a_guardrail_takes_its_share_away_in_one_write() -> None:
    plan = run(shifting(errors=300))
    assert gave_up(plan, at_step()) == (BACK, "RolledBack", [])
    (lower,) = actions(plan, LowerRoute)
    assert lower.decision is not None
    assert (lower.decision.from_revision, lower.decision.kind, lower.resource_version) == (NAME, "RollBack", "")
    status = recorded(plan, at_step())
    assert status.rejected is not None
    assert (status.rejected.stage, status.lost_traffic_at) == ("Rollout", to_text(NOW))
    assert recorded_of(plan, STABLE.name) is None, "stable lost nothing and got nothing"


def recorded_of(plan: Any, name: str) -> Any:
    return next((one.status for one in actions(plan, WriteRevisionStatus) if one.revision == name), None)


def test_an_operator_that_died_right_after_that_write_finishes_it() -> None:
    plan = run(shifting(errors=300))
    (lower,) = actions(plan, LowerRoute)
    plan = run(shifting(route=routed(decision=lower.decision)), NOW + 5)
    assert (phase(plan, at_step()), shares(plan)) == ("RolledBack", [("EnsureRoute", "", 0)])


def test_it_is_written_also_where_nobody_had_a_share_yet() -> None:
    """A larger one that an operator of before is about to write is refused then."""
    plan = run(asks(shifting(at_step(started=False), route=routed()), "abort"))
    assert gave_up(plan, at_step()) == (BACK, "RolledBack", [])


def test_a_decision_of_long_ago_takes_nothing_from_the_next_one() -> None:
    old = Decision(
        DecisionKind.ROLL_BACK, NAME, STABLE.name, "errors", "ErrorRate", "long ago", NOW - 9 * HOUR, serial=7
    )
    first = run(surging(route=routed(decision=old)))
    obs = replace(after(surging(), first), route=named(decision=old))
    assert shares(run(obs, NOW + 1)) == [("EnsureRoute", NAME, 10)]


@pytest.mark.parametrize(("verb", "reason"), [("abort", "Aborted"), ("rollback", "Manual")])
def test_so_does_a_person(verb: str, reason: str) -> None:
    plan = run(asks(shifting(), verb))
    assert gave_up(plan, at_step()) == (BACK, "RolledBack", [])
    assert (recorded(plan, at_step()).rejected.reason, said(plan)[0]) == (reason, "Done")  # type: ignore[union-attr]
    again = run(asks(replace(after(shifting(), plan), route=routed()), verb))
    assert (said(again)[0], moved(again)) == ("Done", [])


def test_so_does_an_edit() -> None:
    plan = run(with_spec(shifting(), spec=OLD))
    assert gave_up(plan, at_step()) == (BACK, "Superseded", [])


def test_it_needs_no_spec_that_can_be_read() -> None:
    plan = run(with_spec(shifting(errors=300), spec=None, spec_error="nonsense"))
    assert gave_up(plan, at_step()) == (BACK, "RolledBack", [])


def test_a_suspended_index_keeps_its_step_and_is_judged() -> None:
    of = canary(suspend=True)
    assert shares(run(with_spec(shifting(), spec=of))) == [("EnsureRoute", NAME, 10)]
    assert gave_up(run(with_spec(shifting(errors=300), spec=of)), at_step()) == (BACK, "RolledBack", [])


def test_no_ready_pod_takes_it_away_too() -> None:
    view = at_step()
    obs = shifting(view)
    down = loaded(view, pod("a", ready=False), pod("b", ready=False), unready_since=NOW - 60)
    obs = replace(obs, loaded={**obs.loaded, NAME: down}, evidence={})
    later = after(obs, run(obs, NOW - 20))
    assert gave_up(run(replace(later, route=routed(10)), NOW), view)[:2] == (BACK, "RolledBack")


def test_a_share_that_somebody_else_made_larger_is_lowered_first() -> None:
    plan = run(shifting(at_step(since=100.0), route=routed(80)))
    assert shares(plan) == [("LowerRoute", NAME, 10)]
    assert shares(run(shifting(at_step(since=100.0), route=named()))) == [("EnsureRoute", NAME, 10)]


def test_what_somebody_adds_to_the_route_goes() -> None:
    route = routed(10, weights={FRONT: 50, NAME: 10, "somewhere": 40})
    assert shares(run(shifting(at_step(since=100.0), route=route))) == [("LowerRoute", NAME, 10)]


def test_a_dead_target_of_a_rollback_gets_its_place() -> None:
    """Stable tripped by hand to an earlier one that must be loaded: the canary steps back, and loses its share."""
    earlier = a_revision(OLD, "Superseded", data="d3" * 32, created=NOW - 90 * HOUR)
    obs = shifting()
    obs = replace(obs, revisions={**obs.revisions, earlier.name: earlier})
    plan = run(with_spec(obs, commands=(Command("rollback", earlier.name, "n1"),)))
    assert gave_up(plan, at_step())[:2] == (BACK, "Validated")


# ---------------------------------------------------------------- what stays


def test_its_searchers_stay_until_every_gateway_has_seen_that_it_lost_its_share() -> None:
    behind = run(lost(route=routed(behind=True, accepted=False, services={NAME: "u"})))
    assert (actions(behind, DeleteSearchers), actions(behind, DeleteStepService)) == ([], [])
    assert "RouteNotObserved" in [row.rule for row in behind.status.blocked_by]
    plan = run(lost(route=routed(services={NAME: "u"})))
    assert [one.revision for one in actions(plan, DeleteSearchers)] == [NAME]
    assert [one.name for one in actions(plan, DeleteStepService)] == [NAME]


@pytest.mark.parametrize(("seconds", "gone"), [(LEFT_SECONDS - 1, False), (LEFT_SECONDS, True)])
def test_who_is_no_gateway_of_the_route_any_more_is_not_waited_for_without_end(seconds: float, gone: bool) -> None:
    """Contour, for one, leaves what it said of a route in its status when the route names another Gateway."""
    left = routed(left_behind=True, written_at=NOW - seconds, services={NAME: "u"})
    plan = run(lost(route=left))
    assert bool(actions(plan, DeleteSearchers)) is gone
    assert bool(actions(plan, DeleteStepService)) is gone
    view = at_step(started=False)
    plan = run(shifting(view, route=replace(left, weights={FRONT: 90, NAME: 10})))
    assert (plan.status.reason == "RouteNotObserved") is not gone


@pytest.mark.parametrize(("seconds", "gone"), [(FOLLOW_SECONDS - 1, False), (FOLLOW_SECONDS, True)])
def test_what_a_gateway_steers_is_given_time_to_follow(seconds: float, gone: bool) -> None:
    """Envoy went on by what it knew when its controller, back again, had already said that it had seen the route."""
    plan = run(lost(route=routed(said_at=NOW - seconds, services={NAME: "u"})))
    assert bool(actions(plan, DeleteSearchers)) is gone
    assert bool(actions(plan, DeleteStepService)) is gone
    # And before it gets its first share: it said so long after it was named, so it was away.
    assert shares(run(shifting(route=named(said_at=NOW - seconds)))) == [("EnsureRoute", NAME, 10 if gone else 0)]
    prompt = named(written_at=NOW - 6, said_at=NOW - 5)
    assert shares(run(shifting(route=prompt))) == [("EnsureRoute", NAME, 10)]


@pytest.mark.parametrize(("problem", "stays"), [("403 Forbidden: no", True), ("404 : 404 page not found", False)])
def test_where_the_route_cannot_be_read_it_may_be_there(problem: str, stays: bool) -> None:
    plan = run(lost(route=RouteView(problem=problem)))
    assert (actions(plan, DeleteSearchers) == []) is stays


def test_nothing_is_removed_that_the_route_names() -> None:
    named = routed(10)
    plan = run(lost(route=named))
    assert (shares(plan), actions(plan, DeleteSearchers), actions(plan, DeleteStepService)) == (BACK, [], [])


def test_it_is_told_that_it_serves() -> None:
    told = {one.revision: one.state for one in actions(run(shifting(at_step(since=100.0))), RenewLeases)}
    assert told == {STABLE.name: LeaseState.SERVING, NAME: LeaseState.SERVING}
    told = {one.revision: one.state for one in actions(run(lost()), RenewLeases)}
    assert told[NAME] is LeaseState.DRAINING


def test_it_is_asked_with_stable_of_the_same_time() -> None:
    rules = [{"name": "r", "metric": "ErrorRate", "maxRiseVsStable": "50%"}]
    of = canary(guardrails={"rules": rules})
    view = at_step(of=of, since=300.0)
    asked = {one.revision: one for one in questions(shifting(view, of=of), NOW)}
    assert (asked[NAME].purpose, asked[STABLE.name].purpose) == (Purpose.SOAK, Purpose.BASELINE)
    assert asked[STABLE.name].since == NOW - 300


@pytest.mark.parametrize(("errors", "outcome"), [(100, "Shifting"), (300, "RolledBack")])
def test_a_relative_rule_compares_with_what_stable_answers_meanwhile(errors: int, outcome: str) -> None:
    """Stable fails as often at this time of day: that is no fault of the candidate's."""
    of = canary(guardrails={"rules": [{"name": "r", "metric": "ErrorRate", "maxRiseVsStable": "50%", "window": "1m"}]})
    view = at_step(of=of)
    evidence = {
        NAME: counts(view, errors=errors, since=NOW - 600),
        STABLE.name: counts(STABLE, errors=100, since=NOW - 600),
    }
    plan = run(shifting(view, of=of, evidence=evidence))
    now = recorded_of(plan, NAME)
    assert now is not None
    assert now.phase == outcome


# ---------------------------------------------------------------- no gateway


@pytest.mark.parametrize(
    ("route", "words"),
    [
        (RouteView(problem="404 : 404 page not found"), "install the Gateway API"),
        (RouteView(problem="403 Forbidden: httproutes"), "routes.enabled"),
        (routed(accepted=False, unheard="gateways/public"), "spec.rollout.route.parentRefs (Gateway gateways/public)"),
        (routed(accepted=False, unheard="gateways/lost"), "Gateway gateways/lost has said nothing of HTTPRoute/docs"),
        (routed(accepted=False, refused="Gateway public does not take the route"), "does not take the route"),
        (RouteView(exists=True, owned=False), "belongs to somebody else"),
    ],
)
def test_without_a_gateway_it_waits_and_says_what_to_do(route: RouteView, words: str) -> None:
    plan = run(surging(route=route))
    assert moved(plan) == []
    value, reason, message = condition(plan.status, "Stalled")
    assert (value, reason) == ("True", "GatewayNotFound")
    assert words in message
    assert condition(plan.status, "Ready")[0] == "True"
    assert shares(plan) in ([], [("EnsureRoute", "", 0)])


def test_a_route_that_was_just_written_is_given_time() -> None:
    plan = run(surging(route=routed(accepted=False, unheard="gateways/public", written_at=NOW - 5)))
    assert (plan.status.reason, condition(plan.status, "Stalled")) == ("RouteNotObserved", ("", "", ""))


def test_without_one_another_strategy_is_a_way_out() -> None:
    plain = canary()
    plain = plain.model_copy(update={"rollout": plain.rollout.model_copy(update={"strategy": "BlueGreen"})})
    assert moved(run(with_spec(surging(route=RouteView(problem="404")), spec=plain))) == [NAME]


def test_a_gateway_that_goes_away_in_a_step_stops_it() -> None:
    plan = run(shifting(route=RouteView(problem="404 : 404 page not found")))
    assert (moved(plan), condition(plan.status, "Stalled")[1]) == ([], "GatewayNotFound")
    assert run(asks(shifting(route=RouteView(problem="404")), "abort")).status.candidate == ""


def test_a_route_without_a_canary_is_kept_and_taken_away() -> None:
    of = NEW.model_copy(update={"rollout": NEW.rollout.model_copy(update={"strategy": "BlueGreen", "steps": None})})
    assert shares(run(seen(of, STABLE, traffic=STABLE, route=RouteView()))) == [("EnsureRoute", "", 0)]
    plan = run(seen(OLD, STABLE, traffic=STABLE, route=routed()))
    assert [one.name for one in actions(plan, DeleteRoute)] == [FRONT]
    assert actions(run(seen(OLD, STABLE, traffic=STABLE)), DeleteRoute) == []


# ---------------------------------------------------------------- promote


def test_a_word_ends_the_steps_and_the_soak_comes_after_them() -> None:
    view = at_step(since=100.0)
    plan = run(asks(shifting(view), "promote"))
    assert (moved(plan), phase(plan, view), said(plan)[0]) == ([NAME], "Soaking", "Done")


def test_no_word_helps_against_a_fail() -> None:
    plan = run(asks(shifting(errors=300), "promote"))
    assert gave_up(plan, at_step()) == (BACK, "RolledBack", [])


def test_an_undecided_step_makes_room_for_what_is_proven_only_after_the_time_of_a_soak() -> None:
    newer = a_revision(NEW, "Validated", data="d2" * 32)

    def waits(since: float) -> Observation:
        obs = shifting(at_step(since=since), evidence={})
        return replace(obs, revisions={**obs.revisions, newer.name: newer})

    assert run(waits(HOUR)).status.candidate == NAME
    plan = run(waits(7 * HOUR))
    assert gave_up(plan, at_step())[:2] == (BACK, "Superseded")


def test_a_write_that_is_not_recorded_gives_no_larger_share() -> None:
    """The plan names what the larger share was decided on, so that who is late is refused."""
    obs = replace(after(surging(), run(surging())), route=named())
    (raised,) = [one for one in run(obs, NOW + 1).actions if type(one).__name__ == "EnsureRoute"]
    assert (raised.weight, raised.resource_version) == (10, "77")  # type: ignore[union-attr]
