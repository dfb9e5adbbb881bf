"""What Kubernetes itself does: the garbage collector, Jobs and their pods, Deployments and theirs.

Simplified where the operator cannot tell: no ReplicaSets, no kubelet; times are drawn from the seed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

from simulator.clock import Clock
from simulator.store import NAMESPACE, Json, Store, owners, stamp
from simulator.truth import Answer, Quality, Truth

from vectorindex_operator.manifests import labels
from vectorindex_searcher.contract import TASK_ENV, BuildTask, Failure, ResolveTask, ValidateTask

TASKS: dict[str, Any] = {"resolve": ResolveTask, "build": BuildTask, "validate": ValidateTask}
SECONDS = {"resolve": (1, 4), "build": (5, 30), "validate": (3, 12)}


def condition(kind: str, value: bool, now: float, reason: str = "", message: str = "") -> Json:
    status = "True" if value else "False"
    return {"type": kind, "status": status, "lastTransitionTime": stamp(now), "reason": reason, "message": message}


def finished(job: Json) -> bool:
    return any(c["type"] in ("Complete", "Failed") for c in job.get("status", {}).get("conditions", ()))


def is_ready(pod: Json) -> bool:
    return "deletionTimestamp" not in pod["metadata"] and any(
        c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"]
    )


def finish(job: Json, kind: str, now: float, reason: str = "", message: str = "") -> Json:
    return {"conditions": [condition(kind, True, now, reason, message)]}


class Controllers:
    """Reacts to changes in the store, later, as controllers do."""

    def __init__(self, store: Store, truth: Truth, clock: Clock, rng: Random) -> None:
        self.store, self.truth, self.clock, self.rng = store, truth, clock, rng
        self.vanishing = 0
        """How many finished Job pods will be gone before anybody reads them."""
        self.built: Callable[[str, bool], None] = lambda digest, reused: None
        self._pods = 0
        self._collecting = False
        self._syncing: set[str] = set()
        self._slicing = False

    def later(self, low: float, high: float, act: Callable[[], None]) -> None:
        self.clock.after(self.rng.uniform(low, high), act)

    def on_change(self, verb: str, kind: str, name: str, old: Json | None, new: Json | None) -> None:
        if kind == "Job" and verb == "create":
            assert new is not None
            self._job_created(new)
        elif kind == "Deployment" and new is not None:
            if old is None or old["spec"] is not new["spec"]:
                self._sync_soon(name)
        elif kind == "Pod":
            obj = new or old
            assert obj is not None
            owner = self.store.uids.get(obj["metadata"]["ownerReferences"][0]["uid"])
            if owner is not None and owner[0] == "Deployment":
                self._sync_soon(owner[1])
        if kind in ("Pod", "Service") and not self._slicing:
            self._slicing = True
            self.later(0.02, 0.8, self._slice)
        if verb == "delete" or (new is not None and owners(new) and not any(u in self.store.uids for u in owners(new))):
            self.collect_soon()

    # ------------------------------------------------------------ EndpointSlices

    def _slice(self) -> None:
        """One slice for each Service, with the pods that its selector picks."""
        self._slicing = False
        for service in self.store.of_kind("Service"):
            meta, selector = service["metadata"], service["spec"]["selector"]
            endpoints = [
                {"addresses": [pod["status"]["podIP"]], "conditions": {"ready": is_ready(pod)}}
                for pod in self.store.of_kind("Pod")
                if pod["status"].get("podIP") and selector.items() <= pod["metadata"]["labels"].items()
            ]
            if self.store.get("EndpointSlice", meta["name"]) is not None:
                self.store.change("EndpointSlice", meta["name"], endpoints=endpoints)
                continue
            mine = {
                "name": meta["name"],
                "namespace": NAMESPACE,
                "labels": {**meta["labels"], "kubernetes.io/service-name": meta["name"]},
                "ownerReferences": [{"kind": "Service", "uid": meta["uid"], "controller": True}],
            }
            self.store.create({"kind": "EndpointSlice", "metadata": mine, "endpoints": endpoints})

    # ------------------------------------------------------------ garbage collection

    def collect_soon(self) -> None:
        if not self._collecting:
            self._collecting = True
            self.later(0.1, 4.0, self._collect)

    def _collect(self) -> None:
        self._collecting = False
        for kind, name, obj in list(self.store.everything()):
            if owners(obj) and not any(uid in self.store.uids for uid in owners(obj)):
                self.delete(kind, name)
        for kind, name, obj in list(self.store.everything()):
            if "foregroundDeletion" in obj["metadata"].get("finalizers", ()):
                uid = obj["metadata"]["uid"]
                mine = [(k, n) for k, n, o in self.store.everything() if uid in owners(o)]
                for one in mine:
                    self.delete(*one)
                if not any(uid in owners(o) for _, _, o in self.store.everything()):
                    self.store.remove(kind, name)
                else:
                    self.collect_soon()

    def delete(self, kind: str, name: str) -> None:
        """Background deletion: at once, but pods end gracefully."""
        obj = self.store.get(kind, name)
        if obj is None or "deletionTimestamp" in obj["metadata"]:
            return
        if kind == "Pod":
            uid = obj["metadata"]["uid"]
            self.store.change(kind, name, meta={"deletionTimestamp": stamp(self.clock.now)})
            self.later(0.5, 8.0, lambda: self._gone(name, uid))
        else:
            self.store.remove(kind, name)

    def _gone(self, name: str, uid: str) -> None:
        if self._alive("Pod", name, uid):
            self.store.remove("Pod", name)

    def _alive(self, kind: str, name: str, uid: str) -> Json | None:
        obj = self.store.get(kind, name)
        return obj if obj is not None and obj["metadata"]["uid"] == uid else None

    # ------------------------------------------------------------ Jobs

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
            if live is not None and self.rng.random() < 0.5:
                self._run(live, gpu)  # a straggler: nobody waits for it any more, and it publishes
            return
        if finished(job):
            return
        code, word = self._run(live, gpu)
        ended = {"exitCode": code, "message": word.model_dump_json(by_alias=True) if word is not None else ""}
        if code == 137:
            ended["reason"] = "OOMKilled"
        self.store.change(
            "Pod", pod, status={**live["status"], "containerStatuses": [{"state": {"terminated": ended}}]}
        )
        if self.vanishing > 0 and self.rng.random() < 0.5:
            self.vanishing -= 1
            self.delete("Pod", pod)
        self.later(0.1, 1.5, lambda: self._job_reacts(name, uid, code, failed))

    def _run(self, pod: Json, gpu: bool) -> Answer:
        one = pod["spec"]["containers"][0]
        verb = one["args"][0]
        task = TASKS[verb].model_validate_json(next(e["value"] for e in one["env"] if e["name"] == TASK_ENV))
        if verb != "build":
            answer: Answer = getattr(self.truth, verb)(task)
            return answer
        known = task.digest in self.truth.published
        answer = self.truth.build(task, gpu=gpu)
        if answer[0] == 0:
            self.built(task.digest, known)
        return answer

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

    # ------------------------------------------------------------ pods

    def _new_pod(self, owner: Json, prefix: str, marks: Json) -> str:
        self._pods += 1
        name = f"{prefix}-{self._pods}"
        template, meta = owner["spec"]["template"], owner["metadata"]
        manager = {"kind": owner["kind"], "name": meta["name"]}
        if owner["kind"] == "Deployment":  # through a ReplicaSet, which nobody here needs but for its name
            manager = {"kind": "ReplicaSet", "name": f"{meta['name']}-{marks['pod-template-hash']}"}
        self.store.create(
            {
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": NAMESPACE,
                    "labels": {**template["metadata"]["labels"], **marks},
                    "ownerReferences": [{**manager, "uid": meta["uid"], "controller": True}],
                },
                "spec": template["spec"],
                "status": {"conditions": [condition("PodScheduled", False, self.clock.now)]},
            }
        )
        return name

    def _waits(self, pod: str, *, unschedulable: str = "", secret: str = "") -> None:
        """Say why the pod does not run yet; with neither, it runs."""
        live = self.store.kinds["Pod"][pod]
        before = live["status"]
        at = self.clock.now
        if unschedulable:
            known = [c for c in before["conditions"] if c.get("reason") == "Unschedulable"]
            row = known[0] if known else condition("PodScheduled", False, at, "Unschedulable", unschedulable)
            self.store.change("Pod", pod, status={"conditions": [row]})
            return
        known = [c for c in before["conditions"] if c["type"] == "PodScheduled" and c["status"] == "True"]
        state: Json = {"running": {}}
        if secret:
            text = f'secret "{secret}" not found'
            state = {"waiting": {"reason": "CreateContainerConfigError", "message": text}}
        rest = [c for c in before["conditions"] if c["type"] != "PodScheduled"]
        self.store.change(
            "Pod",
            pod,
            status={
                **before,
                "podIP": f"10.0.0.{pod.rpartition('-')[2]}",
                "conditions": [*(known or [condition("PodScheduled", True, at)]), *rest],
                "containerStatuses": [{"state": state, "restartCount": 0}],
            },
        )

    # ------------------------------------------------------------ Deployments

    def _sync_soon(self, name: str) -> None:
        if name not in self._syncing:
            self._syncing.add(name)
            self.later(0.05, 0.6, lambda: self._sync(name))

    def _sync(self, name: str) -> None:
        self._syncing.discard(name)
        live = self.store.get("Deployment", name)
        if live is None:
            return
        want, mark = live["spec"]["replicas"], _template_mark(live)
        uid = live["metadata"]["uid"]
        pods = [p for p in self.store.of_kind("Pod") if uid in owners(p) and "deletionTimestamp" not in p["metadata"]]
        fresh = [p for p in pods if p["metadata"]["labels"]["pod-template-hash"] == mark]
        stale = [p for p in pods if p not in fresh]
        while len(fresh) < want and len(fresh) + len(stale) < want + bool(stale):
            pod = self._new_pod(live, name, {"pod-template-hash": mark})
            fresh.append(self.store.kinds["Pod"][pod])
            self.later(0.2, 1.0, lambda pod=pod: self._start_searcher(pod, 0))  # type: ignore[misc]
        ready = [p for p in pods if is_ready(p)]
        extra = sorted(stale, key=is_ready) if stale else sorted(fresh, key=is_ready)[: max(0, len(fresh) - want)]
        for pod_obj in extra:
            if not is_ready(pod_obj) or len(ready) > want:
                ready = [p for p in ready if p is not pod_obj]
                self.delete("Pod", pod_obj["metadata"]["name"])
        self._deployment_status(live, len(ready), want, len(fresh), len(fresh) + len(stale))

    def _deployment_status(self, live: Json, ready: int, want: int, updated: int, there: int) -> None:
        before = live.get("status", {})
        available = ready >= want
        known = [c for c in before.get("conditions", ()) if (c["status"] == "True") == available]
        rows = known or [condition("Available", available, self.clock.now)]
        status = {
            "readyReplicas": ready,
            "replicas": there,
            "updatedReplicas": updated,
            "observedGeneration": live["metadata"]["generation"],
            "conditions": rows,
        }
        if status != before:
            self.store.change("Deployment", live["metadata"]["name"], status=status)

    def _start_searcher(self, pod: str, restarts: int) -> None:
        live = self.store.get("Pod", pod)
        if live is None or "deletionTimestamp" in live["metadata"]:
            return
        if not self.truth.room:
            self._waits(pod, unschedulable="0/3 nodes are available: 3 Insufficient memory.")
        elif not self.truth.secret:
            self._waits(pod, secret="s3")
        else:
            self._waits(pod)
            self.later(0.5, 5.0, lambda: self._searcher_loaded(pod, restarts))
            return
        self.clock.after(6.0, lambda: self._start_searcher(pod, restarts))

    def _searcher_loaded(self, pod: str, restarts: int) -> None:
        live = self.store.get("Pod", pod)
        if live is None or "deletionTimestamp" in live["metadata"]:
            return
        reason = self.quality_of(live).refuses
        if reason:
            word = Failure(reason=reason, message=f"{reason}: this artifact is not what was proven")
            self._ended(pod, restarts, word.model_dump_json(by_alias=True))
            self.clock.after(min(300, 5 * 2**restarts), lambda: self._searcher_loaded(pod, restarts + 1))
            return
        self._set_ready(live, True, [{"state": {"running": {}}, "restartCount": restarts}])

    def _ended(self, pod: str, restarts: int, message: str) -> None:
        live = self.store.kinds["Pod"][pod]
        ended = {"exitCode": 70, "message": message}
        row = {
            "restartCount": restarts,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}} if restarts else {},
            "lastState": {"terminated": ended},
        }
        self._set_ready(live, False, [row if restarts else {"restartCount": 0, "state": {"terminated": ended}}])

    def _set_ready(self, live: Json, value: bool, containers: list[Json]) -> None:
        status = live["status"]
        known = [c for c in status["conditions"] if c["type"] == "Ready" and (c["status"] == "True") == value]
        rest = [c for c in status["conditions"] if c["type"] != "Ready"]
        rows = [*rest, *(known or [condition("Ready", value, self.clock.now)])]
        self.store.change(
            "Pod", live["metadata"]["name"], status={**status, "conditions": rows, "containerStatuses": containers}
        )

    def crash(self, revision: str) -> None:
        """Every searcher of a revision dies and comes back, again and again."""
        for pod in self.searchers(revision):
            if is_ready(pod):
                name = pod["metadata"]["name"]
                restarts = int(pod["status"]["containerStatuses"][0].get("restartCount", 0)) + 1
                self._ended(name, restarts, "Segmentation fault")
                self.clock.after(min(300, 10 * 2**restarts), lambda n=name, r=restarts: self._crash_again(n, r))  # type: ignore[misc]

    def _crash_again(self, pod: str, restarts: int) -> None:
        self._searcher_loaded(pod, restarts)
        live = self.store.get("Pod", pod)
        if live is not None and self.quality_of(live).crashes:
            self.clock.after(1.0, lambda: self.crash(live["metadata"]["labels"][labels.REVISION]))

    def searchers(self, revision: str) -> list[Json]:
        return [
            p
            for p in self.store.of_kind("Pod")
            if p["metadata"]["labels"].get(labels.REVISION) == revision
            and p["metadata"]["labels"].get(labels.COMPONENT) == labels.SEARCHER
        ]

    def ready_pods(self, revision: str) -> list[Json]:
        return [p for p in self.searchers(revision) if is_ready(p)]

    def quality_of(self, pod: Json) -> Quality:
        """How the artifact behaves that a searcher serves."""
        one = pod["spec"]["containers"][0]
        task = json.loads(next(e["value"] for e in one["env"] if e["name"] == TASK_ENV))
        return self.truth.served(task["digest"])


def _template_mark(deployment: Json) -> str:
    return f"{zlib.crc32(json.dumps(deployment['spec']['template'], sort_keys=True).encode()):08x}"
