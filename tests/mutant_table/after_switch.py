"""What keeps a soak that is compared with its prior honest: who judges, by what, and that the prior is no burden."""

from __future__ import annotations

from .mutant import Mutant, seeds

_OPERATOR = "operator/vectorindex_operator"
_JUDGING = f"{_OPERATOR}/core/judging"
_SAME = f"{_JUDGING}/same_moment.py"
_MIRRORS = f"{_OPERATOR}/core/safety/mirrors.py"
_SHADOW = "searcher/vectorindex_searcher/serve/shadow"
_TESTS = "unit/test_after_switch.py::"
_PODS = "unit/test_searcher_after_switch.py::"

AFTER_SWITCH = (
    Mutant(
        "pairs of the same moment judge nothing",
        f"{_JUDGING}/judge.py",
        "        if of_pairs is None or since is not None:\n",
        "        if of_pairs is None or since != -1:\n",
        (f"{_TESTS}test_where_what_users_ask_changes_the_baseline_is_wrong_and_pairs_are_not",),
        "Whoever asks other things in the evening than in the afternoon would lose a good revision.",
        each=(
            seeds("soak_while_what_users_ask_changes"),
            seeds("soak_that_is_worse_than_the_prior_at_the_same_moment"),
        ),
    ),
    Mutant(
        "who sends is taken for the reference",
        f"{_OPERATOR}/reconcile/execute.py",
        "                    sender_judged=action.sender_judged or None,\n",
        "                    sender_judged=None,\n",
        (seeds("soak_that_is_worse_than_the_prior_at_the_same_moment"),),
        "The prior would be judged by the revision that took its place.",
    ),
    Mutant(
        "what a prior answered until it died is proof of what came after",
        _SAME,
        "    if missed and (pairs.gone or tried >= rule.min_samples):\n",
        "    if missed and tried < 0:\n",
        (f"{_TESTS}test_once_the_prior_answers_no_more_the_baseline_judges_what_came_since",),
        "A revision that turns bad once its prior is gone would be promoted.",
        each=(seeds("soak_with_a_prior_that_answers_no_more"),),
    ),
    Mutant(
        "a prior that dies has the baseline judge what pairs had judged",
        _SAME,
        "        return newest + 1\n",
        "        return first\n",
        (f"{_TESTS}test_once_the_prior_answers_no_more_the_baseline_judges_what_came_since",),
        "The death of a prior would take a good revision back, where users ask for other things by now.",
    ),
    Mutant(
        "an operator that was away takes the prior for gone",
        _SAME,
        "    if missed and (pairs.gone or tried >= rule.min_samples):\n",
        "    if missed:\n",
        (f"{_TESTS}test_an_operator_that_was_away_is_no_prior_that_is_gone",),
        "An upgrade of the operator in a soak would have the wrong evidence judge it.",
    ),
    Mutant(
        "one look at which the prior does not tell is judged by the baseline",
        _SAME,
        "    if pairs.told is None:\n        return None\n",
        "    if pairs.told is None:\n        return first\n",
        (f"{_TESTS}test_one_look_at_which_pods_do_not_tell_is_no_verdict",),
        "A moment in which its pods are slow would take a good revision back.",
    ),
    Mutant(
        "a prior that never answers is waited for",
        _SAME,
        "sum(here.values())) < rule.min_samples:\n        return first\n",
        "sum(here.values())) < rule.min_samples:\n        return None\n",
        (f"{_TESTS}test_until_enough_was_sent_the_baseline_judges",),
        "No revision would be promoted before maxDuration where the prior hangs, or its image knows no mirror.",
        each=(seeds("soak_with_a_prior_that_never_answers"), seeds("soak_of_images_that_know_no_mirror")),
    ),
    Mutant(
        "a prior that never makes a pair is waited for",
        _SAME,
        "    return first if in_vain >= IN_VAIN * rule.min_samples else None\n",
        "    return None\n",
        (f"{_TESTS}test_where_answers_make_no_pairs_the_baseline_judges",),
        "Where users ask the same few things, no revision would be promoted before maxDuration.",
    ),
    Mutant(
        "what a prior did not answer was sent all the same",
        _SAME,
        "bucket: sums.mirrored - sums.unanswered for bucket, sums in counted if sums.mirrored > sums.unanswered}\n",
        "bucket: sums.mirrored for bucket, sums in counted}\n",
        (f"{_TESTS}test_what_the_prior_did_not_answer_was_not_sent",),
        "A prior that hangs would hold up the soak, or have it judged on nothing.",
        each=(seeds("soak_with_a_prior_that_answers_no_more"),),
    ),
    Mutant(
        "pairs and baseline have the whole level each",
        f"{_JUDGING}/judge.py",
        "        if stake is not None or of_pairs is not None:\n",
        "        if stake is not None:\n",
        (f"{_TESTS}test_neither_has_more_than_half_of_the_level",),
        "A rule would be bet on twice, and trip a good revision twice as often as was promised.",
    ),
    Mutant(
        "pairs of an image that turns nothing are believed",
        f"{_JUDGING}/shadow.py",
        "    return old, older or turned\n",
        "    return old, older\n",
        (f"{_TESTS}test_who_counts_as_if_it_were_judged_tells_nothing",),
        "What is worse than its prior would look better, and the other way round.",
    ),
    Mutant(
        "pairs of an image that says of nobody that he is judged are believed",
        f"{_JUDGING}/shadow.py",
        "for pod in reference.pods if pod.judged or pod.counts)\n",
        "for pod in reference.pods if pod.judged)\n",
        (f"{_TESTS}test_who_counts_as_if_it_were_judged_tells_nothing",),
        "What is worse than its prior would look better, and the other way round.",
    ),
    Mutant(
        "pairs of half of the pods judge all of them",
        f"{_JUDGING}/shadow.py",
        "    if is_half(sender):\n",
        "    if is_half(sender) and sender.mute:\n",
        (f"{_TESTS}test_half_of_the_pods_that_send_are_no_evidence",),
        "A revision whose searchers are of mixed images would be promoted on what some of them answer.",
    ),
    Mutant(
        "nobody is told that searchers of mixed images compare nothing",
        _MIRRORS,
        "    _say_what_is_not_compared(state, name, mirror)\n",
        "",
        (f"{_TESTS}test_images_of_before_are_told_in_a_condition",),
        "What somebody turned on would look as if it were at work.",
    ),
    Mutant(
        "what a pod forgot that restarted was never sent",
        _SAME,
        "    if max(sum(answered.values()), sum(here.values())) < rule.min_samples:\n",
        "    if sum(answered.values()) < rule.min_samples:\n",
        (f"{_TESTS}test_pods_that_restart_forget_what_they_sent_and_the_pairs_stay",),
        "An eviction or a new Secret in the evening would have what was asked in the afternoon judge the revision.",
    ),
    Mutant(
        "a revision that does not tell what it answers passes on pairs",
        f"{_JUDGING}/judge.py",
        "            verdicts.append(said if said.verdict is Verdict.FAIL else _missing(case, ready_pods) or said)\n",
        "            verdicts.append(said)\n",
        (f"{_TESTS}test_pods_of_the_revision_itself_that_say_nothing_are_no_pass",),
        "No evidence would be success.",
    ),
    Mutant(
        "pairs of one switch count in the next",
        _MIRRORS,
        '    shadow_id = f"{name}@{to_unix(rollout.switched_at):.0f}"\n',
        '    shadow_id = f"{name}@soak"\n',
        (f"{_TESTS}test_what_was_counted_before_this_switch_is_of_another_id",),
        "A revision that is rolled out again would be judged by what it was before.",
    ),
    Mutant(
        "a mirror goes on after the soak",
        _MIRRORS,
        "            _end(state, name, before.reference, before.id)\n",
        "            return\n",
        (f"{_TESTS}test_it_ends_with_the_soak_and_with_a_trip",),
        "A prior that got the traffic back would answer its own users beside the queries of what failed.",
    ),
    Mutant(
        "the roles of a pair are not turned",
        f"{_SHADOW}/receiver.py",
        "        counts = _pair_counts(first, found.hits == 0, asked.first, asked.hits == 0)\n",
        "        counts = _pair_counts(asked.first, asked.hits == 0, first, found.hits == 0)\n",
        (f"{_PODS}test_who_sends_is_judged_and_who_answers_again_is_the_reference",),
        "What is worse than its prior would look better.",
    ),
    Mutant(
        "who has users reads vectors for answers that nobody compares",
        f"{_SHADOW}/sender.py",
        "            packed_ones = self._packer.packed(taken, scored=not lease.sender_judged)\n",
        "            packed_ones = self._packer.packed(taken)\n",
        (f"{_PODS}test_nobody_reads_vectors_for_it",),
        "The revision that has just got the traffic would read its disk for nothing.",
    ),
    Mutant(
        "images of before are sent a field that they refuse",
        f"{_OPERATOR}/adapters/orders.py",
        "    body = said.model_dump_json(by_alias=True, exclude_none=True).encode()\n",
        "    body = said.model_dump_json(by_alias=True).encode()\n",
        ("unit/test_adapters_shadow.py::test_the_lease_brings_the_key_for_those_who_send_and_for_nobody_else",),
        "No revision of an earlier image would be compared in shadow.",
    ),
)
