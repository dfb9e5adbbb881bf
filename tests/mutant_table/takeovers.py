"""What a VectorIndex begins with that is made again where all objects were lost."""

from __future__ import annotations

from .mutant import Edit, Mutant, seeds

_OPERATOR = "operator/vectorindex_operator"
_VALUES = f"{_OPERATOR}/core/outcomes.py"
_RESTORE = f"{_OPERATOR}/core/progress/restore.py"
_RECORD = f"{_OPERATOR}/core/progress/record.py"
_STORED = "searcher/vectorindex_searcher/artifact/outcomes.py"
_UNIT = "unit/test_outcomes.py::"
_SEARCHER = "unit/test_searcher_outcomes.py::"

TAKEOVERS = (
    Mutant(
        "an index begins before it is known what was decided",
        f"{_OPERATOR}/core/lifecycle.py",
        " and _has_taken_over(state):\n",
        " and (_has_taken_over(state) or True):\n",
        (f"{_UNIT}test_what_is_there_is_read_before_anything_begins",),
        "What was taken back would be built, proven and given to users, with nothing to go back to.",
        each=(seeds("taken_over_after_a_rollback"),),
    ),
    Mutant(
        "what an operator that died has made is taken for new",
        _RESTORE,
        '        state.statuses[name] = outcomes.status_of(restored, state.spec, prior if prior != name else "")\n',
        "        pass\n",
        (f"{_UNIT}test_whoever_dies_before_a_status_is_written_leaves_nothing_that_looks_new",),
        "A rejected revision would be rolled out.",
        each=(seeds("taken_over_after_a_rollback"), seeds("taken_over_and_rolled_back")),
    ),
    Mutant(
        "half of what is to be taken over is enough",
        _RESTORE,
        "    return not missing\n",
        "    return len(missing) < len(begin_as)\n",
        (f"{_UNIT}test_what_is_not_made_yet_holds_up_the_rest",),
        "A quota that comes in between would have a rejected revision forgotten.",
    ),
    Mutant(
        "what was proven with another image serves",
        _RESTORE,
        "        proven = one.report is not None and one.image == state.settings.searcher_image\n",
        "        proven = one.report is not None\n",
        (f"{_UNIT}test_with_another_image_it_is_proven_again_before_it_serves",),
        "Users would get answers of an engine that nobody measured.",
        each=(seeds("taken_over_by_another_image"),),
    ),
    Mutant(
        "what served is given up for what the spec asks for now",
        f"{_OPERATOR}/core/progress/desired.py",
        "        if restore.awaits_proof(state, name) and not _is_stuck(state, name):\n",
        "        if state.stable and restore.awaits_proof(state, name):\n",
        (f"{_UNIT}test_what_served_is_proven_again_also_where_the_spec_has_changed_since",),
        "After an edit that was rolled back nothing would serve at all.",
        each=(seeds("taken_over_by_another_image"),),
    ),
    Mutant(
        "a digest binds nothing",
        _VALUES,
        " and outcome.digest == identity.digest(built_of, outcome.fingerprint, outcome.rebuild or 0)\n",
        "\n",
        (f"{_UNIT}test_what_does_not_come_out_of_what_it_says_is_not_taken",),
        "What is said of one artifact would be believed of another.",
    ),
    Mutant(
        "an outcome of another index is believed",
        _VALUES,
        "    return mine and outcome.digest",
        "    return outcome.digest",
        (f"{_UNIT}test_what_does_not_come_out_of_what_it_says_is_not_taken",),
        "Objects that were copied from another prefix would reject good revisions.",
        also=(
            Edit(
                _STORED,
                "    if (one.identity.namespace, one.identity.name) != (mine.namespace, mine.name):\n",
                "    if not mine:\n",
            ),
        ),
        each=(f"{_SEARCHER}test_what_cannot_be_used_is_counted_and_hides_nothing",),
    ),
    Mutant(
        "an outcome may be of a time to come",
        _VALUES,
        "        if not 0 <= to_unix(outcome.at) <= state.now + CLOCKS_DIFFER_SECONDS:\n",
        "        if to_unix(outcome.at) < 0:\n",
        (f"{_UNIT}test_what_does_not_come_out_of_what_it_says_is_not_taken",),
        "It would be newer than every promotion: nothing could take its place.",
    ),
    Mutant(
        "a document may hold what no object can",
        _STORED,
        "        if not _can_be_told(said):\n",
        "        if not said:\n",
        (f"{_SEARCHER}test_what_cannot_be_used_is_counted_and_hides_nothing",),
        "The operator would take the whole result for unreadable, and the index would never begin.",
    ),
    Mutant(
        "what was promoted needs no artifact",
        _STORED,
        "    if not _is_there(store, layout.manifest(one.digest), one.build.manifest_sha256):\n",
        "    if not one.build.manifest_sha256:\n",
        (f"{_SEARCHER}test_what_was_promoted_is_nothing_without_its_very_artifact",),
        "An index would begin with a stable revision that no pod can load.",
    ),
    Mutant(
        "a report is believed whatever lies in its place",
        _STORED,
        '    return one if there else one.model_copy(update={"report": None})\n',
        "    return one\n",
        (f"{_SEARCHER}test_a_report_that_is_another_one_is_no_proof",),
        "A proof that was replaced would count.",
    ),
    Mutant(
        "who takes over does not mark what it uses",
        _STORED,
        "    mark_used(store, layout, one.digest, cluster)  # before the manifest is read\n",
        "",
        (f"{_SEARCHER}test_an_index_that_is_made_again_begins_with_what_was_decided",),
        "The cluster of before would remove the artifact that the next one serves.",
    ),
    Mutant(
        "a result may be longer than a termination message",
        _STORED,
        " if _fits([*taken, form])), None)\n",
        "), None)\n",
        (f"{_SEARCHER}test_a_result_fits_a_termination_message_and_begins_with_what_serves",),
        "The kubelet would cut it, and the index would never begin.",
    ),
    Mutant(
        "what is written is not noted",
        _RECORD,
        "            state.update(name, recorded=outcomes.token(one))\n",
        "            pass\n",
        (f"{_UNIT}test_what_a_job_has_written_is_not_written_again",),
        "Jobs would follow each other for ever.",
    ),
    Mutant(
        "a Job that cannot write is tried for ever",
        _RECORD,
        "    if failures >= MOST_TRIES:\n        return\n",
        "",
        (f"{_UNIT}test_a_job_that_fails_is_tried_again_a_few_times_and_told",),
        "A bucket that may only be read would cost a pod every half hour.",
    ),
    Mutant(
        "a Job that failed is the last",
        _RECORD,
        "    if failures >= MOST_TRIES:\n",
        "    if failures:\n",
        (f"{_UNIT}test_a_job_that_fails_is_tried_again_a_few_times_and_told",),
        "A store that was away for a minute would have a rejection forgotten.",
        each=(seeds("outcomes_cannot_be_written"),),
    ),
    Mutant(
        "what was promoted is not written",
        _VALUES,
        "    return (PROMOTED, state.good_since(name)) if proven and",
        "    return (PROMOTED, state.good_since(name)) if not proven and",
        (),
        "Another cluster would have nothing to serve until it has proven what the spec asks for.",
        each=(seeds("taken_over_in_the_middle"), seeds("taken_over_with_new_data")),
    ),
    Mutant(
        "of what decided the last word any part is enough",
        _STORED,
        "    if not listing.whole:\n",
        "    if listing.whole is None:\n",
        (f"{_SEARCHER}test_more_names_than_are_listed_are_done_without",),
        "What was promoted first and taken back later would serve.",
    ),
    Mutant(
        "outcomes of the future push out those that are true",
        _STORED,
        " if name[: len(latest)] <= latest]\n",
        "]\n",
        (f"{_SEARCHER}test_what_is_dated_in_the_future_pushes_out_nothing_that_is_true",),
        "A wrong clock, or a hand, would have everything forgotten for good.",
    ),
)
