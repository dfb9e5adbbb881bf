"""A soak that is compared with what the prior answers at the same moment: who judges a rule, on what, and who sends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from observations import HOUR, NOW, SETTINGS, a_revision, actions, loaded, moved, pod, spec, with_rollout
from observations import seen as seen_without_keys

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import RolloutStatus, Trip
from vectorindex_operator.core.internal_keys import ANNOTATION, InternalKeys
from vectorindex_operator.core.judging.baseline import Baseline
from vectorindex_operator.core.judging.evidence import Counts, PodEvidence, RevisionEvidence
from vectorindex_operator.core.judging.judge import judge
from vectorindex_operator.core.judging.pair_sums import PairSums
from vectorindex_operator.core.judging.questions import Purpose, questions
from vectorindex_operator.core.judging.rules import Rule, RuleVerdict
from vectorindex_operator.core.judging.same_moment import IN_VAIN, SameMoment, baseline_since, is_paired
from vectorindex_operator.core.judging.shadow import PodPairs, Side, same_moment
from vectorindex_operator.core.lifecycle import decide
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_operator.core.plan import Plan, RenewMirrors
from vectorindex_searcher.contract import Evidence, EvidenceBucket, PairCounts, PairEvidence, key_id

B0 = 340_000_000
BUCKETS = 60
"""Five minutes."""
T0, T1 = B0 * 5.0, (B0 + BUCKETS) * 5.0
RISE = Rule("rise", "ZeroResultRate", max_rise_vs_stable=0.5, sequential=True)
DROP = Rule("drop", "TopScore", max_drop_vs_stable=0.05, sequential=True)
EACH = 100
"""Queries a bucket."""


def rates(zero: float, before: float) -> tuple[RevisionEvidence, Baseline]:
    """A soak of which such a share of the queries found nothing, and the frozen quarter of an hour before it."""
    cell = Counts(requests=EACH, queries=EACH, zero_results=round(zero * EACH))
    merged = RevisionEvidence({"": {B0 + at: cell for at in range(BUCKETS)}}, B0 + BUCKETS, 1, (), T1)
    many = Counts(requests=18_000, queries=18_000, zero_results=round(before * 18_000))
    return merged, Baseline(T0 - 900, T0, {"": many})


def of(cell: PairSums, first: int = 0, stop: int = BUCKETS) -> Mapping[str, tuple[tuple[int, PairSums], ...]]:
    return {"": tuple((B0 + at, cell) for at in range(first, stop))}


SENT = PairSums(mirrored=EACH)
ALIKE = PairSums(pairs=EACH, zero_both=20)
WORSE = PairSums(pairs=EACH, zero_both=2, zero_candidate_only=8)


def said(
    pairs: SameMoment | None,
    *,
    zero: float = 0.2,
    before: float = 0.02,
    rules: tuple[Rule, ...] = (RISE,),
    ready_pods: int = 1,
    now: float = T1,
    budget: float = 0.0075,
) -> tuple[RuleVerdict, ...]:
    merged, baseline = rates(zero, before)
    return judge(
        rules,
        merged,
        started_at=T0,
        now=now,
        baseline=baseline,
        alpha_budget=budget,
        horizon_seconds=21_600.0,
        ready_pods=ready_pods,
        steady=False,
        pairs=pairs,
    )


def verdict(pairs: SameMoment | None, **changes: Any) -> tuple[str, str]:
    (one,) = said(pairs, **changes)
    return one.verdict, one.reason


FAILED, PASSED = ("Fail", "BoundExceeded"), ("Pass", "WithinBound")
WAITS = ("Inconclusive", "TooFewSamples")


# ---------------------------------------------------------------- who judges


def test_where_what_users_ask_changes_the_baseline_is_wrong_and_pairs_are_not() -> None:
    assert verdict(None) == FAILED
    assert verdict(SameMoment(of(SENT), of(ALIKE))) == PASSED


def test_and_the_other_way_round() -> None:
    """Before the switch a fifth found nothing; now it is a tenth here, and a fiftieth at the prior."""
    assert verdict(None, zero=0.1, before=0.2) == PASSED
    (one,) = said(SameMoment(of(SENT), of(WORSE)), zero=0.1, before=0.2)
    assert (one.verdict, one.reason) == FAILED
    assert (one.value, one.baseline_value, one.baseline_age_seconds) == (0.1, 0.02, 0.0)
    assert "pairs with the revision before" in one.message


def test_scores_are_compared_as_well() -> None:
    alike = PairSums(
        pairs=EACH, scored=EACH, c_sum=70.0, s_sum=70.0, abs_s_sum=70.0, c_squares=50.0, s_squares=50.0, cs_sum=49.9,
        s_abs_s_sum=50.0, c_abs_s_sum=49.9,
    )  # fmt: skip
    lower = replace(alike, c_sum=60.0, c_squares=37.0, cs_sum=42.5, c_abs_s_sum=42.5)
    for cell, expected in ((alike, PASSED), (lower, FAILED)):
        assert verdict(SameMoment(of(SENT), of(cell)), rules=(DROP,)) == expected


@pytest.mark.parametrize(
    ("rule", "paired"),
    [
        (RISE, True),
        (DROP, True),
        (replace(RISE, sequential=False), False),
        (Rule("zero", "ZeroResultRate", max=0.02, sequential=True), False),
        (Rule("more", "ErrorRate", max_rise_vs_stable=0.5, sequential=True), False),
        (Rule("slow", "LatencyP95", max_rise_vs_stable=0.5, sequential=True), False),
        (Rule("missed", "AnswersMissed", max=0.02, sequential=True), False),
    ],
    ids=lambda one: str(getattr(one, "name", one)),
)
def test_pairs_judge_what_they_can_tell_of_and_no_windows_that_somebody_chose(rule: Rule, paired: bool) -> None:
    assert is_paired(rule) is paired


def since(pairs: SameMoment, *, now: float = T1, first: int = B0) -> int | None:
    """From which bucket on the baseline judges, from the first on."""
    found = baseline_since(RISE, pairs, rates(0.2, 0.02)[0], first, now)
    return None if found is None else found - B0


def test_until_enough_was_sent_the_baseline_judges() -> None:
    assert since(SameMoment({}, {})) == 0
    assert since(SameMoment(of(SENT, 58), of(ALIKE, 58))) is None
    assert since(SameMoment(of(SENT, 59), of(ALIKE, 59))) == 0


def test_what_the_prior_did_not_answer_was_not_sent() -> None:
    for told in ({}, None):
        assert since(SameMoment(of(replace(SENT, unanswered=EACH)), told)) == 0


def test_once_the_prior_answers_no_more_the_baseline_judges_what_came_since() -> None:
    refused = {"": (*of(SENT, 0, 30)[""], *of(replace(SENT, unanswered=EACH), 30)[""])}
    pairs = SameMoment(refused, of(ALIKE, 0, 30))
    assert since(pairs) == 30
    assert since(pairs, now=T0 + 30 * 5 + 50) is None, "not after a moment"
    assert since(SameMoment(of(SENT, 0, 30), None, gone=True)) == 30
    # What was before it is no reproach: the baseline was wrong for all of it, and two windows are needed anew.
    assert verdict(SameMoment(of(SENT, 0, 45), None, gone=True)) != FAILED
    assert verdict(SameMoment(of(SENT, 0, 30), None, gone=True)) == FAILED


def test_an_operator_that_was_away_is_no_prior_that_is_gone() -> None:
    """Nobody was told to send, so nothing was: it is told now."""
    assert since(SameMoment(of(SENT, 0, 30), of(ALIKE, 0, 30))) is None


def test_a_prior_that_lost_its_counts_is_asked_again() -> None:
    told = of(ALIKE, 59)
    assert since(SameMoment(of(SENT), told)) is None
    assert verdict(SameMoment(of(SENT), told)) == WAITS
    assert verdict(SameMoment(of(SENT), of(ALIKE, 57))) == PASSED


def test_one_look_at_which_pods_do_not_tell_is_no_verdict() -> None:
    assert verdict(SameMoment(of(SENT), None)) == WAITS
    assert verdict(SameMoment(None, of(ALIKE))) == PASSED
    assert verdict(SameMoment(None, None)) == WAITS


def test_where_answers_make_no_pairs_the_baseline_judges() -> None:
    """Queries that repeat, lists of deleted ids that differ."""
    repeated = PairSums(repeated=EACH)
    enough = IN_VAIN * RISE.min_samples // EACH
    assert since(SameMoment(of(SENT), of(repeated))) == 0
    assert since(SameMoment(of(SENT), of(repeated, BUCKETS - enough))) == 0
    assert since(SameMoment(of(SENT), of(repeated, BUCKETS - enough + 1))) is None


def test_pods_that_restart_forget_what_they_sent_and_the_pairs_stay() -> None:
    """Or a scale-up, an eviction, an edit of its access would have the baseline judge what pairs had judged."""
    anew = of(SENT, BUCKETS)
    assert since(SameMoment(anew, of(ALIKE))) is None
    assert since(SameMoment({}, of(ALIKE))) is None
    assert verdict(SameMoment({}, of(ALIKE))) == PASSED
    assert verdict(SameMoment({}, of(WORSE)), zero=0.1, before=0.2) == FAILED
    # And what came after the last of them is the baseline's, where the prior answers no more.
    tried = of(replace(SENT, unanswered=EACH), 31)
    assert since(SameMoment(tried, of(ALIKE, 0, 30))) == 30
    # No more than a moment is waited for pairs of queries that all repeat.
    enough = IN_VAIN * RISE.min_samples // EACH
    assert since(SameMoment({}, of(PairSums(repeated=EACH), 0, enough))) == 0


def test_a_prior_whose_sums_are_no_numbers_is_no_measure() -> None:
    assert since(SameMoment(of(SENT), of(replace(ALIKE, s_sum=float("inf"))))) == 0


def test_pods_of_the_revision_itself_that_say_nothing_are_no_pass() -> None:
    found = said(SameMoment(of(SENT), of(ALIKE)), ready_pods=4)
    assert (found[0].verdict, found[0].reason) == ("Error", "EvidenceMissing")
    assert verdict(SameMoment(of(SENT), of(replace(ALIKE, zero_candidate_only=50))), ready_pods=4) == FAILED


def test_neither_has_more_than_half_of_the_level() -> None:
    """Together they have what the rule had. What is bet on, or judged by no pairs, has the same as without them."""

    worse = PairSums(pairs=EACH, zero_both=10, zero_candidate_only=12)

    def proof(budget: float) -> int:
        """Buckets after which pairs fail it."""
        looks = (SameMoment(of(SENT, 0, stop), of(worse, 0, stop)) for stop in range(2, BUCKETS))
        stops = (at for at, pairs in enumerate(looks, 2) if verdict(pairs, now=T0 + at * 5, budget=budget) == FAILED)
        return next(stops)

    assert proof(1e-6) > proof(0.01)
    other = Rule("zero", "ZeroResultRate", max=0.5, sequential=True)
    without, beside = said(None, rules=(other,)), said(SameMoment({}, {}), rules=(other,))
    assert without == beside
    alone = replace(RISE, sequential=False)
    assert said(None, rules=(alone,)) == said(SameMoment(of(SENT), of(ALIKE)), rules=(alone,))
    (halved,), (whole,) = said(SameMoment({}, {}), zero=0.03), said(None, zero=0.03)
    assert halved.confidence_limit is not None
    assert whole.confidence_limit is not None
    assert halved.confidence_limit < whole.confidence_limit


# ---------------------------------------------------------------- what pods tell


def told(
    counts: Mapping[str, Any] | None, judged: str = "new", *, unable: bool = False, reference: str = "old"
) -> PodPairs:
    return PodPairs("pod-1", counts, judged=judged, unable=unable, reference=reference)


def test_who_counts_as_if_it_were_judged_tells_nothing() -> None:
    """An image that knows no mirror after the switch."""
    sender = Side((told(of(SENT), ""),), 1)
    assert same_moment("new", sender, Side((told(of(ALIKE)),), 1)) == SameMoment(of(SENT), of(ALIKE))
    assert same_moment("new", sender, Side((told({}, ""),), 1)) == SameMoment(of(SENT), {})
    for one in (told(of(ALIKE), "old"), told(of(ALIKE), ""), told(None, unable=True)):
        assert same_moment("new", sender, Side((one,), 1)) == SameMoment({}, {})
        assert same_moment("new", sender, Side((told(of(ALIKE)), one), 2)) == SameMoment({}, {}), "nor does half of it"


def test_half_of_the_pods_that_send_are_no_evidence() -> None:
    """An image that refuses the lease answers that it has counted nothing, as one does that nobody has asked."""
    sends, refuses = told(of(SENT), ""), told({}, "", reference="")
    prior = Side((told(of(ALIKE)),), 1)
    assert same_moment("new", Side((sends, refuses), 2), prior) == SameMoment(None, None)
    assert same_moment("new", Side((sends, sends, sends, refuses), 4), prior).sent is not None, "one of many starts"
    assert same_moment("new", Side((refuses, refuses), 2), Side((told({}, ""),), 1)) == SameMoment({}, {})


def test_too_few_pods_that_tell_are_none() -> None:
    silent = Side((told(of(ALIKE)), told(None)), 2)
    assert same_moment("new", Side((told(of(SENT), ""),), 1), silent) == SameMoment(of(SENT), None)
    assert same_moment("new", silent, Side((), 0)) == SameMoment(None, None, gone=True)


# ---------------------------------------------------------------- a pass

MASTER = "a master key of 32 characters..."
KEYED = {"spec": {"template": {"metadata": {"annotations": {ANNOTATION: key_id(MASTER)}}}}}
RULES = [{"name": "rise", "metric": "ZeroResultRate", "maxRiseVsStable": "50%", "warmUp": "0s"}]
SHADOW = {"maxPerSecond": 50, "afterSwitch": True}


def of_spec(shadow: Mapping[str, Any] = SHADOW, rules: Any = RULES) -> Any:
    return spec(index={"factory": "HNSW32"}, rollout={"shadow": shadow}, guardrails={"rules": rules})


STABLE = a_revision(spec(), "Stable", created=NOW - 48 * HOUR)


def soaking(wanted: Any = None, **rollout: Any) -> RevisionView:
    view = a_revision(wanted or of_spec(), "Soaking", created=NOW - 300)
    return with_rollout(view, **{"prior": STABLE.name, "switched_at": to_text(NOW - 300)} | rollout)


def seen(view: RevisionView, **changes: Any) -> Observation:
    obs = seen_without_keys(of_spec(), STABLE, view, traffic=view, **changes)
    keyed = {("Deployment", one): KEYED for one in (STABLE.name, view.name)}
    return replace(obs, objects=keyed | dict(obs.objects))


def run(obs: Observation) -> Plan:
    return decide(obs, replace(SETTINGS, internal_keys=InternalKeys(MASTER)), NOW)


def mirrors(plan: Plan) -> list[RenewMirrors]:
    return actions(plan, RenewMirrors)


def asked(obs: Observation) -> dict[str, str]:
    return {one.revision: one.shadow for one in questions(obs, NOW) if one.purpose is Purpose.SHADOW}


def test_who_soaks_sends_to_the_prior_and_both_are_asked() -> None:
    view = soaking()
    (lease,) = mirrors(run(seen(view)))
    assert (lease.revision, lease.receiver, lease.sender_judged) == (view.name, STABLE.name, True)
    assert (len(lease.addresses), len(lease.receivers), lease.max_per_second) == (2, 2, 25.0)
    assert asked(seen(view)) == {view.name: lease.shadow, STABLE.name: lease.shadow}


def test_what_was_counted_before_this_switch_is_of_another_id() -> None:
    view = soaking()
    (first,), (second,) = (mirrors(run(seen(one))) for one in (view, soaking(switched_at=to_text(NOW - 200))))
    assert first.shadow != second.shadow
    assert not first.shadow.startswith(f"{view.name}-"), "as those of a shadow do"


@pytest.mark.parametrize(
    "wanted",
    [
        of_spec({"maxPerSecond": 50}),
        of_spec({"maxPerSecond": 50, "afterSwitch": False}),
        of_spec({"maxPerSecond": 0, "afterSwitch": True}),
        of_spec(rules=[{"name": "zero", "metric": "ZeroResultRate", "max": "5%"}]),
        of_spec(rules=[RULES[0] | {"window": "10s"}]),
    ],
    ids=["by default", "off", "no rate", "no rule against stable", "windows of its own"],
)
def test_otherwise_nothing_is_sent_and_nobody_asked(wanted: Any) -> None:
    obs = seen(soaking(wanted))
    assert (mirrors(run(obs)), asked(obs)) == ([], {})


def test_without_keys_nothing_is_sent() -> None:
    assert mirrors(decide(seen(soaking()), SETTINGS, NOW)) == []


def test_a_prior_without_a_ready_pod_is_sent_nothing() -> None:
    obs = seen(soaking())
    dead = replace(obs, loaded={**obs.loaded, STABLE.name: loaded(STABLE, pod("a-0", ready=False))})
    assert [one.receivers for one in mirrors(run(dead))] == [()]


def test_it_ends_with_the_soak_and_with_a_trip() -> None:
    view, trip = soaking(), Trip(rule="rise", reason="ZeroResultRate", message="", at=to_text(NOW))
    assert mirrors(run(seen(with_rollout(view, trip=trip)))) == []
    promoted = seen(soaking(switched_at=to_text(NOW - HOUR)), evidence={view.name: evidence(view)})
    plan = run(replace(promoted, pairs=pairs_of(view, promoted)))
    assert "Promoted" in [event.reason for event in plan.events]
    assert [(one.revision, one.max_per_second, one.receivers) for one in mirrors(plan)] == [(view.name, 0.0, ())]


def test_a_rollback_that_a_person_asked_for_and_that_waits_does_not_end_it() -> None:
    asked_for = Trip(rule="Manual", reason="Manual", message="", at=to_text(NOW))
    obs = seen(soaking(trip=asked_for))
    waiting = replace(obs, loaded={**obs.loaded, STABLE.name: loaded(STABLE, pod("a-0", ready=False))})
    assert len(mirrors(run(waiting))) == 1


def evidence(view: RevisionView, zero: int = 200, seconds: float = 3600.0) -> tuple[PodEvidence, ...]:
    rows = tuple(
        EvidenceBucket(bucket=b, segment="other", requests=1000, queries=1000, zero_results=zero, latency={188: 1000})
        for b in range(int((NOW - seconds) // 5), int(NOW // 5))
    )
    pods = [f"{view.name}-{number}" for number in range(2)]
    return tuple(PodEvidence(n, Evidence(pod=n, revision=view.name, now=NOW, buckets=rows), NOW) for n in pods)


def pairs_of(
    view: RevisionView, obs: Observation, *, judged: str = "", sending: int = 2, **counts: int
) -> dict[str, tuple[PodPairs, ...]]:
    """Both sides, in each bucket of five minutes; `counts`: the prior's; `sending`: so many of the two pods send."""
    sides = {view.name: {"mirrored": 100}, STABLE.name: counts or {"pairs": 100, "zero_both": 20}}
    found = {}
    for name, fields in sides.items():
        rows = [
            PairCounts(bucket=b, segment=segment, **fields)
            for b in range(int((NOW - 300) // 5), int(NOW // 5))
            for segment in ("", "other")
        ]
        whole = PairEvidence(
            pod="p", revision=name, incarnation="i", now=NOW, shadow=asked(obs)[name],
            judged=(judged or view.name) if name == STABLE.name else "", reference=STABLE.name, rows=tuple(rows),
        )  # fmt: skip
        refuses = whole.model_copy(update={"reference": "", "rows": ()})
        told = [whole if number < sending or name == STABLE.name else refuses for number in range(2)]
        found[name] = tuple(PodPairs.of(f"{name}-{number}", one, NOW) for number, one in enumerate(told))
    return found


def frozen(zero: int) -> dict[str, object]:
    many = Counts(requests=10_000, queries=10_000, zero_results=zero)
    return Baseline(NOW - 1200, NOW - 300, {"": many, "other": many}).to_wire()


def test_a_soak_is_judged_by_its_pairs() -> None:
    view = soaking(baseline=frozen(200), baseline_at=to_text(NOW - 300))
    obs = seen(view, evidence={view.name: evidence(view)})
    assert moved(run(replace(obs, pairs=pairs_of(view, obs)))) == []
    assert moved(run(replace(obs, pairs={}))) == [], "nobody has told yet"
    assert moved(run(replace(obs, pairs=pairs_of(view, obs, pairs=100, zero_candidate_only=20)))) == [STABLE.name]
    # Pairs of an image that takes itself for the one that is judged are none: the baseline judges.
    assert moved(run(replace(obs, pairs=pairs_of(view, obs, judged=STABLE.name)))) == [STABLE.name]


def not_compared(plan: Plan) -> list[str]:
    """What the status says of it, and the condition."""
    rows = [row.message for row in plan.status.blocked_by if row.rule == "NotCompared"]
    (rolled_out,) = [one.message for one in plan.status.conditions if one.type == "RolledOut"]
    assert all(row in rolled_out for row in rows)
    return rows


def test_images_of_before_are_told_in_a_condition() -> None:
    view = soaking(baseline=frozen(200), baseline_at=to_text(NOW - 300))
    obs = seen(view, evidence={view.name: evidence(view, zero=20)})
    assert not_compared(run(replace(obs, pairs=pairs_of(view, obs)))) == []
    assert not_compared(run(replace(obs, pairs={}))) == [], "nobody has told yet"
    (turned,) = not_compared(run(replace(obs, pairs=pairs_of(view, obs, judged=STABLE.name))))
    assert f"searchers of {STABLE.name} know no mirror" in turned
    nothing = tuple(replace(one, counts={}, judged="", reference="") for one in pairs_of(view, obs)[view.name])
    (refused,) = not_compared(run(replace(obs, pairs={view.name: nothing, STABLE.name: nothing})))
    assert f"searchers of {view.name} know no mirror" in refused
    early = soaking(baseline=frozen(200), baseline_at=to_text(NOW - 300), switched_at=to_text(NOW - 10))
    shortly = seen(early, evidence={early.name: evidence(early, zero=20)})
    pairs = {early.name: nothing, STABLE.name: nothing}
    assert not_compared(run(replace(shortly, pairs=pairs))) == [], "nobody was told to send yet"


def test_half_of_the_pods_judge_nothing_and_that_is_told() -> None:
    """Neither do they promote on pairs that the others may be worse than."""
    view = soaking(baseline=frozen(200), baseline_at=to_text(NOW - 300), switched_at=to_text(NOW - HOUR))
    obs = seen(view, evidence={view.name: evidence(view)})
    whole, half = (run(replace(obs, pairs=pairs_of(view, obs, sending=sending))) for sending in (2, 1))
    assert "Promoted" in [event.reason for event in whole.events]
    assert "Promoted" not in [event.reason for event in half.events]
    assert moved(half) == []
    (said,) = not_compared(half)
    assert f"send nothing to {STABLE.name}" in said


def test_without_it_a_soak_is_judged_as_before() -> None:
    view = soaking(of_spec({"maxPerSecond": 50}), baseline=frozen(200), baseline_at=to_text(NOW - 300))
    assert moved(run(seen(view, evidence={view.name: evidence(view)}))) == [STABLE.name]


def test_a_status_says_nothing_of_it_where_the_spec_does_not() -> None:
    """So that a release from before reads it as its own."""
    rollout = soaking(of_spec({"maxPerSecond": 50})).status.rollout
    assert rollout is not None
    assert "afterSwitch" not in str(rollout.wire())
    mine = soaking().status.rollout
    assert mine is not None
    assert RolloutStatus.read(mine.wire()).settings.mirrors_after_switch
