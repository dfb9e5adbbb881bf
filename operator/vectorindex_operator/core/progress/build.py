"""The next revision is built by one Job at a time; a digest that is published is never built again.

In shards by three Jobs, one after the other (shards.py).
"""

from __future__ import annotations

from vectorindex_operator.api.quantities import memory_bytes, size_text
from vectorindex_operator.api.timestamps import to_unix
from vectorindex_operator.api.v1alpha1 import Live, WorkFailure
from vectorindex_operator.core import identity, recipe
from vectorindex_operator.core.attempt import UNREADABLE, look, place_in_queue, say_why_it_waits, stop
from vectorindex_operator.core.backoff import build_wait
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.observation import JobState, JobView, Task
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.plan import StartBuild, StartPartition, StartPublish
from vectorindex_operator.core.progress import resolve, shards
from vectorindex_operator.core.safety import pause
from vectorindex_operator.core.state import ReconcileState, Stall
from vectorindex_searcher.contract import (
    ASKED_KS,
    MEMORY_PER_SHARD,
    BuildResult,
    BuildTask,
    Device,
    ExitCode,
    PartitionTask,
    PublishTask,
)

GPU_PATIENCE_SECONDS = 300.0
PERMANENT_EXITS = frozenset({ExitCode.BAD_SPEC, ExitCode.BAD_DATA})
GPU_FELL_BACK = "GPU pods stayed unschedulable for 5 minutes"


def step(state: ReconcileState) -> None:
    _revive(state)
    name = state.preparing
    if not name:
        return
    if state.statuses[name].build is not None:
        for task in shards.ORDER:
            stop(state, name, task)
        return
    key = _key(state, name)
    _stop_gpu(state, name)
    task, one_try = Task.BUILD, ""
    if state.revision(name).spec.in_shards:
        one_try = _one_try(state, name, key)
        task = shards.current(state, name, one_try)
    attempt = look(state, name, task, key, BuildResult, PERMANENT_EXITS, one_try)
    if attempt is None:
        _start(state, name, key, task)
    elif attempt.result is not None:
        result = attempt.result
        size = size_text(result.index_bytes)
        state.update(name, build=result, phase=Phase.VALIDATING, failure=None, on_cpu=None, size=size, progress=None)
        if result.objective_reached is False:
            state.event(EventReason.OBJECTIVE_MISSED, _missed(name, result), revision=name)
        state.requeue_at(state.now + 1)
    elif attempt.unreadable:
        # Run again: it answers from the manifest.
        state.update(name, failure=attempt.failure)
        state.delete_jobs([attempt.job])
        state.requeue_at(state.now + 1)
    elif attempt.failure is not None:
        _failed(state, name, attempt.failure)
    else:
        _running(state, name, key, attempt.job)


def _missed(name: str, result: BuildResult) -> str:
    return (
        f"{name}: {result.factory} reaches a recall@10 of {result.default_point.recall:.4f} at most, below "
        "index.objective.recall; the gate judges it all the same. Use factory Auto, finer codes or more links, "
        "or ask for less"
    )


def _key(state: ReconcileState, name: str) -> str:
    """What a build depends on besides the revision: its resources, and how its data is reached."""
    frozen = state.revision(name).spec
    spec = state.spec
    places = [(frozen.source, spec.source.place), (frozen.artifacts, spec.artifacts.place)]
    models = (frozen.encoder_store, spec.embedding.store())
    if frozen.columns.text is not None and models[0] is not None and models[1] is not None:
        places.append((models[0], models[1]))
    access = recipe.changed_access(*places)
    return identity.attempt_key(identity.build_hash(state.spec), access)


def _revive(state: ReconcileState) -> None:
    """A failed build of the wanted revision is tried again after its wait, or at once under another `spec.build`."""
    status = state.statuses.get(state.desired)
    if status is None or state.preparing or status.phase != Phase.BUILD_FAILED or status.failure is None:
        return
    failure = status.failure
    if failure.key != _key(state, state.desired) and failure.stage == "Build":
        changes = {"failure": None, "pause": pause.left(state, state.desired)}
        state.update(state.desired, phase=Phase.PENDING, message="the spec changed: another try", **changes)
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


def _failures(state: ReconcileState, name: str) -> int:
    failure = state.statuses[name].failure
    return failure.count if failure is not None else 0


def _one_try(state: ReconcileState, name: str, key: str) -> str:
    """One try under a key, on whatever device."""
    return f"{key}/{_failures(state, name)}"


def _start(state: ReconcileState, name: str, key: str, task: Task = Task.BUILD) -> None:
    """Begin the next Job of a try: of a build in one part there is one, Task.BUILD."""
    failure = state.statuses[name].failure
    if failure is not None and failure.reason == UNREADABLE and failure.key == key:
        due = to_unix(failure.at) + build_wait(failure.count)
        if state.now < due:
            state.stall = state.stall or Stall(failure.reason, failure.message, permanent=False)
            state.requeue_at(due)
            return
    one_try, tried = _one_try(state, name, key), _failures(state, name)
    if task is Task.PARTITION:
        job = identity.partition_job_name(name, one_try)
        told = _build_task(state, name, job, cpu_reason="")
        state.act(StartPartition(job, name, one_try, tried, _partition_task(state, name, told)))
    elif task is Task.PUBLISH:
        job = identity.publish_job_name(name, one_try)
        state.act(StartPublish(job, name, one_try, tried, _publish_task(state, name)))
    else:
        cpu_reason = GPU_FELL_BACK if state.statuses[name].on_cpu == one_try else ""
        wants_gpu = state.spec.build.device is not Device.CPU and not cpu_reason
        attempt = f"{one_try}/{'gpu' if wants_gpu else 'cpu'}"
        job = identity.build_job_name(name, attempt)
        told = _build_task(state, name, job, cpu_reason)
        if parts := shards.number(state, name, one_try):
            told = told.model_copy(update={"index": told.index.model_copy(update={"shards": parts})})
        state.act(StartBuild(job, name, attempt, tried, wants_gpu, told))
    state.update(name, phase=Phase.BUILDING)


def _partition_task(state: ReconcileState, name: str, told: BuildTask) -> PartitionTask:
    frozen = state.revision(name).spec
    asked = frozen.index_spec.shards
    assert asked is not None, f"{name} is in one part"
    return PartitionTask(
        **{field: getattr(told, field) for field in BuildTask.model_fields},
        shards=asked,
        memory_per_shard=frozen.memory_per_shard or MEMORY_PER_SHARD,
        replaces=True,
    )


def _publish_task(state: ReconcileState, name: str) -> PublishTask:
    spec = state.revision(name).spec
    return PublishTask(
        identity=resolve.artifact_owner(state),
        digest=spec.digest,
        artifacts=spec.artifacts.reached_by(state.spec.artifacts.place).location(),
        cluster=state.settings.cluster_uid,
    )


def _build_task(state: ReconcileState, name: str, job: str, cpu_reason: str) -> BuildTask:
    spec = state.revision(name).spec
    # A limit only: a request is no bound, and the builder refuses what does not fit the limit.
    memory = state.spec.build.resources.limits.get("memory", "")
    return BuildTask(
        identity=resolve.artifact_owner(state),
        digest=spec.digest,
        fingerprint=spec.fingerprint,
        attempt=job.removeprefix(f"{name}-"),
        source=spec.source.reached_by(state.spec.source.place).location(),
        columns=spec.columns,
        embedding=spec.embedding,
        index=spec.index_spec,
        artifacts=spec.artifacts.reached_by(state.spec.artifacts.place).location(),
        device=state.spec.build.device if not cpu_reason else Device.CPU,
        device_reason=cpu_reason,
        memory_limit_bytes=memory_bytes(memory) if memory else 0,
        tombstones=recipe.tombstones(spec, state.spec.source.place),
        queries=identity.queries_below(state.spec),
        cluster=state.settings.cluster_uid,
        encoder=recipe.row_encoder(spec, Live.of(state.spec)),
        gate_k=state.spec.gate.k if state.spec.gate.k not in ASKED_KS else None,
    )


def _running(state: ReconcileState, name: str, key: str, job: JobView) -> None:
    far = "; ".join(words for words in (shards.progress(state, name, job), place_in_queue(job)) if words)
    state.update(name, phase=Phase.BUILDING, progress=far or None)
    say_why_it_waits(state, job)
    if job.unschedulable_since is None:
        return
    state.block("Unschedulable", job.name, job.unschedulable)
    if job.device == "gpu" and state.spec.build.device is Device.PREFER_GPU:
        due = job.unschedulable_since + GPU_PATIENCE_SECONDS
        if state.seen_at < due:
            state.requeue_at(due)
            return
        # Recorded before the one Job goes and the other comes: who looks in between, also a second operator, starts
        # the very same Job, and none on a GPU anew.
        state.update(name, on_cpu=_one_try(state, name, key))
        state.delete_jobs([job])
        state.event(EventReason.BUILD_FELL_BACK, f"{GPU_FELL_BACK}: {job.unschedulable}", revision=name)
        _start(state, name, key)


def _stop_gpu(state: ReconcileState, name: str) -> None:
    """The Job on a GPU of a try that goes on on a CPU: it may come after it has been given up."""
    given_up = f"{state.statuses[name].on_cpu}/gpu"
    mine = state.jobs(Task.BUILD, name)
    state.delete_jobs(job for job in mine if job.key == given_up and job.state is not JobState.SUCCEEDED)


def _failed(state: ReconcileState, name: str, failure: WorkFailure) -> None:
    state.update(name, phase=Phase.BUILD_FAILED, failure=failure, message=failure.message, progress=None)
    state.preparing = ""
    state.stall = Stall(failure.reason, failure.message, permanent=failure.permanent)
    state.requeue_at(state.now + 1)
