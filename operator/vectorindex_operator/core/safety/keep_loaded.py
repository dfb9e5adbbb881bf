"""What stays loaded, what is retired after its connections have drained, which revisions fall out of the history."""

from __future__ import annotations

from vectorindex_operator.api.v1alpha1 import GuardrailMetric, RolloutStatus
from vectorindex_operator.core.observation import JobState, Task
from vectorindex_operator.core.plan import DeleteSearchers, EnsureSearchers, ForgetRevision, RenewLeases
from vectorindex_operator.core.state import CANDIDATE_PHASES, NEXT_PHASES, ReconcileState
from vectorindex_searcher.contract import KEEP_ALIVE_SECONDS, BuildResult, LeaseState

RETIRE_AFTER_SECONDS = KEEP_ALIVE_SECONDS * 1.5
"""Longer than the oldest (jittered) connection to a searcher lives: after this nobody talks to it any more."""
LEASE_LOOK_SECONDS = 10.0


def step(state: ReconcileState) -> None:
    state.keep_loaded.update({state.stable, state.candidate, state.serving} & set(state.statuses))
    state.keep_loaded.discard("")
    for name in sorted(state.keep_loaded & set(state.statuses)):
        _load(state, name)
    for name, loaded in sorted(state.obs.loaded.items()):
        if loaded.exists and name not in state.keep_loaded and name != state.serving:
            _retire(state, name)
    _tell(state)
    _stop_unwanted_work(state)
    _forget(state)


def _load(state: ReconcileState, name: str) -> None:
    status = state.statuses[name]
    if status.build is None or status.report is None:
        return
    live_recall = _judges_live_recall(status.rollout)
    state.act(
        EnsureSearchers(
            revision=name,
            replicas=state.spec.searcher.replicas,
            manifest_sha256=status.build.manifest_sha256,
            gate_hash=status.report.gate_hash,
            report_sha256=status.report.report_sha256,
            resident_bytes=status.build.resident_bytes,
            live_recall=live_recall,
            disk_bytes=_disk_bytes(status.build, live_recall),
        )
    )


def _disk_bytes(build: BuildResult, live_recall: bool) -> int | None:
    if build.vectors_bytes is None:
        return None
    return build.resident_bytes + (build.vectors_bytes if live_recall else 0)


def _judges_live_recall(rollout: RolloutStatus | None) -> bool:
    """By the guardrails frozen into the rollout: an edit of the spec restarts no pods."""
    return rollout is not None and any(rule.metric is GuardrailMetric.LIVE_RECALL for rule in rollout.guardrails.rules)


def _retire(state: ReconcileState, name: str) -> None:
    status = state.statuses.get(name)
    drained_at = 0.0 if status is None else state.now - state.age(status.lost_traffic_at) + RETIRE_AFTER_SECONDS
    if state.now < drained_at:
        state.requeue_at(drained_at)
        return
    state.act(DeleteSearchers(name))


def _tell(state: ReconcileState) -> None:
    """Pods that lost the traffic close their connections; those that got it back stop doing so."""
    if len([one for one in state.obs.loaded.values() if one.exists]) < 2 or not state.serving:
        return
    for name, loaded in sorted(state.obs.loaded.items()):
        addresses = tuple(pod.address for pod in loaded.pods if pod.address and pod.ready)
        surging = name in state.statuses and state.statuses[name].phase == "Surging"
        if addresses and not surging:
            lease = LeaseState.SERVING if name == state.serving else LeaseState.DRAINING
            state.act(RenewLeases(name, addresses, lease))
            state.requeue_at(state.now + LEASE_LOOK_SECONDS)


def _stop_unwanted_work(state: ReconcileState) -> None:
    """Jobs of revisions that nobody prepares any more, whenever that was decided."""
    for verb in (Task.BUILD, Task.VALIDATE):
        for name in {j.revision for j in state.obs.jobs if j.task is verb}:
            status = state.statuses.get(name)
            if status is None or status.phase not in NEXT_PHASES:
                state.delete_jobs(j for j in state.jobs(verb, name) if j.state is JobState.RUNNING)


def _forget(state: ReconcileState) -> None:
    """Keep `spec.history` proven revisions to go back to, and as many failed ones to read; never the wanted one."""
    slots = {state.stable, state.candidate, state.preparing, state.desired, state.serving} | state.keep_loaded
    rest = [n for n, s in state.statuses.items() if n not in slots and s.phase not in NEXT_PHASES | CANDIDATE_PHASES]
    for group in (
        [n for n in rest if state.statuses[n].promoted_at],
        [n for n in rest if not state.statuses[n].promoted_at],
    ):
        newest = sorted(group, key=lambda n: (state.revision(n).created_at, n), reverse=True)
        for name in newest[state.spec.history :]:
            if not state.loaded(name).exists:
                state.delete_jobs([*state.jobs(Task.BUILD, name), *state.jobs(Task.VALIDATE, name)])
                state.act(ForgetRevision(name, state.revision(name).uid))
