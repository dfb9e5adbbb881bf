"""The status of a VectorIndex from one pass: kstatus conditions with the numbers in their messages.

No counters, heartbeats or live figures: a status changes when something happened, so an idle index is never written.
"""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import (
    GROUP,
    Condition,
    HistoryRow,
    RevisionStatus,
    RuleVerdict,
    VectorIndexStatus,
)
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.plan import Event
from vectorindex_operator.core.working import Pass

PROGRESS = frozenset({"Pending", "Building", "Validating", "Validated", "Surging", "Soaking"})
ENDED = {
    "Stable": "Stable",
    "Superseded": "Superseded",
    "Rejected": "Rejected",
    "RolledBack": "RolledBack",
    "BuildFailed": "BuildFailed",
    "SurgeFailed": "SurgeFailed",
}
ALARMING = frozenset({"Rejected", "RolledBack", "BuildFailed", "SurgeFailed"})


def next_status(p: Pass) -> VectorIndexStatus:
    """The status to write if it differs from the one that was read."""
    before = p.obs.index.status
    phase, reason, message = _headline(p)
    serving = p.statuses.get(p.traffic)
    loaded = p.loaded(p.traffic)
    wanted_replicas = p.spec.searcher.replicas
    return VectorIndexStatus(
        observed_generation=p.obs.index.generation,
        phase=phase,
        reason=reason,
        stable=p.stable,
        candidate=p.candidate,
        next=p.next,
        recall=serving.recall if serving else "",
        ready=f"{min(loaded.ready, wanted_replicas)}/{wanted_replicas}" if p.traffic else "",
        replicas=len([pod for pod in loaded.pods if not pod.deleting]),
        selector=f"app.kubernetes.io/component=searcher,{GROUP}/revision={p.traffic}" if p.traffic else "",
        source=p.source,
        conditions=_conditions(p, before, phase, reason, message),
        blocked_by=tuple(p.blocked),
        history=_history(p),
        verbs=tuple(p.verbs[name] for name in sorted(p.verbs)),
    )


def unreadable_spec(obs: Observation, now: float) -> VectorIndexStatus:
    """The stored spec does not fit the models (an older or newer CRD): say so and touch nothing."""
    before = obs.index.status
    rows = [
        ("Ready", _kept(before, "Ready"), "InvalidSpec", obs.index.spec_error),
        ("Stalled", "True", "InvalidSpec", obs.index.spec_error),
    ]
    return before.model_copy(
        update={
            "observed_generation": obs.index.generation,
            "phase": "Stalled",
            "reason": "InvalidSpec",
            "conditions": _stamp(rows, before, obs.index.generation, now),
        }
    )


def phase_events(p: Pass) -> tuple[Event, ...]:
    """One Event for each revision whose phase changed in this pass, and one when nothing goes on any more."""
    events = []
    before = p.obs.index.status
    if p.stall is not None and p.stall.reason != before.reason:
        events.append(Event(True, p.stall.reason, p.stall.message))
    for name, status in p.statuses.items():
        if status.phase == p.obs.revisions[name].status.phase:
            continue
        events.append(Event(status.phase in ALARMING, status.phase, f"{name}: {_phase_message(status)}", revision=name))
    return tuple(events)


def _phase_message(status: RevisionStatus) -> str:
    if status.rejected is not None:
        return f"{status.rejected.reason}: {status.rejected.message}"
    if status.phase == "Building":
        return "building the index"
    if status.phase == "Validating" and status.build is not None and status.report is None:
        build = status.build
        return (
            f"built {build.factory} of {build.count} vectors on {build.device} in {build.duration_seconds:.0f} s; "
            "measuring its recall"
        )
    if status.phase == "Surging":
        return "loading the searchers"
    if status.phase == "Soaking":
        return "has the traffic"
    return status.message or status.phase


def _headline(p: Pass) -> tuple[str, str, str]:
    """Phase, reason and message: what is going on with the revision that is wanted."""
    if p.stall is not None and (p.stall.everything or (p.stall.permanent and not p.candidate)):
        return "Stalled", p.stall.reason, p.stall.message
    if p.stall is not None and not p.candidate and not p.next:
        return "Retrying", p.stall.reason, p.stall.message
    for name in (p.candidate, p.next):
        if name:
            status = p.statuses[name]
            waits = p.blocked[0].message if p.blocked else ""
            reason = p.blocked[0].rule if p.blocked else status.phase
            return status.phase, reason, f"{name}: {waits or _phase_message(status)}"
    wanted = p.statuses.get(p.wanted)
    if wanted is not None and wanted.rejected is not None:
        return wanted.phase, wanted.rejected.reason, f"{p.wanted}: {wanted.rejected.message}"
    if wanted is not None and p.wanted == p.stable:
        return "Stable", "Stable", f"{p.stable} is stable"
    if wanted is not None:
        return wanted.phase, wanted.phase, f"{p.wanted}: {_phase_message(wanted)}"
    if p.source is None or not p.wanted:
        return "Resolving", "Resolving", "listing the source"
    return "Pending", "Pending", f"{p.wanted} is being prepared"


def _conditions(p: Pass, before: VectorIndexStatus, phase: str, reason: str, message: str) -> tuple[Condition, ...]:
    rows: list[tuple[str, str, str, str]] = []
    ready = p.loaded(p.traffic).ready if p.traffic else 0
    if ready:
        rows.append(("Ready", "True", "Serving", f"{p.traffic} answers queries"))
    elif p.traffic:
        rows.append(("Ready", "False", "NoReadyPods", f"no searcher of {p.traffic} is ready"))
    else:
        rows.append(("Ready", "False", "NoRevision", "no revision has been proven yet"))
    done = bool(p.wanted) and p.wanted == p.stable and p.traffic == p.stable
    rows.append(("RolledOut", "True" if done else "False", "Stable" if done else reason, message))
    stalled = phase == "Stalled" or phase in ALARMING
    if stalled:
        rows.append(("Stalled", "True", "RolledBack" if phase == "RolledBack" else reason, message))
    elif not done:
        rows.append(("Reconciling", "True", reason, message))
    rows += _milestones(p)
    return _stamp(rows, before, p.obs.index.generation, p.now)


def _milestones(p: Pass) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    if p.source_stall is not None:
        rows.append(("DatasetResolved", "False", p.source_stall.reason, p.source_stall.message))
    elif p.source is not None:
        rows.append(("DatasetResolved", "True", "Resolved", f"{p.source.objects} objects, {p.source.bytes} bytes"))
    newest = p.candidate or p.next or p.wanted
    status = p.statuses.get(newest)
    if status is not None:
        rows += _built_and_validated(newest, status)
    judged = p.statuses.get(p.traffic)
    rollout = judged.rollout if judged is not None else None
    if rollout is not None and rollout.verdicts:
        worst = _worst(rollout.verdicts)
        rows.append(("GuardrailsHealthy", *worst))
    elif p.traffic:
        reason = "NoPrior" if rollout is not None and not rollout.prior else "NoVerdict"
        rows.append(("GuardrailsHealthy", "Unknown", reason, "no guardrail has been judged"))
    others = [n for n, s in p.statuses.items() if n != p.traffic and s.promoted_at and s.rejected is None]
    if p.traffic:
        target = max(others, key=lambda n: (n == p.stable, p.statuses[n].promoted_at or ""), default="")
        how = "its searchers are loaded" if p.loaded(target).ready else "it would be loaded from its artifact first"
        rows.append(
            ("RollbackPossible", "True", "Warm" if p.loaded(target).ready else "Cold", f"to {target}: {how}")
            if target
            else ("RollbackPossible", "False", "NoPrior", "there is no earlier proven revision")
        )
    return rows


def _built_and_validated(name: str, status: RevisionStatus) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    if status.build is not None:
        rows.append(("Built", "True", "Built", f"{name}: {status.build.factory}, {status.build.count} vectors"))
    elif status.failure is not None and status.failure.stage == "Build":
        rows.append(("Built", "False", status.failure.reason, status.failure.message))
    else:
        rows.append(("Built", "Unknown", status.phase, f"{name} is not built yet"))
    if status.gate is not None:
        value = {"Pass": "True", "Fail": "False", "Inconclusive": "Unknown"}[status.gate.verdict]
        rows.append(("Validated", value, status.gate.reason, f"{name}: {status.gate.message}"))
    elif status.failure is not None and status.failure.stage == "Validate":
        rows.append(("Validated", "False", status.failure.reason, status.failure.message))
    else:
        rows.append(("Validated", "Unknown", "NotMeasured", f"{name} is not measured yet"))
    return rows


def _worst(verdicts: tuple[RuleVerdict, ...]) -> tuple[str, str, str]:
    for verdict, value in (("Fail", "False"), ("Error", "Unknown"), ("Inconclusive", "Unknown")):
        for row in verdicts:
            if row.verdict == verdict:
                return value, row.reason, f"{row.rule}: {row.message}"
    return "True", "Pass", f"{len(verdicts)} guardrails pass"


def _history(p: Pass) -> tuple[HistoryRow, ...]:
    rows = [
        HistoryRow(
            revision=name,
            digest=p.revision(name).spec.digest[:12],
            outcome=ENDED[status.phase],
            reason=status.rejected.reason if status.rejected else status.phase,
            message=(status.rejected.message if status.rejected else status.message)[:512],
            at=status.phase_times.get(status.phase, to_text(p.revision(name).created_at)),
        )
        for name, status in p.statuses.items()
        if status.phase in ENDED
    ]
    return tuple(sorted(rows, key=lambda row: (row.at, row.revision), reverse=True))[:20]


def _kept(before: VectorIndexStatus, kind: str) -> str:
    return next((c.status for c in before.conditions if c.type == kind), "Unknown")


def _stamp(
    rows: list[tuple[str, str, str, str]], before: VectorIndexStatus, generation: int, now: float
) -> tuple[Condition, ...]:
    """Conditions of `rows`; the transition time is kept while the status value stays."""
    known = {c.type: c for c in before.conditions}
    stamped = []
    for kind, value, reason, message in rows:
        old = known.get(kind)
        at = old.last_transition_time if old is not None and old.status == value else to_text(now)
        stamped.append(
            Condition(
                type=kind,
                status=value,
                observed_generation=generation,
                last_transition_time=at,
                reason=reason or "Unknown",
                message=message[:32768],
            )
        )
    return tuple(stamped)
