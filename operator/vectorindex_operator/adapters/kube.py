"""The cluster port on the official client: plain JSON in and out, server-side apply, one field manager.

The typed API classes of the client are not used: they would turn every object into a model and back.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes import client, config

from vectorindex_operator.adapters.second_tries import SecondTries
from vectorindex_operator.reconcile.errors import (
    ClusterError,
    ConflictError,
    InvalidError,
    NamespaceTerminatingError,
    RefusedError,
    UnreachableError,
)
from vectorindex_operator.reconcile.ports import Raw

log = logging.getLogger(__name__)

FIELD_MANAGER = "vectorindex-operator"
CONNECT_SECONDS = 5.0
PAGE = 500
"""Objects of a page of metadata."""
MOST_CHILDREN = 3000
"""Of one kind and VectorIndex. A thousand searchers, and as many that are being replaced; who labels more waits."""
WHOLE_PAGE = 25
"""Whole objects of a page: labels are anybody's to write, and an object may have more than a megabyte."""
JSON = "application/json"
METADATA = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

_PATHS = {
    "VectorIndex": ("/apis/vectorindex.dev/v1alpha1", "vectorindexes"),
    "VectorIndexRevision": ("/apis/vectorindex.dev/v1alpha1", "vectorindexrevisions"),
    "Job": ("/apis/batch/v1", "jobs"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "Pod": ("/api/v1", "pods"),
    "Service": ("/api/v1", "services"),
    "HTTPRoute": ("/apis/gateway.networking.k8s.io/v1", "httproutes"),
    "EndpointSlice": ("/apis/discovery.k8s.io/v1", "endpointslices"),
    "Workload": ("/apis/kueue.x-k8s.io/v1beta2", "workloads"),
    "Event": ("/apis/events.k8s.io/v1", "events"),
}


def connect() -> client.ApiClient:
    """A client from the pod's ServiceAccount, or from KUBECONFIG outside a cluster."""
    try:
        config.load_incluster_config()
    except config.ConfigException:
        config.load_kube_config()
    return api_client(client.Configuration.get_default_copy())


def api_client(configuration: client.Configuration) -> client.ApiClient:
    """A client that tries nothing again by itself: what failed is seen, and tried again, by whoever asked
    (second_tries.py, and the queue)."""
    configuration.connection_pool_maxsize = 16
    configuration.retries = False
    return client.ApiClient(configuration)


@dataclass(slots=True)
class KubeCluster:
    """Implements reconcile.ports.Cluster. Thread-safe: the connection pool is."""

    api: client.ApiClient
    on_write: Callable[[str], None] = lambda kind: None
    seconds: float = 20.0
    """The most that an answer may take to come, or to go on coming; a read's second try included."""
    seconds_left: Callable[[], float] = lambda: float("inf")
    """The most that a write may take which is sent now; 0: none is sent (lease.LeaseLock)."""
    second_tries: SecondTries = field(default_factory=SecondTries)
    manager: str = FIELD_MANAGER
    """Who writes, as managed fields name it. Others than the operator only merge: it alone applies what it owns."""

    def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        status, body = self._read(self._path(kind, namespace, name))
        # A proxy's 404 says nothing about the object: taken for its absence, it would have the traffic "restored".
        gone = status == 404 and body.get("reason") == "NotFound"
        return None if gone else self._checked(status, body)

    def children(self, kind: str, namespace: str, selector: str) -> list[Raw]:
        found: list[Raw] = []
        for page in self._pages(kind, namespace, selector, metadata_only=False, parse=json.loads):
            found += page
            if len(found) > MOST_CHILDREN:
                raise RefusedError(
                    f"more than {MOST_CHILDREN} objects of kind {kind} in {namespace} have the labels {selector}: "
                    "remove those that the operator did not make"
                )
        return found

    def pages(self, kind: str, namespace: str, selector: str, *, metadata_only: bool) -> Iterator[list[Raw]]:
        return self._pages(kind, namespace, selector, metadata_only=metadata_only, parse=_without_fields)

    def _pages(
        self, kind: str, namespace: str, selector: str, *, metadata_only: bool, parse: Callable[[bytes], Any]
    ) -> Iterator[list[Raw]]:
        """Without resourceVersion the API server answers from a quorum read, never from an old cache."""
        token = ""
        while True:
            query = {"limit": str(PAGE if metadata_only else WHOLE_PAGE), "labelSelector": selector, "continue": token}
            query = {name: value for name, value in query.items() if value}
            accept = METADATA if metadata_only else JSON
            status, body = self._read(self._path(kind, namespace), query, accept=accept, parse=parse)
            page = self._checked(status, body)
            # Items of a list come without apiVersion and kind; whoever compares objects needs them.
            # A list of metadata without any has null in the place of its items.
            yield [{"apiVersion": page["apiVersion"], **item, "kind": kind} for item in page["items"] or ()]
            token = page["metadata"].get("continue", "")
            if not token:
                return

    def apply(self, manifest: Raw, *, force: bool = True) -> Raw:
        meta = manifest["metadata"]
        return self._apply(self._path(manifest["kind"], meta["namespace"], meta["name"]), manifest, force=force)

    def take_over(self, live: Raw) -> str:
        meta = live["metadata"]
        version: str = meta["resourceVersion"]
        fields = _taken_over(meta.get("managedFields") or [])
        if fields is None:
            return version
        patch: list[Raw] = [
            {"op": "replace", "path": "/metadata/managedFields", "value": fields},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
        ]
        path = self._path(live["kind"], meta["namespace"], meta["name"])
        self.on_write(live["kind"])
        query = {"fieldManager": FIELD_MANAGER}
        taken: Raw = self._checked(*self._call("PATCH", path, query, patch, "application/json-patch+json"))
        return str(taken["metadata"]["resourceVersion"])

    def merge(self, manifest: Raw) -> Raw:
        meta = manifest["metadata"]
        path = self._path(manifest["kind"], meta["namespace"], meta["name"])
        query = {"fieldManager": self.manager, "fieldValidation": "Strict"}
        self.on_write(manifest["kind"])
        status, body = self._call("PATCH", path, query, manifest, "application/merge-patch+json")
        if status == 404:
            raise ConflictError(f"{manifest['kind']}/{meta['name']} is gone")
        merged: Raw = self._checked(status, body)
        return merged

    def apply_status(self, manifest: Raw) -> Raw:
        meta = manifest["metadata"]
        return self._apply(self._path(manifest["kind"], meta["namespace"], meta["name"]) + "/status", manifest)

    def create(self, manifest: Raw) -> Raw | None:
        path = self._path(manifest["kind"], manifest["metadata"]["namespace"])
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        self.on_write(manifest["kind"])
        status, body = self._call("POST", path, query, manifest)
        if status == 409:
            return None
        created: Raw = self._checked(status, body)
        return created

    def judge(self, manifest: Raw) -> None:
        path = self._path(manifest["kind"], manifest["metadata"]["namespace"])
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", "dryRun": "All"}
        status, body = self._call("POST", path, query, manifest)
        if status != 409:  # that it is there is found last
            self._checked(status, body)

    def delete(self, kind: str, namespace: str, name: str, uid: str, version: str = "") -> None:
        self.on_write(kind)
        preconditions = {"uid": uid} | ({"resourceVersion": version} if version else {})
        options = {"propagationPolicy": "Background", "preconditions": preconditions}
        status, body = self._call("DELETE", self._path(kind, namespace, name), body=options)
        gone = (404,) if version else (404, 409)  # 409 by the uid alone: another has this name by now, ours is gone
        if status not in gone:
            self._checked(status, body)

    def _apply(self, path: str, manifest: Raw, *, force: bool = True) -> Raw:
        self.on_write(manifest["kind"])
        query = {"fieldManager": FIELD_MANAGER, "force": str(force).lower(), "fieldValidation": "Strict"}
        status, body = self._call("PATCH", path, query, manifest, "application/apply-patch+yaml")
        applied: Raw = self._checked(status, body)
        return applied

    @staticmethod
    def _path(kind: str, namespace: str, name: str = "") -> str:
        prefix, plural = _PATHS[kind]
        within = f"/namespaces/{namespace}" if namespace else ""
        return f"{prefix}{within}/{plural}" + (f"/{name}" if name else "")

    def _read(
        self,
        path: str,
        query: dict[str, str] | None = None,
        *,
        accept: str = JSON,
        parse: Callable[[bytes], Any] = json.loads,
    ) -> tuple[int, Any]:
        """A GET, and another one where that failed for a reason that may be gone."""

        def attempt(seconds: float) -> tuple[int, Any]:
            return self._call("GET", path, query, accept=accept, parse=parse, seconds=seconds)

        return self.second_tries.read(attempt, self.seconds)

    def _call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Raw | list[Raw] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        parse: Callable[[bytes], Any] = json.loads,
        seconds: float | None = None,
    ) -> tuple[int, Any]:
        """One request, no retries of its own: a write whose answer was lost is seen by the next observation.

        Answers status and object below 500, besides 429; raises UnreachableError for everything else.
        """
        _, url, headers, _, _ = self.api.param_serialize(method, path, auth_settings=["BearerToken"])
        headers |= {"Accept": accept, "Content-Type": content_type}
        connect, read = CONNECT_SECONDS, self.seconds if seconds is None else seconds
        if method != "GET":
            left = self.seconds_left()
            if left <= 0:
                raise UnreachableError(f"{method} {path}: not sent, for this operator does not hold the Lease any more")
            connect = min(connect, left / 3)
            read = min(read, left - connect)
            # The server gives up as well: what nobody waits for any more must not be done later.
            query = {**(query or {}), "timeout": f"{max(1, int(read * 1000))}ms"}  # 0 would be no limit
        if query:
            url = f"{url}?{urlencode(query)}"
        data = json.dumps(body).encode() if body is not None else None
        timeout = urllib3.Timeout(connect=connect, read=read)
        try:
            pool = self.api.rest_client.pool_manager
            answer = pool.request(method, url, body=data, headers=headers, timeout=timeout, retries=False)
        except urllib3.exceptions.HTTPError as error:
            raise UnreachableError(f"{method} {path}: {error}") from error
        try:
            parsed = parse(answer.data)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            text = answer.data[:200].decode(errors="replace")
            if answer.status < 400:
                raise UnreachableError(
                    f"{method} {path}: {answer.status} without an object, from something between: {text}"
                )
            parsed = {"message": text}
        if answer.status == 429 or answer.status >= 500:
            raise UnreachableError(_words(answer.status, parsed), _seconds(answer.headers.get("Retry-After")))
        return answer.status, parsed

    @staticmethod
    def _checked(status: int, body: Any) -> Any:
        if status < 400:
            return body
        kind: type[ClusterError] = _ERRORS.get(status, RefusedError)
        if status == 403 and any(cause.get("reason") == "NamespaceTerminating" for cause in _causes(body)):
            kind = NamespaceTerminatingError
        raise kind(_words(status, body))


_ERRORS: dict[int, type[ClusterError]] = {400: InvalidError, 409: ConflictError, 422: InvalidError}


def _words(status: int, body: Any) -> str:
    return f"{status} {body.get('reason', '')}: {body.get('message', '')}"


def _causes(body: Any) -> list[Any]:
    return (body.get("details") or {}).get("causes") or []


def _seconds(retry_after: str | None) -> float:
    """Of a header that may also be a date, which the API server does not send, or nonsense: 0."""
    return float(retry_after) if retry_after is not None and retry_after.isascii() and retry_after.isdecimal() else 0.0


def _without_fields(body: bytes) -> Any:
    """JSON without managed fields: most of it, and each gone as soon as it is read, not with the page."""

    def kept(one: dict[str, Any]) -> dict[str, Any]:
        one.pop("managedFields", None)
        return one

    return json.loads(body, object_hook=kept)


def _taken_over(entries: list[Raw]) -> list[Raw] | None:
    """Managed fields in which our manager has applied what it had created or patched; None: it has applied all."""
    ours = [entry for entry in entries if entry.get("manager") == FIELD_MANAGER and not entry.get("subresource")]
    if all(entry.get("operation") == "Apply" for entry in ours):
        return None
    fields: Raw = {}
    for entry in ours:
        fields = _union(fields, entry.get("fieldsV1") or {})
    applied = {**ours[0], "operation": "Apply", "fieldsV1": fields}
    return [*(entry for entry in entries if entry not in ours), applied]


def _union(one: Raw, other: Raw) -> Raw:
    """Both sets of fields: nested objects whose keys are paths."""
    return {key: _union(one.get(key, {}), other.get(key, {})) for key in [*one, *(k for k in other if k not in one)]}
