"""The next revision is built by one Job at a time; a digest that is published is never built again."""

from __future__ import annotations

from vectorindex_operator.api.quantities import memory_bytes
from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import WorkFailure
from vectorindex_operator.core import revision
from vectorindex_operator.core.attempts import build_wait
from vectorindex_operator.core.observation import JobState, JobVerb, JobView
from vectorindex_operator.core.plan import StartBuild
from vectorindex_operator.core.steps import resolving
from vectorindex_operator.core.working import Pass, Stall
from vectorindex_searcher.contract import BuildResult, BuildTask, Device, ExitCode

GPU_PATIENCE_SECONDS = 300.0
PERMANENT_EXITS = frozenset({ExitCode.BAD_SPEC, ExitCode.BAD_DATA})
GPU_FELL_BACK = "GPU pods stayed unschedulable for 5 minutes"


def step(p: Pass) -> None:
    _revive(p)
    name = p.next
    if not name or p.statuses[name].build is not None:
        return
    key = revision.build_hash(p.spec)
    jobs = [j for j in p.jobs(JobVerb.BUILD, name) if j.key.split("/")[0] == key]
    p.delete_jobs(j for j in p.jobs(JobVerb.BUILD, name) if j not in jobs and j.state is JobState.RUNNING)
    if not jobs:
        _start(p, name, key)
        return
    job = jobs[0]
    if job.state is JobState.RUNNING:
        _running(p, name, job)
    elif job.state is JobState.FAILED:
        _failed(p, name, job, key)
    elif isinstance(job.result, BuildResult):
        p.update(name, build=job.result, phase="Validating", failure=None, size=_size(job.result.index_bytes))
        p.wake_at(p.now + 1)
    else:
        p.delete_jobs([job])  # its pod is gone before we read it; run again, it answers from the manifest
        p.wake_at(p.now + 1)


def _revive(p: Pass) -> None:
    """A failed build of the wanted revision is tried again after its wait, or at once under another `spec.build`."""
    status = p.statuses.get(p.wanted)
    if status is None or p.next or status.phase != "BuildFailed" or status.failure is None:
        return
    failure = status.failure
    if failure.key != revision.build_hash(p.spec) and failure.stage == "Build":
        p.update(p.wanted, phase="Pending", failure=None, message="spec.build changed: another try")
    elif failure.permanent:
        p.stall = p.stall or Stall(failure.reason, failure.message)
        resolving.again_with_backoff(p)
        return
    else:
        due = to_unix(failure.at) + build_wait(failure.count)
        p.stall = p.stall or Stall(failure.reason, failure.message, permanent=False)
        if p.now < due or resolving.is_outdated(p, failure):
            p.wake_at(max(due, p.now + 5))
            return
        p.update(p.wanted, phase="Pending", message="another try")
    p.next = p.wanted


def _start(p: Pass, name: str, key: str, *, cpu_reason: str = "") -> None:
    failures = p.statuses[name].failure.count if p.statuses[name].failure else 0  # type: ignore[union-attr]
    wants_gpu = p.spec.build.device is not Device.CPU and not cpu_reason
    attempt = f"{key}/{failures}/{'gpu' if wants_gpu else 'cpu'}"
    job = revision.build_job_name(name, attempt)
    spec = p.revision(name).spec
    # A limit only: a request is no bound, and the builder refuses what does not fit the limit.
    memory = p.spec.build.resources.limits.get("memory", "")
    task = BuildTask(
        identity=resolving.identity(p),
        digest=spec.digest,
        fingerprint=spec.fingerprint,
        attempt=job.removeprefix(f"{name}-"),
        source=spec.source.location(),
        columns=spec.columns,
        embedding=spec.embedding,
        index=spec.index_spec,
        artifacts=spec.artifacts.location(),
        device=p.spec.build.device if not cpu_reason else Device.CPU,
        device_reason=cpu_reason,
        memory_limit_bytes=memory_bytes(memory) if memory else 0,
        tombstones=spec.tombstones.location() if spec.tombstones else None,
    )
    p.act(StartBuild(job, name, attempt, failures, wants_gpu, task))
    p.update(name, phase="Building")


def _running(p: Pass, name: str, job: JobView) -> None:
    p.update(name, phase="Building")
    if job.waiting:
        p.block("JobWaiting", job.name, job.waiting)
    if job.unschedulable_since is None:
        return
    p.block("Unschedulable", job.name, job.unschedulable)
    if job.device == "gpu" and p.spec.build.device is Device.PREFER_GPU:
        due = job.unschedulable_since + GPU_PATIENCE_SECONDS
        if p.now < due:
            p.wake_at(due)
            return
        p.delete_jobs([job])
        p.event("BuildFellBackToCPU", f"{GPU_FELL_BACK}: {job.unschedulable}", warning=True, revision=name)
        _start(p, name, revision.build_hash(p.spec), cpu_reason=GPU_FELL_BACK)


def _failed(p: Pass, name: str, job: JobView, key: str) -> None:
    failure = p.statuses[name].failure
    tried = failure.count if failure is not None and failure.key == key else 0
    if job.failures < tried:
        _start(p, name, key)  # this failure is recorded already; its turn has come again
        return
    permanent = job.exit_code in PERMANENT_EXITS
    row = WorkFailure(
        stage="Build",
        key=key,
        count=tried + 1,
        at=to_text(job.finished_at or p.now),
        reason=job.failure.reason if job.failure else "BuildFailed",
        message=resolving.describe(job),
        exit_code=job.exit_code,
        permanent=permanent,
    )
    p.update(name, phase="BuildFailed", failure=row, message=row.message)
    p.next = ""
    p.stall = Stall(row.reason, row.message, permanent=permanent)
    p.wake_at(p.now + 1)


def _size(count: int) -> str:
    return f"{count / 2**20:.1f}Mi" if count < 2**30 else f"{count / 2**30:.2f}Gi"
