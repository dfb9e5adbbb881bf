"""What a cluster does of itself, for idle.py: on a real API server that has no controllers and no nodes.

Jobs end as the data plane would end them (tests/simulator/truth.py answers), Deployments get pods that are ready, front
Services their EndpointSlices; what belonged to a Job or a Deployment goes with it. Nothing is said of a revision: the
operator takes each to Stable by itself. Pods have addresses of idle_pods.py; those in EndpointSlices are others: the
API server takes no loopback address there, and only their number is read.
"""

from __future__ import annotations

import itertools
import json
import queue
import sys
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import urllib3
from control_plane import Api, Json, path_of
from idle_pods import ADDRESSES
from simulator.truth import Answer, Truth

from vectorindex_operator.manifests import labels
from vectorindex_searcher.contract import TASK_ENV, BuildTask, ResolveTask, ServeTask, ValidateTask

TASKS: dict[str, Any] = {"resolve": ResolveTask, "build": BuildTask, "validate": ValidateTask}
WORKERS = 6
MERGE = "application/merge-patch+json"
_WATCH_SECONDS = 240
_COLLECTIONS = {
    "Job": "/apis/batch/v1/jobs",
    "Deployment": "/apis/apps/v1/deployments",
    "Service": "/api/v1/services",
    "VectorIndex": "/apis/vectorindex.dev/v1alpha1/vectorindexes",
}


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def conditions(*kinds: str) -> list[Json]:
    return [{"type": kind, "status": "True", "lastTransitionTime": now(), "reason": "Done"} for kind in kinds]


@dataclass(slots=True)
class Loaded:
    """A Deployment's pods. `mark`: of the template that they were made from."""

    mark: str = ""
    pods: list[str] = field(default_factory=list)


class Kubelet:
    """Watches, and does the work on a few threads: one object's in order. `load(revision, segments)`: pods are made."""

    def __init__(
        self, api: Api, load: Callable[[str, list[str]], object], addresses: Sequence[str] = ADDRESSES
    ) -> None:
        self.api, self._load, self._addresses = api, load, addresses
        self.indexes: dict[tuple[str, str], Json] = {}
        """The VectorIndexes as the API server has them, by namespace and name."""
        self.failures: list[str] = []
        """What the API server refused: the run means nothing then."""
        self._truth, self._lock = Truth(), threading.Lock()
        self._loaded: defaultdict[tuple[str, str], Loaded] = defaultdict(Loaded)
        self.fronts: dict[tuple[str, str], Json] = {}
        """The front Services, by namespace and name."""
        self._ended: set[str] = set()
        self._numbers = itertools.count(1)
        self._queues: list[queue.SimpleQueue[Callable[[], None] | None]] = [queue.SimpleQueue() for _ in range(WORKERS)]
        self._stopped = threading.Event()

    def start(self) -> None:
        for mine in self._queues:
            threading.Thread(target=self._work, args=(mine,), daemon=True).start()
        for kind in _COLLECTIONS:
            threading.Thread(target=self._follow, args=(kind,), daemon=True).start()

    def stop(self) -> None:
        """What comes now is no failure: the API server is about to end."""
        self._stopped.set()

    # ------------------------------------------------------------ watches

    def _follow(self, kind: str) -> None:
        version = ""
        while not self._stopped.is_set():
            try:
                if not version:
                    listed = self.api.get(_COLLECTIONS[kind]).body
                    version = listed["metadata"]["resourceVersion"]
                    for raw in listed["items"]:
                        self._told(kind, "ADDED", raw)
                version = self._watched(kind, version)
            except (urllib3.exceptions.HTTPError, KeyError, ValueError):
                self._stopped.wait(1.0)

    def _watched(self, kind: str, version: str) -> str:
        """One watch until it ends; the version to go on from, empty: from a list."""
        query = f"?watch=1&allowWatchBookmarks=true&timeoutSeconds={_WATCH_SECONDS}&resourceVersion={version}"
        answer = self.api.pool.request(
            "GET",
            f"{self.api.url}{_COLLECTIONS[kind]}{query}",
            headers={"Authorization": "Bearer admin"},
            preload_content=False,
            timeout=urllib3.Timeout(connect=5.0, read=_WATCH_SECONDS + 30.0),
            retries=False,
        )
        rest = b""
        for piece in answer.stream(1 << 16):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return ""
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._told(kind, event["type"], event["object"])
        answer.release_conn()
        return version

    def _told(self, kind: str, what: str, raw: Json) -> None:
        meta = raw["metadata"]
        gone = what == "DELETED"
        if kind == "VectorIndex":
            if gone:
                self.indexes.pop((meta["namespace"], meta["name"]), None)
            else:
                self.indexes[meta["namespace"], meta["name"]] = raw
            return
        does: dict[str, Callable[[Json, bool], None]] = {
            "Job": self._job, "Deployment": self._deployment, "Service": self._service
        }  # fmt: skip
        mine = self._queues[zlib.crc32(f"{kind}/{meta['uid']}".encode()) % WORKERS]
        mine.put(lambda: does[kind](raw, gone))

    def _work(self, mine: queue.SimpleQueue[Callable[[], None] | None]) -> None:
        while not self._stopped.is_set():
            try:
                task = mine.get(timeout=1.0)
            except queue.Empty:
                continue
            try:
                assert task is not None
                task()
            except Exception as error:
                if not self._stopped.is_set():
                    self.failures.append(f"{type(error).__name__}: {error}"[:500])
                    sys.stderr.write(f"fake kubelet: {self.failures[-1]}\n")

    def _asked(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Json:
        answer = self.api.request(method, path, body, content_type)
        if not answer.ok and answer.status != 404:  # 404: deleted meanwhile
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.message}")
        return answer.body

    # ------------------------------------------------------------ Jobs

    def _job(self, job: Json, gone: bool) -> None:
        meta = job["metadata"]
        pod = f"{meta['name']}-{zlib.crc32(meta['uid'].encode()):08x}"[-63:].lstrip("-.")
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{pod}"
        if gone:
            if meta["uid"] in self._ended:
                self._ended.discard(meta["uid"])
                self._asked("DELETE", path)
            return
        if meta["uid"] in self._ended or job.get("status", {}).get("completionTime"):
            return
        self._ended.add(meta["uid"])
        began, one = now(), job["spec"]["template"]["spec"]["containers"][0]
        code, word = self._run(one)
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
        self._create_pod(meta["namespace"], pod, job["spec"]["template"], {}, owner)
        ended = {"exitCode": code, "message": word, "startedAt": began, "finishedAt": now(), "reason": "Completed"}
        state = {"name": one["name"], "image": one["image"], "imageID": "", "ready": False, "restartCount": 0}
        status = {"phase": "Succeeded", "containerStatuses": [{**state, "state": {"terminated": ended}}]}
        self._asked("PATCH", f"{path}/status", {"status": status}, MERGE)
        if code:
            raise RuntimeError(f"Job {meta['name']} ends with {code}: {word}")
        done = {
            "startTime": began,
            "completionTime": now(),
            "succeeded": 1,
            "conditions": conditions("SuccessCriteriaMet", "Complete"),
        }
        self._asked(
            "PATCH", f"{path_of(job | {'apiVersion': 'batch/v1', 'kind': 'Job'})}/status", {"status": done}, MERGE
        )

    def _run(self, one: Json) -> tuple[int, str]:
        verb = one["args"][0]
        task = TASKS[verb].model_validate_json(_task(one))
        with self._lock:
            truth = self._truth
            verbs: dict[str, Callable[[Any], Answer]] = {
                "resolve": truth.resolve,
                "build": lambda task: truth.build(task, gpu=False),
                "validate": lambda task: truth.validate(task, one["image"]),
            }
            code, word = verbs[verb](task)
        return code, word.model_dump_json(by_alias=True) if word is not None else ""

    # ------------------------------------------------------------ pods

    def _create_pod(self, namespace: str, name: str, template: Json, marks: Json, owner: Json) -> None:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {**template["metadata"]["labels"], **marks},
                "annotations": template["metadata"].get("annotations", {}),
                "ownerReferences": [owner],
            },
            "spec": template["spec"],
        }
        self._asked("POST", f"/api/v1/namespaces/{namespace}/pods", pod)

    def _deployment(self, live: Json, gone: bool) -> None:
        meta, spec = live["metadata"], live["spec"]
        key = meta["namespace"], meta["name"]
        loaded = self._loaded[key]
        if gone:
            for name in loaded.pods:
                self._asked("DELETE", f"/api/v1/namespaces/{key[0]}/pods/{name}")
            self._loaded.pop(key)
            return
        mark = f"{zlib.crc32(json.dumps(spec['template'], sort_keys=True).encode()):08x}"
        if loaded.mark == mark and len(loaded.pods) == spec["replicas"]:
            return
        if loaded.mark != mark:
            task = ServeTask.model_validate_json(_task(spec["template"]["spec"]["containers"][0]))
            self._load(meta["name"], list(task.segments))
        kept = loaded.pods[: spec["replicas"]] if loaded.mark == mark else []
        old = loaded.pods[len(kept) :]
        fresh = [self._searcher(live, mark) for _ in range(spec["replicas"] - len(kept))]
        loaded.mark, loaded.pods = mark, [*kept, *fresh]
        for name in old:
            self._asked("DELETE", f"/api/v1/namespaces/{key[0]}/pods/{name}")
        count = spec["replicas"]
        status = {
            "observedGeneration": meta["generation"],
            "replicas": count,
            "updatedReplicas": count,
            "readyReplicas": count,
            "availableReplicas": count,
            "conditions": [{**one, "lastUpdateTime": now()} for one in conditions("Available")],
        }
        self._asked(
            "PATCH", f"/apis/apps/v1/namespaces/{key[0]}/deployments/{key[1]}/status", {"status": status}, MERGE
        )
        front = self.fronts.get((key[0], meta["labels"][labels.INDEX]))
        if front is not None:
            self._slice(front)

    def _searcher(self, live: Json, mark: str) -> str:
        """A new pod, ready."""
        meta, template, number = live["metadata"], live["spec"]["template"], next(self._numbers)
        name = f"{meta['name']}-{mark}-{number:x}"
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{meta['name']}-{mark}", "controller": True}
        self._create_pod(meta["namespace"], name, template, {"pod-template-hash": mark}, owner | {"uid": meta["uid"]})
        address = self._addresses[number % len(self._addresses)]
        one = template["spec"]["containers"][0]
        running = {"name": one["name"], "image": one["image"], "imageID": "", "ready": True, "restartCount": 0}
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": now(),
            "conditions": conditions("PodScheduled", "Initialized", "ContainersReady", "Ready"),
            "containerStatuses": [{**running, "started": True, "state": {"running": {"startedAt": now()}}}],
        }
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{name}/status"
        self._asked("PATCH", path, {"status": status}, MERGE)
        return name

    # ------------------------------------------------------------ EndpointSlices

    def _service(self, live: Json, gone: bool) -> None:
        meta = live["metadata"]
        if labels.INDEX not in (meta.get("labels") or {}):
            return
        key = meta["namespace"], meta["name"]
        if gone:
            self.fronts.pop(key, None)
            self._asked("DELETE", f"/apis/discovery.k8s.io/v1/namespaces/{key[0]}/endpointslices/{key[1]}-bench")
            return
        self.fronts[key] = live
        self._slice(live)

    def _slice(self, front: Json) -> None:
        meta = front["metadata"]
        revision = front["spec"]["selector"].get(labels.REVISION, "")
        loaded = self._loaded.get((meta["namespace"], revision))
        numbers = [zlib.crc32(name.encode()) for name in (loaded.pods if loaded is not None else [])]
        endpoints = [
            {"addresses": [f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"], "conditions": {"ready": True}}
            for n in numbers
        ]
        owner = {"apiVersion": "v1", "kind": "Service", "name": meta["name"], "uid": meta["uid"], "controller": True}
        manifest = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{meta['name']}-bench",
                "namespace": meta["namespace"],
                "labels": {**meta["labels"], labels.SERVICE_NAME: meta["name"]},
                "ownerReferences": [owner],
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        }
        answer = self.api.apply(manifest, "endpointslice-controller", force=True)
        if not answer.ok:
            raise RuntimeError(f"EndpointSlice {meta['name']}: {answer.status} {answer.message}")


def _task(one: Json) -> str:
    return str(next(variable["value"] for variable in one["env"] if variable["name"] == TASK_ENV))


def wait_until(true: Callable[[], Any], what: Callable[[], str], seconds: float, *, every: float = 1.0) -> None:
    """SystemExit with `what` when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"gave up after {seconds:.0f} s: {what()}")
        time.sleep(every)
