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
        "an id is there once",
        _IMPORTED,
        "    if (twice := np.flatnonzero(counts > 1)).size:\n",
        "    if (twice := np.flatnonzero(counts > 2)).size:\n",
        (f"{_TESTS}::test_what_would_answer_wrongly_is_refused",),
        "One row would be answered twice, and another never.",
    ),
)
