"""What keeps fresh rows from being others in each pod, and from being what no index would take."""

from __future__ import annotations

from .mutant import Mutant

_SEARCHER = "searcher/vectorindex_searcher"
_SOURCE = f"{_SEARCHER}/serve/fresh.py"
_ROWS = f"{_SEARCHER}/index/fresh.py"
_HELD = f"{_SEARCHER}/serve/search/freshness.py"
_SNAPSHOTS = f"{_SEARCHER}/artifact/fresh.py"
_SOURCE_TESTS = "unit/test_searcher_fresh_source.py"
_SEARCH_TESTS = "unit/test_searcher_fresh.py"

FRESH_ROWS = (
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
        "        if refused:\n            raise _FilesRefused(refused)\n",
        "",
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
)
