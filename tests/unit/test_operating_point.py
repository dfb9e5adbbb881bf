"""Live recall is too low, and nothing can be gone back to: the same searchers answer at their conservative point."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from observations import (
    HOUR,
    NOW,
    a_revision,
    actions,
    after,
    built,
    condition,
    front,
    loaded,
    pod,
    run,
    said,
    seen,
    spec,
    with_rollout,
    with_spec,
)

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import ArtifactSeen, PointStatus, RuleVerdict
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.judging.evidence import PodCounts, PodEvidence
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_operator.core.plan import MoveTraffic, Plan, TellPoint
from vectorindex_operator.core.traffic import Decision, DecisionKind, PointDecision
from vectorindex_operator.manifests import labels
from vectorindex_operator.manifests.service import read_decision, service
from vectorindex_searcher.contract import Evidence, EvidenceBucket, OperatingPoint, ServingPoint

DEFAULT, CONSERVATIVE = ServingPoint.DEFAULT, ServingPoint.CONSERVATIVE
BOTH = (DEFAULT.value, CONSERVATIVE.value)
LIVE = {"name": "live", "metric": "LiveRecall", "min": "95%", "window": "1m", "warmUp": "0s", "consecutive": 1}
ERRORS = {"name": "errors", "metric": "ErrorRate", "max": "2%", "window": "1m", "warmUp": "0s", "consecutive": 1}
RULED = spec(guardrails={"rules": [LIVE, ERRORS]})
WIDE = OperatingPoint(params={"nprobe": 16}, recall=0.9954, recall_low=0.9912, latency_us=260.0)
SINCE = NOW - 600


def stable(of: Any = RULED, point: OperatingPoint | None = WIDE, **status: Any) -> RevisionView:
    """The first revision, ten minutes after its promotion."""
    view = a_revision(of, "Stable", created=SINCE, **status)
    build = built(view.spec.digest, conservative_point=point)
    return replace(view, status=view.status.model_copy(update={"build": build}))


A = stable()


def counts(
    view: RevisionView,
    recall: float = 0.8,
    *,
    at: ServingPoint | str = DEFAULT,
    points: tuple[str, ...] = BOTH,
    errors: int = 0,
    now: float = NOW,
) -> tuple[PodEvidence, ...]:
    """What its two searchers counted in ten minutes."""
    rows = tuple(
        EvidenceBucket(
            bucket=b, segment="other", requests=100, queries=100, failed_requests=errors, errors=errors,
            live_queries=20, live_recall_sum=20 * recall, live_overall_queries=20, live_overall_recall_sum=20 * recall,
            latency={188: 100},
        )
        for b in range(int((now - 600) // 5), int(now // 5))
    )  # fmt: skip
    told = []
    for number in range(2):
        name = f"{view.name}-{number}"
        page = Evidence(pod=name, revision=view.name, now=now, live_before=int(now // 5), buckets=rows)
        told.append(PodEvidence(name, replace(PodCounts.of(page), point=str(at), points=points), now))
    return tuple(told)


def world(view: RevisionView = A, *others: RevisionView, **about: Any) -> Observation:
    return seen(RULED, view, *others, traffic=view, evidence={view.name: counts(view, **about)})


def decided(plan: Plan) -> PointDecision | None:
    (move,) = actions(plan, MoveTraffic) or [None]
    return None if move is None else move.decision.point


def judged(view: RevisionView) -> RevisionView:
    """What was said of it last."""
    low = RuleVerdict(rule="live", metric="LiveRecall", verdict="Fail", reason="BoundExceeded", at=to_text(SINCE))
    return with_rollout(view, verdicts=(low,))


def wide(at: float = NOW - 60, view: RevisionView = A) -> RevisionView:
    """It answers at its conservative point since then."""
    point = PointStatus(point=CONSERVATIVE, at=to_text(at), message="recall was too low")
    return replace(view, status=view.status.model_copy(update={"point": point}))


def told(plan: Plan) -> list[tuple[ServingPoint, int, float]]:
    return [(one.point, len(one.addresses), one.decided_at) for one in actions(plan, TellPoint)]


def events(plan: Plan) -> list[str]:
    return [event.reason for event in plan.events]


# ---------------------------------------------------------------- when


def test_recall_that_is_too_low_without_a_prior_makes_the_search_wider() -> None:
    obs = world()
    plan = run(obs)
    (move,) = actions(plan, MoveTraffic)
    before = obs.traffic.decision
    assert before is not None
    point = move.decision.point
    assert (replace(move.decision, point=None), move.resource_version) == (before, "41"), "the traffic stays"
    assert point is not None
    assert (point.point, point.at) == (CONSERVATIVE, NOW)
    assert told(plan) == [(CONSERVATIVE, 2, NOW)]
    status, reason, message = condition(plan.status, "Degraded")
    assert (status, reason) == ("True", "ConservativePoint")
    for number in ("min 95%", "80%", "nprobe=16 instead of nprobe=4", "0.9954 instead of 0.9800", "2.6 times the CPU"):
        assert number in message, number
    assert events(plan).count("ConservativePoint") == 1
    assert condition(plan.status, "RolledOut")[0] == "True"


def prior(**status: Any) -> RevisionView:
    return a_revision(spec(index={"factory": "Flat"}), "Retired", created=NOW - 48 * HOUR,
                      promoted_at=to_text(NOW - 48 * HOUR), build=built(), **status)  # fmt: skip


def test_with_a_prior_that_can_be_loaded_the_traffic_goes_back_instead() -> None:
    plan = run(world(A, prior()))
    assert (decided(plan), told(plan)) == (None, [])
    assert "GuardrailTripped" in events(plan)


def test_a_prior_whose_artifact_is_gone_is_no_way_back_unless_its_pods_are_there() -> None:
    gone = prior(artifact_seen=ArtifactSeen(found="Absent", at=to_text(NOW - 60)))
    obs = world(A, gone)
    assert decided(run(obs)) is not None
    warm = replace(obs, loaded={**obs.loaded, gone.name: loaded(gone)})
    assert actions(run(warm), MoveTraffic)[0].decision.to_revision == gone.name


@pytest.mark.parametrize(
    ("view", "about", "why"),
    [
        (A, {"recall": 0.99}, ""),
        (stable(point=None), {}, "no conservative operating point"),
        (stable(point=WIDE.model_copy(update={"params": {"nprobe": 4}})), {}, "no wider than its default one"),
        (stable(point=WIDE.model_copy(update={"latency_us": 401.0})), {}, "4.0 times"),
        (stable(of=spec(guardrails={"rules": [LIVE], "steadyState": "Observe"})), {}, "steadyState is Observe"),
        (A, {"points": ()}, "no wider point"),
        (A, {"points": (DEFAULT.value,)}, "no wider point"),
        (stable(of=spec(guardrails={"rules": [{**LIVE, "mode": "Observe"}]})), {}, ""),
        (A, {"errors": 50}, None),
    ],
    ids=["well", "no point", "same point", "too dear", "Observe", "old image", "gate as wide", "observed", "errors"],
)
def test_nothing_is_done_where_it_would_not_help_and_people_are_told_why(
    view: RevisionView, about: dict[str, Any], why: str | None
) -> None:
    plan = run(seen(RULED, view, traffic=view, evidence={view.name: counts(view, **about)}))
    assert (decided(plan), told(plan), "ConservativePoint" in events(plan)) == (None, [], False)
    degraded = condition(plan.status, "Degraded")
    if why is not None:
        assert (degraded[1], why in degraded[2]) == ("NoConservativePoint" if why else "", True)


def test_what_was_gone_back_to_is_left_alone() -> None:
    view = stable(restored_at=to_text(SINCE))
    assert decided(run(world(view))) is None


# ---------------------------------------------------------------- a crash, another operator, another release


def with_decision(obs: Observation, decision: Decision) -> Observation:
    return replace(obs, traffic=front(A, decision))


def test_an_operator_that_dies_after_the_write_has_lost_nothing() -> None:
    obs = world()
    move = actions(run(obs), MoveTraffic)[0].decision
    plan = run(with_decision(obs, move), NOW + 5)
    assert actions(plan, MoveTraffic) == [], "once"
    assert events(plan).count("ConservativePoint") == 1
    assert told(plan) == [(CONSERVATIVE, 2, NOW)]
    again = run(after(with_decision(obs, move), plan), NOW + 10)
    assert events(again).count("ConservativePoint") == 0


def test_the_front_service_keeps_it_and_who_knows_nothing_of_it_reads_the_rest() -> None:
    move = actions(run(world()), MoveTraffic)[0]
    text = service(move.decision, "41", world().index, tls=False)["metadata"]["annotations"][labels.DECISION]
    assert read_decision(text) == move.decision
    for wrong in ("x", {"point": "Widest", "at": 1, "message": ""}, {"point": "Default", "at": "nan"}, {}, 7):
        read = read_decision(json.dumps({**json.loads(text), "point": wrong}))
        assert read == replace(move.decision, point=None), "who has the traffic does not depend on it"


def test_a_service_that_lost_the_decision_changes_nothing() -> None:
    """A release that knows nothing of it has repaired the Service."""
    plan = run(world(wide(), at=CONSERVATIVE, recall=0.97))
    assert condition(plan.status, "Degraded")[1] == "ConservativePoint"
    assert actions(plan, MoveTraffic) == []


def test_it_stays_decided_when_the_service_is_made_again() -> None:
    view = wide()
    obs = replace(world(view, at=CONSERVATIVE), traffic=replace(front(view), exists=False, shares={}, decision=None))
    (move,) = actions(run(obs), MoveTraffic)
    assert move.decision.point is not None
    assert move.decision.point.point is CONSERVATIVE


def test_a_clock_that_was_set_back_decides_later_all_the_same() -> None:
    view = wide(at=NOW + HOUR)
    obs = with_spec(world(view, at=CONSERVATIVE), commands=(Command("retry", "", "n1"),))
    point = decided(run(obs))
    assert point is not None
    assert (point.point, point.at > NOW + HOUR) == (DEFAULT, True)


# ---------------------------------------------------------------- pods, and evidence of one point


def test_pods_that_still_load_are_told_and_those_that_obey_are_not() -> None:
    view = wide()
    obs = world(view, at=CONSERVATIVE, recall=0.97)
    assert told(run(obs)) == []
    loading = pod("new-0", ready=False)
    obs = replace(obs, loaded={view.name: loaded(view, *loaded(view).pods, loading)})
    (one,) = actions(run(obs), TellPoint)
    assert one.addresses == (loading.address,)
    unasked = replace(obs, evidence={})
    assert told(run(unasked))[0][1] == 3, "after the watch nobody says where it answers"


def test_evidence_of_another_point_is_none() -> None:
    """Pods that were not told yet prove nothing, neither that it is too low still nor that it is well."""
    view = judged(wide())
    for recall in (0.8, 0.99):
        plan = run(world(view, at=DEFAULT, recall=recall))
        assert condition(plan.status, "GuardrailsHealthy")[:2] == ("Unknown", "EvidenceMissing")
    for at in ("", CONSERVATIVE):  # one that changes just now, and one that kept to what nobody decided
        plan = run(world(judged(A), at=at))
        assert condition(plan.status, "GuardrailsHealthy")[1] == "EvidenceMissing", at
    before = run(world(A, at="", points=()))  # an image of before
    assert condition(before.status, "GuardrailsHealthy")[1] == "BoundExceeded"


def test_at_the_conservative_point_it_is_judged_and_moves_no_more() -> None:
    low = run(world(wide(), at=CONSERVATIVE, recall=0.8))
    assert condition(low.status, "GuardrailsHealthy")[:2] == ("False", "BoundExceeded")
    assert actions(low, MoveTraffic) == []
    well = run(world(wide(), at=CONSERVATIVE, recall=0.99))
    assert condition(well.status, "GuardrailsHealthy")[0] == "True"
    assert (actions(well, MoveTraffic), condition(well.status, "Degraded")[1]) == ([], "ConservativePoint")


# ---------------------------------------------------------------- the end


def retried(view: RevisionView, nonce: str = "n1") -> Observation:
    return with_spec(world(view, at=CONSERVATIVE, recall=0.99), commands=(Command("retry", "", nonce),))


def test_a_person_ends_it() -> None:
    obs = retried(wide())
    plan = run(obs)
    point = decided(plan)
    assert point is not None
    assert (point.point, point.at, point.nonce) == (DEFAULT, NOW, "n1")
    assert told(plan) == [(DEFAULT, 2, NOW)]
    assert (said(plan)[0], condition(plan.status, "Degraded")[0]) == ("Done", "")
    assert "DefaultPoint" in events(plan)
    move = actions(plan, MoveTraffic)[0].decision
    later = run(after(with_decision(obs, move), plan), NOW + 2 * HOUR)
    assert told(later) == [], "who could not be reached for an hour has ended"


def test_a_request_that_nobody_could_answer_ends_it_once() -> None:
    obs = retried(wide())
    move = actions(run(obs), MoveTraffic)[0].decision
    plan = run(with_decision(obs, move), NOW + 5)
    assert (actions(plan, MoveTraffic), said(plan)[0]) == ([], "Done")


def test_a_retry_without_it_is_refused_as_ever() -> None:
    obs = with_spec(world(A, recall=0.99), commands=(Command("retry", "", "n1"),))
    assert said(run(obs)) == ("Refused", "nothing has failed")


def test_after_a_retry_it_is_judged_again() -> None:
    point = PointStatus(point=DEFAULT, at=to_text(NOW - 60), nonce="n1")
    again = decided(run(world(replace(A, status=A.status.model_copy(update={"point": point})))))
    assert again is not None
    assert (again.point, again.nonce) == (CONSERVATIVE, "")


def test_the_next_stable_revision_begins_at_its_default_point() -> None:
    old = wide()
    new = a_revision(spec(index={"factory": "HNSW32"}, guardrails={"rules": [LIVE]}), "Stable", created=NOW - 60)
    superseded = replace(old, status=old.status.model_copy(update={"phase": "Superseded"}))
    plan = run(seen(RULED, superseded, with_rollout(new, prior=old.name), traffic=new))
    assert condition(plan.status, "Degraded")[0] == ""


def test_what_the_traffic_comes_back_to_goes_on_at_its_point() -> None:
    """Its recall was too low, and a candidate that fails does not change that."""
    old = wide()
    candidate = a_revision(spec(index={"factory": "HNSW32"}), "Soaking", created=NOW - 300)
    candidate = with_rollout(candidate, prior=old.name)
    asked = (Command("rollback", "", "n1"),)
    obs = with_spec(seen(RULED, old, candidate, traffic=candidate), commands=asked)
    (move,) = actions(run(obs), MoveTraffic)
    assert (move.decision.kind, move.decision.to_revision) == (DecisionKind.ROLL_BACK, old.name)
    assert move.decision.point is not None
    assert move.decision.point.point is CONSERVATIVE
