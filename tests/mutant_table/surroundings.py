"""What users' surroundings do, as the simulator tells it: builds, data, places, quotas, objects of others.

Everything here is noticed without any fault; what only matters when something goes wrong is in the other tables.
"""

from __future__ import annotations

from .mutant import Edit, Mutant, seeds

_OPERATOR = "operator/vectorindex_operator"
_PROGRESS = f"{_OPERATOR}/core/progress"
_SURGE = f"{_PROGRESS}/surge.py"
_BUILD = f"{_PROGRESS}/build.py"
_RESOLVE = f"{_PROGRESS}/resolve.py"
_DESIRED = f"{_PROGRESS}/desired.py"
_POLL = f"{_PROGRESS}/poll.py"
_LOOK_TIMES = f"{_OPERATOR}/core/look_times.py"
_SEARCHERS = f"{_OPERATOR}/manifests/searchers.py"
_OBJECTS = f"{_OPERATOR}/reconcile/objects.py"
_LISTS_AGAIN = "        resolve.again_with_backoff(state)\n        return\n"
_NEWS = "    if heard is not None and heard.said is Said.CHANGED:\n        return True\n"
_NO_NEWS = "    if heard is not None and heard.said is Said.CHANGED:\n        return False\n"

SURROUNDINGS = (
    # ------------------------------------------------------------ builds
    Mutant(
        "a failed try has the name of the next one",
        _BUILD,
        '    return f"{key}/{_failures(state, name)}"\n',
        '    return f"{key}/0"\n',
        (),
        "The Job that failed would be found in the place of the next one, for ever.",
        each=(seeds("out_of_memory_once"), seeds("more_memory")),
    ),
    Mutant(
        "a build that fails is tried without a pause",
        f"{_OPERATOR}/core/backoff.py",
        "    if failures < FREE_BUILD_TRIES:\n",
        "    if failures < 10**9:\n",
        (seeds("out_of_memory_backs_off"),),
        "A build that can never succeed would take a node for itself.",
    ),
    Mutant(
        "a retry finds the failed Job again",
        f"{_PROGRESS}/obey_commands.py",
        "if j.state is not JobState.RUNNING)\n",
        "if not j.name)\n",
        (seeds("retry_of_a_failed_build"),),
        "What a person asks to try again would fail by what is long past.",
    ),
    Mutant(
        "a build waits for a GPU for ever",
        _BUILD,
        "GPU_PATIENCE_SECONDS = 300.0\n",
        "GPU_PATIENCE_SECONDS = 1e9\n",
        (seeds("gpu_falls_back"),),
        "PreferGPU would mean: only on one.",
    ),
    Mutant(
        "a build that falls back to a CPU is recorded by its Job only",
        _BUILD,
        "        state.update(name, on_cpu=_one_try(state, name, key))\n",
        "",
        ("unit/test_lifecycle_faults.py::test_whoever_looks_while_a_build_moves_to_a_cpu_starts_the_same_job",),
        "Whoever looks between the two Jobs would start the first one again.",
        also=(
            Edit(
                _BUILD,
                "        _start(state, name, key)\n\n\n",
                "        _start(state, name, key, fell_back=GPU_FELL_BACK)\n\n\n",
            ),
            Edit(
                _BUILD,
                "def _start(state: ReconcileState, name: str, key: str, task: Task = Task.BUILD) -> None:\n",
                "def _start(\n"
                '    state: ReconcileState, name: str, key: str, task: Task = Task.BUILD, fell_back: str = ""\n'
                ") -> None:\n",
            ),
            Edit(
                _BUILD,
                '        cpu_reason = GPU_FELL_BACK if state.statuses[name].on_cpu == one_try else ""\n',
                "        cpu_reason = fell_back\n",
            ),
        ),
    ),
    Mutant(
        "a build that must have a GPU falls back",
        _BUILD,
        '    if job.device == "gpu" and state.spec.build.device is Device.PREFER_GPU:\n',
        '    if job.device == "gpu":\n',
        (seeds("gpu_comes_late"),),
        "A CPU would be taken for days by what was made for a GPU.",
    ),
    Mutant(
        "a Secret that is missing counts against the revision",
        _SURGE,
        '    if not placed or loaded.refused or waiting.startswith(("Secret/", "ConfigMap/", "ServiceAccount/")):\n',
        "    if not placed or loaded.refused:\n",
        (seeds("secret_comes_late"),),
        "A good revision would be given up for a key that somebody has yet to write.",
    ),
    Mutant(
        "a place that is missing counts against the revision",
        _SURGE,
        '    if not placed or loaded.refused or waiting.startswith(("Secret/", "ConfigMap/", "ServiceAccount/")):\n',
        '    if loaded.refused or waiting.startswith(("Secret/", "ConfigMap/", "ServiceAccount/")):\n',
        (seeds("no_room_for_searchers"),),
        "A good revision would be given up for a full cluster.",
    ),
    Mutant(
        "pods that cannot even be made count against the revision",
        _SURGE,
        "    placed = bool(pods) and all(",
        "    placed = all(",
        (seeds("no_quota_for_searchers"),),
        "A good revision would be given up for a quota.",
    ),
    Mutant(
        "pods that refuse an artifact are waited for",
        _SURGE,
        "REFUSALS_BEFORE_GIVING_UP = 2\n",
        "REFUSALS_BEFORE_GIVING_UP = 2_000\n",
        (seeds("corrupt_artifact"),),
        "A corrupt artifact would be told of as a slow one.",
    ),
    Mutant(
        "an artifact that its canary queries refute is only slow",
        _SURGE,
        "    phase = Phase.REJECTED if failure.reason == CANARY_RECALL else Phase.SURGE_FAILED\n",
        "    phase = Phase.SURGE_FAILED\n",
        (seeds("canary_refuses"),),
        "What is too bad to serve would be tried again like what could not be fetched.",
    ),
    Mutant(
        "a build whose Job is gone is waited for",
        _BUILD,
        "    if attempt is None:\n        _start(state, name, key, task)\n",
        "    if attempt is None:\n        if state.statuses[name].phase != Phase.BUILDING:\n"
        "            _start(state, name, key, task)\n",
        (),
        "Whoever deletes a Job, or has no quota for it, would end the rollout.",
        each=(seeds("job_deleted"), seeds("no_quota_for_jobs")),
    ),
    # ------------------------------------------------------------ data
    Mutant(
        "new data ends what is being built",
        _DESIRED,
        "        elif not recipe.same_but_for_data(state, name):\n            abandon",
        "        elif name:\n            abandon",
        (seeds("data_during_build"),),
        "Where data changes faster than it is built, nothing would ever be served.",
    ),
    Mutant(
        "bad data is not looked at again",
        _BUILD,
        _LISTS_AGAIN,
        "        return\n",
        (seeds("bad_data_at_first"),),
        "Without polling a fix would wait for a person.",
    ),
    Mutant(
        "bad data is not looked at again although it is polled",
        _BUILD,
        _LISTS_AGAIN,
        "        return\n",
        (seeds("bad_data_then_fix"),),
        "A fix would wait for a person. Polls find it as well, so both are taken out.",
        also=(Edit(_POLL, _NEWS, _NO_NEWS),),
    ),
    Mutant(
        "searchers see new data and no Job lists it",
        _POLL,
        _NEWS,
        _NO_NEWS,
        (seeds("polling_finds_new_data"),),
        "Polling would find nothing.",
    ),
    Mutant(
        "a time of the schedule that was missed is not made up for",
        _LOOK_TIMES,
        "        return self.last if since < self.last else self.next\n",
        "        return self.next\n",
        (seeds("schedule_missed"),),
        "What came while the operator was away would wait for the next night, or the one after it.",
    ),
    Mutant(
        "searchers say that nothing changed, and a Job lists all the same",
        _POLL,
        "    if heard is not None and heard.said is Said.SAME:\n",
        "    if heard is not None and heard.said is Said.FAILED:\n",
        (seeds("polling"),),
        "An index at rest would cost a Job in each poll.",
    ),
    Mutant(
        "where searchers cannot tell no Job lists",
        _POLL,
        "        if heard.said is Said.UNABLE or heard.question.asks >= MOST_ASKS:\n            return True\n",
        "        if heard.said is Said.UNABLE or heard.question.asks >= MOST_ASKS:\n            return False\n",
        (),
        "Searchers of an older image, or without the keys, would end polling.",
        each=(seeds("polling_by_an_older_image"), seeds("polling_without_access")),
    ),
    Mutant(
        "a listing that failed is not tried again",
        _RESOLVE,
        "    _again_at(state, job, wanted, finished + resolve_wait(failures), failures)\n",
        "    del failures\n",
        (seeds("unreadable_then_fix"),),
        "A source that was empty for a minute would be empty for ever.",
    ),
    Mutant(
        "a listing is repeated when its pod is gone, though it was read",
        _RESOLVE,
        "    if adopted_at >= finished:\n        return False\n",
        "",
        ("unit/test_lifecycle_faults.py::test_a_listing_that_was_read_is_not_repeated_when_its_pod_goes",),
        "The pod goes with its node: data would come in that nobody asked for.",
    ),
    Mutant(
        "objects that are gone are not listed again",
        _RESOLVE,
        "    if failure is None or failure.exit_code not in SOURCE_CHANGED_EXITS:\n",
        "    if failure is None or failure.exit_code != 0:\n",
        (seeds("listed_objects_gone"),),
        "A build would look for what was replaced meanwhile, again and again.",
    ),
    Mutant(
        "live queries hold nothing",
        f"{_OPERATOR}/core/gate.py",
        "        if row.queries < MIN_SEGMENT_QUERIES or high >= floor:\n",
        "        if row.queries < MIN_SEGMENT_QUERIES or floor:\n",
        (seeds("held_by_live_queries"),),
        "What stable's users ask would be measured and not judged.",
    ),
    Mutant(
        "what the gate cannot decide holds up new data",
        _DESIRED,
        "    return held or (status.failure is not None and status.failure.permanent)\n",
        "    return not held and status.failure is not None and status.failure.permanent\n",
        (seeds("undecided_gate_then_data"),),
        "Only a person could bring it on, and the data after it would wait for that.",
    ),
    Mutant(
        "what cannot be measured holds up new data",
        _DESIRED,
        "    return held or (status.failure is not None and status.failure.permanent)\n",
        "    return held\n",
        (seeds("no_queries_then_data"),),
        "Only a person could bring it on, and the data after it would wait for that.",
    ),
    Mutant(
        "a measurement that found no queries is not taken again",
        f"{_PROGRESS}/validate.py",
        "        if state.now < due:\n            state.requeue_at(due)\n",
        "        if failure.permanent or state.now < due:\n            state.requeue_at(due)\n",
        (seeds("queries_come_late"),),
        "Whoever writes the queries a minute late would have to ask for a retry.",
    ),
    Mutant(
        "another dimension is only new data",
        _RESOLVE,
        "before.dimension != result.dimension:\n",
        "before.dimension > 2 * result.dimension:\n",
        (seeds("dimension_changed"),),
        "Every query of today's users would be refused by the next revision.",
    ),
    # ------------------------------------------------------------ places
    Mutant(
        "what serves is read where the next one is written",
        _SEARCHERS,
        "        artifacts=frozen.artifacts.reached_by(action.live.artifacts).location(),\n",
        "        artifacts=action.live.artifacts.location(),\n",
        (),
        "Its pods would find no artifact there when they start again.",
        each=(seeds("artifacts_move"), seeds("artifacts_move_and_back_by_hand")),
    ),
    Mutant(
        "another place is not listed",
        _RESOLVE,
        '    if newest.key.split("/")[0] != wanted:\n',
        "    if not newest.key:\n",
        (seeds("source_moves"),),
        "An edit of the source would be in effect by name only.",
    ),
    Mutant(
        "the Secret of an artifact is frozen",
        _SEARCHERS,
        '            "ARTIFACTS_": frozen.artifacts.reached_by(live.artifacts),\n',
        '            "ARTIFACTS_": frozen.artifacts,\n',
        (),
        "Pods would not start any more once the old Secret is gone.",
        each=(seeds("secret_renamed"), seeds("secret_renamed_in_soak")),
    ),
    # ------------------------------------------------------------ refusals
    Mutant(
        "the traffic waits for its record",
        f"{_OPERATOR}/reconcile/loop.py",
        "        words = executor.move_traffic(plan)\n",
        '        executor.run(plan)\n        words = executor.move_traffic(plan) if not executor.undone else ""\n',
        (seeds("all_but_the_service_is_frozen_while_it_trips"),),
        "A quota or a webhook that refuses a status would hold up a rollback.",
    ),
    # ------------------------------------------------------------ others
    Mutant(
        "a Service of somebody else is no obstacle",
        f"{_OPERATOR}/core/lifecycle.py",
        "    elif not state.obs.traffic.owned:\n",
        "    elif not state.obs.traffic.owned and not index.name:\n",
        (),
        "Nobody would be told why users reach something else.",
        each=(seeds("name_taken"), seeds("service_replaced")),
    ),
    Mutant(
        "what has the name of ours is kept as we would have it",
        _OBJECTS,
        "        _check_owner(manifest, live)\n        field = ",
        "        field = ",
        (),
        "Deployments, budgets and policies of others would be overwritten.",
        each=(
            seeds("deployment_name_taken"),
            seeds("deployment_replaced"),
            seeds("budget_name_taken"),
            seeds("policy_name_taken"),
        ),
    ),
    Mutant(
        "what has the name of ours passes for made",
        _OBJECTS,
        "        _check_owner(manifest, live)\n        lost = ",
        "        lost = ",
        (seeds("revision_name_taken"),),
        "The rollout would stand still, and nobody would know why.",
    ),
    Mutant(
        "a Job that has the name of ours is waited for",
        _OBJECTS,
        "        _check_owner(manifest, live)\n        lost = ",
        "        lost = ",
        (seeds("job_names_taken"),),
        "The rollout would stand still, and nobody would know why. Its labels tell as well, so both are taken out.",
        also=(
            Edit(
                _OBJECTS,
                '        if lost is not None and manifest["kind"] == "Job":\n',
                '        if lost is not None and not manifest["kind"]:\n',
            ),
        ),
    ),
    Mutant(
        "what somebody else changed stays",
        _OBJECTS,
        "        if field is None:\n            return None\n        by_others",
        "        if field is None or changed_by_others(wanted, live):\n            return None\n        by_others",
        ("unit/test_execute.py::test_a_hand_made_change_is_undone_and_told_once_in_an_hour",),
        "Searchers would be as many, and be replaced, as whoever touched them last liked it.",
        each=(seeds("fields_taken_away"),),
    ),
    Mutant(
        "what others add to a list of names counts as changed",
        f"{_OPERATOR}/reconcile/drift.py",
        '    key = KEYED.get(path.rpartition(".")[2], "")\n',
        '    key = KEYED.get(path, "")\n',
        ("unit/test_drift.py::test_what_others_add_to_a_list_that_is_merged_by_names_is_no_drift",),
        "No apply takes it away: each look would write for nothing.",
        each=(seeds("sidecar_added"),),
    ),
    Mutant(
        "a policy that nobody wants any more stays",
        f"{_OPERATOR}/core/safety/network.py",
        "        state.act(DeleteNetworkPolicy(name, uid))\n",
        "        state.requeue_at(state.now + len(name + uid))\n",
        (seeds("policy_taken_away"),),
        "Whoever takes it out of the spec would still be kept out by it.",
    ),
    Mutant(
        "what is undone each time is written each time",
        f"{_OPERATOR}/reconcile/repeats.py",
        "        if times < AT_ONCE:\n",
        "        if times >= 0:\n",
        (
            "unit/test_repeats.py::test_what_another_controller_changes_back_is_not_written_for_ever",
            "unit/test_repeats.py::test_what_a_webhook_changes_in_the_very_write_is_not_written_for_ever",
        ),
        "Two programs that have another mind would write for ever, as fast as the API server lets them.",
        each=(seeds("webhook_fights"), seeds("another_controller_fights")),
    ),
)
