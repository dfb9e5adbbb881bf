"""What a person may do to a rollout, and what it may never do: stop what protects, or serve what failed."""

from __future__ import annotations

from .mutant import Edit, Mutant, seeds

_OPERATOR = "operator/vectorindex_operator"
_SAFETY = f"{_OPERATOR}/core/safety"
_PROGRESS = f"{_OPERATOR}/core/progress"
_LIFECYCLE = f"{_OPERATOR}/core/lifecycle.py"
_ABORT = f"{_SAFETY}/abort.py"
_PROMOTE = f"{_SAFETY}/promote.py"
_SERVING = f"{_SAFETY}/judge_serving.py"
_SUSPEND = "unit/test_suspend.py::"
_ABORTS = "unit/test_abort.py::"
_PROMOTES = "unit/test_promote.py::"
_PAUSES = "unit/test_pause.py::"
_PIN = f"{_PROGRESS}/pin.py"
_REBUILDS = "unit/test_rebuild.py::"
_PINS = "unit/test_pin.py::"

VERBS = (
    # ------------------------------------------------------------ suspend
    Mutant(
        "a suspended index goes on as before",
        _LIFECYCLE,
        "        _run(PINNED if state.pinned else SUSPENDED if state.suspended else GO_FORWARD, state)\n",
        "        _run(PINNED if state.pinned else GO_FORWARD, state)\n",
        (f"{_SUSPEND}test_nothing_new_begins",),
        "Whoever suspends an index would see it build, and switch, all the same.",
        each=(seeds("suspended_before_an_edit"), seeds("suspended_at_any_moment")),
    ),
    Mutant(
        "what soaks is not judged while the index is suspended",
        _SERVING,
        "    if state.has_moved:\n        return  # the searchers",
        "    if state.has_moved or state.suspended:\n        return  # the searchers",
        (f"{_SUSPEND}test_a_guardrail_that_fails_goes_back",),
        "A bad revision would serve for as long as nobody looks.",
        each=(seeds("suspended_while_it_trips"),),
    ),
    Mutant(
        "nobody goes back while the index is suspended",
        f"{_SAFETY}/obey_commands.py",
        "        elif command.name in OBEYED:\n",
        "        elif command.name in OBEYED and not state.suspended:\n",
        (f"{_SUSPEND}test_a_person_goes_back",),
        "Who suspends an index that is in trouble could not end the trouble.",
        each=(seeds("rollback_while_suspended"),),
    ),
    Mutant(
        "what no user has met keeps its searchers while the index is suspended",
        f"{_PROGRESS}/suspend.py",
        "    step_back(state, state.candidate)\n",
        "",
        (f"{_SUSPEND}test_what_no_user_has_met_steps_back_and_keeps_its_proof",),
        "They would hold memory for days, and what they saw in shadow would be as old at the switch.",
        each=(seeds("suspended_in_shadow"),),
    ),
    Mutant(
        "work that nobody wants any more goes on while the index is suspended",
        _LIFECYCLE,
        "    forget.stop_unwanted_work,\n",
        "",
        (f"{_SUSPEND}test_work_that_nobody_wants_any_more_is_stopped",),
        "What a person has aborted would go on to take a node.",
    ),
    Mutant(
        "a retry begins something in a suspended index",
        f"{_PROGRESS}/obey_commands.py",
        "        if state.suspended:\n",
        "        if state.errors:\n",
        (f"{_SUSPEND}test_a_request_that_would_begin_something_is_refused",),
        "It would be said to be done, and nothing would come of it.",
    ),
    # ------------------------------------------------------------ abort
    Mutant(
        "an abort takes what is stable",
        _ABORT,
        "    return status.phase in IN_PREPARATION | CANDIDATE or",
        "    return status.phase in IN_PREPARATION | CANDIDATE | {Phase.STABLE} or",
        (f"{_ABORTS}test_what_is_stable_is_not_on_its_way",),
        "Who comes a moment too late would lose the revision that serves well.",
        each=(seeds("nothing_to_abort_or_promote"),),
    ),
    Mutant(
        "an abort leaves the traffic to what soaks",
        _ABORT,
        "            keep = _go_back(state, name, mark)\n",
        '            keep = f"{name} keeps the traffic"\n',
        (f"{_ABORTS}test_what_soaks_loses_the_traffic_in_one_write",),
        "Users would stay on what a person has given up.",
        each=(seeds("abort_in_soak"),),
    ),
    Mutant(
        "an abort leaves what is being built",
        _ABORT,
        "    return status.phase in IN_PREPARATION | CANDIDATE or",
        "    return status.phase in CANDIDATE or",
        (f"{_ABORTS}test_what_no_user_has_met_is_rejected_and_stays_so",),
        "It would be rolled out when it is ready.",
        each=(seeds("abort_in_build"), seeds("abort_everything_and_retry")),
    ),
    Mutant(
        "an abort leaves what is in shadow",
        _ABORT,
        "    return status.phase in IN_PREPARATION | CANDIDATE or",
        "    return status.phase in IN_PREPARATION | {Phase.SOAKING} or",
        (f"{_ABORTS}test_what_no_user_has_met_is_rejected_and_stays_so",),
        "It would get the traffic a minute later.",
        each=(seeds("abort_in_shadow"),),
    ),
    Mutant(
        "an abort whose answer was lost is not found again",
        _ABORT,
        '    return mark in (status.rejected.message if status.rejected else "",',
        '    return mark in ("" if status.rejected else "",',
        (f"{_ABORTS}test_one_request_is_one_step_although_the_answer_was_lost",),
        "A person would read Refused of what was done.",
    ),
    Mutant(
        "an abort forgets the verdict that goes back already",
        _ABORT,
        "    if before is not None:\n",
        "    if before is not None and before.message == mark:\n",
        (f"{_ABORTS}test_a_verdict_that_goes_back_already_is_not_forgotten",),
        "Nobody would know which guardrail failed.",
    ),
    # ------------------------------------------------------------ promote
    Mutant(
        "a word is stronger than a Fail",
        _PROMOTE,
        "        if one.verdict is Verdict.FAIL or one.windows_failed or",
        "        if one.windows_failed < 0 or",
        (f"{_PROMOTES}test_it_is_never_stronger_than_a_fail",),
        "Users would keep the revision that fails them.",
        also=(
            Edit(
                _SERVING,
                "    if act is Act.ROLL_BACK:\n        _trip",
                "    if act is Act.ROLL_BACK and promotion is None:\n        _trip",
            ),
        ),
    ),
    Mutant(
        "a word is stronger than a Fail that lacks one window",
        _PROMOTE,
        " or one.windows_failed or",
        " or",
        (f"{_PROMOTES}test_nor_than_one_that_lacks_only_the_next_window",),
        "Stable would be let go of half a minute before the Fail.",
    ),
    Mutant(
        "what has no ready pod is promoted",
        _PROMOTE,
        " or one.reason in UNREADY:\n",
        ":\n",
        (f"{_PROMOTES}test_nor_while_nothing_of_it_is_ready",),
        "Stable would be let go of while nothing else answers.",
    ),
    Mutant(
        "a word is stronger than an Error at once",
        _PROMOTE,
        "        if one.verdict is Verdict.ERROR and not over:\n",
        "        if one.verdict is Verdict.ERROR and one.windows_failed:\n",
        (f"{_PROMOTES}test_what_tells_nothing_may_hide_a_fail_until_the_soak_took_as_long_as_it_may",),
        "A look that got no answer would hide a Fail.",
    ),
    Mutant(
        "what is to lose the traffic is promoted",
        _PROMOTE,
        "    if rollout.trip is not None:\n",
        "    if rollout.trip is not None and not rollout.prior:\n",
        (f"{_PROMOTES}test_what_is_to_lose_the_traffic_is_not_promoted",),
        "A rollback that waits for its target would be forgotten.",
        each=(seeds("promote_what_failed"),),
    ),
    Mutant(
        "guardrails of another release are promoted over",
        _PROMOTE,
        '    if unread := rollout.unread & {"settings", "guardrails"}:\n',
        '    if unread := rollout.unread & {"settings"}:\n',
        (f"{_PROMOTES}test_what_another_release_judges_by_is_not_overridden",),
        "One of them may have said Fail.",
    ),
    Mutant(
        "nobody promotes what a person asks for",
        _SERVING,
        "    promotion = _by_word(state, name, rollout, merged, said) or _due(state, name, rollout, merged, act)\n",
        "    promotion = _due(state, name, rollout, merged, act)\n",
        (f"{_PROMOTES}test_a_word_is_enough_where_nothing_fails",),
        "Without queries a rollout would never end.",
        each=(seeds("promote_without_queries"),),
    ),
    Mutant(
        "a promotion whose answer was lost is not found again",
        _PROMOTE,
        "    if done:\n",
        "    if done and state.candidate:\n",
        (f"{_PROMOTES}test_one_request_is_one_promotion_although_the_answer_was_lost",),
        "A person would read Refused of what was done.",
    ),
    # ------------------------------------------------------------ rebuild
    Mutant(
        "a rebuild has the number of the build before",
        f"{_PROGRESS}/obey_commands.py",
        "    rebuild = Rebuild(number=recipe.highest_build(state.obs) + 1, nonce=command.nonce)\n",
        "    rebuild = Rebuild(number=recipe.highest_build(state.obs), nonce=command.nonce)\n",
        (f"{_REBUILDS}test_it_is_another_digest_of_the_same_spec_and_data",),
        "The artifact would be found published, and nothing built.",
        each=(seeds("rebuild_what_serves"),),
    ),
    Mutant(
        "the number of a build that is forgotten is used again",
        f"{_OPERATOR}/core/recipe.py",
        "    return max([obs.index.status.rebuilds or 0, *(",
        "    return max([0, *(",
        (f"{_REBUILDS}test_a_number_is_never_used_again",),
        "Its artifact would be found published, and nothing built.",
    ),
    Mutant(
        "a rebuild is made anew by each look",
        f"{_PROGRESS}/obey_commands.py",
        "    return view.spec.rebuild is not None and view.spec.rebuild.nonce == command.nonce\n",
        "    return view.spec.rebuild is not None and view.spec.rebuild.nonce != command.nonce\n",
        (f"{_REBUILDS}test_it_is_built_and_answered_when_it_is_there",),
        "A request whose answer was lost would build without end.",
    ),
    Mutant(
        "a rebuild is begun beside another rollout",
        f"{_PROGRESS}/obey_commands.py",
        "    if under_way:\n",
        "    if under_way and not state.stable:\n",
        (f"{_REBUILDS}test_it_is_refused",),
        "What the user has asked for since would wait behind it.",
    ),
    # ------------------------------------------------------------ pin
    Mutant(
        "a pin is passed over",
        _LIFECYCLE,
        "        _run(PINNED if state.pinned else SUSPENDED if state.suspended else GO_FORWARD, state)\n",
        "        _run(SUSPENDED if state.suspended else GO_FORWARD, state)\n",
        (f"{_PINS}test_it_is_rolled_out_as_what_it_was_proven_to_be",),
        "Whoever goes back through Git would go nowhere.",
        each=(seeds("pin_back"), seeds("pin_during_soak"), seeds("pin_of_nothing")),
    ),
    Mutant(
        "what did not pass the gate is pinned",
        _PIN,
        "    if state.statuses[name].rejected is None and not is_proven(state, name):\n",
        "    if state.statuses[name].build is None:\n",
        (f"{_PINS}test_what_did_not_pass_the_gate_cannot",),
        "What nobody measured would be given the traffic.",
    ),
    Mutant(
        "what was rejected is taken again because it is pinned",
        _PIN,
        "    if known.phase in (IN_PREPARATION | REPLACED) - {Phase.VALIDATED} and known.rejected is None:\n",
        "    if name not in (state.stable, state.candidate):\n",
        (f"{_PINS}test_a_guardrail_does",),
        "A revision that fails its users would come back a minute later.",
        each=(seeds("pin_what_fails"),),
    ),
    Mutant(
        "a pinned revision is measured anew by what the spec asks for now",
        _PIN,
        "        state.update(name, phase=Phase.VALIDATED, rollout=None,",
        "        state.update(name, phase=Phase.VALIDATING, rollout=None,",
        (f"{_PINS}test_another_gate_or_other_classes_measure_nothing_again",),
        "Nothing measures while a revision is pinned: it would wait for ever.",
        each=(seeds("pin_and_take_out"),),
    ),
    Mutant(
        "what is on its way goes on while a pin names nothing",
        _PIN,
        "        suspend.step_back(state, state.candidate)\n",
        "",
        (f"{_PINS}test_what_is_on_its_way_waits_while_the_name_is_wrong",),
        "A slip in a name would let what was to be kept out have the traffic.",
    ),
    # ------------------------------------------------------------ pause
    Mutant(
        "what is paused is loaded",
        f"{_PROGRESS}/surge.py",
        "    proven = proven and not pause.holds(state, state.preparing)\n",
        "    proven = proven and not (pause.holds(state, state.preparing) and state.errors)\n",
        (f"{_PAUSES}test_what_is_proven_is_not_loaded",),
        "A rollout that a person holds would go on.",
    ),
    Mutant(
        "what is paused is switched to",
        f"{_PROGRESS}/surge.py",
        "    if ready and not pause.holds(state, name):\n",
        "    if ready:\n",
        (f"{_PAUSES}test_what_is_loaded_is_not_switched_to",),
        "Users would meet what a person holds.",
    ),
    Mutant(
        "what is paused is promoted",
        _SERVING,
        "    if pause.holds(state, name):\n        return None\n",
        "",
        (f"{_PAUSES}test_what_soaks_is_not_promoted",),
        "The way back would be unloaded while a person still looks.",
        each=(seeds("pause_in_soak"),),
    ),
    Mutant(
        "nobody is held",
        f"{_SAFETY}/pause.py",
        "    if pause is None or pause.resumed:\n        return False\n",
        "    if pause is None or pause.nonce:\n        return False\n",
        (f"{_PAUSES}test_what_is_loaded_is_not_switched_to",),
        "A person would read Done of what is not done.",
        each=(seeds("pause_before_the_switch"),),
    ),
    Mutant(
        "a word of long ago holds what is wanted again",
        f"{_PROGRESS}/desired.py",
        "phase=Phase.PENDING, rollout=None, pause=None, message=",
        "phase=Phase.PENDING, rollout=None, message=",
        (f"{_PAUSES}test_what_is_wanted_again_is_not_held_by_what_was_said_long_ago",),
        "A rollout would wait for a person who has long forgotten it.",
    ),
)
