"""The pod that every verb runs in: Pod Security "restricted", read-only root, no API token, credentials from Secrets
by environment prefix (the kubelet reads them; the operator never does)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vectorindex_operator.api.v1alpha1 import Cache, Place, Pod, Resources, Volume
from vectorindex_operator.core.state import Installation
from vectorindex_operator.manifests.labels import Manifest
from vectorindex_searcher.contract import CACHE_BYTES_ENV, TASK_ENV, Model, mount_dir

USER = 10001
DISK = "ephemeral-storage"
DISK_SPARE_BYTES = 128 * 2**20
"""Of a pod's disk besides what it fetches: its logs (50 MiB by the kubelet's default), report and queries."""
ARTIFACTS = "ARTIFACTS_"
"""Prefix of what is about the place of artifacts, the one that Jobs write to."""
CACHE_DIR = "/var/cache/vectorindex"
TOKENS_DIR = "/etc/vectorindex/tokens"
TLS_DIR = "/etc/vectorindex/tls"
TRUST_DIR = "/etc/vectorindex/trust"
TRUST_FILE = "ca.pem"
TRUST_ENV = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
"""By which boto3, and what else speaks TLS, finds whom to trust."""


def credentials(places: Mapping[str, Place | None], *, optional: bool = False) -> list[Manifest]:
    """envFrom entries: the keys of each place's Secret, prefixed with SOURCE_, ARTIFACTS_ or QUERIES_. `optional`: the
    pod starts without them, too."""
    return [
        {"prefix": prefix, "secretRef": {"name": place.secret} | ({"optional": True} if optional else {})}
        for prefix, place in places.items()
        if place is not None and place.secret
    ]


def secret(prefix: str, name: str | None) -> list[Manifest]:
    """The envFrom entry of one Secret, its keys prefixed; none without one."""
    return [{"prefix": prefix, "secretRef": {"name": name}}] if name is not None else []


def mount_claims(pod: Manifest, places: Mapping[str, Place | None], *, writes: bool) -> None:
    """Mount the volumes of places into the pod's one container, where `contract.mount_dir` says. `writes`: what is
    written to (ARTIFACTS_); nothing else ever is.

    One volume a claim, however many places it has: the kubelet mounts a claim once a pod. One that is only read is
    read-only as a whole, or the kubelet would give its files to the pod's group.
    """
    claims = {prefix: place.claim_name for prefix, place in places.items() if isinstance(place, Volume)}
    written = {claim for prefix, claim in claims.items() if writes and prefix == ARTIFACTS}
    names: dict[str, str] = {}
    for prefix, claim in claims.items():
        if claim not in names:
            names[claim] = f"store-{mount_dir(prefix).rpartition('/')[2]}"
            source: Manifest = {"claimName": claim} | ({} if claim in written else {"readOnly": True})
            pod["volumes"].append({"name": names[claim], "persistentVolumeClaim": source})
        mount: Manifest = {"name": names[claim], "mountPath": mount_dir(prefix)}
        mount |= {} if claim in written and prefix == ARTIFACTS else {"readOnly": True}
        pod["containers"][0]["volumeMounts"].append(mount)
    if written and "fsGroup" in pod["securityContext"]:
        # Or each start would go through all files of all artifacts.
        pod["securityContext"]["fsGroupChangePolicy"] = "OnRootMismatch"


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
    user = {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER} if settings.fixed_user else {}
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True} | user | {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [one],
        "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "cache", "emptyDir": {}}],
    }
    if settings.trust_bundle is not None:
        bundle = settings.trust_bundle
        source = {"name": bundle.config_map, "items": [{"key": bundle.key, "path": TRUST_FILE}]}
        spec["volumes"].append({"name": "trust-bundle", "configMap": source})
        one["volumeMounts"].append({"name": "trust-bundle", "mountPath": TRUST_DIR, "readOnly": True})
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


def _env(pod: Pod, settings: Installation) -> list[dict[str, object]]:
    """Variables that the installation gives every pod, and those of the user, who may choose other values."""
    theirs = _wires(pod.env)
    given = dict(settings.proxies)
    if settings.trust_bundle is not None:
        given |= dict.fromkeys(TRUST_ENV, f"{TRUST_DIR}/{TRUST_FILE}")
    named = {one["name"] for one in theirs}
    ours: list[dict[str, object]] = [{"name": name, "value": given[name]} for name in given if name not in named]
    return [*ours, *theirs]


def add_to(template: Manifest, pod: Pod, counted: dict[str, str], settings: Installation) -> None:
    """Add what the user says beyond placement to a pod template, in place, after all that is ours: nothing of ours is
    replaced, besides how pods are spread. `counted`: labels of the pods that a constraint without a selector is about.
    """
    meta, spec = template["metadata"], template["spec"]
    one = spec["containers"][0]
    for field, marks in (("labels", pod.labels), ("annotations", pod.annotations)):
        if marks:
            meta[field] = {**marks, **meta.get(field, {})}
    for field, name in (("schedulerName", pod.scheduler_name), ("runtimeClassName", pod.runtime_class_name)):
        if name:
            spec[field] = name
    if pod.affinity:
        spec["affinity"] = pod.affinity
    if pod.topology_spread_constraints:
        ours = {"labelSelector": {"matchLabels": counted}}
        spec["topologySpreadConstraints"] = [ours | each for each in pod.topology_spread_constraints]
    _extend(spec, "imagePullSecrets", _wires(pod.image_pull_secrets))
    _extend(spec, "volumes", _wires(pod.volumes))
    _extend(one, "volumeMounts", _wires(pod.volume_mounts))
    _extend(one, "env", _env(pod, settings))


def _wires(models: Sequence[Model] | None) -> list[dict[str, object]]:
    return [one.wire() for one in models or ()]


def _extend(holder: Manifest, field: str, more: Sequence[Mapping[str, object]]) -> None:
    if more:
        holder[field] = [*holder.get(field, ()), *more]


def mount_secret(pod: Manifest, volume: str, secret: str, path: str, keys: tuple[str, ...] = ()) -> None:
    """Mount a Secret read-only into the pod's one container: the kubelet reads it and keeps the files up to date.

    `keys`: those that must be there; without, every key is a file.
    """
    # Without a group that owns the files only everybody can read them; nobody else is in this pod.
    mode = 0o440 if "fsGroup" in pod["securityContext"] else 0o444
    source: Manifest = {"secretName": secret, "defaultMode": mode}
    if keys:
        source["items"] = [{"key": key, "path": key} for key in keys]
    pod["volumes"].append({"name": volume, "secret": source})
    pod["containers"][0]["volumeMounts"].append({"name": volume, "mountPath": path, "readOnly": True})


def keep_in(pod: Manifest, cache: Cache) -> None:
    """Have the pod's one container keep what it fetches in another volume than the pod's own folder, in place."""
    if cache.ephemeral is not None:
        storage = cache.ephemeral.storage_class_name
        claim = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": cache.ephemeral.size}},
        } | ({"storageClassName": storage} if storage else {})
        source: Manifest = {"ephemeral": {"volumeClaimTemplate": {"spec": claim}}}
    else:
        source = {"persistentVolumeClaim": {"claimName": cache.claim_name}}
    named = (({"name": "cache"} | source) if volume["name"] == "cache" else volume for volume in pod["volumes"])
    pod["volumes"] = list(named)
    if "fsGroup" in pod["securityContext"]:
        # Else the kubelet goes through all files of a claim before each pod begins.
        pod["securityContext"] = pod["securityContext"] | {"fsGroupChangePolicy": "OnRootMismatch"}
    if cache.limit_bytes is not None:
        pod["containers"][0]["env"].append({"name": CACHE_BYTES_ENV, "value": str(cache.limit_bytes)})


def resources(given: Resources) -> Manifest:
    """As a container has them."""
    rendered = {"requests": dict(given.requests), "limits": dict(given.limits)}
    return {kind: values for kind, values in rendered.items() if values}


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
