"""The candidate is loaded beside the stable revision; each pod proves itself; then the traffic is switched to it."""

from __future__ import annotations

from vectorindex_operator.api.quantities import duration_seconds
from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import Rejection, RolloutStatus
from vectorindex_operator.core import identity
from vectorindex_operator.core.observation import Decision, DecisionKind, LoadedRevision
from vectorindex_operator.core.progress import desired
from vectorindex_operator.core.safety.record_decision import settle
from vectorindex_operator.core.state import ReconcileState

CANARY_RECALL = "CanaryRecall"
REFUSALS_BEFORE_GIVING_UP = 2
"""A pod that refused this often is believed: one bad download is not a bad artifact."""


def step(state: ReconcileState) -> None:
    if state.preparing and not state.candidate and state.statuses[state.preparing].phase == "Validated":
        _begin(state, state.preparing)
    elif state.preparing and state.candidate and state.statuses[state.preparing].phase == "Validated":
        if desired.same_recipe(state, state.candidate):
            state.block(
                "CandidateUndecided",
                state.candidate,
                f"{state.preparing} is proven and waits until {state.candidate} is decided",
            )
        else:
            desired.give_up_candidate(state, f"the spec changed, and {state.preparing} is proven")
    if state.candidate and state.statuses[state.candidate].phase == "Surging":
        _surge(state, state.candidate)


def _begin(state: ReconcileState, name: str) -> None:
    leaving = [n for n, one in state.obs.loaded.items() if one.exists and n not in (state.stable, state.serving, name)]
    if leaving:
        state.block("Draining", ", ".join(leaving), "at most two revisions are loaded at a time")
        state.requeue_at(state.now + 2)
        return
    rollout = RolloutStatus(
        settings=state.spec.rollout,
        guardrails=state.spec.guardrails,
        gate_hash=identity.gate_hash(state.spec),
        started_at=to_text(state.now),
        prior=state.stable,
    )
    state.update(name, phase="Surging", rollout=rollout, restored_at=None)
    state.candidate, state.preparing = name, ""


def _surge(state: ReconcileState, name: str) -> None:
    state.keep_loaded.add(name)
    loaded = state.loaded(name)
    replicas = state.spec.searcher.replicas
    if loaded.ready >= replicas:
        if state.has_moved:
            state.requeue_at(state.now + 1)
        else:
            _switch(state, name)
        return
    state.requeue_at(state.now + 5)
    refused = _refusal(loaded, replicas)
    if refused:
        _give_up(state, name, *refused)
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
    if not placed or waiting.startswith(("Secret/", "ServiceAccount/")):
        # A place or a key is missing: that is no fault of the revision, so the deadline does not run.
        state.update(name, rollout=rollout.model_copy(update={"progress_since": None}))
        return
    if rollout.progress_since is None:
        rollout = rollout.model_copy(update={"progress_since": to_text(state.now)})
        state.update(name, rollout=rollout)
    deadline = to_unix(rollout.progress_since or "") + duration_seconds(rollout.settings.progress_deadline)
    if state.now >= deadline:
        message = f"{loaded.ready} of {replicas} searchers ready after {rollout.settings.progress_deadline}"
        _give_up(state, name, "SurgeFailed", "ProgressDeadline", f"{message}{': ' + waiting if waiting else ''}")
    else:
        state.requeue_at(deadline)


def _refusal(loaded: LoadedRevision, replicas: int) -> tuple[str, str, str] | None:
    """Phase, reason and message when every pod refuses to serve this artifact; None while one may still come up."""
    pods = [pod for pod in loaded.pods if not pod.deleting]
    refusing = [pod for pod in pods if pod.failure is not None and pod.restarts >= REFUSALS_BEFORE_GIVING_UP]
    if len(pods) < replicas or len(refusing) < len(pods):
        return None
    failure = refusing[0].failure
    assert failure is not None
    phase = "Rejected" if failure.reason == CANARY_RECALL else "SurgeFailed"
    return phase, failure.reason, f"every searcher refuses: {failure.message}"


def _give_up(state: ReconcileState, name: str, phase: str, reason: str, message: str) -> None:
    rejection = Rejection(stage="Surge", reason=reason, message=message, at=to_text(state.now))
    state.update(name, phase=phase, rejected=rejection, message=message)
    state.keep_loaded.discard(name)
    state.find_slots()


def _switch(state: ReconcileState, name: str) -> None:
    """All pods proved themselves in this very look: move the traffic."""
    status = state.statuses[name]
    source = state.serving if state.serving != name else state.stable
    recall = f"recall {status.recall}" if status.recall else "proven"
    message = f"{name} is ready on {state.loaded(name).ready} pods, {recall}"
    decision = Decision(DecisionKind.SWITCH, source, name, "Surge", "Ready", message, state.decision_time())
    state.move_traffic(decision)
    state.serving = name
    if source:
        state.keep_loaded.add(source)
    settle(state, decision)
    state.find_slots()
    state.requeue_at(state.now + 1)
