"""The candidate is loaded beside the stable revision; each pod proves itself; then, if nothing speaks against it in
shadow and in a canary's steps, the traffic is switched to it."""

from __future__ import annotations

from vectorindex_operator.api.quantities import duration_seconds
from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import GuardrailMetric, RolloutStatus
from vectorindex_operator.core import gate, recipe
from vectorindex_operator.core.loaded import SHARD as SHARD_GROUP
from vectorindex_operator.core.loaded import LoadedRevision
from vectorindex_operator.core.phase import BEFORE_TRAFFIC, Phase
from vectorindex_operator.core.progress import shadow, shift
from vectorindex_operator.core.progress.supersede import has_no_way_back, supersede
from vectorindex_operator.core.safety import keep_prior, pause
from vectorindex_operator.core.safety.give_traffic import give_traffic
from vectorindex_operator.core.safety.give_up import SURGE, give_up
from vectorindex_operator.core.safety.roll_back import is_dead, is_way_back, pending_trip, rollback_target
from vectorindex_operator.core.state import ReconcileState
from vectorindex_operator.core.traffic import DecisionKind

CANARY_RECALL = "CanaryRecall"
REFUSALS_BEFORE_GIVING_UP = 2
"""A pod that refused this often is believed: one bad download is not a bad artifact."""


def step(state: ReconcileState) -> None:
    proven = bool(state.preparing) and state.statuses[state.preparing].phase == Phase.VALIDATED
    proven = proven and not pause.holds(state, state.preparing)
    if proven and state.candidate:
        _wait_or_supersede(state)
    if proven and not state.candidate and not state.has_moved:
        _begin(state, state.preparing)
    if not state.candidate and not proven:
        resume_outgoing(state)
    if state.candidate and state.statuses[state.candidate].phase in BEFORE_TRAFFIC:
        _surge(state, state.candidate)
    elif state.candidate and state.statuses[state.candidate].phase == Phase.SHIFTING:
        _shift(state, state.candidate)


def _wait_or_supersede(state: ReconcileState) -> None:
    candidate, proven = state.candidate, state.preparing
    if state.pinned:
        supersede(state, f"spec.pinRevision names {proven}", proven=proven)
    elif not recipe.same_but_for_data(state, candidate):
        supersede(state, f"the spec changed, and {proven} is proven", proven=proven)
    elif shadow.holds_on(state, candidate):
        supersede(state, f"there was no verdict in shadow, and {proven} is proven", proven=proven)
    elif shift.holds_on(state, candidate):
        supersede(state, f"its step had no verdict, and {proven} is proven", proven=proven)
    elif candidate == state.serving and pending_trip(state, candidate) is not None and has_no_way_back(state):
        supersede(state, f"it tripped, there is nothing to go back to, and {proven} is proven", proven=proven)
    else:
        state.block("CandidateUndecided", candidate, f"{proven} is proven and waits until {candidate} is decided")


def _begin(state: ReconcileState, name: str) -> None:
    keep_prior.end(state, f"{name} needs its place")
    dead = state.stable if state.stable != state.serving and is_dead(state, state.stable) else ""
    if dead and state.statuses[dead].unloaded_at is None:
        state.update(dead, unloaded_at=to_text(state.now))
    stays = {state.serving, name, "" if dead else state.stable}
    there = {n for n, one in state.obs.loaded.items() if one.exists}
    # By a rollback, whether they can be made or not.
    waited_for = {n for n in state.keep_loaded if not is_dead(state, n)}
    leaving = sorted((there | waited_for) - stays - state.foreign.keys())
    if leaving:
        state.make_room = True
        state.block("Draining", ", ".join(leaving), "at most two revisions are loaded at a time")
        state.requeue_at(state.now + 2)
        return
    # What tripped is nothing to go back to, although it serves.
    good = bool(state.stable) and is_way_back(state.statuses[state.stable])
    prior = state.stable if good or not state.stable else rollback_target(state, state.stable)
    rollout = RolloutStatus(
        settings=state.spec.rollout,
        guardrails=state.spec.guardrails,
        gate_hash=recipe.gate_hash(state, name),
        started_at=to_text(state.now),
        prior=prior,
        columns_before=_columns_before(state, name, prior),
    )
    state.update(name, phase=Phase.SURGING, rollout=rollout, restored_at=None)
    state.candidate, state.preparing = name, ""


def _columns_before(state: ReconcileState, name: str, prior: str) -> dict[str, str] | None:
    """What filters could name in the revision that a rollback goes to. None: no rule asks, or its report is of a
    release that did not tell."""
    if all(rule.metric is not GuardrailMetric.FILTERS_LOST for rule in state.spec.guardrails.rules):
        return None
    if not prior:
        return {}
    before, now = state.statuses[prior].report, state.statuses[name].report
    took = before.filters if before is not None else None
    if took is False:
        return {}  # it refused every filter: none can be lost
    if took is None and now is not None and now.filters is False:
        return None  # it may have been of the same type
    columns = state.revision(prior).spec.columns
    types = gate.column_types(columns, before)
    return types if len(types) == len(columns.metadata) else None


def resume_outgoing(state: ReconcileState) -> None:
    """What was to take its place failed, may not begin, or is not wanted any more: it is the candidate again, and
    judged as one."""
    status = state.statuses.get(state.serving)
    if status is not None and status.phase == Phase.OUTGOING:
        state.update(state.serving, phase=Phase.SOAKING, message="nothing takes its place: it soaks on")
        state.find_slots()


def _surge(state: ReconcileState, name: str) -> None:
    state.keep_loaded.add(name)
    complete = state.loaded(name).complete(state.spec.searcher.replicas)
    if not complete:
        _wait_for_pods(state, name)
    # What has begun in shadow goes on while a pod is away.
    shadowing = state.candidate == name and state.statuses[name].phase == Phase.SHADOWING
    ready = (complete or shadowing) and shadow.step(state, name, complete=complete) and complete
    held = ready and pause.holds(state, name)
    rollout = state.statuses[name].rollout
    if complete and (shadowing or held) and rollout is not None and rollout.progress_since is not None:
        # It has its pods: one that it loses later, however late, has all the time there is.
        state.update(name, rollout=rollout.model_copy(update={"progress_since": None}))
    if ready and not held and shift.step(state, name, complete=complete):
        _switch(state, name)


def _shift(state: ReconcileState, name: str) -> None:
    """Its pods were all ready when its steps began; what becomes of one that is not any more, guardrails say."""
    state.keep_loaded.add(name)
    replicas = state.spec.searcher.replicas
    complete = state.loaded(name).complete(replicas)
    if not complete:
        state.block("StepWaits", name, f"not all of its {replicas} searchers are ready: it gets no larger share")
        state.requeue_at(state.now + 5)
    if shift.step(state, name, complete=complete) and complete and not pause.holds(state, name):
        _switch(state, name)


def _wait_for_pods(state: ReconcileState, name: str) -> None:
    loaded, replicas = state.loaded(name), state.spec.searcher.replicas
    state.requeue_at(state.now + 5)
    refused = _refusal(loaded, replicas)
    if refused:
        phase, reason, message = refused
        give_up(state, name, phase, stage=SURGE, reason=reason, message=message)
        return
    pods = [pod for pod in loaded.pods if not pod.deleting]
    unschedulable = next((pod.unschedulable for pod in pods if pod.unschedulable), "")
    if unschedulable:
        state.block("Unschedulable", f"Pod of {name}", unschedulable)
    waiting = next((pod.waiting for pod in pods if pod.waiting), "")
    if waiting:
        state.block("PodWaiting", f"Pod of {name}", waiting)
    rollout = state.statuses[name].rollout
    if rollout is None:
        return
    placed = bool(pods) and all(pod.scheduled_at is not None for pod in pods)
    if not placed or loaded.refused or waiting.startswith(("Secret/", "ConfigMap/", "ServiceAccount/")):
        # A place, a key or a quota is missing: that is no fault of the revision, so the deadline does not run.
        state.update(name, rollout=rollout.model_copy(update={"progress_since": None}))
        return
    if rollout.progress_since is None:
        rollout = rollout.model_copy(update={"progress_since": to_text(state.now)})
        state.update(name, rollout=rollout)
    deadline = to_unix(rollout.progress_since or "") + duration_seconds(rollout.settings.progress_deadline)
    if state.seen_at >= deadline:
        message = f"{loaded.ready} of {replicas} searchers ready after {rollout.settings.progress_deadline}"
        why = f"{message}{': ' + waiting if waiting else ''}"
        give_up(state, name, Phase.SURGE_FAILED, stage=SURGE, reason="ProgressDeadline", message=why)
    else:
        state.requeue_at(deadline)


def _refusal(loaded: LoadedRevision, replicas: int) -> tuple[Phase, str, str] | None:
    """Phase, reason and message when every pod of a group refuses to serve this artifact; None while one of each may
    still come up."""
    for group, there in sorted(loaded.groups.items()):
        pods = [pod for pod in there if not pod.deleting]
        refusing = [pod for pod in pods if pod.failure is not None and pod.restarts >= REFUSALS_BEFORE_GIVING_UP]
        if len(pods) < replicas or len(refusing) < len(pods):
            continue
        failure = refusing[0].failure
        assert failure is not None
        phase = Phase.REJECTED if failure.reason == CANARY_RECALL else Phase.SURGE_FAILED
        who = f"every searcher of shard {group.shard}" if group.role == SHARD_GROUP else f"every {group.role}"
        return phase, failure.reason, f"{who} refuses: {failure.message}"
    return None


def _switch(state: ReconcileState, name: str) -> None:
    """All pods proved themselves in this very look: move the traffic."""
    status = state.statuses[name]
    source = state.serving if state.serving != name else state.stable
    recall = f"recall {status.recall}" if status.recall else "proven"
    message = f"{name} is ready on {state.loaded(name).ready} pods, {recall}"
    if status.rollout is not None and status.rollout.shadow is not None:
        message = f"{message}, in shadow: {status.rollout.shadow.outcome}"
    if status.rollout is not None and status.rollout.steps is not None:
        message = f"{message}, in steps: {status.rollout.steps.outcome}"
    moved = give_traffic(
        state, DecisionKind.SWITCH, name, from_revision=source, rule="Surge", reason="Ready", message=message
    )
    if moved and source:
        state.keep_loaded.add(source)
    state.requeue_at(state.now + 1)
