"""What keeps decisions: recorded with the traffic, made once, remembered, and the gate before them."""

from __future__ import annotations

from .mutant import Edit, Mutant, kept, seeds

_OPERATOR = "operator/vectorindex_operator"
_SAFETY = f"{_OPERATOR}/core/safety"
_PROGRESS = f"{_OPERATOR}/core/progress"
_RECORD = f"{_SAFETY}/record_decision.py"
_GIVE = f"{_SAFETY}/give_traffic.py"
_EXECUTE = f"{_OPERATOR}/reconcile/execute.py"
_LOOP = f"{_OPERATOR}/reconcile/loop.py"
_GATE = f"{_OPERATOR}/core/gate.py"
_FORGET = f"{_PROGRESS}/forget.py"
_VALIDATE = f"{_PROGRESS}/validate.py"

DECISIONS = (
    Mutant(
        "the decision on the front Service is not read again",
        _RECORD,
        "    if decision is not None:\n        record(state, decision)\n",
        "",
        ("unit/test_lifecycle.py::test_dying_right_after_the_write_of_a_rollback_loses_nothing", seeds("errors")),
        "An operator that dies after the write of a rollback would have it undone by the next one.",
    ),
    Mutant(
        "a decision is told from the next by clocks",
        _RECORD,
        "    if decision.serial:\n",
        "    if not status:\n",
        ("unit/test_safety_devices.py::test_a_decision_is_recorded_although_its_clock_was_behind",),
        "A rollback by an operator whose clock is behind would not be recorded.",
    ),
    Mutant(
        "two decisions have the same serial",
        f"{_OPERATOR}/core/state.py",
        "return max([*known, decision.serial if decision is not None else 0]) + 1",
        "return max([1, *known, decision.serial if decision is not None else 0])",
        ("unit/test_safety_devices.py::test_each_decision_has_a_number_of_its_own",),
        "The second decision would pass for recorded.",
    ),
    Mutant(
        "a decision that is recorded is recorded again",
        _RECORD,
        "        return status.settled_serial < decision.serial\n",
        "        return status.settled_serial <= decision.serial\n",
        ("unit/test_safety_devices.py::test_a_decision_that_is_recorded_rejects_nothing_again",),
        "What a person retries would be rejected by the old decision that still lies on the Service.",
    ),
    Mutant(
        "a pass moves the traffic twice",
        _GIVE,
        "    if state.has_moved or state.obs.traffic.refused:\n",
        "    if state.obs.traffic.refused:\n",
        ("unit/test_safety_devices.py::test_a_pass_moves_the_traffic_once",),
        "The second move would be decided on what was read before the first.",
    ),
    Mutant(
        "a refused write of the front Service is treated as done",
        _LOOP,
        "        if words:\n            executor.obs",
        "        if words and plan.errors:\n            executor.obs",
        ("unit/test_execute.py::test_the_traffic_that_cannot_be_moved_is_not_recorded_as_moved",),
        "Statuses would say that the traffic moved, and it did not.",
    ),
    Mutant(
        "what could not be recorded is answered all the same",
        _LOOP,
        "        return _as_recorded(executor, plan)\n",
        "        return plan\n",
        (
            "unit/test_execute.py::test_a_request_that_could_not_be_recorded_is_not_answered",
            kept("a rollback was answered although its record was refused"),
        ),
        "A person would read Done of a request that is lost.",
    ),
    Mutant(
        "work is built on what could not be recorded",
        _EXECUTE,
        "            if self.unrecorded or not self._run(action):\n",
        "            if not self._run(action):\n",
        ("unit/test_execute.py::test_what_could_not_be_recorded_is_no_ground_to_work_on",),
        "A Job would start for a phase that the next pass knows nothing of.",
    ),
    Mutant(
        "what could not be recorded is loaded",
        _EXECUTE,
        "            if unproven or not self._run(action):\n",
        "            if not self._run(action):\n",
        (
            "unit/test_safety_devices.py::test_nothing_is_loaded_whose_phase_could_not_be_recorded",
            kept("a revision was loaded although its phase could not be recorded"),
        ),
        "The next pass would load a third revision beside it.",
    ),
    Mutant(
        "a trip is not remembered",
        f"{_SAFETY}/roll_back.py",
        '    state.update(name, rollout=rollout.model_copy(update={"trip": tripped}))\n    state.event(',
        "    state.event(",
        ("unit/test_lifecycle.py::test_a_trip_that_waits_for_its_target_is_remembered_when_its_evidence_is_gone",),
        "A rollback that waits for its target would be forgotten once the evidence is gone.",
    ),
    Mutant(
        "a rollback by hand is taken twice",
        f"{_SAFETY}/obey_commands.py",
        "    if decision is not None and decision.nonce == command.nonce:\n",
        "    if decision is not None and not command.nonce:\n",
        (
            "unit/test_lifecycle_faults.py::test_a_request_to_roll_back_is_one_step_although_the_answer_was_lost",
            seeds("rollback_goes_one_step"),
        ),
        "An operator that dies before it answers would have the next one go back two steps.",
    ),
    Mutant(
        "the traffic is put back to what was given up",
        f"{_SAFETY}/restore_traffic.py",
        "state.statuses[name].phase not in GIVEN_UP and state.loaded(name).serving()",
        "state.loaded(name).serving()",
        ("unit/test_safety_devices.py::test_the_traffic_is_not_put_back_to_what_was_given_up",),
        "An emptied selector would bring back what tripped.",
    ),
    Mutant(
        "a late switch makes soak what was given up",
        _RECORD,
        "rollout.switched_at is None and status.phase not in GIVEN_UP:",
        "rollout.switched_at is None:",
        (
            "unit/test_lifecycle_faults.py::test_a_switch_to_what_was_given_up_meanwhile_is_taken_back",
            kept("a late switch made what was given up soak"),
        ),
        "A revision that another operator gave up would go on with the traffic.",
    ),
    Mutant(
        "the demotion is recorded before the promotion",
        f"{_OPERATOR}/core/state.py",
        "key=lambda item: item[1].phase != Phase.STABLE)",
        "key=lambda item: item[1].phase == Phase.STABLE)",
        ("unit/test_lifecycle_faults.py::test_a_promotion_is_recorded_before_the_demotion",),
        "A crash between the two would leave no stable revision to go back to.",
    ),
    Mutant(
        "a step that failed leaves its half behind",
        f"{_OPERATOR}/core/lifecycle.py",
        "        state.restore(before)\n",
        "",
        ("unit/test_safety_devices.py::test_half_of_what_a_faulty_step_meant_is_not_done",),
        "Half of what a faulty step meant would be carried out.",
    ),
    Mutant(
        "the traffic is moved after all else",
        f"{_OPERATOR}/core/plan.py",
        "    MoveTraffic,\n    WriteRevisionStatus,\n    # Before",
        "    WriteRevisionStatus,\n    MoveTraffic,\n    # Before",
        ("unit/test_lifecycle.py::test_a_guardrail_that_fails_goes_back_in_one_write_first_of_all",),
        "A status that is refused or slow would delay the rollback.",
    ),
    Mutant(
        "a deleted index is worked on",
        f"{_OPERATOR}/core/lifecycle.py",
        "    if obs.index.deleting:\n",
        "    if obs.index.deleting and not obs.revisions:\n",
        ("unit/test_lifecycle.py::test_deletion_beats_everything_and_does_nothing", seeds("deleted_during_soak")),
        "Objects would be made again while the garbage collector takes them.",
    ),
    # ------------------------------------------------------------ the gate
    Mutant(
        "the gate always passes",
        _GATE,
        'verdict, findings = ("Fail", failures) if failures else ("Inconclusive", doubts) if doubts else ("Pass", [])',
        'verdict, findings = "Pass", failures[:0] + doubts[:0]',
        ("unit/test_gate.py", seeds("gate_rejects")),
        "Whatever was built would get the traffic.",
    ),
    Mutant(
        "the gate believes an estimate",
        _GATE,
        "    if row.recall_low >= floor:\n",
        "    if row.recall >= floor:\n",
        ("unit/test_gate.py::test_the_lower_bound_proves_and_the_estimate_rejects",),
        "Luck with few queries would be a proof.",
    ),
    Mutant(
        "an inconclusive gate passes",
        _VALIDATE,
        '    elif verdict.verdict == "Inconclusive":\n',
        '    elif verdict.verdict == "Doubtful":\n',
        (
            "unit/test_lifecycle.py::test_an_inconclusive_gate_holds_or_rejects_as_asked",
            seeds("undecided_gate_then_data"),
        ),
        "Doubt would be taken for proof.",
    ),
    Mutant(
        "a report of another gate is judged",
        _VALIDATE,
        "    if status.report is not None and status.report.gate_hash == wanted:\n",
        "    if status.report is not None:\n",
        ("unit/test_lifecycle.py::test_changed_queries_measure_again_and_rebuild_nothing",),
        "A proof with the old queries would pass for one with the new.",
    ),
    Mutant(
        "the result of another gate is taken",
        _VALIDATE,
        "    elif attempt.result is not None and attempt.result.gate_hash == wanted:\n",
        "    elif attempt.result is not None:\n",
        ("unit/test_lifecycle.py::test_a_report_of_another_gate_is_not_judged",),
        "A report that another release wrote under this key would be believed.",
    ),
    Mutant(
        "a proof of another artifact is accepted",
        f"{_OPERATOR}/core/recipe.py",
        "if other == name or frozen.digest != mine.digest or place(frozen.artifacts) != place(mine.artifacts):",
        "if other == name or place(frozen.artifacts) != place(mine.artifacts):",
        ("unit/test_safety_devices.py::test_what_was_proven_of_another_artifact_proves_nothing",),
        "A new revision would inherit build and report of an artifact with other bytes.",
    ),
    Mutant(
        "a look of the gate that let nothing pass is not counted",
        _VALIDATE,
        "        rejections=min(_looks(state, name, wanted), MOST_LOOKS) or None,\n",
        "        rejections=None,\n",
        ("unit/test_lifecycle.py::test_each_look_in_a_row_asks_the_gate_for_more_certainty",),
        "Who asks often enough would be let through by chance.",
    ),
    # ------------------------------------------------------------ what is remembered
    Mutant(
        "a rejection is forgotten when the manifest comes back",
        f"{_PROGRESS}/desired.py",
        "    if known.phase in REPLACED and known.rejected is None:\n",
        "    if known.phase in REPLACED | FAILED:\n",
        ("unit/test_lifecycle.py::test_a_rejected_digest_is_not_tried_again", seeds("bad_revision_applied_again")),
        "A bad revision would be rolled out again at every look.",
    ),
    Mutant(
        "rejections fall out of the history",
        _FORGET,
        "REJECTIONS = 50\n",
        "REJECTIONS = 1\n",
        ("unit/test_lifecycle_way_back.py::test_a_rejection_outlives_the_history",),
        "A manifest that was rejected would be rolled out anew.",
    ),
    Mutant(
        "nothing is ever forgotten",
        _FORGET,
        "    for name in names[: max(0, len(names) - count)]:\n",
        "    for name in names[:0]:\n",
        (
            "unit/test_lifecycle.py::test_history_keeps_as_many_as_asked_and_never_what_is_in_use",
            seeds("history_of_one"),
        ),
        "Revision objects would pile up for ever.",
    ),
    Mutant(
        "what is in use is forgotten",
        _FORGET,
        "if n not in slots and s.phase not in UNDER_WAY]",
        "if n not in slots - {state.stable, state.candidate, state.serving} - state.keep_loaded]",
        ("unit/test_lifecycle.py::test_history_keeps_as_many_as_asked_and_never_what_is_in_use",),
        "The revision that serves would be deleted. What is loaded is never forgotten either, so both are taken out.",
        also=(Edit(_FORGET, "        if not state.loaded(name).exists:\n", "        if name:\n"),),
    ),
    Mutant(
        "what the spec asks for is forgotten",
        _FORGET,
        "state.preparing, state.desired, state.serving} | state.keep_loaded",
        "state.preparing, state.serving} | state.keep_loaded",
        ("unit/test_lifecycle.py::test_what_the_spec_asks_for_is_not_forgotten_although_its_build_fails",),
        "A build that fails would be made anew at every pass, without a wait.",
    ),
    Mutant(
        "the way back falls out of the history",
        _FORGET,
        "key=lambda n: (n == target, state.good_since(n), n)), state.spec.history)",
        "key=lambda n: (state.revision(n).created_at, n)), state.spec.history)",
        ("unit/test_lifecycle_way_back.py::test_history_forgets_what_was_good_longest_ago_and_never_the_way_back",),
        "What a rollback restored would be the first to go.",
    ),
    Mutant(
        "a revision whose searchers are there is forgotten",
        _FORGET,
        "        if not state.loaded(name).exists:\n",
        "        if name:\n",
        ("unit/test_lifecycle_dead_ends.py::test_a_revision_whose_searchers_are_there_is_not_forgotten",),
        "Its pods would be nobody's.",
    ),
    Mutant(
        "a build that nobody wants goes on",
        _FORGET,
        "    _stop_unwanted_work(state)\n    _forget(state)\n",
        "    _forget(state)\n",
        (
            "unit/test_lifecycle_faults.py::test_a_build_of_a_revision_given_up_is_stopped_whenever_that_was",
            seeds("edit_during_build"),
        ),
        "Two builds would take the memory of a namespace.",
    ),
    Mutant(
        "the next build starts while the last one runs",
        f"{_OPERATOR}/core/plan.py",
        "    DeleteJob,\n    StartBuild,\n",
        "    StartBuild,\n    DeleteJob,\n",
        (
            "unit/test_lifecycle_faults.py::test_a_build_that_nobody_wants_is_stopped_before_the_next_one_starts",
            seeds("edit_during_build"),
        ),
        "Two builds at once are twice the memory.",
    ),
)
