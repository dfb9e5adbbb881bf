"""States that once had no way on: found by attacking the decisions, kept one test each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from observations import (
    AN_HOUR_AGO,
    HOUR,
    NOW,
    a_revision,
    actions,
    after,
    condition,
    front,
    loaded,
    pod,
    run,
    seen,
    source,
    spec,
)

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Live, Rejection, RevisionStatus, RolloutStatus, Serving, Trip
from vectorindex_operator.core import identity
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_operator.core.plan import (
    DeleteSearchers,
    EnsureSearchers,
    ForgetRevision,
    MoveTraffic,
    Plan,
    WriteRevisionStatus,
)
from vectorindex_operator.core.traffic import Traffic

OLD, MID, NEW = spec(), spec(index={"factory": "IVF128,Flat"}), spec(index={"factory": "IVF256,Flat"})
STABLE = a_revision(OLD, "Stable", created=NOW - 3 * HOUR)
PROVEN = a_revision(NEW, "Validated")


def rolled_out(view: RevisionView, phase: str, **rollout: Any) -> RevisionView:
    known = view.status.rollout
    assert isinstance(known, RolloutStatus)
    changes = {"phase": phase, "rollout": known.model_copy(update=rollout)}
    return replace(view, status=view.status.model_copy(update=changes))


def having(phase: str, **rollout: Any) -> RevisionView:
    """The revision of MID, in `phase`, with the traffic until a test says otherwise."""
    return rolled_out(a_revision(MID, "Soaking", created=NOW - 2 * HOUR), phase, prior=STABLE.name, **rollout)


def status_of(plan: Plan, view: RevisionView) -> RevisionStatus:
    return next((one.status for one in actions(plan, WriteRevisionStatus) if one.revision == view.name), view.status)


def moves(plan: Plan) -> list[str]:
    return [one.decision.to_revision for one in actions(plan, MoveTraffic)]


def carried_out(obs: Observation, plan: Plan) -> Observation:
    """The world after the plan: statuses, traffic, and searchers that are gone."""
    world = after(obs, plan)
    for move in actions(plan, MoveTraffic):
        world = replace(world, traffic=Traffic.to(move.decision.to_revision, "42", move.decision))
    gone = {one.revision for one in actions(plan, DeleteSearchers)}
    return replace(world, loaded={name: one for name, one in world.loaded.items() if name not in gone})


def test_the_only_pods_that_answer_are_never_removed_when_the_service_is_gone() -> None:
    """Stable has been without a ready pod for a minute only, so it is not dead yet; and the spec asks for another."""
    soaking = having("Soaking")
    for stable in ((loaded(STABLE, pod("s", ready=False), unready_since=NOW - 60),), ()):
        obs = seen(NEW, STABLE, soaking, PROVEN, traffic=Traffic())
        obs = replace(obs, loaded={soaking.name: loaded(soaking), **{one.revision: one for one in stable}})
        plan = run(obs)
        assert moves(plan) == [soaking.name]
        assert soaking.name not in {one.revision for one in actions(plan, DeleteSearchers)}


def test_a_rollback_target_that_never_gets_ready_does_not_hold_up_the_proven_fix() -> None:
    target = a_revision(OLD, "Superseded", created=NOW - 9 * HOUR)
    trip = Trip(rule="Manual", reason="Manual", message="m", at=AN_HOUR_AGO, target=target.name)
    serving = rolled_out(a_revision(MID, "Stable", created=NOW - 3 * HOUR), "Stable", prior=target.name, trip=trip)
    obs, now, there = seen(NEW, target, serving, PROVEN, traffic=serving), NOW, {serving.name, target.name}
    for _ in range(4):
        pods = {
            serving.name: loaded(serving),
            target.name: loaded(target, pod("t", ready=False), unready_since=now - HOUR),
            PROVEN.name: loaded(PROVEN),
        }
        obs = replace(obs, loaded={name: one for name, one in pods.items() if name in there})
        plan = run(obs, now)
        there |= {one.revision for one in actions(plan, EnsureSearchers)}
        there -= {one.revision for one in actions(plan, DeleteSearchers)}
        obs, now = carried_out(obs, plan), now + HOUR
    assert obs.traffic.revision == PROVEN.name


def test_what_surges_gives_its_place_to_the_target_of_a_rollback() -> None:
    """Never three at a time: first back, then the next one again."""
    target = a_revision(OLD, "Superseded", created=NOW - 9 * HOUR)
    trip = Trip(rule="errors", reason="ErrorRate", message="9 %", at=to_text(NOW - 1))
    serving = rolled_out(a_revision(MID, "Stable", created=NOW - 3 * HOUR), "Stable", prior=target.name, trip=trip)
    surging = a_revision(NEW, "Surging")
    obs, there = seen(NEW, target, serving, surging, traffic=serving), {serving.name, surging.name}
    unready = pod("p", ready=False)
    for number in range(4):
        pods = {
            serving.name: loaded(serving),
            target.name: loaded(target, unready if number < 2 else pod("t")),
            surging.name: loaded(surging, unready),
        }
        obs = replace(obs, loaded={name: one for name, one in pods.items() if name in there})
        plan = run(obs, NOW + number)
        there |= {one.revision for one in actions(plan, EnsureSearchers)}
        there -= {one.revision for one in actions(plan, DeleteSearchers)}
        assert len(there) <= 2, there
        obs = carried_out(obs, plan)
    assert obs.traffic.revision == target.name
    later = replace(obs, loaded={target.name: loaded(target)})
    assert status_of(run(later, NOW + 600), surging).phase == "Surging"


def test_a_rollback_to_a_named_revision_in_a_soak_keeps_stable_and_says_what_is_quicker() -> None:
    """The one case with three loaded (docs/adr/0016-a-dead-stable.md): where there is no room, there is another way."""
    named = a_revision(NEW, "Superseded", created=NOW - 9 * HOUR)
    trip = Trip(rule="Manual", reason="Manual", message="m", at=to_text(NOW - 1), target=named.name)
    soaking = having("Soaking", trip=trip)
    obs = seen(MID, named, STABLE, soaking, traffic=soaking)
    plan = run(obs)
    assert {one.revision for one in actions(plan, EnsureSearchers)} == {named.name, STABLE.name, soaking.name}
    (row,) = [row for row in plan.status.blocked_by if row.rule == "RollbackTargetNotReady"]
    assert f"`rollback` without a name goes to {STABLE.name} at once" in row.message
    asked = replace(obs.index, commands=(Command("rollback", "", "n2"),))
    plan = run(replace(obs, index=asked))
    assert moves(plan) == [STABLE.name]


def test_what_waits_for_a_place_does_not_surge_before_the_target_can_even_be_made() -> None:
    """A quota refuses the target's Deployment: each look would begin and give up a surge."""
    target = a_revision(OLD, "Superseded", created=NOW - 9 * HOUR)
    trip = Trip(rule="errors", reason="ErrorRate", message="9 %", at=to_text(NOW - 10))
    serving = rolled_out(a_revision(MID, "Stable", created=NOW - 3 * HOUR), "Stable", prior=target.name, trip=trip)
    obs = replace(seen(NEW, target, serving, PROVEN, traffic=serving), loaded={serving.name: loaded(serving)})
    obs = after(obs, run(obs))
    waiting = obs.revisions[PROVEN.name]
    assert (waiting.status.phase, status_of(run(obs, NOW + 5), waiting)) == ("Validated", waiting.status)
    assert status_of(run(obs, NOW + HOUR), PROVEN).phase == "Surging"


def test_a_dead_stable_that_is_wanted_again_is_loaded_again() -> None:
    unloaded = replace(STABLE, status=STABLE.status.model_copy(update={"unloaded_at": AN_HOUR_AGO}))
    soaking = having("Soaking")
    obs = replace(seen(OLD, unloaded, soaking, traffic=soaking), loaded={soaking.name: loaded(soaking)})
    assert STABLE.name in {one.revision for one in actions(run(obs), EnsureSearchers)}


def test_what_is_outgoing_and_wanted_again_keeps_the_traffic() -> None:
    """Though what was to take its place can never be scheduled, and so never fails either."""
    outgoing, surging = having("Outgoing"), a_revision(NEW, "Surging")
    stuck = loaded(surging, pod("q", ready=False, scheduled_at=None, unschedulable="no room"))
    obs = seen(MID, STABLE, outgoing, surging, traffic=outgoing)
    obs = replace(obs, loaded={outgoing.name: loaded(outgoing), surging.name: stuck})
    plan = run(obs)
    assert status_of(plan, surging).phase == "Superseded"
    again = run(carried_out(obs, plan), NOW + 60)
    assert status_of(again, replace(outgoing, status=status_of(plan, outgoing))).phase == "Soaking"


def test_what_was_outgoing_when_its_service_vanished_is_done() -> None:
    obs = seen(NEW, STABLE, having("Outgoing"), PROVEN, traffic=Traffic())
    for _ in range(2):
        obs = carried_out(obs, run(obs))
    assert obs.traffic.revision == STABLE.name
    assert obs.revisions[having("Outgoing").name].status.phase == "Superseded"


def test_a_crash_between_giving_up_a_surge_and_soaking_on_leaves_nothing_behind() -> None:
    """What serves was written first: the other one must not stay Surging for ever."""
    surging = a_revision(NEW, "Surging")
    soaking = having("Soaking")
    obs = replace(seen(MID, STABLE, soaking, surging, traffic=soaking), loaded={soaking.name: loaded(soaking)})
    assert status_of(run(obs), surging).phase == "Superseded"


def refreshed(nonce: str, image: str, created: float) -> RevisionView:
    """A refresh of the artifact of OLD that was rolled back."""
    base = a_revision(OLD, "RolledBack", created=created)
    serving = Serving.of(OLD, nonce)
    rejected = Rejection(stage="Rollout", reason="LatencyP99", message="slow", at=AN_HOUR_AGO)
    return replace(
        base,
        name=identity.revision_name("docs", identity.serving_digest(base.spec.digest, serving)),
        spec=base.spec.model_copy(update={"serving": serving, "image": image, "proof_salt": image}),
        status=base.status.model_copy(update={"rejected": rejected, "promoted_at": None}),
    )


def test_a_refresh_that_failed_does_not_stand_for_the_revision_that_was_good() -> None:
    good = a_revision(OLD, "Superseded", created=NOW - 9 * HOUR)
    failed, serving = refreshed("n1", "example/searcher:v2", NOW - 8 * HOUR), a_revision(NEW, "Stable")
    plan = run(seen(OLD, good, failed, serving, traffic=serving))
    assert status_of(plan, good).phase in ("Pending", "Validating", "Validated", "Surging")
    assert status_of(plan, failed).phase == "RolledBack"


def test_retry_tries_the_newest_of_several_refreshes_only() -> None:
    good = a_revision(OLD, "Stable", created=NOW - 9 * HOUR)
    older, newer = (refreshed(f"n{n}", f"example/searcher:v{n}", NOW - (9 - n) * HOUR) for n in (2, 3))
    obs = seen(OLD, good, older, newer, traffic=good)
    plan = run(replace(obs, index=replace(obs.index, commands=(Command("retry", "", "r1"),))))
    assert status_of(plan, older).rejected is not None
    assert status_of(plan, newer).rejected is None


def test_an_edit_of_the_place_of_the_data_is_not_in_effect_before_its_revision_is() -> None:
    for edited, field in ((spec(source={"s3": {"prefix": "other/"}}), "source.s3"),):
        obs = seen(edited, STABLE, traffic=front(STABLE))
        live = replace(loaded(STABLE), live=identity.live_hash(Live.of(edited)))
        status = obs.index.status.model_copy(update={"source": source(OLD)})
        obs = replace(obs, loaded={STABLE.name: live}, jobs=(), index=replace(obs.index, status=status))
        value, _, message = condition(run(obs).status, "UpToDate")
        assert (value, field in message) == ("False", True)


def test_a_target_that_is_not_loaded_is_loaded_from_its_artifact() -> None:
    target = a_revision(OLD, "Superseded", created=NOW - 9 * HOUR)
    trip = Trip(rule="Manual", reason="Manual", message="m", at=AN_HOUR_AGO, target=target.name)
    serving = rolled_out(a_revision(MID, "Stable", created=NOW - 3 * HOUR), "Stable", trip=trip)
    plan = run(seen(MID, target, serving, traffic=serving))
    assert {one.revision for one in actions(plan, EnsureSearchers)} == {serving.name, target.name}


def test_a_revision_whose_searchers_are_there_is_not_forgotten() -> None:
    of = spec(history=1)
    stable = a_revision(of, "Stable")
    old = [a_revision(of, "Superseded", data=f"{n:02}" * 32, created=NOW - n * HOUR) for n in range(2, 5)]
    obs = seen(of, stable, *old, traffic=stable)
    draining = replace(obs, loaded={**obs.loaded, old[2].name: loaded(old[2])})
    assert {one.name for one in actions(run(draining), ForgetRevision)} == {old[1].name}


def test_a_stable_that_cannot_even_be_made_does_not_hold_up_the_fix() -> None:
    """Its Deployment is refused, so it is never there to be unready."""
    tripped = having("Soaking", trip=Trip(rule="errors", reason="ErrorRate", message="m", at=AN_HOUR_AGO))
    obs = seen(NEW, STABLE, tripped, PROVEN, traffic=tripped)
    obs = replace(obs, loaded={tripped.name: loaded(tripped)})
    for look in range(2):
        obs = carried_out(obs, run(obs, NOW + look))
    assert obs.revisions[PROVEN.name].status.phase == "Surging"
