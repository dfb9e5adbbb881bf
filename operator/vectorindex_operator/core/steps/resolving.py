"""Which dataset is there: a Job lists the source, because the operator holds no object-store key.

The newest finished resolve Job stays as the mark of the last listing, so polling writes nothing into any status.
"""

from __future__ import annotations

from vectorindex_operator.api.quantities import duration_seconds
from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import SourceStatus, WorkFailure
from vectorindex_operator.core import revision
from vectorindex_operator.core.attempts import resolve_wait
from vectorindex_operator.core.observation import JobState, JobVerb, JobView
from vectorindex_operator.core.plan import StartResolve
from vectorindex_operator.core.working import Pass, Stall
from vectorindex_searcher.contract import ExitCode, Identity, ResolveResult, ResolveTask

PERMANENT_EXITS = frozenset({ExitCode.BAD_SPEC, ExitCode.BAD_DATA, ExitCode.SOURCE_MISSING})
SOURCE_CHANGED_EXITS = frozenset({ExitCode.SOURCE_MISSING, ExitCode.RETRY})

JOB_REASONS = frozenset({"BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy", "JobFailed"})
"""What the Job controller says by itself, when no pod said why."""


def step(p: Pass) -> None:
    wanted = revision.source_hash(p.spec)
    jobs = p.jobs(JobVerb.RESOLVE)
    newest = jobs[0] if jobs else None
    p.delete_jobs(jobs[1:])
    if newest is None:
        _without_job(p, wanted)
        return
    if newest.key.split("/")[0] != wanted:
        p.delete_jobs([newest])
        _start(p, wanted, newest.name, failures=0)
        return
    if newest.state is JobState.RUNNING:
        _still_failing(p, newest)
        if newest.waiting:
            p.block("JobWaiting", newest.name, newest.waiting)
        return
    _read(p, newest, wanted)


def identity(p: Pass) -> Identity:
    """Whose artifacts the Jobs work on."""
    index = p.obs.index
    return Identity(namespace=index.namespace, name=index.name, uid=index.uid)


def _start(p: Pass, wanted: str, after: str, failures: int) -> None:
    key = f"{wanted}/{after}"
    deleted = p.spec.source.deleted()
    task = ResolveTask(
        identity=identity(p),
        source=p.spec.source.s3.location(),
        columns=p.spec.source.columns,
        embedding=p.spec.embedding,
        artifacts=p.spec.artifacts.s3.location(),
        tombstones=deleted.location() if deleted else None,
    )
    p.act(StartResolve(revision.resolve_job_name(p.obs.index.name, key), key, failures, task))


def _without_job(p: Pass, wanted: str) -> None:
    """The first pass, or somebody deleted the Job: list unless a listing of this very source is known and fresh."""
    source, poll = p.source, _poll(p)
    if source is not None and source.source_hash == wanted and not p.resolve_now:
        if not poll:
            return
        due = to_unix(source.at) + poll
        if p.now < due:
            p.wake_at(due)
            return
    _start(p, wanted, after=source.fingerprint[:8] if source else "", failures=0)


def _poll(p: Pass) -> float:
    return 0.0 if p.spec.source.poll == "0" else duration_seconds(p.spec.source.poll)


def _read(p: Pass, job: JobView, wanted: str) -> None:
    finished = job.finished_at or job.created_at
    if job.state is JobState.FAILED:
        _failed(p, job, wanted, finished)
        return
    if not isinstance(job.result, ResolveResult):
        # Its pod is gone before we read it: the same work again, under a new name.
        _still_failing(p, job)
        p.delete_jobs([job])
        _start(p, wanted, job.name, job.failures)
        return
    _adopt(p, job.result, wanted, finished)
    if any(is_outdated(p, s.failure) for s in p.statuses.values() if s.phase == "BuildFailed"):
        p.resolve_now = p.resolve_now or f"after {job.name}"
    if p.resolve_now and p.resolve_now not in job.key:
        p.delete_jobs([job])
        _start(p, wanted, f"{job.name}/{p.resolve_now}", failures=0)
        return
    if poll := _poll(p):
        _again_at(p, job, wanted, finished + poll, failures=0)


def _failed(p: Pass, job: JobView, wanted: str, finished: float) -> None:
    failures = job.failures + 1
    reason = job.failure.reason if job.failure else "ResolveFailed"
    permanent = job.exit_code in PERMANENT_EXITS
    p.stall = p.source_stall = Stall(reason, describe(job), permanent=permanent)
    if p.resolve_now and p.resolve_now not in job.key:
        p.delete_jobs([job])
        _start(p, wanted, f"{job.name}/{p.resolve_now}", failures=0)
        return
    _again_at(p, job, wanted, finished + resolve_wait(failures), failures)


def is_outdated(p: Pass, failure: WorkFailure | None) -> bool:
    """Whether a build failed because the source was not as listed, and it has not been listed since."""
    if failure is None or failure.exit_code not in SOURCE_CHANGED_EXITS:
        return False
    newest = p.jobs(JobVerb.RESOLVE)[:1]
    return not any(job.state is not JobState.RUNNING and job.created_at > to_unix(failure.at) for job in newest)


def again_with_backoff(p: Pass) -> None:
    """Data of the wanted revision is bad: list again soon, so that a fix is picked up by itself."""
    jobs = p.jobs(JobVerb.RESOLVE)
    if not jobs or jobs[0].state is JobState.RUNNING:
        return
    newest = jobs[0]
    failures = newest.failures + 1
    due = (newest.finished_at or newest.created_at) + resolve_wait(failures)
    _again_at(p, newest, revision.source_hash(p.spec), due, failures)


def _again_at(p: Pass, job: JobView, wanted: str, due: float, failures: int) -> None:
    if p.now < due:
        p.wake_at(due)
    elif not any(isinstance(a, StartResolve) for a in p.actions):
        p.delete_jobs([job])
        _start(p, wanted, job.name, failures)


def _still_failing(p: Pass, job: JobView) -> None:
    """While a failed listing is tried again, the status goes on saying what failed."""
    status = p.obs.index.status
    failed = next((c for c in status.conditions if c.type == "DatasetResolved" and c.status == "False"), None)
    polled = p.source is not None and p.source.source_hash == revision.source_hash(p.spec)
    if failed is not None and (job.failures or polled):
        p.stall = p.source_stall = Stall(failed.reason, failed.message, permanent=status.phase == "Stalled")


def _adopt(p: Pass, result: ResolveResult, wanted: str, finished: float) -> None:
    before = p.source
    if before is not None and before.source_hash == wanted and before.fingerprint == result.fingerprint:
        return
    if before is not None and before.dimension and result.dimension and before.dimension != result.dimension:
        p.stall = p.source_stall = Stall(
            "DimensionChanged",
            f"the source now holds vectors of dimension {result.dimension}, this VectorIndex serves "
            f"{before.dimension}: "
            "another embedding is another VectorIndex",
        )
        return
    if before is not None and before.source_hash == wanted:
        due = to_unix(before.at) + duration_seconds(p.spec.source.min_interval)
        if p.now < due and not _waits_for_data(p):
            p.wake_at(due)
            return
    p.source = SourceStatus(
        fingerprint=result.fingerprint,
        source_hash=wanted,
        objects=result.objects,
        bytes=result.bytes,
        at=to_text(finished),
        dimension=result.dimension or (before.dimension if before else None),
    )


def _waits_for_data(p: Pass) -> bool:
    """The last listing led to nothing (bad data): a new one is not held back by minInterval."""
    current = p.source.fingerprint if p.source else ""
    return any(s.phase == "BuildFailed" for n, s in p.statuses.items() if p.revision(n).spec.fingerprint == current)


def describe(job: JobView) -> str:
    """One sentence about a failed Job: what is wrong, where, and what to do."""
    failure = job.failure
    if failure is None or failure.reason in JOB_REASONS:
        code = f" with exit code {job.exit_code}" if job.exit_code is not None else ""
        why = f": {failure.message}" if failure is not None else ""
        return f"Job {job.name} failed{code} and left no message of its own (see its pod's log){why}"
    place = f" (object {failure.object}" + (f", row {failure.row})" if failure.row is not None else ")")
    parts = [f"{failure.field}: " if failure.field else "", failure.message]
    if failure.object and failure.object not in failure.message:
        parts.append(place)
    if failure.remedy:
        parts.append(f". {failure.remedy[0].upper()}{failure.remedy[1:]}")
    return "".join(parts)
