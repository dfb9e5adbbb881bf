"""What keeps a shadow honest: a good candidate is not rejected by chance, and none passes that answers nothing."""

from __future__ import annotations

from .mutant import Mutant

_JUDGING = "operator/vectorindex_operator/core/judging"
_PAIRS = f"{_JUDGING}/pairs.py"
_PAIR_METRICS = f"{_JUDGING}/pair_metrics.py"
_PAIR_BETS = f"{_JUDGING}/pair_bets.py"

SHADOW = (
    Mutant(
        "a burst of five seconds is proof",
        f"{_JUDGING}/eprocess.py",
        "math.exp(min(_MOST, total - best)) for",
        "math.exp(min(_MOST, total)) for",
        ("unit/test_judging_pairs.py::test_its_strongest_five_seconds_alone_prove_nothing",),
        "A hiccup of the network would reject a good revision.",
    ),
    Mutant(
        "a sick stable blocks its cure",
        _PAIR_METRICS,
        "    return (lambda sums: rate.gains(_zero(sums), _pairs(sums)), above_stable)\n",
        "    return (lambda sums: rate.gains(_zero(sums), _pairs(sums)),)\n",
        ("unit/test_judging_pairs.py::test_a_sick_stable_does_not_block_its_cure",),
        "What repairs nine tenths of a fault would be rejected for the last one.",
    ),
    Mutant(
        "any rise of a rate is a failure",
        _PAIR_METRICS,
        "    ratio = RatioBets.above(1.0 + (bound.relative or 0.0))\n",
        "    ratio = RatioBets.above(1.0)\n",
        ("unit/test_judging_pairs.py::test_a_rise_that_is_allowed_is_no_failure_however_many_pairs_show_it",),
        "With enough pairs a rise of a hundredth is beyond doubt.",
    ),
    Mutant(
        "each rule has the whole budget of a shadow",
        _PAIRS,
        '        needed = odds * (len(enforced) + (case.rule.mode != "Enforce"))\n',
        "        needed = odds\n",
        ("unit/test_judging_pairs.py::test_more_rules_need_more_proof_and_observed_ones_take_nothing",),
        "More rules would reject more good revisions.",
    ),
    Mutant(
        "stakes are added up, not averaged",
        _PAIRS,
        "    together = math.fsum(case.stake for case in enforced) / len(enforced)\n",
        "    together = math.fsum(case.stake for case in enforced)\n",
        ("unit/test_judging_pairs.py::test_more_rules_need_more_proof_and_observed_ones_take_nothing",),
        "The same.",
    ),
    Mutant(
        "a few pairs are proof",
        _PAIRS,
        "    return wealth(bucket, first=span[0], stop=span[1], oldest=oldest, starts=starts, enough=enough)\n",
        "    return wealth(bucket, first=span[0], stop=span[1], oldest=oldest, starts=starts, enough=min(1, enough))\n",
        ("unit/test_judging_pairs.py::test_a_few_prove_nothing",),
        "One visitor of a small segment would reject a revision for all.",
    ),
    Mutant(
        "a candidate that answers nothing is not failed",
        _PAIRS,
        "MOST_UNANSWERED = 0.01\n",
        "MOST_UNANSWERED = 1.0\n",
        ("unit/test_judging_pairs.py::test_a_candidate_that_hangs_fails_without_any_rule",),
        "It counts no pair, so no other rule sees it.",
    ),
    Mutant(
        "more than a hundredth unanswered is like any doubt",
        _PAIRS,
        '        return case.say(unsure, _REASON, "more than that, and not in one burst")\n',
        '        return case.say(unsure, "NearBound", "more than that, and not in one burst")\n',
        ("unit/test_judging_pairs.py::test_more_than_a_hundredth_is_not_switched_to_although_chance_may_explain_it",),
        "onInconclusive would switch to what hangs now and then.",
    ),
    Mutant(
        "queries that were sent are enough to end a shadow",
        _PAIRS,
        "    if min(case.size, compared.pairs) < least:\n",
        "    if case.size < least:\n",
        ("unit/test_judging_pairs.py::test_a_shadow_ends_with_as_many_pairs_as_were_asked_for",),
        "A bot's one query would prove a revision.",
    ),
    Mutant(
        "sums of pairs that are no numbers are no error",
        _PAIRS,
        "    if not case.total.usable:\n        return case.say(Verdict.ERROR",
        "    if case.total == PairSums():\n        return case.say(Verdict.ERROR",
        ("unit/test_judging_pairs.py::test_sums_that_are_no_numbers_are_an_error_and_never_pass",),
        "onInconclusive would switch to a candidate whose scores nobody can read.",
    ),
    Mutant(
        "a pod's clock makes buckets without end",
        _PAIRS,
        "    return max(min(buckets), stop - _LONGEST), stop\n",
        "    return min(buckets), stop\n",
        ("unit/test_judging_pairs.py::test_a_clock_that_is_wrong_costs_no_time",),
        "One row of 1970 would stop the operator.",
    ),
    Mutant(
        "scores are taken for symmetric",
        _PAIR_BETS,
        "        costs = [(0.5 - one / 6.0) / (1.0 - one) for one in t]\n",
        "        costs = [0.5 for _ in t]\n",
        ("unit/test_judging_pair_bets.py::test_a_bet_on_scores_is_fair_for_two_values_as_skewed_as_is_assumed",),
        "A candidate that is much better for a few queries would be taken for worse.",
    ),
    Mutant(
        "the spread of scores is rounded down",
        _PAIR_BETS,
        "    return float(2.0 ** math.ceil(",
        "    return float(2.0 ** math.floor(",
        ("unit/test_judging_pair_bets.py::test_a_scale_is_rounded_up_to_a_power_of_two",),
        "Bets would be larger than is fair.",
    ),
)
