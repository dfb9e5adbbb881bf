"""Frozen views of raw objects: the VectorIndex, its revisions, their searchers, the front Service. Pure: reads nothing.

Jobs and pods have a file of their own (pods.py).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pydantic import ValidationError

from vectorindex_operator.api.timestamps import to_unix
from vectorindex_operator.api.v1alpha1 import (
    RevisionSpec,
    RevisionStatus,
    VectorIndexSpec,
    VectorIndexStatus,
)
from vectorindex_operator.core.commands import read_commands
from vectorindex_operator.core.loaded import LoadedRevision
from vectorindex_operator.core.observation import IndexView, RevisionView
from vectorindex_operator.core.traffic import Traffic
from vectorindex_operator.manifests import labels
from vectorindex_operator.manifests.service import read_decision
from vectorindex_operator.reconcile import pods
from vectorindex_operator.reconcile.ports import Raw

log = logging.getLogger(__name__)

REASONS = 8
"""Faults that are named of an object that cannot be read."""


def conflict(deployments: list[Raw], uid: str) -> str:
    """A Deployment that carries our labels but belongs to somebody else (or to an earlier object of this name)."""
    for raw in deployments:
        if not pods.is_owned(raw, uid) and not raw["metadata"].get("deletionTimestamp"):
            return f"Deployment/{raw['metadata']['name']}"
    return ""


def index_view(raw: Raw) -> IndexView:
    """The VectorIndex; a spec that cannot be read is None, and `spec_error` names field and value."""
    meta = raw["metadata"]
    spec, error = None, ""
    try:
        spec = VectorIndexSpec.model_validate(raw.get("spec", {}))
    except ValidationError as problem:
        error = _reasons("spec", problem)
    return IndexView(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        generation=meta.get("generation", 0),
        created_at=to_unix(meta["creationTimestamp"]),
        spec=spec,
        status=VectorIndexStatus.read(_status(raw)),
        deleting="deletionTimestamp" in meta,
        spec_error=error,
        commands=read_commands(meta.get("annotations") or {}),
    )


def _status(raw: Raw) -> Mapping[str, object]:
    """Its fields all have defaults, so a status is unreadable only where it is no object, and then it says nothing."""
    status = raw.get("status")
    return status if isinstance(status, Mapping) else {}


def revision_views(raws: list[Raw], uid: str) -> tuple[dict[str, RevisionView], dict[str, str]]:
    """Our revisions, and why others of them cannot be read (name -> why): another release wrote these. What cannot be
    read is neither built, chosen nor retired: its searchers stay as they are."""
    views, unreadable = {}, {}
    for raw in raws:
        if not pods.is_owned(raw, uid):
            continue
        name = raw["metadata"]["name"]
        try:
            views[name] = _revision(raw)
        except ValidationError as error:
            unreadable[name] = _reasons("spec", error)
            log.error("the spec of %s cannot be read: %s", name, unreadable[name])
    return views, unreadable


def _reasons(root: str, error: ValidationError) -> str:
    """Field, problem and value of the first few faults."""
    return "; ".join(
        f"{'.'.join(str(part) for part in (root, *fault['loc']))}: {fault['msg']} (got {fault['input']!r})"[:300]
        for fault in error.errors(include_url=False)[:REASONS]
    )


def _revision(raw: Raw) -> RevisionView:
    meta = raw["metadata"]
    return RevisionView(
        name=meta["name"],
        uid=meta["uid"],
        created_at=to_unix(meta["creationTimestamp"]),
        spec=RevisionSpec.read(raw["spec"]),
        status=RevisionStatus.read(_status(raw)),
        deleting="deletionTimestamp" in meta,
    )


def loaded_views(deployments: list[Raw], all_pods: list[Raw], now: float) -> dict[str, LoadedRevision]:
    """Revision -> its Deployment's searchers. `now`: unix seconds; see pods.pod_view."""
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
        loaded[revision] = LoadedRevision.of(
            revision,
            views,
            pods.unready_since(raw, mine),
            replicas=int(raw.get("spec", {}).get("replicas", 0)),
            live=str((meta.get("annotations") or {}).get(labels.LIVE, "")),
            outdated=_outdated(raw),
        )
    return loaded


def _outdated(deployment: Raw) -> int:
    """Pods that do not run the Deployment's template of now; all of them while its controller has not seen it."""
    status = deployment.get("status") or {}
    there = int(status.get("replicas", 0))
    if int(status.get("observedGeneration", 0)) < int(deployment["metadata"].get("generation", 0)):
        return max(1, there)
    return max(0, there - int(status.get("updatedReplicas", 0)))


def traffic_view(raw: Raw | None, uid: str) -> Traffic:
    """The front Service: whom it points to, and the decision written with that."""
    if raw is None:
        return Traffic()
    meta = raw["metadata"]
    if not pods.is_owned(raw, uid):
        return Traffic(exists=True, owned=False)
    return Traffic.to(
        (raw["spec"].get("selector") or {}).get(labels.REVISION, ""),
        meta["resourceVersion"],
        read_decision(meta.get("annotations", {}).get(labels.DECISION, "")),
    )
