"""A thin Kubernetes client: plain JSON in and out, server-side apply, and `kubectl` for what a user would type."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import urllib3
from kubernetes import config

from harness.cluster import Cluster
from harness.errors import HarnessError
from harness.waiting import wait_for

Json = dict[str, Any]
T = TypeVar("T")

FIELD_MANAGER = "vectorindex-harness"
TIMEOUT = urllib3.Timeout(connect=5.0, read=30.0)
_VIX = "/apis/vectorindex.dev/v1alpha1"
_KUEUE = "/apis/kueue.x-k8s.io/v1beta2"
_CLUSTER_SCOPED = frozenset(
    {
        "Namespace",
        "Node",
        "PersistentVolume",
        "CustomResourceDefinition",
        "APIService",
        "ClusterRole",
        "ClusterRoleBinding",
        "ResourceFlavor",
        "ClusterQueue",
        "WorkloadPriorityClass",
    }
)
_PATHS = {
    "VectorIndex": (_VIX, "vectorindexes"),
    "VectorIndexRevision": (_VIX, "vectorindexrevisions"),
    "Namespace": ("/api/v1", "namespaces"),
    "Node": ("/api/v1", "nodes"),
    "Pod": ("/api/v1", "pods"),
    "Service": ("/api/v1", "services"),
    "Secret": ("/api/v1", "secrets"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "PersistentVolume": ("/api/v1", "persistentvolumes"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "ResourceQuota": ("/api/v1", "resourcequotas"),
    "Event": ("/apis/events.k8s.io/v1", "events"),
    "EndpointSlice": ("/apis/discovery.k8s.io/v1", "endpointslices"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "ReplicaSet": ("/apis/apps/v1", "replicasets"),
    "Job": ("/apis/batch/v1", "jobs"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
    "HTTPRoute": ("/apis/gateway.networking.k8s.io/v1", "httproutes"),
    "ResourceFlavor": (_KUEUE, "resourceflavors"),
    "ClusterQueue": (_KUEUE, "clusterqueues"),
    "LocalQueue": (_KUEUE, "localqueues"),
    "Workload": (_KUEUE, "workloads"),
    "WorkloadPriorityClass": (_KUEUE, "workloadpriorityclasses"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "HorizontalPodAutoscaler": ("/apis/autoscaling/v2", "horizontalpodautoscalers"),
    "APIService": ("/apis/apiregistration.k8s.io/v1", "apiservices"),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "CustomResourceDefinition": ("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions"),
    "ClusterRole": ("/apis/rbac.authorization.k8s.io/v1", "clusterroles"),
    "ClusterRoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"),
}


class KubeError(HarnessError):
    """The API server refused. `status` is the HTTP code, `body` its whole answer (a Status)."""

    def __init__(self, status: int, body: Json) -> None:
        self.status, self.body = status, body
        super().__init__(f"{status} {body.get('reason', '')}: {body.get('message', body)}")


class Kube:
    """Speaks to the chosen cluster as its administrator. Thread-safe."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._api = config.new_client_from_config(config_file=str(cluster.kubeconfig), context=cluster.context or None)

    # ------------------------------------------------------------ objects

    def get(self, kind: str, name: str, namespace: str = "") -> Json | None:
        """The object, None when there is none."""
        status, body = self.call("GET", path_of(kind, name, namespace))
        return None if status == 404 else _checked(status, body)

    def list(self, kind: str, namespace: str = "", selector: str = "") -> list[Json]:
        """Objects of one namespace, or of all of them."""
        query = {"labelSelector": selector} if selector else {}
        items: list[Json] = _checked(*self.call("GET", path_of(kind, "", namespace), query))["items"]
        return items

    def apply(self, manifest: Json, *, dry_run: bool = False) -> Json:
        """Server-side apply under strict field validation."""
        meta = manifest["metadata"]
        query = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        path = path_of(manifest["kind"], meta["name"], meta.get("namespace", ""))
        return _checked(*self.call("PATCH", path, query, manifest, "application/apply-patch+yaml"))

    def patch(self, kind: str, name: str, namespace: str, change: Json, *, subresource: str = "") -> Json:
        """A merge patch."""
        path = path_of(kind, name, namespace) + (f"/{subresource}" if subresource else "")
        query = {"fieldManager": FIELD_MANAGER}
        return _checked(*self.call("PATCH", path, query, change, "application/merge-patch+json"))

    def delete(self, kind: str, name: str, namespace: str = "", *, policy: str = "Background", grace: int = -1) -> bool:
        """Asks for its deletion; whether it was there."""
        options: Json = {"propagationPolicy": policy} | ({"gracePeriodSeconds": grace} if grace >= 0 else {})
        status, body = self.call("DELETE", path_of(kind, name, namespace), body=options)
        if status == 404:
            return False
        _checked(status, body)
        return True

    def wait_gone(self, kind: str, name: str, namespace: str = "", timeout: float = 90) -> None:
        """Until the object is not there any more."""
        self.wait_for(
            lambda: self.get(kind, name, namespace) is None,
            timeout,
            f"{kind} {namespace}/{name} to be gone",
            last_seen=lambda: json.dumps((self.get(kind, name, namespace) or {}).get("metadata", {}), indent=1),
        )

    def ensure_namespace(self, name: str, **labels: str) -> None:
        """Creates the namespace, under Pod Security "restricted"; waits for the end of one that is going away."""
        found = self.get("Namespace", name)
        if found is not None and found["status"].get("phase") == "Terminating":
            self.wait_gone("Namespace", name, timeout=120)
        marks = {"pod-security.kubernetes.io/enforce": "restricted", **labels}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": marks}})

    def apply_secret(self, name: str, namespace: str, values: dict[str, str]) -> None:
        """An Opaque Secret with these values."""
        meta = {"name": name, "namespace": namespace}
        self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": values})

    # ------------------------------------------------------------ pods, events

    def logs(self, pod: str, namespace: str, *, lines: int = 40, previous: bool = False) -> str:
        """The end of a pod's log; a note when there is none."""
        query = {"tailLines": str(lines)} | ({"previous": "true"} if previous else {})
        status, body = self.call("GET", path_of("Pod", pod, namespace) + "/log", query)
        return str(body.get("text", body.get("message", ""))) if status < 400 else f"(no log: {body.get('message')})"

    def events(self, namespace: str, name: str = "") -> Sequence[Json]:
        """Events about the object called `name` (or all), oldest first: type, reason, note, at."""
        rows = []
        for event in self.list("Event", namespace):
            if name and event.get("regarding", {}).get("name") != name:
                continue
            at = event.get("eventTime") or event.get("deprecatedLastTimestamp") or ""
            meta = event["metadata"]
            rows.append(
                {
                    "uid": meta["uid"],
                    "at": at or meta["creationTimestamp"],
                    "type": event.get("type", ""),
                    "reason": event.get("reason", ""),
                    "note": event.get("note", ""),
                    "about": f"{event['regarding'].get('kind')}/{event['regarding'].get('name')}",
                }
            )
        return sorted(rows, key=lambda row: row["at"])

    # ------------------------------------------------------------ the rest

    def wait_for(
        self, probe: Callable[[], T | None], timeout: float, what: str, *, last_seen: Callable[[], str] = lambda: ""
    ) -> T:
        """As waiting.wait_for."""
        return wait_for(probe, timeout, what, last_seen=last_seen)

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, timeout: float = 60) -> str:
        """What `kubectl ARGUMENTS` prints."""
        return self.cluster.kubectl(*arguments, stdin=stdin, timeout=timeout)

    def call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> tuple[int, Json]:
        """One request: status and JSON body (`text` when it is none)."""
        _, url, headers, _, _ = self._api.param_serialize(method, path, auth_settings=["BearerToken"])
        headers |= {"Accept": "application/json", "Content-Type": content_type}
        url += f"?{urlencode(query)}" if query else ""
        data = json.dumps(body).encode() if body is not None else None
        try:
            pool = self._api.rest_client.pool_manager
            answer = pool.request(method, url, body=data, headers=headers, timeout=TIMEOUT, retries=False)
        except urllib3.exceptions.HTTPError as error:
            raise HarnessError(f"the API server does not answer: {method} {path}: {error}") from error
        try:
            document = json.loads(answer.data)
        except ValueError:
            return answer.status, {"text": answer.data.decode(errors="replace")}
        return answer.status, document if isinstance(document, dict) else {"text": answer.data.decode()}


def path_of(kind: str, name: str = "", namespace: str = "") -> str:
    """The API path of an object, or of a list."""
    prefix, plural = _PATHS[kind]
    middle = f"/namespaces/{namespace}" if namespace and kind not in _CLUSTER_SCOPED else ""
    return f"{prefix}{middle}/{plural}" + (f"/{name}" if name else "")


def resource_of(kind: str) -> tuple[str, str]:
    """Its API group (empty: the core's) and its plural, as rights name them."""
    prefix, plural = _PATHS[kind]
    return ("" if prefix == "/api/v1" else prefix.split("/")[2]), plural


def _checked(status: int, body: Json) -> Json:
    if status >= 400:
        raise KubeError(status, body)
    return body
