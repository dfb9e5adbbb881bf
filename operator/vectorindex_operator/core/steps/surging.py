"""The candidate is loaded beside the stable revision; each pod proves itself; then the traffic is switched to it."""

from __future__ import annotations

from vectorindex_operator.api.quantities import duration_seconds
from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import Rejection, RolloutStatus
from vectorindex_operator.core import revision
from vectorindex_operator.core.observation import Decision, DecisionKind, LoadedRevision
from vectorindex_operator.core.steps import wanting
from vectorindex_operator.core.steps.settling import settle
from vectorindex_operator.core.working import Pass

CANARY_RECALL = "CanaryRecall"
REFUSALS_BEFORE_GIVING_UP = 2
"""A pod that refused this often is believed: one bad download is not a bad artifact."""


def step(p: Pass) -> None:
    if p.next and not p.candidate and p.statuses[p.next].phase == "Validated":
        _begin(p, p.next)
    elif p.next and p.candidate and p.statuses[p.next].phase == "Validated":
        if wanting.same_recipe(p, p.candidate):
            p.block("CandidateUndecided", p.candidate, f"{p.next} is proven and waits until {p.candidate} is decided")
        else:
            wanting.give_up_candidate(p, f"the spec changed, and {p.next} is proven")
    if p.candidate and p.statuses[p.candidate].phase == "Surging":
        _surge(p, p.candidate)


def _begin(p: Pass, name: str) -> None:
    leaving = [n for n, one in p.obs.loaded.items() if one.exists and n not in (p.stable, p.traffic, name)]
    if leaving:
        p.block("Draining", ", ".join(leaving), "at most two revisions are loaded at a time")
        p.wake_at(p.now + 2)
        return
    rollout = RolloutStatus(
        settings=p.spec.rollout,
        guardrails=p.spec.guardrails,
        gate_hash=revision.gate_hash(p.spec),
        started_at=to_text(p.now),
        prior=p.stable,
    )
    p.update(name, phase="Surging", rollout=rollout, restored_at=None)
    p.candidate, p.next = name, ""


def _surge(p: Pass, name: str) -> None:
    p.keep.add(name)
    loaded = p.loaded(name)
    replicas = p.spec.searcher.replicas
    if loaded.ready >= replicas:
        if p.has_moved:
            p.wake_at(p.now + 1)
        else:
            _switch(p, name)
        return
    p.wake_at(p.now + 5)
    refused = _refusal(loaded, replicas)
    if refused:
        _give_up(p, name, *refused)
        return
    pods = [pod for pod in loaded.pods if not pod.deleting]
    unschedulable = next((pod.unschedulable for pod in pods if pod.unschedulable), "")
    if unschedulable:
        p.block("Unschedulable", f"Pod of {name}", unschedulable)
    waiting = next((pod.waiting for pod in pods if pod.waiting), "")
    if waiting:
        p.block("PodWaiting", f"Pod of {name}", waiting)
    rollout = p.statuses[name].rollout
    if rollout is None:
        return
    placed = bool(pods) and all(pod.scheduled_at is not None for pod in pods)
    if not placed or waiting.startswith(("Secret/", "ServiceAccount/")):
        # A place or a key is missing: that is no fault of the revision, so the deadline does not run.
        p.update(name, rollout=rollout.model_copy(update={"progress_since": None}))
        return
    if rollout.progress_since is None:
        rollout = rollout.model_copy(update={"progress_since": to_text(p.now)})
        p.update(name, rollout=rollout)
    deadline = to_unix(rollout.progress_since or "") + duration_seconds(rollout.settings.progress_deadline)
    if p.now >= deadline:
        message = f"{loaded.ready} of {replicas} searchers ready after {rollout.settings.progress_deadline}"
        _give_up(p, name, "SurgeFailed", "ProgressDeadline", f"{message}{': ' + waiting if waiting else ''}")
    else:
        p.wake_at(deadline)


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


def _give_up(p: Pass, name: str, phase: str, reason: str, message: str) -> None:
    rejection = Rejection(stage="Surge", reason=reason, message=message, at=to_text(p.now))
    p.update(name, phase=phase, rejected=rejection, message=message)
    p.keep.discard(name)
    p.find_slots()


def _switch(p: Pass, name: str) -> None:
    """All pods proved themselves in this very look: move the traffic."""
    status = p.statuses[name]
    source = p.traffic if p.traffic != name else p.stable
    recall = f"recall {status.recall}" if status.recall else "proven"
    message = f"{name} is ready on {p.loaded(name).ready} pods, {recall}"
    decision = Decision(DecisionKind.SWITCH, source, name, "Surge", "Ready", message, p.decision_time())
    p.move_traffic(decision)
    p.traffic = name
    if source:
        p.keep.add(source)
    settle(p, decision)
    p.find_slots()
    p.wake_at(p.now + 1)
