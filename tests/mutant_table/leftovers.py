"""What becomes of a deleted index's artifacts, with `artifacts.deletionPolicy: Delete`."""

from __future__ import annotations

from .mutant import Edit, Mutant, seeds

_OPERATOR = "operator/vectorindex_operator"
_DECIDES = f"{_OPERATOR}/core/leftovers.py"
_DOES = f"{_OPERATOR}/reconcile/leftovers.py"
_SEES = f"{_OPERATOR}/reconcile/held.py"
_HOLDS = f"{_OPERATOR}/core/safety/hold_revisions.py"
_LOOP = f"{_OPERATOR}/reconcile/loop.py"
_RECONCILES_FIRST = """\
        try:
            after = self._reconcile(namespace, name)
        finally:
            left = self._clear_up(namespace, name)
"""
_UNIT = "unit/test_leftovers.py::"

LEFTOVERS = (
    Mutant(
        "the Job is not told that everything is to go",
        _DECIDES,
        "        everything=True,\n",
        "        everything=False,\n",
        (),
        "Nothing would be removed, and nobody would know where to look for it.",
        each=(seeds("removed_with_its_artifacts"), seeds("removed_during_soak")),
    ),
    Mutant(
        "a way back waits for what an earlier index left",
        _LOOP,
        _RECONCILES_FIRST,
        "        left, after = self._clear_up(namespace, name), self._reconcile(namespace, name)\n",
        ("unit/test_slow_looks.py::test_the_loop_decides_on_the_time_at_which_its_reads_began",),
        "Reads of what is gone, on a slow API server, come before those of what users are answered by.",
    ),
    Mutant(
        "a pass that fails keeps what an earlier index left",
        _LOOP,
        _RECONCILES_FIRST,
        "        after = self._reconcile(namespace, name)\n        left = self._clear_up(namespace, name)\n",
        (f"{_UNIT}test_a_pass_that_fails_does_not_keep_what_was_left",),
        "A namespace could not be deleted for as long as its new index cannot be read.",
    ),
    Mutant(
        "what is removed is still built",
        _DECIDES,
        "    if left.working:\n        return replace(group, stop=left.working)\n",
        "",
        (f"{_UNIT}test_work_is_stopped_and_pods_end_before_anything_is_removed",),
        "A build that goes on would publish an artifact that nobody knows of.",
        also=(
            Edit(
                _DECIDES,
                "    return group if left.busy else replace(group, start=job)\n",
                "    return replace(group, start=job)\n",
            ),
        ),
        each=(seeds("removed_during_build"),),
    ),
    Mutant(
        "a namespace that terminates is kept",
        _DOES,
        "        except NamespaceTerminatingError as error:\n            return step.given_up(str(error))\n",
        "        except NamespaceTerminatingError:\n            return step\n",
        (f"{_UNIT}test_a_job_that_is_refused_holds_a_revision_for_a_bounded_time",),
        "It could never be deleted.",
        each=(seeds("removed_with_its_namespace"),),
    ),
    Mutant(
        "a namespace that terminates refuses like a quota",
        f"{_OPERATOR}/adapters/kube.py",
        'if status == 403 and any(cause.get("reason") == "NamespaceTerminating" for cause in _causes(body)):',
        'if status == 403 and any(cause.get("reason") == "Quota" for cause in _causes(body)):',
        ("unit/test_adapters_kube.py::test_a_namespace_that_terminates_refuses_for_good",),
        "Its revisions would be kept for fifteen minutes.",
    ),
    Mutant(
        "a Job that failed is tried again for ever",
        _DECIDES,
        "    if job.state is JobState.FAILED:\n        return group.given_up(describe(job))\n",
        "",
        (f"{_UNIT}test_a_job_that_fails_or_never_ends_lets_go_and_says_what_is_left",),
        "A right that is lacking in the bucket would keep the revisions.",
        each=(seeds("removal_fails"),),
    ),
    Mutant(
        "a Job that is refused is tried for ever",
        _DECIDES,
        "overdue=now - since > GIVE_UP_SECONDS)",
        "overdue=now < since)",
        (f"{_UNIT}test_a_job_that_is_refused_holds_a_revision_for_a_bounded_time",),
        "A quota would keep the revisions.",
        each=(seeds("removal_is_refused"),),
    ),
    Mutant(
        "a Job that never ends is waited for",
        _DECIDES,
        "    if now - job.created_at > GIVE_UP_SECONDS + OVERDUE_SECONDS:\n",
        "    if now < job.created_at:\n",
        (f"{_UNIT}test_a_job_that_fails_or_never_ends_lets_go_and_says_what_is_left",),
        "One that nobody ends would keep the revisions.",
    ),
    Mutant(
        "an index that is made again does not wait",
        f"{_OPERATOR}/core/lifecycle.py",
        "    if state.obs.earlier:  # whose",
        "    if state.obs.earlier and state.serving:  # whose",
        (f"{_UNIT}test_what_an_earlier_index_left_holds_up_everything_new",),
        "The Job for the old one would remove what the new one has built.",
        each=(seeds("removed_and_made_again"),),
    ),
    Mutant(
        "a Job that still runs does not hold up the next index",
        _SEES,
        "for view in _collecting(jobs, []) if view.state is JobState.RUNNING)",
        "for view in _collecting(jobs, []) if view.state is JobState.FAILED)",
        (f"{_UNIT}test_a_new_index_of_the_name_waits",),
        "One that was given up may go on for minutes.",
    ),
    Mutant(
        "who changed to Retain is not heard",
        _HOLDS,
        "        if hold.deleted_at is not None or retains:\n",
        "        if hold.deleted_at is not None:\n",
        (f"{_UNIT}test_a_policy_that_was_changed_to_retain_lets_go_of_all",),
        "Artifacts would be removed that were to be kept.",
        each=(seeds("retained_after_all"),),
    ),
    Mutant(
        "a revision that is deleted alone is kept",
        _HOLDS,
        "        if hold.deleted_at is not None or retains:\n",
        "        if retains:\n",
        (f"{_UNIT}test_a_revision_that_is_deleted_alone_is_let_go",),
        "What falls out of the history, or is deleted by hand, would never go.",
        each=(seeds("held_revision_deleted"),),
    ),
    Mutant(
        "a finalizer stays with the operator of before",
        _HOLDS,
        "            if name not in mine or mine[name].finalizers != {state.settings.finalizer}:\n",
        "            if name not in mine:\n",
        (f"{_UNIT}test_an_index_that_moved_to_another_operator_is_held_by_that_one",),
        "An operator that is uninstalled by then would never take it off.",
        each=(seeds("removed_by_another_operator"),),
    ),
    Mutant(
        "a revision is let go although its index goes along",
        f"{_OPERATOR}/reconcile/execute.py",
        "        if uid != self.obs.index.uid or raw.is_deleting(index):\n",
        "        if uid and uid != self.obs.index.uid:\n",
        (f"{_UNIT}test_a_revision_is_let_go_only_while_its_index_stays",),
        "Who deleted the index in that moment would find its artifacts for ever.",
    ),
    Mutant(
        "nobody looks at what has no index",
        f"{_OPERATOR}/handlers.py",
        " or cache.leaving.has(namespace, index):\n",
        ":\n",
        (f"{_UNIT}test_a_revision_on_its_way_out_gets_a_look_without_its_index",),
        "Revisions would wait for the next relist, and their namespace with them.",
    ),
    Mutant(
        "an event that was lost is not made good",
        f"{_OPERATOR}/reconcile/relist.py",
        "        for namespace, name in self.cache.leaving.indexes():\n            self.mark(namespace, name)\n",
        "",
        (f"{_UNIT}test_the_relist_finds_one_whose_event_was_lost",),
        "Revisions of an index that is gone would stay until the operator starts anew.",
    ),
    Mutant(
        "finalizers of others are taken off",
        _DOES,
        "    others = [one for one in before if one not in ours(before)]\n",
        "    others = before[:0]\n",
        (f"{_UNIT}test_a_hold_keeps_the_finalizers_of_others_and_follows_a_status",),
        "Whoever else has to do something before a revision goes would come too late.",
    ),
    Mutant(
        "finalizers are taken off while the operator may write",
        f"{_OPERATOR}/uninstall.py",
        "if self.clock() - since >= self.lease_seconds and self._remove() == 0:",
        "if self._remove() == 0:",
        ("unit/test_uninstall.py::test_the_finalizers_go_once_the_operator_can_write_no_more",),
        "It would put them back, and then be removed.",
    ),
    Mutant(
        "the operator goes on while its finalizers are taken off",
        f"{_OPERATOR}/adapters/lease.py",
        "    record = LeaderElectionRecord(lock.identity, ",
        "    record = LeaderElectionRecord(_.holder_identity if there else lock.identity, ",
        ("unit/test_adapters_lease.py::test_who_takes_it_over_ends_the_holder_and_keeps_others_waiting",),
        "It would put them back, and then be removed.",
    ),
)
