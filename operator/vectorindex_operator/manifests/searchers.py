"""The searchers of one revision: a pod template frozen when the revision is made, a Deployment and a
PodDisruptionBudget around it. Only replicas and resources follow the VectorIndex afterwards."""

from __future__ import annotations

import json
from copy import deepcopy

from vectorindex_operator.api.v1alpha1 import Live, Resources, RevisionSpec, Searcher, VectorIndexSpec
from vectorindex_operator.core import identity, internal_keys, recipe
from vectorindex_operator.core.observation import IndexView, RevisionView
from vectorindex_operator.core.plan import EnsureSearchers
from vectorindex_operator.core.source_poll import told_text
from vectorindex_operator.core.state import Installation
from vectorindex_operator.manifests import labels
from vectorindex_operator.manifests.labels import Manifest
from vectorindex_operator.manifests.podspec import (
    CACHE_DIR,
    DISK,
    TLS_DIR,
    TOKENS_DIR,
    container,
    credentials,
    disk_mebibytes,
    mount_secret,
    pod_spec,
    task_env,
)
from vectorindex_searcher.contract import (
    ADMIN_PORT,
    DRAIN_SECONDS,
    HTTP_PORT,
    INTERNAL_KEY_ENV,
    LIVE_QUERIES_ENV,
    LIVE_SAMPLE_BYTES,
    PARAM_LIMITS_ENV,
    SOURCE_ENV,
    TOMBSTONE_POLL_SECONDS,
    Identity,
    ServeTask,
    key_id,
    revision_key,
)

PROCESS_BYTES = 256 * 2**20
"""What a searcher needs besides the artifact: the interpreter, libraries, buffers."""

BUSY_BYTES = 1152 * 2**20
"""What it may take besides the artifact, whatever is asked of it, with TLS and many CPUs: serve/http/limits.py adds it
up, and a test compares."""

LIVE_RECALL_BYTES = 160 * 2**20
"""What live recall needs: a sample of queries, a block of vectors, and what a scan keeps for each query."""


LIVE_QUERIES_BYTES = LIVE_SAMPLE_BYTES + 16 * 2**20
"""What a sample of live queries needs, with the hour of it that is being told."""

LISTING_BYTES = 160 * 2**20
"""What listing a source takes for a moment, with as many objects and as long keys as there may be (a test compares).
Above the limit only: most sources take a hundredth of it."""


def pod_template(spec: VectorIndexSpec, index: IndexView, name: str, settings: Installation) -> Manifest:
    """The pod template of a new revision. Task and resources are filled in when it is loaded."""
    places = {"ARTIFACTS_": spec.artifacts.s3, "SOURCE_": spec.source.deleted()}
    one = container("searcher", settings.searcher_image, "serve", credentials(places), settings)
    one["ports"] = [
        {"name": "http", "containerPort": HTTP_PORT},
        {"name": "admin", "containerPort": ADMIN_PORT},
    ]
    one["readinessProbe"] = _probe("/readyz", period=2, failures=2)
    one["livenessProbe"] = _probe("/livez", period=10, failures=6)
    pod = pod_spec(one, spec.searcher.pod, settings)
    _secure(pod, spec.searcher)
    pod["terminationGracePeriodSeconds"] = DRAIN_SECONDS + 15
    pod["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels.selector(name)},
        }
    ]
    annotations = {labels.MEMORY: COUNTS_BUSY}
    if settings.internal_keys.current:
        annotations[internal_keys.ANNOTATION] = key_id(settings.internal_keys.current)
    metadata = {"labels": labels.common(index.name, labels.SEARCHER, name), "annotations": annotations}
    return {"metadata": metadata, "spec": pod}


COUNTS_BUSY = "busy"
"""Of revisions whose memory limit counts BUSY_BYTES. Others keep theirs: an upgrade of ours restarts no pods."""


_SECRET_VOLUMES = frozenset({"tokens", "tls"})


def _secure(pod: Manifest, searcher: Searcher) -> None:
    """Mount tokens and certificate, and tell `serve` where they are."""
    arguments = pod["containers"][0]["args"]
    if searcher.auth is not None:
        mount_secret(pod, "tokens", searcher.auth.secret_ref.name, TOKENS_DIR)
        arguments += ["--token-file", TOKENS_DIR]
    if searcher.tls is not None:
        mount_secret(pod, "tls", searcher.tls.secret_ref.name, TLS_DIR, ("tls.crt", "tls.key"))
        arguments += ["--tls-cert", f"{TLS_DIR}/tls.crt", "--tls-key", f"{TLS_DIR}/tls.key"]


def deployment(
    action: EnsureSearchers, index: IndexView, revision: RevisionView, keys: internal_keys.InternalKeys
) -> Manifest:
    """The Deployment of a loaded revision. It belongs to the VectorIndex: deleting a revision stops no traffic."""
    frozen = revision.spec
    pod = _reached_by(frozen, action.live)
    one = pod["containers"][0]
    one["env"] = [
        task_env(_task(action, index, frozen)),
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
    ]
    if (params := action.live.searcher.params) is not None:
        one["env"].append({"name": PARAM_LIMITS_ENV, "value": json.dumps(params.wire(), sort_keys=True)})
    if text := told_text(_owner(index), frozen, action.live):
        one["env"].append({"name": SOURCE_ENV, "value": text})
    if action.live.live_queries:
        one["env"].append({"name": LIVE_QUERIES_ENV, "value": "1"})
    busy = frozen.pod_template["metadata"].get("annotations", {}).get(labels.MEMORY) == COUNTS_BUSY
    listing = LISTING_BYTES if frozen.source_poll is not None else 0
    one["resources"] = _resources(action.live.searcher.resources, action, busy=busy, listing=listing)
    template = frozen.pod_template | {"spec": pod}
    _give_key(template, revision, keys)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": labels.metadata(
            action.revision,
            index.namespace,
            labels.common(index.name, labels.SEARCHER, action.revision),
            labels.owner(index),
            {labels.LIVE: identity.live_hash(action.live)},
        ),
        "spec": {
            "replicas": action.live.searcher.replicas,
            "revisionHistoryLimit": 0,
            "selector": {"matchLabels": labels.selector(action.revision)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        },
    }


def _reached_by(frozen: RevisionSpec, live: Live) -> Manifest:
    """The frozen pod with today's access: Secrets of its data, tokens and certificate never come back with a rollback.

    Everything else is as it was frozen, so that an upgrade of the operator restarts no pods.
    """
    pod: Manifest = deepcopy(frozen.pod_template["spec"])
    one = pod["containers"][0]
    one["envFrom"] = credentials(
        {
            "ARTIFACTS_": frozen.artifacts.reached_by(live.artifacts),
            "SOURCE_": frozen.tombstones.reached_by(live.source) if frozen.tombstones else None,
        }
    )
    if frozen.source_poll is not None and frozen.tombstones is None:
        one["envFrom"] += credentials({"SOURCE_": frozen.source.reached_by(live.source)}, optional=True)
    one["args"] = one["args"][:1]
    one["volumeMounts"] = [mount for mount in one["volumeMounts"] if mount["name"] not in _SECRET_VOLUMES]
    pod["volumes"] = [volume for volume in pod["volumes"] if volume["name"] not in _SECRET_VOLUMES]
    _secure(pod, live.searcher)
    return pod


def _give_key(template: Manifest, revision: RevisionView, keys: internal_keys.InternalKeys) -> None:
    """The key of the revision, if it was made with one, and the name of the master key that it comes from."""
    master = keys.master_of(internal_keys.key_id_of(template))
    annotations = dict(template["metadata"].get("annotations", {}))
    if annotations.pop(internal_keys.ANNOTATION, None) is None:
        return
    if master:
        annotations[internal_keys.ANNOTATION] = key_id(master)
        value = revision_key(master, revision.uid)
        template["spec"]["containers"][0]["env"].append({"name": INTERNAL_KEY_ENV, "value": value})
    template["metadata"] = template["metadata"] | {"annotations": annotations}


def disruption_budget(action: EnsureSearchers, index: IndexView) -> Manifest:
    """At most one pod of a revision is evicted at a time; broken ones never hold up a drain."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": labels.metadata(
            action.revision,
            index.namespace,
            labels.common(index.name, labels.SEARCHER, action.revision),
            labels.owner(index),
        ),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": labels.selector(action.revision)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def _owner(index: IndexView) -> Identity:
    return Identity(namespace=index.namespace, name=index.name, uid=index.uid)


def _task(action: EnsureSearchers, index: IndexView, frozen: RevisionSpec) -> ServeTask:
    return ServeTask(
        identity=_owner(index),
        revision=action.revision,
        digest=frozen.digest,
        manifest_sha256=action.manifest_sha256,
        gate_hash=action.gate_hash,
        report_sha256=action.report_sha256,
        artifacts=frozen.artifacts.reached_by(action.live.artifacts).location(),
        segments=frozen.segments,
        min_score=frozen.min_score,
        live_recall=action.live_recall,
        cache_dir=CACHE_DIR,
        tombstones=recipe.tombstones(frozen, action.live.source),
        tombstone_poll_seconds=frozen.tombstone_poll_seconds or TOMBSTONE_POLL_SECONDS,
        id_column=frozen.columns.id,
    )


def memory(held: int, *, busy: bool = True, listing: int = 0) -> tuple[int, int]:
    """Request and limit of a searcher, in MiB. held: bytes of its artifact, and of what it keeps of queries. busy: the
    limit counts BUSY_BYTES. listing: bytes that the limit counts besides."""
    request, most = (-(-(held + size) // 2**20) for size in (PROCESS_BYTES, BUSY_BYTES))
    return request, max(2 * request, most if busy else 0) + -(-listing // 2**20)


def _resources(resources: Resources, action: EnsureSearchers, *, busy: bool, listing: int) -> Manifest:
    requests, limits = dict(resources.requests), dict(resources.limits)
    if "memory" not in requests and "memory" not in limits:
        held = action.resident_bytes
        held += LIVE_RECALL_BYTES if action.live_recall else 0
        held += LIVE_QUERIES_BYTES if action.live.live_queries else 0
        request, limit = memory(held, busy=busy, listing=listing)
        requests["memory"], limits["memory"] = f"{request}Mi", f"{limit}Mi"
    if disk := disk_mebibytes(action.disk_bytes, requests, limits):
        requests[DISK] = f"{disk}Mi"
        # Twice that: a file that is fetched again lies beside the one that it replaces.
        limits[DISK] = f"{2 * disk}Mi"
    rendered = {"requests": requests, "limits": limits}
    return {kind: values for kind, values in rendered.items() if values}


def _probe(path: str, *, period: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "admin"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }
