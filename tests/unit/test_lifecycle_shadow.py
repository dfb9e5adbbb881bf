"""Shadow before the switch: what begins it, what each verdict leads to, and what befalls it on the way."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
from observations import (
    HOUR,
    NEW_DATA,
    NOW,
    SETTINGS,
    a_revision,
    actions,
    after,
    front,
    loaded,
    merged,
    moved,
    pod,
    spec,
)
from observations import seen as seen_without_keys
from raw_objects import Silent, at_once

from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import (
    RevisionStatus,
    RolloutStatus,
    RuleVerdict,
    Shadow,
    ShadowStatus,
    Trip,
    VectorIndexSpec,
)
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.internal_keys import ANNOTATION, Addressee, InternalKeys
from vectorindex_operator.core.judging.questions import Purpose, questions
from vectorindex_operator.core.judging.shadow import PodPairs
from vectorindex_operator.core.lifecycle import decide
from vectorindex_operator.core.loaded import LoadedRevision, PodView
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_operator.core.plan import (
    DeleteSearchers,
    EnsureSearchers,
    MoveTraffic,
    Plan,
    RenewLeases,
    RenewMirrors,
    WriteRevisionStatus,
)
from vectorindex_operator.core.traffic import Decision, DecisionKind
from vectorindex_operator.reconcile.looks import Looks
from vectorindex_searcher.contract import PairCounts, PairEvidence, key_id

RULES = [
    {"name": "errors", "metric": "ErrorRate", "max": "5%"},
    {"name": "zero", "metric": "ZeroResultRate", "max": "10%"},
]
SHADOW = {"maxPerSecond": 50, "duration": "1m", "minQueries": 300, "maxDuration": "10m"}


def wanted(shadow: dict[str, Any] | None = None, factory: str = "HNSW32") -> VectorIndexSpec:
    return spec(
        index={"factory": factory}, rollout={"shadow": merged(SHADOW, shadow or {})}, guardrails={"rules": RULES}
    )


OLD, NEW = spec(), wanted()
STABLE = a_revision(OLD, "Stable", created=NOW - 48 * HOUR)
NAME = a_revision(NEW, "Surging").name
ID = f"{NAME}-7"
LATE = 700.0
"""Seconds: longer than maxDuration."""
MASTER = "a master key of 32 characters..."
KEYED = {"spec": {"template": {"metadata": {"annotations": {ANNOTATION: key_id(MASTER)}}}}}
"""A Deployment whose pods have a key: without, no revision shadows another."""


def seen(of: VectorIndexSpec, *revisions: RevisionView, **changes: Any) -> Observation:
    """A quiet world, in which every revision has a key."""
    obs = seen_without_keys(of, *revisions, **changes)
    return replace(obs, objects={("Deployment", one.name): KEYED for one in revisions} | dict(obs.objects))


def run(obs: Observation, now: float = NOW) -> Plan:
    """The decision of one pass, with that key."""
    return decide(obs, replace(SETTINGS, internal_keys=InternalKeys(MASTER)), now)


def shadowing(elapsed: float = 120.0, shadow: dict[str, Any] | None = None, **fields: Any) -> RevisionView:
    """The candidate, in shadow of STABLE for so long, looked at a moment ago."""
    view = a_revision(wanted(shadow), "Shadowing", created=NOW - elapsed)
    rollout = view.status.rollout
    assert rollout is not None
    begun = ShadowStatus(
        id=ID, reference=STABLE.name, started_at=to_text(NOW - elapsed), looked_at=to_text(NOW - 5)
    ).model_copy(update=fields)
    rollout = rollout.model_copy(update={"shadow": begun, "prior": STABLE.name})
    return replace(view, status=view.status.model_copy(update={"rollout": rollout}))


def told(view: RevisionView, each: int, elapsed: float, pods: int = 2, **counts: int) -> tuple[PodPairs, ...]:
    """What its pods counted in each bucket since then, of one segment; half of that overall. `each` 0: nothing."""
    first, stop = int((NOW - elapsed) // 5), int(NOW // 5)
    rows = [
        PairCounts(bucket=number, segment=segment, **{name: count // half for name, count in counts.items()})
        for number in range(first, stop if each else first)
        for segment, half in (("other", 1), ("", 2))
    ]
    evidence = PairEvidence(
        pod="p", revision=view.name, incarnation="i", now=NOW, shadow=ID, reference=STABLE.name, rows=tuple(rows)
    )
    return tuple(PodPairs.of(f"{view.name}-{number}", evidence, NOW) for number in range(pods))


def in_shadow(
    view: RevisionView | None = None, *, each: int = 100, unanswered: int = 0, zero: int = 0, **changes: Any
) -> Observation:
    """STABLE serves. Each of its two pods sent `each` queries in each bucket, of which so many were not answered, or
    found nothing where STABLE did."""
    view = view or shadowing()
    shadow = view.status.rollout.shadow if view.status.rollout else None
    elapsed = NOW - to_unix(shadow.started_at) if shadow is not None else 0.0
    pairs = {
        STABLE.name: told(STABLE, each, elapsed, mirrored=each, unanswered=unanswered),
        view.name: told(view, each, elapsed, pairs=each - unanswered, zero_candidate_only=zero),
    }
    of = changes.pop("of", NEW)
    return seen(of, STABLE, view, traffic=STABLE, **{"pairs": pairs, **changes})


def status_of(plan: Plan, name: str = NAME) -> RevisionStatus:
    return next(one.status for one in actions(plan, WriteRevisionStatus) if one.revision == name)


def wrote(plan: Plan) -> set[str]:
    return {one.revision for one in actions(plan, WriteRevisionStatus)}


def reasons(plan: Plan) -> list[str]:
    return [event.reason for event in plan.events]


def rates(plan: Plan) -> list[float]:
    """What the pods that send are told: so many queries a second, each."""
    return [one.max_per_second for one in actions(plan, RenewMirrors)]


def rows(plan: Plan) -> list[str]:
    return [row.rule for row in plan.status.blocked_by]


def asks(obs: Observation, name: str, nonce: str, argument: str = "") -> Observation:
    return replace(obs, index=replace(obs.index, commands=(Command(name, argument, nonce),)))


def looks(obs: Observation, seconds: float) -> tuple[Observation, Plan]:
    """The same world after looks at it for so long, and the last of them."""
    plan, now = run(obs), NOW
    while now < NOW + seconds:
        obs, now = after(obs, plan), min(now + 50.0, NOW + seconds)
        plan = run(obs, now)
    return after(obs, plan), plan


def with_pods(obs: Observation, view: RevisionView, *pods: PodView, unready_since: float | None = None) -> Observation:
    return replace(obs, loaded={**obs.loaded, view.name: loaded(view, *pods, unready_since=unready_since)})


# ---------------------------------------------------------------- its beginning


def test_without_a_rate_there_is_no_shadow() -> None:
    of = spec(index={"factory": "HNSW32"})
    surging = a_revision(of, "Surging", created=NOW - 60)
    plan = run(seen(of, STABLE, surging, traffic=STABLE))
    assert (moved(plan), rates(plan)) == ([surging.name], [])
    status = status_of(plan, surging.name)
    assert (status.phase, status.rollout and status.rollout.shadow) == ("Soaking", None)
    assert [one for one in reasons(plan) if one.startswith("Shadow")] == []


def test_by_default_there_is_one_but_in_a_rollout_that_a_release_began_which_knew_none() -> None:
    surging = a_revision(spec(index={"factory": "HNSW32"}, rollout={"shadow": Shadow().wire()}), "Surging")
    obs = seen(OLD, STABLE, surging, traffic=STABLE)
    obs = replace(obs, index=replace(obs.index, spec=wanted()))
    assert status_of(run(obs), surging.name).phase == "Shadowing"
    rollout = surging.status.rollout
    assert rollout is not None
    raw = rollout.wire()
    del raw["settings"]["shadow"]  # type: ignore[attr-defined]
    status = surging.status.model_copy(update={"rollout": RolloutStatus.read(raw)})
    plan = run(replace(obs, revisions={**obs.revisions, surging.name: replace(surging, status=status)}))
    assert (moved(plan), [one for one in reasons(plan) if one.startswith("Shadow")]) == ([surging.name], [])


def test_a_candidate_whose_pods_are_ready_goes_into_shadow() -> None:
    surging = a_revision(NEW, "Surging", created=NOW - 60)
    plan = run(seen(NEW, STABLE, surging, traffic=STABLE))
    assert moved(plan) == []
    status = status_of(plan)
    assert status.rollout is not None
    shadow = status.rollout.shadow
    assert shadow is not None
    assert (status.phase, shadow.reference, shadow.started_at) == ("Shadowing", STABLE.name, to_text(NOW))
    (lease,) = actions(plan, RenewMirrors)
    assert (lease.revision, lease.receiver, lease.shadow) == (STABLE.name, surging.name, shadow.id)
    assert (len(lease.addresses), len(lease.receivers), lease.max_per_second) == (2, 2, 25.0)
    assert EventReason.SHADOWING in reasons(plan)
    assert plan.requeue_after <= 5.0
    assert {one.revision for one in actions(plan, EnsureSearchers)} == {STABLE.name, surging.name}


def test_one_whose_pods_are_not_ready_does_not() -> None:
    surging = a_revision(NEW, "Surging", created=NOW - 60)
    obs = with_pods(seen(NEW, STABLE, surging, traffic=STABLE), surging, pod("a"), pod("b", ready=False))
    plan = run(obs)
    assert (plan.status.phase, rates(plan)) == ("Surging", [])


def test_who_is_in_shadow_is_told_nothing_about_the_traffic() -> None:
    told_to = {one.revision for one in actions(run(in_shadow(shadowing(elapsed=50.0))), RenewLeases)}
    assert told_to == {STABLE.name}


def test_what_judges_answers_has_their_exact_scores() -> None:
    rule = {"name": "changed", "metric": "AnswersChanged", "max": "5%"}
    of = spec(index={"factory": "HNSW32"}, rollout={"shadow": SHADOW}, guardrails={"rules": [rule]})
    surging = a_revision(of, "Surging", created=NOW - 60)
    plan = run(seen(of, STABLE, surging, traffic=STABLE))
    live_recall = {one.revision: one.live_recall for one in actions(plan, EnsureSearchers)}
    assert live_recall == {STABLE.name: False, surging.name: True}
    soaking = a_revision(of, "Soaking", created=NOW - 60)
    (mine,) = (one for one in actions(run(seen(of, soaking, traffic=soaking)), EnsureSearchers))
    assert mine.live_recall, "or its pods would be replaced right after the switch"


class Telling(Silent):
    """Searchers that say whom they were asked about."""

    def pairs(self, to: Addressee, pods: Iterable[tuple[str, str]], shadow: str) -> Future[tuple[PodPairs, ...]]:
        return at_once((PodPairs(f"{to.target.revision} of {shadow}", None),))


def test_both_sides_are_asked_for_their_pairs() -> None:
    obs = in_shadow(pairs={})
    looks = Looks(Telling())
    seen_by_it = looks.told(("team-a", "docs"), obs, NOW)
    told_by = {name: [one.pod for one in pods] for name, pods in seen_by_it.pairs.items()}
    assert told_by == {name: [f"{name} of {ID}"] for name in (STABLE.name, NAME)}
    assert seen_by_it.evidence == {}
    elsewhere = replace(obs, traffic=front(obs.revisions[NAME]))
    unreadable = replace(obs, index=replace(obs.index, spec=None))
    for one in (elsewhere, unreadable, in_shadow(shadowing(ended_at=to_text(NOW)))):
        assert [q for q in questions(one, NOW) if q.purpose is Purpose.SHADOW] == []


# ---------------------------------------------------------------- what the verdicts lead to


def test_what_passes_gets_the_traffic_when_its_time_is_over() -> None:
    early = run(in_shadow(shadowing(elapsed=50.0)))
    assert (moved(early), rates(early), early.requeue_after) == ([], [25.0], 5.0)
    plan = run(in_shadow())
    assert moved(plan) == [NAME]
    status = status_of(plan)
    assert status.rollout is not None
    assert status.rollout.shadow is not None
    assert (status.phase, status.rollout.shadow.outcome) == ("Soaking", "Passed")
    assert EventReason.SHADOW_PASSED in reasons(plan)
    assert rates(plan) == [0.0], "stable's pods are told to stop"


def test_a_look_that_says_the_same_writes_nothing() -> None:
    obs = in_shadow(shadowing(elapsed=50.0))
    first = run(obs)
    assert NAME in wrote(first)
    assert wrote(run(after(obs, first), NOW + 5)) == set()


@pytest.mark.parametrize(("changes", "reason"), [
    ({"zero": 40}, "ZeroResultRate"),
    ({"unanswered": 40}, "ErrorRate"),
])  # fmt: skip
def test_what_is_worse_beyond_doubt_is_rejected_and_stable_untouched(changes: dict[str, int], reason: str) -> None:
    plan = run(in_shadow(**changes))
    assert moved(plan) == []
    status = status_of(plan)
    assert status.rejected is not None
    assert (status.phase, status.rejected.stage, status.rejected.reason) == ("Rejected", "Shadow", reason)
    assert wrote(plan) == {NAME}
    assert (plan.status.phase, plan.status.reason, plan.status.candidate) == ("Rejected", reason, "")
    assert rates(plan) == [0.0]
    assert [one.revision for one in actions(plan, DeleteSearchers)] == [NAME]
    assert EventReason.REJECTED in reasons(plan)


def test_a_rejection_in_shadow_is_remembered_until_somebody_says_retry() -> None:
    obs = in_shadow(zero=40)
    obs = after(obs, run(obs))
    obs = replace(obs, loaded={STABLE.name: loaded(STABLE)}, pairs={})
    later = run(obs, NOW + HOUR)
    assert (moved(later), later.status.candidate, later.status.next) == ([], "", "")
    again = status_of(run(asks(obs, "retry", "n1")))
    assert (again.rejected, again.rollout, again.phase != "Rejected") == (None, None, True)


def test_what_only_observes_rejects_nothing() -> None:
    rules = [RULES[0], {**RULES[1], "mode": "Observe"}]
    view = shadowing()
    rollout = view.status.rollout
    assert rollout is not None
    guardrails = spec(guardrails={"rules": rules}).guardrails
    rollout = rollout.model_copy(update={"guardrails": guardrails})
    view = replace(view, status=view.status.model_copy(update={"rollout": rollout}))
    assert moved(run(in_shadow(view, zero=40))) == [NAME]


def test_more_than_a_hundredth_unanswered_waits_and_is_then_rejected() -> None:
    """Within what the rule on errors allows; beyond doubt or not."""
    for elapsed in (120.0, 500.0):
        early = run(in_shadow(shadowing(elapsed=elapsed), unanswered=3))
        assert (moved(early), status_of(early).phase, rows(early)) == ([], "Shadowing", ["ShadowHolds"])
    for elapsed, longest in ((LATE, "10m"), (130.0, "2m")):
        plan = run(in_shadow(shadowing(elapsed=elapsed, shadow={"maxDuration": longest}), unanswered=3))
        status = status_of(plan)
        assert status.rejected is not None
        assert (moved(plan), status.rejected.stage, status.rejected.reason) == ([], "Shadow", "Unanswered")


@pytest.mark.parametrize("mute", [STABLE.name, NAME])
def test_pods_that_do_not_tell_keep_it_from_the_traffic(mute: str) -> None:
    obs = in_shadow(shadowing(elapsed=LATE))
    silent = tuple(PodPairs(f"{mute}-{number}", None, "no whole answer within 2 s") for number in range(2))
    obs = replace(obs, pairs={**obs.pairs, mute: silent})
    first = run(obs)
    assert (moved(first), status_of(first).phase) == ([], "Shadowing"), "one look may miss pods"
    _, second = looks(after(obs, first), 590)
    assert moved(second) == []
    assert rows(second) == ["ShadowHolds"]
    _, third = looks(after(obs, first), 600)
    last = status_of(third)
    assert last.rejected is not None
    assert (last.rejected.stage, last.rejected.reason) == ("Shadow", "EvidenceMissing")


def test_what_nobody_could_judge_is_not_held_against_it_for_a_time_in_which_nobody_looked() -> None:
    obs = in_shadow(shadowing(elapsed=LATE))
    silent = tuple(PodPairs(f"{NAME}-{number}", None, "no whole answer within 2 s") for number in range(2))
    obs = replace(obs, pairs={**obs.pairs, NAME: silent})
    obs = after(obs, run(obs))
    back = run(obs, NOW + 1000)
    assert (moved(back), status_of(back).phase) == ([], "Shadowing")


def test_time_in_which_no_operator_was_there_is_no_part_of_a_shadow() -> None:
    obs = in_shadow(shadowing(elapsed=LATE, looked_at=to_text(NOW - 640)), each=2)
    back = run(obs)
    assert (moved(back), rates(back)) == ([], [25.0])
    rollout = status_of(back).rollout
    assert rollout is not None
    assert rollout.shadow is not None
    assert (rollout.shadow.paused_seconds, rollout.shadow.resumed_at) == (pytest.approx(640, abs=1), to_text(NOW))
    assert moved(looks(after(obs, back), 520)[1]) == []
    assert moved(looks(after(obs, back), 545)[1]) == [NAME], "60 s before, and 540 s now"


def test_an_operator_that_comes_and_goes_does_not_keep_a_shadow_for_ever() -> None:
    for pauses, expected in ((2, []), (3, [NAME])):
        view = shadowing(elapsed=LATE, pauses=pauses, looked_at=to_text(NOW - 690))
        assert moved(run(in_shadow(view, each=0))) == expected


def test_a_look_is_written_down_now_and_then() -> None:
    obs = in_shadow(shadowing(elapsed=50.0, shadow={"duration": "5m"}))
    obs = after(obs, run(obs))
    assert wrote(run(obs, NOW + 54)) == set()
    assert NAME in wrote(run(obs, NOW + 56))


def test_where_deleted_ids_differ_for_good_it_does_not_wait_for_the_end_of_its_time() -> None:
    def differing(elapsed: float, pairs: int = 0, **shadow: Any) -> Plan:
        view = shadowing(elapsed=elapsed, shadow=shadow)
        obs = in_shadow(view)
        counted = told(view, 100, elapsed, pairs=pairs, other_deleted=100 - pairs)
        return run(replace(obs, pairs={**obs.pairs, NAME: counted}))

    assert moved(differing(110.0)) == [], "pods read the list again within seconds"
    assert moved(differing(130.0, onInconclusive="Hold")) == []
    assert moved(differing(130.0, duration="5m")) == []
    plan = differing(130.0)
    assert moved(plan) == [NAME]
    (said,) = [event for event in plan.events if event.reason is EventReason.SHADOW_INCONCLUSIVE]
    assert "queries made none, since the two have other deleted ids" in said.message
    assert EventReason.SHADOW_PASSED in reasons(differing(130.0, pairs=50))


def told_for(seconds: float, **fields: Any) -> RevisionView:
    """The candidate, in shadow for 65 s, whose pods and STABLE's were first heard so long ago."""
    row = RuleVerdict(rule="pairs", metric="Pairs", verdict="Pass", reason="Told", at=to_text(NOW - seconds))
    return shadowing(elapsed=65.0, verdicts=(row,), **fields)


@pytest.mark.parametrize(("each", "least", "expected"), [
    (0, 1, [NAME]),
    (1, 300, [NAME]),
    (2, 300, []),
    (2, 2000, [NAME]),
])  # fmt: skip
def test_where_hardly_anybody_asks_it_does_not_wait_for_the_end_of_its_time(
    each: int, least: int, expected: list[str]
) -> None:
    """Two a bucket are 52 pairs in a minute, half of them overall: 927 more in nine, were they asked four times as
    often."""
    obs = in_shadow(told_for(60.0, shadow={"minQueries": least}), each=each)
    plan = run(obs)
    assert moved(plan) == expected
    assert (EventReason.SHADOW_INCONCLUSIVE in reasons(plan)) == bool(expected)
    held = run(in_shadow(told_for(60.0, shadow={"minQueries": least, "onInconclusive": "Hold"}), each=each))
    assert moved(held) == []


def test_a_bot_that_asks_the_same_again_is_hardly_anybody() -> None:
    view = told_for(60.0)
    obs = in_shadow(view, each=20)
    asked_again = told(view, 20, 65.0, pairs=0, repeated=20)
    assert moved(run(replace(obs, pairs={**obs.pairs, NAME: asked_again}))) == [NAME]
    assert moved(run(replace(obs, pairs={**obs.pairs, NAME: told(view, 20, 65.0, warming=20)}))) == []


def test_what_nobody_looked_at_for_its_duration_is_not_given_up_early() -> None:
    """The operator died before it had told anybody to send, or was away since."""
    for view in (shadowing(elapsed=65.0), told_for(55.0), told_for(60.0, resumed_at=to_text(NOW - 30))):
        assert moved(run(in_shadow(view, each=0))) == []


def test_what_answered_none_of_a_few_queries_is_waited_for() -> None:
    """All of them within ten seconds, which are left out of any verdict."""
    view = told_for(60.0)
    obs = in_shadow(view, each=0)
    for unanswered, expected in ((2, []), (0, [NAME])):
        sent = told(STABLE, 2, 10.0, mirrored=2, unanswered=unanswered)
        assert moved(run(replace(obs, pairs={**obs.pairs, STABLE.name: sent}))) == expected


def test_pods_that_cannot_reach_each_other_are_nobodys_fault() -> None:
    """A NetworkPolicy that lets the operator to the admin port, and no searcher."""

    def apart(view: RevisionView, unreached: int) -> Plan:
        obs = in_shadow(view, each=0)
        sent = told(STABLE, 20, 65.0, mirrored=20, unanswered=20, unreached=unreached)
        return run(replace(obs, pairs={**obs.pairs, STABLE.name: sent}))

    plan = apart(told_for(60.0, shadow={"onInconclusive": "Hold"}), 20)
    assert skipped(plan) == ([NAME], "CannotMirror")
    early = apart(told_for(55.0), 20)
    assert (moved(early), status_of(early).phase, rows(early)) == ([], "Shadowing", [])
    assert status_of(apart(told_for(60.0), 18)).phase == "Rejected", "some found one, and no answer"


def test_one_silent_pod_of_four_is_not_waited_for() -> None:
    obs = in_shadow()
    four = {name: loaded(view, *(pod(f"{name}-{n}") for n in range(4))) for name, view in obs.revisions.items()}
    of = merged(NEW.wire(), {"searcher": {"replicas": 4}})
    obs = replace(obs, loaded=four, index=replace(obs.index, spec=VectorIndexSpec.model_validate(of)))
    three = {name: told(view, 100, 120.0, 3, pairs=100, mirrored=100) for name, view in obs.revisions.items()}
    assert moved(run(replace(obs, pairs=three))) == [NAME]
    two = {name: pods[:2] for name, pods in three.items()}
    assert moved(run(replace(obs, pairs=two))) == []


@pytest.mark.parametrize("each", [0, 1])
def test_too_few_queries_end_as_on_inconclusive_says(each: int) -> None:
    waits = run(in_shadow(shadowing(elapsed=300.0), each=each))
    assert (moved(waits), rates(waits)) == ([], [25.0])
    plan = run(in_shadow(shadowing(elapsed=LATE), each=each))
    assert moved(plan) == [NAME]
    (said,) = [event for event in plan.events if event.reason is EventReason.SHADOW_INCONCLUSIVE]
    assert "without a verdict on" in said.message
    assert said.warning
    held = run(in_shadow(shadowing(elapsed=LATE, shadow={"onInconclusive": "Hold"}), each=each))
    assert (moved(held), rows(held), rates(held)) == ([], ["ShadowInconclusive"], [25.0])


def test_what_holds_gives_its_place_to_what_is_proven_next() -> None:
    """New data would wait for ever."""
    hold = {"onInconclusive": "Hold"}
    proven = a_revision(wanted(hold), "Validated", data=NEW_DATA)
    for elapsed, phase in ((300.0, "Shadowing"), (LATE, "Superseded")):
        candidate = shadowing(elapsed=elapsed, shadow=hold)
        obs = in_shadow(candidate, each=0, of=wanted(hold))
        obs = replace(obs, revisions={**obs.revisions, proven.name: proven})
        plan = run(obs)
        now = after(obs, plan).revisions[NAME].status.phase
        assert (now, moved(plan)) == (phase, [])


# ---------------------------------------------------------------- nothing to compare with


def skipped(plan: Plan) -> tuple[list[str], str]:
    (event,) = [event for event in plan.events if event.reason is EventReason.SHADOW_SKIPPED]
    return moved(plan), event.message.partition(":")[0]


def test_the_first_revision_has_no_shadow() -> None:
    surging = a_revision(NEW, "Surging", created=NOW - 60)
    assert skipped(run(seen(NEW, surging))) == ([NAME], "NoReference")


def tripped(view: RevisionView, rule: str = "errors") -> RevisionView:
    rollout = view.status.rollout
    assert rollout is not None
    trip = Trip(rule=rule, reason="ErrorRate", message="9 % of requests failed", at=to_text(NOW - 60))
    rollout = rollout.model_copy(update={"trip": trip})
    return replace(view, status=view.status.model_copy(update={"rollout": rollout}))


@pytest.mark.parametrize("phase", ["Surging", "Shadowing"])
def test_what_tripped_is_no_measure_and_holds_up_no_cure(phase: str) -> None:
    candidate = shadowing() if phase == "Shadowing" else a_revision(NEW, "Surging", created=NOW - 60)
    plan = run(seen(NEW, tripped(STABLE), candidate, traffic=STABLE))
    assert skipped(plan) == ([NAME], "NoReference")


def test_neither_is_what_is_on_its_way_out() -> None:
    outgoing = a_revision(spec(index={"factory": "Flat"}), "Outgoing", created=NOW - HOUR)
    outgoing = replace(outgoing, status=outgoing.status.model_copy(update={"rollout": STABLE.status.rollout}))
    surging = a_revision(NEW, "Surging", created=NOW - 60)
    obs = seen(NEW, surging, outgoing, traffic=outgoing)
    obs = replace(obs, loaded={**obs.loaded, outgoing.name: loaded(outgoing)})
    assert skipped(run(obs)) == ([NAME], "NoReference")


@pytest.mark.parametrize("elapsed", [30.0, LATE])
def test_stable_that_dies_in_shadow_does_not_hold_up_what_would_answer(elapsed: float) -> None:
    obs = in_shadow(shadowing(elapsed=elapsed))
    gone = [pod(f"s{number}", ready=False) for number in range(2)]
    for unready, expected in ((5.0, []), (11.0, [NAME])):
        silent = replace(with_pods(obs, STABLE, *gone, unready_since=NOW - unready), pairs={STABLE.name: (), NAME: ()})
        plan = run(silent)
        assert moved(plan) == expected
        assert after(silent, plan).revisions[NAME].status.rejected is None
    assert skipped(plan) == ([NAME], "NoReference")


def test_stable_whose_deployment_is_gone_neither() -> None:
    obs = in_shadow(shadowing(elapsed=30.0))
    obs = replace(obs, loaded={NAME: obs.loaded[NAME]}, pairs={})
    assert skipped(run(obs)) == ([NAME], "NoReference")


@pytest.mark.parametrize("unable", [STABLE.name, NAME])
def test_an_image_that_knows_no_shadow_is_switched_without_one(unable: str) -> None:
    obs = in_shadow(shadowing(elapsed=6.0), each=0)
    old = tuple(PodPairs(f"{unable}-{number}", None, "it answers with status 404", True) for number in range(2))
    assert skipped(run(replace(obs, pairs={**obs.pairs, unable: old}))) == ([NAME], "CannotMirror")


def test_a_skipped_shadow_is_told_once() -> None:
    surging = a_revision(NEW, "Surging", created=NOW - 60)
    obs = seen(NEW, tripped(STABLE), surging, traffic=STABLE)
    refused = replace(obs, traffic=replace(obs.traffic, refused="403"))
    first = run(refused)
    assert (moved(first), status_of(first).phase) == ([], "Surging")
    assert EventReason.SHADOW_SKIPPED not in reasons(run(after(refused, first), NOW + 5))


@pytest.mark.parametrize("with_keys", [(STABLE.name,), (NAME,), (), (STABLE.name, NAME)], ids=str)
def test_revisions_of_which_one_has_no_key_are_switched_without_a_shadow(with_keys: tuple[str, ...]) -> None:
    obs = seen_without_keys(NEW, STABLE, a_revision(NEW, "Surging", created=NOW - 60), traffic=STABLE)
    obs = replace(obs, objects={("Deployment", name): KEYED for name in with_keys})
    if len(with_keys) == 2:
        assert status_of(run(obs)).phase == "Shadowing"
        obs = replace(obs, objects={})
    assert skipped(run(obs)) == ([NAME], "CannotMirror")


# ---------------------------------------------------------------- what befalls it on the way


def test_a_deadline_of_the_surge_is_none_of_the_shadow() -> None:
    for before in (a_revision(NEW, "Surging", created=NOW - 60), shadowing(elapsed=50.0)):
        rollout = before.status.rollout
        assert rollout is not None
        rollout = rollout.model_copy(update={"progress_since": to_text(NOW - 500)})
        view = replace(before, status=before.status.model_copy(update={"rollout": rollout}))
        after_it = status_of(run(seen(NEW, STABLE, view, traffic=STABLE)))
        assert after_it.rollout is not None
        assert (after_it.phase, after_it.rollout.progress_since) == ("Shadowing", None)


def test_a_pod_that_is_lost_keeps_it_from_the_traffic_until_there_is_another() -> None:
    obs = in_shadow(shadowing(elapsed=50.0))
    lame = with_pods(obs, obs.revisions[NAME], pod(f"{NAME}-0"), pod(f"{NAME}-1", ready=False))
    lame = replace(lame, pairs={**obs.pairs, NAME: obs.pairs[NAME][:1]})
    plan = run(lame)
    assert (moved(plan), status_of(plan).phase, rates(plan)) == ([], "Shadowing", [25.0])
    counted = status_of(plan).rollout
    assert counted is not None
    assert counted.progress_since == to_text(NOW), "its deadline begins when it lost a pod, not when it began to surge"
    assert run(after(lame, plan), NOW + 590).status.phase == "Shadowing"
    failed = status_of(run(after(lame, plan), NOW + 601))
    assert failed.rejected is not None
    assert (failed.phase, failed.rejected.stage) == ("SurgeFailed", "Surge")
    whole = replace(after(lame, plan), loaded=obs.loaded, pairs=obs.pairs)
    assert moved(run(whole, NOW + 70)) == [NAME]


def test_pods_that_are_loaded_again_have_their_deadline() -> None:
    """Of an operator that knew no shadow, and removed them; or their node was lost."""
    obs = in_shadow(shadowing(elapsed=LATE), each=0)
    gone = replace(obs, loaded={STABLE.name: obs.loaded[STABLE.name]}, pairs={**obs.pairs, NAME: ()})
    for seconds in (0, 70, 650):
        plan = run(gone, NOW + seconds)
        gone = after(gone, plan)
        assert (moved(plan), gone.revisions[NAME].status.phase) == ([], "Shadowing")
        assert NAME in {one.revision for one in actions(plan, EnsureSearchers)}


def test_a_fault_is_seen_while_a_pod_is_away() -> None:
    obs = in_shadow(zero=40)
    lame = with_pods(obs, obs.revisions[NAME], pod(f"{NAME}-0"), pod(f"{NAME}-1", ready=False))
    assert status_of(run(replace(lame, pairs={**obs.pairs, NAME: obs.pairs[NAME][:1]}))).phase == "Rejected"


def test_what_was_frozen_holds_until_the_end() -> None:
    edited = spec(index={"factory": "HNSW32"}, guardrails={"rules": RULES})  # without a shadow
    plan = run(in_shadow(shadowing(elapsed=50.0), of=edited))
    assert (moved(plan), rates(plan)) == ([], [25.0])


def test_going_back_to_stable_supersedes_it_and_moves_nothing() -> None:
    plan = run(in_shadow(of=OLD))
    assert (moved(plan), status_of(plan).phase, rates(plan)) == ([], "Superseded", [0.0])


def test_another_spec_supersedes_it_when_that_is_proven() -> None:
    of = wanted(factory="Flat")
    proven = a_revision(of, "Validated", created=NOW - 30)
    obs = in_shadow(of=of)
    plan = run(replace(obs, revisions={**obs.revisions, proven.name: proven}))
    assert (moved(plan), status_of(plan).phase, rates(plan)) == ([], "Superseded", [0.0])


def test_new_data_waits_for_it() -> None:
    proven = a_revision(NEW, "Validated", data=NEW_DATA)
    obs = in_shadow(shadowing(elapsed=50.0))
    plan = run(replace(obs, revisions={**obs.revisions, proven.name: proven}))
    assert ("CandidateUndecided" in rows(plan), moved(plan)) == (True, [])


@pytest.mark.parametrize("argument", ["", STABLE.name])
def test_a_rollback_gives_it_up_and_leaves_the_traffic(argument: str) -> None:
    older = a_revision(spec(index={"factory": "Flat"}), "Superseded", created=NOW - 72 * HOUR)
    obs = in_shadow(of=OLD)
    obs = asks(replace(obs, revisions={**obs.revisions, older.name: older}), "rollback", "n1", argument)
    plan = run(obs)
    status = status_of(plan)
    assert status.rejected is not None
    assert (moved(plan), status.phase, status.rejected.stage, status.rejected.reason) == (
        [], "Rejected", "Shadow", "Manual",
    )  # fmt: skip
    assert STABLE.name not in wrote(plan)
    assert plan.status.verbs[0].result == "Done"
    # The operator dies before it can answer: one request is one step.
    unanswered = after(obs, plan)
    unanswered = replace(unanswered, index=replace(unanswered.index, status=obs.index.status))
    again = run(unanswered)
    assert (moved(again), STABLE.name in wrote(again), again.status.verbs[0].result) == ([], False, "Done")


def test_a_rollback_to_an_earlier_one_moves_the_traffic() -> None:
    older = a_revision(spec(index={"factory": "Flat"}), "Superseded", created=NOW - 72 * HOUR)
    obs = in_shadow()
    obs = replace(obs, revisions={**obs.revisions, older.name: older}, loaded={**obs.loaded, older.name: loaded(older)})
    assert moved(run(asks(obs, "rollback", "n1", older.name))) == [older.name]


def test_a_rollback_that_waits_for_its_pods_gets_the_place() -> None:
    older = a_revision(spec(index={"factory": "Flat"}), "Superseded", created=NOW - 72 * HOUR)
    obs = in_shadow()
    obs = replace(obs, revisions={**obs.revisions, older.name: older})
    plan = run(asks(obs, "rollback", "n1", older.name))
    assert (moved(plan), status_of(plan).phase, rates(plan)) == ([], "Validated", [0.0])


def test_a_switch_whose_record_was_lost_is_found_again() -> None:
    obs = in_shadow()
    decision = next(one.decision for one in actions(run(obs), MoveTraffic))
    died = replace(obs, traffic=front(obs.revisions[NAME], decision), pairs={})
    status = status_of(run(died, NOW + 3))
    assert status.rollout is not None
    assert status.rollout.shadow is not None
    assert (status.phase, status.rollout.switched_at) == ("Soaking", to_text(NOW))
    assert (status.rollout.shadow.outcome, "in shadow: Passed" in status.rollout.shadow.message) == ("Switched", True)


def test_a_surge_that_is_made_again_finds_no_shadow_that_nobody_ends() -> None:
    going_on = shadowing()
    view = replace(going_on, status=going_on.status.model_copy(update={"phase": "Surging"}))
    status = status_of(run(seen(NEW, STABLE, view, traffic=STABLE)))
    assert status.rollout is not None
    assert status.rollout.shadow is not None
    assert (status.phase, status.rollout.shadow.started_at) == ("Shadowing", to_text(NOW))


def test_a_shadow_of_what_no_longer_serves_begins_anew() -> None:
    """Another one was rolled back to: pairs with the one before are no measure."""
    older = a_revision(spec(index={"factory": "Flat"}), "Stable", created=NOW - 72 * HOUR, restored_at=to_text(NOW - 9))
    decision = Decision(DecisionKind.ROLL_BACK, STABLE.name, older.name, "Manual", "Manual", "m", NOW - 9, serial=3)
    gone = replace(STABLE, status=STABLE.status.model_copy(update={"phase": "RolledBack", "settled_serial": 3}))
    older = replace(older, status=older.status.model_copy(update={"settled_serial": 3}))
    obs = seen(NEW, gone, older, shadowing(), traffic=front(older, decision))
    plan = run(obs)
    rollout = status_of(plan).rollout
    assert rollout is not None
    assert rollout.shadow is not None
    assert (moved(plan), rollout.shadow.reference, rollout.shadow.id != ID) == ([], older.name, True)
    assert {(one.revision, one.max_per_second) for one in actions(plan, RenewMirrors)} == {(older.name, 25.0)}


def test_a_shadow_that_began_ahead_of_the_clock_begins_anew() -> None:
    plan = run(in_shadow(shadowing(elapsed=-300.0)))
    rollout = status_of(plan).rollout
    assert rollout is not None
    assert rollout.shadow is not None
    assert (moved(plan), rollout.shadow.started_at) == ([], to_text(NOW))


def test_a_service_that_somebody_pointed_to_it_is_put_back() -> None:
    obs = in_shadow(shadowing(elapsed=50.0))
    changed = replace(front(STABLE), shares={NAME: 100})
    assert moved(run(replace(obs, traffic=changed))) == [STABLE.name]


def test_what_another_release_wrote_about_it_is_not_judged() -> None:
    view = shadowing()
    raw = merged(view.status.wire(), {"rollout": {"shadow": {"startedAt": "yesterday"}}})
    plan = run(in_shadow(replace(view, status=RevisionStatus.read(raw)), pairs={}))
    assert (moved(plan), rows(plan), wrote(plan), rates(plan)) == ([], ["ForeignRollout"], set(), [])


def test_while_the_spec_cannot_be_read_nothing_is_switched() -> None:
    obs = in_shadow()
    plan = run(replace(obs, index=replace(obs.index, spec=None, spec_error="spec.index: wrong")))
    assert (moved(plan), rates(plan), wrote(plan)) == ([], [], set())
    assert plan.errors == ()


def test_a_loaded_view_of_nothing_is_no_reference() -> None:
    obs = in_shadow(shadowing(elapsed=30.0))
    obs = replace(obs, loaded={**obs.loaded, STABLE.name: LoadedRevision(STABLE.name, exists=False)}, pairs={})
    assert skipped(run(obs)) == ([NAME], "NoReference")
