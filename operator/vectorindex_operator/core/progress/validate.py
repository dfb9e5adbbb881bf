"""The gate: a Job measures the next revision against exact search; the verdict is judged here, on the saved report.

A changed threshold judges the same report again; changed queries measure again; nothing is rebuilt.
"""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import GateStatus, Live, Rejection
from vectorindex_operator.core import gate, identity, recipe
from vectorindex_operator.core.attempt import Attempt, failures, look, say_why_it_waits, stop
from vectorindex_operator.core.backoff import resolve_wait
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.observation import JobView, Task
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.plan import StartValidation
from vectorindex_operator.core.progress import resolve
from vectorindex_operator.core.safety import pause
from vectorindex_operator.core.state import ReconcileState, Stall
from vectorindex_searcher.contract import (
    LIVE_PODS,
    EncoderTask,
    LiveSource,
    QueryColumns,
    ValidateResult,
    ValidateTask,
)

MOST_LOOKS = 6
"""More halvings of alpha than this ask for a certainty that no number of queries people have can give."""


def step(state: ReconcileState) -> None:
    _judge_again(state)
    name = state.preparing
    if not name or state.statuses[name].build is None:
        return
    status = state.statuses[name]
    wanted = recipe.gate_hash(state, name)
    if status.report is not None and status.report.gate_hash == wanted:
        stop(state, name, Task.VALIDATE)
        _judge(state, name, status.report)
        return
    key = _key(state, name, wanted)
    attempt = look(state, name, Task.VALIDATE, key, ValidateResult, resolve.PERMANENT_EXITS)
    if attempt is None:
        _start(state, name, wanted, key)
    elif attempt.result is not None and attempt.result.gate_hash == wanted:
        _measured(state, name, attempt.result)
    elif attempt.failure is not None or attempt.result is not None:
        _failed(state, name, attempt)
    else:
        _running(state, name, attempt.job)


def _key(state: ReconcileState, name: str, wanted: str) -> str:
    """What a measurement depends on: what is measured, how artifact and queries are reached, and whose turn it awaits:
    a Job cannot be moved to another queue once it runs."""
    frozen, queue = state.revision(name).spec, state.spec.build.queue_name
    access = recipe.changed_access((frozen.artifacts, state.spec.artifacts.place))
    if queue:
        access.append({"queue": queue})
    return identity.attempt_key(wanted, access)


def _running(state: ReconcileState, name: str, job: JobView) -> None:
    failure = state.update(name, phase=Phase.VALIDATING).failure
    if failure is not None:
        state.stall = state.stall or Stall(failure.reason, failure.message, failure.permanent)
    say_why_it_waits(state, job)
    if job.unschedulable:
        state.block("JobWaiting", job.name, job.unschedulable)


def _measured(state: ReconcileState, name: str, report: ValidateResult) -> None:
    recall, p95 = f"{report.overall.recall:.4f}", f"{report.p95_ms:.2f}ms"
    state.update(name, report=report, failure=None, recall=recall, p95=p95)
    _judge(state, name, report)


def _judge_again(state: ReconcileState) -> None:
    """The wanted revision was rejected by the gate, and the gate has changed since."""
    status = state.statuses.get(state.desired)
    if status is None or state.preparing or status.phase != Phase.REJECTED or status.rejected is None:
        return
    changed = status.gate is None or status.gate.thresholds_hash != identity.thresholds_hash(state.spec)
    if status.rejected.stage == "Gate" and changed:
        # Its verdict stays until there is another: it was a look.
        changes = {"rejected": None, "pause": pause.left(state, state.desired)}
        state.update(state.desired, phase=Phase.VALIDATING, message="spec.gate changed: judged again", **changes)
        state.preparing = state.desired


def _judge(state: ReconcileState, name: str, report: ValidateResult) -> None:
    status = state.statuses[name]
    built = status.build.default_point.latency_us if status.build is not None else None
    stable = _stable(state)
    verdict = gate.judge(report, state.spec, stable, state.now, built_us=built)
    verdict = verdict.model_copy(update={"looks": _looks_before(status.gate, verdict.gate_hash) or None})
    if status.gate is not None and _same(status.gate, verdict):
        verdict = status.gate
    elif verdict.verdict == "Pass":
        state.event(EventReason.GATE_PASSED, verdict.message, revision=name)
        if lost := gate.lost_filters(report, state.spec, stable):
            state.event(EventReason.FILTERS_DROPPED, lost, revision=name)
    state.update(name, gate=verdict)
    rejects = verdict.verdict == "Fail" or (
        verdict.verdict == "Inconclusive" and state.spec.gate.on_inconclusive == "Reject"
    )
    if rejects:
        rejection = Rejection(stage="Gate", reason=verdict.reason, message=verdict.message, at=to_text(state.now))
        state.update(name, phase=Phase.REJECTED, rejected=rejection, message=verdict.message)
        state.preparing = ""
    elif verdict.verdict == "Inconclusive":
        state.update(name, phase=Phase.VALIDATING, message=verdict.message)
        state.stall = state.stall or Stall(verdict.reason, verdict.message)
        state.block("GateInconclusive", name, verdict.message)
    else:
        state.update(name, phase=Phase.VALIDATED, message=verdict.message)


def _stable(state: ReconcileState) -> gate.Stable:
    status = state.statuses.get(state.stable)
    if status is None:
        return gate.Stable()
    columns = gate.column_types(state.revision(state.stable).spec.columns, status.report)
    build, report = status.build, status.report
    cost = report.cost_us if report is not None and report.cost_us is not None else None
    if cost is None and build is not None:
        cost = build.default_point.latency_us
    same = report is not None and report.gate_hash == recipe.gate_hash(state, state.stable)
    return gate.Stable(
        build.count if build is not None else None,
        columns,
        cost_us=cost,
        relevance=gate.relevances(report) if report is not None and same else {},
        metadata=state.revision(state.stable).spec.columns.metadata,
        filters=report.filters if report is not None else None,
    )


def _same(one: object, other: object) -> bool:
    def key(g: object) -> tuple[object, ...]:
        return tuple(getattr(g, f) for f in ("gate_hash", "thresholds_hash", "verdict", "reason", "message"))

    return key(one) == key(other)


def _start(state: ReconcileState, name: str, wanted: str, key: str) -> None:
    status = state.statuses[name]
    failure = status.failure
    tried = failures(state, name, Task.VALIDATE, key)
    if failure is not None and tried:
        due = to_unix(failure.at) + resolve_wait(tried)
        state.stall = state.stall or Stall(failure.reason, failure.message, permanent=failure.permanent)
        if state.now < due:
            state.requeue_at(due)
            return
    spec, queries = state.revision(name).spec, state.spec.gate.given
    relevance = state.spec.gate.relevance
    assert status.build is not None
    attempt = f"{key}/{tried}"
    task = ValidateTask(
        identity=resolve.artifact_owner(state),
        digest=spec.digest,
        manifest_sha256=status.build.manifest_sha256,
        gate_hash=wanted,
        artifacts=spec.artifacts.reached_by(state.spec.artifacts.place).location(),
        k=state.spec.gate.k,
        confidence=state.spec.gate.recall.confidence,
        queries=queries.where.location() if queries and queries.where else None,
        query_columns=QueryColumns(
            vector=queries.column if queries else "vector",
            segment=queries.segment_column if queries else "",
            relevant=relevance.relevant_column if relevance else "",
            filter=(queries.filter_column or "") if queries else "",
            text=(queries.text_column or "") if queries else "",
        ),
        segments=tuple(s.name for s in state.spec.segments),
        segment_targets=identity.segment_targets(state.spec),
        objective=identity.default_target(state.spec),
        rejections=min(_looks(state, name, wanted), MOST_LOOKS) or None,
        floor=state.spec.gate.recall.min,
        tombstones=recipe.tombstones(spec, state.spec.source.place),
        id_column=spec.columns.id,
        live=_live_source(state),
        cluster=state.settings.cluster_uid,
        encoder=_encoder(state, name),
        rerank=recipe.rerank_task(spec, Live.of(state.spec)) if state.spec.gate.measures_rerank else None,
    )
    build = status.build
    disk = None if build.vectors_bytes is None else build.resident_bytes + build.vectors_bytes
    state.act(StartValidation(identity.gate_job_name(name, attempt), name, attempt, tried, task, disk))
    state.update(name, phase=Phase.VALIDATING)


def _encoder(state: ReconcileState, name: str) -> EncoderTask | None:
    """What must make the vectors of the revision, with what the gate alone needs to know of it."""
    embedding = state.spec.embedding
    task = recipe.encoder_task(state.revision(name).spec, Live.of(state.spec))
    if task is None or embedding.encoder is None:
        return None
    told = {"text_column": embedding.encoder.text_column, "document_prefix": embedding.document_prefix}
    return task.model_copy(update=told)


def _live_source(state: ReconcileState) -> LiveSource | None:
    """Whose live queries the gate asks for: of the pods of stable, as they are now. None: nobody wants to know."""
    live = state.spec.gate.live
    if live is None:
        return None
    stable = state.stable if state.stable in state.statuses else ""
    pods = state.loaded(stable).answering if stable else ()
    addresses = [pod.address for pod in pods if pod.serves and pod.address]
    return LiveSource(
        index_uid=state.obs.index.uid,
        revision=stable,
        addresses=tuple(addresses[:LIVE_PODS]),
        min_queries=live.min_queries,
    )


def _looks(state: ReconcileState, name: str, wanted: str) -> int:
    """How often in a row the gate has looked at the recall of what this index spec builds and let none pass, since
    one of it was last promoted. Whatever failed for another reason (rows, columns, tombstones) was no draw of queries.
    """
    mine = state.revision(name).spec.index_spec
    others = (other for other in state.statuses if other != name and state.revision(other).spec.index_spec == mine)
    return _looks_before(state.statuses[name].gate, wanted) + sum(looks_at(state, other) for other in others)


def looks_at(state: ReconcileState, name: str) -> int:
    """The looks at a revision that later ones count: forgotten, each of these would have the same chance."""
    verdict = state.statuses[name].gate
    if verdict is None or not (looks := _looks_before(verdict, "")):
        return 0
    mine = state.revision(name).spec.index_spec
    promoted = [
        to_unix(one.promoted_at)
        for other, one in state.statuses.items()
        if one.promoted_at and state.revision(other).spec.index_spec == mine
    ]
    return looks if to_unix(verdict.at) > max(promoted, default=0.0) else 0


def _looks_before(verdict: GateStatus | None, gate_hash: str) -> int:
    """Looks at a revision before one by this gate: the same one again is the same look, on the report that is there."""
    if verdict is None:
        return 0
    return (verdict.looks or 0) + (verdict.gate_hash != gate_hash and gate.let_none_pass(verdict))


def _failed(state: ReconcileState, name: str, attempt: Attempt) -> None:
    """The measurement failed, or nobody can read it; it is taken again after a wait."""
    failure = attempt.failure
    if failure is None:  # a report of another gate under this key: another release wrote it
        state.delete_jobs([attempt.job])
        state.requeue_at(state.now + 1)
        return
    state.update(name, phase=Phase.VALIDATING, failure=failure, message=failure.message)
    state.stall = state.stall or Stall(failure.reason, failure.message, permanent=failure.permanent)
    if attempt.unreadable:
        state.delete_jobs([attempt.job])
    state.requeue_at(state.now + 1)
