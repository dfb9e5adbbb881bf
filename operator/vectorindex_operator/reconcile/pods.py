"""Views of Jobs and pods from their raw objects: what ended how, what waits for what, since when nothing is ready.

Whatever stands in them, these never raise: see raw.py. What containers wrote is bounded here.
"""

from __future__ import annotations

import ipaddress
import json
import math
from collections.abc import Mapping
from signal import Signals
from types import MappingProxyType
from typing import Any

from vectorindex_operator.core.loaded import PodView
from vectorindex_operator.core.observation import JobState, JobView, Task
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile import kueue, raw
from vectorindex_operator.reconcile.ports import Raw
from vectorindex_searcher.contract import (
    PACKED,
    BuildResult,
    CollectResult,
    Failure,
    OutcomesResult,
    PartitionResult,
    ResolveResult,
    ValidateResult,
    unpack,
)

Result = ResolveResult | PartitionResult | BuildResult | ValidateResult | CollectResult | OutcomesResult
_RESULTS: dict[str, type[Result]] = {
    "Resolve": ResolveResult,
    "Partition": PartitionResult,
    "Build": BuildResult,
    "Validate": ValidateResult,
    "Collect": CollectResult,
    "Outcomes": OutcomesResult,
}
_OF_THE_USERS_INDEX = frozenset({Task.PARTITION, Task.BUILD, Task.VALIDATE})
"""What opens an index, and has the resources that the user gave."""
UNMOUNTED_SECONDS = 20.0
"""A pod's volumes and network ordinarily take a few seconds: after this long without them something is missing."""
LONGEST_TERMINATION = 16 * 1024
"""Characters of a termination message that are read. The kubelet keeps 4 KiB of each container."""
_FAULTS = frozenset({Signals.SIGILL, Signals.SIGABRT, Signals.SIGBUS, Signals.SIGFPE, Signals.SIGSEGV})
"""Signals by which native code ends its own process; others are sent from outside."""
_MISSING = {"secret": "Secret", "configmap": "ConfigMap"}
"""First word of what the kubelet says of something that is not there -> its kind."""
_NORMAL_WAITS = frozenset({"ContainerCreating", "PodInitializing", "CrashLoopBackOff"})


# ---------------------------------------------------------------- Jobs


def job_view(job: Raw, all_pods: list[Raw], queued: Mapping[str, str] = MappingProxyType({})) -> JobView | None:
    """A Job with the last word of its pods; None when its label does not say what it is for. `queued`: uid of a Job ->
    why it waits in a queue."""
    verb = raw.label(job, labels.VERB)
    if verb not in {task.value for task in Task}:
        return None
    task, uid = Task(verb), raw.text(raw.part(job, "metadata").get("uid"))
    # By uid: a Job made again under its name has nothing to do with the last words of the pods before.
    mine = [pod for pod in all_pods if raw.is_owned(pod, uid)]
    mine.sort(key=lambda pod: raw.text(raw.part(pod, "metadata").get("creationTimestamp")))
    state, finished = _job_state(job)
    parts = raw.count(raw.annotation(job, labels.SHARDS))
    indexed = parts > 0
    # Of parts the last word may be that of one which ended well.
    result, failure, exit_code = last_termination(_failed(mine) if indexed else mine, task)
    newest = _held_up(mine) if indexed else mine[-1] if mine else None
    held = kueue.is_held(job)
    # Of one that is stopped pods are on their way out.
    newest = newest if state is JobState.RUNNING and not held else None
    since, why = _unschedulable(newest) if newest is not None else (None, "")
    return JobView(
        name=raw.name(job),
        uid=uid,
        task=task,
        revision=raw.label(job, labels.REVISION),
        key=raw.annotation(job, labels.KEY),
        failures=raw.count(raw.annotation(job, labels.FAILURES)),
        device=raw.annotation(job, labels.DEVICE, 16) or "cpu",
        state=state,
        created_at=raw.unix(raw.part(job, "metadata").get("creationTimestamp")) or 0.0,
        finished_at=finished,
        result=result if state is JobState.SUCCEEDED else None,
        failure=failure or _job_failure(job),
        exit_code=exit_code,
        waiting=_waiting(newest) if newest is not None else "",
        unschedulable_since=since,
        unschedulable=why,
        deleting=raw.is_deleting(job),
        podless_since=_podless_since(job) if state is JobState.RUNNING and not mine else None,
        done=raw.count(raw.part(job, "status").get("succeeded")) if indexed else 0,
        parts=parts,
        held=held,
        queue=(queue := kueue.queue_of(job)),
        queued=queued.get(uid, kueue.UNHEARD) if held and queue else "",
    )


def _failed(mine: list[Raw]) -> list[Raw]:
    """Pods of a Job that ended badly."""
    return [pod for pod in mine if raw.part(pod, "status").get("phase") == "Failed"]


def _held_up(mine: list[Raw]) -> Raw | None:
    """Of the pods of a Job in parts that are to run, the one to ask what holds it up: none while one of them gets on,
    since others may wait for the room that it has."""
    going = [pod for pod in mine if raw.part(pod, "status").get("phase") not in ("Failed", "Succeeded")]
    stuck = [pod for pod in going if _unschedulable(pod)[1] or _waiting(pod)]
    return stuck[-1] if stuck and len(stuck) == len(going) else None


def _podless_since(job: Raw) -> float | None:
    """Of a Job that somebody holds back (`suspend`), or just let go, no pod is to be there; one whose pod was lost gets
    another soon."""
    status, suspended = raw.part(job, "status"), _condition(job, "Suspended").get("status") == "True"
    if suspended or kueue.is_held(job) or status.get("active") or status.get("failed"):
        return None
    started = raw.unix(status.get("startTime"))
    return started or raw.unix(raw.part(job, "metadata").get("creationTimestamp"))


def _job_state(job: Raw) -> tuple[JobState, float | None]:
    # Only Complete and Failed are final: their interim forms still have running pods.
    for condition in raw.rows(raw.part(job, "status").get("conditions")):
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed"):
            state = JobState.SUCCEEDED if condition["type"] == "Complete" else JobState.FAILED
            return state, raw.unix(condition.get("lastTransitionTime"))
    return JobState.RUNNING, None


def _job_failure(job: Raw) -> Failure | None:
    condition = _condition(job, "Failed")
    if condition.get("status") != "True":
        return None
    reason = raw.reason(condition.get("reason"), "JobFailed")
    return Failure(reason=reason, message=raw.text(condition.get("message")) or f"the Job failed: {reason}")


def last_termination(mine: list[Raw], task: Task) -> tuple[Result | None, Failure | None, int | None]:
    """Result or failure of the newest pod that said anything, and its exit code."""
    for pod in reversed(mine):
        for container in _containers(pod):
            ended = raw.part(container, "state", "terminated")
            if not ended:
                continue
            result, failure = parse_termination_message(ended.get("message"))
            if failure is None and result is None:
                failure = _death(task, ended)
            code = ended.get("exitCode")
            return result, failure, raw.count(code) if isinstance(code, int) else None
    return None, None, None


def _death(task: Task, ended: Mapping[str, Any]) -> Failure | None:
    """Why a container ended that could not say so itself."""
    if ended.get("reason") == "OOMKilled":
        return _out_of_memory(task)
    number = raw.count(ended.get("exitCode")) - 128
    if number not in _FAULTS:
        return None
    return Failure(
        reason="Crashed",
        message=f"`{task.value}` was ended by {Signals(number).name}, a fault in native code",
        field="spec.index.factory" if task in _OF_THE_USERS_INDEX else None,
        remedy="its pod's log names the place; another index.factory takes another path through FAISS",
    )


def _out_of_memory(task: Task) -> Failure:
    reason, message = "OutOfMemory", "the pod was killed for memory"
    if task not in _OF_THE_USERS_INDEX:
        return Failure(
            reason=reason, message=message, remedy="list fewer objects: narrow the prefix or path in spec.source"
        )
    return Failure(
        reason=reason,
        message=message,
        field="spec.build.resources.limits.memory",
        remedy="give the build more memory, or choose a smaller index.factory",
    )


# ---------------------------------------------------------------- what containers wrote


def parse_termination_message(message: object) -> tuple[Result | None, Failure | None]:
    """A termination message: (result, failure); both None when it is neither (a crash leaves arbitrary text)."""
    try:
        said = json.loads(raw.text(message, LONGEST_TERMINATION))
        if raw.text(raw.table(said).get("kind")) == PACKED:
            said = unpack(raw.table(said))
        kind = raw.text(raw.table(said).get("kind"))
        if kind == "Failure":
            return None, _bounded(Failure.read(said))
        if kind in _RESULTS and _can_be_stored(said):
            return _RESULTS[kind].read(said), None
    except (ValueError, RecursionError):  # ValidationError is one
        pass
    return None, None


def _bounded(said: Failure) -> Failure:
    """A failure as conditions, Events and history can hold it."""
    return Failure(
        reason=raw.reason(said.reason, "Failed"),
        message=raw.text(said.message),
        object=raw.text(said.object) or None,
        row=said.row if said.row is not None and abs(said.row) < 2**63 else None,
        field=raw.text(said.field, raw.NAME) or None,
        remedy=raw.text(said.remedy) or None,
    )


def _can_be_stored(said: object) -> bool:
    """Whether the API server takes it in a status: whole numbers of 64 bits, no NaN, texts that a person can read."""
    if isinstance(said, Mapping):
        return all(_can_be_stored(value) for value in said.values())
    if isinstance(said, list):
        return len(said) <= raw.ROWS and all(_can_be_stored(value) for value in said)
    if isinstance(said, str):
        return len(said) <= raw.MESSAGE
    return math.isfinite(said) and abs(said) < 2**63 if isinstance(said, int | float) else True


# ---------------------------------------------------------------- searcher pods


def pod_view(pod: Raw, now: float = math.inf) -> PodView:
    """A searcher pod. `now`: unix seconds; what ordinarily passes by itself is not told before its time."""
    failure = None
    for container in _containers(pod):
        for state in ("state", "lastState"):
            ended = raw.part(container, state, "terminated")
            failure = failure or parse_termination_message(ended.get("message"))[1]
    unschedulable_since, unschedulable = _unschedulable(pod)
    scheduled, ready = _condition(pod, "PodScheduled"), _condition(pod, "Ready")
    return PodView(
        name=raw.name(pod),
        address=_address(raw.part(pod, "status").get("podIP")),
        ready=ready.get("status") == "True",
        restarts=sum(raw.count(container.get("restartCount")) for container in _containers(pod)),
        scheduled_at=raw.unix(scheduled.get("lastTransitionTime")) if scheduled.get("status") == "True" else None,
        unschedulable=unschedulable,
        waiting=_waiting(pod) or _unmounted(pod, now),
        failure=failure,
        deleting=raw.is_deleting(pod),
        unschedulable_since=unschedulable_since,
        ready_at=raw.unix(ready.get("lastTransitionTime")) if ready.get("status") == "True" else None,
    )


def belongs_to(pod: Raw, deployment: Raw, revision: str) -> bool:
    """Whether a pod is one of the Deployment's, as far as the pod itself tells.

    Between the two stands a ReplicaSet, which is not read: its name is the Deployment's and the template's hash.
    """
    marks = raw.label(pod, labels.REVISION), raw.label(pod, labels.COMPONENT)
    owner = raw.controller(pod)
    component = labels.SEARCHER if raw.name(deployment) == revision else labels.SHARD_PODS
    expected = f"{raw.name(deployment)}-{raw.label(pod, 'pod-template-hash')}"
    return marks == (revision, component) and (owner.get("kind"), owner.get("name")) == ("ReplicaSet", expected)


def unready_since(deployment: Raw, mine: list[Raw]) -> float | None:
    """Since when no pod of the Deployment is ready (unix seconds); None while one is."""
    changes = []
    for pod in mine:
        ready = _condition(pod, "Ready")
        if raw.is_deleting(pod):
            continue
        if ready.get("status") == "True":
            return None
        changes.append(raw.unix(ready.get("lastTransitionTime")))
    known = [at for at in changes if at is not None]
    if known:
        return max(known)
    available = _condition(deployment, "Available")
    since = raw.unix(available.get("lastTransitionTime")) if available.get("status") == "False" else None
    return since or raw.unix(raw.part(deployment, "metadata").get("creationTimestamp")) or 0.0


def refused_since(deployment: Raw) -> float | None:
    """Since when no more pods of the Deployment can be made (unix seconds): a quota, a webhook. None: they can."""
    failure = _condition(deployment, "ReplicaFailure")
    return raw.unix(failure.get("lastTransitionTime")) if failure.get("status") == "True" else None


def refusal(deployment: Raw) -> str:
    """In whose words no more pods of the Deployment can be made; empty: they can. Without the name of the pod, which is
    another one with each try."""
    failure = _condition(deployment, "ReplicaFailure")
    if failure.get("status") != "True":
        return ""
    words = raw.text(failure.get("message"))
    return words.partition(" is forbidden: ")[2] or words or "its pods cannot be made"


def _address(value: object) -> str:
    """An IP address: requests go there, so nothing else is one."""
    try:
        return str(ipaddress.ip_address(raw.text(value, 64)))
    except ValueError:
        return ""


def _containers(pod: Raw) -> list[Mapping[str, Any]]:
    return raw.rows(raw.part(pod, "status").get("containerStatuses"))


def _condition(thing: Raw, kind: str) -> Mapping[str, Any]:
    """A condition of a Job, a pod or a Deployment; empty when it is not there."""
    found = (c for c in raw.rows(raw.part(thing, "status").get("conditions")) if c.get("type") == kind)
    return next(found, {})


def _unschedulable(pod: Raw) -> tuple[float | None, str]:
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "True" or scheduled.get("reason") != "Unschedulable":
        return None, ""
    return raw.unix(scheduled.get("lastTransitionTime")), raw.text(scheduled.get("message")) or "unschedulable"


def _unmounted(pod: Raw, now: float) -> str:
    """What a pod waits for whose Secrets and ConfigMaps should be mounted but whose sandbox does not come up.

    The kubelet tells a missing one (or key of it) only in an Event, which may be gone by now and is not ours to
    read; the container says ContainerCreating. But volumes are mounted before the sandbox is made, so a sandbox that
    stays away points to them, or to the node's network: the message says both.
    """
    condition = _condition(pod, "PodReadyToStartContainers")
    since = raw.unix(condition.get("lastTransitionTime"))
    if condition.get("status") != "False" or since is None:
        return ""
    if now - since < UNMOUNTED_SECONDS or raw.is_deleting(pod):
        return ""
    volumes = raw.rows(raw.part(pod, "spec").get("volumes"))
    mounted = [one for volume in volumes if (one := _mounted(volume))]
    if not mounted:
        return ""
    named, at = " and ".join(mounted), condition["lastTransitionTime"]
    return f"{mounted[0]}: volumes or network are not ready since {at}: is {named} there, with its keys?"


def _mounted(volume: Mapping[str, Any]) -> str:
    """Kind and name of what a volume shows; empty for one that needs nothing to be there."""
    secret = raw.text(raw.part(volume, "secret").get("secretName"), raw.NAME)
    config = raw.text(raw.part(volume, "configMap").get("name"), raw.NAME)
    return f"Secret/{secret}" if secret else f"ConfigMap/{config}" if config else ""


def _waiting(pod: Raw) -> str:
    """Why a container does not start, when it is not the ordinary course: a missing Secret, an unknown image."""
    for container in _containers(pod):
        waiting = raw.part(container, "state", "waiting")
        reason, message = raw.text(waiting.get("reason"), raw.NAME), raw.text(waiting.get("message"))
        if not reason or reason in _NORMAL_WAITS:
            continue
        missing = _MISSING.get(message.partition(" ")[0], "")
        if reason == "CreateContainerConfigError" and missing:
            name = message.split('"')[1] if '"' in message else ""
            return f"{missing}/{name}: {message}"
        return f"{reason}: {message}" if message else reason
    return ""
