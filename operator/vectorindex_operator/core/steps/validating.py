"""The gate: a Job measures the next revision against exact search; the verdict is judged here, on the saved report.

A changed threshold judges the same report again; changed queries measure again; nothing is rebuilt.
"""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import Rejection, WorkFailure
from vectorindex_operator.core import gate, revision
from vectorindex_operator.core.attempts import resolve_wait
from vectorindex_operator.core.observation import JobState, JobVerb, JobView
from vectorindex_operator.core.plan import StartValidation
from vectorindex_operator.core.steps import resolving
from vectorindex_operator.core.working import Pass, Stall
from vectorindex_searcher.contract import QueryColumns, ValidateResult, ValidateTask


def step(p: Pass) -> None:
    _judge_again(p)
    name = p.next
    if not name or p.statuses[name].build is None:
        return
    status = p.statuses[name]
    wanted = revision.gate_hash(p.spec)
    if status.report is not None and status.report.gate_hash == wanted:
        _judge(p, name, status.report)
        return
    jobs = [j for j in p.jobs(JobVerb.VALIDATE, name) if j.key.split("/")[0] == wanted]
    p.delete_jobs(j for j in p.jobs(JobVerb.VALIDATE, name) if j not in jobs and j.state is JobState.RUNNING)
    if not jobs:
        _start(p, name, wanted)
        return
    job = jobs[0]
    if job.state is JobState.RUNNING:
        p.update(name, phase="Validating")
        if status.failure is not None:
            p.stall = p.stall or Stall(status.failure.reason, status.failure.message, status.failure.permanent)
        if job.waiting or job.unschedulable:
            p.block("JobWaiting", job.name, job.waiting or job.unschedulable)
    elif job.state is JobState.FAILED:
        _failed(p, name, job, wanted)
    elif isinstance(job.result, ValidateResult) and job.result.gate_hash == wanted:
        report = job.result
        p.update(
            name,
            report=report,
            failure=None,
            recall=f"{report.overall.recall:.4f}",
            p95=f"{report.p95_ms:.2f}ms",
        )
        _judge(p, name, report)
    else:
        p.delete_jobs([job])
        p.wake_at(p.now + 1)


def _judge_again(p: Pass) -> None:
    """The wanted revision was rejected by the gate, and the gate has changed since."""
    status = p.statuses.get(p.wanted)
    if status is None or p.next or status.phase != "Rejected" or status.rejected is None:
        return
    changed = status.gate is None or status.gate.thresholds_hash != revision.thresholds_hash(p.spec)
    if status.rejected.stage == "Gate" and changed:
        p.update(p.wanted, phase="Validating", rejected=None, gate=None, message="spec.gate changed: judged again")
        p.next = p.wanted


def _judge(p: Pass, name: str, report: ValidateResult) -> None:
    stable = p.statuses.get(p.stable)
    stable_count = stable.build.count if stable is not None and stable.build is not None else None
    status = p.statuses[name]
    verdict = gate.judge(report, p.spec, stable_count, p.now)
    if status.gate is not None and _same(status.gate, verdict):
        verdict = status.gate
    elif verdict.verdict == "Pass":
        p.event("GatePassed", verdict.message, revision=name)
    p.update(name, gate=verdict)
    rejects = verdict.verdict == "Fail" or (
        verdict.verdict == "Inconclusive" and p.spec.gate.on_inconclusive == "Reject"
    )
    if rejects:
        rejection = Rejection(stage="Gate", reason=verdict.reason, message=verdict.message, at=to_text(p.now))
        p.update(name, phase="Rejected", rejected=rejection, message=verdict.message)
        p.next = ""
    elif verdict.verdict == "Inconclusive":
        p.update(name, phase="Validating", message=verdict.message)
        p.stall = p.stall or Stall(verdict.reason, verdict.message)
        p.block("GateInconclusive", name, verdict.message)
    else:
        p.update(name, phase="Validated", message=verdict.message)


def _same(one: object, other: object) -> bool:
    def key(g: object) -> tuple[object, ...]:
        return tuple(getattr(g, f) for f in ("gate_hash", "thresholds_hash", "verdict", "reason", "message"))

    return key(one) == key(other)


def _start(p: Pass, name: str, wanted: str) -> None:
    status = p.statuses[name]
    failure = status.failure
    tried = failure.count if failure is not None and failure.stage == "Validate" and failure.key == wanted else 0
    if failure is not None and tried:
        due = to_unix(failure.at) + resolve_wait(tried)
        p.stall = p.stall or Stall(failure.reason, failure.message, permanent=failure.permanent)
        if p.now < due:
            p.wake_at(due)
            return
    spec, queries = p.revision(name).spec, p.spec.gate.queries
    relevance = p.spec.gate.relevance
    assert status.build is not None
    key = f"{wanted}/{tried}"
    task = ValidateTask(
        identity=resolving.identity(p),
        digest=spec.digest,
        manifest_sha256=status.build.manifest_sha256,
        gate_hash=wanted,
        artifacts=spec.artifacts.location(),
        k=p.spec.gate.k,
        confidence=p.spec.gate.recall.confidence,
        queries=queries.s3.location() if queries else None,
        query_columns=QueryColumns(
            vector=queries.column if queries else "vector",
            segment=queries.segment_column if queries else "",
            relevant=relevance.relevant_column if relevance else "",
        ),
        segments=tuple(s.name for s in p.spec.segments),
        segment_targets=revision.segment_targets(p.spec),
        floor=p.spec.gate.recall.min,
        tombstones=spec.tombstones.location() if spec.tombstones else None,
        id_column=spec.columns.id,
    )
    build = status.build
    disk = None if build.vectors_bytes is None else build.resident_bytes + build.vectors_bytes
    p.act(StartValidation(revision.gate_job_name(name, key), name, key, tried, task, disk))
    p.update(name, phase="Validating")


def _failed(p: Pass, name: str, job: JobView, wanted: str) -> None:
    failure = p.statuses[name].failure
    tried = failure.count if failure is not None and failure.stage == "Validate" and failure.key == wanted else 0
    if job.failures < tried:
        _start(p, name, wanted)
        return
    row = WorkFailure(
        stage="Validate",
        key=wanted,
        count=tried + 1,
        at=to_text(job.finished_at or p.now),
        reason=job.failure.reason if job.failure else "ValidateFailed",
        message=resolving.describe(job),
        exit_code=job.exit_code,
        permanent=job.exit_code in resolving.PERMANENT_EXITS,
    )
    p.update(name, phase="Validating", failure=row, message=row.message)
    p.stall = p.stall or Stall(row.reason, row.message, permanent=row.permanent)
    p.wake_at(p.now + 1)
