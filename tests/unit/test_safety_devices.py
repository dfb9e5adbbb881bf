"""Each safety device that no other test would miss: taken out, one of these fails."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from observations import HOUR, NOW, SETTINGS, a_revision, actions, front, index, loaded, pod, run, seen, source, spec
from raw_objects import (
    NAME,
    NAMESPACE,
    Silent,
    Stored,
    deployment_raw,
    front_raw,
    index_raw,
    revision_raw,
    searcher_pod,
    slice_raw,
)

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Condition, Live, Rejection, VectorIndexStatus
from vectorindex_operator.core import lifecycle
from vectorindex_operator.core.events import Event, EventReason
from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_operator.core.plan import (
    DeleteSearchers,
    EnsureSearchers,
    ForgetRevision,
    MoveTraffic,
    Plan,
    StartBuild,
    WriteRevisionStatus,
)
from vectorindex_operator.core.safety import keep_loaded
from vectorindex_operator.core.safety.give_traffic import give_traffic
from vectorindex_operator.core.safety.roll_back import is_way_back
from vectorindex_operator.core.state import ReconcileState
from vectorindex_operator.core.traffic import Decision, DecisionKind, Traffic
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile import loop
from vectorindex_operator.reconcile.cache import LiveCluster, ReadCache
from vectorindex_operator.reconcile.claims import DEFAULT_CLASS
from vectorindex_operator.reconcile.errors import ConflictError, RefusedError
from vectorindex_operator.reconcile.execute import Executor
from vectorindex_operator.reconcile.observe import observe
from vectorindex_searcher.contract import LeaseState, TrafficLease

OLD, NEW = spec(), spec(index={"factory": "HNSW32"})
STABLE = a_revision(OLD, "Stable")
QUOTA = RefusedError("403 Forbidden: exceeded quota")


def settled(view: RevisionView, serial: int, at: float) -> RevisionView:
    """It reflects the decision of this number."""
    known = {"settled_serial": serial, "settled_at": to_text(at)}
    return replace(view, status=view.status.model_copy(update=known))


def went_back(source: RevisionView, target: RevisionView, at: float, serial: int) -> Decision:
    return Decision(
        DecisionKind.ROLL_BACK, source.name, target.name, "errors", "ErrorRate", "9 % failed", at, "", serial
    )


def phases(plan: Plan) -> dict[str, str]:
    """Of the revisions whose status the plan writes."""
    return {one.revision: one.status.phase for one in actions(plan, WriteRevisionStatus)}


def test_a_decision_that_is_recorded_rejects_nothing_again() -> None:
    """The user asked to try it once more: the annotation of the rollback before still lies on the Service."""
    stable = settled(a_revision(OLD, "Stable", created=NOW - 48 * HOUR), 3, NOW - HOUR)
    retried = settled(a_revision(NEW, "Validated", created=NOW - 2 * HOUR), 3, NOW - HOUR)
    decision = went_back(retried, stable, NOW - HOUR, 3)
    plan = run(seen(NEW, stable, retried, traffic=front(stable, decision)))
    assert phases(plan)[retried.name] == "Surging"
    written = {one.revision: one.status for one in actions(plan, WriteRevisionStatus)}
    assert written[retried.name].rejected is None


def test_a_decision_is_recorded_although_its_clock_was_behind() -> None:
    """The number of a decision says what is newer; two operators' clocks do not."""
    stable = settled(a_revision(OLD, "Stable", created=NOW - 48 * HOUR), 2, NOW)
    bad = settled(a_revision(NEW, "Soaking", created=NOW - HOUR), 2, NOW)
    decision = went_back(bad, stable, NOW - 60, 3)
    plan = run(seen(NEW, stable, bad, traffic=front(stable, decision)))
    assert phases(plan)[bad.name] == "RolledBack"


def test_what_was_proven_of_another_artifact_proves_nothing() -> None:
    fresh = a_revision(NEW, "Pending")
    plan = run(seen(NEW, STABLE, fresh, traffic=STABLE))
    assert [one.revision for one in actions(plan, StartBuild)] == [fresh.name]
    assert [one.status.report or one.status.build for one in actions(plan, WriteRevisionStatus)] == [None]


@pytest.mark.parametrize("steps", ["KEEP_SAFE", "GO_FORWARD"])
def test_half_of_what_a_faulty_step_meant_is_not_done(monkeypatch: pytest.MonkeyPatch, steps: str) -> None:
    def faulty(state: ReconcileState) -> None:
        state.update(STABLE.name, phase="Superseded")
        state.act(ForgetRevision(STABLE.name, STABLE.uid))
        state.keep_loaded.add("nobody")
        raise ValueError("a bug")

    monkeypatch.setattr(lifecycle, steps, (faulty,))
    plan = run(seen(OLD, STABLE, traffic=STABLE))
    assert (actions(plan, ForgetRevision), phases(plan)) == ([], {})
    assert [str(error) for error in plan.errors] == ["a bug"]


# ---------------------------------------------------------------- the executor


def executor(*objects: dict[str, Any], refuse: dict[tuple[str, str], Exception] | None = None) -> Executor:
    """On a cluster where stable serves, with these objects as well."""
    mine = (front_raw(STABLE), revision_raw(STABLE), deployment_raw(STABLE), searcher_pod(STABLE))
    view = index_raw(index(OLD, VectorIndexStatus(source=source(OLD))))
    cluster: Any = Stored(view, *mine, slice_raw(STABLE), *deepcopy(list(objects)), refuse=refuse)
    obs = observe(cluster, NAMESPACE, NAME, NOW)
    assert obs is not None
    return Executor(cluster, Silent(), SETTINGS, obs)


def writes(one: Executor) -> list[tuple[str, str]]:
    cluster: Any = one.cluster
    taken: list[tuple[str, str]] = cluster.writes
    return taken


def plan_of(obs: Observation, *, safe: tuple[Any, ...] = (), forward: tuple[Any, ...] = ()) -> Plan:
    return Plan(safe, forward, status=obs.index.status, requeue_after=1.0)


@pytest.mark.parametrize("refused", [True, False])
def test_nothing_is_loaded_whose_phase_could_not_be_recorded(refused: bool) -> None:
    """The next pass would not know of its searchers, and load a third revision beside them."""
    fresh = a_revision(NEW, "Validated")
    refuse = {("status", "VectorIndexRevision"): QUOTA} if refused else None
    one = executor(revision_raw(fresh), refuse=refuse)
    load = EnsureSearchers(fresh.name, Live.of(NEW), "aa" * 32, "gate", "report", 2**27)
    one.run(plan_of(one.obs, safe=(WriteRevisionStatus(fresh.name, fresh.status), load)))
    assert (("apply unforced", f"Deployment/{fresh.name}") in writes(one)) is not refused


def test_a_revision_that_somebody_took_up_again_is_not_forgotten() -> None:
    """Another operator, while this one stood still: its rejection, and what it has been through, would be gone."""
    old = a_revision(NEW, "Superseded")
    one = executor(revision_raw(old))
    cluster: Any = one.cluster
    (live,) = [found for found in cluster.objects if found["metadata"]["name"] == old.name]
    written = {**live, "metadata": {**live["metadata"], "resourceVersion": "99"}}
    cluster.objects = [written if found is live else found for found in cluster.objects]
    with pytest.raises(ConflictError):
        one.run(plan_of(one.obs, forward=(ForgetRevision(old.name, old.uid),)))
    assert writes(one) == []


def test_searchers_that_became_ready_since_they_were_seen_are_not_removed() -> None:
    """Another operator loaded them, and switched to them, while this one waited for an answer."""
    fresh = a_revision(NEW, "Surging")
    one = executor(revision_raw(fresh), deployment_raw(fresh))
    cluster: Any = one.cluster
    kinds = [found for found in cluster.objects if found["kind"] == "Deployment"]
    (live,) = [found for found in kinds if found["metadata"]["name"] == fresh.name]
    written = {**live, "metadata": {**live["metadata"], "resourceVersion": "99"}}
    cluster.objects = [written if found is live else found for found in cluster.objects]
    with pytest.raises(ConflictError):
        one.run(plan_of(one.obs, forward=(DeleteSearchers(fresh.name),)))
    assert ("delete", f"Deployment/{fresh.name}") not in writes(one)


def test_the_first_refusal_ends_the_way_forward() -> None:
    one = executor(refuse={("delete", "VectorIndexRevision"): QUOTA})
    again = (ForgetRevision(STABLE.name, f"uid-{STABLE.name}"),) * 2
    one.run(plan_of(one.obs, forward=again))
    assert len(one.refusals) == 1


@pytest.mark.parametrize("owner", ["uid-docs", "uid-other"])
def test_a_deployment_of_somebody_else_is_not_deleted_by_its_name(owner: str) -> None:
    old = a_revision(NEW, "Superseded")
    deployment = deployment_raw(old)
    deployment["metadata"]["ownerReferences"] = [
        {"kind": "VectorIndex", "name": "docs", "uid": owner, "controller": True}
    ]
    one = executor(revision_raw(old), deployment)
    one.run(plan_of(one.obs, forward=(DeleteSearchers(old.name),)))
    assert (("delete", f"Deployment/{old.name}") in writes(one)) is (owner == "uid-docs")


def test_the_searchers_of_all_shards_go_with_their_revision() -> None:
    old = a_revision(NEW, "Superseded")
    routers = deployment_raw(old)
    marks = routers["metadata"]["labels"] | {labels.COMPONENT: labels.SHARD_PODS}
    names = [labels.shard_name(old.name, number) for number in range(2)]
    shards = [
        {**routers, "metadata": routers["metadata"] | {"name": name, "uid": name, "labels": marks}} for name in names
    ]
    one = executor(revision_raw(old), routers, *shards)
    one.run(plan_of(one.obs, forward=(DeleteSearchers(old.name),)))
    assert [what for verb, what in writes(one) if verb == "delete"] == [f"Deployment/{n}" for n in (old.name, *names)]


class Listening(Silent):
    """Searchers that keep what they are told."""

    def __init__(self) -> None:
        self.told: dict[str, tuple[int, LeaseState]] = {}

    def tell(self, to: Addressee, addresses: Iterable[str], lease: TrafficLease) -> None:
        self.told[to.target.revision] = len(list(addresses)), lease.state


def test_pods_hear_whether_they_have_the_traffic() -> None:
    """Else connections to what lost it stay open until its pods go, or what serves closes every one of its own."""
    old, listening = a_revision(NEW, "Superseded", lost_traffic_at=to_text(NOW - 1)), Listening()
    one = executor(revision_raw(old), deployment_raw(old), searcher_pod(old), searcher_pod(old, 1))
    one.searchers = listening
    one.run(run(one.obs))
    assert listening.told == {STABLE.name: (1, LeaseState.SERVING), old.name: (2, LeaseState.DRAINING)}


def test_a_move_of_the_traffic_that_was_decided_on_an_old_view_is_refused() -> None:
    """Another operator has gone back meanwhile."""
    fresh = a_revision(NEW, "Surging")
    one = executor(revision_raw(fresh))
    cluster: Any = one.cluster
    cluster.get("Service", NAMESPACE, NAME)["metadata"]["resourceVersion"] = "99"
    decision = Decision(DecisionKind.SWITCH, STABLE.name, fresh.name, "Surge", "Ready", "", NOW, "", 2)
    with pytest.raises(ConflictError):
        one.move_traffic(plan_of(one.obs, safe=(MoveTraffic(decision, "41"),)))
    assert writes(one) == []


# ---------------------------------------------------------------- the traffic


def test_a_pass_moves_the_traffic_once() -> None:
    """A second move would be decided on what was read before the first."""
    target = a_revision(NEW, "Surging")
    state = ReconcileState.start(seen(OLD, STABLE, target, traffic=STABLE), SETTINGS, NOW)
    why = {"rule": "Surge", "reason": "Ready", "message": "ready"}
    assert give_traffic(state, DecisionKind.SWITCH, target.name, from_revision=STABLE.name, **why)
    assert not give_traffic(state, DecisionKind.ROLL_BACK, STABLE.name, from_revision=target.name, **why)
    assert (len([one for one in state.planned if isinstance(one, MoveTraffic)]), state.serving) == (1, target.name)


def test_the_traffic_is_not_put_back_to_what_was_given_up() -> None:
    """It was decided for, tripped, and still answers; then somebody emptied the selector."""
    rejected = Rejection(stage="Rollout", reason="ErrorRate", message="9 % failed", at=to_text(NOW - 60))
    bad = settled(a_revision(NEW, "RolledBack", rejected=rejected), 3, NOW - 600)
    stable = settled(STABLE, 3, NOW - 600)
    decision = Decision(DecisionKind.SWITCH, stable.name, bad.name, "Surge", "Ready", "", NOW - 600, "", 3)
    obs = seen(OLD, stable, bad, traffic=Traffic.to("", "41", decision))
    plan = run(replace(obs, loaded={**obs.loaded, bad.name: loaded(bad)}))
    assert [one.decision.to_revision for one in actions(plan, MoveTraffic)] == [stable.name]


@pytest.mark.parametrize(("on_the_service", "in_a_status"), [(7, 3), (3, 7), (7, 7)])
def test_each_decision_has_a_number_of_its_own(on_the_service: int, in_a_status: int) -> None:
    """The second of two with one number would pass for recorded, and a rejection be lost."""
    target, before = a_revision(NEW, "Surging"), settled(STABLE, in_a_status, NOW - HOUR)
    known = went_back(target, before, NOW - HOUR, on_the_service)
    state = ReconcileState.start(seen(OLD, before, target, traffic=front(before, known)), SETTINGS, NOW)
    give_traffic(
        state, DecisionKind.SWITCH, target.name, from_revision=before.name, rule="Surge", reason="Ready", message=""
    )
    assert [one.decision.serial for one in state.planned if isinstance(one, MoveTraffic)] == [8]


@pytest.mark.parametrize("ready", [True, False])
def test_a_selector_that_was_changed_by_hand_is_put_back_to_pods_that_are_ready(ready: bool) -> None:
    """It points to what drains, which answers still: that is better than nobody."""
    old = a_revision(NEW, "Superseded", lost_traffic_at=to_text(NOW - 1))
    obs = seen(OLD, STABLE, old, traffic=Traffic.to(old.name, "41", front(STABLE).decision))
    there = loaded(STABLE, pod("a", ready=ready), pod("b", ready=ready))
    plan = run(replace(obs, loaded={STABLE.name: there, old.name: loaded(old)}))
    assert [one.decision.to_revision for one in actions(plan, MoveTraffic)] == [STABLE.name] * ready
    assert [one.rule for one in plan.status.blocked_by] == ["RestoreTargetNotReady"] * (not ready)


def test_what_has_no_artifact_is_no_way_back() -> None:
    assert is_way_back(STABLE.status)
    assert not is_way_back(STABLE.status.model_copy(update={"build": None}))


# ---------------------------------------------------------------- what stays loaded


@pytest.mark.parametrize("failed", [True, False])
def test_a_pass_with_a_fault_retires_nothing(failed: bool) -> None:
    """The step that failed may have wanted to keep it."""
    old = a_revision(NEW, "Superseded", lost_traffic_at=to_text(NOW - HOUR))
    obs = seen(OLD, STABLE, old, traffic=STABLE)
    state = ReconcileState.start(replace(obs, loaded={**obs.loaded, old.name: loaded(old)}), SETTINGS, NOW)
    state.errors += [ValueError("a bug")] if failed else []
    keep_loaded.step(state)
    assert (DeleteSearchers(old.name) in state.planned) is not failed


def test_what_is_to_serve_until_its_successor_does_stays_loaded_without_the_selector() -> None:
    """Somebody changed the selector: the traffic goes back to it in the next moment."""
    leaving = a_revision(NEW, "Soaking", lost_traffic_at=None)
    leaving = replace(leaving, status=leaving.status.model_copy(update={"phase": "Outgoing"}))
    obs = seen(OLD, STABLE, leaving, traffic=STABLE)
    state = ReconcileState.start(replace(obs, loaded={**obs.loaded, leaving.name: loaded(leaving)}), SETTINGS, NOW)
    keep_loaded.step(state)
    assert DeleteSearchers(leaving.name) not in state.planned


# ---------------------------------------------------------------- the loop


@dataclass
class Sink:
    """Keeps the Events that are sent."""

    sent: list[Event] = field(default_factory=list)

    def send(self, regarding: Any, event: Event) -> None:
        self.sent.append(event)


def passes(
    monkeypatch: pytest.MonkeyPatch, *, cached: bool, waits_for: str = "", **said: Any
) -> tuple[int, list[Event], float | None]:
    """One look, whose plan says this: how often it was decided, what was told, and when the next look is. `waits_for`:
    what the status has said for a while."""
    one = executor()
    cache, decided, sink = ReadCache(), [], Sink()
    stored: Any = one.cluster
    for each in sorted(stored.objects, key=lambda found: found["kind"] != "VectorIndex"):
        cache.put(each)
    conditions = (Condition(type="Ready", status="True", reason="Serving", last_transition_time=to_text(NOW)),)

    def decide(obs: Observation, settings: Any, now: float) -> Plan:
        decided.append(now)
        return replace(Plan((), (), obs.index.status, 300.0), **said)

    monkeypatch.setattr(loop, "decide", decide)
    view = stored.get("VectorIndex", NAMESPACE, NAME)
    view["status"] |= {"conditions": [each.wire() for each in conditions], "operator": DEFAULT_CLASS}
    view["status"]["blockedBy"] = [{"rule": waits_for, "subject": STABLE.name, "message": ""}] if waits_for else []
    view["metadata"]["resourceVersion"] = "42"
    cache.put(view)
    reconciler = loop.Reconciler(
        LiveCluster(stored, cache), Silent(), sink, SETTINGS, cache=cache if cached else None, clock=lambda: NOW
    )
    after = reconciler.run(NAMESPACE, NAME).again_after
    return len(decided), sink.sent, after


def test_what_the_cache_says_is_told_only_after_a_live_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert passes(monkeypatch, cached=True) == (1, [], 300.0)
    told = Event(EventReason.PROMOTED, "SoakPassed")
    assert passes(monkeypatch, cached=True, events=(told,)) == (2, [told], 300.0)


def test_a_fault_on_what_the_cache_says_is_met_again_on_live_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert passes(monkeypatch, cached=True, errors=(ValueError("a bug"),))[0] == 2


def test_what_the_cache_says_is_written_only_after_a_live_read(monkeypatch: pytest.MonkeyPatch) -> None:
    decision = Decision(DecisionKind.SWITCH, "", STABLE.name, "Surge", "Ready", "", NOW, "", 2)
    for plan in (
        {"safe": (MoveTraffic(decision, "41"),)},
        {"safe": (WriteRevisionStatus(STABLE.name, STABLE.status),)},
        {"forward": (ForgetRevision(STABLE.name, STABLE.uid),)},
    ):
        assert passes(monkeypatch, cached=True, **plan)[0] == 2, plan
        assert passes(monkeypatch, cached=False, **plan)[0] == 1, plan


@pytest.mark.parametrize("waits_for", ["RollbackTargetNotReady", "RestoreTargetNotReady", "Draining"])
def test_a_way_back_waits_on_live_reads_only(monkeypatch: pytest.MonkeyPatch, waits_for: str) -> None:
    """The event that tells of the pod that it waits for may have been lost."""
    looks = 1 if waits_for == "Draining" else 2
    assert passes(monkeypatch, cached=True, waits_for=waits_for)[0] == looks


def test_what_follows_from_an_own_write_is_looked_at_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own writes come back from the watches as nothing new: nothing else wakes it."""
    forward = (ForgetRevision(STABLE.name, "another uid"),)
    assert passes(monkeypatch, cached=False, forward=forward)[2] == loop.LOOK_AGAIN_SECONDS
    assert passes(monkeypatch, cached=False)[2] == 300.0


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("operator_class", [DEFAULT_CLASS, "next"])
def test_an_index_of_another_operator_is_left_alone(cached: bool, operator_class: str) -> None:
    """Here the annotation is missing and nobody has claimed it, so it is the default operator's."""
    stored: Any = executor().cluster
    cache = ReadCache()
    cache.put(stored.get("VectorIndex", NAMESPACE, NAME))
    reconciler = loop.Reconciler(
        LiveCluster(stored, cache), Silent(), Sink(), SETTINGS, cache=cache if cached else None,
        operator_class=operator_class, clock=lambda: NOW,
    )  # fmt: skip
    assert (reconciler.run(NAMESPACE, NAME).again_after is None) is (operator_class == "next")
    assert (stored.writes == []) is (operator_class == "next")
    claim = stored.get("VectorIndex", NAMESPACE, NAME)["status"].get("operator")
    assert (claim == DEFAULT_CLASS) is (operator_class == DEFAULT_CLASS)


# ---------------------------------------------------------------- what else may be lost


def test_what_was_found_wrong_is_no_way_back_although_it_was_promoted() -> None:
    rejected = Rejection(stage="Rollout", reason="ErrorRate", message="9 % failed", at=to_text(NOW - 60))
    assert not is_way_back(STABLE.status.model_copy(update={"rejected": rejected}))


def test_what_has_the_traffic_is_never_retired_although_nobody_knows_it() -> None:
    """Somebody deleted its revision object: users are still served by its pods."""
    gone = a_revision(NEW, "Superseded")
    obs = seen(OLD, STABLE, traffic=gone)
    state = ReconcileState.start(replace(obs, loaded={**obs.loaded, gone.name: loaded(gone)}), SETTINGS, NOW)
    keep_loaded.step(state)
    assert DeleteSearchers(gone.name) not in state.planned


def test_an_object_made_again_is_read_again_whatever_its_version() -> None:
    cache, raw = ReadCache(), index_raw(index(OLD))
    cache.put(raw)
    again = {**raw, "metadata": raw["metadata"] | {"uid": "uid-again"}}
    assert cache.compare("VectorIndex", "", [again], cache.turn()) == ({(NAMESPACE, NAME)}, set())
    assert cache.compare("VectorIndex", "", [raw], cache.turn()) == (set(), set())


def test_what_soaks_and_lost_the_traffic_to_what_was_put_back_is_surged_again() -> None:
    """Another operator put it back on a view from before the soak: without traffic it would soak for ever."""
    soaking = a_revision(NEW, "Soaking")
    back = Decision(
        DecisionKind.SWITCH, soaking.name, STABLE.name, "Restored", "Restored", "put back", NOW - 60, serial=3
    )
    obs = seen(NEW, STABLE, soaking, traffic=front(STABLE, back))
    (wrote,) = [one for one in actions(run(obs), WriteRevisionStatus) if one.revision == soaking.name]
    assert (wrote.status.phase, wrote.status.rejected) in (("Surging", None), ("Soaking", None))
    moves = [one.decision.to_revision for one in actions(run(obs), MoveTraffic)]
    assert wrote.status.phase == "Surging" or moves == [soaking.name]


@pytest.mark.parametrize("garbled", [False, True], ids=["with the decision of its time", "without any"])
def test_what_soaks_is_surged_again_when_an_old_manifest_of_the_service_took_its_traffic(garbled: bool) -> None:
    """The traffic is with stable, and all that is known of that was settled long ago: it would soak for ever."""
    stable = settled(STABLE, 2, NOW - HOUR)
    soaking = settled(a_revision(NEW, "Soaking", created=NOW - HOUR), 2, NOW - HOUR)
    old = Decision(DecisionKind.SWITCH, "", stable.name, "Surge", "Ready", "ready", NOW - 2 * HOUR, serial=1)
    traffic = front(stable, old)
    obs = seen(NEW, stable, soaking, traffic=replace(traffic, decision=None) if garbled else traffic)
    moves = [one.decision.to_revision for one in actions(run(obs), MoveTraffic)]
    assert phases(run(obs)).get(soaking.name) == "Surging" or moves == [soaking.name]
