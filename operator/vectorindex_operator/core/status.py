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
from vectorindex_operator.core.events import Event, EventReason, reason_of
from vectorindex_operator.core.in_effect import pending_edits
from vectorindex_operator.core.phase import ENDED, FAILED, Phase
from vectorindex_operator.core.state import ReconcileState


def next_status(state: ReconcileState) -> VectorIndexStatus:
    """The status to write if it differs from the one that was read."""
    before = state.obs.index.status
    phase, reason, message = _headline(state)
    serving = state.statuses.get(state.serving)
    loaded = state.loaded(state.serving)
    wanted_replicas = state.live.searcher.replicas if state.live is not None else loaded.replicas
    return VectorIndexStatus(
        observed_generation=state.obs.index.generation,
        phase=phase,
        reason=reason,
        stable=state.stable,
        candidate=state.candidate,
        next=state.preparing,
        recall=serving.recall if serving else "",
        ready=f"{min(loaded.ready, wanted_replicas)}/{wanted_replicas}" if state.serving else "",
        replicas=len([pod for pod in loaded.pods if not pod.deleting]),
        selector=f"app.kubernetes.io/component=searcher,{GROUP}/revision={state.serving}" if state.serving else "",
        source=state.source,
        conditions=_conditions(state, before, phase, reason, message),
        blocked_by=tuple(state.blocked),
        history=_history(state),
        verbs=tuple(state.verbs[name] for name in sorted(state.verbs)),
        live=state.live,
    )


def transitions(state: ReconcileState) -> tuple[Event, ...]:
    """One Event for each revision whose phase changed in this pass, and one when nothing goes on any more."""
    events = []
    before = state.obs.index.status
    if state.stall is not None and state.stall.reason != before.reason:
        events.append(Event(EventReason.STALLED, f"{state.stall.reason}: {state.stall.message}"))
    for name, status in state.statuses.items():
        if status.phase == state.obs.revisions[name].status.phase:
            continue
        phase = Phase(status.phase)
        events.append(Event(reason_of(phase), f"{name}: {_phase_message(status)}", revision=name))
    return tuple(events)


def _phase_message(status: RevisionStatus) -> str:
    if status.rejected is not None:
        return f"{status.rejected.reason}: {status.rejected.message}"
    if status.phase == Phase.BUILDING:
        return "building the index"
    if status.phase == Phase.VALIDATING and status.build is not None and status.report is None:
        build = status.build
        return (
            f"built {build.factory} of {build.count} vectors on {build.device} in {build.duration_seconds:.0f} s; "
            "measuring its recall"
        )
    if status.phase == Phase.SURGING:
        return "loading the searchers"
    if status.phase == Phase.SOAKING:
        return "has the traffic"
    return status.message or status.phase


def _headline(state: ReconcileState) -> tuple[str, str, str]:
    """Phase, reason and message: what is going on with the revision that is wanted."""
    if state.stall is not None and (state.stall.everything or (state.stall.permanent and not state.candidate)):
        return "Stalled", state.stall.reason, state.stall.message
    if state.stall is not None and not state.candidate and not state.preparing:
        return "Retrying", state.stall.reason, state.stall.message
    for name in (state.candidate, state.preparing):
        if name:
            status = state.statuses[name]
            waits = state.blocked[0].message if state.blocked else ""
            reason = state.blocked[0].rule if state.blocked else status.phase
            return status.phase, reason, f"{name}: {waits or _phase_message(status)}"
    wanted = state.statuses.get(state.desired)
    if wanted is not None and wanted.rejected is not None:
        return wanted.phase, wanted.rejected.reason, f"{state.desired}: {wanted.rejected.message}"
    if wanted is not None and state.desired == state.stable:
        return "Stable", "Stable", f"{state.stable} is stable"
    if wanted is not None:
        return wanted.phase, wanted.phase, f"{state.desired}: {_phase_message(wanted)}"
    if state.source is None or not state.desired:
        return "Resolving", "Resolving", "listing the source"
    return "Pending", "Pending", f"{state.desired} is being prepared"


def _conditions(
    state: ReconcileState, before: VectorIndexStatus, phase: str, reason: str, message: str
) -> tuple[Condition, ...]:
    rows: list[tuple[str, str, str, str]] = []
    ready = state.loaded(state.serving).ready if state.serving else 0
    if ready:
        rows.append(("Ready", "True", "Serving", f"{state.serving} answers queries"))
    elif state.serving:
        rows.append(("Ready", "False", "NoReadyPods", f"no searcher of {state.serving} is ready"))
    else:
        rows.append(("Ready", "False", "NoRevision", "no revision has been proven yet"))
    done = bool(state.desired) and state.desired == state.stable and state.serving == state.stable
    rows.append(("RolledOut", "True" if done else "False", "Stable" if done else reason, message))
    stalled = phase == "Stalled" or phase in FAILED
    if stalled:
        rows.append(("Stalled", "True", "RolledBack" if phase == "RolledBack" else reason, message))
    elif not done:
        rows.append(("Reconciling", "True", reason, message))
    waiting = pending_edits(state)
    if state.serving:
        everything = "the whole spec is in effect"
        rows.append(
            ("UpToDate", "False", "EditsPending", "; ".join(waiting))
            if waiting
            else ("UpToDate", "True", "InEffect", everything)
        )
    rows += _milestones(state)
    return _stamp(rows, before, state.obs.index.generation, state.now)


def _milestones(state: ReconcileState) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    if state.source_stall is not None:
        rows.append(("DatasetResolved", "False", state.source_stall.reason, state.source_stall.message))
    elif state.source is not None:
        rows.append(
            ("DatasetResolved", "True", "Resolved", f"{state.source.objects} objects, {state.source.bytes} bytes")
        )
    newest = state.candidate or state.preparing or state.desired
    status = state.statuses.get(newest)
    if status is not None:
        rows += _built_and_validated(newest, status)
    judged = state.statuses.get(state.serving)
    rollout = judged.rollout if judged is not None else None
    if rollout is not None and rollout.verdicts:
        worst = _worst(rollout.verdicts)
        rows.append(("GuardrailsHealthy", *worst))
    elif state.serving:
        reason = "NoPrior" if rollout is not None and not rollout.prior else "NoVerdict"
        rows.append(("GuardrailsHealthy", "Unknown", reason, "no guardrail has been judged"))
    others = [n for n, s in state.statuses.items() if n != state.serving and s.promoted_at and s.rejected is None]
    if state.serving:
        target = max(others, key=lambda n: (n == state.stable, state.statuses[n].promoted_at or ""), default="")
        how = "its searchers are loaded" if state.loaded(target).ready else "it would be loaded from its artifact first"
        rows.append(
            ("RollbackPossible", "True", "Warm" if state.loaded(target).ready else "Cold", f"to {target}: {how}")
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


def _history(state: ReconcileState) -> tuple[HistoryRow, ...]:
    rows = [
        HistoryRow(
            revision=name,
            digest=state.revision(name).spec.digest[:12],
            outcome=status.phase,
            reason=status.rejected.reason if status.rejected else status.phase,
            message=(status.rejected.message if status.rejected else status.message)[:512],
            at=status.phase_times.get(status.phase, to_text(state.revision(name).created_at)),
        )
        for name, status in state.statuses.items()
        if status.phase in ENDED
    ]
    return tuple(sorted(rows, key=lambda row: (row.at, row.revision), reverse=True))[:20]


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
