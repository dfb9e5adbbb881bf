"""Views of Jobs and pods from their raw objects: what ended how, what waits for what, since when nothing is ready."""

from __future__ import annotations

import json
import math
from signal import Signals
from typing import Any

from vectorindex_operator.api.timestamps import to_unix
from vectorindex_operator.core.loaded import PodView
from vectorindex_operator.core.observation import JobState, JobView, Task
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile.ports import Raw
from vectorindex_searcher.contract import BuildResult, Failure, ResolveResult, Stored, ValidateResult

_RESULTS: dict[str, type[Stored]] = {"Resolve": ResolveResult, "Build": BuildResult, "Validate": ValidateResult}
UNMOUNTED_SECONDS = 20.0
"""A pod's volumes and network ordinarily take a few seconds: after this long without them something is missing."""
_FAULTS = frozenset({Signals.SIGILL, Signals.SIGABRT, Signals.SIGBUS, Signals.SIGFPE, Signals.SIGSEGV})
"""Signals by which native code ends its own process; others are sent from outside."""
_NORMAL_WAITS = frozenset({"ContainerCreating", "PodInitializing", "CrashLoopBackOff"})


def job_view(raw: Raw, all_pods: list[Raw]) -> JobView:
    """A Job with the last word of its pods."""
    meta, marks = raw["metadata"], raw["metadata"].get("annotations", {})
    name = meta["name"]
    # By uid: a Job made again under its name has nothing to do with the last words of the pods before.
    mine = [pod for pod in all_pods if is_owned(pod, meta["uid"])]
    mine.sort(key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    state, finished = _job_state(raw)
    task = Task(meta["labels"][labels.VERB])
    result, failure, exit_code = last_termination(mine, task)
    newest = mine[-1] if mine else None
    since, why = _unschedulable(newest) if state is JobState.RUNNING and newest is not None else (None, "")
    return JobView(
        name=name,
        uid=meta["uid"],
        task=task,
        revision=meta["labels"].get(labels.REVISION, ""),
        key=marks.get(labels.KEY, ""),
        failures=int(marks.get(labels.FAILURES, "0")),
        device=marks.get(labels.DEVICE, "cpu"),
        state=state,
        created_at=to_unix(meta["creationTimestamp"]),
        finished_at=finished,
        result=result if state is JobState.SUCCEEDED else None,
        failure=failure or _job_failure(raw),
        exit_code=exit_code,
        waiting=_waiting(newest) if state is JobState.RUNNING and newest is not None else "",
        unschedulable_since=since,
        unschedulable=why,
        deleting="deletionTimestamp" in meta,
    )


def is_owned(raw: Raw, uid: str) -> bool:
    """Whether `uid` is among the object's owners."""
    return any(owner.get("uid") == uid for owner in raw["metadata"].get("ownerReferences", ()))


def _job_state(raw: Raw) -> tuple[JobState, float | None]:
    # Only Complete and Failed are final: their interim forms still have running pods.
    for condition in raw.get("status", {}).get("conditions", ()):
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed"):
            state = JobState.SUCCEEDED if condition["type"] == "Complete" else JobState.FAILED
            return state, to_unix(condition["lastTransitionTime"])
    return JobState.RUNNING, None


def _job_failure(raw: Raw) -> Failure | None:
    for condition in raw.get("status", {}).get("conditions", ()):
        if condition.get("type") == "Failed" and condition.get("status") == "True":
            reason = condition.get("reason") or "JobFailed"
            return Failure(reason=reason, message=condition.get("message") or f"the Job failed: {reason}")
    return None


def last_termination(mine: list[Raw], task: Task) -> tuple[Any, Failure | None, int | None]:
    """Result or failure of the newest pod that said anything, and its exit code."""
    for pod in reversed(mine):
        for status in pod.get("status", {}).get("containerStatuses", ()):
            ended = status.get("state", {}).get("terminated")
            if ended is None:
                continue
            result, failure = parse_termination_message(ended.get("message", ""))
            if failure is None and result is None:
                failure = _death(task, ended)
            return result, failure, ended.get("exitCode")
    return None, None, None


def _death(task: Task, ended: Raw) -> Failure | None:
    """Why a container ended that could not say so itself."""
    if ended.get("reason") == "OOMKilled":
        return _out_of_memory(task)
    number = ended.get("exitCode", 0) - 128
    if number not in _FAULTS:
        return None
    return Failure(
        reason="Crashed",
        message=f"`{task.value}` was ended by {Signals(number).name}, a fault in native code",
        field=None if task is Task.RESOLVE else "spec.index.factory",
        remedy="its pod's log names the place; another index.factory takes another path through FAISS",
    )


def _out_of_memory(task: Task) -> Failure:
    reason, message = "OutOfMemory", "the pod was killed for memory"
    if task is Task.RESOLVE:  # its resources are not the user's to set
        return Failure(reason=reason, message=message, remedy="list fewer objects: narrow spec.source.s3.prefix")
    return Failure(
        reason=reason,
        message=message,
        field="spec.build.resources.limits.memory",
        remedy="give the build more memory, or choose a smaller index.factory",
    )


def parse_termination_message(text: str) -> tuple[Any, Failure | None]:
    """A termination message: (result, failure); both None when it is neither (a crash leaves arbitrary text)."""
    try:
        raw = json.loads(text)
        kind = raw.get("kind")
        if kind == "Failure":
            return None, Failure.read(raw)
        if kind in _RESULTS:
            return _RESULTS[kind].read(raw), None
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    return None, None


def pod_view(pod: Raw, now: float = math.inf) -> PodView:
    """A searcher pod. `now`: unix seconds; what ordinarily passes by itself is not told before its time."""
    meta, status = pod["metadata"], pod.get("status", {})
    containers = status.get("containerStatuses", ())
    failure = None
    for container in containers:
        for state in (container.get("state", {}), container.get("lastState", {})):
            ended = state.get("terminated")
            if ended is not None and failure is None:
                failure = parse_termination_message(ended.get("message", ""))[1]
    _, unschedulable = _unschedulable(pod)
    scheduled = _condition(pod, "PodScheduled")
    ready = _condition(pod, "Ready")
    return PodView(
        name=meta["name"],
        address=status.get("podIP", ""),
        ready=ready is not None and ready.get("status") == "True",
        restarts=sum(int(c.get("restartCount", 0)) for c in containers),
        scheduled_at=(
            to_unix(scheduled["lastTransitionTime"])
            if scheduled is not None and scheduled.get("status") == "True" and scheduled.get("lastTransitionTime")
            else None
        ),
        unschedulable=unschedulable,
        waiting=_waiting(pod) or _unmounted(pod, now),
        failure=failure,
        deleting="deletionTimestamp" in meta,
    )


def unready_since(deployment: Raw, mine: list[Raw]) -> float | None:
    """Since when no pod of the Deployment is ready (unix seconds); None while one is."""
    changes = []
    for pod in mine:
        ready = _condition(pod, "Ready")
        if ready is None or "deletionTimestamp" in pod["metadata"]:
            continue
        if ready.get("status") == "True":
            return None
        if ready.get("lastTransitionTime"):
            changes.append(to_unix(ready["lastTransitionTime"]))
    if changes:
        return max(changes)
    for condition in deployment.get("status", {}).get("conditions", ()):
        if condition.get("type") == "Available" and condition.get("status") == "False":
            return to_unix(condition["lastTransitionTime"])
    return to_unix(deployment["metadata"]["creationTimestamp"])


def _condition(pod: Raw, kind: str) -> Raw | None:
    return next((c for c in pod.get("status", {}).get("conditions", ()) if c.get("type") == kind), None)


def _unschedulable(pod: Raw) -> tuple[float | None, str]:
    scheduled = _condition(pod, "PodScheduled")
    if scheduled is None or scheduled.get("status") == "True" or scheduled.get("reason") != "Unschedulable":
        return None, ""
    return to_unix(scheduled["lastTransitionTime"]), scheduled.get("message", "unschedulable")


def _unmounted(pod: Raw, now: float) -> str:
    """What a pod waits for whose Secrets should be mounted but whose sandbox does not come up.

    The kubelet tells a missing Secret (or key of it) only in an Event, which may be gone by now and is not ours to
    read; the container says ContainerCreating. But volumes are mounted before the sandbox is made, so a sandbox that
    stays away points to them, or to the node's network: the message says both.
    """
    condition = _condition(pod, "PodReadyToStartContainers")
    if condition is None or condition.get("status") != "False" or not condition.get("lastTransitionTime"):
        return ""
    since = condition["lastTransitionTime"]
    if now - to_unix(since) < UNMOUNTED_SECONDS or "deletionTimestamp" in pod["metadata"]:
        return ""
    secrets = [
        volume["secret"]["secretName"] for volume in pod.get("spec", {}).get("volumes", ()) if volume.get("secret")
    ]
    if not secrets:
        return ""
    named = " and ".join(f"Secret/{name}" for name in secrets)
    return f"Secret/{secrets[0]}: volumes or network are not ready since {since}: is {named} there, with its keys?"


def _waiting(pod: Raw) -> str:
    """Why a container does not start, when it is not the ordinary course: a missing Secret, an unknown image."""
    for container in pod.get("status", {}).get("containerStatuses", ()):
        waiting = container.get("state", {}).get("waiting", {})
        reason = waiting.get("reason", "")
        if not reason or reason in _NORMAL_WAITS:
            continue
        message = waiting.get("message", "")
        if reason == "CreateContainerConfigError" and message.startswith("secret "):
            name = message.split('"')[1] if '"' in message else ""
            return f"Secret/{name}: {message}"
        return f"{reason}: {message}" if message else reason
    return ""
