"""What Kubernetes itself does: the garbage collector, EndpointSlices, Jobs and Deployments and their pods.

Simplified where the operator cannot tell: no ReplicaSets, no kubelet; times are drawn from the seed.
"""

from __future__ import annotations

import json
import zlib
from random import Random

from simulator.clock import Clock
from simulator.jobs import Jobs
from simulator.pods import condition, conditions_of, is_ready, task_of
from simulator.store import NAMESPACE, Json, Store, owners
from simulator.truth import Quality, Truth

from vectorindex_operator.manifests import labels
from vectorindex_searcher.contract import Failure


class Controllers(Jobs):
    """Reacts to changes in the store, later, as controllers do."""

    def __init__(self, store: Store, truth: Truth, clock: Clock, rng: Random) -> None:
        super().__init__(store, truth, clock, rng)
        self._collecting = False
        self._syncing: set[str] = set()
        self._slicing = False

    def on_change(self, verb: str, kind: str, name: str, old: Json | None, new: Json | None) -> None:
        if kind == "Job" and new is not None:
            self._job_changed(old, new)
        elif kind == "Deployment" and new is not None:
            if old is None or old["spec"] is not new["spec"]:
                self._sync_soon(name)
        elif kind == "Pod":
            obj = new or old
            assert obj is not None
            owner = self.store.uids.get(obj["metadata"]["ownerReferences"][0]["uid"])
            if owner is not None and owner[0] == "Deployment":
                self._sync_soon(owner[1])
        if (kind in ("Pod", "Service") or (kind == "EndpointSlice" and verb == "delete")) and not self._slicing:
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
                {"addresses": [pod["status"]["podIP"]], "conditions": conditions_of(pod)}
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
                going = [one for one in mine if "deletionTimestamp" in self.store.kinds[one[0]][one[1]]["metadata"]]
                if mine:  # one after another: whoever makes them again has time to
                    self.delete(*next((one for one in mine if one not in going), mine[0]))
                    self.collect_soon()
                else:
                    self.store.remove(kind, name)

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
            self.later(*self.truth.loading, lambda: self._searcher_loaded(pod, restarts))
            return
        self.clock.after(6.0, lambda: self._start_searcher(pod, restarts))

    def _searcher_loaded(self, pod: str, restarts: int) -> None:
        live = self.store.get("Pod", pod)
        if live is None or "deletionTimestamp" in live["metadata"]:
            return
        task = task_of(live)
        if "shards" in task:
            self._router_loaded(live, restarts)
            return
        there = self.truth.there(task["artifacts"]["s3"]["bucket"], task["digest"])
        reason = self.truth.served(task["digest"]).refuses if there else "ArtifactGone"
        if reason:
            word = Failure(reason=reason, message=f"{reason}: this artifact is not what was proven")
            self._ended(pod, restarts, word.model_dump_json(by_alias=True))
            self.clock.after(min(300, 5 * 2**restarts), lambda: self._searcher_loaded(pod, restarts + 1))
            return
        self._set_ready(live, True, [{"state": {"running": {}}, "restartCount": restarts}])

    def _router_loaded(self, live: Json, restarts: int) -> None:
        """A router is ready once every shard has answered it, and stays so."""
        name, revision = live["metadata"]["name"], live["metadata"]["labels"][labels.REVISION]
        shards = len(task_of(live)["shards"])
        if self.shards_ready(revision) != set(range(shards)):
            self.clock.after(2.0, lambda: self._searcher_loaded(name, restarts))
            return
        self._set_ready(live, True, [{"state": {"running": {}}, "restartCount": restarts}])

    def shards_ready(self, revision: str) -> set[int]:
        """Numbers of the shards of a revision of which a pod is ready."""
        marks = {labels.REVISION: revision, labels.COMPONENT: labels.SHARD_PODS}
        pods = [p for p in self.store.of_kind("Pod") if marks.items() <= p["metadata"]["labels"].items()]
        return {int(p["metadata"]["labels"][labels.SHARD]) for p in pods if is_ready(p)}

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
        return self.truth.served(task_of(pod)["digest"])


def _template_mark(deployment: Json) -> str:
    return f"{zlib.crc32(json.dumps(deployment['spec']['template'], sort_keys=True).encode()):08x}"
