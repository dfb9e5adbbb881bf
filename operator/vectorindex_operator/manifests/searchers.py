"""The searchers of one revision: a pod template frozen when the revision is made, a Deployment and a
PodDisruptionBudget around it. Only replicas and resources follow the VectorIndex afterwards."""

from __future__ import annotations

import json
from copy import deepcopy

from vectorindex_operator.api.v1alpha1 import Live, RevisionSpec, Searcher, VectorIndexSpec
from vectorindex_operator.core import identity, internal_keys, recipe
from vectorindex_operator.core.observation import IndexView, RevisionView
from vectorindex_operator.core.plan import EnsureSearchers
from vectorindex_operator.core.source_poll import told_text
from vectorindex_operator.core.state import Installation
from vectorindex_operator.manifests import labels, sizing
from vectorindex_operator.manifests.labels import Manifest
from vectorindex_operator.manifests.podspec import (
    CACHE_DIR,
    TLS_DIR,
    TOKENS_DIR,
    add_to,
    container,
    credentials,
    keep_in,
    mount_claims,
    mount_secret,
    pod_spec,
    secret,
    task_env,
)
from vectorindex_searcher.contract import (
    ADMIN_PORT,
    COLUMNS_BEFORE_ENV,
    DRAIN_SECONDS,
    ENCODER_ENV_PREFIX,
    FRESH_ENV,
    HTTP_PORT,
    INTERNAL_KEY_ENV,
    LIVE_QUERIES_ENV,
    PARAM_LIMITS_ENV,
    POLICIES_FILE,
    PROCESSES_ENV,
    RERANKER_ENV_PREFIX,
    SOURCE_ENV,
    TOMBSTONE_POLL_SECONDS,
    Identity,
    ServeTask,
    inert,
    key_id,
    revision_key,
)

_SECRET_VOLUMES = frozenset({"tokens", "tls"})


def pod_template(spec: VectorIndexSpec, index: IndexView, name: str, settings: Installation) -> Manifest:
    """The pod template of a new revision. Task and resources are filled in when it is loaded."""
    places = {"ARTIFACTS_": spec.artifacts.place, "SOURCE_": spec.source.deleted()}
    one = container("searcher", settings.searcher_image, "serve", credentials(places), settings)
    encoder = spec.embedding.store()
    known = encoder.secret if encoder is not None else ""
    one["envFrom"] += secret(ENCODER_ENV_PREFIX, known or spec.embedding.token_secret())
    reranker = spec.searcher.rerank.onnx.place if spec.searcher.rerank is not None else None
    one["envFrom"] += secret(RERANKER_ENV_PREFIX, (reranker.secret or None) if reranker is not None else None)
    one["ports"] = [
        {"name": "http", "containerPort": HTTP_PORT},
        {"name": "admin", "containerPort": ADMIN_PORT},
    ]
    one["readinessProbe"] = _probe("/readyz", period=2, failures=2)
    one["livenessProbe"] = _probe("/livez", period=10, failures=6)
    pod = pod_spec(one, spec.searcher.pod, settings)
    mount_claims(pod, places | {ENCODER_ENV_PREFIX: encoder, RERANKER_ENV_PREFIX: reranker}, writes=False)
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
    annotations = sizing.frozen_sizing()
    if settings.internal_keys.current:
        annotations[internal_keys.ANNOTATION] = key_id(settings.internal_keys.current)
    metadata = {"labels": labels.common(index.name, labels.SEARCHER, name), "annotations": annotations}
    template = {"metadata": metadata, "spec": pod}
    add_to(template, spec.searcher.pod, labels.selector(name), settings)
    return template


def trial(spec: VectorIndexSpec, index: IndexView, settings: Installation) -> Manifest:
    """A Deployment with the pods that a new revision would have, for the API server to judge and never to make: what
    it says against them is known before they are frozen, not when the revision is built and proven."""
    name = f"{index.name}-trial"
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": labels.metadata(
            name, index.namespace, labels.common(index.name, labels.SEARCHER, name), labels.owner(index)
        ),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels.selector(name)},
            "template": pod_template(spec, index, name, settings),
        },
    }


def _secure(pod: Manifest, searcher: Searcher) -> None:
    """Mount tokens and certificate, and tell `serve` where they are."""
    arguments = pod["containers"][0]["args"]
    if searcher.auth is not None:
        mount_secret(pod, "tokens", searcher.auth.secret_ref.name, TOKENS_DIR)
        arguments += ["--token-file", TOKENS_DIR]
        if searcher.auth.policies is not None:
            # An image of before there were policies refuses the flag and never gets traffic, instead of showing all.
            arguments += ["--policies", f"{TOKENS_DIR}/{POLICIES_FILE}"]
    if searcher.tls is not None:
        mount_secret(pod, "tls", searcher.tls.secret_ref.name, TLS_DIR, ("tls.crt", "tls.key"))
        arguments += ["--tls-cert", f"{TLS_DIR}/tls.crt", "--tls-key", f"{TLS_DIR}/tls.key"]


def deployment(
    action: EnsureSearchers,
    index: IndexView,
    revision: RevisionView,
    keys: internal_keys.InternalKeys,
    *,
    shard: int | None = None,
) -> Manifest:
    """The Deployment of a loaded revision. It belongs to the VectorIndex: deleting a revision stops no traffic.

    `shard`: its pods serve this part of it, in clear, since routers end TLS.
    """
    frozen = revision.spec
    pod = _reached_by(frozen, action.live, tls=shard is None)
    one = pod["containers"][0]
    theirs = one.pop("env", [])
    one["env"] = [
        task_env(_task(action, index, frozen, shard)),
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
    ]
    if (params := action.live.searcher.params) is not None:
        one["env"].append({"name": PARAM_LIMITS_ENV, "value": json.dumps(params.wire(), sort_keys=True)})
    if action.columns_before is not None:
        text = inert(json.dumps(dict(action.columns_before), sort_keys=True))
        one["env"].append({"name": COLUMNS_BEFORE_ENV, "value": text})
    if text := told_text(owner_of(index), frozen, action.live):
        one["env"].append({"name": SOURCE_ENV, "value": text})
    if (fresh := recipe.fresh_task(frozen, action.live)) is not None:
        one["env"].append({"name": FRESH_ENV, "value": fresh.task_text(first_release=False)})
    if action.live.live_queries and not frozen.in_shards:  # what one shard is asked is not what users ask
        one["env"].append({"name": LIVE_QUERIES_ENV, "value": "1"})
    resources, need = action.live.searcher.resources, sizing.Need.of(action, frozen)
    processes = sizing.processes(frozen, resources, need)
    if processes > 1:
        one["env"].append({"name": PROCESSES_ENV, "value": str(processes)})
    if action.live.searcher.cache is not None:
        keep_in(pod, action.live.searcher.cache)
    one["env"] += theirs
    one["resources"] = sizing.container_resources(resources, need, _disk_bytes(action), processes)
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


def _disk_bytes(action: EnsureSearchers) -> int | None:
    """What a pod fetches to the node's disk; None: it is not known."""
    if action.disk_bytes is None:
        return None
    models = action.encoder_bytes + action.reranker_bytes
    return 0 if action.live.searcher.cache is not None else action.disk_bytes + models


def _reached_by(frozen: RevisionSpec, live: Live, *, tls: bool) -> Manifest:
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
    one["envFrom"] += secret(ENCODER_ENV_PREFIX, recipe.encoder_secret(frozen, live))
    one["envFrom"] += secret(RERANKER_ENV_PREFIX, recipe.reranker_secret(frozen, live))
    reads = frozen.source_poll is not None or recipe.fresh_place(frozen, live) is not None
    if reads and frozen.tombstones is None:
        one["envFrom"] += credentials({"SOURCE_": frozen.source.reached_by(live.source)}, optional=True)
    one["args"] = one["args"][:1]
    one["volumeMounts"] = [mount for mount in one["volumeMounts"] if mount["name"] not in _SECRET_VOLUMES]
    pod["volumes"] = [volume for volume in pod["volumes"] if volume["name"] not in _SECRET_VOLUMES]
    _secure(pod, live.searcher if tls else live.searcher.model_copy(update={"tls": None}))
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


def owner_of(index: IndexView) -> Identity:
    return Identity(namespace=index.namespace, name=index.name, uid=index.uid)


def _task(action: EnsureSearchers, index: IndexView, frozen: RevisionSpec, shard: int | None) -> ServeTask:
    """The report is of what is served. That of shards is of all of them; an earlier release's has no canary."""
    proven = shard is None or action.merged_canary
    return ServeTask(
        identity=owner_of(index),
        revision=action.revision,
        digest=frozen.digest,
        manifest_sha256=action.manifest_sha256,
        gate_hash=action.gate_hash if proven else "",
        report_sha256=action.report_sha256 if proven else "",
        gate_of_whole=shard is not None and proven,
        artifacts=frozen.artifacts.reached_by(action.live.artifacts).location(),
        segments=frozen.segments,
        min_score=frozen.min_score,
        live_recall=action.live_recall,
        cache_dir=CACHE_DIR,
        tombstones=recipe.tombstones(frozen, action.live.source),
        tombstone_poll_seconds=frozen.tombstone_poll_seconds or TOMBSTONE_POLL_SECONDS,
        id_column=frozen.columns.id,
        encoder=recipe.encoder_task(frozen, action.live),
        rerank=recipe.rerank_task(frozen, action.live),
        shard=shard,
    )


def _probe(path: str, *, period: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "admin"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }
