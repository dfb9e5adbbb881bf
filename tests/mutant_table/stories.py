"""What users do, as the simulator tells it: each story has a device, or a step of its own, that it would miss.

Everything here is noticed without any fault; what only matters when something goes wrong is in the other tables.
"""

from __future__ import annotations

from .mutant import Edit, Mutant, kept, seeds

_OPERATOR = "operator/vectorindex_operator"
_SAFETY = f"{_OPERATOR}/core/safety"
_PROGRESS = f"{_OPERATOR}/core/progress"
_JUDGING = f"{_OPERATOR}/core/judging"
_SERVING = f"{_SAFETY}/judge_serving.py"
_KEEP_LOADED = f"{_SAFETY}/keep_loaded.py"
_ROLL_BACK = f"{_SAFETY}/roll_back.py"
_RESTORE = f"{_SAFETY}/restore_traffic.py"
_SURGE = f"{_PROGRESS}/surge.py"
_DESIRED = f"{_PROGRESS}/desired.py"
_SEARCHERS = f"{_OPERATOR}/manifests/searchers.py"

_COLLECT = f"{_PROGRESS}/collect.py"
_SEARCHER = "searcher/vectorindex_searcher"
_FILTER_TESTS = "unit/test_searcher_filters_lost.py"

STORIES = (
    # ------------------------------------------------------------ filters
    Mutant(
        "searchers are not told what the revision before took",
        _SEARCHERS,
        "    if action.columns_before is not None:\n",
        "    if False and action.columns_before is not None:\n",
        (seeds("a_column_that_users_filter_by_is_gone"),),
        "A revision that lost a column would keep the traffic.",
    ),
    Mutant(
        "it is never known what the revision before took",
        _SURGE,
        "    return types if len(types) == len(columns.metadata) else None\n",
        "    return None\n",
        (seeds("a_column_that_nobody_filters_by_is_gone"),),
        "Nothing would be judged, so nothing would be promoted.",
    ),
    Mutant(
        "filters that the index before never took count as lost",
        _SURGE,
        "    if took is False:\n        return {}",
        "    if took is False and before is None:\n        return {}",
        ("unit/test_lifecycle_filters.py::test_an_index_that_took_no_filter_has_none_to_lose",),
        "A good revision would be taken back for what it mended.",
    ),
    Mutant(
        "of two indexes that may both take no filter the second is compared",
        _SURGE,
        "    if took is None and now is not None and now.filters is False:\n",
        "    if took is None and now is None:\n",
        ("unit/test_lifecycle_filters.py::test_an_index_that_took_no_filter_has_none_to_lose",),
        "Clients that always were refused would take a good revision back.",
    ),
    Mutant(
        "every refusal counts as a lost filter",
        f"{_JUDGING}/metrics.py",
        "_LOST_FILTERS = Rate(lambda cell: cell.filters_lost, lambda cell: cell.filters_compared)\n",
        "_LOST_FILTERS = Rate(lambda cell: cell.refused, lambda cell: cell.filters_compared + cell.refused)\n",
        (),
        "Whoever sends bad filters could take a good revision back.",
        each=(seeds("a_client_that_was_always_wrong"), seeds("a_hostile_client_waits_for_the_switch")),
    ),
    Mutant(
        "empty answers to filters are a share of all queries",
        f"{_JUDGING}/metrics.py",
        "_FILTERED_ZERO_RESULTS = Rate(lambda cell: cell.filtered_zero_results, lambda cell: cell.filtered_queries)\n",
        "_FILTERED_ZERO_RESULTS = Rate(lambda cell: cell.filtered_zero_results, lambda cell: cell.queries)\n",
        (seeds("values_that_users_filter_by_are_gone"),),
        "Where few filter, nobody would see that their filters match nothing.",
    ),
    Mutant(
        "a refused filter is lost whatever the revision before took",
        f"{_SEARCHER}/serve/search/plan.py",
        "        except FilterError:\n            return False\n        return True\n",
        "        except FilterError:\n            return True\n        return True\n",
        (f"{_FILTER_TESTS}::test_what_the_revision_before_refused_too_is_no_loss",),
        "Any client that sends bad filters could take a good revision back.",
    ),
    Mutant(
        "a request that no filter would save counts as lost",
        f"{_SEARCHER}/serve/search/reader.py",
        '            outcome.lost = problem.kind == "InvalidFilter" and self._planner.lost(fields, policy)\n',
        "            outcome.lost = self._planner.lost(fields, policy)\n",
        (f"{_FILTER_TESTS}::test_what_the_revision_before_refused_too_is_no_loss",),
        "So could one that asks for k = 0.",
    ),
    # ------------------------------------------------------------ rollouts
    Mutant(
        "the artifact of what falls out of the history stays",
        _COLLECT,
        "    elif job is None:\n        _start(state, view)\n",
        "    elif job is None:\n        state.act(ForgetRevision(view.name, view.uid))\n",
        ("unit/test_collect_history.py::test_a_job_removes_the_artifact_of_what_is_marked",),
        "A bucket would grow by an artifact with every change of the data.",
        each=(seeds("history_is_collected"),),
    ),
    Mutant(
        "what was removed is wanted as it is",
        f"{_OPERATOR}/core/observation.py",
        "        return self.deleting or self.status.phase == Phase.REMOVING\n",
        "        return self.deleting\n",
        ("unit/test_collect_history.py::test_what_is_marked_is_nothing_to_go_back_to",),
        "The traffic would go back to a revision whose artifact is half gone.",
    ),
    Mutant(
        "the first revision soaks like any other",
        _SERVING,
        "    if not state.stable and not rollout.prior:\n",
        "    if not state.stable and rollout.baseline_at:\n",
        (seeds("first"),),
        "Where nobody queries yet, the first revision would never be stable.",
    ),
    Mutant(
        "what nobody needs stays loaded",
        _KEEP_LOADED,
        "    state.act(DeleteSearchers(name))\n",
        "    state.requeue_at(state.now + 60)\n",
        (seeds("second"),),
        "Each rollout would leave its predecessor's pods behind.",
    ),
    Mutant(
        "a claim outlives the annotation that says otherwise",
        f"{_OPERATOR}/reconcile/claims.py",
        "    return str(wanted or claimed or DEFAULT_CLASS)\n",
        "    return str(claimed or wanted or DEFAULT_CLASS)\n",
        (seeds("moved_to_another_operator"),),
        "An index could never be moved to another operator.",
    ),
    Mutant(
        "a rejection outlives its gate",
        f"{_PROGRESS}/validate.py",
        '    if status.rejected.stage == "Gate" and changed:\n',
        '    if status.rejected.stage == "Gate" and not changed:\n',
        (),
        "Whoever lowers a floor would have to build again what was measured already.",
        each=(seeds("gate_edited"), seeds("gate_taken_away")),
    ),
    Mutant(
        "a fault that tells nothing is no fault",
        f"{_JUDGING}/always.py",
        "UNAVAILABLE_SECONDS = 10.0\n",
        "UNAVAILABLE_SECONDS = 1e9\n",
        (seeds("crashes"),),
        "A crash loop counts nothing. Restarts tell of it as well, so both are taken out.",
        also=(Edit(f"{_JUDGING}/always.py", "FEWEST_RESTARTS = 3\n", "FEWEST_RESTARTS = 3_000_000\n"),),
    ),
    Mutant(
        "a moment without a pod takes a good revision back",
        f"{_JUDGING}/always.py",
        "UNAVAILABLE_SECONDS = 10.0\n",
        "UNAVAILABLE_SECONDS = 0.0\n",
        (seeds("evictions"),),
        "A drain that evicts the one pod there is would end a rollout.",
    ),
    Mutant(
        "what was replaced is never taken again",
        _DESIRED,
        "    if known.phase in REPLACED and known.rejected is None:\n",
        "    if known.phase in REPLACED and known.rejected is not None:\n",
        (),
        "A user who goes back to an earlier manifest would get nothing.",
        each=(seeds("back_and_forth"), seeds("revert_and_again")),
    ),
    Mutant(
        "replicas wait for the next revision",
        _SEARCHERS,
        '            "replicas": action.live.searcher.replicas,\n',
        '            "replicas": min(2, action.live.searcher.replicas),\n',
        (),
        "Neither a person nor an autoscaler could give a loaded revision more pods.",
        each=(seeds("replicas"), seeds("replicas_during_surge"), seeds("replicas_left_to_an_autoscaler")),
    ),
    Mutant(
        "searchers get the image of the operator's release",
        f"{_OPERATOR}/manifests/render.py",
        "        return deployment, searchers.disruption_budget(action, index)\n",
        '        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = settings.searcher_image\n'
        "        return deployment, searchers.disruption_budget(action, index)\n",
        (seeds("operator_upgraded"),),
        "An upgrade of the operator would restart every searcher there is, with what nobody has proven.",
    ),
    # ------------------------------------------------------------ edits
    Mutant(
        "what soaks undecided holds up what the user asks for",
        _SURGE,
        "    elif not recipe.same_but_for_data(state, candidate):\n",
        "    elif not candidate:\n",
        (),
        "A fix would wait for the end of a soak that nobody wants, and where nobody queries without end.",
        each=(seeds("edit_during_soak"), seeds("edit_during_undecided_soak")),
    ),
    Mutant(
        "new data takes the place of what soaks",
        _SURGE,
        "    elif not recipe.same_but_for_data(state, candidate):\n",
        "    elif proven:\n",
        (seeds("data_never_rests"),),
        "Where data changes faster than a soak lasts, nothing would ever be promoted.",
    ),
    Mutant(
        "nobody asks, and it is promoted",
        f"{_JUDGING}/acts.py",
        "(Situation.SOAKING, Verdict.INCONCLUSIVE): Act.HOLD_FOR_A_TIME",
        "(Situation.SOAKING, Verdict.INCONCLUSIVE): Act.PROMOTE",
        (seeds("no_evidence"),),
        "No evidence would be success. The least number of queries guards from it as well, so both are taken out.",
        also=(Edit(_SERVING, "and samples >= soak.min_queries:\n", "and samples >= 0:\n"),),
    ),
    Mutant(
        "a revert waits for the soak of what nobody wants",
        _DESIRED,
        "        if state.candidate:\n            supersede(state, why)\n",
        "        if not state.stable:\n            supersede(state, why)\n",
        (),
        "Users would be served by what was taken back, until it is stable and replaced.",
        each=(seeds("revert_during_soak"), seeds("revert_during_surge")),
    ),
    # ------------------------------------------------------------ guardrails
    Mutant(
        "steadyState Observe rolls back",
        _SERVING,
        '    elif rollout.guardrails.steady_state != "Rollback" or operating_point.fall_back(state, name, said):\n',
        "    elif operating_point.fall_back(state, name, said):\n",
        (seeds("steady_state_observed"),),
        "Who only wants to be told would have the traffic moved.",
    ),
    Mutant(
        "nothing is noted of the revision before",
        _SERVING,
        "    if rollout.baseline is not None or not needs_baseline(rollout):\n",
        "    if rollout is not None:\n",
        (),
        "Rules that compare would have nothing to compare with.",
        each=(seeds("worse_than_stable"), seeds("no_worse_than_stable")),
    ),
    Mutant(
        "searchers are not told of the classes of queries",
        _SEARCHERS,
        "        segments=frozen.segments,\n",
        "        segments=(),\n",
        (seeds("bad_for_a_class_of_queries"),),
        "A rule for one class would never have data.",
    ),
    Mutant(
        "a rule for one class judges all queries",
        f"{_JUDGING}/judge.py",
        "        case.rule.segment,\n        first=case.first,\n",
        "        OVERALL,\n        first=case.first,\n",
        (seeds("bad_for_another_class_of_queries"),),
        "What nobody made a rule for would send the traffic back.",
    ),
    Mutant(
        "one silent pod holds up all",
        f"{_JUDGING}/judge.py",
        "SILENT_SHARE = 1 / 3\n",
        "SILENT_SHARE = 0.0\n",
        (seeds("one_silent_pod_of_four"),),
        "A single broken pod would keep a revision from being promoted.",
    ),
    # ------------------------------------------------------------ rollbacks
    Mutant(
        "what surges keeps its place while a rollback waits",
        _KEEP_LOADED,
        "    if not surging or not waited_for or pending_trip(state, state.serving) is None:\n",
        "    if surging or not surging or not waited_for:\n",
        (seeds("steady_state_beside_a_surge"),),
        "Three revisions would be loaded, or the way back would find no room.",
    ),
    Mutant(
        "what a person sent back is rolled out again",
        f"{_SAFETY}/record_decision.py",
        "    elif decision.rule == REVERTED:\n",
        '    elif decision.rule in (REVERTED, "Manual"):\n',
        (seeds("rollback_by_hand"),),
        "The spec still asks for it: it would have the traffic again at once.",
    ),
    Mutant(
        "the way back leads to the oldest",
        _ROLL_BACK,
        "    return max(good, key=lambda name: (name in (state.stable,",
        "    return min(good, key=lambda name: (name in (state.stable,",
        (seeds("rollback_goes_one_step"),),
        "A rollback would skip what was good until now.",
    ),
    Mutant(
        "the name that a person gave is not heard",
        _ROLL_BACK,
        '    if wish:\n        return wish if wish in good else ""\n',
        "",
        (seeds("rollback_to_a_named_one"),),
        "Whoever knows which revision was good would get another one.",
    ),
    Mutant(
        "a retry leaves the rejection",
        f"{_PROGRESS}/obey_commands.py",
        '        anew = {"rejected": None, "failure": None,',
        '        anew = {"failure": None,',
        (),
        "What is rejected would be given the traffic.",
        each=(seeds("rollback_and_retry"), seeds("retry_after_refusal")),
    ),
    Mutant(
        "a rollback to nothing is said to be done",
        f"{_SAFETY}/obey_commands.py",
        "    if not target:\n",
        "    if not target and wish:\n",
        (seeds("verbs_refused"),),
        "A person would read Done of what cannot be done.",
    ),
    Mutant(
        "what was restored is watched in vain",
        _SERVING,
        "    if status.restored_at is not None:\n        mark_cause_external",
        "    if status.restored_at is not None and not status.promoted_at:\n        mark_cause_external",
        (seeds("cause_outside"),),
        "Nobody would be told that the index is not to blame.",
    ),
    Mutant(
        "nobody looks whether the artifact of the way back is there",
        f"{_OPERATOR}/core/lifecycle.py",
        "    way_back.step,\n    resolve.step,\n",
        "    resolve.step,\n",
        (seeds("way_back_artifact_gone"),),
        "People would learn it when they need it.",
    ),
    # ------------------------------------------------------------ somebody's hand
    Mutant(
        "what is stable is not made again",
        _KEEP_LOADED,
        "    if status.build is None or status.report is None or state.live is None:\n",
        "    if status.build is None or status.report is None or state.live is None or (\n"
        "        status.phase == Phase.STABLE and not state.loaded(name).exists\n"
        "    ):\n",
        (seeds("deployment_deleted"),),
        "Whoever deletes a Deployment would end its index.",
    ),
    Mutant(
        "what serves is retired when its object is deleted",
        _KEEP_LOADED,
        "name not in {*state.keep_loaded, *state.foreign, state.serving}",
        "name not in {*state.keep_loaded, *state.foreign}",
        (),
        "Its users would lose their pods. It is asked for once more right before, so both are taken out.",
        also=(Edit(f"{_OPERATOR}/reconcile/execute.py", "        self._check_unused(revision)\n", ""),),
        each=(seeds("revision_deleted"), seeds("revision_deleted_and_edit")),
    ),
    Mutant(
        "what was deleted is retired before its connections have drained",
        _KEEP_LOADED,
        "    if decision is not None and decision.from_revision == name:\n",
        "    if decision is not None and not decision.from_revision:\n",
        (seeds("prior_deleted_in_soak"),),
        "Queries would fail that are still sent to its pods.",
        each=(kept("searchers whose object was deleted went before their connections had drained"),),
    ),
    Mutant(
        "a dead stable is unloaded without a word",
        _KEEP_LOADED,
        "        state.update(name, unloaded_at=unloaded_at or to_text(state.now))\n        message = ",
        "        message = ",
        ("unit/test_lifecycle_way_back.py::test_a_dead_stable_that_nothing_waits_for_is_unloaded_and_told_of_once",),
        "The next look would not know that its pods are gone for good reason.",
    ),
    Mutant(
        "another image is proven by the proof of this one",
        f"{_OPERATOR}/core/recipe.py",
        '    return next((one.proof_salt for one in same if one.image == image), image if same else "")\n',
        '    return next((one.proof_salt for one in same if not one.image), "")\n',
        (seeds("refreshed"),),
        "What a new release makes of an artifact would be measured by nobody.",
    ),
    Mutant(
        "a Service that is gone is not made again",
        _RESTORE,
        "    if not state.obs.traffic.owned:\n",
        "    if not state.obs.traffic.owned or not state.serving:\n",
        (),
        "Whoever deletes it, or its selector, would end the index for its users.",
        each=(
            seeds("service_deleted"),
            seeds("service_deleted_in_soak"),
            seeds("selector_taken_away_in_soak"),
        ),
    ),
    Mutant(
        "a selector that points to nobody is taken for right",
        _RESTORE,
        "        return state.loaded(state.serving).serving()  # somebody deleted",
        "        return bool(state.serving)  # somebody deleted",
        (seeds("selector_changed_by_hand"),),
        "Users would get no answers until somebody notices.",
    ),
    Mutant(
        "what soaks stays without traffic when an old Service comes back",
        _RESTORE,
        "        if soaking and state.serving in state.statuses and state.serving != soaking:\n",
        "        if soaking and not state.serving:\n",
        (
            "unit/test_safety_devices.py::"
            "test_what_soaks_is_surged_again_when_an_old_manifest_of_the_service_took_its_traffic",
        ),
        "Restored from a backup, a Service has a decision of before the rollout: that would never end.",
        each=(
            seeds("old_service_applied_again"),
            kept("what soaked had lost the traffic to what another operator put back, and soaked for ever"),
        ),
    ),
)
