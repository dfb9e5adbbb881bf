"""The status of a VectorIndex from one pass: kstatus conditions with the numbers in their messages.

No counters, heartbeats or live figures: a status changes when something happened, so an idle index is never written.
"""

from __future__ import annotations

from collections.abc import Iterator

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import (
    GROUP,
    BlockedBy,
    Condition,
    HistoryRow,
    RevisionStatus,
    RuleVerdict,
    VectorIndexStatus,
    VerbResult,
)
from vectorindex_operator.core import recipe
from vectorindex_operator.core.commands import COMMANDS
from vectorindex_operator.core.fresh_condition import condition
from vectorindex_operator.core.in_effect import pending_edits
from vectorindex_operator.core.notices import notified
from vectorindex_operator.core.phase import ENDED, Phase
from vectorindex_operator.core.plan import EnsureRoute
from vectorindex_operator.core.safety.operating_point import degraded
from vectorindex_operator.core.safety.roll_back import load_time, rollback_target
from vectorindex_operator.core.state import ReconcileState
from vectorindex_operator.core.story import NOTHING_BEGINS, SUSPENDED, Story

ARTIFACT_GONE = "ArtifactGone"
"""Reason of RollbackPossible: False where nothing of the target is loaded, True while its pods last."""
MOST_FOREIGN = 10
"""Rows about revisions that this release must leave alone."""


def next_status(state: ReconcileState, told: Story) -> VectorIndexStatus:
    """The status to write if it differs from the one that was read."""
    before = state.obs.index.status
    serving = state.statuses.get(state.serving)
    loaded = state.loaded(state.serving)
    wanted_replicas = state.live.searcher.replicas if state.live is not None else loaded.replicas
    fresh = VectorIndexStatus(
        observed_generation=state.obs.index.generation,
        phase=told.phase,
        reason=told.reason,
        stable=state.stable,
        candidate=state.candidate,
        next=state.preparing,
        recall=serving.recall if serving else "",
        ready=f"{min(loaded.ready, wanted_replicas)}/{wanted_replicas}" if state.serving else "",
        replicas=len([pod for pod in loaded.answering if not pod.deleting]),
        selector=f"app.kubernetes.io/component=searcher,{GROUP}/revision={state.serving}" if state.serving else "",
        source=state.source,
        conditions=_conditions(state, before, told),
        blocked_by=(*state.blocked, *_foreign(state)),
        history=_history(state),
        verbs=_answers(state),
        rebuilds=recipe.highest_build(state.obs) or None,
        live=state.live,
        fresh=state.fresh,
        route=_route(state),
    )
    if state.settings.notifies:
        told_of = notified(before.notified, state.notices, state.obs.taken)
        fresh = fresh.model_copy(update={"notified": told_of})
    return before.with_fields_of(fresh)  # what another release wrote there stays


def _route(state: ReconcileState) -> str | None:
    """Noted from before it is made until nothing of it is left, since by this note it is looked for."""
    view = state.obs.route
    planned = any(isinstance(action, EnsureRoute) for action in state.planned)
    left = (view.exists and view.owned) or view.services or view.unknown
    kept = state.obs.index.status.route if left else None
    return state.obs.index.name if planned else kept


def _answers(state: ReconcileState) -> tuple[VerbResult, ...]:
    """What became of requests; of one that nobody knows as long as its annotation is there."""
    asked = {command.name for command in state.obs.index.commands}
    return tuple(state.verbs[name] for name in sorted(state.verbs) if name in COMMANDS or name in asked)


def _foreign(state: ReconcileState) -> Iterator[BlockedBy]:
    for name, why in sorted(state.foreign.items())[:MOST_FOREIGN]:
        message = f"this operator {why}: it is left as it is. Upgrade the operator, or delete the revision"
        yield BlockedBy(rule="ForeignRevision", subject=f"VectorIndexRevision/{name}", message=message)


def _conditions(state: ReconcileState, before: VectorIndexStatus, told: Story) -> tuple[Condition, ...]:
    rows: list[tuple[str, str, str, str]] = []
    ready = state.loaded(state.serving).ready if state.serving else 0
    if ready and state.obs.traffic.endpoints == 0 and not state.has_moved:
        message = f"searchers of {state.serving} are ready, and Service/{state.obs.index.name} has no endpoint"
        rows.append(("Ready", "False", "NoEndpoints", message))
    elif ready:
        rows.append(("Ready", "True", "Serving", f"{state.serving} answers queries"))
    elif state.serving:
        rows.append(("Ready", "False", "NoReadyPods", f"no searcher of {state.serving} is ready"))
    else:
        rows.append(("Ready", "False", "NoRevision", "no revision has been proven yet"))
    done = bool(state.desired) and state.desired == state.stable and state.serving == state.stable
    rows.append(("RolledOut", "True" if done else "False", "Stable" if done else told.reason, told.message))
    if told.alarming:
        reason = Phase.ROLLED_BACK if told.phase == Phase.ROLLED_BACK else told.reason
        rows.append(("Stalled", "True", reason, told.message))
    elif not done and told.phase != SUSPENDED:
        rows.append(("Reconciling", "True", told.reason, told.message))
    if (low := degraded(state)) is not None:
        rows.append(("Degraded", "True", *low))
    if told.suspended:
        rows.append((SUSPENDED, "True", "SpecSuspend", f"{NOTHING_BEGINS}; what serves is looked after"))
    waiting = pending_edits(state)
    if state.serving:
        everything = "the whole spec is in effect"
        rows.append(
            ("UpToDate", "False", "EditsPending", "; ".join(waiting))
            if waiting
            else ("UpToDate", "True", "InEffect", everything)
        )
    if (answered := condition(state)) is not None:
        rows.append(("FreshRows", *answered))
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
    if state.serving:
        rows.append(("RollbackPossible", *_way_back(state)))
    return rows


def _way_back(state: ReconcileState) -> tuple[str, str, str]:
    """Whether a rollback would find what it needs: ready pods, or an artifact to load them from."""
    target = rollback_target(state, state.serving)
    if not target:
        return "False", "NoPrior", "there is no earlier proven revision"
    warm, gone_at = state.loaded(target).ready, state.statuses[target].artifact_gone_at
    if gone_at:
        gone = f"its artifact is gone from object storage, as was seen at {gone_at}"
        if not warm:
            return "False", ARTIFACT_GONE, f"to {target}: {gone}, and its searchers are not loaded"
        return "True", ARTIFACT_GONE, f"to {target}: its searchers are loaded, but one that starts again fails: {gone}"
    if not warm:
        takes = load_time(state, target)
        message = f"to {target}: it would be loaded from its artifact first"
        return "True", "Cold", f"{message}, which takes {takes}" if takes else message
    kept = state.stable_rollout if target == state.kept else None
    lasts = f", and stay so until {kept.prior_kept_until} at the latest" if kept is not None else ""
    return "True", "Warm", f"to {target}: its searchers are loaded{lasts}"


def _built_and_validated(name: str, status: RevisionStatus) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    if status.build is not None:
        rows.append(("Built", "True", "Built", f"{name}: {status.build.factory}, {status.build.count} vectors"))
    elif status.failure is not None and status.failure.stage == "Build":
        rows.append(("Built", "False", status.failure.reason, status.failure.message))
    else:
        rows.append(("Built", "Unknown", status.phase, f"{name} is not built yet"))
    if status.gate is not None:
        value = {"Pass": "True", "Fail": "False"}.get(status.gate.verdict, "Unknown")
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
                return value, row.reason, row.message
    return "True", "Pass", f"{len(verdicts)} guardrails pass"


def _history(state: ReconcileState) -> tuple[HistoryRow, ...]:
    rows = [_history_row(state, name, status) for name, status in state.statuses.items() if status.phase in ENDED]
    return tuple(sorted(rows, key=lambda row: (row.at, row.revision), reverse=True))[:20]


def _history_row(state: ReconcileState, name: str, status: RevisionStatus) -> HistoryRow:
    """How a revision ended. Retired is what became of its pods later, and a word that an earlier release refuses."""
    ended = Phase.SUPERSEDED if status.phase == Phase.RETIRED else status.phase
    view = state.revision(name)
    return HistoryRow(
        revision=name,
        digest=view.spec.digest[:12],
        outcome=ended,
        reason=status.rejected.reason if status.rejected else ended,
        message=(status.rejected.message if status.rejected else status.message)[:512],
        at=status.phase_times.get(ended, to_text(view.created_at)),
    )


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
