"""What must not get a share of a gateway's traffic, or keep one; and what a way back from a step must not wait for."""

from __future__ import annotations

from .mutant import Mutant, seeds

_OPERATOR = "operator/vectorindex_operator"
_ROUTE = f"{_OPERATOR}/core/safety/route.py"
_SHIFT = f"{_OPERATOR}/core/progress/shift.py"
_STEPS = f"{_OPERATOR}/core/safety/judge_steps.py"
_PLAN = f"{_OPERATOR}/core/plan.py"
_LIFECYCLE = f"{_OPERATOR}/core/lifecycle.py"
_TESTS = "unit/test_canary.py::"
_ROUTES = "unit/test_routes.py::"

CANARY = (
    # ------------------------------------------------------------ what gets a share
    Mutant(
        "a share is given before it is written down that it is",
        _ROUTE,
        "    return same and ready > 0",
        "    return ready > 0",
        (f"{_TESTS}test_after_its_time_comes_the_next",),
        "An operator that dies in between would leave users with what no guardrail judges.",
    ),
    Mutant(
        "a share is given to a Service without pods",
        _ROUTE,
        " and ready > 0 and state.obs.route.endpoints.get(name, 0) >= ready",
        "",
        (f"{_TESTS}test_no_larger_share_before_its_service_leads_to_its_pods",),
        "A gateway answers 500 for a backend that has no endpoint.",
    ),
    Mutant(
        "a larger share is written on any version of the route",
        f"{_OPERATOR}/reconcile/objects.py",
        '        looked_at |= {"resourceVersion": version} if version else {}\n',
        "",
        (f"{_ROUTES}test_a_larger_share_is_refused_on_a_route_that_has_changed",),
        "A write that comes late would give users back to what was rolled back.",
    ),
    Mutant(
        "a step's weight is not put back that somebody has changed",
        _ROUTE,
        "    weight = weight if _may_grow(state, name) else min(before, weight)\n",
        "    weight = weight if _may_grow(state, name) else min(before, weight)\n    weight = before or weight\n",
        (f"{_TESTS}test_a_share_that_somebody_else_made_larger_is_lowered_first",),
        "One line in a dashboard would give a canary all users.",
        each=(seeds("the_route_is_changed_by_hand"),),
    ),
    Mutant(
        "a route's filters are anybody's",
        f"{_OPERATOR}/reconcile/objects.py",
        '    if field is None and wanted["kind"] == "HTTPRoute":\n',
        '    if field is None and wanted["kind"] == "Nothing":\n',
        (f"{_ROUTES}test_what_somebody_changes_is_put_back_and_told",),
        "They can send queries anywhere.",
    ),
    # ------------------------------------------------------------ what a step waits for
    Mutant(
        "a step counts before a gateway routes so",
        _ROUTE,
        "    return view.accepted and not view.behind and shares == wanted\n",
        "    return shares == wanted\n",
        (f"{_TESTS}test_a_step_counts_only_when_every_gateway_routes_so",),
        "Its time would be over before anybody was sent to it.",
    ),
    Mutant(
        "one gateway of several is enough",
        f"{_OPERATOR}/reconcile/routes.py",
        '    accepted = bool(routes) and all(("", "") in each for each in routes)\n',
        '    accepted = bool(routes) and any(("", "") in each for each in routes)\n',
        (f"{_ROUTES}test_each_of_several_gateways_must_take_it",),
        "The users of the other one would not be in what guardrails see.",
    ),
    Mutant(
        "a step ends although its guardrails do not pass",
        _STEPS,
        "        state.step_passed = act is Act.NEXT_STEP and elapsed",
        "        state.step_passed = elapsed",
        (f"{_TESTS}test_without_evidence_it_stays_where_it_is",),
        "No evidence is never a Pass.",
    ),
    Mutant(
        "a step that is to wait for a person does not",
        _SHIFT,
        "    if at.pause and (held is None or held.resumed):\n",
        "    if at.weight > 99 and (held is None or held.resumed):\n",
        (f"{_TESTS}test_a_step_that_pauses_waits_for_resume",),
        "Who wants to look for himself would find it switched to.",
        each=(seeds("canary_waits_for_a_person"),),
    ),
    Mutant(
        "a missing gateway is not said",
        _SHIFT,
        "    why = route.obstacle(state)\n",
        '    why = ""\n',
        (f"{_TESTS}test_without_a_gateway_it_waits_and_says_what_to_do",),
        "The rollout would stand still, and nobody would know for what.",
        each=(seeds("canary_before_there_is_a_gateway"),),
    ),
    Mutant(
        "a dead stable revision holds up what would replace it",
        _SHIFT,
        "    if not loaded.serving() and since",
        "    if not loaded.exists and since",
        (f"{_TESTS}test_a_stable_revision_without_pods_holds_up_nothing",),
        "Steps beside what answers nobody are no proof, and its users wait.",
    ),
    Mutant(
        "a person's word does not end the steps",
        _STEPS,
        "    elif not _by_word(state, name, rollout, merged, said):\n",
        "    else:\n",
        (f"{_TESTS}test_a_word_ends_the_steps_and_the_soak_comes_after_them",),
        "Where nobody comes through the gateway a step would never end.",
        each=(seeds("promote_in_a_step"),),
    ),
    # ------------------------------------------------------------ the way back
    Mutant(
        "a canary is not judged",
        _LIFECYCLE,
        "    judge_steps.step,\n",
        "",
        (f"{_TESTS}test_a_guardrail_takes_its_share_away_in_one_write",),
        "A share of the users would have bad answers for as long as the steps last.",
        each=(seeds("canary_trips"), seeds("a_step_while_no_operator_is_there")),
    ),
    Mutant(
        "the way back out of a step comes after other writes",
        _PLAN,
        "    MoveTraffic,\n    LowerRoute,\n    WriteRevisionStatus,\n",
        "    MoveTraffic,\n    WriteRevisionStatus,\n    LowerRoute,\n",
        (f"{_TESTS}test_a_guardrail_takes_its_share_away_in_one_write",),
        "Whatever holds up a status would hold up users.",
    ),
    Mutant(
        "what the route says of a trip is not read",
        _LIFECYCLE,
        "    withdraw.step,\n",
        "",
        (f"{_TESTS}test_an_operator_that_died_right_after_that_write_finishes_it",),
        "An operator that died right after the write would give the share back.",
    ),
    Mutant(
        "a trip does not travel with the weights",
        f"{_OPERATOR}/manifests/httproute.py",
        " if action.decision is not None else None\n",
        " if action.weight > 100 and action.decision else None\n",
        (f"{_ROUTES}test_it_belongs_to_the_index_and_carries_the_reason",),
        "It would be forgotten with the operator that made it.",
    ),
    Mutant(
        "a decision of long ago rejects the next candidate of that name",
        _SHIFT,
        "settled_serial=settled)",
        "settled_serial=state.statuses[name].settled_serial)",
        (f"{_TESTS}test_a_decision_of_long_ago_takes_nothing_from_the_next_one",),
        "A revision that is made again would lose its share without a fault.",
    ),
    Mutant(
        "an abort in a step leaves the revision its share",
        f"{_OPERATOR}/core/safety/abort.py",
        " and state.statuses[name].phase == Phase.SHIFTING:\n",
        ' and state.statuses[name].phase == "Nothing":\n',
        (f"{_TESTS}test_so_does_a_person",),
        "It would be told as if no user had met it.",
        each=(seeds("abort_in_a_step"),),
    ),
    Mutant(
        "the searchers go while a gateway sends them queries",
        f"{_OPERATOR}/core/safety/keep_loaded.py",
        "    if not route.holds(state, name):\n",
        "    if name:\n",
        (f"{_TESTS}test_its_searchers_stay_until_every_gateway_has_seen_that_it_lost_its_share",),
        "Its users would get errors instead of answers.",
        each=(seeds("abort_with_a_gateway_that_is_deaf"),),
    ),
    Mutant(
        "a candidate's Service goes while a gateway uses it",
        _ROUTE,
        "    if state.obs.route.behind or not clear:\n",
        "    if not clear:\n",
        (f"{_TESTS}test_its_searchers_stay_until_every_gateway_has_seen_that_it_lost_its_share",),
        "A gateway answers 500 for a backend that is gone.",
        each=(seeds("canary_with_a_slow_gateway"),),
    ),
    Mutant(
        "a candidate's Service stays for ever",
        _ROUTE,
        "        if name != keep:\n",
        "        if name == keep:\n",
        (f"{_TESTS}test_its_searchers_stay_until_every_gateway_has_seen_that_it_lost_its_share",),
        "Each rollout would leave one.",
        each=(seeds("canary_passes"),),
    ),
    Mutant(
        "a route that nobody wants any more stays",
        _ROUTE,
        "        state.act(DeleteRoute(index.name, view.uid))\n",
        "        pass\n",
        (f"{_TESTS}test_a_route_without_a_canary_is_kept_and_taken_away",),
        "Its host names would be taken.",
        each=(seeds("the_route_is_taken_out"),),
    ),
    Mutant(
        "a canary is told to drain",
        f"{_OPERATOR}/core/safety/keep_loaded.py",
        " if name == state.serving or shares else ",
        " if name == state.serving else ",
        (f"{_TESTS}test_it_is_told_that_it_serves",),
        "It would close each connection of the gateway after its answer, and be judged as slow.",
    ),
    Mutant(
        "an API that is not there ends the look",
        f"{_OPERATOR}/reconcile/observe.py",
        "    except RefusedError as error:\n",
        "    except AssertionError as error:\n",
        (f"{_ROUTES}test_an_api_that_is_not_there_ends_no_look",),
        "An index would not even be rolled back for want of a kind that it could do without.",
    ),
)
