"""What the operator asked of the API server, out of the audit log that the local cluster keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from harness.base import Cluster
from harness.errors import HarnessError, LackingError
from harness.kube import Json, Kube
from harness.vix import unix

ACCOUNTS = "system:serviceaccounts:"
POD_NAME = "authentication.kubernetes.io/pod-name"


def events(cluster: Cluster, namespace: str, since: float) -> list[Json]:
    """The requests of the ServiceAccounts of a namespace from `since` (Unix seconds) on. Raises LackingError."""
    if cluster.audit_log is None:
        raise LackingError(f"cluster {cluster.name} has no audit log to read: use the local one (CLUSTER=local)")
    rotated = sorted(cluster.audit_log.parent.glob(f"{cluster.audit_log.stem}-*{cluster.audit_log.suffix}"))
    files = [*rotated, cluster.audit_log]
    found, oldest = [], 0.0
    for event in (event for file in files for event in _read(file)):
        at = received(event)
        oldest = oldest or at
        if at >= since and f"{ACCOUNTS}{namespace}" in event["user"].get("groups", ()):
            found.append(event)
    if len(rotated) >= cluster.audit_backups and oldest > since:
        raise HarnessError(
            f"{cluster.audit_log} begins after the tests did: raise AUDIT_BACKUPS of localcluster/layout.py"
        )
    return found


def received(event: Json) -> float:
    """When the API server got the request, in Unix seconds."""
    return unix(event["requestReceivedTimestamp"])


def pod_of(event: Json) -> str:
    """The pod whose token made the request; empty when it was none."""
    extra = event["user"].get("extra") or {}
    return str((extra.get(POD_NAME) or [""])[0])


def replica_sets(kube: Kube, namespace: str, image: str) -> set[str]:
    """The ReplicaSets of a namespace whose pods ran `image`: a pod that is gone is known by the one that made it."""
    return {
        one["metadata"]["name"]
        for one in kube.list("ReplicaSet", namespace)
        if image in [container["image"] for container in one["spec"]["template"]["spec"]["containers"]]
    }


def _read(file: Path) -> Iterator[Json]:
    """The events of a file. A last line that is still being written is left out; a file that is rotated away, too."""
    try:
        with file.open() as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield json.loads(line)
    except FileNotFoundError:
        return
