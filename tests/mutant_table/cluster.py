"""What keeps an old view from deciding, two operators from quarrelling, and a mark from being lost."""

from __future__ import annotations

from .mutant import Edit, Mutant, kept, seeds

_OPERATOR = "operator/vectorindex_operator"
_LOOP = f"{_OPERATOR}/reconcile/loop.py"
_CACHE = f"{_OPERATOR}/reconcile/cache.py"
_QUEUE = f"{_OPERATOR}/reconcile/queue.py"
_KUBE = f"{_OPERATOR}/adapters/kube.py"
_LEASE = f"{_OPERATOR}/adapters/lease.py"

_SOURCE = f"{_OPERATOR}/core/source_poll.py"
_POLL = f"{_OPERATOR}/core/progress/poll.py"
_POLLS = f"{_OPERATOR}/reconcile/polls.py"
_WAY_BACK = f"{_OPERATOR}/core/progress/way_back.py"

CLUSTER = (
    Mutant(
        "a searcher is believed about another source",
        _SOURCE,
        "    if (look.revision, look.source) != (question.revision, question.source):\n",
        "    if look.revision != question.revision:\n",
        ("unit/test_lifecycle_polls.py::test_an_answer_about_another_source_is_not_believed",),
        "A pod of before an edit would say that nothing changed, and the place of today would not be listed.",
    ),
    Mutant(
        "searchers are asked that were told of another source",
        _POLL,
        'return source_id(told) if told and told == wanted_text(owner, state.spec) else ""',
        'return source_id(told) if told and wanted_text(owner, state.spec) else ""',
        ("unit/test_lifecycle_polls.py::test_searchers_that_were_told_of_another_source_are_not_asked",),
        "After an edit of the place its data would be polled where it was before.",
    ),
    Mutant(
        "an old listing of a searcher counts",
        _SOURCE,
        "    if look.fingerprint and look.age_seconds <= question.max_age + SLACK_SECONDS:\n",
        "    if look.fingerprint:\n",
        ("unit/test_lifecycle_polls.py::test_who_cannot_tell_is_asked_again_and_then_a_job_lists",),
        "A pod that cannot reach the store any more would say for ever that nothing changed.",
    ),
    Mutant(
        "what a searcher said outlives the Job that it led to",
        _POLL,
        "    same = (about.revision, about.source, about.known, about.after) == (state.stable, source, known, after)\n",
        "    same = (about.revision, about.source, about.known) == (state.stable, source, known)\n",
        (
            "unit/test_lifecycle_polls.py::test_a_source_that_changed_is_listed_by_one_job",
            "unit/test_lifecycle_polls.py::test_what_was_heard_about_another_spec_or_listing_is_forgotten",
        ),
        "One pod that says that something is new would start Job after Job without a pause.",
        each=(seeds("polling_by_liars"),),
    ),
    Mutant(
        "silent searchers are asked for ever",
        _POLL,
        "        if heard.said is Said.UNABLE or heard.question.asks >= MOST_ASKS:\n",
        "        if heard.said is Said.UNABLE:\n",
        ("unit/test_source_polls.py::test_pods_that_stay_silent_bring_back_the_job",),
        "New data would wait for pods that do not answer, and nobody would be told that the store refuses.",
    ),
    Mutant(
        "a source is asked about again while it is being asked about",
        _POLLS,
        "        if key in self._asked:\n",
        "        if question is self._asked.get(key):\n",
        ("unit/test_source_polls.py::test_one_question_about_an_index_is_under_way_and_only_news_wakes_its_key",),
        "Each event about an index would have its source listed once more.",
    ),
    Mutant(
        "an image is asked for an artifact before it has said that it can be",
        _WAY_BACK,
        "    if heard is None or heard.question.revision != state.stable or not heard.able or not target:\n",
        "    if not target:\n",
        (
            "unit/test_lifecycle_way_back_artifact.py::test_an_image_is_asked_for_an_artifact_once_it_has_said_that_it_can_be",
        ),
        "An image of before refuses the question, so that its source would be listed by a Job a poll again.",
    ),
    Mutant(
        "a searcher is asked for an artifact that is in another place",
        _WAY_BACK,
        '    return target if places[0] == places[1] and ARTIFACT_DIGEST.fullmatch(wanted.digest) else ""\n',
        '    return target if places and ARTIFACT_DIGEST.fullmatch(wanted.digest) else ""\n',
        ("unit/test_lifecycle_way_back_artifact.py::test_an_artifact_in_another_place_is_not_asked_for",),
        "After an edit of spec.artifacts the way back would be called gone while it is where it was.",
    ),
    Mutant(
        "whatever stands for a digest in a revision is asked for",
        _WAY_BACK,
        '    return target if places[0] == places[1] and ARTIFACT_DIGEST.fullmatch(wanted.digest) else ""\n',
        '    return target if places[0] == places[1] else ""\n',
        ("unit/test_lifecycle_way_back_artifact.py::test_what_is_no_digest_is_never_asked_for",),
        "Who may write revisions would write headers into the operator's signed requests.",
    ),
    Mutant(
        "who does not tell of an artifact has said that it is gone",
        _SOURCE,
        '        return Found.UNKNOWN, "it does not tell of the artifact"\n',
        '        return Found.ABSENT, "it does not tell of the artifact"\n',
        (
            "unit/test_lifecycle_way_back_artifact.py::test_who_cannot_tell_has_not_said_that_it_is_gone_nor_that_it_is_back",
        ),
        "A searcher that is silent would alarm people about a way back that is well.",
    ),
    Mutant(
        "what was said of another artifact counts",
        _SOURCE,
        "    if said is None or said.digest != question.artifact:\n",
        "    if said is None:\n",
        (
            "unit/test_lifecycle_way_back_artifact.py::test_who_cannot_tell_has_not_said_that_it_is_gone_nor_that_it_is_back",
        ),
        "The look at what a rollback went to before would be taken for one at what it goes to now.",
    ),
    Mutant(
        "what was heard of another way back is said of this one",
        _WAY_BACK,
        "    same = (about.revision, about.artifact) == (state.stable, state.revision(target).spec.digest)\n",
        "    same = about.revision == state.stable\n",
        ("unit/test_lifecycle_way_back_artifact.py::test_what_was_heard_of_another_way_back_is_not_said_of_this_one",),
        "After a rollback or a promotion the new way back would be called gone.",
    ),
    Mutant(
        "an old look at an artifact takes back a later one",
        _WAY_BACK,
        "    if heard is None or heard.asked_at <= seen_at <= state.now + CLOCKS_DIFFER_SECONDS:\n",
        "    if heard is None:\n",
        (
            "unit/test_lifecycle_way_back_artifact.py::"
            "test_what_was_heard_before_the_status_was_written_takes_nothing_back",
        ),
        "Two operators, or one that was paused, would write against each other with each pass.",
    ),
    Mutant(
        "searchers do not start without the keys of the source",
        f"{_OPERATOR}/manifests/searchers.py",
        'credentials({"SOURCE_": frozen.source.reached_by(live.source)}, optional=True)',
        'credentials({"SOURCE_": frozen.source.reached_by(live.source)})',
        ("unit/test_source_polls.py::test_a_searcher_starts_without_the_keys_of_its_source",),
        "A Secret that is removed after the build would keep an index from coming up again.",
    ),
    Mutant(
        "what the cache says is written at once",
        _LOOP,
        "        executor = Executor(cluster, self.searchers, self.settings, obs)\n",
        "        executor = Executor(self.cluster, self.searchers, self.settings, obs)\n",
        ("unit/test_safety_devices.py::test_what_the_cache_says_is_written_only_after_a_live_read",),
        "A stale read would switch, retire and report; preconditions refuse most of that, and not an apply.",
    ),
    Mutant(
        "what the cache says is told at once",
        _LOOP,
        "        if not live and (plan.events or plan.errors):\n",
        "        if not live and plan.errors:\n",
        ("unit/test_safety_devices.py::test_what_the_cache_says_is_told_only_after_a_live_read",),
        "People would be told of what is not so.",
    ),
    Mutant(
        "a fault on what the cache says is not met again",
        _LOOP,
        "        if not live and (plan.events or plan.errors):\n",
        "        if not live and plan.events:\n",
        ("unit/test_safety_devices.py::test_a_fault_on_what_the_cache_says_is_met_again_on_live_reads",),
        "A fault on an old view would hold up what is safe.",
    ),
    Mutant(
        "a way back waits on what the cache says",
        _LOOP,
        "        if not live and any(row.rule in WAITS_FOR_PODS for row in plan.status.blocked_by):\n",
        "        if not live and not plan.status:\n",
        ("unit/test_safety_devices.py::test_a_way_back_waits_on_live_reads_only",),
        "An event that is lost would hold up a rollback.",
        each=(
            kept("a steady trip waited for a pod on an old view"),
            kept("a rollback by hand waited for a pod on an old view"),
        ),
    ),
    Mutant(
        "what came late replaces what is newer",
        _CACHE,
        "            if had is not None and had.version >= version:\n                return False\n",
        "",
        ("unit/test_cache.py::test_in_whatever_order_events_and_answers_come_the_newest_stays",),
        "An old event would take back what a live read has shown.",
    ),
    Mutant(
        "what is gone comes back with a late answer",
        _CACHE,
        "            if gone is not None and gone.version >= version and gone.turn > since:\n",
        "            if gone is not None and gone.version < 0:\n",
        ("unit/test_cache.py::test_what_is_gone_stays_gone_whatever_comes_late",),
        "A deleted object would be looked after.",
    ),
    Mutant(
        "an index may fill the cache",
        _CACHE,
        "        if len(names) < MOST_OF_A_KIND and self._sizes[group] + size <= MOST_BYTES_OF_A_KIND:\n",
        "        if group:\n",
        ("unit/test_cache.py::test_an_index_with_too_many_objects_of_a_kind_is_read_live_and_costs_no_memory",),
        "Labels are anybody's to write: one tenant would take the operator's memory.",
    ),
    Mutant(
        "the queue runs a key twice at once",
        _QUEUE,
        "            if key in self._running:\n",
        "            if key in self._failures and key in self._running:\n",
        ("unit/test_queue.py::test_one_pass_per_key_at_a_time_and_different_keys_side_by_side",),
        "Two passes would decide about one index on two views.",
    ),
    Mutant(
        "a mark during a pass is lost",
        _QUEUE,
        '            if due < self._due.get(key, float("inf")):\n',
        '            if key not in self._running and due < self._due.get(key, float("inf")):\n',
        ("unit/test_queue.py::test_marks_before_a_pass_are_one_pass_and_marks_during_it_are_one_more",),
        "What happened during a pass would be seen by the next relist.",
    ),
    Mutant(
        "a pass that failed is not run again",
        _QUEUE,
        '            return "bug", self._backoff(key)\n',
        '            return "bug", None\n',
        ("unit/test_queue.py::test_whatever_a_pass_raises_it_runs_again",),
        "A single fault would leave an index alone for ever.",
    ),
    Mutant(
        "a pass that only asked its pods ends the waiting after errors",
        _QUEUE,
        "        if outcome.finished:\n",
        "        if outcome is not None:\n",
        ("unit/test_queue.py::test_a_pass_that_could_only_ask_is_no_success_that_ends_the_waiting",),
        "An API server that refuses would be asked several times a second for each index that is watched.",
    ),
    Mutant(
        "a pass that asked its pods says that it has finished",
        _LOOP,
        "ASKED = Outcome(again_after=10.0, finished=False)\n",
        "ASKED = Outcome(again_after=10.0)\n",
        (
            "unit/test_looks.py::"
            "test_an_operator_that_is_refused_waits_longer_and_longer_although_it_asks_its_pods_each_time",
        ),
        "An API server that refuses would be asked several times a second for each index that is watched.",
    ),
    Mutant(
        "what follows from an own write is not looked at",
        _LOOP,
        "        return min(plan.requeue_after, LOOK_AGAIN_SECONDS) if changed else plan.requeue_after\n",
        "        return plan.requeue_after\n",
        ("unit/test_safety_devices.py::test_what_follows_from_an_own_write_is_looked_at_soon",),
        "Own writes come back as nothing new, so nothing else wakes the index.",
    ),
    # ------------------------------------------------------------ two operators
    Mutant(
        "the claim of another operator class is ignored",
        _LOOP,
        '        if class_of(obs.objects["VectorIndex", name]) != self.operator_class:\n',
        '        if class_of(obs.objects["VectorIndex", name]) == "":\n',
        ("unit/test_safety_devices.py::test_an_index_of_another_operator_is_left_alone",),
        "Two operators would work on one index. The cached look asks as well, so both are taken out.",
        also=(
            Edit(
                _LOOP,
                "            if raw is not None and class_of(raw) != self.operator_class:\n",
                '            if raw is not None and class_of(raw) == "":\n',
            ),
        ),
    ),
    Mutant(
        "a claim is never made",
        _LOOP,
        "        if obs.index.deleting or plan.status.operator == self.operator_class:\n",
        "        if plan:\n",
        ("unit/test_safety_devices.py::test_an_index_of_another_operator_is_left_alone",),
        "An index would change hands when an annotation is removed.",
    ),
    Mutant(
        "a process that was frozen writes on",
        _LEASE,
        "return self.times.duration - age if age < self.times.renew_within else 0.0",
        "return max(1.0, self.times.duration - age)",
        ("unit/test_adapters_lease.py::test_a_process_that_was_frozen_writes_nothing_before_it_ends",),
        "Its write would come when another operator holds the Lease.",
    ),
    Mutant(
        "a write is sent without the Lease",
        _KUBE,
        "            if left <= 0:\n",
        "            if left < 0:\n",
        ("unit/test_adapters_kube.py::test_without_the_lease_nothing_is_written_and_all_can_be_read",),
        "Two operators would write at the same time.",
    ),
    Mutant(
        "a write may take longer than the Lease lasts",
        _KUBE,
        "            read = min(read, left - connect)\n",
        "",
        ("unit/test_adapters_kube.py::test_a_write_ends_before_another_may_hold_the_lease",),
        "A write that stands still would be carried out under the next operator.",
    ),
    Mutant(
        "a renewal that comes late takes back what was given up",
        _LEASE,
        "            if self._released.is_set():\n                return False  #",
        "            if self._released.is_set() and not self.renewed_at:\n                return False  #",
        ("unit/test_adapters_lease.py::test_a_clean_stop_gives_the_lease_up",),
        "After a clean stop nobody would lead until the Lease runs out.",
    ),
    # ------------------------------------------------------------ the API server
    Mutant(
        "whatever has the name is deleted",
        _KUBE,
        '        preconditions = {"uid": uid} | ({"resourceVersion": version} if version else {})\n',
        '        preconditions = {"resourceVersion": version} if version else {}\n',
        ("unit/test_adapters_kube.py::test_delete_is_in_the_background_and_only_of_this_uid",),
        "An object that was made again under the name would go.",
    ),
    Mutant(
        "the 404 of a proxy is the absence of an object",
        _KUBE,
        '        gone = status == 404 and body.get("reason") == "NotFound"\n',
        "        gone = status == 404\n",
        ("unit/test_adapters_kube.py::test_the_404_of_a_proxy_is_not_the_absence_of_an_object",),
        "A Service that is there would be made again for another revision.",
    ),
    Mutant(
        "an object that was named too often is listed to its end",
        _KUBE,
        "            if len(found) > MOST_CHILDREN:\n",
        "            if len(found) > 1000 * MOST_CHILDREN:\n",
        ("unit/test_adapters_kube.py::test_an_index_that_names_too_many_objects_is_refused_before_they_are_all_read",),
        "A tenant who labels a hundred thousand objects would take the operator's memory.",
    ),
    Mutant(
        "a creation that was refused passes for done",
        _KUBE,
        "        if status == 409:\n            return None\n",
        "        if status >= 400:\n            return None\n",
        ("unit/test_adapters_kube.py::test_what_could_not_be_created_is_not_taken_for_there",),
        "A Job that a quota refused would be taken for one that is there.",
    ),
)
