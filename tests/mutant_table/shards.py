"""What keeps parts of one plan from passing for those of another, and a merged answer from being measured kindly."""

from __future__ import annotations

from .mutant import Mutant

_SEARCHER = "searcher/vectorindex_searcher"
_TESTS = "unit/test_searcher_shards.py::"

SHARDS = (
    Mutant(
        "a part of another plan completes this one",
        f"{_SEARCHER}/artifact/sharded.py",
        "    return found if found is not None and found[0].plan_sha256 == plan_sha256 else None\n",
        "    return found\n",
        (f"{_TESTS}test_what_another_plan_left_never_completes_this_one",),
        "It may lack files, or be of other rows.",
    ),
    Mutant(
        "a build does not look whose part was published",
        f"{_SEARCHER}/build/by_plan.py",
        "        if published.plan_sha256 != self.sha256:\n",
        "        if published.plan_sha256 == '':\n",
        (f"{_TESTS}test_what_another_plan_left_never_completes_this_one",),
        "A build that was given up an hour ago may end in between.",
    ),
    Mutant(
        "files of a part go before what says that it is whole",
        f"{_SEARCHER}/artifact/collect.py",
        "        ours.sort(key=lambda one: one[1] is not Kind.PART)",
        "        ours.sort(key=lambda one: one[1] is Kind.PART)",
        (f"{_TESTS}test_collect_removes_all_of_it_and_what_makes_a_part_whole_first",),
        "A Job that is cut off would leave manifests without files, which pass for parts.",
    ),
    Mutant(
        "a part without its files is published",
        f"{_SEARCHER}/artifact/whole.py",
        "        if there is None or there.size != file.size:\n",
        "        if there is not None and there.size < 0:\n",
        (f"{_TESTS}test_nothing_is_published_while_a_part_is_missing_or_lacks_a_file",),
        "Searchers would find out, after the rollout began.",
    ),
    Mutant(
        "a searcher believes whatever manifest its part has",
        f"{_SEARCHER}/serve/load.py",
        "        manifest, sha256 = load_manifest(store, layout, task.digest, own)\n",
        '        manifest, sha256 = load_manifest(store, layout, task.digest, "" if task.shard is not None else own)\n',
        (f"{_TESTS}test_a_searcher_of_a_part_wants_the_whole_that_it_was_told",),
        "What was proven is named by the manifest of the whole alone.",
    ),
    Mutant(
        "a held-out row is asked of the shard that has it",
        f"{_SEARCHER}/proof/merged.py",
        "    theirs = np.flatnonzero(asked.owners != number)\n",
        "    theirs = np.flatnonzero(asked.owners >= -1)\n",
        (f"{_TESTS}test_a_held_out_row_is_asked_of_its_shard_without_it",),
        "Every query would find itself.",
    ),
)
