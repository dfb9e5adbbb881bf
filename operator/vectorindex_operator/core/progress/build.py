"""The next revision is built by one Job at a time; a digest that is published is never built again."""

from __future__ import annotations

from vectorindex_operator.api.quantities import memory_bytes
from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import WorkFailure
from vectorindex_operator.core import identity
from vectorindex_operator.core.backoff import build_wait
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.observation import JobState, JobView, Task
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.plan import StartBuild
from vectorindex_operator.core.progress import resolve
from vectorindex_operator.core.state import ReconcileState, Stall
from vectorindex_searcher.contract import BuildResult, BuildTask, Device, ExitCode

GPU_PATIENCE_SECONDS = 300.0
PERMANENT_EXITS = frozenset({ExitCode.BAD_SPEC, ExitCode.BAD_DATA})
GPU_FELL_BACK = "GPU pods stayed unschedulable for 5 minutes"


def step(state: ReconcileState) -> None:
    _revive(state)
    name = state.preparing
    if not name or state.statuses[name].build is not None:
        return
    key = identity.build_hash(state.spec)
    jobs = [j for j in state.jobs(Task.BUILD, name) if j.key.split("/")[0] == key]
    state.delete_jobs(j for j in state.jobs(Task.BUILD, name) if j not in jobs and j.state is JobState.RUNNING)
    if not jobs:
        _start(state, name, key)
        return
    job = jobs[0]
    if job.state is JobState.RUNNING:
        _running(state, name, job)
    elif job.state is JobState.FAILED:
        _failed(state, name, job, key)
    elif isinstance(job.result, BuildResult):
        state.update(name, build=job.result, phase=Phase.VALIDATING, failure=None, size=_size(job.result.index_bytes))
        state.requeue_at(state.now + 1)
    else:
        state.delete_jobs([job])  # its pod is gone before we read it; run again, it answers from the manifest
        state.requeue_at(state.now + 1)


def _revive(state: ReconcileState) -> None:
    """A failed build of the wanted revision is tried again after its wait, or at once under another `spec.build`."""
    status = state.statuses.get(state.desired)
    if status is None or state.preparing or status.phase != Phase.BUILD_FAILED or status.failure is None:
        return
    failure = status.failure
    if failure.key != identity.build_hash(state.spec) and failure.stage == "Build":
        state.update(state.desired, phase=Phase.PENDING, failure=None, message="spec.build changed: another try")
    elif failure.permanent:
        state.stall = state.stall or Stall(failure.reason, failure.message)
        resolve.again_with_backoff(state)
        return
    else:
        due = to_unix(failure.at) + build_wait(failure.count)
        state.stall = state.stall or Stall(failure.reason, failure.message, permanent=False)
        if state.now < due or resolve.is_outdated(state, failure):
            state.requeue_at(max(due, state.now + 5))
            return
        state.update(state.desired, phase=Phase.PENDING, message="another try")
    state.preparing = state.desired


def _start(state: ReconcileState, name: str, key: str, *, cpu_reason: str = "") -> None:
    failures = state.statuses[name].failure.count if state.statuses[name].failure else 0  # type: ignore[union-attr]
    wants_gpu = state.spec.build.device is not Device.CPU and not cpu_reason
    attempt = f"{key}/{failures}/{'gpu' if wants_gpu else 'cpu'}"
    job = identity.build_job_name(name, attempt)
    spec = state.revision(name).spec
    # A limit only: a request is no bound, and the builder refuses what does not fit the limit.
    memory = state.spec.build.resources.limits.get("memory", "")
    task = BuildTask(
        identity=resolve.artifact_owner(state),
        digest=spec.digest,
        fingerprint=spec.fingerprint,
        attempt=job.removeprefix(f"{name}-"),
        source=spec.source.location(),
        columns=spec.columns,
        embedding=spec.embedding,
        index=spec.index_spec,
        artifacts=spec.artifacts.location(),
        device=state.spec.build.device if not cpu_reason else Device.CPU,
        device_reason=cpu_reason,
        memory_limit_bytes=memory_bytes(memory) if memory else 0,
        tombstones=spec.tombstones.location() if spec.tombstones else None,
    )
    state.act(StartBuild(job, name, attempt, failures, wants_gpu, task))
    state.update(name, phase=Phase.BUILDING)


def _running(state: ReconcileState, name: str, job: JobView) -> None:
    state.update(name, phase=Phase.BUILDING)
    if job.waiting:
        state.block("JobWaiting", job.name, job.waiting)
    if job.unschedulable_since is None:
        return
    state.block("Unschedulable", job.name, job.unschedulable)
    if job.device == "gpu" and state.spec.build.device is Device.PREFER_GPU:
        due = job.unschedulable_since + GPU_PATIENCE_SECONDS
        if state.now < due:
            state.requeue_at(due)
            return
        state.delete_jobs([job])
        state.event(EventReason.BUILD_FELL_BACK, f"{GPU_FELL_BACK}: {job.unschedulable}", revision=name)
        _start(state, name, identity.build_hash(state.spec), cpu_reason=GPU_FELL_BACK)


def _failed(state: ReconcileState, name: str, job: JobView, key: str) -> None:
    failure = state.statuses[name].failure
    tried = failure.count if failure is not None and failure.key == key else 0
    if job.failures < tried:
        _start(state, name, key)  # this failure is recorded already; its turn has come again
        return
    permanent = job.exit_code in PERMANENT_EXITS
    row = WorkFailure(
        stage="Build",
        key=key,
        count=tried + 1,
        at=to_text(job.finished_at or state.now),
        reason=job.failure.reason if job.failure else "BuildFailed",
        message=resolve.describe(job),
        exit_code=job.exit_code,
        permanent=permanent,
    )
    state.update(name, phase=Phase.BUILD_FAILED, failure=row, message=row.message)
    state.preparing = ""
    state.stall = Stall(row.reason, row.message, permanent=permanent)
    state.requeue_at(state.now + 1)


def _size(count: int) -> str:
    return f"{count / 2**20:.1f}Mi" if count < 2**30 else f"{count / 2**30:.2f}Gi"
