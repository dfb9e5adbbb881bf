"""The resolve, partition, build, publish, validate, collect and outcomes Jobs."""

from __future__ import annotations

from collections.abc import Mapping

from vectorindex_operator.api.quantities import duration_seconds
from vectorindex_operator.api.v1alpha1 import Live, Place, Pod, Resources, RevisionSpec, Toleration, VectorIndexSpec
from vectorindex_operator.core import recipe
from vectorindex_operator.core.leftovers import CollectLeft
from vectorindex_operator.core.observation import IndexView, RevisionView, Task
from vectorindex_operator.core.plan import (
    StartBuild,
    StartCollect,
    StartOutcomes,
    StartPartition,
    StartPublish,
    StartResolve,
    StartValidation,
)
from vectorindex_operator.core.state import Installation
from vectorindex_operator.manifests import labels, sizing
from vectorindex_operator.manifests.labels import Manifest
from vectorindex_operator.manifests.podspec import (
    ARTIFACTS,
    DISK,
    add_to,
    container,
    credentials,
    disk_mebibytes,
    mount_claims,
    pod_spec,
    resources,
    secret,
    task_env,
)
from vectorindex_searcher.contract import (
    ADMIN_PORT,
    AUTO_SHARDS,
    ENCODER_ENV_PREFIX,
    LIVE_KEY_ENV,
    METRICS_PORT_ENV,
    RERANKER_ENV_PREFIX,
    BuildTask,
    CollectTask,
    ExitCode,
    OutcomesTask,
    PublishTask,
)

# What trying again with the same input cannot mend fails the Job at once; memory, preemption and outages retry.
FATAL_EXITS = (ExitCode.BAD_SPEC, ExitCode.BAD_DATA, ExitCode.SOURCE_MISSING, ExitCode.BUG, ExitCode.RETRY)
KEEP_FINISHED_SECONDS = 3600
KEEP_LEFT_SECONDS = 600
"""Longer than a creation takes that comes late: it finds the name taken, and nothing is removed a second time."""
RESOLVE_DEADLINE_SECONDS = 900
COLLECT_DEADLINE_SECONDS = 900
PARALLELISM = 4
"""Shards that are built at a time where nobody says how many."""
RESOLVE_RESOURCES = Resources(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "1Gi"})


def resolve(action: StartResolve, index: IndexView, spec: VectorIndexSpec, settings: Installation) -> Manifest:
    """The Job that lists the source. Owned by the VectorIndex; kept until the next one, as the mark of its time."""
    places = {"SOURCE_": spec.source.place, ARTIFACTS: spec.artifacts.place}
    one = container("resolve", settings.searcher_image, "resolve", credentials(places), settings)
    one["env"] = [task_env(action.task)]
    one["resources"] = resources(RESOLVE_RESOURCES)
    job = _job(action.name, action.key, action.failures, index, Task.RESOLVE, labels.owner(index))
    _finish(job, one, places, spec.build.pod, settings, retries=1, deadline=RESOLVE_DEADLINE_SECONDS)
    return job


def build(
    action: StartBuild, index: IndexView, revision: RevisionView, spec: VectorIndexSpec, settings: Installation
) -> Manifest:
    """The Job that builds one revision, on a GPU node where asked for. In shards: an Indexed Job, a pod for each."""
    frozen = revision.spec
    image = (settings.gpu_image if action.gpu else "") or frozen.image
    one, places = _reads_rows("build", image, action.task, frozen, spec, settings)
    one["env"].append({"name": METRICS_PORT_ENV, "value": str(ADMIN_PORT)})
    one["ports"] = [{"name": "metrics", "containerPort": ADMIN_PORT}]
    pod = spec.build.pod
    if action.gpu:
        gpu = spec.build.gpu
        one["resources"].setdefault("limits", {})[gpu.resource] = str(gpu.count)
        one["resources"].setdefault("requests", {})[gpu.resource] = str(gpu.count)
        tolerated = Toleration(key=gpu.resource, operator="Exists", effect="NoSchedule")
        pod = pod.model_copy(update={"tolerations": (*pod.tolerations, tolerated)})
    job = _job(action.name, action.key, action.failures, index, Task.BUILD, labels.owner(revision), revision.name)
    job["metadata"]["annotations"][labels.DEVICE] = "gpu" if action.gpu else "cpu"
    deadline, keep = int(duration_seconds(spec.build.timeout)), KEEP_FINISHED_SECONDS
    _finish(job, one, places, pod, settings, retries=spec.build.retries, deadline=deadline, keep=keep)
    _queue(job, spec.build.queue_name)
    if (shards := action.task.index.shards) is not None:
        assert isinstance(shards, int), "a build begins once the number is known"
        job["metadata"]["annotations"][labels.SHARDS] = str(shards)
        _index(job["spec"], shards, min(shards, spec.build.parallelism or PARALLELISM))
    return job


def partition(
    action: StartPartition, index: IndexView, revision: RevisionView, spec: VectorIndexSpec, settings: Installation
) -> Manifest:
    """The Job that lays the rows of each shard ready."""
    task = action.task
    if task.shards == AUTO_SHARDS:
        beside = sizing.besides_bytes(revision.spec, spec.searcher.resources)
        task = task.model_copy(update={"searcher_bytes": beside})
    one, places = _reads_rows("partition", revision.spec.image, task, revision.spec, spec, settings)
    job = _job(action.name, action.key, action.failures, index, Task.PARTITION, labels.owner(revision), revision.name)
    deadline, keep = int(duration_seconds(spec.build.timeout)), KEEP_FINISHED_SECONDS
    _finish(job, one, places, spec.build.pod, settings, retries=spec.build.retries, deadline=deadline, keep=keep)
    _queue(job, spec.build.queue_name)
    return job


def publish(
    action: StartPublish, index: IndexView, revision: RevisionView, spec: VectorIndexSpec, settings: Installation
) -> Manifest:
    """The Job that publishes the whole of the shards, in the image that built them."""
    place = revision.spec.artifacts.reached_by(spec.artifacts.place)
    job = _job(action.name, action.key, action.failures, index, Task.PUBLISH, labels.owner(revision), revision.name)
    one, pod = _keeper("publish", place, action.task, settings, revision.spec.image), spec.build.pod
    places = {ARTIFACTS: place}
    _finish(job, one, places, pod, settings, retries=3, deadline=COLLECT_DEADLINE_SECONDS, keep=KEEP_FINISHED_SECONDS)
    return job


def _reads_rows(
    verb: str, image: str, task: BuildTask, frozen: RevisionSpec, spec: VectorIndexSpec, settings: Installation
) -> tuple[Manifest, dict[str, Place | None]]:
    """The container of a verb that reads the source and writes an artifact, and the places that it works on."""
    places: dict[str, Place | None] = {
        "SOURCE_": frozen.source.reached_by(spec.source.place),
        ARTIFACTS: frozen.artifacts.reached_by(spec.artifacts.place),
    }
    one = container(verb, image, verb, credentials(places), settings)
    if task.encoder is not None:
        one["envFrom"] += secret(ENCODER_ENV_PREFIX, recipe.encoder_secret(frozen, Live.of(spec)))
        places[ENCODER_ENV_PREFIX] = recipe.encoder_place(frozen, Live.of(spec))
    one["env"] = [task_env(task, first_release=not _is_todays(image, settings))]
    one["resources"] = resources(spec.build.resources)
    return one, places


def _index(job_spec: Manifest, parts: int, parallelism: int) -> None:
    """Make a Job one of so many parts, in place. Each has tries of its own, so that a lost node repeats one part; a
    fault that no further try mends ends them all. The deadline is of all rounds together."""
    retries, rounds = job_spec.pop("backoffLimit"), -(-parts // parallelism)
    job_spec |= {
        "completionMode": "Indexed",
        "completions": parts,
        "parallelism": parallelism,
        "backoffLimitPerIndex": retries,
        "activeDeadlineSeconds": job_spec["activeDeadlineSeconds"] * rounds,
    }


def _queue(job: Manifest, name: str | None) -> None:
    """Hand a Job to a queue of Kueue, in place: from then on Kueue alone says whether it is suspended. Its deadline
    counts from when it runs. Not its pods: these follow their Job."""
    if name:
        job["metadata"]["labels"][labels.QUEUE] = name
        job["spec"]["suspend"] = True


def validate(
    action: StartValidation,
    index: IndexView,
    revision: RevisionView,
    spec: VectorIndexSpec,
    settings: Installation,
    live_key: str = "",
) -> Manifest:
    """The Job that measures one revision, in the image that will serve it. live_key: reads the live queries of stable,
    where it is to ask for them."""
    queries = spec.gate.queries.where if spec.gate.queries else None
    frozen = revision.spec
    places = {
        ARTIFACTS: frozen.artifacts.reached_by(spec.artifacts.place),
        "QUERIES_": queries,
        "SOURCE_": frozen.tombstones.reached_by(spec.source.place) if frozen.tombstones else None,
    }
    one = container("validate", frozen.image, "validate", credentials(places), settings)
    live = Live.of(spec)
    one["envFrom"] += secret(ENCODER_ENV_PREFIX, recipe.encoder_secret(frozen, live))
    models = {ENCODER_ENV_PREFIX: recipe.encoder_place(frozen, live)}
    if action.task.rerank is not None:
        one["envFrom"] += secret(RERANKER_ENV_PREFIX, recipe.reranker_secret(frozen, live))
        models[RERANKER_ENV_PREFIX] = recipe.reranker_place(frozen, live)
    one["env"] = [task_env(action.task, first_release=not _is_todays(frozen.image, settings))]
    if live_key:
        one["env"].append({"name": LIVE_KEY_ENV, "value": live_key})
    given = spec.build.resources
    one["resources"] = resources(given)
    if disk := disk_mebibytes(action.disk_bytes, given.requests, given.limits):
        one["resources"].setdefault("requests", {})[DISK] = f"{disk}Mi"
    job = _job(action.name, action.key, action.failures, index, Task.VALIDATE, labels.owner(revision), revision.name)
    _finish(
        job,
        one,
        places | models,
        spec.build.pod,
        settings,
        retries=spec.build.retries,
        deadline=int(duration_seconds(spec.build.timeout)),
        keep=KEEP_FINISHED_SECONDS,
    )
    _queue(job, spec.build.queue_name)
    return job


def collect(
    action: StartCollect, index: IndexView, revision: RevisionView, spec: VectorIndexSpec, settings: Installation
) -> Manifest:
    """The Job that removes the artifact of a revision, in today's image: one of before may not know how."""
    place = revision.spec.artifacts.reached_by(spec.artifacts.place)
    job = _job(action.name, action.key, 0, index, Task.COLLECT, labels.owner(revision), revision.name)
    one, pod = _keeper("collect", place, action.task, settings), spec.build.pod
    places = {ARTIFACTS: place}
    _finish(job, one, places, pod, settings, retries=3, deadline=COLLECT_DEADLINE_SECONDS, keep=KEEP_FINISHED_SECONDS)
    return job


def collect_left(action: CollectLeft, settings: Installation) -> Manifest:
    """The Job that removes everything of a VectorIndex that is gone. Nobody owns it: a foreground deletion would take
    it along."""
    marks = labels.common(action.index, labels.JOB) | {labels.VERB: Task.COLLECT.value}
    meta = {"name": action.name, "namespace": action.namespace, "labels": marks}
    meta["annotations"] = {labels.KEY: action.task.identity.uid, labels.FAILURES: "0"}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta}
    one, places = _keeper("collect", action.place, action.task, settings), {ARTIFACTS: action.place}
    deadline, keep = COLLECT_DEADLINE_SECONDS, KEEP_LEFT_SECONDS
    _finish(job, one, places, action.pod, settings, retries=2, deadline=deadline, keep=keep)
    return job


def outcomes(action: StartOutcomes, index: IndexView, spec: VectorIndexSpec, settings: Installation) -> Manifest:
    """The Job that writes or reads outcomes. It stays, if it failed, as the mark of what was tried."""
    job = _job(action.name, action.key, action.failures, index, Task.OUTCOMES, labels.owner(index))
    place = spec.artifacts.place
    one = _keeper("outcomes", place, action.task, settings)
    _finish(job, one, {ARTIFACTS: place}, spec.build.pod, settings, retries=1, deadline=RESOLVE_DEADLINE_SECONDS)
    return job


def _keeper(
    verb: str, place: Place, task: CollectTask | OutcomesTask | PublishTask, settings: Installation, image: str = ""
) -> Manifest:
    """The container of a verb that looks after artifacts, in today's image: one of before may not know it."""
    one = container(verb, image or settings.searcher_image, verb, credentials({ARTIFACTS: place}), settings)
    one["env"] = [task_env(task)]
    one["resources"] = resources(RESOLVE_RESOURCES)
    return one


def _is_todays(image: str, settings: Installation) -> bool:
    """Whether an image came with this operator. Any other, a revision's of before an upgrade, may be of the first."""
    return image in (settings.searcher_image, settings.gpu_image)


def _job(
    name: str, key: str, failures: int, index: IndexView, verb: Task, owned_by: Manifest, revision: str = ""
) -> Manifest:
    marks = labels.common(index.name, labels.JOB, revision) | {labels.VERB: verb.value}
    annotations = {labels.KEY: key, labels.FAILURES: str(failures)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": labels.metadata(name, index.namespace, marks, owned_by, annotations),
    }


def _finish(
    job: Manifest,
    one: Manifest,
    places: Mapping[str, Place | None],
    pod: Pod,
    settings: Installation,
    *,
    retries: int,
    deadline: int,
    keep: int | None = None,
) -> None:
    """Put a pod around container `one` into the Job. `places`: what it works on, by prefix of credentials. `pod`: what
    the user says of it."""
    marks = dict(job["metadata"]["labels"])
    template = {"metadata": {"labels": marks}, "spec": pod_spec(one, pod, settings) | {"restartPolicy": "Never"}}
    mount_claims(template["spec"], places, writes=True)
    add_to(template, pod, {name: marks[name] for name in (labels.COMPONENT, labels.INDEX)}, settings)
    job["spec"] = {
        "backoffLimit": retries,
        "activeDeadlineSeconds": deadline,
        "completions": 1,
        "parallelism": 1,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": one["name"],
                        "operator": "In",
                        "values": sorted(int(code) for code in FATAL_EXITS),
                    },
                },
            ]
        },
        "template": template,
    }
    if keep is not None:
        job["spec"]["ttlSecondsAfterFinished"] = keep
