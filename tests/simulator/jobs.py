"""Jobs, and the pods that do their work."""

from __future__ import annotations

from typing import Any

from simulator.pods import Pods, condition, finished
from simulator.store import Json, owners
from simulator.truth import Answer

from vectorindex_searcher.contract import TASK_ENV, BuildTask, CollectTask, OutcomesTask, ResolveTask, ValidateTask

TASKS: dict[str, Any] = {
    "resolve": ResolveTask,
    "build": BuildTask,
    "validate": ValidateTask,
    "collect": CollectTask,
    "outcomes": OutcomesTask,
}
SECONDS = {"resolve": (1, 4), "build": (5, 30), "validate": (3, 12), "collect": (1, 6), "outcomes": (1, 4)}


def finish(job: Json, kind: str, now: float, reason: str = "", message: str = "") -> Json:
    return {"conditions": [condition(kind, True, now, reason, message)]}


class Jobs(Pods):
    """Starts a Job's pods until one has done its work."""

    vanishing = 0
    """How many finished Job pods will be gone before anybody reads them."""

    def _job_created(self, job: Json) -> None:
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        self.later(0.2, 1.5, lambda: self._job_pod(name, uid, 0))
        self.clock.after(job["spec"]["activeDeadlineSeconds"], lambda: self._job_deadline(name, uid))

    def _job_pod(self, name: str, uid: str, failed: int) -> None:
        job = self._alive("Job", name, uid)
        if job is None or finished(job):
            return
        pod = self._new_pod(job, name, {"batch.kubernetes.io/job-name": name})
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
        self.later(0.1, 1.5, lambda: self._job_reacts(name, uid, code, failed))

    def _run(self, pod: Json, gpu: bool) -> Answer:
        one = pod["spec"]["containers"][0]
        verb = one["args"][0]
        task = TASKS[verb].model_validate_json(next(e["value"] for e in one["env"] if e["name"] == TASK_ENV))
        if verb == "build":
            return self.truth.build(task, gpu=gpu)
        if verb == "collect":
            return self.truth.collect(task)
        if verb == "outcomes":
            return self.truth.outcomes(task)
        return self.truth.resolve(task) if verb == "resolve" else self.truth.validate(task, one["image"])

    def _job_reacts(self, name: str, uid: str, code: int, failed: int) -> None:
        job = self._alive("Job", name, uid)
        if job is None or finished(job):
            return
        spec, now = job["spec"], self.clock.now
        fatal = spec["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"]
        if code == 0:
            status = finish(job, "Complete", now)
        elif code in fatal:
            status = finish(job, "Failed", now, "PodFailurePolicy", f"container failed with exit code {code}")
        elif failed >= spec["backoffLimit"]:
            status = finish(job, "Failed", now, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        else:
            self.later(1.0, 10.0, lambda: self._job_pod(name, uid, failed + 1))
            return
        self.store.change("Job", name, status=status)
        if "ttlSecondsAfterFinished" in spec:
            self.clock.after(spec["ttlSecondsAfterFinished"], lambda: self._expire(name, uid))

    def _job_deadline(self, name: str, uid: str) -> None:
        job = self._alive("Job", name, uid)
        if job is None or finished(job):
            return
        status = finish(job, "Failed", self.clock.now, "DeadlineExceeded", "Job was active longer than its deadline")
        self.store.change("Job", name, status=status)
        for pod in self.store.of_kind("Pod"):
            if uid in owners(pod):
                self.delete("Pod", pod["metadata"]["name"])

    def _expire(self, name: str, uid: str) -> None:
        if self._alive("Job", name, uid):
            self.store.remove("Job", name)
