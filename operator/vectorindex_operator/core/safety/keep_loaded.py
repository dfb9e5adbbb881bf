"""What stays loaded, what is retired after its connections have drained, who is told that it lost the traffic.

The last step of a pass, whatever became of the others: it needs what is frozen in revisions, and how many replicas.
"""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import JUDGED_IN_SHADOW, GuardrailMetric, RolloutStatus
from vectorindex_operator.core import recipe
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.phase import BEFORE_SWITCH, BEFORE_TRAFFIC, Phase
from vectorindex_operator.core.plan import DeleteSearchers, EnsureSearchers, RenewLeases
from vectorindex_operator.core.safety import keep_prior, route
from vectorindex_operator.core.safety.roll_back import is_dead, pending_trip
from vectorindex_operator.core.state import ReconcileState
from vectorindex_searcher.contract import KEEP_ALIVE_SECONDS, BuildResult, LeaseState

RETIRE_AFTER_SECONDS = KEEP_ALIVE_SECONDS * 1.5
"""Longer than the oldest (jittered) connection to a searcher lives: after this nobody talks to it any more."""
PODS_REFUSED = "PodsRefused"
LEASE_LOOK_SECONDS = 10.0
DELETED_SECONDS = 15.0
"""In which searchers that are removed are ordinarily gone."""


def step(state: ReconcileState) -> None:
    outgoing = {name for name, status in state.statuses.items() if status.phase == Phase.OUTGOING}
    state.keep_loaded.update({state.stable, state.candidate, state.serving, *outgoing} & set(state.statuses))
    state.keep_loaded.discard("")
    _unload_dead(state)
    _make_room(state)
    _give_place(state)
    keep_prior.step(state)
    for name in sorted(state.keep_loaded & set(state.statuses)):
        if not _waits_for_place(state, name):
            _load(state, name)
        _tell_refusal(state, name)
    for name, loaded in sorted(state.obs.loaded.items()):
        if loaded.exists and name not in {*state.keep_loaded, *state.foreign, state.serving}:
            _retire(state, name)
    _mark_retired(state)
    _renew_leases(state)


def _tell_refusal(state: ReconcileState, name: str) -> None:
    """That no more pods of a revision can be made: a quota, a webhook."""
    if words := state.loaded(name).refused:
        state.block_as_told(PODS_REFUSED, f"Deployment/{name}", words)


def _mark_retired(state: ReconcileState) -> None:
    """What was superseded and whose searchers are gone: the traffic could go back to it from its artifact only."""
    for name, status in list(state.statuses.items()):
        gone = not state.loaded(name).exists and name not in state.keep_loaded
        if status.phase == Phase.SUPERSEDED and status.promoted_at and gone:
            state.update(name, phase=Phase.RETIRED, message=status.message)


def _unload_dead(state: ReconcileState) -> None:
    """What the traffic would go back to has had no ready pod for long: it is no help, and holds a place.

    It stays the target until the next promotion, and is loaded again when a rollback waits for it.
    """
    name = state.stable
    if not name or not state.serving or name == state.serving:
        return
    unloaded_at = state.statuses[name].unloaded_at
    if state.loaded(name).serving() or not is_dead(state, name):
        if unloaded_at is not None and state.loaded(name).serving():
            state.update(name, unloaded_at=None)
        return
    if unloaded_at is None or state.obs.revisions[name].status.unloaded_at is None:
        state.update(name, unloaded_at=unloaded_at or to_text(state.now))
        message = f"{name} has no ready pod, so nothing can go back to it at once: its searchers are removed"
        state.event(EventReason.WAY_BACK_LOST, message, revision=name)
    waited_for = pending_trip(state, state.serving) is not None or state.desired == name
    surging = bool(state.candidate) and state.candidate != state.serving
    if state.make_room or surging or not waited_for:
        state.keep_loaded.discard(name)


def _make_room(state: ReconcileState) -> None:
    """What a rollback waits for without end gives its place to what is proven, as a dead stable revision does."""
    if not (state.make_room or state.has_moved) and state.candidate in ("", state.serving):
        return
    for name in state.keep_loaded - {state.serving, state.candidate, state.stable}:
        if name in state.statuses and is_dead(state, name):
            state.update(name, unloaded_at=state.statuses[name].unloaded_at or to_text(state.now))
            state.keep_loaded.discard(name)


def _give_place(state: ReconcileState) -> None:
    """A rollback that waits for a target without pods needs the place of what surges: two revisions are loaded at most,
    and where there is no room for a third, the target would wait for what was never proven with traffic."""
    name = state.candidate
    waited_for = state.keep_loaded - {name, state.serving}
    surging = bool(name) and name != state.serving and state.statuses[name].phase in BEFORE_SWITCH
    if not surging or not waited_for or pending_trip(state, state.serving) is None:
        return
    message = f"waits until the traffic is back on {min(waited_for)}, which needs its place"
    shifting = state.statuses[name].phase == Phase.SHIFTING
    lost_at = to_text(state.now) if shifting else state.statuses[name].lost_traffic_at
    state.update(name, phase=Phase.VALIDATED, rollout=None, lost_traffic_at=lost_at, message=message)
    state.keep_loaded.discard(name)
    state.find_slots()
    state.preparing = name


def _waits_for_place(state: ReconcileState, name: str) -> bool:
    """Whether what a rollback waits for is not made yet: it gets the place of a prior that was kept and whose searchers
    are there yet. Not for longer than these take to drain, whatever keeps them: a rollback is worth a third."""
    trip, leaving = pending_trip(state, state.serving), keep_prior.leaving(state)
    if not leaving or trip is None or name in (state.serving, state.candidate) or state.loaded(name).exists:
        return False
    if state.errors or state.age(trip.at) > RETIRE_AFTER_SECONDS + DELETED_SECONDS:
        return False
    state.block("Draining", leaving, "at most two revisions are loaded at a time")
    state.requeue_at(state.now + 2)
    return True


def _load(state: ReconcileState, name: str) -> None:
    status = state.statuses[name]
    if status.build is None or status.report is None or state.live is None:
        return
    if status.rollout is None and name == state.kept:
        return  # wanted again: its pods stay as they are until its next rollout says what they are told
    live_recall, frozen = _scores_exactly(status.rollout), state.revision(name).spec
    state.act(
        EnsureSearchers(
            revision=name,
            live=state.live,
            manifest_sha256=status.build.manifest_sha256,
            gate_hash=status.report.gate_hash,
            report_sha256=status.report.report_sha256,
            resident_bytes=status.build.resident_bytes,
            live_recall=live_recall,
            columns_before=status.rollout.columns_before if status.rollout is not None else None,
            disk_bytes=_disk_bytes(status.build, live_recall),
            encoder_bytes=status.report.encoder.bytes if status.report.encoder is not None else 0,
            reranker_bytes=recipe.reranker_bytes(frozen, status.report),
            fresh_bytes=recipe.fresh_bytes(frozen, state.live, status.build),
            shards=frozen.shards(status.build),
            merged_canary=bool(frozen.in_shards and status.report.canary_queries),
        )
    )


def _disk_bytes(build: BuildResult, live_recall: bool) -> int | None:
    if build.vectors_bytes is None:
        return None
    return build.resident_bytes + (build.vectors_bytes if live_recall else 0)


def _scores_exactly(rollout: RolloutStatus | None) -> bool:
    """Whether a rule needs the exact scores of answers, hence all vectors. By the guardrails frozen into the rollout:
    an edit of the spec restarts no pods, and neither does the end of a shadow."""
    if rollout is None:
        return False
    metrics = {rule.metric for rule in rollout.guardrails.rules}
    in_shadow = metrics & JUDGED_IN_SHADOW if rollout.settings.shadows else set()
    return GuardrailMetric.LIVE_RECALL in metrics or bool(in_shadow)


def _retire(state: ReconcileState, name: str) -> None:
    if state.errors:
        return  # a step that failed may have wanted it
    drained_at = _drained_at(state, name)
    if state.now < drained_at:
        state.requeue_at(drained_at)
        return
    if not route.holds(state, name):
        state.act(DeleteSearchers(name))


def _drained_at(state: ReconcileState, name: str) -> float:
    """From when on nobody talks to a revision that lost the traffic, Unix seconds."""
    status, decision = state.statuses.get(name), state.obs.traffic.decision
    if status is not None:
        return state.now - state.age(status.lost_traffic_at) + RETIRE_AFTER_SECONDS
    if decision is not None and decision.from_revision == name:
        # Somebody deleted its object, and with that when it lost the traffic: the front Service tells.
        return min(decision.at, state.now) + RETIRE_AFTER_SECONDS
    return 0.0


def _renew_leases(state: ReconcileState) -> None:
    """Pods that lost the traffic close their connections; those that got it back stop doing so. A prior that is kept
    has none any more once it has drained, and is not told for a day."""
    drained = {state.kept} if state.kept and state.now >= _drained_at(state, state.kept) else set()
    there = {name for name, one in state.obs.loaded.items() if one.exists}
    if len(there - drained) < 2 or not state.serving:
        return
    for name, loaded in sorted(state.obs.loaded.items()):
        addresses = tuple(pod.address for pod in loaded.answering if pod.address and pod.ready)
        unseen = name in state.statuses and state.statuses[name].phase in BEFORE_TRAFFIC
        if addresses and not unseen:
            shares = name in state.statuses and state.statuses[name].phase == Phase.SHIFTING
            lease = LeaseState.SERVING if name == state.serving or shares else LeaseState.DRAINING
            state.act(RenewLeases(name, addresses, lease))
            state.requeue_at(state.now + LEASE_LOOK_SECONDS)
