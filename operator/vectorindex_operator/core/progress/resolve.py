"""Which dataset is there: a Job lists the source, because the operator holds no object-store key.

The newest finished resolve Job stays as the mark of the last listing, so polling writes nothing into any status. Where
stable's searchers can tell that nothing changed since, none follows it: poll.py.
"""

from __future__ import annotations

from vectorindex_operator.api.quantities import duration_seconds
from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import Condition, SourceStatus, WorkFailure
from vectorindex_operator.core import identity
from vectorindex_operator.core.attempt import JOB_REASONS, describe, lost_its_words, say_why_it_waits
from vectorindex_operator.core.backoff import resolve_wait
from vectorindex_operator.core.observation import JobState, JobView, Task
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.plan import StartResolve
from vectorindex_operator.core.progress import fresh_rows, poll
from vectorindex_operator.core.state import ReconcileState, Stall
from vectorindex_operator.core.story import NEW_DATA_WAITS
from vectorindex_searcher.contract import ExitCode, Identity, ResolveResult, ResolveTask

PERMANENT_EXITS = frozenset({ExitCode.BAD_SPEC, ExitCode.BAD_DATA, ExitCode.SOURCE_MISSING})
SOURCE_CHANGED_EXITS = frozenset({ExitCode.SOURCE_MISSING, ExitCode.RETRY})
READ_WITHIN_SECONDS = 3600.0
"""What a listing at a time of a schedule found is taken for read after so long: the next one is at the next time."""


def step(state: ReconcileState) -> None:
    wanted = identity.source_hash(state.spec)
    jobs = state.jobs(Task.RESOLVE)
    newest = jobs[0] if jobs else None
    state.delete_jobs(jobs[1:])
    if newest is None:
        _without_job(state, wanted)
        return
    if newest.key.split("/")[0] != wanted:
        state.delete_jobs([newest])
        _start(state, wanted, newest.name, failures=0)
        return
    if newest.state is JobState.RUNNING:
        _still_failing(state, newest)
        say_why_it_waits(state, newest)
        return
    _read(state, newest, wanted)


def artifact_owner(state: ReconcileState) -> Identity:
    """Whose artifacts the Jobs work on."""
    index = state.obs.index
    return Identity(namespace=index.namespace, name=index.name, uid=index.uid)


def _start(state: ReconcileState, wanted: str, after: str, failures: int) -> None:
    key = f"{wanted}/{after}"
    deleted, fresh = state.spec.source.deleted(), state.spec.source.fresh_place()
    task = ResolveTask(
        identity=artifact_owner(state),
        source=state.spec.source.place.location(),
        columns=state.spec.source.columns,
        embedding=state.spec.embedding.of_vectors(),
        artifacts=state.spec.artifacts.place.location(),
        tombstones=deleted.location() if deleted else None,
        queries=identity.queries_below(state.spec),
        fresh=fresh.location() if fresh else None,
    )
    state.act(StartResolve(identity.resolve_job_name(state.obs.index.name, key), key, failures, task))


def _without_job(state: ReconcileState, wanted: str) -> None:
    """The first pass, or somebody deleted the Job: list unless a listing of this very source is known and fresh."""
    source = state.source
    if (
        source is not None
        and source.source_hash == wanted
        and not state.resolve_now
        and not poll.needs_job(state, after="", known=_of_source(source), since=to_unix(source.at))
    ):
        return
    _start(state, wanted, after=source.fingerprint[:8] if source else "", failures=0)


def _read(state: ReconcileState, job: JobView, wanted: str) -> None:
    finished = job.finished_at or job.created_at
    if job.state is JobState.FAILED:
        _failed(state, job, wanted, finished)
        return
    if isinstance(job.result, ResolveResult):
        _adopt(state, job, job.result, wanted, finished)
    elif _is_awaited(state, wanted, finished):
        # Its pod is gone before we read it, or another release wrote the result: the same work again, under a new
        # name; the first time at once, then with growing waits.
        _still_failing(state, job)
        unread = job.failures + 1
        _again_at(state, job, wanted, finished + resolve_wait(unread) if unread > 1 else state.now, unread)
        return
    if any(is_outdated(state, s.failure) for s in state.statuses.values() if s.phase == Phase.BUILD_FAILED):
        state.resolve_now = state.resolve_now or f"after {job.name}"
    if state.resolve_now and state.resolve_now not in job.key:
        state.delete_jobs([job])
        _start(state, wanted, f"{job.name}/{state.resolve_now}", failures=0)
        return
    known = _of_source(job.result) if isinstance(job.result, ResolveResult) else _adopted(state)
    # What was listed before a time of the schedule is of before it, whenever the Job ended.
    since = job.created_at if state.spec.source.schedule is not None else finished
    if poll.needs_job(state, after=job.name, known=known, since=since):
        _again_at(state, job, wanted, state.now, failures=0)


def _adopted(state: ReconcileState) -> str:
    """Fingerprint of the source in the listing that the status tells of; empty: none."""
    return _of_source(state.source) if state.source is not None else ""


def _of_source(listed: ResolveResult | SourceStatus) -> str:
    """Of a listing, the fingerprint of the source without its fresh files: what searchers tell, too."""
    return listed.source or listed.fingerprint


def _is_awaited(state: ReconcileState, wanted: str, finished: float) -> bool:
    """Whether a listing that ended at `finished` and cannot be read (any more) may have said something new.

    The pod that holds a result goes with its node, long after it was read: where polling is off, and long after a time
    of a schedule, that is no reason to list the source, which would bring in data that nobody asked for.
    """
    source = state.source
    if source is None or source.source_hash != wanted:
        return True
    adopted_at = to_unix(source.at)
    if adopted_at >= finished:
        return False
    held = finished < adopted_at + duration_seconds(state.spec.source.min_interval)
    soon = state.spec.source.schedule is None or state.now < finished + READ_WITHIN_SECONDS
    polled = state.spec.source.looked_at and soon
    return polled or held or _has_failed(state) is not None or _waits_for_data(state)


def _failed(state: ReconcileState, job: JobView, wanted: str, finished: float) -> None:
    failures = job.failures + 1
    reason = job.failure.reason if job.failure else "ResolveFailed"
    permanent = job.exit_code in PERMANENT_EXITS
    said = _has_failed(state)
    if said is not None and said.reason not in JOB_REASONS and lost_its_words(job):
        _say_again(state, said)
    else:
        state.stall = state.source_stall = Stall(reason, describe(job), permanent=permanent)
    if state.resolve_now and state.resolve_now not in job.key:
        state.delete_jobs([job])
        _start(state, wanted, f"{job.name}/{state.resolve_now}", failures=0)
        return
    _again_at(state, job, wanted, finished + resolve_wait(failures), failures)


def is_outdated(state: ReconcileState, failure: WorkFailure | None) -> bool:
    """Whether a build failed because the source was not as listed, and it has not been listed since."""
    if failure is None or failure.exit_code not in SOURCE_CHANGED_EXITS:
        return False
    newest = state.jobs(Task.RESOLVE)[:1]
    return not any(job.state is not JobState.RUNNING and job.created_at > to_unix(failure.at) for job in newest)


def again_with_backoff(state: ReconcileState) -> None:
    """Data of the wanted revision is bad: list again soon, so that a fix is picked up by itself."""
    jobs = state.jobs(Task.RESOLVE)
    if not jobs or jobs[0].state is JobState.RUNNING:
        return
    newest = jobs[0]
    failures = newest.failures + 1
    due = (newest.finished_at or newest.created_at) + resolve_wait(failures)
    _again_at(state, newest, identity.source_hash(state.spec), due, failures)


def _again_at(state: ReconcileState, job: JobView, wanted: str, due: float, failures: int) -> None:
    if state.now < due:
        state.requeue_at(due)
    elif not any(isinstance(a, StartResolve) for a in state.planned):
        state.delete_jobs([job])
        _start(state, wanted, job.name, failures)


def _still_failing(state: ReconcileState, job: JobView) -> None:
    """While a failed listing is tried again, the status goes on saying what failed."""
    failed = _has_failed(state)
    polled = state.source is not None and state.source.source_hash == identity.source_hash(state.spec)
    if failed is not None and (job.failures or polled):
        _say_again(state, failed)


def _say_again(state: ReconcileState, failed: Condition) -> None:
    permanent = state.obs.index.status.phase == "Stalled"
    state.stall = state.source_stall = Stall(failed.reason, failed.message, permanent=permanent)


def say_that_it_failed(state: ReconcileState) -> None:
    """Nobody lists the source for now: that the last listing failed stays said."""
    failed = _has_failed(state)
    if failed is not None:
        state.source_stall = Stall(failed.reason, failed.message)


def _has_failed(state: ReconcileState) -> Condition | None:
    """What the status says of the last listing, where that failed."""
    conditions = state.obs.index.status.conditions
    return next((c for c in conditions if c.type == "DatasetResolved" and c.status == "False"), None)


def _adopt(state: ReconcileState, job: JobView, result: ResolveResult, wanted: str, finished: float) -> None:
    before = state.source
    if before is not None and before.source_hash == wanted and before.fingerprint == result.fingerprint:
        return
    if before is not None and before.dimension and result.dimension and before.dimension != result.dimension:
        state.stall = state.source_stall = Stall(
            "DimensionChanged",
            f"the source now holds vectors of dimension {result.dimension}, this VectorIndex serves "
            f"{before.dimension}: another embedding is another VectorIndex",
        )
        return
    if before is not None and before.source_hash == wanted:
        due = to_unix(before.at) + duration_seconds(state.spec.source.min_interval)
        waits = _waits_for_data(state)
        if _of_source(before) == _of_source(result) and fresh_rows.TAKES_IN not in job.key and not waits:
            return  # other fresh files alone: searchers answer them, and the next build that is due takes them in
        if state.now < due and not waits:
            state.requeue_at(due)
            every = f"source.minInterval {state.spec.source.min_interval}"
            words = f"changed data was found: a revision of it at {to_text(due)} at the earliest ({every})"
            state.block(NEW_DATA_WAITS, f"VectorIndex/{state.obs.index.name}", words)
            return
    state.source = SourceStatus(
        fingerprint=result.fingerprint,
        source_hash=wanted,
        objects=result.objects,
        bytes=result.bytes,
        at=to_text(finished),
        dimension=result.dimension or (before.dimension if before else None),
        source=result.source,
        fresh=result.fresh,
    )


def _waits_for_data(state: ReconcileState) -> bool:
    """The last listing led to nothing (bad data): a new one is not held back by minInterval."""
    current = state.source.fingerprint if state.source else ""
    return any(
        s.phase == Phase.BUILD_FAILED
        for n, s in state.statuses.items()
        if state.revision(n).spec.fingerprint == current
    )
