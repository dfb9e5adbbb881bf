"""Wider instead of back: when, what holds, and that evidence is of one operating point."""

from __future__ import annotations

from .mutant import Mutant, seeds

_SAFETY = "operator/vectorindex_operator/core/safety"
_POINT = f"{_SAFETY}/operating_point.py"
_SERVE = "searcher/vectorindex_searcher/serve"
_DECIDED = "unit/test_operating_point.py::"
_POD = "unit/test_searcher_point.py::"

POINTS = (
    # ------------------------------------------------------------ when
    Mutant(
        "live recall that is too low without a prior is only said",
        _POINT,
        "    if is_conservative(state, name) or why_not(state, name):\n",
        "    if state.now or why_not(state, name):\n",
        (f"{_DECIDED}test_recall_that_is_too_low_without_a_prior_makes_the_search_wider",),
        "Users would be answered badly until somebody reads it.",
        each=(seeds("recall_too_low_and_no_prior"),),
    ),
    Mutant(
        "a revision with a prior searches wider and does not go back",
        _POINT,
        "    if any(one.metric != LIVE_RECALL for one in failed) or _can_go_back(state, name):\n",
        "    if any(one.metric != LIVE_RECALL for one in failed):\n",
        (f"{_DECIDED}test_with_a_prior_that_can_be_loaded_the_traffic_goes_back_instead",),
        "What was proven with traffic would stay unused.",
    ),
    Mutant(
        "a prior that cannot be loaded is waited for",
        _POINT,
        "    return bool(target) and (state.loaded(target).serving() or not state.statuses[target].artifact_gone_at)\n",
        "    return bool(target)\n",
        (f"{_DECIDED}test_a_prior_whose_artifact_is_gone_is_no_way_back_unless_its_pods_are_there",),
        "The rollback waits without end, and recall stays too low meanwhile.",
        each=(seeds("recall_too_low_and_the_artifact_gone"),),
    ),
    Mutant(
        "a revision that fails otherwise, too, searches wider",
        _POINT,
        "    if any(one.metric != LIVE_RECALL for one in failed) or _can_go_back(state, name):\n",
        "    if not any(one.metric == LIVE_RECALL for one in failed) or _can_go_back(state, name):\n",
        (f"{_DECIDED}test_nothing_is_done_where_it_would_not_help_and_people_are_told_why",),
        "A pod that is overloaded would get several times the work.",
    ),
    Mutant(
        "a conservative point is used whatever it costs",
        _POINT,
        "    if point.latency_us > MOST_COST * default.latency_us:\n",
        "    if point.latency_us < 0:\n",
        (f"{_DECIDED}test_nothing_is_done_where_it_would_not_help_and_people_are_told_why",),
        "Pods that answered all with a recall that was a little low would answer nobody.",
    ),
    Mutant(
        "pods that know no point are ordered to one",
        _POINT,
        "    if any(ServingPoint.CONSERVATIVE not in _points(one) for one in told):\n",
        "    if any(one.pod == '' for one in told):\n",
        (f"{_DECIDED}test_nothing_is_done_where_it_would_not_help_and_people_are_told_why",),
        "Nothing would change but that all their evidence is silence from then on.",
    ),
    # ------------------------------------------------------------ what holds
    Mutant(
        "new pods are not told their operating point",
        _POINT,
        "        if told:\n",
        "        if told and state.has_moved:\n",
        (f"{_DECIDED}test_pods_that_still_load_are_told_and_those_that_obey_are_not",),
        "With each pod that is replaced a part of the users would be answered badly again.",
        each=(seeds("recall_too_low_and_new_pods"),),
    ),
    Mutant(
        "a decision about the operating point is as old as the clock says",
        _POINT,
        "    at = max(state.now, before.at + 1e-3) if before is not None else state.now\n",
        "    at = state.now\n",
        (f"{_DECIDED}test_a_clock_that_was_set_back_decides_later_all_the_same",),
        "Pods would refuse a retry until the clock has caught up.",
    ),
    Mutant(
        "a revision that gets the traffic again begins at the default point",
        f"{_SAFETY}/give_traffic.py",
        "    point = point_decided(state, to_revision)\n",
        "    point = None\n",
        (f"{_DECIDED}test_it_stays_decided_when_the_service_is_made_again",),
        "A Service that somebody deletes would end what nothing else ends by itself.",
    ),
    Mutant(
        "the next revision begins at the conservative point of the one before",
        f"{_SAFETY}/give_traffic.py",
        "    point = point_decided(state, to_revision)\n",
        "    point = point_decided(state, from_revision or to_revision)\n",
        (),
        "Every revision from then on would take the CPU of a fault that is gone.",
        each=(seeds("conservative_until_the_next_stable"),),
    ),
    Mutant(
        "a retry does not end the conservative point",
        "operator/vectorindex_operator/core/progress/obey_commands.py",
        "    if operating_point.is_conservative(state, state.serving):\n",
        "    if not state.serving:\n",
        (f"{_DECIDED}test_a_person_ends_it",),
        "Nobody could end it but by a new revision.",
        each=(seeds("conservative_until_retry"),),
    ),
    Mutant(
        "a retry that was obeyed is obeyed again",
        "operator/vectorindex_operator/core/progress/obey_commands.py",
        "    return status is not None and status.point is not None and status.point.nonce == nonce\n",
        "    return status is None and nonce == ''\n",
        (f"{_DECIDED}test_a_request_that_nobody_could_answer_ends_it_once",),
        "It would be refused, since there is nothing left to end.",
    ),
    Mutant(
        "what went back to the default point never searches wider again",
        _POINT,
        "    if is_conservative(state, name) or why_not(state, name):\n",
        "    if point_decided(state, name) is not None or why_not(state, name):\n",
        (f"{_DECIDED}test_after_a_retry_it_is_judged_again",),
        "Who retries too early would be left with the recall that is too low.",
        each=(seeds("conservative_again_after_a_retry"),),
    ),
    # ------------------------------------------------------------ evidence
    Mutant(
        "evidence of another operating point is judged",
        _POINT,
        "    return tuple(_of_point(one, wanted) for one in state.obs.evidence.get(name, ()))\n",
        "    return tuple(one for one in state.obs.evidence.get(name, ()) if wanted)\n",
        (f"{_DECIDED}test_evidence_of_another_point_is_none",),
        "What was counted before the change would speak about what users get after it.",
    ),
    # ------------------------------------------------------------ searchers
    Mutant(
        "a searcher obeys an earlier decision about its point",
        f"{_SERVE}/point.py",
        "        late = order.decided_at < held.decided_at\n",
        "        late = order.decided_at < 0\n",
        (f"{_POD}test_the_latest_decision_holds_whatever_comes_after_it",),
        "An operator that was frozen would undo what another one has decided since.",
    ),
    Mutant(
        "a searcher forgets an order that comes while it loads",
        f"{_SERVE}/point.py",
        "        self.points = points\n        await self._obey()\n",
        "        self.points = points\n",
        (f"{_POD}test_an_order_that_comes_while_the_index_is_loaded_is_obeyed_before_there_are_users",),
        "New pods would answer their first users at the other point.",
    ),
    Mutant(
        "a pod whose process did not answer says that nothing changed",
        f"{_SERVE}/point.py",
        "            self._point = None\n",
        "",
        (f"{_POD}test_where_a_process_does_not_answer_nobody_says_at_which_point_it_is",),
        "The order to go back would find nothing to do, and a part of the pod would stay where it is.",
    ),
    Mutant(
        "the conservative point narrows a segment that the gate made wider",
        f"{_SERVE}/point.py",
        "                found[segment][name] = max(value, usual.get(name, value))\n",
        "                found[segment][name] = value\n",
        (f"{_POD}test_nothing_is_searched_with_less_than_at_the_default_point",),
        "Its recall would fall by what is to raise recall.",
    ),
    Mutant(
        "counts of both operating points are one evidence",
        f"{_SERVE}/evidence/ring.py",
        "        self._evidence_from = self._bucket + 1\n",
        "",
        (f"{_POD}test_what_was_counted_at_another_point_is_no_evidence_and_counts_since_the_start",),
        "Recall would seem too low for an hour after the change, and well for an hour after the end of it.",
    ),
    Mutant(
        "only one of several processes changes its operating point",
        f"{_SERVE}/workers/worker.py",
        '                self._app.serve_at(contract.ServingPoint(message["point"]))\n',
        '                assert message["point"]\n',
        (f"{_POD}test_every_process_answers_at_the_point_that_was_ordered_last",),
        "The pod would say that it answers at a point where it does not.",
    ),
)
