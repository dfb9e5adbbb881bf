"""Labels, annotations and owner references of everything the operator makes. Nothing is copied from the user's labels:
a copied Argo CD tracking label would make Argo CD prune our children."""

from __future__ import annotations

from typing import Any

from vectorindex_operator.api.v1alpha1 import API_VERSION, GROUP
from vectorindex_operator.core.observation import IndexView, RevisionView

INDEX = f"{GROUP}/index"
REVISION = f"{GROUP}/revision"
VERB = f"{GROUP}/verb"
COMPONENT = "app.kubernetes.io/component"
MANAGED_BY = "app.kubernetes.io/managed-by"
OPERATOR = "vectorindex-operator"
SEARCHER = "searcher"
JOB = "job"
SHARD_PODS = "shard"
"""Component of the pods of one shard. What users reach of a revision is its SEARCHER: with shards, the routers."""
STEP = "step"
"""Component of the Service that a gateway sends a candidate's share to."""
SERVICE_NAME = "kubernetes.io/service-name"
"""Of an EndpointSlice: the Service that it is of."""

QUEUE = "kueue.x-k8s.io/queue-name"
"""Of a Job: the LocalQueue of Kueue that it is in."""

KEY = f"{GROUP}/attempt"
FAILURES = f"{GROUP}/failures"
DEVICE = f"{GROUP}/device"
DECISION = f"{GROUP}/decision"
LIVE = f"{GROUP}/live"
"""Hash of the live settings that a Deployment was rendered with."""
MEMORY = f"{GROUP}/memory"
"""How the memory limit of a revision's searchers is computed."""
PROCESSES = f"{GROUP}/processes"
"""How many processes of a revision's searchers answer users."""
SHARD = f"{GROUP}/shard"
"""Of the pods of a shard and what is around them: its number."""
SHARDS = f"{GROUP}/shards"
"""How many a Job, or a revision whose pods a Deployment has, is about; none: it is in one part."""
ASKED = f"{GROUP}/asked"
"""What of the front Service was asked for by spec.searcher.service, so that it can be taken away."""
RENDERED = f"{GROUP}/rendered"
"""Hash of the manifest that an object was last applied from."""

Manifest = dict[str, Any]


def common(index: str, component: str, revision: str = "") -> dict[str, str]:
    """Labels of a child object."""
    labels = {
        "app.kubernetes.io/name": "vectorindex",
        "app.kubernetes.io/instance": index,
        COMPONENT: component,
        MANAGED_BY: OPERATOR,
        INDEX: index,
    }
    return labels | ({REVISION: revision} if revision else {})


def of_index(index: str) -> str:
    """The label selector of everything that was made for one VectorIndex."""
    return f"{INDEX}={index},{MANAGED_BY}={OPERATOR}"


def selector(revision: str) -> dict[str, str]:
    """Selects the pods of one revision that users reach, and nothing else."""
    return {COMPONENT: SEARCHER, REVISION: revision}


def shard_name(revision: str, number: int) -> str:
    """Of what is around the pods of one shard: at most 49 + 9 characters."""
    return f"{revision}-shard-{number}"


def of_shard(revision: str, number: int) -> dict[str, str]:
    """Selects the pods of one shard of a revision, and nothing else."""
    return {COMPONENT: SHARD_PODS, REVISION: revision, SHARD: str(number)}


def owner(view: IndexView | RevisionView) -> Manifest:
    """The controller reference to a VectorIndex or a VectorIndexRevision."""
    kind = "VectorIndex" if isinstance(view, IndexView) else "VectorIndexRevision"
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": view.name,
        "uid": view.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def metadata(
    name: str, namespace: str, labels: dict[str, str], owned_by: Manifest, annotations: dict[str, str] | None = None
) -> Manifest:
    """Object metadata with one owner."""
    meta: Manifest = {"name": name, "namespace": namespace, "labels": labels, "ownerReferences": [owned_by]}
    return meta | ({"annotations": annotations} if annotations else {})
