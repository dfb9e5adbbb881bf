"""Read everything one pass may know, through the ports, and parse it into a frozen Observation.

Reads come first and are all from the API server itself; the searchers are asked last, so that evidence is as fresh as
the decision made on it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from vectorindex_operator.api.timestamps import to_unix
from vectorindex_operator.api.v1alpha1 import (
    GROUP,
    RevisionSpec,
    RevisionStatus,
    VectorIndexSpec,
    VectorIndexStatus,
)
from vectorindex_operator.core.judging.judge import PodEvidence
from vectorindex_operator.core.observation import (
    Command,
    FrontService,
    IndexView,
    LoadedRevision,
    Observation,
    RevisionView,
)
from vectorindex_operator.core.safety.judge_serving import evidence_wanted
from vectorindex_operator.manifests import labels
from vectorindex_operator.manifests.service import read_decision
from vectorindex_operator.reconcile import pods
from vectorindex_operator.reconcile.ports import Cluster, Raw, Searchers

log = logging.getLogger(__name__)

CHILD_KINDS = ("VectorIndexRevision", "Job", "Deployment", "PodDisruptionBudget", "Pod")
VERBS = ("rollback", "retry")


def observe(cluster: Cluster, searchers: Searchers, namespace: str, name: str, now: float) -> Observation | None:
    """What there is about one VectorIndex; None when it is gone. Raises errors.ClusterError."""
    raw = cluster.get("VectorIndex", namespace, name)
    if raw is None:
        return None
    selector = f"{labels.INDEX}={name},{labels.MANAGED_BY}={labels.OPERATOR}"
    children = {kind: cluster.children(kind, namespace, selector) for kind in CHILD_KINDS}
    service = cluster.get("Service", namespace, name)
    index = _index(raw)
    obs = Observation(
        index=index,
        revisions=_revisions(children["VectorIndexRevision"], index.uid),
        jobs=tuple(pods.job_view(job, children["Pod"]) for job in children["Job"]),
        loaded=_loaded(children["Deployment"], children["Pod"], now),
        service=_service(service, index.uid),
        objects=_objects(raw, service, children),
        conflict=_conflict(children["Deployment"], index.uid),
    )
    return replace(obs, evidence=_evidence(searchers, obs, now))


def _objects(raw: Raw, service: Raw | None, children: Mapping[str, list[Raw]]) -> dict[tuple[str, str], Raw]:
    objects: dict[tuple[str, str], Raw] = {
        (kind, child["metadata"]["name"]): child for kind, group in children.items() for child in group
    }
    objects["VectorIndex", raw["metadata"]["name"]] = raw
    if service is not None:
        objects["Service", service["metadata"]["name"]] = service
    return objects


def _conflict(deployments: list[Raw], uid: str) -> str:
    """A Deployment that carries our labels but belongs to somebody else (or to an earlier object of this name)."""
    for raw in deployments:
        if not pods.is_owned(raw, uid) and not raw["metadata"].get("deletionTimestamp"):
            return f"Deployment/{raw['metadata']['name']}"
    return ""


def _index(raw: Raw) -> IndexView:
    meta = raw["metadata"]
    spec, error = None, ""
    try:
        spec = VectorIndexSpec.model_validate(raw.get("spec", {}))
    except ValidationError as problem:
        error = "; ".join(
            f"spec.{'.'.join(str(p) for p in e['loc'])}: {e['msg']} (got {e['input']!r})"[:300]
            for e in problem.errors(include_url=False)
        )
    return IndexView(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        generation=meta.get("generation", 0),
        created_at=to_unix(meta["creationTimestamp"]),
        spec=spec,
        status=_lenient(VectorIndexStatus, raw.get("status")),
        deleting="deletionTimestamp" in meta,
        spec_error=error,
        verbs=_verbs(meta.get("annotations", {})),
    )


def _lenient(model: Any, status: Any) -> Any:
    """A status that an older or newer operator wrote and that no longer fits is rebuilt, never an obstacle."""
    try:
        return model.model_validate(status or {})
    except ValidationError:
        return model()


def _verbs(annotations: Mapping[str, str]) -> tuple[Command, ...]:
    verbs = []
    for name in VERBS:
        text = annotations.get(f"{GROUP}/{name}")
        if text:
            argument, _, nonce = text.rpartition("@")
            verbs.append(Command(name, argument, nonce))
    return tuple(verbs)


def _revisions(raws: list[Raw], uid: str) -> dict[str, RevisionView]:
    """Our revisions. One whose stored spec does not fit the models (an older or newer operator wrote it) is left out:
    it is neither built nor gone back to, and while it has the traffic its searchers stay as they are."""
    views = {}
    for raw in raws:
        if not pods.is_owned(raw, uid):
            continue
        try:
            view = _revision(raw)
        except ValidationError as error:
            log.error("the spec of %s cannot be read: %s", raw["metadata"]["name"], error)
            continue
        views[view.name] = view
    return views


def _revision(raw: Raw) -> RevisionView:
    meta = raw["metadata"]
    return RevisionView(
        name=meta["name"],
        uid=meta["uid"],
        created_at=to_unix(meta["creationTimestamp"]),
        spec=RevisionSpec.model_validate(raw["spec"]),
        status=_lenient(RevisionStatus, raw.get("status")),
        deleting="deletionTimestamp" in meta,
    )


def _loaded(deployments: list[Raw], all_pods: list[Raw], now: float) -> dict[str, LoadedRevision]:
    loaded = {}
    for raw in deployments:
        meta = raw["metadata"]
        if "deletionTimestamp" in meta:
            continue
        revision = meta["labels"].get(labels.REVISION, meta["name"])
        mine = [
            pod
            for pod in all_pods
            if pod["metadata"]["labels"].get(labels.REVISION) == revision
            and pod["metadata"]["labels"].get(labels.COMPONENT) == labels.SEARCHER
        ]
        views = tuple(sorted((pods.pod_view(pod, now) for pod in mine), key=lambda view: view.name))
        loaded[revision] = LoadedRevision(revision, True, views, pods.unready_since(raw, mine))
    return loaded


def _service(raw: Raw | None, uid: str) -> FrontService:
    if raw is None:
        return FrontService(exists=False)
    meta = raw["metadata"]
    if not pods.is_owned(raw, uid):
        return FrontService(exists=True, owned=False)
    return FrontService(
        exists=True,
        revision=(raw["spec"].get("selector") or {}).get(labels.REVISION, ""),
        resource_version=meta["resourceVersion"],
        decision=read_decision(meta.get("annotations", {}).get(labels.DECISION, "")),
    )


def _evidence(searchers: Searchers, obs: Observation, now: float) -> dict[str, tuple[PodEvidence, ...]]:
    evidence = {}
    for name, since in evidence_wanted(obs, now).items():
        loaded = obs.loaded.get(name)
        if loaded is None:
            continue
        # Pods that are not ready serve nothing and owe no evidence; Unavailable looks after them.
        serving = [(pod.name, pod.address) for pod in loaded.pods if pod.ready and pod.address]
        evidence[name] = searchers.evidence(serving, since)
    return evidence
