"""Jobs, and the pods that do their work."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from simulator.clock import Clock
from simulator.pods import Pods, condition, finished
from simulator.store import Json, Store, owners
from simulator.truth import Answer, Truth

from vectorindex_operator.manifests import labels
from vectorindex_searcher.contract import (
    TASK_ENV,
    BuildTask,
    CollectTask,
    OutcomesTask,
    PartitionTask,
    PublishTask,
    ResolveTask,
    Shard,
    ValidateTask,
)

TASKS: dict[str, Any] = {
    "resolve": ResolveTask,
    "partition": PartitionTask,
    "publish": PublishTask,
    "build": BuildTask,
    "validate": ValidateTask,
    "collect": CollectTask,
    "outcomes": OutcomesTask,
}
SECONDS = {
    "resolve": (1, 4),
    "partition": (3, 15),
    "build": (5, 30),
    "publish": (1, 4),
    "validate": (3, 12),
    "collect": (1, 6),
    "outcomes": (1, 4),
}
INDEX = "batch.kubernetes.io/job-completion-index"
"""Of a pod of an Indexed Job: its number, which is also in its environment."""


def finish(job: Json, kind: str, now: float, reason: str = "", message: str = "") -> Json:
    return {"conditions": [condition(kind, True, now, reason, message)]}


@dataclass(slots=True)
class Parts:
    """How far an Indexed Job is. `next`: the first part that was not begun."""

    next: int
    done: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)


def _part(pod: Json) -> int | None:
    number = pod["metadata"]["labels"].get(INDEX)
    return None if number is None else int(number)


@dataclass(frozen=True, slots=True)
class Queue:
    """How long a Job waits for its turn (seconds, from and to), and how often one is stopped once it runs (0 to 1)."""

    waits: tuple[float, float]
    preempts: float


class Jobs(Pods):
    """Starts a Job's pods until one has done its work, or one of each part."""

    queue: Queue | None = None
    """None: nobody looks after Jobs in queues."""
    vanishing = 0
    """How many finished Job pods will be gone before anybody reads them."""

    def __init__(self, store: Store, truth: Truth, clock: Clock, rng: Random) -> None:
        super().__init__(store, truth, clock, rng)
        self._parts: dict[str, Parts] = {}
        """By the uid of the Job."""
        self._runs: dict[str, int] = {}
        """How often a Job began, by its uid."""
        self._lost: dict[str, int | None] = {}
        """Which part a pod that went with its node was building."""

    def _job_changed(self, old: Json | None, job: Json) -> None:
        """One that is made, or changed. Whoever suspends it ends its pods, and its time: it begins anew."""
        suspended = job["spec"]["suspend"]
        if old is not None and old["spec"]["suspend"] == suspended:
            return
        if not suspended:
            self._job_runs(job)
        elif old is None and labels.QUEUE in job["metadata"]["labels"] and self.queue is not None:
            self._queue_up(job["metadata"]["name"], job["metadata"]["uid"], self.queue)
        elif old is not None:
            self._end_pods(job["metadata"]["uid"])

    def _job_runs(self, job: Json) -> None:
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        self._runs[uid] = run = self._runs.get(uid, 0) + 1
        if job["spec"]["completionMode"] == "Indexed":
            first = min(job["spec"]["parallelism"], job["spec"]["completions"])
            parts = self._parts.setdefault(uid, Parts(next=first))
            for number in sorted(set(range(parts.next)) - parts.done - parts.failed):
                self._start_part(name, uid, number)
        else:
            self.later(0.2, 1.5, lambda: self._job_pod(name, uid, 0, None))
        self.clock.after(job["spec"]["activeDeadlineSeconds"], lambda: self._job_deadline(name, uid, run))

    # ------------------------------------------------------------ Kueue

    def _queue_up(self, name: str, uid: str, queue: Queue) -> None:
        """Its turn comes, and perhaps goes again: then it is stopped, and waits a second time."""
        wait, runs = self.rng.uniform(*queue.waits), self.rng.uniform(0.0, 20.0)
        self.clock.after(wait, lambda: self._suspend(name, uid, held=False))
        if self.rng.random() < queue.preempts:
            self.clock.after(wait + runs, lambda: self._suspend(name, uid, held=True))
            again = wait + runs + self.rng.uniform(*queue.waits)
            self.clock.after(again, lambda: self._suspend(name, uid, held=False))

    def _suspend(self, name: str, uid: str, *, held: bool) -> None:
        job = self._alive("Job", name, uid)
        if job is not None and not finished(job):
            self.store.change("Job", name, spec={**job["spec"], "suspend": held})

    # ------------------------------------------------------------ pods

    def _start_part(self, name: str, uid: str, number: int) -> None:
        self.later(0.2, 1.5, lambda: self._job_pod(name, uid, 0, number))

    def _job_pod(self, name: str, uid: str, failed: int, part: int | None) -> None:
        job = self._alive("Job", name, uid)
        if job is None or finished(job) or job["spec"]["suspend"]:
            return
        marks = {"batch.kubernetes.io/job-name": name} | ({} if part is None else {INDEX: str(part)})
        pod = self._new_pod(job, name, marks)
        self._start_job_pod(name, uid, pod, failed)

    def _start_job_pod(self, name: str, uid: str, pod: str, failed: int) -> None:
        """Wait for a node with the GPU and for the Secret, then run."""
        job, live = self._alive("Job", name, uid), self.store.get("Pod", pod)
        if job is None or live is None or finished(job) or "deletionTimestamp" in live["metadata"]:
            return
        one = job["spec"]["template"]["spec"]["containers"][0]
        wants_gpu = any("gpu" in key for key in one["resources"].get("limits", ()))
        if wants_gpu and not self.truth.gpu:
            self._waits(pod, unschedulable="0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
        elif not self.truth.secret:
            self._waits(pod, secret="s3")
        else:
            self._waits(pod)
            low, high = SECONDS[one["args"][0]]
            self.later(low, high, lambda: self._job_pod_ends(name, uid, pod, failed, wants_gpu))
            return
        self.clock.after(7.0, lambda: self._start_job_pod(name, uid, pod, failed))

    def _job_pod_ends(self, name: str, uid: str, pod: str, failed: int, gpu: bool) -> None:
        live, job = self.store.get("Pod", pod), self._alive("Job", name, uid)
        if live is None or "deletionTimestamp" in live["metadata"] or job is None:
            if live is None and job is not None and not finished(job) and uid in self._parts:
                part = self._lost.pop(pod, None)
                self.later(1.0, 5.0, lambda: self._job_pod(name, uid, failed, part))
            if live is not None and self.rng.random() < 0.5 and "collect" not in live["spec"]["containers"][0]["args"]:
                self._run(live, gpu)  # a straggler: nobody waits for it any more, and it publishes
            return
        if finished(job):
            return
        code, word = self._run(live, gpu)
        ended = {"exitCode": code, "message": word.model_dump_json(by_alias=True) if word is not None else ""}
        if code == 137:
            ended["reason"] = "OOMKilled"
        status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [{"state": {"terminated": ended}}]}
        self.store.change("Pod", pod, status={**live["status"], **status})
        if self.vanishing > 0 and self.rng.random() < 0.5:
            self.vanishing -= 1
            self.delete("Pod", pod)
        part = _part(live)
        self.later(0.1, 1.5, lambda: self._job_reacts(name, uid, code, failed, part))

    def lose(self, pod: Json) -> None:
        """A pod of an Indexed Job goes with its node: nobody saw how it ended."""
        self._lost[pod["metadata"]["name"]] = _part(pod)
        self.store.remove("Pod", pod["metadata"]["name"])

    def _run(self, pod: Json, gpu: bool) -> Answer:
        one = pod["spec"]["containers"][0]
        verb = one["args"][0]
        task = TASKS[verb].model_validate_json(next(e["value"] for e in one["env"] if e["name"] == TASK_ENV))
        if verb == "partition":
            return self.truth.partition(task)
        if verb == "publish":
            return self.truth.publish(task)
        if verb == "build":
            if (part := _part(pod)) is not None:
                task = task.model_copy(update={"shard": Shard(number=part, of=task.index.shards)})
            return self.truth.build(task, gpu=gpu)
        if verb == "collect":
            return self.truth.collect(task)
        if verb == "outcomes":
            return self.truth.outcomes(task)
        return self.truth.resolve(task) if verb == "resolve" else self.truth.validate(task, one["image"])

    def _job_reacts(self, name: str, uid: str, code: int, failed: int, part: int | None) -> None:
        job = self._alive("Job", name, uid)
        if job is None or finished(job):
            return
        spec, now = job["spec"], self.clock.now
        fatal = spec["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"]
        if part is not None and (code == 0 or (code not in fatal and failed >= spec["backoffLimitPerIndex"])):
            status = self._part_ended(job, uid, part, well=code == 0)
        elif code == 0:
            status = finish(job, "Complete", now)
        elif code in fatal:
            status = finish(job, "Failed", now, "PodFailurePolicy", f"container failed with exit code {code}")
        elif part is None and failed >= spec["backoffLimit"]:
            status = finish(job, "Failed", now, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        else:
            self.later(1.0, 10.0, lambda: self._job_pod(name, uid, failed + 1, part))
            return
        self.store.change("Job", name, status=status)
        if "ttlSecondsAfterFinished" in spec and "conditions" in status:
            self.clock.after(spec["ttlSecondsAfterFinished"], lambda: self._expire(name, uid))

    def _part_ended(self, job: Json, uid: str, part: int, *, well: bool) -> Json:
        """The Job's status once a part is built, or has had all its tries."""
        parts, spec = self._parts[uid], job["spec"]
        (parts.done if well else parts.failed).add(part)
        if parts.next < spec["completions"]:
            self._start_part(job["metadata"]["name"], uid, parts.next)
            parts.next += 1
        ended: Json = {}
        if len(parts.done) == spec["completions"]:
            ended = finish(job, "Complete", self.clock.now)
        elif len(parts.done | parts.failed) == spec["completions"]:
            ended = finish(job, "Failed", self.clock.now, "FailedIndexes", "Job has failed indexes")
        return {"succeeded": len(parts.done), "failed": len(parts.failed), **ended}

    def _job_deadline(self, name: str, uid: str, run: int) -> None:
        job = self._alive("Job", name, uid)
        if job is None or finished(job) or job["spec"]["suspend"] or self._runs[uid] != run:
            return
        status = finish(job, "Failed", self.clock.now, "DeadlineExceeded", "Job was active longer than its deadline")
        self.store.change("Job", name, status=status)
        self._end_pods(uid)

    def _end_pods(self, uid: str) -> None:
        for pod in self.store.of_kind("Pod"):
            if uid in owners(pod):
                self.delete("Pod", pod["metadata"]["name"])

    def _expire(self, name: str, uid: str) -> None:
        if self._alive("Job", name, uid):
            self.store.remove("Job", name)
