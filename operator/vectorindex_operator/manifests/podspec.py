"""The pod that every verb runs in: Pod Security "restricted", read-only root, no API token, credentials from Secrets
by environment prefix (the kubelet reads them; the operator never does)."""

from __future__ import annotations

from collections.abc import Mapping

from vectorindex_operator.api.v1alpha1 import S3, Pod
from vectorindex_operator.core.state import Installation
from vectorindex_operator.manifests.labels import Manifest
from vectorindex_searcher.contract import TASK_ENV, Model

USER = 10001
DISK = "ephemeral-storage"
DISK_SPARE_BYTES = 128 * 2**20
"""Of a pod's disk besides what it fetches: its logs (50 MiB by the kubelet's default), report and queries."""
CACHE_DIR = "/var/cache/vectorindex"
TOKENS_DIR = "/etc/vectorindex/tokens"
TLS_DIR = "/etc/vectorindex/tls"


def credentials(places: Mapping[str, S3 | None], *, optional: bool = False) -> list[Manifest]:
    """envFrom entries: the keys of each place's Secret, prefixed with SOURCE_, ARTIFACTS_ or QUERIES_. `optional`: the
    pod starts without them, too."""
    return [
        {"prefix": prefix, "secretRef": {"name": place.secret_ref.name} | ({"optional": True} if optional else {})}
        for prefix, place in places.items()
        if place is not None and place.secret_ref is not None
    ]


def container(name: str, image: str, verb: str, env_from: list[Manifest], settings: Installation) -> Manifest:
    """The one container of a pod; task and resources are added by the caller."""
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": [verb],
        "envFrom": env_from,
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a mount of the pod's own
            {"name": "cache", "mountPath": CACHE_DIR},
        ],
    }


def pod_spec(one: Manifest, pod: Pod, settings: Installation) -> Manifest:
    """A pod around container `one` with the user's placement."""
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [one],
        "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "cache", "emptyDir": {}}],
    }
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if pod.node_selector:
        spec["nodeSelector"] = dict(pod.node_selector)
    if pod.tolerations:
        spec["tolerations"] = [{k: v for k, v in t.wire().items() if v != ""} for t in pod.tolerations]
    if pod.service_account_name:
        spec["serviceAccountName"] = pod.service_account_name
    if pod.priority_class_name:
        spec["priorityClassName"] = pod.priority_class_name
    return spec


def mount_secret(pod: Manifest, volume: str, secret: str, path: str, keys: tuple[str, ...] = ()) -> None:
    """Mount a Secret read-only into the pod's one container: the kubelet reads it and keeps the files up to date.

    `keys`: those that must be there; without, every key is a file.
    """
    source: Manifest = {"secretName": secret, "defaultMode": 0o440}
    if keys:
        source["items"] = [{"key": key, "path": key} for key in keys]
    pod["volumes"].append({"name": volume, "secret": source})
    pod["containers"][0]["volumeMounts"].append({"name": volume, "mountPath": path, "readOnly": True})


def disk_mebibytes(disk_bytes: int | None, *given: Mapping[str, str]) -> int:
    """MiB of ephemeral storage that a pod asks for when it fetches `disk_bytes`: all its volumes lie there. 0: nothing
    is asked for, because the user's own requests or limits name it, or because the size is not known.
    """
    if disk_bytes is None or any(DISK in quantities for quantities in given):
        return 0
    return -(-(disk_bytes + DISK_SPARE_BYTES) // 2**20)


def task_env(task: Model, *, first_release: bool = False) -> Manifest:
    """The environment variable that carries a task. `first_release`: to an image that may be so old."""
    return {"name": TASK_ENV, "value": task.task_text(first_release=first_release)}
