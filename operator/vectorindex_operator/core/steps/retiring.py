"""What stays loaded, what is retired after its connections have drained, which revisions fall out of the history."""

from __future__ import annotations

from vectorindex_operator.api.v1alpha1 import GuardrailMetric, RolloutStatus
from vectorindex_operator.core.observation import JobState, JobVerb
from vectorindex_operator.core.plan import ForgetRevision, Load, Retire, Tell
from vectorindex_operator.core.working import CANDIDATE_PHASES, NEXT_PHASES, Pass
from vectorindex_searcher.contract import KEEP_ALIVE_SECONDS, BuildResult, LeaseState

DRAIN_SECONDS = KEEP_ALIVE_SECONDS * 1.5
"""Longer than the oldest (jittered) connection to a searcher lives: after this nobody talks to it any more."""
LEASE_LOOK_SECONDS = 10.0


def step(p: Pass) -> None:
    p.keep.update({p.stable, p.candidate, p.traffic} & set(p.statuses))
    p.keep.discard("")
    for name in sorted(p.keep & set(p.statuses)):
        _load(p, name)
    for name, loaded in sorted(p.obs.loaded.items()):
        if loaded.exists and name not in p.keep and name != p.traffic:
            _retire(p, name)
    _tell(p)
    _stop_unwanted_work(p)
    _forget(p)


def _load(p: Pass, name: str) -> None:
    status = p.statuses[name]
    if status.build is None or status.report is None:
        return
    live_recall = _judges_live_recall(status.rollout)
    p.act(
        Load(
            revision=name,
            replicas=p.spec.searcher.replicas,
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


def _retire(p: Pass, name: str) -> None:
    status = p.statuses.get(name)
    drained_at = 0.0 if status is None else p.now - p.age(status.lost_traffic_at) + DRAIN_SECONDS
    if p.now < drained_at:
        p.wake_at(drained_at)
        return
    p.act(Retire(name))


def _tell(p: Pass) -> None:
    """Pods that lost the traffic close their connections; those that got it back stop doing so."""
    if len([one for one in p.obs.loaded.values() if one.exists]) < 2 or not p.traffic:
        return
    for name, loaded in sorted(p.obs.loaded.items()):
        addresses = tuple(pod.address for pod in loaded.pods if pod.address and pod.ready)
        surging = name in p.statuses and p.statuses[name].phase == "Surging"
        if addresses and not surging:
            state = LeaseState.SERVING if name == p.traffic else LeaseState.DRAINING
            p.act(Tell(name, addresses, state))
            p.wake_at(p.now + LEASE_LOOK_SECONDS)


def _stop_unwanted_work(p: Pass) -> None:
    """Jobs of revisions that nobody prepares any more, whenever that was decided."""
    for verb in (JobVerb.BUILD, JobVerb.VALIDATE):
        for name in {j.revision for j in p.obs.jobs if j.verb is verb}:
            status = p.statuses.get(name)
            if status is None or status.phase not in NEXT_PHASES:
                p.delete_jobs(j for j in p.jobs(verb, name) if j.state is JobState.RUNNING)


def _forget(p: Pass) -> None:
    """Keep `spec.history` proven revisions to go back to, and as many failed ones to read; never the wanted one."""
    slots = {p.stable, p.candidate, p.next, p.wanted, p.traffic} | p.keep
    rest = [n for n, s in p.statuses.items() if n not in slots and s.phase not in NEXT_PHASES | CANDIDATE_PHASES]
    for group in (
        [n for n in rest if p.statuses[n].promoted_at],
        [n for n in rest if not p.statuses[n].promoted_at],
    ):
        newest = sorted(group, key=lambda n: (p.revision(n).created_at, n), reverse=True)
        for name in newest[p.spec.history :]:
            if not p.loaded(name).exists:
                p.delete_jobs([*p.jobs(JobVerb.BUILD, name), *p.jobs(JobVerb.VALIDATE, name)])
                p.act(ForgetRevision(name, p.revision(name).uid))
