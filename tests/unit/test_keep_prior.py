"""The prior that stays loaded after a promotion: until when, what it is for, and what it gives way to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from observations import (
    HOUR,
    NOW,
    SETTINGS,
    a_revision,
    actions,
    after,
    condition,
    front,
    index,
    job,
    loaded,
    moved,
    phase,
    pod,
    recorded,
    run,
    seen,
    source,
    spec,
    with_rollout,
)
from raw_objects import deployment_raw, front_raw, index_raw, revision_raw, searcher_pod, slice_raw
from soaks import counts
from unit.test_execute import NAME, World

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Condition, Pause, Rejection, VectorIndexStatus
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.lifecycle import decide
from vectorindex_operator.core.loaded import LoadedRevision
from vectorindex_operator.core.observation import JobState, Observation, RevisionView, Task
from vectorindex_operator.core.plan import (
    DeleteSearchers,
    EnsureSearchers,
    ForgetRevision,
    Plan,
    RenewLeases,
    StartCollect,
    WriteRevisionStatus,
)
from vectorindex_operator.core.safety.keep_loaded import RETIRE_AFTER_SECONDS
from vectorindex_operator.core.traffic import Traffic
from vectorindex_operator.reconcile.errors import RefusedError, ReportedError

KEEPS: dict[str, Any] = {"rollout": {"keepPrior": "1h", "soak": {"duration": "1m", "minQueries": 0}}}
OLD, NEW = spec(**KEEPS), spec(index={"factory": "HNSW32"}, **KEEPS)
NEXT = spec(index={"factory": "Flat"}, **KEEPS)
UNTIL = NOW + 1800
HELD = Pause(nonce="p1", at=to_text(NOW - 60))


def prior(**status: Any) -> RevisionView:
    """A: it lost the traffic forty minutes ago."""
    lost = {"lost_traffic_at": to_text(NOW - 2400)}
    return a_revision(OLD, "Superseded", created=NOW - 48 * HOUR, **lost | status)


A = prior()


def promoted(of: Any = NEW, until: float = UNTIL) -> RevisionView:
    """B: it was promoted half an hour ago, and A is kept for another half."""
    view = a_revision(of, "Stable", created=NOW - 2400, promoted_at=to_text(NOW - 1800))
    return with_rollout(view, prior=A.name, prior_kept_until=to_text(until))


B = promoted()
C = a_revision(NEXT, "Validated", created=NOW - 60)


def kept(*more: RevisionView, stable: RevisionView = B, of: Any = NEW, first: RevisionView = A) -> Observation:
    """B serves and A is loaded beside it."""
    obs = seen(of, first, stable, *more, traffic=stable)
    return replace(obs, loaded={**obs.loaded, A.name: loaded(A)})


def with_loaded(obs: Observation, *ones: LoadedRevision) -> Observation:
    return replace(obs, loaded={**obs.loaded, **{one.revision: one for one in ones}})


def without(obs: Observation, view: RevisionView) -> Observation:
    """Its searchers are gone."""
    return replace(obs, loaded={name: one for name, one in obs.loaded.items() if name != view.name})


def stays(plan: Plan) -> set[str]:
    return {one.revision for one in actions(plan, EnsureSearchers)}


def goes(plan: Plan) -> list[str]:
    return [one.revision for one in actions(plan, DeleteSearchers)]


def kept_until(plan: Plan, view: RevisionView = B) -> str | None:
    """As the plan leaves it."""
    written = after(Observation(index(NEW), {view.name: view}), plan).revisions[view.name].status.rollout
    assert written is not None
    return written.prior_kept_until


# ---------------------------------------------------------------- from the promotion on


def soaking(of: Any = NEW, **rollout: Any) -> Observation:
    """B has soaked for long enough, and nothing judges it."""
    bare = {"guardrails": {"rules": []}}
    view = a_revision(spec(**of.wire() | bare), "Soaking", created=NOW - 600)
    view = with_rollout(view, switched_at=to_text(NOW - 600), prior=A.name, **rollout)
    stable = a_revision(OLD, "Stable", created=NOW - 48 * HOUR, lost_traffic_at=to_text(NOW - 600))
    return seen(of, stable, view, traffic=view)


def test_until_when_the_prior_is_kept_is_written_with_the_promotion() -> None:
    """In the status of what is promoted: no crash lies between the two."""
    plan = run(soaking())
    assert phase(plan, B) == "Stable"
    rollout = recorded(plan, B).rollout
    assert rollout is not None
    assert rollout.prior_kept_until == to_text(NOW + HOUR)
    assert phase(plan, A) == "Superseded"
    assert stays(plan) == {A.name, B.name}
    assert plan.requeue_after <= HOUR


def test_whose_second_half_of_a_promotion_was_lost_keeps_its_prior() -> None:
    plan = run(kept(first=a_revision(OLD, "Stable", created=NOW - 48 * HOUR)))
    assert phase(plan, A) == "Superseded"
    assert stays(plan) == {A.name, B.name}


@pytest.mark.parametrize("keep_prior", ["0s", None], ids=["said", "by default"])
def test_without_it_the_prior_goes(keep_prior: str | None) -> None:
    off = spec(index={"factory": "HNSW32"}, rollout={**KEEPS["rollout"], "keepPrior": keep_prior})
    assert goes(second_look(soaking(of=off))) == [A.name]


def second_look(obs: Observation) -> Plan:
    """What follows from the promotion in the look after it."""
    first = run(obs)
    assert phase(first, B) == "Stable"
    return decide(after(obs, first), SETTINGS, NOW + 1)


def test_an_edit_during_the_soak_to_none_keeps_none_and_to_some_waits_for_the_next_rollout() -> None:
    off = spec(index={"factory": "HNSW32"}, rollout={**KEEPS["rollout"], "keepPrior": "0s"})
    for frozen, wanted in ((NEW, off), (off, NEW)):
        obs = soaking(of=frozen)
        assert goes(second_look(replace(obs, index=replace(obs.index, spec=wanted)))) == [A.name]


def test_what_is_no_way_back_is_not_kept() -> None:
    obs = soaking()
    bad = Rejection(stage="Rollout", reason="ErrorRate", message="9 %", at=to_text(NOW))
    stable = replace(obs.revisions[A.name], status=obs.revisions[A.name].status.model_copy(update={"rejected": bad}))
    assert goes(second_look(replace(obs, revisions={**obs.revisions, A.name: stable}))) == [A.name]


# ---------------------------------------------------------------- while it lasts


def test_it_has_as_many_replicas_as_stable_whatever_scales_that() -> None:
    plan = run(kept(of=spec(index={"factory": "HNSW32"}, searcher={"replicas": 5}, **KEEPS)))
    assert {one.revision: one.live.searcher.replicas for one in actions(plan, EnsureSearchers)} == {
        A.name: 5,
        B.name: 5,
    }


def test_searchers_that_somebody_deleted_come_back() -> None:
    assert stays(run(without(kept(), A))) == {A.name, B.name}


def test_the_status_says_until_when_and_that_the_way_back_is_warm() -> None:
    status, reason, message = condition(run(kept()).status, "RollbackPossible")
    assert (status, reason) == ("True", "Warm")
    assert f"stay so until {to_text(UNTIL)}" in message


def test_nothing_is_written_while_it_is_kept() -> None:
    obs = kept()
    first = run(obs)
    later = decide(after(obs, first), SETTINGS, NOW + 600)
    assert (later.status.conditions, actions(later, WriteRevisionStatus)) == (first.status.conditions, [])


def test_what_has_drained_is_not_told_so_for_a_day() -> None:
    assert actions(run(kept()), RenewLeases) == []
    fresh = prior(lost_traffic_at=to_text(NOW - 10))
    assert {one.revision for one in actions(run(kept(first=fresh)), RenewLeases)} == {A.name, B.name}


def test_neither_history_nor_collect_takes_it() -> None:
    """Also where its pods are away just now, and others were good later."""
    short = spec(index={"factory": "HNSW32"}, history=1, **KEEPS)
    younger = a_revision(OLD, "Superseded", data="r2" * 32, created=NOW - HOUR)
    other = a_revision(OLD, "Superseded", data="r3" * 32, created=NOW - 2 * HOUR)
    obs = without(kept(younger, other, of=short), A)
    plan = decide(obs, replace(SETTINGS, collect_history=True, cluster_uid="cluster-a"), NOW)
    assert [one.name for one in actions(plan, ForgetRevision)] == []
    assert actions(plan, StartCollect) == []
    removed = {name for name in (A.name, younger.name, other.name) if phase_after(obs, plan, name) == "Removing"}
    assert removed == {other.name}


def phase_after(obs: Observation, plan: Plan, name: str) -> str:
    return after(obs, plan).revisions[name].status.phase


def test_wanted_again_it_keeps_its_pods_while_it_is_proven_and_takes_the_traffic_with_them() -> None:
    plan = run(kept(of=OLD))
    assert moved(plan) == [A.name]
    assert stays(plan) == {A.name, B.name}
    again = replace(A, status=A.status.model_copy(update={"phase": "Validating", "report": None}))
    assert goes(run(kept(of=OLD, first=again))) == []


def test_wanted_again_its_pods_are_not_replaced_while_it_is_proven() -> None:
    """What a rule has searchers keep in memory stands in their template, and comes of the rollout that they are in."""
    rules = {"guardrails": {"rules": [{"name": "live", "metric": "LiveRecall", "min": "90%"}]}}
    judged = spec(**KEEPS, **rules)
    mine = a_revision(judged, "Superseded", created=NOW - 48 * HOUR, lost_traffic_at=to_text(NOW - 2400))

    def told(plan: Plan) -> list[bool]:
        return [one.live_recall for one in actions(plan, EnsureSearchers) if one.revision == mine.name]

    assert told(run(kept(of=judged.model_copy(update={"index": NEW.index}), first=mine))) == [True]
    again = replace(mine, status=mine.status.model_copy(update={"phase": "Validated", "rollout": None, "pause": HELD}))
    assert told(run(kept(of=judged, first=again))) == []
    assert moved(run(kept(of=judged, first=again))) == []


# ---------------------------------------------------------------- what it is for


def test_a_rule_that_fails_in_the_watch_moves_the_traffic_in_that_very_pass() -> None:
    obs = replace(kept(), evidence={B.name: counts(B, errors=300)})
    plan = run(obs)
    assert moved(plan) == [A.name]
    assert phase(plan, B) == "RolledBack"
    assert kept_until(plan) is None
    assert recorded(plan, A).phase == "Stable"


def test_a_persons_rollback_takes_it_although_another_was_good_later() -> None:
    restored = a_revision(OLD, "Superseded", data="r2" * 32, restored_at=to_text(NOW - 60))
    obs = kept(restored)
    obs = replace(obs, index=replace(obs.index, commands=(Command("rollback", "", "n1"),)))
    assert moved(run(obs)) == [A.name]


def down(obs: Observation) -> Observation:
    """No pod of B is ready."""
    return with_loaded(obs, loaded(B, pod("b-0", ready=False), pod("b-1", ready=False), unready_since=NOW - 5))


def test_a_stable_without_a_ready_pod_gives_the_traffic_to_it_after_ten_seconds() -> None:
    """As in a soak: also without a rule, and it is counted from the first look that saw it."""
    obs = down(kept(stable=promoted(spec(**NEW.wire() | {"guardrails": {"rules": []}}))))
    first = run(obs)
    assert moved(first) == []
    assert first.requeue_after <= 5.0
    verdicts = [(row.rule, row.reason) for row in recorded(first, B).rollout.verdicts]  # type: ignore[union-attr]
    assert verdicts == [("unavailable", "Unready")]
    seen_again = after(obs, first)
    assert moved(decide(seen_again, SETTINGS, NOW + 9)) == []
    last = decide(seen_again, SETTINGS, NOW + 10)
    assert moved(last) == [A.name]
    assert recorded(last, B).rejected.reason == "Unavailable"  # type: ignore[union-attr]


def test_where_only_people_roll_back_it_is_said_only() -> None:
    observes = {"guardrails": {"rules": [], "steadyState": "Observe"}}
    obs = down(kept(stable=promoted(spec(**NEW.wire() | observes))))
    first = after(obs, run(obs))
    assert moved(decide(first, SETTINGS, NOW + 60)) == []


def test_nobody_is_judged_for_pods_where_nothing_is_kept() -> None:
    stable = with_rollout(B, prior_kept_until=None)
    obs = down(without(kept(stable=stable), A))
    obs = after(obs, run(obs))
    assert moved(decide(obs, SETTINGS, NOW + 60)) == []


def test_a_service_that_is_gone_while_stable_is_down_is_made_for_it() -> None:
    assert moved(run(replace(down(kept()), traffic=Traffic()))) == [A.name]


# ---------------------------------------------------------------- how it ends


def test_it_ends_at_its_time_as_it_was_seen() -> None:
    """A look that took a minute does not make it a minute later."""
    obs = replace(kept(), seen_at=UNTIL - 1)
    assert stays(decide(obs, SETTINGS, UNTIL + 30)) == {A.name, B.name}
    plan = decide(replace(obs, seen_at=UNTIL), SETTINGS, UNTIL + 30)
    assert (goes(plan), kept_until(plan)) == ([A.name], None)
    assert "their time is over" in recorded(plan, A).message
    gone = without(after(obs, plan), A)
    assert phase(decide(gone, SETTINGS, UNTIL + 31), A) == "Retired"


def test_the_next_look_is_at_its_time() -> None:
    plan = decide(kept(stable=promoted(until=NOW + 7)), SETTINGS, NOW)
    assert plan.requeue_after == pytest.approx(7.0, abs=0.01)


def test_a_clock_that_was_set_back_does_not_keep_it_for_ever() -> None:
    plan = run(kept(stable=promoted(until=NOW + 1000 * HOUR)))
    assert kept_until(plan) == to_text(NOW + HOUR)


OFF = spec(index={"factory": "HNSW32"}, rollout={**KEEPS["rollout"], "keepPrior": "0s"})


def test_an_edit_to_none_ends_it_at_once_and_waits_for_nothing() -> None:
    plan = run(kept(of=OFF))
    assert goes(plan) == [A.name]
    assert "rollout" not in condition(plan.status, "UpToDate")[2]
    unreadable = kept()
    unreadable = replace(unreadable, index=replace(unreadable.index, spec=None, spec_error="rollout: no"))
    assert goes(run(unreadable)) == []


def test_what_is_to_surge_waits_until_it_is_gone() -> None:
    obs = kept(C, of=NEXT)
    first = run(obs)
    assert goes(first) == [A.name]
    assert [row.rule for row in first.status.blocked_by] == ["Draining"]
    assert C.name not in {one.revision for one in actions(first, EnsureSearchers)}
    assert phase_after(obs, first, C.name) == "Validated"
    still = run(after(obs, first))
    assert phase_after(after(obs, first), still, C.name) == "Validated"
    last = run(without(after(obs, first), A))
    assert phase(last, C) == "Surging"


def test_a_prior_that_still_drains_is_not_cut_off_for_what_is_to_surge() -> None:
    fresh = prior(lost_traffic_at=to_text(NOW - 10))
    plan = run(kept(C, of=NEXT, first=fresh))
    assert goes(plan) == []
    assert 0 < plan.requeue_after <= RETIRE_AFTER_SECONDS


def test_a_rollback_to_another_one_gets_its_place_and_waits_for_it() -> None:
    """Three are never loaded; but where something keeps the prior's searchers, a rollback is worth a third."""
    other = a_revision(OLD, "Superseded", data="r2" * 32, created=NOW - 90 * HOUR)
    obs = kept(other)
    obs = replace(obs, index=replace(obs.index, commands=(Command("rollback", other.name, "n1"),)))
    first = run(obs)
    assert (goes(first), stays(first)) == ([A.name], {B.name})
    second = without(after(obs, first), A)
    assert stays(run(second)) == {other.name, B.name}
    stuck = decide(after(obs, first), SETTINGS, NOW + 61)
    assert stays(stuck) == {other.name, B.name}


def test_a_prior_without_a_ready_pod_for_long_is_no_help() -> None:
    dead = loaded(A, pod("a-0", ready=False), unready_since=NOW - 700)
    assert goes(run(with_loaded(kept(), dead))) == [A.name]
    slow = loaded(A, pod("a-0", ready=False), unready_since=NOW - 60)
    assert goes(run(with_loaded(kept(), slow))) == []


def unplaced(since: float) -> LoadedRevision:
    return loaded(B, pod("b-0"), pod("b-1", ready=False, unschedulable="full", unschedulable_since=since))


def refused(since: float) -> LoadedRevision:
    return replace(loaded(B), refused_since=since)


def building(**waiting: Any) -> Callable[[float], Observation]:
    def world(since: float) -> Observation:
        other = a_revision(NEXT, "Building", created=NOW - 120)
        (field,) = waiting
        one = replace(job(Task.BUILD, JobState.RUNNING, key="k", of=other), **{field: since})
        obs = kept(other, of=NEXT)
        return replace(obs, jobs=(*obs.jobs, one))

    return world


@pytest.mark.parametrize(
    "world",
    [
        lambda since: with_loaded(kept(), unplaced(since)),
        lambda since: with_loaded(kept(), refused(since)),
        building(unschedulable_since=0),
        building(podless_since=0),
    ],
    ids=["pods without a node", "pods beyond a quota", "a Job without a node", "a Job beyond a quota"],
)
def test_it_makes_room_for_what_is_needed_more(world: Callable[[float], Observation]) -> None:
    plan = run(world(NOW - 60))
    assert goes(plan) == [A.name]
    assert "there is no room for" in recorded(plan, A).message
    early = run(world(NOW - 50))  # a node may be on its way
    assert goes(early) == []
    assert early.requeue_after <= 10.0


def test_its_own_pods_wait_for_their_place() -> None:
    mine = loaded(A, pod("a-0"), pod("a-1", ready=False, unschedulable="full", unschedulable_since=NOW - 600))
    assert goes(run(with_loaded(kept(), mine))) == []


# ---------------------------------------------------------------- on a cluster


def cluster(of: Any = NEW, **refuse: Any) -> World:
    """B serves, A is kept, and both are as the operator made them."""
    said = (Condition(type="Ready", status="True", reason="Serving", last_transition_time="2026-11-20T12:00:00Z"),)
    view = index(of, VectorIndexStatus(source=source(of), conditions=said))
    pods = [searcher_pod(one, number) for one in (A, B) for number in range(2)]
    made = [deployment_raw(one) for one in (A, B)]
    return World(index_raw(view), front_raw(B), revision_raw(A), revision_raw(B), *made, *pods, slice_raw(B), **refuse)


def test_a_rollback_is_one_write_and_makes_no_pods() -> None:
    world = cluster().settle()
    world.object("VectorIndex", NAME)["metadata"]["annotations"] = {"vectorindex.dev/rollback": "n1"}
    world.run()
    assert world.cluster.writes[0][1] == "Service/docs"
    assert world.serving() == A.name
    assert [kind for _, kind in world.cluster.writes if kind.startswith("Deployment")] == []


def test_what_could_not_be_recorded_unloads_nothing() -> None:
    """Else the next look would load it again, as its status says."""
    world = cluster().settle()
    world.cluster.refuse["status", "VectorIndexRevision"] = RefusedError("403 Forbidden: not now")
    world.now = UNTIL + 1
    with pytest.raises(ReportedError):
        world.run()
    assert ("delete", f"Deployment/{A.name}") not in world.cluster.writes
    world.cluster.refuse.clear()
    world.run()
    assert ("delete", f"Deployment/{A.name}") in world.cluster.writes
    assert ("delete", f"PodDisruptionBudget/{A.name}") in world.cluster.writes


def test_an_older_manifest_of_the_service_is_of_no_use_here() -> None:
    """Its selector points to the prior, with the decision of that time: the traffic stays where it was decided."""
    obs = kept()
    plan = run(replace(obs, traffic=replace(front(A), decision=front(B).decision)))
    assert moved(plan) == [B.name]
