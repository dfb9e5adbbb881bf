"""One try of a Job: what became of it, and how often the same thing was tried before.

A try belongs to a key: the hash of what could make it end otherwise (more memory, other queries, another Secret). Under
another key everything is tried anew; under the same one failures are counted, and waits grow with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import WorkFailure
from vectorindex_operator.core.observation import JobState, JobView, Task
from vectorindex_operator.core.state import ReconcileState
from vectorindex_searcher.contract import ExitCode

Stage = Literal["Build", "Validate"]
UNREADABLE = "ResultUnreadable"
STAGES: dict[Task, Stage] = {
    Task.PARTITION: "Build",
    Task.BUILD: "Build",
    Task.PUBLISH: "Build",
    Task.VALIDATE: "Validate",
}
"""A failure is of one of them. What a build in shards is made of counts as one: each goes on from what is stored."""

QUEUE = "Queue"
"""Rule of a row in status.blockedBy: a Job waits for its turn in a queue."""
QUEUE_LOOK_SECONDS = 15.0
PODLESS_SECONDS = 20.0
"""A Job's pod is ordinarily made within a second or two."""

JOB_REASONS = frozenset({"BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy", "FailedIndexes", "JobFailed"})
"""What the Job controller says by itself, when no pod said why."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The newest Job under a key. With neither result nor failure it still runs.

    `unreadable`: it ended well, and nobody can read its result (its pod is gone, another release wrote it). That counts
    as a failure, since it would else be repeated for ever; what was published is found again by the next try.
    """

    job: JobView
    result: Any = None
    failure: WorkFailure | None = None
    unreadable: bool = False


def say_why_it_waits(state: ReconcileState, job: JobView) -> None:
    """A row in the status about a Job that is to run and does not get on, if anything is known against it."""
    if job.held and job.queue:
        # Nobody watches what Kueue says, only the Job, which changes when its turn has come.
        state.requeue_at(state.now + QUEUE_LOOK_SECONDS)
        state.block_as_told(QUEUE, f"LocalQueue/{job.queue}", f"Job {job.name} waits for its turn: {job.queued}")
    elif waits := _waits_for(state, job):
        state.block("JobWaiting", job.name, waits)


def place_in_queue(job: JobView) -> str:
    """That a Job waits for its turn, for the progress of a revision; empty: it does not."""
    return f"waits for its turn in LocalQueue {job.queue}" if job.held and job.queue else ""


def _waits_for(state: ReconcileState, job: JobView) -> str:
    """Why a Job that runs does not get on; empty: nothing is known against it. That it has no pod yet passes by itself
    in a moment, ordinarily; the words of who refuses it are in Events, which are not ours to read."""
    if job.held:
        return "its spec.suspend is true, and nobody here sets that: whoever did takes it back"
    if job.waiting or job.podless_since is None:
        return job.waiting
    if state.seen_at < job.podless_since + PODLESS_SECONDS:
        state.requeue_at(job.podless_since + PODLESS_SECONDS)
        return ""
    describe = f"kubectl -n {state.obs.index.namespace} describe job {job.name}"
    return f"it has no pod since {to_text(job.podless_since)}: a quota or a webhook refuses it, as `{describe}` says"


def failures(state: ReconcileState, name: str, task: Task, key: str) -> int:
    """Recorded failures of a revision's task under `key`."""
    failure = state.statuses[name].failure
    return failure.count if failure is not None and (failure.stage, failure.key) == (STAGES[task], key) else 0


def is_of(job: JobView, key: str) -> bool:
    """Whether a Job is a try under a key, or of one try if the key names it ("KEY/TRIES BEFORE")."""
    return job.key == key or job.key.startswith(f"{key}/")


def look(
    state: ReconcileState,
    name: str,
    task: Task,
    key: str,
    expected: type,
    permanent: frozenset[ExitCode],
    one_try: str = "",
) -> Attempt | None:
    """The try under `key` that is followed; None when the next one may start. All others that run are stopped.
    `one_try`: no other than this is followed, be it of the same key.

    It is the newest, but for a result that is there already. Two run only where a write of an operator that had lost
    the Lease came late (docs/adr/0031-two-operators-meet.md).
    """
    jobs = [job for job in state.jobs(task, name) if is_of(job, one_try or key)]
    read = (job for job in jobs if job.state is JobState.SUCCEEDED and isinstance(job.result, expected))
    job = next(read, jobs[0] if jobs else None)
    stop(state, name, task, but=job)
    if job is None:
        return None
    if job.state is JobState.RUNNING:
        return Attempt(job)
    if job.state is JobState.SUCCEEDED and isinstance(job.result, expected):
        return Attempt(job, result=job.result)
    tried = failures(state, name, task, key)
    if job.failures < tried:
        return None  # this failure is recorded already
    unreadable = job.state is JobState.SUCCEEDED
    reason = UNREADABLE if unreadable else job.failure.reason if job.failure else f"{STAGES[task]}Failed"
    row = WorkFailure(
        stage=STAGES[task],
        key=key,
        count=tried + 1,
        at=to_text(job.finished_at or state.now),
        reason=reason,
        message=f"Job {job.name} ended well, but its result cannot be read" if unreadable else describe(job),
        exit_code=job.exit_code,
        permanent=not unreadable and job.exit_code in permanent,
    )
    return Attempt(job, failure=row, unreadable=unreadable)


def stop(state: ReconcileState, name: str, task: Task, *, but: JobView | None = None) -> None:
    """Stop what still runs of a revision's task: one Job of it does, and none once its result is recorded."""
    state.delete_jobs(job for job in state.jobs(task, name) if job is not but and job.state is JobState.RUNNING)


def lost_its_words(job: JobView) -> bool:
    """Whether a Job failed for what a pod of it said, and that pod is gone, with its node or by somebody's hand."""
    by_a_pod = job.failure is not None and job.failure.reason in JOB_REASONS - {"DeadlineExceeded"}
    return job.state is JobState.FAILED and job.exit_code is None and by_a_pod


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
