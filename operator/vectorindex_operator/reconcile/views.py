"""Frozen views of raw objects: the VectorIndex, its revisions, their searchers, the front Service. Pure: reads nothing.

Jobs and pods have a file of their own (pods.py).
"""

from __future__ import annotations

import logging
from typing import Any

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
        commands=read_commands(meta.get("annotations") or {}),
    )


def _lenient(model: Any, status: Any) -> Any:
    """A status that an older or newer operator wrote and that no longer fits is rebuilt, never an obstacle."""
    try:
        return model.model_validate(status or {})
    except ValidationError:
        return model()


def revision_views(raws: list[Raw], uid: str) -> dict[str, RevisionView]:
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
