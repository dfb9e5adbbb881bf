"""What keeps users answered by something proven: the one write, the way back, what stays loaded."""

from __future__ import annotations

from .mutant import Edit, Mutant, kept, late, seeds

_OPERATOR = "operator/vectorindex_operator"
_SAFETY = f"{_OPERATOR}/core/safety"
_KEEP_LOADED = f"{_SAFETY}/keep_loaded.py"
_ROLL_BACK = f"{_SAFETY}/roll_back.py"
_EXECUTE = f"{_OPERATOR}/reconcile/execute.py"
_OBJECTS = f"{_OPERATOR}/reconcile/objects.py"

TRAFFIC = (
    Mutant(
        "no resourceVersion on the switch",
        _OBJECTS,
        'if key != "ownerReferences"}',
        'if key not in ("ownerReferences", "resourceVersion")}',
        (
            "unit/test_safety_devices.py::test_a_move_of_the_traffic_that_was_decided_on_an_old_view_is_refused",
            "simulator/test_late_writes.py::test_a_switch_that_comes_late_undoes_no_rollback",
        ),
        "A switch that was decided on an old view would undo a rollback.",
    ),
    Mutant(
        "a front Service that is there is not the precondition of the switch",
        f"{_OPERATOR}/manifests/service.py",
        "    if resource_version:\n",
        "    if not resource_version:\n",
        ("unit/test_manifests_golden.py::test_the_switch_has_a_precondition_when_there_was_a_service",),
        "The first switch would have a precondition and no other one.",
    ),
    Mutant(
        "no resourceVersion on a status",
        _EXECUTE,
        '"namespace": self.obs.index.namespace, "resourceVersion": version},',
        '"namespace": self.obs.index.namespace},',
        (late("rollback_and_retry"), late("edit_during_build"), late("errors")),
        "A status that comes late would forget a rejection or a trip.",
    ),
    Mutant(
        "no check right before searchers are retired",
        _EXECUTE,
        "        self._check_unused(revision)\n",
        "",
        ("unit/test_execute.py::test_searchers_are_not_retired_when_the_traffic_came_to_them_meanwhile",),
        "Who was paused since it looked would remove the pods that users are sent to.",
    ),
    Mutant(
        "searchers are deleted whatever was written to them since",
        _EXECUTE,
        'version = meta["resourceVersion"] if kind == "Deployment" else ""',
        'version = ""',
        (
            "unit/test_safety_devices.py::test_searchers_that_became_ready_since_they_were_seen_are_not_removed",
            kept("searchers were removed that another operator had loaded and switched to meanwhile"),
        ),
        "Between the last question and the deletion another operator may have switched to them.",
    ),
    Mutant(
        "a revision is forgotten whatever was written to it since",
        _EXECUTE,
        'version = self._version("VectorIndexRevision", action.name)',
        'version = ""',
        (
            "unit/test_safety_devices.py::test_a_revision_that_somebody_took_up_again_is_not_forgotten",
            "simulator/test_late_writes.py::test_what_was_taken_up_again_meanwhile_is_not_forgotten",
        ),
        "What is wanted again would be deleted while it is under way.",
    ),
    Mutant(
        "a rolling update takes a pod before the next one is ready",
        f"{_OPERATOR}/manifests/searchers.py",
        '"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}',
        '"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}',
        ("unit/test_manifests_golden.py::test_a_rolling_update_never_takes_the_last_pod", seeds("replicas")),
        "With one replica every edit of resources would be an outage.",
    ),
    Mutant(
        "a drain may evict all pods at once",
        f"{_OPERATOR}/manifests/searchers.py",
        '            "maxUnavailable": 1,\n',
        '            "maxUnavailable": "100%",\n',
        ("unit/test_manifests_golden.py::test_rendered_objects_are_the_golden_ones",),
        "Two nodes that are drained together would end all pods of a revision.",
    ),
    Mutant(
        "the way back is taken although no pod of its target is ready",
        _ROLL_BACK,
        "    if not state.loaded(target).serving():\n",
        "    if not target:\n",
        (
            "unit/test_lifecycle.py::test_a_target_without_pods_is_loaded_first_and_the_traffic_waits",
            seeds("steady_state"),
        ),
        "A bad revision that answers would be left for a Service without endpoints.",
    ),
    Mutant(
        "a Service that was changed by hand is put back to pods that are not ready",
        f"{_SAFETY}/restore_traffic.py",
        "    if not state.loaded(target).serving():\n",
        "    if not target:\n",
        ("unit/test_safety_devices.py::test_a_selector_that_was_changed_by_hand_is_put_back_to_pods_that_are_ready",),
        "Whoever answers would be left for nobody.",
    ),
    Mutant(
        "a rollback asks nothing of its target",
        _ROLL_BACK,
        "return bool(status.promoted_at) and status.rejected is None and not tripped and status.build is not None",
        "return True",
        (
            "unit/test_safety_devices.py::test_what_was_found_wrong_is_no_way_back_although_it_was_promoted",
            seeds("errors"),
        ),
        "The traffic would go back to what was never proven, or was rejected.",
    ),
    Mutant(
        "what tripped is a way back",
        _ROLL_BACK,
        "status.rejected is None and not tripped and status.build is not None",
        "status.rejected is None and status.build is not None",
        ("unit/test_lifecycle_way_back.py::test_what_tripped_is_no_way_back",),
        "The traffic would return to a revision that a guardrail found wrong.",
    ),
    Mutant(
        "a switch before all replicas are ready",
        f"{_OPERATOR}/core/loaded.py",
        "return bool(self.groups) and self.ready >= replicas",
        "return bool(self.groups) and self.ready > 0",
        ("unit/test_lifecycle.py::test_the_traffic_moves_when_all_pods_are_ready_and_not_before",),
        "One pod would get the traffic of all.",
    ),
    Mutant(
        "a pod on its way out counts as ready",
        f"{_OPERATOR}/core/loaded.py",
        "return self.ready and not self.deleting",
        "return self.ready",
        ("unit/test_lifecycle.py", "unit/test_lifecycle_way_back.py", "unit/test_lifecycle_dead_ends.py"),
        "The traffic would move to pods that are being ended.",
    ),
    Mutant(
        "no time to drain",
        _KEEP_LOADED,
        "RETIRE_AFTER_SECONDS = KEEP_ALIVE_SECONDS * 1.5",
        "RETIRE_AFTER_SECONDS = KEEP_ALIVE_SECONDS * 0.0",
        ("unit/test_lifecycle.py::test_what_lost_the_traffic_drains_before_it_is_retired",),
        "Connections that are still open would be cut.",
    ),
    Mutant(
        "leases are never told",
        _EXECUTE,
        "                self.searchers.tell(to, action.addresses, TrafficLease(state=action.state))\n",
        "                del to\n",
        ("unit/test_safety_devices.py::test_pods_hear_whether_they_have_the_traffic",),
        "Connections to what lost the traffic would stay open until its pods go.",
    ),
    Mutant(
        "leases are never planned",
        _KEEP_LOADED,
        "            state.act(RenewLeases(name, addresses, lease))\n",
        "            del lease\n",
        ("unit/test_lifecycle.py::test_what_lost_the_traffic_drains_before_it_is_retired",),
        "Connections to what lost the traffic would stay open until its pods go.",
    ),
    Mutant(
        "what serves is told that it drains",
        _KEEP_LOADED,
        "lease = LeaseState.SERVING if name == state.serving else LeaseState.DRAINING",
        "lease = LeaseState.SERVING if name != state.serving else LeaseState.DRAINING",
        ("unit/test_safety_devices.py::test_pods_hear_whether_they_have_the_traffic",),
        "Every answer of the revision that serves would end its connection.",
    ),
    Mutant(
        "stable is unloaded while the candidate soaks",
        _KEEP_LOADED,
        "state.keep_loaded.update({state.stable, state.candidate, state.serving, *outgoing} & set(state.statuses))",
        "state.keep_loaded.update({state.candidate, state.serving, *outgoing} & set(state.statuses))",
        ("unit/test_lifecycle.py", seeds("second"), seeds("errors")),
        "Every rollback would be a cold one. Judging keeps stable loaded as well, so both are taken out.",
        also=(
            Edit(
                f"{_SAFETY}/judge_serving.py",
                '    state.keep_loaded.update({name, state.stable} - {""})\n',
                "    state.keep_loaded.add(name)\n",
            ),
        ),
    ),
    Mutant(
        "what has the traffic is retired where nobody knows it",
        _KEEP_LOADED,
        "name not in {*state.keep_loaded, *state.foreign, state.serving}",
        "name not in {*state.keep_loaded, *state.foreign}",
        (
            "unit/test_safety_devices.py::test_what_has_the_traffic_is_never_retired_although_nobody_knows_it",
            seeds("revision_deleted"),
        ),
        "Somebody deletes a revision object, and its users lose their pods.",
    ),
    Mutant(
        "the searchers of another release's revision are retired",
        _KEEP_LOADED,
        "name not in {*state.keep_loaded, *state.foreign, state.serving}",
        "name not in {*state.keep_loaded, state.serving}",
        ("unit/test_other_releases.py",),
        "A downgrade would end pods that the newer release still needs.",
    ),
    Mutant(
        "a pass with a fault retires",
        _KEEP_LOADED,
        "    if state.errors:\n        return  # a step that failed may have wanted it\n",
        "",
        ("unit/test_safety_devices.py::test_a_pass_with_a_fault_retires_nothing",),
        "The step that failed may have wanted to keep it.",
    ),
    Mutant(
        "three revisions are loaded at a time",
        f"{_OPERATOR}/core/progress/surge.py",
        "    if leaving:\n",
        "    if not there:\n",
        (
            "unit/test_lifecycle_dead_ends.py::"
            "test_what_waits_for_a_place_does_not_surge_before_the_target_can_even_be_made",
            seeds("back_and_forth"),
            seeds("rollback_to_a_named_one"),
        ),
        "An index would take the memory of three, and the way back would find no room.",
    ),
    Mutant(
        "a dead stable is waited for without end",
        _ROLL_BACK,
        "    return state.now - since >= patience\n",
        "    return False\n",
        ("unit/test_lifecycle_way_back.py::test_a_dead_stable_does_not_block_the_fix", seeds("dead_stable")),
        "A way back that is broken would hold up its own repair.",
    ),
    Mutant(
        "a stable that is only slow counts as dead",
        _ROLL_BACK,
        "    return state.now - since >= patience\n",
        "    return True\n",
        ("unit/test_lifecycle_way_back.py::test_a_stable_that_is_only_slow_is_waited_for",),
        "The way back would be given up for a pod that restarts.",
    ),
    Mutant(
        "the Service of somebody else is written to",
        _OBJECTS,
        '    if not raw.is_owned(live, manifest["metadata"]["ownerReferences"][0]["uid"]):\n',
        '    if not raw.is_owned(live, manifest["metadata"]["ownerReferences"][0]["uid"]) and not live:\n',
        ("unit/test_execute.py::test_what_is_to_be_made_and_is_somebody_elses_is_said", seeds("name_taken")),
        "An object of another owner with our name would be taken over.",
    ),
    Mutant(
        "whatever carries our labels is ours",
        f"{_OPERATOR}/reconcile/raw.py",
        '    return bool(uid) and controller(raw).get("uid") == uid\n',
        "    return bool(uid)\n",
        ("unit/test_observe_anything.py::test_what_is_not_ours_is_not_seen", seeds("deleted_and_made_again")),
        "A tenant's object with our labels would be counted, changed and deleted.",
    ),
    Mutant(
        "an object that somebody makes in this moment is taken over",
        _OBJECTS,
        "self.cluster.apply(wanted, force=False)",
        "self.cluster.apply(wanted)",
        (
            "unit/test_safety_devices.py::test_nothing_is_loaded_whose_phase_could_not_be_recorded",
            "unit/test_execute.py",
        ),
        "The first apply would overwrite what another owner has just made under our name.",
    ),
)
