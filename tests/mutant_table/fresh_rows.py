"""What keeps fresh rows from being others in each pod, and from being what no index would take."""

from __future__ import annotations

from .mutant import Mutant, seeds

_SEARCHER = "searcher/vectorindex_searcher"
_SOURCE = f"{_SEARCHER}/serve/fresh.py"
_ROWS = f"{_SEARCHER}/index/fresh.py"
_HELD = f"{_SEARCHER}/serve/search/freshness.py"
_SNAPSHOTS = f"{_SEARCHER}/artifact/fresh.py"
_SOURCE_TESTS = "unit/test_searcher_fresh_source.py"
_SEARCH_TESTS = "unit/test_searcher_fresh.py"
_CORE = "operator/vectorindex_operator/core"
_PLANE_TESTS = "unit/test_fresh_rows.py"

FRESH_ROWS = (
    Mutant(
        "a pod that cannot hold the newest snapshot begins with none",
        _SOURCE,
        "                if not self.seen.number:\n                    self._begin_before(published)\n",
        "",
        (f"{_SOURCE_TESTS}::test_a_pod_that_cannot_hold_the_newest_begins_where_the_others_of_its_revision_stayed",),
        "After a way back, pods that start answer no fresh rows while those beside them do.",
    ),
    Mutant(
        "what fresh rows take in memory has no bound",
        _SOURCE,
        "            if held > contract.FRESH_METADATA_BYTES:\n",
        "            if False:\n",
        (f"{_SOURCE_TESTS}::test_what_is_small_in_a_file_is_bounded_in_memory",),
        "Files of a few kilobytes end every searcher of the index.",
    ),
    Mutant(
        "what a file of fresh rows takes in memory has no bound",
        f"{_SEARCHER}/dataset/fresh.py",
        "        if held > FRESH_METADATA_BYTES:\n",
        "        if False:\n",
        (f"{_SOURCE_TESTS}::test_what_is_small_in_a_file_is_bounded_in_memory",),
        "It would end the process before it is counted with the others.",
    ),
    Mutant(
        "a snapshot is written over another of its number",
        _SNAPSHOTS,
        "encode(snapshot), exclusive=True)",
        "encode(snapshot), exclusive=False) or True",
        (f"{_SOURCE_TESTS}::test_who_loses_the_race_takes_what_is_there",),
        "Two pods would answer other rows under one number, and a client that has seen it would be shown the past.",
    ),
    Mutant(
        "a number falls where the snapshots are removed",
        _SOURCE,
        "self._listed(max(published, self.seen.number) + 1)",
        "self._listed(published + 1)",
        (f"{_SOURCE_TESTS}::test_a_number_does_not_fall_where_somebody_removes_the_snapshots",),
        "Who asks for what he has seen would wait for as many changes as there ever were.",
    ),
    Mutant(
        "an older snapshot takes the place of a newer one",
        _HELD,
        "        if self._newest is not None and rows.number <= self._newest.number:\n            return False\n",
        "",
        (f"{_SEARCH_TESTS}::test_a_number_never_falls",),
        "A client's own writes would be there, and then not.",
    ),
    Mutant(
        "files with a fault are left out, and the others answered",
        _SOURCE,
        "            raise _FilesRefused(refused)\n        return gather(",
        "            pass\n        return gather(",
        (f"{_SOURCE_TESTS}::test_a_malformed_file_is_named_and_leaves_the_last_snapshot",),
        "What a bad file was to replace would be answered again, and nobody told.",
    ),
    Mutant(
        "a file is not held against the index",
        _SOURCE,
        "        check_file(self._engine, found)\n",
        "",
        (f"{_SOURCE_TESTS}::test_a_malformed_file_is_named_and_leaves_the_last_snapshot",),
        "Its fault would be found among the rows of all files, which names none.",
    ),
    Mutant(
        "vectors of any length are taken",
        _ROWS,
        "    if not usual[0] / LENGTHS_FACTOR <= middle <= usual[1] * LENGTHS_FACTOR:\n",
        "    if False:\n",
        (f"{_SOURCE_TESTS}::test_vectors_of_another_length_are_another_models",),
        "Rows that nobody normalised are the first hits of every query under InnerProduct.",
    ),
    Mutant(
        "vectors of another model are published",
        _SOURCE,
        "        self._compare()\n",
        "",
        (f"{_SOURCE_TESTS}::test_vectors_of_another_model_are_not_published",),
        "Their rows would stand in the answers by scores that mean nothing.",
    ),
    Mutant(
        "the bounds are those of the limit alone",
        _SOURCE,
        "        self._most = min(told.max_rows, share)\n",
        "        self._most = told.max_rows\n",
        (f"{_SOURCE_TESTS}::test_a_share_of_the_rows_is_the_bound_of_a_large_index",),
        "A tenth of the index could be rows that no gate has seen, and every query would pay for them.",
    ),
    Mutant(
        "rows of an older file count",
        _ROWS,
        "    ordered = sorted(files, key=lambda one: (one.stored_at, one.key))\n",
        "    ordered = sorted(files, key=lambda one: one.key)\n",
        (f"{_SOURCE_TESTS}::test_the_newest_store_time_wins_among_rows_and_deleted_ids",),
        "An old price would come back, by the name of its file.",
    ),
    Mutant(
        "what was built in is still fresh",
        _SOURCE,
        "if (item.key, item.etag) not in (self._absorbed or ())",
        "if item.key",
        (f"{_SOURCE_TESTS}::test_what_the_artifact_holds_is_no_fresh_row",),
        "The bounds would be reached by rows that the index has, and each build be followed by another.",
    ),
    Mutant(
        "a file that is older than what is built in hides it",
        _SOURCE,
        "        found = without_held(self._engine, found)\n",
        "",
        (f"{_SOURCE_TESTS}::test_a_file_older_than_what_is_built_in_hides_no_row_of_the_artifact",),
        "An old price would come back after the build that had the new one.",
    ),
    Mutant(
        "a pod whose newer snapshot is refused answers none",
        _SOURCE,
        "        return self._given  # also where a newer one could not be made\n",
        "        return None if self.seen.reason else self._given\n",
        (f"{_SOURCE_TESTS}::test_a_malformed_file_is_named_and_leaves_the_last_snapshot",),
        "Each restart beside one bad file would take rows from users that the other pods answer.",
    ),
    Mutant(
        "live recall judges by rows that were replaced",
        _HELD,
        "            self._left = left = (live, rows, rows.only(live))\n",
        "            self._left = left = (live, rows, live)\n",
        (f"{_SOURCE_TESTS}::test_samples_are_judged_without_the_rows_that_fresh_ones_replace",),
        "Recall would fall by each changed row, and a guardrail take a good revision back.",
    ),
    Mutant(
        "an order to do without fresh rows never ends",
        f"{_SEARCHER}/serve/fresh_port.py",
        "            self._ending = asyncio.get_running_loop().call_later(order.ttl_seconds, self._end)\n",
        "            self._ending = asyncio.get_running_loop().call_later(1e9, self._end)\n",
        (f"{_SOURCE_TESTS}::test_an_order_to_do_without_them_runs_out_by_itself",),
        "An operator that died would have taken the rows from users for ever.",
    ),
    # ------------------------------------------------------------ the control plane
    Mutant(
        "a stable revision goes back for what a fresh file did",
        f"{_CORE}/safety/judge_serving.py",
        " or fresh_off.switch_off(state, name, said):\n",
        ":\n",
        (f"{_PLANE_TESTS}::test_what_fails_with_fresh_rows_is_judged_without_them_first",),
        "A good revision would lose the traffic to one with the same bad rows.",
        each=(seeds("fresh_rows_that_harm"),),
    ),
    Mutant(
        "what was counted with fresh rows is held against the artifact",
        f"{_CORE}/safety/fresh_off.py",
        "    return max(since, to_unix(off.at) + TOLD_SECONDS) if off is not None",
        "    return max(since, since) if off is not None",
        (f"{_PLANE_TESTS}::test_what_fails_with_fresh_rows_is_judged_without_them_first",),
        "To switch them off would be of no use: the next look would take the revision back.",
    ),
    Mutant(
        "each fresh file makes a revision",
        f"{_CORE}/progress/resolve.py",
        "            return  # other fresh files alone",
        "            pass  # other fresh files alone",
        (f"{_PLANE_TESTS}::test_other_fresh_files_alone_are_built_by_nobody",),
        "A rollout after the other, for rows that are answered already.",
    ),
    Mutant(
        "searchers hear of no fresh rows",
        f"{_CORE}/recipe.py",
        "if live.fresh is not None and same else None\n",
        "if live.fresh is not None and not same else None\n",
        (
            f"{_PLANE_TESTS}::test_searchers_are_told_where_fresh_rows_are_and_get_the_keys_of_the_source",
            f"{_PLANE_TESTS}::test_an_index_of_other_rows_answers_none_of_these",
        ),
        "Or those of another source would be answered beside its rows.",
        each=(seeds("fresh_rows_wait_for_a_build_that_is_due"),),
    ),
    Mutant(
        "too many fresh rows have nothing built",
        f"{_CORE}/progress/fresh_rows.py",
        "    if fresh.full:\n",
        "    if False and fresh.full:\n",
        (f"{_PLANE_TESTS}::test_too_many_rows_have_the_source_listed_once_for_a_build",),
        "New rows would be answered no more until the source itself changes.",
        each=(seeds("fresh_rows_beyond_the_bounds"),),
    ),
    Mutant(
        "a refused file is not told",
        f"{_CORE}/fresh_condition.py",
        "    if fresh.refused:\n",
        "    if False and fresh.refused:\n",
        (f"{_PLANE_TESTS}::test_a_refused_file_is_named_with_what_to_do_and_told_once",),
        "Who wrote it would wait for rows that never come.",
        each=(seeds("a_refused_fresh_file"),),
    ),
    Mutant(
        "a listing takes in what no build can read",
        f"{_SEARCHER}/dataset/absorbed.py",
        "        _check(item, source)\n",
        "        pass\n",
        ("unit/test_searcher_absorbed.py::test_a_malformed_file_is_left_out_and_holds_nothing_up",),
        "One bad file beside the source would hold up the source.",
    ),
    Mutant(
        "a build that a fresh file ended is tried with the same files",
        f"{_CORE}/progress/resolve.py",
        "TAKES_IN not in job.key and not waits:\n",
        "TAKES_IN not in job.key:\n",
        (f"{_PLANE_TESTS}::test_a_build_that_failed_is_made_of_what_is_listed_next",),
        "A file that is mended would help only once the source changes.",
    ),
)
