"""What keeps an index built elsewhere from answering wrongly, or from being read before it is known."""

from __future__ import annotations

from .mutant import Mutant

_IMPORTED = "searcher/vectorindex_searcher/build/imported.py"
_TESTS = "unit/test_searcher_imported.py"

IMPORTS = (
    Mutant(
        "a file is the one that was named",
        _IMPORTED,
        "    if hasher.hexdigest() != sha256:\n",
        "    if not hasher.hexdigest():\n",
        (f"{_TESTS}::test_a_file_is_not_parsed_before_its_checksum_is_right",),
        "Whoever may write the bucket would have a file of theirs parsed.",
    ),
    Mutant(
        "labels below an id map are rows",
        _IMPORTED,
        "            if not np.array_equal(below, np.arange(len(below))):\n",
        "            if not len(below):\n",
        (f"{_TESTS}::test_what_would_answer_wrongly_is_refused",),
        "Rows would have the ids of others, or none.",
    ),
    Mutant(
        "the staged files have the order of the index",
        _IMPORTED,
        "    _order(folder, _places(ids, folder, wanted))\n",
        "    _places(ids, folder, wanted)\n",
        (f"{_TESTS}::test_it_answers_with_the_ids_of_its_rows",),
        "Answers would have ids of other rows.",
    ),
    Mutant(
        "a report says that it was measured against reconstructions",
        "searcher/vectorindex_searcher/proof/task.py",
        '        truth="Reconstructions" if manifest.reconstructed else None,\n',
        "        truth=None,\n",
        ("unit/test_searcher_reconstructed.py::test_the_report_says_what_was_the_truth",),
        "A gate would claim recall of vectors that nobody has.",
    ),
    Mutant(
        "a gate claims no recall of vectors that it never saw",
        "operator/vectorindex_operator/core/gate.py",
        "    if report.truth is not None:\n",
        "    if report.truth is None and not report.k:\n",
        ("unit/test_gate.py::test_what_was_measured_against_reconstructions_claims_no_recall_of_vectors",),
        "Recall of codes against themselves would pass for recall.",
    ),
    Mutant(
        "a table of places in a file is not believed",
        "searcher/vectorindex_searcher/build/reconstructed.py",
        "    lists.make_direct_map(False)\n    lists.make_direct_map(True)\n",
        "    lists.make_direct_map(True)\n",
        ("unit/test_searcher_reconstructed.py::test_a_row_has_what_the_index_gives_back_of_it",),
        "A file would have FAISS read past the end of a list.",
    ),
    Mutant(
        "a transform leads back to what lies behind it",
        "searcher/vectorindex_searcher/build/reconstructed.py",
        "            if not comes_back:\n",
        "            if not len(vectors):\n",
        ("unit/test_searcher_reconstructed.py::test_what_cannot_give_vectors_back_is_refused_and_leaves_nothing",),
        "The truth would be vectors of another scale in each direction.",
    ),
    Mutant(
        "rows without vectors need an index that has them",
        "searcher/vectorindex_searcher/build/given.py",
        "    if task.columns.bare and (isinstance(task, PartitionTask) or not task.index.imported):\n",
        "    if task.columns.bare and isinstance(task, PartitionTask):\n",
        ("unit/test_searcher_reconstructed.py::test_rows_without_vectors_are_refused_where_nothing_gives_them",),
        "A build would end in an error of no words.",
    ),
    Mutant(
        "an id is there once",
        _IMPORTED,
        "    if (twice := np.flatnonzero(counts > 1)).size:\n",
        "    if (twice := np.flatnonzero(counts > 2)).size:\n",
        (f"{_TESTS}::test_what_would_answer_wrongly_is_refused",),
        "One row would be answered twice, and another never.",
    ),
)
