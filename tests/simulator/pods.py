"""Pods as their controllers make, hold up and delete them."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from simulator.clock import Clock
from simulator.store import NAMESPACE, Json, Store, stamp
from simulator.truth import Truth

from vectorindex_operator.manifests import labels
from vectorindex_searcher.contract import TASK_ENV


def condition(kind: str, value: bool, now: float, reason: str = "", message: str = "") -> Json:
    status = "True" if value else "False"
    return {"type": kind, "status": status, "lastTransitionTime": stamp(now), "reason": reason, "message": message}


def finished(job: Json) -> bool:
    return any(c["type"] in ("Complete", "Failed") for c in job.get("status", {}).get("conditions", ()))


def is_ready(pod: Json) -> bool:
    return "deletionTimestamp" not in pod["metadata"] and was_ready(pod)


def conditions_of(pod: Json) -> Json:
    return {"ready": is_ready(pod), "serving": was_ready(pod), "terminating": "deletionTimestamp" in pod["metadata"]}


def task_of(pod: Json) -> Json:
    """What a searcher was told to serve."""
    one = next(c for c in pod["spec"]["containers"] if c["name"] == "searcher")
    task: Json = json.loads(next(e["value"] for e in one["env"] if e["name"] == TASK_ENV))
    return task


def was_ready(pod: Json) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])


class Pods:
    """What all controllers do with pods, and when: later, as controllers do."""

    def __init__(self, store: Store, truth: Truth, clock: Clock, rng: Random) -> None:
        self.store, self.truth, self.clock, self.rng = store, truth, clock, rng
        self._pods = 0

    def later(self, low: float, high: float, act: Callable[[], None]) -> None:
        self.clock.after(self.rng.uniform(low, high), act)

    def delete(self, kind: str, name: str) -> None:
        """Background deletion: at once, but pods end gracefully, and what has finalizers waits for them."""
        obj = self.store.get(kind, name)
        if obj is None or "deletionTimestamp" in obj["metadata"]:
            return
        if kind == "Pod":
            uid = obj["metadata"]["uid"]
            self.store.change(kind, name, meta={"deletionTimestamp": stamp(self.clock.now)})
            serves = obj["metadata"]["labels"].get(labels.COMPONENT) == labels.SEARCHER
            self.later(*((5.0, 12.0) if serves else (0.5, 8.0)), lambda: self._gone(name, uid))
        elif obj["metadata"].get("finalizers"):
            self.store.change(kind, name, meta={"deletionTimestamp": stamp(self.clock.now)})
        else:
            self.store.remove(kind, name)

    def _gone(self, name: str, uid: str) -> None:
        if self._alive("Pod", name, uid):
            self.store.remove("Pod", name)

    def _alive(self, kind: str, name: str, uid: str) -> Json | None:
        obj = self.store.get(kind, name)
        return obj if obj is not None and obj["metadata"]["uid"] == uid else None

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
                "podIP": before.get("podIP") or self._free_address(),
                "conditions": [*(known or [condition("PodScheduled", True, at)]), *rest],
                "containerStatuses": [{"state": state, "restartCount": 0}],
            },
        )

    def _free_address(self) -> str:
        """Addresses are reused, and soon."""
        taken = {pod["status"].get("podIP") for pod in self.store.of_kind("Pod")}
        return next(a for a in (f"10.0.0.{n}" for n in range(1, len(taken) + 2)) if a not in taken)
